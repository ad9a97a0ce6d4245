"""Strategies that follow a series over time: emissions, events.

The data of the bulk system (emission rates, events) are in the scenario's section
``system``; prices are those of the tariff, or else of ``system``. Signals from outside may change them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from zlib import crc32

import numpy as np
from pydantic import Field

from evgrid.aggregator.dispatch import Dispatching, DispatchSettings
from evgrid.aggregator.strategies.time_of_use import CheapestFirst
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Array
from evgrid.core.random_streams import Purpose, stream
from evgrid.scenario.fields import Duration, Share

QUARTER_S = 900.0
_SIGNALLED = 2**20
"""Number from which the streams of events of signals are counted."""


class Emissions(CheapestFirst):
    """Charge in the quarter hours of the lowest emission rate that still meet the departure.

    As ``tou``, on ``system.emissions``; beyond its end its last day is repeated.
    """

    ignores = ("group",)
    needs_of_system = ("emissions",)
    slot_s = QUARTER_S

    def costs(self, edges_s: Array) -> Array:
        """See :meth:`CheapestFirst.costs`: kg CO2 per MWh."""
        rates = self.context.emissions
        if rates is None:  # no signal gives any yet
            return np.zeros(len(edges_s) - 1)
        return rates.until(float(edges_s[-1])).means(np.maximum(edges_s, 0.0))


class DemandResponseSettings(DispatchSettings):
    """Settings of the strategy ``demand_response``."""

    notice: Annotated[Duration, Field(ge=0)] = 14400.0
    """Time before its start at which an event is known; charging is moved before it, or after."""
    target_kw: float = 0.0
    """Power that each group's participating EVs may draw together during an event, kW; negative: they are to
    discharge."""
    opt_out: Share = 0.0
    """Share of the EVs that opt out of an event, drawn for each event."""
    least_level: Annotated[int, Field(ge=1, le=3)] = 1
    """Least level of the events that are followed."""


class DemandResponse(CheapestFirst, Dispatching):
    """Avoid charging in the events of ``system.events``; at other times charge by the prices, or without any
    at once.

    An event counts from ``notice`` before it begins: its quarter hours then cost more than any other.
    While it lasts, participating EVs share ``target_kw`` by laxity. EVs that opted out ignore it.
    """

    Settings = DemandResponseSettings
    needs_of_system = ("events",)
    slot_s = QUARTER_S

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._set_events()

    def _set_events(self) -> None:
        """Set the events that are followed: their begins, their ends, and the EVs that opt out."""
        context = self.context
        assert context.system is not None
        start = context.clock.start.astype("datetime64[us]")
        self._events: list[tuple[float, float, Array]] = []
        self._shares_out: dict[str, float] = {}
        for number, event in enumerate(context.events):
            begin_s = float((np.datetime64(event.start, "us") - start) / np.timedelta64(1, "s"))
            if event.level >= self.settings.least_level:
                signalled = number >= len(context.system.events)
                # the same EVs opt out of an event whatever else is known when
                out = self._out(_SIGNALLED + crc32(event.name.encode()) if signalled else number)
                self._events.append((begin_s, begin_s + event.duration, out))
                self._shares_out[event.name] = float(out.mean()) if len(out) else 0.0

    @property
    def opted_out(self) -> dict[str, float]:
        """Share of the EVs that opt out of each event that is known, by name."""
        return self._shares_out

    def signals_changed(self) -> None:
        """See :meth:`Strategy.signals_changed`."""
        super().signals_changed()
        self._set_events()

    def slots(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`CheapestFirst.slots`: quarter hours, split where prices change within."""
        return np.union1d(super().slots(begin_s, end_s), self.price_edges(begin_s, end_s))

    def costs(self, edges_s: Array) -> Array:
        """See :meth:`CheapestFirst.costs`: prices, or one price where there are none."""
        prices = self.context.prices
        return np.zeros(len(edges_s) - 1) if prices is None else prices.means(edges_s)[0]

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        plain = self.cheapest(view, self.cost)
        known = [e for e in self._events if e[0] - self.settings.notice <= view.time_s < e[1]]
        if not known:
            return plain
        asked = plain
        for begin_s, end_s, out in known:
            dear = np.where((self.edges_s[1:] > begin_s) & (self.edges_s[:-1] < end_s), np.inf, self.cost)
            shifted = self.cheapest(view, dear)
            if begin_s <= view.time_s:
                headroom = np.full(self.context.members * self.context.groups, self.settings.target_kw)
                shifted = self._within(view, headroom, out)
            asked = np.where(out, asked, shifted)
        return asked

    def _within(self, view: View, headroom: Array, out: Array) -> Array:
        part = replace(view, p_max=np.where(out, 0.0, view.p_max), p_min=np.where(out, 0.0, view.p_min))
        return self.dispatch(part, headroom, np.zeros(len(out)) if self.settings.target_kw >= 0 else None)

    def _out(self, number: int) -> Array:
        """Whether each EV opts out of an event, (ev,) bool."""
        evs, seed = self.context.evs, self.context.seed
        counts = np.bincount(evs.member, minlength=self.context.members)
        draws = [
            stream(seed, member, Purpose.OPT_OUT, number).random(count)
            for member, count in zip(self.context.numbers, counts, strict=True)
        ]
        return np.asarray(np.concatenate(draws) < self.settings.opt_out)
