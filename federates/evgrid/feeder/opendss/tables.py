"""An OpenDSS circuit as a feeder: the tables of :mod:`evgrid.feeder.grid`, and the nodes behind them.

In: a compiled circuit. Out: a :class:`Circuit`, with everything that the file holds, or a refusal that names
each element that has no model here.

A *node* is a conductor of a bus with a voltage of its own, in the order of the engine's admittance matrix.
Slots of a bus are its nodes 1, 2 and 3: the phases a, b and c, or the legs s1 and s2 of a split-phase
service. Slots of a connection point are its *ports*, between a node and its neutral or between two nodes; a
load has one to three, and so have the chargers beside it, which are connected as their voltage asks
(:func:`charger_ports`).

Lengths without a unit count as 0 km. Transformers are rated by the kVA of their first winding, lines by
``normamps``. Of a transformer with several secondary windings at different buses each is a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from evgrid.core.model import ALL_PHASES
from evgrid.errors import NetworkError, shortened
from evgrid.feeder.grid import Buses, Fixed, Floats, Grid, Ints, Lines, Loads, Names, Sources, Trafos
from evgrid.feeder.opendss.engine import Engine, bus_name, enabled
from evgrid.feeder.opendss.load_shapes import Shapes, shapes_of
from evgrid.feeder.opendss.supply import Paths, paths_of

GROUND = -1
"""Node of a port's side that is earthed, or of a slot without a node."""

MODELLED = frozenset(
    {"vsource", "line", "transformer", "load", "generator", "pvsystem", "capacitor", "reactor", "fault"}
)
"""Classes of elements that carry power and have a model here."""

CONTROLS = ("regcontrol", "capcontrol", "swtcontrol", "relay", "recloser", "fuse")
"""Classes of controls that act in time."""

WITHOUT_POWER = frozenset({*CONTROLS, "energymeter", "monitor", "sensor"})
"""Classes of controls and meters, which carry no power."""

LEGS = ("s1", "s2", "s3")
"""Names of the nodes 1, 2 and 3 of a bus of a split-phase service."""

DEFAULT_KA = 0.4
"""Rating that OpenDSS gives a line whose file gives none."""

UNIT_KM = (0.0, 1.609344, 0.3048, 1.0, 1e-3, 0.3048e-3, 2.54e-5, 1e-5, 1e-6)
"""Length of OpenDSS' units of length in km, by number: none, mi, kft, km, m, ft, in, cm, mm."""

LOAD_MODELS = {1: "constant power", 2: "constant impedance", 4: "CVR", 5: "constant current", 8: "ZIP"}
"""Load models that are represented, by OpenDSS' number."""


@dataclass(frozen=True)
class Ports:
    """Where power enters: (connection, slot) each.

    start, end : node on either side, GROUND where earthed; both GROUND where the slot has no port
    volts : nominal voltage of the port, V
    """

    start: Ints
    end: Ints
    volts: Floats

    @cached_property
    def there(self) -> Any:
        """Whether a slot has a port, (connection, slot) bool."""
        return self.start != GROUND

    @cached_property
    def ends(self) -> tuple[Ints, Ints]:
        """Node on either side of the ports that are there, (port,) each."""
        return self.start[self.there], self.end[self.there]

    @cached_property
    def share(self) -> Any:
        """Share of a connection's power at each of its ports, (connection, slot)."""
        return self.there / np.maximum(self.there.sum(axis=1, keepdims=True), 1)

    def spread(self, power: Any) -> Any:
        """Power, (..., connection, slot), evenly over each connection's ports, whatever slots it came in."""
        return power.sum(axis=-1, keepdims=True) * self.share


