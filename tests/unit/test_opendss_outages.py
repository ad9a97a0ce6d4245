"""Outages of networks from OpenDSS: against the engine with the same element open."""

from __future__ import annotations

import numpy as np
import pytest

import evgrid
from evgrid.feeder.networks import load_network
from evgrid.feeder.opendss.engine import Engine
from evgrid.feeder.outages import Elements, PartSolver, Supply
from evgrid.feeder.sensitivity import Sensitivities
from evgrid.feeder.solvers import balance, make_solver
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder

NET = """Clear
Set DefaultBaseFrequency=60
New Circuit.c basekv=12.47 bus1=src pu=1.02 r1=0 x1=0.001 r0=0 x0=0.001
New Line.first bus1=src bus2=a r1=0.3 x1=0.4 r0=0.9 x0=1.2 c1=0 c0=0 length=2 units=km normamps=300
New Line.second bus1=a bus2=b r1=0.3 x1=0.4 r0=0.9 x0=1.2 c1=0 c0=0 length=2 units=km normamps=300
New Line.tie bus1=src bus2=b r1=0.5 x1=0.6 r0=1.2 x0=1.8 c1=0 c0=0 length=5 units=km normamps=300 enabled=no
New Line.one phases=1 bus1=a.2 bus2=lat.2 r1=0.5 x1=0.4 r0=0.5 x0=0.4 c1=0 c0=0 length=1 units=km
New Transformer.t phases=1 windings=3 xhl=2 xht=2 xlt=1.4
~ wdg=1 bus=lat.2 kv=7.2 kva=25 %r=0.6
~ wdg=2 bus=tx.1.0 kv=0.12 kva=25 %r=1.2
~ wdg=3 bus=tx.0.2 kv=0.12 kva=25 %r=1.2
New Transformer.dy phases=3 windings=2 xhl=4
~ wdg=1 bus=b conn=delta kv=12.47 kva=300 %r=0.5
~ wdg=2 bus=shop conn=wye kv=0.208 kva=300 %r=0.5
New Load.oven phases=1 bus1=tx.1.2 kv=0.24 kw=3 kvar=1
New Load.shop phases=3 bus1=shop kv=0.208 kw=30 kvar=9
New Load.mill phases=3 bus1=b conn=delta kv=12.47 kw=90 kvar=20 model=2
New Load.near phases=1 bus1=a.3 kv=7.2 kw=40 kvar=-10 model=5
New Generator.sun phases=3 bus1=b kv=12.47 kw=50 kvar=0
New Capacitor.cap bus1=b kvar=60 kv=12.47
"""
END = "Set voltagebases=[12.47 0.208]\nCalcVoltageBases\n"
SOLVERS = ["z-bus", "opendss"]


def write(tmp_path, *more, net=NET):
    path = tmp_path / "net.dss"
    path.write_text(net + "".join(f"{line}\n" for line in more) + END)
    return path


def by_engine(path, *commands):
    """Voltage of each node, pu, power of the head and losses, kW, by the engine with some commands more."""
    engine = Engine(path, "net")
    for command in commands:
        engine.run(command)
    circuit = engine.circuit
    circuit.Solution.Solve()
    assert circuit.Solution.Converged
    volts = dict(zip((n.lower() for n in circuit.AllNodeNames), circuit.AllBusVmagPu, strict=True))
    return volts, -circuit.TotalPower[0], circuit.Losses[0] / 1e3


