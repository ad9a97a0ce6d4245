"""The runs of a study of which each case is one run, reduced to what the study needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evgrid.errors import ResultError
from evgrid.results import open_netcdf
from evgrid.runs.batch import KEPT, Batch, read_index, run_batch
from evgrid.runs.worker_process import Reduction
from evgrid.studies.study import BatchOptions

if TYPE_CHECKING:
    import xarray as xr


def reduced_runs(
    study: str,
    batch: Batch,
    cases: Sequence[str],
    reduction: Reduction,
    folder: Path,
    progress: Callable[[int, int, int], None] | None,
    options: BatchOptions,
) -> list[xr.Dataset]:
    """Run the cases of a study in a folder; what the reduction keeps of each, in memory.

    Raises
    ------
    EvgridError
        If a scenario is at fault or a run fails, naming its case.
    KeyboardInterrupt
        On Ctrl-C; finished runs are kept.

    """
    report = run_batch(batch, folder, reduction=reduction, progress=progress, **options)
    if report.stopped:
        raise KeyboardInterrupt(KEPT)
    if report.failed:
        run, outcome = report.failed[0]
        raise ResultError(f"study {study}: {cases[run.case]}: {outcome.reason}; {KEPT}")
    index = read_index(folder)
    found = []
    for case in range(len(cases)):
        (name,) = index.loc[index["case"] == case, "id"]
        with open_netcdf(folder / "runs" / f"{name}.nc") as kept:
            found.append(kept.load())
    return found
