"""Rows of CSV files with their line numbers; numbers as data portals write them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evgrid.errors import ScenarioError
from evgrid.fleet.importers.imported import Tally

Cells = dict[str, str]


def read_csv_rows(
    path: Path,
    tally: Tally,
    required: Sequence[str],
    optional: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, Cells]]:
    """Line number (the header is line 1) and cells of each row; columns that aren't named are skipped.

    For the separator see :func:`read_header`. Column names are compared without regard to case;
    ``aliases`` maps lower-case spellings to names. Cells of optional columns that the file lacks
    are "". Blank lines are no rows. A row with another number of cells than the header is dropped.
    Every row yielded or dropped is counted as read.

    Raises
    ------
    ScenarioError
        If the file can't be read, is empty or lacks required columns.

    """
    known = {name.lower(): name for name in (*required, *optional)} | dict(aliases or {})
    names, separator = read_header(path)
    header = [known.get(name.lower(), name) for name in names]
    _check_header(header, required, path)
    wanted = [(name, header.index(name) if name in header else -1) for name in (*required, *optional)]
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=separator)
            next(reader)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                tally.read += 1
                if len(cells) != len(header):
                    tally.drop("with another number of values than the header", f"line {reader.line_num}")
                    continue
                yield reader.line_num, {name: cells[i].strip() if i >= 0 else "" for name, i in wanted}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError([f"can't be read as CSV: {error}"], str(path)) from None


def read_header(path: Path) -> tuple[list[str], str]:
    """Names of the columns, and the separator: the most frequent of semicolon, tab and comma.

    Raises ScenarioError if the file can't be read or names no columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
        separator = max(";\t,", key=first.count)
        names = [cell.strip() for cell in next(csv.reader([first], delimiter=separator), [])]
    except FileNotFoundError:
        raise ScenarioError(["there is no such file"], str(path)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError([f"can't be read as CSV: {error}"], str(path)) from None
    if not any(names):
        raise ScenarioError(["line 1 is empty: it must name the columns"], str(path))
    return names, separator


def _check_header(header: Sequence[str], required: Sequence[str], path: Path) -> None:
    faults = [f"line 1: column {name} is missing" for name in required if name not in header]
    faults += [f"line 1: column {name} is there twice" for name in required if header.count(name) > 1]
    if faults:
        raise ScenarioError(faults, str(path))


def number(text: str) -> float:
    """A finite number with decimal point or comma (``7.5``, ``7,5``, ``1.234,5``); else NaN.

    Where both signs occur the last is the decimal sign.
    """
    text = text.strip()
    if "," in text and "." in text:
        thousands = "," if text.rfind(".") > text.rfind(",") else "."
        text = text.replace(thousands, "")
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
