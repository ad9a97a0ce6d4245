"""Sharing a group's power over its EVs, worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.oracles import dispatch as reference

from evgrid.aggregator.kernels import BLOCK, ROUND_TRIP, follow, order_by_group, share_by_laxity

HOUR, STEP_S = 3600.0, 60.0


def share(headroom, p_max, p_min, laxity, group=None, width_s=60.0, last=None, hysteresis_s=0.0, by=None,
          needed=None):  # fmt: skip
    p_max, p_min, laxity = (np.asarray(a, dtype=float) for a in (p_max, p_min, laxity))
    group = np.zeros(len(p_max), np.int64) if group is None else np.asarray(group, np.int64)
    last = np.zeros(len(p_max)) if last is None else np.asarray(last, float)
    headroom = np.asarray(headroom, float)
    time_needed = 60.0 * (100 + np.arange(len(group))) if needed is None else np.asarray(needed, float)
    left = np.maximum(laxity + time_needed, 0.0)
    if by is not None:
        return np.array(
            by(group, headroom, p_max, p_min, left, time_needed, STEP_S, width_s, last, hysteresis_s)
        )
    order = order_by_group(np.arange(len(group), dtype=np.uint32), group, len(headroom))
    power = last.copy()
    share_by_laxity(order, headroom, p_max, p_min, left, time_needed, STEP_S, width_s, power, hysteresis_s)
    return power


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


def can_wait(p_max, p_min, laxity):
    """Least mean power over the tick that leaves the departure in reach, of EVs that charge for hours."""
    forced = p_max * np.clip(1 - laxity / STEP_S, 0, 1)
    spare = np.maximum(p_max, -p_min) * np.maximum(laxity / STEP_S - 1, 0)
    return np.where(laxity < STEP_S, forced, np.maximum(p_min, -ROUND_TRIP * spare))


@given(st.data(), st.integers(1, 30), st.floats(-200, 200))
def test_the_headroom_is_kept_unless_someone_must_charge(data, n, headroom):
    p_max = data.draw(hnp.arrays(float, n, elements=st.floats(0, 22)))
    p_min = -data.draw(hnp.arrays(float, n, elements=st.floats(0, 22)))
    laxity = data.draw(hnp.arrays(float, n, elements=st.floats(-HOUR, 9 * HOUR)))
    got = share([headroom], p_max, p_min, laxity)
    least = can_wait(p_max, p_min, laxity)
    assert np.all(got <= p_max)
    assert np.all(got >= least - 1e-9)  # so nobody's departure is lost
    assert got.sum() <= max(headroom, least.sum()) + 1e-9
    if headroom >= np.maximum(least, 0).sum():  # nothing is discharged while there is room
        assert np.all(got >= -1e-9)


def test_only_what_cannot_wait_is_charged_whatever_the_headroom():
    # laxity of 15 s of a tick of 60 s: three quarters of the tick must be charged; late: all of it
    np.testing.assert_allclose(share([0], [8, 8, 8], [0] * 3, [15, -5, 60]), [6, 8, 0])


@pytest.mark.parametrize("headroom", [-99, 0, 5])
def test_what_is_needed_is_less_than_a_tick_at_full_power(headroom):
    """8 kW for 15 s of the tick is 2 kW: the first may wait and the second, which leaves in 20 s, may not."""
    order = order_by_group(np.arange(2, dtype=np.uint32), np.zeros(2, np.int64), 1)
    power, p_max = np.zeros(2), np.full(2, 8.0)
    left, needed = np.array([900.0, 20.0]), np.full(2, 15.0)
    share_by_laxity(order, np.array([float(headroom)]), p_max, np.zeros(2), left, needed, STEP_S, 60.0, power)
    # asked for all that it can, it stops when it has it; of 5 kW, 2 + 2 are used
    np.testing.assert_array_equal(power, [8.0 if headroom == 5 else 0.0, 8.0])


def test_an_ev_gives_no_more_than_it_can_make_up():
    # 90 s to spare after the tick of 60 s; a quarter is lost on the way: 0.75 x 7 kW x 30 s / 60 s
    np.testing.assert_allclose(share([-9], [7], [-7], [90]), [-2.625])
    np.testing.assert_allclose(share([-9], [0], [-7], [90]), [-2.625])  # at its target: by its rated power
    np.testing.assert_allclose(share([-9], [7], [-7], [900]), [-7])


def test_evs_of_equal_laxity_share_alike():
    np.testing.assert_allclose(share([9], [7, 7, 4], [0] * 3, np.full(3, 5 * HOUR)), [3.5, 3.5, 2.0])


def test_shares_fall_along_the_width():
    # of the 10 kW: level - laxity = 1.5 h and 0.5 h of a width of 2 h
    got = share([10], [10, 10], [0, 0], np.array([1, 2]) * HOUR, width_s=2 * HOUR)
    np.testing.assert_allclose(got, [7.5, 2.5])


@pytest.mark.parametrize(("hysteresis_h", "expected"), [(0, [7, 0]), (0.5, [7, 0]), (2, [0, 7])])
def test_who_charges_goes_on_until_another_is_behind_by_the_hysteresis(hysteresis_h, expected):
    got = share([7], [7, 7], [0, 0], np.array([1, 2]) * HOUR, last=[0, 7], hysteresis_s=hysteresis_h * HOUR)
    np.testing.assert_allclose(got, expected, atol=1e-9)


FLEET = st.integers(1, 25).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "group": hnp.arrays(np.int64, n, elements=st.integers(0, 2)),
            "headroom": hnp.arrays(float, 3, elements=st.floats(-150, 150)),
            "p_max": hnp.arrays(float, n, elements=st.sampled_from([0.0, 1.4, 7.4, 11.0])),
            "p_min": hnp.arrays(float, n, elements=st.sampled_from([0.0, -7.4])),
            "laxity": hnp.arrays(float, n, elements=st.integers(-3600, 30000).map(float)),
            "last": hnp.arrays(float, n, elements=st.sampled_from([0.0, 5.0, -5.0])),
        }
    )
)


@given(FLEET, st.sampled_from([60.0, 900.0]), st.sampled_from([0.0, 600.0]), st.booleans())
def test_the_kernel_equals_its_plain_twin(fleet, width_s, hysteresis_s, nearly_done):
    if nearly_done:
        fleet["needed"] = 20.0 * (np.arange(len(fleet["group"])) % 7)
    got = share(**fleet, width_s=width_s, hysteresis_s=hysteresis_s)
    expected = share(**fleet, width_s=width_s, hysteresis_s=hysteresis_s, by=reference.share_by_laxity)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    per_group = (np.bincount(fleet["group"], x, 3) for x in (got, expected))
    np.testing.assert_allclose(*per_group, atol=2e-5)


@given(FLEET)
def test_a_group_alone_gets_what_it_gets_among_others(fleet):
    together = share(**fleet, width_s=900.0)
    for row in range(3):
        own = fleet["group"] == row
        alone = {name: x[own] for name, x in fleet.items() if name not in ("group", "headroom")}
        if own.any():
            got = share(fleet["headroom"][[row]], width_s=900.0, **alone)
            np.testing.assert_array_equal(got, together[own])


@given(FLEET)
def test_headroom_is_used_and_kept_to_rounding(fleet):
    got = share(**fleet, width_s=900.0)
    least = can_wait(*(fleet[name] for name in ("p_max", "p_min", "laxity")))
    must = np.maximum(least, 0)
    for row in range(3):
        own = fleet["group"] == row
        room = fleet["headroom"][row]
        most = min(room, fleet["p_max"][own].sum()) if room > must[own].sum() else max(room, least[own].sum())
        expected = most if room > must[own].sum() else min(most, must[own].sum())
        assert got[own].sum() == pytest.approx(max(expected, least[own].sum()), abs=2e-5)


@given(
    st.integers(0, 2**32),
    st.sampled_from([4.0, 900.0, 7200.0]),
    st.sampled_from([0.0, 600.0]),
    st.floats(-1.2, 1.2),
    st.sampled_from(["spread", "near", "alike"]),
)
@settings(max_examples=40, deadline=None)
def test_large_groups_equal_the_plain_twin(seed, width_s, hysteresis_s, target, laxities):
    """Groups of several blocks, which are searched by a histogram, beside one that is not."""
    rng = np.random.default_rng(seed)
    n = 2 * BLOCK + 500
    group = rng.choice(3, n, p=[0.85, 0.14, 0.01])
    p_max, p_min = rng.choice([0.0, 3.7, 7.4], n), -rng.choice([0.0, 7.4], n)
    laxity = {
        "spread": rng.uniform(-600, 3 * 24 * HOUR, n),
        "near": rng.uniform(0, 600, n),
        "alike": rng.choice([HOUR, 2 * HOUR], n),
    }[laxities]
    limit = np.bincount(group, p_max if target > 0 else -p_min, 3)
    fleet = {
        "group": group, "headroom": target * limit, "p_max": p_max, "p_min": p_min, "laxity": laxity.round(),
        "last": rng.choice([0.0, 5.0, -5.0], n), "width_s": width_s, "hysteresis_s": hysteresis_s,
    }  # fmt: skip
    got, expected = share(**fleet), share(**fleet, by=reference.share_by_laxity)
    # the level is known to 1e-9 s
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * 7.4 / width_s + 1e-9)
    np.testing.assert_allclose(np.bincount(group, got, 3), np.bincount(group, expected, 3), atol=1e-7)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads, monkeypatch):
    rng = np.random.default_rng(1)
    n = 20 * BLOCK
    fleet = {
        "group": rng.integers(0, 2, n), "headroom": [5e4, -6e4], "p_max": rng.uniform(3, 11, n),
        "p_min": -rng.uniform(0, 11, n), "laxity": rng.uniform(0, 12 * HOUR, n), "width_s": 900.0,
    }  # fmt: skip
    monkeypatch.setattr("evgrid.core.jit.THREADS", threads)
    got = share(**fleet)
    monkeypatch.setattr("evgrid.core.jit.THREADS", 4)
    np.testing.assert_array_equal(got, share(**fleet))
    assert [got[fleet["group"] == row].sum() for row in (0, 1)] == pytest.approx([5e4, -6e4], abs=1e-6)


@given(st.integers(0, 2**32), st.sampled_from([4.0, 3600.0]), st.booleans())
@settings(deadline=None)
def test_the_status_is_carried_as_by_the_plain_twin(seed, step_s, loses):
    rng = np.random.default_rng(seed)
    n = 40
    plugged = rng.random(n) < 0.8
    wanted = rng.choice([np.inf, -np.inf, 0.0, 3.0, -20.0], n)
    sent, lost = rng.choice([0.0, 5.0], n), rng.random(n if loses else 0) < 0.3
    status = [
        rng.choice([0.0, 7.4], n), -rng.choice([0.0, 7.4], n), rng.choice([0.0, 0.001, 30.0], n),
        rng.choice([2.0, 4.0, 9000.0], n), rng.uniform(0, 9000, n),
    ]  # fmt: skip
    expected = [
        reference.follow(
            wanted[ev], sent[ev], loses and lost[ev], step_s, plugged[ev], *(x[ev] for x in status)
        )
        for ev in range(n)
    ]
    member = np.sort(rng.integers(0, 3, n))
    order = order_by_group(np.arange(n, dtype=np.uint32), member, 3)
    asked = np.zeros(len(order.group))
    good = follow(0, len(asked), *order, wanted, lost, sent, step_s, plugged, *status, asked)
    assert good
    columns = [np.array(column, float) for column in zip(*expected, strict=True)]
    for got, column in zip([sent, plugged, *status], [columns[0], *columns[2:]], strict=True):
        np.testing.assert_allclose(got, column, rtol=1e-12, atol=0)
    sums = np.bincount(order.group, asked, 3)
    np.testing.assert_allclose(sums, np.bincount(member, columns[1], 3), rtol=1e-12, atol=1e-12)


def test_nan_is_reported_of_evs_that_are_plugged_in():
    for plugged, good in ((True, False), (False, True)):
        one, nan = np.ones(1), np.full(1, np.nan)
        order = order_by_group(np.zeros(1, np.uint32), np.zeros(1, np.int64), 1)
        status = (np.array([plugged]), one.copy(), -one, one.copy(), one * 60, one.copy())
        assert follow(0, 1, *order, nan, np.zeros(0, bool), one.copy(), 4.0, *status, one.copy()) == good


def test_a_large_member_alone_gets_what_it_gets_in_an_ensemble():
    rng = np.random.default_rng(2)
    n = 3 * BLOCK + 17
    fleet = {
        "group": np.sort(rng.integers(0, 3, n)), "p_max": rng.uniform(3, 11, n),
        "p_min": -rng.uniform(0, 11, n), "laxity": rng.uniform(-600, 12 * HOUR, n).round(),
    }  # fmt: skip
    headroom = np.array([9e3, -8e3, 1e3])
    together = share(headroom, **{k: v for k, v in fleet.items() if k != "group"}, group=fleet["group"])
    for row in range(3):
        own = fleet["group"] == row
        alone = share(headroom[[row]], *(fleet[k][own] for k in ("p_max", "p_min", "laxity")))
        np.testing.assert_array_equal(alone, together[own])
