# ruff: noqa: E501
"""Signals from outside: order, priority, cancellation, randomised starts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.openadr import event, moment, notified, rules, signals

from evgrid.readers.openadr import signals_of, versions_of

EDGES = st.integers(0, 23)


@st.composite
def events(draw):
    """Events with whole hours, some updated, some cancelled."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        for _ in range(draw(st.integers(1, 2))):
            content = event(
                f"e{number}", draw(EDGES), draw(st.integers(1, 6)), draw(st.integers(-9, 9)),
                priority=draw(st.none() | st.integers(0, 2)), modificationDateTime=moment(draw(EDGES)),
            )  # fmt: skip
            found.append(content)
        if draw(st.booleans()):
            found.append(notified("DELETE", draw(EDGES), content))
    return found


def told(found, hour):
    """The value that wins in each hour by what is known at an hour; NaN without one."""
    values = np.full(40, np.nan)
    for begin, end, block in found.known(hour * 3600.0).winners("price"):
        values[round(begin / 3600) : round(end / 3600)] = block.value
    return values


@settings(max_examples=40)
@given(events(), st.randoms(use_true_random=False), EDGES)
def test_any_order_of_events_gives_the_same(objects, random, hour):
    shuffled = objects[:]
    random.shuffle(shuffled)
    one, other = signals(objects), signals(shuffled)
    np.testing.assert_array_equal(told(one, hour), told(other, hour))
    assert [(b, e, w.value) for b, e, w in one.actual("price")] == [
        (b, e, w.value) for b, e, w in other.actual("price")
    ]


@given(events(), EDGES)
def test_in_each_hour_no_event_of_a_better_priority_is_known(objects, hour):
    found = signals(objects)
    values = told(found, hour)
    known = [b for b in found.blocks if b.known_s <= hour * 3600.0 < b.until_s]
    for at in range(30):
        holding = [b for b in known if b.begin_s <= at * 3600.0 < b.end_s]
        best = min((b.priority for b in holding), default=None)
        if best is None:
            assert np.isnan(values[at])
        else:
            assert values[at] in {b.value for b in holding if b.priority == best}


@given(events(), EDGES, EDGES, st.integers(0, 5))
def test_a_cancelled_event_is_as_though_never_sent_from_then_on(objects, cancelled_h, later_h, hours):
    extra = event("x", later_h, hours + 1, 100, priority=0)
    with_it = signals([*objects, extra, notified("DELETE", cancelled_h, extra)])
    without = signals(objects)
    for hour in range(cancelled_h, 24):
        np.testing.assert_array_equal(told(with_it, hour), told(without, hour))


@given(events(), st.integers(0, 47))
def test_what_holds_is_what_is_known_at_the_time(objects, half_hour):
    """The value by which costs are counted is the one that a strategy sees at the time."""
    found, now_s = signals(objects), 1800.0 * half_hour
    known, actual = found.known(now_s).held("price"), found.held("price")
    assert (known is None) == (actual is None) == (not found.blocks)
    if actual is not None:
        assert float(known.at(now_s + 1.0)) == float(actual.at(now_s + 1.0))


@given(st.integers(0, 2**32), st.integers(0, 7200), st.text("abc", min_size=1, max_size=5), EDGES)
def test_randomised_starts_lie_within_their_bounds_and_stay(seed, bound_s, name, begin_h):
    content = event(name, begin_h, 2, 1)
    content["intervals"][0]["intervalPeriod"]["randomizeStart"] = f"PT{bound_s}S"
    content["intervals"].append(
        {"id": 1, "intervalPeriod": {"duration": "PT1H"}, "payloads": [{"type": "PRICE", "values": [2]}]}
    )
    one, two = signals([content], rules(seed=seed)).blocks
    shift = one.begin_s - 3600.0 * begin_h
    assert abs(shift) <= bound_s + 1e-6
    np.testing.assert_allclose(
        [one.end_s - one.begin_s, two.begin_s - one.end_s, two.end_s - two.begin_s],
        [7200, 0, 3600],
        atol=1e-5,
    )
    updated = {**content, "priority": 3, "modificationDateTime": moment(1)}
    again = signals([content, updated], rules(seed=seed)).blocks
    assert {b.begin_s for b in again} == {one.begin_s, two.begin_s}


def test_randomised_starts_go_both_ways():
    shifts = []
    for seed in range(40):
        content = event("e", 6, 1, 1)
        content["intervals"][0]["intervalPeriod"]["randomizeStart"] = "PT30M"
        shifts.append(signals([content], rules(seed=seed)).blocks[0].begin_s - 6 * 3600.0)
    assert min(shifts) < -600 < 600 < max(shifts)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(
    ["", "PT1H", "P9999Y", "PT1S", "P1M", "0001-01-01", "1700-01-01T00:00:00Z", "2199-12-31T23:59:59Z", "SIMPLE",
     "PRICE", "2026-01-15T06:00:00Z", "2026-01-15", "DELETE", "EVENT", "KWH", "PERCENT"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["id", "programID", "eventName", "createdDateTime", "modificationDateTime", "priority", "duration", "targets",
     "payloadDescriptors", "intervalPeriod", "intervals", "operation", "object", "receivedDateTime", "objectType"]
)  # fmt: skip


@st.composite
def odd_events(draw):
    """Events of which some parts are replaced by others."""
    content = event("e", draw(EDGES), 1, 1, draw(st.sampled_from(["PRICE", "SIMPLE", "DISPATCH_SETPOINT"])))
    odd = st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    )
    content |= draw(st.dictionaries(KEYS, odd, max_size=3))
    interval = content["intervals"]
    if isinstance(interval, list) and interval and isinstance(interval[0], dict):
        inner = st.dictionaries(st.sampled_from(["start", "duration", "randomizeStart"]), LEAVES)
        interval[0] |= draw(
            st.fixed_dictionaries({}, optional={"intervalPeriod": inner, "payloads": odd, "id": odd})
        )
    return content


@settings(max_examples=40)
@given(st.lists(odd_events(), max_size=3))
def test_whatever_comes_ends_in_signals_or_sentences(objects):
    versions, faults = versions_of(objects)
    found, more = signals_of(versions, rules())
    assert all(isinstance(fault, str) and "\n" not in fault for fault in [*faults, *more, *found.notes])
    assert all(b.begin_s < b.end_s and np.isfinite(b.value) for b in found.blocks)
    for kind in found.kinds:
        found.actual(kind)