@dataclass(frozen=True)
class Circuit:
    """An OpenDSS circuit as tables.

    grid : the feeder
    node : (node,) name of each node, such as ``671.1``
    node_volts : (node,) nominal voltage to ground, V
    bus_node : (bus, 3) node of each slot
    split_phase : (bus,) whether its nodes are the legs of a centre tap
    line_slot : (line, 3) whether the line has a conductor at each slot of its first bus
    loads, generators : ports of the network's own
    chargers : ports of EVs
    regulated : (trafo,) bool, whether a control moves its tap
    controls : whether the file has controls that act in time
    shapes : load shapes of the loads
    paths : closed paths along which it has supply
    notes : assumptions, a sentence each
    """

    grid: Grid
    node: Names
    node_volts: Floats
    bus_node: Ints
    split_phase: Any
    line_slot: Any
    loads: Ports
    generators: Ports
    chargers: Ports
    regulated: Any
    controls: bool
    shapes: Shapes
    paths: Paths
    notes: tuple[str, ...]

    def dead(self, ports: Ports, out: frozenset[int]) -> Any:
        """Whether a port is without supply with elements ``out`` of service, (row, slot) bool."""
        dead = np.append(self.paths.dead(out), False)  # the last one: earth
        return ports.there & (dead[ports.start] | dead[ports.end])

    def port_nodes(self, ports: Ports) -> Names:
        """Nodes of the ports of loads or chargers, (connection, slot): ``b``, ``a-b``, ``s1-s2``; empty where
        there is no port.
        """
        buses = self.grid.loads.bus
        name = np.full(len(self.node) + 1, "", np.dtype("U2"))  # the last one: GROUND
        name[self.bus_node[buses]] = _labels(self.split_phase[buses])
        name[GROUND] = ""
        start, end = name[ports.start], name[ports.end]
        return np.where(end != "", np.char.add(np.char.add(start, "-"), end), start)

    def charger_nodes(self) -> Names:
        """Nodes of chargers, (connection,): on one phase ``b``, ``a-b``, ``s1-s2``; on any phase ``abc``, or
        ``a-b b-c c-a`` between phases.
        """
        names, phase = self.port_nodes(self.chargers), self.grid.loads.phase
        found = []
        for row, slot in zip(names.tolist(), phase.tolist(), strict=True):
            if slot != ALL_PHASES:
                found.append(row[slot])
            else:
                found.append("" if "" in row else (" " if "-" in row[0] else "").join(row))
        return np.array(found, np.str_)

    def nodes_of_bus(self) -> Names:
        """Names of the nodes of each bus, (bus,): ``a b c``, or ``s1 s2`` for the legs of a centre tap."""
        return _node_names(self.split_phase, self.bus_node != GROUND)

    def nodes_of_line(self) -> Names:
        """Names of the nodes between which each line has conductors, (line,), as of a bus."""
        return _node_names(self.split_phase[self.grid.lines.from_bus], self.line_slot)


def _labels(split: Any) -> Any:
    """Names of the nodes 1, 2 and 3 of buses, (bus, 3)."""
    return np.where(split[:, np.newaxis], LEGS, ("a", "b", "c"))


def _node_names(split: Any, there: Any) -> Names:
    """Names of those nodes that are there, (bus, 3) bool, in one text each."""
    return np.array([" ".join(row[some]) for row, some in zip(_labels(split), there, strict=True)], np.str_)


def circuit_of(engine: Engine, charger_v: float | None = None) -> Circuit:
    """The tables of a compiled circuit.

    charger_v : nominal voltage of chargers on one phase, V, which decides how they are connected; None: the
        highest that a connection point has

    Raises
    ------
    NetworkError
        Naming every element without a model here.

    """
    faults = list(_refusals(engine))
    if faults:
        raise NetworkError.of(engine.source, faults)
    engine.build()
    circuit = engine.circuit
    names = [name.lower() for name in circuit.AllBusNames]
    bus = {name: place for place, name in enumerate(names)}
    node_names = [name.lower() for name in circuit.YNodeOrder]
    node = {name: place for place, name in enumerate(node_names)}
    bus_node = np.full((len(names), 3), GROUND, np.int64)
    for name, place in node.items():
        at, _, number = name.rpartition(".")
        if number in ("1", "2", "3"):
            bus_node[bus[at], int(number) - 1] = place
    kv, x, y = _bus_facts(circuit, len(names))
    split = _split_phase(circuit, bus, len(names))
    trafos = _trafos(circuit, bus)
    lines, line_slot, unknown_lengths = _lines(circuit, bus)
    loads, load_ports = _loads(circuit, bus, node)
    fixed, generators = _fixed(circuit, bus, node)
    grid = Grid(
        three_phase=True,
        frequency_hz=float(circuit.Solution.Frequency),
        buses=Buses(np.array(names, np.str_), kv * np.sqrt(3), x, y, np.ones(len(names), bool)),
        lines=lines,
        trafos=trafos,
        sources=_sources(circuit, bus),
        loads=loads,
        fixed=fixed,
        joined=np.zeros((0, 2), np.int64),
        asymmetric=int(np.any(np.ptp(loads.p_kw, axis=1) != 0)),
    )
    volts = np.zeros(len(node_names))
    for slot in range(3):
        there = bus_node[:, slot] != GROUND
        volts[bus_node[there, slot]] = 1e3 * kv[there]
    notes = []
    if unknown_lengths:
        notes.append(
            f"{unknown_lengths} lines have a length without a unit, which counts as 0 km of distance."
        )
    default = int((lines.rating_ka == DEFAULT_KA).sum())
    if default:
        notes.append(
            f"{default} of {len(lines.name)} lines are rated at 400 A, which OpenDSS takes where a file "
            "gives no rating."
        )
    if engine.left_out:
        left = ", ".join(f"{verb} ({count})" for verb, count in sorted(engine.left_out.items()))
        notes.append(f"Commands of the file that solve or report are left out: {left}.")
    at_sources = bus_node[grid.sources.bus]
    paths = paths_of(engine, lines, trafos, at_sources[at_sources != GROUND], len(node_names))
    chargers, phase = charger_ports(loads, bus_node, split, kv, load_ports, charger_v)
    return Circuit(
        replace(grid, loads=replace(loads, phase=phase)), np.array(node_names, np.str_), volts, bus_node,
        split, line_slot, load_ports, generators, chargers, *_controls(engine, trafos),
        shapes_of(engine), paths, tuple(notes),
    )  # fmt: skip


