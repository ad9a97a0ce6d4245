"""Outages: which parts of a feeder are without supply, when, and the power flow of what is left.

In: the scenario's ``outages``, the feeder and the seed. Out: :class:`~evgrid.core.model.Outages`
(:func:`outages_of`), which every process derives equally, and for the feeder's model :class:`FeederOutages`
(the load and generation that is left in a step) and :class:`PartSolver` (its power flow).

A connection point is dead where no closed path leads to a source once the elements out of service are open
(:mod:`scipy.sparse.csgraph`): what a mesh or another source feeds stays alive. In a network from OpenDSS each
conductor counts (:mod:`evgrid.feeder.opendss.supply`); a connection point that lacks one of its own is dead.

Drawn outages begin at a constant rate (a Poisson process) and last exponentially distributed times. They are
drawn by calendar year and member, so that a run that starts later, or with another tick, sees the same; those
of the year before that go on are included. An outage of an element that is out already makes no other one.

Left out: faults that clear themselves, protection and switching to restore supply (an outage ends for all at
once), weather.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evgrid.core.element_names import ElementNames
from evgrid.core.model import SAME_S, Array, Connections, Outages, Spans
from evgrid.core.random_streams import Purpose, stream
from evgrid.errors import ScenarioError
from evgrid.feeder.grid import FEEDER, Bools, Fixed, Grid, Ints, Loads
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import Flow, Label, Positions, Power, Solver, case_name
from evgrid.feeder.solvers.interface import empty_flow
from evgrid.feeder.solvers.opendss import OpenDSSSolver
from evgrid.scenario.outages import Meters, OutageSettings, ScheduledOutage

if TYPE_CHECKING:
    from evgrid.feeder.base_load import BaseLoad
    from evgrid.scenario import Scenario

KEPT_SOLVERS = 32
"""Networks with elements out of service whose solvers are kept."""

SUSTAINED_S = 300.0
"""Interruptions that last longer are sustained, the others momentary (IEEE 1366-2022, clause 3)."""


@dataclass(frozen=True)
class Elements:
    """Numbers of the elements that may be out: all sources (FEEDER), then lines, transformers and connection
    points (at the meter) in the network's order.
    """

    network: Network

    @property
    def lines(self) -> int:
        """Number of the first line."""
        return 1

    @property
    def trafos(self) -> int:
        """Number of the first transformer."""
        return 1 + len(self.network.grid.lines.name)

    @property
    def meters(self) -> int:
        """Number of the first connection point."""
        return self.trafos + len(self.network.grid.trafos.name)

    def name(self, element: int) -> str:
        """An element in messages: ``line L7``."""
        grid = self.network.grid
        if element == FEEDER:
            return "the feeder"
        if element < self.trafos:
            return f"line {grid.lines.name[element - self.lines]}"
        if element < self.meters:
            return f"trafo {grid.trafos.name[element - self.trafos]}"
        return f"connection {grid.loads.name[element - self.meters]}"

    def find(self, out: str | Meters) -> list[int]:
        """Numbers of the elements that a scheduled outage names; ValueError for one that isn't there."""
        grid = self.network.grid
        if out == "feeder":
            return [FEEDER]
        if isinstance(out, Meters):
            loads = ElementNames(grid.loads.name)
            return [self.meters + _place(name, loads, "connection point") for name in out.connections]
        kind, _, name = out.partition(" ")
        if kind == "line":
            return [self.lines + _place(name.strip(), ElementNames(grid.lines.name), "line")]
        trafos = ElementNames(grid.trafos.name)
        windings = [f"{name.strip()} {side}" for side in ("hv", "mv", "lv")]  # of three, see equivalents
        if (trafos.places(windings) < 0).any():
            windings = [name.strip()]
        return [self.trafos + _place(one, trafos, "trafo") for one in windings]


def _place(name: str, names: ElementNames, what: str) -> int:
    if (found := names.place(name)) < 0:
        raise ValueError(f"the network has no {what} {name}; {names.hint(name)}")
    return found


