"""The phases of EVSEs, and whether any charge on one, so that the feeder is to be solved in three.

The latter follows only from the settings and whole session files, not from what is drawn, so that all
members and penetrations of a scenario are solved alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import ALL_PHASES, Array, Connections
from evgrid.core.random_streams import Purpose, stream
from evgrid.fleet.sessions.source import source_of
from evgrid.scenario import Scenario


def charges_on_one_phase(scenario: Scenario) -> bool:
    """Whether EVs on the feeder charge on one phase: by single-phase EVSEs or on-board chargers.

    Raises
    ------
    ScenarioError
        If the session file can't be read.

    """
    fleet = scenario.fleet
    if fleet is None or fleet.count == 0:
        return False
    return source_of(fleet).on_one_phase(fleet)


def ev_draws(scenario: Scenario, member: int, count: int) -> Array:
    """Uniform draws of each EV of a member, (count, 2): bidirectional, phase. Row r never changes."""
    return stream(scenario.ensemble.seed, member, Purpose.EV).random((count, 2))


def charger_phases(
    connections: Connections, at: NDArray[np.int64], phases: int | NDArray[np.int64], draw: Array
) -> NDArray[np.int8]:
    """Phase of the charger of each EV, (ev,): 0, 1, 2 or ALL_PHASES.

    ``at``: (ev,) connection of each; ``phases``: 1 or 3, one or (ev,); ``draw``: (ev,) uniform, for
    the phase of a single-phase charger at a three-phase connection.
    """
    if len(connections.phases) == 1:
        return np.full(len(at), ALL_PHASES, np.int8)
    own = connections.phase[at]
    one = np.where(own == ALL_PHASES, (draw * 3).astype(np.int8), own)
    return np.where(np.asarray(phases) == 3, ALL_PHASES, one).astype(np.int8)


def phases_at(connections: Connections, at: NDArray[np.int64], scenario: Scenario) -> NDArray[np.int64]:
    """Phases of the EVSE at each connection, (ev,) 1 or 3: the charger's, but no more than there are."""
    assert scenario.fleet is not None
    phases = scenario.fleet.charger.phases
    single = (connections.phase[at] != ALL_PHASES) & (len(connections.phases) == 3)
    return np.where(single, 1, phases).astype(np.int64)
