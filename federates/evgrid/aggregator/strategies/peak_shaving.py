"""Limits of each group's power: postponing charging, and discharging."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from evgrid.aggregator.dispatch import Dispatching, LimitSettings, room
from evgrid.aggregator.strategy import View
from evgrid.core.model import Array


class PeakLimit(Dispatching):
    """Keep each group within a limit by postponing charging, least laxity first (V1G).

    The rest of the limit besides the group's other load is shared among its EVs by laxity, so that they draw
    what the group would otherwise feed back as long as they can charge. The limit yields where a driver would
    otherwise miss a departure that was in reach.
    """

    Settings = LimitSettings
    uses_feeder = True
    discharge = False

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        _, headroom = room(self.settings, view)
        return self.dispatch(view, headroom, None if self.discharge else np.zeros(len(view.p_min)))


class V2GPeakShaving(PeakLimit):
    """Keep each group within a limit by postponing charging and, where that does not suffice, by
    discharging the EVs that have the most time to recharge (V2G).
    """

    discharge = True


class PeakShavingSettings(LimitSettings):
    """Settings of the strategy ``peak_shaving``."""

    discharge: bool = True
    """Whether EVs may be discharged where postponing does not suffice."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.0
    """State of charge below which an EV is not discharged."""


class PeakShaving(Dispatching):
    """Keep each group within a limit by postponing charging and, where allowed, by discharging."""

    Settings = PeakShavingSettings
    uses_feeder = True

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        settings = self.settings
        may = settings.discharge & (view.soc > settings.soc_reserve)
        _, headroom = room(settings, view)
        return self.dispatch(view, headroom, np.where(may, view.p_min, 0.0))
