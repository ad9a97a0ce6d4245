"""Where the power of the EVs goes: slots, of a member's connection and phase each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.records import Floats
from evgrid.core.jit import njit
from evgrid.fleet.kernels.lanes import LANES, MANY_MEMBERS, WIDE, Block, Blocks, Places
from evgrid.fleet.kernels.records import Results


@njit
def clear(slot: int, spread: int, power: Floats) -> None:
    """Set the power in an EV's slots to 0."""
    first = np.uint32(slot)
    power[first] = 0.0
    if spread == WIDE:
        for i in range(1, 3):  # a loop, lest the compiler scatter under a mask, which is much slower
            power[first + np.uint32(i)] = 0.0


@njit
def clear_after(gone: NDArray[np.int64], power: Floats) -> None:
    """Clear the slots of those that left in the last tick."""
    for i in range(len(gone)):
        clear(gone[i, 0], gone[i, 1], power)


@njit
def put(slot: int, spread: int, own: float, power: Floats) -> None:
    """Add an EV's power to its slots."""
    first = np.uint32(slot)
    if spread == WIDE:
        third = own / 3.0
        power[first] += third
        power[first + np.uint32(1)] += third
        power[first + np.uint32(2)] += third
    else:
        power[first] += own


@njit
def put_block(block: Block, n: int, exclusive: bool, own: Floats, power: Floats) -> None:
    """Add the power of a block's EVs, ``own``, to their slots; ``exclusive``: all are EXCLUSIVE."""
    if exclusive:
        for i in range(n):
            power[np.uint32(block["slot"][i])] = own[i]
    else:
        for i in range(n):
            put(block["slot"][i], block["spread"][i], own[i], power)


@njit
def hold_block(block: Block, n: int, own: Floats, mean: Floats, power: Floats) -> None:
    """Write the power of a block's EVs, ``own``, to ``mean``, (ev,), and clear their slots."""
    for i in range(n):
        mean[np.uint32(block["ev"][i])] = own[i]
        clear(block["slot"][i], block["spread"][i], power)


@njit
def clear_part(first: int, last: int, places: Places, state: Blocks, power: Floats) -> None:
    """Clear the slots of all EVs plugged in in the stretches ``first`` to ``last``."""
    for stretch in range(first, last):
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block, i = state[lane // LANES], lane % LANES
            clear(block["slot"][i], block["spread"][i], power)


@njit
def add_up(low: int, high: int, places: Places, state: Blocks, power: Floats, mean: Floats) -> None:
    """Add up the power, in the order of rows, of the members ``low`` to ``high``.

    Those that arrive or leave come later.
    """
    begin, end = places.member_start[low], places.member_start[high]
    stretch = np.searchsorted(places.first_ev, begin, "right") - 1
    while stretch < len(places.filled) and places.first_ev[stretch] < end:
        first = places.first_lane[stretch]
        for lane in range(first, first + places.filled[stretch]):
            block, i = state[lane // LANES], lane % LANES
            ev = np.uint32(block["ev"][i])
            if begin <= ev < end:
                put(block["slot"][i], block["spread"][i], mean[ev], power)
        stretch += 1


@njit
def adds_at_once(results: Results) -> bool:
    """Whether power is added to the slots while EVs are advanced: where parts hold whole members.

    Else, or where the power of each EV is asked for, it is added up when all have been advanced.
    """
    return len(results.plugged) >= MANY_MEMBERS and not len(results.ev_power_kw)
