"""Base load: standard profiles with diversity, files and their faults."""

from __future__ import annotations

import sys
import warnings
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evgrid.core.model import MemoryRecorder
from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import (
    ENERGY_SIGMA,
    NOISE_SHAPE,
    base_load,
    load_by_trafo,
    phase_shares,
    quarter_hours,
    rows_of_year,
)
from evgrid.feeder.model import FeederModel
from evgrid.feeder.networks import load_network
from evgrid.scenario import scenario_from


def scenario(base_load=None, network="european_lv", **over):
    content = {
        "name": "test",
        "time": {"start": "2026-01-15T00:00", "duration": "24h", "step": "60s"},
        "ensemble": {"seed": 7},
        "feeder": {"network": network, "base_load": base_load or {}},
    }
    return scenario_from(content, {key.replace("__", "."): value for key, value in over.items()})


def times(step_s, count=None, first=0):
    return (first + np.arange(count or round(86400 / step_s))) * float(step_s)


# ---- standard


def test_mean_of_many_households_is_the_standard_profile(feeder):
    # BDEW H0 of 1 kWh a year by hand: demandlib's own scaling of the same profile
    from demandlib.bdew import ElecSlp

    network = feeder("european_lv")
    many = scenario(ensemble__members=200)
    p, _ = base_load(many, network).at(times(900)[72:76])
    slp = ElecSlp(2026).slp_frame["h0_dyn"].loc["2026-01-15 17:00":"2026-01-15 19:45"].mean()
    expected_kw = 3500 * slp * 4  # the frame holds energy per quarter-hour of 1 kWh a year
    households = 200 * 55
    spread = np.sqrt((np.exp(ENERGY_SIGMA**2) * (1 + 1 / NOISE_SHAPE) - 1) / households)
    assert p.sum() / 4 / households == pytest.approx(expected_kw, rel=0.06 + 4 * spread)


def test_yearly_energy_of_a_household_is_lognormal(feeder):
    load = base_load(scenario(ensemble__members=200), feeder("european_lv"))
    energy = load._weight_kwh.sum(axis=1).ravel()
    assert np.log(energy).std() == pytest.approx(ENERGY_SIGMA, rel=0.03)
    assert energy.mean() == pytest.approx(3500, rel=0.02)


def test_a_single_household_is_noisy_and_many_are_smooth():
    def roughness(households):
        settings = scenario(feeder__households=households)
        p, _ = base_load(settings, load_network(settings.feeder)).at(times(900))
        one = p[:, 0, 0].sum(axis=1)
        return np.abs(np.diff(one)).mean() / one.mean()

    assert roughness(1) > 0.5
    assert roughness(2000) < 0.1


def test_power_factor_and_phase(feeder):
    network = feeder("european_lv")
    p, q = base_load(scenario({"power_factor": 0.9}), network).at(times(3600))
    assert p.shape == q.shape == (24, 1, 55, 3)
    assert q == pytest.approx(p * 0.484322, abs=1e-6)  # tan(acos 0.9)
    share = phase_shares(network)
    assert share.sum(axis=1) == pytest.approx(np.ones(55))
    assert np.all(p[:, 0][:, share == 0] == 0)


def test_any_tick_sees_the_same_load(feeder):
    network = feeder("european_lv")
    fine = base_load(scenario(), network).at(times(60))[0]
    quarter = base_load(scenario(time__step="15min"), network).at(times(900))[0]
    hour = base_load(scenario(time__step="1h"), network).at(times(3600))[0]
    odd = base_load(scenario(time__step="40min"), network).at(times(2400))[0]
    assert np.array_equal(fine[::15], quarter)
    assert np.array_equal(fine[14::15], quarter)
    assert fine.reshape(24, 60, *fine.shape[1:]).mean(axis=1) == pytest.approx(hour, rel=1e-12)
    assert fine.reshape(36, 40, *fine.shape[1:]).mean(axis=1) == pytest.approx(odd, rel=1e-12)


def test_a_later_start_sees_the_same_load(feeder):
    network = feeder("european_lv")
    early = base_load(scenario(time__duration="48h"), network).at(times(900, 192))[0]
    late = base_load(scenario(time__start="2026-01-15T18:00"), network).at(times(900, 96))[0]
    assert np.array_equal(early[72:168], late)


