"""The laws of battery and charger, each once: small functions of scalars that all kernels of the fleet call.

Positive power is drawn from the grid. Where a name has no prefix, power in kW, energy in kWs, time in s,
state of charge (SOC) 0 to 1. Those of a tick of constant power have no branches but the choice between two
numbers, so that a loop over EVs that calls them is vectorised; kernels compile all of them in.
"""

from __future__ import annotations

from math import expm1, inf, log1p, sqrt

import numpy as np

from evgrid.core.jit import inlined

REASONS = ("vehicle", "evse", "interconnection", "warranty", "driver", "floor", "departure", "grid")
"""Why a discharge was refused. floor: the vehicle's own; departure: the guard; grid: the EVSE's local
functions, the limits of temperature, or a dead connection point."""

VEHICLE, EVSE, INTERCONNECTION, WARRANTY, DRIVER, FLOOR, DEPARTURE, GRID = range(1, 9)
"""Numbers of REASONS."""

PERMITTED = DRIVER + 1
"""No reason of those that permission is a conjunction of: they are numbered in the order in which they are
asked, so that the first that holds is the least."""

ROUNDING = 1e-12
"""Relative rounding within which a set-point is that of a pilot's step, and a cap is used up."""

LEAST_REFUSED = 1e-9
"""Share of what was asked from which on what was not given counts as refused."""


STAIRS = 10
"""Steps of the ramp on which a source or an EVSE returns to service."""

NO_POWER_KW = 1e-9
"""Power at the grid, kW, up to which none flows: a set-point that rounding left above 0 doesn't cost the
converter's constant loss."""

LEAST_SOC = 0.05
"""State of charge below which nobody comes home from a drive."""


# Conversion losses


@inlined
def converted_kw(net_kw: float, slope: float, curvature: float) -> float:
    """Root Pb of ``slope Pb + curvature Pb**2 = net_kw``, kW, nearest to 0.

    Written without cancellation; exact for ``curvature`` = 0. Beyond the maximum of a falling parabola
    (``curvature`` < 0) the root's real part times two: callers keep below it.
    """
    root = sqrt(max(slope * slope + 4.0 * curvature * net_kw, 0.0))
    return 2.0 * net_kw / (slope + root)


@inlined
def battery_kw_drawn(grid_kw: float, a: float, b: float, c: float) -> float:
    """Power into the battery, kW, when ``grid_kw`` >= 0 is drawn; 0 where the loss eats it all.

    The loss is ``a + b Pb + c Pb**2`` (kW; a in kW, c in 1/kW) while Pb > 0, so that
    ``Pb + a + b Pb + c Pb**2 = grid_kw``.
    """
    into_kw = converted_kw(grid_kw - a, 1.0 + b, c)
    return into_kw if grid_kw > max(a, NO_POWER_KW) else 0.0


@inlined
def most_given_kw(a: float, b: float, c: float) -> float:
    """Most that a converter can give to the grid, kW: the maximum of ``Pb - a - b Pb - c Pb**2`` over Pb."""
    return (1.0 - b) * (1.0 - b) / (4.0 * c) - a


@inlined
def battery_kw_given(grid_kw: float, a: float, b: float, c: float) -> float:
    """Power out of the battery, kW (>= 0), when ``grid_kw`` >= 0 is given to the grid; 0 for 0.

    The lesser root of ``Pb - (a + b Pb + c Pb**2) = grid_kw``. More than the converter can give is taken for
    the most that it can.
    """
    net_kw = min(grid_kw, most_given_kw(a, b, c)) + a
    out_kw = converted_kw(net_kw, 1.0 - b, -c)
    return out_kw if grid_kw > NO_POWER_KW else 0.0


@inlined
def lost(on_s: float, first: float, second: float, a: float, b: float, c: float) -> float:
    """Conversion loss, kWs, while power flows for ``on_s``.

    ``first``, ``second``: integrals of the battery power, kWs, and of its square, kW²s. With 1, Pb and Pb**2:
    the loss in kW.
    """
    return a * on_s + b * first + c * second


# Charging along a piece of a charging curve, on which the most power is linear in SOC: dsoc/dt = k P(soc)


@inlined
def time_to_rise_s(rise: float, here_kw: float, kw_per_soc: float, soc_per_kws: float) -> float:
    """Time in which SOC rises by ``rise``, s, at ``P = here_kw + kw_per_soc (soc - soc_here)``.

    ``ln(P_end / P_here) / (kw_per_soc k)``, or ``rise / (k P)`` at a constant power.
    """
    if kw_per_soc == 0.0:
        return rise / (here_kw * soc_per_kws)
    return log1p(kw_per_soc * rise / here_kw) / (kw_per_soc * soc_per_kws)


@inlined
def rise_within(seconds: float, here_kw: float, kw_per_soc: float, soc_per_kws: float) -> float:
    """Rise of SOC within ``seconds``: the inverse of :func:`time_to_rise_s`; negative before now."""
    if kw_per_soc == 0.0:
        return here_kw * soc_per_kws * seconds
    return here_kw * expm1(kw_per_soc * soc_per_kws * seconds) / kw_per_soc


