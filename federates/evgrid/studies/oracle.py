"""Lower bound of the cost of charging: every session known ahead, every EV scheduled over the whole run.

In: a scenario with its sessions. Out: a bound for every strategy that serves the drivers as far as possible,
at prices of either sign. Everything it neglects would add cost: batteries take their full
power up to the target, an EV that arrives or leaves within a slot may use its part of it in full, may
change between drawing and giving within a slot any number of times
(:mod:`evgrid.aggregator.planning.scheduler`), and only the EVSE has to permit discharge. Limits and
demand charges hold for the means of the slots, as they do in a run that meets them at every tick. Only
sessions that end within the run count.

**Losses** are the least of any power where energy costs something. Where the price is negative, losses earn:
the power drawn then lies on the chord of the converter's curve between drawing for its idle loss (or standby)
only and rated power, above the curve. The idle loss counts as drawn for the whole session, and the
battery's loss while almost nothing is given back as room that is filled at the session's least price. With
a constant efficiency there is no idle loss, and the bound is exact but for the taper.

Without a limit or a demand charge the EVs are independent and each has its exact optimum, for any number;
with one a linear program of all EVs is solved for each member (up to about 1,000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evgrid.aggregator.planning.scheduler import batteries_of, interval_means, schedule, schedule_each
from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import load_by_trafo
from evgrid.fleet.planned_sessions import converters_of, planned_sessions_of
from evgrid.runs.simulation import World

_SHORTEST_S = 60.0
"""Shortest slot, s: shorter ones would be too many."""
_AT_ONCE = 512
"""Steps of the feeder for which the base load is read at once."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The least cost of the complete sessions, (member,) each.

    cost : energy, less the credit for energy given back, wear and demand charge together
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
        Longest length of a slot, s; divides an hour. It is shortened to spans of constant prices.
    limit_kw
        Most that the feeder may draw, EVs and base load (without losses) together, kW, mean of a slot.
    demand_charge
        Currency per kW of the highest power of the EVs together, mean of ``slot_s`` as it is given.

    Raises
    ------
    ScenarioError
        If there are no prices of energy.
    ValueError
        If no schedule keeps the limit.

    """
    scenario, clock = world.scenario, world.clock
    if scenario.prices is None:
        why = "tariff: is required, or system.energy_price, to know the least cost"
        raise ScenarioError([why], scenario.name)
    tables = (scenario, world.connections, world.evs, world.sessions)
    sessions, losses = planned_sessions_of(*tables, best=True), converters_of(*tables)
    prices = scenario.prices.in_ticks(clock)
    since_hour_s = float((clock.start - clock.start.astype("datetime64[h]")) / np.timedelta64(1, "s"))
    changes = np.round(prices.edges(0.0, clock.duration_s) + since_hour_s).astype(np.int64)
    interval_s = slot_s
    slot_s = float(np.gcd.reduce(changes, initial=round(slot_s)))
    if slot_s < _SHORTEST_S:
        why = f"prices change within ticks that begin at no multiple of {_SHORTEST_S:g} s: there is no bound"
        raise ScenarioError([f"time.step = {clock.step_s:g}s: {why}"], scenario.name)
    offset_s = since_hour_s % slot_s
    slots = int(np.ceil((offset_s + clock.duration_s) / slot_s - 1e-9))
    means = interval_means(
        slot_s * np.arange(slots, dtype=np.float64) - offset_s + since_hour_s, slot_s, interval_s
    )
    drawn, given = prices.means(slot_s * np.arange(slots + 1, dtype=np.float64) - offset_s)
    base = None if limit_kw is None else _base_load(world, slots, slot_s, offset_s)
    members, slot_h = len(scenario.members), slot_s / 3600.0
    cost, energy_cost, given_kwh = np.zeros((3, members))
    done = sessions.departure_s <= clock.duration_s
    # power at the best efficiency that fills the battery as fast as rated power
    full_kw = sessions.charge_kw * losses.charge_efficiency / sessions.charge_efficiency
    for member in range(members):
        rows = np.flatnonzero(done & (world.evs.member[sessions.ev] == member))
        if not len(rows):
            continue
        begin, end = ((at[rows] + offset_s) / slot_s for at in (sessions.arrival_s, sessions.departure_s))
        capacity, soc = sessions.capacity_kwh[rows], sessions.soc_arrival[rows]
        reach = sessions.charge_efficiency[rows] * full_kw[rows] * slot_h * (end - begin)
        need = np.where(
            soc > sessions.soc_target[rows], sessions.soc_target[rows] - soc, sessions.soc_reach[rows] - soc
        )
        both_ways = sessions.discharge_kw[rows] > 0
        depth = np.where(both_ways, np.maximum(soc - sessions.soc_floor[rows], 0.0), 0.0)
        batteries = batteries_of(
            begin, end, np.minimum(need * capacity, reach), full_kw[rows], slots, slot_h,
            depth * capacity, None, sessions.charge_efficiency[rows], sessions.discharge_efficiency[rows],
            sessions.discharge_kw[rows],
        )  # fmt: skip
        # at prices below 0: the chord above the idle loss, and the most that this may earn besides
        rated, idle = sessions.charge_kw[rows], losses.charge_idle_kw[rows]
        steepest = np.divide(rated - idle, full_kw[rows], out=np.zeros(len(rows)), where=full_kw[rows] > 0)
        price = np.where(drawn < 0, drawn * steepest[:, None], drawn)
        out, lost = losses.battery_out_kw[rows], losses.discharge_idle_kw[rows]
        flattest = np.divide(
            sessions.discharge_kw[rows], (out - lost) * sessions.discharge_efficiency[rows],
            out=np.ones(len(rows)), where=out > lost,
        )  # fmt: skip
        earned = np.where(
            given < wear_per_kwh, (given - wear_per_kwh) * flattest[:, None] + wear_per_kwh, given
        )
        here = np.clip(np.minimum(np.arange(1, slots + 1), end[:, None]), begin[:, None], None)
        here = slot_h * (here - np.clip(np.arange(slots), begin[:, None], here))
        idle_cost = (here * np.minimum(drawn, 0.0)).sum(axis=1) * idle
        least = np.where(here > 0, price, 0.0).min(axis=1, initial=0.0)
        lost = np.maximum(lost, out - sessions.discharge_kw[rows] / sessions.discharge_efficiency[rows])
        idle_cost += np.where(
            both_ways, here.sum(axis=1) * lost * least / sessions.charge_efficiency[rows], 0.0
        )
        if base is None and demand_charge <= 0:
            best = schedule_each(batteries, price, slot_h, earned, wear_per_kwh, alternates=True)
        else:
            limit = None if base is None or limit_kw is None else limit_kw - base[member][None]
            best = schedule(
                batteries, price, slot_h, earned, limit, demand_charge=demand_charge,
                wear_per_kwh=wear_per_kwh, alternates=True, means=means,
            )  # fmt: skip
        energy = slot_h * float((best.charge * price).sum() - (best.discharge * earned).sum())
        cost[member] = best.cost + idle_cost.sum()
        energy_cost[member] = energy + idle_cost.sum()
        given_kwh[member] = slot_h * float(best.discharge.sum())
    return Bound(cost, energy_cost, given_kwh)


def _base_load(world: World, slots: int, slot_s: float, offset_s: float) -> Array:
    """Mean base load of the feeder in each slot's part of the run, (member, slot) kW."""
    scenario = world.scenario
    step_s = scenario.feeder_step_s
    tick_s = min(step_s, slot_s)
    ticks_s = np.arange(0.0, world.clock.duration_s - 1e-6, tick_s)
    steps, of_tick = np.unique(np.floor(ticks_s / step_s + 1e-9), return_inverse=True)
    load = [
        load_by_trafo(scenario, world.network, part * step_s, base=world.base).sum(axis=1)
        for part in np.split(steps, np.arange(_AT_ONCE, len(steps), _AT_ONCE))
    ]
    by_tick = np.concatenate(load, axis=1)[:, of_tick]
    slot = np.minimum(((ticks_s + offset_s) / slot_s + 1e-9).astype(np.int64), slots - 1)
    total = np.stack([np.bincount(slot, load_kw, slots) for load_kw in by_tick])
    return np.asarray(total / np.bincount(slot, minlength=slots))
