"""Windows of local time: hours of some days of the week, and holidays.

A window over midnight belongs to the day on which it begins. A holiday counts as a Sunday.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from importlib.util import find_spec
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from evgrid.core.units import DAY_S
from evgrid.scenario.fields import HourSpan, Settings, WeekDays, day_numbers, fault

_DAY_S = int(DAY_S)
_ROUNDING_S = 1e-6
_SUNDAY = 6


def _whole_minutes(value: tuple[float, float]) -> tuple[float, float]:
    if any(abs(hour * 60.0 - round(hour * 60.0)) > 1e-6 for hour in value):
        raise fault("must be whole minutes, such as ['22:30', 6]")
    return value


Span = Annotated[HourSpan, AfterValidator(_whole_minutes)]
"""Local times [from, until), to the minute."""


def spans_s(hours: Sequence[tuple[float, float]] | None) -> list[tuple[int, int]]:
    """Hours as (from, until), s from midnight on; those over midnight end before they begin. None: a day."""
    return [
        (round(first * 60) * 60 % _DAY_S, round(last * 60) * 60) for first, last in hours or [(0.0, 24.0)]
    ]


class Window(Settings):
    """Hours of some days of the week."""

    hours: Annotated[tuple[Span, ...], Field(min_length=1)] | None = None
    """Pairs [from, until) of local times, such as [7, 9] or, over midnight, ['23:30', '5:30']; left out: the
    whole day."""
    days: WeekDays = ("all",)
    """Days of the week on which its hours begin: all, weekday, weekend, monday to sunday, or a list."""

    def covers(self, seconds: NDArray[Any], today: NDArray[Any], before: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether times are inside, (n,).

        seconds : from midnight; today, before : the day of the week of each time, and of the day before
        """
        days = sorted(day_numbers(self.days))
        inside = np.zeros(len(seconds), np.bool_)
        for first, last in spans_s(self.hours):
            over = last <= first
            evening = (seconds >= first) & (seconds < (_DAY_S if over else last))
            inside |= evening & np.isin(today, days)
            if over:
                inside |= (seconds < last) & np.isin(before, days)
        return inside


class PublicHolidays(Settings):
    """The public holidays of a country, of the package holidays (the extra evgrid[holidays])."""

    country: Annotated[str, Field(min_length=2)]
    """Code of the country by ISO 3166, such as US or DE."""
    subdivision: str | None = None
    """Code of the state or province by ISO 3166-2, such as CA or BY; left out: nationwide holidays only."""

    @model_validator(mode="after")
    def _known(self) -> PublicHolidays:
        if find_spec("holidays") is None:
            raise fault("needs the package holidays: pip install 'evgrid[holidays]', or give dates")
        try:
            _public(self.country, self.subdivision, 2026)
        except NotImplementedError as error:
            raise fault(" ".join(str(error).split())) from None
        return self


def _kind(value: Any) -> str:
    return "<public>" if isinstance(value, Mapping | PublicHolidays) else "<dates>"


Holidays = Annotated[
    Annotated[PublicHolidays, Tag("<public>")] | Annotated[tuple[date, ...], Tag("<dates>")],
    Discriminator(_kind),
]
"""Dates, or {country: US, subdivision: CA}."""


@cache
def _public(country: str, subdivision: str | None, year: int) -> tuple[date, ...]:
    from holidays import country_holidays

    return tuple(sorted(country_holidays(country, subdiv=subdivision, years=[year])))


def days_of_week(days: NDArray[Any], holidays: PublicHolidays | tuple[date, ...]) -> NDArray[np.int64]:
    """Day of the week, Monday 0, of dates (datetime64[D]); 6 for holidays."""
    if isinstance(holidays, PublicHolidays):
        years = np.unique(days.astype("datetime64[Y]")).astype(int) + 1970
        holidays = tuple(
            day for year in years for day in _public(holidays.country, holidays.subdivision, int(year))
        )
    # 1970-01-01 was a Thursday, weekday 3
    found = np.where(np.isin(days, np.array(holidays, "datetime64[D]")), _SUNDAY, (days.astype(int) + 3) % 7)
    return np.asarray(found, np.int64)


def clock_of(
    stamps: NDArray[np.datetime64], holidays: PublicHolidays | tuple[date, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Of local times: seconds from midnight, day of the week, and that of the day before, (n,) each."""
    days = stamps.astype("datetime64[D]")
    seconds = (stamps - days) / np.timedelta64(1, "s") + _ROUNDING_S
    before = days - np.timedelta64(1, "D")
    return seconds, days_of_week(days, holidays), days_of_week(before, holidays)
