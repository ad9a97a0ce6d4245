"""Local functions of an EVSE in a tick: curves, response time, limits, trips, entering service.

In: voltage (pu), frequency (Hz) and the active power that the charger would draw (kW), each held over
the tick. Out: active power (kW) and reactive power (kvar), mean over the tick; the values at its end
are kept in the state. Signs: positive P and Q are drawn from the grid, so that discharge is negative P and
injected reactive power, which raises the voltage, is negative Q. The tables of the standards count
injected Q as positive; :mod:`evgrid.scenario.inverter_functions` converts them, once.

**Functions.** Reactive power by voltage (volt-var), by active power (watt-var) or as a share of it
(constant power factor). Volt-watt limits what is *exported* at high voltage; it neither starts
charging nor limits it. Charging has a limit curve of its own, off unless the user gives one.
Frequency-watt shifts active power up or down from the set-point, within the limits of the moment.

**Response.** Each of the four responses (reactive power, export limit, charging limit, frequency shift)
approaches the value of its curve as a first-order lag, ``x(t) = target + (x(0) - target) exp(-rate t)``,
``rate = ln(10) / T``, so that 90 % of a step is reached at its response time ``T``, for any tick.
Set-points, the limits of the charger and of the battery, and the power factor act at once. The lag of
watt-var takes the active power that P settles at, not its transient.

**Capability.** ``P**2 + Q**2 <= S**2``: watt priority cuts Q, var priority cuts P.

**Trips.** A voltage or frequency beyond a threshold for its clearing time ceases to energise: P = Q = 0.
Equal to the threshold is not beyond it. Time beyond accumulates from tick to tick and restarts once
the value is back; it trips at the clearing time, the latest that a standard allows. Until then the
charger rides through in normal operation: momentary cessation and dynamic voltage support are left out.

**Entering service.** Off, it waits until voltage and frequency were healthy for the delay without a
break, then power is limited to a ramp, linear from zero to rated, in both directions. A dead connection
point (or NaN for voltage or frequency) switches off at once.

**Mean over the tick.** Events (trip, entering service, end of the ramp) split the tick exactly. Where
one quantity moves, the mean is a closed form, with the moments found at which limits begin and cease to
bind. Where several move and bind each other (such as Q under a limit that follows a moving P), the
moments are found by bisection and the smooth pieces between them integrated by Gauss-Legendre. What comes
second, within sqrt(S**2 - the square of what has priority), is then known to 2e-9 of S where the latter stays
below 96 % of S, and to 1e-7 where it uses up S.

Arrays and numbers only. ``PARAMETERS`` holds the constants of a kind of charger, ``STATE`` the state of one
charger; zeros are a charger in service at its set-point.
"""

from __future__ import annotations

from math import exp, expm1, inf, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import inlined, njit

POINTS = 8
"""Most points of a curve."""

UNITY, VOLT_VAR, WATT_VAR, POWER_FACTOR = 0, 1, 2, 3
"""Values of ``reactive``: source of reactive power."""

IN_SERVICE, RAMPING, OFF = 0, 1, 2
"""Values of ``mode``."""

REST = 1e-14
"""Deviation, kW, kvar or a share, at which a response has come to rest."""

TRIPS = 8
"""Thresholds: two each of over-voltage, under-voltage, over-frequency, under-frequency."""

