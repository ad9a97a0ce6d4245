"""Plans of a group of sites as time goes on: what is ahead of them, and what their plans come to.

In: the group's control, profiles of load and PV, sessions, and the state of sites and EVs at the moment at
which a plan is made. Out: :class:`Course`, the power of batteries and EVs until the next plan.
:mod:`.planning` solves.

**Forecast.** ``perfect``: load, PV and sessions to come are those of the run. ``naive``: those of the same
time of the day before, again and again where the horizon is longer than a day; in the first day, which has
none before it, those to come. An EV that is plugged in has stated its departure in either case, prices are
known in advance, and the state of charge of an EV to come follows from its last session and its drive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import charge, seconds_to_target, soc_that_reaches
from evgrid.battery.laws import soc_after_drive
from evgrid.battery.records import Kinds
from evgrid.core.jit import njit
from evgrid.core.model import Array, Clock
from evgrid.core.slots import Slots
from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError
from evgrid.scenario.tariffs import DemandCharge, Prices
from evgrid.sites.controls import Peak, Planned
from evgrid.sites.kernels import SAME_SOC
from evgrid.sites.planning import Ahead, Plans, Stores
from evgrid.sites.profiles import merged
from evgrid.sites.records import BY_DEPARTURE, EVs, Memory, Sites
from evgrid.sites.tables import SiteTable

Ints = NDArray[np.int64]
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True)
class Course:
    """What a group of sites does until the next plan.

    edges_s : (slot + 1,) s from the run's start
    battery_kw, pv_kw, peak_kw : (site, slot) of the sites of the group: power of the battery, most PV used,
        most drawn from the grid; inf: no limit
    ev_kw : (ev, slot) of their EVs
    """

    edges_s: Array
    battery_kw: Array
    pv_kw: Array
    peak_kw: Array
    ev_kw: Array


class Planner:
    """Plans for the sites of one group, at its period."""

    def __init__(
        self, control: Planned, group: int, table: SiteTable, sites: Sites, evs: EVs, clock: Clock,
        prices: Prices | None, demand: DemandCharge | None,
    ) -> None:  # fmt: skip
        self.sites: Ints = np.flatnonzero(table.group == group)
        """(site,) the sites for which it plans."""
        of_ev = np.repeat(np.arange(len(table)), np.diff(table.ev_first))
        self.evs: Ints = np.flatnonzero(table.group[of_ev] == group)
        """(ev,) their EVs."""
        self.every_s, self.slot_s = control.every, control.slot_s(demand)
        self._slots = round(control.horizon / self.slot_s)
        self._kept = round(self.every_s / self.slot_s)
        self._naive = control.forecast == "naive"
        self._site_of_ev = np.searchsorted(self.sites, of_ev[self.evs])
        self._table, self._sites, self._evs, self._clock = table, sites, evs, clock
        self._control = control
        by_peak = isinstance(control, Peak)
        self._prices = None if by_peak else prices
        self._demand = demand if by_peak else None
        self._reserve_edges_s, self._reserve = table.reserve(clock)

    def is_due(self, time_s: float) -> bool:
        """Whether a plan is made at a time."""
        return abs(time_s / self.every_s - round(time_s / self.every_s)) * self.every_s < _ROUNDING_S

    def plan(self, time_s: float, memory: Memory, billed_kw: Array, months: NDArray[np.datetime64]) -> Course:
        """Plan at a time, s from the run's start.

        memory : the state of sites and EVs
        billed_kw, months : (site, month) highest power of each month so far of all sites, NaN for none
        """
        edges_s: Array = time_s + self.slot_s * np.arange(self._slots + 1.0)
        reserve = self._reserve_ahead(edges_s)
        batteries, with_battery = self._batteries(memory, reserve)
        cars, car_ev = self._cars(edges_s, memory, reserve)
        stores = _joined(batteries, cars)
        ahead = self._ahead(edges_s, cars, billed_kw, months)
        found = self._control.solve(ahead, stores)
        if self._control.user_classes:
            self._check(found, len(stores))
        kept, own = slice(self._kept), self._kept
        battery_kw, ev_kw = np.zeros((len(self.sites), own)), np.zeros((len(self.evs), own))
        battery_kw[with_battery] = found.store_kw[: len(with_battery), kept]
        here = cars.here[:, kept]
        power = np.divide(
            found.store_kw[len(with_battery) :, kept], here, out=np.zeros(here.shape), where=here > 0
        )
        np.add.at(ev_kw, car_ev, power)
        peak_kw = np.full(battery_kw.shape, np.inf)
        if self._demand is not None:
            peak_kw = found.peak_kw[:, self._months(edges_s)[1][kept]]
        return Course(edges_s[: own + 1], battery_kw, found.pv_kw[:, kept], peak_kw, ev_kw)

    def _check(self, found: Plans, stores: int) -> None:
        """Raise ScenarioError for plans of a user's own control that can't be followed."""
        given = {"store_kw": (found.store_kw, stores), "pv_kw": (found.pv_kw, len(self.sites))}
        for name, (values, rows) in given.items():
            shape, wanted = np.shape(values), (rows, self._slots)
            if shape != wanted or np.isnan(values).any():
                what = f"a shape of {shape}" if shape != wanted else "NaN"
                whose = f"control.strategy = {self._control.strategy}"
                raise ScenarioError(
                    [f"{whose}: {name} of its plans has {what}: must be numbers of the shape {wanted}"]
                )

    def _reserve_ahead(self, edges_s: Array) -> Array:
        """State of charge that is held in each slot, (site, slot)."""
        at = self._reserve_edges_s.searchsorted(edges_s[:-1] + _ROUNDING_S, "right") - 1
        return np.asarray(self._reserve[at][:, self.sites].T)

    def _months(self, edges_s: Array) -> tuple[NDArray[np.datetime64], Ints]:
        """The months of the slots, and the row of each slot's."""
        of_slot = self._clock.timestamps(edges_s[:-1] + _ROUNDING_S).astype("datetime64[M]")
        found, row = np.unique(of_slot, return_inverse=True)
        return found, row.reshape(-1).astype(np.int64)

    def _ahead(self, edges_s: Array, cars: Stores, billed_kw: Array, months: NDArray[np.datetime64]) -> Ahead:
        load_kw, pv_kw = self._powers(edges_s)
        rows = self._sites.rows[self.sites]
        pv_kw[rows["parallel"] == 0] = 0.0
        np.add.at(load_kw, cars.site, self._evs.standby_kw * cars.here)
        price = credit = np.zeros(self._slots)
        if self._prices is not None:
            price, credit = self._prices.means(edges_s)
        of_horizon, month = self._months(edges_s)
        demand, billed = np.zeros(0), np.zeros((len(rows), 0))
        if self._demand is not None:
            # a month that is free of charge still has its lowest peak, after those that are not
            demand = np.array([self._demand.price(int(m.astype(int)) % 12 + 1) or 1e-3 for m in of_horizon])
            billed = np.zeros((len(rows), len(of_horizon)))
            known = np.flatnonzero(np.isin(of_horizon, months))
            billed[:, known] = np.nan_to_num(billed_kw[self.sites][:, months.searchsorted(of_horizon[known])])
        return Ahead(
            self.slot_s / 3600.0, load_kw, pv_kw, rows["import_kw"], rows["export_kw"], price, credit, month,
            demand, billed,
        )  # fmt: skip

    def _powers(self, edges_s: Array) -> tuple[Array, Array]:
        """Forecast of load and PV in slots, (site, slot) kW each."""
        if not self._naive or edges_s[0] < DAY_S - _ROUNDING_S:
            return self._means(edges_s)
        begins = edges_s[:-1]
        days = np.floor((begins - edges_s[0] + _ROUNDING_S) / DAY_S) + 1.0
        load, pv = self._means(edges_s[edges_s <= edges_s[0] + DAY_S + _ROUNDING_S] - DAY_S)
        at = np.round((begins - days * DAY_S - (edges_s[0] - DAY_S)) / self.slot_s).astype(np.int64)
        at = np.minimum(at, load.shape[1] - 1)
        return load[:, at], pv[:, at]

    def _means(self, edges_s: Array) -> tuple[Array, Array]:
        """Means of load and PV between times, (site, slot) kW each."""
        table = self._table
        begin_s, end_s = float(edges_s[0]), float(edges_s[-1])
        parts = [table.profiles.slots(begin_s, end_s), Slots(edges_s, np.zeros((0, len(edges_s) - 1)))]
        slots = merged(parts, begin_s, end_s)
        lengths = np.diff(slots.edges_s)
        first = slots.edges_s.searchsorted(edges_s[:-1] - _ROUNDING_S)
        means = np.add.reduceat(slots.kw * lengths, first, axis=1) / np.add.reduceat(lengths, first)
        load = np.zeros((len(self.sites), len(edges_s) - 1))
        for row, site in enumerate(self.sites):
            own = slice(table.circuit_first[site], table.circuit_first[site + 1])
            load[row] = table.circuit_share[own] @ means[table.circuit_row[own]]
        pv_row = table.pv_row[self.sites]
        return load, np.where(pv_row[:, np.newaxis] >= 0, means[pv_row], 0.0)

    def _batteries(self, memory: Memory, reserve: Array) -> tuple[Stores, Ints]:
        """The batteries, and the rows of their sites."""
        rows = self._sites.rows[self.sites]
        own = np.flatnonzero(rows["battery"] >= 0)
        kinds = self._sites.batteries.rows[rows["battery"][own]]
        soc = memory.sites["soc"][self.sites[own]]
        here = np.ones((len(own), self._slots))
        floor = np.maximum(reserve[own], kinds["soc_floor"][:, np.newaxis])
        gives = rows["parallel"][own] == 1
        made = _stores(own, kinds, soc, here, floor, np.ones(len(own)), gives, self.slot_s)
        return made, own

    def _cars(self, edges_s: Array, memory: Memory, reserve: Array) -> tuple[Stores, Ints]:
        """The EVs in their sessions, and the row of each of their EVs among those planned for."""
        evs = self._evs
        naive = self._naive and edges_s[0] >= DAY_S - _ROUNDING_S
        found = sessions_ahead(self.evs, edges_s[0], edges_s[-1], naive, evs, memory)
        ev, session = (column.astype(np.int64) for column in found[:, :2].T)
        arrival_s, departure_s, soc, must = found[:, 2:].T
        kinds = evs.kinds.rows[evs.kind[session]]
        begin, end = edges_s[:-1], edges_s[1:]
        here = np.minimum(end, departure_s[:, np.newaxis]) - np.maximum(begin, arrival_s[:, np.newaxis])
        here = np.clip(here / self.slot_s, 0.0, 1.0)
        here[here < 1e-9] = 0.0
        # a slot in which one session ends and the EV's next begins is the former's
        same = np.flatnonzero(np.append(False, ev[1:] == ev[:-1]))
        here[same] = np.where(here[same - 1] > 0.0, 0.0, here[same])
        site = self._site_of_ev[ev]
        floor = np.maximum(reserve[site], kinds["soc_floor"][:, np.newaxis])
        left_s = departure_s[:, np.newaxis] - edges_s
        needed = least_soc(evs.kinds, evs.kind[session], np.maximum(left_s, 0.0))
        gives = self._sites.rows["parallel"][self.sites[site]] == 1
        made = _stores(
            site, kinds, soc, here, floor, kinds["soc_target"], gives, self.slot_s, needed, must > 0.0
        )
        return made, ev


