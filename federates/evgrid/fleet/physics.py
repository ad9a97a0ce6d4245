"""How an EV charges where more than its set-point and its battery decide: the full pass.

In: what :mod:`evgrid.fleet.kernels` takes, and the voltage, frequency and temperature of the tick. Out:
the same, and reactive power. Same signs; ``advance`` of that module still moves the battery, so that
the state of charge has a closed form here, too. What each adds, all off unless asked for:

**Permission to discharge** is a conjunction, asked in this order: the vehicle, the EVSE (a session whose
``discharge_kw`` is 0 has neither), the interconnection's approval, the warranty (an approved EVSE, a
cap on energy out of the battery and one on hours of discharging), the driver (willing, within a daily
window). The floors of warranty and driver raise the session's. What is asked, up to rated power, and
not given is booked by the first reason that holds: ``REASONS``. The caps are those of the EV over the
run; the energy cap is met exactly, the hours count every tick in which the EV discharges.

**Set-points** below the least charging current are 0, others are cut to the pilots that the EVSE knows,
and a ramp limit moves what is followed from one to the next; its mean over the tick is followed.

**Temperature.** The cell follows the ambient as a first-order lag; what the EV itself loses heats it. No
charging below freezing, a limit by C-rate in the cold, derating in the heat, for both directions.
The limit is that at the tick's beginning.

**Local functions** of the EVSE are those of :mod:`evgrid.inverter_functions.kernels`. The EV's wish, its mean
over the tick, goes in; what comes out is followed as a constant power. Where the battery can't take it to the
end of the tick (the taper, the target), less is drawn, and what is drawn is booked and handed over.

**Who wins.** The departure guard wins over set-points, ramp limits and pilots. Temperature, volt-watt,
the limit to charging, frequency-watt, trips and a dead connection point win over the guard: safety first.
A driver may lose energy by that, and it is counted as unserved. The guard doesn't foresee them: it takes
full power for granted until departure.

**Ageing** (:mod:`evgrid.fleet.degradation`) is brought up to date at arrival, at departure, when
:func:`age` is called, and whenever SOC turns: at the begin of the tick in which an EV that charged
discharges, or the other way round, and within a tick where the guard ends a discharge. Meanwhile an EV
carries its ``heading`` and the integral of its squared battery power, from which its C-rate follows.

Left out: functions of an EVSE while no car is plugged in: trips and entering service stand still.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit
from evgrid.fleet.degradation import away_ev, bring_to_ev, calendar_loss_ev, cycle_loss_ev
from evgrid.fleet.kernels import (
    advance,
    battery_kw_drawn,
    battery_kw_given,
    charge,
    charge_limit_kw,
    close_session,
    soc_that_reaches,
)
from evgrid.fleet.lanes import LANES, Blocks, Places, in_use
from evgrid.inverter_functions.kernels import IN_SERVICE, OFF, TRIPS, respond

REASONS = ("vehicle", "evse", "interconnection", "warranty", "driver", "floor", "departure", "grid")
"""Why a discharge was refused. floor: the vehicle's own; departure: the guard; grid: the EVSE's local
functions, the limits of temperature, or a dead connection point."""

VEHICLE, EVSE, INTERCONNECTION, WARRANTY, DRIVER, FLOOR, DEPARTURE, GRID = range(1, 9)
"""Numbers of REASONS; 0 is no reason."""

PHYSICS = np.dtype(
    [
        ("ramped_kw", "f8"),  # set-point that the ramp limit has reached
        ("above_k", "f8"),  # cell temperature above that of a car that stands idle
        ("out_kws", "f8"),  # energy out of the battery by discharging, over the run
        ("discharging_s", "f8"),  # time of it
        ("past_kg", "f8"),  # emitted in the session, less that of its energy at the rate of now
        ("reactive_kvar", "f8"),  # response of the EVSE's reactive power, see curves.kernels.STATE
        ("droop_kw", "f8"),  # response of its frequency-watt
        ("parameters", "i4"),  # row of the PARAMETERS of its EVSE's local functions
        ("square_kw2s", "f4"),  # integral of the squared battery power since its ageing was brought up
        ("refusal", "i1"),  # reason for which it never may, 0 if it may
        ("capable", "i1"),  # 1: its EVSE has the local functions
        ("disturbed", "i1"),  # 1: its EVSE is off, ramping, timing a trip, or limits active power
        ("phases", "i1"),  # 1 or 3
        ("heading", "i1"),  # which way SOC went last in this session: 1 up, -1 down, 0 not yet
    ],
    align=True,
)
"""What the full pass remembers of an EV besides STATE: 69 bytes."""

FUNCTIONS = np.dtype(
    [
        ("export_cut", "f8"),
        ("charging_cut", "f8"),
        ("clock_s", "f8"),
        ("beyond_s", "f8", (TRIPS,)),
        ("mode", "i1"),
        ("timing", "i1"),
    ]
)
"""What an EVSE's functions remember besides PHYSICS, read and written while disturbed only: 90 bytes.

