"""Compiled steps of the implicit Z-bus Gauss method (:mod:`~evgrid.feeder.solvers.z_bus`).

Arrays only. Cases lie side by side, :data:`LANES` of them in one pass, and no number of a case is used for
another: what a case gives does not depend, to the last bit, on the others of its batch.

The factors are those of ``scipy.sparse.linalg.splu``: ``lower`` without its diagonal of ones, ``upper``
without its diagonal, the reciprocals of which are ``inverse``; each as (first entry of the column, rows,
values). A network is handed on as such a tuple of factors, so that calls stay short.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import inlined, njit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

Columns = tuple[Ints, Ints, Complex]
"""A sparse matrix by columns: first entry of each column (and the end), rows, values."""

LANES = 16
"""Cases that are substituted in one pass: some 100 kB of working memory for a feeder of 150 nodes."""


@njit
def zip_currents(
    voltage: Complex,
    cases: Ints,
    power: Complex,
    current: Complex,
    impedance: Complex,
    nominal: Floats,
    out: Complex,
) -> None:
    """Currents that loads draw at their voltage.

    voltage, out : (port, column), of the cases ``cases`` (column,)
    power, current, impedance : (port, case) complex power at nominal voltage of the loads of constant power,
        current and impedance; the latter two may have no ports
    nominal : (port,) magnitude of the nominal voltage
    """
    dependent = current.shape[0] > 0
    for port in range(voltage.shape[0]):
        for column in range(voltage.shape[1]):
            case = cases[column]
            at = voltage[port, column]
            square = at.real * at.real + at.imag * at.imag
            s = power[port, case]
            if dependent:
                share = square / (nominal[port] * nominal[port])
                s += current[port, case] * np.sqrt(share) + impedance[port, case] * share
            out[port, column] = complex(
                (s.real * at.real + s.imag * at.imag) / square,
                (s.real * at.imag - s.imag * at.real) / square,
            )


@njit
def hold(
    voltage: Complex,
    cases: Ints,
    ports: Ints,
    target: Floats,
    z: Complex,
    gain: Floats,
    power: Complex,
) -> None:
    """Change the reactive powers of sources that hold a voltage, and the voltages at their ports with them.

    voltage : (port, column), of the cases ``cases`` (column,); power : (port, case), drawn
    ports, target, z, gain : see :class:`~evgrid.feeder.solvers.z_bus.Held`
    """
    sources, phases = ports.shape
    weights = np.exp(-2j * np.pi / 3 * np.arange(phases)) / np.sqrt(phases)  # phases by positive sequence
    one, missing = np.empty(sources, np.complex128), np.empty(sources)
    for column in range(voltage.shape[1]):
        case = cases[column]
        for k in range(sources):
            one[k] = 0.0
            for phase in range(phases):
                one[k] += np.conj(weights[phase]) * voltage[ports[k, phase], column]
            missing[k] = target[k] - np.abs(one[k]) / np.sqrt(phases)
        for k in range(sources):
            more = 0.0
            for other in range(sources):
                more += gain[k, other] * missing[other]
            for phase in range(phases):
                power[ports[k, phase], case] -= 1j * more / phases
            current = -1j * more / np.conj(one[k])
            for other in range(sources):
                step = z[other, k] * current
                for phase in range(phases):
                    voltage[ports[other, phase], column] += weights[phase] * step


@inlined
def _substitute(lower: Columns, upper: Columns, inverse: Complex, count: int, re: Floats, im: Floats) -> None:
    """Solve L U x = b for ``count`` right-hand sides in place, (row, lane)."""
    first, rows, values = lower
    for column in range(len(inverse)):
        for entry in range(first[column], first[column + 1]):
            row, a, b = rows[entry], values[entry].real, values[entry].imag
            for lane in range(count):
                x, y = re[column, lane], im[column, lane]
                re[row, lane] -= a * x - b * y
                im[row, lane] -= a * y + b * x
    first, rows, values = upper
    for column in range(len(inverse) - 1, -1, -1):
        a, b = inverse[column].real, inverse[column].imag
        for lane in range(count):
            x, y = re[column, lane], im[column, lane]
            re[column, lane] = a * x - b * y
            im[column, lane] = a * y + b * x
        for entry in range(first[column], first[column + 1]):
            row, a, b = rows[entry], values[entry].real, values[entry].imag
            for lane in range(count):
                x, y = re[column, lane], im[column, lane]
                re[row, lane] -= a * x - b * y
                im[row, lane] -= a * y + b * x


@inlined
def _inject(
    ports: Columns, some: Ints, current: Complex, begin: int, count: int, re: Floats, im: Floats
) -> None:
    """Sums of the port currents of ``count`` cases at the rows of the factors, (row, lane)."""
    first, rows, weights = ports
    re[:] = 0.0
    im[:] = 0.0
    for place in range(len(some)):
        for entry in range(first[some[place]], first[some[place] + 1]):
            row, a, b = rows[entry], weights[entry].real, weights[entry].imag
            for lane in range(count):
                i = current[place, begin + lane]
                re[row, lane] += a * i.real - b * i.imag
                im[row, lane] += a * i.imag + b * i.real


@njit
def _node_drops(
    lower: Columns,
    upper: Columns,
    inverse: Complex,
    into: Columns,
    some: Ints,
    current: Complex,
    begin: int,
    count: int,
    re: Floats,
    im: Floats,
) -> None:
    """Voltage drops Y^-1 A i of all rows under the port currents of ``count`` cases, (row, lane).

    A single case is compiled apart: its loops need no lanes.
    """
    if count == 1:
        _inject(into, some, current, begin, 1, re, im)
        _substitute(lower, upper, inverse, 1, re, im)
    else:
        _inject(into, some, current, begin, count, re, im)
        _substitute(lower, upper, inverse, count, re, im)


@inlined
def _take(
    at: complex, place: int, case: int, base: float, current: Complex, voltage: Complex, change: Floats
) -> None:
    """Take the new voltage of a port in a case, and raise its largest change where it carries current."""
    step, i = at - voltage[place, case], current[place, case]
    if i.real != 0.0 or i.imag != 0.0:
        square = (step.real * step.real + step.imag * step.imag) / (base * base)
        if not square <= change[case]:  # also where it is no number
            change[case] = square
    voltage[place, case] = at


@njit
def port_voltages(
    lower: Columns,
    upper: Columns,
    inverse: Complex,
    into: Columns,
    out_of: Columns,
    no_load: Complex,
    base: Floats,
    some: Ints,
    current: Complex,
    voltage: Complex,
    change: Floats,
) -> None:
    """One iteration: voltages of ports under given currents, ``no_load - Z current``.

    into, out_of : incidence of the ports, rows in the order of ``lower`` and of ``upper``
    no_load, base : (port,) voltage without currents; voltage that ``change`` is relative to
    some : (active port,) ports that carry current
    current, voltage : (active port, case); ``voltage`` of the iteration before, and then of this one
    change : (case,) square of the largest relative change of a voltage at ports with current
    """
    nodes = len(inverse)
    lanes = min(LANES, current.shape[1])
    re, im = np.empty((nodes, lanes)), np.empty((nodes, lanes))
    first, rows, weights = out_of
    for begin in range(0, current.shape[1], LANES):
        count = min(LANES, current.shape[1] - begin)
        _node_drops(lower, upper, inverse, into, some, current, begin, count, re, im)
        change[begin : begin + count] = 0.0
        for place in range(len(some)):
            port = some[place]
            for lane in range(count):
                at = no_load[port]
                for entry in range(first[port], first[port + 1]):
                    row, weight = rows[entry], weights[entry]
                    at -= complex(
                        weight.real * re[row, lane] + weight.imag * im[row, lane],
                        weight.real * im[row, lane] - weight.imag * re[row, lane],
                    )
                case = begin + lane
                _take(at, place, case, base[port], current, voltage, change)


@njit
def dense_port_voltages(
    z: Complex,
    no_load: Complex,
    base: Floats,
    some: Ints,
    current: Complex,
    voltage: Complex,
    change: Floats,
) -> None:
    """The same with Z = A^H Y^-1 A itself, (port, port): faster where ports are few among many nodes."""
    lanes = min(LANES, current.shape[1])
    re, im = np.empty((len(some), lanes)), np.empty((len(some), lanes))
    for begin in range(0, current.shape[1], LANES):
        count = min(LANES, current.shape[1] - begin)
        re[:] = 0.0
        im[:] = 0.0
        for place in range(len(some)):
            for of in range(len(some)):
                a, b = z[some[place], some[of]].real, z[some[place], some[of]].imag
                for lane in range(count):
                    i = current[of, begin + lane]
                    re[place, lane] += a * i.real - b * i.imag
                    im[place, lane] += a * i.imag + b * i.real
        change[begin : begin + count] = 0.0
        for place in range(len(some)):
            port = some[place]
            for lane in range(count):
                case = begin + lane
                at = no_load[port] - complex(re[place, lane], im[place, lane])
                _take(at, place, case, base[port], current, voltage, change)


@njit
def node_voltages(
    lower: Columns,
    upper: Columns,
    inverse: Complex,
    into: Columns,
    order: Ints,
    no_load: Complex,
    some: Ints,
    current: Complex,
    re: Floats,
    im: Floats,
) -> None:
    """Voltages of all nodes under given currents, real and imaginary parts (node, case).

    order, no_load : (node,) row of ``upper`` and voltage without currents
    """
    nodes = len(inverse)
    lanes = min(LANES, current.shape[1])
    at_re, at_im = np.empty((nodes, lanes)), np.empty((nodes, lanes))
    for begin in range(0, current.shape[1], LANES):
        count = min(LANES, current.shape[1] - begin)
        _node_drops(lower, upper, inverse, into, some, current, begin, count, at_re, at_im)
        for node in range(nodes):
            row, a, b = order[node], no_load[node].real, no_load[node].imag
            for lane in range(count):
                re[node, begin + lane] = a - at_re[row, lane]
                im[node, begin + lane] = b - at_im[row, lane]