def _stores(
    site: Ints, kinds: NDArray[np.void], soc: Array, here: Array, floor: Array, target: Array,
    gives: NDArray[np.bool_], slot_s: float, needed: Array | None = None,
    must: NDArray[np.bool_] | None = None,
) -> Stores:  # fmt: skip
    """Stores with their limits.

    soc, target : (store,) state of charge at the beginning, and up to which it charges
    floor : (store, slot) state of charge down to which it gives, and up to which it charges first
    gives : (store,) whether it may give
    needed : (store, slot + 1) least state of charge from which a departure can be met
    must : (store,) whether it charges as fast as it can
    """
    capacity, start = kinds["capacity_kwh"], kinds["capacity_kwh"] * soc
    may = soc <= target + SAME_SOC
    charge_kw = np.where(may, kinds["charge_kw"], 0.0)[:, np.newaxis] * here
    discharge_kw = np.where(gives, kinds["discharge_kw"], 0.0)[:, np.newaxis] * here
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(kinds["charge_kw"] > 0.0, kinds["battery_kw"] / kinds["charge_kw"], 1.0)
        fall = np.where(kinds["discharge_kw"] > 0.0, kinds["discharge_kw"] / kinds["most_out_kw"], 1.0)
    high = np.maximum(capacity * target, start)[:, np.newaxis]
    gained = np.cumsum(charge_kw * gain[:, np.newaxis] * (slot_s / 3600.0), axis=1)
    reach = np.minimum(high, start[:, np.newaxis] + np.pad(gained, [(0, 0), (1, 0)]))
    low = np.empty(reach.shape)
    low[:, 0] = start
    for slot in range(here.shape[1]):
        held = low[:, slot] + gained[:, slot] - (gained[:, slot - 1] if slot else 0.0)
        low[:, slot + 1] = np.minimum(capacity * floor[:, slot], held)
    if needed is not None:
        low[:, 1:] = np.maximum(low, capacity[:, np.newaxis] * needed)[:, 1:]
        low[:, 1:] = np.where(
            may[:, np.newaxis], low[:, 1:], np.maximum(low[:, 1:], (capacity * target)[:, np.newaxis])
        )
    low = np.minimum(low, reach)
    if must is not None:
        low[must] = reach[must]
    return Stores(site, charge_kw, discharge_kw, low, np.broadcast_to(high, low.shape), here, gain, fall)


