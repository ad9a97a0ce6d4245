"""Scheduling over a horizon: the least cost of a fleet, with what couples its EVs, by linear programming.

In: batteries (EVs, or clusters of them) as limits of power and energy over slots, prices, and, where
EVs are coupled, the most that each group may draw. Out: what each battery draws and gives in each
slot, and what it costs.

    minimise    sum_t h (price_t C_t - export_t D_t) + wear h sum D + demand_charge sum_g peak_g
    subject to  e_{i,t+1} = e_{i,t} + h (eta_c c_{i,t} - d_{i,t} / eta_d)
                e_min <= e <= e_max,  0 <= c <= p_max,  0 <= d <= -p_min
                sum_{i in g} (c - d) + base_g <= limit_g,  <= peak_g

:func:`schedule` solves it with HiGHS: for each EV it is the oracle (up to 1,000 EVs), for some hundred
clusters (:func:`cluster`) it serves any fleet. A cluster is a virtual battery: the sum of its EVs'
limits. That is an outer approximation, so its cost is never above that of the EVs;
:func:`assign` schedules each cluster's EVs in the room that the other clusters leave. Where nothing
couples the EVs and none may discharge, :func:`cheapest_slots` is exact without a program.

Energy is the battery's, kWh, counted from arrival; power is in kW at the grid, positive when drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, vstack

from evgrid.aggregator.strategies import Envelope
from evgrid.model import Array


@dataclass(frozen=True, slots=True)
class Batteries:
    """What EVs, or clusters of them, may do in each slot.

    p_max, p_min : (battery, slot) kW; 0 while away; p_min <= 0
    e_max, e_min : (battery, slot + 1) kWh at the slots' edges; the first is where each begins
    group : (battery,) int64, row of the limits
    charge_efficiency, discharge_efficiency : 0 to 1
    """

    p_max: Array
    p_min: Array
    e_max: Array
    e_min: Array
    group: NDArray[np.int64]
    charge_efficiency: float = 0.9
    discharge_efficiency: float = 0.9

    def __len__(self) -> int:
        return len(self.group)


def batteries_of(
    arrival: NDArray[np.int64],
    departure: NDArray[np.int64],
    energy_kwh: Array,
    power_kw: Array,
    slots: int,
    slot_h: float,
    depth_kwh: Array | float = 0.0,
    group: NDArray[np.int64] | None = None,
    charge_efficiency: float = 0.9,
    discharge_efficiency: float = 0.9,
) -> Batteries:
    """Batteries of EVs that are plugged in over the slots [arrival, departure).

    energy_kwh : (ev,) kWh that the battery gains by departure; must be within reach
    power_kw : (ev,) most that is drawn, and given where ``depth_kwh`` > 0
    depth_kwh : most that the battery may fall below its state at arrival, kWh

    The limits of energy are those from which the departure can be met, and that can be reached.
    """
    edges = np.arange(slots + 1)
    here = (edges[:-1] >= arrival[:, None]) & (edges[:-1] < departure[:, None])
    gain = charge_efficiency * slot_h * power_kw[:, None]
    since = np.clip(edges - arrival[:, None], 0, (departure - arrival)[:, None])
    until = np.clip(departure[:, None] - edges, 0, (departure - arrival)[:, None])
    depth = np.broadcast_to(np.asarray(depth_kwh, dtype=np.float64), energy_kwh.shape)[:, None]
    fall = slot_h * power_kw[:, None] / discharge_efficiency
    need = energy_kwh[:, None]
    lowest = np.maximum(-np.minimum(depth, fall * since), need - gain * until)
    lowest = np.where(edges <= arrival[:, None], 0.0, lowest)
    return Batteries(
        p_max=np.where(here, power_kw[:, None], 0.0),
        p_min=np.where(here & (depth > 0), -power_kw[:, None], 0.0),
        e_max=np.minimum(need, gain * since),
        e_min=np.minimum(lowest, np.minimum(need, gain * since)),
        group=np.zeros(len(arrival), np.int64) if group is None else group,
        charge_efficiency=charge_efficiency,
        discharge_efficiency=discharge_efficiency,
    )


def batteries_ahead(
    envelope: Envelope, rows: NDArray[np.int64], group: NDArray[np.int64] | None = None
) -> Batteries:
    """Batteries of the EVs in ``rows`` of what the fleet says that they may do.

    Energy is at the meter then, from the envelope's begin on: charging needs no efficiency, and discharging
    has that of the round trip, the mean over the EVs that may.
    """
    round_trip = envelope.round_trip[rows]
    giving = round_trip[round_trip < 1.0]
    edges = [(0, 0), (1, 0)]
    return Batteries(
        p_max=envelope.p_max[rows],
        p_min=np.minimum(envelope.p_min[rows], 0.0),
        e_max=np.pad(envelope.e_max[rows], edges),
        e_min=np.pad(envelope.e_min[rows], edges),
        group=np.zeros(len(rows), np.int64) if group is None else group,
        charge_efficiency=1.0,
        discharge_efficiency=float(giving.mean()) if giving.size else 1.0,
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """What batteries draw and give, (battery, slot) kW each and not negative, and the cost."""

    charge: Array
    discharge: Array
    cost: float

    @property
    def power(self) -> Array:
        """Net power drawn, (battery, slot) kW."""
        return self.charge - self.discharge


def schedule(
    batteries: Batteries,
    price: Array,
    slot_h: float,
    export_price: Array | None = None,
    limit_kw: Array | None = None,
    base_kw: Array | float = 0.0,
    demand_charge: float = 0.0,
    wear_per_kwh: float = 0.0,
    overrun_price: float | None = None,
) -> Schedule:
    """The schedule of least cost.

    Parameters
    ----------
    batteries
        What each may do.
    price, export_price
        (slot,) currency per kWh drawn and given; the latter left out: the former.
    slot_h
        Length of a slot, h.
    limit_kw, base_kw
        (group, slot) most that a group may draw, and what it draws besides; without, no limit.
    demand_charge
        Currency per kW of each group's highest power over the horizon.
    wear_per_kwh
        Currency per kWh given back, for degradation.
    overrun_price
        Currency per kWh above the limits, part of the cost; without, they are never exceeded.

    Raises
    ------
    ValueError
        If no schedule keeps all limits.

    """
    count, slots = batteries.p_max.shape
    groups = int(batteries.group.max(initial=-1)) + 1
    limit = np.full((groups, slots), np.inf) if limit_kw is None else np.asarray(limit_kw, np.float64)
    base = np.broadcast_to(np.asarray(base_kw, np.float64), (groups, slots))
    export = price if export_price is None else export_price
    cells = count * slots
    objective = np.concatenate(
        [
            np.tile(price * slot_h, count),
            np.tile((wear_per_kwh - export) * slot_h, count),
            np.zeros(cells),
            np.full(groups, demand_charge),
            np.full(groups * slots, (overrun_price or 0.0) * slot_h),
        ]
    )
    # variables: charge, discharge, energy at the slots' ends, peak of each group, overrun
    cell = np.arange(cells)
    one = csr_array((np.ones(cells), (cell, cell)), shape=(cells, cells))
    inner = cell[cell % slots > 0]
    before = csr_array((np.ones(len(inner)), (inner, inner - 1)), shape=(cells, cells))
    none = csr_array((cells, groups + groups * slots))
    balance = hstack(
        [
            one * (-slot_h * batteries.charge_efficiency),
            one * (slot_h / batteries.discharge_efficiency),
            one - before,
            none,
        ]
    )
    start = np.zeros((count, slots))
    start[:, 0] = batteries.e_min[:, 0]
    rows = np.repeat(batteries.group, slots) * slots + cell % slots
    sums = csr_array((np.ones(cells), (rows, cell)), shape=(groups * slots, cells))
    slot_of = np.arange(groups * slots)
    peaks = csr_array((np.ones(len(slot_of)), (slot_of, slot_of // slots)), shape=(groups * slots, groups))
    empty = csr_array((groups * slots, cells))
    over = csr_array((np.ones(len(slot_of)), (slot_of, slot_of)), shape=(len(slot_of), len(slot_of)))
    limited = np.flatnonzero(np.isfinite(limit.reshape(-1)))
    bounded = [hstack([sums, -sums, empty, peaks * 0.0, -over], format="csr")[limited]]
    room = [(limit - base).reshape(-1)[limited]]
    if demand_charge > 0:
        bounded.append(hstack([sums, -sums, empty, -peaks, over * 0.0], format="csr"))
        room.append(-base.reshape(-1))
    upper = np.concatenate(
        [
            batteries.p_max.reshape(-1),
            -batteries.p_min.reshape(-1),
            batteries.e_max[:, 1:].reshape(-1),
            np.full(groups, np.inf),
            np.full(groups * slots, 0.0 if overrun_price is None else np.inf),
        ]
    )
    lower = np.concatenate(
        [np.zeros(2 * cells), batteries.e_min[:, 1:].reshape(-1), np.zeros(groups * (slots + 1))]
    )
    found = linprog(
        objective, A_eq=balance, b_eq=start.reshape(-1), A_ub=vstack(bounded), b_ub=np.concatenate(room),
        bounds=np.stack([lower, np.maximum(upper, lower)], axis=1), method="highs",
    )  # fmt: skip
    if found.status != 0:
        raise ValueError(f"no schedule keeps all limits: {found.message}")
    charge, discharge = found.x[: 2 * cells].reshape(2, count, slots)
    return Schedule(charge, discharge, float(found.fun))


def cluster(batteries: Batteries, most: int = 100) -> tuple[Batteries, NDArray[np.int64]]:
    """Virtual batteries, and the cluster of each battery, (battery,).

    EVs of a group that can and that can't discharge stay apart. Of the clusters the one that is
    most spread in one feature is divided at that feature's mean, until there are ``most`` (more only
    where there are more kinds). Features, in slots: arrival, departure, the time that charging takes, and
    the time that discharging to the lowest energy takes.
    """
    count, slots = batteries.p_max.shape
    here = batteries.p_max > 0
    rated = np.maximum(batteries.p_max.max(axis=1, initial=0.0), 1e-9)
    features = np.stack(
        [
            here.argmax(axis=1),
            slots - here[:, ::-1].argmax(axis=1),
            batteries.e_max[:, -1] / rated,
            -batteries.e_min.min(axis=1, initial=0.0) / rated,
        ],
        axis=1,
    )
    features[:, 2:] /= max(np.diff(batteries.e_max, axis=1).max(initial=0.0) / rated.max(initial=1.0), 1e-9)
    kind = batteries.group * 2 + (batteries.p_min < 0).any(axis=1)
    of = np.unique(kind, return_inverse=True)[1].astype(np.int64)
    clusters = int(of.max(initial=-1)) + 1
    spreads = [_spread(features[of == k]) for k in range(clusters)]
    while clusters < most:
        k = max(range(clusters), key=lambda k: spreads[k][0])
        size, widest = spreads[k]
        if size <= 0.0:
            break
        rows = np.flatnonzero(of == k)
        values = features[rows, widest]
        of[rows[values > values.mean()]] = clusters
        spreads[k] = _spread(features[of == k])
        spreads.append(_spread(features[of == clusters]))
        clusters += 1
    total = csr_array((np.ones(count), (of, np.arange(count))), shape=(clusters, count))
    group = np.zeros(clusters, np.int64)
    group[of] = batteries.group
    virtual = Batteries(
        total @ batteries.p_max, total @ batteries.p_min, total @ batteries.e_max, total @ batteries.e_min,
        group, batteries.charge_efficiency, batteries.discharge_efficiency,
    )  # fmt: skip
    return virtual, of


def _spread(features: Array) -> tuple[float, int]:
    """Largest sum of squared deviations over the features, (battery, feature), and whose it is."""
    squares = ((features - features.mean(axis=0)) ** 2).sum(axis=0)
    return (float(squares.max()) if np.ptp(features, axis=0).max() > 0 else 0.0), int(squares.argmax())


def assign(
    planned: Schedule,
    of: NDArray[np.int64],
    batteries: Batteries,
    price: Array,
    slot_h: float,
    limit_kw: Array,
    base_kw: Array | float = 0.0,
    export_price: Array | None = None,
    wear_per_kwh: float = 0.0,
) -> Schedule:
    """Schedule the EVs of each cluster at least cost in the room that the other clusters leave.

    Cluster by cluster a program of its EVs is solved; the others draw what they have been assigned or, before
    their turn, what was ``planned`` for them, (cluster, slot). What an EV needs is drawn even above a
    limit, at a hundred times the highest price. For a
    demand charge pass the group's planned peak as its limit. ``cost`` is that of the energy and the wear.
    """
    export = price if export_price is None else export_price
    groups = int(batteries.group.max(initial=-1)) + 1
    room = np.broadcast_to(np.asarray(limit_kw) - np.asarray(base_kw), (groups, len(price)))
    charge, discharge = np.zeros((2, *batteries.p_max.shape))
    group = np.zeros(len(planned.charge), np.int64)
    group[of] = batteries.group
    drawn = planned.power.copy()
    for k in range(len(drawn)):
        rows = np.flatnonzero(of == k)
        others = drawn[group == group[k]].sum(axis=0) - drawn[k]
        members = Batteries(
            batteries.p_max[rows], batteries.p_min[rows], batteries.e_max[rows], batteries.e_min[rows],
            np.zeros(len(rows), np.int64), batteries.charge_efficiency, batteries.discharge_efficiency,
        )  # fmt: skip
        best = schedule(
            members, price, slot_h, export, (room[group[k]] - others)[None], wear_per_kwh=wear_per_kwh,
            overrun_price=100.0 * float(np.abs(price).max()),
        )  # fmt: skip
        charge[rows], discharge[rows] = best.charge, best.discharge
        drawn[k] = best.power.sum(axis=0)
    cost = slot_h * float((charge @ price).sum() + (discharge @ (wear_per_kwh - export)).sum())
    return Schedule(charge, discharge, cost)


def cheapest_slots(batteries: Batteries, price: Array, slot_h: float) -> Array:
    """Charge each EV in the cheapest slots it is plugged in for, of equal ones the earliest; kW.

    The greedy fill, exact where nothing couples the EVs and none discharges: (battery, slot).
    """
    order = np.argsort(price, kind="stable")
    most = batteries.p_max[:, order] * slot_h
    need = (batteries.e_max[:, -1] - batteries.e_min[:, 0]) / batteries.charge_efficiency
    before = np.cumsum(most, axis=1) - most
    power = np.empty_like(batteries.p_max)
    power[:, order] = np.clip(need[:, None] - before, 0.0, most) / slot_h
    return power
