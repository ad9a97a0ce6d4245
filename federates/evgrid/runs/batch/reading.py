"""Reading a batch: its index, its results as one Dataset, its charging sessions as one table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.errors import ResultError
from evgrid.results import open_run
from evgrid.runs.batch.folder import FORMAT, Record, RunRecord, outcome_of, read_record, result_of, whole
from evgrid.runs.batch.stacking import stack

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def read_index(folder: str | Path) -> pd.DataFrame:
    """Every run of a batch: its case and its name, overrides, members, state (finished, failed, missing,
    damaged: its result was changed or truncated), the reason where it failed, wall time and peak memory.

    Raises
    ------
    ResultError
        If the folder holds no batch.

    """
    import pandas as pd

    folder = Path(folder)
    rows = []
    for run in read_record(folder).runs:
        outcome, path = outcome_of(folder, run.id), result_of(folder, run.id)
        done = whole(path)
        state = "finished" if done else "damaged" if path.exists() else "failed" if outcome else "missing"
        rows.append(
            {
                "id": run.id, "case": run.case, "case_name": run.title, **run.shown,
                "first": run.first, "members": run.members,
                "state": state,
                "reason": "" if done else f"{path} is damaged" if state == "damaged" else
                          outcome.reason if outcome else "",
                "wall_s": outcome.wall_s if outcome else math.nan,
                "peak_memory_mib": outcome.peak_memory_mib if outcome else math.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def open_batch(folder: str | Path, check: bool = True) -> xr.Dataset:
    """Open the finished runs of a batch as one Dataset; arrays are read when they are used.

    Parameters
    ----------
    folder
        Folder of the batch.
    check
        See :func:`evgrid.open_results`.

    Returns
    -------
    xarray.Dataset
        The variables of the results with the dimension ``case`` in front. Cases may differ in anything, in
        variables, sizes, dimensions and coordinates: each keeps its own values, and missing values are NaN
        (NaT for times, "" for text). Variables that are equal in all cases and vary neither with members nor
        with time have no ``case``.

        Along ``case``: ``case_name``, its name in the batch, else its overrides; each setting that the batch
        overrides ("" or NaN where a case does not); the attributes that differ, as ``case_scenario``, and as
        ``VARIABLE_units`` those of a variable.

        Members without a result are NaN; cases without any are left out, and ``attrs["missing"]`` counts
        the runs without a result. A result that is damaged is left out with a warning, and is named in
        ``attrs["damaged"]``. The tables of EVs and sessions, which differ in length, are left out:
        :func:`batch_sessions`. Sites have the dimensions member and site, which is their name; where a member
        or a case has no site of a name values are missing.

    Raises
    ------
    ResultError
        If the folder holds no batch, or no run has a result that can be read.

    """
    folder = Path(folder)
    record = read_record(folder)
    cases: dict[int, list[xr.Dataset]] = {}
    runs: dict[int, RunRecord] = {}
    damaged = list[str]()
    missing = 0
    closing = ExitStack()
    try:
        for run in record.runs:
            if not result_of(folder, run.id).is_file():
                missing += 1
                continue
            try:
                opened = closing.enter_context(open_run(result_of(folder, run.id), check, chunks=-1))
            except ResultError as error:
                damaged.append(str(error))
                continue
            flat = [name for name in opened.variables if {"ev", "session"} & set(opened[name].dims)]
            kept = _sites_by_name(opened.drop_vars(flat))
            held = {name: kept[name].compute() for name in kept.coords if name not in kept.indexes}
            cases.setdefault(run.case, []).append(kept.assign_coords(held))
            runs[run.case] = run
        if not cases:
            reasons = f" ({'; '.join(damaged)})" if damaged else ""
            raise ResultError(f"{folder}: no run of the batch has finished{reasons}")
        together = stack([_case(chunks) for chunks in cases.values()], "case")
    except BaseException:
        closing.close()
        raise
    if damaged:
        warnings.warn(f"{len(damaged)} of {len(record.runs)} results are left out: {'; '.join(damaged)}",
                      stacklevel=2)  # fmt: skip
    together = together.assign_coords(
        case=("case", list(cases)),
        case_name=("case", [run.title for run in runs.values()], {"long_name": "name of the case"}),
        **_settings(list(runs.values())),
    ).drop_encoding()
    together.attrs |= {
        "format": FORMAT, "name": record.name, "version": record.version,
        "missing": missing, "damaged": damaged,
    }  # fmt: skip
    together.set_close(closing.close)
    return together


def _sites_by_name(result: xr.Dataset) -> xr.Dataset:
    """A result with sites by member and name, in place of one flat table of those of all members."""
    import xarray as xr

    if "site" not in result.dims:
        return result
    own, members = result["site_name"].values.tolist(), result["member"].values.tolist()
    names, place = list(dict.fromkeys(own)), {member: row for row, member in enumerate(members)}
    column = {name: number for number, name in enumerate(names)}
    row = np.full((len(members), len(names)), -1)
    of_members = [place[member] for member in result["site_member"].values.tolist()]
    row[of_members, [column[name] for name in own]] = np.arange(len(own))
    there, at = (xr.Variable(("member", "site"), values) for values in (row >= 0, np.maximum(row, 0)))
    found = {}
    for name, variable in result.variables.items():
        if "site" not in variable.dims or name in ("site", "site_name", "site_member"):
            continue
        wide = variable.isel(site=at)
        if not there.values.all():
            fill = "" if variable.dtype.kind == "U" else np.nan
            wide = wide.where(there, fill)  # type: ignore[no-untyped-call]
        found[name] = wide.transpose("member", ..., "site")
    coords = [name for name in found if name in result.coords]
    label = ("site", names, {"long_name": "name of the site"})
    return result.drop_dims("site").assign(found).set_coords(coords).assign_coords(site=label)


def _case(chunks: Sequence[xr.Dataset]) -> xr.Dataset:
    """A case from the results of its runs, each with some of its members."""
    import json

    case = stack(chunks, "member")
    if len(chunks) == 1:
        return case
    said = [chunk.attrs for chunk in chunks]
    scenario = json.loads(said[0]["scenario"])
    scenario.setdefault("ensemble", {})["members"] = case.sizes["member"]
    merged: dict[str, Any] = {"scenario": json.dumps(scenario)}
    for name in ("failed_members", "unconverged_members"):
        if all(name in a for a in said):
            merged[name] = json.dumps({k: v for a in said for k, v in json.loads(a[name]).items()})
    if all("newton_solutions" in a for a in said):
        merged["newton_solutions"] = str(sum(int(a["newton_solutions"]) for a in said))
    worst: dict[str, float] = {}
    for a in said:
        for balance, residual in json.loads(a["audit"]).items():
            worst[balance] = max(residual, worst.get(balance, residual))
    return case.assign_attrs(merged | {"audit": json.dumps(worst)})


def _settings(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The overrides as coordinates along ``case``: numbers where all are, else text."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for run in runs for key in run.overrides):
        values = [run.shown.get(key) for run in runs]
        numbers = all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values)
        labels: Any = [
            (np.nan if numbers else "") if v is None else v if numbers or isinstance(v, str) else
            str(v).lower() if isinstance(v, bool) else str(v)
            for v in values
        ]  # fmt: skip
        found[key] = ("case", labels, {"long_name": f"setting {key} of the scenario"})
    return found


def batch_sessions(folder: str | Path, check: bool = True) -> pd.DataFrame:
    """The charging sessions of all finished runs, a row a session, with case, its name and overrides.

    Results that are damaged are left out with a warning. Columns that a case's sessions lack are missing
    values.

    Raises
    ------
    ResultError
        If the folder holds no batch.

    """
    import pandas as pd

    folder = Path(folder)
    tables = []
    for run, result in _results(folder, read_record(folder), check):
        names = [name for name in result.variables if result[name].dims == ("session",)]
        table = result[names].to_dataframe().reset_index(drop=True)
        tables.append(table.assign(case=run.case, case_name=run.title, **run.shown))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _results(folder: Path, record: Record, check: bool) -> Iterator[tuple[RunRecord, xr.Dataset]]:
    """The results that can be read, one after the other."""
    for run in record.runs:
        path = result_of(folder, run.id)
        if not path.is_file():
            continue
        try:
            opened = open_run(path, check)
        except ResultError as error:
            warnings.warn(f"a result is left out: {error}", stacklevel=3)
            continue
        with opened:
            yield run, opened
