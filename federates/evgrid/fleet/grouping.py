"""Where the power of each EV is summed: its slots at connection points and phases, and its group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import ALL_PHASES, Array, Connections, EVs
from evgrid.errors import ScenarioError
from evgrid.scenario.fleet import Group

GROUP_DIMS = {"feeder": (), "transformer": ("trafo",), "connection": ("connection",)}
"""Dimensions of a sum over each group, after ``member``."""


def slots_of(connections: Connections, evs: EVs) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """First slot of each EV in the power array, and whether it spreads over three, (ev,)."""
    phases = len(connections.phases)
    wide = (evs.phase == ALL_PHASES) & (phases == 3)
    slot = (evs.member * len(connections) + evs.connection) * phases
    if phases == 3:
        slot = slot + np.where(wide, 0, evs.phase)
    return slot.astype(np.int32), wide


def groups_of(
    key: str, group: Group, connections: Connections, evs: EVs, trafos: int
) -> tuple[int, NDArray[np.int64]]:
    """Number of groups in a member, and each EV's row in (member · groups,).

    Raises ScenarioError, which names the setting ``key``, if an EV is in no group.
    """
    if group == "feeder":
        return 1, evs.member
    if group == "connection":
        return len(connections), evs.member * len(connections) + evs.connection
    of_ev = connections.trafo[evs.connection]
    if (without := evs.connection[of_ev < 0]).size:
        raise ScenarioError(
            [f"fleet.{key} = transformer: connection {connections.name[without[0]]} has an EV and no "
             "transformer upstream; must be feeder or connection"]
        )  # fmt: skip
    groups = max(trafos, int(connections.trafo.max(initial=-1)) + 1)
    return groups, evs.member * groups + of_ev


class SlotSums:
    """Sums of the power of some EVs at each connection point and phase.

    ``rows``: the EVs; ``slot``, ``wide``: (ev,) of all EVs, see :func:`slots_of`; ``shape``: (member,
    connection, phase).
    """

    def __init__(
        self, rows: NDArray[np.int64], slot: NDArray[np.int32], wide: NDArray[np.bool_],
        shape: tuple[int, int, int],
    ) -> None:  # fmt: skip
        one, three = rows[~wide[rows]], rows[wide[rows]]
        self._ev = np.concatenate([one, np.repeat(three, 3)])
        self._slot = np.concatenate([slot[one], (slot[three][:, np.newaxis] + np.arange(3)).reshape(-1)])
        self._share = np.concatenate([np.ones(len(one)), np.full(3 * len(three), 1.0 / 3.0)])
        self._shape = shape

    def of(self, ev_power_kw: Array) -> Array:
        """From the power of all EVs, (ev,) kW; (member, connection, phase)."""
        own = np.bincount(self._slot, self._share * ev_power_kw[self._ev], int(np.prod(self._shape)))
        return np.asarray(own, np.float64).reshape(self._shape)


def is_multiple(time_s: float, period_s: float) -> bool:
    """Whether a simulated time is a multiple of a period, but for rounding."""
    rest = time_s % period_s
    return min(rest, period_s - rest) < 1e-6
