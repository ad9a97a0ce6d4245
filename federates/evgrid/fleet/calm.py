"""The full pass over EVs in whose tick nothing happens: nearly all of them, nearly always.

A tick of an EV is *calm* if its power is constant over it, or moves only as a first-order response does:
it neither arrives nor leaves, meets no taper, target or floor, uses up no laxity and no cap, isn't held
back by its temperature, and its EVSE is in service, at a voltage and a frequency at which no trip counts
and no curve limits active power. For such a tick, all that :func:`evgrid.fleet.physics.window` does is
straight-line arithmetic. Here it is once more, over blocks of EVs and without branches on data, so that
the compiler computes several EVs at once. What isn't surely calm is left to ``window``.

The numbers are those of ``window`` but for rounding, and an EV's don't depend on the others of its block.

EVs are taken a block at a time, see :mod:`evgrid.fleet.lanes`: ``state`` and ``own`` are its blocks of STATE
and of PHYSICS. ``w`` is room to work in, of a *column* of numbers for each quantity, one after the other:
``w[VOLT + i]`` is the voltage at the EV in lane ``i``. One array with columns at constant places is what the
compiler can prove not to overlap. ``curve`` holds the points of each EV's curve of reactive power: for point
j, ``curve[COLUMN * 3 * j + i]`` is where it begins, ``+ COLUMN`` its value and ``+ 2 * COLUMN`` its slope to
the next. Constants of an EV's kind and of its EVSE's functions stay in their columns from block to block
while they are the same.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.compile import njit
from evgrid.curves.kernels import POINTS, POWER_FACTOR, REST, WATT_VAR
from evgrid.fleet.lanes import LANES, Blocks
from evgrid.fleet.physics import (
    DEPARTURE,
    DRIVER,
    EVSE,
    FLOOR,
    GRID,
    INTERCONNECTION,
    SAME,
    VEHICLE,
    WARRANTY,
)

COLUMN = LANES + 8
"""Places of a column: its EVs, and a cache line more, so that few columns are a multiple of 4096 bytes apart,
which processors take for the same place at first."""

LEAST_POINTS = 4
"""Points of a curve that are looked at in any case: those of volt-var and watt-var."""

# What is asked of an EV, and what its EVSE sees
ASKED_KW, VOLT, LOWEST, HIGHEST, HERTZ = (COLUMN * i for i in range(5))
# Constants of its kind
CHARGE_KW, CHARGE_A, CHARGE_B, CHARGE_C, CAPACITY = (COLUMN * i for i in range(5, 10))
DISCHARGE_KW, DISCHARGE_A, DISCHARGE_B, DISCHARGE_C, MOST_OUT_KW = (COLUMN * i for i in range(10, 15))
BATTERY_KW, SOC_PER_KWS, TAPER_PER_KW, TARGET, FLOOR_SOC = (COLUMN * i for i in range(15, 20))
S_PER_SOC, FULL_S, FULL_POWER_SOC = (COLUMN * i for i in range(20, 23))
# Constants of its EVSE's local functions; BY_POWER is 1 for watt-var
S_KVA, MOST_KW, LEAST_KW, VAR_PRIORITY, BY_POWER, KVAR_PER_KW = (COLUMN * i for i in range(23, 29))
DROOP_HIGH, DROOP_LOW, OVER, UNDER, DROOP_LEFT, DROOP_MEAN = (COLUMN * i for i in range(29, 35))
REACTIVE_LEFT, REACTIVE_MEAN, CALM_LOW, CALM_HIGH, CALM_LOW_HZ, CALM_HIGH_HZ = (
    COLUMN * i for i in range(35, 41)
)
# On the way to what the tick comes to
RAMPED_KW, REASON, WANTED_KW, WISHED_KW, ANSWER_KW, FROM_KW, TO_KW = (COLUMN * i for i in range(41, 48))
AT, AIM, FROM_KVAR, TO_KVAR, DROOP_KW, GUARDED = (COLUMN * i for i in range(48, 54))
# What the tick comes to: whether it is calm, and if so means over it and what was refused
CALM, NET_KW, Q_KVAR, REFUSED_KWH = (COLUMN * i for i in range(54, 58))
COLUMNS = 58

Row = Any
"""A row of one of the tables of the modules that call."""


@njit
def fill_kind(w: NDArray[np.float64], i: int, kind: Row) -> None:
    """Set the constants of EV ``i``'s kind, a row of KIND."""
    w[CHARGE_KW + i] = kind["charge_kw"]
    w[CHARGE_A + i] = kind["charge_a"]
    w[CHARGE_B + i] = kind["charge_b"]
    w[CHARGE_C + i] = kind["charge_c"]
    w[CAPACITY + i] = kind["capacity_kwh"]
    w[DISCHARGE_KW + i] = kind["discharge_kw"]
    w[DISCHARGE_A + i] = kind["discharge_a"]
    w[DISCHARGE_B + i] = kind["discharge_b"]
    w[DISCHARGE_C + i] = kind["discharge_c"]
    w[MOST_OUT_KW + i] = kind["most_out_kw"]
    w[BATTERY_KW + i] = kind["battery_kw"]
    w[SOC_PER_KWS + i] = kind["soc_per_kws"]
    w[TAPER_PER_KW + i] = kind["taper_per_kw"]
    w[TARGET + i] = kind["soc_target"]
    w[FLOOR_SOC + i] = kind["soc_floor"]
    w[S_PER_SOC + i] = kind["s_per_soc"]
    w[FULL_S + i] = kind["full_charge_s"]
    w[FULL_POWER_SOC + i] = kind["full_power_soc"]


