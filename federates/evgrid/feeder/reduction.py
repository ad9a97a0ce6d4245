"""Exact reduction of a feeder: fewer nodes to solve, the same numbers.

A bus without load, generator, shunt, source or transformer that only passes
current on through lines without shunt is an inner point of one longer line, and a dead end without
any of these has the voltage of the node where it branches off. Merging them changes no current and no
other voltage; their own voltages follow exactly from those at the two ends A and B of the merged
line:

    V = V_A - f1 (V_A - V_B) - (f0 - f1) / 3 * sum over phases of (V_A - V_B)

with f1 and f0 the shares of the merged line's positive- and zero-sequence impedance that lie
between A and the bus. (Both have the same current in series; the second term is the zero
sequence.) On the European LV feeder 907 buses become about 154.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.feeder.grid import Bools, Floats, Grid, Ints
from evgrid.feeder.topology import Topology

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Circuit:
    """The circuit that is solved: nodes, lines between them, and their mapping to the feeder's buses and
    lines.

    nominal_kv : (node,)
    line_* : (merged line,) ends as nodes, whether they are closed, impedance and shunt
    trafo : (active trafo,) position in the feeder; trafo_hv, trafo_lv its nodes
    of_bus : (bus,) node of a bus that is solved itself, else -1
    end_a, end_b, f1, f0 : (bus,) see above; end_a is -1 where no source feeds the bus
    of_line : (line,) merged line that the line is a part of, -1 for none
    """

    nominal_kv: Floats
    line_from: Ints
    line_to: Ints
    line_from_closed: Bools
    line_to_closed: Bools
    line_z1: Complex
    line_z0: Complex
    line_c1: Floats
    line_c0: Floats
    line_g1: Floats
    trafo: Ints
    trafo_hv: Ints
    trafo_lv: Ints
    of_bus: Ints
    end_a: Ints
    end_b: Ints
    f1: Complex
    f0: Complex
    of_line: Ints


class _Step(NamedTuple):
    """A line on a walk: its number and the node behind it."""

    line: int
    to: int


def circuit(grid: Grid, topo: Topology, merge: bool) -> Circuit:
    """The circuit of a feeder; with ``merge`` reduced, else node by node."""
    lines, trafos = grid.lines, grid.trafos
    fed = np.zeros(topo.nodes, bool)
    fed[topo.node[topo.energised]] = True
    a, b = topo.node[lines.from_bus], topo.node[lines.to_bus]
    through = lines.from_closed & lines.to_closed & fed[a]
    hanging = ((lines.from_closed & fed[a]) | (lines.to_closed & fed[b])) & ~through
    shunted = (lines.c1_f != 0) | (lines.c0_f != 0) | (lines.g1_s != 0)
    simple = through & ~shunted
    hv, lv = topo.node[trafos.hv_bus], topo.node[trafos.lv_bus]
    active = (trafos.hv_closed & fed[hv]) | (trafos.lv_closed & fed[lv])

    carries = np.zeros(topo.nodes, bool)
    for bus in (grid.sources.bus, grid.loads.bus, grid.fixed.gen_bus, grid.fixed.shunt_bus):
        carries[topo.node[bus]] = True
    for nodes in (hv[active], lv[active], a[(through | hanging) & ~simple], b[(through | hanging) & ~simple]):
        carries[nodes[nodes >= 0]] = True
    z1 = lines.r1_ohm + 1j * lines.x1_ohm
    z0 = lines.r0_ohm + 1j * lines.x0_ohm
    work = _Work(topo.nodes, carries if merge else np.ones(topo.nodes, bool))
    for line in np.flatnonzero(simple):
        work.add(int(line), int(a[line]), int(b[line]))
    work.prune()
    chains = work.chains()

    kept = np.flatnonzero(fed & work.keep)
    number = np.full(topo.nodes, -1, np.int64)
    number[kept] = np.arange(len(kept))
    end_a, end_b = number.copy(), number.copy()
    f1, f0 = np.zeros(topo.nodes, complex), np.zeros(topo.nodes, complex)
    of_line = np.full(len(lines.name), -1, np.int64)
    ends = list[tuple[int, int]]()
    merged_z1, merged_z0 = list[complex](), list[complex]()
    for start, chain in chains:
        members = [step.line for step in chain]
        sum1, sum0 = np.cumsum(z1[members]), np.cumsum(z0[members])
        stop = chain[-1].to
        for step, part1, part0 in zip(chain[:-1], sum1, sum0, strict=False):
            end_a[step.to], end_b[step.to] = number[start], number[stop]
            if stop != start:
                f1[step.to] = part1 / sum1[-1]
                f0[step.to] = part0 / sum0[-1] if sum0[-1] else 0.0
        if stop == start:  # a ring that carries nothing has no current
            continue
        of_line[members] = len(ends)
        ends.append((int(number[start]), int(number[stop])))
        merged_z1.append(complex(sum1[-1]))
        merged_z0.append(complex(sum0[-1]))
    for node, parent in reversed(work.pruned):
        end_a[node], end_b[node], f1[node], f0[node] = end_a[parent], end_b[parent], f1[parent], f0[parent]

    nominal = np.zeros(topo.nodes)
    inside = topo.node >= 0
    nominal[topo.node[inside]] = grid.buses.nominal_kv[inside]
    kv = list(nominal[kept])

    def open_end(nominal_kv: float) -> int:
        """A node for the end of a branch that is open."""
        kv.append(nominal_kv)
        return len(kv) - 1

    whole = [
        (int(number[a[k]]), int(number[b[k]]), True, True, int(k)) for k in np.flatnonzero(through & shunted)
    ]
    for k in np.flatnonzero(hanging & shunted):
        volts = float(grid.buses.nominal_kv[lines.from_bus[k]])
        if lines.from_closed[k] and fed[a[k]]:
            whole.append((int(number[a[k]]), open_end(volts), True, False, int(k)))
        else:
            whole.append((open_end(volts), int(number[b[k]]), False, True, int(k)))
    extra = [row[4] for row in whole]
    of_line[extra] = len(ends) + np.arange(len(extra))
    merged = len(ends)
    trafo = np.flatnonzero(active)
    trafo_hv = [
        int(number[hv[k]]) if trafos.hv_closed[k] else open_end(float(trafos.rated_hv_kv[k])) for k in trafo
    ]
    trafo_lv = [
        int(number[lv[k]]) if trafos.lv_closed[k] else open_end(float(trafos.rated_lv_kv[k])) for k in trafo
    ]

    def of_buses(values: NDArray[np.generic], outside: complex) -> NDArray[np.generic]:
        return np.where(inside, values[topo.node], outside)

    return Circuit(
        nominal_kv=np.array(kv),
        line_from=np.array([e[0] for e in ends] + [w[0] for w in whole], np.int64),
        line_to=np.array([e[1] for e in ends] + [w[1] for w in whole], np.int64),
        line_from_closed=np.array([True] * merged + [w[2] for w in whole], bool),
        line_to_closed=np.array([True] * merged + [w[3] for w in whole], bool),
        line_z1=np.array([*merged_z1, *z1[extra]], complex),
        line_z0=np.array([*merged_z0, *z0[extra]], complex),
        line_c1=np.concatenate([np.zeros(merged), lines.c1_f[extra]]),
        line_c0=np.concatenate([np.zeros(merged), lines.c0_f[extra]]),
        line_g1=np.concatenate([np.zeros(merged), lines.g1_s[extra]]),
        trafo=trafo,
        trafo_hv=np.array(trafo_hv, np.int64),
        trafo_lv=np.array(trafo_lv, np.int64),
        of_bus=of_buses(number, -1).astype(np.int64),
        end_a=of_buses(end_a, -1).astype(np.int64),
        end_b=of_buses(end_b, -1).astype(np.int64),
        f1=of_buses(f1, 0).astype(complex),
        f0=of_buses(f0, 0).astype(complex),
        of_line=of_line,
    )


class _Work:
    """The graph of closed lines without shunt, from which nodes are removed."""

    def __init__(self, nodes: int, carries: Bools) -> None:
        self.at: list[dict[int, int]] = [{} for _ in range(nodes)]  # line to the node at its other end
        self.keep = carries.copy()
        self.pruned = list[tuple[int, int]]()

    def add(self, line: int, a: int, b: int) -> None:
        """Add a line; one between the same node (its ends joined by a switch) has no current."""
        if a != b:
            self.at[a][line] = b
            self.at[b][line] = a

    def prune(self) -> None:
        """Remove dead ends without load, then select the nodes to be solved."""
        queue = deque(n for n, lines in enumerate(self.at) if len(lines) == 1 and not self.keep[n])
        gone = np.zeros(len(self.at), bool)
        while queue:
            node = queue.popleft()
            if len(self.at[node]) != 1:
                continue
            (line, parent), gone[node] = next(iter(self.at[node].items())), True
            self.at[node].clear()
            del self.at[parent][line]
            self.pruned.append((node, parent))
            if len(self.at[parent]) == 1 and not self.keep[parent]:
                queue.append(parent)
        degree = np.array([len(lines) for lines in self.at], dtype=np.int64)
        self.keep |= (degree != 2) & ~gone

    def chains(self) -> list[tuple[int, list[_Step]]]:
        """Each path along lines from one selected node to the next, once: its start and its steps."""
        done = set[int]()
        found = list[tuple[int, list[_Step]]]()
        for start in np.flatnonzero(self.keep).tolist():
            for line, to in self.at[start].items():
                if line in done:
                    continue
                chain = [_Step(line, to)]
                while not self.keep[chain[-1].to]:
                    last = chain[-1]
                    chain.append(next(_Step(k, n) for k, n in self.at[last.to].items() if k != last.line))
                done.update(step.line for step in chain)
                found.append((start, chain))
        return found
