"""Present values, and the least-cost set of measures: best-first search over sets by cost.

Sets are examined in the order of their cost, so that the first one that restores the limits costs least of
all sets of the candidates: the search is exact. It assumes nothing about the effect of a measure (violations
are not monotone: a cable may unbalance another one), so that no set is left out but those with two measures
for one element. If ``most`` sets have been examined without success, the cost of the next one is a lower
bound of the least cost, and a set found by leaving out of all strongest measures one after the other, the
dearest first, as long as the limits hold, an upper bound.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Members = NDArray[np.bool_]


def present_value(investment: float, lifetime: float, horizon: float, rate: float) -> float:
    """Present value of an investment that is repeated every ``lifetime`` years within ``horizon`` years, less
    the value that the last one has left at its end (linear over its lifetime).

    rate : discount rate, 1/a; payments at the begin of the year in which they fall

    >>> round(present_value(1000.0, 20.0, 40.0, 0.05), 2)  # 1000 + 1000 / 1.05**20
    1376.89
    >>> round(present_value(1000.0, 40.0, 20.0, 0.05), 2)  # 1000 - 500 / 1.05**20
    811.56
    """
    total, year = 0.0, 0.0
    while year < horizon - 1e-9:
        total += investment / (1 + rate) ** year
        year += lifetime
    return total - investment * (year - horizon) / lifetime * float((1 + rate) ** -horizon)


def annuity(per_year: float, horizon: float, rate: float) -> float:
    """Present value of a yearly payment at the end of each of ``horizon`` years.

    >>> round(annuity(100.0, 40, 0.05), 2)  # 100 (1 - 1.05**-40) / 0.05
    1715.91
    """
    years = horizon if rate == 0 else (1 - float((1 + rate) ** -horizon)) / rate
    return per_year * years


@dataclass(frozen=True)
class Examined:
    """A set that was examined: positions of its measures, its cost, and the members that violate a limit."""

    chosen: tuple[int, ...]
    cost: float
    violated: Members


@dataclass
class Search:
    """Outcome of a search.

    examined : the sets in the order of their cost
    found : the least-cost set; None if there is none among those examined
    bound : lower bound of the least cost, the cost of ``found`` if there is one
    upper : a set that restores the limits where ``found`` is None; None if none is known
    """

    examined: list[Examined] = field(default_factory=list)
    found: Examined | None = None
    bound: float = 0.0
    upper: Examined | None = None

    @property
    def member_cost(self) -> NDArray[np.float64]:
        """Cost of the cheapest set without which each member alone violates a limit, (member,); inf where
        it costs more than all that were examined.
        """
        cost = np.full(len(self.examined[0].violated), np.inf)
        for item in self.examined:
            cost = np.minimum(cost, np.where(item.violated, np.inf, item.cost))
        return cost


def sets_by_cost(elements: Sequence[str], costs: Sequence[float]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """All sets of measures with at most one for each element, (cost, positions), the cheapest first.

    elements, costs : of each measure; costs must not be negative
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], i))
    heap: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    while heap:
        _, ranks = heapq.heappop(heap)
        chosen = tuple(order[rank] for rank in ranks)
        if len({elements[i] for i in chosen}) == len(chosen):
            yield sum(costs[i] for i in chosen), chosen
        after = ranks[-1] + 1 if ranks else 0
        if after < len(order):
            for more in ((*ranks, after), (*ranks[:-1], after)) if ranks else ((after,),):
                heapq.heappush(heap, (sum(costs[order[rank]] for rank in more), more))


def search(
    elements: Sequence[str],
    costs: Sequence[float],
    evaluate: Callable[[tuple[int, ...]], Members],
    allowed: int,
    most: int,
    dearest: float = np.inf,
    advance: Callable[[int], None] | None = None,
) -> Search:
    """Search the least-cost set with which at most ``allowed`` members violate a limit.

    evaluate : members that violate a limit with a set
    most : sets to examine
    dearest : cost beyond which sets are of no interest; the empty set is examined anyway
    advance : called with the number of sets examined
    """
    outcome = Search()
    for cost, chosen in sets_by_cost(elements, costs):
        outcome.bound = cost
        if outcome.examined and (len(outcome.examined) >= most or cost > dearest):
            break
        item = Examined(chosen, cost, evaluate(chosen))
        outcome.examined.append(item)
        if advance is not None:
            advance(len(outcome.examined))
        if item.violated.sum() <= allowed:
            outcome.found = item
            return outcome
    else:
        outcome.bound = np.inf
        return outcome
    if len(outcome.examined) >= most:
        outcome.upper = _trimmed(elements, costs, evaluate, allowed)
    return outcome


def _trimmed(
    elements: Sequence[str],
    costs: Sequence[float],
    evaluate: Callable[[tuple[int, ...]], Members],
    allowed: int,
) -> Examined | None:
    """A set that restores the limits, of the dearest measure for each element, less what is not needed."""
    dearest: dict[str, int] = {}
    for i, element in enumerate(elements):
        if element not in dearest or costs[i] > costs[dearest[element]]:
            dearest[element] = i
    chosen = sorted(dearest.values(), key=lambda i: -costs[i])
    violated = evaluate(tuple(chosen))
    if violated.sum() > allowed:
        return None
    for measure in list(chosen):
        fewer = [i for i in chosen if i != measure]
        without = evaluate(tuple(fewer))
        if without.sum() <= allowed:
            chosen, violated = fewer, without
    return Examined(tuple(chosen), sum(costs[i] for i in chosen), violated)
