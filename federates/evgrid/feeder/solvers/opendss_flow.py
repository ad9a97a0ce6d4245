"""From the voltages of an OpenDSS circuit's nodes to the power flow of its feeder.

In: voltages, (case, node), and the power of loads, EVs and generation. Out: a
:class:`~evgrid.feeder.solvers.Flow`. Currents of lines and transformers follow from the engine's own
primitive admittance matrices, and the power that voltage-dependent loads draw from their models, so that the
power balance of a flow is a check of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from evgrid.core.jit import njit
from evgrid.core.model import Array
from evgrid.feeder.grid import FEEDER, Floats, Ints
from evgrid.feeder.opendss.engine import Engine, as_complex, bus_name, enabled
from evgrid.feeder.opendss.load_models import ZIP, LoadModels, constant_power, currents
from evgrid.feeder.opendss.network import OpenDSS
from evgrid.feeder.opendss.supply import line_element
from evgrid.feeder.opendss.tables import GROUND, Circuit, Ports
from evgrid.feeder.solvers.interface import Flow

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Element:
    """An element that carries current.

    name : full name, ``line.l115``
    nodes : node of each conductor of all terminals, GROUND where earthed
    numbers : number of each of those at its bus, as ``.1``
    phases, terminals : of the element
    """

    name: str
    nodes: Ints
    numbers: Ints
    phases: int
    terminals: int

    @property
    def conductors(self) -> int:
        """Conductors of a terminal."""
        return len(self.nodes) // self.terminals

    def row(self, terminal: int, conductor: int) -> int:
        """Place of a terminal's conductor among all."""
        return terminal * self.conductors + conductor


class Branches:
    """Currents at all conductors of lines, transformers, reactors and shunts, by the voltages.

    elements : in the order of the rows; first_row : of each
    node : (row,) node of each conductor
    shunt : (row,) bool, whether the element is a shunt
    """

    def __init__(self, engine: Engine) -> None:
        engine.build()
        circuit = engine.circuit
        self.elements = list[Element]()
        matrices = list[Complex]()
        shunts = list[bool]()
        for full in engine.in_service(("line", "transformer", "reactor", "capacitor", "fault")):
            active = circuit.ActiveCktElement
            element = Element(
                full.lower(), np.array(active.NodeRef, np.int64) - 1, np.array(active.NodeOrder, np.int64),
                int(active.NumPhases), int(active.NumTerminals),
            )  # fmt: skip
            self.elements.append(element)
            matrices.append(primitive(active))
            shunts.append(element.terminals == 1 or not (element.nodes[element.conductors :] != GROUND).any())
        sizes = [len(element.nodes) for element in self.elements]
        self.first_row = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.node = np.concatenate([*(e.nodes for e in self.elements), np.zeros(0, np.int64)])
        self.shunt = np.repeat(np.array(shunts, bool), sizes)
        rows, columns, values = list[Ints](), list[Ints](), list[Complex]()
        for element, matrix, first in zip(self.elements, matrices, self.first_row, strict=False):
            there = element.nodes != GROUND
            at, to = np.meshgrid(first + np.arange(len(there)), element.nodes[there], indexing="ij")
            rows.append(at.ravel())
            columns.append(to.ravel())
            values.append(matrix[:, there].ravel())
        shape = (int(self.first_row[-1]), len(circuit.YNodeOrder))
        flat = [np.concatenate([*parts, np.zeros(0, int)]) for parts in (values, rows, columns)]
        self._matrix = csr_array((flat[0].astype(complex), (flat[1], flat[2])), shape=shape)
        self.place = {element.name: at for at, element in enumerate(self.elements)}

    def currents(self, voltage: Complex) -> Complex:
        """Current into each conductor, A, (case, row), for voltages (case, node), V."""
        return np.ascontiguousarray((self._matrix @ voltage.T).T)


def primitive(active: Any) -> Complex:
    """Primitive admittance matrix of the active element, S: current into its conductors by their voltages."""
    flat = as_complex(active.Yprim)
    size = round(len(flat) ** 0.5)
    return flat.reshape(size, size).T


class _Sensed(NamedTuple):
    """Conductors of elements: (n,) row, element, slot, and rated current, A."""

    row: Ints
    element: Ints
    slot: Ints
    rated_a: Floats


