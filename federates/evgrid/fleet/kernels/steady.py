"""Blocks of EVs in whose tick nothing happens: nearly all of them, nearly always.

A tick of an EV is *steady* if its power is constant over it, or moves only as a first-order response does:
it neither arrives nor leaves, meets no taper, target or floor, uses up no laxity and no cap, isn't held
back by its temperature, and its EVSE is in service, at a voltage and a frequency at which no trip counts
and no curve limits active power. For such a tick, all that :func:`evgrid.fleet.kernels.one_ev.window` does is
straight-line arithmetic: the same laws, here over blocks of EVs and without branches on data, so that
the compiler computes several EVs at once. What isn't surely steady is left to the exact way.

The numbers are those of the exact way but for rounding, and an EV's don't depend on the others of its block
(``tests/unit/test_fleet_detailed.py::test_blocks_give_what_the_exact_way_gives`` holds the two together).

EVs are taken a block at a time, see :mod:`.lanes`: ``state`` and ``own`` are its blocks of STATE and of
PHYSICS, ``w`` is a record of WORK: room to work in, of a column for each quantity. One record with columns at
constant places is what the compiler can prove not to overlap. Constants of an EV's kind and of its EVSE's
functions stay in their columns from block to block while they are the same. ``rules``, see :func:`rules_of`,
are those of the tick.

The basic step needs :func:`follow` and :func:`settle`; the detailed one :func:`plan`, :func:`settle` and
:func:`settle_details`, and where they are at work, frequency-watt, curves of many segments or by power, and
reactive power that the rating has no room for come in between.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.laws import (
    DEPARTURE,
    GRID,
    PERMITTED,
    battery_power_kw,
    cell_above_k,
    cold_limit_kw,
    held_up_to_soc,
    is_lax,
    on_pilot_kw,
    pilot_of,
    ramped_kw,
    refusal,
    refused_kw,
    stays_within,
    wished_kw,
)
from evgrid.battery.records import Row, Table
from evgrid.core.jit import inlined, njit
from evgrid.fleet.kernels.lanes import LANES, Block
from evgrid.fleet.kernels.one_ev import SAME, whose_floor
from evgrid.inverter_functions.kernels import POINTS, POWER_FACTOR, WATT_VAR, first_order, frequency_shift_kw

SEGMENTS = 3
"""Segments of a curve of reactive power that are looked at in any case: those of volt-var."""

LEAST_PU = 1e-9
"""Voltage below which there is none."""

_SEEN = ("asked_kw", "volt", "lowest", "highest", "hertz")
"""What is asked of an EV, and what its EVSE sees."""

_KIND = (
    "charge_kw", "discharge_kw", "rated_kw", "battery_kw", "most_out_kw", "capacity_kwh",
    "in_a", "in_slope", "in_c", "out_a", "out_slope", "out_c",
    "soc_target", "soc_floor", "s_per_soc", "full_charge_s", "full_power_soc", "held_kw", "soc_per_kw",
    "soc_per_kws",
)  # fmt: skip
"""Constants of its kind."""

_FUNCTIONS = (
    "s_kva", "most_kw", "least_kw", "var_priority", "by_power", "kvar_per_kw",
    "droop_high_hz", "droop_low_hz", "over_kw_per_hz", "under_kw_per_hz", "droop_left", "droop_mean",
    "reactive_left", "reactive_mean", "steady_low_pu", "steady_high_pu", "steady_low_hz", "steady_high_hz",
    "first_kvar", "at_0", "length_0", "slope_0", "at_1", "length_1", "slope_1", "at_2", "length_2", "slope_2",
)  # fmt: skip
"""Constants of its EVSE's local functions; by_power is 1 for watt-var. A curve of reactive power begins with
first_kvar; its first segments have a begin, a length and a slope each."""

_WAY = (
    "ramped_kw", "reason", "wanted_kw", "power_kw", "to_kvar",
    "wished_kw", "from_kw", "to_kw", "at", "aim_kvar", "from_kvar", "droop_kw",
)  # fmt: skip
"""On the way to what the tick comes to; from wished_kw on by need."""

_RESULT = (
    "steady", "net_kw", "q_kvar", "into_kw", "loss_kw", "soc_before", "above_k_before", "square_kw2s",
    "turns",
)  # fmt: skip
"""What the tick comes to: whether it is steady, 1, and if so means over it; how it began, and, where SOC
turned there, its square_kw2s up to then and turns, 1."""

WORK = np.dtype([(name, "f8", (LANES,)) for name in (*_SEEN, *_KIND, *_FUNCTIONS, *_WAY, *_RESULT)])
"""Room to work in on a block."""


class Rules(NamedTuple):
    """What the settings, the tick and its temperature come to."""

    end_s: float
    seconds: float
    a_per_kw: float
    least_a: float
    steps_per_a: float
    step_kw: float
    cap_kws: float
    cap_s: float
    willing: bool
    reach_kw: float
    per_reach: float
    warm_k: float
    standby_kw: float
    heating_k_per_kw: float
    warmth_left: float


@njit
def rules_of(options: Row, seconds: float, end_s: float, idle_c: float, willing: bool) -> Rules:
    """The rules of a tick; ``warm_k``: rise of the cell above an idle one from which it derates."""
    a_per_kw, steps_per_a, step_kw = pilot_of(options["volt"], options["pilot_a"])
    reach_kw = options["ramp_kw_per_s"] * seconds
    return Rules(
        end_s, seconds, a_per_kw, options["least_a"], steps_per_a, step_kw, options["throughput_kws"],
        options["discharging_s"], willing, reach_kw, 1.0 / reach_kw,
        options["warm_c"] - idle_c if options["thermal"] else inf,
        options["standby_kw"], options["heating_k_per_kw"], np.exp(-options["cooling_per_s"] * seconds),
    )  # fmt: skip


@njit
def same(at: NDArray[np.int32], now: NDArray[np.int32]) -> bool:
    """Whether a block's column of numbers is the same as before."""
    differs = np.int32(0)
    for i in range(LANES):
        differs |= at[i] ^ now[i]
    return bool(differs == 0)


