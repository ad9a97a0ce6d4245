"""The reduction is exact: random feeders, radial or meshed, with buses that carry nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.feeder.grid import Buses, Fixed, Grid, Lines, Loads, Sources, Trafos
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver
from evgrid.feeder.topology import topology


@st.composite
def grids(draw):
    """A feeder of up to 14 buses: a random tree, further lines that close rings, few loads."""
    three_phase, count = draw(st.booleans()), draw(st.integers(3, 14))
    ends = [(draw(st.integers(max(0, bus - 2), bus - 1)), bus) for bus in range(1, count)]
    more = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda ab: ab[0] != ab[1])
    ends += draw(st.lists(more, max_size=3))
    loaded = sorted(draw(st.sets(st.integers(1, count - 1), min_size=1, max_size=4)))

    def numbers(low, high, size):
        return np.array(draw(st.lists(st.floats(low, high), min_size=size, max_size=size)))

    def names(what, size):
        return np.array([f"{what} {k}" for k in range(size)], dtype=np.str_)

    lines, phases = len(ends), 3 if three_phase else 1
    farad = np.array(draw(st.lists(st.sampled_from([0.0, 0.0, 0.0, 2e-9]), min_size=lines, max_size=lines)))
    closed, none, nowhere = np.ones(lines, bool), np.zeros(0), np.zeros(0, np.int64)
    trafos = {field.name: none for field in dataclasses.fields(Trafos)}
    trafos |= dict.fromkeys(("hv_bus", "lv_bus"), nowhere)
    trafos |= {name: np.zeros(0, bool) for name in ("hv_closed", "lv_closed")}
    trafos |= {name: np.zeros(0, np.str_) for name in ("name", "vector_group")}
    return Grid(
        three_phase=three_phase,
        frequency_hz=50.0,
        buses=Buses(names("bus", count), np.full(count, 0.4), *np.zeros((2, count)), np.ones(count, bool)),
        lines=Lines(
            names("line", lines), *np.array(ends, np.int64).T, closed, closed,
            numbers(1e-4, 0.01, lines), numbers(1e-4, 0.01, lines), farad, np.zeros(lines),
            numbers(1e-4, 0.01, lines), numbers(1e-4, 0.01, lines), farad, np.full(lines, 0.2),
            np.full(lines, 0.01),
        ),
        trafos=Trafos(**trafos),
        sources=Sources(np.zeros(1, np.int64), np.ones(1), np.zeros(1)),
        loads=Loads(
            names("load", len(loaded)), np.array(loaded), np.full(len(loaded), -1, np.int8),
            numbers(-5.0, 5.0, len(loaded) * phases).reshape(-1, phases), np.zeros((len(loaded), phases)),
            *np.zeros((2, len(loaded), 2)), np.zeros(len(loaded), bool),
        ),
        fixed=Fixed(
            names("gen", 0), nowhere, np.zeros((0, phases)), np.zeros((0, phases)), none, names("kind", 0),
            names("shunt", 0), nowhere, none, none, nowhere, nowhere, np.zeros(0, bool), none,
        ),
        joined=np.zeros((0, 2), np.int64),
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(grids())
def test_reduced_equals_unreduced(grid):
    network = Network(
        "random", grid, topology(grid, "random"), np.ones(len(grid.loads.bus), np.int64), lambda: None
    )
    p, q = grid.loads.p_kw[np.newaxis], 0.2 * grid.loads.p_kw[np.newaxis]
    reduced, whole = (PowerGridModelSolver(network, reduce).solve(p, q) for reduce in (True, False))
    for table in reduced.tables():
        one, other = getattr(reduced, table), getattr(whole, table)
        scale = 100.0 if table.endswith("neutral_a") else 10.0 if "k" in table[-4:] else 1.0
        assert one == pytest.approx(other, abs=1e-9 * scale, nan_ok=True), table
