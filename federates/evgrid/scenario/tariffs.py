"""Electricity tariffs: what a kWh costs at each time.

A tariff is a small YAML file: seasons of whole months, each with periods of local hours, to the minute.
The first period that covers a time gives its price; the last period of a season has no hours and covers
the rest. A window over midnight belongs to the day on which it begins, and to the season of the date.
Or a tariff is a series of prices from a file (``prices``), and of credits (``export_prices``).

:class:`Prices` is the one law of what energy costs in a run: of a tariff, or, where there is none, of the
scenario's ``system.energy_price``. Costs, strategies, the oracle and studies all go by it. The price of a
span (a tick, a slot of a plan) is its mean over the span. Beyond the end of a file its last price holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError, model_validator

from evgrid.core.model import Array, Clock
from evgrid.readers.series import PRICE, Series, read_series
from evgrid.readers.yaml_files import read_yaml
from evgrid.scenario.fields import (
    Duration,
    HourSpan,
    Settings,
    WeekDays,
    day_numbers,
    fault,
    faults,
    faults_of,
)
from evgrid.scenario.system import SeriesFile, System

_DAY_S = 86400
_ROUNDING_S = 1e-6
_ALL_MONTHS = tuple(range(1, 13))
USUAL_INTERVAL_S = 900.0
"""Interval of the meter where no tariff says another, s."""


def _whole_minutes(value: tuple[float, float]) -> tuple[float, float]:
    if any(abs(hour * 60.0 - round(hour * 60.0)) > 1e-6 for hour in value):
        raise fault("must be whole minutes, such as ['22:30', 6]")
    return value


Span = Annotated[HourSpan, AfterValidator(_whole_minutes)]


class Period(Settings):
    """Hours with one price."""

    name: str
    """What the tariff calls it."""
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
    """What the tariff calls it."""
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


class PriceFile(SeriesFile):
    """Prices over time from a file, of either sign."""

    per: Literal["kWh", "MWh"]
    """What the prices are for."""


class PowerPrice(Settings):
    """What a kW costs in some months."""

    months: Annotated[tuple[Annotated[int, Field(ge=1, le=12)], ...], Field(min_length=1)] = _ALL_MONTHS
    """Months of the year, 1 to 12; left out: all."""
    price_per_kw: Annotated[float, Field(ge=0)]
    """Currency per kW of the month's highest power; a month that a run has part of counts whole."""


class DemandCharge(Settings):
    """What the highest power of each calendar month costs, the mean of an interval of the meter."""

    prices: Annotated[tuple[PowerPrice, ...], Field(min_length=1)]
    """Prices by month; those that share a month add up."""
    interval: Annotated[Duration, Field(gt=0)] = 900.0
    """Interval of the meter, from midnight on; divides a day."""
    of: Literal["evs", "transformer", "feeder"] = "evs"
    """Whose power: all EVs of the fleet (of the aggregator, where there are several) together; everything
    below each transformer next upstream of connection points, EVs and load, each with a peak of its own;
    or the whole feeder. The latter two are metered with losses, and the charge is the whole site's."""

    @model_validator(mode="after")
    def _divides_a_day(self) -> DemandCharge:
        if abs(_DAY_S / self.interval - round(_DAY_S / self.interval)) > 1e-9:
            raise fault(f"interval = {self.interval:g}s: must divide a day")
        return self

    def price(self, month: int) -> float:
        """Currency per kW in a month of the year, 1 to 12."""
        return sum(price.price_per_kw for price in self.prices if month in price.months)


class Tariff(Settings):
    """A time-of-use tariff, or a series of prices."""

    name: str
    """What the utility calls it."""
    currency: str = "USD"
    """Currency of every price."""
    valid_from: date | None = None
    """First day on which these prices held."""
    source: str = ""
    """Where the prices were read."""
    fixed_per_day: Annotated[float, Field(ge=0)] = 0.0
    """Base charge per customer and day, in the settlement and no part of any session's cost. Customers are
    the connection points with EVs; where there is a demand charge of transformers or of the feeder, these."""
    demand: DemandCharge | None = None
    """Charge for the highest power of each month; left out: none."""
    export_per_kwh: float | None = None
    """Credit for energy given back, currency per kWh; left out: the price of energy drawn in the
    same hour, as for a vehicle that offsets the load of its own site or is net-metered."""
    holidays: tuple[date, ...] = ()
    """Dates that count as Sundays."""
    seasons: Annotated[list[Season], Field(min_length=1)] | None = None
    """Seasons, which cover every month once."""
    prices: PriceFile | None = None
    """Prices over time instead of seasons, such as {file: day_ahead.csv, per: MWh}."""
    export_prices: PriceFile | None = None
    """Credit for energy given back over time, instead of export_per_kwh."""

    def note(self, start: np.datetime64) -> str:
        """What a run that begins before the prices held should say; "" for another."""
        if self.valid_from is None or start.astype("datetime64[D]") >= np.datetime64(self.valid_from):
            return ""
        began = start.astype("datetime64[D]")
        return f"tariff {self.name}: its prices hold from {self.valid_from} on; the run begins on {began}"

    @model_validator(mode="after")
    def _covers_the_year(self) -> Tariff:
        if (self.seasons is None) == (self.prices is None):
            raise fault("give either seasons or prices")
        if self.export_per_kwh is not None and self.export_prices is not None:
            raise fault("give either export_per_kwh or export_prices")
        if self.seasons is None:
            if self.holidays:
                raise fault("holidays have no meaning with prices")
            return self
        months = sorted(month for season in self.seasons for month in season.months)
        if months != list(range(1, 13)):
            raise fault("the seasons must cover each month of the year once")
        return self


