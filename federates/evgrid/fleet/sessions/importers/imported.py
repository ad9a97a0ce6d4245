"""The result of an importer: sessions, and a report of rows read, dropped and changed.

The table has a row a session, in order of arrival as the file has them. Columns of every importer:

ev : str, name of the EV; its sessions never overlap
evse : str, the EVSE (ACN-Data, ElaadNL) or household (NHTS) at which it was, to be mapped onto
    connection points by :meth:`Imported.at`
arrival, departure : datetime64[ns], local wall-clock time without a zone
energy_kwh : float, energy at the EVSE's meter

Others are described by each importer. ``arrival_utc`` and ``departure_utc`` are kept where the
zone is known, since local time repeats itself when the clocks go back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.table import OPTIONAL, REQUIRED
from evgrid.readers.tables import PARQUET
from evgrid.scenario.fleet import Vehicle

SHOWN = 5
"""Most identifiers that a report prints for a reason; it holds all of them."""


@dataclass(frozen=True)
class Report:
    """Rows of a file that were read, dropped and changed, and why. Prints as sentences.

    source : the file
    noun : what a row is, such as "sessions"
    read, kept : number of rows; ``read == kept + all that were dropped``
    made : number of sessions in the table, which differs from ``kept`` where rows are trips
    dropped : reason -> identifiers (or lines) of the rows dropped for it
    notes : what was changed or is doubtful -> identifiers of rows kept
    assumptions : sentences that hold for the whole file
    """

    source: str
    noun: str
    read: int
    kept: int
    made: int
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def __str__(self) -> str:
        lost = self.read - self.kept
        text = f"{self.source}: read {self.read} {self.noun}, kept {self.kept}, dropped {lost}"
        if self.dropped:
            text += ": " + ", ".join(_counted(reason, rows) for reason, rows in self.dropped.items())
        lines = [text + "."]
        if self.noun != "sessions":
            lines.append(f"Made {self.made} sessions of these {self.noun}.")
        if self.notes:
            noted = ", ".join(_counted(reason, rows) for reason, rows in self.notes.items())
            lines.append(f"Kept, but note: {noted}.")
        lines += [f"Assumed: {sentence}." for sentence in self.assumptions]
        return "\n".join(lines)


def _counted(reason: str, rows: Sequence[str]) -> str:
    more = f", and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"{len(rows)} {reason} ({', '.join(rows[:SHOWN])}{more})"


class Tally:
    """A report while the file is being read."""

    def __init__(self, path: Path, noun: str = "sessions") -> None:
        self.path, self.noun = path, noun
        self.read = 0
        self.dropped: dict[str, list[str]] = {}
        self.notes: dict[str, list[str]] = {}
        self.assumptions: list[str] = []

    def drop(self, reason: str, row: str) -> None:
        """Count a row as dropped; every row at most once."""
        self.dropped.setdefault(reason, []).append(row)

    def note(self, text: str, row: str) -> None:
        """Remark on a row that is kept."""
        self.notes.setdefault(text, []).append(row)

    def imported(self, table: pd.DataFrame) -> Imported:
        """The result, once all rows are read or dropped."""
        kept = self.read - sum(len(rows) for rows in self.dropped.values())
        if self.noun == "sessions":
            assert kept == len(table), "a session was lost"
        report = Report(
            str(self.path), self.noun, self.read, kept, len(table),
            {reason: tuple(rows) for reason, rows in self.dropped.items()},
            {text: tuple(rows) for text, rows in self.notes.items()},
            tuple(self.assumptions),
        )  # fmt: skip
        return Imported(table, report)


@dataclass(frozen=True, eq=False)
class Imported:
    """Sessions, and a report of the rows of the file they are from."""

    table: pd.DataFrame
    """A row a session; see :mod:`evgrid.fleet.sessions.importers.imported` and the importer."""
    report: Report
    """Rows read, kept and dropped, and why."""

    def at(self, where: str | Sequence[str] | Mapping[str, str]) -> Imported:
        """The same sessions with a column ``connection``.

        Parameters
        ----------
        where
            One connection point for all (a car park); or several, over which the EVSEs are dealt in
            order of their first session, starting again where there are more EVSEs than points; or
            a mapping from EVSE to connection point.

        An EV that was at EVSEs of different connection points becomes one EV a point
        (``user-7@bus3``), since an EV has one connection point; the report notes it.

        Raises
        ------
        ScenarioError
            If the mapping lacks an EVSE.

        """
        table = self.table.copy()
        evses = list(dict.fromkeys(table["evse"]))
        if isinstance(where, str):
            point = dict.fromkeys(evses, where)
        elif isinstance(where, Mapping):
            missing = [evse for evse in evses if evse not in where]
            if missing:
                faults = [f"evse {evse}: has no connection point in the mapping" for evse in missing]
                raise ScenarioError(faults, self.report.source)
            point = {evse: where[evse] for evse in evses}
        else:
            if not where:
                raise ValueError("there must be at least one connection point")
            point = {evse: where[i % len(where)] for i, evse in enumerate(evses)}
        table["connection"] = [point[evse] for evse in table["evse"]]
        points = table.groupby("ev")["connection"].transform("nunique")
        several = points > 1
        notes = dict(self.report.notes)
        if several.any():
            names = table.loc[several, "ev"]
            notes["EVs at several connection points, made one EV a point"] = tuple(dict.fromkeys(names))
            table.loc[several, "ev"] = names + "@" + table.loc[several, "connection"]
        return Imported(table, replace(self.report, notes=notes))

    def plain(self) -> pd.DataFrame:
        """The columns of a session file, others left out; needs ``connection`` (see :meth:`at`)."""
        if "connection" not in self.table:
            raise ValueError("the sessions have no connection points: use .at(...) first")
        columns = [name for name in (*REQUIRED, *OPTIONAL) if name in self.table]
        return self.table[[name for name in columns if not self.table[name].isna().all()]].copy()

    def save(self, path: str | Path) -> Path:
        """Write the sessions as a session file, CSV or (by its suffix) Parquet."""
        path = Path(path)
        table = self.plain()
        if path.suffix.lower() in PARQUET:
            table.to_parquet(path, index=False)
        else:
            table.to_csv(path, index=False, date_format="%Y-%m-%dT%H:%M:%S.%f")
        return path


def undeliverable(table: pd.DataFrame, charge_kw: float | None = None) -> pd.DataFrame:
    """Sessions whose energy does not fit into their stay at full power, with the reason.

    Parameters
    ----------
    table
        Sessions with arrival, departure and energy_kwh (at the meter, so no efficiency comes in).
    charge_kw
        Power of every EVSE, kW; left out, the table's column charge_kw.

    The stay is taken in UTC where the table has it. Returns the rows of ``table`` concerned (same
    index) with ``connected_h``, ``deliverable_kwh`` (power × stay) and ``reason`` added. A charge
    that tapers may fall short where this bound does not.

    Raises ValueError where a power or an energy isn't known.

    7 kWh in a stay of 1 h at 6.656 kW is listed, 6.6 kWh is not.

    """
    utc = "_utc" if "arrival_utc" in table and "departure_utc" in table else ""
    stay = table[f"departure{utc}"] - table[f"arrival{utc}"]
    clock = pd.api.types.is_timedelta64_dtype(stay)  # else seconds from the start
    hours = (stay.dt.total_seconds() if clock else stay) / 3600.0
    if charge_kw is not None:
        power = pd.Series(float(charge_kw), index=table.index)
    elif "charge_kw" in table:
        power = table["charge_kw"]
    else:
        raise ValueError("charge_kw must be given: the table has no such column")
    energy = table["energy_kwh"] if "energy_kwh" in table else pd.Series(float("nan"), index=table.index)
    for name, values in (("charge_kw", power), ("energy_kwh", energy)):
        unknown = int(values.isna().sum())
        if unknown:
            raise ValueError(f"{name} is not known for {unknown} of {len(table)} sessions")
    most = power * hours
    found = energy > most * (1.0 + 1e-9)
    result = table[found].copy()
    result["connected_h"], result["deliverable_kwh"] = hours[found], most[found]
    result["reason"] = [
        f"{asked:.3f} kWh in {stay_h:.3f} h need {asked / stay_h:.2f} kW, the EVSE gives {kw:g} kW"
        for asked, stay_h, kw in zip(energy[found], hours[found], power[found], strict=True)
    ]
    return result


# --- what importers share ---

Row = dict[str, Any]
"""A session while it is being read: table columns, and ``id`` and ``person``."""


def name_evs(rows: Iterable[Row], tally: Tally) -> None:
    """Give each session the name of its EV, so that no EV's sessions overlap.

    ``person`` (user or card, None if unknown) is one EV while its sessions do not overlap; one that
    begins before the person's last has ended, in UTC or on the local clock, is a further EV. Without a
    person each session is an EV of its own.
    """
    cars: dict[str, list[tuple[Any, ...]]] = {}  # person -> when each car is free, on each clock
    for row in sorted(rows, key=_begin):
        person = row.pop("person")
        if person is None:
            row["ev"] = f"session-{row['id']}"
            tally.note("without a user, made an EV each", row["id"])
            continue
        clocks = ("", "_utc") if "arrival_utc" in row else ("",)
        arrival = tuple(row[f"arrival{clock}"] for clock in clocks)
        departure = tuple(row[f"departure{clock}"] for clock in clocks)
        free = cars.setdefault(person, [])
        for number, until in enumerate(free):
            if all(a >= b for a, b in zip(arrival, until, strict=True)):
                free[number] = departure
                break
        else:
            number = len(free)
            free.append(departure)
        row["ev"] = person if number == 0 else f"{person}-car{number + 1}"
        if number:
            tally.note("overlapping another session of the same user, made a further EV", row["id"])


def note_shared_evses(rows: Iterable[Row], tally: Tally) -> None:
    """Remark on sessions that begin before the last at the same EVSE has ended."""
    until: dict[str, Any] = {}
    end = "departure_utc"
    for row in sorted(rows, key=_begin):
        departure = row[end if end in row else "departure"]
        last = until.get(row["evse"])
        if last is not None and _begin(row) < last:
            tally.note("beginning before the last at the same EVSE has ended", row["id"])
        until[row["evse"]] = departure if last is None else max(last, departure)


def _begin(row: Row) -> Any:
    return row["arrival_utc"] if "arrival_utc" in row else row["arrival"]


def fit_batteries(rows: Iterable[Row], vehicle: Vehicle, tally: Tally) -> None:
    """Give a session that took more than the vehicle's battery takes before it tapers a larger one.

    The energy was delivered in that stay, so ``capacity_kwh`` is then such that it ends where the
    taper begins; elsewhere it is NaN, the scenario's. 100 kWh at the meter at an efficiency of 0.9
    with a taper above 0.8 are a battery of 112.5 kWh.
    """
    untapered = vehicle.capacity_kwh * vehicle.taper_soc
    for row in rows:
        stored = row["energy_kwh"] * vehicle.charge_efficiency
        row["capacity_kwh"] = float("nan")
        if stored > untapered:
            row["capacity_kwh"] = stored / vehicle.taper_soc * (1.0 + 1e-9)  # not above it by rounding
            text = f"storing more than {untapered:g} kWh, at which the vehicle tapers: given a larger battery"
            tally.note(text, row["id"])


def table_of(rows: Sequence[Row], columns: Mapping[str, str]) -> pd.DataFrame:
    """Sessions as a table, typed also where there are none.

    ``columns``: name -> text, number, flag, time (local) or utc. Values left out are None, NaN or NaT.
    """
    table = pd.DataFrame({}, index=pd.RangeIndex(len(rows)))
    for name, kind in columns.items():
        values = [row.get(name) for row in rows]
        if kind == "time":
            table[name] = pd.to_datetime(pd.Series(values, dtype="object")).astype("datetime64[ns]")
        elif kind == "utc":
            table[name] = pd.to_datetime(pd.Series(values, dtype="object"), utc=True).astype(
                "datetime64[ns, UTC]"
            )
        elif kind == "number":
            table[name] = pd.Series(values, dtype="float64")
        elif kind == "flag":
            table[name] = pd.Series(values, dtype="bool")
        else:
            table[name] = pd.Series(values, dtype="object")
    return table
