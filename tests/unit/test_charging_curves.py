"""Charging along a curve of most power against state of charge; expected values are worked by hand."""

from dataclasses import replace
from math import exp, inf, log

import numpy as np
import pytest
from tests.support.fleet import HOUR, car, feeder, table

from evgrid.battery.charging import (
    advance,
    charge,
    charge_limit_kw,
    derive_kinds,
    seconds_to_target,
    soc_that_reaches,
    steady_power,
)
from evgrid.battery.records import CURVE, KIND, Kinds
from evgrid.core.model import EVs, MemoryRecorder
from evgrid.errors import ScenarioError
from evgrid.fleet.model import FleetModel
from evgrid.scenario import scenario_from

CAPACITY_KWH = 60.0
KNOTS = ((0.1, 50.0), (0.5, 150.0), (0.8, 60.0), (1.0, 10.0))
# dsoc/dt = P / (3600 C), P linear in soc with slope m: t = 3600 C / m ln(P_end / P_begin)
UP_S = 3600.0 * CAPACITY_KWH / 250.0 * log(150.0 / 50.0)  # 0.1 to 0.5, m = 100 kW / 0.4
DOWN_S = 3600.0 * CAPACITY_KWH / 300.0 * log(150.0 / 60.0)  # 0.5 to 0.8, m = -90 kW / 0.3


def kind_of(charge_kw=200.0, soc_target=0.8, discharge_kw=0.0, knots=KNOTS):
    """A lossless kind with a curve, and the curve."""
    rows, curves = np.zeros(1, KIND), np.zeros(1, CURVE)
    rows["capacity_kwh"], rows["soc_target"], rows["charge_kw"] = CAPACITY_KWH, soc_target, charge_kw
    rows["discharge_kw"] = discharge_kw
    curves["knots"] = len(knots)
    for i, (soc, kw) in enumerate(knots):
        curves["soc"][0, i], curves["kw"][0, i] = soc, kw
    kinds = Kinds(rows, curves)
    derive_kinds(kinds)
    return kinds.rows[0], kinds.curves[0]