@njit
def fill_functions(
    w: NDArray[np.float64], curve: NDArray[np.float64], i: int, parameters: Row, points: int
) -> None:
    """Set the constants of the local functions of EV ``i``'s EVSE, a row of PARAMETERS."""
    w[S_KVA + i] = parameters["s_kva"]
    w[MOST_KW + i] = parameters["charge_kw"]
    w[LEAST_KW + i] = -parameters["discharge_kw"]
    w[VAR_PRIORITY + i] = parameters["var_priority"]
    w[DROOP_HIGH + i] = parameters["droop_high_hz"]
    w[DROOP_LOW + i] = parameters["droop_low_hz"]
    w[OVER + i] = parameters["over_kw_per_hz"]
    w[UNDER + i] = parameters["under_kw_per_hz"]
    w[DROOP_LEFT + i] = parameters["droop_left"]
    w[DROOP_MEAN + i] = parameters["droop_mean"]
    w[REACTIVE_LEFT + i] = parameters["reactive_left"]
    w[REACTIVE_MEAN + i] = parameters["reactive_mean"]
    w[CALM_LOW + i] = parameters["calm_low_pu"]
    w[BY_POWER + i] = parameters["reactive"] == WATT_VAR
    w[KVAR_PER_KW + i] = parameters["kvar_per_kw"] if parameters["reactive"] == POWER_FACTOR else 0.0
    w[CALM_HIGH + i] = parameters["calm_high_pu"]
    w[CALM_LOW_HZ + i] = parameters["trip_low_hz"]
    w[CALM_HIGH_HZ + i] = parameters["trip_high_hz"]
    for j in range(points):
        at = parameters["reactive_at"][j]
        value = parameters["reactive_kvar"][j]
        slope = 0.0
        if j + 1 < POINTS and parameters["reactive_at"][j + 1] > at:
            slope = (parameters["reactive_kvar"][j + 1] - value) / (parameters["reactive_at"][j + 1] - at)
        curve[COLUMN * 3 * j + i] = at
        curve[COLUMN * (3 * j + 1) + i] = value
        curve[COLUMN * (3 * j + 2) + i] = slope


