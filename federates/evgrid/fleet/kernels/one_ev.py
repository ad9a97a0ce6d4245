"""One EV over a time in full detail: how it charges where more than its set-point and its battery decide.

In: what the basic step takes, and the voltage, frequency and temperature of the tick. Out: the same, and
reactive power. Same signs; :func:`evgrid.battery.charging.move` moves the battery, so that the state of
charge has a closed form here, too. What each adds, all off unless asked for:

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

from math import exp, inf
from typing import NamedTuple

import numpy as np

from evgrid.battery.charging import charge, drawn_kws, move
from evgrid.battery.laws import (
    DEPARTURE,
    DRIVER,
    FLOOR,
    GRID,
    PERMITTED,
    REASONS,
    WARRANTY,
    cell_above_k,
    cold_limit_kw,
    heat_derating,
    lost,
    on_pilot_kw,
    pilot_of,
    ramped_kw,
    refusal,
    refused_kw,
    standby_kws,
)
from evgrid.battery.records import BEHIND_SITE, DEAD, ISLANDED, SUPPLIED, Floats, Row, Table
from evgrid.core.jit import njit
from evgrid.fleet.degradation import STATE as BATTERY
from evgrid.fleet.degradation import away_ev, bring_to_ev, calendar_loss_ev, cycle_loss_ev
from evgrid.fleet.kernels.lanes import LANES, STATE, Blocks, Places, in_use, lift
from evgrid.fleet.kernels.records import (
    PHYSICS,
    Details,
    Fleet,
    SessionTable,
    Span,
    Tick,
    lift_own,
)
from evgrid.fleet.kernels.sessions import close_session
from evgrid.inverter_functions.kernels import IN_SERVICE, OFF, TRIPS, respond
from evgrid.inverter_functions.kernels import STATE as MEMORY

SAME = 1e-12
"""Power, per rated power, within which an EVSE's answer is what the EV wished for."""


class Seen(NamedTuple):
    """What an EVSE sees of the grid.

    voltage_pu, lowest_pu, highest_pu : mean, least and greatest of its phases' voltages
    energised : 0 where the connection point is dead
    frequency_hz : of the grid
    """

    voltage_pu: float
    lowest_pu: float
    highest_pu: float
    energised: float
    frequency_hz: float


class Room(NamedTuple):
    """Rows to work in on one EV, (1,) each.

    row, own : STATE and PHYSICS
    memory : STATE of its EVSE's functions
    battery : STATE of ageing, where batteries don't age
    """

    row: Table
    own: Table
    memory: Table
    battery: Table


@njit
def make_room_for_one() -> Room:
    """Rows to work in."""
    return Room(np.zeros(1, STATE), np.zeros(1, PHYSICS), np.zeros(1, MEMORY), np.zeros(1, BATTERY))


@njit
def limits_at_cell(options: Row, kind: Row, cell_c: float) -> tuple[float, float]:
    """Most that the battery takes and gives at a cell temperature, kW at the battery."""
    cold_kw = cold_limit_kw(
        cell_c, kind["capacity_kwh"], options["freezing_c"], options["mild_c"], options["cold_c_rate"],
        options["mild_c_rate"],
    )  # fmt: skip
    left = heat_derating(cell_c, options["warm_c"], options["hot_c"])
    return float(min(cold_kw, kind["battery_kw"]) * left), float(kind["most_out_kw"] * left)


@njit
def grid_limits_kw(
    kind: Row, curve: Row, soc: float, into_kw: float, out_kw: float, seconds: float
) -> tuple[float, float]:
    """Least (<= 0) and greatest mean power at the grid over ``seconds``, kW, within floor and target.

    ``into_kw``, ``out_kw``: limits at the battery.
    """
    high = 0.0
    if into_kw > 0.0:
        _, on_s, first, second = charge(kind, curve, soc, into_kw, seconds)
        high = drawn_kws(kind, on_s, first, second)[0] / seconds
    low = 0.0
    if out_kw > 0.0 and soc > kind["soc_floor"]:
        span = min((soc - kind["soc_floor"]) / (out_kw * kind["soc_per_kws"]), seconds)
        low = min(-_given_kw(kind, out_kw) * span / seconds, 0.0)
    return low, min(high, float(kind["charge_kw"]))


