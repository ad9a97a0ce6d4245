"""Where the state of the EVs lies: side by side for those that are plugged in.

An EV stands in a *lane*. ``LANES`` lanes are a *block*, in which each quantity is a column: the states of
charge of its EVs, one after the other, then their departures, and so on, so that a pass reads memory from
front to back, and the compiler computes several EVs at once. An array of blocks has a dtype made by
:func:`blocked`: ``state[b]["soc"][i]`` is the state of charge of the EV in lane ``b * LANES + i``.

A *stretch* is a run of EVs with consecutive rows: some whole members, or a part of one. It has a lane an
EV, filled up to whole blocks: in its first ``filled`` lanes stand those that are plugged in, in the order of
their rows; behind them, in any order, those that are away. So a pass over those plugged in meets them in
the order of their rows, whoever came and went before, and an EV that is away costs nothing. To plug in, or
leave, moves those of its stretch that stand behind.

*Parts* are runs of stretches that threads take in turns.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba import literal_unroll
from numpy.typing import NDArray

from evgrid.battery.records import Row
from evgrid.core.jit import njit

LANES = 16
"""EVs in a block."""

STRETCH = 512
"""Most EVs of a stretch: more are more to move at arrival, fewer leave more lanes of last blocks empty."""

SHORT_STRETCH, LONG_TICK_S = 128, 60.0
"""Most EVs of a stretch in ticks of this length, s, and longer: more come and go in each."""
PART = 1000
"""Least EVs of a part, if there are so many."""

MANY_MEMBERS = 64
"""Members from which on a part begins with a member, so that no other thread adds to a member's power."""

LINE = 64
"""Bytes of a cache line."""

ARRIVES, SEGMENTED = 1, 2
"""Why an EV's tick is done piece by piece: it arrives in it, or it follows several set-points in it."""

EXCLUSIVE, SHARED, WIDE = 0, 1, 2
"""How an EV's power goes into the slots: the only EV ever in its one, one of several, or over three."""

STATE = np.dtype(
    [
        ("soc", "f8"),  # state of charge, 0 to 1
        ("departure_s", "f8"),  # of the session that is plugged in
        ("drawn_kws", "f8"),  # energy from the grid in this session, kWs
        ("given_kws", "f8"),  # energy to the grid, kWs
        ("loss_kws", "f8"),  # conversion loss, kWs
        ("past_cost", "f8"),  # cost, less that of drawn_kws and given_kws at the rates of now; currency
        ("kind", "i4"),  # row of KIND
        ("session", "i4"),  # row of the sessions, -1 while away
        ("ev", "i4"),  # row of the EV
        ("slot", "i4"),  # the first of its slots, in the arrays of power and voltage
        ("guarded", "i1"),  # 1 once laxity has reached zero
        ("fresh", "i1"),  # ARRIVES or SEGMENTED in such a tick, else 0
        ("spread", "i1"),  # EXCLUSIVE, SHARED or WIDE
    ]
)
"""What a tick reads and writes of an EV: 67 bytes."""

Block = np.void
"""An element of Blocks."""

Blocks = NDArray[np.void]
"""An array, (block,), of a dtype that :func:`blocked` made."""

Columns = tuple[NDArray[Any], ...]
"""Views of blocks, (block, column, lane) of equal width each: what moves with an EV."""


