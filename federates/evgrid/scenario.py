"""A scenario: what a run is, from YAML, checked before anything starts.

A scenario is a YAML file with the sections below. It may start from another
(``extends: base.yaml``), and single values may be overridden (``--set fleet.penetration=0.8``).
Both are merged key by key, but a mapping that chooses a kind anew (``strategy``, ``source`` or
``file``) replaces the one before it whole. Unknown keys are errors, and all faults are reported at
once, each with its path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from evgrid.aggregator.strategies import StrategySettings, find_strategy, strategy_settings
from evgrid.errors import ScenarioError
from evgrid.model import Clock
from evgrid.settings import (
    Duration,
    ExistingFile,
    LocalTime,
    Settings,
    fault,
    faults,
    faults_of,
    parse_yaml,
    read_yaml,
    settings_in,
)
from evgrid.system.settings import System
from evgrid.tariff import Tariff, read_tariff

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


class BaseLoad(Settings):
    """The load of the feeder without EVs."""

    source: Literal["standard", "net", "none", "simbench"] | None = None
    """standard: standard household profiles with seeded diversity; net: the constant loads of the
    network itself; none: no load; simbench: the year of load, generation and storage profiles of a
    network simbench:CODE, at the same date and time. Left out with a file, else standard."""
    file: ExistingFile | None = None
    """CSV or NetCDF with a column of kW for each load of the net, named like the loads."""
    power_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Power factor (inductive) of standard and file loads."""
    annual_kwh: Annotated[float, Field(gt=0)] = 3500.0
    """Mean yearly energy of a household, kWh (standard)."""

    @model_validator(mode="after")
    def _one_source(self) -> BaseLoad:
        if self.file is not None and self.source is not None:
            raise fault("give either source or file")
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
    phases: Literal[1, 3, "auto"] = "auto"
    """1: balanced (positive sequence); 3: each phase; auto: 3 where the network has asymmetric loads."""
    unbalance: bool = True
    """Record voltage unbalance and neutral currents where phases are told apart."""
    zero_sequence: ZeroSequence | None = None
    """Where the network lacks zero-sequence data and is solved in three phases; left out: an error."""
    on_divergence: Literal["stop", "keep"] | None = None
    """What a power flow without solution does: stop ends the run; keep gives up its member (no
    numbers from then on, and the summary names it) and goes on with the others. Left out: stop
    for one member, keep for an ensemble."""


class Charger(Settings):
    """The EVSE at each EV's connection point."""

    power_kw: Annotated[float, Field(gt=0)] = 7.4
    """Rated active power, kW at the grid."""
    phases: Literal[1, 3] = 1
    """Single-phase (on the phase of its connection point) or three-phase."""
    bidirectional: Annotated[Share, Field()] = 0.0
    """Share of the chargers that can discharge, 0 to 1 (true and false stand for 1 and 0)."""


class Vehicle(Settings):
    """The vehicle."""

    capacity_kwh: Annotated[float, Field(gt=0)] = 60.0
    """Usable battery capacity, kWh."""
    charge_kw: Annotated[float, Field(gt=0)] = 11.0
    """Most that the vehicle draws from an AC charger, kW at the grid."""
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


class SessionFile(Settings):
    """Charging sessions from a table."""

    file: ExistingFile
    """CSV or Parquet with a row a session: ev, connection, phase, arrival, departure,
    soc_arrival or energy_kwh, capacity_kwh, power limits."""


def _kind_of_source(value: Any) -> str:
    return "<name>" if isinstance(value, str) else "<file>"


SessionSource = Annotated[
    Annotated[Literal["home"], Tag("<name>")] | Annotated[SessionFile, Tag("<file>")],
    Discriminator(_kind_of_source),
]


class Fleet(Settings):
    """The EVs, their chargers and their sessions."""

    penetration: Share | None = None
    """EVs per household, 0 to 1."""
    count: Annotated[int, Field(ge=0)] | None = None
    """Number of EVs in each member, instead of penetration."""
    sessions: SessionSource = "home"
    """home: sampled from travel statistics; or {file: sessions.csv}."""
    charger: Charger = Charger()
    """The EVSE."""
    vehicle: Vehicle = Vehicle()
    """The vehicle."""

    @model_validator(mode="after")
    def _number_of_evs(self) -> Fleet:
        given = [key for key in ("penetration", "count") if getattr(self, key) is not None]
        if isinstance(self.sessions, SessionFile) and given:
            raise fault(f"{given[0]} has no meaning with a session file, which says which EVs there are")
        if self.sessions == "home" and len(given) != 1:
            raise fault("give either penetration (EVs per household) or count (EVs)")
        return self


