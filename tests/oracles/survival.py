"""An outage at one site in plain Python, moment by moment: the twin of ``hours_survived``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

TINY = 1e-9


@dataclass
class Stay:
    arrival_h: float = 0.0
    departure_h: float = math.inf
    arrival_kwh: float = 0.0
    drive_kwh: float = math.nan
    least_kwh: float = 0.0
    floor_kwh: float = 0.0
    capacity_kwh: float = 0.0
    charge_kw: float = 0.0
    discharge_kw: float = 0.0
    charge_b: float = 0.0
    discharge_b: float = 0.0
    standby_kw: float = 0.0
    rank: float = 0.0


@dataclass
class Store:
    stays: list[Stay]
    start_kwh: list[float]


@dataclass
class Generator:
    kw: float = 0.0
    fuel: float = 0.0
    fuel_per_kwh: float = 1.0
    fuel_per_h: float = 0.0
    turndown: float = 0.0


@dataclass
class _Unit:
    """A store in an outage: a list of (from, until, stay, continued) in hours since the start."""

    visits: list[tuple[float, float, Stay, bool]] = field(default_factory=list)
    kwh: float | None = None
    now: Stay | None = None
    until: float = math.inf


def hours(
    start: int, slot_h: float, load: list[float], pv: list[float], stores: list[Store], generator: Generator,
    horizon_h: float, pv_forms: bool, evs_stay: bool = False,
    generator_last: bool = False,
) -> float:  # fmt: skip
    period = slot_h * len(load)
    begin = start * slot_h
    units = []
    for store in stores:
        unit = _Unit()
        for lap in range(int(horizon_h / period) + 3):
            for stay in store.stays:
                visit = (stay.arrival_h + lap * period - begin, stay.departure_h + lap * period - begin, stay)
                if visit[1] > TINY:
                    joined = lap > 0 and stay.arrival_h == 0 and bool(unit.visits)
                    unit.visits.append((*visit, joined and abs(unit.visits[-1][1] - visit[0]) < TINY))
        if unit.visits and unit.visits[0][0] <= TINY:
            _, unit.until, unit.now, _ = unit.visits.pop(0)
            unit.kwh = store.start_kwh[start]
        units.append(unit)
    fuel, time = (generator.fuel if generator.kw else 0.0), 0.0
    while time < horizon_h - TINY:
        for unit in units:
            while True:
                if unit.now is not None and unit.until <= time + TINY:
                    unit.now = None
                if unit.now is None and unit.visits and unit.visits[0][0] <= time + TINY:
                    _, unit.until, unit.now, joined = unit.visits.pop(0)
                    if not joined:
                        driven = unit.now.drive_kwh
                        if unit.kwh is None or math.isnan(driven):
                            unit.kwh = unit.now.arrival_kwh
                        else:
                            unit.kwh = max(unit.now.least_kwh, unit.kwh - driven)
                    continue
                break
            if evs_stay and unit.now is not None:
                unit.until = math.inf
        slot = int((time + TINY) / slot_h)
        at = (start + slot) % len(load)
        here = [unit for unit in units if unit.now is not None]
        need = load[at] - pv[at]
        over = max(-need, 0.0)
        step = min((slot + 1) * slot_h, horizon_h) - time
        for unit in units:
            changes = [unit.until] if unit.now is not None else [visit[0] for visit in unit.visits[:1]]
            step = min([step, *(change - time for change in changes)])
        forms = pv_forms or fuel > TINY or any(unit.now.discharge_kw > 0 for unit in here)
        if load[at] > 0 and not forms:
            return time
        burn, rate = 0.0, {}
        if need > TINY and fuel > TINY and not generator_last:
            given = min(need, generator.kw)
            runs = max(given, generator.turndown * generator.kw)
            burn = generator.fuel_per_kwh * runs + generator.fuel_per_h
            step, over, need = min(step, fuel / burn), runs - given, need - given
        for unit in sorted(here, key=lambda unit: (unit.now.rank, unit.until)):
            given = min(need, unit.now.discharge_kw)
            if need > TINY and given > 0 and unit.kwh - unit.now.floor_kwh > TINY:
                rate[id(unit)] = -(given / (1 - unit.now.discharge_b) + unit.now.standby_kw)
                step = min(step, (unit.kwh - unit.now.floor_kwh) / -rate[id(unit)])
                need -= given
        if need > TINY and fuel > TINY and generator_last:
            given = min(need, generator.kw)
            runs = max(given, generator.turndown * generator.kw)
            burn = generator.fuel_per_kwh * runs + generator.fuel_per_h
            step, need = min(step, fuel / burn), need - given
        if need > TINY:
            return time
        for unit in sorted(here, key=lambda unit: (unit.now.rank, -unit.until)):
            drawn = min(over, unit.now.charge_kw)
            if over > TINY and drawn > 0 and unit.now.capacity_kwh - unit.kwh > TINY and id(unit) not in rate:
                rate[id(unit)] = drawn / (1 + unit.now.charge_b)
                step = min(step, (unit.now.capacity_kwh - unit.kwh) / rate[id(unit)])
                over -= drawn
        for unit in here:
            unit.kwh += rate.get(id(unit), 0.0) * step
        fuel -= burn * step
        time += step
    return horizon_h
