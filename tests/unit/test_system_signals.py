"""Synthetic signals, files, prices, emissions and events, and the model that gives them."""

import json

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from evgrid.core.model import Clock, MemoryRecorder
from evgrid.errors import ScenarioError
from evgrid.readers import series
from evgrid.readers.series import Series
from evgrid.readers.time_tables import Reading
from evgrid.scenario.fields import faults_of
from evgrid.scenario.system import REGA, REGD, EmissionsFile, Event, SyntheticRegulation, System, level_at
from evgrid.system import signals
from evgrid.system.model import SystemModel, market

DAY_S = 86400.0
START = np.datetime64("2026-01-15T12:00")


def clock_of(step_s, duration_s, start=START):
    return Clock(start, step_s, round(duration_s / step_s))


def run(settings, step_s, duration_s, members=range(1), seed=5, start=START):
    """Frequency and regulation of every tick, (tick, member), and the recorder."""
    clock, recorder = clock_of(step_s, duration_s, start), MemoryRecorder()
    model = SystemModel(System.model_validate(settings), clock, members, seed, recorder)
    steps = []
    for k in range(clock.ticks):
        steps.append({name: value.copy() for name, value in model.step(k * step_s, {}).items()})
    model.finish()
    return (
        np.array([s["system/frequency"] for s in steps]),
        np.array([s["system/regulation"] for s in steps]),
        recorder,
    )


SYNTHETIC = {"regulation": {"source": "synthetic"}}


def test_regd_is_neutral_in_every_quarter_hour_and_rega_is_not():
    regd = signals.statistics(signals.draw_day(REGD, 1, 0, 20_000), 2.0)
    rega = signals.statistics(signals.draw_day(REGA, 1, 0, 20_000), 2.0)
    assert regd.worst_energy_h < 1e-12
    assert rega.worst_energy_h > 0.05


def test_stated_statistics_are_what_comes_out():
    # the table of the module's text: standard deviation, mean size, mileage an hour
    for shape, expected in ((REGD, (0.50, 0.41, 16.0)), (REGA, (0.44, 0.36, 5.2))):
        days = np.concatenate([signals.draw_day(shape, 3, 0, 20_000 + k) for k in range(12)])
        found = signals.statistics(days, shape.step_s)
        np.testing.assert_allclose((found.spread, found.mean_size, found.mileage_per_h), expected, rtol=0.07)


def test_spectrum_is_the_stated_one():
    # before the cut: a spread so small that nothing is cut, and no neutrality
    shape = signals.Shape(60.0, 300.0, 0.05, None, 2.0)
    days = np.array([signals.draw_day(shape, 1, m, 20_000) for m in range(40)])
    power = (np.abs(np.fft.rfft(days, axis=1)) ** 2).mean(axis=0)
    f = np.fft.rfftfreq(days.shape[1], 2.0)
    low, high = 2 * np.pi * f * 60.0, 2 * np.pi * f * 300.0
    stated = (1 + low**2) ** -2 * high**2 / (1 + high**2)
    bands = [(1e-4, 3e-4), (3e-4, 1e-3), (1e-3, 3e-3), (3e-3, 1e-2), (1e-2, 2e-2)]
    ratio = [power[(f > a) & (f < b)].sum() / stated[(f > a) & (f < b)].sum() for a, b in bands]
    np.testing.assert_allclose(np.array(ratio) / ratio[2], 1.0, atol=0.12)
    assert days.std() == pytest.approx(0.05, rel=0.05)


def test_statistics_worked_by_hand():
    found = signals.statistics(np.array([1.0, 1.0, -1.0, -1.0, 0.0, 0.0, 0.5, 0.5]), 450.0, 1800.0)
    assert (found.mean, found.mean_size, found.at_limit) == (0.125, 0.625, 0.5)
    assert found.mileage_per_h == pytest.approx(3.5 / (7 * 450 / 3600))
    assert found.worst_energy_h == pytest.approx(0.125)
    assert found.swing_h == pytest.approx(0.25)


def test_a_tick_sees_the_mean_of_the_grid_over_it():
    _, fine, _ = run(SYNTHETIC, 2.0, 1200.0)
    _, finer, _ = run(SYNTHETIC, 1.0, 1200.0)
    _, coarse, _ = run(SYNTHETIC, 60.0, 1200.0)
    np.testing.assert_array_equal(finer[::2], fine)
    np.testing.assert_array_equal(finer[1::2], fine)
    np.testing.assert_allclose(coarse, fine.reshape(20, 30, 1).mean(axis=1), atol=1e-12)