def _controls(engine: Engine, trafos: Trafos) -> tuple[Any, bool]:
    """Whether a control moves the tap of each transformer, (trafo,), and whether there is any control."""
    circuit = engine.circuit
    taps = {control.Transformer.lower() for control in enabled(circuit, circuit.RegControls)}
    regulated = np.array([str(name).lower() in taps for name in trafos.name], bool)
    return regulated, next(engine.in_service(CONTROLS), None) is not None


def _refusals(engine: Engine) -> Iterator[str]:
    """A sentence for each element without a model here."""
    found: dict[str, list[str]] = defaultdict(list)
    kinds = {full.partition(".")[0].lower() for full in engine.circuit.AllElementNames}
    for full in engine.in_service(kinds - MODELLED - WITHOUT_POWER):
        kind, _, name = full.partition(".")
        found[kind].append(name)
    for kind, names in found.items():
        yield from shortened(f"{kind} '{name}' has no model here" for name in names)
    for kind, elements in (("load", engine.circuit.Loads), ("generator", engine.circuit.Generators)):
        yield from shortened(
            f"{kind} '{one.Name}' has kW = {one.kW:g} and kvar = {one.kvar:g}: must be finite"
            for one in enabled(engine.circuit, elements)
            if not np.isfinite([one.kW, one.kvar]).all()
        )
    yield from shortened(
        f"load '{load.Name}' has model {int(load.Model)}; represented are "
        + ", ".join(f"{number} ({what})" for number, what in LOAD_MODELS.items())
        for load in enabled(engine.circuit, engine.circuit.Loads)
        if int(load.Model) not in LOAD_MODELS
    )


def _bus_facts(circuit: Any, number: int) -> tuple[Floats, Floats, Floats]:
    """Nominal voltage to ground in kV, and coordinates (NaN where there are none), (bus,) each."""
    kv, x, y = np.full(number, np.nan), np.full(number, np.nan), np.full(number, np.nan)
    for at in range(number):
        one = circuit.Buses(at)
        kv[at] = one.kVBase
        if one.Coorddefined:
            x[at], y[at] = one.x, one.y
    return kv, x, y


def _split_phase(circuit: Any, bus: dict[str, int], number: int) -> Any:
    """Whether a bus is on the secondary side of a centre tap, (bus,) bool: a transformer of three windings on
    one phase with two of them at that bus, or a bus behind one over lines.
    """
    split, neighbours = np.zeros(number, bool), defaultdict[int, list[int]](list)
    for _ in enabled(circuit, circuit.Transformers):
        at = [bus[bus_name(one)] for one in circuit.ActiveCktElement.BusNames]
        if len(at) == 3 and circuit.ActiveCktElement.NumPhases == 1 and at[1] == at[2]:
            split[at[1]] = True
    for _ in enabled(circuit, circuit.Lines):
        a, b = (bus[bus_name(one)] for one in circuit.ActiveCktElement.BusNames[:2])
        neighbours[a].append(b)
        neighbours[b].append(a)
    queue = np.flatnonzero(split).tolist()
    while queue:
        for other in neighbours[queue.pop()]:
            if not split[other]:
                split[other] = True
                queue.append(other)
    return split


