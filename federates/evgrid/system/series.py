"""Values over time from files: frequency, regulation, load, prices, emissions; and events.

A file is a CSV table with a column ``time`` and a column of values. A time is a local timestamp
without a zone (ISO 8601), or seconds from the run's start; a value holds until the next row, the
last as long as the one before it. Lines that begin with ``#`` are comments.

Emissions may also be WattTime's v3 JSON, ``{"data": [{"point_time": ..., "value": ...}]}``, in lb of
CO2 per MWh, with times in UTC.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from evgrid.errors import ScenarioError
from evgrid.model import Array, Clock

KG_PER_LB = 0.45359237
_MOST_FAULTS = 20
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True)
class Series:
    """Values that hold over intervals.

    edges_s : (n + 1,) s from the run's start, ascending
    values : (n,) or (n, member); value k holds over [edges_s[k], edges_s[k + 1])
    """

    edges_s: Array
    values: Array

    def at(self, time_s: float) -> Array:
        """The value that holds just before ``time_s``; () or (member,)."""
        return np.asarray(self.values[self._index(time_s - _ROUNDING_S)])

    def mean(self, begin_s: float, end_s: float) -> Array:
        """Mean over [begin_s, end_s); () or (member,). The ends' values hold beyond the ends."""
        first, last = self._index(begin_s + _ROUNDING_S), self._index(end_s - _ROUNDING_S)
        if first >= last:
            return np.asarray(self.values[first])
        edges = np.clip(self.edges_s[first : last + 2], begin_s, end_s)
        edges[0], edges[-1] = begin_s, end_s
        weight = np.diff(edges) / (end_s - begin_s)
        return np.asarray(weight @ self.values[first : last + 1])

    def _index(self, time_s: float) -> int:
        index = int(self.edges_s.searchsorted(time_s, "right")) - 1
        return min(max(index, 0), len(self.values) - 1)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a series must obey.

    what : what the values are, for messages; low, high : smallest and largest value allowed
    longest_step_s : longest interval; with ``regular`` all intervals must be of the same length
    """

    what: str
    low: float = -math.inf
    high: float = math.inf
    longest_step_s: float = math.inf
    regular: bool = False


REGULATION = Rules("regulation signal from -1 to 1", -1.0, 1.0, 10.0, regular=True)
LOAD = Rules("power in MW")
PRICE = Rules("price")
EMISSIONS = Rules("emission rate in kg CO2 per MWh", low=0.0)


def frequency_rules(nominal_hz: float) -> Rules:
    """Rules of a replayed frequency: within 10 % of nominal, at up to 10 s."""
    low, high = 0.9 * nominal_hz, 1.1 * nominal_hz
    return Rules(f"frequency from {low:g} to {high:g} Hz", low, high, 10.0, regular=True)


def read_series(path: str | Path, clock: Clock, rules: Rules, column: str | None = None) -> Series:
    """Read a series that covers the run.

    Parameters
    ----------
    path, clock, rules
        The file, the run, and what the values must obey.
    column
        Name of the column of values; left out: the only one besides ``time``.

    Raises
    ------
    ScenarioError
        With every fault of the file, each with its line (the header has one, too): a missing column,
        times or values that are none, values out of range, times out of order, gaps, and
        a file that does not cover the run.

    """
    path = Path(path)
    lines, cells, faults = _read_cells(path, column)
    times_s, values = np.full(len(cells), np.nan), np.full(len(cells), np.nan)
    seconds = bool(cells) and _number(cells[0][0]) is not None
    for row, (line, (time, value)) in enumerate(zip(lines, cells, strict=True)):
        at = _number(time) if seconds else _local_seconds(time, clock)
        if at is None:
            kind = "seconds from the start, as in the first row" if seconds else "a local time without a zone"
            faults.append(f"line {line}, time = {time or 'nothing'}: must be {kind}")
        else:
            times_s[row] = at
        number = _number(value)
        if number is None or not rules.low <= number <= rules.high:
            faults.append(f"line {line}, value = {value or 'nothing'}: must be a {rules.what}")
        else:
            values[row] = number
    if not faults:
        faults = _faults_of_times(times_s, lines, clock, rules)
    if faults:
        rest = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise ScenarioError([*faults[:_MOST_FAULTS], *rest], str(path))
    return Series(np.append(times_s, 2 * times_s[-1] - times_s[-2]), values)


def read_emissions(path: str | Path, clock: Clock, timezone: str | None = None) -> Series:
    """Emission rate in kg CO2 per MWh, from a CSV table or from WattTime's JSON.

    ``timezone`` is that of the run's local time, into which WattTime's UTC is converted.

    Raises ScenarioError.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        return read_series(path, clock, EMISSIONS)
    if timezone is None:
        raise ScenarioError(["timezone: is required, as the times of a WattTime file are UTC"], str(path))
    try:
        points = json.loads(path.read_text(encoding="utf-8"))["data"]
        stamps = [datetime.fromisoformat(str(point["point_time"])) for point in points]
        values = np.array([float(point["value"]) for point in points])
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"is no WattTime file with data[{{point_time, value}}]: {type(error).__name__}: {error}"
        raise ScenarioError([text], str(path)) from None
    zone = ZoneInfo(timezone)
    local = [s.astimezone(zone).replace(tzinfo=None) if s.tzinfo else s for s in stamps]
    times_s = _seconds(np.array(local, "datetime64[us]"), clock)
    numbers = [k + 1 for k in range(len(points))]
    faults = [
        f"point {n}, value = {value:g}: must be a {EMISSIONS.what}"
        for n, value in zip(numbers, values, strict=True)
        if not 0 <= value < math.inf
    ] or _faults_of_times(times_s, numbers, clock, EMISSIONS, "point")
    if faults:
        raise ScenarioError(faults[:_MOST_FAULTS], str(path))
    return Series(np.append(times_s, 2 * times_s[-1] - times_s[-2]), values * KG_PER_LB)


