"""A snapshot of sessions: what a scenario sampled or imported, exactly, as a Parquet table.

``evgrid sessions SCENARIO -o table.parquet`` writes it and ``fleet.sessions: {file: table.parquet}``
replays it: EVs and sessions of all members come back bit for bit, on whichever feeder has their
connection points. A row a session with the columns of :class:`evgrid.fleet.sessions.Sessions` (losses as
``charge_loss_a`` and so on), and ``member`` (number), ``ev`` (name), ``connection``, ``phase``; an EV
without a session has one row without times. The file's metadata (key ``evgrid``) say from where
and when it is; with another start the sessions keep their dates.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evgrid.core.element_names import ElementNames
from evgrid.core.model import ALL_PHASES, Connections, EVs
from evgrid.errors import ScenarioError
from evgrid.fleet.degradation import CHEMISTRIES
from evgrid.fleet.sessions.evse import charges_on_one_phase
from evgrid.fleet.sessions.sessions import COLUMNS, MOST, TEXTS, Sessions, no_fleet, outside_run, within_run
from evgrid.readers import Faults, Table, read_table, shown
from evgrid.readers.tables import PARQUET
from evgrid.scenario import Scenario
from evgrid.scenario.vehicles import chemistries

FORMAT = "evgrid sessions 1"
_KEY = b"evgrid"
_PHASES = ("a", "b", "c", "abc")  # the last is ALL_PHASES
_SHARE, _TIME = (-1e-9, 1.0 + 1e-9), (-1e10, 1e10)
_RANGES = {
    "member": (0.0, MOST), "arrival_s": _TIME, "departure_s": _TIME, "soc_arrival": _SHARE,
    "soc_target": _SHARE, "soc_floor": _SHARE, "taper_soc": _SHARE, "capacity_kwh": (1e-6, MOST),
    "charge_kw": (0.0, MOST), "discharge_kw": (0.0, MOST), "drive_kwh": (0.0, MOST),
}  # fmt: skip


def write_snapshot(
    path: str | Path, scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions
) -> Path:
    """Write the EVs and sessions of a run to a Parquet file.

    Raises
    ------
    ScenarioError
        If the file's name doesn't end in .parquet, or it can't be written.

    """
    path = Path(path)
    if path.suffix.lower() not in PARQUET:
        raise ScenarioError([f"{path.name}: the name of a snapshot must end in .parquet"], str(path))
    ev = np.arange(len(evs))
    columns: dict[str, Any] = {
        "row": ev, "member": np.array(scenario.members, np.int64)[evs.member], "ev": evs.name,
        "connection": connections.name[evs.connection], "phase": np.array(_PHASES)[evs.phase],
    }  # fmt: skip
    own: dict[str, Any] = {"row": sessions.ev.astype(np.int64)}
    for name in COLUMNS[1:]:
        values = getattr(sessions, name)
        own |= {f"{name}_{part}": values[:, i] for i, part in enumerate("abc")} if values.ndim == 2 else {
            name: values
        }  # fmt: skip
    frame = (
        pd.DataFrame(columns).merge(pd.DataFrame(own), on="row", how="left", sort=False).drop(columns="row")
    )
    about = {
        "format": FORMAT, "name": scenario.name, "seed": scenario.ensemble.seed,
        "start": str(scenario.start), "duration_s": scenario.clock.duration_s,
        "phases": list(connections.phases), "one_phase": charges_on_one_phase(scenario),
        "notes": list(sessions.notes),
    }  # fmt: skip
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: json.dumps(about).encode()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    except OSError as error:
        raise ScenarioError([f"can't be written: {error}"], str(path)) from None
    return path


def is_snapshot(path: Path) -> bool:
    """Whether a file is one that :func:`write_snapshot` wrote."""
    if path.suffix.lower() not in PARQUET:
        return False
    try:
        return _KEY in (pq.read_schema(path).metadata or {})
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        return False


def snapshot_on_one_phase(path: Path) -> bool:
    """Whether EVs of a snapshot charge on one phase, also if a balanced feeder knew no phases.

    Raises ScenarioError if the file can't be read.
    """
    if _about(path)["one_phase"]:
        return True
    table = read_table(path)
    return "phase" in table and any(phase != _PHASES[-1] for phase in set(table.text("phase")))


def read_snapshot(path: Path, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
    """EVs and sessions of the run's members, exactly as they were written.

    Raises
    ------
    ScenarioError
        If the file is of another format, or lacks members or columns, or the feeder lacks its
        connection points.

    """
    about, frame = _about(path), _frame(read_table(path))
    if frame.empty:
        return no_fleet()
    _check(frame, about, scenario, connections, path)
    assert scenario.fleet is not None
    members = np.array(scenario.members)
    frame = frame[frame["member"].isin(members)].reset_index(drop=True)
    first = ~frame.duplicated(["member", "ev"]).to_numpy()
    heads, row_of = frame[first], np.cumsum(first) - 1
    position = {str(name): i for i, name in enumerate(connections.name)}
    phase = heads["phase"].map({name: i for i, name in enumerate(_PHASES)}).to_numpy(np.int8)
    spread = (phase == len(_PHASES) - 1) | (len(connections.phases) == 1)
    evs = EVs(
        np.searchsorted(members, heads["member"].to_numpy()).astype(np.int64),
        np.array([position[name] for name in heads["connection"]], np.int64),
        np.where(spread, ALL_PHASES, phase).astype(np.int8),
        heads["ev"].to_numpy(np.str_),
    )
    there = frame["arrival_s"].notna().to_numpy()
    kept = frame[there]
    columns: dict[str, Any] = {"ev": row_of[there].astype(np.int32)}
    for name in COLUMNS[1:]:
        if name in kept:
            columns[name] = kept[name].to_numpy(np.str_ if name in TEXTS else np.float64)
        elif name == "chemistry":  # written by an earlier version
            columns[name] = chemistries(columns["vehicle"], scenario.fleet.vehicle.chemistry)
        else:
            columns[name] = kept[[f"{name}_{part}" for part in "abc"]].to_numpy(np.float64)
    shift_s = (about["start"] - scenario.time.start).total_seconds()
    for name in ("arrival_s", "departure_s"):
        columns[name] = columns[name] + shift_s
    whole = Sessions(**columns)
    inside = within_run(whole, scenario)
    note = f"{path}: snapshot of the sessions of {about['name']}, seed {about['seed']}"
    left_out = len(whole) - len(inside)
    return evs, replace(
        inside, left_out=left_out, notes=(note, *about["notes"], *outside_run(left_out), *inside.notes)
    )


def _about(path: Path) -> dict[str, Any]:
    """The file's metadata."""
    try:
        about = json.loads(pq.read_schema(path).metadata[_KEY])
        if about["format"] != FORMAT:
            raise ScenarioError([f"is of format {shown(about['format'])}: must be {FORMAT}"], str(path))
        start = datetime.fromisoformat(about["start"]).replace(tzinfo=None)
        found = {
            "name": str(about["name"]), "seed": int(about["seed"]), "start": start,
            "phases": [str(name) for name in about["phases"]],
            "notes": [str(note) for note in about.get("notes", [])],
            "one_phase": bool(about.get("one_phase", False)),
        }  # fmt: skip
    except (KeyError, TypeError, ValueError, OSError, RecursionError, OverflowError) as error:
        text = f"its metadata are not those of a snapshot ({type(error).__name__}: {shown(str(error))})"
        raise ScenarioError([text], str(path)) from None
    return found