@njit
def refill_kinds(w: Row, kind_at: NDArray[np.int32], block: Block, rows: Table) -> None:
    """Set the constants of the kinds of a block's EVs, where they aren't those of the block before."""
    if len(rows) > 1 or kind_at[0] < 0:
        if same(kind_at, block["kind"]):
            return
        for i in range(LANES):
            kind_at[i] = block["kind"][i]
            fill_kind(w, i, rows[kind_at[i]])


@njit
def refill_functions(w: Row, parameters_at: NDArray[np.int32], own: Block, parameters: Table) -> None:
    """As :func:`refill_kinds`, the constants of the local functions."""
    if not same(parameters_at, own["parameters"]):
        for i in range(LANES):
            parameters_at[i] = own["parameters"][i]
            fill_functions(w, i, parameters[parameters_at[i]])


@njit
def fill_kind(w: Row, i: int, kind: Row) -> None:
    """Set the constants of EV ``i``'s kind, a row of KIND."""
    w["charge_kw"][i] = kind["charge_kw"]
    w["discharge_kw"][i] = kind["discharge_kw"]
    w["rated_kw"][i] = kind["discharge_kw"] if kind["discharge_kw"] > 0.0 else kind["charge_kw"]
    w["battery_kw"][i] = kind["battery_kw"]
    w["most_out_kw"][i] = kind["most_out_kw"]
    w["capacity_kwh"][i] = kind["capacity_kwh"]
    w["in_a"][i] = kind["charge_a"]
    w["in_slope"][i] = 1.0 + kind["charge_b"]
    w["in_c"][i] = kind["charge_c"]
    w["out_a"][i] = -kind["discharge_a"]
    w["out_slope"][i] = 1.0 - kind["discharge_b"]
    w["out_c"][i] = -kind["discharge_c"]
    w["soc_target"][i] = kind["soc_target"]
    w["soc_floor"][i] = kind["soc_floor"]
    w["s_per_soc"][i] = kind["s_per_soc"]
    w["full_charge_s"][i] = kind["full_charge_s"]
    w["full_power_soc"][i] = kind["full_power_soc"]
    w["held_kw"][i] = kind["held_kw"]
    w["soc_per_kw"][i] = kind["soc_per_kw"]
    w["soc_per_kws"][i] = kind["soc_per_kws"]


