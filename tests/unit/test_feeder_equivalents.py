"""Equivalents: the prepared net flows like the one given, and both solvers agree on it."""

from __future__ import annotations

import numpy as np
import pandapower as pp
import pytest

from evgrid.errors import NetworkError
from evgrid.feeder.equivalents import prepare
from evgrid.feeder.networks import load_network
from evgrid.feeder.solvers import check_balance, make_solver
from evgrid.scenario.feeder import Feeder, ZeroSequence


def trafo3w(net, **more):
    mv = pp.create_bus(net, 10.0, name="MV")
    lv = pp.create_bus(net, 0.4, name="LV")
    pp.create_transformer3w_from_parameters(
        net, 1, mv, lv, 20.0, 10.0, 0.4, 4.0, 3.0, 1.0, 8.0, 5.0, 7.0, 0.8, 0.5, 0.6, 4.0, 0.2,
        shift_mv_degree=0.0, shift_lv_degree=30.0, tap_side="mv", tap_pos=2, tap_neutral=0,
        tap_step_percent=1.5, tap_step_degree=0.0, tap_changer_type="Ratio", name="W", **more,
    )  # fmt: skip
    pp.create_load(net, mv, 1.2, 0.3, name="at mv")
    pp.create_load(net, lv, 0.4, 0.1, name="at lv")


def impedance(net):
    pp.create_impedance(net, 5, 6, 0.01, 0.02, 0.1, gf_pu=0.001, bf_pu=0.002, name="Z")


ELEMENTS = {
    "trafo3w": trafo3w,
    "impedance": impedance,
    "switch": lambda net: pp.create_switch(net, 5, 7, "b", z_ohm=0.05),
    "storage": lambda net: pp.create_storage(net, 6, 0.01, 0.1, q_mvar=0.002, scaling=0.5),
    "motor": lambda net: pp.create_motor(net, 4, 0.02, 0.9, efficiency_percent=92, loading_percent=80),
    "ward": lambda net: pp.create_ward(net, 5, 0.004, 0.001, 0.006, 0.002),
    "untyped tap": lambda net: net.trafo.__setitem__("tap_pos", 0),
}


@pytest.mark.parametrize("element", ELEMENTS)
def test_the_prepared_net_flows_like_the_one_given(element, small_net):
    net = small_net(False)
    ELEMENTS[element](net)
    prepared = prepare(net, three_phase=False).net
    for one in (net, prepared):
        pp.runpp(one, calculate_voltage_angles=True, tolerance_mva=1e-10)
    kept = prepared.res_bus.vm_pu[net.bus.index].to_numpy()
    assert kept == pytest.approx(net.res_bus.vm_pu.to_numpy(), abs=1e-9)
    assert prepared.res_ext_grid.p_mw.sum() == pytest.approx(net.res_ext_grid.p_mw.sum(), abs=1e-9)


@pytest.mark.parametrize("element", ELEMENTS)
def test_power_grid_model_agrees_with_pandapower_on_it(element, small_net, feeder):
    net = small_net(False)
    ELEMENTS[element](net)
    network = feeder(net)
    flow = make_solver(network, "power-grid-model").solve(
        network.grid.loads.p_kw[np.newaxis], network.grid.loads.q_kvar[np.newaxis]
    )
    pp.runpp(net, calculate_voltage_angles=True, tolerance_mva=1e-10)
    assert flow.voltage_pu[0, : len(net.bus), 0] == pytest.approx(net.res_bus.vm_pu.to_numpy(), abs=1e-5)
    check_balance(flow, network.grid.loads.p_kw[np.newaxis], 1e-6)


def test_loads_that_depend_on_the_voltage(small_net, feeder):
    net = small_net(False)
    net.load["in_service"] = False
    pp.create_load(net, 5, 0.05, 0.02, const_z_p_percent=40, const_i_p_percent=30, const_z_q_percent=60,
                   const_i_q_percent=20, name="ZIP")  # fmt: skip
    pp.create_load(net, 3, 0.02, 0.01, const_i_p_percent=100, const_i_q_percent=100, name="I")
    net.sgen["in_service"] = False
    network = feeder(net)
    p, q = network.grid.loads.p_kw[np.newaxis], network.grid.loads.q_kvar[np.newaxis]
    flow = make_solver(network, "power-grid-model").solve(p, q)
    check_balance(flow, p, 1e-8)
    pp.runpp(net, calculate_voltage_angles=True, tolerance_mva=1e-10)
    assert flow.voltage_pu[0, :, 0] == pytest.approx(net.res_bus.vm_pu.to_numpy(), abs=1e-5)
    drawn = net.res_load.p_mw.sum() * 1e3 - p.sum()
    shunt = net.res_shunt.p_mw.sum() * 1e3
    assert flow.fixed_kw[0] == pytest.approx(drawn + shunt, abs=1e-3)
    reference = make_solver(network, "pandapower").solve(p, q)
    check_balance(reference, p, 1e-6)
    assert reference.voltage_pu == pytest.approx(flow.voltage_pu, abs=1e-5)


