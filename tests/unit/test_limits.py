"""Limits and violations: small results whose violations can be counted by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pydantic import ValidationError

from evgrid.errors import ResultError
from evgrid.results import limits
from evgrid.results.limits import Criterion, LimitSet, coverage, limit_set, violated, violations

START = np.datetime64("2026-01-15T12:00", "ns")


def time(steps, step_s):
    return START + np.arange(steps) * np.timedelta64(round(step_s * 1e9), "ns")


def volts(steps, step_s, members=1, buses=2):
    """A result at 1 pu: buses x, y; phases a, b, c."""
    values = np.ones((members, steps, buses, 3), np.float32)
    return xr.Dataset(
        {"voltage_pu": (("member", "time", "bus", "phase"), values, {"units": "1"})},
        coords={
            "member": np.arange(members) + 7,
            "time": time(steps, step_s),
            "bus": list("xyzuvw"[:buses]),
            "phase": ["a", "b", "c"],
        },
    )


def loads(line, step_s, trafo=None):
    line = np.atleast_2d(np.asarray(line, float))
    found = xr.Dataset(
        {"line_loading": (("member", "time", "line"), line[:, :, None], {"units": "1"})},
        coords={"member": np.arange(len(line)), "time": time(line.shape[1], step_s), "line": ["L1"]},
    )
    if trafo is not None:
        found["trafo_loading"] = (("member", "time", "trafo"), np.atleast_2d(trafo)[:, :, None])
        found["trafo"] = ["T1"]
    return found


def own(**given):
    return LimitSet(criteria=(Criterion(**{"name": "own", "variable": "voltage_pu"} | given),))


# ------------------------------------------------------------------------------------- the table


def test_a_row_says_what_where_when_how_long_and_how_badly():
    run = volts(6, 300)
    run["voltage_pu"][0, 2:5, 1, 2] = [0.94, 0.93, 0.949]
    run["voltage_pu"][0, 5, 0, 0] = 1.06
    table = violations(run, limits.ansi_c84_1_a())
    assert list(table.columns) == list(limits.COLUMNS)
    low, high = table.to_dict("records")
    assert low == {
        "member": 7, "criterion": "ansi_c84_1_a", "element": "bus", "name": "y", "phase": "c",
        "first_time": pd.Timestamp(START) + pd.Timedelta("10min"), "duration_h": 0.25,
        "worst": pytest.approx(0.93), "limit": 0.95, "unit": "1", "severity": pytest.approx(0.4, abs=1e-5),
    }  # fmt: skip
    assert (high["name"], high["phase"], high["limit"]) == ("x", "a", 1.05)
    assert high["severity"] == pytest.approx(0.01 / 0.05, abs=1e-5)
    assert high["duration_h"] == pytest.approx(1 / 12)


def test_without_violations_the_table_has_its_columns():
    table = violations(volts(6, 300), limits.ansi_c84_1_a())
    assert table.empty
    assert list(table.columns) == list(limits.COLUMNS)
    assert table.dtypes["first_time"] == "datetime64[ns]"


def test_rows_are_sorted_by_severity():
    run = loads([0.9, 1.3], 3600, [1.2, 0.5]).assign(volts(2, 3600, buses=1).assign_coords(member=[0]))
    run["voltage_pu"][0, 0, 0, 1] = 0.92  # 0.03 below 0.95: 0.6 of half the band
    table = violations(run, limit_set("ratings", "ansi_c84_1_a"))
    assert list(table["criterion"]) == ["ansi_c84_1_a", "line_rating", "trafo_rating"]
    assert table["severity"].tolist() == pytest.approx([0.6, 0.3, 0.2], abs=1e-5)
    assert list(table["phase"]) == ["b", "", ""]


def test_a_value_at_its_limit_is_within_it():
    run = volts(2, 600)
    run["voltage_pu"][:] = np.float32(0.9)  # stored as 0.89999998
    assert violations(run, limits.en_50160()).empty
    run["voltage_pu"][0, 0, 0, 0] = 0.84999
    assert list(violations(run, limits.en_50160(share=0.01))["criterion"]) == ["en_50160_always"]


def test_a_tolerance_is_of_the_larger_bound_both_ways():
    run = loads([[-46.0, 45.04], [-45.04, 45.06]], 60)
    table = violations(run, own(variable="line_loading", low=-45.0, high=45.0, tolerance=1e-3))
    assert sorted(table["worst"]) == pytest.approx([-46.0, 45.06])  # 45.045 and -45.045 are the last within
    assert table["duration_h"].tolist() == pytest.approx([1 / 60] * 2)


# ---------------------------------------------------------------------------------------- means


def test_block_means():
    run = volts(25, 60)  # two blocks of 10 min, and 5 min left over
    run["voltage_pu"][0, 0:10, 0, 0] = [0.7] * 3 + [1.0] * 7  # mean 0.91
    run["voltage_pu"][0, 10:20, 1, 1] = [0.7] * 6 + [1.0] * 4  # mean 0.82
    run["voltage_pu"][0, 20:, 0, 2] = 0.5  # incomplete: left out
    table = violations(run, own(low=0.85, mean_over="10min"))
    row = table.iloc[0]
    assert len(table) == 1
    assert (row["name"], row["phase"], row["worst"]) == ("y", "b", pytest.approx(0.82))
    assert row["first_time"] == pd.Timestamp(START) + pd.Timedelta("10min")
    assert row["duration_h"] == pytest.approx(1 / 6)


def test_moving_mean():
    # 1 h windows of four quarters: 1.1, 1.15, 1.25, 1.25, 1.15 after quarters 3 to 7
    quarters = [1.0, 1.0, 1.2, 1.2, 1.2, 1.4, 1.2, 0.8]
    table = violations(loads(quarters, 900), limits.thermal_moving_average())
    row = table.iloc[0]
    assert row["criterion"] == "line_moving_average"
    assert row["worst"] == pytest.approx(1.25)
    assert row["first_time"] == pd.Timestamp(START) + pd.Timedelta("75min")
    assert row["duration_h"] == pytest.approx(0.5)
    assert table.attrs["not_available"] == ["trafo_moving_average: the result has no trafo_loading"]


def test_instantaneous_and_moving_limits_differ():
    run = loads([[1.6] + [0.5] * 7, [1.3] * 8], 900)
    found = violated(run, limit_set("thermal_instantaneous", "thermal_moving_average", "ratings"))
    wanted = {
        "line_instantaneous": [True, False],
        "line_moving_average": [False, True],
        "line_rating": [True, True],
    }
    for name, members in wanted.items():
        assert found["violated"].sel(criterion=name).values.tolist() == members
    assert found["violated_any"].values.tolist() == [True, True]


def test_a_run_shorter_than_the_window_is_checked_on_its_mean():
    table = violations(loads([1.0, 1.6], 900), limits.thermal_moving_average())
    assert table["worst"].tolist() == [pytest.approx(1.3)]
    assert table["duration_h"].tolist() == [0.5]
    assert any("shorter than 3600 s" in note for note in table.attrs["notes"])


def test_an_interval_that_does_not_divide_the_averaging_time_is_an_error():
    with pytest.raises(ResultError, match=r"en_50160: means over 600 s .* interval of 420 s"):
        violations(volts(3, 420), limits.en_50160())


def test_a_longer_interval_is_used_as_it_is_and_said():
    run = volts(4, 900)
    run["voltage_pu"][0, 1, 0, 0] = 0.8
    table = violations(run, limits.en_50160())
    assert list(table["criterion"]) == ["en_50160", "en_50160_always"]
    assert table["duration_h"].tolist() == [0.25, 0.25]
    assert (
        "en_50160_always: means over 900 s (recorded) are used for means over 600 s" in table.attrs["notes"]
    )
    assert "recorded" in violated(run, limits.en_50160()).attrs["notes"]


# --------------------------------------------------------------------------------- share of a week


def with_low(run, start, count):
    run["voltage_pu"][0, start : start + count, 0, 0] = 0.88
    return run


@pytest.mark.parametrize(("low", "broken"), [(7, False), (8, True)])
def test_a_day_may_have_7_of_144_means_outside(low, broken):
    run = with_low(volts(144, 600), 100, low)  # 5 % of 144 is 7.2
    table = violations(run, limits.en_50160())
    assert list(table["criterion"]) == (["en_50160"] if broken else [])
    if broken:
        assert table["duration_h"].tolist() == [pytest.approx(8 / 6)]
    assert violated(run, limits.en_50160())["violated_any"].values.tolist() == [broken]


@pytest.mark.parametrize(("low", "broken"), [(50, False), (51, True)])
def test_a_week_may_have_50_of_1008_means_outside(low, broken):
    run = with_low(volts(1008, 600), 900, low)
    assert violated(run, limits.en_50160())["violated_any"].item() is broken
    assert not any("share" in note for note in violations(run, limits.en_50160()).attrs["notes"])


def test_weeks_are_checked_one_by_one_and_the_last_seven_days():
    two = with_low(with_low(volts(2016, 600), 0, 50), 1500, 50)
    assert not violated(two, limits.en_50160())["violated_any"].item()
    second = with_low(volts(2016, 600), 1500, 51)
    assert violated(second, limits.en_50160())["violated_any"].item()
    # 10 days: 40 means on day 7, 20 on day 8; only the last seven days (from day 4) hold 60
    across = with_low(with_low(volts(1440, 600), 960, 40), 1008, 20)
    assert violated(across, limits.en_50160())["violated_any"].item()
    apart = with_low(with_low(volts(1440, 600), 0, 40), 1008, 20)
    assert not violated(apart, limits.en_50160())["violated_any"].item()


# ---------------------------------------------------------------------------------------- not there


def test_what_is_not_energised_neither_violates_nor_counts():
    run = volts(144, 600)
    run["voltage_pu"][0, :, 1, :] = 0.0
    run["voltage_pu"][0, :, 0, 1] = np.nan
    assert violations(run, limit_set("en_50160", "ansi_c84_1_b")).empty
    run["voltage_pu"][0, :124, 0, 0] = np.nan  # 20 means left, of which one may lie outside
    run["voltage_pu"][0, -1, 0, 0] = 0.88
    assert violations(run, limits.en_50160()).empty
    run["voltage_pu"][0, -2, 0, 0] = 0.88
    assert list(violations(run, limits.en_50160())["phase"]) == ["a"]


def test_a_mean_goes_over_the_energised_part():
    run = volts(10, 60)
    run["voltage_pu"][0, :5, 0, 0] = 0.0
    run["voltage_pu"][0, 5:, 0, 0] = 0.84
    assert violations(run, limits.en_50160())["worst"].tolist() == pytest.approx([0.84, 0.84])


# ---------------------------------------------------------------------- what the result may not hold


def test_missing_variables_are_said():
    run = volts(144, 600)
    wanted = limit_set("en_50160", "vuf", "neutral_current", "hot_spot")
    found = violated(run, wanted)
    assert found["criterion"].values.tolist() == ["en_50160", "en_50160_always"]
    assert "vuf: the result has no voltage_unbalance" in found.attrs["not_available"]
    assert len(violations(run, wanted).attrs["not_available"]) == 3
    table = coverage(run, wanted).set_index("criterion")
    assert table["checked"].tolist() == [True, True, False, False, False]
    assert table.loc["hot_spot", "remark"] == "the result has no trafo_hot_spot_c"
    assert "24 h that were run" in table.loc["en_50160", "remark"]


def test_unbalance_of_a_result():
    run = volts(20, 600)
    run["voltage_unbalance"] = (("member", "time", "bus"), np.full((1, 20, 2), 0.01))
    run["voltage_unbalance"][0, 3:5, 1] = 0.04
    table = violations(run, limit_set("vuf", "vuf_ansi"))
    assert list(zip(table["criterion"], table["name"], table["phase"], strict=True)) == [
        ("vuf", "y", ""), ("vuf_ansi", "y", ""),
    ]  # fmt: skip
    assert table["severity"].tolist() == pytest.approx([1.0, 1 / 3])


def test_neutral_current_per_rating():
    run = loads([0.1, 0.1], 600)
    run["neutral_current_a"] = (("member", "time", "line"), np.array([[[150.0], [90.0]]]))
    assert coverage(run, limits.neutral_current())["remark"].tolist() == ["the result has no neutral_rated_a"]
    run["line_rated_ka"] = ("line", [0.2])
    assert violations(run, limits.neutral_current()).empty
    assert violations(run, limits.neutral_current()).attrs["notes"] == [
        "neutral_current: the neutral is taken to be rated as a phase"
    ]
    run["neutral_rated_a"] = ("line", [100.0])
    row = violations(run, limits.neutral_current()).iloc[0]
    assert (row["worst"], row["limit"], row["name"]) == (1.5, 1.0, "L1")


def test_no_elements_no_violations():
    run = loads(np.ones((1, 4)), 900).isel(line=[])
    assert violations(run, limit_set("ratings")).empty


# ------------------------------------------------------------------------------------ the fast path


def test_fast_path_and_table_agree_and_members_are_independent():
    rng = np.random.default_rng(1)
    run = volts(288, 300, members=12, buses=6)
    run["voltage_pu"][:] = rng.normal(1.0, 0.03, run["voltage_pu"].shape) - rng.random((12, 1, 6, 1)) * 0.06
    run["line_loading"] = (
        ("member", "time", "line"),
        rng.random((12, 288, 3)) * rng.random((12, 1, 3)) * 1.9,
    )
    wanted = limit_set("en_50160", "ansi_c84_1_a", "ansi_c84_1_b", "ratings", "thermal_instantaneous",
                       "thermal_moving_average")  # fmt: skip
    found, table = violated(run, wanted), violations(run, wanted)
    assert found["violated"].values.any(axis=0).sum() > found["violated"].values.all(axis=0).sum()
    for member in found["member"].values:
        for name in found["criterion"].values:
            rows = table[(table["member"] == member) & (table["criterion"] == name)]
            assert found["violated"].sel(member=member, criterion=name).item() == (len(rows) > 0)
    alone = violated(run.isel(member=[5]), wanted)
    assert (alone["violated"].values == found["violated"].isel(member=[5]).values).all()
    assert violations(run.isel(time=slice(0, 100)), wanted).shape[0] > 0


def plain(values, low, high, window, share):
    """Plain Python twin of block means and share, for one item without gaps."""
    means = [np.mean(values[i : i + window]) for i in range(0, len(values) - window + 1, window)]
    out = [m for m in means if m < low or m > high]
    return len(out) > share * len(means), out


def test_table_equals_its_plain_twin():
    rng = np.random.default_rng(2)
    run = volts(288, 300, buses=6)
    run["voltage_pu"][:] = rng.normal(0.97, 0.04, run["voltage_pu"].shape).astype(np.float32)
    table = violations(run, own(low=0.93, high=1.03, mean_over=1800, allowed_share=0.1))
    found = table.set_index(["name", "phase"])["duration_h"].to_dict()
    for b, bus in enumerate("xyzuvw"):
        for p, phase in enumerate("abc"):
            broken, out = plain(run["voltage_pu"].values[0, :, b, p].astype(float), 0.93, 1.03, 6, 0.1)
            assert ((bus, phase) in found) == broken
            if broken:
                assert found[bus, phase] == pytest.approx(len(out) * 0.5)


# --------------------------------------------------------------------------------------- unbalance


def test_voltage_unbalance_factor():
    turn = np.exp(2j * np.pi / 3)
    positive, negative = np.array([1, 1 / turn, turn]), np.array([1, turn, 1 / turn])
    mixed = 230 * (positive + 0.03 * np.exp(0.7j) * negative + 0.1 * np.ones(3))
    got = limits.voltage_unbalance_factor(np.array([[positive, mixed], [[0.9, 1 / turn, turn], [0, 1, 1]]]))
    # a at 0.9: V2 = (0.9 - 1) / 3, V1 = (0.9 + 2) / 3
    assert got[0] == pytest.approx([0.0, 0.03], abs=1e-12)
    assert got[1, 0] == pytest.approx(0.1 / 2.9)
    assert np.isnan(got[1, 1])
    with pytest.raises(ValueError, match=r"shape \(2,\), must be \(..., 3\)"):
        limits.voltage_unbalance_factor(np.ones(2))


# ---------------------------------------------------------------------------------------- settings


def test_limit_sets():
    assert limit_set(*limits.PRESETS).names == (
        "en_50160", "en_50160_always", "ansi_c84_1_a", "ansi_c84_1_b", "vuf", "vuf_ansi", "line_rating",
        "trafo_rating", "line_instantaneous", "trafo_instantaneous", "line_moving_average",
        "trafo_moving_average", "neutral_current", "hot_spot",
    )  # fmt: skip
    both = limits.en_50160(low=0.94) + own(high=1.2)
    assert both.criteria[0].low == 0.94
    assert limit_set(both, Criterion(name="mine", variable="v", low=0)).names[-1] == "mine"
    with pytest.raises(ValueError, match="limits = en50160: must be one of en_50160, ansi_c84_1_a"):
        limit_set("en50160")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "at least one of them is required"),
        ({"low": 1.1, "high": 0.9}, r"low = 1.1: must be less than high = 0.9"),
        ({"high": 1, "moving": True}, "mean_over: is required where the mean is moving"),
        ({"high": 1, "moving": True, "mean_over": "1h", "allowed_share": 0.1}, "moving must be false"),
    ],
)
def test_faulty_criteria(given, message):
    with pytest.raises(ValidationError, match=message):
        own(**given)


def test_names_must_differ():
    with pytest.raises(ValidationError, match="line_rating, trafo_rating given twice"):
        limit_set("ratings", "ratings")


def test_the_interval_of_a_result():
    assert limits.interval_s(volts(3, 300)) == 300.0
    single = volts(1, 300)
    with pytest.raises(ResultError, match="one recording interval, whose length is unknown"):
        limits.interval_s(single)
    assert limits.interval_s(single.assign_attrs(scenario='{"time": {"duration": 900.0}}')) == 900.0
    with pytest.raises(ResultError, match="not evenly spaced"):
        limits.interval_s(volts(4, 300).isel(time=[0, 1, 3]))
