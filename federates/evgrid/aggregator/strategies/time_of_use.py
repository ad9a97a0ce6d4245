"""Charging in the cheapest slots that still meet the departure."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from evgrid.aggregator.strategy import Context, Strategy, View
from evgrid.core.model import Array


class CheapestFirst(Strategy):
    """Base of strategies that charge in the cheapest slots that still meet the departure.

    Exact without a schedule: an EV charges now if and only if the cheaper slots left before its
    departure do not suffice, and only for the part of the tick by which they fall short. That is the
    greedy fill of the cheapest slots, of equal ones the earliest, which is optimal since nothing couples
    the EVs; an EV in its taper, whose power falls with its state of charge, is served as if all slots
    were alike.
    """

    may_raise_peak = True
    slot_s: ClassVar[float] = 3600.0
    """Length of a slot, s; divides an hour, and the tick divides it. Slots begin on the full hour, unless
    :meth:`slots` says otherwise."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._set_costs()

    def _set_costs(self) -> None:
        """Set the slots and their costs."""
        clock = self.context.clock
        origin = clock.start.astype("datetime64[h]")
        # slots of the horizon: a later departure is planned when it comes nearer
        hours = int(np.ceil(clock.duration_s / 3600)) + 1 + _LOOK_AHEAD_H
        begin_s = -float((clock.start - origin) / np.timedelta64(1, "s"))
        self.edges_s = self.slots(begin_s, begin_s + 3600.0 * hours)
        self.cost = self.costs(self.edges_s)
        self._slot = -1
        self._cheaper_s = np.zeros(0)

    def signals_changed(self) -> None:
        """See :meth:`Strategy.signals_changed`."""
        self._set_costs()

    def slots(self, begin_s: float, end_s: float) -> Array:
        """The slots' edges from a full hour to another, (slot + 1,) s from the run's start."""
        return begin_s + self.slot_s * np.arange(round((end_s - begin_s) / self.slot_s) + 1, dtype=np.float64)

    @abstractmethod
    def costs(self, edges_s: Array) -> Array:
        """Cost of each of the slots between ``edges_s``, (slot + 1,) s from the run's start; (slot,)."""

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        return self.cheapest(view, self.cost)

    def cheapest(self, view: View, cost: Array) -> Array:
        """Set-points for the cost of each slot, (slot,); (ev,) kW."""
        slot = int(np.searchsorted(self.edges_s, view.time_s + 1e-6, "right")) - 1
        if cost is not self.cost:
            cheaper_s = self._cheaper_than(slot, cost)
        else:
            if slot != self._slot:
                self._slot, self._cheaper_s = slot, self._cheaper_than(slot, cost)
            cheaper_s = self._cheaper_s
        until_s = np.interp(view.time_s + view.time_left, self.edges_s, cheaper_s)
        missing_s = view.time_needed - (until_s - np.interp(view.time_s, self.edges_s, cheaper_s))
        share = np.clip(missing_s / view.step_s, 0.0, 1.0)
        charge: Array = np.where(share >= 1.0, np.inf, share * view.p_max)
        return charge

    def _cheaper_than(self, slot: int, cost: Array) -> Array:
        """Time before each edge in slots that cost less than one does, (slot + 1,) s."""
        return np.concatenate([[0.0], np.cumsum((cost < cost[slot]) * np.diff(self.edges_s))])

    def price_edges(self, begin_s: float, end_s: float) -> Array:
        """Ticks between two times, and these, at which prices may change, s; around a change within a tick
        both ends of the tick. Without prices only the two times.
        """
        step_s, prices = self.context.clock.step_s, self.context.prices
        inner = prices.edges(begin_s, end_s) / step_s if prices is not None else np.zeros(0)
        at = np.concatenate([np.floor(inner + 1e-9), np.ceil(inner - 1e-9)]) * step_s
        return np.unique([begin_s, *at[(at > begin_s) & (at < end_s)], end_s])


class TimeOfUse(CheapestFirst):
    """Charge at the cheapest times that still meet the departure; of equal ones, the earliest.

    Slots are the times between two changes of the price.
    """

    ignores = ("group",)
    needs_prices = True

    def slots(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`CheapestFirst.slots`."""
        return self.price_edges(begin_s, end_s)

    def costs(self, edges_s: Array) -> Array:
        """See :meth:`CheapestFirst.costs`: currency per kWh."""
        prices = self.context.prices
        assert prices is not None
        return prices.means(edges_s)[0]


_LOOK_AHEAD_H = 7 * 24
