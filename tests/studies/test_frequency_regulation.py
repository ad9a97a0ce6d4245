"""The study of frequency regulation: figures by hand, both comparisons end to end, what it refuses."""

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from evgrid.cli import main
from evgrid.errors import ScenarioError
from evgrid.scenario import load_scenario
from evgrid.studies.comparison import run_here, side_by_side
from evgrid.studies.figures import new_hours, over_sessions, violation_hours
from evgrid.studies.frequency_regulation import FrequencyRegulation, GenerationLoss, Loss, rated_kw
from evgrid.studies.reading import load_study

BASE = """
name: base
time: {start: 2026-01-15T20:00, duration: 3h, step: 10s}
ensemble: {members: 2, seed: 3}
feeder: {network: cigre_lv, step: 10min, base_load: {source: net}}
fleet: {count: 30, charger: {phases: 3, power_kw: 7.4, bidirectional: 1.0}}
aggregators: {fast: {strategy: regulation, group: feeder, smoothing: 15min, band: 30min}}
communication: {telemetry: 60s}
system: {nominal_hz: 50, regulation: {source: synthetic}}
tariff: pge_ev2a
"""
MINUTES = np.timedelta64(10, "m")


def dataset(**variables):
    """A result of two members and three sessions, the last of which goes on."""
    time = np.datetime64("2026-01-15T20:00", "ns") + 6 * MINUTES * np.arange(2)
    coords = {
        "member": [4, 5], "time": time, "bus": ["b1", "b2"], "phase": ["abc"], "trafo": ["T1"],
        "hour": time, "session_member": ("session", [4, 4, 5]),
        "session_complete": ("session", [True, True, False]),
    }  # fmt: skip
    found = {
        "voltage_min_pu": (("member", "time"), [[0.95, 0.94], [0.97, 0.96]]),
        "voltage_max_pu": (("member", "time"), [[1.0, 1.0], [1.01, 1.0]]),
        "trafo_loading": (("member", "time", "trafo"), [[[0.5], [1.2]], [[0.6], [0.7]]]),
        **variables,
    }
    attrs = {"format": "evgrid-result-1", "scenario": json.dumps({"system": {"frequency": {}}})}
    result = xr.Dataset(found, coords, attrs)
    return result.assign_attrs(attrs)


def study(**changes):
    return FrequencyRegulation.model_construct(name="x", limits=("ratings",), loss=None, **changes)


def test_regulation_figures_by_hand():
    hourly = ("member", "hour")
    result = dataset(
        regulation_capacity_kw=(hourly, [[0.0, 100.0], [50.0, 150.0]]),
        regulation_held_kw=(hourly, [[np.nan, 90.0], [50.0, 120.0]]),
        regulation_score=(hourly, [[np.nan, 0.9], [1.0, 0.8]]),
        regulation_credit=(hourly, [[0.0, 2.0], [1.0, 3.0]]),
        regulation_up_kwh=(hourly, [[np.nan, 10.0], [5.0, 15.0]]),
        regulation_down_kwh=(hourly, [[np.nan, 12.0], [6.0, 16.0]]),
    )
    found = study().figures(result)
    expected = {
        "offered_kw": [100, 100], "offered_least_kw": [100, 50], "held_percent": [90, 85],
        "held_least_percent": [90, 80], "score": [0.9, 0.9], "score_least": [0.9, 0.8],
        "moved_kwh": [22, 42], "credit": [2, 4], "violations": [1, 0],
        "trafo_loading_percent": [120, 70], "voltage_lowest_pu": [0.94, 0.96],
        "voltage_highest_pu": [1.0, 1.01],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)
        assert found[name].attrs["long_name"]
    (place,) = found["violation_h"]["place"].values
    assert place.endswith(": trafo T1")
    assert float(found["violation_h"].sum()) == 1.0  # one interval of an hour


def test_session_figures_count_what_ended_and_could_have_been_served():
    zeros = ("session", [0.0, 0.0, 0.0])
    result = dataset(
        fleet_power_kw=(("member", "time"), np.zeros((2, 2))),
        session_energy_requested_kwh=("session", [10.0, 10.0, 10.0]),
        session_energy_unserved_avoidable_kwh=("session", [0.05, 0.2, np.nan]),
        session_energy_delivered_kwh=("session", [11.0, 12.0, 13.0]),
        session_energy_discharged_kwh=("session", [1.0, 2.0, 3.0]),
        session_loss_kwh=zeros,
        session_cost=("session", [1.5, 2.5, 3.5]),
        session_degradation_cost=("session", [0.1, 0.2, 0.3]),
    )
    found = study().figures(result)
    for name, values in {
        "missed_sessions": [1, 0], "missed_kwh": [0.25, 0], "drawn_kwh": [23, 0], "returned_kwh": [3, 0],
        "energy_cost": [4, 0], "degradation_cost": [0.3, 0],
    }.items():  # fmt: skip
        np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)
    nothing = over_sessions(result, np.full(3, np.nan), "cost without a tariff", "currency")
    assert np.isnan(nothing).all()
    going_on = result.assign_coords(session_complete=("session", [False] * 3))
    assert np.isnan(over_sessions(going_on, np.ones(3), "of sessions that have not ended", "kWh")).all()


