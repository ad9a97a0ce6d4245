"""Electricity tariffs: what a kWh costs at each hour of the year.

A tariff is a small YAML file: seasons of whole months, each with periods of whole hours. The
first period that covers an hour gives its price; the last period of a season has no hours and
covers the rest. Hours are local wall-clock hours [from, to).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from evgrid.settings import Settings, fault, read_yaml


def _span(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] >= value[1]:
        raise fault(f"must be [from, to) with from < to, not {list(value)}; split hours at midnight")
    return value


Hour = Annotated[int, Field(ge=0, le=24)]
Span = Annotated[tuple[Hour, Hour], AfterValidator(_span)]


class Period(Settings):
    """Hours with one price."""

    name: str
    """What the tariff calls it."""
    hours: list[Span] | None = None
    """Pairs [from, to) of local hours; left out: every hour that no period before it covers."""
    days: Literal["all", "weekday", "weekend"] = "all"
    """Days of the week on which it holds."""
    price_per_kwh: float
    """Price of energy drawn, currency per kWh."""


class Season(Settings):
    """Months with the same periods."""

    name: str
    """What the tariff calls it."""
    months: list[Annotated[int, Field(ge=1, le=12)]]
    """Months of the year, 1 to 12."""
    periods: Annotated[list[Period], Field(min_length=1)]
    """Periods, the first that covers an hour holds."""

    @model_validator(mode="after")
    def _covers_the_day(self) -> Season:
        rest = self.periods[-1]
        if rest.hours is not None or rest.days != "all":
            raise fault(f"the last period of season {self.name} must hold all days and have no hours")
        return self


class Tariff(Settings):
    """A time-of-use tariff."""

    name: str
    """What the utility calls it."""
    currency: str = "USD"
    """Currency of every price."""
    valid_from: date | None = None
    """First day on which these prices held."""
    source: str = ""
    """Where the prices were read."""
    fixed_per_day: Annotated[float, Field(ge=0)] = 0.0
    """Base charge per customer and day; no part of any session's cost."""
    export_per_kwh: float | None = None
    """Credit for energy given back, currency per kWh; left out: the price of energy drawn in the
    same hour, as for a vehicle that offsets the load of its own site or is net-metered."""
    seasons: Annotated[list[Season], Field(min_length=1)]
    """Seasons, which cover every month once."""

    @model_validator(mode="after")
    def _covers_the_year(self) -> Tariff:
        months = sorted(month for season in self.seasons for month in season.months)
        if months != list(range(1, 13)):
            raise fault("the seasons must cover each month of the year once")
        return self


def shipped_tariffs() -> tuple[str, ...]:
    """Names of the tariffs that evgrid ships."""
    folder = resources.files("evgrid") / "data" / "tariffs"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir()))


def read_tariff(name: str, folder: str | Path | None = None) -> Mapping[str, Any]:
    """The content of a shipped tariff, by name, or of a tariff file; unchecked.

    Raises a fault (for pydantic) if there is no such tariff or file.
    """
    if name in shipped_tariffs():
        with resources.as_file(resources.files("evgrid") / "data" / "tariffs" / f"{name}.yaml") as path:
            return read_yaml(path)
    path = Path(folder or ".") / Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        raise fault(f"must be one of {', '.join(shipped_tariffs())}, or the path of a tariff file (.yaml)")
    if not path.is_file():
        raise fault(f"there is no file {path}")
    try:
        return read_yaml(path)
    except ValueError as error:
        raise fault(str(error)) from None


_DAYS = {"all": [0, 1, 2, 3, 4, 5, 6], "weekday": [0, 1, 2, 3, 4], "weekend": [5, 6]}


@cache
def _hourly(tariff_json: str) -> NDArray[np.float64]:
    """Price of every hour of every kind of day: (month, weekday 0-6, hour)."""
    tariff = Tariff.model_validate_json(tariff_json)
    table = np.empty((12, 7, 24))
    for season in tariff.seasons:
        months = [month - 1 for month in season.months]
        for period in reversed(season.periods):
            days = _DAYS[period.days]
            for first, last in period.hours if period.hours is not None else [(0, 24)]:
                table[np.ix_(months, days, list(range(first, last)))] = period.price_per_kwh
    return table


def prices(
    tariff: Tariff, timestamps: NDArray[np.datetime64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Price of energy drawn and credit for energy given back at local times.

    ``timestamps``: (n,) datetime64. Returns two (n,) arrays in currency per kWh.
    """
    table = _hourly(tariff.model_dump_json())
    months = timestamps.astype("datetime64[M]").astype(int) % 12
    days = timestamps.astype("datetime64[D]").astype(int)
    hours = timestamps.astype("datetime64[h]").astype(int) - days * 24
    drawn = table[months, (days + 3) % 7, hours]  # 1970-01-01 was a Thursday, weekday 3
    given = drawn if tariff.export_per_kwh is None else np.full(len(drawn), tariff.export_per_kwh)
    return drawn, given
