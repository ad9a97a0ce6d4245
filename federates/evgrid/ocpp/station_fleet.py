"""Charging stations in the place of a simulated fleet, in the run of a CSMS.

In: the aggregator's set-points of a tick, kW an EV. Out: the mean power of the EVs at each connection and
phase over the tick, from the stations' energy registers, and, every telemetry period, what the aggregator
sees of each EV (the ports of ``evgrid ports`` for ``fleet``). Positive power is drawn from the grid; reactive
power is 0, as no station says it.

The power of a tick is the energy of the registers in it, where a meter value ends it or the transaction ended
in it; else the mean power between the last two meter values is held while a transaction is open. What a later
meter value shows beyond that is late energy: it is in the books of its transaction, at the prices of its own
time, but the feeder has solved those ticks. What is held to the run's end and no meter value shows is taken
back in the late energy of the last tick. The audit compares the registers' last readings less their first
with the ticks and late energy, and with the transactions.

Results are those of a simulated fleet as far as meters say them. Energy in the battery and losses are not,
and are NaN. A transaction counts to the scenario's session of its EV that begins nearest to it; transactions
by themselves are listed in the result's attribute ``transactions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import (
    ALL_PHASES,
    Array,
    Connections,
    EVs,
    Model,
    Outages,
    Portfolio,
    Recorder,
    Values,
    Variable,
)
from evgrid.errors import ScenarioError
from evgrid.fleet.commands import Commands, rated_kw
from evgrid.fleet.grouping import SlotSums, slots_of
from evgrid.fleet.planned_sessions import planned_sessions_of
from evgrid.fleet.rates import Rates
from evgrid.fleet.recording import SESSION_VARIABLES, FleetRecording
from evgrid.fleet.sessions import Sessions
from evgrid.fleet.telemetry import OwnPower, Telemetry
from evgrid.ocpp.books import Books, Transaction
from evgrid.ocpp.messages import times_of
from evgrid.ocpp.station_state import Planned, StationState
from evgrid.readers.signals import Signals
from evgrid.scenario import Scenario

_FRESH_S = 2e-3
"""A meter value that is older than a tick's end by less than this ends the tick: timestamps have ms."""
_VARIABLES = (
    Variable("stations_connected", ("member",), "1", "charging stations connected, at the tick's end"),
    Variable("station_messages", ("member",), "1", "messages of charging stations and to them, in a tick"),
    Variable("late_energy_kwh", ("member",), "kWh",
             "energy of ticks before that meter values show in the interval, beyond the power known then; in "
             "the last, less what was held and no meter value shows"),
    Variable("tick_lateness_s", ("member",), "s",
             "time by which a tick's end was handled after it was due by the wall clock; 0 in lockstep"),
    Variable("ev_energy_drawn_kwh", ("ev",), "kWh", "energy drawn by the EVSE's register", False),
    Variable("ev_energy_given_kwh", ("ev",), "kWh", "energy given by the EVSE's register", False),
    Variable("ev_energy_outside_kwh", ("ev",), "kWh",
             "energy drawn less that given outside of any transaction", False),
)  # fmt: skip


class Stations(Protocol):
    """What connects the model with the charging stations."""

    def begin(self, time_s: float, tick: int, setpoint_kw: Mapping[str, float]) -> None:
        """Send the set-points, kW by identity, of a tick that begins."""

    def end(self, time_s: float, tick: int) -> float:
        """Wait for the end of a tick; by how much it was late, s."""

    def call(self, work: Callable[[], None]) -> None:
        """Call something while no message is taken in."""

    def close(self) -> None:
        """The run has ended."""

    def attributes(self) -> dict[str, str]:
        """What the result says of stations and transactions, as JSON."""


