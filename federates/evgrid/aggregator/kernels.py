"""Splitting a group's power over its EVs: arrays in, arrays out, in time proportional to the EVs.

Smoothed least-laxity-first (sLLF, arXiv 2102.08610): of the EVs of a group, those with the least
laxity charge, up to a threshold of laxity that the group's power determines. Within ``width_s`` of the
threshold the share of an EV's limit falls linearly from 1 to 0, so that EVs of similar laxity charge
together instead of taking turns. To discharge, the same from the highest laxity down.

The power of an EV is its mean over the tick (:func:`bounds`): at most what it still needs, and at least what
can't wait for the next tick, so that the departure guard of its EVSE never has to act. So the mean power of a
group is met for ticks of any length.

Two passes over the EVs, and no sort. The first sums up limits and adds them into a histogram over laxity,
in which the threshold is bracketed; it is then bisected over only the few EVs whose share depends on where
in the bracket it lies, fewer with each step. The second gives each EV its share.

Only EVs that are plugged in are processed, those of a group together (:class:`Order`), in blocks distributed
over threads. Each block has sums of its own, which are added up in order, and belongs to one group. So a
member gives the same result on its own as in an ensemble, bit for bit, with any number of threads.

Power is in kW at the grid, positive when drawn; a group is a row of ``headroom``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import in_threads, njit

BLOCK = 4096
"""EVs in a block at most."""
_LEAST_BLOCKS = 3
"""Least number of blocks for a thread: fewer full ones take less time than to wake it."""
_BINS = 1024
"""Bins of the histogram of a group's laxities."""
_MIDDLE_S = 21600.0
"""Laxity in the middle of the bins, s: they are 84 s wide there, 21 s near 0 and 9 min at a day."""
_WIDE = 0.1
"""Bracket of the threshold, in widths, down to which the search includes all EVs."""
_FEW = 256
"""EVs in a group up to which all are searched, without a histogram."""
_NARROW_S = 1e-9
"""Bracket of the threshold, s, at which the search ends."""
_NONE = np.uint16(65535)
"""Bin of an EV that has no part in the search."""
ALL = 1.0 - 1e-6
"""Share of the free power above which an EV may draw its full power."""
ROUND_TRIP = 0.75
"""Round-trip efficiency assumed where none is known: on the safe side."""


