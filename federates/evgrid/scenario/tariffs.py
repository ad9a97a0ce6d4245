"""Electricity tariffs: the price of a kWh at each time.

A tariff is a small YAML file of one of the forms in :mod:`evgrid.scenario.tariff_forms`: seasons of hours, or
a series of prices. The part that all forms share is here.

:class:`Prices` holds the prices of energy of a run: of a tariff, or, where there is none, of the
scenario's ``system.energy_price``. Costs, strategies, the oracle and studies all go by it. The price of a
span (a tick, a slot of a plan) is its mean over the span. Beyond the end of a file its last price holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from evgrid.core.model import Array, Clock, Variable
from evgrid.core.registry import Registry
from evgrid.core.units import DAY_S
from evgrid.readers.series import PRICE, Series, read_series
from evgrid.readers.signals import Known, Signals
from evgrid.readers.yaml_files import read_yaml
from evgrid.scenario.day_windows import Holidays, PublicHolidays, Window, clock_of
from evgrid.scenario.fields import (
    Duration,
    OneOfSeveral,
    Settings,
    fault,
    faults,
    faults_of,
)
from evgrid.scenario.system import SeriesFile, System, wholesale_of

_ROUNDING_S = 1e-6
Month = Annotated[int, Field(ge=1, le=12)]
_ALL_MONTHS = tuple(range(1, 13))
USUAL_INTERVAL_S = 900.0
"""Interval of the meter where no tariff says another, s."""

Steps = Callable[[float, float], Series]
"""Prices as steps between two times, s from the run's start; currency per kWh."""


class PriceFile(SeriesFile):
    """Prices over time from a file, of either sign."""

    per: Literal["kWh", "MWh"]
    """Unit of energy of the prices."""


class Ratchet(Settings):
    """The least power that a month is billed for: a share of the highest power of months before it."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Share of that highest power."""
    lookback: Annotated[int, Field(ge=1, le=35)] = 11
    """Number of months before."""
    of_months: Annotated[tuple[Month, ...], Field(min_length=1)] = _ALL_MONTHS
    """Months of the year whose power counts, 1 to 12; left out: all."""
    before_kw: Annotated[float, Field(ge=0)] = 0.0
    """Highest power of the months of the lookback that lie before the run, of each that is billed, kW."""


class PowerPrice(Settings):
    """Price of a kW in some months, over all hours or in windows."""

    months: Annotated[tuple[Month, ...], Field(min_length=1)] = _ALL_MONTHS
    """Months of the year, 1 to 12; left out: all."""
    price_per_kw: float
    """Currency per kW of the month's highest power; a month that a run has part of counts whole. Below 0 only
    with above_kw, where more costs less."""
    windows: tuple[Window, ...] = ()
    """Windows, such as [{hours: [[16, 21]], days: weekday}], in which the highest power is billed; an
    interval of the meter counts by its beginning. Left out: all hours."""
    above_kw: Annotated[float, Field(ge=0)] = 0.0
    """Power above which each kW costs it, kW: so prices in blocks are written as what each adds."""
    ratchet: Ratchet | None = None
    """The least power that a month is billed for; left out: none."""

    @model_validator(mode="after")
    def _costs_something(self) -> PowerPrice:
        if self.price_per_kw < 0 and not self.above_kw:
            raise fault(f"price_per_kw = {self.price_per_kw:g}: must be at least 0, or have above_kw")
        return self

    @property
    def plain(self) -> bool:
        """Whether it is a price of each kW in all hours, without a ratchet: plans can go by no other."""
        return not (self.windows or self.above_kw or self.ratchet)


