"""The aggregator: turns what the chargers and the feeder report into set-points.

In: the status of every EV, as of the last telemetry; the EVs' power and, for strategies that ask
for it, the power through each transformer or the voltages, all of the last tick; the bulk system's signal and
frequency of this tick, where a strategy asks for them. Out: one set-point an EV, kW,
positive charges. Between two reports the status is carried forward with the set-points given.

Left out: bids, several aggregators side by side.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evgrid.aggregator.kernels import carry_forward
from evgrid.aggregator.strategies import Context, Envelope, Strategy, View, find_strategy
from evgrid.errors import StrategyError
from evgrid.model import Array, Connections, EVs, Model, Recorder, Sensitivity, Values, Variable
from evgrid.scenario import Scenario
from evgrid.streams import Purpose, stream

_T = TypeVar("_T")

_STATUS = ("plugged", "soc", "p_max", "p_min", "energy_needed", "time_left", "time_needed")
_CARRIED = tuple(field for field in _STATUS if field != "soc")
_ENVELOPE = ("p_min", "p_max", "e_min", "e_max", "round_trip")


class AggregatorModel(Model):
    """One aggregator with one strategy over all EVs.

    ``trafos`` is the number of transformers of the feeder; connections without a transformer
    upstream fall in a group of the whole feeder. ``sensitivity`` is for a strategy that uses voltages.
    """

    name = "aggregator"
    outputs = ("aggregator/setpoint",)
    variables: tuple[Variable, ...] = (
        Variable("setpoint_kw", ("member",), "kW",
                 "sum of the set-points of the plugged-in EVs, unlimited ones at their EVs' limit"),
    )  # fmt: skip

    def __init__(
        self, scenario: Scenario, connections: Connections, evs: EVs, trafos: int, recorder: Recorder,
        sensitivity: Sensitivity | None = None,
    ) -> None:  # fmt: skip
        ((self._title, settings),) = scenario.aggregators.items()
        cls = find_strategy(settings.strategy)
        self.period_s = scenario.time.step
        self._clock = scenario.clock
        self._recorder = recorder
        self._evs = evs
        self._members = scenario.members
        self._telemetry_s = scenario.telemetry_s
        self._feeder_step_s = scenario.feeder_step_s
        self._by_trafo = settings.group == "transformer" and trafos > 0
        groups = trafos if self._by_trafo else 1
        local = np.maximum(connections.trafo[evs.connection], 0) if self._by_trafo else 0
        self._groups = groups
        self._group_of_connection = (
            np.maximum(connections.trafo, 0) if self._by_trafo else np.zeros(len(connections), np.int64)
        )
        context = Context(
            scenario.clock, scenario.tariff, evs, groups, evs.member * groups + local,
            scenario.system, scenario.members, scenario.ensemble.seed, sensitivity,
        )  # fmt: skip
        self._strategy: Strategy = self._guarded(0.0, lambda: cls(settings, context))
        self.inputs = tuple(f"fleet/{field}" for field in _STATUS)
        if cls.uses_feeder:
            self.inputs += ("fleet/p", "feeder/trafo_p" if self._by_trafo else "feeder/head_p")
        if cls.uses_system and scenario.system is not None:
            self.inputs += ("system/regulation", "system/frequency", "fleet/p")
        self._ahead = scenario.fleet.envelope if cls.uses_envelope and scenario.fleet is not None else None
        if self._ahead is not None:
            self.inputs += tuple(f"fleet/envelope_{field}" for field in _ENVELOPE)
        if cls.uses_voltage:
            self.inputs += ("fleet/p", "feeder/voltage")
        self.inputs = tuple(dict.fromkeys(self.inputs))
        self.variables += cls.variables
        self._base_load = np.zeros(len(self._members) * groups)
        self._voltage = np.zeros((len(self._members), len(connections), len(connections.phases)))
        self._power_then = self._voltage
        self._status = {field: np.zeros(len(evs)) for field in _STATUS}
        self._sent = np.zeros(len(evs))
        self._loss = 0.0 if scenario.communication.per_evse else scenario.communication.loss
        self._streams = [
            stream(scenario.ensemble.seed, member, Purpose.MESSAGE_LOSS) for member in scenario.members
        ]
        self._evs_of_member = np.searchsorted(evs.member, np.arange(len(self._members) + 1))

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.model.Model`."""
        self._update_status(time_s, inputs)
        if self._feeder_has_solved(time_s):
            self._update_base_load(inputs)
            self._update_voltage(inputs)
        status = self._status
        plugged = status["plugged"] > 0.5
        regulation = frequency = fleet_power = np.zeros(len(self._members))
        if "system/regulation" in self.inputs:
            regulation, frequency = inputs["system/regulation"], inputs["system/frequency"]
            fleet_power = inputs["fleet/p"].sum(axis=(1, 2))
        view = View(
            time_s, self.period_s, plugged, status["soc"], status["p_max"], status["p_min"],
            status["energy_needed"], status["time_left"], status["time_needed"], self._base_load,
            regulation, frequency, fleet_power, self._envelope(time_s, inputs), self._voltage,
            self._power_then,
        )  # fmt: skip
        wanted = self._guarded(time_s, lambda: self._strategy.setpoints(view))
        setpoint = np.where(plugged, self._checked(time_s, wanted), 0.0)
        if self._loss:
            setpoint = np.where(self._lost(), self._sent, setpoint)
        self._sent = setpoint
        asked = np.where(plugged, np.clip(setpoint, status["p_min"], status["p_max"]), 0.0)
        total = np.bincount(self._evs.member, asked, len(self._members))
        tick = round(time_s / self.period_s)
        self._recorder.put("setpoint_kw", tick, total[None])
        for name, values in self._strategy.recorded.items():
            self._recorder.put(name, tick, values[None])
        return {"aggregator/setpoint": setpoint}

    def finish(self) -> None:
        """Write what the strategy has to say at the end."""
        end_s = self._clock.duration_s
        for name, values in self._guarded(end_s, self._strategy.results).items():
            self._recorder.put_static(name, values)

    def _update_status(self, time_s: float, inputs: Values) -> None:
        """Take the reported status, or carry the last one forward by a tick."""
        status = self._status
        since_report = time_s % self._telemetry_s
        if min(since_report, self._telemetry_s - since_report) < 1e-6:
            for field in _STATUS:
                status[field] = np.array(inputs[f"fleet/{field}"])
            return
        carry_forward(self._sent, self.period_s, *(status[field] for field in _CARRIED))

    def _envelope(self, time_s: float, inputs: Values) -> Envelope | None:
        """The last envelope that the fleet sent."""
        if self._ahead is None or time_s < self._ahead.every_s * (1 - 1e-9):
            return None
        begin_s = np.floor(time_s / self._ahead.every_s + 1e-9) * self._ahead.every_s
        limits = (inputs[f"fleet/envelope_{field}"] for field in _ENVELOPE)
        return Envelope(float(begin_s), self._ahead.slot, *limits)

    def _feeder_has_solved(self, time_s: float) -> bool:
        """Whether the feeder solved in the last tick, so that its numbers and the fleet's go together."""
        solved = (time_s - self.period_s) % self._feeder_step_s
        return time_s > 0 and min(solved, self._feeder_step_s - solved) <= 1e-6

    def _update_voltage(self, inputs: Values) -> None:
        """The voltages, and the EVs' power that they go with."""
        if self._strategy.uses_voltage:
            self._voltage, self._power_then = np.array(inputs["feeder/voltage"]), np.array(inputs["fleet/p"])

    def _update_base_load(self, inputs: Values) -> None:
        """What the groups drew besides their EVs."""
        if not self._strategy.uses_feeder:
            return
        per_connection = inputs["fleet/p"].sum(axis=2)
        ev_power = np.zeros((len(self._members), self._groups))
        for group in range(self._groups):
            ev_power[:, group] = per_connection[:, self._group_of_connection == group].sum(axis=1)
        if self._by_trafo:
            through = inputs["feeder/trafo_p"]
        else:
            through = inputs["feeder/head_p"].sum(axis=1, keepdims=True)
        self._base_load = (through - ev_power).reshape(-1)

    def _lost(self) -> NDArray[np.bool_]:
        """Which set-points are lost on their way: (ev,) bool, from each member's own stream."""
        bounds = self._evs_of_member
        counts = np.diff(bounds)
        return np.concatenate(
            [rng.random(n) < self._loss for rng, n in zip(self._streams, counts, strict=True)]
        )

    def _checked(self, time_s: float, setpoint: object) -> Array:
        """The strategy's answer as an array, if it is one set-point an EV."""
        what = f"aggregators.{self._title}: {type(self._strategy).__name__}.setpoints"
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
        bad = np.flatnonzero(np.isnan(array))
        if bad.size:
            ev = bad[0]
            raise StrategyError(
                f"{what} returned NaN for {bad.size} of {array.size} EVs at {self._clock.stamp(time_s)}, "
                f"first for {self._evs.name[ev]} of member {self._members[self._evs.member[ev]]}: "
                "must be a power in kW, or +inf"
            )
        return array

    def _guarded(self, time_s: float, call: Callable[[], _T]) -> _T:
        """Call into a strategy; what it raises is told with its file and line."""
        try:
            return call()
        except StrategyError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise StrategyError(
                f"aggregators.{self._title}: the strategy raised {type(error).__name__}: {error} "
                f"({Path(frame.filename).name}, line {frame.lineno}) at {self._clock.stamp(time_s)}"
            ) from error
