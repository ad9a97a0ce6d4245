"""Bases of strategies that give each group a power, split it by laxity and keep limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evgrid.aggregator.kernels import fill_least, order_by_group, share_by_laxity
from evgrid.aggregator.strategy import Context, Strategy, View
from evgrid.core.model import Array
from evgrid.scenario.aggregators import StrategySettings
from evgrid.scenario.fields import Duration


class DispatchSettings(StrategySettings):
    """Settings of the strategies that split a group's power over its EVs by laxity."""

    smoothing: Annotated[Duration, Field(gt=0)] | None = None
    """Range of laxity over which the share of an EV's limit falls from 1 to 0; left out: a tick.
    Wide: EVs of similar laxity charge together at part of their power; narrow: one after the other."""
    hysteresis: Annotated[Duration, Field(ge=0)] = 0.0
    """Laxity by which an EV that already charges (or discharges) goes before one that doesn't, against
    chatter."""


class Dispatching(Strategy):
    """Base of strategies that give each group a power and split it by laxity."""

    Settings: ClassVar[type[StrategySettings]] = DispatchSettings

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._group = context.ev_group
        self._last = np.zeros(len(context.evs))
        self._rows: NDArray[np.uint32] | None = None
        self._order = order_by_group(np.zeros(0, np.uint32), context.ev_group, 0)

    def dispatch(self, view: View, headroom: Array, p_min: Array | None = None) -> Array:
        """Split ``headroom``, (member · groups,) kW, over the EVs; (ev,) kW, valid until the next call.

        ``p_min``: the least power allowed for each EV, in place of its own. EVs that must charge to meet
        their departure do so, whatever the headroom.
        """
        settings = self.settings
        width_s = view.step_s if settings.smoothing is None else settings.smoothing
        if view.rows is None or view.rows is not self._rows:
            self._reorder(view, len(headroom))
        share_by_laxity(
            self._order, headroom, view.p_max, view.p_min if p_min is None else p_min,
            view.time_left, view.time_needed, view.step_s, width_s, self._last, settings.hysteresis,
        )  # fmt: skip
        return self._last

    def keep_within(
        self, view: View, wanted: Array, asked: Array, low: Array, high: Array, may: NDArray[np.bool_]
    ) -> Array:
        """Set-points changed where groups would draw less than ``low`` or more than ``high``, (ev,) kW.

        wanted : the set-points; asked : the same within the limits of each EV
        low, high : (member · groups,) kW, infinite for no limit
        may : (ev,) whether each EV may be discharged to keep ``high``

        Above ``high`` the EVs draw less, the one with the most laxity first, and discharge where that does
        not suffice; below ``low`` they give less, in equal shares, and charge where that does not suffice.
        """
        group, groups = self.context.ev_group, len(high)
        least, needed_s = least_powers(view), np.maximum(view.time_needed, view.step_s)
        # means of the tick: EVs that need less stop within it, and those that can't wait charge in any case
        here = np.minimum(np.minimum(view.time_needed, view.time_left) / view.step_s, 1.0)
        asked, wanted = np.maximum(np.minimum(asked, view.p_max * here), least), np.maximum(wanted, least)
        total = np.bincount(group, asked, groups)
        given = np.bincount(group, np.maximum(-asked, 0.0), groups)
        over, under = total > high + 1e-9, total < low - 1e-9
        self._last = asked
        if over.any():
            # as batteries of the requested power, of the same laxity and with the same least power
            left_s = view.time_left + (needed_s - view.time_needed)
            must = np.divide(least, asked, out=np.zeros_like(asked), where=(least > 0) & (asked > 0))
            must_s = np.maximum(view.time_left - view.step_s, 0.0) + view.step_s * must
            part = replace(
                view, p_max=np.maximum(asked, 0.0), rows=None,
                time_left=np.where(must > 0, np.maximum(view.time_left, view.step_s), left_s),
                time_needed=np.where(must > 0, must_s, needed_s),
            )  # fmt: skip
            # EVs that give already may give more, as far as the departure allows
            most_given = np.minimum(np.maximum(view.p_min, least) - asked, 0.0)
            more_given = np.where(asked < 0, most_given, view.p_min)
            less = self.dispatch(
                part, np.where(over, high + given, 1e12),
                np.where(may, more_given, 0.0),
            )  # fmt: skip
            wanted = np.where(over[group], np.minimum(asked, 0.0) + less, wanted)
        if under.any():
            kept = np.clip(
                1.0 - np.divide(low - total, given, out=np.ones(groups), where=given > 0), 0.0, 1.0
            )
            wanted = np.where(under[group], np.where(asked < 0, asked * kept[group], asked), wanted)
            short = low > total + given + 1e-9  # though none gives
            if short.any():
                more = self.dispatch(view, np.where(short, low, 0.0), np.zeros(len(asked)))
                wanted = np.where(short[group], more, wanted)
        return wanted

    def _reorder(self, view: View, groups: int) -> None:
        """Reorder the EVs that are plugged in now; those away have no power."""
        self._rows = view.rows
        rows = np.flatnonzero(view.plugged).astype(np.uint32) if view.rows is None else view.rows
        self._order = order_by_group(rows, self._group, groups)
        power = np.zeros_like(self._last)
        power[rows] = self._last[rows]
        self._last = power


