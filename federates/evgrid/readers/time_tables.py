"""Time series as meters and platforms export them: a table of intervals, as values over the run's local
clock.

In: a table (CSV, Excel, Parquet, NetCDF), and what is stated of it, a :class:`Reading`. Out: for each series
its value in each interval, and an account of what was read, shifted, filled and dropped.

**Layout.** Wide: a column of times and one for each series. Long: a column of times, one of names, and one of
values. **Times** label the beginning or the end of an interval.

**Steps.** Where nothing but the form of the times is stated, a value holds until the next row, the last as
long as the one before it. Energy per interval, labels at the end, a time zone, a long table, another year and
a rule for gaps are for series with intervals of one length, the most frequent step; rows may then stand in
any order, and each interval that has no value is a gap.

**Time zones.** The clock of a run is that of the wall, with 24 hours every day. Wall times of a zone are
resolved to UTC: of the hour that comes twice in autumn the rows that stand first are of summer time, the
others of standard time (where the rows of a series descend the other way round; in no order they are at
fault), or as a column of offsets says.
Times that stand once there, or three times, or in the hour that is skipped in spring, are faults. Then on the
run's clock the hour that comes twice is its first, the second is dropped, and over the hour that is skipped
the value before holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evgrid.core.model import Array, Clock
from evgrid.readers.faults import Faults, shown
from evgrid.readers.tables import AS_SHOWN, UNNAMED, Table, TableForm, mask_of
from evgrid.readers.times import EXAMPLE, read_times

Gaps = Literal["error", "hold", "interpolate", "same_hour"]
Select = Callable[[list[str], Faults], dict[str, str]]
"""Finds the wanted series among the names in the file: name wanted → name in the file; adds faults."""

UNITS_KW = {"W": 1e-3, "kW": 1.0, "MW": 1e3, "Wh": 1e-3, "kWh": 1.0, "MWh": 1e3}
"""kW of a unit; of energy per interval: kWh."""

_UNIT = re.compile(
    r"^(?P<name>.*?)(?:[\s_\-]*[\[(]\s*(?P<a>[kKmM]?[wW][hH]?)\s*[\])]|[\s_\-]+(?P<b>[kKmM][wW][hH]?|[wW][hH]))$"
)
_ZONED = (
    r"^(?P<time>\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)\s*"
    r"(?P<offset>[Zz]|[+-]\d{2}(?::?\d{2})?)$"
)
CLOCK_CHANGE = "; if clocks change then, state tz, the time zone"
_HOUR_S = 3600
_HOUR_US, _DAY_US, _WEEK_US = 3_600_000_000, 86_400_000_000, 7 * 86_400_000_000
_MOST_SLOTS = 50_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What is stated of a table of time series.

    time : columns of the time, joined by a blank; time_format : their form (:mod:`evgrid.readers.times`)
    timezone : zone of the run's local time; "": the times are the run's own
    times : clock of the file's times: local, with summer time; standard, the zone's without; utc
    offset : column of the times' offset from UTC; "": none
    label : whether a time is the begin or the end of its interval
    name, value : columns of a long table; "": a wide one
    year : year of the data that stands for the run's, shifted by whole weeks; None: the run's own
    gaps : rule for intervals without a value; None: error where intervals have one length
    unit : of all values, a key of :data:`UNITS_KW`; "": by the column's name, else kW
    scale : factor of all values
    names : pairs of a wanted series and its name in the file
    form : of the table
    """

    time: tuple[str, ...] = ("time",)
    time_format: str | None = None
    timezone: str = ""
    times: Literal["local", "standard", "utc"] = "local"
    offset: str = ""
    label: Literal["start", "end"] = "start"
    name: str = ""
    value: str = ""
    year: int | None = None
    gaps: Gaps | None = None
    unit: str = ""
    scale: float = 1.0
    names: tuple[tuple[str, str], ...] = ()
    form: TableForm = AS_SHOWN

    @property
    def label_of_time(self) -> str:
        """Name of the time in messages."""
        return " ".join(self.time)


AS_IT_IS = Reading()


