"""A run whose EVSEs are charging stations that a CSMS controls.

In: a scenario, and the address of a CSMS. Out: its result, as of a run in which the charging profiles of the
CSMS are the strategy of an aggregator. Feeder, sites and bulk system are those of :func:`evgrid.run`; the run
is stepped by :func:`evgrid.stepwise`.

A tick, from t to t + step:

1. What happened since the last one is sent: EVs that came and left, at their own times, and, when it is due,
   the meter values of t.
2. In lockstep the run waits until all is answered, then tells the CSMS that the tick has ended (DataTransfer
   of the identity ``evgrid-clock``); one of evgrid answers when it has sent its profiles. Another CSMS
   refuses that, and the run waits ``settle_s`` in its place. Else the run waits for t by the wall clock.
3. The set-point of each EV is what the profiles of its station ask at t.

Set-points are not delayed or lost on their way to the stations: the CSMS does that. Latency, outages and
time-outs of each EVSE's own link are simulated here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.core.interrupts import signals_call
from evgrid.core.model import ALL_PHASES, Array
from evgrid.errors import RunError, ScenarioError
from evgrid.fleet.commands import rated_kw
from evgrid.fleet.grouping import is_multiple
from evgrid.fleet.model import FleetModel
from evgrid.ocpp.charging_profiles import Evse
from evgrid.ocpp.connection import Access, Connection, Counts, Pending, send_tick
from evgrid.ocpp.messages import CLOCK_IDENTITY, TICK, VENDOR, Needs, Reading, times_of
from evgrid.ocpp.schemas import MessageError, Payload, text_of
from evgrid.ocpp.station import Session, Station, Then, station_of
from evgrid.runs.stepwise import Stepwise, stepwise
from evgrid.scenario import Scenario
from evgrid.scenario.inverter_functions import LocalFunctions

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.runs.simulation import RunReport

AT_ONCE = 64
"""Most handshakes at once."""
CLOCK_ANSWER_S = 600.0
"""Longest time in which a CSMS of evgrid ends a tick, s of wall time."""
MOST_GRACE_S = 1.0
"""Longest time in which profiles that answer a report are awaited in real time, s of wall time."""


_REPORTED = {
    "soc": "soc", "p_max": "p_max_kw", "p_min": "p_min_kw", "energy_needed": "energy_needed_kwh",
    "time_needed": "time_needed_s",
}  # fmt: skip


@dataclass
class StationsReport:
    """What came of the charging stations of a run.

    stations, connected : their number, and of those that the CSMS accepted
    counts : of messages and faults
    clock : what ended the ticks
    late_ticks, worst_late_s : ticks that began late by the wall clock, and the latest
    worst_answer_s : longest time from a tick's begin until the CSMS had answered all, s of wall time
    faults : of stations that were not connected at the end, a sentence each
    """

    stations: int
    connected: int = 0
    counts: Counts = field(default_factory=Counts)
    clock: str = "the wall clock"
    late_ticks: int = 0
    worst_late_s: float = 0.0
    worst_answer_s: float = 0.0
    wall_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """Rows of a summary."""
        counts = self.counts
        rows = [
            ("charging stations", f"{self.connected} of {self.stations} connected"),
            ("messages", f"{counts.sent:,} sent, {counts.received:,} received in {self.wall_s:.1f} s"),
            ("ticks ended by", self.clock),
        ]
        rows.append(("slowest tick", f"all answered after {self.worst_answer_s:.2f} s"))
        if self.late_ticks:
            rows.append(("late ticks", f"{self.late_ticks}, the latest by {self.worst_late_s:.2f} s"))
        for kind, text in counts.events.items():
            rows.append((kind, f"{getattr(counts, kind)}, the first: {text}"))
        rows += [("not connected", text) for text in self.faults[:5]]
        return rows


@dataclass(frozen=True)
class Settings:
    """How the charging stations of a run connect and keep time.

    speed : simulated seconds in one of wall time; None: as fast as the CSMS answers
    settle_s : how long profiles are awaited after all requests are answered, s of wall time
    aggregator : whose EVs have charging stations; needed where the scenario has several
    connect_s : longest time in which the CSMS accepts the stations, s of wall time
    """

    access: Access
    speed: float | None = 1.0
    settle_s: float = 0.0
    aggregator: str | None = None
    connect_s: float = 30.0


def run_stations(
    scenario: Scenario,
    settings: Settings,
    output: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[xr.Dataset, RunReport, StationsReport]:
    """Run a scenario whose EVSEs are charging stations; its result, the run's report and the stations'.

    Raises
    ------
    EvgridError
        As :func:`evgrid.run`; also if the scenario can't have charging stations, or the CSMS accepts none.

    """
    _refuse(scenario)
    with stepwise(_without_link(scenario, settings.aggregator), settings.aggregator, output) as run:
        drive = _Drive(run, settings, progress or (lambda _: None))
        _allow_sockets(len(drive.stations))
        try:
            asyncio.run(_until_signalled(drive.run()))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        return run.result, run.report, drive.report


def tls_of(
    url: str, ca: Path | None, certificate: Path | None, key: Path | None
) -> Callable[[str], ssl.SSLContext] | None:
    """The TLS context of each identity; None for ws://.

    ca : certificates by which the CSMS's is checked; None: the system's
    certificate, key : of the stations, for security profile 3: files of all, or folders of IDENTITY.pem and
        IDENTITY.key

    Raises ScenarioError for an address that doesn't go with them, and, when a context is asked for, for files
    that are at fault.
    """
    if not url.startswith(("ws://", "wss://")):
        raise ScenarioError([f"--csms {url}: must begin with ws:// or wss://"])
    if url.startswith("ws://"):
        if ca is not None or certificate is not None or key is not None:
            raise ScenarioError([f"--csms {url}: certificates need wss://"])
        return None
    if (certificate is None) != (key is None):
        raise ScenarioError(["--cert and --key are given together"])
    each = certificate is not None and certificate.is_dir()

    @cache
    def context_of(identity: str) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=None if ca is None else str(ca))
            if certificate is not None and key is not None:
                own = (certificate, key)
                if each:
                    own = (certificate / f"{identity}.pem", key / f"{identity}.key")
                if identity != CLOCK_IDENTITY or own[0].exists():  # another CSMS doesn't know the clock
                    context.load_cert_chain(*own)
        except (OSError, ssl.SSLError) as error:
            who = identity or "the stations"
            raise ScenarioError([f"the TLS files of {who} can't be used: {error}"]) from None
        return context

    if each:
        return context_of
    context_of("")  # files at fault are said before the run
    return lambda _: context_of("")


def read_station_passwords(path: Path) -> dict[str, str]:
    """Passwords of a file: one line for all stations, or lines of ``IDENTITY:PASSWORD``.

    Raises
    ------
    ScenarioError
        If it can't be read, or is no such file; passwords are not quoted.

    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError([f"--password-file {path} can't be read: {error}"]) from None
    if len(lines) == 1 and ":" not in lines[0]:
        return {"": lines[0].strip()}
    pairs = [line.strip().partition(":") for line in lines]
    if not pairs or not all(identity and password for identity, _, password in pairs):
        raise ScenarioError([f"--password-file {path}: must be one password, or lines of IDENTITY:PASSWORD"])
    return {identity: password for identity, _, password in pairs}


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Await something, which signals that end a command cancel."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    with signals_call(lambda: loop.call_soon_threadsafe(task.cancel)):
        await work


