"""The solver z-bus for networks from pandapower: all cases iterate on the feeder's own admittance matrix.

The feeder, reduced (:mod:`~evgrid.feeder.reduction`), becomes the linear networks of its sequences
(:mod:`.sequence_network`), which are factorised once; only the loads iterate (:mod:`.z_bus`). The nodes of
ideal sources have known voltages. Every other node with loads or generation has a port to earth for each
phase, or between each two phases where they are in delta.

A generator that holds a voltage (a PV bus) has a reactive power without limits that follows it. In three
phases it feeds in three equal powers, and holds the magnitude of the positive sequence.

Each set of positions of tap changers and shunts has a factorisation of its own; the latest are kept.

A case that does not converge is solved with Newton-Raphson by power-grid-model, or where it can't represent
the network, by pandapower; so are all cases at positions at which the matrix is ill-conditioned.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csc_array

from evgrid.core.jit import in_threads
from evgrid.core.model import Array
from evgrid.errors import NetworkError, shortened
from evgrid.feeder.grid import Bools, Floats, Grid, Ints
from evgrid.feeder.reduction import Circuit, Complex, circuit
from evgrid.feeder.solvers import sequence_kernels as kernels
from evgrid.feeder.solvers import sequence_network as sequences
from evgrid.feeder.solvers.interface import (
    Flow,
    Label,
    Positions,
    Power,
    Solver,
    at_odds,
    case_name,
    empty_flow,
    lines_without_impedance,
    phase_powers,
    report_failed,
    solve_again,
)
from evgrid.feeder.solvers.z_bus import (
    LARGEST_ERROR,
    SETTLED,
    SETTLED_HELD,
    Held,
    ZBus,
    ZipLoads,
    ill_conditioned,
)

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

KEPT_STATES = 256
"""Sets of positions whose factorisation is kept."""

BLOCK = 64
"""Cases whose node voltages are held at once."""

LEAST_CASES = 32
"""Cases for each thread at least."""


@dataclass(frozen=True)
class _State:
    """The network with its devices at some positions.

    bus : the factorised network of the nodes that are not sources
    trafos : (end, 2, sequence, trafo) current into an end by its own voltage, and by that of the other end
    shunt : (shunt,) admittance
    held : sources that hold a voltage, at all ports; None without
    apart, by_phase : transformers with a tap of its own in each phase (0 in ``trafos``), as places in the
        circuit, and their two-ports, see :func:`~.sequence_network.tapped_by_phase`
    """

    bus: ZBus
    trafos: Complex
    shunt: Complex
    held: Held | None
    apart: Ints
    by_phase: Complex


class ZBusSolver:
    """Solves batches of cases by the implicit Z-bus Gauss method.

    newton_cases : number of cases so far that Newton-Raphson solved, as z-bus failed or is too inaccurate
    note : why Newton-Raphson solves all cases (at the network's own positions); empty: it does not
    """

    name = "z-bus"
    balance_tolerance = 1e-6
    in_time = False

    def __init__(self, network: Network, reduce: bool = True, unbalance: bool = True) -> None:
        """Factorise the network.

        Raises
        ------
        NetworkError
            Naming the elements that can't be represented.

        """
        faults = faults_of(network)
        if faults:
            raise NetworkError.of(network.source, faults)
        self.network, self._reduce = network, reduce
        self.three_phase = network.three_phase
        self.unbalance = unbalance and self.three_phase
        self.newton_cases = 0
        self._newton: Solver | None = None
        grid, c = network.grid, circuit(network.grid, network.topology, reduce)
        self.circuit, phases, nodes = c, len(grid.phases), len(c.nominal_kv)
        self._lines, self._series, self._half = sequences.line_branches(grid, c, phases)
        head = np.unique(c.of_bus[grid.sources.bus])
        at_head = np.zeros(nodes, bool)
        at_head[head] = True
        self._at_head = at_head
        known = np.flatnonzero(np.tile(at_head, phases))
        self._unknown = np.flatnonzero(np.tile(~at_head, phases))
        self._known_voltage = _source_voltages(grid, c, phases)[known]
        self._known = known
        place = np.empty(phases * nodes, np.int64)  # row of each node's voltage: the unknown, then the known
        place[self._unknown] = np.arange(len(self._unknown))
        place[known] = len(self._unknown) + np.arange(len(known))
        self._place = place.reshape(phases, nodes)
        base_kv = sequences.base_kv(c, phases)
        amperes = 1 / base_kv if self.three_phase else 1 / (np.sqrt(3) * base_kv)
        self._line_amperes = amperes[c.line_from]
        self._trafo_ends = np.stack([c.trafo_hv, c.trafo_lv])
        self._trafo_amperes = amperes[self._trafo_ends]
        trafos = grid.trafos
        self._trafo_rating = trafos.rating_kva / (
            np.sqrt(3) * np.stack([trafos.rated_hv_kv, trafos.rated_lv_kv])
        )
        self._line_rating = 1e3 * grid.lines.rating_ka
        self._line_at_head = np.stack([at_head[c.line_from], at_head[c.line_to]])
        self._trafo_at_head = at_head[self._trafo_ends]
        self._shunt_node = c.of_bus[grid.fixed.shunt_bus]
        self._head_loads, self._head_gens, self._head_shunts = (
            np.flatnonzero(at_head[c.of_bus[buses]])
            for buses in (grid.loads.bus, grid.fixed.gen_bus, grid.fixed.shunt_bus)
        )
        self._head_pu = np.zeros(nodes)
        self._head_pu[c.of_bus[grid.sources.bus]] = grid.sources.voltage_pu
        self._make_ports(grid, phases)
        self._states: OrderedDict[bytes, _State] = OrderedDict()
        self._moving = np.flatnonzero(trafos.tap_side >= 0)
        self._own = self._state(None)
        self.note = ""
        other = self._more_accurate(self._own, None)
        if other is not None:
            self.note = f"{ill_conditioned(self._own.bus.error)}; {other.name} solves every case"

    def _make_ports(self, grid: Grid, phases: int) -> None:
        """A port to earth for each phase of each node with loads or generation, then one between each two
        phases of each node with some in delta.
        """
        c = self.circuit
        at = np.concatenate([c.of_bus[grid.loads.bus], c.of_bus[grid.fixed.gen_bus]])
        delta = np.concatenate([grid.loads.delta, grid.fixed.gen_delta])
        there, port, count = ~self._at_head[at], np.full((len(at), phases), -1, np.int64), 0
        to_phases = sequences.TO_PHASES if phases == 3 else np.ones((1, 1))
        rows, weights, nominal = list[Ints](), list[Complex](), list[Floats]()
        for some, voltages, volts in (
            (there & ~delta, to_phases, 1.0),
            (there & delta, to_phases - np.roll(to_phases, -1, axis=0), np.sqrt(3)),
        ):
            nodes = np.unique(at[some])
            places = np.searchsorted(nodes, at[some])[:, np.newaxis]
            port[some] = count + places * phases + np.arange(phases)
            rows.append(np.repeat(self._place[:, nodes].T[:, np.newaxis], phases, axis=1).reshape(-1))
            weights.append(np.tile(np.conj(voltages), (len(nodes), 1, 1)).reshape(-1))  # (node, phase, seq)
            nominal.append(np.full(len(nodes) * phases, volts))
            count += len(nodes) * phases
        self._load_port, self._gen_port = np.split(port, [len(grid.loads.bus)])
        self._nominal = np.concatenate(nominal)
        self._ports = csc_array(
            (np.concatenate(weights).astype(complex), np.concatenate(rows), np.arange(count + 1) * phases),
            (len(self._unknown), count),
        )

    def _state(self, positions: tuple[Ints, Ints] | None) -> _State:
        """The network at positions of tap changers, (trafo,) or (trafo, phase), and of shunts, (shunt,)."""
        key = b"" if positions is None else positions[0][self._moving].tobytes() + positions[1].tobytes()
        found = self._states.get(key)
        if found is not None:
            self._states.move_to_end(key)
            return found
        grid, c, phases = self.network.grid, self.circuit, len(self.network.grid.phases)
        tap, step = positions if positions is not None else (None, None)
        apart, k, factor = np.zeros(0, np.int64), np.zeros(0, np.int64), np.ones((3, 0))
        if tap is not None and tap.ndim == 2:
            unequal = (tap != tap[:, :1]).any(axis=1) & (grid.trafos.tap_side >= 0)
            apart = np.flatnonzero(unequal[c.trafo])
            k = c.trafo[apart]
            steps = (tap[k] - grid.trafos.tap_neutral[k, np.newaxis]).T
            factor = 1 + steps * grid.trafos.tap_step_percent[k] / 100
            tap = tap[:, 0].copy()
            tap[k] = grid.trafos.tap_neutral[k]
        trafos = sequences.trafo_branches(grid, c, phases, tap)
        shunt = sequences.shunts(grid, c, phases, step)
        branches, nodes = [self._lines, trafos], len(c.nominal_kv)
        y = sequences.admittance(nodes, phases, branches, shunt)
        two_ports = np.stack([np.stack([trafos.y_ss, trafos.y_st]), np.stack([trafos.y_tt, trafos.y_ts])])
        by_phase = np.zeros((2, 2, 3, 3, 0), complex)
        if len(apart):
            at_lv, ends = grid.trafos.tap_side[k] == 1, (c.trafo_hv[apart], c.trafo_lv[apart])
            neutral = sequences.tapped_by_phase(trafos, apart, np.ones_like(factor), at_lv)
            by_phase = sequences.tapped_by_phase(trafos, apart, factor, at_lv)
            y = csc_array(y + sequences.entries_by_phase(nodes, ends, by_phase - neutral))
            two_ports[..., apart] = 0.0
        if self.three_phase:
            _, one_each = sequences.unearthed(nodes, branches, shunt, np.flatnonzero(self._at_head))
            y = csc_array(y + csc_array((np.ones(len(one_each)), (one_each, one_each)), y.shape))
        rows = y.tocsr()[self._unknown].tocsc()
        sources = -(rows[:, self._known] @ self._known_voltage)
        bus = ZBus(rows[:, self._unknown], sources, self._ports)
        made = _State(
            bus,
            two_ports,
            shunt[1],
            self._hold(bus),
            apart,
            by_phase,
        )
        self._states[key] = made
        if len(self._states) > KEPT_STATES:
            self._states.popitem(last=False)
        return made

    def _hold(self, bus: ZBus) -> Held | None:
        """The generators that hold a voltage, with the sensitivities of a network without load.

        Raises
        ------
        NetworkError
            If their voltages don't depend on their reactive powers.

        """
        fixed, phases = self.network.grid.fixed, len(self.network.grid.phases)
        there = fixed.holds & (self._gen_port[:, 0] >= 0)
        if not there.any():
            return None
        nodes, first = np.unique(self.circuit.of_bus[fixed.gen_bus[there]], return_index=True)
        ports, target = self._gen_port[there][first], fixed.gen_held_pu[there][first]
        each = np.zeros((bus.ports, len(nodes)), complex)
        to_phases = sequences.TO_PHASES[:, 1] if phases == 3 else np.ones(1)
        each[ports, np.arange(len(nodes))[:, np.newaxis]] = to_phases
        re, im = np.empty((2, len(self._unknown), len(nodes)))
        bus.nodes(each, re, im)
        rows = self._place[1 if phases == 3 else 0, nodes]
        no_load = bus.no_load[rows]
        z = np.ascontiguousarray(no_load[:, np.newaxis] - (re + 1j * im)[rows])
        turn = no_load / np.abs(no_load)
        slope = (np.conj(turn)[:, np.newaxis] * z * turn).imag / (phases * target)
        try:
            gain = np.linalg.inv(slope)
        except np.linalg.LinAlgError:
            raise NetworkError(
                f"network {self.network.source}: the voltages of gens don't depend on their reactive power"
            ) from None
        return Held(ports, target, z, gain)

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
    ) -> Flow:
        """See :class:`evgrid.feeder.solvers.Solver`."""
        grid, cases = self.network.grid, len(p_kw)
        own, given = (p_kw, q_kvar) if nominal is None else nominal, generation
        if generation is None:
            generation = grid.fixed.gen_p_kw[np.newaxis], grid.fixed.gen_q_kvar[np.newaxis]
        flow = empty_flow(self.network.grid, cases, self.unbalance)
        stuck = np.zeros(cases, np.bool_)
        if positions is None:
            groups = [(self._own, np.arange(cases))]
        else:
            tap = positions.tap[:, self._moving].reshape(cases, -1)
            rows = np.concatenate([tap, positions.shunt], axis=1)
            _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
            groups = [
                (self._state((positions.tap[one], positions.shunt[one])), np.flatnonzero(which == place))
                for place, one in enumerate(first)
            ]
        for state, some in groups:
            if self._more_accurate(state, positions) is not None:
                stuck[some] = True
                continue
            whole = len(some) == cases
            pick = slice(None) if whole else some

            def of(pair: Power, pick: slice | Ints = pick) -> Power:
                return pair if len(pair[0]) == 1 < cases else (pair[0][pick], pair[1][pick])

            part = flow if whole else empty_flow(self.network.grid, len(some), self.unbalance)
            stuck[some] = self._solve(state, of((p_kw, q_kvar)), of(own), of(generation), part)
            if not whole:
                for name, values in part.tables().items():
                    getattr(flow, name)[some] = values
        if stuck.any():
            again = np.flatnonzero(stuck)
            self._by_newton(flow, again, (p_kw, q_kvar), label, nominal, given, positions, failed)
        return flow

    def _solve(self, state: _State, power: Power, own: Power, generation: Power, flow: Flow) -> Bools:
        """Solve cases at one set of positions into ``flow``; bool where the iteration does not converge."""
        cases = len(power[0])
        used = np.zeros(self._ports.shape[1] + 1, np.bool_)  # the last one: no port
        for (p, q), port in ((power, self._load_port), (generation, self._gen_port)):
            used[port[((p != 0) | (q != 0)).any(axis=0)]] = True
        if state.held is not None:
            used[state.held.ports] = True
        if self.network.grid.loads.voltage_dependent:
            used[self._load_port[((own[0] != 0) | (own[1] != 0)).any(axis=0)]] = True
        some = np.flatnonzero(used[:-1])
        at = np.full(len(used), -1, np.int64)
        at[some] = np.arange(len(some))

        def solve(low: int, high: int) -> Bools:
            def of(pair: Power) -> Power:
                rows = slice(low, high) if len(pair[0]) == cases else slice(None)
                return pair[0][rows], pair[1][rows]

            return self._solve_some(state, of(power), of(own), of(generation), some, at, flow, low)

        return np.concatenate([stuck for _, stuck in in_threads(solve, cases, LEAST_CASES)])

    def _solve_some(
        self,
        state: _State,
        power: Power,
        own: Power,
        generation: Power,
        some: Ints,
        at: Ints,
        flow: Flow,
        first: int,
    ) -> Bools:
        """Solve cases of one thread into ``flow``, from its case ``first`` on.

        some, at : ports that carry power, and the place of each port among them, -1 for the others
        """
        grid, c, bus, cases = self.network.grid, self.circuit, state.bus, len(power[0])
        load_port, gen_port = (at[port].reshape(-1) for port in (self._load_port, self._gen_port))
        constant = np.zeros((len(some), cases), complex)
        current = impedance = None
        if grid.loads.voltage_dependent:
            z, i = (
                [share[:, column, np.newaxis] for column in range(2)]
                for share in (grid.loads.z_share, grid.loads.i_share)
            )
            power = power[0] - own[0] * (z[0] + i[0]), power[1] - own[1] * (z[1] + i[1])
            current, impedance = np.zeros_like(constant), np.zeros_like(constant)
            kernels.add_at_ports(*_flat((own[0] * i[0], own[1] * i[1])), load_port, 1.0, current)
            kernels.add_at_ports(*_flat((own[0] * z[0], own[1] * z[1])), load_port, 1.0, impedance)
        kernels.add_at_ports(*_flat(power), load_port, 1.0, constant)
        kernels.add_at_ports(*_flat(generation), gen_port, -1.0, constant)
        held, kvar = None, np.zeros((0, cases))
        if state.held is not None:
            held = replace(state.held, ports=at[state.held.ports])
            kvar = constant[held.ports].imag.sum(axis=1)
        loads = ZipLoads(constant, self._nominal[some], current, impedance, held)
        ports = bus.solve(loads, cases, some, settled=SETTLED if held is None else SETTLED_HELD)
        mine = slice(first, first + cases)
        fixed, head = flow.fixed_kw[mine], (flow.head_p_kw[mine], flow.head_q_kvar[mine])
        fixed -= generation[0].sum(axis=(1, 2))
        if held is not None and state.held is not None and flow.held_kvar is not None:
            kvar = kvar - constant[held.ports].imag.sum(axis=1)  # it is power drawn that falls
            some_gens = np.flatnonzero(grid.fixed.holds & (self._gen_port[:, 0] >= 0))
            source = np.searchsorted(state.held.ports[:, 0], self._gen_port[some_gens, 0])
            flow.held_kvar[mine, some_gens] = (kvar[source] / np.bincount(source)[source, np.newaxis]).T
        if current is not None and impedance is not None:
            kernels.add_voltage_dependent(ports.voltage, current, impedance, loads.nominal, fixed)
        rows = len(self._unknown)
        re, im = (np.empty((rows + len(self._known), BLOCK)) for _ in "ri")
        re[rows:] = self._known_voltage.real[:, np.newaxis]
        im[rows:] = self._known_voltage.imag[:, np.newaxis]
        for begin in range(0, cases, BLOCK):
            count = min(BLOCK, cases - begin)
            if count < BLOCK:
                re, im = (np.ascontiguousarray(x[:, :count]) for x in (re, im))
            bus.nodes(np.ascontiguousarray(ports.current[:, begin : begin + count]), re, im, some)
            at_first = first + begin
            kernels.bus_voltages(
                re, im, self._place, at_first, c.end_a, c.end_b, c.f1, c.f0, flow.voltage_pu,
                flow.voltage_unbalance,
            )  # fmt: skip
            cases_of = slice(at_first, at_first + count)
            for across, buses, delta in (
                (flow.connection_pu, grid.loads.bus, grid.loads.delta),
                (flow.generator_pu, grid.fixed.gen_bus, grid.fixed.gen_delta),
            ):
                if across is not None:
                    across[cases_of] = flow.voltage_pu[cases_of][:, buses]
                    across[cases_of, delta] = self._between_phases(re, im, buses[delta])
            kernels.line_flows(
                re, im, self._place, at_first, c.line_from, c.line_to, self._series, self._half,
                self._line_amperes, self._line_at_head, c.of_line, self._line_rating, flow.line_loading,
                flow.neutral_a, flow.losses_kw, flow.head_p_kw, flow.head_q_kvar,
            )  # fmt: skip
            kernels.trafo_flows(
                re, im, self._place, at_first, self._trafo_ends, state.trafos, self._trafo_amperes,
                self._trafo_at_head, c.trafo, self._trafo_rating, flow.trafo_loading, flow.trafo_p_kw,
                flow.trafo_lv_p_kw, flow.trafo_lv_q_kvar, flow.trafo_neutral_a, flow.losses_kw,
                flow.head_p_kw, flow.head_q_kvar,
            )  # fmt: skip
            self._add_by_phase(state, re, im, slice(at_first, at_first + count), flow)
            for node, admittance in zip(self._shunt_node, state.shunt, strict=True):
                for row in self._place[:, node]:
                    square = re[row] * re[row] + im[row] * im[row]
                    fixed[begin : begin + count] += square * admittance.real
        self._add_at_head(state, power, own, generation, head, fixed)
        return ports.stuck

    def _add_by_phase(self, state: _State, re: Floats, im: Floats, cases: slice, flow: Flow) -> None:
        """Loading, power, neutral current of transformers with a tap of its own in each phase; losses and
        power out of the head are added up. Each case is computed without the others.
        """
        for place, at in enumerate(state.apart.tolist()):
            k, loading = self.circuit.trafo[at], list[Array]()
            rows = self._place[:, self._trafo_ends[:, at]]  # (sequence, end)
            u = re[rows] + 1j * im[rows]
            volts = np.stack([w[0] * u[0] + w[1] * u[1] + w[2] * u[2] for w in sequences.TO_PHASES])
            for end in range(2):
                own, other = state.by_phase[end, 0, ..., place], state.by_phase[end, 1, ..., place]
                current = np.zeros((3, u.shape[2]), complex)
                for p in range(3):
                    for q in range(3):
                        current[p] += own[p, q] * volts[q, end] + other[p, q] * volts[q, 1 - end]
                amperes = self._trafo_amperes[end, at]
                loading.append((np.abs(current) * amperes / self._trafo_rating[end, k]).T)
                power = (volts[:, end] * np.conj(current)).T
                p_kw, q_kvar = power.real, power.imag
                flow.losses_kw[cases] += p_kw.sum(axis=1)
                if end == 0:
                    flow.trafo_p_kw[cases, k] = p_kw.sum(axis=1)
                else:
                    flow.trafo_lv_p_kw[cases, k], flow.trafo_lv_q_kvar[cases, k] = -p_kw, -q_kvar
                    if self.unbalance:
                        neutral = np.abs(current[0] + current[1] + current[2])
                        flow.trafo_neutral_a[cases, k] = neutral * amperes
                if self._trafo_at_head[end, at]:
                    flow.head_p_kw[cases] += p_kw
                    flow.head_q_kvar[cases] += q_kvar
            flow.trafo_loading[cases, k] = np.maximum(*loading)

    def _between_phases(self, re: Floats, im: Floats, buses: Ints) -> Array:
        """Voltages between the phases of buses, pu, (case, bus, 3), from those of rows, (row, case)."""
        sequence = self._place[:, self.circuit.of_bus[buses]]
        u = re[sequence] + 1j * im[sequence]
        weights = (sequences.TO_PHASES - np.roll(sequences.TO_PHASES, -1, axis=0)) / np.sqrt(3)
        return np.stack([np.abs(w[0] * u[0] + w[1] * u[1] + w[2] * u[2]).T for w in weights], axis=2)

    def _add_at_head(
        self, state: _State, power: Power, own: Power, generation: Power, head: Power, fixed: Array
    ) -> None:
        """Add the power of what is connected at the nodes of sources to that out of the head."""
        grid = self.network.grid
        for k in self._head_loads.tolist():
            volts, drawn = self._head_pu[self.circuit.of_bus[grid.loads.bus[k]]], [*power]
            for column in range(2):
                z, i = grid.loads.z_share[k, column], grid.loads.i_share[k, column]
                more = own[column][:, k] * (z * (volts**2 - 1) + i * (volts - 1))
                # ``power`` is that of constant power alone where shares depend on the voltage
                drawn[column] = power[column][:, k] + own[column][:, k] * (z + i) + more
                if column == 0 and (z or i):
                    fixed += more.sum(axis=1)
            taken = phase_powers(drawn[0], drawn[1], bool(grid.loads.delta[k]))
            for part, total in zip(taken, head, strict=True):
                total += part
        for k in self._head_gens.tolist():
            made = phase_powers(generation[0][:, k], generation[1][:, k], bool(grid.fixed.gen_delta[k]))
            for part, total in zip(made, head, strict=True):
                total -= part
        for k in self._head_shunts.tolist():
            drawn = np.conj(state.shunt[k]) * self._head_pu[self._shunt_node[k]] ** 2
            head[0][:] += drawn.real
            head[1][:] += drawn.imag

    def _by_newton(
        self,
        flow: Flow,
        again: Ints,
        power: Power,
        label: Label,
        nominal: Power | None,
        generation: Power | None,
        positions: Positions | None,
        failed: dict[int, str] | None,
    ) -> None:
        """Solve the cases ``again`` with a Newton method and write them into ``flow``."""
        if self._newton is None:
            self._newton = self._make_newton(positions)
        if self._newton is None:
            why = "and neither power-grid-model nor pandapower, the next ones, can represent the network"
            reasons = dict.fromkeys(again.tolist(), f"the iteration does not converge, {why}")
        else:
            reasons = solve_again(flow, again, self._newton, power, nominal, generation, positions)
        self.newton_cases += len(again) - len(reasons)
        report_failed(self.name, flow, reasons, label, failed)

    def _more_accurate(self, state: _State, positions: Positions | None) -> Solver | None:
        """The solver to use where the factors are not accurate enough; None: they are, or there is none."""
        if state.bus.error <= LARGEST_ERROR:
            return None
        if self._newton is None:
            self._newton = self._make_newton(positions)
        return self._newton

    def _make_newton(self, positions: Positions | None) -> Solver | None:
        """power-grid-model where it can represent the network, else pandapower; None if neither can."""
        from evgrid.feeder.solvers import pandapower, power_grid_model

        network = self.network
        if positions is not None and positions.tap.ndim == 3:
            return None
        moved = positions is not None and self.three_phase and (network.grid.trafos.tap_side == 1).any()
        if not moved and not power_grid_model.faults_of(network):
            return power_grid_model.PowerGridModelSolver(network, self._reduce, unbalance=self.unbalance)
        return None if pandapower.faults_of(network) else pandapower.PandapowerSolver(network, self.unbalance)


def _flat(power: Power) -> Power:
    """(case, connection, phase) as (case, slot)."""
    p, q = (np.ascontiguousarray(part).reshape(len(part), -1) for part in power)
    return p, q


def _source_voltages(grid: Grid, c: Circuit, phases: int) -> Complex:
    """Voltage of the sources' nodes, (sequence and node,), in the components of the network; else 0."""
    volts = np.zeros((phases, len(c.nominal_kv)), complex)
    angle = np.deg2rad(grid.sources.angle_degree)
    scale = np.sqrt(3) if phases == 3 else 1.0
    volts[1 if phases == 3 else 0, c.of_bus[grid.sources.bus]] = (
        scale * grid.sources.voltage_pu * np.exp(1j * angle)
    )
    return volts.reshape(-1)


def faults_of(network: Network) -> list[str]:
    """Elements that z-bus can't represent, a sentence each."""
    grid, node = network.grid, network.topology.node
    trafos, ends = grid.trafos, "can't be represented with the solver z-bus"
    faults = lines_without_impedance(network, "z-bus") + at_odds(network, "z-bus")
    volts = grid.sources.voltage_pu * np.exp(1j * np.deg2rad(grid.sources.angle_degree))
    _, first, which = np.unique(node[grid.sources.bus], return_index=True, return_inverse=True)
    faults += [
        f"ext_grid {k} {ends}: it is at a bus with another one of another voltage"
        for k in np.flatnonzero(volts != volts[first][which])
    ]
    if not grid.three_phase:
        return faults
    for k in np.flatnonzero(trafos.hv_closed | trafos.lv_closed):
        name, shift, group = trafos.name[k], trafos.shift_degree[k], str(trafos.vector_group[k])
        if group.lower() not in sequences.ODD | sequences.EVEN:
            known = "Dyn, YNyn, Yzn, YNd, Yyn, YNy, Yy, Yd, Dy and Dd"
            faults.append(f"trafo '{name}' {ends}: vector_group = '{group}', in three phases {known} are")
            continue
        kind = "odd" if group.lower() in sequences.ODD else "even"
        if shift % 30 or round(shift / 30) % 2 != (kind == "odd"):
            faults.append(
                f"trafo '{name}' {ends}: shift_degree = {shift:g} with vector_group '{group}', "
                f"must be an {kind} multiple of 30"
            )
    return faults or _without_earth(network)


def _without_earth(network: Network) -> list[str]:
    """Loads and generation to earth where the network has none."""
    grid = network.grid
    c = circuit(grid, network.topology, True)
    branches = [sequences.line_branches(grid, c, 3)[0], sequences.trafo_branches(grid, c, 3)]
    floating, _ = sequences.unearthed(
        len(c.nominal_kv), branches, sequences.shunts(grid, c, 3), c.of_bus[grid.sources.bus]
    )
    faults = list[str]()
    for kinds, names, buses, delta in (
        (["load"] * len(grid.loads.name), grid.loads.name, grid.loads.bus, grid.loads.delta),
        (grid.fixed.gen_kind, grid.fixed.gen_name, grid.fixed.gen_bus, grid.fixed.gen_delta),
    ):
        faults += shortened(
            f"{kinds[k]} '{names[k]}' can't be represented with the solver z-bus: it is connected between "
            f"phases and earth, but nothing earths the network at bus '{grid.buses.name[buses[k]]}'"
            for k in np.flatnonzero(floating[c.of_bus[buses]] & ~delta)
        )
    return faults