class DemandCharge(Settings):
    """Charge for the highest power of each calendar month, as means over intervals of the meter."""

    prices: Annotated[tuple[PowerPrice, ...], Field(min_length=1)]
    """Prices by month; those that share a month add up."""
    interval: Annotated[Duration, Field(gt=0)] = 900.0
    """Interval of the meter, from midnight on; divides a day."""
    of: Literal["evs", "transformer", "feeder"] = "evs"
    """The power that is metered: all EVs of the fleet (of the aggregator, where there are several) together;
    all below each transformer or bank next upstream of connection points, EVs and load, each with its own
    peak; or the whole feeder. The latter two are metered with losses, and the charge is the whole site's."""

    @model_validator(mode="after")
    def _divides_a_day(self) -> DemandCharge:
        if abs(DAY_S / self.interval - round(DAY_S / self.interval)) > 1e-9:
            raise fault(f"interval = {self.interval:g}s: must divide a day")
        return self

    def price(self, month: int) -> float:
        """Currency per kW of all hours in a month of the year, 1 to 12, as plans go by it."""
        return sum(price.price_per_kw for price in self.prices if price.plain and month in price.months)

    @property
    def windows(self) -> tuple[tuple[Window, ...], ...]:
        """The sets of windows of its prices, each once; without that of all hours."""
        return tuple(dict.fromkeys(price.windows for price in self.prices if price.windows))

    def charge(self, peak_kw: Array, in_windows_kw: Array, months: NDArray[np.datetime64]) -> Array:
        """The charge of all months together, (...,) currency.

        peak_kw : (..., month) highest power of each month in all hours; NaN or below 0: nothing is drawn
        in_windows_kw : (..., window, month) the same in each of :attr:`windows`
        months : (month,) datetime64[M]
        """
        of_year = months.astype("datetime64[M]").astype(int) % 12 + 1
        total = np.zeros(peak_kw.shape[:-1])
        for price in self.prices:
            at = self.windows.index(price.windows) if price.windows else None
            highest = np.fmax(peak_kw if at is None else in_windows_kw[..., at, :], 0.0)
            if price.ratchet is not None:
                highest = np.maximum(highest, _ratcheted(price.ratchet, highest, of_year))
            billed = np.isin(of_year, price.months)
            total = total + price.price_per_kw * np.clip(highest - price.above_kw, 0.0, None)[
                ..., billed
            ].sum(axis=-1)
        return np.asarray(total)


def _ratcheted(ratchet: Ratchet, peak_kw: Array, of_year: NDArray[np.int64]) -> Array:
    """The least power that each month is billed for, (..., month) kW."""
    least = np.empty_like(peak_kw)
    counts = np.where(np.isin(of_year, ratchet.of_months), peak_kw, 0.0)
    for k in range(len(of_year)):
        before = ratchet.before_kw if k < ratchet.lookback else 0.0
        known = counts[..., max(k - ratchet.lookback, 0) : k]
        least[..., k] = ratchet.share * np.maximum(known.max(axis=-1, initial=0.0), before)
    return least


