"""A scenario: what a run is, from YAML, checked before anything starts.

A scenario is a YAML file with the sections below. It may start from another
(``extends: base.yaml``), and single values may be overridden (``--set fleet.penetration=0.8``).
Both are merged key by key, but a mapping that chooses a kind anew (``strategy``, ``source``, ``file``
and other files of sessions) and a vehicle mix replace the one before them whole. Unknown keys are
errors, and all faults are reported at once, each with its path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)

from evgrid.aggregator.strategies import StrategySettings, strategy_settings
from evgrid.ambient import Ambient
from evgrid.curves.settings import LocalFunctions
from evgrid.device_settings import Capacitor, PvInverters, TapChanger, TransformerAgeing
from evgrid.errors import ScenarioError
from evgrid.model import Clock
from evgrid.portfolios import selection_faults
from evgrid.readers.faults import shown
from evgrid.readers.yaml_files import parse_yaml
from evgrid.session_settings import (
    DcFastSessions,
    HomeSessions,
    SampledSessions,
    Source,
    session_source,
)
from evgrid.settings import (
    Duration,
    ElementName,
    ExistingFile,
    HourOfDay,
    HourSpan,
    LocalTime,
    Name,
    Settings,
    TimeFormat,
    WeekDays,
    checked,
    fault,
    faults,
    read_settings,
    settings_in,
)
from evgrid.system.settings import System
from evgrid.tariff import Prices, Tariff, prices_of, tariff_of
from evgrid.vehicles import Mix, read_mix, single_type

Share = Annotated[float, Field(ge=0, le=1)]


class Time(Settings):
    """The simulated period and its tick."""

    start: LocalTime
    """Local wall-clock time at which the run starts, such as 2026-01-15T12:00."""
    duration: Annotated[Duration, Field(gt=0)] = 86400.0
    """Length of the run; a multiple of the step."""
    step: Annotated[Duration, Field(gt=0)] = 60.0
    """The tick: the period of the fastest federate."""


class Ensemble(Settings):
    """Monte Carlo members, advanced together."""

    members: Annotated[int, Field(ge=1)] = 1
    """Number of members."""
    first: Annotated[int, Field(ge=0)] = 0
    """Number of the first member; member 17 alone is {first: 17, members: 1}."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything that is drawn; each member has a stream of its own."""


class GenerationFile(Settings):
    """A profile of the network's generation."""

    file: ExistingFile
    """CSV, Parquet or NetCDF: minute or time, then a column of kW into the grid for each generator and
    storage, named like them, or one column named share: the part of what the network has that all
    generators give."""
    time_format: TimeFormat | None = None
    """Form of the file's times, as base_load.time_format."""


class BaseLoad(Settings):
    """The load of the feeder without EVs."""

    source: Literal["standard", "net", "none", "simbench"] | None = None
    """standard: standard household profiles with seeded diversity; net: the constant loads of the
    network itself; none: no load; simbench: the year of load, generation and storage profiles of a
    network simbench:CODE, at the same date and time. Left out with a file, else standard."""
    file: ExistingFile | None = None
    """CSV, Parquet or NetCDF with a column of kW for each load of the net, named like the loads."""
    time_format: TimeFormat | None = None
    """Form of the file's times, such as '%d.%m.%Y %H:%M'; left out: ISO 8601, or seconds from the start."""
    power_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Power factor (inductive) of standard and file loads."""
    annual_kwh: Annotated[float, Field(gt=0)] = 3500.0
    """Mean yearly energy of a household, kWh (standard)."""
    scale: Literal["households", "net"] = "households"
    """What standard profiles are scaled to. households: the yearly energy of the households behind each
    load (feeder.households); net: the network's own load, which each load reaches, without noise, in the
    profile's highest quarter-hour of the year."""
    generation: Literal["none", "nameplate"] | GenerationFile | None = None
    """What the network's generators and storages give, which have no profile of their own. none: nothing;
    nameplate: what the network has, day and night; {file: pv.csv}: a table. Left out: as the network has it
    with net, their own profiles with simbench, else an error where the network has some."""

    @model_validator(mode="after")
    def _one_source(self) -> BaseLoad:
        if self.file is not None and self.source is not None:
            raise fault("give either source or file")
        if self.time_format is not None and self.file is None:
            raise fault("time_format is of a file: give a file, or leave it out")
        if self.kind == "simbench" and self.generation is not None:
            raise fault("generation has no meaning with source = simbench, which has profiles of it")
        if self.scale == "net" and self.kind != "standard":
            raise fault(f"scale = net: is for standard profiles, not for {self.kind}")
        if self.scale == "net" and self.annual_kwh != type(self).model_fields["annual_kwh"].default:
            raise fault(f"annual_kwh = {self.annual_kwh:g}: has no meaning with scale = net")
        return self

    @property
    def kind(self) -> Literal["standard", "net", "none", "simbench", "file"]:
        """Where the load comes from."""
        if self.file is not None:
            return "file"
        return self.source or "standard"