def test_a_later_start_and_midnight_change_nothing():
    _, whole, _ = run(SYNTHETIC, 4.0, 7200.0, start=np.datetime64("2026-01-15T23:00"))
    _, late, _ = run(SYNTHETIC, 4.0, 3600.0, start=np.datetime64("2026-01-16T00:00"))
    np.testing.assert_array_equal(whole[900:], late)
    _, across, _ = run(SYNTHETIC, 4.0, 600.0, start=np.datetime64("2026-01-15T23:59:58"))
    _, finer, _ = run(SYNTHETIC, 2.0, 600.0, start=np.datetime64("2026-01-15T23:59:58"))
    np.testing.assert_allclose(across, finer.reshape(150, 2, 1).mean(axis=1), atol=1e-12)
    assert np.abs(np.diff(finer[:, 0])).max() < 0.1  # smooth over midnight


def test_member_alone_is_the_member_in_the_ensemble():
    _, many, _ = run(SYNTHETIC, 4.0, 400.0, members=range(10, 15))
    _, alone, _ = run(SYNTHETIC, 4.0, 400.0, members=range(13, 14))
    np.testing.assert_array_equal(many[:, 3:4], alone)
    assert np.abs(many[:, 0] - many[:, 1]).max() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neutral": 700}, "neutral = 700s: must divide a day and be a multiple of step = 2s"),
        ({"neutral": 1350, "step": 4}, "neutral = 1350s: must divide a day and be a multiple of step = 4s"),
        ({"step": 3}, "step = 3: must be 2 or 4"),
        ({"slow": "2h"}, "must be at most 3600"),
        ({"spread": 0}, "spread = 0: must be greater than 0"),
    ],
)
def test_synthetic_settings_at_fault(settings, message):
    with pytest.raises(ValidationError) as caught:
        SyntheticRegulation.model_validate(settings)
    assert any(message in text for text in faults_of(caught.value, SyntheticRegulation))


# ---- files ---------------------------------------------------------------------------------------


def test_replayed_regulation_in_seconds_and_timestamps(tmp_path):
    file = tmp_path / "signal.csv"
    file.write_text("# a comment\ntime,regulation\n0,0.5\n4,-0.5\n8,1\n12,0\n")
    settings = {"regulation": {"file": str(file)}}
    _, found, recorder = run(settings, 4.0, 16.0)
    assert found[:, 0].tolist() == [0.5, -0.5, 1.0, 0.0]
    assert recorder.series("regulation_signal")[:, 0].tolist() == [0.5, -0.5, 1.0, 0.0]
    _, found, _ = run(settings, 2.0, 16.0)
    assert found[:, 0].tolist() == [0.5, 0.5, -0.5, -0.5, 1.0, 1.0, 0.0, 0.0]
    _, found, _ = run(settings, 8.0, 16.0)
    assert found[:, 0].tolist() == [0.0, 0.5]
    file.write_text("time,other,regulation\n2026-01-15T11:59:58,9,0.1\n2026-01-15T12:00:00,9,0.2\n")
    _, found, _ = run({"regulation": {"file": str(file), "column": "regulation"}}, 2.0, 2.0)
    assert found[:, 0].tolist() == [0.2]


def test_replayed_frequency(tmp_path):
    file = tmp_path / "frequency.csv"
    file.write_text("time,hz\n0,50.0\n2,49.9\n4,50.1\n6,50.0\n")
    settings = {"nominal_hz": 50, "frequency": {"file": str(file)}}
    frequency, _, recorder = run(settings, 4.0, 8.0, members=range(2))
    assert frequency.tolist() == [[49.9, 49.9], [50.0, 50.0]]  # at the end of the tick
    np.testing.assert_allclose(recorder.series("frequency_hz")[:, 0], [49.95, 50.05])  # mean over it
    assert not recorder.static


