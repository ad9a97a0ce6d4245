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
compiler can prove not to overlap. Constants of an EV's kind and of its EVSE's functions stay in their columns
from block to block while they are the same. ``rules``, see :func:`rules_of`, are those of the tick.

:func:`plan` and :func:`settle` are all that most blocks need. Frequency-watt at work, curves of many segments
or by power, and reactive power that the rating has no room for come in between.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit
from evgrid.fleet.lanes import LANES, Blocks
from evgrid.fleet.physics import (
    DEPARTURE,
    DRIVER,
    EVSE,
    GRID,
    SAME,
    WARRANTY,
    whose_floor,
)
from evgrid.inverter_functions.kernels import POINTS, POWER_FACTOR, REST, WATT_VAR

COLUMN = LANES + 8
"""Places of a column: its EVs, and a cache line more, so that few columns are a multiple of 4096 bytes apart,
which processors take for the same place at first."""

SEGMENTS = 3
"""Segments of a curve of reactive power that are looked at in any case: those of volt-var."""

LEAST_PU = 1e-9
"""Voltage below which there is none."""

NOBODY = float(DRIVER) + 1.0
"""No reason of those that are asked before a discharge. They are numbered in the order in which they are
asked, so that the first that holds is the least."""

# What is asked of an EV, and what its EVSE sees
ASKED_KW, VOLT, LOWEST, HIGHEST, HERTZ = (COLUMN * i for i in range(5))
# Constants of its kind; BARRED is EVSE or NOBODY, NEARLY_SPENT_KWS where a tick could use the cap up
CHARGE_KW, DISCHARGE_KW, RATED_KW, BATTERY_KW, CAPACITY = (COLUMN * i for i in range(5, 10))
IN_A, IN_BETA, IN_4C, OUT_A, OUT_BETA, OUT_4C = (COLUMN * i for i in range(10, 16))
TARGET, FLOOR_SOC, S_PER_SOC, FULL_S, FULL_POWER_SOC, TAPER_PER_KW = (COLUMN * i for i in range(16, 22))
STEP_SOC_PER_KW, MOST_STEP_OUT, BARRED, NEARLY_SPENT_KWS = (COLUMN * i for i in range(22, 26))
# Constants of its EVSE's local functions; BY_POWER is 1 for watt-var, FIRST_KVAR the begin of the curve
S_KVA, MOST_KW, LEAST_KW, VAR_PRIORITY, BY_POWER, KVAR_PER_KW = (COLUMN * i for i in range(26, 32))
DROOP_HIGH, DROOP_LOW, OVER, UNDER, DROOP_LEFT, DROOP_MEAN = (COLUMN * i for i in range(32, 38))
REACTIVE_LEFT, REACTIVE_MEAN, CALM_LOW, CALM_HIGH, CALM_LOW_HZ, CALM_HIGH_HZ, FIRST_KVAR = (
    COLUMN * i for i in range(38, 45)
)
# The first segments of its curve of reactive power: begin, length, slope
AT_0, LENGTH_0, SLOPE_0, AT_1, LENGTH_1, SLOPE_1, AT_2, LENGTH_2, SLOPE_2 = (
    COLUMN * i for i in range(45, 54)
)
# On the way to what the tick comes to: WISHED_KW, FROM_KW, TO_KW, AT, AIM, FROM_KVAR and DROOP_KW by need
RAMPED_KW, REASON, WANTED_KW, ANSWER_KW, TO_KVAR = (COLUMN * i for i in range(54, 59))
WISHED_KW, FROM_KW, TO_KW, AT, AIM, FROM_KVAR, DROOP_KW = (COLUMN * i for i in range(59, 66))
# What the tick comes to: whether it is calm, and if so means over it; battery power, positive charges
CALM, NET_KW, Q_KVAR, INTO_KW = (COLUMN * i for i in range(66, 70))
# How it began, and, where SOC turned there, its SQUARE_KW2S up to then and TURNS, 1
SOC_BEFORE, ABOVE_K_BEFORE, SQUARE_KW2S, TURNS = (COLUMN * i for i in range(70, 74))
COLUMNS = 74

