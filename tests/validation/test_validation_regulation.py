"""Tap changers and switched shunts against pandapower's own controllers: same positions, same voltages."""

from __future__ import annotations

import copy

import numpy as np
import pandapower as pp
import pandapower.networks
import pytest
from pandapower.control import DiscreteShuntController, DiscreteTapControl

from evgrid.core.model import MemoryRecorder
from evgrid.feeder.model import FeederModel
from evgrid.feeder.networks import load_network
from evgrid.scenario import scenario_from

TOLERANCE_PU = 1e-6


@pytest.fixture
def solved(tmp_path):
    """One step of a feeder: positions of tap changers and shunts, and voltages."""

    def solved(net, **feeder):
        path = tmp_path / "net.json"
        pp.to_json(net, str(path))
        scenario = scenario_from(
            {
                "name": "test",
                "time": {"start": "2026-01-15T12:00", "duration": "60s"},
                "feeder": {"network": str(path), "base_load": {"source": "net"}, **feeder},
            }
        )
        recorder = MemoryRecorder()
        model = FeederModel(scenario, load_network(scenario.feeder), recorder, fleet=False, feedback=False)
        model.step(0.0, {})
        model.finish()
        volts = recorder.series("voltage_pu")[0, 0, : len(net.bus), 0]
        return recorder.series("trafo_tap")[0, 0], recorder.series("shunt_step")[0, 0], volts

    return solved


def band(low, high, **over):
    return {"target_pu": (low + high) / 2, "deadband_pu": high - low, "delay": 0, **over}


@pytest.mark.parametrize(
    ("scale", "low", "high", "solver"),
    [
        (0.3, 1.02, 1.04, "power-grid-model"),
        (1.0, 0.99, 1.01, "pandapower"),
        (1.6, 1.02, 1.04, "power-grid-model"),
    ],
)
def test_two_substations(solved, scale, low, high, solver):
    net = pandapower.networks.mv_oberrhein()
    net.load["scaling"] *= scale
    expected = copy.deepcopy(net)
    for index in net.trafo.index:
        DiscreteTapControl(expected, index, low, high)
    pp.runpp(expected, run_control=True, calculate_voltage_angles=True, tolerance_mva=1e-9)
    devices = [band(low, high, trafo=name) for name in net.trafo.name]
    taps, _, volts = solved(net, solver=solver, tap_changers=devices)
    assert taps.tolist() == expected.trafo.tap_pos.tolist()
    assert not np.array_equal(taps, net.trafo.tap_pos)
    fed = expected.res_bus.vm_pu.notna().to_numpy()
    assert np.abs(volts - expected.res_bus.vm_pu.to_numpy())[fed].max() <= TOLERANCE_PU


@pytest.mark.parametrize("side", ["mv", "lv"])
def test_three_windings(solved, side):
    net = pp.create_empty_network()
    high, middle, low = (pp.create_bus(net, kv) for kv in (110.0, 20.0, 10.0))
    pp.create_ext_grid(net, high, vm_pu=0.97)
    pp.create_transformer3w_from_parameters(
        net, high, middle, low, 110.0, 20.0, 10.0, 60.0, 40.0, 30.0, 11.0, 10.5, 10.8, 0.3, 0.31, 0.32,
        20.0, 0.1, tap_side="hv", tap_neutral=0, tap_min=-10, tap_max=10, tap_pos=0, tap_step_percent=1.2,
        tap_changer_type="Ratio", name="T3",
    )  # fmt: skip
    pp.create_load(net, middle, 22.0, 6.0)
    pp.create_load(net, low, 15.0, 4.0)
    expected = copy.deepcopy(net)
    DiscreteTapControl(expected, 0, 1.0, 1.02, side=side, element="trafo3w")
    pp.runpp(expected, run_control=True, calculate_voltage_angles=True, tolerance_mva=1e-9)
    taps, _, volts = solved(net, tap_changers=[band(1.0, 1.02, trafo="T3", side=side)])
    assert np.nanmax(np.abs(taps)) == abs(expected.trafo3w.tap_pos[0]) > 0
    assert np.abs(volts - expected.res_bus.vm_pu.to_numpy()).max() <= TOLERANCE_PU


def test_switched_shunts(solved, small_net):
    net = small_net(False)
    pp.create_shunt(net, 5, -0.01, name="capacitor", step=0, max_step=6)
    expected = copy.deepcopy(net)
    DiscreteShuntController(expected, 1, 0.99, tol=0.004)
    pp.runpp(expected, run_control=True, calculate_voltage_angles=True, tolerance_mva=1e-9)
    _, steps, volts = solved(net, capacitors=[band(0.986, 0.994, shunt="capacitor")])
    assert steps.tolist() == expected.shunt.step.tolist()
    assert steps[1] > 0
    assert np.nanmax(np.abs(volts - expected.res_bus.vm_pu.to_numpy())) <= TOLERANCE_PU


@pytest.mark.parametrize("reduce", [True, False])
def test_three_phases_against_the_reference_solver(solved, reduce):
    import pandapower.networks as networks

    net = networks.ieee_european_lv_asymmetric()
    net.asymmetric_load[["p_a_mw", "p_b_mw", "p_c_mw"]] *= 4.0
    net.trafo["mag0_percent"] = 1e12
    device = [band(1.035, 1.065, trafo="Trafo", bus="900")]
    taps, _, volts = solved(net, tap_changers=device, reduce=reduce)
    again, _, reference = solved(net, tap_changers=device, solver="pandapower")
    assert taps.tolist() == again.tolist()
    assert taps.item() != 0
    assert np.abs(volts - reference).max() <= 1e-5
