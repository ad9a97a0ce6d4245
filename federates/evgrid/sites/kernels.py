"""A tick of the sites: what flows behind each meter, moment by moment.

Within a tick a site goes from event to event: a load or the PV changes, the grid is lost or returns, a wait
is over, an EV arrives or leaves, a battery is full or at its floor, the fuel is used up, or a departure asks
for all of the power left. Between events all powers but those of a charging curve are constant, so that no
result depends on the tick.

**On the grid** the control says what battery and EVs are to do. Then limits: what is drawn stays within
breaker and import limit (the battery charges less, then the EVs, those that must charge last of all, then
battery and EVs discharge), and what is given within the export limit (EVs and battery discharge less, then
PV is curtailed). A departure that asks for full power wins over every control, not over the breaker.

**Lost grid**: nothing flows until the loss is detected, the switch is open, and what forms the island has
started. A site without backup waits for the grid.

**Island**: circuits are served whole, in order, as far as PV and what forms the island can carry them; then
PV, battery, EVs, generator, in this order (or EVs before the battery). What PV has left charges battery and
EVs. Floors hold; the reserve is there to be used.

**Return**: after a healthy grid for a stated time an island resynchronises; the sources, EVSEs included,
ramp up in ``STAIRS`` equal steps. The load has the grid at once where there is no island. Circuits that were
without supply draw more for a while (cold-load pick-up, where the scenario has it).

Positive power is drawn from the grid, or charges.
"""

from __future__ import annotations

from math import inf, nan
from typing import NamedTuple

import numpy as np

from evgrid.battery.charging import (
    charge,
    charge_limit_kw,
    drawn_kws,
    moment_of_zero_laxity,
    move,
    piece_above,
    seconds_to_target,
)
from evgrid.battery.laws import (
    NO_POWER_KW,
    ROUNDING,
    STAIRS,
    battery_kw_drawn,
    battery_kw_given,
    is_willing,
    share_on_stair,
    soc_after_drive,
    standby_kws,
    time_to_rise_s,
)
from evgrid.battery.records import BEHIND_SITE, DEAD, ISLANDED, Floats, Kinds, Row
from evgrid.core.jit import njit
from evgrid.sites.records import (
    AUTO,
    BACKUP_CRITICAL,
    BACKUP_NONE,
    BY_BATTERY,
    BY_DEPARTURE,
    BY_EV,
    BY_GENERATOR,
    BY_RESERVE,
    COST,
    ISLAND,
    LOST,
    ON_GRID,
    PEAK,
    RAMPING,
    SELF_CONSUMPTION,
    STARTING,
    WAITING,
    Answer,
    EVs,
    Inputs,
    Memory,
    Sites,
)

SAME_SOC = 1e-12
"""State of charge within which a battery is at its floor or its target."""

CROSSED_SOC = 1e-9
"""State of charge below its target at which a battery that discharges has crossed it."""

RESTART_SOC = 0.05
"""Rise above its floor to which a battery that was empty in an island charges before it gives again; without
it a load that is more than the PV would be switched on and off without end."""

LAXITY_S = 1e-6
"""Time that is left within which a departure asks for full power."""

LEAST_FUEL_KWS = 1e-6
"""Fuel below which a generator has none."""

SUSTAINED_S = 300.0
"""Length from which on an interruption counts (IEEE 1366)."""

NOW = np.dtype(
    [
        ("begin_s", "f8"),
        ("slot", "i8"),  # of the inputs
        ("evs", "i8"),  # number of EVs at the site
        ("dead", "i8"),  # 1: the grid is dead
        ("share", "f8"),  # of their power that sources and EVSEs may use on the grid
        ("floor_soc", "f8"),  # reserve that is held
        ("load_kw", "f8"),
        ("served_kw", "f8"),
        ("critical_unserved_kw", "f8"),
        ("pv_kw", "f8"),  # available
        ("pv_used_kw", "f8"),  # on the grid: what may be used
        ("at_export_limit", "i8"),  # 1: PV is curtailed to it
        ("standby_kw", "f8"),  # of the battery
        ("peak_kw", "f8"),  # most drawn by the control peak
        ("generator_kw", "f8"),
        ("supply", "i8"),  # of the EVs
    ],
    align=True,
)
"""A moment of a site: what is there, and what is decided."""


class Powers(NamedTuple):
    """Powers of the EVs of a site and, last, of its battery, kW, positive charges; (EVs + 1,) each.

    power : what is decided
    low, high : least and greatest
    asked : what the EVs are asked for, within their ratings
    wish : what of that the reserve leaves
    bound : room to work in
    """

    power: Floats
    low: Floats
    high: Floats
    asked: Floats
    wish: Floats
    bound: Floats


@njit
def advance(
    low: int, high: int, begin_s: float, end_s: float, sites: Sites, evs: EVs, inputs: Inputs, memory: Memory,
    answer: Answer,
) -> None:  # fmt: skip
    """Advance the sites ``low`` up to ``high`` over a tick, or a part of it; see :mod:`.records`."""
    most = 1
    for i in range(low, high):
        most = max(most, sites.rows[i]["ev"][1] - sites.rows[i]["ev"][0] + 1)
    now = np.zeros(1, NOW)
    powers = Powers(
        np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most)
    )  # fmt: skip
    for i in range(low, high):
        _advance_site(i, begin_s, end_s, sites, evs, inputs, memory, answer, now[0], powers)


