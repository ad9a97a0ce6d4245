"""The sessions as a planner knows them, with the energy that is within reach in each.

In: the sessions of a run. Out: :class:`evgrid.core.model.PlannedSessions`. State of charge is carried from
session to session as by a fleet that serves everyone as far as it can: so it doesn't depend on a strategy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import charge_as_fast_as_possible
from evgrid.battery.laws import LEAST_SOC
from evgrid.core.model import Array, Connections, EVs, PlannedSessions
from evgrid.fleet.extras import in_force
from evgrid.fleet.sessions import Sessions
from evgrid.scenario import Scenario


def planned_sessions_of(
    scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions, best: bool = False
) -> PlannedSessions:
    """The planned sessions of a run's EVs.

    ``best``: efficiencies are the best at any power, in place of those at the rated power: no schedule does
    better, as a bound must assume.
    """
    sessions = in_force(scenario, connections, evs, sessions)
    kinds, kind_of = sessions.kinds()
    constants = kinds.rows
    arrival, reach = sessions.soc_arrival.astype(np.float64), np.zeros(len(sessions))
    rank = np.arange(len(sessions)) - np.searchsorted(sessions.ev, sessions.ev)
    for number in range(int(rank.max(initial=-1)) + 1):
        rows = np.flatnonzero(rank == number)
        if number:
            carried = np.maximum(
                LEAST_SOC, reach[rows - 1] - sessions.drive_kwh[rows] / sessions.capacity_kwh[rows]
            )
            arrival[rows] = np.where(np.isnan(sessions.drive_kwh[rows]), arrival[rows], carried)
        stay_s = sessions.departure_s[rows] - sessions.arrival_s[rows]
        fastest = charge_as_fast_as_possible(kinds, kind_of[rows], arrival[rows], stay_s)
        reach[rows] = np.maximum(np.minimum(fastest, sessions.soc_target[rows]), arrival[rows])
    charge, discharge = (e[kind_of] for e in _efficiencies(constants, best))
    return PlannedSessions(
        sessions.ev.astype(np.int64), sessions.arrival_s, sessions.departure_s, arrival, sessions.soc_target,
        sessions.soc_floor, np.minimum(reach, np.maximum(sessions.soc_target, arrival)),
        sessions.capacity_kwh, sessions.charge_kw, sessions.discharge_kw, charge, discharge,
        (constants["full_charge_s"] - constants["soc_target"] * constants["s_per_soc"])[kind_of],
        constants["knee_soc"][kind_of], _full_soc(constants)[kind_of],
    )  # fmt: skip


def _full_soc(kinds: NDArray[np.void]) -> Array:
    """State of charge at which power that falls in a straight line from the knee of the charging curve on,
    and takes as long to the target, would be 0, (kind,): 1 for a taper whose cut-off the target is below.
    """
    full = np.ones(len(kinds))
    time = kinds["knee_s"] / kinds["s_per_soc"]  # in those that full power takes for a whole battery
    with np.errstate(divide="ignore", invalid="ignore"):
        width = 1.0 - kinds["knee_soc"]
        straight = width * np.log(width / (1.0 - kinds["soc_target"]))
    rows = np.flatnonzero((time > 0.0) & ~(np.abs(straight - time) <= 1e-12 * time))
    knee, target, time = kinds["knee_soc"][rows], kinds["soc_target"][rows], time[rows]
    low, high = target + 1e-12, np.full(len(rows), 2.0)  # the time falls with it, from infinity
    for _ in range(50):
        middle = (low + high) / 2.0
        longer = (middle - knee) * np.log((middle - knee) / (middle - target)) > time
        low, high = np.where(longer, middle, low), np.where(longer, high, middle)
    full[rows] = high
    return full


@dataclass(frozen=True, slots=True)
class Converters:
    """Losses of the EVSEs of planned sessions, (session,) each.

    charge_efficiency, discharge_efficiency : at the rated powers, 0 to 1
    charge_idle_kw : most that an EV may draw of which its battery gets nothing, kW at the grid
    discharge_idle_kw : most that its battery may lose while the grid gets nothing, kW at the battery
    battery_out_kw : what the battery gives at ``discharge_kw``, kW
    """

    charge_efficiency: Array
    discharge_efficiency: Array
    charge_idle_kw: Array
    discharge_idle_kw: Array
    battery_out_kw: Array


def converters_of(scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions) -> Converters:
    """The converters of the sessions of :func:`planned_sessions_of`, in their order."""
    kinds, kind_of = in_force(scenario, connections, evs, sessions).kinds()
    rows = kinds.rows
    standby = scenario.fleet.vehicle.standby_kw if scenario.fleet is not None else 0.0
    charge, discharge = _efficiencies(rows, best=False)
    found = (
        charge, discharge, np.maximum(rows["charge_a"], standby), rows["discharge_a"], rows["most_out_kw"],
    )  # fmt: skip
    return Converters(*(np.asarray(of_kind[kind_of], np.float64) for of_kind in found))


def _efficiencies(kinds: NDArray[np.void], best: bool) -> tuple[Array, Array]:
    """Of charging and discharging, (kind,) each: at the rated power, or the best at any power."""
    loss = []
    for way, power_kw in (("charge", kinds["battery_kw"]), ("discharge", kinds["most_out_kw"])):
        a, b, c = (kinds[f"{way}_{name}"] for name in "abc")
        if best:  # a / P + b + c P is least at sqrt(a / c)
            power_kw = np.minimum(
                power_kw, np.sqrt(np.divide(a, c, out=np.full_like(a, np.inf), where=c > 0))
            )
        loss.append(np.divide(a, power_kw, out=np.zeros_like(a), where=power_kw > 0) + b + c * power_kw)
    return 1.0 / (1.0 + loss[0]), np.maximum(1.0 - loss[1], 1e-3)
