"""Replacements of a feeder's equipment: their prices, the sections they apply to, and the feeder with them.

In: a price table and a network. Out: :class:`Measure`, each for one
element (a transformer, a section of cable, the phases below a transformer), and :func:`with_measures`, the
network with some of them.

A **section** is a stretch of lines along the tree of shortest paths from the sources: it goes on at a bus
along the branch that carries most connection points, as long as no more than one of the others leaves there
and half of the section's first connection points are still ahead. It is replaced as a whole. Lines that
close rings are sections of their own.

**Rebalancing** moves single-phase connection points to other phases, one at a time, each time the one that
lowers the sum over all lines of r (P_a² + P_b² + P_c²) most, with the powers P of the connection points
downstream; a quarter, half and all of the moves found are three measures.

Left out: new routes, new substations, voltage levels, and the losses that a replacement saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo

from evgrid.core.model import ALL_PHASES
from evgrid.errors import ScenarioError
from evgrid.feeder.topology import topology
from evgrid.readers.yaml_files import read_yaml
from evgrid.scenario.devices import TapChanger
from evgrid.scenario.fields import NotNegative, Positive, Settings, checked, faults

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

SHIPPED = "public_estimates"
"""Name of the shipped price table."""

Ints = NDArray[np.int64]
Band = tuple[Positive, Positive]

_CLOSE_KM = 1e-9
"""Length of what has none, so that a sparse matrix keeps it."""


class _Priced(Settings):
    """What all prices have."""

    lifetime_years: Positive = 40.0
    """Years after which it is replaced."""
    source: str = ""
    """Where price and lifetime are from."""


class Taps(Settings):
    """On-load tap changer of a regulated transformer, at its high-voltage side."""

    steps: Annotated[int, Field(ge=1, le=30)] = 4
    """Steps up, and down."""
    step_percent: Positive = 2.5
    """Voltage of a step, % of the rated."""
    target_pu: Positive = 1.0
    """Voltage to hold at the low-voltage side, pu."""
    deadband_pu: Positive = 0.03
    """Width of the band in which it does not operate, pu."""


class TransformerPrice(_Priced):
    """A transformer that replaces a smaller one, or with taps one of its size."""

    name: str
    """Name of the type."""
    kva: Positive
    """Rated power, kVA."""
    hv_kv: Band
    """Rated voltages of the high-voltage side that it is made for, kV: least, most."""
    lv_kv: Band
    """The same of the low-voltage side."""
    vk_percent: Positive
    """Short-circuit voltage, %."""
    vkr_percent: NotNegative
    """Its real part, %."""
    pfe_kw: NotNegative = 0.0
    """Iron losses, kW."""
    i0_percent: NotNegative = 0.0
    """No-load current, %."""
    taps: Taps | None = None
    """On-load tap changer; left out: none."""
    price: NotNegative
    """Price with installation."""


class CablePrice(_Priced):
    """A cable that replaces one, or is laid beside it."""

    name: str
    """Name of the type."""
    kv: Band
    """Nominal voltages of the buses that it is for, kV: least, most."""
    r_ohm_per_km: Positive
    """Resistance, ohm/km."""
    x_ohm_per_km: Positive
    """Reactance, ohm/km."""
    c_nf_per_km: NotNegative = 0.0
    """Capacitance, nF/km."""
    max_i_ka: Positive
    """Rated current, kA."""
    r0_per_r1: Positive = 4.0
    """Zero- per positive-sequence resistance (a neutral like the phases)."""
    x0_per_x1: Positive = 4.0
    """The same of the reactance."""
    replaces: bool = True
    """Whether it may replace a cable."""
    parallel: bool = True
    """Whether it may be laid beside one."""
    price_per_km: NotNegative
    """Price with earthwork, per km."""


class RebalancingPrice(_Priced):
    """Moving single-phase connection points to other phases."""

    price: NotNegative
    """Price of each connection point that is moved."""


class ControlPrice(_Priced):
    """Costs of managed charging."""

    per_ev: NotNegative = 0.0
    """Investment for each EV, every lifetime_years."""
    per_ev_year: NotNegative = 0.0
    """Yearly cost of each EV."""
    once: NotNegative = 0.0
    """Investment independent of the number of EVs, every lifetime_years."""
    per_year: NotNegative = 0.0
    """Yearly cost independent of it."""


class PriceTable(Settings):
    """Prices of replacements and of managed charging."""

    name: str
    """Name of the table."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    """Currency of all prices, such as EUR."""
    source: Annotated[str, Field(min_length=1)]
    """Where the prices are from."""
    transformers: tuple[TransformerPrice, ...] = ()
    """Types of transformers."""
    cables: tuple[CablePrice, ...] = ()
    """Types of cables."""
    rebalancing: RebalancingPrice | None = None
    """Moving connection points to other phases; left out: not a measure."""
    controls: dict[str, ControlPrice] = {}
    """Costs of managed charging by name."""


def price_table(value: Any, info: ValidationInfo) -> Any:
    """A price table as a study gives it: the name of the shipped one, the path of a file, or in full."""
    if not isinstance(value, str):
        return value
    folder = (info.context or {}).get("folder")
    try:
        if value == SHIPPED:
            file = resources.files("evgrid") / "data" / "reinforcement" / f"{SHIPPED}.yaml"
            with resources.as_file(file) as path:
                return checked(PriceTable, read_yaml(path), str(path))
        path = Path(folder or ".") / Path(value).expanduser()
        return checked(PriceTable, read_yaml(path), str(path), path.parent)
    except (OSError, ValueError) as error:
        raise faults([f"prices = {value}: must be {SHIPPED} or a file: {error}"]) from None
    except ScenarioError as error:
        raise faults([f"prices: {path} {sentence}" for sentence in error.faults]) from None


@dataclass(frozen=True)
class Measure:
    """A replacement at one element.

    element : what it is for; of each element a set has one measure at most
    name : of the type
    kind : transformer, cable, parallel cable or rebalancing
    investment : its price
    lifetime_years : after which it is replaced
    source : of the price
    lines, trafos : positions of the elements that are replaced
    phases : new phase by connection point that is moved
    """

    element: str
    name: str
    kind: str
    investment: float
    lifetime_years: float
    source: str = ""
    lines: tuple[int, ...] = ()
    trafos: tuple[int, ...] = ()
    phases: tuple[tuple[int, int], ...] = ()
    type: TransformerPrice | CablePrice | None = None

    @property
    def text(self) -> str:
        """The measure in words."""
        return self.name if self.kind == "rebalancing" else f"{self.name} for {self.element}"


@dataclass(frozen=True)
class Tree:
    """The shortest paths from the sources.

    parent_line : (node,) line that feeds each node, -1: none (a source, or a transformer feeds it)
    parent : (node,) node from which it is fed, -1 of a source
    order : nodes from the sources outwards
    downstream : (node, connection) bool, whether the node is on the path of the connection point
    """

    parent_line: Ints
    parent: Ints
    order: Ints
    downstream: NDArray[np.bool_]

    @cached_property
    def on_path(self) -> NDArray[np.bool_]:
        """Whether the path of a connection point goes along each node's feeding line, (node, connection)."""
        fed: NDArray[np.bool_] = self.downstream & (self.parent_line >= 0)[:, np.newaxis]
        return fed


