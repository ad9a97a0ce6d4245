"""Cycle ageing by rainflow of a whole trajectory of SOC at once, as the standard counts and as published."""

from itertools import pairwise
from math import exp

import numpy as np

from evgrid.fleet import degradation

POWER = {"nmc": 0.5, "lfp": 0.828}
OPEN_CIRCUIT_V = degradation.OPEN_CIRCUIT_V


def rms_v(low, high):
    """By Simpson's rule on the straight pieces of the curve, on which it is exact."""
    edges = np.unique(np.clip(np.concatenate([[low, high], np.linspace(0, 1, 21)]), low, high))
    a, b = (np.interp(edges[part], np.linspace(0, 1, 21), OPEN_CIRCUIT_V) for part in (np.s_[:-1], np.s_[1:]))
    return np.sqrt(np.sum((a * a + 4 * ((a + b) / 2) ** 2 + b * b) / 6 * np.diff(edges)) / (high - low))


def share(chemistry, low, high, travelled, c_rate, kelvin):
    """What a range adds to the loss ** (1 / p), as published; ``travelled``: charge moved, per capacity."""
    if chemistry == "nmc":
        k = 7.348e-3 * (rms_v(low, high) - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * (high - low)
        return k**2 * 2.15 * travelled
    k = (4.38e-8 + 1.55e-8 * (high - low) + 1.68e-7 * c_rate) * (exp(2190 / kelvin) + exp(-1.55e5 / kelvin))
    return k ** (1 / 0.828) * travelled / 2


def loss_by_rainflow(chemistry, trail, kelvin=298.15):
    """Cycle loss of a whole trail of (SOC, integral of the C-rate over the SOC moved to it)."""
    turns = [[trail[0][0], 0.0]]
    for soc, c_soc in trail[1:]:
        if soc == turns[-1][0]:
            continue
        if len(turns) > 1 and (soc > turns[-1][0]) == (turns[-1][0] > turns[-2][0]):
            turns[-1] = [soc, turns[-1][1] + c_soc]
        else:
            turns.append([soc, c_soc])
    total, open_ = 0.0, []
    for turn in turns:
        open_.append(list(turn))
        while len(open_) > 2:
            (a, to_a), (b, to_b), (c, to_c) = open_[-3:]
            if abs(c - b) < abs(b - a):
                break
            depth = abs(b - a)
            if len(open_) == 3:
                total += share(chemistry, min(a, b), max(a, b), depth, to_b / depth, kelvin)
                del open_[0]
                continue
            part = to_c * depth / abs(c - b)
            total += share(chemistry, min(a, b), max(a, b), 2 * depth, (to_b + part) / (2 * depth), kelvin)
            open_[-3:] = [[c, to_a + to_c - part]]
    for (a, _), (b, to_b) in pairwise(open_):
        total += share(chemistry, min(a, b), max(a, b), abs(b - a), to_b / abs(b - a), kelvin)
    return total ** POWER[chemistry]