def _nodes(circuit: Any, node: dict[str, int]) -> list[list[int]]:
    """Node of each conductor of the active element, by terminal; GROUND where earthed."""
    element = circuit.ActiveCktElement
    order, width = list(element.NodeOrder), element.NumConductors
    found = []
    for terminal, name in enumerate(element.BusNames):
        numbers = order[terminal * width : (terminal + 1) * width]
        found.append([node[f"{bus_name(name)}.{k}"] if k else GROUND for k in numbers])
    return found


def _is_closed(circuit: Any, terminal: int) -> bool:
    element = circuit.ActiveCktElement
    return not all(element.IsOpen(terminal, phase) for phase in range(1, element.NumPhases + 1))


def _lines(circuit: Any, bus: dict[str, int]) -> tuple[Lines, Any, int]:
    """Lines in service and series reactors, their slots at the first bus, (line, 3) bool, and how many have a
    length without a unit.
    """
    rows, slots = [], list[list[bool]]()
    unknown = 0
    for line in enabled(circuit, circuit.Lines):
        element = circuit.ActiveCktElement
        units = int(line.Units)
        unknown += units == 0 and not line.IsSwitch
        rating = float(element.NormalAmps) / 1e3
        ends = [bus[bus_name(one)] for one in element.BusNames[:2]]
        closed = [_is_closed(circuit, terminal) for terminal in (1, 2)]
        rows.append((line.Name, *ends, *closed, rating, line.Length * UNIT_KM[units]))
        slots.append(_slots_of(element))
    for reactor in enabled(circuit, circuit.Reactors):
        element = circuit.ActiveCktElement
        if element.NumTerminals == 2 and any(list(element.NodeOrder)[element.NumConductors :]):
            ends = [bus[bus_name(one)] for one in element.BusNames[:2]]
            rows.append((f"reactor {reactor.Name}", *ends, True, True, np.nan, 0.0))
            slots.append(_slots_of(element))
    none = np.full(len(rows), np.nan)
    names, a, b, closed_a, closed_b, rating_ka, km = zip(*rows, strict=True) if rows else ((),) * 7
    ka = np.array(rating_ka, float)
    return Lines(
        np.array(names, np.str_), np.array(a, np.int64), np.array(b, np.int64), np.array(closed_a, bool),
        np.array(closed_b, bool), none, none, none, none, none, none, none, np.where(ka > 0, ka, np.nan),
        np.array(km, float),
    ), np.array(slots, bool).reshape(-1, 3), unknown  # fmt: skip


def _slots_of(element: Any) -> list[bool]:
    """Whether an element's first terminal has a conductor at each slot of its bus."""
    numbers = list(element.NodeOrder)[: element.NumPhases]
    return [number in numbers for number in (1, 2, 3)]


def _trafos(circuit: Any, bus: dict[str, int]) -> Trafos:
    """A row for each bus of a transformer's windings beyond the first."""
    rows = []
    for trafo in enabled(circuit, circuit.Transformers):
        element = circuit.ActiveCktElement
        buses = [bus[bus_name(one)] for one in element.BusNames]
        closed = [_is_closed(circuit, terminal + 1) for terminal in range(len(buses))]
        kv, kva_of = [], []
        for winding in range(len(buses)):
            trafo.Wdg = winding + 1
            kv.append(trafo.kV)
            kva_of.append(trafo.kVA)
        seen: dict[int, int] = {}
        for winding, at in enumerate(buses[1:], 1):
            seen.setdefault(at, winding)
        for at, winding in seen.items():
            name = trafo.Name if winding == 1 else f"{trafo.Name} winding {winding + 1}"
            rows.append((name, buses[0], at, closed[0], closed[winding], kv[0], kv[winding], kva_of[0]))
    names, hv, lv, hv_closed, lv_closed, hv_kv, lv_kv, sn = zip(*rows, strict=True) if rows else ((),) * 8
    count = len(rows)
    none, zero = np.full(count, np.nan), np.zeros(count, np.int64)
    kva = np.array(sn, float)
    return Trafos(
        name=np.array(names, np.str_), hv_bus=np.array(hv, np.int64), lv_bus=np.array(lv, np.int64),
        hv_closed=np.array(hv_closed, bool), lv_closed=np.array(lv_closed, bool),
        ratio_hv_kv=np.array(hv_kv, float), ratio_lv_kv=np.array(lv_kv, float),
        rated_hv_kv=np.array(hv_kv, float), rated_lv_kv=np.array(lv_kv, float), sn_kva=kva,
        rating_kva=np.where(kva > 0, kva, np.nan), vk_percent=none, vkr_percent=none, pfe_kw=none,
        i0_percent=none, shift_degree=none, vector_group=np.repeat("", count).astype(np.str_),
        vk0_percent=none, vkr0_percent=none, mag0_percent=none, mag0_rx=none, si0_hv_partial=none,
        tap_side=zero - 1, tap_neutral=zero, tap_min=zero, tap_max=zero, tap_pos=zero,
        tap_step_percent=np.zeros(count),
    )  # fmt: skip


