"""States of charge by departure that signals ask for (CHARGE_STATE_SETPOINT of OpenADR).

A session's target is that of the signal that holds at its departure, by what is known when the EV arrives;
without one it is the driver's. It is not below the state of charge to which the EV may be discharged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array, EVs
from evgrid.fleet.sessions.sessions import Sessions
from evgrid.readers.signals import Known, Signals

KIND = "charge"
_BEFORE_S = 1e-3


def with_targets(
    sessions: Sessions, evs: EVs, signals: Signals, labels: Sequence[NDArray[np.str_]], names: frozenset[str]
) -> Sessions:
    """The sessions with the targets of signals.

    labels : names of each EV by which a signal may target it, (ev,) each
    names : targets that are for all EVs
    """
    if KIND not in signals.kinds:
        return sessions
    target = sessions.soc_target.copy()
    versions = np.array([signals.version(max(float(t), 0.0)) for t in sessions.arrival_s])
    for version in np.unique(versions):
        here = np.flatnonzero(versions == version)
        known = signals.known(max(float(sessions.arrival_s[here[0]]), 0.0))
        for rows, of_these in _by_targets(known, sessions.ev[here], labels, names):
            found = _at(of_these, sessions.departure_s[here[rows]] - _BEFORE_S)
            target[here[rows]] = np.where(np.isnan(found), target[here[rows]], found)
    return replace(sessions, soc_target=np.maximum(target, sessions.soc_floor))


def _by_targets(
    known: Known, ev: NDArray[np.int32], labels: Sequence[NDArray[np.str_]], names: frozenset[str]
) -> list[tuple[NDArray[np.int64], Known]]:
    """Rows of ``ev`` for which the same signals are, and these."""
    sets = known.targets(KIND)
    fits = np.zeros((len(ev), len(sets)), np.bool_)
    for place, targets in enumerate(sets):
        named = np.array(sorted(targets)) if targets else np.zeros(0, "U1")
        fits[:, place] = not targets or bool(targets & names)
        for label in labels:
            fits[:, place] |= np.isin(label[ev], named)
    patterns, of_row = np.unique(fits, axis=0, return_inverse=True)
    found = []
    for number, pattern in enumerate(patterns):
        theirs = {sets[place] for place in np.flatnonzero(pattern)}
        blocks = [block for block in known.blocks if block.kind == KIND and block.targets in theirs]
        found.append((np.flatnonzero(of_row.reshape(-1) == number), Known(blocks)))
    return found


def _at(known: Known, times_s: Array) -> Array:
    """The value that wins at each time, NaN without one."""
    winners = known.winners(KIND, None)
    if not winners:
        return np.full(len(times_s), np.nan)
    begins, ends, values = np.array([(begin, end, block.value) for begin, end, block in winners]).T
    place = begins.searchsorted(times_s, "right") - 1
    return np.where((place >= 0) & (times_s < ends[place]), values[place], np.nan)
