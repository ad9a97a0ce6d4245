"""Scheduling over a horizon: the least cost of a fleet with coupled EVs.

In: batteries (EVs, or clusters of them) as limits of power and energy over slots, prices, and, where
EVs are coupled, the most that each group may draw. Out: the power that each battery draws and gives in
each slot, and the cost.

::

    minimise    sum_t h (price_t C_t - export_t D_t) + wear h sum D + demand_charge sum_g peak_g
    subject to  e_{i,t+1} = e_{i,t} + h (eta_c c_{i,t} - d_{i,t} / eta_d)
                e_min <= e <= e_max,  0 <= c <= p_max,  0 <= d <= -p_min,  not both in a slot
                least_g <= sum_{i in g} (c - d) + base_g <= limit_g,  <= peak_g

:func:`plan` chooses: where the EVs are not coupled, :func:`schedule_each` is exact for each on its own,
without a linear program (5,000 EVs that may discharge, 144 slots: 0.1 s). Where they are, :func:`schedule`
solves the program with HiGHS for some hundred clusters (:func:`cluster`), and :func:`assign` schedules the
EVs of each cluster in the room left by the others. A cluster is a virtual battery: the sum of its EVs'
limits. That is an outer approximation, so its cost is not above that of the EVs (but for efficiencies, of
which it has the mean). :func:`schedule` of each EV is the oracle, up to 1,000 EVs.

**Not both in a slot.** Where prices are negative, or a kWh given back earns more than it costs to draw it
again, it pays to do both because of the losses. A plan can't: there a kWh given is taken to earn no more
than it costs to draw it again, so that doing both gains nothing, and the remaining overlap is netted. That is
a schedule of one direction a slot, and the best where no battery would lose energy on purpose. A bound
(``alternates``) lets a battery give in a part of the slot and draw in the rest, c / p_max + d / -p_min <= 1:
the convex hull of all that a battery may do within the slot at ticks of any length. It is exact for ticks
short enough, and no run of longer ones costs less.

Energy is the battery's, kWh, counted from arrival; power is in kW at the grid, positive when drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, kron, vstack

from evgrid.aggregator.planning.least_cost import least_cost
from evgrid.aggregator.strategy import Envelope
from evgrid.core.model import Array

CLUSTERS = 100
"""Virtual batteries that represent a fleet, besides one for each kind of EVs that can't be mixed."""
_OVERRUN = 100.0
"""Price of a kWh above a limit, over the highest price: so it is a last resort."""
_EARLIER = 1e-4
"""Additional price of charging at the end of the horizon, over the highest price, to break ties of the
linear program: EVs charged early have time to spare when a plan turns out wrong."""


@dataclass(frozen=True, slots=True)
class Batteries:
    """Limits of EVs, or clusters of them, in each slot.

    p_max, p_min : (battery, slot) kW; 0 while away; p_min <= 0
    e_max, e_min : (battery, slot + 1) kWh at the slots' edges; the first is where each begins
    group : (battery,) int64, row of the limits
    charge_efficiency, discharge_efficiency : (battery,) or one for all, 0 to 1
    taper_kwh, full_kwh : (battery,) or one for all: energy above which the power of charging falls, to
        p_max (full - e) / (full - taper); infinite where it doesn't. Only :func:`schedule_each` uses them
    """

    p_max: Array
    p_min: Array
    e_max: Array
    e_min: Array
    group: NDArray[np.int64]
    charge_efficiency: Array | float = 0.9
    discharge_efficiency: Array | float = 0.9
    taper_kwh: Array | float = np.inf
    full_kwh: Array | float = np.inf

    def __len__(self) -> int:
        return len(self.group)

    @property
    def efficiencies(self) -> tuple[Array, Array]:
        """Efficiencies of charging and of discharging, (battery,) each."""
        return self._of_each(self.charge_efficiency), self._of_each(self.discharge_efficiency)

    @property
    def taper(self) -> tuple[Array, Array]:
        """``taper_kwh`` and ``full_kwh``, (battery,) each."""
        return self._of_each(self.taper_kwh), self._of_each(self.full_kwh)

    def _of_each(self, given: Array | float) -> Array:
        return np.broadcast_to(np.asarray(given, np.float64), len(self)).copy()

    def take(self, rows: NDArray[np.int64]) -> Batteries:
        """Some of the batteries."""
        charge, discharge = self.efficiencies
        return Batteries(
            self.p_max[rows], self.p_min[rows], self.e_max[rows], self.e_min[rows], self.group[rows],
            charge[rows], discharge[rows], *(of_each[rows] for of_each in self.taper),
        )  # fmt: skip


