"""How the EVs charge and discharge: one fused pass a tick over those that are plugged in.

**Power.** Positive is drawn from the grid. Inside, everything is battery-side (DC) power ``Pb``, so
that the state of charge has a closed form within a tick and no result depends on the tick. The
grid side follows from the conversion loss, ``loss = a + b Pb + c Pb**2`` while ``Pb > 0``:
charging draws ``Pb + loss`` from the grid, discharging gives ``Pb - loss`` to it.

**Charging** is limited to ``battery_kw`` below ``taper_soc``; above it to
``battery_kw * (1 - soc) / (1 - taper_soc)``, along which the state of charge approaches 1
exponentially; and never below ``CUT_OFF`` of ``battery_kw``, so that a full battery is reached in
finite time. Under a lower set-point the limit is the lesser of the two. It ends exactly at
``soc_target``, discharging exactly at ``soc_floor``.

**Departure guard.** Each EVSE knows its driver's departure and target.
``laxity = (departure - now) - time to charge from here to the target as fast as possible``.
The EV follows its set-point while laxity is positive. From the moment at which it is zero, found
exactly inside the tick, until departure it charges as fast as it can, whatever the set-point. So
no strategy can lose a departure that was within reach, nor discharge what can't be charged again
in time. Where the target is out of reach at arrival, the EV charges as fast as it can all along.

**Set-point**, kW at the grid, one an EV: +inf (or more than the limit) charges as fast as
possible; a positive one charges at up to that; 0 waits; a negative one discharges at up to that,
if the session may, down to the floor.

This is the plain fleet. Ramp limits, standby consumption, temperature, permission to discharge and the
EVSE's local functions are in :mod:`evgrid.fleet.physics`, which calls what is here; a fleet that needs
none of them doesn't pay for them.

Arrays and numbers only. What a tick reads and writes of each EV lies in blocks, see
:mod:`evgrid.fleet.lanes`; ``KIND`` holds the constants that all sessions with the same limits, losses and
target share, so that a large fleet finds them in the cache.
"""

from __future__ import annotations

from math import exp, expm1, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import in_threads, next_part, njit, take_turns
from evgrid.fleet.lanes import (
    LANES,
    MANY_MEMBERS,
    STATE,
    WIDE,
    Blocks,
    Columns,
    Places,
    enter,
    in_use,
    lift,
    lower,
    quit_lane,
)

CUT_OFF = 0.05
"""Least charging power, as a share of ``battery_kw``, to which the taper falls before full."""

LEAST_SOC = 0.05
"""State of charge below which nobody comes home from a drive."""

SNAP = 1e-11
"""Rounding, in state of charge, within which a guard's charge, which ends at the target, is at the target."""

KIND = np.dtype(
    [
        ("capacity_kwh", "f8"),
        ("soc_target", "f8"),
        ("soc_floor", "f8"),
        ("taper_soc", "f8"),
        ("charge_kw", "f8"),  # AC limit
        ("charge_a", "f8"),
        ("charge_b", "f8"),
        ("charge_c", "f8"),
        ("discharge_kw", "f8"),  # AC limit, 0: may not
        ("discharge_a", "f8"),
        ("discharge_b", "f8"),
        ("discharge_c", "f8"),
        # derived by derive_kinds
        ("linear", "f8"),  # 1 where the losses are of constant efficiency
        ("charge_gain", "f8"),  # 1 / (1 + charge_b)
        ("discharge_gain", "f8"),  # 1 / (1 - discharge_b)
        ("battery_kw", "f8"),  # battery power at charge_kw
        ("most_out_kw", "f8"),  # battery power at discharge_kw
        ("soc_per_kws", "f8"),  # 1 / (3600 capacity)
        ("soc_per_s", "f8"),  # at battery_kw
        ("s_per_soc", "f8"),
        ("taper_per_kw", "f8"),  # (1 - taper_soc) / battery_kw
        ("decay_per_s", "f8"),  # of 1 - soc along the taper
        ("cut_off_soc", "f8"),  # where the taper ends
        ("full_power_soc", "f8"),  # lesser of taper_soc and soc_target
        ("full_charge_s", "f8"),  # from 0 to soc_target, as fast as possible
    ],
    align=True,
)
"""Constants of a kind of session."""

Row = Any
"""A row of STATE or KIND."""


@njit
def battery_kw_drawn(grid_kw: float, a: float, b: float, c: float) -> float:
    """Power into the battery, kW, when ``grid_kw`` >= 0 is drawn; 0 where the loss eats it all.

    The positive root of ``c Pb**2 + (1 + b) Pb + a = grid_kw`` in the form that has no
    cancellation and is exact for c = 0.
    """
    net = grid_kw - a
    if net <= 0.0:
        return 0.0
    if c == 0.0:
        return net / (1.0 + b)
    return 2.0 * net / ((1.0 + b) + sqrt((1.0 + b) * (1.0 + b) + 4.0 * c * net))


