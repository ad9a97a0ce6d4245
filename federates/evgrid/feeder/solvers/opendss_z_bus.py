"""The implicit Z-bus Gauss method (:mod:`.z_bus`) on the matrix of OpenDSS' own engine, in batches.

The engine settles the file's snapshot, with its regulators and capacitors, and gives its matrix without loads
and generation. Loads, EVs and generation are currents at their ports, by their models in the file. A case
that does not converge is solved by the engine itself; so are all cases where the matrix is ill-conditioned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from evgrid.core.model import Array
from evgrid.errors import NetworkError
from evgrid.feeder.grid import Ints
from evgrid.feeder.opendss.engine import Engine, as_complex
from evgrid.feeder.opendss.load_models import LoadModels, constant_power, currents, together
from evgrid.feeder.opendss.supply import Switches
from evgrid.feeder.opendss.tables import GROUND, Circuit
from evgrid.feeder.solvers.interface import (
    Flow,
    Label,
    Positions,
    Power,
    case_name,
    report_failed,
    solve_again,
)
from evgrid.feeder.solvers.opendss import OpenDSSSolver, parts_of
from evgrid.feeder.solvers.opendss_flow import FlowOf
from evgrid.feeder.solvers.z_bus import LARGEST_ERROR, ZBus, ill_conditioned

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

Complex = NDArray[np.complex128]

BLOCK, BLOCK_BYTES = 500, 32 * 2**20
"""Cases whose flows are made at once, at most, and memory of the currents of their conductors."""


class OpenDSSZBusSolver:
    """Solves batches of cases with the controls of the file as its snapshot leaves them.

    newton_cases : number of cases so far that OpenDSS solved, as z-bus did not converge or is too inaccurate
    note : why OpenDSS solves all cases; empty: it does not
    """

    name = "z-bus"
    balance_tolerance = 1e-6
    in_time = False

    def __init__(self, network: Network, unbalance: bool = True) -> None:
        """Settle the snapshot and factorise the network.

        Without ``unbalance`` voltage unbalance and neutral currents are left out.

        Raises
        ------
        NetworkError
            If the network is not from OpenDSS, or its snapshot has no solution.

        """
        assert network.opendss is not None
        self.network, circuit = network, network.opendss.circuit
        self._circuit = circuit
        engine = network.opendss.compiled()
        engine.settle()
        self._flow = FlowOf(engine, network.opendss, unbalance)
        self.newton_cases = 0
        self._engine: OpenDSSSolver | None = None
        groups = circuit.loads, circuit.chargers, circuit.generators
        self._there = [ports.there for ports in groups]
        volts = [ports.volts[there] for ports, there in zip(groups, self._there, strict=True)]
        self._models = together(self._flow.models, constant_power(volts[1]), self._flow.generator_models)
        start, end = (
            np.concatenate(
                [getattr(ports, side)[there] for ports, there in zip(groups, self._there, strict=True)]
            )
            for side in ("start", "end")
        )
        self._out = network.opendss.out
        Switches(engine, circuit.paths, circuit.node).take_out(self._out)
        y, sources = _linear(engine, circuit)
        each = 16 * max(len(self._flow.branches.node), 1)
        self._block = min(BLOCK, max(BLOCK_BYTES // each, 1))
        ports = _incidence(start, end, len(circuit.node))
        node_base = np.where(circuit.node_volts > 0, circuit.node_volts, np.inf)
        self._bus = ZBus(y, sources, ports, np.concatenate(volts), node_base)
        self.note = ""
        if self._bus.error > LARGEST_ERROR:
            self.note = f"{ill_conditioned(self._bus.error)}; OpenDSS solves every case"

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
        if self.note:
            before = len(failed or ())
            flow = self._by_engine().solve(
                p_kw,
                q_kvar,
                label,
                nominal=nominal,
                generation=generation,
                positions=positions,
                failed=failed,
            )
            self.newton_cases += len(p_kw) - (len(failed or ()) - before)
            return flow
        outs = [self._out] * len(p_kw)
        own, evs, made = parts_of(self.network, (p_kw, q_kvar), nominal, generation, positions, outs)
        parts = list[Flow]()
        stuck = list[int]()
        for begin in range(0, len(p_kw), self._block):
            some = slice(begin, begin + self._block)
            flow, lost = self._solve(own[some], evs[some], made[some])
            parts.append(flow)
            stuck += (begin + lost).tolist()
        flow = parts[0]
        if len(parts) > 1:
            tables = [part.tables() for part in parts]
            flow = Flow(**{name: np.concatenate([table[name] for table in tables]) for name in tables[0]})
        if stuck:
            again = np.array(stuck)
            reasons = solve_again(flow, again, self._by_engine(), (p_kw, q_kvar), nominal, generation)
            self.newton_cases += len(again) - len(reasons)
            report_failed("OpenDSS", flow, reasons, label, failed)
        return flow

    def _by_engine(self) -> OpenDSSSolver:
        if self._engine is None:
            self._engine = OpenDSSSolver(self.network, unbalance=self._flow.unbalance)
        return self._engine

    def _solve(self, own: Complex, evs: Complex, made: Complex) -> tuple[Flow, Ints]:
        """The flow of some cases, and those of them that do not converge."""
        parts = zip((own, evs, -made), self._there, strict=True)
        power = (1e3 * np.concatenate([values[:, there] for values, there in parts], axis=1).T).astype(
            complex
        )
        some = np.flatnonzero((power != 0).any(axis=1))
        power, models = power[some], LoadModels._make(column[some] for column in self._models)

        def law(voltage: Complex, cases: Ints) -> Complex:
            out = np.empty_like(voltage)
            currents(voltage, cases, power, models, out)
            return out

        found = self._bus.solve(law, len(own), some)
        size = len(self._circuit.node), len(own)
        re, im = np.empty(size), np.empty(size)
        self._bus.nodes(found.current, re, im, some)
        outs = [self._out] * len(own)
        flow = self._flow.flow(np.ascontiguousarray((re + 1j * im).T), own, evs, made, outs=outs)
        return flow, np.flatnonzero(found.stuck)


def _linear(engine: Engine, circuit: Circuit) -> tuple[csc_array, Complex]:
    """Admittance matrix without loads and generation, S, (node, node), and injections of the sources, A."""
    for kind in ("Load", "Generator", "PVSystem"):
        engine.circuit.SetActiveClass(kind)
        if engine.circuit.ActiveClass.Count:
            engine.run(f"batchedit {kind}..* enabled=no")
    engine.build()
    names = [name.lower() for name in engine.circuit.YNodeOrder]
    matrix = engine.dss.YMatrix
    data, rows, first = matrix.GetCompressedYMatrix(True)
    values = np.asarray(data) if np.iscomplexobj(data) else as_complex(data)
    matrix.ZeroInjCurr()
    matrix.GetSourceInjCurrents()
    injected = as_complex(matrix.getI())[-len(names) :]
    y = csc_array((values, rows, first), shape=(len(names), len(names)))
    place = {name: at for at, name in enumerate(names)}
    if set(place) != set(circuit.node.tolist()):
        raise NetworkError(f"network {engine.source}: some nodes have nothing but loads")
    order = np.array([place[name] for name in circuit.node.tolist()])
    return csc_array(y[order][:, order]), injected[order]


def _incidence(start: Ints, end: Ints, nodes: int) -> csc_array:
    """Incidence of ports, (node, port)."""
    ports = np.arange(len(start))
    both = end != GROUND
    rows = np.concatenate([start, end[both]])
    values = np.concatenate([np.ones(len(start)), -np.ones(both.sum())])
    return csc_array((values, (rows, np.concatenate([ports, ports[both]]))), shape=(nodes, len(start)))