def solved(path, solver, out):
    """The flow of a network with its own load and elements out, of which what is dead has no power."""
    found = load_network(Feeder(network=str(path)), charger_v=240.0)
    grid, part = found.grid, PartSolver(found, lambda network: make_solver(network, solver))
    numbers = frozenset(number for one in out for number in Elements(found).find(one))
    dead, dead_gens = Supply(found).dead(numbers)
    own = grid.loads.p_kw * ~dead[:, None], grid.loads.q_kvar * ~dead[:, None]
    given = grid.fixed.gen_p_kw * ~dead_gens[:, None], grid.fixed.gen_q_kvar * ~dead_gens[:, None]
    p, q = own[0][None], own[1][None]
    flow = part.solve(p, q, nominal=(p, q), generation=(given[0][None], given[1][None]), out={0: numbers})
    assert balance(flow, p)[0] < 1e-6
    return found, flow, dead


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("out", "commands", "dead"),
    [
        ("line second", ["Line.second.enabled=no", "Generator.sun.enabled=no"], ["shop", "mill"]),
        ("line one", ["open line.one 1", "open line.one 2"], ["oven"]),
        ("trafo dy", ["Transformer.dy.enabled=no"], ["shop"]),
        ("trafo t", ["Transformer.t.enabled=no"], ["oven"]),
        (
            "line first",
            ["Line.first.enabled=no", "Generator.sun.enabled=no"],
            ["oven", "shop", "mill", "near"],
        ),
    ],
)  # fmt: skip
def test_the_rest_is_that_of_the_engine_with_the_element_open(solver, out, commands, dead, tmp_path):
    path = write(tmp_path)
    found, flow, dead_points = solved(path, solver, [out])
    assert sorted(found.grid.loads.name[dead_points]) == sorted(dead)
    volts, head, losses = by_engine(path, *commands)
    live = 0
    for bus, name in enumerate(found.grid.buses.name.tolist()):
        for slot in range(3):
            expected = volts.get(f"{name}.{slot + 1}", 0.0)
            if expected > 1e-3:
                assert flow.voltage_pu[0, bus, slot] == pytest.approx(expected, abs=1e-8)
                live += 1
            else:
                assert np.isnan(flow.voltage_pu[0, bus, slot])
    assert live >= 3
    assert flow.head_p_kw.sum() == pytest.approx(head, abs=1e-5)
    assert flow.losses_kw[0] == pytest.approx(losses, abs=1e-5)
    kind, _, name = out.partition(" ")
    names = found.grid.lines.name if kind == "line" else found.grid.trafos.name
    assert getattr(flow, f"{kind}_loading")[0, names.tolist().index(name)].max() < 1e-9


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_mesh_keeps_what_another_path_feeds(solver, tmp_path):
    path = write(tmp_path, net=NET.replace(" enabled=no", ""))
    found, flow, dead = solved(path, solver, ["line second"])
    assert not dead.any()
    volts, head, _ = by_engine(path, "Line.second.enabled=no")
    at = found.grid.buses.name.tolist().index("shop")
    assert flow.voltage_pu[0, at] == pytest.approx([volts[f"shop.{k}"] for k in (1, 2, 3)], abs=1e-8)
    assert flow.head_p_kw.sum() == pytest.approx(head, abs=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_phase_of_three(solver, tmp_path):
    """A line in three parts: without that of phase c, what stands on c is dead, behind a delta nothing is."""
    parts = "".join(
        f"New Line.p{k} phases=1 bus1=a.{k} bus2=b.{k} r1=0.6 x1=0.8 r0=0.6 x0=0.8 c1=0 c0=0 length=1\n"
        for k in (1, 2, 3)
    )
    second = next(line for line in NET.splitlines() if line.startswith("New Line.second"))
    net = NET.replace(f"{second}\n", parts)
    net = net.replace("New Load.mill", "!New Load.mill").replace("New Gen", "!New Gen")
    loads = "New Load.c phases=1 bus1=b.3 kv=7.2 kw=20", "New Load.ab phases=1 bus1=b.1.2 kv=12.47"
    path = write(tmp_path, *loads, net=net)
    found, flow, dead = solved(path, solver, ["line p3"])
    assert not np.isnan(flow.voltage_pu[0, found.grid.buses.name.tolist().index("b"), :2]).any()
    assert dict(zip(found.grid.loads.name.tolist(), dead.tolist(), strict=True)) == {
        "oven": False, "shop": False, "near": False, "c": False, "ab": False,
    }  # the delta winding feeds phase c of b from the other two  # fmt: skip
    volts, head, _ = by_engine(path, "Line.p3.enabled=no")
    at = found.grid.buses.name.tolist().index("shop")
    assert flow.voltage_pu[0, at] == pytest.approx([volts[f"shop.{k}"] for k in (1, 2, 3)], abs=1e-7)
    assert flow.head_p_kw.sum() == pytest.approx(head, abs=1e-4)
    wye = path.read_text().replace("bus=b conn=delta", "bus=b conn=wye")
    path.write_text(wye)
    found, flow, dead = solved(path, solver, ["line p3"])
    assert found.grid.loads.name[dead].tolist() == ["shop", "c"]
    off = [f"Load.{name}.enabled=no" for name in ("shop", "c")]
    volts, _, _ = by_engine(path, "Line.p3.enabled=no", *off)
    b = found.grid.buses.name.tolist().index("b")
    assert flow.voltage_pu[0, b, :2] == pytest.approx([volts["b.1"], volts["b.2"]], abs=1e-7)
    assert np.isnan(flow.voltage_pu[0, b, 2])


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_whole_feeder_and_several_cases(solver, tmp_path):
    found = load_network(Feeder(network=str(write(tmp_path))), charger_v=240.0)
    part = PartSolver(found, lambda network: make_solver(network, solver))
    p, q = (np.repeat(x[None], 4, axis=0) for x in (found.grid.loads.p_kw, found.grid.loads.q_kvar))
    line = Elements(found).find("line one")[0]
    out = {1: frozenset({0}), 2: frozenset({line}), 3: frozenset({line, 0})}
    flow = part.solve(p, q, nominal=(p, q), out=out)
    whole = make_solver(found, solver).solve(p[:1], q[:1], nominal=(p[:1], q[:1]))
    assert np.nanmax(np.abs(flow.voltage_pu[0] - whole.voltage_pu[0])) < 1e-9
    for case in (1, 3):
        assert np.isnan(flow.voltage_pu[case]).all()
        for name in ("head_p_kw", "losses_kw", "fixed_kw", "line_loading", "trafo_p_kw"):
            assert np.abs(getattr(flow, name)[case]).max() < 1e-9, name
    alone = part.solve(p[:1], q[:1], nominal=(p[:1], q[:1]), out={0: frozenset({line})})
    assert np.array_equal(np.isnan(flow.voltage_pu[2]), np.isnan(alone.voltage_pu[0]))
    assert np.nanmax(np.abs(flow.voltage_pu[2] - alone.voltage_pu[0])) < 1e-9
    assert flow.head_p_kw[2].sum() < flow.head_p_kw[0].sum() - 2.9


def test_sensitivities_of_what_is_left(tmp_path):
    path = write(tmp_path)
    given = scenario_from(scenario(path))
    found = load_network(given.feeder, charger_v=240.0)
    of = Sensitivities(given, found)
    line = Elements(found).find("line one")[0]
    whole, left = of.without(), of.without(frozenset({line}))
    oven = found.grid.loads.name.tolist().index("oven")
    assert np.abs(whole.dv_dp[oven, 2, oven, 2]) > 0
    assert np.isnan(left.voltage_pu[oven, 2])
    assert np.abs(left.dv_dp[oven]).max() == np.abs(left.dv_dp[:, :, oven]).max() == 0
    mill = found.grid.loads.name.tolist().index("mill")
    assert left.dv_dp[mill, 0, mill, 0] == pytest.approx(whole.dv_dp[mill, 0, mill, 0], rel=0.01)


def scenario(path, *outages, step=900, hours=4, **more):
    return {
        "name": "out",
        "time": {"start": "2026-01-15T18:00", "duration": f"{hours}h", "step": step},
        "feeder": {"network": str(path), "base_load": {"source": "net"}},
        **({"outages": list(outages)} if outages else {}),
    } | more


REGULATOR = (
    "New LoadShape.s npts=5 interval=0.25 mult=[1 0.2 4 0.1 2.5]",
    "batchedit load..* daily=s",
    "New RegControl.r transformer=dy winding=2 vreg=120 band=1 ptratio=1 delay=30",
)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("step", [60, 900])
def test_a_run_with_an_outage_inside_a_step(solver, step, tmp_path):
    """1900 s without the lateral: voltage 0, energies exact, then twice the load."""
    path = write(tmp_path)
    out = {"start": "1h", "duration": "1900s", "out": "line one"}
    more = {
        "fleet": {"count": 5, "charger": {"power_kw": 7.2, "nominal_v": 240}},
        "outages": {"schedule": [out], "cold_load": {"factor": 2, "duration": "10min"}},
        "ensemble": {"members": 2, "seed": 4},
    }
    given = scenario(path, step=step, **more)
    given["feeder"]["solver"] = solver
    result = evgrid.run(given)
    oven = result.connection.values.tolist().index("oven")
    tx = result.bus.values.tolist().index("tx")
    first = 3600 // step
    assert (result.voltage_pu.values[:, first : first + 1900 // step, tx, :2] == 0).all()
    assert (result.voltage_pu.values[:, :first, tx, :2] > 0.9).all()
    assert np.isnan(result.voltage_pu.values[:, :, tx, 2]).all()
    assert result.not_served_kwh.values[:, oven] == pytest.approx(3 * 1900 / 3600)
    assert result.not_served_kwh.values.sum() == pytest.approx(2 * 3 * 1900 / 3600)
    assert result.interruptions.values[:, oven].tolist() == [1, 1]
    assert (result.voltage_min_pu > 0.9).all()
    without = scenario(path, step=step, **more)
    del without["outages"]
    without["feeder"]["solver"] = solver
    plain = evgrid.run(without)
    energy = (result.base_load_kw - plain.base_load_kw).sum("time").values * step / 3600
    assert energy == pytest.approx(3 * (600 - 1900) / 3600, abs=0.02)  # loads of current follow the voltage


def test_live_controls_without_supply_stand_still_and_go_on(tmp_path):
    """Three members, the transformer with the regulator dead for an hour."""
    path = write(tmp_path, *REGULATOR)
    out = {"start": "90min", "duration": "1h", "out": "line second"}

    def run(*outages, **ensemble):
        given = scenario(path, *outages, step=60, ensemble={"seed": 1} | ensemble)
        given["feeder"]["base_load"]["shape"] = "daily"
        return evgrid.run(given | {"fleet": {"count": 20, "charger": {"power_kw": 7.2, "nominal_v": 240}}})

    plain, result = run(members=3), run(out, members=3)
    dy = result.trafo.values.tolist().index("dy")
    tap, free = (r.trafo_tap.values[:, :, dy] for r in (result, plain))
    assert np.array_equal(tap[:, :90], free[:, :90])
    assert (tap[:, 90:150] == tap[:, 89:90]).all()
    assert (np.ptp(free[:, 90:150], axis=1) > 0).all()
    assert (np.ptp(tap[:, 150:], axis=1) > 0).all()
    assert result.attrs["solver"] == "opendss"
    shop = result.bus.values.tolist().index("shop")
    assert (result.voltage_pu.values[:, 90:150, shop] == 0).all()
    for member in range(3):
        alone = run(out, members=1, first=member)
        for name in ("voltage_pu", "trafo_tap", "head_power_kw", "interrupted_min"):
            assert np.array_equal(alone[name].values[0], result[name].values[member], equal_nan=True), name


def test_taps_and_head_power_are_those_of_the_engine_with_the_line_open(tmp_path):
    """In steps of 60 s; the engine's own regulator, which would run to its end without voltage, is held."""
    path = write(tmp_path, *REGULATOR)
    given = scenario(path, {"start": "90min", "duration": "1h", "out": "line second"}, step=60)
    given["feeder"]["base_load"]["shape"] = "daily"
    result = evgrid.run(given)
    engine = Engine(path, "net")
    circuit, solution = engine.circuit, engine.circuit.Solution
    engine.run("set mode=daily stepsize=60 number=1 controlmode=static hour=18")
    solution.Solve()
    engine.run("set hour=18 sec=0 controlmode=time")
    taps, head = [], []
    elements = ("Line.second", "RegControl.r", "Generator.sun")
    for minute in range(240):
        for element in elements if minute in (90, 150) else ():
            engine.run(f"{element}.enabled={'no' if minute == 90 else 'yes'}")
        solution.Solve()
        circuit.Transformers.Name = "dy"
        circuit.Transformers.Wdg = 2
        taps.append(round((circuit.Transformers.Tap - 1) / 0.00625))
        head.append(-circuit.TotalPower[0])
    dy = result.trafo.values.tolist().index("dy")
    assert np.ptp(taps[:90]) > 0
    assert np.ptp(taps[150:]) > 0
    assert result.trafo_tap.values[0, :, dy].tolist() == taps
    assert result.head_power_kw.sum("phase").values[0] == pytest.approx(np.array(head), rel=1e-7)
    assert result.trafo_operations.values[0, dy] == np.abs(np.diff(taps)).sum()


def test_drawn_outages(tmp_path):
    """Of lines and transformers, each transformer once; members differ."""
    path = write(tmp_path)
    drawn = {"rates": {"line": 300, "trafo": 400}, "repair": {"line": "10min", "trafo": "10min"}}
    result = evgrid.run(scenario(path, hours=24, outages=drawn, ensemble={"members": 4, "seed": 2}))
    assert result.interruptions.values.sum() > 0
    assert len({tuple(row) for row in result.interrupted_min.values.round(6).tolist()}) > 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_home_behind_a_centre_tap_lives_on_its_battery(solver, tmp_path):
    """Two hours without the lateral: of 3 kW the critical 40 % go on, 1.2 kW from a battery of 10 kWh, but
    for 2 s until the switch opens, and for 5 min more until the home is back on the grid.
    """
    path = write(tmp_path)
    out = {"start": "1h", "duration": "2h", "out": "line one"}
    sites = {
        "home": {"connections": ["oven"], "critical": {"share": 0.4}, "backup": "critical",
                 "battery": {"capacity_kwh": 10, "charge_kw": 3}, "island": {"black_start": "0s"}},
    }  # fmt: skip
    given = scenario(path, out, step=300, ensemble={"members": 2}, sites=sites)
    given["feeder"]["solver"] = solver
    result = evgrid.run(given)
    oven = result.connection.values.tolist().index("oven")
    island_h = 2 + 5 / 60 - 2 / 3600
    assert result.site_served_kwh.values == pytest.approx(3 * (2 - 5 / 60) + 1.2 * island_h)
    assert result.site_unserved_kwh.values == pytest.approx(1.8 * island_h + 3 * 2 / 3600)
    assert result.site_battery_out_kwh.values == pytest.approx(1.2 * island_h, rel=1e-6)
    assert result.interrupted_min.values[:, oven].tolist() == [120, 120]
    during = slice(12, 36)
    tx = result.bus.values.tolist().index("tx")
    assert (result.voltage_pu.values[:, during, tx, :2] == 0).all()
    balance_kw = result.head_power_kw.sum("phase") - result.base_load_kw - result.losses_kw
    assert np.abs(balance_kw).max() < 1e-4
    fall = result.head_power_kw.sum("phase").values[:, 0] - result.head_power_kw.sum("phase").values[:, 20]
    assert fall == pytest.approx(3.0, abs=0.3)
