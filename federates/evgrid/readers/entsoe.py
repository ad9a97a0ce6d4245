"""Day-ahead prices as ENTSO-E's transparency platform exports them.

In: a CSV with a column of market time units, such as ``MTU (CET/CEST)``, and one of prices, such as
``Day-ahead Price (EUR/MWh)`` or ``Day-ahead Price [EUR/MWh]``. A cell of the former is a range in local time,
day first: ``26/10/2025 02:00:00 (CEST) - 26/10/2025 02:15:00 (CEST)``, or ``26.10.2025 02:00 - 26.10.2025
03:00``. Out: begin and end of each unit in UTC, and its price.

Of the hour that comes twice in autumn, rows without (CET) or (CEST) are told apart by their order. The hour
that is skipped in spring may be absent, or a row without a price. Rows of several bidding zones (``Area``, or
``BZN|...``) or sequences (``Sequence``) are those of one that is named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.readers.faults import Faults, shown
from evgrid.readers.tables import Table, read_table

ZONES = {
    "UTC": "UTC",
    "CET/CEST": "Europe/Brussels",
    "WET/WEST": "Europe/Lisbon",
    "EET/EEST": "Europe/Helsinki",
}
"""Time zones of the platform's exports, by the words in the header."""
_SHIFTS = {"UTC": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3}
"""Hours ahead of UTC by the words in a cell."""
_TIME = r"(\d{2})[./](\d{2})[./](\d{4}) (\d{2}):(\d{2})(?::(\d{2}))?(?: \(([A-Z]+)\))?"
_UNIT = re.compile(rf"{_TIME}\s*-\s*{_TIME}")
_PRICE = re.compile(r"Day-ahead Price [\[(]([A-Z]{3})/MWh[\])]")
_NO_PRICE = ("", "-", "n/e", "N/A", "NA")


@dataclass(frozen=True, slots=True)
class DayAhead:
    """Prices of market time units.

    begin, end : (unit,) datetime64[s] in UTC, ascending and without gaps
    price : (unit,) currency per MWh
    currency : its code; zone : that of the file's own times
    """

    begin: NDArray[np.datetime64]
    end: NDArray[np.datetime64]
    price: Array
    currency: str
    zone: ZoneInfo


def read_entsoe(path: str | Path, area: str | None = None, sequence: str | None = None) -> DayAhead:
    """The day-ahead prices of a file.

    ``area``, ``sequence``: the bidding zone and the sequence whose rows are read, where there are several.

    Raises
    ------
    ScenarioError
        With every fault of the file: columns that are missing, several areas or sequences of which none
        is named, cells that are none, gaps, units out of order.

    """
    about = Path(path).stat() if Path(path).is_file() else None
    changed = (about.st_mtime_ns, about.st_size) if about is not None else None
    return _read(str(path), area, sequence, changed)


@lru_cache(maxsize=8)
def _read(path: str, area: str | None, sequence: str | None, changed: tuple[int, int] | None) -> DayAhead:
    """:func:`read_entsoe`; ``changed``: time and size by which the file is read again once it has changed."""
    table = read_table(path)
    unit, zone = _column_of_units(table)
    prices = {name: found[1] for name in table.names if (found := _PRICE.fullmatch(name))}
    if len(prices) != 1:
        text = f"has {len(prices)} columns of prices: must have one such as 'Day-ahead Price (EUR/MWh)'"
        raise ScenarioError([text], str(path))
    (price, currency), *_ = prices.items()
    zones = next((n for n in table.names if n == "Area" or n.startswith("BZN|")), None)
    table = _of_one(_of_one(table, "area", zones, area), "sequence", "Sequence", sequence)
    faults = Faults(table)
    moments = _moments(table, unit, zone, faults)
    empty = np.array([cell in _NO_PRICE for cell in table.text(price)], np.bool_)
    skipped = np.array([moment == "skipped" for moment in moments], np.bool_)
    faults.cells(skipped & ~empty, unit, f"there is no such time in {zone.key}, but a price")
    faults.cells(~skipped & empty, price, "must be a price")
    given = np.flatnonzero(~empty)
    values = np.full(len(table), np.nan)
    values[given] = _rows(table, [price], given).numbers([price], faults, "must be a price")[0]
    if not faults:
        _check(moments, faults)
    faults.check()
    units = [(k, moment) for k, moment in enumerate(moments) if not isinstance(moment, str)]
    begin = np.array([moment[0].replace(tzinfo=None) for _, moment in units], "datetime64[s]")
    end = np.array([moment[1].replace(tzinfo=None) for _, moment in units], "datetime64[s]")
    end[:-1] = begin[1:]
    return DayAhead(begin, end, values[[k for k, _ in units]], currency, zone)


_Unit = tuple[datetime, datetime, bool]
"""Begin and end of a unit in UTC, and whether its times leave open which of two hours they are in."""