# Of a tick, see rules_of
(
    END_S, SECONDS, A_PER_KW, LEAST_A, PILOTS_PER_A, PILOT_KW, CAP_KWS, CAP_S, DRIVER_NOW, S_PER_KW, REACH_KW,
    WARM_K, STANDBY_KW, HEATING_K_PER_KW, WARMTH_LEFT,
) = range(15)  # fmt: skip

Row = Any
"""A row of one of the tables of the modules that call."""


@njit
def fill_kind(w: NDArray[np.float64], i: int, kind: Row, rules: NDArray[np.float64]) -> None:
    """Set the constants of EV ``i``'s kind, a row of KIND."""
    rated_kw = kind["discharge_kw"] if kind["discharge_kw"] > 0.0 else kind["charge_kw"]
    cap_kws, seconds = rules[CAP_KWS], rules[SECONDS]
    w[CHARGE_KW + i] = kind["charge_kw"]
    w[DISCHARGE_KW + i] = kind["discharge_kw"]
    w[RATED_KW + i] = rated_kw
    w[BATTERY_KW + i] = kind["battery_kw"]
    w[CAPACITY + i] = kind["capacity_kwh"]
    w[IN_A + i] = kind["charge_a"]
    w[IN_BETA + i] = 1.0 + kind["charge_b"]
    w[IN_4C + i] = 4.0 * kind["charge_c"]
    w[OUT_A + i] = -kind["discharge_a"]
    w[OUT_BETA + i] = 1.0 - kind["discharge_b"]
    w[OUT_4C + i] = -4.0 * kind["discharge_c"]
    w[TARGET + i] = kind["soc_target"]
    w[FLOOR_SOC + i] = kind["soc_floor"]
    w[S_PER_SOC + i] = kind["s_per_soc"]
    w[FULL_S + i] = kind["full_charge_s"]
    w[FULL_POWER_SOC + i] = kind["full_power_soc"]
    w[TAPER_PER_KW + i] = kind["taper_per_kw"]
    w[STEP_SOC_PER_KW + i] = kind["soc_per_kws"] * seconds
    w[MOST_STEP_OUT + i] = kind["most_out_kw"] * (kind["soc_per_kws"] * seconds)
    w[BARRED + i] = float(EVSE) if kind["discharge_kw"] == 0.0 else NOBODY
    w[NEARLY_SPENT_KWS + i] = cap_kws - 2.0 * rated_kw * seconds


@njit
def fill_functions(w: NDArray[np.float64], i: int, parameters: Row) -> None:
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
    w[CALM_LOW + i] = max(parameters["calm_low_pu"], LEAST_PU)
    w[BY_POWER + i] = parameters["reactive"] == WATT_VAR
    w[KVAR_PER_KW + i] = parameters["kvar_per_kw"] if parameters["reactive"] == POWER_FACTOR else 0.0
    w[CALM_HIGH + i] = parameters["calm_high_pu"]
    w[CALM_LOW_HZ + i] = parameters["trip_low_hz"]
    w[CALM_HIGH_HZ + i] = parameters["trip_high_hz"]
    w[FIRST_KVAR + i] = parameters["reactive_kvar"][0]
    for j in range(SEGMENTS):
        at = parameters["reactive_at"][j]
        length = max(parameters["reactive_at"][j + 1] - at, 0.0)
        rise_kvar = parameters["reactive_kvar"][j + 1] - parameters["reactive_kvar"][j]
        w[AT_0 + COLUMN * 3 * j + i] = at
        w[LENGTH_0 + COLUMN * 3 * j + i] = length
        w[SLOPE_0 + COLUMN * 3 * j + i] = rise_kvar / length if length > 0.0 else 0.0


@njit
def fill_without_functions(w: NDArray[np.float64]) -> None:
    """Set the constants of EVSEs that have no functions, and what they see, for the whole block."""
    for i in range(LANES):
        for column in (S_KVA, MOST_KW, DROOP_HIGH, CALM_HIGH, CALM_HIGH_HZ):
            w[column + i] = inf
        for column in (LEAST_KW, DROOP_LOW, CALM_LOW, CALM_LOW_HZ):
            w[column + i] = -inf
        for column in (VOLT, LOWEST, HIGHEST):
            w[column + i] = 1.0


