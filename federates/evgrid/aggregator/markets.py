"""Strategies that follow a series over time: emissions, events, prices of energy given back.

What a strategy needs of the bulk system (emission rates, events) stands in the scenario's section
``system``; prices are those of the tariff.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evgrid.aggregator.strategies import (
    CheapestFirst,
    Context,
    Dispatching,
    DispatchSettings,
    Strategy,
    StrategySettings,
    View,
    register,
)
from evgrid.model import Array
from evgrid.settings import Duration
from evgrid.streams import Purpose, stream
from evgrid.system.series import read_emissions
from evgrid.tariff import prices

QUARTER_S = 900.0
Share = Annotated[float, Field(ge=0, le=1)]


@register("emissions")
class Emissions(CheapestFirst):
    """Charge in the quarter hours of the lowest emission rate that still meet the departure.

    As ``tou``, on ``system.emissions``; beyond the end of the run its last rate is taken to hold.
    """

    needs_of_system = ("emissions",)
    slot_s = QUARTER_S

    def costs(self, begins_s: Array) -> Array:
        """See :meth:`CheapestFirst.costs`: kg CO2 per MWh."""
        system, clock = self.context.system, self.context.clock
        assert system is not None
        assert system.emissions is not None
        rates = read_emissions(system.emissions.file, clock, system.emissions.timezone)
        return np.array([float(rates.mean(max(at, 0.0), at + QUARTER_S)) for at in begins_s])


class DemandResponseSettings(DispatchSettings):
    """Settings of the strategy ``demand_response``."""

    notice: Annotated[Duration, Field(ge=0)] = 14400.0
    """How long before it begins an event is known; charging is moved before it, or after."""
    target_kw: float = 0.0
    """What each group's EVs that take part may draw together during an event, kW; negative asks them to
    discharge."""
    opt_out: Share = 0.0
    """Share of the EVs that don't take part in an event, drawn for each event."""
    least_level: Annotated[int, Field(ge=1, le=3)] = 1
    """Level from which on an event is answered."""


@register("demand_response")
class DemandResponse(CheapestFirst, Dispatching):
    """Keep out of the events of ``system.events``; charge by the tariff, or at once, at other times.

    An event counts from ``notice`` before it begins: its quarter hours are then dearer than any other.
    While it lasts, EVs that take part share ``target_kw`` by laxity. Who opted out knows of no event.
    """

    Settings = DemandResponseSettings
    needs_of_system = ("events",)
    slot_s = QUARTER_S

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        assert context.system is not None
        start = context.clock.start.astype("datetime64[s]")
        self._events = []
        for number, event in enumerate(context.system.events):
            begin_s = float((np.datetime64(event.start, "s") - start) / np.timedelta64(1, "s"))
            if event.level >= settings.least_level:
                self._events.append((begin_s, begin_s + event.duration, self._out(number)))

    def costs(self, begins_s: Array) -> Array:
        """See :meth:`CheapestFirst.costs`: the tariff's prices, or one price without a tariff."""
        if self.context.tariff is None:
            return np.zeros(len(begins_s))
        return prices(self.context.tariff, self.context.clock.timestamps(begins_s))[0]

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
        part = View(
            view.time_s, view.step_s, view.plugged, view.soc, np.where(out, 0.0, view.p_max),
            np.where(out, 0.0, view.p_min), view.energy_needed, view.time_left, view.time_needed,
            view.base_load,
        )  # fmt: skip
        return self.dispatch(part, headroom, np.zeros(len(out)) if self.settings.target_kw >= 0 else None)

    def _out(self, number: int) -> Array:
        """Who opts out of an event, (ev,) bool."""
        evs, seed = self.context.evs, self.context.seed
        counts = np.bincount(evs.member, minlength=self.context.members)
        draws = [
            stream(seed, member, Purpose.OPT_OUT, number).random(count)
            for member, count in zip(self.context.numbers, counts, strict=True)
        ]
        return np.asarray(np.concatenate(draws) < self.settings.opt_out)


class ArbitrageSettings(StrategySettings):
    """Settings of the strategy ``arbitrage``."""

    depth_kwh: Annotated[float, Field(ge=0)] = 15.0
    """How far below its target a battery may be discharged, kWh."""
    wear_per_kwh: Annotated[float, Field(ge=0)] = 0.05
    """Cost of degradation, currency per kWh given back."""
    horizon: Annotated[Duration, Field(gt=0)] = 129600.0
    """How far a plan looks ahead."""
    charge_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Energy into the battery per energy drawn, as the plan assumes it."""
    discharge_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Energy given per energy out of the battery, as the plan assumes it."""


@register("arbitrage")
class Arbitrage(Strategy):
    """Charge in cheap hours and give back in dear ones, at the least cost for each EV (V2G).

    Every hour of the clock a linear program plans the EVs that are plugged in then, up to their
    departure; nothing couples them, so the plan is exact for each. An EV that comes in between is
    charged from the next hour on. The least cost in full knowledge of the tariff, less degradation.
    """

    Settings = ArbitrageSettings
    needs_tariff = True
    _AT_ONCE = 500

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._plan = np.zeros(len(context.evs))
        self._hour = -1
        self._offset_s = float(
            (context.clock.start - context.clock.start.astype("datetime64[h]")) / np.timedelta64(1, "s")
        )

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        hour = int((view.time_s + self._offset_s + 1e-6) // 3600)
        if hour != self._hour and view.plugged.any():
            self._hour = hour
            self._plan = np.zeros(len(view.soc))
            member = self.context.evs.member
            for number in range(self.context.members):
                rows = np.flatnonzero(view.plugged & (member == number))
                for first in range(0, len(rows), self._AT_ONCE):
                    self._solve(view, rows[first : first + self._AT_ONCE])
        return self._plan

    def _solve(self, view: View, rows: NDArray[Any]) -> None:
        from evgrid.aggregator.scheduler import batteries_of, schedule

        settings, clock = self.settings, self.context.clock
        most = round(settings.horizon / 3600.0)
        stay = np.minimum((view.time_left[rows] / 3600.0 + 1e-9).astype(np.int64), most)
        self._plan[rows[stay == 0]] = np.inf
        rows, stay = rows[stay > 0], stay[stay > 0]
        if not len(rows):
            return
        slots = int(stay.max())
        power = np.maximum(np.maximum(view.p_max[rows], -view.p_min[rows]), 0.1)
        missing = settings.charge_efficiency * view.energy_needed[rows]
        reach = settings.charge_efficiency * power * stay
        depth = np.where(view.p_min[rows] < 0, np.maximum(settings.depth_kwh - missing, 0.0), 0.0)
        batteries = batteries_of(
            np.zeros(len(rows), np.int64), stay, np.minimum(missing, reach), power, slots, 1.0, depth,
            None, settings.charge_efficiency, settings.discharge_efficiency,
        )  # fmt: skip
        assert self.context.tariff is not None
        times = clock.timestamps(view.time_s + 3600.0 * np.arange(slots))
        drawn, given = prices(self.context.tariff, times)
        plan = schedule(batteries, drawn, 1.0, given, wear_per_kwh=settings.wear_per_kwh)
        first = plan.power[:, 0]
        self._plan[rows] = np.where((missing >= reach) | (first >= power - 1e-6), np.inf, first)
