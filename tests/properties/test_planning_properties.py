"""Plans and their bound at prices of either sign: no run within the limits costs less than the bound, a
limit does not lower it, and it is that of an independent program of one direction a slot or lower.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

import evgrid
from evgrid.aggregator.planning.scheduler import batteries_of, plan, schedule, schedule_each
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.studies.oracle import least_cost

SLOTS, SLOT_H = 8, 0.25
PARTS = 4
"""Ticks in a slot of the runs against which a bound is held."""
PRICES = st.lists(st.floats(-0.5, 0.5).map(lambda x: round(x, 3)), min_size=SLOTS, max_size=SLOTS)


@st.composite
def fleets(draw, evs=3):
    """Arguments of batteries_of but for the slots: stays in ticks, some that may give back."""
    count = draw(st.integers(1, evs))
    many = {"min_size": count, "max_size": count}
    begin = np.array(draw(st.lists(st.integers(0, SLOTS * PARTS - 2), **many)))
    stay = np.array(draw(st.lists(st.integers(1, SLOTS * PARTS), **many)))
    end = np.minimum(begin + stay, SLOTS * PARTS)
    power = np.array(draw(st.lists(st.sampled_from([3.7, 7.4, 11.0]), **many)))
    depth = np.array(draw(st.lists(st.sampled_from([0.0, 1.0, 6.0]), **many)))
    charge = np.array(draw(st.lists(st.sampled_from([0.85, 0.9, 1.0]), **many)))
    discharge = np.array(draw(st.lists(st.sampled_from([0.8, 0.95, 1.0]), **many)))
    reach = charge * power * SLOT_H * (end - begin) / PARTS
    part = np.array(draw(st.lists(st.floats(-0.5, 1.0), **many)))
    energy = np.where(part >= 0, part * reach, np.where(depth > 0, -np.minimum(depth, -part * reach), 0.0))
    return begin, end, energy, power, depth, charge, discharge


def of(fleet, parts=1):
    """The batteries of a fleet in slots of 1 / ``parts``."""
    begin, end, energy, power, depth, charge, discharge = fleet
    per = PARTS / parts
    return batteries_of(
        begin / per, end / per, energy, power, SLOTS * parts, SLOT_H / parts, depth, None, charge, discharge,
        np.where(depth > 0, power, 0.0),
    )  # fmt: skip


def wander(batteries, slot_h, rng):
    """Power of a run that does anything within the limits, one direction a tick, (battery, tick) kW."""
    gain, fall = batteries.efficiencies
    power = np.zeros_like(batteries.p_max)
    stored = batteries.e_min[:, 0].copy()
    for t in range(power.shape[1]):
        low = np.maximum(stored + slot_h * batteries.p_min[:, t] / fall, batteries.e_min[:, t + 1])
        high = np.minimum(stored + slot_h * batteries.p_max[:, t] * gain, batteries.e_max[:, t + 1])
        then = low + (high - low) * rng.choice([0.0, 1.0, rng.random()], len(stored))
        change = then - stored
        power[:, t] = np.where(change > 0, change / gain, change * fall) / slot_h
        stored = then
    return power


def cost_of(power, price, export, wear, slot_h):
    drawn, given_kw = np.maximum(power, 0.0), np.maximum(-power, 0.0)
    return slot_h * float((drawn * price).sum() + (given_kw * (wear - export)).sum())


def one_direction(batteries, price, credit):
    """Least cost with one direction a slot, by a mixed-integer program of its own."""
    total = 0.0
    for i in range(len(batteries)):
        gain, fall = (float(e[i]) for e in batteries.efficiencies)
        up, down = batteries.p_max[i], -batteries.p_min[i]
        eye, none, sums = np.eye(SLOTS), np.zeros((SLOTS, SLOTS)), np.tril(np.ones((SLOTS, SLOTS)))
        rows = [
            LinearConstraint(np.hstack([eye, none, -np.diag(up)]), -np.inf, 0.0),
            LinearConstraint(np.hstack([none, eye, np.diag(down)]), -np.inf, down),
            LinearConstraint(
                SLOT_H * np.hstack([gain * sums, -sums / fall, none]),
                batteries.e_min[i, 1:] - 1e-9, batteries.e_max[i, 1:] + 1e-9,
            ),
        ]  # fmt: skip
        best = milp(
            SLOT_H * np.concatenate([price, -credit, np.zeros(SLOTS)]), constraints=rows,
            bounds=Bounds(0.0, np.concatenate([up, down, np.ones(SLOTS)])),
            integrality=np.repeat([0, 0, 1], SLOTS), options={"mip_rel_gap": 0.0},
        )  # fmt: skip
        total += best.fun
    return total


@given(fleets(), PRICES, PRICES, st.sampled_from([0.0, 0.05]), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_no_run_costs_less_than_the_bound(fleet, price, export, wear, seed):
    batteries, fine = of(fleet), of(fleet, PARTS)
    price, export = np.array(price), np.array(export)
    bound = schedule_each(batteries, price, SLOT_H, export, wear, alternates=True)
    program = schedule(batteries, price, SLOT_H, export, wear_per_kwh=wear, alternates=True)
    assert bound.cost == pytest.approx(program.cost, rel=1e-7, abs=1e-7)
    run = wander(fine, SLOT_H / PARTS, np.random.default_rng(seed))
    prices = [np.repeat(series, PARTS) for series in (price, export)]
    assert cost_of(run, *prices, wear, SLOT_H / PARTS) >= bound.cost - 1e-7


@given(fleets(), PRICES, st.sampled_from([0.0, 0.05]))
@settings(max_examples=20, deadline=None)
def test_the_bound_against_one_direction_a_slot(fleet, price, wear):
    batteries, price = of(fleet), np.array(price)
    bound = schedule_each(batteries, price, SLOT_H, None, wear, alternates=True)
    best = one_direction(batteries, price, price - wear)
    planned = schedule_each(batteries, price, SLOT_H, None, wear)
    assert bound.cost <= best + 1e-6
    assert best <= planned.cost + 1e-6
    assert np.all((planned.charge == 0) | (planned.discharge == 0))
    if np.all(price >= 0):  # nothing to gain by losses
        assert planned.cost == pytest.approx(bound.cost, abs=1e-6)


@given(fleets(), PRICES, PRICES, st.floats(0.05, 1.5))
@settings(max_examples=40, deadline=None)
def test_a_limit_or_a_demand_charge_does_not_lower_the_bound(fleet, price, export, room):
    batteries, price, export = of(fleet), np.array(price), np.array(export)
    free = schedule(batteries, price, SLOT_H, export, alternates=True)
    peak = max(float(free.power.sum(axis=0).max()), 1.0)
    wide = schedule(batteries, price, SLOT_H, export, np.full((1, SLOTS), 1e3), alternates=True)
    assert wide.cost == pytest.approx(free.cost, abs=1e-7)
    charged = schedule(batteries, price, SLOT_H, export, demand_charge=1.0, alternates=True)
    assert charged.cost >= free.cost - 1e-7
    try:
        limited = schedule(
            batteries, price, SLOT_H, export, np.full((1, SLOTS), room * peak), alternates=True
        )
    except ValueError:
        return  # no schedule keeps it
    assert limited.cost >= free.cost - 1e-7
    share = limited.charge / np.maximum(batteries.p_max, 1e-9) + limited.discharge / np.maximum(
        -batteries.p_min, 1e-9
    )
    assert np.all(share[batteries.p_min < 0] <= 1.0 + 1e-6)


@given(fleets(), PRICES, PRICES, st.sampled_from([0.0, 0.05]), st.floats(0.3, 2.0))
@settings(max_examples=40, deadline=None)
def test_a_plan_has_one_direction_and_costs_no_more_than_charging_at_once(fleet, price, export, wear, room):
    batteries, price, export = of(fleet), np.array(price), np.array(export)
    gain, _ = batteries.efficiencies
    at_once = np.diff(np.maximum(batteries.e_max, 0.0), axis=1) / gain[:, None] / SLOT_H
    stays_full = batteries.e_max[:, -1] > 0  # the others have energy to spare, or need none
    if not stays_full.all():
        batteries, at_once = batteries.take(np.flatnonzero(stays_full)), at_once[stays_full]
    if not len(batteries):
        return
    gain, fall = (e[:, None] for e in batteries.efficiencies)
    limit = np.full((1, SLOTS), max(room * float(at_once.sum(axis=0).max()), 0.1))
    for limit_kw in (None, limit):
        planned = plan(batteries, price, SLOT_H, export, limit_kw, wear_per_kwh=wear)
        assert np.all(np.minimum(planned.charge, planned.discharge) <= 1e-9)
        stored = SLOT_H * np.cumsum(planned.charge * gain - planned.discharge / fall, axis=1)
        assert np.all(stored <= batteries.e_max[:, 1:] + 1e-6)
        assert np.all(stored >= batteries.e_min[:, 1:] - 1e-6)
        if limit_kw is None or room >= 1.0:
            dearest = float(np.abs(price).max(initial=0.01)) * 1e-4 * at_once.sum() * SLOT_H
            assert planned.cost <= cost_of(at_once, price, export, wear, SLOT_H) + dearest + 1e-7


WANDER = """
import numpy as np
import evgrid


