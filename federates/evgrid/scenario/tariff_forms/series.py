"""A tariff as a series of prices from a file."""

from __future__ import annotations

from evgrid.core.model import Clock
from evgrid.scenario.tariffs import PriceFile, Steps, Tariff, steps_of


class SeriesTariff(Tariff):
    """A series of prices."""

    prices: PriceFile
    """Prices over time instead of seasons, such as {file: day_ahead.csv, per: MWh}."""

    def drawn(self, clock: Clock) -> tuple[Steps, float]:
        """See :meth:`evgrid.scenario.tariffs.Tariff.drawn`."""
        return steps_of(self.prices, clock)
