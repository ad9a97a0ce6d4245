"""The scenario: loading, merging, overriding, and every fault at once with its path."""

import json
import pickle
import warnings
from datetime import datetime

import pytest

import evgrid
from evgrid.errors import ScenarioError
from evgrid.scenario import load_scenario, parse_override, scenario_from
from evgrid.scenario.aggregators import STRATEGIES

MINIMAL = {"name": "t", "time": {"start": "2026-01-15T00:00"}, "feeder": {"network": "european_lv"}}


def test_defaults():
    scenario = scenario_from(MINIMAL)
    assert scenario.members == range(0, 1)
    assert (scenario.feeder_step_s, scenario.record_step_s, scenario.telemetry_s) == (60, 60, 60)
    assert scenario.clock.ticks == 1440
    assert scenario.feeder.base_load.kind == "standard"
    assert scenario.fleet is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86400), ("15min", 900), ("60s", 60), (4, 4), ("0.5h", 1800),
     ("9 S", 9), ("1 H", 3600), ("2T", 120), ("PT1H5S", 3605)]
)  # fmt: skip
def test_durations(text, seconds):
    overrides = {"time.duration": text, "time.step": 1, "communication.telemetry": 60}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas' capital units are deprecated
        assert scenario_from(MINIMAL, overrides).time.duration == seconds


@pytest.mark.parametrize(
    ("speed", "factor"), [("real time", 1.0), (1, 1.0), (0.5, 0.5), (3600, 3600.0), (None, None)]
)
def test_the_pace_of_a_run(speed, factor):
    assert scenario_from(MINIMAL, {"time.speed": speed}).time.speed == factor


@pytest.mark.parametrize("speed", [0, -1, "fast", "60", True, float("nan"), float("inf"), [1]])
def test_what_is_no_pace_is_refused(speed):
    with pytest.raises(ScenarioError, match=r"time\.speed.*: must be (real time, or|a finite number)"):
        scenario_from(MINIMAL, {"time.speed": speed})


@pytest.mark.parametrize(
    ("step", "start"),
    [("60s", "2026-03-04T05:06:00"), ("15min", "2026-03-04T05:00:00"), ("0.5s", "2026-03-04T05:06:07.500000"),
     ("16s", "2026-03-04T05:05:52"), ("2h", "2026-03-04T04:00:00")]
)  # fmt: skip
def test_a_run_that_starts_now_starts_at_a_step_of_the_day(monkeypatch, step, start):
    class Wall(datetime):
        @classmethod
        def now(cls):
            return datetime(2026, 3, 4, 5, 6, 7, 890000)

    monkeypatch.setattr("evgrid.scenario.schema.datetime", Wall)
    given = {"time": {"start": "now", "speed": 1, "step": step}, "communication.telemetry": "2h"}
    scenario = scenario_from(MINIMAL, given)
    assert scenario.time.start.isoformat() == start
    again = scenario_from(json.loads(scenario.model_dump_json(exclude_none=True)))
    assert again.model_dump() == scenario.model_dump()
    assert (scenario.time.starts_now, again.time.starts_now) == (True, False)


def test_a_run_as_fast_as_it_can_does_not_start_now():
    with pytest.raises(ScenarioError, match=r"time\.start = now: goes with time\.speed"):
        scenario_from(MINIMAL, {"time.start": "now"})
    with pytest.raises(ScenarioError, match=r"time\.step = often: must be a duration"):
        scenario_from(MINIMAL, {"time": {"start": "now", "speed": 1, "step": "often"}})


def test_faults_go_from_process_to_process():
    error = pickle.loads(pickle.dumps(ScenarioError(["a: is wrong", "b: too"], "case.yaml")))
    assert (error.faults, error.source) == (["a: is wrong", "b: too"], "case.yaml")
    assert str(error) == "case.yaml: 2 faults\n  a: is wrong\n  b: too"


