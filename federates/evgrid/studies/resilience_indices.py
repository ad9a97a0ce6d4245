"""Interruptions of sites at the meter and of their critical load at the socket: SAIFI, SAIDI, energy.

Two ways of counting them:

- :class:`Expected`, by SAIFI and CAIDI: durations of outages are exponential with the mean CAIDI, and outages
  start at any time with the same probability. Then an outage that outlives the r hours of a site cuts its
  critical load for CAIDI exp(-r/CAIDI) hours in the mean. Figures are of a year.
- :class:`Replayed`, the outages of the scenario as they are, scheduled and drawn by member: each is followed
  at each of its sites from its moment on. Figures are of the scenario's period.

Once the critical load is not met it counts as unserved until supply returns. Each outage starts from the
states of charge of normal times, and with all of the fuel. An outage that the period begins or ends in counts
with its part in the period; one that it begins in is followed from there on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array

if TYPE_CHECKING:
    from evgrid.runs.simulation import World
    from evgrid.studies.resilience_sites import SitesByPart

SUSTAINED_H = 300.0 / 3600.0
"""Interruptions that last longer are counted (IEEE 1366-2022, clause 3)."""
YEAR, PERIOD = "year", "period"
"""What figures are of."""

Survival = Callable[[Array | None, float | None], NDArray[np.floating[Any]]]
"""Hours survived, (start, site), from starts, in slots (None: the begin of each slot), up to a horizon, h
(None: that of the study)."""


class AtMeter(NamedTuple):
    """Interruptions of sites at the meter, (site,) each: their number, hours, and the load in them, kWh."""

    number: Array
    hours: Array
    load_kwh: Array
    critical_kwh: Array


class AtSocket(NamedTuple):
    """Interruptions of the critical load, (site,) each: their number, hours, and the load not served, kWh."""

    number: Array
    hours: Array
    critical_kwh: Array


class Interruptions(Protocol):
    """Interruptions of the sites of a member."""

    def at_meter(self) -> AtMeter:
        """At the meter."""

    def at_socket(self, survival: Survival) -> AtSocket:
        """Of the critical load, with what serves it."""


@dataclass(frozen=True)
class Expected:
    """Interruptions of a year, by SAIFI and CAIDI."""

    sites: SitesByPart
    saifi: float
    caidi_h: float

    def at_meter(self) -> AtMeter:
        """See ``Interruptions``."""
        load, critical = (
            self.saifi * expected_kwh(power, self.sites.slot_h, self.caidi_h).mean(axis=1)
            for power in (self.sites.load_kw, self.sites.critical_kw)
        )
        number = np.full(len(load), self.saifi)
        return AtMeter(number, number * self.caidi_h, load, critical)

    def at_socket(self, survival: Survival) -> AtSocket:
        """See ``Interruptions``."""
        hours = survival(None, None)
        cut, kwh = interruption_of(hours, self.caidi_h, self.sites.slot_h, self.sites.critical_kw)
        return AtSocket(self.saifi * cut, self.saifi * cut * self.caidi_h, self.saifi * kwh)


@dataclass(frozen=True)
class Replayed:
    """The outages of a scenario at the sites of a member.

    site : (outage,) site that an outage strikes, one that strikes several has a row for each
    begin_h, end_h : (outage,) h from the period's begin, within the period
    sustained : (outage,) bool, whether it counts at the meter: by all of its duration
    """

    sites: SitesByPart
    site: NDArray[np.int64]
    begin_h: Array
    end_h: Array
    sustained: NDArray[np.bool_]

    def at_meter(self) -> AtMeter:
        """See ``Interruptions``."""
        load, critical = (
            self._kwh(power, self.begin_h) for power in (self.sites.load_kw, self.sites.critical_kw)
        )
        hours = (self.end_h - self.begin_h) * self.sustained
        return AtMeter(*map(self._by_site, (self.sustained, hours, load, critical)))

    def at_socket(self, survival: Survival) -> AtSocket:
        """See ``Interruptions``."""
        longest_h = float((self.end_h - self.begin_h).max(initial=self.sites.slot_h))
        starts, column = np.unique(self.begin_h / self.sites.slot_h, return_inverse=True)
        hours = survival(starts, longest_h)[column, self.site].astype(np.float64)
        unmet_h = np.maximum(self.end_h - self.begin_h - hours, 0.0)
        counts = self.sustained & (unmet_h > SUSTAINED_H)
        kwh = self._kwh(self.sites.critical_kw, self.end_h - unmet_h)
        return AtSocket(*map(self._by_site, (counts, unmet_h * counts, kwh)))

    def _by_site(self, of_outage: NDArray[Any]) -> Array:
        return np.bincount(self.site, of_outage, len(self.sites.name)).astype(np.float64)

    def _kwh(self, power_kw: Array, from_h: Array) -> Array:
        """Energy of a power (site, slot) from a moment of each outage to its end, (outage,) kWh."""
        slots = power_kw.shape[1]
        until = np.concatenate([np.zeros((len(power_kw), 1)), np.cumsum(power_kw, axis=1)], axis=1)
        at = []
        for moment_h in (from_h, self.end_h):
            place = moment_h / self.sites.slot_h
            slot = np.clip(place.astype(np.int64), 0, slots - 1)
            at.append(until[self.site, slot] + power_kw[self.site, slot] * (place - slot))
        return (at[1] - at[0]) * self.sites.slot_h


def replayed(world: World, sites: SitesByPart) -> Replayed:
    """The outages of a world of one member at its sites on the grid."""
    table, outages = world.sites, world.outages
    assert table is not None
    assert outages is not None
    connection = table.connection[table.connection >= 0]
    site_at = np.full(len(world.connections), -1)
    site_at[connection] = np.arange(len(connection))
    site, begin_s, end_s = site_at[outages.row()], outages.begin_s, outages.end_s
    duration_s = world.clock.duration_s
    here = (site >= 0) & (begin_s < duration_s) & (end_s > 0.0)
    begin_h, end_h = (np.clip(moment[here], 0.0, duration_s) / 3600.0 for moment in (begin_s, end_s))
    sustained = (end_s - begin_s)[here] / 3600.0 > SUSTAINED_H + 1e-9
    return Replayed(sites, site[here], begin_h, end_h, sustained)


def interruption_of(
    hours: NDArray[np.floating[Any]], caidi_h: float, slot_h: float, critical_kw: Array
) -> tuple[Array, Array]:
    """Probability that an interruption cuts the critical load, and its critical energy not served.

    hours : (start, site) hours survived from each slot on
    critical_kw : (site, slot)
    returns : (site,) means over the starts: probability, and kWh an interruption
    """
    slots = len(hours)
    cut = np.exp(-hours.astype(np.float64) / caidi_h)
    after = expected_kwh(critical_kw, slot_h, caidi_h)
    end = np.arange(slots)[:, np.newaxis] + hours.astype(np.float64) / slot_h
    slot = np.floor(end + 1e-6)
    left_h = (slot + 1 - end) * slot_h
    at, site = slot.astype(np.int64) % slots, np.arange(hours.shape[1])
    keep = np.exp(-left_h / caidi_h)
    until = critical_kw[site, at] * caidi_h * (1 - keep) + keep * after[site, (at + 1) % slots]
    return cut.mean(axis=0), (cut * until).mean(axis=0)


def expected_kwh(load_kw: Array, slot_h: float, caidi_h: float) -> Array:
    """Mean energy of a load from the begin of each slot until an outage ends, (site, slot) kWh.

    The duration is exponential with the mean ``caidi_h``; the period repeats.
    """
    keep = np.exp(-slot_h / caidi_h)
    slots = load_kw.shape[1]
    own, found = load_kw * caidi_h * (1 - keep), np.zeros_like(load_kw)
    rest = np.zeros(len(load_kw))
    for slot in range(slots - 1, -1, -1):
        rest = own[:, slot] + keep * rest
        found[:, slot] = rest
    first = found[:, 0] / (1 - keep**slots)
    return np.asarray(found + keep ** (slots - np.arange(slots)) * first[:, np.newaxis])
