"""Power flows of given powers of EVs: many cases in one batch, without fleet, aggregators or HELICS.

In: a :class:`~evgrid.runs.simulation.World`, and the power of the EVs at each step. Out: the feeder's result,
as in a run. Right where that power does not depend on the voltage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import ResultError
from evgrid.feeder.model import FeederModel
from evgrid.results import MemoryStore, ResultRecorder
from evgrid.results.limits import LimitSet
from evgrid.runs.simulation import World, coordinates
from evgrid.studies.limit_check import check_limits

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.core.model import Array


def solve_given(
    world: World, power: Callable[[int], tuple[Array, Array]]
) -> tuple[xr.Dataset, NDArray[np.bool_]]:
    """The feeder's result with given power of the EVs, and the members without solution, (member,) bool.

    power : gives the active and reactive power of a step of the feeder, (member, connection, phase) kW and
        kvar
    """
    scenario = world.scenario
    store = MemoryStore(coordinates(world))
    recorder = ResultRecorder(world.clock, scenario.record_step_s, world.sizes, store)
    model = FeederModel(scenario, world.network, recorder, fleet=True, feedback=False, base=world.base)
    recorder.register([model])
    for step in range(round(world.clock.duration_s / scenario.feeder_step_s)):
        p, q = power(step)
        model.step(step * scenario.feeder_step_s, {"fleet/p": p, "fleet/q": q})
    model.finish()
    recorder.close()
    failed = np.array([number in model.failures for number in scenario.members], np.bool_)
    return store.finish({}), failed


def violates(result: xr.Dataset, failed: NDArray[np.bool_], limits: LimitSet, what: str) -> NDArray[np.bool_]:
    """Whether each member violates any limit, or has no solution, (member,) bool.

    Raises ResultError, which begins with ``what``, if none of the limits can be checked.
    """
    _, checked = check_limits(result, limits)
    if not checked.sizes["criterion"]:
        raise ResultError(f"{what}: none of the limits can be checked on this feeder")
    found: NDArray[np.bool_] = checked["violated_any"].values | failed
    return found
