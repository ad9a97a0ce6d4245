"""Which nodes of an OpenDSS circuit have supply, and elements of the engine taken out of service.

In: the lines, transformers or all sources that are out, by number (``evgrid.feeder.outages.Elements``). Out:
the nodes that no closed path leads to from a source, conductor by conductor: over lines, series reactors and
capacitors, and over the windings of a transformer's phase. In the engine the elements are open at all their
terminals; what has no supply stays in its matrix, without power, and its controls stand still.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evgrid.feeder.grid import FEEDER, Bools, Ints, Lines, Trafos
from evgrid.feeder.opendss.engine import Engine, enabled

LEAK_OHM = 1e7
"""Resistance to earth of conductors without supply, which would have no voltage of their own without it."""

CONTROLLED = {
    "regcontrol": ("transformer",), "capcontrol": ("capacitor", "element"), "swtcontrol": ("switchedobj",),
    "relay": ("switchedobj",), "recloser": ("switchedobj",), "fuse": ("switchedobj",),
}  # fmt: skip
"""Properties of each class of controls that name an element without which it stands still."""


@dataclass(frozen=True)
class Paths:
    """Closed paths of a circuit.

    ends : (path, 2) nodes on either side
    element : (path,) number of its line or transformer; -1: it can't be out
    winding : (path,) bool, whether it is over windings, so that no conductor connects the two
    sources : nodes of the sources
    nodes : number of nodes
    names : full name in the engine of each element by number; windings of one transformer have the same
    """

    ends: Ints
    element: Ints
    winding: Bools
    sources: Ints
    nodes: int
    names: Mapping[int, str]

    def whole(self, out: frozenset[int]) -> frozenset[int]:
        """The elements ``out`` with all rows of their transformers."""
        names = {self.names[one] for one in out if one != FEEDER}
        return frozenset(number for number, name in self.names.items() if name in names) | out & {FEEDER}

    def dead(self, out: frozenset[int]) -> Bools:
        """Whether elements out of service leave a node without the supply that it has else, (node,)."""
        if not out:
            return np.zeros(self.nodes, np.bool_)
        return self._fed(frozenset()) & ~self._fed(self.whole(out))

    def parts(self, out: frozenset[int], some: Bools) -> Ints:
        """A node of each part of ``some`` that conductors in service connect."""
        closed = ~np.isin(self.element, list(self.whole(out))) & ~self.winding
        _, first = np.unique(self._part(closed)[some], return_index=True)
        return np.flatnonzero(some)[first]

    def _fed(self, out: frozenset[int]) -> Bools:
        if FEEDER in out:
            return np.zeros(self.nodes, np.bool_)
        part = self._part(~np.isin(self.element, list(out)))
        return np.asarray(np.isin(part, part[self.sources]))

    def _part(self, closed: Bools) -> Ints:
        a, b = self.ends[closed].T
        graph = coo_array((np.ones(len(a), np.int8), (a, b)), (self.nodes, self.nodes))
        return np.asarray(connected_components(graph, directed=False)[1])


def paths_of(engine: Engine, lines: Lines, trafos: Trafos, sources: Ints, nodes: int) -> Paths:
    """The closed paths of a circuit whose matrix is built."""
    names = {1 + row: line_element(str(name)) for row, name in enumerate(lines.name)}
    for row, name in enumerate(trafos.name):
        names[1 + len(lines.name) + row] = trafo_element(str(name))
    number = dict[str, int]()
    for at, full in names.items():
        number.setdefault(full.lower(), at)
    rows = list[tuple[int, int, int, bool]]()
    for full in engine.in_service(("line", "transformer", "reactor", "capacitor")):
        kind, _, name = full.lower().partition(".")
        at, delta = (
            number.get(full.lower(), -1),
            _deltas(engine.circuit, name) if kind == "transformer" else None,
        )
        pairs = _connected(engine.circuit.ActiveCktElement, delta)
        rows += [(a, b, at, delta is not None) for a, b in pairs]
    table = np.array(rows, np.int64).reshape(-1, 4)
    return Paths(table[:, :2], table[:, 2], table[:, 3].astype(bool), sources, nodes, names)


def line_element(name: str) -> str:
    """Full name in the engine of a line of the grid's tables, or of a series reactor among them."""
    return name.replace("reactor ", "reactor.", 1) if " " in name else f"line.{name}"


def trafo_element(name: str) -> str:
    """Full name in the engine of a transformer of the grid's tables, by the name of any of its rows."""
    return f"transformer.{name.split(' winding ')[0]}"


def _deltas(circuit: Any, name: str) -> list[bool]:
    """Whether each winding of a transformer is in delta; it stays the active element."""
    trafos, found = circuit.Transformers, list[bool]()
    trafos.Name = name
    for winding in range(1, trafos.NumWindings + 1):
        trafos.Wdg = winding
        found.append(bool(trafos.IsDelta))
    return found


