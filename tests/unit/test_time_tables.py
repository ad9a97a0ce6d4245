# ruff: noqa: E501
"""Time series as utilities export them: kW worked out by hand, and each fault with its place."""

from datetime import timedelta

import numpy as np
import pandapower as pp
import pandas as pd
import pytest

from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import base_load
from evgrid.feeder.networks import load_network
from evgrid.readers.series import SITE_POWER, read_series, read_series_with_account
from evgrid.runs.simulation import build_world, run
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import checked
from evgrid.scenario.time_series import PowerSeries

BERLIN = {"tz": "Europe/Berlin"}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """Two houses of 3 and 2 kW at 0.4 kV."""
    net = pp.create_empty_network(f_hz=50)
    mv, lv = pp.create_bus(net, 10.0), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, mv)
    pp.create_transformer_from_parameters(net, mv, lv, 0.1, 10.0, 0.4, 1.0, 4.0, 0.0, 0.0)
    pp.create_load(net, lv, 0.003, name="House 1")
    pp.create_load(net, lv, 0.002, name="House 2")
    path = tmp_path_factory.mktemp("net") / "net.json"
    pp.to_json(net, str(path))
    return path


def scenario(net, start, hours, step="15min", **base):
    return scenario_from(
        {
            "name": "street",
            "time": {"start": start, "duration": f"{hours}h", "step": step},
            "feeder": {"network": str(net), "base_load": base},
        }
    )


def power(net, start, hours, step="15min", **base):
    """kW of both houses at each step, (step, 2)."""
    settings = scenario(net, start, hours, step, **base)
    load = base_load(settings, load_network(settings.feeder))
    step_s = settings.feeder_step_s
    return load.at(np.arange(0, hours * 3600.0, step_s))[0][:, 0, :, 0]


def wall_times(first, last, zone="Europe/Berlin", minutes=15):
    """Wall times of a zone from one local midnight to another, as its clocks show them."""
    span = pd.date_range(first, last, freq=f"{minutes}min", tz=zone, inclusive="left")
    return span.tz_localize(None)


# ---- three exports as they are published by utilities --------------------------------------------


def test_kwh_of_a_quarter_hour_over_both_changes_of_the_clocks(net, tmp_path):
    """As a German portal exports it: semicolons, decimal commas, date and time in two columns, a line above.

    Row k of the year has k Wh, for the second house 1000 Wh more; its kW is four times that.
    """
    times = wall_times("2026-01-01", "2027-01-01")
    assert len(times) == 365 * 96  # 92 quarter-hours on 29 March, 100 on 25 October
    lines = ["Lastgang 2026;;;", "Datum;Uhrzeit;DE001 (kWh);DE002 (kWh)"]
    for k, time in enumerate(times):
        kwh = [f"{int(wh) // 1000},{int(wh) % 1000:03d}" for wh in (k, k + 1000)]
        lines.append(f"{time:%d.%m.%Y;%H:%M};{kwh[0]};{kwh[1]}")
    path = tmp_path / "export.csv"
    path.write_text("\n".join(lines), encoding="cp1252")
    base = {
        "file": str(path), "header": 2, "encoding": "cp1252", "decimal": ",", "time_format": "%d.%m.%Y %H:%M",
        "columns": {"time": ["Datum", "Uhrzeit"]}, **BERLIN,
        "names": {"House 1": "DE001 (kWh)", "House 2": "DE002 (kWh)"},
    }  # fmt: skip
    # 29 March is day 87: until 2:00 CET rows 87 * 96 …, then 3:00 follows at once; 2:00 holds that of 1:45
    first = 87 * 96
    rows = [*range(first, first + 8), *[first + 7] * 4, *range(first + 8, first + 92)]
    found = power(net, "2026-03-29", 24, **base)
    assert found[:, 0] == pytest.approx(4e-3 * np.array(rows), rel=1e-9, abs=1e-9)
    assert found[:, 1] == pytest.approx(4e-3 * (np.array(rows) + 1000), rel=1e-9)
    # 25 October is day 297, 4 rows short since March: 2:00 to 3:00 twice, of which the first is the run's
    first = 297 * 96 - 4
    rows = [*range(first, first + 12), *range(first + 16, first + 100)]
    found = power(net, "2026-10-25", 24, **base)
    assert found[:, 0] == pytest.approx(4e-3 * np.array(rows), rel=1e-9, abs=1e-9)
    world = build_world(scenario(net, "2026-10-25", 24, **base))
    (note,) = [note for note in world.notes if note.startswith("feeder.base_load.file")]
    assert note == (
        "feeder.base_load.file: 35040 rows of 2 series read, 2026-01-01T00:00 to 2027-01-01T00:00, every 15 min; "
        "in kWh (by the columns' names); times of Europe/Berlin; dropped: the second 2026-10-25T02:00 (4 rows), "
        "an hour that comes twice; held: the value before over 2026-03-29T02:00, an hour that is skipped."
    )


