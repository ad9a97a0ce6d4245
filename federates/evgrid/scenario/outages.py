"""The section ``outages`` of a scenario: when parts of the feeder are without supply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from evgrid.scenario.fields import Duration, ElementName, LocalTime, Settings, fault, seconds_of

_LOCAL_TIME: TypeAdapter[datetime] = TypeAdapter(LocalTime)


def _moment(value: Any) -> Any:
    """Seconds from the run's start, or a local time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return seconds_of(value)
        except ValueError:
            pass
    try:
        return _LOCAL_TIME.validate_python(value)
    except ValidationError:
        raise fault(
            "must be a local time such as 2026-01-15T18:00, or the time from the run's start, such as 6h"
        ) from None


MOST_A_YEAR = 1e6
"""Most outages of an element, or of a km of line, a year."""

Spell = Annotated[Duration, Field(gt=0, le=10 * 366 * 86400)]
"""Duration of an outage, s: up to ten years."""

Moment = Annotated[datetime | float, BeforeValidator(_moment, json_schema_input_type=str | float)]
"""A local time, or the time from the run's start."""


class Meters(Settings):
    """Connection points that are cut off at the meter, while their buses keep their supply."""

    connections: Annotated[tuple[ElementName, ...], Field(min_length=1)]
    """Names of the connection points (loads of the network)."""


def _element(value: str) -> str:
    if value == "feeder" or re.fullmatch(r"(line|trafo) +\S.*", value):
        return value
    raise fault("must be feeder, line NAME, trafo NAME or {connections: [NAME, ...]}")


def _name_or_meters(value: Any) -> str:
    return "<meters>" if isinstance(value, Meters | Mapping) else "<element>"


class ScheduledOutage(Settings):
    """An outage of one element of the feeder; whatever no other path feeds is without supply."""

    start: Moment
    """Local time at which it begins, such as 2026-01-15T18:00, or the time from the run's start, such as 6h;
    within the run, also inside a tick."""
    duration: Spell
    """How long it lasts, at most ten years."""
    out: Annotated[
        Annotated[str, AfterValidator(_element), Tag("<element>")] | Annotated[Meters, Tag("<meters>")],
        Discriminator(_name_or_meters),
    ]
    """The element out of service: feeder (all its sources), line NAME, trafo NAME, or
    {connections: [NAME, ...]}."""


class Rates(Settings):
    """Outages of elements, a year."""

    line: Annotated[float, Field(ge=0, le=MOST_A_YEAR)] = 0.0
    """Outages of lines per km and year."""
    trafo: Annotated[float, Field(ge=0, le=MOST_A_YEAR)] = 0.0
    """Outages of each transformer per year; one of three windings counts as three of two."""


class Repair(Settings):
    """Mean times to repair."""

    line: Spell = 4 * 3600.0
    """Mean duration of an outage of a line, exponentially distributed."""
    trafo: Spell = 24 * 3600.0
    """Mean duration of an outage of a transformer, exponentially distributed."""


class Restoration(Settings):
    """How EVSEs without local functions enter service when supply returns; the others by enter_service."""

    delay: Annotated[Duration, Field(ge=0)] = 0.0
    """Time from the return of supply until an EVSE enters service."""
    random: Annotated[Duration, Field(ge=0)] = 0.0
    """Longest time beyond delay, drawn for each EV, uniform from 0."""
    ramp: Annotated[Duration, Field(ge=0)] = 0.0
    """Time over which its greatest power rises to that of EVSE and vehicle, in ten equal steps."""


class ColdLoad(Settings):
    """Cold-load pick-up: the base load after an outage, which has lost its diversity."""

    factor: Annotated[float, Field(ge=1)]
    """Base load after an outage as a multiple of what it would be."""
    duration: Annotated[Duration, Field(gt=0)] = 1800.0
    """Longest time for which the factor holds: as long as the outage was, but no longer than this."""


class OutageSettings(Settings):
    """Outages of the feeder: scheduled, drawn for each member, or both. A list is a schedule."""

    schedule: tuple[ScheduledOutage, ...] = ()
    """Scheduled outages, the same in every member."""
    saifi: Annotated[float, Field(gt=0, le=MOST_A_YEAR)] | None = None
    """Drawn outages: interruptions a customer and year, in the mean (IEEE 1366), with a constant rate."""
    caidi: Spell | None = None
    """Mean duration of those, exponentially distributed."""
    extent: Literal["feeder", "connections"] = "feeder"
    """What an interruption of saifi strikes. feeder: all customers at once; connections: each connection
    point by itself."""
    rates: Rates | None = None
    """Drawn outages of lines and transformers, a year."""
    repair: Repair = Repair()
    """Mean times to repair of rates."""
    restoration: Restoration = Restoration()
    """How EVSEs without local functions enter service when supply returns."""
    cold_load: ColdLoad | None = None
    """The base load after an outage; left out: as without one."""

    @model_validator(mode="after")
    def _says_some(self) -> OutageSettings:
        if (self.saifi is None) != (self.caidi is None):
            raise fault("give both saifi and caidi, or neither")
        if self.saifi is None and self.extent != "feeder":
            raise fault(f"extent = {self.extent}: is for outages drawn by saifi and caidi")
        if self.rates is None and self.repair != Repair():
            raise fault("repair: is for outages drawn by rates")
        if self.rates is not None and not (self.rates.line or self.rates.trafo):
            raise fault("rates: line or trafo must be above 0")
        if not self.schedule and self.saifi is None and self.rates is None:
            raise fault("give a schedule, saifi and caidi, or rates")
        return self


def outages_from(value: Any) -> Any:
    """Content of the section: a list is its schedule."""
    return value if value is None or isinstance(value, Mapping | Settings) else {"schedule": value}