class FlowOf:
    """The power flow of a circuit by its voltages."""

    def __init__(self, engine: Engine, opendss: OpenDSS) -> None:
        circuit = opendss.circuit
        self.circuit, self.branches = circuit, Branches(engine)
        self.models = models_of(engine, circuit)
        self.generator_models = _generator_models(engine, circuit, opendss.inverters)
        self._line, self._line_start, self._trafo, self._primary, self._secondary = self._sensed(engine)
        at = _at_sources(circuit)
        slots = np.where(self.branches.node != GROUND, at[self.branches.node], -1)
        rows = np.flatnonzero(slots >= 0)
        self._head = _Sensed(rows, 0 * rows, slots[rows], np.ones(len(rows)))
        self._head_ports = [
            np.where(ports.there, at[ports.start], -1)
            for ports in (circuit.loads, circuit.chargers, circuit.generators)
        ]
        volts = np.where(circuit.node_volts > 0, circuit.node_volts, np.nan)
        self._bus_volts = np.append(volts, np.nan)[circuit.bus_node]

    def _sensed(self, engine: Engine) -> tuple[_Sensed, ...]:
        """Conductors that load lines and transformers, and those of the windings of transformers."""
        grid, branches, active = self.circuit.grid, self.branches, engine.circuit
        lines, starts, trafos, primary, secondary = (list[tuple[Any, ...]]() for _ in range(5))
        for at, name in enumerate(grid.lines.name):
            place = branches.place[line_element(str(name)).lower()]
            element, first = branches.elements[place], branches.first_row[place]
            for terminal in range(2):
                for conductor in range(element.phases):
                    row = element.row(terminal, conductor)
                    if 1 <= element.numbers[row] <= 3:
                        one = (first + row, at, element.numbers[row] - 1, 1e3 * grid.lines.rating_ka[at])
                        lines.append(one)
                        starts += [one] * (terminal == 0)
        row_of = {(str(n).split(" winding ")[0], int(b)): k for k, (n, b) in
                  enumerate(zip(grid.trafos.name, grid.trafos.lv_bus, strict=True))}  # fmt: skip
        buses = {name: k for k, name in enumerate(grid.buses.name.tolist())}
        for trafo in enabled(active, active.Transformers):
            place = branches.place[f"transformer.{trafo.Name}".lower()]
            element, first = branches.elements[place], branches.first_row[place]
            at_bus = [buses[bus_name(one)] for one in active.ActiveCktElement.BusNames]
            for winding in range(element.terminals):
                trafo.Wdg = winding + 1
                rated = trafo.kVA / (trafo.kV * (np.sqrt(3) if element.phases > 1 else 1.0))
                mine = {row_of[trafo.Name, bus] for bus in at_bus[1:]} if not winding else {
                    row_of[trafo.Name, at_bus[winding]]
                }  # fmt: skip
                for conductor in range(element.phases):
                    row, first_side = element.row(winding, conductor), element.row(0, conductor)
                    slot = min(max(int(element.numbers[first_side]) - 1, 0), 2)
                    trafos += [(first + row, at, slot, rated) for at in mine]
                for conductor in range(element.conductors):
                    row = element.row(winding, conductor)
                    if not winding and element.nodes[row] != GROUND:
                        primary.append((first + row, row_of[trafo.Name, at_bus[1]], 0, rated))
                    elif winding and 1 <= element.numbers[row] <= 3:
                        secondary += [(first + row, at, element.numbers[row] - 1, rated) for at in mine]
        return tuple(_table(rows) for rows in (lines, starts, trafos, primary, secondary))

    def flow(
        self,
        voltage: Complex,
        loads: Complex,
        evs: Complex,
        generation: Complex,
        changed: Sequence[Mapping[int, Complex]] = (),
        outs: Sequence[frozenset[int]] = (),
    ) -> Flow:
        """The flow of solved cases.

        voltage : (case, node), V
        loads, evs : complex power, kVA, (case, connection, slot): of the loads at nominal voltage, and of EVs
        generation : complex power of the generation, kVA, (case, gen, slot), positive into the grid
        changed : for each case, currents of elements whose admittance is another than when the circuit was
            read, by the element's place; left out: none
        outs : elements out of service in each case; left out: none
        """
        circuit, branches, grid = self.circuit, self.branches, self.circuit.grid
        cases = len(voltage)
        amps = branches.currents(voltage)
        for case, elements in enumerate(changed):
            for place, values in elements.items():
                amps[case, branches.first_row[place] : branches.first_row[place + 1]] = values
        dead = np.zeros(voltage.shape, np.bool_)
        for some in {*outs} - {frozenset()}:
            mine = [case for case, one in enumerate(outs) if one == some]
            for element in circuit.paths.whole(some) - {FEEDER}:
                place = branches.place[circuit.paths.names[element].lower()]
                amps[mine, branches.first_row[place] : branches.first_row[place + 1]] = 0.0
            dead[mine] = circuit.paths.dead(some)
        power = with_ground(voltage)[:, branches.node] * amps.conj() / 1e3
        line_loading = np.zeros((cases, len(grid.lines.name), 3))
        line_loading[:, np.isnan(grid.lines.rating_ka)] = np.nan
        trafo_loading = np.zeros((cases, len(grid.trafos.name), 3))
        trafo_loading[:, np.isnan(grid.trafos.rating_kva)] = np.nan
        for sensed, out in ((self._line, line_loading), (self._trafo, trafo_loading)):
            _highest(amps, *sensed, out)
        into, out_of = np.zeros((2, cases, len(grid.trafos.name), 3), complex)
        _add(power, self._primary.row, self._primary.element, self._primary.slot, into)
        _add(power, self._secondary.row, self._secondary.element, self._secondary.slot, out_of)
        np.negative(out_of, out_of)
        first = np.zeros(len(grid.trafos.name), bool)
        first[self._primary.element] = True
        neutral = np.zeros((cases, len(grid.lines.name), 3), complex)
        _add(amps, self._line_start.row, self._line_start.element, 0 * self._line_start.slot, neutral)
        head = np.zeros((cases, 1, 3), complex)
        _add(power, self._head.row, self._head.element, self._head.slot, head)
        drawn, given = self.drawn(voltage, loads), self._given(voltage, generation)
        for values, at in zip((drawn, evs, -given), self._head_ports, strict=True):
            for row, slot in np.argwhere(at >= 0).tolist():
                head[:, 0, at[row, slot]] += values[:, row, slot]
        in_shunts = power[:, branches.shunt].real.sum(axis=1)
        fixed = in_shunts - given.real.sum(axis=(1, 2))
        fixed += drawn.real.sum(axis=(1, 2)) - loads.real.sum(axis=(1, 2))
        if dead.any():
            voltage = np.where(dead, np.nan, voltage)
        at_bus = with_ground(voltage, np.nan)[:, circuit.bus_node]
        return Flow(
            voltage_pu=np.abs(at_bus) / self._bus_volts,
            line_loading=line_loading,
            trafo_loading=trafo_loading,
            trafo_p_kw=np.where(first, into.real.sum(axis=2), out_of.real.sum(axis=2)),
            trafo_lv_p_kw=np.ascontiguousarray(out_of.real),
            trafo_lv_q_kvar=np.ascontiguousarray(out_of.imag),
            head_p_kw=np.ascontiguousarray(head[:, 0].real),
            head_q_kvar=np.ascontiguousarray(head[:, 0].imag),
            losses_kw=power.real.sum(axis=1) - in_shunts,
            fixed_kw=fixed,
            voltage_unbalance=_unbalance(at_bus),
            neutral_a=np.abs(neutral[:, :, 0]),
            trafo_neutral_a=np.zeros((cases, len(grid.trafos.name))),
            connection_pu=_port_pu(voltage, circuit.chargers, 0.0),
            generator_pu=_port_pu(voltage, circuit.generators, np.nan),
        )

    def drawn(self, voltage: Complex, loads: Complex) -> Complex:
        """Power that the loads draw, kVA, (case, connection, slot), of ``loads`` at nominal voltage."""
        return _drawn(voltage, loads, self.circuit.loads, self.models)

    def _given(self, voltage: Complex, generation: Complex) -> Complex:
        """Power that the generation gives, kVA, (case, gen, slot), of ``generation`` at nominal voltage."""
        return _drawn(voltage, generation, self.circuit.generators, self.generator_models)


