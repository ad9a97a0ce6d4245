"""Batches: a base scenario and many overrides of it, run on Dask, kept and resumed run by run.

In: a batch file, :class:`Batch`, with a base scenario and a grid, a list or a random sample of
overrides. Out: a folder with one NetCDF file a run, an index of all runs, and, opened lazily as one
Dataset with the overrides as coordinates, :func:`open_batch`.

A *case* is one set of overrides, a *run* is a case, or a chunk of a case's members where these are
too many for the memory of a process. A run is known by the hash of its resolved scenario (files
that it names by their content) and the version of evgrid; a batch is resumed by running what has no
result yet. Members have random streams of their own, so that the numbers do not depend on the
chunks, on the workers or on what was resumed.

::

    FOLDER/
        batch.json      the batch: its overrides and runs, the version of evgrid
        index.csv       a row a run: case, overrides, members, state, reason, wall time, peak memory
        runs/ID.nc      the result of a run; it is there whole, or not at all
        runs/ID.json    how the run ended, with the end of its log if it failed
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, model_validator

from evgrid.errors import EvgridError, ResultError, ScenarioError
from evgrid.results import open_results, versions
from evgrid.scenario import Scenario, load_scenario
from evgrid.settings import Duration, ExistingFile, Settings, checked, fault, read_settings
from evgrid.workers import Outcome, Reduction, Task, execute, ignore_interrupts, remove_parts

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from distributed import Client

FORMAT = "evgrid-batch-1"
"""Written into each batch; :func:`open_batch` refuses other folders."""

FIXED_MEMORY_GB = 0.45
"""What a run of one member takes: Python, its libraries and the buffers of the result, GB."""

KEPT = "what is finished is kept, go on with --resume"
"""What Ctrl-C leaves."""

Overrides = dict[str, Any]
"""Path of a setting to its value: ``{"fleet.penetration": 0.8}``."""


class Range(Settings):
    """Values drawn evenly from a range, or from a list."""

    low: float | None = None
    """Least value."""
    high: float | None = None
    """Greatest value."""
    integer: bool = False
    """Whether only whole numbers are drawn, both ends among them."""
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
    """A random sample of overrides: a Latin hypercube, which covers every range evenly."""

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

    name: Annotated[str, Field(min_length=1)]
    """What the batch is called; its folder is results/NAME unless another is given."""
    base: ExistingFile
    """The scenario that all cases start from."""
    overrides: Overrides = {}
    """Overrides of the base that all cases share, such as {time.duration: 24h}."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = None
    """Values of each setting; the cases are all their combinations, the last setting fastest."""
    listed: Annotated[list[Overrides] | None, Field(alias="list", min_length=1)] = None
    """The cases, one by one."""
    sample: Sample | None = None
    """A random sample of cases."""
    members_per_run: Annotated[int, Field(ge=1)] | None = None
    """Most members in one run; left out: as many as fit into memory_gb."""
    memory_gb: Annotated[float, Field(gt=0)] = 2.0
    """Memory that a run may take, GB: members are parted into chunks by an estimate."""
    time_limit: Annotated[Duration, Field(gt=0)] | None = None
    """Wall time after which a run is ended as failed; left out: none."""

    @model_validator(mode="after")
    def _one_kind(self) -> Batch:
        if sum(kind is not None for kind in (self.grid, self.listed, self.sample)) != 1:
            raise fault("give one of grid, list and sample")
        return self

    def cases(self) -> list[Overrides]:
        """The overrides of each case, without those that all share."""
        if self.grid is not None:
            return [
                dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
            ]
        if self.listed is not None:
            return [dict(case) for case in self.listed]
        assert self.sample is not None
        return self.sample.draw()


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
    overrides : what the case changes
    scenario : resolved, with the members of this run
    """

    id: str
    case: int
    overrides: Overrides
    scenario: Scenario


def plan(batch: Batch, reduction: Reduction | None = None) -> list[Run]:
    """Resolve every case and part it into runs, of which ``reduction`` is kept.

    Raises
    ------
    ScenarioError
        With every fault of every case.
    NetworkError
        If members have to be parted and the feeder can't be read.

    """
    runs, faults = list[Run](), list[str]()
    first_with: dict[str, int] = {}
    for number, overrides in enumerate(batch.cases()):
        try:
            scenario = load_scenario(batch.base, {**batch.overrides, **overrides})
        except ScenarioError as error:
            faults += [f"case {number} ({_text(overrides)}): {fault}" for fault in error.faults]
            continue
        for chunk in _chunks(scenario, batch):
            run = Run(identity(chunk, batch.base.parent, reduction), number, overrides, chunk)
            if run.id in first_with:
                faults.append(
                    f"case {number} ({_text(overrides)}): is the same scenario as case {first_with[run.id]}"
                )
                break
            first_with[run.id] = number
            runs.append(run)
    if faults:
        raise ScenarioError(faults, f"batch {batch.name}")
    return runs


def identity(scenario: Scenario, folder: Path, reduction: Reduction | None = None) -> str:
    """What a run is known by: a hash of the resolved scenario, of what is kept, and the version of evgrid.

    Files count with their content, wherever they lie: session tables, base loads, networks and the
    module of a strategy of the user's own (looked for in ``folder`` first).
    """
    content = scenario.model_dump_json(exclude_none=True)
    for path in sorted(_files(scenario)):
        content = content.replace(json.dumps(str(path))[1:-1], hashlib.sha256(path.read_bytes()).hexdigest())
    for module in _own_modules(scenario, str(folder)):
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
    elif (
        isinstance(value, Path) or (isinstance(value, str) and value.lower().endswith((".json", ".xlsx")))
    ) and Path(value).is_file():
        yield Path(value)


def _own_modules(scenario: Scenario, folder: str) -> Iterator[Path]:
    """Files of the strategies and scorers of the user's own."""
    from evgrid.aggregator.strategies import find_strategy
    from evgrid.system.scores import find_scorer

    for settings in scenario.aggregators.values():
        classes: list[type] = [find_strategy(settings.strategy, folder)] if ":" in settings.strategy else []
        scorer = getattr(settings, "scorer", "")
        if ":" in scorer:
            classes.append(type(find_scorer(scorer)))
        for each in classes:
            source = inspect.getsourcefile(each)
            if source is not None:
                yield Path(source)


