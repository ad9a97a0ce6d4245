"""Time for which sites serve their critical load in an outage, for every possible start of a period.

In: critical load and PV of each site by slot, and what may serve them: stores (stationary batteries, and EVs
that leave and arrive), and a standby generator. Out: for every start and site the hours until the critical
load is first not met in full. Partial service counts as failure; with nothing that serves, they are 0. The
period repeats: an outage that outlives it goes on at its begin, as in REopt.

PV serves first, then the generator, then the stores, or these first (``generator_last``). Two laws say how
stores behave in a slot:

- ``hours_survived``: power is constant between the moments at which a slot, a stay or the fuel ends, or a
  store is empty or full. They are met exactly, so hours are no whole slots. Losses are those of the fleet's
  chargers, each way; a store that discharges has its standby consumption besides, at the battery.
- ``slots_survived``: the published rule of REopt's outage simulator (NREL, ``simulate_outage``): a slot
  is served if ``min(kW, energy x slots per hour)`` is enough for all of it. Only ``charge_b`` is lost: the
  round trip is booked on charging (:func:`with_round_trip_on_charging`). With several stores it is the sum
  over those that are there for the whole slot.

Stores give in the order of rank, then of departure, the next first: what will leave is used first. They are
charged from surplus in the order of rank, then of departure, the last first.

A site's island needs something that forms its voltage: a store that is plugged in and can discharge, be it
empty, or a generator with fuel. PV by itself serves nothing unless ``pv_forms``; REopt's rule has no such
condition.

Where all stores are full at the begin of a slot, and no fuel is used, what follows depends on that slot only:
it is computed once for all starts that come there.

Left out: time to detect the outage and to start, rated apparent power, load steps, phases, reactive
power, self-discharge, taper of the charging power.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.laws import battery_kw_drawn, battery_kw_given
from evgrid.core.jit import in_threads, inlined, njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STAY = np.dtype(
    [
        ("arrival_h", "f8"),
        ("departure_h", "f8"),
        ("arrival_kwh", "f8"),
        ("drive_kwh", "f8"),
        ("least_kwh", "f8"),
        ("floor_kwh", "f8"),
        ("capacity_kwh", "f8"),
        ("charge_kw", "f8"),
        ("discharge_kw", "f8"),
        ("charge_a", "f8"),
        ("charge_b", "f8"),
        ("charge_c", "f8"),
        ("discharge_a", "f8"),
        ("discharge_b", "f8"),
        ("discharge_c", "f8"),
        ("standby_kw", "f8"),
        ("rank", "f8"),
    ]
)
"""A stay of a store at its site. A stationary battery has one from 0 to infinity.

arrival_h, departure_h : h from the begin of the period, within it; departure infinite: it never leaves. A
    stay that goes on at the period's end ends there, and a next one begins at 0
arrival_kwh : energy at arrival in normal times, kWh
drive_kwh : energy used since the last stay: a store that was there earlier in the outage arrives with what it
    left with less this, but ``least_kwh`` at least. NaN: it arrives with ``arrival_kwh`` all the same
floor_kwh, capacity_kwh : least and most energy between which an outage uses it
charge_kw, discharge_kw : most that it draws and gives on the AC side
charge_a … discharge_c : conversion loss ``a + b Pb + c Pb**2`` at battery power Pb, kW
standby_kw : drawn from the battery besides while it discharges, kW
rank : the lower one gives, and is charged, first
"""

GENERATOR = np.dtype(
    [("kw", "f8"), ("fuel", "f8"), ("fuel_per_kwh", "f8"), ("fuel_per_h", "f8"), ("turndown", "f8")]
)
"""Standby generator of a site; ``kw`` 0: none. ``fuel`` at the start of the outage, in any unit; it burns
``fuel_per_kwh P + fuel_per_h`` an hour at a power P of at least ``turndown kw``, and runs where there is more
load than PV. For a number of hours at rated power: fuel = hours, fuel_per_kwh = 1 / kw, fuel_per_h = 0."""

_EMPTY_KWH = 1e-9
"""Energy that counts as none."""
_MOMENT_H = 1e-9
"""Time that counts as none."""
_UNMET_KW = 1e-9
"""Load that counts as none."""
_REOPT_UNMET_KW = 0.5e-5
"""The same in REopt's rule, which rounds to five decimals."""