@njit
def battery_kw_given(grid_kw: float, a: float, b: float, c: float) -> float:
    """Power out of the battery, kW (>= 0), when ``grid_kw`` >= 0 is given to the grid; 0 for 0.

    The lesser root of ``Pb - (a + b Pb + c Pb**2) = grid_kw``. More than the converter can give
    (the maximum over Pb) gives the battery power at that maximum.
    """
    if grid_kw <= 0.0:
        return 0.0
    net = grid_kw + a
    if c == 0.0:
        return net / (1.0 - b)
    most = (1.0 - b) * (1.0 - b) / (4.0 * c)
    if net >= most:
        return (1.0 - b) / (2.0 * c)
    return 2.0 * net / ((1.0 - b) + sqrt((1.0 - b) * (1.0 - b) - 4.0 * c * net))


@njit
def charge_limit_kw(kind: Row, soc: float) -> float:
    """Most that the battery takes at a state of charge, kW at the battery; the target is not asked."""
    if soc <= kind["taper_soc"]:
        return float(kind["battery_kw"])
    return float(max((1.0 - soc) / kind["taper_per_kw"], CUT_OFF * kind["battery_kw"]))


@njit
def seconds_to_target(kind: Row, soc: float) -> float:
    """Time to charge from ``soc`` to the target as fast as possible, s; 0 at or above the target."""
    target = kind["soc_target"]
    if soc >= target:
        return 0.0
    seconds = 0.0
    if soc < kind["full_power_soc"]:
        seconds += (kind["full_power_soc"] - soc) * kind["s_per_soc"]
        soc = kind["full_power_soc"]
    end = min(kind["cut_off_soc"], target)
    if soc < end:
        seconds += log((1.0 - soc) / (1.0 - end)) / kind["decay_per_s"]
        soc = end
    if soc < target:
        seconds += (target - soc) * kind["s_per_soc"] / CUT_OFF
    return seconds


@njit
def soc_that_reaches(kind: Row, left_s: float) -> float:
    """Least state of charge from which charging as fast as possible reaches the target within ``left_s``.

    The inverse of :func:`seconds_to_target`; 0 where the target is in reach from an empty battery.
    """
    target = kind["soc_target"]
    if left_s <= 0.0:
        return float(target)
    if left_s >= kind["full_charge_s"]:
        return 0.0
    end = min(kind["cut_off_soc"], target)
    slow_s = (target - end) * kind["s_per_soc"] / CUT_OFF
    if left_s <= slow_s:
        return float(target - left_s * CUT_OFF * kind["soc_per_s"])
    left_s -= slow_s
    taper_s = log((1.0 - kind["full_power_soc"]) / (1.0 - end)) / kind["decay_per_s"]
    if left_s <= taper_s:
        return float(1.0 - (1.0 - end) * exp(kind["decay_per_s"] * left_s))
    return float(kind["full_power_soc"] - (left_s - taper_s) * kind["soc_per_s"])


@njit
def charge(kind: Row, soc: float, battery_kw: float, seconds: float) -> tuple[float, float, float, float]:
    """Charge for ``seconds`` at up to ``battery_kw`` (> 0, at the battery), to the target at most.

    Returns the state of charge, the time that power flowed (s), and the integrals over it of the
    battery power (kWs) and of its square (kW²s), each in closed form.
    """
    target = kind["soc_target"]
    if soc >= target:
        return soc, 0.0, 0.0, 0.0
    least_kw = CUT_OFF * kind["battery_kw"]
    if battery_kw >= kind["battery_kw"]:
        switch = kind["taper_soc"]
    elif battery_kw > least_kw:
        switch = 1.0 - battery_kw * kind["taper_per_kw"]
    else:
        switch = 1.0
    left = seconds
    on_s = 0.0
    first = 0.0
    second = 0.0
    end = min(switch, target)
    if soc < end:  # constant power
        rate = battery_kw * kind["soc_per_kws"]
        needed = (end - soc) / rate
        span = min(needed, left)
        on_s += span
        first += battery_kw * span
        second += battery_kw * battery_kw * span
        if needed > left:
            return min(soc + rate * left, end), on_s, first, second
        left -= needed
        soc = end
    end = min(kind["cut_off_soc"], target)
    if soc < end:  # along the taper
        decay = kind["decay_per_s"]
        start_kw = (1.0 - soc) / kind["taper_per_kw"]
        needed = log((1.0 - soc) / (1.0 - end)) / decay
        span = min(needed, left)
        fallen = -expm1(-decay * span)
        on_s += span
        first += start_kw * fallen / decay
        second += start_kw * start_kw * -expm1(-2.0 * decay * span) / (2.0 * decay)
        if needed > left:
            return min(soc + (1.0 - soc) * fallen, end), on_s, first, second
        left -= needed
        soc = end
    if soc < target:  # constant power after the taper
        low_kw = min(battery_kw, least_kw)
        rate = low_kw * kind["soc_per_kws"]
        needed = (target - soc) / rate
        span = min(needed, left)
        on_s += span
        first += low_kw * span
        second += low_kw * low_kw * span
        if needed > left:
            return min(soc + rate * left, target), on_s, first, second
        soc = target
    return soc, on_s, first, second


