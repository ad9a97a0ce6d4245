"""Regulation: a fleet that offers capacity, hour by hour, and follows a signal, tick by tick.

**Preferred operating point** (POP), every ``period``: the power at which the fleet would be without a
signal. Each EV keeps a ``band`` of energy free below its target, so that it can still take energy, until
``tail`` before its departure. What it misses beyond the band is spread over the time until
then; an EV with less room than the band drifts back to it by discharging; in the tail it charges what is
left evenly. So the state of charge recentres and every driver gets the energy wanted.

**Capacity**, at the start of each hour, from the envelopes of the EVs that are plugged in and stay:

    up   = POP - Pmin,  Pmin = -min(discharge limit, Pmax (laxity / hold - 1) / 2)
    down = min(Pmax, missing energy / hold) - POP

summed over the EVs at every five minutes of the hour, less those that leave by then. The capacity is
the least of all these sums, upward and downward: it is sold both ways. ``availability`` is the
probability that an EV is there and answers; of the sum, only what is there with the probability
``reliability`` is offered (normal approximation: ``a S - z sqrt(a (1 - a) Q)``, with S the sum and Q
the sum of the squares of the EVs' powers). EVs yet to come are not counted on.

**Response**, every tick: the fleet is asked for POP - capacity · signal, split by laxity.

Hours are counted from the run's start. At the start nothing has been reported, so nothing is offered in
the first hour, which has no score. Left out: bids that may be refused, forecasts of arrivals.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from evgrid.aggregator.strategies import Context, Dispatching, DispatchSettings, View, register
from evgrid.model import Array, Variable
from evgrid.settings import Duration
from evgrid.system.revenue import pjm_credit
from evgrid.system.scores import PJMScore, response_of

HOUR_S = 3600.0
_CHECK_S = 300.0
"""Spacing of the moments of an hour at which the envelopes are looked at, s."""
_TAPERED = 0.5
"""Share of its rated power that an EV near its target is counted on to draw, as it may be tapering."""
_RECENTRE_H = 3.0
"""Time in which an EV with too little room below its target drifts back, h."""
_EARLY_H = 0.25
"""How long before its departure an EV is to be done, h."""

Share = Annotated[float, Field(gt=0, le=1)]


class RegulationSettings(DispatchSettings):
    """Settings of the strategy ``regulation``."""

    period: Annotated[Duration, Field(gt=0)] = 300.0
    """Period at which the preferred operating point is set, a multiple of the tick."""
    hold: Annotated[Duration, Field(gt=0)] = 900.0
    """Time for which full activation must be sustained either way."""
    band: Annotated[Duration, Field(gt=0)] = 3600.0
    """Energy that each EV keeps free below its target, as time at its rated power."""
    tail: Annotated[Duration, Field(gt=0)] = 10800.0
    """Time before departure from which the band is charged."""
    availability: Share = 0.97
    """Probability that an EV that is counted on is there and answers."""
    reliability: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Probability with which the offered capacity is there."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.3
    """State of charge below which an EV is not counted on to discharge."""
    capability_price: Annotated[float, Field(ge=0)] = 20.0
    """Price of capability (RMCCP), currency per MW and hour."""
    performance_price: Annotated[float, Field(ge=0)] = 3.0
    """Price of performance (RMPCP), currency per MW and hour."""
    mileage_ratio: Annotated[float, Field(ge=0)] = 1.0
    """Mileage of the signal over that of the reference signal."""


_HOURLY = tuple(
    Variable(name, ("member", "hour"), unit, text, timed=False)
    for name, unit, text in (
        ("regulation_capacity_kw", "kW", "regulation capacity offered in the hour, upward and downward"),
        ("regulation_score", "1", "PJM performance score of the hour; NaN where nothing was offered"),
        ("regulation_correlation", "1", "correlation part of the PJM score"),
        ("regulation_delay", "1", "delay part of the PJM score"),
        ("regulation_precision", "1", "precision part of the PJM score"),
        ("regulation_credit", "currency", "credit: MW, score and prices of the hour multiplied"),
    )
)


@register("regulation")
class Regulation(Dispatching):
    """Sell regulation capacity hour by hour and follow the system's signal every tick."""

    Settings = RegulationSettings
    uses_system = True
    needs_of_system = ("regulation",)
    variables = (
        Variable("capacity_offered_kw", ("member",), "kW", "regulation capacity offered, either way"),
        Variable("operating_point_kw", ("member",), "kW", "preferred operating point of the fleet"),
        Variable("regulation_target_kw", ("member",), "kW", "power asked of the fleet by the signal"),
        *_HOURLY,
    )

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        clock, members = context.clock, context.members
        if clock.step_s > 10.0 or HOUR_S % clock.step_s:
            raise ValueError(f"time.step = {clock.step_s:g}s: must divide an hour and be at most 10s")
        self._member = context.evs.member
        self._members = members
        self._rated = np.zeros(len(context.evs))
        self._capacity = np.zeros(members)
        self._point = np.zeros(members)
        self._hours = int(clock.duration_s / HOUR_S + 1e-9)
        self._offered = np.zeros((members, self._hours + 1))
        # what was asked and what was given, (member, tick)
        self._signal, self._points, self._power = np.zeros((3, members, clock.ticks))
        self._tick = 0

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        settings = self.settings
        tick = self._tick = round(view.time_s / view.step_s)
        self._power[:, max(tick - 1, 0)] = view.fleet_power
        if _begins(view.time_s, settings.period):
            self._look(view)
        hour = int(view.time_s / HOUR_S + 1e-9)
        self._offered[:, hour] = self._capacity
        self._signal[:, tick], self._points[:, tick] = view.regulation, self._point
        target = self._point - self._capacity * view.regulation
        self.recorded = {
            "capacity_offered_kw": self._capacity,
            "operating_point_kw": self._point,
            "regulation_target_kw": target,
        }
        return self.dispatch(view, target)

    def results(self) -> dict[str, Array]:
        """The score and the credit of each whole hour, (member, hour)."""
        settings, hours = self.settings, self._hours
        self._power[:, self._tick] = self._power[:, max(self._tick - 1, 0)]  # not told before the end
        offered = self._offered[:, :hours]
        values = {name: np.full((self._members, hours), np.nan) for name in (v.name for v in _HOURLY)}
        values["regulation_capacity_kw"] = offered
        if hours:
            step_s = self.context.clock.step_s
            per_hour = round(HOUR_S / step_s)
            capacity = np.repeat(self._offered, per_hour, axis=1)[:, : self._signal.shape[1]]
            safe = np.where(capacity > 0, capacity, 1.0)
            response = np.where(capacity > 0, response_of(self._power, self._points, safe), 0.0)
            score = PJMScore().score(self._signal, response, step_s)
            sold = offered > 0
            values["regulation_score"] = np.where(sold, score.total, np.nan)
            for name, part in score.parts.items():
                values[f"regulation_{name}"] = np.where(sold, part, np.nan)
            values["regulation_credit"] = pjm_credit(
                offered / 1000.0, np.where(sold, score.total, 0.0),
                settings.capability_price, settings.performance_price, settings.mileage_ratio,
            )  # fmt: skip
        return values

    def _look(self, view: View) -> None:
        """Set the operating point, and at the start of an hour the capacity."""
        plugged = view.plugged
        self._rated = np.where(plugged, np.maximum(self._rated, np.maximum(view.p_max, -view.p_min)), 0.0)
        point = operating_points(self.settings, view, self._rated)
        self._point = np.asarray(np.bincount(self._member, point, self._members), np.float64)
        if _begins(view.time_s, HOUR_S):
            self._capacity = np.full(self._members, np.inf)
            for after_s in np.arange(0.0, HOUR_S + 1.0, _CHECK_S):
                for powers in envelope(self.settings, view, self._rated, point, after_s):
                    self._capacity = np.minimum(self._capacity, self._reliable(powers))
            self._capacity = np.maximum(self._capacity, 0.0)

    def _reliable(self, powers: Array) -> Array:
        """Sum of the EVs' powers that is there with the wanted probability, (member,) kW."""
        a = self.settings.availability
        total = np.bincount(self._member, powers, self._members)
        squares = np.bincount(self._member, powers**2, self._members)
        quantile = NormalDist().inv_cdf(self.settings.reliability)
        return np.asarray(a * total - quantile * np.sqrt(a * (1 - a) * squares))


