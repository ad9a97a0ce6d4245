"""Generators that hold a voltage on random feeders: a root finder of reactive powers, on phase components."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import root
from tests.properties.test_delta_properties import by_phases
from tests.properties.test_feeder_reduction_properties import grids

from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import check_balance
from evgrid.feeder.solvers.z_bus_solver import ZBusSolver
from evgrid.feeder.topology import topology


@st.composite
def feeders(draw):
    """A feeder with one or two generators that hold a voltage near that without load."""
    grid = draw(grids())
    phases = len(grid.phases)
    buses = sorted(draw(st.sets(st.integers(1, len(grid.buses.name) - 1), min_size=1, max_size=2)))
    kw = np.array(draw(st.lists(st.floats(-10.0, 10.0), min_size=len(buses), max_size=len(buses))))
    held = np.array(draw(st.lists(st.floats(0.998, 1.002), min_size=len(buses), max_size=len(buses))))
    fixed = dataclasses.replace(
        grid.fixed,
        gen_name=np.array([f"gen {bus}" for bus in buses]), gen_bus=np.array(buses),
        gen_p_kw=np.repeat(kw[:, np.newaxis] / phases, phases, axis=1),
        gen_q_kvar=np.zeros((len(buses), phases)),
        gen_sn_kva=np.full(len(buses), np.nan), gen_kind=np.repeat("gen", len(buses)),
        gen_delta=np.zeros(len(buses), bool), gen_held_pu=held,
    )  # fmt: skip
    delta = np.zeros(len(grid.loads.bus), bool)
    if grid.three_phase:
        delta[:] = draw(st.booleans())
    return dataclasses.replace(grid, fixed=fixed, loads=dataclasses.replace(grid.loads, delta=delta))


class FixedPoint(ZBusSolver):
    """Leaves no case to another solver."""

    def _make_newton(self, positions):
        return None


def spread(power):
    """Powers of three phases: those of a balanced feeder are a third on each."""
    return power if power.shape[1] == 3 else np.repeat(power / 3, 3, axis=1)


@settings(max_examples=25, deadline=None)
@given(feeders(), st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=4))
def test_it_is_the_solution_of_the_phases(grid, factors):
    loads, fixed = grid.loads, grid.fixed
    network = Network(
        "random", grid, topology(grid, "random"), np.ones(len(loads.bus), np.int64), lambda: None
    )
    scale = np.array(factors)[:, np.newaxis, np.newaxis]
    p, q = loads.p_kw * scale, 0.3 * loads.p_kw * scale
    failed: dict[int, str] = {}
    flow = FixedPoint(network).solve(p, q, failed=failed)
    assume(0 not in failed)
    check_balance(flow, p, 1e-9, failed=failed)
    both = dataclasses.replace(
        grid,
        loads=dataclasses.replace(
            loads,
            bus=np.concatenate([loads.bus, fixed.gen_bus]),
            delta=np.concatenate([loads.delta, fixed.gen_delta]),
        ),
    )

    def solution(kvar):
        made = spread(fixed.gen_p_kw), np.repeat(kvar[:, np.newaxis] / 3, 3, axis=1)
        return by_phases(
            both, *(np.concatenate([spread(x[0]), -y]) for x, y in zip((p, q), made, strict=True))
        )

    def missing(kvar):
        volts = solution(kvar)[0][fixed.gen_bus] / (400 / np.sqrt(3))
        return np.abs(volts @ np.exp(2j * np.pi / 3 * np.arange(3))) / 3 - fixed.gen_held_pu

    found = root(missing, np.zeros(len(fixed.gen_bus)), tol=1e-13)
    assume(np.abs(missing(found.x)).max() < 1e-10)
    volts, head_kva = solution(found.x)
    volts = np.abs(volts) / (400 / np.sqrt(3))
    size = max(1.0, np.abs(head_kva).max())
    phases = slice(None) if grid.three_phase else slice(1)
    np.testing.assert_allclose(flow.held_kvar[0], found.x, rtol=1e-4, atol=1e-4 * size)
    np.testing.assert_allclose(flow.voltage_pu[0], volts[:, phases], rtol=0, atol=1e-7)
    np.testing.assert_allclose(flow.head_p_kw[0].sum(), head_kva.real.sum(), rtol=0, atol=1e-5 * size)
    np.testing.assert_allclose(flow.head_q_kvar[0].sum(), head_kva.imag.sum(), rtol=0, atol=1e-4 * size)


@settings(max_examples=25, deadline=None)
@given(feeders(), st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=20))
def test_a_case_does_not_depend_on_its_batch(grid, factors):
    count = len(grid.loads.bus)
    network = Network("random", grid, topology(grid, "random"), np.ones(count, np.int64), lambda: None)
    scale = np.array(factors)[:, np.newaxis, np.newaxis]
    p, q = grid.loads.p_kw * scale, 0.3 * grid.loads.p_kw * np.abs(scale)
    solver = FixedPoint(network)
    order = np.argsort(factors)[: 1 + len(factors) // 2]
    failed: dict[int, str] = {}
    flow, some = solver.solve(p, q, failed=failed), solver.solve(p[order], q[order], failed={})
    assume(not failed)
    for name, values in some.tables().items():
        assert np.array_equal(values, getattr(flow, name)[order], equal_nan=True), name
