"""The aggregator: computes set-points from the reports of the chargers and the feeder.

In: the status of every EV, as of the last telemetry; the EVs' power and, for strategies that use
it, the power through each transformer or the voltages, all of the last tick; the bulk system's signal and
frequency of this tick, where a strategy uses them. Out: one set-point an EV, kW,
positive charges. Between two reports the status is carried forward with the set-points given.

A charger that is linked without delay reports an arrival at once: the energy that such an EV can't defer to
the next tick (as its session is short) is counted with a limited group's base load from the tick's start,
as the others make room for it within the tick.

Several aggregators may run, each with EVs and a federate of its own: it sees only its own EVs, and the power
of a group without them.

Left out: bids.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evgrid.aggregator.dispatch import WithinSettings, least_powers
from evgrid.aggregator.excess import REASONS, Excess
from evgrid.aggregator.following import FOLLOWED, LIMITS, Following
from evgrid.aggregator.kernels import follow, order_by_group
from evgrid.aggregator.strategy import Context, Envelope, Strategy, View
from evgrid.core.jit import in_threads
from evgrid.core.model import (
    Array,
    Connections,
    EVs,
    Model,
    Outages,
    PlannedSessions,
    Portfolio,
    Recorder,
    Sensitivity,
    Values,
    Variable,
)
from evgrid.core.random_streams import Purpose, stream
from evgrid.errors import StrategyError
from evgrid.readers.signals import Signals
from evgrid.scenario import Scenario
from evgrid.scenario.aggregators import StrategySettings
from evgrid.system.live import LiveSignals

_T = TypeVar("_T")

_STATUS = ("soc", "p_max", "p_min", "energy_needed", "time_left", "time_needed")
_CARRIED = _STATUS[1:]
_BLOCK = 256
_BLOCK_BYTES = 2**24
"""Most ticks in a block of recorded values, and most bytes."""
_LATE_S = 1.0
"""Laxity below which an EV counts as charged by its departure guard, s."""
_ENVELOPE = ("p_min", "p_max", "e_min", "e_max", "round_trip")
_SETPOINT = Variable(
    "setpoint_kw", ("member",), "kW",
    "sum of the set-points of the plugged-in EVs, unlimited ones at their EVs' limit",
)  # fmt: skip
_PEAK = Variable(
    "uncontrolled_peak_kw", ("member",), "kW",
    "highest power, mean over 5 min or a tick, of base load and EVs without losses if all EVs charged as "
    "fast as they can", timed=False,
)  # fmt: skip
_PEAK_S = 300.0
_EXCESS = (
    ("limit_excess_kwh", "kWh", "energy beyond the limit, by reason; without the run's last tick"),
    (
        "limit_excess_h",
        "h",
        "time beyond the limit, by more than 0.1 % of it and 0.05 kW, in which this reason was the largest; "
        "likewise",
    ),
)


class AggregatorModel(Model):
    """One aggregator with one strategy over its portfolio of EVs.

    ``evs`` are all EVs of the run; ``banks``, (trafo,), is the position of the first unit of each
    transformer's bank, which is one group. Connections without a transformer above them are with those of the
    first; EVs upstream of the feeder are in a group of their own, the last. ``sensitivity``, with elements
    out of service, is for a strategy that uses voltages. ``planned``, of all EVs, and ``base_load`` are for
    forecasts; the latter gives (member, trafo + 1, n) kW of n times, or from those to n ends, by the
    transformer next upstream, the last for none. Of ``outages`` the aggregator knows those in which the
    feeder has solved the last voltages, and no others. ``signals`` are those from outside, which it knows as
    they become known; ``trafo_names``, (trafo,), are names by which they may target EVs.
    """

    def __init__(
        self,
        scenario: Scenario,
        portfolio: Portfolio,
        connections: Connections,
        evs: EVs,
        banks: NDArray[np.int64],
        recorder: Recorder,
        sensitivity: Callable[[frozenset[int]], Sensitivity] | None = None,
        planned: PlannedSessions | None = None,
        base_load: Callable[..., Array] | None = None,
        outages: Outages | None = None,
        signals: Signals | None = None,
        trafo_names: NDArray[np.str_] | None = None,
    ) -> None:
        self.name = portfolio.federate
        self._portfolio, self._title = portfolio, portfolio.name
        settings = scenario.aggregators[portfolio.name]
        cls = self._cls = settings.strategy_class
        sensitivity = sensitivity if cls.goes_by_sensitivities() else None
        evs = evs if portfolio.whole else evs.take(portfolio.rows)
        self.period_s = scenario.time.step
        self._clock = scenario.clock
        self._recorder = recorder
        self._evs = evs
        self._members = scenario.members
        self._strategy: Strategy | None = None
        link = scenario.link_of(portfolio.name)
        self._telemetry_s = max(link.telemetry, scenario.time.step)
        self._feeder_step_s = scenario.feeder_step_s
        trafos = self._trafos = len(banks)
        self._by_trafo, self._banks = settings.group == "transformer" and trafos > 0, banks
        of_connection = np.zeros(len(connections), np.int64)
        if self._by_trafo:
            of_connection = np.maximum(connections.trafo, 0)
            if connections.upstream:
                of_connection[-1] = trafos
        groups = self._groups = trafos + connections.upstream if self._by_trafo else 1
        self._connection_group = (
            groups * np.arange(len(self._members))[:, np.newaxis] + of_connection
        ).reshape(-1)
        self._ev_group = evs.member * groups + of_connection[evs.connection]
        self._signals, self._version = signals, 0 if signals is None else signals.version(0.0)
        if isinstance(signals, LiveSignals):
            self._version = -1
            if planned is not None:
                own = planned if portfolio.whole else planned.of(portfolio.rows)
                signals.baselines.append(partial(power_at_once, own))
        system = scenario.system
        context = Context(
            scenario.clock, scenario.tariff, evs, groups, self._ev_group,
            scenario.system, scenario.members, scenario.ensemble.seed,
            None if sensitivity is None else sensitivity(frozenset()),
            planned
            if planned is None or portfolio.whole
            else planned.of(portfolio.rows),
            None if base_load is None else partial(self._in_groups, base_load),
            connections.upstream,
            sum(a.strategy_class.goes_by_sensitivities() for a in scenario.aggregators.values()),
            None if signals is None else signals.known(0.0),
            frozenset({portfolio.name, *(system.targets if system is not None else ())}),
        )  # fmt: skip
        self._following: Following | None = None
        limits_of_group = False
        if signals is not None and system is not None and signals.kinds & set(FOLLOWED):
            at, labels = evs.connection, [evs.name, connections.name[evs.connection]]
            if trafo_names is not None and trafos:
                trafo = connections.trafo[at]
                labels.append(np.where(trafo >= 0, trafo_names[trafo], ""))
            limits_of_group = system.limits_of == "group" and bool(signals.kinds & set(LIMITS))
            self._following = Following(context, labels, limits_of_group)
            self._following.know(signals.known(0.0))
        self._strategy = self._guarded(0.0, lambda: self._made(settings, context))
        self._save_state = getattr(settings, "save_state", None) if cls.replaced is None else None
        self._power_port = "fleet/p" if portfolio.whole else portfolio.port("fleet/own_p")
        self._setpoint_port = portfolio.port("aggregator/setpoint")
        self.outputs = (self._setpoint_port,)
        self.checked = frozenset(self.outputs)  # _send refuses NaN for EVs plugged in, the others have 0
        self.inputs = ("fleet/plugged", *(f"fleet/{field}" for field in _STATUS))
        self._uses_feeder = cls.goes_by_feeder(settings) or limits_of_group
        if self._uses_feeder:
            self.inputs += (self._power_port, "feeder/trafo_p" if self._by_trafo else "feeder/head_p")
        if cls.uses_system:
            self.inputs += (self._power_port,)
            if scenario.system is not None:
                self.inputs += ("system/regulation", "system/frequency")
        goes_by_envelope = cls.goes_by_envelope(settings)
        self._ahead = scenario.fleet.envelope if goes_by_envelope and scenario.fleet is not None else None
        if self._ahead is not None:
            self.inputs += tuple(f"fleet/envelope_{field}" for field in _ENVELOPE)
        if cls.uses_voltage:
            self.inputs += (self._power_port, "feeder/voltage")
        self._excess: Excess | None = None
        self._expected_sessions: PlannedSessions | None = None
        if self._uses_feeder and isinstance(settings, WithinSettings) and settings.limited:
            rows = len(self._members) * groups
            over_s = settings.limit_over or 0.0
            self._check_interval(over_s)
            self._excess = Excess(settings.least_kw, settings.most_kw, over_s, rows)
            self.inputs += ("fleet/p",)
            if context.planned_sessions is not None and link.telemetry <= self.period_s and link.delay == 0:
                self._expected_sessions = context.planned_sessions
                self._by_arrival = np.argsort(self._expected_sessions.arrival_s, kind="stable")
        self.inputs = tuple(dict.fromkeys(self.inputs))
        self._peak_of: Context | None = None
        if cls.may_raise_peak and portfolio.whole and planned is not None and base_load is not None:
            self._peak_of = context
        self.variables = tuple(
            self._own(variable)
            for variable in (
                _SETPOINT, *cls.variables, *self._excess_variables(), *([_PEAK] if self._peak_of else []),
            )
        )  # fmt: skip
        self._base_load = self._of_others = np.zeros(len(self._members) * groups)
        self._requested = np.zeros(len(evs) if self._excess is not None else 0)
        """Power requested of each EV in the last tick, within its limits, kW."""
        self._on_feeder = slice(connections.on_feeder)
        self._voltage = np.zeros((len(self._members), connections.on_feeder, len(connections.phases)))
        self._power_then = self._voltage
        self._sensitivity, self._outages = sensitivity, outages
        self._out = [frozenset[int]()] * len(self._members)
        """Elements out of service in the network in which the last voltages were solved, of each member."""
        whole = context.sensitivity
        self._sensitivities: tuple[Sensitivity, ...] = () if whole is None else (whole,)
        self._network = np.zeros(len(self._members), np.int64)
        self._status = {field: np.zeros(len(evs)) for field in _STATUS}
        self._plugged = np.zeros(len(evs), np.bool_)
        self._sent = np.zeros(len(evs))
        self._order = order_by_group(np.zeros(0, np.uint32), evs.member, len(self._members))
        self._setpoint_sums = np.zeros(0)
        self._buffer: dict[str, list[Array]] = {}
        self._buffer_begin = 0
        self._loss = 0.0 if link.per_evse else link.loss
        self._streams = [
            stream(scenario.ensemble.seed, member, Purpose.MESSAGE_LOSS, attempt=portfolio.number)
            for member in scenario.members
        ]
        self._evs_of_member = np.searchsorted(evs.member, np.arange(len(self._members) + 1))

    def _made(self, settings: StrategySettings, context: Context) -> Strategy:
        """The strategy, with the state that its settings name."""
        strategy = self._cls(settings, context)
        state = getattr(settings, "state", None) if self._cls.replaced is None else None
        if state is not None:
            try:
                strategy.load(state)
            except StrategyError as error:
                raise StrategyError(f"aggregators.{self._title}.state: {error}") from error
        return strategy

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`."""
        self._update_status(time_s, inputs)
        if self._feeder_has_solved(time_s):
            self._update_base_load(time_s, inputs)
            self._update_voltage(time_s - self.period_s, inputs)
        status, arrivals = self._status, self._must_run_arrivals(time_s)
        regulation = frequency = fleet_power = np.zeros(len(self._members))
        if "system/regulation" in self.inputs:
            regulation, frequency = inputs["system/regulation"], inputs["system/frequency"]
        if self._cls.uses_system:
            fleet_power = inputs[self._power_port].sum(axis=(1, 2))
        view = View(
            time_s, self.period_s, self._plugged, status["soc"], status["p_max"], status["p_min"],
            status["energy_needed"], status["time_left"], status["time_needed"],
            self._base_load + arrivals, regulation, frequency, fleet_power,
            self._envelope(time_s, inputs), self._voltage, self._power_then,
            self._sensitivities, self._network,
            np.zeros(len(self._base_load)) if self._excess is None else self._excess.carry_over_kw,
            self._order.rows,
        )  # fmt: skip
        strategy = self._strategy
        assert strategy is not None
        if self._signals is not None:
            self._renew(time_s, strategy, self._signals)
        wanted = self._checked(time_s, self._guarded(time_s, lambda: strategy.setpoints(view)))
        if self._following is not None:
            wanted = self._following.follow(view, wanted)
        if self._excess is not None:
            self._note_request(view, wanted, arrivals, self._excess)
        total = self._send(time_s, wanted)
        self._record(round(time_s / self.period_s), {"setpoint_kw": total} | strategy.recorded)
        return {self._setpoint_port: self._sent}

    def _renew(self, time_s: float, strategy: Strategy, signals: Signals) -> None:
        """Let the strategy know where signals have come, changed or been cancelled since the last tick."""
        version = signals.version(time_s)
        if version == self._version:
            return
        self._version, known = version, signals.known(time_s)
        strategy.context = replace(strategy.context, known=known)
        self._guarded(time_s, strategy.signals_changed)
        if self._following is not None:
            self._following.know(known)
        if isinstance(signals, LiveSignals):
            signals.opted_out[self._title] = getattr(strategy, "opted_out", {})

    def finish(self) -> None:
        """Record the strategy's results, and save its state where that is asked for."""
        assert self._strategy is not None
        self._flush()
        if self._save_state is not None:
            try:
                self._strategy.save(self._save_state)
            except StrategyError as error:
                raise StrategyError(f"aggregators.{self._title}.save_state: {error}") from error
        for name, values in self._guarded(self._clock.duration_s, self._strategy.results).items():
            self._recorder.put_static(self._portfolio.variable(name), values)
        if self._peak_of is not None:
            self._recorder.put_static(_PEAK.name, uncontrolled_peak(self._peak_of))
        if self._excess is not None:
            found = (self._excess.energy_kwh, self._excess.time_h)
            for (name, _, _), values in zip(_EXCESS, found, strict=True):
                parted = values.reshape(len(self._members), self._groups, len(REASONS))
                parted = parted[:, : self._trafos] if self._by_trafo else parted[:, 0]
                self._recorder.put_static(self._portfolio.variable(name), parted)

    def _check_interval(self, over_s: float) -> None:
        """Raise StrategyError if the limit's interval is no multiple of the tick."""
        if abs(over_s / self.period_s - round(over_s / self.period_s)) > 1e-9:
            raise StrategyError(
                f"aggregators.{self._title}.limit_over = {over_s:g}s: must be a multiple of "
                f"time.step = {self.period_s:g}s"
            )

    def _excess_variables(self) -> tuple[Variable, ...]:
        if self._excess is None:
            return ()
        dims = ("member", *(("trafo",) if self._by_trafo else ()), "reason")
        return tuple(Variable(name, dims, unit, text, timed=False) for name, unit, text in _EXCESS)

    def _must_run_arrivals(self, time_s: float) -> Array:
        """Mean power that EVs arriving in this tick can't defer to the next, (member · groups,) kW."""
        sessions, step_s = self._expected_sessions, self.period_s
        if sessions is None:
            return np.zeros(len(self._base_load))
        coming = np.searchsorted(sessions.arrival_s, (time_s, time_s + step_s), sorter=self._by_arrival)
        rows = self._by_arrival[coming[0] : coming[1]]
        power, departure_s = sessions.charge_kw[rows], sessions.departure_s[rows]
        needed_s = sessions.seconds_to_target(rows)
        here_s = np.minimum(departure_s, time_s + step_s) - sessions.arrival_s[rows]
        now_s = np.clip(needed_s - np.maximum(departure_s - time_s - step_s, 0.0), 0.0, here_s)
        group = self._ev_group[sessions.ev[rows]]
        return np.asarray(np.bincount(group, power * now_s / step_s, len(self._base_load)), np.float64)

    def _note_request(self, view: View, wanted: Array, arrivals: Array, excess: Excess) -> None:
        """Record the power requested of each group in this tick, mean of the tick."""
        least = least_powers(view)
        most = view.p_max * np.minimum(np.minimum(view.time_needed, view.time_left) / view.step_s, 1.0)
        asked = np.maximum(np.minimum(np.clip(wanted, view.p_min, view.p_max), most), least)
        self._requested = np.where(view.plugged, asked, 0.0)
        must = self._sums(np.maximum(least, 0.0)) + arrivals
        excess.record_request(self._base_load, self._sums(self._requested) + arrivals, must, self._of_others)

    def _sums(self, values: Array) -> Array:
        """Sums over the EVs of each group: (ev,) to (member · groups,)."""
        return np.asarray(np.bincount(self._ev_group, values, len(self._base_load)), np.float64)

    def _own(self, variable: Variable) -> Variable:
        """A variable with the portfolio's name."""
        if self._portfolio.whole:
            return variable
        name, text = self._portfolio.variable(variable.name), f"{self._title}: {variable.long_name}"
        return replace(variable, name=name, long_name=text)

    def _update_status(self, time_s: float, inputs: Values) -> None:
        """Update the status where it is reported; else it has been extrapolated from the last one."""
        since_report = time_s % self._telemetry_s
        if min(since_report, self._telemetry_s - since_report) > 1e-6:
            return
        for field in _STATUS:
            self._status[field][:] = self._portfolio.take(inputs[f"fleet/{field}"])
        self._plugged = self._portfolio.take(inputs["fleet/plugged"]) > 0.5
        rows = np.flatnonzero(self._plugged).astype(np.uint32)
        self._order = order_by_group(rows, self._evs.member, len(self._members))
        self._setpoint_sums = np.zeros(len(self._order.group))
        self._sent[~self._plugged] = 0.0

    def _send(self, time_s: float, wanted: Array) -> Array:
        """Send the set-points that are not lost, and extrapolate the status; sum of the set-points, (member,)
        kW.

        Raises StrategyError if a set-point is NaN.
        """
        order, status = self._order, self._status
        lost = self._lost() if self._loss else np.zeros(0, np.bool_)
        arguments: tuple[Any, ...] = (
            *order, wanted, lost, self._sent, self.period_s, self._plugged,
            *(status[field] for field in _CARRIED), self._setpoint_sums,
        )  # fmt: skip
        good = in_threads(lambda low, high: follow(low, high, *arguments), len(order.group), order.least)
        if not all(part for _, part in good):
            self._refuse_nan(time_s, wanted)
        return np.asarray(np.bincount(order.group, self._setpoint_sums, len(self._members)), np.float64)

    def _record(self, tick: int, values: dict[str, Array]) -> None:
        """Buffer the values of a tick, to record them in blocks."""
        if not self._buffer:
            self._buffer_begin = tick
        for name, value in values.items():
            self._buffer.setdefault(name, []).append(np.array(value))
        ticks = tick + 1 - self._buffer_begin
        if ticks == _BLOCK or ticks * sum(kept[-1].nbytes for kept in self._buffer.values()) > _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        for name, values in self._buffer.items():
            self._recorder.put(self._portfolio.variable(name), self._buffer_begin, np.stack(values))
        self._buffer = {}

    def _envelope(self, time_s: float, inputs: Values) -> Envelope | None:
        """The last envelope that the fleet sent."""
        if self._ahead is None or time_s < self._ahead.every_s * (1 - 1e-9):
            return None
        begin_s = np.floor(time_s / self._ahead.every_s + 1e-9) * self._ahead.every_s
        limits = (self._portfolio.take(inputs[f"fleet/envelope_{field}"]) for field in _ENVELOPE)
        return Envelope(float(begin_s), self._ahead.slot, *limits)

    def _feeder_has_solved(self, time_s: float) -> bool:
        """Whether the feeder solved in the last tick, so that its values match the fleet's."""
        solved = (time_s - self.period_s) % self._feeder_step_s
        return time_s > 0 and min(solved, self._feeder_step_s - solved) <= 1e-6

    def _update_voltage(self, solved_s: float, inputs: Values) -> None:
        """Update the voltages, which the feeder solved for its step from ``solved_s`` on, the EVs' power at
        those voltages, and the sensitivities of the networks in which they were solved.
        """
        if not self._cls.uses_voltage:
            return
        self._voltage = np.array(inputs["feeder/voltage"][:, self._on_feeder])
        self._power_then = np.array(inputs[self._power_port][:, self._on_feeder])
        if self._outages is None or self._sensitivity is None:
            return
        found = self._outages.throughout(np.array([solved_s]), self._feeder_step_s)
        out = [found.get((0, member), frozenset()) for member in range(len(self._members))]
        if out != self._out:
            self._out, networks = out, [self._sensitivity(elements) for elements in out]
            self._sensitivities = tuple({id(one): one for one in networks}.values())
            place = {id(one): at for at, one in enumerate(self._sensitivities)}
            self._network = np.array([place[id(one)] for one in networks], np.int64)

    def _update_base_load(self, time_s: float, inputs: Values) -> None:
        """Update the power of the groups without the portfolio's EVs."""
        if not self._uses_feeder:
            return
        ev_power = self._by_group(inputs[self._power_port])
        if self._by_trafo:
            through = np.zeros((len(self._members), self._groups))
            np.add.at(through.T, self._banks, inputs["feeder/trafo_p"].T)
        else:
            through = inputs["feeder/head_p"].sum(axis=1, keepdims=True)
        self._base_load = (through - ev_power).reshape(-1)
        if self._excess is not None:
            status = self._status
            late = self._plugged & (status["time_left"] - status["time_needed"] <= _LATE_S)
            beyond = np.where(late, np.maximum(status["p_max"] - self._requested, 0.0), 0.0)
            step_s = max(self._feeder_step_s, self.period_s)
            self._excess.record_outcome(
                time_s, step_s, through.reshape(-1), ev_power.reshape(-1), self._sums(beyond)
            )
            self._of_others = (self._by_group(inputs["fleet/p"]) - ev_power).reshape(-1)

    def _by_group(self, power: Array) -> Array:
        """Power of EVs by connection and phase as power by group, (member, group) kW."""
        members, groups = len(self._members), self._groups
        summed = np.bincount(self._connection_group, power.sum(axis=2).reshape(-1), members * groups)
        return np.asarray(summed.reshape(members, groups), np.float64)

    def _in_groups(
        self, base_load: Callable[..., Array], times_s: Array, until_s: Array | None = None
    ) -> Array:
        """Power by transformer as power by group, (member · groups, n) kW."""
        by_trafo = base_load(times_s, until_s)
        if not self._by_trafo:
            return np.asarray(by_trafo.sum(axis=1))
        grouped = np.zeros((len(by_trafo), self._groups, len(times_s)))
        grouped[:, : by_trafo.shape[1] - 1] = by_trafo[:, :-1]
        grouped[:, 0] += by_trafo[:, -1]
        return grouped.reshape(-1, len(times_s))

    def _lost(self) -> NDArray[np.bool_]:
        """Whether a set-point is lost in transmission, (ev,) bool, drawn from each member's own stream."""
        bounds = self._evs_of_member
        counts = np.diff(bounds)
        return np.concatenate(
            [rng.random(n) < self._loss for rng, n in zip(self._streams, counts, strict=True)]
        )

    def _checked(self, time_s: float, setpoint: object) -> Array:
        """The strategy's set-points as an array; an error unless it is one an EV."""
        what = f"aggregators.{self._title}: {self._cls.__name__}.setpoints"
        try:
            array = np.asarray(setpoint, dtype=np.float64)
        except (TypeError, ValueError):
            raise StrategyError(
                f"{what} returned {type(setpoint).__name__} at {self._clock.stamp(time_s)}: "
                f"must be an array of {len(self._evs)} powers in kW, one set-point an EV"
            ) from None
        if array.shape != (len(self._evs),):
            raise StrategyError(
                f"{what} returned an array of shape {array.shape} at {self._clock.stamp(time_s)}: "
                f"must be ({len(self._evs)},), one set-point an EV"
            )
        return array

    def _refuse_nan(self, time_s: float, setpoint: Array) -> None:
        rows = self._order.rows
        bad = rows[np.isnan(setpoint[rows])]
        ev = bad[0]
        raise StrategyError(
            f"aggregators.{self._title}: {self._cls.__name__}.setpoints returned NaN for {bad.size} of "
            f"{setpoint.size} EVs at {self._clock.stamp(time_s)}, first for {self._evs.name[ev]} of member "
            f"{self._members[self._evs.member[ev]]}: must be a power in kW, or +inf"
        )

    def _guarded(self, time_s: float, call: Callable[[], _T]) -> _T:
        """Call into a strategy; its exceptions are reported with file, line, time and members."""
        try:
            return call()
        except StrategyError:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if frame.filename == inspect.getsourcefile(self._cls)]
            frame = (own or frames)[-1]
            raise StrategyError(
                f"aggregators.{self._title}: the strategy raised {type(error).__name__}: {error} "
                f"({Path(frame.filename).name}, line {frame.lineno}) at {self._clock.stamp(time_s)}, "
                f"{self._whom()}"
            ) from error

    def _whom(self) -> str:
        """The member that a strategy is processing, as far as known."""
        first, last = self._members[0], self._members[-1]
        at = self._strategy.at_member if self._strategy is not None else None
        if at is not None or first == last:
            return f"member {first if at is None else at}"
        return f"members {first} to {last} at once (an evgrid.MemberStrategy processes one at a time)"