@njit
def points_of(parameters: Row) -> int:
    """Most points that a curve of reactive power of ``parameters``, (kind,), has; LEAST_POINTS at least."""
    most = LEAST_POINTS
    for row in range(len(parameters)):
        for j in range(POINTS - 1):
            if parameters[row]["reactive_at"][j + 1] > parameters[row]["reactive_at"][j]:
                most = max(most, j + 2)
    return most


@njit
def wish(
    w: NDArray[np.float64], state: Blocks, own: Blocks, n: int, options: Row, seconds: float, end_s: float,
    idle_c: float, willing: bool,
) -> None:  # fmt: skip
    """What the EVs wish for, and whether their tick is calm so far as this tells."""
    per_s = 1.0 / seconds
    a_per_kw = 1000.0 / options["volt"]
    a_per_kw_of_three = 1000.0 / (options["volt"] * 3)
    kw_per_a = options["volt"] / 1000.0
    least_a = options["least_a"]
    pilot_a = options["pilot_a"]
    pilots_per_a = 1.0 / pilot_a
    any_current = pilot_a == 0.0
    cap_kws = options["throughput_kws"]
    nearly_cap_kws = cap_kws * (1.0 - 1e-12)
    cap_s = options["discharging_s"]
    unwilling = not willing
    s_per_kw = 1.0 / options["ramp_kw_per_s"]
    reach = options["ramp_kw_per_s"] * seconds
    warm_c = options["warm_c"] if options["thermal"] else inf
    mild_c = options["mild_c"] if options["thermal"] else -inf
    freezing_c = options["freezing_c"]
    cold_rate = options["cold_c_rate"]
    rate_per_c = (options["mild_c_rate"] - cold_rate) / (options["mild_c"] - freezing_c)
    for i in range(n):
        soc = state["soc"][i]
        left_s = state["departure_s"][i] - end_s
        guarded = state["guarded"][i]
        fresh = state["fresh"][i]
        out_kws = own["out_kws"][i]
        discharging_s = own["discharging_s"][i]
        before_kw = own["ramped_kw"][i]
        above_k = own["above_k"][i]
        never = own["refusal"][i]
        disturbed = own["disturbed"][i]
        phases = float(own["phases"][i])
        limit_kw = w[CHARGE_KW + i]
        most_given_kw = w[DISCHARGE_KW + i]
        asked_kw = w[ASKED_KW + i]

        # The pilot, as on_pilot_kw
        three = phases == 3.0
        amperes = asked_kw * (a_per_kw_of_three if three else a_per_kw) * (1.0 + 1e-12)
        cut_kw = np.floor(amperes * pilots_per_a) * pilot_a * (kw_per_a * phases)
        told_kw = asked_kw if any_current else cut_kw
        told_kw = 0.0 if amperes < least_a else told_kw
        told_kw = told_kw if (asked_kw > 0.0) & (asked_kw < 1e300) else asked_kw

        # Permission, as refusal_of, from the last reason to the first
        rated_kw = most_given_kw if most_given_kw > 0.0 else limit_kw
        spent = (out_kws >= nearly_cap_kws) | (discharging_s >= cap_s)
        reason = float(DRIVER) if unwilling | (never == DRIVER) else 0.0
        reason = float(WARRANTY) if spent else reason
        reason = float(never) if (never == INTERCONNECTION) | (never == WARRANTY) else reason
        reason = float(EVSE) if most_given_kw == 0.0 else reason
        reason = float(VEHICLE) if never == VEHICLE else reason
        reason = reason if asked_kw < 0.0 else 0.0
        told_kw = 0.0 if reason > 0.0 else told_kw
        near_cap = (told_kw < 0.0) & ((cap_kws - out_kws) * per_s < 2.0 * rated_kw)

        # The ramp, as ramped_kw
        goal_kw = min(max(told_kw, -most_given_kw), limit_kw)
        way_kw = goal_kw - before_kw
        needed_s = abs(way_kw) * s_per_kw
        on_the_way = needed_s >= seconds
        reached_kw = before_kw + (reach if way_kw > 0.0 else -reach)
        reached_kw = reached_kw if on_the_way else goal_kw
        average_kw = goal_kw - 0.5 * way_kw * (needed_s * per_s)
        average_kw = 0.5 * (before_kw + reached_kw) if on_the_way else average_kw
        followed_kw = inf if guarded != 0 else average_kw

        # What the EV wishes for, and its laxity, which is looked at from below
        up_kw = min(max(followed_kw, 0.0), limit_kw)
        down_kw = min(max(-followed_kw, 0.0), most_given_kw)
        full = up_kw == limit_kw
        up_kw = up_kw if (soc < w[TARGET + i]) & (up_kw > w[CHARGE_A + i]) else 0.0
        down_kw = down_kw if soc > w[FLOOR_SOC + i] else 0.0
        most_out_kw = w[MOST_OUT_KW + i]
        least_soc = soc - (most_out_kw if down_kw > 0.0 else 0.0) * (w[SOC_PER_KWS + i] * seconds)
        lax = full | (left_s > w[FULL_S + i] - least_soc * w[S_PER_SOC + i])

        # Temperature, as thermal_limit_kw
        cell_c = idle_c + above_k
        cold_kw = (cold_rate + (cell_c - freezing_c) * rate_per_c) * w[CAPACITY + i]
        mild = (cell_c >= mild_c) | ((cell_c >= freezing_c) & (cold_kw >= w[BATTERY_KW + i]))

        stays = (left_s > 0.0) & (fresh == 0) & (disturbed == 0)
        calm = stays & lax & mild & (cell_c <= warm_c) & (near_cap == False)  # noqa: E712
        wanted_kw = min(max(-asked_kw, 0.0), rated_kw)
        wished_kw = up_kw - down_kw
        w[CALM + i] = 1.0 if calm else 0.0
        w[RAMPED_KW + i] = reached_kw
        w[REASON + i] = reason
        w[WANTED_KW + i] = min(wanted_kw, max(-average_kw, 0.0)) if reason == 0.0 else wanted_kw
        w[GUARDED + i] = float(guarded)
        w[WISHED_KW + i] = wished_kw
        w[ANSWER_KW + i] = wished_kw
        w[FROM_KW + i] = wished_kw
        w[TO_KW + i] = wished_kw


