"""Chargers at full power all the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from evgrid.core.model import Connections, EVs
from evgrid.fleet.sessions.sessions import MOST, Sessions
from evgrid.fleet.sessions.source import Source
from evgrid.fleet.sessions.travel import SampledSessions, Slot
from evgrid.scenario import Scenario

_SOC = 0.1
"""State of charge at the start."""
_HOURS = 2e4
"""Hours of full power that a battery holds, so that it is far from its target in any run."""


class FullPowerSessions(Source):
    """All chargers in use at their rated power for the whole run, whatever the vehicle takes.

    The check that a connection request asks for: nothing is assumed about drivers. Members differ in
    their base load, their places and their phases only. A strategy or a local function may still reduce
    the power.
    """

    sampled: ClassVar[bool] = True
    limited_by_vehicle: ClassVar[bool] = False

    source: Literal["full_power"] = "full_power"
    """The name of this source."""

    def tables(self, scenario: Scenario, connections: Connections) -> tuple[EVs, Sessions]:
        """See :class:`evgrid.fleet.sessions.source.Source`."""
        from evgrid.fleet.sessions.sampling import sample_sessions

        assert scenario.fleet is not None
        limitless = {"charge_kw": MOST, "dc_kw": MOST, "charge_curve": None}
        vehicle = scenario.fleet.vehicle.model_copy(update=limitless)
        fleet = scenario.fleet.model_copy(
            update={"sessions": _PluggedIn(warm_up_days=1), "vehicle": vehicle, "mix": None}
        )
        evs, sessions = sample_sessions(scenario.model_copy(update={"fleet": fleet}), connections)
        start = np.minimum(_SOC, sessions.soc_target / 2)
        capacity = sessions.charge_kw * _HOURS
        return evs, replace(sessions, soc_arrival=start, capacity_kwh=capacity, notes=())


class _PluggedIn(SampledSessions):
    """EVs that never leave."""

    def slots_of(self, seed: int, member: int, day: int, index: int, count: int) -> Iterator[Slot]:
        never = np.full(count, np.nan)
        yield Slot(index, never, np.zeros(count), never, None)
