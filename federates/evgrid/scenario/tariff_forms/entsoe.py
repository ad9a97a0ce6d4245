"""A tariff of day-ahead prices, as ENTSO-E's transparency platform exports them."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

import numpy as np

from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.readers.entsoe import read_entsoe
from evgrid.readers.times import clock_changes, utc_times
from evgrid.scenario.fields import ExistingFile, Settings, TimeZone
from evgrid.scenario.tariffs import Steps, Tariff, steps_without_repeats

_KWH = 1000.0


class EntsoeFile(Settings):
    """Day-ahead prices of a file of ENTSO-E's transparency platform."""

    file: ExistingFile
    """CSV with the columns 'MTU (CET/CEST)' and 'Day-ahead Price (EUR/MWh)', or alike."""
    area: str | None = None
    """Bidding zone, such as BZN|DE-LU, of a file that holds several."""
    sequence: str | None = None
    """Sequence of a file that holds several, such as Sequence 1."""
    timezone: TimeZone | None = None
    """Time zone of the run's local time; left out: that of the file."""


class EntsoeTariff(Tariff):
    """Day-ahead prices."""

    entsoe: EntsoeFile
    """Day-ahead prices as ENTSO-E exports them instead of seasons, such as {file: prices.csv}."""

    def drawn(self, clock: Clock) -> tuple[Steps, float]:
        """See :meth:`evgrid.scenario.tariffs.Tariff.drawn`."""
        path, own = self.entsoe.file, self.entsoe
        read = read_entsoe(path, own.area, own.sequence)
        if read.currency != self.currency:
            text = f"tariff.currency = {self.currency}: the prices of the file are in {read.currency}"
            raise ScenarioError([text], str(path))
        zone = read.zone if own.timezone is None else ZoneInfo(own.timezone)
        begins_s, used = utc_times([at.replace(tzinfo=UTC) for at in read.begin.tolist()], zone, clock.start)
        lasts_s = (read.end - read.begin) / np.timedelta64(1, "s")
        edges_s = np.append(begins_s[used], (begins_s + lasts_s)[used].max())
        if edges_s[0] > 1e-6 or edges_s[-1] < clock.duration_s - 1e-6:
            covered = f"{clock.stamp(float(edges_s[0]))} to {clock.stamp(float(edges_s[-1]))}"
            run = f"{clock.stamp(0.0)} to {clock.stamp(clock.duration_s)}"
            raise ScenarioError([f"covers {covered}: must cover the run, {run}"], str(path))
        steps = steps_without_repeats(edges_s, read.price[used] / _KWH)
        return lambda begin_s, end_s: steps.until(end_s), float(edges_s[-1])

    def notes(self, clock: Clock) -> list[str]:
        """See :meth:`evgrid.scenario.tariffs.Tariff.notes`."""
        own = self.entsoe
        zone = read_entsoe(own.file, own.area, own.sequence).zone
        if own.timezone is not None:
            zone = ZoneInfo(own.timezone)
        start = clock.start.astype("datetime64[us]").item()
        changes = clock_changes(zone, start, clock.duration_s)
        if not changes:
            return super().notes(clock)
        when = ", ".join(f"{change:%Y-%m-%dT%H:%M}" for change in changes)
        return [
            *super().notes(clock),
            f"clocks change in the run ({zone.key}, {when}), but not the run's own: of prices in an hour "
            "that comes twice the first are taken, over an hour that is skipped the last ones hold; a run in "
            "UTC (entsoe.timezone: UTC) takes all of them",
        ]
