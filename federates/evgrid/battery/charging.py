"""How one battery charges and discharges over a time: closed forms, so that no result depends on the tick.

Everything is battery-side (DC) power ``Pb`` inside; the grid side follows from the conversion loss
(:func:`.laws.lost`): charging draws ``Pb + loss`` from the grid, discharging gives ``Pb - loss`` to it.

**Charging** is limited by the kind's charging curve, most battery power against SOC, linear between its
knots; by ``battery_kw``, that of the EVSE's limit; and by the set-point. On each piece of the least of these,
power is constant or linear in SOC, which then approaches or leaves a line exponentially. The curve of a kind
without one of its own is the taper: ``battery_kw`` up to ``taper_soc``, from there on in a straight line to 0
at SOC 1, but never below ``CUT_OFF`` of ``battery_kw``, so that a full battery is reached in finite time.
Charging ends exactly at ``soc_target``, discharging exactly at ``soc_floor``.

**Departure guard.** Each EVSE knows its driver's departure and target.
``laxity = (departure - now) - time to charge from here to the target as fast as possible``.
The EV follows its set-point while laxity is positive. From the moment at which it is zero, found
exactly inside the tick, until departure it charges as fast as it can, whatever the set-point. So
no strategy can lose a departure that was within reach, nor discharge what can't be charged again
in time. Where the target is out of reach at arrival, the EV charges as fast as it can all along.

**Set-point**, kW at the grid, one an EV: +inf (or more than the limit) charges as fast as
possible; a positive one charges at up to that; 0 waits; a negative one discharges at up to that,
if the session may, down to the floor.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.laws import (
    battery_kw_drawn,
    battery_kw_given,
    battery_power_kw,
    held_up_to_soc,
    is_lax,
    lost,
    most_given_kw,
    rise_within,
    square_within,
    stays_within,
    time_to_rise_s,
    wished_kw,
)
from evgrid.battery.records import CURVE, Kinds, Row
from evgrid.core.jit import njit

CUT_OFF = 0.05
"""Least charging power, as a share of ``battery_kw``, to which the taper falls before full."""

SNAP = 1e-11
"""Rounding, in state of charge, within which a guard's charge, which ends at the target, is at the target."""


class Move(NamedTuple):
    """What a battery did over a time.

    soc : at the end
    guarded : 1 if laxity has reached zero
    drawn_kws, given_kws, loss_kws : energy from and to the grid, and conversion loss, none negative
    flowing_s : time that power flowed
    taken_kws : energy that discharging took out of the battery
    square_in, square_out : integrals of the squared battery power while charging and discharging, kW²s
    charging_from_s : when charging began; it comes last, so that SOC turns once at most, from down to up
    """

    soc: float
    guarded: int
    drawn_kws: float
    given_kws: float
    loss_kws: float
    flowing_s: float
    taken_kws: float
    square_in: float
    square_out: float
    charging_from_s: float


@njit
def _segment(curve: Row, soc: float) -> int:
    """Number of the segment of a curve above ``soc``: i is between knots i - 1 and i, 0 below the first."""
    i = 0
    while i < curve["knots"] and curve["soc"][i] <= soc:
        i += 1
    return i


@njit
def _line(kind: Row, curve: Row, i: int) -> tuple[float, float, float]:
    """A segment's line: an SOC on it, the power there, kW, and its slope, kW per SOC."""
    at = min(i, curve["knots"] - 1)
    soc, kw = curve["soc"][at], curve["kw"][at] * kind["curve_kw"]
    if i == 0 or i == curve["knots"]:
        return soc, kw, 0.0
    slope = (curve["kw"][i] - curve["kw"][i - 1]) / (soc - curve["soc"][i - 1]) * kind["curve_kw"]
    return soc, kw, slope


@njit
def charge_limit_kw(kind: Row, curve: Row, soc: float) -> float:
    """Most that the battery takes at a state of charge, kW at the battery; the target is not asked."""
    at, kw, slope = _line(kind, curve, _segment(curve, soc))
    return float(min(kw + slope * (soc - at), kind["battery_kw"]))


