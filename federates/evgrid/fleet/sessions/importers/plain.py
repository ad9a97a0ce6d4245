"""evgrid's own session table, CSV or Parquet, with bad rows left out.

A run reads a session file strictly: any fault is an error. This importer is for tables from
elsewhere: it keeps the good rows and says which it left out. The columns are those of
:mod:`evgrid.fleet.sessions.table`; ``evse`` may stand for ``connection``, to be mapped by ``Imported.at``.
"""

from __future__ import annotations

import difflib
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.importers.imported import Imported, Tally
from evgrid.fleet.sessions.importers.rows import Cells, Values, rows_of
from evgrid.fleet.sessions.table import NUMBERS, OPTIONAL, REQUIRED
from evgrid.readers import Table, read_table
from evgrid.readers.times import COMPACT, moment_of

KNOWN = (*REQUIRED, "evse", *OPTIONAL)
TEXT = ("ev", "connection", "evse", "phase", "vehicle", "chemistry")
SHARES = ("soc_arrival", "soc_target", "soc_floor")
ENERGY = ("energy_kwh", "soc_arrival", "soc_target")
ABOVE_ZERO = ("capacity_kwh", "charge_kw", "power_kw", "charge_efficiency", "discharge_efficiency")


def read_plain(path: str | Path, time_format: str | None = None) -> Imported:
    """Sessions of a table with evgrid's own columns, with times in ISO 8601, a stated form, or seconds.

    Dropped are rows without EV, connection, times or energy; with a value that is no number or out
    of bounds; that depart before they arrive; at another connection point than their EV's first;
    and that overlap a session of the same EV further up.

    Raises
    ------
    ScenarioError
        If the file can't be read, lacks columns or has unknown ones.

    """
    path = Path(path)
    tally = Tally(path)
    table = read_table(path)
    names = _columns(path, table)
    found = rows_of(table, tally, names, [name for name in NUMBERS if name in table])
    given = "evse" if "connection" not in names else "connection"
    rows: list[dict[str, Any]] = []
    place: dict[Any, str] = {}
    stays: dict[Any, list[tuple[Any, Any]]] = {}
    for line, cells, values in found:
        row: dict[str, Any] = {}
        reason = _read(row, cells, values, given, time_format)
        if not reason and rows and type(row["arrival"]) is not type(rows[0]["arrival"]):
            reason = "with seconds where others have timestamps, or the reverse"
        key = (row.get("member"), row.get("ev"))
        if not reason and place.setdefault(key, row[given]) != row[given]:
            reason = "at another connection point than the first session of the EV"
        if not reason:
            clash = any(
                row["arrival"] < end and begin < row["departure"] for begin, end in stays.get(key, [])
            )
            reason = "overlapping a session of the same EV further up" if clash else ""
        if reason:
            tally.drop(reason, line)
            continue
        stays.setdefault(key, []).append((row["arrival"], row["departure"]))
        row["evse"] = row.get("evse") or row[given]
        rows.append(row)
    frame = pd.DataFrame(rows, columns=[name for name in KNOWN if name in (*names, "evse")])
    for name in ("arrival", "departure"):
        if rows and isinstance(rows[0][name], datetime):
            frame[name] = frame[name].astype("datetime64[ns]")
    return tally.imported(frame.rename(columns={"power_kw": "charge_kw"}))


def _read(row: dict[str, Any], cells: Cells, values: Values, place: str, time_format: str | None) -> str:
    """Fill a row from its cells; the reason to drop it, or ""."""
    for name in ("ev", place, "arrival", "departure"):
        if not cells[name]:
            return f"without {name}"
    for name, text in cells.items():
        if name in TEXT:
            row[name] = text
            if name == "phase" and text.lower() not in ("", "a", "b", "c", "abc"):
                return "with a phase other than a, b, c and abc"
            continue
        if name in ("arrival", "departure"):
            row[name] = _time(text, time_format)
            if row[name] is None:
                return f"without a readable {name}"
            continue
        value = values[name]
        row[name] = value
        if text and math.isnan(value):
            return f"without a readable {name}"
        if value < 0 or (value == 0 and name in ABOVE_ZERO):
            return f"with {name} out of bounds"
        if value > 1 and (name in SHARES or "efficiency" in name):
            return f"with {name} out of bounds"
    if type(row["arrival"]) is not type(row["departure"]):
        return "with arrival and departure of different kinds"
    if row["departure"] <= row["arrival"]:
        return "with departure not after arrival"
    if "member" in row and not float(row["member"]).is_integer():
        return "without a whole number as member"
    given = {name for name in ENERGY if not math.isnan(row.get(name, math.nan))}
    if not given & {"energy_kwh", "soc_arrival"}:
        return "without energy_kwh and soc_arrival"
    if len(given) == 3:
        return "with soc_arrival, soc_target and energy_kwh, of which two determine the third"
    return ""


def _time(text: str, time_format: str | None) -> Any:
    """Seconds from the start, or a local time; None if it is neither."""
    if time_format is None and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None if re.match(COMPACT, text) else float(text) if math.isfinite(float(text)) else None
    time = moment_of(text, () if time_format is None else (time_format,))
    return None if time is None or time.tzinfo is not None else time


def _columns(path: Path, table: Table) -> list[str]:
    """Columns of the file; missing and unknown ones are faults."""
    names = table.names
    faults = [f"column {name} is missing" for name in ("ev", "arrival", "departure") if name not in names]
    if "connection" not in names and "evse" not in names:
        faults.append("column connection (or evse) is missing")
    if "energy_kwh" not in names and "soc_arrival" not in names:
        faults.append("column soc_arrival or energy_kwh is missing")
    for name in names:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(KNOWN)}"
            faults.append(f"column {name} is unknown; {hint}")
    if "charge_kw" in names and "power_kw" in names:
        faults.append("columns charge_kw and power_kw mean the same; give one")
    if faults:
        raise ScenarioError(faults, str(path))
    return names
