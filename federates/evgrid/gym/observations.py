"""What an agent sees: numbers of each member, (member, n), in physical units, made from the aggregator's
view.

A part is called with the run and returns its numbers; ``run.view`` says what they are. Parts are
put side by side. Scale them by Gymnasium's wrappers where an agent needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError
from evgrid.gym.members import LEAST, MOST, MUST, NEEDED, PLUGGED, padded, table, totals
from evgrid.runs.stepwise import Stepwise

Observe = Callable[[Stepwise], Array]
"""A part of the observation: of a run, (member, n)."""


@dataclass(frozen=True)
class Time:
    """Sine and cosine of the time of day, and the share of the run that is left; 3 numbers."""

    def __call__(self, run: Stepwise) -> Array:
        """See :data:`Observe`."""
        clock, time_s = run.context.clock, run.live_view.time_s
        midnight = clock.start.astype("datetime64[D]")
        of_day = 2 * np.pi * (float((clock.start - midnight) / np.timedelta64(1, "s")) + time_s) / DAY_S
        row = [np.sin(of_day), np.cos(of_day), 1.0 - time_s / clock.duration_s]
        return np.tile(row, (run.context.members, 1))


@dataclass(frozen=True)
class Prices:
    """Mean price of energy in each of the next hours, currency per kWh; ``hours`` numbers."""

    hours: int = 12

    def __call__(self, run: Stepwise) -> Array:
        """See :data:`Observe`."""
        prices = run.context.prices
        if prices is None:
            raise ScenarioError(["observe = prices: needs a tariff or system.energy_price"])
        edges_s = run.live_view.time_s + 3600.0 * np.arange(self.hours + 1.0)
        return np.tile(prices.means(edges_s)[0], (run.context.members, 1))


@dataclass(frozen=True)
class Groups:
    """Of each group: its power without the EVs (kW), EVs plugged in, the energy that they need (kWh), the
    most that they can draw and give (kW), and the power that can't wait for the next tick (kW); 6 numbers a
    group.
    """

    def __call__(self, run: Stepwise) -> Array:
        """See :data:`Observe`."""
        context, view = run.context, run.live_view
        found = totals(view, context.ev_group, context.members * context.groups)
        columns = [PLUGGED, NEEDED, MOST, LEAST, MUST]
        return np.column_stack([view.base_load, found[:, columns]]).reshape(context.members, -1)


@dataclass(frozen=True)
class EVs:
    """Of each EV: whether it is plugged in, state of charge, most and least power (kW), energy needed (kWh),
    time left and needed (h), 7 numbers; zeros while it is away, and for EVs that a member with fewer than
    others doesn't have.

    most : EVs of a member at most; left out: those of the member that has most in the first episode
    """

    most: int | None = None

    def __call__(self, run: Stepwise) -> Array:
        """See :data:`Observe`."""
        view = run.live_view
        values = np.stack(
            [
                np.ones(len(view.soc)), view.soc, view.p_max, view.p_min, view.energy_needed,
                view.time_left / 3600.0, view.time_needed / 3600.0,
            ],
            axis=1,
        )  # fmt: skip
        values[~view.plugged] = 0.0
        rows = table(run, values, padded(run, self.most))
        return rows.reshape(len(rows), -1)


@dataclass(frozen=True)
class Grid:
    """Lowest and highest voltage of the connection points with supply (pu), when the feeder last solved; 1
    before it first did. 2 numbers.
    """

    def __call__(self, run: Stepwise) -> Array:
        """See :data:`Observe`."""
        voltage = run.live_view.voltage
        by_member = voltage.reshape(len(voltage), -1)
        there = by_member > 0
        lowest = np.where(there, by_member, np.inf).min(axis=1, initial=np.inf)
        highest = np.where(there, by_member, -np.inf).max(axis=1, initial=-np.inf)
        found = np.stack([lowest, highest], axis=1)
        return np.where(np.isfinite(found), found, 1.0)


@dataclass(frozen=True)
class Signal:
    """The bulk system's regulation signal (-1 to 1) and frequency (Hz) of this tick, and the power of the
    EVs in the last (kW); 3 numbers.
    """

    def __call__(self, run: Stepwise) -> Array:
        """See :data:`Observe`."""
        view = run.live_view
        return np.stack([view.regulation, view.frequency, view.fleet_power], axis=1)


OBSERVATIONS: dict[str, Callable[[], Observe]] = {
    "time": Time, "prices": Prices, "groups": Groups, "evs": EVs, "grid": Grid, "signal": Signal,
}  # fmt: skip
"""Ready-made observations by name."""


def observations_of(given: Any) -> list[tuple[str, Observe]]:
    """Parts of an observation with their names: of a name or a function, or several."""
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    found = []
    for part in several:
        if isinstance(part, str) and part in OBSERVATIONS:
            found.append((part, OBSERVATIONS[part]()))
        elif callable(part):
            found.append((getattr(part, "__name__", type(part).__name__), part))
        else:
            listed = ", ".join(OBSERVATIONS)
            raise ScenarioError(
                [f"observe = {part}: must be one of {listed}, a function of a run, or several"]
            )
    if not found:
        raise ScenarioError(["observe: give one part at least"])
    return found


def observed(parts: list[tuple[str, Observe]], run: Stepwise) -> NDArray[np.float32]:
    """The parts side by side, (member, n) float32."""
    members, found = run.context.members, []
    for name, part in parts:
        values = np.asarray(part(run), np.float64)
        if values.ndim != 2 or len(values) != members:
            raise ScenarioError(
                [f"observe: {name} returned the shape {values.shape}: must be ({members}, n), a row a member"]
            )
        if np.isnan(values).any():
            raise ScenarioError([f"observe: {name} returned {np.isnan(values).sum()} NaN"])
        found.append(values)
    return np.concatenate(found, axis=1).astype(np.float32)
