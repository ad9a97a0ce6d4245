"""Tables of users: CSV, Excel, Parquet and NetCDF.

**CSV.** The first line names the columns. Cells are separated by comma, semicolon or tab, whichever
the header holds; where it holds several, the one that splits the first rows into as many cells.
A decimal sign is a point or a comma; see :meth:`Table.numbers`. Blank lines and rows of empty cells
are ignored. **Excel.** All sheets, one below the other, which must have the same columns. **Parquet.** Any
flat table. **NetCDF.** Variables over one dimension, whose coordinate is the first column.

What a file does not show by itself can be stated, see :class:`TableForm`.

Cells are compared and shown without blanks at their ends. Faults are sentences, with the line of
each (the header is line 1), or the row (the first is row 1) where a file has no lines.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.readers.faults import Faults, capped, shown
from evgrid.readers.files import MOST_BYTES, check_file, read_text

MOST_CHARACTERS = 200
"""Most characters of a cell or of a column's name."""
MOST_ROWS = 50_000_000
"""Most rows of a Parquet table."""

PARQUET = (".parquet", ".pq")
NETCDF = (".nc", ".nc4", ".netcdf")
EXCEL = (".xlsx", ".xlsm")
_SEPARATORS = ",;\t"
_LOOKED_AT = 50
_BLOCK_BYTES = 2**24

_PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_COMMA = r"^[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?$"
_POINTS_COMMA = r"^[+-]?\d{1,3}(\.\d{3})+,\d+$"
_COMMAS_POINT = r"^[+-]?\d{1,3}(,\d{3})+\.\d+$"
_THOUSANDS_BY_COMMA = r"^[+-]?[1-9]\d{0,2},\d{3}$"
_THOUSANDS_BY_POINT = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"


@dataclass(frozen=True, slots=True)
class TableForm:
    """Form of a table, as far as it is stated.

    separator : sign between the cells of a CSV; "": as the header shows
    decimal : decimal sign of numbers; "": as the numbers show
    encoding : of a CSV; "": UTF-8, or UTF-16 with a byte order mark
    header : line, of Excel row, that names the columns, from 1; those above are ignored
    sheets : sheets of Excel that are read; none: all
    """

    separator: str = ""
    decimal: str = ""
    encoding: str = ""
    header: int = 1
    sheets: tuple[str, ...] = ()


AS_SHOWN = TableForm()

UNNAMED = "(column "
"""Begin of what a column without a name is called."""


