"""When EVs leave, come and how far they have driven: a day's events, drawn day by day.

In: the settings of a source, seed and member. Out: :class:`Slot` after slot, in order of time, each
with at most one departure and one arrival of every EV; (ev,) arrays, times in s from a day's first
midnight. Nothing here knows of batteries: who plugs in and with what is in
:mod:`evgrid.fleet.sessions`.

Every day has streams of its own, and row r of a draw does not depend on how many rows there are:
deployments are nested, and a date's trips are the same whenever a run starts. Only rentals, whose
cars are out or not from one day to the next, depend on the first day that is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.core.random_streams import Purpose, stream
from evgrid.scenario.sessions import (
    RentalSessions,
    SampledSessions,
    SchoolBusSessions,
    WorkplaceSessions,
    _OutAndBack,
    _ShortVisits,
    _Visits,
)

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One departure and one arrival, at most, of each EV; (ev,) each.

    day : number of the day, from 0 at the first day drawn
    leave_s : when it leaves the charger at which it stands (before it arrives), NaN if it doesn't
    miles : driven since the slot before
    arrive_s : when it comes to the charger, NaN if it doesn't
    depart_s : when a visit ends; None where an EV stays until a later slot's departure
    """

    day: int
    leave_s: Array
    miles: Array
    arrive_s: Array
    depart_s: Array | None


def starts_plugged_in(settings: SampledSessions, seed: int, member: int, count: int) -> NDArray[np.bool_]:
    """Whether each EV stands at its charger at the midnight that begins the first day, (ev,)."""
    if isinstance(settings, _Visits):
        return np.zeros(count, np.bool_)
    if isinstance(settings, RentalSessions):
        rented = (5 * settings.rented_weekday + 2 * settings.rented_weekend) / 7
        waiting_days = 1.0 / rented if rented else np.inf
        here = 1.0 if np.isinf(waiting_days) else waiting_days / (waiting_days + settings.mean_days)
        return stream(seed, member, Purpose.USE).random(count) < here
    return np.ones(count, np.bool_)


def slots(settings: SampledSessions, seed: int, member: int, first: int, count: int) -> Iterator[Slot]:
    """The slots of all days from ``first`` (``datetime.date.toordinal``) on, without end."""
    if isinstance(settings, RentalSessions):
        yield from _rentals(settings, seed, member, first, count)
        return
    day = 0
    while True:
        if isinstance(settings, _Visits):
            yield _visit(settings, seed, member, first + day, day, count)
        elif isinstance(settings, SchoolBusSessions):
            yield from _routes(settings, seed, member, first + day, day, count)
        else:
            assert isinstance(settings, _OutAndBack)
            yield _tour(settings, seed, member, first + day, day, count)
        day += 1


def ordered_hours(
    seed: int, member: int, day: int, count: int, times: list[tuple[float, float]], gap_h: float
) -> Array:
    """Times of day of each EV, (count, time), h: normal, given that they are in order within the day.

    ``times``: mean and standard deviation of each; a time is at least ``gap_h`` after the one
    before it (-inf: in any order). All times of an EV are drawn again until they fit, from the next stream,
    for all EVs up to the last rejected one, so that what an EV gets doesn't depend on the others.
    """
    mean, deviation = np.transpose(times)
    hours = np.zeros((count, len(times)))
    open_rows = np.arange(count)
    attempt = 0
    while open_rows.size:
        rng = stream(seed, member, Purpose.TRAVEL_TIMES, day, attempt)
        drawn = mean + deviation * rng.standard_normal((int(open_rows[-1]) + 1, len(times)))
        hours[open_rows] = drawn[open_rows]
        own = drawn[open_rows]
        fits = np.all((own >= 0) & (own < 24), axis=1) & np.all(own[:, 1:] >= own[:, :-1] + gap_h, axis=1)
        open_rows = open_rows[~fits]
        attempt += 1
    return hours


def _happens(
    seed: int, member: int, day: int, count: int, on_weekday: float, on_weekend: float
) -> NDArray[np.bool_]:
    """Whether what has these probabilities happens to each EV on a day, (ev,)."""
    probability = on_weekend if weekend(day) else on_weekday
    return stream(seed, member, Purpose.USE, day).random(count) < probability


