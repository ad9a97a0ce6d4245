"""Results of the fleet: power and EVs of each tick, peaks of months, and the outcome of each session.

In: what the kernels leave after each tick, and of each session when it ends. Out: result variables, and the
accumulators that the energy audit compares. Positive power is drawn from the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import charge_as_fast_as_possible, grid_energy_to_target_kwh
from evgrid.battery.laws import REASONS
from evgrid.battery.records import Kinds
from evgrid.core.model import Array, Clock, Connections, EVs, Portfolio, Recorder, Variable
from evgrid.fleet import degradation
from evgrid.fleet.extras import Extras
from evgrid.fleet.grouping import is_multiple
from evgrid.fleet.outages import EvOutages
from evgrid.fleet.sessions import Sessions
from evgrid.fleet.sessions.charge_points import Queue
from evgrid.scenario import Scenario
from evgrid.scenario.tariffs import USUAL_INTERVAL_S, MonthlyPeaks, Tariff, in_windows, months_of

_BLOCK = 256
"""Ticks in a block of recorded values."""

_MEMBER_VARIABLES = (
    Variable("fleet_power_kw", ("member",), "kW", "active power of all EVs on the grid"),
    Variable("fleet_reactive_kvar", ("member",), "kvar", "reactive power of all EVs"),
    Variable("plugged", ("member",), "1", "number of EVs plugged in, mean over the interval"),
)
_UPSTREAM_VARIABLE = Variable(
    "upstream_power_kw", ("member",), "kW", "active power of the EVs that are upstream of the feeder"
)
_ISLANDED_VARIABLE = Variable(
    "islanded_power_kw", ("member",), "kW", "active power of the EVs in islands and off grid, at sites"
)
_EV_VARIABLES = (
    Variable("ev_power_kw", ("ev",), "kW", "active power of the EV"),
    Variable("ev_soc", ("ev",), "1", "state of charge at the end of the tick; NaN while away"),
)
SESSION_VARIABLES = tuple(
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
_OUTAGE_VARIABLE = Variable(
    "session_energy_unserved_outage_kwh", ("session",), "kWh",
    "energy unserved that full power could have charged while there was no supply; NaN likewise", timed=False,
)  # fmt: skip
_REFUSED_VARIABLES = tuple(
    Variable(
        f"session_discharge_refused_{reason}_kwh",
        ("session",),
        "kWh",
        f"energy asked for and not given; reason: {text}",
        timed=False,
    )
    for reason, text in zip(
        REASONS,
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


_BLOCK_VARIABLE = Variable(
    "customer_energy_kwh", ("member", "connection", "month", "period"), "kWh",
    "energy that the EVs of a connection point draw, net in each tick, in the month and the tariff's period",
    timed=False,
)  # fmt: skip
"""Variable where the tariff has blocks."""


class BlockMeter:
    """Energy drawn in calendar months and periods of a tariff.

    energy_kwh : (*shape, month, period)
    """

    def __init__(self, tariff: Tariff, clock: Clock, shape: tuple[int, ...]) -> None:
        ticks_s = clock.step_s * np.arange(clock.ticks + 1.0)
        months = months_of(clock)
        begins_s = (months.astype("datetime64[s]") - clock.start) / np.timedelta64(1, "s")
        edges_s = np.union1d(ticks_s, begins_s[(begins_s > 0.0) & (begins_s < clock.duration_s)])
        self._tick = np.searchsorted(ticks_s, edges_s[:-1] + 1e-6, "right") - 1
        self._month = np.searchsorted(begins_s, edges_s[:-1] + 1e-6, "right") - 1
        self._hours = tariff.in_periods(clock, edges_s) * (np.diff(edges_s) / 3600.0)[:, np.newaxis]
        self.energy_kwh = np.zeros((*shape, len(months), self._hours.shape[1]))

    def add(self, tick: int, power_kw: Array) -> None:
        """Power drawn in a tick, (*shape) kW."""
        first, last = np.searchsorted(self._tick, [tick, tick + 1])
        for span in range(int(first), int(last)):
            self.energy_kwh[..., self._month[span], :] += power_kw[..., np.newaxis] * self._hours[span]


_POINT_VARIABLES = (
    Variable("points_occupied", ("member",), "1", "charge points that are shared and occupied, mean"),
    Variable("points_waiting", ("member",), "1", "EVs that wait for a shared charge point, mean"),
)
_WAIT_VARIABLE = Variable(
    "session_wait_h", ("session",), "h", "time that the session has waited for a charge point", timed=False
)
_LEFT_VARIABLES = (
    Variable("left_without_charging", ("member", "connection"), "1",
             "EVs that left without charging, for want of a charge point", timed=False),
    Variable("left_without_charging_kwh", ("member", "connection"), "kWh",
             "energy at the meter that they wanted", timed=False),
)  # fmt: skip


class PointsInUse:
    """EVs at shared charge points, and those that wait for one, mean over each tick."""

    def __init__(self, sessions: Sessions, queue: Queue, evs: EVs, clock: Clock, members: int) -> None:
        self._step_s, self._members = clock.step_s, members
        shared = np.flatnonzero(queue.shared)
        stays_s = np.column_stack([sessions.arrival_s, sessions.departure_s])[shared]
        waits = evs.member[queue.waiting_ev], queue.waiting_s
        self._spans = (evs.member[sessions.ev[shared]], stays_s), waits

    def block(self, first: int, ticks: int) -> list[Array]:
        """Occupied and waiting in some ticks, (tick, member) each."""
        begin_s, edges_s = self._step_s * first, self._step_s * np.arange(ticks + 1.0)
        found = []
        for member, spans_s in self._spans:
            inside = np.clip(spans_s - begin_s, 0.0, edges_s[-1])
            mean = np.zeros((ticks, self._members))
            for m in np.unique(member[inside[:, 1] > inside[:, 0]]):
                begins, ends = np.sort(inside[member == m], axis=0).T
                passed_s = _since(begins, edges_s) - _since(ends, edges_s)
                mean[:, m] = np.diff(passed_s) / self._step_s
            found.append(np.round(mean, 9))
        return found


def _since(times_s: Array, edges_s: Array) -> Array:
    """Time that has passed at each edge since each of ascending times before it, together, (edge,) s."""
    before = np.searchsorted(times_s, edges_s)
    sums_s = np.append(0.0, np.cumsum(times_s))
    return np.asarray(before * edges_s - sums_s[before])


class FleetRecording:
    """The fleet's power tick by tick, in blocks, its monthly peaks, and accumulators for the energy audit.

    Parameters
    ----------
    scenario, connections, evs
        Static facts.
    recorder
        Takes the variables.
    portfolios
        Each aggregator's EVs, whose power is recorded besides; empty if one has all.
    sessions
        Of which the queue at shared charge points is recorded, where there is one.

    """

    variables: tuple[Variable, ...]
    grid_energy_kws: Array
    """(member,) energy of all EVs, in islands or not, each tick's power times its length."""
    power_given_kw: Array
    """(member,) power given to the feeder, summed over the ticks at which it steps."""

    def __init__(
        self, scenario: Scenario, connections: Connections, evs: EVs, recorder: Recorder,
        portfolios: Sequence[Portfolio], sessions: Sessions,
    ) -> None:  # fmt: skip
        members = len(scenario.members)
        self._points = None
        if sessions.queue is not None:
            self._points = PointsInUse(sessions, sessions.queue, evs, scenario.clock, members)
        self._recorder, self._portfolios, self._evs = recorder, portfolios, evs
        self._period_s, self._feeder_step_s = scenario.time.step, scenario.feeder_step_s
        self._on_feeder, self._upstream = connections.on_feeder, connections.upstream
        self._each_ev, self._sites = scenario.record.ev, bool(scenario.sites)
        tariff = scenario.tariff
        demand = tariff.demand if tariff is not None else None
        meter_s = USUAL_INTERVAL_S if demand is None else demand.interval
        self._peaks = {
            name: MonthlyPeaks.of(tariff, scenario.clock, (members,))
            for name in ("fleet_peak_kw", *(p.variable("fleet_peak_kw") for p in portfolios))
        }
        self._blocks = None
        if tariff is not None and tariff.has_blocks:
            self._blocks = BlockMeter(tariff, scenario.clock, (members, len(connections)))
        powers = [(p.variable("fleet_power_kw"), f"active power of the EVs of {p.name}") for p in portfolios]
        highest = f"highest power of the EVs in the month, mean over {meter_s / 60:g} min"
        self._peak_variables = peaks = tuple(
            Variable(name, ("member", "month"), "kW", highest, timed=False) for name in self._peaks
        )
        self.variables = (
            *_MEMBER_VARIABLES,
            *(_EV_VARIABLES if self._each_ev else ()),
            *(Variable(name, ("member",), "kW", text) for name, text in powers),
            *peaks,
            *(map(in_windows, peaks) if demand is not None and demand.windows else ()),
            *((_BLOCK_VARIABLE,) if self._blocks is not None else ()),
            *(_POINT_VARIABLES if self._points is not None else ()),
            *((_UPSTREAM_VARIABLE,) if self._upstream else ()),
            *((_ISLANDED_VARIABLE,) if self._sites else ()),
        )
        self._block = np.zeros((5, _BLOCK, members))
        self._own_block = np.zeros((len(portfolios), _BLOCK, members))
        self._first_tick = self._filled = 0
        self.grid_energy_kws, self.power_given_kw = np.zeros(members), np.zeros(members)

    @property
    def by_ev(self) -> bool:
        """Whether the power of each EV is needed."""
        return self._each_ev or bool(self._portfolios)

    def record(
        self, time_s: float, p_kw: Array, q_kvar: Array, plugged: Array, ev_power_kw: Array, ev_soc: Array,
        ev_grid_kw: Array, islanded_kw: Array | None,
    ) -> None:  # fmt: skip
        """Record a tick that began at a time.

        ``p_kw``, ``q_kvar``: (member, connection, phase), means over the tick, on the grid; ``plugged``:
        (member,); ``ev_power_kw``, ``ev_soc``, ``ev_grid_kw`` (the part of the power on the grid): (ev,),
        used where :attr:`by_ev`; ``islanded_kw``: (member,) power in islands and off grid, None: there are no
        sites.
        """
        tick, members = round(time_s / self._period_s), len(p_kw)
        if self._blocks is not None:
            self._blocks.add(tick, np.clip(p_kw.sum(axis=2), 0.0, None))
        own = p_kw[:, : self._on_feeder].reshape(members, -1).sum(axis=1)
        if is_multiple(time_s, self._feeder_step_s):
            self.power_given_kw += own
        upstream = p_kw[:, self._on_feeder :].reshape(members, -1).sum(axis=1)
        power = own + upstream
        islanded = np.zeros(members) if islanded_kw is None else islanded_kw
        self.grid_energy_kws += (power + islanded) * self._period_s
        if self._filled == 0:
            self._first_tick = tick
        reactive = q_kvar.reshape(members, -1).sum(axis=1)
        self._block[:, self._filled] = power, plugged, reactive, upstream, islanded
        for block, p in zip(self._own_block, self._portfolios, strict=True):
            block[self._filled] = np.bincount(self._evs.member[p.rows], ev_grid_kw[p.rows], members)
        self._filled += 1
        if self._filled == _BLOCK:
            self._flush()
        if self._each_ev:
            self._recorder.put("ev_power_kw", tick, ev_power_kw[np.newaxis])
            self._recorder.put("ev_soc", tick, ev_soc[np.newaxis])

    def finish(self) -> None:
        """Record the last block and the peaks."""
        self._flush()
        for variable, peaks in zip(self._peak_variables, self._peaks.values(), strict=True):
            self._recorder.put_static(variable.name, peaks.finish())
            if peaks.in_windows.size:
                self._recorder.put_static(in_windows(variable).name, peaks.in_windows)
        if self._blocks is not None:
            self._recorder.put_static(_BLOCK_VARIABLE.name, self._blocks.energy_kwh)

    def _flush(self) -> None:
        """Hand the block of ticks to the recorder."""
        n, first = self._filled, self._first_tick
        if n:
            power, plugged, reactive, upstream, islanded = self._block[:, :n].copy()
            peaks = iter(self._peaks.values())
            self._recorder.put("fleet_power_kw", first, power)
            next(peaks).add(self._period_s, power)
            self._recorder.put("fleet_reactive_kvar", first, reactive)
            self._recorder.put("plugged", first, plugged)
            if self._points is not None:
                for variable, values in zip(_POINT_VARIABLES, self._points.block(first, n), strict=True):
                    self._recorder.put(variable.name, first, values)
            if self._upstream:
                self._recorder.put("upstream_power_kw", first, upstream)
            if self._sites:
                self._recorder.put("islanded_power_kw", first, islanded)
            for own, p, peak in zip(self._own_block, self._portfolios, peaks, strict=True):
                self._recorder.put(p.variable("fleet_power_kw"), first, own[:n].copy())
                peak.add(self._period_s, own[:n])
        self._filled = 0


