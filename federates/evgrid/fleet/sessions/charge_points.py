"""Charge points that several EVs share: who plugs in when, who waits, and who leaves without charging.

In: the sessions as they would be with a charge point for each EV. Out: those that find one, from the time at
which they do, and of the others where, when and with what need they came.

First come, first served, at each connection point on its own: a car that comes takes a free charge point,
else it waits for the one that is free next, or leaves (``fleet.charge_points.waiting``). A car occupies its
charge point until it departs, charged or not. Times are those of the sessions, to any fraction of a second:
nothing depends on the tick, or on a strategy. Of cars that come at the same time, or stand there at the start
of the run, the one that is first in the table of EVs is served first.

An EV that leaves without charging comes to its next session with what it had, less both drives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import grid_energy_to_target_kwh
from evgrid.battery.laws import LEAST_SOC
from evgrid.core.element_names import ElementNames
from evgrid.core.model import ALL_PHASES, Array, Connections, EVs
from evgrid.fleet.sessions.sessions import Sessions
from evgrid.readers import Faults, read_table
from evgrid.scenario import Scenario
from evgrid.scenario.fleet import ChargePoints, Fleet


@dataclass(frozen=True, slots=True)
class Queue:
    """What came of the sessions at shared charge points.

    waited_s : (session,) time that each session has waited for its charge point, s
    shared : (session,) whether it is at a connection point with a number of charge points
    left_ev : (left,) row of the EV of each that left without charging
    left_kwh : (left,) energy at the meter that it wanted, kWh
    waiting_ev : (wait,) row of the EV of each wait, of those that left or wait at the end, too
    waiting_s : (wait, 2) when it began and ended, s; beyond the end of the run where it waits then
    """

    waited_s: Array
    shared: NDArray[np.bool_]
    left_ev: NDArray[np.int64]
    left_kwh: Array
    waiting_ev: NDArray[np.int64]
    waiting_s: Array


@dataclass(frozen=True, slots=True)
class PointTable:
    """Charge points of connections, (connection,) each.

    points : number of charge points; 0 where each EV has its own
    power_kw, phases : rated power, kW, and number of phases of the chargers there; NaN, 0: the scenario's
    """

    points: NDArray[np.int64]
    power_kw: Array
    phases: NDArray[np.int64]


def point_table(scenario: Scenario, connections: Connections) -> PointTable | None:
    """The charge points of a scenario's connections; None where each EV has its own.

    Raises ScenarioError with every fault of the table.
    """
    settings = scenario.fleet.charge_points if scenario.fleet is not None else None
    if settings is None or scenario.fleet is None:
        return None
    count, here = len(connections), connections.on_feeder
    points, power, phases = np.zeros(count, np.int64), np.full(count, np.nan), np.zeros(count, np.int64)
    points[:here] = settings.each or 0
    if settings.file is None:
        return PointTable(points, power, phases)
    table = read_table(settings.file)
    faults = Faults(table)
    faults.rows_unlike_header()
    known = ("connection", "points", "power_kw", "phases")
    if unknown := [name for name in table.names if name not in known]:
        faults.file(*(f"unknown column {name}: allowed are {', '.join(known)}" for name in unknown))
    if "connection" not in table:
        faults.file("there is no column 'connection'")
    faults.check()
    names = ElementNames(connections.name[:here])
    at = names.places(table.text("connection"))
    faults.rows(
        at < 0, lambda row: f"connection = {table.text('connection')[row]}: the feeder has none of that name"
    )
    twice = np.ones(len(at), np.bool_)
    twice[np.unique(at, return_index=True)[1]] = False
    faults.cells(twice & (at >= 0), "connection", "stands in the table before")
    rules = {
        "points": "must be a whole number of at least 1",
        "power_kw": "must be a power above 0",
        "phases": "must be 1 or 3",
    }
    for name, rule in rules.items():
        if name not in table:
            continue
        values, empty = table.numbers([name], faults, rule)[0], table.empty(name)
        wrong = {
            "points": (values < 1) | (values % 1 > 0),
            "power_kw": values <= 0,
            "phases": ~np.isin(values, (1, 3)),
        }[name]
        faults.cells(wrong & ~empty & ~np.isnan(values), name, rule)
        rows = np.flatnonzero(~empty & (at >= 0) & ~np.isnan(values))
        {"points": points, "power_kw": power, "phases": phases}[name][at[rows]] = values[rows]
    given = ~np.isnan(power[at]) if len(at) else np.zeros(0, np.bool_)
    faults.rows(
        (phases[at] > 0) & ~given & (at >= 0) if len(at) else [], "phases needs power_kw of the same row"
    )
    if scenario.fleet.charger.current == "dc" and (phases == 1).any():
        faults.file("phases = 1: charger.current = dc takes three phases")
    if not scenario.fleet.sessions.sampled and not np.isnan(power).all():
        faults.file("power_kw and phases are for sampled sessions: a session file says them for each")
    if "phases" in table and len(connections.phases) == 3:
        three = table.text("phases")
        faults.rows(
            [
                k
                for k, a in enumerate(at)
                if a >= 0 and three[k] == "3" and connections.phase[a] != ALL_PHASES
            ],
            lambda row: f"phases = 3: the connection {table.text('connection')[row]} has one phase",
        )
    faults.check()
    return PointTable(points, power, phases)


def points_on_one_phase(fleet: Fleet) -> bool:
    """Whether the table of charge points has chargers of one phase.

    Raises ScenarioError if it can't be read.
    """
    settings = fleet.charge_points
    if settings is None or settings.file is None:
        return False
    table = read_table(settings.file)
    return "phases" in table and "1" in table.text("phases")


def queued(scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions) -> Sessions:
    """The sessions that find a charge point, with ``queue`` and a note; all where each EV has its own."""
    table = point_table(scenario, connections)
    if table is None or not table.points.any() or not len(sessions):
        return sessions
    assert scenario.fleet is not None
    settings = scenario.fleet.charge_points
    assert settings is not None
    at = evs.connection[sessions.ev]
    shared = table.points[at] > 0
    begin_s, end_s, left = _served(settings, table.points[at], evs.member[sessions.ev], at, sessions)
    late = ~left & (begin_s >= scenario.clock.duration_s)  # waits beyond the end: no session of the run
    gone = left | late
    kinds, kind_of = sessions.kinds()
    wanted = grid_energy_to_target_kwh(kinds, kind_of, sessions.soc_arrival)
    kept, rows = np.flatnonzero(~gone), np.flatnonzero(left)
    waits = np.flatnonzero(begin_s > sessions.arrival_s)
    queue = Queue(
        (begin_s - sessions.arrival_s)[kept], shared[kept], sessions.ev[rows].astype(np.int64), wanted[rows],
        sessions.ev[waits].astype(np.int64), np.column_stack([sessions.arrival_s, begin_s])[waits],
    )  # fmt: skip
    moved = replace(_carried(sessions, gone), arrival_s=begin_s, departure_s=end_s)
    found = moved.take(kept)
    note = _note(queue, len(scenario.members), int(late.sum()))
    return replace(found, queue=queue, notes=(*sessions.notes, note))


def _served(
    settings: ChargePoints, points: NDArray[np.int64], member: NDArray[np.int64], at: NDArray[np.int64],
    sessions: Sessions,
) -> tuple[Array, Array, NDArray[np.bool_]]:  # fmt: skip
    """When each session gets a charge point, or gives up; when it ends; whether it gives up, (session,)."""
    arrival, departure = sessions.arrival_s, sessions.departure_s
    begin, end, left = arrival.copy(), departure.copy(), np.zeros(len(sessions), np.bool_)
    following = np.append(np.where(sessions.ev[1:] == sessions.ev[:-1], arrival[1:], np.inf), np.inf)
    as_long = settings.stay == "as_long"
    latest = following if as_long else departure
    patience = np.inf if settings.patience is None else settings.patience
    patience = 0.0 if settings.waiting == "leave" else patience
    busy: dict[tuple[int, int], list[float]] = {}
    for row in np.lexsort((sessions.ev, arrival)).tolist():
        if not points[row]:
            continue
        ends = busy.setdefault((int(member[row]), int(at[row])), [])
        full = len(ends) >= points[row]
        free = max(arrival[row], ends[0]) if full else arrival[row]
        if free >= latest[row] or free - arrival[row] > patience:
            begin[row], left[row] = min(latest[row], arrival[row] + patience), True
            continue
        if as_long:
            end[row] = min(departure[row] + free - arrival[row], following[row])
        if full:
            heappop(ends)
        heappush(ends, float(end[row]))
        begin[row] = free
    return begin, end, left


def _carried(sessions: Sessions, gone: NDArray[np.bool_]) -> Sessions:
    """The sessions, those after one that is gone with the state of charge and the drive of both."""
    soc, drive = sessions.soc_arrival.copy(), sessions.drive_kwh.copy()
    kept_before, last = False, -1
    for row in range(len(sessions)) if gone.any() else ():
        kept_before &= sessions.ev[row] == last
        last = sessions.ev[row]
        after = row + 1
        if not gone[row]:
            kept_before = True
        elif after < len(sessions) and sessions.ev[after] == last and not np.isnan(drive[after]):
            if kept_before and not np.isnan(drive[row]):
                drive[after] += drive[row]
            else:
                least = min(LEAST_SOC, float(soc[row]))
                soc[after] = max(soc[row] - drive[after] / sessions.capacity_kwh[after], least)
                drive[after] = np.nan
    return replace(sessions, soc_arrival=soc, drive_kwh=drive)


def _note(queue: Queue, members: int, late: int) -> str:
    """A sentence on what came of the sessions."""
    waited = queue.waited_s[queue.waited_s > 0]
    each = " (of all members)" if members > 1 else ""
    text = (
        f"fleet.charge_points: {int(queue.shared.sum())} sessions{each} at shared charge points; "
        f"{len(waited)} of them waited, {waited.mean() / 3600 if len(waited) else 0:.2f} h on average; "
        f"{len(queue.left_ev)} EVs left without charging, which wanted {queue.left_kwh.sum():.1f} kWh"
    )
    return text + (f"; {late} still wait at the end of the run." if late else ".")
