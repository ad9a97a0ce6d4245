"""AC power of PV over time: pvlib's PVWatts chain.

In: the settings of the PV and the run's clock. Out: the mean AC power of each slot of the day, kW, held over
the slot: sun's position (NREL), irradiance on the modules (Perez), reflection (physical model), cell
temperature (Sandia), DC power and inverter (PVWatts). The power is computed at moments at most
:data:`SAMPLE_S` apart, and its mean taken; so it depends on neither the tick nor the span that is asked for.
Left out: shading, snow, spectrum, and what the inverter draws at night.

Sources: pvlib (10.21105/joss.05994); PVWatts version 5 (Dobos 2014, NREL/TP-6A20-62641).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array, Clock
from evgrid.core.slots import Slots
from evgrid.scenario.solar import PvSystem
from evgrid.solar.weather import sun_at, utc_of, weather_of

SAMPLE_S = 180.0
"""Longest time between the moments at which the power is computed, s."""
_DAY_S = 86400.0
_MOUNTING = {"open_rack": "open_rack_glass_glass", "roof": "close_mount_glass_glass"}


class PvPower:
    """The AC power of one PV over time: one row of :class:`evgrid.sites.profiles.Profiles`."""

    rows = 1

    def __init__(self, settings: PvSystem, clock: Clock) -> None:
        """Raise ScenarioError with every fault of a weather file."""
        self._settings, self._clock = settings, clock
        self._weather = weather_of(settings, clock)
        start = clock.start.astype("datetime64[us]")
        self._midnight_s = -float((start - start.astype("datetime64[D]")).astype(np.int64)) / 1e6
        self._days: dict[int, Array] = {}

    def slots(self, begin_s: float, end_s: float) -> Slots:
        """See :meth:`evgrid.sites.profiles.Profile.slots`."""
        slot_s = self._settings.slot
        first = math.floor((begin_s - self._midnight_s) / slot_s + 1e-9)
        last = max(math.ceil((end_s - self._midnight_s) / slot_s - 1e-9), first + 1)
        of_day = round(_DAY_S / slot_s)
        days = range(first // of_day, (last - 1) // of_day + 1)
        self._compute([day for day in days if day not in self._days])
        kw = np.concatenate([self._days[day] for day in days])[first - days[0] * of_day :][: last - first]
        edges = self._midnight_s + slot_s * np.arange(first, last + 1, dtype=np.float64)
        edges[0], edges[-1] = begin_s, end_s
        return Slots(edges, kw[np.newaxis])

    def _compute(self, days: list[int]) -> None:
        """Power in the slots of some days, numbered from that of the run's start."""
        slot_s = self._settings.slot
        of_slot = math.ceil(slot_s / min(SAMPLE_S, self._weather.sample_s) - 1e-9)
        of_day = round(_DAY_S / slot_s) * of_slot
        for chunk in (days[k : k + 32] for k in range(0, len(days), 32)):
            number = np.repeat(np.array(chunk, np.int64), of_day)
            within = (np.arange(of_day) + 0.5) * (slot_s / of_slot)
            local_s = np.asarray(self._midnight_s + _DAY_S * number + np.tile(within, len(chunk)), np.float64)
            power = self._power(local_s, number).reshape(len(chunk), -1, of_slot).mean(axis=2)
            self._days |= zip(chunk, power, strict=True)

    def _power(self, local_s: Array, day: NDArray[np.int64]) -> Array:
        """AC power at some moments, kW, (n,)."""
        from pvlib import iam, inverter, irradiance, pvsystem, temperature

        given = self._settings
        utc = utc_of(local_s, self._clock, given.timezone)
        sun = sun_at(utc, self._weather.place)
        weather = self._weather.at(local_s, utc, sun, day)
        with np.errstate(divide="ignore", invalid="ignore"):  # without light
            on_plane = irradiance.get_total_irradiance(
                given.tilt, given.azimuth, sun.zenith, sun.azimuth, weather.dni, weather.ghi, weather.dhi,
                dni_extra=sun.extra, airmass=sun.airmass, albedo=given.albedo, model="perez",
            )  # fmt: skip
        direct, diffuse, total = (
            np.nan_to_num(np.asarray(on_plane[name])) for name in ("poa_direct", "poa_diffuse", "poa_global")
        )
        incidence = irradiance.aoi(given.tilt, given.azimuth, sun.zenith, sun.azimuth)
        effective = direct * np.nan_to_num(iam.physical(incidence)) + diffuse
        mounting = temperature.TEMPERATURE_MODEL_PARAMETERS["sapm"][_MOUNTING[given.mounting]]
        cell = temperature.sapm_cell(total, weather.temperature, weather.wind_speed, **mounting)
        dc_kw = pvsystem.pvwatts_dc(effective, cell, given.dc_kw, given.temperature_coefficient)
        dc_kw = np.maximum(dc_kw * (1.0 - given.losses), 0.0)
        efficiency = given.inverter_efficiency
        ac_kw = inverter.pvwatts(dc_kw, given.most_ac_kw / efficiency, efficiency)
        return np.maximum(np.nan_to_num(np.asarray(ac_kw, np.float64)), 0.0)
