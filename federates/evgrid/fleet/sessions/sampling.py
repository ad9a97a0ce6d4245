"""Sampled sessions: which connection points have an EV of which type, and when those are plugged in.

Sessions follow the events of the source (:mod:`evgrid.fleet.sessions.travel`: when EVs leave and come, and
how far they drive). State of charge is carried from trip to trip: an EV arrives with what it left with less
what it drove, and may or may not plug in. For that, sampling takes every session to charge as fast as it
can; so who plugs in when does not depend on a strategy. What a strategy leaves an EV with, the run carries
over by ``drive_kwh``.

Left out: charging at several places, holidays. Charge points that EVs share: see
:mod:`evgrid.fleet.sessions.charge_points`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evgrid.battery.charging import charge_as_fast_as_possible
from evgrid.battery.laws import LEAST_SOC
from evgrid.core.element_names import ElementNames
from evgrid.core.model import ALL_PHASES, UPSTREAM, Array, Connections, EVs
from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.charge_points import point_table
from evgrid.fleet.sessions.evse import charger_phases, ev_draws
from evgrid.fleet.sessions.sessions import (
    BIDIRECTIONAL,
    COLUMNS,
    ONE_TYPE,
    Sessions,
    constant_efficiency,
    within_run,
)
from evgrid.scenario import Scenario
from evgrid.scenario.fleet import ChargerKind, Vehicle
from evgrid.scenario.vehicles import VehicleType, charge_limit_kw

if TYPE_CHECKING:
    from evgrid.fleet.sessions.travel import SampledSessions

LONGEST_WAIT_DAYS = 30
"""Days after the end of the run at which an EV that still stands is taken to leave."""
_LEVEL_1_KW = 1.92
"""Most that a level-1 EVSE gives, kW: 16 A at 120 V."""


def sample_sessions(scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
    """Draw which connection points have an EV of which type, and when those are plugged in.

    Each member has its own random streams. Its places (households for sessions at home, else
    connection points) stand in a random order, of which the first ``penetration`` (or ``count``,
    from the beginning again where there are more EVs than places) get an EV, named by their rank:
    ``ev0001``. Deployments are nested: an EV has the same place, type, charger, phase and trips whether
    10 or 50 EVs are drawn. With ``areas`` those of each area come in that order, with the rank that they have
    among all. ``upstream`` more, of the next ranks, are upstream of the feeder.
    Single-phase chargers at a three-phase connection are on a random
    phase, as is a vehicle with a single-phase on-board charger at a three-phase EVSE; a balanced
    feeder knows no phases. Where charger.phases is 3, an EV at home at a connection of one phase has a
    single-phase EVSE of the same current, a third of the power; elsewhere, unless ``fleet.at`` names them,
    three-phase chargers are at three-phase connections only, and DC chargers always.

    Days are drawn from ``warm_up_days`` before the start on, so that states of charge at the start
    are those of EVs long in use. A car that is plugged in at the start has charged as fast as it
    can since it came (and its arrival is given as the start). Sessions that the end of the run
    cuts are kept, with their departure beyond the end.

    Raises
    ------
    ScenarioError
        If the feeder has no place for the EVs, or no three-phase connection where chargers need one.

    """
    fleet = scenario.fleet
    assert fleet is not None
    places = _places(scenario, connections)
    areas = _areas(scenario, connections)
    below = fleet.count if fleet.count is not None else round((fleet.penetration or 0.0) * len(places))
    if fleet.upstream and not connections.upstream:
        raise ScenarioError(
            [f"fleet.upstream = {fleet.upstream}: a load of the network is named {UPSTREAM}; rename it"]
        )
    types = _types(scenario, connections)
    member, connection, phase, name, parts = [], [], [], [], []
    for position, number in enumerate(scenario.members):
        order = stream(scenario.ensemble.seed, number, Purpose.DEPLOYMENT).permutation(places)
        ranks = np.arange(below) if areas is None else _ranks(order, areas)
        below = int(ranks.max(initial=-1)) + 1
        count, ranks = below + fleet.upstream, np.append(ranks, below + np.arange(fleet.upstream))
        at = order[np.arange(below) % max(len(places), 1)] if below else np.zeros(0, np.int64)
        at = np.append(at, np.full(fleet.upstream, connections.on_feeder))
        drawn = ev_draws(scenario, number, count)
        type_of = types.draw(scenario, number, count, at)
        limited = (types.phases[type_of] == 3) & (connections.phase[at] != ALL_PHASES)
        type_of += len(types.share_up_to) * (limited & (len(connections.phases) == 3))
        phases = charger_phases(connections, at, np.where(types.one_phase[type_of], 1, 3), drawn[:, 1])
        member.append(np.full(len(ranks), position))
        connection.append(at[ranks])
        phase.append(phases[ranks])
        name.append(np.array([f"ev{rank + 1:04d}" for rank in ranks.tolist()], np.str_))
        bidirectional = drawn[:, 0] < fleet.charger.bidirectional
        of_rank = np.full(count, -1, np.int32)
        of_rank[ranks] = position * len(ranks) + np.arange(len(ranks))
        sampled = _sampled(scenario, number, types, type_of, bidirectional)
        sampled = sampled.take(np.flatnonzero(of_rank[sampled.ev] >= 0))
        parts.append(replace(sampled, ev=of_rank[sampled.ev]))
    at_all = np.concatenate(connection)
    evs = EVs(np.concatenate(member), at_all, np.concatenate(phase), np.concatenate(name))
    columns: dict[str, Any] = {key: np.concatenate([getattr(p, key) for p in parts]) for key in COLUMNS}
    return evs, within_run(Sessions(**columns), scenario)


def _areas(scenario: Scenario, connections: Connections) -> list[tuple[NDArray[np.bool_], float]] | None:
    """Connections, (connection,), and EVs per household of each area; None without areas.

    Raises
    ------
    ScenarioError
        Naming what the feeder does not have, and connection points in two areas.

    """
    assert scenario.fleet is not None
    if scenario.fleet.areas is None:
        return None
    own = ElementNames(connections.name[: connections.on_feeder])
    found, faults, area_of = [], list[str](), dict[int, str]()
    for name, area in scenario.fleet.areas.items():
        rows, missing = own.chosen(
            area.at, f"fleet.areas.{name}.at", "the feeder has no such connection point"
        )
        faults += missing
        if rows.size and not connections.households[rows].any():
            faults.append(f"fleet.areas.{name}.at: has no households that could have an EV")
        shared = [row for row in rows.tolist() if row in area_of]
        if shared:
            more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
            faults.append(
                f"fleet.areas.{name}: connection {connections.name[shared[0]]}{more} is in "
                f"{area_of[shared[0]]} too; must be in one area"
            )
        area_of |= dict.fromkeys(rows.tolist(), name)
        found.append((np.isin(np.arange(len(connections)), rows), area.penetration))
    if faults:
        raise ScenarioError(faults)
    return found


def _ranks(order: NDArray[np.int64], areas: list[tuple[NDArray[np.bool_], float]]) -> NDArray[np.int64]:
    """Ranks of the EVs of areas, ascending; places have the order ``order``, and again after the last."""
    found = []
    for inside, penetration in areas:
        mine = np.flatnonzero(inside[order])
        again, place = np.divmod(np.arange(round(penetration * len(mine))), max(len(mine), 1))
        found.append(mine[place] + again * len(order))
    return np.sort(np.concatenate(found))


def _places(scenario: Scenario, connections: Connections) -> NDArray[np.int64]:
    """Connection of each place at which an EV may be."""
    fleet = scenario.fleet
    assert fleet is not None
    home = fleet.sessions.at_households
    allowed = np.ones(len(connections), np.bool_)
    if fleet.at is not None:
        names = [fleet.at] if isinstance(fleet.at, str) else fleet.at
        own = ElementNames(connections.name[: connections.on_feeder])
        places, missing = own.matching(names)
        found = [f"fleet.at: the feeder has no connection point {name}; {own.hint(name)}" for name in missing]
        if found or not names:
            raise ScenarioError(found or ["fleet.at is empty: name one connection point at least"])
        allowed = np.isin(np.arange(len(connections)), places)
    elif not home and not fleet.charger.on_one_phase:
        allowed = connections.phase == ALL_PHASES
    at = np.arange(len(connections))
    allowed = allowed & (at < connections.on_feeder)
    _refuse_three_phase_chargers(connections, allowed, scenario)
    places = np.repeat(at, connections.households * allowed) if home else at[allowed]
    if fleet.count and not len(places):
        if home:
            raise ScenarioError(
                [f"fleet.count = {fleet.count}: the feeder has no households that could have an EV"]
            )
        raise ScenarioError(
            [f"fleet.count = {fleet.count}: the feeder has no three-phase connection point, which chargers "
             f"with fleet.charger.phases = 3 need"]
        )  # fmt: skip
    return places.astype(np.int64)


@dataclass(frozen=True)
class _Types:
    """The vehicle types of a scenario with their limits at each rating of its chargers; (type,) each.

    Of chargers of three phases all types stand there once more, in the same order, with their limits at the
    same EVSE on one phase; ``share_up_to`` is only of the first ones.
    """

    name: NDArray[np.str_]
    share_up_to: Array
    capacity_kwh: Array
    consumption_kwh_per_mile: Array
    charge_kw: Array
    discharge_kw: Array
    one_phase: NDArray[np.bool_]
    chemistry: NDArray[np.str_]
    phases: NDArray[np.int64]
    kinds: int
    """Kinds of chargers at which each vehicle type stands, one after another."""
    own: NDArray[np.int64]
    """Kind of the chargers at each connection, (connection,); -1: as drawn."""

    def draw(self, scenario: Scenario, member: int, count: int, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Type of each EV of a member at its connection, (ev,). Row r never changes."""
        if len(self.share_up_to) == 1:
            return np.zeros(count, np.int64)
        drawn = stream(scenario.ensemble.seed, member, Purpose.VEHICLE).random(count)
        rows = np.searchsorted(self.share_up_to, drawn, side="right")
        rows = np.minimum(rows, len(self.share_up_to) - 1).astype(np.int64)
        own = self.own[at]
        return np.where(own < 0, rows, rows // self.kinds * self.kinds + own)


def _chargers(scenario: Scenario, connections: Connections) -> tuple[list[ChargerKind], NDArray[np.int64]]:
    """The kinds of chargers, those that are drawn first, and that of each connection; -1: drawn."""
    assert scenario.fleet is not None
    charger, table = scenario.fleet.charger, point_table(scenario, connections)
    kinds, own = list(charger.drawn), np.full(len(connections), -1)
    if table is None:
        return kinds, own
    for place in np.flatnonzero(~np.isnan(table.power_kw)).tolist():
        phases = int(table.phases[place]) or charger.phases
        own_kind = {"power_kw": table.power_kw[place], "phases": phases, "share": 0.0}
        kind = ChargerKind.model_validate(own_kind)
        if kind not in kinds:
            kinds.append(kind)
        own[place] = kinds.index(kind)
    return kinds, own


def _types(scenario: Scenario, connections: Connections) -> _Types:
    """Types with a share at each kind of charger; on a DC one those with a DC inlet, scaled up alike."""
    fleet = scenario.fleet
    assert fleet is not None
    charger, vehicle, mix = fleet.charger, fleet.vehicle, fleet.vehicle_mix
    direct = charger.current == "dc"
    rows = []
    kinds, own = _chargers(scenario, connections)
    falls_back = not direct and any(kind.phases == 3 for kind in kinds)
    for limited in (False, True) if falls_back else (False,):
        for name, kind in (mix.types if mix is not None else {ONE_TYPE: _only_type(vehicle)}).items():
            if kind.share == 0 or (direct and kind.dc_kw == 0):
                continue
            for evse in kinds:
                phases = 1 if limited else evse.phases
                kw = evse.power_kw * phases / evse.phases
                limit = charge_limit_kw(kind, kw, phases, direct)
                back = min(limit if mix is not None else kw, kind.discharge_kw or limit)
                one_phase = not direct and (phases == 1 or kind.ac_3p_kw == 0)
                rows.append(
                    (name, kind.share * evse.share, kind.capacity_kwh, kind.consumption_kwh_per_mile, limit,
                     back if kind.bidirectional else 0.0, one_phase, kind.chemistry or vehicle.chemistry,
                     phases)
                )  # fmt: skip
    names, shares, *limits = (np.array(column) for column in zip(*rows, strict=True))
    shares = shares[: len(rows) // 2] if falls_back else shares
    found: list[Any] = [names, np.cumsum(shares) / shares.sum(), *limits, len(kinds), own]
    return _Types(*found)


def _only_type(vehicle: Vehicle) -> VehicleType:
    """``fleet.vehicle`` as a vehicle type, which draws as much on one phase as on three."""
    return VehicleType(
        capacity_kwh=vehicle.capacity_kwh, ac_1p_kw=vehicle.charge_kw, ac_3p_kw=vehicle.charge_kw,
        dc_kw=vehicle.dc_kw, discharge_kw=vehicle.discharge_kw, bidirectional=True,
        chemistry=vehicle.chemistry, consumption_kwh_per_mile=vehicle.consumption_kwh_per_mile, share=1.0,
    )  # fmt: skip


def _refuse_three_phase_chargers(
    connections: Connections, allowed: NDArray[np.bool_], scenario: Scenario
) -> None:
    """Refuse chargers of three phases where no connection, DC where not every one has them."""
    fleet = scenario.fleet
    assert fleet is not None
    single = np.flatnonzero(allowed & (connections.phase != ALL_PHASES))
    direct = fleet.charger.current == "dc"
    if len(connections.phases) == 1 or fleet.charger.on_one_phase or not single.size:
        return
    if direct or single.size == allowed.sum():
        more = f" (and {single.size - 1} more)" if single.size > 1 else ""
        key, other = ("current = dc", "ac with one phase") if direct else ("phases = 3", "1")
        raise ScenarioError(
            [
                f"fleet.charger.{key}: connection {connections.name[single[0]]}{more} has "
                f"{connections.only(single[0])} only; must be {other} there"
            ]
        )


def _sampled(
    scenario: Scenario, member: int, types: _Types, type_of: NDArray[np.int64],
    bidirectional: NDArray[np.bool_],
) -> Sessions:  # fmt: skip
    """All sessions of one member that touch the run, with their true arrivals."""
    fleet = scenario.fleet
    assert fleet is not None
    vehicle = fleet.vehicle
    stays = _stays(scenario, member, types, type_of)
    kind, n = type_of[stays.ev], len(stays.ev)
    losses = constant_efficiency(vehicle.charge_efficiency, vehicle.discharge_efficiency, n)
    discharge_kw = np.where(bidirectional[stays.ev], types.discharge_kw[kind], 0.0)
    if vehicle.losses == "bidirectional_by_power":
        for loss in losses:
            loss[discharge_kw > 0] = BIDIRECTIONAL
    return Sessions(
        ev=stays.ev.astype(np.int32),
        arrival_s=stays.arrival_s,
        departure_s=stays.departure_s,
        soc_arrival=stays.soc,
        soc_target=np.full(n, vehicle.soc_target),
        soc_floor=np.full(n, vehicle.soc_floor),
        capacity_kwh=types.capacity_kwh[kind],
        charge_kw=types.charge_kw[kind],
        discharge_kw=discharge_kw,
        charge_loss=losses[0],
        discharge_loss=losses[1],
        taper_soc=np.full(n, vehicle.taper_soc),
        drive_kwh=stays.drive_kwh,
        vehicle=types.name[kind],
        chemistry=types.chemistry[kind],
    )


@dataclass(frozen=True, slots=True)
class _Stays:
    """Sessions while they are being drawn, (session,) each."""

    ev: NDArray[np.int64]
    arrival_s: Array
    departure_s: Array
    soc: Array
    drive_kwh: Array


def _stays(scenario: Scenario, member: int, types: _Types, type_of: NDArray[np.int64]) -> _Stays:
    """Go through the days from the warm-up on: who comes with what, plugs in, and leaves when."""
    fleet = scenario.fleet
    assert fleet is not None
    settings, vehicle = cast("SampledSessions", fleet.sessions), fleet.vehicle
    seed, count = scenario.ensemble.seed, len(type_of)
    start = pd.Timestamp(scenario.start)
    first = date(start.year, start.month, start.day).toordinal() - settings.warm_up_days
    zero_s = (start.normalize() - start).total_seconds() - DAY_S * settings.warm_up_days  # of the first day
    end_s = scenario.clock.duration_s
    kinds, kind_of = _as_sessions(types, scenario).kinds()
    own_kind = kind_of[type_of]
    capacity, kwh_per_mile = types.capacity_kwh[type_of], types.consumption_kwh_per_mile[type_of]
    least = min(LEAST_SOC, vehicle.soc_target)
    soc, drive = np.full(count, vehicle.soc_target), np.zeros(count)
    plugged = settings.starts_plugged_in(seed, member, count)
    since = np.where(plugged, zero_s, -np.inf)  # arrival of those plugged in; else the last departure
    came_with, driven = soc.copy(), drive.copy()  # when they plugged in
    found: list[tuple[NDArray[np.int64], ...] | tuple[Any, ...]] = []

    def leave(rows: NDArray[np.int64], at_s: Array) -> None:
        soc[rows] = charge_as_fast_as_possible(kinds, own_kind[rows], came_with[rows], at_s - since[rows])
        inside = (at_s > 0) & (since[rows] < end_s)
        kept = rows[inside]
        found.append((kept, since[kept], at_s[inside], came_with[kept], driven[kept]))
        plugged[rows] = False
        since[rows] = at_s

    slot_of_day, last_day = 0, -1
    for slot in settings.slots(seed, member, first, count):
        slot_of_day = slot_of_day + 1 if slot.day == last_day else 0
        last_day = slot.day
        begin_s = zero_s + DAY_S * slot.day
        if begin_s >= end_s and not np.any(plugged & (since < end_s)):
            break
        if begin_s >= end_s + DAY_S * LONGEST_WAIT_DAYS:
            rows = np.flatnonzero(plugged)
            leave(rows, np.full(len(rows), begin_s))
            break
        rows = np.flatnonzero(plugged & ~np.isnan(slot.leave_s))
        leave(rows, zero_s + slot.leave_s[rows])
        used = slot.miles * kwh_per_mile
        drive += used
        soc = np.maximum(soc - used / capacity, np.minimum(soc, least))
        comes = ~np.isnan(slot.arrive_s) & ~plugged & (zero_s + slot.arrive_s >= since)
        day = first + slot.day
        comes &= _plugs_in(scenario, member, day, slot_of_day, soc, capacity, types.charge_kw[type_of])
        rows = np.flatnonzero(comes)
        plugged[rows] = True
        since[rows] = zero_s + slot.arrive_s[rows]
        came_with[rows], driven[rows] = soc[rows], drive[rows]
        drive[rows] = 0.0
        if slot.depart_s is not None:
            leave(rows, zero_s + slot.depart_s[rows])
    return _Stays(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _as_sessions(types: _Types, scenario: Scenario) -> Sessions:
    """A session of each type, for the constants by which it charges."""
    assert scenario.fleet is not None
    vehicle, n = scenario.fleet.vehicle, len(types.name)
    number = np.zeros(n)
    losses = constant_efficiency(vehicle.charge_efficiency, vehicle.discharge_efficiency, n)
    return Sessions(
        ev=np.arange(n, dtype=np.int32), arrival_s=number, departure_s=number + 1.0, soc_arrival=number,
        soc_target=number + vehicle.soc_target, soc_floor=number + vehicle.soc_floor,
        capacity_kwh=types.capacity_kwh, charge_kw=types.charge_kw, discharge_kw=number,
        charge_loss=losses[0], discharge_loss=losses[1], taper_soc=number + vehicle.taper_soc,
        vehicle=types.name, charge_curves=scenario.fleet.charge_curves,
    )  # fmt: skip


def _plugs_in(
    scenario: Scenario, member: int, day: int, slot: int, soc: Array, capacity_kwh: Array, charge_kw: Array
) -> NDArray[np.bool_]:
    """Whether each EV would plug in if it came now, (ev,)."""
    assert scenario.fleet is not None
    settings = cast("SampledSessions", scenario.fleet.sessions)
    rule = settings.plug_in
    if rule == "always":
        return np.ones(len(soc), np.bool_)
    if rule == "evi_pro":
        level_2 = np.where(capacity_kwh >= 70, 0.2, np.where(capacity_kwh >= 35, 0.33, 0.5))
        probability = np.where(charge_kw <= _LEVEL_1_KW, 0.9, level_2)
        probability = np.where(soc < settings.plug_in_below_soc, 1.0, probability)
    else:
        probability = np.interp(soc, *np.transpose(rule))
    draw = stream(scenario.ensemble.seed, member, Purpose.PLUG_IN, day, slot).random(len(soc))
    return np.asarray(draw < probability)
