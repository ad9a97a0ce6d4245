"""Estimate of a scenario's memory, before anything is allocated.

The estimates are within a factor of about two; they serve to refuse runs that can't fit, and to split the
members of a batch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network
    from evgrid.scenario import Scenario

BYTES_OF_AN_EV = 2000.0
"""Bytes of an EV, and of a session."""
_NUMBER = 8.0


def flow_bytes(network: Network) -> float:
    """Bytes of the power flow of one member: about 20 numbers for each element and phase."""
    sizes = network.sizes
    return _NUMBER * 20 * sizes["phase"] * (sizes["bus"] + sizes["line"] + sizes["trafo"])


def load_bytes(network: Network) -> float:
    """Bytes of the base load of one member."""
    return _NUMBER * 96 * 20 * network.sizes["connection"]


def sensitivity_bytes(network: Network) -> float:
    """Bytes of the sensitivities of the voltages of all connection points to the power of all."""
    sizes = network.sizes
    return _NUMBER * 4 * (sizes["connection"] * sizes["phase"]) ** 2


def memory_of(scenario: Scenario, network: Network) -> dict[str, float]:
    """Least memory of a run, bytes, by the settings that need it."""
    members, clock = float(scenario.ensemble.members), scenario.clock
    intervals = clock.duration_s / scenario.record_step_s
    found = {
        "ensemble.members": members * (2 * flow_bytes(network) + load_bytes(network)),
        "time.duration / record.step": _NUMBER * 4 * intervals,
    }
    fleet = scenario.fleet
    if fleet is None:
        return found
    households = float(network.connections.households.sum())
    areas = [] if fleet.areas is None else [area.penetration for area in fleet.areas.values()]
    most = max([fleet.penetration or 0.0, *areas])
    evs = members * ((fleet.count or most * households) + fleet.upstream)
    days = clock.duration_s / DAY_S
    link = scenario.communication
    found["the EVs (ensemble.members, fleet)"] = BYTES_OF_AN_EV * evs * (2 + days)
    found["communication.latency / time.step"] = _NUMBER * evs * link.latency / clock.step_s
    found["communication.outages_per_day"] = 4 * _NUMBER * evs * link.outages_per_day * days
    if fleet.envelope is not None:
        found["fleet.envelope.horizon / slot"] = 8 * _NUMBER * (evs + members) * fleet.envelope.slots
    for name, settings in scenario.aggregators.items():
        horizon = getattr(settings, "horizon", None)
        if horizon is not None:
            found[f"aggregators.{name}.horizon"] = 4 * _NUMBER * members * horizon / clock.step_s
        if settings.strategy_class.goes_by_sensitivities():
            found[f"aggregators.{name}.strategy (by voltages)"] = sensitivity_bytes(network)
        if settings.strategy_class.uses_system:
            found["time.duration / time.step"] = 4 * _NUMBER * members * clock.duration_s / clock.step_s
    return found


def check_memory(scenario: Scenario, network: Network) -> None:
    """Raise ScenarioError if a run would take more memory than the machine has."""
    needed = memory_of(scenario, network)
    total, room = sum(needed.values()), memory_of_machine()
    if total > room:
        most = max(needed, key=needed.__getitem__)
        raise ScenarioError(
            [
                f"{most}: the run would take about {_gb(total)} of memory, of which "
                f"{_gb(needed[most])} for this; the machine has {_gb(room)}"
            ]
        )


def memory_of_machine() -> float:
    """Physical memory, bytes; infinity where the system doesn't say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _gb(size: float) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e12:,.3g} TB"
