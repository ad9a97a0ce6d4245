"""Connectivity of a feeder: electrical nodes, energised buses, distances, the transformer upstream.

A *node* is a set of buses connected by closed switches. Everything here follows from a
:class:`~evgrid.feeder.grid.Grid`, without a power flow.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evgrid.errors import NetworkError, shortened
from evgrid.feeder.grid import Bools, Floats, Grid, Ints


@dataclass(frozen=True)
class Topology:
    """Connectivity of a feeder.

    node : (bus,) int, electrical node of each bus; -1 out of service
    nodes : number of nodes
    energised : (bus,) bool, whether a source feeds the bus
    distance_km : (bus,) float, length of the shortest path along lines from a source; NaN if not fed
    trafo : (bus,) int, position of the last transformer on that path, of a bank that of its first unit; -1
        if there is none
    bank : (trafo,) int, position of the first unit of the bank to which each transformer belongs: those that
        are closed between the same two nodes, such as three single-phase regulators
    """

    node: Ints
    nodes: int
    energised: Bools
    distance_km: Floats
    trafo: Ints
    bank: Ints


def topology(grid: Grid, source: str) -> Topology:
    """Find nodes, distances and upstream transformers.

    Raises
    ------
    NetworkError
        Naming each load that no source feeds, and buses that a switch joins across voltages.

    """
    node, nodes = _nodes(grid)
    faults = shortened(
        f"buses '{grid.buses.name[a]}' and '{grid.buses.name[b]}' are joined by a closed switch "
        f"but have {grid.buses.nominal_kv[a]:g} and {grid.buses.nominal_kv[b]:g} kV"
        for a, b in grid.joined
        if grid.buses.nominal_kv[a] != grid.buses.nominal_kv[b]
    )
    bank = _banks(grid, node)
    distance, trafo = _ways(grid, node, nodes)
    trafo = np.append(bank, -1)[trafo]
    inside = node >= 0
    distance_km = np.where(inside, distance[node], np.inf)
    energised = np.isfinite(distance_km)
    for kinds, names, buses in (
        (["load"] * len(grid.loads.name), grid.loads.name, grid.loads.bus),
        (grid.fixed.gen_kind, grid.fixed.gen_name, grid.fixed.gen_bus),
        (["shunt"] * len(grid.fixed.shunt_name), grid.fixed.shunt_name, grid.fixed.shunt_bus),
    ):
        faults += shortened(
            f"{kinds[k]} '{names[k]}' is at bus '{grid.buses.name[buses[k]]}', which no source feeds"
            for k in np.flatnonzero(~energised[buses])
        )
    if faults:
        raise NetworkError.of(source, faults)
    return Topology(
        node, nodes, energised, np.where(energised, distance_km, np.nan),
        np.where(energised, trafo[node], -1), bank,
    )  # fmt: skip


def _nodes(grid: Grid) -> tuple[Ints, int]:
    """Electrical node of each bus, numbered in the order of the buses."""
    root = list(range(len(grid.buses.name)))

    def find(bus: int) -> int:
        while root[bus] != bus:
            root[bus] = root[root[bus]]
            bus = root[bus]
        return bus

    for a, b in grid.joined.tolist():
        a, b = sorted((find(a), find(b)))
        root[b] = a
    number: dict[int, int] = {}
    node = [
        number.setdefault(find(bus), len(number)) if live else -1
        for bus, live in enumerate(grid.buses.in_service)
    ]
    return np.array(node, dtype=np.int64), len(number)


def _banks(grid: Grid, node: Ints) -> Ints:
    """The ``bank`` of :class:`Topology`; of a transformer that is open: itself."""
    trafos, first = grid.trafos, dict[tuple[int, int], int]()
    closed = trafos.hv_closed & trafos.lv_closed
    ends = zip(node[trafos.hv_bus].tolist(), node[trafos.lv_bus].tolist(), strict=True)
    return np.array(
        [first.setdefault(pair, at) if closed[at] else at for at, pair in enumerate(ends)], np.int64
    )


def _ways(grid: Grid, node: Ints, nodes: int) -> tuple[Floats, Ints]:
    """Shortest path from a source to each node, km, and the last transformer on it (Dijkstra).

    A line from end to end of a transformer, such as the jumper of an open-delta bank, is no path around it.
    """
    neighbours: list[list[tuple[int, float, int]]] = [[] for _ in range(nodes)]
    lines, trafos = grid.lines, grid.trafos

    def connect(a: Ints, b: Ints, closed: Bools, km: Floats, trafo: Sequence[int]) -> None:
        for at, to, length, number in zip(
            node[a][closed], node[b][closed], km[closed], np.asarray(trafo)[closed], strict=True
        ):
            neighbours[at].append((int(to), float(length), int(number)))
            neighbours[to].append((int(at), float(length), int(number)))

    transformed = trafos.hv_closed & trafos.lv_closed
    across = {
        frozenset(pair)
        for pair in zip(node[trafos.hv_bus][transformed], node[trafos.lv_bus][transformed], strict=True)
    }
    ends = zip(node[lines.from_bus], node[lines.to_bus], strict=True)
    closed = lines.from_closed & lines.to_closed
    closed = closed & np.array([frozenset(pair) not in across for pair in ends], bool)
    connect(lines.from_bus, lines.to_bus, closed, lines.length_km, [-1] * len(lines.name))
    connect(trafos.hv_bus, trafos.lv_bus, transformed, np.zeros(len(trafos.name)), range(len(trafos.name)))
    distance = np.full(nodes, np.inf)
    upstream = np.full(nodes, -1, np.int64)
    heap = [(0.0, int(n), -1) for n in np.unique(node[grid.sources.bus])]
    while heap:
        km, at, last = heapq.heappop(heap)
        if km >= distance[at]:
            continue
        distance[at], upstream[at] = km, last
        for to, length, number in neighbours[at]:
            if km + length < distance[to]:
                heapq.heappush(heap, (km + length, to, number if number >= 0 else last))
    return distance, upstream
