"""From the solver's node voltages and branch currents to every bus and line of the feeder.

Arrays only; each case is computed on its own, in a fixed order, so that its numbers do not depend
on the others in the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Complex = NDArray[np.complex128]


@njit
def bus_voltages(
    magnitude: Floats,
    angle: Floats,
    end_a: Ints,
    end_b: Ints,
    f1: Complex,
    f0: Complex,
    out: Floats,
    unbalance: Floats,
) -> None:
    """Voltage magnitude of every bus, from the nodes at the two ends of its merged line.

    magnitude, angle : (case, node, phase), pu and rad
    end_a, end_b, f1, f0 : (bus,), see :mod:`evgrid.feeder.reduction`; NaN where end_a is -1
    out : (case, bus, phase), pu
    unbalance : (case, bus), |V2|/|V1|; left out where it has no buses
    """
    cases, nodes, phases = magnitude.shape
    volts = np.empty((nodes, phases), np.complex128)
    positive, negative = np.empty(nodes, np.complex128), np.empty(nodes, np.complex128)
    turn = complex(-0.5, np.sqrt(0.75))
    back = complex(-0.5, -np.sqrt(0.75))
    wanted = unbalance.shape[1] > 0 and phases == 3
    for case in range(cases):
        for node in range(nodes):
            for phase in range(phases):
                size, at_angle = magnitude[case, node, phase], angle[case, node, phase]
                volts[node, phase] = complex(size * np.cos(at_angle), size * np.sin(at_angle))
            if wanted:
                va, vb, vc = volts[node, 0], volts[node, 1], volts[node, 2]
                positive[node] = va + turn * vb + back * vc
                negative[node] = va + back * vb + turn * vc
        for bus in range(len(end_a)):
            a, b = end_a[bus], end_b[bus]
            if wanted:
                if a < 0:
                    unbalance[case, bus] = np.nan
                else:
                    plus = positive[a] - f1[bus] * (positive[a] - positive[b])
                    minus = negative[a] - f1[bus] * (negative[a] - negative[b])
                    unbalance[case, bus] = np.sqrt(
                        (minus.real * minus.real + minus.imag * minus.imag)
                        / max(plus.real * plus.real + plus.imag * plus.imag, 1e-300)
                    )
            if a < 0:
                for phase in range(phases):
                    out[case, bus, phase] = np.nan
            elif a == b:
                for phase in range(phases):
                    out[case, bus, phase] = magnitude[case, a, phase]
            else:
                common = 0j
                if phases == 3:
                    for phase in range(3):
                        common += volts[a, phase] - volts[b, phase]
                    common *= (f0[bus] - f1[bus]) / 3.0
                for phase in range(phases):
                    at = volts[a, phase] - f1[bus] * (volts[a, phase] - volts[b, phase]) - common
                    out[case, bus, phase] = np.sqrt(at.real * at.real + at.imag * at.imag)


@njit
def loading(
    side_1: Floats, side_2: Floats, rating_1: Floats, rating_2: Floats, of: Ints, out: Floats
) -> None:
    """Loading of each element and phase: the larger current of its ends per rating.

    side_1, side_2 : (case, branch, phase), current at the two ends
    rating_1, rating_2 : (element,), rated current at the two ends; NaN (no rating) gives NaN
    of : (element,), branch whose current the element has; -1 gives 0
    out : (case, element, phase), 1 is the rating
    """
    cases, _, phases = side_1.shape
    for case in range(cases):
        for element in range(len(of)):
            branch = of[element]
            for phase in range(phases):
                if np.isnan(rating_1[element]) or np.isnan(rating_2[element]):
                    out[case, element, phase] = np.nan
                elif branch < 0:
                    out[case, element, phase] = 0.0
                else:
                    out[case, element, phase] = max(
                        side_1[case, branch, phase] / rating_1[element],
                        side_2[case, branch, phase] / rating_2[element],
                    )


@njit
def sum_of_ends(side_1: Floats, side_2: Floats, out: Floats) -> None:
    """Add to ``out`` (case,) the power into both ends of all branches (case, branch, phase): the losses."""
    cases, branches, phases = side_1.shape
    for case in range(cases):
        total = 0.0
        for branch in range(branches):
            for phase in range(phases):
                total += side_1[case, branch, phase] + side_2[case, branch, phase]
        out[case] += total


@njit
def neutral_currents(
    p: Floats,
    q: Floats,
    magnitude: Floats,
    angle: Floats,
    node: Ints,
    phase_volts: Floats,
    of: Ints,
    out: Floats,
) -> None:
    """Current in the neutral of each element: the sum of its phase currents at one end.

    p, q : (case, branch, 3), W and var into the branch at that end
    magnitude, angle : (case, node, 3), pu and rad
    node, phase_volts : (branch,), node at that end and its nominal voltage phase to neutral, V
    of : (element,), branch whose current the element has; -1 gives 0
    out : (case, element), A
    """
    cases, branches, _ = p.shape
    currents = np.empty(branches)
    for case in range(cases):
        for branch in range(branches):
            at = node[branch]
            real, imaginary = 0.0, 0.0
            for phase in range(3):
                size = magnitude[case, at, phase] * phase_volts[branch]
                if size > 0.0:
                    c, s = np.cos(angle[case, at, phase]), np.sin(angle[case, at, phase])
                    real += (p[case, branch, phase] * c + q[case, branch, phase] * s) / size
                    imaginary += (p[case, branch, phase] * s - q[case, branch, phase] * c) / size
            currents[branch] = np.sqrt(real * real + imaginary * imaginary)
        for element in range(len(of)):
            out[case, element] = currents[of[element]] if of[element] >= 0 else 0.0


@njit
def extremes(values: Floats, some: Ints, lowest: Floats, highest: Floats) -> None:
    """Lowest and highest number of each case; NaN where there is none.

    values : (case, element, phase); some : elements that count; lowest, highest : (case,)
    """
    cases, _, phases = values.shape
    for case in range(cases):
        least, most = np.inf, -np.inf
        for element in some:
            for phase in range(phases):
                value = values[case, element, phase]
                least = value if value < least else least
                most = value if value > most else most
        lowest[case] = least if least <= most else np.nan
        highest[case] = most if least <= most else np.nan


@njit
def worst_phases(loading: Floats, out: NDArray[np.floating[Any]]) -> None:
    """The highest loading of the phases, (case, element), of (case, element, phase); NaN if one is."""
    cases, elements, phases = loading.shape
    for case in range(cases):
        for element in range(elements):
            worst = loading[case, element, 0]
            for phase in range(1, phases):
                value = loading[case, element, phase]
                worst = worst if value <= worst or np.isnan(worst) else value
            out[case, element] = worst


@njit
def update_highest(loading: Floats, solved: int, highest: Floats, phase_of: Ints) -> None:
    """Update the highest loading of each member and element, and its phase, with some steps.

    loading : (case, element, phase), step by step the members that were solved; NaN is ignored
    solved : members that were solved; 1 where all members are alike
    highest, phase_of : (member, element)
    """
    members, elements = highest.shape
    _, _, phases = loading.shape
    for case in range(loading.shape[0]):
        first = case % solved
        for member in range(first, members if solved == 1 else first + 1):
            for element in range(elements):
                for phase in range(phases):
                    if loading[case, element, phase] > highest[member, element]:
                        highest[member, element] = loading[case, element, phase]
                        phase_of[member, element] = phase
