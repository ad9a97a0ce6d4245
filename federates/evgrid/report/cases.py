"""The results of a report or a comparison, each with a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evgrid.errors import ResultError
from evgrid.report.key_figures import KeyFigure, key_figures, limits_of
from evgrid.report.setups import difference, setup_of
from evgrid.results import open_run
from evgrid.results.limits import violations
from evgrid.runs.batch import read_index

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Case:
    """A result with its label, which differs from those beside it."""

    label: str
    path: Path
    result: xr.Dataset


def labels_of(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names that differ: the scenarios' own, else those of the files, else with numbers."""
    if len(set(names)) == len(names):
        return list(names)
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{name} ({number})" for number, name in enumerate(stems, 1)]


@contextmanager
def open_cases(paths: Sequence[Path]) -> Iterator[list[Case]]:
    """Open results of runs; raises ResultError for a file that is none."""
    with ExitStack() as stack:
        results = [stack.enter_context(open_run(path)) for path in paths]
        labels = labels_of([str(result.attrs["name"]) for result in results], paths)
        yield [Case(*case) for case in zip(labels, paths, results, strict=True)]


def figures_of(
    paths: Sequence[Path], limits: Sequence[str] = (), progress: Callable[[int, int], None] | None = None
) -> dict[str, list[KeyFigure]]:
    """Key figures of results, and of each case of batches whose folders are given, by label; ``progress`` is
    called with the cases read and in all.

    Raises ResultError for what is neither, and for a batch of which no case is finished.
    """
    files = _files_of(paths)
    found: dict[str, list[KeyFigure]] = {}
    for label, own in files.items():
        found[label] = _joined([_figures(path, limits) for path in own])
        if progress is not None:
            progress(len(found), len(files))
    return found


def difference_of(
    paths: Sequence[Path], cases: Mapping[str, Sequence[KeyFigure]], limits: Sequence[str] = ()
) -> list[str]:
    """The sentence of :func:`evgrid.report.setups.difference` for the cases of :func:`figures_of`."""
    setups = []
    for label, own in _files_of(paths).items():
        with open_run(own[0]) as result:
            members = max((f.values.size for f in cases[label]), default=0)
            setups.append(setup_of(result, limits_of(result, limits), members))
    return difference(setups)


def _files_of(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Files of each case by label: a result's own, or those of a batch's case."""
    names, files = list[str](), list[list[Path]]()
    for path in paths:
        if path.is_dir():
            index = read_index(path)
            done = index[index["state"] == "finished"]
            if done.empty:
                raise ResultError(f"{path}: no run of the batch is finished")
            for _, runs in done.groupby("case", sort=True):
                names.append(str(runs["case_name"].iloc[0]))
                files.append([path / "runs" / f"{run}.nc" for run in runs.sort_values("first")["id"]])
        else:
            with open_run(path) as result:
                names.append(str(result.attrs["name"]))
            files.append([path])
    return dict(zip(labels_of(names, [own[0] for own in files]), files, strict=True))


def _figures(path: Path, limits: Sequence[str]) -> list[KeyFigure]:
    with open_run(path) as result:
        return key_figures(result, violations(result, limits_of(result, limits)) if limits else None)


def _joined(parts: Sequence[Sequence[KeyFigure]]) -> list[KeyFigure]:
    """The figures of a case whose members are in several files."""
    if len(parts) == 1:
        return list(parts[0])
    return [
        KeyFigure(
            f.name,
            f.text,
            f.unit,
            np.concatenate([g.values for p in parts for g in p if g.name == f.name]),
            f.remark,
        )
        for f in parts[0]
    ]
