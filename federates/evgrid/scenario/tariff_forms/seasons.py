"""A tariff of seasons: whole months, each with periods of local hours, to the minute.

The first period that covers a time gives its price; the last period of a season has no hours and covers the
rest. A window over midnight belongs to the day on which it begins, and to the season of the date.
"""

from __future__ import annotations

import json
from datetime import date
from functools import cache, partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from evgrid.core.model import Array, Clock
from evgrid.core.units import DAY_S
from evgrid.readers.series import Series
from evgrid.scenario.fields import HourSpan, Settings, WeekDays, day_numbers, fault
from evgrid.scenario.tariffs import Steps, Tariff, steps_without_repeats

_DAY_S = int(DAY_S)
_ROUNDING_S = 1e-6


def _whole_minutes(value: tuple[float, float]) -> tuple[float, float]:
    if any(abs(hour * 60.0 - round(hour * 60.0)) > 1e-6 for hour in value):
        raise fault("must be whole minutes, such as ['22:30', 6]")
    return value


Span = Annotated[HourSpan, AfterValidator(_whole_minutes)]


class Period(Settings):
    """Hours with one price."""

    name: str
    """Name that the tariff gives it."""
    hours: Annotated[list[Span], Field(min_length=1)] | None = None
    """Pairs [from, until) of local times, such as [7, 9] or, over midnight, ['23:30', '5:30']; left out:
    every time that no period before it covers."""
    days: WeekDays = ("all",)
    """Days of the week on which its hours begin: all, weekday, weekend, monday to sunday, or a list."""
    price_per_kwh: float
    """Price of energy drawn, currency per kWh."""


class Season(Settings):
    """Months with the same periods."""

    name: str
    """Name that the tariff gives it."""
    months: list[Annotated[int, Field(ge=1, le=12)]]
    """Months of the year, 1 to 12."""
    periods: Annotated[list[Period], Field(min_length=1)]
    """Periods, the first that covers an hour holds."""

    @model_validator(mode="after")
    def _covers_the_day(self) -> Season:
        rest = self.periods[-1]
        if rest.hours is not None or len(day_numbers(rest.days)) < 7:
            raise fault(f"the last period of season {self.name} must hold all days and have no hours")
        return self


class SeasonTariff(Tariff):
    """A time-of-use tariff."""

    seasons: Annotated[list[Season], Field(min_length=1)]
    """Seasons, which cover every month once."""
    holidays: tuple[date, ...] = ()
    """Dates that count as Sundays."""

    @model_validator(mode="after")
    def _covers_the_year(self) -> SeasonTariff:
        months = sorted(month for season in self.seasons for month in season.months)
        if months != list(range(1, 13)):
            raise fault("the seasons must cover each month of the year once")
        return self

    def drawn(self, clock: Clock) -> tuple[Steps, float]:
        """See :meth:`evgrid.scenario.tariffs.Tariff.drawn`."""
        return partial(_of_seasons, self, clock), np.inf


def _of_seasons(tariff: SeasonTariff, clock: Clock, begin_s: float, end_s: float) -> Series:
    """A tariff's price between two times as steps."""
    edges, _ = _table(_as_json(tariff))
    start = clock.start.astype("datetime64[s]")
    into_day_s = float((clock.start - clock.start.astype("datetime64[D]")) / np.timedelta64(1, "s"))
    first, last = (int(np.floor((at + into_day_s) / _DAY_S)) for at in (begin_s, end_s))
    of_days = np.arange(first, last + 1)[:, np.newaxis] * _DAY_S + edges
    midnight = start.astype("datetime64[D]").astype("datetime64[s]")
    stamps = midnight + of_days.ravel().astype("timedelta64[s]")
    edges_s = np.append(of_days.ravel(), (last + 1) * _DAY_S) - into_day_s
    return steps_without_repeats(edges_s, _season_prices(tariff, stamps))


@cache
def _table(seasons_json: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Prices by kind of day, of seasons as JSON: the times of day at which they may change, (edge,) s from
    midnight on, and the price from each on, (month, day of the week, that of the day before, edge).
    """
    seasons = [Season.model_validate(season) for season in json.loads(seasons_json)]
    spans = [span for season in seasons for period in season.periods for span in _spans(period)]
    edges = np.unique([0, *(edge % _DAY_S for span in spans for edge in span)])
    table = np.empty((12, 7, 7, len(edges)))
    every = np.arange(7)
    for season in seasons:
        months = np.array(season.months) - 1
        for period in reversed(season.periods):
            days = np.array(sorted(day_numbers(period.days)))
            for first, last in _spans(period):
                over = last <= first
                evening = (edges >= first) & (edges < (_DAY_S if over else last))
                table[np.ix_(months, days, every, np.flatnonzero(evening))] = period.price_per_kwh
                if over:
                    morning = np.flatnonzero(edges < last)
                    table[np.ix_(months, every, days, morning)] = period.price_per_kwh
    return edges, table


def _as_json(tariff: SeasonTariff) -> str:
    return json.dumps([season.model_dump(mode="json") for season in tariff.seasons])


def _spans(period: Period) -> list[tuple[int, int]]:
    """The hours of a period, s from midnight on; those over midnight end before they begin."""
    hours = period.hours or [(0.0, 24.0)]
    return [(round(first * 60) * 60 % _DAY_S, round(last * 60) * 60) for first, last in hours]


def _season_prices(tariff: SeasonTariff, stamps: NDArray[np.datetime64]) -> Array:
    """Price of energy drawn at local times, (n,) for (n,) datetime64."""
    edges, table = _table(_as_json(tariff))
    days = stamps.astype("datetime64[D]")
    place = edges.searchsorted((stamps - days) / np.timedelta64(1, "s") + _ROUNDING_S, "right") - 1
    holidays = np.array(tariff.holidays, "datetime64[D]")
    today, before = (
        # 1970-01-01 was a Thursday, weekday 3
        np.where(np.isin(at, holidays), 6, (at.astype(int) + 3) % 7)
        for at in (days, days - np.timedelta64(1, "D"))
    )
    return np.asarray(table[stamps.astype("datetime64[M]").astype(int) % 12, today, before, place])