class Tariff(OneOfSeveral):
    """The part that all forms of a tariff share; the price of energy drawn is the form's own."""

    named: ClassVar[bool] = True
    """Whether it has no name of its own, and must be given one."""
    has_windows: ClassVar[bool] = False
    """Whether its prices of energy are by windows of days of the week."""

    name: str = ""
    """Name that the utility gives it; required, but for a rate of OpenEI's database, which has its own."""
    currency: str = "USD"
    """Currency of every price."""
    valid_from: date | None = None
    """First day on which these prices held."""
    valid_until: date | None = None
    """Last day on which they held."""
    left_out: tuple[str, ...] = ()
    """Parts of the utility's tariff that are left out; a run says so."""
    source: str = ""
    """Where the prices were read."""
    fixed_per_day: Annotated[float, Field(ge=0)] = 0.0
    """Base charge per customer and day, in the settlement and no part of any session's cost. Customers are
    the connection points with EVs; where there is a demand charge of transformers or of the feeder, these."""
    fixed_per_month: Annotated[float, Field(ge=0)] = 0.0
    """The same per calendar month; of one that a run has part of, that part."""
    demand: DemandCharge | None = None
    """Charge for the highest power of each month; left out: none."""
    holidays: Holidays = ()
    """Dates that count as Sundays, or {country: US, subdivision: CA}, for windows of energy and of demand."""
    export_per_kwh: float | None = None
    """Credit for energy given back, currency per kWh; left out: the price of energy drawn in the
    same hour, as for a vehicle that offsets the load of its own site or is net-metered."""
    export_prices: PriceFile | None = None
    """Credit for energy given back over time, instead of export_per_kwh."""
    surcharge_per_kwh: float = 0.0
    """Network fees, levies and margin on top of every price of energy drawn, currency per kWh."""
    vat_percent: Annotated[float, Field(ge=0)] = 0.0
    """Value-added tax on price and surcharge of energy drawn, %; other charges are given with theirs."""

    def notes(self, clock: Clock) -> list[str]:
        """Notes on a run with the tariff, a sentence each."""
        first, last = (clock.timestamps(np.array([at]))[0] for at in (0.0, max(clock.duration_s - 1.0, 0.0)))
        began, ended = (at.astype("datetime64[D]") for at in (first, last))
        found, what = (
            [f"tariff {self.name}: left out is {part}" for part in self.left_out],
            f"tariff {self.name}",
        )
        if self.valid_from is not None and began < np.datetime64(self.valid_from):
            found.append(f"{what}: its prices hold from {self.valid_from} on; the run begins on {began}")
        if self.valid_until is not None and ended > np.datetime64(self.valid_until):
            found.append(f"{what}: its prices hold until {self.valid_until}; the run ends on {ended}")
        return found

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.name and self.named:
            raise faults(["tariff.name: is required"])
        return self

    @model_validator(mode="after")
    def _holidays_count(self) -> Self:
        windows = self.has_windows or (self.demand is not None and self.demand.windows)
        if self.holidays and not windows:
            raise fault("holidays are for windows of energy or of demand: the tariff has none")
        return self

    @model_validator(mode="after")
    def _one_credit(self) -> Self:
        if self.export_per_kwh is not None and self.export_prices is not None:
            raise fault("give either export_per_kwh or export_prices")
        return self

    @classmethod
    def alternatives(cls) -> tuple[type[Tariff], ...]:
        """The forms of a tariff."""
        return tuple(TARIFF_FORMS.find(name) for name in TARIFF_FORMS.names()) if cls is Tariff else (cls,)

    def drawn(self, clock: Clock) -> tuple[Steps, float]:
        """The price of energy drawn, and the time up to which it is known, s; infinite where it always is.

        Raises ScenarioError for a file that is at fault.
        """
        raise NotImplementedError

    def given(self, clock: Clock) -> Steps | None:
        """The form's own credit for energy given back; None: that of the settings here."""
        return None

    @property
    def has_blocks(self) -> bool:
        """Whether the price depends on what a customer has drawn in the month."""
        return False

    def in_periods(self, clock: Clock, edges_s: Array) -> Array:
        """Share of each period in each span between ascending times, (span, period); with blocks only."""
        raise NotImplementedError

    def resolved(self) -> Tariff:
        """The tariff with what is read from files of other programs as settings of its own."""
        return self


TARIFF_FORMS = Registry(
    {
        "seasons": "evgrid.scenario.tariff_forms.seasons:SeasonTariff",
        "prices": "evgrid.scenario.tariff_forms.series:SeriesTariff",
        "entsoe": "evgrid.scenario.tariff_forms.entsoe:EntsoeTariff",
        "urdb": "evgrid.scenario.tariff_forms.urdb:UrdbTariff",
    }
)
"""Forms of a tariff by the key that only they have."""


def form_of(content: Mapping[str, Any]) -> type[Tariff]:
    """The form of a tariff that a mapping holds, by its keys.

    Raises a fault (for pydantic) if they are those of none or several.
    """
    keys = [key for key in TARIFF_FORMS.names() if content.get(key) is not None]
    if len(keys) != 1:
        raise faults([f"tariff: give either {' or '.join(TARIFF_FORMS.names())}"])
    found: type[Tariff] = TARIFF_FORMS.find(keys[0])
    return found


