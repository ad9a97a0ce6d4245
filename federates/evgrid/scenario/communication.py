"""The section ``communication`` of a scenario: the link between aggregator and chargers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from evgrid.scenario.fields import Duration, HourOfDay, Settings, Share, WeekDays, fault


class ScheduledPower(Settings):
    """A daily window of an EVSE's own schedule."""

    begin: Annotated[HourOfDay, Field(alias="from")]
    """Local time at which the window begins."""
    until: HourOfDay
    """Local time at which the window ends; before from: on the next day."""
    power_kw: float | None = None
    """Set-point, kW at the grid; negative discharges."""
    share: Share | None = None
    """Set-point as a share of the EV's greatest power, the lesser of EVSE and vehicle, in place of
    power_kw."""
    days: WeekDays = ("all",)
    """Days of the week on which it begins: all, weekday, weekend, monday to sunday, or a list of these."""

    @model_validator(mode="after")
    def _says_one_power(self) -> ScheduledPower:
        if (self.power_kw is None) == (self.share is None):
            raise fault("give either power_kw or share")
        if self.begin % 24.0 == self.until % 24.0 and (self.begin, self.until) != (0.0, 24.0):
            raise fault("from and until are the same; the whole day is from 00:00 until 24:00")
        return self


class Communication(Settings):
    """The link between aggregator and chargers."""

    delay: Annotated[Duration, Field(ge=0)] = 0.0
    """Delay of a set-point."""
    telemetry: Annotated[Duration, Field(gt=0)] = 60.0
    """Period at which chargers report, at least a tick."""
    loss: Share = 0.0
    """Share of an EV's set-points that are lost, drawn from the scenario's seed."""
    latency: Annotated[Duration, Field(ge=0)] = 0.0
    """Longest additional delay of set-points to an EVSE; each has its own, drawn uniformly from 0 to this,
    and a set-point acts from the next tick on."""
    outages_per_day: Annotated[float, Field(ge=0)] = 0.0
    """Mean number of outages of an EVSE's link a day."""
    outage_duration: Annotated[Duration, Field(gt=0)] = 600.0
    """Mean duration of an outage (exponentially distributed)."""
    timeout: Annotated[Duration, Field(gt=0)] | None = None
    """Age at which an EVSE's last set-point is stale; left out: never."""
    fallback: Literal["uncontrolled", "last", "stop", "schedule"] = "uncontrolled"
    """Behaviour of an EVSE with a stale set-point: charge as fast as it can, keep it, wait, or follow its
    schedule. Its departure guard acts in any case."""
    schedule: list[ScheduledPower] | None = None
    """The EVSE's own schedule for fallback = schedule, such as [{from: 22:00, until: 06:00, power_kw: 3.7}];
    the first window in which a tick begins applies; outside of all it waits."""

    @model_validator(mode="after")
    def _can_fall_back(self) -> Communication:
        if self.fallback != "schedule":
            if self.schedule is not None:
                raise fault(f"schedule has no meaning with fallback = {self.fallback}; must be schedule")
            return self
        if not self.schedule:
            raise fault("fallback = schedule: give schedule, a list of windows such as "
                        "{from: 22:00, until: 06:00, power_kw: 3.7}")  # fmt: skip
        if self.timeout is None:
            raise fault("fallback = schedule: give timeout, the age at which a set-point is stale")
        return self

    @property
    def per_evse(self) -> bool:
        """Whether each EVSE has a link of its own; it then draws the losses, too."""
        return self.latency > 0 or self.outages_per_day > 0 or self.timeout is not None