class Sites(NamedTuple):
    """What serves the critical loads; sites of all members stand one after the other.

    slot_h : length of a slot, h
    load_kw, pv_kw : (site, slot) critical load, and power that PV can give, at least 0
    generators : (site,) GENERATOR
    first_store : (site + 1,) stores of each site
    first_stay : (store + 1,) stays of each store, sorted by arrival, without overlap
    stays : (stay,) STAY
    """

    slot_h: float
    load_kw: Floats
    pv_kw: Floats
    generators: NDArray[np.void]
    first_store: Ints
    first_stay: Ints
    stays: NDArray[np.void]


def survival_hours(
    sites: Sites,
    start_kwh: Floats,
    starts: Ints | Floats | None = None,
    horizon_h: float = 8760.0,
    rule: str = "exact",
    pv_forms: bool = False,
    evs_stay: bool = False,
    generator_last: bool = False,
) -> NDArray[np.float32]:
    """Hours until the critical load of each site is first not met, (start, site).

    Parameters
    ----------
    sites
        The sites.
    start_kwh
        (store, slot) energy of each store in normal times at the begin of each slot, kWh, or (store, 1) if
        it is always the same; it matters only where the store is plugged in then.
    starts
        When an outage starts, in slots from the period's begin, (start,): 2.5 is the middle of the third. A
        store's energy there lies on the line between two slots' begins. With ``reopt``: at the slot's begin.
        Left out: the begin of each slot.
    horizon_h
        Longest outage, h: what survives it has this value.
    rule
        ``exact`` or ``reopt``; see the module's text.
    pv_forms
        Whether PV serves load without a store or generator; with ``reopt`` it always does.
    evs_stay
        Whether what is plugged in during the outage stays until it ends, in place of leaving as in normal
        times.
    generator_last
        Whether the generator serves what the stores leave, and what it has over at its turndown is lost; with
        ``reopt`` it never does.

    Raises
    ------
    ValueError
        If the rule isn't known, or there is no slot.

    """
    if rule not in ("exact", "reopt"):
        raise ValueError(f"rule = {rule}: must be exact or reopt")
    number, slots = sites.load_kw.shape
    if not slots:
        raise ValueError("there is no slot: a period has at least one")
    starts = np.asarray(np.arange(slots) if starts is None else starts, np.float64)
    hours = np.zeros((number, len(starts)), np.float32)
    options = pv_forms, evs_stay, generator_last
    kernel = hours_survived if rule == "exact" else slots_survived
    in_threads(
        lambda low, high: kernel(low, high, sites, start_kwh, starts, horizon_h, options, hours),
        number,
        1,
    )
    return hours.T


@njit
def with_round_trip_on_charging(stays: NDArray[np.void]) -> NDArray[np.void]:
    """Stays whose loss at rated power, of both ways, is booked on charging, as REopt does."""
    booked = stays.copy()
    for row in range(len(stays)):
        stay = stays[row]
        stored, given_kw = stored_kw(stay["charge_kw"], stay), stay["discharge_kw"]
        into = stored / stay["charge_kw"] if stored > 0.0 else 1.0
        out_kw = drained_kw(given_kw, stay) - stay["standby_kw"]
        out = given_kw / out_kw if out_kw > 0.0 else 1.0
        booked[row]["charge_b"] = 1.0 / (into * out) - 1.0
    return booked


@inlined
def drained_kw(grid_kw: float, stay: np.void) -> float:
    """Power out of the battery, kW, that gives ``grid_kw`` > 0, standby included."""
    out_kw = battery_kw_given(grid_kw, stay["discharge_a"], stay["discharge_b"], stay["discharge_c"])
    return float(out_kw + stay["standby_kw"])


@inlined
def stored_kw(grid_kw: float, stay: np.void) -> float:
    """Power into the battery, kW, while ``grid_kw`` is drawn; 0 where the loss takes all of it."""
    return battery_kw_drawn(grid_kw, stay["charge_a"], stay["charge_b"], stay["charge_c"])


class Stores(NamedTuple):
    """The stores of a site in an outage, (store,) each.

    stay, lap : the stay under way or the next, and how often the period has passed until it
    present : whether it is at the site
    change_h : when it leaves or arrives next, h from the begin of the slot in which it was entered
    energy : kWh; -infinity: not seen in this outage yet
    giving, charging : the stores that are there, in the order in which they give and are charged
    """

    stay: Ints
    lap: Ints
    present: NDArray[np.bool_]
    change_h: Floats
    energy: Floats
    giving: Ints
    charging: Ints