@njit
def moment_of_zero_laxity(kind: Row, soc: float, power_kw: float, span: float, left_s: float) -> float:
    """When laxity reaches zero while following a set-point, s from now; it is known to, within ``span``.

    ``power_kw``: at the battery, positive charges. Newton's method from the left: laxity falls and
    is convex over the span (linear below the taper: one step), so every step stays on this side.
    """
    now = 0.0
    for _ in range(60):
        then = soc
        power = power_kw
        if power_kw > 0.0:
            then = charge(kind, soc, power_kw, now)[0]
            power = min(power_kw, charge_limit_kw(kind, then))
        elif power_kw < 0.0:
            then = soc + power_kw * kind["soc_per_kws"] * now
        laxity = left_s - now - seconds_to_target(kind, then)
        fall = 1.0 - power / charge_limit_kw(kind, then)
        following = now + laxity / fall
        if not following > now:
            break
        if following >= span:
            return span
        now = following
    return now


@njit
def advance(
    kind: Row, soc: float, setpoint_kw: float, seconds: float, left_s: float, guarded: int
) -> tuple[float, int, float, float, float, float, float, float, float, float]:
    """Follow a set-point for ``seconds``, subject to all limits and the departure guard.

    Parameters
    ----------
    kind
        The session's row of KIND.
    soc, setpoint_kw
        State of charge at the beginning, and what is asked.
    seconds
        Length of the window.
    left_s
        Time until departure at the beginning, s, at least ``seconds``.
    guarded
        1 if laxity has reached zero before.

    Returns the state of charge, ``guarded``, the energy drawn from the grid, the energy given to
    the grid, and the conversion loss, kWs each and not negative, the time that power flowed, s, the
    energy that discharging took out of the battery, kWs, the integrals of the squared battery power while
    charging and while discharging, kW²s, and when charging began, s. Charging comes last: SOC turns once at
    most, from down to up.

    """
    drawn = 0.0
    given = 0.0
    loss = 0.0
    flowing_s = 0.0
    taken = 0.0
    square_in, square_out = 0.0, 0.0
    charging_from = 0.0
    length = seconds
    target = kind["soc_target"]
    for _ in range(8):
        if soc < target and left_s <= seconds_to_target(kind, soc):
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
                then = charge(kind, soc, power, span)[0]
            elif stop >= 0.0:
                then = stop
            else:
                then = soc + power * kind["soc_per_kws"] * span
            if then < target and left_s - span < seconds_to_target(kind, then):
                span = moment_of_zero_laxity(kind, soc, power, span, left_s)
                guarded = 1
                stop = -1.0
        if power > 0.0:
            soc, on_s, first, second = charge(kind, soc, power, span)
            flowing_s += on_s
            if square_in == 0.0:
                charging_from = length - seconds
            square_in += second
            if guarded and soc < target and target - soc < SNAP:
                soc = target
            drawn += (1.0 + kind["charge_b"]) * first + kind["charge_a"] * on_s + kind["charge_c"] * second
            loss += kind["charge_a"] * on_s + kind["charge_b"] * first + kind["charge_c"] * second
        elif power < 0.0:
            lost_kw = (
                kind["discharge_a"]
                - kind["discharge_b"] * power
                + kind["discharge_c"] * power * power
            )  # fmt: skip
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
    return soc, guarded, drawn, given, loss, flowing_s, taken, square_in, square_out, charging_from


@njit
def derive_kinds(kinds: Row) -> None:
    """Fill the derived constants of ``kinds``, (kind,) KIND, in place."""
    for i in range(len(kinds)):
        kind = kinds[i]
        a, b, c = kind["charge_a"], kind["charge_b"], kind["charge_c"]
        power = battery_kw_drawn(kind["charge_kw"], a, b, c)
        kind["battery_kw"] = power
        a, b, c = kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
        if c > 0.0:  # more than the converter can give
            kind["discharge_kw"] = max(min(kind["discharge_kw"], (1.0 - b) * (1.0 - b) / (4.0 * c) - a), 0.0)
        kind["most_out_kw"] = battery_kw_given(kind["discharge_kw"], a, b, c)
        kind["linear"] = 0.0
        if kind["charge_a"] == kind["charge_c"] == kind["discharge_a"] == kind["discharge_c"] == 0.0:
            kind["linear"] = 1.0
        kind["charge_gain"] = 1.0 / (1.0 + kind["charge_b"])
        kind["discharge_gain"] = 1.0 / (1.0 - kind["discharge_b"])
        kind["soc_per_kws"] = 1.0 / (3600.0 * kind["capacity_kwh"])
        kind["soc_per_s"] = power * kind["soc_per_kws"]
        kind["s_per_soc"] = 3600.0 * kind["capacity_kwh"] / power
        kind["taper_per_kw"] = (1.0 - kind["taper_soc"]) / power
        kind["decay_per_s"] = kind["soc_per_s"] / (1.0 - kind["taper_soc"])
        kind["cut_off_soc"] = 1.0 - CUT_OFF * (1.0 - kind["taper_soc"])
        kind["full_power_soc"] = min(kind["taper_soc"], kind["soc_target"])
        kind["full_charge_s"] = seconds_to_target(kind, 0.0)


