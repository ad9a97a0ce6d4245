"""A run in which an aggregator is the CSMS of charging stations, real or simulated.

In: a scenario, and where to listen. Out: its result, as of a run, with what the stations' meters say in place
of a simulated fleet's (:mod:`.station_fleet`). The aggregator's strategy, the feeder and the bulk system are
those of :func:`evgrid.run`.

The clock is in lockstep with simulated stations (:mod:`.server`), or keeps to wall time: a tick takes its
length divided by ``speed``. The first begins when the first station has booted, or, where ``time.start`` is
now, at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from evgrid.errors import ScenarioError
from evgrid.ocpp.security import Security
from evgrid.ocpp.server import Policy, StationServer
from evgrid.ocpp.standing import StandingProfiles
from evgrid.ocpp.station_fleet import StationFleet
from evgrid.ocpp.station_state import CLOCK_S
from evgrid.readers.yaml_files import read_yaml
from evgrid.runs.simulation import RunReport, run_with_report
from evgrid.scenario import Scenario

if TYPE_CHECKING:
    import xarray as xr

CLOCK_WALL_S = 10.0
"""Wall time by which a station's clock may differ from the CSMS's, where that is more than
:data:`~evgrid.ocpp.station_state.CLOCK_S` of simulated time."""


@dataclass
class Csms:
    """Settings of a CSMS.

    address : host and port at which it listens; port 0: a free one
    speed : simulated seconds in one of wall time; None: in lockstep with the stations' clock
    identities : of real stations, by the name of the scenario's EV in whose place they are
    aggregator : name that the aggregator must have, the only one that sends set-points; None: any
    answer_s : longest time in which a station answers, s
    patience_s : longest time in which the stations' clock goes on, s
    announce : called with the address at which it listens
    """

    address: tuple[str, int] = ("127.0.0.1", 9000)
    speed: float | None = 1.0
    security: Security = field(default_factory=Security)
    identities: Mapping[str, str] = field(default_factory=dict)
    aggregator: str | None = None
    answer_s: float = 30.0
    patience_s: float = 600.0
    announce: Callable[[str], None] | None = None


def run_csms(
    scenario: Scenario,
    settings: Csms,
    output: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[xr.Dataset, RunReport]:
    """Run a scenario whose fleet is charging stations; its result and the report of the run.

    The result's attribute ``stations`` has what came of each station, ``transactions`` the list of
    transactions.

    Raises
    ------
    EvgridError
        As :func:`evgrid.run`; also if the CSMS can't listen, or the stations' clock stands still.

    """
    settings.security.check_address(settings.address[0])
    _check_aggregator(scenario, settings.aggregator)
    made: list[_Connection] = []

    def connect(fleet: StationFleet) -> _Connection:
        made.append(_Connection(fleet, scenario, settings))
        return made[-1]

    fleet = partial(StationFleet, connect=connect, identities=settings.identities)
    # the model waits for the end of each tick itself
    scenario = scenario.model_copy(update={"time": scenario.time.model_copy(update={"speed": None})})
    try:
        result, report = run_with_report(scenario, output, progress, fleet=fleet)
    finally:
        for connection in made:
            connection.stop()
    if not made:
        raise ScenarioError(["fleet: the scenario has no EVs, so there are no charging stations"])
    return result, report


def read_identities(path: Path) -> dict[str, str]:
    """Identities of stations by the EV in whose place they are, from a YAML file of ``IDENTITY: EV``.

    Raises
    ------
    ScenarioError
        If it can't be read, or is no such file.

    """
    try:
        given = read_yaml(path)
    except ValueError as error:
        raise ScenarioError([f"--stations: {error}"]) from None
    if not all(isinstance(name, str) for pair in given.items() for name in pair):
        raise ScenarioError([f"--stations {path}: must be lines of IDENTITY: EV, such as CP_1: ev0001"])
    twice = {ev for ev in given.values() if list(given.values()).count(ev) > 1}
    if twice:
        several = ", ".join(sorted(twice))
        raise ScenarioError([f"--stations {path}: {several} has several stations; must have one"])
    return {ev: identity for identity, ev in given.items()}


def _check_aggregator(scenario: Scenario, name: str | None) -> None:
    """Refuse a scenario with several aggregators that send set-points, or with another one than asked for."""
    found = [each for each, a in scenario.aggregators.items() if a.strategy_class.controls]
    if name is not None and name not in found:
        raise ScenarioError([f"--aggregator {name}: must be one of {', '.join(found) or 'none'}"])
    if len(found) > 1:
        raise ScenarioError(
            [f"aggregators: {', '.join(found)} send set-points, and a CSMS is one of them: leave one in the "
             "scenario"]
        )  # fmt: skip


class _Connection:
    """Connects the fleet's model with the server, and keeps the clock."""

    def __init__(self, fleet: StationFleet, scenario: Scenario, settings: Csms) -> None:
        self._fleet, self._settings, self._ticks = fleet, settings, scenario.clock.ticks
        self._step_s = scenario.time.step
        names = [each for each, a in scenario.aggregators.items() if a.strategy_class.controls]
        link = scenario.link_of(names[0]) if names else scenario.communication
        lockstep = settings.speed is None
        expires_s = None if link.fallback == "last" else link.timeout
        policy = Policy(lockstep, settings.answer_s, max(link.telemetry, self._step_s), expires_s)
        standing = StandingProfiles(scenario, link, fleet.charge_kw, fleet.times)
        self.server = StationServer(
            fleet.states, fleet.times, settings.address, settings.security, policy, standing
        )
        self._began: float | None = None
        self._awaits_station = not lockstep and not scenario.time.starts_now
        for state in fleet.states.values():
            state.clock_s = max(CLOCK_S, CLOCK_WALL_S * (settings.speed or 0.0)) + self._step_s
        self._ticking = False
        fleet.now = self._now
        host, port = self.server.start()
        if settings.announce is not None:
            scheme = "wss" if settings.security.certificate is not None else "ws"
            settings.announce(f"{scheme}://{host}:{port}")

    def _now(self) -> float:
        """The CSMS's clock, s; in lockstep the end of the tick under way, whose messages come in."""
        speed = self._settings.speed
        if speed is None:
            return self.server.time_s + self._step_s if self._ticking else 0.0
        return 0.0 if self._began is None else (monotonic() - self._began) * speed

    def begin(self, time_s: float, tick: int, setpoint_kw: Mapping[str, float]) -> None:
        """See :class:`.station_fleet.Stations`."""
        if self._settings.speed is None:
            self.server.await_clock(tick, self._settings.patience_s, last=False)
        elif self._began is None:
            states = self._fleet.states.values()
            while self._awaits_station and not any(state.booted for state in states):
                sleep(0.005)
            self._began = monotonic()
        self.server.send_setpoints(time_s, tick, setpoint_kw)
        self._ticking = True

    def end(self, time_s: float, tick: int) -> float:
        """See :class:`.station_fleet.Stations`."""
        speed = self._settings.speed
        if speed is None:
            self.server.await_clock(tick + 1, self._settings.patience_s, last=tick + 1 == self._ticks)
            return 0.0
        assert self._began is not None
        due = self._began + time_s / speed
        late_s = monotonic() - due
        if late_s < 0.0:
            sleep(-late_s)
        self._await_reports(time_s, due)
        return max(monotonic() - due, 0.0)

    def _await_reports(self, time_s: float, due: float) -> None:
        """Wait a moment for meter values of the tick's end that are on their way."""
        until = due + min(0.1 * self._step_s / (self._settings.speed or 1.0), 1.0)
        books = self._fleet.books

        def all_there() -> bool:
            return all(
                state.transaction is None or not state.connected or books.read_at(state.ev) >= time_s - 2e-3
                for state in self._fleet.states.values()
            )

        while monotonic() < until and not self.server.call(all_there):
            sleep(0.005)

    def call(self, work: Callable[[], None]) -> None:
        """See :class:`.station_fleet.Stations`."""
        self.server.call(work)

    def close(self) -> None:
        """See :class:`.station_fleet.Stations`."""
        self.server.release_all()

    def stop(self) -> None:
        """End the server."""
        self.server.stop()

    def attributes(self) -> dict[str, str]:
        """See :class:`.station_fleet.Stations`."""
        states, books = self._fleet.states, self._fleet.books
        stations = {
            identity: {
                "ev": state.ev_name,
                "version": state.version,
                "offence": state.offence,
                **asdict(state.counts),
                "drawn_kwh": float(books.drawn_kwh[state.ev]),
                "given_kwh": float(books.given_kwh[state.ev]),
                "events": state.events,
            }
            for identity, state in states.items()
        }
        lateness = self._fleet.lateness_s
        of_server = {
            "security_profile": self._settings.security.profile,
            "speed": self._settings.speed,
            "evs_without_station": len(self._fleet.evs) - len(states),
            "refused_connections": self.server.turned_away,
            "worst_tick_lateness_s": max(lateness, default=0.0),
            "held_without_meter_value_kwh": self._fleet.unseen_kwh,
        }
        clock = self._fleet.scenario.clock
        transactions = [
            {
                **asdict(one),
                "ev": str(self._fleet.evs.name[one.ev]),
                "begin": clock.stamp(one.begin_s),
                "end": None if one.end_s is None else clock.stamp(one.end_s),
            }
            for one in books.transactions
        ]
        return {
            "csms": json.dumps(of_server),
            "stations": json.dumps(_plain(stations)),
            "transactions": json.dumps(_plain(transactions)),
        }


def _plain(value: Any) -> Any:
    """A value for JSON: NaN is None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
