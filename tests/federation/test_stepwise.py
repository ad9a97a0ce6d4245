"""Runs of which the caller gives the set-points: the same as a strategy's, and they end cleanly."""

import gc
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

import evgrid
from evgrid.aggregator.strategy import Strategy
from evgrid.errors import RunError, StrategyError
from evgrid.scenario import scenario_from
from evgrid.scenario.aggregators import STRATEGIES

LIMIT = {"strategy": "peak_limit", "limit_kw": 100, "limit_over": "15min"}
BASE = {
    "name": "street",
    "time": {"start": "2026-01-15T23:00", "duration": "2h", "step": "5min"},
    "ensemble": {"members": 2, "seed": 3},
    "feeder": {"network": "cigre_lv", "base_load": {"source": "standard"}, "households": {"kw_each": 5}},
    "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 0.5}},
    "tariff": "pge_ev2a",
    "aggregators": {"main": LIMIT},
    "communication": {"telemetry": "5min"},
    "record": {"ev": True},
}
HOMES = {
    "connections": {"share": 0.5}, "critical": {"share": 0.4}, "backup": "critical",
    "battery": {"capacity_kwh": 5, "charge_kw": 2}, "control": "self_consumption",
}  # fmt: skip
VOLT_VAR = {"volt_var": {"points": [[0.95, 44], [0.99, 0], [1.01, 0], [1.05, -44]]}, "nominal_hz": 50}
TOU = {"strategy": "tou"}
REGULATION = {"strategy": "regulation", "group": "feeder"}
SIGNAL = {"regulation": {"source": "synthetic", "step": 4}}
CASES = {
    "tou": {"aggregators": {"main": TOU}},
    "limit": {},
    "one member": {"ensemble": {"members": 1}},
    "V2G": {"aggregators": {"main": {**LIMIT, "strategy": "v2g_peak_shaving", "limit_kw": 60}}},
    "voltages": {"aggregators": {"main": {"strategy": "voltage_support"}}},
    "voltages of two": {
        "aggregators": {
            "main": {**TOU, "evs": {"share": 0.5}},
            "other": {"strategy": "voltage_support"},
        }
    },
    "plan": {"aggregators": {"main": {"strategy": "arbitrage"}}},
    "envelope": {
        "aggregators": {"main": {"strategy": "scheduled", "envelope": True}},
        "fleet": {**BASE["fleet"], "envelope": {"every": "15min", "horizon": "12h", "slot": "15min"}},
    },
    "several": {
        "aggregators": {"main": {**TOU, "evs": {"share": 0.3}}, "other": LIMIT},
    },
    "sites": {"sites": {"homes": HOMES}, "outages": [{"start": "1h", "duration": "30min", "out": "feeder"}]},
    "iterated": {
        "coupling": "iterated",
        "fleet": {"count": 30, "charger": {"phases": 3, "functions": VOLT_VAR}},
    },
    "delays": {"communication": {"telemetry": "10min", "delay": "5min", "loss": 0.2}},
    "regulation": {
        "aggregators": {"main": REGULATION},
        "system": SIGNAL,
        "time": {"start": "2026-01-15T23:57", "duration": "6min", "step": "4s"},
        "communication": {"telemetry": "60s"},
        "feeder": {**BASE["feeder"], "step": "60s"},
    },
    "upstream": {"fleet": {**BASE["fleet"], "upstream": 20}, "aggregators": {"main": TOU}},
}


def scenario(**changes):
    return scenario_from(BASE | changes)


def strategy_of(run):
    """The strategy of the scenario in whose place the loop is."""
    settings = run.scenario.aggregators[run.aggregator]
    return settings.strategy_class(settings, run.context)


def played(given, name=None, **more):
    with evgrid.stepwise(given, name, **more) as run:
        strategy = strategy_of(run)
        while not run.done:
            run.step(strategy.setpoints(run.view))
    return run.result


def assert_same(result, of_strategy, cls, name="main"):
    """The same variables, but those that the strategy itself records."""
    own = {variable.name for variable in cls.variables}
    own |= {f"{variable}_{name}" for variable in own}
    assert own >= set(of_strategy) - set(result)
    assert not set(result) - set(of_strategy)
    for variable in result:
        np.testing.assert_array_equal(result[variable], of_strategy[variable], variable)


@pytest.mark.parametrize("case", CASES)
def test_a_loop_that_does_what_a_strategy_does_is_its_run(case):
    given = scenario(**CASES[case])
    result = played(given, "main")
    assert_same(result, evgrid.run(given), given.aggregators["main"].strategy_class)
    assert result.attrs["stepped"] == '["main"]'
    assert float(abs(result["fleet_power_kw"]).max()) > 0


def test_an_audited_result_is_streamed_into_a_file(tmp_path):
    result = played(scenario(), output=tmp_path / "run.nc")
    assert "conversion_relative" in result.attrs["audit"]
    result.close()
    stored = evgrid.open_results(tmp_path / "run.nc")
    assert_same(stored, evgrid.run(scenario()), STRATEGIES.find("peak_limit"))
    stored.close()