Fields as in :data:`evgrid.inverter_functions.kernels.STATE`."""

OPTIONS = np.dtype(
    [
        ("throughput_kws", "f8"),  # cap on energy out of the battery; inf: none
        ("discharging_s", "f8"),  # cap on the time of it
        ("warranty_floor", "f8"),
        ("driver_floor", "f8"),
        ("least_a", "f8"),  # least charging current, 0: any
        ("pilot_a", "f8"),  # step of the pilots, 0: any
        ("volt", "f8"),  # phase to neutral, nominal
        ("ramp_kw_per_s", "f8"),  # inf: none
        ("standby_kw", "f8"),
        ("heating_k_per_kw", "f8"),  # steady rise of the cell per kW of loss
        ("cooling_per_s", "f8"),  # 1 / time constant of the cell
        ("thermal", "i8"),  # 1: temperature limits power
        ("freezing_c", "f8"),  # no charging below
        ("mild_c", "f8"),  # full power from here
        ("cold_c_rate", "f8"),  # limit at freezing, 1/h
        ("mild_c_rate", "f8"),  # limit just below mild
        ("warm_c", "f8"),  # derating from here
        ("hot_c", "f8"),  # stop
        ("functions", "i8"),  # 1: EVSEs have local functions
        ("emissions", "i8"),  # 1: emissions are counted
        ("ageing", "i8"),  # 1: batteries age
        ("away_c_rate", "f8"),  # of driving, 1/h, for ageing
    ],
    align=True,
)
"""Settings of the full pass, the same for all EVs."""

SAME = 1e-12
"""Power, per rated power, within which an EVSE's answer is what the EV wished for."""

Row = Any
"""A row of PHYSICS, OPTIONS or one of the tables of the modules that this one calls."""


@njit
def on_pilot_kw(options: Row, setpoint_kw: float, phases: int) -> float:
    """Set-point to charge as the EVSE's pilot can tell it: 0 below the least current, else cut to a step.

    Setpoints that are not positive, and +inf, stay as they are.
    """
    if not 0.0 < setpoint_kw < inf:
        return setpoint_kw
    amperes = setpoint_kw * (1000.0 / (options["volt"] * phases)) * (1.0 + 1e-12)
    if amperes < options["least_a"]:
        return 0.0
    if options["pilot_a"] > 0.0:
        steps = np.floor(amperes * (1.0 / options["pilot_a"]))
        return float(steps * options["pilot_a"] * (options["volt"] / 1000.0 * phases))
    return setpoint_kw


@njit
def ramped_kw(now_kw: float, target_kw: float, kw_per_s: float, seconds: float) -> tuple[float, float]:
    """Mean over ``seconds``, and value at the end, of what moves to a target at a limited speed."""
    if now_kw == target_kw or kw_per_s == inf:
        return target_kw, target_kw
    needed = abs(target_kw - now_kw) / kw_per_s
    if needed >= seconds:
        end = now_kw + (kw_per_s if target_kw > now_kw else -kw_per_s) * seconds
        return 0.5 * (now_kw + end), end
    return target_kw + 0.5 * (now_kw - target_kw) * needed / seconds, target_kw


@njit
def thermal_limit_kw(options: Row, kind: Row, cell_c: float) -> tuple[float, float]:
    """Most that the battery takes and gives at a cell temperature, kW at the battery."""
    charging = kind["battery_kw"]
    out = battery_kw_given(
        kind["discharge_kw"], kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
    )
    if cell_c < options["freezing_c"]:
        return 0.0, float(out)
    if cell_c < options["mild_c"]:
        share = (cell_c - options["freezing_c"]) / (options["mild_c"] - options["freezing_c"])
        rate = options["cold_c_rate"] + share * (options["mild_c_rate"] - options["cold_c_rate"])
        return float(min(charging, rate * kind["capacity_kwh"])), float(out)
    if cell_c > options["warm_c"]:
        share = (options["hot_c"] - cell_c) / (options["hot_c"] - options["warm_c"])
        share = max(share, 0.0)
        return float(charging * share), float(out * share)
    return float(charging), float(out)