@njit
def _advance_site(
    i: int, begin_s: float, end_s: float, sites: Sites, evs: EVs, inputs: Inputs, memory: Memory,
    answer: Answer, now: Row, powers: Powers,
) -> None:  # fmt: skip
    """Advance one site from event to event."""
    site, state = sites.rows[i], memory.sites[i]
    now["evs"] = site["ev"][1] - site["ev"][0]
    now["begin_s"], now["slot"] = begin_s, 0
    while now["begin_s"] < end_s:
        while inputs.edges_s[now["slot"] + 1] <= now["begin_s"]:
            now["slot"] += 1
        _plug(site, now, evs, memory)
        _find_outage(site, state, now, sites)
        _read_inputs(i, site, now, sites, inputs)
        _change_mode(site, state, now, evs, memory)
        _find_limits(i, site, state, now, sites, evs, inputs, memory, powers)
        if state["mode"] == ISLAND:
            _decide_in_island(site, state, now, sites, inputs, memory, powers)
        elif state["mode"] in (LOST, STARTING):
            _decide_without_supply(now, sites, site, inputs, memory, powers)
        else:
            if sites.cold_factor != 1.0:
                _pick_up(site, now, sites, inputs, memory)
            _decide_on_grid(i, site, state, now, evs, inputs, memory, powers)
        until_s = min(_next_change(site, state, now, sites, evs, inputs, memory), end_s)
        until_s = _first_limit(site, state, now, sites, evs, memory, powers, until_s)
        _carry_out(i, until_s, site, state, now, sites, evs, memory, powers, answer)
        now["begin_s"] = until_s


# ---- what happens at a moment ---------------------------------------------------------------------


@njit
def _plug(site: Row, now: Row, evs: EVs, memory: Memory) -> None:
    """Plug in and out the EVs whose time has come."""
    time_s = now["begin_s"]
    for k in range(site["ev"][0], site["ev"][1]):
        ev = memory.evs[k]
        while True:
            session = ev["session"]
            if ev["plugged"]:
                if evs.departure_s[session] > time_s:
                    break
                ev["plugged"], ev["must"], ev["rests"] = 0, 0, 0
                ev["session"] += 1
            else:
                if session >= evs.last[k] or evs.arrival_s[session] > time_s:
                    break
                drive_kwh = evs.drive_kwh[session]
                if session > evs.first[k] and drive_kwh == drive_kwh:
                    capacity_kwh = evs.kinds.rows[evs.kind[session]]["capacity_kwh"]
                    ev["soc"] = soc_after_drive(ev["soc"], drive_kwh, capacity_kwh)
                else:
                    ev["soc"] = evs.soc_arrival[session]
                ev["plugged"] = 1


@njit
def _find_outage(site: Row, state: Row, now: Row, sites: Sites) -> None:
    """Whether the grid is dead."""
    while state["outage"] < site["outage"][1] and sites.outage_end_s[state["outage"]] <= now["begin_s"]:
        state["outage"] += 1
    here = state["outage"] < site["outage"][1]
    now["dead"] = 1 if here and sites.outage_begin_s[state["outage"]] <= now["begin_s"] else 0


@njit
def _read_inputs(i: int, site: Row, now: Row, sites: Sites, inputs: Inputs) -> None:
    """Load and PV of the moment."""
    slot = now["slot"]
    load_kw = 0.0
    for circuit in range(site["circuit"][0], site["circuit"][1]):
        load_kw += inputs.circuit_kw[circuit, slot]
    now["load_kw"], now["pv_kw"] = load_kw, inputs.pv_kw[i, slot]
    now["floor_soc"], now["peak_kw"] = inputs.reserve_soc[i, slot], inputs.peak_kw[i, slot]


@njit
def _generator_runs(site: Row, state: Row, now: Row) -> bool:
    """Whether the generator has started and has fuel."""
    started = now["begin_s"] >= state["since_s"] + site["generator_start_s"]
    return bool(site["generator_kw"] > 0.0 and state["fuel_kws"] >= LEAST_FUEL_KWS and started)


@njit
def _can_form(site: Row, state: Row, now: Row, evs: EVs, memory: Memory) -> bool:
    """Whether there is something that forms an island: energy to give, or PV to take."""
    sun = now["pv_kw"] > 0.0
    former = site["former"]
    if site["battery"] >= 0 and former in (AUTO, BY_BATTERY) and (
        sun or state["soc"] > site["soc_min"] + SAME_SOC
    ):  # fmt: skip
        return True
    if former in (AUTO, BY_GENERATOR) and _generator_runs(site, state, now):
        return True
    if former in (AUTO, BY_EV):
        for k in range(site["ev"][0], site["ev"][1]):
            ev = memory.evs[k]
            if ev["plugged"]:
                kind = evs.kinds.rows[evs.kind[ev["session"]]]
                if kind["discharge_kw"] > 0.0 and (sun or ev["soc"] > kind["soc_floor"] + SAME_SOC):
                    return True
    return False


