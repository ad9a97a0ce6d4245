"""Settings of the local functions of chargers and inverters, and the standards' defaults.

In: settings and the ratings of a charger. Out: rows of :data:`evgrid.inverter_functions.kernels.PARAMETERS`.

**Signs.** Curves are written as the standards print them: reactive power *injected* and active power
*exported* count as positive, in % of the rating. :func:`parameters` turns them, once, into evgrid's sign,
in which positive power is drawn from the grid: category B's +44 % at 0.92 pu becomes -0.44 S.

**Defaults.** IEEE 1547-2018: volt-var Table 8, watt-var Table 9, volt-watt Table 10, trips Tables 11 to 13
and 18, frequency droop 6.5.2.7 with Table 24, entering service Table 4. VDE-AR-N 4105:2018: the knees of
Q(U) and the power factors that bound it. All may be replaced by the user's own numbers, and should be
where a grid code's current edition or the grid operator requires others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, log, sqrt
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, model_validator

from evgrid.errors import ScenarioError
from evgrid.inverter_functions import kernels
from evgrid.readers.ieee2030_5 import functions_of
from evgrid.scenario.fields import Duration, ExistingFile, Positive, Settings, fault, faults, faults_of

Point = tuple[float, float]
Points = Annotated[tuple[Point, ...], Field(min_length=2, max_length=kernels.POINTS)]
Response = Annotated[Duration, Field(ge=0)]


def _name_or_settings(value: Any) -> str:
    return "<name>" if isinstance(value, str) else "<settings>"


def _check_curve(points: Sequence[Point], what: str, low: float, high: float, way: str = "") -> None:
    """Raise a fault unless x rises, and y is within ``low`` to ``high`` and changes the right ``way``."""
    for (x, y), (next_x, next_y) in pairwise(points):
        if next_x < x:
            raise fault(f"points must be in ascending order, but {next_x:g} follows {x:g}")
        if next_x == x and next_y != y:
            raise fault(f"points must not jump, but there are two values at {x:g}: {y:g} and {next_y:g}")
        if way == "fall" and next_y > y:
            raise fault(f"{what} must not rise, but does from {y:g} at {x:g} to {next_y:g} at {next_x:g}")
        if way == "rise" and next_y < y:
            raise fault(f"{what} must not fall, but does from {y:g} at {x:g} to {next_y:g} at {next_x:g}")
    for x, y in points:
        if not low <= y <= high:
            raise fault(f"{what} must be between {low:g} and {high:g}, but is {y:g} at {x:g}")


class VoltVar(Settings):
    """Reactive power by voltage."""

    points: Points
    """[voltage in pu of nominal, reactive power in % of rated apparent power], in ascending order of
    voltage; positive is injected, as the standards print it, so it falls with voltage."""
    response_s: Response = 10.0
    """Open-loop response time, s: 90 % of a step."""

    @model_validator(mode="after")
    def _falls(self) -> VoltVar:
        _check_curve(self.points, "injected reactive power", -100, 100, "fall")
        return self


class VoltWatt(Settings):
    """Most active power exported, by voltage. It does not act on charging."""

    points: Points
    """[voltage in pu of nominal, limit in % of rated discharge power], in ascending order of voltage."""
    response_s: Response = 10.0
    """Open-loop response time of the limit, s: 90 % of a step."""

    @model_validator(mode="after")
    def _falls(self) -> VoltWatt:
        _check_curve(self.points, "the limit to export", 0, 100, "fall")
        return self


class ChargingLimit(Settings):
    """Most active power drawn, by voltage: less charging at low voltage."""

    points: Points
    """[voltage in pu of nominal, limit in % of rated charging power], in ascending order of voltage."""
    response_s: Response = 10.0
    """Open-loop response time of the limit, s: 90 % of a step."""

    @model_validator(mode="after")
    def _rises(self) -> ChargingLimit:
        _check_curve(self.points, "the limit to charging", 0, 100, "rise")
        return self


class WattVar(Settings):
    """Reactive power by active power."""

    points: Points
    """[active power in % of rated power, positive exported and negative charging; reactive power in %
    of rated apparent power, positive injected], in ascending order of active power."""
    response_s: Response = 10.0
    """Response time, s: 90 % of a step."""

    @model_validator(mode="after")
    def _within_ratings(self) -> WattVar:
        _check_curve(self.points, "injected reactive power", -100, 100)
        for p, _ in self.points:
            if not -100 <= p <= 100:
                raise fault(f"active power must be between -100 and 100, but is {p:g}")
        return self


class PowerFactor(Settings):
    """Constant power factor, while charging and while discharging; without delay."""

    value: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Power factor cos phi, 0 to 1."""
    excitation: Literal["absorbs", "injects"] = "absorbs"
    """Whether reactive power is absorbed (lowers the voltage) or injected (raises it)."""


