"""Settings of the feeder's devices: tap changers, capacitors, PV inverters, transformer ageing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from evgrid.scenario.ambient import Ambient
from evgrid.scenario.fields import Duration, ElementName, Positive, Settings, fault
from evgrid.scenario.inverter_functions import LocalFunctions


class LineDrop(Settings):
    """Line-drop compensation: hold the voltage at the end of a line that is not measured."""

    r_ohm: Annotated[float, Field(ge=0)] = 0.0
    """Resistance from the transformer to that point, ohm a phase at the regulated side's voltage."""
    x_ohm: float = 0.0
    """Reactance, likewise."""


class _Regulator(Settings):
    """A device with positions that holds a voltage within a band."""

    target_pu: Positive = 1.0
    """Voltage to hold, pu of nominal; in three phases the mean of their magnitudes, but for a tap changer
    with phases: each."""
    deadband_pu: Positive
    """Width of the band about the target in which the device does not operate, pu."""
    delay: Annotated[Duration, Field(ge=0)] = 30.0
    """Time for which the voltage must lie on one side of the band before the device operates. Back in
    the band, the time restarts."""
    next_delay: Annotated[Duration, Field(ge=0)] | None = None
    """Time from one operation to the next while the voltage stays outside; 0s: until it is in the band
    at once; left out: delay."""
    bus: ElementName | None = None
    """Bus whose voltage is held; left out: where the device is."""


class TapChanger(_Regulator):
    """An on-load tap changer. Range and step of its taps are those of the network."""

    trafo: ElementName
    """Name of the transformer, of two or three windings."""
    side: Literal["hv", "mv", "lv"] = "lv"
    """Side of the transformer whose voltage is held (mv: of three windings only)."""
    phases: Literal["all", "each"] = "all"
    """each: three taps, each of which holds the voltage of its phase (three single-phase regulators); needs
    three phases, an earthed star at the side of the tap changer, and solver z-bus."""
    line_drop: LineDrop | None = None
    """Line-drop compensation; left out: none."""

    @model_validator(mode="after")
    def _where(self) -> TapChanger:
        if self.line_drop is not None and (self.bus is not None or self.side == "hv"):
            raise fault("line_drop needs the voltage of the transformer's own side mv or lv: give no bus")
        return self


class Capacitor(_Regulator):
    """A switched shunt, capacitor or reactor, with the network's steps (0 to max_step)."""

    shunt: ElementName
    """Name of the shunt."""


class PvInverters(Settings):
    """The network's generation (sgen) as inverters with local functions."""

    functions: LocalFunctions
    """Local functions of the voltage: those of charger.functions, without those of frequency. They replace
    the network's reactive power."""
    at: list[ElementName] | None = None
    """Names of the generators; left out: all sgens, but not storage, motors and wards."""
    oversize: Annotated[float, Field(ge=1)] = 1.1
    """Rated apparent per rated active power, where the network gives no sn_mva."""

    @model_validator(mode="after")
    def _see_no_frequency(self) -> PvInverters:
        trips = self.functions.thresholds()
        if self.functions.frequency_watt is not None or trips.over_frequency or trips.under_frequency:
            raise fault(
                "functions: frequency_watt and trips by frequency have no effect here: the feeder sees no "
                "frequency; give trips as {over_voltage, under_voltage}"
            )
        return self


def _kind_of_constants(value: Any) -> str:
    if isinstance(value, str):
        return "<set>"
    each = isinstance(value, Mapping) and all(isinstance(v, Mapping | Settings) for v in value.values())
    return "<each>" if each and value else "<one>"


class TransformerThermal(Settings):
    """Thermal constants of a transformer. The defaults are IEC's for an ONAN distribution transformer."""

    top_oil_rise_k: Positive = 55.0
    """Δθor: steady rise of the top oil over ambient at rated losses, K (IEC's example for distribution
    transformers)."""
    gradient_k: Positive = 23.0
    """Δθhr: steady rise of the hot spot over the top oil at rated current, K: hot-spot factor times
    winding gradient, H gr."""
    loss_ratio: Positive = 5.0
    """R: load losses at rated current per no-load losses."""
    oil_exponent: Positive = 0.8
    """x (IEC 60076-7:2018, Table 4)."""
    winding_exponent: Positive = 1.6
    """y (IEC 60076-7:2018, Table 4)."""
    oil_time_constant_min: Positive = 180.0
    """τo, min (IEC 60076-7:2018, Table 4)."""
    winding_time_constant_min: Positive = 4.0
    """τw, min (IEC 60076-7:2018, Table 4)."""
    k11: Positive = 1.0
    """k11 (IEC 60076-7:2018, Table 4)."""
    k21: Annotated[float, Field(ge=1)] = 1.0
    """k21: above 1 the hot spot overshoots after a step up (IEC 60076-7:2018, Table 4)."""
    k22: Positive = 2.0
    """k22 (IEC 60076-7:2018, Table 4)."""
    paper: Literal["non_upgraded", "upgraded"] = "non_upgraded"
    """Insulation paper: normal ageing at 98 °C, or thermally upgraded, at 110 °C (also IEEE C57.91)."""


TRANSFORMER_PRESETS: Mapping[str, TransformerThermal] = {
    "onan_distribution": TransformerThermal(),
    "onaf_power": TransformerThermal(
        top_oil_rise_k=52.0, gradient_k=26.0, loss_ratio=6.0, winding_exponent=1.3, k11=0.5, k21=2.0,
        oil_time_constant_min=150.0, winding_time_constant_min=7.0,
    ),
}  # fmt: skip
"""Sets of constants by name: IEC 60076-7:2018, Table 4, with its example rises and loss ratios. All reach a
hot spot of 98 °C at rated load and 20 °C."""


class TransformerAgeing(Settings):
    """Hot spot and loss of life of the transformers, IEC 60076-7 and IEEE C57.91."""

    ambient: Ambient = 20.0
    """Ambient temperature: °C, {mean_c, amplitude_c, warmest_h}, or {file: weather.csv, column: t}."""
    transformer: Annotated[
        Annotated[Literal["onan_distribution", "onaf_power"], Tag("<set>")]
        | Annotated[TransformerThermal, Tag("<one>")]
        | Annotated[dict[ElementName, TransformerThermal], Tag("<each>")],
        Discriminator(_kind_of_constants),
    ] = "onan_distribution"
    """Thermal constants: a set by name, your own, or your own for each transformer by its name."""
    start_load: Annotated[float, Field(ge=0)] | None = None
    """Load, per rated current, at which they are in steady state before the run; left out: the first
    step's."""
