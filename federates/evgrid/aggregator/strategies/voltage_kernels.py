"""Control of voltages by the power of EVs, worst place first: arrays in, arrays out.

A *place* is a connection point and phase at which the voltage is known. Voltages are predicted as the
last ones plus sensitivity times the change of the EVs' power since; each change of an EV moves the
prediction at all places, by the coupling of the phases also in the wrong direction. The place with the
largest violation is relieved by one EV, then the next one is looked for. Members are independent, and sums
run in a fixed order, so a member gives the same result on its own as in an ensemble.

Power is in kW at the grid, positive when drawn; voltages in pu.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit

LEAST_EFFECT = 0.1
"""EVs whose effect on a place is less than this share of the greatest are not used to relieve it."""

CLOSE_PU = 1e-7
"""A voltage this close to its limit, pu, counts as within."""

_ROUNDS = 20
"""Most changes per EV and place: a bound that is not reached, since changes that undo each other dwindle."""


@njit
def hold_voltages(
    first: NDArray[np.int64],
    voltage: NDArray[np.float64],
    power: NDArray[np.float64],
    dv_dp: NDArray[np.float64],
    network: NDArray[np.int64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    place: NDArray[np.int64],
    width: NDArray[np.int64],
    want: NDArray[np.float64],
    floor: NDArray[np.float64],
    p_min: NDArray[np.float64],
    p_max: NDArray[np.float64],
    wait_s: NDArray[np.float64],
    step_s: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Power of each EV that holds all voltages between their limits, as close to ``want`` as that allows.

    Low voltages first, by charging less, down to ``floor``, then by discharging, down to ``p_min``; of
    the EVs that have an effect on the lowest place those with the greatest effect times ``wait_s`` come
    first. Then high voltages, by charging more, up to ``p_max``, where effect per ``wait_s`` is greatest,
    as far as no voltage falls below its limit by it.

    first : (member + 1,) row of each member's first EV, and the number of EVs
    voltage : (member, place) last voltages; not above 0: not there, and not held
    power : (member, place) power of the EVs at those voltages
    dv_dp : (network, place, place) change of the voltage (second) per kW drawn (third), pu
    network : (member,) network of each member
    low, high : (member, place) limits
    place, width : (ev,) first place that the EV draws from, and how many in a row, evenly; an EV of
        width 0 has no effect: it is upstream of the feeder, or where there is no voltage
    want, floor, p_min, p_max : (ev,) with p_min <= floor <= want <= p_max; away: all 0
    wait_s : (ev,) time that the EV can wait
    step_s : length of the tick, s, the least time that counts

    Returns the power, (ev,), and whether a place has been relieved from low voltage, (member, place).
    """
    setpoint = want.copy()
    members, places = voltage.shape
    held = np.zeros((members, places), np.bool_)
    ahead = np.empty(places)
    change = np.empty(places)
    waiting = np.empty(places, np.bool_)
    for member in range(members):
        begin, end = first[member], first[member + 1]
        if begin == end:
            continue
        slopes = dv_dp[network[member]]
        for at in range(places):
            change[at] = -power[member, at]
        for ev in range(begin, end):
            for at in range(place[ev], place[ev] + width[ev]):
                change[at] += want[ev] / width[ev]
        for at in range(places):
            ahead[at] = voltage[member, at]
            for other in range(places):
                if change[other] != 0.0:
                    ahead[at] += slopes[at, other] * change[other]
        most = _ROUNDS * (end - begin + places)
        for stage in range(3):
            for at in range(places):
                waiting[at] = voltage[member, at] > 0.0
            for _ in range(most):
                worst = _most_pressing(ahead, low[member] if stage < 2 else high[member], waiting, stage < 2)
                if worst < 0:
                    break
                if stage < 2:
                    held[member, worst] = True
                    bound = floor if stage == 0 else p_min
                else:
                    bound = p_max
                ev, effect = _most_useful(
                    begin, end, worst, slopes, place, width, setpoint, bound, wait_s, step_s, stage < 2
                )
                if ev < 0:
                    waiting[worst] = False
                    continue
                if stage < 2:
                    by = -min(setpoint[ev] - bound[ev], (low[member, worst] - ahead[worst]) / effect)
                else:
                    by = min(bound[ev] - setpoint[ev], (ahead[worst] - high[member, worst]) / effect)
                    room = by
                    for at in range(places):
                        fall = _effect(slopes, at, place[ev], width[ev])
                        if voltage[member, at] > 0.0 and fall * room > 0.0:
                            room = min(room, max(ahead[at] - low[member, at], 0.0) / fall)
                    if (
                        room < by
                    ):  # this one would violate the limit of another place, and so would the others later
                        by = room
                        waiting[worst] = False
                setpoint[ev] += by
                if abs(setpoint[ev] - bound[ev]) < 1e-9:
                    setpoint[ev] = bound[ev]
                for at in range(places):
                    ahead[at] -= _effect(slopes, at, place[ev], width[ev]) * by
    return setpoint, held


@njit
def _most_pressing(
    ahead: NDArray[np.float64], limit: NDArray[np.float64], waiting: NDArray[np.bool_], below: bool
) -> int:
    """The waiting place whose voltage is furthest beyond its limit, or -1."""
    worst, most = -1, CLOSE_PU
    for at in range(len(ahead)):
        if waiting[at]:
            beyond = limit[at] - ahead[at] if below else ahead[at] - limit[at]
            if beyond > most:
                worst, most = at, beyond
    return worst


@njit
def _effect(dv_dp: NDArray[np.float64], at: int, place: int, width: int) -> float:
    """Fall of the voltage at a place per kW that an EV draws, pu."""
    total = 0.0
    for other in range(place, place + width):
        total -= dv_dp[at, other]
    return total / max(width, 1)


@njit
def _most_useful(
    begin: int,
    end: int,
    worst: int,
    dv_dp: NDArray[np.float64],
    place: NDArray[np.int64],
    width: NDArray[np.int64],
    setpoint: NDArray[np.float64],
    bound: NDArray[np.float64],
    wait_s: NDArray[np.float64],
    step_s: float,
    below: bool,
) -> tuple[int, float]:
    """The EV that is next to relieve a place, and its effect, pu per kW; -1 if none can."""
    greatest = 0.0
    for ev in range(begin, end):
        if setpoint[ev] != bound[ev]:
            greatest = max(greatest, _effect(dv_dp, worst, place[ev], width[ev]))
    chosen, best, effect = -1, -1.0, 0.0
    for ev in range(begin, end):
        if setpoint[ev] == bound[ev]:
            continue
        own = _effect(dv_dp, worst, place[ev], width[ev])
        if own <= 0.0 or own < LEAST_EFFECT * greatest:
            continue
        wait = max(wait_s[ev], step_s)
        rank = own * wait if below else own / wait
        if rank > best:
            chosen, best, effect = ev, rank, own
    return chosen, effect