def test_five_faults_are_all_reported_with_their_path():
    with pytest.raises(ScenarioError) as caught:
        scenario_from(
            MINIMAL,
            {
                "fleet.penetration": 14,
                "time.stp": "5s",
                "ensemble.members": 0,
                "feeder.solver": "opendaz",
                "aggregators.main.strategy": "magic",
            },
        )
    assert caught.value.exit_code == 2
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    for sentence in (
        "fleet.penetration = 14: must be at most 5",
        "time.stp: unknown key; did you mean 'step'?",
        "ensemble.members = 0: must be at least 1",
        "feeder.solver = opendaz: must be 'auto', 'z-bus', 'power-grid-model', 'pandapower' or 'opendss'",
        f"aggregators.main.strategy = magic: must be one of {', '.join(STRATEGIES.names())}, or your own",
    ):
        assert sentence in faults


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"time.start": "noon"}, "time.start = noon: must be a date and time such as"),
        ({"time.start": "05.01.2026"}, "time.start = 05.01.2026: must be a date and time such as"),
        ({"time.start": "1/5/2026 12:00"}, "time.start = 1/5/2026 12:00: must be a date and time such as"),
        ({"time.start": "today"}, "time.start = today: must be a date and time such as"),
        ({"time.start": "nan"}, "time.start = nan: must be a date and time such as"),
        ({"time.start": "9999-12-31T23:00"}, "time.start = 9999-12-31T23:00: must be a date and time"),
        ({"time.start": "2026-01-15T12:00+01"}, "12:00.01: must be local time without a zone"),
        ({"time.start": "2026-01-15T12:00+01:00"}, "must be local time without a zone"),
        ({"time.duration": "soon"}, "time.duration = soon: must be a duration"),
        ({"time.duration": 90}, "time.duration = 90s: must be a multiple of feeder.step = 60s"),
        ({"feeder.step": 90}, "feeder.step = 90s: must be a multiple of time.step = 60s"),
        ({"record.step": 90}, "record.step = 90s: must be a multiple of feeder.step = 60s"),
        ({"communication.telemetry": 90}, "communication.telemetry = 90s: must be a multiple of time.step"),
        ({"aggregators.main.strategy": "uncontrolled"}, "aggregators: there is no fleet to control"),
        ({"fleet.count": 3, "aggregators.main.strategy": "tou"},
         "aggregators.main.strategy = tou: needs a tariff or system.energy_price"),
        ({"fleet.count": 3, "aggregators.main": {"strategy": "peak_limit"}},
         "aggregators.main.limit_kw: is required"),
        ({"fleet.count": 3, "aggregators.main": {"strategy": "uncontrolled", "limit_kw": 3}},
         "aggregators.main.limit_kw: unknown key; allowed are strategy, group"),
        ({"fleet.count": 3, "aggregators.main": {}}, "aggregators.main.strategy: is required"),
        ({"fleet.count": 3, "aggregators": "tou"}, "aggregators = tou: must be a mapping"),
        ({"fleet.charger.power_kw": 7}, "fleet: give either penetration"),
        ({"fleet.count": 3, "fleet.penetration": 0.5}, "fleet: give either penetration"),
        ({"fleet.sessions.file": "none.csv"}, "fleet.sessions.file = none.csv: there is no file"),
        ({"fleet.count": 3, "fleet.charger.functions": {"trips": "II", "nominal_hz": 50}, "system": {}},
         "fleet.charger.functions.nominal_hz = 50: must be system.nominal_hz = 60"),
        ({"feeder.base_load": {"source": "net", "file": __file__}},
         "feeder.base_load: give either source or file"),
        ({"feeder.base_load.power_factor": float("nan")}, "feeder.base_load.power_factor"),
        ({"coupling": "magic"}, "coupling.mode = magic: must be 'lagged' or 'iterated'"),
        ({"coupling": {"tolerance": 1e-8}}, "coupling.tolerance = 1e-08: is for coupling.mode iterated"),
        (
            {"coupling": {"mode": "iterated", "most_iterations": 1}},
            "coupling.most_iterations = 1: must be at least 2",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_one_sentence(overrides, message):
    with pytest.raises(ScenarioError, match=message):
        scenario_from(MINIMAL, overrides)


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_extends_merges_key_by_key_and_a_new_kind_replaces_the_old(tmp_path):
    write(
        tmp_path,
        "base.yaml",
        "name: base\ntime: {start: 2026-01-15T00:00, step: 30s}\nfeeder: {network: european_lv}\n"
        "fleet: {count: 3}\naggregators: {main: {strategy: peak_limit, limit_kw: 50}}\n",
    )
    child = write(
        tmp_path,
        "child.yaml",
        "extends: base.yaml\nname: child\naggregators: {main: {strategy: uncontrolled}}\n",
    )
    scenario = load_scenario(child, {"fleet.count": 4})
    assert scenario.name == "child"
    assert scenario.time.step == 30
    assert scenario.fleet is not None
    assert scenario.fleet.count == 4
    assert scenario.aggregators["main"].strategy == "uncontrolled"
    kept = load_scenario(tmp_path / "base.yaml", {"aggregators.main.limit_kw": 60})
    assert kept.aggregators["main"].limit_kw == 60  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        ("- 1\n", "must hold a mapping"),
        ("name: a\nname: b\n", "is no YAML.*duplicate key"),
        ("extends: self.yaml\n", "extends itself"),
        ("extends: none.yaml\n", "there is no file .*none.yaml"),
    ],
)
def test_unreadable_scenarios(tmp_path, text, message):
    with pytest.raises(ScenarioError, match=message):
        load_scenario(write(tmp_path, "self.yaml", text))


