"""What the strategy scheduled does between two plans, by hand."""

import numpy as np
import pytest

from evgrid.aggregator.scheduled import Scheduled, ScheduledSettings
from evgrid.aggregator.strategies import Context, View
from evgrid.model import ALL_PHASES, Clock, EVs, Stays

EVS = 3


def strategy(planned, **settings):
    """Three EVs of one group that follow a given plan."""
    evs = EVs(
        np.zeros(EVS, np.int64), np.arange(EVS), np.full(EVS, ALL_PHASES, np.int8),
        np.array(["a", "b", "c"]),
    )  # fmt: skip
    ones = np.ones(EVS)
    stays = Stays(
        np.arange(EVS), 0 * ones, 86400 * ones, 0.5 * ones, 0.9 * ones, 0.2 * ones, 0.9 * ones, 60 * ones,
        11 * ones, 11 * ones, 0.9 * ones, 0.9 * ones, 0 * ones,
    )  # fmt: skip
    clock = Clock(np.datetime64("2026-07-01T15:00"), 300.0, 12)
    context = Context(
        clock, None, evs, 1, np.zeros(EVS, np.int64), stays=stays, base_load=lambda t: np.zeros((1, len(t)))
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
