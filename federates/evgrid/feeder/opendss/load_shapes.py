"""Loads of an OpenDSS file over time, by its own load shapes.

In: the circuit, and which shapes hold (daily, yearly or duty). Out: a base load
(:class:`~evgrid.feeder.base_load.BaseLoad`). A step of the feeder has the value at its end, as the engine's
own modes of time take it: of a shape with an interval the nearest point, else what lies between its points. A
load without a yearly or duty shape has its daily one, and without any it is constant, as it is where its
status is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evgrid.core.model import Array
from evgrid.feeder.grid import Floats, Ints
from evgrid.feeder.opendss.engine import Engine, enabled

KINDS = ("daily", "yearly", "duty")


@dataclass(frozen=True)
class Shape:
    """A load shape.

    p, q : (point,) of active and reactive power: shares of the load's own, or kW and kvar with ``actual``
    interval_h : between points; 0: they are at ``hours``
    hours : (point,) of each point; empty with an interval
    """

    p: Floats
    q: Floats
    interval_h: float
    hours: Floats
    actual: bool

    def at(self, hours: Array) -> tuple[Array, Array]:
        """Values at some hours, (n,) each; beyond its last point it begins again."""
        count = len(self.p)
        if self.interval_h > 0:
            number = np.round(hours / self.interval_h).astype(np.int64)
            number = np.where(number > count, number % count, number)
            place = np.where(number == 0, count, number) - 1
            return self.p[np.clip(place, 0, count - 1)], self.q[np.clip(place, 0, count - 1)]
        last = self.hours[-1]
        wrapped = np.where(hours > last, hours - np.trunc(hours / last) * last, hours)
        return np.interp(wrapped, self.hours, self.p), np.interp(wrapped, self.hours, self.q)


@dataclass(frozen=True)
class Shapes:
    """The load shapes of a circuit.

    shapes : all that a load has
    of_load : (kind, load) place of the shape of each load for daily, yearly and duty; -1: it is constant
    """

    shapes: tuple[Shape, ...]
    of_load: Ints


def shapes_of(engine: Engine) -> Shapes:
    """The shapes of the loads in service, in the order of the circuit's loads."""
    circuit = engine.circuit
    names, rows = dict[str, int](), list[list[int]]()
    for load in enabled(circuit, circuit.Loads):
        daily = load.daily.lower()
        given = [daily, load.Yearly.lower() or daily, load.duty.lower() or daily]
        fixed = int(load.Status) == 1
        rows.append([-1 if fixed or not name else names.setdefault(name, len(names)) for name in given])
    return Shapes(
        tuple(_shape(circuit, name) for name in names), np.array(rows, np.int64).reshape(-1, len(KINDS)).T
    )


def _shape(circuit: Any, name: str) -> Shape:
    shapes = circuit.LoadShapes
    shapes.Name = name
    p, q = np.array(shapes.Pmult, float), np.array(shapes.Qmult, float)
    interval = float(shapes.HrInterval)
    hours = np.zeros(0) if interval > 0 else np.array(shapes.TimeArray, float)
    actual = bool(shapes.UseActual)
    if len(q) != len(p):
        q = np.full(len(p), np.nan) if actual else p
    return Shape(p, q, interval, hours, actual)


def powers(shapes: Shapes, kind: str, own_kw: Array, own_kvar: Array, hours: Array) -> tuple[Array, Array]:
    """Power of the loads at some hours, kW and kvar, (n, load); ``own_kw``, ``own_kvar``: (load,) without.

    Of a shape of kW without kvar the reactive power is in proportion to the active.
    """
    p, q = (np.repeat(own[np.newaxis], len(hours), 0) for own in (own_kw, own_kvar))
    of_load = shapes.of_load[KINDS.index(kind)]
    ratio = np.divide(own_kvar, own_kw, out=np.zeros_like(own_kw), where=own_kw != 0)
    for place, shape in enumerate(shapes.shapes):
        mine = np.flatnonzero(of_load == place)
        if not len(mine):
            continue
        active, reactive = (values[:, np.newaxis] for values in shape.at(hours))
        if shape.actual:
            p[:, mine] = active
            q[:, mine] = np.where(np.isnan(reactive), active * ratio[mine], reactive)
        else:
            p[:, mine] *= active
            q[:, mine] *= reactive
    return p, q
