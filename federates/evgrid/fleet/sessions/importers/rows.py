"""Rows of tables that importers read: the columns that they know, as text and as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.importers.imported import Tally
from evgrid.readers import Table, capped, read_table
from evgrid.readers.tables import MOST_CHARACTERS

Cells = dict[str, str]
Values = dict[str, float]


def read_rows(
    path: Path,
    tally: Tally,
    required: Sequence[str],
    optional: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    numbers: Sequence[str] = (),
) -> tuple[Table, Iterator[tuple[str, Cells, Values]]]:
    """A table, and of each row its place (``line 7``), its cells and those that are numbers.

    Column names are compared without regard to case; ``aliases`` maps lower-case spellings to names. Columns
    that aren't named are left out; cells of optional ones that the file lacks are "". A number that is none,
    or can be read in two ways, is NaN. Every row is counted as read; dropped are those with another number of
    values than the header, and with text of over 200 characters.

    Raises
    ------
    ScenarioError
        If the file can't be read, is empty or lacks required columns.

    """
    known = {name.lower(): name for name in (*required, *optional)} | dict(aliases or {})
    table = read_table(path, only=known)
    missing = capped([f"column {name} is missing" for name in required if name not in table])
    if missing:
        raise ScenarioError(missing, str(path))
    return table, rows_of(table, tally, (*required, *optional), [name for name in numbers if name in table])


def rows_of(
    table: Table, tally: Tally, names: Sequence[str], numbers: Sequence[str]
) -> Iterator[tuple[str, Cells, Values]]:
    """Place, cells and numbers of each row; see :func:`read_rows`."""
    for line, _ in table.ragged:
        tally.read += 1
        tally.drop("with another number of values than the header", f"{table.place} {line}")
    values, readable, _ = table.parsed(numbers)
    columns = [np.where(good, column, np.nan) for column, good in zip(values, readable, strict=True)]
    without = dict.fromkeys((name for name in names if name not in numbers), math.nan)
    for row, (line, cells) in enumerate(table.rows(names)):
        tally.read += 1
        place = f"{table.place} {line}"
        if any(len(cell) > MOST_CHARACTERS for cell in cells.values()):
            tally.drop(f"with text of over {MOST_CHARACTERS} characters", place)
            continue
        found = {name: float(column[row]) for name, column in zip(numbers, columns, strict=True)}
        yield place, cells, without | found
