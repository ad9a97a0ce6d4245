"""The least that charging can cost: every session known ahead, every EV scheduled over the whole run.

In: a scenario with its sessions. Out: a bound that no strategy beats which gives the drivers what it could.
It is one because whatever it neglects would cost more: batteries take their full power up to the target,
losses are the best of any power, an EV that comes or leaves within a slot may use all that its part
of it allows, and nobody but the EVSE has to permit discharge. Only sessions that end within the run count.

Without a limit or a demand charge the EVs don't know each other and each has its exact optimum, however many
they are; with one a program of all EVs is solved for each member (up to about 1,000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evgrid.aggregator.scheduler import alone, batteries_of, schedule
from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import load_by_trafo
from evgrid.fleet.stays import stays_of
from evgrid.model import Array
from evgrid.simulation import World
from evgrid.tariff import prices


@dataclass(frozen=True, slots=True)
class Bound:
    """The least cost of the complete sessions, (member,) each.

    cost : energy, less the credit for what is given back, wear and demand charge together
    energy_cost : the first of these
    given_kwh : energy given back, kWh at the grid
    """

    cost: Array
    energy_cost: Array
    given_kwh: Array


def least_cost(
    world: World,
    wear_per_kwh: float = 0.05,
    slot_s: float = 900.0,
    limit_kw: float | None = None,
    demand_charge: float = 0.0,
) -> Bound:
    """Bound the cost of a run's complete sessions from below.

    Parameters
    ----------
    world
        The scenario, its network and its sessions.
    wear_per_kwh
        Currency per kWh given back.
    slot_s
        Length of a slot, s; divides an hour, within which prices are constant.
    limit_kw
        Most that the feeder may draw, EVs and base load (without losses) together, kW.
    demand_charge
        Currency per kW of the highest power of the EVs together, mean of a slot.

    Raises
    ------
    ScenarioError
        If the scenario has no tariff.
    ValueError
        If no schedule keeps the limit.

    """
    scenario, clock = world.scenario, world.clock
    if scenario.tariff is None:
        raise ScenarioError(["tariff: is required to know the least cost"], scenario.name)
    stays = stays_of(scenario, world.connections, world.evs, world.sessions, best=True)
    offset_s = float((clock.start - clock.start.astype("datetime64[h]")) / np.timedelta64(1, "s")) % slot_s
    slots = int(np.ceil((offset_s + clock.duration_s) / slot_s - 1e-9))
    begins_s = slot_s * np.arange(slots) - offset_s
    drawn, given = prices(scenario.tariff, clock.timestamps(begins_s))
    base = None
    if limit_kw is not None:
        base = load_by_trafo(scenario, world.network, np.maximum(begins_s, 0.0)).sum(axis=1)
    members, slot_h = len(scenario.members), slot_s / 3600.0
    cost, energy_cost, given_kwh = np.zeros((3, members))
    done = stays.departure_s <= clock.duration_s
    for member in range(members):
        rows = np.flatnonzero(done & (world.evs.member[stays.ev] == member))
        if not len(rows):
            continue
        begin, end = ((at[rows] + offset_s) / slot_s for at in (stays.arrival_s, stays.departure_s))
        capacity, soc = stays.capacity_kwh[rows], stays.soc_arrival[rows]
        reach = stays.charge_efficiency[rows] * stays.charge_kw[rows] * slot_h * (end - begin)
        need = np.where(
            soc > stays.soc_target[rows], stays.soc_target[rows] - soc, stays.soc_reach[rows] - soc
        )
        depth = np.where(stays.discharge_kw[rows] > 0, np.maximum(soc - stays.soc_floor[rows], 0.0), 0.0)
        batteries = batteries_of(
            begin, end, np.minimum(need * capacity, reach), stays.charge_kw[rows], slots, slot_h,
            depth * capacity, None, stays.charge_efficiency[rows], stays.discharge_efficiency[rows],
            stays.discharge_kw[rows],
        )  # fmt: skip
        if base is None and demand_charge <= 0:
            best = alone(batteries, drawn, slot_h, given, wear_per_kwh)
        else:
            limit = None if base is None or limit_kw is None else limit_kw - base[member][None]
            best = schedule(
                batteries, drawn, slot_h, given, limit, demand_charge=demand_charge, wear_per_kwh=wear_per_kwh
            )
        cost[member] = best.cost
        energy_cost[member] = slot_h * float((best.charge @ drawn).sum() - (best.discharge @ given).sum())
        given_kwh[member] = slot_h * float(best.discharge.sum())
    return Bound(cost, energy_cost, given_kwh)