class Supply:
    """Parts of a feeder that sources still feed when elements are out of service."""

    def __init__(self, network: Network) -> None:
        self.network, self.elements = network, Elements(network)
        grid, self._node = network.grid, network.topology.node
        lines, trafos = grid.lines, grid.trafos
        self._ends = np.concatenate(
            [
                np.stack([self._node[lines.from_bus], self._node[lines.to_bus]], axis=1),
                np.stack([self._node[trafos.hv_bus], self._node[trafos.lv_bus]], axis=1),
            ]
        )
        self._closed = np.concatenate(
            [lines.from_closed & lines.to_closed, trafos.hv_closed & trafos.lv_closed]
        )
        self._sources = np.unique(self._node[grid.sources.bus])

    def buses(self, out: frozenset[int]) -> Bools:
        """Whether a source feeds each bus, (bus,), with elements out of service."""
        if self.network.opendss is not None:
            circuit = self.network.opendss.circuit
            dead = np.append(circuit.paths.dead(self.branches(out)), True)  # the last one: no node
            return np.asarray(self.network.topology.energised & ~dead[circuit.bus_node].all(axis=1))
        if FEEDER in out:
            return np.zeros(len(self._node), np.bool_)
        closed = self._closed.copy()
        branches = [one - self.elements.lines for one in out if FEEDER < one < self.elements.meters]
        closed[branches] = False
        a, b = self._ends[closed].T
        nodes = self.network.topology.nodes
        graph = coo_array((np.ones(len(a), np.int8), (a, b)), (nodes, nodes))
        _, part = connected_components(graph, directed=False)
        fed = np.isin(part, part[self._sources])
        return np.asarray(fed[self._node] & (self._node >= 0))

    def branches(self, out: frozenset[int]) -> frozenset[int]:
        """The elements without connection points cut off at the meter, which leave the network as it is."""
        return frozenset(one for one in out if one < self.elements.meters)

    def dead(self, out: frozenset[int]) -> tuple[Bools, Bools]:
        """Which connection points and fixed generators are dead, (connection,), (gen,) bool.

        A generator is also dead where all connection points of its bus are cut off at the meter.
        """
        grid, fed, opendss = self.network.grid, self.buses(out), self.network.opendss
        loads, gens = ~fed[grid.loads.bus], ~fed[grid.fixed.gen_bus]
        if opendss is not None:
            circuit, branches = opendss.circuit, self.branches(out)
            loads, chargers, gens = (
                circuit.dead(ports, branches).any(axis=1)
                for ports in (circuit.loads, circuit.chargers, circuit.generators)
            )
            loads |= chargers
        cut = np.array([one - self.elements.meters for one in out if one >= self.elements.meters], np.int64)
        loads[cut] = True
        at_bus = np.bincount(grid.loads.bus, minlength=len(fed))
        dead_at_bus = np.bincount(grid.loads.bus, loads, len(fed))
        cut_off = (at_bus > 0) & (dead_at_bus == at_bus)
        return loads, gens | cut_off[grid.fixed.gen_bus]


# ---- the table --------------------------------------------------------------------------------------


def outages_of(scenario: Scenario, network: Network, connections: Connections) -> Outages | None:
    """The outages of a run; None without any setting of them.

    Raises ScenarioError naming each scheduled outage of an element that isn't there, or outside of the run.
    """
    settings = scenario.outages
    if settings is None:
        return None
    supply = Supply(network)
    scheduled, notes = _scheduled(settings, scenario, supply.elements)
    states: dict[frozenset[int], tuple[Bools, Bools]] = {}
    points, gens, own = len(connections), len(network.grid.fixed.gen_bus), network.sizes["connection"]
    of_points, of_gens, all_rows, counts = list[Spans](), list[Spans](), list[Row](), list[int]()
    repeated = 0
    for member in scenario.members:
        rows, merged = _merged([*scheduled, *_drawn(settings, scenario, supply.elements, member)])
        repeated += len(merged)
        rows.sort(key=lambda row: row[1])
        all_rows += rows
        counts.append(len(rows))
        edges = sorted({moment for row in rows for moment in row[1:]})
        dead_points = np.zeros((len(edges) + 1, points), np.bool_)
        dead_gens = np.zeros((len(edges) + 1, gens), np.bool_)
        for place, out in enumerate(_out_from(rows, edges)):
            if not out:
                continue
            if out not in states:
                states[out] = supply.dead(out)
            dead_points[place, :own], dead_gens[place] = states[out]
        of_points.append(_spans(dead_points, np.array(edges)))
        of_gens.append(_spans(dead_gens, np.array(edges)))
    if repeated:
        notes.append(
            f"outages: {repeated} drawn outages of elements that were out already are merged with those."
        )
    table = _joined(of_points)
    return Outages(
        table.first, table.begin_s, table.end_s, _joined(of_gens),
        np.array([row[0] for row in all_rows], np.int64),
        Spans(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.array([row[1] for row in all_rows]), np.array([row[2] for row in all_rows]),
        ),
        tuple(notes),
    )  # fmt: skip


