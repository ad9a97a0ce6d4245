"""One run of a batch, in a process of its own that can be terminated.

In: a :class:`Task`. Out: an :class:`Outcome`, whatever happens to the run: it raises, is killed,
never ends or finds the disk full. :func:`execute` is what a Dask worker calls; it starts a process,
forked from one that :mod:`evgrid.runs.preload` has made ready (multiprocessing's forkserver, where there is
one), waits for it up to the time limit, and then terminates it. A process whose worker is lost
ends itself, so that a run is never computed twice at a time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LOG_TAIL = 4000
"""Characters of a failed run's log that are kept."""

_GRACE_S = 2.0


@dataclass(frozen=True)
class Reduction:
    """Function whose result is stored in place of the run's whole result, which is then not written.

    function : ``package.module:name``, called with the result, the :class:`evgrid.runs.simulation.RunReport`
        and the arguments; returns the Dataset to store
    arguments : keyword arguments, as JSON
    """

    function: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Task:
    """Data of a run for a worker.

    id : name of the run and of its files
    scenario : the resolved scenario as JSON
    folder : folder in which a user's own strategy is looked for
    output : NetCDF file of the result; its folder exists
    version : version of evgrid that has resolved the scenario
    time_limit_s : wall time after which the run is ended; None: never
    reduction : stored part of the result; None: all of it
    """

    id: str
    scenario: str
    folder: str
    output: str
    version: str
    time_limit_s: float | None
    reduction: Reduction | None = None


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    reason : why it failed, in a sentence; "" if it finished
    log : end of its printed output, of failed runs only
    wall_s, peak_memory_mib : wall time and memory; 0 where not reported
    """

    id: str
    reason: str
    log: str
    wall_s: float
    peak_memory_mib: float

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return not self.reason


def execute(task: Task) -> Outcome:
    """Run a task in a process of its own; never raises on account of the run."""
    begin = time.monotonic()
    refusal = _refusal(task)
    if refusal:
        return Outcome(task.id, refusal, "", 0.0, 0.0)
    # Dask's workers are daemonic, which may not have children; ours end with their parent
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    handle, log = tempfile.mkstemp(prefix="evgrid-", suffix=".log")
    os.close(handle)
    try:
        process = context.Process(target=_run, args=(task, log, sender), daemon=True)
        process.start()
        sender.close()
        report, in_time = _wait(process, receiver, task.time_limit_s)
        reason = report.get("reason", "")
        process.join(_GRACE_S if in_time else 0)  # after its report it only has to exit
        if process.is_alive():
            process.kill()
            process.join()
        if not in_time:
            reason = f"it was ended at the time limit of {task.time_limit_s:g} s"
        elif not report:
            reason = f"its process ended with {_exit_name(process.exitcode)}"
        if not reason and not Path(task.output).is_file():
            reason = "it left no result"
        text = Path(log).read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:] if reason else ""
        return Outcome(task.id, reason, text, time.monotonic() - begin, report.get("peak_memory_mib", 0.0))
    finally:
        receiver.close()
        Path(log).unlink(missing_ok=True)
        remove_parts(Path(task.output))


def leave_signals() -> None:
    """Ignore Ctrl-C and hang-ups, which all processes of a terminal get: the batch's process handles them."""
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)


def remove_parts(output: Path) -> None:
    """Remove the partial result of a terminated run."""
    from evgrid.core.netcdf import parts_of

    for part in parts_of(output):
        with contextlib.suppress(OSError):
            part.unlink()


def _refusal(task: Task) -> str:
    """Reason why this worker can't run the task; "" if it can."""
    from evgrid.results import versions

    here = versions().get("evgrid", "")
    if here != task.version:
        return (
            f"the worker on {os.uname().nodename} has evgrid {here}, the batch was made with {task.version}"
        )
    if not Path(task.output).parent.is_dir():
        return f"the worker on {os.uname().nodename} does not see the folder {Path(task.output).parent}"
    return ""


def _context() -> Any:
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["evgrid.runs.preload"])
    return context


def _wait(process: Any, receiver: Connection, limit_s: float | None) -> tuple[dict[str, Any], bool]:
    """The report of a process, empty if it ended without one, and whether it ended in time."""
    if not multiprocessing.connection.wait([receiver, process.sentinel], limit_s):
        return {}, False
    with contextlib.suppress(EOFError, OSError):
        if receiver.poll():
            report: dict[str, Any] = receiver.recv()
            return report, True
    return {}, True


def _exit_name(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (killed from outside, or out of memory)" if name == "SIGKILL" else name


# ---- inside the process of a run -----------------------------------------------------------------


def _run(task: Task, log: str, sender: Connection) -> None:
    """Run the task and report; everything printed goes to the log."""
    with open(log, "ab", buffering=0) as file:  # noqa: PTH123 (a descriptor is wanted)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # workers ignore it
    _end_with_parent()
    report: dict[str, Any] = {"reason": ""}
    try:
        _simulate(task)
    except KeyboardInterrupt:
        report["reason"] = "it was stopped"
    except BaseException as error:
        traceback.print_exc()
        from evgrid.errors import EvgridError

        text = str(error) if isinstance(error, EvgridError) else f"{type(error).__name__}: {error}"
        report["reason"] = text.rstrip(": ")
    report["peak_memory_mib"] = _peak_memory_mib()
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        sender.send(report)
    os._exit(1 if report["reason"] else 0)  # at once, even if a library's threads are stuck


def _simulate(task: Task) -> None:
    import json
    from importlib import import_module

    from evgrid.results import save_dataset
    from evgrid.runs.simulation import run, run_with_report
    from evgrid.scenario import scenario_from

    scenario = scenario_from(json.loads(task.scenario), folder=task.folder, source=task.id)
    if task.reduction is None:
        run(scenario, task.output).close()
        return
    module, name = task.reduction.function.split(":")
    reduce = getattr(import_module(module), name)
    kept = reduce(*run_with_report(scenario), **json.loads(task.reduction.arguments))
    save_dataset(kept, Path(task.output))


def _end_with_parent() -> None:
    """End this process when its worker is lost, gently first."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="evgrid-parent", daemon=True).start()


def _peak_memory_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