@njit
def _stores(count: int) -> Stores:
    """Room for some stores."""
    return Stores(
        np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.bool_), np.zeros(count),
        np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64),
    )  # fmt: skip


@inlined
def _enter(slot: int, row: int, first: int, sites: Sites, start_kwh: Floats, here: Stores) -> None:
    """State of one store at the begin of a slot: its stay under way or the next, and its energy."""
    store, time_h, period_h = first + row, slot * sites.slot_h, sites.load_kw.shape[1] * sites.slot_h
    low, last = sites.first_stay[store], sites.first_stay[store + 1]
    none, high = low == last, last
    while low < high:  # the first that ends later
        middle = (low + high) // 2
        if sites.stays[middle]["departure_h"] > time_h + _MOMENT_H:
            high = middle
        else:
            low = middle + 1
    here.lap[row], here.present[row], here.energy[row], here.change_h[row] = 0, False, 0.0, np.inf
    if none:
        here.stay[row] = -1
        return
    if low == last:
        low, here.lap[row] = sites.first_stay[store], 1
    here.stay[row] = low
    stay = sites.stays[low]
    arrival_h = stay["arrival_h"] + here.lap[row] * period_h - time_h
    if arrival_h <= _MOMENT_H:
        here.present[row] = True
        here.energy[row] = start_kwh[store, min(slot, start_kwh.shape[1] - 1)]
        here.change_h[row] = stay["departure_h"] + here.lap[row] * period_h - time_h
    else:
        here.energy[row] = -np.inf
        here.change_h[row] = arrival_h


@inlined
def _change(slot: int, row: int, first: int, sites: Sites, here: Stores) -> None:
    """Let one store leave or arrive, in an outage from a slot on."""
    store, time_h, period_h = first + row, slot * sites.slot_h, sites.load_kw.shape[1] * sites.slot_h
    if not here.present[row]:
        stay = sites.stays[here.stay[row]]
        left, driven = here.energy[row], stay["drive_kwh"]
        here.energy[row] = stay["arrival_kwh"]
        if left > -np.inf and driven == driven:
            here.energy[row] = max(stay["least_kwh"], left - driven)
        here.present[row] = True
        here.change_h[row] = stay["departure_h"] + here.lap[row] * period_h - time_h
        return
    left_h = here.change_h[row]
    following = here.stay[row] + 1
    if following == sites.first_stay[store + 1]:
        following = sites.first_stay[store]
        here.lap[row] += 1
    here.stay[row] = following
    stay = sites.stays[following]
    arrival_h = stay["arrival_h"] + here.lap[row] * period_h - time_h
    if following == sites.first_stay[store] and stay["arrival_h"] <= 0.0 and arrival_h <= left_h + _MOMENT_H:
        # the same stay, cut by the period
        here.change_h[row] = stay["departure_h"] + here.lap[row] * period_h - time_h
        return
    here.present[row] = False
    here.change_h[row] = arrival_h


@inlined
def _sort(evs_stay: bool, sites: Sites, here: Stores) -> tuple[int, float]:
    """Order the stores that are there; returns their number, and the time of the next change, h."""
    number, following_h = 0, np.inf
    stay, change_h = here.stay, here.change_h
    for row in range(len(stay)):
        if evs_stay and here.present[row]:
            change_h[row] = np.inf
        following_h = min(following_h, change_h[row])
        if not here.present[row]:
            continue
        rank, until_h = sites.stays[stay[row]]["rank"], change_h[row]
        at = number
        while at > 0:
            other = here.giving[at - 1]
            its = sites.stays[stay[other]]["rank"]
            if its < rank or (its == rank and change_h[other] <= until_h):
                break
            here.giving[at] = other
            at -= 1
        here.giving[at] = row
        at = number
        while at > 0:
            other = here.charging[at - 1]
            its = sites.stays[stay[other]]["rank"]
            if its < rank or (its == rank and change_h[other] >= until_h):
                break
            here.charging[at] = other
            at -= 1
        here.charging[at] = row
        number += 1
    return number, following_h


