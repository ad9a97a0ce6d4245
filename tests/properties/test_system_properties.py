"""What must hold for any area, signal, product and response."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evgrid.core.model import Clock, MemoryRecorder
from evgrid.errors import RunError
from evgrid.scenario.products import PRODUCTS
from evgrid.scenario.system import System
from evgrid.system import signals
from evgrid.system.model import SystemModel
from evgrid.system.products import activation, slowest_delivery
from evgrid.system.scores import CAISOAccuracy, PJMScore

DROOP = sorted(name for name, product in PRODUCTS.items() if product.driver == "frequency")
STEPS = st.lists(
    st.tuples(st.floats(0, 20), st.floats(-0.2, 0.2), st.one_of(st.none(), st.floats(0.1, 10))), max_size=4
)


def trajectory(step_s, steps, powers=None, members=1, **frequency):
    """Deviation at the end of each tick over 24 s, (tick, member); powers: (second, member) kW."""
    changes = [{"time": t, "pu": size, **({"duration": d} if d else {})} for t, size, d in steps]
    fleet = {"stands_for": 1, "schedule_kw": 0.0}
    given_ = {
        "frequency": {"source": "lfc", "base_mw": 1, "disturbances": changes, "fleet": fleet, **frequency}
    }
    clock = Clock(np.datetime64("2026-01-15"), step_s, round(24 / step_s))
    model = SystemModel(
        System.model_validate(given_), clock, range(members), 0, MemoryRecorder(), fleet=powers is not None
    )
    rows = []
    for k in range(clock.ticks):
        inputs = {} if powers is None else {"fleet/p": powers[int(k * step_s + 1e-9)]}
        rows.append(model.step(k * step_s, inputs)["system/frequency"] - 60.0)
    return np.array(rows)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.sampled_from([0.0, 3.0]), st.sampled_from([0.5, 3.0, 8.0]))
def test_no_tick_changes_the_trajectory(steps, ki, step_s):
    fine = trajectory(0.25, steps, agc_gain=ki)
    coarse = trajectory(step_s, steps, agc_gain=ki)
    every = round(step_s / 0.25)
    np.testing.assert_allclose(coarse, fine[every - 1 :: every], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(STEPS, STEPS)
def test_answers_add_up(one, other):
    both = trajectory(2.0, one + other, agc_gain=3.0)
    apart = trajectory(2.0, one, agc_gain=3.0) + trajectory(2.0, other, agc_gain=3.0)
    np.testing.assert_allclose(both, apart, atol=1e-9)


@settings(max_examples=15, deadline=None)
@example(np.full((24, 3), 146.0), [(0.0, 0.2, None)] * 3, True)  # beyond the reserve
@given(arrays(np.float64, (24, 3), elements=st.floats(-200, 200)), STEPS, st.booleans())
def test_a_member_alone_is_the_member_among_others(powers, steps, limited):
    extra = {"reserve_up_pu": 0.05} if limited else {}

    def found(power):
        """None where the frequency collapses, which ends a run: more is drawn than the reserve has."""
        try:
            return trajectory(1.0, steps, power, members=power.shape[1], **extra)
        except RunError as error:
            assert "the area is unstable" in str(error)  # noqa: PT017
            return None

    among, alone = found(powers), [found(powers[:, member : member + 1]) for member in range(3)]
    assert (among is None) == any(one is None for one in alone)
    if among is not None:
        np.testing.assert_array_equal(among, np.concatenate(alone, axis=1))


@settings(max_examples=15, deadline=None)
@given(arrays(np.float64, (24, 1), elements=st.floats(-200, 200)))
def test_power_drawn_by_the_fleet_is_load(powers):
    # the fleet's power acts from the second tick on, as a load of the same size
    steps = [(float(k), powers[k, 0] / 1000.0, 1.0) for k in range(1, 24)]
    np.testing.assert_allclose(trajectory(1.0, [], powers), trajectory(1.0, steps), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    fast=st.floats(5, 600),
    slow=st.one_of(st.none(), st.floats(60, 3600)),
    spread=st.floats(0.05, 5),
    neutral=st.sampled_from([300.0, 900.0, 3600.0]),
    step=st.sampled_from([2.0, 4.0]),
    member=st.integers(0, 1000),
)
def test_signals_are_bounded_and_neutral(fast, slow, spread, neutral, step, member):
    day = signals.draw_day(signals.Shape(fast, slow, spread, neutral, step), 1, member, 20_000)
    assert len(day) == 86400 / step
    assert np.abs(day).max() <= 1.0
    assert signals.statistics(day, step, neutral).worst_energy_h < 1e-9


@given(st.sampled_from(DROOP), st.floats(49, 51), st.floats(49, 51))
def test_activation_is_bounded_odd_and_falls_with_frequency(name, one, other):
    product = PRODUCTS[name]
    low, high = sorted((one, other))
    at_low, at_high = activation(product, np.array([low, high]))
    assert -1 <= at_high <= at_low + 1e-12 <= 1 + 1e-12
    if product.direction == "both":
        assert activation(product, 100.0 - one) == pytest.approx(-activation(product, one), abs=1e-6)


SAMPLES = arrays(np.float64, (2, 360), elements=st.floats(-1, 1))


@settings(max_examples=40, deadline=None)
@given(SAMPLES, st.sampled_from(["rolling", "blocks"]))
def test_scores_lie_between_0_and_1(pair, windows):
    for scorer in (PJMScore(windows=windows), CAISOAccuracy()):
        found = scorer.score(pair[0], pair[1], 10.0)
        assert ((found.total >= 0) & (found.total <= 1 + 1e-12)).all()
    for part in PJMScore(windows=windows).score(pair[0], pair[1], 10.0).parts.values():
        assert ((part >= 0) & (part <= 1)).all()


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_a_perfect_response_scores_1(pair):
    assert PJMScore().score(pair[0], pair[0], 10.0).total == pytest.approx(1.0)
    assert CAISOAccuracy().score(pair[0], pair[0], 10.0).total == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(SAMPLES, st.sampled_from(sorted(PRODUCTS)), st.floats(0.5, 60))
def test_delivery_keeps_to_its_ramp_and_between_start_and_wanted(wanted, name, step_s):
    delivered = slowest_delivery(PRODUCTS[name], wanted, step_s)
    steps = np.abs(np.diff(delivered, axis=1, prepend=0.0))
    assert (steps <= PRODUCTS[name].rate_per_s * step_s + 1e-12).all()
    assert (delivered <= np.maximum.accumulate(np.maximum(wanted, 0), axis=1) + 1e-12).all()
    assert (delivered >= np.minimum.accumulate(np.minimum(wanted, 0), axis=1) - 1e-12).all()