def interruptions(outages: Outages, members: int, duration_s: float) -> dict[str, NDArray[Any]]:
    """Interruptions of each connection point in a run, and minutes without supply, (member, connection).

    Sustained ones last longer than :data:`SUSTAINED_S`, momentary ones do not (IEEE 1366); how long one lasts
    does not depend on where the run begins and ends, the minutes count within it.
    """
    row, count = outages.row(), len(outages.first) - 1
    begin, end = np.maximum(outages.begin_s, 0.0), np.minimum(outages.end_s, duration_s)
    sustained = outages.end_s - outages.begin_s > SUSTAINED_S + SAME_S
    inside = begin < end

    def total(some: NDArray[np.bool_], weights: Array | None = None) -> NDArray[Any]:
        each = np.bincount(row[some], None if weights is None else weights[some], count)
        return np.asarray(each).reshape(members, -1)

    return {
        "interruptions": total(inside & sustained).astype(np.int64),
        "momentary_interruptions": total(inside & ~sustained).astype(np.int64),
        "interrupted_min": total(inside & sustained, (end - begin) / 60.0),
    }


def check_outages(scenario: Scenario, network: Network) -> None:
    """Raise ScenarioError naming each scheduled outage of an element that isn't there, or outside the run."""
    if scenario.outages is not None:
        _scheduled(scenario.outages, scenario, Elements(network))


Row = tuple[int, float, float]
"""An element, and the begin and end of an outage of it, s."""


def _scheduled(
    settings: OutageSettings, scenario: Scenario, elements: Elements
) -> tuple[list[Row], list[str]]:
    clock, rows, faults = scenario.clock, list[Row](), list[str]()
    for place, one in enumerate(settings.schedule):
        where = f"outages.schedule[{place}]"
        begin = _seconds(one, clock.start)
        if not 0.0 <= begin < clock.duration_s:
            start = f"{one.start:g}s" if isinstance(one.start, float) else one.start.isoformat()
            faults.append(
                f"{where}.start = {start}: must be within the run, from {clock.stamp(0.0)} to "
                f"{clock.stamp(clock.duration_s)}"
            )
        try:
            rows += [(element, begin, begin + one.duration) for element in elements.find(one.out)]
        except ValueError as error:
            out = one.out if isinstance(one.out, str) else f"connections [{', '.join(one.out.connections)}]"
            faults.append(f"{where}.out = {out}: {error}")
    if faults:
        raise ScenarioError(faults)
    merged, overlaps = _merged(rows)
    notes = list[str]()
    for element, begin, end in sorted(set(overlaps)):
        whole = next(row for row in merged if row[0] == element and row[1] <= begin and end <= row[2])
        notes.append(
            f"outages.schedule: outages of {elements.name(element)} overlap and are one, from "
            f"{clock.stamp(whole[1])} to {clock.stamp(whole[2])}."
        )
    return merged, list(dict.fromkeys(notes))


def _seconds(one: ScheduledOutage, start: np.datetime64) -> float:
    """Begin of a scheduled outage, s from the run's start."""
    if isinstance(one.start, float):
        return one.start
    return float((np.datetime64(one.start) - start) / np.timedelta64(1, "us")) * 1e-6


