"""Nodal capacity: the additional power that one connection point can draw while all others are unchanged.

In: the base load of a deployment without EVs, and added loads to try, kW. Out: for each connection the
highest of them up to which no limit is violated at it *or any below it*, as in
:mod:`evgrid.studies.hosting_capacity`: a load on one phase may unbalance the feeder less, not more, so
that the highest that passes would be wrong. The added load is steady, all day, at unity power factor, on
the phase of the connection, or on all three where it has three.

Each connection with each added load is a member of one ensemble, all with the same base load: large
batches of power flows, checked against the limits of the study.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import ALL_PHASES, Array, Connections
from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import base_load
from evgrid.results.limits import LimitSet
from evgrid.runs.simulation import World, build_world
from evgrid.scenario import Scenario
from evgrid.studies.given_powers import solve_given, violates

if TYPE_CHECKING:
    import xarray as xr

STEPS_AT_ONCE = 20_000
"""Steps of the feeder, of all cases, that are always in memory at once."""


def nodal_capacity(
    scenario: Scenario,
    added_kw: tuple[float, ...],
    limits: LimitSet,
    at_once: int = 1,
) -> xr.DataArray:
    """Additional power that each connection can draw.

    Parameters
    ----------
    scenario
        Feeder, base load, period and the one member whose base load is used; its EVs are left out.
    added_kw
        Added loads, kW, ascending.
    limits
        Limits that must hold.
    at_once
        Cases that are in memory at once; more where the period has few steps.

    Returns
    -------
    xarray.DataArray
        (connection,) kW, a value of ``added_kw``; NaN where the lowest violates a limit. Coordinates
        ``connection_bus``: the bus of each; ``connection_at_least``: bool, True where all of ``added_kw``
        pass, so that the capacity is at least the last of them.

    Raises
    ------
    EvgridError
        If the scenario is at fault, or none of the limits can be checked.

    """
    import xarray as xr

    if len(scenario.members) != 1:
        raise ScenarioError([f"ensemble.members = {len(scenario.members)}: nodal capacity is of one member"])
    world = without_fleet(scenario)
    connections = world.connections
    at = np.repeat(np.arange(len(connections)), len(added_kw))
    kw = np.tile(np.array(added_kw), len(connections))
    found = np.zeros(len(at), np.bool_)
    at_once = max(at_once, STEPS_AT_ONCE // round(world.clock.duration_s / scenario.feeder_step_s))
    for low in range(0, len(at), at_once):
        part = slice(low, low + at_once)
        found[part] = _violates(world, added_load(connections, at[part], kw[part]), limits)
    passed = ~np.logical_or.accumulate(found.reshape(len(connections), -1), axis=1)
    highest = passed.sum(axis=1)
    capacity = np.where(highest > 0, np.array(added_kw)[highest - 1], np.nan)
    return xr.DataArray(
        capacity,
        {
            "connection": connections.name,
            "connection_bus": ("connection", world.network.grid.buses.name[connections.bus]),
            "connection_at_least": ("connection", highest == len(added_kw)),
        },
        ["connection"],
        name="nodal_capacity_kw",
        attrs={
            "long_name": "power that the connection can draw besides, others unchanged",
            "units": "kW",
        },
    )


def without_fleet(scenario: Scenario) -> World:
    """The world of a scenario without its EVs, solved in as many phases as with them."""
    from evgrid.fleet.sessions.evse import charges_on_one_phase

    feeder = scenario.feeder
    if feeder.phases == "auto" and charges_on_one_phase(scenario):
        feeder = feeder.model_copy(update={"phases": 3})
    return build_world(scenario.model_copy(update={"fleet": None, "aggregators": {}, "feeder": feeder}))


def added_load(connections: Connections, at: NDArray[np.int64], kw: Array) -> Array:
    """Power of each case, (case, connection, phase) kW: ``kw`` at connection ``at``, (case,) each."""
    phases = len(connections.phases)
    power = np.zeros((len(at), len(connections), phases))
    for case, (place, drawn) in enumerate(zip(at, kw, strict=True)):
        own = connections.phase[place]
        if phases == 1 or own == ALL_PHASES:
            power[case, place] = drawn / phases
        else:
            power[case, place, own] = drawn
    return power


def _violates(world: World, power: Array, limits: LimitSet) -> NDArray[np.bool_]:
    """Whether each case violates any limit, (case,) bool."""
    single = world.scenario
    many = single.ensemble.model_copy(update={"members": len(power)})
    cases = replace(world, scenario=single.model_copy(update={"ensemble": many}))
    cases = replace(cases, base=base_load(single, world.network))  # of the one member, which all share
    result, failed = solve_given(cases, lambda step: (power, np.zeros_like(power)))
    return violates(result, failed, limits, "nodal capacity")