class Communication(Settings):
    """The link between aggregator and chargers."""

    delay: Annotated[Duration, Field(ge=0)] = 0.0
    """Time that a set-point travels."""
    telemetry: Annotated[Duration, Field(gt=0)] = 60.0
    """Period at which chargers report, at least a tick."""
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an EV's set-points that are lost, drawn from the scenario's seed."""


class Record(Settings):
    """What the result holds."""

    ev: bool = False
    """Power and state of charge of every EV."""
    step: Annotated[Duration, Field(gt=0)] | None = None
    """Recording interval, a multiple of feeder.step; values are means over it. Left out:
    feeder.step."""


def _tariff(value: Any, info: ValidationInfo) -> Any:
    if value is None or isinstance(value, Tariff):
        return value
    if isinstance(value, Mapping):
        return value
    return read_tariff(str(value), (info.context or {}).get("folder"))


def _aggregators(value: Any, info: ValidationInfo) -> Any:
    """Check each aggregator's settings against those of the strategy that it names."""
    if not isinstance(value, Mapping):
        raise fault("must be a mapping of names to aggregators, such as {main: {strategy: tou}}")
    checked, found = {}, []
    for name, given in value.items():
        try:
            checked[name] = strategy_settings(given, info.context or {}, f"aggregators.{name}")
        except ScenarioError as error:
            found += error.faults
    if found:
        raise faults(found)
    return checked


class Scenario(Settings):
    """A run, whole."""

    name: Annotated[str, Field(min_length=1)]
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
    """The aggregator of the EVs by name; empty: uncontrolled."""
    communication: Communication = Communication()
    """The link between aggregator and chargers."""
    tariff: Annotated[Tariff | None, BeforeValidator(_tariff, json_schema_input_type=str | None)] = None
    """A tariff shipped with evgrid (pge_ev2a, sce_tou_d_prime) or a tariff file (YAML)."""
    system: System | None = None
    """The bulk system: frequency and regulation signal; left out: none."""
    coupling: Literal["lagged"] = "lagged"
    """lagged: the fleet sees the voltages of the last tick."""
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
        ):
            if abs(value / unit - round(value / unit)) > 1e-9 or round(value / unit) < 1:
                found.append(f"{path} = {value:g}s: must be a multiple of {unit_name} = {unit:g}s")
        if self.fleet is None and self.aggregators:
            found.append("aggregators: there is no fleet to control")
        if len(self.aggregators) > 1:
            found.append("aggregators: one aggregator a run, so far")
        if self.tariff is None:
            found += [
                f"aggregators.{name}.strategy = {settings.strategy}: needs a tariff"
                for name, settings in self.aggregators.items()
                if find_strategy(settings.strategy).needs_tariff
            ]
        elif 3600 % step:
            found.append(f"time.step = {step:g}s: must divide an hour where a tariff is given")
        elif self.start.astype("datetime64[ms]").astype(int) % round(step * 1000):
            found.append(f"time.start = {self.time.start}: must lie on a multiple of time.step = {step:g}s")
        if found:
            raise faults(list(dict.fromkeys(found)))
        return self

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
    try:
        return Scenario.model_validate(merged, context={"folder": str(Path(folder).resolve())})
    except ValidationError as error:
        raise ScenarioError(faults_of(error, Scenario), source) from None


def parse_override(text: str) -> tuple[str, Any]:
    """``fleet.penetration=0.8`` as a key and a value; the value is read as YAML.

    Raises ValueError with one sentence.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ValueError(f"'{text}': must be KEY=VALUE, such as fleet.penetration=0.8")
    return key.strip(), parse_yaml(value)


def describe(schema: type[BaseModel] = Scenario, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting: its path, its default as text ("" if it is required) and what it is."""
    for name, field in schema.model_fields.items():
        path = f"{prefix}{name}"
        inner = [found for found in settings_in(field.annotation) if found is not Tariff]
        default = "" if field.is_required() or inner else json.dumps(field.default, default=str)
        yield path, default, " ".join((field.description or "").split())
        for found in inner:
            if found is not StrategySettings:
                yield from describe(found, f"{path}.")


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file as a mapping, merged over what it extends."""
    path = path.resolve()
    if path in seen:
        raise ScenarioError([f"extends: {path} extends itself"], str(seen[0]))
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ScenarioError([str(error)], str(path)) from None
    base = content.pop("extends", None)
    if base is None:
        return content
    return _merged(_read(path.parent / str(base), (*seen, path)), content)


_KIND = {"strategy", "source", "file"}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not _KIND & value.keys():
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result
