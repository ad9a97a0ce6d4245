"""Runs: build the models of a scenario, couple them, and return the result as a Dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.aggregator.assignment import portfolios
from evgrid.aggregator.dispatch import WithinSettings
from evgrid.aggregator.excess import REASONS
from evgrid.aggregator.following import FOLLOWED
from evgrid.aggregator.strategies.scheduled import ScheduledSettings, demand_of
from evgrid.aggregator.strategies.time_of_use import CheapestFirst
from evgrid.core.energy_audit import audit
from evgrid.core.model import UPSTREAM, Clock, Connections, EVs, Model, Outages, Portfolio
from evgrid.errors import ScenarioError
from evgrid.readers.signals import Signals
from evgrid.results import FORMAT, FileStore, MemoryStore, ResultRecorder, versions
from evgrid.results.recording import KINDS, SITE, Selection, selection
from evgrid.scenario import Scenario, load_scenario, scenario_from
from evgrid.scenario.fields import Settings
from evgrid.scenario.sites import DrawnConnections
from evgrid.scenario.system import OpenADRRegulation
from evgrid.scenario.tariff_forms.seasons import SeasonTariff
from evgrid.scenario.tariffs import months_of
from evgrid.system.live import LiveSignals

if TYPE_CHECKING:
    import threading

    import pandas as pd
    import xarray as xr

    from evgrid.federation.runtime import FederationReport
    from evgrid.feeder.base_load import BaseLoad
    from evgrid.feeder.networks import Network
    from evgrid.fleet.sessions import Sessions
    from evgrid.runs.parts import Part
    from evgrid.sites.tables import SiteTable


@dataclass(frozen=True)
class World:
    """The static data of a run, which every process derives equally from the resolved scenario.

    ``connections``: the feeder's, and one for EVs upstream of it where there are any; ``base``: the load
    of the feeder without EVs; ``outages``: when parts of it are without supply, None without any; ``sites``:
    what is behind the meters, None without any.
    """

    scenario: Scenario
    network: Network
    connections: Connections
    evs: EVs
    sessions: Sessions
    portfolios: tuple[Portfolio, ...]
    base: BaseLoad
    outages: Outages | None = None
    sites: SiteTable | None = None

    @property
    def clock(self) -> Clock:
        """Simulated time."""
        return self.scenario.clock

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on assumptions and on data read and dropped, a sentence each: printed by ``run`` and
        ``validate``, and stored in the result.
        """
        from evgrid.feeder.base_load import base_load_notes

        base_load = base_load_notes(self.scenario, self.network, self.base)
        system = self.scenario.system
        emissions = None if system is None else system.emissions
        of_clock = "" if emissions is None else emissions.note(self.clock)
        tariff = self.scenario.tariff
        own = [*([of_clock] if of_clock else []), *([] if tariff is None else tariff.notes(self.clock))]
        of_plans = self._notes_of_plans
        return (
            *self.network.notes,
            *base_load,
            *self._notes_of_series,
            *self.sessions.notes,
            *self._notes_of_ageing,
            *(self.sites.notes if self.sites is not None else ()),
            *own,
            *of_plans,
            *(self.outages.notes if self.outages is not None else ()),
            *self._notes_of_signals,
        )

    @cached_property
    def _notes_of_series(self) -> tuple[str, ...]:
        """Accounts of time series whose form is stated, but for those of the base load."""
        return tuple(_notes_of_series(self.scenario, self.clock))

    @cached_property
    def signals(self) -> Signals | None:
        """Signals from outside: of files, or those that come during the run; None without any."""
        system = self.scenario.system
        if system is not None and system.live is not None:
            return LiveSignals(system.live)
        return self.scenario.signals

    @cached_property
    def _notes_of_signals(self) -> tuple[str, ...]:
        """Notes on signals from outside that are not followed."""
        return tuple(_notes_of_signals(self))

    @cached_property
    def _notes_of_ageing(self) -> tuple[str, ...]:
        """Notes on ageing models used outside their validated range."""
        fleet = self.scenario.fleet
        if fleet is None or fleet.vehicle.degradation is None:
            return ()
        from evgrid.fleet.extras import ageing_notes

        return ageing_notes(fleet, self.sessions, self.clock)

    @cached_property
    def _notes_of_plans(self) -> tuple[str, ...]:
        """Notes on plans that look beyond the end of data."""
        return tuple(_notes_of_plans(self))

    @cached_property
    def selection(self) -> Selection:
        """The recorded elements of the feeder, and sites. Raises ScenarioError for unknown names."""
        labels = {dim: self.network.coordinates()[dim][1] for dim in KINDS}
        sites, drawn = self.sites, None
        labels[SITE] = sites.name if sites is not None else np.zeros(0, np.str_)
        if any(isinstance(site.connections, DrawnConnections) for site in self.scenario.sites.values()):
            drawn = self.connections.name[self.connections.households > 0]
        return selection(self.scenario.record, labels, drawn)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension but time."""
        return {
            "member": len(self.scenario.members),
            **self.network.sizes,
            "connection": len(self.connections),
            "ev": len(self.evs),
            **{f"ev.{p.name}": len(p.rows) for p in self.portfolios},
            "session": len(self.sessions),
            **self._sizes_of_sites,
            "hour": int(self.clock.duration_s / 3600.0 + 1e-9),
            "reason": len(REASONS),
            "month": len(months_of(self.clock)),
            **self._sizes_of_bills,
            **self._sizes_of_envelope,
        }

    @property
    def _sizes_of_bills(self) -> dict[str, int]:
        tariff = self.scenario.tariff
        windows = tariff.demand.windows if tariff is not None and tariff.demand is not None else ()
        periods = len(tariff.periods) if isinstance(tariff, SeasonTariff) and tariff.has_blocks else 0
        return {"window": len(windows), "period": periods}

    @property
    def _sizes_of_sites(self) -> dict[str, int]:
        if self.sites is None:
            return {}
        from evgrid.sites.model import segment_rows

        evs = len(self.sites.ev)
        rows = segment_rows(evs, self.scenario.time.step)
        return {"site": len(self.sites), "site_ev": evs, "segment": rows, "segment_field": 6}

    @property
    def _sizes_of_envelope(self) -> dict[str, int]:
        settings = self.scenario.fleet.envelope if self.scenario.fleet is not None else None
        if settings is None:
            return {}
        return {
            "envelope_time": int(self.clock.duration_s / settings.every_s + 1e-9),
            "lead": settings.slots,
        }


def build_world(scenario: Scenario, change: Callable[[Network], Network] | None = None) -> World:
    """Load the network, changed by ``change`` if given, and draw or read the sessions.

    Raises NetworkError, or ScenarioError with the faults of all files of the scenario, also if the run
    would take more memory than there is.
    """
    from evgrid.feeder.base_load import base_load
    from evgrid.feeder.networks import load_network
    from evgrid.feeder.outages import check_outages, outages_of
    from evgrid.fleet.sessions import fleet_tables
    from evgrid.fleet.sessions.charge_targets import with_targets
    from evgrid.fleet.sessions.evse import charges_on_one_phase
    from evgrid.runs.memory import check_memory
    from evgrid.sites.tables import site_table

    charger_v = scenario.fleet.charger.nominal_v if scenario.fleet is not None else None
    network = load_network(scenario.feeder, charges_on_one_phase(scenario), charger_v)
    if change is not None:
        network = change(network)
    check_memory(scenario, network)
    connections = network.connections
    if UPSTREAM not in connections.name:
        connections = connections.with_upstream()
    try:
        base, (evs, sessions), _ = _all_read(
            [
                partial(base_load, scenario, network),
                partial(fleet_tables, scenario, connections),
                partial(check_outages, scenario, network),
            ]
        )
    except ScenarioError as error:
        _all_read([partial(_raise, error), partial(check_files, scenario)])
        raise
    if not (evs.connection == network.connections.on_feeder).any():
        connections = network.connections
    vehicle = np.zeros(len(evs), sessions.vehicle.dtype)
    vehicle[sessions.ev] = sessions.vehicle
    owners = portfolios(scenario, connections, network.grid.trafos.name, network.topology.bank, evs, vehicle)
    if scenario.signals is not None and scenario.system is not None:
        owner = np.full(len(evs), "", "U200")
        for p in owners:
            owner[p.rows] = p.name
        labels = (evs.name, connections.name[evs.connection], owner)
        names = frozenset(scenario.system.targets)
        sessions = with_targets(sessions, evs, scenario.signals, labels, names)
    may_discharge = np.zeros(len(evs), np.bool_)
    may_discharge[sessions.ev[sessions.discharge_kw > 0]] = True
    sites = site_table(scenario, connections, evs, base, may_discharge)
    outages = outages_of(scenario, network, connections)
    made = World(scenario, network, connections, evs, sessions, owners, base, outages, sites)
    made.selection  # noqa: B018 (unknown names are refused)
    return made


def check_files(scenario: Scenario) -> None:
    """Read the files that are otherwise read only by models: of the system, the tariff and the weather.

    Raises ScenarioError with every fault of all of them.
    """
    from evgrid.core.model import MemoryRecorder
    from evgrid.scenario.ambient import AmbientTemperature
    from evgrid.scenario.tariffs import prices_of
    from evgrid.system.model import SystemModel

    clock, fleet, ageing = scenario.clock, scenario.fleet, scenario.feeder.transformer_ageing
    reads: list[Callable[[], Any]] = [partial(prices_of, scenario.tariff, scenario.system, clock)]
    if scenario.system is not None:
        seed, members = scenario.ensemble.seed, scenario.members
        reads.append(lambda: scenario.signals)
        reads.append(partial(SystemModel, scenario.system, clock, members, seed, MemoryRecorder()))
    for settings in (ageing, fleet and fleet.vehicle.temperature):
        if settings:
            reads.append(partial(AmbientTemperature, settings.ambient, clock))
    _all_read(reads)


def _all_read(reads: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of all calls. Raises ScenarioError with the faults of all, each once, named by their files."""
    values, errors = list[Any](), list[ScenarioError]()
    for read in reads:
        try:
            values.append(read())
        except ScenarioError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        found = dict.fromkeys((error.source, fault) for error in errors for fault in error.faults)
        if len({source for source, _ in found}) == 1:
            raise ScenarioError([fault for _, fault in found], errors[0].source)
        raise ScenarioError([fault if of == "scenario" else f"{of}: {fault}" for of, fault in found])
    return values