@njit
def piece_above(kind: Row, curve: Row, soc: float, most_kw: float) -> tuple[float, float, float]:
    """The next piece of charging at up to ``most_kw`` from ``soc`` on: to which SOC, power here, its slope.

    Power is constant or linear in SOC on it.
    """
    i = _segment(curve, soc)
    end = curve["soc"][i] if i < curve["knots"] else 1.0
    at, kw, slope = _line(kind, curve, i)
    here_kw = kw + slope * (soc - at)
    if slope == 0.0:
        return end, min(here_kw, most_kw), 0.0
    meets = at + (most_kw - kw) / slope
    if slope < 0.0:  # constant up to where the curve falls to it, then along the curve
        if soc < meets:
            return min(end, meets), most_kw, 0.0
        return end, min(here_kw, most_kw), slope
    if soc < meets:
        return min(end, meets), here_kw, slope
    return end, most_kw, 0.0


@njit
def piece_below(kind: Row, curve: Row, soc: float, most_kw: float) -> tuple[float, float, float]:
    """As :func:`piece_above`, the piece that ends at ``soc``: from which SOC, power at ``soc``, its slope."""
    i = 0
    while i < curve["knots"] and curve["soc"][i] < soc:
        i += 1
    begin = curve["soc"][i - 1] if i > 0 else 0.0
    at, kw, slope = _line(kind, curve, i)
    here_kw = kw + slope * (soc - at)
    if slope == 0.0:
        return begin, min(here_kw, most_kw), 0.0
    meets = at + (most_kw - kw) / slope
    if slope > 0.0:
        if soc > meets:
            return max(begin, meets), most_kw, 0.0
        return begin, min(here_kw, most_kw), slope
    if soc > meets:
        return max(begin, meets), here_kw, slope
    return begin, most_kw, 0.0


@njit
def seconds_to_target(kind: Row, curve: Row, soc: float) -> float:
    """Time to charge from ``soc`` to the target as fast as possible, s; 0 at or above the target."""
    target = kind["soc_target"]
    seconds = 0.0
    while soc < target:
        end, here_kw, slope = piece_above(kind, curve, soc, kind["battery_kw"])
        end = min(end, target)
        seconds += time_to_rise_s(end - soc, here_kw, slope, kind["soc_per_kws"])
        soc = end
    return seconds


@njit
def soc_that_reaches(kind: Row, curve: Row, left_s: float) -> float:
    """Least state of charge from which charging as fast as possible reaches the target within ``left_s``.

    The inverse of :func:`seconds_to_target`; 0 where the target is in reach from an empty battery.
    """
    soc = kind["soc_target"]
    while left_s > 0.0 and soc > 0.0:
        begin, here_kw, slope = piece_below(kind, curve, soc, kind["battery_kw"])
        begin = max(begin, 0.0)
        needed_s = -time_to_rise_s(begin - soc, here_kw, slope, kind["soc_per_kws"])
        if needed_s > left_s:
            return float(soc + rise_within(-left_s, here_kw, slope, kind["soc_per_kws"]))
        left_s -= needed_s
        soc = begin
    return float(soc)


@njit
def charge(
    kind: Row, curve: Row, soc: float, battery_kw: float, seconds: float
) -> tuple[float, float, float, float]:
    """Charge for ``seconds`` at up to ``battery_kw`` (> 0, at the battery), to the target at most.

    Returns the state of charge, the time that power flowed (s), and the integrals over it of the
    battery power (kWs) and of its square (kW²s), each in closed form.
    """
    target, most_kw = kind["soc_target"], min(battery_kw, kind["battery_kw"])
    left_s, on_s, first, second = seconds, 0.0, 0.0, 0.0
    while soc < target:
        end, here_kw, slope = piece_above(kind, curve, soc, most_kw)
        end = min(end, target)
        needed_s = time_to_rise_s(end - soc, here_kw, slope, kind["soc_per_kws"])
        span_s = min(needed_s, left_s)
        on_s += span_s
        second += square_within(span_s, here_kw, slope, kind["soc_per_kws"])
        if needed_s > left_s:
            rise = rise_within(span_s, here_kw, slope, kind["soc_per_kws"])
            first += rise / kind["soc_per_kws"]
            soc = min(soc + rise, end)
            break
        first += (end - soc) / kind["soc_per_kws"]
        left_s -= needed_s
        soc = end
    return float(soc), on_s, first, second


