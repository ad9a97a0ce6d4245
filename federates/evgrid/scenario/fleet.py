"""The section ``fleet`` of a scenario: EVs, their chargers, batteries and permissions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter, ValidationInfo, model_validator

from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError
from evgrid.scenario.ambient import Ambient
from evgrid.scenario.fields import (
    Duration,
    ElementName,
    ExistingFile,
    HourSpan,
    Settings,
    Share,
    fault,
    faults,
)
from evgrid.scenario.inverter_functions import LocalFunctions
from evgrid.scenario.sessions import SessionSource, session_source
from evgrid.scenario.vehicles import SHIPPED, ChargeCurve, Mix, read_mix, single_type


class ChargerKind(Settings):
    """Chargers of one kind."""

    power_kw: Annotated[float, Field(gt=0)]
    """Rated active power, kW at the grid."""
    phases: Literal[1, 3] = 1
    """Number of phases: 1 or 3."""
    share: Share = 1.0
    """Share of the chargers that are of this kind; relative to the sum of all."""


class Charger(Settings):
    """The EVSE at each EV's connection point."""

    power_kw: Annotated[float, Field(gt=0)] = 7.4
    """Rated active power, kW at the grid."""
    ratings: Annotated[dict[Annotated[float, Field(gt=0)], Share], Field(min_length=1)] | None = None
    """Shares of chargers by rated power, {3.7: 0.5, 7.4: 0.5}, drawn for each EV, in place of power_kw;
    relative to their sum. Left out: all have power_kw."""
    phases: Literal[1, 3] = 1
    """Number of phases: 1 (on the phase of its connection point) or 3."""
    kinds: Annotated[tuple[ChargerKind, ...], Field(min_length=1)] | None = None
    """Kinds of chargers with their shares, such as [{power_kw: 7.4, share: 0.7}, {power_kw: 11, phases: 3,
    share: 0.3}], drawn for each EV, in place of power_kw, ratings and phases, which then are the largest.
    Left out: all have the same phases."""
    current: Literal["ac", "dc"] = "ac"
    """ac: the vehicle's on-board charger limits the power; dc: its DC inlet, and phases must be 3."""
    bidirectional: Annotated[Share, Field()] = 0.0
    """Share of the chargers that can discharge, 0 to 1 (true and false stand for 1 and 0)."""
    apparent_kva: Annotated[float, Field(gt=0)] | None = None
    """Rated apparent power, kVA, at least power_kw; left out: power_kw. Reactive power is limited by it
    together with active power. It scales with a session's greatest power, where that is not power_kw."""
    functions: LocalFunctions | None = None
    """Local functions of voltage and frequency; left out: none. Their trips and limits take precedence over
    the departure guard."""
    minimum_current_a: Annotated[float, Field(ge=0)] = 0.0
    """Least charging current, A a phase; set-points below it are 0. IEC 61851-1 has none below 6 A."""
    pilot_step_a: Annotated[float, Field(ge=0)] = 0.0
    """Step of the currents that the EVSE can offer, A; set-points to charge are rounded down to a step.
    0: continuous."""
    nominal_v: Annotated[float, Field(gt=0)] = 230.0
    """Voltage from phase to neutral for the conversion of set-points to currents, V."""
    ramp_kw_per_s: Annotated[float, Field(gt=0)] | None = None
    """Greatest ramp rate of the power, kW/s; left out: no limit. It does not apply to the departure guard."""

    @property
    def shares(self) -> dict[float, float]:
        """Share of chargers by rated power, kW; together 1."""
        found: dict[float, float] = {}
        for kind in self.drawn:
            found[kind.power_kw] = found.get(kind.power_kw, 0.0) + kind.share
        return {kw: share / sum(found.values()) for kw, share in found.items()}

    @property
    def drawn(self) -> tuple[ChargerKind, ...]:
        """The kinds that are drawn from: kinds, or ratings or power_kw with the phases of all."""
        given = self.ratings or {self.power_kw: 1.0}
        alike = tuple(ChargerKind(power_kw=kw, phases=self.phases, share=given[kw]) for kw in given)
        return self.kinds or alike

    @property
    def on_one_phase(self) -> bool:
        """Whether chargers of one phase are drawn."""
        return any(kind.phases == 1 for kind in self.drawn)

    @model_validator(mode="before")
    @classmethod
    def _largest_of_kinds(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("kinds") is None:
            return given
        if given.get("ratings") is not None:
            raise fault("give either ratings or kinds")
        try:
            kinds = TypeAdapter(tuple[ChargerKind, ...]).validate_python(given["kinds"])
            largest = {key: max(getattr(kind, key) for kind in kinds) for key in ("power_kw", "phases")}
        except ValueError:  # the field itself says what is wrong
            return given
        for key, value in largest.items():
            if given.get(key, value) != value:
                raise fault(f"{key} = {given[key]}: is said by kinds; leave it out")
        return {**given, **largest}

    @model_validator(mode="after")
    def _carries_its_power(self) -> Charger:
        if self.ratings is not None and not sum(self.ratings.values()) > 0:
            raise fault("ratings: one of the shares must be greater than 0")
        if self.kinds is not None and not sum(kind.share for kind in self.kinds) > 0:
            raise fault("kinds: one of the shares must be greater than 0")
        if self.apparent_kva is not None and self.apparent_kva < self.power_kw:
            raise fault(
                f"apparent_kva = {self.apparent_kva:g}: must be at least power_kw = {self.power_kw:g}"
            )
        return self


class ChargePoints(Settings):
    """Charge points that the EVs of a connection point share, first come, first served."""

    each: Annotated[int, Field(ge=1)] | None = None
    """Number of charge points at every connection point with EVs; left out: each EV has its own, but
    where the file says another number."""
    file: ExistingFile | None = None
    """Table with a row a connection point: connection, and what holds there: points (their number), and, for
    sampled sessions, power_kw and phases (1 or 3) of the chargers. An empty cell: what the scenario says."""
    waiting: Literal["queue", "leave"] = "queue"
    """queue: who finds no charge point free waits for the next; leave: leaves without charging."""
    patience: Annotated[Duration, Field(gt=0)] | None = None
    """Longest wait, after which an EV leaves without charging; left out: until it would depart, with
    stay = as_long until its own next arrival."""
    stay: Literal["until_departure", "as_long"] = "until_departure"
    """until_departure: who has waited departs when it would have; as_long: it stays as long as it would
    have, from when it is plugged in, until its own next arrival at most."""

    @model_validator(mode="after")
    def _says_where(self) -> ChargePoints:
        if self.each is None and self.file is None:
            raise fault("give each (charge points at every connection point), file, or both")
        if self.waiting == "leave" and self.patience is not None:
            raise fault("patience is for waiting = queue")
        return self


class Temperature(Settings):
    """Temperature of the battery and its limits of power."""

    ambient: Ambient = 20.0
    """Ambient temperature: °C, {mean_c, amplitude_c, warmest_h}, or {file: weather.csv, column: t}."""
    time_constant: Annotated[Duration, Field(gt=0)] = 14400.0
    """Thermal time constant of the cell."""
    heating_k_per_kw: Annotated[float, Field(ge=0)] = 0.0
    """Steady rise of the cell temperature per kW of loss, standby included, K/kW."""
    freezing_c: float = 0.0
    """Cell temperature below which there is no charging, °C."""
    mild_c: float = 10.0
    """Cell temperature from which charging is not limited by cold, °C."""
    cold_c_rates: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.2, 0.5)
    """Limit to charging at freezing_c and just below mild_c, linear between, 1/h of the capacity."""
    warm_c: float = 45.0
    """Cell temperature above which charging and discharging fall linearly, °C."""
    hot_c: float = 55.0
    """Cell temperature at which both stop, °C."""

    @model_validator(mode="after")
    def _rises(self) -> Temperature:
        limits = [self.freezing_c, self.mild_c, self.warm_c, self.hot_c]
        if not all(low < high for low, high in pairwise(limits)):
            raise fault("freezing_c, mild_c, warm_c, hot_c must rise in this order")
        return self


