"""The link to each EVSE: when a set-point arrives, and what an EVSE does when none comes.

In: the set-points that the aggregator sent in a tick, kW. Out: those that the EVSEs go by. A set-point
that is lost, or would arrive during an outage, is gone; the EVSE keeps the last one it heard. Once that is
older than the time-out, it falls back. An EVSE that never heard one has heard 0 at the start. Its own
schedule counts by local time at a tick's beginning.

Latency is counted in whole ticks, rounded up. What is lost is drawn tick by tick, so a shorter tick
loses as large a share of more set-points; latencies and outages don't depend on the tick.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit
from evgrid.core.model import Array, EVs
from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S
from evgrid.scenario import Scenario
from evgrid.scenario.communication import ScheduledPower
from evgrid.scenario.fields import day_numbers

_FALLBACK_KW = {"uncontrolled": np.inf, "stop": 0.0, "last": np.nan}


@njit
def receive(
    time_s: float,
    arriving_kw: NDArray[np.float64],
    outage_begin_s: NDArray[np.float64],
    outage_end_s: NDArray[np.float64],
    next_outage: NDArray[np.int64],
    last_outage: NDArray[np.int64],
    held_kw: NDArray[np.float64],
    heard_s: NDArray[np.float64],
    timeout_s: float,
    fallback_kw: NDArray[np.float64],
    command_kw: NDArray[np.float64],
) -> None:
    """Set-points that the EVSEs go by at ``time_s``; fills ``command_kw``, (ev,).

    arriving_kw : (ev,), NaN where nothing arrives
    outage_begin_s, outage_end_s : (outage,), sorted by EV and beginning
    next_outage, last_outage : (ev,), range of the EV's outages; those that are over are passed, updated
    held_kw, heard_s : (ev,), the last set-point heard and when, updated
    fallback_kw : (ev,), NaN keeps the last
    """
    for ev in range(len(held_kw)):
        at = next_outage[ev]
        while at < last_outage[ev] and outage_end_s[at] <= time_s:
            at += 1
        next_outage[ev] = at
        down = at < last_outage[ev] and outage_begin_s[at] <= time_s
        if not down and arriving_kw[ev] == arriving_kw[ev]:
            held_kw[ev] = arriving_kw[ev]
            heard_s[ev] = time_s
        stale = time_s - heard_s[ev] >= timeout_s and fallback_kw[ev] == fallback_kw[ev]
        command_kw[ev] = fallback_kw[ev] if stale else held_kw[ev]


def scheduled(
    schedule: Sequence[ScheduledPower], start: np.datetime64, time_s: float
) -> ScheduledPower | None:
    """The window of an EVSE's own schedule that holds ``time_s`` after ``start``, None outside of all."""
    midnight = start.astype("datetime64[D]")
    hours = float((start - midnight) / np.timedelta64(1, "s") + time_s) / 3600.0 + 1e-9
    weekday = (int(midnight.astype(np.int64)) + 3 + int(hours // 24.0)) % 7  # 1970-01-01 was a Thursday
    hour = hours % 24.0
    for window in schedule:
        over = window.until <= window.begin  # ends on the day after
        for day, now in ((weekday, hour), ((weekday - 1) % 7, hour + 24.0)):
            if day in day_numbers(window.days) and window.begin <= now < window.until + 24.0 * over:
                return window
    return None


class Link:
    """The links of all EVSEs of a run.

    ``rated_kw``: (ev,), what shares in the EVSEs' own schedule are of; ``loss``: (ev,), share of each one's
    set-points that are lost; left out: the scenario's.
    """

    def __init__(self, scenario: Scenario, evs: EVs, rated_kw: Array, loss: Array | None = None) -> None:
        settings = scenario.communication
        count, seed = len(evs), scenario.ensemble.seed
        self._loss, self._timeout_s = settings.loss if loss is None else loss, settings.timeout or np.inf
        self._loses = bool(np.any(self._loss))
        self._schedule, self._start, self._rated_kw = settings.schedule, scenario.start, rated_kw
        self._fallback_kw = np.full(count, _FALLBACK_KW.get(settings.fallback, 0.0))
        bounds = np.searchsorted(evs.member, np.arange(len(scenario.members) + 1))
        self._counts = np.diff(bounds)
        latency, begins, ends, numbers = [], [], [], []
        days = scenario.clock.duration_s / DAY_S
        for member, n in zip(scenario.members, self._counts.tolist(), strict=True):
            latency.append(stream(seed, member, Purpose.LINK_LATENCY).random(n) * settings.latency)
            number = stream(seed, member, Purpose.LINK_OUTAGE).poisson(settings.outages_per_day * days, n)
            total = int(number.sum())
            begin = stream(seed, member, Purpose.LINK_OUTAGE, 1).random(total) * scenario.clock.duration_s
            spell = stream(seed, member, Purpose.LINK_OUTAGE, 2).exponential(settings.outage_duration, total)
            order = np.lexsort((begin, np.repeat(np.arange(n), number)))
            begins.append(begin[order])
            ends.append((begin + spell)[order])
            numbers.append(number)
        self.latency_s: Array = np.concatenate(latency) if latency else np.zeros(0)
        self._ticks = np.ceil(self.latency_s / scenario.time.step - 1e-9).astype(np.int64)
        self._begin_s, self._end_s = np.concatenate(begins), np.concatenate(ends)
        self._last = np.cumsum(np.concatenate(numbers))
        self._next = np.concatenate([[0], self._last[:-1]]).astype(np.int64)
        depth = int(self._ticks.max(initial=0)) + 1
        self._sent = np.full((depth, count), np.nan)
        self._held_kw, self._heard_s, self._command_kw = np.zeros(count), np.zeros(count), np.zeros(count)
        self._evs = np.arange(count)
        self._losses = [stream(seed, member, Purpose.MESSAGE_LOSS) for member in scenario.members]

    def commands(self, tick: int, time_s: float, setpoint_kw: Array) -> Array:
        """The set-points that the EVSEs go by in a tick, (ev,); valid until the next call."""
        depth = len(self._sent)
        row = self._sent[tick % depth]
        row[:] = setpoint_kw
        if self._loses:
            drawn = [rng.random(n) for rng, n in zip(self._losses, self._counts, strict=True)]
            row[np.concatenate(drawn) < self._loss] = np.nan
        if self._schedule is not None:
            window = scheduled(self._schedule, self._start, time_s)
            if window is None:
                self._fallback_kw[:] = 0.0
            elif window.share is not None:
                self._fallback_kw[:] = window.share * self._rated_kw
            else:
                self._fallback_kw[:] = window.power_kw
        arriving = row if depth == 1 else self._sent[(tick - self._ticks) % depth, self._evs]
        receive(
            time_s, arriving, self._begin_s, self._end_s, self._next, self._last, self._held_kw,
            self._heard_s, self._timeout_s, self._fallback_kw, self._command_kw,
        )  # fmt: skip
        return self._command_kw
