"""Irradiance and temperature of a place: clear sky, or from a weather file.

A weather file is TMY3, EPW or PVGIS (CSV, a typical year or hourly), read by pvlib, or a table with the
columns ``time`` and ``ghi``, and, where it has them, ``dni`` and ``dhi`` (W/m2), ``temperature`` (°C) and
``wind_speed`` (m/s). The format follows from the file's name and first lines. Values are means over the
interval of a row; those of PVGIS, which are of a moment, stand for the hour about it.

A file of one year is taken at the same date and time of day, in the file's own standard time, whatever the
year; its 28 February stands for 29 February too. PVGIS' hours of several years, and a table, must cover the
run.

Within an interval of a file the sun moves: the beam and the diffuse radiation of an interval are spread over
the part of it in which the sun is up, so that its energy is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evgrid.core.model import Array, Clock
from evgrid.errors import ScenarioError
from evgrid.readers import read_table, shown
from evgrid.readers.files import check_file, read_text
from evgrid.readers.series import Rules, Series, read_series
from evgrid.readers.time_tables import Reading
from evgrid.scenario.ambient import AmbientTemperature
from evgrid.scenario.solar import PvSystem

CALM_M_S = 1.0
"""Wind speed where no file gives it, m/s (assumption)."""
_HOUR_S, _DAY_S = 3600.0, 86400.0
_COLUMNS = {
    "ghi": Rules("number of W/m2 from 0 to 2000", 0.0, 2000.0, _HOUR_S, regular=True),
    "dni": Rules("number of W/m2 from 0 to 2000", 0.0, 2000.0, _HOUR_S, regular=True),
    "dhi": Rules("number of W/m2 from 0 to 2000", 0.0, 2000.0, _HOUR_S, regular=True),
    "temperature": Rules("temperature from -90 to 60 °C", -90.0, 60.0, _HOUR_S, regular=True),
    "wind_speed": Rules("wind speed from 0 to 120 m/s", 0.0, 120.0, _HOUR_S, regular=True),
}
_NAMES = {"temp_air": "temperature"}
"""Names of pvlib's that differ from ours."""


@dataclass(frozen=True, slots=True)
class Place:
    """Latitude and longitude in degrees, north and east positive, and altitude in m."""

    latitude: float
    longitude: float
    altitude: float


@dataclass(frozen=True, slots=True)
class Sun:
    """Position of the sun at some moments, (n,) each: apparent zenith and azimuth, degrees; beam outside the
    atmosphere, W/m2; relative air mass, NaN below the horizon.
    """

    zenith: Array
    azimuth: Array
    extra: Array
    airmass: Array


@dataclass(frozen=True, slots=True)
class Weather:
    """Weather at some moments, (n,) each: global horizontal, direct normal and diffuse horizontal irradiance,
    W/m2; temperature, °C; wind speed, m/s.
    """

    ghi: Array
    dni: Array
    dhi: Array
    temperature: Array
    wind_speed: Array


def sun_at(utc: pd.DatetimeIndex, place: Place) -> Sun:
    """Position of the sun, by NREL's algorithm."""
    from pvlib import atmosphere, irradiance, solarposition

    found = solarposition.get_solarposition(utc, place.latitude, place.longitude, place.altitude)
    zenith = found.apparent_zenith.to_numpy()
    return Sun(
        zenith,
        found.azimuth.to_numpy(),
        irradiance.get_extra_radiation(utc).to_numpy(),
        np.asarray(atmosphere.get_relative_airmass(zenith)),
    )


class ClearSky:
    """Clear sky by Ineichen and Perez, with the ambient temperature of the settings."""

    sample_s = _HOUR_S

    def __init__(self, settings: PvSystem, clock: Clock) -> None:
        """Raise ScenarioError with every fault of a file of temperatures."""
        assert settings.latitude is not None
        assert settings.longitude is not None
        self.place = Place(settings.latitude, settings.longitude, settings.altitude or 0.0)
        self._turbidity = settings.turbidity
        self._ambient = Ambience(settings, clock)

    def at(self, local_s: Array, utc: pd.DatetimeIndex, sun: Sun, day: NDArray[np.int64]) -> Weather:
        """See :meth:`FileWeather.at`."""
        from pvlib import atmosphere, clearsky

        place = self.place
        airmass = atmosphere.get_absolute_airmass(sun.airmass, atmosphere.alt2pres(place.altitude))
        turbidity = self._turbidity
        if turbidity is None:
            turbidity = clearsky.lookup_linke_turbidity(utc, place.latitude, place.longitude).to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):  # below the horizon
            found = clearsky.ineichen(sun.zenith, airmass, turbidity, place.altitude, sun.extra)
        ghi, dni, dhi = (np.nan_to_num(np.asarray(found[name])) for name in ("ghi", "dni", "dhi"))
        return Weather(ghi, dni, dhi, self._ambient.at(local_s), np.full(len(local_s), CALM_M_S))