def batteries_of(
    arrival: Array | NDArray[np.int64],
    departure: Array | NDArray[np.int64],
    energy_kwh: Array,
    power_kw: Array,
    slots: int,
    slot_h: float,
    depth_kwh: Array | float = 0.0,
    group: NDArray[np.int64] | None = None,
    charge_efficiency: Array | float = 0.9,
    discharge_efficiency: Array | float = 0.9,
    discharge_kw: Array | None = None,
    early: Array | float = 0.0,
) -> Batteries:
    """Batteries of EVs that are plugged in from arrival to departure, in slots; parts of a slot count so.

    energy_kwh : (ev,) kWh that the battery gains by departure; must be within reach. Negative: surplus
    power_kw : (ev,) most that is drawn, kW
    depth_kwh : most that the battery may fall below its state at arrival, kWh
    discharge_kw : (ev,) most that is given, kW; left out: ``power_kw`` where ``depth_kwh`` > 0, else 0
    early : (ev,) slots before departure by which an EV that is not late has its energy

    The limits of energy are those from which the departure can be met, and that can be reached. A
    departure beyond the horizon is met from there on.
    """
    arrival, departure = (np.asarray(at, np.float64)[:, None] for at in (arrival, departure))
    gain, fall = (np.asarray(e, np.float64) for e in (charge_efficiency, discharge_efficiency))
    depth = np.broadcast_to(np.asarray(depth_kwh, dtype=np.float64), energy_kwh.shape)[:, None]
    discharge_kw = np.where(depth[:, 0] > 0, power_kw, 0.0) if discharge_kw is None else discharge_kw
    gain_kwh = (gain * slot_h * power_kw)[:, None]
    fall_kwh = (slot_h * discharge_kw / fall)[:, None]
    edges = np.arange(slots + 1.0)
    here = np.clip(np.minimum(edges[1:], departure) - np.maximum(edges[:-1], arrival), 0.0, 1.0)
    since = np.clip(edges - arrival, 0.0, departure - arrival)
    need = energy_kwh[:, None]
    highest = np.minimum(np.maximum(need, 0.0), gain_kwh * since)
    ready = np.clip(departure - np.reshape(early, (-1, 1)) - edges, 0.0, departure - arrival)
    lowest = np.maximum(-np.minimum(depth, fall_kwh * since), need - gain_kwh * ready)
    lowest = np.where(edges <= arrival, 0.0, lowest)
    return Batteries(
        p_max=here * power_kw[:, None],
        p_min=-here * discharge_kw[:, None],
        e_max=highest,
        e_min=np.minimum(lowest, highest),
        group=np.zeros(len(arrival), np.int64) if group is None else group,
        charge_efficiency=charge_efficiency,
        discharge_efficiency=discharge_efficiency,
    )


def batteries_ahead(
    envelope: Envelope, rows: NDArray[np.int64], group: NDArray[np.int64] | None = None
) -> Batteries:
    """Batteries of the EVs in ``rows`` of the fleet's envelope.

    Energy is at the meter then, from the envelope's begin on: charging needs no efficiency, and discharging
    has that of the round trip.
    """
    edges = [(0, 0), (1, 0)]
    return Batteries(
        p_max=envelope.p_max[rows],
        p_min=np.minimum(envelope.p_min[rows], 0.0),
        e_max=np.pad(envelope.e_max[rows], edges),
        e_min=np.pad(envelope.e_min[rows], edges),
        group=np.zeros(len(rows), np.int64) if group is None else group,
        charge_efficiency=1.0,
        discharge_efficiency=envelope.round_trip[rows],
    )


