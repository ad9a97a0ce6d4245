"""Assignment of EVs to aggregators.

Every aggregator has a portfolio of EVs; an EV has at most one aggregator, and those with none charge as
fast as they can. An aggregator selects its EVs by ``evs``; one without takes all that remain.
One aggregator with all EVs is the federate ``aggregator``; else each is a federate of its own, named
``aggregator.NAME``, whose ports and result variables carry its name and cover its own EVs only.

Shares are drawn per member and EV from a stream of their own: row r never changes with the number of EVs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evgrid.core.element_names import ElementNames
from evgrid.core.model import Array, Connections, EVs, Portfolio
from evgrid.core.random_streams import Purpose, stream
from evgrid.errors import ScenarioError
from evgrid.scenario.aggregators import Selection, StrategySettings, alike
from evgrid.scenario.schema import Scenario


def portfolios(
    scenario: Scenario,
    connections: Connections,
    trafos: NDArray[np.str_],
    banks: NDArray[np.int64],
    evs: EVs,
    vehicle: NDArray[np.str_],
) -> tuple[Portfolio, ...]:
    """The portfolio of each aggregator of the scenario.

    trafos, banks : (trafo,) the transformers' names, and position of the first unit of each one's bank
    vehicle : (ev,) type of each EV, "" if it is unknown

    Raises
    ------
    ScenarioError
        With every name that doesn't exist, the first EV that two aggregators claim, and an aggregator that
        depends on the feeder but has EVs upstream of it.

    """
    given = scenario.aggregators
    faults = [
        fault
        for name, settings in given.items()
        if settings.evs is not None
        for fault in _unknown(f"aggregators.{name}.evs", settings.evs, scenario, connections, trafos, vehicle)
    ]
    if faults:
        raise ScenarioError(faults)
    ranges = {
        name: limits
        for names in alike(given).values()
        for name, limits in zip(
            names, pairwise(np.cumsum([0.0, *(_share(given[name]) for name in names)])), strict=True
        )
    }
    draw = _draws(scenario, evs) if ranges else np.zeros(len(evs))
    owner = np.full(len(evs), -1)
    rest = None
    for number, (name, settings) in enumerate(given.items()):
        if settings.evs is None:
            rest = number
            continue
        own = _chosen(settings.evs, connections, trafos, banks, evs, vehicle)
        if name in ranges:
            own &= (ranges[name][0] <= draw) & (draw < ranges[name][1])
        _refuse_twice(own & (owner >= 0), owner, list(given), number, evs, scenario)
        owner[own] = number
    if rest is not None:
        owner[owner < 0] = rest
    found = []
    for number, name in enumerate(given):
        rows = np.flatnonzero(owner == number)
        found.append(Portfolio(name, number, rows, whole=len(rows) == len(evs) and len(given) == 1))
    _refuse_upstream(scenario, connections, evs, found)
    return tuple(found)


def _share(settings: StrategySettings) -> float:
    assert settings.evs is not None
    return settings.evs.share or 0.0


def _draws(scenario: Scenario, evs: EVs) -> Array:
    """A uniform number for each EV, (ev,), from its member's own stream."""
    counts = np.diff(np.searchsorted(evs.member, np.arange(len(scenario.members) + 1)))
    parts = [
        stream(scenario.ensemble.seed, member, Purpose.AGGREGATOR).random(count)
        for member, count in zip(scenario.members, counts.tolist(), strict=True)
    ]
    return np.concatenate(parts)


def _chosen(
    wanted: Selection,
    connections: Connections,
    trafos: NDArray[np.str_],
    banks: NDArray[np.int64],
    evs: EVs,
    vehicle: NDArray[np.str_],
) -> NDArray[np.bool_]:
    """The EVs that match all criteria but the share, (ev,) bool."""
    at = np.ones(len(connections), np.bool_)
    if wanted.connections is not None:
        places = ElementNames(connections.name).places(wanted.connections)
        at &= np.isin(np.arange(len(connections)), places)
    if wanted.transformers is not None:
        at &= np.isin(connections.trafo, banks[ElementNames(trafos).places(wanted.transformers)])
    if wanted.upstream is not None:
        at &= (np.arange(len(connections)) >= connections.on_feeder) == wanted.upstream
    own = at[evs.connection]
    return own & np.isin(vehicle, wanted.vehicles) if wanted.vehicles is not None else own


def _unknown(
    path: str, wanted: Selection, scenario: Scenario, connections: Connections,
    trafos: NDArray[np.str_], vehicle: NDArray[np.str_],
) -> list[str]:  # fmt: skip
    """Names that don't exist, a sentence each."""
    mix = scenario.fleet.vehicle_mix if scenario.fleet is not None else None
    types = [*mix.types] if mix is not None else np.unique(vehicle[vehicle != ""]).tolist()
    found = []
    for key, what, names in (
        ("connections", "the feeder has no connection point", connections.name),
        ("transformers", "the feeder has no transformer", trafos),
    ):
        known = ElementNames(names)
        found += [
            f"{path}.{key}: {what} {name}; {known.hint(name)}"
            for name in getattr(wanted, key) or ()
            if known.place(name) < 0
        ]
    found += [
        f"{path}.vehicles: the fleet has no vehicle type {name}; {ElementNames(types).hint(name)}"
        for name in wanted.vehicles or ()
        if name not in types
    ]
    return found


def _refuse_twice(
    twice: NDArray[np.bool_], owner: NDArray[np.int64], names: list[str], number: int, evs: EVs,
    scenario: Scenario,
) -> None:  # fmt: skip
    if not twice.any():
        return
    ev = int(np.argmax(twice))
    count = int(np.count_nonzero(twice))
    more = f" and {count - 1} more" if count > 1 else ""
    raise ScenarioError(
        [
            f"aggregators: {names[owner[ev]]} and {names[number]} both have EV {evs.name[ev]} of member "
            f"{scenario.members[evs.member[ev]]}{more}: an EV has one aggregator"
        ]
    )


def _refuse_upstream(
    scenario: Scenario, connections: Connections, evs: EVs, found: Sequence[Portfolio]
) -> None:
    if not connections.upstream:
        return
    faults = []
    for portfolio in found:
        settings = scenario.aggregators[portfolio.name]
        count = np.count_nonzero(evs.connection[portfolio.rows] >= connections.on_feeder)
        cls = settings.strategy_class
        if count and not cls.takes_upstream and (cls.goes_by_feeder(settings) or cls.uses_voltage):
            faults.append(
                f"aggregators.{portfolio.name}.strategy = {settings.strategy}: depends on the feeder, and "
                f"{count} of its EVs are upstream of it; give it others by evs: {{upstream: false}}"
            )
    if faults:
        raise ScenarioError(faults)
