"""When EVs are plugged in, and what their drivers want: sampled, or read from a file.

Out: the table of EVs (:class:`evgrid.model.EVs`) and the table of sessions (:class:`Sessions`),
both with the EVs of all members, and neither dependent on the time step.

Home charging draws each day's departure and return and its miles from the distributions of US
home charging (Muratori 2018, 10.1038/s41560-017-0074-z, and the sources it names): return
N(17.6, 3.4) h, departure N(8.92, 3.24) h, miles lognormal(3.20, 0.88) (median 24.5, mean 36.1).

Left out, so far: days without a trip, charging elsewhere, weekends, several vehicle types.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evgrid.errors import ScenarioError
from evgrid.fleet.kernels import KIND, LEAST_SOC, charge_as_fast_as_possible, derive_kinds
from evgrid.model import ALL_PHASES, Array, Connections, EVs
from evgrid.scenario import Scenario, SessionFile
from evgrid.streams import Purpose, stream

RETURN_H = (17.6, 3.4)
"""Mean and standard deviation of the time of the daily return, h."""
DEPARTURE_H = (8.92, 3.24)
"""Mean and standard deviation of the time of the daily departure, h."""
LOG_MILES = (3.20, 0.88)
"""Mean and standard deviation of the logarithm of the daily miles."""
SHORTEST_TRIP_H = 1.0
"""Least time between departure and return, h."""


@dataclass(frozen=True)
class Sessions:
    """Charging sessions of all EVs of all members, sorted by EV, then arrival; (session,) each.

    Power and energy limits are at the grid. A session is plugged in over [arrival, departure).

    ev : int32, row of the EV table
    arrival_s, departure_s : s from the start of the run, any fraction; 0 <= arrival < departure. The
        arrival of a car that stood plugged in before the start is 0; departure may lie beyond the end.
    soc_arrival, soc_target, soc_floor : 0 to 1, in the battery at arrival, wanted at departure,
        lowest to which it may discharge
    capacity_kwh : usable, kWh
    charge_kw : the most that it draws: the lesser of EVSE and vehicle
    discharge_kw : the most that it gives, 0 if it may not
    charge_loss, discharge_loss : (session, 3), coefficients a (kW), b, c (1/kW) of the conversion
        loss a + b Pb + c Pb**2 at battery power Pb
    taper_soc : state of charge above which charging tapers
    drive_kwh : energy out of the battery since the EV's session before, kWh; an EV with an earlier
        session in the run arrives with what it left with less this. NaN (left out: all of them): the
        session begins with ``soc_arrival``
    vehicle : str, type of the vehicle; left out: ""
    left_out : sessions of a file that lie outside the run
    """

    ev: NDArray[np.int32]
    arrival_s: Array
    departure_s: Array
    soc_arrival: Array
    soc_target: Array
    soc_floor: Array
    capacity_kwh: Array
    charge_kw: Array
    discharge_kw: Array
    charge_loss: Array
    discharge_loss: Array
    taper_soc: Array
    drive_kwh: Array = field(default_factory=lambda: np.zeros(0))
    vehicle: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    left_out: int = 0

    def __post_init__(self) -> None:
        if len(self.drive_kwh) != len(self.ev):
            object.__setattr__(self, "drive_kwh", np.full(len(self.ev), np.nan))
        if len(self.vehicle) != len(self.ev):
            object.__setattr__(self, "vehicle", np.full(len(self.ev), "", np.str_))

    def __len__(self) -> int:
        return len(self.ev)

    def take(self, rows: NDArray[Any]) -> Sessions:
        """The sessions of some rows, in that order."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "left_out"}
        return replace(self, **columns)

    def kinds(self) -> tuple[NDArray[np.void], NDArray[np.int32]]:
        """The constants that sessions share: (kind,) KIND, and the kind of each session, (session,).

        Kinds are numbered in order of appearance.
        """
        columns = {
            "capacity_kwh": self.capacity_kwh,
            "soc_target": self.soc_target,
            "soc_floor": self.soc_floor,
            "taper_soc": self.taper_soc,
            "charge_kw": self.charge_kw,
            "discharge_kw": self.discharge_kw,
            **{f"charge_{name}": self.charge_loss[:, i] for i, name in enumerate("abc")},
            **{f"discharge_{name}": self.discharge_loss[:, i] for i, name in enumerate("abc")},
        }
        varying = [name for name, column in columns.items() if len(self) and np.ptp(column) > 0]
        kind_of = np.zeros(len(self), np.int64)
        if varying:
            frame = pd.DataFrame({name: columns[name] for name in varying})
            kind_of = np.asarray(frame.groupby(varying, sort=False).ngroup(), np.int64)
        _, first = np.unique(kind_of, return_index=True)
        kinds = np.zeros(len(first), KIND)
        for name, column in columns.items():
            kinds[name] = column[first]
        derive_kinds(kinds)
        return kinds, kind_of.astype(np.int32)


