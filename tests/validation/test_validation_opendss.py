"""Public OpenDSS feeders (IEEE test feeders, EPRI): equal to OpenDSS run by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

import evgrid
from evgrid.feeder.networks import load_network
from evgrid.feeder.opendss.engine import Engine
from evgrid.feeder.solvers import balance, make_solver
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder

CASES = Path(__file__).parent

FEEDERS = {
    "ieee/4Bus-DY-Bal/4Bus-DY-Bal.DSS": 12,
    "ieee/4Bus-GrdYD-Bal/4Bus-GrdYD-Bal.DSS": 12,
    "ieee/4Bus-OYOD-Bal/4Bus-OYOD-Bal.DSS": 12,
    "ieee/4Bus-OYOD-UnBal/4bus-OYOD-UnBal.dss": 12,
    "ieee/4Bus-YD-Bal/4Bus-YD-Bal.DSS": 13,
    "ieee/4Bus-YY-Bal/4Bus-YY-Bal.DSS": 12,
    "ieee/13Bus/IEEE13Nodeckt.dss": 41,
    "ieee/34Bus/ieee34Mod1.dss": 95,
    "ieee/34Bus/ieee34Mod2.dss": 138,
    "ieee/37Bus/ieee37.dss": 117,
    "ieee/123Bus/IEEE123Master.dss": 278,
    "ieee/LVTestCaseNorthAmerican/Master.dss": 1170,
    "epri/K1/Master_NoPV.dss": 1751,
    "epri/ckt5/Master_ckt5.dss": 3437,
    "ieee/8500-Node/Master.dss": 8531,
    "ieee/8500-Node/Master-unbal.dss": 8531,
}
"""Number of nodes of each, as the folder's description has it."""

Z_BUS_PU = {
    "ieee/8500-Node/Master.dss": 1e-5,
    "ieee/8500-Node/Master-unbal.dss": 1e-5,
}
"""Largest difference of z-bus from the engine, pu, where it may exceed 1e-7: near the feeder's limit."""

ILL_CONDITIONED = {"ieee/LVTestCaseNorthAmerican/Master.dss"}
"""Feeders of which z-bus leaves every case to the engine, as its own voltages would not be within 1e-7 pu."""


@pytest.fixture(scope="module")
def opendss_data(shared_data):
    folder = shared_data / "opendss"
    if not folder.is_dir():
        pytest.skip(f"needs the OpenDSS feeders in {folder}")
    return folder


@pytest.mark.parametrize("name", FEEDERS)
def test_snapshot_is_that_of_the_engine_by_itself(name, opendss_data):
    """Every node, with the controls settled at the file's own load: 1e-9 pu; head and losses too."""
    path = opendss_data / name
    found = load_network(Feeder(network=str(path)))
    assert len(found.opendss.circuit.node) == FEEDERS[name]
    loads = found.grid.loads
    flow = make_solver(found, "opendss").solve(loads.p_kw[None], loads.q_kvar[None])
    z_bus = make_solver(found, "z-bus")
    again = z_bus.solve(loads.p_kw[None], loads.q_kvar[None])
    assert np.nanmax(np.abs(again.voltage_pu - flow.voltage_pu)) <= Z_BUS_PU.get(name, 1e-7)
    assert z_bus.newton_cases == (name in ILL_CONDITIONED)
    assert bool(z_bus.note) == (name in ILL_CONDITIONED)
    compiled = Engine(path, name)
    engine = compiled.circuit
    engine.Solution.Solve()
    assert engine.Solution.Converged
    by_itself = dict(zip((n.lower() for n in engine.AllNodeNames), engine.AllBusVmagPu, strict=True))
    worst = 0.0
    for bus, bus_name in enumerate(found.grid.buses.name.tolist()):
        for slot in range(3):
            if f"{bus_name}.{slot + 1}" in by_itself:
                worst = max(worst, abs(flow.voltage_pu[0, bus, slot] - by_itself[f"{bus_name}.{slot + 1}"]))
            else:
                assert np.isnan(flow.voltage_pu[0, bus, slot])
    assert worst <= 1e-9
    assert flow.head_p_kw.sum() == pytest.approx(-engine.TotalPower[0], rel=1e-7)
    assert flow.losses_kw[0] == pytest.approx(engine.Losses[0] / 1e3, rel=1e-6)
    assert balance(flow, loads.p_kw[None])[0] <= 1e-6


