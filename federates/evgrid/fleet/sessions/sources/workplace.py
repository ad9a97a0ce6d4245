"""Sessions at work."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from evgrid.core.model import Array
from evgrid.fleet.sessions.travel import TimeOfDay, Visits, ordered_hours
from evgrid.scenario.fields import Share, fault


class WorkplaceSessions(Visits):
    """At work. An EV charges nowhere else, so it comes with the miles of all days since its last session.

    Arrival and departure are near the one week of ACN-Data at Caltech that the validation uses (weekday
    sessions over 3 h: arrival 10.4 h, 2.5 h; departure 16.8 h, 2.6 h); visits are assumed.
    """

    source: Literal["workplace"] = "workplace"
    """The name of this source."""
    arrival_h: TimeOfDay = (10.4, 2.5)
    """Arrival, h: mean and standard deviation (ACN-Data, one week)."""
    departure_h: TimeOfDay = (16.8, 2.6)
    """Departure, h: mean and standard deviation (ACN-Data, one week)."""
    visits_weekday: Share = 0.8
    """Probability of a day at work, on a weekday (assumed)."""
    visits_weekend: Share = 0.05
    """Probability of a day at work, on a day of the weekend (assumed)."""
    shortest_stay_h: Annotated[float, Field(gt=0, le=4)] = 0.5
    """Least length of a stay, h (assumed)."""

    @model_validator(mode="after")
    def _in_order(self) -> WorkplaceSessions:
        if self.arrival_h[0] + self.shortest_stay_h > self.departure_h[0]:
            raise fault("the mean of departure_h must be shortest_stay_h after that of arrival_h at least")
        return self

    def stays(self, seed: int, member: int, day: int, count: int) -> tuple[Array, Array]:
        """Hours of the day at which each EV would come and leave, (ev,)."""
        times = [self.arrival_h, self.departure_h]
        hours = ordered_hours(seed, member, day, count, times, self.shortest_stay_h)
        return hours[:, 0], hours[:, 1]