def test_a_power_is_split_as_a_limit_splits_it():
    given = scenario(aggregators={"main": {"strategy": "peak_limit", "limit_kw": 100, "smoothing": "1h"}})
    with evgrid.stepwise(given) as run:
        while not run.done:
            run.step(run.dispatch(100 - run.view.base_load, discharge=False))
    assert_same(run.result, evgrid.run(given), STRATEGIES.find("peak_limit"))


def test_a_power_is_split_by_group_or_by_member():
    given = scenario(aggregators={"main": {"strategy": "peak_limit", "limit_kw": 100}})
    with evgrid.stepwise(given) as run:
        while run.view.time_s < 3600:
            run.step(np.full(len(run.context.evs), 1.0))
        context, view = run.context, run.view
        assert context.groups > 1
        of_member = run.dispatch(np.array([20.0, 10.0]))
        sums = np.bincount(context.evs.member, np.minimum(of_member, view.p_max))
        least = np.bincount(context.evs.member, run.dispatch(np.array([0.0, 0.0]), discharge=False))
        assert np.all(sums >= [20 - 1e-6, 10 - 1e-6])  # the power of a last tick before full may be above
        assert np.all(least < [20, 10])
        of_group = run.dispatch(np.zeros(2 * context.groups))
        assert not np.array_equal(of_group, of_member)
        with pytest.raises(
            StrategyError, match=r"power_kw has the shape \(3,\): must be \(\d+,\), one a group"
        ):
            run.dispatch([1, 2, 3])
        with pytest.raises(StrategyError, match="power_kw has 1 NaN: must be powers in kW"):
            run.dispatch([1, np.nan])


def test_views_keep_their_values():
    with evgrid.stepwise(scenario()) as run:
        views, copies = [], []
        while not run.done:
            view = run.view
            assert run.view is view
            views.append(view)
            copies.append({name: np.copy(getattr(view, name)) for name in ("soc", "p_max", "time_left")})
            run.step(view.p_max)
    assert any(not np.array_equal(a.soc, b.soc) for a, b in pairwise(views))
    for view, copy in zip(views, copies, strict=True):
        for name, values in copy.items():
            np.testing.assert_array_equal(getattr(view, name), values)


def test_a_scenario_without_aggregators_gets_one():
    with evgrid.stepwise(scenario(aggregators={})) as run:
        assert run.aggregator == "main"
        while not run.done:
            run.step(np.zeros(len(run.context.evs)))
    held = evgrid.run(scenario(aggregators={"main": {"strategy": "peak_limit", "limit_kw": 1e-9}}))
    np.testing.assert_array_equal(run.result["fleet_power_kw"], held["fleet_power_kw"])


def test_the_last_values_of_the_ports():
    with evgrid.stepwise(scenario(ensemble={"members": 1})) as run:
        powers = []
        while not run.done:
            run.step(run.view.p_max)
            powers.append(run.values["fleet/p"].sum())
    np.testing.assert_allclose(run.result["fleet_power_kw"].values[0], powers, rtol=1e-12)


def runs_in_threads():
    return [thread.name for thread in threading.enumerate() if thread.name == "evgrid-street"]


def test_leaving_early_leaves_nothing(tmp_path):
    with evgrid.stepwise(scenario(), output=tmp_path / "run.nc") as run:
        run.step(run.view.p_max)
        assert runs_in_threads()
    assert not runs_in_threads()
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        StrategyError, match="aggregators.main: there is no result: the run has not been stepped to"
    ):
        run.result  # noqa: B018