def test_standard_time_of_ireland_is_that_of_winter(net, tmp_path):
    """The zone's database calls its summer time standard, and winter an hour less."""
    pd.DataFrame({"time": pd.date_range("2026-07-01", periods=48, freq="h"), "House 1": range(48),
                  "House 2": 0}).to_csv(tmp_path / "load.csv", index=False)  # fmt: skip
    base = {"file": str(tmp_path / "load.csv"), "tz": "Europe/Dublin", "times": "standard"}
    assert power(net, "2026-07-01T12:00", 1, **base)[:, 0] == pytest.approx(11.0)  # 12:00 IST is 11:00 GMT


@pytest.mark.parametrize("seed", range(3))
def test_of_shuffled_rows_the_hour_that_comes_twice_is_not_guessed(net, tmp_path, seed):
    times = wall_times("2026-10-24", "2026-10-27")
    table = pd.DataFrame({"time": times, "House 1": np.arange(len(times)), "House 2": 0})
    base = {"file": str(tmp_path / "load.csv"), **BERLIN}
    table.sample(frac=1.0, random_state=seed).to_csv(tmp_path / "load.csv", index=False)
    with pytest.raises(ScenarioError, match="is there twice, in no order: in Europe/Berlin .* give offset"):
        power(net, "2026-10-25", 24, **base)
    for ordered in (table, table[::-1]):
        ordered.to_csv(tmp_path / "load.csv", index=False)
        rows = [*range(96, 108), *range(112, 196)]
        assert power(net, "2026-10-25", 24, **base)[:, 0] == pytest.approx(np.array(rows))


