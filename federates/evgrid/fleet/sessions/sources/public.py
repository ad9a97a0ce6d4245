"""Public AC charging."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from evgrid.fleet.sessions.travel import ShortVisits, TimeOfDay
from evgrid.scenario.fields import Share


class PublicSessions(ShortVisits):
    """Public AC charging, for drivers without a charger of their own. All assumed."""

    source: Literal["public"] = "public"
    """The name of this source."""
    arrival_h: TimeOfDay = (14.5, 4.5)
    """Arrival, h: mean and standard deviation (assumed)."""
    log_stay_h: tuple[Annotated[float, Field(ge=-5, le=4)], Annotated[float, Field(gt=0, le=3)]] = (1.1, 0.9)
    """Logarithm of the stay, h: mean and standard deviation (assumed; median 3.0 h)."""
    visits_weekday: Share = 0.5
    """Probability of parking at the charger on a weekday (assumed)."""
    visits_weekend: Share = 0.5
    """Probability of parking at the charger on a day of the weekend (assumed)."""