@njit
def _given_kw(kind: Row, out_kw: float) -> float:
    """Power given to the grid, kW, when ``out_kw`` > 0 leaves the battery; negative if less than is lost."""
    a, b, c = kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
    return float(out_kw - lost(1.0, out_kw, out_kw * out_kw, a, b, c))


@njit
def _permitted_kw(
    options: Row, kind: Row, physics: Row, span: Span, never: float, willing: bool
) -> tuple[float, float, int]:
    """What the pilot and permission leave of a set-point, kW; discharge wanted, kW; why not all of it.

    ``never``: the reason for which it never may discharge, 0 if it may.
    """
    a_per_kw, steps_per_a, step_kw = pilot_of(options["volt"], options["pilot_a"])
    followed_kw = on_pilot_kw(
        span.setpoint_kw, float(physics["phases"]), a_per_kw, options["least_a"], steps_per_a, step_kw
    )
    if followed_kw >= 0.0:
        return followed_kw, 0.0, 0
    rated_kw = kind["discharge_kw"] if kind["discharge_kw"] > 0.0 else kind["charge_kw"]
    wanted_kw = min(-followed_kw, rated_kw)
    reason = refusal(
        never, kind["discharge_kw"], physics["out_kws"], physics["discharging_s"],
        options["throughput_kws"], options["discharging_s"], willing,
    )  # fmt: skip
    if reason < PERMITTED:
        return 0.0, wanted_kw, int(reason)
    out_kw = (options["throughput_kws"] - physics["out_kws"]) / span.seconds
    if out_kw < 2.0 * rated_kw:  # the cap is met exactly
        most_kw = max(_given_kw(kind, out_kw), 0.0)
        if most_kw < wanted_kw:
            return -most_kw, wanted_kw, WARRANTY
    return followed_kw, wanted_kw, 0