@njit
def fill_functions(w: Row, i: int, parameters: Row) -> None:
    """Set the constants of the local functions of EV ``i``'s EVSE, a row of PARAMETERS."""
    w["s_kva"][i] = parameters["s_kva"]
    w["most_kw"][i] = parameters["charge_kw"]
    w["least_kw"][i] = -parameters["discharge_kw"]
    w["var_priority"][i] = parameters["var_priority"]
    w["droop_high_hz"][i] = parameters["droop_high_hz"]
    w["droop_low_hz"][i] = parameters["droop_low_hz"]
    w["over_kw_per_hz"][i] = parameters["over_kw_per_hz"]
    w["under_kw_per_hz"][i] = parameters["under_kw_per_hz"]
    w["droop_left"][i] = parameters["droop_left"]
    w["droop_mean"][i] = parameters["droop_mean"]
    w["reactive_left"][i] = parameters["reactive_left"]
    w["reactive_mean"][i] = parameters["reactive_mean"]
    w["steady_low_pu"][i] = max(parameters["normal_low_pu"], LEAST_PU)
    w["by_power"][i] = parameters["reactive"] == WATT_VAR
    w["kvar_per_kw"][i] = parameters["kvar_per_kw"] if parameters["reactive"] == POWER_FACTOR else 0.0
    w["steady_high_pu"][i] = parameters["normal_high_pu"]
    w["steady_low_hz"][i] = parameters["trip_low_hz"]
    w["steady_high_hz"][i] = parameters["trip_high_hz"]
    w["first_kvar"][i] = parameters["reactive_kvar"][0]
    w["at_0"][i], w["length_0"][i], w["slope_0"][i] = _segment(parameters, 0)
    w["at_1"][i], w["length_1"][i], w["slope_1"][i] = _segment(parameters, 1)
    w["at_2"][i], w["length_2"][i], w["slope_2"][i] = _segment(parameters, 2)


@njit
def _segment(parameters: Row, j: int) -> tuple[float, float, float]:
    """Begin, length and slope of a segment of a curve of reactive power; the latter 0: there is none."""
    at = parameters["reactive_at"][j]
    length = max(parameters["reactive_at"][j + 1] - at, 0.0)
    rise_kvar = parameters["reactive_kvar"][j + 1] - parameters["reactive_kvar"][j]
    return at, length, rise_kvar / length if length > 0.0 else 0.0


@njit
def fill_without_functions(w: Row) -> None:
    """Set the constants of EVSEs that have no functions, and what they see, for the whole block."""
    for i in range(LANES):
        w["s_kva"][i] = w["most_kw"][i] = w["droop_high_hz"][i] = inf
        w["steady_high_pu"][i] = w["steady_high_hz"][i] = inf
        w["least_kw"][i] = w["droop_low_hz"][i] = w["steady_low_pu"][i] = w["steady_low_hz"][i] = -inf
        w["volt"][i] = w["lowest"][i] = w["highest"][i] = 1.0