def with_reported(batteries: Batteries, reported: Batteries, depth_kwh: Array) -> Batteries:
    """The batteries, the first of them replaced by the ``reported`` ones (:func:`batteries_ahead`).

    depth_kwh : (reported,) most that a battery may fall below its state of now, kWh at the meter that it
        takes to make that up; 0 where it may not discharge
    """
    count, slots = len(reported), batteries.p_max.shape[1]
    more = [(0, 0), (0, max(slots - reported.p_max.shape[1], 0))]

    def joined(of: Array, first: Array, edge: Literal["constant", "edge"]) -> Array:
        return np.concatenate([np.pad(first, more, edge)[:, : of.shape[1]], of[count:]])

    charge, discharge = batteries.efficiencies
    charge[:count], discharge[:count] = reported.efficiencies
    p_min = np.where(depth_kwh[:, None] > 0, reported.p_min, 0.0)
    e_min = np.minimum(np.maximum(reported.e_min, -depth_kwh[:, None]), reported.e_max)
    return Batteries(
        joined(batteries.p_max, reported.p_max, "constant"), joined(batteries.p_min, p_min, "constant"),
        joined(batteries.e_max, reported.e_max, "edge"), joined(batteries.e_min, e_min, "edge"),
        batteries.group, charge, discharge,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Schedule:
    """Power that batteries draw and give, (battery, slot) kW each and not negative, and the cost."""

    charge: Array
    discharge: Array
    cost: float

    @property
    def power(self) -> Array:
        """Net power drawn, (battery, slot) kW."""
        return self.charge - self.discharge

    def drawn(self, group: NDArray[np.int64], groups: int) -> Array:
        """Power of each group, (group, slot) kW, for the group of each battery."""
        total = np.zeros((groups, self.charge.shape[1]))
        np.add.at(total, group, self.power)
        return total


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
    peak_kw: Array | float = 0.0,
    margin: float = 0.0,
    least_kw: Array | None = None,
    alternates: bool = False,
    means: Array | None = None,
    passed_kw: Array | float = 0.0,
) -> Schedule:
    """The schedule of least cost, by linear programming.

    Parameters
    ----------
    batteries
        Limits of each battery.
    price, export_price
        (slot,) or (battery, slot) currency per kWh drawn and given; the latter left out: the former.
    slot_h
        Length of a slot, h.
    limit_kw, base_kw
        (group, slot) most that a group may draw, and its power without the batteries; without, no limit.
    demand_charge
        Currency per kW of each group's highest power over the horizon, base load included.
    wear_per_kwh
        Currency per kWh given back, for degradation.
    overrun_price
        Currency per kWh above the limits, part of the cost; without, they are never exceeded.
    peak_kw
        (group,) power up to which no demand charge is due: the highest so far.
    margin
        Share of the room that the base load leaves below the limits whose use costs the highest price
        besides, so that only departures have it; and of the room above ``least_kw``, which is left.
    least_kw
        (group, slot) least that a group may draw, base load included, negative where it may feed back;
        without, no limit.
    alternates
        Whether a battery may give in a part of a slot and draw in the rest.
    means
        (interval, slot) weights of the slots in the intervals over whose means the demand charge goes
        (:func:`interval_means`); left out: each slot.
    passed_kw
        (group,) part of the first interval's mean that has been drawn before the first slot, kW.

    Raises
    ------
    ValueError
        If no schedule keeps all limits.

    """
    count, slots = batteries.p_max.shape
    groups = _groups(batteries, limit_kw, peak_kw, least_kw)
    limit = np.full((groups, slots), np.inf) if limit_kw is None else np.asarray(limit_kw, np.float64)
    base = np.broadcast_to(np.asarray(base_kw, np.float64), (groups, slots))
    price, credit = _of_batteries(batteries, price, export_price, wear_per_kwh)
    both = _pays_both_ways(batteries, price, credit)
    if not alternates:
        charge_efficiency, discharge_efficiency = (e[:, None] for e in batteries.efficiencies)
        credit = np.where(both, price / (charge_efficiency * discharge_efficiency), credit)
    cells = count * slots
    objective = np.concatenate(
        [
            (price * slot_h).reshape(-1),
            (-credit * slot_h).reshape(-1),
            np.zeros(cells),
            np.full(groups, demand_charge),
            np.full(groups * slots, (overrun_price or 0.0) * slot_h),
            np.full(groups * slots, float(np.abs(price).max(initial=0.0)) * slot_h),
        ]
    )
    # variables: charge, discharge, energy at the slots' ends, peak of each group, overrun, use of the margin
    cell = np.arange(cells)
    gain, fall = (np.repeat(e, slots) for e in batteries.efficiencies)
    one = csr_array((np.ones(cells), (cell, cell)), shape=(cells, cells))
    inner = cell[cell % slots > 0]
    before = csr_array((np.ones(len(inner)), (inner, inner - 1)), shape=(cells, cells))
    none = csr_array((cells, groups + 2 * groups * slots))
    balance = hstack(
        [
            csr_array((-slot_h * gain, (cell, cell)), shape=(cells, cells)),
            csr_array((slot_h / fall, (cell, cell)), shape=(cells, cells)),
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
    spared = margin * np.where(np.isfinite(limit), np.maximum(limit - base, 0.0), 0.0).reshape(-1)
    bounded = [hstack([sums, -sums, empty, peaks * 0.0, -over, -over], format="csr")[limited]]
    room = [((limit - base).reshape(-1) - spared)[limited]]
    if alternates:
        share = np.flatnonzero(both.reshape(-1))
        parts = [
            csr_array((1.0 / power.reshape(-1)[share], (np.arange(len(share)), share)), (len(share), cells))
            for power in (batteries.p_max, -batteries.p_min)
        ]
        bounded.append(hstack([*parts, csr_array((len(share), cells + none.shape[1]))], format="csr"))
        room.append(np.ones(len(share)))
    if least_kw is not None:
        spare = base.reshape(-1) - np.asarray(least_kw, np.float64).reshape(-1)
        given = np.flatnonzero(np.isfinite(spare))
        bounded.append(hstack([-sums, sums, empty, peaks * 0.0, -over, over * 0.0], format="csr")[given])
        room.append((spare - margin * np.maximum(spare, 0.0))[given])
    if demand_charge > 0:
        of_slots = csr_array(np.eye(slots) if means is None else means)
        intervals = of_slots.shape[0]
        mean = kron(csr_array(np.eye(groups)), of_slots, format="csr")
        paid = kron(csr_array(np.eye(groups)), csr_array(np.ones((intervals, 1))), format="csr")
        others = csr_array((groups * intervals, cells + 2 * groups * slots))
        drawn, rest = mean @ sums, others[:, cells:]
        bounded.append(hstack([drawn, -drawn, others[:, :cells], -paid, rest], format="csr"))
        passed = np.zeros((groups, intervals))
        passed[:, 0] = passed_kw
        room.append(-(mean @ base.reshape(-1)) - passed.reshape(-1))
    upper = np.concatenate(
        [
            batteries.p_max.reshape(-1),
            -batteries.p_min.reshape(-1),
            batteries.e_max[:, 1:].reshape(-1),
            np.full(groups, np.inf),
            np.full(groups * slots, 0.0 if overrun_price is None else np.inf),
            spared,
        ]
    )
    lower = np.concatenate(
        [
            np.zeros(2 * cells),
            batteries.e_min[:, 1:].reshape(-1),
            np.broadcast_to(peak_kw, groups),
            np.zeros(2 * groups * slots),
        ]
    )
    found = linprog(
        objective, A_eq=balance, b_eq=start.reshape(-1), A_ub=vstack(bounded), b_ub=np.concatenate(room),
        bounds=np.stack([lower, np.maximum(upper, lower)], axis=1), method="highs",
    )  # fmt: skip
    if found.status != 0:
        raise ValueError(f"no schedule keeps all limits: {found.message}")
    charge, discharge = found.x[: 2 * cells].reshape(2, count, slots)
    if not alternates:
        charge, discharge = _netted(batteries, charge, discharge)
    reached = demand_charge * float(np.broadcast_to(peak_kw, groups).sum())
    return Schedule(charge, discharge, float(found.fun) - reached)


def interval_means(begins_s: Array, slot_s: float, interval_s: float) -> Array:
    """Weights of slots in the means of intervals, (interval, slot): the share of an interval in each slot.

    begins_s : (slot,) when slots of ``slot_s`` begin, s; intervals of ``interval_s`` begin at its multiples.
        In intervals that are shorter than a slot power is taken to be that of the slot
    """
    if interval_s <= slot_s:
        return np.eye(len(begins_s))
    first = np.floor(begins_s[0] / interval_s + 1e-9)
    count = int(np.ceil((begins_s[-1] + slot_s) / interval_s - 1e-9) - first)
    edges_s = interval_s * (first + np.arange(count + 1.0))
    low = np.maximum(edges_s[:-1, None], begins_s)
    high = np.minimum(edges_s[1:, None], begins_s + slot_s)
    return np.asarray(np.maximum(high - low, 0.0) / interval_s)


def highest_mean(power_kw: Array, means: Array | None, passed_kw: Array | float = 0.0) -> Array:
    """Highest mean of an interval, (group,) kW, of powers (group, slot) kW; see :func:`schedule`."""
    of_intervals = power_kw.copy() if means is None else power_kw @ means.T
    of_intervals[:, 0] += passed_kw
    return np.asarray(of_intervals.max(axis=1, initial=0.0))


def _of_batteries(
    batteries: Batteries, price: Array, export_price: Array | None, wear_per_kwh: float
) -> tuple[Array, Array]:
    """Price of a kWh drawn, and credit for one given less its wear, (battery, slot) each."""
    export = price if export_price is None else export_price
    shape = batteries.p_max.shape
    return np.broadcast_to(price, shape), np.broadcast_to(export - wear_per_kwh, shape)


def _pays_both_ways(batteries: Batteries, price: Array, credit: Array) -> NDArray[np.bool_]:
    """Whether giving a kWh back earns at least the cost of drawing it again, (battery, slot)."""
    charge, discharge = (e[:, None] for e in batteries.efficiencies)
    can = (batteries.p_max > 0) & (batteries.p_min < 0)
    return np.asarray(can & (credit * discharge * charge >= price))


def _netted(batteries: Batteries, charge: Array, discharge: Array) -> tuple[Array, Array]:
    """The same energies with one direction a slot, (battery, slot) kW each."""
    gain, fall = (e[:, None] for e in batteries.efficiencies)
    both = np.minimum(charge * gain, discharge / fall)
    return charge - both / gain, discharge - both * fall


def _groups(batteries: Batteries, *of_groups: Array | float | None) -> int:
    """Number of groups: those of the batteries, or more where an array of groups has more."""
    rows = [len(given) for given in of_groups if isinstance(given, np.ndarray)]
    return max([int(batteries.group.max(initial=-1)) + 1, *rows])


def cluster(batteries: Batteries, most: int = CLUSTERS) -> tuple[Batteries, NDArray[np.int64]]:
    """Virtual batteries, and the cluster of each battery, (battery,).

    EVs of a group that can and that can't discharge are kept separate. The cluster with the largest
    spread in one feature is divided at that feature's mean, until there are ``most`` (more only
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
    through = np.maximum(rated, 1e-9)
    charge, discharge = ((total @ (through * e)) / (total @ through) for e in batteries.efficiencies)
    virtual = Batteries(
        total @ batteries.p_max, total @ batteries.p_min, total @ batteries.e_max, total @ batteries.e_min,
        group, charge, discharge,
    )  # fmt: skip
    return virtual, of


def _spread(features: Array) -> tuple[float, int]:
    """Largest sum of squared deviations over the features, (battery, feature), and its feature."""
    squares = ((features - features.mean(axis=0)) ** 2).sum(axis=0)
    return (float(squares.max()) if np.ptp(features, axis=0).max() > 1e-9 else 0.0), int(squares.argmax())


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
    least_kw: Array | None = None,
) -> Schedule:
    """Schedule the EVs of each cluster at least cost in the room left by the other clusters.

    Cluster by cluster, and in each the EV with the least time to spare first, each takes its optimum
    (:func:`schedule_each`) in the remaining room; the others draw their assigned power or, before their
    turn, the power ``planned`` for their clusters, (cluster, slot). The energy that an EV needs is drawn even
    above a limit, at a hundred times the highest price. For a demand charge pass the group's planned
    peak as its limit. ``cost`` is that of the energy and the wear.
    """
    groups = _groups(batteries, limit_kw, least_kw)
    left = np.broadcast_to(np.asarray(limit_kw) - np.asarray(base_kw), (groups, len(price))).copy()
    least = np.full(left.shape, -np.inf) if least_kw is None else least_kw - np.asarray(base_kw)
    gives = np.broadcast_to(-least, left.shape).copy()
    group = np.zeros(len(planned.charge), np.int64)
    group[of] = batteries.group
    np.subtract.at(left, group, planned.power)
    np.add.at(gives, group, planned.power)
    rated = np.maximum(batteries.p_max.max(axis=1, initial=0.0), 1e-9)
    spare = (batteries.p_max > 0).sum(axis=1) - batteries.e_max[:, -1] / rated / slot_h
    charge, discharge = np.zeros((2, *batteries.p_max.shape))
    for k in range(len(planned.charge)):
        rows = np.flatnonzero(of == k)
        rows = rows[np.argsort(spare[rows], kind="stable")]
        room = left[group[k]] + planned.power[k]
        give = gives[group[k]] - planned.power[k]
        best = schedule_each(batteries.take(rows), price, slot_h, export_price, wear_per_kwh, room, give)
        charge[rows], discharge[rows] = best.charge, best.discharge
        left[group[k]] = room - best.power.sum(axis=0)
        gives[group[k]] = give + best.power.sum(axis=0)
    return _priced(charge, discharge, price, slot_h, export_price, wear_per_kwh)


def schedule_each(
    batteries: Batteries,
    price: Array,
    slot_h: float,
    export_price: Array | None = None,
    wear_per_kwh: float = 0.0,
    room_kw: Array | None = None,
    give_kw: Array | None = None,
    alternates: bool = False,
) -> Schedule:
    """The least cost of each battery on its own, exactly; of slots at equal cost the earliest charge.

    ``room_kw`` and ``give_kw``, (slot,): what they may draw, and give, together; each in turn takes its
    optimum in the room left by those before it, and any further need as in :func:`assign`; not with
    ``alternates``. Otherwise as :func:`schedule`.
    """
    if alternates and room_kw is not None:
        raise ValueError("room_kw: must be left out where batteries alternate")
    taper_kwh, full_kwh = batteries.taper
    if alternates and np.isfinite(full_kwh).any():
        raise ValueError("taper_kwh: must be left out where batteries alternate")
    export = price if export_price is None else export_price
    room = np.full(batteries.p_max.shape[1], np.inf) if room_kw is None else np.array(room_kw, np.float64)
    charge, discharge = least_cost(
        batteries.p_max, batteries.p_min, batteries.e_max, batteries.e_min, *batteries.efficiencies,
        np.asarray(price, np.float64), np.asarray(export - wear_per_kwh, np.float64), slot_h, room,
        np.full(len(room), np.inf) if give_kw is None else np.array(give_kw, np.float64),
        _OVERRUN * float(np.abs(price).max(initial=0.01)), taper_kwh, full_kwh, alternates,
    )  # fmt: skip
    return _priced(charge, discharge, price, slot_h, export_price, wear_per_kwh)


def _priced(
    charge: Array, discharge: Array, price: Array, slot_h: float, export_price: Array | None, wear: float
) -> Schedule:
    """A schedule with the cost of its energy and wear."""
    export = price if export_price is None else export_price
    cost = slot_h * float((charge * price).sum() + (discharge * (wear - export)).sum())
    return Schedule(charge, discharge, cost)


def plan(
    batteries: Batteries,
    price: Array,
    slot_h: float,
    export_price: Array | None = None,
    limit_kw: Array | None = None,
    demand_charge: float = 0.0,
    wear_per_kwh: float = 0.0,
    peak_kw: Array | float = 0.0,
    margin: float = 0.0,
    exact: bool = False,
    least_kw: Array | None = None,
    billed_kw: Array | float = 0.0,
    means: Array | None = None,
    passed_kw: Array | float = 0.0,
) -> Schedule:
    """The schedule of EVs that an aggregator follows, by the method that fits their coupling.

    As :func:`schedule`, but limits are for the EVs only, and yield where a departure can't be met otherwise.
    ``billed_kw``: (group, slot) power besides the EVs that the demand charge includes. ``exact``: the
    linear program of each EV where they are coupled. ``cost`` is that of the energy and the wear.
    """
    if limit_kw is None and least_kw is None and demand_charge <= 0:
        return schedule_each(batteries, price, slot_h, export_price, wear_per_kwh)
    groups, slots = _groups(batteries, limit_kw, peak_kw, least_kw), len(price)
    limit = np.full((groups, slots), np.inf) if limit_kw is None else np.asarray(limit_kw, np.float64)
    billed = np.broadcast_to(np.asarray(billed_kw, np.float64), (groups, slots))
    virtual, of = batteries, np.arange(len(batteries))
    if not exact and len(batteries) > CLUSTERS:
        virtual, of = cluster(batteries)
    highest = float(np.abs(price).max(initial=0.01))
    planned = schedule(
        virtual, price + _EARLIER * highest * np.linspace(0.0, 1.0, slots), slot_h,
        price if export_price is None else export_price, limit + billed, billed, demand_charge, wear_per_kwh,
        _OVERRUN * highest, peak_kw, margin, None if least_kw is None else least_kw + billed,
        means=means, passed_kw=passed_kw,
    )  # fmt: skip
    if virtual is batteries:
        charge, discharge = planned.charge, planned.discharge
        return _priced(charge, discharge, price, slot_h, export_price, wear_per_kwh)
    if demand_charge > 0:
        drawn = planned.drawn(virtual.group, groups)
        peak = np.maximum(highest_mean(drawn + billed, means, passed_kw), peak_kw)
        limit = np.minimum(limit, np.maximum(peak[:, None] - billed, drawn))
    return assign(planned, of, batteries, price, slot_h, limit, 0.0, export_price, wear_per_kwh, least_kw)
