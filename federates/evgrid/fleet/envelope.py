"""What EVs can do over a horizon: limits of power and energy in each of its slots.

In: the EVs that are plugged in, as they stand now. Out: for each EV, or summed over groups of EVs, the
least and the most power in each slot, and the least and the most energy at each slot's end, from which
every departure is met: a battery as the scheduling problem knows it. Positive is drawn from the grid.

**Energy** is counted at the meter, kWh from now on: what charging as fast as possible draws from the state
of now to that state, negative for states below. So a slot of charging at full power changes it by the
power drawn, taper and losses included, and what is charged needs no efficiency. A kWh that is given back
costs ``1 / round_trip``.

    Emax   charging as fast as possible to the target
    Emin   discharging as fast as the EV may, to its floor; then the latest charging that still reaches
           the target by departure
    Pmax   mean over the slot of charging as fast as possible from Emin at its begin
    Pmin   least mean over the slot, from Emax at its begin: discharging, or what must be charged

An EV keeps what it has at departure, and its power is 0 from then on. Where the target is out of reach, or
laxity is used up, Emin is Emax, and Pmin is Pmax.

Left out: EVs that are to come, and what the departure guard doesn't foresee either: local functions,
temperature, ramps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit
from evgrid.fleet.kernels import battery_kw_given, charge, energy_to_target_kwh, soc_that_reaches
from evgrid.fleet.lanes import LANES, Blocks, Places, in_use
from evgrid.fleet.physics import refusal_of

Row = Any
"""A row of KIND or OPTIONS."""


@njit
def limits_ahead(
    now_s: float, slot_s: float, willing: NDArray[np.float64], options: Row, kinds: Row, places: Places,
    state: Blocks, physics: Blocks, row_of: NDArray[np.int64],
    p_min_kw: NDArray[np.float64], p_max_kw: NDArray[np.float64],
    e_min_kwh: NDArray[np.float64], e_max_kwh: NDArray[np.float64], round_trip: NDArray[np.float64],
) -> None:  # fmt: skip
    """Limits of the EVs plugged in at ``now_s``, added up by row; see the module's text.

    Parameters
    ----------
    now_s, slot_s
        Begin of the horizon, and length of a slot.
    willing
        (slot,) share of each slot in which drivers let discharge.
    options, kinds, places, state, physics
        Those of :func:`evgrid.fleet.full.step`.
    row_of
        (ev,) row to which each EV is added: its own, or its group's.
    p_min_kw, p_max_kw, e_min_kwh, e_max_kwh
        (row, slot) filled; a row without EVs is 0.
    round_trip
        (ev,) filled for those plugged in: energy given per energy drawn to make it up, at full power below
        the taper; 1 where the EV may not discharge.

    """
    for array in (p_min_kw, p_max_kw, e_min_kwh, e_max_kwh):
        array[:] = 0.0
    slots = len(willing)
    slot_h = slot_s / 3600.0
    for lane in in_use(places):
        block, own, i = state[lane // LANES], physics[lane // LANES], lane % LANES
        ev = block["ev"][i]
        to = row_of[ev]
        kind = kinds[block["kind"][i]]
        soc, guarded = block["soc"][i], block["guarded"][i]
        never, out_kws, discharging_s = own["refusal"][i], own["out_kws"][i], own["discharging_s"][i]
        left_s = block["departure_s"][i] - now_s
        out_kw = 0.0
        lowest = soc
        spare_s = 0.0  # of discharging, that the warranty leaves
        round_trip[ev] = 1.0
        if not guarded and refusal_of(options, kind, never, out_kws, discharging_s, True) == 0:
            out_kw = battery_kw_given(
                kind["discharge_kw"], kind["discharge_a"], kind["discharge_b"], kind["discharge_c"]
            )
            round_trip[ev] = kind["discharge_kw"] / out_kw * kind["battery_kw"] / kind["charge_kw"]
            spare_s = min(
                (options["throughput_kws"] - out_kws) / out_kw,
                options["discharging_s"] - discharging_s,
            )
            lowest = max(kind["soc_floor"], soc - spare_s * out_kw * kind["soc_per_kws"])
        out_per_s = out_kw * kind["soc_per_kws"]
        high = soc
        low = soc
        falling = soc  # Emin but for the departure
        now_kwh = _to_target_kwh(kind, soc)
        high_kwh = now_kwh
        low_kwh = now_kwh
        most_kwh = -1.0  # drawn from ``low`` in a whole slot, where known
        for slot in range(slots):
            here_s = min(max(left_s - slot * slot_s, 0.0), slot_s)
            if here_s > 0.0:
                if most_kwh < 0.0 or here_s < slot_s:
                    full = charge(kind, low, kind["battery_kw"], here_s)[0]
                    most_kwh = low_kwh - _to_target_kwh(kind, full)
                p_max_kw[to, slot] += most_kwh / slot_h
                before, before_kwh = high, high_kwh
                if high < kind["soc_target"]:
                    high = charge(kind, high, kind["battery_kw"], here_s)[0]
                    high_kwh = _to_target_kwh(kind, high)
                least = high
                out_s = here_s * willing[slot]
                if not guarded:
                    if falling > lowest:
                        falling = max(falling - out_per_s * out_s, lowest)
                    reach = soc_that_reaches(kind, left_s - slot * slot_s - here_s)
                    least = min(max(falling, reach), high)
                if least != low:
                    low = least
                    low_kwh = _to_target_kwh(kind, low)
                    most_kwh = -1.0
                if low > before:
                    p_min_kw[to, slot] += (before_kwh - low_kwh) / slot_h
                elif out_kw > 0.0:
                    room_s = max(before - max(low, kind["soc_floor"]), 0.0) / out_per_s
                    out_s = min(out_s, room_s, spare_s)
                    p_min_kw[to, slot] -= kind["discharge_kw"] * out_s / slot_s
            e_min_kwh[to, slot] += now_kwh - low_kwh
            e_max_kwh[to, slot] += now_kwh - high_kwh


@njit
def _to_target_kwh(kind: Row, soc: float) -> float:
    """Energy at the meter from ``soc`` to the target, kWh; above it negative, at full power's efficiency."""
    if soc <= kind["soc_target"]:
        return energy_to_target_kwh(kind, soc)
    return float((kind["soc_target"] - soc) * kind["capacity_kwh"] * kind["charge_kw"] / kind["battery_kw"])