def tariff_from(content: Mapping[str, Any], context: Any = None) -> Tariff:
    """The tariff that a mapping holds; ``context``: with the ``folder`` at which paths in it start.

    Raises a fault (for pydantic) with every fault, each with its path.
    """
    form = form_of(content)
    content = {key: value for key, value in content.items() if value is not None or key not in TARIFF_FORMS}
    try:
        return form.model_validate(content, context=context).resolved()
    except ValidationError as error:
        raise faults(faults_of(error, form, "tariff")) from None


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
    return tariff_from(content, {"folder": str(beside)})


def read_tariff(name: str, folder: str | Path | None = None) -> Mapping[str, Any]:
    """The content of a shipped tariff, by name, or of a tariff file; unchecked.

    Raises a fault (for pydantic) if there is no such tariff or file.
    """
    if name in shipped_tariffs():
        with resources.as_file(resources.files("evgrid") / "data" / "tariffs" / f"{name}.yaml") as path:
            return read_yaml(path)
    path = Path(folder or ".") / Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise fault(
            f"must be one of {', '.join(shipped_tariffs())}, or the path of a tariff file (.yaml, or .json "
            "of OpenEI's database)"
        )
    if not path.is_file():
        raise fault(f"there is no file {path}")
    if path.suffix == ".json":
        return {"urdb": {"file": path.name}}
    try:
        return read_yaml(path)
    except ValueError as error:
        raise fault(str(error)) from None


@dataclass(frozen=True)
class Prices:
    """Prices of energy in a run.

    drawn, given : functions that give price and credit between two times, s from the run's start, as steps,
        currency per kWh
    ends_s : time up to which they are known; infinite but for those of files, see ``Series.until``
    """

    drawn: Steps
    given: Steps
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
        drawn, given = (steps_without_repeats(edges_s, values) for values in self.means(edges_s))
        return Prices(lambda begin_s, end_s: drawn, lambda begin_s, end_s: given)

    def edges(self, begin_s: float, end_s: float) -> Array:
        """Times between two times at which price or credit change, s from the run's start, ascending."""
        both = (of(begin_s, end_s).edges_s for of in (self.drawn, self.given))
        edges = np.unique(np.concatenate(list(both)))
        return edges[(edges > begin_s) & (edges < end_s)]


def prices_of(
    tariff: Tariff | None, system: System | None, clock: Clock, known: Known | Signals | None = None
) -> Prices | None:
    """Prices of energy in a run: by the tariff, else by signals and ``system.energy_price``; None where none
    is.

    known : what is known of signals, or signals: then each time by what was known then

    Raises ScenarioError for a file that is at fault.
    """
    if tariff is None:
        found = wholesale_of(system, clock, known)
        if found is None:
            return None
        price, credit = (steps_without_repeats(part.edges_s, part.values) for part in found)
        end_s = min(float(part.until(0.0).edges_s[-1]) for part in (price, credit))
        return Prices(lambda _, until: price.until(until), lambda _, until: credit.until(until), end_s)
    energy, end_s = tariff.drawn(clock)
    factor = 1.0 + tariff.vat_percent / 100.0
    drawn = energy
    if factor != 1.0 or tariff.surcharge_per_kwh:

        def drawn(begin_s: float, end_s: float) -> Series:
            found = energy(begin_s, end_s)
            return Series(found.edges_s, factor * (found.values + tariff.surcharge_per_kwh))

    given = tariff.given(clock) or drawn
    if tariff.export_prices is not None:
        given, credit_end_s = steps_of(tariff.export_prices, clock)
        end_s = min(end_s, credit_end_s)
    elif tariff.export_per_kwh is not None:
        constant = Series(np.array([0.0, 1.0]), np.array([tariff.export_per_kwh]))
        given = lambda begin_s, end_s: constant  # noqa: E731
    return Prices(drawn, given, end_s)


_KWH = {"kWh": 1.0, "MWh": 1000.0}


def steps_of(file: PriceFile, clock: Clock) -> tuple[Steps, float]:
    """The prices of a file, currency per kWh, and the time at which they end, s from the run's start.

    Raises ScenarioError if the file is at fault.
    """
    return _of_file(file, _KWH[file.per], clock)