def test_a_member_alone_is_the_same_as_in_an_ensemble(feeder):
    network = feeder("cigre_lv")
    together = base_load(scenario(network="cigre_lv", ensemble__members=20), network).at(times(900))[0]
    alone = base_load(scenario(network="cigre_lv", ensemble__first=17), network).at(times(900))[0]
    assert np.array_equal(together[:, 17:18], alone)
    assert not np.array_equal(together[:, 16:17], alone)


def test_season_and_weekday_matter(feeder):
    network = feeder("european_lv")

    def energy(start):
        return base_load(scenario(ensemble__members=30, time__start=start), network).at(times(900))[0].sum()

    assert energy("2026-01-15T00:00") > 1.2 * energy("2026-07-16T00:00")


def test_net_and_none(feeder):
    network = feeder("case33bw")
    p, q = base_load(scenario({"source": "net"}, "case33bw"), network).at(times(60, 2))
    assert p.sum(axis=(1, 2, 3)) == pytest.approx([3715, 3715])  # Baran and Wu 1989
    assert q.sum(axis=(1, 2, 3)) == pytest.approx([2300, 2300])
    assert not base_load(scenario({"source": "none"}, "case33bw"), network).at(times(60, 2))[0].any()


# ---- files


@pytest.fixture
def write(tmp_path):
    names = [f"load {k}" for k in range(32)]

    def write(first="minute", rows=None, columns=None, change=lambda lines: lines):
        columns = names if columns is None else columns
        rows = range(1, 1441) if rows is None else rows
        lines = [",".join([first, *columns])]
        lines += [
            ",".join([str(row), *[f"{k + at / 1000}" for k in range(len(columns))]])
            for at, row in enumerate(rows)
        ]
        path = tmp_path / "load.csv"
        path.write_text("\n".join(change(lines)) + "\n")
        return path

    return write


@pytest.fixture
def from_file(feeder):
    def load(path, step="60s", time_format=None, **over):
        base = {"file": str(path), "time_format": time_format}
        settings = scenario(base, "case33bw", time__step=step, **over)
        return base_load(settings, feeder("case33bw"))

    return load


def test_minute_file_repeats_daily(write, from_file):
    load = from_file(write(), time__start="2026-01-15T12:00", time__duration="48h")
    p, q = load.at(np.array([0.0, 60.0, 12 * 3600.0, 24 * 3600.0]))
    assert p[:, 0, 1, 0] == pytest.approx([1.72, 1.721, 1.0, 1.72])  # row k covers minute k - 1 to k
    assert q[0, 0, 1, 0] == pytest.approx(1.72 * 0.328684, rel=1e-5)  # tan(acos 0.95)


def test_minute_file_is_averaged_over_longer_steps(write, from_file):
    p, _ = from_file(write(), step="15min").at(np.array([0.0, 900.0]))
    assert p[:, 0, 0, 0] == pytest.approx([0.007, 0.022])  # mean of 0…14 and 15…29 thousandths