@njit
def droops(w: NDArray[np.float64], own: Blocks, n: int) -> bool:
    """Whether a frequency-watt is at work at an EV of the block."""
    some = False
    for i in range(n):
        hertz = w[HERTZ + i]
        some |= (own["droop_kw"][i] != 0.0) | (hertz > w[DROOP_HIGH + i]) | (hertz < w[DROOP_LOW + i])
    return some


@njit
def droop(w: NDArray[np.float64], state: Blocks, own: Blocks, n: int, seconds: float) -> None:
    """What frequency-watt makes of the wish, where there is room for all of it, or for none."""
    for i in range(n):
        soc = state["soc"][i]
        wished_kw = w[WISHED_KW + i]
        limit_kw = w[CHARGE_KW + i]
        most_given_kw = w[DISCHARGE_KW + i]
        hertz = w[HERTZ + i]
        shift_kw = max(hertz - w[DROOP_HIGH + i], 0.0) * w[OVER + i]
        shift_kw += min(hertz - w[DROOP_LOW + i], 0.0) * w[UNDER + i]
        off_kw = own["droop_kw"][i] - shift_kw
        off_kw = off_kw if w[DROOP_MEAN + i] != 0.0 else 0.0
        rest_kw = off_kw * w[DROOP_LEFT + i]
        droop_kw = shift_kw + (rest_kw if abs(rest_kw) >= REST else 0.0)
        moved = (off_kw != 0.0) | (shift_kw != 0.0)
        barred = (w[REASON + i] > 0.0) | (most_given_kw == 0.0) | (own["refusal"][i] > 0)
        low_kw = min(wished_kw, 0.0) if barred else -most_given_kw
        low_kw = max(low_kw, w[LEAST_KW + i])
        high_kw = min(limit_kw, w[MOST_KW + i])
        from_kw = wished_kw + shift_kw + off_kw
        to_kw = wished_kw + droop_kw
        cut_from_kw = min(max(from_kw, low_kw), high_kw)
        cut_to_kw = min(max(to_kw, low_kw), high_kw)
        within = (cut_from_kw == from_kw) & (cut_to_kw == to_kw)
        step_soc = w[SOC_PER_KWS + i] * seconds
        roomy = (soc + w[BATTERY_KW + i] * step_soc <= w[FULL_POWER_SOC + i]) & (
            soc - 2.0 * most_given_kw * step_soc >= w[FLOOR_SOC + i]
        )
        answer_kw = wished_kw + shift_kw + off_kw * w[DROOP_MEAN + i]
        answer_kw = answer_kw if within else cut_from_kw
        known = (within | (cut_from_kw == cut_to_kw)) & roomy
        before = w[CALM + i]
        w[CALM + i] = before if known | (moved == False) else 0.0  # noqa: E712
        w[ANSWER_KW + i] = answer_kw if moved else wished_kw
        w[FROM_KW + i] = cut_from_kw if moved else wished_kw
        w[TO_KW + i] = cut_to_kw if moved else wished_kw
        w[DROOP_KW + i] = droop_kw


