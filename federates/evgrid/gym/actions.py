"""What an agent does: actions of each member, and the set-points that they stand for.

An action is a share, -1 to 1, or with ``kw`` a power in kW, of each EV, of each group (by transformer or of
the whole feeder, as the aggregator's ``group`` says) or of all EVs of the member. A power of several EVs is
split by laxity. Positive charges. A share of 1 is all that the EVs can draw over the tick, -1 all that they
can give; where none may discharge, shares begin at 0. Whatever the action, each charger guards its driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.gym.members import DRAW, GIVE, padded, places, totals
from evgrid.runs.stepwise import Stepwise


@dataclass(frozen=True)
class Act:
    """Base of the ready-made actions.

    kw : whether an action is a power in kW, without bounds, rather than a share
    """

    kw: bool = False

    def size(self, run: Stepwise) -> int:
        """Numbers in the action of a member."""
        raise NotImplementedError

    def space(self, run: Stepwise) -> Box:
        """Space of the actions of a member."""
        shape = (self.size(run),)
        if self.kw:
            return Box(-np.inf, np.inf, shape, np.float64)
        return Box(-1.0 if _may_discharge(run) else 0.0, 1.0, shape, np.float32)

    def __call__(self, run: Stepwise, actions: Array) -> Array:
        """Set-points, (ev,) kW, of actions, (member, n)."""
        raise NotImplementedError


@dataclass(frozen=True)
class ByEV(Act):
    """A set-point an EV, in the order of ``context.evs``; of a member with fewer than others the last are
    ignored.

    most : EVs of a member at most; left out: those of the member that has most in the first episode
    """

    most: int | None = None

    def size(self, run: Stepwise) -> int:
        """See ``Act``."""
        return padded(run, self.most)

    def __call__(self, run: Stepwise, actions: Array) -> Array:
        """See ``Act``."""
        evs, view = run.context.evs, run.live_view
        padded(run, actions.shape[1])
        given = actions[evs.member, places(run.context)]
        return given if self.kw else np.where(given > 0, given * view.p_max, -given * view.p_min)


@dataclass(frozen=True)
class ByGroup(Act):
    """A power of the EVs of each group."""

    def size(self, run: Stepwise) -> int:
        """See ``Act``."""
        return run.context.groups

    def __call__(self, run: Stepwise, actions: Array) -> Array:
        """See ``Act``."""
        context = run.context
        rows = context.members * context.groups
        return _split(run, actions.reshape(-1), context.ev_group, rows, self.kw)


@dataclass(frozen=True)
class ByPortfolio(Act):
    """A power of all EVs of a member, split by laxity whatever their group."""

    def size(self, run: Stepwise) -> int:
        """See ``Act``."""
        return 1

    def __call__(self, run: Stepwise, actions: Array) -> Array:
        """See ``Act``."""
        context = run.context
        return _split(run, actions[:, 0], context.evs.member, context.members, self.kw)


def _split(run: Stepwise, given: Array, group: NDArray[np.int64], groups: int, kw: bool) -> Array:
    """Set-points of powers, or shares, of the EVs of each group or member; EVs discharge where they are
    negative.
    """
    power = given
    if not kw:
        found = totals(run.live_view, group, groups)
        power = np.where(given > 0, given * found[:, DRAW], -given * found[:, GIVE])
    return run.dispatch(power, discharge=given < 0)


ACTIONS: dict[str, Callable[[], Act]] = {"ev": ByEV, "group": ByGroup, "portfolio": ByPortfolio}
"""Ready-made actions by name."""


def action_of(given: Any) -> Act:
    """The action of a name; others as they are."""
    if isinstance(given, Act):
        return given
    if isinstance(given, str) and given in ACTIONS:
        return ACTIONS[given]()
    raise ScenarioError(
        [f"act = {given}: must be one of {', '.join(ACTIONS)}, or one of evgrid.gym's classes"]
    )


def _may_discharge(run: Stepwise) -> bool:
    planned = run.context.planned_sessions
    return planned is None or bool((planned.discharge_kw > 0).any())
