"""Frozen sessions: what a scenario sampled or imported, exactly, as a Parquet table.

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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evgrid.errors import ScenarioError
from evgrid.fleet.sessions import COLUMNS, TEXTS, Sessions, no_fleet, within_run
from evgrid.model import ALL_PHASES, Connections, EVs
from evgrid.scenario import Scenario
from evgrid.vehicles import chemistries

FORMAT = "evgrid sessions 1"
_KEY = b"evgrid"
_PHASES = ("a", "b", "c", "abc")  # the last is ALL_PHASES


def freeze(
    path: str | Path, scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions
) -> Path:
    """Write the EVs and sessions of a run to a Parquet file.

    Raises
    ------
    ScenarioError
        If the file's name doesn't end in .parquet, or it can't be written.

    """
    path = Path(path)
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise ScenarioError([f"{path.name}: the name of frozen sessions must end in .parquet"], str(path))
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
        "phases": list(connections.phases), "notes": list(sessions.notes),
    }  # fmt: skip
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: json.dumps(about).encode()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    except OSError as error:
        raise ScenarioError([f"can't be written: {error}"], str(path)) from None
    return path


def is_frozen(path: Path) -> bool:
    """Whether a file is one that :func:`freeze` wrote."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        return False
    try:
        return _KEY in (pq.read_schema(path).metadata or {})
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        return False


def read_frozen(path: Path, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
    """EVs and sessions of the run's members, as they were frozen.

    Raises
    ------
    ScenarioError
        If the file is of another format, or lacks members or columns, or the feeder lacks its
        connection points.

    """
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[_KEY])
    if about.get("format") != FORMAT:
        raise ScenarioError([f"is of format {about.get('format')}: must be {FORMAT}"], str(path))
    frame = table.to_pandas()
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
        heads["connection"].map(position).to_numpy(np.int64),
        np.where(spread, ALL_PHASES, phase).astype(np.int8),
        heads["ev"].to_numpy(np.str_),
    )
    there = frame["arrival_s"].notna().to_numpy()
    kept = frame[there]
    columns: dict[str, Any] = {"ev": row_of[there].astype(np.int32)}
    for name in COLUMNS[1:]:
        if name in kept:
            columns[name] = kept[name].to_numpy(np.str_ if name in TEXTS else np.float64)
        elif name == "chemistry":  # frozen by an earlier version
            columns[name] = chemistries(columns["vehicle"], scenario.fleet.vehicle.chemistry)
        else:
            columns[name] = kept[[f"{name}_{part}" for part in "abc"]].to_numpy(np.float64)
    shift_s = (pd.Timestamp(about["start"]) - pd.Timestamp(scenario.start)).total_seconds()
    for name in ("arrival_s", "departure_s"):
        columns[name] = columns[name] + shift_s
    whole = Sessions(**columns)
    inside = within_run(whole, scenario.clock.duration_s)
    note = f"{path}: frozen sessions of {about['name']}, seed {about['seed']}"
    return evs, replace(inside, left_out=len(whole) - len(inside), notes=(note, *about.get("notes", ())))


def _check(
    frame: pd.DataFrame, about: dict[str, Any], scenario: Scenario, connections: Connections, path: Path
) -> None:
    found = []
    for name in COLUMNS[1:]:
        if name not in frame and f"{name}_a" not in frame and name != "chemistry":
            found.append(f"column {name} is missing")
    missing = sorted(set(scenario.members) - set(frame["member"].unique().tolist()))
    if missing:
        found.append(
            f"has no EVs of member {missing[0]}" + (f" and {len(missing) - 1} more" * (len(missing) > 1))
        )
    unknown = sorted(set(frame["connection"]) - {str(name) for name in connections.name})
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        found.append(f"connection {unknown[0]}{more}: the feeder has no such connection point")
    if len(connections.phases) == 3:
        if len(about["phases"]) == 1:
            found.append("was frozen on a balanced feeder, and so has no phases for one of three")
        elif not unknown:
            own = pd.Series(connections.phase, index=[str(name) for name in connections.name])
            wanted = frame["connection"].map(own).to_numpy()
            given = frame["phase"].map({name: i for i, name in enumerate(_PHASES)}).to_numpy()
            bad = np.flatnonzero((wanted != ALL_PHASES) & (wanted != given))
            if bad.size:
                row = frame.iloc[bad[0]]
                found.append(
                    f"EV {row['ev']} is on phase {row['phase']}: connection {row['connection']} has phase "
                    f"{connections.phases[wanted[bad[0]]]} only"
                )
    if found:
        raise ScenarioError(found, str(path))
