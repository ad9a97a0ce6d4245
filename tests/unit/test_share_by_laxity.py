"""Sharing a group's power over its EVs, worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evgrid.aggregator.kernels import share_by_laxity

HOUR = 3600.0


def share(headroom, p_max, p_min, laxity, group=None, step_s=60.0):
    p_max, p_min, laxity = (np.asarray(a, dtype=float) for a in (p_max, p_min, laxity))
    group = np.zeros(len(p_max), np.int64) if group is None else np.asarray(group, np.int64)
    order = np.lexsort((laxity, group))
    return share_by_laxity(order, group, np.asarray(headroom, float), p_max, p_min, laxity, step_s)


@pytest.mark.parametrize(
    ("headroom", "laxity", "expected"),
    [
        (30, [3, 1, 2], [7, 7, 7]),  # room for all
        (10, [3, 1, 2], [0, 7, 3]),  # least laxity first, the rest to the next
        (0, [3, 1, 2], [0, 0, 0]),
        (-5, [3, 1, 2], [-5, 0, 0]),  # discharge from the highest laxity
        (-17, [3, 1, 2], [-7, -3, -7]),
        (-99, [3, 1, 2], [-7, -7, -7]),
        (4, [3, 0, 2], [-3, 7, 0]),  # who must charge does; the others make up for it
        (-50, [0, 0, 0], [7, 7, 7]),  # no one may be asked
    ],
)
def test_three_evs_of_7_kw(headroom, laxity, expected):
    got = share([headroom], [7] * 3, [-7] * 3, np.array(laxity) * HOUR)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_groups_do_not_touch_each_other():
    got = share([7, -7], [7, 7, 7, 7], [0, 0, -7, -7], np.array([2, 1, 1, 2]) * HOUR, group=[0, 0, 1, 1])
    np.testing.assert_array_equal(got, [0, 7, 0, -7])


def test_an_ev_that_can_do_nothing_gets_nothing():
    np.testing.assert_array_equal(share([-9], [0, 0], [0, -3], [0.0, 2 * HOUR]), [0, -3])


@given(st.data(), st.integers(1, 30), st.floats(-200, 200))
def test_the_headroom_is_kept_unless_someone_must_charge(data, n, headroom):
    p_max = data.draw(hnp.arrays(float, n, elements=st.floats(0, 22)))
    p_min = -data.draw(hnp.arrays(float, n, elements=st.floats(0, 22)))
    laxity = data.draw(hnp.arrays(float, n, elements=st.floats(-HOUR, 9 * HOUR)))
    got = share([headroom], p_max, p_min, laxity)
    must = (laxity < 60.0) & (p_max > 0)
    assert np.all(got <= p_max)
    assert np.all(got >= p_min)
    np.testing.assert_array_equal(got[must], p_max[must])
    forced = p_max[must].sum()
    low = p_min[~must & (laxity >= 60.0)].sum()
    assert got.sum() <= max(headroom, forced + low) + 1e-9
    if headroom >= forced:  # nothing is discharged while there is room
        assert np.all(got >= 0)
