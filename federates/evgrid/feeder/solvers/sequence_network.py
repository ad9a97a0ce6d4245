"""A feeder as the linear networks of its symmetrical components: branches, shunts, admittance matrix.

Lines, transformers and shunts are alike in all phases, so that each of the three sequences has a network of
its own; only loads couple them, at their ports. A balanced feeder is its positive sequence alone.

Per unit of 1 kVA (a phase; in a balanced feeder of all three) and of each node's nominal voltage (phase to
neutral; in a balanced feeder the line voltage). Sequences stand in the order zero, positive, negative.
Voltages and currents are scaled so that the transformation is unitary, which keeps powers:
(V0, V1, V2) = F^H (Va, Vb, Vc) / sqrt(3) with F = [[1, 1, 1], [1, a², a], [1, a, a²]].

Zero sequence of a transformer, from the T of its leakage impedances z1 (high voltage), z2 (low voltage) and
its magnetising impedance zm; z = z1 + z2:

============= ======================================================================================
YNyn          the T itself, of turned sign where the phase shift is 60, 180 or 300 degrees
Dyn           z2 + z1 || zm at the low voltage
YNd           z1 + z2 || zm at the high voltage
Yyn, YNy      z2 + zm at the low voltage, z1 + zm at the high voltage
Yzn           as pandapower has it, see :func:`yzn_admittance`
Yy, Yd, Dy,   none
Dd
============= ======================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csc_array
from scipy.sparse.csgraph import connected_components

from evgrid.feeder.grid import Bools, Floats, Grid, Ints, Trafos
from evgrid.feeder.reduction import Circuit, Complex

NEGLIGIBLE_MAGNETISING_PERCENT = 1e6
"""Zero-sequence magnetising impedance, percent of the short-circuit impedance, from which on it is
neglected.
"""

ODD = frozenset({"dyn", "yzn", "ynd", "yd", "dy"})
"""Vector groups whose phase shift is an odd multiple of 30 degrees."""

EVEN = frozenset({"ynyn", "yyn", "yny", "yy", "dd"})
"""Vector groups whose phase shift is an even multiple of 30 degrees."""

TURN = np.exp(2j * np.pi / 3)

TO_PHASES = np.array([[1, 1, 1], [1, TURN**2, TURN], [1, TURN, TURN**2]]) / np.sqrt(3)
"""Unitary: phases (a, b, c) of the sequences (zero, positive, negative)."""


@dataclass(frozen=True)
class Branches:
    """Two-ports of all sequences: the current into each end by the voltages of both, (sequence, branch).

    earth : (2, branch) bool, whether the branch leads from its start, its stop to earth in the zero sequence
    """

    start: Ints
    stop: Ints
    y_ss: Complex
    y_st: Complex
    y_ts: Complex
    y_tt: Complex
    earth: Bools


def base_kv(circuit: Circuit, phases: int) -> Floats:
    """Base voltage of each node, kV."""
    return np.asarray(circuit.nominal_kv / (np.sqrt(3) if phases == 3 else 1.0))


def line_branches(grid: Grid, circuit: Circuit, phases: int) -> tuple[Branches, Complex, Complex]:
    """The lines; and their series admittance and half shunt, (sequence, line)."""
    scale = base_kv(circuit, phases)[circuit.line_from] ** 2 * 1e3
    omega = 2 * np.pi * grid.frequency_hz
    zero, one = _inverse(circuit.line_z0), _inverse(circuit.line_z1)
    half, half_0 = (circuit.line_g1 + 1j * omega * circuit.line_c1) / 2, 1j * omega * circuit.line_c0 / 2
    series = np.asarray(np.stack([one] if phases == 1 else [zero, one, one]) * scale, complex)
    shunt = np.asarray(np.stack([half] if phases == 1 else [half_0, half, half]) * scale, complex)
    own, earth = series + shunt, np.stack([shunt[0] != 0] * 2)
    return Branches(circuit.line_from, circuit.line_to, own, -series, -series, own, earth), series, shunt


def trafo_branches(grid: Grid, circuit: Circuit, phases: int, tap: Ints | None = None) -> Branches:
    """The transformers; ``tap``: (trafo,) positions of all tap changers, left out: the network's."""
    t, k = grid.trafos, circuit.trafo
    hv_kv, lv_kv = t.ratio_hv_kv, t.ratio_lv_kv
    if tap is not None:
        factor = 1 + (tap - t.tap_neutral) * t.tap_step_percent / 100
        hv_kv = np.where(t.tap_side == 0, t.rated_hv_kv * factor, hv_kv)
        lv_kv = np.where(t.tap_side == 1, t.rated_lv_kv * factor, lv_kv)
    base = base_kv(circuit, phases) * (np.sqrt(3) if phases == 3 else 1.0)  # line voltage
    low = (base[circuit.trafo_lv] / lv_kv[k]) ** 2 * t.sn_kva[k] / phases
    ratio = hv_kv[k] / lv_kv[k] * base[circuit.trafo_lv] / base[circuit.trafo_hv]

    series = short_circuit(t.vk_percent[k], t.vkr_percent[k])
    iron = t.pfe_kw[k] / t.sn_kva[k]
    shunt = iron - 1j * np.sqrt(np.maximum((t.i0_percent[k] / 100) ** 2 - iron**2, 0))
    bend = 1 + series * shunt / 4  # from pandapower's T circuit to the pi circuit of the same behaviour
    y, half = low / (series * bend), low * shunt / bend / 2
    turn = np.asarray(ratio * np.exp(1j * np.deg2rad(t.shift_degree[k])), complex)

    def both(y: Complex, at_hv: Complex, at_lv: Complex, turn: Complex) -> list[Complex]:
        return [(y + at_hv) / np.abs(turn) ** 2, -y / np.conj(turn), -y / turn, y + at_lv]

    sequences, earth = [both(y, half, half, turn)], np.ones((2, len(k)), bool)
    if phases == 3:
        turned = np.where(np.round(t.shift_degree[k] / 60) % 2 == 1, -ratio, ratio).astype(complex)
        through, at_hv, at_lv = _zero_sequence(t, k)
        zero = both(low * through, low * at_hv, low * at_lv, turned)
        sequences = [zero, sequences[0], both(y, half, half, np.conj(turn))]
        earth = np.stack([at_hv != 0, at_lv != 0])
    y_ss, y_st, y_ts, y_tt = (np.stack(part) for part in zip(*sequences, strict=True))
    return Branches(circuit.trafo_hv, circuit.trafo_lv, y_ss, y_st, y_ts, y_tt, earth)


