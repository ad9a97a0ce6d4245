"""Splitting a group's power over its EVs: arrays in, arrays out, in time proportional to the EVs.

Smoothed least-laxity-first (sLLF, arXiv 2102.08610): of the EVs of a group, those with the least
laxity charge, up to a threshold of laxity that the group's power determines. Within ``width_s`` of the
threshold the share of an EV's limit falls linearly from 1 to 0, so that EVs of like laxity charge
alike instead of taking turns. To discharge, the same from the highest laxity down.

The threshold is found in a histogram of the laxities, then by bisection over those EVs alone whose
share still depends on where in the bracket it lies, and these dwindle with it: no sort is needed.
Sums run in the order of the EVs of a group and know no other group, so a member alone computes what
it does in an ensemble.

Power is in kW at the grid, positive when drawn; a group is a row of ``headroom``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.compile import njit

_BINS = 64
"""Bins of a group's laxities, by which the search begins."""
_NARROW_S = 1e-6
"""Bracket of the threshold, s, within which what is left of the search doesn't matter."""


@njit
def share_by_laxity(
    group: NDArray[np.int64],
    headroom: NDArray[np.float64],
    p_max: NDArray[np.float64],
    p_min: NDArray[np.float64],
    laxity: NDArray[np.float64],
    step_s: float,
    width_s: float,
    last: NDArray[np.float64],
    hysteresis_s: float,
) -> NDArray[np.float64]:
    """Share each group's headroom over its EVs: charge by least laxity, discharge by most.

    EVs whose laxity ends within the tick are served first, whatever the headroom: their EVSE would
    charge them anyway. What is then left of the headroom charges the others by laxity; if it is
    negative, EVs discharge from the highest laxity down, until it is made up.

    group : (ev,) int64, group of each EV
    headroom : (group,) kW that the group's EVs may draw together; negative asks for discharge
    p_max, p_min : (ev,) kW, limits of each EV; p_min <= 0 <= p_max
    laxity : (ev,) s
    step_s : length of the tick, s
    width_s : range of laxity over which an EV's share falls from 1 to 0, s, above 0
    last, hysteresis_s : (ev,) kW, the power of the tick before, and the laxity by which an EV that
        already charges (or discharges) goes before one that doesn't, s; 0: no preference

    Returns (ev,) kW. An EV that can do nothing (p_max = p_min = 0) gets 0. The headroom is kept to
    rounding wherever those served first leave it, and used to within a millionth of it.
    """
    setpoint = np.zeros(len(group))
    left = headroom.copy()
    up = np.zeros(len(headroom))
    down = np.zeros(len(headroom))
    for ev in range(len(group)):
        if laxity[ev] >= step_s:
            up[group[ev]] += p_max[ev]
            down[group[ev]] -= p_min[ev]
        elif p_max[ev] > 0.0:
            setpoint[ev] = p_max[ev]
            left[group[ev]] -= p_max[ev]
    key = np.empty(len(group))
    weight = np.empty(len(group))
    for ev in range(len(group)):
        room = left[group[ev]]
        key[ev] = laxity[ev] if room > 0.0 else -laxity[ev]
        if hysteresis_s > 0.0 and last[ev] * room > 0.0:
            key[ev] -= hysteresis_s
        weight[ev] = 0.0
        if laxity[ev] >= step_s and room != 0.0:
            weight[ev] = p_max[ev] if room > 0.0 else -p_min[ev]
    target = np.abs(left)
    total = np.where(left > 0.0, up, down)
    level = _thresholds(group, key, weight, target, total, width_s)
    per_s = 1.0 / width_s
    room_kw = target.copy()
    for ev in range(len(group)):
        at = group[ev]
        if weight[ev] > 0.0:
            given = weight[ev]
            if target[at] < total[at]:
                given *= min(max((level[at] - key[ev]) * per_s, 0.0), 1.0)
                given = min(given, room_kw[at])
            room_kw[at] = max(room_kw[at] - given, 0.0)
            setpoint[ev] = given if left[at] > 0.0 else -given
    return setpoint


