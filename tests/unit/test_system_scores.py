"""Scores, mileage and revenue, worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from evgrid.core.registry import Registry
from evgrid.scenario.system import REGD
from evgrid.system import revenue, scores
from evgrid.system.scores import CAISOAccuracy, PJMScore, find_scorer, mileage, mileage_ratio, response_of
from evgrid.system.signals import draw_day


def sine(hours=1.0, period_s=600.0, step_s=2.0, late_s=0.0):
    return np.sin(2 * np.pi * (np.arange(0, hours * 3600, step_s) - late_s) / period_s)


def plain_correlation_and_delay(signal, response, windows, latency=1):
    """The rule in plain numpy on samples of 10 s: the oracle of the kernel."""
    found = []
    for begin in windows:
        own, best = signal[begin : begin + 30], (0.0, 0.0, -np.inf)
        for lag in range(31):
            other = response[begin + lag : begin + lag + 30]
            if len(other) < 30:
                break
            if other.std() <= 1e-6:
                continue
            r = np.corrcoef(own, other)[0, 1]
            d = 1.0 if lag <= latency else abs((lag * 10 - 300) / 300)
            if r + d > best[2] + 1e-12:
                best = (np.clip(r, 0, 1), d, r + d)
        found.append(best[:2])
    return np.array(found)


def test_against_the_rule_in_plain_numpy():
    rng = np.random.default_rng(4)
    signal = draw_day(REGD, 1, 0, 20_000)[: 3 * 1800]
    response = np.roll(signal, 20) * 0.7 + 0.1 * rng.standard_normal(len(signal))
    found = PJMScore().score(signal, response, 2.0)
    own, other = signal[::5], response[::5]
    for hour in range(3):
        expected = plain_correlation_and_delay(own, other, hour * 360 + np.arange(331)).mean(axis=0)
        assert found.parts["correlation"][hour] == pytest.approx(expected[0], abs=1e-9)
        assert found.parts["delay"][hour] == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize("windows", ["rolling", "blocks"])
@pytest.mark.parametrize(("late_s", "delay"), [(0, 1.0), (10, 1.0), (20, 1 - 20 / 300), (100, 1 - 100 / 300)])
def test_late_response(late_s, delay, windows):
    # noise has no correlation with itself at another time, so the delay found is the true one
    rng = np.random.default_rng(1)
    noise = rng.uniform(-1, 1, 360 + 60)
    late = late_s // 10
    response = np.concatenate([np.zeros(late), noise])[: len(noise)]
    found = PJMScore(windows=windows).score(noise, response, 10.0)
    assert found.parts["correlation"] == pytest.approx(1.0)
    assert found.parts["delay"] == pytest.approx(delay)


def test_without_latency_every_delay_counts():
    rng = np.random.default_rng(1)
    noise = rng.uniform(-1, 1, 420)
    late = np.concatenate([[0.0], noise[:-1]])
    found = PJMScore(latency_s=0.0).score(noise, late, 10.0)
    assert found.parts["delay"] == pytest.approx(1 - 10 / 300)
    assert found.parts["precision"] < 0.5
    assert PJMScore().score(noise, late, 10.0).parts["precision"] == pytest.approx(1.0)


def test_at_the_end_of_the_data_only_delays_within_it_are_tried():
    signal = sine()
    assert PJMScore().score(signal, signal, 2.0).total.tolist() == pytest.approx([1.0])
    two = PJMScore().score(sine(2), sine(2), 2.0)
    assert two.total.tolist() == pytest.approx([1.0, 1.0])


def test_flat_response_to_a_signal_that_varies():
    for level in (0.0, 0.3):
        found = PJMScore().score(sine(), np.full(1800, level), 2.0)
        assert found.parts["correlation"] == found.parts["delay"] == 0.0
    assert PJMScore().score(sine(), np.zeros(1800), 2.0).total == 0.0


def test_flat_signal_is_scored_by_slopes():
    flat = np.full(1800, 0.5)
    assert PJMScore().score(flat, flat, 2.0).total == pytest.approx(1.0)
    drifting = 0.5 + np.arange(1800) * 2.0 / 3600 * 1.2  # 0.1 in 5 min (0.0967 over 29 steps)
    found = PJMScore().score(flat, drifting, 2.0)
    assert found.parts["correlation"] == pytest.approx(1 - 1.2 * 290 / 3600, abs=1e-9)
    assert found.parts["delay"] == 1.0


def test_silent_signal():
    zero = np.zeros(1800)
    assert PJMScore().score(zero, zero, 2.0).parts["precision"] == 1.0
    assert PJMScore().score(zero, zero + 0.1, 2.0).parts["precision"] == 0.0
    assert CAISOAccuracy().score(zero, zero, 2.0).total.tolist() == [1.0] * 4
    tiny = zero + 1e-312  # the error over it is no number that a float64 holds
    assert PJMScore().score(tiny, zero + 0.1, 2.0).parts["precision"] == 0.0
    assert CAISOAccuracy().score(tiny, zero + 0.1, 2.0).total.tolist() == [0.0] * 4


def test_opposite_response_has_no_precision():
    found = PJMScore().score(sine(), -sine(), 2.0)
    assert found.parts["precision"] == 0.0
    assert found.total < 0.5


def test_shape_and_partial_hours():
    signal = np.broadcast_to(sine(2.5, step_s=4.0), (3, 2, 2250))
    found = PJMScore().score(signal, signal, 4.0)
    assert found.total.shape == (3, 2, 2)
    np.testing.assert_allclose(found.total, 1.0)


@pytest.mark.parametrize(
    ("signal", "response", "step_s", "message"),
    [
        (np.zeros(1800), np.zeros(1799), 2.0, r"signal has shape \(1800,\), response \(1799,\)"),
        (np.zeros(1800), np.full(1800, np.nan), 2.0, "response holds 1800 values that are no numbers"),
        (np.zeros(100), np.zeros(100), 2.0, "at least one period of 3600 s"),
        (np.zeros(180), np.zeros(180), 20.0, "step_s = 20: must be above 0, up to 10"),
    ],
)
def test_what_can_not_be_scored(signal, response, step_s, message):
    with pytest.raises(ValueError, match=message):
        PJMScore().score(signal, response, step_s)


# ---- other scorers -------------------------------------------------------------------------------


def test_caiso_accuracy_and_mileage():
    signal = np.tile([0.5, -0.5], 450)  # an hour at 4 s
    found = CAISOAccuracy().score(signal, 0.8 * signal, 4.0)
    np.testing.assert_allclose(found.total, 0.8)
    np.testing.assert_allclose(found.parts["mileage"], [224, 225, 225, 225])
    np.testing.assert_allclose(found.parts["adjusted_mileage"], 0.8 * found.parts["mileage"])
    assert (CAISOAccuracy().score(signal, -signal, 4.0).total == 0.0).all()
    with pytest.raises(ValueError, match="step_s = 7: must divide the period of 900 s"):
        CAISOAccuracy().score(signal, signal, 7.0)


def test_mileage_of_a_triangle():
    corner = np.concatenate(
        [np.linspace(-1, 1, 150, endpoint=False), np.linspace(1, -1, 150, endpoint=False)]
    )
    triangle = np.tile(corner, 12)  # two hours of 600 s at 2 s
    assert mileage(triangle, 2.0)[1] == pytest.approx(24.0)
    assert mileage_ratio(triangle, 0.5 * triangle, 2.0)[1] == pytest.approx(2.0)
    assert np.isnan(mileage_ratio(triangle, 0 * triangle, 2.0)).all()


def test_find_scorer(monkeypatch):
    assert isinstance(find_scorer("pjm"), PJMScore)
    with pytest.raises(ValueError, match="scorer = nice: must be one of caiso, pjm, or your own"):
        find_scorer("nice")
    with pytest.raises(ValueError, match="scorer = no_such_module:X: no module named no_such_module"):
        find_scorer("no_such_module:X")
    with pytest.raises(ValueError, match=r"must have period_s and score"):
        find_scorer("collections:OrderedDict")
    assert find_scorer("evgrid.system.scores:CAISOAccuracy").period_s == 900.0


def test_a_user_registers_an_own_scorer(monkeypatch):
    monkeypatch.setattr(scores, "SCORERS", Registry({}))

    @scores.SCORERS.register("always")
    class Always:
        period_s = 3600.0

        def score(self, signal, response, step_s):
            return scores.Score(np.ones(1), {})

    assert find_scorer("always").score(sine(), sine(), 2.0).total == 1.0


def test_response_of_a_fleet_that_draws_less():
    assert response_of(np.array([80.0, 120.0]), 100.0, 50.0).tolist() == [0.4, -0.4]


# ---- revenue -------------------------------------------------------------------------------------


def test_kempton_and_tomic():
    # 10.1016/j.jpowsour.2004.12.025: 15 kW, 18 h a day, 0.04 per kW and hour, ratio 0.1, 0.10 per kWh
    found = revenue.regulation_revenue(15.0, 18 * 365, 0.04, 0.1, 0.10)
    assert found.capacity == pytest.approx(3942.0)
    assert found.energy == pytest.approx(985.5)
    assert found.total == pytest.approx(4927.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((15, 1, 1, 1.1, 1), "dispatch_ratio = 1.1: must be between 0 and 1"),
        ((-1, 1, 1, 0.1, 1), "power_kw = -1"),
    ],
)
def test_revenue_at_fault(given, message):
    with pytest.raises(ValueError, match=message):
        revenue.regulation_revenue(*given)


def test_pjm_credit():
    assert revenue.pjm_credit(2.0, 0.9, 20.0, 3.0, 3.0) == pytest.approx(52.2)
    found = revenue.pjm_credit(1.0, np.array([0.2499, 0.25, 1.0]), 20.0, 4.0)
    np.testing.assert_allclose(found, [0.0, 6.0, 24.0])


def test_qualification_and_disqualification():
    assert revenue.pjm_qualifies(np.array([0.7499, 0.75])).tolist() == [False, True]
    hours = np.concatenate([np.full(100, 0.5), np.full(100, 0.2)])
    out = revenue.pjm_disqualified(np.stack([hours, np.full(200, 0.4)]))
    # the mean of 100 hours is under 0.40 with 34 hours at 0.2: (66 * 0.5 + 34 * 0.2) / 100 = 0.398
    assert np.flatnonzero(out[0])[0] == 133
    assert not out[1].any()
    assert not revenue.pjm_disqualified(np.zeros(99)).any()


def test_caiso_credit():
    score = SimpleNamespace(mileage=np.array([225.0]), accuracy=np.array([0.8]))
    found = revenue.caiso_credit(2.0, 8.0, score.mileage, score.accuracy, 0.05)
    assert found == pytest.approx(2 * (0.25 * 8 + 225 * 0.8 * 0.05))
