"""PV inverters of networks from OpenDSS: against the engine with a load of negative power in their place."""

from __future__ import annotations

import numpy as np
import pytest

import evgrid
from evgrid.feeder.networks import load_network
from evgrid.feeder.opendss.engine import Engine
from evgrid.feeder.solvers import balance, make_solver
from evgrid.scenario.feeder import Feeder

NET = """Clear
Set DefaultBaseFrequency=60
New Circuit.c basekv=12.47 bus1=src pu=1.03 r1=0 x1=0.001 r0=0 x0=0.001
New Line.main bus1=src bus2=mv r1=0.3 x1=0.4 r0=0.9 x0=1.2 c1=0 c0=0 length=4 units=km normamps=300
New Transformer.t phases=1 windings=3 xhl=2 xht=2 xlt=1.4 ppm_antifloat=0
~ wdg=1 bus=mv.2 kv=7.2 kva=25 %r=0.6
~ wdg=2 bus=tx.1.0 kv=0.12 kva=25 %r=1.2
~ wdg=3 bus=tx.0.2 kv=0.12 kva=25 %r=1.2
New Line.drop phases=2 bus1=tx.1.2 bus2=home.1.2 r1=0.5 x1=0.2 r0=0.5 x0=0.2 c1=0 c0=0 length=0.1 units=km
New Transformer.t3 phases=3 windings=2 xhl=4
~ wdg=1 bus=mv conn=delta kv=12.47 kva=300 %r=0.5
~ wdg=2 bus=shop conn=wye kv=0.208 kva=300 %r=0.5
New Load.oven phases=1 bus1=home.1.2 kv=0.24 kw=3 kvar=0 vminpu=0.5 vmaxpu=2
New Load.shop phases=3 bus1=shop kv=0.208 kw=30 kvar=9 vminpu=0.5 vmaxpu=2
"""
END = "Set voltagebases=[12.47 0.208]\nCalcVoltageBases\n"
ROOF = "New Generator.roof phases=1 bus1=home.1.2 kv=0.24 kw=9 kvar=0 kva=10\n"
HALL = "New PVSystem.hall phases=3 bus1=shop conn=delta kv=0.208 pmpp=40 kva=44 irradiance=1\n"
CURVE = {"points": [[0.9, 44], [0.98, 0], [1.02, 0], [1.1, -44]], "response_s": 5}


def write(tmp_path, *more):
    path = tmp_path / "net.dss"
    path.write_text(NET + "".join(more) + END)
    return path


def scenario(path, pv, hours=1, step=300, coupling="iterated", **feeder):
    return {
        "name": "pv", "coupling": coupling,
        "time": {"start": "2026-06-15T12:00", "duration": f"{hours}h", "step": step},
        "feeder": {"network": str(path), "base_load": {"source": "net"}, "pv": pv} | feeder,
    }  # fmt: skip


def voltage_of_engine(path, generator, q_kvar, p_kw=9.0):
    """Voltage across the legs at home, pu, with a load of negative power in place of a generator."""
    circuit = Engine(path, "net")
    circuit.run(f"{generator}.enabled=no")
    circuit.run(
        f"New Load.negative phases=1 bus1=home.1.2 kv=0.24 kw={-p_kw!r} kvar={q_kvar!r} model=1 vminpu=0.5 "
        "vmaxpu=2"
    )
    circuit.circuit.Solution.Solve()
    circuit.circuit.SetActiveBus("home")
    v1, v2 = np.array(circuit.circuit.ActiveBus.Voltages).view(complex)
    return abs(v1 - v2) / 240


@pytest.mark.parametrize("solver", ["z-bus", "opendss"])
def test_volt_var_across_both_legs_settles_where_the_engine_has_it(solver, tmp_path):
    """The reactive power at which curve and engine meet, found by bisection on the engine."""
    path = write(tmp_path, ROOF)
    low, high = -4.4, 4.4
    for _ in range(60):
        q = (low + high) / 2
        volts = voltage_of_engine(path, "Generator.roof", q)
        low, high = (q, high) if 10 * 0.44 * np.clip((volts - 1.02) / 0.08, 0, 1) > q else (low, q)
    result = evgrid.run(scenario(path, {"functions": {"volt_var": CURVE}}, solver=solver))
    assert q > 0.5
    assert result.attrs["solver"] == solver
    assert result.pv_power_kw.values[0, -1] == pytest.approx(9.0)
    assert result.pv_reactive_kvar.values[0, -1] == pytest.approx(q, rel=1e-3)
    home = result.bus.values.tolist().index("home")
    legs = result.voltage_pu.values[0, -1, home, :2] * 208 / np.sqrt(3)
    assert legs.sum() / 240 == pytest.approx(volts, rel=1e-5)
    other = result.base_load_kw + result.losses_kw
    assert np.abs(result.head_power_kw.sum("phase") - other).max() < 1e-6 * 50


