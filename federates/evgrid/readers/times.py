"""Times in tables: local wall-clock times, as seconds from the run's start.

Accepted forms:

- ISO 8601: ``2026-01-15``, ``2026-01-15T18:30``, ``2026-01-15 18:30:15.25``, ``20260115T1830``; ``24:00``
  ends the day. Fractions of a second are kept to a millionth.
- A number: seconds from the run's start.
- Dates or times of Parquet and NetCDF.
- Any other form if stated (``time_format``): a form of strptime such as
  ``%d.%m.%Y %H:%M``, ``excel`` for serial days of a spreadsheet, or ``seconds``.

01.02.2026 is the first of February or the second of January: for such cells the form must be stated. A time
with a zone or an offset is a fault, since the clock of a run is local; :func:`utc_times` is for data in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.core.units import DAY_S
from evgrid.readers.faults import Faults, shown
from evgrid.readers.tables import Table, mask_of

ZONED = "must be local time without a zone"
EXAMPLE = "2026-01-15T18:30"

_CLOCK = r"\d{2}(:\d{2}(:\d{2}([.,]\d{1,9})?)?)?"
_ISO = rf"^\d{{4}}-\d{{2}}-\d{{2}}([Tt ]{_CLOCK})?$|^\d{{8}}[Tt]\d{{4}}(\d{{2}})?$"
_ZONE = r"(?:[Zz]|[+-]\d{2}(?::?\d{2}){0,2}|\[[A-Za-z_/+-]+\]|[A-Z][a-z]+/[A-Za-z_/]+|[A-Z]{3,4})"
_ISO_ZONED = rf"^(\d{{4}}-\d{{2}}-\d{{2}}([Tt ]{_CLOCK})?|\d{{8}}[Tt]\d{{4}}(\d{{2}})?)\s*({_ZONE}\s*)+$"
_ANY_ZONED = rf"\d\s*({_ZONE}\s*)+$"
COMPACT = r"^(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d([0-5]\d)?)?$"
_LONGEST = 60
_DATED = r"\d.*[./\- ].*\d"
_SECONDS, _EXCEL = "seconds", "excel"
_DIRECTIVES = set("dmYyHMSfIpbBjaA%")
_EXCEL_ZERO = np.datetime64("1899-12-30", "us")
_EXCEL_RANGE, _EXCEL_SPAN = (36526.0, 73051.0), 366.0
"""Serial days from 2000 to 2099: fractional numbers in this range, within a year, may be such."""

_YEARS = (1700, 2200)
"""Years that a time may have: the range of nanoseconds since 1970 in 64 bits."""
_MOST_S = 1e10
"""Most seconds from the run's start, 317 years."""
_EARLIEST, _LATEST = (np.datetime64(f"{year}-01-01", "us") for year in _YEARS)


def check_time_format(form: str) -> str:
    """A scenario's form of times, checked. Raises ValueError with one sentence."""
    if form in (_SECONDS, _EXCEL):
        return form
    what = "must be a form such as '%d.%m.%Y %H:%M', or excel, or seconds"
    unknown = [letter for letter in re.findall(r"%(.)", form, re.DOTALL) if letter not in _DIRECTIVES]
    if unknown:
        zone = "; times are local, without a zone" if unknown[0] in "zZ" else ""
        raise ValueError(f"{what}, without %{unknown[0]}{zone}")
    for day in (datetime(2026, 1, 15), datetime(2031, 11, 28)):
        try:
            found = datetime.strptime(day.strftime(form), form)
        except (ValueError, re.error):
            raise ValueError(what) from None
        if found != day:
            raise ValueError(f"{what}, with year, month and day")
    return form


def read_times(
    table: Table, columns: Sequence[str], start: np.datetime64, time_format: str | None, faults: Faults
) -> list[Array]:
    """Columns of local times as seconds from ``start``, NaN where a cell is empty or at fault.

    Faults are added to ``faults``; empty cells are left to the caller.
    """
    stored = {name for name in columns if pa.types.is_temporal(table.column(name).type)}
    others = [name for name in columns if name not in stored]
    if stored and time_format is not None:
        faults.file(f"time_format = {time_format}: the file holds times as such; leave it out")
        time_format = None
    found = {name: _stored(table, name, start, faults) for name in stored}
    if time_format in (_SECONDS, _EXCEL):
        found |= zip(others, _from_numbers(table, others, start, time_format, faults), strict=True)
    elif time_format is None and _unclear(table, others, faults):
        found |= {name: np.full(len(table), np.nan) for name in others}
    else:
        asked: list[str] = []
        found |= {name: _from_text(table, name, start, time_format, faults, asked) for name in others}
    return [found[name] for name in columns]


