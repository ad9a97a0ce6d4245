"""Rental cars at their station."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S
from evgrid.fleet.sessions.travel import (
    LogMiles,
    SampledSessions,
    Slot,
    TimeOfDay,
    log_normal_miles,
    ordered_hours,
    weekend,
)
from evgrid.scenario.fields import Share


class RentalSessions(SampledSessions):
    """Rental cars at their station: rented for whole days, plugged in while they wait. All assumed.

    Each day, a car at the station is rented with a probability; a rented one returns on each later
    day with the probability 1/mean_days, so that rentals last geometrically, ``mean_days`` in the mean.
    """

    source: Literal["rental"] = "rental"
    """The name of this source."""
    pick_up_h: TimeOfDay = (11.0, 2.5)
    """Pick-up, h: mean and standard deviation (assumed)."""
    return_h: TimeOfDay = (15.0, 3.0)
    """Return, h: mean and standard deviation (assumed)."""
    mean_days: Annotated[float, Field(ge=1, le=60)] = 3.0
    """Mean length of a rental, days (assumed)."""
    rented_weekday: Share = 0.5
    """Probability that a waiting car is rented on a weekday (assumed)."""
    rented_weekend: Share = 0.5
    """Probability that a waiting car is rented on a day of the weekend (assumed)."""
    log_miles: LogMiles = (4.0, 0.6)
    """Logarithm of the miles of a day of rental: mean and standard deviation (assumed; median 55)."""

    def starts_plugged_in(self, seed: int, member: int, count: int) -> NDArray[np.bool_]:
        """Whether each EV waits at the station at the midnight that begins the first day, (ev,)."""
        rented = (5 * self.rented_weekday + 2 * self.rented_weekend) / 7
        waiting_days = 1.0 / rented if rented else np.inf
        here = 1.0 if np.isinf(waiting_days) else waiting_days / (waiting_days + self.mean_days)
        return stream(seed, member, Purpose.USE).random(count) < here

    def slots(self, seed: int, member: int, first: int, count: int) -> Iterator[Slot]:
        """Pick-ups and returns; a car that returns is rented on the next day at the earliest."""
        here = self.starts_plugged_in(seed, member, count)
        index = 0
        while True:
            day = first + index
            chance = self.rented_weekend if weekend(day) else self.rented_weekday
            draw = stream(seed, member, Purpose.USE, day).random(count)
            picked, back = here & (draw < chance), ~here & (draw < 1.0 / self.mean_days)
            times = [self.pick_up_h, self.return_h]
            pick_up, returned = ordered_hours(seed, member, day, count, times, -np.inf).T
            miles = np.where(~here, log_normal_miles(seed, member, day, count, self.log_miles), 0.0)
            yield Slot(
                index,
                np.where(picked, DAY_S * index + 3600.0 * pick_up, np.nan),
                miles,
                np.where(back, DAY_S * index + 3600.0 * returned, np.nan),
                None,
            )
            here = (here & ~picked) | back
            index += 1