class FrequencyWatt(Settings):
    """Active power by frequency, relative to the charger's set-point: droop with a deadband."""

    droop_over: Positive = 0.05
    """Droop at high frequency: relative frequency beyond the deadband per relative power."""
    droop_under: Positive = 0.05
    """Droop at low frequency."""
    deadband_hz: Annotated[float, Field(ge=0)] = 0.036
    """Half width of the deadband, Hz."""
    response_s: Response = 5.0
    """Open-loop response time, s: 90 % of a step."""


Thresholds = Annotated[tuple[Point, ...], Field(max_length=2)]


class Trips(Settings):
    """Thresholds of voltage and frequency, with clearing times, beyond which it ceases to energise."""

    over_voltage: Thresholds = ()
    """[voltage in pu of nominal, clearing time in s], two at most."""
    under_voltage: Thresholds = ()
    """[voltage in pu of nominal, clearing time in s], two at most."""
    over_frequency: Thresholds = ()
    """[frequency in Hz, clearing time in s], two at most."""
    under_frequency: Thresholds = ()
    """[frequency in Hz, clearing time in s], two at most."""

    @model_validator(mode="after")
    def _are_possible(self) -> Trips:
        for key in ("over_voltage", "under_voltage", "over_frequency", "under_frequency"):
            for level, clearing_s in getattr(self, key):
                if level <= 0 or clearing_s < 0:
                    raise fault(
                        f"{key} must have thresholds above 0 and clearing times of at least 0, "
                        f"but has [{level:g}, {clearing_s:g}]"
                    )
        return self


class EnterService(Settings):
    """Conditions for a charger that was off to restart, and its ramp."""

    voltage_low_pu: Annotated[float, Field(ge=0)] = 0.917
    """Least healthy voltage, pu of nominal."""
    voltage_high_pu: Positive = 1.05
    """Greatest healthy voltage, pu of nominal."""
    frequency_low_hz: Annotated[float, Field(ge=0)] = 59.5
    """Least healthy frequency, Hz."""
    frequency_high_hz: Positive = 60.1
    """Greatest healthy frequency, Hz."""
    delay_s: Annotated[Duration, Field(ge=0)] = 300.0
    """Time that voltage and frequency must be healthy without a break, s."""
    ramp_s: Annotated[Duration, Field(ge=0)] = 300.0
    """Duration of the ramp from no power to rated power, s."""

    @model_validator(mode="after")
    def _bands_are_open(self) -> EnterService:
        for key, unit in (("voltage", "pu"), ("frequency", "hz")):
            low, high = getattr(self, f"{key}_low_{unit}"), getattr(self, f"{key}_high_{unit}")
            if low >= high:
                raise fault(f"{key}_low_{unit} = {low:g} must be below {key}_high_{unit} = {high:g}")
        return self


VOLT_VAR = {
    "ieee_1547_a": VoltVar(points=((0.90, 25), (1.0, 0), (1.0, 0), (1.10, -25)), response_s=10),
    "ieee_1547_b": VoltVar(points=((0.92, 44), (0.98, 0), (1.02, 0), (1.08, -44)), response_s=5),
}
"""IEEE 1547-2018, Table 8, by category of normal performance."""

WATT_VAR = {
    "ieee_1547_a": WattVar(points=((-100, 25), (-50, 0), (50, 0), (100, -25)), response_s=10),
    "ieee_1547_b": WattVar(points=((-100, 44), (-50, 0), (50, 0), (100, -44)), response_s=10),
}
"""IEEE 1547-2018, Table 9; the charging side mirrors the exporting side."""

TRIP_CATEGORIES = {
    "I": Trips(
        over_voltage=((1.20, 0.16), (1.10, 2)), under_voltage=((0.70, 2), (0.45, 0.16)),
        over_frequency=((62, 0.16), (61.2, 300)), under_frequency=((58.5, 300), (56.5, 0.16)),
    ),
    "II": Trips(
        over_voltage=((1.20, 0.16), (1.10, 2)), under_voltage=((0.70, 10), (0.45, 0.16)),
        over_frequency=((62, 0.16), (61.2, 300)), under_frequency=((58.5, 300), (56.5, 0.16)),
    ),
    "III": Trips(
        over_voltage=((1.20, 0.16), (1.10, 13)), under_voltage=((0.88, 21), (0.50, 2)),
        over_frequency=((62, 0.16), (61.2, 300)), under_frequency=((58.5, 300), (56.5, 0.16)),
    ),
}  # fmt: skip
"""IEEE 1547-2018, Tables 11 to 13 and 18, by category of abnormal performance; 60 Hz."""