PARAMETERS = np.dtype(
    [
        ("reactive", "i4"),
        ("var_priority", "i4"),  # 0: watt priority
        ("limits_export", "i4"),  # 1 with a volt-watt curve
        ("limits_charging", "i4"),  # 1 with a limit curve for charging
        ("s_kva", "f8"),  # rated apparent power
        ("charge_kw", "f8"),  # rated power drawn
        ("discharge_kw", "f8"),  # rated power given, 0: one-directional
        ("reactive_at", "f8", (POINTS,)),  # voltage (pu), or power per rated power, positive drawn
        ("reactive_kvar", "f8", (POINTS,)),  # positive drawn
        ("reactive_rate", "f8"),  # 1/s, inf: at once
        ("kvar_per_kw", "f8"),  # of constant power factor, positive drawn
        ("export_at", "f8", (POINTS,)),  # voltage, pu
        ("export_cut", "f8", (POINTS,)),  # share of discharge_kw withheld, 0 to 1
        ("export_rate", "f8"),
        ("charging_at", "f8", (POINTS,)),  # voltage, pu
        ("charging_cut", "f8", (POINTS,)),  # share of charge_kw withheld, 0 to 1
        ("charging_rate", "f8"),
        ("droop_high_hz", "f8"),  # end of the deadband
        ("droop_low_hz", "f8"),
        ("over_kw_per_hz", "f8"),  # 0: off
        ("under_kw_per_hz", "f8"),
        ("droop_rate", "f8"),
        ("trip_level", "f8", (TRIPS,)),  # pu, pu, pu, pu, Hz, Hz, Hz, Hz; +-inf: none
        ("trip_s", "f8", (TRIPS,)),  # clearing times
        ("trip_low_pu", "f8"),  # innermost thresholds
        ("trip_high_pu", "f8"),
        ("trip_low_hz", "f8"),
        ("trip_high_hz", "f8"),
        ("normal_low_pu", "f8"),  # voltages at which no trip counts and no curve limits active power
        ("normal_high_pu", "f8"),
        ("enter_low_pu", "f8"),
        ("enter_high_pu", "f8"),
        ("enter_low_hz", "f8"),
        ("enter_high_hz", "f8"),
        ("enter_delay_s", "f8"),
        ("ramp_s", "f8"),
        # set by prepare
        ("tick_s", "f8"),
        ("reactive_left", "f8"),  # of a deviation, at the end of a tick
        ("reactive_mean", "f8"),  # of a deviation, mean over the tick
        ("droop_left", "f8"),
        ("droop_mean", "f8"),
    ],
    align=True,
)
"""Constants of a kind of charger."""

STATE = np.dtype(
    [
        ("reactive_kvar", "f8"),  # response of volt-var or watt-var, before the limit by S
        ("export_cut", "f8"),  # response of volt-watt, share of discharge_kw withheld
        ("charging_cut", "f8"),  # response of the limit to charging
        ("droop_kw", "f8"),  # response of frequency-watt
        ("clock_s", "f8"),  # off: healthy for so long; ramping: in service for so long
        ("p_kw", "f8"),  # at the end of the tick
        ("q_kvar", "f8"),
        ("mode", "i4"),
        ("timing", "i4"),  # 1 while a threshold is exceeded
        ("beyond_s", "f8", (TRIPS,)),  # time beyond each threshold
    ],
    align=True,
)
"""State of a charger: 64 bytes, and 64 more while a threshold is exceeded."""

Row = Any
"""A row of PARAMETERS or STATE."""

_SWITCHES = 32
_roots, _weights = np.polynomial.legendre.leggauss(16)
_u = (_roots + 1.0) / 2.0
NODES: NDArray[np.float64] = _u * _u * (3.0 - 2.0 * _u)
"""Sampling points of a smooth piece: Gauss-Legendre after t = 3 u**2 - 2 u**3, which makes an end at which
a square root vanishes smooth."""
WEIGHTS: NDArray[np.float64] = 3.0 * _weights * _u * (1.0 - _u)


