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
    shunt : rows of elements that are shunts
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
        self.shunt = np.flatnonzero(np.repeat(np.array(shunts, bool), sizes))
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

    def __init__(self, engine: Engine, opendss: OpenDSS, unbalance: bool = True) -> None:
        """Without ``unbalance`` voltage unbalance and neutral currents are left out."""
        circuit, self.unbalance = opendss.circuit, unbalance
        self.circuit, self.branches = circuit, Branches(engine)
        self.models = models_of(engine, circuit)
        self.generator_models = _generator_models(engine, circuit, opendss.inverters)
        self._line, self._line_start, self._trafo, self._primary, self._secondary = self._sensed(engine)
        at = _at_sources(circuit)
        slots = np.where(self.branches.node != GROUND, at[self.branches.node], -1)
        rows = np.flatnonzero(slots >= 0)
        self._head = _Sensed(rows, 0 * rows, slots[rows], np.ones(len(rows)))
        at_head = [
            at[ports.start[ports.there]] for ports in (circuit.loads, circuit.chargers, circuit.generators)
        ]
        self._head_ports = [[(port, slots[port]) for port in np.flatnonzero(slots >= 0)] for slots in at_head]
        """Ports at the head, and its slot: of loads, EVs and generation."""
        volts = np.where(circuit.node_volts > 0, circuit.node_volts, np.nan)
        self._bus_volts = np.append(volts, np.nan)[circuit.bus_node]
        grid = circuit.grid
        self._unloaded = [
            np.repeat(np.where(np.isnan(rating), np.nan, 0.0)[:, np.newaxis], 3, axis=1)
            for rating in (grid.lines.rating_ka, grid.trafos.rating_kva)
        ]
        """Loading without a current of lines and transformers, (element, slot): NaN without a rating."""
        self._further = np.setdiff1d(np.arange(len(grid.trafos.name)), self._primary.element)
        """Rows of further windings of transformers, which have no primary side of their own."""

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
        power = np.empty_like(amps)
        _powers(voltage, amps, branches.node, power)
        line_loading, trafo_loading = (
            np.repeat(unloaded[np.newaxis], cases, axis=0) for unloaded in self._unloaded
        )
        for sensed, out in ((self._line, line_loading), (self._trafo, trafo_loading)):
            _highest(amps, *sensed, out)
        into = np.zeros((cases, len(grid.trafos.name), 1), complex)
        out_of = np.zeros((cases, len(grid.trafos.name), 3), complex)
        _add(power, self._primary.row, self._primary.element, self._primary.slot, into)
        _add(power, self._secondary.row, self._secondary.element, self._secondary.slot, out_of)
        np.negative(out_of, out_of)
        trafo_kw = into[:, :, 0].real.copy()
        trafo_kw[:, self._further] = out_of[:, self._further].real.sum(axis=2)
        head = np.zeros((cases, 1, 3), complex)
        _add(power, self._head.row, self._head.element, self._head.slot, head)
        drawn = _drawn(voltage, loads, circuit.loads, self.models)
        given = _drawn(voltage, generation, circuit.generators, self.generator_models)
        at_chargers = evs[:, circuit.chargers.there].T
        for values, ports in zip((drawn, at_chargers, -given), self._head_ports, strict=True):
            for port, at in ports:
                head[:, 0, at] += values[port]
        in_shunts = power[:, branches.shunt].real.sum(axis=1)
        fixed = in_shunts - given.real.sum(axis=0)
        fixed += drawn.real.sum(axis=0) - loads.real.sum(axis=(1, 2))
        if dead.any():
            voltage = np.where(dead, np.nan, voltage)
        voltage_pu = np.empty((cases, *circuit.bus_node.shape))
        _voltages(voltage, circuit.bus_node, self._bus_volts, voltage_pu)
        unbalance = np.empty((cases, len(circuit.bus_node) * self.unbalance))
        _unbalances(voltage, circuit.bus_node, unbalance)
        return Flow(
            voltage_pu=voltage_pu,
            line_loading=line_loading,
            trafo_loading=trafo_loading,
            trafo_p_kw=trafo_kw,
            trafo_lv_p_kw=np.ascontiguousarray(out_of.real),
            trafo_lv_q_kvar=np.ascontiguousarray(out_of.imag),
            head_p_kw=np.ascontiguousarray(head[:, 0].real),
            head_q_kvar=np.ascontiguousarray(head[:, 0].imag),
            losses_kw=power.real.sum(axis=1) - in_shunts,
            fixed_kw=fixed,
            voltage_unbalance=unbalance,
            neutral_a=self._neutral(amps),
            trafo_neutral_a=np.zeros((cases, len(grid.trafos.name) * self.unbalance)),
            connection_pu=_port_pu(voltage, circuit.chargers, 0.0),
            generator_pu=_port_pu(voltage, circuit.generators, np.nan),
        )

    def _neutral(self, amps: Complex) -> Array:
        """Sum of the currents into each line at its first bus, A, (case, line); no lines if left out."""
        if not self.unbalance:
            return np.zeros((len(amps), 0))
        start = self._line_start
        total = np.zeros((len(amps), len(self.circuit.grid.lines.name), 1), complex)
        _add(amps, start.row, start.element, 0 * start.slot, total)
        return np.asarray(np.abs(total[:, :, 0]))