class Ambience:
    """The ambient temperature of the settings at some moments: means over the hours of the run."""

    def __init__(self, settings: PvSystem, clock: Clock) -> None:
        self._ambient = AmbientTemperature(settings.ambient, clock)

    def at(self, local_s: Array) -> Array:
        """Temperature, °C, (n,)."""
        hour, of = np.unique(np.floor(local_s / _HOUR_S), return_inverse=True)
        means = [self._ambient.mean(_HOUR_S * h, _HOUR_S * (h + 1)) for h in hour.tolist()]
        return np.array(means)[of.reshape(-1)]


class FileWeather:
    """Weather from a file."""

    def __init__(self, settings: PvSystem, clock: Clock) -> None:
        """Read the file. Raises ScenarioError with every fault of it."""
        assert settings.weather is not None
        self._clock, self._ambient = clock, Ambience(settings, clock)
        file = settings.weather
        form = weather_format(file)
        self._rows: _Table | _Typical | _Hourly
        if form == "table":
            self._rows = _Table(file, clock, settings.time_format)
        else:
            if settings.time_format is not None:
                raise ScenarioError(
                    [f"time_format: the file is {form}, which says its times: leave it out"], str(file)
                )
            self._rows = _standard(file, form, settings.timezone, clock)
        given = self._rows.place
        if given is None and settings.latitude is None:
            raise ScenarioError(["the file names no place: give latitude and longitude"], str(file))
        latitude, longitude, altitude = (
            own if own is not None else other
            for own, other in zip(
                (settings.latitude, settings.longitude, settings.altitude),
                (given.latitude, given.longitude, given.altitude) if given is not None else (0.0, 0.0, 0.0),
                strict=True,
            )
        )
        self.place = Place(float(latitude), float(longitude), float(altitude))
        self.sample_s = self._rows.interval_s

    def at(self, local_s: Array, utc: pd.DatetimeIndex, sun: Sun, day: NDArray[np.int64]) -> Weather:
        """Weather at some moments.

        local_s : (n,) s from the run's start on its clock
        utc : (n,) the same in UTC
        day : (n,) number of the day; moments of an interval and day are together all of the interval that is
            in the day, over which its radiation is spread
        """
        from pvlib import irradiance

        row = self._rows.at(local_s, utc)
        columns = {
            name: np.where(row >= 0, values[np.maximum(row, 0)], 0.0)
            for name, values in self._rows.columns.items()
        }
        up = sun.zenith < 90.0
        _, span = np.unique(np.stack([day, row]), axis=1, return_inverse=True)
        span = span.reshape(-1)
        all_of, up_of = np.bincount(span), np.bincount(span, up)
        spread = np.where(up, all_of[span] / np.maximum(up_of[span], 1), 0.0)
        ghi = columns["ghi"] * spread
        cosine = np.maximum(np.cos(np.radians(sun.zenith)), 0.0)
        if "dni" in columns:
            dni, dhi = np.minimum(columns["dni"] * spread, sun.extra), columns["dhi"] * spread
        else:
            mean = (np.bincount(span, cosine) / np.maximum(up_of, 1))[span]
            zenith = np.degrees(np.arccos(np.clip(mean, 0.0, 1.0)))
            parts = irradiance.erbs(ghi, zenith, utc)
            dni, dhi = (np.nan_to_num(np.asarray(parts[name])) * up for name in ("dni", "dhi"))
            dni = np.minimum(dni, sun.extra)
        temperature = columns.get("temperature")
        wind = columns.get("wind_speed")
        return Weather(
            dni * cosine + dhi, dni, dhi,
            self._ambient.at(local_s) if temperature is None else temperature,
            np.full(len(local_s), CALM_M_S) if wind is None else wind,
        )  # fmt: skip


