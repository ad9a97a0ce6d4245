"""The fleet: all EVs of all members as one model behind a federate.

In: set-points (if an aggregator manages the fleet); voltages and where there are any (if the EVSEs have
local functions), of the last tick, or of this one (``coupling: iterated``, :mod:`evgrid.coupling`). Out:
the mean active and reactive power of the EVs at each connection and phase over the tick, and, every
telemetry period, what the chargers report at the end of the tick.

How an EV charges is in :mod:`evgrid.fleet.kernels`; what more a scenario may ask for (local functions,
permission to discharge, temperature, degradation, …) in :mod:`evgrid.fleet.physics`; the pass of
:mod:`evgrid.fleet.full` runs instead where it does; the links to the EVSEs in :mod:`evgrid.fleet.link`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.compile import in_threads
from evgrid.coupling import FixedPoint, coupling_variables
from evgrid.curves.kernels import prepare
from evgrid.errors import ScenarioError, StrategyError
from evgrid.fleet import degradation, full, physics
from evgrid.fleet.battery import with_losses_by_power
from evgrid.fleet.envelope import limits_ahead
from evgrid.fleet.extras import AGEING_PERIOD_S, Extras, extras_of, on_three_phases, with_floors
from evgrid.fleet.kernels import (
    charge_as_fast_as_possible,
    close_session,
    grid_energy_to_target_kwh,
    reprice,
    status,
    step,
)
from evgrid.fleet.lanes import STATE, WIDE, columns_of, lay_out
from evgrid.fleet.link import Link
from evgrid.fleet.sessions import Sessions
from evgrid.model import ALL_PHASES, Array, Connections, EVs, Model, Recorder, Values, Variable
from evgrid.portfolios import Portfolio
from evgrid.scenario import Group, Scenario
from evgrid.tariff import USUAL_INTERVAL_S, MonthlyPeaks

_STATUS = ("plugged", "soc", "p_max", "p_min", "energy_needed", "time_left", "time_needed")
_BLOCK = 256
"""Ticks between two blocks of recorded values, and between two look-ups of prices."""

_MEMBER_VARIABLES = (
    Variable("fleet_power_kw", ("member",), "kW", "active power of all EVs"),
    Variable("fleet_reactive_kvar", ("member",), "kvar", "reactive power of all EVs"),
    Variable("plugged", ("member",), "1", "number of EVs plugged in, mean over the interval"),
)
_UPSTREAM_VARIABLE = Variable(
    "upstream_power_kw", ("member",), "kW", "active power of the EVs that are upstream of the feeder"
)
_EV_VARIABLES = (
    Variable("ev_power_kw", ("ev",), "kW", "active power of the EV"),
    Variable("ev_soc", ("ev",), "1", "state of charge at the end of the tick; NaN while away"),
)
_SESSION_VARIABLES = tuple(
    Variable(name, ("session",), unit, text, timed=False)
    for name, unit, text in (
        ("session_energy_requested_kwh", "kWh", "energy at the meter from arrival to the target"),
        ("session_energy_delivered_kwh", "kWh", "energy drawn from the grid"),
        ("session_energy_discharged_kwh", "kWh", "energy given to the grid"),
        ("session_battery_energy_kwh", "kWh", "net gain of the battery"),
        ("session_loss_kwh", "kWh", "conversion loss"),
        ("session_energy_unserved_kwh", "kWh",
         "energy at the meter still missing to the target at departure; NaN if still plugged in at the end"),
        ("session_energy_unserved_percent", "%", "energy unserved per energy requested; NaN if none was"),
        ("session_energy_unserved_avoidable_kwh", "kWh",
         "energy unserved beyond what is missing after charging as fast as possible; NaN likewise"),
        ("session_throughput_kwh", "kWh", "energy at the meter, drawn and given together"),
        ("session_soc_arrival", "1", "state of charge at arrival, or at the start of the run"),
        ("session_soc_departure", "1", "state of charge at departure, or at the end of the run"),
        ("session_cost", "currency", "cost of energy drawn less credit for energy given"),
    )
)  # fmt: skip
_RESERVES = {
    "fleet_reserve_up_kw": "power that the EVs can draw less or give, for the reserve horizon",
    "fleet_reserve_down_kw": "power that the EVs can draw more, for the reserve horizon",
}
_REFUSED_VARIABLES = tuple(
    Variable(
        f"session_discharge_refused_{reason}_kwh",
        ("session",),
        "kWh",
        f"energy asked for and not given; reason: {text}",
        timed=False,
    )
    for reason, text in zip(
        physics.REASONS,
        (
            "the vehicle can't",
            "the EVSE can't",
            "no approval to interconnect",
            "warranty: EVSE not approved, its floor, its caps",
            "the driver: unwilling, window, floor",
            "the vehicle's floor",
            "the departure guard",
            "local functions, temperature, or no voltage",
        ),
        strict=True,
    )
)
_AGEING_VARIABLES = tuple(
    Variable(name, ("session",), unit, text, timed=False)
    for name, unit, text in (
        ("session_degradation_calendar_percent", "%", "capacity lost to calendar ageing while plugged in"),
        ("session_degradation_cycle_percent", "%", "capacity lost to cycle ageing while plugged in"),
        ("session_degradation_cost", "currency", "what the capacity lost while plugged in is worth"),
    )
)
_EV_AGEING_VARIABLES = (
    Variable("ev_degradation_percent", ("ev",), "%", "capacity lost over the run", timed=False),
    Variable("ev_degradation_cost", ("ev",), "currency", "what it is worth", timed=False),
)
_EMISSIONS_VARIABLE = Variable(
    "session_emissions_kg", ("session",), "kg", "CO2 of energy drawn less that of energy given", timed=False
)
_FLEXIBILITY = ("reserve_up", "reserve_down", "e_min", "e_max")
_ENVELOPE = {
    "p_min": ("kW", "least mean power in the slot from which every departure is met"),
    "p_max": ("kW", "most mean power in the slot"),
    "e_min": ("kWh", "least energy at the meter, from the envelope's begin to the end of the slot"),
    "e_max": ("kWh", "most energy at the meter, from the envelope's begin to the end of the slot"),
}
_GROUP_DIMS = {"feeder": (), "transformer": ("trafo",), "connection": ("connection",)}


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
        self.outputs = ("fleet/p", "fleet/q")
        self._parts = [] if any(portfolio.whole for portfolio in portfolios) else list(portfolios)
        controlled = [p for p in self._parts if scenario.aggregators[p.name].strategy != "uncontrolled"]
        self._messages = {p.port("aggregator/setpoint"): p.rows for p in controlled}
        if managed:
            self.inputs = tuple(self._messages) or ("aggregator/setpoint",)
            self.outputs += tuple(f"fleet/{field}" for field in _STATUS)
        self.variables = _MEMBER_VARIABLES + _SESSION_VARIABLES
        sessions = in_force(scenario, connections, evs, sessions)
        if scenario.record.ev:
            self.variables += _EV_VARIABLES
        self._scenario, self._evs, self._sessions = scenario, evs, sessions
        self.variables += tuple(
            Variable(p.variable("fleet_power_kw"), ("member",), "kW", f"active power of the EVs of {p.name}")
            for p in self._parts
        )
        demand = scenario.tariff.demand if scenario.tariff is not None else None
        meter_s = USUAL_INTERVAL_S if demand is None else demand.interval
        self._peaks = {
            name: MonthlyPeaks(scenario.clock, meter_s, (len(scenario.members),))
            for name in ("fleet_peak_kw", *(p.variable("fleet_peak_kw") for p in self._parts))
        }
        self.variables += tuple(
            Variable(
                name,
                ("member", "month"),
                "kW",
                f"highest power of the EVs in the month, mean over {meter_s / 60:g} min",
                timed=False,
            )
            for name in self._peaks
        )
        self._recorder, self._managed = recorder, managed
        members, count, phases = len(scenario.members), len(evs), len(connections.phases)
        self._kinds, self._kind_of = sessions.kinds()
        slot, wide = _slots(connections, evs)
        member_start = np.searchsorted(evs.member, np.arange(members + 1))
        self._places, self._state = lay_out(member_start, slot, wide, members * len(connections) * phases)
        self._columns = columns_of(STATE, self._state)
        self._gone = np.zeros((0, 2), np.int64)
        self._rates = np.zeros(3)
        self._extras = extras_of(scenario, connections, evs, sessions, self._kinds, self._state)
        if self._extras is not None:
            self._columns += columns_of(physics.PHYSICS, self._extras.physics)
        self._setpoint = np.full(count, 0.0 if managed and not self._parts else np.inf)
        loss = np.full(count, scenario.communication.loss)
        for p in controlled:
            self._setpoint[p.rows], loss[p.rows] = 0.0, scenario.link_of(p.name).loss
        self._uncontrolled = np.flatnonzero(self._setpoint)
        if not self._messages:
            self._setpoint = np.zeros(0)
        links = [scenario.link_of(p.name).telemetry for p in controlled] or [scenario.communication.telemetry]
        self._telemetry_s = sorted({max(period_s, self.period_s) for period_s in links})
        per_evse = managed and scenario.communication.per_evse
        self._link = Link(scenario, evs, _rated_kw(sessions, count), loss) if per_evse else None
        self._soc_arrival = sessions.soc_arrival.astype(np.float64)  # a copy, which the kernel updates
        self._by_arrival = np.argsort(sessions.arrival_s, kind="stable").astype(np.int32)
        self._cursor = 0
        self._on_feeder, self._upstream = connections.on_feeder, connections.upstream
        self.variables += (_UPSTREAM_VARIABLE,) if connections.upstream else ()
        self._no_setpoint = np.zeros(0 if managed else count)
        self._own_p = {
            port: _OwnPower(p.rows, slot, wide, (members, len(connections), phases))
            for p in controlled
            if (port := p.port("fleet/own_p")) in taken
        }
        self.outputs += tuple(self._own_p)
        self._own_power = np.zeros((len(self._parts), _BLOCK, members))
        self._p = np.zeros((members, len(connections), phases))
        self._q = np.zeros_like(self._p)
        self._plugged = np.zeros(members)
        self._outcome = np.full((len(sessions), 5), np.nan)
        horizon = scenario.fleet.reserve_horizon if scenario.fleet is not None else None
        self._reserve_horizon_s = horizon
        per_ev = count if scenario.record.ev or horizon is not None or self._parts else 0
        self._ev_power, self._ev_soc = np.zeros(per_ev), np.zeros(per_ev)
        self._report = {field: np.zeros(count) for field in _STATUS} if managed else {}
        # Room for the kernels to work in: a report holds until the next step, and is made anew when told.
        self._mean_kw = self._report["time_needed"] if managed else np.zeros(count)
        self._recorded = np.zeros((4, _BLOCK, members))
        # Pmin, Pmax, and what the ports of _FLEXIBILITY give
        self._flexibility = np.zeros((6, count if horizon is not None else 0))
        self._start_h = _hour_of_day(scenario.start)
        self._ahead = scenario.fleet.envelope if scenario.fleet is not None else None
        self._tells_envelope = managed and scenario.uses_envelope
        self._make_room_for_groups(connections, trafos)
        self._with_extras()
        self._fixed: FixedPoint | None = None
        if self._extras is not None and self._extras.with_functions and scenario.coupling.mode == "iterated":
            self.iterates = True
            self.variables += coupling_variables()
            coupling = scenario.coupling
            self._fixed = FixedPoint(
                self._rating_kva(), scenario.members, coupling.tolerance, coupling.most_iterations
            )
            self._changed: tuple[NDArray[Any], ...] = (
                self._state, self._places.filled, self._places.plugged, self._rates, self._extras.physics,
                self._extras.functions, self._extras.ageing, self._extras.more,
            )  # fmt: skip
            self._before = tuple(array.copy() for array in self._changed)
            self._before_gone, self._before_cursor = self._gone, 0
        self._energised = np.ones(self._p.shape, bool)
        self._commanded = self._no_setpoint
        self._unrecorded: float | None = None
        self._first_recorded = self._n_recorded = 0
        self._energy_prices = scenario.prices
        self._prices = np.zeros((2, 0))
        self._prices_from = 0
        self._grid_energy_kws = np.zeros(members)
        self._power_given_kw = np.zeros(members)
        self._end_s = 0.0

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.model.Model`.

        Raises
        ------
        StrategyError
            If a set-point is NaN.

        """
        self._record_last()
        tick = round(time_s / self.period_s)
        setpoint = self._commands(tick, time_s, inputs) if self._managed else self._no_setpoint
        if self._fixed is None:
            outputs = self._advance(time_s, setpoint, inputs)
            self._record(time_s)
            return outputs
        self._commanded = setpoint.copy()
        for kept, array in zip(self._before, self._changed, strict=True):
            kept[...] = array
        self._before_gone, self._before_cursor = self._gone, self._cursor
        outputs = self._advance(time_s, self._commanded, inputs)
        self._energised[:] = inputs["feeder/voltage"] > 0.0
        self._fixed.begin(inputs["feeder/voltage"], self._p, self._q)
        self._unrecorded = time_s
        return outputs

    def again(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.model.Model`: the tick at voltages nearer to its own."""
        fixed = self._fixed
        assert fixed is not None
        if fixed.found(inputs["feeder/voltage"]):
            return {}
        self._energised[fixed.moving] = inputs["feeder/voltage"][fixed.moving] > 0.0
        for kept, array in zip(self._before, self._changed, strict=True):
            array[...] = kept
        self._gone, self._cursor = self._before_gone, self._before_cursor
        grid = {"feeder/voltage": np.where(self._energised, fixed.seen, 0.0)}
        outputs = dict(self._advance(time_s, self._commanded, {**inputs, **grid}))
        outputs["fleet/p"], outputs["fleet/q"] = fixed.damped(self._p, self._q)
        return outputs if fixed.moving.any() else {}

    def _advance(self, time_s: float, setpoint: Array, inputs: Values) -> Values:
        """Take the fleet through a tick; what it gives."""
        import_price, export_price = self._prices_at(round(time_s / self.period_s))
        sessions = self._sessions
        plain: tuple[Any, ...] = (
            self._managed, setpoint,
            self._kinds, sessions.ev, sessions.arrival_s, sessions.departure_s, self._soc_arrival,
            sessions.drive_kwh, self._kind_of, self._by_arrival, self._cursor,
            self._places, self._state, self._columns,
            self._p.reshape(-1), self._plugged, self._outcome, self._ev_power, self._ev_soc,
            self._mean_kw,
        )  # fmt: skip
        rates = np.array([import_price, export_price, self._emissions_at(time_s)]) / 3600.0
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
        outputs |= {port: own.of(self._ev_power) for port, own in self._own_p.items()}
        extras = self._extras
        if self._managed and any(_is_multiple(self._end_s, period_s) for period_s in self._telemetry_s):
            report = self._report
            status(
                self._end_s, self._kinds, self._places, self._state,
                *(report[field] for field in _STATUS),
            )  # fmt: skip
            if extras is not None and extras.counts:
                physics.withhold(
                    extras.options, self._kinds, self._places, self._state, extras.physics,
                    self._willing(self._end_s), report["p_min"],
                )  # fmt: skip
            outputs |= {f"fleet/{field}": values for field, values in report.items()}
            if self._reserve_horizon_s is not None:
                up, down, e_min, e_max = self._flexibility[[4, 5, 2, 3]]
                outputs |= dict(
                    zip((f"fleet/{field}" for field in _FLEXIBILITY), (up, down, e_min, e_max), strict=True)
                )
        return outputs | self._update_envelope()

    def _commands(self, tick: int, time_s: float, inputs: Values) -> Array:
        """The set-points that the EVSEs go by, (ev,) kW."""
        if not self._messages:
            setpoint = np.ascontiguousarray(inputs["aggregator/setpoint"], np.float64)
        else:
            setpoint = self._setpoint
            for port, rows in self._messages.items():
                setpoint[rows] = inputs[port]
        self._refuse_nan(time_s, setpoint)
        if self._link is None:
            return setpoint
        setpoint = self._link.commands(tick, time_s, setpoint)
        setpoint[self._uncontrolled] = np.inf  # nobody sends them anything that could be lost
        return setpoint

    def _with_extras(self) -> None:
        """Add the ports and variables that the scenario's extras bring."""
        extras = self._extras
        if extras is None:
            return
        if extras.with_functions:
            self.inputs += ("feeder/voltage",)
            if extras.frequency:
                self.inputs += ("system/frequency",)
        if extras.counts:
            self.variables += _REFUSED_VARIABLES
        if len(extras.ageing):
            self.variables += _AGEING_VARIABLES + _EV_AGEING_VARIABLES
            self._loss_before = np.zeros(len(degradation.LAWS))  # the same for all of a chemistry
            law, first = np.unique(extras.ageing["law"], return_index=True)
            self._loss_before[law] = degradation.loss_percent(extras.ageing[first])
        if extras.emissions is not None:
            self.variables += (_EMISSIONS_VARIABLE,)
        if self._reserve_horizon_s is not None and self._scenario.fleet is not None:
            dims = ("member", *_GROUP_DIMS[self._scenario.fleet.reserve_group])
            self.variables += tuple(Variable(name, dims, "kW", text) for name, text in _RESERVES.items())
            if self._managed:
                self.outputs += tuple(f"fleet/{field}" for field in _FLEXIBILITY)
        if self._ahead is not None:
            dims = ("member", *_GROUP_DIMS[self._ahead.group], "envelope_time", "lead")
            self.variables += tuple(
                Variable(f"envelope_{name}_{unit.lower()}", dims, unit, text, timed=False, dtype="float32")
                for name, (unit, text) in _ENVELOPE.items()
            )
            if self._tells_envelope:
                self.outputs += tuple(f"fleet/envelope_{name}" for name in (*_ENVELOPE, "round_trip"))
        self._no_grid = np.zeros(0)
        self._mean_kvar = self._report["energy_needed"] if self._managed else np.zeros(len(self._evs))
        self._hertz = np.full(len(self._plugged), extras.nominal_hz)

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

    def _emissions_at(self, time_s: float) -> float:
        """Of energy in the tick from a time on, kg per kWh; 0 where they aren't counted."""
        if self._extras is None or self._extras.emissions is None:
            return 0.0
        return float(self._extras.emissions(time_s, time_s + self.period_s)) / 1000.0

    def _willing(self, time_s: float) -> bool:
        """Whether drivers let discharge at a time."""
        assert self._extras is not None
        return self._extras.willing((self._start_h + time_s / 3600.0) % 24.0)

    def _update_reserve(self) -> None:
        """Every telemetry period, what the EVs can offer from now on."""
        extras, horizon_s = self._extras, self._reserve_horizon_s
        if extras is None or horizon_s is None:
            return
        if not _is_multiple(self._end_s, self._scenario.telemetry_s):
            return
        physics.flexibility(
            self._end_s, horizon_s, extras.options, self._kinds, self._places, self._state, extras.physics,
            self._willing(self._end_s), self._ev_power, *self._flexibility,
        )  # fmt: skip
        for reserve, of_ev in zip(self._reserve, self._flexibility[4:], strict=True):
            reserve[:] = np.bincount(self._reserve_row, of_ev, reserve.size).reshape(reserve.shape)

    def _make_room_for_groups(self, connections: Connections, trafos: int) -> None:
        """Room for what is summed over groups of EVs, and each EV's row in it."""
        fleet, members = self._scenario.fleet, len(self._plugged)
        if fleet is None:
            return
        groups, row = _groups("reserve_group", fleet.reserve_group, connections, self._evs, trafos)
        self._reserve_row = row if self._reserve_horizon_s is not None else row[:0].copy()
        self._reserve, self._grouped = np.zeros((2, members, groups)), fleet.reserve_group != "feeder"
        if fleet.envelope is None:
            return
        groups, self._envelope_row = _groups(
            "envelope.group", fleet.envelope.group, connections, self._evs, trafos
        )
        times = int(self._scenario.clock.duration_s / fleet.envelope.every_s + 1e-9)
        self._envelopes = np.zeros((4, times, members, groups, fleet.envelope.slots), np.float32)

    def _update_envelope(self) -> dict[str, Array]:
        """Every so often, what the EVs may do over the horizon; what goes to the aggregator."""
        settings = self._ahead
        if settings is None or not _is_multiple(self._end_s, settings.every_s):
            return {}
        now = self._envelopes[:, round(self._end_s / settings.every_s) - 1]
        members, groups = now.shape[1:3]
        summed = self._limits_ahead(self._envelope_row, members * groups)
        for limit, values in zip(now, summed[:-1], strict=True):
            limit[:] = values.reshape(limit.shape)
        if not self._tells_envelope:
            return {}
        return {f"fleet/envelope_{name}": values for name, values in self.envelope().items()}

    def _limits_ahead(self, row_of: NDArray[np.int64], rows: int) -> tuple[Array, ...]:
        """Least and most power and energy, (row, slot) each, and the round trip, (ev,), from now on."""
        extras, settings = self._extras, self._ahead
        assert extras is not None
        assert settings is not None
        hour = self._start_h + self._end_s / 3600.0
        begins_h = hour + np.arange(settings.slots, dtype=np.float64) * settings.slot / 3600.0
        willing = extras.willing_share(begins_h, settings.slot / 3600.0)
        limits: tuple[Any, ...] = tuple(np.zeros((rows, settings.slots)) for _ in _ENVELOPE)
        limits += (np.ones(len(self._evs)),)
        limits_ahead(
            self._end_s, settings.slot, willing, extras.options, self._kinds, self._places, self._state,
            extras.physics, row_of, *limits,
        )  # fmt: skip
        return limits

    def envelope(self) -> dict[str, Array]:
        """What each EV may do from now on, (ev, slot): p_min, p_max (kW), e_min, e_max (kWh at the meter),
        and round_trip, (ev,): see :mod:`evgrid.fleet.envelope`.
        """
        limits = self._limits_ahead(np.arange(len(self._evs)), len(self._evs))
        return dict(zip((*_ENVELOPE, "round_trip"), limits, strict=True))

    def flexibility(self) -> dict[str, Array]:
        """What each EV can offer, as of the last telemetry, (ev,): see :func:`.physics.flexibility`.

        p_min, p_max (kW), e_min, e_max (kWh in the battery, at the end of the horizon), up, down (kW).
        """
        names = ("p_min", "p_max", "e_min", "e_max", "up", "down")
        return dict(zip(names, self._flexibility.copy(), strict=True))

    def finish(self) -> None:
        """Write what each session came to."""
        self._record_last()
        self._flush()
        for name, peaks in self._peaks.items():
            self._recorder.put_static(name, peaks.finish())
        if self._fixed is not None:
            self._fixed.finish(self._recorder)
        sessions, outcome = self._sessions, self._outcome
        extras = self._extras
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
        soc, drawn, given, loss, cost = outcome.T
        complete = sessions.departure_s <= self._end_s
        missing = grid_energy_to_target_kwh(self._kinds, self._kind_of, soc)
        requested = grid_energy_to_target_kwh(self._kinds, self._kind_of, self._soc_arrival)
        fastest = charge_as_fast_as_possible(
            self._kinds, self._kind_of, self._soc_arrival, sessions.departure_s - sessions.arrival_s
        )
        out_of_reach = grid_energy_to_target_kwh(self._kinds, self._kind_of, fastest)
        avoidable = np.maximum(missing - out_of_reach, 0.0)
        percent = np.divide(
            100.0 * missing, requested, out=np.full_like(missing, np.nan), where=requested > 0
        )
        values = {
            "session_energy_requested_kwh": requested,
            "session_energy_unserved_percent": np.where(complete, percent, np.nan),
            "session_energy_unserved_avoidable_kwh": np.where(complete, avoidable, np.nan),
            "session_throughput_kwh": drawn + given,
            "session_energy_delivered_kwh": drawn,
            "session_energy_discharged_kwh": given,
            "session_battery_energy_kwh": (soc - self._soc_arrival) * sessions.capacity_kwh,
            "session_loss_kwh": loss,
            "session_energy_unserved_kwh": np.where(complete, missing, np.nan),
            "session_soc_arrival": self._soc_arrival,
            "session_soc_departure": soc,
            "session_cost": cost if self._energy_prices is not None else np.full(len(sessions), np.nan),
        }
        if extras is not None:
            values |= self._extra_outcome(extras)
            if self._ahead is not None:
                by_member = np.moveaxis(self._envelopes, 1, 3)
                if self._ahead.group == "feeder":
                    by_member = by_member[:, :, 0]
                names = (f"envelope_{name}_{unit.lower()}" for name, (unit, _) in _ENVELOPE.items())
                values |= dict(zip(names, by_member, strict=True))
        for name, value in values.items():
            self._recorder.put_static(name, np.ascontiguousarray(value))

    def _extra_outcome(self, extras: Extras) -> dict[str, Array]:
        """What the extras add to each session's outcome, and to each EV's."""
        values: dict[str, Array] = {}
        reasons = len(physics.REASONS)
        if extras.counts:
            values |= {v.name: extras.more[:, i] for i, v in enumerate(_REFUSED_VARIABLES)}
        settings = self._scenario.fleet.vehicle.degradation if self._scenario.fleet is not None else None
        if settings is not None:
            price, worthless = settings.battery_price, settings.worthless_at
            capacity = self._sessions.capacity_kwh
            calendar, cycle = extras.more[:, reasons], extras.more[:, reasons + 1]
            values["session_degradation_calendar_percent"] = 100.0 * calendar
            values["session_degradation_cycle_percent"] = 100.0 * cycle
            values["session_degradation_cost"] = degradation.cost(
                calendar + cycle, capacity, price, worthless
            )
            lost = degradation.loss_percent(extras.ageing) - self._loss_before[extras.ageing["law"]]
            of_ev = np.full(len(self._evs), np.nan)
            of_ev[self._sessions.ev] = capacity
            values["ev_degradation_percent"] = lost
            values["ev_degradation_cost"] = lost / 100.0 * of_ev * price / (1.0 - worthless)
        if extras.emissions is not None:
            values["session_emissions_kg"] = extras.more[:, reasons + 2]
        return values

    def audit(self) -> dict[str, Array]:
        """See :class:`evgrid.model.Model`; complete after ``finish``.

        grid_energy_kwh : from the power of all EVs, upstream or not, each tick's times its length
        battery_energy_kwh : from the change in state of charge of every session
        loss_kwh : integral of the loss formula
        power_given_kw_sum : power given to the feeder, summed over the ticks at which it steps
        """
        sessions, members = self._sessions, len(self._plugged)
        of_session = self._evs.member[sessions.ev]
        begun = ~np.isnan(self._outcome[:, 0])
        gain = np.where(begun, (self._outcome[:, 0] - self._soc_arrival) * sessions.capacity_kwh, 0.0)
        loss = np.where(begun, self._outcome[:, 3], 0.0)
        return {
            "grid_energy_kwh": self._grid_energy_kws / 3600.0,
            "battery_energy_kwh": np.bincount(of_session, gain, members).astype(np.float64),
            "loss_kwh": np.bincount(of_session, loss, members).astype(np.float64),
            "power_given_kw_sum": self._power_given_kw.copy(),
        }

    def _refuse_nan(self, time_s: float, setpoint: Array) -> None:
        if np.isnan(setpoint.min(initial=0.0)):
            bad = np.flatnonzero(np.isnan(setpoint))
            ev = bad[0]
            member = self._scenario.members[self._evs.member[ev]]
            raise StrategyError(
                f"aggregator/setpoint is NaN for EV {self._evs.name[ev]} of member {member} at {time_s:g} s "
                f"({bad.size} of {len(setpoint)} EVs): must be a power in kW, or +inf"
            )

    def _prices_at(self, tick: int) -> tuple[float, float]:
        """Price of energy drawn and of energy given in a tick; looked up in blocks."""
        if self._energy_prices is None:
            return 0.0, 0.0
        if not self._prices_from <= tick < self._prices_from + self._prices.shape[1]:
            edges_s = np.arange(tick, tick + _BLOCK + 1, dtype=np.float64) * self.period_s
            self._prices = np.array(self._energy_prices.means(edges_s))
            self._prices_from = tick
        drawn, given = self._prices[:, tick - self._prices_from]
        return float(drawn), float(given)

    @property
    def unconverged(self) -> dict[int, str]:
        """Members whose iteration with the feeder did not converge, by number."""
        return self._fixed.unconverged if self._fixed is not None else {}

    def _rating_kva(self) -> Array:
        """Rated apparent power of the EVSEs at each connection and phase, (member, connection, phase)."""
        assert self._extras is not None
        of_kind = self._extras.parameters["s_kva"][self._extras.parameters_of]
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
        """Record the last tick, if that was put off until it is certain that it is not taken again."""
        if self._unrecorded is not None and self._fixed is not None:
            self._record(self._unrecorded)
            self._fixed.close(self._scenario.clock.stamp(self._unrecorded).replace("T", " "))
            self._fixed.record(self._recorder, round(self._unrecorded / self.period_s))
        self._unrecorded = None

    def _record(self, time_s: float) -> None:
        tick = round(time_s / self.period_s)
        own = self._p[:, : self._on_feeder].reshape(len(self._p), -1).sum(axis=1)
        if _is_multiple(time_s, self._scenario.feeder_step_s):
            self._power_given_kw += own
        upstream = self._p[:, self._on_feeder :].reshape(len(self._p), -1).sum(axis=1)
        power = own + upstream
        self._grid_energy_kws += power * self.period_s
        if self._n_recorded == 0:
            self._first_recorded = tick
        reactive = self._q.reshape(len(self._q), -1).sum(axis=1)
        self._recorded[:, self._n_recorded] = power, self._plugged, reactive, upstream
        for own, p in zip(self._own_power, self._parts, strict=True):
            own[self._n_recorded] = np.bincount(
                self._evs.member[p.rows], self._ev_power[p.rows], len(self._p)
            )
        self._n_recorded += 1
        if self._n_recorded == _BLOCK:
            self._flush()
        if self._reserve_horizon_s is not None:
            for name, by_group in zip(_RESERVES, self._reserve, strict=True):
                self._recorder.put(name, tick, (by_group if self._grouped else by_group[:, 0])[None])
        if self._scenario.record.ev:
            self._recorder.put("ev_power_kw", tick, self._ev_power[None])
            self._recorder.put("ev_soc", tick, self._ev_soc[None])

    def _flush(self) -> None:
        """Hand the recorded ticks to the recorder."""
        n = self._n_recorded
        if n:
            power, plugged, reactive, upstream = self._recorded[:, :n].copy()
            self._recorder.put("fleet_power_kw", self._first_recorded, power)
            peaks = iter(self._peaks.values())
            next(peaks).add(self.period_s, power)
            self._recorder.put("fleet_reactive_kvar", self._first_recorded, reactive)
            self._recorder.put("plugged", self._first_recorded, plugged)
            if self._upstream:
                self._recorder.put("upstream_power_kw", self._first_recorded, upstream)
            for own, p, peak in zip(self._own_power, self._parts, peaks, strict=True):
                self._recorder.put(p.variable("fleet_power_kw"), self._first_recorded, own[:n].copy())
                peak.add(self.period_s, own[:n])
        self._n_recorded = 0


def _slots(connections: Connections, evs: EVs) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """First slot of each EV in the power array, and whether it spreads over three, (ev,)."""
    phases = len(connections.phases)
    wide = (evs.phase == ALL_PHASES) & (phases == 3)
    slot = (evs.member * len(connections) + evs.connection) * phases
    if phases == 3:
        slot = slot + np.where(wide, 0, evs.phase)
    return slot.astype(np.int32), wide


def _groups(
    key: str, group: Group, connections: Connections, evs: EVs, trafos: int
) -> tuple[int, NDArray[np.int64]]:
    """Number of groups in a member, and each EV's row in (member · groups,).

    Raises ScenarioError, which names the setting ``key``, if an EV is in no group.
    """
    if group == "feeder":
        return 1, evs.member
    if group == "connection":
        return len(connections), evs.member * len(connections) + evs.connection
    of_ev = connections.trafo[evs.connection]
    if (alone := evs.connection[of_ev < 0]).size:
        raise ScenarioError(
            [f"fleet.{key} = transformer: connection {connections.name[alone[0]]} has an EV and no "
             "transformer upstream; must be feeder or connection"]
        )  # fmt: skip
    groups = max(trafos, int(connections.trafo.max(initial=-1)) + 1)
    return groups, evs.member * groups + of_ev


def _rated_kw(sessions: Sessions, count: int) -> Array:
    """The most that each EV draws in any session, kW; 0 for one without, (ev,)."""
    rated_kw = np.zeros(count)
    np.maximum.at(rated_kw, sessions.ev, sessions.charge_kw)
    return rated_kw


class _OwnPower:
    """Power of some EVs at each connection and phase."""

    def __init__(
        self, rows: NDArray[np.int64], slot: NDArray[np.int32], wide: NDArray[np.bool_],
        shape: tuple[int, int, int],
    ) -> None:  # fmt: skip
        one, three = rows[~wide[rows]], rows[wide[rows]]
        self._ev = np.concatenate([one, np.repeat(three, 3)])
        self._slot = np.concatenate([slot[one], (slot[three][:, np.newaxis] + np.arange(3)).reshape(-1)])
        self._share = np.concatenate([np.ones(len(one)), np.full(3 * len(three), 1.0 / 3.0)])
        self._shape = shape

    def of(self, ev_power_kw: Array) -> Array:
        """From the power of all EVs, (ev,) kW; (member, connection, phase)."""
        own = np.bincount(self._slot, self._share * ev_power_kw[self._ev], int(np.prod(self._shape)))
        return np.asarray(own, np.float64).reshape(self._shape)


def _is_multiple(time_s: float, period_s: float) -> bool:
    """Whether a simulated time is a multiple of a period, but for rounding."""
    rest = time_s % period_s
    return min(rest, period_s - rest) < 1e-6


def in_force(scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions) -> Sessions:
    """The sessions with losses by power and with the floors of warranty and driver, where asked for."""
    fleet = scenario.fleet
    if fleet is None:
        return sessions
    if fleet.vehicle.losses == "by_power":
        sessions = with_losses_by_power(sessions, on_three_phases(fleet, connections, evs)[sessions.ev])
    if fleet.permission is not None:
        sessions = replace(sessions, soc_floor=with_floors(sessions.soc_floor, fleet.permission))
    return sessions


def _hour_of_day(start: np.datetime64) -> float:
    """Local hour of a timestamp, 0 to 24."""
    return float((start - start.astype("datetime64[D]")) / np.timedelta64(1, "h"))
