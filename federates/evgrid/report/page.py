"""A page of the report: sections of paragraphs, tables and charts, and its HTML.

Every text is escaped where it is put into the page, so that names from files of users are only names.
"""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evgrid.core.netcdf import write_text
from evgrid.errors import ResultError

if TYPE_CHECKING:
    import jinja2
    import pandas as pd
    from bokeh.models import UIElement
    from bokeh.plotting import figure

MOST_BYTES = 5_000_000
"""Size below which a report of a feeder of 1,000 buses stays."""

_CHARTS_A_PAGE = 6


@dataclass(frozen=True)
class Text:
    """A paragraph; ``strong``: the answer, ``muted``: a remark."""

    text: str
    style: str = ""
    kind: str = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    entries: Sequence[str]
    kind: str = "bullets"


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column is the rows' names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Chart:
    """A chart, or a group of them, with its caption and its controls, which are not printed."""

    model: UIElement
    caption: str = ""
    controls: UIElement | None = None
    kind: str = "chart"


@dataclass(frozen=True)
class Code:
    """Settings as they are in a file."""

    text: str
    caption: str = ""
    kind: str = "code"


Block = Text | Bullets | Table | Chart | Code


@dataclass
class Section:
    """A headed part of the page."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block | None) -> None:
        """Append blocks; None is left out."""
        self.blocks += [block for block in blocks if block is not None]


@dataclass
class Page:
    """A report: its answer comes first, its settings last."""

    title: str
    subtitle: str
    answer: list[str]
    sections: list[Section]

    @property
    def charts(self) -> list[UIElement]:
        """All charts and controls in their order."""
        blocks = [block for section in self.sections for block in section.blocks if isinstance(block, Chart)]
        return [model for b in blocks for model in (b.controls, b.model) if model is not None]


def charts_of(plots: Sequence[figure], caption: str = "") -> list[Chart]:
    """Charts in rows of two, in groups that fit on a page of paper; the caption under the last."""
    from evgrid.report.charts import rows_of

    groups = [plots[i : i + _CHARTS_A_PAGE] for i in range(0, len(plots), _CHARTS_A_PAGE)]
    return [Chart(rows_of(group), caption * (group is groups[-1])) for group in groups]


def table_of(frame: pd.DataFrame, caption: str = "", most: int = 40) -> Table:
    """A table of the first rows of a DataFrame of texts and numbers, without its index."""
    rows = [[cell(value) for value in row] for row in frame.head(most).itertuples(index=False)]
    if len(frame) > most:
        caption = f"{caption} The first {most} of {len(frame)} rows.".strip()
    return Table([str(column) for column in frame.columns], rows, caption)


def indexed_table(frame: pd.DataFrame, caption: str = "") -> Table:
    """A table of a DataFrame of texts whose index are the names of its rows."""
    rows = [[str(label), *map(cell, row)] for label, row in zip(frame.index, frame.to_numpy(), strict=True)]
    return Table(["", *(str(column) for column in frame.columns)], rows, caption)


def cell(value: Any) -> str:
    """A value as text: numbers with four digits, times to the minute, "–" where there is none,
    "not known" for infinity, by which studies say that no bound was found.
    """
    import numpy as np
    import pandas as pd

    if isinstance(value, str):
        return value
    if value is None or (np.ndim(value) == 0 and pd.isna(value)):
        return "–"
    if isinstance(value, np.datetime64 | pd.Timestamp):
        return f"{pd.Timestamp(value):%Y-%m-%d %H:%M}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, float | np.floating):
        return str(value)
    number = float(value)
    if np.isinf(number):
        return "not known"
    return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"


def template() -> jinja2.Template:
    """The page's template, for a file and for a Bokeh server; everything in it is escaped."""
    import jinja2

    source = files("evgrid.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)


def variables(page: Page, offline: bool) -> dict[str, Any]:
    """Variables of :func:`template`."""
    for number, model in enumerate(page.charts):
        model.name = f"chart{number}"
    return {
        "page": page,
        "offline": offline,
        "made": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "version": importlib.metadata.version("evgrid"),
    }


def html_of(page: Page) -> str:
    """The whole page as one file, which requests nothing."""
    from bokeh.embed import file_html
    from bokeh.resources import Resources

    given = variables(page, offline=True)
    resources = Resources(mode="inline")
    if not page.charts:
        return template().render(title=page.title, roots={}, **given)
    return str(file_html(page.charts, resources, page.title, template=template(), template_variables=given))


def write_page(page: Page, path: Path) -> Path:
    """Write the page; returns its path. Raises ResultError if it can't be written; an older page stays."""
    try:
        write_text(path, html_of(page))
    except OSError as error:
        raise ResultError(f"the report can't be written to {path}: {error.strerror}") from error
    return path


def joined(words: Iterable[str], most: int = 4) -> str:
    """Words as "a, b and c", the rest as a number."""
    known = list(words)
    if len(known) > most:
        return f"{', '.join(known[:most])} and {len(known) - most} more"
    return " and ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)
