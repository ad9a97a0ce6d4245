"""Steps of a tick that are taken again at newer voltages: ``coupling: iterated``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.fixed_point import FixedPoint
from evgrid.core.model import Array


class TickIteration:
    """The fixed point of a tick, and the fleet's state at the tick's begin.

    Parameters
    ----------
    fixed_point
        The iteration of all members.
    changed
        All arrays that a step changes in place.
    shape
        (member, connection, phase), that of voltages.

    """

    setpoint: Array
    """(ev,) set-points of the tick, kW."""

    def __init__(
        self, fixed_point: FixedPoint, changed: Sequence[NDArray[Any]], shape: tuple[int, ...]
    ) -> None:
        self.fixed_point = fixed_point
        self._changed = changed
        self._before = tuple(array.copy() for array in changed)
        self._gone, self._cursor = np.zeros((0, 2), np.int64), 0
        self._energised = np.ones(shape, bool)
        self.setpoint = np.zeros(0)
        self.open_s: float | None = None
        """Begin of the tick that may be stepped again, s; None before the first."""

    def save(self, gone: NDArray[np.int64], cursor: int) -> None:
        """Keep the state at the begin of a tick."""
        for kept, array in zip(self._before, self._changed, strict=True):
            kept[...] = array
        self._gone, self._cursor = gone, cursor

    def restore(self) -> tuple[NDArray[np.int64], int]:
        """Put back the state at the begin of the tick; what :meth:`save` took."""
        for kept, array in zip(self._before, self._changed, strict=True):
            array[...] = kept
        return self._gone, self._cursor

    def begin(self, time_s: float, voltage_pu: Array, p_kw: Array, q_kvar: Array) -> None:
        """Start from what the EVs draw at the voltages of the tick before, after a first step."""
        self._energised[:] = voltage_pu > 0.0
        self.fixed_point.begin(voltage_pu, p_kw, q_kvar)
        self.open_s = time_s

    def seen(self, voltage_pu: Array) -> Array | None:
        """The voltages at which to step again, given those of a power flow; None if all members stand."""
        if self.fixed_point.found(voltage_pu):
            return None
        moving = self.fixed_point.moving
        self._energised[moving] = voltage_pu[moving] > 0.0
        return np.where(self._energised, self.fixed_point.seen, 0.0)