def _refuse(scenario: Scenario) -> None:
    """Refuse what can't have charging stations."""
    faults = []
    if scenario.fleet is None:
        faults.append("fleet: the scenario has no EVs, so there are no charging stations")
    elif scenario.fleet.charge_points is not None:
        faults.append(
            "fleet.charge_points: EVs that share charge points have no charging stations, as nothing says at "
            "which of them an EV is; leave it out"
        )
    if len(scenario.members) > 1:
        faults.append(f"ensemble.members = {len(scenario.members)}: charging stations are of one member")
    if faults:
        raise ScenarioError(faults)


def _without_link(scenario: Scenario, name: str | None) -> Scenario:
    """The scenario without what happens to set-points before they reach the stations."""
    changed: dict[str, Any] = {"delay": 0.0}
    if not scenario.communication.per_evse:
        changed["loss"] = 0.0
    aggregators = {}
    for key, aggregator in scenario.aggregators.items():
        own = aggregator.communication
        if own is not None and name in (None, key):
            present = {k: v for k, v in changed.items() if getattr(own, k) is not None}
            aggregator = aggregator.model_copy(update={"communication": own.model_copy(update=present)})
        aggregators[key] = aggregator
    communication = scenario.communication.model_copy(update=changed)
    time = scenario.time.model_copy(update={"speed": None})  # it is kept here
    return scenario.model_copy(
        update={"communication": communication, "aggregators": aggregators, "time": time}
    )