def _column_of_units(table: Table) -> tuple[str, ZoneInfo]:
    """Name of the column of market time units, and the zone of its times."""
    found = [name for name in table.names if name.startswith("MTU")]
    words = found[0].removeprefix("MTU").strip(" ()") if len(found) == 1 else None
    if words not in ZONES:
        allowed = ", ".join(f"'MTU ({zone})'" for zone in ZONES)
        there = ", ".join(shown(name) for name in table.names[:10])
        raise ScenarioError(
            [f"has no column of market time units: must be one of {allowed}; there are {there}"],
            str(table.source),
        )
    return found[0], ZoneInfo(ZONES[words])


def _of_one(table: Table, what: str, column: str | None, wanted: str | None) -> Table:
    """The rows of one area or sequence. Raises ScenarioError where that leaves a choice, or none."""
    if column is None or column not in table:
        if wanted is not None:
            raise ScenarioError([f"{what} = {shown(wanted)}: the file names none"], str(table.source))
        return table
    cells = table.text(column)
    names = list(dict.fromkeys(cells))
    if wanted is None and len(names) <= 1:
        return table
    if wanted not in names:
        there = ", ".join(shown(name) for name in names[:10])
        given = "" if wanted is None else f" = {shown(wanted)}"
        raise ScenarioError([f"{what}{given}: must be one of those of the file, {there}"], str(table.source))
    return _rows(table, table.names, np.flatnonzero(np.array(cells) == wanted))


def _rows(table: Table, names: Sequence[str], rows: NDArray[np.int64]) -> Table:
    """Some columns and rows of a table."""
    lines = np.array(table.lines(rows.tolist()), np.int64)
    cells = pd.DataFrame({name: np.array(table.text(name), object)[rows] for name in names}, dtype=str)
    made = Table.of(cells, str(table.source), table.place)
    return Table(table.source, {name: made.column(name) for name in names}, table.place, lambda: lines)


def _moments(table: Table, column: str, zone: ZoneInfo, faults: Faults) -> list[_Unit | str]:
    """The units of a table in UTC; "skipped" for those in an hour that the clock skips, "" for a fault."""
    found: list[_Unit | str] = []
    bad, last = [], datetime.min.replace(tzinfo=UTC)
    for row, cell in enumerate(table.text(column)):
        parts = _UNIT.fullmatch(cell)
        sides = None if parts is None else [_side(parts.groups()[k : k + 7]) for k in (0, 7)]
        if sides is None or None in sides:
            bad.append(row)
            found.append("")
            continue
        (begin, begin_shift), (end, end_shift) = (side for side in sides if side is not None)
        begins = _utc(begin, begin_shift, zone)
        if not begins:
            found.append("skipped")
            continue
        first = next((moment for moment in begins if moment > last), begins[-1])
        ends = _utc(end, end_shift, zone)
        usual = end - begin if end > begin else timedelta(hours=1)
        until = next((moment for moment in ends if moment > first), first + usual)
        found.append((first, until, len(begins) > 1 or len(ends) != 1))
        last = first
    faults.cells(
        bad, column, "must be a range such as 26/10/2025 02:00:00 (CEST) - 26/10/2025 03:00:00 (CET)"
    )
    return found


def _side(parts: tuple[str | None, ...]) -> tuple[datetime, str | None] | None:
    """A local time and the word of its zone, if any; None where it is none."""
    day, month, year, hour, minute, second, shift = parts
    try:
        moment = datetime(*(int(part or 0) for part in (year, month, day, hour, minute, second)))  # type: ignore[arg-type]
    except ValueError:
        return None
    return (moment, shift) if shift is None or shift in _SHIFTS else None


@lru_cache(maxsize=4096)
def _utc(local: datetime, shift: str | None, zone: ZoneInfo) -> list[datetime]:
    """The moments in UTC that a local time may be: none in the hour skipped, two in that repeated."""
    if shift is not None:
        return [(local - timedelta(hours=_SHIFTS[shift])).replace(tzinfo=UTC)]
    both = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(m for m in both if m.astimezone(zone).replace(tzinfo=None) == local)


def _check(moments: list[_Unit | str], faults: Faults) -> None:
    """Add the faults of order and gaps."""
    before: _Unit | None = None
    count = 0
    for row, moment in enumerate(moments):
        if isinstance(moment, str):
            continue
        count += 1
        if before is not None:
            begin, end = moment[0], before[1]
            if begin <= before[0]:
                faults.rows([row], f"must be after the {faults.place} before")
            elif begin > end:
                faults.rows(
                    [row], f"gap of {(begin - end).total_seconds():g} s from the {faults.place} before"
                )
            elif begin < end and not before[2]:
                faults.rows([row], f"begins before the end of the {faults.place} before")
        before = moment
    if not count:
        faults.file("has no prices")
