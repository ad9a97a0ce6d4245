"""Sensitivities of voltages to power, against an analytic case and the reference solver."""

import numpy as np
import pandapower as pp
import pytest

from evgrid.core.model import ALL_PHASES
from evgrid.errors import PowerFlowError
from evgrid.feeder.networks import load_network
from evgrid.feeder.sensitivity import scenario_sensitivity, sensitivity
from evgrid.feeder.solvers import make_solver
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder


def two_buses(kv=0.4):
    net = pp.create_empty_network(f_hz=50)
    a, b = pp.create_bus(net, kv, name="a"), pp.create_bus(net, kv, name="b")
    pp.create_ext_grid(net, a, vm_pu=1.02)
    pp.create_line_from_parameters(net, a, b, 1.0, 0.2, 0.1, 0.0, 0.3)
    pp.create_load(net, b, 0.02, 0.005, name="house")
    return net


@pytest.mark.parametrize("kv", [0.4, 10.0])
def test_two_buses_have_the_analytic_slope(feeder, kv):
    """V⁴ + (2 (RP + XQ) - V₁²) V² + (R² + X²)(P² + Q²) = 0, differentiated, in pu of 1 MVA."""
    network = feeder(two_buses(kv))
    found = sensitivity(network, np.array([[20.0]]), np.array([[5.0]]))
    r, x, p, q = 0.2 / kv**2, 0.1 / kv**2, 0.02, 0.005
    half = (1.02**2 - 2 * (r * p + x * q)) / 2
    square = half + np.sqrt(half**2 - (r**2 + x**2) * (p**2 + q**2))
    v = np.sqrt(square)
    slope = 2 * v * (2 * square + 2 * (r * p + x * q) - 1.02**2)
    dp = -(2 * r * square + 2 * (r**2 + x**2) * p) / slope
    dq = -(2 * x * square + 2 * (r**2 + x**2) * q) / slope
    assert found.voltage_pu[0, 0] == pytest.approx(v, abs=1e-9)
    assert found.dv_dp[0, 0, 0, 0] == pytest.approx(dp / 1e3, rel=1e-5)
    assert found.dv_dq[0, 0, 0, 0] == pytest.approx(dq / 1e3, rel=1e-5)


def test_european_lv_equals_differences_of_pandapower():
    settings = {"network": "european_lv"}
    network = load_network(Feeder.model_validate(settings))
    loads = network.grid.loads
    found = sensitivity(network, loads.p_kw, loads.q_kvar)
    reference = make_solver(network, "pandapower")
    h = 1.0
    for at in (0, 54):
        phase = int(network.connections.phase[at])
        for slopes, which in ((found.dv_dp, 0), (found.dv_dq, 1)):
            power = np.tile(np.stack([loads.p_kw, loads.q_kvar]), (2, 1, 1, 1))
            power[0, which, at, phase] += h
            power[1, which, at, phase] -= h
            flow = reference.solve(power[:, 0], power[:, 1])
            slope = (flow.voltage_pu[0] - flow.voltage_pu[1])[network.connections.bus] / (2 * h)
            ours = slopes[:, :, at, phase]
            assert np.abs(slope).max() > 1e-4
            np.testing.assert_allclose(ours, slope, atol=1e-4 * np.abs(slope).max())


def test_drawing_lowers_the_own_phase_most_and_lifts_another():
    """A single-phase load shifts the neutral: on European LV a phase beside it rises."""
    network = load_network(Feeder.model_validate({"network": "european_lv"}))
    loads = network.grid.loads
    slopes = sensitivity(network, loads.p_kw, loads.q_kvar).dv_dp
    for at, phase in enumerate(network.connections.phase):
        own = slopes[at, :, at, phase]
        assert own.argmin() == phase
        assert own[phase] < 0 < own.max()
        others = [k for k in range(3) if k != phase]
        assert not slopes[:, :, at, others].any(), "the household has no such phase"


def test_a_three_phase_connection_has_all_phases_and_other_buses_can_be_asked_for(feeder, small_net):
    network = feeder(small_net(True))
    loads = network.grid.loads
    three = int(np.flatnonzero(network.connections.phase == ALL_PHASES)[0])
    everywhere = sensitivity(network, loads.p_kw, loads.q_kvar, buses=np.arange(len(network.grid.buses.name)))
    assert (everywhere.dv_dp[:, :, three].diagonal(axis1=1, axis2=2)[4] < 0).all()
    head = network.grid.sources.bus[0]
    np.testing.assert_allclose(everywhere.dv_dp[head], 0, atol=1e-9)
    own = sensitivity(network, loads.p_kw, loads.q_kvar)
    np.testing.assert_array_equal(own.dv_dp, everywhere.dv_dp[network.connections.bus])


SCENARIO = {
    "name": "s",
    "time": {"start": "2026-01-15T16:00", "duration": "4h", "step": "10min"},
    "feeder": {"network": "european_lv"},
}


def test_the_operating_point_is_the_same_for_every_member():
    one = scenario_from(SCENARIO)
    some = scenario_from(SCENARIO, {"ensemble.first": 5, "ensemble.members": 3})
    network = load_network(one.feeder)
    np.testing.assert_array_equal(
        scenario_sensitivity(one, network).dv_dp, scenario_sensitivity(some, network).dv_dp
    )
    assert scenario_sensitivity(one, network).voltage_pu.min() < 1.05


def test_an_operating_point_without_solution_is_named(feeder):
    network = feeder(two_buses())
    with pytest.raises(PowerFlowError, match="the operating point of the sensitivities"):
        sensitivity(network, np.array([[1e4]]), np.array([[0.0]]))
    with pytest.raises(PowerFlowError, match="the sensitivity to house, phase abc"):
        sensitivity(network, np.array([[207.0]]), np.array([[0.0]]))
