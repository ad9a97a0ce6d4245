"""The section ``sites`` of a scenario: homes, buildings and off-grid loads behind one meter each.

A group of sites has a name and one definition of what each of its sites has: load and its critical part,
PV, battery, standby generator, breaker, interconnection, backup and control. A site is one connection point
of the feeder, with the EVs that charge there, or it is off grid. The connection points of a group may be
drawn, by member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from evgrid.core.registry import Registry
from evgrid.scenario.fields import (
    Duration,
    ElementName,
    ExistingFile,
    LocalTime,
    NotNegative,
    OneOfSeveral,
    Positive,
    Settings,
    Share,
    fault,
    faults,
    faults_of,
)
from evgrid.scenario.solar import PvSystem
from evgrid.scenario.time_series import PowerSeries

if TYPE_CHECKING:
    from evgrid.scenario.tariffs import DemandCharge

# ---- load -----------------------------------------------------------------------------------------


class LoadPart(PowerSeries):
    """Part of a site's load: a share of it, a constant power, or a table."""

    share: Share | None = None
    """Share of the site's load."""
    kw: NotNegative | None = None
    """Constant power, kW. Where the site's load is less, it is all of the load."""
    file: ExistingFile | None = None
    """CSV, Excel, Parquet or NetCDF with a column time and one of kW; each value holds until the next. Where
    the site's load is less, it is all of the load."""
    column: str | None = None
    """Name of the column, or of the series in a long table; left out: the only one."""

    @model_validator(mode="after")
    def _one_form(self) -> LoadPart:
        if sum(given is not None for given in (self.share, self.kw, self.file)) != 1:
            raise fault("give one of share, kw and file")
        if self.file is None:
            self.check_of_file()
            if self.column is not None:
                raise fault("column: is of a file: give a file, or leave it out")
        return self


class CriticalLoad(LoadPart):
    """The critical part of a site's load."""


class Circuit(LoadPart):
    """A circuit of a site, which is served whole or not at all."""

    critical: bool = False
    """Whether it is critical: on the critical panel, and served before all that is not."""
    order: Annotated[int, Field(ge=0)] = 0
    """Order of shedding: the circuit with the highest number is shed first, of equals the last one named."""


class OwnLoad(PowerSeries):
    """A load in place of the base load: a constant power or a table."""

    kw: NotNegative | None = None
    """Constant power, kW."""
    file: ExistingFile | None = None
    """CSV, Excel, Parquet or NetCDF with a column time and one of kW; each value holds until the next."""
    column: str | None = None
    """Name of the column, or of the series in a long table; left out: the only one."""
    power_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Power factor (inductive)."""

    @model_validator(mode="after")
    def _one_form(self) -> OwnLoad:
        if (self.kw is None) == (self.file is None):
            raise fault("give either kw or file")
        if self.file is None:
            self.check_of_file()
            if self.column is not None:
                raise fault("column: is of a file: give a file, or leave it out")
        return self


# ---- sources --------------------------------------------------------------------------------------


class SitePv(PvSystem):
    """The PV of a site, by pvlib: clear sky, or a weather file."""

    kwp: Positive
    """Rated DC power of the modules at 1000 W/m2 and 25 °C, kWp."""
    ac_kw: Positive | None = None
    """Rated AC power of the inverter, kW; left out: kwp."""

    @property
    def dc_kw(self) -> float:
        """Rated DC power, kWp."""
        return self.kwp

    @property
    def most_ac_kw(self) -> float:
        """Rated AC power, kW."""
        return self.kwp if self.ac_kw is None else self.ac_kw


class SiteBattery(Settings):
    """The stationary battery of a site."""

    capacity_kwh: Positive
    """Usable capacity, kWh."""
    charge_kw: Positive
    """Most that it draws, kW AC."""
    discharge_kw: Positive | None = None
    """Most that it gives, kW AC; left out: charge_kw."""
    charge_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Energy into the battery per AC energy drawn."""
    discharge_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.95
    """AC energy given per energy out of the battery."""
    soc_start: Share = 0.5
    """State of charge at the start of the run."""
    soc_min: Share = 0.1
    """State of charge below which it does not discharge."""
    standby_kw: NotNegative = 0.0
    """Own consumption, kW AC, on the grid and in an island. The study of resilience counts it while the
    battery discharges."""

    @model_validator(mode="after")
    def _starts_above(self) -> SiteBattery:
        if self.soc_start < self.soc_min:
            raise fault(f"soc_start = {self.soc_start:g}: must be at least soc_min = {self.soc_min:g}")
        return self

    @property
    def most_discharge_kw(self) -> float:
        """Most that it gives, kW AC."""
        return self.charge_kw if self.discharge_kw is None else self.discharge_kw


