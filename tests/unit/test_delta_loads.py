"""Loads, generators and EVs between two phases: circuits worked by hand, and pandapower's ``runpp_3ph``."""

from __future__ import annotations

import numpy as np
import pandapower as pp
import pytest
from tests.unit.test_feeder_solvers import TOLERANCE

from evgrid.errors import NetworkError
from evgrid.feeder.outages import Elements, PartSolver
from evgrid.feeder.solvers import check_balance, chosen_solver, faults_of, make_solver

OHM = 0.1


def one_line(kw_by_phase, kind="delta"):
    """A source of 400 V, a line of four equal conductors without reactance, a load at its end."""
    net = pp.create_empty_network()
    ends = [pp.create_bus(net, 0.4, name=name) for name in ("source", "end")]
    pp.create_ext_grid(net, ends[0])
    pp.create_line_from_parameters(
        net, *ends, 1.0, OHM, 0.0, 0.0, 0.1, r0_ohm_per_km=OHM, x0_ohm_per_km=0.0, c0_nf_per_km=0.0, name="L"
    )
    powers = dict(zip(("p_a_mw", "p_b_mw", "p_c_mw"), (kw / 1e3 for kw in kw_by_phase), strict=True))
    pp.create_asymmetric_load(net, ends[1], **powers, type=kind, name="house")
    return net


def solve(network, factors=(1.0,), solver="z-bus"):
    loads, scale = network.grid.loads, np.array(factors)[:, np.newaxis, np.newaxis]
    flow = make_solver(network, solver).solve(loads.p_kw * scale, loads.q_kvar * scale)
    check_balance(flow, loads.p_kw * scale, 1e-9 if solver == "z-bus" else 1e-4)
    return flow


@pytest.mark.parametrize("between", [(0, 1), (1, 2), (2, 0)])
@pytest.mark.parametrize("kw", [12.0, -12.0])
def test_a_load_between_two_phases_by_hand(feeder, between, kw):
    """V² - 400 V + P 2R = 0 between the phases; the same current in both, none in the third."""
    first, second = between
    network = feeder(one_line(np.eye(3)[first] * kw))
    flow = solve(network)
    volts = (400 + np.sqrt(400**2 - 4 * kw * 1e3 * 2 * OHM)) / 2
    amperes = kw * 1e3 / volts
    assert flow.connection_pu[0, 0, first] * 400 == pytest.approx(volts, abs=1e-7)
    expected = np.zeros(3)
    expected[[first, second]] = abs(amperes) / 100
    assert flow.line_loading[0, 0] == pytest.approx(expected, abs=1e-9)
    assert flow.neutral_a[0, 0] == pytest.approx(0.0, abs=1e-7)
    assert flow.losses_kw[0] == pytest.approx(2 * amperes**2 * OHM / 1e3, abs=1e-8)
    # phase voltages: source 230.94 V at 0, -120, 120 degrees, less the current along V_first - V_second
    source = 400 / np.sqrt(3) * np.exp(-2j * np.pi / 3 * np.arange(3))
    along = (source[first] - source[second]) / 400 * amperes * OHM
    source[first] -= along
    source[second] += along
    assert flow.voltage_pu[0, 1] * 400 / np.sqrt(3) == pytest.approx(np.abs(source), abs=1e-7)
    assert network.coordinates()["connection_phase"][1][0] == "-".join("abca"[first : first + 2])
    assert network.connections.phase[0] == first


def test_constant_impedance_between_two_phases_by_hand(feeder):
    # 16 kW at 400 V: 10 ohm, behind 0.2 ohm
    net = one_line((16.0, 0.0, 0.0))
    net.asymmetric_load["const_z_p_percent"] = 100.0
    flow = solve(feeder(net))
    volts = 400 * 10 / 10.2
    assert flow.connection_pu[0, 0, 0] * 400 == pytest.approx(volts, abs=1e-7)
    assert flow.head_p_kw[0].sum() == pytest.approx(400**2 / 10.2 / 1e3, abs=1e-8)


