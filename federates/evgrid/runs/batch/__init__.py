"""Batches: a base scenario and many overrides of it, run on Dask, stored and resumed run by run.

In: a batch file, :class:`Batch`, with a base scenario and a grid, a list or a random sample of
overrides. Out: a folder with one NetCDF file a run, an index of all runs, and, opened lazily as one
Dataset with the overrides as coordinates, :func:`evgrid.open_batch`.

A *case* is one set of overrides, a *run* is a case, or a chunk of a case's members where these are
too many for the memory of a process. A run is identified by the hash of its resolved scenario (files
that it names by their content) and the version of evgrid; resuming a batch runs those without
a result. Members have random streams of their own, so that the numbers do not depend on the
chunks, the workers or a resumption.

::

    FOLDER/
        .lock           held by the process that runs the batch
        batch.json      the batch: its overrides and runs, the version of evgrid
        index.csv       a row a run: case, overrides, members, state, reason, wall time, peak memory
        runs/ID.nc      the result of a run, complete or not at all
        runs/ID.json    the outcome of the run, with the end of its log if it failed
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from evgrid.core.netcdf import write_text
from evgrid.errors import ScenarioError
from evgrid.results import versions
from evgrid.runs.batch.cluster import WORKERS_WITHIN_S, check_scheduler, dask_client, run_tasks
from evgrid.runs.batch.folder import (
    FORMAT,
    Record,
    RunRecord,
    locked,
    open_folder,
    result_of,
    shown,
    whole,
    write_record,
)
from evgrid.runs.batch.reading import batch_sessions, open_batch, read_index
from evgrid.runs.worker_process import Outcome, Reduction, Task, remove_parts
from evgrid.scenario import Scenario, load_scenario
from evgrid.scenario.feeder import is_network_file
from evgrid.scenario.fields import Duration, ExistingFile, Name, Settings, checked, fault, read_settings

FIXED_MEMORY_GB = 0.45
"""Memory of a run besides its members: Python, its libraries and the buffers of the result, GB."""

KEPT = "finished runs are kept, continue with --resume"
"""Message after Ctrl-C."""

__all__ = [
    "FORMAT", "KEPT", "Batch", "BatchReport", "Case", "Run", "batch_sessions", "dask_client", "identity",
    "load_batch", "members_that_fit", "open_batch", "plan", "read_index", "run_batch",
]  # fmt: skip

Overrides = dict[str, Any]
"""Path of a setting to its value: ``{"fleet.penetration": 0.8}``."""


Names = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Case:
    """A set of overrides.

    overrides : path of a setting to its value
    name : name of the case; "" without one
    labels : names of its values, by path, where they have one
    """

    overrides: Overrides
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Range(Settings):
    """Values drawn uniformly from a range, or from a list."""

    low: float | None = None
    """Least value."""
    high: float | None = None
    """Greatest value."""
    integer: bool = False
    """Whether only whole numbers are drawn, both ends included."""
    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    """The values to choose from, instead of a range."""

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        ends = (self.low, self.high)
        if (self.choices is None) == (None in ends) or (self.choices and ends != (None, None)):
            raise fault("give either low and high, or choices")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise fault(f"low = {self.low:g}: must be less than high = {self.high:g}")
        return self

    def at(self, share: float) -> Any:
        """The value at a share, 0 to less than 1, of the range."""
        if self.choices is not None:
            return self.choices[int(share * len(self.choices))]
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            return int(self.low + math.floor(share * (self.high - self.low + 1)))
        return self.low + share * (self.high - self.low)


class Sample(Settings):
    """A random sample of overrides: a Latin hypercube, which covers every range uniformly."""

    size: Annotated[int, Field(ge=1)]
    """Number of cases."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the sample."""
    ranges: Annotated[dict[str, Range], Field(min_length=1)]
    """Settings that are drawn, by path."""

    def draw(self) -> list[Overrides]:
        """The cases."""
        from scipy.stats import qmc

        points = qmc.LatinHypercube(len(self.ranges), seed=self.seed).random(self.size)
        return [
            {
                key: chosen.at(float(share))
                for (key, chosen), share in zip(self.ranges.items(), row, strict=True)
            }
            for row in points
        ]