def test_gain_and_new_violations_are_against_the_same_member():
    hours = xr.DataArray(
        [[[1.0, 0.0], [0.0, 0.0]], [[2.0, 1.0], [0.0, np.nan]], [[0.0, 3.0], [1.0, 1.0]]],
        {"variant": ["no_evs", "uncontrolled", "v2g"], "member": [0, 1]},
        ("variant", "member", "place"),
    )
    more = new_hours(hours, "no_evs").values
    np.testing.assert_array_equal(more, [[[0, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 3], [1, 1]]])
    both = ("variant", "member")
    given = xr.Dataset(
        {
            "violation_h": hours,
            "energy_cost": (both, [[np.nan] * 2, [10.0, 20.0], [11.0, 22.0]]),
            "degradation_cost": (both, [[np.nan] * 2, [1.0, 1.0], [1.5, 2.0]]),
            "credit": (both, [[np.nan] * 2, [np.nan] * 2, [4.0, 2.0]]),
        }
    )
    found = study().between(given)
    np.testing.assert_array_equal(found["new_violations_no_evs"], [[0, 0], [1, 0], [1, 2]])
    np.testing.assert_array_equal(found["new_violations_no_evs_h"], [[0, 0], [1, 0], [3, 1]])
    np.testing.assert_array_equal(found["new_violations_uncontrolled"], [[0, 0], [0, 0], [0, 2]])
    np.testing.assert_allclose(found["gain"].sel(variant="v2g"), [2.5, -1.0])
    np.testing.assert_allclose(found["gain"].sel(variant="uncontrolled"), 0.0)


def test_violations_of_nothing_are_none():
    from evgrid.results.limits import limit_set

    calm = dataset().assign(trafo_loading=lambda d: 0.1 * d["trafo_loading"])
    hours = violation_hours(calm, limit_set("ratings"))
    assert hours.shape == (2, 0)