def test_a_long_table_with_gaps_and_decimal_commas(net, tmp_path):
    """Rows of two meters in any order, W, labelled at the end of half hours; some are missing, one is
    empty."""
    watts = {  # end of the half hour: (meter a, meter b); None is missing, "" empty
        "00:30": ("1.000,5", "500,0"), "01:00": ("1.100,0", None), "01:30": ("", "700,0"),
        "02:00": ("1.300,0", "800,0"),
    }  # fmt: skip
    rows = [
        f"{meter};2026/01/15 {time};{cells[k]}"
        for k, meter in enumerate(("meter a", "meter b"))
        for time, cells in watts.items()
        if cells[k] is not None
    ]
    rows.insert(0, "another;2026/01/15 00:30;1,0")
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["Meter;End;Value", *rows[::2], *rows[1::2]]))
    base = {
        "file": str(path), "unit": "W", "decimal": ",", "time_format": "%Y/%m/%d %H:%M", "label": "end",
        "columns": {"time": "End", "name": "Meter", "value": "Value"},
        "names": {"House 1": "meter a", "House 2": "meter b"},
    }  # fmt: skip
    expected = {
        "hold": [[1.0005, 0.5], [1.1, 0.5], [1.1, 0.7], [1.3, 0.8]],
        "interpolate": [[1.0005, 0.5], [1.1, 0.6], [1.2, 0.7], [1.3, 0.8]],
    }
    for gaps, kw in expected.items():
        found = power(net, "2026-01-15", 2, "30min", gaps=gaps, **base)
        np.testing.assert_allclose(found, kw, rtol=1e-9)
    note = build_world(scenario(net, "2026-01-15", 2, "30min", gaps="hold", **base)).notes[-1]
    assert note == (
        "feeder.base_load.file: 8 rows of 2 series read, 2026-01-15T00:00 to 2026-01-15T02:00, every 30 min; in W "
        "(stated); filled by hold: 2 missing values of 2 series, at most 30 min in a row; not used: another."
    )
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-01-15", 2, "30min", **base)
    state = "fill it, or state gaps: hold, interpolate or same_hour"
    assert caught.value.faults == [
        f"House 1: gap of 30 min from 2026-01-15T01:00 to 2026-01-15T01:30 (line 7 is empty): {state}",
        f"House 2: gap of 30 min from 2026-01-15T00:30 to 2026-01-15T01:00: {state}",
    ]
    path.write_text("\n".join(["Meter;End;Value", *(row for row in rows if not row.endswith(";"))]))
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-01-15", 2, "30min", **base)
    assert caught.value.faults == [
        f"{house}: gap of 30 min from {begin} to {end}: fill it, or state gaps: hold, interpolate or same_hour"
        for house, begin, end in (
            ("House 1", "2026-01-15T01:00", "2026-01-15T01:30"),
            ("House 2", "2026-01-15T00:30", "2026-01-15T01:00"),
        )
    ]


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    """Hours of two months in a sheet each, kWh, of 2019: that of hour k is k / 10, or a quarter of it."""
    path = tmp_path_factory.mktemp("book") / "2019.xlsx"
    hours = pd.date_range("2019-01-01", "2019-03-01", freq="h", inclusive="left")
    whole = pd.DataFrame({"time": hours, "House 1 [kWh]": np.arange(len(hours)) / 10})
    whole["House 2 [kWh]"] = whole["House 1 [kWh]"] / 4
    with pd.ExcelWriter(path) as book:
        for month, rows in whole.groupby(whole["time"].dt.month):
            rows.to_excel(book, sheet_name=f"2019-{month:02d}", index=False)
    return path


def test_monthly_sheets_of_another_year(net, workbook):
    """3 February 2026, a Tuesday, is 5 February 2019: 365 weeks before; it is hour 35 * 24 of 2019."""
    found = power(net, "2026-02-03", 6, "1h", file=str(workbook), year=2019)
    hour = 35 * 24 + np.arange(6)
    np.testing.assert_allclose(found, np.stack([hour / 10, hour / 40], axis=1), rtol=1e-9)
    note = build_world(scenario(net, "2026-02-03", 6, "1h", file=str(workbook), year=2019)).notes[-1]
    assert note == (
        "feeder.base_load.file: 1416 rows of 2 sheets of 2 series read, 2025-12-30T00:00 to 2026-02-27T00:00, every "
        "1 h; in kWh (by the columns' names); 2019 stands for 2026, shifted by 365 weeks, so weekdays agree."
    )


def test_a_year_shifted_by_weeks_is_whole(net, workbook):
    """The file ends on 27 February 2026 by then; the next day is that of a week before, to the run's end."""
    found = power(net, "2026-02-26", 48, "1h", file=str(workbook), year=2019)
    hour = np.concatenate([58 * 24 + np.arange(24), 52 * 24 + np.arange(24)])
    np.testing.assert_allclose(found[:, 0], hour / 10, rtol=1e-9)