@njit
def follow(w: Row, seconds: float, end_s: float, state: Block, n: int) -> None:
    """The power with which EVs follow their set-points; whether their tick is steady so far as this tells."""
    for i in range(n):
        soc, left_s = state["soc"][i], state["departure_s"][i] - end_s
        power_kw, full = wished_kw(
            inf if state["guarded"][i] != 0 else w["asked_kw"][i], soc, w["charge_kw"][i],
            w["discharge_kw"][i], w["soc_target"][i], w["soc_floor"][i], w["in_a"][i],
        )  # fmt: skip
        lax = is_lax(
            left_s, _least_soc(w, i, soc, power_kw, seconds), full, w["full_charge_s"][i], w["s_per_soc"][i]
        )
        steady = (left_s > 0.0) & (state["fresh"][i] == 0) & lax
        w["power_kw"][i] = power_kw
        w["steady"][i] = 1.0 if steady else 0.0


@inlined
def _least_soc(w: Row, i: int, soc: float, power_kw: float, seconds: float) -> float:
    """Lower bound of EV ``i``'s SOC at the tick's end."""
    return soc - (w["most_out_kw"][i] * (w["soc_per_kws"][i] * seconds) if power_kw < 0.0 else 0.0)


@njit
def plan(w: Row, rules: Rules, state: Block, own: Block, n: int) -> int:
    """What the EVs wish for, their reactive power, and whether their tick is steady so far as this tells.

    Returns how many EVs' ratings have no room for both.
    """
    end_s, seconds = rules.end_s, rules.seconds
    a_per_kw, least_a, steps_per_a, step_kw = rules.a_per_kw, rules.least_a, rules.steps_per_a, rules.step_kw
    cap_kws, cap_s, willing = rules.cap_kws, rules.cap_s, rules.willing
    reach_kw, per_reach, warm_k = rules.reach_kw, rules.per_reach, rules.warm_k
    short = 0
    for i in range(n):
        soc = state["soc"][i]
        left_s = state["departure_s"][i] - end_s
        charge_kw, discharge_kw, rated_kw = w["charge_kw"][i], w["discharge_kw"][i], w["rated_kw"][i]
        asked_kw = w["asked_kw"][i]
        out_kws = own["out_kws"][i]

        # What is followed: the pilot, permission, the ramp
        pilot_kw = on_pilot_kw(asked_kw, float(own["phases"][i]), a_per_kw, least_a, steps_per_a, step_kw)
        reason = refusal(
            float(own["refusal"][i]), discharge_kw, out_kws, own["discharging_s"][i], cap_kws, cap_s, willing
        )
        reason = reason if asked_kw < 0.0 else float(PERMITTED)
        refused = reason < PERMITTED
        pilot_kw = 0.0 if refused else pilot_kw
        near_cap = (pilot_kw < 0.0) & (out_kws > cap_kws - 2.0 * rated_kw * seconds)
        goal_kw = min(max(pilot_kw, -discharge_kw), charge_kw)
        mean_kw, reached_kw = ramped_kw(own["ramped_kw"][i], goal_kw, reach_kw, per_reach)
        followed_kw = inf if state["guarded"][i] != 0 else mean_kw

        # What the EV wishes for, and its laxity, which is looked at from below
        wish_kw, full = wished_kw(
            followed_kw, soc, charge_kw, discharge_kw, w["soc_target"][i], w["soc_floor"][i], w["in_a"][i]
        )
        least_soc = _least_soc(w, i, soc, wish_kw, seconds)
        lax = is_lax(left_s, least_soc, full, w["full_charge_s"][i], w["s_per_soc"][i])
        wanted_kw = min(max(-asked_kw, 0.0), rated_kw)
        wanted_kw = wanted_kw if refused else min(wanted_kw, max(-mean_kw, 0.0))

        # Reactive power
        volt = w["volt"][i]
        aim_kvar = w["first_kvar"][i]
        aim_kvar += min(max(volt - w["at_0"][i], 0.0), w["length_0"][i]) * w["slope_0"][i]
        aim_kvar += min(max(volt - w["at_1"][i], 0.0), w["length_1"][i]) * w["slope_1"][i]
        aim_kvar += min(max(volt - w["at_2"][i], 0.0), w["length_2"][i]) * w["slope_2"][i]
        from_kvar, to_kvar, mean_kvar = first_order(
            own["reactive_kvar"][i], aim_kvar, w["reactive_left"][i], w["reactive_mean"][i]
        )
        size_kw = abs(wish_kw)
        kvar_per_kw = w["kvar_per_kw"][i]
        most_kvar = max(abs(from_kvar), abs(to_kvar)) + abs(kvar_per_kw) * size_kw

        steady = (
            (left_s > 0.0)
            & (state["fresh"][i] == 0)
            & (own["disturbed"][i] == 0)
            & lax
            & (own["above_k"][i] <= warm_k)
            & (near_cap == False)  # noqa: E712
            & (volt >= w["steady_low_pu"][i])
            & (volt <= w["steady_high_pu"][i])
            & (w["hertz"][i] >= w["steady_low_hz"][i])
            & (w["hertz"][i] <= w["steady_high_hz"][i])
            & (wish_kw >= w["least_kw"][i])
            & (wish_kw <= w["most_kw"][i])
        )
        w["steady"][i] = 1.0 if steady else 0.0
        w["ramped_kw"][i] = reached_kw
        w["reason"][i] = reason
        w["wanted_kw"][i] = wanted_kw
        w["power_kw"][i] = wish_kw
        w["to_kvar"][i] = to_kvar
        w["q_kvar"][i] = mean_kvar + kvar_per_kw * size_kw
        short += size_kw * size_kw + most_kvar * most_kvar > w["s_kva"][i] * w["s_kva"][i]
    return short