@njit
def drawn_kws(kind: Row, on_s: float, first: float, second: float) -> tuple[float, float]:
    """Energy drawn from the grid and loss, kWs, by charging: see :func:`charge` for the integrals."""
    loss = lost(on_s, first, second, kind["charge_a"], kind["charge_b"], kind["charge_c"])
    return first + loss, loss


@njit
def energy_to_target_kwh(kind: Row, curve: Row, soc: float) -> float:
    """Energy that charging from ``soc`` to the target as fast as possible draws, kWh at the grid."""
    _, on_s, first, second = charge(kind, curve, soc, kind["battery_kw"], np.inf)
    return float(drawn_kws(kind, on_s, first, second)[0] / 3600.0)


@njit
def moment_of_zero_laxity(
    kind: Row, curve: Row, soc: float, power_kw: float, span: float, left_s: float
) -> float:
    """When laxity reaches zero while following a set-point, s from now; it is known to, within ``span``.

    ``power_kw``: at the battery, positive charges. Laxity never rises: Newton's method, within what is known
    to hold the moment, else halves of that. Where the curve only falls, laxity is convex (linear below the
    taper: one step), and every step stays on the left.
    """
    now, after = 0.0, span
    following = 0.0
    for _ in range(200):
        then = soc
        power = power_kw
        if power_kw > 0.0:
            then = charge(kind, curve, soc, power_kw, following)[0]
            power = min(power_kw, charge_limit_kw(kind, curve, then))
        elif power_kw < 0.0:
            then = soc + power_kw * kind["soc_per_kws"] * following
        laxity = left_s - following - seconds_to_target(kind, curve, then)
        if laxity < 0.0:
            after = following
        else:
            now = following
        fall = 1.0 - power / charge_limit_kw(kind, curve, then)
        step = following + laxity / fall
        if laxity >= 0.0 and not step > following:
            break
        if not now < step < after:
            step = 0.5 * (now + after)
            if not now < step < after:
                break
        following = step
    return now


