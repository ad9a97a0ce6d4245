"""The implicit Z-bus Gauss method: circuits worked by hand, batches, cases beyond the limit."""

from __future__ import annotations

import numpy as np
import pandapower as pp
import pytest
from scipy.sparse import csc_array

from evgrid.errors import NetworkError, PowerFlowError
from evgrid.feeder.solvers import Positions, chosen_solver, make_solver
from evgrid.feeder.solvers.z_bus import LARGEST_ERROR, ZBus, ZipLoads
from evgrid.feeder.solvers.z_bus_solver import ZBusSolver


def chain(nodes, ohm=0.1, volts=230.0, ports=None):
    """A source, and nodes in a row behind lines of one resistance; a port to earth at each of ``ports``."""
    y = 2 * np.eye(nodes) - np.eye(nodes, k=1) - np.eye(nodes, k=-1)
    y[-1, -1] = 1.0
    source = np.zeros(nodes)
    source[0] = volts / ohm
    incidence = np.eye(nodes)[:, range(nodes) if ports is None else ports]
    return ZBus(csc_array(y / ohm), source, csc_array(incidence), np.full(incidence.shape[1], volts))


def powers(*watts):
    return np.array(watts, complex).T


def test_a_load_behind_a_resistance_by_hand():
    # V² - 230 V + P R = 0
    bus = chain(1)
    flow = bus.solve(ZipLoads(powers([10e3], [0.0]), np.array([230.0])), 2)
    volts = (230 + np.sqrt(230**2 - 4 * 10e3 * 0.1)) / 2
    assert flow.voltage[0] == pytest.approx([volts, 230.0], abs=1e-9)
    assert flow.current[0] == pytest.approx([10e3 / volts, 0.0], abs=1e-9)
    assert not flow.stuck.any()


def test_constant_current_and_impedance_by_hand():
    # 23 kW at 230 V: 100 A (2.3 ohm); behind 0.1 ohm 220 V, and 230 * 2.3 / 2.4 V
    bus = chain(1)
    none, kind = np.zeros((1, 1), complex), powers([23e3])
    by_current = bus.solve(ZipLoads(none, np.array([230.0]), kind, none), 1)
    by_impedance = bus.solve(ZipLoads(none, np.array([230.0]), none, kind), 1)
    assert by_current.voltage[0, 0] == pytest.approx(220.0, abs=1e-8)
    assert by_impedance.voltage[0, 0] == pytest.approx(230 * 2.3 / 2.4, abs=1e-8)


def test_a_port_between_two_nodes_by_hand():
    # lines of 0.1 ohm from sources of 120 V and -120 V, a load between their ends: 240 V behind 0.2 ohm
    y, source = csc_array(np.eye(2) / 0.1), np.array([1200.0, -1200.0])
    bus = ZBus(y, source, csc_array([[1.0], [-1.0]]), np.array([240.0]))
    flow = bus.solve(ZipLoads(powers([7200.0]), np.array([240.0])), 1)
    volts = (240 + np.sqrt(240**2 - 4 * 7200.0 * 0.2)) / 2
    assert flow.voltage[0, 0] == pytest.approx(volts, abs=1e-9)
    re, im = np.empty((2, 1)), np.empty((2, 1))
    bus.nodes(flow.current, re, im)
    assert re[:, 0] == pytest.approx([volts / 2, -volts / 2], abs=1e-9)
    assert im[:, 0] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_ports_alone_give_what_all_nodes_give():
    """Few ports among many nodes iterate on a dense matrix, many by substitution."""
    few, many = chain(40, 0.01, ports=[12, 39]), chain(40, 0.01)
    assert few._z is not None
    assert many._z is None
    power = np.zeros((40, 3), complex)
    power[[12, 39]] = powers([2e3, 1e3], [4e3, -2e3], [0.0, 3e3 + 1e3j])
    at_few = few.solve(ZipLoads(power[[12, 39]], np.full(2, 230.0)), 3)
    at_all = many.solve(ZipLoads(power, np.full(40, 230.0)), 3)
    assert at_few.voltage == pytest.approx(at_all.voltage[[12, 39]], abs=1e-8)
    some = many.solve(ZipLoads(power[[12, 39]], np.full(2, 230.0)), 3, np.array([12, 39]))
    assert np.array_equal(some.voltage, at_all.voltage[[12, 39]])
    assert np.array_equal(some.iterations, at_all.iterations)