def typical_year(file: Path, timezone: str, clock: Clock) -> Callable[[pd.DatetimeIndex], Array]:
    """Temperature of the air at local times of any year, °C, by a file of a typical year.

    Raises ScenarioError for a file at fault, or that is of no typical year, or holds no temperature.
    """
    form = weather_format(file)
    if form == "table":
        raise ScenarioError(["is a table: must be TMY3, EPW or PVGIS, of a typical year"], str(file))
    rows = _standard(file, form, timezone, clock)
    if not isinstance(rows, _Typical) or "temperature" not in rows.columns:
        what = "holds no temperature" if isinstance(rows, _Typical) else "is of several years"
        raise ScenarioError([f"{what}: must be of a typical year, with temperature"], str(file))

    def at(local: pd.DatetimeIndex) -> Array:
        standard = np.zeros(len(local), np.bool_)
        zoned = local.tz_localize(timezone, ambiguous=standard, nonexistent="shift_forward")
        return np.asarray(rows.columns["temperature"][rows.at(np.zeros(len(local)), zoned.tz_convert("UTC"))])

    return at


def weather_of(settings: PvSystem, clock: Clock) -> ClearSky | FileWeather:
    """The weather of a PV's settings. Raises ScenarioError with every fault of its file."""
    return ClearSky(settings, clock) if settings.weather is None else FileWeather(settings, clock)


# ---- files ----------------------------------------------------------------------------------------


def weather_format(file: Path) -> str:
    """EPW, TMY3, PVGIS or table. Raises ScenarioError if the file can't be read."""
    if file.suffix.lower() == ".epw":
        return "EPW"
    if file.suffix.lower() != ".csv":
        return "table"
    check_file(file)
    with file.open("rb") as stream:
        first, second = (stream.readline(1000).decode("utf-8-sig", "replace") for _ in range(2))
    if first.startswith("LOCATION,"):
        return "EPW"
    if second.startswith("Date (MM/DD/YYYY),"):
        return "TMY3"
    return "PVGIS" if first.startswith("Latitude (decimal degrees)") else "table"


class _Table:
    """A table with the run's local times."""

    place: Place | None = None

    def __init__(self, file: Path, clock: Clock, time_format: str | None) -> None:
        names = read_table(file, comments=True).names
        faults = [f"there is no column '{name}'" for name in ("time", "ghi") if name not in names]
        faults += [
            f"column {shown(name)}: must be one of time, {', '.join(_COLUMNS)}"
            for name in names
            if name != "time" and name not in _COLUMNS
        ]
        if ("dni" in names) != ("dhi" in names):
            faults.append("give both dni and dhi, or neither")
        if faults:
            raise ScenarioError(faults, str(file))
        found, faults = dict[str, Series](), list[str]()
        for name in (name for name in names if name != "time"):
            try:
                found[name] = read_series(file, clock, _COLUMNS[name], name, Reading(time_format=time_format))
            except ScenarioError as error:
                faults += error.faults
        if faults:
            raise ScenarioError(list(dict.fromkeys(faults)), str(file))
        self._edges_s = found["ghi"].edges_s
        self.columns = {name: series.values for name, series in found.items()}
        self.interval_s = float(np.diff(self._edges_s).min())

    def at(self, local_s: Array, utc: pd.DatetimeIndex) -> NDArray[np.int64]:
        """Row of each moment, -1 before the first. Beyond the end the last day is repeated."""
        end_s = self._edges_s[-1]
        back = np.ceil((local_s - end_s + 1e-6) / _DAY_S).clip(0.0) * _DAY_S
        earlier = local_s - back
        earlier = np.where((back > 0) & (earlier < self._edges_s[0]), end_s - 1e-3, earlier)
        row = self._edges_s.searchsorted(earlier, "right") - 1
        return np.asarray(np.minimum(row, len(self._edges_s) - 2), np.int64)


