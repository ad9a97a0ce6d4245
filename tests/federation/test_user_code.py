"""Strategies and scorers of the user's own: each scenario has the ones that lie beside it."""

import sys

import pytest

import evgrid
from evgrid.core.user_code import user_class
from evgrid.runs.batch import identity
from evgrid.scenario import load_scenario

SCENARIO = """
name: own
time: {start: 2026-01-15T18:00, duration: 75min, step: 15min}
feeder: {network: european_lv, base_load: {source: none}}
fleet: {sessions: {file: sessions.csv}}
aggregators: {main: {strategy: "my_module:MyStrategy"}}
"""
SESSIONS = "ev,connection,arrival,departure,soc_arrival\n" + "".join(
    f"e{k},LOAD{k},2026-01-15T17:00,2026-01-16T07:00,0.3\n" for k in (1, 2, 3)
)
STRATEGY = """
import evgrid
{imports}

class MyStrategy(evgrid.Strategy):
    def setpoints(self, view):
        return {share} * view.p_max
"""


def scenario_in(folder, share, imports="", **files):
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(SCENARIO)
    (folder / "sessions.csv").write_text(SESSIONS)
    (folder / "my_module.py").write_text(STRATEGY.format(share=share, imports=imports))
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    return folder / "s.yaml"


def energy(path):
    return float(evgrid.run(path)["fleet_power_kw"].sum()) * 0.25


def test_two_modules_of_one_name(tmp_path):
    path = list(sys.path)
    first, second = scenario_in(tmp_path / "a", 0.0), scenario_in(tmp_path / "b", 0.5)
    assert energy(first) == 0.0
    assert energy(second) == pytest.approx(
        3 * 7.4 * 0.5
    )  # 3 chargers of 7.4 kW, at half for an hour after the first report
    assert energy(first) == 0.0
    assert sys.path == path


def test_an_edited_module_is_read_again_and_makes_another_run(tmp_path):
    path = scenario_in(tmp_path / "a", 0.5)
    before = load_scenario(path)
    known = identity(before)
    assert energy(path) == pytest.approx(11.1)
    (tmp_path / "a" / "my_module.py").write_text(STRATEGY.format(share=0.25, imports=""))
    assert energy(path) == pytest.approx(5.55)
    assert identity(load_scenario(path)) != known


def test_what_a_module_imports_from_its_folder_is_its_own(tmp_path):
    imports = "from shared_part import SHARE"
    for name, share in (("a", 0.1), ("b", 0.2)):
        scenario_in(tmp_path / name, "SHARE", imports, shared_part=f"SHARE = {share}\n")
    paths = [tmp_path / name / "s.yaml" for name in "ab"]
    assert [energy(path) for path in paths] == pytest.approx([2.22, 4.44])
    known = identity(load_scenario(paths[0]))
    (tmp_path / "a" / "shared_part.py").write_text("SHARE = 0.3\n")
    assert energy(paths[0]) == pytest.approx(6.66)
    assert identity(load_scenario(paths[0])) != known
    assert "shared_part" not in sys.modules


def test_nothing_beside_a_scenario_stands_in_for_a_package(tmp_path):
    trap = "raise RuntimeError('not the package')\n"
    path = scenario_in(
        tmp_path / "a", 0.5, "import helics, json, colorsys", helics=trap, colorsys=trap, netCDF4=trap
    )
    assert energy(path) == pytest.approx(11.1)


def test_scorers_of_one_name(tmp_path):
    scorer = "class Mine:\n    period_s = {period}\n    def score(self, signal, response, step_s): ...\n"
    for name, period in (("a", 900.0), ("b", 1800.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "marks.py").write_text(scorer.format(period=period))
    periods = [user_class("marks:Mine", tmp_path / name)().period_s for name in "aba"]
    assert periods == [900.0, 1800.0, 900.0]


def test_code_can_be_refused(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    path = scenario_in(
        tmp_path / "a", 0.5, "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()"
    )
    monkeypatch.setenv("EVGRID_NO_CODE", "1")
    with pytest.raises(
        evgrid.ScenarioError,
        match=r"aggregators.main.strategy = my_module:MyStrategy: is code of your own, which --no-code",
    ):
        load_scenario(path)
    assert not (tmp_path / "a" / "my_module.ran").exists()
    with pytest.raises(
        evgrid.ScenarioError,
        match=r"aggregators.main.scorer = marks:Mine: is code of your own, which --no-code",
    ):
        load_scenario(path, {"aggregators.main": {"strategy": "regulation", "scorer": "marks:Mine"}})


CONTROL = """
import numpy as np
import evgrid
from evgrid.sites.planning import Plans


class Trickle(evgrid.PlanningControl):
    charge_kw: float = 0.5

    def solve(self, ahead, stores):
        power = np.where(stores.here > 0, self.charge_kw, 0.0)
        return Plans(power{cut}, np.full(ahead.pv_kw.shape, np.inf), np.zeros((len(ahead.load_kw), 0)), None)
"""
HOME = {
    "connections": ["LOAD1"], "load": {"kw": 1}, "battery": {"capacity_kwh": 10, "charge_kw": 0.7},
    "control": {"strategy": "controls:Trickle", "horizon": "3h", "charge_kw": 0.6},
}  # fmt: skip


def test_a_control_of_ones_own_plans_for_a_site(tmp_path):
    path = scenario_in(tmp_path, 0.5)
    (tmp_path / "controls.py").write_text(CONTROL.replace("{cut}", ""))
    overrides = {"aggregators.main": None, "sites": {"home": HOME}, "time.duration": "1h"}
    result = evgrid.run(load_scenario(path, overrides))
    assert result["site_battery_power_kw"].values == pytest.approx(0.6)
    assert result["site_ev_power_kw"].values == pytest.approx(0.6)
    assert result["site_power_kw"].values == pytest.approx(1 + 0.6 + 0.6)
    over = evgrid.run(load_scenario(path, {**overrides, "sites.home.control.charge_kw": 5.0}))
    assert over["site_battery_power_kw"].values == pytest.approx(0.7)  # its limits hold all the same
    before = identity(load_scenario(path, overrides))
    (tmp_path / "controls.py").write_text(CONTROL.replace("{cut}", "[:, :-1]"))
    assert identity(load_scenario(path, overrides)) != before
    with pytest.raises(
        evgrid.EvgridError, match=r"controls:Trickle: store_kw of its plans has a shape of \(2, 11\)"
    ):
        evgrid.run(load_scenario(path, overrides))


def test_what_is_no_control_is_refused(tmp_path):
    path = scenario_in(tmp_path, 0.5)
    wrong = {**HOME, "control": "my_module:MyStrategy"}
    with pytest.raises(evgrid.ScenarioError, match="MyStrategy is no subclass of evgrid.PlanningControl"):
        load_scenario(path, {"sites": {"home": wrong}})
    with pytest.raises(
        evgrid.ScenarioError, match="must be one of cost, .*, or your own as my_module:MyClass"
    ):
        load_scenario(path, {"sites": {"home": {**HOME, "control": "own"}}})


@pytest.mark.parametrize("name", ["../evil:X", "a.b.:X", "my_module:X.y", "my module:X", ":X", "os:"])
def test_a_name_is_a_module_and_a_class(tmp_path, name):
    with pytest.raises(
        ValueError, match="must be my_module:MyClass, the name of a module and of a class in it"
    ):
        user_class(name, tmp_path)