def test_the_account_is_kept_in_the_result(net, workbook):
    settings = scenario(net, "2026-02-03", 2, "1h", file=str(workbook), year=2019, sheets=["2019-02"])
    result = run(settings)
    assert "feeder.base_load.file: 672 rows of 2 series read, 2026-01-30T00:00 to" in result.attrs["notes"]
    assert result["base_load_kw"].values[0] == pytest.approx([1.25 * 84.0, 1.25 * 84.1], rel=1e-9)


def test_a_sheet_unlike_the_others_is_named(tmp_path):
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"time": [0], "kW": [1]}).to_excel(book, sheet_name="data", index=False)
        pd.DataFrame({"note": ["by hand"]}).to_excel(book, sheet_name="About", index=False)
    with pytest.raises(
        ScenarioError, match="sheet About has the columns note, the first one time, kW: must be"
    ):
        series(path)
    with pytest.raises(ScenarioError, match="has no sheet Data; there are data, About"):
        series(path, sheets=["Data"])


def test_a_fault_in_a_workbook_names_sheet_and_row(tmp_path):
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        for sheet, cells in (("Jan", [1.0, 2.0]), ("Feb", [3.0, "x"])):
            pd.DataFrame({"time": [0, 1], "kW": cells}).to_excel(book, sheet_name=sheet, index=False)
    with pytest.raises(ScenarioError, match="row 3 of sheet Feb: kW = x: must be a power in kW"):
        series(path)


# ---- zones ----------------------------------------------------------------------------------------


def series(path, start="2026-01-15", hours=1, column=None, **form):
    settings = scenario_from(
        {"name": "n", "time": {"start": start, "duration": f"{hours}h", "step": "15min"},
         "feeder": {"network": "european_lv"}}
    )  # fmt: skip
    reading = checked(PowerSeries, form, "form").reading
    return read_series(path, settings.clock, SITE_POWER, column, reading)


def written(path, times, values, name="kW", **more):
    lines = [",".join(["time", name, *more])]
    rows = zip(times, values, *more.values(), strict=True)
    path.write_text("\n".join([*lines, *(",".join(map(str, row)) for row in rows)]))
    return path


AUTUMN = wall_times("2026-10-24", "2026-10-26", minutes=30)


@pytest.mark.parametrize(
    "how", ["in order", "falling", "offset", "names", "utc", "standard", "zoned", "ends", "ends by the hour"]
)
def test_the_hour_that_comes_twice(tmp_path, how):
    """Half hour k from 24 October has k kW; the run's 2:00 is the first, row 52, and 3:00 is row 56."""
    path, values, form, more = tmp_path / "t.csv", np.arange(len(AUTUMN)), dict(BERLIN), {}
    times = [f"{t:%Y-%m-%dT%H:%M}" for t in AUTUMN]
    utc = pd.date_range("2026-10-23T22:00", periods=len(AUTUMN), freq="30min")
    summer = np.arange(len(AUTUMN)) < 54
    if how == "falling":
        times, values = times[::-1], values[::-1]
    elif how in ("offset", "names"):
        more = {"zone": np.where(summer, *(("+02:00", "+01:00") if how == "offset" else ("CEST", "CET")))}
        order = np.random.default_rng(1).permutation(len(times))
        times, values, more = np.array(times)[order], values[order], {"zone": more["zone"][order]}
        form["columns"] = {"offset": "zone"}
    elif how == "utc":
        times, form["times"] = [f"{t:%Y-%m-%dT%H:%M}" for t in utc], "utc"
    elif how == "standard":
        times, form["times"] = [f"{t + timedelta(hours=1):%Y-%m-%dT%H:%M}" for t in utc], "standard"
    elif how == "zoned":
        times = [f"{t}+02:00" if s else f"{t}+01:00" for t, s in zip(times, summer, strict=True)]
    elif how.startswith("ends"):
        shift = timedelta(minutes=30)
        ends = utc + shift
        if how == "ends":  # 2:00 (CEST, then CET), 3:00 once
            ends = ends.tz_localize("UTC").tz_convert("Europe/Berlin").tz_localize(None)
        else:  # 3:00 twice, 2:00 once
            ends = AUTUMN + shift
        times, form["label"] = [f"{t:%Y-%m-%dT%H:%M}" for t in ends], "end"
    found = series(written(path, times, values, **more), "2026-10-25", 24, "kW", **form)
    half_hours = found.means(1800.0 * np.arange(49))
    assert half_hours.tolist() == [48, 49, 50, 51, 52, 53, *range(56, 98)]


