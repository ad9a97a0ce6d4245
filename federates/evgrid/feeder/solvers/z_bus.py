"""The implicit Z-bus Gauss method: power flows of many cases on a network's own admittance matrix.

In: a linear network (admittance matrix and sources), the ports at which loads are connected, and a law that
gives the current that a load draws at its voltage. Out: currents and voltages of all ports and nodes.

The network is factorised once, and every case iterates on it:

    u = u0 - Z i(u),    u0 = A^H Y^-1 s,    Z = A^H Y^-1 A

with the admittance matrix Y of the nodes whose voltage is unknown, the currents s that sources inject there,
the incidence A of the ports (node, port), and the voltages u and currents i of the ports. A port lies between
a node and earth (one entry, 1) or between two nodes (1 and -1); entries may be complex, where the nodes are
those of a transformed network (symmetrical components).

It converges linearly, at about the rate of the relative voltage drop, and not at all beyond a limit that lies
below the network's own; such cases are reported, for a Newton method. Chen et al. 1991,
doi:10.1109/61.85860; convergence: Bazrafshan and Gatsis 2018, doi:10.1109/TPWRS.2017.2703835.

The factors of an ill-conditioned matrix (switches of some micro-ohm) give voltages in error. The error is
estimated once per factorisation, by one step of iterative refinement whose residual is computed in extended
precision (Demmel et al. 2006, doi:10.1145/1141885.1141894).

Units are any consistent ones: S, V and A, or per unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from evgrid.errors import NetworkError
from evgrid.feeder.solvers import z_bus_kernels as kernels
from evgrid.feeder.solvers.z_bus_kernels import Columns, Complex, Floats, Ints

TOLERANCE = 1e-11
"""Largest error of a port's voltage, relative to its base, by the rate at which the changes fall."""

LARGEST_ERROR = 1e-7
"""Largest estimated error of a node's voltage, relative to its base, with which the factors are used."""

LEAST_RATE = 0.05
"""The error counts as falling no faster than by this factor an iteration."""

MOST_ITERATIONS = 60

SETTLED = 8
"""Iterations after which the change must fall from one to the next, or the case is given up."""

SETTLED_HELD = 40
"""The same where sources hold voltages: with their reactive powers the changes may swing as they fall."""

BLOCK = 256
"""Cases that iterate together."""

Currents = Callable[[Complex, Ints], Complex]
"""Currents drawn (port, column) at voltages (port, column) by the loads of the cases (column,).

Each column must depend on its own case only."""


@dataclass(frozen=True)
class Held:
    """Sources of fixed active power that hold the magnitude of a voltage by their reactive power.

    Each lies at one port, or at the ports of three phases to earth, with equal powers; then it holds the
    magnitude of their positive sequence. In every iteration its reactive power changes by what is missing in
    the voltages, over their sensitivity (compensation of PV nodes: Cheng and Shirmohammadi 1995,
    doi:10.1109/59.387902), and its ports' voltages with it.

    ports : (source, phase) rows of the voltages
    target : (source,) magnitude of the voltage (of all phases: that of a phase)
    z : (source, source) impedance between their (positive-sequence) voltages
    gain : (source, source) reactive power out of each source per magnitude of voltage that is missing at each
    """

    ports: Ints
    target: Floats
    z: Complex
    gain: Floats

    def correct(self, voltage: Complex, cases: Ints, power: Complex) -> Complex:
        """Voltages (port, column) with those of the sources corrected; changes their part of ``power``, which
        is drawn, (port, case).
        """
        out = voltage.copy()
        kernels.hold(out, cases, self.ports, self.target, self.z, self.gain, power)
        return out