def tapped_by_phase(branches: Branches, some: Ints, factor: Floats, at_lv: Bools) -> Complex:
    """Two-ports of transformers whose tap changer has a position of its own in each phase.

    A tap is an ideal transformer of its factor between a phase of the bus and that phase of the transformer,
    whose side there is an earthed star.

    branches : with ``some`` of them in the neutral position
    factor : (phase, some) rated voltage per that in the neutral position; at_lv : (some,) side of the taps
    returns : (end, own or other end, phase, phase, some) current into an end by the voltages of one
    """
    own, other = (branches.y_ss, branches.y_tt), (branches.y_st, branches.y_ts)
    ends = np.stack([np.stack(pair) for pair in zip(own, other, strict=True)])[..., some]
    y = np.einsum("ps,ersk,qs->erpqk", TO_PHASES, ends, np.conj(TO_PHASES))
    for end in range(2):
        scale = np.where(at_lv == (end == 1), 1 / factor, 1.0)
        y[end] *= scale[:, np.newaxis]  # currents into this end
        y[end, 0] *= scale  # voltages of this end, at it and at the other
        y[1 - end, 1] *= scale
    return np.asarray(y)


def entries_by_phase(nodes: int, ends: tuple[Ints, Ints], y: Complex) -> csc_array:
    """Admittance matrix of two-ports of phases (:func:`tapped_by_phase`), rows as in :func:`admittance`."""
    inside = np.einsum("ps,erpqk,qt->erstk", np.conj(TO_PHASES), y, TO_PHASES)
    rows, columns = np.empty(inside.shape, np.int64), np.empty(inside.shape, np.int64)
    sequence = nodes * np.arange(3)
    for end in range(2):
        for far in range(2):
            rows[end, far] = sequence[:, np.newaxis, np.newaxis] + ends[end]
            columns[end, far] = sequence[:, np.newaxis] + ends[end ^ far]
    entries = inside.reshape(-1), (rows.reshape(-1), columns.reshape(-1))
    return csc_array(coo_array(entries, (3 * nodes, 3 * nodes)))


def _inverse(impedance: Complex) -> Complex:
    """Admittance; 0 where there is no impedance."""
    return np.divide(1, impedance, out=np.zeros(impedance.shape, complex), where=impedance != 0)