def _drawn(settings: OutageSettings, scenario: Scenario, elements: Elements, member: int) -> Iterator[Row]:
    """Outages of a member drawn from rates, of the run's years and the one before."""
    rate, mean_s = _rates(settings, elements)
    if not rate.any():
        return
    struck = np.flatnonzero(rate)
    clock, seed = scenario.clock, scenario.ensemble.seed
    last = clock.timestamps(np.array([clock.duration_s]))[0]
    first_year, last_year = (int(str(t.astype("datetime64[Y]"))) for t in (clock.start, last))
    for year in range(first_year - 1, last_year + 1):
        rng = stream(seed, member, Purpose.OUTAGE, day=year)
        begin_of_year = np.datetime64(f"{year}-01-01")
        length_s = float((np.datetime64(f"{year + 1}-01-01") - begin_of_year) / np.timedelta64(1, "s"))
        offset_s = float((begin_of_year - clock.start) / np.timedelta64(1, "s"))
        number = rng.poisson(rate[struck])
        which = np.repeat(struck, number)
        begin = offset_s + rng.random(len(which)) * length_s
        end = begin + rng.exponential(1.0, len(which)) * mean_s[which]
        here = (end > 0.0) & (begin < clock.duration_s)
        yield from zip(which[here].tolist(), begin[here].tolist(), end[here].tolist(), strict=True)


def _rates(settings: OutageSettings, elements: Elements) -> tuple[Array, Array]:
    """Outages a year, and their mean duration, s, of each element."""
    grid = elements.network.grid
    rate = np.zeros(elements.meters + len(grid.loads.name))
    mean_s = np.zeros(len(rate))
    if settings.rates is not None:
        lines, trafos = slice(elements.lines, elements.trafos), slice(elements.trafos, elements.meters)
        rate[lines], mean_s[lines] = settings.rates.line * grid.lines.length_km, settings.repair.line
        rate[trafos], mean_s[trafos] = settings.rates.trafo, settings.repair.trafo
        if elements.network.opendss is not None:  # all windings of a transformer are out together
            names = elements.network.opendss.circuit.paths.names
            later = [k for k in range(1, elements.meters) if k > 1 and names[k] == names[k - 1]]
            rate[later] = 0.0
    if settings.saifi is not None:
        own = slice(FEEDER, FEEDER + 1) if settings.extent == "feeder" else slice(elements.meters, None)
        rate[own], mean_s[own] = settings.saifi, settings.caidi
    return rate, mean_s


