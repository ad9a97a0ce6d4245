"""Sessions that were recorded elsewhere, as a scenario names them: what all importers share.

In: the settings of the file. Out: the EVs and sessions, at the feeder's connection points, with
the importer's report (rows read, dropped and why) and the sessions that can't be delivered in their
stay as sentences (``Sessions.notes``, ``Sessions.unreachable``).

A recorded session draws at most the EVSE's rating (``fleet.charger.power_kw`` where the file says
none), whatever ``fleet.vehicle`` could: the vehicle is not known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from evgrid.core.model import ALL_PHASES, Connections, EVs
from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.importers.imported import Imported, undeliverable
from evgrid.fleet.sessions.sessions import Sessions
from evgrid.fleet.sessions.source import Source
from evgrid.fleet.sessions.table import tables_of
from evgrid.scenario import Scenario
from evgrid.scenario.fields import ElementName


class ImportedFile(Source):
    """Recorded sessions of another format: a file, and where its EVSEs are."""

    connections: ElementName | list[ElementName] | dict[ElementName, ElementName] | None = None
    """Where the EVSEs (or households) of the file are: one connection point, several over which they are
    dealt in order of their first session, or a mapping; left out: dealt over all connection points."""

    def read(self, scenario: Scenario) -> Imported:
        """The sessions of the file, and the report of its rows.

        Raises ScenarioError if it is not of its format.
        """
        raise NotImplementedError

    def tables(self, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
        """The EVs and sessions of the file, with notes and the sessions that don't fit into their stay.

        Raises
        ------
        ScenarioError
            If the file is not of its format, holds no sessions, or doesn't fit the feeder.

        """
        fleet = scenario.fleet
        assert fleet is not None
        imported = self.read(scenario)
        report = imported.report
        if imported.table.empty:
            raise ScenarioError([f"holds no sessions that can be used. {report}"], report.source)
        placed = _at(self.connections, imported, scenario, connections)
        most_kw = fleet.vehicle.dc_kw if fleet.charger.current == "dc" else fleet.vehicle.charge_kw
        lacking = _unreachable(placed.table, min(fleet.charger.power_kw, most_kw))
        frame = placed.plain().reset_index(drop=True)
        evs, sessions = tables_of(frame, report.source, scenario, connections)
        notes = [str(placed.report), *sessions.notes]
        if sessions.left_out:
            notes.append(f"{sessions.left_out} of {len(frame)} sessions lie outside the run.")
        return evs, replace(sessions, notes=tuple(notes), unreachable=lacking)


def _at(
    where: str | list[str] | dict[str, str] | None, imported: Imported, scenario: Scenario,
    connections: Connections,
) -> Imported:  # fmt: skip
    """The sessions at the connection points that the scenario names, or at all that fit."""
    assert scenario.fleet is not None
    if where is not None:
        if isinstance(where, list) and not where:
            raise ScenarioError(["fleet.sessions.connections is empty: name one connection point at least"])
        return imported.at(where)
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
