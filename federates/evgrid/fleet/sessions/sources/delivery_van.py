"""Delivery vans at their depot."""

from __future__ import annotations

from typing import ClassVar, Literal

from evgrid.fleet.sessions.travel import LogMiles, OutAndBack, TimeOfDay
from evgrid.scenario.fields import Share


class DeliveryVanSessions(OutAndBack):
    """Delivery vans at their depot, out once a working day. All assumed.

    Out at 8:00, back at 16:30, 55 miles in the median, on every weekday and every third day of the weekend.
    """

    vehicle_type: ClassVar[str | None] = "delivery_van"

    source: Literal["delivery_van"] = "delivery_van"
    """The name of this source."""
    departure_h: TimeOfDay = (8.0, 0.75)
    """Departure from the depot, h: mean and standard deviation (assumed)."""
    return_h: TimeOfDay = (16.5, 1.25)
    """Return to the depot, h: mean and standard deviation (assumed)."""
    log_miles: LogMiles = (4.0, 0.4)
    """Logarithm of the day's miles: mean and standard deviation (assumed; median 55, mean 59)."""
    driven_weekend: Share = 0.33
    """Probability of a tour on a day of the weekend (assumed)."""
