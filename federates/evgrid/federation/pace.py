"""Pace of a run: keeps its ticks to wall time, and measures how late they are.

One federate waits for all: the one that leads the ticks (:func:`leader`). It waits before each of its steps,
and HELICS grants no other federate a time that the leader has yet to pass. Tick k is due at
``start + k · step / speed`` of a monotonic clock, whatever the ticks before it took, so that nothing adds up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from evgrid.core.model import Clock
from evgrid.federation.wiring import Place

_LONGEST_WAIT_S = 60.0
_NOTICE_S = 1.0


@dataclass(frozen=True, slots=True)
class Lateness:
    """Lateness of the steps of the federate that leads the ticks: by which they begin after they are due, s.

    speed : simulated seconds in a second of wall time
    steps, late_steps : number of steps, and of those that were reached after they were due
    mean_s, worst_s : mean and greatest lateness, s: of a step that was waited for, that of the waking
    worst_at_s : simulated time of the greatest one
    waited_s : wall time that was waited, s
    """

    speed: float
    steps: int
    late_steps: int
    mean_s: float
    worst_s: float
    worst_at_s: float
    waited_s: float


class Pace:
    """Holds the steps of one federate until they are due; the first is due when it is reached.

    period_s : time between two steps, s
    behind : called with simulated time and lateness where a step is later than a period and a second, and
        again where it is ten times later than that
    now, wait : the clock, and a wait of some seconds that returns whether the run has ended
    """

    def __init__(
        self,
        speed: float,
        period_s: float,
        behind: Callable[[float, float], None],
        *,
        now: Callable[[], float] = monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.speed = speed
        self._behind, self._now = behind, now
        self._ended = threading.Event()
        self._wait = wait or self._ended.wait
        self._noticed_s = max(period_s / speed, _NOTICE_S)
        self._start = 0.0
        self._steps = self._late_steps = 0
        self._sum_s = self._worst_s = self._worst_at_s = self._waited_s = 0.0

    def hold(self, time_s: float) -> bool:
        """Wait until the step at a simulated time is due; returns whether it is: not where the run ended."""
        reached = now = self._now()
        if not self._steps:
            self._start = reached - time_s / self.speed
        due = self._start + time_s / self.speed
        while now < due:
            if self._wait(min(due - now, _LONGEST_WAIT_S)):
                return False
            now = self._now()
        late_s = max(now - due, 0.0)
        self._steps += 1
        self._late_steps += reached > due
        self._sum_s += late_s
        self._waited_s += now - reached
        if late_s > self._worst_s:
            self._worst_s, self._worst_at_s = late_s, time_s
        if late_s > self._noticed_s:
            self._noticed_s = 10 * late_s
            self._behind(time_s, late_s)
        return True

    def end(self) -> None:
        """End a wait, and all later ones; from any thread."""
        self._ended.set()

    @property
    def lateness(self) -> Lateness:
        """Lateness of the steps so far."""
        mean_s = self._sum_s / max(self._steps, 1)
        return Lateness(
            self.speed, self._steps, self._late_steps, mean_s, self._worst_s, self._worst_at_s, self._waited_s
        )


def leader(places: Sequence[Place], external: Collection[str]) -> Place:
    """The federate that leads the ticks: of evgrid's own with the shortest period, the first to step."""
    return min((place for place in places if place.model.name not in external), key=lambda p: p.stride)


def behind_text(
    clock: Clock, speed: float, time_s: float, late_s: float, stepping_s: Mapping[str, float]
) -> str:
    """Warning on a run that does not keep its pace; ``stepping_s``: wall time in each federate's steps."""
    text = (
        f"the run does not keep its pace (time.speed = {speed:g}): at {clock.stamp(time_s)} "
        f"({time_s:.9g} s) it is {late_s:.3g} s late"
    )
    if not any(stepping_s.values()):
        return text
    slowest = max(stepping_s, key=lambda name: stepping_s[name])
    return f"{text}; of evgrid's federates {slowest} has taken longest, {stepping_s[slowest]:.3g} s so far"
