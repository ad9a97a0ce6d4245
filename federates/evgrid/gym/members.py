"""EVs by member and group: totals, and tables with a row a member and a column an EV."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.aggregator.kernels import bounds
from evgrid.aggregator.strategy import Context, View
from evgrid.core.jit import njit
from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.runs.stepwise import Stepwise

PLUGGED, NEEDED, MOST, LEAST, MUST, DRAW, GIVE = range(7)
"""Columns of :func:`totals`."""


def totals(view: View, group: NDArray[np.int64], groups: int) -> Array:
    """Totals over the EVs plugged in of each group, (groups, 7): their number, the energy that they need
    (kWh), most and least power (kW), the mean power over the tick that can't wait for the next, that they
    can draw, and that they can give and still meet their departures (kW, at most 0).

    ``group``: (ev,) the group of each EV.
    """
    rows = np.flatnonzero(view.plugged).astype(np.uint32) if view.rows is None else view.rows
    found = np.zeros((groups, 7))
    _add(
        rows, group, view.energy_needed, view.p_max, view.p_min, view.time_left, view.time_needed,
        view.step_s, found,
    )  # fmt: skip
    return found


@njit
def _add(
    rows: NDArray[np.uint32], group: NDArray[np.int64], energy_needed: NDArray[np.float64],
    p_max: NDArray[np.float64], p_min: NDArray[np.float64], time_left: NDArray[np.float64],
    time_needed: NDArray[np.float64], step_s: float, found: NDArray[np.float64],
) -> None:  # fmt: skip
    for ev in rows:
        least, most = bounds(p_max[ev], p_min[ev], time_left[ev], time_needed[ev], step_s)
        row = found[group[ev]]
        row[PLUGGED] += 1.0
        row[NEEDED] += energy_needed[ev]
        row[MOST] += p_max[ev]
        row[LEAST] += p_min[ev]
        row[MUST] += max(least, 0.0)
        row[DRAW] += most
        row[GIVE] += min(least, 0.0)


def counts(context: Context) -> NDArray[np.int64]:
    """Number of EVs of each member, (member,)."""
    return np.bincount(context.evs.member, minlength=context.members)


def places(context: Context) -> NDArray[np.int64]:
    """Place of each EV among those of its member, (ev,)."""
    member = context.evs.member
    return np.arange(len(member)) - np.searchsorted(member, np.arange(context.members))[member]


def padded(run: Stepwise, most: int | None) -> int:
    """EVs of a member at most. Raises ScenarioError if one has more than ``most``."""
    found = int(counts(run.context).max(initial=0))
    if most is not None and found > most:
        raise ScenarioError([f"most = {most}: must be at least {found}, the EVs of a member in this episode"])
    return found if most is None else most


def table(run: Stepwise, values: Array, most: int) -> Array:
    """A row a member and a column an EV, 0 where a member has fewer: (ev, ...) to (member, most, ...)."""
    context = run.context
    rows = np.zeros((context.members, most, *values.shape[1:]))
    rows[context.evs.member, places(context)] = values
    return rows