@pytest.mark.parametrize("ports", [None, [3, 9]])
def test_a_case_beyond_the_limit_is_reported_and_disturbs_no_other(ports):
    # at most 230² / (4 * 0.1) = 132 kW reach the first node
    bus = chain(10, ports=ports)
    power = np.zeros((bus.ports, 3), complex)
    power[0] = [1e3, 1e6, 2e3]
    flow = bus.solve(ZipLoads(power, np.full(bus.ports, 230.0)), 3)
    assert flow.stuck.tolist() == [False, True, False]
    alone = bus.solve(ZipLoads(power[:, [2]], np.full(bus.ports, 230.0)), 1)
    assert np.array_equal(alone.voltage[:, 0], flow.voltage[:, 2])


def test_an_unconnected_node_is_refused():
    with pytest.raises(NetworkError, match="the admittance matrix can't be factorised: .*singular"):
        ZBus(csc_array(np.array([[1.0, 0.0], [0.0, 0.0]])), np.ones(2), csc_array(np.eye(2)))


def test_the_error_of_an_ill_conditioned_matrix_is_estimated():
    """230 V behind 1 ohm, a ring of three switches of some 1e-12 ohm, 5 S to earth: 230 / 6 V everywhere.

    The entries are whole numbers, so that the matrix itself is exact.
    """
    a, b, c = 3_000_000_000_017.0, 700_000_000_051.0, 1_100_000_000_003.0
    y = csc_array([[1 + a + c, -a, -c], [-a, 2 + a + b, -b], [-c, -b, 3 + b + c]])
    bus = ZBus(y, np.array([230.0, 0.0, 0.0]), csc_array(np.eye(3)), node_base=np.full(3, 230.0))
    actual = np.abs(bus.no_load - 230 / 6).max() / 230
    assert actual > LARGEST_ERROR
    assert bus.error == pytest.approx(actual, rel=1e-2)
    assert chain(40).error < 1e-12


# ---- feeders ----------------------------------------------------------------------------------------


def loads_of(network, factors):
    scale = np.array(factors)[:, np.newaxis, np.newaxis]
    return network.grid.loads.p_kw * scale, network.grid.loads.q_kvar * scale


@pytest.mark.parametrize("which", ["european_lv", "cigre_lv"])
def test_it_agrees_with_power_grid_model(feeder, which):
    network = feeder(which)
    p, q = loads_of(network, (0.0, 0.5, 1.0, 2.5))
    flow, expected = (make_solver(network, solver).solve(p, q) for solver in ("z-bus", "power-grid-model"))
    for name, values in flow.tables().items():
        scale = 100.0 if name.endswith(("kw", "kvar", "neutral_a")) else 1.0
        np.testing.assert_allclose(values, getattr(expected, name), rtol=0, atol=1e-9 * scale, err_msg=name)


def test_a_case_does_not_depend_on_its_batch(feeder):
    network = feeder("european_lv")
    p, q = loads_of(network, np.linspace(0.0, 3.0, 60))
    solver = ZBusSolver(network)
    together = solver.solve(p, q)
    backwards = solver.solve(p[::-1], q[::-1])
    for case in (0, 17, 59):
        alone = solver.solve(p[case : case + 1], q[case : case + 1])
        for name, expected in alone.tables().items():
            assert np.array_equal(getattr(together, name)[case], expected[0]), name
            assert np.array_equal(getattr(backwards, name)[59 - case], expected[0]), name


def test_newton_raphson_takes_over_and_is_counted(feeder):
    network = feeder("case33bw")
    factors = (1.0, 3.61, 2.0, 3.62)  # 3.63 has no solution
    p, q = loads_of(network, factors)
    solver = ZBusSolver(network)
    flow = solver.solve(p, q)
    assert solver.newton_cases == 2
    expected = make_solver(network, "power-grid-model").solve(p, q)
    assert np.array_equal(flow.voltage_pu[[1, 3]], expected.voltage_pu[[1, 3]])
    np.testing.assert_allclose(flow.voltage_pu, expected.voltage_pu, atol=1e-9)
    failed: dict[int, str] = {}
    flow = solver.solve(*loads_of(network, (1.0, 9.0)), failed=failed)
    assert list(failed) == [1]
    assert solver.newton_cases == 2
    assert np.isnan(flow.voltage_pu[1]).all()
    assert np.isfinite(flow.voltage_pu[0]).all()


