"""Growth: curves and first years by hand, nested additions, and a study from end to end."""

import json
import math
from pathlib import Path

import numpy as np
import pandapower as pp
import pandas as pd
import pytest
import xarray as xr
import yaml
from tests.support.nets import two_houses

import evgrid
from evgrid.feeder.base_load import base_load
from evgrid.feeder.networks import load_network
from evgrid.scenario import scenario_from
from evgrid.studies.growth import Growth, SCurve, first_years, run_study, value_of
from evgrid.studies.growth_output import earliest, save_study, summary, years_table
from evgrid.studies.reading import load_study

STUDIES = Path(__file__).parents[2] / "scenarios" / "studies"
BERLIN = {"latitude": 52.5, "longitude": 13.4, "timezone": "Europe/Berlin"}

STREET = {
    "name": "street",
    "time": {"start": "2026-01-15T12:00", "duration": "1h", "step": "30min"},
    "ensemble": {"seed": 1},
    "feeder": {"network": "street.json", "base_load": {"source": "net"}},
    "communication": {"telemetry": "30min"},
}


def test_curves_by_hand():
    curve = SCurve(saturation=1.2, midpoint=2034, rate=0.4)
    assert curve.at(2034) == pytest.approx(0.6)
    assert curve.at(2044) == pytest.approx(1.2 / (1 + math.exp(-4)))  # 1.1784
    assert value_of({2026: 0.1, 2030: 0.5}, 2029) == pytest.approx(0.4)
    assert [value_of({2026: 0.1, 2030: 0.5}, year) for year in (2020, 2040)] == [0.1, 0.5]


def test_first_years_by_hand():
    #              member: 0  1  2  3, element T; element L is over in one member in 2030 only
    trafo = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]], bool)
    line = np.zeros((4, 4), bool)
    line[2, 3] = True
    over = xr.DataArray(
        np.stack([trafo, line], axis=2), dims=("year", "member", "place"),
        coords={"year": [2026, 2028, 2030, 2032], "place": ["T", "L"]},
    )  # fmt: skip
    found = first_years(over, risk=0.3)
    np.testing.assert_array_equal(found["member_year"].sel(place="T"), [2028, 2030, 2032, np.nan])
    assert found["share"].sel(place="T").values.tolist() == [0, 0.25, 0.5, 0.75]
    np.testing.assert_array_equal(found["first_year"], [2030, np.nan])
    # upper bound of 0 of 4: 49 %, above the risk at once; lower of 2 of 4: 15 %, of 3 of 4: 30.06 %
    assert found["first_year_low"].values.tolist() == [2026, 2026]
    np.testing.assert_array_equal(found["first_year_high"], [2032, np.nan])
    assert found["any_share"].values.tolist() == [0, 0.25, 0.75, 1.0]
    assert float(found["any_first_year"]) == 2030
    narrow = first_years(over, risk=0.3, confidence=0.1)  # ± 0.126 sigma: 0 of 4 is at most 0.4 %
    assert narrow["first_year_low"].values[0] == 2030


def added(additions, members=6, households=4, net=None, tmp=None):
    """Mean power of a winter day and its noon, (member, connection) kW, above a base load of 0."""
    pp.to_json(net or two_houses(1.0), str(tmp / "street.json"))
    content = {
        **STREET, "ensemble": {"seed": 3, "members": members},
        "time": {"start": "2026-01-15T00:00", "duration": "24h", "step": "1h"},
        "feeder": {"network": "street.json", "households": households, "additions": additions,
                   "base_load": {"source": "none"}},
        "communication": {"telemetry": "1h"},
    }  # fmt: skip
    scenario = scenario_from(content, folder=tmp)
    p, q = base_load(scenario, load_network(scenario.feeder)).at(np.arange(24) * 3600.0)
    return p.sum(axis=3), q.sum(axis=3)