@inlined
def _begin(
    slot: int, late_h: float, first: int, evs_stay: bool, sites: Sites, start_kwh: Floats, here: Stores
) -> tuple[int, float]:
    """Stores at the start of an outage ``late_h`` after the begin of a slot; returns as :func:`_sort`."""
    for row in range(len(here.stay)):
        _enter(slot, row, first, sites, start_kwh, here)
        since_h, following = 0.0, slot + 1
        while here.change_h[row] <= late_h + _MOMENT_H:
            since_h = here.change_h[row]
            _change(slot, row, first, sites, here)
        stays = here.present[row] and here.change_h[row] > sites.slot_h + _MOMENT_H
        if late_h > 0.0 and stays and following < start_kwh.shape[1]:
            share = (late_h - since_h) / (sites.slot_h - since_h)
            here.energy[row] += share * (start_kwh[first + row, following] - here.energy[row])
    return _sort(evs_stay, sites, here)


@inlined
def _begin_full(
    slot: int, first: int, evs_stay: bool, sites: Sites, start_kwh: Floats, here: Stores
) -> tuple[int, float]:
    """Stores that are all there and full at the begin of a slot; returns as :func:`_sort`."""
    for row in range(len(here.stay)):
        _enter(slot, row, first, sites, start_kwh, here)
        here.energy[row] = sites.stays[here.stay[row]]["capacity_kwh"]
    return _sort(evs_stay, sites, here)


@inlined
def _change_until(
    now_h: float, following_h: float, slot: int, first: int, evs_stay: bool, sites: Sites, here: Stores
) -> tuple[int, float]:
    """Let all stores leave and arrive whose time has come, at least one; returns as :func:`_sort`."""
    there = 0
    while following_h <= now_h + _MOMENT_H:
        for row in range(len(here.stay)):
            if here.change_h[row] <= now_h + _MOMENT_H:
                _change(slot, row, first, sites, here)
        there, following_h = _sort(evs_stay, sites, here)
    return there, following_h


@inlined
def _follow_links(anchor: int, before: int, link: Ints, limit: float) -> tuple[int, int]:
    """The last slot known at which all stores are full again, from one on, and the slots until there."""
    while link[anchor] > 0 and before < limit:
        before += link[anchor]
        anchor = (anchor + link[anchor]) % len(link)
    return anchor, before


@njit
def _stationary(first: int, last: int, sites: Sites) -> bool:
    """Whether no store leaves."""
    found = True
    for store in range(first, last):
        for row in range(sites.first_stay[store], sites.first_stay[store + 1]):
            found &= np.isinf(sites.stays[row]["departure_h"])
    return found


@inlined
def _full(there: int, sites: Sites, here: Stores) -> bool:
    """Whether there are stores, all of them are at the site, and full."""
    count = len(here.stay)
    if there < count or count == 0:
        return False
    full = True
    for row in range(count):
        full &= abs(sites.stays[here.stay[row]]["capacity_kwh"] - here.energy[row]) <= _EMPTY_KWH
    return full