@njit
def window(
    tick: Tick, seen: Seen, fleet: Fleet, details: Details, room: Room, refused_kwh: Floats, span: Span
) -> tuple[float, float]:
    """Advance one EV over a window in which it is plugged in.

    Parameters
    ----------
    tick, seen, fleet, details
        The tick, what the EV's EVSE sees in it, and the tables.
    room
        ``row`` and ``own`` are the EV's, and are updated.
    refused_kwh
        (len(REASONS), …), updated by what is refused.
    span
        The window, and what is asked in it.

    Returns net energy drawn (kWs), and reactive energy (kvars).

    """
    row, physics, options = room.row[0], room.own[0], details.options
    kind = fleet.kinds.rows[row["kind"]]
    curve = fleet.kinds.curves[kind["curve"]]
    functions = details.functions[row["ev"] if options["functions"] else 0]
    battery = details.ageing[row["ev"]] if options["ageing"] else room.battery[0]
    soc = row["soc"]
    begin_s, seconds = span.begin_s, span.seconds
    left_s, guarded = inf, 0
    if span.supply == SUPPLIED:
        left_s, guarded = row["departure_s"] - begin_s, row["guarded"]
    never = float(physics["island_refusal"] if span.supply == ISLANDED else physics["refusal"])
    willing = tick.willing or span.supply in (ISLANDED, BEHIND_SITE)  # a site asks the driver itself
    followed_kw, wanted_kw, reason = _permitted_kw(options, kind, physics, span, never, willing)
    if span.supply == DEAD:
        physics["ramped_kw"] = 0.0
    goal_kw = min(max(followed_kw, -kind["discharge_kw"]), kind["charge_kw"])
    reach_kw = options["ramp_kw_per_s"] * seconds
    followed_kw, physics["ramped_kw"] = ramped_kw(physics["ramped_kw"], goal_kw, reach_kw, 1.0 / reach_kw)
    if not reason:  # what is still on its way down isn't refused
        wanted_kw = min(wanted_kw, max(-followed_kw, 0.0))

    moved = move(kind, curve, soc, followed_kw, seconds, left_s, guarded)
    guarded = moved.guarded
    wished_kw = (moved.drawn_kws - moved.given_kws) / seconds
    into_kw, out_kw = kind["battery_kw"], kind["most_out_kw"]
    limited = False
    if options["thermal"]:
        cell_c = tick.idle_c + physics["above_k"]
        if not options["mild_c"] <= cell_c <= options["warm_c"]:
            into_kw, out_kw = limits_at_cell(options, kind, cell_c)
            limited = into_kw < kind["battery_kw"] or cell_c > options["warm_c"]
    responds = options["functions"] and span.supply != ISLANDED
    q_kvars = 0.0
    power_kw = wished_kw
    answered = False
    if responds or limited:
        step_soc = kind["soc_per_kws"] * seconds
        if (
            not limited
            and soc + kind["battery_kw"] * step_soc <= kind["full_power_soc"]
            and soc - 2.0 * kind["discharge_kw"] * step_soc >= kind["soc_floor"]
        ):
            high_kw = kind["charge_kw"]
            low_kw = -kind["discharge_kw"]
        else:
            low_kw, high_kw = grid_limits_kw(kind, curve, soc, into_kw, out_kw, seconds)
        if reason or kind["discharge_kw"] == 0.0 or never:
            low_kw = min(wished_kw, 0.0)
        if not limited:  # a slow charge to the target loses longer, and draws more than a fast one
            high_kw = max(high_kw, wished_kw)
            low_kw = min(low_kw, wished_kw)
        if responds:
            memory = room.memory[0]
            _recall(physics, functions, memory)
            power_kw, q_kvar = respond(
                details.parameters[physics["parameters"]], memory, seen.voltage_pu, seen.lowest_pu,
                seen.highest_pu, seen.frequency_hz, 0.0 if span.supply == DEAD else seen.energised, wished_kw,
                low_kw, high_kw, seconds,
            )  # fmt: skip
            q_kvars = q_kvar * seconds
            _note(physics, functions, memory)
        else:
            power_kw = min(max(wished_kw, low_kw), high_kw)
        answered = abs(power_kw - wished_kw) > SAME * kind["charge_kw"]
        if answered:
            moved = move(kind, curve, soc, power_kw, seconds, inf, 0)
    standby = 0.0
    if span.supply != DEAD and (not responds or functions["mode"] != OFF):
        standby = standby_kws(options["standby_kw"], seconds, moved.flowing_s)
    drawn, given, loss = moved.drawn_kws + standby, moved.given_kws, moved.loss_kws + standby
    if options["ageing"]:
        cell_k = tick.idle_c + physics["above_k"] + 273.15
        capacity_kwh = kind["capacity_kwh"]
        if moved.square_out > 0.0:
            note_direction(
                -1, moved.square_out, physics, capacity_kwh, battery, details.laws, begin_s, soc, cell_k
            )
        if moved.square_in > 0.0:
            from_s, lowest = begin_s + moved.charging_from_s, soc - moved.taken_kws * kind["soc_per_kws"]
            note_direction(
                1, moved.square_in, physics, capacity_kwh, battery, details.laws, from_s, lowest, cell_k
            )
    if options["heating_k_per_kw"] > 0.0:
        left = exp(-options["cooling_per_s"] * seconds)
        physics["above_k"] = cell_above_k(
            physics["above_k"], loss / seconds, options["heating_k_per_kw"], left
        )
    if given > 0.0:
        physics["discharging_s"] += seconds
        physics["out_kws"] += moved.taken_kws
    missing_kw = refused_kw(wanted_kw, given / seconds)
    if missing_kw > 0.0:
        if reason == 0:
            reason = GRID
            if guarded:
                reason = DEPARTURE
            elif not answered:
                reason = whose_floor(options, kind)
        refused_kwh[reason - 1] += missing_kw * seconds / 3600.0
    row["soc"] = moved.soc
    row["guarded"] = guarded
    row["drawn_kws"] += drawn
    row["given_kws"] += given
    row["loss_kws"] += loss
    if span.supply == ISLANDED:  # nothing is bought, sold or emitted there
        row["past_cost"] -= tick.rates[0] * drawn - tick.rates[1] * given
        physics["past_kg"] -= tick.rates[2] * (drawn - given)
    elif span.free + span.forgone > 0.0:  # the site's own: it could not, or it could have been exported
        price, credit = tick.rates[0], tick.rates[1]
        row["past_cost"] -= drawn * (span.free * price + span.forgone * (price - credit))
        physics["past_kg"] -= drawn * span.free * tick.rates[2]
    return drawn - given, q_kvars