class Settings(evgrid.StrategySettings):
    seed: int = 0


class Wander(evgrid.Strategy):
    Settings = Settings

    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.rng = np.random.default_rng(settings.seed)
        self.kind = self.rng.integers(0, 4)

    def setpoints(self, view):
        rng, n = self.rng, len(view.soc)
        anything = rng.choice([np.inf, 0.3, 0.0, -1e-3, -7.4], n)
        if self.kind == 0:  # up and down, as fast as can be
            return np.where(view.time_s % 1800 < 900, np.inf, -7.4) * np.ones(n)
        if self.kind == 1:  # as little as draws anything at all
            return np.full(n, 0.35)
        return anything if self.kind == 2 else rng.uniform(-8.0, 8.0, n)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("planning")
    (path / "wander.py").write_text(WANDER)
    return path


def world_of(folder, rng, strategy, losses, sign):
    """Ten stays at a home feeder under a tariff whose prices change every hour, and their scenario."""
    start = np.datetime64("2026-07-01T06:00")
    rows = [
        "ev,connection,arrival,departure,soc_arrival,soc_target,capacity_kwh,charge_kw,discharge_kw,soc_floor"
    ]
    for ev in range(10):
        begin = start + np.timedelta64(int(rng.integers(0, 500)), "m")
        end = begin + np.timedelta64(int(rng.integers(60, 600)), "m")
        soc = rng.uniform(0.1, 0.9)
        back = rng.choice([0.0, 7.4])
        rows.append(f"e{ev},Load R1,{begin},{end},{soc:.3f},0.9,{rng.choice([20, 60])},7.4,{back},0.1")
    (folder / "s.csv").write_text("\n".join(rows))
    prices = {-1: np.full(24, -0.2), 0: rng.uniform(-0.3, 0.3, 24), 1: rng.uniform(0.0, 0.4, 24)}[sign]
    hours = [
        {"name": f"h{k}", "hours": [[k, k + 1]], "price_per_kwh": round(float(price), 3)}
        for k, price in enumerate(prices)
    ]
    tariff = {
        "name": "any",
        "seasons": [
            {"name": "all", "months": list(range(1, 13)),
             "periods": [*hours, {"name": "rest", "price_per_kwh": 0.0}]}
        ],
    }  # fmt: skip
    if sign >= 0 and rng.random() < 0.5:
        tariff["export_per_kwh"] = round(float(rng.uniform(-0.2, 0.3)), 3)
    vehicle = {"losses": losses}
    if losses == "constant":
        vehicle |= {"charge_efficiency": 0.9, "discharge_efficiency": 0.85}
    content = {
        "name": "any prices",
        "time": {"start": "2026-07-01T06:00", "duration": "20h", "step": "15min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "fleet": {
            "sessions": {"file": "s.csv"}, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": True},
            "vehicle": vehicle,
        },
        "communication": {"telemetry": "15min"}, "aggregators": {"main": strategy}, "tariff": tariff,
    }  # fmt: skip
    return scenario_from(content, folder=folder)


@pytest.mark.parametrize("losses", ["constant", "by_power"])
@pytest.mark.parametrize("sign", [0, 1, -1])
def test_no_coupled_run_costs_less_than_the_oracle(folder, losses, sign):
    rng = np.random.default_rng(10 * sign + len(losses) + 10)
    wear = float(rng.choice([0.0, 0.05]))
    for strategy in (
        {"strategy": "uncontrolled"}, {"strategy": "scheduled", "wear_per_kwh": wear},
        *({"strategy": "wander:Wander", "seed": seed} for seed in range(2)),
    ):  # fmt: skip
        scenario = world_of(folder, np.random.default_rng(int(rng.integers(1000))), strategy, losses, sign)
        result = evgrid.run(scenario)
        assert result["session_complete"].values.all()
        assert np.all(result["session_energy_unserved_avoidable_kwh"].values < 1e-6)
        cost = result["session_cost"].values.sum()
        cost += wear * result["session_energy_discharged_kwh"].values.sum()
        bound = least_cost(build_world(scenario), wear)
        assert bound.cost[0] <= cost + 1e-6
