"""The controls of a site while the grid is there: their settings.

One of a user's own is a class that extends :class:`PlanningControl` and plans in :meth:`Planned.solve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from evgrid.scenario.fields import Duration, Positive, fault
from evgrid.scenario.sites import SiteControl
from evgrid.scenario.tariffs import USUAL_INTERVAL_S, DemandCharge

if TYPE_CHECKING:
    from evgrid.sites.planning import Ahead, Plans, Stores


class Requests(SiteControl):
    """Only what aggregators ask for: the battery idles."""

    strategy: Literal["requests"] = "requests"
    """The name of this control."""


class SelfConsumption(SiteControl):
    """PV surplus into battery and EVs, which give it back to the load of the site."""

    strategy: Literal["self_consumption"] = "self_consumption"
    """The name of this control."""


class Planned(SiteControl):
    """A control that plans over a rolling horizon."""

    horizon: Annotated[Duration, Field(gt=0, le=7 * 86400)] = 86400.0
    """Horizon of a plan; a multiple of its slots."""
    every: Annotated[Duration, Field(gt=0)] = 3600.0
    """Period at which plans are made; a multiple of their slots."""
    forecast: Literal["perfect", "naive"] = "perfect"
    """Forecast of load, PV and EVs. perfect: what comes; naive: the same time of the day before, in the first
    day what comes. Prices, and the departure of an EV that is plugged in, are known in either case."""

    @property
    def plans(self) -> bool:
        """Whether it plans as it is set."""
        return True

    def solve(self, ahead: Ahead, stores: Stores) -> Plans:
        """Plans of the group's sites over the horizon: the best ones, see :mod:`evgrid.sites.planning`.

        One of a user's own may plan by any rule. A site follows its plan as far as breaker, export limit,
        reserve and the EVs' departures allow.

        ahead : load, PV, limits and prices in slots
        stores : batteries, then EVs in their sessions
        """
        from evgrid.sites.planning import plan

        return plan(ahead, stores)

    def slot_s(self, demand: DemandCharge | None) -> float:
        """Length of a plan's slots, s, with the tariff's demand charge."""
        raise NotImplementedError

    def slot_faults(self, slot: str, slot_s: float) -> list[str]:
        """Faults of horizon and period with slots of a length, a sentence each; ``slot``: the name of it."""
        found = []
        for key in ("horizon", "every"):
            slots = getattr(self, key) / slot_s
            if abs(slots - round(slots)) > 1e-9 or round(slots) < 1:
                found.append(f"{key} = {getattr(self, key):g}s: must be a multiple of {slot} = {slot_s:g}s")
        return found

    @model_validator(mode="after")
    def _within_horizon(self) -> Self:
        if self.every > self.horizon:
            raise fault(f"every = {self.every:g}s: must be at most horizon = {self.horizon:g}s")
        return self


class PlanningControl(Planned):
    """A control that plans the power of batteries, EVs and PV in slots; base of users' own."""

    slot: Annotated[Duration, Field(ge=60)] = 900.0
    """Length of a plan's slots."""

    def slot_s(self, demand: DemandCharge | None) -> float:
        """See :meth:`Planned.slot_s`."""
        return self.slot

    @model_validator(mode="after")
    def _whole_slots(self) -> Self:
        for found in self.slot_faults("slot", self.slot):
            raise fault(found)
        return self


class Cost(PlanningControl):
    """Least cost on the price of energy and the export price over a rolling horizon."""

    needs_prices: ClassVar[bool] = True

    strategy: Literal["cost"] = "cost"
    """The name of this control."""


class Peak(Planned):
    """The power drawn from the grid held below a limit, or as low as the tariff's demand charge asks for."""

    strategy: Literal["peak"] = "peak"
    """The name of this control."""
    limit_kw: Positive | None = None
    """Most power drawn, kW; left out: the lowest peak of each month by the tariff's demand charge, planned in
    slots of its interval."""

    @property
    def by_demand_charge(self) -> bool:
        """Whether it goes by the tariff's demand charge."""
        return self.limit_kw is None

    @property
    def plans(self) -> bool:
        """See :attr:`Planned.plans`."""
        return self.by_demand_charge

    def slot_s(self, demand: DemandCharge | None) -> float:
        """See :meth:`Planned.slot_s`."""
        return demand.interval if demand is not None else USUAL_INTERVAL_S

    @model_validator(mode="after")
    def _plans_or_not(self) -> Peak:
        for key in ("horizon", "every", "forecast"):
            usual = type(self).model_fields[key].default
            if self.limit_kw is not None and getattr(self, key) != usual:
                raise fault(f"{key} has no meaning with limit_kw")
        return self


class Reserve(SiteControl):
    """A state of charge held for outages, and nothing else: charged to it, and discharged in outages only."""

    strategy: Literal["reserve"] = "reserve"
    """The name of this control."""

    @model_validator(mode="after")
    def _holds_something(self) -> Reserve:
        if self.reserve_soc == 0.0 and not self.storms:
            raise fault("needs reserve_soc above 0, or storms")
        return self