def test_droop_product_on_a_replayed_frequency(tmp_path):
    file = tmp_path / "frequency.csv"
    file.write_text("time,hz\n0,50.0\n2,49.9\n4,50.1\n6,49.7\n")
    settings = {
        "nominal_hz": 50,
        "frequency": {"file": str(file)},
        "regulation": {"source": "product", "product": "fcr"},
    }
    _, found, _ = run(settings, 2.0, 8.0)
    np.testing.assert_allclose(found[:, 0], [0.0, 0.5, -0.5, 1.0], atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,r\n0,0\n4,1.5\n8,0\n", "line 3: r = 1.5: must be a regulation signal from -1 to 1"),
        ("time,r\n0,0\n4,nan\n8,0\n", "line 3: r = nan: must be a regulation signal"),
        ("time,r\n0,0\n4,\n8,0\n", "line 3: r = nothing: must be a regulation signal"),
        ("time,r\n0,0\nsoon,0\n8,0\n", "line 3: time = soon: must be a time such as"),
        ("time,r\n2026-01-15T12:00Z,0\n2026-01-15T12:01,0\n", "12:00Z: must be local time without a zone"),
        ("time,r\n0,0\n8,0\n4,0\n", "line 4: time must be after the line before"),
        ("time,r\n0,0\n4,0\n4,0\n", "line 4: time must be after the line before"),
        ("time,r\n0,0\n4,0\n8,0\n16,0\n20,0\n", "line 5: gap of 8 s from the line before: must be 4 s"),
        ("time,r\n0,0\n4,0\n8,0\n10,0\n14,0\n", "line 5: step of 2 s from the line before: must be 4 s"),
        ("time,r\n0,0\n60,0\n120,0\n", "has a step of 60 s: must be at most 10 s"),
        ("time,r\n4,0\n8,0\n12,0\n", "covers 2026-01-15T12:00:04 to 2026-01-15T12:00:16: must cover the run"),
        ("time,r\n0,0\n4,0\n", "must cover the run, 2026-01-15T12:00:00 to 2026-01-15T12:00:12"),
        ("time,r\n0,0,0\n4,0\n8,0\n", "line 2: has 3 values: must have 2"),
        ("time,r\n0,0\n", "has 1 rows: must have a header and at least two rows"),
        ("", "is empty: the first line must name the columns"),
        ("when,r\n0,0\n4,0\n", "there is no column 'time'; there are when, r"),
        ("time,a,b\n0,0,0\n4,0,0\n", "must have one column besides 'time', not 2"),
    ],
)  # fmt: skip
def test_files_at_fault(tmp_path, text, message):
    file = tmp_path / "signal.csv"
    file.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        series.read_series(file, clock_of(4.0, 12.0), series.REGULATION)
    assert any(message in fault for fault in caught.value.faults), caught.value.faults


def autumn(tmp_path):
    """Rates of WattTime that name their hour in UTC, every 30 min over the change of 2 November 2025."""
    file = tmp_path / "moer.json"
    stamps = pd.date_range("2025-11-01T00:00Z", "2025-11-03T12:00Z", freq="30min", inclusive="left")
    points = [{"point_time": s.isoformat(), "value": 100 * s.day + s.hour + s.minute / 60} for s in stamps]
    file.write_text(json.dumps({"data": points, "meta": {"units": "lbs_co2_per_mwh"}}))
    return file


def test_watttime_over_the_change_of_the_clocks(tmp_path):
    file, zone = autumn(tmp_path), "America/Los_Angeles"
    # a run before the change: 01:00 PDT is 08:00Z
    clock = clock_of(1800.0, 6 * 3600.0, np.datetime64("2025-11-01T00:00"))
    found = series.read_emissions(file, clock, zone)
    assert found.mean(3600.0, 5400.0) == pytest.approx(108 * 0.45359237)
    source = EmissionsFile.model_validate({"file": str(file), "timezone": zone})
    assert source.note(clock) == ""
    # over it: 01:00 PDT, 08:00Z, is read once; then comes 02:00 PST, 10:00Z
    clock = clock_of(1800.0, 6 * 3600.0, np.datetime64("2025-11-02T00:00"))
    found = series.read_emissions(file, clock, zone)
    hours = [float(found.mean(1800.0 * k, 1800.0 * (k + 1))) / 0.45359237 for k in range(6)]
    assert hours == pytest.approx([207, 207.5, 208, 208.5, 210, 210.5])
    assert source.note(clock).startswith(f"clocks change in the run ({zone}, 2025-11-02T02:00)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["data"].__setitem__(3, None),
            "point 4: point_time = nothing: must be a time with its zone",
        ),
        (
            lambda d: d["data"][3].update(point_time="2025-11-01T01:30"),
            "point 4: point_time = 2025-11-01T01:30",
        ),
        (lambda d: d["data"][3].update(point_time="0001-01-01T00:00+23:00"), "point_time = 0001-01-01"),
        (lambda d: d["data"][3].update(point_time="9999-12-31T23:59-23:00"), "point_time = 9999-12-31"),
        (lambda d: d["data"][3].update(value=10**400), "value = 1000"),
        (lambda d: d["data"][3].update(value="1"), "point 4: value = 1: must be a emission rate"),
        (lambda d: d["data"].reverse(), "point 2: time must be after the point before"),
        (lambda d: d.update(data={}), "must be an object with a list data"),
        (lambda d: d.update(data=[]), "has 0 rows"),
        (lambda d: d["meta"].update(units="kg"), "meta.units = kg: must be lbs_co2_per_mwh"),
    ],
)
def test_watttime_at_fault(tmp_path, change, message):
    file = autumn(tmp_path)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    clock = clock_of(1800.0, 6 * 3600.0, np.datetime64("2025-11-01T00:00"))
    with pytest.raises(ScenarioError) as caught:
        series.read_emissions(file, clock, "America/Los_Angeles")
    assert message in str(caught.value)
    assert len(caught.value.faults) <= 21


