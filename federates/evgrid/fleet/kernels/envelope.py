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

An EV without supply, in an island, or not fully back in service after an outage has no power and no energy
ahead: nobody knows for how long.

Left out: EVs that are to come, and what the departure guard doesn't foresee either: local functions,
temperature, ramps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import charge, energy_to_target_kwh, soc_that_reaches
from evgrid.battery.records import Floats, Row
from evgrid.core.jit import njit
from evgrid.fleet.kernels.lanes import LANES, in_use
from evgrid.fleet.kernels.records import Details, Fleet
from evgrid.fleet.kernels.reports import may_discharge


class Limits(NamedTuple):
    """Limits of power (mean over each slot, kW) and energy (at its end, kWh), (row, slot) each.

    round_trip : (ev,) energy given per energy drawn to make it up, at full power below the taper, of those
        plugged in; 1 where the EV may not discharge
    """

    p_min: Floats
    p_max: Floats
    e_min: Floats
    e_max: Floats
    round_trip: Floats


@njit
def limits_ahead(
    now_s: float, slot_s: float, willing: Floats, fleet: Fleet, details: Details, row_of: NDArray[np.int64],
    limits: Limits,
) -> None:  # fmt: skip
    """Limits of the EVs plugged in at ``now_s``, added up by row; see the module's text.

    Parameters
    ----------
    now_s, slot_s
        Begin of the horizon, and length of a slot.
    willing
        (slot,) share of each slot in which drivers let discharge.
    fleet, details
        See :mod:`.records`.
    row_of
        (ev,) row to which each EV is added: its own, or its group's; -1: to none, as it is out of service.
    limits
        Filled; a row without EVs is 0.

    """
    for array in (limits.p_min, limits.p_max, limits.e_min, limits.e_max):
        array[:] = 0.0
    slots = len(willing)
    slot_h = slot_s / 3600.0
    options = details.options
    for lane in in_use(fleet.places):
        block, own, i = fleet.state[lane // LANES], details.physics[lane // LANES], lane % LANES
        ev = block["ev"][i]
        to = row_of[ev]
        if to < 0:
            continue
        kind = fleet.kinds.rows[block["kind"][i]]
        curve = fleet.kinds.curves[kind["curve"]]
        soc, guarded = block["soc"][i], block["guarded"][i]
        left_s = block["departure_s"][i] - now_s
        out_kw = 0.0
        lowest = soc
        spare_s = 0.0  # of discharging, that the warranty leaves
        limits.round_trip[ev] = 1.0
        if not guarded and may_discharge(fleet, details, lane, True):
            out_kw = kind["most_out_kw"]
            limits.round_trip[ev] = kind["discharge_kw"] / out_kw * kind["battery_kw"] / kind["charge_kw"]
            spare_s = min(
                (options["throughput_kws"] - own["out_kws"][i]) / out_kw,
                options["discharging_s"] - own["discharging_s"][i],
            )
            lowest = max(kind["soc_floor"], soc - spare_s * out_kw * kind["soc_per_kws"])
        out_per_s = out_kw * kind["soc_per_kws"]
        high = soc
        low = soc
        falling = soc  # Emin but for the departure
        now_kwh = _to_target_kwh(kind, curve, soc)
        high_kwh = now_kwh
        low_kwh = now_kwh
        most_kwh = -1.0  # drawn from ``low`` in a whole slot, where known
        for slot in range(slots):
            here_s = min(max(left_s - slot * slot_s, 0.0), slot_s)
            if here_s > 0.0:
                if most_kwh < 0.0 or here_s < slot_s:
                    full = charge(kind, curve, low, kind["battery_kw"], here_s)[0]
                    most_kwh = low_kwh - _to_target_kwh(kind, curve, full)
                limits.p_max[to, slot] += most_kwh / slot_h
                before, before_kwh = high, high_kwh
                if high < kind["soc_target"]:
                    high = charge(kind, curve, high, kind["battery_kw"], here_s)[0]
                    high_kwh = _to_target_kwh(kind, curve, high)
                least = high
                out_s = here_s * willing[slot]
                if not guarded:
                    if falling > lowest:
                        falling = max(falling - out_per_s * out_s, lowest)
                    reach = soc_that_reaches(kind, curve, left_s - slot * slot_s - here_s)
                    least = min(max(falling, reach), high)
                if least != low:
                    low = least
                    low_kwh = _to_target_kwh(kind, curve, low)
                    most_kwh = -1.0
                if low > before:
                    limits.p_min[to, slot] += (before_kwh - low_kwh) / slot_h
                elif out_kw > 0.0:
                    room_s = max(before - max(low, kind["soc_floor"]), 0.0) / out_per_s
                    out_s = min(out_s, room_s, spare_s)
                    limits.p_min[to, slot] -= kind["discharge_kw"] * out_s / slot_s
            limits.e_min[to, slot] += now_kwh - low_kwh
            limits.e_max[to, slot] += now_kwh - high_kwh


@njit
def _to_target_kwh(kind: Row, curve: Row, soc: float) -> float:
    """Energy at the meter from ``soc`` to the target, kWh; above it negative, at full power's efficiency."""
    if soc <= kind["soc_target"]:
        return energy_to_target_kwh(kind, curve, soc)
    return float((kind["soc_target"] - soc) * kind["capacity_kwh"] * kind["charge_kw"] / kind["battery_kw"])