def test_the_hour_that_is_skipped_holds_the_value_before(tmp_path):
    times = wall_times("2026-03-29", "2026-03-30", minutes=60)
    path = written(tmp_path / "t.csv", [f"{t:%Y-%m-%dT%H:%M}" for t in times], np.arange(23))
    found = series(path, "2026-03-29", 24, **BERLIN).means(3600.0 * np.arange(25))
    assert found.tolist() == [0, 1, 1, *range(2, 23)]


def test_a_time_that_there_is_not_is_named_with_its_line(tmp_path):
    times = ["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-29T02:00", "2026-03-29T03:30"]
    path = written(tmp_path / "t.csv", times, range(4))
    with pytest.raises(ScenarioError) as caught:
        series(path, "2026-03-29T01:00", **BERLIN)
    assert caught.value.faults == [
        "line 4: time = 2026-03-29T02:00: there is no such time in Europe/Berlin, whose clocks skip it"
    ]


@pytest.mark.parametrize(("row", "words"), [(54, "once"), (None, "3 times")])
def test_an_hour_that_does_not_come_twice_is_named_with_its_lines(tmp_path, row, words):
    times = [f"{t:%Y-%m-%dT%H:%M}" for t in AUTUMN]
    times = times[:row] + times[row + 1 :] if row else [*times[:53], times[52], *times[53:]]
    path = written(tmp_path / "t.csv", times, range(len(times)))
    with pytest.raises(ScenarioError) as caught:
        series(path, "2026-10-25", 24, **BERLIN)
    lines = [54] if row else [54, 55, 57]
    assert caught.value.faults == [
        f"line {line}: time = 2026-10-25T02:00 is there {words}: in Europe/Berlin it comes twice then; give offset, or "
        "times: standard"
        for line in lines
    ]


def test_an_offset_of_another_season_is_named_with_its_line(tmp_path):
    path = written(
        tmp_path / "t.csv", ["2026-07-01T00:00", "2026-07-01T01:00"], [1, 2], zone=["+02:00", "+01:00"]
    )
    with pytest.raises(ScenarioError) as caught:
        series(path, "2026-07-01", 2, "kW", columns={"offset": "zone"}, **BERLIN)
    assert caught.value.faults == [
        "line 3: time = 2026-07-01T01:00 with zone = +01:00: Europe/Berlin has another offset then"
    ]


# ---- units, gaps, labels --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "kw"),
    [
        ("kWh", {}, 8.0), ("value (Wh)", {}, 8e-3), ("P_kW", {}, 2.0), ("x", {}, 2.0), ("x", {"unit": "MWh"}, 8e3),
        ("power [W]", {}, 2e-3), ("x", {"unit": "kWh", "scale": -0.5}, -4.0), ("Wärme kWh", {}, 8.0),
    ],
)  # fmt: skip
def test_units_stated_or_by_the_columns_name(tmp_path, name, form, kw):
    path = written(tmp_path / "t.csv", [0, 900, 1800, 2700], [2, 2, 2, 2], name)
    assert series(path, **form).values.tolist() == pytest.approx([kw] * 4, rel=1e-12)


def test_a_unit_that_the_name_contradicts_is_refused(tmp_path):
    path = written(tmp_path / "t.csv", [0, 900], [2, 2], "E (kWh)")
    with pytest.raises(ScenarioError, match=r"column 'E \(kWh\)' is in kWh by its name: must be unit = kW"):
        series(path, unit="kW")


