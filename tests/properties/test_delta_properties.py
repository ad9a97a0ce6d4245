"""Loads between phases on random feeders: the admittance matrix of the phases, and all turned by a phase."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.properties.test_feeder_reduction_properties import grids

from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import check_balance
from evgrid.feeder.solvers.z_bus_solver import ZBusSolver
from evgrid.feeder.topology import topology


@st.composite
def mixtures(draw):
    """A feeder of three phases, some of whose loads are between the phases."""
    grid = draw(grids())
    assume(grid.three_phase)
    count = len(grid.loads.bus)
    delta = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    twice = draw(st.booleans())  # two loads at a bus
    bus = np.repeat(grid.loads.bus[:1], count) if twice else grid.loads.bus
    return dataclasses.replace(grid, loads=dataclasses.replace(grid.loads, delta=delta, bus=bus))


def solve(grid, p, q):
    network = Network(
        "random", grid, topology(grid, "random"), np.ones(len(grid.loads.bus), np.int64), lambda: None
    )
    flow = ZBusSolver(network).solve(p, q)
    check_balance(flow, p, 1e-9)
    return flow


def by_phases(grid, p_kw, q_kvar):
    """Voltages of all buses, V, (bus, phase), by Gauss iteration on the matrix of all phases of all buses;
    and the power out of the source, kVA.
    """
    count, lines = len(grid.buses.name), grid.lines
    y = np.zeros((3 * count, 3 * count), complex)
    same, all_ones = np.eye(3), np.ones((3, 3))
    for k, ends in enumerate(zip(lines.from_bus, lines.to_bus, strict=True)):
        z1, z0 = lines.r1_ohm[k] + 1j * lines.x1_ohm[k], lines.r0_ohm[k] + 1j * lines.x0_ohm[k]
        series = np.linalg.inv(z1 * same + (z0 - z1) / 3 * all_ones)
        half = 1j * np.pi * grid.frequency_hz
        half = half * (lines.c1_f[k] * same + (lines.c0_f[k] - lines.c1_f[k]) / 3 * all_ones)
        at = [slice(3 * end, 3 * end + 3) for end in ends]
        for own, other in (at, at[::-1]):
            y[own, own] += series + half
            y[own, other] -= series
    source = 400 / np.sqrt(3) * np.exp(-2j * np.pi / 3 * np.arange(3))
    volts = np.tile(source, count)
    inverse = np.linalg.inv(y[3:, 3:])
    for _ in range(200):
        drawn = np.zeros((count, 3), complex)
        for k, bus in enumerate(grid.loads.bus):
            power, at = 1e3 * (p_kw[k] + 1j * q_kvar[k]), volts[3 * bus : 3 * bus + 3]
            if grid.loads.delta[k]:
                between = np.conj(power / (at - at[[1, 2, 0]]))
                drawn[bus] += between - between[[2, 0, 1]]
            else:
                drawn[bus] += np.conj(power / at)
        volts[3:] = -inverse @ (drawn.reshape(-1)[3:] + y[3:, :3] @ source)
    return volts.reshape(count, 3), source * np.conj(y[:3] @ volts) / 1e3


@settings(max_examples=40, deadline=None)
@given(mixtures(), st.floats(-4.0, 4.0))
def test_it_is_the_solution_of_the_phases(grid, factor):
    p = grid.loads.p_kw * factor
    flow = solve(grid, p[np.newaxis], 0.3 * p[np.newaxis])
    volts, head_kva = by_phases(grid, p, 0.3 * p)
    size = max(1.0, np.abs(head_kva).max())
    np.testing.assert_allclose(flow.voltage_pu[0], np.abs(volts) / (400 / np.sqrt(3)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(flow.head_p_kw[0], head_kva.real, rtol=0, atol=1e-8 * size)
    np.testing.assert_allclose(flow.head_q_kvar[0], head_kva.imag, rtol=0, atol=1e-8 * size)
    if flow.connection_pu is not None:
        at = volts[grid.loads.bus]
        between = np.where(grid.loads.delta[:, np.newaxis], (at - np.roll(at, -1, axis=1)) / np.sqrt(3), at)
        expected = np.abs(between) / (400 / np.sqrt(3))
        np.testing.assert_allclose(flow.connection_pu[0], expected, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(mixtures(), st.lists(st.floats(-4.0, 4.0), min_size=1, max_size=20))
def test_what_is_turned_by_a_phase_gives_voltages_turned_by_a_phase(grid, factors):
    scale = np.array(factors)[:, np.newaxis, np.newaxis]
    p, q = grid.loads.p_kw * scale, 0.3 * grid.loads.p_kw * np.abs(scale)
    flow = solve(grid, p, q)
    turned = solve(grid, np.roll(p, 1, axis=2), np.roll(q, 1, axis=2))
    for name in ("voltage_pu", "line_loading", "head_p_kw", "head_q_kvar"):
        values = getattr(flow, name)
        expected = np.roll(values, 1, axis=-1)
        np.testing.assert_allclose(getattr(turned, name), expected, rtol=1e-8, atol=1e-8, err_msg=name)
    order = np.argsort(factors)
    again = solve(grid, p[order], q[order])
    for name, values in again.tables().items():
        assert np.array_equal(values, getattr(flow, name)[order]), name
