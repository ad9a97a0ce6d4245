"""DC fast charging."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from evgrid.fleet.sessions.travel import PlugIn, ShortVisits, TimeOfDay
from evgrid.scenario.fields import Share


class DcFastSessions(ShortVisits):
    """DC fast charging: short stops, more likely the emptier the battery. All assumed."""

    needs_dc: ClassVar[bool] = True

    source: Literal["dc_fast"] = "dc_fast"
    """The name of this source."""
    arrival_h: TimeOfDay = (14.0, 4.0)
    """Arrival, h: mean and standard deviation (assumed)."""
    log_stay_h: tuple[Annotated[float, Field(ge=-5, le=4)], Annotated[float, Field(gt=0, le=3)]] = (
        -0.69,
        0.5,
    )
    """Logarithm of the stay, h: mean and standard deviation (assumed; median 30 min)."""
    longest_stay_h: Annotated[float, Field(gt=0, le=72)] = 2.0
    """Length to which stays are cut, h (assumed)."""
    visits_weekday: Share = 1.0
    """Probability of passing the charger on a weekday (assumed)."""
    visits_weekend: Share = 1.0
    """Probability of passing the charger on a day of the weekend (assumed)."""
    plug_in: PlugIn = [(0.2, 1.0), (0.6, 0.0)]
    """Probability of plugging in by state of charge (assumed): certain below 0.2, none above 0.6."""