def _chunks(scenario: Scenario, batch: Batch) -> Iterator[Scenario]:
    """The scenario with its members parted into runs of at most as many as fit."""
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
    """How many members one run can have within a bound on its memory, at least 1.

    An estimate from the sizes of the feeder and of one member's fleet: a power flow holds about 20
    numbers for each bus, line and phase, a step of every result variable is buffered once, and a
    member has its sessions and its base load. Results themselves are streamed to their file.
    """
    from evgrid.feeder.model import BATCH_CASES
    from evgrid.simulation import build_world

    alone = scenario.model_copy(update={"ensemble": scenario.ensemble.model_copy(update={"members": 1})})
    sizes = build_world(alone).sizes
    flow = 8 * 20 * sizes["phase"] * (sizes["bus"] + sizes["line"] + sizes["trafo"])
    member = 2000 * (sizes["ev"] + sizes["session"]) + 8 * 96 * 20 * sizes["connection"]
    gathered = flow * BATCH_CASES
    return max(1, int((memory_gb * 1e9 - FIXED_MEMORY_GB * 1e9 - gathered) // (flow + member)))


# ---- running -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchReport:
    """How a batch went.

    runs : all runs of the plan
    outcomes : of each run that was tried this time
    finished_before : identities of the runs that had a result already
    wall_s : seconds from the start of the workers to the end of the last run
    stopped : whether Ctrl-C has ended it
    """

    runs: Sequence[Run]
    outcomes: Mapping[str, Outcome]
    finished_before: frozenset[str]
    wall_s: float
    stopped: bool

    @property
    def failed(self) -> list[tuple[Run, Outcome]]:
        """The runs that failed, with how they did."""
        pairs = ((run, self.outcomes.get(run.id)) for run in self.runs)
        return [(run, outcome) for run, outcome in pairs if outcome is not None and not outcome.finished]

    @property
    def finished(self) -> int:
        """Number of runs that have a result now."""
        return len(self.finished_before) + sum(outcome.finished for outcome in self.outcomes.values())


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
        A :class:`Batch`, or the path of one.
    folder
        Where results and index go.
    resume
        Go on with a batch in the folder: only runs without a result are run.
    workers
        Worker processes of the local cluster; left out: one for each core.
    scheduler
        Address of a Dask scheduler to use instead (``tcp://host:8786``); its workers must see the
        same folder and have the same version of evgrid.
    reduction
        What is kept of a run; left out: its whole result.
    progress
        Called after every run with the number of runs done, failed and in all (done counts the
        failed, and those finished before).

    Raises
    ------
    EvgridError
        If a scenario is at fault, if the folder holds a batch already and ``resume`` is not given,
        or if there is no scheduler. A run that fails raises nothing: see the report.

    Notes
    -----
    In a script, call this under ``if __name__ == "__main__":``, as everything that starts
    processes.

    """
    folder = Path(folder).absolute()
    if not isinstance(batch, Batch):
        batch = load_batch(batch)
    runs = plan(batch, reduction)
    _open_folder(folder, resume)
    _write(folder / "batch.json", json.dumps(_record(batch, runs), indent=1))
    before = frozenset(run.id for run in runs if _result(folder, run.id).is_file())
    missing = [run for run in runs if run.id not in before]
    outcomes: dict[str, Outcome] = {}
    begin, stopped = time.monotonic(), False

    def told(outcome: Outcome) -> None:
        outcomes[outcome.id] = outcome
        with suppress(OSError):  # a full disk; the outcome is in the report all the same
            _write(folder / "runs" / f"{outcome.id}.json", json.dumps(asdict(outcome), indent=1))
        if progress is not None:
            failed = sum(not outcome.finished for outcome in outcomes.values())
            progress(len(before) + len(outcomes), failed, len(runs))

    try:
        if progress is not None:
            progress(len(before), 0, len(runs))
        if missing:
            tasks = [_task(run, batch, folder, reduction) for run in missing]
            with dask_client(scheduler, min(workers or os.cpu_count() or 1, len(tasks))) as client:
                _work_off(client, tasks, told)
    except KeyboardInterrupt:
        stopped = True
    finally:
        for run in missing:
            remove_parts(_result(folder, run.id))
    with suppress(OSError):
        _write(folder / "index.csv", read_index(folder).to_csv(index=False))
    return BatchReport(runs, outcomes, before, time.monotonic() - begin, stopped)


def _task(run: Run, batch: Batch, folder: Path, reduction: Reduction | None) -> Task:
    return Task(
        id=run.id,
        scenario=run.scenario.model_dump_json(exclude_none=True),
        folder=str(batch.base.parent),
        output=str(_result(folder, run.id)),
        version=versions().get("evgrid", ""),
        time_limit_s=batch.time_limit,
        reduction=reduction,
    )


def _work_off(client: Client, tasks: Sequence[Task], told: Callable[[Outcome], None]) -> None:
    """Give all tasks to the workers, and tell of each as it ends."""
    from distributed import as_completed

    futures = {client.submit(execute, task, pure=False, key=f"evgrid-{task.id}"): task.id for task in tasks}
    try:
        for future in as_completed(list(futures), loop=client.loop):
            task_id = futures.pop(future)
            if future.status == "finished":
                told(future.result())
            else:
                told(Outcome(task_id, _loss(future), "", 0.0, 0.0))
            future.release()
    except BaseException:
        with suppress(Exception):
            client.cancel(list(futures), force=True)
        raise


def _loss(future: Any) -> str:
    """Why Dask has no outcome of a run."""
    from distributed import KilledWorker

    if future.status == "cancelled":
        return "the scheduler was lost"
    error = future.exception()
    if isinstance(error, KilledWorker):
        return "its workers died one after the other"
    return f"the worker failed: {type(error).__name__}: {error}"


@contextmanager
def dask_client(scheduler: str | None, workers: int | None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of a local cluster of processes (one a core).

    Raises EvgridError if there is no scheduler.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EvgridError(f"--scheduler {scheduler}: there is no Dask scheduler: {error}") from error
        with client:
            yield client
        return
    quiet = {"distributed.admin.log-format": "%(message)s", "distributed.worker.daemon": False}
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=workers or os.cpu_count() or 1, threads_per_worker=1, processes=True,
            dashboard_address=":0", memory_limit=0, silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        client.register_plugin(_leave_interrupts())
        yield client


def _leave_interrupts() -> Any:
    """A plugin for Dask's workers, also for those that take the place of dead ones."""
    from distributed import WorkerPlugin

    class LeaveInterrupts(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            ignore_interrupts()

    return LeaveInterrupts()


# ---- the folder ----------------------------------------------------------------------------------


def _open_folder(folder: Path, resume: bool) -> None:
    if (folder / "batch.json").exists() and not resume:
        raise ResultError(
            f"{folder} holds a batch already; go on with it with --resume, or choose another folder with -o"
        )
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(f"the batch can't be written to {folder}: {error.strerror}") from error


def _result(folder: Path, run_id: str) -> Path:
    return folder / "runs" / f"{run_id}.nc"


def _record(batch: Batch, runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": batch.name,
        "version": versions().get("evgrid", ""),
        "runs": [
            {
                "id": run.id, "case": run.case, "overrides": run.overrides,
                "first": run.scenario.ensemble.first, "members": run.scenario.ensemble.members,
            }
            for run in runs
        ],
    }  # fmt: skip


def _known(folder: Path, run_id: str) -> Outcome | None:
    """How a run ended when it was last tried, as far as it is on disk."""
    with suppress(OSError, ValueError, TypeError):
        return Outcome(**json.loads((folder / "runs" / f"{run_id}.json").read_text(encoding="utf-8")))
    return None


def _write(path: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _text(overrides: Overrides) -> str:
    return ", ".join(f"{key} = {value}" for key, value in overrides.items()) or "no overrides"


# ---- reading -------------------------------------------------------------------------------------


def read_index(folder: str | Path) -> pd.DataFrame:
    """Every run of a batch: its case, overrides, members, state (finished, failed, missing), the
    reason where it failed, wall time and peak memory.

    Raises
    ------
    ResultError
        If the folder holds no batch.

    """
    import pandas as pd

    folder = Path(folder)
    record = _read_record(folder)
    rows = []
    for run in record["runs"]:
        outcome, done = _known(folder, run["id"]), _result(folder, run["id"]).is_file()
        rows.append(
            {
                "id": run["id"], "case": run["case"], **run["overrides"],
                "first": run["first"], "members": run["members"],
                "state": "finished" if done else "failed" if outcome else "missing",
                "reason": outcome.reason if outcome and not done else "",
                "wall_s": outcome.wall_s if outcome else math.nan,
                "peak_memory_mib": outcome.peak_memory_mib if outcome else math.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def open_batch(folder: str | Path) -> xr.Dataset:
    """Open the finished runs of a batch as one Dataset; arrays are read when they are used.

    Returns
    -------
    xarray.Dataset
        The variables of the results with the dimension ``case`` in front; each setting that the
        batch overrides is a coordinate along ``case``. Members that have no result are NaN; cases
        without any are not there, and ``attrs["missing"]`` counts the runs without a result. The
        tables of EVs and sessions, which differ in length, are left out: :func:`batch_sessions`.

    Raises
    ------
    ResultError
        If the folder holds no batch, or nothing has finished.

    """
    import xarray as xr

    folder = Path(folder)
    record = _read_record(folder)
    cases: dict[int, list[xr.Dataset]] = {}
    files = list[xr.Dataset]()
    overrides: dict[int, Overrides] = {}
    missing = 0
    for run in record["runs"]:
        path = _result(folder, run["id"])
        if not path.is_file():
            missing += 1
            continue
        with open_results(path) as checked:
            attrs = checked.attrs
        opened = xr.open_dataset(path, engine="netcdf4", decode_timedelta=False, chunks={})
        files.append(opened)
        flat = [name for name in opened.variables if {"ev", "session"} & set(opened[name].dims)]
        cases.setdefault(run["case"], []).append(opened.drop_vars(flat).assign_attrs(attrs))
        overrides[run["case"]] = run["overrides"]
    if not cases:
        raise ResultError(f"{folder}: no run of the batch has finished")
    parts = [_concat(chunks, "member") for chunks in cases.values()]
    whole = _concat(parts, "case")
    keys = list(dict.fromkeys(key for case in overrides.values() for key in case))
    coordinates: dict[str, Any] = {"case": ("case", list(cases))}
    for key in keys:
        values = [_scalar(overrides[case].get(key)) for case in cases]
        coordinates[key] = ("case", values, {"long_name": f"setting {key} of the scenario"})
    whole = whole.assign_coords(coordinates)
    whole.attrs = {"format": FORMAT, "name": record["name"], "version": record["version"], "missing": missing}
    closing = ExitStack()
    for file in files:
        closing.callback(file.close)
    whole.set_close(closing.close)
    return whole


def batch_sessions(folder: str | Path) -> pd.DataFrame:
    """The charging sessions of all finished runs, a row a session, with case and overrides.

    Raises
    ------
    ResultError
        If the folder holds no batch.

    """
    import pandas as pd

    folder = Path(folder)
    tables = []
    for run in _read_record(folder)["runs"]:
        path = _result(folder, run["id"])
        if not path.is_file():
            continue
        with open_results(path) as result:
            names = [name for name in result.variables if result[name].dims == ("session",)]
            table = result[names].to_dataframe().reset_index(drop=True)
        overrides = {key: _scalar(value) for key, value in run["overrides"].items()}
        tables.append(table.assign(case=run["case"], **overrides))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "batch.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{folder} is no batch of evgrid: {error}") from error
    if record.get("format") != FORMAT:
        raise ResultError(f"{folder} is no batch of evgrid: it has no format = {FORMAT}")
    return record


def _concat(parts: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    """Datasets side by side; what does not vary over members, and is alike, is kept once."""
    import xarray as xr

    if len(parts) == 1 and dim == "member":
        return parts[0]
    varying = [
        str(n) for n in parts[0].data_vars if "member" in parts[0][n].dims or "time" in parts[0][n].dims
    ]
    alike = all(_same_static(parts[0], part, varying) for part in parts[1:])
    return xr.concat(
        list(parts), dim, data_vars=varying if alike else "all", coords="minimal", compat="override",
        join="outer", combine_attrs="override",
    )  # fmt: skip


def _same_static(one: xr.Dataset, other: xr.Dataset, varying: Sequence[str]) -> bool:
    names = [name for name in one.data_vars if name not in varying]
    return all(name in other and one[name].equals(other[name]) for name in names)


def _scalar(value: Any) -> Any:
    """An override as a coordinate's value: numbers and text as they are, mappings as JSON."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)
