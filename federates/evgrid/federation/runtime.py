"""Runs a federation in this process: broker, core, federates, watchdog.

In: the models, the sizes of the ports' dimensions and the clock. Out: a report of the wall
times. One in-process broker and one core carry all federates, created one after the other
by the calling thread. They are HELICS' callback federates: the core's thread calls the model whose
time has come. With a thread for each federate a tick cost 66 changes of thread and three times as
much. The calling thread watches, and handles signals. Names are unique, so that runs may follow
each other, or run beside each other from several threads.

How a run ends early: the first cause is recorded once, with federate and simulated time; no other
model is stepped again; HELICS is given a global error, everything is closed, and RunError is
raised from the cause. A model that does not return from its step can't be killed: its thread is
left behind together with its federation, and the process can go on, or exit.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import sysconfig
import threading
import traceback
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, perf_counter, sleep
from typing import Any, Protocol

import helics as h
import numpy as np

from evgrid.core.interrupts import raise_swallowed
from evgrid.core.model import Clock, Model
from evgrid.errors import EvgridError, PowerFlowError, RunError
from evgrid.federation.adapter import Adapter, ExternalFault, Stopped
from evgrid.federation.helics_io import NEVER, break_off, connect, core_global_error, end, leave_behind
from evgrid.federation.pace import Lateness, Pace, behind_text, leader
from evgrid.federation.wiring import Place, wire
from evgrid.scenario.federation import CORE_TYPE

HAND_OVER = sys.platform != "linux"
"""Whether the models run in a Python thread of their own rather than in the core's.

HELICS grants times in the core's thread. To step the models there saves two changes of thread a
step, half the time of a tick; but macOS gives such a thread a stack of 512 kB, too little to
compile kernels in.
"""

JOINING = "30s"
"""Time in which a core must reach the broker: HELICS' own is too short for a busy machine."""

_logger = logging.getLogger("evgrid")
_POLL_S = 0.1
_GRACE_S = 1.0
_PATIENCE_S = 10.0
_FAILED_S = 1.0
_creating = threading.Lock()
_process: int | None = None
"""The process that first ran a federation: a fork of it can't run another."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Longest time without progress before the watchdog ends a federation, s of wall time.

    startup_s : until HELICS' first grant, for each model's first step, in which kernels are
        compiled, and for its ``finish``
    step_s : for every other step of a model
    """

    startup_s: float = 600.0
    step_s: float = 600.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """The defaults, or EVGRID_STARTUP_LIMIT_S and EVGRID_STEP_LIMIT_S."""
        return cls(
            startup_s=_limit(environment, "EVGRID_STARTUP_LIMIT_S", cls().startup_s),
            step_s=_limit(environment, "EVGRID_STEP_LIMIT_S", cls().step_s),
        )


