"""Regulation: a fleet that offers capacity, hour by hour, and follows a signal, tick by tick.

**Preferred operating point** (POP), every ``period``: the power at which the fleet would be without a
signal. Each EV keeps a ``band`` of energy free below its target, so that it can still take energy, until
``tail`` before its departure. The missing energy beyond the band is spread over the time until
then; an EV with less room than the band drifts back to it by discharging; in the tail it charges the rest
evenly. So the state of charge recentres and every driver gets the energy wanted.

**Capacity**, at the start of each hour, from the envelopes of the EVs that are plugged in and stay:

    up   = POP - Pmin,  Pmin = -min(discharge limit, Pmax (laxity / hold - 1) / 2)
    down = min(Pmax, missing energy / hold) - POP

summed over the EVs at every five minutes of the hour, less those that leave by then. The capacity is
the least of all these sums, upward and downward: it is sold both ways. ``availability`` is the
probability that an EV is there and responds; of the sum, only the part available with the probability
``reliability`` is offered (normal approximation: ``a S - z sqrt(a (1 - a) Q)``, with S the sum and Q
the sum of the squares of the EVs' powers). Future arrivals are not counted.

**Response**, every tick: the fleet's target is POP - capacity · signal, split by laxity.

**Limit.** With ``limit_kw`` (``export_limit_kw``) no group, transformer or feeder, draws (feeds back) more
than that by its EVs: POP and capacity are those of the groups, each within the room of its limit besides
its other load when they are set, and the target of a group in a tick is kept within that room at the time.
Excess of the other load over the limit is not compensated. EVs upstream of the feeder have no limit.

Hours are counted from the run's start. At the start nothing has been reported, so nothing is offered in
the first hour, which has no score. Left out: bids that may be refused, forecasts of arrivals.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, model_validator

from evgrid.aggregator.dispatch import Dispatching, WithinSettings, room
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Array, Variable
from evgrid.core.units import HOUR_S
from evgrid.scenario.aggregators import StrategySettings
from evgrid.scenario.fields import Duration, fault
from evgrid.system.revenue import pjm_credit
from evgrid.system.scores import Scorer, find_scorer

if TYPE_CHECKING:
    from evgrid.scenario import Scenario

_CHECK_S = 300.0
"""Spacing of the times in an hour at which the envelopes are evaluated, s."""
_TAPERED = 0.5
"""Share of its rated power that an EV near its target is counted on to draw, as it may be tapering."""
_RECENTRE_H = 3.0
"""Time in which an EV with too little room below its target drifts back, h."""
_EARLY_H = 0.25
"""Time before its departure by which an EV is to be done, h."""

Share = Annotated[float, Field(gt=0, le=1)]


class OfferSettings(WithinSettings):
    """Settings of the strategies that offer capacity about a preferred operating point."""

    period: Annotated[Duration, Field(gt=0)] = 300.0
    """Period at which the preferred operating point is set, a multiple of the tick."""
    hold: Annotated[Duration, Field(gt=0)] = 900.0
    """Time for which full activation must be sustained either way."""
    band: Annotated[Duration, Field(gt=0)] = 3600.0
    """Energy that each EV keeps free below its target, as time at its rated power."""
    tail: Annotated[Duration, Field(gt=0)] = 10800.0
    """Time before departure from which the band is charged."""
    availability: Share = 0.97
    """Probability that an EV that is counted on is there and responds."""
    reliability: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Probability with which the offered capacity is there."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.3
    """State of charge below which an EV is not counted on to discharge."""
    discharge: bool = True
    """Whether EVs may be discharged; false: charging is modulated only (V1G)."""


def _scorer_of(name: str, info: ValidationInfo) -> Scorer:
    return find_scorer(name, (info.context or {}).get("folder"))


def _check_scorer(name: str, info: ValidationInfo) -> str:
    try:
        period_s = _scorer_of(name, info).period_s
    except ValueError as error:
        raise fault(str(error).partition(": ")[2]) from None
    if abs(HOUR_S / period_s - round(HOUR_S / period_s)) > 1e-9:
        raise fault(f"rates periods of {period_s:g} s, must be periods that divide an hour")
    return name


class RegulationSettings(OfferSettings):
    """Settings of the strategy ``regulation``."""

    scorer: Annotated[str, AfterValidator(_check_scorer)] = "pjm"
    """Scorer of the response: pjm (three parts), caiso (accuracy), or my_module:MyScorer, a class with
    period_s and score(signal, response, step_s). Of periods within an hour the mean is the hour's score."""
    capability_price: Annotated[float, Field(ge=0)] = 20.0
    """Price of capability (RMCCP), currency per MW and hour."""
    performance_price: Annotated[float, Field(ge=0)] = 3.0
    """Price of performance (RMPCP), currency per MW and hour."""
    mileage_ratio: Annotated[float, Field(ge=0)] = 1.0
    """Mileage of the signal over that of the reference signal."""
    _scorer: Scorer = PrivateAttr()

    @model_validator(mode="after")
    def _find_scorer(self, info: ValidationInfo) -> RegulationSettings:
        self._scorer = _scorer_of(self.scorer, info)
        return self

    @property
    def found_scorer(self) -> Scorer:
        """Scorer of the response: the one that these settings were checked with."""
        return self._scorer

    @property
    def user_classes(self) -> tuple[type, ...]:
        """See :class:`StrategySettings`."""
        return (*super().user_classes, *((type(self._scorer),) if ":" in self.scorer else ()))


