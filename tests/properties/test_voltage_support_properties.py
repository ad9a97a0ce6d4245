"""What holds of coordinated voltage support on any feeder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.aggregator.strategies.voltage_kernels import CLOSE_PU, LEAST_EFFECT, hold_voltages

LOW, HIGH = 0.94, 1.06


def draw(seed):
    """A radial feeder in two phases that lift each other, one member, as keyword arguments."""
    rng = np.random.default_rng(seed)
    buses, evs = int(rng.integers(1, 6)), int(rng.integers(1, 12))
    depth = np.cumsum(rng.uniform(0.0005, 0.003, buses))
    common = -np.minimum.outer(depth, depth)  # of a line without branches: what both have in common
    lift = rng.uniform(0, 0.5)
    dv_dp = np.kron(common, [[1.0, -lift], [-lift, 1.0]])
    p_max = rng.uniform(0, 8, evs) * (rng.random(evs) < 0.9)
    must = rng.random(evs) < 0.2
    want = np.where(must, p_max, p_max * rng.choice([0.0, 0.5, 1.0], evs))
    floor = np.where(must, want, 0.0)
    return {
        "first": np.array([0, evs]),
        "voltage": rng.uniform(0.88, 1.1, (1, 2 * buses)) * (rng.random((1, 2 * buses)) < 0.9),
        "power": rng.uniform(0, 8, (1, 2 * buses)),
        "dv_dp": dv_dp[np.newaxis],
        "network": np.zeros(1, np.int64),
        "low": np.full((1, 2 * buses), LOW),
        "high": np.full((1, 2 * buses), HIGH),
        "place": rng.integers(0, 2 * buses, evs),
        "width": np.ones(evs, np.int64),
        "want": want,
        "floor": floor,
        "p_min": np.where(must, want, -rng.uniform(0, 8, evs) * (rng.random(evs) < 0.5)),
        "p_max": p_max,
        "wait_s": rng.uniform(0, 36000, evs),
        "step_s": 60.0,
    }


def ahead(case, setpoint):
    drawn = np.bincount(case["place"], setpoint, case["voltage"].shape[1])
    return case["voltage"][0] + case["dv_dp"][0] @ (drawn - case["power"][0])


seeds = st.integers(0, 2**32)


@given(seeds)
@settings(deadline=None)
def test_evs_stay_within_their_limits_and_who_must_charge_does(seed):
    case = draw(seed)
    setpoint, _ = hold_voltages(**case)
    assert (setpoint >= case["p_min"] - 1e-9).all()
    assert (setpoint <= case["p_max"] + 1e-9).all()
    must = case["p_min"] == case["want"]
    assert (setpoint[must] >= case["want"][must] - 1e-9).all()


@given(seeds)
@settings(deadline=None)
def test_a_low_place_is_left_low_only_if_nobody_can_help(seed):
    case = draw(seed)
    case["high"] += 1.0
    setpoint, held = hold_voltages(**case)
    predicted = ahead(case, setpoint)
    there = case["voltage"][0] > 0
    room = setpoint - case["p_min"] > 1e-6
    for at in np.flatnonzero(there & (predicted < LOW - 10 * CLOSE_PU)):
        assert held[0, at]
        effect = -case["dv_dp"][0, at, case["place"]]
        if room.any():
            assert not (
                effect[room] >= LEAST_EFFECT * effect[room].max() * (effect[room].max() > 0) + 1e-12
            ).any()
    if (ahead(case, case["want"])[there] >= LOW).all():
        np.testing.assert_array_equal(setpoint, case["want"])
        assert not held.any()


@given(seeds)
@settings(deadline=None)
def test_lowering_high_voltages_makes_no_place_low(seed):
    case = draw(seed)
    without = {**case, "high": case["high"] + 1.0}
    before, after = ahead(case, hold_voltages(**without)[0]), ahead(case, hold_voltages(**case)[0])
    there = case["voltage"][0] > 0
    assert (after[there] >= np.minimum(before[there], LOW) - 1e-9).all()


@given(seeds, seeds)
@settings(deadline=None)
def test_neither_order_nor_other_members_matter(one, other):
    cases = [draw(one), draw(other)]
    alone = hold_voltages(**cases[0])[0]
    turned = np.random.default_rng(one).permutation(len(alone))
    per_ev = ("place", "width", "want", "floor", "p_min", "p_max", "wait_s")
    mixed = {**cases[0], **{name: cases[0][name][turned] for name in per_ev}}
    assert hold_voltages(**mixed)[0] == pytest.approx(alone[turned], abs=1e-9)
    if cases[1]["voltage"].shape == cases[0]["voltage"].shape:
        both = {name: np.concatenate([c[name] for c in cases]) for name in per_ev}
        for name in ("voltage", "power", "low", "high"):
            both[name] = np.concatenate([c[name] for c in cases])
        both["first"] = np.array([0, len(alone), len(both["want"])])
        both |= {"dv_dp": cases[0]["dv_dp"], "network": np.zeros(2, np.int64), "step_s": 60.0}
        np.testing.assert_array_equal(hold_voltages(**both)[0][: len(alone)], alone)