@njit
def advance(
    kind: Row, curve: Row, soc: float, setpoint_kw: float, seconds: float, left_s: float, guarded: int
) -> Move:
    """Follow a set-point for ``seconds``, subject to all limits and the departure guard.

    Parameters
    ----------
    kind, curve
        The session's row of KIND, and that of its CURVE.
    soc, setpoint_kw
        State of charge at the beginning, and what is asked.
    seconds
        Length of the window.
    left_s
        Time until departure at the beginning, s, at least ``seconds``.
    guarded
        1 if laxity has reached zero before.

    """
    drawn, given, loss = 0.0, 0.0, 0.0
    flowing_s, taken = 0.0, 0.0
    square_in, square_out = 0.0, 0.0
    charging_from = 0.0
    length = seconds
    target = kind["soc_target"]
    for _ in range(8):
        if soc < target and left_s <= seconds_to_target(kind, curve, soc):
            guarded = 1
        power = 0.0  # at the battery, positive charges
        if guarded or setpoint_kw >= kind["charge_kw"]:
            power = kind["battery_kw"]
        elif setpoint_kw > 0.0:
            power = battery_kw_drawn(setpoint_kw, kind["charge_a"], kind["charge_b"], kind["charge_c"])
        elif soc > kind["soc_floor"]:
            power = -battery_kw_given(
                min(-setpoint_kw, kind["discharge_kw"]),
                kind["discharge_a"], kind["discharge_b"], kind["discharge_c"],
            )  # fmt: skip
        if power > 0.0 and soc >= target:
            power = 0.0
        span = seconds
        stop = -1.0  # state of charge at which discharging is looked at again
        if power < 0.0:
            below = target if soc > target and target > kind["soc_floor"] else kind["soc_floor"]
            needed = (soc - below) / (-power * kind["soc_per_kws"])
            if needed <= span:
                span = needed
                stop = below
        if not guarded:
            then = soc
            if power > 0.0:
                then = charge(kind, curve, soc, power, span)[0]
            elif stop >= 0.0:
                then = stop
            else:
                then = soc + power * kind["soc_per_kws"] * span
            if then < target and left_s - span < seconds_to_target(kind, curve, then):
                span = moment_of_zero_laxity(kind, curve, soc, power, span, left_s)
                guarded = 1
                stop = -1.0
        if power > 0.0:
            soc, on_s, first, second = charge(kind, curve, soc, power, span)
            flowing_s += on_s
            if square_in == 0.0:
                charging_from = length - seconds
            square_in += second
            if guarded and soc < target and target - soc < SNAP:
                soc = target
            drawn_here, lost_here = drawn_kws(kind, on_s, first, second)
            drawn += drawn_here
            loss += lost_here
        elif power < 0.0:
            lost_kw = lost(
                1.0, -power, power * power, kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
            )
            given += (-power - lost_kw) * span
            loss += lost_kw * span
            taken -= power * span
            square_out += power * power * span
            flowing_s += span
            soc = stop if stop >= 0.0 else soc + power * kind["soc_per_kws"] * span
        seconds -= span
        left_s -= span
        if seconds <= 0.0:
            break
    return Move(soc, guarded, drawn, given, loss, flowing_s, taken, square_in, square_out, charging_from)


@njit
def steady_power(
    kind: Row, soc: float, setpoint_kw: float, seconds: float, left_s: float, guarded: int
) -> tuple[bool, float, float, float]:
    """Whether power is surely constant over a window; SOC at its end, power at grid and battery, kW, if so.

    A whole block of EVs at once: :mod:`evgrid.fleet.kernels.steady`.
    """
    power_kw, full = wished_kw(
        np.inf if guarded else setpoint_kw, soc, kind["charge_kw"], kind["discharge_kw"], kind["soc_target"],
        kind["soc_floor"], kind["charge_a"],
    )  # fmt: skip
    into_kw = battery_power_kw(
        power_kw, kind["charge_a"], 1.0 + kind["charge_b"], kind["charge_c"],
        -kind["discharge_a"], 1.0 - kind["discharge_b"], -kind["discharge_c"],
    )  # fmt: skip
    then = soc + into_kw * kind["soc_per_kws"] * seconds
    highest = held_up_to_soc(into_kw, kind["held_kw"], kind["soc_per_kw"], kind["soc_target"])
    steady = stays_within(then, into_kw, highest, kind["soc_floor"]) & is_lax(
        left_s - seconds, then, full, kind["full_charge_s"], kind["s_per_soc"]
    )
    return bool(steady), then, power_kw, into_kw


@njit
def move(
    kind: Row, curve: Row, soc: float, asked_kw: float, seconds: float, left_s: float, guarded: int
) -> Move:
    """:func:`evgrid.battery.charging.advance`, by the short way where power is constant."""
    steady, then, power_kw, into_kw = steady_power(kind, soc, asked_kw, seconds, left_s, guarded)
    if not steady:
        return advance(kind, curve, soc, asked_kw, seconds, left_s, guarded)
    up_kw, down_kw = max(power_kw, 0.0), max(-power_kw, 0.0)
    in_kw, out_kw = max(into_kw, 0.0), max(-into_kw, 0.0)
    return Move(
        then, 1 if guarded else 0, up_kw * seconds, down_kw * seconds, (power_kw - into_kw) * seconds,
        seconds if power_kw != 0.0 else 0.0, out_kw * seconds, in_kw * in_kw * seconds,
        out_kw * out_kw * seconds, 0.0,
    )  # fmt: skip