def _connected(active: Any, delta: list[bool] | None) -> Iterator[tuple[int, int]]:
    """Pairs of nodes that the active element connects; nodes beyond the third of a bus are neutrals.

    ``delta``: whether each winding of a transformer is; None: it is none.
    """
    terminals, width, phases = int(active.NumTerminals), int(active.NumConductors), int(active.NumPhases)
    nodes = np.array(active.NodeRef, np.int64).reshape(terminals, width) - 1
    phase = np.array(active.NodeOrder, np.int64).reshape(terminals, width)
    there = (nodes >= 0) & (phase <= 3) if delta is not None else nodes >= 0
    any_open = [bool(active.IsOpen(terminal + 1, 0)) for terminal in range(terminals)]
    for k in range(phases):
        found = list[int]()
        for terminal in range(terminals):
            if any_open[terminal] and active.IsOpen(terminal + 1, k + 1):
                continue
            # a winding lies between conductors k and the next in delta, else between k and the neutral
            ends = {k}
            if delta is not None and phases == 1:
                ends = {0, 1}
            elif delta is not None and delta[terminal]:
                ends = {k, (k + 1) % phases}
            found += [int(nodes[terminal, end]) for end in sorted(ends) if there[terminal, end]]
        for other in found[1:]:
            yield found[0], other


class Switches:
    """Takes elements of a compiled circuit out of service, and puts them back.

    out : those that are out now
    """

    def __init__(self, engine: Engine, paths: Paths, nodes: NDArray[np.str_]) -> None:
        """``nodes``: names of the nodes."""
        self._engine, self._circuit, self._paths, self._nodes = engine, engine.circuit, paths, nodes.tolist()
        self.out = frozenset[int]()
        self._opened = dict[str, list[int]]()
        self._leaks = dict[int, bool]()
        self._sources = [source.Name for source in enabled(self._circuit, self._circuit.Vsources)]
        self._source_pu = list[float]()
        self._controls = self._find_controls()
        self._held = list[str]()

    def _find_controls(self) -> dict[str, Ints]:
        """Nodes of the elements of each control, by its full name."""
        found, of = dict[str, list[str]](), dict[str, Ints]()
        active = self._circuit.ActiveCktElement
        for full in self._engine.in_service(tuple(CONTROLLED)):
            kind = full.partition(".")[0].lower()
            names = [str(active.Properties(one).Val) for one in CONTROLLED[kind]]
            found[full] = [name if "." in name else f"{CONTROLLED[kind][0]}.{name}" for name in names if name]
        for full, elements in found.items():
            nodes = list[int]()
            for element in elements:
                self._circuit.SetActiveElement(element)
                nodes += [int(one) - 1 for one in active.NodeRef]
            of[full] = np.array([one for one in nodes if one >= 0], np.int64)
        return of

    def take_out(self, out: frozenset[int]) -> None:
        """Take out what is in ``out``, and put back all else."""
        if out == self.out:
            return
        whole = self._paths.whole(out)
        wanted = {self._paths.names[one] for one in whole if one != FEEDER}
        for name in self._opened.keys() - wanted:
            self._switch(name, self._opened.pop(name), "Close")
        active = self._circuit.ActiveCktElement
        for name in sorted(wanted - self._opened.keys()):
            self._circuit.SetActiveElement(name)
            closed = [
                terminal for terminal in range(1, active.NumTerminals + 1) if not active.IsOpen(terminal, 0)
            ]
            self._opened[name] = closed
            self._switch(name, closed, "Open")
        self._set_sources(FEEDER in out)
        dead = self._paths.dead(out)
        self._leak(set() if FEEDER in out else set(self._paths.parts(out, dead).tolist()))
        self._hold([name for name, nodes in self._controls.items() if dead[nodes].any()])
        self.out = out

    def _switch(self, name: str, terminals: list[int], how: str) -> None:
        self._circuit.SetActiveElement(name)
        for terminal in terminals:
            getattr(self._circuit.ActiveCktElement, how)(terminal, 0)

    def _set_sources(self, off: bool) -> None:
        """Sources without voltage, or with their own."""
        if off == bool(self._source_pu):
            return
        sources, kept = self._circuit.Vsources, self._source_pu
        self._source_pu = []
        for at, name in enumerate(self._sources):
            sources.Name = name
            if off:
                self._source_pu.append(sources.pu)
            sources.pu = 0.0 if off else kept[at]

    def _leak(self, nodes: set[int]) -> None:
        """Earth these nodes, and no others, over :data:`LEAK_OHM`."""
        for node in sorted(nodes - self._leaks.keys()):
            self._engine.run(
                f'New Reactor.evgrid_leak_{node} phases=1 bus1="{self._nodes[node]}" R={LEAK_OHM} X=0'
            )
            self._leaks[node] = True
        for node, there in self._leaks.items():
            if there != (node in nodes):
                self._enable(f"Reactor.evgrid_leak_{node}", not there)
                self._leaks[node] = not there

    def _hold(self, controls: list[str]) -> None:
        """Hold these controls, and no others."""
        for name in sorted(set(self._held) - set(controls)):
            self._enable(name, True)
        for name in sorted(set(controls) - set(self._held)):
            if name.lower().startswith("regcontrol."):
                self._circuit.RegControls.Name = name.partition(".")[2]
                self._circuit.RegControls.Reset()
            self._enable(name, False)
        self._held = controls

    def _enable(self, name: str, there: bool) -> None:
        self._circuit.SetActiveElement(name)
        self._circuit.ActiveCktElement.Enabled = there
