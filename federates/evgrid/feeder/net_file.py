"""Pandapower nets from JSON and Excel files, read as data: no code that a file names is run or imported.

In: a path. Out: a pandapower net in today's format, which complies with :mod:`~evgrid.feeder.net_schema`.

pandapower's own readers build the objects that a file names (``_module``, ``_class``), for which they
import the modules it names. Here only the tables are read, as plain cells, and checked before pandapower sees
them; what else there is (controllers, results, geodata of lines) has no effect on a power flow. A file that
names anything of another package than those in :data:`KNOWN_PACKAGES` is refused.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from evgrid.errors import NetworkError, shortened
from evgrid.feeder import net_schema

KNOWN_PACKAGES = frozenset({"geopandas", "networkx", "numpy", "pandapower", "pandas", "shapely"})
"""Packages whose objects a file may hold; they are not built."""

KNOWN_BUILTINS = frozenset({"complex", "frozenset", "set", "tuple"})

MEMORY_PER_BYTE = 12
"""Memory that reading takes for each byte of a file (of Excel: unpacked)."""

SMALL_BYTES = 50_000_000
"""Files up to this size are read without a check of the memory."""

_SKIPPED = {"characteristic", "controller", "group", "line_geodata", "measurement", "poly_cost",
            "pwl_cost", "std_types"}  # fmt: skip
_PARAMETERS = ("name", "f_hz", "sn_mva", "version", "format_version")
_TYPES = ("float", "int", "uint", "bool")


def read_net(path: Path) -> Any:
    """The net of a file.

    Raises
    ------
    NetworkError
        With every fault of the file.

    """
    source = str(path)
    try:
        check_size(path)
        tables, parameters = (_json_tables if path.suffix.lower() == ".json" else _excel_tables)(path)
    except _Fault as fault:
        raise NetworkError.of(source, list(fault.sentences)) from None
    except RecursionError:
        raise NetworkError.of(source, ["is nested too deeply to be read"]) from None
    except MemoryError:
        raise NetworkError.of(source, ["needs more memory than there is to be read"]) from None
    except OSError as error:
        raise NetworkError.of(source, [f"can't be read: {_one_line(error)}"]) from None
    return net_of(tables, parameters, source)


def net_of(tables: Mapping[str, Any], parameters: Mapping[str, Any], source: str) -> Any:
    """A pandapower net of plain tables, in today's format, without faults."""
    import pandapower
    from pandapower.convert_format import convert_format

    frequency = {"f_hz": parameters["f_hz"]} if "f_hz" in parameters else {}
    faults = net_schema.faults_of({**tables, **frequency}, whole=False)
    if faults:
        raise NetworkError.of(source, faults)
    net = pandapower.create_empty_network()
    net.update({key: parameters[key] for key in _PARAMETERS if key in parameters})
    if "format_version" not in parameters:
        net["format_version"] = net["version"]
    for table, rows in tables.items():
        net[table] = rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            convert_format(net)
        except Exception as error:  # it raises whatever it meets in a net of an older format
            version = net_schema.shown(parameters.get("format_version", parameters.get("version")))
            raise NetworkError.of(
                source,
                [
                    f"can't be brought from pandapower's format {version} to today's: "
                    f"{type(error).__name__}: {_one_line(error)}"
                ],
            ) from None
    return net


def checked(net: Any, source: str) -> Any:
    """A net whose tables comply with :mod:`~evgrid.feeder.net_schema`, tidied.

    Raises
    ------
    NetworkError
        With every fault.

    """
    faults = net_schema.faults_of(net)
    if faults:
        raise NetworkError.of(source, faults)
    net_schema.tidy(net)
    return net


class _Fault(Exception):
    """Faults of a file, a sentence each."""

    def __init__(self, *sentences: str) -> None:
        self.sentences = sentences
        super().__init__(*sentences)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}…"


def check_size(path: Path) -> None:
    """Refuse a file that takes more memory to read than there is, before any of it is read."""
    size = path.stat().st_size
    if path.suffix.lower() == ".xlsx":
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
            return  # reported when it is read
    if size <= SMALL_BYTES:
        return
    import psutil

    there = psutil.virtual_memory().available
    if size * MEMORY_PER_BYTE > there:
        raise _Fault(
            f"has {size / 1e9:.3g} GB, to read which takes about {size * MEMORY_PER_BYTE / 1e9:.3g} GB of "
            f"memory: there are {there / 1e9:.3g} GB"
        )


# ---- JSON ---------------------------------------------------------------------------------------