def _merged(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Outages with those of one element that overlap as one; and those that were merged into another."""
    found, overlaps = list[Row](), list[Row]()
    for element, begin, end in sorted(rows):
        if found and found[-1][0] == element and begin <= found[-1][2]:
            if begin < found[-1][2]:
                overlaps.append((element, begin, end))
            found[-1] = (element, found[-1][1], max(found[-1][2], end))
        else:
            found.append((element, begin, end))
    return found, overlaps


def _out_from(rows: Sequence[Row], edges_s: Sequence[float]) -> Iterator[frozenset[int]]:
    """The elements that are out from each moment to the next; after the last: none."""
    begins: dict[float, list[int]] = {}
    ends: dict[float, list[int]] = {}
    for element, begin, end in rows:
        begins.setdefault(begin, []).append(element)
        ends.setdefault(end, []).append(element)
    out = frozenset[int]()
    for moment in edges_s:
        out = (out - frozenset(ends.get(moment, ()))) | frozenset(begins.get(moment, ()))
        yield out


def _spans(dead: Bools, edges_s: Array) -> Spans:
    """Spans of each column of (interval + 1, column), the last row of which is False."""
    padded = np.concatenate([np.zeros((1, dead.shape[1]), np.bool_), dead])
    change = padded[1:].astype(np.int8) - padded[:-1]
    row, begin = np.nonzero((change > 0).T)
    _, end = np.nonzero((change < 0).T)
    first = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=dead.shape[1]))])
    return Spans(first.astype(np.int64), edges_s[begin], edges_s[end])


def _joined(parts: Sequence[Spans]) -> Spans:
    """Spans of several members as one."""
    first, before = [np.zeros(1, np.int64)], 0
    for part in parts:
        first.append(part.first[1:] + before)
        before += int(part.first[-1])
    return Spans(
        np.concatenate(first),
        np.concatenate([part.begin_s for part in parts]),
        np.concatenate([part.end_s for part in parts]),
    )


# ---- load and generation that is left ---------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """The load and generation of some steps that outages leave.

    load : active and reactive power of the connection points, (step, member, connection, phase)
    generation : of the fixed generation, (step, member, gen, phase)
    not_served_kw : (step, member, connection) load that dead connection points would have drawn
    dead : (step, member, connection) bool, whether a connection point is dead throughout the step
    gen_share : (step, member, gen) share of the step in which a generator is alive
    out : elements that are out throughout the step, by (step, member); only where there are any
    """

    load: Power
    generation: Power
    not_served_kw: Array
    dead: NDArray[np.bool_]
    gen_share: Array
    out: Mapping[tuple[int, int], frozenset[int]]


class FeederOutages:
    """The load and generation that outages leave, step by step.

    An element that is out for a part of a step is in service in the step's power flow; what is dead meanwhile
    draws its mean over the whole step, of which it is 0 for a part: energies are exact.
    """

    def __init__(
        self,
        outages: Outages,
        settings: OutageSettings,
        network: Network,
        base: BaseLoad,
        members: int,
        step_s: float,
    ) -> None:
        self._outages, self._base, self._network = outages, base, network
        self._members, self._step_s = members, step_s
        self._count = network.sizes["connection"]
        cold = settings.cold_load
        self._factor = 1.0 if cold is None else cold.factor
        rows = outages.row()
        points = max(1, (len(outages.first) - 1) // members)
        self._member, self._point = rows // points, rows % points
        self._begin_s, self._end_s = outages.begin_s, outages.end_s
        self._warm_s = self._end_s.copy()
        """End of the cold-load pick-up after each outage."""
        if cold is not None:
            self._warm_s += np.minimum(cold.duration, self._end_s - self._begin_s)
            again = np.append(np.where(np.diff(rows) == 0, self._begin_s[1:], np.inf), np.inf)[: len(rows)]
            self._warm_s = np.minimum(self._warm_s, again)
        gens = outages.generators
        number = max(1, (len(gens.first) - 1) // members)
        self._gen_member, self._gen = gens.row() // number, gens.row() % number
        starts = np.concatenate([self._begin_s, gens.begin_s, outages.elements.begin_s])
        ends = np.concatenate([self._warm_s, gens.end_s, outages.elements.end_s])
        order = np.argsort(starts)
        self._starts, self._until = starts[order], np.maximum.accumulate(ends[order])

    def _any_within(self, begin_s: float, end_s: float) -> bool:
        """Whether an outage, or the pick-up after one, overlaps a span."""
        last = int(np.searchsorted(self._starts, end_s)) - 1
        return last >= 0 and bool(self._until[last] > begin_s)

    def within(self, times_s: Array) -> Left | None:
        """What is left in the steps that begin at the given times; None where nothing is missing."""
        begin_s, end_s = float(times_s[0]), float(times_s[-1]) + self._step_s
        if not self._any_within(begin_s, end_s):
            return None
        p, q = self._base.at(times_s)
        fixed = self._network.grid.fixed
        given = self._base.generation(times_s) or (fixed.gen_p_kw[None, None], fixed.gen_q_kvar[None, None])
        steps, members = len(times_s), self._members

        def whole(values: Array) -> Array:
            return np.array(np.broadcast_to(values, (steps, members, *values.shape[2:])))

        load, generation = (whole(p), whole(q)), (whole(given[0]), whole(given[1]))
        not_served_kw = load[0].sum(axis=3)
        weight = np.ones((steps, members, self._count))
        dead = np.zeros(weight.shape, np.bool_)
        gen_share = np.ones((steps, members, generation[0].shape[2]))
        for step, begin in enumerate(times_s.tolist()):
            end = begin + self._step_s
            self._weigh(step, begin, end, weight, dead, gen_share)
            for part in load:
                part[step] *= weight[step, :, :, np.newaxis]
            for part in generation:
                part[step] *= gen_share[step, :, :, np.newaxis]
            not_served_kw[step] *= dead[step]
            self._part_steps(step, begin, end, load, generation, not_served_kw)
        return Left(
            load,
            generation,
            not_served_kw,
            dead,
            gen_share,
            self._outages.throughout(times_s, self._step_s),
        )

    def _weigh(
        self,
        step: int,
        begin_s: float,
        end_s: float,
        weight: Array,
        dead: NDArray[np.bool_],
        gen_share: Array,
    ) -> None:
        """Weights of a step's mean load where they hold for all of it, and shares of it without outage."""
        off = np.flatnonzero((self._begin_s <= begin_s + SAME_S) & (self._end_s >= end_s - SAME_S))
        dead[step, self._member[off], self._point[off]] = True
        weight[step, self._member[off], self._point[off]] = 0.0
        cold = np.flatnonzero((self._end_s <= begin_s + SAME_S) & (self._warm_s >= end_s - SAME_S))
        weight[step, self._member[cold], self._point[cold]] = self._factor
        gens = self._outages.generators
        some = np.flatnonzero((gens.begin_s < end_s) & (gens.end_s > begin_s))
        lost = np.minimum(gens.end_s[some], end_s) - np.maximum(gens.begin_s[some], begin_s)
        np.subtract.at(gen_share[step], (self._gen_member[some], self._gen[some]), lost / (end_s - begin_s))
        gen_share[step][gen_share[step] < SAME_S / (end_s - begin_s)] = 0.0

    def _cuts(self, begin_s: float, end_s: float) -> dict[tuple[float, ...], list[int]]:
        """Members with a change inside a step, by the moments of it."""
        gens = self._outages.generators
        found: dict[int, set[float]] = {}
        for members, moments in (
            (self._member, self._begin_s), (self._member, self._end_s), (self._member, self._warm_s),
            (self._gen_member, gens.begin_s), (self._gen_member, gens.end_s),
        ):  # fmt: skip
            inside = np.flatnonzero((moments > begin_s + SAME_S) & (moments < end_s - SAME_S))
            for member, moment in zip(members[inside].tolist(), moments[inside].tolist(), strict=True):
                found.setdefault(member, set()).add(moment)
        together: dict[tuple[float, ...], list[int]] = {}
        for member, own in found.items():
            together.setdefault(tuple(sorted(own)), []).append(member)
        return together

    def _part_steps(
        self, step: int, begin_s: float, end_s: float, load: Power, generation: Power, not_served_kw: Array
    ) -> None:
        """Means of a step over which outages begin or end, of the parts between those moments."""
        gens = self._outages.generators
        fixed = self._network.grid.fixed
        for cuts, members in self._cuts(begin_s, end_s).items():
            edges = np.array([begin_s, *cuts, end_s])
            begins, ends = edges[:-1], edges[1:]
            share = ((ends - begins) / (end_s - begin_s))[:, np.newaxis, np.newaxis]
            middle = (begins + ends)[:, np.newaxis] / 2
            base = self._base.at(begins, ends)
            given = self._base.generation(begins, ends) or (
                np.repeat(fixed.gen_p_kw[None, None], len(begins), 0),
                np.repeat(fixed.gen_q_kvar[None, None], len(begins), 0),
            )
            for member in members:
                own = np.flatnonzero(self._member == member)
                weight = np.ones((len(begins), self._count))
                at, point = np.nonzero((self._begin_s[own] < middle) & (middle < self._end_s[own]))
                weight[at, self._point[own[point]]] = 0.0
                at, point = np.nonzero((self._end_s[own] < middle) & (middle < self._warm_s[own]))
                weight[at, self._point[own[point]]] = self._factor
                mine = np.flatnonzero(self._gen_member == member)
                running = np.ones((len(begins), generation[0].shape[2]))
                at, gen = np.nonzero((gens.begin_s[mine] < middle) & (middle < gens.end_s[mine]))
                running[at, self._gen[mine[gen]]] = 0.0

                def of(values: Array, member: int = member, share: Array = share) -> Array:
                    return np.asarray(values[:, member if values.shape[1] > 1 else 0] * share)

                for to, values in zip(load, base, strict=True):
                    to[step, member] = (of(values) * weight[..., np.newaxis]).sum(axis=0)
                for to, values in zip(generation, given, strict=True):
                    to[step, member] = (of(values) * running[..., np.newaxis]).sum(axis=0)
                not_served_kw[step, member] = (of(base[0]).sum(axis=2) * (weight == 0.0)).sum(axis=0)


# ---- the power flow of what is left -----------------------------------------------------------------


class PartSolver:
    """Power flows with elements out of service: what no source feeds is not solved, and has neither power nor
    voltage (NaN).

    The solver of each network that is left is made when it is needed; its cases are solved in one batch.
    """

    def __init__(self, network: Network, make: Callable[[Network], Solver]) -> None:
        self._network, self._make = network, make
        self.whole = make(network)
        """The solver with all elements in service."""
        self.name, self.balance_tolerance = self.whole.name, self.whole.balance_tolerance
        self.in_time, self.note = self.whole.in_time, self.whole.note
        self._supply = Supply(network)
        self._parts: dict[frozenset[int], tuple[Solver | None, Bools, Bools, Bools]] = {}
        self._newton_before = 0

    @property
    def newton_cases(self) -> int:
        """Cases that Newton-Raphson solved in place of z-bus, with all networks."""
        solvers = (self.whole, *(part[0] for part in self._parts.values()))
        return self._newton_before + sum(solver.newton_cases for solver in solvers if solver is not None)

    def solve(
        self,
        p_kw: Array,
        q_kvar: Array,
        label: Label = case_name,
        *,
        out: Mapping[int, frozenset[int]],
        nominal: Power | None = None,
        generation: Power | None = None,
        positions: Positions | None = None,
        failed: dict[int, str] | None = None,
        **given: Any,
    ) -> Flow:
        """As :meth:`evgrid.feeder.solvers.Solver.solve`, with the elements ``out`` by case.

        ``given``: what else the solver itself takes.
        """
        if isinstance(self.whole, OpenDSSSolver):  # it takes elements out of its engine
            some_out = {case: self._supply.branches(elements) for case, elements in out.items()}
            return self.whole.solve(
                p_kw, q_kvar, label, nominal=nominal, generation=generation, positions=positions,
                failed=failed, out=some_out, **given,
            )  # fmt: skip
        groups: dict[frozenset[int], list[int]] = {}
        for case in range(len(p_kw)):
            groups.setdefault(self._supply.branches(out.get(case, frozenset())), []).append(case)
        total: Flow | None = None
        for elements, members in groups.items():
            cases = np.array(members, np.int64)

            def some(pair: Power | None, cases: Ints = cases) -> Power | None:
                return None if pair is None else (pair[0][cases], pair[1][cases])

            def of(case: int, cases: Ints = cases) -> str:
                return label(int(cases[case]))

            at = None if positions is None else Positions(positions.tap[cases], positions.shunt[cases])
            reasons: dict[int, str] | None = None if failed is None else {}
            part = self._solve_part(
                elements, (p_kw[cases], q_kvar[cases]), of, some(nominal), some(generation), at, reasons
            )
            if failed is not None and reasons:
                failed.update({int(cases[case]): reason for case, reason in reasons.items()})
            if len(groups) == 1:
                return part
            if total is None:
                shapes = {name: values.shape[1:] for name, values in part.tables().items()}
                total = Flow(**{name: np.empty((len(p_kw), *shape)) for name, shape in shapes.items()})
            for name, values in part.tables().items():
                getattr(total, name)[cases] = values
        assert total is not None
        return total

    def _solve_part(
        self,
        out: frozenset[int],
        power: Power,
        label: Label,
        nominal: Power | None,
        generation: Power | None,
        positions: Positions | None,
        failed: dict[int, str] | None,
    ) -> Flow:
        if not out:
            return self.whole.solve(
                *power, label, nominal=nominal, generation=generation, positions=positions, failed=failed
            )
        if out not in self._parts:
            if len(self._parts) >= KEPT_SOLVERS:
                oldest = self._parts.pop(next(iter(self._parts)))
                self._newton_before += 0 if oldest[0] is None else oldest[0].newton_cases
            network, loads, gens, shunts = without(self._network, self._supply.buses(out), out)
            self._parts[out] = (None if network is None else self._make(network), loads, gens, shunts)
        solver, loads, gens, shunts = self._parts[out]
        if solver is None:
            return self._nothing(len(power[0]))

        def some(pair: Power | None, rows: Bools) -> Power | None:
            return None if pair is None else (pair[0][:, rows], pair[1][:, rows])

        at = None if positions is None else Positions(positions.tap, positions.shunt[:, shunts])
        flow = solver.solve(
            power[0][:, loads], power[1][:, loads], label, nominal=some(nominal, loads),
            generation=some(generation, gens), positions=at, failed=failed,
        )  # fmt: skip
        grid, across = self._network.grid, dict[str, Array]()
        for name, buses, delta, left in (
            ("connection_pu", grid.loads.bus, grid.loads.delta, loads),
            ("generator_pu", grid.fixed.gen_bus, grid.fixed.gen_delta, gens),
        ):
            if delta.any():
                part = flow.tables().get(name)
                across[name] = np.full((len(flow), len(buses), len(grid.phases)), np.nan)
                across[name][:, left] = flow.voltage_pu[:, buses[left]] if part is None else part
        if grid.fixed.holds.any():
            across["held_kvar"] = np.zeros((len(flow), len(gens)))
            across["held_kvar"][:, gens] = 0.0 if flow.held_kvar is None else flow.held_kvar
        return replace(flow, **across)

    def _nothing(self, cases: int) -> Flow:
        """The flow where no source is left."""
        grid = self._network.grid
        flow = empty_flow(grid, cases, bool(getattr(self.whole, "unbalance", False)))
        flow.voltage_pu[:], flow.voltage_unbalance[:], flow.line_loading[:] = np.nan, np.nan, 0.0
        flow.line_loading[:, np.isnan(grid.lines.rating_ka)] = np.nan
        for across in (flow.connection_pu, flow.generator_pu):
            if across is not None:
                across[:] = np.nan
        return flow


def without(network: Network, fed: Bools, out: frozenset[int]) -> tuple[Network | None, Bools, Bools, Bools]:
    """A network with elements out of service, and which of its loads, fixed generators and shunts are left.

    Buses, lines and transformers keep their places; ``fed``: (bus,), what sources still feed. None if that is
    nothing. A network from OpenDSS keeps all of them, those without supply without power.
    """
    grid, elements = network.grid, Elements(network)
    if network.opendss is not None:
        loads, gens, shunts = (
            np.ones(len(at), np.bool_) for at in (grid.loads.bus, grid.fixed.gen_bus, grid.fixed.shunt_bus)
        )
        return replace(network, opendss=replace(network.opendss, out=out)), loads, gens, shunts
    loads, gens, shunts = fed[grid.loads.bus], fed[grid.fixed.gen_bus], fed[grid.fixed.shunt_bus]
    if not fed.any():
        return None, loads, gens, shunts
    lines = np.array([one - elements.lines for one in out if one < elements.trafos], np.int64)
    trafos = np.array(
        [one - elements.trafos for one in out if elements.trafos <= one < elements.meters], np.int64
    )

    def opened(closed: Bools, rows: Ints) -> Bools:
        closed = closed.copy()
        closed[rows] = False
        return closed

    left = Grid(
        three_phase=grid.three_phase,
        frequency_hz=grid.frequency_hz,
        buses=grid.buses,
        lines=replace(
            grid.lines,
            from_closed=opened(grid.lines.from_closed, lines),
            to_closed=opened(grid.lines.to_closed, lines),
        ),
        trafos=replace(
            grid.trafos,
            hv_closed=opened(grid.trafos.hv_closed, trafos),
            lv_closed=opened(grid.trafos.lv_closed, trafos),
        ),
        sources=grid.sources,
        loads=Loads(**{f.name: getattr(grid.loads, f.name)[loads] for f in fields(Loads)}),
        fixed=Fixed(
            **{
                f.name: getattr(grid.fixed, f.name)[gens if f.name.startswith("gen") else shunts]
                for f in fields(Fixed)
                if getattr(grid.fixed, f.name) is not None
            }
        ),
        joined=grid.joined,
        asymmetric=grid.asymmetric,
    )

    def net() -> Any:
        import copy

        whole = copy.deepcopy(network.net)
        for table, rows in (("line", lines), ("trafo", trafos)):
            whole[table].loc[whole[table].index[rows], "in_service"] = False
        position = {index: place for place, index in enumerate(whole.bus.index)}
        dead = [index for index, bus in whole.shunt["bus"].items() if not fed[position[bus]]]
        whole.shunt.loc[dead, "in_service"] = False
        return whole

    part = replace(
        network, grid=left, read_net=net, households=network.households[loads],
        topology=replace(network.topology, energised=fed),
    )  # fmt: skip
    return part, loads, gens, shunts
