"""Variants of one scenario side by side: judged member by member, a failed one named."""

import json

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from evgrid.errors import ResultError, ScenarioError
from evgrid.scenario import load_scenario
from evgrid.studies.comparison import (
    Comparison,
    failures,
    figures_table,
    run_comparison,
    save_comparison,
    side_by_side,
)
from evgrid.studies.reading import load_study

BASE = """
name: base
time: {start: 2026-07-01T16:00, duration: 4h, step: 10min}
ensemble: {members: 3, seed: 3}
feeder: {network: cigre_lv, households: {kw_each: 2}, base_load: {source: standard}}
fleet: {count: 6, charger: {phases: 3, power_kw: 11}}
communication: {telemetry: 10min}
"""


class Peaks(Comparison):
    """Highest fleet power of each member."""

    kind = "peaks"

    def figures(self, result):
        power = result["fleet_power_kw"]
        peak = power.max("time").assign_attrs(long_name="highest fleet power", units="kW")
        return xr.Dataset({"peak_kw": peak, "power_kw": power})

    def between(self, study):
        lower = study["peak_kw"].isel(variant=0) - study["peak_kw"]
        return study.assign(lower_kw=lower.assign_attrs(long_name="lower than the first", units="kW"))

    def draw(self, study):
        figure = Figure()
        figure.subplots().plot(study["peak_kw"].values.T)
        return figure


@pytest.fixture
def study(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(
        json.dumps(
            {
                "name": "peaks",
                "scenario": "base.yaml",
                "variants": {
                    "eleven": {},
                    "four": {"fleet.charger.power_kw": 4},
                    "broken": {"feeder.base_load": {"source": "standard", "power_factor": 1e-6}},
                },
            }
        )
    )
    return load_study(tmp_path / "study.yaml", Peaks, "peaks")


def test_variants_see_the_same_members_and_a_failed_one_is_named(study, tmp_path, scheduler):
    result = run_comparison(study, tmp_path / "out", scheduler=scheduler)
    assert result["variant"].values.tolist() == ["eleven", "four"]
    assert list(failures(result)) == ["broken"]
    assert "power flow" in failures(result)["broken"]
    assert result["power_kw"].dims == ("variant", "member", "time")
    assert (result["peak_kw"].sel(variant="four") <= result["peak_kw"].sel(variant="eleven") + 1e-9).all()
    table = figures_table(result).query("figure == 'peak_kw'").set_index("variant")
    values = result["peak_kw"].sel(variant="four").values
    assert table.loc["four", "median"] == pytest.approx(np.median(values))
    assert table.loc["four", "mean"] == pytest.approx(values.mean())
    assert side_by_side(result).index.tolist() == ["highest fleet power (kW)", "lower than the first (kW)"]
    np.testing.assert_array_equal(result["lower_kw"].sel(variant="eleven"), 0)
    files = save_comparison(study, result, tmp_path / "out")
    assert all(file.stat().st_size > 0 for file in files)
    with xr.open_dataset(files[0]) as kept:
        np.testing.assert_array_equal(kept["peak_kw"], result["peak_kw"])
    with pytest.raises(ResultError, match="holds a batch already; go on with it with --resume"):
        run_comparison(study, tmp_path / "out")


def test_nothing_finished_is_an_error_with_the_reasons(study, tmp_path, scheduler):
    alone = study.model_copy(update={"variants": {"broken": study.variants["broken"]}})
    with pytest.raises(ResultError, match=r"study peaks: no variant has finished \(broken: .*power flow"):
        run_comparison(alone, tmp_path / "out", scheduler=scheduler)


def test_faults_of_a_study_file_are_reported_with_their_paths(study, tmp_path):
    (tmp_path / "bad.yaml").write_text(json.dumps({"name": "x", "scenario": "none.yaml", "variant": {}}))
    with pytest.raises(ScenarioError, match="variant: unknown key; did you mean 'variants'") as caught:
        load_study(tmp_path / "bad.yaml", Peaks, "peaks")
    assert "there is no file" in str(caught.value)
    bad = study.model_copy(update={"variants": {"a": {"fleet.penetrations": 2}}})
    with pytest.raises(ScenarioError, match="case 0 .*fleet.penetrations: unknown key"):
        run_comparison(bad, tmp_path / "out")
    none = study.model_copy(update={"variants": None})
    with pytest.raises(ScenarioError, match="variants: is required in a study of the kind peaks"):
        run_comparison(none, tmp_path / "out")


def test_an_aggregator_of_the_base_can_be_taken_away(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE + "aggregators: {main: {strategy: uncontrolled}}\n")
    empty = load_scenario(tmp_path / "base.yaml", {"fleet": None, "aggregators.main": None})
    assert empty.fleet is None
    assert empty.aggregators == {}
