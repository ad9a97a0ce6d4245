"""A day of the IEEE 8500-node feeder with 2,000 EVs under a limit, over HELICS, and OpenDSS alone.

The feeder's files are OpenDSS', not part of the project; ``EVGRID_SHARED_DATA`` names their folder. The bare
loop sets the power of every load and EV that the run recorded and solves, with the tolerance of the run;
nothing is read. ``python -m benchmarks opendss_day``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(os.environ.get("EVGRID_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
TOLERANCE = 1e-10

SMOKE: dict[str, Any] = {"feeder": "13Bus/IEEE13Nodeckt.dss", "evs": 20, "hours": 0.2}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def rows(
    feeder: str = "8500-Node/Master.dss", evs: int = 2000, hours: float = 24, limit_kw: float = 12000.0
) -> list[dict[str, Any]]:
    """The run with the file's controls held, and live; its power flow against the bare loop."""
    path, what = DATA / "opendss" / "ieee" / feeder, f"OpenDSS {feeder}, {evs:,} EVs, {hours:g} h at 1 min"
    if not path.is_file():
        return [{"what": what, "figure": "its files are not there"}]
    found = list[dict[str, Any]]()
    for live in (False, True):
        scenario = {
            "name": "day",
            "time": {"start": "2026-07-15T12:00", "duration": f"{hours * 60:g}min", "step": "60s"},
            "feeder": {"network": str(path), "controls": live, "households": 2},
            "fleet": {"count": evs, "charger": {"power_kw": 7.2, "nominal_v": 240}},
            "aggregators": {"main": {"strategy": "peak_limit", "limit_kw": limit_kw}},
            "record": {"buses": "none", "lines": "none", "connections": True},
        }
        wall_s, flow_s, alone_s = measured(scenario, path)
        found.append(
            {
                "what": f"{what}, controls {'live' if live else 'held'}",
                "figure": f"{wall_s:.1f} s, of which flow {flow_s:.1f} s",
                "against": "flow: a bare loop of OpenDSS",
                "reference": f"{alone_s:.1f} s",
                "ratio": flow_s / alone_s,
            }
        )
    return found


def measured(scenario: dict[str, Any], path: Path) -> tuple[float, float, float]:
    """Seconds of a run, of its power flow, and of the bare loop."""
    from evgrid.runs.simulation import run_with_report
    from evgrid.scenario import scenario_from

    given = scenario_from(scenario)
    run_with_report(scenario_from(scenario, {"time.duration": "2min"}))  # compile and import
    begin = time.perf_counter()
    result, report = run_with_report(given)
    wall_s = time.perf_counter() - begin
    live = scenario["feeder"]["controls"]
    return wall_s, report.split_s["feeder"], bare_s(path, result.isel(member=0), live)


def bare_s(path: Path, result: Any, live: bool) -> float:
    """Seconds in which OpenDSS solves the recorded steps, with the power of its loads set for each."""
    from dss import DSS

    engine = DSS.NewContext()
    engine.Text.Command = f'compile "{path}"'
    circuit, solution = engine.ActiveCircuit, engine.ActiveCircuit.Solution
    solution.MaxIterations = solution.MaxControlIterations = 100
    solution.Solve()
    here = result["connection"].values[result["connection_bus"].values != ""].tolist()
    evs = result["connection_ev_power_kw"].sum("phase").sel(connection=here).values
    kw = result["connection_power_kw"].sum("phase").sel(connection=here).values
    kvar = result["connection_reactive_kvar"].sum("phase").sel(connection=here).values
    for name in here:
        circuit.Loads.Name = name
        bus, kv = circuit.ActiveCktElement.BusNames[0], circuit.Loads.kV
        engine.Text.Command = f'new load.ev_{name} like={name} bus1="{bus}" kv={kv} kw=0 kvar=0'
    place = []
    for name in [*here, *(f"ev_{name}" for name in here)]:
        circuit.Loads.Name = name
        place.append(circuit.Loads.idx)
    steps = np.concatenate([kw, evs], axis=1), np.concatenate([kvar, 0 * evs], axis=1)
    solution.Tolerance = TOLERANCE
    if live:
        solution.Mode, solution.ControlMode, solution.Number, solution.StepSize = 16, 2, 1, 60.0
    else:
        solution.ControlMode = -1
    before = np.full(len(place), np.nan)
    begin = time.perf_counter()
    for p, q in zip(*steps, strict=True):
        for at in np.flatnonzero(p != before).tolist():
            circuit.Loads.idx = place[at]
            circuit.Loads.kW, circuit.Loads.kvar = p[at], q[at]
        before = p
        solution.Solve()
    return time.perf_counter() - begin
