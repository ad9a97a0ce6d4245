"""Sessions that were recorded elsewhere, as a scenario names them: ACN-Data, ElaadNL, NHTS.

In: the settings of the file. Out: the EVs and sessions, at the feeder's connection points, with
the importer's report (rows read, dropped and why) and the sessions that can't be delivered in their
stay as sentences (``Sessions.notes``, ``Sessions.unreachable``).

A recorded session draws at most the EVSE's rating (``fleet.charger.power_kw`` where the file says
none), whatever ``fleet.vehicle`` could: the vehicle is not known.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd

from evgrid.core.model import ALL_PHASES, Connections, EVs
from evgrid.errors import ScenarioError
from evgrid.fleet.importers import Imported, read_acn, read_elaad, read_nhts, undeliverable
from evgrid.fleet.sessions import Sessions
from evgrid.fleet.table import tables_of
from evgrid.scenario import Scenario
from evgrid.scenario.sessions import AcnFile, ElaadFile, ImportedFile


def import_sessions(
    source: ImportedFile, scenario: Scenario, connections: Connections
) -> tuple[EVs, Sessions]:
    """The EVs and sessions of a recorded file.

    Raises
    ------
    ScenarioError
        If the file is not of its format, holds no sessions, or doesn't fit the feeder.

    """
    fleet = scenario.fleet
    assert fleet is not None
    if isinstance(source, AcnFile):
        path = source.acn
        imported = read_acn(path, source.charge_kw, source.ratings, fleet.vehicle)
    elif isinstance(source, ElaadFile):
        path = source.elaad
        try:
            imported = read_elaad(path, source.times, source.zone, fleet.vehicle, source.time_format)
        except ValueError as error:
            raise ScenarioError([f"fleet.sessions.{error}"]) from None
    else:
        path = source.nhts
        first = source.day or scenario.time.start.date() - timedelta(days=1)
        end = scenario.time.start + timedelta(seconds=scenario.clock.duration_s)
        days = source.days or max(1, (end.date() - first).days + 1)
        imported = read_nhts(path, first, fleet.vehicle, days, wave=source.wave)
    report = imported.report
    if imported.table.empty:
        raise ScenarioError([f"holds no sessions that can be used. {report}"], str(path))
    placed = _at(source, imported, scenario, connections)
    most_kw = fleet.vehicle.dc_kw if fleet.charger.current == "dc" else fleet.vehicle.charge_kw
    lacking = _unreachable(placed.table, min(fleet.charger.power_kw, most_kw))
    frame = placed.plain().reset_index(drop=True)
    evs, sessions = tables_of(frame, str(path), scenario, connections)
    notes = [str(placed.report), *sessions.notes]
    if sessions.left_out:
        notes.append(f"{sessions.left_out} of {len(frame)} sessions lie outside the run.")
    return evs, replace(sessions, notes=tuple(notes), unreachable=lacking)


def _at(source: ImportedFile, imported: Imported, scenario: Scenario, connections: Connections) -> Imported:
    """The sessions at the connection points that the scenario names, or at all that fit."""
    assert scenario.fleet is not None
    if source.connections is not None:
        if isinstance(source.connections, list) and not source.connections:
            raise ScenarioError(["fleet.sessions.connections is empty: name one connection point at least"])
        return imported.at(source.connections)
    fit = np.arange(len(connections)) < connections.on_feeder
    if scenario.fleet.charger.phases == 3 and len(connections.phases) == 3:
        fit &= connections.phase == ALL_PHASES
    names = [str(name) for name in connections.name[fit]]
    if not names:
        raise ScenarioError(
            ["fleet.charger.phases = 3: the feeder has no three-phase connection point; must be 1"]
        )
    return imported.at(names)


def _unreachable(table: pd.DataFrame, usual_kw: float) -> tuple[str, ...]:
    """A sentence for each session that can't be delivered in its stay at the EVSE's rating."""
    rated = table.copy()
    rated["charge_kw"] = rated["charge_kw"].fillna(usual_kw) if "charge_kw" in rated else usual_kw
    listed = undeliverable(rated)
    name = "session" if "session" in listed else "ev"
    return tuple(f"{row[name]}: {row['reason']}" for _, row in listed.iterrows())