class SessionResults:
    """The result of each session, and of each EV's battery, once all have ended or the run has.

    ``outcome``: (session, 5), filled by the kernels: SOC at the end, energy drawn, given and lost (kWh), and
    cost; NaN for a session that has not begun.
    """

    variables: tuple[Variable, ...]
    outcome: Array

    def __init__(
        self, scenario: Scenario, evs: EVs, sessions: Sessions, kinds: Kinds,
        kind_of: NDArray[np.int32], extras: Extras | None, connections: int,
        outages: EvOutages | None = None,
    ) -> None:  # fmt: skip
        self._members, self._evs = len(scenario.members), evs
        self._evs, self._sessions, self._kinds, self._kind_of = evs, sessions, kinds, kind_of
        self._extras, self._outages = extras, outages
        self._degradation = scenario.fleet.vehicle.degradation if scenario.fleet is not None else None
        self.outcome = np.full((len(sessions), 5), np.nan)
        self._places = connections
        self.variables = SESSION_VARIABLES + ((_OUTAGE_VARIABLE,) if outages is not None else ())
        self.variables += (_WAIT_VARIABLE, *_LEFT_VARIABLES) if sessions.queue is not None else ()
        if extras is None:
            return
        if extras.counts:
            self.variables += _REFUSED_VARIABLES
        if len(extras.details.ageing):
            self.variables += _AGEING_VARIABLES + _EV_AGEING_VARIABLES
            self._loss_before = np.zeros(len(degradation.LAWS))  # the same for all of a chemistry
            law, first = np.unique(extras.details.ageing["law"], return_index=True)
            self._loss_before[law] = degradation.loss_percent(extras.details.ageing[first])
        if extras.emissions is not None:
            self.variables += (_EMISSIONS_VARIABLE,)

    def missing_kwh(self, rows: NDArray[np.int64]) -> Array:
        """Energy at the meter that sessions lack to their targets at their ends, (n,) kWh; NaN before."""
        return grid_energy_to_target_kwh(self._kinds, self._kind_of[rows], self.outcome[rows, 0])

    def record(self, recorder: Recorder, end_s: float, soc_arrival: Array, priced: bool) -> None:
        """Record all results; ``soc_arrival``: (session,); ``priced``: whether energy has a price."""
        for name, values in self._values(end_s, soc_arrival, priced).items():
            recorder.put_static(name, np.ascontiguousarray(values))

    def energy(self, soc_arrival: Array, members: int) -> tuple[Array, Array]:
        """Energy that the batteries gained, and the conversion loss, (member,) kWh each."""
        sessions, of_session = self._sessions, self._evs.member[self._sessions.ev]
        begun = ~np.isnan(self.outcome[:, 0])
        gain = np.where(begun, (self.outcome[:, 0] - soc_arrival) * sessions.capacity_kwh, 0.0)
        loss = np.where(begun, self.outcome[:, 3], 0.0)
        gained, lost = (np.bincount(of_session, energy, members) for energy in (gain, loss))
        return gained.astype(np.float64), lost.astype(np.float64)

    def _values(self, end_s: float, soc_arrival: Array, priced: bool) -> dict[str, Array]:
        sessions = self._sessions
        soc, drawn, given, loss, cost = self.outcome.T
        complete = sessions.departure_s <= end_s
        missing = grid_energy_to_target_kwh(self._kinds, self._kind_of, soc)
        requested = grid_energy_to_target_kwh(self._kinds, self._kind_of, soc_arrival)
        fastest = charge_as_fast_as_possible(
            self._kinds, self._kind_of, soc_arrival, sessions.departure_s - sessions.arrival_s
        )
        out_of_reach = grid_energy_to_target_kwh(self._kinds, self._kind_of, fastest)
        avoidable = np.maximum(missing - out_of_reach, 0.0)
        percent = np.divide(
            100.0 * missing, requested, out=np.full_like(missing, np.nan), where=requested > 0
        )
        return {
            "session_energy_requested_kwh": requested,
            "session_energy_unserved_percent": np.where(complete, percent, np.nan),
            "session_energy_unserved_avoidable_kwh": np.where(complete, avoidable, np.nan),
            "session_throughput_kwh": drawn + given,
            "session_energy_delivered_kwh": drawn,
            "session_energy_discharged_kwh": given,
            "session_battery_energy_kwh": (soc - soc_arrival) * sessions.capacity_kwh,
            "session_loss_kwh": loss,
            "session_energy_unserved_kwh": np.where(complete, missing, np.nan),
            "session_soc_arrival": soc_arrival,
            "session_soc_departure": soc,
            "session_cost": cost if priced else np.full(len(sessions), np.nan),
            **({} if self._outages is None else self._for_outages(self._outages, missing, complete)),
            **({} if sessions.queue is None else self._of_queue(sessions.queue)),
            **self._extra_values(),
        }

    def _of_queue(self, queue: Queue) -> dict[str, Array]:
        """Waits, and who left without charging."""
        shape = self._members, self._places
        at = np.ravel_multi_index(
            (self._evs.member[queue.left_ev], self._evs.connection[queue.left_ev]), shape
        )
        counts = (np.bincount(at, of, self._places * self._members) for of in (None, queue.left_kwh))
        count, energy = (found.reshape(shape).astype(np.float64) for found in counts)
        names = (variable.name for variable in (_WAIT_VARIABLE, *_LEFT_VARIABLES))
        return dict(zip(names, (queue.waited_s / 3600.0, count, energy), strict=True))

    def _for_outages(
        self, outages: EvOutages, missing: Array, complete: NDArray[np.bool_]
    ) -> dict[str, Array]:
        """Energy unserved for outages: the least of what is missing and of what full power would have drawn
        in the time of the session without supply.
        """
        sessions = self._sessions
        lost_s = outages.lost_s(sessions.ev, sessions.arrival_s, sessions.departure_s)
        unserved = np.minimum(missing, sessions.charge_kw * lost_s / 3600.0)
        return {_OUTAGE_VARIABLE.name: np.where(complete, unserved, np.nan)}

    def _extra_values(self) -> dict[str, Array]:
        """Refused discharge, degradation and emissions, where they are counted."""
        extras = self._extras
        if extras is None:
            return {}
        values: dict[str, Array] = {}
        reasons = len(REASONS)
        if extras.counts:
            values |= {v.name: extras.outcome[:, i] for i, v in enumerate(_REFUSED_VARIABLES)}
        if self._degradation is not None:
            price, worthless = self._degradation.battery_price, self._degradation.worthless_at
            capacity = self._sessions.capacity_kwh
            calendar, cycle = extras.outcome[:, reasons], extras.outcome[:, reasons + 1]
            values["session_degradation_calendar_percent"] = 100.0 * calendar
            values["session_degradation_cycle_percent"] = 100.0 * cycle
            values["session_degradation_cost"] = degradation.cost(
                calendar + cycle, capacity, price, worthless
            )
            lost = (
                degradation.loss_percent(extras.details.ageing)
                - self._loss_before[extras.details.ageing["law"]]
            )
            of_ev = np.full(len(self._evs), np.nan)
            of_ev[self._sessions.ev] = capacity
            values["ev_degradation_percent"] = lost
            values["ev_degradation_cost"] = lost / 100.0 * of_ev * price / (1.0 - worthless)
        if extras.emissions is not None:
            values["session_emissions_kg"] = extras.outcome[:, reasons + 2]
        return values