@inlined
def square_within(seconds: float, here_kw: float, kw_per_soc: float, soc_per_kws: float) -> float:
    """Integral of P**2 over ``seconds``, kW²s, on such a piece: ``P`` grows as ``exp(kw_per_soc k t)``."""
    rate = kw_per_soc * soc_per_kws
    if rate == 0.0:
        return here_kw * here_kw * seconds
    return here_kw * here_kw * expm1(2.0 * rate * seconds) / (2.0 * rate)


# A tick of constant power


@inlined
def within_rating(setpoint_kw: float, charge_kw: float, discharge_kw: float) -> tuple[float, float]:
    """Power drawn and given, kW, both >= 0 and one of them 0, of a set-point within the EVSE's limits."""
    return min(max(setpoint_kw, 0.0), charge_kw), min(max(-setpoint_kw, 0.0), discharge_kw)


@inlined
def wished_kw(
    setpoint_kw: float, soc: float, charge_kw: float, discharge_kw: float, soc_target: float, soc_floor:
    float, charge_a: float,
) -> tuple[float, bool]:  # fmt: skip
    """Grid power, kW, with which an EV begins a tick under a set-point, and whether that is the EVSE's most.

    None is drawn at the target, nor less than the constant loss ``charge_a``; none is given at the floor.
    """
    up_kw, down_kw = within_rating(setpoint_kw, charge_kw, discharge_kw)
    full = up_kw == charge_kw
    up_kw = up_kw if (soc < soc_target) & (up_kw > max(charge_a, NO_POWER_KW)) else 0.0
    down_kw = down_kw if (soc > soc_floor) & (down_kw > NO_POWER_KW) else 0.0
    return up_kw - down_kw, full


@inlined
def battery_power_kw(
    power_kw: float, in_a: float, in_slope: float, in_c: float, out_a: float, out_slope: float, out_c: float
) -> float:  # fmt: skip
    """Battery power, kW, positive charges, at a constant grid power; the loss is what is between the two.

    As :func:`battery_kw_drawn` and :func:`battery_kw_given`, in one: with the coefficients of
    ``slope Pb + c Pb**2 = |power| - a``, those of discharging being ``-a, 1 - b, -c``.
    """
    charges = power_kw > 0.0
    size_kw = abs(power_kw)
    net_kw = size_kw - (in_a if charges else out_a)
    inner_kw = converted_kw(net_kw, in_slope if charges else out_slope, in_c if charges else out_c)
    inner_kw = inner_kw if (size_kw > NO_POWER_KW) & (net_kw > 0.0) else 0.0
    return inner_kw if charges else -inner_kw


@inlined
def held_up_to_soc(into_kw: float, held_kw: float, soc_per_kw: float, soc_target: float) -> float:
    """SOC up to which a constant battery power can be drawn: the target, or where the curve falls to it.

    ``1 - into_kw soc_per_kw`` is a line below the curve where that falls, up to ``held_kw``; more than that
    is left to the exact way (0).
    """
    highest = min(1.0 - into_kw * soc_per_kw, soc_target)
    return highest if into_kw <= held_kw else 0.0


@inlined
def stays_within(soc: float, into_kw: float, highest: float, lowest: float) -> bool:
    """Whether SOC at the tick's end, after a constant battery power, is within what bounds its way."""
    return ((into_kw > 0.0) & (soc <= highest)) | ((into_kw < 0.0) & (soc >= lowest)) | (into_kw == 0.0)


@inlined
def is_lax(left_s: float, soc: float, full: bool, full_charge_s: float, s_per_soc: float) -> bool:
    """Whether laxity is surely positive ``left_s`` before the departure at an SOC, or doesn't matter.

    The time needed to the target is at most ``full_charge_s``, that from 0, less ``soc s_per_soc``, at the
    most power: exact while the charging curve is at its most. It doesn't matter to one that charges at the
    EVSE's most.
    """
    return full | (left_s > full_charge_s - soc * s_per_soc)


# The EVSE


@inlined
def on_pilot_kw(
    setpoint_kw: float, phases: float, a_per_kw: float, least_a: float, steps_per_a: float, step_kw: float
) -> float:
    """Set-point to charge as the EVSE's pilot can signal it, kW: 0 below the least current, else a step.

    ``a_per_kw``, ``step_kw``: current per power, and power of a step, on one phase; ``step_kw`` = 0: any
    current. Set-points that are not positive, and +inf, stay as they are. See :func:`pilot_of`.
    """
    amperes = setpoint_kw * a_per_kw * (1.0 / 3.0 if phases == 3.0 else 1.0)
    cut_kw = np.floor(amperes * steps_per_a) * (step_kw * phases)
    cut_kw = setpoint_kw if step_kw == 0.0 else cut_kw
    cut_kw = 0.0 if amperes < least_a else cut_kw
    return cut_kw if setpoint_kw > 0.0 else setpoint_kw


