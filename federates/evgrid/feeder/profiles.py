"""Power over time of loads, generators and storages that have a profile of their own (``feeder.profiles``).

In: the scenario and the network. Out: for each profile the positions of its elements, and their mean power
over any spans of time, kW, (n, member or 1, element): of loads drawn, of generators and storages into the
grid.

**PV** is pvlib's chain (:mod:`evgrid.solar.pv`) for each kW that the generator has in the network.
**simbench** is a profile of that name in quarter-hours of 2016, as a share. **Heat pumps** have the standard
heat profile of the German gas suppliers (BDEW, from demandlib) by hour and temperature, divided by the
coefficient of performance after Ruhnau et al. 2019 (10.1038/s41597-019-0199-y). **Batteries** follow their
rule in quarter-hours from the run's start: what they see is the mean of the quarter-hour, and a limit of
energy that is met within one cuts its mean. Those at one bus act in turn.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from evgrid.core.element_names import ElementNames
from evgrid.core.model import Array, Clock
from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError
from evgrid.feeder.grid import Ints
from evgrid.feeder.networks import Network
from evgrid.feeder.quarter_hours import DAY_QUARTERS, QUARTER_S, quarter_hours, rows_of_year
from evgrid.readers.series import Series
from evgrid.scenario.profiles import Battery, ElementProfile, HeatPump, Kind

if TYPE_CHECKING:
    from evgrid.feeder.base_load import BaseLoad
    from evgrid.scenario import Scenario
    from evgrid.scenario.feeder import Feeder

_KINDS: dict[Kind, tuple[str, ...]] = {"generator": ("sgen", "gen"), "storage": ("storage",)}
_GROUND_C = 10.0
_COP = {"air": (6.08, -0.09, 0.0005), "ground": (10.29, -0.21, 0.0012)}
"""Coefficient of performance by the difference of temperatures, K: constant, linear and square term (Ruhnau
et al. 2019, Table 2)."""
_CORRECTION = 0.85
"""Factor of the coefficient of performance in real operation (there)."""
_COLDEST_DAY, _WARMEST_H = 20, 15.0


class Source(Protocol):
    """Power of the elements of a profile."""

    def means(self, begins_s: Array, ends_s: Array) -> Array:
        """Means over spans of time, s from the run's start: kW, (n, member or 1, element)."""

    def changes(self, begin_s: float, end_s: float) -> Array:
        """Times at which it may change, from ``begin_s`` to ``end_s`` and with both."""


@dataclass(frozen=True, slots=True)
class Profiled:
    """Elements with a profile.

    name : of the profile; rows : positions of its loads, or of its generators and storages
    """

    name: str
    settings: ElementProfile
    rows: Ints

    @property
    def kind(self) -> Kind:
        """Kind of the elements."""
        return self.settings.kind


def profiled(settings: Feeder, network: Network) -> list[Profiled]:
    """The elements of each profile.

    Raises
    ------
    ScenarioError
        Naming each profile that names an element that is not there, or that has two profiles.

    """
    found, faults = list[Profiled](), list[str]()
    fixed = network.grid.fixed
    names = {
        "load": network.connections.name.astype(str),
        "generator": fixed.gen_name,
        "storage": fixed.gen_name,
    }
    of_kind = {
        "load": np.arange(len(names["load"])),
        **{kind: np.flatnonzero(np.isin(fixed.gen_kind, kinds)) for kind, kinds in _KINDS.items()},
    }
    taken: dict[tuple[str, int], str] = {}
    stated = [(n, p) for n, p in settings.profiles.items() if p.named is not None]
    for name, profile in [*stated, *((n, p) for n, p in settings.profiles.items() if p.named is None)]:
        rows = of_kind[profile.kind]
        own = names[profile.kind][rows]
        table = "load" if profile.kind == "load" else "gen"
        if profile.named is None:
            chosen = np.array([k for k in range(len(own)) if (table, int(rows[k])) not in taken], np.int64)
            if not len(chosen):
                faults.append(
                    f"feeder.profiles.{name}: the network has no {profile.kind} without another profile"
                )
        else:
            chosen, missing = ElementNames(own).chosen(
                profile.named, f"feeder.profiles.{name}.at", f"the network has no such {profile.kind}"
            )
            faults += missing
        for at in rows[chosen].tolist():
            other = taken.setdefault((table, at), name)
            if other != name:
                faults.append(
                    f"feeder.profiles.{name}: {names[profile.kind][at]} has the profile {other} already"
                )
        found.append(Profiled(name, profile, rows[chosen]))
    if faults:
        raise ScenarioError(faults)
    return found