@dataclass(slots=True)
class Account:
    """What was read, shifted, filled and dropped."""

    rows: int = 0
    sheets: Sequence[str] = ()
    series: int = 0
    unused: Sequence[str] = ()
    step_s: float = 0.0
    begin: str = ""
    end: str = ""
    unit: str = ""
    zone: str = ""
    dropped: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    filled: str = ""
    shifted: str = ""
    order: str = ""

    def sentence(self) -> str:
        """The account in words."""
        many = "s" * (self.series != 1)
        text = f"{self.rows} rows"
        if len(self.sheets) > 1:
            text += f" of {len(self.sheets)} sheets"
        parts = [f"{text} of {self.series} series read, {self.begin} to {self.end}" if many else
                 f"{text} read, {self.begin} to {self.end}"]  # fmt: skip
        if self.step_s:
            parts[0] += f", every {_duration(self.step_s)}"
        for given in (self.unit, self.zone, self.shifted):
            if given:
                parts.append(given)
        if self.dropped:
            parts.append(f"dropped: the second {', '.join(self.dropped)}, an hour that comes twice")
        if self.held:
            parts.append(f"held: the value before over {', '.join(self.held)}, an hour that is skipped")
        parts += [given for given in (self.filled, self.order) if given]
        if self.unused:
            few = ", ".join(shown(name) for name in self.unused[:5])
            more = f", … ({len(self.unused)} in all)" if len(self.unused) > 5 else ""
            parts.append(f"not used: {few}{more}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class TimeTable:
    """Values that hold over intervals.

    edges_s : (n + 1,) s from the run's start, ascending
    values : by wanted series (n,), in kW where they are power
    """

    edges_s: Array
    values: dict[str, Array]
    account: Account


def is_regular(reading: Reading, energy: bool) -> bool:
    """Whether the intervals must have one length: see the module."""
    return bool(
        energy
        or reading.timezone
        or reading.name
        or reading.gaps is not None
        or reading.year is not None
        or reading.label == "end"
    )


def time_table(
    table: Table,
    clock: Clock,
    reading: Reading,
    rule: str,
    select: Select,
    faults: Faults,
    power: bool = False,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> TimeTable | None:
    """The series of a table that ``select`` finds; None where ``faults`` holds any after it.

    rule : what a value must be, for messages; "a power in kW" becomes the file's own unit
    limits : smallest and largest value
    power : whether values are power or energy, with units
    """
    label = reading.label_of_time
    needed = (*reading.time, *(n for n in (reading.offset, reading.name, reading.value) if n))
    missing = [name for name in needed if name not in table]
    if missing:
        few = ", ".join(shown(one) for one in table.names[:10]) + (", …" if len(table.names) > 10 else "")
        faults.file(*(f"there is no column '{shown(name)}'; there are {few}" for name in missing))
        if reading.form.header == 1 and any(name.startswith(UNNAMED) for name in table.names):
            faults.file("the first line does not name all columns: state header, the line that does")
        return None
    own = {*reading.time, label, reading.offset, reading.name}
    columns = [name for name in table.names if name not in own]
    group, groups = np.zeros(len(table), np.int64), [""]
    if reading.name:
        faults.cells(table.empty(reading.name), reading.name, "must be the name of a series")
        groups, group = _groups(table, reading.name)
        found = _selected(select, groups, reading, faults)
        columns = [reading.value]
    else:
        found = _selected(select, columns, reading, faults)
        columns = list(dict.fromkeys(found.values()))
    factor, energy, unit = _units(columns, reading, faults) if power else ({}, False, "")
    if power:
        kind = "an energy" if energy else "a power"
        rule = rule.replace("a power in kW", f"{kind} {unit.partition(' (')[0]}")
    wanted = np.isin(group, [groups.index(name) for name in found.values()]) if reading.name else None
    times_s, offset_s = _times(table, reading, clock, faults)
    faults.cells(table.empty(label), label, f"must be a time such as {EXAMPLE}")
    values = dict(zip(columns, table.numbers(columns, faults, rule) if columns else [], strict=True))
    regular = is_regular(reading, energy)
    for name in columns:
        empty = table.empty(name)
        if wanted is not None:
            empty = empty & wanted
        if not regular and empty.any():  # else it is a gap
            faults.cells(empty, name, f"{rule}; state gaps to fill it")
        values[name] = values[name] * (factor.get(name, 1.0) * reading.scale)
        faults.cells((values[name] < limits[0]) | (values[name] > limits[1]), name, rule)
    if len(table) < 2:
        faults.file(f"has {len(table)} rows: must have a header and at least two rows")
    if faults:
        return None
    account = Account(
        len(table), [*table.sheets], len(found), unit=unit,
        unused=[n for n in (groups if reading.name else table.names)
                if n not in (*found.values(), *own)],
    )  # fmt: skip
    grid = _Grid(table, clock, reading, faults, account)
    if not regular:
        return grid.as_it_is(times_s, {name: values[column] for name, column in found.items()})
    if reading.name:
        order = np.argsort(group, kind="stable")
        bounds = np.searchsorted(group[order], np.arange(len(groups) + 1))
        place = {name: k for k, name in enumerate(groups)}
        series = {}
        for name, one in found.items():
            rows = order[bounds[place[one]] : bounds[place[one] + 1]]
            series[name] = rows, values[reading.value]
    else:
        every = np.arange(len(table))
        series = {name: (every, values[column]) for name, column in found.items()}
    return grid.regular(times_s, offset_s, group, series, energy)


def _groups(table: Table, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """The different cells of a column, in order, and which of them each row has; -1 where it is empty."""
    column = table.column(name)
    if not pa.types.is_large_string(column.type):
        column = pa.array([cell or None for cell in table.text(name)], pa.large_string())
    found = pc.dictionary_encode(column)
    group = pc.fill_null(found.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return found.dictionary.to_pylist(), group


def _selected(select: Select, names: list[str], reading: Reading, faults: Faults) -> dict[str, str]:
    """What ``select`` finds among names, of which some are known by another, and by their unit."""
    aliases = {one: wanted for wanted, one in reading.names}
    missing = [one for one in aliases if one not in names]
    where = f"column '{shown(reading.name)}' has" if reading.name else "there is"
    faults.file(*(f"names: {where} no '{shown(one)}'" for one in missing))
    seen = {aliases.get(name, name): name for name in names}
    return {wanted: seen[name] for wanted, name in select([*seen], faults).items()}


def bare_name(name: str) -> str:
    """The name of a column without its unit: ``House 7 (kWh)`` is ``House 7``."""
    found = _UNIT.match(name)
    return found["name"].strip() if found else name


def _unit_of(name: str) -> str:
    """The unit that a column's name holds; "" without one."""
    known = {unit.casefold(): unit for unit in UNITS_KW}
    found = _UNIT.match(name)
    if name.casefold() in known:
        return known[name.casefold()]
    return "" if found is None else known[(found["a"] or found["b"]).casefold()]


def _units(columns: list[str], reading: Reading, faults: Faults) -> tuple[dict[str, float], bool, str]:
    """Factor of each column to kW or kWh, whether it is energy, and the unit in words."""
    units = {name: _unit_of(name) or reading.unit for name in columns}
    for name, unit in units.items():
        if reading.unit and unit != reading.unit:
            faults.file(f"column '{shown(name)}' is in {unit} by its name: must be unit = {reading.unit}")
    found = {unit or "kW" for unit in units.values()}
    energy = {unit.endswith("h") for unit in found}
    if len(energy) > 1:
        faults.file(f"columns are in {' and '.join(sorted(found))}: must all be power, or all energy")
    stated = "stated" if reading.unit else "by the columns' names"
    if "" in units.values():
        stated = "as neither unit nor a column's name says another"
    factor = {name: UNITS_KW[unit or "kW"] for name, unit in units.items()}
    return factor, True in energy, f"in {' and '.join(sorted(found))} ({stated})"


# ---- times ----------------------------------------------------------------------------------------


def _times(table: Table, reading: Reading, clock: Clock, faults: Faults) -> tuple[Array, Array]:
    """Times as s from the run's start on the file's clock, and their offset from UTC, s, NaN where none is
    stated; a time of UTC has 0.
    """
    label = reading.label_of_time
    if len(reading.time) > 1:
        texts = [table.text(name) for name in reading.time]
        if pa.types.is_temporal(table.column(reading.time[0]).type):
            texts[0] = [cell[:10] for cell in texts[0]]
        else:
            texts[0] = [re.sub(r"^(\d{4}-\d{2}-\d{2})[T ]00:00:00$", r"\1", cell) for cell in texts[0]]
        joined = [" ".join(cells) if all(cells) else None for cells in zip(*texts, strict=True)]
        table.add(label, pa.array(joined, pa.large_string()))
    offset_s = np.full(len(table), np.nan)
    if reading.timezone:
        column = table.column(label)
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            table.add(label, pc.cast(pc.cast(column, pa.timestamp("us", "UTC")), pa.timestamp("us")))
            offset_s[:] = 0.0
        elif pa.types.is_large_string(column.type) and reading.time_format is None:
            zoned = mask_of(pc.match_substring_regex(column, _ZONED))
            if zoned.any():
                parts = pc.extract_regex(column, _ZONED)
                offset_s = np.array([_seconds_of(cell) for cell in parts.field("offset").to_pylist()])
                table.add(label, pc.if_else(pa.array(zoned), parts.field("time"), column))
    times_s = read_times(table, [label], clock.start, reading.time_format, faults)[0]
    if reading.offset:
        offset_s = _offsets(table, reading, faults)
    elif reading.times == "utc":
        offset_s = np.where(np.isnan(offset_s), 0.0, offset_s)
    return times_s, offset_s


def _seconds_of(cell: str | None) -> float:
    """An offset from UTC such as +02:00 or Z, s; NaN for what is none."""
    if cell and cell.upper() in ("Z", "UTC", "GMT"):
        return 0.0
    found = re.fullmatch(r"(?:UTC|GMT)?([+-]?)(\d{1,2})(?::?(\d{2}))?(?::00)?", cell or "")
    if found is None:
        return float("nan")
    seconds = 3600.0 * int(found[2]) + 60.0 * int(found[3] or 0)
    return -seconds if found[1] == "-" else seconds


def _offsets(table: Table, reading: Reading, faults: Faults) -> Array:
    """The column of offsets, s: +02:00, 2, UTC+1, or the zone's short names, such as CEST."""
    zone = ZoneInfo(reading.timezone)
    short = {}
    for month in (1, 7):
        moment = datetime(2024, month, 1, tzinfo=zone)
        short[moment.tzname()] = (moment.utcoffset() or timedelta()).total_seconds()
    cells = table.text(reading.offset)
    found = np.array([short[c] if c in short else _seconds_of(c) for c in cells], np.float64)
    names = " or ".join(str(name) for name in short)
    faults.cells(np.isnan(found), reading.offset, f"must be an offset from UTC, such as +01:00, or {names}")
    return found


def _utc(local: NDArray[np.int64], zone: str, summer: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Wall times in UTC, µs since 1970 each; the least number for those that there are not."""
    index = pd.DatetimeIndex(local.astype("datetime64[us]"))
    found = index.tz_localize(zone, ambiguous=summer, nonexistent="NaT").tz_convert("UTC").tz_localize(None)
    return np.asarray(found.as_unit("us").asi8)


def _wall(utc: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """UTC as wall times, µs since 1970 each."""
    index = pd.DatetimeIndex(utc.astype("datetime64[us]")).tz_localize("UTC")
    return np.asarray(index.tz_convert(zone).tz_localize(None).as_unit("us").asi8)


def _order(wall: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order of the rows of each group, (group,): 1 where they rise, -1 where they fall, 0 where neither."""
    by_group = np.argsort(group, kind="stable")
    of, change = group[by_group][1:], np.diff(wall[by_group])
    change[np.diff(group[by_group]) != 0] = 0
    rises, falls = (np.bincount(of[sign], minlength=group.max() + 1) for sign in (change > 0, change < 0))
    return np.where(rises >= 3 * falls, 1, np.where(falls >= 3 * rises, -1, 0))


def _stamp(us: int) -> str:
    return str(np.datetime64(int(us), "us").astype("datetime64[s]"))[:16]


def _duration(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds % length == 0 and seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


# ---- intervals ------------------------------------------------------------------------------------


class _Grid:
    """The intervals of a table."""

    def __init__(
        self, table: Table, clock: Clock, reading: Reading, faults: Faults, account: Account
    ) -> None:
        self._table, self._clock, self._reading = table, clock, reading
        self._faults, self._account = faults, account
        self._start_us = int(clock.start.astype("datetime64[us]").astype(np.int64))
        self._zone = reading.timezone
        self._gaps: list[str] = []

    def as_it_is(self, times_s: Array, values: Mapping[str, Array]) -> TimeTable | None:
        """Each value until the next row."""
        steps = np.diff(times_s)
        later = np.append(True, steps > 0)
        back = f"time must be after the {self._table.place} before"
        if not self._zone and len(steps) and -_HOUR_S < steps.min() <= 0:
            back += CLOCK_CHANGE
        self._faults.rows(~later, back)
        if self._faults:
            return None
        account, usual = self._account, float(np.median(steps))
        longer = steps > usual * (1 + 1e-9)
        edges_s = np.append(times_s, 2 * times_s[-1] - times_s[-2])
        account.begin, account.end = (self._clock.stamp(float(t))[:16] for t in (edges_s[0], edges_s[-1]))
        if (steps == usual).all():
            account.step_s = usual
        elif longer.sum() < 0.1 * len(steps):
            account.filled = (
                f"{int(longer.sum())} steps longer than {_duration(usual)}, the longest "
                f"{_duration(float(steps.max()))}, over which the value before holds (state gaps)"
            )
        return TimeTable(edges_s, dict(values), account)

    def regular(
        self, times_s: Array, offset_s: Array, group: NDArray[np.int64],
        series: Mapping[str, tuple[NDArray[np.int64], Array]], energy: bool,
    ) -> TimeTable | None:  # fmt: skip
        """Values over intervals of one length."""
        wall = self._start_us + np.round(times_s * 1e6).astype(np.int64)
        change = np.diff(wall)
        falling = int((change < 0).sum()) > int((change > 0).sum())
        utc = self._resolved(wall, offset_s, group)
        if self._faults or utc is None:
            return None
        moments = np.unique(utc)
        if len(moments) < 2:
            self._faults.file("has one time only: must have at least two")
            return None
        steps, count = np.unique(np.diff(moments), return_counts=True)
        step = int(steps[count.argmax()])
        if self._zone and self._reading.times == "local" and step > _HOUR_US:
            self._faults.file(
                f"has intervals of {_duration(step / 1e6)}: must be at most 1 h with tz, unless times is "
                "standard or utc"
            )
            return None
        if self._reading.label == "end":
            utc = utc - step
        placed = self._placed(utc, step, group, series)
        if placed is None:
            return None
        begin, values = placed
        if energy:
            values = {name: of / (step / _HOUR_US) for name, of in values.items()}
        if (change < 0).any() and not (self._zone or self._reading.name or falling):
            self._account.order = "rows were not in the order of time, and are sorted"
        self._account.step_s = step / 1e6
        begin, values = self._on_the_wall(begin, step, values)
        begin, values = self._of_another_year(begin, step, values)
        edges_s = (np.append(begin, begin[-1] + step) - self._start_us) / 1e6
        account = self._account
        account.begin, account.end = (self._clock.stamp(float(t))[:16] for t in (edges_s[0], edges_s[-1]))
        return TimeTable(edges_s, values, account)

    def _resolved(
        self, wall: NDArray[np.int64], offset_s: Array, group: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """The times in UTC, or, without a zone, as they are; µs since 1970."""
        reading, stated = self._reading, np.isfinite(offset_s)
        if not self._zone:
            return wall
        if reading.times == "standard":
            first = datetime.fromisoformat(_stamp(int(wall.min()))[:4] + "-01-01").replace(
                tzinfo=ZoneInfo(self._zone)
            )
            summer = max(first.dst() or timedelta(), timedelta())  # of Ireland's winter time it is -1 h
            own = (first.utcoffset() or timedelta()) - summer
            offset_s, stated = np.where(stated, offset_s, own.total_seconds()), np.ones_like(stated)
        utc = wall - np.where(stated, offset_s * 1e6, 0).astype(np.int64)
        if reading.offset and reading.times == "local":
            odd = stated & (_wall(utc, self._zone) != wall)
            cells = self._table.text(reading.offset)
            self._faults.rows(
                odd,
                lambda row: (
                    f"{reading.label_of_time} = {_stamp(int(wall[row]))} with {reading.offset} = "
                    f"{shown(cells[row])}: {self._zone} has another offset then"
                ),
            )
        rest = np.flatnonzero(~stated)
        if not len(rest):
            return utc
        attempts = [0]
        if reading.label == "end":  # 3:00 that ends the first of two hours, in exports that subtract no zone
            steps, count = np.unique(np.diff(np.unique(wall)), return_counts=True)
            if len(steps):
                attempts.append(int(steps[count.argmax()]))
        faults: list[tuple[list[int], list[str]]] = []
        for shift in attempts:
            found, rows, reasons = self._of_wall(wall[rest] - shift, group[rest])
            if not rows:
                utc[rest] = found + shift
                return utc
            faults.append((rows, reasons))
        rows, reasons = faults[0]
        by_row = dict(zip(rest[rows].tolist(), reasons, strict=True))
        self._faults.rows(sorted(by_row), lambda row: by_row[row])
        return None

    def _of_wall(
        self, wall: NDArray[np.int64], group: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[int], list[str]]:
        """Wall times in UTC, and rows at fault with their reasons."""
        every = np.ones(len(wall), np.bool_)
        early, late = _utc(wall, self._zone, every), _utc(wall, self._zone, ~every)
        label, zone = self._reading.label_of_time, self._zone
        none = early == np.iinfo(np.int64).min
        rows = np.flatnonzero(none).tolist()
        reasons = [
            f"{label} = {_stamp(int(wall[row]))}: there is no such time in {zone}, whose clocks skip it"
            for row in rows
        ]
        twice = np.flatnonzero((early != late) & ~none)
        utc = early.copy()
        if len(twice):
            keys = pd.DataFrame({"group": group[twice], "wall": wall[twice]}).groupby(["group", "wall"])
            number = keys.cumcount().to_numpy()
            count = keys["wall"].transform("size").to_numpy()
            order = _order(wall, group)[group[twice]]
            second = number == np.where(order < 0, 0, 1)
            utc[twice[second]] = late[twice[second]]
            for row, times, sorted_as in zip(twice.tolist(), count.tolist(), order.tolist(), strict=True):
                if times == 2 and sorted_as:
                    continue
                words = "once" if times == 1 else "twice, in no order" if times == 2 else f"{times} times"
                rows.append(row)
                reasons.append(
                    f"{label} = {_stamp(int(wall[row]))} is there {words}: in {zone} it comes twice then; "
                    "give offset, or times: standard"
                )
        return utc, rows, reasons

    def _placed(
        self, utc: NDArray[np.int64], step: int, group: NDArray[np.int64],
        series: Mapping[str, tuple[NDArray[np.int64], Array]],
    ) -> tuple[NDArray[np.int64], dict[str, Array]] | None:  # fmt: skip
        """Begin of each interval, and the values, without gaps."""
        reading, faults, label = self._reading, self._faults, self._reading.label_of_time
        used = np.zeros(len(utc), np.bool_)
        for rows, _ in series.values():
            used[rows] = True
        rest = (utc - utc.min()) % step
        shown_as = self._table.text(label) if len(np.unique(rest[used])) > 1 else []
        kinds, count = np.unique(rest[used], return_counts=True)
        usual = int(kinds[count.argmax()])
        faults.rows(
            used & (rest != usual),
            lambda row: (
                f"{label} = {shown(shown_as[row])}: must be a whole number of {_duration(step / 1e6)} away"
            ),
        )
        frame = pd.DataFrame({"group": group, "utc": utc})
        again = np.flatnonzero(used & frame.duplicated().to_numpy())

        def twice(row: int) -> str:
            of = f" for {shown(self._table.text(reading.name)[row])}" if reading.name else ""
            return f"{label} = {shown(self._table.text(label)[row])}: is there twice{of}"

        moments = np.unique(utc[again])
        hour = len(moments) * step == _HOUR_US and moments[-1] - moments[0] + step == _HOUR_US
        if hour and not self._zone:
            others = f", and so are {len(again) - 1} other {self._table.place}s of that hour"
            faults.rows(again[:1], lambda row: twice(row) + others * (len(again) > 1) + CLOCK_CHANGE)
        else:
            faults.rows(again, twice)
        if faults:
            return None
        first, last = int(utc[used].min()), int(utc[used].max())
        slots = (last - first) // step + 1
        if slots * max(len(series), 1) > _MOST_SLOTS or slots > 1000 + 100 * int(used.sum()):
            faults.file(
                f"covers {_stamp(first)} to {_stamp(last + step)} with {int(used.sum())} rows every "
                f"{_duration(step / 1e6)}: most of it is missing; is a year mistyped?"
            )
            return None
        begin = first + step * np.arange(slots, dtype=np.int64)
        values = {}
        missing, longest, touched = 0, 0, 0
        for name, (rows, of) in series.items():
            grid = np.full(slots, np.nan)
            grid[(utc[rows] - first) // step] = of[rows]
            absent = np.isnan(grid)
            if absent.any():
                touched += 1
                missing += int(absent.sum())
                longest = max(longest, _longest(absent))
                empty = rows[np.isnan(of[rows])]
                rows_of = dict(zip(((utc[empty] - first) // step).tolist(), empty.tolist(), strict=True))
                grid = self._filled(grid, absent, begin, step, name, rows_of)
            values[name] = grid
        faults.file(*self._gaps)
        if faults:
            return None
        if missing:
            of_series = f" of {touched} series" if len(series) > 1 else ""
            self._account.filled = (
                f"filled by {reading.gaps}: {missing} missing values{of_series}, at most "
                f"{_duration(longest * step / 1e6)} in a row"
            )
        return begin, values

    def _filled(
        self, values: Array, absent: NDArray[np.bool_], begin: NDArray[np.int64], step: int, name: str,
        rows_of: Mapping[int, int],
    ) -> Array:  # fmt: skip
        """A series without gaps, by the rule; ``rows_of``: rows with an empty cell, by their interval."""
        rule = self._reading.gaps or "error"
        of = f"{shown(name)}: " if name else ""
        starts = np.flatnonzero(absent & ~np.append(False, absent[:-1]))
        ends = np.flatnonzero(absent & ~np.append(absent[1:], False)) + 1
        spans = list(zip(starts.tolist(), ends.tolist(), strict=True))

        def local(at: int) -> str:
            us = np.array([begin[0] + at * step])
            return _stamp(int((_wall(us, self._zone) if self._zone else us)[0]))

        if rule == "error":
            for a, b in spans:
                cell = (
                    f" ({self._table.place} {self._table.line(rows_of[a])} is empty)" if a in rows_of else ""
                )
                self._gaps.append(
                    f"{of}gap of {_duration((b - a) * step / 1e6)} from {local(a)} to {local(b)}{cell}: fill "
                    "it, or state gaps: hold, interpolate or same_hour"
                )
            return values
        known = np.flatnonzero(~absent)
        if not len(known):
            self._faults.file(f"{of}has no value")
            return values
        if rule == "same_hour":
            return self._same_hour(values, absent, begin, of, local)
        at_end = [(a, b) for a, b in spans if a == 0 or (rule == "interpolate" and b == len(values))]
        self._faults.file(
            *(
                f"{of}gap of {_duration((b - a) * step / 1e6)} from {local(a)} to {local(b)}, at an end of "
                f"the file: gaps = {rule} has no value {'before' if a == 0 else 'after'} it; state same_hour"
                for a, b in at_end
            )
        )
        places = np.arange(len(values))
        if rule == "interpolate":
            return np.asarray(np.interp(places, known, values[known]))
        return np.asarray(values[known[np.maximum(np.searchsorted(known, places, "right") - 1, 0)]])

    def _same_hour(
        self, values: Array, absent: NDArray[np.bool_], begin: NDArray[np.int64], of: str,
        local: Callable[[int], str],
    ) -> Array:  # fmt: skip
        """Gaps by the value of the same time on the nearest day before that has one, else after."""
        time_of_day = (_wall(begin, self._zone) if self._zone else begin) % _DAY_US
        filled, known = values.copy(), dict[int, NDArray[np.int64]]()
        for at in np.flatnonzero(absent).tolist():
            time = int(time_of_day[at])
            if time not in known:
                known[time] = np.flatnonzero((time_of_day == time) & ~absent)
            same = known[time]
            if not len(same):
                self._faults.file(
                    f"{of}no day has a value at the time of {local(at)}: same_hour can't fill it"
                )
                return values
            filled[at] = values[same[max(int(np.searchsorted(same, at)) - 1, 0)]]
        return filled

    def _on_the_wall(
        self, begin: NDArray[np.int64], step: int, values: dict[str, Array]
    ) -> tuple[NDArray[np.int64], dict[str, Array]]:
        """The intervals on the run's clock, where it is that of a zone."""
        if not self._zone:
            return begin, values
        wall = _wall(begin, self._zone)
        before = np.maximum.accumulate(np.append(np.iinfo(np.int64).min, wall[:-1]))
        kept = wall > before
        account = self._account
        clock = {"local": "", "standard": "standard time of ", "utc": "UTC, on the clock of "}
        account.zone = f"times of {clock[self._reading.times]}{self._zone}"
        for run in _runs(~kept):
            account.dropped.append(f"{_stamp(int(wall[run[0]]))} ({len(run)} rows)")
        wall = wall[kept]
        for at in np.flatnonzero(np.diff(wall) > step).tolist():
            account.held.append(_stamp(int(wall[at]) + step))
        return wall, {name: of[kept] for name, of in values.items()}

    def _of_another_year(
        self, begin: NDArray[np.int64], step: int, values: dict[str, Array]
    ) -> tuple[NDArray[np.int64], dict[str, Array]]:
        """The intervals shifted by whole weeks from the stated year to the run's."""
        year = self._reading.year
        if year is None:
            return begin, values
        date = self._clock.start.astype("datetime64[D]").item()
        there = date.replace(year=year, day=28 if (date.month, date.day) == (2, 29) else date.day)
        weeks = round((date - there).days / 7)
        begin = begin + weeks * _WEEK_US
        self._account.shifted = f"{year} stands for {date.year}, shifted by {weeks} weeks, so weekdays agree"
        end_us = self._start_us + round(self._clock.duration_s * 1e6)
        if (begin[-1] - begin[0]) >= _WEEK_US:
            week = _WEEK_US // step if _WEEK_US % step == 0 else 0
            after = begin[-week:] + _WEEK_US if week and begin[-1] + step < end_us else begin[:0]
            before = begin[:week] - _WEEK_US if week and begin[0] > self._start_us else begin[:0]
            after = after[(after > begin[-1]) & (after < end_us)]
            before = before[(before < begin[0]) & (before + step > self._start_us)]
            if len(after) or len(before):
                n, m = len(before), len(after)
                values = {
                    name: np.concatenate([of[week - n : week] if n else of[:0], of,
                                          of[len(of) - week :][:m] if m else of[:0]])
                    for name, of in values.items()
                }  # fmt: skip
                begin = np.concatenate([before, begin, after])
                self._account.shifted += (
                    f", and {_duration((n + m) * step / 1e6)} at the ends are those of a week away"
                )
        return begin, values


def _longest(mask: NDArray[np.bool_]) -> int:
    return max((len(run) for run in _runs(mask)), default=0)


def _runs(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Positions of each run of true values."""
    at = np.flatnonzero(mask)
    return [run for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(run)]