def day_by_itself(path, step_s):
    """Tap numbers of each regulator and lowest voltage after each step of OpenDSS' own daily run."""
    engine = Engine(path, str(path))
    circuit = engine.circuit
    engine.run(f"set mode=daily stepsize={step_s} number=1 controlmode=static hour=0")
    circuit.Solution.Solve()  # the controls settle at the load of the first step
    engine.run("set hour=0 sec=0 controlmode=time")
    taps, lowest = [], []
    for _ in range(86400 // step_s):
        circuit.Solution.Solve()
        taps.append([control.TapNumber for control in circuit.RegControls])
        volts = np.asarray(circuit.AllBusVmagPu)
        lowest.append(volts[volts > 0.01].min())
    return np.array(taps), np.array(lowest), [control.Transformer.lower() for control in circuit.RegControls]


@pytest.mark.parametrize(
    ("name", "step_s"),
    [
        ("ieee/13Bus/IEEE13Nodeckt.dss", 900),
        ("ieee/123Bus/IEEE123Master.dss", 300),
        pytest.param("ieee/123Bus/IEEE123Master.dss", 60, marks=pytest.mark.slow),
        pytest.param("ieee/8500-Node/Master.dss", 300, marks=pytest.mark.slow),
    ],
)
def test_a_day_has_the_tap_operations_of_opendss_own_daily_run(name, step_s, opendss_data, tmp_path):
    """With the engine's default daily shape on all loads: the same positions after every step."""
    path: Path = tmp_path / "day.dss"
    path.write_text(f'Redirect "{opendss_data / name}"\nbatchedit load..* daily=default\n')
    result = evgrid.run(
        {
            "name": "day",
            "time": {"start": "2026-01-15T00:00", "duration": "24h", "step": step_s},
            "feeder": {
                "network": str(path),
                "base_load": {"source": "net", "shape": "daily"},
                "unbalance": False,
            },
        }
    )
    taps, lowest, regulated = day_by_itself(path, step_s)
    assert np.ptp(taps, axis=0).max() > 0
    places = [[str(n).lower() for n in result.trafo.values].index(one) for one in regulated]
    assert np.array_equal(result.trafo_tap.values[0][:, places], taps)
    assert result.trafo_operations.values[0, places].tolist() == np.abs(np.diff(taps, axis=0)).sum(0).tolist()
    assert np.abs(result.voltage_min_pu.values[0] - lowest).max() <= 1e-9


@pytest.mark.parametrize("solver", ["opendss", "z-bus"])
@pytest.mark.parametrize(
    ("name", "line", "dead"),
    [
        ("ieee/13Bus/IEEE13Nodeckt.dss", "670671", 7),
        ("ieee/34Bus/ieee34Mod1.dss", "l29", 33),
        ("ieee/37Bus/ieee37.dss", "l4", 15),
        ("ieee/123Bus/IEEE123Master.dss", "sw2", 52),
        ("epri/ckt5/Master_ckt5.dss", "mdv201_c_1_067_abc8072", 259),
        pytest.param("ieee/8500-Node/Master.dss", "ln5920279-5", 659, marks=pytest.mark.slow),
    ],
)
def test_an_outage_leaves_what_the_engine_has_with_the_line_open(name, line, dead, solver, opendss_data):
    """Three hours without a line: no voltage downstream, all other nodes as the engine has them by itself.

    The engine keeps the loads that are without supply; ``dead`` of them, as many as it has without voltage.
    """
    path = opendss_data / name
    outage = {"start": "2h", "duration": "3h", "out": f"line {line}"}
    result = evgrid.run(
        {
            "name": "outage",
            "time": {"start": "2026-01-15T12:00", "duration": "6h", "step": 3600},
            "feeder": {
                "network": str(path), "base_load": {"source": "net"}, "controls": False, "solver": solver,
            },
            "outages": [outage],
        }
    )  # fmt: skip
    engine = Engine(path, name)
    engine.settle()
    whole = dict(
        zip((n.lower() for n in engine.circuit.AllNodeNames), engine.circuit.AllBusVmagPu, strict=True)
    )
    kw, losses = -engine.circuit.TotalPower[0], engine.circuit.Losses[0] / 1e3
    engine.run(f"Line.{line}.enabled=no")
    engine.circuit.Solution.Solve()
    left = dict(
        zip((n.lower() for n in engine.circuit.AllNodeNames), engine.circuit.AllBusVmagPu, strict=True)
    )
    assert (result.interrupted_min.values[0] == 180).sum() == dead
    without_voltage = 0
    for _ in engine.circuit.Loads:
        bus = engine.circuit.ActiveCktElement.BusNames[0].split(".")[0]
        engine.circuit.SetActiveBus(bus)
        without_voltage += max(np.asarray(engine.circuit.ActiveBus.VMagAngle)[::2]) < 1.0
    assert without_voltage == dead
    buses = {str(n): k for k, n in enumerate(result.bus.values)}
    worst = 0.0
    for node, volts in whole.items():
        bus, _, slot = node.rpartition(".")
        if slot in "123":
            found = result.voltage_pu.values[0, :, buses[bus], int(slot) - 1].astype(float)
            expected = np.full(6, volts)
            expected[2:5] = left[node] if left[node] > 1e-3 else 0.0
            worst = max(worst, np.abs(found - expected).max())
    assert worst <= 1e-7  # recorded in single precision
    lowest = min(
        volts for node, volts in left.items()
        if volts > 1e-3 and node[-1] in "123" and not result.bus_at_source[buses[node.rpartition(".")[0]]]
    )  # fmt: skip
    assert np.abs(result.voltage_min_pu.values[0, 2:5] - lowest).max() <= 1e-9 * (
        1 + 99 * (solver == "z-bus")
    )
    head = np.full(6, kw)
    head[2:5] = -engine.circuit.TotalPower[0]
    assert result.head_power_kw.sum("phase").values[0] == pytest.approx(head, rel=1e-7)
    lost = np.full(6, losses)
    lost[2:5] = engine.circuit.Losses[0] / 1e3
    assert result.losses_kw.values[0] == pytest.approx(lost, rel=1e-6)


@pytest.mark.parametrize("variant", ["published taps", "settled"])
def test_ieee_13_node_against_the_published_voltages(variant, opendss_data, tmp_path):
    """Both the solver and the engine by itself, each against the publication, and one against the other."""
    case = YAML(typ="safe").load((CASES / "ieee_13_node" / "case.yaml").read_text(encoding="utf-8"))
    published = pd.read_csv(CASES / "ieee_13_node" / "expected.csv", dtype={"bus": str}, index_col="bus")
    path = tmp_path / "ieee13.dss"
    text = f'Redirect "{opendss_data.parent / case["network"]}"\n'
    if variant == "published taps":
        text += "batchedit regcontrol..* enabled=no\n"
        text += "".join(f"Transformer.{t}.taps=[1.0 {tap}]\n" for t, tap in case["published_taps"].items())
    path.write_text(text)
    found = load_network(Feeder(network=str(path)))
    loads, names = found.grid.loads, found.grid.buses.name.tolist()
    flow = make_solver(found, "opendss").solve(loads.p_kw[None], loads.q_kvar[None])
    ours = flow.voltage_pu[0, [names.index(bus) for bus in published.index]]
    compiled = Engine(path, "ieee13")
    engine = compiled.circuit
    engine.Solution.Solve()
    at = dict(zip((n.lower() for n in engine.AllNodeNames), engine.AllBusVmagPu, strict=True))
    alone = np.array([[at.get(f"{bus}.{k}", np.nan) for k in (1, 2, 3)] for bus in published.index])
    assert np.array_equal(np.isnan(ours), published.isna().to_numpy())
    assert np.nanmax(np.abs(ours - alone)) <= case["same_as_the_engine_pu"]
    assert np.nanmax(np.abs(ours - published.to_numpy())) <= case["tolerance_pu"][variant]


def test_one_phase_out_leaves_the_loads_of_the_others(shared_data):
    """IEEE 13 without the regulator of phase a for 10 minutes: only loads at its node are not served."""
    network = str(shared_data / "opendss" / "ieee" / "13Bus" / "IEEE13Nodeckt.dss")
    content = {
        "name": "phase-a-out",
        "time": {"start": "2026-07-15T12:00", "duration": "30min", "step": "60s"},
        "feeder": {"network": network, "base_load": {"source": "net"}},
        "outages": {"schedule": [{"start": "10min", "duration": "10min", "out": "trafo reg1"}]},
    }
    result = evgrid.run(scenario_from(content)).isel(member=0)
    kw = {"671": 1155, "634a": 160, "692": 170, "675a": 485, "652": 128, "670a": 17}  # of the file
    for name, kwh in zip(result["connection"].values, result["not_served_kwh"].values, strict=True):
        assert kwh == pytest.approx(kw.get(str(name), 0) / 6), name