def tree_of(network: Network) -> Tree:
    """The tree of shortest paths along lines and transformers from the sources."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    grid, topology = network.grid, network.topology
    node, nodes, lines, trafos = topology.node, topology.nodes, grid.lines, grid.trafos
    closed = np.flatnonzero(lines.from_closed & lines.to_closed)
    live = np.flatnonzero(trafos.hv_closed & trafos.lv_closed)
    ends_a = np.concatenate([node[lines.from_bus[closed]], node[trafos.hv_bus[live]]])
    ends_b = np.concatenate([node[lines.to_bus[closed]], node[trafos.lv_bus[live]]])
    km = np.concatenate([lines.length_km[closed], np.zeros(len(live))]) + _CLOSE_KM
    which: dict[tuple[int, int], tuple[float, int]] = {}
    for a, b, length, line in zip(
        ends_a.tolist(), ends_b.tolist(), km.tolist(), [*closed.tolist(), *[-1] * len(live)], strict=True
    ):
        key = (min(a, b), max(a, b))
        if key not in which or length < which[key][0]:
            which[key] = (length, line)
    rows, columns = (np.array([key[i] for key in which], np.int64) for i in (0, 1))
    weights = np.array([length for length, _ in which.values()])
    graph = coo_array((weights, (rows, columns)), (nodes, nodes)).tocsr()
    sources = np.unique(node[grid.sources.bus])
    distance, before, _ = dijkstra(
        graph, directed=False, indices=sources, return_predecessors=True, min_only=True
    )
    parent = np.where(before >= 0, before, -1).astype(np.int64)
    parent_line = np.array(
        [which[(min(a, b), max(a, b))][1] if a >= 0 else -1 for b, a in enumerate(parent.tolist())], np.int64
    )
    order = np.argsort(np.where(np.isfinite(distance), distance, np.inf), kind="stable")
    order = order[np.isfinite(distance[order])]
    connections = network.connections
    downstream = np.zeros((nodes, connections.on_feeder), np.bool_)
    at = node[connections.bus[: connections.on_feeder]]
    downstream[at, np.arange(len(at))] = True
    for child in order[::-1].tolist():
        if parent[child] >= 0:
            downstream[parent[child]] |= downstream[child]
    return Tree(parent_line, parent, order, downstream)


def sections(network: Network, tree: Tree) -> list[tuple[int, ...]]:
    """Positions of the lines of each section, from the sources outwards; see the module."""
    ahead = tree.downstream.sum(axis=1)
    children: dict[int, list[int]] = {}
    for child in tree.order.tolist():
        if tree.parent[child] >= 0:
            children.setdefault(int(tree.parent[child]), []).append(child)
    found, in_section = list[list[int]](), dict[int, tuple[int, int]]()  # by node: section, its first count
    for child in tree.order.tolist():
        line, above = int(tree.parent_line[child]), int(tree.parent[child])
        if line < 0 or not ahead[child]:
            continue
        main = max(children[above], key=lambda other: (ahead[other], -other))
        section, first = in_section.get(above, (-1, 0))
        goes_on = (
            section >= 0 and child == main and ahead[above] - ahead[child] <= 1 and 2 * ahead[child] >= first
        )
        if not goes_on:
            found.append([])
            section, first = len(found) - 1, int(ahead[child])
        found[section].append(line)
        in_section[child] = section, first
    used = {line for section in found for line in section}
    lines = network.grid.lines
    closed = np.flatnonzero(lines.from_closed & lines.to_closed)
    found += [[line] for line in closed.tolist() if line not in used]
    return [tuple(section) for section in found]


def section_name(network: Network, lines: Sequence[int]) -> str:
    """Name of a section."""
    names = network.grid.lines.name
    first, last = str(names[lines[0]]), str(names[lines[-1]])
    return first if len(lines) == 1 else f"{first} to {last}"


def cable_measures(network: Network, lines: tuple[int, ...], prices: PriceTable) -> list[Measure]:
    """Cables that may replace a section, none of whose ratings is higher, or be laid beside it."""
    grid = network.grid
    kv = float(grid.buses.nominal_kv[grid.lines.from_bus[lines[0]]])
    km, rated = float(grid.lines.length_km[list(lines)].sum()), grid.lines.rating_ka[list(lines)]
    r_per_km = float(grid.lines.r1_ohm[list(lines)].sum()) / max(km, _CLOSE_KM)
    found = []
    for cable in prices.cables:
        if not cable.kv[0] <= kv <= cable.kv[1]:
            continue
        better = cable.r_ohm_per_km < r_per_km or bool((rated < cable.max_i_ka).any())
        better = better and not (rated > cable.max_i_ka).any()
        for kind, allowed in (("cable", cable.replaces and better), ("parallel cable", cable.parallel)):
            if allowed:
                name = cable.name if kind == "cable" else f"{cable.name} beside"
                found.append(
                    Measure(section_name(network, lines), name, kind, cable.price_per_km * km,
                            cable.lifetime_years, source=cable.source, lines=lines, type=cable)
                )  # fmt: skip
    return found


def transformer_measures(network: Network, trafo: int, prices: PriceTable, regulated: bool) -> list[Measure]:
    """Transformers that may replace one: larger ones, and regulated ones at least as large."""
    table = network.grid.trafos
    hv, lv, kva = (float(values[trafo]) for values in (table.rated_hv_kv, table.rated_lv_kv, table.sn_kva))
    found = []
    for kind in prices.transformers:
        fits = kind.hv_kv[0] <= hv <= kind.hv_kv[1] and kind.lv_kv[0] <= lv <= kind.lv_kv[1]
        enough = kind.kva >= kva * (1 - 1e-6) if kind.taps else kind.kva > kva * (1 + 1e-6)
        if fits and enough and (regulated or kind.taps is None):
            name = str(table.name[trafo])
            found.append(
                Measure(
                    name,
                    kind.name,
                    "transformer",
                    kind.price,
                    kind.lifetime_years,
                    source=kind.source,
                    trafos=(trafo,),
                    type=kind,
                )
            )
    return found


def rebalancing_measures(
    network: Network, tree: Tree, power_kw: NDArray[np.float64], prices: PriceTable
) -> list[Measure]:
    """Moves of single-phase connection points, a quarter, half and all of those found.

    power_kw : (connection,) power by which they are judged
    """
    price = prices.rebalancing
    if price is None or not network.three_phase:
        return []
    moves = _moves(network, tree, power_kw)
    counts = sorted({-(-len(moves) * part // 4) for part in (1, 2, 4)} - {0})
    return [
        Measure("phases", f"{count} connection points to other phases", "rebalancing", count * price.price,
                price.lifetime_years, source=price.source,
                phases=tuple(moves[:count]))
        for count in counts
    ]  # fmt: skip


def _moves(network: Network, tree: Tree, power_kw: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Connection point and new phase of each move, in order; no connection point moves twice."""
    on_path = tree.on_path[tree.on_path.any(axis=1)].astype(np.float64)  # (line, connection)
    r = network.grid.lines.r1_ohm[tree.parent_line[tree.on_path.any(axis=1)]]
    phase = network.connections.phase[: on_path.shape[1]].astype(np.int64)
    single = (phase != ALL_PHASES) & (power_kw > 0) & ~network.grid.loads.delta[: len(phase)]
    flow = np.stack([on_path @ np.where(phase == x, power_kw, 0.0) for x in range(3)])  # (phase, line)
    moves, moved = list[tuple[int, int]](), np.zeros(len(phase), np.bool_)
    while True:
        weighted = (r * flow) @ on_path  # (phase, connection): sum of r P over the path
        own = (on_path * r[:, np.newaxis]).sum(axis=0)  # sum of r over the path
        p = power_kw
        at = weighted[np.where(phase >= 0, phase, 0), np.arange(len(phase))]
        # change of sum r P² as p leaves phase x and goes to y: 2 p (sum r P_y - sum r P_x + p sum r)
        change = 2 * p * (weighted - at + p * own)
        change[:, ~single | moved] = 0.0
        change[np.where(phase >= 0, phase, 0), np.arange(len(phase))] = 0.0
        to, who = np.unravel_index(int(np.argmin(change)), change.shape)
        if change[to, who] >= -1e-9 * max(float((r * flow**2).sum()), 1e-12):
            return moves
        flow[phase[who]] -= on_path[:, who] * p[who]
        flow[to] += on_path[:, who] * p[who]
        phase[who], moved[who] = to, True
        moves.append((int(who), int(to)))