_HOURLY = tuple(
    Variable(name, ("member", "hour"), unit, text, timed=False)
    for name, unit, text in (
        ("regulation_capacity_kw", "kW", "regulation capacity offered in the hour, upward and downward"),
        (
            "regulation_held_kw",
            "kW",
            "capacity offered, times the slope of the response on the signal if that is below 1",
        ),
        ("regulation_up_kwh", "kWh", "energy drawn less, or given, than at the operating point in the hour"),
        ("regulation_down_kwh", "kWh", "energy drawn more than at the operating point in the hour"),
        ("regulation_score", "1", "performance score of the hour; NaN where nothing was offered"),
        ("regulation_correlation", "1", "correlation part of the PJM score; NaN with another scorer"),
        ("regulation_delay", "1", "delay part of the PJM score; NaN with another scorer"),
        ("regulation_precision", "1", "precision part of the PJM score; NaN with another scorer"),
        ("regulation_credit", "currency", "credit: MW, score and prices of the hour multiplied"),
    )
)


class Offering(Dispatching):
    """Base of strategies that offer capacity and move the fleet about its operating point on activation."""

    Settings: ClassVar[type[StrategySettings]] = OfferSettings
    uses_system = True
    takes_upstream = True  # without a limit
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("capacity_offered_kw", ("member",), "kW", "capacity offered, each way that is sold"),
        Variable("operating_point_kw", ("member",), "kW", "preferred operating point of the fleet"),
        Variable("regulation_target_kw", ("member",), "kW", "target power of the fleet for the signal"),
    )
    sides: tuple[bool, bool] = (True, True)
    """Whether capacity is sold upward, and downward."""

    @classmethod
    def faults(cls, settings: Any, scenario: Scenario) -> list[str]:
        """See :meth:`Strategy.faults`."""
        step_s = scenario.time.step
        per_hour = HOUR_S / step_s
        if step_s > 10.0 or abs(per_hour - round(per_hour)) > 1e-6:
            return [
                f"strategy = {settings.strategy}: time.step = {step_s:g}s must divide an hour and be at "
                "most 10s"
            ]
        return []

    def __init__(self, settings: Any, context: Context) -> None:
        if not settings.limited:  # capacity is a member's, whatever its EVs are grouped by
            context = replace(context, groups=1, ev_group=context.evs.member)
        elif context.upstream and context.groups == 1:
            raise ValueError("limit_kw: needs group = transformer where EVs are upstream of the feeder")
        super().__init__(settings, context)
        clock, members = context.clock, context.members
        self._member = context.evs.member
        self._members = members
        self._rated = np.zeros(len(context.evs))
        self._capacity = np.zeros(members)
        # of each group, (member · groups,): operating point, and its share of the capacity
        self._group_point, self._group_capacity = np.zeros((2, members * context.groups))
        self._hours = int(clock.duration_s / HOUR_S + 1e-9)
        # capacity offered, signal and power, (member, tick)
        self._offered, self._signal, self._points, self._power = np.zeros((4, members, clock.ticks))
        self._tick = 0

    @abstractmethod
    def activation(self, view: View) -> Array:
        """Share of the capacity that is activated, (member,) -1 to 1; positive: less is drawn."""

    @classmethod
    def goes_by_feeder(cls, settings: Any) -> bool:
        """See :meth:`Strategy.goes_by_feeder`."""
        return bool(settings.limited)

    def offers(self, view: View) -> bool:
        """Whether the offer is renewed: at the start of an hour."""
        return begins(view.time_s, HOUR_S)

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        if not self.settings.discharge:
            view = replace(view, p_min=np.zeros(len(view.p_min)))
        tick = self._tick = round(view.time_s / view.step_s)
        self._power[:, max(tick - 1, 0)] = view.fleet_power
        offers = self.offers(view)
        if offers or begins(view.time_s, self.settings.period):
            self._update_offer(view, offers)
        signal = self.activation(view)
        point = self._of_member(self._group_point)
        self._offered[:, tick], self._signal[:, tick], self._points[:, tick] = self._capacity, signal, point
        target = self._group_point - self._group_capacity * np.repeat(signal, self.context.groups)
        target = np.clip(target, *self._room(view))
        self.recorded = {
            "capacity_offered_kw": self._capacity,
            "operating_point_kw": point,
            "regulation_target_kw": self._of_member(target),
        }
        return self.dispatch(view, target)

    def response(self) -> Array:
        """Deviation of the fleet below the operating point, (member, tick) kW, after the last tick."""
        self._power[:, self._tick] = self._power[:, max(self._tick - 1, 0)]  # not reported before the end
        return self._points - self._power

    def by_hour(self, values: Array) -> Array:
        """Values of the whole hours: (member, tick) to (member, hour, tick)."""
        per_hour = round(HOUR_S / self.context.clock.step_s)
        return values[:, : self._hours * per_hour].reshape(self._members, self._hours, per_hour)

    def energy(self, power: Array) -> Array:
        """Energy of the whole hours: (member, tick) kW to (member, hour) kWh."""
        return np.asarray(self.by_hour(power).mean(axis=-1))

    def _update_offer(self, view: View, offers: bool) -> None:
        """Set the operating point and, if the offer is renewed, the capacity."""
        plugged = view.plugged
        there = plugged & ~view.out_of_service
        self._rated = np.where(there, np.maximum(self._rated, np.maximum(view.p_max, -view.p_min)), 0.0)
        point = operating_points(self.settings, view, self._rated)
        low, high = self._room(view)
        self._group_point = np.clip(self._of_group(point), low, high)
        if offers:
            self._capacity = np.full(self._members, np.inf)
            least = np.full(len(low), np.inf)
            margins = self._group_point - low, high - self._group_point
            for after_s in np.arange(0.0, HOUR_S + 1.0, _CHECK_S):
                powers = envelope(self.settings, view, self._rated, point, after_s)
                for way, margin, sold in zip(powers, margins, self.sides, strict=True):
                    if sold:
                        whole = self._of_group(way)
                        within = np.where(whole > margin, np.nan_to_num(ratio(margin, whole)), 1.0)
                        least = np.minimum(least, whole * within)
                        held = self._reliable(way * within[self.context.ev_group])
                        self._capacity = np.minimum(self._capacity, held)
            self._capacity = np.clip(self._capacity, 0.0, self._of_member(least))
            share = np.nan_to_num(ratio(least, np.repeat(self._of_member(least), self.context.groups)))
            self._group_capacity = share * np.repeat(self._capacity, self.context.groups)

    def _room(self, view: View) -> tuple[Array, Array]:
        """Least and most that the limit lets each group's EVs draw now, (member · groups,) kW each."""
        if not self.settings.limited:
            none = np.full(self._members, np.inf)
            return -none, none
        low, high = room(self.settings, view)
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        if self.context.upstream:
            last = slice(self.context.groups - 1, None, self.context.groups)
            low[last], high[last] = -np.inf, np.inf
        return low, high

    def _of_group(self, values: Array) -> Array:
        """Sums over the EVs of each group: (ev,) to (member · groups,)."""
        rows = self._members * self.context.groups
        return np.asarray(np.bincount(self.context.ev_group, values, rows), np.float64)

    def _of_member(self, values: Array) -> Array:
        """Sums over the groups of each member: (member · groups,) to (member,)."""
        return np.asarray(values.reshape(self._members, -1).sum(axis=1))

    def _reliable(self, powers: Array) -> Array:
        """Sum of the EVs' powers that is available with the wanted probability, (member,) kW."""
        a = self.settings.availability
        total = np.bincount(self._member, powers, self._members)
        squares = np.bincount(self._member, powers**2, self._members)
        quantile = NormalDist().inv_cdf(self.settings.reliability)
        return np.asarray(a * total - quantile * np.sqrt(a * (1 - a) * squares))