@njit
def hours_survived(
    low: int, high: int, sites: Sites, start_kwh: Floats, starts: Floats, horizon_h: float,
    options: tuple[bool, bool, bool], hours: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill ``hours`` (site, start) of the sites from ``low`` to ``high``, with exact moments."""
    slot_h, slots = sites.slot_h, sites.load_kw.shape[1]
    pv_forms, evs_stay, generator_last = options
    for site in range(low, high):
        first = sites.first_store[site]
        count = sites.first_store[site + 1] - first
        links = not evs_stay or _stationary(first, first + count, sites)
        generator = sites.generators[site]
        turndown_kw = generator["turndown"] * generator["kw"]
        here, rate_kw = _stores(count), np.zeros(count)
        energy, giving, charging = here.energy, here.giving, here.charging
        all_fuel = generator["fuel"] if generator["kw"] > 0.0 else 0.0
        link, fail_h = np.zeros(slots, np.int64), np.full(slots, -1.0)
        for column in range(len(starts)):
            slot = int(starts[column] + _MOMENT_H)
            late_h = max(starts[column] - slot, 0.0) * slot_h  # after the slot's begin
            begin, limit_h = slot, horizon_h + late_h
            there, following_h = _begin(slot, late_h, first, evs_stay, sites, start_kwh, here)
            fuel, before, served, anchor = all_fuel, 0, 0, -1
            now_h, end_h, begins, fails = late_h, slot_h, late_h <= _MOMENT_H, False
            while before * slot_h + now_h < limit_h - _MOMENT_H:
                if end_h - now_h <= _MOMENT_H:
                    served += 1
                    now_h, end_h, begins = served * slot_h, (served + 1) * slot_h, True
                    slot += 1
                    if slot == slots:
                        slot = 0
                if following_h <= now_h + _MOMENT_H:
                    there, following_h = _change_until(
                        now_h, following_h, begin, first, evs_stay, sites, here
                    )
                if begins and links and fuel == all_fuel and _full(there, sites, here):
                    if anchor >= 0:
                        link[anchor] = served
                    anchor, before = _follow_links(slot, before + served, link, limit_h / slot_h)
                    served, now_h, end_h, slot, begins = 0, 0.0, slot_h, anchor, False
                    if fail_h[anchor] >= 0.0:
                        now_h = fail_h[anchor]
                        break
                    begin = slot
                    there, following_h = _begin_full(slot, first, evs_stay, sites, start_kwh, here)
                    continue
                begins = False
                load_kw = sites.load_kw[site, slot]
                need_kw = load_kw - sites.pv_kw[site, slot]
                surplus_kw, burn = max(-need_kw, 0.0), 0.0
                span_h = min(min(end_h, following_h), limit_h - before * slot_h) - now_h
                if load_kw > 0.0 and not pv_forms and fuel <= _EMPTY_KWH:
                    forms = False
                    for row in giving[:there]:
                        forms |= sites.stays[here.stay[row]]["discharge_kw"] > 0.0
                    if not forms:
                        fails = True
                        break
                for row in giving[:there]:
                    rate_kw[row] = 0.0
                for turn in range(2):
                    its_turn = (turn == 1) == generator_last
                    if its_turn and need_kw > _UNMET_KW and fuel > _EMPTY_KWH:
                        given_kw = min(need_kw, generator["kw"])
                        run_kw = max(given_kw, turndown_kw)
                        if not generator_last:
                            surplus_kw = run_kw - given_kw
                        burn = generator["fuel_per_kwh"] * run_kw + generator["fuel_per_h"]
                        if burn > 0.0:
                            span_h = min(span_h, fuel / burn)
                        need_kw -= given_kw
                    if its_turn:
                        continue
                    for row in giving[:there]:
                        if need_kw <= _UNMET_KW:
                            break
                        own = sites.stays[here.stay[row]]
                        over_kwh = energy[row] - own["floor_kwh"]
                        given_kw = min(need_kw, own["discharge_kw"])
                        if over_kwh > _EMPTY_KWH and given_kw > 0.0:
                            out_kw = drained_kw(given_kw, own)
                            rate_kw[row] = -out_kw
                            span_h = min(span_h, over_kwh / out_kw)
                            need_kw -= given_kw
                if need_kw > _UNMET_KW:
                    fails = True
                    break
                for row in charging[:there]:
                    if surplus_kw <= _UNMET_KW:
                        break
                    own = sites.stays[here.stay[row]]
                    room_kwh = own["capacity_kwh"] - energy[row]
                    drawn_kw = min(surplus_kw, own["charge_kw"])
                    if room_kwh > _EMPTY_KWH and rate_kw[row] == 0.0 and drawn_kw > 0.0:
                        in_kw = stored_kw(drawn_kw, own)
                        if in_kw > 0.0:
                            rate_kw[row] = in_kw
                            span_h = min(span_h, room_kwh / in_kw)
                            surplus_kw -= drawn_kw
                for row in giving[:there]:
                    energy[row] += rate_kw[row] * span_h
                fuel -= burn * span_h
                now_h += span_h
            if fails and anchor >= 0:
                fail_h[anchor] = now_h
            hours[site, column] = min(before * slot_h + now_h, limit_h) - late_h


@njit
def slots_survived(
    low: int, high: int, sites: Sites, start_kwh: Floats, starts: Floats, horizon_h: float,
    options: tuple[bool, bool, bool], hours: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill ``hours`` (site, start) of the sites from ``low`` to ``high``, by REopt's rule in whole slots."""
    slot_h, slots = sites.slot_h, sites.load_kw.shape[1]
    evs_stay = options[1]
    per_hour = 1.0 / slot_h
    most_slots = int(np.ceil(horizon_h / slot_h - _MOMENT_H))
    for site in range(low, high):
        first = sites.first_store[site]
        count = sites.first_store[site + 1] - first
        links = not evs_stay or _stationary(first, first + count, sites)
        generator = sites.generators[site]
        diesel_kw, per_kwh, per_h = generator["kw"], generator["fuel_per_kwh"], generator["fuel_per_h"]
        turndown_kw = generator["turndown"] * diesel_kw
        here = _stores(count)
        energy, change_h, giving, charging = here.energy, here.change_h, here.giving, here.charging
        all_fuel = generator["fuel"] if diesel_kw > 0.0 else 0.0
        link, fail = np.zeros(slots, np.int64), np.full(slots, -1)
        for column in range(len(starts)):
            slot = int(starts[column] + _MOMENT_H)
            begin = slot
            there, following_h = _begin(slot, 0.0, first, evs_stay, sites, start_kwh, here)
            fuel, before, served, anchor = all_fuel, 0, 0, -1
            fails = False
            while before + served < most_slots:
                now_h = served * slot_h
                if following_h <= now_h + _MOMENT_H:
                    there, following_h = _change_until(
                        now_h, following_h, begin, first, evs_stay, sites, here
                    )
                fresh = anchor >= 0 and served == 0
                if links and not fresh and fuel == all_fuel and _full(there, sites, here):
                    if anchor >= 0:
                        link[anchor] = served
                    anchor, before = _follow_links(slot, before + served, link, float(most_slots))
                    slot, served = anchor, 0
                    if fail[anchor] >= 0:
                        served = fail[anchor]
                        break
                    begin = slot
                    there, following_h = _begin_full(slot, first, evs_stay, sites, start_kwh, here)
                    continue
                whole_h = now_h + slot_h - _MOMENT_H  # stores that leave before don't count
                need_kw = sites.load_kw[site, slot] - sites.pv_kw[site, slot]
                surplus_kw = max(-need_kw, 0.0)
                if need_kw >= 0.0 and diesel_kw > 0.0:
                    needed = (per_kwh * max(need_kw, turndown_kw) + per_h) / per_hour
                    left_kw = max(0.0, (fuel * per_hour - per_h) / per_kwh)
                    if need_kw <= diesel_kw and needed <= fuel:
                        fuel -= needed
                        surplus_kw = max(turndown_kw - need_kw, 0.0)
                        need_kw = 0.0
                    elif need_kw <= diesel_kw:
                        need_kw -= left_kw
                        fuel = 0.0
                    elif needed <= fuel:
                        need_kw -= diesel_kw
                        fuel = max(0.0, fuel - (diesel_kw * per_kwh + per_h) / per_hour)
                    else:
                        need_kw -= min(diesel_kw, left_kw)
                        fuel = 0.0
                if need_kw > 0.0:
                    able_kw = 0.0
                    for row in giving[:there]:
                        if change_h[row] >= whole_h:
                            able_kw += _able_kw(energy[row], sites.stays[here.stay[row]], per_hour)
                    if able_kw >= need_kw:
                        for row in giving[:there]:
                            if change_h[row] >= whole_h:
                                given_kw = min(
                                    need_kw, _able_kw(energy[row], sites.stays[here.stay[row]], per_hour)
                                )
                                energy[row] = max(0.0, energy[row] - given_kw / per_hour)
                                need_kw -= given_kw
                    elif need_kw > _REOPT_UNMET_KW:
                        fails = True
                        break
                elif need_kw < 0.0 and surplus_kw == 0.0:
                    # the last of the fuel at turndown: the rule takes it into the battery as it is
                    for row in giving[:there]:
                        if change_h[row] >= whole_h:
                            energy[row] -= need_kw / per_hour
                            break
                for row in charging[:there]:
                    own = sites.stays[here.stay[row]]
                    if surplus_kw > 0.0 and change_h[row] >= whole_h and energy[row] < own["capacity_kwh"]:
                        drawn_kw = min(surplus_kw, own["charge_kw"])
                        stored_kwh = drawn_kw / per_hour / (1.0 + own["charge_b"])
                        energy[row] += min(own["capacity_kwh"] - energy[row], stored_kwh)
                        surplus_kw -= drawn_kw
                served += 1
                slot += 1
                if slot == slots:
                    slot = 0
            if fails and anchor >= 0:
                fail[anchor] = served
            hours[site, column] = min((before + served) * slot_h, horizon_h)


@inlined
def _able_kw(energy_kwh: float, stay: np.void, per_hour: float) -> float:
    """Power that a store can give for a whole slot, kW."""
    return float(max(min(stay["discharge_kw"], (energy_kwh - stay["floor_kwh"]) * per_hour), 0.0))
