"""Settings of PV that pvlib computes: modules, place, weather and inverter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from evgrid.scenario.ambient import Ambient
from evgrid.scenario.fields import Duration, ExistingFile, Settings, Share, TimeFormat, TimeZone, fault


class PvSystem(Settings):
    """PV by pvlib: clear sky, or a weather file."""

    tilt: Annotated[float, Field(ge=0, le=90)] = 30.0
    """Tilt of the modules from the horizontal, degrees."""
    azimuth: Annotated[float, Field(ge=0, le=360)] = 180.0
    """Direction that the modules face, degrees clockwise from north: 180 is south."""
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    """Latitude, degrees, north positive; left out: that of the weather file, if it has one."""
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None
    """Longitude, degrees, east positive; left out: that of the weather file, if it has one."""
    altitude: Annotated[float, Field(ge=-500, le=9000)] | None = None
    """Height above sea level, m; left out: that of the weather file, else 0."""
    timezone: TimeZone
    """Time zone of the run's local time, such as Europe/Berlin, by which the sun's position follows."""
    weather: ExistingFile | None = None
    """A weather file: TMY3 or PVGIS (CSV), EPW, or a table with a column time in the run's local time, ghi in
    W/m2, and, if it has them, dni and dhi in W/m2, temperature in °C and wind_speed in m/s. Left out: clear
    sky."""
    time_format: TimeFormat | None = None
    """Form of the times of a table; left out: ISO 8601, or seconds from the run's start."""
    turbidity: Annotated[float, Field(ge=1, le=10)] | None = None
    """Linke turbidity of the clear sky; left out: the monthly one of the place (pvlib's table)."""
    ambient: Ambient = 20.0
    """Ambient temperature where no weather file gives it: °C, {mean_c, amplitude_c, warmest_h}, or
    {file: weather.csv, column: t}."""
    mounting: Literal["open_rack", "roof"] = "roof"
    """Mounting of the modules, for their temperature: open_rack, or roof (close to it)."""
    temperature_coefficient: Annotated[float, Field(ge=-0.02, le=0)] = -0.0037
    """Change of the DC power with the cell temperature, 1/K."""
    losses: Annotated[float, Field(ge=0, lt=1)] = 0.14
    """Losses of the DC side: soiling, mismatch, wiring, degradation and others, 0 to 1."""
    inverter_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.96
    """Efficiency of the inverter at its rated power."""
    albedo: Share = 0.2
    """Share of the radiation that the ground reflects."""
    slot: Annotated[Duration, Field(ge=60, le=3600)] = 900.0
    """Length of the slots, counted from midnight, over which the power is a mean and held."""

    @model_validator(mode="after")
    def _somewhere(self) -> PvSystem:
        if (self.latitude is None) != (self.longitude is None):
            raise fault("give both latitude and longitude")
        if self.latitude is None and self.weather is None:
            raise fault("latitude and longitude are required: clear sky needs the place of the PV")
        if self.weather is None and self.time_format is not None:
            raise fault("time_format is of a weather file: give weather, or leave it out")
        if self.weather is not None and self.turbidity is not None:
            raise fault("turbidity is of clear sky: leave it out with a weather file")
        parts = 86400.0 / self.slot
        if abs(parts - round(parts)) > 1e-9:
            raise fault(f"slot = {self.slot:g}s: must divide a day")
        return self

    @property
    def dc_kw(self) -> float:
        """Rated DC power, kWp."""
        raise NotImplementedError

    @property
    def most_ac_kw(self) -> float:
        """Rated AC power, kW."""
        raise NotImplementedError


class NetworkPv(PvSystem):
    """PV of generators of the network: of each, its power in the network is the rated AC power."""

    dc_per_ac: Annotated[float, Field(gt=0, le=5)] = 1.0
    """Rated DC power of the modules per rated AC power."""

    @property
    def dc_kw(self) -> float:
        """Rated DC power, kWp, of one kW."""
        return self.dc_per_ac

    @property
    def most_ac_kw(self) -> float:
        """Rated AC power, kW, of one kW."""
        return 1.0
