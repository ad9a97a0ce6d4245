"""A tariff of seasons: whole months, each with periods of local hours, to the minute.

The first period that covers a time gives its price; the last period of a season has no hours and covers the
rest. A window over midnight belongs to the day on which it begins, and to the season of the date.

A period may have blocks (tiers): prices of what a customer draws in a calendar month above some energy. Costs
of sessions go by the price of the first block; the settlement adds the rest.
"""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from evgrid.core.model import Array, Clock
from evgrid.core.units import DAY_S
from evgrid.readers.series import Series
from evgrid.scenario.day_windows import Window, clock_of, spans_s
from evgrid.scenario.fields import Settings, day_numbers, fault
from evgrid.scenario.tariffs import Steps, Tariff, steps_without_repeats

_DAY_S = int(DAY_S)


class Block(Settings):
    """Energy above a limit."""

    above_kwh: Annotated[float, Field(gt=0)]
    """Energy of a calendar month above which the price holds, kWh."""
    price_per_kwh: float
    """Price of energy drawn above it, up to the next block, currency per kWh."""


class Period(Window):
    """Hours with one price."""

    name: str
    """Name that the tariff gives it."""
    price_per_kwh: float
    """Price of energy drawn, currency per kWh; with blocks: of that below the first of them."""
    export_per_kwh: float | None = None
    """Credit for energy given back in these hours, currency per kWh, in all periods or in none."""
    blocks: tuple[Block, ...] = ()
    """Prices of what a customer draws in a calendar month above some energy; they rise by above_kwh."""

    @model_validator(mode="after")
    def _blocks_rise(self) -> Period:
        above = [block.above_kwh for block in self.blocks]
        if above != sorted(set(above)):
            raise fault(f"the blocks of {self.name} must rise by above_kwh")
        return self


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


class BlockRule(Settings):
    """The consumption that fills the blocks of a tariff."""

    by: Literal["month", "period"]
    """month: all that a customer draws in a calendar month fills the blocks, which must have the same limits
    in all periods of a season; each period has its share of each block by its energy. period: each has blocks
    of its own."""
    other_kwh: Annotated[float, Field(ge=0)] = 0.0
    """Energy that each customer draws in a calendar month besides the EVs of the run; it fills the lower
    blocks (by month only)."""

    @model_validator(mode="after")
    def _of_the_month(self) -> BlockRule:
        if self.by == "period" and self.other_kwh:
            raise fault("other_kwh is for blocks by month: nothing says in which periods it is drawn")
        return self


class SeasonTariff(Tariff):
    """A time-of-use tariff."""

    has_windows: ClassVar[bool] = True

    seasons: Annotated[list[Season], Field(min_length=1)]
    """Seasons, which cover every month once."""
    blocks: BlockRule | None = None
    """The consumption that fills the blocks of periods; required where a period has blocks."""

    @model_validator(mode="after")
    def _covers_the_year(self) -> SeasonTariff:
        months = sorted(month for season in self.seasons for month in season.months)
        if months != list(range(1, 13)):
            raise fault("the seasons must cover each month of the year once")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> SeasonTariff:
        credits = [period.export_per_kwh is not None for period in self.periods]
        if any(credits) and (not all(credits) or self.export_per_kwh is not None):
            raise fault("export_per_kwh must be in all periods, in none, or of the whole tariff only")
        if any(credits) and self.export_prices is not None:
            raise fault("give either export_per_kwh or export_prices")
        if self.has_blocks != (self.blocks is not None):
            raise fault("blocks: give {by: month} or {by: period} where periods have blocks, and only there")
        if self.blocks is not None and self.blocks.by == "month":
            for season in self.seasons:
                if len({tuple(b.above_kwh for b in period.blocks) for period in season.periods}) > 1:
                    raise fault(
                        f"blocks.by = month: the periods of season {season.name} must have blocks above the "
                        "same energies"
                    )
        return self

    @property
    def periods(self) -> list[Period]:
        """The periods of all seasons, one after another."""
        return [period for season in self.seasons for period in season.periods]

    @property
    def has_blocks(self) -> bool:
        """Whether a period has blocks."""
        return any(period.blocks for period in self.periods)

    def drawn(self, clock: Clock) -> tuple[Steps, float]:
        """See :meth:`evgrid.scenario.tariffs.Tariff.drawn`."""
        prices = np.array([period.price_per_kwh for period in self.periods])
        return partial(_of_periods, self, clock, prices), np.inf

    def given(self, clock: Clock) -> Steps | None:
        """See :meth:`evgrid.scenario.tariffs.Tariff.given`."""
        credits = [period.export_per_kwh for period in self.periods]
        return None if None in credits else partial(_of_periods, self, clock, np.array(credits, np.float64))

    def in_periods(self, clock: Clock, edges_s: Array) -> Array:
        """Share of each period (of :attr:`periods`) in each span between ascending times, (span, period)."""
        ends = float(edges_s[0]), float(edges_s[-1])
        number = np.eye(len(self.periods))
        return np.stack([_of_periods(self, clock, of, *ends).means(edges_s) for of in number], axis=1)

    def block_charge(self, energy_kwh: Array) -> Array:
        """What blocks add to the cost at the first block's prices, (...,) currency.

        energy_kwh : (..., month, period) energy that a customer draws in calendar months and in periods
        """
        rule = self.blocks
        assert rule is not None
        total, first = np.zeros(energy_kwh.shape[:-2]), 0
        for season in self.seasons:
            periods = season.periods
            of_season = energy_kwh[..., first : first + len(periods)]
            first += len(periods)
            whole = of_season.sum(axis=-1)
            for k, period in enumerate(periods):
                drawn = whole if rule.by == "month" else of_season[..., k]
                other = rule.other_kwh if rule.by == "month" else 0.0
                share = np.divide(of_season[..., k], drawn, out=np.zeros_like(drawn), where=drawn > 0)
                edges = [block.above_kwh for block in period.blocks] + [np.inf]
                for block, end in zip(period.blocks, edges[1:], strict=True):
                    low, high = block.above_kwh - other, end - other
                    inside = np.clip(drawn, 0.0, None).clip(max(low, 0.0), max(high, 0.0)) - max(low, 0.0)
                    extra = block.price_per_kwh - period.price_per_kwh
                    total = total + (extra * share * inside).sum(axis=-1)
        return np.asarray(total * (1.0 + self.vat_percent / 100.0))