def _network(value: Any, info: ValidationInfo) -> Any:
    """The path of a network file starts at the scenario's folder."""
    folder = (info.context or {}).get("folder")
    if isinstance(value, str) and folder and Path(value).suffix.lower() in (".json", ".xlsx"):
        return str(Path(folder) / Path(value).expanduser())
    return value


NetworkName = Annotated[str, BeforeValidator(_network, json_schema_input_type=str)]


class ZeroSequence(Settings):
    """A recipe for the zero-sequence data that a network lacks; what it has is kept."""

    recipe: Literal["four_wire"]
    """four_wire: lines with a neutral like the phases, r0 = 4 r1, x0 = 4 x1, c0 = c1; transformers
    with vk0 = vk, vkr0 = vkr, no zero-sequence magnetising current, and Dyn (phase shift an odd
    multiple of 30 degrees) or YNyn where they have no vector group."""
    r0_per_r1: Annotated[float, Field(gt=0)] = 4.0
    """Zero- per positive-sequence resistance of lines."""
    x0_per_x1: Annotated[float, Field(gt=0)] = 4.0
    """Zero- per positive-sequence reactance of lines."""
    c0_per_c1: Annotated[float, Field(ge=0)] = 1.0
    """Zero- per positive-sequence capacitance of lines."""


class Households(Settings):
    """A rule for the number of households behind each load of the network."""

    kw_each: Annotated[float, Field(gt=0)] | None = None
    """Load of the network per household, kW: a load of 5 kW is round(5 / kw_each) households, at least one.
    About 2 kW where loads are sums after diversity."""
    by_load: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Households by the load's name, such as {Supermarket: 0, House 7: 3}."""
    others: Annotated[int, Field(ge=0)] = 1
    """Households behind each load that by_load does not name."""

    @model_validator(mode="after")
    def _one_rule(self) -> Households:
        if (self.kw_each is None) == (not self.by_load):
            raise fault("give either kw_each or by_load")
        if self.kw_each is not None and self.others != 1:
            raise fault(f"others = {self.others}: is for by_load; kw_each holds for every load")
        return self


class Feeder(Settings):
    """The distribution feeder."""

    network: NetworkName
    """A built-in network (european_lv, case33bw, cigre_lv, cigre_mv), pandapower:NAME (a function of
    pandapower.networks), simbench:CODE (with the extra evgrid[simbench]), or the path of a
    pandapower JSON or Excel file."""
    solver: Literal["power-grid-model", "pandapower"] = "power-grid-model"
    """power-grid-model solves all members in one batch; pandapower is the reference."""
    step: Annotated[Duration, Field(gt=0)] | None = None
    """Period of the power flow, a multiple of time.step; left out: time.step."""
    base_load: BaseLoad = BaseLoad()
    """The load without EVs."""
    reduce: bool = True
    """Merge buses that carry nothing before solving, and recover them exactly after."""
    households: Annotated[int, Field(ge=0)] | Households = 1
    """Households behind each load: a number, {kw_each: 2.0} or {by_load: {Supermarket: 0}}. They are where
    EVs at home are and what standard profiles stand for."""
    phases: Literal[1, 3, "auto"] = "auto"
    """1: balanced (positive sequence), with all power spread evenly over three phases; 3: each phase; auto:
    3 where loads or generators of the network have phases of their own or EVs charge on one phase, which
    needs the network's zero-sequence data, or zero_sequence; else 1."""
    unbalance: bool = True
    """Record voltage unbalance and neutral currents where phases are told apart."""
    zero_sequence: ZeroSequence | None = None
    """Where the network lacks zero-sequence data and is solved in three phases; left out: an error."""
    tap_changers: tuple[TapChanger, ...] = ()
    """On-load tap changers that hold a voltage; the others stay where the network has them."""
    capacitors: tuple[Capacitor, ...] = ()
    """Shunts that are switched to hold a voltage; the others stay as the network has them."""
    pv: PvInverters | None = None
    """The network's generation as inverters that see their voltage; left out: it gives what it is said to."""
    transformer_ageing: TransformerAgeing | None = None
    """Hot spot and loss of life of the transformers; left out: not recorded."""
    on_divergence: Literal["stop", "keep"] | None = None
    """What a power flow without solution does: stop ends the run; keep gives up its member (no
    numbers from then on, and the summary names it) and goes on with the others. Left out: stop
    for one member, keep for an ensemble."""