@njit
def rules_of(options: Row, seconds: float, end_s: float, idle_c: float, willing: bool) -> NDArray[np.float64]:
    """What the settings, the tick and its temperature come to, for :func:`plan` and :func:`settle`."""
    rules = np.empty(WARMTH_LEFT + 1)
    rules[END_S] = end_s
    rules[SECONDS] = seconds
    rules[A_PER_KW] = 1000.0 / options["volt"] * (1.0 + 1e-12)  # on one phase
    rules[LEAST_A] = options["least_a"]
    rules[PILOTS_PER_A] = 1.0 / options["pilot_a"]
    rules[PILOT_KW] = options["pilot_a"] * options["volt"] / 1000.0  # a step of the pilot, on one phase
    rules[CAP_KWS] = options["throughput_kws"]
    rules[CAP_S] = options["discharging_s"]
    rules[DRIVER_NOW] = NOBODY if willing else float(DRIVER)
    rules[S_PER_KW] = 1.0 / options["ramp_kw_per_s"]
    rules[REACH_KW] = options["ramp_kw_per_s"] * seconds
    rules[WARM_K] = options["warm_c"] - idle_c if options["thermal"] else inf  # above idle, where it derates
    rules[STANDBY_KW] = options["standby_kw"]
    rules[HEATING_K_PER_KW] = options["heating_k_per_kw"]
    rules[WARMTH_LEFT] = np.exp(-options["cooling_per_s"] * seconds)  # of the cell's
    return rules