def fleet_tables(scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
    """The EVs and the sessions of a scenario; empty tables where it has no fleet.

    Raises
    ------
    ScenarioError
        If the fleet doesn't fit the feeder, or with every fault of the session file.

    """
    from evgrid.fleet.table import read_sessions

    if scenario.fleet is None:
        return no_fleet()
    if isinstance(scenario.fleet.sessions, SessionFile):
        return read_sessions(scenario.fleet.sessions.file, scenario, connections)
    return sample_home(scenario, connections)


def no_fleet() -> tuple[EVs, Sessions]:
    """Empty tables."""
    integer, number, losses = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3))
    evs = EVs(integer, integer, np.zeros(0, np.int8), np.zeros(0, np.str_))
    columns: dict[str, Any] = {f.name: number for f in fields(Sessions) if f.name != "left_out"}
    columns |= {"ev": np.zeros(0, np.int32), "charge_loss": losses, "discharge_loss": losses}
    columns["vehicle"] = np.zeros(0, np.str_)
    return evs, Sessions(**columns)


def constant_efficiency(charge: Any, discharge: Any, length: int) -> tuple[Array, Array]:
    """Loss coefficients, (length, 3) each, of constant efficiencies (scalars or (length,), 0 to 1)."""
    charge_loss, discharge_loss = np.zeros((length, 3)), np.zeros((length, 3))
    charge_loss[:, 1] = 1.0 / np.asarray(charge) - 1.0
    discharge_loss[:, 1] = 1.0 - np.asarray(discharge)
    return charge_loss, discharge_loss


def within_run(sessions: Sessions, duration_s: float) -> Sessions:
    """Sessions in order of EV and arrival, cut to the run.

    What lies outside it altogether is left out. A car that stands plugged in at the start has
    charged as fast as it can since its arrival; its session begins at 0 with what it has then.
    """
    outside = (sessions.departure_s <= 0) | (sessions.arrival_s >= duration_s)
    inside = sessions.take(np.flatnonzero(~outside))
    kinds, kind_of = inside.kinds()
    before = np.maximum(-inside.arrival_s, 0.0)
    soc = charge_as_fast_as_possible(kinds, kind_of, inside.soc_arrival, before)
    cut = replace(inside, soc_arrival=soc, arrival_s=np.maximum(inside.arrival_s, 0.0))
    return cut.take(np.lexsort((cut.arrival_s, cut.ev)))