@njit
def grid_limits_kw(
    kind: Row, soc: float, into_kw: float, out_kw: float, seconds: float
) -> tuple[float, float]:
    """Least (<= 0) and greatest mean power at the grid over ``seconds``, kW, within floor and target.

    ``into_kw``, ``out_kw``: limits at the battery.
    """
    high = 0.0
    if into_kw > 0.0:
        _, on_s, first, second = charge(kind, soc, into_kw, seconds)
        high = (
            (1.0 + kind["charge_b"]) * first + kind["charge_a"] * on_s + kind["charge_c"] * second
        ) / seconds
    low = 0.0
    if out_kw > 0.0 and soc > kind["soc_floor"]:
        span = min((soc - kind["soc_floor"]) / (out_kw * kind["soc_per_kws"]), seconds)
        lost = kind["discharge_a"] + out_kw * (kind["discharge_b"] + out_kw * kind["discharge_c"])
        low = min((lost - out_kw) * span / seconds, 0.0)
    return low, min(high, float(kind["charge_kw"]))


@njit
def _steady(
    kind: Row, soc: float, asked_kw: float, seconds: float, left_s: float, guarded: int
) -> tuple[bool, float, float, float, float, float, float]:
    """Whether power is constant over a window, and if so SOC and power, kW.

    Power drawn, given, lost, put in and taken out.
    """
    limit_kw = kind["charge_kw"]
    asked_kw = inf if guarded else asked_kw
    up_kw = min(max(asked_kw, 0.0), limit_kw)
    down_kw = min(max(-asked_kw, 0.0), kind["discharge_kw"])
    full = up_kw == limit_kw
    up_kw = up_kw if soc < kind["soc_target"] else 0.0
    down_kw = down_kw if soc > kind["soc_floor"] else 0.0
    into_kw = 0.0
    out_kw = 0.0
    loss_kw = 0.0
    if kind["linear"]:
        into_kw = up_kw * kind["charge_gain"]
        out_kw = down_kw * kind["discharge_gain"]
        loss_kw = into_kw * kind["charge_b"] + out_kw * kind["discharge_b"]
    elif up_kw > 0.0:
        into_kw = kind["battery_kw"]
        if not full:
            into_kw = battery_kw_drawn(up_kw, kind["charge_a"], kind["charge_b"], kind["charge_c"])
        if into_kw > 0.0:
            loss_kw = kind["charge_a"] + into_kw * (kind["charge_b"] + into_kw * kind["charge_c"])
        else:
            up_kw = 0.0
    elif down_kw > 0.0:
        out_kw = battery_kw_given(down_kw, kind["discharge_a"], kind["discharge_b"], kind["discharge_c"])
        loss_kw = kind["discharge_a"] + out_kw * (kind["discharge_b"] + out_kw * kind["discharge_c"])
    then = soc + (into_kw - out_kw) * kind["soc_per_kws"] * seconds
    highest = min(1.0 - into_kw * kind["taper_per_kw"], kind["soc_target"])
    needed_s = kind["full_charge_s"] - then * kind["s_per_soc"]
    steady = (
        ((then <= highest) | (into_kw == 0.0))
        & ((then >= kind["soc_floor"]) | (out_kw == 0.0))
        & ((left_s - seconds > needed_s) | full)
    )
    return steady, then, up_kw, down_kw, loss_kw, into_kw, out_kw


@njit
def _move(
    kind: Row, soc: float, asked_kw: float, seconds: float, left_s: float, guarded: int
) -> tuple[float, int, float, float, float, float, float, float, float, float]:
    """:func:`evgrid.fleet.kernels.advance`, by the short way where power is constant."""
    steady, then, up_kw, down_kw, loss_kw, into_kw, out_kw = _steady(
        kind, soc, asked_kw, seconds, left_s, guarded
    )
    if steady:
        flowing_s = seconds if up_kw > 0.0 or down_kw > 0.0 else 0.0
        return (
            then, guarded, up_kw * seconds, down_kw * seconds, loss_kw * seconds, flowing_s, out_kw * seconds,
            into_kw * into_kw * seconds, out_kw * out_kw * seconds, 0.0,
        )  # fmt: skip
    return advance(kind, soc, asked_kw, seconds, left_s, guarded)