class Generator(Settings):
    """The standby generator of a site, which runs in outages only, or off grid."""

    power_kw: Positive
    """Rated power, kW."""
    fuel_kwh: NotNegative | None = None
    """Fuel in store at the start of the run, kWh of electric energy; left out: fuel_hours."""
    fuel_hours: NotNegative | None = None
    """Fuel in store at the start of the run, hours at rated power."""
    start: Annotated[Duration, Field(ge=0)] = 10.0
    """Time from its start to full power."""
    minimum_load: Share = 0.0
    """Least power at which it runs, per rated power; what nobody takes of it is lost."""

    @model_validator(mode="after")
    def _one_store(self) -> Generator:
        if (self.fuel_kwh is None) == (self.fuel_hours is None):
            raise fault("give either fuel_hours (at rated power) or fuel_kwh")
        return self

    @property
    def store_kwh(self) -> float:
        """Fuel in store at the start of the run, kWh of electric energy."""
        return self.power_kw * self.fuel_hours if self.fuel_hours is not None else float(self.fuel_kwh or 0)


# ---- the grid -------------------------------------------------------------------------------------


class Interconnection(Settings):
    """What the grid operator has approved."""

    approval: Literal["none", "non_export", "export"] = "export"
    """none: no source of the site runs in parallel with the grid; non_export: in parallel, without export;
    export: with export."""
    import_kw: Positive | None = None
    """Most that the site draws from the grid, kW; left out: what the breaker carries."""
    export_kw: NotNegative | None = None
    """Most that the site gives to the grid, kW; left out: what the breaker carries. With approval export
    only."""

    @model_validator(mode="after")
    def _approved(self) -> Interconnection:
        if self.approval != "export" and self.export_kw:
            raise fault("export_kw is given without approval to export: needs approval = export")
        return self


class Island(Settings):
    """The island that a site forms in an outage, or off grid."""

    former: Literal["auto", "battery", "ev", "generator"] = "auto"
    """What forms it. auto: the battery, without one an EV, without one that can the generator."""
    kva: Positive | None = None
    """Most apparent power of the island, kVA; left out: the rating of what forms it."""
    load_step_kw: Positive | None = None
    """Largest load that can be switched on at once, kW; left out: any within kva."""
    detection: Annotated[Duration, Field(ge=0)] = 2.0
    """Time from the loss of voltage to the opening of the switch; IEEE 1547 allows 2 s."""
    black_start: Annotated[Duration, Field(ge=0)] | None = None
    """Time from the opening of the switch to voltage in the island; left out: 2 s with a battery, 10 s
    without."""
    return_wait: Annotated[Duration, Field(ge=0)] = 300.0
    """Time for which the grid must be healthy before the site resynchronises."""
    ramp: Annotated[Duration, Field(ge=0)] = 300.0
    """Ramp of the site's sources from 0 to full power after that."""


class DrawnConnections(Settings):
    """A share of the connection points, drawn by member."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the connection points with a household that no other group names."""
    with_ev: bool = False
    """Draw only from those at which an EV charges."""


# ---- control --------------------------------------------------------------------------------------


CONTROLS = Registry(
    {
        "cost": "evgrid.sites.controls:Cost",
        "peak": "evgrid.sites.controls:Peak",
        "requests": "evgrid.sites.controls:Requests",
        "reserve": "evgrid.sites.controls:Reserve",
        "self_consumption": "evgrid.sites.controls:SelfConsumption",
    },
    base="evgrid.sites.controls:PlanningControl",
)
"""Controls of a site by name, which is their field ``strategy``."""


