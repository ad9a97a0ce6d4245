"""Where the state of the EVs lies: who comes and goes, and the order of those that are plugged in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.fleet.kernels import lanes
from evgrid.fleet.kernels.lanes import EXCLUSIVE, LANES, LINE, SHARED, STATE, STRETCH, WIDE


def laid_out(sizes, slot=None, wide=None):
    """Places and blocks of members of some sizes; an EV a connection unless told."""
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    count = int(start[-1])
    slot = (3 * np.arange(count)).astype(np.int32) if slot is None else np.array(slot, np.int32)
    wide = np.zeros(count, bool) if wide is None else np.array(wide)
    return lanes.lay_out(start, slot, wide, 3 * count)


member_sizes = st.lists(st.sampled_from([0, 1, 3, 20, 200, 511, 512, 513, 1300]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(member_sizes, st.randoms(use_true_random=False))
def test_those_plugged_in_stand_in_the_order_of_their_rows_whoever_came_and_went(sizes, random):
    places, state = laid_out(sizes)
    columns = lanes.columns_of(STATE, state)
    count = sum(sizes)
    if not count:
        return
    state["soc"] = state["ev"] / 7.0
    here = set()
    for _ in range(150):
        ev = random.randrange(count)
        lane = lanes.enter(places, state, columns, ev)
        assert (lane < 0) == (ev in here)
        here.add(ev)
        if random.random() < 0.4:
            leaving = random.choice(sorted(here))
            stretch = int(np.searchsorted(places.first_ev, leaving, "right")) - 1
            own = [x for x in lanes.in_use(places) if state["ev"][x // LANES][x % LANES] == leaving]
            lanes.quit_lane(places, state, columns, stretch, own[0])
            here.remove(leaving)
        assert places.plugged_in(state).tolist() == sorted(here)
    rows = places.by_ev(STATE, state, state)
    assert rows["ev"].tolist() == list(range(count))
    assert rows["soc"] == pytest.approx(np.arange(count) / 7.0)  # all of an EV's columns moved with it
    member = np.repeat(np.arange(len(sizes)), sizes)
    assert places.plugged.tolist() == np.bincount(member[sorted(here)], minlength=len(sizes)).tolist()


@settings(max_examples=60, deadline=None)
@given(st.one_of(member_sizes, st.lists(st.integers(0, 40), min_size=65, max_size=200)))
def test_stretches_hold_whole_members_or_a_part_of_one_and_parts_of_many_members_whole_ones(sizes):
    places, state = laid_out(sizes)
    start = np.concatenate([[0], np.cumsum(sizes)])
    widths = np.diff(places.first_ev)
    assert widths.sum() == sum(sizes)
    assert np.all(widths <= STRETCH)
    for begin, end in zip(places.first_ev[:-1], places.first_ev[1:], strict=True):
        whole = begin in start and end in start
        assert whole or np.searchsorted(start, begin, "right") == np.searchsorted(start, end, "left")
    assert np.all(places.first_lane % LANES == 0)
    assert places.first_lane[-1] == len(state) * LANES
    assert places.parts[0] == 0
    assert places.parts[-1] == len(widths)
    if len(sizes) >= lanes.MANY_MEMBERS:
        assert np.isin(places.first_ev[places.parts[:-1]], start).all()


def test_an_ev_has_its_slot_exclusively_shares_its_slot_or_spreads_over_three():
    # 0 and 1 on one phase of a connection, 2 alone, 3 on three phases, 4 on one of these
    places, state = laid_out([5], slot=[0, 0, 4, 6, 8], wide=[False, False, False, True, False])
    rows = places.by_ev(STATE, state, state)
    assert rows["spread"].tolist() == [SHARED, SHARED, EXCLUSIVE, WIDE, SHARED]
    assert rows["slot"].tolist() == [0, 0, 4, 6, 8]
    assert not places.exclusive[0]
    assert laid_out([5])[0].exclusive.all()


def test_blocks_begin_at_a_cache_line_and_are_whole_ones():
    blocks = lanes.make_blocks(STATE, 5 * LANES)
    assert blocks.ctypes.data % LINE == blocks.dtype.itemsize % LINE == 0
    assert not blocks.view(np.uint8).any()