def test_series_in_other_dress_are_the_same(tmp_path):
    expected = None
    clock = clock_of(3600.0, 2 * DAY_S, np.datetime64("2026-01-05T00:00"))
    stamps = pd.date_range("2026-01-05", periods=48, freq="h")
    values = np.round(np.linspace(-20.0, 35.5, 48), 2)
    for form, separator, decimal in (
        (None, ",", "."), (None, ";", ","), ("%d.%m.%Y %H:%M", ";", ","), ("%m/%d/%Y %I:%M %p", "\t", ","),
    ):  # fmt: skip
        file = tmp_path / "t.csv"
        frame = pd.DataFrame({"time": stamps.strftime(form or "%Y-%m-%dT%H:%M"), "value": values})
        frame.to_csv(file, sep=separator, decimal=decimal, index=False)
        found = series.read_series(file, clock, series.PRICE, reading=Reading(time_format=form))
        expected = expected or found
        np.testing.assert_array_equal(found.edges_s, expected.edges_s)
        np.testing.assert_array_equal(found.values, values)
        if form:
            with pytest.raises(ScenarioError, match="state the form of the times"):
                series.read_series(file, clock, series.PRICE)
    pd.DataFrame({"time": stamps, "value": values}).to_parquet(tmp_path / "t.parquet")
    found = series.read_series(tmp_path / "t.parquet", clock, series.PRICE)
    np.testing.assert_array_equal(found.edges_s, expected.edges_s)


def test_all_faults_of_a_file_at_once(tmp_path):
    file = tmp_path / "signal.csv"
    file.write_text("time,r\n0,2\n4,x\n8,0\nnever,0\n")
    with pytest.raises(ScenarioError, match="3 faults") as caught:
        series.read_series(file, clock_of(4.0, 12.0), series.REGULATION)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["line 2", "line 3", "line 5"]
    file.write_text("time,r\n" + "0,2\n" * 50)
    with pytest.raises(ScenarioError, match="and 30 more"):
        series.read_series(file, clock_of(4.0, 12.0), series.REGULATION)


def test_column_that_is_not_there(tmp_path):
    file = tmp_path / "signal.csv"
    file.write_text("time,a,b\n0,0,0\n4,0,0\n")
    with pytest.raises(ScenarioError, match="there is no column 'c'; there are a, b"):
        series.read_series(file, clock_of(4.0, 4.0), series.REGULATION, "c")


def test_frequency_out_of_range(tmp_path):
    file = tmp_path / "frequency.csv"
    file.write_text("time,hz\n0,60\n4,0\n")
    with pytest.raises(ScenarioError, match=r"line 3: hz = 0: must be a frequency from 54 to 66 Hz"):
        series.read_series(file, clock_of(4.0, 4.0), series.frequency_rules(60.0))


# ---- prices, emissions, events -------------------------------------------------------------------


def test_market_series_are_recorded(tmp_path):
    (tmp_path / "price.csv").write_text("time,lmp\n2026-01-15T12:00,30\n2026-01-15T13:00,-5\n")
    (tmp_path / "moer.csv").write_text("time,kg\n0,400\n1800,500\n3600,300\n")
    settings = {
        "energy_price": {"file": str(tmp_path / "price.csv")},
        "emissions": {"file": str(tmp_path / "moer.csv")},
        "events": [{"name": "hot", "start": "2026-01-15T12:30", "duration": "30min", "level": 2}],
    }
    _, _, recorder = run(settings, 900.0, 5400.0)
    assert recorder.series("energy_price_per_mwh").tolist() == [30] * 4 + [-5] * 2
    assert recorder.series("emission_rate_kg_per_mwh").tolist() == [400, 400, 500, 500, 300, 300]
    assert recorder.series("event_level").tolist() == [0, 0, 2, 2, 0, 0]
    mean = market(System.model_validate(settings), clock_of(900.0, 5400.0))["energy_price_per_mwh"]
    assert mean(1800.0, 5400.0) == pytest.approx(12.5)


