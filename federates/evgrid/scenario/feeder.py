"""The section ``feeder`` of a scenario: network, base load, devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, model_validator

from evgrid.core.registry import Registry
from evgrid.readers.time_tables import Reading
from evgrid.scenario.additions import Addition
from evgrid.scenario.customers import Customers
from evgrid.scenario.devices import Capacitor, PvInverters, TapChanger, TransformerAgeing
from evgrid.scenario.fields import Duration, ExistingFile, Settings, fault
from evgrid.scenario.profiles import ElementProfile
from evgrid.scenario.time_series import PowerTable


class GenerationFile(PowerTable):
    """A profile of the network's generation."""

    file: ExistingFile
    """CSV, Excel, Parquet or NetCDF: minute or time, then a column of kW into the grid for each generator and
    storage, named like them, or one column named share: the share of their power in the network
    that all generators feed in."""


class BaseLoad(PowerTable):
    """The load of the feeder without EVs."""

    source: Literal["standard", "net", "none", "simbench"] | None = None
    """standard: standard household profiles with seeded diversity; net: the constant loads of the
    network itself; none: no load; simbench: the year of load, generation and storage profiles of a
    network simbench:CODE, at the same date and time. Left out with a file, else standard."""
    file: ExistingFile | None = None
    """CSV, Excel, Parquet or NetCDF with a column of kW for each load of the net, named like the loads; or a
    long table of theirs."""
    shape: Literal["daily", "yearly", "duty"] | None = None
    """Load shapes that the own loads (source: net) of a network from OpenDSS follow: daily from midnight,
    yearly from 1 January, duty from the run's start; left out: they are constant."""
    power_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Power factor (inductive) of standard and file loads."""
    annual_kwh: Annotated[float, Field(gt=0)] = 3500.0
    """Mean yearly energy of a household, kWh (standard)."""
    scale: Literal["households", "net"] | float = "households"  # type: ignore[assignment]
    """Scaling of standard profiles. households: the yearly energy of the households behind each
    load (feeder.households); net: the network's own load, which each load reaches, without noise, in the
    profile's highest quarter-hour of the year. With a file: factor of its values, a number."""
    generation: Literal["none", "nameplate"] | GenerationFile | None = None
    """Power of the network's generators and storages that have no profile (feeder.profiles). none: 0;
    nameplate: the network's own, day and night; {file: pv.csv}: a table. Left out: the network's own with
    net, the profiles with simbench, else an error where the network has some."""

    @model_validator(mode="after")
    def _one_source(self) -> BaseLoad:
        if self.file is not None and self.source is not None:
            raise fault("give either source or file")
        if self.file is None:
            self.check_of_file()
        if self.shape is not None and self.kind != "net":
            raise fault(f"shape = {self.shape}: is of the network's own loads (source: net)")
        if self.kind == "simbench" and self.generation is not None:
            raise fault("generation has no meaning with source = simbench, which has profiles of it")
        if self.scale == "net" and self.kind != "standard":
            raise fault(f"scale = net: is for standard profiles, not for {self.kind}")
        if self.scale == "net" and self.annual_kwh != type(self).model_fields["annual_kwh"].default:
            raise fault(f"annual_kwh = {self.annual_kwh:g}: has no meaning with scale = net")
        return self

    @property
    def reading(self) -> Reading:
        """The form of its file, as the readers take it."""
        return replace(super().reading, scale=self.scale if isinstance(self.scale, float) else 1.0)

    @property
    def stated_form(self) -> list[str]:
        """Settings of the form of its file, as far as they differ from their defaults."""
        return [name for name in super().stated_form if name != "scale" or isinstance(self.scale, float)]

    @property
    def kind(self) -> Literal["standard", "net", "none", "simbench", "file"]:
        """Source of the load."""
        if self.file is not None:
            return "file"
        return self.source or "standard"


NETWORK_FILES = Registry(
    {
        ".json": "evgrid.feeder.net_file:read_net",
        ".xlsx": "evgrid.feeder.net_file:read_net",
    }
)
"""Formats of pandapower's network files by suffix: for each a function that takes a path and returns a
pandapower net, or raises NetworkError with every fault of the file."""


OPENDSS_SUFFIX = ".dss"
"""Suffix of OpenDSS files."""


def is_opendss(name: str) -> bool:
    """Whether the name of a network is the path of an OpenDSS file."""
    return name.lower().endswith(OPENDSS_SUFFIX)


def is_network_file(name: str) -> bool:
    """Whether the name of a network is the path of a file, by its suffix."""
    return Path(name).suffix.lower() in NETWORK_FILES or is_opendss(name)


def _network(value: Any, info: ValidationInfo) -> Any:
    """The path of a network file starts at the scenario's folder."""
    folder = (info.context or {}).get("folder")
    if isinstance(value, str) and folder and is_network_file(value):
        return str(Path(folder) / Path(value).expanduser())
    return value


NetworkName = Annotated[str, BeforeValidator(_network, json_schema_input_type=str)]


class ZeroSequence(Settings):
    """A recipe for the zero-sequence data that a network lacks; existing data are kept."""

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