def test_a_case_beyond_the_limit_is_named_where_no_newton_method_can_take_over(feeder, small_net):
    net = small_net(True, "Dd", 0.0)
    for table in ("load", "asymmetric_load", "sgen", "asymmetric_sgen"):
        net[table]["type"] = "delta"
    network = feeder(net)
    solver = ZBusSolver(network)
    p, q = loads_of(network, (1.0, 1e3))
    why = r"z-bus did not converge: case 1: .* neither power-grid-model nor pandapower, the next ones"
    with pytest.raises(PowerFlowError, match=why):
        solver.solve(p, q)


def test_pandapower_takes_over_where_power_grid_model_can_t_represent_the_network(feeder, small_net):
    net = small_net(False)
    net.trafo["shift_degree"] = 7.0
    network = feeder(net)
    factors = (1.0, 13.0)
    solver = ZBusSolver(network)
    flow = solver.solve(*loads_of(network, factors))
    expected = make_solver(network, "pandapower").solve(*loads_of(network, factors))
    assert solver.newton_cases == 1
    assert np.array_equal(flow.voltage_pu[1], expected.voltage_pu[1])
    np.testing.assert_allclose(flow.voltage_pu, expected.voltage_pu, atol=1e-8)


def test_each_set_of_positions_has_its_own_network(feeder, small_net):
    network = feeder(small_net(True, "Dyn", 30.0))
    p, q = loads_of(network, (1.0, 1.0, 0.5, 1.0))
    tap = np.array([[-2], [2], [0], [-2]])
    shunt = np.array([[1], [0], [1], [1]])
    at = Positions(tap, shunt)
    flow, expected = (
        make_solver(network, solver).solve(p, q, positions=at) for solver in ("z-bus", "power-grid-model")
    )
    for name, values in flow.tables().items():
        np.testing.assert_allclose(values, getattr(expected, name), rtol=1e-9, atol=1e-7, err_msg=name)
    assert np.array_equal(flow.voltage_pu[0], flow.voltage_pu[3])
    assert np.abs(flow.voltage_pu[0] - flow.voltage_pu[1]).max() > 0.01


def test_auto_is_z_bus_unless_it_can_t_represent_the_network_or_positions_are_many(feeder, small_net):
    network = feeder("cigre_lv")
    assert chosen_solver(network) == ("z-bus", "the fastest that can represent the network")
    assert make_solver(network, "auto").name == "z-bus"
    name, why = chosen_solver(network, 33 * 9)
    assert (name, make_solver(network, "auto", states=33 * 9).name) == (
        "power-grid-model",
        "power-grid-model",
    )
    assert "297 sets of positions, more than the 100" in why
    net = small_net(False)
    pp.create_ext_grid(net, 0, vm_pu=1.01)
    name, why = chosen_solver(feeder(net))
    assert name == "power-grid-model"
    assert "ext_grid 1 can't be represented with the solver z-bus: it is at a bus with another one" in why


def test_load_to_an_earth_that_is_not_there_is_refused(feeder, small_net):
    net = small_net(True, "Dyn", 30.0)
    net.trafo["vector_group"] = "Dy"
    net.shunt["in_service"], net.line["c0_nf_per_km"] = False, 0.0
    with pytest.raises(
        NetworkError, match="load 'sym' can't .* z-bus: .* but nothing earths the network at bus 'B5'"
    ):
        ZBusSolver(feeder(net))


def test_an_ill_conditioned_network_is_left_to_newton_raphson(feeder):
    """A ring of lines of some 1e-11 ohm behind one of a usual impedance."""
    net = pp.create_empty_network()
    buses = [pp.create_bus(net, 0.4) for _ in range(4)]
    pp.create_ext_grid(net, buses[0])
    for start, end, ohm in ((0, 1, 0.1), (1, 2, 1e-12), (2, 3, 3e-12), (3, 1, 7e-12)):
        pp.create_line_from_parameters(net, start, end, 1.0, ohm, ohm, 0.0, 0.2)
    for bus in buses[1:]:
        pp.create_load(net, bus, 0.01)
    network = feeder(net)
    solver = ZBusSolver(network)
    assert "power-grid-model solves every case" in solver.note
    flow = solver.solve(*loads_of(network, (1.0, 0.5)))
    assert solver.newton_cases == 2
    expected = make_solver(network, "power-grid-model").solve(*loads_of(network, (1.0, 0.5)))
    assert np.array_equal(flow.voltage_pu, expected.voltage_pu)
