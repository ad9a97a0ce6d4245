"""A scenario: the definition of a run, from YAML, checked before the run starts.

A scenario is a YAML file with the sections below. It may start from another
(``extends: base.yaml``), and single values may be overridden (``--set fleet.penetration=0.8``).
Both are merged key by key, but a mapping that chooses another kind (``strategy``, ``source``, ``file``
and other files of sessions) and a vehicle mix replace the previous value as a whole. Unknown keys are
errors, and all faults are reported at once, each with its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from evgrid.core.model import Clock
from evgrid.core.units import DAY_S
from evgrid.readers.signals import Signals
from evgrid.scenario.aggregators import StrategySettings, aggregators_of, selection_faults
from evgrid.scenario.communication import Communication
from evgrid.scenario.federation import FederationSettings
from evgrid.scenario.feeder import Feeder
from evgrid.scenario.fields import (
    Duration,
    ElementName,
    LocalTime,
    Name,
    Settings,
    fault,
    faults,
    seconds_from,
)
from evgrid.scenario.fleet import Fleet
from evgrid.scenario.outages import OutageSettings, Restoration, ScheduledOutage, outages_from
from evgrid.scenario.sites import Site, group_faults, sites_of
from evgrid.scenario.system import System, signals_of
from evgrid.scenario.tariffs import Prices, Tariff, prices_of, tariff_from, tariff_of


def _speed(value: Any) -> Any:
    if value == "real time":
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise fault("must be real time, or simulated seconds in a second of wall time, above 0")
    return value


class Time(Settings):
    """The simulated period, its tick, and the pace of the run."""

    start: LocalTime
    """Local wall-clock time at which the run starts, such as 2026-01-15T12:00. With speed also now: that of
    this machine when the scenario is read, rounded down to the step."""
    duration: Annotated[Duration, Field(gt=0)] = DAY_S
    """Length of the run; a multiple of the step."""
    step: Annotated[Duration, Field(gt=0)] = 60.0
    """The tick: the period of the fastest federate."""
    speed: (
        Annotated[float, BeforeValidator(_speed, json_schema_input_type=float | Literal["real time"])] | None
    ) = None
    """Simulated seconds in a second of wall time, to which the run keeps; real time is 1. Left out: as fast
    as it can."""

    _starts_now: bool = PrivateAttr(default=False)

    @property
    def starts_now(self) -> bool:
        """Whether ``start`` was given as now."""
        return self._starts_now

    @model_validator(mode="wrap")
    @classmethod
    def _now(cls, given: Any, made: ModelWrapValidatorHandler[Self]) -> Self:
        """The start of a run that starts now."""
        if not isinstance(given, Mapping) or given.get("start") != "now":
            return made(given)
        if given.get("speed") is None:
            raise faults(["time.start = now: goes with time.speed, as such a run keeps to wall time"])
        now = datetime.now()
        since_s = (now - datetime.combine(now, time())).total_seconds()
        try:
            step_s = seconds_from(given.get("step", cls.model_fields["step"].default))
        except PydanticCustomError:  # reported by its field
            step_s = 0.0
        found = made({**given, "start": now - timedelta(seconds=since_s % step_s) if step_s > 0 else now})
        found._starts_now = True
        return found


class Ensemble(Settings):
    """Monte Carlo members, advanced together."""

    members: Annotated[int, Field(ge=1)] = 1
    """Number of members."""
    first: Annotated[int, Field(ge=0)] = 0
    """Number of the first member; only member 17 is {first: 17, members: 1}."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of all random numbers; each member has streams of its own."""


