"""When EVs are plugged in, and what their drivers want: sampled, or read from a file.

Out: the table of EVs (:class:`evgrid.core.model.EVs`) and the table of sessions (:class:`Sessions`),
both with the EVs of all members, and neither dependent on the time step.

=================  ================================================================================
``sessions``       the table of sessions
``source``         the base of all sources
``sources/``       sampled sources, a file each: home, workplace, public, …
``travel``         their common part: when EVs leave and come, and how far they drive
``sampling``       who plugs in when and with what, from that
``table``          a session table of the user's
``snapshot``       exactly what a scenario sampled or imported, to be replayed
``importers/``     recorded sessions of other formats, a file each: ACN-Data, ElaadNL, NHTS
``charge_points``  charge points that EVs share: who waits, who leaves without charging
``evse``           phases of the EVSEs
``notes``          assumptions of the tables
=================  ================================================================================

A source is added by its own file and one line in :data:`evgrid.scenario.sessions.SOURCES` (sampled) or
:data:`~evgrid.scenario.sessions.SESSION_FILES` (of a file).
"""

from __future__ import annotations

from dataclasses import replace

from evgrid.core.model import Connections, EVs
from evgrid.fleet.sessions.charge_points import queued
from evgrid.fleet.sessions.notes import fleet_notes
from evgrid.fleet.sessions.sessions import COLUMNS, TEXTS, Sessions, no_fleet
from evgrid.fleet.sessions.source import Source, source_of
from evgrid.scenario import Scenario

__all__ = ["COLUMNS", "TEXTS", "Sessions", "Source", "fleet_tables", "no_fleet"]


def fleet_tables(scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
    """The EVs and the sessions of a scenario; empty tables where it has no fleet.

    Raises
    ------
    ScenarioError
        If the fleet doesn't fit the feeder, or with every fault of the session file.

    """
    if scenario.fleet is None:
        return no_fleet()
    evs, sessions = source_of(scenario.fleet).tables(scenario, connections)
    sessions = queued(scenario, connections, evs, sessions)
    return evs, replace(sessions, notes=(*sessions.notes, *fleet_notes(scenario, connections, evs)))