def _sources(circuit: Any, bus: dict[str, int]) -> Sources:
    rows = [
        (bus[bus_name(circuit.ActiveCktElement.BusNames[0])], source.pu, source.AngleDeg)
        for source in enabled(circuit, circuit.Vsources)
    ]
    at, pu, angle = zip(*rows, strict=True)
    return Sources(np.array(at, np.int64), np.array(pu, float), np.array(angle, float))


def _pairs(nodes: list[int], phases: int, delta: bool, kv: float) -> tuple[list[tuple[int, int]], float]:
    """Nodes on either side of each port of a load or generator, and their nominal voltage, V."""
    if delta:
        return [(nodes[k], nodes[(k + 1) % len(nodes)]) for k in range(phases)], 1e3 * kv
    volts = 1e3 * kv / (np.sqrt(3) if phases > 1 else 1.0)
    return [(nodes[k], nodes[-1]) for k in range(phases)], volts


def _slots(numbers: list[int]) -> list[int]:
    """Slot of each port: that of the phase of its first node, as far as they differ."""
    slots = [number - 1 if 1 <= number <= 3 else k for k, number in enumerate(numbers)]
    return slots if len(set(slots)) == len(slots) else list(range(len(slots)))


def _ports_of(
    circuit: Any, node: dict[str, int], delta: bool, kv: float, ports: dict[str, list[list[Any]]]
) -> list[int]:
    """Add the ports of the active element to ``ports``; their slots."""
    element = circuit.ActiveCktElement
    phases = int(element.NumPhases)
    slots = _slots([int(k) for k in element.NodeOrder[:phases]])
    pairs, volts = _pairs(_nodes(circuit, node)[0], phases, delta, kv)
    row: dict[str, list[Any]] = {"start": [GROUND] * 3, "end": [GROUND] * 3, "volts": [np.nan] * 3}
    for (a, b), slot in zip(pairs, slots, strict=True):
        a, b = (a, b) if a != GROUND else (b, a)
        row["start"][slot], row["end"][slot], row["volts"][slot] = a, b, volts
    for key, values in row.items():
        ports[key].append(values)
    return slots


def _ports(ports: dict[str, list[list[Any]]]) -> Ports:
    return Ports(
        np.array(ports["start"], np.int64).reshape(-1, 3),
        np.array(ports["end"], np.int64).reshape(-1, 3),
        np.array(ports["volts"], float).reshape(-1, 3),
    )


def _loads(circuit: Any, bus: dict[str, int], node: dict[str, int]) -> tuple[Loads, Ports]:
    ports: dict[str, list[list[Any]]] = {"start": [], "end": [], "volts": []}
    names, at, phase, power = [], [], [], []
    mult = float(circuit.Solution.LoadMult)
    for load in enabled(circuit, circuit.Loads):
        slots = _ports_of(circuit, node, bool(load.IsDelta), float(load.kV), ports)
        share = np.zeros(3)
        share[slots] = 1.0 / len(slots)
        factor = mult if int(load.Status) == 0 else 1.0
        names.append(load.Name)
        at.append(bus[bus_name(circuit.ActiveCktElement.BusNames[0])])
        phase.append(slots[0] if len(slots) == 1 else ALL_PHASES)
        power.append((load.kW * factor * share, load.kvar * factor * share))
    p, q = (np.array([one[k] for one in power], float).reshape(-1, 3) for k in range(2))
    none = np.zeros((len(names), 2))
    loads = Loads(
        np.array(names, np.str_), np.array(at, np.int64), np.array(phase, np.int8), p, q, none, none,
        np.zeros(len(names), bool),
    )  # fmt: skip
    return loads, _ports(ports)