@njit
def plan(w: NDArray[np.float64], rules: NDArray[np.float64], state: Blocks, own: Blocks, n: int) -> int:
    """What the EVs wish for, their reactive power, and whether their tick is calm so far as this tells.

    Returns how many EVs' ratings have no room for both.
    """
    end_s, seconds, s_per_kw, reach_kw = rules[END_S], rules[SECONDS], rules[S_PER_KW], rules[REACH_KW]
    a_per_kw, least_a, pilots_per_a, pilot_kw = (
        rules[A_PER_KW], rules[LEAST_A], rules[PILOTS_PER_A], rules[PILOT_KW],
    )  # fmt: skip
    cap_kws, cap_s, driver, warm_k = rules[CAP_KWS], rules[CAP_S], rules[DRIVER_NOW], rules[WARM_K]
    per_s = 1.0 / seconds
    nearly_cap_kws = cap_kws * (1.0 - 1e-12)
    any_current = pilot_kw == 0.0
    short = 0
    for i in range(n):
        soc = state["soc"][i]
        left_s = state["departure_s"][i] - end_s
        out_kws = own["out_kws"][i]
        before_kw = own["ramped_kw"][i]
        never = own["refusal"][i]
        phases = float(own["phases"][i])
        limit_kw = w[CHARGE_KW + i]
        most_given_kw = w[DISCHARGE_KW + i]
        rated_kw = w[RATED_KW + i]
        asked_kw = w[ASKED_KW + i]

        # The pilot, as on_pilot_kw
        amperes = asked_kw * a_per_kw * (1.0 / 3.0 if phases == 3.0 else 1.0)
        cut_kw = np.floor(amperes * pilots_per_a) * (pilot_kw * phases)
        told_kw = asked_kw if any_current else cut_kw
        told_kw = 0.0 if amperes < least_a else told_kw
        told_kw = told_kw if asked_kw > 0.0 else asked_kw

        # Permission, as refusal_of
        spent = (out_kws >= nearly_cap_kws) | (own["discharging_s"][i] >= cap_s)
        reason = min(float(never) if never > 0 else NOBODY, w[BARRED + i])
        reason = min(min(reason, float(WARRANTY) if spent else NOBODY), driver)
        gives = asked_kw < 0.0
        reason = reason if gives else NOBODY
        refused = reason < NOBODY
        told_kw = 0.0 if refused else told_kw
        near_cap = (told_kw < 0.0) & (out_kws > w[NEARLY_SPENT_KWS + i])

        # The ramp, as ramped_kw
        goal_kw = min(max(told_kw, -most_given_kw), limit_kw)
        way_kw = goal_kw - before_kw
        needed_s = abs(way_kw) * s_per_kw
        on_the_way = needed_s >= seconds
        reached_kw = before_kw + (reach_kw if way_kw > 0.0 else -reach_kw)
        reached_kw = reached_kw if on_the_way else goal_kw
        average_kw = goal_kw - 0.5 * way_kw * (needed_s * per_s)
        average_kw = 0.5 * (before_kw + reached_kw) if on_the_way else average_kw
        followed_kw = inf if state["guarded"][i] != 0 else average_kw

        # What the EV wishes for, and its laxity, which is looked at from below
        up_kw = min(max(followed_kw, 0.0), limit_kw)
        down_kw = min(max(-followed_kw, 0.0), most_given_kw)
        full = up_kw == limit_kw
        up_kw = up_kw if (soc < w[TARGET + i]) & (up_kw > w[IN_A + i]) else 0.0
        down_kw = down_kw if soc > w[FLOOR_SOC + i] else 0.0
        most_step_out = w[MOST_STEP_OUT + i]
        least_soc = soc - (most_step_out if down_kw > 0.0 else 0.0)
        lax = full | (left_s > w[FULL_S + i] - least_soc * w[S_PER_SOC + i])
        wished_kw = up_kw - down_kw
        wanted_kw = min(max(-asked_kw, 0.0), rated_kw)
        wanted_kw = wanted_kw if refused else min(wanted_kw, max(-average_kw, 0.0))

        # Reactive power
        volt = w[VOLT + i]
        aim_kvar = w[FIRST_KVAR + i]
        aim_kvar += min(max(volt - w[AT_0 + i], 0.0), w[LENGTH_0 + i]) * w[SLOPE_0 + i]
        aim_kvar += min(max(volt - w[AT_1 + i], 0.0), w[LENGTH_1 + i]) * w[SLOPE_1 + i]
        aim_kvar += min(max(volt - w[AT_2 + i], 0.0), w[LENGTH_2 + i]) * w[SLOPE_2 + i]
        mean = w[REACTIVE_MEAN + i]
        off_kvar = own["reactive_kvar"][i] - aim_kvar
        off_kvar = off_kvar if mean != 0.0 else 0.0
        rest_kvar = off_kvar * w[REACTIVE_LEFT + i]
        to_kvar = aim_kvar + (rest_kvar if abs(rest_kvar) >= REST else 0.0)
        from_kvar = aim_kvar + off_kvar
        size_kw = abs(wished_kw)
        kvar_per_kw = w[KVAR_PER_KW + i]
        most_kvar = max(abs(from_kvar), abs(to_kvar)) + abs(kvar_per_kw) * size_kw

        calm = (
            (left_s > 0.0)
            & (state["fresh"][i] == 0)
            & (own["disturbed"][i] == 0)
            & lax
            & (own["above_k"][i] <= warm_k)
            & (near_cap == False)  # noqa: E712
            & (volt >= w[CALM_LOW + i])
            & (volt <= w[CALM_HIGH + i])
            & (w[HERTZ + i] >= w[CALM_LOW_HZ + i])
            & (w[HERTZ + i] <= w[CALM_HIGH_HZ + i])
            & (wished_kw >= w[LEAST_KW + i])
            & (wished_kw <= w[MOST_KW + i])
        )
        w[CALM + i] = 1.0 if calm else 0.0
        w[RAMPED_KW + i] = reached_kw
        w[REASON + i] = reason
        w[WANTED_KW + i] = wanted_kw
        w[ANSWER_KW + i] = wished_kw
        w[TO_KVAR + i] = to_kvar
        w[Q_KVAR + i] = aim_kvar + off_kvar * mean + kvar_per_kw * size_kw
        short += size_kw * size_kw + most_kvar * most_kvar > w[S_KVA + i] * w[S_KVA + i]
    return short