def with_measures(network: Network, measures: Iterable[Measure]) -> tuple[Network, tuple[TapChanger, ...]]:
    """The network with some measures, and the tap changers of regulated transformers."""
    grid, taps = network.grid, list[TapChanger]()
    lines = {name: np.array(values) for name, values in vars(grid.lines).items()}
    trafos = {name: np.array(values) for name, values in vars(grid.trafos).items()}
    loads = {name: np.array(values) for name, values in vars(grid.loads).items()}
    for measure in measures:
        if isinstance(measure.type, CablePrice):
            at = np.array(measure.lines)
            _lay(lines, at, measure.type, measure.kind == "parallel cable", grid.three_phase)
        elif isinstance(measure.type, TransformerPrice):
            for trafo in measure.trafos:
                _replace_transformer(trafos, trafo, measure.type)
                if measure.type.taps is not None:
                    taps.append(
                        TapChanger(trafo=str(grid.trafos.name[trafo]), target_pu=measure.type.taps.target_pu,
                                   deadband_pu=measure.type.taps.deadband_pu)
                    )  # fmt: skip
        for connection, phase in measure.phases:
            for name in ("p_kw", "q_kvar"):
                row = loads[name][connection]
                row[[loads["phase"][connection], phase]] = row[[phase, loads["phase"][connection]]]
            loads["phase"][connection] = phase
    changed = replace(
        grid,
        lines=replace(grid.lines, **lines),
        trafos=replace(grid.trafos, **trafos),
        loads=replace(grid.loads, **loads),
    )
    new = replace(network, grid=changed, topology=topology(changed, network.source))
    return new, tuple(taps)


