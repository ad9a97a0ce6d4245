"""The load-frequency equations, and correlation over sliding windows: arrays in, arrays out.

One control area, everything per unit of its base power and of nominal frequency::

    2 H dw/dt  = Pm - PL - D w                  swing
    Tt dPm/dt  = Pv - Pm                        turbine
    Tg dPv/dt  = -w / R - a Ki z - Pv           governor, with the share a of the AGC
    dz/dt      = w                              AGC

w : frequency deviation; Pm, Pv : deviation of mechanical power and of the valve; z : integral of w,
s; PL : load less generation lost, as a deviation. A state is a row (w, Pm, Pv, z) of (member, 4).

PL is held over a call. Without deadband and limits the equations are linear, and the matrix
exponential of the inner step carries them on exactly, whatever the step; with them a Runge-Kutta
step of fourth order does. Extremes inside a step are those of the cubic through both ends and
their slopes.

``extremes`` is (member, 4) and is kept from call to call: lowest w and its time, highest w, largest
magnitude of dw/dt with its sign.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit

Array = NDArray[np.float64]

LOWEST, LOWEST_AT, HIGHEST, STEEPEST = 0, 1, 2, 3
"""Columns of ``extremes``."""


@njit
def cubic_turn(w0: float, w1: float, d0: float, d1: float, step_s: float) -> float:
    """Turning point of the cubic through both ends of a step, with their slopes, as a share of the step.

    The slopes d0 and d1 (1/s) must differ in sign. Returns 0 to 1.
    """
    rise = w1 - w0
    c1 = step_s * d0
    c2 = 3.0 * rise - step_s * (2.0 * d0 + d1)
    c3 = step_s * (d0 + d1) - 2.0 * rise
    root = sqrt(max(c2 * c2 - 3.0 * c3 * c1, 0.0))
    q = -(c2 + root) if c2 >= 0.0 else -(c2 - root)
    if q == 0.0:
        return 0.5
    first = c1 / q
    if 0.0 <= first <= 1.0:
        return first
    return min(max(q / (3.0 * c3), 0.0), 1.0) if c3 != 0.0 else 0.5


@njit
def note_extremes(
    row: Array, time_s: float, step_s: float, w0: float, w1: float, d0: float, d1: float
) -> None:
    """Update a member's row of ``extremes`` with one inner step."""
    if abs(d0) > abs(row[STEEPEST]):
        row[STEEPEST] = d0
    if abs(d1) > abs(row[STEEPEST]):
        row[STEEPEST] = d1
    if w1 < row[LOWEST]:
        row[LOWEST], row[LOWEST_AT] = w1, time_s + step_s
    row[HIGHEST] = max(row[HIGHEST], w1)
    if d0 * d1 < 0.0:
        u = cubic_turn(w0, w1, d0, d1, step_s)
        rise = w1 - w0
        w = w0 + u * (
            step_s * d0 + u * (3.0 * rise - step_s * (2.0 * d0 + d1) + u * (step_s * (d0 + d1) - 2.0 * rise))
        )
        if w < row[LOWEST]:
            row[LOWEST], row[LOWEST_AT] = w, time_s + u * step_s
        row[HIGHEST] = max(row[HIGHEST], w)


@njit
def advance_linear(
    state: Array,
    load: Array,
    extremes: Array,
    transition: Array,
    gain: Array,
    inertia_s: float,
    damping: float,
    time_s: float,
    step_s: float,
    steps: int,
) -> None:
    """Advance the linear area by ``steps`` inner steps, in place.

    state : (member, 4); load : (member,) PL, held; extremes : (member, 4)
    transition : (4, 4), gain : (4,), the exact solution over one step: x <- transition x + gain PL
    inertia_s : H; damping : D; time_s : where the first step begins
    """
    for member in range(len(state)):
        x = state[member]
        row = extremes[member]
        w, pm, pv, z = x[0], x[1], x[2], x[3]
        pl = load[member]
        slope = (pm - pl - damping * w) / (2.0 * inertia_s)
        for k in range(steps):
            w1 = transition[0, 0] * w + transition[0, 1] * pm + transition[0, 2] * pv + transition[0, 3] * z
            p1 = transition[1, 0] * w + transition[1, 1] * pm + transition[1, 2] * pv + transition[1, 3] * z
            v1 = transition[2, 0] * w + transition[2, 1] * pm + transition[2, 2] * pv + transition[2, 3] * z
            z1 = transition[3, 0] * w + transition[3, 1] * pm + transition[3, 2] * pv + transition[3, 3] * z
            w1 += gain[0] * pl
            pm = p1 + gain[1] * pl
            pv = v1 + gain[2] * pl
            z = z1 + gain[3] * pl
            slope1 = (pm - pl - damping * w1) / (2.0 * inertia_s)
            note_extremes(row, time_s + k * step_s, step_s, w, w1, slope, slope1)
            w, slope = w1, slope1
        x[0], x[1], x[2], x[3] = w, pm, pv, z


@njit
def valve_speed(
    w: float,
    pv: float,
    z: float,
    droop: float,
    governor_s: float,
    agc: float,
    deadband: float,
    valve_min: float,
    valve_max: float,
) -> float:
    """dPv/dt with a governor deadband and valve limits; 1/s.

    Inside ±deadband the governor sees no deviation; outside, the deviation beyond it. At a limit the valve
    moves only inward.
    """
    seen = 0.0
    if w > deadband:
        seen = w - deadband
    elif w < -deadband:
        seen = w + deadband
    speed = (-seen / droop - agc * z - pv) / governor_s
    if (pv >= valve_max and speed > 0.0) or (pv <= valve_min and speed < 0.0):
        return 0.0
    return speed