class _Typical:
    """A typical year of hours, taken at the same date and time of day.

    offset_s : time of the file less UTC, s
    begin_s : begin of the first row's interval, s from the beginning of its year
    """

    interval_s = _HOUR_S

    def __init__(self, columns: dict[str, Array], place: Place, offset_s: float, begin_s: float) -> None:
        self.columns, self.place = columns, place
        self._offset_s, self._begin_s = offset_s, begin_s
        self._days = len(columns["ghi"]) // 24

    def at(self, local_s: Array, utc: pd.DatetimeIndex) -> NDArray[np.int64]:
        """Row of each moment."""
        there = (utc + pd.Timedelta(self._offset_s, "s")).tz_localize(None)
        day = there.dayofyear.to_numpy() - 1
        leap = there.is_leap_year
        if self._days == 365:
            day = day - (leap & (day >= 59)).astype(np.int64)
        else:
            day = day + (~leap & (day >= 59)).astype(np.int64)
        since_s = (there - there.normalize()).total_seconds().to_numpy()
        hour = np.floor((day * _DAY_S + since_s - self._begin_s) / _HOUR_S + 1e-9)
        return np.asarray(hour.astype(np.int64) % (24 * self._days), np.int64)


class _Hourly:
    """Hours of several years in UTC, which must cover the run."""

    interval_s = _HOUR_S

    def __init__(self, columns: dict[str, Array], place: Place, begin: Array) -> None:
        """``begin``: (hour,) begin of each row's interval, s since 1970."""
        self.columns, self.place = columns, place
        self._begin = begin

    def at(self, local_s: Array, utc: pd.DatetimeIndex) -> NDArray[np.int64]:
        """Row of each moment; the last day is repeated beyond the end."""
        seconds = utc.as_unit("us").asi8 / 1e6
        end = self._begin[-1] + _HOUR_S
        back = np.ceil((seconds - end + 1e-6) / _DAY_S).clip(0.0) * _DAY_S
        row = self._begin.searchsorted(seconds - back + 1e-6, "right") - 1
        return np.asarray(row, np.int64)


def _standard(file: Path, form: str, timezone: str, clock: Clock) -> _Typical | _Hourly:
    """A file of one of the formats that pvlib reads."""
    check_file(file)
    frame, meta = _read(file, form)
    pvgis = form == "PVGIS"
    header = meta["inputs"] if pvgis else meta
    place = Place(header["latitude"], header["longitude"], header["elevation" if pvgis else "altitude"])
    offset_h = 0.0 if pvgis else float(meta["TZ"])
    shift_h = float(header.get("irradiance time offset", 0.0)) if pvgis else 0.0
    utc = pd.DatetimeIndex(frame.index).tz_convert("UTC").as_unit("us")
    _check_header(file, place, offset_h, shift_h, utc)
    columns = _checked_columns(frame.rename(columns=_NAMES), utc, file)
    hours = utc.asi8 / 3.6e9
    local = (utc + pd.Timedelta(offset_h, "h")).tz_localize(None)
    of_year = (local.dayofyear.to_numpy() - 1) * 24 + local.hour.to_numpy()
    year = 8784 if len(hours) == 8784 else 8760
    if year == 8760:
        of_year = of_year - 24 * (local.is_leap_year & (local.dayofyear > 60)).astype(np.int64)
    odd = np.flatnonzero(of_year != (np.arange(len(hours)) + (form == "TMY3")) % year)
    if pvgis and "months_selected" not in meta and (len(odd) or len(hours) != year):
        return _of_years(file, columns, place, hours - 0.5, timezone, clock)
    if len(odd):
        row = int(odd[0])
        what = f"hour {row + 1} of the file is of {local[row]:%d %B %H:%M}: there is a gap before it"
        raise ScenarioError([f"{what}, and the file must have every hour of a year"], str(file))
    if len(hours) != year:
        raise ScenarioError([f"has {len(hours)} hours: must have every hour of a year"], str(file))
    begin_h = hours[0] % 1.0 - 0.5 + shift_h if pvgis else 0.0
    return _Typical(columns, place, offset_h * _HOUR_S, begin_h * _HOUR_S)


def _check_header(file: Path, place: Place, offset_h: float, shift_h: float, utc: pd.DatetimeIndex) -> None:
    """Refuse a place that isn't on earth, a time zone that there isn't, and times that are none."""
    faults = [
        f"{name} = {value:g} in the header: must be from {low:g} to {high:g}"
        for name, value, low, high in (
            ("latitude", place.latitude, -90.0, 90.0),
            ("longitude", place.longitude, -180.0, 180.0),
            ("altitude", place.altitude, -500.0, 9000.0),
            ("time zone", offset_h, -12.0, 14.0),
            ("irradiance time offset", shift_h, -1.0, 1.0),
        )
        if not low <= value <= high
    ]
    if not len(utc):
        faults.append("has no hours")
    elif len(bad := np.flatnonzero(utc.isna())):
        faults.append(f"hour {bad[0] + 1} of the file has no time")
    if faults:
        raise ScenarioError(faults, str(file))


