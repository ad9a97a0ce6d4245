"""Splitting a group's power over its EVs: arrays in, arrays out.

Power is in kW at the grid, positive when drawn; a group is a row of ``headroom``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.compile import njit


@njit
def share_by_laxity(
    order: NDArray[np.int64],
    group: NDArray[np.int64],
    headroom: NDArray[np.float64],
    p_max: NDArray[np.float64],
    p_min: NDArray[np.float64],
    laxity: NDArray[np.float64],
    step_s: float,
) -> NDArray[np.float64]:
    """Share each group's headroom over its EVs: charge by least laxity, discharge by most.

    EVs whose laxity ends within the tick are served first, whatever the headroom: their EVSE would
    charge them anyway. What is then left of the headroom charges the others in order of laxity;
    if it is negative, EVs discharge from the highest laxity down, until it is made up.

    order : (ev,) int64, EVs sorted by group, then by laxity
    group : (ev,) int64, group of each EV
    headroom : (group,) kW that the group's EVs may draw together; negative asks for discharge
    p_max, p_min : (ev,) kW, limits of each EV; p_min <= 0 <= p_max
    laxity : (ev,) s
    step_s : length of the tick, s

    Returns (ev,) kW. An EV that can do nothing (p_max = p_min = 0) gets 0.
    """
    setpoint = np.zeros(len(order))
    left = headroom.copy()
    for ev in order:
        if p_max[ev] > 0.0 and laxity[ev] < step_s:
            setpoint[ev] = p_max[ev]
            left[group[ev]] -= p_max[ev]
    for ev in order:
        room = left[group[ev]]
        if room > 0.0 and p_max[ev] > 0.0 and laxity[ev] >= step_s:
            setpoint[ev] = min(p_max[ev], room)
            left[group[ev]] -= setpoint[ev]
    for at in range(len(order) - 1, -1, -1):
        ev = order[at]
        room = left[group[ev]]
        if room < 0.0 and p_min[ev] < 0.0 and laxity[ev] >= step_s:
            setpoint[ev] = max(p_min[ev], room)
            left[group[ev]] -= setpoint[ev]
    return setpoint