IEEE_NOMINAL_HZ = 60.0


@dataclass(frozen=True, slots=True)
class Rating:
    """Ratings of a charger or inverter: kVA, and kW drawn and given, each at most the kVA.

    A PV inverter draws nothing (``charge_kw = 0``), a one-directional charger gives nothing.
    """

    s_kva: float
    charge_kw: float
    discharge_kw: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.s_kva < inf:
            raise ValueError(f"s_kva = {self.s_kva}: must be positive")
        for name in ("charge_kw", "discharge_kw"):
            if not 0 <= getattr(self, name) <= self.s_kva:
                raise ValueError(f"{name} = {getattr(self, name)}: must be from 0 to s_kva = {self.s_kva}")


def volt_var_vde_ar_n_4105(rating: Rating) -> VoltVar:
    """Q(U) of VDE-AR-N 4105: up to the reactive power at a power factor of 0.95, or 0.90 above 4.6 kVA.

    ``Q = sqrt(1 - cos(phi)**2)`` of rated apparent power: 31.2 % up to 4.6 kVA, 43.6 % above.
    The response time is a parameter, 10 s unless the user writes the curve as points.
    """
    power_factor = 0.95 if rating.s_kva <= 4.6 else 0.90
    most = 100.0 * sqrt(1.0 - power_factor**2)
    return VoltVar(points=((0.93, most), (0.97, 0), (1.03, 0), (1.07, -most)), response_s=10)


def volt_watt_ieee_1547(rating: Rating) -> VoltWatt:
    """Volt-watt of IEEE 1547-2018, Table 10 (both categories): 20 % at 1.10 pu, 0 if it can absorb."""
    least = 0.0 if rating.charge_kw > 0 else 20.0
    return VoltWatt(points=((1.06, 100), (1.10, least)), response_s=10)


class DerCurves(Settings):
    """DERCurves of IEEE 2030.5; see :func:`evgrid.readers.ieee2030_5.functions_of`."""

    files: Annotated[tuple[ExistingFile, ...], Field(min_length=1)]
    """DERCurveList or DERCurve: volt-var, volt-watt, watt-var; DefaultDERControl: frequency droop; XML or
    JSON."""
    most_var: Annotated[float, Field(gt=0, le=100)] = 100.0
    """Reactive power that percentages of it are of (setMaxVar), % of rated apparent power."""