class Charger(Settings):
    """The EVSE at each EV's connection point."""

    power_kw: Annotated[float, Field(gt=0)] = 7.4
    """Rated active power, kW at the grid."""
    ratings: Annotated[dict[Annotated[float, Field(gt=0)], Share], Field(min_length=1)] | None = None
    """Shares of chargers by rated power, {3.7: 0.5, 7.4: 0.5}, drawn for each EV, in place of power_kw;
    relative to their sum. Left out: all have power_kw."""
    phases: Literal[1, 3] = 1
    """Single-phase (on the phase of its connection point) or three-phase."""
    current: Literal["ac", "dc"] = "ac"
    """ac: the vehicle's on-board charger limits the power; dc: its DC inlet, and phases must be 3."""
    bidirectional: Annotated[Share, Field()] = 0.0
    """Share of the chargers that can discharge, 0 to 1 (true and false stand for 1 and 0)."""
    apparent_kva: Annotated[float, Field(gt=0)] | None = None
    """Rated apparent power, kVA, at least power_kw; left out: power_kw. Reactive power needs room beside
    active power. It scales with what a session draws or gives at most, where that is not power_kw."""
    functions: LocalFunctions | None = None
    """What the EVSE does by itself with the voltage and frequency that it sees; left out: nothing.
    Its trips and limits win over the departure guard: safety first."""
    minimum_current_a: Annotated[float, Field(ge=0)] = 0.0
    """Least charging current, A a phase; set-points below it are 0. IEC 61851-1 knows none below 6 A."""
    pilot_step_a: Annotated[float, Field(ge=0)] = 0.0
    """Step of the currents that the EVSE can offer, A; set-points to charge are cut to a step. 0: any."""
    nominal_v: Annotated[float, Field(gt=0)] = 230.0
    """Voltage from phase to neutral by which set-points become currents, V."""
    ramp_kw_per_s: Annotated[float, Field(gt=0)] | None = None
    """Most that the power followed changes, kW/s; left out: no limit. The departure guard knows none."""

    @property
    def shares(self) -> dict[float, float]:
        """Share of chargers by rated power, kW; together 1."""
        given = self.ratings or {self.power_kw: 1.0}
        return {kw: share / sum(given.values()) for kw, share in given.items()}

    @model_validator(mode="after")
    def _carries_its_power(self) -> Charger:
        if self.ratings is not None and not sum(self.ratings.values()) > 0:
            raise fault("ratings: one of the shares must be greater than 0")
        if self.apparent_kva is not None and self.apparent_kva < self.power_kw:
            raise fault(
                f"apparent_kva = {self.apparent_kva:g}: must be at least power_kw = {self.power_kw:g}"
            )
        return self


class Temperature(Settings):
    """Temperature of the battery and what it allows."""

    ambient: Ambient = 20.0
    """Ambient temperature: °C, {mean_c, amplitude_c, warmest_h}, or {file: weather.csv, column: t}."""
    time_constant: Annotated[Duration, Field(gt=0)] = 14400.0
    """Time constant with which the cell follows the ambient."""
    heating_k_per_kw: Annotated[float, Field(ge=0)] = 0.0
    """Steady rise of the cell temperature per kW of conversion loss, K/kW."""
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
    """Ageing of the batteries, counted while it happens."""

    battery_price: Annotated[float, Field(ge=0)] = 139.0
    """Price of a new battery, currency per kWh of capacity."""
    worthless_at: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Relative capacity at which a battery has lost all its worth: a lost kWh costs its price over
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
    soc_floor: Share = 0.2
    """State of charge below which the vehicle does not discharge."""
    soc_target: Annotated[float, Field(gt=0, le=1)] = 0.9
    """State of charge that the driver wants by departure."""
    consumption_kwh_per_mile: Annotated[float, Field(gt=0)] = 0.325
    """Energy out of the battery per mile driven, kWh."""
    losses: Literal["constant", "by_power", "bidirectional_by_power"] = "bidirectional_by_power"
    """constant: charge_efficiency and discharge_efficiency at any power; by_power: a quadratic loss.
    A one-directional vehicle has the mean on-board charger of eight EVs (86 % at 16 A on one phase, 90 %
    on three), a bidirectional one 66 W + 3.56 % + 0.224 %/kW both ways: 87 % round trip at 3 x 16 A.
    bidirectional_by_power: so for sampled EVs that can discharge, constant for others and in session
    files. Left out: constant where an efficiency is given, else bidirectional_by_power."""
    standby_kw: Annotated[float, Field(ge=0)] = 0.0
    """Drawn while plugged in and neither charging nor discharging, kW; it is lost. About 0.066 kW."""
    chemistry: Literal["nmc", "lfp"] = "nmc"
    """Chemistry of the battery, for its degradation, of EVs whose vehicle type or session says none."""
    temperature: Temperature | None = None
    """Temperature of the battery; left out: it limits nothing."""
    degradation: Degradation | None = None
    """Ageing of the battery; left out: not counted."""

    @model_validator(mode="before")
    @classmethod
    def _given_efficiencies_hold(cls, given: Any) -> Any:
        efficiencies = {"charge_efficiency", "discharge_efficiency"}
        if isinstance(given, Mapping) and "losses" not in given and efficiencies & given.keys():
            return {**given, "losses": "constant"}
        return given