def rated_kw(network: Network, rows: Ints) -> Array:
    """Power of generators and storages: that in the network, else their rated one, kW; negative where they
    draw.
    """
    fixed = network.grid.fixed
    own = fixed.gen_p_kw[rows].sum(axis=1)
    return np.asarray(np.where(own != 0, own, np.nan_to_num(fixed.gen_sn_kva[rows])))


def counted(part: Profiled) -> str:
    """Number of a profile's elements, in words."""
    return f"{len(part.rows)} {part.kind}{'s' * (len(part.rows) > 1)}"


def elements_of(network: Network, part: Profiled) -> tuple[list[str], Array]:
    """Names of a profile's elements, and their power in the network, kW: of loads drawn, else into the
    grid.
    """
    if part.kind == "load":
        power = network.grid.loads.p_kw[part.rows].sum(axis=1)
        return network.connections.name[part.rows].astype(str).tolist(), power
    return network.grid.fixed.gen_name[part.rows].tolist(), rated_kw(network, part.rows)


def source_of(scenario: Scenario, network: Network, part: Profiled, seen: BaseLoad) -> tuple[Source, str]:
    """The power of a profile's elements, and an account of it; ``seen``: the power that batteries see.

    Raises ScenarioError.
    """
    settings, clock = part.settings, scenario.clock
    number, path = len(part.rows), f"feeder.profiles.{part.name}"
    if settings.battery is not None:
        return _battery(scenario, network, part, seen)
    names, power = elements_of(network, part)
    if settings.heat_pump is None or settings.heat_pump.annual_kwh is None:
        without = [str(name) for name, kw in zip(names, power, strict=True) if kw == 0]
        if without:
            raise ScenarioError(
                [
                    f"{path}: {name} has no power in the network, to which the profile is scaled"
                    for name in without
                ]
            )
    of = f"{counted(part)} of {power.sum():.4g} kW"
    if settings.pv is not None:
        sky = "clear sky" if settings.pv.weather is None else f"weather {settings.pv.weather.name}"
        return Pv(settings, clock, power, path), f"{path}: {of} as PV by pvlib, {sky}."
    if settings.simbench is not None:
        values = simbench_profile(settings.simbench, part.kind, path)
        return (
            Simbench(values, clock, power),
            f"{path}: {of} by simbench's {settings.simbench} of 2016, at most {values.max():.3g} of it.",
        )
    assert settings.heat_pump is not None
    pumps = HeatPumps(settings.heat_pump, clock, power, path)
    return pumps, (
        f"{path}: {number} heat pump{'s' * (number > 1)} of {pumps.annual_kwh.sum():.4g} kWh a year, BDEW's "
        f"{settings.heat_pump.building} by {pumps.temperature}, seasonal performance {pumps.performance:.3g}."
    )


