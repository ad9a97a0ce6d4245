"""Prices of energy drawn and given in each tick, and its emissions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evgrid.core.model import Array
from evgrid.readers.signals import Known, Signals
from evgrid.scenario import Scenario
from evgrid.scenario.tariffs import prices_of

_BLOCK = 256
"""Ticks between two look-ups of prices."""


class Rates:
    """Prices and emissions of the energy of a tick; prices are looked up in blocks of ticks.

    ``emissions``: kg per MWh over a span (s, s), None where they aren't counted. ``live``: signals that come
    during the run, by which prices are those known at each tick.
    """

    def __init__(
        self,
        scenario: Scenario,
        emissions: Callable[[float, float], Array] | None,
        live: Signals | None = None,
    ) -> None:
        self._scenario, self._live = scenario, live
        self._known: Known | None = None
        self._energy_prices, self._emissions = scenario.prices, emissions
        self._period_s = scenario.time.step
        self._prices = np.zeros((2, 0))
        self._first_tick = 0

    @property
    def priced(self) -> bool:
        """Whether energy has a price."""
        return self._energy_prices is not None

    def at(self, tick: int, time_s: float) -> Array:
        """Price of energy drawn and of energy given (currency), and emissions (kg), per kWs, (3,)."""
        emissions = 0.0
        if self._live is not None and (known := self._live.known(time_s)) is not self._known:
            scenario, self._known = self._scenario, known
            self._energy_prices = prices_of(scenario.tariff, scenario.system, scenario.clock, known)
            self._prices = np.zeros((2, 0))
        if self._emissions is not None:
            emissions = float(self._emissions(time_s, time_s + self._period_s)) / 1000.0
        return np.array([*self._prices_at(tick), emissions]) / 3600.0

    def _prices_at(self, tick: int) -> tuple[float, float]:
        if self._energy_prices is None:
            return 0.0, 0.0
        if not self._first_tick <= tick < self._first_tick + self._prices.shape[1]:
            edges_s = np.arange(tick, tick + _BLOCK + 1, dtype=np.float64) * self._period_s
            self._prices = np.array(self._energy_prices.means(edges_s))
            self._first_tick = tick
        drawn, given = self._prices[:, tick - self._first_tick]
        return float(drawn), float(given)
