"""Charging from the surplus that each group would export."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from evgrid.aggregator.dispatch import Dispatching, WithinSettings, room
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Array

_COUNTED_ON = 0.9
"""Share of the room within a limit that is planned for later: the rest is a reserve for arrivals and for the
shortfall of sharing by laxity."""
_ROUND_TRIP = 0.75
"""Energy that is given back per energy drawn for it, at least."""
_AHEAD_S = 900.0
"""Spacing of the times at which the base load is forecast, s."""


class SelfConsumptionSettings(WithinSettings):
    """Settings of the strategy ``pv_self_consumption``."""

    discharge: bool = False
    """Whether EVs discharge to supply the group when there is no surplus."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.5
    """State of charge below which an EV is not discharged."""


class SelfConsumption(Dispatching):
    """Charge from the surplus that each group would export, least laxity first, and from the grid only as the
    departures need; discharge to the group's load, where allowed.

    Without a limit EVs wait for a surplus as long as their departures allow, so that many of them may charge
    together at last, and the peak may be higher than without control. With one they charge from the grid as
    early as the limit demands: the energy they need until their departures, less the room of the limit for it
    after this tick besides the highest base load forecast until then. They discharge only as long as the
    limit leaves room to make up for it before they depart.
    """

    Settings = SelfConsumptionSettings
    uses_feeder = True
    may_raise_peak = True

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._ahead: Array | None = None
        if settings.limited and context.base_load is not None:
            slots = int(np.ceil(context.clock.duration_s / _AHEAD_S - 1e-9))
            edges_s = _AHEAD_S * np.arange(slots + 1.0)
            self._ahead = context.base_load(edges_s[:-1], edges_s[1:])

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        settings = self.settings
        may = settings.discharge & (view.soc > settings.soc_reserve)
        given = np.where(may, view.p_min, 0.0)
        target = -view.base_load
        if settings.limited:
            low, high = room(settings, view)
            due = self._due(view, view.p_max, view.time_needed)
            if settings.discharge and np.any(target < 0.0):
                power = np.maximum(view.p_max, -given)
                later = self._due(view, power, view.time_needed + self._made_up_s(view, given, power))
                due[later <= 0.0] = -np.inf
            target = np.clip(np.maximum(target, due), np.minimum(low, high), high)
        return self.dispatch(view, target, given)

    def _made_up_s(self, view: View, given: Array, power: Array) -> Array:
        """Time at full power that each EV needs to make up for its part of what its group takes in this tick,
        (ev,) s.
        """
        group = self.context.ev_group
        most_kw = np.bincount(group, -given, len(view.base_load))
        part = np.divide(view.base_load, most_kw, out=np.zeros_like(most_kw), where=most_kw > 0.0).clip(0, 1)
        drawn_kw = -given * part[group] / _ROUND_TRIP
        seconds: Array = np.divide(drawn_kw * view.step_s, power, out=np.zeros_like(power), where=power > 0.0)
        return seconds

    def _due(self, view: View, power: Array, time_needed: Array) -> Array:
        """Least power of each group with which the limit can still be met later, (member · groups,) kW, if
        EVs need ``time_needed`` s at ``power`` kW.
        """
        due = np.zeros(len(view.base_load))
        if not np.isfinite(self.settings.most_kw):
            return due
        waiting = np.flatnonzero(view.plugged & (power > 0.0))
        group = self.context.ev_group[waiting]
        for at in np.unique(group):
            rows = waiting[group == at]
            left_s, base = view.time_left[rows], view.base_load[at]
            if self._ahead is not None:
                slots = slice(int(view.time_s / _AHEAD_S), int((view.time_s + left_s.max()) / _AHEAD_S) + 1)
                base = self._ahead[at, slots].max(initial=base)
            room_kw = _COUNTED_ON * max(self.settings.most_kw - base, 0.0)
            due[at] = least_now(power[rows], left_s, time_needed[rows], room_kw, view.step_s)
        return due


def least_now(p_max: Array, time_left: Array, time_needed: Array, room_kw: float, step_s: float) -> float:
    """Least power that EVs draw together in a tick so that afterwards ``room_kw`` suffices for all, kW.

    By a time ``s`` an EV must have drawn what full power from then to its departure leaves missing. The sum
    over the EVs may exceed the room's energy from the tick's end to ``s`` by no more than the tick's energy,
    for all ``s``; that is sufficient, as full power is each EV's only limit and all are present.

    p_max : (ev,) kW; time_left, time_needed : (ev,) s
    """
    begin_s = np.maximum(time_left - time_needed, 0.0)
    times_s = np.concatenate([[0.0], begin_s, time_left])
    order = np.argsort(times_s, kind="stable")
    times_s = times_s[order]
    slope_kw = np.cumsum(np.concatenate([[0.0], p_max, -p_max])[order])
    drawn_kws = np.concatenate([[0.0], np.cumsum(slope_kw[:-1] * np.diff(times_s))])
    at_s = np.maximum(times_s, step_s)
    beyond = np.interp(at_s, times_s, drawn_kws) - room_kw * (at_s - step_s)
    return max(float(beyond.max()), 0.0) / step_s