def _unclear(table: Table, columns: Sequence[str], faults: Faults) -> bool:
    """Whether numbers may be dates, which is a fault that requires the form to be stated."""
    numbers = [name for name in columns if not _all_iso(table.column(name))]
    if not numbers:
        return False
    values, readable, _ = table.parsed(numbers)
    given = [good & ~table.empty(name) for name, good in zip(numbers, readable, strict=True)]
    mixed = len(numbers) < len(columns) or any(
        bool((~good & ~table.empty(name)).any()) for name, good in zip(numbers, given, strict=True)
    )
    for name, good in zip(numbers, given, strict=True):
        rows = np.flatnonzero(good)
        cells = table.text(name)
        found = next((k for k in (rows if mixed else rows[:1]).tolist() if re.match(COMPACT, cells[k])), None)
        if found is not None:
            form = "%Y%m%d" + {8: "", 12: "%H%M", 14: "%H%M%S"}[len(cells[found])]
            faults.file(
                f"{table.place} {table.line(found)}: {name} = {cells[found]}: is this a date? state "
                f"time_format: '{form}', or seconds for seconds from the start"
            )
            return True
    all_given = np.concatenate([v[good] for v, good in zip(values, given, strict=True)])
    if (
        not mixed
        and len(all_given)
        and ((all_given >= _EXCEL_RANGE[0]) & (all_given < _EXCEL_RANGE[1])).all()
        and np.ptp(all_given) <= _EXCEL_SPAN
        and (all_given != np.floor(all_given)).any()
    ):
        row = int(np.flatnonzero(given[0])[0]) if given[0].any() else 0
        cell = shown(table.text(numbers[0])[row])
        faults.file(
            f"{table.place} {table.line(row)}: {numbers[0]} = {cell}: is this a day of a spreadsheet? "
            "state time_format: excel, or seconds for seconds from the start"
        )
        return True
    return False


def _all_iso(column: pa.Array) -> bool:
    if not pa.types.is_large_string(column.type):
        return False
    return bool(pc.all(pc.match_substring_regex(column, _ISO), min_count=0).as_py())


def _from_numbers(
    table: Table, columns: Sequence[str], start: np.datetime64, kind: str, faults: Faults
) -> list[Array]:
    if kind == _SECONDS:
        return _within(
            table, columns, table.numbers(columns, faults, "must be seconds from the start"), faults
        )
    days = table.numbers(columns, faults, "must be a day of a spreadsheet, such as 46037.75")
    offset_s = float((_EXCEL_ZERO - start.astype("datetime64[us]")).astype(np.int64)) / 1e6
    found_s = [np.round(values * DAY_S, 3) + offset_s for values in days]  # accurate to 1 ms
    return _within(table, columns, found_s, faults)


def _within(table: Table, columns: Sequence[str], found_s: list[Array], faults: Faults) -> list[Array]:
    """Seconds, NaN where they are further from the start than any data."""
    for name, seconds in zip(columns, found_s, strict=True):
        far = np.abs(seconds) > _MOST_S
        faults.cells(far, name, f"must be within {_MOST_S:g} s of the start")
        seconds[far] = np.nan
    return found_s


def _stored(table: Table, name: str, start: np.datetime64, faults: Faults) -> Array:
    """A column of dates or times."""
    column, nothing = table.column(name), np.full(len(table), np.nan)
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        faults.file(f"column {name} holds {kind}: must hold dates with times")
        return nothing
    given = ~table.empty(name)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        faults.cells(given, name, ZONED, [f"{cell} ({kind.tz})" for cell in table.text(name)[:]])
        return nothing
    stamps = column.to_numpy(zero_copy_only=False)
    years = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
    outside = given & ((years < _YEARS[0]) | (years >= _YEARS[1]))
    faults.cells(outside, name, _in_years())
    return _seconds(np.where(given & ~outside, stamps, np.datetime64("NaT")).astype("datetime64[us]"), start)


def _from_text(
    table: Table, name: str, start: np.datetime64, form: str | None, faults: Faults, asked: list[str]
) -> Array:
    """A column of text in ISO 8601 or a stated form; ``asked``: columns whose form has been asked for."""
    text = table.column(name)
    if form is None and (pa.types.is_integer(text.type) or pa.types.is_floating(text.type)):
        return _from_numbers(table, [name], start, _SECONDS, faults)[0]
    if form is not None and pa.types.is_integer(text.type):  # 20260115
        text = pc.cast(text, pa.large_string())
    given = ~table.empty(name)
    if not pa.types.is_large_string(text.type):
        if given.any():
            faults.file(f"column {name} holds {text.type}: must hold times of the form {form or EXAMPLE}")
        return np.full(len(table), np.nan)
    stamps = _iso(text) if form is None else _formed(text, form)
    bad = given & np.isnat(stamps)
    outside = given & ~bad & ((stamps < _EARLIEST) | (stamps >= _LATEST))
    found_s = _seconds(np.where(outside, np.datetime64("NaT"), stamps), start)
    if form is None and bad.any():
        numbers, readable, _ = table.parsed([name])
        counted = bad & readable[0] & (np.abs(numbers[0]) <= _MOST_S)
        found_s[counted] = numbers[0][counted]
        bad &= ~counted
    if bad.any():
        _explain(table, name, form, bad, given & ~bad, faults, asked)
    faults.cells(outside, name, _in_years())
    return found_s