class Pv:
    """PV of generators, by pvlib."""

    def __init__(self, settings: ElementProfile, clock: Clock, power_kw: Array, path: str) -> None:
        """Raise ScenarioError with every fault of a weather file."""
        from evgrid.solar.pv import PvPower

        assert settings.pv is not None
        try:
            self._one = PvPower(settings.pv, clock)
        except ScenarioError as error:
            raise ScenarioError([f"{path}.pv: {error.source}: {fault}" for fault in error.faults]) from None
        self._power_kw = power_kw

    def means(self, begins_s: Array, ends_s: Array) -> Array:
        """See :meth:`Source.means`."""
        slots = self._one.slots(float(begins_s.min()), float(ends_s.max()))
        return (
            _means(Series(slots.edges_s, slots.kw[0]), begins_s, ends_s)[:, np.newaxis, np.newaxis]
            * self._power_kw
        )

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`Source.changes`."""
        return self._one.slots(begin_s, end_s).edges_s


class _OfYear:
    """A share of power in the quarter-hours of the clock."""

    def __init__(self, clock: Clock, power_kw: Array) -> None:
        self._start_s = float(clock.start.astype("datetime64[ms]").astype(np.int64)) / 1e3
        self._power_kw = power_kw

    def _shares(self, quarters: Ints) -> Array:
        """Shares in quarter-hours since 1970, local time."""
        raise NotImplementedError

    def means(self, begins_s: Array, ends_s: Array) -> Array:
        """See :meth:`Source.means`."""
        first = math.floor((self._start_s + float(begins_s.min())) / QUARTER_S + 1e-9)
        last = max(math.ceil((self._start_s + float(ends_s.max())) / QUARTER_S - 1e-9), first + 1)
        shares = self._shares(np.arange(first, last))
        series = Series(np.arange(first, last + 1.0) * QUARTER_S - self._start_s, shares)
        return np.asarray(_means(series, begins_s, ends_s)[:, np.newaxis, np.newaxis] * self._power_kw)

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`Source.changes`."""
        return quarter_hours(begin_s, end_s, self._start_s)


def _means(series: Series, begins_s: Array, ends_s: Array) -> Array:
    if (begins_s[1:] == ends_s[:-1]).all():
        return series.means(np.append(begins_s, ends_s[-1]))
    pairs = zip(begins_s.tolist(), ends_s.tolist(), strict=True)
    return np.array([series.mean(begin, end) for begin, end in pairs])


# ---- simbench -----------------------------------------------------------------------------------


class Simbench(_OfYear):
    """A profile of simbench, in quarter-hours of 2016."""

    def __init__(self, values: Array, clock: Clock, power_kw: Array) -> None:
        super().__init__(clock, power_kw)
        self._values = values

    def _shares(self, quarters: Ints) -> Array:
        return self._values[rows_of_year(quarters, 2016)]


_SIMBENCH_FILES: dict[Kind, tuple[str, str]] = {
    "load": ("LoadProfile.csv", "_pload"),
    "generator": ("RESProfile.csv", ""),
    "storage": ("StorageProfile.csv", ""),
}


def simbench_profile(name: str, kind: Kind, path: str) -> Array:
    """A profile of simbench by its name, (35136,) as share of power: of loads drawn, of storages into the
    grid.

    Raises ScenarioError where simbench is not installed, or has no such profile.
    """
    try:
        import simbench
    except ImportError:
        raise ScenarioError([f'{path}.simbench: needs simbench: pip install "evgrid[simbench]"']) from None
    file, suffix = _SIMBENCH_FILES[kind]
    found = Path(simbench.__file__).parent / "networks" / "1-complete_data-mixed-all-1-sw" / file
    there = [
        one.removesuffix(suffix)
        for one in pd.read_csv(found, sep=";", nrows=0).columns
        if one.endswith(suffix)
    ]
    there = [one for one in there if one != "time"]
    if name not in there:
        raise ScenarioError(
            [
                f"{path}.simbench = {name}: simbench has no such profile of a {kind}; "
                + ElementNames(there).hint(name)
            ]
        )
    column = name + suffix
    values = pd.read_csv(found, sep=";", usecols=[column])[column].to_numpy(np.float64)
    return -values if kind == "storage" else values


# ---- customers ----------------------------------------------------------------------------------