@njit
def check_cold(w: Row, own: Block, n: int, options: Row, idle_c: float) -> None:
    """Take those for steady no more whose charging is limited by the cold."""
    freezing_c, mild_c = options["freezing_c"], options["mild_c"]
    cold_rate, mild_rate = options["cold_c_rate"], options["mild_c_rate"]
    for i in range(n):
        cell_c = idle_c + own["above_k"][i]
        limit_kw = cold_limit_kw(cell_c, w["capacity_kwh"][i], freezing_c, mild_c, cold_rate, mild_rate)
        before = w["steady"][i]
        w["steady"][i] = before if limit_kw >= w["battery_kw"][i] else 0.0


@njit
def frequency_watt_acts(w: Row, own: Block, n: int) -> bool:
    """Whether a frequency-watt is at work at an EV of the block."""
    some = 0
    for i in range(n):
        hertz = w["hertz"][i]
        beyond = (hertz > w["droop_high_hz"][i]) | (hertz < w["droop_low_hz"][i])
        some += (own["droop_kw"][i] != 0.0) | beyond
    return some > 0


@njit
def check_phases(w: Row, n: int) -> None:
    """Take those for steady no more at which one of three phases is disturbed."""
    for i in range(n):
        before = w["steady"][i]
        undisturbed = (w["lowest"][i] >= w["steady_low_pu"][i]) & (w["highest"][i] <= w["steady_high_pu"][i])
        w["steady"][i] = before if undisturbed else 0.0


@njit
def begin_ways(w: Row, own: Block, n: int) -> None:
    """Bring what the functions below need besides."""
    for i in range(n):
        w["wished_kw"][i] = w["power_kw"][i]
        w["from_kw"][i] = w["power_kw"][i]
        w["to_kw"][i] = w["power_kw"][i]
        follows, before_kvar = w["reactive_mean"][i] != 0.0, own["reactive_kvar"][i]
        w["from_kvar"][i] = before_kvar if follows else w["to_kvar"][i]