def test_loss_figures_by_hand():
    seconds = np.arange(-2.0, 4.0)
    time = np.datetime64("2026-01-15T22:00", "ns") + (1e9 * (seconds + 2)).astype("timedelta64[ns]")
    scenario = {"system": {"nominal_hz": 50, "frequency": {"fleet": {"stands_for": 20}}}}
    result = xr.Dataset(
        {
            "frequency_hz": (("member", "time"), [[49.0, 50.0, 49.8, 49.7, 49.9, 49.95]]),
            "area_fleet_mw": (("member", "time"), [[5.0, 4.0, 3.0, 1.0, 2.0, 4.5]]),
            "capacity_offered_kw": (("member", "time"), [[0.0, 300.0, 400, 400, 400, 400]]),
            "reserve_capacity_kw": (("member", "hour"), np.zeros((1, 0))),
        },
        {"member": [0], "time": time},
        {"scenario": json.dumps(scenario)},
    )
    part = GenerationLoss.model_construct(name="x", loss=Loss(lead=2.0))
    found = part.figures(result)
    for name, value in {
        "drop_mhz": 300, "drop_s": 1.0, "end_mhz": 50, "given_at_nadir_mw": 3.0, "given_mw": 3.0,
        "offered_mw": 6.0,
    }.items():  # fmt: skip
        assert found[name].values == pytest.approx([value]), name
    two = xr.concat([found, found.assign(drop_mhz=found["drop_mhz"] - 50)], xr.IndexVariable(
        "variant", ["no_response", "fast"]))  # fmt: skip
    assert part.between(two)["lifted_mhz"].values.ravel() == pytest.approx([0.0, 50.0])


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def test_from_a_scenario_to_the_day_and_the_loss(scenario):
    study = load_study(
        scenario, FrequencyRegulation, "frequency-regulation", members=1, limits=["ratings"],
        loss={"lead": "20s", "watch": "5s", "at": "2026-01-15T22:00"},
    )  # fmt: skip
    parts = study.parts()
    assert list(parts) == ["", "loss"]
    limited = study.model_copy(update={"limit_kw": 50.0}).cases()["v2g_limited"]["aggregators.fast"]
    assert (limited["group"], limited["limit_kw"], limited["band"]) == ("transformer", 50.0, 1800.0)
    assert list(study.cases()) == ["no_evs", "uncontrolled", "v1g", "v2g", "v1g_weak_link", "v2g_weak_link"]
    result = run_here(study, "no_evs", "uncontrolled", "v1g", "v2g").isel(member=0)
    v1g, v2g = (result.sel(variant=variant) for variant in ("v1g", "v2g"))
    assert 0 < float(v1g["offered_kw"]) < float(v2g["offered_kw"])
    assert float(v2g["score"]) > 0.9
    assert np.isnan(result["score"].sel(variant="uncontrolled"))
    assert float(v2g["credit"]) > 0
    assert np.isnan(v2g["missed_sessions"])  # no session ends in these hours
    table = side_by_side(result.expand_dims("member"))
    assert table.columns.tolist() == ["no_evs", "uncontrolled", "v1g", "v2g"]
    assert table.index[0] == "capacity offered, mean of the hours (kW)"
    assert {"gain", "new_violations_no_evs", "new_violations_uncontrolled"} <= set(result.data_vars)
    assert len(study.draw(result.expand_dims("member")).axes) == 6

    loss = parts["loss"]
    assert list(loss.cases()) == [
        "no_response", "local_5s", "local_200ms", "dispatched_v1g", "dispatched", "dispatched_weak_link",
    ]  # fmt: skip
    found = run_here(loss, "no_response", "local_200ms", "dispatched")
    assert len(loss.draw(found).axes) == 2
    lifted = found["lifted_mhz"].isel(member=0)
    assert float(lifted.sel(variant="no_response")) == 0
    assert float(lifted.sel(variant="dispatched")) > 20
    assert float(lifted.sel(variant="local_200ms")) > 20
    assert float(found["given_mw"].sel(variant="no_response").squeeze()) < 0.5
    # fleets are as many as make up a tenth of the area: what they offer is less than that
    assert 10 < float(found["offered_mw"].sel(variant="dispatched").squeeze()) < 100


@pytest.mark.slow
def test_on_the_command_line(scenario, tmp_path):
    command = ["study", "frequency-regulation", str(scenario), "--members", "1", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    for folder in ("out", "out/loss"):
        for name in ("study.nc", "figures.csv", "study.png"):
            assert (tmp_path / folder / name).stat().st_size > 0
    assert "nadir raised by the response" in done.output


def test_fleets_make_up_the_stated_share_of_the_area(scenario):
    base = load_scenario(scenario)
    kw = rated_kw(base)
    assert 0 < kw <= 30 * 7.4
    frequency = Loss(chargers_pu=0.2, area={"base_mw": 500}).overrides(base, kw)["system.frequency"]
    assert frequency["fleet"]["stands_for"] * kw == pytest.approx(0.2 * 500e3)
    assert Loss().moment(base) == np.datetime64("2026-01-15T21:30")


def without(section):
    return "\n".join(line for line in BASE.splitlines() if not line.startswith(section)) + "\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            without("system").replace(
                "strategy: regulation, group: feeder, smoothing: 15min, band: 30min", "strategy: uncontrolled"
            ),
            "study base-frequency-regulation, scenario base: 1 fault\n  system.regulation: is required: say",
        ),
        (without("system"), "aggregators.fast.strategy = regulation: needs system.regulation"),
        (BASE.replace("regulation: {source: synthetic}", ""), "system.regulation: is required"),
        (without("fleet").replace("aggregators: ", "# "), "fleet: is required"),
    ],
)
def test_a_scenario_that_lacks_something_is_one_sentence(scenario, text, says):
    scenario.write_text(text)
    done = CliRunner().invoke(main, ["study", "frequency-regulation", str(scenario)])
    assert done.exit_code == 2
    with pytest.raises(ScenarioError, match=says):
        load_study(scenario, FrequencyRegulation, "frequency-regulation").parts()


def test_faults_of_a_study_file(scenario, tmp_path):
    given = {"name": "x", "scenario": "base.yaml", "limits": ["en_50161"], "loss": {"full_hz": 0.01}}
    (tmp_path / "study.yaml").write_text(json.dumps(given))
    with pytest.raises(ScenarioError, match="en_50161 is no preset; must be one of") as caught:
        load_study(tmp_path / "study.yaml", FrequencyRegulation, "frequency-regulation")
    assert "full_hz = 0.01: must be above deadband_hz = 0.036" in str(caught.value)