class Order(NamedTuple):
    """EVs by group, and the blocks in which they are processed.

    rows : (n,) uint32, the EVs: those of a group together and ascending
    start : (block + 1,) int64, where each block begins in ``rows``; none is of more than one group
    group : (block,) int64
    first : (group + 1,) int64, first block of each group
    """

    rows: NDArray[np.uint32]
    start: NDArray[np.int64]
    group: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def least(self) -> int:
        """Blocks that a thread should have at least."""
        return max(_LEAST_BLOCKS, _LEAST_BLOCKS * BLOCK * len(self.group) // max(len(self.rows), 1))


def order_by_group(rows: NDArray[np.uint32], group: NDArray[np.int64], groups: int) -> Order:
    """The order of the EVs ``rows``, ascending; ``group``: (ev,), of all EVs."""
    return Order(*_order(rows, group, groups))


@njit
def _order(
    rows: NDArray[np.uint32], group: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The fields of :class:`Order`."""
    count = np.zeros(groups, np.int64)
    ordered = True  # true where groups are members
    last, run = 0, 0
    for ev in rows:
        at = group[ev]
        if at != last:
            ordered &= at > last
            count[last] += run
            last, run = at, 0
        run += 1
    if run:
        count[last] += run
    first = np.zeros(groups + 1, np.int64)
    for at in range(groups):
        first[at + 1] = first[at] + (count[at] + BLOCK - 1) // BLOCK
    start = np.empty(first[groups] + 1, np.int64)
    of_block = np.empty(first[groups], np.int64)
    place = np.zeros(groups, np.int64)
    begin = 0
    for at in range(groups):
        place[at] = begin
        for block in range(first[at], first[at + 1]):
            start[block] = begin + (block - first[at]) * BLOCK
            of_block[block] = at
        begin += count[at]
    start[first[groups]] = begin
    if ordered:
        return rows, start, of_block, first
    parted = np.empty(len(rows), np.uint32)
    for ev in rows:
        parted[place[group[ev]]] = ev
        place[group[ev]] += 1
    return parted, start, of_block, first


def share_by_laxity(
    order: Order,
    headroom: NDArray[np.float64],
    p_max: NDArray[np.float64],
    p_min: NDArray[np.float64],
    time_left: NDArray[np.float64],
    time_needed: NDArray[np.float64],
    step_s: float,
    width_s: float,
    power: NDArray[np.float64],
    hysteresis_s: float = 0.0,
) -> None:
    """Share each group's headroom over its EVs: charge by least laxity, discharge by most.

    Energy that can't wait for the next tick (:func:`bounds`) is served first, whatever the headroom: the EVSE
    would charge it anyway. The rest of the headroom is charged by laxity; if it is negative, EVs discharge
    from the highest laxity down, as far as they can recharge in time, until it is met.

    Parameters
    ----------
    order
        The EVs that are plugged in, by group.
    headroom
        (group,) kW that the group's EVs may draw together; negative: they are to discharge.
    p_max, p_min
        (ev,) kW, limits of each EV; p_min <= 0 <= p_max.
    time_left, time_needed
        (ev,) s; laxity is the difference.
    step_s
        Length of the tick, s.
    width_s
        Range of laxity over which an EV's share falls from 1 to 0, s, above 0.
    power
        (ev,) kW: the power of the tick before, overwritten for each EV in ``order``. An EV without limits
        above 0 (p_max = p_min = 0) gets 0; one that may draw its full power gets p_max, even if it needs
        less than that over the tick.
    hysteresis_s
        Laxity by which an EV that already charges (or discharges) goes before one that doesn't, s.

    The means over the tick meet the headroom, to rounding, unless the EVs served first exceed it.

    """
    blocks, least = len(order.group), order.least
    limits: tuple[Any, ...] = (p_max, p_min, time_left, time_needed, step_s, power, hysteresis_s)
    bins = np.empty(len(order.rows), np.uint16)
    sums, histogram = np.empty((blocks, 2)), np.empty((blocks, _BINS))

    def survey(charges: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        arguments: tuple[Any, ...] = (*order, charges, *limits, bins, sums, histogram)
        in_threads(lambda low, high: _survey(low, high, *arguments), blocks, least)
        return _left(order.first, headroom, sums)

    charges = headroom > 0.0
    left, total = survey(charges)
    if not np.array_equal(left > 0.0, charges):  # rare: those served first take all of it
        charges = left > 0.0
        left, total = survey(charges)
    search: tuple[Any, ...] = (*order, charges, *limits, width_s, bins, histogram, np.abs(left), total)
    level = _levels(*search)
    arguments: tuple[Any, ...] = (*order, left, total, level, *limits, width_s)
    in_threads(lambda low, high: _assign(low, high, *arguments), blocks, least)


@njit
def bounds(
    p_max: float, p_min: float, time_left: float, time_needed: float, step_s: float
) -> tuple[float, float]:
    """Least and most mean power of an EV over a tick, kW, with which it still meets its departure.

    Most: the power for the energy it needs, if that takes less than the tick. Least: the energy that full
    power in all the time after the tick would leave missing; where that is negative, the EV may give as much
    back (a round trip of ``ROUND_TRIP`` allowed for), down to ``p_min``. An EV that is late has least = most.
    """
    most = p_max * max(min(time_needed, time_left, step_s), 0.0) / step_s
    short_s = time_needed - max(time_left - step_s, 0.0)
    if short_s >= 0.0:
        return min(p_max * short_s / step_s, most), most
    return max(ROUND_TRIP * max(p_max, -p_min) * short_s / step_s, p_min), most


@njit
def fill_least(
    rows: NDArray[np.uint32], p_max: NDArray[np.float64], p_min: NDArray[np.float64],
    time_left: NDArray[np.float64], time_needed: NDArray[np.float64], step_s: float,
    least: NDArray[np.float64],
) -> None:  # fmt: skip
    """Fill the least power (:func:`bounds`) of the EVs ``rows``; the other arrays are (ev,)."""
    for ev in rows:
        least[ev] = bounds(p_max[ev], p_min[ev], time_left[ev], time_needed[ev], step_s)[0]


@njit
def _free(
    p_max: float, p_min: float, time_left: float, time_needed: float, step_s: float, up: bool
) -> tuple[float, float]:
    """Power that an EV must draw in a tick, and may draw or give besides, kW each, not negative."""
    least, most = bounds(p_max, p_min, time_left, time_needed, step_s)
    must = max(least, 0.0)
    return must, most - must if up else must - least


@njit
def _survey(
    low: int, high: int,
    rows: NDArray[np.uint32], start: NDArray[np.int64], of_block: NDArray[np.int64],
    first: NDArray[np.int64], charges: NDArray[np.bool_],
    p_max: NDArray[np.float64], p_min: NDArray[np.float64],
    time_left: NDArray[np.float64], time_needed: NDArray[np.float64],
    step_s: float, power: NDArray[np.float64], hysteresis_s: float,
    bins: NDArray[np.uint16], sums: NDArray[np.float64], histogram: NDArray[np.float64],
) -> None:  # fmt: skip
    """First pass, over blocks [low, high): fills the bins of their EVs, their histograms and their sums.

    ``sums``: (block, 2) kW that must be drawn now, and that is free in the direction of the group. Bins
    are in order of priority: of rising laxity to charge, of falling to discharge.
    """
    for block in range(low, high):
        at = of_block[block]
        up = charges[at]
        sign = 1.0 if up else -1.0
        searched = start[first[at + 1]] - start[first[at]] > _FEW
        weights = histogram[block]
        weights[:] = 0.0
        must = 0.0
        total = 0.0
        for i in range(start[block], start[block + 1]):
            ev = rows[i]
            laxity = max(time_left[ev] - time_needed[ev], 0.0)
            now, weight = _free(p_max[ev], p_min[ev], time_left[ev], time_needed[ev], step_s, up)
            must += now
            total += weight
            if hysteresis_s > 0.0 and sign * power[ev] > 0.0:
                laxity = max(laxity - sign * hysteresis_s, 0.0)
            bin_ = int(laxity / (laxity + _MIDDLE_S) * _BINS)
            bin_ = min(bin_, _BINS - 1)
            bin_ = bin_ if up else _BINS - 1 - bin_
            bins[i] = bin_ if weight > 0.0 else _NONE
            if searched:
                weights[np.uint32(bin_)] += weight
        sums[block, 0] = must
        sums[block, 1] = total


@njit
def _left(
    first: NDArray[np.int64], headroom: NDArray[np.float64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Headroom of each group after those served first, and the free power for it, (group,) kW."""
    left, total = headroom.copy(), np.zeros(len(headroom))
    for at in range(len(headroom)):
        for block in range(first[at], first[at + 1]):
            left[at] -= sums[block, 0]
            total[at] += sums[block, 1]
    return left, total


@njit
def _begin(bin_: int, charges: bool) -> float:
    """Key at which a bin begins, s: the laxity to charge, its negative to discharge."""
    at = bin_ if charges else _BINS - bin_
    laxity = _MIDDLE_S * at / (_BINS - at) if at < _BINS else np.inf
    return laxity if charges else -laxity


@njit
def _levels(
    rows: NDArray[np.uint32], start: NDArray[np.int64], of_block: NDArray[np.int64],
    first: NDArray[np.int64], charges: NDArray[np.bool_],
    p_max: NDArray[np.float64], p_min: NDArray[np.float64],
    time_left: NDArray[np.float64], time_needed: NDArray[np.float64],
    step_s: float, power: NDArray[np.float64], hysteresis_s: float, width_s: float,
    bins: NDArray[np.uint16], histogram: NDArray[np.float64],
    target: NDArray[np.float64], total: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """The level of each group at which ``sum weight · clip((level - key) / width_s, 0, 1) = target``.

    target, total : (group,) kW, total the sum of the group's weights
    Groups whose target is 0 or at least their total need no level.
    """
    groups = len(target)
    level = np.zeros(groups)
    largest = 0
    for at in range(groups):
        largest = max(largest, start[first[at + 1]] - start[first[at]])
    found = np.empty(largest + 1, np.uint32)
    key = np.empty(largest)
    weight = np.empty(largest)
    for at in range(groups):
        if not 0.0 < target[at] < total[at]:
            continue
        begin = start[first[at]]
        end = start[first[at + 1]]
        lowest, highest, settled = 0, _BINS, 0.0
        if end - begin > _FEW:
            of_group = histogram[first[at] : first[at + 1]]
            lowest, highest, settled = _bracket(of_group, charges[at], target[at], width_s)
        up = charges[at]
        sign = 1.0 if up else -1.0
        offset = np.uint16(lowest)
        span = np.uint16(highest - lowest)
        count = 0
        for i in range(begin, end):  # without a branch that can't be predicted
            found[count] = rows[i]
            count += int(np.uint16(bins[i] - offset) <= span)
        for i in range(count):
            ev = found[i]
            key[i] = _key(time_left[ev] - time_needed[ev], sign, power[ev], hysteresis_s)
            weight[i] = _free(p_max[ev], p_min[ev], time_left[ev], time_needed[ev], step_s, up)[1]
        level[at] = _level(key[:count], weight[:count], settled, target[at], width_s)
    return level


@njit
def _bracket(
    histogram: NDArray[np.float64], charges: bool, target: float, width_s: float
) -> tuple[int, int, float]:
    """First and last bin of the EVs whose share may be between 0 and 1, and the weights of the bins before.

    histogram : (block, bin) kW
    """
    merged = np.zeros(_BINS)
    for block in range(len(histogram)):
        merged += histogram[block]
    before = 0.0
    here = 0
    while here < _BINS - 1 and before + merged[here] < target:
        before += merged[here]
        here += 1
    # The level is in this bin or up to a width beyond; a bin more at each end covers rounding.
    lowest = max(here - 1, 0)
    begin = _begin(lowest, charges) - width_s
    while lowest > 0 and _begin(lowest, charges) > begin:
        lowest -= 1
    highest = min(here + 1, _BINS - 1)
    end = _begin(highest + 1, charges) + width_s
    while highest < _BINS - 1 and _begin(highest, charges) < end:
        highest += 1
    settled = 0.0
    for bin_ in range(lowest):
        settled += merged[bin_]
    return lowest, highest, settled


@njit
def _given(key: NDArray[np.float64], weight: NDArray[np.float64], level: float, per_s: float) -> float:
    """``sum weight · clip((level - key) / width_s, 0, 1)``, in four independent sums."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    whole = len(key) // 4 * 4
    for i in range(0, whole, 4):
        first += weight[i] * min(max((level - key[i]) * per_s, 0.0), 1.0)
        second += weight[i + 1] * min(max((level - key[i + 1]) * per_s, 0.0), 1.0)
        third += weight[i + 2] * min(max((level - key[i + 2]) * per_s, 0.0), 1.0)
        fourth += weight[i + 3] * min(max((level - key[i + 3]) * per_s, 0.0), 1.0)
    for i in range(whole, len(key)):
        first += weight[i] * min(max((level - key[i]) * per_s, 0.0), 1.0)
    return first + second + third + fourth


@njit
def _level(
    key: NDArray[np.float64], weight: NDArray[np.float64], settled: float, target: float, width_s: float
) -> float:
    """The level at which ``settled + sum weight · clip((level - key) / width_s, 0, 1) = target``.

    key, weight : (candidate,), used up. The level is between the least key and a width above the highest.
    """
    per_s = 1.0 / width_s
    low = np.min(key)
    high = np.max(key) + width_s
    count = len(key)
    while count > _FEW and high - low > _WIDE * width_s:  # all of them, as long as that narrows few down
        middle = 0.5 * (low + high)
        if settled + _given(key, weight, middle, per_s) >= target:
            high = middle
        else:
            low = middle
    origin = low
    slope = 0.0  # of the settled weight, from the origin on
    while count > 0:
        middle = 0.5 * (low + high)
        value = settled + slope * (middle - origin)
        for i in range(count):
            value += weight[i] * min(max((middle - key[i]) * per_s, 0.0), 1.0)
        if value >= target:
            high = middle
        else:
            low = middle
        kept = 0
        for i in range(count):
            begin = key[i]
            end = begin + width_s
            if begin < high and end > low:
                if (begin > low or end < high) and high - low > _NARROW_S:
                    key[kept] = begin
                    weight[kept] = weight[i]
                    kept += 1
                else:
                    slope += weight[i] * per_s
                    settled += weight[i] * (origin - begin) * per_s
            elif end <= low:
                settled += weight[i]
        count = kept
    if slope > 0.0:
        return min(max(origin + (target - settled) / slope, low), high)
    return high


@njit
def _key(laxity: float, sign: float, power: float, hysteresis_s: float) -> float:
    """Key by which EVs are ordered, the least first, s; ``power``: of the tick before."""
    key = sign * max(laxity, 0.0)
    return key - hysteresis_s if hysteresis_s > 0.0 and sign * power > 0.0 else key


@njit
def _assign(
    low: int, high: int,
    rows: NDArray[np.uint32], start: NDArray[np.int64], of_block: NDArray[np.int64],
    first: NDArray[np.int64], left: NDArray[np.float64], total: NDArray[np.float64],
    level: NDArray[np.float64], p_max: NDArray[np.float64], p_min: NDArray[np.float64],
    time_left: NDArray[np.float64], time_needed: NDArray[np.float64],
    step_s: float, power: NDArray[np.float64], hysteresis_s: float, width_s: float,
) -> None:  # fmt: skip
    """Second pass, over blocks [low, high): fills the power of each of their EVs."""
    per_s = 1.0 / width_s
    for block in range(low, high):
        at = of_block[block]
        up = left[at] > 0.0
        sign = 1.0 if up else -1.0
        nothing = left[at] == 0.0
        all_of_it = sign * left[at] >= total[at]
        for i in range(start[block], start[block + 1]):
            ev = rows[i]
            laxity = time_left[ev] - time_needed[ev]
            key = _key(laxity, sign, power[ev], hysteresis_s)
            share = min(max((level[at] - key) * per_s, 0.0), 1.0)
            share = 1.0 if all_of_it else share
            share = 0.0 if nothing else share
            least, most = bounds(p_max[ev], p_min[ev], time_left[ev], time_needed[ev], step_s)
            must = max(least, 0.0)
            rises = must + share * (most - must)
            given = must + share * (least - must)
            rises = p_max[ev] if share > ALL or least >= most else rises
            given = p_max[ev] if least >= most else given
            power[ev] = rises if up else given


@njit
def follow(
    low: int, high: int,
    rows: NDArray[np.uint32], start: NDArray[np.int64], of_block: NDArray[np.int64],
    first: NDArray[np.int64], wanted: NDArray[np.float64], lost: NDArray[np.bool_],
    sent: NDArray[np.float64], step_s: float,
    plugged: NDArray[np.bool_], p_max: NDArray[np.float64], p_min: NDArray[np.float64],
    energy_needed: NDArray[np.float64], time_left: NDArray[np.float64], time_needed: NDArray[np.float64],
    asked: NDArray[np.float64],
) -> bool:  # fmt: skip
    """Send set-points to the EVs of blocks [low, high), and extrapolate their reported status by a tick.

    wanted, sent : (ev,) kW; a set-point that is ``lost``, (ev,) or (0,) for none, leaves ``sent`` as it was
    asked : (block,) sum of the set-points sent, within the EVs' limits, kW, written

    Others are updated in place. The EVs are taken to follow what is sent. The time needed changes in
    proportion to the energy; an EV that needs no more can't draw, and one past its departure is away. Returns
    False if a set-point is NaN.
    """
    hours = step_s / 3600.0
    good = True  # no branches below on what differs from EV to EV: they could not be predicted
    for block in range(low, high):
        total = 0.0
        for i in range(start[block], start[block + 1]):
            ev = rows[i]
            if not plugged[ev]:
                sent[ev] = 0.0
                continue
            if len(lost) == 0 or not lost[ev]:
                good &= wanted[ev] == wanted[ev]
                sent[ev] = wanted[ev]
            highest = p_max[ev]
            lowest = p_min[ev]
            power = sent[ev]
            power = power if power > lowest else lowest
            power = power if power < highest else highest
            total += power
            before = energy_needed[ev]
            after = before - power * hours
            after = after if after > 0.0 else 0.0
            energy_needed[ev] = after
            time_needed[ev] *= after / (before if before > 0.0 else np.inf)
            p_max[ev] = highest if after > 0.0 else 0.0
            left = max(time_left[ev] - step_s, 0.0)
            time_left[ev] = left
            if left <= 0.0:
                plugged[ev] = False
                p_max[ev] = 0.0
                p_min[ev] = 0.0
        asked[block] = total
    return good
