"""What the strategy scheduled does between two plans, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from evgrid.aggregator.planning.scheduler import highest_mean, interval_means
from evgrid.aggregator.strategies.scheduled import Demand, Meter, Scheduled, ScheduledSettings, demand_of
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import ALL_PHASES, Clock, EVs, PlannedSessions
from evgrid.scenario.tariffs import tariff_from

EVS = 3


def strategy(planned, **settings):
    """Three EVs of one group that follow a given plan."""
    evs = EVs(
        np.zeros(EVS, np.int64), np.arange(EVS), np.full(EVS, ALL_PHASES, np.int8),
        np.array(["a", "b", "c"]),
    )  # fmt: skip
    ones = np.ones(EVS)
    stays = PlannedSessions(
        np.arange(EVS), 0 * ones, 86400 * ones, 0.5 * ones, 0.9 * ones, 0.2 * ones, 0.9 * ones, 60 * ones,
        11 * ones, 11 * ones, 0.9 * ones, 0.9 * ones, 0 * ones, 0.9 * ones, ones,
    )  # fmt: skip
    clock = Clock(np.datetime64("2026-07-01T15:00"), 300.0, 12)
    context = Context(
        clock,
        None,
        evs,
        1,
        np.zeros(EVS, np.int64),
        planned_sessions=stays,
        base_load=lambda begin, end: np.zeros((1, len(begin))),
    )
    found = Scheduled(ScheduledSettings(strategy="scheduled", **settings), context)
    found._slot, found._planned = 0, np.array(planned)
    found._unplanned = lambda view: np.zeros(0, np.int64)  # nobody comes between two plans
    return found


def view(laxity_s, base=0.0, p_max=(10.0, 6.0, 6.0), p_min=(-10.0, 0.0, 0.0)):
    needed = np.array(p_max) / 2  # half an hour at full power
    return View(
        300.0, 300.0, np.ones(EVS, np.bool_), np.full(EVS, 0.6), np.array(p_max), np.array(p_min), needed,
        np.array(laxity_s) + 1800.0, np.full(EVS, 1800.0), np.array([base]),
    )  # fmt: skip


def test_the_plan_is_followed_where_there_is_room():
    asked = strategy([-4.0, 3.0, np.inf], limit_kw=20.0).setpoints(view([9e4, 9e4, 9e4], base=10.0))
    np.testing.assert_array_equal(asked, [-4.0, 3.0, np.inf])


def test_who_must_charge_is_counted_before_the_plan_of_the_others():
    # 10 kW that nobody planned leave 20 - 3 - 10 = 7 kW of the 12 that the others were to draw
    asked = strategy([0.0, 6.0, 6.0], limit_kw=20.0).setpoints(view([0.0, 4e4, 5e4], base=3.0))
    assert asked[0] == 10.0
    assert asked[1:].sum() == pytest.approx(7.0, abs=1e-4)
    assert asked[1] == pytest.approx(6.0, abs=1e-4)  # the least laxity first


def test_who_can_discharges_where_postponing_does_not_suffice():
    # the base load is 5 kW above the limit: nobody charges, and the one that may gives 5 kW
    asked = strategy([0.0, 6.0, 6.0], limit_kw=20.0).setpoints(view([9e4, 4e4, 5e4], base=25.0))
    np.testing.assert_allclose(asked, [-5.0, 0.0, 0.0], atol=1e-4)
    kept = strategy([0.0, 6.0, 6.0], limit_kw=20.0, discharge=False)
    np.testing.assert_allclose(kept.setpoints(view([9e4, 4e4, 5e4], base=25.0)), 0.0, atol=1e-9)
    reserve = strategy([0.0, 6.0, 6.0], limit_kw=20.0, soc_reserve=0.7)
    np.testing.assert_allclose(reserve.setpoints(view([9e4, 4e4, 5e4], base=25.0)), 0.0, atol=1e-9)


def test_what_is_discharged_by_plan_makes_room():
    # 10 kW given back, so 30 may be drawn under 20, of which 12 are
    asked = strategy([-10.0, 6.0, 6.0], limit_kw=20.0).setpoints(view([9e4, 4e4, 5e4], base=15.0))
    np.testing.assert_array_equal(asked, [-10.0, 6.0, 6.0])
    asked = strategy([-10.0, 6.0, 6.0], limit_kw=20.0).setpoints(view([9e4, 4e4, 5e4], base=22.0))
    assert asked[0] == -10.0
    assert asked[1:].sum() == pytest.approx(8.0, abs=1e-4)


def test_where_the_fleet_needs_longer_than_at_rated_power_a_plan_has_less():
    """From 0.8 to 0.9 along a taper from 0.8 on: 12 kWh / 9.9 kW · ln 2 at the rated 11 kW."""
    planned = strategy([0.0, 0.0, 0.0])
    planned._sessions = replace(planned._sessions, taper_soc=np.full(EVS, 0.8))
    hours = 12 / 9.9 * np.log(2) * np.array([1.0, 2.0, 0.5])
    seen = replace(view([9e4] * 3), energy_needed=np.full(EVS, 6 / 0.9), time_needed=3600 * hours)
    rows = np.arange(EVS)
    np.testing.assert_allclose(planned._rated_kw(seen, rows, rows), [11.0, 5.5, 11.0])


def test_who_gives_by_plan_is_asked_for_more_where_postponing_does_not_suffice():
    # 25 kW besides 4 given and 3 drawn: the 3 are postponed, and 1 kW more is given
    asked = strategy([-4.0, 3.0, 0.0], limit_kw=20.0).setpoints(view([9e4, 4e4, 5e4], base=25.0))
    np.testing.assert_allclose(asked, [-5.0, 0.0, 0.0], atol=1e-4)
    # not beyond what it has, nor beyond its reserve
    asked = strategy([-4.0, 3.0, 0.0], limit_kw=20.0).setpoints(view([9e4, 4e4, 5e4], base=35.0))
    np.testing.assert_allclose(asked, [-10.0, 0.0, 0.0], atol=1e-4)
    reserve = strategy([-4.0, 3.0, 0.0], limit_kw=20.0, soc_reserve=0.7)
    asked = reserve.setpoints(view([9e4, 4e4, 5e4], base=35.0))
    np.testing.assert_allclose(asked, [-4.0, 0.0, 0.0], atol=1e-4)


# ---- demand charges ------------------------------------------------------------------------------

TARIFF = {
    "name": "flat",
    "seasons": [
        {"name": "all", "months": list(range(1, 13)), "periods": [{"name": "rest", "price_per_kwh": 0.2}]}
    ],
}


def charge(settings, demand=None):
    told = TARIFF if demand is None else TARIFF | {"demand": demand}
    return demand_of(ScheduledSettings(strategy="scheduled", **settings), tariff_from(told))


def test_a_demand_charge_is_the_tariff_s_unless_set_otherwise():
    summer = {"prices": [{"months": [6], "price_per_kw": 12}], "interval": "30min", "of": "feeder"}
    assert charge({}) is None
    assert charge({"demand_charge": 0}, summer) is None
    assert charge({}, summer) is None  # of the feeder, but groups are transformers
    own = charge({"group": "feeder"}, summer)
    assert (own.price(6), own.price(7), own.interval_s, own.of_group) == (12, 0, 1800, True)
    told = charge({"group": "feeder", "demand_charge": 3, "demand_of": "evs", "demand_interval": 600}, summer)
    assert (told.price(7), told.interval_s, told.of_group) == (3, 600, False)
    assert (charge({"demand_charge": 3}).interval_s, charge({"demand_charge": 3}).of_group) == (900, False)


def test_means_of_intervals_by_hand():
    # slots of 15 min from 0:15 on, intervals of half an hour: the first has had its first half
    means = interval_means(np.array([900.0, 1800.0, 2700.0]), 900.0, 1800.0)
    np.testing.assert_allclose(means, [[0.5, 0, 0], [0, 0.5, 0.5]])
    power = np.array([[4.0, 8.0, 6.0]])
    np.testing.assert_allclose(highest_mean(power, means, np.array([6.0])), [8.0])
    np.testing.assert_allclose(highest_mean(power, means), [7.0])
    # 20 min over slots of 15: 15 and 5
    means = interval_means(np.array([0.0, 900.0, 1800.0, 2700.0]), 900.0, 1200.0)
    np.testing.assert_allclose(means, [[0.75, 0.25, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.25, 0.75]])
    np.testing.assert_allclose(interval_means(np.array([0.0, 900.0]), 900.0, 300.0), np.eye(2))


def test_a_meter_counts_means_and_begins_again_each_month():
    clock = Clock(np.datetime64("2026-06-30T23:30"), 300.0, 12)
    context = Context(clock, None, EVs(*(np.zeros(0, np.int64),) * 3, np.zeros(0, "U1")), 1, np.zeros(0, int))
    meter = Meter(context, Demand(lambda month: float(month), 900.0, False))
    for tick, power in enumerate([6.0, 0.0, 9.0, 2.0, 2.0, 2.0, 1.0]):
        meter.begin(300.0 * tick)
        if tick == 1:
            meter.cap_kw[:] = 7.0
            assert meter.left_s(300.0) == pytest.approx(600.0)
            np.testing.assert_allclose(meter.room(600.0), [7.5])  # 6 for 5 min leave 7.5 for 10
        if tick == 5:
            np.testing.assert_allclose(meter.peak_kw, [5.0])
            assert meter.price == 6.0
        meter.count(np.array([power]), 300.0)
    np.testing.assert_allclose(meter.peak_kw, [0.0])  # it is July
    assert meter.price == 7.0
