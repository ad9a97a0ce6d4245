"""Sessions from a file: a CSV, Parquet or NetCDF table with a row a session.

| column | what | if left out |
|---|---|---|
| ev | name of the EV | must be there |
| connection | name of its connection point | must be there |
| arrival, departure | local times (ISO 8601 or a stated form), or s from the start | must be there |
| soc_arrival | state of charge at arrival, 0 to 1 | from energy_kwh |
| energy_kwh | energy at the EVSE's meter that the driver asks for by departure | from the states of charge |
| soc_target | state of charge wanted by departure | see below |
| capacity_kwh | usable capacity, kWh | the scenario's vehicle |
| charge_kw (or power_kw) | most that is drawn, kW | the lesser of the scenario's charger and vehicle |
| discharge_kw | most that is given back, kW | 0 |
| soc_floor, charge_efficiency, discharge_efficiency | as in the scenario | the scenario's vehicle |
| phase | a, b, c or abc; nodes a-b, s1, s1-s2 | that of the connection, or of the scenario's charger |
| member | number of the member | every member has the session |
| drive_kwh | energy out of the battery since the EV's last session | soc_arrival is taken as it is |
| vehicle | name of the vehicle type, for results | vehicle |
| chemistry | nmc or lfp, by which the battery ages | the shipped type's, else the scenario's vehicle's |

Of an EV with an earlier session in the run and a ``drive_kwh``, the run carries the state of charge over,
and what is read as ``soc_arrival`` holds only for its first.

A three-phase charger has a third of its power at a connection of one phase. An empty cell is a value left
out. Of soc_arrival, energy_kwh and soc_target two determine the third.
With soc_arrival alone the target is the vehicle's; with energy_kwh alone the energy ends where
the taper begins, or at a full battery if it is more than that leaves room for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evgrid.core.element_names import ElementNames
from evgrid.core.model import ALL_PHASES, NO_PHASE, Array, Connections, EVs
from evgrid.errors import ScenarioError
from evgrid.fleet.degradation import CHEMISTRIES
from evgrid.fleet.sessions.evse import charger_phases, ev_draws, phases_at
from evgrid.fleet.sessions.sessions import (
    MOST,
    ONE_TYPE,
    TEXTS,
    Sessions,
    constant_efficiency,
    outside_run,
    within_run,
)
from evgrid.fleet.sessions.source import Source
from evgrid.readers import Faults, Table, capped, read_table, read_times, shown
from evgrid.scenario import Scenario
from evgrid.scenario.fields import ExistingFile, TimeFormat
from evgrid.scenario.fleet import Fleet
from evgrid.scenario.vehicles import chemistries

REQUIRED = ("ev", "connection", "arrival", "departure")
OPTIONAL = (
    "soc_arrival", "energy_kwh", "soc_target", "capacity_kwh", "charge_kw", "power_kw", "discharge_kw",
    "soc_floor", "charge_efficiency", "discharge_efficiency", "phase", "member",
    "drive_kwh", "vehicle", "chemistry",
)  # fmt: skip
NUMBERS = tuple(name for name in OPTIONAL if name not in ("phase", "vehicle", "chemistry"))
_ONE_PHASE = ("a", "b", "c", "a-b", "b-c", "c-a", "s1", "s2", "s1-s2")
"""Names of nodes of a charger on one phase."""
_ROUNDING = 1e-9
"""Excess of a computed state of charge over 1 that is taken as rounding in the file."""


class SessionFile(Source):
    """Charging sessions from a table, or a snapshot by ``evgrid sessions``."""

    file: ExistingFile
    """CSV, Parquet or NetCDF with a row a session: ev, connection, phase, arrival, departure,
    soc_arrival or energy_kwh, capacity_kwh, power limits; or a snapshot that ``evgrid sessions`` wrote."""
    time_format: TimeFormat | None = None
    """Form of arrival and departure, such as '%d.%m.%Y %H:%M'; left out: ISO 8601, or s from the start."""

    def tables(self, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
        """See :class:`evgrid.fleet.sessions.source.Source`."""
        from evgrid.fleet.sessions.snapshot import is_snapshot, read_snapshot

        if not is_snapshot(self.file):
            return read_sessions(self.file, scenario, connections, self.time_format)
        if self.time_format is not None:
            text = "fleet.sessions.time_format: a snapshot has its times as such; leave it out"
            raise ScenarioError([text])
        return read_snapshot(self.file, scenario, connections)

    def on_one_phase(self, fleet: Fleet) -> bool:
        """Whether the file has EVs on one phase, of itself or, where it leaves phases out, by the charger."""
        from evgrid.fleet.sessions.snapshot import is_snapshot, snapshot_on_one_phase

        if is_snapshot(self.file):
            return snapshot_on_one_phase(self.file)
        given = phases_in(self.file)
        by_charger = fleet.charger.phases == 1 and bool((given == "").any())
        return by_charger or bool(np.isin(given, _ONE_PHASE).any())


def read_sessions(
    path: str | Path, scenario: Scenario, connections: Connections, time_format: str | None = None
) -> tuple[EVs, Sessions]:
    """Read the EVs and their sessions from a file; see the module's text for the columns.

    EVs stand in the order in which they first appear in the file, members one after the other.
    Rows of members that the run doesn't compute are passed over. Sessions outside the run are
    left out and counted (``Sessions.left_out``); a session under way at the start is cut as in
    :func:`evgrid.fleet.sessions.sessions.within_run`.

    Raises
    ------
    ScenarioError
        With every fault of the file, each with its line (the header is line 1) or, in a Parquet
        file, its row (the first is row 1).

    """
    return _Table(read_table(path), scenario, connections, time_format).tables()


def phases_in(path: Path) -> NDArray[np.str_]:
    """The column phase of a session file as it stands there, in small letters, (session,); "" where it is
    left out. Raises ScenarioError if the file can't be read.
    """
    table = read_table(path)
    return np.array([text.lower() for text in table.text("phase")] if "phase" in table else [""] * len(table))


def tables_of(
    frame: pd.DataFrame, source: str, scenario: Scenario, connections: Connections
) -> tuple[EVs, Sessions]:
    """Like :func:`read_sessions`, of a table in memory; ``source`` is what faults name."""
    return _Table(Table.of(frame, source), scenario, connections, None).tables()


class _Table:
    """A session file while it is being read: columns as they are found good, and faults."""

    def __init__(
        self, table: Table, scenario: Scenario, connections: Connections, time_format: str | None
    ) -> None:
        self.table, self.scenario, self.connections = table, scenario, connections
        self.faults = Faults(table)
        self._check_columns()
        self.faults.rows_unlike_header()
        numbers = [name for name in NUMBERS if name in table]
        self.numbers = dict(zip(numbers, table.numbers(numbers, self.faults), strict=True))
        times = ["arrival", "departure"]
        seconds = read_times(table, times, scenario.clock.start, time_format, self.faults)
        self.times = dict(zip(times, seconds, strict=True))

    def _check_columns(self) -> None:
        known, table = (*REQUIRED, *OPTIONAL), self.table
        faults = [f"column {name} is missing" for name in REQUIRED if name not in table]
        if "soc_arrival" not in table and "energy_kwh" not in table:
            faults.append("column soc_arrival or energy_kwh is missing")
        unknown = [name for name in table.names if name not in known]
        faults += capped([f"column {shown(name)} is unknown; {_hint(name, known)}" for name in unknown])
        if "charge_kw" in table and "power_kw" in table:
            faults.append("columns charge_kw and power_kw mean the same; give one")
        if not faults and not len(table) and not table.ragged:
            faults.append("holds no sessions")
        if faults:
            raise ScenarioError(faults, str(table.source))

    def tables(self) -> tuple[EVs, Sessions]:
        """The EVs and sessions of all members of the run, or all faults."""
        connection = self._connection()
        name = np.array(self.table.names_of("ev", self.faults), object)
        self.faults.rows(self._empty("ev"), "ev is empty: every session needs the name of its EV")
        phase = self._phase(connection)
        columns = self._columns(self._rating(connection, phase))
        member = self._member()
        vehicle, chemistry = self._vehicle()
        self._check_evs(name, member, connection, phase, chemistry)
        self._check_overlaps(name, member, columns)
        self.faults.check()
        texts = {"vehicle": vehicle, "chemistry": chemistry}
        return self._assemble(name, member, connection, phase, columns | texts)

    # --- columns ---

    def _columns(self, rating_kw: Array) -> dict[str, Array]:
        """All numbers of the sessions, defaults filled in; ``rating_kw``: (session,) the default power."""
        fleet = self.scenario.fleet
        assert fleet is not None
        vehicle = fleet.vehicle
        result = {
            "capacity_kwh": self._number("capacity_kwh", vehicle.capacity_kwh, above=0),
            "charge_kw": self._number(
                "power_kw" if "power_kw" in self.table else "charge_kw", rating_kw, above=0,
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
        self.faults.rows(
            result["departure_s"] <= result["arrival_s"],
            lambda row: (
                f"departure = {self._text(row, 'departure')}: must be after the arrival, "
                f"{self._text(row, 'arrival')}"
            ),
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
        self.faults.rows(~has_arrival & ~has_energy, "soc_arrival and energy_kwh are empty: give one of them")
        self.faults.rows(
            has_arrival & has_target & has_energy,
            "give two of soc_arrival, soc_target and energy_kwh: two determine the third",
        )
        usual = np.where(gain <= taper, taper, 1.0)
        target = np.where(has_target, target, np.where(has_arrival, arrival + gain, usual))
        target = np.where(has_arrival & ~has_target & ~has_energy, usual_target, target)
        arrival = np.where(has_arrival, arrival, target - gain)
        too_much = has_energy & ((target > 1 + _ROUNDING) | (arrival < -_ROUNDING))

        def room_for(row: int) -> str:
            room = target[row] if has_target[row] else 1.0 - (arrival[row] if has_arrival[row] else 0.0)
            return (
                f"energy_kwh = {energy[row]:g}: the battery takes at most "
                f"{room * capacity[row] / efficiency[row]:.4g} kWh at the meter "
                f"({room:.4g} of {capacity[row]:g} kWh, efficiency {efficiency[row]:g})"
            )

        self.faults.rows(too_much, room_for)
        result["soc_arrival"], result["soc_target"] = np.clip(arrival, 0, 1), np.clip(target, 0, 1)

    def _empty(self, column: str) -> NDArray[np.bool_]:
        """Rows in which a column is left out."""
        return self.table.empty(column)

    def _number(
        self, column: str, default: float | Array, above: float | None = None,
        least: float | None = None, most: float = MOST,
    ) -> Array:  # fmt: skip
        """A column of numbers; bad cells are faults and become the default."""
        if column not in self.numbers:
            return np.broadcast_to(default, len(self.table)).astype(np.float64)
        numbers = self.numbers[column]
        limits = []
        bad = numbers > most
        if above is not None:
            limits.append(f"above {above:g}")
            bad |= numbers <= above
        if least is not None:
            limits.append(f"at least {least:g}")
            bad |= numbers < least
        if most < MOST or (numbers > MOST).any():
            limits.append(f"at most {most:g}")
        self.faults.cells(bad, column, f"must be {' and '.join(limits)}")
        return np.where(np.isnan(numbers) | bad, default, numbers)

    def _time(self, column: str) -> Array:
        """A column of times, s from the start of the run; bad cells are faults and NaN."""
        self.faults.rows(self._empty(column), f"{column} is empty: every session needs one")
        return self.times[column]

    def _connection(self) -> NDArray[np.int64]:
        """Position of each session's connection point; -1 where it is at fault."""
        names, text = ElementNames(self.connections.name), self.table.text("connection")
        found, empty = names.places(text), self._empty("connection")

        def unknown(row: int) -> str:
            wrong = f"connection = {shown(text[row])}: the feeder has no such connection point"
            return f"{wrong}; {names.hint(text[row])}"

        self.faults.rows(empty, "connection is empty: every session needs one")
        self.faults.rows((found < 0) & ~empty, unknown)
        return found

    def _phase(self, connection: NDArray[np.int64]) -> NDArray[np.int8]:
        """Phase of each session's charger as given: 0 to 2, ALL_PHASES, or NO_PHASE where it is left out."""
        fleet, connections = self.scenario.fleet, self.connections
        assert fleet is not None
        empty = self._empty("phase")
        given = self.table.text("phase") if "phase" in self.table else [""] * len(self.table)
        label = np.array([value.lower().replace(" ", "") for value in given], np.str_)
        balanced = len(connections.phases) == 1
        known = ("a", "b", "c") if balanced else _ONE_PHASE
        self.faults.cells(
            ~empty & ~np.isin(label, (*known, "abc")), "phase",
            "must be a, b, c or abc" + ("" if balanced else ", or nodes such as a-b, s1 or s1-s2"),
        )  # fmt: skip
        phase = np.full(len(label), NO_PHASE, np.int8)
        phase[label == "abc"] = ALL_PHASES
        there = connection >= 0
        own = np.where(there, connections.phase[connection], ALL_PHASES)
        for slot, one in enumerate(known):
            rows = np.flatnonzero((label == one) & there)
            phase[rows] = slot if balanced else connections.slot_of(one)[connection[rows]]

        def only(row: int) -> str:
            name = self._text(row, "connection")
            if own[row] != ALL_PHASES:
                return f"connection {name} has {connections.only(connection[row])} only"
            nodes = connections.phases if connections.nodes is None else connections.nodes[connection[row]]
            return f"connection {name} has {', '.join(nodes)} and abc"

        if not balanced:
            elsewhere = there & np.isin(label, known) & (phase == NO_PHASE)
            elsewhere |= (label == "abc") & (own != ALL_PHASES)
            self.faults.rows(elsewhere, lambda row: f"phase = {given[row]}: {only(row)}")
            if fleet.charger.current == "dc":
                self.faults.rows(
                    own != ALL_PHASES,
                    lambda row: f"fleet.charger.current = dc: {only(row)}; must be ac there",
                )
        return phase

    def _rating(self, connection: NDArray[np.int64], phase: NDArray[np.int8]) -> Array:
        """The most that each session draws where the file doesn't say, kW: EVSE or vehicle."""
        fleet, connections = self.scenario.fleet, self.connections
        assert fleet is not None
        charger, vehicle = fleet.charger, fleet.vehicle
        if charger.current == "dc":
            return np.full(len(phase), min(charger.power_kw, vehicle.dc_kw))
        most = np.full(len(phase), min(charger.power_kw, vehicle.charge_kw))
        if charger.phases == 3 and len(connections.phases) == 3:
            own = np.where(connection >= 0, connections.phase[connection], ALL_PHASES)
            single = (phase >= 0) | ((phase == NO_PHASE) & (own != ALL_PHASES))
            most[single] = min(charger.power_kw / 3.0, vehicle.charge_kw)
        return most

    def _vehicle(self) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
        """Name of each session's vehicle type, and the chemistry of its battery."""
        fleet = self.scenario.fleet
        assert fleet is not None
        blank = [""] * len(self.table)
        given = [self.table.names_of(name, self.faults) if name in self.table else blank for name in TEXTS]
        kinds = np.array(given[0], object)
        vehicle = np.where(kinds == "", ONE_TYPE, kinds).astype(np.str_)
        chemistry = np.char.lower(np.array(given[1], np.str_))
        unknown = ~np.isin(chemistry, ("", *CHEMISTRIES))
        self.faults.cells(unknown, "chemistry", f"must be {' or '.join(CHEMISTRIES)}", given[1])
        usual = chemistries(vehicle, fleet.vehicle.chemistry)
        return vehicle, np.where(chemistry == "", usual, chemistry)

    def _member(self) -> NDArray[np.int64] | None:
        """Number of each session's member, or None where every member has every session."""
        if "member" not in self.table:
            return None
        numbers = self._number("member", -1.0, least=0)
        empty = self._empty("member")
        self.faults.rows(empty, "member is empty: give every session a member, or drop the column")
        self.faults.cells(numbers != np.floor(numbers), "member", "must be a whole number")
        return numbers.astype(np.int64)

    def _text(self, row: int, column: str) -> str:
        return shown(self.table.text(column)[row])

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

        def differs(what: str, why: str) -> Callable[[int], str]:
            return lambda row: (
                f"{what} differs from {self._line(first_row[row])}: EV {shown(name[row])} has one {why}"
            )

        self.faults.rows(
            usable & (connection != connection[first_row]),
            lambda row: (
                f"connection = {self._text(row, 'connection')}: EV {shown(name[row])} is at "
                f"{self._text(first_row[row], 'connection')} on {self._line(first_row[row])}; an EV "
                "has one connection"
            ),
        )
        same = usable & (connection == connection[first_row])
        self.faults.rows(same & (phase != phase[first_row]), differs("phase", "charger"))
        self.faults.rows(
            ~self._empty("ev") & (chemistry != chemistry[first_row]), differs("chemistry", "battery")
        )

    def _line(self, row: int) -> str:
        return f"{self.table.place} {self.table.line(int(row))}"

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
        other = dict(zip(frame["row"][bad].tolist(), row_before[bad].tolist(), strict=True))
        self.faults.rows(
            sorted(other),
            lambda row: (
                f"arrival = {self._text(row, 'arrival')}: EV {shown(name[row])} is still plugged in from "
                f"{self._line(other[row])}; its sessions must not overlap"
            ),
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
            own = charger_phases(connections, at, phases_at(connections, at, scenario), draw)
            chosen = own if len(connections.phases) == 1 else np.where(given == NO_PHASE, own, given)
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
        inside = within_run(whole, scenario)
        table = EVs(ev_columns[0], ev_columns[1], ev_columns[2].astype(np.int8), ev_columns[3])
        return table, replace(
            inside,
            left_out=len(whole) - len(inside),
            notes=(
                *self._capped(columns["charge_kw"]),
                *outside_run(len(whole) - len(inside)),
                *inside.notes,
            ),
        )

    def _capped(self, charge_kw: Array) -> tuple[str, ...]:
        """A sentence where the scenario's vehicle keeps sessions without a power below the charger's."""
        fleet = self.scenario.fleet
        assert fleet is not None
        key = "dc_kw" if fleet.charger.current == "dc" else "charge_kw"
        most: float = getattr(fleet.vehicle, key)
        left_out = self._empty("charge_kw") & self._empty("power_kw")
        number = int((left_out & (charge_kw == most)).sum())
        if not number or most >= fleet.charger.power_kw:
            return ()
        return (
            f"fleet.vehicle.{key} = {most:g}: {number} sessions without a power of their own draw at most "
            f"{most:g} kW of the charger's {fleet.charger.power_kw:g} kW.",
        )


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
