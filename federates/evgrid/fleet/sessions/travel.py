"""When EVs leave, come and how far they have driven: a day's events, drawn day by day.

In: the settings of a source, seed and member. Out: :class:`Slot` after slot, in order of time, each
with at most one departure and one arrival of every EV; (ev,) arrays, times in s from a day's first
midnight. Nothing here knows of batteries: who plugs in and with what is in
:mod:`evgrid.fleet.sessions.sampling`.

Every day has streams of its own, and row r of a draw does not depend on how many rows there are:
deployments are nested, and a date's trips are the same whenever a run starts. Only rentals, whose
cars are out or not from one day to the next, depend on the first day that is drawn.

**No parameter of a source is a measurement of your drivers.** Each default says what it is: *assumed*
where nothing stands behind it but plausibility; else its source. Times of day are normal, with mean and
standard deviation in hours, given that they lie within the day and in order; distances are lognormal, with
mean and standard deviation of the logarithm of miles. A distance with (3.20, 0.88) has the median 24.5 and
the mean 36.1 miles.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from evgrid.core.model import Array, Connections, EVs
from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S
from evgrid.fleet.sessions.charge_points import points_on_one_phase
from evgrid.fleet.sessions.sessions import Sessions
from evgrid.fleet.sessions.source import Source
from evgrid.scenario import Scenario
from evgrid.scenario.fields import Share, fault
from evgrid.scenario.fleet import Fleet

TimeOfDay = tuple[Annotated[float, Field(ge=0, le=24)], Annotated[float, Field(gt=0, le=12)]]
"""Mean and standard deviation, h of the day."""
LogMiles = tuple[Annotated[float, Field(ge=-5, le=8)], Annotated[float, Field(gt=0, le=3)]]
"""Mean and standard deviation of the logarithm of the miles."""


def _ascending(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if any(after[0] <= before[0] for before, after in itertools.pairwise(points)):
        raise fault("the states of charge must ascend")
    return points


PlugIn = (
    Literal["always", "evi_pro"]
    | Annotated[list[tuple[Share, Share]], Field(min_length=1), AfterValidator(_ascending)]
)


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


def happens(
    seed: int, member: int, day: int, count: int, on_weekday: float, on_weekend: float
) -> NDArray[np.bool_]:
    """Whether what has these probabilities happens to each EV on a day, (ev,)."""
    probability = on_weekend if weekend(day) else on_weekday
    return stream(seed, member, Purpose.USE, day).random(count) < probability


def weekend(day: int) -> bool:
    """Whether a day (``datetime.date.toordinal``) is a Saturday or Sunday."""
    return date.fromordinal(day).weekday() >= 5


def log_normal_miles(
    seed: int, member: int, day: int, count: int, log_miles: tuple[float, float], trip: int = 0
) -> Array:
    """Miles of each EV on a day and trip, (ev,)."""
    return stream(seed, member, Purpose.DISTANCE, day, trip).lognormal(*log_miles, size=count)


def trip(index: int, hours: Array, driven: NDArray[np.bool_], miles: Array) -> Slot:
    """A trip of those that are driven; ``hours``: (ev, 2) of departure and return."""
    leave, back = (np.where(driven, DAY_S * index + 3600.0 * hours[:, i], np.nan) for i in (0, 1))
    return Slot(index, leave, np.where(driven, miles, 0.0), back, None)


class SampledSessions(Source):
    """A sampled source: settings that all have, and the events of a day, drawn by each in its own way."""

    sampled: ClassVar[bool] = True

    plug_in: PlugIn = "always"
    """Whether an EV that arrives plugs in: always; evi_pro: with the probability of charging on a day
    of EVI-Pro (as used by OCHRE; level 1, up to 1.92 kW: 0.9; level 2: 0.2 from 70 kWh, 0.33 from 35 kWh, 0.5
    below); or pairs [state of charge, probability], linear in between."""
    plug_in_below_soc: Share = 0.2
    """State of charge below which it always plugs in (assumed; evi_pro only)."""
    warm_up_days: Annotated[int, Field(ge=1, le=366)] = 7
    """Days sampled before the start, at whose beginning every EV is at its target."""

    @model_validator(mode="after")
    def _below_soc_of_evi_pro(self) -> Self:
        usual = type(self).model_fields["plug_in_below_soc"].default
        if self.plug_in != "evi_pro" and self.plug_in_below_soc != usual:
            raise fault(f"plug_in_below_soc = {self.plug_in_below_soc:g}: is for plug_in = evi_pro")
        return self

    def slots(self, seed: int, member: int, first: int, count: int) -> Iterator[Slot]:
        """The slots of all days from ``first`` (``datetime.date.toordinal``) on, without end."""
        day = 0
        while True:
            yield from self.slots_of(seed, member, first + day, day, count)
            day += 1

    def slots_of(self, seed: int, member: int, day: int, index: int, count: int) -> Iterator[Slot]:
        """The slots of a day (``datetime.date.toordinal``), which is number ``index`` of those drawn."""
        raise NotImplementedError

    def starts_plugged_in(self, seed: int, member: int, count: int) -> NDArray[np.bool_]:
        """Whether each EV stands at its charger at the midnight that begins the first day, (ev,)."""
        return np.ones(count, np.bool_)

    def tables(self, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
        """See :class:`evgrid.fleet.sessions.source.Source`."""
        from evgrid.fleet.sessions.sampling import sample_sessions

        return sample_sessions(scenario, connections)

    def on_one_phase(self, fleet: Fleet) -> bool:
        """Whether EVs charge on one phase, by their EVSEs or by the on-board chargers of their types."""
        mix = fleet.vehicle_mix
        by_charger = fleet.charger.on_one_phase or points_on_one_phase(fleet)
        if by_charger or mix is None or fleet.charger.current == "dc":
            return by_charger
        return any(kind.share and not kind.ac_3p_kw for kind in mix.types.values())


class OutAndBack(SampledSessions):
    """EVs that leave their charger and return to it once a day."""

    departure_h: TimeOfDay
    """Time of the departure, h of the day: mean and standard deviation."""
    return_h: TimeOfDay
    """Time of the return, h of the day: mean and standard deviation."""
    log_miles: LogMiles
    """Mean and standard deviation of the logarithm of the day's miles."""
    weekend_departure_h: TimeOfDay | None = None
    """The same on Saturday and Sunday; left out: as on weekdays."""
    weekend_return_h: TimeOfDay | None = None
    """The same on Saturday and Sunday; left out: as on weekdays."""
    weekend_log_miles: LogMiles | None = None
    """The same on Saturday and Sunday; left out: as on weekdays."""
    driven_weekday: Share = 1.0
    """Probability that the EV is driven on a weekday (assumed); else it stays where it is."""
    driven_weekend: Share = 1.0
    """Probability that the EV is driven on a day of the weekend (assumed)."""
    shortest_trip_h: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Least time between departure and return, h (assumed)."""

    @model_validator(mode="after")
    def _in_order(self) -> OutAndBack:
        for prefix in ("", "weekend_"):
            leave = getattr(self, f"{prefix}departure_h") or self.departure_h
            back = getattr(self, f"{prefix}return_h") or self.return_h
            if leave[0] + self.shortest_trip_h > back[0]:
                raise fault(f"the mean of {prefix}return_h must be {self.shortest_trip_h:g} h after that of "
                            f"{prefix}departure_h at least")  # fmt: skip
        return self

    def slots_of(self, seed: int, member: int, day: int, index: int, count: int) -> Iterator[Slot]:
        """Out and back once, for EVs that are driven on that day."""
        departure, back, miles = self.departure_h, self.return_h, self.log_miles
        if weekend(day):
            departure = self.weekend_departure_h or departure
            back = self.weekend_return_h or back
            miles = self.weekend_log_miles or miles
        hours = ordered_hours(seed, member, day, count, [departure, back], self.shortest_trip_h)
        driven = happens(seed, member, day, count, self.driven_weekday, self.driven_weekend)
        yield trip(index, hours, driven, log_normal_miles(seed, member, day, count, miles))


class Visits(SampledSessions):
    """EVs that come to a charger on some days, and charge nowhere else."""

    visits_weekday: Share
    """Probability of a visit on a weekday."""
    visits_weekend: Share
    """Probability of a visit on a day of the weekend."""
    log_miles: LogMiles = (3.20, 0.88)
    """Logarithm of the miles of every day, visit or not: mean and standard deviation (assumed)."""

    def starts_plugged_in(self, seed: int, member: int, count: int) -> NDArray[np.bool_]:
        """No EV stands at a charger at midnight, (ev,)."""
        return np.zeros(count, np.bool_)

    def stays(self, seed: int, member: int, day: int, count: int) -> tuple[Array, Array]:
        """Hours of the day at which each EV would come and leave, (ev,)."""
        raise NotImplementedError

    def slots_of(self, seed: int, member: int, day: int, index: int, count: int) -> Iterator[Slot]:
        """A stay at the charger, for EVs that come on that day; all drive the day's miles before it."""
        comes = happens(seed, member, day, count, self.visits_weekday, self.visits_weekend)
        arrive, depart = self.stays(seed, member, day, count)
        begin = np.where(comes, DAY_S * index + 3600.0 * arrive, np.nan)
        miles = log_normal_miles(seed, member, day, count, self.log_miles)
        yield Slot(index, np.full(count, np.nan), miles, begin, DAY_S * index + 3600.0 * depart)


class ShortVisits(Visits):
    """Visits with a time of arrival and a length."""

    arrival_h: TimeOfDay
    """Arrival, h: mean and standard deviation."""
    log_stay_h: tuple[Annotated[float, Field(ge=-5, le=4)], Annotated[float, Field(gt=0, le=3)]]
    """Mean and standard deviation of the logarithm of the length of the stay, h."""
    longest_stay_h: Annotated[float, Field(gt=0, le=72)] = 24.0
    """Length to which stays are cut, h (assumed)."""

    def stays(self, seed: int, member: int, day: int, count: int) -> tuple[Array, Array]:
        """Hours of the day at which each EV would come and leave, (ev,)."""
        arrive = ordered_hours(seed, member, day, count, [self.arrival_h], 0.0)[:, 0]
        stay = stream(seed, member, Purpose.STAY, day).lognormal(*self.log_stay_h, size=count)
        return arrive, arrive + np.minimum(stay, self.longest_stay_h)
