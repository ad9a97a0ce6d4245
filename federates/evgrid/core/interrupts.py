"""Signals that end a command, also where a library swallows the exception.

Python raises KeyboardInterrupt at whatever line the main thread is when a signal comes. It is lost in a
bare ``except:``, of which netCDF4 has several on the way of every write (``_StartCountStride``), and in
finalizers, such as that of xarray's files: of 3,600 signals while a result was created, 8. So the signals
are noted, too, and the loops of runs and batches ask for them.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_received: list[signal.Signals] = []
"""Signals since the outermost :func:`signals_as_interrupts` was entered."""


@contextmanager
def signals_as_interrupts() -> Iterator[list[signal.Signals]]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt and are noted; yields those received.

    A signal that the caller handles, or ignores, as ``nohup`` does SIGHUP, is left as it is. After one,
    errors in finalizers are not printed: they are of objects whose making was interrupted.
    """
    before, hook = {}, sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) in (
                signal.SIG_DFL,
                signal.default_int_handler,
            ):
                before[number] = signal.signal(number, _interrupt)
    sys.unraisablehook = lambda unraisable: None if _received else hook(unraisable)
    try:
        yield _received
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _received.clear()


@contextmanager
def signals_call(stop: Callable[[], object]) -> Iterator[None]:
    """Signals that would raise KeyboardInterrupt (:func:`signals_as_interrupts`) are noted and call ``stop``.

    For an event loop, whose tasks an exception at whatever line would leave in any state.
    """

    def noted(number: int, frame: object) -> None:
        _received.append(signal.Signals(number))
        stop()

    before = []
    if threading.current_thread() is threading.main_thread():
        before = [number for number in signal.valid_signals() if signal.getsignal(number) is _interrupt]
    for number in before:
        signal.signal(number, noted)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    _received.append(signal.Signals(number))
    raise KeyboardInterrupt


def raise_swallowed() -> None:
    """Raise KeyboardInterrupt if a signal was received, in the main thread and :func:`signals_as_interrupts`.

    To be called in loops that are reached after a signal only if its exception was swallowed.
    """
    if _received and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
