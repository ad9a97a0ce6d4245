"""Whether a scenario's EVs charge on one phase, so that the feeder is to be solved in three.

That follows from the settings and from whole session files alone, not from what is drawn, so that all
members and penetrations of a scenario are solved alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evgrid.scenario import Scenario
from evgrid.scenario.fleet import Fleet
from evgrid.scenario.sessions import SampledSessions, SessionFile


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
    if isinstance(fleet.sessions, SessionFile):
        return _in_file(fleet.sessions.file, fleet.charger.phases == 1)
    if fleet.charger.phases == 1:
        return True
    return isinstance(fleet.sessions, SampledSessions) and _has_one_phase_types(fleet)


def _has_one_phase_types(fleet: Fleet) -> bool:
    mix = fleet.vehicle_mix
    if mix is None or fleet.charger.current == "dc":
        return False
    return any(kind.share and not kind.ac_3p_kw for kind in mix.types.values())


def _in_file(path: Path, usual: bool) -> bool:
    """Whether a session file has EVs on one phase; ``usual``: whether those without a phase are."""
    from evgrid.fleet.frozen import frozen_on_one_phase, is_frozen
    from evgrid.fleet.table import phases_in

    if is_frozen(path):
        return frozen_on_one_phase(path)
    given = phases_in(path)
    return bool(np.isin(given, ("a", "b", "c")).any() or (usual and (given == "").any()))