@njit
def charge_as_fast_as_possible(
    kinds: Row, kind_of: NDArray[np.int32], soc: NDArray[np.float64], seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """State of charge after charging from ``soc`` for ``seconds``, s, without any set-point; all (n,)."""
    after = np.empty_like(soc)
    for i in range(len(soc)):
        kind = kinds[kind_of[i]]
        after[i] = charge(kind, soc[i], kind["battery_kw"], seconds[i])[0]
    return after


@njit
def grid_energy_to_target_kwh(
    kinds: Row, kind_of: NDArray[np.int32], soc: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Energy that charging from ``soc`` to the target as fast as possible draws, kWh at the grid; (n,)."""
    energy = np.empty_like(soc)
    for i in range(len(soc)):
        energy[i] = energy_to_target_kwh(kinds[kind_of[i]], soc[i])
    return energy


@njit
def energy_to_target_kwh(kind: Row, soc: float) -> float:
    """Energy that charging from ``soc`` to the target as fast as possible draws, kWh at the grid."""
    _, on_s, first, second = charge(kind, soc, kind["battery_kw"], np.inf)
    drawn = (1.0 + kind["charge_b"]) * first + kind["charge_a"] * on_s + kind["charge_c"] * second
    return float(drawn / 3600.0)


@njit
def plug_in(
    row: Row, kinds: Row, session: int, session_ev: NDArray[np.int32], departure_s: NDArray[np.float64],
    soc: NDArray[np.float64], drive_kwh: NDArray[np.float64], kind_of: NDArray[np.int32],
    outcome: NDArray[np.float64],
) -> None:  # fmt: skip
    """Begin a session; ``soc``, (session,), takes what it begins with where that follows from a drive.

    An EV that was plugged in before in the run, and whose session tells the energy driven since,
    arrives with what it left with, less that energy, but with ``LEAST_SOC`` at least.
    """
    before = session - 1
    if before >= 0 and session_ev[before] == session_ev[session] and drive_kwh[session] == drive_kwh[session]:
        driven = drive_kwh[session] / kinds[kind_of[session]]["capacity_kwh"]
        soc[session] = max(LEAST_SOC, outcome[before, 0] - driven)
    row["soc"] = soc[session]
    row["departure_s"] = departure_s[session]
    row["drawn_kws"] = 0.0
    row["given_kws"] = 0.0
    row["loss_kws"] = 0.0
    row["past_cost"] = 0.0
    row["kind"] = kind_of[session]
    row["session"] = session
    row["guarded"] = 0
    row["fresh"] = 1


@njit
def reprice(places: Places, state: Blocks, rates: NDArray[np.float64], to: NDArray[np.float64]) -> None:
    """Change the rates at which the energy of those plugged in counts from now on; ``rates`` take ``to``.

    ``rates``, (2 or more,): price of energy drawn and of energy given, per kWs. An EV's cost is ``past_cost +
    rates[0] drawn_kws - rates[1] given_kws``, so that nothing is to be added while they stay the same.
    """
    for lane in in_use(places):
        block, i = state[lane // LANES], lane % LANES
        block["past_cost"][i] += (rates[0] - to[0]) * block["drawn_kws"][i]
        block["past_cost"][i] -= (rates[1] - to[1]) * block["given_kws"][i]
    rates[:2] = to[:2]


@njit
def close_session(row: Row, rates: NDArray[np.float64], outcome: NDArray[np.float64]) -> None:
    """Write what a session came to: ``outcome`` (session, 5) is SOC, drawn, given, loss (kWh), cost."""
    session = row["session"]
    outcome[session, 0] = row["soc"]
    outcome[session, 1] = row["drawn_kws"] / 3600.0
    outcome[session, 2] = row["given_kws"] / 3600.0
    outcome[session, 3] = row["loss_kws"] / 3600.0
    outcome[session, 4] = row["past_cost"] + rates[0] * row["drawn_kws"] - rates[1] * row["given_kws"]


def step(
    time_s: float,
    step_s: float,
    rates: NDArray[np.float64],
    managed: bool,
    setpoint_kw: NDArray[np.float64],
    kinds: Row,
    session_ev: NDArray[np.int32],
    arrival_s: NDArray[np.float64],
    departure_s: NDArray[np.float64],
    soc_arrival: NDArray[np.float64],
    drive_kwh: NDArray[np.float64],
    kind_of: NDArray[np.int32],
    by_arrival: NDArray[np.int32],
    cursor: int,
    places: Places,
    state: Blocks,
    columns: Columns,
    power_kw: NDArray[np.float64],
    plugged: NDArray[np.float64],
    outcome: NDArray[np.float64],
    ev_power_kw: NDArray[np.float64],
    ev_soc: NDArray[np.float64],
    mean_kw: NDArray[np.float64],
    gone: NDArray[np.int64],
) -> tuple[int, NDArray[np.int64]]:
    """Advance all EVs over the tick [time_s, time_s + step_s).

    Those that arrive join those plugged in; then, in as many threads as there are cores, since none knows of
    another, each EV is advanced that neither arrives nor leaves; then, in one thread, the few others, even if
    they leave, or leave and come again, within the tick. An EV that is away costs nothing.

    Power is added up in one order, whatever the threads: by rows, and last of all those that arrive or leave.
    Where there are many members, parts hold whole members, and power is added up at once; else, or where the
    power of each EV is asked for, when all have been advanced.

    Parameters
    ----------
    time_s, step_s
        Begin and length of the tick.
    rates
        Those of this tick, by which cost is kept: see :func:`reprice`.
    managed, setpoint_kw
        Set-points, (ev,) kW, if managed; else every EV charges as fast as it can.
    kinds
        (kind,) KIND.
    session_ev, arrival_s, departure_s, soc_arrival, drive_kwh, kind_of
        (session,), sorted by EV, then arrival; sessions of an EV do not overlap. ``soc_arrival`` is
        updated where it follows from the session before, see :func:`plug_in`.
    by_arrival, cursor
        (session,) sessions in order of arrival, and how many of them have arrived.
    places, state, columns
        Where each EV stands, its blocks of STATE, and what moves with it: see
        :mod:`evgrid.fleet.lanes`; updated.
    power_kw
        (slot,) takes the mean power over the tick, kW; a slot is a member's connection and phase. To be
        left as it is from tick to tick.
    plugged
        (member,) takes the number of EVs plugged in, mean over the tick.
    outcome
        (session, 5), see :func:`close_session`.
    ev_power_kw, ev_soc
        (ev,) take the mean power and the state of charge at the end (NaN while away), or (0,).
    mean_kw
        (ev,) room to work in.
    gone
        Slots of those that left in the last tick, see :func:`see_off`.

    Returns the new ``cursor`` and ``gone``.

    """
    end_s = time_s + step_s
    sessions: tuple[Any, ...] = (
        session_ev, arrival_s, departure_s, soc_arrival, drive_kwh, kind_of, outcome,
    )  # fmt: skip
    if len(gone):
        clear_after(gone, power_kw)
    if cursor < len(by_arrival) and arrival_s[by_arrival[cursor]] < end_s:
        coming: tuple[Any, ...] = (end_s, kinds, *sessions, by_arrival, cursor, places, state, columns)
        cursor = arrive(*coming)
    plugged[:] = places.plugged
    at_once = len(plugged) >= MANY_MEMBERS and not len(ev_power_kw)
    changing = np.zeros(len(places.filled) + 1, np.int64)
    rules: tuple[Any, ...] = (places, managed, setpoint_kw, state, kinds)
    moving: tuple[Any, ...] = (*rules, step_s, end_s, power_kw, mean_kw, changing, at_once)
    take_turns(lambda counters, thread: _stay(counters, thread, *moving), len(places.parts) - 1)
    if not at_once:
        in_threads(lambda low, high: add_up(low, high, places, state, power_kw, mean_kw), len(plugged), 1)
    if changing[-1]:
        others: tuple[Any, ...] = (
            changing, *rules, rates, time_s, end_s, *sessions, power_kw, plugged, mean_kw,
        )  # fmt: skip
        _change(*others)
    if len(ev_power_kw):
        tell(in_use(places), state, mean_kw, ev_power_kw, ev_soc)
    gone = see_off(changing, places, state, columns) if changing[-1] else gone[:0]
    return cursor, gone


@njit
def arrive(
    end_s: float, kinds: Row, session_ev: NDArray[np.int32], arrival_s: NDArray[np.float64],
    departure_s: NDArray[np.float64], soc_arrival: NDArray[np.float64], drive_kwh: NDArray[np.float64],
    kind_of: NDArray[np.int32], outcome: NDArray[np.float64], by_arrival: NDArray[np.int32], cursor: int,
    places: Places, state: Blocks, columns: Columns,
) -> int:  # fmt: skip
    """Plug in those that arrive before ``end_s``; arguments and result are those of :func:`step`."""
    scratch = np.zeros(1, STATE)
    while cursor < len(by_arrival) and arrival_s[by_arrival[cursor]] < end_s:
        session = by_arrival[cursor]
        lane = enter(places, state, columns, session_ev[session])
        if lane >= 0:  # else it leaves in this tick, and comes again
            row = scratch[0]
            plug_in(row, kinds, session, session_ev, departure_s, soc_arrival, drive_kwh, kind_of, outcome)
            lower(row, state[lane // LANES], lane % LANES)
        cursor += 1
    return cursor


@njit
def clear(slot: int, spread: int, power: NDArray[np.float64]) -> None:
    """Set the power in an EV's slots to 0."""
    first = np.uint32(slot)
    power[first] = 0.0
    if spread == WIDE:
        for i in range(1, 3):  # a loop, lest the compiler scatter under a mask, which is much slower
            power[first + np.uint32(i)] = 0.0


@njit
def clear_after(gone: NDArray[np.int64], power: NDArray[np.float64]) -> None:
    """Clear the slots of those that left in the last tick."""
    for i in range(len(gone)):
        clear(gone[i, 0], gone[i, 1], power)


@njit
def put(slot: int, spread: int, own: float, power: NDArray[np.float64]) -> None:
    """Add an EV's power to its slots."""
    first = np.uint32(slot)
    if spread == WIDE:
        third = own / 3.0
        power[first] += third
        power[first + np.uint32(1)] += third
        power[first + np.uint32(2)] += third
    else:
        power[first] += own


@njit
def put_block(
    block: Blocks, n: int, alone: bool, own: NDArray[np.float64], begin: int, power: NDArray[np.float64]
) -> None:
    """Add the power of a block's EVs, ``own[begin:]``, to their slots; ``alone``: all are ALONE."""
    if alone:
        for i in range(n):
            power[np.uint32(block["slot"][i])] = own[begin + i]
    else:
        for i in range(n):
            put(block["slot"][i], block["spread"][i], own[begin + i], power)


@njit
def hold_block(
    block: Blocks, n: int, own: NDArray[np.float64], begin: int, mean: NDArray[np.float64],
    power: NDArray[np.float64],
) -> None:  # fmt: skip
    """Write the power of a block's EVs, ``own[begin:]``, to ``mean``, (ev,), and clear their slots."""
    for i in range(n):
        mean[np.uint32(block["ev"][i])] = own[begin + i]
        clear(block["slot"][i], block["spread"][i], power)


@njit
def clear_part(first: int, last: int, places: Places, state: Blocks, power: NDArray[np.float64]) -> None:
    """Clear the slots of all EVs plugged in in the stretches ``first`` to ``last``."""
    for stretch in range(first, last):
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block, i = state[lane // LANES], lane % LANES
            clear(block["slot"][i], block["spread"][i], power)


@njit
def add_up(
    low: int, high: int, places: Places, state: Blocks, power: NDArray[np.float64], mean: NDArray[np.float64]
) -> None:
    """Add up the power, in the order of rows, of the members ``low`` to ``high``.

    Those that arrive or leave come later.
    """
    begin, end = places.member_start[low], places.member_start[high]
    stretch = np.searchsorted(places.first_ev, begin, "right") - 1
    while stretch < len(places.filled) and places.first_ev[stretch] < end:
        first = places.first_lane[stretch]
        for lane in range(first, first + places.filled[stretch]):
            block, i = state[lane // LANES], lane % LANES
            ev = np.uint32(block["ev"][i])
            if begin <= ev < end:
                put(block["slot"][i], block["spread"][i], mean[ev], power)
        stretch += 1


@njit
def _stay(
    counters: NDArray[np.int64], thread: int, places: Places, managed: bool,
    setpoint_kw: NDArray[np.float64], state: Blocks, kinds: Row, step_s: float, end_s: float,
    power_kw: NDArray[np.float64], mean_kw: NDArray[np.float64], changing: NDArray[np.int64], at_once: bool,
) -> None:  # fmt: skip
    """Advance those of the parts that this thread takes that neither arrive nor leave.

    One path without branches on data serves those whose power is constant over the tick, whatever a
    set-point can ask: nearly all. ``changing``, (stretch + 1,), takes the number of those left to
    :func:`_change`, and is not 0 at its end if there are any. ``at_once``: parts hold whole members, and
    power is added up; else it is written to ``mean_kw``, (ev,).
    """
    scratch = np.zeros(1, STATE)
    own_kw = np.zeros(LANES)
    while True:
        part = next_part(counters, thread, len(places.parts) - 1)
        if part < 0:
            break
        alone = places.alone[part]
        if at_once and not alone:  # before anything is added to a slot
            clear_part(places.parts[part], places.parts[part + 1], places, state, power_kw)
        for stretch in range(places.parts[part], places.parts[part + 1]):
            count = places.filled[stretch]
            for begin in range(0, count, LANES):
                block = state[(places.first_lane[stretch] + begin) // LANES]
                n = min(LANES, count - begin)
                for i in range(n):
                    ev = np.uint32(block["ev"][i])
                    kind = kinds[np.uint32(block["kind"][i])]
                    soc = block["soc"][i]
                    limit_kw = kind["charge_kw"]
                    asked = setpoint_kw[ev] if managed else np.inf
                    asked = np.inf if block["guarded"][i] else asked
                    up_kw = min(max(asked, 0.0), limit_kw)  # drawn and given at the grid; one of them is 0
                    down_kw = min(max(-asked, 0.0), kind["discharge_kw"])
                    full = up_kw == limit_kw
                    up_kw = up_kw if soc < kind["soc_target"] else 0.0
                    down_kw = down_kw if soc > kind["soc_floor"] else 0.0
                    into_kw, out_kw, loss_kw = up_kw, down_kw, 0.0
                    if kind["linear"]:
                        into_kw = up_kw * kind["charge_gain"]
                        out_kw = down_kw * kind["discharge_gain"]
                        loss_kw = into_kw * kind["charge_b"] + out_kw * kind["discharge_b"]
                    else:
                        a, b, c = kind["charge_a"], kind["charge_b"], kind["charge_c"]
                        into_kw = battery_kw_drawn(up_kw, a, b, c)
                        if into_kw > 0.0:
                            loss_kw = a + into_kw * (b + into_kw * c)
                        else:
                            up_kw = 0.0
                        a, b, c = kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
                        out_kw = battery_kw_given(down_kw, a, b, c)
                        if out_kw > 0.0:
                            loss_kw = a + out_kw * (b + out_kw * c)
                    then = soc + (into_kw - out_kw) * kind["soc_per_kws"] * step_s
                    highest = min(1.0 - into_kw * kind["taper_per_kw"], kind["soc_target"])
                    # An upper bound of the time needed: exact below the taper, its tangent above.
                    needed_s = kind["full_charge_s"] - then * kind["s_per_soc"]
                    left_s = block["departure_s"][i] - end_s
                    steady = (
                        ((then <= highest) | (into_kw == 0.0))
                        & ((then >= kind["soc_floor"]) | (out_kw == 0.0))
                        & ((left_s > needed_s) | full)
                        & (left_s > 0.0)
                        & (block["fresh"][i] == 0)
                    )
                    own_kw[i] = up_kw - down_kw
                    if steady:
                        block["soc"][i] = then
                        block["drawn_kws"][i] += up_kw * step_s
                        block["given_kws"][i] += down_kw * step_s
                        block["loss_kws"][i] += loss_kw * step_s
                    elif left_s <= 0.0 or block["fresh"][i]:
                        own_kw[i] = 0.0
                        changing[stretch] += 1
                        changing[-1] = 1
                    else:
                        row = scratch[0]
                        lift(block, i, row)
                        asked = setpoint_kw[ev] if managed else np.inf
                        net_kws = _follow(row, kind, asked, step_s, left_s + step_s)
                        lower(row, block, i)
                        own_kw[i] = net_kws / step_s
                if at_once:
                    put_block(block, n, alone, own_kw, 0, power_kw)
                else:
                    hold_block(block, n, own_kw, 0, mean_kw, power_kw)


@njit
def _change(
    changing: NDArray[np.int64], places: Places, managed: bool, setpoint_kw: NDArray[np.float64],
    state: Blocks, kinds: Row, rates: NDArray[np.float64], time_s: float, end_s: float,
    session_ev: NDArray[np.int32], arrival_s: NDArray[np.float64], departure_s: NDArray[np.float64],
    soc_arrival: NDArray[np.float64], drive_kwh: NDArray[np.float64], kind_of: NDArray[np.int32],
    outcome: NDArray[np.float64], power_kw: NDArray[np.float64], plugged: NDArray[np.float64],
    mean_kw: NDArray[np.float64],
) -> None:  # fmt: skip
    """Advance those that arrive or leave within the tick, even repeatedly.

    ``changing``, (stretch,): how many they are. ``plugged`` takes, by member, what they are short of a whole
    tick. Those that left keep their lane, with session -1.
    """
    step_s = end_s - time_s
    scratch = np.zeros(1, STATE)
    for stretch in range(len(places.filled)):
        if not changing[stretch]:
            continue
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block = state[lane // LANES]
            i = lane % LANES
            if block["departure_s"][i] <= end_s or block["fresh"][i]:
                row = scratch[0]
                lift(block, i, row)
                ev = row["ev"]
                net_kws, plugged_s = _come_and_go(
                    row, setpoint_kw[ev] if managed else np.inf, kinds, rates, time_s, end_s,
                    session_ev, arrival_s, departure_s, soc_arrival, drive_kwh, kind_of, outcome,
                )  # fmt: skip
                lower(row, block, i)
                mean_kw[ev] = net_kws / step_s
                plugged[np.searchsorted(places.member_start, ev, "right") - 1] += plugged_s / step_s - 1.0
                put(row["slot"], row["spread"], mean_kw[ev], power_kw)


@njit
def tell(
    lanes: NDArray[np.int64], state: Blocks, mean_kw: NDArray[np.float64], ev_power_kw: NDArray[np.float64],
    ev_soc: NDArray[np.float64],
) -> None:  # fmt: skip
    """Fill each EV's mean power and state of charge, of those that were plugged in in this tick."""
    ev_power_kw[:] = 0.0
    ev_soc[:] = np.nan
    for lane in lanes:
        block, i = state[lane // LANES], lane % LANES
        ev = block["ev"][i]
        ev_power_kw[ev] = mean_kw[ev]
        if block["session"][i] >= 0:
            ev_soc[ev] = block["soc"][i]


@njit
def see_off(
    changing: NDArray[np.int64], places: Places, state: Blocks, columns: Columns
) -> NDArray[np.int64]:
    """Move those that left in this tick behind those that stay; where their power went, (left, 2).

    ``changing``, (stretch,): how many arrived or left there at most. Returns the slot, and ALONE, SHARED or
    WIDE, of each.
    """
    gone = np.empty((changing.sum(), 2), np.int64)
    left = 0
    for stretch in range(len(places.filled)):
        if changing[stretch]:
            begin = places.first_lane[stretch]
            for lane in range(begin + places.filled[stretch] - 1, begin - 1, -1):
                block, i = state[lane // LANES], lane % LANES
                if block["session"][i] < 0:
                    gone[left, 0], gone[left, 1] = block["slot"][i], block["spread"][i]
                    left += 1
                    quit_lane(places, state, columns, stretch, lane)
    return gone[:left]


@njit
def _come_and_go(
    row: Row, setpoint_kw: float, kinds: Row, rates: NDArray[np.float64], time_s: float, end_s: float,
    session_ev: NDArray[np.int32], arrival_s: NDArray[np.float64], departure_s: NDArray[np.float64],
    soc_arrival: NDArray[np.float64], drive_kwh: NDArray[np.float64], kind_of: NDArray[np.int32],
    outcome: NDArray[np.float64],
) -> tuple[float, float]:  # fmt: skip
    """Advance an EV, a row of STATE, over a tick in which it arrives or leaves, even repeatedly.

    Returns the net energy drawn, kWs, and the time that it was plugged in, s.
    """
    session = row["session"]
    net_kws = 0.0
    plugged_s = 0.0
    while True:
        from_s = max(arrival_s[session], time_s)
        until_s = min(row["departure_s"], end_s)
        plugged_s += until_s - from_s
        left_s = row["departure_s"] - from_s
        net_kws += _follow(row, kinds[row["kind"]], setpoint_kw, until_s - from_s, left_s)
        row["fresh"] = 0
        if row["departure_s"] > end_s:
            break
        close_session(row, rates, outcome)
        session += 1
        if session == len(session_ev) or session_ev[session] != row["ev"] or arrival_s[session] >= end_s:
            row["session"] = -1
            break
        plug_in(row, kinds, session, session_ev, departure_s, soc_arrival, drive_kwh, kind_of, outcome)
    return net_kws, plugged_s


@njit
def _follow(row: Row, kind: Row, setpoint_kw: float, seconds: float, left_s: float) -> float:
    """Advance one EV by the exact way, book what it drew and gave, and return the net of it, kWs."""
    soc, guarded, drawn, given, loss, _, _, _, _, _ = advance(
        kind, row["soc"], setpoint_kw, seconds, left_s, row["guarded"]
    )
    row["soc"] = soc
    row["guarded"] = guarded
    row["drawn_kws"] += drawn
    row["given_kws"] += given
    row["loss_kws"] += loss
    return drawn - given


@njit
def status(
    now_s: float,
    kinds: Row,
    places: Places,
    state: Blocks,
    plugged: NDArray[np.float64],
    soc: NDArray[np.float64],
    p_max_kw: NDArray[np.float64],
    p_min_kw: NDArray[np.float64],
    energy_needed_kwh: NDArray[np.float64],
    time_left_s: NDArray[np.float64],
    time_needed_s: NDArray[np.float64],
) -> None:
    """What the chargers report at ``now_s``; fills the (ev,) arrays, 0 for EVs that are away.

    An EV whose laxity is used up reports that it can't give anything back.
    """
    for array in (plugged, soc, p_max_kw, p_min_kw, energy_needed_kwh, time_left_s, time_needed_s):
        array[:] = 0.0
    for lane in in_use(places):
        block, i = state[lane // LANES], lane % LANES
        ev = block["ev"][i]
        kind = kinds[block["kind"][i]]
        own = block["soc"][i]
        plugged[ev] = 1.0
        soc[ev] = own
        time_left_s[ev] = block["departure_s"][i] - now_s
        if own < kind["soc_target"]:
            battery_kw = charge_limit_kw(kind, own)
            p_max_kw[ev] = min(
                battery_kw
                + (kind["charge_a"] + kind["charge_b"] * battery_kw + kind["charge_c"] * battery_kw**2),
                kind["charge_kw"],
            )
            energy_needed_kwh[ev] = energy_to_target_kwh(kind, own)
            time_needed_s[ev] = seconds_to_target(kind, own)
        if own > kind["soc_floor"] and not block["guarded"][i]:
            p_min_kw[ev] = -kind["discharge_kw"]