def blocked(row: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a block of rows of a dtype whose fields are sorted by falling width; whole cache lines."""
    assert row.names is not None
    columns = [(name, row[name], (LANES,)) for name in row.names]
    spare = -sum(row[name].itemsize for name in row.names) * LANES % LINE
    return np.dtype([*columns, ("spare", "u1", (spare,))] if spare else columns)


def make_blocks(row: np.dtype[Any], lanes: int) -> Blocks:
    """Zeroed blocks of rows of a dtype for a number of lanes, at the begin of a cache line."""
    dtype = blocked(row)
    size = lanes // LANES * dtype.itemsize
    memory = np.empty(size + LINE, np.uint8)  # not zeros: numpy asks for huge pages for these only
    memory[:] = 0
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size].view(dtype)


def columns_of(row: np.dtype[Any], blocks: Blocks) -> Columns:
    """The columns of blocks, those of equal width together."""
    assert row.names is not None
    size = blocks.dtype.itemsize
    memory = blocks.view(np.uint8).reshape(-1, size)
    views, begin = [], 0
    for width in (8, 4, 1):
        number = sum(row[name].itemsize == width for name in row.names)
        end = begin + number * LANES * width
        if number:
            views.append(memory[:, begin:end].view(f"i{width}").reshape(-1, number, LANES))
        begin = end
    return tuple(views)


def blocks_of(row: np.dtype[Any], rows: NDArray[Any], state: Blocks) -> Blocks:
    """Blocks of a dtype from rows, (ev,), each where the blocks of STATE have the EV."""
    assert row.names is not None
    blocks = make_blocks(row, len(state) * LANES)
    for name in row.names:
        blocks[name] = rows[name][state["ev"]]
    return blocks


class Places(NamedTuple):
    """Which lanes are whose.

    first_ev, first_lane : (stretch + 1,), where each stretch begins
    filled : (stretch,), its EVs that are plugged in
    parts : (part + 1,), the stretch with which each part begins
    member_start : (member + 1,), first EV of each member
    plugged : (member,), its EVs that are plugged in
    exclusive : (part,), whether all its EVs are EXCLUSIVE
    """

    first_ev: NDArray[np.int64]
    first_lane: NDArray[np.int64]
    filled: NDArray[np.int64]
    parts: NDArray[np.int64]
    member_start: NDArray[np.int64]
    plugged: NDArray[np.int64]
    exclusive: NDArray[np.bool_]

    def by_ev(self, row: np.dtype[Any], blocks: Blocks, state: Blocks) -> NDArray[Any]:
        """A copy of what blocks hold, (ev,) rows."""
        assert row.names is not None
        sizes = np.diff(self.first_ev)
        there = np.concatenate(
            [np.arange(lane, lane + size) for lane, size in zip(self.first_lane, sizes, strict=False)]
            or [np.zeros(0, np.int64)]
        ).astype(np.int64)
        rows = np.zeros(len(there), row)
        ev = np.asarray(state["ev"]).reshape(-1)[there]
        for name in row.names:
            rows[name][ev] = blocks[name].reshape(-1)[there]
        return rows

    def plugged_in(self, state: Blocks) -> NDArray[np.int32]:
        """The EVs that are plugged in, ascending."""
        ev = np.asarray(state["ev"]).reshape(-1)
        lanes = zip(self.first_lane, self.filled, strict=False)
        return np.concatenate([ev[lane : lane + n] for lane, n in lanes] or [np.zeros(0, np.int32)])


def lay_out(
    member_start: NDArray[np.integer[Any]], slot: NDArray[np.int32], wide: NDArray[np.bool_], slots: int,
    tick_s: float = 0.0,
) -> tuple[Places, Blocks]:  # fmt: skip
    """Places, and blocks of STATE, of EVs that are all away.

    ``member_start``: (member + 1,), first EV of each; ``slot``, ``wide``: (ev,), the first of an EV's slots,
    out of a number, and whether it spreads over three; ``tick_s``: length of a tick, s.
    """
    first_ev = _stretches(member_start.tolist(), SHORT_STRETCH if tick_s >= LONG_TICK_S else STRETCH)
    sizes = np.diff(first_ev)
    first_lane = np.concatenate([[0], np.cumsum(-(-sizes // LANES) * LANES)]).astype(np.int64)
    used = np.bincount(slot, minlength=slots)
    for phase in (1, 2):
        used += np.bincount(slot[wide] + phase, minlength=slots)
    spread = np.where(wide, WIDE, np.where(used[slot] == 1, EXCLUSIVE, SHARED))
    ev = np.repeat(first_ev[:-1], np.diff(first_lane))  # a lane that no EV has shows the first
    there = np.arange(len(slot)) + np.repeat(first_lane[:-1] - first_ev[:-1], sizes)
    ev[there] = np.arange(len(slot))
    state = make_blocks(STATE, int(first_lane[-1]))
    state["ev"] = ev.reshape(-1, LANES)
    state["slot"], state["spread"] = slot[state["ev"]], spread[state["ev"]]
    state["session"] = -1
    parts = _parts(first_ev, member_start)
    others = np.concatenate([[0], np.cumsum(spread != EXCLUSIVE)])[first_ev[parts]]
    places = Places(
        first_ev, first_lane, np.zeros(len(sizes), np.int64), parts,
        member_start.astype(np.int64), np.zeros(len(member_start) - 1, np.int64), others[1:] == others[:-1],
    )  # fmt: skip
    return places, state


def _stretches(edges: list[int], most: int) -> NDArray[np.int64]:
    """The first EV of each stretch of ``most`` EVs at most, and the number of EVs; ``edges``: the same of
    members.
    """
    first_ev = [0]
    for begin, end in pairwise(edges):
        if end - first_ev[-1] > most and begin > first_ev[-1]:
            first_ev.append(begin)
        first_ev += range(first_ev[-1] + most, end, most)
        if end - begin > most:  # what is left of a large member isn't shared with others
            first_ev.append(end)
    if edges[-1] > first_ev[-1]:
        first_ev.append(edges[-1])
    return np.array(first_ev, np.int64)


def _parts(first_ev: NDArray[np.int64], member_start: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The first stretch of each part, and the number of stretches."""
    may = np.isin(first_ev, member_start) | (len(member_start) <= MANY_MEMBERS)
    parts = [0]
    for stretch in range(len(first_ev) - 1):
        if may[stretch] and first_ev[stretch] - first_ev[parts[-1]] >= PART:
            parts.append(stretch)
    return np.array([*parts, len(first_ev) - 1], np.int64)


FIELDS = STATE.names
"""Fields of STATE."""


@njit
def lift(block: Block, i: int, row: Row) -> None:
    """Copy what a block of STATE holds of lane ``i`` to a row."""
    for name in literal_unroll(FIELDS):
        row[name] = block[name][i]


@njit
def lower(row: Row, block: Block, i: int) -> None:
    """Copy a row of STATE to lane ``i`` of a block."""
    for name in literal_unroll(FIELDS):
        block[name][i] = row[name]


@njit
def in_use(places: Places) -> NDArray[np.int64]:
    """The lanes in which EVs are plugged in, in the order of the EVs' rows."""
    lanes = np.empty(places.filled.sum(), np.int64)
    at = 0
    for stretch in range(len(places.filled)):
        for lane in range(places.filled[stretch]):
            lanes[at] = places.first_lane[stretch] + lane
            at += 1
    return lanes


@njit
def enter(places: Places, state: Blocks, columns: Columns, ev: int) -> int:
    """Move an EV that is away among those of its stretch that are plugged in; its lane, or -1 if it is."""
    stretch = np.searchsorted(places.first_ev, ev, "right") - 1
    begin = places.first_lane[stretch]
    behind = begin + places.filled[stretch]
    now = behind
    end = begin + places.first_ev[stretch + 1] - places.first_ev[stretch]
    while now < end and state[now // LANES]["ev"][now % LANES] != ev:
        now += 1
    if now == end:
        return -1
    to = behind
    while to > begin and state[(to - 1) // LANES]["ev"][(to - 1) % LANES] > ev:
        to -= 1
    for own in literal_unroll(columns):
        _bring(own, now, behind, to)
    places.filled[stretch] += 1
    places.plugged[np.searchsorted(places.member_start, ev, "right") - 1] += 1
    return int(to)


@njit
def quit_lane(places: Places, state: Blocks, columns: Columns, stretch: int, lane: int) -> None:
    """Move the EV in a lane behind those of its stretch that are plugged in."""
    ev = state[lane // LANES]["ev"][lane % LANES]
    places.plugged[np.searchsorted(places.member_start, ev, "right") - 1] -= 1
    last = places.first_lane[stretch] + places.filled[stretch] - 1
    for own in literal_unroll(columns):
        _send(own, lane, last)
    places.filled[stretch] -= 1


@njit
def _bring(own: NDArray[Any], now: int, behind: int, to: int) -> None:
    """Put what stands in lane ``now`` into ``to``; ``to`` to ``behind`` move up, and that goes to ``now``."""
    for column in range(own.shape[1]):
        held = own[now // LANES, column, now % LANES]
        own[now // LANES, column, now % LANES] = own[behind // LANES, column, behind % LANES]
        first, last = to // LANES, behind // LANES
        for block in range(first, last + 1):  # a block at a time: no division for each lane
            values = own[block, column]
            low = to % LANES if block == first else 0
            high = behind % LANES if block == last else LANES - 1
            over = values[high]
            for i in range(high, low, -1):
                values[i] = values[i - 1]
            values[low] = held
            held = over


@njit
def _send(own: NDArray[Any], lane: int, last: int) -> None:
    """Put what stands in ``lane`` into ``last``; those behind it move down."""
    for column in range(own.shape[1]):
        held = own[lane // LANES, column, lane % LANES]
        first = lane // LANES
        for block in range(last // LANES, first - 1, -1):
            values = own[block, column]
            low = lane % LANES if block == first else 0
            high = last % LANES if block == last // LANES else LANES - 1
            under = values[low]
            for i in range(low, high):
                values[i] = values[i + 1]
            values[high] = held
            held = under