class Degradation(Settings):
    """Ageing of the batteries, computed during the run."""

    battery_price: Annotated[float, Field(ge=0)] = 139.0
    """Price of a new battery, currency per kWh of capacity."""
    worthless_at: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Relative capacity at which a battery is worth nothing: a lost kWh costs its price over
    1 - worthless_at."""
    age_years: Annotated[float, Field(ge=0)] = 3.0
    """Age of the batteries at the start; a new one loses fastest."""
    full_cycles_per_year: Annotated[float, Field(ge=0)] = 60.0
    """Equivalent full cycles a year before the start."""
    temperature_c: Annotated[float, Field(ge=-40, le=60)] = 25.0
    """Temperature of the cells before the start and, without vehicle.temperature, in the run, °C."""


class Vehicle(Settings):
    """The vehicle."""

    capacity_kwh: Annotated[float, Field(gt=0)] = 60.0
    """Usable battery capacity, kWh."""
    charge_kw: Annotated[float, Field(gt=0)] = 11.0
    """Most that the vehicle draws from an AC charger, kW at the grid."""
    dc_kw: Annotated[float, Field(gt=0)] = 100.0
    """Most that the vehicle draws from a DC charger, kW at the grid."""
    discharge_kw: Annotated[float, Field(gt=0)] = 11.0
    """Most that the vehicle gives back, kW at the grid."""
    charge_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Energy into the battery per energy from the grid."""
    discharge_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Energy into the grid per energy out of the battery."""
    taper_soc: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """State of charge above which the charging power falls linearly."""
    charge_curve: ChargeCurve | None = None
    """Most power from a DC charger against state of charge, {soc: [...], kw: [...]}, within dc_kw, in place
    of the taper; left out: the taper."""
    soc_floor: Share = 0.2
    """State of charge below which the vehicle does not discharge."""
    soc_target: Annotated[float, Field(gt=0, le=1)] = 0.9
    """State of charge wanted by departure."""
    consumption_kwh_per_mile: Annotated[float, Field(gt=0)] = 0.325
    """Energy out of the battery per mile driven, kWh."""
    losses: Literal["constant", "by_power", "bidirectional_by_power"] = "bidirectional_by_power"
    """constant: charge_efficiency and discharge_efficiency at any power; by_power: a quadratic loss.
    A one-directional vehicle has the mean on-board charger of eight EVs (86 % at 16 A on one phase, 90 %
    on three), a bidirectional one 66 W + 3.56 % + 0.224 %/kW both ways: 87 % round trip at 3 x 16 A.
    bidirectional_by_power: so for sampled EVs that can discharge, constant for others and in session
    files. Left out: constant where an efficiency is given, else bidirectional_by_power."""
    standby_kw: Annotated[float, Field(ge=0)] = 0.0
    """Standby loss while plugged in and neither charging nor discharging, kW. About 0.066 kW."""
    chemistry: Literal["nmc", "lfp"] = "nmc"
    """Chemistry of the battery, for its degradation, of EVs whose vehicle type or session gives none."""
    temperature: Temperature | None = None
    """Temperature of the battery; left out: no limits by temperature."""
    degradation: Degradation | None = None
    """Ageing of the battery; left out: not computed."""

    @model_validator(mode="before")
    @classmethod
    def _given_efficiencies_hold(cls, given: Any) -> Any:
        efficiencies = {"charge_efficiency", "discharge_efficiency"}
        if isinstance(given, Mapping) and "losses" not in given and efficiencies & given.keys():
            return {**given, "losses": "constant"}
        return given


class Warranty(Settings):
    """Limits of the battery's warranty; caps are per EV over the run."""

    approved: Share = 1.0
    """Share of the EVSEs approved by the vehicles' makers."""
    soc_floor: Share = 0.0
    """State of charge below which it forbids discharging."""
    throughput_kwh: Annotated[float, Field(ge=0)] | None = None
    """Most energy discharged, kWh out of the battery; left out: no cap."""
    hours: Annotated[float, Field(ge=0)] | None = None
    """Most hours of discharging; left out: no cap."""


