"""Plain-Python twin of :mod:`evgrid.inverter_functions.kernels`, against which the kernels are checked.

Same inputs, outputs and signs; state and parameters are dictionaries. It knows no closed form of a
mean: it writes P and Q as functions of time and integrates them, with the moments at which another
limit begins to bind found by bisection. Slow, and meant to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp, inf, isnan, sqrt
from typing import Any

import numpy as np

_ROOTS, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def as_dict(row: Any) -> dict[str, Any]:
    """A row of PARAMETERS or STATE as a dictionary of Python numbers and lists."""
    return {name: row[name].tolist() for name in row.dtype.names}


def curve(x: float, at: Sequence[float], values: Sequence[float]) -> float:
    """Piecewise-linear, constant beyond the first and the last point."""
    points = list(zip(at, values, strict=True))
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x < x1:
            return y0 + (x - x0) / (x1 - x0) * (y1 - y0)
    return points[-1][1]


def droop_kw(par: dict[str, Any], frequency_hz: float) -> float:
    """Shift of active power that a frequency asks for, kW, positive draws more."""
    over = max(frequency_hz - par["droop_high_hz"], 0.0)
    under = max(par["droop_low_hz"] - frequency_hz, 0.0)
    shift = 0.0
    if over > 0.0:
        shift += over * par["over_kw_per_hz"]
    if under > 0.0:
        shift -= under * par["under_kw_per_hz"]
    return shift


def capability(par: dict[str, Any], p: float, q: float) -> tuple[float, float]:
    """P and Q within ``P**2 + Q**2 <= S**2``."""
    s = par["s_kva"]
    constant = par["reactive"] == 3
    if par["var_priority"]:
        if constant:
            ratio = par["kvar_per_kw"]
            most = s / sqrt(1 + ratio**2)
            p = clip(p, -most, most)
            return p, ratio * abs(p)
        q = clip(q, -s, s)
        most = sqrt(max(s * s - q * q, 0.0))
        return clip(p, -most, most), q
    p = clip(p, -s, s)
    if constant:
        q = par["kvar_per_kw"] * abs(p)
    most = sqrt(max(s * s - p * p, 0.0))
    return p, clip(q, -most, most)


def clip(x: float, low: float, high: float) -> float:
    """``x`` within ``low`` to ``high``."""
    return min(max(x, low), high)


def lag(start: float, target: float, rate: float, seconds: float) -> float:
    """First-order lag."""
    return target + (start - target) * exp(-rate * seconds) if seconds > 0 else start


def integrate(
    of: Callable[[float], tuple[float, float, tuple[int, ...]]], seconds: float, fastest: float
) -> tuple[float, float]:
    """Integrals of the first two results over 0 to ``seconds``; the third tells smooth pieces apart."""
    total = [0.0, 0.0]
    start = 0.0
    piece = of(0.0)[2]
    found = 0
    while start < seconds:
        end = seconds if fastest == 0 else min(start + max(0.7 / fastest, start / 2), seconds)
        following, end_piece = end, of(end)[2]
        if end_piece != piece and found < 40:
            found += 1
            low, high = start, end
            while low < (low + high) / 2 < high:
                middle = (low + high) / 2
                middle_piece = of(middle)[2]
                if middle_piece == piece:
                    low = middle
                else:
                    high, end_piece = middle, middle_piece
            end, following = low, high
        for root, weight in zip(_ROOTS.tolist(), _WEIGHTS.tolist(), strict=True):
            u = (root + 1) / 2
            p, q, _ = of(start + (end - start) * (3 * u**2 - 2 * u**3))
            total[0] += (end - start) * weight * 3 * u * (1 - u) * p
            total[1] += (end - start) * weight * 3 * u * (1 - u) * q
        start, piece = following, end_piece
    return total[0], total[1]


def operate(
    par: dict[str, Any], state: dict[str, Any], voltage: float, frequency: float, wanted: float,
    p_low: float, p_high: float, seconds: float, ramping: bool,
) -> tuple[float, float]:  # fmt: skip
    """Integrals of P and Q over a span without events."""
    base = clip(wanted, p_low, p_high)
    targets = {
        "droop_kw": droop_kw(par, frequency),
        "export_cut": curve(voltage, par["export_at"], par["export_cut"]) if par["limits_export"] else 0.0,
        "charging_cut": (
            curve(voltage, par["charging_at"], par["charging_cut"]) if par["limits_charging"] else 0.0
        ),
        "reactive_kvar": 0.0,
    }

    def power(x: dict[str, float], ramp: float) -> tuple[float, tuple[int, ...]]:
        lows = (p_low, -(1 - x["export_cut"]) * par["discharge_kw"], -ramp * par["discharge_kw"])
        highs = (p_high, (1 - x["charging_cut"]) * par["charge_kw"], ramp * par["charge_kw"])
        low, high = max(lows), min(highs)
        free = base + x["droop_kw"]
        binds = -1 - lows.index(low) if free < low else 1 + highs.index(high) if free > high else 0
        p = clip(free, low, high)
        return p, (binds, p > 0)

    if par["reactive"] == 1:
        targets["reactive_kvar"] = curve(voltage, par["reactive_at"], par["reactive_kvar"])
    if par["reactive"] == 2:
        settled = power(targets, 1.0)[0]
        rated = par["charge_kw"] if settled > 0 else par["discharge_kw"]
        share = settled / rated if settled else 0.0
        targets["reactive_kvar"] = curve(share, par["reactive_at"], par["reactive_kvar"])
    rates = {
        "droop_kw": par["droop_rate"],
        "export_cut": par["export_rate"],
        "charging_cut": par["charging_rate"],
        "reactive_kvar": par["reactive_rate"],
    }
    starts = {
        key: targets[key] if rates[key] == inf else (
            0.0 if (key, par.get(f"limits_{key.split('_')[0]}")) in (("export_cut", 0), ("charging_cut", 0))
            else state[key]
        )
        for key in targets
    }  # fmt: skip

    def at(moment: float) -> tuple[float, float, tuple[int, ...]]:
        x = {key: lag(starts[key], targets[key], rates[key], moment) for key in targets}
        ramp = (state["clock_s"] + moment) / par["ramp_s"] if ramping else 1.0
        free, piece = power(x, ramp)
        p, q = capability(par, free, x["reactive_kvar"])
        asked = par["kvar_per_kw"] * abs(p) if par["reactive"] == 3 else x["reactive_kvar"]
        return p, q, (*piece, p != free, q != asked, q > 0 if q != asked else False)

    moving = [rates[key] for key in targets if starts[key] != targets[key]]
    integrals = integrate(at, seconds, max(moving, default=0.0))
    p_end, q_end, _ = at(seconds)
    ends = {key: lag(starts[key], targets[key], rates[key], seconds) for key in targets}
    state.update(ends, p_kw=p_end, q_kvar=q_end)
    return integrals


def wait(
    par: dict[str, Any], state: dict[str, Any], voltage: float, frequency: float, seconds: float
) -> None:
    """Off: only what follows voltage and frequency goes on."""
    state["droop_kw"] = lag(state["droop_kw"], droop_kw(par, frequency), par["droop_rate"], seconds)
    for name in ("export", "charging"):
        if par[f"limits_{name}"]:
            target = curve(voltage, par[f"{name}_at"], par[f"{name}_cut"])
            state[f"{name}_cut"] = lag(state[f"{name}_cut"], target, par[f"{name}_rate"], seconds)


def switch_off(state: dict[str, Any]) -> None:
    """Cease to energise."""
    state.update(mode=2, clock_s=0.0, reactive_kvar=0.0, p_kw=0.0, q_kvar=0.0, timing=0, beyond_s=[0.0] * 8)


def respond(
    par: dict[str, Any], state: dict[str, Any], voltage: float, lowest: float, highest: float,
    frequency: float, energised: float, wanted: float, p_low: float, p_high: float, seconds: float,
) -> tuple[float, float]:  # fmt: skip
    """Mean P and Q over a tick: see :func:`evgrid.inverter_functions.kernels.respond`."""
    if not energised > 0.5 or isnan(voltage) or isnan(frequency):
        switch_off(state)
        return 0.0, 0.0
    on_s = seconds
    if state["mode"] == 2:
        healthy = (
            par["enter_low_pu"] <= lowest
            and highest <= par["enter_high_pu"]
            and par["enter_low_hz"] <= frequency <= par["enter_high_hz"]
        )
        left = max(par["enter_delay_s"] - state["clock_s"], 0.0) if healthy else inf
        wait(par, state, voltage, frequency, min(left, seconds))
        if left >= seconds:
            state["clock_s"] = state["clock_s"] + seconds if healthy else 0.0
            return 0.0, 0.0
        state.update(mode=1, clock_s=0.0)
        on_s = seconds - left
    trip = inf
    values = [highest, highest, lowest, lowest, frequency, frequency, frequency, frequency]
    for i, (value, level) in enumerate(zip(values, par["trip_level"], strict=True)):
        beyond = value > level if i in (0, 1, 4, 5) else value < level
        left = max(par["trip_s"][i] - state["beyond_s"][i], 0.0)
        if beyond and left <= on_s:
            trip = min(trip, left)
        state["beyond_s"][i] = state["beyond_s"][i] + on_s if beyond else 0.0
    state["timing"] = int(any(time > 0 for time in state["beyond_s"]))
    off_s = on_s - trip if trip < inf else 0.0
    on_s = min(on_s, trip)
    p_kws, q_kvars = 0.0, 0.0
    if state["mode"] == 1 and on_s > 0:
        left = par["ramp_s"] - state["clock_s"]
        if left > 0:
            span = min(on_s, left)
            p_kws, q_kvars = operate(par, state, voltage, frequency, wanted, p_low, p_high, span, True)
            state["clock_s"] += span
            on_s -= span
            left -= span
        if left <= 0:
            state["mode"] = 0
    if on_s > 0:
        p, q = operate(par, state, voltage, frequency, wanted, p_low, p_high, on_s, False)
        p_kws, q_kvars = p_kws + p, q_kvars + q
    if trip < inf:
        switch_off(state)
        wait(par, state, voltage, frequency, off_s)
    return p_kws / seconds, q_kvars / seconds