class Warranty(Settings):
    """What the battery's warranty allows; caps are an EV's over the run."""

    approved: Share = 1.0
    """Share of the EVSEs that the vehicles' makers have approved."""
    soc_floor: Share = 0.0
    """State of charge below which it forbids to discharge."""
    throughput_kwh: Annotated[float, Field(ge=0)] | None = None
    """Most energy discharged, kWh out of the battery; left out: no cap."""
    hours: Annotated[float, Field(ge=0)] | None = None
    """Most hours of discharging; left out: no cap."""


class Driver(Settings):
    """What the drivers allow."""

    willing: Share = 1.0
    """Share of the drivers who let their EV discharge."""
    soc_floor: Share = 0.0
    """State of charge below which they don't."""
    window: HourSpan | None = None
    """Local hours between which they do, such as [16, 21], ['17:30', 21] or, over midnight, [22, 6]; left
    out: always. A tick counts by its beginning."""


class Permission(Settings):
    """Who must allow an EV to discharge, besides its EVSE (charger.bidirectional): all of them."""

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

    horizon: Annotated[Duration, Field(gt=0)] = 86400.0
    """Time that it looks ahead; a multiple of the slot."""
    slot: Annotated[Duration, Field(gt=0)] = 900.0
    """Length of its slots."""
    every: Annotated[Duration, Field(gt=0)] | None = None
    """How often it is made anew, a multiple of time.step; left out: every slot."""
    group: Group = "feeder"
    """What the result sums it over in each member: all EVs, those below each transformer, or those at each
    connection point."""

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
        """How often it is made anew, s."""
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


_OWN_MIX = ("school_bus", "delivery_van")
"""Sources whose EVs are of the shipped type of that name where the scenario gives no mix."""