class Batch(Settings):
    """A batch of runs."""

    name: Name
    """Name of the batch; its folder is results/NAME unless another is given."""
    base: ExistingFile
    """The base scenario of all cases."""
    overrides: Overrides = {}
    """Overrides of the base that all cases share, such as {time.duration: 24h}."""
    grid: dict[str, Annotated[list[Any] | dict[Names, Any], Field(min_length=1)]] | None = None
    """Values of each setting; the cases are all their combinations, the last setting fastest. Values may have
    names: {aggregators.main: {none: {strategy: uncontrolled}, by price: {strategy: tou}}}."""
    listed: Annotated[list[Overrides] | dict[Names, Overrides] | None, Field(alias="list", min_length=1)] = (
        None
    )
    """The cases, one by one; they may have names: {summer: {time.start: 2026-07-01}, winter: {}}."""
    sample: Sample | None = None
    """A random sample of cases."""
    members_per_run: Annotated[int, Field(ge=1)] | None = None
    """Most members in one run; left out: as many as fit into memory_gb."""
    memory_gb: Annotated[float, Field(gt=0)] = 2.0
    """Memory that a run may take, GB: members are split into chunks by an estimate."""
    time_limit: Annotated[Duration, Field(gt=0)] | None = None
    """Wall time after which a run is ended as failed; left out: none."""
    workers_within: Annotated[Duration, Field(gt=0)] = WORKERS_WITHIN_S
    """Time without any worker after which the batch ends, s: at its start, or when all are lost."""

    @model_validator(mode="after")
    def _one_kind(self) -> Batch:
        if sum(kind is not None for kind in (self.grid, self.listed, self.sample)) != 1:
            raise fault("give one of grid, list and sample")
        return self

    def cases(self) -> list[Case]:
        """The cases, without the overrides that all share."""
        if self.grid is not None:
            named = [
                list(values.items()) if isinstance(values, dict) else [("", value) for value in values]
                for values in self.grid.values()
            ]
            return [
                Case(
                    {key: value for key, (_, value) in zip(self.grid, chosen, strict=True)},
                    labels={key: name for key, (name, _) in zip(self.grid, chosen, strict=True) if name},
                )
                for chosen in itertools.product(*named)
            ]
        if isinstance(self.listed, dict):
            return [Case(dict(overrides), name) for name, overrides in self.listed.items()]
        if self.listed is not None:
            return [Case(dict(overrides)) for overrides in self.listed]
        assert self.sample is not None
        return [Case(overrides) for overrides in self.sample.draw()]


def load_batch(path: str | Path) -> Batch:
    """Read a batch file and check it; the scenarios are checked by :func:`plan`.

    Raises
    ------
    ScenarioError
        With every fault found, each with its path.

    """
    path = Path(path)
    return checked(Batch, read_settings(path), str(path), path.parent)


# ---- the plan ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A case, or a chunk of its members.

    id : hash of the resolved scenario and the version of evgrid
    case : number of the case
    chosen : its case
    scenario : resolved, with the members of this run
    """

    id: str
    case: int
    chosen: Case
    scenario: Scenario

    @property
    def overrides(self) -> Overrides:
        """Overrides of the case."""
        return self.chosen.overrides

    @property
    def record(self) -> RunRecord:
        """The run's entry in ``batch.json``."""
        ensemble = self.scenario.ensemble
        return RunRecord(
            id=self.id, case=self.case, overrides=self.overrides, first=ensemble.first,
            members=ensemble.members, name=self.chosen.name, labels=dict(self.chosen.labels),
        )  # fmt: skip


def plan(batch: Batch, reduction: Reduction | None = None) -> list[Run]:
    """Resolve every case and split it into runs, of which ``reduction`` is stored.

    Raises
    ------
    ScenarioError
        With every fault of every case.
    NetworkError
        If members have to be split and the feeder can't be read.

    """
    runs, faults = list[Run](), list[str]()
    first_with: dict[str, int] = {}
    for number, case in enumerate(batch.cases()):
        try:
            scenario = load_scenario(batch.base, {**batch.overrides, **case.overrides})
        except ScenarioError as error:
            faults += [f"case {number} ({_text(case)}): {fault}" for fault in error.faults]
            continue
        if scenario.federation.external:
            faults.append(
                f"case {number} ({_text(case)}): federation.external = "
                f"{', '.join(scenario.federation.external)}: programs of your own join single runs only "
                "(evgrid run), not those of a batch or study"
            )
            continue
        if scenario.time.speed is not None:
            faults.append(
                f"case {number} ({_text(case)}): time.speed = {scenario.time.speed:g}: single runs keep to "
                "wall time (evgrid run), not those of a batch or study; leave it out"
            )
            continue
        for chunk in _chunks(scenario, batch):
            run = Run(identity(chunk, reduction), number, case, chunk)
            if run.id in first_with:
                faults.append(
                    f"case {number} ({_text(case)}): is the same scenario as case {first_with[run.id]}"
                )
                break
            first_with[run.id] = number
            runs.append(run)
    faults += _saved_twice(runs)
    if faults:
        raise ScenarioError(faults, f"batch {batch.name}")
    return runs