def test_additions_of_a_lower_penetration_are_among_those_of_a_higher_one(tmp_path):
    """Eight households at two connection points: counts rise with the penetration, at none they fall."""
    pump = {"heat_pump": {"annual_kwh": 5000}}
    whole = added({"a": {**pump, "penetration": 1.0}}, tmp=tmp_path)[0]
    one = whole / 4  # of one pump: four at each connection point
    before = np.zeros((6, 2))
    for share in (0.125, 0.25, 0.5, 0.75, 1.0):
        p, q = added({"a": {**pump, "penetration": share}}, tmp=tmp_path)
        counts = np.round(p[8] / one[8]).astype(int)
        np.testing.assert_allclose(p, counts * one, rtol=1e-12)
        np.testing.assert_allclose(q, p * math.tan(math.acos(0.95)), rtol=1e-12)
        assert (counts.sum(axis=1) == round(8 * share)).all()
        assert (counts >= before).all()
        before = counts
    in_areas = added(
        {"a": {**pump, "penetration": 1.0, "at": "A"}, "b": {**pump, "penetration": 1.0, "at": ["B*"]}},
        tmp=tmp_path,
    )[0]
    np.testing.assert_allclose(in_areas, whole, rtol=1e-12)
    half = added({"a": {"heat_pump": {"annual_kwh": 2500}, "penetration": 1.0}}, tmp=tmp_path)[0]
    np.testing.assert_allclose(half, whole / 2, rtol=1e-12)
    p, q = added({"a": {**pump, "penetration": 1.0, "power_factor": 0.8}}, tmp=tmp_path)
    np.testing.assert_allclose(p, whole, rtol=1e-12)
    np.testing.assert_allclose(q, 0.75 * p, rtol=1e-12)


def test_nothing_is_shown_where_nothing_is_over_a_limit():
    assert earliest(pd.DataFrame({"place": pd.Series([], dtype=str)})).empty


def test_evs_grow_by_area(tmp_path):
    (tmp_path / "street.yaml").write_text("name: street\n")

    def growth_of(**settings):
        return Growth.model_validate({"name": "g", "scenario": tmp_path / "street.yaml", **settings})

    areas = {"north": {"at": ["A*", "C"], "evs": {2026: 0.1, 2030: 0.5}},
             "south": {"at": ["B"], "evs": {"saturation": 2, "midpoint": 2030, "rate": 0.3}}}  # fmt: skip
    assert growth_of(years=[2028, 2030], areas=areas).overrides_of(2030) == {
        "fleet.penetration": None,
        "fleet.count": None,
        "fleet.areas": {
            "north": {"at": ["A*", "C"], "penetration": 0.5},
            "south": {"at": ["B"], "penetration": 1.0},
        },
    }
    with pytest.raises(ValueError, match="evs: give those of the whole feeder, or of areas"):
        growth_of(evs={2026: 0.1}, areas=areas)


def test_pv_is_negative_load_by_day_and_load_is_scaled(tmp_path):
    p, q = added({"roofs": {"pv": BERLIN, "kw": 5, "penetration": 1.0}}, members=1, tmp=tmp_path)
    assert (p <= 0).all() and (p[[0, 23]] == 0).all() and p[12].min() < -1  # noqa: PT018
    assert not q.any()
    twice = added({"roofs": {"pv": BERLIN, "kw": 10, "penetration": 1.0}}, members=1, tmp=tmp_path)[0]
    np.testing.assert_allclose(twice, 2 * p, rtol=1e-12)
    content = {**STREET, "feeder": {**STREET["feeder"], "additions": {"a": {"load": 1.5, "at": "A"}}}}
    scenario = scenario_from(content, folder=tmp_path)
    own, _ = base_load(scenario, load_network(scenario.feeder)).at(np.zeros(1))
    assert own[0, 0].sum(axis=1).tolist() == pytest.approx([1.5, 1.0])


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ({"penetration": 0.5}, "give one of heat_pump, pv, load, not none"),
        ({"load": 1.1, "penetration": 0.5}, "penetration: is required for heat_pump and pv"),
        ({"heat_pump": {}, "penetration": 1}, "heat_pump.annual_kwh: is required"),
        ({"load": 1.1, "kw": 5}, "kw = 5: is for pv"),
        ({"load": 1.1, "at": "C"}, "at = C: the network has no such connection point"),
    ],
)
def test_what_is_wrong_with_an_addition_is_said(tmp_path, addition, message):
    pp.to_json(two_houses(1.0), str(tmp_path / "street.json"))
    content = {**STREET, "feeder": {**STREET["feeder"], "additions": {"x": addition}}}
    with pytest.raises(evgrid.ScenarioError, match=message):
        evgrid.run(scenario_from(content, folder=tmp_path))


