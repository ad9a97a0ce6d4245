"""OpenDSS itself as a solver: the engine that a network was read with, case by case.

With ``controls`` the file's own regulators, capacitor controls and switches are live in simulated time, with
their delays: each member has an engine of its own, which goes on from step to step. Then cases must come in
the order of time. Without, all stay as the file's own snapshot leaves them, and cases are independent.

EVs draw constant power at any voltage; loads and generators follow their models in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import in_threads
from evgrid.core.model import Array
from evgrid.errors import NetworkError, PowerFlowError
from evgrid.feeder.grid import Ints
from evgrid.feeder.opendss.engine import IN_TIME, TIME, Engine, as_complex, enabled, reason_of
from evgrid.feeder.opendss.supply import Switches
from evgrid.feeder.opendss.tables import GROUND, Ports
from evgrid.feeder.solvers.interface import Flow, Label, Positions, Power, case_name, report_failed
from evgrid.feeder.solvers.opendss_flow import Branches, FlowOf, primitive

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

Complex = NDArray[np.complex128]

LOWEST_PU, HIGHEST_PU = 0.002, 1000.0
"""Voltages between which EVs and inverters draw constant power, pu: the engine needs some."""


LEAST_NODES = 200
"""Nodes of a circuit from which on members are solved side by side: in smaller ones threads wait for each
other longer than it takes to solve."""


class OpenDSSSolver:
    """Solves cases one by one with OpenDSS; those of different engines in parallel threads."""

    name = "opendss"
    balance_tolerance = 1e-6
    newton_cases = 0
    note = ""

    def __init__(
        self,
        network: Network,
        members: int = 1,
        controls_step_s: float | None = None,
        unbalance: bool = True,
    ) -> None:
        """Compile the circuit.

        Parameters
        ----------
        network
            Read from an OpenDSS file.
        members
            Number of members, each of which has controls of its own; with ``controls_step_s``.
        controls_step_s
            Period of the power flow, s, where the controls are live; None: they stay as they are.
        unbalance
            Whether flows have voltage unbalance and neutral currents.

        Raises
        ------
        NetworkError
            If the network is not from OpenDSS.

        """
        if network.opendss is None:
            raise NetworkError(
                f"feeder.solver = opendss: needs a network from OpenDSS (.dss), not {network.source}"
            )
        self.network, self._circuit = network, network.opendss.circuit
        self.in_time, self._out = controls_step_s is not None, network.opendss.out
        self._engines = [
            _Copy(network.opendss.compiled(), network, controls_step_s)
            for _ in range(members if controls_step_s is not None else 1)
        ]
        self._flow = FlowOf(network.opendss.compiled(), network.opendss, unbalance)
        self.positions = Positions(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64))

    def solve(
        self,
        p_kw: Array,
        q_kvar: Array,
        label: Label = case_name,
        *,
        nominal: Power | None = None,
        generation: Power | None = None,
        positions: Positions | None = None,
        failed: dict[int, str] | None = None,
        again: Ints | None = None,
        out: Mapping[int, frozenset[int]] | None = None,
    ) -> Flow:
        """See :class:`evgrid.feeder.solvers.Solver`.

        ``out``: elements out of service by case (``evgrid.feeder.outages.Elements``); left out: none.
        ``again``: places of the cases among the members, whose last step is repeated with other power; their
        controls stay as that step leaves them. Left out: a new step, with a case a member.
        """
        cases = len(p_kw)
        outs = [self._out | (out or {}).get(case, frozenset()) for case in range(cases)]
        own, evs, made = parts_of(self.network, (p_kw, q_kvar), nominal, generation, positions, outs)
        of = np.arange(cases) % len(self._engines) if again is None else again
        voltage = np.empty((cases, len(self._circuit.node)), complex)

        changed = list[dict[int, Complex]]()
        reasons: dict[int, str] = {}
        taps, shunts = list[Ints](), list[Ints]()
        together = cases if self.in_time else 1  # cases with engines of their own
        for first in range(0, cases, together):
            engines = [self._engines[one] for one in of[first : first + together]]
            for case, engine in enumerate(engines, first):
                engine.take(own[case].sum(axis=1), evs[case], made[case].sum(axis=1), outs[case])
            for case, (engine, reason) in enumerate(
                zip(engines, self._in_threads(engines, again is not None), strict=True), first
            ):
                voltage[case] = engine.voltage()
                taps.append(engine.taps())
                shunts.append(engine.shunts())
                changed.append(engine.changed(voltage[case], self._flow.branches))
                if reason:
                    reasons[case] = reason
        if again is None:
            self.positions = Positions(np.array(taps), np.array(shunts))
        flow = self._flow.flow(voltage, own, evs, made, changed, outs)
        report_failed("OpenDSS", flow, reasons, label, failed)
        return flow

    def _in_threads(self, engines: Sequence[_Copy], again: bool) -> list[str]:
        """Solve a case of each engine; the reasons of those without solution, else ""."""

        def solve(low: int, high: int) -> list[str]:
            return [engine.solve(again) for engine in engines[low:high]]

        least = 1 if len(self._circuit.node) >= LEAST_NODES else len(engines)
        return [reason for _, part in in_threads(solve, len(engines), least) for reason in part]


def parts_of(
    network: Network,
    power: Power,
    nominal: Power | None,
    generation: Power | None,
    positions: Positions | None,
    outs: Sequence[frozenset[int]],
) -> tuple[Complex, Complex, Complex]:
    """Complex power of cases of a network from OpenDSS, kVA, (case, row, slot): of the loads at nominal
    voltage, of EVs, and of the generation, from what :meth:`evgrid.feeder.solvers.Solver.solve` takes.

    ``outs``: elements out of service in each case, which leave ports without supply and power.

    Raises
    ------
    NetworkError
        If positions are given, which the file's own controls have.
    PowerFlowError
        Naming EVs where no charger can be connected.

    """
    assert network.opendss is not None
    if positions is not None:
        raise NetworkError("a network from OpenDSS has the controls of the file, not feeder.tap_changers")
    fixed, total = network.grid.fixed, power[0] + 1j * power[1]
    given = total if nominal is None else nominal[0] + 1j * nominal[1]
    own, evs = network.opendss.circuit.loads.spread(given), total - given
    check_ports(network, evs)
    made = np.broadcast_to(fixed.gen_p_kw + 1j * fixed.gen_q_kvar, (len(total), *fixed.gen_p_kw.shape))
    if generation is not None:
        made = generation[0] + 1j * generation[1]
    circuit = network.opendss.circuit
    parts = own, evs, circuit.generators.spread(made)
    for out in {*outs} - {frozenset()}:
        mine = [case for case, one in enumerate(outs) if one == out]
        for part, ports in zip(parts, (circuit.loads, circuit.chargers, circuit.generators), strict=True):
            part[mine] *= ~circuit.dead(ports, out)
    return parts


def check_ports(network: Network, evs: Complex) -> None:
    """Raise PowerFlowError where EVs have power at a slot without a port: it would be lost."""
    assert network.opendss is not None
    lost = np.where(network.opendss.circuit.chargers.there, 0.0, np.abs(evs).max(axis=0, initial=0.0))
    if lost.max(initial=0.0) > 1e-9:
        at, slot = np.unravel_index(int(lost.argmax()), lost.shape)
        raise PowerFlowError(
            f"EVs at {network.connections.name[at]} have {lost[at, slot]:.4g} kVA on phase "
            f"{network.grid.phases[slot]}, to which no charger can be connected there"
        )


class _Copy:
    """An engine with the power of one case at a time, and EVs as elements of its own."""

    def __init__(self, engine: Engine, network: Network, step_s: float | None) -> None:
        assert network.opendss is not None
        circuit, grid = network.opendss.circuit, network.grid
        self._engine, self._circuit, self._solution = engine, engine.circuit, engine.circuit.Solution
        self._there = circuit.chargers.there
        if step_s is None:
            engine.settle()
        trafos = {str(name).lower(): row for row, name in enumerate(grid.trafos.name)}
        self._regulators = [
            (control.idx, trafos[control.Transformer.lower()], f"transformer.{control.Transformer}".lower())
            for control in enabled(self._circuit, self._circuit.RegControls)
        ]
        """Number of each regulator, and the row and name of its transformer."""
        self._taps: Ints = np.zeros(len(trafos), np.int64)
        self._primitives = dict[str, tuple[int, Ints, Complex]]()
        """Place, nodes that are not earthed, and admittance of elements that a control may change."""
        self._steps, self._switched_capacitors = self._find_capacitors()
        self._solution.LoadMult = 1.0
        loads = list[int]()
        for load in enabled(self._circuit, self._circuit.Loads):
            load.Status = 1  # fixed: neither load multiplier nor growth
            loads.append(load.idx)
        self._loads: Ints = np.array(loads, np.int64)
        self._generators = self._add_generators(network)
        self._chargers = self._add_chargers(circuit.chargers, circuit.node.tolist())
        self._switches = Switches(engine, circuit.paths, circuit.node)
        self._switched = self._find_switched()
        sizes = len(self._loads), len(self._chargers), len(self._generators)
        self._state = [np.full(size, np.nan, complex) for size in sizes]
        self._begins_s = step_s
        """Period of the steps before the first one, which begins with settled controls; then None."""

    def _add_generators(self, network: Network) -> Ints:
        """Numbers of the generators; a PV system is replaced by one of the same power."""
        assert network.opendss is not None
        circuit, found = self._circuit, list[int]()
        for at, name in enumerate(network.grid.fixed.gen_name.tolist()):
            if name.startswith("pv "):
                pv = name.removeprefix("pv ")
                circuit.SetActiveElement(f"PVSystem.{pv}")
                element = circuit.ActiveCktElement
                bus, phases, kv = element.BusNames[0], element.NumPhases, element.Properties("kv").Val
                conn = element.Properties("conn").Val
                element.Enabled = False
                name = f"evgrid_pv_{pv}"
                self._engine.run(
                    f"New Generator.{name} bus1={bus} phases={phases} kv={kv} conn={conn} kW=0 kvar=0 model=1"
                )
            circuit.Generators.Name = name
            if at in network.opendss.inverters:
                self._engine.run(f"Generator.{name}.vminpu={LOWEST_PU} vmaxpu={HIGHEST_PU}")
                circuit.Generators.Name = name
            found.append(circuit.Generators.idx)
        return np.array(found, np.int64)

    def _add_chargers(self, ports: Ports, nodes: list[str]) -> Ints:
        """Numbers of the loads that stand for EVs, one a port."""
        found = list[int]()
        for row, slot in np.argwhere(ports.there).tolist():
            bus, _, start = nodes[ports.start[row, slot]].rpartition(".")
            end = ports.end[row, slot]
            to = 0 if end == GROUND else nodes[end].rpartition(".")[2]
            name = f"evgrid_{row}_{slot}"
            bus, kv = f"{bus}.{start}.{to}", float(ports.volts[row, slot]) / 1e3
            self._engine.run(
                f'New Load.{name} phases=1 bus1="{bus}" kv={kv!r} kW=0 kvar=0 model=1 status=fixed '
                f"vlowpu={LOWEST_PU / 2} vminpu={LOWEST_PU} vmaxpu={HIGHEST_PU}"
            )
            self._circuit.Loads.Name = name
            found.append(self._circuit.Loads.idx)
        return np.array(found, np.int64)

    def _find_switched(self) -> list[str]:
        """Elements that a control of the file may open."""
        found = {
            str(self._circuit.ActiveCktElement.Properties("SwitchedObj").Val).lower()
            for _ in self._engine.in_service(("swtcontrol", "relay", "recloser", "fuse"))
        }
        return sorted(found)

    def _find_capacitors(self) -> tuple[Ints, list[tuple[int, int]]]:
        """Closed steps of each capacitor, (shunt,), and number and place of those with a control."""
        circuit = self._circuit
        controlled = {one.Capacitor.lower() for one in enabled(circuit, circuit.CapControls)}
        steps, switched = list[int](), list[tuple[int, int]]()
        for at, one in enumerate(enabled(circuit, circuit.Capacitors)):
            steps.append(int(sum(one.States)))
            if one.Name.lower() in controlled:
                switched.append((one.idx, at))
        return np.array(steps, np.int64), switched

    def take(self, loads: Complex, evs: Complex, generation: Complex, out: frozenset[int]) -> None:
        """Take over a case: power of loads and generators, kVA, (n,), and of EVs, (connection, slot).

        ``out``: elements out of service.
        """
        circuit = self._circuit
        if out != self._switches.out:
            self._switches.take_out(out)
            self._primitives.clear()
        for elements, places, power, state in (
            (circuit.Loads, self._loads, loads, self._state[0]),
            (circuit.Loads, self._chargers, evs[self._there], self._state[1]),
            (circuit.Generators, self._generators, generation, self._state[2]),
        ):
            rows = np.flatnonzero(power != state)
            changed = power[rows]
            for place, kw, kvar in zip(
                places[rows].tolist(), changed.real.tolist(), changed.imag.tolist(), strict=True
            ):
                elements.idx = place
                elements.kW, elements.kvar = kw, kvar
            state[:] = power

    def solve(self, again: bool) -> str:
        """Solve the case; the reason if it has no solution, else "".

        ``again``: in the same step, with the controls as they are.
        """
        from dss import DSSException

        try:
            if self._begins_s is not None:
                self._engine.settle()
                self._solution.Mode, self._solution.ControlMode = TIME, IN_TIME
                self._solution.Number, self._solution.StepSize = 1, self._begins_s
                self._begins_s = None
            if again:
                self._solution.SolveNoControl()
            else:
                self._solution.Solve()
        except DSSException as error:
            return reason_of(error)
        except NetworkError as error:  # the controls do not settle
            return str(error)
        return (
            ""
            if self._solution.Converged
            else f"no solution within {self._solution.MaxIterations} iterations"
        )

    def voltage(self) -> Complex:
        """Voltage of each node, V."""
        return as_complex(self._circuit.YNodeVarray)

    def changed(self, voltage: Complex, branches: Branches) -> dict[int, Complex]:
        """Currents of elements that a control may have changed, by place, at voltages (node,), and at the
        last :meth:`taps`.
        """
        for name in self._switched:
            self._read(name, branches)
        for _, _, name in self._regulators:
            if name not in self._primitives:
                self._read(name, branches)
        return {place: matrix @ voltage[nodes] for place, nodes, matrix in self._primitives.values()}

    def _read(self, name: str, branches: Branches) -> None:
        """Read the admittance of an element, if it carries current."""
        place = branches.place.get(name)
        if place is not None:
            self._circuit.SetActiveElement(name)
            nodes = branches.elements[place].nodes
            there = nodes != GROUND
            matrix = np.ascontiguousarray(primitive(self._circuit.ActiveCktElement)[:, there])
            self._primitives[name] = place, nodes[there], matrix

    def taps(self) -> Ints:
        """Position of each transformer's tap changer, (trafo,); 0 where there is none."""
        found, controls = np.zeros(len(self._taps), np.int64), self._circuit.RegControls
        for number, row, name in self._regulators:
            controls.idx = number
            found[row] = controls.TapNumber
            if found[row] != self._taps[row]:
                self._primitives.pop(name, None)
        self._taps = found
        return found

    def shunts(self) -> Ints:
        """Steps of each capacitor that are closed, (shunt,)."""
        found, capacitors = self._steps.copy(), self._circuit.Capacitors
        for number, at in self._switched_capacitors:
            capacitors.idx = number
            found[at] = sum(capacitors.States)
        return found


class LiveControls:
    """Counts the operations of all members.

    tap_operations, shunt_operations : (member, trafo) and (member, shunt), so far; a move by several
        positions at once counts as that many
    """

    def __init__(self, network: Network, members: int) -> None:
        assert network.opendss is not None
        self._regulated = network.opendss.circuit.regulated
        self._last: Positions | None = None
        self.tap_operations: Ints = np.zeros((members, len(self._regulated)), np.int64)
        self.shunt_operations: Ints = np.zeros((members, len(network.grid.fixed.shunt_name)), np.int64)

    def recorded(self, positions: Positions) -> dict[str, Array]:
        """Values of the variables of a step with its positions, a case a member."""
        if self._last is not None:
            self.tap_operations += np.abs(positions.tap - self._last.tap)
            self.shunt_operations += np.abs(positions.shunt - self._last.shunt)
        self._last = positions
        tap = np.where(self._regulated, positions.tap.astype(np.float64), np.nan)
        return {"trafo_tap": tap[np.newaxis], "shunt_step": positions.shunt[np.newaxis].astype(np.float64)}