def _of_file(file: SeriesFile, kwh: float, clock: Clock) -> tuple[Steps, float]:
    read = read_series(file.file, clock, PRICE, file.column, file.reading)
    steps = steps_without_repeats(read.edges_s, read.values / kwh)
    return lambda begin_s, end_s: steps.until(end_s), float(steps.until(0.0).edges_s[-1])


def steps_without_repeats(edges_s: Array, values: Array) -> Series:
    """Steps without those at which nothing changes."""
    kept = np.concatenate([[True], values[1:] != values[:-1]])
    return Series(np.append(edges_s[:-1][kept], edges_s[-1]), values[kept])


def in_windows(peak: Variable) -> Variable:
    """The variable of the highest power in windows of a demand charge, beside that of all hours."""
    return replace(
        peak,
        name=peak.name.replace("_peak_kw", "_window_peak_kw"),
        dims=(*peak.dims[:-1], "window", "month"),
        long_name=f"{peak.long_name}; in windows of the demand charge",
    )


def months_of(clock: Clock) -> NDArray[np.datetime64]:
    """The calendar months that a run has part of, (month,) datetime64[M]."""
    last = clock.timestamps(np.array([max(clock.duration_s - _ROUNDING_S, 0.0)]))[0]
    return np.arange(clock.start.astype("datetime64[M]"), last.astype("datetime64[M]") + 1)


class MonthlyPeaks:
    """Highest mean power over the intervals of a meter in each calendar month, streamed.

    Power is steady within a tick, however long it is. An interval belongs to the month, and to the windows,
    in which it begins; of one that the run has part of, the mean is over that part. NaN is no power: it is
    left out.

    peak : (*shape, month) kW; NaN for a month without any
    in_windows : (*shape, window, month) the same in each of ``windows``
    """

    def __init__(
        self, clock: Clock, interval_s: float, shape: tuple[int, ...],
        windows: Sequence[Sequence[Window]] = (), holidays: PublicHolidays | tuple[date, ...] = (),
    ) -> None:  # fmt: skip
        self._clock, self._interval_s = clock, interval_s
        self._windows, self._holidays = windows, holidays
        self._months = months_of(clock)
        midnight = clock.start.astype("datetime64[D]")
        self._into_day_s = float((clock.start - midnight) / np.timedelta64(1, "s"))
        self.peak = np.full((*shape, len(self._months)), np.nan)
        self.in_windows = np.full((*shape, len(windows), len(self._months)), np.nan)
        self._energy_kws, self._begin_s, self._now_s = np.zeros(shape), 0.0, 0.0

    @classmethod
    def of(cls, tariff: Tariff | None, clock: Clock, shape: tuple[int, ...]) -> MonthlyPeaks:
        """The peaks that a tariff bills; without a demand charge those of the usual interval."""
        if tariff is None or tariff.demand is None:
            return cls(clock, USUAL_INTERVAL_S, shape)
        demand = tariff.demand
        return cls(clock, demand.interval, shape, demand.windows, tariff.holidays)

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
        if not len(energy_kws):
            return
        lengths_s = np.diff(edges_s).reshape(-1, *(1,) * (energy_kws.ndim - 1))
        means = energy_kws / lengths_s
        begins = self._clock.timestamps(edges_s[:-1] + _ROUNDING_S)
        months = begins.astype("datetime64[M]")
        covered = []
        if self._windows:
            at = clock_of(begins, self._holidays)
            covered = [np.any([one.covers(*at) for one in several], axis=0) for several in self._windows]
        for place, month in enumerate(self._months):
            inside = months == month
            if not inside.any():
                continue
            highest = np.fmax.reduce(means[inside], axis=0)
            self.peak[..., place] = np.fmax(self.peak[..., place], highest)
            for window, hours in enumerate(covered):
                if (both := inside & hours).any():
                    highest = np.fmax.reduce(means[both], axis=0)
                    known = self.in_windows[..., window, place]
                    self.in_windows[..., window, place] = np.fmax(known, highest)