@njit
def on_curve(x: float, at: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Piecewise-linear through points in ascending order, constant beyond the first and the last."""
    if x <= at[0]:
        return float(values[0])
    for i in range(1, POINTS):
        if x < at[i]:
            share = (x - at[i - 1]) / (at[i] - at[i - 1])
            return float(values[i - 1] + share * (values[i] - values[i - 1]))
    return float(values[POINTS - 1])


@njit
def lagged(start: float, target: float, rate: float, seconds: float) -> float:
    """First-order lag after ``seconds`` (> 0); an infinite rate is at its target at once.

    It ends at its target, within rounding, so that it comes to rest.
    """
    left = (start - target) * exp(-rate * seconds)
    if abs(left) < REST:
        return target
    return target + left


@njit
def lagged_mean(start: float, target: float, rate: float, seconds: float, low: float, high: float) -> float:
    """Mean over ``seconds`` (> 0) of a first-order lag that is clipped to ``low`` to ``high``.

    The lag is monotone: it enters the band at most once and leaves it at most once.
    """
    if start == target or rate == inf:
        return min(max(target, low), high)
    end = lagged(start, target, rate, seconds)
    if low <= start <= high and low <= end <= high:
        x = rate * seconds
        return target + (start - target) * (-expm1(-x) / x)
    from_value = min(max(start, low), high)
    to_value = min(max(end, low), high)
    if from_value == to_value:
        return from_value
    entry = 0.0
    if from_value != start:
        entry = log((start - target) / (from_value - target)) / rate
    leaving = seconds
    if to_value != end:
        leaving = min(log((start - target) / (to_value - target)) / rate, seconds)
    inside = target * (leaving - entry) + (from_value - to_value) / rate
    return (from_value * entry + inside + to_value * (seconds - leaving)) / seconds


@inlined
def first_order(before: float, target: float, left: float, mean: float) -> tuple[float, float, float]:
    """Value at the begin of a tick, at its end, and mean over it, of a first-order lag from ``before``.

    ``left``, ``mean``: share of a deviation that remains at the end, and in the mean over the tick; 0:
    without lag.
    """
    off = before - target if mean != 0.0 else 0.0
    rest = off * left
    return target + off, target + (rest if abs(rest) >= REST else 0.0), target + off * mean


@inlined
def frequency_shift_kw(
    frequency_hz: float, high_hz: float, low_hz: float, over_kw_per_hz: float, under_kw_per_hz: float
) -> float:
    """See :func:`droop_target_kw`."""
    over_kw = max(frequency_hz - high_hz, 0.0) * over_kw_per_hz
    return over_kw + min(frequency_hz - low_hz, 0.0) * under_kw_per_hz


@njit
def droop_target_kw(parameters: Row, frequency_hz: float) -> float:
    """Shift of active power by frequency, kW; positive draws more (high frequency).

    IEEE 1547-2018, 6.5.2.7: ``(f - (f0 + db)) / (f0 k)`` of rated power above the deadband,
    ``((f0 - db) - f) / (f0 k)`` of it, injected, below.
    """
    return frequency_shift_kw(
        frequency_hz, parameters["droop_high_hz"], parameters["droop_low_hz"],
        parameters["over_kw_per_hz"], parameters["under_kw_per_hz"],
    )  # fmt: skip


@njit
def within_capability(parameters: Row, p_kw: float, q_kvar: float) -> tuple[float, float]:
    """P and Q cut to ``P**2 + Q**2 <= S**2`` by watt or var priority.

    With a constant power factor, Q is made from P, and var priority keeps the power factor.
    """
    s = parameters["s_kva"]
    if parameters["reactive"] == POWER_FACTOR:
        tangent = parameters["kvar_per_kw"]
        if parameters["var_priority"]:
            limit = s / sqrt(1.0 + tangent * tangent)
            p_kw = min(max(p_kw, -limit), limit)
            return p_kw, tangent * abs(p_kw)
        q_kvar = tangent * abs(p_kw)
    if parameters["var_priority"]:
        q_kvar = min(max(q_kvar, -s), s)
        limit = sqrt(max(s * s - q_kvar * q_kvar, 0.0))
        return min(max(p_kw, -limit), limit), q_kvar
    p_kw = min(max(p_kw, -s), s)
    limit = sqrt(max(s * s - p_kw * p_kw, 0.0))
    return p_kw, min(max(q_kvar, -limit), limit)


@njit
def _settled_kw(
    parameters: Row, base_kw: float, droop_kw: float, export_cut: float, charging_cut: float,
    p_low_kw: float, p_high_kw: float,
) -> float:  # fmt: skip
    low = max(p_low_kw, (export_cut - 1.0) * parameters["discharge_kw"])
    high = min(p_high_kw, (1.0 - charging_cut) * parameters["charge_kw"])
    return float(min(max(base_kw + droop_kw, low), high))


@njit
def _at(
    parameters: Row, seconds: float, base_kw: float, p_low_kw: float, p_high_kw: float,
    reactive: float, reactive_target: float, droop: float, droop_target: float,
    export: float, export_target: float, charging: float, charging_target: float,
    ramp: float, ramp_per_s: float,
) -> tuple[float, float, int]:  # fmt: skip
    """P and Q at a moment of a span, and a number that tells which limits bind."""
    if seconds > 0.0:
        reactive = lagged(reactive, reactive_target, parameters["reactive_rate"], seconds)
        droop = lagged(droop, droop_target, parameters["droop_rate"], seconds)
        export = lagged(export, export_target, parameters["export_rate"], seconds)
        charging = lagged(charging, charging_target, parameters["charging_rate"], seconds)
        ramp = ramp + ramp_per_s * seconds
    code = 0
    low = p_low_kw
    cut = (export - 1.0) * parameters["discharge_kw"]
    if cut > low:
        low = cut
        code += 1
    cut = -ramp * parameters["discharge_kw"]
    if cut > low:
        low = cut
        code += 2
    high = p_high_kw
    cut = (1.0 - charging) * parameters["charge_kw"]
    if cut < high:
        high = cut
        code += 4
    cut = ramp * parameters["charge_kw"]
    if cut < high:
        high = cut
        code += 8
    p = base_kw + droop
    if p < low:
        p = low
        code += 16
    elif p > high:
        p = high
        code += 32
    if p > 0.0:
        code += 64
    p_cut, q = within_capability(parameters, p, reactive)
    if p_cut != p:
        code += 128
    wanted = reactive
    if parameters["reactive"] == POWER_FACTOR:
        wanted = parameters["kvar_per_kw"] * abs(p_cut)
    if q != wanted:
        code += 256
        if q > 0.0:
            code += 512
    return p_cut, q, code


@njit
def _integrals(
    parameters: Row, seconds: float, base_kw: float, p_low_kw: float, p_high_kw: float,
    reactive: float, reactive_target: float, droop: float, droop_target: float,
    export: float, export_target: float, charging: float, charging_target: float,
    ramp: float, ramp_per_s: float,
) -> tuple[float, float]:  # fmt: skip
    """Integrals of P (kWs) and Q (kvars) over a span in which several quantities move."""
    fastest = 0.0
    if reactive != reactive_target:
        fastest = max(fastest, parameters["reactive_rate"])
    if droop != droop_target:
        fastest = max(fastest, parameters["droop_rate"])
    if export != export_target:
        fastest = max(fastest, parameters["export_rate"])
    if charging != charging_target:
        fastest = max(fastest, parameters["charging_rate"])
    p_kws = 0.0
    q_kvars = 0.0
    start = 0.0
    switches = 0
    code = _at(
        parameters, 0.0, base_kw, p_low_kw, p_high_kw, reactive, reactive_target, droop, droop_target,
        export, export_target, charging, charging_target, ramp, ramp_per_s,
    )[2]  # fmt: skip
    while start < seconds:
        # Pieces as short as the fastest lag at first, then growing, as the fast lags die away.
        end = seconds
        if fastest > 0.0:
            end = min(start + max(1.0 / fastest, 0.5 * start), seconds)
        following = end
        end_code = _at(
            parameters, end, base_kw, p_low_kw, p_high_kw, reactive, reactive_target, droop, droop_target,
            export, export_target, charging, charging_target, ramp, ramp_per_s,
        )[2]  # fmt: skip
        if end_code != code and switches < _SWITCHES:
            switches += 1
            low = start
            high = end
            for _ in range(60):
                middle = 0.5 * (low + high)
                if not low < middle < high:
                    break
                middle_code = _at(
                    parameters, middle, base_kw, p_low_kw, p_high_kw, reactive, reactive_target,
                    droop, droop_target, export, export_target, charging, charging_target,
                    ramp, ramp_per_s,
                )[2]  # fmt: skip
                if middle_code == code:
                    low = middle
                else:
                    high = middle
                    end_code = middle_code
            end = low
            following = high
        length = end - start
        for i in range(len(NODES)):
            p, q, _ = _at(
                parameters, start + length * NODES[i], base_kw, p_low_kw, p_high_kw,
                reactive, reactive_target, droop, droop_target, export, export_target,
                charging, charging_target, ramp, ramp_per_s,
            )  # fmt: skip
            p_kws += length * WEIGHTS[i] * p
            q_kvars += length * WEIGHTS[i] * q
        code = end_code
        start = following
    return p_kws, q_kvars


@njit
def _operate(
    parameters: Row, state: Row, voltage_pu: float, frequency_hz: float, p_wanted_kw: float,
    p_low_kw: float, p_high_kw: float, seconds: float, ramping: bool,
) -> tuple[float, float]:  # fmt: skip
    """Operate for a span without events; returns the integrals of P (kWs) and Q (kvars)."""
    base = min(max(p_wanted_kw, p_low_kw), p_high_kw)
    droop = state["droop_kw"]
    droop_target = droop_target_kw(parameters, frequency_hz)
    export = 0.0
    export_target = 0.0
    if parameters["limits_export"]:
        export = state["export_cut"]
        export_target = on_curve(voltage_pu, parameters["export_at"], parameters["export_cut"])
    charging = 0.0
    charging_target = 0.0
    if parameters["limits_charging"]:
        charging = state["charging_cut"]
        charging_target = on_curve(voltage_pu, parameters["charging_at"], parameters["charging_cut"])
    reactive = state["reactive_kvar"]
    reactive_target = 0.0
    mode = parameters["reactive"]
    if mode == VOLT_VAR:
        reactive_target = on_curve(voltage_pu, parameters["reactive_at"], parameters["reactive_kvar"])
    elif mode == WATT_VAR:
        settled = _settled_kw(
            parameters, base, droop_target, export_target, charging_target, p_low_kw, p_high_kw
        )
        rated = parameters["charge_kw"] if settled > 0.0 else parameters["discharge_kw"]
        share = settled / rated if settled != 0.0 else 0.0
        reactive_target = on_curve(share, parameters["reactive_at"], parameters["reactive_kvar"])
    # A response without a lag is at its target from the beginning.
    if parameters["droop_rate"] == inf:
        droop = droop_target
    if parameters["export_rate"] == inf:
        export = export_target
    if parameters["charging_rate"] == inf:
        charging = charging_target
    if parameters["reactive_rate"] == inf:
        reactive = reactive_target
    droop_end = lagged(droop, droop_target, parameters["droop_rate"], seconds)
    export_end = lagged(export, export_target, parameters["export_rate"], seconds)
    charging_end = lagged(charging, charging_target, parameters["charging_rate"], seconds)
    reactive_end = lagged(reactive, reactive_target, parameters["reactive_rate"], seconds)
    state["droop_kw"] = droop_end
    state["export_cut"] = export_end
    state["charging_cut"] = charging_end
    state["reactive_kvar"] = reactive_end

    if ramping:
        per_s = 1.0 / parameters["ramp_s"]
        ramp = state["clock_s"] * per_s
        p, q, _ = _at(
            parameters, seconds, base, p_low_kw, p_high_kw, reactive, reactive_target,
            droop, droop_target, export, export_target, charging, charging_target, ramp, per_s,
        )  # fmt: skip
        state["p_kw"] = p
        state["q_kvar"] = q
        return _integrals(
            parameters, seconds, base, p_low_kw, p_high_kw, reactive, reactive_target,
            droop, droop_target, export, export_target, charging, charging_target, ramp, per_s,
        )  # fmt: skip

    p_start = _settled_kw(parameters, base, droop, export, charging, p_low_kw, p_high_kw)
    p_end = _settled_kw(parameters, base, droop_end, export_end, charging_end, p_low_kw, p_high_kw)
    p, q = within_capability(parameters, p_end, reactive_end)
    state["p_kw"] = p
    state["q_kvar"] = q

    droop_moves = droop != droop_target
    cut_moves = export != export_target or charging != charging_target
    p_moves = droop_moves or (cut_moves and p_start != p_end)
    q_moves = reactive != reactive_target
    if not p_moves and not q_moves:
        return p * seconds, q * seconds

    # Closed forms, while at most one quantity moves P and neither P nor Q moves the other's limit.
    s = parameters["s_kva"]
    p_most = max(abs(p_start), abs(p_end))
    bound = s  # of P, by a constant Q
    limit = s  # of Q, by a constant P
    closed = not (droop_moves and cut_moves)
    if closed and mode == POWER_FACTOR:
        tangent = parameters["kvar_per_kw"]
        same_sign = (p_start >= 0.0 and p_end >= 0.0) or (p_start <= 0.0 and p_end <= 0.0)
        closed = same_sign and p_most * sqrt(1.0 + tangent * tangent) <= s
    elif closed:
        q_most = max(abs(reactive), abs(reactive_end))
        if p_most * p_most + q_most * q_most > s * s:
            if parameters["var_priority"]:
                closed = not q_moves
                bound = sqrt(max(s * s - reactive * reactive, 0.0))
            else:
                closed = not p_moves
                limit = sqrt(max(s * s - p_start * p_start, 0.0))
    if not closed:
        return _integrals(
            parameters, seconds, base, p_low_kw, p_high_kw, reactive, reactive_target,
            droop, droop_target, export, export_target, charging, charging_target, 1.0, 0.0,
        )  # fmt: skip

    if not p_moves:
        p = min(max(p_start, -bound), bound)
    elif droop_moves:
        low = max(p_low_kw, (export - 1.0) * parameters["discharge_kw"], -bound)
        high = min(p_high_kw, (1.0 - charging) * parameters["charge_kw"], bound)
        rate = parameters["droop_rate"]
        p = base + lagged_mean(droop, droop_target, rate, seconds, low - base, high - base)
    elif base + droop > 0.0:
        rated = parameters["charge_kw"]
        most = min(base + droop, p_high_kw, bound)
        p = lagged_mean(
            (1.0 - charging) * rated, (1.0 - charging_target) * rated,
            parameters["charging_rate"], seconds, 0.0, most,
        )  # fmt: skip
    else:
        rated = parameters["discharge_kw"]
        most = max(base + droop, p_low_kw, -bound)
        p = lagged_mean(
            (export - 1.0) * rated, (export_target - 1.0) * rated,
            parameters["export_rate"], seconds, most, 0.0,
        )  # fmt: skip
    if mode == POWER_FACTOR:
        q = parameters["kvar_per_kw"] * abs(p)
    else:
        q = lagged_mean(reactive, reactive_target, parameters["reactive_rate"], seconds, -limit, limit)
    return p * seconds, q * seconds


@njit
def _uncut(at: NDArray[np.float64], cut: NDArray[np.float64]) -> tuple[float, float]:
    """The voltages about 1 pu at which a curve cuts nothing; none (inf to -inf) if it does at 1 pu."""
    if on_curve(1.0, at, cut) != 0.0:
        return inf, -inf
    low = -inf
    high = inf
    for i in range(POINTS):
        if cut[i] != 0.0 and at[i] < 1.0:
            low = at[i + 1]  # the next point cuts nothing, or 1 pu would be cut
        if cut[POINTS - 1 - i] != 0.0 and at[POINTS - 1 - i] > 1.0:
            high = at[POINTS - 2 - i]
    return low, high


@njit
def prepare(parameters: Row, seconds: float) -> None:
    """Set the constants of a tick's length in all ``parameters``, (kind,), for the faster common case."""
    for i in range(len(parameters)):
        row = parameters[i]
        if row["tick_s"] != seconds:
            row["tick_s"] = seconds
            row["normal_low_pu"] = row["trip_low_pu"]
            row["normal_high_pu"] = row["trip_high_pu"]
            if row["limits_export"]:
                low, high = _uncut(row["export_at"], row["export_cut"])
                row["normal_low_pu"] = max(low, row["normal_low_pu"])
                row["normal_high_pu"] = min(high, row["normal_high_pu"])
            if row["limits_charging"]:
                low, high = _uncut(row["charging_at"], row["charging_cut"])
                row["normal_low_pu"] = max(low, row["normal_low_pu"])
                row["normal_high_pu"] = min(high, row["normal_high_pu"])
            x = row["reactive_rate"] * seconds
            row["reactive_left"] = exp(-x)
            row["reactive_mean"] = -expm1(-x) / x
            x = row["droop_rate"] * seconds
            row["droop_left"] = exp(-x)
            row["droop_mean"] = -expm1(-x) / x


@njit
def _common(
    parameters: Row, state: Row, voltage_pu: float, frequency_hz: float, p_wanted_kw: float,
    p_low_kw: float, p_high_kw: float,
) -> tuple[bool, float, float]:  # fmt: skip
    """The common case: volt-var and frequency-watt under limits that don't change; P and Q if it is one."""
    mode = parameters["reactive"]
    if mode > VOLT_VAR:
        return False, 0.0, 0.0
    if parameters["limits_export"] and (
        state["export_cut"] != 0.0
        or on_curve(voltage_pu, parameters["export_at"], parameters["export_cut"]) != 0.0
    ):
        return False, 0.0, 0.0
    if parameters["limits_charging"] and (
        state["charging_cut"] != 0.0
        or on_curve(voltage_pu, parameters["charging_at"], parameters["charging_cut"]) != 0.0
    ):
        return False, 0.0, 0.0
    low = max(p_low_kw, -parameters["discharge_kw"])
    high = min(p_high_kw, parameters["charge_kw"])
    base = min(max(p_wanted_kw, p_low_kw), p_high_kw)
    target = droop_target_kw(parameters, frequency_hz)
    off = state["droop_kw"] - target
    droop_end = target
    p = base + target
    p_end = p
    p_most = abs(p)
    still = True
    if off != 0.0 and parameters["droop_mean"] != 0.0:
        p_start = p + off
        left = off * parameters["droop_left"]
        if abs(left) >= REST:
            droop_end = target + left
        p_end = base + droop_end
        p = p + off * parameters["droop_mean"]
        still = False
        if min(p_start, p_end) < low or max(p_start, p_end) > high:
            if p_start >= high and p_end >= high:
                p = high
            elif p_start <= low and p_end <= low:
                p = low
            else:
                return False, 0.0, 0.0
            p_end = p
            p_start = p
            still = True
        p_most = max(abs(p_start), abs(p_end))
    else:
        p = min(max(p, low), high)
        p_end = p
        p_most = abs(p)
    s = parameters["s_kva"]
    q = 0.0
    q_end = 0.0
    reactive_end = 0.0
    if mode == VOLT_VAR:
        target = on_curve(voltage_pu, parameters["reactive_at"], parameters["reactive_kvar"])
        off = state["reactive_kvar"] - target
        reactive_end = target
        q = target
        q_most = abs(target)
        if off != 0.0 and parameters["reactive_mean"] != 0.0:
            left = off * parameters["reactive_left"]
            if abs(left) >= REST:
                reactive_end = target + left
            q = target + off * parameters["reactive_mean"]
            q_most = max(abs(state["reactive_kvar"]), abs(reactive_end))
        q_end = reactive_end
        if p_most * p_most + q_most * q_most > s * s:
            if parameters["var_priority"] or not still:
                return False, 0.0, 0.0
            limit = sqrt(max(s * s - p * p, 0.0))
            rate = parameters["reactive_rate"]
            q = lagged_mean(state["reactive_kvar"], target, rate, parameters["tick_s"], -limit, limit)
            q_end = min(max(q_end, -limit), limit)
    state["droop_kw"] = droop_end
    state["reactive_kvar"] = reactive_end
    state["p_kw"] = p_end
    state["q_kvar"] = q_end
    return True, p, q


@njit
def _wait(parameters: Row, state: Row, voltage_pu: float, frequency_hz: float, seconds: float) -> None:
    """Draw nothing for ``seconds``; the limits continue to follow voltage and frequency."""
    if seconds > 0.0:
        target = droop_target_kw(parameters, frequency_hz)
        state["droop_kw"] = lagged(state["droop_kw"], target, parameters["droop_rate"], seconds)
        if parameters["limits_export"]:
            target = on_curve(voltage_pu, parameters["export_at"], parameters["export_cut"])
            state["export_cut"] = lagged(state["export_cut"], target, parameters["export_rate"], seconds)
        if parameters["limits_charging"]:
            target = on_curve(voltage_pu, parameters["charging_at"], parameters["charging_cut"])
            rate = parameters["charging_rate"]
            state["charging_cut"] = lagged(state["charging_cut"], target, rate, seconds)


@njit
def cease(state: Row) -> None:
    """Cease to energise: off, no power, all times restart."""
    state["mode"] = OFF
    state["clock_s"] = 0.0
    state["reactive_kvar"] = 0.0
    state["p_kw"] = 0.0
    state["q_kvar"] = 0.0
    if state["timing"]:
        state["timing"] = 0
        for i in range(TRIPS):
            state["beyond_s"][i] = 0.0


@njit
def unplug(state: Row) -> None:
    """Unplug the EV: no power; trips and entering service, which are the charger's, continue."""
    state["reactive_kvar"] = 0.0
    state["p_kw"] = 0.0
    state["q_kvar"] = 0.0


@njit
def _time_to_trip(
    parameters: Row, state: Row, lowest_pu: float, highest_pu: float, frequency_hz: float, seconds: float
) -> float:
    """Time to the trip, s, inf if not within ``seconds``; adds the time beyond thresholds."""
    if not state["timing"] and (
        lowest_pu >= parameters["trip_low_pu"]
        and highest_pu <= parameters["trip_high_pu"]
        and frequency_hz >= parameters["trip_low_hz"]
        and frequency_hz <= parameters["trip_high_hz"]
    ):
        return inf
    first = inf
    timing = 0
    for i in range(TRIPS):
        level = parameters["trip_level"][i]
        if i < 2:
            beyond = highest_pu > level
        elif i < 4:
            beyond = lowest_pu < level
        elif i < 6:
            beyond = frequency_hz > level
        else:
            beyond = frequency_hz < level
        if beyond:
            timing = 1
            left = max(parameters["trip_s"][i] - state["beyond_s"][i], 0.0)
            if left <= seconds:
                first = min(first, left)
            state["beyond_s"][i] += seconds
        else:
            state["beyond_s"][i] = 0.0
    state["timing"] = timing
    return first


@njit
def respond(
    parameters: Row,
    state: Row,
    voltage_pu: float,
    lowest_pu: float,
    highest_pu: float,
    frequency_hz: float,
    energised: float,
    p_wanted_kw: float,
    p_low_kw: float,
    p_high_kw: float,
    seconds: float,
) -> tuple[float, float]:
    """Active (kW) and reactive power (kvar) of one charger, mean over a tick; updates its state.

    Call :func:`prepare` first where ticks have one length: the numbers are the same, and it is faster.

    Parameters
    ----------
    parameters
        Row of PARAMETERS.
    state
        Row of STATE, updated.
    voltage_pu
        Voltage for the curves: of the phase, or the mean of three.
    lowest_pu, highest_pu
        Least and greatest of the phases' voltages, for the trips and entering service.
    frequency_hz
        Frequency of the grid.
    energised
        0 where the connection point is dead.
    p_wanted_kw
        Set-point of the charger without these functions, +inf: as much as it can.
    p_low_kw, p_high_kw
        Present limits of EV and charger: ``p_low_kw <= 0 <= p_high_kw``.
    seconds
        Length of the tick, > 0.

    """
    if not energised > 0.5 or voltage_pu != voltage_pu or frequency_hz != frequency_hz:
        cease(state)
        return 0.0, 0.0
    if (
        state["mode"] == IN_SERVICE
        and not state["timing"]
        and seconds == parameters["tick_s"]
        and lowest_pu >= parameters["trip_low_pu"]
        and highest_pu <= parameters["trip_high_pu"]
        and frequency_hz >= parameters["trip_low_hz"]
        and frequency_hz <= parameters["trip_high_hz"]
    ):
        done, p, q = _common(parameters, state, voltage_pu, frequency_hz, p_wanted_kw, p_low_kw, p_high_kw)
        if done:
            return p, q
    on_s = seconds
    if state["mode"] == OFF:
        healthy = (
            lowest_pu >= parameters["enter_low_pu"]
            and highest_pu <= parameters["enter_high_pu"]
            and frequency_hz >= parameters["enter_low_hz"]
            and frequency_hz <= parameters["enter_high_hz"]
        )
        if not healthy:
            state["clock_s"] = 0.0
            _wait(parameters, state, voltage_pu, frequency_hz, seconds)
            return 0.0, 0.0
        left = max(parameters["enter_delay_s"] - state["clock_s"], 0.0)
        if left >= seconds:
            state["clock_s"] += seconds
            _wait(parameters, state, voltage_pu, frequency_hz, seconds)
            return 0.0, 0.0
        _wait(parameters, state, voltage_pu, frequency_hz, left)
        on_s = seconds - left
        state["mode"] = RAMPING
        state["clock_s"] = 0.0
    trip = _time_to_trip(parameters, state, lowest_pu, highest_pu, frequency_hz, on_s)
    off_s = 0.0
    if trip < inf:
        off_s = on_s - trip
        on_s = trip
    p_kws = 0.0
    q_kvars = 0.0
    if state["mode"] == RAMPING and on_s > 0.0:
        left = parameters["ramp_s"] - state["clock_s"]
        if left <= 0.0:
            state["mode"] = IN_SERVICE
        else:
            span = min(on_s, left)
            p_kws, q_kvars = _operate(
                parameters, state, voltage_pu, frequency_hz, p_wanted_kw, p_low_kw, p_high_kw, span, True
            )
            state["clock_s"] += span
            if span == left:
                state["mode"] = IN_SERVICE
            on_s -= span
    if on_s > 0.0:
        p, q = _operate(
            parameters, state, voltage_pu, frequency_hz, p_wanted_kw, p_low_kw, p_high_kw, on_s, False
        )
        p_kws += p
        q_kvars += q
    if trip < inf:
        cease(state)
        _wait(parameters, state, voltage_pu, frequency_hz, off_s)
    return p_kws / seconds, q_kvars / seconds


@njit
def respond_all(
    parameters: Row,
    kind_of: NDArray[np.int32],
    state: Row,
    voltage_pu: NDArray[np.float64],
    lowest_pu: NDArray[np.float64],
    highest_pu: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    energised: NDArray[np.float64],
    p_wanted_kw: NDArray[np.float64],
    p_low_kw: NDArray[np.float64],
    p_high_kw: NDArray[np.float64],
    seconds: float,
    p_kw: NDArray[np.float64],
    q_kvar: NDArray[np.float64],
) -> None:
    """:func:`respond` for many chargers; all arrays are (ev,), ``parameters`` (kind,); fills P and Q."""
    prepare(parameters, seconds)
    for ev in range(len(kind_of)):
        p_kw[ev], q_kvar[ev] = respond(
            parameters[kind_of[ev]], state[ev], voltage_pu[ev], lowest_pu[ev], highest_pu[ev],
            frequency_hz[ev], energised[ev], p_wanted_kw[ev], p_low_kw[ev], p_high_kw[ev], seconds,
        )  # fmt: skip
