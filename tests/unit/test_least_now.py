"""What EVs must draw now so that a limit suffices later, by hand and against a program."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from evgrid.aggregator.strategies.self_consumption import least_now

HOUR = 3600.0


@pytest.mark.parametrize(
    ("p_max", "left_h", "needed_h", "room_kw", "expected"),
    [
        ([10], [2], [1], 6, 2),  # 10 kWh, of which the 1.5 h after the tick give 9
        ([10], [2], [1], 10, 0),
        # by 1 h the first needs 5 kWh and the second 2, of which 5 may wait; the same by 2 h
        ([10, 10], [1, 2], [0.5, 1.2], 10, 4),
        ([10, 10], [2, 2], [1, 1], 20, 0),
        ([10], [0.25], [0.25], 100, 5),  # leaves within the tick of half an hour: all of it
        ([10], [3], [3], 0, 60),  # nothing may wait, though one EV can't take it all now
    ],
)
def test_by_hand(p_max, left_h, needed_h, room_kw, expected):
    arrays = (np.array(x, float) for x in (p_max, np.multiply(left_h, HOUR), np.multiply(needed_h, HOUR)))
    assert least_now(*arrays, room_kw, HOUR / 2) == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.floats(1, 11), st.integers(1, 8), st.floats(0.05, 1)), min_size=1, max_size=6),
    st.floats(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_it_is_what_a_program_finds(evs, room_kw):
    """Departures at whole half hours: the least energy of the first that leaves the rest feasible."""
    p_max, slots, share = (np.array(x, float) for x in zip(*evs, strict=True))
    count, last = len(evs), 8
    energy = p_max * slots / 2 * share
    cost = np.zeros((count, last))
    cost[:, 0] = 1.0
    each = np.kron(np.eye(count), np.ones(last))
    group = np.tile(np.eye(last), count)[1:]
    high = np.where(np.arange(last) < slots[:, None], p_max[:, None] / 2, 0.0)
    found = linprog(
        cost.ravel(), A_eq=each, b_eq=energy, A_ub=group, b_ub=np.full(last - 1, room_kw / 2),
        bounds=np.stack([np.zeros(count * last), high.ravel()], axis=1),
    )  # fmt: skip
    least = least_now(p_max, slots * HOUR / 2, energy / p_max * HOUR, room_kw, HOUR / 2)
    if found.status == 0:
        assert least == pytest.approx(2 * found.fun, abs=1e-6)
    else:  # more than the first slot can take
        assert least > 0
