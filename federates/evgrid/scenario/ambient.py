"""Ambient temperature over the run: a number, a sinusoid of a day, or a table.

In: the setting of a scenario. Out: its mean over any part of the run, °C.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sin
from typing import Annotated, Any

import numpy as np
from pydantic import Discriminator, Field, Tag

from evgrid.core.model import Clock
from evgrid.core.units import DAY_S
from evgrid.readers.series import Rules, read_series
from evgrid.scenario.fields import ExistingFile, Settings
from evgrid.scenario.time_series import TimeSeries

RULES = Rules("temperature in °C", -60.0, 60.0)


class Sinusoid(Settings):
    """Ambient temperature as a daily sinusoid."""

    mean_c: float
    """Mean of the day, °C."""
    amplitude_c: Annotated[float, Field(ge=0)] = 5.0
    """Half of the difference between warmest and coldest hour, K."""
    warmest_h: Annotated[float, Field(ge=0, lt=24)] = 15.0
    """Warmest hour of the day, local time."""


class TemperatureFile(TimeSeries):
    """Ambient temperature from a table."""

    file: ExistingFile
    """CSV, Excel, Parquet or NetCDF with a column time and one of °C; each value holds until the next."""
    column: str | None = None
    """Name of the column, or of the series in a long table; left out: the only one."""


def _kind(value: Any) -> str:
    if isinstance(value, TemperatureFile) or (isinstance(value, Mapping) and "file" in value):
        return "<file>"
    return "<sinusoid>" if isinstance(value, Sinusoid | Mapping) else "<number>"


Ambient = Annotated[
    Annotated[float, Tag("<number>")]
    | Annotated[Sinusoid, Tag("<sinusoid>")]
    | Annotated[TemperatureFile, Tag("<file>")],
    Discriminator(_kind),
]
"""Ambient temperature: °C, {mean_c, amplitude_c, warmest_h}, or {file: weather.csv, column: t}."""


class AmbientTemperature:
    """The mean ambient temperature over parts of a run."""

    def __init__(self, settings: Ambient, clock: Clock) -> None:
        """Raise ScenarioError with every fault of a file."""
        self._settings = settings
        if isinstance(settings, TemperatureFile):
            self._series = read_series(settings.file, clock, RULES, settings.column, settings.reading)
        self._start_s = 3600.0 * start_hour(clock)

    def mean(self, begin_s: float, end_s: float) -> float:
        """Mean over [begin_s, end_s), seconds from the start; °C."""
        settings = self._settings
        if isinstance(settings, TemperatureFile):
            return float(self._series.mean(begin_s, end_s))
        if isinstance(settings, Sinusoid):
            omega = 2.0 * pi / DAY_S
            begin, end = (omega * (self._start_s + t - 3600.0 * settings.warmest_h) for t in (begin_s, end_s))
            return settings.mean_c + settings.amplitude_c * (sin(end) - sin(begin)) / (end - begin)
        return float(settings)


def start_hour(clock: Clock) -> float:
    """Local hour of the day at which the run starts, 0 to 24."""
    start = clock.start.astype("datetime64[s]")
    return float((start - start.astype("datetime64[D]")) / np.timedelta64(1, "h"))