def _at_once_until(sessions: PlannedSessions) -> Array:
    """When sessions end that charge at rated power at once, without taper, (session,) s."""
    missing = np.maximum(sessions.soc_reach - sessions.soc_arrival, 0.0) * sessions.capacity_kwh
    needed_s = 3600.0 * missing / np.maximum(sessions.charge_efficiency * sessions.charge_kw, 1e-9)
    return np.minimum(sessions.arrival_s + needed_s, sessions.departure_s)


def power_at_once(sessions: PlannedSessions, begin_s: float, end_s: float) -> float:
    """Mean power over [begin_s, end_s) if all sessions charged as fast as they can, kW; without taper."""
    until_s = _at_once_until(sessions)
    here_s = np.minimum(until_s, end_s) - np.maximum(sessions.arrival_s, begin_s)
    return float((sessions.charge_kw * np.maximum(here_s, 0.0)).sum() / (end_s - begin_s))


def uncontrolled_peak(context: Context) -> Array:
    """Highest power of base load and EVs if all charged as fast as they can, (member,) kW.

    Of means over 5 minutes (or a tick, if that is longer), without losses. Sessions charge at rated power
    until they have their energy, without taper.
    """
    sessions, clock = context.planned_sessions, context.clock
    assert sessions is not None
    assert context.base_load is not None
    slot_s = max(_PEAK_S, clock.step_s)
    edges_s = slot_s * np.arange(np.ceil(clock.duration_s / slot_s - 1e-9) + 1.0)
    base = context.base_load(edges_s[:-1], edges_s[1:])
    base = base.reshape(context.members, context.groups, -1).sum(axis=1)
    power, until_s = sessions.charge_kw, _at_once_until(sessions)
    member = context.evs.member[sessions.ev]
    peak = np.zeros(context.members)
    for at in range(context.members):
        own = np.flatnonzero((member == at) & (power > 0))
        times_s = np.concatenate([[0.0], sessions.arrival_s[own], until_s[own]])
        change = np.concatenate([[0.0], power[own], -power[own]])
        order = np.argsort(times_s, kind="stable")
        times_s, drawn = times_s[order], np.cumsum(change[order])
        energy = np.concatenate([[0.0], np.cumsum(drawn[:-1] * np.diff(times_s))])
        means = np.diff(np.interp(edges_s, times_s, energy)) / slot_s
        peak[at] = (base[at] + means).max()
    return peak