@pytest.mark.parametrize("step_min", [1, 5, 15])
def test_a_mean_of_a_slot_is_the_file_s_at_any_step_of_the_feeder(write, feeder, step_min):
    """Row k of the first load has k thousandths of a kW in minute k; slots of 15 min."""
    base = {"file": str(write()), "time_format": None}
    content = scenario(base, "case33bw", time__step=f"{step_min}min")
    begins_s, ends_s = np.array([0.0, 900.0, 3600.0]), np.array([900.0, 1800.0, 4500.0])
    p, _ = base_load(content, feeder("case33bw")).at(begins_s, ends_s)
    assert p[:, 0, 0, 0] * 1e3 == pytest.approx([7, 22, 67])
    by_trafo = load_by_trafo(content, feeder("case33bw"), begins_s, ends_s)
    assert by_trafo.sum(axis=(0, 1)) == pytest.approx(p.sum(axis=(1, 2, 3)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([1, 2, 5, 10, 15, 60]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(1, 120)), min_size=1, max_size=5),
)
def test_a_forecast_is_the_mean_of_what_the_feeder_has(feeder, step_min, spans):
    """Which holds the mean of each of its steps: minute by minute, for any spans."""
    content = scenario({}, "case33bw", time__step="1min", feeder__step=f"{step_min}min")
    network = feeder("case33bw")
    steps_s = 60.0 * step_min * np.arange(-(-720 // step_min))
    held = np.repeat(load_by_trafo(content, network, steps_s), step_min, axis=2)
    begins, lengths = (np.array(part) for part in zip(*spans, strict=True))
    found = load_by_trafo(content, network, 60.0 * begins, 60.0 * (begins + lengths))
    for at, (begin, length) in enumerate(spans):
        np.testing.assert_allclose(
            found[:, :, at], held[:, :, begin : begin + length].mean(axis=2), rtol=1e-9
        )


def test_time_file_holds_between_its_rows(write, from_file):
    stamps = [f"2026-01-15 {h:02d}:00" for h in range(0, 24, 6)]
    p, _ = from_file(write("time", stamps), step="4h").at(np.arange(6) * 14400.0)
    # rows 0, 1, 2, 3 at 0, 6, 12, 18 h; 4-h means: 0, (0 + 1)/2, 1, 2, (2 + 3)/2, 3 thousandths
    assert p[:, 0, 0, 0] * 1000 == pytest.approx([0, 0.5, 1, 2, 2.5, 3])


def test_netcdf_file(feeder, from_file, tmp_path):
    import pandas as pd
    import xarray as xr

    stamps = pd.date_range("2026-01-15", periods=25, freq="h")
    path = tmp_path / "load.nc"
    xr.Dataset({f"load {k}": ("time", np.full(25, float(k))) for k in range(32)}, {"time": stamps}).to_netcdf(
        path
    )
    p, _ = from_file(path).at(np.array([0.0]))
    assert p[0, 0, :, 0].tolist() == list(range(32))


FAULTS = {
    "missing and unknown": (
        {"columns": [f"load {k}" for k in range(1, 32)] + ["lod 0"]},
        ["column 'load 0' is missing", "column 'lod 0': there is no such load in the net"],
    ),
    "cells": (
        {
            "change": lambda lines: [
                *lines[:2],
                lines[2].replace(",3.001,", ",x,").replace(",5.001,", ",,"),
                *lines[3:],
            ]
        },
        ["line 3: load 3 = x: must be a power in kW", "line 3: load 5 = nothing: must be a power in kW"],
    ),
    "minutes": (
        {"rows": [*range(1, 100), 101, *range(101, 1441)]},
        ["line 101: minute = 101: must be 100"],
    ),
    "rows": ({"rows": range(1, 100)}, ["column minute has 99 rows: must be 1 to 1440"]),
    "first column": ({"first": "when"}, ["first column is 'when': must be 'minute'"]),
    "no time": (
        {"first": "time", "rows": ["2026-01-15", "noon?"]},
        ["line 3: time = noon?: must be a time such as"],
    ),
    "order": (
        {"first": "time", "rows": ["2026-01-15 00:00", "2026-01-15 12:00", "2026-01-15 11:00"]},
        ["line 4: time must be after the line before"],
    ),
    "cover": (
        {"first": "time", "rows": ["2026-01-15 01:00", "2026-01-15 02:00"]},
        ["column time covers 2026-01-15T01:00 to 2026-01-15T03:00: must cover the run, 2026-01-15T00:00 to"],
    ),
    "zone": (
        {"first": "time", "rows": ["2026-01-15T00:00+01:00", "2026-01-16T00:00+01:00"]},
        ["line 2: time = 2026-01-15T00:00+01:00: must be local time without a zone"],
    ),
    "short": (
        {"first": "time", "rows": ["2026-01-15"]},
        ["has 1 rows: must have a header and at least two rows"],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_a_file(case, write, from_file):
    arguments, expected = FAULTS[case]
    path = write(**arguments)
    with pytest.raises(ScenarioError, match=r"load\.csv: \d+ fault") as caught:
        from_file(path)
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M"])
def test_dates_are_read_in_the_stated_form_only(feeder, from_file, tmp_path, form):
    # 15 days from 5 January on: read month first, the 5th were the 1st of May
    from datetime import datetime, timedelta

    lines = ["time;" + ";".join(f"load {k}" for k in range(32))]
    for day in range(12):
        stamp = datetime(2026, 1, 5) + timedelta(days=day)
        lines.append(stamp.strftime(form) + f";{day},5" * 32)
    path = tmp_path / "load.csv"
    path.write_text("\n".join(lines))
    stated = {} if "T" in form else {"time_format": form}
    p, _ = from_file(path, **stated).at(np.array([0.0]))
    assert p[0, 0, :, 0].tolist() == [10.5] * 32  # 15 January is row 10
    if stated:
        with pytest.raises(ScenarioError, match=r"load\.csv: 1 fault\n.*state the form of the times"):
            from_file(path)


def test_mixed_offsets_are_refused_line_by_line(write, from_file):
    rows = ["2026-01-15T00:00+01:00", "2026-01-15 12:00+02", "2026-01-16T00:00Z", "2026-01-17T00:00"]
    with pytest.raises(ScenarioError) as caught:
        from_file(write("time", rows))
    assert [f.partition(":")[0] for f in caught.value.faults] == ["line 2", "line 3", "line 4"]
    assert all("must be local time without a zone" in f for f in caught.value.faults)


def test_many_faults_are_cut_short(write, from_file):
    path = write(change=lambda lines: [lines[0], *[line.replace(",3.", ",x3.") for line in lines[1:]]])
    with pytest.raises(ScenarioError, match="and 1420 more"):
        from_file(path)


def test_unreadable_file(tmp_path, from_file):
    path = tmp_path / "load.nc"
    path.write_bytes(b"no netcdf")
    with pytest.raises(ScenarioError, match="can't be read"):
        from_file(path)


# ---- simbench


def test_simbench_profiles_need_a_simbench_network(feeder):
    content = scenario_from(
        {
            "name": "test",
            "time": {"start": "2026-01-15T12:00", "duration": "1h", "step": "15min"},
            "feeder": {"network": "case33bw", "base_load": {"source": "simbench"}},
        }
    )
    with pytest.raises(ScenarioError, match="source = simbench: needs a network simbench:CODE, not case33bw"):
        base_load(content, feeder("case33bw"))


@pytest.mark.parametrize("year", [2016, 2015, 2026, 2028])
def test_a_row_of_another_years_profile_has_the_same_date_and_time(year):
    # every quarter-hour of 2023 (no leap year), 2024 (one) and the days beside them, against datetime itself
    first = datetime(2022, 12, 30)
    quarters = np.arange(int((datetime(2025, 1, 3) - first).total_seconds()) // 900)
    since_1970 = int((first - datetime(1970, 1, 1)).total_seconds()) // 900
    rows = rows_of_year(quarters + since_1970, year)
    for quarter in quarters[::31]:
        when = first + timedelta(minutes=15 * int(quarter))
        leap = year % 4 == 0
        same = when.replace(year=year) if leap or (when.month, when.day) != (2, 29) else None
        same = same or when.replace(year=year, day=28)
        assert rows[quarter] == (same - datetime(year, 1, 1)).total_seconds() / 900


def test_profiles_of_a_leap_year_have_march_where_it_is():
    # 1 March 2016 is day 60 (from 0) of its year; 31 December is day 365
    def row(text):
        return int(rows_of_year(np.array([np.datetime64(text, "m").astype(np.int64) // 15]), 2016)[0])

    assert row("2026-02-28T23:45") == 59 * 96 - 1
    assert row("2026-03-01T00:00") == 60 * 96
    assert row("2024-02-29T00:00") == 59 * 96
    assert row("2026-12-31T23:45") == 366 * 96 - 1
    assert row("1969-12-31T23:45") == 366 * 96 - 1
    assert row("2027-01-01T00:00") == 0


@settings(deadline=None, max_examples=50)
@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),
    st.integers(0, 400 * 96),
    st.sampled_from([2015, 2016, 2019]),
)
def test_the_same_hour_has_the_same_row_whenever_the_run_starts(when, later, year):
    quarter = int((when - datetime(1970, 1, 1)).total_seconds() // 900)
    whole = rows_of_year(np.arange(quarter, quarter + later + 1), year)
    assert whole[-1] == rows_of_year(np.array([quarter + later]), year)[0]
    assert (np.diff(whole) <= 97).all()


def test_a_network_without_storage_takes_its_profiles_and_march_is_march(monkeypatch, tmp_path, small_net):
    # simbench itself gives a table of no rows for storage that is not there
    import pandas as pd

    net = small_net(False)
    quarters = np.arange(366 * 96, dtype=float)
    of_loads = pd.DataFrame({0: quarters, 1: 2 * quarters}) / 1e6
    absolute = {("load", "p_mw"): of_loads, ("sgen", "p_mw"): pd.DataFrame({0: quarters / 1e6})}
    absolute["storage", "p_mw"] = pd.DataFrame()
    package = SimpleNamespace(
        get_simbench_net=lambda code: net, get_absolute_values=lambda net, **_: absolute
    )
    monkeypatch.setitem(sys.modules, "simbench", package)
    monkeypatch.setenv("EVGRID_CACHE", str(tmp_path))
    content = scenario(
        {"source": "simbench"}, "simbench:CODE", time__start="2026-02-28T00:00", time__duration="3d",
        time__step="15min",
    )  # fmt: skip
    load = base_load(content, load_network(content.feeder))
    times_s = np.array([0.0, 95, 96]) * 900
    p, _ = load.at(times_s)
    march = 60 * 96
    # kW at sgen's scaling 0.5, loads' scaling 1: row k has k W and 2 k W
    assert p[:, 0, :, 0] * 1e3 == pytest.approx(
        np.array([[58 * 96, 116 * 96], [59 * 96 - 1, 118 * 96 - 2], [march, 2 * march]])
    )
    assert load.generation(times_s)[0][:, 0, 0, 0] * 1e3 == pytest.approx(
        [29 * 96, 29.5 * 96 - 0.5, march / 2]
    )


@pytest.mark.slow
def test_a_simbench_network_without_storage_takes_its_profiles():
    simbench = pytest.importorskip("simbench")
    code = "1-LV-rural1--0-sw"

    def load_at(start, hours):
        content = scenario_from(
            {
                "name": "test",
                "time": {"start": start, "duration": "4d", "step": "15min"},
                "feeder": {"network": f"simbench:{code}", "base_load": {"source": "simbench"}},
            }
        )
        load = base_load(content, load_network(content.feeder))
        times_s = np.array([3600.0 * hours])
        return load.at(times_s)[0].sum() - load.generation(times_s)[0].sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = simbench.get_simbench_net(code)
        absolute = simbench.get_absolute_values(net, profiles_instead_of_study_cases=True)
    assert not len(net.storage)
    net_kw = 1e3 * (absolute["load", "p_mw"].sum(axis=1) - absolute["sgen", "p_mw"].sum(axis=1)).to_numpy()
    expected = net_kw[(31 + 29 + 31 + 30 + 31 + 14) * 96 + 48]  # 15 June, noon, of a leap year
    assert load_at("2026-06-15T00:00", 12) == pytest.approx(expected, rel=1e-5)
    in_march = net_kw[(31 + 29 + 1) * 96 + 45]  # 2 March, 11:15
    assert load_at("2026-03-01T00:00", 35.25) == pytest.approx(in_march, rel=1e-5)
    assert load_at("2026-02-28T12:00", 47.25) == pytest.approx(in_march, rel=1e-5)
    assert load_at("2024-02-28T12:00", 71.25) == pytest.approx(in_march, rel=1e-5)


@pytest.mark.slow
def test_simbench_profiles_of_load_generation_and_storage():
    simbench = pytest.importorskip("simbench")
    code = "1-LV-semiurb4--2-no_sw"
    content = scenario_from(
        {
            "name": "test",
            "time": {"start": "2026-06-15T12:00", "duration": "1h", "step": "30min"},
            "feeder": {"network": f"simbench:{code}", "base_load": {"source": "simbench"}},
        }
    )
    network = load_network(content.feeder)
    load = base_load(content, network)
    net = simbench.get_simbench_net(code)
    absolute = simbench.get_absolute_values(net, profiles_instead_of_study_cases=True)
    row = (31 + 29 + 31 + 30 + 31 + 14) * 96 + 48  # 15 June 2016, noon
    p, _ = load.at(np.array([0.0, 1800.0]))
    assert p.shape == (2, 1, len(net.load), 1)
    expected = absolute["load", "p_mw"].iloc[row : row + 2].mean() * 1e3
    assert p[0, 0, :, 0] == pytest.approx(expected.to_numpy(), rel=1e-5)
    gen_p, _ = load.generation(np.array([0.0]))
    pv = absolute["sgen", "p_mw"].iloc[row : row + 2].mean().to_numpy() * 1e3
    storage = absolute["storage", "p_mw"].iloc[row : row + 2].mean().to_numpy() * 1e3
    assert gen_p[0, 0, :, 0] == pytest.approx([*pv, *-storage], rel=1e-4, abs=1e-5)
    recorder = MemoryRecorder()
    model = FeederModel(content, network, recorder, fleet=False, feedback=False)
    for step in range(2):
        model.step(step * 1800.0, {})
    model.finish()
    base = recorder.series("base_load_kw")[0, 0]
    assert base == pytest.approx(p[0].sum() - gen_p.sum(), rel=1e-6)


# ---- moments of change


def _held_load(kind, folder, feeder):
    """A base load of each kind, of a run that starts at an odd time, and its network."""
    network = feeder("european_lv")
    names = [str(name) for name in network.connections.name]
    base = {"source": kind}
    if kind in ("daily", "times"):
        rows = 1440 if kind == "daily" else 5
        rng = np.random.default_rng(1)
        frame = pd.DataFrame(rng.random((rows, len(names))), columns=names)
        start = pd.Timestamp("2026-01-15T22:00")
        first = np.arange(1, 1441) if kind == "daily" else start + pd.to_timedelta([0, 7, 40, 45, 300], "min")
        frame.insert(0, "minute" if kind == "daily" else "time", first)
        frame.to_csv(folder / "load.csv", index=False)
        base = {"file": str(folder / "load.csv")}
    time = {"start": "2026-01-15T22:07:30", "duration": "3h", "step": "30s"}
    return base_load(scenario(base, time=time, ensemble__members=2), network)


@pytest.mark.parametrize("kind", ["standard", "net", "none", "daily", "times"])
@pytest.mark.parametrize("span", [(0.0, 10800.0), (1234.5, 9876.5), (9000.0, 30000.0), (40.0, 70.0)])
def test_the_load_is_constant_between_its_moments_of_change(kind, span, tmp_path, feeder):
    load = _held_load(kind, tmp_path, feeder)
    edges = load.changes(*span)
    assert edges[0] == span[0]
    assert edges[-1] == pytest.approx(span[1], abs=1e-6)
    assert (np.diff(edges) > 1e-6).all()
    slots, _ = load.at(edges[:-1], edges[1:])
    begin = np.repeat(edges[:-1], 3) + np.tile([0.0, 0.3, 0.9], len(edges) - 1) * np.repeat(np.diff(edges), 3)
    parts, _ = load.at(begin, begin + 0.1 * np.repeat(np.diff(edges), 3))
    np.testing.assert_allclose(parts, np.repeat(slots, 3, axis=0), rtol=1e-9, atol=1e-12)
    energy = np.tensordot(np.diff(edges), slots, 1)
    whole = load.at(np.array(span[:1]), np.array(span[1:]))[0][0] * (span[1] - span[0])
    if kind != "times" or span[1] <= 10800.0:  # a mean over the end of a file leaves out what is beyond
        np.testing.assert_allclose(energy, whole, rtol=1e-9)


def test_quarter_hours_are_those_of_the_clock():
    start_s = 1_768_500_450.0  # 2026-01-15T18:07:30
    assert quarter_hours(0.0, 2000.0, start_s).tolist() == [0.0, 450.0, 1350.0, 2000.0]
    assert quarter_hours(450.0, 1350.0, start_s).tolist() == [450.0, 1350.0]
    assert quarter_hours(500.0, 510.0, start_s).tolist() == [500.0, 510.0]


def test_many_readers_of_a_standard_load_at_once_see_the_same(feeder):
    from concurrent.futures import ThreadPoolExecutor

    network = feeder("european_lv")
    load = base_load(scenario(ensemble__members=2), network)
    days = [0, 3, 1, 2, 0, 1, 3, 2] * 4
    alone = {}
    for day in set(days):
        own = base_load(scenario(ensemble__members=2), network)
        alone[day] = own.at(times(900, 4, 96 * day))[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda day: load.at(times(900, 4, 96 * day))[0], days))
    for day, power in zip(days, found, strict=True):
        np.testing.assert_array_equal(power, alone[day])
