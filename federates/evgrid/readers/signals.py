"""Signals from outside over time: values of events, by what was known when.

A :class:`Block` is one value of one version of an event over an interval. An event has a new version when it
is updated, and none any more when it is cancelled: a block is known from ``known_s`` on, until ``until_s``.
Of the blocks of one kind that are known and hold at a time, one wins: that of the lowest priority number, of
equal ones the one modified last, then that of the event whose name is first. So the order in which events are
sent does not matter.

========================  ======================  ===================================================
kind                      unit                    meaning
========================  ======================  ===================================================
``price``                 currency per kWh        price of energy drawn
``export_price``          currency per kWh        credit for energy given back
``emissions``             kg CO2 per MWh          emission rate
``level``                 0 to 3                  level of a demand-response event
``regulation``            -1 to 1                 regulation signal; positive: less is drawn
``power``                 kW                      power that EVs are to draw together; negative: to give back
``power_change``          kW                      the same, as a change of what they would draw
``import_limit``          kW                      most that may be drawn, at least 0
``export_limit``          kW                      most that may be given back, at least 0
``charge``                0 to 1                  state of charge by departure
========================  ======================  ===================================================

Times are seconds from the run's start on its local clock (:func:`local_seconds`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import ClassVar
from zoneinfo import ZoneInfo

import numpy as np

from evgrid.core.model import Clock
from evgrid.readers.series import Series

ALWAYS_S = 1e9
"""Distance in time that stands for infinity, s: 31 years."""
_ROUNDING_S = 1e-6
_SHORT_S = 1e-3


@dataclass(frozen=True, slots=True)
class Block:
    """One value of one version of an event over [begin_s, end_s).

    priority : the lowest number wins; infinite: none
    event : name of the event
    number : position of the interval within the event; of overlapping ones the last wins
    targets : names for which it holds; none: for all
    known_s, until_s : time from which, and up to which, this version is known
    """

    kind: str
    begin_s: float
    end_s: float
    value: float
    event: str
    priority: float = np.inf
    number: int = 0
    targets: frozenset[str] = frozenset()
    known_s: float = -ALWAYS_S
    until_s: float = ALWAYS_S

    @property
    def rank(self) -> tuple[float, float, str, int]:
        """Blocks in ascending order of it: the first one wins."""
        return self.priority, -self.known_s, self.event, -self.number


Winner = tuple[float, float, Block]
"""Begin and end of a span, and the block that wins in it."""


class Known:
    """The signals that are known at a time, past and future.

    held_alone : the values of a kind for all as steps, where there are no others
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        held_alone: Callable[[str], Series | None] = lambda kind: None,
    ) -> None:
        self.blocks = tuple(blocks)
        self._held_alone = held_alone
        self._found: dict[tuple[str, frozenset[str] | None], list[Winner]] = {}

    def winners(self, kind: str, names: Collection[str] | None = ()) -> list[Winner]:
        """Spans in which a block of a kind holds, ascending and without overlap, each with the block.

        names : of whom; blocks with other targets do not count. None: all blocks count
        """
        key = kind, None if names is None else frozenset(names)
        if key not in self._found:
            self._found[key] = _painted(
                b
                for b in self.blocks
                if b.kind == kind and (key[1] is None or not b.targets or b.targets & key[1])
            )
        return self._found[key]

    def held(self, kind: str, otherwise: Series | None = None) -> Series | None:
        """The values of a kind for all as steps; ``otherwise`` where no signal holds.

        Without ``otherwise`` the last value holds on until the next, the first one before; 0 while there is
        none. None if there are no signals of the kind at all.
        """
        if otherwise is not None:
            return steps_of(self.winners(kind), otherwise)
        return self._held_alone(kind)

    def targets(self, *kinds: str) -> list[frozenset[str]]:
        """The different sets of targets of the blocks of some kinds, in a fixed order."""
        found = {block.targets for block in self.blocks if block.kind in kinds}
        return sorted(found, key=sorted)

    def at(self, kind: str, time_s: float, names: Collection[str] | None = ()) -> Block | None:
        """The block of a kind that holds at a time, None without one."""
        winners = self.winners(kind, names)
        place = bisect_right(winners, time_s + _ROUNDING_S, key=_begin) - 1
        return winners[place][2] if place >= 0 and time_s + _ROUNDING_S < winners[place][1] else None

    def least(self, kind: str, begin_s: float, end_s: float, names: Collection[str] | None = ()) -> float:
        """The least value of a kind within [begin_s, end_s), infinite without any."""
        winners, least = self.winners(kind, names), np.inf
        first = max(bisect_right(winners, begin_s + _ROUNDING_S, key=_begin) - 1, 0)
        for begin, end, block in winners[first:]:
            if begin >= end_s - _ROUNDING_S:
                break
            if end > begin_s + _ROUNDING_S:
                least = min(least, block.value)
        return least