@njit
def _change_mode(site: Row, state: Row, now: Row, evs: EVs, memory: Memory) -> None:
    """Change the site's mode where its time has come, or the grid is lost or there again."""
    time_s, dead = now["begin_s"], now["dead"] == 1
    for _ in range(8):
        before = state["mode"]
        due = state["until_s"] <= time_s
        if before in (LOST, STARTING):
            if not dead:
                state["mode"], state["until_s"] = WAITING, time_s + site["return_wait_s"]
            elif site["backup"] != BACKUP_NONE:
                forms = _can_form(site, state, now, evs, memory)
                if before == LOST and due and forms:
                    state["mode"], state["until_s"] = STARTING, time_s + site["black_start_s"]
                elif before == STARTING and not forms:
                    state["mode"], state["until_s"] = LOST, time_s
                elif before == STARTING and due:
                    state["mode"], state["until_s"] = ISLAND, inf
        elif before == ISLAND:
            if not _can_form(site, state, now, evs, memory):
                state["mode"], state["until_s"] = LOST, time_s
            elif dead:
                state["until_s"] = inf
            elif state["until_s"] == inf:
                state["until_s"] = time_s + site["return_wait_s"]
            if state["mode"] == ISLAND and state["until_s"] <= time_s:
                _enter_service(site, state, time_s)
        elif dead:
            state["mode"], state["since_s"], state["until_s"] = LOST, time_s, time_s + site["detect_s"]
        elif before == WAITING and due:
            _enter_service(site, state, time_s)
        elif before == RAMPING and due:
            state["stair"] += 1
            state["until_s"] = state["since_s"] + (state["stair"] + 1) * site["ramp_s"] / STAIRS
            if state["stair"] == STAIRS:
                state["mode"], state["until_s"] = ON_GRID, inf
        if state["mode"] == before:
            break


@njit
def _enter_service(site: Row, state: Row, time_s: float) -> None:
    """Begin the ramp of the sources on the grid."""
    state["mode"], state["since_s"], state["stair"] = RAMPING, time_s, 0
    state["until_s"] = time_s + site["ramp_s"] / STAIRS
    if site["ramp_s"] == 0.0:
        state["mode"], state["until_s"] = ON_GRID, inf


# ---- what is decided ------------------------------------------------------------------------------


@njit
def _find_limits(
    i: int, site: Row, state: Row, now: Row, sites: Sites, evs: EVs, inputs: Inputs, memory: Memory,
    powers: Powers,
) -> None:  # fmt: skip
    """Limits of EVs and battery now, and what the EVs are asked for; whether they must charge."""
    mode = state["mode"]
    on_grid = mode in (ON_GRID, WAITING, RAMPING)
    now["share"] = 1.0
    if mode == WAITING:
        now["share"] = 0.0
    elif mode == RAMPING:
        now["share"] = share_on_stair(state["stair"])
    floor_soc = now["floor_soc"] if on_grid else 0.0
    gives = 1.0 if not on_grid or site["parallel"] else 0.0
    for j in range(now["evs"]):
        ev = memory.evs[site["ev"][0] + j]
        powers.low[j], powers.high[j], powers.asked[j], powers.power[j] = 0.0, 0.0, 0.0, 0.0
        if not ev["plugged"]:
            continue
        kind = evs.kinds.rows[evs.kind[ev["session"]]]
        curve = evs.kinds.curves[kind["curve"]]
        least_kw = most_kw = 0.0
        if ev["soc"] > kind["soc_floor"] + SAME_SOC and _permits(site["ev"][0] + j, on_grid, now, evs, ev):
            least_kw = -kind["discharge_kw"]
        if ev["soc"] < kind["soc_target"] - SAME_SOC:
            most_kw = kind["charge_kw"]
            left_s = evs.departure_s[ev["session"]] - now["begin_s"]
            late = left_s - seconds_to_target(kind, curve, ev["soc"]) <= LAXITY_S
            if on_grid and late:
                ev["must"] = BY_DEPARTURE
        if ev["must"] != BY_DEPARTURE:
            below = on_grid and most_kw > 0.0 and ev["soc"] < floor_soc - SAME_SOC
            ev["must"] = BY_RESERVE if below else 0
        if site["control"] not in (SELF_CONSUMPTION, COST):  # those ask for nothing but what they decide
            powers.asked[j] = min(max(inputs.request_kw[site["ev"][0] + j], least_kw), most_kw)
        ev["rests"] = _rests(mode, ev["rests"], ev["soc"], kind)
        may_give = ev["soc"] > floor_soc + SAME_SOC and not ev["rests"]
        powers.low[j] = least_kw * now["share"] * gives if may_give else 0.0
        powers.high[j] = most_kw * now["share"]
    n = now["evs"]
    powers.low[n], powers.high[n], powers.asked[n], powers.power[n] = 0.0, 0.0, 0.0, 0.0
    if site["battery"] >= 0:
        kind = sites.batteries.rows[site["battery"]]
        state["rests"] = _rests(mode, state["rests"], state["soc"], kind)
        if state["soc"] > max(kind["soc_floor"], floor_soc) + SAME_SOC and not state["rests"]:
            powers.low[n] = -kind["discharge_kw"] * now["share"] * gives
        if state["soc"] < kind["soc_target"] - SAME_SOC:
            powers.high[n] = kind["charge_kw"] * now["share"]


@njit
def _rests(mode: int, rests: int, soc: float, kind: Row) -> int:
    """Whether a battery that was empty in an island has not enough yet to give again."""
    if mode != ISLAND or soc >= _soc_to_give(kind) - SAME_SOC:
        return 0
    return 1 if rests or soc <= kind["soc_floor"] + SAME_SOC else 0


@njit
def _soc_to_give(kind: Row) -> float:
    """State of charge from which on a battery gives again that was empty in an island."""
    return float(min(kind["soc_floor"] + RESTART_SOC, kind["soc_target"]))


@njit
def _is_willing(time_s: float, evs: EVs) -> bool:
    """Whether drivers let discharge at a time."""
    hour = (evs.start_h + time_s / 3600.0 + 1e-9) % 24.0
    return bool(is_willing(hour, evs.willing_from_h, evs.willing_until_h))


@njit
def _permits(k: int, on_grid: bool, now: Row, evs: EVs, ev: Row) -> bool:
    """Whether vehicle, interconnection, warranty and driver let an EV discharge now."""
    refused = evs.refused[k] if on_grid else evs.refused_in_island[k]
    spent = ev["out_kws"] >= evs.throughput_kws * (1.0 - ROUNDING) or ev["discharging_s"] >= evs.discharging_s
    return not refused and not spent and _is_willing(now["begin_s"], evs)


