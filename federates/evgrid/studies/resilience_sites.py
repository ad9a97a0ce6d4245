"""The sites of a scenario as the kernels of resilience take them: loads and PV by slot, stores, generators.

In: a run's static data (:class:`evgrid.runs.simulation.World`). Out: :class:`SitesByPart`, from which the
sites with some of their sources follow. Sites off grid have no outages and are left out. The critical load is
that of the critical circuits; with ``backup: whole`` and no critical circuit it is all of the load.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.laws import LEAST_SOC
from evgrid.core.model import Array
from evgrid.fleet.extras import in_force
from evgrid.fleet.planned_sessions import planned_sessions_of
from evgrid.sites.normal_times import NormalTimes
from evgrid.sites.survival import GENERATOR, STAY, Sites
from evgrid.sites.tables import BACKUP, CONTROL_NAMES, SiteTable

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.runs.simulation import World

PARTS = ("ev", "pv", "battery", "generator")
"""What may serve a site."""
ONE_EV = "one_ev"
"""In place of ``ev``: only the first EV of each site."""
EV_STAYS = "ev_stays"
"""In place of ``ev``: EVs that are plugged in during an outage stay until it ends."""

_BATTERY = -1
_SPAN_S = 30 * 86400.0
"""Time for which profiles are in memory at once."""


@dataclass(frozen=True, slots=True)
class SitesByPart:
    """The sites on the grid of one world, and all that may serve them.

    name, group : (site,) name, and position among the groups
    slot_h : length of a slot, h
    backup : (site,) bool, whether anything is served in an outage
    load_kw, critical_kw, pv_kw : (site, slot)
    generators : (site,) GENERATOR
    stays : (stay,) STAY, sorted by site, then store; target_kwh : (stay,) see NormalTimes
    store : (stay,) store of each stay
    store_site, store_ev : (store,) its site; its number among the site's EVs, -1: the stationary battery
    store_kwh : (store,) capacity, kWh
    store_name : (store,) name of the EV; of the stationary battery empty
    recorded_kwh : (store, slot) energy at the begin of each slot in a run, NaN where it is not known; or None
    reserve_soc, active : (store,) as the site's control has it
    price, credit : (slot,) currency per kWh; NaN without prices
    cheap, dear : (slot,) bool, see NormalTimes
    """

    name: NDArray[np.str_]
    group: NDArray[np.int64]
    slot_h: float
    backup: NDArray[np.bool_]
    load_kw: Array
    critical_kw: Array
    pv_kw: Array
    generators: NDArray[np.void]
    stays: NDArray[np.void]
    target_kwh: Array
    store: NDArray[np.int64]
    store_site: NDArray[np.int64]
    store_ev: NDArray[np.int64]
    store_kwh: Array
    store_name: NDArray[np.str_]
    reserve_soc: Array
    active: NDArray[np.bool_]
    price: Array
    credit: Array
    cheap: NDArray[np.bool_]
    dear: NDArray[np.bool_]
    recorded_kwh: Array | None = None

    def start_kwh(self, parts: Collection[str], by_rule_kwh: Array) -> Array:
        """Energy of the stores of :meth:`having` at the begin of each slot, (store, slot) kWh: as recorded,
        and by the rule of normal times where it is not.
        """
        if self.recorded_kwh is None:
            return by_rule_kwh
        recorded = self.recorded_kwh[self._kept(parts)]
        return np.where(np.isnan(recorded), by_rule_kwh, recorded)

    def _kept(self, parts: Collection[str]) -> NDArray[np.bool_]:
        """Stores that are among some parts, (store,)."""
        battery = self.store_ev == _BATTERY
        kept: NDArray[np.bool_] = battery & ("battery" in parts)
        if "ev" in parts or EV_STAYS in parts:
            kept |= ~battery
        if ONE_EV in parts:
            kept |= self.store_ev == 0
        return kept

    def having(self, parts: Collection[str], reserve_soc: float | None = None) -> tuple[Sites, NormalTimes]:
        """The sites with some of PARTS, ONE_EV or EV_STAYS.

        reserve_soc : state of charge that all stores hold in normal times, and use what is above it; left
        out:
            as the site's control does
        """
        kept = self._kept(parts)
        of_stay = kept[self.store]
        stays = self.stays[of_stay]
        number = np.cumsum(kept) - 1
        store, site = number[self.store[of_stay]], self.store_site[kept]
        none = np.zeros(len(self.generators), GENERATOR)
        sites = Sites(
            self.slot_h, self.critical_kw, self.pv_kw if "pv" in parts else np.zeros_like(self.pv_kw),
            self.generators if "generator" in parts else none,
            np.searchsorted(site, np.arange(len(self.name) + 1)),
            np.searchsorted(store, np.arange(int(kept.sum()) + 1)), stays,
        )  # fmt: skip
        reserve = self.reserve_soc[kept] if reserve_soc is None else np.full(int(kept.sum()), reserve_soc)
        active = self.active[kept] if reserve_soc is None else np.ones(int(kept.sum()), np.bool_)
        priced = np.isfinite(self.price)
        return sites, NormalTimes(
            self.load_kw, np.where(priced, self.price, 0.0), np.where(priced, self.credit, 0.0), self.cheap,
            self.dear, self.target_kwh[of_stay], reserve * self.store_kwh[kept], active,
        )  # fmt: skip

    @property
    def several_evs(self) -> bool:
        """Whether any site has more than one EV."""
        return bool((self.store_ev > 0).any())

    @property
    def there(self) -> tuple[str, ...]:
        """Those of PARTS that any site has."""
        has = {
            "ev": (self.store_ev >= 0).any(), "pv": (self.pv_kw > 0).any(),
            "battery": (self.store_ev == _BATTERY).any(), "generator": (self.generators["kw"] > 0).any(),
        }  # fmt: skip
        return tuple(part for part in PARTS if has[part])


def sites_by_part(world: World, slot_s: float) -> SitesByPart:
    """The sites of a world by slots of ``slot_s``, which divides the run."""
    table = world.sites
    assert table is not None
    own = np.flatnonzero(table.connection >= 0)
    slots = round(world.clock.duration_s / slot_s)
    load, critical, pv = _powers(table, own, slot_s, slots)
    rating = table.rating
    backup = np.array(BACKUP)[rating.backup[own]]
    whole = (backup == "whole") & ~_has_critical(table)[own]
    critical = np.where(whole[:, np.newaxis], load, critical)
    generators = np.zeros(len(own), GENERATOR)
    kw = rating.generator_kw[own]
    generators["kw"], generators["fuel"], generators["fuel_per_kwh"] = kw, rating.fuel_kwh[own], 1.0
    generators["turndown"] = np.divide(rating.minimum_kw[own], kw, out=np.zeros(len(own)), where=kw > 0)
    period_h = slots * slot_s / 3600
    stores = _stores(world, table, own, period_h)
    control = np.array(CONTROL_NAMES)[rating.control[own]][stores.site]
    reserve = rating.reserve_soc[own][stores.site]
    price, credit, cheap, dear = _prices(world, slot_s, slots)
    return SitesByPart(
        table.name[own], table.group[own], slot_s / 3600, backup != "none", load, critical, pv, generators,
        *stores, reserve, ~np.isin(control, ("requests", "reserve")), price, credit, cheap, dear,
    )  # fmt: skip


def recorded_kwh(result: xr.Dataset, member: int, parts: SitesByPart) -> Array:
    """Energy of each store at the begin of each slot in a run, (store, slot) kWh; NaN where it is not known:
    at the run's begin, and while an EV is away.

    result : of a run of the same scenario whose recording interval is its tick, so that states of charge are
        those of the ends of its intervals
    """
    step_s = float((result["time"].values[1] - result["time"].values[0]) / np.timedelta64(1, "s"))
    slots = parts.load_kw.shape[1]
    before = np.round(3600 * parts.slot_h * np.arange(slots) / step_s).astype(np.int64) - 1
    found = np.full((len(parts.store_site), slots), np.nan)
    for dim, variable in (("ev", "ev_soc"), ("site", "site_battery_soc")):
        if variable not in result:
            continue
        rows = np.flatnonzero(result[f"{dim}_member"].values == member)
        row_of = dict(zip(result[f"{dim}_name"].values[rows].tolist(), rows.tolist(), strict=True))
        soc = result[variable].transpose(dim, "time").values
        for store, name in enumerate(parts.store_name):
            if (name == "") == (dim == "site"):
                own = row_of[str(name) or str(parts.name[parts.store_site[store]])]
                found[store, 1:] = soc[own, before[1:]] * parts.store_kwh[store]
    return found


def _has_critical(table: SiteTable) -> NDArray[np.bool_]:
    """Whether a site has a critical circuit, (site,)."""
    site = np.repeat(np.arange(len(table)), np.diff(table.circuit_first))
    found: NDArray[np.bool_] = np.bincount(site, table.critical, len(table)) > 0
    return found


def _powers(
    table: SiteTable, own: NDArray[np.int64], slot_s: float, slots: int
) -> tuple[Array, Array, Array]:
    """Means of load, critical load and PV of some sites by slot, (site, slot) each, kW."""
    load, critical, pv = np.zeros((3, len(own), slots))
    site = np.repeat(np.arange(len(table)), np.diff(table.circuit_first))
    place = np.full(len(table), -1)
    place[own] = np.arange(len(own))
    at_once = max(int(_SPAN_S / slot_s), 1)
    for begin in range(0, slots, at_once):
        part = slice(begin, min(begin + at_once, slots))
        edges_s = slot_s * np.arange(part.start, part.stop + 1, dtype=np.float64)
        held = table.profiles.slots(float(edges_s[0]), float(edges_s[-1]))
        at = np.clip(np.searchsorted(held.edges_s, edges_s, "right") - 1, 0, held.kw.shape[1] - 1)
        energy = np.cumsum(held.kw * np.diff(held.edges_s), axis=1)
        until = energy[:, at] - held.kw[:, at] * (held.edges_s[at + 1] - edges_s)
        mean = np.diff(until, axis=1) / slot_s
        for circuit in np.flatnonzero(place[site] >= 0):
            row = place[site[circuit]]
            power = table.circuit_share[circuit] * mean[table.circuit_row[circuit]]
            load[row, part] += power
            if table.critical[circuit]:
                critical[row, part] += power
        for row, source in enumerate(table.pv_row[own]):
            if source >= 0:
                pv[row, part] = mean[source]
    return np.maximum(load, 0.0), np.maximum(critical, 0.0), np.maximum(pv, 0.0)


class _Stores(NamedTuple):
    """Columns of :class:`SitesByPart` by stay and by store."""

    stays: NDArray[np.void]
    target_kwh: Array
    store: NDArray[np.int64]
    site: NDArray[np.int64]
    ev: NDArray[np.int64]
    kwh: Array
    name: NDArray[np.str_]


def _stores(world: World, table: SiteTable, own: NDArray[np.int64], period_h: float) -> _Stores:
    """Batteries and EVs of some sites."""
    given = (world.scenario, world.connections, world.evs, world.sessions)
    sessions, planned = in_force(*given), planned_sessions_of(*given)
    first_session = np.searchsorted(planned.ev, np.arange(len(world.evs) + 1))
    rating = table.rating
    parts, targets, store_site, store_ev, sizes = [], list[Array](), list[int](), list[int](), list[int]()
    capacity, names = list[float](), list[str]()
    for row, site in enumerate(own):
        battery_rank = float(rating.ev_first[site])
        if rating.battery_kwh[site] > 0:
            stay = np.zeros(1, STAY)
            kwh = rating.battery_kwh[site]
            idle = CONTROL_NAMES[rating.control[site]] == "reserve"
            soc = max(rating.soc_start[site], rating.reserve_soc[site] * idle)
            for name, value in {
                "departure_h": np.inf, "arrival_kwh": soc * kwh, "drive_kwh": np.nan,
                "floor_kwh": rating.soc_min[site] * kwh, "capacity_kwh": kwh,
                "charge_kw": rating.battery_charge_kw[site],
                "discharge_kw": rating.battery_discharge_kw[site],
                "charge_b": 1 / rating.charge_efficiency[site] - 1,
                "discharge_b": 1 - rating.discharge_efficiency[site],
                "standby_kw": rating.standby_kw[site], "rank": battery_rank,
            }.items():  # fmt: skip
                stay[name] = value
            parts.append(stay)
            targets.append(np.array([kwh]))
            store_site.append(row)
            store_ev.append(_BATTERY)
            capacity.append(float(kwh))
            names.append("")
            sizes.append(1)
        for number, ev in enumerate(table.ev[table.ev_first[site] : table.ev_first[site + 1]]):
            rows = np.arange(first_session[ev], first_session[ev + 1])
            rows = rows[planned.arrival_s[rows] < 3600 * period_h - 1e-6]
            if not len(rows):
                continue
            stay, kwh = np.zeros(len(rows), STAY), planned.capacity_kwh[rows]
            stay["arrival_h"] = planned.arrival_s[rows] / 3600
            stay["departure_h"] = np.minimum(planned.departure_s[rows] / 3600, period_h)
            stay["arrival_kwh"] = planned.soc_arrival[rows] * kwh
            stay["drive_kwh"] = sessions.drive_kwh[rows]
            stay["least_kwh"] = LEAST_SOC * kwh
            stay["floor_kwh"] = planned.soc_floor[rows] * kwh
            target_kwh = np.maximum(planned.soc_target[rows], planned.soc_arrival[rows]) * kwh
            stay["capacity_kwh"] = target_kwh  # an outage charges no further than the driver wants
            stay["charge_kw"] = planned.charge_kw[rows]
            stay["discharge_kw"] = planned.discharge_kw[rows]
            for way, loss in (("charge", sessions.charge_loss), ("discharge", sessions.discharge_loss)):
                for column, letter in enumerate("abc"):
                    stay[f"{way}_{letter}"] = loss[rows, column]
            stay["rank"] = 1.0 - battery_rank + number / 1000  # EVs in order, as in the sites' federate
            parts.append(stay)
            targets.append(target_kwh)
            capacity.append(float(kwh[0]))
            names.append(str(world.evs.name[ev]))
            store_site.append(row)
            store_ev.append(number)
            sizes.append(len(rows))
    stays = np.concatenate(parts) if parts else np.zeros(0, STAY)
    target = np.concatenate(targets) if targets else np.zeros(0)
    store = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    of_store = np.array(store_site, np.int64), np.array(store_ev, np.int64), np.array(capacity)
    return _Stores(stays, target, store, *of_store, np.array(names, np.str_))


def _prices(
    world: World, slot_s: float, slots: int
) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Price and credit by slot, and whether it is cheap and dear.

    Cheap: at the lowest price of its day, where that pays a round trip against the highest. Dear: above the
    lowest by the loss of a round trip; all slots where none pays.
    """
    prices = world.scenario.prices
    nothing = np.full(slots, np.nan)
    if prices is None:
        return nothing, nothing, np.zeros(slots, np.bool_), np.ones(slots, np.bool_)
    price, credit = prices.means(slot_s * np.arange(slots + 1, dtype=np.float64))
    times = world.clock.timestamps(slot_s * np.arange(slots, dtype=np.float64))
    _, day = np.unique(times.astype("datetime64[D]"), return_inverse=True)
    low, high = np.full(day.max() + 1, np.inf), np.full(day.max() + 1, -np.inf)
    np.minimum.at(low, day, price)
    np.maximum.at(high, day, price)
    cost = np.where(low > 0, low / _ROUND_TRIP, low)
    pays = high > cost
    return price, credit, pays[day] & (price <= low[day] + 1e-12), ~pays[day] | (price > cost[day])


_ROUND_TRIP = 0.85
"""Round trip of a store by which a price is dear."""