def _explain(
    table: Table, name: str, form: str | None, bad: NDArray[np.bool_], good: NDArray[np.bool_],
    faults: Faults, asked: list[str],
) -> None:  # fmt: skip
    """Add the faults of cells that are no times."""
    text = table.column(name)
    zoned = bad & mask_of(pc.match_substring_regex(text, _ISO_ZONED if form is None else _ANY_ZONED))
    if form is None:
        zoned &= ~mask_of(pc.match_substring_regex(text, r"(?i)\d\s*[ap]m$"))
    faults.cells(zoned, name, ZONED)
    bad = bad & ~zoned
    if form is not None:
        faults.cells(bad, name, f"must be a time of the form {form}")
        return
    iso = bad & mask_of(pc.match_substring_regex(text, _ISO))
    faults.cells(iso, name, "there is no such day or time")
    bad &= ~iso
    dated = bad & mask_of(pc.match_substring_regex(text, _DATED))
    if dated.any() and not good.any() and asked:
        bad &= ~dated
    elif dated.any() and not good.any():
        asked.append(name)
        rows = np.flatnonzero(dated)
        cell = table.text(name)[rows[0]]
        more = f" ({len(rows)} {table.place}s are like it)" if len(rows) > 1 else ""
        faults.file(
            f"{table.place} {table.line(int(rows[0]))}: {name} = {shown(cell)}: is not ISO 8601 ({EXAMPLE}); "
            f"state the form of the times, such as time_format: {_forms_like(cell)}{more}"
        )
        bad &= ~dated
    faults.cells(bad, name, f"must be a time such as {EXAMPLE}, or seconds from the start")


def _forms_like(cell: str) -> str:
    """Forms that a cell may have, as an example."""
    separator = next((sign for sign in "./-" if sign in cell), ".")
    found = re.match(r"\s*(\d+)\D(\d+)\D(\d+)(.*)$", cell, re.DOTALL)
    if found is None:
        return "'%d.%m.%Y %H:%M'"
    year = "%Y" if max(len(found[1]), len(found[3])) >= 4 else "%y"
    orders = [("%d", "%m", year), ("%m", "%d", year)]
    if len(found[1]) >= 4:
        orders = [(year, "%m", "%d")]
    elif separator == ".":
        orders = orders[:1]
    rest = found[4]
    half = bool(re.search(r"(?i)[ap]m\s*$", rest))
    rest = re.sub(r"(?i)[ap]m\s*$", "%p", rest)
    rest = re.sub(r"\d+:\d+:\d+\.\d+", "%H:%M:%S.%f", rest, count=1)
    rest = re.sub(r"\d+:\d+:\d+", "%H:%M:%S", rest, count=1)
    rest = re.sub(r"\d+:\d+", "%H:%M", rest, count=1)
    rest = rest.replace("%H", "%I") if half else rest
    return " or ".join(f"'{separator.join(order)}{rest}'" for order in orders)


def _iso(text: pa.Array) -> NDArray[np.datetime64]:
    """Text in ISO 8601 as datetime64[us], NaT where it is none."""
    good = pc.fill_null(pc.match_substring_regex(text, _ISO), False)
    if not pc.all(good, min_count=0).as_py():
        text = pc.if_else(good, text, pa.scalar(None, pa.large_string()))
    try:
        return _cast(text)
    except pa.ArrowInvalid:  # some cell needs a closer look: basic form, fractions, 24:00, 30 February
        pass
    text = pc.replace_substring_regex(
        text, r"^(\d{4})(\d{2})(\d{2})[Tt](\d{2})(\d{2})(\d{2})?$", r"\1-\2-\3T\4:\5:0\6"
    )
    text = pc.replace_substring_regex(text, r":0(\d{2})$", r":\1")
    text = pc.replace_substring_regex(text, r":0$", ":00")
    text = pc.replace_substring(pc.replace_substring(text, ",", "."), "t", "T")
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+$", r"\1")
    text, next_day = _without_24(text)
    try:
        stamps = _cast(text)
    except pa.ArrowInvalid:
        stamps = np.array([_stamp(cell) for cell in text.to_pylist()], "datetime64[us]")
    stamps[next_day] += np.timedelta64(1, "D")
    return stamps


