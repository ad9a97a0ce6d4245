"""Results: one xarray Dataset a run, streamed while it runs, written atomically, opened lazily.

Every variable has the dimensions (member, time, others) as far as it has them, a unit and a long
name. Times are real local timestamps; a value at time t is the mean over the recording interval
that starts at t. The attributes hold the resolved scenario, the seed, the package versions and
the energy audit.

:mod:`evgrid.results.recorder` averages the recorded values, :mod:`evgrid.results.stores` stores them, and
only :mod:`evgrid.core.netcdf` accesses NetCDF files.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from evgrid.core.netcdf import open_netcdf, save_dataset
from evgrid.errors import ResultError
from evgrid.results.recorder import ResultRecorder, Store
from evgrid.results.stores import FileStore, MemoryStore

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "FORMAT", "FileStore", "MemoryStore", "ResultRecorder", "Store", "audit_of", "of_aggregator",
    "open_netcdf", "open_results", "open_run", "save_dataset", "versions",
]  # fmt: skip

FORMAT = "evgrid-result-1"
"""Written into each result of a run."""

_PACKAGES = ("evgrid", "helics", "pandapower", "power-grid-model", "numpy", "numba", "xarray")


def versions() -> dict[str, str]:
    """Versions of the packages that affect the numbers."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def open_results(path: str | Path, check: bool = True, chunks: Literal[-1] | None = None) -> xr.Dataset:
    """Open a result of ``evgrid run`` or of a study; arrays are read when they are used, from any thread.

    Parameters
    ----------
    path
        The file.
    check
        Whether its checksum is compared first, which reads it through once (3 GB/s from memory). A damaged
        file that is not checked can crash the process.
    chunks
        -1: arrays of Dask, one chunk each.

    Raises
    ------
    ResultError
        If there is no such file, if it is damaged, or no result of evgrid.

    """
    dataset = open_netcdf(path, check, chunks)
    if not re.fullmatch(r"evgrid-[a-z-]+-\d+", str(dataset.attrs.get("format"))):
        dataset.close()
        folder = Path(path).resolve().parent.parent
        if (folder / "batch.json").is_file():
            raise ResultError(
                f"{path} belongs to the study {folder}, which keeps of its runs what it needs only: give the "
                "folder, or run the scenario by itself"
            )
        raise ResultError(f"{path} is no result of evgrid: it has no attribute format = {FORMAT}")
    return dataset


def open_run(path: str | Path, check: bool = True, chunks: Literal[-1] | None = None) -> xr.Dataset:
    """:func:`open_results` of a run's result.

    Raises ResultError also for other results, and where a variable that every run has is missing.
    """
    dataset = open_results(path, check, chunks)
    fault = ""
    if dataset.attrs["format"] != FORMAT:
        fault = f"is no result of a run: its format is {dataset.attrs['format']}, not {FORMAT}"
    else:
        missing = [name for name in ("scenario", "name", "audit") if name not in dataset.attrs]
        missing += [
            name for name in ("member", "time") if name not in dataset.coords or not dataset.sizes.get(name)
        ]
        if missing:
            fault = f"is no whole result: it has no {', '.join(missing)}"
    if fault:
        dataset.close()
        raise ResultError(f"{path} {fault}")
    return dataset


def of_aggregator(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """The part of a result that belongs to one aggregator, as if it had been the only one.

    Its own variables under their plain names (``regulation_score`` for ``regulation_score_NAME``;
    ``fleet_power_kw`` is that of its EVs), its EVs and sessions, and all that belongs to no aggregator. So
    any function for the result of one aggregator works on it.

    Raises
    ------
    ResultError
        If the run had no such aggregator.

    """
    names = list(json.loads(dataset.attrs["scenario"]).get("aggregators", {}))
    if name not in names:
        raise ResultError(f"the result has no aggregator {name}; it has {', '.join(names) or 'none'}")
    if "ev_aggregator" not in dataset.coords:
        return dataset
    plain: dict[str, str] = {}
    others = set()
    for variable in map(str, dataset.data_vars):
        owner = max((n for n in names if variable.endswith(f"_{n}")), key=len, default=None)
        if owner == name:
            plain[variable] = variable.removesuffix(f"_{name}")
        elif owner is not None:
            others.add(variable)
    kept = dataset.drop_vars([*others, *(set(plain.values()) & set(dataset.data_vars))]).rename(plain)
    return kept.isel(
        ev=np.flatnonzero(kept["ev_aggregator"].values == name),
        session=np.flatnonzero(kept["session_aggregator"].values == name),
    )


def audit_of(dataset: xr.Dataset) -> dict[str, float]:
    """The energy audit that a result holds: worst residual of each balance."""
    audit: dict[str, float] = json.loads(dataset.attrs["audit"])
    return audit
