"""Values over time from files: frequency, regulation, load, prices, emissions; and events.

A file is a table with a column ``time`` and a column of values, read as :mod:`evgrid.readers.time_tables`
says. A time is local, without a zone (ISO 8601 or a stated form), or seconds from the run's start; a value
holds until the next row, the last as long as the one before it. Lines of a CSV that begin with ``#`` are
comments.

Emissions may also be WattTime's v3 JSON, ``{"data": [{"point_time": ..., "value": ...}]}``, in lb of
CO2 per MWh, with times in UTC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from evgrid.core.model import Array, Clock
from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError
from evgrid.readers import Faults, Table, read_json, read_table, shown, utc_times
from evgrid.readers.time_tables import AS_IT_IS, Account, Reading, Select, bare_name, time_table
from evgrid.readers.times import moment_of, utc_of

KG_PER_LB = 0.45359237
WATTTIME_UNITS = "lbs_co2_per_mwh"
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

    def means(self, edges_s: Array) -> Array:
        """Mean between each two of ascending times, (n,) for (n + 1,); exact where one value holds
        throughout. The ends' values hold beyond the ends.
        """
        last_row = len(self.values) - 1
        first = np.clip(self.edges_s.searchsorted(edges_s[:-1] + _ROUNDING_S, "right") - 1, 0, last_row)
        last = np.clip(self.edges_s.searchsorted(edges_s[1:] - _ROUNDING_S, "right") - 1, 0, last_row)
        found = self.values[first]
        for k in np.flatnonzero(first < last):
            found[k] = self.mean(float(edges_s[k]), float(edges_s[k + 1]))
        return np.asarray(found)

    def until(self, end_s: float) -> Series:
        """The series up to ``end_s`` at least, for forecasts: beyond its end its last day is repeated, or, if
        it has no whole day, its last value.
        """
        edges_s, values = self.edges_s, self.values
        if end_s <= edges_s[-1] or len(values) < 2:
            return self
        first = int(edges_s.searchsorted(edges_s[-1] - DAY_S - _ROUNDING_S, "left"))
        if edges_s[0] > edges_s[-1] - DAY_S + _ROUNDING_S:
            return Series(np.append(edges_s[:-1], end_s), values)
        begin = edges_s[-1] - DAY_S
        if edges_s[first] > begin + _ROUNDING_S:  # a value that holds into the last day
            first -= 1
        day_s = np.maximum(edges_s[first:-1], begin) - begin
        days = int(np.ceil((end_s - edges_s[-1]) / DAY_S))
        more = (edges_s[-1] + DAY_S * np.arange(days)[:, None] + day_s).reshape(-1)
        repeated = np.concatenate([values[first:]] * days)
        edges_s = np.concatenate([edges_s[:-1], more, [edges_s[-1] + DAY_S * days]])
        return Series(edges_s, np.concatenate([values, repeated]))

    def _index(self, time_s: float) -> int:
        index = int(self.edges_s.searchsorted(time_s, "right")) - 1
        return min(max(index, 0), len(self.values) - 1)


@dataclass(frozen=True, slots=True)
class Rules:
    """Constraints of a series.

    what : description of the values, for messages; low, high : smallest and largest value allowed
    longest_step_s : longest interval; with ``regular`` all intervals must be of the same length
    power : whether they are power in kW, or energy of an interval
    """

    what: str
    low: float = -math.inf
    high: float = math.inf
    longest_step_s: float = math.inf
    regular: bool = False
    power: bool = False


REGULATION = Rules("regulation signal from -1 to 1", -1.0, 1.0, 10.0, regular=True)
LOAD = Rules("power in MW")
SITE_POWER = Rules("power in kW", power=True)
PRICE = Rules("price")
EMISSIONS = Rules("emission rate in kg CO2 per MWh", low=0.0)


def frequency_rules(nominal_hz: float) -> Rules:
    """Rules of a replayed frequency: within 10 % of nominal, at up to 10 s."""
    low, high = 0.9 * nominal_hz, 1.1 * nominal_hz
    return Rules(f"frequency from {low:g} to {high:g} Hz", low, high, 10.0, regular=True)


def read_series(
    path: str | Path, clock: Clock, rules: Rules, column: str | None = None, reading: Reading = AS_IT_IS
) -> Series:
    """Read a series that covers the run.

    Parameters
    ----------
    path, clock, rules
        The file, the run, and the constraints of the values.
    column
        Name of the column of values, or of the series in a long table; left out: the only one.
    reading
        What is stated of the file.

    Raises
    ------
    ScenarioError
        With every fault of the file, each with its line (the header has one, too): a missing column,
        times or values that are none, values out of range, times out of order, gaps, and
        a file that does not cover the run.

    """
    return read_series_with_account(path, clock, rules, column, reading)[0]


def read_series_with_account(
    path: str | Path, clock: Clock, rules: Rules, column: str | None = None, reading: Reading = AS_IT_IS
) -> tuple[Series, Account]:
    """Like :func:`read_series`, with an account of what was read, shifted, filled and dropped."""
    table = read_table(path, comments=True, form=reading.form)
    faults = Faults(table)
    faults.rows_unlike_header(reading.form.header)
    rule, limits = f"must be a {rules.what}", (rules.low, rules.high)
    found = time_table(table, clock, reading, rule, _only(column), faults, rules.power, limits)
    faults.check()
    assert found is not None
    values = found.values[_VALUE]
    _check_times(found.edges_s[:-1], clock, rules, faults)
    faults.check()
    return Series(found.edges_s, values), found.account


_VALUE = "value"


def _only(column: str | None) -> Select:
    """Selects the column of values."""

    def select(names: list[str], faults: Faults) -> dict[str, str]:
        if column is None and len(names) != 1:
            faults.file(
                f"must have one column besides 'time', not {len(names)}; or name it with the setting column"
            )
            return {}
        wanted = names[0] if column is None else column
        found = next((name for name in names if wanted in (name, bare_name(name))), None)
        if found is None:
            few = ", ".join(shown(name) for name in names[:10]) + (", …" if len(names) > 10 else "")
            faults.file(f"there is no column '{wanted}'; there are {few}")
            return {}
        return {_VALUE: found}

    return select


def read_emissions(
    path: str | Path, clock: Clock, timezone: str | None = None, column: str | None = None,
    reading: Reading = AS_IT_IS,
) -> Series:  # fmt: skip
    """Emission rate in kg CO2 per MWh, from a table or from WattTime's JSON.

    ``timezone`` is that of the run's local time, into which WattTime's UTC is converted
    (:func:`evgrid.readers.utc_times`). ``column`` and ``reading`` are for tables.

    Raises ScenarioError.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        return read_series(path, clock, EMISSIONS, column, reading)
    if timezone is None:
        raise ScenarioError(["timezone: is required, as the times of a WattTime file are UTC"], str(path))
    if column is not None or reading != AS_IT_IS:
        raise ScenarioError(["column, time_format and others are for tables: leave them out"], str(path))
    content = read_json(path)
    points = content.get("data") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise ScenarioError(["is no WattTime file: must be an object with a list data"], str(path))
    meta = content.get("meta")
    units = meta.get("units") if isinstance(meta, dict) else None
    if units not in (None, WATTTIME_UNITS):
        raise ScenarioError([f"meta.units = {shown(units)}: must be {WATTTIME_UNITS}"], str(path))
    pairs = [(p.get("point_time"), p.get("value")) if isinstance(p, dict) else (None, None) for p in points]
    text = {name: [_as_text(pair[k]) for pair in pairs] for k, name in enumerate(("point_time", "value"))}
    table = Table.of(pd.DataFrame(text, dtype=str), str(path), "point")
    faults = Faults(table)
    moments = [_moment(time) for time, _ in pairs]
    faults.cells(
        [k for k, moment in enumerate(moments) if moment is None], "point_time",
        "must be a time with its zone, such as 2026-01-15T18:30:00+00:00",
    )  # fmt: skip
    values = np.array([_rate(value) for _, value in pairs], np.float64)
    faults.cells(~((values >= 0) & (values < math.inf)), "value", f"must be a {EMISSIONS.what}, or lb")
    given = [moment for moment in moments if moment is not None]
    if not faults:
        elapsed_s = np.array([(moment - given[0]).total_seconds() for moment in given])
        _check_order(elapsed_s, faults)
    faults.check()
    times_s, used = utc_times(given, ZoneInfo(timezone), clock.start)
    times_s, values = times_s[used], values[used]
    _check_times(times_s, clock, EMISSIONS, faults)
    faults.check()
    return Series(np.append(times_s, 2 * times_s[-1] - times_s[-2]), values * KG_PER_LB)