def test_a_transformer_is_over_its_rating_in_the_year_worked_out_by_hand(tmp_path, scheduler):
    """Two houses of 60 kW on cables of 142 A and 250 kVA grow by 20 % of 2026 a year. A cable passes 142 A
    between 2028 (84 kW, 124 A at 0.98 pu) and 2029 (96 kW, 142 A at 0.975 pu); the transformer is over
    between 2030 (216 kW and 8 kW of losses) and 2032 (264 kW).
    """
    pp.to_json(two_houses(60.0), str(tmp_path / "street.json"))
    (tmp_path / "street.yaml").write_text(yaml.safe_dump(STREET))
    study = load_study(
        tmp_path / "street.yaml", Growth, "growth", years=[2026, 2028, 2029, 2030, 2032],
        areas={"all": {"load": {2026: 1.0, 2036: 3.0}}}, limits=["ratings"], members=2,
    )  # fmt: skip
    result = run_study(study, tmp_path / "out", scheduler=scheduler)
    found = dict(zip(years_table(result)["place"], years_table(result)["first_year"], strict=True))
    assert found == {
        "line_rating: line LA": 2029, "line_rating: line LB": 2029, "trafo_rating: trafo T1": 2032,
    }  # fmt: skip
    assert float(result["any_first_year"]) == 2029
    np.testing.assert_allclose(result["grown"].squeeze(), [1.0, 1.4, 1.6, 1.8, 2.2])
    rows = dict(summary(result))
    assert rows["factor of the load"] == "1, 1.4, 1.6, 1.8, 2.2"
    assert rows["feeder over a limit from"].startswith("2029 (2026 to 2029)")
    assert rows["  trafo_rating: trafo T1"].startswith("2032")
    files = {path.name for path in save_study(result, tmp_path / "out")}
    assert files == {"study.nc", "years.csv", "shares.csv", "growth.csv", "limits.csv", "study.png"}
    assert json.loads(result.attrs["not_checked"]) == {}


def test_a_year_is_overrides_of_the_scenario(tmp_path):
    own = {"additions": {"own": {"load": 2.0}}}
    (tmp_path / "street.yaml").write_text(yaml.safe_dump({**STREET, "feeder": STREET["feeder"] | own}))
    areas = {
        "north": {"at": ["A"], "pv": {2026: 0.0, 2036: 1.0}, "heat_pumps": {2026: 0.5}},
        "south": {"at": ["B"], "load": {2026: 1.0, 2036: 2.0}},
    }
    study = load_study(
        tmp_path / "street.yaml", Growth, "growth", areas=areas, pv=BERLIN, pv_kw=5, evs={2026: 0.2},
        risk=0.1, confidence=0.9, members=3,
    )  # fmt: skip
    given = study.overrides_of(2031)
    assert (given["fleet.penetration"], given["fleet.count"]) == (0.2, None)
    added = given["feeder.additions"]
    assert list(added) == ["own", "north heat pumps", "north pv", "south load"]
    assert (added["north pv"]["penetration"], added["north pv"]["kw"], added["north pv"]["at"]) == (
        0.5,
        5,
        ["A"],
    )
    assert added["north heat pumps"]["penetration"] == 0.5
    assert added["south load"] == {"at": ["B"], "load": 1.5}
    with pytest.raises(
        evgrid.ScenarioError, match="evs: are per household; the scenario's fleet.sessions must"
    ):
        study.plans()


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*growth*.yaml")))
def test_every_shipped_study_is_valid(path, in_place):
    study = load_study(in_place(path), Growth, "growth")
    runs = study.plans()
    penetrations = [run.scenario.fleet.penetration for run in runs]
    assert penetrations == sorted(penetrations)
    assert len(runs) == len(study.years)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "evs, areas: nothing grows"),
        ({"evs": {2026: 0.5}, "years": [2030, 2026]}, "years.*must be ascending"),
        ({"areas": {"a": {"pv": {2026: 0.1}}}}, "pv: is required where PV grows"),
        ({"evs": {"saturation": 1, "midpoint": 2030}}, "rate: is required"),
    ],
)
def test_what_is_wrong_with_a_study_is_said(tmp_path, changes, message):
    (tmp_path / "street.yaml").write_text(yaml.safe_dump(STREET))
    with pytest.raises(evgrid.ScenarioError, match=message):
        load_study(tmp_path / "street.yaml", Growth, "growth", **changes)
