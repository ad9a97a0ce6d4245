"""The keys of settings files and their JSON schemas, from the models."""

from functools import cache, partial
from pathlib import Path
from typing import Literal

import jsonschema
import pytest
from pydantic import Field

from evgrid.readers.yaml_files import read_yaml
from evgrid.scenario import Scenario, loading
from evgrid.scenario.aggregators import STRATEGIES
from evgrid.scenario.fields import Duration, ExistingFile, HourOfDay, Settings
from evgrid.scenario.reference import REQUIRED, Key, keys_of, schema_of
from evgrid.studies.reading import FILES, settings_of
from evgrid.studies.study import STUDIES

scenario_schema = cache(partial(schema_of, Scenario))
scenario_checks = cache(lambda: jsonschema.Draft202012Validator(scenario_schema()))
SCENARIOS = Path(__file__).parents[2] / "scenarios"


class Near(Settings):
    """A branch."""

    source: Literal["near"] = "near"
    """The near one."""
    shared: int = 1
    """In both."""
    own_h: HourOfDay = 6.0
    """Hour."""


class Table(Settings):
    """Another branch."""

    file: ExistingFile
    """The table."""
    shared: int = 1
    """In both."""


class Part(Settings):
    """What a part is."""

    kw: float = Field(gt=0, le=5)
    """Power, kW."""


class Whole(Settings):
    """The whole."""

    wait: Duration | None = None
    """Time."""
    choice: Near | Table = Near()
    """One of two."""
    parts: list[Part] = []
    """Some."""
    named: dict[str, Part] = {}
    """By name."""


def test_paths_ranges_and_defaults_of_a_small_model():
    assert list(keys_of(schema_of(Whole))) == [
        Key("wait", "duration", "null", "Time."),
        Key("choice", "mapping", "", "One of two."),
        Key("choice.shared", "whole number", "1", "In both."),
        Key("choice(near).source", "near", '"near"', "The near one."),
        Key("choice(near).own_h", "time of day", "6.0", "Hour."),
        Key("choice(file).file", "path of a file", REQUIRED, "The table."),
        Key("parts", "list of mapping", "", "Some."),
        Key("parts[].kw", "number > 0, ≤ 5", REQUIRED, "Power, kW."),
        Key("named", "mapping of names to mapping", "", "By name."),
        Key("named.NAME.kw", "number > 0, ≤ 5", REQUIRED, "Power, kW."),
    ]


@pytest.mark.parametrize("kind", [*FILES.names(), *STUDIES.names()])
def test_every_key_is_documented_and_listed_once(kind):
    keys = list(keys_of(schema_of(settings_of(kind))))
    assert not [key.path for key in keys if not key.text]
    assert len({key.path for key in keys}) == len(keys)


def test_the_settings_of_every_strategy_are_listed():
    paths = {key.path for key in keys_of(scenario_schema())}
    for name in STRATEGIES.names():
        for setting in STRATEGIES.find(name).Settings.model_fields:
            own, shared = f"aggregators.NAME({name}).{setting}", f"aggregators.NAME.{setting}"
            assert own in paths or shared in paths


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_scenarios_fit_the_schema(path):
    scenario_checks().validate(loading._read(path))


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_shipped_batches_and_studies_fit_a_schema(path):
    content = read_yaml(path)
    kinds = ["batch"] if "base" in content else STUDIES.names()
    fits = [jsonschema.Draft202012Validator(schema_of(settings_of(kind))).is_valid(content) for kind in kinds]
    assert any(fits)


@pytest.mark.parametrize(
    "aggregator",
    [
        {"strategy": "tou", "limit_kw": 5},
        {"strategy": "peak_limit"},
        {"strategy": "none_such"},
        {"group": "feeder"},
    ],
    ids=["setting of another", "required is missing", "unknown", "no strategy"],
)
def test_the_schema_refuses_what_a_strategy_does_not_know(aggregator):
    content = {**loading._read(SCENARIOS / "european_lv_v2g.yaml"), "aggregators": {"main": aggregator}}
    with pytest.raises(jsonschema.ValidationError):
        scenario_checks().validate(content)


def test_the_schema_takes_a_strategy_of_the_users_own():
    content = {
        **loading._read(SCENARIOS / "european_lv_v2g.yaml"),
        "aggregators": {"a": {"strategy": "m:S", "x": 1}},
    }
    scenario_checks().validate(content)


def test_there_is_no_such_file():
    with pytest.raises(ValueError, match=r"must be one of batch, rates, "):
        settings_of("nonsense")
