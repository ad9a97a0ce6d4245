"""Sessions from a file: a CSV or Parquet table with a row a session.

| column | what | if left out |
|---|---|---|
| ev | name of the EV | must be there |
| connection | name of its connection point | must be there |
| arrival, departure | local timestamps (ISO 8601, without a zone), or s from the start | must be there |
| soc_arrival | state of charge at arrival, 0 to 1 | from energy_kwh |
| energy_kwh | energy at the EVSE's meter that the driver asks for by departure | from the states of charge |
| soc_target | state of charge wanted by departure | see below |
| capacity_kwh | usable capacity, kWh | the scenario's vehicle |
| charge_kw (or power_kw) | most that is drawn, kW | the lesser of the scenario's charger and vehicle |
| discharge_kw | most that is given back, kW | 0 |
| soc_floor, charge_efficiency, discharge_efficiency | as in the scenario | the scenario's vehicle |
| phase | a, b, c or abc | that of the connection, or as for the scenario's charger |
| member | number of the member | every member has the session |
| drive_kwh | energy out of the battery since the EV's last session | soc_arrival is taken as it is |
| vehicle | name of the vehicle type, for results | vehicle |
| chemistry | nmc or lfp, by which the battery ages | the shipped type's, else the scenario's vehicle's |

Of an EV with an earlier session in the run and a ``drive_kwh``, the run carries the state of charge over,
and what is read as ``soc_arrival`` holds only for its first.

An empty cell is a value left out. Of soc_arrival, energy_kwh and soc_target two determine the third.
With soc_arrival alone the target is the vehicle's; with energy_kwh alone the energy ends where
the taper begins, or at a full battery if it is more than that leaves room for.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evgrid.errors import ScenarioError
from evgrid.fleet.degradation import CHEMISTRIES
from evgrid.fleet.sessions import (
    ONE_TYPE,
    TEXTS,
    Sessions,
    charger_phases,
    constant_efficiency,
    ev_draws,
    within_run,
)
from evgrid.model import ALL_PHASES, Array, Connections, EVs
from evgrid.scenario import Scenario
from evgrid.vehicles import chemistries

REQUIRED = ("ev", "connection", "arrival", "departure")
OPTIONAL = (
    "soc_arrival", "energy_kwh", "soc_target", "capacity_kwh", "charge_kw", "power_kw", "discharge_kw",
    "soc_floor", "charge_efficiency", "discharge_efficiency", "phase", "member",
    "drive_kwh", "vehicle", "chemistry",
)  # fmt: skip
_PHASES = {"a": 0, "b": 1, "c": 2, "abc": ALL_PHASES}
_ROUNDING = 1e-9
"""Excess of a computed state of charge over 1 that is taken as rounding in the file."""


def read_sessions(path: str | Path, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
    """Read the EVs and their sessions from a file; see the module's text for the columns.

    EVs stand in the order in which they first appear in the file, members one after the other.
    Rows of members that the run doesn't compute are passed over. Sessions outside the run are
    left out and counted (``Sessions.left_out``); a session under way at the start is cut as in
    :func:`evgrid.fleet.sessions.within_run`.

    Raises
    ------
    ScenarioError
        With every fault of the file, each with its line (the header is line 1) or, in a Parquet
        file, its row (the first is row 1).

    """
    path = Path(path)
    place = "line"
    if path.suffix.lower() in (".parquet", ".pq"):
        frame, lines = _read_parquet(path)
        place = "row"
    else:
        frame, lines = _read_csv(path)
    return _Table(frame, lines, place, str(path), scenario, connections).tables()


def tables_of(
    frame: pd.DataFrame, source: str, scenario: Scenario, connections: Connections
) -> tuple[EVs, Sessions]:
    """Like :func:`read_sessions`, of a table in memory; ``source`` is what faults name."""
    return _Table(frame, np.arange(1, len(frame) + 1), "row", source, scenario, connections).tables()


class _Table:
    """A session file while it is being read: columns as they are found good, and faults."""

    def __init__(
        self, frame: pd.DataFrame, line: NDArray[np.int64], place: str, source: str, scenario: Scenario,
        connections: Connections,
    ) -> None:  # fmt: skip
        self.frame, self.line, self.place, self.source = frame, line, place, source
        self.scenario, self.connections = scenario, connections
        self.faults: list[tuple[int, str]] = []  # row, sentence
        self._check_columns()

    def _check_columns(self) -> None:
        known = (*REQUIRED, *OPTIONAL)
        faults = [f"column {name} is missing" for name in REQUIRED if name not in self.frame]
        if "soc_arrival" not in self.frame and "energy_kwh" not in self.frame:
            faults.append("column soc_arrival or energy_kwh is missing")
        for name in self.frame:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
                faults.append(f"column {name} is unknown; {hint}")
        if "charge_kw" in self.frame and "power_kw" in self.frame:
            faults.append("columns charge_kw and power_kw mean the same; give one")
        if not faults and self.frame.empty:
            faults.append("holds no sessions")
        if faults:
            raise ScenarioError(faults, self.source)

    def tables(self) -> tuple[EVs, Sessions]:
        """The EVs and sessions of all members of the run, or all faults."""
        columns = self._columns()
        connection = self._connection()
        name = self.frame["ev"].astype(str).str.strip()
        for row in _rows(self._empty("ev")):
            self._fault(row, "ev is empty: every session needs the name of its EV")
        phase = self._phase(connection)
        member = self._member()
        vehicle, chemistry = self._vehicle()
        self._check_evs(name, member, connection, phase, chemistry)
        self._check_overlaps(name, member, columns)
        if self.faults:
            sentences = [f"{self.place} {self.line[row]}: {text}" for row, text in sorted(self.faults)]
            raise ScenarioError(sentences, self.source)
        texts = {"vehicle": vehicle, "chemistry": chemistry}
        return self._assemble(name.to_numpy(), member, connection, phase, columns | texts)

    # --- columns ---

    def _columns(self) -> dict[str, Array]:
        """All numbers of the sessions, defaults filled in."""
        fleet = self.scenario.fleet
        assert fleet is not None
        vehicle, charger = fleet.vehicle, fleet.charger
        result = {
            "capacity_kwh": self._number("capacity_kwh", vehicle.capacity_kwh, above=0),
            "charge_kw": self._number(
                "power_kw" if "power_kw" in self.frame else "charge_kw",
                min(charger.power_kw, vehicle.charge_kw), above=0,
            ),
            "discharge_kw": self._number("discharge_kw", 0.0, least=0),
            "soc_floor": self._number("soc_floor", vehicle.soc_floor, least=0, most=1),
            "charge_efficiency": self._number(
                "charge_efficiency", vehicle.charge_efficiency, above=0, most=1
            ),
            "discharge_efficiency": self._number(
                "discharge_efficiency", vehicle.discharge_efficiency, above=0, most=1
            ),
            "drive_kwh": self._number("drive_kwh", np.nan, least=0),
            "arrival_s": self._time("arrival"),
            "departure_s": self._time("departure"),
        }  # fmt: skip
        for row in _rows(result["departure_s"] <= result["arrival_s"]):
            self._fault(
                row,
                f"departure = {self.frame['departure'].iloc[row]}: must be after the arrival, "
                f"{self.frame['arrival'].iloc[row]}",
            )
        self._soc(result, vehicle.soc_target, vehicle.taper_soc)
        return result

    def _soc(self, result: dict[str, Array], usual_target: float, taper: float) -> None:
        """State of charge at arrival and target, from two of arrival, target and energy."""
        arrival = self._number("soc_arrival", np.nan, least=0, most=1)
        target = self._number("soc_target", np.nan, least=0, most=1)
        energy = self._number("energy_kwh", np.nan, least=0)
        has_arrival, has_target = ~self._empty("soc_arrival"), ~self._empty("soc_target")
        has_energy = ~self._empty("energy_kwh")
        efficiency, capacity = result["charge_efficiency"], result["capacity_kwh"]
        gain = energy * efficiency / capacity
        for row in _rows(~has_arrival & ~has_energy):
            self._fault(row, "soc_arrival and energy_kwh are empty: give one of them")
        for row in _rows(has_arrival & has_target & has_energy):
            self._fault(row, "give two of soc_arrival, soc_target and energy_kwh: two determine the third")
        alone = np.where(gain <= taper, taper, 1.0)
        target = np.where(has_target, target, np.where(has_arrival, arrival + gain, alone))
        target = np.where(has_arrival & ~has_target & ~has_energy, usual_target, target)
        arrival = np.where(has_arrival, arrival, target - gain)
        too_much = has_energy & ((target > 1 + _ROUNDING) | (arrival < -_ROUNDING))
        for row in _rows(too_much):
            room = target[row] if has_target[row] else 1.0 - (arrival[row] if has_arrival[row] else 0.0)
            self._fault(
                row,
                f"energy_kwh = {energy[row]:g}: the battery takes at most "
                f"{room * capacity[row] / efficiency[row]:.4g} kWh at the meter "
                f"({room:.4g} of {capacity[row]:g} kWh, efficiency {efficiency[row]:g})",
            )
        result["soc_arrival"], result["soc_target"] = np.clip(arrival, 0, 1), np.clip(target, 0, 1)

    def _empty(self, column: str) -> NDArray[np.bool_]:
        """Rows in which a column is left out."""
        if column not in self.frame:
            return np.ones(len(self.frame), np.bool_)
        values = self.frame[column]
        return np.asarray(values.isna() | (values.astype(str).str.strip() == ""), np.bool_)

    def _number(
        self, column: str, default: float, above: float | None = None,
        least: float | None = None, most: float | None = None,
    ) -> Array:  # fmt: skip
        """A column of numbers; bad cells are faults and become the default or NaN."""
        empty = self._empty(column)
        if empty.all():
            return np.full(len(self.frame), default)
        values = self.frame[column]
        numbers = pd.to_numeric(values.where(~empty), errors="coerce").to_numpy(np.float64)
        unreadable = ~empty & ~np.isfinite(numbers)
        limits = []
        bad = np.zeros(len(numbers), np.bool_)
        if above is not None:
            limits.append(f"above {above:g}")
            bad |= numbers <= above
        if least is not None:
            limits.append(f"at least {least:g}")
            bad |= numbers < least
        if most is not None:
            limits.append(f"at most {most:g}")
            bad |= numbers > most
        for row in _rows(unreadable):
            self._fault(row, f"{column} = {values.iloc[row]}: must be a number")
        for row in _rows(bad & ~unreadable):
            self._fault(row, f"{column} = {values.iloc[row]}: must be {' and '.join(limits)}")
        return np.where(empty | unreadable | bad, default, numbers)

    def _time(self, column: str) -> Array:
        """A column of times, s from the start of the run; bad cells are faults and become NaN."""
        values, start = self.frame[column], pd.Timestamp(self.scenario.start)
        if isinstance(values.dtype, pd.DatetimeTZDtype):
            for row in range(len(values)):
                self._fault(row, f"{column} = {values.iloc[row]}: must be local time without a zone")
            return np.full(len(values), np.nan)
        empty = self._empty(column)
        if pd.api.types.is_datetime64_dtype(values):
            seconds = (values - start).dt.total_seconds().to_numpy(np.float64)
            zoned = np.zeros(len(values), np.bool_)
        else:
            text = values.astype(str).str.strip()
            seconds = pd.to_numeric(text.where(~empty), errors="coerce").to_numpy(np.float64)
            zoned = text.str.contains(r"\d:\d.*(?:[zZ]|[+-]\d\d:?\d\d)$", regex=True).to_numpy(np.bool_)
            stamps = pd.to_datetime(
                text.where(~empty & ~zoned & np.isnan(seconds)), format="ISO8601", errors="coerce"
            )
            from_stamp = (stamps - start).dt.total_seconds().to_numpy(np.float64)
            seconds = np.where(np.isnan(seconds), from_stamp, seconds)
        for row in _rows(empty):
            self._fault(row, f"{column} is empty: every session needs one")
        for row in _rows(zoned):
            self._fault(row, f"{column} = {values.iloc[row]}: must be local time without a zone")
        for row in _rows(~empty & ~zoned & ~np.isfinite(seconds)):
            self._fault(
                row,
                f"{column} = {values.iloc[row]}: must be a time such as 2026-01-15T18:30, or seconds from "
                "the start",
            )
        return np.where(np.isfinite(seconds), seconds, np.nan)

    def _connection(self) -> NDArray[np.int64]:
        """Position of each session's connection point; -1 where it is at fault."""
        names = [str(name) for name in self.connections.name]
        position = {name: i for i, name in enumerate(names)}
        text = self.frame["connection"].astype(str).str.strip()
        found = text.map(position).fillna(-1).to_numpy(np.int64)
        empty = self._empty("connection")
        hints: dict[str, str] = {}
        for row in _rows(found < 0):
            if empty[row]:
                self._fault(row, "connection is empty: every session needs one")
                continue
            value = text.iloc[row]
            if value not in hints:
                near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
                hints[value] = f"did you mean {near[0]}?" if near else f"it has {_few(names)}"
            self._fault(row, f"connection = {value}: the feeder has no such connection point; {hints[value]}")
        return np.asarray(found, np.int64)

    def _phase(self, connection: NDArray[np.int64]) -> NDArray[np.int8]:
        """Phase of each session's charger as given: 0 to 2, ALL_PHASES, or -2 where left to us."""
        fleet, connections = self.scenario.fleet, self.connections
        assert fleet is not None
        phase = np.full(len(self.frame), -2, np.int8)
        empty = self._empty("phase")
        balanced = len(connections.phases) == 1
        own = np.where(connection >= 0, connections.phase[connection], ALL_PHASES)
        for row in _rows(~empty):
            value = str(self.frame["phase"].iloc[row]).strip().lower()
            if value not in _PHASES:
                self._fault(row, f"phase = {value}: must be a, b, c or abc")
                continue
            phase[row] = _PHASES[value]
            if not balanced and own[row] != ALL_PHASES and phase[row] != own[row]:
                self._fault(row, f"phase = {value}: connection {self._text(row, 'connection')} has phase "
                                 f"{connections.phases[own[row]]} only")  # fmt: skip
        if fleet.charger.phases == 3 and not balanced:
            for row in _rows(empty & (own != ALL_PHASES)):
                self._fault(
                    row,
                    f"fleet.charger.phases = 3: connection {self._text(row, 'connection')} has phase "
                    f"{connections.phases[own[row]]} only; give a phase",
                )
        return phase

    def _vehicle(self) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
        """Name of each session's vehicle type, and the chemistry of its battery."""
        fleet = self.scenario.fleet
        assert fleet is not None
        given = [np.full(len(self.frame), "", object) for _ in TEXTS]
        for values, column in zip(given, TEXTS, strict=True):
            named = ~self._empty(column)
            if named.any():
                values[named] = self.frame[column].astype(str).str.strip().to_numpy(object)[named]
        vehicle = np.where(given[0] == "", ONE_TYPE, given[0]).astype(np.str_)
        chemistry = np.char.lower(given[1].astype(np.str_))
        for row in _rows(~np.isin(chemistry, ("", *CHEMISTRIES))):
            self._fault(row, f"chemistry = {given[1][row]}: must be {' or '.join(CHEMISTRIES)}")
        usual = chemistries(vehicle, fleet.vehicle.chemistry)
        return vehicle, np.where(chemistry == "", usual, chemistry)

    def _member(self) -> NDArray[np.int64] | None:
        """Number of each session's member, or None where every member has every session."""
        if "member" not in self.frame:
            return None
        numbers = self._number("member", -1.0, least=0)
        for row in _rows(self._empty("member")):
            self._fault(row, "member is empty: give every session a member, or drop the column")
        for row in _rows(numbers != np.floor(numbers)):
            self._fault(row, f"member = {self._text(row, 'member')}: must be a whole number")
        return numbers.astype(np.int64)

    def _text(self, row: int, column: str) -> str:
        return str(self.frame[column].iloc[row]).strip()

    def _fault(self, row: int, text: str) -> None:
        self.faults.append((row, text))

    # --- rows together ---

    def _keys(self, name: Any, member: NDArray[np.int64] | None) -> pd.DataFrame:
        return pd.DataFrame({"member": 0 if member is None else member, "ev": np.asarray(name)})

    def _check_evs(
        self, name: Any, member: NDArray[np.int64] | None, connection: NDArray[np.int64],
        phase: NDArray[np.int8], chemistry: NDArray[np.str_],
    ) -> None:  # fmt: skip
        """An EV has one connection, one phase and one battery."""
        keys = self._keys(name, member)
        first = keys.assign(row=np.arange(len(keys))).groupby(["member", "ev"])["row"].transform("first")
        first_row = first.to_numpy()
        usable = ~self._empty("ev") & (connection >= 0) & (connection[first_row] >= 0)
        for row in _rows(usable & (connection != connection[first_row])):
            self._fault(
                row,
                f"connection = {self._text(row, 'connection')}: EV {keys['ev'].iloc[row]} is at "
                f"{self._text(first_row[row], 'connection')} on {self.place} {self.line[first_row[row]]}; "
                "an EV has one connection",
            )
        for row in _rows(usable & (connection == connection[first_row]) & (phase != phase[first_row])):
            self._fault(
                row,
                f"phase differs from {self.place} {self.line[first_row[row]]}: EV {keys['ev'].iloc[row]} "
                "has one charger",
            )
        for row in _rows(~self._empty("ev") & (chemistry != chemistry[first_row])):
            self._fault(
                row,
                f"chemistry differs from {self.place} {self.line[first_row[row]]}: EV {keys['ev'].iloc[row]} "
                "has one battery",
            )

    def _check_overlaps(self, name: Any, member: NDArray[np.int64] | None, columns: dict[str, Array]) -> None:
        """The sessions of an EV follow one another."""
        frame = self._keys(name, member)
        frame["arrival"], frame["departure"] = columns["arrival_s"], columns["departure_s"]
        frame["row"] = np.arange(len(frame))
        frame = frame[~self._empty("ev") & (frame["departure"] > frame["arrival"])]
        frame = frame.sort_values(["member", "ev", "arrival", "row"])
        groups = frame.groupby(["member", "ev"], sort=False)
        before = groups["departure"].cummax().groupby([frame["member"], frame["ev"]]).shift()
        row_before = groups["row"].shift()
        bad = (frame["arrival"] < before).to_numpy()
        for row, other in zip(frame["row"][bad].tolist(), row_before[bad].tolist(), strict=True):
            self._fault(
                row,
                f"arrival = {self._text(row, 'arrival')}: EV {frame['ev'].loc[row]} is still plugged in from "
                f"{self.place} {self.line[int(other)]}; its sessions must not overlap",
            )

    def _assemble(
        self, name: NDArray[Any], member: NDArray[np.int64] | None, connection: NDArray[np.int64],
        phase: NDArray[np.int8], columns: dict[str, NDArray[Any]],
    ) -> tuple[EVs, Sessions]:  # fmt: skip
        """Tables of all members of the run."""
        scenario, connections = self.scenario, self.connections
        assert scenario.fleet is not None
        evs: list[tuple[NDArray[Any], ...]] = []
        rows_of, ev_of = [], []
        count = 0
        for position, number in enumerate(scenario.members):
            rows = np.arange(len(name)) if member is None else np.flatnonzero(member == number)
            codes, names = pd.factorize(name[rows])
            first = np.unique(codes, return_index=True)[1]
            at, given = connection[rows][first], phase[rows][first]
            draw = ev_draws(scenario, number, len(names))[:, 1]
            own = charger_phases(connections, at, scenario.fleet.charger.phases, draw)
            chosen = own if len(connections.phases) == 1 else np.where(given == -2, own, given)
            evs.append((np.full(len(names), position), at, chosen, np.asarray(names, np.str_)))
            rows_of.append(rows)
            ev_of.append(codes + count)
            count += len(names)
        rows = np.concatenate(rows_of)
        ev_columns = [np.concatenate(parts) for parts in zip(*evs, strict=True)]
        taken: dict[str, Any] = {key: column[rows] for key, column in columns.items()}
        efficiencies = taken.pop("charge_efficiency"), taken.pop("discharge_efficiency")
        losses = constant_efficiency(*efficiencies, len(rows))
        taper = np.full(len(rows), scenario.fleet.vehicle.taper_soc)
        whole = Sessions(
            ev=np.concatenate(ev_of).astype(np.int32), charge_loss=losses[0], discharge_loss=losses[1],
            taper_soc=taper, **taken,
        )  # fmt: skip
        inside = within_run(whole, scenario.clock.duration_s)
        table = EVs(ev_columns[0], ev_columns[1], ev_columns[2].astype(np.int8), ev_columns[3])
        return table, replace(inside, left_out=len(whole) - len(inside))


def _rows(mask: NDArray[np.bool_]) -> list[int]:
    """Positions at which a mask is true."""
    return [int(row) for row in np.flatnonzero(mask)]


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def _read_csv(path: Path) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The cells as text, and the line of each row."""
    rows, lines, faults = [], [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [cell.strip() for cell in next(reader, [])]
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    faults.append(
                        f"line {reader.line_num}: has {len(row)} values, must be {len(header)} as in the "
                        "header"
                    )
                    continue
                rows.append(row)
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError([f"can't be read as CSV: {error}"], str(path)) from None
    if not any(header):
        faults.append("is empty; the first line must name the columns")
    faults += [f"column {name} is there twice" for name in dict.fromkeys(header) if header.count(name) > 1]
    if faults:
        raise ScenarioError(faults, str(path))
    return pd.DataFrame(rows, columns=header, dtype=str), np.array(lines, np.int64)


def _read_parquet(path: Path) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The table, and the number of each row, from 1."""
    try:
        frame = pd.read_parquet(path).reset_index(drop=True)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise ScenarioError([f"can't be read as Parquet: {error}"], str(path)) from None
    return frame, np.arange(1, len(frame) + 1)
