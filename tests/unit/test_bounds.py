"""What is refused before it can take time, memory or a place that is not its own."""

import json
import os

import pytest

import evgrid
from evgrid.core.netcdf import check_output
from evgrid.errors import ResultError, ScenarioError
from evgrid.readers.yaml_files import MOST_DEPTH, parse_yaml
from evgrid.runs.simulation import build_world
from evgrid.scenario import load_scenario, parse_override, scenario_from
from evgrid.studies.reading import check_study

CONTENT = {
    "name": "small",
    "time": {"start": "2026-01-15T18:00", "duration": "1h", "step": "15min"},
    "feeder": {"network": "european_lv"},
    "fleet": {"count": 3},
}
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)


@pytest.mark.parametrize("text", [BOMB, MERGES])
def test_aliases_count_with_what_they_stand_for(text):
    with pytest.raises(ValueError, match="stands for more than 1000000 values"):
        parse_yaml(text)


def test_yaml_of_common_depth_and_aliases_is_read():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}],
    }  # fmt: skip
    deep = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert str(parse_yaml(deep)) == deep
    for depth in (MOST_DEPTH + 1, 100_000):
        with pytest.raises(ValueError, match="is nested more than 40 deep|is no YAML"):
            parse_yaml("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ensemble.members": 10**9}, r"ensemble.members: the run would take about .* TB of memory"),
        ({"fleet.count": 10**12}, r"the EVs \(ensemble.members, fleet\): the run would take about"),
        ({"fleet.upstream": 10**12}, r"the EVs \(ensemble.members, fleet\): the run would take about"),
        ({"communication.outages_per_day": 1e12}, "communication.outages_per_day: the run would take about"),
        ({"communication.latency": 1e13}, "communication.latency / time.step: the run would take about"),
    ],
)
def test_what_a_run_would_take_of_the_memory_is_said_before(changes, message):
    scenario = scenario_from(CONTENT, changes)
    with pytest.raises(ScenarioError, match=message):
        build_world(scenario)


def test_devices_pipes_and_odd_names_are_reported(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ScenarioError, match="is a pipe or device: must be a file"):
        load_scenario(tmp_path / "pipe.yaml")
    (tmp_path / "s.yaml").write_text("extends: [a]\n")
    with pytest.raises(ScenarioError, match="extends = .*: must be the path of a scenario"):
        load_scenario(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_text('extends: "a\\0b.yaml"\n')
    with pytest.raises(ScenarioError, match="there is no file"):
        load_scenario(tmp_path / "s.yaml")
    with pytest.raises(ScenarioError, match="pipe.yaml is a folder, pipe or device: must be a file"):
        scenario_from({**CONTENT, "fleet": {"sessions": {"file": str(tmp_path / "pipe.yaml")}}})
    with pytest.raises(ScenarioError, match="there is no file .*x…$"):
        scenario_from({**CONTENT, "fleet": {"sessions": {"file": "x" * 20000}}})
    os.mkfifo(tmp_path / "out.nc")
    with pytest.raises(ResultError, match=r"out.nc: it is a pipe or device"):
        check_output(tmp_path / "out.nc")


def test_many_faults_of_one_kind_are_counted():
    with pytest.raises(ScenarioError) as caught:
        scenario_from({**CONTENT, "system": {"events": list(range(500))}})
    assert len(caught.value.faults) == 21
    assert caught.value.faults[-1] == "and 480 more"


def test_an_override_that_is_no_yaml_names_its_key():
    with pytest.raises(ValueError, match="feeder.base_load.time_format = %d.%m: is no YAML.*needs quotes"):
        parse_override("feeder.base_load.time_format=%d.%m")


def test_a_study_is_found_by_what_takes_it(tmp_path):
    scenario = {**CONTENT, "system": {}, "tariff": "pge_ev2a"}
    (tmp_path / "base.yaml").write_text(json.dumps(scenario))
    (tmp_path / "study.yaml").write_text("{name: s, scenario: base.yaml, limit_kw: 50}")
    kinds, runs = check_study(tmp_path / "study.yaml")
    assert kinds == "managed-charging"  # voltage support needs chargers that discharge
    assert len(runs) > 1
    (tmp_path / "study.yaml").write_text("{name: s, scenario: base.yaml, levls: [0, 1]}")
    with pytest.raises(ScenarioError, match="levls: unknown key"):
        check_study(tmp_path / "study.yaml")


def test_the_package_shows_its_names_and_version():
    assert evgrid.__version__
    assert "Any" not in dir(evgrid)
    assert {"run", "open_results", "__version__"} <= set(dir(evgrid))
    result = evgrid.run({**CONTENT, "time": {**CONTENT["time"], "duration": "30min"}})
    assert result.sizes["time"] == 2
