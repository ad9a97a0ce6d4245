"""Networks from OpenDSS: their tables, ports of loads and chargers, and a coupled run."""

from __future__ import annotations

import gc
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import evgrid
from evgrid.core.model import ALL_PHASES
from evgrid.errors import NetworkError, PowerFlowError, ScenarioError
from evgrid.feeder.describe import describe_network
from evgrid.feeder.networks import load_network
from evgrid.feeder.opendss.engine import Engine
from evgrid.feeder.opendss.tables import GROUND
from evgrid.feeder.solvers import balance, make_solver, opendss_z_bus
from evgrid.feeder.solvers import opendss as opendss_solver
from evgrid.results.limits import Criterion, default_limits, limit_set, violations
from evgrid.results.metrics import summary
from evgrid.results.plots import plot_voltage_profile
from evgrid.scenario.feeder import Feeder

SPLIT = """Clear
Set DefaultBaseFrequency=60
New Circuit.c basekv=12.47 bus1=src pu=1.0 r1=0 x1=1e-6 r0=0 x0=1e-6
New Line.main bus1=src.1.2.3 bus2=mv.1.2.3 r1=0.3 x1=0.4 r0=0.9 x0=1.2 c1=0 c0=0 normamps=300
~ length=2 units=km
New Transformer.t phases=1 windings=3 xhl=2 xht=2 xlt=1.4
~ wdg=1 bus=mv.2 kv=7.2 kva=25 %r=0.6
~ wdg=2 bus=tx.1.0 kv=0.12 kva=25 %r=1.2
~ wdg=3 bus=tx.0.2 kv=0.12 kva=25 %r=1.2
New Line.drop phases=2 bus1=tx.1.2 bus2=home.1.2 r1=0.5 x1=0.2 r0=0.5 x0=0.2 c1=0 c0=0 normamps=200
~ length=0.03 units=km
New Transformer.t3 phases=3 windings=2 xhl=4
~ wdg=1 bus=mv conn=delta kv=12.47 kva=300 %r=0.5
~ wdg=2 bus=shop conn=wye kv=0.208 kva=300 %r=0.5
New Load.leg phases=1 bus1=home.1 kv=0.12 kw=1.2 kvar=0.2
New Load.oven phases=1 bus1=home.1.2 kv=0.24 kw=3 kvar=0
New Load.shop phases=3 bus1=shop kv=0.208 kw=30 kvar=9
New Load.single phases=1 bus1=mv.3 kv=7.2 kw=50 kvar=20 model=5
New Capacitor.cap bus1=mv kvar=60 kv=12.47
Set voltagebases=[12.47 0.208]
CalcVoltageBases
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.dss"
    path.write_text(SPLIT)
    return path


def network(path, charger_v=240.0):
    return load_network(Feeder(network=str(path)), True, charger_v)


def test_tables(path):
    found = network(path)
    grid, circuit = found.grid, found.opendss.circuit
    assert grid.lines.name.tolist() == ["main", "drop"]
    assert grid.lines.rating_ka.tolist() == [0.3, 0.2]
    assert grid.lines.length_km == pytest.approx([2.0, 0.03])
    assert grid.trafos.name.tolist() == ["t", "t3"]
    assert grid.trafos.rating_kva.tolist() == [25.0, 300.0]
    assert grid.loads.name.tolist() == ["leg", "oven", "shop", "single"]
    assert grid.loads.p_kw.tolist() == [[1.2, 0, 0], [3, 0, 0], [10, 10, 10], [0, 0, 50]]
    by_bus = dict(zip(grid.buses.name.tolist(), circuit.nodes_of_bus().tolist(), strict=True))
    assert by_bus == {"src": "a b c", "mv": "a b c", "tx": "s1 s2", "home": "s1 s2", "shop": "a b c"}
    assert found.topology.trafo[grid.loads.bus].tolist() == [0, 0, 1, -1]


def ports(found):
    """Ports of the chargers at each connection point, as pairs of node names, and the slot of one phase."""
    circuit = found.opendss.circuit
    names = [*circuit.node.tolist(), "ground"]
    pairs = []
    for start, end in zip(circuit.chargers.start, circuit.chargers.end, strict=True):
        pairs.append([(names[a], names[b]) for a, b in zip(start, end, strict=True) if a != GROUND])
    return pairs, found.connections.phase.tolist()


def test_chargers_are_connected_as_their_voltage_asks(path):
    shop = [("shop.1", "shop.2"), ("shop.2", "shop.3"), ("shop.3", "shop.1")]
    pairs, phase = ports(network(path, 240.0))
    assert pairs == [[("home.1", "home.2")], [("home.1", "home.2")], shop,
                     [("mv.3", "ground")]]  # fmt: skip
    assert phase == [2, 2, ALL_PHASES, 2]
    assert network(path, 240.0).coordinates()["connection_phase"][1].tolist() == [
        "s1-s2",
        "s1-s2",
        "a-b b-c c-a",
        "c",
    ]
    pairs, phase = ports(network(path, 120.0))
    legs = [("home.1", "ground"), ("home.2", "ground")]
    assert pairs[:3] == [legs, legs, [(f"shop.{k}", "ground") for k in (1, 2, 3)]]
    assert phase[:2] == [0, 0]


def solved(path, charging, charger_v=240.0, solver="opendss"):
    found = network(path, charger_v)
    solver = make_solver(found, solver)
    loads = found.grid.loads
    own = loads.p_kw[None], loads.q_kvar[None]
    p = own[0].copy()
    for row, slot, kw in charging:
        p[0, row, slot] += kw
    flow = solver.solve(p, own[1], nominal=own)
    assert balance(flow, p)[0] < 1e-7
    return found, flow


def test_split_phase_service_by_hand(path):
    """7.2 kW across both legs at home: the drop along 30 m of 0.5 + j0.2 ohm/km on either leg, from 240 V."""
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("New Load")) +
                    "\nNew Load.house phases=1 bus1=home.1.2 kv=0.24 kw=0.001 kvar=0\n")  # fmt: skip
    found, flow = solved(path, [(0, 2, 7.2)])
    at = {name: k for k, name in enumerate(found.grid.buses.name.tolist())}
    z = 2 * 0.03 * (0.5 + 0.2j)
    base = 208 / np.sqrt(3)  # the file's voltage base of 0.208 kV, to the neutral
    before = flow.voltage_pu[0, at["tx"], :2].sum() * base
    volts = before
    for _ in range(100):
        volts = before - z * np.conj(7201.0 / volts)
    amps, volts = 7201.0 / abs(volts), abs(volts)
    assert flow.connection_pu[0, 0, 2] * 2 * base == pytest.approx(volts, rel=1e-7)
    assert flow.voltage_pu[0, at["home"], :2] * base == pytest.approx(volts / 2, rel=1e-3)
    assert flow.voltage_pu[0, at["home"], :2].sum() * base == pytest.approx(volts, rel=1e-7)
    assert np.isnan(flow.voltage_pu[0, at["home"], 2])
    assert flow.line_loading[0, 1, :2].tolist() == pytest.approx([amps / 200] * 2, rel=1e-6)
    primary = flow.trafo_loading[0, 0]
    assert primary.argmax() == 1  # the service is on phase b
    assert primary[1] == pytest.approx(7.2 / 25, rel=0.02)


def test_a_charger_on_one_leg_lowers_that_leg(path):
    found, flow = solved(path, [(0, 1, 1.4)], charger_v=120.0)
    base = solved(path, [], charger_v=120.0)[1]
    home = found.grid.buses.name.tolist().index("home")
    fall = base.voltage_pu[0, home, :2] - flow.voltage_pu[0, home, :2]
    assert fall[1] > 0.002
    assert fall[0] < fall[1] / 3
    assert flow.connection_pu[0, 0, :2].tolist() == pytest.approx(
        flow.voltage_pu[0, home, :2].tolist(), rel=1e-12
    )


@pytest.mark.parametrize("solver", ["opendss", "z-bus"])
def test_power_in_any_slot_reaches_the_ports_of_the_load(solver, path):
    """A site gives its power in the slot of its chargers, across both legs; the load is on one."""
    found = network(path)
    loads, solve = found.grid.loads, make_solver(found, solver).solve
    elsewhere = [np.zeros_like(x)[None] for x in (loads.p_kw, loads.q_kvar)]
    for moved, own in zip(elsewhere, (loads.p_kw, loads.q_kvar), strict=True):
        moved[0, :, 2] = own.sum(axis=1)
    flow, same = solve(*elsewhere), solve(loads.p_kw[None], loads.q_kvar[None])
    assert balance(flow, elsewhere[0])[0] < 1e-7
    assert np.nanmax(np.abs(flow.voltage_pu - same.voltage_pu)) < 1e-9


@pytest.mark.parametrize("solver", ["opendss", "z-bus"])
def test_evs_where_there_is_no_port_are_named(solver, path):
    found = network(path)
    loads = found.grid.loads
    p = loads.p_kw[None].copy()
    p[0, 1, 0] += 7.2
    with pytest.raises(PowerFlowError, match="EVs at oven have 7.2 kVA on phase a, to which no charger"):
        make_solver(found, solver).solve(
            p, loads.q_kvar[None], nominal=(loads.p_kw[None], loads.q_kvar[None])
        )


def test_208_v_between_two_phases(path):
    """6.6 kW between phases b and c of the shop: the current of 6.6 kW / V flows in both, none in a."""
    found, flow = solved(path, [(2, 1, 6.6)])
    base = solved(path, [])[1]
    change = np.abs(flow.trafo_lv_p_kw - base.trafo_lv_p_kw)[0, 1]
    assert change[0] < 0.1
    assert change[1:].sum() == pytest.approx(6.6, abs=0.1)
    assert found.connections.phase[2] == ALL_PHASES


@pytest.mark.parametrize(("solver", "tolerance"), [("opendss", 1e-9), ("z-bus", 0.0)])
def test_a_batch_is_its_cases(solver, tolerance, path):
    found = network(path)
    solve, loads = make_solver(found, solver).solve, found.grid.loads
    scale = np.array([1.0, 0.3, 1.7, -0.5, 0.0])[:, None, None]
    p, q = scale * loads.p_kw, scale * loads.q_kvar
    together = solve(p, q)
    alone = [make_solver(found, solver).solve(p[k : k + 1], q[k : k + 1]) for k in range(len(p))]
    assert np.nanmax(np.abs(together.voltage_pu - np.concatenate([f.voltage_pu for f in alone]))) <= tolerance


def test_voltages_of_a_network_of_60_hz_are_judged_by_ansi(path):
    result = evgrid.run(
        {
            "name": "sixty",
            "time": {"start": "2026-07-01T00:00", "duration": "10min"},
            "feeder": {"network": str(path), "base_load": {"source": "net"}},
        }
    )
    names, why = default_limits(result)
    assert names == ("ansi_c84_1_a", "ratings", "aggregators")
    assert why == "as the network has 60 Hz"
    assert default_limits(result.assign_attrs(frequency_hz="50"))[0][0] == "en_50160"


def test_what_is_said_of_tap_changers(tmp_path):
    (tmp_path / "reg.dss").write_text(REGULATED)
    facts = dict(describe_network(Feeder(network=str(tmp_path / "reg.dss"))).facts)
    assert facts["tap changers"] == "1 of RegControls: reg"
    assert "regulated transformers" not in facts


@pytest.mark.parametrize("solver", ["opendss", "z-bus"])
def test_unbalance_is_left_out_where_it_is_not_asked_for(solver, path):
    found = network(path)
    power = found.grid.loads.p_kw[np.newaxis], found.grid.loads.q_kvar[np.newaxis]
    whole, part = (
        make_solver(found, solver, unbalance=some).solve(*power).tables() for some in (True, False)
    )
    left_out = {"voltage_unbalance", "neutral_a", "trafo_neutral_a"}
    for name in whole:
        if name in left_out:
            assert whole[name].size
            assert part[name].shape == (1, 0)
        else:
            assert np.array_equal(whole[name], part[name], equal_nan=True), name


def test_z_bus_is_the_engine(path):
    """Loads of all models, EVs on legs and between phases, and a collapse that the engine has to settle."""
    found = network(path)
    loads, there = found.grid.loads, found.opendss.circuit.chargers.there
    rng = np.random.default_rng(5)
    scale = rng.uniform(-0.5, 1.5, (40, len(loads.name), 1))
    own = scale * loads.p_kw, scale * loads.q_kvar
    p = own[0] + np.where(there, rng.uniform(-5, 8, own[0].shape), 0.0)
    q = own[1] + np.where(there, rng.uniform(-3, 3, own[0].shape), 0.0)
    z_bus = make_solver(found, "z-bus")
    by_z_bus = z_bus.solve(p, q, nominal=own)
    by_engine = make_solver(found, "opendss").solve(p, q, nominal=own)
    assert z_bus.newton_cases == 0
    for name, values in by_z_bus.tables().items():
        expected = by_engine.tables()[name]
        assert np.array_equal(np.isnan(values), np.isnan(expected)), name
        assert np.nanmax(np.abs(values - expected) / np.maximum(1.0, np.abs(expected)), initial=0.0) < 1e-6, (
            name
        )
    assert np.nanmax(np.abs(by_z_bus.voltage_pu - by_engine.voltage_pu)) < 1e-8
    failed = {}
    p[3, 1, 2] += 900.0
    z_bus.solve(p, q, nominal=own, failed=failed)
    assert list(failed) == [3]


def test_an_ill_conditioned_network_is_left_to_the_engine(path):
    """A ring of switches of some 1e-12 ohm behind a line of 0.015 ohm."""
    ring = (("a", "home", "one", "1e-12"), ("b", "one", "two", "3e-12"), ("c", "two", "home", "7e-12"))
    switches = "".join(
        f"New Line.{name} phases=2 bus1={start}.1.2 bus2={end}.1.2\n"
        f"~ r1={ohm} x1={ohm} r0={ohm} x0={ohm} c1=0 c0=0\n"
        for name, start, end, ohm in ring
    )
    path.write_text(
        SPLIT.replace("New Load.leg phases=1 bus1=home.1", f"{switches}New Load.leg phases=1 bus1=two.1")
    )
    found = network(path)
    loads = found.grid.loads
    power = np.stack([loads.p_kw, 0.5 * loads.p_kw]), np.stack([loads.q_kvar, loads.q_kvar])
    z_bus = make_solver(found, "z-bus")
    flow = z_bus.solve(*power)
    assert z_bus.newton_cases == 2
    expected = make_solver(found, "opendss").solve(*power)
    assert np.array_equal(flow.voltage_pu, expected.voltage_pu, equal_nan=True)
    chosen = make_solver(found)
    assert (chosen.name, chosen.note) == ("opendss", z_bus.note)
    said = dict(describe_network(Feeder(network=str(path))).facts)["feeder.solver: auto"]
    assert said.startswith("opendss: the admittance matrix is ill-conditioned: z-bus would be in error by")


def test_a_run_says_why_the_engine_solves_in_place_of_z_bus(path, monkeypatch):
    monkeypatch.setattr(opendss_z_bus, "LARGEST_ERROR", 0.0)
    run = {
        "name": "handed",
        "time": {"start": "2026-01-15T12:00", "duration": "10min", "step": 300},
        "feeder": {"network": str(path), "base_load": {"source": "net"}},
        "fleet": {"count": 1, "charger": {"power_kw": 7.2, "nominal_v": 240}},
    }
    result = evgrid.run(run)
    assert result.attrs["solver"] == "opendss"
    assert result.attrs["solver_note"].startswith("the admittance matrix is ill-conditioned")
    assert result.attrs["newton_solutions"] == "0"
    run["feeder"]["solver"] = "z-bus"
    handed = evgrid.run(run)
    assert handed.attrs["solver"] == "z-bus"
    assert handed.attrs["solver_note"] == result.attrs["solver_note"]
    assert int(handed.attrs["newton_solutions"]) == 2  # steps
    assert np.array_equal(handed.voltage_pu, result.voltage_pu, equal_nan=True)


def test_a_coupled_run(path):
    result = evgrid.run(
        {
            "name": "split",
            "time": {"start": "2026-01-15T12:00", "duration": "24h", "step": 300},
            "feeder": {"network": str(path), "base_load": {"source": "net"}},
            "fleet": {"count": 4, "charger": {"power_kw": 7.2, "nominal_v": 240}},
        }
    )
    assert result.attrs["phases"] == "three, solved separately"
    assert result.bus_nodes.values.tolist()[-2:] == ["s1 s2", "a b c"]
    assert float(result.fleet_power_kw.sum()) > 0
    assert "trafo_tap" not in result  # the file has no controls


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            {"solver": "power-grid-model"},
            "solver = power-grid-model: must be opendss or z-bus for a network from OpenDSS",
        ),
        ({"solver": "pandapower"}, "solver = pandapower: must be opendss or z-bus"),
        ({"phases": 1}, "phases = 1: the phases of a network from OpenDSS are always solved separately"),
        (
            {"tap_changers": [{"trafo": "t3", "deadband_pu": 0.02}]},
            "tap_changers: is for networks of pandapower; .* the file's own elements RegControl act, while",
        ),
        (
            {"capacitors": [{"shunt": "cap", "deadband_pu": 0.02}]},
            "capacitors: is for networks of pandapower; .* the file's own elements CapControl act, while",
        ),
        ({"base_load": {"source": "net", "shape": "daily"}}, "no load of .* has such a load shape"),
        ({"base_load": {"source": "none", "shape": "daily"}}, "shape = daily: is of the network's own loads"),
        ({"network": "european_lv", "solver": "opendss"}, "solver = opendss: needs a network from OpenDSS"),
        ({"network": "european_lv", "controls": False}, "controls = false: is for networks from OpenDSS"),
        ({"network": "european_lv", "base_load": {"source": "net", "shape": "duty"}}, "is for networks from"),
    ],
)
def test_settings_that_do_not_fit(settings, why, path):
    scenario = {
        "name": "x",
        "time": {"start": "2026-01-15T12:00", "duration": "1h", "step": 900},
        "feeder": {"network": str(path), "base_load": {"source": "net"}} | settings,
    }
    with pytest.raises(ScenarioError, match=why):
        evgrid.run(scenario)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("New Storage.s bus1=mv kv=12.47 kwrated=10 kwhrated=20", "Storage 's' has no model here"),
        (
            "New Load.odd bus1=mv kv=12.47 kw=nan kvar=0",
            r"load 'odd' has kW = nan and kvar = 0: must be finite",
        ),
        ("New Load.odd bus1=mv kv=12.47 kw=1 kvar=0 model=3", r"load 'odd' has model 3; represented are 1"),
    ],
)
def test_elements_without_a_model_are_refused_by_name(line, why, path):
    path.write_text(f"{SPLIT}\n{line}\n")
    with pytest.raises(NetworkError, match=why):
        network(path)


REGULATED = """Clear
Set DefaultBaseFrequency=60
New Circuit.r basekv=12.47 bus1=src pu=1.0 r1=0 x1=0.001 r0=0 x0=0.001
New Transformer.reg phases=3 windings=2 xhl=0.01 %loadloss=0.001
~ wdg=1 bus=src kv=12.47 kva=5000
~ wdg=2 bus=reg kv=12.47 kva=5000
New RegControl.reg transformer=reg winding=2 vreg=122 band=1.5 ptratio=60 delay=30 tapdelay=5
~ bus=end.1
New Line.main bus1=reg bus2=end r1=0.6 x1=0.8 r0=1.2 x0=1.8 c1=0 c0=0 normamps=300
~ length=8 units=km
New LoadShape.ramp npts=4 interval=0.5 mult=[0.2 1.0 0.6 0.1]
New Load.a phases=3 bus1=end kv=12.47 kw=2000 kvar=700 daily=ramp
New Load.b phases=1 bus1=end.2 kv=7.2 kw=300 kvar=50 model=2
New Capacitor.c bus1=end kv=12.47 kvar=300
New CapControl.c capacitor=c element=line.main terminal=1 type=kvar ptratio=1 ctratio=1 onsetting=200
~ offsetting=-100 delay=60 delayoff=90
Set voltagebases=[12.47]
CalcVoltageBases
"""


def regulated(tmp_path, **feeder):
    path = tmp_path / "reg.dss"
    path.write_text(REGULATED)
    return path, evgrid.run(
        {
            "name": "reg",
            "time": {"start": "2026-01-15T00:00", "duration": "2h", "step": 60},
            "feeder": {"network": str(path), "base_load": {"source": "net", "shape": "daily"}} | feeder,
        }
    )


def test_live_controls_and_load_shapes_are_those_of_opendss_own_daily_run(tmp_path):
    path, result = regulated(tmp_path)
    engine = Engine(path, "reg")
    engine.run("set mode=daily stepsize=60 number=1 controlmode=static hour=0")
    engine.circuit.Solution.Solve()  # the controls settle at the load of the first step
    engine.run("set hour=0 sec=0 controlmode=time")
    circuit, taps, steps, head, amps = engine.circuit, [], [], [], []
    for _ in range(120):
        circuit.Solution.Solve()
        taps.append(circuit.RegControls.TapNumber)
        steps.append(sum(circuit.Capacitors.States))
        head.append(-circuit.TotalPower[0])
        circuit.SetActiveElement("Transformer.reg")
        amps.append(np.abs(np.array(circuit.ActiveCktElement.Currents).view(complex)).max())
    assert np.ptp(taps) > 2
    assert np.ptp(steps) == 1
    assert result.trafo_tap.values[0, :, 0].tolist() == taps
    assert result.shunt_step.values[0, :, 0].tolist() == steps
    assert result.trafo_operations.values[0, 0] == np.abs(np.diff(taps)).sum()
    assert result.head_power_kw.sum("phase").values[0] == pytest.approx(np.array(head), rel=1e-7)
    rated_a = 5000 / (np.sqrt(3) * 12.47)
    assert result.trafo_loading.values[0, :, 0] * rated_a == pytest.approx(np.array(amps), rel=1e-6)


def test_without_controls_all_stays_as_the_files_own_load_settles_it(tmp_path):
    path, result = regulated(tmp_path, controls=False)
    assert "trafo_tap" not in result
    compiled = Engine(path, "reg")
    engine = compiled.circuit
    engine.Solution.Solve()
    tap = engine.Transformers.Tap
    engine.RegControls.Name = "reg"
    load = re.sub(r"New (Reg|Cap)Control.*\n~.*\n", "", REGULATED)
    fixed = tmp_path / "fixed.dss"
    state = sum(engine.Capacitors.States)
    fixed.write_text(f"{load}\nTransformer.reg.taps=[1 {tap!r}]\nCapacitor.c.states=[{state}]\n")
    again = evgrid.run(
        {
            "name": "fixed",
            "time": {"start": "2026-01-15T00:00", "duration": "2h", "step": 60},
            "feeder": {"network": str(fixed), "base_load": {"source": "net", "shape": "daily"}},
        }
    )
    assert np.abs(result.voltage_pu.values - again.voltage_pu.values).max() < 1e-6
    free = regulated(tmp_path)[1]
    assert np.abs(result.voltage_min_pu.values - free.voltage_min_pu.values).max() > 0.01


def test_z_bus_is_refused_where_controls_act_in_time(tmp_path):
    with pytest.raises(
        NetworkError, match="solver = z-bus: the controls of .* act in time; must be opendss, or"
    ):
        regulated(tmp_path, solver="z-bus")
    assert regulated(tmp_path, solver="z-bus", controls=False)[1].attrs["solver"] == "z-bus"


def test_a_home_with_a_battery_behind_a_centre_tap_beside_live_controls(tmp_path):
    path = tmp_path / "home.dss"
    control = "New RegControl.r transformer=t3 winding=2 vreg=120 band=2 ptratio=1\n"
    path.write_text(SPLIT.replace("Set voltagebases", f"{control}Set voltagebases"))
    result = evgrid.run(
        {
            "name": "home", "time": {"start": "2026-06-15T08:00", "duration": "4h", "step": 900},
            "feeder": {"network": str(path), "base_load": {"source": "net"}},
            "sites": {"home": {"connections": ["oven"], "battery": {"capacity_kwh": 10, "charge_kw": 3},
                               "interconnection": {"approval": "export"}}},
        }
    )  # fmt: skip
    assert result.attrs["solver"] == "opendss"
    assert float(result.site_power_kw.max()) > 0


def live_members(tmp_path, threads, monkeypatch, members=7):
    """Several steps of a solver whose members are solved in one or more threads."""
    path = tmp_path / "reg.dss"
    path.write_text(REGULATED)
    monkeypatch.setattr("evgrid.core.jit.THREADS", threads)
    monkeypatch.setattr(opendss_solver, "LEAST_NODES", 0)
    found = network(path)
    solver, loads = make_solver(found, "opendss", members=members, controls_step_s=60.0), found.grid.loads
    rng = np.random.default_rng(8)
    for _ in range(12):
        scale = rng.uniform(-0.3, 1.3, (members, 1, 1))
        own = scale * loads.p_kw, scale * loads.q_kvar
        yield solver, own


def test_members_in_threads_are_those_of_one_thread_bit_for_bit(tmp_path, monkeypatch):
    found = [
        [
            (solver.solve(*own, nominal=own), solver.positions)
            for solver, own in live_members(tmp_path, threads, monkeypatch)
        ]
        for threads in (1, 3)
    ]
    for (alone, positions), (together, others) in zip(*found, strict=True):
        assert np.array_equal(positions.tap, others.tap)
        assert np.array_equal(positions.shunt, others.shunt)
        for name, values in alone.tables().items():
            assert np.array_equal(values, together.tables()[name], equal_nan=True), name
    assert np.ptp([positions.tap for _, positions in found[0]]) > 2


@pytest.mark.parametrize("threads", [1, 3])
def test_one_member_without_solution_is_named(threads, tmp_path, monkeypatch):
    solver, own = next(live_members(tmp_path, threads, monkeypatch, 10))
    p = own[0].copy()
    p[4] += 1e6 * solver.network.opendss.circuit.chargers.there
    with pytest.raises(PowerFlowError, match="did not converge: member 4: .*"):
        solver.solve(p, own[1], lambda case: f"member {case}", nominal=own)
    failed = {}
    flow = solver.solve(p, own[1], nominal=own, failed=failed)
    assert list(failed) == [4]
    assert np.isnan(flow.voltage_pu[4]).all()
    assert np.isfinite(flow.losses_kw[np.arange(10) != 4]).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_thread_is_raised(threads, tmp_path, monkeypatch):
    solver, own = next(live_members(tmp_path, threads, monkeypatch))

    def solve(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(solver._engines[-1], "solve", solve)
    with pytest.raises(KeyboardInterrupt):
        solver.solve(*own, nominal=own)


def test_a_circuit_is_cleared_with_its_engine(path):
    engine = Engine(path, "net")
    dss = engine.dss
    assert dss.NumCircuits == 1
    del engine
    gc.collect()
    assert dss.NumCircuits == 0


MOVED_ENVIRONMENT = """
import os, sys, threading
from pathlib import Path
os.environ["BEFORE"] = "1"
from evgrid.feeder.opendss.engine import Engine
engine = Engine(Path(sys.argv[1]), "net")
for number in range(900):
    os.environ[f"LATER_{number}"] = 100 * "x"
