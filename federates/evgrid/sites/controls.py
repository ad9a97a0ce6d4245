"""The controls of a site while the grid is there: their settings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from evgrid.scenario.fields import Duration, Positive, fault
from evgrid.scenario.sites import SiteControl


class Requests(SiteControl):
    """Only what aggregators ask for: the battery idles."""

    strategy: Literal["requests"] = "requests"
    """The name of this control."""


class SelfConsumption(SiteControl):
    """PV surplus into battery and EVs, which give it back to the load of the site."""

    strategy: Literal["self_consumption"] = "self_consumption"
    """The name of this control."""


class Cost(SiteControl):
    """Least cost on the price of energy and the export price over a rolling horizon."""

    needs_prices: ClassVar[bool] = True

    strategy: Literal["cost"] = "cost"
    """The name of this control."""
    horizon: Annotated[Duration, Field(gt=0, le=7 * 86400)] = 86400.0
    """Horizon of a plan; a multiple of the slot."""
    slot: Annotated[Duration, Field(ge=60)] = 900.0
    """Length of a plan's slots."""
    every: Annotated[Duration, Field(gt=0)] = 3600.0
    """Period at which plans are made; a multiple of the slot."""
    forecast: Literal["perfect", "naive"] = "perfect"
    """Forecast of load, PV and EVs. perfect: what comes; naive: the same time of the day before."""

    @model_validator(mode="after")
    def _whole_slots(self) -> Cost:
        for key in ("horizon", "every"):
            slots = getattr(self, key) / self.slot
            if abs(slots - round(slots)) > 1e-9 or round(slots) < 1:
                raise fault(f"{key} = {getattr(self, key):g}s: must be a multiple of slot = {self.slot:g}s")
        if self.every > self.horizon:
            raise fault(f"every = {self.every:g}s: must be at most horizon = {self.horizon:g}s")
        return self


class Peak(SiteControl):
    """The power drawn from the grid held below a limit, or as low as the tariff's demand charge asks for."""

    strategy: Literal["peak"] = "peak"
    """The name of this control."""
    limit_kw: Positive | None = None
    """Most power drawn, kW; left out: the lowest peak of each month, by the tariff's demand charge."""

    @property
    def by_demand_charge(self) -> bool:
        """Whether it goes by the tariff's demand charge."""
        return self.limit_kw is None


class Reserve(SiteControl):
    """A state of charge held for outages, and nothing else: charged to it, and discharged in outages only."""

    strategy: Literal["reserve"] = "reserve"
    """The name of this control."""

    @model_validator(mode="after")
    def _holds_something(self) -> Reserve:
        if self.reserve_soc == 0.0 and not self.storms:
            raise fault("needs reserve_soc above 0, or storms")
        return self
