"""A reinforcement whose numbers are worked out by hand."""

from pathlib import Path

import pandapower as pp
import pytest
import yaml
from tests.support.nets import two_houses

from evgrid.scenario.fields import read_yaml
from evgrid.studies.reading import load_study
from evgrid.studies.reinforcement import Reinforcement, run_study
from evgrid.studies.reinforcement_output import save_study, summary

CASE = read_yaml(Path(__file__).parent / "reinforcement_one_cable" / "case.yaml")


def test_one_cable_by_hand(tmp_path, scheduler):
    pp.to_json(two_houses(0.0), str(tmp_path / "street.json"))
    (tmp_path / "street.yaml").write_text(yaml.safe_dump(CASE["scenario"]))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**CASE["study"], "scenario": "street.yaml"}))
    study = load_study(tmp_path / "study.yaml", Reinforcement, "reinforcement")
    result = run_study(study, tmp_path / "out", scheduler=scheduler)
    for control, expected in CASE["expected"].items():
        at = result.sel(control=control)
        assert float(at["control_cost"]) == pytest.approx(expected["control"], rel=CASE["tolerance"])
        assert float(at["set_cost"]) == pytest.approx(expected["set"], rel=CASE["tolerance"])
        assert at["violated_after"].sum() == 0
    assert result["measures"].values.tolist() == ["thin beside for LA", ""]
    assert result["violated_before"].values.tolist() == [[True, True], [False, False]]
    # the deployments are alike: each on its own costs as much
    assert (result["member_cost"] == result["total_cost"]).all()
    rows = dict(summary(result))
    assert rows["uncontrolled"].startswith("3,445 EUR")
    assert rows["least cost"] == "uncontrolled, 3,445 EUR"
    assert rows["prices"] == "by hand: made for this case"
    assert rows["limit line_rating"].startswith("line_loading at most 1, recorded values")
    names = {path.name for path in save_study(result, tmp_path / "out")}
    assert names == {"study.nc", "costs.csv", "candidates.csv", "sets.csv", "limits.csv", "study.png"}