def _saved_twice(runs: list[Run]) -> list[str]:
    """Faults of files of strategies' states into which several runs would write, a sentence each."""
    first: dict[str, Run] = {}
    found = dict[str, str]()
    for run in runs:
        for name, settings in run.scenario.aggregators.items():
            path = getattr(settings, "save_state", None)
            if path is not None and first.setdefault(path, run) is not run:
                found[path] = (
                    f"aggregators.{name}.save_state = {path}: several runs of the batch would write it (of "
                    f"cases {first[path].case} and {run.case}); give each case a file, and one run"
                )
    return list(found.values())


def identity(scenario: Scenario, reduction: Reduction | None = None) -> str:
    """Identity of a run: a hash of the resolved scenario, the reduction, and the version of evgrid.

    Files count with their content, wherever they are: session tables, base loads, networks and the
    modules of the user's own strategies and scorers.
    """
    content = scenario.model_dump_json(exclude_none=True)
    for path in sorted(_files(scenario)):
        content = content.replace(json.dumps(str(path))[1:-1], hashlib.sha256(path.read_bytes()).hexdigest())
    for module in _own_modules(scenario):
        content += hashlib.sha256(module.read_bytes()).hexdigest()
    if reduction is not None:
        content += f"\n{reduction}"
    return hashlib.sha256(f"{versions().get('evgrid')}\n{content}".encode()).hexdigest()[:16]


def _files(value: Any) -> Iterator[Path]:
    """The files that a scenario names."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _files(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _files(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _files(inner)
    elif (isinstance(value, Path) or (isinstance(value, str) and is_network_file(value))) and Path(
        value
    ).is_file():
        yield Path(value)


def _own_modules(scenario: Scenario) -> Iterator[Path]:
    """Files of the user's own strategies, scorers and controls of sites."""
    from evgrid.core.user_code import sources_of

    named = [own for settings in scenario.aggregators.values() for own in settings.user_classes]
    for own in (*named, *(own for site in scenario.sites.values() for own in site.control.user_classes)):
        yield from sources_of(own)


def _chunks(scenario: Scenario, batch: Batch) -> Iterator[Scenario]:
    """The scenario with its members split into runs that fit into memory."""
    most = batch.members_per_run
    if most is None:
        most = scenario.ensemble.members
        if most > 1:
            most = min(most, members_that_fit(scenario, batch.memory_gb))
    members = scenario.members
    for first in range(members.start, members.stop, most):
        part = {"first": first, "members": min(most, members.stop - first)}
        yield scenario.model_copy(update={"ensemble": scenario.ensemble.model_copy(update=part)})


