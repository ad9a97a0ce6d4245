"""The strategy `reserve`: activation by frequency and by set-points, sides, delivery by hand."""

from dataclasses import replace

import numpy as np
import pytest

from evgrid.aggregator.reserve import Reserve
from evgrid.aggregator.strategies import Context, View, strategy_settings
from evgrid.errors import ScenarioError
from evgrid.model import Clock, EVs
from evgrid.system.products import activation, find_product
from evgrid.system.settings import System

COUNT = 100
STEP_S = 4.0


def reserve(product, system=None, hours=2, **settings):
    zeros = np.zeros(COUNT, np.int64)
    evs = EVs(zeros, zeros, np.zeros(COUNT, np.int8), np.arange(COUNT).astype(str))
    clock = Clock(np.datetime64("2026-01-15T20:00"), STEP_S, round(hours * 3600 / STEP_S))
    given = {"strategy": "reserve", "group": "feeder", "product": product, **settings}
    checked = strategy_settings(given, {}, "aggregators.main")
    bulk = System.model_validate(system or {"nominal_hz": 50})
    return Reserve(checked, Context(clock, None, evs, 1, zeros, bulk, range(1), 0))


def fleet(time_s, hertz=50.0, signal=0.0, power=0.0, missing=7.4):
    """100 EVs of 7.4 kW for another ten hours, each with an hour of charging to go."""
    return View(
        time_s, STEP_S, np.full(COUNT, True), np.full(COUNT, 0.7), np.full(COUNT, 7.4), np.full(COUNT, -7.4),
        np.full(COUNT, missing), np.full(COUNT, 36000.0), np.full(COUNT, 3600.0), np.zeros(1),
        np.array([signal]), np.array([hertz]), np.array([power]),
    )  # fmt: skip


@pytest.mark.parametrize("hertz", [49.7, 49.9, 49.95, 50.0, 50.08, 50.3])
@pytest.mark.parametrize("product", ["fcr", "fcr_n", "fcr_d_up", "fcr_d_down", "dynamic_containment"])
def test_asked_is_the_curve_times_the_capacity(product, hertz):
    strategy = reserve(product)
    setpoints = strategy.setpoints(fleet(0.0, hertz))
    capacity, point = strategy.recorded["capacity_offered_kw"], strategy.recorded["operating_point_kw"]
    share = activation(find_product(product), hertz)
    assert capacity[0] > 100
    assert strategy.recorded["regulation_target_kw"] == pytest.approx(point - capacity * share)
    assert setpoints.sum() == pytest.approx((point - capacity * share)[0], rel=1e-5)


@pytest.mark.parametrize("missing", [1.0, 7.4, 60.0])
def test_a_product_of_one_direction_is_limited_by_that_side_alone(missing):
    found = []
    for direction in ("both", "up", "down"):
        strategy = reserve({"name": "fcr", "direction": direction})
        strategy.setpoints(fleet(0.0, missing=missing))
        found.append(strategy.recorded["capacity_offered_kw"][0])
    both, up, down = found
    assert both == min(up, down)
    if missing == 7.4:  # at rest, with all of its band free: the limit of an EV, less the quantile
        assert up == pytest.approx((0.97 * 100 - 1.6448536 * np.sqrt(0.97 * 0.03 * 100)) * 7.4, rel=1e-6)
    else:
        assert up != pytest.approx(down, rel=0.1)


def test_hold_is_the_products_endurance_unless_given():
    assert reserve("fcr_n").settings.hold == 3600
    assert reserve({"name": "fcr", "endurance_s": 1800}).settings.hold == 1800
    assert reserve("fcr", hold="5min").settings.hold == 300


def test_offered_as_soon_as_the_fleet_has_reported_and_every_hour():
    strategy = reserve("fcr")
    away = replace(fleet(0.0), plugged=np.full(COUNT, False), p_max=np.zeros(COUNT), p_min=np.zeros(COUNT))
    strategy.setpoints(away)
    assert strategy.recorded["capacity_offered_kw"][0] == 0
    strategy.setpoints(fleet(8.0))
    first = strategy.recorded["capacity_offered_kw"][0]
    assert first > 0
    for time_s, new in ((300.0, False), (3600.0, True)):
        strategy.setpoints(replace(fleet(time_s), p_min=np.full(COUNT, -3.0)))
        assert (strategy.recorded["capacity_offered_kw"][0] != first) == new


def test_operators_setpoints_hold_for_their_step():
    system = {"nominal_hz": 50, "regulation": {"source": "synthetic"}}
    strategy = reserve({"name": "afrr", "signal_step_s": 8, "direction": "up"}, system)
    found = []
    for k, signal in enumerate([0.2, 0.6, 0.8, -0.5, -0.5, 0.1]):
        strategy.setpoints(fleet(k * STEP_S, signal=signal))
        capacity, point = strategy.recorded["capacity_offered_kw"], strategy.recorded["operating_point_kw"]
        found.append(((point - strategy.recorded["regulation_target_kw"]) / capacity)[0])
    assert found == pytest.approx([0.2, 0.2, 0.8, 0.8, 0.0, 0.0])


def test_delivery_by_hand():
    """An hour at 49.9 Hz (half of FCR) of which the fleet gives 60 %, and an hour at rest."""
    strategy = reserve("fcr", capacity_price=12.0)
    power = 0.0
    for k in range(1800):
        hertz = 49.9 if k < 900 else 50.0
        strategy.setpoints(fleet(k * STEP_S, hertz, power=power))
        point, target = (
            strategy.recorded[name][0] for name in ("operating_point_kw", "regulation_target_kw")
        )
        power = point - 0.6 * (point - target)  # what the next tick tells of this one
    result = {name: values[0] for name, values in strategy.results().items()}
    capacity = result["reserve_capacity_kw"]
    # full within 30 s: of half, ticks 1 to 3 ramp by 4/30 each
    ramp = np.minimum(4 / 30 * np.arange(1, 901), 0.5)
    assert result["reserve_required_kwh"] == pytest.approx([capacity[0] * ramp.mean(), 0.0])
    given = np.minimum(ramp, 0.3).mean() * capacity[0]
    assert result["reserve_delivered_kwh"] == pytest.approx([given, 0.0])
    share = np.minimum(ramp, 0.3).mean() / ramp.mean()
    assert result["reserve_delivery"] == pytest.approx([share, np.nan], nan_ok=True)
    assert result["reserve_credit"] == pytest.approx(
        [capacity[0] / 1000 * 12 * share, capacity[1] / 1000 * 12]
    )


def test_who_is_asked_for_less_may_go_at_once():
    strategy = reserve("fcr", hours=1)
    power = 0.0
    for k in range(900):
        strategy.setpoints(fleet(k * STEP_S, 49.9 if k < 100 else 50.0, power=power))
        power = strategy.recorded["regulation_target_kw"][0]
    assert strategy.results()["reserve_delivery"][0, 0] == pytest.approx(1.0)


def test_faults_are_sentences():
    with pytest.raises(ScenarioError, match="main.product = spinning: must be one of afrr, "):
        reserve("spinning")
    with pytest.raises(ValueError, match="product = fcr: is for 50 Hz, system.nominal_hz is 60"):
        reserve("fcr", {"nominal_hz": 60})
    with pytest.raises(ValueError, match="product = afrr: follows set-points, needs system.regulation"):
        reserve("afrr")