@njit
def _shift(powers: Powers, n: int, ev_first: int, amount_kw: float) -> float:
    """Move powers to their bounds, one after the other, by ``amount_kw`` in all; what is left of it."""
    for step in range(n + 1):
        j = step
        if not ev_first:
            j = n if step == 0 else step - 1
        way_kw = powers.bound[j] - powers.power[j]
        if abs(way_kw) <= amount_kw:
            powers.power[j] = powers.bound[j]
            amount_kw -= abs(way_kw)
        elif way_kw != 0.0:
            powers.power[j] += amount_kw if way_kw > 0.0 else -amount_kw
            return 0.0
    return amount_kw


@njit
def _total(powers: Powers, n: int) -> float:
    """Power of EVs and battery, kW."""
    total_kw = 0.0
    for j in range(n + 1):
        total_kw += powers.power[j]
    return total_kw


@njit
def _decide_on_grid(
    i: int, site: Row, state: Row, now: Row, evs: EVs, inputs: Inputs, memory: Memory, powers: Powers
) -> None:
    """What EVs and battery do on the grid: the control, then the limits."""
    n, slot, control = now["evs"], now["slot"], site["control"]
    power, low, high, bound = powers.power, powers.low, powers.high, powers.bound
    now["supply"], now["served_kw"], now["critical_unserved_kw"] = BEHIND_SITE, now["load_kw"], 0.0
    now["generator_kw"] = 0.0
    now["pv_used_kw"] = now["pv_kw"] * now["share"] if site["parallel"] else 0.0
    if control == COST:
        now["pv_used_kw"] = min(now["pv_used_kw"], inputs.plan_pv_kw[i, slot])
    standby_kw = 0.0
    for j in range(n):
        k = site["ev"][0] + j
        ev = memory.evs[k]
        if not ev["plugged"]:
            continue
        standby_kw += evs.standby_kw
        if ev["must"]:
            power[j] = high[j]
        elif control == COST:
            power[j] = min(max(inputs.plan_ev_kw[k, slot], low[j]), high[j])
        elif control != SELF_CONSUMPTION:
            power[j] = min(max(powers.asked[j], low[j]), high[j])
    now["standby_kw"] = site["standby_kw"]
    rest_kw = now["load_kw"] + now["standby_kw"] - now["pv_used_kw"]
    if state["soc"] < now["floor_soc"] - SAME_SOC:
        power[n] = high[n]
    elif control == COST:
        power[n] = min(max(inputs.plan_battery_kw[i, slot], low[n]), high[n])
    elif control == PEAK:
        power[n] = min(max(now["peak_kw"] - rest_kw - standby_kw - _total(powers, n), 0.0), high[n])
    if control == SELF_CONSUMPTION:
        need_kw = rest_kw + _total(powers, n)
        for j in range(n + 1):
            fixed = power[j] != 0.0 or (j < n and memory.evs[site["ev"][0] + j]["must"])
            bound[j] = power[j] if fixed else (low[j] if need_kw > 0.0 else high[j])
        _shift(powers, n, site["ev_first"] if need_kw > 0.0 else 0, abs(need_kw))
    for j in range(n):
        powers.wish[j] = power[j]
        if memory.evs[site["ev"][0] + j]["must"] or control in (SELF_CONSUMPTION, COST):
            powers.asked[j] = power[j]
    rest_kw += standby_kw
    _hold_export(site, now, evs, memory, powers)
    _hold_import(min(site["import_kw"], now["peak_kw"]), rest_kw, site, now, evs, memory, powers, False)
    for _ in range(n + 2):  # less charging leaves less for others to give to
        _hold_import(site["import_kw"], rest_kw, site, now, evs, memory, powers, True)
        if _given_beyond_kw(site, now, evs, memory, powers) <= NO_POWER_KW:
            break
        _hold_export(site, now, evs, memory, powers)
    _round(powers, n)
    drawn_kw = _drawn_kw(0.0, site, now, evs, memory, powers)
    now["at_export_limit"] = 1 if drawn_kw <= NO_POWER_KW - site["export_kw"] else 0


@njit
def _drawn_kw(after_s: float, site: Row, now: Row, evs: EVs, memory: Memory, powers: Powers) -> float:
    """Power at the meter on the grid, some time from now, with all of the PV; a charging curve counts."""
    drawn_kw = now["load_kw"] + now["standby_kw"] + powers.power[now["evs"]] - now["pv_used_kw"]
    for j in range(now["evs"]):
        ev = memory.evs[site["ev"][0] + j]
        if not ev["plugged"]:
            continue
        power_kw = powers.power[j]
        if power_kw > 0.0:
            kind = evs.kinds.rows[evs.kind[ev["session"]]]
            curve = evs.kinds.curves[kind["curve"]]
            inner_kw = _battery_kw(kind, power_kw)
            soc = charge(kind, curve, ev["soc"], inner_kw, after_s)[0] if after_s > 0.0 else ev["soc"]
            inner_kw = min(inner_kw, charge_limit_kw(kind, curve, soc))
            drawn_kw += drawn_kws(kind, 1.0, inner_kw, inner_kw * inner_kw)[0]
        else:
            drawn_kw += power_kw if power_kw < 0.0 else evs.standby_kw
    return float(drawn_kw)