taken = [bytearray(b"\\xff" * size) for size in range(100, 20000, 7)]
for thread in [threading.Thread(target=engine.build) for _ in range(5)]:
    thread.start()
    thread.join()
print(os.environ["BEFORE"], len(os.environ["LATER_899"]))
"""


def test_environment_that_grows_after_the_engine_is_loaded(path):
    """The engine reads the environment in each new thread; the process used to crash."""
    done = subprocess.run(
        [sys.executable, "-c", MOVED_ENVIRONMENT, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1 100\n"), done.stderr


def test_members_have_controls_of_their_own(tmp_path):
    """Three members of other EVs, together and each by itself: the same positions and voltages."""

    def run(**ensemble):
        path = tmp_path / "reg.dss"
        path.write_text(REGULATED)
        return evgrid.run(
            {
                "name": "reg", "ensemble": {"seed": 3} | ensemble,
                "time": {"start": "2026-01-15T17:00", "duration": "2h", "step": 300},
                "feeder": {"network": str(path), "households": 120,
                           "base_load": {"source": "net", "shape": "daily"}},
                "fleet": {"count": 200, "charger": {"power_kw": 11}},
            }
        )  # fmt: skip

    together = run(members=3)
    for member in range(3):
        alone = run(members=1, first=member)
        assert np.array_equal(alone.trafo_tap.values[0], together.trafo_tap.values[member])
        assert np.array_equal(alone.voltage_pu.values[0], together.voltage_pu.values[member])
    assert np.ptp(together.voltage_min_pu.values, axis=0).max() > 1e-4


@pytest.mark.parametrize(("leg", "kw"), [("s1", [5, 0]), ("s2", [0, 5])])
def test_legs_are_called_s1_and_s2(leg, kw, path):
    """A load of 5 kW on one leg of a drop rated at 30 A: coordinates, violations, summary, picture."""
    text = path.read_text().replace("normamps=200", "normamps=30")
    loads = "".join(
        f"New Load.leg{k} phases=1 bus1=home.{k} kv=0.12 kw={power}\n" for k, power in enumerate(kw, 1)
    )
    path.write_text(text.replace("New Load.leg phases=1 bus1=home.1 kv=0.12 kw=1.2 kvar=0.2\n", loads))
    result = evgrid.run(
        {
            "name": "legs", "time": {"start": "2026-01-15T00:00", "duration": "1h", "step": "1h"},
            "feeder": {"network": str(path), "base_load": {"source": "net"}},
        }
    )  # fmt: skip
    assert result.line_nodes.values.tolist() == ["a b c", "s1 s2"]
    assert dict(zip(result.bus.values.tolist(), result.bus_nodes.values.tolist(), strict=True)) == {
        "src": "a b c", "mv": "a b c", "tx": "s1 s2", "home": "s1 s2", "shop": "a b c",
    }  # fmt: skip
    band = Criterion(name="band", variable="voltage_pu", low=0.99)
    table = violations(result, limit_set("ratings", band))
    drop = table[(table["element"] == "line") & (table["name"] == "drop")]
    assert drop["phase"].tolist() == [leg]
    assert table.loc[table["element"] == "bus", ["name", "phase"]].to_numpy().tolist() == [["home", leg]]
    assert dict(summary(result))["line loading, highest"].endswith(f" of drop, phase {leg}")
    assert dict(summary(result))["transformer loading, highest"].endswith(" of t, phase b")
    some = result.sel(line=["drop"])
    assert violations(some, limit_set("ratings"))["phase"].tolist() == [leg]
    ax = Figure().subplots()
    plot_voltage_profile(result, ax)
    drawn = {str(each.get_label()): each for each in ax.collections}
    assert list(drawn) == ["phase a", "phase b", "phase c", "leg s1", "leg s2"]
    colours = {tuple(each.get_colors()[0]) for each in drawn.values()}
    assert len(colours) == 5
    home = result.voltage_pu.sel(bus="home")[0, 0].values
    for k, name in enumerate(("leg s1", "leg s2")):
        (segment,) = drawn[name].get_segments()
        assert segment[-1, 1] == pytest.approx(home[k])


def test_a_summary_says_at_which_nodes_the_loads_are(path):
    facts = dict(describe_network(Feeder(network=str(path))).facts)
    assert facts["loads by nodes"] == "1 at s1, 1 at s1-s2, 1 at a b c, 1 at c"
    assert facts["split-phase services"] == "2 loads at 2 buses"
