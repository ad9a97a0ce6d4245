"""Heat pumps and PV added at households, and growth of the load (``feeder.additions``).

In: a base load. Out: the base load with the additions, at the phases of each connection point (three-phase
ones take a third on each). Households stand in a random order of their own for heat pumps and for PV, of
each member; of an area those come first that stand first there, so that additions of a lower penetration
are among those of a higher one, in whatever areas. PV is power drawn, negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evgrid.core.element_names import ElementNames
from evgrid.core.model import Array
from evgrid.core.random_streams import Purpose, stream
from evgrid.errors import ScenarioError
from evgrid.feeder.grid import Bools
from evgrid.feeder.profiles import HeatPumps, Pv, Source
from evgrid.scenario.profiles import ElementProfile

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network
    from evgrid.scenario import Scenario
    from evgrid.scenario.additions import Addition

_PURPOSE = {"heat_pump": Purpose.HEAT_PUMP, "pv": Purpose.PV}


def added_power(
    scenario: Scenario, network: Network
) -> tuple[Array, list[tuple[Source, Array, float]], tuple[str, ...]]:
    """The additions of a scenario.

    Returns the factor of each connection point's base load, (connection,); for each of heat pumps and PV the
    power of one, the number at each connection point, (member, connection), negative for PV, and the reactive
    per active power; and an account of each.

    Raises
    ------
    ScenarioError
        Naming each area that has no such connection point, and what is wrong with a weather file.

    """
    names = ElementNames(network.connections.name.astype(str))
    factor = np.ones(len(network.connections))
    found, faults, accounts = list[tuple[Source, Array, float]](), list[str](), list[str]()
    for name, addition in scenario.feeder.additions.items():
        path = f"feeder.additions.{name}"
        inside = np.ones(len(factor), np.bool_)
        if addition.at is not None:
            rows, missing = names.chosen(
                addition.at, f"{path}.at", "the network has no such connection point"
            )
            faults += missing
            inside = np.isin(np.arange(len(factor)), rows)
        if addition.load is not None:
            factor[inside] *= addition.load
            accounts.append(
                f"{path}: the base load of {inside.sum()} connection points times {addition.load:g}."
            )
            continue
        try:
            source = _source(scenario, addition, path)
        except ScenarioError as error:
            faults += error.faults
            continue
        counts = _counts(scenario, network, addition, inside)
        accounts.append(
            f"{path}: {counts[0].sum():g} {'heat pumps' if addition.heat_pump else 'PV systems'} a member at "
            f"{int(network.connections.households[inside].sum())} households."
        )
        sign = 1.0 if addition.heat_pump is not None else -1.0
        q_per_p = math.tan(math.acos(addition.power_factor)) if addition.heat_pump is not None else 0.0
        found.append((source, sign * counts, q_per_p))
    if faults:
        raise ScenarioError(faults)
    return factor, found, tuple(accounts)


def _source(scenario: Scenario, addition: Addition, path: str) -> Source:
    """Power of one heat pump or PV system."""
    if addition.heat_pump is not None:
        return HeatPumps(addition.heat_pump, scenario.clock, np.zeros(1), path)
    profile = ElementProfile(of="generator", pv=addition.pv)
    return Pv(profile, scenario.clock, np.array([addition.kw]), path)


def _counts(scenario: Scenario, network: Network, addition: Addition, inside: Bools) -> Array:
    """Number at each connection point, (member, connection)."""
    places = np.repeat(np.arange(len(inside)), network.connections.households)
    total = int(inside[places].sum())
    count = round((addition.penetration or 0.0) * total)
    found = np.zeros((len(scenario.members), len(inside)))
    for position, number in enumerate(scenario.members):
        order = stream(scenario.ensemble.seed, number, _PURPOSE[addition.kind]).permutation(places)
        own = order[inside[order]]
        np.add.at(found[position], own[np.arange(count) % max(total, 1)], 1.0)
    return found


class Additions:
    """The additions, to be put on a base load."""

    def __init__(self, scenario: Scenario, network: Network, share: Array) -> None:
        """Share of each phase of a connection point, (connection, phase). Raises as :func:`added_power`."""
        self._factor, self._parts, self.accounts = added_power(scenario, network)
        self._share = share

    def put(self, load: tuple[Array, Array], begins_s: Array, ends_s: Array) -> tuple[Array, Array]:
        """A base load, active and reactive power (n, member or 1, connection, phase), with the additions."""
        p, q = (power * self._factor[:, np.newaxis] for power in load)
        for source, counts, q_per_p in self._parts:
            one = source.means(begins_s, ends_s)  # (n, 1, 1)
            added = (one * counts)[..., np.newaxis] * self._share
            p = p + added
            q = q + added * q_per_p
        return p, q

    def changes(self, begin_s: float, end_s: float) -> list[Array]:
        """Times at which they may change."""
        return [source.changes(begin_s, end_s) for source, _, _ in self._parts]