class Table:
    """A table as it was read: columns of text, numbers, times or flags.

    source : path, for messages; place : "line" or "row"; sheets : the sheets of Excel that were read
    names : the columns, in order; ragged : (line, number of cells) of rows unlike the header
    """

    def __init__(
        self,
        source: str | Path,
        columns: Mapping[str, pa.Array],
        place: str = "row",
        lines: Callable[[], NDArray[np.int64]] | None = None,
        ragged: Sequence[tuple[int, int]] = (),
        decimal: str = "",
        sheets: Mapping[str, int] | None = None,
    ) -> None:
        """``decimal``: the stated decimal sign; ``sheets``: number of rows of each sheet, in order."""
        self.source, self.place, self.ragged = source, place, ragged
        self._decimal, self.sheets = decimal, dict(sheets or {})
        self.names = list(columns)
        self._columns = dict(columns)
        self._lines = lines
        self._numbers: NDArray[np.int64] | None = None
        self._text: dict[str, list[str]] = {}
        self._size = len(next(iter(columns.values()))) if columns else 0

    @classmethod
    def of(cls, frame: pd.DataFrame, source: str, place: str = "row") -> Table:
        """A table in memory."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        columns = {name: _whole(table.column(i)) for i, name in enumerate(table.column_names)}
        return cls(source, columns, place)

    def __len__(self) -> int:
        return self._size

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def column(self, name: str) -> pa.Array:
        """A column with the types of the file; text without blanks at its ends, NULL where empty."""
        return self._columns[name]

    def line(self, row: int) -> int:
        """The line of a row (from 0), or its number (from 1) where the file has no lines."""
        return self.lines([row])[0]

    def lines(self, rows: Sequence[int]) -> list[int]:
        """:meth:`line` of several rows."""
        if self._numbers is None:
            self._numbers = np.arange(1, self._size + 1) if self._lines is None else self._lines()
        return [int(number) for number in self._numbers[np.asarray(rows, np.int64)]]

    def where(self, rows: Sequence[int]) -> list[str]:
        """Place of several rows in words: line 7, or row 7 of sheet March."""
        lines = self.lines(rows)
        if len(self.sheets) < 2:
            return [f"{self.place} {line}" for line in lines]
        ends = np.cumsum([*self.sheets.values()])
        names = [*self.sheets]
        sheet = np.searchsorted(ends, np.asarray(rows, np.int64), "right").tolist()
        return [
            f"{self.place} {line} of sheet {shown(names[k])}" for k, line in zip(sheet, lines, strict=True)
        ]

    def add(self, name: str, column: pa.Array) -> None:
        """Add a column that was made of others, or replace one."""
        if name not in self._columns:
            self.names.append(name)
        self._columns[name] = column
        self._text.pop(name, None)

    def empty(self, name: str) -> NDArray[np.bool_]:
        """Rows in which a column has no value; all where there is no such column."""
        if name not in self._columns:
            return np.ones(self._size, np.bool_)
        column = self._columns[name]
        return mask_of(pc.is_null(column, nan_is_null=True))

    def text(self, name: str) -> list[str]:
        """The cells of a column as text, "" where empty."""
        if name not in self._text:
            column = self._columns[name]
            if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
                self._text[name] = [f"<{column.type}>"] * self._size
            elif pa.types.is_temporal(column.type):
                cells = [str(cell) for cell in column.to_numpy(zero_copy_only=False)]
                self._text[name] = ["" if cell in ("NaT", "None") else cell for cell in cells]
            else:
                if pa.types.is_floating(column.type):
                    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
                self._text[name] = pc.fill_null(pc.cast(column, pa.large_string()), "").to_pylist()
        return self._text[name]

    def names_of(self, name: str, faults: Faults) -> list[str]:
        """Like :meth:`text`, for names: too long ones and line breaks are faults."""
        cells = self.text(name)
        faults.rows(
            [row for row, cell in enumerate(cells) if len(cell) > MOST_CHARACTERS],
            lambda row: f"{name} has {len(cells[row])} characters: must have at most {MOST_CHARACTERS}",
        )
        faults.rows(
            [row for row, cell in enumerate(cells) if "\n" in cell or "\r" in cell],
            lambda row: f"{name} = {shown(cells[row])}: holds a line break; is a quote missing?",
        )
        return cells

    def numbers(self, names: Sequence[str], faults: Faults, rule: str = "must be a number") -> list[Array]:
        """Columns as numbers, NaN where a cell is empty or at fault.

        ``1.5``, ``1,5``, ``1.234,5`` and ``1,234.5`` are read. An ambiguous sign is resolved by the other
        numbers of these columns: beside ``0,5`` the cell ``1,234`` is 1.234 and ``1.234`` is at fault; if
        they don't resolve it, ``1,234`` is at fault.
        """
        values, readable, unclear = self.parsed(names)
        for name, number, good, doubtful in zip(names, values, readable, unclear, strict=True):
            if not good.all() or doubtful.any():
                faults.cells(~good & ~doubtful, name, rule)
                faults.cells(
                    doubtful, name, f"{rule} with one sign for decimals only; this can be read in two ways"
                )
            number[~good] = np.nan
        return values

    def parsed(
        self, names: Sequence[str]
    ) -> tuple[list[Array], list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
        """Values of columns, whether each cell is empty or a finite number, and whether it is ambiguous;
        see :meth:`numbers`.
        """
        columns = [self._columns[name] for name in names]
        found: list[tuple[Array, NDArray[np.bool_]] | None] = [_plain(column) for column in columns]
        doubtful = [np.zeros(self._size, np.bool_) for _ in names]
        texts = [c if pa.types.is_large_string(c.type) else None for c in columns]
        if self._decimal:
            for position, text in enumerate(texts):
                if text is not None:
                    found[position] = _stated(text, self._decimal)
        elif any(part is None for part in found):
            slow = [t for t, part in zip(texts, found, strict=True) if t is not None and part is None]
            sign = _decimal_sign(slow)
            for position, text in enumerate(texts):
                if text is None:
                    continue
                if found[position] is None:
                    found[position], doubtful[position] = _signed(text, sign)
                elif sign == ",":
                    doubtful[position] = mask_of(pc.match_substring_regex(text, _THOUSANDS_BY_POINT))
        values, readable = [], []
        for part, unclear in zip(found, doubtful, strict=True):
            assert part is not None
            values.append(part[0])
            readable.append(part[1] & ~unclear)
        return values, readable, doubtful

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """Line and cells, as text, of each row; "" for columns that the table lacks."""
        lines = self.lines(range(self._size))
        cells = [self.text(name) if name in self else [""] * self._size for name in names]
        for row, line in enumerate(lines):
            yield line, {name: column[row] for name, column in zip(names, cells, strict=True)}


def read_table(
    path: str | Path,
    comments: bool = False,
    only: Mapping[str, str] | None = None,
    form: TableForm | None = None,
) -> Table:
    """The table of a file: Excel, Parquet or NetCDF by its suffix, else CSV.

    ``comments``: lines of a CSV that begin with # are ignored. ``only``: the columns to read, by their
    spelling in lower case, with their names; left out: all. ``form``: what is stated of its form,
    where there are settings for it.

    Raises
    ------
    ScenarioError
        If the file can't be read, is too large, names no columns or one twice, or is not flat.

    """
    path = Path(path)
    suffix = path.suffix.lower()
    if form is not None:
        _check_form(path, suffix, form)
    if suffix in PARQUET:
        return _read_parquet(path, only)
    if suffix in NETCDF:
        return _read_netcdf(path, only)
    if suffix in EXCEL:
        return _read_excel(path, only, form or AS_SHOWN)
    return _read_csv(path, comments, only, form)


def _check_form(path: Path, suffix: str, form: TableForm) -> None:
    """Refuse what is stated of another kind of file."""
    excel, text = suffix in EXCEL, suffix not in (*PARQUET, *NETCDF, *EXCEL)
    faults = [
        f"{name} = {shown(given)}: is for {kinds}, not for {suffix or 'a file without a suffix'}"
        for name, given, kinds, fits in (
            ("separator", form.separator, "CSV", text),
            ("encoding", form.encoding, "CSV", text),
            ("decimal", form.decimal, "CSV and Excel", text or excel),
            ("header", form.header if form.header > 1 else "", "CSV and Excel", text or excel),
            ("sheets", ", ".join(form.sheets), "Excel", excel),
        )
        if given and not fits
    ]
    if faults:
        raise ScenarioError(faults, str(path))


def _kept(names: Sequence[str], only: Mapping[str, str] | None, path: Path) -> dict[int, str]:
    """Position and name of the selected columns. Raises ScenarioError for names that are at fault."""
    found = {i: name.strip() for i, name in enumerate(names)}
    if only is not None:
        found = {i: only[name.lower()] for i, name in found.items() if name.lower() in only}
    given = [name for name in found.values() if name]
    twice = (
        [name for name in dict.fromkeys(given) if given.count(name) > 1]
        if len(set(given)) < len(given)
        else []
    )
    faults = capped([f"column {shown(name)} is there twice" for name in twice])
    faults += capped(
        [
            f"the name of column {i + 1} has {len(name)} characters: must have at most {MOST_CHARACTERS}"
            for i, name in found.items()
            if len(name) > MOST_CHARACTERS
        ]
    )
    if faults:
        raise ScenarioError(faults, str(path))
    return {i: name or f"{UNNAMED}{i + 1})" for i, name in found.items()}


def _read_csv(path: Path, comments: bool, only: Mapping[str, str] | None, stated: TableForm | None) -> Table:
    check_file(path)
    if path.suffix.lower() in (".xls", ".ods"):
        raise ScenarioError(
            ["is a spreadsheet of another form: must be .xlsx, CSV, Parquet or NetCDF; save it as .xlsx"],
            str(path),
        )
    text = read_text(path, encoding=None if stated is None else stated.encoding)
    form = stated or AS_SHOWN
    if form.header > 1:  # lines keep their numbers
        above, text = _split_lines(text, form.header - 1)
        text = "\n" * above + text
    if comments and "#" in text:
        text = re.sub(r"(?m)^[ \t]*#[^\r\n]*", "", text)
    if text.count('"') % 2:
        raise ScenarioError(['a quote (") is opened and never closed'], str(path))
    if text[:1] in (" ", "\t") or "\n " in text or "\n\t" in text:
        text = re.sub(r"(?m)^[ \t]+(?=[\r\n]|\Z)", "", text)  # lines of blanks are ignored
    header, separator = _header(text, path, form.separator)
    kept = _kept(header, only, path)
    ragged: list[Any] = []

    def leave_out(row: Any) -> str:
        ragged.append(None)
        return "skip"

    import pyarrow.csv

    try:
        content = pyarrow.csv.read_csv(
            pa.BufferReader(text.encode()),
            pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=_BLOCK_BYTES,
                column_names=[f"f{i}" for i in range(len(header))],  # the header is the first row
            ),
            pyarrow.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=leave_out
            ),
            pyarrow.csv.ConvertOptions(
                strings_can_be_null=False,
                column_types={f"f{i}": pa.large_string() for i in kept},
                include_columns=[f"f{i}" for i in kept],
            ),
        )
    except (pa.ArrowException, KeyError) as error:
        raise ScenarioError([f"can't be read as CSV: {shown(str(error))}"], str(path)) from None
    columns = {name: _trimmed(_joined(content.column(f"f{i}")).slice(1)) for i, name in kept.items()}
    unnamed = [name for i, name in kept.items() if not header[i].strip()]
    for name in unnamed:  # as left by spreadsheets
        if columns[name].null_count == len(columns[name]):
            del columns[name]
    filled = _filled(list(columns.values())) if only is None else None
    if filled is not None:
        columns = {name: column.filter(pa.array(filled)) for name, column in columns.items()}
    size = len(next(iter(columns.values()))) if columns else 0

    def lines() -> NDArray[np.int64]:
        if not ragged and '"' not in text and "\r" not in text and text.rstrip("\n").count("\n") == size:
            return np.arange(2, size + 2)
        rows = _csv_rows(text, separator, only is not None)
        found = [line for line, cells in rows if len(cells) == len(header)][1:]
        return np.array(found, np.int64) if len(found) == size else np.arange(2, size + 2)

    odd = [
        (line, len(cells)) for line, cells in _csv_rows(text, separator) if len(cells) != len(header)
    ] if ragged else []  # fmt: skip
    return Table(path, columns, "line", lines, odd, form.decimal)


def _split_lines(text: str, count: int) -> tuple[int, str]:
    """Number of line ends above a header, and the text from there on."""
    end = 0
    for above in range(count):
        found = re.compile(r"\r\n|\n|\r").search(text, end)
        if found is None:
            return above, ""
        end = found.end()
    return count, text[end:]


def _csv_rows(text: str, separator: str, empty: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of the header and of each row that is no blank line; ``empty``: also of empty cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    csv_limit = csv.field_size_limit(2**31 - 1)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) or (empty and len(cells) > 1):
                yield reader.line_num, cells
    finally:
        csv.field_size_limit(csv_limit)


def _header(text: str, path: Path, stated: str = "") -> tuple[list[str], str]:
    """The names of the columns, and the separator."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    if not first.strip(" \t\r\n,;"):
        raise ScenarioError(["is empty: the first line must name the columns"], str(path))
    if stated:
        return next(_csv_rows(text, stated))[1], stated
    bare = re.sub(r'"[^"]*"', "", first)
    given = [sign for sign in _SEPARATORS if sign in bare]
    if len(given) > 1:
        fitting = [sign for sign in given if _divides(text, sign)]
        if len(fitting) > 1:
            signs = " or ".join({",": "comma", ";": "semicolon", "\t": "tab"}[sign] for sign in fitting)
            text = f"line 1: cells may be separated by {signs}; put names that hold one of them in quotes"
            raise ScenarioError([text], str(path))
        given = fitting or [max(given, key=bare.count)]
    separator = given[0] if given else ","
    return next(_csv_rows(text, separator))[1], separator