class Storm(Settings):
    """A storm warning, for which a higher state of charge is held."""

    warning: LocalTime
    """Local time of the warning, from which the site charges for it."""
    begin: LocalTime
    """Local time by which the state of charge is wanted."""
    end: LocalTime
    """Local time until which it is held."""
    soc: Share
    """State of charge to hold, of the battery and the EVs."""

    @model_validator(mode="after")
    def _in_order(self) -> Storm:
        if not self.warning <= self.begin < self.end:
            raise fault("warning, begin and end must follow in this order")
        return self


class SiteControl(OneOfSeveral):
    """The control of a site while the grid is there; each kind is a class of its own that extends this."""

    needs_prices: ClassVar[bool] = False
    """Whether it needs a tariff or ``system.energy_price``."""

    strategy: str
    """Name of the control."""
    reserve_soc: Share = 0.0
    """State of charge held for outages, of the battery and the EVs: they discharge only above it while the
    grid is there."""
    storms: tuple[Storm, ...] = ()
    """Storm warnings, which raise the reserve."""

    @property
    def user_classes(self) -> tuple[type, ...]:
        """The user's own classes that these settings name."""
        return (type(self),) if ":" in self.strategy else ()

    @classmethod
    def alternatives(cls) -> tuple[type[SiteControl], ...]:
        """All controls."""
        if cls is not SiteControl:
            return (cls,)
        return tuple(CONTROLS.find(name) for name in CONTROLS.names())


def _control(value: Any, info: ValidationInfo) -> SiteControl:
    """The settings of a control as a scenario gives it: a name, or a mapping with a name and others."""
    if isinstance(value, SiteControl):
        return value
    if isinstance(value, str):
        value = {"strategy": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("strategy"), str):
        raise fault(
            "must be a name such as self_consumption, or a mapping such as {strategy: peak, limit_kw: 5}"
        )
    path = f"{(info.context or {}).get('site', 'site')}.control"
    try:
        kind: type[SiteControl] = CONTROLS.find(value["strategy"], (info.context or {}).get("folder"))
    except ValueError as error:
        raise faults([f"{path}.strategy = {value['strategy']}: {error}"]) from None
    try:
        return kind.model_validate(value, context=info.context)
    except ValidationError as error:
        raise faults(faults_of(error, kind, path)) from None


# ---- groups ---------------------------------------------------------------------------------------


def _connections_kind(value: Any) -> str:
    if isinstance(value, DrawnConnections | Mapping):
        return "<drawn>"
    return "<word>" if isinstance(value, str) else "<names>"