class Customers(_OfYear):
    """Customers by a standard profile of BDEW (from demandlib, without public holidays), without diversity.

    code : of the profile; annual_kwh : (load,) energy of a year
    """

    def __init__(self, code: str, clock: Clock, annual_kwh: Array, own_kw: Array) -> None:
        """``annual_kwh``: (load,), where it is NaN ``own_kw`` is the highest power of the year."""
        self.code = code
        year = int(str(clock.start.astype("datetime64[Y]")))
        peak = float(standard_year(year, code).max())
        self.annual_kwh = np.where(np.isnan(annual_kwh), own_kw / peak, annual_kwh)
        super().__init__(clock, self.annual_kwh)

    def _shares(self, quarters: Ints) -> Array:
        years = (quarters // DAY_QUARTERS).astype("datetime64[D]").astype("datetime64[Y]")
        found = np.empty(len(quarters))
        for year in np.unique(years):
            mine = years == year
            first = int(year.astype("datetime64[D]").astype(np.int64)) * DAY_QUARTERS
            found[mine] = standard_year(int(str(year)), self.code)[quarters[mine] - first]
        return found


@lru_cache(maxsize=32)
def standard_year(year: int, code: str) -> Array:
    """Power of a customer of 1 kWh a year in each quarter-hour of a year, kW, by a standard profile of
    BDEW.
    """
    with warnings.catch_warnings():  # demandlib turns all warnings into errors
        from demandlib.bdew import ElecSlp

        profile = ElecSlp(year).slp_frame[code].to_numpy(dtype=np.float64)
    return np.asarray(profile / (profile.sum() * QUARTER_S / 3600))


# ---- heat pumps ---------------------------------------------------------------------------------


class HeatPumps(_OfYear):
    """Heat pumps by the hours of a year.

    annual_kwh : (pump,); performance : seasonal, heat per electric energy; temperature : its source in words
    """

    def __init__(self, settings: HeatPump, clock: Clock, own_kw: Array, path: str) -> None:
        """Raise ScenarioError for a weather file that is at fault, or that is of no typical year."""
        self._settings, self._typical = settings, None
        self.temperature = f"{settings.mean_c:g} °C in the mean of a year"
        if settings.weather is not None:
            assert settings.timezone is not None
            from evgrid.solar.weather import typical_year

            try:
                self._typical = typical_year(settings.weather, settings.timezone, clock)
            except ScenarioError as error:
                raise ScenarioError(
                    [f"{path}.heat_pump.weather: {error.source}: {fault}" for fault in error.faults]
                ) from None
            self.temperature = settings.weather.name
        year = int(str(clock.start.astype("datetime64[Y]")))
        electric, self.performance = self._year(year)
        if settings.annual_kwh is None:
            power_kw = own_kw / electric.max()
        else:
            power_kw = np.full(len(own_kw), settings.annual_kwh)
        self.annual_kwh = power_kw
        super().__init__(clock, power_kw)
        self._years = {year: electric}

    def _shares(self, quarters: Ints) -> Array:
        hours = quarters // 4
        years = hours.astype("datetime64[h]").astype("datetime64[Y]")
        found = np.empty(len(hours))
        for year in np.unique(years):
            number = int(str(year))
            if number not in self._years:
                self._years[number] = self._year(number)[0]
            mine = years == year
            since = (hours[mine].astype("datetime64[h]") - year.astype("datetime64[h]")).astype(np.int64)
            found[mine] = self._years[number][since]
        return found

    def _year(self, year: int) -> tuple[Array, float]:
        """Power in each hour of a year for 1 kWh of it, kW, and the seasonal performance."""
        hours = pd.date_range(f"{year}-01-01", f"{year + 1}-01-01", freq="h", inclusive="left")
        air_c = self._air(hours)
        settings = self._settings
        heat = _heat_of_year(
            year, air_c.tobytes(), settings.building, settings.building_class, settings.hot_water
        )
        sink_c = np.maximum(30 - 0.5 * air_c, 20) if settings.sink == "floor" else np.maximum(40 - air_c, 20)
        source_c = air_c if settings.source == "air" else np.full_like(air_c, _GROUND_C)
        difference = np.maximum(sink_c - source_c, 15.0)  # least of Ruhnau et al.
        constant, linear, square = _COP[settings.source]
        electric = heat / (_CORRECTION * (constant + linear * difference + square * difference**2))
        return electric / electric.sum(), float(heat.sum() / electric.sum())

    def _air(self, hours: pd.DatetimeIndex) -> Array:
        """Temperature of the air in some hours of local time, °C."""
        settings = self._settings
        if self._typical is not None:
            return self._typical(hours)
        day = hours.dayofyear.to_numpy() - _COLDEST_DAY
        hour = hours.hour.to_numpy() + 0.5 - _WARMEST_H
        return np.asarray(
            settings.mean_c
            - settings.year_amplitude_c * np.cos(2 * np.pi * day / 365.25)
            + settings.day_amplitude_c * np.cos(2 * np.pi * hour / 24)
        )


@lru_cache(maxsize=16)
def _heat_of_year(year: int, air_c: bytes, building: str, building_class: int, hot_water: bool) -> Array:
    """Heat in each hour of a year, of 1 kWh a year."""
    hours = pd.date_range(f"{year}-01-01", f"{year + 1}-01-01", freq="h", inclusive="left")
    temperature = pd.Series(np.frombuffer(air_c), hours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from demandlib.bdew import HeatBuilding

        found = HeatBuilding(
            hours, temperature=temperature, shlp_type=building, building_class=building_class, wind_class=0,
            annual_heat_demand=1.0, ww_incl=hot_water,
        ).get_bdew_profile()  # fmt: skip
    return np.asarray(found, np.float64)


# ---- batteries ----------------------------------------------------------------------------------


def _battery(scenario: Scenario, network: Network, part: Profiled, seen: BaseLoad) -> tuple[Source, str]:
    """Batteries with their rule, and an account of them."""
    given, fixed, rows = part.settings.battery, network.grid.fixed, part.rows
    assert given is not None
    path = f"feeder.profiles.{part.name}"
    capacity = np.full(len(rows), np.nan)
    if given.capacity_kwh is not None:
        capacity[:] = given.capacity_kwh
    elif fixed.gen_capacity_kwh is not None:
        capacity = fixed.gen_capacity_kwh[rows].copy()
    bad = ~(capacity > 0)
    if bad.any():
        raise ScenarioError(
            [
                f"{path}.battery.capacity_kwh is not given: {name} has none in the network (max_e_mwh)"
                for name in fixed.gen_name[rows][bad].tolist()
            ]
        )
    own = np.abs(fixed.gen_p_kw[rows].sum(axis=1))
    power = np.where(fixed.gen_sn_kva[rows] > 0, fixed.gen_sn_kva[rows], own)
    power = (
        np.where(power > 0, power, capacity / 2)
        if given.power_kw is None
        else np.full(len(rows), given.power_kw)
    )
    rule = "by a time table" if given.timetable else "by self-consumption at their bus, without EVs"
    many = f"{len(rows)} storage{'s' * (len(rows) > 1)} of {capacity.sum():.4g} kWh and {power.sum():.4g} kW"
    return Batteries(scenario, network, rows, given, capacity, power, seen), f"{path}: {many} {rule}."


class Batteries:
    """Batteries that follow a rule in quarter-hours from the run's start, computed as far as they are asked
    for.
    """

    def __init__(
        self, scenario: Scenario, network: Network, rows: Ints, settings: Battery, capacity_kwh: Array,
        power_kw: Array, seen: BaseLoad,
    ) -> None:  # fmt: skip
        self._settings, self._capacity, self._power, self._seen = settings, capacity_kwh, power_kw, seen
        self._bus, self._rows = network.grid.fixed.gen_bus[rows], rows
        self._buses, self._at = np.unique(self._bus, return_inverse=True)
        turn = pd.Series(self._at).groupby(self._at).cumcount().to_numpy()
        self._turns = [np.flatnonzero(turn == k) for k in range(int(turn.max(initial=-1)) + 1)]
        grid = network.grid
        self._loads = np.flatnonzero(np.isin(grid.loads.bus, self._buses))
        self._load_at = np.searchsorted(self._buses, grid.loads.bus[self._loads])
        others = np.isin(grid.fixed.gen_bus, self._buses)
        others[rows] = False
        self._gens = np.flatnonzero(others)
        self._gen_at = np.searchsorted(self._buses, grid.fixed.gen_bus[self._gens])
        self._fixed_kw = grid.fixed.gen_p_kw.sum(axis=1)
        start = scenario.start.astype("datetime64[ms]")
        self._first_s = float((start - start.astype("datetime64[D]")).astype(np.int64)) / 1e3
        self._lock = Lock()
        self._energy = settings.soc_start * capacity_kwh
        self._given = np.zeros((0, 1, len(rows)))

    def means(self, begins_s: Array, ends_s: Array) -> Array:
        """See :meth:`Source.means`."""
        with self._lock:  # models that step at once ask the same base load
            self._extend(math.ceil(float(ends_s.max()) / QUARTER_S - 1e-9))
            given = self._given
        edges_s = np.asarray(QUARTER_S * np.arange(len(given) + 1), np.float64)
        series = Series(edges_s, given.reshape(len(given), -1))
        return _means(series, begins_s, ends_s).reshape(len(begins_s), *given.shape[1:])

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`Source.changes`."""
        first, last = math.floor(begin_s / QUARTER_S + 1e-9) + 1, math.ceil(end_s / QUARTER_S - 1e-9)
        inside = np.asarray(QUARTER_S * np.arange(first, last), np.float64)
        return np.concatenate([[begin_s], inside, [end_s]])

    def _extend(self, slots: int) -> None:
        """Compute the power up to a number of quarter-hours."""
        while len(self._given) < slots:
            first = len(self._given)
            begins = np.asarray(QUARTER_S * np.arange(first, min(first + 96, slots)), np.float64)
            surplus = self._surplus(begins) if not self._settings.timetable else None
            members = 1 if surplus is None else surplus.shape[1]
            energy = np.broadcast_to(self._energy, (members, len(self._rows))).copy()
            given = np.empty((len(begins), members, len(self._rows)))
            for k, begin_s in enumerate(begins.tolist()):
                for turn in self._turns:
                    if surplus is None:
                        wanted = np.full((members, len(turn)), self._scheduled(begin_s))
                    else:
                        wanted = surplus[k][:, self._at[turn]]
                    drawn = self._drawn(wanted, energy, turn)
                    given[k][:, turn] = -drawn
                    if surplus is not None:
                        surplus[k][:, self._at[turn]] -= drawn
            self._energy = energy
            if len(self._given) and self._given.shape[1] != members:
                self._given = np.broadcast_to(self._given, (first, members, len(self._rows)))
            self._given = (
                np.concatenate([self._given.reshape(first, -1, len(self._rows)), given]) if first else given
            )

    def _drawn(self, wanted: Array, energy: Array, turn: Ints) -> Array:
        """Power drawn over a quarter-hour, kW, of some batteries, whose energy it moves; (member,
        battery).
        """
        hours, one_way = QUARTER_S / 3600, math.sqrt(self._settings.efficiency)
        capacity, power, own = self._capacity[turn], self._power[turn], energy[:, turn]
        room = (capacity - own) / (one_way * hours)
        left = np.maximum(own - self._settings.soc_min * capacity, 0.0) * one_way / hours
        drawn = np.clip(wanted, -np.minimum(power, left), np.minimum(power, room))
        moved = own + hours * np.where(drawn > 0, drawn * one_way, drawn / one_way)
        energy[:, turn] = np.clip(moved, 0.0, capacity)
        return np.asarray(drawn)

    def _surplus(self, begins_s: Array) -> Array:
        """Generation less load at the buses, without the batteries, kW, (n, member or 1, bus)."""
        ends_s = begins_s + QUARTER_S
        load = self._seen.at(begins_s, ends_s)[0].sum(axis=3)[:, :, self._loads]
        made = self._seen.generation(begins_s, ends_s)
        own = self._fixed_kw[np.newaxis, np.newaxis] if made is None else made[0].sum(axis=3)
        gen = np.broadcast_to(own[:, :, self._gens], (len(begins_s), own.shape[1], len(self._gens)))
        members = max(load.shape[1], gen.shape[1])
        total = np.zeros((len(self._buses), len(begins_s), members))
        np.subtract.at(total, self._load_at, np.moveaxis(load, 2, 0))
        np.add.at(total, self._gen_at, np.moveaxis(gen, 2, 0))
        return np.moveaxis(total, 0, 2)

    def _scheduled(self, begin_s: float) -> float:
        """Power of the time table over a quarter-hour, kW drawn."""
        begin_h = ((self._first_s + begin_s) % DAY_S) / 3600
        end_h, total = begin_h + QUARTER_S / 3600, 0.0
        for window in self._settings.timetable:
            start, stop = window.hours
            spans = [(start, stop)] if start < stop else [(start, 24.0), (0.0, stop)]
            for a, b in spans:
                for day in (0.0, 24.0):
                    total += window.kw * max(min(end_h, b + day) - max(begin_h, a + day), 0.0)
        return total / (QUARTER_S / 3600)
