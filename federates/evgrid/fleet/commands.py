"""The set-points that the EVSEs follow in a tick, from those that aggregators send.

In: the set-points of each aggregator, kW, positive when charging. Out: one for each EV, after the links to
the EVSEs (:mod:`evgrid.fleet.link`): +inf for EVs that no aggregator manages, which charge as fast as they
can.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evgrid.core.model import Array, EVs, Portfolio, Values
from evgrid.errors import StrategyError
from evgrid.fleet.link import Link
from evgrid.fleet.sessions import Sessions
from evgrid.scenario import Scenario


class Commands:
    """The set-points of all EVSEs of a run.

    Parameters
    ----------
    scenario, evs, sessions
        Static facts.
    managed
        Whether any aggregator sends set-points.
    portfolios
        Each aggregator's EVs; empty if one has all.

    """

    inputs: tuple[str, ...]
    """Ports of the set-points."""

    def __init__(
        self, scenario: Scenario, evs: EVs, sessions: Sessions, managed: bool, portfolios: Sequence[Portfolio]
    ) -> None:
        count = len(evs)
        self._scenario, self._evs, self._managed = scenario, evs, managed
        self._rows = {p.port("aggregator/setpoint"): p.rows for p in portfolios}
        self.inputs = (tuple(self._rows) or ("aggregator/setpoint",)) if managed else ()
        self._setpoint = np.full(count if self._rows else 0, np.inf)
        loss = np.full(count, scenario.communication.loss)
        for p in portfolios:
            self._setpoint[p.rows], loss[p.rows] = 0.0, scenario.link_of(p.name).loss
        self._unmanaged = np.flatnonzero(self._setpoint)
        per_evse = managed and scenario.communication.per_evse
        self._link = Link(scenario, evs, rated_kw(sessions, count), loss) if per_evse else None
        self._none = np.zeros(0 if managed else count)

    def at(self, tick: int, time_s: float, inputs: Values) -> Array:
        """The set-points that the EVSEs follow, (ev,) kW; zeros, which mean nothing, without an aggregator.

        Raises StrategyError if a set-point is NaN.
        """
        if not self._managed:
            return self._none
        if not self._rows:
            setpoint = np.ascontiguousarray(inputs["aggregator/setpoint"], np.float64)
        else:
            setpoint = self._setpoint
            for port, rows in self._rows.items():
                setpoint[rows] = inputs[port]
        self._refuse_nan(time_s, setpoint)
        if self._link is None:
            return setpoint
        setpoint = self._link.commands(tick, time_s, setpoint)
        setpoint[self._unmanaged] = np.inf  # nobody sends them anything that could be lost
        return setpoint

    def _refuse_nan(self, time_s: float, setpoint: Array) -> None:
        if np.isnan(setpoint.min(initial=0.0)):
            bad = np.flatnonzero(np.isnan(setpoint))
            ev = bad[0]
            member = self._scenario.members[self._evs.member[ev]]
            raise StrategyError(
                f"aggregator/setpoint is NaN for EV {self._evs.name[ev]} of member {member} at {time_s:g} s "
                f"({bad.size} of {len(setpoint)} EVs): must be a power in kW, or +inf"
            )


def rated_kw(sessions: Sessions, count: int) -> Array:
    """The most that each EV draws in any session, kW; 0 for one without, (ev,)."""
    most_kw = np.zeros(count)
    np.maximum.at(most_kw, sessions.ev, sessions.charge_kw)
    return most_kw
