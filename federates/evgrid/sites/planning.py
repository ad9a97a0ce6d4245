"""Plans of sites over a horizon: least cost, or the lowest peak, by HiGHS.

In: load, PV, limits and prices in slots, and stores: batteries, and EVs from arrival to departure. Out: the
power of each store and of the PV in each slot. A site's plan knows nothing of other sites: many are solved
together, as blocks of one sparse program. For a site

::

    minimise    sum_t h (price_t import_t - credit_t export_t)     or: sum over months of price_m peak_m
    subject to  import_t - export_t + pv_t = load_t + sum_i (c_it - d_it),    0 <= pv_t <= available_t
                e_i,t+1 = e_it + h (gain_i c_it - d_it / fall_i),             low_it <= e_it <= high_it
                import_t <= limit,  export_t <= limit,  import_t - export_t <= peak of its month

without drawing and giving at once, at the meter or in a store. Where that pays, at negative prices, or where
a kWh given earns more than one drawn costs, a binary excludes it; elsewhere the linear program is exact, and
what an optimum has of it at no cost is netted.

**Modelling differences** between a plan and the site that follows it. Efficiencies are constant, those at
rated power: the constant and the quadratic loss at less power are left out. Power is steady in a slot: a load
that changes within it, and an EV that comes or goes, count with their means. The taper of a charging curve
counts in the time that a departure is guarded by, not in power. An EV that arrives above its target only
discharges. Outages to come are unknown. An EV draws its standby power as long as it is plugged in.

Energy is that in the store, kWh; power is at the AC busbar, kW.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import coo_array

from evgrid.core.model import Array

Ints = NDArray[np.int64]

TOGETHER = 16
"""Sites in one program."""

_OVERRUN = 100.0
"""Price of a kWh that a store lacks, over the highest price: so it is a last resort."""
_SAME_KW = 1e-6
"""Power up to which none flows, by the tolerance of HiGHS."""
_NODES = 10000
"""Most nodes of a branch-and-bound search, a site."""
_GAP = 1e-8
"""Relative gap at which the search ends."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Batteries, and EVs in a session, over the slots of a horizon.

    site : (store,) row of the site
    charge_kw, discharge_kw : (store, slot) greatest mean power in the slot; 0 while away
    low_kwh, high_kwh : (store, slot + 1) limits of energy at the slots' edges; the first is where it begins
    here : (store, slot) share of the slot in which it is there
    gain, fall : (store,) efficiency of charging and of discharging, 0 to 1
    """

    site: Ints
    charge_kw: Array
    discharge_kw: Array
    low_kwh: Array
    high_kwh: Array
    here: Array
    gain: Array
    fall: Array

    def __len__(self) -> int:
        return len(self.site)

    def of(self, sites: Ints) -> tuple[Stores, Ints]:
        """The stores of some sites, ascending, whose rows they then are; and their rows here."""
        rows = np.flatnonzero(np.isin(self.site, sites))
        return Stores(
            np.searchsorted(sites, self.site[rows]), self.charge_kw[rows], self.discharge_kw[rows],
            self.low_kwh[rows], self.high_kwh[rows], self.here[rows], self.gain[rows], self.fall[rows],
        ), rows  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ahead:
    """What sites have ahead.

    slot_h : length of a slot, h
    load_kw, pv_kw : (site, slot) mean load, and PV available
    import_kw, export_kw : (site,) most drawn from and given to the grid; inf: no limit. A load above it is
        served
    price, credit : (slot,) currency per kWh drawn and given, of either sign
    month : (slot,) row of the month of each slot, for the demand charge
    demand : (month,) price of a kW of each month's highest power; empty: the cost of energy is minimised
    billed_kw : (site, month) highest power of each month so far
    """

    slot_h: float
    load_kw: Array
    pv_kw: Array
    import_kw: Array
    export_kw: Array
    price: Array
    credit: Array
    month: Ints
    demand: Array
    billed_kw: Array

    def of(self, sites: Ints) -> Ahead:
        """What some sites have ahead."""
        return Ahead(
            self.slot_h, self.load_kw[sites], self.pv_kw[sites], self.import_kw[sites], self.export_kw[sites],
            self.price, self.credit, self.month, self.demand, self.billed_kw[sites],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plans:
    """Plans of sites.

    store_kw : (store, slot) mean power of each store in a slot, positive charges
    pv_kw : (site, slot) PV that is used; inf: all that the limits allow
    peak_kw : (site, month) highest power of each month; empty without demand charge
    cost : (site,) of the energy or, with a demand charge, of it
    """

    store_kw: Array
    pv_kw: Array
    peak_kw: Array
    cost: Array


def plan(ahead: Ahead, stores: Stores) -> Plans:
    """The best plan of each site.

    Where a store's limits of energy can't be kept, for a limit of the site or a guess that was wrong, it
    comes as close as it can.
    """
    count, slots = ahead.load_kw.shape
    found = Plans(
        np.zeros((len(stores), slots)), np.zeros((count, slots)), np.zeros((count, len(ahead.demand))),
        np.zeros(count),
    )  # fmt: skip
    for first in range(0, count, TOGETHER):
        again = _enter(found, ahead, stores, np.arange(first, min(first + TOGETHER, count)))
        for site in again:  # branch and bound of each on its own
            _enter(found, ahead, stores, np.array([site]), exclusive=True)
    return found


def _enter(found: Plans, ahead: Ahead, stores: Stores, sites: Ints, exclusive: bool = False) -> Ints:
    """Solve the program of some sites and enter their plans; the sites that need binaries.

    ``exclusive``: with a binary for each pair that was both above 0, until there is none.
    """
    those, (own, rows) = ahead.of(sites), stores.of(sites)
    program = _Program(those, own)
    values = program.solve()
    wrong = program.overlaps(values)
    pairs = wrong
    while exclusive and len(wrong):
        values = program.solve(pairs)
        wrong = np.setdiff1d(program.overlaps(values), pairs)
        pairs = np.union1d(pairs, wrong)
    found.store_kw[rows], found.pv_kw[sites] = program.read(values)
    found.peak_kw[sites], found.cost[sites] = values[program.peak], program.costs(values)
    return np.unique(sites[program.site_of_pair[wrong]])


class _Program:
    """The program of some sites: variables import, export, PV used; of each store while it is there charge,
    discharge, energy at the slot's end, and energy that it lacks; peaks; binaries.

    Of each pair ``_one``, ``_other`` one is to be 0, and the linear program does not see to it by itself.
    """

    def __init__(self, ahead: Ahead, stores: Stores) -> None:
        self._ahead, self._stores = ahead, stores
        count, slots = ahead.load_kw.shape
        self._store, self._slot = np.nonzero(stores.here > 0.0)
        cells, size = len(self._store), count * slots
        ends = np.cumsum([0, size, size, size, cells, cells, cells, cells, count * len(ahead.demand)])
        self._imported, self._exported, self._pv, self._charge, self._discharge, self._energy, self._lack = (
            np.arange(low, high) for low, high in pairwise(ends[:-1].tolist())
        )
        self.peak = np.arange(ends[-2], ends[-1]).reshape(count, -1)
        self._columns = int(ends[-1])
        self._place = stores.site[self._store] * slots + self._slot
        self._low, self._high, self._cost = (np.zeros(self._columns) for _ in range(3))
        wasteful = np.flatnonzero(((ahead.price < 0) | (ahead.credit < 0))[self._slot])
        resold = np.flatnonzero(np.tile(ahead.credit > ahead.price, count))
        self._one = np.concatenate([self._charge[wasteful], self._imported[resold]])
        self._other = np.concatenate([self._discharge[wasteful], self._exported[resold]])
        self.site_of_pair: Ints = np.append(stores.site[self._store[wasteful]], resold // max(slots, 1))
        self._set_bounds()
        self._set_cost()

    def _set_bounds(self) -> None:
        ahead, stores, store, slot = self._ahead, self._stores, self._store, self._slot
        size = self._ahead.load_kw.size
        charge, discharge = stores.charge_kw[store, slot], stores.discharge_kw[store, slot]
        load = ahead.load_kw.reshape(-1)
        limit = np.maximum(np.repeat(ahead.import_kw, ahead.load_kw.shape[1]), load)
        most = np.maximum(load + np.bincount(self._place, charge, size), 0.0)
        self._high[self._imported] = np.minimum(limit, most)
        limit = np.maximum(np.repeat(ahead.export_kw, ahead.load_kw.shape[1]), -load)
        most = ahead.pv_kw.reshape(-1) - load + np.bincount(self._place, discharge, size)
        self._high[self._exported] = np.clip(most, 0.0, limit)
        self._high[self._pv] = ahead.pv_kw.reshape(-1)
        self._high[self._charge], self._high[self._discharge] = charge, discharge
        self._low[self._energy] = stores.low_kwh[store, slot + 1]
        self._high[self._energy] = stores.high_kwh[store, slot + 1]
        self._high[self._lack] = np.inf
        self._low[self.peak], self._high[self.peak] = np.maximum(ahead.billed_kw, 0.0), np.inf

    def _set_cost(self) -> None:
        ahead, count = self._ahead, len(self._ahead.load_kw)
        if len(ahead.demand):
            self._cost[self.peak] = ahead.demand
            self._cost[self._lack] = _OVERRUN * ahead.demand.max(initial=1.0) / ahead.slot_h
            return
        self._cost[self._imported] = np.tile(ahead.price, count) * ahead.slot_h
        self._cost[self._exported] = -np.tile(ahead.credit, count) * ahead.slot_h
        highest = max(np.abs(ahead.price).max(initial=0.01), np.abs(ahead.credit).max(initial=0.01))
        self._cost[self._lack] = _OVERRUN * highest

    def _rows(self) -> list[tuple[coo_array, Array, Array]]:
        """The constraints: matrix, least and most."""
        ahead, stores, store = self._ahead, self._stores, self._store
        size, cells = ahead.load_kw.size, len(store)
        at, cell = np.arange(size), np.arange(cells)
        load = ahead.load_kw.reshape(-1)
        balance = self._matrix(
            (at, self._imported, 1.0), (at, self._exported, -1.0), (at, self._pv, 1.0),
            (self._place, self._charge, -1.0), (self._place, self._discharge, 1.0), rows=size,
        )  # fmt: skip
        later = np.flatnonzero(np.append(False, store[1:] == store[:-1])) if cells else cell
        begins = np.setdiff1d(cell, later)
        start = np.zeros(cells)
        start[begins] = stores.low_kwh[store[begins], 0]
        energy = self._matrix(
            (cell, self._energy, 1.0), (later, self._energy[later - 1], -1.0),
            (cell, self._charge, -ahead.slot_h * stores.gain[store]),
            (cell, self._discharge, ahead.slot_h / stores.fall[store]), (cell, self._lack, -1.0), rows=cells,
        )  # fmt: skip
        found = [(balance, load, load), (energy, start, start)]
        if len(ahead.demand):
            peak = self.peak[:, ahead.month].reshape(-1)
            below = self._matrix(
                (at, self._imported, 1.0), (at, self._exported, -1.0), (at, peak, -1.0), rows=size
            )
            found.append((below, np.full(size, -np.inf), np.zeros(size)))
        return found

    def _matrix(self, *entries: tuple[Ints, Ints, Array | float], rows: int, columns: int = 0) -> coo_array:
        """A sparse matrix of entries: rows, columns, and their value or values."""
        values = np.concatenate([np.broadcast_to(value, len(row)) for row, _, value in entries])
        row, column = (np.concatenate([entry[k] for entry in entries]) for k in range(2))
        return coo_array((values, (row, column)), shape=(rows, columns or self._columns))

    def solve(self, pairs: Ints | None = None) -> Array:
        """The best values of the variables; of each of ``pairs`` one is 0.

        Raises
        ------
        RuntimeError
            If HiGHS finds none: there always is one.

        """
        rows = self._rows()
        low, high, cost, integral = self._low, self._high, self._cost, None
        options = None
        if pairs is not None:
            one, other, ones = self._one[pairs], self._other[pairs], np.ones(len(pairs))
            more, width = np.arange(len(pairs)), self._columns + len(pairs)
            choice = self._columns + more
            rows = [
                (coo_array((a.data, a.coords), shape=(a.shape[0], width)), least, most)
                for a, least, most in rows
            ]
            first = self._matrix((more, one, 1.0), (more, choice, -high[one]), rows=len(one), columns=width)
            second = self._matrix(
                (more, other, 1.0), (more, choice, high[other]), rows=len(one), columns=width
            )
            rows += [(first, -np.inf * ones, 0.0 * ones), (second, -np.inf * ones, high[other])]
            integral = np.append(np.zeros(self._columns), ones)
            low, high, cost = np.append(low, 0.0 * ones), np.append(high, ones), np.append(cost, 0.0 * ones)
            options = {"mip_rel_gap": _GAP, "node_limit": _NODES}
        found: OptimizeResult = milp(
            cost,
            integrality=integral,
            bounds=Bounds(low, np.maximum(low, high)),
            constraints=[LinearConstraint(a.tocsc(), least, most) for a, least, most in rows],
            options=options,
        )
        if found.x is None:
            raise RuntimeError(f"no plan for a site: {found.message}")
        values: Array = found.x[: self._columns]
        return values

    def overlaps(self, values: Array) -> Ints:
        """The pairs of which both are above 0."""
        return np.flatnonzero(np.minimum(values[self._one], values[self._other]) > _SAME_KW)

    def read(self, values: Array) -> tuple[Array, Array]:
        """Power of the stores, and PV used."""
        ahead, stores = self._ahead, self._stores
        gain, fall = stores.gain[self._store], stores.fall[self._store]
        charge, discharge = values[self._charge], values[self._discharge]
        both = np.minimum(charge * gain, discharge / fall)
        store_kw = np.zeros(stores.here.shape)
        store_kw[self._store, self._slot] = (charge - both / gain) - (discharge - both * fall)
        pv_kw = values[self._pv].reshape(ahead.load_kw.shape)
        free = (ahead.price >= 0) & (ahead.credit >= 0)
        return store_kw, np.where(free | (pv_kw >= ahead.pv_kw - _SAME_KW), np.inf, pv_kw)

    def costs(self, values: Array) -> Array:
        """Cost of each site, without what its stores lack."""
        ahead = self._ahead
        if len(ahead.demand):
            return np.asarray(values[self.peak] @ ahead.demand)
        imported, exported = (
            values[at].reshape(ahead.load_kw.shape) for at in (self._imported, self._exported)
        )
        return np.asarray(ahead.slot_h * (imported @ ahead.price - exported @ ahead.credit))