class Fleet(Settings):
    """The EVs, their chargers and their sessions."""

    penetration: Share | None = None
    """EVs per household, 0 to 1 (home only)."""
    count: Annotated[int, Field(ge=0)] | None = None
    """Number of EVs in each member, instead of penetration."""
    upstream: Annotated[int, Field(ge=0)] = 0
    """Number of EVs in each member besides, connected upstream of the feeder. Their power doesn't enter its
    power flow, and they see nominal voltage; the aggregator, the bulk system and the results count them. In a
    session file: those with the connection upstream."""
    at: list[ElementName] | ElementName | None = None
    """Connection points at which the chargers are; left out: households (home), or all that have the
    charger's phases."""
    sessions: Annotated[Source, BeforeValidator(_source)] = HomeSessions()
    """home, workplace, public, dc_fast, school_bus, rental or delivery_van, sampled from stated
    statistics, or with parameters {source: home, return_h: [18, 3]}; or a file: {file: sessions.csv},
    {acn: sessions.json}, {elaad: transactions.csv}, {nhts: trippub.csv}."""
    charger: Charger = Charger()
    """The EVSE."""
    vehicle: Vehicle = Vehicle()
    """The vehicle; with a mix, what all its types share."""
    mix: Annotated[Mix | None, BeforeValidator(_mix, json_schema_input_type=str | dict[str, Any] | None)] = (
        None
    )
    """Vehicle types: default, {file: my_mix.yaml}, or shares of shipped types ({bev250: 0.7, phev50: 0.3});
    left out: one type, fleet.vehicle (school_bus and delivery_van: the shipped type of that name)."""
    permission: Permission | None = None
    """Who must allow an EV to discharge; with it, energy refused is counted by its reason. Left out: its
    EVSE alone, and nothing is counted."""
    reserve_horizon: Annotated[Duration, Field(gt=0)] | None = None
    """Time for which the fleet's reserve up and down must hold, 15 to 30 min; left out: not recorded."""
    reserve_group: Group = "feeder"
    """What the result sums the reserve over in each member: as envelope.group."""
    envelope: FlexibilityEnvelope | None = None
    """Limits of power and energy over a horizon, for the result and for strategies that plan with them; {}
    takes the defaults; left out: none."""

    @model_validator(mode="after")
    def _number_of_evs(self) -> Fleet:
        given = [key for key in ("penetration", "count") if getattr(self, key) is not None]
        if not isinstance(self.sessions, SampledSessions):
            if given:
                raise fault(f"{given[0]} has no meaning with a session file, which says which EVs there are")
            for key, value in {
                "upstream": self.upstream or None,
                "mix": self.mix,
                "at": self.at,
                "charger.ratings": self.charger.ratings,
            }.items():
                if value is not None:
                    raise fault(f"{key} has no meaning with a session file, which says it for each EV")
            return self
        if isinstance(self.sessions, HomeSessions):
            if len(given) != 1:
                raise fault("give either penetration (EVs per household) or count (EVs)")
        elif given != ["count"]:
            raise fault("give count (EVs), and no penetration: that is of households, for sessions at home")
        return self

    @model_validator(mode="after")
    def _charger_and_vehicles(self) -> Fleet:
        if self.charger.current == "dc" and self.charger.phases != 3:
            raise fault("charger.phases must be 3 with charger.current = dc, which takes three phases")
        if isinstance(self.sessions, DcFastSessions) and self.charger.current != "dc":
            raise fault("sessions = dc_fast needs charger: {current: dc, phases: 3, power_kw: ...}")
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
    def vehicle_mix(self) -> Mix | None:
        """The vehicle types, or None for fleet.vehicle."""
        source = getattr(self.sessions, "source", None)
        if self.mix is None and source in _OWN_MIX:
            return single_type(str(source))
        return self.mix


class ScheduledPower(Settings):
    """A daily window of an EVSE's own schedule."""

    begin: Annotated[HourOfDay, Field(alias="from")]
    """Local time at which it begins."""
    until: HourOfDay
    """Local time at which it ends; before from: on the next day."""
    power_kw: float | None = None
    """Set-point, kW at the grid; negative discharges."""
    share: Share | None = None
    """Set-point as a share of the most that the EV draws, the lesser of EVSE and vehicle, in place of
    power_kw."""
    days: WeekDays = ("all",)
    """Days of the week on which it begins: all, weekday, weekend, monday to sunday, or a list of these."""

    @model_validator(mode="after")
    def _says_one_power(self) -> ScheduledPower:
        if (self.power_kw is None) == (self.share is None):
            raise fault("give either power_kw or share")
        if self.begin % 24.0 == self.until % 24.0 and (self.begin, self.until) != (0.0, 24.0):
            raise fault("from and until are the same; the whole day is from 00:00 until 24:00")
        return self


class Communication(Settings):
    """The link between aggregator and chargers."""

    delay: Annotated[Duration, Field(ge=0)] = 0.0
    """Time that a set-point travels."""
    telemetry: Annotated[Duration, Field(gt=0)] = 60.0
    """Period at which chargers report, at least a tick."""
    loss: Share = 0.0
    """Share of an EV's set-points that are lost, drawn from the scenario's seed."""
    latency: Annotated[Duration, Field(ge=0)] = 0.0
    """Longest additional time that set-points travel to an EVSE; each has its own, drawn evenly from 0 to
    this, and acts from the next tick on."""
    outages_per_day: Annotated[float, Field(ge=0)] = 0.0
    """Mean number of outages of an EVSE's link a day."""
    outage_duration: Annotated[Duration, Field(gt=0)] = 600.0
    """Mean duration of an outage (exponentially distributed)."""
    timeout: Annotated[Duration, Field(gt=0)] | None = None
    """Age at which an EVSE takes its last set-point for stale; left out: never."""
    fallback: Literal["uncontrolled", "last", "stop", "schedule"] = "uncontrolled"
    """What an EVSE does with a stale set-point: charge as fast as it can, keep it, wait, or follow its
    schedule. Its departure guard acts in any case."""
    schedule: list[ScheduledPower] | None = None
    """The EVSE's own schedule for fallback = schedule, such as [{from: 22:00, until: 06:00, power_kw: 3.7}];
    the first window that a tick begins in holds, outside of all it waits."""

    @model_validator(mode="after")
    def _can_fall_back(self) -> Communication:
        if self.fallback != "schedule":
            if self.schedule is not None:
                raise fault(f"schedule has no meaning with fallback = {self.fallback}; must be schedule")
            return self
        if not self.schedule:
            raise fault("fallback = schedule: give schedule, a list of windows such as "
                        "{from: 22:00, until: 06:00, power_kw: 3.7}")  # fmt: skip
        if self.timeout is None:
            raise fault("fallback = schedule: give timeout, the age at which a set-point is stale")
        return self

    @property
    def per_evse(self) -> bool:
        """Whether each EVSE has a link of its own; it then draws the losses, too."""
        return self.latency > 0 or self.outages_per_day > 0 or self.timeout is not None


