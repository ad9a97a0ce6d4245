"""Power flow: numbers worked by hand, both solvers against each other, reduction, balance, failures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandapower as pp
import pytest

from evgrid.errors import NetworkError, PowerFlowError
from evgrid.feeder.solvers import check_balance, make_solver
from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver


def loads_of(network, factors=(1.0, 0.5)):
    scale = np.array(factors)[:, np.newaxis, np.newaxis]
    return network.grid.loads.p_kw * scale, network.grid.loads.q_kvar * scale


def largest_gap(one, other, name):
    a, b = getattr(one, name), getattr(other, name)
    assert np.array_equal(np.isnan(a), np.isnan(b))
    return np.nanmax(np.abs(a - b), initial=0.0)


def two_lines(p_mw):
    """0.4 kV source - 0.05 ohm - middle - 0.05 ohm - load; and a dead end at the middle."""
    net = pp.create_empty_network()
    bus = [pp.create_bus(net, 0.4) for _ in range(4)]
    pp.create_ext_grid(net, bus[0])
    for a, b in ((0, 1), (1, 2), (1, 3)):
        pp.create_line_from_parameters(net, bus[a], bus[b], 1.0, 0.05, 0.0, 0.0, 0.02)
    pp.create_load(net, bus[2], p_mw)
    return net


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("solver", ["z-bus", "power-grid-model", "pandapower"])
def test_resistive_line_by_hand(feeder, solver, reduce):
    # V^2 - 400 V + P R = 0 with P = 10 kW, R = 0.1 ohm: V = 397.484 V; I = P/(sqrt(3) V) = 14.525 A
    network = feeder(two_lines(0.01))
    flow = make_solver(network, solver, reduce).solve(np.array([[[10.0]]]), np.zeros((1, 1, 1)))
    volts = (400 + np.sqrt(400**2 - 4 * 10e3 * 0.1)) / 2
    amperes = 10e3 / volts / np.sqrt(3)
    middle = (400 + volts) / 2
    assert flow.voltage_pu[0, :, 0] * 400 == pytest.approx([400, middle, volts, middle], abs=1e-6)
    assert flow.line_loading[0] == pytest.approx([amperes / 20, amperes / 20, 0.0], abs=1e-8)
    assert flow.losses_kw == pytest.approx([3 * amperes**2 * 0.1 / 1e3], abs=1e-7)
    assert flow.head_p_kw[0] == pytest.approx([10 + 3 * amperes**2 * 0.1 / 1e3], abs=1e-7)


TOLERANCE = {
    "voltage_pu": 1e-5,
    "line_loading": 1e-5,
    "trafo_loading": 1e-5,
    "trafo_p_kw": 2e-3,
    "head_p_kw": 2e-3,
    "head_q_kvar": 2e-3,
    "losses_kw": 1e-3,
    "fixed_kw": 1e-4,
    "voltage_unbalance": 1e-5,
    "neutral_a": 1e-2,
    "trafo_neutral_a": 1e-2,
}


def assert_solvers_agree(network):
    p, q = loads_of(network)
    reference = make_solver(network, "pandapower")
    expected = reference.solve(p, q)
    check_balance(expected, p, reference.balance_tolerance)
    for solver in ("power-grid-model", "z-bus"):
        flow = make_solver(network, solver).solve(p, q)
        check_balance(flow, p, 1e-9)
        for name, tolerance in TOLERANCE.items():
            assert largest_gap(flow, expected, name) <= tolerance, (solver, name)


@pytest.mark.parametrize("name", ["european_lv", "cigre_lv", "cigre_mv", "case33bw"])
def test_solvers_agree_on_built_in_networks(feeder, name):
    assert_solvers_agree(feeder(name))


@pytest.mark.parametrize(
    ("three_phase", "group", "shift", "no_load"),
    [
        (False, "Dyn", 30.0, True),
        (False, "YNyn", 0.0, True),
        (True, "Dyn", 30.0, True),
        (True, "Dyn", 150.0, True),
        (True, "YNyn", 0.0, False),
    ],
)
def test_solvers_agree_on_taps_shunts_switches_and_zero_sequence(
    feeder, small_net, three_phase, group, shift, no_load
):
    assert_solvers_agree(feeder(small_net(three_phase, group, shift, no_load)))


def test_solvers_agree_with_a_transformer_open_at_one_side(feeder, small_net):
    net = small_net(False)
    spare = pp.create_bus(net, 0.4, name="spare")
    pp.create_transformer_from_parameters(net, 1, spare, 0.4, 20.0, 0.4, 1.2, 4.0, 1.2, 0.3, shift_degree=30)
    pp.create_switch(net, spare, 1, "t", closed=False)
    network = feeder(net)
    assert_solvers_agree(network)
    assert not network.topology.energised[-1]


@pytest.mark.parametrize("name", ["european_lv", "cigre_lv"])
def test_reduction_changes_no_number(feeder, name):
    network = feeder(name)
    p, q = loads_of(network, (1.0, 3.0))
    reduced, whole = (PowerGridModelSolver(network, reduce) for reduce in (True, False))
    assert len(reduced.circuit.nominal_kv) < 0.8 * len(whole.circuit.nominal_kv)
    one, other = reduced.solve(p, q), whole.solve(p, q)
    for table in one.tables():
        # energies are known to 1e-9 of the head power
        scale = np.abs(other.head_p_kw).max() if table.endswith(("kw", "kvar")) else 1.0
        scale = 100.0 if table.endswith("neutral_a") else scale
        assert largest_gap(one, other, table) <= 1e-9 * scale, table


@pytest.mark.parametrize("three_phase", [True, False])
def test_reduction_of_rings_dead_ends_and_unequal_lines(feeder, small_net, three_phase):
    net = small_net(three_phase)
    more = [pp.create_bus(net, 0.4) for _ in range(5)]

    def line(a, b, r, r0):
        pp.create_line_from_parameters(
            net, a, b, 0.05, r, 0.08, 0, 0.2, r0_ohm_per_km=r0, x0_ohm_per_km=0.3, c0_nf_per_km=0
        )

    line(8, more[0], 0.3, 2.0)  # a chain of unequal lines back to B5: a mesh with current
    line(more[0], more[1], 0.6, 0.9)
    line(more[1], 5, 0.1, 4.0)
    line(more[1], more[2], 0.3, 1.0)  # a dead end that branches off inside the chain ...
    line(more[2], more[3], 0.3, 1.0)
    line(8, more[4], 0.3, 1.0)  # ... and a ring without load
    line(more[4], 8, 0.3, 1.0)
    pp.create_bus(net, 0.4, name="alone")
    network = feeder(net)
    reduced, whole = (PowerGridModelSolver(network, reduce) for reduce in (True, False))
    assert len(reduced.circuit.nominal_kv) == len(whole.circuit.nominal_kv) - 6
    p, q = loads_of(network)
    one, other = reduced.solve(p, q), whole.solve(p, q)
    for table in one.tables():
        scale = 100.0 if table.endswith("neutral_a") else 1.0
        assert largest_gap(one, other, table) <= 1e-9 * scale, table
    assert np.isnan(one.voltage_pu[:, -1]).all()
    assert_solvers_agree(network)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_case_does_not_depend_on_its_batch(feeder, threads):
    network = feeder("european_lv")
    p, q = loads_of(network, np.linspace(0.0, 3.0, 60))
    solver = PowerGridModelSolver(network, threads=threads if threads > 1 else -1)
    together = solver.solve(p, q)
    for case in (0, 17, 59):
        alone = solver.solve(p[case : case + 1], q[case : case + 1])
        for table in alone.tables():
            assert np.array_equal(getattr(alone, table)[0], getattr(together, table)[case]), table


def test_newton_raphson_takes_over_where_iterative_current_fails(feeder):
    network = feeder("case33bw")
    p, q = loads_of(network, (1.0, 3.3, 1.0))
    solver = PowerGridModelSolver(network)
    methods = []
    calculate = solver._calculate

    def spy(update, method):
        result, failed = calculate(update, method)
        methods.append((method.name, len(update[solver._load]["p_specified"]), sorted(failed)))
        return result, failed

    solver._calculate = spy
    flow = solver.solve(p, q)
    assert methods == [("iterative_current", 3, [1]), ("newton_raphson", 1, [])]
    check_balance(flow, p, 1e-6)
    assert flow.losses_kw[0] == flow.losses_kw[2]
    expected = make_solver(network, "pandapower").solve(p[1:2], q[1:2])
    assert flow.voltage_pu[1] == pytest.approx(expected.voltage_pu[0], abs=1e-7)


@pytest.mark.parametrize("solver", ["z-bus", "power-grid-model", "pandapower"])
@pytest.mark.parametrize("name", ["case33bw", "european_lv"])
def test_a_diverging_case_is_named(feeder, name, solver):
    network = feeder(name)
    p, q = loads_of(network, (1.0, 1e4))
    with pytest.raises(PowerFlowError, match=f"with {solver} did not converge: case 1: ") as caught:
        make_solver(network, solver).solve(p, q)
    assert "case 0" not in str(caught.value)


def test_a_reactance_that_pandapower_can_t_divide_by_is_one_sentence(feeder):
    net = two_lines(0.01)
    net.line.loc[0, "x_ohm_per_km"] = 1e-300
    network = feeder(net)
    with pytest.raises(PowerFlowError, match="with pandapower did not converge: case 0: underflow"):
        make_solver(network, "pandapower", False).solve(*loads_of(network, (1.0,)))


@pytest.mark.parametrize("name", ["head_p_kw", "losses_kw", "fixed_kw"])
def test_the_balance_check_bites(feeder, name):
    network = feeder("european_lv")
    p, q = loads_of(network)
    flow = make_solver(network, "power-grid-model").solve(p, q)
    check_balance(flow, p, 1e-6)
    changed = getattr(flow, name).copy()
    changed[1] += 1e-4
    with pytest.raises(PowerFlowError, match=r"power flow of case 1 does not balance: head .*allowed 1e-06"):
        check_balance(dataclasses.replace(flow, **{name: changed}), p, 1e-6)


def test_the_balance_check_bites_where_a_load_is_dropped(feeder):
    network = feeder("european_lv")
    p, q = loads_of(network)
    solver = PowerGridModelSolver(network)
    solve = solver._solve

    def forgetful(update, reasons):
        p_w = update[solver._load]["p_specified"].copy()
        p_w[1, 3] = 0.0
        return solve({solver._load: update[solver._load] | {"p_specified": p_w}}, reasons)

    solver._solve = forgetful
    with pytest.raises(PowerFlowError, match="power flow of case 1 does not balance"):
        check_balance(solver.solve(p, q), p, 1e-6)


def test_the_balance_check_bites_at_nan(feeder):
    network = feeder("case33bw")
    p, q = loads_of(network)
    flow = make_solver(network, "power-grid-model").solve(p, q)
    with pytest.raises(PowerFlowError, match="case 0 does not balance"):
        check_balance(dataclasses.replace(flow, losses_kw=flow.losses_kw * np.nan), p, 1e-6)


PGM_REFUSES = {
    "shift": (False, ("shift_degree", 10.0), "shift_degree = 10, must be a multiple of 30"),
    "group": (True, ("vector_group", "YNd"), "vector_group = 'YNd', in three phases Dyn, YNyn and Yzn are"),
    "clock": (True, ("shift_degree", 0.0), "shift_degree = 0 with vector_group 'Dyn', must be an odd"),
}


@pytest.mark.parametrize("case", PGM_REFUSES)
def test_power_grid_model_refuses_transformers_by_name(feeder, small_net, case):
    three_phase, (column, value), message = PGM_REFUSES[case]
    net = small_net(three_phase)
    net.trafo[column] = value
    with pytest.raises(NetworkError, match=f"trafo 'T1' can't be represented .*power-grid-model: {message}"):
        make_solver(feeder(net), "power-grid-model")


def test_power_grid_model_refuses_a_magnetising_ynyn_transformer(feeder, small_net):
    net = small_net(True, "YNyn", 0.0)
    net.trafo["mag0_percent"] = 100.0
    with pytest.raises(NetworkError, match=r"trafo 'T1' can't .*YNyn transformer with mag0_percent = 100"):
        make_solver(feeder(net), "power-grid-model")


def test_power_grid_model_refuses_lines_without_impedance(feeder):
    net = two_lines(0.01)
    net.line.loc[1, "r_ohm_per_km"] = 0.0
    net.line["name"] = ["A", "B", "C"]
    with pytest.raises(NetworkError, match=r"line 'B' can't .*it has no impedance; use a bus-bus switch"):
        make_solver(feeder(net), "power-grid-model")
    net.line.loc[1, "g_us_per_km"] = 1.0
    net.line.loc[1, "r_ohm_per_km"] = 0.1
    with pytest.raises(NetworkError, match=r"line 'B' can't .*conductance without capacitance"):
        make_solver(feeder(net), "power-grid-model")


def test_pandapower_refuses_other_vector_groups_in_three_phases(feeder, small_net):
    net = small_net(True)
    net.trafo["vector_group"] = "Dd"
    with pytest.raises(
        NetworkError, match="trafo 'T1' can't be represented with the solver pandapower: vector"
    ):
        make_solver(feeder(net), "pandapower")


@pytest.mark.parametrize("solver", ["z-bus", "power-grid-model"])
def test_a_feeder_without_loads(feeder, solver):
    net = two_lines(0.01)
    net.load["in_service"] = False
    flow = make_solver(feeder(net), solver).solve(np.zeros((3, 0, 1)), np.zeros((3, 0, 1)))
    assert flow.voltage_pu == pytest.approx(np.ones((3, 4, 1)))