def _of_periods(tariff: SeasonTariff, clock: Clock, values: Array, begin_s: float, end_s: float) -> Series:
    """Values of a tariff's periods, (period,), between two times as steps."""
    edges, _ = _table(_as_json(tariff))
    start = clock.start.astype("datetime64[s]")
    into_day_s = float((clock.start - clock.start.astype("datetime64[D]")) / np.timedelta64(1, "s"))
    first, last = (int(np.floor((at + into_day_s) / _DAY_S)) for at in (begin_s, end_s))
    of_days = np.arange(first, last + 1)[:, np.newaxis] * _DAY_S + edges
    midnight = start.astype("datetime64[D]").astype("datetime64[s]")
    stamps = midnight + of_days.ravel().astype("timedelta64[s]")
    edges_s = np.append(of_days.ravel(), (last + 1) * _DAY_S) - into_day_s
    return steps_without_repeats(edges_s, values[_periods_at(tariff, stamps)])


@cache
def _table(seasons_json: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Periods by kind of day, of seasons as JSON: the times of day at which they may change, (edge,) s from
    midnight on, and the period from each on, (month, day of the week, that of the day before, edge).
    """
    seasons = [Season.model_validate(season) for season in json.loads(seasons_json)]
    spans = [span for season in seasons for period in season.periods for span in spans_s(period.hours)]
    edges = np.unique([0, *(edge % _DAY_S for span in spans for edge in span)])
    today, before, place = (grid.ravel() for grid in np.indices((7, 7, len(edges))))
    table = np.empty((12, 7, 7, len(edges)), np.int64)
    number = 0
    for season in seasons:
        of_season = np.empty(len(place), np.int64)
        for k, period in reversed(list(enumerate(season.periods))):
            of_season[period.covers(edges[place], today, before)] = number + k
        number += len(season.periods)
        table[np.array(season.months) - 1] = of_season.reshape(table.shape[1:])
    return edges, table


def _as_json(tariff: SeasonTariff) -> str:
    return json.dumps([season.model_dump(mode="json") for season in tariff.seasons])


def _periods_at(tariff: SeasonTariff, stamps: NDArray[np.datetime64]) -> NDArray[Any]:
    """Number of the period at local times, (n,) for (n,) datetime64."""
    edges, table = _table(_as_json(tariff))
    seconds, today, before = clock_of(stamps, tariff.holidays)
    place = edges.searchsorted(seconds, "right") - 1
    months = stamps.astype("datetime64[M]").astype(int) % 12
    return np.asarray(table[months, today, before, place])
