"""Settings of profiles: power over time of loads, generators and storages of the network.

Each of ``feeder.profiles`` is for some elements of one kind, and is one of PV by pvlib, a file, a profile of
simbench, a heat pump, or a battery that follows a rule.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evgrid.scenario.fields import (
    ExistingFile,
    HourSpan,
    NamePatterns,
    Positive,
    Settings,
    Share,
    TimeZone,
    fault,
)
from evgrid.scenario.solar import NetworkPv
from evgrid.scenario.time_series import PowerTable


class HeatPump(Settings):
    """A heat pump by the standard heat profile of the German gas suppliers (BDEW, from demandlib)."""

    annual_kwh: Positive | None = None
    """Electric energy of a year of each, kWh; left out: its load in the network is its highest hour of a
    year."""
    building: Literal["EFH", "MFH"] = "EFH"
    """Profile of the heat: EFH, a house of one family, or MFH, of several."""
    building_class: Annotated[int, Field(ge=1, le=11)] = 5
    """BDEW's class of buildings by their age, 1 to 11: the higher, the more of the heat is in winter."""
    hot_water: bool = True
    """Whether the pump heats the water, too."""
    source: Literal["air", "ground"] = "air"
    """Source of the heat; the ground has 10 °C."""
    sink: Literal["floor", "radiator"] = "floor"
    """Heating, by which the temperature of the water follows from that of the air: floor, 30 °C - 0.5 T;
    radiator, 40 °C - T (Ruhnau et al. 2019)."""
    weather: ExistingFile | None = None
    """A file of a typical year, TMY3, EPW or PVGIS, whose temperature is taken; left out: mean_c and the
    others."""
    timezone: TimeZone | None = None
    """Time zone of the run's local time, with weather."""
    mean_c: Annotated[float, Field(ge=-30, le=40)] = 9.5
    """Mean temperature of the year, °C (assumption: central Germany)."""
    year_amplitude_c: Annotated[float, Field(ge=0, le=40)] = 9.0
    """Half of the difference between the warmest and the coldest day, K; the coldest is 20 January, of a mean
    year (assumption)."""
    day_amplitude_c: Annotated[float, Field(ge=0, le=20)] = 4.0
    """Half of the difference between the warmest hour of a day, 15:00, and the coldest, K (assumption)."""

    @model_validator(mode="after")
    def _weather(self) -> Self:
        if (self.weather is None) != (self.timezone is None):
            raise fault("give both weather and timezone, or neither")
        return self


class BatteryWindow(Settings):
    """Hours of a battery's time table."""

    hours: HourSpan
    """Local hours [from, until), such as [22, 6]."""
    kw: float
    """Power drawn from the grid, kW; negative: given."""


class Battery(Settings):
    """A battery that follows a rule: self-consumption at its bus, or a time table."""

    timetable: tuple[BatteryWindow, ...] = ()
    """Power by hours, as far as the battery can; 0 at others. Left out: self-consumption: it takes what
    generation at its bus exceeds load there, and gives what load exceeds generation; EVs are not seen."""
    capacity_kwh: Positive | None = None
    """Capacity of each, kWh; left out: that in the network (max_e_mwh)."""
    power_kw: Positive | None = None
    """Highest power either way, kW; left out: that in the network (sn_mva, else p_mw), else half the capacity
    in an hour."""
    efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Efficiency of charging and discharging together."""
    soc_start: Share = 0.5
    """State of charge at the run's start, 0 to 1."""
    soc_min: Share = 0.0
    """State of charge down to which it discharges, 0 to 1."""

    @model_validator(mode="after")
    def _starts_above(self) -> Self:
        if self.soc_start < self.soc_min:
            raise fault(f"soc_start = {self.soc_start:g}: must be at least soc_min = {self.soc_min:g}")
        return self


Kind = Literal["load", "generator", "storage"]
_OWN_KIND: dict[str, Kind] = {"pv": "generator", "heat_pump": "load", "battery": "storage"}


class ElementProfile(PowerTable):
    """Power over time of some elements of the network."""

    of: Kind | None = None
    """Kind of the elements: load, generator (sgen and gen) or storage; pv is of generators, heat_pump of
    loads, battery of storages."""
    at: NamePatterns = None
    """Names of the elements, or patterns such as 'PV*'; left out: those of names, else all
    generators, or all storages, that no other profile names."""
    pv: NetworkPv | None = None
    """PV by pvlib, clear sky or a weather file, scaled to the power of each generator in the network."""
    file: ExistingFile | None = None
    """A table with a series for each element, of kW or energy (of generators and storages into the grid, of
    loads drawn), or one named share, of the power that each has in the network."""
    simbench: str | None = None
    """Name of a profile of simbench, such as PV3, WP4, BM1, G0-A, Storage_PV3_H0-A: the share of the power
    that each has in the network, at the same date and time of day in 2016."""
    heat_pump: HeatPump | None = None
    """Heat pumps."""
    battery: Battery | None = None
    """Batteries that follow a rule."""

    @property
    def named(self) -> tuple[str, ...] | None:
        """Names and patterns of the elements: at, else those of names; None: all others of the kind."""
        return (tuple(self.names) or None) if self.at is None else self.at

    @property
    def source(self) -> str:
        """The setting that gives the power."""
        return next(name for name in _SOURCES if getattr(self, name) is not None)

    @property
    def kind(self) -> Kind:
        """Kind of the elements."""
        return self.of or _OWN_KIND[self.source]

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given: list[Any] = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise fault(f"give one of {', '.join(_SOURCES)}, not {' and '.join(given) or 'none'}")
        own = _OWN_KIND.get(given[0])
        if own is None and self.of is None:
            raise fault("of: is required, load, generator or storage")
        if own is not None and self.of not in (None, own):
            raise fault(f"of = {self.of}: {given[0]} is of a {own}")
        if self.kind == "load" and self.named is None:
            raise fault("at: is required for loads; a profile of all of them is feeder.base_load")
        if self.file is None:
            self.check_of_file()
        return self


_SOURCES = ("pv", "file", "simbench", "heat_pump", "battery")
