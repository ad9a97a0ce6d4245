"""The dispatcher again, in plain Python with a sort: the oracle of the kernels.

Rules, signs and units are those of :mod:`evgrid.aggregator.kernels`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from evgrid.aggregator.kernels import ALL, ROUND_TRIP


def share_by_laxity(
    group: Sequence[int],
    headroom: Sequence[float],
    p_max: Sequence[float],
    p_min: Sequence[float],
    time_left: Sequence[float],
    time_needed: Sequence[float],
    step_s: float,
    width_s: float,
    last: Sequence[float],
    hysteresis_s: float = 0.0,
) -> list[float]:
    """Set-points, kW; see :func:`evgrid.aggregator.kernels.share_by_laxity`."""
    setpoint = [0.0] * len(group)
    for row, room in enumerate(headroom):
        own = [ev for ev, at in enumerate(group) if at == row]
        least, most = dict[int, float](), dict[int, float]()
        for ev in own:
            most[ev] = p_max[ev] * min(time_needed[ev], time_left[ev], step_s) / step_s
            later_s = max(time_left[ev] - step_s, 0.0)
            short_s = time_needed[ev] - later_s
            if short_s >= 0:
                least[ev] = min(p_max[ev] * short_s / step_s, most[ev])
            else:
                able = ROUND_TRIP * max(p_max[ev], -p_min[ev]) * -short_s / step_s
                least[ev] = max(-able, p_min[ev])
        must = {ev: max(least[ev], 0.0) for ev in own}
        room -= sum(must.values())
        sign = 1.0 if room > 0 else -1.0
        free = {ev: most[ev] - must[ev] if sign > 0 else must[ev] - least[ev] for ev in own}
        laxity = {ev: max(time_left[ev] - time_needed[ev], 0.0) for ev in own}
        key = [sign * laxity[ev] - hysteresis_s * (sign * last[ev] > 0) for ev in own]
        share = _shares(key, list(free.values()), abs(room), width_s) if own and room else [0.0] * len(own)
        for ev, part in zip(own, share, strict=True):
            drawn = must[ev] + sign * part * free[ev]
            whole = (sign > 0 and part > ALL) or least[ev] >= most[ev]
            setpoint[ev] = p_max[ev] if whole else drawn
    return setpoint


def _shares(key: list[float], limit: list[float], target: float, width_s: float) -> list[float]:
    """Share of each limit: 1 below the level, 0 above it, falling over the width; their sum is the target."""
    if target >= sum(limit):
        return [1.0] * len(key)

    def shares(level: float) -> list[float]:
        return [min(max((level - k) / width_s, 0.0), 1.0) for k in key]

    def given(level: float) -> float:
        return sum(p * s for p, s in zip(limit, shares(level), strict=True))

    corners = sorted({*key, *(k + width_s for k in key)})
    place = bisect_left(corners, target, key=given)
    right, left = corners[place], corners[max(place - 1, 0)]
    low, high = given(left), given(right)
    return shares(left + (right - left) * (target - low) / (high - low) if high > low else right)


def follow(
    wanted: float, sent: float, lost: bool, step_s: float, plugged: bool, p_max: float, p_min: float,
    energy_needed: float, time_left: float, time_needed: float,
) -> tuple[float, float, bool, float, float, float, float, float]:  # fmt: skip
    """Of one EV: what is sent and asked, then its status a tick later, as
    :func:`evgrid.aggregator.kernels.follow` carries it (plugged to time_needed).
    """
    if not plugged:
        return 0.0, 0.0, plugged, p_max, p_min, energy_needed, time_left, time_needed
    sent = sent if lost else wanted
    asked = min(max(sent, p_min), p_max)
    still = max(energy_needed - asked * step_s / 3600.0, 0.0)
    time_needed = time_needed * still / energy_needed if energy_needed > 0.0 else 0.0
    time_left = max(time_left - step_s, 0.0)
    there = time_left > 0.0
    return (
        sent, asked, there, p_max if there and still > 0.0 else 0.0, p_min if there else 0.0, still,
        time_left, time_needed,
    )  # fmt: skip
