"""The fleet: all EVs of all members as one model behind a federate.

In: set-points (if an aggregator manages the fleet); voltages and where there are any (if the EVSEs have
local functions), of the last tick, or of this one (``coupling: iterated``, :mod:`evgrid.core.fixed_point`).
Out: the mean active and reactive power of the EVs at each connection and phase over the tick, and, every
telemetry period, what the chargers report at the end of the tick.

How an EV charges is in :mod:`evgrid.fleet.kernels`; what more a scenario may ask for (local functions,
permission to discharge, temperature, degradation, …) in :mod:`evgrid.fleet.physics`; the pass of
:mod:`evgrid.fleet.full` runs instead where it does; the links to the EVSEs in :mod:`evgrid.fleet.link`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.fixed_point import FixedPoint, coupling_variables
from evgrid.core.jit import in_threads
from evgrid.core.model import Array, Connections, EVs, Model, Portfolio, Recorder, Values
from evgrid.fleet import degradation, full, physics
from evgrid.fleet.commands import Commands
from evgrid.fleet.envelope import limits_ahead
from evgrid.fleet.extras import AGEING_PERIOD_S, Extras, extras_of, in_force
from evgrid.fleet.flexibility import EnvelopeAhead, Reserve
from evgrid.fleet.grouping import slots_of
from evgrid.fleet.iteration import TickIteration
from evgrid.fleet.kernels import close_session, reprice, status, step
from evgrid.fleet.lanes import STATE, WIDE, columns_of, lay_out
from evgrid.fleet.rates import Rates
from evgrid.fleet.recording import FleetRecording, SessionResults
from evgrid.fleet.sessions import Sessions
from evgrid.fleet.telemetry import OwnPower, Telemetry
from evgrid.inverter_functions.kernels import prepare
from evgrid.scenario import Scenario


class FleetModel(Model):
    """All EVs of all members.

    The arrays that ``step`` returns are its own and valid until the next step. A step at whose end
    no charger reports returns the powers only.

    Parameters
    ----------
    scenario, connections, evs, sessions
        Static facts; ``evs`` and ``sessions`` from :func:`evgrid.fleet.sessions.fleet_tables`.
    recorder
        Takes the result variables.
    managed
        Whether an aggregator sends set-points: an EV waits for its first one (its departure guard
        doesn't). Otherwise every EV charges as fast as it can.
    trafos
        Number of transformers of the feeder; at least those that ``connections`` name.
    portfolios
        Each aggregator's EVs, where one has not all; EVs that no other federate manages charge as fast as
        they can.
    taken
        Ports of the fleet that others take; of those that are an aggregator's own, it gives no others.

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
    ) -> None:
        self.period_s = scenario.time.step
        sessions = in_force(scenario, connections, evs, sessions)
        self._scenario, self._evs, self._sessions = scenario, evs, sessions
        self._recorder, self._managed = recorder, managed
        members, count = len(scenario.members), len(evs)
        shape = (members, len(connections), len(connections.phases))

        self._kinds, self._kind_of = sessions.kinds()
        slot, wide = slots_of(connections, evs)
        member_start = np.searchsorted(evs.member, np.arange(members + 1))
        self._places, self._state = lay_out(member_start, slot, wide, int(np.prod(shape)))
        self._columns = columns_of(STATE, self._state)
        self._gone = np.zeros((0, 2), np.int64)
        self._extras = extras = extras_of(scenario, connections, evs, sessions, self._kinds, self._state)
        if extras is not None:
            self._columns += columns_of(physics.PHYSICS, extras.physics)
        self._soc_arrival = sessions.soc_arrival.astype(np.float64)  # a copy, which the kernel updates
        self._by_arrival = np.argsort(sessions.arrival_s, kind="stable").astype(np.int32)
        self._cursor = 0
        self._end_s = 0.0
        self._start_h = _hour_of_day(scenario.start)

        parts = [] if any(portfolio.whole for portfolio in portfolios) else list(portfolios)
        controlled = [p for p in parts if scenario.aggregators[p.name].strategy != "uncontrolled"]
        self._commands = Commands(scenario, evs, sessions, managed, controlled)
        self._telemetry = Telemetry(scenario, count, controlled) if managed else None
        self._own_power = OwnPower(controlled, taken, slot, wide, shape)
        self._energy_rates = Rates(scenario, extras.emissions if extras is not None else None)
        self._rates = np.zeros(3)
        self._reserve = self._ahead = None
        if scenario.fleet is not None and extras is not None:
            horizon_s, envelope = scenario.fleet.reserve_horizon, scenario.fleet.envelope
            if horizon_s is not None:
                self._reserve = Reserve(scenario, horizon_s, connections, evs, trafos)
            if envelope is not None:
                reported = managed and scenario.uses_envelope
                self._ahead = EnvelopeAhead(scenario, envelope, connections, evs, trafos, reported)
        self._recording = FleetRecording(scenario, connections, evs, recorder, parts)
        self._results = SessionResults(scenario, evs, sessions, self._kinds, self._kind_of, extras)

        self._p, self._q = np.zeros(shape), np.zeros(shape)
        self._plugged = np.zeros(members)
        per_ev = count if self._recording.by_ev or self._reserve is not None else 0
        self._ev_power, self._ev_soc = np.zeros(per_ev), np.zeros(per_ev)
        # Room for the kernels to work in: a report holds until the next step, and is recomputed when due.
        report = self._telemetry.report if self._telemetry is not None else {}
        self._mean_kw = report["time_needed"] if managed else np.zeros(count)
        if extras is not None:
            self._mean_kvar = report["energy_needed"] if managed else np.zeros(count)
            self._no_grid = np.zeros(0)
            self._hertz = np.full(members, extras.nominal_hz)
        self._iteration = self._make_iteration(shape)
        self._declare()

    def _declare(self) -> None:
        """Declare the ports and the result variables."""
        extras = self._extras
        self.inputs = self._commands.inputs
        self.outputs = ("fleet/p", "fleet/q")
        self.variables = self._recording.variables + self._results.variables
        if self._telemetry is not None:
            self.outputs += self._telemetry.outputs
        self.outputs += self._own_power.outputs
        if extras is not None and extras.with_functions:
            self.inputs += ("feeder/voltage",)
            if extras.frequency:
                self.inputs += ("system/frequency",)
        if self._reserve is not None:
            self.variables += self._reserve.variables
        if self._ahead is not None:
            self.variables += self._ahead.variables
            self.outputs += self._ahead.outputs
        if self._iteration is not None:
            self.iterates = True
            self.variables += coupling_variables()

    def _make_iteration(self, shape: tuple[int, int, int]) -> TickIteration | None:
        """The iteration with the feeder, where EVSEs have local functions and the scenario asks for it."""
        extras, coupling = self._extras, self._scenario.coupling
        if extras is None or not extras.with_functions or coupling.mode != "iterated":
            return None
        changed = (
            self._state, self._places.filled, self._places.plugged, self._rates, extras.physics,
            extras.functions, extras.ageing, extras.more,
        )  # fmt: skip
        fixed_point = FixedPoint(
            self._rating_kva(extras), self._scenario.members, coupling.tolerance, coupling.most_iterations
        )
        return TickIteration(fixed_point, changed, shape)

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`.

        Raises
        ------
        StrategyError
            If a set-point is NaN.

        """
        self._record_last()
        setpoint = self._commands.at(round(time_s / self.period_s), time_s, inputs)
        iteration = self._iteration
        if iteration is None:
            outputs = self._advance(time_s, setpoint, inputs)
            self._record(time_s)
            return outputs
        iteration.setpoint = setpoint.copy()
        iteration.save(self._gone, self._cursor)
        outputs = self._advance(time_s, iteration.setpoint, inputs)
        iteration.begin(time_s, inputs["feeder/voltage"], self._p, self._q)
        return outputs

    def again(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`: the tick at voltages nearer to its own."""
        iteration = self._iteration
        assert iteration is not None
        seen = iteration.seen(inputs["feeder/voltage"])
        if seen is None:
            return {}
        self._gone, self._cursor = iteration.restore()
        outputs = dict(self._advance(time_s, iteration.setpoint, {**inputs, "feeder/voltage": seen}))
        fixed = iteration.fixed_point
        outputs["fleet/p"], outputs["fleet/q"] = fixed.damped(self._p, self._q)
        return outputs if fixed.moving.any() else {}

    def _advance(self, time_s: float, setpoint: Array, inputs: Values) -> Values:
        """Step the fleet through a tick; the outputs at its end."""
        sessions = self._sessions
        plain: tuple[Any, ...] = (
            self._managed, setpoint,
            self._kinds, sessions.ev, sessions.arrival_s, sessions.departure_s, self._soc_arrival,
            sessions.drive_kwh, self._kind_of, self._by_arrival, self._cursor,
            self._places, self._state, self._columns,
            self._p.reshape(-1), self._plugged, self._results.outcome, self._ev_power, self._ev_soc,
            self._mean_kw,
        )  # fmt: skip
        rates = self._energy_rates.at(round(time_s / self.period_s), time_s)
        if np.any(rates != self._rates):
            reprice(self._places, self._state, self._rates, rates)
            if self._extras is not None:
                physics.rate_emissions(self._places, self._state, self._extras.physics, self._rates, rates)
        tick_and_rates = (time_s, self.period_s, self._rates)
        if self._extras is None:
            arguments: tuple[Any, ...] = (*tick_and_rates, *plain, self._gone)
            self._cursor, self._gone = step(*arguments)
        else:
            self._step_with_extras(self._extras, tick_and_rates, plain, inputs)
        self._end_s = time_s + self.period_s
        self._update_reserve()
        outputs: dict[str, Array] = {"fleet/p": self._p, "fleet/q": self._q}
        outputs |= self._own_power.values(self._ev_power)
        return outputs | self._report() | self._update_envelope()

    def _report(self) -> dict[str, Array]:
        """The chargers' report where it is due, by port."""
        telemetry, extras = self._telemetry, self._extras
        if telemetry is None or not telemetry.due(self._end_s):
            return {}
        report = telemetry.report
        status(
            self._end_s, self._kinds, self._places, self._state,
            *report.values(),
        )  # fmt: skip
        if extras is not None and extras.counts:
            physics.withhold(
                extras.options, self._kinds, self._places, self._state, extras.physics,
                self._willing(self._end_s), report["p_min"],
            )  # fmt: skip
        return telemetry.values()

    def _step_with_extras(
        self,
        extras: Extras,
        tick_and_rates: tuple[float, float, Array],
        plain: tuple[Any, ...],
        inputs: Values,
    ) -> None:
        """The full pass over the tick."""
        time_s = tick_and_rates[0]
        voltage = self._no_grid
        hertz = self._hertz
        if extras.with_functions:
            voltage = np.ascontiguousarray(inputs["feeder/voltage"], np.float64).reshape(-1)
            if extras.frequency:
                hertz = np.ascontiguousarray(inputs["system/frequency"], np.float64)
            prepare(extras.parameters, self.period_s)
        idle_c = extras.idle_c(time_s)
        arguments: tuple[Any, ...] = (
            *tick_and_rates, *plain,
            extras.options, extras.physics, extras.parameters, extras.parameters_of, extras.functions,
            voltage, hertz, self._q.reshape(-1), self._mean_kvar, self._willing(time_s), idle_c,
            extras.ageing, degradation.LAWS, extras.more, self._gone,
        )  # fmt: skip
        self._cursor, self._gone = full.step(*arguments)
        end_s = time_s + self.period_s
        if len(extras.ageing) and int(end_s // AGEING_PERIOD_S) > int(time_s // AGEING_PERIOD_S):
            in_threads(
                lambda low, high: physics.age(
                    low, high, self._places, self._state, extras.physics, self._kinds, extras.ageing,
                    degradation.LAWS, end_s, idle_c,
                ),
                len(self._places.filled), 16,
            )  # fmt: skip

    def _willing(self, time_s: float) -> bool:
        """Whether drivers let discharge at a time."""
        assert self._extras is not None
        return self._extras.willing((self._start_h + time_s / 3600.0) % 24.0)

    def _update_reserve(self) -> None:
        """Find what the EVs can offer from now on, every telemetry period."""
        extras, reserve = self._extras, self._reserve
        if extras is None or reserve is None or not reserve.due(self._end_s):
            return
        physics.flexibility(
            self._end_s, reserve.horizon_s, extras.options, self._kinds, self._places, self._state,
            extras.physics, self._willing(self._end_s), self._ev_power, *reserve.of_ev,
        )  # fmt: skip
        reserve.sum_up()

    def _update_envelope(self) -> dict[str, Array]:
        """Find what the EVs may do over the horizon, where it is due; what goes to the aggregator."""
        ahead = self._ahead
        if ahead is None or not ahead.due(self._end_s):
            return {}
        ahead.keep(self._end_s, self._limits_ahead(ahead, ahead.row_of, ahead.rows)[:-1])
        if not ahead.reported:
            return {}
        return {f"fleet/envelope_{name}": values for name, values in self.envelope().items()}

    def _limits_ahead(self, ahead: EnvelopeAhead, row_of: NDArray[np.int64], rows: int) -> tuple[Array, ...]:
        """Least and most power and energy, (row, slot) each, and the round trip, (ev,), from now on."""
        extras = self._extras
        assert extras is not None
        slot_s = ahead.settings.slot
        begins_h = ahead.begins_h(self._start_h + self._end_s / 3600.0)
        willing = extras.willing_share(begins_h, slot_s / 3600.0)
        limits = ahead.room(rows, len(self._evs))
        limits_ahead(
            self._end_s, slot_s, willing, extras.options, self._kinds, self._places, self._state,
            extras.physics, row_of, *limits,
        )  # fmt: skip
        return limits

    def envelope(self) -> dict[str, Array]:
        """Limits of each EV from now on, (ev, slot): p_min, p_max (kW), e_min, e_max (kWh at the meter),
        and round_trip, (ev,): see :mod:`evgrid.fleet.envelope`.
        """
        assert self._ahead is not None
        count = len(self._evs)
        return self._ahead.named(self._limits_ahead(self._ahead, np.arange(count), count))

    def flexibility(self) -> dict[str, Array]:
        """Reserve that each EV can offer, as of the last telemetry, (ev,): see :func:`.physics.flexibility`.

        p_min, p_max (kW), e_min, e_max (kWh in the battery, at the end of the horizon), up, down (kW).
        """
        assert self._reserve is not None
        return self._reserve.offer()

    def finish(self) -> None:
        """Record the results of all sessions."""
        self._record_last()
        self._recording.finish()
        if self._iteration is not None:
            self._iteration.fixed_point.finish(self._recorder)
        self._close_sessions()
        self._results.record(self._recorder, self._end_s, self._soc_arrival, self._energy_rates.priced)
        if self._ahead is not None:
            self._ahead.record(self._recorder)

    def _close_sessions(self) -> None:
        """End the sessions that the end of the run cuts off."""
        extras, outcome = self._extras, self._results.outcome
        rows = self._places.by_ev(STATE, self._state, self._state)
        own = self._places.by_ev(physics.PHYSICS, extras.physics, self._state) if extras is not None else rows
        for ev in self._places.plugged_in(self._state):
            if extras is None:
                close_session(rows[ev], self._rates, outcome)
            else:
                physics.leave(
                    rows[ev], extras.options, self._kinds[rows[ev]["kind"]], own[ev], extras.functions,
                    extras.ageing, degradation.LAWS, ev, self._end_s, extras.idle_c(self._end_s), self._rates,
                    outcome, extras.more,
                )  # fmt: skip

    def audit(self) -> dict[str, Array]:
        """See :class:`evgrid.core.model.Model`; complete after ``finish``.

        grid_energy_kwh : from the power of all EVs, upstream or not, each tick's times its length
        battery_energy_kwh : from the change in state of charge of every session
        loss_kwh : integral of the loss formula
        power_given_kw_sum : power given to the feeder, summed over the ticks at which it steps
        """
        gain, loss = self._results.energy(self._soc_arrival, len(self._plugged))
        return {
            "grid_energy_kwh": self._recording.grid_energy_kws / 3600.0,
            "battery_energy_kwh": gain,
            "loss_kwh": loss,
            "power_given_kw_sum": self._recording.power_given_kw.copy(),
        }

    @property
    def unconverged(self) -> dict[int, str]:
        """Members whose iteration with the feeder did not converge, by number."""
        return self._iteration.fixed_point.unconverged if self._iteration is not None else {}

    def _rating_kva(self, extras: Extras) -> Array:
        """Rated apparent power of the EVSEs at each connection and phase, (member, connection, phase)."""
        of_kind = extras.parameters["s_kva"][extras.parameters_of]
        of_ev = np.zeros(len(self._evs))
        np.maximum.at(of_ev, self._sessions.ev, of_kind[self._kind_of])
        rows = self._places.by_ev(STATE, self._state, self._state)
        slot, wide = rows["slot"], rows["spread"] == WIDE
        rating = np.zeros(self._p.size)
        for phase in range(3):
            there = wide | (phase == 0)
            np.add.at(rating, slot[there] + phase, (of_ev / np.where(wide, 3.0, 1.0))[there])
        return rating.reshape(self._p.shape)

    def _record_last(self) -> None:
        """Record the last tick, if that was put off until it is certain that it is not stepped again."""
        iteration = self._iteration
        if iteration is None or iteration.open_s is None:
            return
        time_s, iteration.open_s = iteration.open_s, None
        self._record(time_s)
        iteration.fixed_point.close(self._scenario.clock.stamp(time_s).replace("T", " "))
        iteration.fixed_point.record(self._recorder, round(time_s / self.period_s))

    def _record(self, time_s: float) -> None:
        """Record a tick that began at a time."""
        self._recording.record(time_s, self._p, self._q, self._plugged, self._ev_power, self._ev_soc)
        if self._reserve is not None:
            self._reserve.record(self._recorder, round(time_s / self.period_s))


def _hour_of_day(start: np.datetime64) -> float:
    """Local hour of a timestamp, 0 to 24."""
    return float((start - start.astype("datetime64[D]")) / np.timedelta64(1, "h"))