class Regulation(Offering):
    """Sell regulation capacity hour by hour and follow the system's signal every tick."""

    Settings = RegulationSettings
    needs_of_system = ("regulation",)
    variables = (*Offering.variables, *_HOURLY)

    def activation(self, view: View) -> Array:
        """See :meth:`Offering.activation`."""
        return view.regulation

    def results(self) -> dict[str, Array]:
        """The score and the credit of each whole hour, (member, hour)."""
        settings = self.settings
        values = {v.name: np.full((self._members, self._hours), np.nan) for v in _HOURLY}
        if not self._hours:
            return values
        response, offered = self.response(), self._offered
        share = np.divide(response, offered, out=np.zeros_like(response), where=offered > 0)
        capacity = self.by_hour(offered)[..., -1]
        sold = capacity > 0
        values["regulation_capacity_kw"] = capacity
        for name, way in (("up", response), ("down", -response)):
            values[f"regulation_{name}_kwh"] = np.where(sold, self.energy(np.maximum(way, 0.0)), np.nan)
        moved, squares = (self.by_hour(self._signal * by).sum(axis=-1) for by in (share, self._signal))
        values["regulation_held_kw"] = np.where(
            sold, capacity * np.clip(ratio(moved, squares), 0.0, 1.0), np.nan
        )
        scorer = settings.found_scorer
        rated = scorer.score(self._signal, share, self.context.clock.step_s)
        for name, part in {"score": rated.total, **rated.parts}.items():
            if f"regulation_{name}" in values:
                within = part.reshape(self._members, -1)[:, : self._hours * round(HOUR_S / scorer.period_s)]
                mean = within.reshape(self._members, self._hours, -1).mean(axis=-1)
                values[f"regulation_{name}"] = np.where(sold, mean, np.nan)
        values["regulation_credit"] = pjm_credit(
            capacity / 1000.0, np.where(sold, values["regulation_score"], 0.0),
            settings.capability_price, settings.performance_price, settings.mileage_ratio,
        )  # fmt: skip
        return values


