"""Rounds of mutants, with a bound on time and memory, in a new process; and what became of them."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SCENARIOS = Path(__file__).parents[2] / "scenarios"
MOST_S = 30.0
"""Most processor time that a mutant may take, s: on a busy machine it lasts longer."""
WAIT_S = 300.0
"""Longest that it may last, s."""
START_S = 600.0
"""Longest that it may take until the first mutant is there, or the next one, s."""
MOST_MEMORY = 6 << 30
"""Most address space of the process, bytes."""


@dataclass
class Report:
    """What became of the mutants of a kind.

    outcomes : how often each outcome came
    findings : mutants that ended in neither a right reading nor a sentence, with what happened
    """

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[str, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""


class TooLong(BaseException):
    """A mutant has taken longer than it may."""


def play(kind: str, mutants: Callable[[int, int], Iterator[Any]], outcome: Callable[..., str], seed: int,
         count: int, seconds: float = 3600.0) -> Report:  # fmt: skip
    """Try the first ``count`` mutants of a seed, as far as ``seconds`` last.

    ``mutants`` and ``outcome`` are functions of a module, which the spawned process imports. A mutant that
    ends its process, or that no signal can stop, is a finding; the next ones get a new process.
    """
    report, done, end = Report(kind), 0, time.monotonic() + seconds
    while done < count and time.monotonic() < end:
        spawn = multiprocessing.get_context("spawn")
        receiver, sender = spawn.Pipe(duplex=False)
        process = spawn.Process(
            target=_try, args=(sender, mutants, outcome, seed, done, count, end), daemon=True
        )
        process.start()
        sender.close()
        name = ""
        while True:
            if not receiver.poll(WAIT_S if name else START_S):
                report.findings.append((name, "nothing stops it"))
                report.outcomes["hang"] += 1
                done += 1
                process.kill()
                break
            try:
                message = receiver.recv()
            except EOFError:
                if name:
                    report.findings.append((name, "its process ended"))
                    report.outcomes["crash"] += 1
                    done += 1
                break
            if isinstance(message, str):
                name = message
                continue
            found, text, took = message
            report.outcomes[found] += 1
            if text:
                report.findings.append((name, text))
            if took > report.slowest_s:
                report.slowest_s, report.slowest = took, name
            done, name = done + 1, ""
        process.join()
        if not name and done < count and time.monotonic() < end and process.exitcode == 0:
            break
    return report


def _try(
    sender: Connection, mutants: Callable[[int, int], Iterator[Any]], outcome: Callable[..., str], seed: int,
    first: int, count: int, end: float,
) -> None:  # fmt: skip
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(SCENARIOS, Path(folder) / "scenarios")
        for number, mutant in enumerate(mutants(seed, count)):
            if number < first:
                continue
            if time.monotonic() > end:
                return
            sender.send(mutant.name)
            begin = time.monotonic()
            try:
                with _bounded():
                    found, text = outcome(mutant, Path(folder)), ""
            except TooLong:
                found, text = "hang", f"took over {MOST_S:g} s"
            except MemoryError:
                found, text = "memory", traceback.format_exc()[-3000:]
            except BaseException:
                found, text = "traceback", traceback.format_exc()[-3000:]
            sender.send((found, text, time.monotonic() - begin))


@contextmanager
def _bounded() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