@njit
def _span_to_level(
    level_kw: float, span_s: float, site: Row, now: Row, evs: EVs, memory: Memory, powers: Powers
) -> float:
    """Time until the power at the meter crosses a level as charging curves change it, at most ``span_s``."""
    above = _drawn_kw(0.0, site, now, evs, memory, powers) > level_kw
    low_s, high_s = 0.0, span_s
    for _ in range(60):
        middle_s = 0.5 * (low_s + high_s)
        if (_drawn_kw(middle_s, site, now, evs, memory, powers) > level_kw) == above:
            low_s = middle_s
        else:
            high_s = middle_s
    return high_s


@njit
def _span_of_one_sign(span_s: float, site: Row, now: Row, evs: EVs, memory: Memory, powers: Powers) -> float:
    """Time for which the power at the meter has one sign, and stays on one side of the export limit."""
    charging = False
    for j in range(now["evs"]):
        charging |= powers.power[j] > 0.0
    if not charging:
        return span_s
    first_kw = _drawn_kw(0.0, site, now, evs, memory, powers)
    for level_kw in (-site["export_kw"], 0.0):
        last_kw = _drawn_kw(span_s, site, now, evs, memory, powers)
        near = abs(first_kw - level_kw) <= NO_POWER_KW or abs(last_kw - level_kw) <= NO_POWER_KW
        if not near and (first_kw > level_kw) != (last_kw > level_kw):
            span_s = _span_to_level(level_kw, span_s, site, now, evs, memory, powers)
    return span_s


@njit
def _piece(kind: Row, curve: Row, soc: float, power_kw: float) -> tuple[float, float]:
    """Power at the grid that a battery that charges surely draws on this piece of its charging curve, kW, 0
    where the curve changes it; and the time to the piece's end, s.
    """
    soc += SAME_SOC
    end, here_kw, slope = piece_above(kind, curve, soc, _battery_kw(kind, power_kw))
    if here_kw <= 0.0:
        return 0.0, inf
    left_s = (
        time_to_rise_s(end - soc, here_kw, slope, kind["soc_per_kws"]) if end < kind["soc_target"] else inf
    )
    return drawn_kws(kind, 1.0, here_kw, here_kw * here_kw)[0] if slope == 0.0 else 0.0, left_s


@njit
def _given_beyond_kw(site: Row, now: Row, evs: EVs, memory: Memory, powers: Powers) -> float:
    """By how much EVs and battery give more than site and export limit surely take, kW; below 0: room.

    An EV on the slope of its charging curve counts as 0: what it takes falls meanwhile.
    """
    taken_kw = now["load_kw"] + now["standby_kw"] - now["pv_used_kw"] + site["export_kw"]
    given_kw = 0.0
    for j in range(now["evs"] + 1):
        power_kw = powers.power[j]
        if power_kw <= 0.0:
            given_kw -= power_kw
        elif j == now["evs"]:
            taken_kw += power_kw
        else:
            ev = memory.evs[site["ev"][0] + j]
            kind = evs.kinds.rows[evs.kind[ev["session"]]]
            curve = evs.kinds.curves[kind["curve"]]
            taken_kw += _piece(kind, curve, ev["soc"], power_kw)[0]
    return float(given_kw - taken_kw)


@njit
def _hold_export(site: Row, now: Row, evs: EVs, memory: Memory, powers: Powers) -> None:
    """Keep what EVs and battery give within what the site and its export limit surely take."""
    beyond_kw = _given_beyond_kw(site, now, evs, memory, powers)
    if beyond_kw > 0.0:
        for j in range(now["evs"] + 1):
            powers.bound[j] = max(powers.power[j], 0.0)
        _shift(powers, now["evs"], site["ev_first"], beyond_kw)


@njit
def _hold_import(
    limit_kw: float, rest_kw: float, site: Row, now: Row, evs: EVs, memory: Memory, powers: Powers,
    at_any_cost: bool,
) -> None:  # fmt: skip
    """Keep the power drawn within a limit: less charging, then discharging; those that must charge only at
    any cost.
    """
    n = now["evs"]
    for floor in range(2):
        excess_kw = rest_kw + _total(powers, n) - limit_kw
        if floor == 1:
            excess_kw = min(excess_kw, -_given_beyond_kw(site, now, evs, memory, powers))
        if excess_kw <= 0.0:
            return
        for j in range(n + 1):
            must = j < n and memory.evs[site["ev"][0] + j]["must"]
            least_kw = 0.0 if floor == 0 or must else powers.low[j]
            powers.bound[j] = powers.power[j] if must and not at_any_cost else min(powers.power[j], least_kw)
        _shift(powers, n, site["ev_first"], excess_kw)


@njit
def _round(powers: Powers, n: int) -> None:
    """Powers that rounding left beside 0 are 0."""
    for j in range(n + 1):
        if abs(powers.power[j]) <= NO_POWER_KW:
            powers.power[j] = 0.0


@njit
def _pick_up(site: Row, now: Row, sites: Sites, inputs: Inputs, memory: Memory) -> None:
    """Load of the moment on the grid, with the cold-load pick-up of circuits that were without supply: for as
    long as they were, at most ``cold_s``. One that an island serves at the end has none.
    """
    time_s = now["begin_s"]
    for circuit in range(site["circuit"][0], site["circuit"][1]):
        own = memory.circuits[circuit]
        if own["dark_s"] > 0.0:
            own["cold_until_s"] = time_s + min(own["dark_s"], sites.cold_s)
        own["dark"], own["dark_s"] = 0, 0.0
        if own["cold_until_s"] > time_s:
            now["load_kw"] += (sites.cold_factor - 1.0) * inputs.circuit_kw[circuit, now["slot"]]