def sample_home(scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
    """Draw which households have an EV, and when those are plugged in at home.

    Each member has its own random streams. Its households stand in a random order, of which the
    first ``penetration`` (or ``count``, beyond one EV a household from the beginning again) get
    an EV, named by their rank: ``ev0001``. Deployments are nested: an EV has the same household,
    charger, phase and trips whether 10 or 50 EVs are drawn. Single-phase chargers at a three-phase
    connection are on a random phase; a balanced feeder knows no phases.

    Every day, an EV leaves and returns at drawn times, given that both lie within the day and at
    least an hour apart (both are drawn again until they do: each attempt is a stream of its own).
    It is plugged in from the return to the next day's departure. It returns with the target less
    the energy for the miles of the day, but with 5 % at least; that it left with its target is
    assumed. Trips are tied to the date, not to the start of the run. The day before the start is
    drawn too: a car that is plugged in at the start has charged as fast as it can since it returned
    (and its arrival is given as the start). Sessions that the end of the run cuts are kept, with
    their departure beyond the end.

    Raises
    ------
    ScenarioError
        If the feeder has no households, or a three-phase charger meets a single-phase connection.

    """
    fleet = scenario.fleet
    assert fleet is not None
    households = np.repeat(np.arange(len(connections)), connections.households)
    count = fleet.count if fleet.count is not None else round((fleet.penetration or 0.0) * len(households))
    if count and not len(households):
        raise ScenarioError([f"fleet.count = {count}: the feeder has no households that could have an EV"])
    member, connection, phase, name, parts = [], [], [], [], []
    for position, number in enumerate(scenario.members):
        order = stream(scenario.ensemble.seed, number, Purpose.DEPLOYMENT).permutation(households)
        at = order[np.arange(count) % max(len(households), 1)] if count else np.zeros(0, np.int64)
        drawn = ev_draws(scenario, number, count)
        member.append(np.full(count, position))
        connection.append(at)
        phase.append(charger_phases(connections, at, fleet.charger.phases, drawn[:, 1]))
        name.append(np.array([f"ev{rank:04d}" for rank in range(1, count + 1)], np.str_))
        bidirectional = drawn[:, 0] < fleet.charger.bidirectional
        parts.append(_home_sessions(scenario, number, position * count, bidirectional))
    at_all = np.concatenate(connection)
    _refuse_three_phase_chargers(connections, at_all, fleet.charger.phases)
    evs = EVs(np.concatenate(member), at_all, np.concatenate(phase), np.concatenate(name))
    columns: dict[str, Any] = {f.name: np.concatenate([getattr(p, f.name) for p in parts])
               for f in fields(Sessions) if f.name != "left_out"}  # fmt: skip
    return evs, within_run(Sessions(**columns), scenario.clock.duration_s)


def ev_draws(scenario: Scenario, member: int, count: int) -> Array:
    """Uniform draws of each EV of a member, (count, 2): bidirectional, phase. Row r never changes."""
    return stream(scenario.ensemble.seed, member, Purpose.EV).random((count, 2))


def charger_phases(
    connections: Connections, at: NDArray[np.int64], phases: int, draw: Array
) -> NDArray[np.int8]:
    """Phase of the charger of each EV, (ev,): 0, 1, 2 or ALL_PHASES.

    ``at``: (ev,) connection of each; ``phases``: 1 or 3; ``draw``: (ev,) uniform, for the phase of a
    single-phase charger at a three-phase connection.
    """
    if len(connections.phases) == 1 or phases == 3:
        return np.full(len(at), ALL_PHASES, np.int8)
    own = connections.phase[at]
    return np.where(own == ALL_PHASES, (draw * 3).astype(np.int8), own).astype(np.int8)


def _refuse_three_phase_chargers(connections: Connections, at: NDArray[np.int64], phases: int) -> None:
    if len(connections.phases) == 1 or phases == 1:
        return
    single = np.unique(at[connections.phase[at] != ALL_PHASES])
    if single.size:
        more = f" (and {single.size - 1} more with an EV)" if single.size > 1 else ""
        raise ScenarioError(
            [
                f"fleet.charger.phases = 3: connection {connections.name[single[0]]}{more} has phase "
                f"{connections.phases[connections.phase[single[0]]]} only; must be 1 there"
            ]
        )


def _home_sessions(
    scenario: Scenario, member: int, first_ev: int, bidirectional: NDArray[np.bool_]
) -> Sessions:
    """All sessions of one member that may touch the run, with their true arrivals."""
    fleet = scenario.fleet
    assert fleet is not None
    vehicle, seed, count = fleet.vehicle, scenario.ensemble.seed, len(bidirectional)
    start = pd.Timestamp(scenario.start)
    midnight_s = (start.normalize() - start).total_seconds()  # of the first day, at or before 0
    first = date(start.year, start.month, start.day).toordinal()
    days = int((scenario.clock.duration_s - midnight_s) // 86400) + 1
    arrivals, departures, energy = [], [], []
    trips = [_travel_hours(seed, member, first + day, count) for day in range(-1, days + 1)]
    for day in range(-1, days):
        rng = stream(seed, member, Purpose.DISTANCE, first + day)
        miles = rng.lognormal(*LOG_MILES, size=count)
        today, tomorrow = trips[day + 1], trips[day + 2]
        arrivals.append(midnight_s + 3600.0 * (24 * day + today[:, 1]))
        departures.append(midnight_s + 3600.0 * (24 * (day + 1) + tomorrow[:, 0]))
        energy.append(miles * vehicle.consumption_kwh_per_mile)
    n = count * (days + 1)
    spent = np.concatenate(energy) / vehicle.capacity_kwh
    soc = np.maximum(vehicle.soc_target - spent, min(LEAST_SOC, vehicle.soc_target))
    power = fleet.charger.power_kw
    losses = constant_efficiency(vehicle.charge_efficiency, vehicle.discharge_efficiency, n)
    return Sessions(
        ev=np.tile(np.arange(first_ev, first_ev + count, dtype=np.int32), days + 1),
        arrival_s=np.concatenate(arrivals),
        departure_s=np.concatenate(departures),
        soc_arrival=soc,
        soc_target=np.full(n, vehicle.soc_target),
        soc_floor=np.full(n, vehicle.soc_floor),
        capacity_kwh=np.full(n, vehicle.capacity_kwh),
        charge_kw=np.full(n, min(power, vehicle.charge_kw)),
        discharge_kw=np.where(np.tile(bidirectional, days + 1), min(power, vehicle.discharge_kw), 0.0),
        charge_loss=losses[0],
        discharge_loss=losses[1],
        taper_soc=np.full(n, vehicle.taper_soc),
    )


def _travel_hours(seed: int, member: int, day: int, count: int) -> Array:
    """Departure and return of each EV on a day, (count, 2), hours of that day.

    Rejected draws are drawn again from the next stream, for all EVs up to the last rejected one, so
    that what an EV gets doesn't depend on the others.
    """
    hours = np.zeros((count, 2))
    open_rows = np.arange(count)
    attempt = 0
    while open_rows.size:
        rng = stream(seed, member, Purpose.TRAVEL_TIMES, day, attempt)
        mean, deviation = np.transpose([DEPARTURE_H, RETURN_H])
        drawn = mean + deviation * rng.standard_normal((int(open_rows[-1]) + 1, 2))
        hours[open_rows] = drawn[open_rows]
        leave, back = drawn[open_rows].T
        fits = (leave >= 0) & (back < 24) & (back >= leave + SHORTEST_TRIP_H)
        open_rows = open_rows[~fits]
        attempt += 1
    return hours
