"""PV of sites: position of the sun on the local clock, the PVWatts chain, weather files and their faults."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pvlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.weather import code, write_epw, write_pvgis

from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.scenario.sites import SitePv
from evgrid.solar.pv import PvPower
from evgrid.solar.weather import FileWeather, Place, sun_at, utc_of, weather_format

DAY = 86400.0
BERLIN = {"latitude": 52.52, "longitude": 13.405, "altitude": 40.0, "timezone": "Europe/Berlin"}
GREENSBORO = Path(pvlib.__file__).parent / "data" / "723170TYA.CSV"
"""TMY3 of Greensboro, North Carolina, that pvlib ships."""


def clock(start="2026-06-21T00:00", days=1.0):
    return Clock(np.datetime64(start), 60.0, round(days * 1440))


def pv(**more):
    return SitePv.model_validate({"kwp": 1.0, **BERLIN, **more})


def day_kw(settings, start="2026-06-21", count=1):
    """Power in the quarter-hours of some days."""
    return PvPower(settings, clock(start, count)).slots(0.0, count * DAY).kw[0].reshape(count, 96)


# ---- the sun on the local clock


def own_zenith(latitude, longitude, utc):
    """Zenith by the low-precision sun of the Astronomical Almanac (Michalsky 1988), unrefracted, degrees."""
    days = (utc - datetime(2000, 1, 1, 12)).total_seconds() / DAY
    anomaly = np.radians(357.528 + 0.9856003 * days)
    ecliptic = np.radians(280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    oblique = np.radians(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(oblique) * np.sin(ecliptic), np.cos(ecliptic))
    declination = np.arcsin(np.sin(oblique) * np.sin(ecliptic))
    sidereal_h = 6.697375 + 0.0657098242 * days + utc.hour + utc.minute / 60
    angle = np.radians(15 * sidereal_h + longitude) - ascension
    north = np.radians(latitude)
    cosine = np.sin(north) * np.sin(declination) + np.cos(north) * np.cos(declination) * np.cos(angle)
    return np.degrees(np.arccos(cosine))


@pytest.mark.parametrize(
    ("local", "utc", "zone", "latitude", "longitude"),
    [
        ("2026-06-21T13:30", "2026-06-21T11:30", "Europe/Berlin", 52.52, 13.405),
        ("2026-12-21T12:00", "2026-12-21T11:00", "Europe/Berlin", 52.52, 13.405),
        ("2026-03-29T10:00", "2026-03-29T08:00", "Europe/Berlin", 52.52, 13.405),
        ("2026-07-04T16:00", "2026-07-04T20:00", "America/New_York", 36.1, -79.95),
        ("2026-01-10T09:00", "2026-01-09T22:00", "Australia/Sydney", -33.87, 151.2),
    ],
)
def test_the_sun_is_where_the_local_clock_says(local, utc, zone, latitude, longitude):
    run = clock("2026-01-01", 366)
    local_s = float((np.datetime64(local) - run.start) / np.timedelta64(1, "s"))
    when = utc_of(np.array([local_s]), run, zone)
    assert when[0] == pd.Timestamp(utc, tz="UTC")
    found = sun_at(when, Place(latitude, longitude, 0.0)).zenith[0]
    assert found == pytest.approx(own_zenith(latitude, longitude, datetime.fromisoformat(utc)), abs=0.08)


def test_noon_moves_by_an_hour_when_the_clocks_change():
    power = day_kw(pv(), "2026-03-28", 3)
    hour = [(day @ (np.arange(96) + 0.5)) / day.sum() / 4 for day in power]
    assert hour[1] - hour[0] == pytest.approx(1.0, abs=0.02)
    assert hour[2] == pytest.approx(hour[1], abs=0.02)


# ---- the chain


def test_a_clear_day_is_that_of_pvlibs_own_model_chain():
    from pvlib.location import Location
    from pvlib.modelchain import ModelChain
    from pvlib.pvsystem import PVSystem
    from pvlib.temperature import TEMPERATURE_MODEL_PARAMETERS

    place = Location(52.52, 13.405, "Europe/Berlin", 40.0)
    system = PVSystem(
        surface_tilt=35, surface_azimuth=150, albedo=0.2,
        module_parameters={"pdc0": 6.0, "gamma_pdc": -0.004},
        inverter_parameters={"pdc0": 4.0 / 0.97, "eta_inv_nom": 0.97},
        temperature_model_parameters=TEMPERATURE_MODEL_PARAMETERS["sapm"]["open_rack_glass_glass"],
        losses_parameters=dict.fromkeys(
            ("shading", "snow", "mismatch", "wiring", "connections", "lid", "nameplate_rating", "age",
             "availability"), 0) | {"soiling": 10},
    )  # fmt: skip
    chain = ModelChain.with_pvwatts(system, place)
    times = pd.date_range("2026-05-10T00:01:30", periods=480, freq="180s", tz="Europe/Berlin")
    sky = place.get_clearsky(times, model="ineichen", linke_turbidity=3.5)
    chain.run_model(sky.assign(temp_air=12.0, wind_speed=1.0))
    expected = np.nan_to_num(chain.results.ac.to_numpy()).clip(0).reshape(96, 5).mean(axis=1)
    found = day_kw(
        pv(kwp=6, ac_kw=4, tilt=35, azimuth=150, turbidity=3.5, ambient=12, mounting="open_rack",
           temperature_coefficient=-0.004, losses=0.1, inverter_efficiency=0.97),
        "2026-05-10",
    )[0]  # fmt: skip
    assert found == pytest.approx(expected, abs=0.004)
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-3)
    assert found.max() == pytest.approx(4.0)


def test_a_year_gives_what_is_published_for_the_place():
    # NREL's 10 km data for North Carolina: 4.37 to 5.15 kWh/m2 a day on a plane tilted by the latitude;
    # performance ratios of PVWatts systems with 14 % losses lie between 0.72 and 0.82
    settings = SitePv(kwp=1, weather=GREENSBORO, timezone="America/New_York", tilt=36.1, mounting="open_rack")
    year = PvPower(settings, clock("2025-01-01", 365)).slots(0.0, 365 * DAY)
    assert 4.37 * 365 * 0.72 < year.kw.sum() / 4 < 5.15 * 365 * 0.82


@settings(max_examples=15)
@given(
    latitude=st.floats(-80, 80), longitude=st.floats(-180, 180), day=st.integers(0, 364),
    tilt=st.floats(0, 90), azimuth=st.floats(0, 360),
)  # fmt: skip
def test_power_is_within_the_rating_and_dark_at_night(latitude, longitude, day, tilt, azimuth):
    start = np.datetime64("2026-01-01") + day
    given = pv(latitude=latitude, longitude=longitude, tilt=tilt, azimuth=azimuth, ac_kw=0.6, timezone="UTC")
    power = day_kw(given, start)[0]
    assert ((power >= 0) & (power <= 0.6 + 1e-12)).all()
    moments = pd.date_range(start, periods=96, freq="15min", tz="UTC") + timedelta(minutes=7.5)
    zenith = sun_at(moments, Place(latitude, longitude, 40.0)).zenith
    assert (power[zenith > 96] == 0).all()


def test_east_gives_in_the_morning_and_the_north_side_of_the_south_at_noon():
    east, west = (day_kw(pv(azimuth=azimuth))[0] for azimuth in (90, 270))
    assert east[32] > 3 * west[32]
    assert west[76] > 3 * east[76]
    sydney = {"latitude": -33.87, "longitude": 151.2, "timezone": "Australia/Sydney"}
    assert day_kw(pv(**sydney, azimuth=0)).sum() > 2 * day_kw(pv(**sydney, azimuth=180)).sum()


@settings(max_examples=20)
@given(begin=st.floats(0, 2 * DAY), length=st.floats(60, DAY))
def test_a_span_has_the_values_of_the_whole(begin, length):
    whole = _whole().slots(0.0, 3 * DAY)
    part = PvPower(pv(), clock(days=3)).slots(begin, begin + length)
    middle = (part.edges_s[:-1] + part.edges_s[1:]) / 2
    assert part.edges_s[0] == begin
    assert part.edges_s[-1] == begin + length
    assert part.kw[0] == pytest.approx(whole.kw[0, (middle / 900).astype(int)], abs=1e-12)


def _whole(found=[]):  # noqa: B006 (computed once)
    if not found:
        found.append(PvPower(pv(), clock(days=3)))
    return found[0]


def test_neither_tick_nor_start_of_the_run_have_a_part_in_it():
    one = PvPower(pv(), clock("2026-06-21T00:00")).slots(36000.0, 43200.0)
    later = PvPower(pv(), Clock(np.datetime64("2026-06-21T09:50"), 1.0, 10_000)).slots(600.0, 7800.0)
    assert later.edges_s == pytest.approx(one.edges_s - 35400.0)
    assert later.kw == pytest.approx(one.kw, abs=1e-12)


def test_slots_of_another_length_have_the_same_energy():
    quarter = day_kw(pv())[0]
    minutes = PvPower(pv(slot="3min"), clock()).slots(0.0, DAY)
    assert minutes.kw.shape == (1, 480)
    assert minutes.kw[0].reshape(96, 5).mean(axis=1) == pytest.approx(quarter, abs=1e-12)


def test_ambient_temperature_takes_power():
    cold, warm = (day_kw(pv(ambient=t)).sum() for t in (0.0, 10.0))
    assert warm / cold == pytest.approx(1 - 10 * 0.0037, abs=0.005)


# ---- weather files


def temperature(file, local, zone="Europe/Berlin", start="2024-01-01", days=1100):
    """Temperature that a weather file gives at local times."""
    run = clock(start, days)
    weather = FileWeather(SitePv(kwp=1, weather=file, timezone=zone), run)
    local_s = (np.array(local, "datetime64[s]") - run.start).astype(np.float64)
    utc = utc_of(local_s, run, zone)
    sun = sun_at(utc, weather.place)
    return weather.at(local_s, utc, sun, np.floor(local_s / DAY).astype(np.int64)).temperature


def hour_of(month, day, hour):
    return int((datetime(2003, month, day) - datetime(2003, 1, 1)).days * 24 + hour)


def test_an_epw_is_taken_by_date_and_hour_of_its_standard_time(tmp_path):
    file = write_epw(tmp_path / "w.epw")
    cases = {
        "2026-01-15T08:30": (1, 15, 8),
        "2026-07-15T08:30": (7, 15, 7),  # summer time
        "2024-02-29T10:01": (2, 28, 10),  # the file has no leap day
        "2024-03-01T10:01": (3, 1, 10),
        "2024-12-31T23:59": (12, 31, 23),
        "2026-06-30T00:10": (6, 29, 23),
    }
    found = temperature(file, list(cases))
    assert found.tolist() == [code(hour_of(*case)) for case in cases.values()]


def test_a_pvgis_year_stands_for_the_hours_about_its_moments(tmp_path):
    file = write_pvgis(tmp_path / "tmy.csv")
    # 10:00 UTC stands for 9:40:34 to 10:40:34, as its irradiance is of 10:10:34
    found = temperature(
        file, ["2026-01-15T10:40", "2026-01-15T10:41", "2026-01-15T11:40", "2026-01-15T11:41"]
    )
    assert found.tolist() == [code(hour_of(1, 15, h)) for h in (9, 10, 10, 11)]
    found = temperature(file, ["2026-07-15T12:20"])
    assert found.tolist() == [code(hour_of(7, 15, 10))]


def test_pvgis_hours_of_years_are_of_their_own_time(tmp_path):
    file = write_pvgis(tmp_path / "h.csv", 2023, typical=False, count=3 * 8760, minute=10)
    found = temperature(file, ["2024-02-29T12:30", "2024-07-01T12:30"], start="2024-01-01", days=200)
    since = [
        (datetime(2024, 2, 29, 11) - datetime(2023, 1, 1)),
        (datetime(2024, 7, 1, 10) - datetime(2023, 1, 1)),
    ]
    assert found.tolist() == [code(d.total_seconds() / 3600) for d in since]


def test_a_leap_year_of_a_file_is_skipped_in_other_years(tmp_path):
    file = write_pvgis(tmp_path / "h.csv", 2020, typical=False, count=8784, minute=30)
    found = temperature(file, ["2024-02-29T12:30", "2026-02-28T12:30", "2026-03-01T12:30"])
    begin = datetime(2020, 1, 1)
    expected = [datetime(2020, 2, 29, 11), datetime(2020, 2, 28, 11), datetime(2020, 3, 1, 11)]
    assert found.tolist() == [code((when - begin).total_seconds() / 3600) for when in expected]


def test_the_place_is_the_files_unless_given(tmp_path):
    file = write_epw(tmp_path / "w.epw")
    own = FileWeather(SitePv(kwp=1, weather=file, timezone="UTC"), clock()).place
    assert own == Place(52.52, 13.4, 40.0)
    other = FileWeather(pv(weather=file, latitude=10, longitude=20, altitude=None), clock()).place
    assert other == Place(10.0, 20.0, 40.0)
    greensboro = FileWeather(SitePv(kwp=1, weather=GREENSBORO, timezone="UTC"), clock()).place
    assert greensboro == Place(36.1, -79.95, 273.0)


def test_formats_are_told_by_name_and_first_lines(tmp_path):
    assert weather_format(write_epw(tmp_path / "w.epw")) == "EPW"
    assert weather_format(write_epw(tmp_path / "w.csv")) == "EPW"
    assert weather_format(write_pvgis(tmp_path / "p.csv")) == "PVGIS"
    assert weather_format(GREENSBORO) == "TMY3"
    (tmp_path / "t.csv").write_text("time,ghi\n")
    assert weather_format(tmp_path / "t.csv") == weather_format(tmp_path / "t.parquet") == "table"


def table(path, times=None, **columns):
    times = pd.date_range("2026-06-21", periods=24, freq="h") if times is None else times
    frame = pd.DataFrame({"time": times.strftime("%Y-%m-%dT%H:%M"), **columns})
    frame.to_csv(path, index=False)
    return path


def sampled(file, **more):
    """Weather of a file at every third minute of a day, and the sun."""
    run = clock()
    weather = FileWeather(pv(weather=file, **more), run)
    local_s = np.arange(90.0, DAY, 180.0)
    utc = utc_of(local_s, run, "Europe/Berlin")
    sun = sun_at(utc, weather.place)
    return weather.at(local_s, utc, sun, np.zeros(480, np.int64)), sun


def test_an_hour_of_a_table_keeps_its_radiation_where_the_sun_rises_in_it(tmp_path):
    dni, dhi = np.full(24, 120.0), np.full(24, 40.0)
    weather, sun = sampled(table(tmp_path / "t.csv", ghi=dhi, dni=dni, dhi=dhi))
    up = (sun.zenith < 90).reshape(24, 20).any(axis=1)
    partly = up & (sun.zenith > 90).reshape(24, 20).any(axis=1)
    assert partly.sum() == 2  # sunrise and sunset
    for values, expected in ((weather.dni, 120.0), (weather.dhi, 40.0)):
        assert values.reshape(24, 20).mean(axis=1)[up] == pytest.approx(np.full(up.sum(), expected))
        assert (values.reshape(24, 20)[~up] == 0).all()


def test_global_radiation_alone_is_split_and_kept(tmp_path):
    weather, sun = sampled(table(tmp_path / "t.csv", ghi=np.full(24, 250.0)))
    high = (sun.zenith < 60).reshape(24, 20).all(axis=1)
    assert weather.ghi.reshape(24, 20).mean(axis=1)[high] == pytest.approx(
        np.full(high.sum(), 250.0), rel=2e-3
    )
    assert (weather.dhi.reshape(24, 20)[high] < 250).all()
    assert (weather.dni.reshape(24, 20)[high] > 0).all()


def test_a_table_with_clear_sky_in_it_gives_the_power_of_clear_sky(tmp_path):
    from pvlib.location import Location

    place = Location(52.52, 13.405, "Europe/Berlin", 40.0)
    local = pd.date_range("2026-06-21T00:01:30", periods=480, freq="180s", tz="Europe/Berlin")
    sky = place.get_clearsky(local, linke_turbidity=3.0)
    quarter = sky.to_numpy().reshape(96, 5, 3).mean(axis=1)
    times = pd.date_range("2026-06-21", periods=96, freq="15min")
    columns = dict(zip(("ghi", "dni", "dhi"), quarter.T, strict=True))
    file = table(tmp_path / "t.csv", times, **columns, temperature=np.full(96, 20.0), wind_speed=np.ones(96))
    assert day_kw(pv(weather=file))[0] == pytest.approx(day_kw(pv(turbidity=3.0))[0], abs=0.012)


def test_a_table_is_repeated_beyond_its_end_for_plans(tmp_path):
    file = table(tmp_path / "t.csv", ghi=np.where(np.arange(24) < 13, 300.0, 100.0))
    power = PvPower(pv(weather=file), clock()).slots(0.0, 3 * DAY).kw[0].reshape(3, 96)
    assert power[2] == pytest.approx(power[0], rel=0.02, abs=0.005)


def _without(*rows):
    return lambda frame: frame.drop(frame.index[list(rows)])


def _with(row, **cells):
    def change(frame):
        frame = frame.copy()
        for name, value in cells.items():
            frame.iloc[row, frame.columns.get_loc(name)] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without(5), r"hour 6 of the file is of 01 January 06:00: there is a gap before it"),
        (_without(4000, 4001), r"hour 4001 of the file is of .*: there is a gap before it"),
        (_without(-1), r"has 8759 hours: must have every hour of a year"),
        (_with(9, ghi=9999), r"ghi = 9999 in hour 10 of the file \(01 January 08:00 UTC\): must be a number"),
        (_with(9, t=99.9), r"temperature = 99\.9 in hour 10 of the file .*: must be a temperature"),
    ],
)
def test_an_epw_with_gaps_is_refused(tmp_path, change, sentence):
    file = write_epw(tmp_path / "w.epw", change=change)
    with pytest.raises(ScenarioError, match=sentence) as caught:
        FileWeather(SitePv(kwp=1, weather=file, timezone="UTC"), clock())
    assert str(file) in str(caught.value)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"change": lambda rows: rows[:50] + rows[52:]},
            r"gap of 3 h after 2026-01-03T01:00 UTC: must have",
        ),
        (
            {"count": 200},
            r"has 200 hours, .* UTC: must be one year, or cover the run, 2026-06-20T22:00",
        ),
    ],
)
def test_pvgis_hours_with_gaps_are_refused(tmp_path, more, sentence):
    file = write_pvgis(tmp_path / "h.csv", 2026, typical=False, **{"count": 8000, **more})
    with pytest.raises(ScenarioError, match=sentence):
        FileWeather(pv(weather=file), clock())


TIMES = pd.date_range("2026-06-21", periods=24, freq="h")
DAYLIGHT = np.full(24, 200.0)


@pytest.mark.parametrize(
    ("columns", "times", "sentence"),
    [
        (
            {"ghi": DAYLIGHT[:-2]},
            TIMES.delete([7, 8]),
            r"line 9: gap of 10800 s from the line before: must",
        ),
        ({"ghi": DAYLIGHT - 300}, TIMES, r"ghi = -100\.0: must be a number of W/m2 from 0 to 2000"),
        (
            {"ghi": np.append(DAYLIGHT[1:], np.nan)},
            TIMES,
            r"line 25: ghi = nothing: must be a number",
        ),
        ({"dni": DAYLIGHT, "dhi": DAYLIGHT}, TIMES, r"there is no column 'ghi'"),
        ({"ghi": DAYLIGHT, "dni": DAYLIGHT}, TIMES, r"give both dni and dhi, or neither"),
        (
            {"ghi": DAYLIGHT, "temp": DAYLIGHT},
            TIMES,
            r"column temp: must be one of time, ghi, dni, dhi",
        ),
        (
            {"ghi": DAYLIGHT},
            TIMES + pd.Timedelta("2h"),
            r"covers 2026-06-21T02:00:00 to .*: must cover",
        ),
    ],
)
def test_a_table_at_fault_is_refused(tmp_path, columns, times, sentence):
    file = table(tmp_path / "t.csv", times, **columns)
    with pytest.raises(ScenarioError, match=sentence) as caught:
        FileWeather(pv(weather=file), clock())
    assert caught.value.source == str(file)


def test_a_table_names_no_place(tmp_path):
    file = table(tmp_path / "t.csv", ghi=DAYLIGHT)
    with pytest.raises(ScenarioError, match=r"the file names no place: give latitude and longitude"):
        FileWeather(SitePv(kwp=1, weather=file, timezone="UTC"), clock())


def test_a_file_that_says_its_times_takes_no_form(tmp_path):
    file = write_epw(tmp_path / "w.epw")
    with pytest.raises(ScenarioError, match=r"time_format: the file is EPW, which says its times"):
        FileWeather(pv(weather=file, time_format="%d.%m.%Y"), clock())


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("52.52", "152.52", r"latitude = 152\.52 in the header: must be from -90 to 90"),
        (",1.0,40.0", ",20.0,40.0", r"time zone = 20 in the header: must be from -12 to 14"),
        (
            ",300,400,100,",
            ",300,x,100,",
            r"dni = x in hour 1 of the file .*: must be a number .*8760 hours",
        ),
    ],
)
def test_a_file_with_nonsense_is_refused(tmp_path, old, new, sentence):
    file = write_epw(tmp_path / "w.epw")
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ScenarioError, match=sentence):
        FileWeather(SitePv(kwp=1, weather=file, timezone="UTC"), clock())


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "w.epw"
    file.write_text("LOCATION,here\n1,2,3\n")
    with pytest.raises(ScenarioError, match=r"w\.epw: 1 fault\n  can't be read as EPW: "):
        FileWeather(pv(weather=file), clock())


# ---- every setting


SETTINGS = {
    "kwp": 2.0, "tilt": 50.0, "azimuth": 120.0, "ac_kw": 0.3, "latitude": 40.0, "longitude": 20.0,
    "altitude": 1500.0, "timezone": "Europe/London", "turbidity": 5.0, "ambient": 35.0,
    "mounting": "open_rack", "temperature_coefficient": -0.005, "losses": 0.3, "inverter_efficiency": 0.9,
    "albedo": 0.6, "slot": "30min",
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_a_clear_sky_changes_the_power(name):
    before, after = (
        PvPower(pv(**change), clock()).slots(36000.0, 54000.0) for change in ({}, {name: SETTINGS[name]})
    )
    assert before.kw.shape != after.kw.shape or np.abs(before.kw - after.kw).max() > 1e-4


def test_a_table_has_times_of_a_stated_form(tmp_path):
    file = tmp_path / "t.csv"
    pd.DataFrame({"time": TIMES.strftime("%d.%m.%Y %H:%M"), "ghi": DAYLIGHT}).to_csv(file, index=False)
    with pytest.raises(ScenarioError, match=r"is not ISO 8601"):
        FileWeather(pv(weather=file), clock())
    assert day_kw(pv(weather=file, time_format="%d.%m.%Y %H:%M")).max() > 0.05