def _formed(text: pa.Array, form: str) -> NDArray[np.datetime64]:
    """Text of a stated form as datetime64[us], NaT where it is not of the form."""
    text, next_day = _without_24(text)
    digits = pc.if_else(pc.match_substring_regex(text, r"\d"), text, pa.scalar(None, pa.large_string()))
    cells = pd.Series(digits.to_pylist(), dtype=object)
    stamps = pd.to_datetime(cells, format=form, errors="coerce").to_numpy().astype("datetime64[us]")
    stamps[next_day] += np.timedelta64(1, "D")
    return np.asarray(stamps)


def _without_24(text: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Text with 24:00 as 00:00, and where it was."""
    pattern = r"([T ])24(:00(?::00(?:[.,]0+)?)?)$"
    found = mask_of(pc.match_substring_regex(text, pattern))
    return pc.replace_substring_regex(text, pattern, r"\1" + "00" + r"\2"), found


def _cast(text: pa.Array) -> NDArray[np.datetime64]:
    found = pc.cast(text, pa.timestamp("us")).to_numpy(zero_copy_only=False)
    return np.array(found, "datetime64[us]")


def _stamp(cell: str | None) -> Any:
    try:
        return np.datetime64("NaT") if cell is None else np.datetime64(datetime.fromisoformat(cell), "us")
    except ValueError:
        return np.datetime64("NaT")


def _seconds(stamps: NDArray[np.datetime64], start: np.datetime64) -> Array:
    passed = (stamps - start.astype("datetime64[us]")).astype("timedelta64[us]")
    return np.where(np.isnat(passed), np.nan, passed.astype(np.int64) / 1e6)


def _in_years() -> str:
    return f"must be from {_YEARS[0]} to {_YEARS[1] - 1}"


# ---- UTC ------------------------------------------------------------------------------------------


_RFC_1123 = r"(?:[A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}(?::\d{2})? (?:GMT|UTC|[+-]\d{4})"


def moment_of(text: Any, forms: Sequence[str] = ()) -> datetime | None:
    """A time in one of the forms of strptime, in RFC 1123 or in ISO 8601, with or without a zone.

    None if it is none, or of a year that no data has.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    text = text.strip()
    for form in forms:
        try:
            found = datetime.strptime(text, form)
        except ValueError:
            continue
        return found if _YEARS[0] <= found.year < _YEARS[1] else None
    try:
        if re.fullmatch(_RFC_1123, text):
            found = parsedate_to_datetime(text)
        elif re.search(_ISO, text, re.ASCII) or re.search(_ISO_ZONED, text, re.ASCII):
            text = re.sub(r"([.,]\d{6})\d+", r"\1", text)
            midnight = re.sub(r"([Tt ])24(:?00(?::?00(?:[.,]0+)?)?)(?!\d)", r"\g<1>00\2", text)
            found = datetime.fromisoformat(midnight) + timedelta(days=midnight != text)
        else:
            return None
    except (ValueError, TypeError, IndexError):
        return None
    return found if _YEARS[0] <= found.year < _YEARS[1] else None


def utc_of(moment: datetime) -> datetime | None:
    """A time with a zone in UTC; None if it has no zone, or a year that no data has."""
    try:
        found = None if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None
    return found if found is not None and _YEARS[0] <= found.year < _YEARS[1] else None


def utc_times(
    moments: Sequence[datetime], zone: ZoneInfo, start: np.datetime64
) -> tuple[Array, NDArray[np.bool_]]:
    """Times in UTC, ascending, as seconds from ``start`` on a run's local clock, and whether each is used.

    The repeated hour in autumn is used once: data after the change begin where the clock passes the times
    already shown. The hour skipped in spring has no data, so the value before it holds.
    """
    local = np.array([moment.astimezone(zone).replace(tzinfo=None) for moment in moments], "datetime64[us]")
    seconds = _seconds(local, start)
    before = np.maximum.accumulate(np.append(-np.inf, seconds[:-1]))
    return seconds, seconds > before


def clock_changes(zone: ZoneInfo, start: datetime, duration_s: float) -> list[datetime]:
    """Local times, to the hour, at which the offset from UTC changes in a run."""
    found, hour = [], timedelta(hours=1)
    last = start.replace(tzinfo=zone).utcoffset()
    for k in range(1, int(np.ceil(duration_s / 3600.0)) + 1):
        now = start + min(k * hour, timedelta(seconds=duration_s))
        offset = now.replace(tzinfo=zone).utcoffset()
        if offset != last:
            found.append(now.replace(minute=0, second=0, microsecond=0))
        last = offset
    return found