def _limit(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit > 0:
        raise EvgridError(f"{name} = {text}: must be a number of seconds above 0")
    return limit


@dataclass(frozen=True, slots=True)
class FederationReport:
    """Wall times of a run, s.

    setup_s, run_s, close_s : creating the federation until all have joined, from then to the end of the
        last step, closing
    steps, stepping_s, finishing_s : by federate: number of steps, time inside ``step`` and inside
        ``finish``. One federate steps at a time.
    lateness : of a run that keeps to wall time, from the process of the federate that leads the ticks
    """

    ticks: int
    setup_s: float
    run_s: float
    close_s: float
    steps: Mapping[str, int]
    stepping_s: Mapping[str, float]
    finishing_s: Mapping[str, float]
    lateness: Lateness | None = None

    @property
    def waited_s(self) -> float:
        """Part of ``run_s`` in which a run that keeps to wall time waited."""
        return self.lateness.waited_s if self.lateness is not None else 0.0

    @property
    def wall_s(self) -> float:
        """The whole run."""
        return self.setup_s + self.run_s + self.close_s

    @property
    def coupling_s(self) -> float:
        """Part of ``run_s`` outside the models and waits: HELICS, moving and checking the vectors."""
        in_models_s = sum(self.stepping_s.values()) + sum(self.finishing_s.values())
        return self.run_s - self.waited_s - in_models_s

    @property
    def coupling_us_per_tick(self) -> float:
        """``coupling_s`` in microseconds a tick."""
        return self.coupling_s / self.ticks * 1e6


class Elsewhere(Protocol):
    """The rest of a federation of which only a part runs in this process."""

    host: str
    port: int
    """Address of HELICS' broker."""

    def watch(self, adapters: Sequence[Adapter]) -> None:
        """Called several times a second with the own federates.

        Raises RunError, with its first cause, when the run has failed elsewhere.
        """

    def ended(self) -> bool:
        """Whether all federates have made their last step, so that the own ones may leave."""

    def failed(self, reason: str) -> None:
        """Called when the own part has failed, before it leaves."""

    def behind(self, speed: float, time_s: float, late_s: float, stepping_s: Mapping[str, float]) -> None:
        """Called when the run does not keep its pace, with the time in the own federates' steps; see
        :func:`.pace.behind_text`.
        """


def run_federation(
    models: Sequence[Model],
    sizes: Mapping[str, int],
    clock: Clock,
    *,
    message_delay_s: Mapping[str, float] | float = 0.0,
    speed: float | None = None,
    progress: Callable[[float], None] | None = None,
    limits: Limits | None = None,
    cancel: threading.Event | None = None,
    own: Collection[str] | None = None,
    external: Collection[str] = (),
    elsewhere: Elsewhere | None = None,
) -> FederationReport:
    """Couple models over HELICS and run them.

    models : all of the run, also those that run elsewhere
    sizes : the size of every dimension of the ports in use
    message_delay_s : delay of messages (set-points), of all or by port
    speed : simulated seconds in a second of wall time, to which the run keeps; None: as fast as it can
    progress : called from this thread, a few times a second and at the end, with the simulated
        seconds that all models have done
    limits : limits of the watchdog; from the environment where not given
    cancel : ends the run when set
    own : names of the models that run in this process; None: all
    external : names of those whose place a program of the user's own takes
    elsewhere : the rest of the federation, where not all models run in this process

    Inside a tick the models step one at a time, in causal order; each has ``finish`` called after
    its last step. May be called from any thread; signals (Ctrl-C) are handled where it is called
    from the main thread, and end the run within two seconds.

    Raises WiringError if the models don't fit together, and RunError, from the first cause, if
    the run ends early.
    """
    places = wire(models, sizes, clock, message_delay_s)
    limits = limits or Limits.from_environment()
    _refuse_fork()
    federation = _Federation(places, clock, limits, cancel, own, external, elsewhere, speed)
    start = perf_counter()
    try:
        federation.open(sizes, message_delay_s)
        federation.run(progress)
        ended = perf_counter()
    except BaseException as error:
        federation.stop(str(error) if isinstance(error, EvgridError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        federation.close()
    closed = perf_counter()
    if progress is not None:
        progress(clock.duration_s)
    adapters = federation.adapters
    return FederationReport(
        ticks=clock.ticks,
        setup_s=federation.began - start,
        run_s=ended - federation.began,
        close_s=closed - ended,
        steps={adapter.name: adapter.steps for adapter in adapters},
        stepping_s={adapter.name: adapter.progress.stepping_s for adapter in adapters},
        finishing_s={adapter.name: adapter.progress.finishing_s for adapter in adapters},
        lateness=federation.pace.lateness if federation.pace is not None else None,
    )


def _refuse_fork() -> None:
    global _process
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise EvgridError(
            "this process was forked from one that has run a federation, in which HELICS would hang; "
            "start workers with multiprocessing's 'spawn' method"
        )


class _Federation:
    """One run: from the broker's creation to its end."""

    def __init__(
        self,
        places: Sequence[Place],
        clock: Clock,
        limits: Limits,
        cancel: threading.Event | None,
        own: Collection[str] | None,
        external: Collection[str],
        elsewhere: Elsewhere | None,
        speed: float | None,
    ) -> None:
        self.adapters: list[Adapter] = []
        self.pace: Pace | None = None
        """Holds the ticks, where the federate that leads them is of this process."""
        self._own = [place for place in places if own is None or place.model.name in own]
        self._external = {place.model.name: place for place in places if place.model.name in external}
        self._elsewhere = elsewhere
        self._leader, self._speed = leader(places, external), speed
        self._clock = clock
        self._limits = limits
        self._cancel = cancel
        self._key = uuid.uuid4().hex
        self._broker: Any = None
        self._core: Any = None
        self._hand_over = HAND_OVER
        self._turn = threading.Lock()
        self._stepper: int | None = None
        self._turns: SimpleQueue[tuple[Adapter, float] | None] = SimpleQueue()
        self._requests: SimpleQueue[float] = SimpleQueue()
        self._stopping = self._failed = False
        self._failure: RunError | None = None
        self._running = len(self._own)
        self._done = threading.Event()
        self.began = 0.0
        """Time of HELICS' first grant, when all have joined; of ``perf_counter``."""

    def open(self, sizes: Mapping[str, int], message_delay_s: Mapping[str, float] | float) -> None:
        """Create broker, core and federates, all from the calling thread."""
        self._watch_elsewhere()
        broker, core = f"evgrid-broker-{self._key}", f"evgrid-core-{self._key}"
        # no heartbeat: a long step is no failure, and lost processes are noticed otherwise
        count = f"--federates={len(self._own)} --loglevel=no_print --slowresponding --disable_timer"
        kind, joined = h.HELICS_CORE_TYPE_INPROC, f"--broker={broker}"
        if self._elsewhere is not None:
            kind = h.HELICS_CORE_TYPE_ZMQ
            where = f"--broker={self._elsewhere.host} --brokerport={self._elsewhere.port}"
            joined = f"{where} --networktimeout={JOINING}"
        try:
            with _creating:
                if self._elsewhere is None:
                    self._broker = h.helicsCreateBroker("inproc", broker, count)
                name = CORE_TYPE if self._elsewhere is not None else "inproc"
                self._core = h.helicsCreateCore(name, core, f"{count} {joined}")
                if self._elsewhere is None:
                    connect(self._core)
                for place in self._own:
                    self.adapters.append(
                        Adapter(place, sizes, self._clock, core, message_delay_s, int(kind), self._external)
                    )
                if self._elsewhere is None:  # else the broker has one clock for all
                    for adapter in self.adapters:
                        adapter.wait_for_others()
            self._set_pace()
        except h.HelicsException as error:
            raise RunError(f"HELICS could not set up the federation: {error}") from error

    def _set_pace(self) -> None:
        for adapter in self.adapters:
            if self._speed is not None and adapter.model is self._leader.model:
                self.pace = Pace(self._speed, adapter.model.period_s, self._say_behind)
                adapter.hold = self.pace.hold

    def _say_behind(self, time_s: float, late_s: float) -> None:
        assert self._speed is not None
        stepping_s = {adapter.name: adapter.progress.stepping_s for adapter in self.adapters}
        if self._elsewhere is not None:
            self._elsewhere.behind(self._speed, time_s, late_s, stepping_s)
        else:
            _logger.warning(behind_text(self._clock, self._speed, time_s, late_s, stepping_s))

    def run(self, progress: Callable[[float], None] | None) -> None:
        """Start the federates, and watch them until the last has ended or one has failed."""
        raise_swallowed()  # while the models were made
        if self._hand_over:
            threading.Thread(target=self._work, name="evgrid-models", daemon=True).start()
        for adapter in self.adapters:
            adapter.start(partial(self._granted, adapter))
        while not self._done.wait(_POLL_S):  # wakes for signals
            raise_swallowed()
            if progress is not None:
                progress(self._slowest().done_s)
            if self._cancel is not None and self._cancel.is_set():
                raise RunError(f"the run was cancelled at {self._when(self._slowest().time_s)}")
            self._watch()
            self._watch_elsewhere()
        if self._failure is not None:
            raise self._failure from self._failure.__cause__
        for adapter in self.adapters:
            if adapter.progress.phase != "ended":
                raise RunError(f"{adapter.name} ended at {self._when(adapter.time_s)} before its last step")
        while self._elsewhere is not None and not self._elsewhere.ended():
            self._watch_elsewhere()
            sleep(_POLL_S / 10)

    def _watch_elsewhere(self) -> None:
        if self._elsewhere is not None:
            self._elsewhere.watch(self.adapters)

    def stop(self, reason: str) -> None:
        """End what is still running, also other members of the federation."""
        self._stopping = self._failed = True
        if self.pace is not None:
            self.pace.end()
        if self._elsewhere is not None:
            self._elsewhere.failed(reason)
        if self._core is not None:
            core_global_error(self._core, reason)

    def close(self) -> None:
        """Free everything, unless a model is stuck in the core's thread: then leave it all behind.

        Waits a moment for a step under way. One that continues is interrupted with an exception,
        which reaches a model at its next line of Python, not inside a library's call or a sleep.
        """
        self._stopping = True
        idle = self._turn.acquire(timeout=_GRACE_S)
        if not idle and self._stepper is not None:
            break_off(self._stepper, Stopped)
            idle = self._turn.acquire(timeout=_GRACE_S / 4)
        if idle:
            self._turn.release()  # no further step begins
        self._turns.put(None)
        self._requests.put(NEVER)  # for the core's thread, if it waits for a worker that is stuck or gone
        parts = [adapter.federate for adapter in self.adapters], self._core, self._broker
        ended = False
        if idle or self._hand_over:
            # HELICS waits for a core without limit; so it waits in another thread
            ending = threading.Thread(target=end, args=parts, name="evgrid-end", daemon=True)
            ending.start()
            ending.join(_FAILED_S if self._failed and self._elsewhere is not None else _PATIENCE_S)
            ended = not ending.is_alive()
        if not ended:
            leave_behind(*parts, self)

    # -- grants ---------------------------------------------------------------------------------

    def _granted(self, adapter: Adapter, time_s: float) -> float:
        """Step a model when HELICS grants it a time; in the core's thread."""
        if self._stopping or adapter.progress.phase == "ended":
            return NEVER
        if not self._hand_over:
            return self._advance(adapter, time_s)
        self._turns.put((adapter, time_s))
        return self._requests.get()

    def _work(self) -> None:
        while (turn := self._turns.get()) is not None:
            self._requests.put(self._advance(*turn))

    def _advance(self, adapter: Adapter, time_s: float) -> float:
        """Step a model; the first cause of a failure is recorded here, and ends the run."""
        with self._turn:
            if self._stopping:
                return NEVER
            self._stepper = threading.get_ident()
            self.began = self.began or perf_counter()
            try:
                request = adapter.advance(time_s, self._is_stopping)
                if adapter.progress.phase == "ended":
                    self._running -= 1
                    if not self._running:
                        self._done.set()
                return request
            except Stopped:
                pass
            except BaseException as error:
                if not self._stopping:
                    self._failure = RunError(self._sentence(adapter, error))
                    self._failure.__cause__ = error
                    self._stopping = True
                    self._done.set()
            return NEVER

    def _is_stopping(self) -> bool:
        return self._stopping

    # -- the watchdog -------------------------------------------------------------------------

    def _watch(self) -> None:
        """Raise RunError if there was no progress for longer than the limits allow."""
        now = monotonic()
        busy = [a for a in self.adapters if a.progress.phase in ("stepping", "finishing")]
        for adapter in busy:
            first = adapter.progress.step == 0 or adapter.progress.phase == "finishing"
            limit, variable = self._limit(first)
            still = now - max(adapter.progress.since, adapter.model.held_until)
            if still > limit:
                call = "finish" if adapter.progress.phase == "finishing" else "step"
                raise RunError(
                    f"{adapter.name} stalled at {self._when(adapter.time_s)}: its {call} has not returned "
                    f"for {still:.3g} s; the limit is {limit:g} s ({variable})"
                )
        if not busy:
            limit, variable = self._limit(all(a.progress.phase == "starting" for a in self.adapters))
            still = now - max(adapter.progress.since for adapter in self.adapters)
            patience_s = 0.0 if self._elsewhere is None else _PATIENCE_S  # it knows better who has stalled
            if self._speed is not None:  # the federate that leads the ticks waits between two of them
                patience_s += self._leader.model.period_s / self._speed
            if still > limit + patience_s:
                raise RunError(
                    f"HELICS stalled at {self._when(self._slowest().time_s)}: it has granted no time "
                    f"for {still:.3g} s; the limit is {limit:g} s ({variable})"
                )

    def _limit(self, first: bool) -> tuple[float, str]:
        if first:
            return self._limits.startup_s, "EVGRID_STARTUP_LIMIT_S"
        return self._limits.step_s, "EVGRID_STEP_LIMIT_S"

    # -- words ----------------------------------------------------------------------------------

    def _slowest(self) -> Adapter:
        return min(self.adapters, key=lambda adapter: adapter.done_s)

    def _when(self, time_s: float) -> str:
        """A simulated time for messages: its timestamp and its seconds."""
        return f"{_stamp(self._clock, time_s)} ({time_s:.9g} s)"

    def _sentence(self, adapter: Adapter, error: BaseException) -> str:
        """Sentence on an exception raised by an adapter or its model: cause, federate and time."""
        time_s = adapter.time_s
        if isinstance(error, PowerFlowError) and error.time_s is not None:
            time_s = error.time_s
        text = describe(error)
        if isinstance(error, ExternalFault):
            return f"{error.federate}, a program of its own, failed at {self._when(time_s)}: {text}"
        if adapter.name in text and _stamp(self._clock, time_s) in text:
            return text
        return f"{adapter.name} failed at {self._when(time_s)}: {text}"


def _stamp(clock: Clock, time_s: float) -> str:
    stamp = clock.timestamps(np.array([time_s]))[0]
    return str(np.datetime_as_string(stamp, unit="s" if float(time_s).is_integer() else "ms"))


def describe(error: BaseException) -> str:
    """An exception in one sentence: evgrid's own as they are, others with type, file and line."""
    text = str(error) if isinstance(error, EvgridError) else f"{type(error).__name__}: {error}".rstrip(": ")
    frame = _user_frame(error)
    if frame is None or f"{Path(frame.filename).name}, line {frame.lineno}" in text:
        return text
    return f"{text} ({frame.filename}, line {frame.lineno}, in {frame.name})"


def _user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame in a user's own file, of an exception or of what caused it.

    The innermost of all where none is a user's. evgrid's own errors say where they arose; for
    them only the cause counts.
    """
    last: traceback.FrameSummary | None = None
    cause: BaseException | None = error
    while cause is not None:
        if not isinstance(cause, EvgridError):
            frames = traceback.extract_tb(cause.__traceback__)
            for frame in reversed(frames):
                if _is_users(frame.filename):
                    return frame
            last = last or (frames[-1] if frames else None)
        cause = cause.__cause__
    return last


_LIBRARIES = tuple(
    str(Path(folder).resolve()) + os.sep
    for folder in (
        str(Path(__file__).parents[1]),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    )
)


def _is_users(filename: str) -> bool:
    if filename.startswith("<"):
        return filename.startswith(("<ipython", "<stdin>"))
    path = Path(filename).resolve()
    return not (
        str(path).startswith(_LIBRARIES) or {"site-packages", "dist-packages"}.intersection(path.parts)
    )