@njit
def shift_by_frequency(w: Row, seconds: float, state: Block, own: Block, n: int) -> None:
    """What frequency-watt makes of the wish, where there is room for all of it, or for none."""
    for i in range(n):
        soc = state["soc"][i]
        wish_kw = w["wished_kw"][i]
        charge_kw, discharge_kw = w["charge_kw"][i], w["discharge_kw"][i]
        shift_kw = frequency_shift_kw(
            w["hertz"][i], w["droop_high_hz"][i], w["droop_low_hz"][i],
            w["over_kw_per_hz"][i], w["under_kw_per_hz"][i],
        )  # fmt: skip
        from_kw, droop_kw, mean_kw = first_order(
            own["droop_kw"][i], shift_kw, w["droop_left"][i], w["droop_mean"][i]
        )
        moved = (from_kw != 0.0) | (shift_kw != 0.0)
        barred = (w["reason"][i] < PERMITTED) | (discharge_kw == 0.0) | (own["refusal"][i] > 0)
        low_kw = min(wish_kw, 0.0) if barred else -discharge_kw
        low_kw = max(low_kw, w["least_kw"][i])
        high_kw = min(charge_kw, w["most_kw"][i])
        from_kw += wish_kw
        to_kw = wish_kw + droop_kw
        cut_from_kw = min(max(from_kw, low_kw), high_kw)
        cut_to_kw = min(max(to_kw, low_kw), high_kw)
        within = (cut_from_kw == from_kw) & (cut_to_kw == to_kw)
        step_soc = w["soc_per_kws"][i] * seconds
        roomy = (soc + w["battery_kw"][i] * step_soc <= w["full_power_soc"][i]) & (
            soc - 2.0 * discharge_kw * step_soc >= w["soc_floor"][i]
        )
        power_kw = wish_kw + mean_kw if within else cut_from_kw
        known = (within | (cut_from_kw == cut_to_kw)) & roomy
        before = w["steady"][i]
        w["steady"][i] = before if known | (moved == False) else 0.0  # noqa: E712
        moved_far = moved & (abs(power_kw - wish_kw) > SAME * charge_kw)
        w["power_kw"][i] = power_kw if moved_far else wish_kw
        w["from_kw"][i] = cut_from_kw if moved else wish_kw
        w["to_kw"][i] = cut_to_kw if moved else wish_kw
        w["droop_kw"][i] = droop_kw


@njit
def aim(w: Row, parameters: Table, row_of: NDArray[np.int32], n: int) -> None:
    """What the curves of reactive power say at the EVs' voltages, or at the power that they settle at.

    ``row_of``: the EVs' rows of ``parameters``.
    """
    for i in range(n):
        power_kw = w["to_kw"][i]
        rated_kw = w["most_kw"][i] if power_kw > 0.0 else -w["least_kw"][i]
        share = power_kw / rated_kw
        share = share if power_kw != 0.0 else 0.0
        w["at"][i] = share if w["by_power"][i] != 0.0 else w["volt"][i]
    for i in range(n):
        row = parameters[row_of[i]]
        kvar = w["first_kvar"][i]
        for j in range(POINTS - 1):
            at, length, slope = _segment(row, j)
            kvar += min(max(w["at"][i] - at, 0.0), length) * slope
        w["aim_kvar"][i] = kvar


@njit
def aims_again(parameters: Table) -> bool:
    """Whether a curve of ``parameters``, (kind,), is more than :func:`plan` looks at."""
    some = False
    for row in range(len(parameters)):
        some |= parameters[row]["reactive"] == WATT_VAR
        for j in range(SEGMENTS, POINTS - 1):
            some |= parameters[row]["reactive_at"][j + 1] > parameters[row]["reactive_at"][j]
    return some