def _read_cells(path: Path, column: str | None) -> tuple[list[int], list[tuple[str, str]], list[str]]:
    """Line numbers and (time, value) as text of every row, and faults."""
    lines: list[int] = []
    cells: list[tuple[str, str]] = []
    faults: list[str] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError([f"can't be read: {error}"], str(path)) from None
    reader = csv.reader(text.splitlines())
    header: list[str] | None = None
    for row in reader:
        if not row or row[0].lstrip().startswith("#"):
            continue
        row = [cell.strip() for cell in row]
        if header is None:
            header = row
            others = [name for name in header if name != "time"]
            if "time" not in header:
                raise ScenarioError([f"line {reader.line_num}: there is no column 'time'"], str(path))
            if column is None and len(others) != 1:
                text = f"line {reader.line_num}: must have one column besides 'time', not {len(others)}"
                raise ScenarioError([f"{text}; or name it with the setting column"], str(path))
            wanted = others[0] if column is None else column
            if wanted not in header:
                text = f"line {reader.line_num}: there is no column '{wanted}'; there are {', '.join(others)}"
                raise ScenarioError([text], str(path))
            time_at, value_at = header.index("time"), header.index(wanted)
        elif len(row) != len(header):
            faults.append(f"line {reader.line_num}: has {len(row)} cells: must have {len(header)}")
        else:
            lines.append(reader.line_num)
            cells.append((row[time_at], row[value_at]))
    if len(cells) < 2 and not faults:
        faults.append(f"has {len(cells)} rows: must have a header and at least two rows")
    return lines, cells, faults


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _local_seconds(text: str, clock: Clock) -> float | None:
    """A local timestamp as seconds from the run's start, or None."""
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        return None
    if stamp.tzinfo is not None:
        return None
    return float(_seconds(np.array([stamp], "datetime64[us]"), clock)[0])


def _seconds(stamps: np.ndarray[tuple[int], np.dtype[np.datetime64]], clock: Clock) -> Array:
    passed = stamps - clock.start.astype("datetime64[us]")
    return np.asarray(passed.astype(np.int64) / 1e6)


def _faults_of_times(
    times_s: Array, numbers: Sequence[int], clock: Clock, rules: Rules, row: str = "line"
) -> list[str]:
    """Faults of order, gaps and cover."""
    if len(times_s) < 2:
        return [f"has {len(times_s)} rows: must have at least two"]
    steps = np.diff(times_s)
    faults = [
        f"{row} {numbers[k + 1]}: time must be after the {row} before"
        for k in np.flatnonzero(steps <= 0).tolist()
    ]
    if faults:
        return faults
    usual = float(np.median(steps))
    if usual > rules.longest_step_s * (1 + 1e-9):
        return [f"has a step of {usual:g} s: must be at most {rules.longest_step_s:g} s"]
    if rules.regular:
        for k in np.flatnonzero(np.abs(steps - usual) > 0.01 * usual + _ROUNDING_S).tolist():
            kind = "gap" if steps[k] > usual else "step"
            faults.append(
                f"{row} {numbers[k + 1]}: {kind} of {steps[k]:g} s from the {row} before: must be {usual:g} s"
            )
    end_s = times_s[-1] + steps[-1]
    if times_s[0] > _ROUNDING_S or end_s < clock.duration_s - _ROUNDING_S:
        covered = f"{clock.stamp(float(times_s[0]))} to {clock.stamp(float(end_s))}"
        run = f"{clock.stamp(0.0)} to {clock.stamp(clock.duration_s)}"
        faults.append(f"covers {covered}: must cover the run, {run}")
    return faults