def _json_tables(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content = _parsed(path.read_bytes(), "the file")
    foreign = list(dict.fromkeys(_foreign(content)))
    if foreign:
        raise _Fault(*shortened(foreign))
    if isinstance(content, dict) and "_object" in content:
        content = content["_object"]
        if isinstance(content, str):  # of older formats
            content = _parsed(content, "_object")
    if not isinstance(content, dict):
        raise _Fault(f"holds no pandapower net but {_kind(content)}")
    if "bus" not in content:
        raise _Fault("holds no pandapower net: it has no table bus")
    tables: dict[str, Any] = {}
    faults = list[str]()
    parameters = dict(content)
    for name, value in content.items():
        if not isinstance(value, dict) or _skipped(name):
            continue
        try:
            if name == "parameters":
                given = value.get("parameter")
                parameters |= given if isinstance(given, dict) else {}
                continue
            table = _json_table(name, value)
        except _Fault as fault:
            faults += fault.sentences
            continue
        if table is not None:
            tables[name] = table
            parameters.pop(name, None)
    faults += [
        f"{name} is {_kind(content[name])}: must be a table"
        for name in net_schema.RULES
        if name in content and name not in tables and not isinstance(content[name], dict)
    ]
    if faults:
        raise _Fault(*faults)
    return tables, _of_net(parameters)


def _of_net(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the net as a whole, as far as they are single values."""
    found = {key: value for key, value in parameters.items() if key in _PARAMETERS}
    return {k: v for k, v in found.items() if v is not None and (k != "name" or isinstance(v, str))}


def _skipped(table: str) -> bool:
    """Whether a table is irrelevant for a power flow, or no table (a net is a mapping)."""
    return table.startswith(("res_", "_")) or table in _SKIPPED or hasattr(dict, table)


def _parsed(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, UnicodeDecodeError) as error:
        raise _Fault(f"{what} is no JSON: {_one_line(error)}") from None


def _kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "empty"}
    return kinds.get(type(value), "a number")


def _foreign(content: Any) -> Iterator[str]:
    """A sentence for each object of a package that is not known, at any depth, in text within text, too."""
    rest = [content]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            module, kind = value.get("_module"), value.get("_class")
            if "_module" in value and not _known(module, kind):
                yield (
                    f"names code: {net_schema.shown(kind)} of the module {net_schema.shown(module)}; "
                    f"it may hold objects of {', '.join(sorted(KNOWN_PACKAGES))} only, and none is run"
                )
            rest += value.values()
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, str) and "_module" in value:
            try:
                inner = json.loads(value)
            except ValueError:
                continue  # plain text, which is not read
            if not isinstance(inner, str) or inner != value:
                rest.append(inner)


def _known(module: Any, kind: Any) -> bool:
    if not isinstance(module, str):
        return False
    if module == "builtins":
        return kind in KNOWN_BUILTINS
    return module.partition(".")[0] in KNOWN_PACKAGES


def _json_table(name: str, value: dict[str, Any]) -> Any:
    """A table; None if it is none that is read."""
    import pandas as pd

    if "_module" not in value:  # of the oldest formats: column, then index
        if name not in net_schema.RULES:
            return None
        columns = {str(column): cells for column, cells in value.items() if isinstance(cells, dict)}
        if len(columns) < len(value):
            raise _Fault(f"{name} is no table: must have columns")
        frame = pd.DataFrame(
            {c: pd.Series(list(v.values()), list(v), dtype=object) for c, v in columns.items()}
        )
        return _whole_index(frame)
    if value.get("_class") != "DataFrame":
        if name in net_schema.RULES:
            raise _Fault(f"{name} is {net_schema.shown(value.get('_class'))}: must be a table")
        return None
    if value.get("is_multiindex") or value.get("is_multicolumn") or value.get("orient", "split") != "split":
        if name in net_schema.RULES:
            raise _Fault(f"{name} has several indices: must be a table with one")
        return None
    content = value.get("_object")
    if isinstance(content, str):
        content = _parsed(content, name)
    parts: dict[str, Any] = content if isinstance(content, dict) else {}
    header, index, data = parts.get("columns"), parts.get("index"), parts.get("data")
    if not (isinstance(header, list) and isinstance(index, list) and isinstance(data, list)):
        raise _Fault(f"{name} is no table: must have columns, index and data")
    if len(index) != len(data):
        raise _Fault(f"{name} has {len(index)} indices for {len(data)} rows")
    wrong = [k for k, row in enumerate(data) if not isinstance(row, list) or len(row) != len(header)]
    if wrong:
        raise _Fault(f"{name}: row {wrong[0] + 1} does not have {len(header)} cells, one a column")
    frame = _frame(name, [str(column) for column in header], index, data)
    types = value.get("dtype")
    return _typed(frame, types if isinstance(types, dict) else {})


def _frame(name: str, columns: list[str], index: list[Any], data: Iterable[Any]) -> Any:
    """A table of plain cells."""
    import pandas as pd

    if len(set(columns)) < len(columns):
        twice = sorted({column for column in columns if columns.count(column) > 1})
        raise _Fault(f"{name} has the column {', '.join(twice)} twice")
    labels = pd.Index([i if isinstance(i, int | float | str) else str(i) for i in index], dtype=object)
    cells = list(zip(*data, strict=True)) or [()] * len(columns)
    series = {c: pd.Series(list(v), labels, dtype=object) for c, v in zip(columns, cells, strict=True)}
    return _whole_index(pd.DataFrame(series, index=labels))


def _whole_index(frame: Any) -> Any:
    """A table whose index is of whole numbers, if it can be: text that is one counts."""
    import pandas as pd

    try:
        index = [int(i) if isinstance(i, str) else i for i in frame.index]
        if all(type(i) is int and abs(i) <= net_schema.MOST_INDEX for i in index):
            frame.index = pd.Index(index, dtype="int64")
    except ValueError:  # reported by the schema
        pass
    return frame


def _typed(frame: Any, types: Mapping[str, Any]) -> Any:
    """Columns converted to the types in the file, where their cells allow; the schema checks its own
    later.
    """
    import pandas as pd

    for column, kind in types.items():
        if column in frame.columns and isinstance(kind, str) and kind.startswith(_TYPES):
            cells = frame[column].tolist()
            if kind.startswith("float"):
                cells = [float("nan") if cell is None else cell for cell in cells]
            plain = (bool,) if kind.startswith("bool") else (int,) if "int" in kind else (int, float)
            least = 0 if kind.startswith("uint") else -math.inf
            if all(type(cell) in plain and not cell < least for cell in cells):
                with suppress(TypeError, ValueError, OverflowError):  # it stays as it is
                    frame[column] = pd.Series(cells, frame.index, dtype=kind)
    if "geo" in frame.columns:
        frame["geo"] = [_geo(cell) for cell in frame["geo"]]
    return frame


def _geo(cell: Any) -> Any:
    """Coordinates as GeoJSON text, once written if the file has it written twice."""
    if isinstance(cell, dict):
        return json.dumps(cell)
    if isinstance(cell, str) and (cell == "null" or cell.startswith('"')):
        with suppress(ValueError, RecursionError):  # reported later
            return json.loads(cell)
    return cell


# ---- Excel --------------------------------------------------------------------------------------


def _excel_tables(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    sheets = _sheets(path)
    foreign = list(dict.fromkeys(_foreign([list(row) for rows in sheets.values() for row in rows])))
    if foreign:
        raise _Fault(*shortened(foreign))
    if "bus" not in sheets:
        raise _Fault("holds no pandapower net: it has no sheet bus")
    types: dict[str, dict[str, Any]] = {}
    for row in sheets.get("dtypes", [])[1:]:
        if len(row) >= 4 and isinstance(row[1], str) and isinstance(row[2], str):
            types.setdefault(row[1], {})[row[2]] = row[3]
    parameters = _excel_parameters(sheets.get("parameters", []))
    tables: dict[str, Any] = {}
    faults = list[str]()
    for name, rows in sheets.items():
        if name in ("dtypes", "parameters", "user_pf_options") or _skipped(name):
            continue
        if name.endswith(("_std_types", "_profiles")):
            continue
        header = [str(cell) for cell in rows[0][1:]] if rows else []
        body = [(*row, *[None] * (len(header) + 1 - len(row)))[: len(header) + 1] for row in rows[1:]]
        try:
            frame = _frame(name, header, [row[0] for row in body], [row[1:] for row in body])
        except _Fault as fault:
            faults += fault.sentences
            continue
        tables[name] = _typed(frame, types.get(name, {}))
    if faults:
        raise _Fault(*faults)
    return tables, parameters


def _excel_parameters(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Parameters from a sheet of one row (today) or of one column (before 2.0)."""
    if len(rows) < 2:
        return {}
    if "parameter" in rows[0]:
        at = rows[0].index("parameter")
        found = {str(row[0]): row[at] for row in rows[1:] if len(row) > at}
    else:
        found = {str(key): value for key, value in zip(rows[0], rows[1], strict=False)}
    return _of_net(found)


def _sheets(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The cells of every sheet; numbers, text, flags and None. Dates and times are text."""
    try:
        import openpyxl
    except ImportError:
        raise _Fault("reading Excel files needs the package openpyxl") from None
    found: dict[str, list[tuple[Any, ...]]] = {}
    cells = 0
    most = max(10_000_000, 8 * path.stat().st_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
            try:
                for sheet in book.worksheets:
                    sheet.reset_dimensions()  # the size given in the file may be wrong
                    rows = found[str(sheet.title)] = []
                    for row in sheet.iter_rows(values_only=True):
                        cells += len(row) + 1
                        if cells > most:
                            raise _Fault(f"has more than {most} cells: must have at most so many")
                        if not rows or any(cell is not None for cell in row):
                            rows.append(tuple(_plain(cell) for cell in row))
            finally:
                book.close()
        except _Fault:
            raise
        except Exception as error:  # openpyxl, zipfile and the XML parser raise whatever they meet
            raise _Fault(
                f"can't be read as an Excel file: {type(error).__name__}: {_one_line(error)}"
            ) from None
    return found


def _plain(cell: Any) -> Any:
    """A cell as JSON has it; pandas writes infinity as text."""
    if cell in ("inf", "-inf"):
        return float(cell)
    return str(cell) if isinstance(cell, date | time | timedelta) else cell
