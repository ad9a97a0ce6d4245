"""The fleet: all EVs of all members as one model behind a federate.

In: set-points (if an aggregator manages the fleet); voltages and where there are any (if the EVSEs have
local functions), of the last tick, or of this one (``coupling: iterated``, :mod:`evgrid.core.fixed_point`).
Out: the mean active and reactive power of the EVs at each connection and phase over the tick, and, every
telemetry period, what the chargers report at the end of the tick.

How an EV charges is in :mod:`evgrid.fleet.kernels`: the basic step, or the detailed one where a scenario asks
for more (local functions, permission to discharge, temperature, degradation, …); the links to the EVSEs are
in :mod:`evgrid.fleet.link`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import grid_energy_to_target_kwh
from evgrid.core.fixed_point import FixedPoint, coupling_variables
from evgrid.core.jit import in_threads
from evgrid.core.model import Array, Connections, EVs, Model, Outages, Portfolio, Recorder, Values
from evgrid.fleet.at_sites import AVAILABLE_PORT, SEGMENTS_PORT, SOC_PORT, AtSites
from evgrid.fleet.commands import Commands, rated_kw
from evgrid.fleet.extras import AGEING_PERIOD_S, Extras, extras_of, in_force
from evgrid.fleet.flexibility import EnvelopeAhead, Reserve
from evgrid.fleet.grouping import slots_of
from evgrid.fleet.iteration import TickIteration
from evgrid.fleet.kernels.envelope import Limits, limits_ahead
from evgrid.fleet.kernels.lanes import STATE, WIDE, columns_of, lay_out
from evgrid.fleet.kernels.one_ev import age, end_sessions, rate_emissions
from evgrid.fleet.kernels.records import NO_SEGMENTS, PHYSICS, Fleet, Results, SessionTable, Tick
from evgrid.fleet.kernels.reports import flexibility, status, withhold
from evgrid.fleet.kernels.sessions import close_sessions, reprice
from evgrid.fleet.kernels.step import step
from evgrid.fleet.outages import DeadGridEnergy, EvOutages
from evgrid.fleet.rates import Rates
from evgrid.fleet.recording import FleetRecording, SessionResults
from evgrid.fleet.sessions import Sessions
from evgrid.fleet.telemetry import OwnPower, Telemetry
from evgrid.inverter_functions.kernels import IN_SERVICE, prepare
from evgrid.readers.signals import Signals
from evgrid.scenario import Scenario
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, parameters


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
    at_sites
        Rows of the EVs whose set-points within a tick are a site's; None: there are no sites.
    outages
        When connection points are without supply; left out: never.
    live
        Signals that come during the run; left out: none.

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
    ) -> None:
        self.period_s = scenario.time.step
        sessions = in_force(scenario, connections, evs, sessions)
        self._scenario, self._evs, self._sessions = scenario, evs, sessions
        self._recorder, self._managed = recorder, managed
        members, count = len(scenario.members), len(evs)
        shape = (members, len(connections), len(connections.phases))

        kinds, kind_of = sessions.kinds()
        slot, wide = slots_of(connections, evs)
        member_start = np.searchsorted(evs.member, np.arange(members + 1))
        places, state = lay_out(member_start, slot, wide, int(np.prod(shape)), self.period_s)
        columns = columns_of(STATE, state)
        self._gone = np.zeros((0, 2), np.int64)
        self._extras = extras = extras_of(scenario, connections, evs, sessions, kinds, state, live)
        if extras is not None:
            columns += columns_of(PHYSICS, extras.details.physics)
        self._fleet = Fleet(places, state, columns, kinds)
        self._cursor = 0
        self._end_s = 0.0
        self._start_h = _hour_of_day(scenario.start)

        parts = [] if any(portfolio.whole for portfolio in portfolios) else list(portfolios)
        controlled = [p for p in parts if scenario.aggregators[p.name].strategy_class.controls]
        self._at_sites = AtSites(at_sites, count) if at_sites is not None else None
        of_all: EvOutages | None = None
        if outages is not None and extras is not None:
            by_others = extras.capable.copy()
            if at_sites is not None:
                by_others[at_sites] = True
            of_all = EvOutages(scenario, outages, evs, by_others, rated_kw(sessions, count))
        if outages is not None and self._at_sites is not None:
            outages = self._at_sites.outages_elsewhere(outages, evs, members)
        self._outages: EvOutages | None = None
        self._dead_grid: DeadGridEnergy | None = None
        if outages is not None and extras is not None:
            self._outages = EvOutages(scenario, outages, evs, extras.capable, rated_kw(sessions, count))
            most_kw = np.zeros(count)
            np.maximum.at(most_kw, sessions.ev, np.maximum(sessions.charge_kw, sessions.discharge_kw))
            most_kw += float(extras.details.options["standby_kw"])
            self._dead_grid = DeadGridEnergy(outages, evs, members, most_kw)
        self._commands = Commands(scenario, evs, sessions, managed, controlled)
        self._telemetry = Telemetry(scenario, count, controlled) if managed else None
        self._own_power = OwnPower(controlled, taken, slot, wide, shape)
        self._energy_rates = Rates(scenario, extras.emissions if extras is not None else None, live)
        self._rates = np.zeros(3)
        self._reserve = self._ahead = None
        if scenario.fleet is not None and extras is not None:
            horizon_s, envelope = scenario.fleet.reserve_horizon, scenario.fleet.envelope
            if horizon_s is not None:
                self._reserve = Reserve(scenario, horizon_s, connections, evs, trafos)
            if envelope is not None:
                reported = managed and scenario.uses_envelope
                self._ahead = EnvelopeAhead(scenario, envelope, connections, evs, trafos, reported)
        self._recording = FleetRecording(scenario, connections, evs, recorder, parts, sessions)
        self._results = SessionResults(
            scenario, evs, sessions, kinds, kind_of, extras, len(connections), of_all
        )
        self._table = SessionTable(
            sessions.ev, sessions.arrival_s, sessions.departure_s,
            sessions.soc_arrival.astype(np.float64),  # a copy, which the kernel updates
            sessions.drive_kwh, kind_of, np.argsort(sessions.arrival_s, kind="stable").astype(np.int32),
            self._results.outcome, extras.outcome if extras is not None else np.zeros((0, 0)),
        )  # fmt: skip

        self._p, self._q = np.zeros(shape), np.zeros(shape)
        per_ev = count if self._recording.by_ev or self._reserve is not None else 0
        report = self._telemetry.report if self._telemetry is not None else None
        # Room for the kernels to work in: a report holds until the next step, and is recomputed when due.
        mean_kw = report.time_needed if report is not None else np.zeros(count)
        mean_kvar = np.zeros(0)
        if extras is not None:
            mean_kvar = report.energy_needed if report is not None else np.zeros(count)
        self._out = Results(
            self._p.reshape(-1), self._q.reshape(-1), np.zeros(members), np.zeros(per_ev), np.zeros(per_ev),
            mean_kw, mean_kvar, np.zeros(0 if at_sites is None else count),
        )  # fmt: skip
        self._islanded_kw = self._out.islanded_kw
        self._available = np.ones(0 if at_sites is None else len(at_sites))
        """Share of its power that each EV at a site may use, (EV at a site,)."""
        self._no_grid = np.zeros(0)
        self._hertz = np.full(members, extras.nominal_hz if extras is not None else np.nan)
        self._own_functions: NDArray[np.int64] | None = None
        self._first_own = 0
        self._reset_functions = np.zeros(count, np.bool_)
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
        if self._at_sites is not None:
            self.inputs += (SEGMENTS_PORT, AVAILABLE_PORT)
            self.outputs += (SOC_PORT,)
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
            self._fleet.state, self._fleet.places.filled, self._fleet.places.plugged, self._rates,
            extras.details.physics, extras.details.functions, extras.details.ageing, extras.outcome,
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
        self._apply_own_functions()
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
        fleet, extras = self._fleet, self._extras
        rates = self._energy_rates.at(round(time_s / self.period_s), time_s)
        if np.any(rates != self._rates):
            reprice(fleet.places, fleet.state, self._rates, rates)
            if extras is not None:
                rate_emissions(fleet.places, fleet.state, extras.details.physics, self._rates, rates)
        segments = NO_SEGMENTS
        if self._outages is not None:
            segments = self._outages.segments(time_s, self.period_s, setpoint if self._managed else None)
        if self._at_sites is not None:
            segments = self._at_sites.with_segments(inputs[SEGMENTS_PORT], segments)
            self._available[:], self._islanded_kw[:] = inputs[AVAILABLE_PORT], 0.0
        tick = Tick(
            float(time_s), float(self.period_s), self._managed, setpoint, self._rates, self._no_grid,
            self._hertz, True, 25.0, segments,
        )  # fmt: skip
        details = None
        if extras is not None:
            tick, details = self._detailed_tick(extras, tick, inputs), extras.details
        self._cursor, self._gone = step(
            tick, self._table, fleet, details, self._out, self._cursor, self._gone
        )
        self._end_s = time_s + self.period_s
        if extras is not None:
            self._bring_up_ageing(extras, tick)
        self._update_reserve()
        outputs: dict[str, Array] = {"fleet/p": self._p, "fleet/q": self._q}
        outputs |= self._own_power.values(self._grid_power_kw)
        if self._at_sites is not None:
            outputs[SOC_PORT] = self._at_sites.soc(self._fleet)
        return outputs | self._report() | self._update_envelope()

    @property
    def _grid_power_kw(self) -> Array:
        """Mean power on the grid of each EV over the last tick, (ev,), or (0,) where it is not asked for."""
        of_ev = self._out.ev_power_kw
        return of_ev - self._islanded_kw if len(of_ev) and len(self._islanded_kw) else of_ev

    def _limited(self) -> tuple[NDArray[np.int64], Array]:
        """EVs that at the tick's end are without supply, in an island, or not fully back in service after an
        outage, and the most power that each may draw from the grid, kW; they can give none.
        """
        none = (np.zeros(0, np.int64), np.zeros(0))
        at_sites = none if self._at_sites is None else self._at_sites.limited(self._available, self._fleet)
        if self._outages is None:
            return at_sites
        found = [at_sites, self._outages.limited(self._end_s)]
        extras = self._extras
        if extras is not None and extras.with_functions:
            entering = np.flatnonzero(extras.capable & (extras.details.functions["mode"] != IN_SERVICE))
            found.append((entering, np.zeros(len(entering))))
        rows, most_kw = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return rows, most_kw

    def _report(self) -> dict[str, Array]:
        """The chargers' report where it is due, by port."""
        telemetry, extras = self._telemetry, self._extras
        if telemetry is None or not telemetry.due(self._end_s):
            return {}
        status(self._end_s, self._fleet, telemetry.report)
        if extras is not None and extras.counts:
            withhold(self._fleet, extras.details, self._willing(self._end_s), telemetry.report.p_min)
        limited, most_kw = self._limited()
        report = telemetry.report
        report.p_min[limited] = 0.0
        np.minimum.at(report.p_max, limited, most_kw)
        return telemetry.values()

    def _detailed_tick(self, extras: Extras, tick: Tick, inputs: Values) -> Tick:
        """The tick with what the EVSEs see of the grid, the drivers' will and the temperature."""
        voltage, hertz = tick.voltage_pu, tick.frequency_hz
        if extras.with_functions:
            voltage = self._voltage_seen(tick, inputs["feeder/voltage"]).reshape(-1)
            if extras.frequency:
                hertz = np.ascontiguousarray(inputs["system/frequency"], np.float64)
            prepare(extras.details.parameters, self.period_s)
        return tick._replace(
            voltage_pu=voltage, frequency_hz=hertz, willing=self._willing(tick.begin_s),
            idle_c=extras.idle_c(tick.begin_s),
        )  # fmt: skip

    def _voltage_seen(self, tick: Tick, voltage: Array) -> Array:
        """The voltage that EVSEs see; nominal, as at a run's start, until there is one after an outage."""
        seen = np.ascontiguousarray(voltage, np.float64)
        if self._outages is None:
            return seen
        back = self._outages.returned(tick.begin_s, tick.step_s, 2.0 * self._scenario.feeder_step_s)
        if not len(back):
            return seen
        at = self._evs.member[back], self._evs.connection[back]
        seen = seen.copy()
        of_those = seen[at]
        dead = ~(of_those > 0.0).any(axis=1)
        of_those[dead] = 1.0
        seen[at] = of_those
        return seen

    def _bring_up_ageing(self, extras: Extras, tick: Tick) -> None:
        """Bring the ageing of all EVs up to the tick's end, where that is due."""
        details, end_s = extras.details, self._end_s
        if len(details.ageing) and int(end_s // AGEING_PERIOD_S) > int(tick.begin_s // AGEING_PERIOD_S):
            in_threads(
                lambda low, high: age(low, high, self._fleet, details, end_s, tick.idle_c),
                len(self._fleet.places.filled), 16,
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
        flexibility(
            self._end_s, reserve.horizon_s, self._fleet, extras.details, self._willing(self._end_s),
            self._out.ev_power_kw, reserve.of_ev,
        )  # fmt: skip
        limited, _ = self._limited()
        offer = reserve.of_ev
        for values in (offer.p_min, offer.p_max, offer.up, offer.down):
            values[limited] = 0.0
        reserve.sum_up()

    def _update_envelope(self) -> dict[str, Array]:
        """Find what the EVs may do over the horizon, where it is due; what goes to the aggregator."""
        ahead = self._ahead
        if ahead is None or not ahead.due(self._end_s):
            return {}
        ahead.keep(self._end_s, self._limits_ahead(ahead, ahead.row_of, ahead.rows))
        if not ahead.reported:
            return {}
        return {f"fleet/envelope_{name}": values for name, values in self.envelope().items()}

    def _limits_ahead(self, ahead: EnvelopeAhead, row_of: NDArray[np.int64], rows: int) -> Limits:
        """Least and most power and energy, (row, slot) each, and the round trip, (ev,), from now on."""
        extras = self._extras
        assert extras is not None
        slot_s = ahead.settings.slot
        begins_h = ahead.begins_h(self._start_h + self._end_s / 3600.0)
        willing = extras.willing_share(begins_h, slot_s / 3600.0)
        limits = ahead.room(rows, len(self._evs))
        limited, _ = self._limited()
        if len(limited):
            row_of = row_of.copy()
            row_of[limited] = -1
        limits_ahead(self._end_s, slot_s, willing, self._fleet, extras.details, row_of, limits)
        return limits

    def envelope(self) -> dict[str, Array]:
        """Limits of each EV from now on, (ev, slot): p_min, p_max (kW), e_min, e_max (kWh at the meter),
        and round_trip, (ev,): see :mod:`evgrid.fleet.kernels.envelope`.
        """
        assert self._ahead is not None
        count = len(self._evs)
        return self._limits_ahead(self._ahead, np.arange(count), count)._asdict()

    def flexibility(self) -> dict[str, Array]:
        """Reserve that each EV can offer, as of the last telemetry, (ev,): see :func:`.reports.flexibility`.

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
        self._results.record(self._recorder, self._end_s, self._table.soc_arrival, self._energy_rates.priced)
        if self._ahead is not None:
            self._ahead.record(self._recorder)

    def _close_sessions(self) -> None:
        """End the sessions that the end of the run cuts off."""
        extras = self._extras
        if extras is None:
            close_sessions(self._fleet, self._table, self._rates)
        else:
            idle_c = extras.idle_c(self._end_s)
            end_sessions(self._fleet, extras.details, self._table, self._rates, float(self._end_s), idle_c)

    @property
    def evs(self) -> EVs:
        """All EVs."""
        return self._evs

    @property
    def sessions(self) -> Sessions:
        """The sessions in force."""
        return self._sessions

    def functions_of(self, row: int) -> tuple[LocalFunctions, float] | None:
        """The scenario's local functions of an EV's EVSE and its rated apparent power, kVA; None: without."""
        extras, fleet = self._extras, self._scenario.fleet
        if extras is None or fleet is None or fleet.charger.functions is None or not extras.capable[row]:
            return None
        return fleet.charger.functions, self._rating_of(row).s_kva

    def _rating_of(self, row: int) -> Rating:
        """Rating of an EV's EVSE, by the most that it draws and gives in any session."""
        sessions, of_ev = self._sessions, self._sessions.ev == row
        assert self._scenario.fleet is not None
        charger = self._scenario.fleet.charger
        share = (charger.apparent_kva or charger.power_kw) / charger.power_kw
        draw, give = (
            float(column[of_ev].max(initial=0.0)) for column in (sessions.charge_kw, sessions.discharge_kw)
        )
        return Rating(max(draw, give) * share, draw, give)

    def set_functions(self, row: int, functions: LocalFunctions | None) -> None:
        """Give the EVSE of an EV local functions of its own from the next tick on; None: the scenario's.

        A session that begins within a tick begins with the scenario's. The fleet has local functions.
        """
        extras = self._extras
        assert extras is not None
        assert extras.with_functions
        details, physics = extras.details, extras.details.physics
        if self._own_functions is None:
            count, last = len(self._evs), len(details.parameters) - 1
            table = np.concatenate(
                [
                    details.parameters[:last],
                    np.repeat(details.parameters[last:], count),
                    details.parameters[last:],
                ]
            )
            physics["parameters"][physics["parameters"] == last] = last + count
            extras.details = details._replace(parameters=table)
            self._own_functions = np.full(count, -1)
            self._first_own = last
        if functions is None:
            self._own_functions[row] = -1
        else:
            self._own_functions[row] = at = self._first_own + row
            extras.details.parameters[at : at + 1] = parameters(functions, self._rating_of(row))
        self._reset_functions[row] = functions is None

    def _apply_own_functions(self) -> None:
        """Have EVSEs follow the functions that :meth:`set_functions` gave them."""
        extras = self._extras
        if self._own_functions is None or extras is None:
            return
        state, physics = self._fleet.state, extras.details.physics
        own = self._own_functions[state["ev"]]
        physics["parameters"][own >= 0] = own[own >= 0]
        back = self._reset_functions[state["ev"]] & (physics["capable"] == 1)
        if back.any():
            physics["parameters"][back] = extras.details.parameters_of[state["kind"]][back]
            self._reset_functions[:] = False

    def meters(self) -> tuple[Array, Array]:
        """Energy that each EV has drawn and given since the run's start, (ev,) kWh at the meter each."""
        sessions, outcome = self._sessions, self._table.outcome
        rows = self._fleet.places.by_ev(STATE, self._fleet.state, self._fleet.state)
        own = rows["session"].astype(np.int64)
        open_ones = np.flatnonzero(own >= 0)
        open_ones = open_ones[np.isnan(outcome[own[open_ones], 1])]
        found = []
        for column, name in ((1, "drawn_kws"), (2, "given_kws")):
            energy = np.nan_to_num(outcome[:, column])
            closed = np.bincount(sessions.ev, energy, len(self._evs)).astype(np.float64)
            closed[open_ones] += rows[name][open_ones] / 3600.0
            found.append(closed)
        return found[0], found[1]

    def session_end(self, row: int) -> tuple[float, float, float, float] | None:
        """Energy drawn and given in a session, kWh at the meter, state of charge at its end, and the energy
        still wanted then, kWh at the meter; None: it has not ended.
        """
        soc, drawn, given = self._table.outcome[row, :3].tolist()
        if np.isnan(drawn):
            return None
        return drawn, given, soc, float(self.missing_kwh(np.array([row]))[0])

    def session_begin(self, row: int) -> tuple[float, float]:
        """State of charge with which a session has begun, and the energy wanted then, kWh at the meter."""
        table, kinds = self._table, self._fleet.kinds
        soc = table.soc_arrival[row : row + 1]
        return float(soc[0]), float(grid_energy_to_target_kwh(kinds, table.kind[row : row + 1], soc)[0])

    def missing_kwh(self, rows: NDArray[np.int64]) -> Array:
        """Energy at the meter that sessions lack to their targets at their ends, (n,) kWh; NaN before."""
        return self._results.missing_kwh(rows)

    def audit(self) -> dict[str, Array]:
        """See :class:`evgrid.core.model.Model`; complete after ``finish``.

        grid_energy_kwh : from the power of all EVs, upstream, in islands or not, each tick's times its length
        battery_energy_kwh : from the change in state of charge of every session
        loss_kwh : integral of the loss formula
        site_ev_drawn_kwh, site_ev_given_kwh : of the sessions of EVs at sites, where there are sites
        power_given_kw_sum : power given to the feeder, summed over the ticks at which it steps
        dead_grid_kwh : energy at connection points without supply; in a run with outages
        """
        gain, loss = self._results.energy(self._table.soc_arrival, len(self._out.plugged))
        of_sites = {}
        if self._at_sites is not None:
            drawn, given = self._at_sites.energy_kwh(self._table, self._evs.member, len(gain))
            of_sites = {"site_ev_drawn_kwh": drawn, "site_ev_given_kwh": given}
        dead = {} if self._dead_grid is None else {"dead_grid_kwh": self._dead_grid.kwh}
        return {
            **of_sites,
            **dead,
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
        of_kind = extras.details.parameters["s_kva"][extras.details.parameters_of]
        of_ev = np.zeros(len(self._evs))
        np.maximum.at(of_ev, self._sessions.ev, of_kind[self._table.kind])
        rows = self._fleet.places.by_ev(STATE, self._fleet.state, self._fleet.state)
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
        if self._dead_grid is not None:
            self._dead_grid.add(time_s, self.period_s, self._p)
        islanded_kw = None
        if len(self._islanded_kw):
            islanded_kw = np.bincount(self._evs.member, self._islanded_kw, len(self._p)).astype(np.float64)
        out = self._out
        self._recording.record(
            time_s, self._p, self._q, out.plugged, out.ev_power_kw, out.ev_soc, self._grid_power_kw,
            islanded_kw,
        )  # fmt: skip
        if self._reserve is not None:
            self._reserve.record(self._recorder, round(time_s / self.period_s))


def _hour_of_day(start: np.datetime64) -> float:
    """Local hour of a timestamp, 0 to 24."""
    return float((start - start.astype("datetime64[D]")) / np.timedelta64(1, "h"))
