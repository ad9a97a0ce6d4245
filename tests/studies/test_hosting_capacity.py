"""Hosting capacity: known answers, the non-monotone case, and a study from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import evgrid
from evgrid.cli import main
from evgrid.results.limits import Criterion
from evgrid.studies.hosting_capacity import _at_capacity, _first, assess, load_study, run_study, summary
from evgrid.studies.hosting_capacity_output import save_study
from evgrid.studies.hosting_capacity_tables import (
    TOGETHER,
    UNITS,
    binding_table,
    first_violations_table,
    half_width,
    limits_table,
)
from evgrid.studies.statistics import wilson

BASE = """
name: base
time: {start: 2026-07-01T16:00, duration: 4h, step: 10min}
ensemble: {members: 1, seed: 3}
feeder: {network: cigre_lv, households: {kw_each: 2}, base_load: {source: standard}}
fleet: {count: 6, charger: {phases: 3, power_kw: 11}}
communication: {telemetry: 10min}
"""


def outcomes(found, levels=None):
    """(level, member) bool as the DataArray that assess takes."""
    found = np.asarray(found, bool)
    levels = np.arange(len(found), dtype=float) if levels is None else levels
    return xr.DataArray(found, dims=("level", "member"), coords={"level": levels})


def test_wilson_interval_by_hand():
    low, high = wilson([0, 5], 10, 0.95)
    # p = 0.5, z = 1.959964: (0.5 + z²/20 ± z sqrt(0.025 + z²/400)) / (1 + z²/10)
    assert low == pytest.approx([0.0, 0.236593], abs=1e-6)
    assert high == pytest.approx([0.277533, 0.763407], abs=1e-6)


def test_first_violation_counts_though_higher_levels_pass():
    #            member: 0  1  2  3
    found = outcomes([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    result = assess(found, risk=0.25)
    assert result["probability"].values.tolist() == [0, 0.25, 0.25, 0]
    assert result["first_share"].values.tolist() == [0, 0.25, 0.5, 0.5]
    np.testing.assert_array_equal(result["first_level"], [1, 2, np.nan, np.nan])
    assert float(result["capacity"]) == 1.0  # not 3, where nothing is violated


def test_capacity_below_the_lowest_level_is_nan_and_at_the_highest_it_is_that():
    assert np.isnan(assess(outcomes([[1, 1], [1, 1]]))["capacity"])
    assert float(assess(outcomes([[0, 0], [0, 0]]))["capacity"]) == 1.0


def test_interval_of_the_capacity_covers_the_known_answer():
    # The first violation of a deployment is uniform on (0, 1): F(x) = x, and the capacity at a risk
    # of 10 % is 0.1. Beyond its first violation a deployment passes again now and then.
    risk, members, repetitions = 0.1, 300, 400
    levels = np.round(np.arange(0, 0.3, 0.001), 3)
    rng = np.random.default_rng(20)
    covered = exact = 0
    for _ in range(repetitions):
        first = rng.random(members)
        found = levels[:, np.newaxis] >= first
        found &= (rng.random(found.shape) < 0.5) | (levels[:, np.newaxis] < first + 0.001)
        result = assess(outcomes(found, levels), risk)
        covered += float(result["capacity_low"]) <= risk <= float(result["capacity_high"])
        exact += (
            float(result["first_share_low"].sel(level=risk))
            <= risk
            <= float(result["first_share_high"].sel(level=risk))
        )
    assert 0.93 <= covered / repetitions <= 0.97
    assert 0.93 <= exact / repetitions <= 0.97


def snapshot(network, base_kw, charge_kw, deployments, seed):
    """Unbalance (level, deployment, bus) of a snapshot with 0, 1, 2 … of the houses charging."""
    from evgrid.feeder.solvers import make_solver

    solver = make_solver(network, "power-grid-model")
    connections, houses = network.connections, len(base_kw)
    phase = np.eye(3)[connections.phase]
    rng = np.random.default_rng(seed)
    rank = np.stack([np.argsort(rng.permutation(houses)) for _ in range(deployments)])
    reactive = (base_kw * np.tan(np.arccos(0.95)))[:, np.newaxis] * phase
    found = []
    for count in range(houses + 1):
        p = (base_kw + charge_kw * (rank < count))[..., np.newaxis] * phase
        flow = solver.solve(p, np.broadcast_to(reactive, p.shape).copy())
        found.append(np.nanmax(flow.voltage_unbalance, axis=1))
    return np.stack(found)


def test_european_lv_minute_566_is_not_monotone(feeder):
    network = feeder("european_lv")  # with the loads of minute 566
    base_kw = network.grid.loads.p_kw.sum(axis=1)
    unbalance = snapshot(network, base_kw, 3.7, 200, seed=1)
    levels = np.arange(56) / 55
    result = assess(outcomes(unbalance > 0.02, levels))
    for count, share in ((30, 0.09), (50, 0.335), (55, 0.0)):
        at = result.isel(level=count)
        assert float(at["probability_low"]) <= share <= float(at["probability_high"]), count
    # by brute force: the most EVs up to which at most 5 % of the deployments have had a violation
    had = np.maximum.accumulate(unbalance > 0.02, axis=0).mean(axis=1)
    capacity = int(np.flatnonzero(had <= 0.05).max())
    assert float(result["capacity"]) == levels[capacity]
    assert capacity < 30  # the last level passes in every deployment, and is no capacity
    assert float(result["first_share"][-1]) > 0.335


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def test_study_from_end_to_end(scenario, tmp_path, scheduler):
    out = tmp_path / "out"
    done = CliRunner().invoke(
        main,
        ["study", "hosting-capacity", str(scenario), "--members", "4", "--scheduler", scheduler, "--limit",
         "en_50160", "--limit", "vuf", "--risk", "0.2", "-o", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for text in ("hosting capacity, uncontrolled", "at a risk of 20%", "not checked", "power flow"):
        assert text in done.stdout
    with xr.open_dataset(out / "study.nc") as result:
        assert result["violated"].sizes == {"variant": 1, "level": 11, "member": 4, "criterion": 3}
        assert result["level_evs"].values[-1] > 100
        assert all(
            "units" in result[name].attrs for name in ("probability", "capacity", "bus_voltage_min_pu")
        )
    for table in ("capacity.csv", "shares.csv", "binding.csv", "first_violations.csv"):
        assert len((out / table).read_text().splitlines()) > 1
    features = json.loads((out / "buses.geojson").read_text())["features"]
    assert len(features) == 44
    assert sum(f["properties"]["uncontrolled"]["first_violations"] for f in features) > 0
    assert (out / "study.png").stat().st_size > 10_000


def test_more_members_until_precise_and_the_same_as_at_once(scenario, scheduler):
    changes = {"levels": [0.5, 1.0], "limits": ["en_50160"], "budget": 12}
    one = run_study(load_study(scenario, members=12, **changes), scheduler=scheduler)
    rounds = run_study(load_study(scenario, members=4, precision=0.01, **changes), scheduler=scheduler)
    assert rounds.sizes["member"] == 12  # the budget ends it
    xr.testing.assert_identical(one["violated"], rounds["violated"])
    xr.testing.assert_equal(one["bus_voltage_min_pu"], rounds["bus_voltage_min_pu"])
    early = run_study(load_study(scenario, members=4, precision=0.4, **changes), scheduler=scheduler)
    assert early.sizes["member"] < 12
    assert float(half_width(early).max()) <= 0.4
    violating = int(one["violated"].sel(criterion=TOGETHER).any("level").sum())
    assert first_violations_table(one)["deployments"].sum() == violating


def judged_by_hand(worst):
    """What runs would have kept; ``worst``: by (level, member), {criterion: element}, most severe first."""
    levels, members, criteria = [0.0, 0.5, 1.0], range(4), ["vuf", "trafo", TOGETHER]
    shape = (1, len(levels), len(members), len(criteria))
    element, criterion = np.full(shape, "", object), np.full(shape[:3], "", object)
    for (level, member), found in worst.items():
        for name, where in found.items():
            element[0, level, member, criteria.index(name)] = where
        criterion[0, level, member] = next(iter(found))
        element[0, level, member, 2] = found[criterion[0, level, member]]
    violated = element != ""
    times = np.where(violated, np.datetime64("2026-01-15T18:30", "ns"), np.datetime64("NaT", "ns"))
    dims = ("variant", "level", "member", "criterion")
    data = {
        "violated": (dims, violated), "worst_element": (dims, element), "worst_time": (dims, times),
        "worst_kind": (dims, np.where(violated, "thing", "").astype(object)),
        "worst_phase": (dims, np.full(shape, "", object)), "worst_criterion": (dims[:3], criterion),
    }  # fmt: skip
    coords = {"variant": ["one"], "level": levels, "member": members, "criterion": criteria}
    runs = xr.Dataset(data, coords)
    result = assess(runs["violated"], risk=0.3)
    return result.merge(_at_capacity(runs, result)).merge(_first(runs))


def test_what_sets_the_capacity_is_what_is_violated_at_the_first_level_past_it():
    """Half of the deployments break vuf at 50 %, where the risk of 30 % is passed; one in four did a trafo's
    at 0 %, and all do at 100 %.
    """
    all_at_last = {(2, m): {"trafo": "T1"} for m in range(4)}
    result = judged_by_hand(
        {
            (0, 0): {"trafo": "T1"},
            (1, 1): {"vuf": "B1"},
            (1, 2): {"vuf": "B2", "trafo": "T1"},
            **all_at_last,
        }
    )
    assert float(result["capacity"].sel(criterion=TOGETHER, variant="one")) == 0.0
    assert float(result["binding_level"].sel(variant="one")) == 0.5
    table = binding_table(result)
    assert table["binding_criterion"].tolist() == ["vuf", "vuf", "trafo"]
    assert table["binding_element"].tolist() == ["B1", "B2", "T1"]
    assert table["criterion_share"].tolist() == [0.5, 0.5, 0.25]
    assert table["any_share"].tolist() == [0.5] * 3
    assert table["other_share"].tolist() == [0.25, 0.25, 0.5]  # vuf is violated with the trafo's by one
    assert table["median_hour"].tolist() == [18.5] * 3
    first = first_violations_table(result)
    assert dict(zip(first["first_element"], first["deployments"], strict=True)) == {"T1": 2, "B1": 1, "B2": 1}


def summarised(result, levels, long_name):
    """Rows of the summary of what was judged by hand, at the given levels."""
    result = result.assign_coords(level=("level", levels, {"long_name": long_name}))
    return dict(
        summary(
            result.assign_attrs(
                study=json.dumps({"risk": 0.3, "limits": ["vuf"]}), remarks="{}", not_checked="{}",
                wall_s=1.0, feeder_s=1.0, runs_s=2.0,
            )
        )
    )  # fmt: skip


def test_a_summary_says_where_limits_are_violated_without_evs_and_when_in_the_day():
    few = judged_by_hand({(1, m): {"vuf": "B1"} for m in range(4)} | {(0, 0): {"vuf": "B1"}})
    assert float(few["capacity"].sel(criterion=TOGETHER, variant="one")) == 0.0
    assert np.isnan(few["capacity_low"].sel(criterion=TOGETHER, variant="one"))
    rows = summarised(few, [0.0, 10.0, 20.0], UNITS["evs"].text)
    assert rows["hosting capacity, one"] == "0 EVs at a risk of 30% (none to 0 EVs)"
    assert "  none" not in rows
    assert ", at about 18:30 (" in rows["  set by"]
    always = judged_by_hand({(level, m): {"vuf": "B1"} for level in range(3) for m in range(4)})
    rows = summarised(always, [0.0, 0.5, 1.0], UNITS["levels"].text)
    assert rows["hosting capacity, one"].startswith("none at a risk of 30% (none")
    assert rows["  none"] == "the risk is passed without any EVs"


def test_where_all_levels_pass_nothing_sets_the_capacity():
    result = judged_by_hand({(2, 0): {"vuf": "B1"}})
    assert float(result["capacity"].sel(criterion=TOGETHER, variant="one")) == 1.0
    assert np.isnan(result["binding_level"].sel(variant="one"))
    assert binding_table(result).empty
    assert first_violations_table(result)["deployments"].tolist() == [1]


def test_a_car_park_is_asked_in_evs(tmp_path, scheduler):
    park = BASE.replace("{count: 6,", "{count: 6, sessions: workplace,")
    (tmp_path / "park.yaml").write_text(park)
    with pytest.raises(
        evgrid.ScenarioError,
        match=r"1 fault\n.*workplace: these EVs are of no household; give numbers in place of levels",
    ):
        run_study(load_study(tmp_path / "park.yaml"))
    study = load_study(tmp_path / "park.yaml", evs=(0, 20), limits=["en_50160"], members=2, budget=2)
    result = run_study(study, scheduler=scheduler)
    assert result["level_evs"].values.tolist() == [0, 20]
    assert dict(summary(result))["deployments"] == "2, 2 levels from 0 EVs to 20 EVs"


PARK = """
name: hub
time: {start: 2026-07-01T16:00, duration: 1h, step: 30min}
ensemble: {members: 1, seed: 3}
feeder: {network: cigre_lv, base_load: {source: none}}
fleet: {count: 1, sessions: full_power, charger: {phases: 3, power_kw: 20}}
communication: {telemetry: 30min}
"""


def test_chargers_at_each_node_have_the_capacity_worked_out_by_hand(tmp_path, scheduler):
    """20-kW chargers at full power, nothing else: a transformer of 500 kVA (Load R1) or 300 kVA (Load C1) is
    at 20 % with 5 of them (100 kVA) or 3 (60 kVA), plus losses below 2 kVA; so 4 and 2 pass a limit of 20 %.
    """
    (tmp_path / "hub.yaml").write_text(PARK)
    limit = Criterion(name="fifth", variable="trafo_loading", high=0.2)
    never = Criterion(name="never", variable="trafo_loading", high=9.0)
    study = load_study(
        tmp_path / "hub.yaml",
        chargers=(0, 2, 3, 4, 5),
        nodes=("Load R1", "Load C1"),
        limits=(limit, never),
        members=2,
    )
    result = run_study(study, scheduler=scheduler)
    assert result["node"].values.tolist() == ["Load R1", "Load C1"]
    assert result["capacity"].sel(criterion=TOGETHER).values.tolist() == [4, 2]
    assert result["binding_level"].values.tolist() == [5, 3]
    assert result["level_kw"].values.tolist() == [0, 40, 60, 80, 100]
    table = binding_table(result)
    assert table["binding_element"].tolist() == ["Trafo R0-R1", "Trafo C0-C1"]
    # the named criterion is all of P(violation) at the first level past the capacity
    for variant, row in zip(result["variant"].values, table.to_dict("records"), strict=True):
        at = result.sel(variant=variant, level=result["binding_level"].sel(variant=variant))
        assert row["criterion_share"] == float(at["violated"].sel(criterion="fifth").mean()) == 1.0
        assert row["any_share"] == float(at["probability"].sel(criterion=TOGETHER)) == 1.0
        assert row["other_share"] == 0.0
    rows = dict(summary(result))
    assert rows["Load C1"].startswith("2 chargers (40 kW) at a risk of 5%")
    assert (
        "fifth, which 100% of the deployments violate at 3 chargers (60 kW) (100% any limit, 0% "
        in rows["Load C1"]
    )
    limits = limits_table(result).set_index("criterion")
    assert limits["high"].to_dict() == {"fifth": 0.2, "never": 9.0}
    assert limits["checked"].all()
    assert {path.name for path in save_study(result, tmp_path / "out")} >= {"limits.csv", "study.png"}


def test_levels_in_kw_are_the_nearest_whole_number_of_chargers(tmp_path):
    (tmp_path / "hub.yaml").write_text(PARK)
    variants = {"small": {}, "large": {"fleet.charger.ratings": {20: 0.5, 60: 0.5}}}
    study = load_study(tmp_path / "hub.yaml", kw=(0, 70, 200), variants=variants, nodes="all")
    counts = [run.scenario.fleet.count for run in study.plans()]
    assert counts == [0, 4, 10] * 15 + [0, 2, 5] * 15  # 70 / 20 = 3.5, and 70 / 40 = 1.75
    assert study.cases[0].label == "small, Load R1"


def test_chargers_of_a_hub_are_shared_by_evs(tmp_path):
    hub = PARK.replace("full_power", "dc_fast").replace("power_kw: 20}", "power_kw: 150, current: dc}")
    (tmp_path / "hub.yaml").write_text(hub)
    study = load_study(
        tmp_path / "hub.yaml", chargers=(0, 2, 10), evs_per_charger=6, nodes=("Load R1",), members=1
    )
    fleets = [run.scenario.fleet for run in study.plans()]
    assert [fleet.count for fleet in fleets] == [0, 12, 60]
    assert [fleet.charge_points and fleet.charge_points.each for fleet in fleets] == [None, 2, 10]
    spread = load_study(tmp_path / "hub.yaml", kw=(0, 300), evs_per_charger=6)
    with pytest.raises(
        evgrid.ScenarioError, match="evs_per_charger: the chargers must be at one connection point"
    ):
        spread.plans()


def test_more_than_one_ev_per_household(scenario):
    runs = load_study(scenario, levels=[1.0, 1.5], members=1).plans()
    assert [run.scenario.fleet.penetration for run in runs] == [1.0, 1.5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chargers": [1], "kw": [2]}, "kw: give either chargers or kw"),
        ({"nodes": ["Load R1"]}, "nodes: give evs, chargers or kw with them"),
        ({"evs": [1], "evs_per_charger": 2}, "evs_per_charger: is for levels in chargers or kw"),
        ({"levels": [50]}, "levels.*50.*must be at most 5"),
        ({"levels": [0.5, 0.2]}, "levels.*must be ascending"),
        ({"limits": ["en_50161"]}, "en_50161 is no preset; must be one of en_50160"),
        ({"risk": 1.5}, "risk = 1.5: must be less than 1"),
        ({"precison": 1}, "precison: unknown key; did you mean 'precision'?"),
    ],
)
def test_what_is_wrong_with_a_study_is_said(scenario, changes, message):
    with pytest.raises(evgrid.ScenarioError, match=message.replace("?", "[?]")):
        load_study(scenario, **changes)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "scenarios" / "studies").glob("*hosting_capacity*.yaml"))
)
def test_every_shipped_study_is_valid(path, in_place):
    study = load_study(in_place(path))
    for variant in study.variants:
        study.scenario_at(variant, study.levels[-1], range(2))


def test_a_stopped_study_goes_on_and_a_failed_run_names_its_case(scenario, tmp_path, scheduler):
    changes = {"levels": [0.5, 1.0], "limits": ["en_50160"], "members": 3}
    study = load_study(scenario, **changes)
    whole = run_study(study, tmp_path / "out", scheduler=scheduler)
    runs = sorted((tmp_path / "out" / "runs").glob("*.nc"))
    assert len(runs) == 2
    times = runs[0].stat().st_mtime_ns
    runs[1].unlink()  # as if it had been stopped here
    again = run_study(study, tmp_path / "out", resume=True, scheduler=scheduler)
    assert runs[0].stat().st_mtime_ns == times
    xr.testing.assert_identical(again["violated"], whole["violated"])
    other = study.model_copy(update={"limits": ("neutral_current",)})
    with pytest.raises(
        evgrid.EvgridError, match="at variant uncontrolled, penetration 0.5: none of the limits"
    ):
        run_study(other, tmp_path / "out", resume=True, scheduler=scheduler)


def test_the_members_of_a_round_are_parted_into_runs(scenario):
    runs = load_study(scenario, levels=[0.5], members=5, members_per_run=2).plans()
    assert [list(run.scenario.members) for run in runs] == [[0, 1], [2, 3], [4]]


def test_a_deployment_whose_power_flow_has_no_solution_violates_the_limits(tmp_path, scheduler):
    vehicle = "vehicle: {capacity_kwh: 1e+6, consumption_kwh_per_mile: 1e+4, charge_kw: 5e+4}"
    text = BASE.replace("{phases: 3, power_kw: 11}", f"{{phases: 3, power_kw: 50000}}, {vehicle}")
    (tmp_path / "base.yaml").write_text(text)
    never = Criterion(name="far", variable="voltage_pu", high=1.5)
    study = load_study(tmp_path / "base.yaml", evs=(0, 40), limits=(never,), members=2)
    result = run_study(study, scheduler=scheduler).squeeze("variant")
    assert not result["violated"].sel(criterion="far").any()
    for criterion in ("power_flow", TOGETHER):
        assert result["violated"].sel(criterion=criterion).values.tolist() == [[False, False], [True, True]]
    assert float(result["capacity"].sel(criterion=TOGETHER)) == 0
    assert set(result["binding_kind"].sel(criterion="power_flow").values) == {"feeder"}
    rows = dict(summary(result.expand_dims("variant")))
    assert rows["  set by"].startswith("power_flow, which 100% of the deployments violate at 40 EVs")
    assert rows["limit power_flow"] == "the power flow has a solution"
