"""Power over a span of time, piecewise constant."""

from __future__ import annotations

from dataclasses import dataclass

from evgrid.core.model import SAME_S, Array


@dataclass(frozen=True, slots=True)
class Slots:
    """Profiles over a span of time.

    edges_s : (slot + 1,) s from the run's start, ascending: the span's ends, and all moments between at which
        a profile may change
    kw : (row, slot) power in each slot, kW
    """

    edges_s: Array
    kw: Array

    def at(self, time_s: float) -> Array:
        """Power of each row from a time in the span on, kW, (row,)."""
        slot = int(self.edges_s.searchsorted(time_s + SAME_S, "right")) - 1
        return self.kw[:, min(max(slot, 0), self.kw.shape[1] - 1)]