def _raise(error: ScenarioError) -> None:
    raise error


def build_models(
    world: World, recorder: ResultRecorder, fleet: Callable[..., Model] | None = None
) -> list[Model]:
    """The models of a run in causal order, which record with the recorder; ``fleet``: see
    :func:`run_with_report`.
    """
    from evgrid.aggregator.model import AggregatorModel
    from evgrid.feeder.base_load import load_by_trafo
    from evgrid.feeder.model import FeederModel, GroupMeter
    from evgrid.feeder.sensitivity import Sensitivities
    from evgrid.fleet.commands import Commands
    from evgrid.fleet.extras import in_force, may_discharge
    from evgrid.fleet.model import FleetModel
    from evgrid.fleet.planned_sessions import planned_sessions_of
    from evgrid.sites.model import SitesModel
    from evgrid.system.model import SystemModel

    scenario, models = world.scenario, list[Model]()
    controlled = [
        p for p in world.portfolios if len(p.rows) and scenario.aggregators[p.name].strategy_class.controls
    ]
    has_fleet = scenario.fleet is not None
    if scenario.system is not None:
        models.append(
            SystemModel(
                scenario.system,
                scenario.clock,
                scenario.members,
                scenario.ensemble.seed,
                recorder,
                fleet=has_fleet,
                signals=world.signals,
                paced=scenario.time.speed is not None,
            )
        )
    sensitivity = planned = None
    if any(scenario.aggregators[p.name].strategy_class.goes_by_sensitivities() for p in controlled):
        sensitivity = Sensitivities(scenario, world.network).without
    if controlled:
        planned = planned_sessions_of(scenario, world.connections, world.evs, world.sessions)
    load = partial(load_by_trafo, scenario, world.network, base=world.base)
    models += [
        AggregatorModel(
            scenario,
            p,
            world.connections,
            world.evs,
            world.network.topology.bank,
            recorder,
            sensitivity,
            planned,
            load,
            world.outages,
            world.signals,
            world.network.grid.trafos.name,
        )
        for p in controlled
    ]
    if world.sites is not None:
        requests = None
        sessions = in_force(scenario, world.connections, world.evs, world.sessions)
        if controlled:
            parts = [] if any(p.whole for p in world.portfolios) else list(controlled)
            requests = Commands(scenario, world.evs, sessions, True, parts)
        models.append(
            SitesModel(
                scenario,
                world.sites,
                world.connections,
                world.evs,
                sessions,
                may_discharge(scenario, world.connections, world.evs),
                requests,
                recorder,
                world.outages,
            )
        )
    if has_fleet:
        taken = {port for model in models for port in model.inputs}
        models.append(
            (fleet or FleetModel)(
                scenario, world.connections, world.evs, world.sessions, recorder,
                managed=bool(controlled), trafos=world.sizes["trafo"], portfolios=world.portfolios,
                taken=taken, at_sites=world.sites.ev if world.sites is not None else None,
                outages=world.outages,
                live=world.signals if isinstance(world.signals, LiveSignals) else None,
            )
        )  # fmt: skip
    feedback = any(name.startswith("feeder/") for model in models for name in model.inputs)
    iterates = any(model.iterates for model in models)
    models.append(
        FeederModel(
            scenario, world.network, recorder, has_fleet, feedback, base=world.base,
            upstream=world.connections.upstream, iterates=iterates,
            meters=[GroupMeter(*given) for given in _limited(world, controlled)],
            outages=world.outages,
            at_sites=_on_feeder(world.sites) if world.sites is not None else None,
        )
    )  # fmt: skip
    return models