@njit
def aim(w: NDArray[np.float64], curve: NDArray[np.float64], n: int, points: int, by_power: bool) -> None:
    """What the curves of reactive power say at the EVs' voltages, or at the power that they settle at.

    ``by_power``: whether the latter is so for any.
    """
    for i in range(n):
        w[AT + i] = w[VOLT + i]
    if by_power:
        for i in range(n):
            power_kw = w[TO_KW + i]
            rated_kw = w[MOST_KW + i] if power_kw > 0.0 else -w[LEAST_KW + i]
            share = power_kw / rated_kw
            share = share if power_kw != 0.0 else 0.0
            w[AT + i] = share if w[BY_POWER + i] != 0.0 else w[VOLT + i]
    for i in range(n):
        x = w[AT + i]
        y = curve[COLUMN + i]
        for j in range(LEAST_POINTS):
            begin = curve[3 * COLUMN * j + i]
            value = curve[(3 * j + 1) * COLUMN + i] + (x - begin) * curve[(3 * j + 2) * COLUMN + i]
            y = value if x >= begin else y
        w[AIM + i] = y
    for j in range(LEAST_POINTS, points):
        at = curve[3 * COLUMN * j : 3 * COLUMN * (j + 1)]
        for i in range(n):
            x = w[AT + i]
            value = at[COLUMN + i] + (x - at[i]) * at[2 * COLUMN + i]
            before = w[AIM + i]
            w[AIM + i] = value if x >= at[i] else before


@njit
def react(w: NDArray[np.float64], own: Blocks, n: int) -> int:
    """Reactive power, and whether voltage and frequency are undisturbed; how many EVs lack room for it."""
    short = 0
    for i in range(n):
        aim_kvar = w[AIM + i]
        off_kvar = own["reactive_kvar"][i] - aim_kvar
        off_kvar = off_kvar if w[REACTIVE_MEAN + i] != 0.0 else 0.0
        rest_kvar = off_kvar * w[REACTIVE_LEFT + i]
        to_kvar = aim_kvar + (rest_kvar if abs(rest_kvar) >= REST else 0.0)
        from_kvar = aim_kvar + off_kvar
        most_kw = max(abs(w[FROM_KW + i]), abs(w[TO_KW + i]))
        kvar_per_kw = w[KVAR_PER_KW + i]
        most_kvar = max(abs(from_kvar), abs(to_kvar)) + abs(kvar_per_kw) * most_kw
        follows = (w[BY_POWER + i] != 0.0) | (kvar_per_kw != 0.0)
        undisturbed = (
            (w[LOWEST + i] > 0.0)
            & (w[LOWEST + i] >= w[CALM_LOW + i])
            & (w[HIGHEST + i] <= w[CALM_HIGH + i])
            & (w[HERTZ + i] >= w[CALM_LOW_HZ + i])
            & (w[HERTZ + i] <= w[CALM_HIGH_HZ + i])
            & (w[ANSWER_KW + i] >= w[LEAST_KW + i])
            & (w[ANSWER_KW + i] <= w[MOST_KW + i])
            & ((w[FROM_KW + i] == w[TO_KW + i]) | (follows == False))  # noqa: E712
        )
        before = w[CALM + i]
        w[CALM + i] = before if undisturbed else 0.0
        w[TO_KVAR + i] = to_kvar
        w[FROM_KVAR + i] = from_kvar
        w[Q_KVAR + i] = aim_kvar + off_kvar * w[REACTIVE_MEAN + i] + kvar_per_kw * abs(w[ANSWER_KW + i])
        short += most_kw * most_kw + most_kvar * most_kvar > w[S_KVA + i] * w[S_KVA + i]
    return short