def _divides(text: str, separator: str) -> bool:
    """Whether a separator splits the first rows into as many cells as the header, more than one."""
    counts = set()
    for number, (_, cells) in enumerate(_csv_rows(text, separator)):
        counts.add(len(cells))
        if number == _LOOKED_AT:
            break
    return len(counts) == 1 and counts != {1}


def _filled(columns: Sequence[pa.Array]) -> NDArray[np.bool_] | None:
    """Rows with some cell that is not empty, (row,) bool; None for all."""
    bare: NDArray[np.bool_] | None = None
    for column in columns:
        null = mask_of(pc.is_null(column))
        bare = null if bare is None else bare & null
        if not bare.any():
            return None
    return None if bare is None else ~bare


def _trimmed(column: pa.Array) -> pa.Array:
    """Text without blanks at its ends, NULL where empty."""
    column = pc.utf8_trim_whitespace(pc.cast(column, pa.large_string()))
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.large_string()), column)


def _read_parquet(path: Path, only: Mapping[str, str] | None) -> Table:
    import pyarrow.parquet as pq

    check_file(path)
    try:
        with pq.ParquetFile(path) as file:
            about = file.metadata
            size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            if about.num_rows > MOST_ROWS or size > 4 * MOST_BYTES:
                what = f"holds {about.num_rows} rows, {size / 2**20:.0f} MiB"
                raise ScenarioError(
                    [f"{what}: must be at most {MOST_ROWS} and {4 * MOST_BYTES / 2**20:.0f}"], str(path)
                )
            content = file.read()
    except ScenarioError:
        raise
    except Exception as error:  # pyarrow raises various errors for a damaged file
        raise ScenarioError([f"can't be read as Parquet: {_short(error)}"], str(path)) from None
    kept = {
        i: name
        for i, name in _kept(content.column_names, only, path).items()
        if not re.fullmatch(r"__index_level_\d+__", name)
    }
    try:
        return Table(path, {name: _whole(content.column(i)) for i, name in kept.items()})
    except pa.ArrowException as error:  # text that is no UTF-8, counts that don't fit
        raise ScenarioError([f"can't be read as Parquet: {_short(error)}"], str(path)) from None