@njit
def follow(
    tick: Tick, seen: Seen, fleet: Fleet, details: Details, room: Room, refused_kwh: Floats, begin_s: float,
    end_s: float,
) -> tuple[float, float, float]:  # fmt: skip
    """:func:`window` from ``begin_s`` to ``end_s``, segment by segment where the EV has segments.

    Returns net energy drawn (kWs), reactive energy (kvars), and that of the former that was drawn in an
    island.
    """
    ev, segments = room.row[0]["ev"], tick.segments
    at, last = 0, 0
    if len(segments.first):
        at, last = segments.first[ev], segments.first[ev + 1]
    if at == last:
        asked_kw = tick.setpoint_kw[ev] if tick.managed else inf
        span = Span(begin_s, end_s - begin_s, asked_kw, SUPPLIED, 0.0, 0.0)
        net, q = window(tick, seen, fleet, details, room, refused_kwh, span)
        return net, q, 0.0
    net_kws, q_kvars, islanded_kws = 0.0, 0.0, 0.0
    while begin_s < end_s:
        while at < last - 1 and segments.until_s[at] <= begin_s:
            at += 1
        until_s = end_s if at == last - 1 else min(segments.until_s[at], end_s)
        free = segments.free[at] if len(segments.free) else 0.0
        forgone = segments.forgone[at] if len(segments.forgone) else 0.0
        span = Span(
            begin_s, until_s - begin_s, segments.setpoint_kw[at], int(segments.supply[at]), free, forgone
        )
        net, q = window(tick, seen, fleet, details, room, refused_kwh, span)
        net_kws += net
        q_kvars += q
        if span.supply == ISLANDED:
            islanded_kws += net
        begin_s = until_s
    return net_kws, q_kvars, islanded_kws


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
def note_direction(
    way: int, square_kw2s: float, physics: Row, capacity_kwh: float, battery: Row, laws: Table, time_s: float,
    soc: float, cell_k: float,
) -> None:  # fmt: skip
    """Note that an EV charges (``way`` 1) or discharges (-1) from ``time_s`` on, when its SOC is ``soc``.

    Where that is a turning point, its ageing is brought up to it first. ``square_kw2s``: the integral of
    the squared battery power on the way.
    """
    if physics["heading"] * way < 0:
        bring_up(physics, capacity_kwh, battery, laws, time_s, soc, cell_k)
    physics["heading"] = way
    physics["square_kw2s"] += square_kw2s


