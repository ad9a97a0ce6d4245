"""Electric school buses at their depot."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import date
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from evgrid.fleet.sessions.travel import (
    LogMiles,
    SampledSessions,
    Slot,
    TimeOfDay,
    happens,
    log_normal_miles,
    ordered_hours,
    trip,
)
from evgrid.scenario.fields import Share, fault


class SchoolBusSessions(SampledSessions):
    """Electric school buses at their depot: two routes on school days, charged at noon and at night.

    Two routes a weekday with a long stay between, and 25 miles a trip in the mean, are from
    NREL/JA-5400-91260 (270 school buses, Transportation Research Part D 144, 2025). The times of
    day and the spread of the miles are assumed. Weekend trips are left out by default.
    """

    vehicle_type: ClassVar[str | None] = "school_bus"

    source: Literal["school_bus"] = "school_bus"
    """The name of this source."""
    morning_out_h: TimeOfDay = (6.25, 0.35)
    """Departure for the morning route, h: mean and standard deviation (assumed)."""
    morning_back_h: TimeOfDay = (8.75, 0.4)
    """Return from it, h: mean and standard deviation (assumed)."""
    afternoon_out_h: TimeOfDay = (14.0, 0.4)
    """Departure for the afternoon route, h: mean and standard deviation (assumed)."""
    afternoon_back_h: TimeOfDay = (16.75, 0.5)
    """Return from it, h: mean and standard deviation (assumed)."""
    log_miles: LogMiles = (3.139, 0.4)
    """Logarithm of the miles of a route: mean and standard deviation (mean 25 miles)."""
    driven_weekday: Share = 1.0
    """Probability that a bus drives its routes on a weekday of a school month (assumed)."""
    driven_weekend: Share = 0.0
    """Probability that a bus drives two such routes on a day of the weekend (assumed)."""
    school_months: list[Annotated[int, Field(ge=1, le=12)]] = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    """Months with school (assumed: all but July); in others the buses stay plugged in."""
    shortest_trip_h: Annotated[float, Field(gt=0, le=2)] = 0.25
    """Least length of a route and of the stay between, h (assumed)."""

    @model_validator(mode="after")
    def _in_order(self) -> SchoolBusSessions:
        means = [h[0] for h in (self.morning_out_h, self.morning_back_h, self.afternoon_out_h,
                                self.afternoon_back_h)]  # fmt: skip
        if any(after < before + self.shortest_trip_h for before, after in itertools.pairwise(means)):
            raise fault("the four times of day must be in order, shortest_trip_h apart at least")
        return self

    def slots_of(self, seed: int, member: int, day: int, index: int, count: int) -> Iterator[Slot]:
        """Two routes of each bus."""
        times = [
            self.morning_out_h, self.morning_back_h, self.afternoon_out_h, self.afternoon_back_h,
        ]  # fmt: skip
        hours = ordered_hours(seed, member, day, count, times, self.shortest_trip_h)
        driven = happens(seed, member, day, count, self.driven_weekday, self.driven_weekend)
        driven &= date.fromordinal(day).month in self.school_months
        for route in (0, 1):
            miles = log_normal_miles(seed, member, day, count, self.log_miles, route)
            yield trip(index, hours[:, 2 * route : 2 * route + 2], driven, miles)
