"""The control area: against an independent solver, analytic limits, cuts, feedback, limits."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from evgrid.core.model import Clock, MemoryRecorder
from evgrid.errors import RunError
from evgrid.scenario.system import System
from evgrid.system.kernels import cubic_turn
from evgrid.system.model import SystemModel

H, D, R, TG, TT, F0 = 5.0, 0.8, 0.05, 0.2, 0.5, 60.0


def build(step_s, duration_s, members=1, fleet=False, regulation=None, **frequency):
    settings = System.model_validate(
        {"frequency": {"source": "lfc", **frequency}, **({"regulation": regulation} if regulation else {})}
    )
    clock = Clock(np.datetime64("2026-01-15T12:00"), step_s, round(duration_s / step_s))
    recorder = MemoryRecorder()
    return SystemModel(settings, clock, range(members), 0, recorder, fleet), recorder, clock


def trajectory(step_s, duration_s, **frequency):
    """Frequency deviation at the end of every tick, Hz."""
    model, _, clock = build(step_s, duration_s, **frequency)
    return np.array([model.step(k * step_s, {})["system/frequency"][0] for k in range(clock.ticks)]) - F0


def oracle(times_s, load, ki=0.0, deadband_hz=0.0, limits=(-np.inf, np.inf), breaks=()):
    """The equations from the textbook, by an adaptive solver, restarted at each break."""

    def slopes(t, x):
        w, pm, pv, z = x
        seen = np.sign(w) * max(abs(w) - deadband_hz / F0, 0.0)
        valve = (-seen / R - ki * z - pv) / TG
        if (pv >= limits[1] and valve > 0) or (pv <= limits[0] and valve < 0):
            valve = 0.0
        return [(pm - load(t) - D * w) / (2 * H), (pv - pm) / TT, valve, w]

    x, at, found = np.zeros(4), 0.0, []
    for stop in [*breaks, times_s[-1]]:
        wanted = times_s[(times_s > at) & (times_s <= stop)]
        part = solve_ivp(
            lambda t, x, before=stop - 1e-9: slopes(min(t, before), x), (at, stop), x,
            t_eval=sorted({*wanted, stop}),
            rtol=1e-10, atol=1e-12, max_step=0.05,
        )  # fmt: skip
        found += list(part.y[0][: len(wanted)] * F0)
        x, at = part.y[:, -1], stop
    return np.array(found)


@pytest.mark.parametrize("ki", [0.0, 7.0])
def test_transient_against_an_independent_solver(ki):
    found = trajectory(1.0, 30.0, agc_gain=ki, disturbances=[{"time": 0, "pu": 0.2}])
    expected = oracle(np.arange(1.0, 31.0), lambda t: 0.2, ki)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_several_steps_off_the_ticks_against_an_independent_solver():
    steps = [{"time": 1.234, "mw": 100}, {"time": 3.0051, "mw": -50, "duration": 4.5}]
    found = trajectory(4.0, 24.0, agc_gain=1.0, disturbances=steps)

    def load(t):
        return 0.1 * (t >= 1.234) - 0.05 * (3.0051 <= t < 7.5051)

    expected = oracle(np.arange(4.0, 25.0, 4.0), load, 1.0, breaks=(1.234, 3.0051, 7.5051))
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("ki", [0.0, 7.0])
@pytest.mark.parametrize("step_s", [1.0, 4.0])
def test_same_trajectory_at_any_tick(step_s, ki):
    given = {"agc_gain": ki, "disturbances": [{"time": 2.5, "pu": 0.2}]}
    fine = trajectory(0.02, 60.0, **given)
    coarse = trajectory(step_s, 60.0, **given)
    every = round(step_s / 0.02)
    np.testing.assert_allclose(coarse, fine[every - 1 :: every], atol=1e-10)


@pytest.mark.parametrize(("droop", "damping"), [(0.05, 0.8), (0.04, 0.0), (0.1, 2.0)])
def test_rest_without_agc_is_analytic(droop, damping):
    found = trajectory(4.0, 400.0, droop=droop, damping=damping, disturbances=[{"time": 0, "pu": 0.1}])
    assert found[-1] == pytest.approx(-0.1 * F0 / (1 / droop + damping), abs=1e-9)


def test_recorded_frequency_is_the_mean_over_the_tick():
    given = {"disturbances": [{"time": 0, "pu": 0.2}]}
    model, recorder, _ = build(4.0, 8.0, **given)
    model.step(0.0, {})
    model.step(4.0, {})
    model.finish()
    fine, at = build(0.02, 8.0, **given)[0], []
    for k in range(400):
        at.append(fine.step(k * 0.02, {})["system/frequency"][0])
    values = np.array([F0, *at])
    means = (values[:-1] + values[1:]).reshape(2, 200, order="C").mean(axis=1) / 2
    np.testing.assert_allclose(recorder.series("frequency_hz")[:, 0], means, atol=1e-4)


def test_deadband_and_valve_limits_against_an_independent_solver():
    found = trajectory(
        1.0, 20.0, agc_gain=0.5, governor_deadband_hz=0.036, reserve_up_pu=0.12,
        disturbances=[{"time": 0, "pu": 0.15}],
    )  # fmt: skip
    expected = oracle(np.arange(1.0, 21.0), lambda t: 0.15, 0.5, 0.036, (-np.inf, 0.12))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    # with the valve at its limit only the load's damping holds the rest
    rest = trajectory(4.0, 400.0, reserve_up_pu=0.12, disturbances=[{"time": 0, "pu": 0.15}])[-1]
    assert rest == pytest.approx(-(0.15 - 0.12) / D * F0, abs=1e-6)


def test_limits_that_do_not_bind_change_nothing():
    steps = [{"time": 0, "pu": 0.1}]
    free = trajectory(1.0, 20.0, agc_gain=2.0, disturbances=steps)
    bound = trajectory(1.0, 20.0, agc_gain=2.0, disturbances=steps, reserve_up_pu=1.0, reserve_down_pu=1.0)
    np.testing.assert_allclose(bound, free, atol=1e-5)


def test_fleet_that_gives_back_what_was_lost_restores_the_frequency():
    steps = [{"time": 10, "mw": 5}]
    model, recorder, _ = build(1.0, 120.0, members=2, fleet=True, base_mw=100.0, disturbances=steps)
    assert model.inputs == ("fleet/p",)
    for k in range(120):
        power = np.full((2, 3, 1), 100.0)
        if k >= 20:
            power[1] -= 5000.0 / 3  # member 1 gives 5 MW over three connections
        frequency = model.step(float(k), {"fleet/p": power})["system/frequency"]
    model.finish()
    # the moving average (15 min) has taken over 1 - exp(-100 / 900) of it by then
    left = 5 / 100 * -np.expm1(-100 / 900)
    assert frequency[0] - F0 == pytest.approx(-0.05 * F0 / (1 / R + D), abs=1e-6)
    assert frequency[1] - F0 == pytest.approx(-left * F0 / (1 / R + D), abs=2e-3)
    np.testing.assert_allclose(recorder.series("area_fleet_mw")[:20], 0.0, atol=1e-12)
    assert recorder.series("area_fleet_mw")[20, 1] == pytest.approx(-5.0)


def test_fleet_stands_for_many_and_follows_a_given_schedule():
    settings = System.model_validate(
        {"frequency": {"source": "lfc", "fleet": {"stands_for": 50, "schedule_kw": 200.0}}}
    )
    clock = Clock(np.datetime64("2026-01-15"), 1.0, 60)
    model = SystemModel(settings, clock, range(1), 0, MemoryRecorder(), fleet=True)
    for k in range(60):
        frequency = model.step(float(k), {"fleet/p": np.array([1200.0])})["system/frequency"]
    assert frequency[0] - F0 == pytest.approx(-0.05 * F0 / (1 / R + D), abs=1e-5)  # 50 x 1 MW of 1 GW


def test_fleet_does_not_act_before_it_has_spoken():
    model, *_ = build(1.0, 2.0, fleet=True)
    assert model.step(0.0, {"fleet/p": np.array([[[5000.0]]])})["system/frequency"][0] == F0


def test_area_that_nothing_feeds_takes_no_input():
    assert build(1.0, 1.0)[0].inputs == ()
    settings = System.model_validate({"frequency": {"source": "lfc", "fleet": {"stands_for": 0}}})
    clock = Clock(np.datetime64("2026-01-15"), 1.0, 1)
    assert SystemModel(settings, clock, range(1), 0, MemoryRecorder(), fleet=True).inputs == ()


def test_load_from_a_file(tmp_path):
    (tmp_path / "load.csv").write_text("time,mw\n0,0\n10,100\n20,100\n")
    stepped = trajectory(1.0, 30.0, disturbances=[{"time": 10, "mw": 100}])
    filed = trajectory(1.0, 30.0, load={"file": str(tmp_path / "load.csv")})
    np.testing.assert_allclose(filed, stepped, atol=1e-12)


def test_load_file_that_begins_before_the_run(tmp_path):
    (tmp_path / "load.csv").write_text("time,mw\n-10,100\n20,0\n50,0\n")
    stepped = trajectory(1.0, 30.0, disturbances=[{"time": 0, "mw": 100, "duration": 20}])
    filed = trajectory(1.0, 30.0, load={"file": str(tmp_path / "load.csv")})
    np.testing.assert_allclose(filed, stepped, atol=1e-12)


def test_agc_command_as_the_regulation_signal():
    model, *_ = build(
        4.0, 400.0, agc_gain=2.0, agc_full_pu=0.2, disturbances=[{"time": 0, "pu": 0.1}],
        regulation={"source": "agc"},
    )  # fmt: skip
    for k in range(100):
        signal = model.step(4.0 * k, {})["system/regulation"]
    assert signal[0] == pytest.approx(0.5, abs=1e-6)  # 0.1 of 0.2 pu is asked for upward


def test_unstable_area_is_an_error():
    model, *_ = build(1.0, 600.0, agc_gain=500.0, disturbances=[{"time": 0, "pu": 0.2}])

    def steps():
        for k in range(600):
            model.step(float(k), {})

    with pytest.raises(RunError, match=r"frequency of member 0 reached .* Hz at 2026-01-15T12:.*unstable"):
        steps()


def test_fleet_power_that_is_no_number_is_an_error():
    model, *_ = build(1.0, 3.0, fleet=True)
    model.step(0.0, {"fleet/p": np.zeros((1, 1, 1))})
    with pytest.raises(RunError, match="the frequency of member 0 reached nan Hz"):
        model.step(1.0, {"fleet/p": np.full((1, 1, 1), np.nan)})


def test_cubic_turn():
    assert cubic_turn(0.0, 0.0, -1.0, 1.0, 2.0) == pytest.approx(0.5)  # a parabola
    # (u - 0.25)^2 over a step of 1: slopes -0.5 and 1.5
    assert cubic_turn(0.0625, 0.5625, -0.5, 1.5, 1.0) == pytest.approx(0.25)
    # u^3 - 0.12 u turns at 0.2
    assert cubic_turn(0.0, 0.88, -0.12, 2.88, 1.0) == pytest.approx(0.2)