@njit
def derive_kinds(kinds: Kinds) -> None:
    """Fill the derived constants of the rows of ``kinds``, in place."""
    for i in range(len(kinds.rows)):
        kind = kinds.rows[i]
        curve = kinds.curves[kind["curve"]]
        a, b, c = kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
        if c > 0.0:  # more than the converter can give
            kind["discharge_kw"] = max(min(kind["discharge_kw"], most_given_kw(a, b, c)), 0.0)
        kind["most_out_kw"] = battery_kw_given(kind["discharge_kw"], a, b, c)
        power = battery_kw_drawn(kind["charge_kw"], kind["charge_a"], kind["charge_b"], kind["charge_c"])
        kind["battery_kw"] = power
        kind["curve_kw"] = power if curve["relative"] else 1.0
        kind["soc_per_kws"] = 1.0 / (3600.0 * kind["capacity_kwh"])
        kind["s_per_soc"] = 3600.0 * kind["capacity_kwh"] / power
        _derive_held(kind, curve)
        kind["full_charge_s"] = seconds_to_target(kind, curve, 0.0)
        kind["knee_s"] = seconds_to_target(kind, curve, kind["knee_soc"])


@njit
def _derive_held(kind: Row, curve: Row) -> None:
    """What :func:`.laws.held_up_to_soc` asks; the knee: the last knot at which the curve is at its most."""
    knee = 0
    most_kw = 0.0
    for i in range(curve["knots"]):
        kw = min(curve["kw"][i] * kind["curve_kw"], kind["battery_kw"])
        if kw >= most_kw:
            knee, most_kw = i, kw
    kind["knee_soc"] = curve["soc"][knee]
    held_kw = most_kw
    for i in range(knee):
        held_kw = min(held_kw, curve["kw"][i] * kind["curve_kw"])
    kind["held_kw"] = held_kw
    kind["soc_per_kw"] = 0.0
    for i in range(knee, curve["knots"]):
        kw = min(curve["kw"][i] * kind["curve_kw"], held_kw)
        kind["soc_per_kw"] = max(kind["soc_per_kw"], (1.0 - curve["soc"][i]) / kw)
    kind["full_power_soc"] = min(curve["soc"][knee], kind["soc_target"]) if held_kw == most_kw else 0.0


def tapers(taper_soc: NDArray[np.float64]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """CURVE of each distinct taper, and the row of each of ``taper_soc``, (n,)."""
    distinct, row_of = np.unique(taper_soc, return_inverse=True)
    curves = np.zeros(len(distinct), CURVE)
    curves["knots"], curves["relative"] = 2, 1
    curves["soc"][:, 0], curves["soc"][:, 1] = distinct, 1.0 - CUT_OFF * (1.0 - distinct)
    curves["kw"][:, 0], curves["kw"][:, 1] = 1.0, CUT_OFF
    return curves, row_of.reshape(-1)


@njit
def charge_as_fast_as_possible(
    kinds: Kinds, kind_of: NDArray[np.int32], soc: NDArray[np.float64], seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """State of charge after charging from ``soc`` for ``seconds``, s, without any set-point; all (n,)."""
    after = np.empty_like(soc)
    for i in range(len(soc)):
        kind = kinds.rows[kind_of[i]]
        curve = kinds.curves[kind["curve"]]
        after[i] = charge(kind, curve, soc[i], kind["battery_kw"], seconds[i])[0]
    return after


@njit
def grid_energy_to_target_kwh(
    kinds: Kinds, kind_of: NDArray[np.int32], soc: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Energy that charging from ``soc`` to the target as fast as possible draws, kWh at the grid; (n,)."""
    energy = np.empty_like(soc)
    for i in range(len(soc)):
        kind = kinds.rows[kind_of[i]]
        energy[i] = energy_to_target_kwh(kind, kinds.curves[kind["curve"]], soc[i])
    return energy