NOTHING = Series(np.array([0.0, 1.0]), np.zeros(1))
"""Values of a kind of which nothing is known."""


def _held_from(winners: Sequence[Winner], kind: str, now_s: float, last: float | None) -> Series:
    """The values of a kind as steps from ``now_s`` on, at which ``last`` had held, None if nothing was
    known.
    """
    before = [winner for winner in winners if winner[0] <= now_s]
    if before and before[-1][1] > now_s:
        found = steps_of(winners)
    elif last is not None:
        cut_s = now_s - _SHORT_S
        past = [(begin_s, min(end_s, cut_s), b) for begin_s, end_s, b in before if begin_s < cut_s]
        held = cut_s, now_s, Block(kind, cut_s, now_s, last, "")
        found = steps_of([*past, held, *winners[len(before) :]])
    else:
        found = steps_of(winners) if len(before) < len(winners) else None
    return NOTHING if found is None else found


def _begin(winner: Winner) -> float:
    return winner[0]


class Signals:
    """Blocks of all versions of all events.

    live : whether more may come during the run
    notes : on what is not used, or assumed, a sentence each
    """

    live: ClassVar[bool] = False

    def __init__(self, blocks: Iterable[Block] = (), notes: Sequence[str] = ()) -> None:
        self.notes = tuple(notes)
        self._set(blocks)

    def _set(self, blocks: Iterable[Block]) -> None:
        self.blocks = tuple(blocks)
        times = {t for b in self.blocks for t in (b.known_s, b.until_s) if 0.0 < t < ALWAYS_S}
        self._changes_s = np.array(sorted(times))
        self._span_s = np.array([(b.known_s, b.until_s) for b in self.blocks]).reshape(-1, 2)
        self._known: dict[int, Known] = {}
        self._held: dict[str, list[Series]] = {}

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of the blocks."""
        return frozenset(block.kind for block in self.blocks)

    def version(self, time_s: float) -> int:
        """Number of changes of what is known, up to a time."""
        return int(self._changes_s.searchsorted(time_s + _ROUNDING_S, "right"))

    def known(self, time_s: float) -> Known:
        """What is known at a time: the same object until that changes."""
        return self._of_version(self.version(time_s))

    def _of_version(self, version: int) -> Known:
        if version not in self._known:
            now_s = float(self._changes_s[version - 1]) if version else 0.0
            here = np.flatnonzero((self._span_s[:, 0] <= now_s) & (now_s < self._span_s[:, 1]))
            alone = partial(self._held_alone, version=version)
            self._known[version] = Known((self.blocks[k] for k in here.tolist()), alone)
        return self._known[version]

    def actual(self, kind: str, names: Collection[str] = ()) -> list[Winner]:
        """As :meth:`Known.winners`, each time by what was known at that time."""
        edges = [-np.inf, *self._changes_s, np.inf]
        found: list[Winner] = []
        for version, (begin_s, end_s) in enumerate(pairwise(edges)):
            for begin, end, block in self._of_version(version).winners(kind, names):
                begin, end = max(begin, begin_s), min(end, end_s)
                if end > begin:
                    found.append((float(begin), float(end), block))
        return found

    def _held_alone(self, kind: str, version: int) -> Series | None:
        """The values of a kind for all in a version, as steps: see :meth:`Known.held`."""
        if kind not in self.kinds:
            return None
        found = self._held.setdefault(kind, [])
        while len(found) <= version:
            now_s = float(self._changes_s[len(found) - 1]) if found else -ALWAYS_S
            last = float(found[-1].at(now_s)) if found and found[-1] is not NOTHING else None
            found.append(_held_from(self._of_version(len(found)).winners(kind), kind, now_s, last))
        return found[version]

    def held(self, kind: str, otherwise: Series | None = None) -> Series | None:
        """As :meth:`Known.held`, each time by what was known at that time."""
        if otherwise is not None or kind not in self.kinds:
            return steps_of(self.actual(kind), otherwise)
        edges, values = list[float](), list[float]()
        for version in range(len(self._changes_s) + 1):
            steps = self._held_alone(kind, version)
            assert steps is not None
            begin_s = self._changes_s[version - 1] if version else min(float(steps.edges_s[0]), -1.0)
            last = version == len(self._changes_s)
            end_s = max(float(steps.edges_s[-1]), begin_s + 1.0) if last else self._changes_s[version]
            inside = steps.edges_s[(steps.edges_s > begin_s) & (steps.edges_s < end_s)]
            parts = np.array([begin_s, *inside, end_s])
            edges += parts[:-1].tolist()
            values += [float(steps.at(time_s)) for time_s in (parts[:-1] + parts[1:]) / 2.0]
        return Series(np.array([*edges, end_s]), np.array(values))

    def __add__(self, other: Signals) -> Signals:
        return Signals((*self.blocks, *other.blocks), (*self.notes, *other.notes))


def _painted(blocks: Iterable[Block]) -> list[Winner]:
    """The blocks that win, by span."""
    ranked = sorted(blocks, key=lambda block: block.rank, reverse=True)
    if not ranked:
        return []
    edges = np.unique([t for b in ranked for t in (b.begin_s, b.end_s)])
    winner = np.full(len(edges) - 1, -1)
    begins, ends = (edges.searchsorted([getattr(b, name) for b in ranked]) for name in ("begin_s", "end_s"))
    for place, (first, last) in enumerate(zip(begins, ends, strict=True)):
        winner[first:last] = place
    found: list[Winner] = []
    for place, begin_s, end_s in zip(winner.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if place < 0:
            continue
        if found and found[-1][2] is ranked[place] and found[-1][1] == begin_s:
            found[-1] = found[-1][0], end_s, ranked[place]
        else:
            found.append((begin_s, end_s, ranked[place]))
    return found


def steps_of(
    winners: Sequence[Winner], otherwise: Series | float | None = None, factor: float = 1.0
) -> Series | None:
    """The values that win as steps, times ``factor``; ``otherwise`` where none holds.

    Without ``otherwise`` the value before holds on, and the first one before. None if there is no value at
    all.
    """
    if not winners:
        return otherwise if isinstance(otherwise, Series) else None
    edges = {t for begin, end, _ in winners for t in (begin, end)}
    if isinstance(otherwise, Series):
        edges |= set(otherwise.edges_s.tolist())
    elif otherwise is not None:
        edges |= {min(edges) - 1.0, max(edges) + 1.0}
    edges_s = np.array(sorted(edges))
    middles = (edges_s[:-1] + edges_s[1:]) / 2.0
    begins = np.array([begin for begin, _, _ in winners])
    place = begins.searchsorted(middles, "right") - 1
    ends = np.array([end for _, end, _ in winners])
    values = np.array([factor * block.value for _, _, block in winners])[place]
    free = (place < 0) | (middles >= ends[place])
    if isinstance(otherwise, Series):
        values[free] = [otherwise.at(t) for t in middles[free]]
    elif otherwise is not None:
        values[free] = otherwise
    else:
        held = np.maximum.accumulate(np.where(free, -1, np.arange(len(values))))
        values = values[np.where(held < 0, int(np.argmin(free)), held)]
    return Series(edges_s, np.asarray(values, np.float64))


def local_seconds(moment: datetime, zone: ZoneInfo, start: np.datetime64) -> float:
    """A moment as seconds from ``start`` on a run's local clock, on which no hour comes twice.

    Over the hour that comes twice in autumn, its second time passes in no time: what begins or ends in it
    does at its end. The hour that is skipped in spring belongs to what held before.
    """
    local = moment.astimezone(zone)
    if local.fold:
        while local.fold and local.utcoffset() != local.replace(fold=0).utcoffset():
            local = (local.replace(fold=0) + timedelta(minutes=1)).replace(fold=1)
            local = local.replace(second=0, microsecond=0)
    since = local.replace(tzinfo=None) - start.astype("datetime64[us]").item()
    return float(since.total_seconds())


def utc_at(time_s: float, zone: ZoneInfo, clock: Clock) -> datetime:
    """Seconds from the run's start on its local clock as a time of UTC; see :func:`local_seconds`."""
    local: datetime = clock.timestamps(np.array([time_s]))[0].astype("datetime64[us]").item()
    return local.replace(tzinfo=zone).astimezone(UTC)