class Coupling(Settings):
    """Coupling of fleet and feeder within a tick; a name without settings is its mode."""

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
    """Content of the result."""

    buses: Recorded = "all"
    """Buses whose voltage is recorded: all, none, or a list of names."""
    lines: Recorded = "all"
    """Lines whose loading is recorded: all, none, or a list of names."""
    trafos: Recorded = "all"
    """Transformers whose variables are recorded over time: all, none, or a list of names."""
    shunts: Recorded = "all"
    """Shunts whose steps are recorded: all, none, or a list of names."""
    sites: Recorded = "all"
    """Sites whose variables are recorded: all, none over time, or a list of names, in all members."""

    connections: bool = False
    """Power at every connection point and of every generator, by phase: with it a snapshot of the power flow
    can be rebuilt."""
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
        return tariff_from(value, info.context)
    return tariff_of(str(value), (info.context or {}).get("folder"))


class Scenario(Settings):
    """The complete definition of a run."""

    name: Name
    """Name of the scenario, also in results and plots."""
    time: Time
    """Period and tick."""
    ensemble: Ensemble = Ensemble()
    """Monte Carlo members."""
    feeder: Feeder
    """The distribution feeder."""
    fleet: Fleet | None = None
    """The EVs; left out: none."""
    aggregators: Annotated[dict[str, SerializeAsAny[StrategySettings]], BeforeValidator(aggregators_of)] = {}
    """The aggregators by name; EVs without one are uncontrolled. null removes one of the base."""
    sites: Annotated[dict[str, Site], BeforeValidator(sites_of)] = {}
    """Groups of sites by name: homes, buildings and off-grid loads behind a meter each, with their EVs; left
    out: none. null removes one of the base."""
    communication: Communication = Communication()
    """The link between aggregator and chargers."""
    tariff: Annotated[
        SerializeAsAny[Tariff] | None, BeforeValidator(_tariff, json_schema_input_type=str | None)
    ] = None
    """A tariff shipped with evgrid (pge_ev2a, sce_tou_d_prime) or a tariff file (YAML). Left out: the price
    of energy is system.energy_price, where given."""
    system: System | None = None
    """The bulk system: frequency and regulation signal; left out: none."""
    outages: Annotated[
        OutageSettings | None,
        BeforeValidator(
            outages_from, json_schema_input_type=OutageSettings | tuple[ScheduledOutage, ...] | None
        ),
    ] = None
    """Outages of the feeder: a list of scheduled ones, or {schedule, saifi, caidi, rates, ...}; left out:
    none."""
    coupling: Annotated[
        Coupling, BeforeValidator(_coupling, json_schema_input_type=Coupling | Literal["lagged", "iterated"])
    ] = Coupling()
    """Coupling of fleet and feeder within a tick: lagged, iterated, or
    {mode, tolerance, most_iterations}."""
    record: Record = Record()
    """Content of the result."""
    federation: FederationSettings = FederationSettings()
    """Federates that other programs run, and where they join; left out: all are evgrid's own."""

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
        if self.sites and self.fleet is not None:
            charger, vehicle = self.fleet.charger, self.fleet.vehicle
            found += [
                f"fleet.{key}: a site does not foresee it in its EVs; leave it out with sites"
                for key, given in (
                    ("charger.functions", charger.functions),
                    ("charger.ramp_kw_per_s", charger.ramp_kw_per_s),
                    ("charger.minimum_current_a", charger.minimum_current_a or None),
                    ("charger.pilot_step_a", charger.pilot_step_a or None),
                    ("vehicle.temperature", vehicle.temperature),
                )
                if given is not None
            ]  # fmt: skip
        local = self.fleet.charger.functions if self.fleet is not None else None
        if (
            self.system is not None
            and local is not None
            and (local.trips is not None or local.frequency_watt is not None)
            and local.nominal_hz != self.system.nominal_hz
        ):
            found.append(
                f"fleet.charger.functions.nominal_hz = {local.nominal_hz}: must be "
                f"system.nominal_hz = {self.system.nominal_hz:g}, which the chargers see"
            )
        if self.fleet is None and self.aggregators:
            found.append("aggregators: there is no fleet to control")
        if self.outages is not None and self.fleet is None and self.outages.restoration != Restoration():
            found.append("outages.restoration: there is no fleet that could return")
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
            if self.system is None or not self.system.gives(key)
        ]
        found += [
            f"aggregators.{name}.{text}"
            for name, settings in self.aggregators.items()
            for text in settings.strategy_class.faults(settings, self)
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
        found += group_faults(
            self.sites,
            prices=self.has_prices,
            demand=self.tariff.demand if self.tariff is not None else None,
            fleet=self.fleet is not None,
            discharging=self.fleet is not None
            and (not self.fleet.sessions.sampled or self.fleet.charger.bidirectional > 0),
        )
        found += self._two_currencies()
        if self.system is not None and self.system.live is not None:
            if self.ensemble.members != 1:
                found.append(f"system: a server needs ensemble.members = 1, not {self.ensemble.members}")
            if self.sites and self.tariff is None and self.system.gives_prices:
                found.append("system.openadr.vtn: sites need prices that are known when the run begins")
        demand = self.tariff.demand if self.tariff is not None else None
        if demand is not None and demand.of != "evs":
            parts = demand.interval / self.feeder_step_s
            if abs(parts - round(parts)) > 1e-9 or parts < 1:
                found.append(
                    f"tariff.demand.interval = {demand.interval:g}s: must be a multiple of "
                    f"feeder.step = {self.feeder_step_s:g}s with tariff.demand.of = {demand.of}"
                )
        if self.tariff is not None and self.tariff.has_blocks:
            found += [
                f"tariff.blocks: {what}"
                for what, given in (
                    ("are of customers at connection points, not of sites", self.sites),
                    ("EVs upstream of the feeder (fleet.upstream) have no customer", self._has_upstream),
                )
                if given
            ]
        if found:
            raise faults(list(dict.fromkeys(found)))
        return self

    @property
    def _has_upstream(self) -> bool:
        return self.fleet is not None and self.fleet.upstream > 0

    def _two_currencies(self) -> list[str]:
        """The fault of a tariff and a wholesale price in different currencies."""
        given = self.system.currency if self.system is not None else ""
        if self.tariff is None or not given or given == self.tariff.currency:
            return []
        assert self.system is not None
        key = "energy_price" if self.system.energy_price and self.system.energy_price.currency else "openadr"
        return [f"system.{key}.currency = {given}: must be that of the tariff, {self.tariff.currency}"]

    @property
    def bills(self) -> bool:
        """Whether the highest power of each month is in the result: of the EVs, or as the tariff requires."""
        return self.fleet is not None or (self.tariff is not None and self.tariff.demand is not None)

    @property
    def has_prices(self) -> bool:
        """Whether there is a price of energy: a tariff, or that of the bulk system."""
        return self.tariff is not None or (self.system is not None and self.system.gives_prices)

    @property
    def prices(self) -> Prices | None:
        """Prices of energy in the run; None without any.

        Raises ScenarioError for a file of prices that is at fault.
        """
        return prices_of(self.tariff, self.system, self.clock, self.signals)

    @property
    def signals(self) -> Signals | None:
        """Signals from outside; None without any. Raises ScenarioError for a file that is at fault."""
        return signals_of(self.system, self.clock, self.ensemble.seed)

    @property
    def currency(self) -> str:
        """Currency of all prices; "" where it isn't known."""
        if self.tariff is not None:
            return self.tariff.currency
        return self.system.currency if self.system is not None else ""

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
        """Whether an aggregator's strategy uses the fleet's envelope."""
        return any(a.strategy_class.goes_by_envelope(a) for a in self.aggregators.values())

    @property
    def clock(self) -> Clock:
        """Simulated time of the run."""
        return Clock(self.start, self.time.step, round(self.time.duration / self.time.step))

    @property
    def members(self) -> range:
        """Numbers of the members that the run computes."""
        return range(self.ensemble.first, self.ensemble.first + self.ensemble.members)