def _load_kind(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<own>"


class Site(Settings):
    """A group of sites that have the same, each behind a meter of its own."""

    connections: Annotated[
        Annotated[Literal["all", "none"], Tag("<word>")]
        | Annotated[DrawnConnections, Tag("<drawn>")]
        | Annotated[tuple[ElementName, ...], Field(min_length=1), Tag("<names>")],
        Discriminator(_connections_kind),
    ]
    """Connection points, each a site: a list of names, {share: 0.3} (drawn by member), all (those with a
    household that no other group names), or none: off grid."""
    count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Number of sites in each member that are off grid; left out: 1."""
    evs_each: Annotated[int, Field(ge=0, le=1000)] | None = None
    """EVs of each site that is off grid, taken in order from those upstream of the feeder; left out: 1, or
    0 with a battery or generator."""
    load: (
        Annotated[
            Annotated[Literal["circuits"], Tag("<word>")] | Annotated[OwnLoad, Tag("<own>")],
            Discriminator(_load_kind),
        ]
        | None
    ) = None
    """The load of each site: {kw: 1.25}, {file: load.csv}, or circuits (the sum of them). Left out: the base
    load of its connection point; off grid: circuits."""
    critical: CriticalLoad | None = None
    """The critical part of the load, {share: 0.4}, {kw: 1.25} or {file: critical.csv}; the rest is one
    circuit that is shed before it. Left out: none, or as the circuits say."""
    circuits: Annotated[dict[str, Circuit], Field(min_length=1)] | None = None
    """Circuits by name, in place of critical; what they leave of the load is a further circuit, shed
    first."""
    pv: SitePv | None = None
    """PV; left out: none."""
    battery: SiteBattery | None = None
    """Stationary battery; left out: none."""
    generator: Generator | None = None
    """Standby generator; left out: none."""
    breaker_a: Positive | None = None
    """Rating of the main breaker, A a phase; left out: no limit."""
    nominal_v: Positive = 230.0
    """Voltage from phase to neutral at which the breaker carries its rating, V."""
    interconnection: Interconnection = Interconnection()
    """What the grid operator has approved."""
    backup: Literal["none", "critical", "whole"] = "none"
    """What has supply in an outage. none: nothing; critical: the critical panel; whole: all of the site
    behind a transfer switch."""
    island: Island = Island()
    """The island in an outage, or off grid."""
    control: Annotated[
        SerializeAsAny[SiteControl], BeforeValidator(_control, json_schema_input_type=SiteControl | str)
    ] = Field(default="requests", validate_default=True)
    """Control while the grid is there: requests (only what aggregators ask for), self_consumption, cost,
    peak, reserve, one with settings, {strategy: reserve, reserve_soc: 0.6}, or your own as
    my_module:MyControl."""
    discharge_order: Literal["battery_first", "ev_first"] = "battery_first"
    """Order of discharging of battery and EVs."""

    @property
    def off_grid(self) -> bool:
        """Whether the sites have no connection point."""
        return self.connections == "none"

    @property
    def sites_off_grid(self) -> int:
        """Number of sites off grid in each member."""
        return (1 if self.count is None else self.count) if self.off_grid else 0

    @property
    def evs_off_grid(self) -> int:
        """EVs of each site off grid."""
        alone = self.off_grid and self.battery is None and self.generator is None
        return int(alone) if self.evs_each is None else self.evs_each

    @property
    def by_circuits(self) -> bool:
        """Whether the load is the sum of the circuits."""
        return self.load == "circuits" or (self.off_grid and self.load is None)

    @property
    def black_start_s(self) -> float:
        """Time from the opening of the switch to voltage in the island, s."""
        given = self.island.black_start
        return (2.0 if self.battery is not None else 10.0) if given is None else given

    @property
    def parts(self) -> dict[str, Circuit]:
        """The circuits by name, in the order in which they are served; without the rest of the load."""
        if self.critical is not None:
            return {"critical": Circuit(**self.critical.model_dump(), critical=True)}
        named = self.circuits or {}
        return dict(sorted(named.items(), key=lambda item: (not item[1].critical, item[1].order)))

    @model_validator(mode="after")
    def _fits_together(self) -> Site:
        found = [*self._of_connections(), *self._of_load(), *self._of_backup()]
        if self.breaker_a is None and self.nominal_v != type(self).model_fields["nominal_v"].default:
            found.append(f"nominal_v = {self.nominal_v:g}: has no meaning without breaker_a")
        if self.battery is None and self.discharge_order != "battery_first":
            found.append(f"discharge_order = {self.discharge_order}: has no meaning without a battery")
        if found:
            raise fault("; ".join(found))
        return self

    def _of_connections(self) -> list[str]:
        found = []
        if isinstance(self.connections, tuple):
            twice = [name for name in dict.fromkeys(self.connections) if self.connections.count(name) > 1]
            found += [f"connections: {name} is there twice" for name in twice]
        if self.off_grid:
            found += [
                f"{key} has no meaning without connection (connections = none)"
                for key, given in (
                    ("breaker_a", self.breaker_a is not None),
                    ("interconnection", self.interconnection != Interconnection()),
                    ("backup", self.backup != "none"),
                )
                if given
            ]
        else:
            found += [
                f"{key} is for sites off grid (connections = none)"
                for key in ("count", "evs_each")
                if getattr(self, key) is not None
            ]
        return found

    def _of_load(self) -> list[str]:
        found = []
        if self.critical is not None and self.circuits is not None:
            found.append("give either critical or circuits, which say what is critical")
        parts = self.parts
        if self.by_circuits:
            if not parts:
                found.append("load is required off grid: give load, or circuits with kw or file")
            shares = [name for name, part in parts.items() if part.share is not None]
            found += [
                f"circuits.{name}: needs kw or file, as the load is the sum of the circuits"
                for name in shares
            ]
            return found
        total = sum(part.share or 0.0 for part in parts.values())
        if self.circuits is not None and total > 1.0 + 1e-9:
            found.append(f"circuits: the shares add up to {total:g}: must be at most 1")
        stated = self.load.kw if isinstance(self.load, OwnLoad) else None
        constant = sum(part.kw or 0.0 for part in parts.values())
        if stated is not None and constant + total * stated > stated * (1 + 1e-9):
            name = "critical" if self.critical is not None else "circuits"
            found.append(
                f"{name}: {constant + total * stated:g} kW in all: must be at most load.kw = {stated:g}"
            )
        return found

    def _of_backup(self) -> list[str]:
        found = []
        if self.backup == "none" and not self.off_grid and self.island != Island():
            found.append("island has no meaning without backup")
        if self.backup == "critical" and not any(part.critical for part in self.parts.values()):
            found.append("backup = critical: needs critical, or a circuit with critical: true")
        former = self.island.former
        if former in ("battery", "generator") and getattr(self, former) is None:
            found.append(f"island.former = {former}: there is no {former}")
        return found


def sites_of(value: Any, info: ValidationInfo) -> Any:
    """Check each group of sites; null removes one of the base."""
    if not isinstance(value, Mapping):
        raise fault("must be a mapping of names to groups of sites, such as {homes: {connections: all}}")
    checked: dict[str, Site] = {}
    found: list[str] = []
    for name, given in value.items():
        if given is None:
            continue
        if not (isinstance(name, str) and name.isidentifier()):
            found.append(f"sites: {name} can't be a name: must be a word of letters, digits and _")
            continue
        try:
            context = {**(info.context or {}), "site": f"sites.{name}"}
            checked[name] = given if isinstance(given, Site) else Site.model_validate(given, context=context)
        except ValidationError as error:
            found += faults_of(error, Site, f"sites.{name}")
    if found:
        raise faults(found)
    return checked


def group_faults(
    sites: Mapping[str, Site], *, prices: bool, demand: DemandCharge | None, fleet: bool, discharging: bool
) -> list[str]:
    """Faults of groups that depend on each other or on the rest of the scenario, a sentence each.

    prices, fleet : whether there are prices of energy, and EVs
    demand : the tariff's demand charge
    discharging : whether there can be an EV that discharges
    """
    found = []
    owner: dict[str, str] = {}
    for name, site in sites.items():
        for connection in site.connections if isinstance(site.connections, tuple) else ():
            if owner.setdefault(connection, name) != name:
                found.append(
                    f"sites: {owner[connection]} and {name} both have the connection {connection}: "
                    "a connection point has one site"
                )
    drawn = {
        name: 1.0 if site.connections == "all" else site.connections.share
        for name, site in sites.items()
        if site.connections == "all" or isinstance(site.connections, DrawnConnections)
    }
    if (total := sum(drawn.values())) > 1.0 + 1e-9:
        found.append(
            f"sites: the shares of the connections of {', '.join(drawn)} add up to {total:g}: "
            "must be at most 1"
        )
    for name, site in sites.items():
        path = f"sites.{name}"
        if site.control.needs_prices and not prices:
            found.append(
                f"{path}.control.strategy = {site.control.strategy}: needs a tariff or system.energy_price"
            )
        if getattr(site.control, "by_demand_charge", False):
            if demand is None:
                found.append(
                    f"{path}.control.strategy = {site.control.strategy}: needs limit_kw, or a tariff with a "
                    "demand charge"
                )
            else:
                slots = site.control.slot_faults("tariff.demand.interval", demand.interval)  # type: ignore[attr-defined]
                found += [f"{path}.control.{one}" for one in slots]
        if isinstance(site.connections, DrawnConnections) and site.connections.with_ev and not fleet:
            found.append(f"{path}.connections.with_ev: there is no fleet")
        formers = site.battery is not None or site.generator is not None
        if site.off_grid and not formers and not (site.evs_off_grid and discharging):
            found.append(
                f"{path}: a site off grid needs a battery, a generator, or EVs that can discharge "
                "(fleet.upstream and fleet.charger.bidirectional above 0)"
            )
        if site.backup != "none" and not (formers or discharging):
            found.append(
                f"{path}.backup = {site.backup}: needs a battery, a generator, or EVs that can discharge "
                "(fleet.charger.bidirectional above 0)"
            )
        elif site.backup != "none" and site.island.former == "ev" and not discharging:
            found.append(
                f"{path}.island.former = ev: needs EVs that can discharge "
                "(fleet.charger.bidirectional above 0)"
            )
    return found
