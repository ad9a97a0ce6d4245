"""A tick of the whole fleet, basic or detailed.

Those that arrive join those plugged in; then, in as many threads as there are cores, since none knows of
another, each EV is advanced that neither arrives nor leaves; then, in one thread, the few others, even if
they leave, or leave and come again, within the tick. An EV that is away costs nothing.

Power is added up in one order, whatever the threads: by rows, and last of all those that arrive or leave.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import in_threads, take_turns
from evgrid.fleet.kernels import basic_step, detailed_step
from evgrid.fleet.kernels.records import Details, Fleet, Results, SessionTable, Tick
from evgrid.fleet.kernels.reports import report_ev_results
from evgrid.fleet.kernels.sessions import arrive, compact_departed
from evgrid.fleet.kernels.slots import add_up, adds_at_once, clear_after


def step(
    tick: Tick, sessions: SessionTable, fleet: Fleet, details: Details | None, results: Results, cursor: int,
    gone: NDArray[np.int64],
) -> tuple[int, NDArray[np.int64]]:  # fmt: skip
    """Advance all EVs over a tick.

    Parameters
    ----------
    tick, sessions, fleet, details, results
        See :mod:`.records`; ``sessions``, ``fleet`` and ``details`` are updated, ``results`` filled. Without
        ``details`` the step is the basic one.
    cursor
        How many of the sessions have arrived.
    gone
        Slots of those that left in the last tick, see :func:`.sessions.compact_departed`.

    Returns the new ``cursor`` and ``gone``.

    """
    end_s = tick.begin_s + tick.step_s
    places = fleet.places
    powers = [(results.power_kw, results.mean_kw)]
    if details is not None:
        powers.append((results.reactive_kvar, results.mean_kvar))
    if len(gone):
        for power, _ in powers:
            clear_after(gone, power)
    if cursor < len(sessions.by_arrival) and sessions.arrival_s[sessions.by_arrival[cursor]] < end_s:
        cursor = arrive(end_s, sessions, fleet, cursor)
    if len(tick.segments.first):
        detailed_step.mark_segmented(tick.segments, places, fleet.state)
    results.plugged[:] = places.plugged
    changing = np.zeros(len(places.filled) + 1, np.int64)

    def advance(counters: NDArray[np.int64], thread: int) -> None:
        if details is None:
            basic_step.advance_staying(counters, thread, tick, fleet, results, changing)
        else:
            detailed_step.advance_staying(counters, thread, tick, sessions, fleet, details, results, changing)

    take_turns(advance, len(places.parts) - 1)
    if not adds_at_once(results):
        for power, mean in powers:
            adding = (places, fleet.state, power, mean)
            in_threads(lambda low, high: add_up(low, high, *adding), len(results.plugged), 1)  # noqa: B023
    if changing[-1] and details is None:
        basic_step.advance_changing(changing, tick, sessions, fleet, results)
    elif changing[-1] and details is not None:
        detailed_step.advance_changing(changing, tick, sessions, fleet, details, results)
    if len(results.ev_power_kw):
        report_ev_results(places, fleet.state, results.mean_kw, results.ev_power_kw, results.ev_soc)
    if changing[-1]:
        return cursor, compact_departed(changing, places, fleet.state, fleet.columns)
    return cursor, gone[:0]