@njit
def react(w: Row, own: Block, n: int) -> int:
    """Reactive power once more, by the power and the aim; how many EVs' ratings have no room for both."""
    short = 0
    for i in range(n):
        from_kvar, to_kvar, mean_kvar = first_order(
            own["reactive_kvar"][i], w["aim_kvar"][i], w["reactive_left"][i], w["reactive_mean"][i]
        )
        most_kw = max(abs(w["from_kw"][i]), abs(w["to_kw"][i]))
        kvar_per_kw = w["kvar_per_kw"][i]
        most_kvar = max(abs(from_kvar), abs(to_kvar)) + abs(kvar_per_kw) * most_kw
        follows = (w["by_power"][i] != 0.0) | (kvar_per_kw != 0.0)
        undisturbed = (
            (w["power_kw"][i] >= w["least_kw"][i])
            & (w["power_kw"][i] <= w["most_kw"][i])
            & ((w["from_kw"][i] == w["to_kw"][i]) | (follows == False))  # noqa: E712
        )
        before = w["steady"][i]
        w["steady"][i] = before if undisturbed else 0.0
        w["to_kvar"][i] = to_kvar
        w["from_kvar"][i] = from_kvar
        w["q_kvar"][i] = mean_kvar + kvar_per_kw * abs(w["power_kw"][i])
        short += most_kw * most_kw + most_kvar * most_kvar > w["s_kva"][i] * w["s_kva"][i]
    return short


@njit
def make_room(w: Row, n: int) -> None:
    """Cut reactive power to what active power leaves of the rating, where watt priority cuts all of it."""
    for i in range(n):
        square = w["s_kva"][i] * w["s_kva"][i]
        from_kw, to_kw = w["from_kw"][i], w["to_kw"][i]
        from_kvar, to_kvar = w["from_kvar"][i], w["to_kvar"][i]
        most_kw = max(abs(from_kw), abs(to_kw))
        most_kvar = max(abs(from_kvar), abs(to_kvar)) + abs(w["kvar_per_kw"][i]) * most_kw
        short = most_kw * most_kw + most_kvar * most_kvar > square
        room_kvar = np.sqrt(max(square - from_kw * from_kw, 0.0))
        cut_from_kvar = min(max(from_kvar, -room_kvar), room_kvar)
        cut_to_kvar = min(max(to_kvar, -room_kvar), room_kvar)
        inside = (cut_from_kvar == from_kvar) & (cut_to_kvar == to_kvar)
        known = (from_kw == to_kw) & (w["var_priority"][i] == 0.0) & (w["kvar_per_kw"][i] == 0.0)
        known = known & (inside | (cut_from_kvar == cut_to_kvar))
        before, q_kvar = w["steady"][i], w["q_kvar"][i]
        w["steady"][i] = before if known | (short == False) else 0.0  # noqa: E712
        w["q_kvar"][i] = cut_from_kvar if short & (inside == False) else q_kvar  # noqa: E712


@njit
def settle(w: Row, seconds: float, standby_kw: float, state: Block, n: int) -> int:
    """Take the batteries of those whose tick is steady to its end; how many aren't."""
    others = 0
    for i in range(n):
        soc, power_kw = state["soc"][i], w["power_kw"][i]
        into_kw = battery_power_kw(
            power_kw, w["in_a"][i], w["in_slope"][i], w["in_c"][i],
            w["out_a"][i], w["out_slope"][i], w["out_c"][i],
        )  # fmt: skip
        then = soc + into_kw * (w["soc_per_kws"][i] * seconds)
        highest = held_up_to_soc(into_kw, w["held_kw"][i], w["soc_per_kw"][i], w["soc_target"][i])
        bounded = stays_within(then, into_kw, highest, w["soc_floor"][i])
        steady = (w["steady"][i] != 0.0) & bounded
        idle_kw = standby_kw if into_kw == 0.0 else 0.0
        power_kw = power_kw if into_kw != 0.0 else 0.0
        loss_kw = power_kw - into_kw + idle_kw
        others += steady == False  # noqa: E712
        w["steady"][i] = 1.0 if steady else 0.0
        w["net_kw"][i] = power_kw + idle_kw
        w["into_kw"][i] = into_kw
        w["loss_kw"][i] = loss_kw
        w["soc_before"][i] = soc
        drawn_kws = (max(power_kw, 0.0) + idle_kw) * seconds
        given_kws = max(-power_kw, 0.0) * seconds
        loss_kws = loss_kw * seconds
        state["soc"][i] = then if steady else soc
        state["drawn_kws"][i] += drawn_kws if steady else 0.0
        state["given_kws"][i] += given_kws if steady else 0.0
        state["loss_kws"][i] += loss_kws if steady else 0.0
    return others