@njit
def _thresholds(
    group: NDArray[np.int64],
    key: NDArray[np.float64],
    weight: NDArray[np.float64],
    target: NDArray[np.float64],
    total: NDArray[np.float64],
    width_s: float,
) -> NDArray[np.float64]:
    """The level of each group at which ``sum weight · clip((level - key) / width_s, 0, 1) = target``.

    key, weight : (ev,); target, total : (group,), total the sum of the group's weights
    Groups whose target is 0 or at least their total need no level.
    """
    groups = len(target)
    low = np.full(groups, np.inf)
    high = np.full(groups, -np.inf)
    for ev in range(len(group)):
        at = group[ev]
        if weight[ev] > 0.0:
            low[at] = min(low[at], key[ev])
            high[at] = max(high[at], key[ev])
    scale = np.where(high > low, _BINS / (high - low), 0.0)
    binned = np.zeros((groups, _BINS + 1))
    for ev in range(len(group)):
        if weight[ev] > 0.0:
            at = group[ev]
            binned[at, int((key[ev] - low[at]) * scale[at])] += weight[ev]
    origin = low.copy()
    for at in range(groups):
        if 0.0 < target[at] < total[at]:
            before = 0.0
            first = 0
            while first < _BINS and before + binned[at, first] < target[at]:
                before += binned[at, first]
                first += 1
            size = (high[at] - low[at]) / _BINS  # a bin more at each end covers rounding
            high[at] = origin[at] + (first + 2) * size + width_s
            low[at] = origin[at] + (first - 1) * size
    settled = np.zeros(groups)  # of the sum, at the origin: what no longer depends on the search
    waiting = np.zeros(groups, np.int64)
    candidates = np.empty(len(group), np.uint32)
    count = 0
    for ev in range(len(group)):
        at = group[ev]
        if weight[ev] > 0.0 and 0.0 < target[at] < total[at] and key[ev] < high[at]:
            if key[ev] + width_s <= low[at]:
                settled[at] += weight[ev]
            else:
                waiting[at] += 1
                candidates[count] = ev
                count += 1
    per_s = 1.0 / width_s
    slope = np.zeros(groups)
    value = np.empty(groups)
    middle = np.empty(groups)
    while count > 0:
        for at in range(groups):
            middle[at] = 0.5 * (low[at] + high[at])
            value[at] = settled[at] + slope[at] * (middle[at] - origin[at])
        for i in range(count):
            ev = candidates[i]
            at = group[ev]
            value[at] += weight[ev] * min(max((middle[at] - key[ev]) * per_s, 0.0), 1.0)
        for at in range(groups):
            if waiting[at] > 0:
                if value[at] >= target[at]:
                    high[at] = middle[at]
                else:
                    low[at] = middle[at]
        kept = 0
        for i in range(count):
            ev = candidates[i]
            at = group[ev]
            begin = key[ev]
            end = begin + width_s
            if begin < high[at] and end > low[at]:
                if (begin > low[at] or end < high[at]) and high[at] - low[at] > _NARROW_S:
                    candidates[kept] = ev
                    kept += 1
                    continue
                slope[at] += weight[ev] * per_s
                settled[at] += weight[ev] * (origin[at] - begin) * per_s
            elif end <= low[at]:
                settled[at] += weight[ev]
            waiting[at] -= 1
        count = kept
    level = high
    for at in range(groups):
        if slope[at] > 0.0:
            found = origin[at] + (target[at] - settled[at]) / slope[at]
            level[at] = min(max(found, low[at]), high[at])
    return level


@njit
def carry_forward(
    sent: NDArray[np.float64],
    step_s: float,
    plugged: NDArray[np.float64],
    p_max: NDArray[np.float64],
    p_min: NDArray[np.float64],
    energy_needed: NDArray[np.float64],
    time_left: NDArray[np.float64],
    time_needed: NDArray[np.float64],
) -> None:
    """Carry what the EVs reported forward by a tick in which they followed ``sent``; all (ev,), in place.

    The time needed changes in proportion to the energy; an EV that needs no more can't draw, and one
    whose time is over is away.
    """
    for ev in range(len(sent)):
        if plugged[ev] < 0.5:
            continue
        drawn = min(max(sent[ev], p_min[ev]), p_max[ev]) * step_s / 3600.0
        before = energy_needed[ev]
        after = max(before - drawn, 0.0)
        energy_needed[ev] = after
        time_needed[ev] = time_needed[ev] * (after / before) if before > 0.0 else 0.0
        if after <= 0.0:
            p_max[ev] = 0.0
        time_left[ev] = max(time_left[ev] - step_s, 0.0)
        if time_left[ev] <= 0.0:
            plugged[ev] = 0.0
            p_max[ev] = 0.0
            p_min[ev] = 0.0