class Driver(Settings):
    """Permission of the drivers."""

    willing: Share = 1.0
    """Share of the drivers who let their EV discharge."""
    soc_floor: Share = 0.0
    """State of charge below which they don't allow it."""
    window: HourSpan | None = None
    """Local hours between which they allow it, such as [16, 21], ['17:30', 21] or, over midnight, [22, 6];
    left out: always. A tick counts by its beginning."""


class Permission(Settings):
    """Permissions that an EV needs to discharge, besides its EVSE (charger.bidirectional): all of them."""

    vehicle: Share = 1.0
    """Share of the vehicles that can discharge."""
    interconnection: Share = 1.0
    """Share of the connection points whose EVSE the grid operator has approved."""
    warranty: Warranty = Warranty()
    """The battery's warranty."""
    driver: Driver = Driver()
    """The driver."""


Group = Literal["feeder", "transformer", "connection"]


class FlexibilityEnvelope(Settings):
    """Limits of the fleet's power and energy over a horizon, from which every departure is met."""

    horizon: Annotated[Duration, Field(gt=0)] = DAY_S
    """Horizon; a multiple of the slot."""
    slot: Annotated[Duration, Field(gt=0)] = 900.0
    """Length of its slots."""
    every: Annotated[Duration, Field(gt=0)] | None = None
    """Period at which it is recomputed, a multiple of time.step; left out: every slot."""
    group: Group = "feeder"
    """Groups over which the result sums it in each member: all EVs, those below each transformer (of a bank:
    at its first), or those at each connection point."""

    @model_validator(mode="after")
    def _whole_slots(self) -> FlexibilityEnvelope:
        if abs(self.horizon / self.slot - self.slots) > 1e-9 or self.slots < 1:
            raise fault(f"horizon = {self.horizon:g}s: must be a multiple of slot = {self.slot:g}s")
        return self

    @property
    def slots(self) -> int:
        """Slots in the horizon."""
        return round(self.horizon / self.slot)

    @property
    def every_s(self) -> float:
        """Period at which it is recomputed, s."""
        return self.slot if self.every is None else self.every