class Coupling(Settings):
    """How fleet and feeder see each other inside a tick; a name alone is its mode."""

    mode: Literal["lagged", "iterated"] = "lagged"
    """lagged: chargers and PV inverters see the voltages of the last step. iterated: those of the same
    step, found by iteration over HELICS."""
    tolerance: Annotated[float, Field(gt=0, le=0.01)] = 1e-6
    """iterated: greatest residual, of voltages in pu and of power per rated power."""
    most_iterations: Annotated[int, Field(ge=2, le=1000)] = 50
    """iterated: power flows of a step after which a member is reported as not converged."""

    @model_validator(mode="after")
    def _iterates(self) -> Coupling:
        fields = type(self).model_fields
        found = [
            f"coupling.{name} = {getattr(self, name):g}: is for coupling.mode iterated"
            for name in ("tolerance", "most_iterations")
            if self.mode == "lagged" and getattr(self, name) != fields[name].default
        ]
        if found:
            raise faults(found)
        return self


def _coupling(value: Any) -> Any:
    return {"mode": value} if isinstance(value, str) else value


Recorded = Literal["all", "none"] | Annotated[tuple[ElementName, ...], Field(min_length=1)]


class Record(Settings):
    """What the result holds."""

    buses: Recorded = "all"
    """Buses whose voltage is recorded: all, none, or a list of names."""
    lines: Recorded = "all"
    """Lines whose loading is recorded: all, none, or a list of names."""
    trafos: Recorded = "all"
    """Transformers whose loading and the like are recorded over time: all, none, or a list of names."""
    shunts: Recorded = "all"
    """Shunts whose steps are recorded: all, none, or a list of names."""

    ev: bool = False
    """Power and state of charge of every EV."""
    step: Annotated[Duration, Field(gt=0)] | None = None
    """Recording interval, a multiple of feeder.step; values are means over it. Left out:
    feeder.step."""
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    """Level of the zlib compression of a result's file, 0 for none: the values are the same."""


def _tariff(value: Any, info: ValidationInfo) -> Any:
    if value is None or isinstance(value, Tariff):
        return value
    if isinstance(value, Mapping):
        return value
    return tariff_of(str(value), (info.context or {}).get("folder"))


def _aggregators(value: Any, info: ValidationInfo) -> Any:
    """Check each aggregator's settings against those of the strategy that it names."""
    if not isinstance(value, Mapping):
        raise fault("must be a mapping of names to aggregators, such as {main: {strategy: tou}}")
    checked, found = {}, []
    for name, given in value.items():
        if given is None:  # an override that takes an aggregator away
            continue
        if not (isinstance(name, str) and name.isidentifier()):
            found.append(f"aggregators: {name} can't be a name: must be a word of letters, digits and _")
            continue
        try:
            checked[name] = strategy_settings(given, info.context or {}, f"aggregators.{name}")
        except ScenarioError as error:
            found += error.faults
    if found:
        raise faults(found)
    return checked