def _read_netcdf(path: Path, only: Mapping[str, str] | None) -> Table:
    from evgrid.core.netcdf import open_netcdf

    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # times of other calendars are a fault below
            with open_netcdf(path) as dataset:
                return _of_dataset(dataset, path, only)
    except ScenarioError:
        raise
    except Exception as error:  # the readers raise various errors
        raise ScenarioError([f"can't be read as NetCDF: {_short(error)}"], str(path)) from None


def _of_dataset(dataset: Any, path: Path, only: Mapping[str, str] | None) -> Table:
    """The variables of a dataset over its one dimension."""
    sizes = dict(dataset.sizes)
    faults = (
        [] if len(sizes) == 1 else [f"has the dimensions {shown(', '.join(map(str, sizes)))}: must have one"]
    )
    if not faults:
        (dimension,) = sizes
        if dimension not in dataset.variables:
            faults = [f"has no coordinate {shown(str(dimension))}"]
        faults += [
            f"variable {shown(str(name))} is not over {dimension}"
            for name, variable in dataset.variables.items()
            if variable.dims != (dimension,)
        ]
        bytes_of = sum(variable.nbytes for variable in dataset.variables.values())
        if bytes_of > 4 * MOST_BYTES:
            limit = 4 * MOST_BYTES / 2**20
            faults.append(f"holds {bytes_of / 2**20:.0f} MiB: must hold at most {limit:.0f} MiB")
    if faults:
        raise ScenarioError(capped(faults), str(path))
    names = [dimension, *(name for name in dataset.variables if name != dimension)]
    columns = {}
    for i, name in _kept([str(name) for name in names], only, path).items():
        values = dataset[names[i]].values
        if values.dtype.kind == "O" and not all(isinstance(value, str) for value in values):
            text = f"variable {shown(name)} holds {type(values[0]).__name__}"
            raise ScenarioError([f"{text}: must hold numbers, or times of the usual calendar"], str(path))
        columns[name] = _whole(pa.chunked_array([pa.array(values)]))
    return Table(path, columns)