@njit
def chill(w: NDArray[np.float64], own: Blocks, n: int, options: Row, idle_c: float) -> None:
    """Take those for calm no more whose charging is limited by the cold, as thermal_limit_kw."""
    mild_c, freezing_c, cold_rate = options["mild_c"], options["freezing_c"], options["cold_c_rate"]
    rate_per_c = (options["mild_c_rate"] - cold_rate) / (mild_c - freezing_c)
    for i in range(n):
        cell_c = idle_c + own["above_k"][i]
        cold_kw = (cold_rate + (cell_c - freezing_c) * rate_per_c) * w[CAPACITY + i]
        mild = (cell_c >= mild_c) | ((cell_c >= freezing_c) & (cold_kw >= w[BATTERY_KW + i]))
        before = w[CALM + i]
        w[CALM + i] = before if mild else 0.0


@njit
def droops(w: NDArray[np.float64], own: Blocks, n: int) -> bool:
    """Whether a frequency-watt is at work at an EV of the block."""
    some = 0
    for i in range(n):
        hertz = w[HERTZ + i]
        some += (own["droop_kw"][i] != 0.0) | (hertz > w[DROOP_HIGH + i]) | (hertz < w[DROOP_LOW + i])
    return some > 0


@njit
def watch(w: NDArray[np.float64], n: int) -> None:
    """Take those for calm no more at which one of three phases is disturbed."""
    for i in range(n):
        before = w[CALM + i]
        undisturbed = (w[LOWEST + i] >= w[CALM_LOW + i]) & (w[HIGHEST + i] <= w[CALM_HIGH + i])
        w[CALM + i] = before if undisturbed else 0.0


@njit
def spread(w: NDArray[np.float64], own: Blocks, n: int) -> None:
    """Bring what the functions below need besides."""
    for i in range(n):
        w[WISHED_KW + i] = w[ANSWER_KW + i]
        w[FROM_KW + i] = w[ANSWER_KW + i]
        w[TO_KW + i] = w[ANSWER_KW + i]
        follows, before_kvar, to_kvar = w[REACTIVE_MEAN + i] != 0.0, own["reactive_kvar"][i], w[TO_KVAR + i]
        w[FROM_KVAR + i] = before_kvar if follows else to_kvar


@njit
def droop(w: NDArray[np.float64], state: Blocks, own: Blocks, n: int) -> None:
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
        barred = (w[REASON + i] < NOBODY) | (most_given_kw == 0.0) | (own["refusal"][i] > 0)
        low_kw = min(wished_kw, 0.0) if barred else -most_given_kw
        low_kw = max(low_kw, w[LEAST_KW + i])
        high_kw = min(limit_kw, w[MOST_KW + i])
        from_kw = wished_kw + shift_kw + off_kw
        to_kw = wished_kw + droop_kw
        cut_from_kw = min(max(from_kw, low_kw), high_kw)
        cut_to_kw = min(max(to_kw, low_kw), high_kw)
        within = (cut_from_kw == from_kw) & (cut_to_kw == to_kw)
        step_soc = w[STEP_SOC_PER_KW + i]
        roomy = (soc + w[BATTERY_KW + i] * step_soc <= w[FULL_POWER_SOC + i]) & (
            soc - 2.0 * most_given_kw * step_soc >= w[FLOOR_SOC + i]
        )
        answer_kw = wished_kw + shift_kw + off_kw * w[DROOP_MEAN + i]
        answer_kw = answer_kw if within else cut_from_kw
        known = (within | (cut_from_kw == cut_to_kw)) & roomy
        before = w[CALM + i]
        w[CALM + i] = before if known | (moved == False) else 0.0  # noqa: E712
        moved_far = moved & (abs(answer_kw - wished_kw) > SAME * limit_kw)
        w[ANSWER_KW + i] = answer_kw if moved_far else wished_kw
        w[FROM_KW + i] = cut_from_kw if moved else wished_kw
        w[TO_KW + i] = cut_to_kw if moved else wished_kw
        w[DROOP_KW + i] = droop_kw