@njit
def advance_limited(
    state: Array,
    load: Array,
    extremes: Array,
    inertia_s: float,
    damping: float,
    droop: float,
    governor_s: float,
    turbine_s: float,
    agc: float,
    deadband: float,
    valve_min: float,
    valve_max: float,
    time_s: float,
    step_s: float,
    steps: int,
) -> None:
    """Advance an area with governor deadband and valve limits by ``steps`` inner steps, in place.

    state, load, extremes, time_s : as in :func:`advance_linear`
    agc : share of the AGC that acts on the governor times Ki, 1/s
    deadband : per unit of nominal frequency; valve_min, valve_max : per unit, +-inf for none
    """
    h = step_s
    for member in range(len(state)):
        x = state[member]
        row = extremes[member]
        w, pm, pv, z = x[0], x[1], x[2], x[3]
        pl = load[member]
        a1 = (pm - pl - damping * w) / (2.0 * inertia_s)
        for k in range(steps):
            b1 = (pv - pm) / turbine_s
            c1 = valve_speed(w, pv, z, droop, governor_s, agc, deadband, valve_min, valve_max)
            w2, m2, v2, z2 = w + h / 2 * a1, pm + h / 2 * b1, pv + h / 2 * c1, z + h / 2 * w
            a2 = (m2 - pl - damping * w2) / (2.0 * inertia_s)
            b2 = (v2 - m2) / turbine_s
            c2 = valve_speed(w2, v2, z2, droop, governor_s, agc, deadband, valve_min, valve_max)
            w3, m3, v3, z3 = w + h / 2 * a2, pm + h / 2 * b2, pv + h / 2 * c2, z + h / 2 * w2
            a3 = (m3 - pl - damping * w3) / (2.0 * inertia_s)
            b3 = (v3 - m3) / turbine_s
            c3 = valve_speed(w3, v3, z3, droop, governor_s, agc, deadband, valve_min, valve_max)
            w4, m4, v4, z4 = w + h * a3, pm + h * b3, pv + h * c3, z + h * w3
            a4 = (m4 - pl - damping * w4) / (2.0 * inertia_s)
            b4 = (v4 - m4) / turbine_s
            c4 = valve_speed(w4, v4, z4, droop, governor_s, agc, deadband, valve_min, valve_max)
            z = z + h / 6 * (w + 2 * w2 + 2 * w3 + w4)
            w1 = w + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
            pm = pm + h / 6 * (b1 + 2 * b2 + 2 * b3 + b4)
            pv = pv + h / 6 * (c1 + 2 * c2 + 2 * c3 + c4)
            pv = min(max(pv, valve_min), valve_max)
            slope1 = (pm - pl - damping * w1) / (2.0 * inertia_s)
            note_extremes(row, time_s + k * h, h, w, w1, a1, slope1)
            w, a1 = w1, slope1
        x[0], x[1], x[2], x[3] = w, pm, pv, z


@njit
def correlation_and_delay(
    signal: Array,
    response: Array,
    first: NDArray[np.int64],
    window: int,
    lags: int,
    free_lags: int,
    flat_signal: float,
    flat_response: float,
) -> Array:
    """Correlation and delay score of windows of a signal against a response that may come late.

    For each window that begins at sample ``first[k]``, the lag of 0 to ``lags`` samples that maximises
    correlation + delay score; the smallest of equal ones. Only lags whose window lies inside the
    response are tried. The delay score falls linearly from 1 at up to ``free_lags`` to 0 at ``lags``.

    A window of the signal with a standard deviation up to ``flat_signal`` has no correlation: its
    score is 1 less the difference of the slopes of signal and response, each the change over the window
    along the line of least squares, and its delay score 1. A response with a standard deviation up to
    ``flat_response`` to a signal that varies scores 0 and 0.

    signal, response : (sample,), of the same length; first : (window,)
    Returns (window, 2), each clipped to 0 to 1.
    """
    scores = np.zeros((len(first), 2))
    centred = np.empty(window)
    middle = (window - 1) / 2.0
    spread = window * (window * window - 1.0) / 12.0
    for k in range(len(first)):
        begin = first[k]
        mean = 0.0
        for i in range(window):
            mean += signal[begin + i]
        mean /= window
        square = 0.0
        for i in range(window):
            centred[i] = signal[begin + i] - mean
            square += centred[i] * centred[i]
        if square <= window * flat_signal * flat_signal:
            difference = 0.0
            for i in range(window):
                difference += (i - middle) * (signal[begin + i] - response[begin + i])
            difference *= (window - 1) / spread
            scores[k, 0] = max(1.0 - abs(difference), 0.0)
            scores[k, 1] = 1.0
            continue
        best = -2.0
        for lag in range(lags + 1):
            at = begin + lag
            if at + window > len(response):
                break
            mean = 0.0
            for i in range(window):
                mean += response[at + i]
            mean /= window
            own, cross = 0.0, 0.0
            for i in range(window):
                deviation = response[at + i] - mean
                own += deviation * deviation
                cross += centred[i] * deviation
            if own <= window * flat_response * flat_response:
                continue
            r = cross / sqrt(square * own)
            delay = 1.0
            if lag > free_lags:
                delay = (lags - lag) / lags
            if r + delay > best + 1e-12:
                best = r + delay
                scores[k, 0] = min(max(r, 0.0), 1.0)
                scores[k, 1] = delay
    return scores


@njit
def limit_ramp(asked: Array, start: Array, most: float) -> Array:
    """Power delivered with a change of at most ``most`` from one sample to the next.

    asked : (n, sample); start : (n,), delivered before the first sample. Returns (n, sample).
    """
    delivered = np.empty_like(asked)
    for n in range(len(asked)):
        last = start[n]
        for k in range(asked.shape[1]):
            last = min(max(asked[n, k], last - most), last + most)
            delivered[n, k] = last
    return delivered
