"""The strategy `reserve`: activation by frequency and by set-points, sides, delivery by hand."""

from dataclasses import replace

import numpy as np
import pytest

from evgrid.aggregator.strategies.reserve import Reserve
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Clock, EVs
from evgrid.errors import ScenarioError
from evgrid.scenario import load_scenario, scenario_from
from evgrid.scenario.aggregators import strategy_settings
from evgrid.scenario.products import find_product
from evgrid.scenario.system import System
from evgrid.system.products import activation

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


def grouped(**settings):
    """60 EVs in a first group, 40 in a second."""
    group = np.repeat([0, 1], [60, 40])
    zeros = np.zeros(COUNT, np.int64)
    evs = EVs(zeros, zeros, np.zeros(COUNT, np.int8), np.arange(COUNT).astype(str))
    clock = Clock(np.datetime64("2026-01-15T20:00"), STEP_S, 900)
    given = {"strategy": "reserve", "product": "fcr", **settings}
    context = Context(clock, None, evs, 2, group, System(nominal_hz=50), range(1), 0)
    return Reserve(strategy_settings(given, {}, "aggregators.main"), context), group


def with_base(view, *base_kw):
    return replace(view, base_load=np.array(base_kw))


def test_without_a_limit_groups_change_nothing():
    strategy, _ = grouped()
    alone = reserve("fcr", hours=1)
    for time_s, hertz in ((0.0, 50.0), (4.0, 49.9), (8.0, 50.15)):
        view = with_base(fleet(time_s, hertz), 500.0, 500.0)
        np.testing.assert_array_equal(strategy.setpoints(view), alone.setpoints(view))


@pytest.mark.parametrize("hertz", [49.7, 49.95, 50.0, 50.05, 50.3])
def test_a_limit_leaves_each_group_its_room(hertz):
    strategy, group = grouped(limit_kw=300.0)
    strategy.setpoints(with_base(fleet(0.0), 200.0, 120.0))
    # at rest, missing just their band: 100 and 180 kW of room to draw, in which 444 and 296 kW would be free
    offered = strategy.recorded["capacity_offered_kw"][0]
    quantile = 1.6448536 * np.sqrt(0.97 * 0.03 * (100**2 / 60 + 180**2 / 40))
    assert offered == pytest.approx(0.97 * 280 - quantile, rel=1e-6)
    powers = np.bincount(group, strategy.setpoints(with_base(fleet(4.0, hertz), 200.0, 120.0)))
    share = activation(find_product("fcr"), hertz)
    np.testing.assert_allclose(powers, -share * offered * np.array([100, 180]) / 280, rtol=1e-5, atol=1e-6)
    # the load has risen: there is 20 kW less for the first group
    powers = np.bincount(group, strategy.setpoints(with_base(fleet(8.0, hertz), 280.0, 120.0)))
    assert powers[0] <= 20.0 + 1e-9
    # and where it is beyond the limit, EVs don't draw but don't make up for it
    powers = np.bincount(group, strategy.setpoints(with_base(fleet(12.0, hertz), 350.0, 120.0)))
    assert powers[0] == pytest.approx(min(-share * offered * 100 / 280, 0.0), rel=1e-5, abs=1e-6)


def test_evs_upstream_of_the_feeder_have_no_limit():
    strategy, group = grouped(limit_kw=10.0)
    free = Reserve(strategy.settings, replace(strategy.context, upstream=True))
    for each in (strategy, free):
        each.setpoints(with_base(fleet(0.0), 0.0, 0.0))
    setpoints = free.setpoints(with_base(fleet(4.0, 50.3), 0.0, 0.0))
    assert np.bincount(group, setpoints)[1] > 200
    assert strategy.recorded["capacity_offered_kw"][0] < 20
    with pytest.raises(ValueError, match="limit_kw: needs group = transformer where EVs are upstream"):
        Reserve(strategy.settings, replace(strategy.context, groups=1, upstream=True))


def test_faults_are_sentences():
    with pytest.raises(ScenarioError, match="main.product = spinning: must be one of afrr, "):
        reserve("spinning")
    regulated = load_scenario("scenarios/frequency_regulation.yaml").model_dump(
        mode="json", exclude_unset=True
    )
    for product, frequency, sentence in (
        ("fcr", {"source": "lfc"}, "main.product = fcr: is for 50 Hz, system.nominal_hz is 60"),
        ("afrr", {"source": "lfc"}, "main.product = afrr: follows set-points, needs system.regulation"),
    ):
        given = {
            "system": {"nominal_hz": 60, "frequency": frequency, "regulation": {"source": "none"}},
            "aggregators.main": {"strategy": "reserve", "group": "feeder", "product": product},
        }
        with pytest.raises(ScenarioError, match=sentence):
            scenario_from(regulated, given)


def test_an_own_scorer_is_part_of_what_a_run_is_known_by(tmp_path):
    from evgrid.runs.batch import identity
    from evgrid.scenario import scenario_from

    content = {
        "name": "x",
        "time": {"start": "2026-01-15", "duration": "1h", "step": "4s"},
        "feeder": {"network": "cigre_lv"},
        "fleet": {"count": 1},
        "aggregators": {"main": {"strategy": "regulation", "scorer": "own_scorer_of_test:Mine"}},
        "system": {"regulation": {"source": "synthetic"}},
    }
    module = tmp_path / "own_scorer_of_test.py"
    text = "class Mine:\n    period_s = 3600.0\n    def score(self, signal, response, step_s): ...\n"
    module.write_text(text)
    scenario = scenario_from(content, folder=tmp_path)
    first = identity(scenario)
    module.write_text(text + "# changed\n")
    assert identity(scenario) != first