class WithinSettings(DispatchSettings):
    """Settings of the strategies that may have a limit of each group's power, drawn and fed back."""

    limit_kw: Annotated[float, Field(gt=0)] | None = None
    """Most that each group may draw, kW over all phases, EVs and everything else together, and most that it
    may feed back unless export_limit_kw says otherwise; left out: no limit. It yields to departures."""
    export_limit_kw: Annotated[float, Field(ge=0)] | None = None
    """Most that each group may feed back, kW; left out: limit_kw."""
    limit_over: Annotated[Duration, Field(gt=0)] | None = None
    """Interval over whose mean the limit holds, such as 15min, counted from the run's start: energy beyond
    the limit in a tick is compensated in the rest of the interval. Left out: each tick."""

    @property
    def most_kw(self) -> float:
        """Most that a group may draw, kW; infinite without a limit."""
        return np.inf if self.limit_kw is None else self.limit_kw

    @property
    def least_kw(self) -> float:
        """Least that a group may draw, kW: minus what it may feed back; minus infinity without a limit."""
        return -(self.most_kw if self.export_limit_kw is None else self.export_limit_kw)

    @property
    def limited(self) -> bool:
        """Whether there is a limit either way."""
        return self.limit_kw is not None or self.export_limit_kw is not None


class LimitSettings(WithinSettings):
    """Settings of the strategies that keep a group within a limit."""

    limit_kw: Annotated[float, Field(gt=0)]
    """Most that each group may draw, kW over all phases, EVs and everything else together, and most that it
    may feed back unless export_limit_kw says otherwise. It yields to departures."""


def room(settings: WithinSettings, view: View) -> tuple[Array, Array]:
    """Least and most that a limit lets the EVs of each group draw together, (member · groups,) kW each.

    Both may be of either sign: with a least above 0 they must draw what the group would otherwise feed back.
    """
    low = settings.least_kw - view.base_load - np.minimum(view.carry_over, 0.0)
    return low, settings.most_kw - view.base_load - np.maximum(view.carry_over, 0.0)


def least_powers(view: View) -> Array:
    """Least mean power of each EV over the tick with which it still meets its departure, (ev,) kW; 0 for EVs
    that are away.

    See :func:`evgrid.aggregator.kernels.bounds`.
    """
    least = np.zeros(len(view.soc))
    rows = np.flatnonzero(view.plugged).astype(np.uint32) if view.rows is None else view.rows
    fill_least(rows, view.p_max, view.p_min, view.time_left, view.time_needed, view.step_s, least)
    return least