@njit
def settle_details(w: Row, rules: Rules, own: Block, n: int) -> int:
    """The rest of it: temperature, throughput, ramp and reactive power; of how many something was refused."""
    seconds, heating, warmth_left = rules.seconds, rules.heating_k_per_kw, rules.warmth_left
    refusing = 0
    for i in range(n):
        steady, into_kw = w["steady"][i] != 0.0, w["into_kw"][i]
        refused = refused_kw(w["wanted_kw"][i], max(-w["net_kw"][i], 0.0)) > 0.0
        refusing += steady & refused
        gives = steady & (into_kw < 0.0)
        before_k, before_kw, before_kvar = own["above_k"][i], own["ramped_kw"][i], own["reactive_kvar"][i]
        reached_kw, to_kvar = w["ramped_kw"][i], w["to_kvar"][i]
        after_k = cell_above_k(before_k, w["loss_kw"][i], heating, warmth_left)
        w["above_k_before"][i] = before_k
        own["ramped_kw"][i] = reached_kw if steady else before_kw
        own["above_k"][i] = after_k if steady else before_k
        own["out_kws"][i] += -into_kw * seconds if gives else 0.0
        own["discharging_s"][i] += seconds if gives else 0.0
        own["reactive_kvar"][i] = to_kvar if steady else before_kvar
    return refusing


@njit
def note_directions(w: Row, seconds: float, own: Block, n: int) -> int:
    """As :func:`.one_ev.note_direction`, of those whose tick was steady; how many turn at its begin."""
    turning = 0
    for i in range(n):
        steady, into_kw = w["steady"][i] != 0.0, w["into_kw"][i]
        moves = steady & (into_kw != 0.0)
        before, square = own["heading"][i], own["square_kw2s"][i]
        way = np.int8(1) if into_kw > 0.0 else np.int8(-1)
        turns = moves & (before * way < 0)
        now = into_kw * into_kw * seconds if moves else 0.0
        turning += turns
        w["turns"][i] = 1.0 if turns else 0.0
        w["square_kw2s"][i] = square
        own["square_kw2s"][i] = now + (0.0 if turns else square)
        own["heading"][i] = way if moves else before
    return turning


@njit
def keep_frequency_shift(w: Row, own: Block, n: int) -> None:
    """What the frequency-watts of those that are steady remember of the tick."""
    for i in range(n):
        steady, before_kw, after_kw = w["steady"][i] != 0.0, own["droop_kw"][i], w["droop_kw"][i]
        own["droop_kw"][i] = after_kw if steady else before_kw


@njit
def missing_kw(w: Row, i: int) -> float:
    """What was asked of EV ``i``, whose tick was steady, and not given, kW."""
    missing = refused_kw(w["wanted_kw"][i], max(-w["net_kw"][i], 0.0))
    return float(missing) if w["steady"][i] != 0.0 else 0.0


@njit
def why(w: Row, i: int, options: Row, kind: Row, guarded: int, shifted: bool) -> int:
    """The reason of what was refused to EV ``i``; ``shifted``: whether frequency-watt was at work."""
    if w["reason"][i] < PERMITTED:
        return int(w["reason"][i])
    if guarded:
        return DEPARTURE
    if shifted and w["power_kw"][i] != w["wished_kw"][i]:
        return GRID
    return whose_floor(options, kind)