def test_a_unit_that_nothing_states_is_said(tmp_path):
    path = written(tmp_path / "t.csv", [0, 3600], [2, 2], "x")
    clock = scenario_from({"name": "n", "time": {"start": "2026-01-15", "duration": "1h"},
                           "feeder": {"network": "european_lv"}}).clock  # fmt: skip
    _, account = read_series_with_account(path, clock, SITE_POWER)
    assert account.sentence() == (
        "2 rows read, 2026-01-15T00:00 to 2026-01-15T02:00, every 1 h; in kW (as neither unit nor a column's "
        "name says another)"
    )


def test_same_hour_is_that_of_the_nearest_day(tmp_path):
    hours = np.arange(96)
    values = [("" if h in (3, 26, 50) else h) for h in hours]
    path = written(tmp_path / "t.csv", 3600 * hours, values, name="kWh")
    found = series(path, hours=96, gaps="same_hour").values
    assert found[[3, 26, 50]].tolist() == [27, 2, 2]  # the day after; the days before
    assert np.delete(found, [3, 26, 50]).tolist() == np.delete(hours, [3, 26, 50]).tolist()


@pytest.mark.parametrize(
    ("form", "times", "values", "sentence"),
    [
        ({"gaps": "hold"}, [0, 900, 1800], ["", 1, 2], "gap of 15 min from 2026-01-15T00:00 to 2026-01-15T00:15, at an"),
        ({"gaps": "interpolate"}, [0, 900, 1800], [0, 1, ""], "interpolate has no value after it; state same_hour"),
        ({"gaps": "same_hour"}, [0, 900, 1800], [0, "", 1], "no day has a value at the time of 2026-01-15T00:15"),
        ({"gaps": "hold"}, [0, 900, 900, 1800], [0, 1, 2, 3], "line 4: time = 900: is there twice"),
        ({"gaps": "hold"}, [0, 900, 1000, 1800, 2700], range(5), "line 4: time = 1000: must be a whole number of 15 min"),
        ({"unit": "kWh"}, [0, 900, 3600], [0, 1, 2], "gap of 30 min from 2026-01-15T00:30 to 2026-01-15T01:00: fill it"),
        ({"unit": "kWh"}, [0, 900, 9e8], [0, 1, 2], "most of it is missing; is a year mistyped"),
        ({"columns": {"time": "when"}}, [0, 900], [0, 1], "there is no column 'when'; there are time, kW"),
        ({"gaps": "hold"}, [0, 0], [1, 2], "has one time only: must have at least two"),
        ({"tz": "Europe/Berlin"}, [0, 86400], [1, 2], "has intervals of 1 d: must be at most 1 h with tz"),
    ],
)  # fmt: skip
def test_files_at_fault(tmp_path, form, times, values, sentence):
    name = "E" if "unit" in form else "kW"
    path = written(tmp_path / "t.csv", times, values, name)
    with pytest.raises(ScenarioError) as caught:
        series(path, **form)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"times": "utc"}, "times = utc: needs tz, the time zone of the run's local time"),
        ({"columns": {"offset": "o"}}, "columns.offset: needs tz"),
        ({"columns": {"name": "meter"}}, "give both name and value, of a long table, or neither"),
        ({"tz": "Berlin"}, "must be the name of a time zone"),
        ({"gap": "hold"}, "gap: unknown key; did you mean 'gaps'"),
    ],
)
def test_forms_at_fault(form, sentence):
    with pytest.raises(ScenarioError) as caught:
        checked(PowerSeries, form, "form")
    assert sentence in str(caught.value)


def test_what_is_of_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"time": [0, 900], "kW": [1.0, 2.0]}).to_parquet(path)
    with pytest.raises(ScenarioError) as caught:
        series(path, separator=";", decimal=",", header=2, sheets=["a"], encoding="cp1252")
    assert len(caught.value.faults) == 5
    assert "separator = ;: is for CSV, not for .parquet" in caught.value.faults


