"""Schedules over a horizon: greedy, per-EV program and clusters against each other."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from evgrid.aggregator.planning.scheduler import assign, batteries_of, cluster, plan, schedule, schedule_each

SLOT_H, SLOTS = 0.5, 48
EDGES = np.arange(SLOTS) * SLOT_H
PRICE = np.where((EDGES >= 4) & (EDGES < 9), 0.54, np.where(EDGES < 12, 0.43, 0.23))


def fleet(seed, evs=300, depth_share=0.0):
    """EVs that come home from noon on and leave the next morning."""
    rng = np.random.default_rng(seed)
    arrival = np.clip(rng.normal(10, 4, evs), 0, 30).astype(np.int64)
    departure = np.clip(rng.normal(40, 3, evs), arrival + 4, SLOTS).astype(np.int64)
    power = rng.choice([3.7, 7.4, 11.0], evs)
    reach = 0.9 * power * SLOT_H * (departure - arrival)
    energy = np.minimum(rng.lognormal(2.3, 0.6, evs), 0.9 * reach)
    depth = np.where(rng.random(evs) < depth_share, 10.0, 0.0)
    return batteries_of(arrival, departure, energy, power, SLOTS, SLOT_H, depth)


def kept(batteries, best, rtol=1e-9):
    """Every limit of power and energy, and the energy by departure."""
    assert np.all(best.charge >= 0)
    assert np.all(best.discharge >= 0)
    assert np.all(best.charge <= batteries.p_max + 1e-9)
    assert np.all(best.discharge <= -batteries.p_min + 1e-9)
    gain, fall = (e[:, None] for e in batteries.efficiencies)
    stored = SLOT_H * np.cumsum(best.charge * gain - best.discharge / fall, axis=1) + batteries.e_min[:, :1]
    assert np.all(stored <= batteries.e_max[:, 1:] + 1e-9)
    assert np.all(stored >= batteries.e_min[:, 1:] - 1e-9)


@pytest.mark.parametrize("depth_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_each_ev_alone_equals_the_program_where_nothing_couples(seed, depth_share):
    batteries = fleet(seed, 60, depth_share)
    rng = np.random.default_rng(seed)
    for price in (PRICE, rng.uniform(0.05, 0.6, SLOTS)):
        for wear, export in ((0.0, None), (0.05, 0.8 * price)):
            best = schedule_each(batteries, price, SLOT_H, export, wear)
            kept(batteries, best)
            program = schedule(batteries, price, SLOT_H, export, wear_per_kwh=wear)
            assert best.cost == pytest.approx(program.cost, rel=1e-9, abs=1e-9)


def tapered_program(e0, target, power, out_kw, floor, taper, full, price, credit, gain, fall):
    """Least cost of one battery whose charging tapers: a program with both lines of what a slot charges."""
    slots = len(price)
    eye, none = np.eye(slots), np.zeros((slots, slots))
    before = np.eye(slots, k=-1)  # variables: drawn, given, stored at the end of each slot
    balance = np.hstack([-SLOT_H * gain * eye, SLOT_H / fall * eye, eye - before])
    kept = np.exp(-SLOT_H * gain * power / (full - taper))
    line = np.hstack([SLOT_H * gain * eye, none, (1 - kept) * before])
    most = np.full(slots, (1 - kept) * full)
    most[0] -= (1 - kept) * e0
    start = np.zeros(slots)
    start[0] = e0
    bounds = (
        [(0, power)] * slots + [(0, out_kw)] * slots + [(floor, target)] * (slots - 1) + [(target, target)]
    )
    cost = SLOT_H * np.concatenate([price, -credit, np.zeros(slots)])
    found = linprog(cost, A_ub=line, b_ub=most, A_eq=balance, b_eq=start, bounds=bounds, method="highs")
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("out_kw", [0.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_taper_is_planned_with_as_a_program_does(seed, out_kw):
    """Batteries of 40 kWh that taper from 24 kWh on, with needs below, along and across it."""
    rng = np.random.default_rng(seed)
    slots, power, gain, fall, taper, full = 20, 11.0, 0.9, 0.85, 24.0, 40.0
    price = np.round(rng.uniform(0.05, 0.6, slots), 2)
    for target, stored in ((38.0, 4.0), (33.0, 19.0), (25.0, 10.0), (39.0, 30.0), (20.0, 3.0)):
        need = target - stored
        ev = batteries_of(
            np.array([0]), np.array([slots]), np.array([need]), np.array([power]), slots, SLOT_H, stored,
            None, gain, fall, np.array([out_kw]),
        )  # fmt: skip
        if not out_kw:
            ev = replace(ev, p_min=np.zeros_like(ev.p_max))
        ev = replace(ev, taper_kwh=taper - stored, full_kwh=full - stored)
        best = schedule_each(ev, price, SLOT_H, None, 0.05)
        energy = stored + SLOT_H * np.cumsum(best.charge[0] * gain - best.discharge[0] / fall)
        before = np.append(stored, energy[:-1])
        kept = np.exp(-SLOT_H * gain * power / (full - taper))
        assert np.all(
            energy <= np.minimum(before + SLOT_H * gain * power, full - (full - before) * kept) + 1e-9
        )
        assert energy[-1] == pytest.approx(target)
        least = tapered_program(
            stored, target, power, out_kw, 0.0, taper, full, price, price - 0.05, gain, fall
        )  # fmt: skip
        assert best.cost == pytest.approx(least, rel=1e-8)
        roomy = schedule_each(ev, price, SLOT_H, None, 0.05, np.full(slots, 100.0))
        assert roomy.cost == pytest.approx(least, rel=1e-8)
        tight = schedule_each(ev, price, SLOT_H, None, 0.05, np.full(slots, 6.0))  # not met in vain
        gained = SLOT_H * (tight.charge[0] * gain - tight.discharge[0] / fall).sum()
        assert gained == pytest.approx(need)
        assert tight.cost >= best.cost - 1e-9


def test_a_bound_that_alternates_knows_no_taper():
    ev = replace(fleet(0, 2), taper_kwh=1.0, full_kwh=2.0)
    with pytest.raises(ValueError, match="taper_kwh: must be left out where batteries alternate"):
        schedule_each(ev, PRICE, SLOT_H, alternates=True)


def test_efficiencies_are_each_ev_s_own_and_stays_need_not_fill_slots():
    # 2 h of need at 10 kW and 80 %: the stay from 0.5 to 4 offers half a slot, then slots at 3, 1, 2
    batteries = batteries_of(
        np.array([0.5, 0.0]), np.array([4.0, 4.0]), np.array([16.0, 16.0]), np.array([10.0, 10.0]), 4, 1.0,
        charge_efficiency=np.array([0.8, 1.0]), discharge_efficiency=np.array([1.0, 1.0]),
    )  # fmt: skip
    price = np.array([0.1, 0.3, 0.1, 0.2])
    best = schedule_each(batteries, price, 1.0)
    np.testing.assert_allclose(best.charge, [[5, 0, 10, 5], [10, 0, 6, 0]], atol=1e-9)
    np.testing.assert_allclose(schedule(batteries, price, 1.0).cost, best.cost)


def test_a_full_battery_sells_what_it_has_to_spare():
    # 4 kWh above the target, and 3 kWh more that must be bought back
    batteries = batteries_of(
        np.array([0]), np.array([3]), np.array([-4.0]), np.array([10.0]), 3, 1.0, 7.0, None, 1.0, 1.0
    )
    best = schedule_each(batteries, np.array([0.2, 0.25, 0.3]), 1.0)
    np.testing.assert_allclose(best.power, [[0.0, 0.0, -4.0]])
    best = schedule_each(batteries, np.array([0.25, 0.2, 0.1]), 1.0)
    np.testing.assert_allclose(best.power, [[-7.0, 0.0, 3.0]])


@pytest.mark.parametrize(
    ("seed", "bidirectional"), [*((seed, 0.3) for seed in range(10)), *((seed, 0.0) for seed in range(3))]
)
def test_clusters_cost_within_a_percent_of_the_evs(seed, bidirectional):
    batteries = fleet(seed, depth_share=bidirectional)
    rng = np.random.default_rng(100 + seed)
    price = PRICE * rng.uniform(0.8, 1.2, SLOTS)
    free = schedule(batteries, price, SLOT_H)
    limit = np.full((1, SLOTS), 0.7 * free.power.sum(axis=0).max())
    single = schedule(batteries, price, SLOT_H, limit_kw=limit)
    virtual, of = cluster(batteries)
    assert len(virtual) <= 100
    clustered = schedule(virtual, price, SLOT_H, limit_kw=limit)
    assert single.cost > free.cost  # the limit binds
    assert clustered.cost <= single.cost + 1e-6  # an outer approximation
    assert clustered.cost == pytest.approx(single.cost, rel=0.01)
    executed = assign(clustered, of, batteries, price, SLOT_H, limit)
    kept(batteries, executed)
    power = executed.power
    energy = np.cumsum(np.where(power > 0, 0.9 * power, power / 0.9) * SLOT_H, axis=1)
    np.testing.assert_allclose(energy[:, -1], batteries.e_max[:, -1], atol=1e-6)
    assert np.all(power.sum(axis=0) <= limit[0] + 1e-6)
    assert executed.cost == pytest.approx((power @ price).sum() * SLOT_H)
    assert executed.cost >= single.cost - 1e-6
    assert executed.cost == pytest.approx(single.cost, rel=0.01)


def test_two_groups_keep_their_own_limits():
    evs = fleet(3, 300, 0.3)
    batteries = replace(evs, group=np.arange(300) % 2)
    free = schedule(batteries, PRICE, SLOT_H)
    drawn = np.stack([free.power[k::2].sum(axis=0) for k in range(2)])
    limit = np.repeat(np.array([[0.7], [0.9]]) * drawn.max(axis=1, keepdims=True), SLOTS, axis=1)
    single = schedule(batteries, PRICE, SLOT_H, limit_kw=limit, base_kw=1.0)
    virtual, of = cluster(batteries)
    planned = schedule(virtual, PRICE, SLOT_H, limit_kw=limit, base_kw=1.0)
    executed = assign(planned, of, batteries, PRICE, SLOT_H, limit, base_kw=1.0)
    for k in range(2):
        assert np.all(executed.power[k::2].sum(axis=0) + 1.0 <= limit[k] + 1e-6)
    assert executed.cost == pytest.approx(single.cost, rel=0.01)


def test_an_overrun_only_where_nothing_else_serves():
    # two EVs need 4.5 kWh each in one hour, 10 kW together, of which the group may draw 8
    arrival, departure = np.zeros(2, np.int64), np.ones(2, np.int64)
    batteries = batteries_of(arrival, departure, np.array([4.5, 4.5]), np.array([7.4, 7.4]), 1, 1.0)
    best = schedule(batteries, np.array([0.2]), 1.0, limit_kw=np.array([[8.0]]), overrun_price=10.0)
    assert best.charge.sum() == pytest.approx(10.0)
    assert best.cost == pytest.approx(10.0 * 0.2 + 2.0 * 10.0)


def test_a_demand_charge_flattens():
    batteries = fleet(1, 40)
    free = schedule(batteries, PRICE, SLOT_H)
    flat = schedule(batteries, PRICE, SLOT_H, demand_charge=5.0)
    assert flat.power.sum(axis=0).max() < 0.7 * free.power.sum(axis=0).max()


def test_arbitrage_by_hand():
    # two slots at 0.1 and 0.5: 7.4 kW for an hour, 0.9 * 7.4 stored, 0.81 * 7.4 sold; then recharged
    arrival, departure = np.array([0]), np.array([3])
    batteries = batteries_of(arrival, departure, np.array([6.0]), np.array([10.0]), 3, 1.0, depth_kwh=10.0)
    best = schedule(batteries, np.array([0.1, 0.5, 0.1]), 1.0)
    # charge 6.66.. in the first slot, sell what the last can bring back: 9 kWh of battery = 8.1 kWh
    assert best.discharge[0, 1] == pytest.approx(8.1)
    assert best.cost == pytest.approx(0.1 * (6 / 0.9 + 10.0) - 0.5 * 8.1)
    worn = schedule(batteries, np.array([0.1, 0.5, 0.1]), 1.0, wear_per_kwh=0.5)
    assert worn.discharge.sum() == pytest.approx(0.0)


def test_a_limit_that_no_schedule_keeps():
    with pytest.raises(ValueError, match="no schedule keeps all limits"):
        schedule(fleet(0, 20), PRICE, SLOT_H, limit_kw=np.full((1, SLOTS), 0.1))


def test_a_plan_of_a_coupled_fleet_is_within_a_percent_of_the_program_of_each_ev():
    batteries = fleet(1, depth_share=0.3)
    price = PRICE * np.random.default_rng(101).uniform(0.8, 1.2, SLOTS)
    free = plan(batteries, price, SLOT_H)
    limit = np.full((1, SLOTS), 0.7 * free.power.sum(axis=0).max())
    exact = plan(batteries, price, SLOT_H, limit_kw=limit, exact=True)
    planned = plan(batteries, price, SLOT_H, limit_kw=limit)
    assert exact.cost <= planned.cost <= 1.01 * exact.cost
    assert planned.power.sum(axis=0).max() <= limit[0, 0] + 1e-6
    assert free.cost < exact.cost


def test_a_plan_pays_for_a_peak_only_above_what_has_been_reached():
    batteries = fleet(1, 150)
    price = np.where(EDGES < 12, PRICE, PRICE + 0.001 * EDGES)
    free, flat, reached = (
        plan(batteries, price, SLOT_H, demand_charge=charge, peak_kw=peak)
        for charge, peak in ((0.0, 0.0), (5.0, 0.0), (5.0, 600.0))
    )
    peaks = [best.power.sum(axis=0).max() for best in (free, flat, reached)]
    assert peaks[1] < 0.7 * peaks[0]
    assert peaks[1] < 600 < peaks[0]
    assert peaks[2] == pytest.approx(600.0, rel=0.01)
    assert free.cost < reached.cost < flat.cost
