"""From the sequence voltages of nodes to every bus, line and transformer (see :mod:`.sequence_network`).

Arrays only. ``re``, ``im`` : (row, column) real and imaginary parts of voltages in unitary symmetrical
components, per unit; ``place`` : (sequence, node) their rows; column 0 is the case ``first`` of the outputs.
Each case is computed on its own, some of them side by side, so that its numbers do not depend on the others.
A balanced feeder has one sequence, the positive one, and one phase.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import inlined, njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Complex = NDArray[np.complex128]

LANES = 8
"""Cases that are computed side by side."""

_THIRD = 1 / np.sqrt(3)


@inlined
def _to_phases(re: Floats, im: Floats, count: int) -> None:
    """Phase quantities of sequence quantities, in place, (3, lane)."""
    for lane in range(count):
        zero_re, zero_im = re[0, lane] * _THIRD, im[0, lane] * _THIRD
        sum_re, sum_im = (re[1, lane] + re[2, lane]) * _THIRD, (im[1, lane] + im[2, lane]) * _THIRD
        gap_re, gap_im = (re[1, lane] - re[2, lane]) / 2, (im[1, lane] - im[2, lane]) / 2
        base_re, base_im = zero_re - sum_re / 2, zero_im - sum_im / 2
        re[0, lane], im[0, lane] = zero_re + sum_re, zero_im + sum_im
        re[1, lane], im[1, lane] = base_re + gap_im, base_im - gap_re
        re[2, lane], im[2, lane] = base_re - gap_im, base_im + gap_re


@njit
def bus_voltages(
    re: Floats,
    im: Floats,
    place: Ints,
    first: int,
    end_a: Ints,
    end_b: Ints,
    f1: Complex,
    f0: Complex,
    out: Floats,
    unbalance: Floats,
) -> None:
    """Voltage magnitude of every bus, from the nodes at the two ends of its merged line.

    end_a, end_b, f1, f0 : (bus,), see :mod:`evgrid.feeder.reduction`; NaN where end_a is -1
    out : (case, bus, phase), pu
    unbalance : (case, bus), |V2|/|V1|; left out where it has no buses
    """
    phases = place.shape[0]
    wanted = unbalance.shape[1] > 0 and phases == 3
    v_re, v_im = np.empty((3, LANES)), np.empty((3, LANES))
    size, ratio = np.empty((3, LANES)), np.empty(LANES)
    for begin in range(0, re.shape[1], LANES):
        count = min(LANES, re.shape[1] - begin)
        case = first + begin
        for bus in range(len(end_a)):
            a, b = end_a[bus], end_b[bus]
            if a < 0:
                for lane in range(count):
                    for phase in range(phases):
                        out[case + lane, bus, phase] = np.nan
                    if wanted:
                        unbalance[case + lane, bus] = np.nan
                continue
            for sequence in range(phases):
                at = place[sequence, a]
                if a == b:
                    for lane in range(count):
                        v_re[sequence, lane] = re[at, begin + lane]
                        v_im[sequence, lane] = im[at, begin + lane]
                    continue
                other = place[sequence, b]
                share = f0[bus] if phases == 3 and sequence == 0 else f1[bus]
                x, y = share.real, share.imag
                for lane in range(count):
                    gap_re = re[at, begin + lane] - re[other, begin + lane]
                    gap_im = im[at, begin + lane] - im[other, begin + lane]
                    v_re[sequence, lane] = re[at, begin + lane] - (x * gap_re - y * gap_im)
                    v_im[sequence, lane] = im[at, begin + lane] - (x * gap_im + y * gap_re)
            if wanted:
                for lane in range(count):
                    plus = v_re[1, lane] * v_re[1, lane] + v_im[1, lane] * v_im[1, lane]
                    minus = v_re[2, lane] * v_re[2, lane] + v_im[2, lane] * v_im[2, lane]
                    ratio[lane] = np.sqrt(minus / max(plus, 1e-300))
                for lane in range(count):
                    unbalance[case + lane, bus] = ratio[lane]
            if phases == 3:
                _to_phases(v_re, v_im, count)
            for phase in range(phases):
                for lane in range(count):
                    x, y = v_re[phase, lane], v_im[phase, lane]
                    size[phase, lane] = np.sqrt(x * x + y * y)
            for lane in range(count):
                for phase in range(phases):
                    out[case + lane, bus, phase] = size[phase, lane]


@njit
def line_flows(
    re: Floats,
    im: Floats,
    place: Ints,
    first: int,
    start: Ints,
    stop: Ints,
    series: Complex,
    shunt: Complex,
    amperes: Floats,
    at_head: Bools,
    of: Ints,
    rating: Floats,
    loading: Floats,
    neutral: Floats,
    losses: Floats,
    head_p: Floats,
    head_q: Floats,
) -> None:
    """Loading and neutral current of all lines; their losses and their power out of the head are added up.

    start, stop : (branch,) nodes; series, shunt : (sequence, branch) admittance, and that of each half shunt
    amperes : (branch,) current of 1 pu
    at_head : (2, branch) whether start and stop are nodes of a source
    of : (line,) branch that the line is a part of, -1 for none; rating : (line,) A, NaN for none
    loading : (case, line, phase); neutral : (case, line) A at the start, no lines: left out
    losses : (case,) kW; head_p, head_q : (case, phase) kW, kvar
    """
    phases, branches = place.shape[0], len(start)
    wanted = neutral.shape[1] > 0 and phases == 3
    current = np.empty((branches, phases, LANES))
    in_neutral = np.empty((branches, LANES))
    i_re, i_im = np.empty((3, LANES)), np.empty((3, LANES))
    v_re, v_im = np.empty((3, LANES)), np.empty((3, LANES))
    lost = np.empty(LANES)
    for begin in range(0, re.shape[1], LANES):
        count = min(LANES, re.shape[1] - begin)
        case = first + begin
        lost[:] = 0.0
        for branch in range(branches):
            shunted = False
            for sequence in range(phases):
                y = shunt[sequence, branch]
                shunted |= y.real != 0.0 or y.imag != 0.0
            for end in range(2 if shunted or at_head[1, branch] else 1):
                own, far = (start[branch], stop[branch]) if end == 0 else (stop[branch], start[branch])
                for sequence in range(phases):
                    at, other = place[sequence, own], place[sequence, far]
                    a, b = series[sequence, branch].real, series[sequence, branch].imag
                    c, d = shunt[sequence, branch].real, shunt[sequence, branch].imag
                    for lane in range(count):
                        here_re, here_im = re[at, begin + lane], im[at, begin + lane]
                        gap_re = here_re - re[other, begin + lane]
                        gap_im = here_im - im[other, begin + lane]
                        i_re[sequence, lane] = a * gap_re - b * gap_im + (c * here_re - d * here_im)
                        i_im[sequence, lane] = a * gap_im + b * gap_re + (c * here_im + d * here_re)
                        v_re[sequence, lane], v_im[sequence, lane] = here_re, here_im
                        if end == 0:
                            lost[lane] += a * (gap_re * gap_re + gap_im * gap_im)
                        if shunted:
                            lost[lane] += c * (here_re * here_re + here_im * here_im)
                if wanted and end == 0:
                    for lane in range(count):
                        x, y0 = i_re[0, lane], i_im[0, lane]
                        in_neutral[branch, lane] = np.sqrt(3.0 * (x * x + y0 * y0)) * amperes[branch]
                if phases == 3:
                    _to_phases(i_re, i_im, count)
                for phase in range(phases):
                    for lane in range(count):
                        x, y0 = i_re[phase, lane], i_im[phase, lane]
                        size = np.sqrt(x * x + y0 * y0) * amperes[branch]
                        if end == 1:
                            size = max(size, current[branch, phase, lane])
                        current[branch, phase, lane] = size
                if at_head[end, branch]:
                    if phases == 3:
                        _to_phases(v_re, v_im, count)
                    for phase in range(phases):
                        for lane in range(count):
                            x, y0 = v_re[phase, lane], v_im[phase, lane]
                            p, q = i_re[phase, lane], i_im[phase, lane]
                            head_p[case + lane, phase] += x * p + y0 * q
                            head_q[case + lane, phase] += y0 * p - x * q
        for lane in range(count):
            losses[case + lane] += lost[lane]
        for line in range(len(of)):
            branch = of[line]
            none = 0.0 if not np.isnan(rating[line]) else np.nan
            for lane in range(count):
                for phase in range(phases):
                    loading[case + lane, line, phase] = (
                        current[branch, phase, lane] / rating[line] if branch >= 0 else none
                    )
            if wanted:
                for lane in range(count):
                    neutral[case + lane, line] = in_neutral[branch, lane] if branch >= 0 else 0.0


@njit
def trafo_flows(
    re: Floats,
    im: Floats,
    place: Ints,
    first: int,
    ends: Ints,
    admittance: Complex,
    amperes: Floats,
    at_head: Bools,
    of: Ints,
    rating: Floats,
    loading: Floats,
    hv_p: Floats,
    lv_p: Floats,
    lv_q: Floats,
    neutral: Floats,
    losses: Floats,
    head_p: Floats,
    head_q: Floats,
) -> None:
    """Loading, power, neutral current of all transformers; losses and power out of the head are added up.

    ends, at_head, amperes : (2, branch) nodes at high and low voltage, whether they are a source's, current
        of 1 pu there
    admittance : (2, 2, sequence, branch) current into the end by the voltage of this end, and of the other
    of : (branch,) position of the transformer
    rating : (2, trafo) A, NaN for none
    loading, lv_p, lv_q : (case, trafo, phase); hv_p : (case, trafo) kW into the high voltage, out of the low
    neutral : (case, trafo) A at the low voltage, no trafos: left out
    losses : (case,) kW; head_p, head_q : (case, phase) kW, kvar
    """
    phases = place.shape[0]
    i_re, i_im = np.empty((3, LANES)), np.empty((3, LANES))
    v_re, v_im = np.empty((3, LANES)), np.empty((3, LANES))
    for begin in range(0, re.shape[1], LANES):
        count = min(LANES, re.shape[1] - begin)
        case = first + begin
        for branch in range(len(of)):
            trafo = of[branch]
            for end in range(2):
                for sequence in range(phases):
                    at, other = place[sequence, ends[end, branch]], place[sequence, ends[1 - end, branch]]
                    own, mutual = (
                        admittance[end, 0, sequence, branch],
                        admittance[end, 1, sequence, branch],
                    )
                    for lane in range(count):
                        x, y = re[at, begin + lane], im[at, begin + lane]
                        z, w = re[other, begin + lane], im[other, begin + lane]
                        i_re[sequence, lane] = (
                            own.real * x - own.imag * y + (mutual.real * z - mutual.imag * w)
                        )
                        i_im[sequence, lane] = (
                            own.real * y + own.imag * x + (mutual.real * w + mutual.imag * z)
                        )
                        v_re[sequence, lane], v_im[sequence, lane] = x, y
                if phases == 3:
                    if end == 1 and neutral.shape[1] > 0:
                        for lane in range(count):
                            x, y = i_re[0, lane], i_im[0, lane]
                            neutral[case + lane, trafo] = np.sqrt(3.0 * (x * x + y * y)) * amperes[1, branch]
                    _to_phases(i_re, i_im, count)
                    _to_phases(v_re, v_im, count)
                for phase in range(phases):
                    for lane in range(count):
                        x, y = v_re[phase, lane], v_im[phase, lane]
                        z, w = i_re[phase, lane], i_im[phase, lane]
                        p, q = x * z + y * w, y * z - x * w
                        share = np.sqrt(z * z + w * w) * amperes[end, branch] / rating[end, trafo]
                        losses[case + lane] += p
                        if end == 0:
                            hv_p[case + lane, trafo] += p
                        else:
                            lv_p[case + lane, trafo, phase] = -p
                            lv_q[case + lane, trafo, phase] = -q
                            share = max(share, loading[case + lane, trafo, phase])
                        loading[case + lane, trafo, phase] = share
                        if at_head[end, branch]:
                            head_p[case + lane, phase] += p
                            head_q[case + lane, phase] += q


@njit
def add_at_ports(p: Floats, q: Floats, port: Ints, sign: float, out: Complex) -> None:
    """Add powers of slots to those of their ports.

    p, q : (case, slot), or a single row for all cases; port : (slot,), -1 for none; out : (port, case)
    """
    for case in range(out.shape[1]):
        row = case if p.shape[0] > 1 else 0
        for slot in range(len(port)):
            if port[slot] >= 0:
                out[port[slot], case] += complex(sign * p[row, slot], sign * q[row, slot])


@njit
def add_voltage_dependent(
    voltage: Complex, current: Complex, impedance: Complex, nominal: Floats, out: Floats
) -> None:
    """Add the active power of constant-current and -impedance loads beyond that at nominal voltage.

    voltage, current, impedance : (port, case), see :func:`.z_bus_kernels.zip_currents`; out : (case,)
    """
    for port in range(voltage.shape[0]):
        for case in range(voltage.shape[1]):
            at = voltage[port, case]
            share = (at.real * at.real + at.imag * at.imag) / (nominal[port] * nominal[port])
            out[case] += current[port, case].real * (np.sqrt(share) - 1.0)
            out[case] += impedance[port, case].real * (share - 1.0)
