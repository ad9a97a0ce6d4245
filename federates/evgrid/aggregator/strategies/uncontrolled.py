"""Charging at once."""

from __future__ import annotations

import numpy as np

from evgrid.aggregator.strategy import Strategy, View
from evgrid.core.model import Array


class Uncontrolled(Strategy):
    """Every EV charges as fast as it can from the moment it is plugged in."""

    ignores = ("group", "communication")
    controls = False

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        return np.full(len(view.soc), np.inf)