@njit
def make_room(w: NDArray[np.float64], n: int) -> None:
    """Cut reactive power to what active power leaves of the rating, where watt priority cuts all of it."""
    for i in range(n):
        square = w[S_KVA + i] * w[S_KVA + i]
        from_kw, to_kw = w[FROM_KW + i], w[TO_KW + i]
        from_kvar, to_kvar = w[FROM_KVAR + i], w[TO_KVAR + i]
        most_kw = max(abs(from_kw), abs(to_kw))
        most_kvar = max(abs(from_kvar), abs(to_kvar)) + abs(w[KVAR_PER_KW + i]) * most_kw
        short = most_kw * most_kw + most_kvar * most_kvar > square
        room_kvar = np.sqrt(max(square - from_kw * from_kw, 0.0))
        cut_from_kvar = min(max(from_kvar, -room_kvar), room_kvar)
        cut_to_kvar = min(max(to_kvar, -room_kvar), room_kvar)
        inside = (cut_from_kvar == from_kvar) & (cut_to_kvar == to_kvar)
        known = (from_kw == to_kw) & (w[VAR_PRIORITY + i] == 0.0) & (w[KVAR_PER_KW + i] == 0.0)
        known = known & (inside | (cut_from_kvar == cut_to_kvar))
        before, q_kvar = w[CALM + i], w[Q_KVAR + i]
        w[CALM + i] = before if known | (short == False) else 0.0  # noqa: E712
        w[Q_KVAR + i] = cut_from_kvar if short & (inside == False) else q_kvar  # noqa: E712