def _zero_sequence(t: Trafos, k: Ints) -> tuple[Complex, Complex, Complex]:
    """Series admittance and those to earth at high and low voltage, per unit of the low-voltage side."""
    z = short_circuit(t.vk0_percent[k], t.vkr0_percent[k])
    rx, share = t.mag0_rx[k], t.si0_hv_partial[k]
    size = t.mag0_percent[k] / 100 * t.vk0_percent[k] / 100
    magnetising = np.asarray(size * (rx + 1j) / np.sqrt(rx**2 + 1), complex)
    infinite = t.mag0_percent[k] >= NEGLIGIBLE_MAGNETISING_PERCENT
    z1, z2 = share * z, (1 - share) * z
    none = np.zeros(len(k), complex)
    group = np.char.lower(t.vector_group[k].astype(np.str_)) if len(k) else np.zeros(0, np.str_)

    def parallel(one: Complex, other: Complex) -> Complex:
        return np.where(infinite, one, one * other * _inverse(one + other))

    total = z1 * z2 + z2 * magnetising + z1 * magnetising
    finite = ~infinite & (magnetising != 0)
    through = np.where(infinite, _inverse(z), magnetising * _inverse(total))
    at_hv = np.where(finite, z2 * _inverse(total), 0)
    at_lv = np.where(finite, z1 * _inverse(total), 0)
    by_group = {
        "ynyn": (through, at_hv, at_lv),
        "dyn": (none, none, _inverse(z2 + parallel(z1, magnetising))),
        "ynd": (none, _inverse(z1 + parallel(z2, magnetising)), none),
        "yyn": (none, none, np.where(infinite, 0, _inverse(z2 + magnetising))),
        "yny": (none, np.where(infinite, 0, _inverse(z1 + magnetising)), none),
        "yzn": (none, none, np.where(magnetising != 0, yzn_admittance(z, share, magnetising), 0)),
    }
    found = np.zeros((3, len(k)), complex)
    for name, parts in by_group.items():
        found = np.where(group == name, np.stack(parts), found)
    return found[0], found[1], found[2]


def yzn_admittance(z0: Complex, hv_share: Floats, magnetising: Complex) -> Complex:
    """Zero-sequence admittance of a Yzn transformer from the low-voltage side, as in pandapower's
    ``runpp_3ph`` (2/sqrt(3) times that of a Yyn one, from the pi of its T circuit).
    """
    z1, z2, z3 = hv_share * z0, (1 - hv_share) * z0, magnetising
    total = z1 * z2 + z2 * z3 + z1 * z3
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1.1547 * (1 / (total / z3 + total / z2) + z1 / total))


def short_circuit(vk_percent: Floats, vkr_percent: Floats) -> Complex:
    """Short-circuit impedance per unit of the transformer's own rating."""
    real = vkr_percent / 100
    return np.asarray(
        real + 1j * np.sign(vk_percent) * np.sqrt(np.maximum((vk_percent / 100) ** 2 - real**2, 0))
    )


def shunts(grid: Grid, circuit: Circuit, phases: int, step: Ints | None = None) -> tuple[Ints, Complex]:
    """Node and admittance of each shunt, the same in all sequences; ``step``: left out, the network's."""
    fixed = grid.fixed
    node = circuit.of_bus[fixed.shunt_bus]
    steps = fixed.shunt_step if step is None else step
    admittance = (fixed.shunt_g_s + 1j * fixed.shunt_b_s) * steps
    return node, np.asarray(admittance * base_kv(circuit, phases)[node] ** 2 * 1e3)


def admittance(nodes: int, phases: int, branches: list[Branches], shunt: tuple[Ints, Complex]) -> csc_array:
    """Admittance matrix of all nodes and sequences; the row of a node is sequence * nodes + node."""
    rows, columns, values = list[Any](), list[Any](), list[Any]()

    def add(row: Ints, column: Ints, value: Complex) -> None:
        rows.append(row)
        columns.append(column)
        values.append(value)

    for sequence in range(phases):
        offset = sequence * nodes
        for b in branches:
            start, stop = b.start + offset, b.stop + offset
            add(start, start, b.y_ss[sequence])
            add(start, stop, b.y_st[sequence])
            add(stop, start, b.y_ts[sequence])
            add(stop, stop, b.y_tt[sequence])
        add(shunt[0] + offset, shunt[0] + offset, shunt[1])
    size = phases * nodes
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return csc_array(coo_array(entries, (size, size)))


def unearthed(
    nodes: int, branches: list[Branches], shunt: tuple[Ints, Complex], sources: Ints
) -> tuple[Bools, Ints]:
    """Nodes without any path to earth in the zero sequence, (node,) bool, and one node of each connected set
    of them.
    """
    start, stop = (np.concatenate([getattr(b, end) for b in branches]) for end in ("start", "stop"))
    through = np.concatenate([b.y_st[0] for b in branches]) != 0
    ends = start[through], stop[through]
    graph = coo_array((np.ones(len(ends[0]), np.int8), ends), (nodes, nodes))
    _, part = connected_components(graph, directed=False)
    earthed = np.zeros(nodes, bool)
    earthed[sources] = True
    earthed[shunt[0][shunt[1] != 0]] = True
    for b in branches:
        earthed[b.start[b.earth[0]]] = earthed[b.stop[b.earth[1]]] = True
    parts = np.zeros(part.max(initial=-1) + 1, bool)
    parts[part[earthed]] = True
    floating = ~parts[part]
    _, first = np.unique(part[floating], return_index=True)
    return floating, np.flatnonzero(floating)[first]
