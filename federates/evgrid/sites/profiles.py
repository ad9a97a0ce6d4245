"""Power of the loads and the PV of sites over time, piecewise constant.

A circuit, and the PV of a site, refers to a row of a profile and has a share of it, so that sites and members
that have the same hold it once. The values of any span of time are computed when asked for, on all moments of
change in it: a year need not be in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import HeldLoad
from evgrid.core.slots import Slots
from evgrid.readers.series import Series

_ROUNDING_S = 1e-6
_CHUNK = 96
"""Slots of a base load that are computed at once."""


class Profile(Protocol):
    """Some rows of profiles."""

    rows: int

    def slots(self, begin_s: float, end_s: float) -> Slots:
        """Its rows over a span of time."""


class Profiles:
    """All rows of profiles, in the order of their parts."""

    def __init__(self, parts: Sequence[Profile]) -> None:
        self._parts = tuple(parts)
        self.rows = sum(part.rows for part in self._parts)

    def slots(self, begin_s: float, end_s: float) -> Slots:
        """All rows over a span of time, s from the run's start, which may lie beyond the run's end."""
        return merged([part.slots(begin_s, end_s) for part in self._parts], begin_s, end_s)


def merged(parts: Sequence[Slots], begin_s: float, end_s: float) -> Slots:
    """Rows of several parts on all moments of change of all of them."""
    edges = np.sort(np.concatenate([[begin_s, end_s], *(part.edges_s for part in parts)]))
    edges = edges[np.append(True, np.diff(edges) > _ROUNDING_S)]
    edges[-1] = end_s
    middle = (edges[:-1] + edges[1:]) / 2
    kw = [
        part.kw[:, np.minimum(part.edges_s.searchsorted(middle, "right"), part.kw.shape[1]) - 1]
        for part in parts
    ]
    return Slots(edges, np.concatenate(kw) if kw else np.zeros((0, len(middle))))


class Constant:
    """A constant power: one row."""

    rows = 1

    def __init__(self, kw: float) -> None:
        self._kw = kw

    def slots(self, begin_s: float, end_s: float) -> Slots:
        """See :meth:`Profile.slots`."""
        return Slots(np.array([begin_s, end_s]), np.array([[self._kw]]))


class OfSeries:
    """A series of values: one row. Beyond its end its last day is repeated."""

    rows = 1

    def __init__(self, series: Series) -> None:
        self._series = series

    def slots(self, begin_s: float, end_s: float) -> Slots:
        """See :meth:`Profile.slots`."""
        series = self._series.until(end_s)
        inside = series.edges_s[
            (series.edges_s > begin_s + _ROUNDING_S) & (series.edges_s < end_s - _ROUNDING_S)
        ]
        edges = np.concatenate([[begin_s], inside, [end_s]])
        return Slots(edges, series.means(edges)[np.newaxis])


class OfBaseLoad:
    """The base load of some connection points: a row for each pair of member and connection."""

    def __init__(self, load: HeldLoad, member: NDArray[np.int64], connection: NDArray[np.int64]) -> None:
        self._load, self._member, self._connection = load, member, connection
        self.rows = len(member)

    def slots(self, begin_s: float, end_s: float) -> Slots:
        """See :meth:`Profile.slots`."""
        edges = self._load.changes(begin_s, end_s)
        kw = np.empty((self.rows, len(edges) - 1))
        for first in range(0, len(edges) - 1, _CHUNK):  # of all connections, of which these are a part
            begin, end = edges[:-1][first : first + _CHUNK], edges[1:][first : first + _CHUNK]
            p_kw = self._load.at(begin, end)[0]
            member = self._member if p_kw.shape[1] > 1 else np.zeros_like(self._member)
            kw[:, first : first + _CHUNK] = p_kw[:, member, self._connection].sum(axis=2).T
        return Slots(edges, kw)


class Divided:
    """A load divided into circuits, of which some have a stated power: for each row of the load a row for
    each circuit in the order in which they are served, then one for the rest.

    A circuit takes its stated power, or its share of the whole, as far as those before it leave it.
    """

    def __init__(self, load: Profile, parts: Sequence[float | Profile]) -> None:
        """Take the load, and the circuits: a share of it, or a power, a single row."""
        self._load, self._given = load, tuple(parts)
        self.rows = load.rows * (len(self._given) + 1)

    def slots(self, begin_s: float, end_s: float) -> Slots:
        """See :meth:`Profile.slots`."""
        stated = [given for given in self._given if not isinstance(given, float)]
        slots = merged([part.slots(begin_s, end_s) for part in (self._load, *stated)], begin_s, end_s)
        load, powers = slots.kw[: self._load.rows], iter(slots.kw[self._load.rows :])
        rest, found = load.copy(), []
        for given in self._given:
            wanted = given * load if isinstance(given, float) else next(powers)
            found.append(np.clip(wanted, 0.0, np.maximum(rest, 0.0)))
            rest = rest - found[-1]
        return Slots(slots.edges_s, np.stack([*found, rest], axis=1).reshape(self.rows, load.shape[1]))
