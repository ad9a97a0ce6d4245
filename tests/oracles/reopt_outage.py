"""REopt's outage simulator in plain Python, from its published rule: an oracle of the survival kernel.

The rule, one slot of an outage after the other (NREL, REopt outage simulator): what PV has over fills the
battery, its whole round trip lost on the way in, up to its rating and its room. What PV leaves over the
generator takes if its rating and the fuel of the slot allow; if not, it gives what it can. The battery has to
carry all of the rest over the whole slot, or the outage ends at the slot's begin. Time wraps at the end of
the year.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Plant:
    battery_kwh: float = 0.0
    battery_kw: float = 0.0
    round_trip: float = 0.829
    generator_kw: float = 0.0
    fuel: float = 0.0
    slope: float = 1.0
    intercept: float = 0.0
    turndown: float = 0.0


def hours_served(
    start: int, net_kw: Sequence[float], stored_kwh: float, plant: Plant, per_hour: int
) -> float:
    """Hours that the critical load less PV, ``net_kw``, is met from a slot on; at most all slots."""
    fuel, store = plant.fuel, stored_kwh
    least_kw = plant.turndown * plant.generator_kw

    def fill(store: float, over_kw: float) -> float:
        taken_kw = min(over_kw, plant.battery_kw)
        return min(plant.battery_kwh, store + taken_kw * plant.round_trip / per_hour)

    for slot in range(len(net_kw)):
        need = net_kw[(start + slot) % len(net_kw)]
        if need < 0:
            store = fill(store, -need)
            continue
        burnt = (plant.slope * max(need, least_kw) + plant.intercept) / per_hour
        fits, enough = need <= plant.generator_kw, burnt <= fuel
        if fits and enough:
            fuel -= burnt
            if need < least_kw:
                store = fill(store, least_kw - need)
            continue
        last_kw = max(0.0, (fuel * per_hour - plant.intercept) / plant.slope)
        if enough:
            need -= plant.generator_kw
            fuel = max(0.0, fuel - (plant.slope * plant.generator_kw + plant.intercept) / per_hour)
        else:
            need -= last_kw if fits else min(plant.generator_kw, last_kw)
            fuel = 0.0
        if need <= min(plant.battery_kw, store * per_hour):
            store = max(0.0, store - need / per_hour)
        elif round(need, 5) > 0:
            return slot / per_hour
    return len(net_kw) / per_hour