def _of_years(
    file: Path, columns: dict[str, Array], place: Place, begin_h: Array, timezone: str, clock: Clock
) -> _Hourly:  # fmt: skip
    """Hours of real years."""
    gaps = np.flatnonzero(np.abs(np.diff(begin_h) - 1.0) > 1e-6)
    if len(gaps):
        row = int(gaps[0])
        when = pd.Timestamp(begin_h[row] + 0.5, unit="h")
        raise ScenarioError(
            [
                f"gap of {begin_h[row + 1] - begin_h[row]:g} h after {when:%Y-%m-%dT%H:%M} UTC: must have "
                "every hour"
            ],
            str(file),
        )
    run = utc_of(np.array([0.0, clock.duration_s]), clock, timezone)
    needed = run.as_unit("us").asi8 / 3.6e9
    if len(begin_h) < 24 or begin_h[0] > needed[0] or begin_h[-1] + 1.0 < needed[1]:
        first, last = (pd.Timestamp(h, unit="h") for h in (begin_h[0], begin_h[-1] + 1.0))
        raise ScenarioError(
            [
                f"has {len(begin_h)} hours, {first:%Y-%m-%dT%H:%M} to {last:%Y-%m-%dT%H:%M} UTC: must be one "
                f"year, or cover the run, {run[0]:%Y-%m-%dT%H:%M} to {run[1]:%Y-%m-%dT%H:%M} UTC"
            ],
            str(file),
        )
    return _Hourly(columns, place, begin_h * _HOUR_S)


def _read(file: Path, form: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and header of a file, by pvlib."""
    from pvlib import iotools

    path = str(file)
    if form == "PVGIS":
        form = "PVGIS TMY" if "month,year" in read_text(file)[:1000] else form
    readers: dict[str, Callable[[], tuple[pd.DataFrame, dict[str, Any]]]] = {
        "EPW": lambda: iotools.read_epw(path),
        "TMY3": lambda: iotools.read_tmy3(path, map_variables=True),
        "PVGIS TMY": lambda: iotools.read_pvgis_tmy(path, pvgis_format="csv"),
        "PVGIS": lambda: iotools.read_pvgis_hourly(path, pvgis_format="csv"),
    }
    try:
        return readers[form]()
    except Exception as error:  # pvlib raises various errors on files that are damaged
        text = shown(" ".join(str(error).split()) or type(error).__name__)
        raise ScenarioError([f"can't be read as {form}: {text}"], str(file)) from None


def _checked_columns(frame: pd.DataFrame, utc: pd.DatetimeIndex, file: Path) -> dict[str, Array]:
    """The columns that are used, without gaps and within their ranges."""
    faults, found = list[str](), dict[str, Array]()
    for name, rules in _COLUMNS.items():
        if name not in frame:
            if name in ("ghi", "dni", "dhi"):
                faults.append(f"there is no {name} in the file, which must hold ghi, dni and dhi")
            continue
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
        bad = np.flatnonzero(~((values >= rules.low) & (values <= rules.high)))
        if len(bad):
            row = int(bad[0])
            more = f" ({len(bad)} hours are like it)" if len(bad) > 1 else ""
            faults.append(
                f"{name} = {shown(frame[name].iloc[row])} in hour {row + 1} of the file "
                f"({utc[row]:%d %B %H:%M} UTC): must be a {rules.what}{more}"
            )
        found[name] = values
    if faults:
        raise ScenarioError(faults, str(file))
    return found


def utc_of(local_s: Array, clock: Clock, timezone: str) -> pd.DatetimeIndex:
    """Times of the run's local clock in UTC. The hour that comes twice is that of standard time."""
    local = pd.DatetimeIndex(clock.timestamps(local_s))
    standard = np.zeros(len(local), np.bool_)
    return local.tz_localize(timezone, ambiguous=standard, nonexistent="shift_forward").tz_convert("UTC")