@njit
def aim(w: NDArray[np.float64], parameters: Row, row_of: NDArray[np.int32], n: int) -> None:
    """What the curves of reactive power say at the EVs' voltages, or at the power that they settle at.

    ``row_of``: the EVs' rows of ``parameters``.
    """
    for i in range(n):
        power_kw = w[TO_KW + i]
        rated_kw = w[MOST_KW + i] if power_kw > 0.0 else -w[LEAST_KW + i]
        share = power_kw / rated_kw
        share = share if power_kw != 0.0 else 0.0
        w[AT + i] = share if w[BY_POWER + i] != 0.0 else w[VOLT + i]
    for i in range(n):
        row = parameters[row_of[i]]
        kvar = w[FIRST_KVAR + i]
        for j in range(POINTS - 1):
            length = row["reactive_at"][j + 1] - row["reactive_at"][j]
            if length > 0.0:
                slope = (row["reactive_kvar"][j + 1] - row["reactive_kvar"][j]) / length
                kvar += min(max(w[AT + i] - row["reactive_at"][j], 0.0), length) * slope
        w[AIM + i] = kvar


@njit
def aims_again(parameters: Row) -> bool:
    """Whether a curve of ``parameters``, (kind,), is more than :func:`plan` looks at."""
    some = False
    for row in range(len(parameters)):
        some |= parameters[row]["reactive"] == WATT_VAR
        for j in range(SEGMENTS, POINTS - 1):
            some |= parameters[row]["reactive_at"][j + 1] > parameters[row]["reactive_at"][j]
    return some


@njit
def react(w: NDArray[np.float64], own: Blocks, n: int) -> int:
    """Reactive power once more, by the answer and the aim; how many EVs' ratings have no room for both."""
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
            (w[ANSWER_KW + i] >= w[LEAST_KW + i])
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
    w: NDArray[np.float64], rules: NDArray[np.float64], state: Blocks, own: Blocks, n: int
) -> tuple[int, int]:
    """Take those whose tick is calm to its end, at the power that is left of the wish.

    Returns how many aren't calm, and of how many something was refused.
    """
    seconds, standby_kw = rules[SECONDS], rules[STANDBY_KW]
    heating, warmth_left = rules[HEATING_K_PER_KW], rules[WARMTH_LEFT]
    others, refusing = 0, 0
    for i in range(n):
        soc = state["soc"][i]
        power_kw = w[ANSWER_KW + i]

        # The battery, as battery_kw_drawn and battery_kw_given; what is lost on the way out is negative here
        charges = power_kw > 0.0
        size_kw = abs(power_kw)
        sign = 1.0 if charges else -1.0
        in_a, in_beta, in_4c = w[IN_A + i], w[IN_BETA + i], w[IN_4C + i]
        out_a, out_beta, out_4c = w[OUT_A + i], w[OUT_BETA + i], w[OUT_4C + i]
        beta = in_beta if charges else out_beta
        a, c4 = (in_a if charges else out_a), (in_4c if charges else out_4c)
        net_kw = size_kw - a
        root = np.sqrt(max(beta * beta + c4 * net_kw, 0.0))
        inner_kw = 2.0 * net_kw / (beta + root)
        battery_kw, floor = w[BATTERY_KW + i], w[FLOOR_SOC + i]
        inner_kw = battery_kw if power_kw == w[CHARGE_KW + i] else inner_kw
        flows = (size_kw > 0.0) & (net_kw > 0.0)
        inner_kw = inner_kw if flows else 0.0
        loss_kw = sign * (size_kw - inner_kw)
        loss_kw = loss_kw if flows else standby_kw
        then = soc + sign * inner_kw * w[STEP_SOC_PER_KW + i]
        highest = min(1.0 - inner_kw * w[TAPER_PER_KW + i], w[TARGET + i])
        bounded = ((then <= highest) & charges) | ((then >= floor) & (charges == False))  # noqa: E712
        calm = (w[CALM + i] != 0.0) & (bounded | (inner_kw == 0.0))

        flowing_kw = size_kw if flows else 0.0
        given_kw = 0.0 if charges else flowing_kw
        drawn_kw = flowing_kw - given_kw + (0.0 if flows else standby_kw)
        rise_k = heating * loss_kw
        wanted_kw = w[WANTED_KW + i]
        refused = calm & (wanted_kw - given_kw > 1e-9 * wanted_kw)
        reached_kw, to_kvar = w[RAMPED_KW + i], w[TO_KVAR + i]

        others += calm == False  # noqa: E712
        refusing += refused
        w[CALM + i] = 1.0 if calm else 0.0
        w[NET_KW + i] = drawn_kw - given_kw
        w[INTO_KW + i] = sign * inner_kw
        w[SOC_BEFORE + i] = soc
        w[ABOVE_K_BEFORE + i] = own["above_k"][i]

        drawn_kws = drawn_kw * seconds if calm else 0.0
        given_kws = given_kw * seconds if calm else 0.0
        loss_kws = loss_kw * seconds if calm else 0.0
        gives = calm & (given_kw > 0.0)
        before_k, before_kw, before_kvar = own["above_k"][i], own["ramped_kw"][i], own["reactive_kvar"][i]
        after_k = rise_k + (before_k - rise_k) * warmth_left
        state["soc"][i] = then if calm else soc
        state["drawn_kws"][i] += drawn_kws
        state["given_kws"][i] += given_kws
        state["loss_kws"][i] += loss_kws
        own["ramped_kw"][i] = reached_kw if calm else before_kw
        own["above_k"][i] = after_k if calm else before_k
        own["out_kws"][i] += inner_kw * seconds if gives else 0.0
        own["discharging_s"][i] += seconds if gives else 0.0
        own["reactive_kvar"][i] = to_kvar if calm else before_kvar
    return others, refusing