def operating_points(settings: OfferSettings, view: View, rated: Array) -> Array:
    """Preferred power of each EV until the next update, (ev,) kW; see the module. 0 for EVs away."""
    left_h, missing = view.time_left / HOUR_S, view.energy_needed
    band, tail_h = rated * settings.band / HOUR_S, settings.tail / HOUR_S
    beyond = missing - band
    ahead = beyond / np.maximum(left_h - tail_h, 1.0)
    back = np.where(view.p_min < 0, np.maximum(beyond / _RECENTRE_H, view.p_min), 0.0)
    last = missing / np.maximum(left_h - _EARLY_H, _EARLY_H)
    point = np.where(left_h < tail_h, last, np.where(beyond >= 0, ahead, back))
    return np.where(view.plugged, np.minimum(point, rated), 0.0)


def envelope(
    settings: OfferSettings, view: View, rated: Array, point: Array, after_s: float
) -> tuple[Array, Array]:
    """Range of each EV up (less drawn) and down (more drawn) from its operating point, (ev,) kW.

    ``after_s`` from now, having kept to the point until then, and for ``settings.hold`` from
    then on. 0 for EVs that are away, or leave before its end.
    """
    hold_h, after_h = settings.hold / HOUR_S, after_s / HOUR_S
    remains = view.plugged & (view.time_left > after_s + settings.hold)
    band = rated * settings.band / HOUR_S
    missing = np.maximum(view.energy_needed - point * after_h, 0.0)
    tapered = np.divide(missing, band, out=np.zeros_like(band), where=band > 0)
    highest = rated * np.minimum(_TAPERED + (1.0 - _TAPERED) * tapered, 1.0)
    needed_h = np.divide(missing, highest, out=np.zeros_like(band), where=highest > 0)
    laxity_h = view.time_left / HOUR_S - after_h - needed_h
    may = np.where(view.soc > settings.soc_reserve, -view.p_min, 0.0)
    lowest = -np.clip(highest * (laxity_h / hold_h - 1.0) / 2.0, 0.0, may)
    up = np.where(remains, np.maximum(point - lowest, 0.0), 0.0)
    down = np.where(remains, np.maximum(np.minimum(highest, missing / hold_h) - point, 0.0), 0.0)
    return up, down


def ratio(values: Array, by: Array) -> Array:
    """Quotient, NaN where it is by 0."""
    return np.asarray(np.divide(values, by, out=np.full(values.shape, np.nan), where=by > 0))


def begins(time_s: float, period_s: float) -> bool:
    """Whether a period begins at a time, up to rounding."""
    rest = time_s % period_s
    return min(rest, period_s - rest) < 1e-6
