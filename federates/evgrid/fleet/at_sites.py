"""EVs behind a site: the set-points within a tick that their site sends, and what it hears of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.fleet.kernels.lanes import STATE
from evgrid.fleet.kernels.records import Fleet, Segments, SessionTable

SEGMENTS_PORT = "sites/setpoint"
SOC_PORT = "fleet/site_soc"


class AtSites:
    """The EVs at sites: ``rows``, (n,) of the table of EVs, which has ``count``."""

    def __init__(self, rows: NDArray[np.int64], count: int) -> None:
        self._rows, self._count = rows, count

    def segments(self, sent: Array) -> Segments:
        """The segments of a tick from the rows of the port: EV, end, set-point, supply; EV -1: none.

        Those of an EV come one after the other.
        """
        ev = sent[:, 0].astype(np.int64)
        used = np.flatnonzero(ev >= 0)
        used = used[np.argsort(ev[used], kind="stable")]
        first = np.concatenate([[0], np.cumsum(np.bincount(ev[used], minlength=self._count))])
        return Segments(first, sent[used, 1], sent[used, 2], sent[used, 3].astype(np.int8))

    def energy_kwh(
        self, sessions: SessionTable, member: NDArray[np.int64], members: int
    ) -> tuple[Array, Array]:
        """Energy drawn and given in the sessions of these EVs, by member; ``member`` of each EV, (ev,)."""
        here = np.isin(sessions.ev, self._rows) & np.isfinite(sessions.outcome[:, 1])
        of_member, outcome = member[sessions.ev[here]], sessions.outcome[here]
        drawn, given = (np.bincount(of_member, outcome[:, at], members) for at in (1, 2))
        return drawn.astype(np.float64), given.astype(np.float64)

    def soc(self, fleet: Fleet) -> Array:
        """State of charge of each EV, -1 while away; (n,)."""
        state = fleet.places.by_ev(STATE, fleet.state, fleet.state)[self._rows]
        return np.where(state["session"] >= 0, state["soc"], -1.0)