def _moment(time: Any) -> datetime | None:
    found = moment_of(time)
    return None if found is None else utc_of(found)


def _rate(value: Any) -> float:
    """A JSON number; NaN for other values."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def _as_text(value: Any) -> str:
    return shown("" if value is None else value)


def _check_order(times_s: Array, faults: Faults) -> None:
    """Add the faults of order."""
    later = np.append(True, np.diff(times_s) > 0) if len(times_s) else np.ones(0, np.bool_)
    faults.rows(~later, lambda row: f"time must be after the {faults.place} before")


def _check_times(times_s: Array, clock: Clock, rules: Rules, faults: Faults) -> None:
    """Add the faults of order, gaps and cover."""
    if len(times_s) < 2:
        faults.file(f"has {len(times_s)} rows: must have a header and at least two rows")
        return
    _check_order(times_s, faults)
    if faults:
        return
    steps = np.diff(times_s)
    usual = float(np.median(steps))
    if usual > rules.longest_step_s * (1 + 1e-9):
        faults.file(f"has a step of {usual:g} s: must be at most {rules.longest_step_s:g} s")
        return
    if rules.regular:
        odd = np.append(False, np.abs(steps - usual) > 0.01 * usual + _ROUNDING_S)
        faults.rows(
            odd,
            lambda row: (
                f"{'gap' if steps[row - 1] > usual else 'step'} of {steps[row - 1]:g} s from the "
                f"{faults.place} before: must be {usual:g} s"
            ),
        )
    end_s = times_s[-1] + steps[-1]
    if times_s[0] > _ROUNDING_S or end_s < clock.duration_s - _ROUNDING_S:
        covered = f"{clock.stamp(float(times_s[0]))} to {clock.stamp(float(end_s))}"
        run = f"{clock.stamp(0.0)} to {clock.stamp(clock.duration_s)}"
        faults.file(f"covers {covered}: must cover the run, {run}")