@inlined
def pilot_of(volt: float, step_a: float) -> tuple[float, float, float]:
    """What :func:`on_pilot_kw` takes of an EVSE: ``a_per_kw``, ``steps_per_a``, ``step_kw``.

    ``volt``: phase to neutral, nominal. A set-point that is a step's but for rounding is that step's.
    """
    return 1000.0 / volt * (1.0 + ROUNDING), 1.0 / step_a, step_a * volt / 1000.0


@inlined
def ramped_kw(now_kw: float, goal_kw: float, reach_kw: float, per_reach: float) -> tuple[float, float]:
    """Mean over a time, and value at its end, of what moves to a finite goal at a limited speed.

    ``reach_kw``: most by which it moves in the time, with its reciprocal, 1/kW. While under way, for a share
    of the time, it is short of the goal by half its way on the mean.
    """
    way_kw = goal_kw - now_kw
    share = abs(way_kw) * per_reach
    end_kw = now_kw + (reach_kw if way_kw > 0.0 else -reach_kw)
    end_kw = end_kw if share >= 1.0 else goal_kw
    return 0.5 * (now_kw + end_kw) if share >= 1.0 else goal_kw - 0.5 * way_kw * share, end_kw


@inlined
def standby_kws(standby_kw: float, seconds: float, flowing_s: float) -> float:
    """Standby consumption, kWs, of the time in which no power flows."""
    return standby_kw * (seconds - flowing_s)


# Driving


@inlined
def soc_after_drive(soc: float, drive_kwh: float, capacity_kwh: float) -> float:
    """State of charge with which an EV comes home that left with ``soc``."""
    return max(LEAST_SOC, soc - drive_kwh / capacity_kwh)


# Permission to discharge


@inlined
def refusal(
    never: float, discharge_kw: float, out_kws: float, discharging_s: float, cap_kws: float, cap_s: float,
    willing: bool,
) -> float:  # fmt: skip
    """The first reason (a number of REASONS) for which an EV may not discharge now; PERMITTED if it may.

    ``never``: the reason for which it never may, 0 if there is none; ``out_kws``, ``discharging_s``: energy
    and time of its discharging over the run, with their caps, the warranty's; ``discharge_kw`` = 0: the EVSE
    can't. Floors are not asked.
    """
    reason = never if never > 0.0 else float(PERMITTED)
    reason = min(reason, float(EVSE) if discharge_kw == 0.0 else float(PERMITTED))
    spent = (out_kws >= cap_kws * (1.0 - ROUNDING)) | (discharging_s >= cap_s)
    reason = min(reason, float(WARRANTY) if spent else float(PERMITTED))
    return min(reason, float(PERMITTED) if willing else float(DRIVER))


@inlined
def refused_kw(wanted_kw: float, given_kw: float) -> float:
    """What of a discharge was asked for and not given, kW; 0 within rounding."""
    missing_kw = wanted_kw - given_kw
    return missing_kw if missing_kw > LEAST_REFUSED * wanted_kw else 0.0


@inlined
def is_willing(hour: float, from_h: float, until_h: float) -> bool:
    """Whether a driver lets discharge at a local hour, 0 to 24, between two hours; 0 and 24: all day.

    A window whose begin is the later one goes over midnight.
    """
    inside = (from_h <= hour) & (hour < until_h)
    over_midnight = (hour >= from_h) | (hour < until_h)
    return inside if from_h <= until_h else over_midnight


# Return to service


@inlined
def share_on_stair(stair: float) -> float:
    """Share of its greatest power that a source or an EVSE has on a step of its ramp, 0 to STAIRS - 1.

    The mean of a linear ramp over the step: energies are those of the linear ramp.
    """
    return (stair + 0.5) / STAIRS


# Temperature


@inlined
def cold_limit_kw(
    cell_c: float, capacity_kwh: float, freezing_c: float, mild_c: float, cold_c_rate: float, mild_c_rate:
    float
) -> float:  # fmt: skip
    """Most charging power at the battery in the cold, kW: none below freezing, by C-rate up to ``mild_c``."""
    share = (cell_c - freezing_c) * (1.0 / (mild_c - freezing_c))
    limit_kw = (cold_c_rate + share * (mild_c_rate - cold_c_rate)) * capacity_kwh
    limit_kw = 0.0 if cell_c < freezing_c else limit_kw
    return inf if cell_c >= mild_c else limit_kw


@inlined
def heat_derating(cell_c: float, warm_c: float, hot_c: float) -> float:
    """Share of battery power, both ways, left in the heat: 1 up to ``warm_c``, 0 from ``hot_c`` on."""
    share = max((hot_c - cell_c) / (hot_c - warm_c), 0.0)
    return share if cell_c > warm_c else 1.0


@inlined
def cell_above_k(before_k: float, loss_kw: float, heating_k_per_kw: float, left: float) -> float:
    """Rise of the cell above an idle car's at the tick's end, K: a first-order lag to what the loss gives.

    ``left``: share of a deviation that is left at the end, ``exp(-seconds / time constant)``.
    """
    goal_k = heating_k_per_kw * loss_kw
    return goal_k + (before_k - goal_k) * left
