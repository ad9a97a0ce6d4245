"""EVs whose connection point is without supply: they stand still for exactly that time, also inside a tick.

In: :class:`~evgrid.core.model.Outages` and ``outages.restoration``. Out: the segments of a tick
(:class:`~evgrid.fleet.kernels.records.Segments`) of the EVs that are in an outage or return from one.

While the connection point is dead no power flows, and the departure guard does not act. When supply returns,
EVSEs with local functions enter service by these; the others after a delay, fixed and drawn, and then with a
ramp of :data:`~evgrid.battery.laws.STAIRS` equal steps of their greatest power, in which they don't
discharge. The moments do not depend on the tick.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.laws import STAIRS, share_on_stair
from evgrid.battery.records import BEHIND_SITE, DEAD, SUPPLIED
from evgrid.core.model import SAME_S, Array, EVs, Outages
from evgrid.core.random_streams import Purpose, stream
from evgrid.fleet.kernels.records import NO_SEGMENTS, Segments
from evgrid.scenario import Scenario
from evgrid.scenario.outages import Restoration


class EvOutages:
    """When the EVs of a run stand still, or are limited on their return.

    Parameters
    ----------
    scenario, outages, evs
        Static facts.
    with_functions
        (ev,) bool, whether the EVSE has local functions, or a site, which bring it back into service.
    rated_kw
        (ev,) greatest power of each EV, kW.

    """

    def __init__(
        self,
        scenario: Scenario,
        outages: Outages,
        evs: EVs,
        with_functions: NDArray[np.bool_],
        rated_kw: Array,
    ) -> None:
        settings = scenario.outages.restoration if scenario.outages is not None else Restoration()
        points = (len(outages.first) - 1) // len(scenario.members)
        row = evs.member * points + evs.connection
        number = outages.first[row + 1] - outages.first[row]
        ev = np.repeat(np.arange(len(evs)), number)
        within = np.arange(len(ev)) - np.repeat(np.cumsum(number) - number, number)
        span = outages.first[row][ev] + within
        begin_s, back_s = outages.begin_s[span], outages.end_s[span]
        next_s = np.append(np.where(np.diff(ev) == 0, begin_s[1:], np.inf), np.inf)[: len(ev)]
        late_s = settings.delay + _random(scenario, evs) * settings.random
        on_s = back_s + np.where(with_functions, 0.0, late_s)[ev]
        ramp_s = np.where(with_functions, 0.0, settings.ramp)[ev]
        # pieces: the time without power, then the steps of the ramp
        share = np.append(0.0, [share_on_stair(stair) for stair in range(STAIRS)])
        until = np.arange(STAIRS + 1) / STAIRS
        edges_s = np.concatenate([begin_s[:, None], on_s[:, None] + ramp_s[:, None] * until], axis=1)
        edges_s = np.minimum(edges_s, next_s[:, None])
        piece_begin_s, piece_end_s = edges_s[:, :-1].reshape(-1), edges_s[:, 1:].reshape(-1)
        real = np.flatnonzero(piece_end_s > piece_begin_s)
        self._ev = np.repeat(ev, STAIRS + 1)[real]
        self._share = np.tile(share, len(ev))[real]
        self._begin_s, self._end_s = piece_begin_s[real], piece_end_s[real]
        self._count, self._rated_kw = len(evs), rated_kw
        order = np.argsort(self._begin_s)
        self._starts, self._until = self._begin_s[order], np.maximum.accumulate(self._end_s[order])

    def _within(self, begin_s: float, end_s: float) -> NDArray[np.int64]:
        """Pieces that overlap a span, by EV and begin."""
        last = int(np.searchsorted(self._starts, end_s)) - 1
        if last < 0 or self._until[last] <= begin_s:
            return np.zeros(0, np.int64)
        return np.flatnonzero((self._begin_s < end_s) & (self._end_s > begin_s))

    def segments(self, begin_s: float, step_s: float, setpoint_kw: Array | None) -> Segments:
        """The segments of a tick; ``setpoint_kw``: (ev,), None where every EV charges as fast as it can."""
        end_s = begin_s + step_s
        rows = self._within(begin_s, end_s)
        if not len(rows):
            return NO_SEGMENTS
        ev, share = self._ev[rows], self._share[rows]
        begins, ends = np.maximum(self._begin_s[rows], begin_s), np.minimum(self._end_s[rows], end_s)
        first, last = np.append(True, np.diff(ev) > 0), np.append(np.diff(ev) > 0, True)
        free_from = np.where(first, begin_s, np.append(begin_s, ends[:-1]))
        before, after = np.flatnonzero(begins > free_from), np.flatnonzero(last & (ends < end_s))
        evs = np.concatenate([ev, ev[before], ev[after]])
        starts = np.concatenate([begins, free_from[before], ends[after]])
        until = np.concatenate([ends, begins[before], np.full(len(after), end_s)])
        shares = np.concatenate([share, np.ones(len(before) + len(after))])
        order = np.lexsort((starts, evs))
        evs, shares = evs[order], shares[order]
        asked = np.full(len(evs), np.inf) if setpoint_kw is None else setpoint_kw[evs]
        limited = np.clip(asked, 0.0, shares * self._rated_kw[evs])
        return Segments(
            np.concatenate([[0], np.cumsum(np.bincount(evs, minlength=self._count))]).astype(np.int64),
            until[order],
            np.where(shares < 1.0, limited, asked),
            np.where(shares == 0.0, DEAD, np.where(shares < 1.0, BEHIND_SITE, SUPPLIED)).astype(np.int8),
        )

    def limited(self, time_s: float) -> tuple[NDArray[np.int64], Array]:
        """EVs that stand still at a time, or are on the ramp of their return, and the most power of each."""
        rows = self._within(time_s, time_s + SAME_S)
        return self._ev[rows], self._share[rows] * self._rated_kw[self._ev[rows]]

    def lost_s(self, ev: NDArray[np.int32], begin_s: Array, end_s: Array) -> Array:
        """Time of spans of EVs, (span,) each, in which there was no power for them, s; the steps of a ramp
        count by what they lack.
        """
        lost = np.zeros(len(ev))
        first = np.searchsorted(self._ev, np.arange(self._count + 1))
        concerned = np.isin(ev, self._ev)
        for at in np.unique(ev[concerned]).tolist():
            own, rows = slice(first[at], first[at + 1]), np.flatnonzero(ev == at)
            begins, ends = self._begin_s[own, np.newaxis], self._end_s[own, np.newaxis]
            overlap = np.minimum(ends, end_s[rows]) - np.maximum(begins, np.maximum(begin_s[rows], 0.0))
            lost[rows] = (1.0 - self._share[own]) @ np.maximum(overlap, 0.0)
        return lost

    def returned(self, begin_s: float, step_s: float, before_s: float) -> NDArray[np.int64]:
        """EVs whose last voltage may be that of an outage, which ends in the tick or ended less than
        ``before_s`` before it.
        """
        rows = self._within(begin_s - before_s, begin_s + step_s)
        return np.unique(self._ev[rows[self._share[rows] == 0.0]])


def _random(scenario: Scenario, evs: EVs) -> Array:
    """A number from 0 to 1 for each EV, (ev,), by its row in its member."""
    counts = np.bincount(evs.member, minlength=len(scenario.members))
    parts = [
        stream(scenario.ensemble.seed, member, Purpose.RETURN).random(n)
        for member, n in zip(scenario.members, counts.tolist(), strict=True)
    ]
    return np.concatenate([*parts, np.zeros(0)])


class DeadGridEnergy:
    """Energy that EVs draw from or give to connection points without supply: an accumulator for the audit.

    It knows the outages and the EVs' power at each connection point, not how they came to it. Where a
    connection point has supply for a part of a tick, what its EVs can't move in that part counts.

    Parameters
    ----------
    outages, evs, members
        Static facts.
    most_kw
        (ev,) greatest power of each EV either way, kW.

    """

    def __init__(self, outages: Outages, evs: EVs, members: int, most_kw: Array) -> None:
        rows = len(outages.first) - 1
        self._row, self._outages = outages.row(), outages
        self._most_kw = np.bincount(evs.member * (rows // members) + evs.connection, most_kw, rows)
        self.kwh = np.zeros(members)
        """Energy so far, (member,)."""

    def add(self, begin_s: float, step_s: float, power_kw: Array) -> None:
        """Add a tick with the EVs' mean power, (member, connection, phase)."""
        outages, end_s = self._outages, begin_s + step_s
        some = np.flatnonzero((outages.begin_s < end_s) & (outages.end_s > begin_s))
        if not len(some):
            return
        dead_s = np.minimum(outages.end_s[some], end_s) - np.maximum(outages.begin_s[some], begin_s)
        rows, at = np.unique(self._row[some], return_inverse=True)
        alive_s = step_s - np.bincount(at, dead_s)
        moved_kw = np.abs(power_kw).reshape(len(self._most_kw), -1)[rows].sum(axis=1)
        beyond_kws = moved_kw * step_s - alive_s * self._most_kw[rows] * (1.0 + 1e-9)
        points = len(self._most_kw) // len(self.kwh)
        np.add.at(self.kwh, rows // points, np.maximum(beyond_kws, 0.0) / 3600.0)