def operating_points(settings: RegulationSettings, view: View, rated: Array) -> Array:
    """Preferred power of each EV until the next look, (ev,) kW; see the module. 0 for EVs away."""
    left_h, missing = view.time_left / HOUR_S, view.energy_needed
    band, tail_h = rated * settings.band / HOUR_S, settings.tail / HOUR_S
    beyond = missing - band
    ahead = beyond / np.maximum(left_h - tail_h, 1.0)
    back = np.where(view.p_min < 0, np.maximum(beyond / _RECENTRE_H, view.p_min), 0.0)
    last = missing / np.maximum(left_h - _EARLY_H, _EARLY_H)
    point = np.where(left_h < tail_h, last, np.where(beyond >= 0, ahead, back))
    return np.where(view.plugged, np.minimum(point, rated), 0.0)


def envelope(
    settings: RegulationSettings, view: View, rated: Array, point: Array, after_s: float
) -> tuple[Array, Array]:
    """How far each EV can go up (less drawn) and down (more drawn) from its operating point, (ev,) kW.

    ``after_s`` from now, having kept to the point until then, and for ``settings.hold`` from
    then on. 0 for EVs that are away, or leave before that is over.
    """
    hold_h, after_h = settings.hold / HOUR_S, after_s / HOUR_S
    stays = view.plugged & (view.time_left > after_s + settings.hold)
    band = rated * settings.band / HOUR_S
    missing = np.maximum(view.energy_needed - point * after_h, 0.0)
    tapered = np.divide(missing, band, out=np.zeros_like(band), where=band > 0)
    highest = rated * np.minimum(_TAPERED + (1.0 - _TAPERED) * tapered, 1.0)
    needed_h = np.divide(missing, highest, out=np.zeros_like(band), where=highest > 0)
    laxity_h = view.time_left / HOUR_S - after_h - needed_h
    may = np.where(view.soc > settings.soc_reserve, -view.p_min, 0.0)
    lowest = -np.clip(highest * (laxity_h / hold_h - 1.0) / 2.0, 0.0, may)
    up = np.where(stays, np.maximum(point - lowest, 0.0), 0.0)
    down = np.where(stays, np.maximum(np.minimum(highest, missing / hold_h) - point, 0.0), 0.0)
    return up, down


def _begins(time_s: float, period_s: float) -> bool:
    """Whether a period begins at a time, but for rounding."""
    rest = time_s % period_s
    return min(rest, period_s - rest) < 1e-6
