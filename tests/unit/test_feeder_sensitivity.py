"""Sensitivities of voltages to power, against an analytic case and the reference solver."""

import numpy as np
import pandapower as pp
import pytest

from evgrid.core.model import ALL_PHASES
from evgrid.errors import PowerFlowError
from evgrid.feeder.networks import load_network
from evgrid.feeder.outages import Elements
from evgrid.feeder.sensitivity import Sensitivities, sensitivity
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
        Sensitivities(one, network).without().dv_dp, Sensitivities(some, network).without().dv_dp
    )
    assert Sensitivities(one, network).without().voltage_pu.min() < 1.05


def test_an_operating_point_without_solution_is_named(feeder):
    network = feeder(two_buses())
    with pytest.raises(PowerFlowError, match="the operating point of the sensitivities"):
        sensitivity(network, np.array([[1e4]]), np.array([[0.0]]))
    with pytest.raises(PowerFlowError, match="the sensitivity to house, phase abc"):
        sensitivity(network, np.array([[207.0]]), np.array([[0.0]]))


# ---- with elements out of service ----------------------------------------------------------------


def street(ring, without=None):
    """A source, a cable to a corner, from there one each to the ends A and B, and in a ring one between."""
    net = pp.create_empty_network(f_hz=50)
    buses = [pp.create_bus(net, 0.4, name=name) for name in ("head", "corner", "end A", "end B")]
    pp.create_ext_grid(net, buses[0], vm_pu=1.02)
    lines = {"main": (0, 1), "LA": (1, 2), "LB": (1, 3), **({"tie": (2, 3)} if ring else {})}
    for name, (a, b) in lines.items():
        if name != without:
            pp.create_line_from_parameters(net, buses[a], buses[b], 0.2, 0.3, 0.1, 0.0, 0.3, name=name)
    for name, at, kw in (("A", 2, 12.0), ("B", 3, 7.0), ("C", 1, 3.0)):
        pp.create_load(net, buses[at], kw / 1e3, kw / 4e3, name=name)
    return net


@pytest.fixture
def left_of(tmp_path):
    def left_of(net, *out):
        pp.to_json(net, str(tmp_path / "street.json"))
        content = SCENARIO | {"feeder": {"network": "street.json", "base_load": {"source": "net"}}}
        scenario = scenario_from(content, folder=tmp_path)
        network = load_network(scenario.feeder)
        elements = Elements(network)
        return Sensitivities(scenario, network).without(
            frozenset(one for name in out for one in elements.find(name))
        )

    return left_of


def test_with_a_line_of_a_ring_out_they_are_those_of_the_network_without_it(left_of):
    found, whole = left_of(street(True), "line LA"), left_of(street(True))
    net = street(True, without="LA")
    buses, h = net.load["bus"].to_numpy(), 1e-4
    for at in range(3):
        for column, ours in (("p_mw", found.dv_dp), ("q_mvar", found.dv_dq)):
            volts = []
            for step in (h, -h):
                net.load.loc[at, column] += step
                pp.runpp(net, tolerance_mva=1e-12)
                volts.append(net.res_bus["vm_pu"].to_numpy()[buses])
                net.load.loc[at, column] -= step
            slope = (volts[0] - volts[1]) / (2e3 * h)
            np.testing.assert_allclose(ours[:, 0, at, 0], slope, rtol=1e-4)
    pp.runpp(net, tolerance_mva=1e-12)
    np.testing.assert_allclose(found.voltage_pu[:, 0], net.res_bus["vm_pu"].to_numpy()[buses], atol=1e-9)
    assert abs(found.dv_dp[0, 0, 0, 0]) > 1.5 * abs(whole.dv_dp[0, 0, 0, 0])


def test_what_is_dead_has_no_effect_and_no_voltage(left_of):
    found = left_of(street(False), "line LB")
    assert np.isnan(found.voltage_pu[:, 0]).tolist() == [False, True, False]
    for slopes in (found.dv_dp, found.dv_dq):
        assert not slopes[1].any()
        assert not slopes[:, :, 1].any()
        assert (slopes[[0, 0, 2, 2], 0, [0, 2, 0, 2], 0] < 0).all()
    nothing = left_of(street(False), "feeder")
    assert np.isnan(nothing.voltage_pu).all()
    assert not nothing.dv_dp.any()


def test_an_outage_that_takes_off_load_moves_the_operating_point(left_of):
    """Without the 7 kW at B the voltage at A is higher, and a kW lowers it less."""
    found, whole = left_of(street(False), "line LB"), left_of(street(False))
    assert found.voltage_pu[0, 0] > whole.voltage_pu[0, 0] + 1e-3
    assert whole.dv_dp[0, 0, 0, 0] < found.dv_dp[0, 0, 0, 0] < 0
