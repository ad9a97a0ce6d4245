"""The fleet: all EVs of all members as one model behind a federate.

In: set-points (if an aggregator manages the fleet). Out: the mean active and reactive power of the
EVs at each connection and phase over the tick, and, every telemetry period, what the chargers
report at the end of the tick. How an EV charges is in :mod:`evgrid.fleet.kernels`.

Left out, so far: reactive power, the feeder's voltage and outages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import StrategyError
from evgrid.fleet.kernels import STATE, close_session, grid_energy_to_target_kwh, status, step
from evgrid.fleet.sessions import Sessions
from evgrid.model import ALL_PHASES, Array, Connections, EVs, Model, Recorder, Values, Variable
from evgrid.scenario import Scenario
from evgrid.tariff import prices

_STATUS = ("plugged", "soc", "p_max", "p_min", "energy_needed", "time_left", "time_needed")
_BLOCK = 256
"""Ticks between two blocks of recorded values, and between two look-ups of prices."""

_MEMBER_VARIABLES = (
    Variable("fleet_power_kw", ("member",), "kW", "active power of all EVs"),
    Variable("fleet_reactive_kvar", ("member",), "kvar", "reactive power of all EVs"),
    Variable("plugged", ("member",), "1", "number of EVs plugged in, mean over the interval"),
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
        ("session_soc_arrival", "1", "state of charge at arrival, or at the start of the run"),
        ("session_soc_departure", "1", "state of charge at departure, or at the end of the run"),
        ("session_cost", "currency", "cost of energy drawn less credit for energy given"),
    )
)  # fmt: skip


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
    ) -> None:
        self.period_s = scenario.time.step
        self.outputs = ("fleet/p", "fleet/q")
        if managed:
            self.inputs = ("aggregator/setpoint",)
            self.outputs += tuple(f"fleet/{field}" for field in _STATUS)
        self.variables = _MEMBER_VARIABLES + _SESSION_VARIABLES
        if scenario.record.ev:
            self.variables += _EV_VARIABLES
        self._scenario, self._evs, self._sessions = scenario, evs, sessions
        self._recorder, self._managed = recorder, managed
        members, count = len(scenario.members), len(evs)
        self._kinds, self._kind_of = sessions.kinds()
        self._by_arrival = np.argsort(sessions.arrival_s, kind="stable").astype(np.int32)
        self._cursor = 0
        self._state = _state(connections, evs)
        self._member_start = np.searchsorted(evs.member, np.arange(members + 1))
        self._active = np.zeros(count, np.uint32)
        self._active_count = 0
        self._no_setpoint = np.zeros(count)
        self._p = np.zeros((members, len(connections), len(connections.phases)))
        self._q = np.zeros_like(self._p)
        self._plugged = np.zeros(members)
        self._outcome = np.full((len(sessions), 5), np.nan)
        per_ev = count if scenario.record.ev else 0
        self._ev_power, self._ev_soc = np.zeros(per_ev), np.zeros(per_ev)
        self._report = {field: np.zeros(count) for field in _STATUS} if managed else {}
        self._recorded = np.zeros((2, _BLOCK, members))
        self._first_recorded = self._n_recorded = 0
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
        setpoint = self._no_setpoint
        if self._managed:
            setpoint = np.ascontiguousarray(inputs["aggregator/setpoint"], np.float64)
            self._refuse_nan(time_s, setpoint)
        tick = round(time_s / self.period_s)
        import_price, export_price = self._prices_at(tick)
        sessions = self._sessions
        self._active_count, self._cursor = step(
            time_s, self.period_s, import_price, export_price, self._managed, setpoint,
            self._kinds, sessions.ev, sessions.arrival_s, sessions.departure_s, sessions.soc_arrival,
            self._kind_of, self._by_arrival, self._cursor,
            self._state, self._member_start, self._active, self._active_count,
            self._p.reshape(-1), self._plugged, self._outcome, self._ev_power, self._ev_soc,
        )  # fmt: skip
        self._end_s = time_s + self.period_s
        self._record(tick, time_s)
        outputs: dict[str, Array] = {"fleet/p": self._p, "fleet/q": self._q}
        if self._managed and _is_multiple(self._end_s, self._scenario.telemetry_s):
            report = self._report
            status(
                self._end_s, self._kinds, self._state, self._active, self._active_count,
                *(report[field] for field in _STATUS),
            )  # fmt: skip
            outputs |= {f"fleet/{field}": values for field, values in report.items()}
        return outputs

    def finish(self) -> None:
        """Write what each session came to."""
        self._flush()
        sessions, outcome = self._sessions, self._outcome
        for ev in self._active[: self._active_count]:
            close_session(self._state[ev], outcome)
        soc, drawn, given, loss, cost = outcome.T
        complete = sessions.departure_s <= self._end_s
        missing = grid_energy_to_target_kwh(self._kinds, self._kind_of, soc)
        values = {
            "session_energy_requested_kwh": grid_energy_to_target_kwh(
                self._kinds, self._kind_of, sessions.soc_arrival
            ),
            "session_energy_delivered_kwh": drawn,
            "session_energy_discharged_kwh": given,
            "session_battery_energy_kwh": (soc - sessions.soc_arrival) * sessions.capacity_kwh,
            "session_loss_kwh": loss,
            "session_energy_unserved_kwh": np.where(complete, missing, np.nan),
            "session_soc_arrival": sessions.soc_arrival,
            "session_soc_departure": soc,
            "session_cost": cost if self._scenario.tariff is not None else np.full(len(sessions), np.nan),
        }
        for name, value in values.items():
            self._recorder.put_static(name, np.ascontiguousarray(value))

    def audit(self) -> dict[str, Array]:
        """See :class:`evgrid.model.Model`; complete after ``finish``.

        grid_energy_kwh : from the power given to the feeder, each tick's times its length
        battery_energy_kwh : from the change in state of charge of every session
        loss_kwh : integral of the loss formula
        power_given_kw_sum : power given, summed over the ticks at which the feeder steps
        """
        sessions, members = self._sessions, len(self._plugged)
        of_session = self._evs.member[sessions.ev]
        begun = ~np.isnan(self._outcome[:, 0])
        gain = np.where(begun, (self._outcome[:, 0] - sessions.soc_arrival) * sessions.capacity_kwh, 0.0)
        loss = np.where(begun, self._outcome[:, 3], 0.0)
        return {
            "grid_energy_kwh": self._grid_energy_kws / 3600.0,
            "battery_energy_kwh": np.bincount(of_session, gain, members).astype(np.float64),
            "loss_kwh": np.bincount(of_session, loss, members).astype(np.float64),
            "power_given_kw_sum": self._power_given_kw.copy(),
        }

    def _refuse_nan(self, time_s: float, setpoint: Array) -> None:
        bad = np.flatnonzero(np.isnan(setpoint))
        if bad.size:
            ev = bad[0]
            member = self._scenario.members[self._evs.member[ev]]
            raise StrategyError(
                f"aggregator/setpoint is NaN for EV {self._evs.name[ev]} of member {member} at {time_s:g} s "
                f"({bad.size} of {len(setpoint)} EVs): must be a power in kW, or +inf"
            )

    def _prices_at(self, tick: int) -> tuple[float, float]:
        """Price of energy drawn and of energy given in a tick; looked up in blocks."""
        tariff = self._scenario.tariff
        if tariff is None:
            return 0.0, 0.0
        if not self._prices_from <= tick < self._prices_from + self._prices.shape[1]:
            times = np.arange(tick, tick + _BLOCK, dtype=np.float64) * self.period_s
            self._prices = np.array(prices(tariff, self._scenario.clock.timestamps(times)))
            self._prices_from = tick
        drawn, given = self._prices[:, tick - self._prices_from]
        return float(drawn), float(given)

    def _record(self, tick: int, time_s: float) -> None:
        power = self._p.reshape(len(self._p), -1).sum(axis=1)
        self._grid_energy_kws += power * self.period_s
        if _is_multiple(time_s, self._scenario.feeder_step_s):
            self._power_given_kw += power
        if self._n_recorded == 0:
            self._first_recorded = tick
        self._recorded[:, self._n_recorded] = power, self._plugged
        self._n_recorded += 1
        if self._n_recorded == _BLOCK:
            self._flush()
        if self._scenario.record.ev:
            self._recorder.put("ev_power_kw", tick, self._ev_power[None])
            self._recorder.put("ev_soc", tick, self._ev_soc[None])

    def _flush(self) -> None:
        """Hand the recorded ticks to the recorder."""
        n = self._n_recorded
        if n:
            power, plugged = self._recorded[:, :n].copy()
            self._recorder.put("fleet_power_kw", self._first_recorded, power)
            self._recorder.put("fleet_reactive_kvar", self._first_recorded, np.zeros_like(power))
            self._recorder.put("plugged", self._first_recorded, plugged)
        self._n_recorded = 0


def _state(connections: Connections, evs: EVs) -> NDArray[np.void]:
    """State of EVs that are all away, each with its place in the power array."""
    phases = len(connections.phases)
    spread = (evs.phase == ALL_PHASES) & (phases == 3)
    state = np.zeros(len(evs), STATE)
    state["session"] = -1
    slot = (evs.member * len(connections) + evs.connection) * phases
    if phases == 3:
        slot = slot + np.where(spread, 0, evs.phase)
    state["slot"] = slot
    state["slots"] = np.where(spread, 3, 1)
    return state


def _is_multiple(time_s: float, period_s: float) -> bool:
    """Whether a simulated time is a multiple of a period, but for rounding."""
    rest = time_s % period_s
    return min(rest, period_s - rest) < 1e-6