def test_a_form_without_a_file_is_refused(net):
    with pytest.raises(ScenarioError, match="tz and gaps: is of a file: give a file, or leave it out"):
        scenario(net, "2026-01-15", 1, tz="Europe/Berlin", gaps="hold")


def test_series_of_others_are_a_fault_of_a_wide_file_without_names(net, tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("time,House 1,House 2,Total\n0,1,2,3\n3600,1,2,3\n")
    with pytest.raises(ScenarioError, match="column 'Total': there is no such load in the net"):
        power(net, "2026-01-15", 1, file=str(path))
    found = power(net, "2026-01-15", 1, file=str(path), names={"House 2": "Total"})
    assert found[0].tolist() == [1, 3]


def test_times_of_parquet_with_a_zone(tmp_path):
    path = tmp_path / "t.parquet"
    times = pd.date_range("2026-10-24T22:00", periods=25, freq="h", tz="UTC")
    pd.DataFrame({"time": times, "kW": np.arange(25.0)}).to_parquet(path)
    found = series(path, "2026-10-25", 24, **BERLIN).means(3600.0 * np.arange(25))
    assert found.tolist() == [0, 1, 2, *range(4, 25)]


def test_prices_and_temperatures_take_the_same_settings_and_are_accounted_for(net, tmp_path):
    """UTC prices of a platform, at 23:00 UTC for the run's midnight in Berlin, and Excel hours of °C with a gap."""
    times = pd.date_range("2026-01-14T23:00", periods=3, freq="h").strftime("%Y-%m-%dT%H:%M")
    written(tmp_path / "prices.csv", times, [50, 60, 70], "price")
    cold = pd.DataFrame({"time": [0, 3600, 7200], "t": [4.0, np.nan, 8.0]})
    cold.to_excel(tmp_path / "cold.xlsx", index=False)
    settings = scenario_from(
        {
            "name": "n",
            "time": {"start": "2026-01-15", "duration": "2h", "step": "15min"},
            "feeder": {
                "network": str(net), "base_load": {"source": "none"},
                "transformer_ageing": {"ambient": {"file": str(tmp_path / "cold.xlsx"), "gaps": "interpolate"}},
            },
            "tariff": {"name": "t", "currency": "EUR", "prices": {
                "file": str(tmp_path / "prices.csv"), "per": "MWh", "tz": "Europe/Berlin", "times": "utc"}},
        }
    )  # fmt: skip
    prices = settings.prices.drawn(0.0, 7200.0)
    assert prices.values.tolist()[:2] == pytest.approx([0.05, 0.06])
    assert prices.edges_s.tolist()[:3] == [0.0, 3600.0, 7200.0]
    notes = [note for note in build_world(settings).notes if ".file: " in note]
    assert notes == [
        "feeder.transformer_ageing.ambient.file: 3 rows read, 2026-01-15T00:00 to 2026-01-15T03:00, every 1 h; filled by "
        "interpolate: 1 missing values, at most 1 h in a row.",
        "tariff.prices.file: 3 rows read, 2026-01-15T00:00 to 2026-01-15T03:00, every 1 h; times of UTC, on the clock of "
        "Europe/Berlin.",
    ]


def test_names_and_meters_that_there_are_not(net, tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("time,meter,kW\n0,a,1\n3600,a,1\n")
    base = {
        "file": str(path),
        "columns": {"name": "meter", "value": "kW"},
        "names": {"House 1": "a", "House 9": "b"},
    }
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-01-15", 1, **base)
    assert caught.value.faults == [
        "names.House 9: there is no such load here; did you mean House 2?",
        "names: column 'meter' has no 'b'",
        "column meter has no 'House 2': must have each load of the net; if they are called otherwise, state names; "
        "a file of some loads only goes to feeder.profiles.NAME.file, with at and of: load",
    ]


LONG = {"name": "Meter", "value": "E (kWh)"}


def meters(path, times, cells=("1",), encoding="utf-8"):
    """A long table of two meters, with two lines of title above."""
    rows = [f"{meter},{time},{cells[k % len(cells)]}" for meter in ("a", "b") for k, time in enumerate(times)]
    path.write_bytes("\n".join(["Südwall", "", "Meter,time,E (kWh)", *rows]).encode(encoding))
    return {"file": str(path), "header": 3, "columns": LONG, "names": {"House 1": "a", "House 2": "b"}}


@pytest.mark.parametrize(
    ("change", "cells", "sentence"),
    [
        ({}, ("1", "x"), "line 5: E (kWh) = x: must be an energy in kWh"),
        ({"header": 1}, ("1",), "the first line has 1 values, line 3 and 8 others have another number, such as 3: "
         "state header, the line that names the columns"),
    ],
)  # fmt: skip
def test_what_a_meter_file_needs_is_one_sentence(net, tmp_path, change, cells, sentence):
    base = meters(tmp_path / "m.csv", ["2026-01-15 00:00", "2026-01-15 01:00"] * 2, cells)
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-01-15", 1, **{**base, **change})
    assert sentence in caught.value.faults
    assert not change or caught.value.faults == [sentence]


def test_an_encoding_that_is_not_stated(net, tmp_path):
    base = meters(tmp_path / "m.csv", ["2026-01-15 00:00", "2026-01-15 01:00"], encoding="cp1252")
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-01-15", 1, **base)
    assert caught.value.faults == [
        "is no text in UTF-8 (byte 0xfc on line 1): save it as UTF-8, or state its encoding, such as encoding: cp1252"
    ]
    assert power(net, "2026-01-15", 1, encoding="cp1252", **base).tolist() == [[1, 1]] * 4


@pytest.mark.parametrize("minutes", [15, 60])
def test_the_hour_that_comes_twice_without_a_time_zone(net, tmp_path, minutes):
    times = wall_times("2026-10-25", "2026-10-26", minutes=minutes)
    base = meters(tmp_path / "m.csv", times)
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-10-25", 24, **base)
    again = 2 * 60 // minutes  # rows of both meters in the second of both hours
    assert caught.value.faults == [
        f"line {3 + 1 + 3 * 60 // minutes}: time = 2026-10-25 02:00:00: is there twice for a, and so are "
        f"{again - 1} other lines of that hour; if clocks change then, state tz, the time zone"
    ]
    assert power(net, "2026-10-25", 24, tz="Europe/Berlin", **base).shape == (96, 2)


def test_a_wide_table_of_the_hour_that_comes_twice_without_a_time_zone(net, tmp_path):
    times = wall_times("2026-10-25", "2026-10-26")
    path = tmp_path / "wide.csv"
    path.write_text("\n".join(["time,House 1,House 2", *(f"{time},1,2" for time in times)]))
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-10-25", 24, file=str(path))
    assert caught.value.faults == [
        "line 14: time must be after the line before; if clocks change then, state tz, the time zone"
    ]


def test_an_empty_cell_of_a_table_that_need_not_be_regular(net, tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("time,House 1,House 2\n0,1,2\n900,,2\n1800,1,2\n")
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-01-15", 0.5, file=str(path))
    assert caught.value.faults == ["line 3: House 1 = nothing: must be a power in kW; state gaps to fill it"]


def test_a_file_without_most_of_the_loads_is_one_sentence(net, tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("time,A (kW)\n0,1\n900,1\n")
    with pytest.raises(ScenarioError) as caught:
        power(net, "2026-01-15", 0.25, file=str(path))
    assert caught.value.faults[0] == (
        "columns 'House 1', 'House 2' are missing: must have one for each load of the net; if they are called "
        "otherwise, state names; a file of some loads only goes to feeder.profiles.NAME.file, with at and of: load"
    )