@pytest.mark.parametrize("tick_s", [1.0, 60.0, 900.0])
def test_time_from_10_to_80_percent_is_that_of_the_curve_at_any_tick(tick_s):
    kind, curve = kind_of()
    soc, flowing_s, drawn_kwh = 0.1, 0.0, 0.0
    for _ in range(int(2000 // tick_s) + 1):
        move = advance(kind, curve, soc, inf, tick_s, 1e6, 0)
        soc, flowing_s = move.soc, flowing_s + move.flowing_s
        drawn_kwh += move.drawn_kws / 3600.0
    assert soc == 0.8
    assert flowing_s == pytest.approx(UP_S + DOWN_S, rel=1e-9)
    assert drawn_kwh == pytest.approx(0.7 * CAPACITY_KWH, rel=1e-9)
    assert seconds_to_target(kind, curve, 0.1) == pytest.approx(UP_S + DOWN_S, rel=1e-12)


def test_power_is_constant_below_the_first_knot_and_limited_by_the_evse():
    kind, curve = kind_of()
    for soc, kw in ((0.0, 50.0), (0.3, 100.0), (0.5, 150.0), (0.65, 105.0), (0.9, 35.0)):
        assert charge_limit_kw(kind, curve, soc) == pytest.approx(kw)
    kind, curve = kind_of(charge_kw=100.0)  # from 0.3, where the curve reaches it, to 2/3
    assert charge_limit_kw(kind, curve, 0.5) == 100.0
    rising_s = 3600.0 * CAPACITY_KWH / 250.0 * log(100.0 / 50.0)
    level_s = 3600.0 * CAPACITY_KWH * (2.0 / 3.0 - 0.3) / 100.0
    falling_s = 3600.0 * CAPACITY_KWH / 300.0 * log(100.0 / 60.0)
    assert seconds_to_target(kind, curve, 0.1) == pytest.approx(rising_s + level_s + falling_s, rel=1e-12)
    soc, on_s, kws, kw2s = charge(kind, curve, 0.1, 100.0, rising_s + 60.0)
    assert soc == pytest.approx(0.3 + 60.0 * 100.0 / (3600.0 * CAPACITY_KWH), rel=1e-12)
    assert on_s == rising_s + 60.0
    assert kws == pytest.approx((soc - 0.1) * 3600.0 * CAPACITY_KWH, rel=1e-12)
    # int P**2 dt over the rise: P dP / (m k), k = 1 / (3600 C)
    square = 3600.0 * CAPACITY_KWH / 250.0 * (100.0**2 - 50.0**2) / 2.0 + 60.0 * 100.0**2
    assert kw2s == pytest.approx(square, rel=1e-12)


@pytest.mark.parametrize("charge_kw", [40.0, 80.0, 120.0, 200.0])
def test_state_from_which_the_target_is_in_reach_is_the_inverse_of_the_time_to_it(charge_kw):
    kind, curve = kind_of(charge_kw, soc_target=0.95)
    for soc in np.linspace(0.0, 0.94, 48):
        left_s = seconds_to_target(kind, curve, soc)
        assert soc_that_reaches(kind, curve, left_s) == pytest.approx(soc, abs=1e-12)


@pytest.mark.parametrize("setpoint_kw", [0.0, 20.0, 70.0, -30.0])
def test_the_departure_guard_begins_when_the_curve_still_reaches_the_target(setpoint_kw):
    kind, curve = kind_of(soc_target=0.8, discharge_kw=30.0)
    departure_s = 3600.0
    move = advance(kind, curve, 0.3, setpoint_kw, departure_s, departure_s, 0)
    assert move.soc == 0.8
    for stop_s in np.arange(100.0, departure_s, 100.0):  # at any moment the target is in reach
        part = advance(kind, curve, 0.3, setpoint_kw, stop_s, departure_s, 0)
        assert seconds_to_target(kind, curve, part.soc) <= (departure_s - stop_s) * (1.0 + 1e-9)
        rest = advance(
            kind, curve, part.soc, setpoint_kw, departure_s - stop_s, departure_s - stop_s, part.guarded
        )
        assert rest.soc == 0.8


def test_power_that_is_taken_for_constant_is_within_the_curve():
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(3000):
        knots = tuple(zip(np.sort(rng.random(4)).tolist(), rng.uniform(5.0, 150.0, 4).tolist(), strict=True))
        kind, curve = kind_of(rng.uniform(5.0, 150.0), 1.0, knots=knots)
        soc, setpoint_kw = rng.random(), rng.uniform(0.0, 150.0)
        steady, then, power_kw, _ = steady_power(kind, soc, setpoint_kw, 60.0, 1e6, 0)
        if steady and power_kw > 0.0:
            found += 1
            move = advance(kind, curve, soc, setpoint_kw, 60.0, 1e6, 0)
            assert then == pytest.approx(move.soc, abs=1e-12)
            assert power_kw * 60.0 == pytest.approx(move.drawn_kws, rel=1e-12)
    assert found > 300


SOC, KW = (list(column) for column in zip(*KNOTS, strict=True))
EFFICIENCY = 0.9


def scenario_of(step_s=60.0, current="dc", **fleet):
    """A scenario of DC chargers of 200 kW; what ``fleet`` says comes on top."""
    charger = {"current": current, "phases": 3, "power_kw": 200}
    vehicle = {"dc_kw": 200, "charge_kw": 200, "charge_curve": {"soc": SOC, "kw": KW}}
    return scenario_from(
        {
            "name": "curve", "time": {"start": "2026-01-15T12:00", "duration": HOUR, "step": step_s},
            "feeder": {"network": "x"},
            "fleet": {"count": 1, "charger": charger, "vehicle": vehicle, **fleet},
        }
    )  # fmt: skip


@pytest.mark.parametrize("tick_s", [1.0, 60.0, 900.0])
def test_a_vehicle_charges_along_its_curve_of_power_at_the_grid(tick_s):
    scenario = scenario_of(tick_s)
    needed_s = (UP_S + DOWN_S) / EFFICIENCY  # so much longer, as the curve is at the grid
    before_s = 40.0  # s before the target: back along the line from 0.8
    kw = 60.0 * exp(300.0 * EFFICIENCY * before_s / (3600.0 * CAPACITY_KWH))
    loss = (1.0 / EFFICIENCY - 1.0, 0.0)
    for departure_s, soc in ((needed_s, 0.8), (needed_s - before_s, 0.5 + (150.0 - kw) / 300.0)):
        own = [car(0.0, departure_s, 0.1, 0.8, 200.0, charge_loss=(0.0, *loss))]
        sessions = replace(table(own), charge_curves=scenario.fleet.charge_curves)
        recorder, connections = MemoryRecorder(), feeder(of=(0,))
        evs = EVs(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int8), np.array(["ev0"]))
        model = FleetModel(scenario, connections, evs, sessions, recorder, False)
        for tick in range(scenario.clock.ticks):
            model.step(tick * tick_s, {})
        model.finish()
        assert recorder.static["session_soc_departure"][0] == pytest.approx(soc, rel=1e-9)


def test_a_type_has_its_own_curve_and_ac_chargers_have_none():
    types = {
        "a": {"share": 0.5, "capacity_kwh": 60, "ac_1p_kw": 7, "ac_3p_kw": 11, "dc_kw": 200,
              "consumption_kwh_per_mile": 0.3, "charge_curve": {"soc": [0.0, 1.0], "kw": [90, 9]}},
        "b": {"share": 0.5, "capacity_kwh": 60, "ac_1p_kw": 7, "ac_3p_kw": 11, "dc_kw": 200,
              "consumption_kwh_per_mile": 0.3},
    }  # fmt: skip
    usual = {"charge_curve": {"soc": SOC, "kw": KW}}
    fleet = scenario_of(mix={"types": types}, vehicle=usual).fleet
    assert {name: curve.kw for name, curve in fleet.charge_curves.items()} == {"": KW, "a": [90, 9]}
    sessions = replace(
        table([car(charge=200.0)], [car(charge=200.0)]),
        vehicle=np.array(["a", "b"]), charge_curves=fleet.charge_curves,
    )  # fmt: skip
    kinds, kind_of = sessions.kinds()
    limits = [
        charge_limit_kw(kinds.rows[kind], kinds.curves[kinds.rows[kind]["curve"]], 0.5) for kind in kind_of
    ]
    assert limits == pytest.approx([49.5, 150.0])
    ac = scenario_of(current="ac", vehicle=usual).fleet
    assert ac.charge_curves == {}


@pytest.mark.parametrize(
    ("curve", "text"),
    [
        ({"soc": [0.1, 0.5], "kw": [50, 60, 70]}, "soc has 2 points, kw has 3: must be as many"),
        ({"soc": [0.5, 0.1], "kw": [50, 60]}, r"soc = \[0.5, 0.1\]: must be ascending"),
        ({"soc": [0.1, 0.5], "kw": [50, 0]}, "kw.*greater than 0"),
    ],
)
def test_a_curve_that_is_none_is_told(curve, text):
    with pytest.raises(ScenarioError, match=text):
        scenario_of(vehicle={"charge_curve": curve})


def test_shipped_types_have_a_curve_at_dc_chargers():
    """TomTom's typical curve of a bev250: 150 kW at 30 %, 112.5 kW at 65 %, 30 kW from 95 % on"""
    usual = {"dc_kw": 200}
    mixed = scenario_of(mix={"bev250": 1.0}, vehicle={}).fleet
    from_file = scenario_of(count=None, sessions={"file": __file__}, vehicle=usual).fleet
    for fleet in (mixed, from_file):
        sessions = replace(
            table([car(charge=150.0)], [car(charge=150.0)]),
            vehicle=np.array(["bev250", "of my own"]), charge_curves=fleet.charge_curves,
        )  # fmt: skip
        kinds, kind_of = sessions.kinds()
        rows = [kinds.rows[kind] for kind in kind_of]
        limits = [
            [charge_limit_kw(row, kinds.curves[row["curve"]], soc) for soc in (0.05, 0.4, 0.98)]
            for row in rows
        ]
        assert limits[0] == pytest.approx([75.0, 150.0 - 37.5 * 0.1 / 0.35, 30.0])
        assert limits[1][:2] == [150.0, 150.0]  # the taper begins at 0.8
    assert mixed.charge_curves.keys() == {"bev250"}