def _fixed(circuit: Any, bus: dict[str, int], node: dict[str, int]) -> tuple[Fixed, Ports]:
    """Generators and PV systems as fixed power, and capacitors."""
    ports: dict[str, list[list[Any]]] = {"start": [], "end": [], "volts": []}
    names, at, power, rated = [], [], [], []
    for kind, elements in (("", circuit.Generators), ("pv ", circuit.PVSystems)):
        for one in enabled(circuit, elements):
            of = circuit.ActiveCktElement.Properties
            delta = of("conn").Val.lower() == "delta" if kind else bool(one.IsDelta)
            kv = float(of("kv").Val) if kind else float(one.kV)
            slots = _ports_of(circuit, node, delta, kv, ports)
            share = np.zeros(3)
            share[slots] = 1.0 / len(slots)
            names.append(f"{kind}{one.Name}")
            at.append(bus[bus_name(circuit.ActiveCktElement.BusNames[0])])
            kw, kvar = (one.Pmpp * one.Irradiance, 0.0) if kind else (one.kW, one.kvar)
            power.append((kw * share, kvar * share))
            rated.append(one.kVArated)
    p, q = (np.array([row[k] for row in power], float).reshape(-1, 3) for k in range(2))
    shunts, shunt_bus, states, steps = [], [], [], []
    for capacitor in enabled(circuit, circuit.Capacitors):
        shunts.append(capacitor.Name)
        shunt_bus.append(bus[bus_name(circuit.ActiveCktElement.BusNames[0])])
        states.append(int(sum(capacitor.States)))
        steps.append(int(capacitor.NumSteps))
    none = np.zeros(len(shunts))
    return Fixed(
        np.array(names, np.str_), np.array(at, np.int64), p, q, np.array(rated, float),
        np.repeat("sgen", len(names)).astype(np.str_), np.array(shunts, np.str_), np.array(shunt_bus,
        np.int64), none, none, np.array(states, np.int64), np.array(steps, np.int64),
        np.zeros(len(names), bool), np.full(len(names), np.nan),
    ), _ports(ports)  # fmt: skip


def charger_ports(
    loads: Loads, bus_node: Ints, split: Any, kv: Floats, own: Ports, charger_v: float | None
) -> tuple[Ports, Any]:
    """Ports of EVs at each connection point, and the slot of those on one phase, (connection,) int8.

    At a split-phase service: across both legs, or from a leg to the neutral where ``charger_v`` is nearer to
    that. At a bus of three phases with ``charger_v`` nearer to the voltage between phases: between any two.
    Else at the load's own nodes: between them where it is in delta, or where there are two and ``charger_v``
    is nearer to that; else from each to the neutral.
    """
    number = len(loads.name)
    start, end = np.full((number, 3), GROUND, np.int64), np.full((number, 3), GROUND, np.int64)
    volts, phase = np.full((number, 3), np.nan), np.full(number, ALL_PHASES, np.int8)
    for at, bus in enumerate(loads.bus):
        nodes = [int(one) for one in bus_node[bus]]
        there = [slot for slot in range(3) if nodes[slot] != GROUND]
        to_neutral, between = 1e3 * kv[bus], 1e3 * kv[bus] * (2.0 if split[bus] else np.sqrt(3))
        by_pair = charger_v is None or abs(charger_v - between) < abs(charger_v - to_neutral)
        delta = bool((own.end[at][own.start[at] != GROUND] != GROUND).all()) and not split[bus]
        served = {*own.start[at].tolist(), *own.end[at].tolist()}
        mine = [slot for slot in there if split[bus] or nodes[slot] in served] or there
        both = bool(split[bus]) or charger_v is not None
        if len(there) == 3 and ((delta and len(mine) == 3) or (by_pair and charger_v is not None)):
            start[at], end[at], volts[at] = nodes, [nodes[1], nodes[2], nodes[0]], between
        elif (delta and len(mine) == 2) or (len(there) == 2 and by_pair and (both or len(mine) == 2)):
            first, other = there if len(there) == 2 else mine
            slot = 2 if split[bus] else first
            start[at, slot], end[at, slot], volts[at, slot] = nodes[first], nodes[other], between
            phase[at] = slot
        else:
            for slot in mine:
                start[at, slot], volts[at, slot] = nodes[slot], to_neutral
            if len(mine) < 3:
                phase[at] = loads.phase[at] if loads.phase[at] in mine else mine[0]
    return Ports(start, end, volts), phase