@dataclass(frozen=True)
class ZipLoads:
    """Loads of constant power, current and impedance.

    power, current, impedance : (port, case) complex power at nominal voltage; the latter two None: there are
        none
    nominal : (port,) magnitude of the nominal voltage
    held : sources that hold a voltage; their reactive power is added to ``power``; None: there are none
    """

    power: Complex
    nominal: Floats
    current: Complex | None = None
    impedance: Complex | None = None
    held: Held | None = None

    def __call__(self, voltage: Complex, cases: Ints) -> Complex:
        """See :data:`Currents`."""
        if self.held is not None:
            voltage = self.held.correct(voltage, cases, self.power)
        none = self.power[:0]
        out = np.empty_like(voltage)
        kernels.zip_currents(
            voltage, cases, self.power, none if self.current is None else self.current,
            none if self.impedance is None else self.impedance, self.nominal, out,
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class PortFlow:
    """Solution at the ports.

    voltage, current : (port, case); of cases that do not converge without load
    stuck : (case,) bool, where the iteration does not converge
    iterations : (case,)
    """

    voltage: Complex
    current: Complex
    stuck: np.ndarray[Any, np.dtype[np.bool_]]
    iterations: Ints


class ZBus:
    """A network at whose ports currents are drawn.

    Safe for calls from several threads.
    """

    def __init__(
        self,
        y: Any,
        sources: Complex,
        ports: Any,
        base: Floats | None = None,
        node_base: Floats | None = None,
    ) -> None:
        """Factorise the network.

        Parameters
        ----------
        y
            Admittance matrix, sparse (node, node), of the nodes whose voltage is unknown.
        sources
            Currents that sources inject at these nodes, (node,).
        ports
            Incidence, sparse (node, port): the voltage of a port is ``ports^H u``, and a current i that is
            drawn at it takes ``ports i`` from the nodes.
        base
            Voltage of each port, (port,), to which the tolerance is relative; left out: 1.
        node_base
            Voltage of each node, (node,), to which the estimated error is relative; left out: 1.

        Raises
        ------
        NetworkError
            If the matrix is singular: some nodes have no connection to a source or to earth.

        """
        y, a = csc_array(y, dtype=complex), csc_array(ports, dtype=complex)
        a.sort_indices()
        try:
            lu = splu(y, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=1e-3, options={"SymmetricMode": True})
        except RuntimeError as error:
            raise NetworkError(f"the admittance matrix can't be factorised: {error}") from None
        nodes, self.ports = a.shape
        row, self._order = lu.perm_r.astype(np.int64), lu.perm_c.astype(np.int64)
        self._lower, _ = _triangle(lu.L)
        self._upper, diagonal = _triangle(lu.U)
        self._inverse = 1 / diagonal
        first, rows = a.indptr.astype(np.int64), a.indices.astype(np.int64)
        self._into: Columns = (first, row[rows], a.data)
        self._out_of: Columns = (first, self._order[rows], a.data)
        self.no_load = np.asarray(lu.solve(np.asarray(sources, complex)))
        """Voltage of each node without currents at the ports, (node,)."""
        self.port_no_load = np.asarray(a.conj().T @ self.no_load)
        """The same of each port, (port,)."""
        self._base = np.ones(self.ports) if base is None else np.asarray(base, np.float64)
        correction = np.abs(lu.solve(_residual(y, self.no_load, sources)))
        self.error = float(np.max(correction / (1.0 if node_base is None else node_base), initial=0.0))
        """Estimated error of the nodes' voltages by the factorisation: the largest, relative to the base."""
        entries = nodes + len(self._lower[1]) + len(self._upper[1]) + 2 * len(a.data)
        self._z = None
        if self.ports**2 < entries:
            self._z = np.ascontiguousarray(a.conj().T @ lu.solve(a.toarray()))

    def solve(
        self,
        currents: Currents,
        cases: int,
        some: Ints | None = None,
        tolerance: float = TOLERANCE,
        settled: int = SETTLED,
    ) -> PortFlow:
        """Iterate all cases until their port voltages stand still.

        Parameters
        ----------
        currents
            The law of the loads.
        cases
            Number of cases.
        some
            Ports that carry current in some case, of which ``currents`` takes and gives rows, in this order;
            left out: all. The numbers do not depend on whether ports without current are among them.
        tolerance, settled
            See :data:`TOLERANCE` and :data:`SETTLED`.

        """
        some = np.arange(self.ports) if some is None else np.asarray(some, np.int64)
        shape = len(some), cases
        voltage = np.empty(shape, complex)
        current = np.empty(shape, complex)
        stuck, iterations = np.zeros(cases, np.bool_), np.zeros(cases, np.int64)
        for begin in range(0, cases, BLOCK):
            left = np.arange(begin, min(begin + BLOCK, cases))
            block = slice(begin, begin + len(left))
            voltage[:, block] = self.port_no_load[some][:, np.newaxis]
            at = voltage[:, block].copy()
            before, rate_before = np.full(len(left), np.inf), np.full(len(left), np.nan)
            for iteration in range(1, MOST_ITERATIONS + 1):
                change = np.empty(len(left))
                self._iterate(some, currents(at, left), at, change)
                change, rate = np.sqrt(change), np.sqrt(change) / before
                stands = _settled(change, np.fmax(rate, rate_before), tolerance)
                lost = np.isnan(change) if iteration < settled else ~(change < before)
                out = stands | lost
                before, rate_before = change, rate
                if out.any():
                    voltage[:, left[stands]] = at[:, stands]
                    iterations[left[out]] = iteration
                    stuck[left[lost & ~stands]] = True
                    if out.all():
                        break
                    left, at = left[~out], np.ascontiguousarray(at[:, ~out])
                    before, rate_before = before[~out], rate_before[~out]
            else:
                stuck[left] = True
                iterations[left] = MOST_ITERATIONS
            columns = np.arange(begin, begin + current[:, block].shape[1])
            current[:, block] = currents(np.ascontiguousarray(voltage[:, block]), columns)
        return PortFlow(voltage, current, stuck, iterations)

    def _iterate(self, some: Ints, current: Complex, voltage: Complex, change: Floats) -> None:
        if self._z is not None:
            kernels.dense_port_voltages(
                self._z, self.port_no_load, self._base, some, current, voltage, change
            )
            return
        kernels.port_voltages(
            self._lower, self._upper, self._inverse, self._into, self._out_of, self.port_no_load, self._base,
            some, current, voltage, change,
        )  # fmt: skip

    def nodes(self, current: Complex, re: Floats, im: Floats, some: Ints | None = None) -> None:
        """Write the voltages of all nodes under given port currents, (port, case), into the first rows of
        ``re`` and ``im``, (node, case); ``some``: the ports of the rows of ``current``; left out: all.
        """
        some = np.arange(self.ports) if some is None else np.asarray(some, np.int64)
        kernels.node_voltages(
            self._lower, self._upper, self._inverse, self._into, self._order, self.no_load, some, current,
            re, im,
        )  # fmt: skip


def _residual(y: csc_array, x: Complex, b: Complex) -> Complex:
    """Residual b - Y x in extended precision (where the platform has it), rounded, (node,)."""
    rows = y.tocsr()
    terms = rows.data.astype(np.clongdouble) * x[rows.indices]
    return np.asarray(b - np.add.reduceat(terms, rows.indptr[:-1]), complex)


def ill_conditioned(error: float) -> str:
    """The reason why voltages with an estimated ``error`` are not used, pu."""
    return (
        f"the admittance matrix is ill-conditioned: z-bus would be in error by some {error:.0e} pu, "
        f"more than {LARGEST_ERROR:.0e} pu"
    )


def _settled(change: Floats, rate: Floats, tolerance: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether what is left over of the changes, as a geometric series, is within the tolerance."""
    rate = np.maximum(rate, LEAST_RATE)
    return np.asarray((change <= tolerance) | (change * rate <= tolerance * (1 - rate)))


def _triangle(factor: Any) -> tuple[Columns, Complex]:
    """A factor without its diagonal, by columns, and its diagonal."""
    factor = csc_array(factor)
    diagonal = factor.diagonal()
    column = np.repeat(np.arange(len(diagonal)), np.diff(factor.indptr))
    there = (factor.indices != column) & (factor.data != 0)
    first = np.concatenate([[0], np.cumsum(np.bincount(column[there], minlength=len(diagonal)))])
    return (first.astype(np.int64), factor.indices[there].astype(np.int64), factor.data[there]), diagonal