def _drawn(voltage: Complex, power: Complex, ports: Ports, models: LoadModels) -> Complex:
    """Power at ports, kVA, (case, row, slot), by their models; ``power`` at nominal voltage."""
    there = ports.there
    u = np.ascontiguousarray(across(voltage, ports).T)
    amps = np.empty_like(u)
    currents(u, np.arange(u.shape[1]), np.ascontiguousarray(power[:, there].T) * 1e3, models, amps)
    found = np.zeros(power.shape, complex)
    found[:, there] = (u * amps.conj() / 1e3).T
    return found


def with_ground(voltage: Complex, ground: float = 0.0) -> Complex:
    """Voltages (case, node) with that of the ground at the end, where :data:`GROUND` finds it."""
    return np.concatenate([voltage, np.full((len(voltage), 1), ground)], axis=1)


def across(voltage: Complex, ports: Ports) -> Complex:
    """Voltage across the ports that are there, V, (case, port), of voltages (case, node)."""
    known = with_ground(voltage)
    return np.asarray(known[:, ports.start[ports.there]] - known[:, ports.end[ports.there]])


def _port_pu(voltage: Complex, ports: Ports, absent: float) -> Array:
    """Voltage across ports, pu of their own, (case, row, slot); ``absent`` where there is no port."""
    found = np.full((len(voltage), *ports.there.shape), absent)
    found[:, ports.there] = np.abs(across(voltage, ports)) / ports.volts[ports.there]
    return found


