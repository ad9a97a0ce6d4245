"""Sessions at home."""

from __future__ import annotations

from typing import ClassVar, Literal

from evgrid.fleet.sessions.travel import LogMiles, OutAndBack, TimeOfDay


class HomeSessions(OutAndBack):
    """At home, from the return to the next departure.

    The defaults are assumptions of the order of US household travel; weekends are as weekdays.
    """

    at_households: ClassVar[bool] = True

    source: Literal["home"] = "home"
    """The name of this source."""
    departure_h: TimeOfDay = (8.92, 3.24)
    """Departure, h: mean and standard deviation (assumed)."""
    return_h: TimeOfDay = (17.6, 3.4)
    """Return, h: mean and standard deviation (assumed)."""
    log_miles: LogMiles = (3.20, 0.88)
    """Logarithm of the day's miles: mean and standard deviation (assumed; median 24.5, mean 36.1)."""
