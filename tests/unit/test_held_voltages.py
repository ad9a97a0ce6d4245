"""Generators that hold a voltage (gen, PV buses): pandapower, and reactive powers found by a root finder."""

from __future__ import annotations

import copy

import numpy as np
import pandapower as pp
import pytest
from scipy.optimize import root
from tests.unit.test_feeder_solvers import TOLERANCE, two_lines

from evgrid.errors import NetworkError
from evgrid.feeder.outages import Elements, PartSolver
from evgrid.feeder.solvers import Positions, check_balance, chosen_solver, faults_of, make_solver
from evgrid.feeder.solvers.pandapower import STIFF_MVA
from evgrid.feeder.solvers.z_bus_solver import ZBusSolver


def loads_of(network, factors):
    scale = np.array(factors)[:, np.newaxis, np.newaxis]
    return network.grid.loads.p_kw * scale, network.grid.loads.q_kvar * scale


def test_a_reactive_power_by_hand(feeder):
    """0.1 ohm, 0.2 ohm to a bus held at 1 pu of 400 V: with 10 kW to the source the angle follows from
    R cos(d) + ... as P = (V² R - V² (R cos d - X sin d)) / (R² + X²), and Q with it.
    """
    net = two_lines(0.0)
    net.line["x_ohm_per_km"] = 0.1
    pp.create_gen(net, 2, 0.01, vm_pu=1.0, name="G")
    network = feeder(net)
    flow = make_solver(network).solve(*loads_of(network, (1.0,)))
    r, x, kv = 0.1, 0.2, 0.4
    angle = root(
        lambda d: 1e3 * kv**2 * (r - r * np.cos(d) + x * np.sin(d)) / (r**2 + x**2) - 10.0, 0.0, tol=1e-14
    ).x[0]
    current = (kv * np.exp(1j * angle) - kv) / (r + 1j * x)  # from the generator, times sqrt(3), kA
    assert flow.voltage_pu[0, 2, 0] == pytest.approx(1.0, abs=1e-11)
    power = -kv * np.conj(current) * 1e3
    assert flow.head_p_kw[0, 0] == pytest.approx(power.real, abs=1e-7)
    assert flow.head_q_kvar[0, 0] == pytest.approx(power.imag, abs=1e-7)
    generated = kv * np.exp(1j * angle) * np.conj(current) * 1e3
    assert generated.real == pytest.approx(10.0, abs=1e-9)
    assert flow.held_kvar[0, 0] == pytest.approx(generated.imag, abs=1e-7)
    assert flow.fixed_kw[0] == pytest.approx(-10.0, abs=1e-12)


def with_gens(small_net, three_phase, group="Dyn", shift=30.0):
    """Two generators behind the transformer, two at one node, one at the source, one out of service."""
    net = small_net(three_phase, group, shift, no_load=group == "Dyn")
    pp.create_gen(net, 6, 0.030, vm_pu=1.01, name="G6", scaling=0.5)
    pp.create_gen(net, 7, 0.005, vm_pu=0.995, name="G7")
    pp.create_gen(net, 8, 0.004, vm_pu=0.995, name="G8")  # joined with the bus of G7
    pp.create_gen(net, 0, 0.012, vm_pu=1.02, name="G0")
    pp.create_gen(net, 3, 0.1, vm_pu=1.1, name="out", in_service=False)
    net.gen["min_q_mvar"], net.gen["max_q_mvar"] = -0.001, 0.001  # without effect
    return net