def weekend(day: int) -> bool:
    """Whether a day (``datetime.date.toordinal``) is a Saturday or Sunday."""
    return date.fromordinal(day).weekday() >= 5


def _miles(
    seed: int, member: int, day: int, count: int, log_miles: tuple[float, float], trip: int = 0
) -> Array:
    return stream(seed, member, Purpose.DISTANCE, day, trip).lognormal(*log_miles, size=count)


def _tour(settings: _OutAndBack, seed: int, member: int, day: int, index: int, count: int) -> Slot:
    """Out and back once, for EVs that are driven on that day."""
    departure, back, miles = settings.departure_h, settings.return_h, settings.log_miles
    if weekend(day):
        departure = settings.weekend_departure_h or departure
        back = settings.weekend_return_h or back
        miles = settings.weekend_log_miles or miles
    hours = ordered_hours(seed, member, day, count, [departure, back], settings.shortest_trip_h)
    driven = _happens(seed, member, day, count, settings.driven_weekday, settings.driven_weekend)
    return _trip(index, hours, driven, _miles(seed, member, day, count, miles))


def _routes(
    settings: SchoolBusSessions, seed: int, member: int, day: int, index: int, count: int
) -> Iterator[Slot]:
    """Two routes of a school bus."""
    times = [
        settings.morning_out_h, settings.morning_back_h, settings.afternoon_out_h, settings.afternoon_back_h,
    ]  # fmt: skip
    hours = ordered_hours(seed, member, day, count, times, settings.shortest_trip_h)
    driven = _happens(seed, member, day, count, settings.driven_weekday, settings.driven_weekend)
    driven &= date.fromordinal(day).month in settings.school_months
    for route in (0, 1):
        miles = _miles(seed, member, day, count, settings.log_miles, route)
        yield _trip(index, hours[:, 2 * route : 2 * route + 2], driven, miles)


def _trip(index: int, hours: Array, driven: NDArray[np.bool_], miles: Array) -> Slot:
    leave, back = (np.where(driven, DAY_S * index + 3600.0 * hours[:, i], np.nan) for i in (0, 1))
    return Slot(index, leave, np.where(driven, miles, 0.0), back, None)


def _visit(settings: _Visits, seed: int, member: int, day: int, index: int, count: int) -> Slot:
    """A stay at the charger, for EVs that come on that day; all drive the day's miles before it."""
    comes = _happens(seed, member, day, count, settings.visits_weekday, settings.visits_weekend)
    if isinstance(settings, WorkplaceSessions):
        times = [settings.arrival_h, settings.departure_h]
        hours = ordered_hours(seed, member, day, count, times, settings.shortest_stay_h)
        arrive, depart = hours[:, 0], hours[:, 1]
    else:
        assert isinstance(settings, _ShortVisits)
        arrive = ordered_hours(seed, member, day, count, [settings.arrival_h], 0.0)[:, 0]
        stay = stream(seed, member, Purpose.STAY, day).lognormal(*settings.log_stay_h, size=count)
        depart = arrive + np.minimum(stay, settings.longest_stay_h)
    begin = np.where(comes, DAY_S * index + 3600.0 * arrive, np.nan)
    miles = _miles(seed, member, day, count, settings.log_miles)
    return Slot(index, np.full(count, np.nan), miles, begin, DAY_S * index + 3600.0 * depart)


def _rentals(settings: RentalSessions, seed: int, member: int, first: int, count: int) -> Iterator[Slot]:
    """Pick-ups and returns; a car that returns is rented on the next day at the earliest."""
    here = starts_plugged_in(settings, seed, member, count)
    index = 0
    while True:
        day = first + index
        chance = settings.rented_weekend if weekend(day) else settings.rented_weekday
        draw = stream(seed, member, Purpose.USE, day).random(count)
        picked, back = here & (draw < chance), ~here & (draw < 1.0 / settings.mean_days)
        times = [settings.pick_up_h, settings.return_h]
        pick_up, returned = ordered_hours(seed, member, day, count, times, -np.inf).T
        miles = np.where(~here, _miles(seed, member, day, count, settings.log_miles), 0.0)
        yield Slot(
            index,
            np.where(picked, DAY_S * index + 3600.0 * pick_up, np.nan),
            miles,
            np.where(back, DAY_S * index + 3600.0 * returned, np.nan),
            None,
        )
        here = (here & ~picked) | back
        index += 1
