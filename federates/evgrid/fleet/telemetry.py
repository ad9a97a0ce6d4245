"""Reports of the chargers to aggregators at the end of a tick, every telemetry period."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array, Portfolio
from evgrid.fleet.grouping import SlotSums, is_multiple
from evgrid.fleet.kernels.reports import Status
from evgrid.scenario import Scenario

STATUS = Status._fields
"""Fields of a report."""


class Telemetry:
    """The reports of all chargers of a run.

    Parameters
    ----------
    scenario
        With its ``communication``.
    count
        Number of EVs.
    portfolios
        EVs of each aggregator that sends set-points; empty if one has all.

    """

    outputs: tuple[str, ...]
    """Ports of the reports."""
    report: Status
    """As of the last report until the next step, which may use it as work space."""

    def __init__(self, scenario: Scenario, count: int, portfolios: Sequence[Portfolio]) -> None:
        self.outputs = tuple(f"fleet/{field}" for field in STATUS)
        self.report = Status(*(np.zeros(count) for _ in STATUS))
        periods = [scenario.link_of(p.name).telemetry for p in portfolios]
        self._periods_s = {
            max(period_s, scenario.time.step) for period_s in periods or [scenario.communication.telemetry]
        }

    def due(self, end_s: float) -> bool:
        """Whether the chargers report to any aggregator at a time."""
        return any(is_multiple(end_s, period_s) for period_s in self._periods_s)

    def values(self) -> dict[str, Array]:
        """The report by port."""
        return {f"fleet/{field}": values for field, values in self.report._asdict().items()}


class OwnPower:
    """The power of each aggregator's own EVs at connection points and phases, where one takes it.

    ``portfolios``: EVs of each aggregator; ``taken``: ports that others take; ``slot``, ``wide``, ``shape``:
    see :class:`evgrid.fleet.grouping.SlotSums`.
    """

    outputs: tuple[str, ...]

    def __init__(
        self, portfolios: Sequence[Portfolio], taken: Collection[str],
        slot: NDArray[np.int32], wide: NDArray[np.bool_], shape: tuple[int, int, int],
    ) -> None:  # fmt: skip
        self._sums = {
            port: SlotSums(p.rows, slot, wide, shape)
            for p in portfolios
            if (port := p.port("fleet/own_p")) in taken
        }
        self.outputs = tuple(self._sums)

    def values(self, ev_power_kw: Array) -> dict[str, Array]:
        """By port, (member, connection, phase) kW, from the power of all EVs, (ev,) kW."""
        return {port: sums.of(ev_power_kw) for port, sums in self._sums.items()}
