"""A strategy's state from run to run: named in the YAML, written only there; what can't be taken up."""

import numpy as np
import pytest

import evgrid
from evgrid.errors import StrategyError
from evgrid.runs.batch import Batch, plan
from evgrid.scenario import load_scenario

SCENARIO = """
name: own
time: {start: 2026-01-15T18:00, duration: 75min, step: 15min}
ensemble: {members: 2, seed: 1}
feeder: {network: cigre_lv, base_load: {source: none}}
fleet: {count: 4, charger: {phases: 3}}
aggregators: {main: {strategy: "trained:Trained"}}
"""
STRATEGY = """
import numpy as np
import evgrid


class Trained(evgrid.Strategy):
    Settings = evgrid.StateSettings
    keeps = {"weights": "run", "waited": "ev"}

    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.weights = np.zeros(2)
        self.waited = np.zeros(len(context.evs))

    def setpoints(self, view):
        self.weights = self.weights + 0.01
        self.waited = self.waited + view.plugged
        return np.clip(self.weights.sum(), 0, 1) * view.p_max
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    (tmp_path / "trained.py").write_text(STRATEGY)
    return tmp_path


def run(folder, **own):
    return evgrid.run(
        load_scenario(folder / "s.yaml", {f"aggregators.main.{key}": value for key, value in own.items()})
    )


def test_a_run_takes_up_where_another_ended(folder):
    before = {path.name for path in folder.iterdir()}
    run(folder)
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before
    run(folder, save_state="learned.npz")
    first = np.load(folder / "learned.npz")
    assert first["weights"] == pytest.approx([0.05, 0.05])
    assert first["waited"].max() == 4  # the first report comes with the second tick
    result = run(folder, state="learned.npz", save_state="learned.npz")
    again = np.load(folder / "learned.npz")
    assert again["weights"] == pytest.approx([0.10, 0.10])
    np.testing.assert_array_equal(again["waited"], 2 * first["waited"])
    assert float(result["fleet_power_kw"].sum()) > float(run(folder)["fleet_power_kw"].sum()) > 0
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]


def test_a_trained_policy_is_named_in_the_scenario(folder):
    """A file with what belongs to no EV and no member is any file of NumPy's."""
    own = STRATEGY.replace(', "waited": "ev"', "")
    (folder / "trained.py").write_text(own)
    np.savez(folder / "policy.npz", weights=[1, 0])
    trained = run(folder, state="policy.npz")
    with evgrid.stepwise(folder / "s.yaml") as full:
        while not full.done:
            full.step(full.view.p_max)
    np.testing.assert_array_equal(trained["fleet_power_kw"], full.result["fleet_power_kw"])


def test_a_run_that_fails_saves_nothing(folder):
    failing = STRATEGY.replace("return np.clip", "assert view.time_s < 1800\n        return np.clip")
    (folder / "trained.py").write_text(failing)
    with pytest.raises(evgrid.EvgridError, match="AssertionError"):
        run(folder, save_state="learned.npz")
    assert not (folder / "learned.npz").exists()


def npz(path, **arrays):
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"waited": np.zeros(8)}, "aggregators.main.state: .*state.npz has no weights, which Trained needs"),
        ({"weights": np.zeros(3)}, r"weights has the shape \(3,\) \(float64\), the strategy's is \(2,\)"),
        (
            {"weights": np.array(["a", "b"])},
            r"weights has the shape \(2,\) \(<U1\), the strategy's is \(2,\)",
        ),
        ({"weights": np.zeros(2), "waited": np.zeros(8)}, "state.npz has no ev_name, which Trained needs"),
        (
            {"weights": np.zeros(2), "waited": np.zeros(1), "ev_name": ["x"], "ev_member": [0]},
            "state.npz is of another scenario: waited has no EV .* of member 0 and 7 more",
        ),
        (
            {"weights": np.zeros(2), "waited": np.zeros(2), "ev_name": ["x"], "ev_member": [0]},
            "state.npz: waited and ev_name, ev_member have different lengths",
        ),
        (None, "state.npz is no file of arrays"),
    ],
)
def test_a_state_of_another_kind(folder, content, message):
    if content is None:
        (folder / "state.npz").write_text("weights: 1")
    else:
        np.savez(folder / "state.npz", **content)
    with pytest.raises(StrategyError, match=message):
        run(folder, state="state.npz")


def test_settings_that_can_not_be(folder):
    for own, message in (
        ({"state": "missing.npz"}, "aggregators.main.state = missing.npz: there is no file"),
        ({"save_state": "no/where.npz"}, "aggregators.main.save_state = no/where.npz: there is no folder"),
        ({"save_state": str(folder)}, "aggregators.main.save_state = .*: .* is a folder"),
    ):
        with pytest.raises(evgrid.ScenarioError, match=message):
            run(folder, **own)
    with pytest.raises(evgrid.ScenarioError, match="aggregators.main.state"):
        load_scenario(folder / "s.yaml", {"aggregators.main": {"strategy": "tou", "state": "state.npz"}})
    with pytest.raises(StrategyError, match="there is no file"):
        strategy(folder).load(folder / "missing.npz")


def strategy(folder):
    with evgrid.stepwise(folder / "s.yaml") as stepped:
        settings = stepped.scenario.aggregators["main"]
        return settings.strategy_class(settings, stepped.context)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: setattr(own, "weights", "many"), "Trained.weights: must be an array of numbers"),
        (
            lambda own: setattr(own, "waited", np.zeros(3)),
            r"waited has the shape \(3,\): must have 8 rows, one",
        ),
        (
            lambda own: setattr(type(own), "keeps", {}),
            "Trained keeps nothing beyond a run: its keeps names no",
        ),
        (lambda own: setattr(type(own), "keeps", {"weights": "car"}), "= 'car': must be run, ev or member"),
        (
            lambda own: setattr(type(own), "keeps", {"member": "run"}),
            "and not be called ev_member, ev_name, me",
        ),
    ],
)
def test_what_can_not_be_saved(folder, change, message):
    own = strategy(folder)
    change(own)
    with pytest.raises(StrategyError, match=message):
        own.save(folder / "state.npz")
    assert not (folder / "state.npz").exists()


def test_a_folder_that_can_not_be_made(folder):
    with pytest.raises(StrategyError, match=r"state.npz can't be written: "):
        strategy(folder).save(folder / "s.yaml" / "state.npz")


def test_runs_of_a_batch_write_no_file_twice(folder):
    batch = Batch.model_validate(
        {
            "name": "two", "base": str(folder / "s.yaml"),
            "grid": {"ensemble.seed": [1, 2]}, "overrides": {"aggregators.main.save_state": "learned.npz"},
        },
        context={"folder": folder},
    )  # fmt: skip
    with pytest.raises(
        evgrid.ScenarioError,
        match=r"save_state = .*learned.npz: several runs of the batch would write it \(of c",
    ):
        plan(batch)