@njit
def head(w: NDArray[np.float64], rules: NDArray[np.float64], own: Blocks, n: int) -> int:
    """As :func:`evgrid.fleet.physics.head`, of those whose tick was calm; how many turn at its begin."""
    seconds = rules[SECONDS]
    turning = 0
    for i in range(n):
        calm, into_kw = w[CALM + i] != 0.0, w[INTO_KW + i]
        moves = calm & (into_kw != 0.0)
        before, square = own["heading"][i], own["square_kw2s"][i]
        way = np.int8(1) if into_kw > 0.0 else np.int8(-1)
        turns = moves & (before * way < 0)
        now = into_kw * into_kw * seconds if moves else 0.0
        turning += turns
        w[TURNS + i] = 1.0 if turns else 0.0
        w[SQUARE_KW2S + i] = square
        own["square_kw2s"][i] = now + (0.0 if turns else square)
        own["heading"][i] = way if moves else before
    return turning


@njit
def note_droop(w: NDArray[np.float64], own: Blocks, n: int) -> None:
    """What the frequency-watts of those that are calm remember of the tick."""
    for i in range(n):
        calm, before_kw, after_kw = w[CALM + i] != 0.0, own["droop_kw"][i], w[DROOP_KW + i]
        own["droop_kw"][i] = after_kw if calm else before_kw


@njit
def refused_kw(w: NDArray[np.float64], i: int) -> float:
    """What was asked of EV ``i``, whose tick was calm, and not given, kW."""
    given_kw = max(-w[NET_KW + i], 0.0)
    missing_kw = w[WANTED_KW + i] - given_kw
    calm = w[CALM + i] != 0.0
    return float(missing_kw) if calm and missing_kw > 1e-9 * w[WANTED_KW + i] else 0.0


@njit
def why(w: NDArray[np.float64], i: int, options: Row, kind: Row, guarded: int, drooped: bool) -> int:
    """The reason of what was refused to EV ``i``; ``drooped``: whether :func:`droop` was asked."""
    if w[REASON + i] < NOBODY:
        return int(w[REASON + i])
    if guarded:
        return DEPARTURE
    if drooped and w[ANSWER_KW + i] != w[WISHED_KW + i]:
        return GRID
    return whose_floor(options, kind)
