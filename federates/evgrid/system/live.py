"""Signals that come from a server during a run.

In: at each tick the simulated time; every ``every_s`` of it the server is asked. Out: signals that grow
(:class:`LiveSignals`), known from the tick at which they came.

A run that keeps to wall time (``time.speed``) does not wait for answers: they count from the tick by which
they have come. Another waits for each. While the server does not answer, what is known holds, which is said
once; at the begin of a run it must answer.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import numpy as np

from evgrid.core.model import Clock
from evgrid.errors import RunError
from evgrid.readers.faults import shown
from evgrid.readers.signals import Block, Signals

logger = logging.getLogger("evgrid")
LONGEST_S = 30.0
"""Longest time that a run waits for an answer, however slowly it comes, s of wall time."""
_Answer = TypeVar("_Answer")


class LiveSignals(Signals):
    """Signals that come during the run.

    baselines : functions of each aggregator, of begin and end (s): mean power if its EVs charged at once, kW
    opted_out : share of the EVs that opted out of each event, by aggregator and event
    """

    live = True

    def __init__(self, kinds: Iterable[str]) -> None:
        super().__init__()
        self._kinds = frozenset(kinds)
        self.baselines: list[Callable[[float, float], float]] = []
        self.opted_out: dict[str, dict[str, float]] = {}

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds that may come."""
        return self._kinds

    def take(self, blocks: Iterable[Block]) -> None:
        """Take the blocks of all versions so far."""
        self._set(blocks)


class LiveSource(ABC):
    """A server that is asked during a run.

    what : name in messages, such as "system.openadr: the VTN https://vtn.example"
    every_s : simulated time between two questions, s
    record : file into which is written what comes; None: none
    signals : which grow
    waits : whether a tick waits for the answer
    """

    def __init__(
        self, what: str, every_s: float, record: str | None, signals: LiveSignals, waits: bool
    ) -> None:
        self.what, self._every_s, self.signals, self.waits = what, every_s, signals, waits
        self.answers = True
        self._asked: Future[Any] | None = None
        self._open: list[Future[Any]] = []
        self._next_s = 0.0
        self._record = Path(record) if record is not None else None
        self.held_until = -np.inf
        """``time.monotonic`` until which it waited for the server."""

    @abstractmethod
    def ask(self) -> Any:
        """What the server has now; in a thread of its own."""

    @abstractmethod
    def take(self, answer: Any, time_s: float) -> None:
        """Take an answer of :meth:`ask` into the signals, at a tick."""

    def count(self, time_s: float, power_kw: float, step_s: float) -> None:
        """Count the EVs' power of the tick that ended at ``time_s``; by default nothing."""

    def tick(self, time_s: float, clock: Clock) -> None:
        """Take what has come by a tick, and ask if it is time to.

        Raises RunError if the server gives no answer at the begin of the run.
        """
        first = time_s == 0.0
        if first and self._record is not None:
            self._record.write_text("", encoding="utf-8")
        if self._asked is None and time_s >= self._next_s - 1e-6:
            self._asked = self.submit(self.ask)
            self._next_s = time_s + self._every_s
        if self._asked is None or not (self.waits or first or self._asked.done()):
            return
        try:
            answer = self._asked.result(LONGEST_S)
        except Exception as error:  # whatever a server can do wrong
            if first:
                raise RunError(
                    f"{self.what} gives no answer at the begin of the run: {reason(error)}"
                ) from None
            self.lost(
                f"gives no answer at {clock.stamp(time_s)}: {reason(error)}; the last known values hold"
            )
        else:
            if not self.answers:
                logger.warning("%s answers again at %s", self.what, clock.stamp(time_s))
            self.answers = True
            self.take(answer, time_s)
        self._asked, self.held_until = None, monotonic()

    def lost(self, text: str) -> None:
        """Say once that the server is lost."""
        if self.answers:
            logger.warning("%s %s", self.what, text)
        self.answers = False

    def write(self, lines: Iterable[str]) -> None:
        """Add lines to the record."""
        if self._record is not None:
            with self._record.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)

    def submit(self, call: Callable[[], _Answer]) -> Future[_Answer]:
        """Call something of the server in a thread that does not keep the program from ending."""
        future = Future[_Answer]()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="evgrid-signals", daemon=True).start()
        self._open = [other for other in self._open if not other.done()] + [future]
        return future

    def close(self) -> None:
        """Leave: a run that waits for answers also waits for what is under way."""
        if self.waits:
            wait(self._open, LONGEST_S)


def reason(error: BaseException) -> str:
    """Kind and first line of an error."""
    text = shown(str(error).splitlines()[0] if str(error) else "")
    return type(error).__name__ if text == "nothing" else f"{type(error).__name__}: {text}"


def stamp(moment: datetime) -> str:
    """A time of UTC as records and messages have it."""
    return moment.isoformat().replace("+00:00", "Z")