def _read_excel(path: Path, only: Mapping[str, str] | None, form: TableForm) -> Table:
    """The sheets of a workbook, one below the other."""
    import openpyxl

    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > 2 * MOST_BYTES:
            what = f"holds {size / 2**20:.0f} MiB, unpacked"
            raise ScenarioError([f"{what}: must be at most {2 * MOST_BYTES / 2**20:.0f}"], str(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                sheets = {sheet.title: [*sheet.iter_rows(values_only=True)] for sheet in book.worksheets}
            finally:
                book.close()
    except ScenarioError:
        raise
    except Exception as error:  # openpyxl, zipfile and the XML parser raise whatever they meet
        raise ScenarioError([f"can't be read as Excel: {_short(error)}"], str(path)) from None
    return _of_sheets(path, sheets, only, form)


def _of_sheets(
    path: Path, sheets: dict[str, list[tuple[Any, ...]]], only: Mapping[str, str] | None, form: TableForm
) -> Table:
    """A table of the rows of sheets."""
    missing = [name for name in form.sheets if name not in sheets]
    if missing:
        there = ", ".join(shown(name) for name in sheets)
        raise ScenarioError([f"has no sheet {shown(name)}; there are {there}" for name in missing], str(path))
    header: list[str] = []
    cells, numbers, sizes, faults = list[list[Any]](), list[int](), dict[str, int](), list[str]()
    for name in form.sheets or sheets:
        rows = sheets[name][form.header - 1 :]
        if not rows:
            continue
        own = ["" if cell is None else str(cell).strip() for cell in rows[0]]
        while own and not own[-1]:
            own.pop()
        if not own:
            continue
        if header and own != header:
            faults.append(
                f"sheet {shown(name)} has the columns {shown(', '.join(own))}, the first one "
                f"{shown(', '.join(header))}: must be the same; name the sheets with the setting sheets"
            )
            continue
        header = own
        filled = [
            (number, row)
            for number, row in enumerate(rows[1:], form.header + 1)
            if any(cell is not None and str(cell).strip() for cell in row)
        ]
        numbers += [number for number, _ in filled]
        cells += [[*row, *[None] * len(header)][: len(header)] for _, row in filled]
        sizes[name] = len(filled)
    if faults:
        raise ScenarioError(capped(faults), str(path))
    if not header:
        raise ScenarioError(["is empty: the first row must name the columns"], str(path))
    kept = _kept(header, only, path)
    columns = {
        name: _of_cells([row[i] for row in cells])
        for i, name in kept.items()
        if header[i] or any(row[i] is not None for row in cells)
    }
    return Table(path, columns, "row", lambda: np.array(numbers, np.int64), (), form.decimal, sizes)


def _of_cells(cells: list[Any]) -> pa.Array:
    """Cells of a spreadsheet as a column: times, numbers, else text."""
    given = [cell for cell in cells if cell is not None and cell != ""]
    if given and all(isinstance(cell, datetime) for cell in given):
        # a spreadsheet's times are days of a real number: to the nearest ms
        stamps = np.array([cell if isinstance(cell, datetime) else None for cell in cells], "datetime64[us]")
        rounded = (stamps + np.timedelta64(500, "us")).astype("datetime64[ms]").astype("datetime64[us]")
        return pa.array(rounded)
    if given and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in given):
        return pa.array([None if cell == "" else cell for cell in cells], pa.float64())
    return _trimmed(_joined(pa.chunked_array([pa.array([_text_of(c) for c in cells], pa.large_string())])))


def _text_of(cell: Any) -> str:
    """A cell of a spreadsheet as text; times in ISO 8601."""
    if cell is None:
        return ""
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; text and dictionaries as trimmed text, decimals as numbers."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _trimmed(_joined(column.cast(pa.large_string())))
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        column = column.cast(pa.float64())
    return _joined(column)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)