def _joined(one: Stores, other: Stores) -> Stores:
    """The stores of both."""
    return Stores(
        np.concatenate([one.site, other.site]), np.concatenate([one.charge_kw, other.charge_kw]),
        np.concatenate([one.discharge_kw, other.discharge_kw]),
        np.concatenate([one.low_kwh, other.low_kwh]), np.concatenate([one.high_kwh, other.high_kwh]),
        np.concatenate([one.here, other.here]), np.concatenate([one.gain, other.gain]),
        np.concatenate([one.fall, other.fall]),
    )  # fmt: skip


# ---- sessions -------------------------------------------------------------------------------------


@njit
def least_soc(kinds: Kinds, kind_of: NDArray[np.int32], left_s: Array) -> Array:
    """State of charge from which the target can be reached within ``left_s``, (session, edge) both."""
    found = np.empty(left_s.shape)
    for i in range(left_s.shape[0]):
        kind = kinds.rows[kind_of[i]]
        curve = kinds.curves[kind["curve"]]
        for t in range(left_s.shape[1]):
            found[i, t] = soc_that_reaches(kind, curve, left_s[i, t])
    return found


@njit
def _soc_then(kinds: Kinds, row: int, soc: float, seconds: float) -> float:
    """State of charge at departure: the target, or as near as charging for the whole time comes."""
    kind = kinds.rows[row]
    if soc >= kind["soc_target"]:
        return soc
    curve = kinds.curves[kind["curve"]]
    if seconds_to_target(kind, curve, soc) <= seconds:
        return float(kind["soc_target"])
    return float(charge(kind, curve, soc, kind["battery_kw"], seconds)[0])


