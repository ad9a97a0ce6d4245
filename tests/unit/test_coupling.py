"""The iteration of a tick: a line with one or more chargers, whose fixed point is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evgrid.core.fixed_point import FixedPoint
from evgrid.core.model import MemoryRecorder

SOURCE_PU, X_PU = 1.05, 0.04
"""V = SOURCE_PU - X_PU * Q, with Q drawn, per rated power."""
KVA = 8.0


def drawn(voltage_pu, steepness, step=False):
    """Q(V) = KVA * steepness * (V - 1), at most the rating; with ``step`` it jumps at 1 pu instead."""
    if step:
        return np.where(voltage_pu > 1.0, KVA, -KVA)
    return KVA * np.clip(steepness * (voltage_pu - 1.0), -1.0, 1.0)


def equilibrium(steepness):
    """Voltage at which curve and line meet, where the curve is not at its end."""
    return (SOURCE_PU + X_PU * steepness) / (1 + X_PU * steepness)


def iterate(steepness, most=50, tolerance=1e-6, members=None, source=SOURCE_PU, start=1.0, step=False):
    """One tick of members with one charger each; the iteration and the voltages it ended with."""
    steepness = np.asarray(steepness, float)[:, None]
    count = len(steepness)
    members = members or range(count)
    fixed = FixedPoint(np.full((count, 1), KVA), members, tolerance, most)
    q = drawn(np.full((count, 1), start), steepness, step)
    fixed.begin(np.full((count, 1), start), np.zeros_like(q), q)
    flows = []
    while True:
        flows.append(q / KVA)
        voltage = source - X_PU * q / KVA
        if fixed.found(voltage):
            break
        _, q = fixed.damped(np.zeros_like(q), drawn(fixed.seen, steepness, step))
        if not fixed.moving.any():
            break
    fixed.close("2026-01-15 12:00:00")
    return fixed, voltage[:, 0], flows


def test_worked_by_hand():
    """K = 25: V* = (1.05 + 1) / 2 = 1.025, Q* = 0.625; Q0 = 0 at 1 pu."""
    fixed, voltage, flows = iterate([25.0])
    assert voltage == pytest.approx([1.025], abs=1e-6)
    trials = [float(q[0, 0]) for q in flows]
    # V(0) = 1.05, so f = 1 (the end of the curve), and half of the way is taken
    assert trials[:2] == pytest.approx([0.0, 0.5])
    # V(0.5) = 1.03, f = 0.75, F = 0.25; before F = 1: the secant meets F = 0 at 0.5 + 0.25 * 0.5 / 0.75
    assert trials[2] == pytest.approx(0.5 + 0.25 * 0.5 / 0.75)
    assert trials[-1] == pytest.approx(0.625, abs=1e-6)
    assert fixed.iterations == pytest.approx([len(flows)])
    assert fixed.residual[0] <= 1e-6
    assert not fixed.unconverged


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=4))
def test_any_slope_stands_and_members_do_not_know_each_other(slopes):
    fixed, voltage, _ = iterate(slopes)
    for place, slope in enumerate(slopes):
        if slope * (equilibrium(slope) - 1.0) < 1.0:
            assert voltage[place] == pytest.approx(equilibrium(slope), abs=2e-6)
        else:
            assert voltage[place] == pytest.approx(SOURCE_PU - X_PU, abs=2e-6)
        alone, own, _ = iterate([slope])
        assert own[0] == voltage[place]
        assert alone.iterations[0] == fixed.iterations[place]
        assert alone.residual[0] == fixed.residual[place]
    assert not fixed.unconverged


def test_no_answer_needs_one_power_flow():
    fixed, voltage, flows = iterate([0.0])
    assert len(flows) == 1
    assert (fixed.iterations[0], fixed.residual[0]) == (1.0, 0.0)
    assert voltage == pytest.approx([SOURCE_PU])


def test_who_can_not_stand_is_named():
    """A curve with a jump has no equilibrium: V is above 1 with -KVA drawn, and below with KVA."""
    fixed, _, flows = iterate([0.0], source=1.02, most=20, members=range(5, 6), step=True)
    assert len(flows) == 20
    assert fixed.residual[0] > 1e-3
    assert fixed.steps_unconverged == pytest.approx([1])
    assert fixed.unconverged[5].startswith(
        "member 5: chargers and feeder did not converge in 20 iterations in 1 step, first at "
        "2026-01-15 12:00:00 with a residual of "
    )
    assert abs(flows[-1][0, 0]) == 1.0  # what is handed over is a state of the charger


def test_a_bound_of_two():
    fixed, voltage, flows = iterate([0.0, 100.0], most=2)
    assert len(flows) == 2
    assert list(fixed.unconverged) == [1]
    assert list(fixed.iterations) == [1.0, 2.0]
    assert voltage[0] == pytest.approx(SOURCE_PU)
    assert "in 2 iterations in 1 step, first at" in fixed.unconverged[1]


def test_what_is_recorded():
    fixed, _, _ = iterate([0.0, 100.0], most=2)
    recorder = MemoryRecorder()
    fixed.record(recorder, 0)
    fixed.finish(recorder)
    assert recorder.series("coupling_iterations").tolist() == [[1.0, 2.0]]
    assert recorder.series("coupling_residual")[0, 1] == recorder.static["coupling_residual_worst"][1] > 1e-6
    assert recorder.static["coupling_unconverged"].tolist() == [0, 1]
