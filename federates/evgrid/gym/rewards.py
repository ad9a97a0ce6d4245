"""What an agent is rewarded for: numbers of each member, (member,), of what came of a tick.

A part is called with an :class:`Outcome`, and returns what it is worth: costs, energy unserved and
violations are negative. The reward of a step is the sum over its ticks of the parts times their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.runs.stepwise import Stepwise


@dataclass(frozen=True)
class Outcome:
    """What came of a tick.

    run : the run; after the last tick it has ended
    time_s, step_s : begin and length of the tick, s
    prices : (2,) price of energy drawn and credit for energy given, currency per kWh; NaN without prices
    power_kw : (member, connection, phase) power of the aggregator's EVs
    voltage_pu : (member, connection, phase) 0 where there is none
    head_kw : (member, phase) power at the head of the feeder
    trafo_kw : (member, trafo) power through each transformer
    unserved_kwh : (member,) energy at the meter still missing to the target of the sessions that ended
    regulation : (member,) regulation signal of the tick, -1 to 1; 0 without one
    """

    run: Stepwise
    time_s: float
    step_s: float
    prices: Array
    power_kw: Array
    voltage_pu: Array
    head_kw: Array
    trafo_kw: Array
    unserved_kwh: Array
    regulation: Array

    @cached_property
    def fleet_kw(self) -> Array:
        """Power of the aggregator's EVs, (member,) kW."""
        return np.asarray(self.power_kw.sum(axis=(1, 2)))

    @cached_property
    def group_kw(self) -> Array:
        """Power of each group with EVs of the aggregator, everything included, (member, group) kW; by its
        ``group``.
        """
        run, trafos = self.run, self.trafo_kw.shape[1]
        settings = run.scenario.aggregators.get(run.aggregator)
        if trafos and (settings is None or settings.group == "transformer"):
            return self.trafo_kw[:, np.isin(np.arange(trafos), run.context.ev_group % run.context.groups)]
        return np.asarray(self.head_kw.sum(axis=1, keepdims=True))


Reward = Callable[[Outcome], Array]
"""A part of the reward: of an outcome, (member,)."""


@dataclass(frozen=True)
class Cost:
    """Cost of energy of the aggregator's EVs, netted within each connection and phase; minus currency."""

    def check(self, run: Stepwise) -> None:
        """Raise ScenarioError if there are no prices."""
        if run.context.prices is None:
            raise ScenarioError(["reward = cost: needs a tariff or system.energy_price"])

    def __call__(self, outcome: Outcome) -> Array:
        """See :data:`Reward`."""
        drawn, given = outcome.prices
        hours, power = outcome.step_s / 3600.0, outcome.power_kw
        if drawn == given:
            return np.asarray(-hours * drawn * outcome.fleet_kw)
        both = np.where(power > 0, drawn * power, given * power)
        return -hours * np.asarray(both.sum(axis=(1, 2)))


@dataclass(frozen=True)
class Unserved:
    """Energy at the meter still missing to the target at departure; minus kWh."""

    def __call__(self, outcome: Outcome) -> Array:
        """See :data:`Reward`."""
        return -outcome.unserved_kwh


@dataclass(frozen=True)
class VoltageViolations:
    """Depth of the voltages of connection points below ``low`` or above ``high``, summed over them and their
    phases and integrated over time; minus pu·h. Those without supply don't count.
    """

    low: float = 0.9
    high: float = 1.1

    def __call__(self, outcome: Outcome) -> Array:
        """See :data:`Reward`."""
        voltage = outcome.voltage_pu
        depth = np.maximum(self.low - voltage, 0.0) * (voltage > 0) + np.maximum(voltage - self.high, 0.0)
        return -outcome.step_s / 3600.0 * np.asarray(depth.sum(axis=(1, 2)))


@dataclass(frozen=True)
class LimitExcess:
    """Energy beyond the limit of each group, drawn or fed back; minus kWh.

    limit_kw : left out: ``limit_kw`` and ``export_limit_kw`` of the aggregator
    """

    limit_kw: float | None = None

    def check(self, run: Stepwise) -> None:
        """Raise ScenarioError if there is no limit."""
        if self._limits(run)[0] is None:
            raise ScenarioError(["reward = limit_excess: needs a limit_kw, of the aggregator or its own"])

    def _limits(self, run: Stepwise) -> tuple[Any, Any]:
        """Most that a group may draw and feed back, kW; None without a limit."""
        settings = run.scenario.aggregators.get(run.aggregator)
        if self.limit_kw is not None:
            return self.limit_kw, self.limit_kw
        most, back = (getattr(settings, name, None) for name in ("limit_kw", "export_limit_kw"))
        return most, most if back is None else back

    def __call__(self, outcome: Outcome) -> Array:
        """See :data:`Reward`."""
        most, back = self._limits(outcome.run)
        power = outcome.group_kw
        beyond = np.maximum(power - most, 0.0) + np.maximum(-power - back, 0.0)
        return -outcome.step_s / 3600.0 * np.asarray(beyond.sum(axis=1))


@dataclass(frozen=True)
class Regulation:
    """How precisely the EVs follow the regulation signal: ``1 - |response - signal|``, in hours.

    The response is the power below ``baseline_kw``, per unit of ``capacity_kw``; the term is the precision
    of PJM's score, here of each tick.
    """

    capacity_kw: float
    baseline_kw: float = 0.0

    def __call__(self, outcome: Outcome) -> Array:
        """See :data:`Reward`."""
        response = (self.baseline_kw - outcome.fleet_kw) / self.capacity_kw
        return outcome.step_s / 3600.0 * (1.0 - np.abs(response - outcome.regulation))


REWARDS: dict[str, Callable[[], Reward]] = {
    "cost": Cost, "unserved": Unserved, "voltage_violations": VoltageViolations, "limit_excess": LimitExcess,
}  # fmt: skip
"""Ready-made parts of a reward by name; ``Regulation`` needs a capacity."""


def rewards_of(given: Any) -> dict[str, tuple[float, Reward]]:
    """Weight and part by name: of a name or a function, or of a mapping of those to weights."""
    weights = given if isinstance(given, Mapping) else {given: 1.0}
    found: dict[str, tuple[float, Reward]] = {}
    for part, weight in weights.items():
        if isinstance(part, str) and part in REWARDS:
            found[part] = float(weight), REWARDS[part]()
        elif callable(part):
            found[getattr(part, "__name__", type(part).__name__)] = float(weight), part
        else:
            listed = ", ".join(REWARDS)
            raise ScenarioError(
                [f"reward = {part}: must be one of {listed}, a function of an outcome, or weights of those"]
            )
    if not found:
        raise ScenarioError(["reward: give one part at least"])
    return found