def _at_sources(circuit: Circuit) -> Ints:
    """Slot of each node that is a source's, (node,); -1 for all others."""
    found = np.full(len(circuit.node), -1, np.int64)
    for bus in circuit.grid.sources.bus.tolist():
        for slot, node in enumerate(circuit.bus_node[bus].tolist()):
            if node != GROUND:
                found[node] = slot
    return found


def models_of(engine: Engine, circuit: Circuit) -> LoadModels:
    """Load model of each port of the loads, in the order of ``circuit.loads.there``."""
    rows = list[tuple[Any, ...]]()
    ports = circuit.loads.there.sum(axis=1)
    for load, count in zip(enabled(engine.circuit, engine.circuit.Loads), ports, strict=True):
        low = float(engine.circuit.ActiveCktElement.Properties("vlowpu").Val)
        shares = np.zeros(7)
        given = np.asarray(load.ZIPV, float) if int(load.Model) == ZIP else np.zeros(0)
        shares[: len(given)] = given
        one = (int(load.Model), low, load.Vminpu, load.Vmaxpu, (load.CVRwatts, load.CVRvars), shares)
        rows += [one] * int(count)
    model, v_low, v_min, v_max, cvr, zips = zip(*rows, strict=True) if rows else ((),) * 6
    return LoadModels(
        np.array(model, np.int64), circuit.loads.volts[circuit.loads.there], np.array(v_low, float),
        np.array(v_min, float), np.array(v_max, float), np.array(cvr, float).reshape(-1, 2),
        np.array(zips, float).reshape(-1, 7),
    )  # fmt: skip


def _generator_models(engine: Engine, circuit: Circuit, inverters: Collection[int]) -> LoadModels:
    """The same of the generators: constant power, as a constant impedance beyond its limits of voltage."""
    low, high = list[float](), list[float]()
    ports = circuit.generators.there.sum(axis=1)
    for at, (name, count) in enumerate(zip(circuit.grid.fixed.gen_name.tolist(), ports, strict=True)):
        if at in inverters:
            limits = (0.0, np.inf)
        elif name.startswith("pv "):
            limits = (0.9, 1.1)
        else:
            engine.circuit.Generators.Name = name
            limits = engine.circuit.Generators.Vminpu, engine.circuit.Generators.Vmaxpu
        low += [limits[0]] * int(count)
        high += [limits[1]] * int(count)
    models = constant_power(circuit.generators.volts[circuit.generators.there])
    return models._replace(v_min=np.array(low), v_max=np.array(high))


def _table(rows: list[tuple[Any, ...]]) -> _Sensed:
    row, element, slot, rated = zip(*rows, strict=True) if rows else ((),) * 4
    return _Sensed(
        np.array(row, np.int64), np.array(element, np.int64), np.array(slot, np.int64), np.array(rated, float)
    )


def _unbalance(voltage: Complex) -> Array:
    """Negative per positive sequence of the voltage, (case, bus), of (case, bus, slot); NaN without three."""
    turn = np.exp(2j * np.pi / 3)
    a, b, c = voltage[..., 0], voltage[..., 1], voltage[..., 2]
    positive, negative = a + turn * b + turn**2 * c, a + turn**2 * b + turn * c
    with np.errstate(invalid="ignore"):  # a bus without voltage
        return np.asarray(np.abs(negative) / np.abs(positive))


@njit
def _highest(amps: Complex, row: Ints, element: Ints, slot: Ints, rated_a: Floats, out: Floats) -> None:
    """Raise the loading ``out`` (case, element, slot) to the currents at some rows per rated current."""
    for case in range(len(amps)):
        for k in range(len(row)):
            i = amps[case, row[k]]
            loading = np.sqrt(i.real * i.real + i.imag * i.imag) / rated_a[k]
            if loading > out[case, element[k], slot[k]]:
                out[case, element[k], slot[k]] = loading


@njit
def _add(values: Complex, row: Ints, element: Ints, slot: Ints, out: Complex) -> None:
    """Add values at some rows, (case, row), to ``out`` (case, element, slot)."""
    for case in range(len(values)):
        for k in range(len(row)):
            out[case, element[k], slot[k]] += values[case, row[k]]