def _plain(column: pa.Array) -> tuple[Array, NDArray[np.bool_]] | None:
    """Values and whether each is empty or finite; None for text that is not all plain numbers."""
    kind = column.type
    if pa.types.is_large_string(kind):
        try:
            column = pc.cast(column, pa.float64())
        except pa.ArrowInvalid:
            return None
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        empty = mask_of(pc.is_null(column))
        return np.full(len(column), np.nan), empty
    empty = mask_of(pc.is_null(column, nan_is_null=not pa.types.is_large_string(kind)))
    values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return values, np.isfinite(values) | empty


def _stated(text: pa.Array, sign: str) -> tuple[Array, NDArray[np.bool_]]:
    """Values with a stated decimal sign, and whether each is empty or a finite number; the other sign, blanks
    and apostrophes may stand between thousands.
    """
    other = "." if sign == "," else ","
    if not pc.any(pc.match_substring(text, other), min_count=0).as_py():
        found = _plain(pc.replace_substring(text, sign, "."))
        if found is not None:
            return found
    between = rf"[{other} '\x{{a0}}\x{{202f}}]"
    grouped = rf"^[+-]?\d{{1,3}}({between}\d{{3}})+(\{sign}\d*)?$"
    plain = rf"^[+-]?(\d+\{sign}?\d*|\{sign}\d+)([eE][+-]?\d+)?$"
    by_thousand = mask_of(pc.match_substring_regex(text, grouped))
    usable = by_thousand | mask_of(pc.match_substring_regex(text, plain))
    numbers = pc.replace_substring(pc.replace_substring_regex(text, between, ""), sign, ".")
    values = pc.cast(pc.if_else(pa.array(usable), numbers, pa.scalar(None, pa.large_string())), pa.float64())
    number = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return number, mask_of(pc.is_null(text)) | (usable & np.isfinite(number))