def _on_feeder(sites: SiteTable) -> tuple[Any, Any]:
    """Member and connection of the sites that have a connection."""
    here = sites.connection >= 0
    return sites.member[here], sites.connection[here]


def _notes_of_series(scenario: Scenario, clock: Clock) -> Iterator[str]:
    """What was read, shifted, filled and dropped of each file of a series whose form is stated, a sentence
    each; that of the base load is said with it.
    """
    from evgrid.readers.series import Rules, read_series_with_account
    from evgrid.scenario.time_series import PowerSeries

    parts = {name: getattr(scenario, name) for name in ("feeder", "fleet", "sites", "system", "tariff")}
    for path, given in _series_files(parts, ""):
        if not [name for name in given.stated_form if name != "time_format"]:
            continue
        power = isinstance(given, PowerSeries)
        account = read_series_with_account(
            given.file, clock, Rules("number", power=power), getattr(given, "column", None), given.reading
        )[1]
        yield f"{path}.file: {account.sentence()}."


def _series_files(settings: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Files of single time series in settings, with their paths."""
    from evgrid.scenario.time_series import PowerTable, TimeSeries

    if isinstance(settings, TimeSeries):
        if not isinstance(settings, PowerTable) and getattr(settings, "file", None) is not None:
            yield path, settings
    elif isinstance(settings, Settings):
        for name in type(settings).model_fields:
            yield from _series_files(getattr(settings, name), f"{path}.{name}")
    elif isinstance(settings, Mapping):
        for name, part in settings.items():
            yield from _series_files(part, f"{path}.{name}" if path else str(name))


def _notes_of_signals(world: World) -> Iterator[str]:
    """What signals from outside there are, and what of them has no effect in the run, a sentence each."""
    scenario, signals = world.scenario, world.signals
    system = scenario.system
    if signals is None or system is None:
        return
    if system.live is not None:
        yield f"signals come from a server during the run: {', '.join(sorted(system.live)).replace('_', ' ')}"
        return
    counted = Counter(block.kind for block in signals.blocks)
    kinds, events = frozenset(counted), len({block.event for block in signals.blocks})
    if events:
        named = ", ".join(f"{kind.replace('_', ' ')} ({count})" for kind, count in sorted(counted.items()))
        yield f"signals of {events} events: {named}"
    else:
        yield "signals from outside: no events for this run"
    yield from signals.notes
    if system.openadr is not None and scenario.tariff is None and system.energy_price is None:
        if "price" not in kinds and system.gives_prices:
            yield "no price of OpenADR is for this run: energy costs 0"
        elif not events:
            yield "costs are not known: there is neither a tariff nor a price of OpenADR"
    if scenario.tariff is not None and kinds & {"price", "export_price"}:
        yield "prices of OpenADR are recorded only: energy costs what the tariff says"
    if "export_price" in kinds and not scenario.has_prices:
        yield "EXPORT_PRICE of OpenADR is not used: there is no price of energy drawn"
    if "regulation" in kinds and not isinstance(system.regulation, OpenADRRegulation):
        yield "regulation by OpenADR is not used: it needs system.regulation.source = openadr"
    if kinds & set(FOLLOWED) and not any(a.strategy_class.controls for a in scenario.aggregators.values()):
        yield "set-points and limits of signals are not followed: no aggregator controls EVs"
    names = {*system.targets, *scenario.aggregators}
    for labels in (world.evs.name, world.connections.name, world.network.grid.trafos.name):
        names.update(labels.tolist())
    nobody = {" or ".join(sorted(b.targets)) for b in signals.blocks if b.targets and not b.targets & names}
    if nobody:
        yield f"signals are for nobody in this run: those for {', '.join(sorted(nobody))}"


def _notes_of_plans(world: World) -> Iterator[str]:
    """Notes on the values used beyond the end of files by an aggregator's plans, a sentence each."""
    from evgrid.feeder.base_load import base_load
    from evgrid.scenario.system import emissions_of
    from evgrid.scenario.tariffs import prices_of

    scenario, clock, signals = world.scenario, world.clock, world.scenario.signals
    for name, settings in scenario.aggregators.items():
        cls = settings.strategy_class
        horizon_s = getattr(settings, "horizon", None)
        if horizon_s is None and not issubclass(cls, CheapestFirst):
            continue
        until_s = float(world.sessions.departure_s.max(initial=0.0))
        if horizon_s is not None:
            until_s = clock.duration_s + horizon_s
        charge = scenario.tariff.demand if scenario.tariff is not None else None
        plans_demand = isinstance(settings, ScheduledSettings) and settings.demand_charge is None
        if charge is not None and plans_demand and not all(price.plain for price in charge.prices):
            yield (
                f"aggregators.{name}: plans leave out the parts of tariff.demand that have windows, above_kw "
                "or a ratchet"
            )
        if scenario.tariff is not None and scenario.tariff.has_blocks:
            yield f"aggregators.{name}: plans go by the prices of the tariff's first blocks"
        if (
            charge is not None
            and isinstance(settings, ScheduledSettings)
            and plans_demand
            and any(price.plain for price in charge.prices)
            and demand_of(settings, scenario.tariff) is None
        ):
            yield (
                f"aggregators.{name}: plans leave out tariff.demand, which is of = {charge.of}, as the "
                f"aggregator has group = {settings.group}"
            )
        ends_s = {}
        emissions = emissions_of(scenario.system, clock, signals)
        if emissions is not None and "emissions" in cls.needs(settings):
            ends_s["system.emissions"] = float(emissions.edges_s[-1])
        if horizon_s is not None or not ends_s:
            prices = prices_of(scenario.tariff, scenario.system, clock, signals)
            ends_s["the series of prices"] = np.inf if prices is None else prices.ends_s
        if cls.goes_by_feeder(settings) and scenario.feeder.base_load.kind == "file":
            ends_s["feeder.base_load"] = base_load(scenario, world.network).ends_s
        for what, end_s in ends_s.items():
            if end_s < until_s - 1e-6:
                yield (
                    f"aggregators.{name}: plans look ahead to {clock.stamp(until_s)}, {what} ends at "
                    f"{clock.stamp(end_s)}: its last day follows in plans, or its last value if it has none"
                )


def _limited(world: World, controlled: list[Portfolio]) -> Iterator[tuple[Any, ...]]:
    """The fields of a GroupMeter for each aggregator that has a limit."""
    banks = world.network.topology.bank
    for p in controlled:
        settings = world.scenario.aggregators[p.name]
        if not (isinstance(settings, WithinSettings) and settings.limited):
            continue
        own = None
        if settings.group == "transformer" and len(banks):
            connection = world.evs.connection[p.rows]
            here = connection[connection < world.connections.on_feeder]
            own = np.where(np.isin(banks, np.maximum(world.connections.trafo[here], 0)), banks, -1)
        names = (p.variable(name) for name in ("limited_power_kw", "limit_excess_kw"))
        yield (*names, settings.least_kw, settings.most_kw, own)


@dataclass(frozen=True)
class RunReport:
    """Report of a run: wall times of the federation, the energy audit, and its sessions.

    preparing_s : preparation of network, sessions and models, before the federation
    recording_s : recording inside the models' steps, by federate
    writing_s : writing of the result, after the federation
    notes : assumptions, and data read and dropped, a sentence each
    unreachable : sessions of a file whose energy can't be charged in their duration, a sentence each
    """

    federation: FederationReport
    audit: dict[str, float]
    preparing_s: float
    recording_s: Mapping[str, float]
    writing_s: float
    notes: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()

    @property
    def wall_s(self) -> float:
        """The whole run, s."""
        return self.preparing_s + self.federation.wall_s + self.writing_s

    @property
    def split_s(self) -> dict[str, float]:
        """The wall time by activity, s; they add up to all of it. Federates are without recording."""
        time = self.federation
        federates = {
            name: seconds + time.finishing_s[name] - self.recording_s.get(name, 0.0)
            for name, seconds in time.stepping_s.items()
        }
        return {
            "preparing": self.preparing_s,
            **federates,
            **({"waiting": time.waited_s} if time.lateness is not None else {}),
            "HELICS": time.setup_s + time.coupling_s + time.close_s,
            "recording": sum(self.recording_s.values()) + self.writing_s,
        }

    def profile(self) -> pd.DataFrame:
        """The wall time of each federate, in s, and of HELICS.

        Columns: federate, steps, model (in its steps and ``finish``, without recording), recording, and the
        microseconds of model and recording a step. The last row is HELICS': ticks, and all that is outside
        the models: starting, moving the values, granting time, and closing.
        """
        import pandas as pd

        time = self.federation
        rows: list[tuple[str, int, float, float]] = []
        for name, stepping_s in time.stepping_s.items():
            recording_s = self.recording_s.get(name, 0.0)
            model_s = stepping_s + time.finishing_s[name] - recording_s
            rows.append((name, time.steps[name], model_s, recording_s))
        rows.append(("HELICS", time.ticks, time.setup_s + time.coupling_s + time.close_s, 0.0))
        table = pd.DataFrame(rows, columns=["federate", "steps", "model (s)", "recording (s)"])
        table["a step (µs)"] = (table["model (s)"] + table["recording (s)"]) / table["steps"] * 1e6
        return table.round({"model (s)": 3, "recording (s)": 3, "a step (µs)": 1})


def run(
    scenario: Scenario | Mapping[str, Any] | str | Path,
    output: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> xr.Dataset:
    """Run a scenario and return its result.

    Parameters
    ----------
    scenario
        A :class:`Scenario`, the path of one, or its content as a mapping (relative paths start at the current
        folder).
    output
        NetCDF file to stream the result into; it appears only when the run is complete. Left out: the result
        is kept in memory.
    progress
        Called repeatedly with the simulated seconds so far.

    Raises
    ------
    EvgridError
        With the first cause, if the scenario, the network or a model is at fault, or if energy
        does not balance.

    """
    return run_with_report(scenario, output, progress)[0]


def scenario_of(given: Scenario | Mapping[str, Any] | str | Path) -> Scenario:
    """The scenario that :func:`run` takes in several forms."""
    if isinstance(given, Mapping):
        return scenario_from(given)
    return given if isinstance(given, Scenario) else load_scenario(given)


def run_with_report(
    scenario: Scenario | Mapping[str, Any] | str | Path,
    output: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
    prepared: Callable[[World, Sequence[Model]], None] | None = None,
    *,
    processes: bool = False,
    announce: Callable[[str], None] | None = None,
    cancel: threading.Event | None = None,
    change: Callable[[Network], Network] | None = None,
    fleet: Callable[..., Model] | None = None,
) -> tuple[xr.Dataset, RunReport]:
    """Like :func:`run`, with a report of the run.

    change : makes another network of the scenario's
    fleet : makes what takes the place of the simulated fleet, of the parameters of
        :class:`evgrid.fleet.model.FleetModel`
    prepared : called before the first step, with what is stepped in this process
    processes : whether each federate runs in a process of its own on this machine; the numbers are the same
    announce : called with the address at which programs of the user's own join, when it is open
    cancel : ends the run when set
    """
    from evgrid.runs.deployments import Deployment, couple

    def prepare_and_couple(
        ready: Prepared, progress: Callable[[float], None] | None
    ) -> tuple[FederationReport, Part]:
        if prepared is not None:
            prepared(ready.world, ready.own)
        return couple(ready, progress, Deployment(processes=processes, announce=announce, cancel=cancel))

    return run_deployed(scenario, output, progress, prepare_and_couple, change, fleet)


def run_deployed(
    scenario: Scenario | Mapping[str, Any] | str | Path,
    output: str | Path | None,
    progress: Callable[[float], None] | None,
    couple: Coupled,
    change: Callable[[Network], Network] | None = None,
    fleet: Callable[..., Model] | None = None,
) -> tuple[xr.Dataset, RunReport]:
    """Prepare a run, have its models coupled, and return its result with a report."""
    start = perf_counter()
    scenario = scenario_of(scenario)
    with prepare(scenario, output, change=change, fleet=fleet) as prepared:
        ready = perf_counter()
        report, part = couple(prepared, progress)
        coupled = perf_counter()
        prepared.recorder.close()
        world = prepared.world
        residuals = audit(
            part.audits.get("fleet"), part.audits.get("feeder"), scenario.members, part.audits.get("sites")
        )
        result = prepared.store.finish(
            _attrs(world, residuals) | part.attrs() | _pace_attrs(report, world.clock)
        )
        return result, RunReport(
            report, residuals, ready - start, prepared.recorder.spent_s, perf_counter() - coupled,
            world.notes, world.sessions.unreachable,
        )  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to be coupled.

    models : of all federates, in causal order
    own : those that are evgrid's, whose variables are recorded; the others are programs of the user's own
    """

    world: World
    store: FileStore | MemoryStore
    recorder: ResultRecorder
    models: tuple[Model, ...]
    own: tuple[Model, ...]

    @property
    def message_delay_s(self) -> dict[str, float]:
        """Delay of set-points by port, s."""
        scenario = self.world.scenario
        return {p.port("aggregator/setpoint"): scenario.link_of(p.name).delay for p in self.world.portfolios}


Coupled = Callable[[Prepared, Callable[[float], None] | None], "tuple[FederationReport, Part]"]
"""Runs a prepared run to its end: returns the federation's report and what the models leave."""


@contextmanager
def prepare(
    scenario: Scenario,
    output: str | Path | None,
    only: Collection[str] | None = None,
    change: Callable[[Network], Network] | None = None,
    fleet: Callable[..., Model] | None = None,
) -> Iterator[Prepared]:
    """A run with its world, its models and a store for its result, which is discarded on an error.

    only : federates whose variables are recorded; None: all of evgrid's
    fleet : see :func:`run_with_report`
    """
    world = build_world(scenario, change)
    axes = coordinates(world).isel(dict(world.selection.rows))
    store = FileStore(Path(output), axes, scenario.record.compression) if output else MemoryStore(axes)
    try:
        recorder = ResultRecorder(world.clock, scenario.record_step_s, world.sizes, store, world.selection)
        try:
            models = build_models(world, recorder, fleet)
        except ScenarioError:
            check_files(scenario)  # all that is wrong with them
            raise
        external = external_of(scenario, models)
        own = [m for m in models if m.name not in external and (only is None or m.name in only)]
        recorder.register(own, scenario.currency)
        yield Prepared(world, store, recorder, tuple(models), tuple(own))
    except BaseException:
        store.abandon()
        raise


def external_of(scenario: Scenario, models: Sequence[Model]) -> frozenset[str]:
    """The federates whose place programs of the user's own take. Raises ScenarioError for what is none."""
    names = [model.name for model in models]
    external = scenario.federation.external
    found = [
        f"federation.external: {name} is no federate of this run; its federates are {', '.join(names)}"
        for name in external
        if name not in names
    ]
    iterating = [model.name for model in models if model.iterates]
    found += [
        f"federation.external: {name} iterates with {' and '.join(n for n in iterating if n != name)} "
        "(coupling.mode = iterated), which is for evgrid's own federates; use coupling: lagged"
        for name in external
        if name in iterating and len(iterating) > 1
    ]
    if names and set(names) <= set(external):
        found.append("federation.external: at least one federate must be evgrid's own")
    if found:
        raise ScenarioError(found)
    return frozenset(external)


def _attrs(world: World, residuals: dict[str, float]) -> dict[str, str]:
    scenario = world.scenario
    stepped = [name for name, a in scenario.aggregators.items() if a.strategy_class.replaced is not None]
    return {
        **({"stepped": json.dumps(stepped)} if stepped else {}),
        "format": FORMAT,
        "Conventions": "CF-1.11",
        "name": scenario.name,
        "scenario": scenario.model_dump_json(exclude_none=True),
        "seed": str(scenario.ensemble.seed),
        "versions": json.dumps(versions()),
        "audit": json.dumps(residuals),
        "recorded": world.selection.recorded,
        "notes": json.dumps(world.notes),
        "phases": world.network.phases_summary,
        "frequency_hz": f"{world.network.grid.frequency_hz:g}",
        "currency": scenario.currency,
    }


def _pace_attrs(report: FederationReport, clock: Clock) -> dict[str, str]:
    """How late a run that kept to wall time was."""
    found = report.lateness
    if found is None:
        return {}
    return {
        "pace": json.dumps(
            {
                "speed": found.speed,
                "steps": found.steps,
                "late_steps": found.late_steps,
                "mean_lateness_s": found.mean_s,
                "worst_lateness_s": found.worst_s,
                "worst_at": clock.stamp(found.worst_at_s),
            }
        )
    }


def _axes_of_envelope(world: World) -> dict[str, Any]:
    settings = world.scenario.fleet.envelope if world.scenario.fleet is not None else None
    if settings is None:
        return {}
    times = world.clock.timestamps(settings.every_s * np.arange(1, world.sizes["envelope_time"] + 1))
    lead = np.arange(settings.slots) * settings.slot / 3600.0
    return {
        "envelope_time": ("envelope_time", times, {"long_name": "local time at which the envelope begins"}),
        "lead": ("lead", lead, {"long_name": "begin of the slot after that of the envelope", "units": "h"}),
    }


def _axes_of_sites(world: World) -> dict[str, Any]:
    """Coordinates of the sites of all members."""
    sites = world.sites
    if sites is None:
        return {}
    groups = np.array(list(sites.groups))
    connection = np.where(sites.connection >= 0, world.connections.name[sites.connection], "")
    return {
        "site": ("site", np.arange(len(sites)), {"long_name": "site, over all members"}),
        "site_name": ("site", sites.name, {"long_name": "name of the site within its member"}),
        "site_member": (
            "site", np.array(world.scenario.members)[sites.member], {"long_name": "member of the site"},
        ),
        "site_group": ("site", groups[sites.group], {"long_name": "group of the site"}),
        "site_connection": (
            "site", connection, {"long_name": "connection point of the site; empty off grid"},
        ),
    }  # fmt: skip


def coordinates(world: World) -> xr.Dataset:
    """The coordinates of the result, as a Dataset without variables."""
    import xarray as xr

    scenario, clock, connections = world.scenario, world.clock, world.connections
    intervals = round(clock.duration_s / scenario.record_step_s)
    evs, sessions, network = world.evs, world.sessions, world.network
    session_connection = evs.connection[sessions.ev]
    hourly = any(
        "hour" in variable.dims
        for settings in scenario.aggregators.values()
        for variable in settings.strategy_class.variables
    )
    limited = any(isinstance(a, WithinSettings) and a.limited for a in scenario.aggregators.values())
    reasons = ("reason", np.array(REASONS), {"long_name": "reason of an excess over a limit"})
    begins = clock.timestamps(np.arange(world.sizes["hour"]) * 3600.0)
    hours = {"hour": ("hour", begins, {"long_name": "local time at which the hour starts"})}
    return xr.Dataset(
        coords={
            "member": ("member", np.array(scenario.members), {"long_name": "ensemble member"}),
            "time": (
                "time",
                clock.timestamps(np.arange(intervals) * scenario.record_step_s),
                {"long_name": "local time at which the recording interval starts"},
            ),
            "phase": ("phase", np.array(connections.phases), {"long_name": "phase"}),
            "connection": ("connection", connections.name, {"long_name": "connection point"}),
            **(_with_upstream(network.coordinates()) if connections.upstream else network.coordinates()),
            **(network.generator_coordinates() if scenario.record.connections else {}),
            **(hours if hourly else {}),
            **({"reason": reasons} if limited else {}),
            **(_months(clock) if scenario.bills else {}),
            **_axes_of_bills(world),
            **_axes_of_envelope(world),
            "ev": ("ev", np.arange(len(evs)), {"long_name": "EV, over all members"}),
            "ev_name": ("ev", evs.name, {"long_name": "name of the EV within its member"}),
            "ev_member": ("ev", np.array(scenario.members)[evs.member], {"long_name": "member of the EV"}),
            "ev_connection": (
                "ev", connections.name[evs.connection], {"long_name": "connection point of the EV"},
            ),
            **_owners(world),
            **_axes_of_sites(world),
            "session": (
                "session", np.arange(len(sessions)), {"long_name": "charging session, over all members"},
            ),
            "session_member": (
                "session", np.array(scenario.members)[evs.member[sessions.ev]],
                {"long_name": "member of the session"},
            ),
            "session_ev": ("session", evs.name[sessions.ev], {"long_name": "EV of the session"}),
            "session_connection": (
                "session", connections.name[session_connection],
                {"long_name": "connection point of the session"},
            ),
            "session_vehicle": ("session", sessions.vehicle, {"long_name": "vehicle type of the session"}),
            "session_arrival": (
                "session", clock.timestamps(sessions.arrival_s), {"long_name": "local time of plugging in"},
            ),
            "session_departure": (
                "session", clock.timestamps(sessions.departure_s), {"long_name": "local time of departure"},
            ),
            "session_complete": (
                "session", sessions.departure_s <= clock.duration_s,
                {"long_name": "whether the departure falls into the run"},
            ),
        }
    )  # fmt: skip


def _axes_of_bills(world: World) -> dict[str, Any]:
    """The windows of a demand charge, and the periods of a tariff with blocks, as coordinates."""
    sizes, tariff, found = world._sizes_of_bills, world.scenario.tariff, dict[str, Any]()
    if sizes["window"]:
        found["window"] = ("window", np.arange(sizes["window"]), {"long_name": "windows of a demand charge"})
    if sizes["period"] and isinstance(tariff, SeasonTariff):
        names = [f"{season.name}: {period.name}" for season in tariff.seasons for period in season.periods]
        found["period"] = ("period", np.array(names), {"long_name": "season and period of the tariff"})
    return found


def _months(clock: Clock) -> dict[str, Any]:
    """The calendar months of a run, as a coordinate."""
    begins = months_of(clock).astype("datetime64[ns]")
    return {"month": ("month", begins, {"long_name": "local time at which the month starts"})}


def _owners(world: World) -> dict[str, Any]:
    """The aggregator of each EV and session, as coordinates, unless one has all EVs."""
    if all(p.whole for p in world.portfolios):
        return {}
    names = np.array(["", *(p.name for p in world.portfolios)])
    owner = np.zeros(len(world.evs), np.int64)
    for place, p in enumerate(world.portfolios, 1):
        owner[p.rows] = place
    return {
        "ev_aggregator": ("ev", names[owner], {"long_name": 'aggregator of the EV, "" for none'}),
        "session_aggregator": (
            "session", names[owner[world.sessions.ev]], {"long_name": "aggregator of the session's EV"},
        ),
    }  # fmt: skip


def _with_upstream(coordinates: dict[str, Any]) -> dict[str, Any]:
    """The feeder's coordinates with an empty row for the connection point of EVs upstream of it."""
    return {
        name: (dim, np.append(values, np.zeros(1, values.dtype)) if dim == "connection" else values, attrs)
        for name, (dim, values, attrs) in coordinates.items()
    }