def test_watttime_in_utc_and_pounds(tmp_path):
    file = tmp_path / "moer.json"
    points = [
        {"point_time": f"2026-01-15T{hour:02}:00:00+00:00", "value": 1000.0 + 100 * hour}
        for hour in range(19, 23)
    ]
    file.write_text(json.dumps({"data": points, "meta": {}}))
    found = series.read_emissions(
        file, clock_of(3600.0, 7200.0), "America/Los_Angeles"
    )  # noon there is 20 UTC
    assert found.mean(0.0, 3600.0) == pytest.approx(3000 * 0.45359237)
    assert found.mean(3600.0, 7200.0) == pytest.approx(3100 * 0.45359237)
    with pytest.raises(ScenarioError, match="timezone: is required"):
        series.read_emissions(file, clock_of(3600.0, 7200.0))
    file.write_text('{"points": []}')
    with pytest.raises(ScenarioError, match="is no WattTime file"):
        series.read_emissions(file, clock_of(3600.0, 7200.0), "UTC")
    points[1]["value"] = -1.0
    file.write_text(json.dumps({"data": points}))
    with pytest.raises(
        ScenarioError, match="point 2: value = -1: must be a emission rate|point 2: value = -1"
    ):
        series.read_emissions(file, clock_of(3600.0, 7200.0), "UTC")


def test_of_events_at_once_the_first_in_priority_holds():
    def event(name, priority, level, start="2026-01-15T12:00"):
        return Event(name=name, start=start, duration="1h", priority=priority, level=level)

    clock = clock_of(900.0, 86400.0)
    events = (event("a", 1, 3), event("b", 0, 1), event("c", 0, 2, "2026-01-15T12:30"))
    assert [level_at(events, clock, t) for t in (0, 1799, 1800, 3600, 5400)] == [1, 1, 2, 2, 0]


# ---- settings ------------------------------------------------------------------------------------


def test_defaults_give_nominal_frequency_and_no_signal():
    frequency, regulation, recorder = run({}, 4.0, 40.0, members=range(3))
    assert (frequency == 60.0).all()
    assert (regulation == 0.0).all()
    assert recorder.series("frequency_hz").shape == (10, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"regulation": {"source": "agc"}},
            "system.regulation.source = agc: needs system.frequency.source = lfc",
        ),
        (
            {"regulation": {"source": "product", "product": "ffr"}},
            "product = ffr: must be one of afrr, caiso",
        ),
        (
            {"regulation": {"source": "product", "product": "fcr"}},
            "system.regulation.product = fcr: is for 50 Hz, system.nominal_hz is 60",
        ),
        ({"regulation": {"source": "product", "product": "afrr"}}, "must be a product driven by frequency"),
        ({"frequency": {"source": "lfc", "droops": 1}}, "frequency.droops: unknown key"),
        ({"frequency": {"source": "lfc", "droop": 0}}, "frequency.droop = 0: must be greater than 0"),
        ({"frequency": {"source": "lfc", "disturbances": [{"time": 0}]}}, "give either mw or pu"),
        ({"frequency": {"source": "wind"}}, "frequency: source must be one of lfc, constant; or give a file"),
        (
            {"regulation": {"source": "x"}},
            "regulation: source must be one of synthetic, agc, product, openadr, none",
        ),
        ({"regulation": {"source": "agc", "file": "x"}}, "regulation.file: unknown key"),
        ({"emissions": {"file": __file__, "timezone": "Mars"}}, "must be the name of a time zone"),
        ({"regulation": {"file": "nowhere.csv"}}, "there is no file nowhere.csv"),
    ],
)
def test_settings_at_fault(settings, message):
    with pytest.raises(ValidationError) as caught:
        System.model_validate(settings)
    found = faults_of(caught.value, System)
    assert any(message in text for text in found), found