def _drawn(voltage: Complex, power: Complex, ports: Ports, models: LoadModels) -> Complex:
    """Power at the ports that are there, kVA, (port, case), by their models, of ``power`` at nominal voltage,
    (case, row, slot).
    """
    u = _across_ports(voltage, ports)
    amps = np.empty_like(u)
    nominal = np.ascontiguousarray(power[:, ports.there].T) * 1e3
    currents(u, np.arange(u.shape[1]), nominal, models, amps)
    return np.asarray(u * amps.conj() / 1e3)


def _across_ports(voltage: Complex, ports: Ports) -> Complex:
    """Voltage across the ports that are there, V, (port, case)."""
    found = np.empty((len(ports.ends[0]), len(voltage)), complex)
    _across(voltage, *ports.ends, found)
    return found


def _port_pu(voltage: Complex, ports: Ports, absent: float) -> Array:
    """Voltage across ports, pu of their own, (case, row, slot); ``absent`` where there is no port."""
    found = np.full((len(voltage), *ports.there.shape), absent)
    found[:, ports.there] = np.abs(_across_ports(voltage, ports)).T / ports.volts[ports.there]
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


@njit
def _across(voltage: Complex, start: Ints, end: Ints, out: Complex) -> None:
    """Voltage across ports from node ``start`` to node ``end``, V, into ``out`` (port, case)."""
    for port in range(len(start)):
        for case in range(len(voltage)):
            to = voltage[case, end[port]] if end[port] != GROUND else 0j
            out[port, case] = voltage[case, start[port]] - to


@njit
def _voltages(voltage: Complex, node: Ints, volts: Floats, out: Floats) -> None:
    """Magnitudes, pu of ``volts`` (bus, slot), into ``out`` (case, bus, slot); NaN where there is no node."""
    for case in range(len(voltage)):
        for bus in range(len(node)):
            for slot in range(3):
                at = node[bus, slot]
                out[case, bus, slot] = np.nan
                if at != GROUND:
                    u = voltage[case, at]
                    out[case, bus, slot] = np.sqrt(u.real * u.real + u.imag * u.imag) / volts[bus, slot]


@njit
def _unbalances(voltage: Complex, node: Ints, out: Floats) -> None:
    """Negative per positive sequence of the voltage at the first buses, into ``out`` (case, bus); NaN without
    three nodes.
    """
    turn, back = complex(-0.5, np.sqrt(0.75)), complex(-0.5, -np.sqrt(0.75))
    for case in range(len(voltage)):
        for bus in range(out.shape[1]):
            out[case, bus] = np.nan
            first, second, third = node[bus]
            if first == GROUND or second == GROUND or third == GROUND:
                continue
            a, b, c = voltage[case, first], voltage[case, second], voltage[case, third]
            positive, negative = a + turn * b + back * c, a + back * b + turn * c
            out[case, bus] = abs(negative) / abs(positive) if abs(positive) > 0.0 else np.nan


@njit
def _powers(voltage: Complex, amps: Complex, node: Ints, out: Complex) -> None:
    """Power into each conductor, kVA, by its current, A, (case, row) both."""
    for case in range(len(amps)):
        for row in range(len(node)):
            u = voltage[case, node[row]] if node[row] != GROUND else 0j
            out[case, row] = u * amps[case, row].conjugate() / 1e3


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
