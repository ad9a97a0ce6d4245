"""What one line in the table of its kind makes known: to scenarios, schema, command line and --resume."""

import pytest
from click.testing import CliRunner
from tests.support import toys

import evgrid
from evgrid.cli import main
from evgrid.core.registry import Registry
from evgrid.errors import NetworkError, ScenarioError
from evgrid.runs.batch import Batch, identity, plan
from evgrid.scenario import Scenario, load_scenario
from evgrid.scenario.feeder import NETWORK_FILES
from evgrid.scenario.reference import keys_of, schema_of
from evgrid.scenario.sessions import SESSION_FILES, SOURCES
from evgrid.scenario.tariffs import TARIFF_FORMS
from evgrid.studies.study import STUDIES

SCENARIO = """
name: toy
time: {start: 2026-01-15T18:00, duration: 1h, step: 15min}
feeder: {network: net.toy, phases: 1, base_load: {source: none}}
fleet: {count: 2, sessions: toy, vehicle: {taper_soc: 0.95}}
"""


@pytest.fixture
def lines(monkeypatch):
    """Adds the line of an implementation to the table of its kind."""

    def add(registry: Registry, name: str, implementation: object) -> None:
        monkeypatch.setitem(registry._places, name, f"{toys.__name__}:{implementation.__name__}")
        monkeypatch.setattr(registry, "_found", dict(registry._found))

    return add


@pytest.fixture
def path(lines, tmp_path):
    lines(NETWORK_FILES, ".toy", toys.read_toy_net)
    lines(SOURCES, "toy", toys.ToySource)
    (tmp_path / "net.toy").write_text("0.1")
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return tmp_path / "s.yaml"


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def keys():
    return {key.path for key in keys_of(schema_of(Scenario))}


def test_a_sampled_source(path):
    # after 20 miles of 0.325 kWh, from 18:00 on at 7.4 kW: 6.5 / 0.9 kWh at the meter to the target of 90 %
    result = evgrid.run(path)
    assert result["session_energy_requested_kwh"].values == pytest.approx([6.5 / 0.9, 6.5 / 0.9])
    assert result["fleet_power_kw"].values[0, :3] == pytest.approx([14.8, 14.8, 14.8])
    late = {"fleet.sessions": {"source": "toy", "return_h": 23.0}}
    assert not evgrid.run(load_scenario(path, late))["fleet_power_kw"].any()
    assert identity(load_scenario(path, late)) != identity(load_scenario(path))
    assert "2 sessions of 2 EVs" in call("sessions", path).output
    assert "fleet.sessions(toy).return_h" in keys()
    with pytest.raises(ScenarioError, match=r"fleet.sessions = tyo: must be one of .*toy"):
        load_scenario(path, {"fleet.sessions": "tyo"})


def test_an_importer(path, lines, tmp_path):
    lines(SESSION_FILES, "toy", toys.ToyFile)
    table = tmp_path / "kwh.txt"
    table.write_text("1\n2\n")
    own = {"fleet": {"sessions": {"toy": "kwh.txt"}}}
    (tmp_path / "own.yaml").write_text(
        f"extends: s.yaml\nfleet: {{count: null, sessions: {{toy: {table}}}}}\n"
    )
    assert own["fleet"]["sessions"].keys() <= SESSION_FILES._places.keys()
    result = evgrid.run(tmp_path / "own.yaml")
    assert result["session_energy_requested_kwh"].values == pytest.approx([1.0, 2.0])
    assert "read 2 sessions, kept 2" in call("validate", tmp_path / "own.yaml").output
    assert "fleet.sessions(toy).toy" in keys()
    # a source of before is replaced whole, and --resume sees the content of the file
    before = identity(load_scenario(tmp_path / "own.yaml"))
    table.write_text("1\n3\n")
    assert identity(load_scenario(tmp_path / "own.yaml")) != before
    back = load_scenario(tmp_path / "own.yaml", {"fleet.sessions": {"source": "home"}, "fleet.count": 1})
    assert not hasattr(back.fleet.sessions, "toy")


def test_a_network_format(path, tmp_path):
    batch = Batch.model_validate({"name": "b", "base": path, "list": [{}]})
    (before,) = plan(batch)
    assert "bus" in call("feeder", tmp_path / "net.toy").output
    assert call("validate", path).exit_code == 0
    far = float(evgrid.run(path)["voltage_min_pu"].min())
    (tmp_path / "net.toy").write_text("0.2")  # twice the line, twice the drop, but for its square
    (after,) = plan(batch)
    assert after.id != before.id
    farther = float(evgrid.run(path)["voltage_min_pu"].min())
    assert 1.0 - farther == pytest.approx(2 * (1.0 - far), rel=0.05)
    (tmp_path / "net.toy").write_text("long")
    with pytest.raises(NetworkError, match="must hold a length in km"):
        evgrid.run(path)
    with pytest.raises(NetworkError, match=r"simbench:CODE or a file \(.json, .toy, .xlsx\)"):
        evgrid.run(load_scenario(path, {"feeder.network": "y"}))


def test_a_form_of_tariffs(path, lines, tmp_path):
    lines(TARIFF_FORMS, "flat", toys.ToyTariff)
    (tmp_path / "flat.yaml").write_text("name: f\nflat: 0.3\n")
    one = load_scenario(path, {"tariff": "flat.yaml"})
    other = load_scenario(path, {"tariff": {"name": "f", "flat": 0.2}})
    assert identity(one) != identity(other)
    for scenario, price in ((one, 0.3), (other, 0.2)):
        result = evgrid.run(scenario)
        drawn = result["session_energy_delivered_kwh"].values
        assert result["session_cost"].values == pytest.approx(price * drawn)
        assert drawn.min() > 5
    assert "(flat).flat" in call("scenario", "--of", "tariff").output
    with pytest.raises(
        ScenarioError, match="tariff: give either entsoe or flat or prices or seasons or urdb"
    ):
        load_scenario(path, {"tariff": {"name": "f", "flat": 0.3, "seasons": []}})


def test_a_study(path, lines, tmp_path):
    lines(STUDIES, "toy-study", toys.ToyStudy)
    assert "How many EVs there are." in call("study", "--help").output
    assert "EVs besides." in call("study", "toy-study", "--help").output
    done = call("study", "toy-study", path, "--more", 3, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "number.txt").read_text() == "5"
    (tmp_path / "study.yaml").write_text("name: t\nscenario: s.yaml\nmore: 4\n")
    assert "a toy-study of 1 runs" in call("validate", tmp_path / "study.yaml").output
    assert "more" in call("scenario", "--of", "toy-study").output


def test_an_importer_whose_field_has_another_name_than_its_key(path, lines):
    lines(SESSION_FILES, "other", toys.ToyFile)
    with pytest.raises(TypeError, match=r"ToyFile needs a field 'other', as its key in SESSION_FILES"):
        load_scenario(path, {"fleet.sessions": {"other": "kwh.txt"}, "fleet.count": None})