def test_three_equal_loads_between_phases_are_three_to_the_neutral(feeder):
    delta, wye = (solve(feeder(one_line((4.0, 4.0, 4.0), kind)), (1.0, -1.0)) for kind in ("delta", "wye"))
    for name, values in wye.tables().items():
        np.testing.assert_allclose(getattr(delta, name), values, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(delta.connection_pu[:, 0], wye.voltage_pu[:, 1], atol=1e-9)


@pytest.mark.parametrize(("group", "shift"), [("Dyn", 30.0), ("YNyn", 0.0)])
def test_it_agrees_with_pandapower_in_mixtures(feeder, small_net, group, shift):
    """Delta and star at the same and at other buses, at the source, out of service; loads and generators."""
    net = small_net(True, group, shift, no_load=group == "Dyn")
    pp.create_asymmetric_load(net, 8, 0.006, 0.0, 0.01, 0.001, 0.0, 0.004, type="delta", name="between")
    pp.create_asymmetric_load(net, 0, 0.0, 0.02, 0.0, 0.0, 0.01, 0.0, type="delta", name="at the source")
    pp.create_asymmetric_load(net, 0, 0.003, 0.0, 0.001, 0.0, 0.002, 0.0, type="wye", name="source")
    pp.create_asymmetric_load(net, 3, 1.0, type="delta", name="out", in_service=False)
    pp.create_load(net, 5, 0.006, 0.002, type="delta", name="equal")
    pp.create_asymmetric_sgen(net, 6, 0.004, 0.0, 0.012, 0.0, 0.001, 0.0, type="delta", name="roof")
    pp.create_asymmetric_sgen(net, 0, 0.004, 0.0, 0.0, type="delta", name="at the source")
    network = feeder(net)
    assert network.grid.loads.name[network.grid.loads.delta].tolist() == ["equal", "between", "at the source"]
    factors = (1.0, 0.0, -0.7, 1.5)
    flow, expected = (solve(network, factors, solver) for solver in ("z-bus", "pandapower"))
    for name, tolerance in (TOLERANCE | {"connection_pu": 1e-5, "generator_pu": 1e-5}).items():
        np.testing.assert_allclose(
            getattr(flow, name), getattr(expected, name), rtol=0, atol=tolerance, err_msg=name
        )
    alone = solve(network, factors[2:3])
    for name, values in alone.tables().items():
        assert np.array_equal(values[0], getattr(flow, name)[2]), name


def test_which_solver_takes_them(feeder, small_net):
    net = small_net(True)
    net.asymmetric_load["type"] = net.asymmetric_sgen["type"] = "delta"
    network = feeder(net)
    assert chosen_solver(network)[0] == chosen_solver(network, 10_000)[0] == "z-bus"
    assert faults_of(network, "power-grid-model") == [
        f"{name} can't be represented with the solver power-grid-model: it is in delta, only wye is"
        for name in ("load 'asym'", "sgen 'asymmetric_sgen 0'")
    ]
    net.asymmetric_load["type"] = "star"
    with pytest.raises(NetworkError, match="load 0 'asym' can't .*'star', must be 'wye' or 'delta'"):
        feeder(net)


def test_balanced_feeders_do_not_tell_them_apart(feeder, small_net):
    net = small_net(False)
    star = solve(feeder(net))
    net.load["type"] = "delta"
    delta = solve(feeder(net))
    assert delta.connection_pu is None
    assert np.array_equal(delta.voltage_pu, star.voltage_pu)


def test_they_need_no_earth(feeder, small_net):
    """Behind a star without neutral: voltages between the phases by the powers alone."""
    net = small_net(True, "Dyn", 30.0)
    net.trafo["vector_group"] = "Dy"
    net.shunt["in_service"], net.line["c0_nf_per_km"] = False, 0.0
    for table in ("load", "asymmetric_load", "sgen", "asymmetric_sgen"):
        net[table]["type"] = "delta"
    flow = solve(feeder(net))
    assert np.ptp(flow.connection_pu[0, 0]) > 1e-3
    assert flow.neutral_a.max() < 1e-6
    assert flow.trafo_neutral_a.max() < 1e-6


def test_an_outage_elsewhere_leaves_their_voltage(feeder):
    net = one_line((6.0, 0.0, 0.0))
    spare = pp.create_bus(net, 0.4, name="spare")
    pp.create_line_from_parameters(
        net, 0, spare, 1.0, OHM, 0.0, 0.0, 0.1, r0_ohm_per_km=OHM, x0_ohm_per_km=0.0, c0_nf_per_km=0.0
    )
    pp.create_asymmetric_load(net, spare, p_b_mw=0.001, type="wye", name="other")
    network = feeder(net)
    solver = PartSolver(network, make_solver)
    p, q = network.grid.loads.p_kw[np.newaxis].repeat(3, 0), np.zeros((3, 2, 3))
    p[1, 1] = p[2, 0] = 0.0
    first = Elements(network).lines
    flow = solver.solve(p, q, out={1: frozenset({first + 1}), 2: frozenset({first})})
    assert flow.connection_pu[0, 0] == pytest.approx(flow.connection_pu[1, 0], abs=1e-9)
    assert np.isnan(flow.connection_pu[1, 1]).all()
    assert np.isnan(flow.connection_pu[2, 0]).all()
    assert np.array_equal(flow.connection_pu[2, 1], flow.voltage_pu[2, 2])