def moved_power(power: NDArray[Any], measures: Iterable[Measure], network: Network) -> NDArray[Any]:
    """Recorded power, (..., connection, phase), on the phases to which connection points are moved."""
    moves = [move for measure in measures for move in measure.phases]
    if not moves:
        return power
    moved = power.copy()
    for connection, phase in moves:
        old = int(network.connections.phase[connection])
        moved[..., connection, phase], moved[..., connection, old] = (
            power[..., connection, old], power[..., connection, phase],
        )  # fmt: skip
    return moved


def _lay(lines: dict[str, Any], at: Ints, cable: CablePrice, parallel: bool, three_phase: bool) -> None:
    """Replace lines by a cable, or lay it beside them: impedances and ratings of both in parallel."""
    km = lines["length_km"][at]
    zero = (cable.r0_per_r1, cable.x0_per_x1) if three_phase else (1.0, 1.0)
    new = {
        "1": (cable.r_ohm_per_km + 1j * cable.x_ohm_per_km) * km,
        "0": (cable.r_ohm_per_km * zero[0] + 1j * cable.x_ohm_per_km * zero[1]) * km,
    }
    farad = cable.c_nf_per_km * 1e-9 * km
    rating = np.full(len(at), cable.max_i_ka)
    for sequence, z_new in new.items():
        old = lines[f"r{sequence}_ohm"][at] + 1j * lines[f"x{sequence}_ohm"][at]
        if parallel:
            if sequence == "1":
                share = np.abs(old) / np.abs(old + z_new)  # of the current, in the new cable
                with np.errstate(divide="ignore"):
                    rating = np.fmin(cable.max_i_ka / share, lines["rating_ka"][at] / (1 - share))
            z_new = old * z_new / (old + z_new)
        lines[f"r{sequence}_ohm"][at], lines[f"x{sequence}_ohm"][at] = z_new.real, z_new.imag
        lines[f"c{sequence}_f"][at] = farad + (lines[f"c{sequence}_f"][at] if parallel else 0.0)
    if not parallel:
        lines["g1_s"][at] = 0.0
    lines["rating_ka"][at] = rating


def _replace_transformer(trafos: dict[str, Any], at: int, kind: TransformerPrice) -> None:
    """Replace a transformer, at the tap position of the old one; zero sequence as positive."""
    for name in ("sn_kva", "rating_kva"):
        trafos[name][at] = kind.kva
    for name in ("vk_percent", "vkr_percent"):
        trafos[name][at] = getattr(kind, name)
        trafos[name.replace("_", "0_")][at] = getattr(kind, name)
    trafos["pfe_kw"][at], trafos["i0_percent"][at] = kind.pfe_kw, kind.i0_percent
    if kind.taps is not None:
        trafos["ratio_hv_kv"][at] = trafos["rated_hv_kv"][at]
        trafos["tap_side"][at], trafos["tap_neutral"][at], trafos["tap_pos"][at] = 0, 0, 0
        trafos["tap_min"][at], trafos["tap_max"][at] = -kind.taps.steps, kind.taps.steps
        trafos["tap_step_percent"][at] = kind.taps.step_percent