def _source(value: Any, info: ValidationInfo) -> Any:
    return session_source(value, info.context)


def _mix(value: Any, info: ValidationInfo) -> Any:
    if value is None or isinstance(value, Mix):
        return value
    try:
        return read_mix(value, (info.context or {}).get("folder"))
    except ScenarioError as error:
        raise faults(error.faults) from None


class FleetArea(Settings):
    """The EVs of the homes in a part of the feeder."""

    at: Annotated[list[ElementName], Field(min_length=1)]
    """Names of its connection points, or patterns such as 'North*'."""
    penetration: Annotated[float, Field(ge=0, le=5)]
    """EVs per household."""


class Fleet(Settings):
    """The EVs, their chargers and their sessions."""

    penetration: Annotated[float, Field(ge=0, le=5)] | None = None
    """EVs per household (home only); above 1 some households have several."""
    count: Annotated[int, Field(ge=0)] | None = None
    """Number of EVs in each member, instead of penetration."""
    areas: Annotated[dict[str, FleetArea], Field(min_length=1)] | None = None
    """EVs per household of parts of the feeder, by names of your own, instead of penetration; elsewhere there
    are none. Each connection point is in one of them at most."""
    upstream: Annotated[int, Field(ge=0)] = 0
    """Number of additional EVs in each member, connected upstream of the feeder. Their power is not in its
    power flow, and they see nominal voltage; the aggregator, the bulk system and the results include them. In
    a session file: those with the connection upstream."""
    at: list[ElementName] | ElementName | None = None
    """Connection points at which the chargers are, or patterns of their names such as 'North*'; left out:
    households (home), or all that have the charger's phases."""
    sessions: Annotated[
        SerializeAsAny[SessionSource], BeforeValidator(_source, json_schema_input_type=SessionSource | str)
    ] = Field(
        default_factory=lambda: session_source("home", {}),
    )
    """A source that is sampled from stated statistics, such as home, or with parameters
    {source: home, return_h: [18, 3]}; or a file: {file: sessions.csv}, or of another format, such as
    {acn: sessions.json}. Left out: home."""
    charger: Charger = Charger()
    """The EVSE."""
    charge_points: ChargePoints | None = None
    """Charge points that EVs share, such as {each: 10}; left out: each EV has its own."""
    vehicle: Vehicle = Vehicle()
    """The vehicle; with a mix, the settings common to all types."""
    mix: Annotated[Mix | None, BeforeValidator(_mix, json_schema_input_type=str | dict[str, Any] | None)] = (
        None
    )
    """Vehicle types: default, {file: my_mix.yaml}, or shares of shipped types ({bev250: 0.7, phev50: 0.3});
    left out: one type, fleet.vehicle, or the source's own shipped type (school_bus, delivery_van)."""
    permission: Permission | None = None
    """Permissions that an EV needs to discharge; with it, refused energy is recorded by reason. Left out:
    only that of its EVSE, and nothing is recorded."""
    reserve_horizon: Annotated[Duration, Field(gt=0)] | None = None
    """Time for which the fleet's reserve up and down must hold, 15 to 30 min; left out: not recorded."""
    reserve_group: Group = "feeder"
    """Groups over which the result sums the reserve in each member: as envelope.group."""
    envelope: FlexibilityEnvelope | None = None
    """Limits of power and energy over a horizon, for the result and for strategies that plan with them; {}
    for the defaults; left out: none."""

    @model_validator(mode="after")
    def _number_of_evs(self) -> Fleet:
        given = [key for key in ("penetration", "count", "areas") if getattr(self, key) is not None]
        if not self.sessions.sampled:
            if given:
                raise fault(f"{given[0]} has no meaning with a session file, which says which EVs there are")
            for key, value in {
                "upstream": self.upstream or None,
                "mix": self.mix,
                "at": self.at,
                "charger.ratings": self.charger.ratings,
                "charger.kinds": self.charger.kinds,
            }.items():
                if value is not None:
                    raise fault(f"{key} has no meaning with a session file, which says it for each EV")
            return self
        if self.sessions.at_households:
            if len(given) != 1:
                raise fault("give either penetration (EVs per household), areas of it, or count (EVs)")
        elif given != ["count"]:
            raise fault(
                "give count (EVs), and no penetration or areas: those are of households, for sessions at home"
            )
        return self

    @model_validator(mode="after")
    def _charger_and_vehicles(self) -> Fleet:
        if self.charger.current == "dc" and self.charger.on_one_phase:
            raise fault("charger.phases must be 3 with charger.current = dc, which takes three phases")
        if self.sessions.needs_dc and self.charger.current != "dc":
            name = getattr(self.sessions, "source", type(self.sessions).__name__)
            raise fault(f"sessions = {name} needs charger: {{current: dc, phases: 3, power_kw: ...}}")
        mix = self.vehicle_mix
        if mix is None:
            return self
        usual, own = Vehicle(), self.vehicle
        for key in ("capacity_kwh", "charge_kw", "dc_kw", "discharge_kw", "consumption_kwh_per_mile"):
            if getattr(own, key) != getattr(usual, key):
                raise fault(
                    f"vehicle.{key} has no meaning with the vehicle types of mix {mix.name}, which say it"
                )
        if self.charger.current == "dc" and not any(t.share and t.dc_kw for t in mix.types.values()):
            raise fault(f"charger.current = dc: no type of mix {mix.name} has a DC inlet")
        return self

    @property
    def charge_curves(self) -> dict[str, ChargeCurve]:
        """Charging curves by vehicle type, "" for types without one of their own; empty with AC chargers.

        Types of a session file are those shipped.
        """
        if self.charger.current != "dc":
            return {}
        mix = self.vehicle_mix if self.sessions.sampled else read_mix(SHIPPED)
        types = mix.types if mix is not None else {}
        curves = {"": self.vehicle.charge_curve} | {name: t.charge_curve for name, t in types.items()}
        return {name: curve for name, curve in curves.items() if curve is not None}

    @property
    def vehicle_mix(self) -> Mix | None:
        """The vehicle types, or None for fleet.vehicle."""
        own = self.sessions.vehicle_type
        return single_type(own) if self.mix is None and own is not None else self.mix