@pytest.mark.parametrize("solver", ["z-bus", "opendss"])
def test_inverters_give_constant_power_at_any_voltage(solver, tmp_path):
    """Beyond 1.1 pu, where a generator of the file is an impedance; both signs of reactive power."""
    path = write(tmp_path, ROOF, HALL)
    plain = load_network(Feeder(network=str(path)), charger_v=240.0)
    found = plain.with_inverters(frozenset({0, 1}))
    loads, fixed = found.grid.loads, found.grid.fixed
    assert fixed.gen_name.tolist() == ["roof", "pv hall"]
    own = loads.p_kw[None], loads.q_kvar[None]
    for kw, kvar in ((60.0, 5.0), (30.0, -4.0), (0.0, 0.0), (-5.0, 2.0)):
        generation = np.zeros((2, 1, 2, 3))
        generation[0, 0, 0, 2], generation[1, 0, 0, 2] = kw, kvar
        generation[0, 0, 1], generation[1, 0, 1] = kw / 3, kvar / 3
        flow = make_solver(found, solver).solve(*own, nominal=own, generation=(generation[0], generation[1]))
        assert balance(flow, own[0])[0] < 1e-7
        assert flow.fixed_kw[0] == pytest.approx(-2 * kw, abs=1e-6)
        circuit = Engine(path, "net")
        for line in (
            "Generator.roof.enabled=no", "PVSystem.hall.enabled=no",
            f"New Load.a phases=1 bus1=home.1.2 kv=0.24 kw={-kw} kvar={-kvar} vminpu=0.1 vmaxpu=9",
            f"New Load.b phases=3 conn=delta bus1=shop kv=0.208 kw={-kw} kvar={-kvar} vminpu=0.1 vmaxpu=9",
        ):  # fmt: skip
            circuit.run(line)
        circuit.circuit.Solution.Solve()
        circuit.circuit.SetActiveBus("home")
        volts = np.array(circuit.circuit.ActiveBus.VMagAngle)[::2] / (208 / np.sqrt(3))
        home = found.grid.buses.name.tolist().index("home")
        assert flow.voltage_pu[0, home, :2] == pytest.approx(volts, abs=1e-8)
        if kw == 60.0:
            assert flow.generator_pu[0, 0, 0] > 1.1
            as_file = make_solver(plain, solver).solve(*own, generation=(generation[0], generation[1]))
            assert abs(as_file.fixed_kw[0] + 2 * kw) > 0.1


def test_members_steps_and_live_controls(tmp_path):
    """Three members of other EVs, beside a regulator: together and each by itself, steps of a second; a step
    that is solved several times moves no control twice.
    """
    regulator = "New RegControl.r transformer=t3 winding=2 vreg=120 band=1 ptratio=1 delay=2\n"
    shape = "New LoadShape.steps npts=3 sinterval=20 mult=[1 6 0]\nLoad.shop.duty=steps\n"
    path = write(tmp_path, ROOF, HALL, shape, regulator)

    def run(**ensemble):
        steep = {"points": [[0.95, 44], [1.05, -44]], "response_s": 5}
        given = scenario(path, {"functions": {"volt_var": steep}, "at": ["pv hall"]}, 0.02, 1)
        given["feeder"]["base_load"]["shape"] = "duty"
        return evgrid.run(
            given
            | {
                "ensemble": {"seed": 3} | ensemble,
                "fleet": {"count": 6, "charger": {"power_kw": 7.2, "nominal_v": 240}},
            }
        )

    together = run(members=3)
    assert together.attrs["solver"] == "opendss"
    assert float(together.pv_coupling_iterations.max()) > 1
    taps = together.trafo_tap.values[:, :, 1]
    assert np.ptp(taps) > 1
    assert np.abs(np.diff(taps)).max() == 1
    for member in range(3):
        alone = run(members=1, first=member)
        for name in ("voltage_pu", "pv_reactive_kvar", "trafo_tap"):
            assert np.array_equal(alone[name].values[0], together[name].values[member], equal_nan=True), name


def test_what_is_no_inverter_is_named(tmp_path):
    from evgrid.errors import ScenarioError

    path = write(tmp_path)
    with pytest.raises(ScenarioError, match="feeder.pv: the network has no sgen with a rated power"):
        evgrid.run(scenario(path, {"functions": {"volt_var": CURVE}}))
    path = write(tmp_path, ROOF)
    with pytest.raises(ScenarioError, match="feeder.pv.at = attic: the network has no such sgen"):
        evgrid.run(scenario(path, {"functions": {"volt_var": CURVE}, "at": ["attic"]}))