def test_an_exception_of_the_loop_is_the_cause(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        evgrid.stepwise(scenario(), output=tmp_path / "run.nc") as run,
    ):
        run.step(run.view.p_max / (1 // 0))
    assert not runs_in_threads()
    assert not list(tmp_path.iterdir())


def test_a_forgotten_run_is_ended():
    run = evgrid.stepwise(scenario())
    run.step(run.view.p_max)
    del run
    gc.collect()
    assert not runs_in_threads()


@pytest.mark.parametrize("end", ["", "raise ValueError('of the script')"])
def test_a_script_that_ends_without_closing_exits(end):
    code = f"""
import evgrid
given = {{"name": "street", "time": {{"start": "2026-01-15T23:00", "duration": "1h", "step": "15min"}},
          "feeder": {{"network": "cigre_lv"}}, "fleet": {{"count": 3, "charger": {{"phases": 3}}}}}}
run, other = evgrid.stepwise(given), evgrid.stepwise(given)
run.step(run.view.p_max)
{end}
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == (1 if end else 0), ended.stderr
    assert ended.stderr.strip().endswith("of the script" if end else "")


def test_a_run_that_was_left_early_can_not_be_stepped():
    with evgrid.stepwise(scenario()) as run:
        run.step(run.view.p_max)
    with pytest.raises(
        StrategyError, match="aggregators.main: the run was closed at 2026-.*, before its end"
    ):
        run.step(np.zeros(60))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "many",
            r"aggregators.main at 2026-01-15T23:10:00: setpoints is str: must be an array of powers in kW",
        ),
        (np.full(60, 1.0 + 2.0j), "setpoints is ndarray: must be an array of powers in kW"),
        ([1.0, 2.0], r"setpoints has the shape \(2,\): must be \(60,\), one an EV"),
        (None, r"setpoints has the shape \(\): must be"),
        (
            np.full(60, np.nan),
            r"setpoints has NaN for \d+ of 60 EVs, first for \S+ of member 0: must be a power",
        ),
        (
            np.full(60, -np.inf),
            r"setpoints has -inf for \d+ of 60 EVs, first for \S+ of member 0: must be a power",
        ),
    ],
)
def test_wrong_setpoints_are_refused_and_the_run_goes_on(wrong, message):
    given = scenario(time={**BASE["time"], "duration": "20min"})
    with evgrid.stepwise(given) as run:
        run.step(run.view.p_max)
        run.step(run.view.p_max)
        with pytest.raises(StrategyError, match=message):
            run.step(wrong)
        away = np.where(run.view.plugged, run.view.p_max, np.nan)
        run.step(away)  # those of EVs that are away are ignored
        run.step(run.view.p_max)
        with pytest.raises(
            StrategyError, match=r"aggregators\.main: the run has ended, and there is no view"
        ):
            run.step(away)
    assert run.done


class Faulty(Strategy):
    def setpoints(self, view):
        if view.time_s >= 600:
            raise ValueError("out of order")
        return view.p_max


def test_a_failure_of_a_federate_surfaces_in_the_step(monkeypatch):
    monkeypatch.setitem(STRATEGIES._found, "faulty", Faulty)
    both = {"main": {**TOU, "evs": {"share": 0.5}}, "other": {"strategy": "faulty"}}
    with evgrid.stepwise(scenario(aggregators=both), "main") as run:
        run.step(run.view.p_max)
        run.step(run.view.p_max)
        with pytest.raises(RunError, match="aggregators.other: the strategy raised ValueError: out of order"):
            run.step(run.view.p_max)
    assert run.context.clock.step_s == 300
    assert not runs_in_threads()
    with pytest.raises(StrategyError, match="the run has ended"):
        run.view  # noqa: B018


class Interrupting(Strategy):
    def setpoints(self, view):
        if view.time_s >= 600:
            signal.raise_signal(signal.SIGINT)
        return view.p_max


def test_an_interrupt_ends_the_run(monkeypatch, tmp_path):
    monkeypatch.setitem(STRATEGIES._found, "interrupting", Interrupting)
    both = {"main": {**TOU, "evs": {"share": 0.5}}, "other": {"strategy": "interrupting"}}
    run = evgrid.stepwise(scenario(aggregators=both), "main", output=tmp_path / "run.nc")
    with pytest.raises(KeyboardInterrupt), run:  # noqa: PT012
        while not run.done:
            run.step(run.view.p_max)
    assert not runs_in_threads()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({}, "side", "aggregator = side: must be one of main"),
        (CASES["several"], None, "aggregator is not given: must be one of main, other"),
        ({"aggregators": {}}, "side", "aggregator = side: must be one of main, as the scenario has none"),
        (
            {"aggregators": {"main": {**TOU, "evs": {"connections": ["R1"], "share": 1e-9}}, "rest": TOU}},
            "main",
            "aggregators.main",
        ),
    ],
)
def test_an_aggregator_that_can_not_be_stepped(changes, name, message):
    with pytest.raises(evgrid.ScenarioError, match=message):
        evgrid.stepwise(scenario(**changes), name)
    assert not runs_in_threads()


def test_a_slow_loop_is_not_a_stalled_federate(monkeypatch):
    monkeypatch.setenv("EVGRID_STARTUP_LIMIT_S", "0.2")
    monkeypatch.setenv("EVGRID_STEP_LIMIT_S", "0.2")
    given = scenario(time={**BASE["time"], "duration": "15min"})
    evgrid.run(scenario(time={**BASE["time"], "duration": "5min"}), None)
    with evgrid.stepwise(given) as run:
        while not run.done:
            time.sleep(0.35)  # the watchdog looks every 0.1 s
            run.step(run.view.p_max)


def test_runs_beside_each_other():
    runs = [evgrid.stepwise(scenario(ensemble={"members": 2, "seed": seed})) for seed in (1, 2)]
    while not runs[0].done:
        for run in runs:
            run.step(run.view.p_max)
    for seed, run in zip((1, 2), runs, strict=True):
        with evgrid.stepwise(scenario(ensemble={"members": 2, "seed": seed})) as again:
            while not again.done:
                again.step(again.view.p_max)
        np.testing.assert_array_equal(run.result["fleet_power_kw"], again.result["fleet_power_kw"])
