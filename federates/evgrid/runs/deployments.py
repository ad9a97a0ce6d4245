"""Deployments of a run: in one process, a process for each federate, several machines, other programs.

The numbers are the same in each. In one process without other programs nothing but HELICS' in-process core
is used. Otherwise one process hosts the broker (:class:`evgrid.federation.host.Host`), joins the parts of
the result and runs the audit; it runs evgrid's own federates, or each of them is a process that has joined
with ``evgrid federate`` (:mod:`.member`), started by :func:`couple` or by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import psutil

from evgrid.core.netcdf import write_text
from evgrid.core.temporary import temporary_folder
from evgrid.errors import ResultError, RunError, ScenarioError
from evgrid.federation.control import free_ports
from evgrid.federation.host import Host
from evgrid.federation.pace import Lateness
from evgrid.federation.runtime import FederationReport, run_federation
from evgrid.federation.wiring import wire
from evgrid.results import versions
from evgrid.runs.parts import Part, add_part
from evgrid.scenario.federation import address_of
from evgrid.system.live import LiveSignals

if TYPE_CHECKING:
    from evgrid.runs.simulation import Prepared
    from evgrid.scenario import Scenario

_ENDING_S = 5.0
_FAILED_S = 1.0
_PREPARING_S = 600.0
"""Longest time in which processes that are started here must have joined: they import and prepare first."""


@dataclass(frozen=True)
class Deployment:
    """Where the federates run.

    processes : each of evgrid's in a process of its own, started here
    awaited : each of evgrid's in a process of its own that somebody starts with ``evgrid federate``
    broker : address ``tcp://HOST:PORT`` for ``federation.broker``
    folder : folder of the scenario, for a strategy in a file beside it
    announce : called with the broker's address, once it listens
    cancel : ends a run of one process when set
    """

    processes: bool = False
    awaited: bool = False
    broker: str | None = None
    folder: str | None = None
    announce: Callable[[str], None] | None = None
    cancel: threading.Event | None = None


def couple(
    prepared: Prepared, progress: Callable[[float], None] | None, how: Deployment
) -> tuple[FederationReport, Part]:
    """Run a prepared run to its end as ``how`` says; see :data:`evgrid.runs.simulation.Coupled`.

    Raises RunError with its first cause when the run fails, in whatever process.
    """
    world, models = prepared.world, prepared.models
    scenario, sizes, clock = world.scenario, world.sizes, world.clock
    names = [model.name for model in prepared.own]
    external = scenario.federation.external
    if (how.processes or how.awaited or external) and isinstance(world.signals, LiveSignals):
        raise ScenarioError(
            ["system: a server of signals is for runs in one process, without other programs"]
        )
    if not (how.processes or how.awaited or external):
        report = run_federation(
            models, sizes, clock, message_delay_s=prepared.message_delay_s, speed=scenario.time.speed,
            progress=progress, cancel=how.cancel,
        )  # fmt: skip
        return report, Part.of(prepared.own)
    broker = how.broker or scenario.federation.broker
    address = address_of(broker) if broker else ("127.0.0.1", free_ports())
    apart = names if how.processes or how.awaited else ()
    with Host(
        wire(models, sizes, clock, prepared.message_delay_s), sizes, clock, address, members=apart,
        external=external, digest=digest_of(scenario, how.folder), wait_s=scenario.federation.wait,
        preparing_s=_PREPARING_S if how.processes else 0.0,
    ) as host:  # fmt: skip
        if how.announce is not None and (external or how.awaited):
            how.announce(f"tcp://{host.host}:{host.port}")
        if not apart:
            report = run_federation(
                models, sizes, clock, message_delay_s=prepared.message_delay_s, speed=scenario.time.speed,
                progress=progress, cancel=how.cancel, own=names, external=external, elsewhere=host,
            )  # fmt: skip
            return report, Part.of(prepared.own)
        start = perf_counter()
        started = _started(names, scenario, host, how.folder) if how.processes else contextlib.nullcontext()
        try:
            with started as processes:
                _wait(host, processes or {}, progress)
        except BaseException as error:
            host.failed(str(error))
            raise
        return _collected(host, prepared, perf_counter() - start)


def _wait(
    host: Host, processes: Mapping[str, subprocess.Popen[bytes]], progress: Callable[[float], None] | None
) -> None:
    """Watch until all processes have delivered their parts."""
    shown = monotonic()
    while not host.delivered:
        host.watch()
        host.ended()
        for name, process in processes.items():
            if name in host.members:
                continue
            if process.poll() is not None:
                raise RunError(_last_words(name, process))
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                raise RunError(f"{name} failed before the run: its process ({process.pid}) is stopped")
        if progress is not None and monotonic() - shown > 0.1:
            shown = monotonic()
            progress(host.done_s)


def _collected(host: Host, prepared: Prepared, wall_s: float) -> tuple[FederationReport, Part]:
    """The parts of all processes as one, and their reports."""
    parts, reports = [], {}
    variables = {model.name: [variable.name for variable in model.variables] for model in prepared.own}
    for name, member in host.members.items():
        parts.append(add_part(member.part, prepared.store, variables[name]))
        reports[name] = member.report or {}
        prepared.recorder.spent_s[name] = float(reports[name]["recording_s"])
    setup_s = max(float(report["setup_s"]) for report in reports.values())
    run_s = max(float(report["run_s"]) for report in reports.values())
    report = FederationReport(
        ticks=prepared.world.clock.ticks,
        setup_s=max(wall_s - run_s, setup_s),
        run_s=run_s,
        close_s=0.0,
        steps={name: int(report["steps"]) for name, report in reports.items()},
        stepping_s={name: float(report["stepping_s"]) for name, report in reports.items()},
        finishing_s={name: float(report["finishing_s"]) for name, report in reports.items()},
        lateness=next(
            (Lateness(**report["lateness"]) for report in reports.values() if report["lateness"]), None
        ),
    )
    return report, Part.joined(parts)


def export_runner(scenario: Scenario, names: Collection[str], output: Path, folder: str | None) -> Path:
    """Write what ``helics run --path=OUTPUT/runner.json`` starts as it stands: the broker, and each federate.

    The resolved scenario is beside it, the result ``result.nc`` will be, too. External federates are not
    started: their programs may be added to the file. ``folder`` as in :class:`Deployment`.

    Raises ResultError if the files can't be written.
    """
    broker = scenario.federation.broker or f"tcp://127.0.0.1:{free_ports()}"
    own = [name for name in names if name not in scenario.federation.external]
    where = ["--folder", folder or str(Path.cwd())]
    commands = {
        "broker": ["broker", "scenario.json", "--listen", broker, "-o", "result.nc", "--no-plot", *where],
        **{name: ["federate", name, "scenario.json", "--broker", broker, *where] for name in own},
    }
    evgrid = [sys.executable, "-m", "evgrid.cli"]
    runner = {
        "name": scenario.name,
        "broker": False,  # HELICS' own would not join the parts of the result
        "federates": [
            {"name": name, "host": "localhost", "directory": ".", "exec": shlex.join([*evgrid, *command])}
            for name, command in commands.items()
        ],
    }
    try:
        write_text(output / "scenario.json", scenario.model_dump_json(exclude_none=True))
        write_text(output / "runner.json", json.dumps(runner, indent=1) + "\n")
    except OSError as error:
        raise ResultError(f"{output} can't be written: {error.strerror}") from error
    return output / "runner.json"


def digest_of(scenario: Scenario, folder: str | None) -> str:
    """Digest of a resolved scenario and evgrid's version, the same wherever the scenario's folder is."""
    text = scenario.model_dump_json(exclude={"federation": {"broker"}})
    if folder:
        text = text.replace(json.dumps(str(Path(folder).resolve()))[1:-1], ".")
    return hashlib.sha256(f"{versions()['evgrid']} {text}".encode()).hexdigest()


@contextlib.contextmanager
def _started(
    names: list[str], scenario: Scenario, host: Host, folder: str | None
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes of the federates, which have ended when the context is left."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with temporary_folder() as temporary:
        path = Path(temporary) / "scenario.json"
        path.write_text(scenario.model_dump_json(exclude_none=True), encoding="utf-8")
        try:
            for name in names:
                command: list[Any] = [
                    sys.executable, "-m", "evgrid.cli", "federate", name, path,
                    "--broker", f"tcp://{host.host}:{host.port}", "--folder", folder or str(Path.cwd()),
                ]  # fmt: skip
                with (Path(temporary) / f"{name}.log").open("wb") as log:
                    processes[name] = subprocess.Popen(  # in a session of its own: Ctrl-C is for the host
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                processes[name].log = Path(log.name)  # type: ignore[attr-defined]
            yield processes
        except BaseException:
            _end(processes, _FAILED_S)
            raise
        _end(processes, _ENDING_S)


def _end(processes: Mapping[str, subprocess.Popen[bytes]], grace_s: float) -> None:
    """Wait a moment for processes to end by themselves, then end them."""
    until = monotonic() + grace_s
    for process in processes.values():
        try:
            process.wait(max(until - monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            process.kill()  # also one that is stopped
            process.wait()


def _last_words(name: str, process: subprocess.Popen[bytes]) -> str:
    log: Path = process.log  # type: ignore[attr-defined]
    lines = log.read_text(errors="replace").strip().splitlines()
    text = lines[-1].removeprefix("evgrid: ") if lines else "without a word"
    return f"{name} failed before the run: its process ended with exit code {process.returncode}: {text}"