class LocalFunctions(Settings):
    """Local functions of chargers, independent of the aggregator. All are off unless given."""

    curves: DerCurves | None = None
    """Functions by the DERCurves of IEEE 2030.5: they become volt_var, volt_watt, watt_var and
    frequency_watt, which are then left out here."""

    volt_var: (
        Annotated[
            Annotated[Literal["ieee_1547_a", "ieee_1547_b", "vde_ar_n_4105"], Tag("<name>")]
            | Annotated[VoltVar, Tag("<settings>")],
            Discriminator(_name_or_settings),
        ]
        | None
    ) = None
    """Reactive power by voltage: a standard's curve, or {points, response_s}."""
    watt_var: (
        Annotated[
            Annotated[Literal["ieee_1547_a", "ieee_1547_b"], Tag("<name>")]
            | Annotated[WattVar, Tag("<settings>")],
            Discriminator(_name_or_settings),
        ]
        | None
    ) = None
    """Reactive power by active power: a standard's curve, or {points, response_s}."""
    power_factor: PowerFactor | None = None
    """Constant power factor: {value, excitation}."""
    volt_watt: (
        Annotated[
            Annotated[Literal["ieee_1547_a", "ieee_1547_b"], Tag("<name>")]
            | Annotated[VoltWatt, Tag("<settings>")],
            Discriminator(_name_or_settings),
        ]
        | None
    ) = None
    """Limit to export by voltage: IEEE 1547's (the same for both categories), or {points, response_s}."""
    charging_limit: ChargingLimit | None = None
    """Limit to charging by voltage, {points, response_s}; not standardised, so there is no named curve."""
    frequency_watt: (
        Annotated[
            Annotated[Literal["ieee_1547"], Tag("<name>")] | Annotated[FrequencyWatt, Tag("<settings>")],
            Discriminator(_name_or_settings),
        ]
        | None
    ) = None
    """Active power by frequency: IEEE 1547's droop of 5 % beyond 36 mHz, or its settings."""
    priority: Literal["watt", "var"] = "watt"
    """Priority where rated apparent power does not suffice for both: active or reactive power."""
    trips: (
        Annotated[
            Annotated[Literal["I", "II", "III"], Tag("<name>")] | Annotated[Trips, Tag("<settings>")],
            Discriminator(_name_or_settings),
        ]
        | None
    ) = None
    """Trips: a category of IEEE 1547 (its frequencies are scaled to ``nominal_hz``), or thresholds."""
    enter_service: Annotated[
        Annotated[Literal["ieee_1547"], Tag("<name>")] | Annotated[EnterService, Tag("<settings>")],
        Discriminator(_name_or_settings),
    ] = "ieee_1547"
    """Restart after a trip or an outage: IEEE 1547's (its frequencies are scaled to
    ``nominal_hz``), or its settings."""
    nominal_hz: Literal[50, 60] = 60
    """Nominal frequency, Hz."""
    capable: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the chargers that have these functions, 0 to 1. The others draw at unity power factor
    whenever their connection point is energised."""

    @model_validator(mode="before")
    @classmethod
    def _by_curves(cls, given: Any, info: ValidationInfo) -> Any:
        """The functions of the curves as settings."""
        if not isinstance(given, Mapping) or given.get("curves") is None:
            return given
        try:
            curves = DerCurves.model_validate(given["curves"], context=info.context)
            found = functions_of(curves.files, curves.most_var)
        except ValidationError as error:
            raise faults(faults_of(error, DerCurves, "curves")) from None
        except ScenarioError as error:
            raise faults([f"curves: {fault}" for fault in error.faults]) from None
        if twice := [key for key in found if given.get(key) is not None]:
            raise faults([f"{key}: is given by curves, too: give one" for key in twice])
        return {**given, **found, "curves": None}

    @model_validator(mode="after")
    def _fit_together(self) -> LocalFunctions:
        found = []
        modes = [key for key in ("volt_var", "watt_var", "power_factor") if getattr(self, key) is not None]
        if len(modes) > 1:
            found.append(f"{' and '.join(modes)} can't act together: give one of them")
        enter, trips = self.service(), self.thresholds()
        for kind, unit in (("voltage", "pu"), ("frequency", "hz")):
            low, high = getattr(enter, f"{kind}_low_{unit}"), getattr(enter, f"{kind}_high_{unit}")
            for level, _ in getattr(trips, f"over_{kind}"):
                if level < high:
                    found.append(f"trips.over_{kind} = {level:g}: must be at least the greatest healthy "
                                 f"{kind} of enter_service, {high:g}")  # fmt: skip
            for level, _ in getattr(trips, f"under_{kind}"):
                if level > low:
                    found.append(f"trips.under_{kind} = {level:g}: must be at most the least healthy "
                                 f"{kind} of enter_service, {low:g}")  # fmt: skip
        if found:
            raise faults(found)
        return self

    def service(self) -> EnterService:
        """Conditions to enter service, with a standard's frequencies scaled to the nominal one."""
        if isinstance(self.enter_service, EnterService):
            return self.enter_service
        scale = self.nominal_hz / IEEE_NOMINAL_HZ
        return EnterService(frequency_low_hz=59.5 * scale, frequency_high_hz=60.1 * scale)

    def thresholds(self) -> Trips:
        """The trips, with a category's frequencies scaled to the nominal one."""
        if self.trips is None:
            return Trips()
        if isinstance(self.trips, Trips):
            return self.trips
        category = TRIP_CATEGORIES[self.trips]
        scale = self.nominal_hz / IEEE_NOMINAL_HZ
        return Trips(
            over_voltage=category.over_voltage,
            under_voltage=category.under_voltage,
            over_frequency=tuple((level * scale, time) for level, time in category.over_frequency),
            under_frequency=tuple((level * scale, time) for level, time in category.under_frequency),
        )


def parameters(functions: LocalFunctions | None, rating: Rating) -> NDArray[np.void]:
    """The parameters of one kind of charger, (1,) PARAMETERS; concatenate them for several kinds.

    Without functions (None: a charger that isn't capable), it draws its set-point at unity power factor
    while its connection point is energised, and again at once when that returns.
    """
    table = np.zeros(1, kernels.PARAMETERS)
    row: Any = table[0]
    row["s_kva"], row["charge_kw"], row["discharge_kw"] = rating.s_kva, rating.charge_kw, rating.discharge_kw
    for rate in ("reactive_rate", "export_rate", "charging_rate", "droop_rate"):
        row[rate] = inf
    row["droop_low_hz"], row["droop_high_hz"] = -inf, inf
    row["trip_level"], row["trip_s"] = [inf, inf, -inf, -inf] * 2, inf
    row["enter_low_pu"] = row["enter_low_hz"] = -inf
    row["enter_high_pu"] = row["enter_high_hz"] = inf
    if functions is not None:
        _reactive(row, functions, rating)
        _active(row, functions, rating)
        _service(row, functions)
    level = row["trip_level"]
    row["trip_high_pu"], row["trip_low_pu"] = level[0:2].min(), level[2:4].max()
    row["trip_high_hz"], row["trip_low_hz"] = level[4:6].min(), level[6:8].max()
    return table