@njit
def _decide_without_supply(
    now: Row, sites: Sites, site: Row, inputs: Inputs, memory: Memory, powers: Powers
) -> None:
    """Nothing flows."""
    now["supply"], now["served_kw"], now["pv_used_kw"], now["generator_kw"] = DEAD, 0.0, 0.0, 0.0
    now["critical_unserved_kw"], now["standby_kw"] = 0.0, 0.0
    for circuit in range(site["circuit"][0], site["circuit"][1]):
        memory.circuits[circuit]["dark"] = 1
        if sites.critical[circuit]:
            now["critical_unserved_kw"] += inputs.circuit_kw[circuit, now["slot"]]
    for j in range(now["evs"] + 1):
        powers.power[j] = 0.0


@njit
def _decide_in_island(
    site: Row, state: Row, now: Row, sites: Sites, inputs: Inputs, memory: Memory, powers: Powers
) -> None:
    """Which circuits are served, and by what."""
    n, slot = now["evs"], now["slot"]
    now["supply"] = ISLANDED
    generator_kw = site["generator_kw"] if _generator_runs(site, state, now) else 0.0
    stores_kw = 0.0
    for j in range(n + 1):
        stores_kw -= powers.low[j]
    from_former_kw = min(stores_kw + generator_kw, site["former_kw"])
    now["standby_kw"] = min(site["standby_kw"], now["pv_kw"] + from_former_kw)
    served_kw = missed_kw = 0.0
    for circuit in range(site["circuit"][0], site["circuit"][1]):
        circuit_kw = inputs.circuit_kw[circuit, slot]
        critical = sites.critical[circuit]
        fits = now["standby_kw"] + served_kw + circuit_kw <= now["pv_kw"] + from_former_kw + NO_POWER_KW
        if fits and circuit_kw <= site["load_step_kw"] and (critical or site["backup"] != BACKUP_CRITICAL):
            served_kw += circuit_kw
            memory.circuits[circuit]["dark"], memory.circuits[circuit]["dark_s"] = 0, 0.0
        else:
            memory.circuits[circuit]["dark"] = 1
            missed_kw += circuit_kw if critical else 0.0
    now["served_kw"], now["critical_unserved_kw"] = served_kw, missed_kw
    need_kw = served_kw + now["standby_kw"] - now["pv_kw"]
    for j in range(n + 1):
        powers.bound[j] = powers.low[j] if need_kw > 0.0 else powers.high[j]
    left_kw = _shift(powers, n, site["ev_first"] if need_kw > 0.0 else 0, abs(need_kw))
    now["generator_kw"] = min(left_kw, generator_kw) if need_kw > 0.0 else 0.0
    now["pv_used_kw"] = now["pv_kw"] if need_kw > 0.0 else now["pv_kw"] - left_kw
    _round(powers, n)


# ---- how long it lasts ----------------------------------------------------------------------------


@njit
def _next_change(
    site: Row, state: Row, now: Row, sites: Sites, evs: EVs, inputs: Inputs, memory: Memory
) -> float:
    """The next moment that is known beforehand."""
    time_s = now["begin_s"]
    until_s = inputs.edges_s[now["slot"] + 1]
    if state["until_s"] > time_s:
        until_s = min(until_s, state["until_s"])
    at = state["outage"]
    if at < site["outage"][1]:
        until_s = min(until_s, sites.outage_end_s[at] if now["dead"] else sites.outage_begin_s[at])
    if sites.cold_factor != 1.0 and now["supply"] == BEHIND_SITE:
        for circuit in range(site["circuit"][0], site["circuit"][1]):
            cold_until_s = memory.circuits[circuit]["cold_until_s"]
            if cold_until_s > time_s:
                until_s = min(until_s, cold_until_s)
    ready_s = state["since_s"] + site["generator_start_s"]
    if site["generator_kw"] > 0.0 and now["dead"] and ready_s > time_s:
        until_s = min(until_s, ready_s)
    for k in range(site["ev"][0], site["ev"][1]):
        ev = memory.evs[k]
        if ev["plugged"]:
            until_s = min(until_s, evs.departure_s[ev["session"]])
        elif ev["session"] < evs.last[k]:
            until_s = min(until_s, evs.arrival_s[ev["session"]])
    if evs.willing_until_h - evs.willing_from_h != 24.0:
        for hour in (evs.willing_from_h, evs.willing_until_h):
            ahead_h = (hour - evs.start_h - time_s / 3600.0) % 24.0
            if ahead_h > 1e-9:
                until_s = min(until_s, time_s + 3600.0 * ahead_h)
    return float(until_s)


@njit
def _battery_kw(kind: Row, power_kw: float) -> float:
    """Power at the battery, positive charges, of a power at its AC side within its limits."""
    if power_kw >= kind["charge_kw"]:
        return float(kind["battery_kw"])
    if power_kw > 0.0:
        return battery_kw_drawn(power_kw, kind["charge_a"], kind["charge_b"], kind["charge_c"])
    if power_kw == 0.0:
        return 0.0
    given_kw = min(-power_kw, kind["discharge_kw"])
    return -battery_kw_given(given_kw, kind["discharge_a"], kind["discharge_b"], kind["discharge_c"])