@njit
def bring_up(
    physics: Row, capacity_kwh: float, battery: Row, laws: Table, time_s: float, soc: float, cell_k: float
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
def start_details(
    room: Room, details: Details, sessions: SessionTable, begin_s: float, idle_c: float
) -> None:
    """What a session begins with, besides :func:`.sessions.start_session`."""
    row, physics, options, laws = room.row[0], room.own[0], details.options, details.laws
    more = sessions.details[row["session"]]
    physics["ramped_kw"] = 0.0
    physics["above_k"] = 0.0
    physics["past_kg"] = 0.0
    physics["square_kw2s"] = 0.0
    physics["heading"] = 0
    without = len(details.parameters) - 1
    physics["parameters"] = details.parameters_of[row["kind"]] if physics["capable"] else without
    for i in range(len(REASONS)):
        more[i] = 0.0
    if len(details.ageing):
        battery = details.ageing[row["ev"]]
        seconds = begin_s - battery["since_s"]
        before = row["soc"]
        if battery["points"] > 0:
            before = np.float64(battery["point"][battery["points"] - 1])
        away_ev(battery, laws, before, row["soc"], seconds, idle_c + 273.15, options["away_c_rate"])
        battery["since_s"] = begin_s
        more[len(REASONS)] = calendar_loss_ev(battery, laws)
        more[len(REASONS) + 1] = cycle_loss_ev(battery, laws)


@njit
def end_session(
    room: Room, fleet: Fleet, details: Details, sessions: SessionTable, rates: Floats, time_s: float,
    idle_c: float,
) -> None:  # fmt: skip
    """Write what a session came to: :func:`.sessions.close_session`, and its row of ``sessions.details``.

    That, (len(REASONS) + 3,): energy refused by reason (kWh), which is there already; calendar and cycle loss
    of capacity (shares), until now those at arrival; emissions (kg).
    """
    row, physics, laws = room.row[0], room.own[0], details.laws
    close_session(row, rates, sessions.outcome)
    more, reasons = sessions.details[row["session"]], len(REASONS)
    more[reasons + 2] = physics["past_kg"] + rates[2] * (row["drawn_kws"] - row["given_kws"])
    if len(details.ageing):
        battery = details.ageing[row["ev"]]
        cell_k = idle_c + physics["above_k"] + 273.15
        capacity_kwh = fleet.kinds.rows[row["kind"]]["capacity_kwh"]
        bring_up(physics, capacity_kwh, battery, laws, time_s, row["soc"], cell_k)
        more[reasons] = calendar_loss_ev(battery, laws) - more[reasons]
        more[reasons + 1] = cycle_loss_ev(battery, laws) - more[reasons + 1]
    if details.options["functions"]:
        physics["reactive_kvar"] = 0.0
        if physics["disturbed"]:
            functions = details.functions[row["ev"]]
            functions["timing"] = 0
            for i in range(TRIPS):
                functions["beyond_s"][i] = 0.0
            physics["disturbed"] = _is_disturbed(functions)


@njit
def end_sessions(
    fleet: Fleet,
    details: Details,
    sessions: SessionTable,
    rates: Floats,
    time_s: float,
    idle_c: float,
) -> None:
    """:func:`end_session` of all EVs plugged in, at the end of a run."""
    room = make_room_for_one()
    for lane in in_use(fleet.places):
        lift(fleet.state[lane // LANES], lane % LANES, room.row[0])
        lift_own(details.physics[lane // LANES], lane % LANES, room.own[0])
        end_session(room, fleet, details, sessions, rates, time_s, idle_c)


@njit
def rate_emissions(places: Places, state: Blocks, physics: Blocks, rates: Floats, to: Floats) -> None:
    """As :func:`.sessions.reprice`, of ``rates[2]``, kg per kWs of net energy, and ``past_kg``."""
    for lane in in_use(places):
        block, own, i = state[lane // LANES], physics[lane // LANES], lane % LANES
        own["past_kg"][i] += (rates[2] - to[2]) * (block["drawn_kws"][i] - block["given_kws"][i])
    rates[2] = to[2]


@njit
def age(low: int, high: int, fleet: Fleet, details: Details, time_s: float, idle_c: float) -> None:
    """Bring the ageing of those plugged in in the stretches ``low`` to ``high`` up to ``time_s``."""
    places, rows = fleet.places, fleet.kinds.rows
    for stretch in range(low, high):
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block, own, i = fleet.state[lane // LANES], details.physics[lane // LANES], lane % LANES
            capacity_kwh = rows[block["kind"][i]]["capacity_kwh"]
            c_rate = c_rate_over_soc(own["square_kw2s"][i], capacity_kwh)
            cell_k = idle_c + own["above_k"][i] + 273.15
            battery = details.ageing[block["ev"][i]]
            bring_to_ev(battery, details.laws, time_s, block["soc"][i], cell_k, c_rate)
            own["square_kw2s"][i] = 0.0