def shipped_tariffs() -> tuple[str, ...]:
    """Names of the tariffs that evgrid ships."""
    folder = resources.files("evgrid") / "data" / "tariffs"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir()))


def tariff_of(name: str, folder: str | Path | None = None) -> Tariff:
    """A shipped tariff, by name, or that of a file; paths in it start at the file's own folder.

    Raises a fault (for pydantic) if there is no such tariff or file, or with every fault of it.
    """
    content = read_tariff(name, folder)
    beside = (Path(folder or ".") / Path(name).expanduser()).resolve().parent
    try:
        return Tariff.model_validate(content, context={"folder": str(beside)})
    except ValidationError as error:
        raise faults(faults_of(error, Tariff, "tariff")) from None


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


@dataclass(frozen=True)
class Prices:
    """What energy costs in a run.

    drawn, given : functions that give price and credit between two times, s from the run's start, as steps,
        currency per kWh
    ends_s : time up to which they are known; infinite but for those of files, see ``Series.until``
    """

    drawn: Callable[[float, float], Series]
    given: Callable[[float, float], Series]
    ends_s: float = np.inf

    def means(self, edges_s: Array) -> tuple[Array, Array]:
        """Mean price of energy drawn and credit for energy given back between each two of ascending times,
        s from the run's start: (n,) each for (n + 1,) times.
        """
        begin, end = float(edges_s[0]), float(edges_s[-1])
        return self.drawn(begin, end).means(edges_s), self.given(begin, end).means(edges_s)

    def in_ticks(self, clock: Clock) -> Prices:
        """The prices by which a run counts: of each tick the mean."""
        edges_s = clock.step_s * np.arange(clock.ticks + 1, dtype=np.float64)
        drawn, given = (_steps(edges_s, values) for values in self.means(edges_s))
        return Prices(lambda begin_s, end_s: drawn, lambda begin_s, end_s: given)

    def edges(self, begin_s: float, end_s: float) -> Array:
        """Times between two times at which price or credit change, s from the run's start, ascending."""
        both = (of(begin_s, end_s).edges_s for of in (self.drawn, self.given))
        edges = np.unique(np.concatenate(list(both)))
        return edges[(edges > begin_s) & (edges < end_s)]


def prices_of(tariff: Tariff | None, system: System | None, clock: Clock) -> Prices | None:
    """What energy costs in a run: by the tariff, else by ``system.energy_price``; None where neither is.

    Raises ScenarioError for a file that is at fault.
    """
    if tariff is None:
        if system is None or system.energy_price is None:
            return None
        wholesale = _of_file(system.energy_price, 1000.0, clock)
        return Prices(wholesale, wholesale, _end_s(system.energy_price, wholesale))
    if tariff.prices is not None:
        drawn = _of_file(tariff.prices, _KWH[tariff.prices.per], clock)
    else:
        drawn = partial(_of_seasons, tariff, clock)
    given = drawn
    if tariff.export_prices is not None:
        given = _of_file(tariff.export_prices, _KWH[tariff.export_prices.per], clock)
    elif tariff.export_per_kwh is not None:
        constant = Series(np.array([0.0, 1.0]), np.array([tariff.export_per_kwh]))
        given = lambda begin_s, end_s: constant  # noqa: E731
    files = ((tariff.prices, drawn), (tariff.export_prices, given))
    return Prices(drawn, given, min(_end_s(file, steps) for file, steps in files))


_KWH = {"kWh": 1.0, "MWh": 1000.0}


def _of_file(file: SeriesFile, kwh: float, clock: Clock) -> Callable[[float, float], Series]:
    read = read_series(file.file, clock, PRICE, file.column, file.time_format)
    steps = _steps(read.edges_s, read.values / kwh)
    return lambda begin_s, end_s: steps.until(end_s)


def _end_s(file: SeriesFile | None, steps: Callable[[float, float], Series]) -> float:
    """Time at which the prices of a file end; infinite where there is none."""
    return np.inf if file is None else float(steps(0.0, 0.0).edges_s[-1])