def _frame(table: Table) -> pd.DataFrame:
    """The columns of a snapshot, each of its kind. Raises ScenarioError with every fault."""
    faults = Faults(table)
    numbers = ["member", *(part for name in COLUMNS[1:] if name not in TEXTS for part in _parts(name))]
    texts = ["ev", "connection", "phase", "vehicle", *(["chemistry"] if "chemistry" in table else [])]
    faults.file(*(f"column {name} is missing" for name in (*texts, *numbers) if name not in table))
    faults.check()
    columns: dict[str, Any] = dict(zip(numbers, table.numbers(numbers, faults), strict=True))
    columns |= {name: np.array(table.names_of(name, faults), object) for name in texts}
    there = ~table.empty("arrival_s")
    for name in ("member", "ev", "connection", "phase"):
        faults.cells(table.empty(name), name, "must be given")
    faults.cells(columns["member"] % 1 != 0, "member", "must be a whole number")
    faults.cells(~np.isin(columns["phase"], _PHASES), "phase", "must be a, b, c or abc")
    if "chemistry" in columns:
        faults.cells(
            there & ~np.isin(columns["chemistry"], ("", *CHEMISTRIES)), "chemistry", "must be nmc or lfp"
        )
    for name in numbers[1:]:
        low, high = _RANGES.get(name, (-MOST, MOST))
        given = there & ~table.empty(name) if name == "drive_kwh" else there
        inside = (columns[name] >= low) & (columns[name] <= high)
        faults.cells(given & ~inside, name, f"must be from {low:g} to {high:g}")
    key = pd.MultiIndex.from_arrays([columns["member"], columns["ev"]])
    first = np.append(True, key.codes[0][1:] != key.codes[0][:-1]) | np.append(
        True, key.codes[1][1:] != key.codes[1][:-1]
    )
    faults.rows(first & key.duplicated(), "the rows of an EV must follow one another")
    after = np.append(-np.inf, columns["departure_s"][:-1])
    faults.rows(~first & (columns["arrival_s"] < after - 1e-6), "arrives before its last departure")
    faults.rows(there & (columns["departure_s"] <= columns["arrival_s"]), "departs before it arrives")
    faults.check()
    return pd.DataFrame(columns).astype({"member": np.int64})


def _parts(name: str) -> list[str]:
    """The columns of the table that hold one of the sessions'."""
    return [f"{name}_{part}" for part in "abc"] if name in ("charge_loss", "discharge_loss") else [name]


def _check(
    frame: pd.DataFrame, about: dict[str, Any], scenario: Scenario, connections: Connections, path: Path
) -> None:
    found = []
    missing = sorted(set(scenario.members) - set(frame["member"].unique().tolist()))
    if missing:
        found.append(
            f"has no EVs of member {missing[0]}" + (f" and {len(missing) - 1} more" * (len(missing) > 1))
        )
    unknown = sorted(set(frame["connection"]) - {str(name) for name in connections.name})
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        hint = ElementNames(connections.name).hint(unknown[0])
        found.append(f"connection {unknown[0]}{more}: the feeder has no such connection point; {hint}")
    if len(connections.phases) == 3:
        if len(about["phases"]) == 1:
            found.append(
                "was written on a balanced feeder, and so has no phases for one of three; must be replayed "
                "with feeder.phases: 1"
            )
        elif not unknown:
            own = pd.Series(connections.phase, index=[str(name) for name in connections.name])
            wanted = frame["connection"].map(own).to_numpy()
            given = frame["phase"].map({name: i for i, name in enumerate(_PHASES)}).to_numpy()
            bad = np.flatnonzero((wanted != ALL_PHASES) & (wanted != given))
            if bad.size:
                row = frame.iloc[bad[0]]
                found.append(
                    f"EV {row['ev']} is on phase {row['phase']}: connection {row['connection']} has "
                    f"{connections.only(own.index.tolist().index(row['connection']))} only"
                )
    if found:
        raise ScenarioError(found, str(path))