class Scenario(Settings):
    """A run, whole."""

    name: Name
    """What the scenario is called; results and plots carry it."""
    time: Time
    """Period and tick."""
    ensemble: Ensemble = Ensemble()
    """Monte Carlo members."""
    feeder: Feeder
    """The distribution feeder."""
    fleet: Fleet | None = None
    """The EVs; left out: none."""
    aggregators: Annotated[dict[str, SerializeAsAny[StrategySettings]], BeforeValidator(_aggregators)] = {}
    """The aggregators by name; EVs without one are uncontrolled. null takes one of the base away."""
    communication: Communication = Communication()
    """The link between aggregator and chargers."""
    tariff: Annotated[Tariff | None, BeforeValidator(_tariff, json_schema_input_type=str | None)] = None
    """A tariff shipped with evgrid (pge_ev2a, sce_tou_d_prime) or a tariff file (YAML). Left out: energy
    costs system.energy_price, where there is one."""
    system: System | None = None
    """The bulk system: frequency and regulation signal; left out: none."""
    coupling: Annotated[
        Coupling, BeforeValidator(_coupling, json_schema_input_type=Coupling | Literal["lagged", "iterated"])
    ] = Coupling()
    """How fleet and feeder see each other inside a tick: lagged, iterated, or
    {mode, tolerance, most_iterations}."""
    record: Record = Record()
    """What the result holds."""

    @model_validator(mode="after")
    def _fits_together(self) -> Scenario:
        found = []
        step = self.time.step
        for path, value, unit, unit_name in (
            ("time.duration", self.time.duration, self.feeder_step_s, "feeder.step"),
            ("feeder.step", self.feeder_step_s, step, "time.step"),
            ("record.step", self.record_step_s, self.feeder_step_s, "feeder.step"),
            ("time.duration", self.time.duration, self.record_step_s, "record.step"),
            ("communication.telemetry", self.telemetry_s, step, "time.step"),
            *(
                [("fleet.envelope.every", envelope.every_s, step, "time.step")]
                if (envelope := self.fleet.envelope if self.fleet else None)
                else []
            ),
        ):
            if abs(value / unit - round(value / unit)) > 1e-9 or round(value / unit) < 1:
                found.append(f"{path} = {value:g}s: must be a multiple of {unit_name} = {unit:g}s")
        if self.fleet is None and self.aggregators:
            found.append("aggregators: there is no fleet to control")
        found += selection_faults(self.aggregators)
        for name, settings in self.aggregators.items():
            own = settings.communication and settings.communication.telemetry
            if own and (own < step or abs(own / step - round(own / step)) > 1e-9):
                path = f"aggregators.{name}.communication.telemetry"
                found.append(f"{path} = {own:g}s: must be a multiple of time.step = {step:g}s")
        found += [
            f"aggregators.{name}.strategy = {settings.strategy}: needs system.{key}"
            for name, settings in self.aggregators.items()
            for key in settings.strategy_class.needs(settings)
            if self.system is None or not getattr(self.system, key)
        ]
        if envelope is None:
            found += [
                f"aggregators.{name}.strategy = {settings.strategy}: needs fleet.envelope"
                for name, settings in self.aggregators.items()
                if settings.strategy_class.goes_by_envelope(settings)
            ]
        elif envelope.every_s > self.time.duration:
            found.append(
                f"fleet.envelope.every = {envelope.every_s:g}s: must be at most "
                f"time.duration = {self.time.duration:g}s"
            )
        if not self.has_prices:
            found += [
                f"aggregators.{name}.strategy = {settings.strategy}: needs a tariff or system.energy_price"
                for name, settings in self.aggregators.items()
                if settings.strategy_class.goes_by_prices(settings)
            ]
        found += self._two_currencies()
        demand = self.tariff.demand if self.tariff is not None else None
        if demand is not None and demand.of != "evs":
            parts = demand.interval / self.feeder_step_s
            if abs(parts - round(parts)) > 1e-9 or parts < 1:
                found.append(
                    f"tariff.demand.interval = {demand.interval:g}s: must be a multiple of "
                    f"feeder.step = {self.feeder_step_s:g}s with tariff.demand.of = {demand.of}"
                )
        if found:
            raise faults(list(dict.fromkeys(found)))
        return self

    def _two_currencies(self) -> list[str]:
        """The fault of a tariff and a wholesale price in different currencies."""
        wholesale = self.system.energy_price if self.system is not None else None
        given = wholesale.currency if wholesale is not None else None
        if self.tariff is None or given is None or given == self.tariff.currency:
            return []
        return [f"system.energy_price.currency = {given}: must be that of the tariff, {self.tariff.currency}"]

    @property
    def bills(self) -> bool:
        """Whether the highest power of each month is in the result: of the EVs, or what the tariff says."""
        return self.fleet is not None or (self.tariff is not None and self.tariff.demand is not None)

    @property
    def has_prices(self) -> bool:
        """Whether something says what energy costs: a tariff or ``system.energy_price``."""
        return self.tariff is not None or (self.system is not None and self.system.energy_price is not None)

    @property
    def prices(self) -> Prices | None:
        """What energy costs in the run; None where nothing says it.

        Raises ScenarioError for a file of prices that is at fault.
        """
        return prices_of(self.tariff, self.system, self.clock)

    @property
    def currency(self) -> str:
        """Currency of all prices; "" where it isn't known."""
        if self.tariff is not None:
            return self.tariff.currency
        wholesale = self.system.energy_price if self.system is not None else None
        return (wholesale.currency or "") if wholesale is not None else ""

    @property
    def start(self) -> np.datetime64:
        """Start of the run as a timestamp."""
        return np.datetime64(self.time.start)

    @property
    def feeder_step_s(self) -> float:
        """Period of the power flow, s."""
        return self.feeder.step if self.feeder.step is not None else self.time.step

    @property
    def record_step_s(self) -> float:
        """Recording interval, s."""
        return self.record.step if self.record.step is not None else self.feeder_step_s

    @property
    def telemetry_s(self) -> float:
        """Period at which chargers report, s: at least a tick."""
        return max(self.communication.telemetry, self.time.step)

    def link_of(self, aggregator: str) -> Communication:
        """The link between one aggregator and its chargers."""
        own = self.aggregators[aggregator].communication
        return self.communication.model_copy(update=own.model_dump(exclude_none=True) if own else {})

    @property
    def uses_envelope(self) -> bool:
        """Whether an aggregator's strategy asks for the fleet's envelope."""
        return any(a.strategy_class.goes_by_envelope(a) for a in self.aggregators.values())

    @property
    def clock(self) -> Clock:
        """Simulated time of the run."""
        return Clock(self.start, self.time.step, round(self.time.duration / self.time.step))

    @property
    def members(self) -> range:
        """Numbers of the members that the run computes."""
        return range(self.ensemble.first, self.ensemble.first + self.ensemble.members)


