"""How long a power flow takes: z-bus, power-grid-model, OpenDSS and pandapower.

European LV feeder (907 buses, three-phase, 55 loads); milliseconds a case, and ratios to z-bus, all
measured in one run. ``python benchmarks/power_flow.py [cases]``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Z_BUS = "z-bus (reduced, all buses recovered)"

SMOKE: dict[str, Any] = {"cases": 2, "repeats": 1, "feeder": "cigre_lv"}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def rows(cases: int = 1000, repeats: int = 3, feeder: str = "european_lv") -> list[dict[str, Any]]:
    """For the table of all benchmarks: milliseconds a case against z-bus."""
    from power_grid_model import CalculationMethod

    from evgrid.feeder.networks import load_network
    from evgrid.feeder.solvers.pandapower import PandapowerSolver
    from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver
    from evgrid.feeder.solvers.z_bus_solver import ZBusSolver
    from evgrid.scenario.feeder import Feeder

    network = load_network(Feeder(network=feeder))
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.0, 1.5, (cases, len(network.connections), 1))
    p, q = network.grid.loads.p_kw * scale, network.grid.loads.q_kvar * scale
    reduced, whole = (PowerGridModelSolver(network, reduce) for reduce in (True, False))
    z_bus, z_bus_whole = (ZBusSolver(network, reduce) for reduce in (True, False))
    reference = PandapowerSolver(network)

    def bare(solver: PowerGridModelSolver, count: int) -> Callable[[], Any]:
        update = {solver._load: solver._watts((p[:count], q[:count]))}
        return lambda: solver._calculate(update, CalculationMethod.iterative_current)

    few = min(cases, 5)
    measured = [
        (Z_BUS, cases, lambda: z_bus.solve(p, q)),
        ("z-bus, whole feeder", cases, lambda: z_bus_whole.solve(p, q)),
        ("z-bus, one by one", 1, lambda: z_bus.solve(p[:1], q[:1])),
        ("bare power-grid-model call, whole feeder", cases, bare(whole, cases)),
        ("power-grid-model, whole feeder", cases, lambda: whole.solve(p, q)),
        ("bare power-grid-model call, reduced", cases, bare(reduced, cases)),
        ("power-grid-model, reduced (all buses recovered)", cases, lambda: reduced.solve(p, q)),
        ("bare power-grid-model call, whole feeder, one by one", 1, bare(whole, 1)),
        ("bare power-grid-model call, reduced, one by one", 1, bare(reduced, 1)),
        ("power-grid-model, reduced, one by one", 1, lambda: reduced.solve(p[:1], q[:1])),
        ("a tick of the feeder with feedback, all recorded", 1, tick(network, feeder)),
        ("pandapower runpp_3ph", few, lambda: reference.solve(p[:few], q[:few])),
    ]
    dss = opendss(network, p, q)
    if dss is not None:
        measured.insert(3, ("OpenDSS, tolerance 1e-8, loads set and solved", cases, dss))
    result = []
    for name, count, call in measured:
        call()
        best = min(_seconds(call) for _ in range(repeats)) / count
        result.append((f"{name} ({count} cases)", 1e3 * best))
    base = result[0][1]
    return [
        {
            "what": name,
            "figure": f"{ms:.3f} ms a case",
            "against": Z_BUS,
            "reference": f"{base:.3f} ms",
            "ratio": ms / base,
        }
        for name, ms in result
    ]


def opendss(network: Any, p_kw: Any, q_kvar: Any) -> Callable[[], Any] | None:
    """Setting the loads of each case and solving it with OpenDSS; None where it isn't installed, or for
    another feeder. No voltage is read.
    """
    try:
        import opendssdirect as dss
    except ImportError:
        return None
    if network.source != "european_lv":
        return None
    from tests.support.opendss import build_circuit

    net, loads = network.net, network.grid.loads
    build_circuit(dss, net)
    kv = net.trafo.vn_lv_kv.iloc[0] / np.sqrt(3)
    for k, (bus, phase) in enumerate(zip(net.bus.index[loads.bus], loads.phase, strict=True)):
        dss.Text.Command(
            f"new load.h{k} phases=1 bus1=b{bus}.{phase + 1} kv={kv} kw=1 kvar=0 model=1 vminpu=.5 vmaxpu=1.5"
        )
    dss.Text.Command("set tolerance=1e-8 maxiterations=1000 controlmode=off")
    power = p_kw.sum(axis=2), q_kvar.sum(axis=2)

    def solve() -> None:
        for kw, kvar in zip(*power, strict=True):
            dss.Loads.First()
            for a, b in zip(kw, kvar, strict=True):
                dss.Loads.kW(a)
                dss.Loads.kvar(b)
                dss.Loads.Next()
            dss.Solution.Solve()
            assert dss.Solution.Converged()

    return solve


def tick(network: Any, feeder: str) -> Callable[[], Any]:
    """One step of the feeder model with EVs and feedback, recording everything."""
    from evgrid.core.model import MemoryRecorder
    from evgrid.feeder.model import FeederModel
    from evgrid.scenario import scenario_from

    scenario = scenario_from(
        {
            "name": "benchmark",
            "time": {"start": "2026-01-15T12:00", "duration": "24h", "step": "60s"},
            "feeder": {"network": feeder},
        }
    )
    model = FeederModel(scenario, network, MemoryRecorder(), fleet=True, feedback=True)
    power = np.ones((1, len(network.connections), len(network.connections.phases)))
    steps = iter(range(scenario.clock.ticks))
    return lambda: model.step(60.0 * next(steps), {"fleet/p": power, "fleet/q": 0.1 * power})


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["power_flow"])
