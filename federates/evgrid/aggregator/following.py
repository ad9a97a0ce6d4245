"""Set-points and limits of signals from outside, kept whatever the strategy.

In: the set-points of the strategy, and what is known of signals. Out: set-points that follow them, tick by
tick.

1. **Power.** While a set-point of power holds at the begin of a tick, its EVs draw (or give, below 0) that
power together, shared by laxity: those of each member. A relative one is added to what they would draw by the
strategy's set-points. Where a set-point for all and one for some hold, that of the better rank has the EVs
that both name. 2. **Limits.** In a tick in which a limit holds at any time, the least one counts: its EVs
draw, or give, no more than that together (``limits_of: evs``), or each of their groups with its other load
(``limits_of: group``).

Both yield to departures, as the EVSE's guard does. A signal without targets, or with the name of the
aggregator or a target of the run, is for all of the aggregator's EVs; else for those that it names by the EV,
its connection point, or the transformer next upstream.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evgrid.aggregator.dispatch import Dispatching, DispatchSettings
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Array
from evgrid.readers.signals import Block, Known

LIMITS = ("import_limit", "export_limit")
FOLLOWED = ("power", "power_change", *LIMITS)
"""Kinds of signals that set-points follow."""


@dataclass(frozen=True)
class _Scope:
    """EVs for which signals are, (ev,), and those signals."""

    evs: NDArray[np.bool_]
    known: Known


class _Sharing(Dispatching):
    """Shares powers over the EVs of groups, for nobody's strategy."""

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        raise NotImplementedError


class Following:
    """Changes an aggregator's set-points so that they follow signals.

    context : of the aggregator, with the groups of its limits
    labels : names of each EV by which a signal may target it, (ev,) each
    of_group : whether limits are of groups with their other load, else of the EVs only
    """

    def __init__(self, context: Context, labels: Collection[NDArray[np.str_]], of_group: bool) -> None:
        settings = DispatchSettings(strategy="signals")
        whole = replace(context, groups=1, ev_group=context.evs.member)
        self._of_group, self._labels = of_group, tuple(labels)
        self._members = _Sharing(settings, whole)
        self._limited = _Sharing(settings, context if of_group else whole)
        self._scopes: list[_Scope] = []

    def know(self, known: Known) -> None:
        """Take what is known from now on."""
        blocks: dict[bytes, tuple[NDArray[np.bool_], list[Block]]] = {}
        for block in known.blocks:
            if block.kind in FOLLOWED:
                mask = self._targeted(block.targets)
                blocks.setdefault(mask.tobytes(), (mask, []))[1].append(block)
        self._scopes = [_Scope(mask, Known(of)) for mask, of in blocks.values() if mask.any()]

    def follow(self, view: View, wanted: Array) -> Array:
        """The set-points ``wanted``, (ev,) kW, changed so that they follow the signals."""
        powers = list[tuple[Block, _Scope]]()
        for scope in self._scopes:
            found = (scope.known.at(kind, view.time_s, None) for kind in ("power", "power_change"))
            holding = [block for block in found if block is not None]
            if holding:
                powers.append((min(holding, key=lambda block: block.rank), scope))
        for block, scope in sorted(powers, key=lambda pair: pair[0].rank, reverse=True):
            wanted = self._power(view, wanted, block, scope.evs)
        for scope in self._scopes:
            most, least = (
                scope.known.least(kind, view.time_s, view.time_s + view.step_s, None) for kind in LIMITS
            )
            if np.isfinite(most) or np.isfinite(least):
                wanted = self._limit(view, wanted, -least, most, scope.evs)
        return wanted

    def _power(self, view: View, wanted: Array, block: Block, evs: NDArray[np.bool_]) -> Array:
        members, member = self._members.context.members, self._members.context.evs.member
        part = _only(view, evs)
        target = np.full(members, block.value)
        if block.kind == "power_change":
            here = np.minimum(np.minimum(view.time_needed, view.time_left) / view.step_s, 1.0)
            drawn = np.minimum(np.clip(wanted, part.p_min, part.p_max), part.p_max * here)
            target += np.bincount(member, drawn, members)
        return np.where(evs, self._members.dispatch(part, target), wanted)

    def _limit(
        self, view: View, wanted: Array, least_kw: float, most_kw: float, evs: NDArray[np.bool_]
    ) -> Array:
        context = self._limited.context
        group, groups = context.ev_group, context.members * context.groups
        low, high = np.full(groups, least_kw), np.full(groups, most_kw)
        if self._of_group:
            reached = np.bincount(group[evs], minlength=groups) > 0
            low = np.where(reached, least_kw - view.base_load, -np.inf)
            high = np.where(reached, most_kw - view.base_load, np.inf)
            evs = reached[group]
        part = _only(view, evs)
        asked = np.clip(np.where(evs, wanted, 0.0), part.p_min, part.p_max)
        kept = self._limited.keep_within(
            part, np.where(evs, wanted, 0.0), asked, low, high, np.ones(len(evs), np.bool_)
        )
        return np.where(evs, kept, wanted)

    def _targeted(self, targets: frozenset[str]) -> NDArray[np.bool_]:
        count = len(self._members.context.evs)
        if not targets or targets & self._members.context.names:
            return np.ones(count, np.bool_)
        named = np.array(sorted(targets))
        found = np.zeros(count, np.bool_)
        for label in self._labels:
            found |= np.isin(label, named)
        return found


def _only(view: View, evs: NDArray[np.bool_]) -> View:
    """The view in which the other EVs have no power."""
    if evs.all():
        return view
    return replace(view, p_max=np.where(evs, view.p_max, 0.0), p_min=np.where(evs, view.p_min, 0.0))
