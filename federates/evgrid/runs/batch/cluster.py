"""The workers of a batch: a local cluster of processes, or a running Dask scheduler.

A local cluster listens on the loopback interface only and has no dashboard; Dask has no passwords, so on a
shared machine use ``--scheduler tls://…`` with Dask's certificates. The open ports of an own scheduler depend
on how it was started.
"""

from __future__ import annotations

import os
import queue
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from evgrid.core.interrupts import raise_swallowed
from evgrid.errors import EvgridError
from evgrid.runs.worker_process import Outcome, Task, execute, leave_signals

if TYPE_CHECKING:
    from distributed import Client

LOOPBACK = "127.0.0.1"
WORKERS_WITHIN_S = 60.0
"""Time for which a batch waits for a first worker, and for others when all are lost, s."""

_POLL_S = 1.0
_CONNECT_S = 10.0


def check_scheduler(address: str) -> None:
    """Check that a scheduler listens at an address.

    Raises EvgridError, with one sentence, if the address is malformed or nothing listens.
    """
    from distributed.comm import parse_address, parse_host_port
    from distributed.comm.registry import backends

    where = f"--scheduler {address}"
    try:
        scheme, rest = parse_address(address)
        host, port = parse_host_port(rest)
    except ValueError as error:
        raise EvgridError(f"{where}: must be an address such as tcp://host:8786 ({error})") from None
    if scheme not in backends:
        raise EvgridError(f"{where}: {scheme} is unknown; known are {', '.join(sorted(backends))}")
    if scheme not in ("tcp", "tls"):
        return
    if not host or not 0 < port < 65536:
        raise EvgridError(f"{where}: must have a host and a port, such as tcp://host:8786")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        raise EvgridError(f"{where}: there is no Dask scheduler: {error}") from error


@contextmanager
def dask_client(scheduler: str | None, workers: int | None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of a local cluster of processes (one a core).

    Raises EvgridError if there is no scheduler.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        check_scheduler(scheduler)
        try:
            client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
        except Exception as error:  # Dask raises various errors of the other end
            text = " ".join(str(error).split())
            raise EvgridError(f"--scheduler {scheduler}: there is no Dask scheduler: {text}") from error
        with client:
            yield client
        return
    quiet = {"distributed.admin.log-format": "%(message)s", "distributed.worker.daemon": False}
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=workers or os.cpu_count() or 1, threads_per_worker=1, processes=True, host=LOOPBACK,
            dashboard_address=f"{LOOPBACK}:0", scheduler_kwargs={"dashboard": False}, memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        client.register_plugin(_leave_signals())
        yield client


def run_tasks(
    client: Client,
    tasks: Sequence[Task],
    report: Callable[[Outcome], None],
    workers_within_s: float = WORKERS_WITHIN_S,
) -> None:
    """Submit all tasks to the workers, and report each outcome as it ends.

    Raises EvgridError if there has been no worker for ``workers_within_s``.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    futures = {client.submit(execute, task, pure=False, key=f"evgrid-{task.id}"): task.id for task in tasks}
    for future in futures:
        future.add_done_callback(done.put)
    seen = time.monotonic()
    try:
        while futures:
            raise_swallowed()
            try:
                future = done.get(timeout=_POLL_S)
            except queue.Empty:
                if _has_workers(client):
                    seen = time.monotonic()
                elif time.monotonic() - seen > workers_within_s:
                    raise EvgridError(
                        f"{client.scheduler.address}: there has been no worker for {workers_within_s:g} s "
                        "(workers_within of the batch)"
                    ) from None
                continue
            task_id = futures.pop(future)
            if future.status == "finished":
                report(future.result())
            else:
                report(Outcome(task_id, _loss(future), "", 0.0, 0.0))
            future.release()
    except BaseException:
        with suppress(Exception):
            client.cancel(list(futures), force=True)
        raise


def _has_workers(client: Client) -> bool:
    try:
        return bool(client.scheduler_info(n_workers=-1)["workers"])
    except TypeError:  # Dask before 2025
        return bool(client.scheduler_info()["workers"])
    except OSError:
        return False


def _loss(future: Any) -> str:
    """Reason why Dask has no outcome of a run."""
    from distributed import KilledWorker

    if future.status == "cancelled":
        return "the scheduler was lost"
    error = future.exception()
    if isinstance(error, KilledWorker):
        return "its workers died one after the other"
    return f"the worker failed: {type(error).__name__}: {error}"


def _leave_signals() -> Any:
    """A plugin for Dask's workers, also for replacements of dead ones."""
    from distributed import WorkerPlugin

    class LeaveSignals(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            leave_signals()

    return LeaveSignals()