def _number_or_rule(value: Any) -> str:
    return "<rule>" if isinstance(value, Households | Mapping) else "<number>"


SolverName = Literal["auto", "z-bus", "power-grid-model", "pandapower", "opendss"]
"""Names of the solvers."""


class Feeder(Settings):
    """The distribution feeder."""

    network: NetworkName
    """A built-in network (european_lv, case33bw, cigre_lv, cigre_mv), pandapower:NAME (a function of
    pandapower.networks), simbench:CODE (with the extra evgrid[simbench]), or the path of a
    pandapower JSON or Excel file, or of an OpenDSS file .dss (with the extra evgrid[opendss])."""
    solver: SolverName = "auto"
    """z-bus and power-grid-model solve all members in one batch, z-bus by a fixed point on the network's own
    admittance matrix; pandapower is the reference; opendss, the engine itself, is for networks from OpenDSS.
    auto: opendss for those whose controls act in time; else z-bus where it can represent the network, unless
    tap changers and capacitors have more than 100 sets of positions; else power-grid-model."""
    step: Annotated[Duration, Field(gt=0)] | None = None
    """Period of the power flow, a multiple of time.step; left out: time.step."""
    controls: bool = True
    """Whether the regulators, capacitor controls and switches of a network from OpenDSS act in simulated
    time, as in the file; if not, they stay as they are at the file's own load."""
    base_load: BaseLoad = BaseLoad()
    """The load without EVs."""
    profiles: dict[str, ElementProfile] = {}
    """Profiles of loads, generators and storages by a name of your own: PV, a file, simbench, heat pumps,
    batteries; the others are as base_load says."""
    additions: dict[str, Addition] = {}
    """Heat pumps and PV added at households, and factors of the load, by a name of your own, each in an
    area or everywhere."""
    reduce: bool = True
    """Merge buses without load before solving, and recover their voltages exactly after."""
    households: Annotated[
        Annotated[int, Field(ge=0), Tag("<number>")] | Annotated[Households, Tag("<rule>")],
        Discriminator(_number_or_rule),
    ] = 1
    """Households behind each load: a number, {kw_each: 2.0} or {by_load: {Supermarket: 0}}. EVs at home
    and standard profiles are by household."""
    customers: Customers = {}
    """Customers that are no households, by classes of loads, {shop: {above_kw: 30, profile: shop}}, or a
    table, {file: customers.csv}: they have no EV at home unless it is said, and with base_load.source:
    standard the standard profile of their class. Left out: all are households."""
    phases: Literal[1, 3, "auto"] = "auto"
    """1: balanced (positive sequence), with all power spread evenly over three phases; 3: each phase; auto:
    3 where loads or generators of the network have phases of their own or EVs charge on one phase, which
    needs the network's zero-sequence data, or zero_sequence; else 1."""
    unbalance: bool = True
    """Record voltage unbalance and neutral currents where phases are solved separately."""
    zero_sequence: ZeroSequence | None = None
    """Recipe for missing zero-sequence data of a network solved in three phases; left out: an error."""
    tap_changers: tuple[TapChanger, ...] = ()
    """On-load tap changers that hold a voltage; the others keep the network's positions."""
    capacitors: tuple[Capacitor, ...] = ()
    """Shunts that are switched to hold a voltage; the others keep the network's steps."""
    pv: PvInverters | None = None
    """The network's generation as inverters with functions of their voltage; left out: fixed power."""
    transformer_ageing: TransformerAgeing | None = None
    """Hot spot and loss of life of the transformers; left out: not recorded."""
    on_divergence: Literal["stop", "keep"] | None = None
    """Effect of a power flow without solution: stop ends the run; keep gives up its member (NaN from then on,
    and named in the summary) and continues with the others. Left out: stop for one member, keep for an
    ensemble of which some member is left."""

    @model_validator(mode="after")
    def _of_opendss(self) -> Self:
        """Settings that are for networks of OpenDSS, or of pandapower, only."""
        if is_opendss(self.network):
            if self.solver not in ("auto", "opendss", "z-bus"):
                raise fault(f"solver = {self.solver}: must be opendss or z-bus for a network from OpenDSS")
            for name, control in (("tap_changers", "RegControl"), ("capacitors", "CapControl")):
                if getattr(self, name):
                    raise fault(
                        f"{name}: is for networks of pandapower; in one from OpenDSS the file's own elements "
                        f"{control} act, while feeder.controls is true"
                    )
            if self.additions:
                raise fault("additions: are for networks of pandapower")
            if self.zero_sequence is not None:
                raise fault("zero_sequence: a network from OpenDSS has its own")
            if self.phases == 1:
                raise fault("phases = 1: the phases of a network from OpenDSS are always solved separately")
        elif self.solver == "opendss":
            raise fault(f"solver = opendss: needs a network from OpenDSS (.dss), not {self.network}")
        elif self.base_load.shape is not None:
            raise fault(f"base_load.shape = {self.base_load.shape}: is for networks from OpenDSS")
        elif not self.controls:
            raise fault("controls = false: is for networks from OpenDSS")
        return self
