"""What the chargers report at a moment: state, limits, needs, and what each EV can offer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import (
    charge,
    charge_limit_kw,
    drawn_kws,
    soc_that_reaches,
)
from evgrid.battery.laws import PERMITTED, refusal
from evgrid.battery.records import Floats
from evgrid.core.jit import njit
from evgrid.fleet.kernels.lanes import LANES, Blocks, Places, in_use
from evgrid.fleet.kernels.records import Details, Fleet


class Status(NamedTuple):
    """What the chargers report, (ev,) each, 0 for EVs that are away.

    plugged : 1 if plugged in
    soc : state of charge
    p_max, p_min : most and least power at the grid now, kW
    energy_needed : energy to the target, kWh at the grid
    time_left, time_needed : s to the departure, and to charge to the target as fast as possible
    """

    plugged: Floats
    soc: Floats
    p_max: Floats
    p_min: Floats
    energy_needed: Floats
    time_left: Floats
    time_needed: Floats


class Flexibility(NamedTuple):
    """What each EV can offer, (ev,) each: kW, and kWh in the battery at the end of the horizon."""

    p_min: Floats
    p_max: Floats
    e_min: Floats
    e_max: Floats
    up: Floats
    down: Floats


@njit
def report_ev_results(
    places: Places, state: Blocks, mean_kw: Floats, ev_power_kw: Floats, ev_soc: Floats
) -> None:
    """Fill each EV's mean power and state of charge, of those that were plugged in in this tick."""
    ev_power_kw[:] = 0.0
    ev_soc[:] = np.nan
    for lane in in_use(places):
        block, i = state[lane // LANES], lane % LANES
        ev = block["ev"][i]
        ev_power_kw[ev] = mean_kw[ev]
        if block["session"][i] >= 0:
            ev_soc[ev] = block["soc"][i]


@njit
def status(now_s: float, fleet: Fleet, report: Status) -> None:
    """What the chargers report at ``now_s``; fills ``report``.

    An EV whose laxity is used up reports that it can't give anything back.
    """
    for array in report:
        array[:] = 0.0
    for lane in in_use(fleet.places):
        block, i = fleet.state[lane // LANES], lane % LANES
        ev = block["ev"][i]
        kind = fleet.kinds.rows[block["kind"][i]]
        curve = fleet.kinds.curves[kind["curve"]]
        own = block["soc"][i]
        report.plugged[ev] = 1.0
        report.soc[ev] = own
        report.time_left[ev] = block["departure_s"][i] - now_s
        if own < kind["soc_target"]:
            battery_kw = charge_limit_kw(kind, curve, own)
            drawn_kw, _ = drawn_kws(kind, 1.0, battery_kw, battery_kw * battery_kw)
            report.p_max[ev] = min(drawn_kw, kind["charge_kw"])
            _, on_s, first, second = charge(kind, curve, own, kind["battery_kw"], np.inf)
            report.energy_needed[ev] = drawn_kws(kind, on_s, first, second)[0] / 3600.0
            report.time_needed[ev] = on_s
        if own > kind["soc_floor"] and not block["guarded"][i]:
            report.p_min[ev] = -kind["discharge_kw"]


@njit
def may_discharge(fleet: Fleet, details: Details, lane: int, willing: bool) -> bool:
    """Whether the EV in a lane has permission to discharge now; floors are not asked."""
    own, i = details.physics[lane // LANES], lane % LANES
    kind = fleet.kinds.rows[fleet.state[lane // LANES]["kind"][i]]
    reason = refusal(
        float(own["refusal"][i]), kind["discharge_kw"], own["out_kws"][i], own["discharging_s"][i],
        details.options["throughput_kws"], details.options["discharging_s"], willing,
    )  # fmt: skip
    return bool(reason == PERMITTED)


@njit
def withhold(fleet: Fleet, details: Details, willing: bool, p_min_kw: Floats) -> None:
    """Set the reported least power, (ev,), of EVs that may not discharge now to 0."""
    for lane in in_use(fleet.places):
        if not may_discharge(fleet, details, lane, willing):
            p_min_kw[fleet.state[lane // LANES]["ev"][lane % LANES]] = 0.0


@njit
def flexibility(
    now_s: float, horizon_s: float, fleet: Fleet, details: Details, willing: bool,
    power_kw: NDArray[np.float64], offer: Flexibility,
) -> None:  # fmt: skip
    """What each EV can offer for ``horizon_s`` from ``now_s``; fills ``offer``, 0 while away.

    With P > 0 charging, POP the power of now (``power_kw``) and E the energy in the battery:

        up = min(POP - Pmin, POP + (E - Emin(t + horizon)) eta_out / horizon)
        down = min(Pmax - POP, (Emax - E) / (eta_in horizon) - POP)

    neither below 0; where E is below Emin, so that charging has to make it up, the first divides by
    eta_in instead. ``Emin``, at the end of the horizon: what still reaches the target by departure at
    full power, and not below the floor of a session that may discharge (for one that may not, not below
    what it has). ``Emax``: the target. An EV that departs within the horizon, or whose laxity is used up,
    offers nothing. eta_out, eta_in: of discharging at Pmin, of charging at Pmax.
    """
    for array in offer:
        array[:] = 0.0
    for lane in in_use(fleet.places):
        block, i = fleet.state[lane // LANES], lane % LANES
        ev = block["ev"][i]
        kind = fleet.kinds.rows[block["kind"][i]]
        curve = fleet.kinds.curves[kind["curve"]]
        soc, guarded = block["soc"][i], block["guarded"][i]
        capacity = kind["capacity_kwh"]
        energy = soc * capacity
        may = soc > kind["soc_floor"] and may_discharge(fleet, details, lane, willing)
        limit_kw = charge_limit_kw(kind, curve, soc) if soc < kind["soc_target"] else 0.0
        drawn_kw = 0.0
        if limit_kw > 0.0:
            drawn_kw = min(drawn_kws(kind, 1.0, limit_kw, limit_kw * limit_kw)[0], kind["charge_kw"])
        offer.p_max[ev] = drawn_kw
        offer.p_min[ev] = -kind["discharge_kw"] if may else 0.0
        offer.e_max[ev] = max(kind["soc_target"], soc) * capacity
        left_s = block["departure_s"][i] - now_s - horizon_s
        reach = soc_that_reaches(kind, curve, left_s)
        least = max(kind["soc_floor"] if may else soc, reach)
        offer.e_min[ev] = least * capacity
        if left_s < 0.0 or guarded:
            offer.p_min[ev] = offer.p_max[ev] if guarded else offer.p_min[ev]
            continue
        hours = horizon_s / 3600.0
        pop = power_kw[ev]
        spare_kw = (energy - offer.e_min[ev]) / hours
        if spare_kw < 0.0:
            spare_kw *= drawn_kw / limit_kw
        elif may:
            spare_kw *= kind["discharge_kw"] / kind["most_out_kw"]
        offer.up[ev] = max(min(pop - offer.p_min[ev], pop + spare_kw), 0.0)
        if drawn_kw > 0.0:
            room_kw = (offer.e_max[ev] - energy) / hours * (drawn_kw / limit_kw)
            offer.down[ev] = max(min(drawn_kw - pop, room_kw - pop), 0.0)