@njit
def sessions_ahead(rows: Ints, begin_s: float, end_s: float, naive: bool, evs: EVs, memory: Memory) -> Array:
    """The sessions of EVs between two times: (n, 6) EV (its place in ``rows``), session, arrival and
    departure, s, state of charge at the later of arrival and ``begin_s``, and whether it must charge.

    Those of an EV are side by side, in order and disjoint; see the module for ``naive``.
    """
    found = [(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)]
    for place in range(len(rows)):
        k = rows[place]
        ev = memory.evs[k]
        soc, free_s, at = ev["soc"], begin_s, ev["session"]
        known = at > evs.first[k]  # whether its last session is known, so that a drive tells the next
        if ev["plugged"]:
            departure_s, known = evs.departure_s[at], True
            if departure_s > begin_s:
                late = 1.0 if ev["must"] == BY_DEPARTURE else 0.0
                found.append((place, at, begin_s, departure_s, soc, late))
                soc, free_s = _soc_then(evs.kinds, evs.kind[at], soc, departure_s - begin_s), departure_s
            at += 1
        if naive:
            at = evs.first[k]
            while at < evs.last[k] and evs.arrival_s[at] <= begin_s - DAY_S:
                at += 1
        first, days = at, 1.0 if naive else 0.0
        while True:
            past_end = at >= evs.last[k] or (naive and evs.arrival_s[at] > begin_s)
            if past_end:
                if not naive or at == first or begin_s - DAY_S + days * DAY_S >= end_s:
                    break
                at, days = first, days + 1.0
                continue
            arrival_s = max(evs.arrival_s[at] + days * DAY_S, free_s)
            departure_s = evs.departure_s[at] + days * DAY_S
            if evs.arrival_s[at] + days * DAY_S >= end_s:
                break
            if departure_s > arrival_s:
                drive_kwh = evs.drive_kwh[at]
                if known and drive_kwh == drive_kwh:
                    soc = soc_after_drive(soc, drive_kwh, evs.kinds.rows[evs.kind[at]]["capacity_kwh"])
                else:
                    soc = evs.soc_arrival[at]
                found.append((place, at, arrival_s, departure_s, soc, 0.0))
                soc = _soc_then(evs.kinds, evs.kind[at], soc, departure_s - arrival_s)
                free_s, known = departure_s, True
            at += 1
    return np.array(found)[1:]
