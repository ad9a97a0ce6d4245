"""EVs behind a site: the set-points within a tick that their site sends, and what it hears of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array, EVs, Outages
from evgrid.fleet.kernels.lanes import STATE
from evgrid.fleet.kernels.records import Fleet, Segments, SessionTable

SEGMENTS_PORT = "sites/setpoint"
AVAILABLE_PORT = "sites/available"
SOC_PORT = "fleet/site_soc"


class AtSites:
    """The EVs at sites: ``rows``, (n,) of the table of EVs, which has ``count``."""

    def __init__(self, rows: NDArray[np.int64], count: int) -> None:
        self._rows, self._count = rows, count

    def with_segments(self, sent: Array, others: Segments) -> Segments:
        """The segments of a tick: the port's rows (EV, end, set-point, supply, shares of energy that are free
        and that cost what is forgone; EV -1: none), and those of other EVs. Those of an EV come one after the
        other.
        """
        used = sent[sent[:, 0] >= 0]
        ev = np.concatenate([used[:, 0].astype(np.int64), _evs_of(others)])
        order = np.argsort(ev, kind="stable")
        return Segments(
            np.concatenate([[0], np.cumsum(np.bincount(ev, minlength=self._count))]),
            np.concatenate([used[:, 1], others.until_s])[order],
            np.concatenate([used[:, 2], others.setpoint_kw])[order],
            np.concatenate([used[:, 3].astype(np.int8), others.supply])[order],
            *(np.concatenate([used[:, at], np.zeros(len(others.until_s))])[order] for at in (4, 5)),
        )

    def limited(self, available: Array, fleet: Fleet) -> tuple[NDArray[np.int64], Array]:
        """EVs that their site lets use only a share of their power, and the most power of each, kW.

        ``available``: (n,) the port's shares.
        """
        few = np.flatnonzero(available < 1.0)
        rows = self._rows[few]
        if not len(rows):
            return rows, np.zeros(0)
        kind = fleet.places.by_ev(STATE, fleet.state, fleet.state)["kind"][rows]
        return rows, available[few] * fleet.kinds.rows["charge_kw"][kind]

    def outages_elsewhere(self, outages: Outages, evs: EVs, members: int) -> Outages:
        """The outages of the connection points of other EVs: a site knows what its EVs do in one."""
        points = (len(outages.first) - 1) // members
        here = np.isin(outages.row(), evs.member[self._rows] * points + evs.connection[self._rows])
        counts = np.bincount(outages.row()[~here], minlength=len(outages.first) - 1)
        return replace(
            outages, first=np.concatenate([[0], np.cumsum(counts)]), begin_s=outages.begin_s[~here],
            end_s=outages.end_s[~here],
        )  # fmt: skip

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


def _evs_of(segments: Segments) -> NDArray[np.int64]:
    """EV of each segment."""
    counts = np.diff(segments.first)
    return np.repeat(np.arange(len(counts)), counts)
