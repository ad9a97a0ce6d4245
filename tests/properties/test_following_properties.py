"""Set-points that follow signals: limits are kept but for departures, powers are met, others untouched."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.aggregator.dispatch import least_powers
from evgrid.aggregator.following import Following
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import ALL_PHASES, Clock, EVs
from evgrid.readers.signals import Block, Known

CLOCK = Clock(np.datetime64("2026-01-15T00:00"), 300.0, 12)


def kw(low, high):
    """A power of whole watts."""
    return st.integers(round(1000 * low), round(1000 * high)).map(lambda watts: watts / 1000)


POWER = kw(0, 22)


@st.composite
def evs(draw):
    """EVs of two members, what they can and need, and their set-points by a strategy."""
    found = []
    for member in sorted(draw(st.lists(st.integers(0, 1), min_size=1, max_size=8))):
        plugged = draw(st.booleans())
        p_max, p_min = draw(POWER), draw(st.one_of(st.just(0.0), kw(-22, 0)))
        left, needed = draw(st.floats(1, 20_000)), draw(st.floats(0, 10_000))
        wanted = draw(st.one_of(st.just(np.inf), kw(-22, 22)))
        found.append((member, plugged, p_max * plugged, p_min * plugged, left, needed * (p_max > 0), wanted))
    columns = [np.array(column, float) for column in zip(*found, strict=True)]
    return columns


def made(columns, group_load=None):
    """The EVs, their view, and the set-points."""
    member, plugged, p_max, p_min, left, needed, wanted = columns
    count, zeros = len(member), np.zeros(len(member))
    table = EVs(member.astype(np.int64), np.zeros(count, np.int64), np.full(count, ALL_PHASES, np.int8),
                np.array([f"ev{k}" for k in range(count)]))  # fmt: skip
    view = View(0.0, 300.0, plugged > 0, zeros + 0.5, p_max, p_min, p_max * needed / 3600, left, needed,
                np.zeros(2) if group_load is None else np.array(group_load))  # fmt: skip
    return table, view, np.where(plugged > 0, wanted, 0.0)


def following(table, blocks, of_group=False):
    context = Context(CLOCK, None, table, 1, table.member, numbers=range(2), names=frozenset({"main"}))
    found = Following(context, [table.name], of_group)
    found.know(Known(blocks))
    return found


def means(view, setpoint):
    """Mean power of each EV over the tick: it stops when it has its energy; its guard charges the rest."""
    here = np.minimum(np.minimum(view.time_needed, view.time_left) / view.step_s, 1.0)
    asked = np.clip(setpoint, view.p_min, view.p_max)
    return np.where(view.plugged, np.maximum(np.minimum(asked, view.p_max * here), least_powers(view)), 0.0)


def sums(table, values):
    return np.bincount(table.member, values, 2)


@settings(max_examples=50)
@given(evs(), kw(0, 60), kw(0, 60), st.tuples(kw(-30, 60), kw(-30, 60)), st.booleans())
def test_limits_are_kept_but_for_departures(columns, most, export, load, of_group):
    table, view, wanted = made(columns, load)
    blocks = [Block("import_limit", 0, 300, most, "a"), Block("export_limit", 0, 300, export, "b")]
    found = following(table, blocks, of_group).follow(view, wanted)
    drawn = sums(table, means(view, found))
    must = sums(table, np.maximum(least_powers(view), 0.0))
    other = np.array(load) if of_group else np.zeros(2)
    high, low = most - other, -export - other
    assert (drawn <= np.maximum(np.maximum(high, 0.0), must) + 1e-6).all()
    most_drawn = sums(table, means(view, np.full(len(wanted), np.inf)))
    assert (drawn >= np.minimum(low, most_drawn) - 1e-6).all()


@settings(max_examples=50)
@given(evs(), kw(-60, 120))
def test_a_power_is_met_where_it_can_be(columns, power):
    table, view, wanted = made(columns)
    found = following(table, [Block("power", 0, 300, power, "a")]).follow(view, wanted)
    drawn = sums(table, means(view, found))
    must = sums(table, np.maximum(least_powers(view), 0.0))
    highest = sums(table, means(view, np.full(len(wanted), np.inf)))
    can = (must <= power) & (power <= highest) & (power > 0)
    np.testing.assert_allclose(drawn[can], power, atol=1e-6)
    assert (drawn <= np.maximum(power, must) + 1e-6)[power >= 0 or must > 0].all()
    assert (drawn >= min(power, 0.0) - 1e-6).all()


@settings(max_examples=50)
@given(evs(), kw(-30, 30), st.sampled_from(["power", "power_change", "import_limit", "export_limit"]))
def test_evs_that_are_not_named_keep_their_set_points(columns, value, kind):
    table, view, wanted = made(columns)
    value = abs(value) if kind.endswith("limit") else value
    block = Block(kind, 0, 300, value, "a", targets=frozenset({"ev0", "nobody"}))
    found = following(table, [block]).follow(view, wanted)
    np.testing.assert_array_equal(found[1:], wanted[1:])
    nobody = Block(kind, 0, 300, value, "a", targets=frozenset({"nobody"}))
    np.testing.assert_array_equal(following(table, [nobody]).follow(view, wanted), wanted)


@settings(max_examples=50)
@given(evs(), kw(-10, 10))
def test_a_change_of_none_changes_no_power(columns, change):
    table, view, wanted = made(columns)
    before = sums(table, means(view, wanted))
    found = following(table, [Block("power_change", 0, 300, change, "a")]).follow(view, wanted)
    drawn = sums(table, means(view, found))
    must = sums(table, np.maximum(least_powers(view), 0.0))
    highest = sums(table, means(view, np.full(len(wanted), np.inf)))
    asked = sums(table, np.where(view.plugged, np.clip(wanted, view.p_min, view.p_max), 0.0))
    here = (before + change > must) & (before + change < highest) & (before + change > 0) & (asked >= 0)
    plain = sums(table, (least_powers(view) > np.clip(wanted, view.p_min, view.p_max)) * view.plugged) == 0
    np.testing.assert_allclose(drawn[here & plain], (before + change)[here & plain], atol=1e-6)