@njit
def _span_to_limit(
    kinds: Kinds, row: int, soc: float, power_kw: float, span_s: float, floor_soc: float, left_s: float
) -> float:
    """How long a battery can hold a power: to its floor or target, or until a departure asks for full power.

    ``left_s``: time until departure; inf where none is guarded.
    """
    kind = kinds.rows[row]
    curve = kinds.curves[kind["curve"]]
    inner_kw = _battery_kw(kind, power_kw)
    then = soc
    if inner_kw > 0.0:
        then, on_s, _, _ = charge(kind, curve, soc, inner_kw, span_s)
        span_s = min(span_s, _piece(kind, curve, soc, power_kw)[1])
        if on_s < span_s:
            return on_s
        then = charge(kind, curve, soc, inner_kw, span_s)[0]
    elif inner_kw < 0.0:
        stop_soc = max(kind["soc_floor"], floor_soc)
        crossed_soc = kind["soc_target"] - CROSSED_SOC  # from there on there is something to charge again
        if soc > kind["soc_target"] + SAME_SOC:
            stop_soc = max(stop_soc, kind["soc_target"])
        elif soc > crossed_soc:
            stop_soc = max(stop_soc, crossed_soc)
        floor_s = (soc - stop_soc) / (-inner_kw * kind["soc_per_kws"])
        if floor_s < span_s:
            span_s = floor_s
        then = soc + inner_kw * kind["soc_per_kws"] * span_s
    target = kind["soc_target"]
    if then < target - SAME_SOC and left_s - span_s < seconds_to_target(kind, curve, then):
        return moment_of_zero_laxity(kind, curve, soc, inner_kw, span_s, left_s)
    return span_s


@njit
def _span_to_reserve(kinds: Kinds, row: int, soc: float, power_kw: float, floor_soc: float) -> float:
    """How long a battery that charges takes to the reserve, or to its target below that."""
    kind = kinds.rows[row]
    reserve, inner_kw = min(floor_soc, kind["soc_target"]), _battery_kw(kind, power_kw)
    if inner_kw <= 0.0:
        return inf
    seconds = 0.0
    while soc < reserve:
        end, here_kw, slope = piece_above(kind, kinds.curves[kind["curve"]], soc, inner_kw)
        end = min(end, reserve)
        seconds += time_to_rise_s(end - soc, here_kw, slope, kind["soc_per_kws"])
        soc = end
    return seconds


@njit
def _first_limit(
    site: Row, state: Row, now: Row, sites: Sites, evs: EVs, memory: Memory, powers: Powers, until_s: float
) -> float:
    """The first moment at which a power can't be held any more, at most ``until_s``."""
    time_s, n = now["begin_s"], now["evs"]
    span_s = until_s - time_s
    on_grid = now["supply"] == BEHIND_SITE
    floor_soc = now["floor_soc"] if on_grid else 0.0
    for j in range(n):
        ev = memory.evs[site["ev"][0] + j]
        if not ev["plugged"]:
            continue
        guards = on_grid and now["share"] == 1.0 and ev["must"] != BY_DEPARTURE
        left_s = evs.departure_s[ev["session"]] - time_s if guards else inf
        row, power_kw = evs.kind[ev["session"]], powers.power[j]
        span_s = _span_to_limit(evs.kinds, row, ev["soc"], power_kw, span_s, floor_soc, left_s)
        floor = evs.kinds.rows[row]["soc_floor"]
        if power_kw > 0.0 and ev["soc"] <= floor + SAME_SOC:  # from there on it can be asked to give
            span_s = min(
                span_s, _span_to_reserve(evs.kinds, row, ev["soc"], power_kw, floor + 2.0 * SAME_SOC)
            )
        if ev["rests"] and power_kw > 0.0:
            to_soc = _soc_to_give(evs.kinds.rows[row])
            span_s = min(span_s, _span_to_reserve(evs.kinds, row, ev["soc"], power_kw, to_soc))
        if ev["must"] == BY_RESERVE and power_kw > 0.0:
            span_s = min(span_s, _span_to_reserve(evs.kinds, row, ev["soc"], power_kw, floor_soc))
        if power_kw < 0.0:  # the warranty's caps
            inner_kw = _battery_kw(evs.kinds.rows[row], power_kw)
            span_s = min(span_s, (evs.throughput_kws - ev["out_kws"]) / -inner_kw)
            span_s = min(span_s, evs.discharging_s - ev["discharging_s"])
    if site["battery"] >= 0:
        power_kw = powers.power[n]
        span_s = _span_to_limit(
            sites.batteries, site["battery"], state["soc"], power_kw, span_s, floor_soc, inf
        )
        row = site["battery"]
        if state["rests"] and power_kw > 0.0:
            to_soc = _soc_to_give(sites.batteries.rows[row])
            span_s = min(span_s, _span_to_reserve(sites.batteries, row, state["soc"], power_kw, to_soc))
        if power_kw > 0.0 and state["soc"] < floor_soc - SAME_SOC:
            span_s = min(span_s, _span_to_reserve(sites.batteries, row, state["soc"], power_kw, floor_soc))
    if now["generator_kw"] > 0.0:
        span_s = min(span_s, state["fuel_kws"] / max(now["generator_kw"], site["generator_least_kw"]))
    if on_grid:
        span_s = _span_of_one_sign(span_s, site, now, evs, memory, powers)
    then_s = time_s + span_s
    return float(then_s if time_s < then_s < until_s else until_s)


# ---- what flows -----------------------------------------------------------------------------------