@pytest.mark.parametrize("reduce", [True, False])
def test_balanced_it_is_runpp(feeder, small_net, reduce):
    net = with_gens(small_net, False)
    network = feeder(net)
    factors = (1.0, 0.0, -1.0, 3.0)
    p, q = loads_of(network, factors)
    solver = ZBusSolver(network, reduce)
    flow = solver.solve(p, q)
    assert solver.newton_cases == 0
    check_balance(flow, p, 1e-9)
    for case, factor in enumerate(factors):
        one = copy.deepcopy(net)
        one.load["scaling"] = factor
        pp.runpp(one, calculate_voltage_angles=True, tolerance_mva=1e-11)
        np.testing.assert_allclose(flow.voltage_pu[case, :, 0], one.res_bus.vm_pu, rtol=0, atol=1e-9)
        assert flow.head_p_kw[case, 0] == pytest.approx(one.res_ext_grid.p_mw.sum() * 1e3, abs=1e-5)
        q_kvar = one.res_gen.q_mvar.to_numpy()[:3] * 1e3  # the fourth shares that of the source
        held_kvar = flow.held_kvar[case, network.grid.fixed.holds][:3]
        np.testing.assert_allclose(
            [held_kvar[0], held_kvar[1:].sum()], [q_kvar[0], q_kvar[1:].sum()], atol=1e-4
        )
        assert held_kvar[1] == held_kvar[2]
        trafo = one.res_trafo.loading_percent / 100
        np.testing.assert_allclose(flow.trafo_loading[case, :, 0], trafo, rtol=0, atol=1e-7)
    expected = make_solver(network, "pandapower").solve(p, q)
    for name, tolerance in TOLERANCE.items():
        np.testing.assert_allclose(
            getattr(flow, name), getattr(expected, name), rtol=0, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize(("group", "shift"), [("Dyn", 30.0), ("YNyn", 0.0)])
def test_in_three_phases_it_is_the_sgen_that_holds_the_positive_sequence(feeder, small_net, group, shift):
    """Three equal phase powers; pandapower's ``runpp_3ph`` with Q of static generators by a root finder."""
    net = with_gens(small_net, True, group, shift)
    network = feeder(net)
    factors = (1.0, -0.5)
    p, q = loads_of(network, factors)
    flow = make_solver(network).solve(p, q)
    check_balance(flow, p, 1e-9)

    static = copy.deepcopy(net)
    static.gen = static.gen.iloc[:0].copy()
    for bus, p_mw in ((6, 0.015), (7, 0.009), (0, 0.012)):
        pp.create_sgen(static, bus, p_mw, 0.0, type="wye", name=f"held {bus}")
    static.ext_grid["s_sc_max_mva"], static.ext_grid["rx_max"] = STIFF_MVA, 0.1
    static.ext_grid["x0x_max"], static.ext_grid["r0x0_max"] = 1.0, 0.1
    held = static.sgen.index[-3:-1]

    def missing(mvar):
        static.sgen.loc[held, "q_mvar"] = mvar / 100
        pp.runpp_3ph(static, tolerance_mva=1e-9)
        bus = static.res_bus_3ph
        phasors = [bus[f"vm_{x}_pu"] * np.exp(1j * np.deg2rad(bus[f"va_{x}_degree"])) for x in "abc"]
        turn = np.exp(2j * np.pi / 3)
        one = (phasors[0] + turn * phasors[1] + turn**2 * phasors[2]) / 3
        return np.abs(one)[[6, 7]].to_numpy() - [1.01, 0.995]

    for case, factor in enumerate(factors):
        static.load["scaling"] = static.asymmetric_load["scaling"] = factor
        found = root(missing, np.zeros(2), tol=1e-9)
        assert found.success
        missing(found.x)
        volts = static.res_bus_3ph[[f"vm_{x}_pu" for x in "abc"]].to_numpy()
        np.testing.assert_allclose(flow.voltage_pu[case], volts, rtol=0, atol=2e-6)
        np.testing.assert_allclose(
            flow.held_kvar[case, network.grid.fixed.holds],
            [*(found.x[[0, 1, 1]] * [10, 5, 5]), 0.0],
            atol=2e-2,
        )
        assert np.ptp(volts[6]) > 1e-4  # the phases differ: not each is held
        head = static.res_ext_grid_3ph[[f"p_{x}_mw" for x in "abc"]].to_numpy()[0] * 1e3
        np.testing.assert_allclose(
            flow.head_p_kw[case] + 4.0, head, rtol=0, atol=2e-3
        )  # less the 12 kW there


def test_equal_phases_are_the_balanced_feeder(feeder, small_net):
    flows = []
    for three_phase in (True, False):
        net = with_gens(small_net, three_phase)
        for table in ("asymmetric_load", "asymmetric_sgen"):
            net[table]["in_service"] = False
        net.load.loc[net.load.name != "sym", "in_service"] = False
        if three_phase:
            pp.create_asymmetric_load(net, 8, name="for three phases", type="wye")
        network = feeder(net)
        assert network.three_phase == three_phase
        flows.append(make_solver(network).solve(*loads_of(network, (1.0, -2.0))))
    three, one = flows
    np.testing.assert_allclose(three.voltage_pu, one.voltage_pu.repeat(3, axis=2), rtol=0, atol=1e-9)
    for name in ("head_p_kw", "head_q_kvar"):
        np.testing.assert_allclose(
            getattr(three, name).sum(axis=1), getattr(one, name)[:, 0], rtol=0, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("three_phase", [True, False])
def test_each_case_has_its_own_generation_and_positions_and_depends_on_no_other(
    feeder, small_net, three_phase
):
    network = feeder(with_gens(small_net, three_phase))
    rng = np.random.default_rng(3)
    count, fixed = 40, network.grid.fixed
    p, q = loads_of(network, rng.uniform(-1.0, 2.0, count))
    scale = rng.uniform(0.0, 2.0, (count, len(fixed.gen_bus), 1))
    generation = fixed.gen_p_kw * scale, fixed.gen_q_kvar * scale
    at = Positions(rng.integers(-2, 3, (count, 1)), rng.integers(0, 2, (count, 1)))
    solver = ZBusSolver(network)
    flow = solver.solve(p, q, generation=generation, positions=at)
    check_balance(flow, p, 1e-9)
    if not three_phase:
        expected = make_solver(network, "pandapower").solve(p, q, generation=generation, positions=at)
        np.testing.assert_allclose(flow.voltage_pu, expected.voltage_pu, rtol=0, atol=1e-9)
        np.testing.assert_allclose(flow.head_p_kw, expected.head_p_kw, rtol=0, atol=1e-5)
        np.testing.assert_allclose(flow.voltage_pu[:, 6, 0], 1.01, rtol=0, atol=1e-10)
    for case in (0, 17, 39):
        one = slice(case, case + 1)
        alone = solver.solve(
            p[one], q[one], generation=(generation[0][one], generation[1][one]),
            positions=Positions(at.tap[one], at.shunt[one]),
        )  # fmt: skip
        for name, values in alone.tables().items():
            assert np.array_equal(values[0], getattr(flow, name)[case]), name


@pytest.mark.parametrize("case", ["case9", "case30", "case57"])
def test_networks_with_many_generators_are_runpp(feeder, case):
    """What the iteration does not reach goes to pandapower, and is counted."""
    network = feeder(f"pandapower:{case}")
    p, q = loads_of(network, (1.0, 0.5))
    solver = ZBusSolver(network)
    flow = solver.solve(p, q)
    assert solver.newton_cases <= 1
    expected = make_solver(network, "pandapower").solve(p, q)
    np.testing.assert_allclose(flow.voltage_pu, expected.voltage_pu, rtol=0, atol=1e-9)
    np.testing.assert_allclose(flow.head_p_kw, expected.head_p_kw, rtol=1e-9)


def test_a_dead_generator_holds_nothing(feeder, small_net):
    net = with_gens(small_net, False)
    network = feeder(net)
    solver = PartSolver(network, make_solver)
    p, q = loads_of(network, (1.0, 1.0))
    at = network.grid.lines.name.tolist().index("line 4")  # the last one to B6
    flow = solver.solve(p, q, out={1: frozenset({Elements(network).lines + at})})
    assert flow.voltage_pu[:, 6, 0] == pytest.approx([1.01, np.nan], abs=1e-10, nan_ok=True)
    assert flow.voltage_pu[:, 7, 0] == pytest.approx([0.995, 0.995], abs=1e-10)
    net.gen.loc[net.gen.name == "G6", "in_service"] = False
    net.line.loc[4, "in_service"] = False
    net.shunt["in_service"] = False
    other = feeder(net)
    expected = make_solver(other).solve(*loads_of(other, (1.0,)))
    np.testing.assert_allclose(flow.voltage_pu[1], expected.voltage_pu[0], rtol=0, atol=1e-10)


def test_which_solver_takes_them(feeder, small_net):
    network = feeder(with_gens(small_net, False))
    assert chosen_solver(network)[0] == chosen_solver(network, 10_000)[0] == "z-bus"
    refused = faults_of(network, "power-grid-model")
    assert len(refused) == 4
    assert refused[0].startswith("gen 'G6' can't be represented with the solver power-grid-model: it holds a")
    assert faults_of(network, "pandapower") == []
    network = feeder(with_gens(small_net, True))
    assert faults_of(network, "z-bus") == []
    assert "it holds a voltage in three phases, only fixed power is" in faults_of(network, "pandapower")[0]


@pytest.mark.parametrize(
    ("bus", "held_pu", "message"),
    [
        (7, 1.0, "gen 'X' can't .* z-bus: it holds 1 pu where 0.995 pu is held already"),
        (0, 1.0, "gen 'X' can't .* z-bus: it holds 1 pu where 1.02 pu is held already"),
    ],
)
def test_two_voltages_at_one_node_are_refused(feeder, small_net, bus, held_pu, message):
    net = with_gens(small_net, False)
    pp.create_gen(net, bus, 0.001, vm_pu=held_pu, name="X")
    with pytest.raises(NetworkError, match=message):
        ZBusSolver(feeder(net))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("slack", True, "gen 0 'G' can't be represented .*: it is a slack: must be an ext_grid"),
        ("vm_pu", np.nan, "gen 0 'G' has no vm_pu"),
        ("vm_pu", -1.0, r"gen 0 'G' has vm_pu = -1: must be a number above 0, at most 10"),
    ],
)
def test_bad_generators_are_named(feeder, small_net, column, value, message):
    net = small_net(False)
    pp.create_gen(net, 3, 0.01, vm_pu=1.0, name="G")
    net.gen[column] = value
    with pytest.raises(NetworkError, match=message):
        feeder(net)


def test_no_reactance_no_voltage(feeder):
    net = two_lines(0.0)
    pp.create_gen(net, 2, 0.01, vm_pu=1.0)
    with pytest.raises(NetworkError, match="the voltages of gens don't depend on their reactive power"):
        ZBusSolver(feeder(net))
