"""Charging along a curve of most power against state of charge; expected values are worked by hand."""

from math import inf, log

import numpy as np
import pytest

from evgrid.fleet.kernels.charging import (
    advance,
    charge,
    charge_limit_kw,
    derive_kinds,
    seconds_to_target,
    soc_that_reaches,
    steady_power,
)
from evgrid.fleet.kernels.records import CURVE, KIND, Kinds

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