def test_a_missing_scenario_is_named(tmp_path):
    with pytest.raises(ScenarioError, match="there is no file .*nix.yaml"):
        load_scenario(tmp_path / "nix.yaml")


def test_the_resolved_scenario_rebuilds_itself():
    scenario = scenario_from(
        MINIMAL,
        {
            "fleet.penetration": 0.5,
            "aggregators.main": {"strategy": "peak_limit", "limit_kw": 5},
            "tariff": "pge_ev2a",
        },
    )
    assert scenario_from(json.loads(scenario.model_dump_json(exclude_none=True))) == scenario


@pytest.mark.parametrize(
    ("text", "value"), [("a.b=0.8", 0.8), ("a=1e-6", 1e-6), ("a={b: 1}", {"b": 1}), ("a=x=y", "x=y")]
)
def test_overrides_are_read_as_yaml(text, value):
    assert parse_override(text)[1] == value


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1"])
def test_bad_overrides(text):
    with pytest.raises(ValueError, match="must be KEY=VALUE"):
        parse_override(text)


def test_a_users_strategy_is_found_beside_the_scenario(tmp_path):
    write(
        tmp_path,
        "night_owl_settings.py",
        "import evgrid\n"
        "class NightOwlSettings(evgrid.StrategySettings):\n    first_hour: int = 22\n"
        "class NightOwl(evgrid.Strategy):\n    Settings = NightOwlSettings\n"
        "    def setpoints(self, view):\n        return view.p_max\n",
    )
    given = {**MINIMAL, "fleet": {"count": 2}}
    chosen = {"aggregators.main": {"strategy": "night_owl_settings:NightOwl", "first_hour": 23}}
    scenario = scenario_from(given, chosen, folder=tmp_path)
    assert scenario.aggregators["main"].first_hour == 23  # type: ignore[attr-defined]
    with pytest.raises(ScenarioError, match="first_hour = soon: must be a whole number"):
        scenario_from(
            given,
            {"aggregators.main": {"strategy": "night_owl_settings:NightOwl", "first_hour": "soon"}},
            folder=tmp_path,
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_here:X", "no module named no_such_module_here"),
        ("json:X", "module json has no X"),
        ("json:JSONDecoder", "json:JSONDecoder is no subclass of evgrid.Strategy"),
        ("broken_strategy_module:X", "broken_strategy_module can't be imported: ZeroDivisionError"),
    ],
)
def test_bad_strategy_names(tmp_path, name, message):
    write(tmp_path, "broken_strategy_module.py", "1 / 0\n")
    with pytest.raises(ScenarioError, match=message):
        scenario_from(
            {**MINIMAL, "fleet": {"count": 2}}, {"aggregators.main.strategy": name}, folder=tmp_path
        )


@pytest.mark.parametrize("given", [3, None, ["a"]])
def test_what_is_no_scenario_is_refused(given):
    with pytest.raises(ScenarioError, match="must be the path of a file, a mapping, or a Scenario"):
        evgrid.run(given)


@pytest.mark.parametrize(
    ("households", "message"),
    [
        ({"by_load": {"A": -1}}, "feeder.households.by_load.A = -1: must be at least 0"),
        ({"by_load": {"A": 1.5}}, "feeder.households.by_load.A = 1.5: must be a whole number"),
        ({"by_load": 3}, "feeder.households.by_load = 3: must be a mapping"),
        ({"by_loads": {}}, "feeder.households.by_loads: unknown key; did you mean 'by_load'?"),
        (-3, "feeder.households = -3: must be at least 0"),
        ("many", "feeder.households = many: must be a whole number"),
    ],
)
def test_households_at_fault_are_one_sentence(households, message):
    time = {"start": "2026-01-15T12:00", "duration": "1h", "step": "5min"}
    content = {"name": "x", "time": time, "feeder": {"network": "case33bw", "households": households}}
    with pytest.raises(ScenarioError) as caught:
        scenario_from(content)
    assert list(caught.value.faults) == [message]


def test_an_anchor_that_is_used_again_stands_for_the_last(tmp_path, recwarn):
    path = tmp_path / "case.yaml"
    path.write_text(
        "name: &a case\ntime: {start: 2026-01-15T12:00, duration: &a 2h, step: 5min}\n"
        "feeder: {network: case33bw, step: *a}\n"
    )
    assert load_scenario(path).feeder.step == 7200.0
    assert not recwarn.list
