"""The least cost of a site over a whole period, one variable after the other, every exclusion a binary.

As an oracle of the control ``cost``: batteries and EVs with constant efficiencies, PV that may be curtailed,
limits of import and export. Prices of either sign.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp


@dataclass
class Store:
    """A battery, or an EV from slot ``begin`` to slot ``end``, kW, kWh.

    ``least`` is what it must have at the end.
    """

    start: float
    low: float
    high: float
    charge: float
    discharge: float
    gain: float
    fall: float
    least: float = 0.0
    begin: int = 0
    end: int = 10**6


def least_cost(load, pv, price, credit, hours, stores, import_kw=1e3, export_kw=1e3, gives=True):
    """Cost of the best schedule, currency; slots of ``hours``."""
    low, high, cost, integral, rows = [], [], [], [], []

    def variable(least, most, price=0.0, binary=False):
        low.append(least)
        high.append(most)
        cost.append(price)
        integral.append(binary)
        return len(cost) - 1

    def row(least, most, **terms):
        rows.append((list(terms.values()), least, most))

    def one_of(a, b):
        choice = variable(0, 1, binary=True)
        row(-np.inf, 0, a=(a, 1), c=(choice, -high[a]))
        row(-np.inf, high[b], b=(b, 1), c=(choice, high[b]))

    slots = len(load)
    meter = []
    for t in range(slots):
        drawn = variable(0, import_kw, price[t] * hours)
        given = variable(0, export_kw, -credit[t] * hours)
        one_of(drawn, given)
        used = variable(0, pv[t])
        meter.append([(drawn, 1), (given, -1), (used, 1)])
    for store in stores:
        before = None
        last = min(store.end, slots)
        for t in range(store.begin, last):
            charge = variable(0, store.charge)
            discharge = variable(0, store.discharge if gives else 0)
            one_of(charge, discharge)
            meter[t] += [(charge, -1), (discharge, 1)]
            ends = t == store.end - 1
            energy = variable(max(store.low, store.least) if ends else store.low, store.high)
            terms = {
                "e": (energy, 1),
                "c": (charge, -hours * store.gain),
                "d": (discharge, hours / store.fall),
            }
            if before is not None:
                terms["b"] = (before, -1)
            begin = store.start if before is None else 0.0
            row(begin, begin, **terms)
            before = energy
    for t in range(slots):
        rows.append((meter[t], load[t], load[t]))
    matrix = np.zeros((len(rows), len(cost)))
    for k, (terms, _, _) in enumerate(rows):
        for column, value in terms:
            matrix[k, column] += value
    found = milp(
        cost, integrality=np.array(integral, int), bounds=Bounds(low, high),
        constraints=LinearConstraint(matrix, [r[1] for r in rows], [r[2] for r in rows]),
        options={"mip_rel_gap": 1e-9},
    )  # fmt: skip
    assert found.status == 0, found.message
    return found.fun
