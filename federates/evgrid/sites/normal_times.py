"""Energy in the stores of sites while the grid is there, by a stated rule, and what the sites pay meanwhile.

In: the sites of :mod:`evgrid.sites.survival`, their whole load, and prices, by slot. Out: energy of each
store at the begin of each slot, from which outages start, and energy and cost of each site over the period.
The rule of a store that is *active*:

- it holds a reserve for outages: below it, it charges from the grid at once;
- surplus of PV charges it, in the order of rank;
- in slots in which energy is dear it serves the site's load, down to the reserve; an EV only as far as it can
  still charge to its target by departure;
- in slots in which energy is cheap an EV charges from the grid to its target, and a stationary battery where
  there is no PV;
- an EV charges from the grid at the latest moment that serves its departure.

With a reserve of 1 an EV charges as fast as it can on arrival. One that is not active does so too; a
stationary battery that is not active keeps what it has, and is filled up to the reserve.

Left out: taper, standby consumption, plans over a horizon (the control ``cost``), demand charges, limits of
the interconnection.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import in_threads, njit
from evgrid.sites.survival import Floats, Sites, drained_kw, stored_kw

SUMS = ("drawn_kwh", "exported_kwh", "from_stores_kwh", "cost")
"""Sums over the period of each site: energy drawn from the grid and given to it, energy that stores gave to
the site's load, and the cost of energy drawn less the payment for what was given."""


class NormalTimes(NamedTuple):
    """The grid's side of normal times.

    load_kw : (site, slot) all of the site's load
    price, credit : (slot,) of energy drawn and given, currency per kWh
    cheap, dear : (slot,) bool
    target_kwh : (stay,) energy wanted by departure; of a stationary battery its capacity
    hold_kwh : (store,) reserve for outages
    active : (store,) bool
    """

    load_kw: Floats
    price: Floats
    credit: Floats
    cheap: NDArray[np.bool_]
    dear: NDArray[np.bool_]
    target_kwh: Floats
    hold_kwh: Floats
    active: NDArray[np.bool_]


def energy_in_normal_times(sites: Sites, grid: NormalTimes) -> tuple[Floats, Floats]:
    """Energy of each store at the begin of each slot, (store, slot) kWh, and :data:`SUMS`, (site, sum)."""
    number, slots = sites.load_kw.shape
    energy, sums = np.zeros((len(grid.hold_kwh), slots)), np.zeros((number, len(SUMS)))
    in_threads(lambda low, high: follow_rule(low, high, sites, grid, energy, sums), number, 1)
    return energy, sums


@njit
def follow_rule(low: int, high: int, sites: Sites, grid: NormalTimes, energy: Floats, sums: Floats) -> None:
    """Fill ``energy`` and ``sums`` of the sites from ``low`` to ``high``."""
    slot_h, slots = sites.slot_h, grid.load_kw.shape[1]
    for site in range(low, high):
        first, last = sites.first_store[site], sites.first_store[site + 1]
        count = last - first
        stay = sites.first_stay[first:last].copy()
        kwh, left_kwh = np.full(count, np.nan), np.full(count, np.nan)
        here_h, floor_kwh = np.zeros(count), np.zeros(count)
        busy = np.zeros(count, np.bool_)
        has_pv = sites.pv_kw[site].max() > 0.0
        for slot in range(slots):
            begin_h, charged = slot * slot_h, 0.0
            for row in range(count):
                store, end = first + row, sites.first_stay[first + row + 1]
                while stay[row] < end and sites.stays[stay[row]]["departure_h"] <= begin_h + 1e-9:
                    left_kwh[row], kwh[row] = kwh[row], np.nan
                    stay[row] += 1
                here_h[row], busy[row] = 0.0, True
                if stay[row] == end:
                    continue
                now = sites.stays[stay[row]]
                since_h = max(now["arrival_h"], begin_h)
                here_h[row] = max(min(now["departure_h"], begin_h + slot_h) - since_h, 0.0)
                if here_h[row] <= 0.0:
                    continue
                if np.isnan(kwh[row]):
                    kwh[row], driven = now["arrival_kwh"], now["drive_kwh"]
                    if left_kwh[row] == left_kwh[row] and driven == driven:
                        kwh[row] = max(now["least_kwh"], left_kwh[row] - driven)
                energy[store, slot] = kwh[row]
                target_kwh, stays_h = grid.target_kwh[stay[row]], now["departure_h"] - since_h
                fixed = np.isinf(stays_h)  # a stationary battery
                active = grid.active[store]
                hold_kwh = min(grid.hold_kwh[store], target_kwh)
                if not (active or fixed):
                    hold_kwh = target_kwh
                in_kw = stored_kw(now["charge_kw"], now)
                wanted_kwh = hold_kwh
                if (active and grid.cheap[slot] and not (fixed and has_pv)) or (
                    not fixed and in_kw * (stays_h - slot_h) <= target_kwh - kwh[row]
                ):
                    wanted_kwh = target_kwh
                busy[row] = not active
                floor_kwh[row] = max(now["floor_kwh"], hold_kwh)
                if not fixed:
                    floor_kwh[row] = max(floor_kwh[row], target_kwh - in_kw * max(stays_h - slot_h, 0.0))
                if wanted_kwh > kwh[row] and in_kw > 0.0:
                    on_h = min(here_h[row], (wanted_kwh - kwh[row]) / in_kw)
                    kwh[row] += in_kw * on_h
                    charged += now["charge_kw"] * on_h
                    busy[row] = True
            net_kwh = (grid.load_kw[site, slot] - sites.pv_kw[site, slot]) * slot_h
            for rank in range(2):
                for row in range(count):
                    if busy[row] or here_h[row] <= 0.0 or int(sites.stays[stay[row]]["rank"]) != rank:
                        continue
                    now = sites.stays[stay[row]]
                    if net_kwh < -1e-12:
                        drawn_kw = min(-net_kwh / here_h[row], now["charge_kw"])
                        in_kw = stored_kw(drawn_kw, now) if drawn_kw > 0.0 else 0.0
                        room_kwh = max(grid.target_kwh[stay[row]] - kwh[row], 0.0)
                        if in_kw > 0.0:
                            on_h = min(here_h[row], room_kwh / in_kw)
                            kwh[row] += in_kw * on_h
                            net_kwh += drawn_kw * on_h
                    elif net_kwh > 1e-12 and grid.dear[slot] and kwh[row] > floor_kwh[row]:
                        given_kw = min(net_kwh / here_h[row], now["discharge_kw"])
                        if given_kw > 0.0:
                            out_kw = drained_kw(given_kw, now)
                            on_h = min(here_h[row], (kwh[row] - floor_kwh[row]) / out_kw)
                            kwh[row] -= out_kw * on_h
                            net_kwh -= given_kw * on_h
                            sums[site, 2] += given_kw * on_h
            net_kwh += charged
            sums[site, 0] += max(net_kwh, 0.0)
            sums[site, 1] += max(-net_kwh, 0.0)
            sums[site, 3] += max(net_kwh, 0.0) * grid.price[slot] - max(-net_kwh, 0.0) * grid.credit[slot]
