"""The exact least-cost schedule of each battery at given prices, without a linear program; arrays only.

A battery's cost to go is a convex, piecewise linear function of its energy. Going back in time by a
slot, that function is convolved with the options of the slot (give energy back, draw it, draw it above
the remaining room), which merges slopes into a sorted list, and is cut to the limits of energy at
that moment. Going forward, each slot moves the energy up as long as a kWh in the battery is worth more
than it costs. That is the greedy fill of the cheapest slots, and where energy may be given back it is
the exact optimum of the battery's linear program. ``T`` slots take at most ``O(T²)`` steps.

**Giving and drawing within a slot.** Where giving a kWh back earns more than it costs to draw it again
(negative prices: losses are paid for), the least cost of a change of energy is not convex for a battery that
has one direction at a time. With ``alternates`` a battery may change direction within a slot any number of
times, giving in a part of it and drawing in the rest: the function is then the straight line between giving
and drawing throughout, convex again, and the schedule is exact. Without, it is taken to earn no more
than drawing costs, so that nothing is gained by doing both.

**Taper.** Charging power may fall with the energy, ``p_max (full - e) / (full - taper)`` above ``taper``. The
most that a slot charges to is then the lesser of two lines in the energy that it begins with: that of full
power, and that of the taper throughout, ``full - (full - e) exp(-gain p_max / (full - taper))``. It is
concave and rises, so that the cost to go stays convex: slopes at which it pays to charge all that can be
charged are moved along it. Where the taper begins within the slot the lines allow too much: of what the slot
charges, at most an eighth of ``gain p_max / (full - taper)``.

Batteries are scheduled one after the other, and each leaves the rest of the ``room``, and of ``gives``, to
those after it. Without a limit (both infinite) the order doesn't matter.

Energy is the battery's, kWh; power is in kW at the grid; positive is drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit

Floats = NDArray[np.float64]

_ROUNDING_KWH = 1e-10
"""Change of energy, kWh, below which it is rounding and counts as 0."""


@njit
def least_cost(
    p_max: Floats,
    p_min: Floats,
    e_max: Floats,
    e_min: Floats,
    charge_efficiency: Floats,
    discharge_efficiency: Floats,
    price: Floats,
    export_price: Floats,
    slot_h: float,
    room: Floats,
    gives: Floats,
    overrun_price: float,
    taper_kwh: Floats,
    full_kwh: Floats,
    alternates: bool = False,
) -> tuple[Floats, Floats]:
    """Power that each battery draws and gives in each slot, (battery, slot) kW each and not negative.

    p_max, p_min : (battery, slot) kW, p_min <= 0 <= p_max
    e_max, e_min : (battery, slot + 1) kWh at the slots' edges; the first e_min is where it begins
    charge_efficiency, discharge_efficiency : (battery,), 0 to 1
    price, export_price : (slot,) or (battery, slot) currency per kWh drawn and given, the latter less wear
    room, gives : (slot,) kW that the batteries may draw, and give, together; reduced in place to the rest
    overrun_price : currency per kWh drawn beyond the room, besides the price
    taper_kwh, full_kwh : (battery,) energy above which the power of charging falls, and at which it would be
        0; infinite where it doesn't
    alternates : whether a battery may do both within a slot, for parts of it; only with infinite room and
        without a taper

    Of slots at equal cost the earliest charges. Limits of energy that can't be met are met as nearly as
    the powers allow.
    """
    count, slots = p_max.shape
    prices, credits = np.atleast_2d(price), np.atleast_2d(export_price)
    charge = np.zeros((count, slots))
    discharge = np.zeros((count, slots))
    # the cost to go at each edge: where it begins to be defined, and its slopes, rising
    low = np.empty(slots + 1)
    pieces = np.zeros(slots + 1, np.int64)
    slope = np.empty((slots + 1, 5 * slots + 1))
    length = np.empty((slots + 1, 5 * slots + 1))
    for i in range(count):
        gain, fall = slot_h * charge_efficiency[i], slot_h / discharge_efficiency[i]
        full, width = full_kwh[i], full_kwh[i] - taper_kwh[i]
        if np.isinf(full):
            width = np.inf
        last = slots
        while last > 0 and p_max[i, last - 1] <= 0.0 and p_min[i, last - 1] >= 0.0:
            last -= 1
        low[last] = e_min[i, last]
        pieces[last] = 0
        if e_max[i, last] > e_min[i, last]:
            pieces[last], slope[last, 0], length[last, 0] = 1, 0.0, e_max[i, last] - e_min[i, last]
        for t in range(last - 1, 0, -1):
            drawn, given, both = _values(
                prices[i % len(prices), t], credits[i % len(credits), t], charge_efficiency[i],
                discharge_efficiency[i], p_max[i, t], -p_min[i, t], alternates,
            )  # fmt: skip
            within = min(p_max[i, t], max(room[t], 0.0))
            k = pieces[t + 1]
            slope[t, :k] = slope[t + 1, :k]
            length[t, :k] = length[t + 1, :k]
            over = overrun_price / charge_efficiency[i]
            low[t], k = _charge(slope[t], length[t], k, low[t + 1], -drawn, gain * within, full, width)
            low[t], k = _charge(
                slope[t], length[t], k, low[t], -drawn - over, gain * (p_max[i, t] - within), full, width
            )
            k = _insert(slope[t], length[t], k, -given, fall * min(-p_min[i, t], max(gives[t], 0.0)))
            low[t], pieces[t] = _cut(slope[t], length[t], k, low[t], e_min[i, t], e_max[i, t])
        energy = e_min[i, 0]
        for t in range(last):
            drawn, given, both = _values(
                prices[i % len(prices), t], credits[i % len(credits), t], charge_efficiency[i],
                discharge_efficiency[i], p_max[i, t], -p_min[i, t], alternates,
            )  # fmt: skip
            within = min(p_max[i, t], max(room[t], 0.0))
            # from the lowest energy that can be reached, up while it pays
            most_given = min(-p_min[i, t], max(gives[t], 0.0))
            at = max(energy - fall * most_given, low[t + 1])
            k, used = 0, at - low[t + 1]
            while k < pieces[t + 1] and used >= length[t + 1, k]:
                used -= length[t + 1, k]
                k += 1
            highest = most_kwh(energy, gain * p_max[i, t], full, width)
            within_kwh = min(energy + gain * within, highest)
            while at < highest:
                worth, left = 0.0, 0.0
                if k < pieces[t + 1]:
                    worth, left = -slope[t + 1, k], length[t + 1, k] - used
                if at < low[t + 1]:
                    worth, left = np.inf, low[t + 1] - at
                elif k >= pieces[t + 1]:
                    break
                if at < energy:
                    cost, until = given, energy
                elif at < within_kwh:
                    cost, until = drawn, within_kwh
                else:
                    cost, until = drawn + overrun_price / charge_efficiency[i], highest
                if worth < cost - 1e-12:
                    break
                if left <= until - at:
                    at += left
                    used = 0.0
                    if worth < np.inf:
                        k += 1
                else:
                    used += until - at
                    at = until
            if abs(at - energy) < _ROUNDING_KWH and not both:
                at = energy
            if both:
                share = (at - energy - fall * p_min[i, t]) / (gain * p_max[i, t] - fall * p_min[i, t])
                charge[i, t] = min(max(share, 0.0), 1.0) * p_max[i, t]
                discharge[i, t] = min(max(1.0 - share, 0.0), 1.0) * -p_min[i, t]
            elif at > energy:
                charge[i, t] = min((at - energy) / gain, p_max[i, t])
            else:
                discharge[i, t] = min((energy - at) / fall, most_given)
            room[t] -= charge[i, t] - discharge[i, t]
            gives[t] += charge[i, t] - discharge[i, t]
            energy = at
    return charge, discharge


@njit
def _values(
    price: float, credit: float, charge_efficiency: float, discharge_efficiency: float,
    p_max: float, p_out: float, alternates: bool,
) -> tuple[float, float, bool]:  # fmt: skip
    """Cost of drawing a kWh of the battery, earning of giving it, and whether a slot is used both ways."""
    drawn = price / charge_efficiency
    given = credit * discharge_efficiency
    if given <= drawn or p_max <= 0.0 or p_out <= 0.0:
        return drawn, given, False
    if not alternates:
        return drawn, drawn, False
    line = (price * p_max + credit * p_out) / (charge_efficiency * p_max + p_out / discharge_efficiency)
    return line, line, True


@njit
def most_kwh(energy: float, size: float, full: float, width: float) -> float:
    """Energy to which a slot that charges ``size`` at full power charges, all kWh.

    full, width : energy at which the power would be 0, and how far below it falls; infinite: it doesn't
    """
    if np.isinf(width):
        return energy + size
    return max(min(energy + size, full - (full - energy) * float(np.exp(-size / width))), energy)


@njit
def _charge(
    slope: Floats, length: Floats, pieces: int, low: float, new: float, size: float, full: float, width: float
) -> tuple[float, int]:
    """The cost to go before a slot that may charge, from that after it, in place.

    low : where its domain begins
    new : slope that it has where the slot charges, but not all it can
    size, full, width : its charging, as in :func:`most_kwh`

    Returns where its domain begins now, and the number of pieces.
    """
    if size <= 0.0:
        return low, pieces
    if np.isinf(width):
        return low - size, _insert(slope, length, pieces, new, size)
    kept = np.exp(-size / width)
    kink = (
        full - size / (1.0 - kept) + size
    )  # energy after the slot, above which the taper's line is the lesser
    at, k = low, 0
    while k < pieces and slope[k] < new:
        end = at + length[k]
        if at < kink < end:  # in two
            for j in range(pieces, k, -1):
                slope[j], length[j] = slope[j - 1], length[j - 1]
            pieces += 1
            length[k], length[k + 1] = kink - at, end - kink
            end = kink
        if at >= kink:
            slope[k] = new + kept * (slope[k] - new)
            length[k] /= kept
        at = end
        k += 1
    before = _before(at, size, full, kept)
    return _before(low, size, full, kept), _insert(slope, length, pieces, new, at - before)


@njit
def _before(energy: float, size: float, full: float, kept: float) -> float:
    """Energy before a slot that charges all it can, and has ``energy`` after it."""
    return min(max(energy - size, full - (full - energy) / kept), energy)


@njit
def _insert(slope: Floats, length: Floats, pieces: int, new: float, size: float) -> int:
    """Insert a piece into rising slopes, in place; the number of pieces."""
    if size <= 0.0:
        return pieces
    at = np.searchsorted(slope[:pieces], new)
    if at < pieces and slope[at] == new:
        length[at] += size
        return pieces
    for k in range(pieces, at, -1):
        slope[k] = slope[k - 1]
        length[k] = length[k - 1]
    slope[at] = new
    length[at] = size
    return pieces + 1


@njit
def _cut(
    slope: Floats, length: Floats, pieces: int, low: float, least: float, most: float
) -> tuple[float, int]:
    """Cut the domain, which begins at ``low``, to [least, most], in place; its beginning, and the pieces."""
    first = 0
    while first < pieces and low + length[first] <= least:
        low += length[first]
        first += 1
    if first < pieces and low < least:
        length[first] -= least - low
        low = least
    kept = 0
    high = low
    for k in range(first, pieces):
        if high >= most:
            break
        size = min(length[k], most - high)
        slope[kept], length[kept] = slope[k], size
        kept += 1
        high += size
    return low, kept