class StationFleet(Model):
    """Charging stations in the fleet's place; parameters as of :class:`evgrid.fleet.model.FleetModel`.

    connect : makes the connection with the stations, from their states by identity
    identities : of the stations by the name of their EV; an EV without one here has its name as identity

    Raises ScenarioError for what a CSMS can't do.
    """

    name = "fleet"

    def __init__(
        self,
        scenario: Scenario,
        connections: Connections,
        evs: EVs,
        sessions: Sessions,
        recorder: Recorder,
        managed: bool,
        trafos: int = 0,
        portfolios: Sequence[Portfolio] = (),
        taken: Collection[str] = (),
        at_sites: NDArray[np.int64] | None = None,
        outages: Outages | None = None,
        live: Signals | None = None,
        *,
        connect: Callable[[StationFleet], Stations],
        identities: Mapping[str, str] | None = None,
    ) -> None:
        self.period_s = scenario.time.step
        self._refuse(scenario, managed, at_sites)
        sessions = replace(sessions, queue=None)
        self.scenario, self.evs, self.sessions, self._recorder = scenario, evs, sessions, recorder
        count = len(evs)
        shape = (1, len(connections), len(connections.phases))
        slot, wide = slots_of(connections, evs)
        self._sums = SlotSums(np.arange(count), slot, wide, shape)
        parts = [] if any(portfolio.whole for portfolio in portfolios) else list(portfolios)
        controlled = [p for p in portfolios if scenario.aggregators[p.name].strategy_class.controls]
        own = [p for p in parts if p in controlled]
        self._commands = Commands(_without_links(scenario), evs, sessions, managed, own)
        self._telemetry = Telemetry(scenario, count, own)
        self._own_power = OwnPower(own, taken, slot, wide, shape)
        self._recording = FleetRecording(scenario, connections, evs, recorder, parts, sessions)
        self._rates = Rates(scenario, None, live)
        discharge_kw = np.zeros(count)
        np.maximum.at(discharge_kw, sessions.ev, sessions.discharge_kw)
        self.charge_kw, self.discharge_kw = _rating_kw(scenario, rated_kw(sessions, count)), discharge_kw
        self.books = Books(scenario.clock, self._rates, self.charge_kw, discharge_kw)
        self._planned = planned_sessions_of(scenario, connections, evs, sessions)
        self._first = np.searchsorted(sessions.ev, np.arange(count + 1))
        self.times = times_of(scenario)
        self.now: Callable[[], float] = lambda: 0.0
        rows = np.concatenate([p.rows for p in controlled]) if controlled else np.zeros(0, np.int64)
        self.states = self._states(rows, identities or {})
        self._held_kwh = np.zeros(count)
        self._late_kwh = np.zeros(scenario.clock.ticks)
        self._messages = 0
        self._ended = 0
        self._end_s = 0.0
        self.lateness_s: list[float] = []
        self.unseen_kwh = 0.0
        """Energy held for stations to the run's end that no meter value shows; complete after ``finish``."""
        self.inputs = self._commands.inputs
        self.outputs = (
            "fleet/p", "fleet/q", *self._telemetry.outputs, *self._own_power.outputs,
        )  # fmt: skip
        self.variables = self._recording.variables + SESSION_VARIABLES + _VARIABLES
        self._stations = connect(self)

    @staticmethod
    def _refuse(scenario: Scenario, managed: bool, at_sites: NDArray[np.int64] | None) -> None:
        """Refuse what a CSMS can't do."""
        faults = []
        if len(scenario.members) > 1:
            faults.append(
                f"ensemble.members = {len(scenario.members)}: a CSMS has one fleet of stations; must be 1"
            )
        if at_sites is not None:
            faults.append("sites: a CSMS has none; charging stations are at connection points only")
        if not managed:
            faults.append("aggregators: none sends set-points, so there is nothing for a CSMS to do")
        elif scenario.uses_envelope:
            faults.append("aggregators: a strategy needs the fleet's envelope, which stations do not say")
        if faults:
            raise ScenarioError(faults)

    def _states(self, rows: NDArray[np.int64], identities: Mapping[str, str]) -> dict[str, StationState]:
        """The stations of some EVs by identity. Raises ScenarioError for names that don't fit."""
        names = [str(name) for name in self.evs.name]
        faults = [f"--stations: {name} is no EV of the scenario" for name in identities if name not in names]
        states: dict[str, StationState] = {}
        assert self.scenario.fleet is not None
        all_on_one = all(kind.phases == 1 for kind in self.scenario.fleet.charger.drawn)
        for ev in rows.tolist():
            identity = identities.get(names[ev], names[ev])
            if identity in states:
                both = f"{states[identity].ev_name} and {names[ev]}"
                faults.append(f"--stations: {identity} is the station of {both}")
            states[identity] = StationState(
                identity, ev, names[ev], self.books, self.times, lambda: self.now(), self._planned_session,
                one_phase=all_on_one or bool(self.evs.phase[ev] != ALL_PHASES),
            )  # fmt: skip
        if faults:
            raise ScenarioError(faults)
        return states

    def _nearest(self, ev: int, time_s: float) -> int:
        """The scenario's session of an EV that begins nearest to a time; -1 without any."""
        own = slice(int(self._first[ev]), int(self._first[ev + 1]))
        arrivals_s = self.sessions.arrival_s[own]
        return own.start + int(np.argmin(np.abs(arrivals_s - time_s))) if len(arrivals_s) else -1

    def _planned_session(self, ev: int, time_s: float) -> Planned | None:
        row = self._nearest(ev, time_s)
        if row < 0:
            return None
        known = self._planned
        of_ev = np.flatnonzero(known.ev == ev)
        at = of_ev[row - int(self._first[ev])]
        gain = max(float(known.soc_target[at] - known.soc_arrival[at]), 0.0) * float(known.capacity_kwh[at])
        efficiency = float(known.charge_efficiency[at]) or 1.0
        return Planned(
            float(known.departure_s[at]), gain / efficiency, float(known.soc_arrival[at]),
            float(known.capacity_kwh[at]), efficiency,
        )  # fmt: skip

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`: sends set-points, and waits for the end of the tick."""
        tick = round(time_s / self.period_s)
        setpoint = self._commands.at(tick, time_s, inputs)
        self._stations.call(lambda: self.books.begin_tick(time_s))
        wanted = {identity: float(setpoint[state.ev]) for identity, state in self.states.items()}
        self.held_until = math.inf
        try:
            self._stations.begin(time_s, tick, wanted)
            self._end_s = time_s + self.period_s
            late_s = self._stations.end(self._end_s, tick)
        finally:
            self.held_until = monotonic()
        found: dict[str, Array] = {}
        self._stations.call(lambda: self._close_tick(time_s, tick, late_s, found))
        return found

    def _close_tick(self, time_s: float, tick: int, late_s: float, found: dict[str, Array]) -> None:
        """Take the tick's power and the report, by port, from the states of the stations; record."""
        end_s, hours = self._end_s, self.period_s / 3600.0
        count = len(self.evs)
        power_kw, soc, plugged_s = np.zeros(count), np.full(count, np.nan), 0.0
        ended = self.books.transactions[self._ended :]
        ended_now = {one.ev for one in ended if one.end_s is not None and one.end_s > time_s - _FRESH_S}
        for state in self.states.values():
            ev = state.ev
            fresh = self.books.read_at(ev) >= end_s - _FRESH_S
            if fresh or ev in ended_now or state.transaction is None:
                now_kwh, past_kwh = self.books.settle(ev)
                power_kw[ev] = now_kwh / hours
                self._late_kwh[tick] += past_kwh - self._held_kwh[ev]
                self._held_kwh[ev] = 0.0
            else:
                power_kw[ev] = self.books.power_kw(ev)
                self._held_kwh[ev] += power_kw[ev] * hours
            if state.transaction is not None and state.reading is not None and state.reading.soc is not None:
                soc[ev] = state.reading.soc
        while self._ended < len(self.books.transactions) and self._closed_before(time_s, self._ended):
            self._ended += 1
        for one in self.books.transactions[self._ended :]:
            to_s = end_s if one.end_s is None else min(one.end_s, end_s)
            plugged_s += max(to_s - max(one.begin_s, time_s), 0.0)
        p = self._sums.of(power_kw)
        q = np.zeros_like(p)
        plugged = np.array([plugged_s / self.period_s])
        self._recording.record(time_s, p, q, plugged, power_kw, soc, power_kw, None)
        total = sum(state.counts.received + state.counts.sent for state in self.states.values())
        connected = sum(state.connected for state in self.states.values())
        for name, value in (
            ("stations_connected", connected), ("station_messages", total - self._messages),
            ("tick_lateness_s", late_s),
        ):  # fmt: skip
            self._recorder.put(name, tick, np.array([[float(value)]]))
        self._messages = total
        self.lateness_s.append(late_s)
        found |= {"fleet/p": p, "fleet/q": q} | self._own_power.values(power_kw)
        if self._telemetry.due(end_s):
            self._fill_report(end_s)
            found |= self._telemetry.values()

    def _closed_before(self, time_s: float, at: int) -> bool:
        end_s = self.books.transactions[at].end_s
        return end_s is not None and end_s <= time_s - _FRESH_S

    def _fill_report(self, end_s: float) -> None:
        report = self._telemetry.report
        for field in report:
            field[:] = 0.0
        for state in self.states.values():
            seen = state.report(end_s)
            if seen is None:
                continue
            ev = state.ev
            report.plugged[ev] = 1.0
            report.soc[ev], report.p_max[ev], report.p_min[ev] = seen.soc, seen.p_max, seen.p_min
            report.energy_needed[ev], report.time_left[ev] = seen.energy_needed, seen.time_left
            report.time_needed[ev] = seen.time_needed

    def finish(self) -> None:
        """Close the books and record the results of all sessions."""
        self._stations.call(self._close_books)
        self._stations.close()
        self._recording.finish()
        per_interval = self.scenario.record_step_s / self.period_s  # whose mean is recorded
        self._recorder.put("late_energy_kwh", 0, per_interval * self._late_kwh[:, np.newaxis])
        put = self._recorder.put_static
        for name, values in self._session_values().items():
            put(name, values)
        put("ev_energy_drawn_kwh", self.books.drawn_kwh.copy())
        put("ev_energy_given_kwh", self.books.given_kwh.copy())
        put("ev_energy_outside_kwh", self.books.outside_drawn_kwh - self.books.outside_given_kwh)

    def _close_books(self) -> None:
        for state in self.states.values():
            one = state.transaction
            if one is not None:
                reading = state.reading
                one.soc_end = math.nan if reading is None or reading.soc is None else reading.soc
                one.closed = "run ended"
            unseen_kwh = self._held_kwh[state.ev] - sum(self.books.settle(state.ev))
            self._late_kwh[-1] -= unseen_kwh
            self.unseen_kwh += unseen_kwh
        self.books.closed = True

    def _session_values(self) -> dict[str, Array]:
        """The result variables of the scenario's sessions, of the transactions that count to each."""
        count = len(self.sessions)
        values = {variable.name: np.full(count, np.nan) for variable in SESSION_VARIABLES}
        for name in ("energy_delivered_kwh", "energy_discharged_kwh", "throughput_kwh"):
            values[f"session_{name}"][:] = 0.0
        if self._rates.priced:
            values["session_cost"][:] = 0.0
        own: dict[int, list[Transaction]] = {}
        for one in self.books.transactions:
            row = self._nearest(one.ev, one.begin_s)
            if row >= 0:
                own.setdefault(row, []).append(one)
        for row, found in own.items():
            drawn = math.fsum(one.drawn_kwh for one in found)
            given = math.fsum(one.given_kwh for one in found)
            first, last = found[0], found[-1]
            whole = last.end_s is not None and last.closed not in ("run ended", "cut off")
            missing = last.missing_kwh if whole else math.nan
            wanted = first.wanted_kwh
            for name, value in (
                ("energy_requested_kwh", wanted),
                ("energy_delivered_kwh", drawn),
                ("energy_discharged_kwh", given),
                ("throughput_kwh", drawn + given),
                ("energy_unserved_kwh", missing),
                ("energy_unserved_percent", 100.0 * missing / wanted if wanted > 0.0 else math.nan),
                ("soc_arrival", first.soc_begin),
                ("soc_departure", last.soc_end),
                ("cost", math.fsum(one.cost for one in found) if self._rates.priced else math.nan),
            ):
                values[f"session_{name}"][row] = value
        return values

    def attributes(self) -> dict[str, str]:
        """See :class:`evgrid.core.model.Model`: ``csms``, ``stations`` and ``transactions``, as JSON."""
        return self._stations.attributes()

    def audit(self) -> dict[str, Array]:
        """See :class:`evgrid.core.model.Model`; complete after ``finish``.

        grid_energy_kwh : from the power of all EVs, each tick's times its length
        late_energy_kwh : as recorded, of all ticks
        register_energy_kwh : of the stations' registers, their last reading less their first
        transaction_energy_kwh : of all transactions, and outside of any
        power_given_kw_sum : power given to the feeder, summed over the ticks at which it steps
        """
        books = self.books
        of_transactions = math.fsum(one.drawn_kwh - one.given_kwh for one in books.transactions)
        outside = float((books.outside_drawn_kwh - books.outside_given_kwh).sum())
        return {
            "grid_energy_kwh": self._recording.grid_energy_kws / 3600.0,
            "late_energy_kwh": np.array([self._late_kwh.sum()]),
            "register_energy_kwh": np.array([books.register_kwh().sum()]),
            "register_throughput_kwh": np.array([(books.drawn_kwh + books.given_kwh).sum()]),
            "transaction_energy_kwh": np.array([of_transactions + outside]),
            "power_given_kw_sum": self._recording.power_given_kw.copy(),
        }


def _rating_kw(scenario: Scenario, rated: Array) -> Array:
    """Rating of each EVSE, (ev,) kW: at least the most that its EV draws in any session, ``rated``; where
    chargers differ and there is no session, the largest charger's.
    """
    assert scenario.fleet is not None
    charger = scenario.fleet.charger
    alike = len({kind.power_kw for kind in charger.drawn}) == 1
    least = charger.power_kw if alike else 0.0
    return np.where(rated > 0.0, np.maximum(rated, least), charger.power_kw)


def _without_links(scenario: Scenario) -> Scenario:
    """A scenario without links of each EVSE: those are the stations' own, and act there."""
    plain = {"latency": 0.0, "outages_per_day": 0.0, "timeout": None}
    return scenario.model_copy(update={"communication": scenario.communication.model_copy(update=plain)})