def _reactive(row: Any, functions: LocalFunctions, rating: Rating) -> None:
    row["var_priority"] = functions.priority == "var"
    volt_var, watt_var = functions.volt_var, functions.watt_var
    if volt_var is not None:
        if isinstance(volt_var, str):
            volt_var = volt_var_vde_ar_n_4105(rating) if volt_var == "vde_ar_n_4105" else VOLT_VAR[volt_var]
        row["reactive"] = kernels.VOLT_VAR
        row["reactive_at"], injected = _padded(volt_var.points)
        row["reactive_kvar"] = -injected / 100.0 * rating.s_kva  # injected -> drawn
        row["reactive_rate"] = _rate(volt_var.response_s)
    elif watt_var is not None:
        watt_var = WATT_VAR[watt_var] if isinstance(watt_var, str) else watt_var
        row["reactive"] = kernels.WATT_VAR
        # exported -> drawn reverses the order of the points, injected -> drawn the sign of Q
        at, injected = _padded(tuple((-p, q) for p, q in reversed(watt_var.points)))
        row["reactive_at"] = at / 100.0
        row["reactive_kvar"] = -injected / 100.0 * rating.s_kva
        row["reactive_rate"] = _rate(watt_var.response_s)
    elif functions.power_factor is not None:
        factor = functions.power_factor
        drawn = sqrt(1.0 - factor.value**2) / factor.value
        row["reactive"] = kernels.POWER_FACTOR
        row["kvar_per_kw"] = drawn if factor.excitation == "absorbs" else -drawn


def _active(row: Any, functions: LocalFunctions, rating: Rating) -> None:
    volt_watt = functions.volt_watt
    if volt_watt is not None:
        volt_watt = volt_watt_ieee_1547(rating) if isinstance(volt_watt, str) else volt_watt
        row["limits_export"] = 1
        row["export_at"], limit = _padded(volt_watt.points)
        row["export_cut"] = 1.0 - limit / 100.0
        row["export_rate"] = _rate(volt_watt.response_s)
    if functions.charging_limit is not None:
        row["limits_charging"] = 1
        row["charging_at"], limit = _padded(functions.charging_limit.points)
        row["charging_cut"] = 1.0 - limit / 100.0
        row["charging_rate"] = _rate(functions.charging_limit.response_s)
    droop = functions.frequency_watt
    if droop is not None:
        droop = FrequencyWatt() if isinstance(droop, str) else droop
        rated_kw = max(rating.charge_kw, rating.discharge_kw)
        row["droop_high_hz"] = functions.nominal_hz + droop.deadband_hz
        row["droop_low_hz"] = functions.nominal_hz - droop.deadband_hz
        row["over_kw_per_hz"] = rated_kw / (functions.nominal_hz * droop.droop_over)
        row["under_kw_per_hz"] = rated_kw / (functions.nominal_hz * droop.droop_under)
        row["droop_rate"] = _rate(droop.response_s)


def _service(row: Any, functions: LocalFunctions) -> None:
    trips, enter = functions.thresholds(), functions.service()
    kinds = (trips.over_voltage, trips.under_voltage, trips.over_frequency, trips.under_frequency)
    for kind, thresholds in enumerate(kinds):
        for i, (level, clearing_s) in enumerate(thresholds):
            row["trip_level"][2 * kind + i] = level
            row["trip_s"][2 * kind + i] = clearing_s
    row["enter_low_pu"], row["enter_high_pu"] = enter.voltage_low_pu, enter.voltage_high_pu
    row["enter_low_hz"], row["enter_high_hz"] = enter.frequency_low_hz, enter.frequency_high_hz
    row["enter_delay_s"], row["ramp_s"] = enter.delay_s, enter.ramp_s


def _rate(response_s: float) -> float:
    """Rate of the first-order lag that covers 90 % of a step in ``response_s``, 1/s."""
    return log(10.0) / response_s if response_s > 0 else inf


def _padded(points: Sequence[Point]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = np.array(points, dtype=float)
    table = np.vstack([table, np.repeat(table[-1:], kernels.POINTS - len(table), axis=0)])
    return table[:, 0], table[:, 1]