def members_that_fit(scenario: Scenario, memory_gb: float) -> int:
    """Number of members of one run within a bound on its memory, at least 1.

    An estimate from the sizes of the feeder and of one member's fleet: a power flow holds about 20
    numbers for each bus, line and phase, a step of every result variable is buffered once, and a
    member has its sessions and its base load. Results themselves are streamed to their file.
    """
    from evgrid.feeder.model import BATCH_CASES
    from evgrid.runs.memory import BYTES_OF_AN_EV, flow_bytes, load_bytes
    from evgrid.runs.simulation import build_world

    single = scenario.model_copy(update={"ensemble": scenario.ensemble.model_copy(update={"members": 1})})
    world = build_world(single)
    sizes = world.sizes
    flow = flow_bytes(world.network)
    member = BYTES_OF_AN_EV * (sizes["ev"] + sizes["session"]) + load_bytes(world.network)
    gathered = flow * BATCH_CASES
    return max(1, int((memory_gb * 1e9 - FIXED_MEMORY_GB * 1e9 - gathered) // (flow + member)))


# ---- running -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchReport:
    """Report of a batch.

    runs : all runs of the plan
    outcomes : outcome of each run started this time
    finished_before : identities of the runs that already had a result
    wall_s : seconds from the start of the workers to the end of the last run
    stopped : whether Ctrl-C has ended it
    finished_while_stopped : identities of the runs that wrote their result while it was stopped
    damaged : identities of the runs whose result in the folder was damaged; they are run again
    """

    runs: Sequence[Run]
    outcomes: Mapping[str, Outcome]
    finished_before: frozenset[str]
    wall_s: float
    stopped: bool
    finished_while_stopped: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()

    @property
    def failed(self) -> list[tuple[Run, Outcome]]:
        """The runs that failed, with their outcomes."""
        pairs = ((run, self.outcomes.get(run.id)) for run in self.runs)
        return [(run, outcome) for run, outcome in pairs if outcome is not None and not outcome.finished]

    @property
    def finished(self) -> int:
        """Number of runs that have a result now."""
        now = sum(outcome.finished for outcome in self.outcomes.values())
        return len(self.finished_before) + len(self.finished_while_stopped) + now


def run_batch(
    batch: Batch | str | Path,
    folder: str | Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    reduction: Reduction | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> BatchReport:
    """Run a batch into a folder.

    Parameters
    ----------
    batch
        A :class:`evgrid.runs.batch.Batch`, or the path of one.
    folder
        Folder of results and index.
    resume
        Continue a batch in the folder: only runs without a result are run.
    workers
        Worker processes of the local cluster; left out: one for each core.
    scheduler
        Address of a Dask scheduler to use instead (``tcp://host:8786``); its workers must see the
        same folder and have the same version of evgrid. With ``tls://host:8786`` Dask's own settings
        (``distributed.comm.tls``) give certificate and key.
    reduction
        The stored part of a run's result; left out: all of it.
    progress
        Called after every run with the number of runs done, failed and in all (done counts the
        failed, and those finished before).

    Raises
    ------
    EvgridError
        If a scenario is at fault, if the folder holds a batch already and ``resume`` is not given, if it
        holds another or another process is running in it, if there is no scheduler, or no worker for
        ``workers_within``. A run that fails raises nothing: see the report.

    Notes
    -----
    In a script, call this under ``if __name__ == "__main__":``, as for any code that
    starts processes.

    """
    folder = Path(folder).absolute()
    if not isinstance(batch, Batch):
        batch = load_batch(batch)
    if scheduler is not None:
        check_scheduler(scheduler)
    runs = plan(batch, reduction)
    with locked(folder):
        open_folder(folder, batch.name, resume)
        write_record(folder, Record(
            format=FORMAT, name=batch.name, version=versions().get("evgrid", ""),
            runs=[run.record for run in runs],
        ))  # fmt: skip
        return _run_missing(batch, runs, folder, workers, scheduler, reduction, progress)


def _run_missing(
    batch: Batch,
    runs: Sequence[Run],
    folder: Path,
    workers: int | None,
    scheduler: str | None,
    reduction: Reduction | None,
    progress: Callable[[int, int, int], None] | None,
) -> BatchReport:
    """Run all runs without a result, in a locked folder."""
    before = frozenset(run.id for run in runs if whole(result_of(folder, run.id)))
    missing = [run for run in runs if run.id not in before]
    damaged = [run.id for run in missing if result_of(folder, run.id).exists()]
    for run in missing:
        remove_parts(result_of(folder, run.id))
        with suppress(OSError):  # a damaged result
            result_of(folder, run.id).unlink(missing_ok=True)
    outcomes: dict[str, Outcome] = {}
    begin, stopped = time.monotonic(), False

    def record_outcome(outcome: Outcome) -> None:
        outcomes[outcome.id] = outcome
        with suppress(OSError):  # a full disk; the outcome is in the report anyway
            write_text(folder / "runs" / f"{outcome.id}.json", json.dumps(asdict(outcome), indent=1))
        if progress is not None:
            failed = sum(not outcome.finished for outcome in outcomes.values())
            progress(len(before) + len(outcomes), failed, len(runs))

    try:
        if progress is not None:
            progress(len(before), 0, len(runs))
        if missing:
            tasks = [_task(run, batch, folder, reduction) for run in missing]
            with dask_client(scheduler, min(workers or os.cpu_count() or 1, len(tasks))) as client:
                run_tasks(client, tasks, record_outcome, batch.workers_within)
    except KeyboardInterrupt:
        stopped = True
    finally:
        for run in missing:
            remove_parts(result_of(folder, run.id))
    unreported = [run.id for run in missing if run.id not in outcomes and whole(result_of(folder, run.id))]
    with suppress(OSError):
        write_text(folder / "index.csv", read_index(folder).to_csv(index=False))
    return BatchReport(
        runs, outcomes, before, time.monotonic() - begin, stopped, frozenset(unreported), frozenset(damaged)
    )


def _task(run: Run, batch: Batch, folder: Path, reduction: Reduction | None) -> Task:
    return Task(
        id=run.id,
        scenario=run.scenario.model_dump_json(exclude_none=True),
        folder=str(batch.base.parent),
        output=str(result_of(folder, run.id)),
        version=versions().get("evgrid", ""),
        time_limit_s=batch.time_limit,
        reduction=reduction,
    )


def _text(case: Case) -> str:
    return case.name or ", ".join(f"{k} = {shown(v)}" for k, v in case.overrides.items()) or "no overrides"