@njit
def lift_own(block: Blocks, i: int, physics: Row) -> None:
    """Copy what a block of PHYSICS holds of lane ``i`` to a row."""
    physics["ramped_kw"] = block["ramped_kw"][i]
    physics["above_k"] = block["above_k"][i]
    physics["out_kws"] = block["out_kws"][i]
    physics["discharging_s"] = block["discharging_s"][i]
    physics["past_kg"] = block["past_kg"][i]
    physics["reactive_kvar"] = block["reactive_kvar"][i]
    physics["droop_kw"] = block["droop_kw"][i]
    physics["parameters"] = block["parameters"][i]
    physics["square_kw2s"] = block["square_kw2s"][i]
    physics["refusal"] = block["refusal"][i]
    physics["capable"] = block["capable"][i]
    physics["disturbed"] = block["disturbed"][i]
    physics["phases"] = block["phases"][i]
    physics["heading"] = block["heading"][i]


@njit
def lower_own(physics: Row, block: Blocks, i: int) -> None:
    """Copy what changes of a row of PHYSICS back to lane ``i`` of a block."""
    block["ramped_kw"][i] = physics["ramped_kw"]
    block["above_k"][i] = physics["above_k"]
    block["out_kws"][i] = physics["out_kws"]
    block["discharging_s"][i] = physics["discharging_s"]
    block["past_kg"][i] = physics["past_kg"]
    block["reactive_kvar"][i] = physics["reactive_kvar"]
    block["droop_kw"][i] = physics["droop_kw"]
    block["parameters"][i] = physics["parameters"]
    block["square_kw2s"][i] = physics["square_kw2s"]
    block["disturbed"][i] = physics["disturbed"]
    block["heading"][i] = physics["heading"]


@njit
def refusal_of(
    options: Row, kind: Row, never: int, out_kws: float, discharging_s: float, willing: bool
) -> int:
    """The first reason for which an EV may not discharge now, 0 if it may; floors are not asked.

    ``never``, ``out_kws``, ``discharging_s``: the EV's, see PHYSICS.
    """
    if never == VEHICLE:
        return VEHICLE
    if kind["discharge_kw"] == 0.0:
        return EVSE
    if never and never != DRIVER:
        return int(never)
    if out_kws >= options["throughput_kws"] * (1.0 - 1e-12) or discharging_s >= options["discharging_s"]:
        return WARRANTY
    if never == DRIVER or not willing:
        return DRIVER
    return 0