def test_what_evs_draw_is_constant_power(small_net, feeder):
    net = small_net(False)
    net.load["const_z_p_percent"] = 100.0
    network = feeder(net)
    own = network.grid.loads.p_kw[np.newaxis], network.grid.loads.q_kvar[np.newaxis]
    p = own[0] + 10.0
    flows = [
        make_solver(network, solver).solve(p, own[1], nominal=own)
        for solver in ("power-grid-model", "pandapower")
    ]
    assert flows[0].voltage_pu == pytest.approx(flows[1].voltage_pu, abs=1e-5)
    volts = flows[0].voltage_pu[0, network.grid.loads.bus, 0]
    nothing = make_solver(network, "power-grid-model").solve(p, own[1], nominal=(0 * own[0], 0 * own[1]))
    expected = (own[0][0, :, 0] * (volts**2 - 1)).sum()
    more = flows[0].fixed_kw[0] - nothing.fixed_kw[0]
    shunts = nothing.voltage_pu[0, network.grid.fixed.shunt_bus, 0]
    now = flows[0].voltage_pu[0, network.grid.fixed.shunt_bus, 0]
    expected += (network.grid.fixed.shunt_g_s * 400**2 * (now**2 - shunts**2)).sum() / 1e3
    assert more == pytest.approx(expected, abs=1e-4)


def test_pandapower_refuses_voltage_dependent_loads_in_three_phases(small_net, feeder):
    net = small_net(True)
    net.load["const_z_p_percent"] = 100.0
    with pytest.raises(NetworkError, match="load 'sym' can't .*pandapower: it depends on the voltage"):
        make_solver(feeder(net), "pandapower")


def test_a_three_winding_transformer_is_refused_in_three_phases(small_net, feeder):
    net = small_net(True)
    trafo3w(net)
    with pytest.raises(NetworkError, match="trafo3w 0 'W' can't .*three phases need its zero sequence"):
        feeder(net)


def test_the_recipe_fills_only_what_is_missing(small_net):
    net = small_net(True)
    net.line.loc[2, "r0_ohm_per_km"] = np.nan
    net.trafo["vector_group"] = None
    del net.trafo["vk0_percent"]
    done = prepare(net, True, ZeroSequence(recipe="four_wire", r0_per_r1=3.0))
    assert done.net.line.r0_ohm_per_km[2] == pytest.approx(3 * net.line.r_ohm_per_km[2])
    assert done.net.line.r0_ohm_per_km[0] == net.line.r0_ohm_per_km[0]
    assert done.net.trafo.vk0_percent[0] == net.trafo.vk_percent[0]
    assert done.net.trafo.vector_group[0] == "Dyn"
    assert "zero sequence of 1 line by the recipe four_wire" in done.notes
    assert "vector group of 1 trafo by the recipe four_wire" in done.notes


def test_phases_are_solved_separately_or_not_as_asked(small_net):
    one = load_network(Feeder(network="european_lv", phases=1))
    assert one.connections.phases == ("abc",)
    assert one.grid.loads.p_kw.sum() == pytest.approx(
        load_network(Feeder(network="european_lv")).grid.loads.p_kw.sum()
    )
    with pytest.raises(
        NetworkError, match=r"line 0 'Line R1-R2' has no r0_ohm_per_km, needed in three phases"
    ):
        load_network(Feeder(network="cigre_lv", phases=3))


@pytest.mark.parametrize(
    "name",
    [
        "cigre_lv",
        "pandapower:create_kerber_dorfnetz",
        "pandapower:create_synthetic_voltage_control_lv_network",
    ],
)
def test_solvers_agree_in_three_phases_with_the_recipe(name):
    settings = {"network": name, "phases": 3, "zero_sequence": {"recipe": "four_wire"}}
    network = load_network(Feeder.model_validate(settings))
    unequal = 1 + np.array([0.5, -0.2, -0.3])
    p, q = (x[np.newaxis] * unequal for x in (network.grid.loads.p_kw, network.grid.loads.q_kvar))
    flow = make_solver(network, "power-grid-model").solve(p, q)
    expected = make_solver(network, "pandapower").solve(p, q)
    check_balance(flow, p, 1e-6)
    assert np.nanmax(np.abs(flow.voltage_pu - expected.voltage_pu)) <= 1e-5
    assert np.nanmax(np.abs(flow.voltage_unbalance - expected.voltage_unbalance)) <= 1e-5
    assert np.nanmax(np.abs(flow.neutral_a - expected.neutral_a)) <= 0.05
    assert flow.voltage_unbalance.max() > 1e-4