def _of_seasons(tariff: Tariff, clock: Clock, begin_s: float, end_s: float) -> Series:
    """A tariff's price between two times as steps."""
    edges, _ = _table(_as_json(tariff))
    start = clock.start.astype("datetime64[s]")
    into_day_s = float((clock.start - clock.start.astype("datetime64[D]")) / np.timedelta64(1, "s"))
    first, last = (int(np.floor((at + into_day_s) / _DAY_S)) for at in (begin_s, end_s))
    of_days = np.arange(first, last + 1)[:, np.newaxis] * _DAY_S + edges
    midnight = start.astype("datetime64[D]").astype("datetime64[s]")
    stamps = midnight + of_days.ravel().astype("timedelta64[s]")
    edges_s = np.append(of_days.ravel(), (last + 1) * _DAY_S) - into_day_s
    return _steps(edges_s, _season_prices(tariff, stamps))


def _steps(edges_s: Array, values: Array) -> Series:
    """Steps without those at which nothing changes."""
    kept = np.concatenate([[True], values[1:] != values[:-1]])
    return Series(np.append(edges_s[:-1][kept], edges_s[-1]), values[kept])


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


def _as_json(tariff: Tariff) -> str:
    return json.dumps([season.model_dump(mode="json") for season in tariff.seasons or ()])


def _spans(period: Period) -> list[tuple[int, int]]:
    """The hours of a period, s from midnight on; those over midnight end before they begin."""
    hours = period.hours or [(0.0, 24.0)]
    return [(round(first * 60) * 60 % _DAY_S, round(last * 60) * 60) for first, last in hours]


def _season_prices(tariff: Tariff, stamps: NDArray[np.datetime64]) -> Array:
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


def months_of(clock: Clock) -> NDArray[np.datetime64]:
    """The calendar months that a run has part of, (month,) datetime64[M]."""
    last = clock.timestamps(np.array([max(clock.duration_s - _ROUNDING_S, 0.0)]))[0]
    return np.arange(clock.start.astype("datetime64[M]"), last.astype("datetime64[M]") + 1)


class MonthlyPeaks:
    """Highest mean power over the intervals of a meter in each calendar month, streamed.

    Power is steady within a tick, however long it is. An interval belongs to the month in which it begins; of
    one that the run has part of, the mean is over that part. NaN is no power: it is left out.

    peak : (*shape, month) kW; NaN for a month without any
    """

    def __init__(self, clock: Clock, interval_s: float, shape: tuple[int, ...]) -> None:
        self._clock, self._interval_s = clock, interval_s
        self._months = months_of(clock)
        midnight = clock.start.astype("datetime64[D]")
        self._into_day_s = float((clock.start - midnight) / np.timedelta64(1, "s"))
        self.peak = np.full((*shape, len(self._months)), np.nan)
        self._energy_kws, self._begin_s, self._now_s = np.zeros(shape), 0.0, 0.0

    def add(self, step_s: float, power_kw: Array) -> None:
        """The power of the next ticks, each of ``step_s``; (tick, *shape) kW."""
        ticks = len(power_kw)
        edges_s = self._now_s + step_s * np.arange(ticks + 1)
        energy = np.zeros((ticks + 1, *power_kw.shape[1:]))
        np.cumsum(power_kw * step_s, axis=0, out=energy[1:])
        first, last = ((at + self._into_day_s) / self._interval_s for at in (self._now_s, edges_s[-1]))
        numbers = np.arange(np.floor(first + _ROUNDING_S) + 1, np.floor(last + _ROUNDING_S) + 1)
        ends_s = numbers * self._interval_s - self._into_day_s
        tick = np.clip(((ends_s - self._now_s) / step_s + _ROUNDING_S).astype(np.int64), 0, ticks - 1)
        into_s = (ends_s - edges_s[tick]).reshape(-1, *(1,) * (power_kw.ndim - 1))
        until = np.concatenate([energy[:1] - self._energy_kws, energy[tick] + power_kw[tick] * into_s])
        begins_s = np.concatenate([[self._begin_s], ends_s])
        self._take(begins_s, np.diff(until, axis=0))
        self._begin_s, self._now_s = float(begins_s[-1]), float(edges_s[-1])
        self._energy_kws = energy[-1] - until[-1]

    def finish(self) -> Array:
        """The peaks, with the interval that the run has ended in."""
        if self._now_s > self._begin_s + _ROUNDING_S:
            self._take(np.array([self._begin_s, self._now_s]), self._energy_kws[np.newaxis])
            self._begin_s = self._now_s
        return self.peak

    def _take(self, edges_s: Array, energy_kws: Array) -> None:
        """Whole intervals between edges, with their energy, (interval, *shape)."""
        lengths_s = np.diff(edges_s).reshape(-1, *(1,) * (energy_kws.ndim - 1))
        months = self._clock.timestamps(edges_s[:-1] + _ROUNDING_S).astype("datetime64[M]")
        for place, month in enumerate(self._months):
            inside = months == month
            if inside.any():
                highest = np.fmax.reduce(energy_kws[inside] / lengths_s[inside], axis=0)
                self.peak[..., place] = np.fmax(self.peak[..., place], highest)
