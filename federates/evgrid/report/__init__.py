"""Reports: results or a study as one HTML page that needs no network, and comparisons of key figures.

In: results of runs, or the folder of a study. Out: :func:`write_report`, a page with its answer, assumptions,
map, charts, tables and settings; :mod:`evgrid.report.key_figures`, tables of several results.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evgrid.errors import ResultError

if TYPE_CHECKING:
    from evgrid.report.page import Page

__all__ = ["default_output", "page_of", "write_report"]


def page_of(paths: Sequence[Path], limits: Sequence[str] = ()) -> Page:
    """The page of a result, of several side by side, or of a study's folder.

    Parameters
    ----------
    paths
        Files of results, or one folder of a study.
    limits
        Presets by which results are judged; left out: those that fit each.

    Raises
    ------
    ResultError
        If a file is no result, or Bokeh is not installed.
    ValueError
        For an unknown name of limits.

    """
    need_bokeh()
    from evgrid.report.cases import open_cases
    from evgrid.report.runs import page_of_runs
    from evgrid.report.studies import page_of_study

    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise ResultError(f"{folders[0]} is a folder: a report is of one study, or of results of runs")
    if folders:
        return page_of_study(folders[0], limits)
    with open_cases(paths) as cases:
        return page_of_runs(cases, limits)


def need_bokeh() -> None:
    """Raise ResultError where Bokeh is not installed."""
    if importlib.util.find_spec("bokeh") is None:
        raise ResultError("a report needs Bokeh: pip install evgrid[report]")


def default_output(paths: Sequence[Path]) -> Path:
    """Path of the page where none is given: beside the first result, or in the study's folder."""
    first = paths[0]
    return first / "report.html" if first.is_dir() else first.with_name(f"{first.stem}-report.html")


def write_report(paths: Sequence[Path], output: Path | None = None, limits: Sequence[str] = ()) -> Path:
    """Write the page of :func:`page_of`; returns its path.

    Raises ResultError also if it can't be written.
    """
    from evgrid.report.page import write_page

    path = output or default_output(paths)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ResultError(
            f"the report can't be written to {path}: it is a page, use {path.with_suffix('.html')}"
        )
    return write_page(page_of(paths, limits), path)