@njit
def _carry_out(
    i: int, until_s: float, site: Row, state: Row, now: Row, sites: Sites, evs: EVs, memory: Memory,
    powers: Powers, answer: Answer,
) -> None:  # fmt: skip
    """Let the powers flow until a moment, and book what flows."""
    flow, n, supply = answer.flows[i], now["evs"], now["supply"]
    span_s = until_s - now["begin_s"]
    ev_in = ev_out = 0.0
    for j in range(n):
        k = site["ev"][0] + j
        ev = memory.evs[k]
        if not ev["plugged"]:
            continue
        power_kw = powers.power[j]
        of_ev = supply
        if supply == ISLANDED and power_kw == 0.0:
            of_ev = DEAD  # an EVSE that does nothing is off in an island
        kind = evs.kinds.rows[evs.kind[ev["session"]]]
        moved = move(kind, evs.kinds.curves[kind["curve"]], ev["soc"], power_kw, span_s, inf, 0)
        ev["soc"] = moved.soc
        if moved.given_kws > 0.0:
            ev["out_kws"] += moved.taken_kws
            ev["discharging_s"] += span_s
        ev_out += moved.given_kws
        drawn = moved.drawn_kws
        if of_ev != DEAD:
            drawn += standby_kws(evs.standby_kw, span_s, moved.flowing_s)
        ev_in += drawn
        powers.bound[j] = drawn
        _write_segment(k, until_s, power_kw, of_ev, answer)
        in_service = supply == BEHIND_SITE and now["share"] == 1.0
        _book_cut(flow, powers.asked[j], powers.wish[j], power_kw, span_s, in_service)
    battery_in = battery_out = 0.0
    if site["battery"] >= 0:
        kind = sites.batteries.rows[site["battery"]]
        curve = sites.batteries.curves[kind["curve"]]
        moved = move(kind, curve, state["soc"], powers.power[n], span_s, inf, 0)
        state["soc"] = moved.soc
        standby = now["standby_kw"] * span_s
        battery_in, battery_out = moved.drawn_kws + standby, moved.given_kws
        flow["battery_loss"] += moved.loss_kws + standby
    generated = now["generator_kw"] * span_s
    if generated > 0.0:
        state["fuel_kws"] -= max(generated, site["generator_least_kw"] * span_s)
        if state["fuel_kws"] < LEAST_FUEL_KWS:
            state["fuel_kws"] = 0.0
    served, pv = now["served_kw"] * span_s, now["pv_used_kw"] * span_s
    net = served + ev_in + battery_in - ev_out - battery_out - generated
    if supply == BEHIND_SITE:
        if now["at_export_limit"]:
            pv = min(max(net + site["export_kw"] * span_s, 0.0), pv)
        grid = net - pv
        flow["imported"] += max(grid, 0.0)
        flow["exported"] += max(-grid, 0.0)
        answer.ev_on_grid[i] += ev_in - ev_out
        if ev_in > 0.0:  # load and battery come first
            own_share = 1.0 - min(max(grid, 0.0) / ev_in, 1.0)
            for j in range(n):
                k = site["ev"][0] + j
                last = answer.segments[k] - 1
                if memory.evs[k]["plugged"] and 0 <= last < answer.own.shape[1]:
                    answer.drawn[k, last] += powers.bound[j]
                    answer.own[k, last] += own_share * powers.bound[j]
    elif supply == ISLANDED:
        pv = min(max(net, 0.0), now["pv_kw"] * span_s)  # also where a charging curve takes less
        flow["dead"] += abs(net - pv)
        answer.island[i] += span_s
    flow["served"] += served
    flow["unserved"] += now["load_kw"] * span_s - served
    flow["critical_unserved"] += now["critical_unserved_kw"] * span_s
    flow["pv"] += pv
    flow["pv_curtailed"] += now["pv_kw"] * span_s - pv
    flow["battery_in"] += battery_in
    flow["battery_out"] += battery_out
    flow["generated"] += generated
    flow["ev_in"] += ev_in
    flow["ev_out"] += ev_out
    _book_interruption(flow, state, now, until_s)
    if sites.cold_factor != 1.0 and supply != BEHIND_SITE:
        for circuit in range(site["circuit"][0], site["circuit"][1]):
            own = memory.circuits[circuit]
            own["cold_until_s"] = 0.0
            own["dark_s"] += span_s * own["dark"]


@njit
def _write_segment(k: int, until_s: float, power_kw: float, supply: int, answer: Answer) -> None:
    """Append to an EV's segments, or lengthen the last where it goes on."""
    count = answer.segments[k]
    if count > answer.until_s.shape[1]:
        return
    last = count - 1
    if count and answer.setpoint_kw[k, last] == power_kw and answer.supply[k, last] == supply:
        answer.until_s[k, last] = until_s
        return
    if count < answer.until_s.shape[1]:
        answer.until_s[k, count], answer.setpoint_kw[k, count] = until_s, power_kw
        answer.supply[k, count] = supply
    answer.segments[k] = count + 1


@njit
def _book_cut(
    flow: Row, asked_kw: float, wish_kw: float, power_kw: float, span_s: float, in_service: bool
) -> None:
    """Book what an EV was asked for and does not do, by what cut it."""
    if not in_service:
        flow["cut_by_outage"] += abs(asked_kw - power_kw) * span_s
        return
    flow["cut_by_reserve"] += abs(asked_kw - wish_kw) * span_s
    flow["cut_by_import"] += max(wish_kw - power_kw, 0.0) * span_s
    flow["cut_by_export"] += max(power_kw - wish_kw, 0.0) * span_s


@njit
def _book_interruption(flow: Row, state: Row, now: Row, until_s: float) -> None:
    """Book the time in which critical load is not met; an interruption counts once it is sustained."""
    if now["critical_unserved_kw"] <= 0.0:
        state["unmet_from_s"] = nan
        return
    if state["unmet_from_s"] != state["unmet_from_s"]:
        state["unmet_from_s"] = now["begin_s"]
    from_s = state["unmet_from_s"]
    flow["unmet_s"] += until_s - now["begin_s"]
    if now["begin_s"] - from_s <= SUSTAINED_S < until_s - from_s:
        flow["interruptions"] += 1.0
