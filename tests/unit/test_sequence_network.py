"""Transformers of all vector groups in symmetrical components against their windings, and pandapower."""

from __future__ import annotations

import numpy as np
import pytest

from evgrid.feeder.reduction import circuit
from evgrid.feeder.solvers import check_balance, make_solver
from evgrid.feeder.solvers.sequence_network import TO_PHASES, trafo_branches

WYE = np.eye(3)
NEXT = np.roll(np.eye(3), 1, axis=1)  # the voltage of phase b in place of a's, c's of b's
AB, AC = (WYE - NEXT) / np.sqrt(3), (WYE - NEXT.T) / np.sqrt(3)
"""Windings between the phases a and b (and so on), and a and c."""

GROUPS = {
    ("YNyn", 0.0): (WYE, WYE),
    ("YNyn", 180.0): (WYE, -WYE),
    ("YNyn", 120.0): (WYE, NEXT.T),  # c leads a by 120 degrees
    ("Dyn", 30.0): (AC, WYE),
    ("Dyn", 330.0): (AB, WYE),
    ("Dyn", 150.0): (-AB, WYE),
    ("YNd", 30.0): (WYE, AB),
    ("YNd", 330.0): (WYE, AC),
    ("Dd", 0.0): (AB, AB),
    ("Dd", 180.0): (AB, -AB),
    ("Yd", 30.0): (WYE, AB),
    ("Dy", 30.0): (AC, WYE),
    ("Yy", 0.0): (WYE, WYE),
    ("Yyn", 0.0): (WYE, WYE),
    ("YNy", 180.0): (WYE, -WYE),
}
"""Voltages of the three windings by those of the phases, at high and low voltage."""


@pytest.mark.parametrize(("group", "shift"), GROUPS)
def test_vector_groups_are_three_windings_on_three_cores(feeder, small_net, group, shift):
    """Three single-phase transformers without magnetising current, joined as the vector group says.

    A star point that is not earthed takes no current, so that the windings carry no common current.
    """
    net = small_net(True, group, shift, no_load=False)
    net.trafo["vk0_percent"], net.trafo["vkr0_percent"] = net.trafo.vk_percent, net.trafo.vkr_percent
    net.trafo["mag0_percent"], net.trafo["tap_pos"] = 1e9, 0
    network = feeder(net)
    c = circuit(network.grid, network.topology, True)
    branch = trafo_branches(network.grid, c, 3)

    leakage = 0.012 + 1j * np.sqrt(0.04**2 - 0.012**2)
    windings = np.eye(3) * 800 / 3 / leakage  # of two transformers of 400 kVA, kVA a phase at nominal voltage
    if "Y" in group.replace("YN", "") or group.endswith("y"):
        windings = windings @ (np.eye(3) - 1 / 3)
    hv, lv = GROUPS[group, shift]
    expected = np.block(
        [[hv.T @ windings @ hv, -hv.T @ windings @ lv], [-lv.T @ windings @ hv, lv.T @ windings @ lv]]
    )

    def phases(y):
        return TO_PHASES @ np.diag(y[:, 0]) @ TO_PHASES.conj().T

    found = np.block([[phases(branch.y_ss), phases(branch.y_st)], [phases(branch.y_ts), phases(branch.y_tt)]])
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("three_phase", [True, False])
def test_what_only_z_bus_and_pandapower_represent(feeder, small_net, three_phase):
    """YNyn with a magnetising current in three phases; any phase shift in a balanced feeder."""
    net = small_net(three_phase, "YNyn", 0.0, no_load=not three_phase)
    if three_phase:
        net.trafo["mag0_percent"] = 100.0
    else:
        net.trafo["shift_degree"] = 7.0
    network = feeder(net)
    loads = network.grid.loads
    flow, expected = (
        make_solver(network, solver).solve(loads.p_kw[np.newaxis], loads.q_kvar[np.newaxis])
        for solver in ("z-bus", "pandapower")
    )
    check_balance(flow, loads.p_kw[np.newaxis], 1e-9)
    tolerance = 1e-5 if three_phase else 1e-8
    np.testing.assert_allclose(flow.voltage_pu, expected.voltage_pu, atol=tolerance)
    np.testing.assert_allclose(flow.voltage_unbalance, expected.voltage_unbalance, atol=tolerance)
    np.testing.assert_allclose(flow.head_p_kw.sum(), expected.head_p_kw.sum(), atol=2e-3)


def test_a_delta_at_low_voltage_earths_the_high_voltage(feeder, small_net):
    """YNd: a load to earth behind a long line is fed through the transformer's zero sequence, too."""
    net = small_net(True, "YNd", 30.0, no_load=False)
    net.asymmetric_load["bus"], net.asymmetric_sgen["in_service"] = 1, False
    for table in ("load", "sgen", "shunt"):
        net[table]["in_service"] = False
    net.line["c0_nf_per_km"] = 0.0
    network = feeder(net)
    loads = network.grid.loads
    flow = make_solver(network, "auto").solve(loads.p_kw[np.newaxis], loads.q_kvar[np.newaxis])
    check_balance(flow, loads.p_kw[np.newaxis], 1e-9)
    assert np.isfinite(flow.voltage_pu).all()
    assert flow.trafo_loading[0, 0].max() > 1e-3  # the common current of the phases at the star point
    assert np.ptp(flow.trafo_lv_p_kw[0, 0]) < 1e-6
