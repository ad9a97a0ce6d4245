"""Sources of sessions: settings from which the tables of EVs and sessions follow."""

from __future__ import annotations

from evgrid.core.model import Connections, EVs
from evgrid.fleet.sessions.sessions import Sessions
from evgrid.scenario import Scenario
from evgrid.scenario.fleet import Fleet
from evgrid.scenario.sessions import SessionSource


class Source(SessionSource):
    """A source of sessions: its settings are its fields, each with its text below it."""

    def tables(self, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
        """The EVs and sessions of a scenario that names this source.

        Raises
        ------
        ScenarioError
            If a file is at fault, or the fleet doesn't fit the feeder.

        """
        raise NotImplementedError

    def on_one_phase(self, fleet: Fleet) -> bool:
        """Whether EVs of the source charge on one phase; by default where the scenario's charger does.

        Raises ScenarioError if a file can't be read.
        """
        return fleet.charger.on_one_phase


def source_of(fleet: Fleet) -> Source:
    """The source that a scenario's fleet names."""
    source = fleet.sessions
    assert isinstance(source, Source), f"{type(source).__name__} extends no evgrid.fleet.sessions.Source"
    return source