def _decimal_sign(columns: Sequence[pa.Array]) -> str:
    """Decimal sign shown by the numbers: comma or point, "?" where both are, "" where none is."""
    comma = point = False
    for column in columns:
        if not comma:
            by_comma = mask_of(pc.match_substring_regex(column, _COMMA))
            comma = bool((by_comma & ~mask_of(pc.match_substring_regex(column, _THOUSANDS_BY_COMMA))).any())
        if _holds_point(column):
            comma = comma or bool(mask_of(pc.match_substring_regex(column, _POINTS_COMMA)).any())
            point = point or bool(mask_of(pc.match_substring_regex(column, _COMMAS_POINT)).any())
    return "?" if comma and point else "," if comma else "." if point else ""


def _signed(text: pa.Array, sign: str) -> tuple[tuple[Array, NDArray[np.bool_]], NDArray[np.bool_]]:
    """Values, whether each is empty or a finite number, and whether it is ambiguous."""
    if sign == "," and not _holds_point(text):
        found = _plain(pc.replace_substring(text, ",", "."))
        if found is not None:
            return found, np.zeros(len(text), np.bool_)
    plain = mask_of(pc.match_substring_regex(text, _PLAIN))
    comma = mask_of(pc.match_substring_regex(text, _COMMA))
    by_thousand = mask_of(pc.match_substring_regex(text, _THOUSANDS_BY_COMMA))
    unclear = by_thousand & (sign in ("", "?"))
    if sign == ",":
        unclear |= mask_of(pc.match_substring_regex(text, _THOUSANDS_BY_POINT))
        comma |= mask_of(pc.match_substring_regex(text, _POINTS_COMMA))
    without = pc.replace_substring(text, ",", "")
    if sign == ".":
        grouped = mask_of(pc.match_substring_regex(text, _COMMAS_POINT)) | by_thousand
        usable = plain | grouped
        numbers = without
    else:
        usable = plain | comma
        by_comma = pc.replace_substring(pc.replace_substring(text, ".", ""), ",", ".")
        numbers = pc.if_else(pa.array(comma), by_comma, text)
    usable &= ~unclear
    values = pc.cast(pc.if_else(pa.array(usable), numbers, pa.scalar(None, pa.large_string())), pa.float64())
    number = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return (number, mask_of(pc.is_null(text)) | (usable & np.isfinite(number))), unclear


def _holds_point(text: pa.Array) -> bool:
    return bool(pc.any(pc.match_substring(text, "."), min_count=0).as_py())


def mask_of(column: pa.Array) -> NDArray[np.bool_]:
    """A column of truth values, False where it is NULL."""
    found: NDArray[np.bool_] = pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return found


def _short(error: Exception) -> str:
    return shown(" ".join(str(error).split()) or type(error).__name__)