class _Clock:
    """The connection that ends the ticks of a CSMS of evgrid."""

    async def opened(self, link: Connection) -> None:
        """Nothing to say."""

    def went_offline(self) -> None:
        """Nothing to do."""

    def answer(self, action: str, payload: Payload) -> tuple[Payload, Then]:
        """It answers nothing."""
        raise MessageError("NotSupported", f"{action} is not supported by a clock")


class _Drive:
    """Steps a run and its charging stations; the ``Grid`` of :mod:`.station`."""

    def __init__(self, run: Stepwise, settings: Settings, progress: Callable[[float], None]) -> None:
        self._run, self._settings, self._progress = run, settings, progress
        scenario = run.scenario
        self.times = times_of(scenario)
        self._step_s, self._end_s = scenario.time.step, scenario.clock.duration_s
        link = scenario.link_of(run.aggregator) if run.aggregator in scenario.aggregators else None
        telemetry_s = scenario.communication.telemetry if link is None else link.telemetry
        self.telemetry_s = max(telemetry_s, self._step_s)
        fleet = run.models["fleet"]
        assert isinstance(fleet, FleetModel)
        self._fleet, self._rows = fleet, run.portfolio.rows
        self.report = StationsReport(len(self._rows))
        self._pending, self._gate = Pending(), asyncio.Semaphore(AT_ONCE)
        self._time_s = 0.0
        self._begun: float | None = None
        self._at_begin: dict[int, tuple[float, float]] = {}
        self._clock_told = False
        self._make_stations()
        self._events = self._all_events()
        self._next_event = 0
        self._drawn = self._given = np.zeros(len(fleet.evs))

    def _make_stations(self) -> None:
        run, fleet = self._run, self._fleet
        evs, sessions, count = fleet.evs, fleet.sessions, len(fleet.evs)
        given_kw = np.zeros(count)
        np.maximum.at(given_kw, sessions.ev, sessions.discharge_kw)
        drawn_kw = rated_kw(sessions, count)
        scenario = run.scenario
        assert scenario.fleet is not None
        frequency = scenario.system is not None
        self.stations: list[Station] = []
        self._functions: dict[int, LocalFunctions] = {}
        for row in self._rows.tolist():
            functions = fleet.functions_of(row)
            evse = Evse(
                3 if evs.phase[row] == ALL_PHASES else 1, float(drawn_kw[row]), float(given_kw[row]),
                scenario.fleet.charger.nominal_v, functions is not None, frequency=frequency,
                dc=scenario.fleet.charger.current == "dc",
            )  # fmt: skip
            if functions is not None:
                evse = replace(evse, apparent_kva=functions[1])
                self._functions[len(self.stations)] = functions[0]
            identity = str(evs.name[row])
            station = station_of(
                identity, evse, self, self._settings.access, self.report.counts, self._pending, self._gate,
                None if functions is None else functions[0],
            )  # fmt: skip
            self.stations.append(station)

    def _all_events(self) -> list[tuple[float, int, int, int]]:
        """When EVs leave (0) and come (1): time, which, station, session; in their order."""
        sessions = self._fleet.sessions
        station_of_row = {row: at for at, row in enumerate(self._rows.tolist())}
        events = []
        for number, (ev, arrival_s, departure_s) in enumerate(
            zip(sessions.ev.tolist(), sessions.arrival_s.tolist(), sessions.departure_s.tolist(), strict=True)
        ):
            at = station_of_row.get(ev)
            if at is not None:
                events += [(departure_s, 0, at, number), (arrival_s, 1, at, number)]
        return sorted(events)

    # What stations ask

    def now_s(self) -> float:
        """See :class:`.station.Grid`."""
        speed = self._settings.speed
        if speed is None or self._begun is None:
            return self._time_s
        return max((monotonic() - self._begun) * speed, self._time_s)

    def frequency_hz(self) -> float | None:
        """See :class:`.station.Grid`."""
        values = self._run.values.get("system/frequency")
        return None if values is None else float(values[0])

    def set_clock(self, text: str) -> None:
        """Keep to the CSMS's clock; in lockstep it keeps to the stations'."""
        if self._settings.speed is None or self._clock_told:
            return
        self._clock_told = True
        try:
            if abs(self.times.seconds(text) - self.now_s()) >= 1.0:
                self.times.align(text, self.now_s())
        except ValueError as error:
            self.report.counts.note("malformed", f"currentTime of the CSMS = {error}")

    # The run

    async def run(self) -> None:
        """Step the run to its end."""
        began = monotonic()
        links = [station.link for station in self.stations]
        tasks = [asyncio.create_task(link.run()) for link in links]
        clock = Connection(
            CLOCK_IDENTITY, replace(self._settings.access, answer_s=CLOCK_ANSWER_S), _Clock(),
            Counts(), Pending(), self._gate,
        )  # fmt: skip
        if self._settings.speed is None:
            tasks.append(asyncio.create_task(clock.run()))
        try:
            await self._connect(tasks)
            loop, tick = asyncio.get_running_loop(), 0
            self._begun = monotonic()
            while True:
                if tick:
                    self.report.worst_answer_s = max(self.report.worst_answer_s, self._pending.lasted_s)
                _raise_errors(tasks)
                self._time_s = tick * self._step_s
                await self._pace()
                self._tell(self._time_s)
                await self._settle(clock, tick)
                self._progress(self._time_s)
                if self._run.done:
                    break
                await loop.run_in_executor(None, self._run.step, self._setpoints())
                tick += 1
        finally:
            report = self.report
            report.wall_s = monotonic() - began
            report.connected = sum(station.booted for station in self.stations)
            report.faults = [
                f"{link.identity}: {link.fault}" for link in links if not link.online and link.fault
            ]
            for link in links:
                link.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait until the CSMS has accepted all stations, or refused those that are missing."""
        until = monotonic() + self._settings.connect_s
        while not all(station.link.online or station.link.refused for station in self.stations):
            _raise_errors(tasks)
            if monotonic() > until:
                break
            await asyncio.sleep(0.01)
        if not any(station.link.online for station in self.stations):
            first = next(iter(self.stations))
            why = first.link.fault or f"it has not accepted the BootNotification of {first.identity}"
            raise RunError(
                f"no charging station could connect to {self._settings.access.url} in "
                f"{self._settings.connect_s:g} s: {why}"
            )
        await self._pending.none()

    async def _pace(self) -> None:
        """Wait for the tick by the wall clock."""
        speed = self._settings.speed
        if speed is None:
            return
        assert self._begun is not None
        late_s = monotonic() - (self._begun + self._time_s / speed)
        if late_s < 0.0:
            await asyncio.sleep(-late_s)
        elif late_s > 0.01:
            self.report.late_ticks += 1
            self.report.worst_late_s = max(self.report.worst_late_s, late_s)

    async def _settle(self, clock: Connection, tick: int) -> None:
        """Wait for the answers to what was sent, and for the profiles that follow."""
        settings = self._settings
        if settings.speed is not None:
            grace_s = max(settings.settle_s, min(0.25 * self._step_s / settings.speed, MOST_GRACE_S))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._pending.none()
                    await asyncio.sleep(grace_s)
            return
        await self._pending.none()
        if tick == 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.access.answer_s):
                    while not clock.online and not clock.fault:
                        await asyncio.sleep(0.005)
        if clock.online:
            content: Any = {"time": self.times.stamp(self._time_s), "step": tick}
            if settings.access.version == "1.6":
                content = text_of(content)
            if await send_tick(clock, {"vendorId": VENDOR, "messageId": TICK, "data": content}):
                self.report.clock = f"the CSMS ({CLOCK_IDENTITY})"
                await self._pending.none()
                return
            if tick == 0:
                await clock.close()
                clock.online = False
        self.report.clock = f"the answers of the CSMS, and {settings.settle_s:g} s"
        if clock.fault:
            self.report.clock += f" ({CLOCK_IDENTITY} is not connected: {clock.fault})"
        await asyncio.sleep(settings.settle_s)
        await self._pending.none()

    def _setpoints(self) -> Array:
        """What the profiles ask of each EV now, (ev,) kW; the EVSEs get their local functions."""
        time_s = self._time_s
        for at, before in self._functions.items():
            functions = self.stations[at].functions(time_s)
            if functions is not before and functions != before:
                assert functions is not None
                self._functions[at] = functions
                own = self._run.scenario.fleet
                assert own is not None
                given = None if functions == own.charger.functions else functions
                self._fleet.set_functions(int(self._rows[at]), given)
        return np.array([station.allowed(time_s).power_kw for station in self.stations])

    def _tell(self, time_s: float) -> None:
        """Send what happened since the last tick, and the meter values that are due."""
        before = self._drawn[self._rows], self._given[self._rows]
        if time_s > 0.0:
            self._drawn, self._given = self._fleet.meters()
        self._tell_events(time_s)
        last = time_s >= self._end_s
        due = time_s > 0.0 and is_multiple(time_s, self.telemetry_s)
        values = {}
        if due:
            values = {name: self._run.values[f"fleet/{name}"][self._rows].tolist() for name in _REPORTED}
        drawn, given = self._drawn[self._rows], self._given[self._rows]
        power = ((drawn - before[0]) - (given - before[1])) * (3600.0 / self._step_s)
        for at, station in enumerate(self.stations):
            station.tend(time_s)
            if station.session is None or not (due or last):
                continue
            reading = Reading(
                float(drawn[at]), float(given[at]), float(power[at]), phases=station.evse.phases
            )
            if due:
                reading = replace(reading, **{field: values[name][at] for name, field in _REPORTED.items()})
            station.report(time_s, reading)

    def _tell_events(self, time_s: float) -> None:
        """Have EVs come and leave that did so before a time, or leave at it."""
        fleet, sessions = self._fleet, self._fleet.sessions
        while self._next_event < len(self._events):
            at_s, comes, at, row = self._events[self._next_event]
            if at_s > time_s or (comes and at_s == time_s):
                return
            self._next_event += 1
            station, ev = self.stations[at], int(self._rows[at])
            phases = station.evse.phases
            if comes:
                soc, wanted_kwh = fleet.session_begin(row)
                needs = Needs(
                    float(sessions.departure_s[row]), wanted_kwh, float(sessions.charge_kw[row]),
                    float(sessions.discharge_kw[row]), phases, station.evse.dc,
                )  # fmt: skip
                old = station.reading
                reading = Reading(
                    old.import_kwh, old.export_kwh, 0.0, soc, energy_needed_kwh=wanted_kwh, phases=phases
                )
                station.arrive(Session(str(fleet.evs.name[ev]), at_s, needs), reading)
                self._at_begin[at] = old.import_kwh, old.export_kwh
                continue
            end = fleet.session_end(row)
            begin = self._at_begin.pop(at, None)
            if begin is None:
                continue  # it came and left before the run
            if end is None:
                reading = Reading(float(self._drawn[ev]), float(self._given[ev]), 0.0, phases=phases)
            else:
                drawn, given, soc, missing_kwh = end
                reading = Reading(
                    begin[0] + drawn, begin[1] + given, 0.0, soc, energy_needed_kwh=missing_kwh,
                    phases=phases,
                )  # fmt: skip
            station.leave(at_s, reading)


def _raise_errors(tasks: list[asyncio.Task[None]]) -> None:
    """Raise the error of a task that has ended by one."""
    for task in tasks:
        if task.done():
            task.result()


def _allow_sockets(count: int) -> None:
    """Let the process open a socket a station, as far as the system does; refuse what it doesn't."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = count + 256
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise RunError(
            f"{count} charging stations need {need} open files, and the system allows {hard}: raise it by "
            f"ulimit -n {need}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