@njit
def window(
    options: Row, kind: Row, row: Row, physics: Row, parameters: Row, functions: Row, memory: Row,
    refused_kwh: NDArray[np.float64], setpoint_kw: float, seconds: float, left_s: float, willing: bool,
    voltage_pu: float, lowest_pu: float, highest_pu: float, energised: float, frequency_hz: float,
    idle_c: float, battery: Row, laws: Row, time_s: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Advance one EV over a window in which it is plugged in.

    Parameters
    ----------
    options, kind, row, physics
        The settings, and the EV's rows of KIND, STATE and PHYSICS; ``row`` and ``physics`` are updated.
    parameters, functions, memory
        Rows of the PARAMETERS of its EVSE's local functions, of FUNCTIONS, which is updated, and of the
        functions' STATE, to work in.
    refused_kwh
        (len(REASONS), …), updated by what is refused.
    setpoint_kw
        That the EVSE goes by, kW at the grid.
    seconds, left_s
        Length of the window (> 0), and time from its beginning to the departure.
    willing
        Whether drivers may let discharge at this time of day.
    voltage_pu, lowest_pu, highest_pu, energised, frequency_hz
        See :func:`evgrid.inverter_functions.kernels.respond`.
    idle_c
        Temperature of the cell of a car that stands idle, °C.
    battery, laws, time_s
        Its row of the STATE of ageing, updated, and LAWS, both read only where batteries age; begin of the
        window.

    Returns energy drawn and energy given (kWs), and reactive energy (kvars).

    """
    soc = row["soc"]
    guarded = row["guarded"]
    refusal = 0
    asked_kw = 0.0
    followed_kw = on_pilot_kw(options, setpoint_kw, physics["phases"])
    if followed_kw < 0.0:
        rated_kw = kind["discharge_kw"] if kind["discharge_kw"] > 0.0 else kind["charge_kw"]
        asked_kw = min(-followed_kw, rated_kw)
        refusal = refusal_of(
            options, kind, physics["refusal"], physics["out_kws"], physics["discharging_s"], willing
        )
        if refusal:
            followed_kw = 0.0
        elif options["throughput_kws"] < inf:
            out_kw = (options["throughput_kws"] - physics["out_kws"]) / seconds
            lost_kw = kind["discharge_a"] + out_kw * (kind["discharge_b"] + out_kw * kind["discharge_c"])
            most_kw = max(out_kw - lost_kw, 0.0)
            if most_kw < asked_kw and out_kw < 2.0 * rated_kw:
                followed_kw = -most_kw
                refusal = WARRANTY
    if options["ramp_kw_per_s"] < inf:
        target_kw = min(max(followed_kw, -kind["discharge_kw"]), kind["charge_kw"])
        followed_kw, physics["ramped_kw"] = ramped_kw(
            physics["ramped_kw"], target_kw, options["ramp_kw_per_s"], seconds
        )
        if not refusal:  # what is still on its way down isn't refused
            asked_kw = min(asked_kw, max(-followed_kw, 0.0))

    then, guard, drawn, given, loss, flowing_s, taken, square_in, square_out, charging_from = _move(
        kind, soc, followed_kw, seconds, left_s, guarded
    )
    wished_kw = (drawn - given) / seconds
    into_kw = kind["battery_kw"]
    out_kw = inf
    limited = False
    if options["thermal"]:
        cell_c = idle_c + physics["above_k"]
        if not options["mild_c"] <= cell_c <= options["warm_c"]:
            into_kw, out_kw = thermal_limit_kw(options, kind, cell_c)
            limited = into_kw < kind["battery_kw"] or cell_c > options["warm_c"]
    q_kvars = 0.0
    power_kw = wished_kw
    answered = False
    if options["functions"] or limited:
        step_soc = kind["soc_per_kws"] * seconds
        if (
            not limited
            and soc + kind["battery_kw"] * step_soc <= kind["full_power_soc"]
            and soc - 2.0 * kind["discharge_kw"] * step_soc >= kind["soc_floor"]
        ):
            high_kw = kind["charge_kw"]
            low_kw = -kind["discharge_kw"]
        else:
            if out_kw == inf:
                out_kw = battery_kw_given(
                    kind["discharge_kw"], kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
                )
            low_kw, high_kw = grid_limits_kw(kind, soc, into_kw, out_kw, seconds)
        if refusal or kind["discharge_kw"] == 0.0 or physics["refusal"]:
            low_kw = min(wished_kw, 0.0)
        if not limited:  # a slow charge to the target loses longer, and draws more than a fast one
            high_kw = max(high_kw, wished_kw)
            low_kw = min(low_kw, wished_kw)
        if options["functions"]:
            _recall(physics, functions, memory)
            power_kw, q_kvar = respond(
                parameters, memory, voltage_pu, lowest_pu, highest_pu, frequency_hz, energised,
                wished_kw, low_kw, high_kw, seconds,
            )  # fmt: skip
            q_kvars = q_kvar * seconds
            _note(physics, functions, memory)
        else:
            power_kw = min(max(wished_kw, low_kw), high_kw)
        answered = abs(power_kw - wished_kw) > SAME * kind["charge_kw"]
        if answered:
            then, _, drawn, given, loss, flowing_s, taken, square_in, square_out, charging_from = _move(
                kind, soc, power_kw, seconds, inf, 0
            )
    if options["standby_kw"] > 0.0 and (not options["functions"] or functions["mode"] != OFF):
        standby = options["standby_kw"] * (seconds - flowing_s)
        drawn += standby
        loss += standby
    if options["ageing"]:
        cell_k = idle_c + physics["above_k"] + 273.15
        if square_out > 0.0:
            head(-1, square_out, physics, kind["capacity_kwh"], battery, laws, time_s, soc, cell_k)
        if square_in > 0.0:
            from_s, lowest = time_s + charging_from, soc - taken * kind["soc_per_kws"]
            head(1, square_in, physics, kind["capacity_kwh"], battery, laws, from_s, lowest, cell_k)
    if options["heating_k_per_kw"] > 0.0:
        rise = options["heating_k_per_kw"] * loss / seconds
        left = np.exp(-options["cooling_per_s"] * seconds)
        physics["above_k"] = rise + (physics["above_k"] - rise) * left
    if given > 0.0:
        physics["discharging_s"] += seconds
        physics["out_kws"] += taken
    if asked_kw > 0.0:
        refused = asked_kw * seconds - given
        if refused > 1e-9 * asked_kw * seconds:
            if refusal == 0:
                refusal = GRID
                if guard:
                    refusal = DEPARTURE
                elif not answered:
                    refusal = whose_floor(options, kind)
            refused_kwh[refusal - 1] += refused / 3600.0
    row["soc"] = then
    row["guarded"] = guard
    row["drawn_kws"] += drawn
    row["given_kws"] += given
    row["loss_kws"] += loss
    return drawn, given, q_kvars


@njit
def _recall(physics: Row, functions: Row, memory: Row) -> None:
    """Put together the STATE of an EVSE's functions."""
    memory["reactive_kvar"] = physics["reactive_kvar"]
    memory["droop_kw"] = physics["droop_kw"]
    memory["export_cut"] = functions["export_cut"]
    memory["charging_cut"] = functions["charging_cut"]
    memory["clock_s"] = functions["clock_s"]
    memory["mode"] = functions["mode"]
    memory["timing"] = functions["timing"]
    for i in range(TRIPS):
        memory["beyond_s"][i] = functions["beyond_s"][i]


@njit
def _note(physics: Row, functions: Row, memory: Row) -> None:
    """Take the STATE of an EVSE's functions apart again."""
    physics["reactive_kvar"] = memory["reactive_kvar"]
    physics["droop_kw"] = memory["droop_kw"]
    functions["export_cut"] = memory["export_cut"]
    functions["charging_cut"] = memory["charging_cut"]
    functions["clock_s"] = memory["clock_s"]
    functions["mode"] = memory["mode"]
    functions["timing"] = memory["timing"]
    for i in range(TRIPS):
        functions["beyond_s"][i] = memory["beyond_s"][i]
    physics["disturbed"] = _is_disturbed(functions)


@njit
def _is_disturbed(functions: Row) -> bool:
    return bool(
        functions["mode"] != IN_SERVICE
        or functions["timing"] != 0
        or functions["export_cut"] != 0.0
        or functions["charging_cut"] != 0.0
    )


@njit
def head(
    way: int, square_kw2s: float, physics: Row, capacity_kwh: float, battery: Row, laws: Row, time_s: float,
    soc: float, cell_k: float,
) -> None:  # fmt: skip
    """Let the battery of an EV charge (``way`` 1) or discharge (-1) from ``time_s`` on, when SOC is ``soc``.

    Where that is a turning point, its ageing is brought up to it first. ``square_kw2s``: the integral of
    the squared battery power on the way.
    """
    if physics["heading"] * way < 0:
        bring_up(physics, capacity_kwh, battery, laws, time_s, soc, cell_k)
    physics["heading"] = way
    physics["square_kw2s"] += square_kw2s


@njit
def bring_up(
    physics: Row, capacity_kwh: float, battery: Row, laws: Row, time_s: float, soc: float, cell_k: float
) -> None:
    """Bring the ageing of an EV up to a time: see :func:`evgrid.fleet.degradation.bring_to_ev`."""
    bring_to_ev(battery, laws, time_s, soc, cell_k, c_rate_over_soc(physics["square_kw2s"], capacity_kwh))
    physics["square_kw2s"] = 0.0


@njit
def c_rate_over_soc(square_kw2s: float, capacity_kwh: float) -> float:
    """Integral of the C-rate (1/h) over the SOC moved, from that of the squared battery power over time.

    With C = P / capacity and dSOC = C dt: the integral of C over SOC is that of C² over time.
    """
    return square_kw2s / (3600.0 * capacity_kwh * capacity_kwh)


@njit
def whose_floor(options: Row, kind: Row) -> int:
    """Whose floor it is; an empty battery is nobody's wish."""
    if 0.0 < kind["soc_floor"] <= options["driver_floor"]:
        return DRIVER
    if 0.0 < kind["soc_floor"] <= options["warranty_floor"]:
        return WARRANTY
    return FLOOR


@njit
def welcome(
    row: Row, options: Row, physics: Row, parameters_of: NDArray[np.int32], without: int, ageing: Row,
    laws: Row, ev: int, time_s: float, idle_c: float, more: NDArray[np.float64],
) -> None:  # fmt: skip
    """What a session begins with, besides :func:`evgrid.fleet.kernels.plug_in`.

    ``parameters_of``, (kind,): the row of PARAMETERS; ``without``: that of an EVSE without functions.
    """
    physics["ramped_kw"] = 0.0
    physics["above_k"] = 0.0
    physics["past_kg"] = 0.0
    physics["square_kw2s"] = 0.0
    physics["heading"] = 0
    physics["parameters"] = parameters_of[row["kind"]] if physics["capable"] else without
    for i in range(len(REASONS)):
        more[row["session"], i] = 0.0
    if len(ageing):
        battery = ageing[ev]
        seconds = time_s - battery["since_s"]
        before = row["soc"]
        if battery["points"] > 0:
            before = np.float64(battery["point"][battery["points"] - 1])
        away_ev(battery, laws, before, row["soc"], seconds, idle_c + 273.15, options["away_c_rate"])
        battery["since_s"] = time_s
        more[row["session"], len(REASONS)] = calendar_loss_ev(battery, laws)
        more[row["session"], len(REASONS) + 1] = cycle_loss_ev(battery, laws)


@njit
def leave(
    row: Row, options: Row, kind: Row, physics: Row, functions: Row, ageing: Row, laws: Row, ev: int,
    time_s: float, idle_c: float, rates: NDArray[np.float64],
    outcome: NDArray[np.float64], more: NDArray[np.float64],
) -> None:  # fmt: skip
    """Write what a session came to: :func:`evgrid.fleet.kernels.close_session`, and ``more``.

    ``more``, (session, len(REASONS) + 3): energy refused by reason (kWh), which is there already;
    calendar and cycle loss of capacity (shares), until now those at arrival; emissions (kg).
    """
    close_session(row, rates, outcome)
    session = row["session"]
    reasons = len(REASONS)
    more[session, reasons + 2] = physics["past_kg"] + rates[2] * (row["drawn_kws"] - row["given_kws"])
    if len(ageing):
        cell_k = idle_c + physics["above_k"] + 273.15
        bring_up(physics, kind["capacity_kwh"], ageing[ev], laws, time_s, row["soc"], cell_k)
        more[session, reasons] = calendar_loss_ev(ageing[ev], laws) - more[session, reasons]
        more[session, reasons + 1] = cycle_loss_ev(ageing[ev], laws) - more[session, reasons + 1]
    if options["functions"]:
        physics["reactive_kvar"] = 0.0
        if physics["disturbed"]:
            functions[ev]["timing"] = 0
            for i in range(TRIPS):
                functions[ev]["beyond_s"][i] = 0.0
            physics["disturbed"] = _is_disturbed(functions[ev])


@njit
def rate_emissions(
    places: Places, state: Blocks, physics: Blocks, rates: NDArray[np.float64], to: NDArray[np.float64]
) -> None:
    """As :func:`evgrid.fleet.kernels.reprice`, of ``rates[2]``, kg per kWs of net energy, and ``past_kg``."""
    for lane in in_use(places):
        block, own, i = state[lane // LANES], physics[lane // LANES], lane % LANES
        own["past_kg"][i] += (rates[2] - to[2]) * (block["drawn_kws"][i] - block["given_kws"][i])
    rates[2] = to[2]


@njit
def age(
    low: int, high: int, places: Places, state: Blocks, physics: Blocks, kinds: Row, ageing: Row, laws: Row,
    time_s: float, idle_c: float,
) -> None:  # fmt: skip
    """Bring the ageing of those plugged in in the stretches ``low`` to ``high`` up to ``time_s``."""
    for stretch in range(low, high):
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block, own, i = state[lane // LANES], physics[lane // LANES], lane % LANES
            capacity_kwh = kinds[block["kind"][i]]["capacity_kwh"]
            c_rate = c_rate_over_soc(own["square_kw2s"][i], capacity_kwh)
            cell_k = idle_c + own["above_k"][i] + 273.15
            bring_to_ev(ageing[block["ev"][i]], laws, time_s, block["soc"][i], cell_k, c_rate)
            own["square_kw2s"][i] = 0.0


@njit
def flexibility(
    now_s: float, horizon_s: float, options: Row, kinds: Row, places: Places, state: Blocks,
    physics: Blocks, willing: bool, power_kw: NDArray[np.float64],
    p_min_kw: NDArray[np.float64], p_max_kw: NDArray[np.float64],
    e_min_kwh: NDArray[np.float64], e_max_kwh: NDArray[np.float64],
    up_kw: NDArray[np.float64], down_kw: NDArray[np.float64],
) -> None:  # fmt: skip
    """What each EV can offer for ``horizon_s`` from ``now_s``; fills the (ev,) arrays, 0 while away.

    With P > 0 charging, POP the power of now (``power_kw``) and E the energy in the battery:

        up = min(POP - Pmin, POP + (E - Emin(t + horizon)) eta_out / horizon)
        down = min(Pmax - POP, (Emax - E) / (eta_in horizon) - POP)

    neither below 0; where E is below Emin, so that charging has to make it up, the first divides by
    eta_in instead. ``Emin``, at the end of the horizon: what still reaches the target by departure at
    full power, and not below the floor of a session that may discharge (for one that may not, not below
    what it has). ``Emax``: the target. An EV that departs within the horizon, or whose laxity is used up,
    offers nothing. eta_out, eta_in: of discharging at Pmin, of charging at Pmax.
    """
    for array in (p_min_kw, p_max_kw, e_min_kwh, e_max_kwh, up_kw, down_kw):
        array[:] = 0.0
    for lane in in_use(places):
        block, own, i = state[lane // LANES], physics[lane // LANES], lane % LANES
        ev = block["ev"][i]
        kind = kinds[block["kind"][i]]
        soc, guarded = block["soc"][i], block["guarded"][i]
        capacity = kind["capacity_kwh"]
        energy = soc * capacity
        refusal = refusal_of(
            options, kind, own["refusal"][i], own["out_kws"][i], own["discharging_s"][i], willing
        )
        may = soc > kind["soc_floor"] and refusal == 0
        limit_kw = charge_limit_kw(kind, soc) if soc < kind["soc_target"] else 0.0
        drawn_kw = 0.0
        if limit_kw > 0.0:
            lost_kw = kind["charge_a"] + limit_kw * (kind["charge_b"] + limit_kw * kind["charge_c"])
            drawn_kw = min(limit_kw + lost_kw, kind["charge_kw"])
        p_max_kw[ev] = drawn_kw
        p_min_kw[ev] = -kind["discharge_kw"] if may else 0.0
        e_max_kwh[ev] = max(kind["soc_target"], soc) * capacity
        left_s = block["departure_s"][i] - now_s - horizon_s
        reach = soc_that_reaches(kind, left_s)
        least = max(kind["soc_floor"] if may else soc, reach)
        e_min_kwh[ev] = least * capacity
        if left_s < 0.0 or guarded:
            p_min_kw[ev] = p_max_kw[ev] if guarded else p_min_kw[ev]
            continue
        hours = horizon_s / 3600.0
        pop = power_kw[ev]
        spare_kw = (energy - e_min_kwh[ev]) / hours
        if spare_kw < 0.0:
            spare_kw *= drawn_kw / limit_kw
        elif may:
            a, b, c = kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
            spare_kw *= kind["discharge_kw"] / battery_kw_given(kind["discharge_kw"], a, b, c)
        up_kw[ev] = max(min(pop - p_min_kw[ev], pop + spare_kw), 0.0)
        if drawn_kw > 0.0:
            room_kw = (e_max_kwh[ev] - energy) / hours * (drawn_kw / limit_kw)
            down_kw[ev] = max(min(drawn_kw - pop, room_kw - pop), 0.0)


@njit
def withhold(
    options: Row, kinds: Row, places: Places, state: Blocks, physics: Blocks, willing: bool,
    p_min_kw: NDArray[np.float64],
) -> None:  # fmt: skip
    """Set the reported least power, (ev,), of EVs that may not discharge now to 0."""
    for lane in in_use(places):
        block, own, i = state[lane // LANES], physics[lane // LANES], lane % LANES
        kind = kinds[block["kind"][i]]
        never, out_kws, discharging_s = own["refusal"][i], own["out_kws"][i], own["discharging_s"][i]
        if refusal_of(options, kind, never, out_kws, discharging_s, willing):
            p_min_kw[block["ev"][i]] = 0.0