def test_settings_survive_a_round_trip():
    settings = System.model_validate(
        {
            "nominal_hz": 50,
            "frequency": {"source": "lfc", "disturbances": [{"time": "1min", "mw": 10}]},
            "regulation": {"source": "product", "product": {"name": "fcr", "deadband_hz": 0.0}},
        }
    )
    assert System.model_validate_json(settings.model_dump_json(exclude_none=True)) == settings
    assert settings.regulation.product.deadband_hz == 0.0


@pytest.mark.parametrize("begin_s", [0.0, -7200.0, 1800.0])
def test_a_forecast_beyond_a_series_is_its_last_day_again(begin_s):
    """Two days by the hour: value k in hour k. Beyond them come hours 24 to 47 again and again."""
    known = Series(begin_s + 3600.0 * np.arange(49), np.arange(48.0))
    longer = known.until(begin_s + 3600.0 * 100)
    hours = np.arange(100)
    expected = np.where(hours < 48, hours, 24 + hours % 24)
    np.testing.assert_allclose(longer.means(begin_s + 3600.0 * np.arange(101)), expected)
    assert known.until(begin_s + 3600.0 * 48) is known


def test_a_forecast_beyond_less_than_a_day_is_the_last_value():
    known = Series(np.array([0.0, 3600.0, 7200.0]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(known.until(4 * 3600.0).means(3600.0 * np.arange(5)), [1, 2, 2, 2])


def test_a_value_that_holds_into_the_last_day_is_part_of_it():
    """1 until 6:00 of the second day, then 2: of the last day 6 hours are 1, 18 are 2."""
    known = Series(3600.0 * np.array([0, 30, 48]), np.array([1.0, 2.0]))
    means = known.until(3600.0 * 72).means(3600.0 * np.array([48, 54, 72]))
    np.testing.assert_allclose(means, [1.0, 2.0])


def test_faults_of_all_files_are_reported_together(tmp_path):
    from evgrid.runs.simulation import run
    from evgrid.scenario import scenario_from

    for name in ("load", "cars", "price", "weather"):
        (tmp_path / f"{name}.csv").write_text("time,here\n2026-01-15T12:00,soon\n")
    content = {
        "name": "test",
        "time": {"start": "2026-01-15T12:00", "duration": "1h", "step": "5min"},
        "feeder": {
            "network": "case33bw", "base_load": {"file": str(tmp_path / "load.csv")},
            "transformer_ageing": {"ambient": {"file": str(tmp_path / "weather.csv")}},
        },
        "fleet": {"sessions": {"file": str(tmp_path / "cars.csv")}, "charger": {"phases": 3}},
        "communication": {"telemetry": "5min"},
        "system": {"energy_price": {"file": str(tmp_path / "price.csv")}},
    }  # fmt: skip
    with pytest.raises(ScenarioError) as caught:
        run(scenario_from(content))
    files = {fault.split(".csv: ")[0].rsplit("/")[-1] for fault in caught.value.faults}
    assert files == {"load", "cars", "price", "weather"}
    content["feeder"]["base_load"] = {"source": "net"}
    content["fleet"] = {"count": 1, "charger": {"phases": 3}}
    with pytest.raises(ScenarioError) as caught:
        run(scenario_from(content))
    files = {fault.split(".csv: ")[0].rsplit("/")[-1] for fault in caught.value.faults}
    assert files == {"price", "weather"}


def test_validate_reads_what_a_run_reads_and_says_that_clocks_change(tmp_path):
    from evgrid.runs.simulation import build_world, check_files
    from evgrid.scenario import scenario_from

    german = tmp_path / "german.csv"
    german.write_text("time;c\n02.11.2025 00:00;5\n03.11.2025 00:00;6\n")
    content = {
        "name": "test",
        "time": {"start": "2025-11-02T00:00", "duration": "6h", "step": "1h"},
        "feeder": {"network": "case33bw", "transformer_ageing": {"ambient": {"file": str(german)}}},
        "communication": {"telemetry": "1h"},
        "system": {
            "emissions": {"file": str(autumn(tmp_path)), "timezone": "America/Los_Angeles"},
            "energy_price": {"file": str(german), "time_format": "%d.%m.%Y"},
        },
    }
    world = build_world(scenario_from(content))
    assert [note for note in world.notes if note.startswith("clocks change in the run (America/Los_Angeles")]
    with pytest.raises(ScenarioError, match=r"german.csv: 3 faults") as caught:
        check_files(world.scenario)
    assert (
        "must be a time of the form %d.%m.%Y" in caught.value.faults[0]
    )  # the price's lacks the time of day
    assert "02.11.2025 00:00: is not ISO 8601" in caught.value.faults[2]