def load_scenario(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario file, apply overrides (``{"fleet.penetration": 0.8}``), and check it.

    Raises
    ------
    ScenarioError
        With every fault found, each with its path.

    """
    path = Path(path)
    return scenario_from(_read(path), overrides, folder=path.parent, source=str(path))


def scenario_from(
    content: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    folder: str | Path = ".",
    source: str = "scenario",
) -> Scenario:
    """Check a scenario given as a mapping; relative paths in it start at ``folder``."""
    changes: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        for part in reversed(key.split(".")):
            value = {part: value}
        changes = _merged(changes, value)
    merged = _merged(content, changes)
    return checked(Scenario, merged, source, Path(folder))


def parse_override(text: str) -> tuple[str, Any]:
    """``fleet.penetration=0.8`` as a key and a value; the value is read as YAML.

    Raises ValueError with one sentence.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ValueError(f"'{text}': must be KEY=VALUE, such as fleet.penetration=0.8")
    try:
        return key.strip(), parse_yaml(value)
    except ValueError as error:
        raise ValueError(
            f"{key.strip()} = {shown(value)}: {error}; text with % : # or the like needs quotes"
        ) from None


def describe(schema: type[BaseModel] = Scenario, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting: its path, its default as text ("" if it is required) and what it is."""
    for name, field in schema.model_fields.items():
        path = f"{prefix}{name}"
        inner = [found for found in settings_in(field.annotation) if found not in (Tariff, Mix)]
        default = "" if field.is_required() or inner else json.dumps(field.default, default=str)
        yield path, default, " ".join((field.description or "").split())
        for found in inner:
            source = found.model_fields.get("source")
            named = source is not None and len(inner) > 1 and not source.is_required()
            each = ".NAME" if found is StrategySettings else ""
            yield from describe(found, f"{path}({source.default})." if named and source else f"{path}{each}.")


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file as a mapping, merged over what it extends."""
    with suppress(OSError, ValueError):  # a NUL in the name, or one that is too long: told when it is read
        path = path.resolve()
    if path in seen:
        raise ScenarioError([f"extends: {path} extends itself"], str(seen[0]))
    content = read_settings(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not (isinstance(base, str) and base.strip()):
        raise ScenarioError([f"extends = {shown(base)}: must be the path of a scenario"], str(path))
    return _merged(_read(path.parent / base, (*seen, path)), content)


_KIND = {"strategy", "source", "file", "acn", "elaad", "nhts"}
_WHOLE = {"mix"}
"""Keys whose value is replaced whole: shares that are merged would not add up."""


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        whole = key in _WHOLE or (isinstance(value, Mapping) and _KIND & value.keys())
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not whole:
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result