@njit
def settle(
    w: NDArray[np.float64], state: Blocks, own: Blocks, n: int, options: Row, seconds: float,
    import_per_kws: float, export_per_kws: float, kg_per_kws: float,
) -> tuple[int, int]:  # fmt: skip
    """Take those whose tick is calm to its end, at the power that is left of the wish.

    Returns how many aren't calm, and of how many something was refused.
    """
    driver_floor = options["driver_floor"]
    warranty_floor = options["warranty_floor"]
    standby_kw = options["standby_kw"]
    heating = options["heating_k_per_kw"]
    warmth_left = np.exp(-options["cooling_per_s"] * seconds)
    hours = seconds / 3600.0
    others, refusing = 0, 0
    for i in range(n):
        soc = state["soc"][i]
        wished_kw = w[WISHED_KW + i]
        answer_kw = w[ANSWER_KW + i]
        limit_kw = w[CHARGE_KW + i]
        floor = w[FLOOR_SOC + i]
        power_kw = answer_kw if abs(answer_kw - wished_kw) > SAME * limit_kw else wished_kw

        # The battery, as battery_kw_drawn and battery_kw_given
        charges = power_kw > 0.0
        size_kw = abs(power_kw)
        sign = 1.0 if charges else -1.0
        a, b, c = w[CHARGE_A + i], w[CHARGE_B + i], w[CHARGE_C + i]
        a_out, b_out, c_out = w[DISCHARGE_A + i], w[DISCHARGE_B + i], w[DISCHARGE_C + i]
        a, b, c = (a if charges else a_out), (b if charges else b_out), (c if charges else c_out)
        net_kw = size_kw - sign * a
        beta = 1.0 + sign * b
        root = np.sqrt(max(beta * beta + sign * 4.0 * c * net_kw, 0.0))
        inner_kw = 2.0 * net_kw / (beta + root)
        inner_kw = w[BATTERY_KW + i] if power_kw == limit_kw else inner_kw
        flows = (size_kw > 0.0) & (net_kw > 0.0)
        inner_kw = inner_kw if flows else 0.0
        loss_kw = a + inner_kw * (b + c * inner_kw)
        loss_kw = loss_kw if flows else standby_kw
        then = soc + sign * inner_kw * (w[SOC_PER_KWS + i] * seconds)
        highest = min(1.0 - inner_kw * w[TAPER_PER_KW + i], w[TARGET + i])
        bounded = (inner_kw == 0.0) | ((then <= highest) & charges) | ((then >= floor) & (power_kw < 0.0))
        calm = (w[CALM + i] != 0.0) & bounded

        flowing_kw = size_kw if flows else 0.0
        given_kw = 0.0 if charges else flowing_kw
        drawn_kw = flowing_kw - given_kw + (0.0 if flows else standby_kw)
        rise_k = heating * loss_kw
        wanted_kw = w[WANTED_KW + i]
        refused_kw = wanted_kw - given_kw
        refused_kw = refused_kw if (refused_kw > 1e-9 * wanted_kw) & calm else 0.0
        whose = float(FLOOR)
        whose = float(WARRANTY) if 0.0 < floor <= warranty_floor else whose
        whose = float(DRIVER) if 0.0 < floor <= driver_floor else whose
        whose = whose if answer_kw == wished_kw else float(GRID)
        whose = float(DEPARTURE) if w[GUARDED + i] != 0.0 else whose
        reason, reached_kw = w[REASON + i], w[RAMPED_KW + i]

        others += calm == False  # noqa: E712
        refusing += refused_kw > 0.0
        w[CALM + i] = 1.0 if calm else 0.0
        w[NET_KW + i] = drawn_kw - given_kw
        w[REFUSED_KWH + i] = refused_kw * hours
        w[REASON + i] = reason if reason > 0.0 else whose

        drawn_kws = drawn_kw * seconds if calm else 0.0
        given_kws = given_kw * seconds if calm else 0.0
        loss_kws = loss_kw * seconds if calm else 0.0
        gives = calm & (given_kw > 0.0)
        before_k, before_kw = own["above_k"][i], own["ramped_kw"][i]
        after_k = rise_k + (before_k - rise_k) * warmth_left
        state["soc"][i] = then if calm else soc
        state["drawn_kws"][i] += drawn_kws
        state["given_kws"][i] += given_kws
        state["loss_kws"][i] += loss_kws
        state["cost"][i] += drawn_kws * import_per_kws - given_kws * export_per_kws
        own["ramped_kw"][i] = reached_kw if calm else before_kw
        own["above_k"][i] = after_k if calm else before_k
        own["out_kws"][i] += inner_kw * seconds if gives else 0.0
        own["discharging_s"][i] += seconds if gives else 0.0
        own["emitted_kg"][i] += (drawn_kws - given_kws) * kg_per_kws
    return others, refusing


@njit
def note(w: NDArray[np.float64], own: Blocks, n: int, drooped: bool) -> None:
    """What the functions of the EVSEs that are calm remember of the tick."""
    for i in range(n):
        calm, before_kvar, after_kvar = w[CALM + i] != 0.0, own["reactive_kvar"][i], w[TO_KVAR + i]
        own["reactive_kvar"][i] = after_kvar if calm else before_kvar
    if drooped:
        for i in range(n):
            calm, before_kw, after_kw = w[CALM + i] != 0.0, own["droop_kw"][i], w[DROOP_KW + i]
            own["droop_kw"][i] = after_kw if calm else before_kw
