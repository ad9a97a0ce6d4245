"""A random series is the same kW, whatever the layout, unit, zone, label, order and kind of file it is
written in; its energy is the same at any tick."""

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evgrid.core.model import Clock
from evgrid.readers import Faults, read_table
from evgrid.readers.time_tables import UNITS_KW, time_table
from evgrid.scenario.fields import checked
from evgrid.scenario.time_series import PowerTable

MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
DAYS = ["2026-03-28", "2026-10-24", "2026-01-01", "2026-03-07", "2026-04-04", "2026-06-30"]
FORMS = ["%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M", "%m/%d/%Y %I:%M %p", "%Y%m%d %H%M"]
SUFFIXES = [".csv", ".parquet", ".xlsx", ".nc"]


@MANY
@given(st.data())
def test_a_series_is_the_same_in_any_layout(tmp_path, data):
    """Two days of two series; the clocks of the zone may change in them, or at another time than Berlin's."""
    draw = data.draw
    zone, minutes = draw(st.sampled_from(ZONES)), draw(st.sampled_from([10, 15, 30]))
    utc = pd.date_range(
        pd.Timestamp(draw(st.sampled_from(DAYS)), tz=zone), periods=2 * 1440 // minutes, freq=f"{minutes}min"
    ).tz_convert("UTC")
    kw = np.random.default_rng(draw(st.integers(0, 99))).integers(-9000, 9000, (len(utc), 2)) / 1000
    wall = utc.tz_convert(zone).tz_localize(None)
    unit, scale = draw(st.sampled_from([*UNITS_KW])), draw(st.sampled_from([1.0, -2.0]))
    end = draw(st.booleans())
    form = {"tz": zone, "unit": unit, "scale": scale, "label": "end" if end else "start"}
    shown = utc + pd.Timedelta(minutes=minutes if end else 0)
    local = shown.tz_convert(zone)
    clock = draw(st.sampled_from(["order", "falling", "offset", "utc"]))
    values = kw / UNITS_KW[unit] / scale * (minutes / 60 if unit.endswith("h") else 1)
    frame = pd.DataFrame({"when": local.tz_localize(None), "a": values[:, 0], "b": values[:, 1]})
    columns = {"time": "when"}
    if clock == "offset":
        frame["o"] = [t.strftime("%z") for t in local]
        columns["offset"] = "o"
    elif clock == "utc":
        frame["when"], form["times"] = shown.tz_localize(None), "utc"
    suffix = draw(st.sampled_from(SUFFIXES))
    if suffix != ".nc" and draw(st.booleans()):
        frame = frame.melt([c for c in frame if c not in "ab"], ["a", "b"], "meter", "x", ignore_index=False)
        columns |= {"name": "meter", "value": "x"}
    if clock == "falling":
        frame = frame.iloc[::-1]
    elif clock in ("offset", "utc"):  # any order
        frame = frame.sample(frac=1.0, random_state=draw(st.integers(0, 99)))
    else:
        frame = frame.sort_index(kind="stable")
    path = written(tmp_path, frame, suffix, form, draw)
    settings_ = checked(PowerTable, {**form, "columns": columns}, "form")
    start = wall[0].to_datetime64()
    table = read_table(path, form=settings_.reading.form)
    faults = Faults(table)
    found = time_table(
        table, Clock(start, 900.0, 96), settings_.reading, "must be kW",
        lambda names, faults: {name: name for name in names if name in "ab"}, faults, power=True,
    )  # fmt: skip
    assert not faults.sentences()
    kept = np.append(True, np.maximum.accumulate(wall.to_numpy())[:-1] < wall.to_numpy()[1:])
    begins = (wall[kept].to_numpy() - start) / np.timedelta64(1, "s")
    np.testing.assert_allclose(found.edges_s[:-1], begins, atol=1e-9)
    for k, name in enumerate("ab"):
        np.testing.assert_allclose(found.values[name], kw[kept, k], rtol=1e-9, atol=1e-12)


def written(folder, frame, suffix, form, draw):
    path = folder / f"t{suffix}"
    if suffix == ".nc":
        import xarray as xr

        columns = {name: ("row", frame[name].to_numpy()) for name in frame}
        xr.Dataset(columns, {"row": np.arange(len(frame))}).to_netcdf(path)
    elif suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif suffix == ".xlsx":
        half = len(frame) // 2
        with pd.ExcelWriter(path) as book:
            for sheet, part in (("first", frame[:half]), ("second", frame[half:])):
                part.to_excel(book, sheet_name=sheet, index=False)
    else:
        form["time_format"] = draw(st.sampled_from(FORMS))
        sign = draw(st.sampled_from([".", ","]))
        separator = draw(st.sampled_from([";", "\t", "|"]))
        form |= {"decimal": sign, "separator": separator}
        form["encoding"] = draw(st.sampled_from(["utf-8", "cp1252", "utf-16"]))
        form["header"] = 1 + draw(st.integers(0, 2))
        text = frame.to_csv(
            sep=separator, decimal=sign, date_format=form["time_format"], index=False, float_format="%.15g"
        )
        path.write_bytes(("Zähler\n" * (form["header"] - 1) + text).encode(form["encoding"]))
    return path


@MANY
@given(
    st.lists(st.integers(-50, 50), min_size=96, max_size=96),
    st.sampled_from([60, 300, 420, 900, 1800, 2700, 5400, 7200]),
)
def test_energy_is_kept_at_any_tick(tmp_path, watts, tick_s):
    """Means over ticks, times their length, are the energy of the quarter-hours in them."""
    from evgrid.readers.series import SITE_POWER, read_series

    path = tmp_path / "t.csv"
    path.write_text("\n".join(["time,kWh", *(f"{900 * k},{w}" for k, w in enumerate(watts))]))
    ticks = 86400 // tick_s
    edges = tick_s * np.arange(ticks + 1.0)
    clock = Clock(np.datetime64("2026-01-15"), float(tick_s), ticks)
    reading = checked(PowerTable, {"unit": "kWh"}, "form").reading
    found = read_series(path, clock, SITE_POWER, None, reading).means(edges)
    whole = np.interp(edges, 900.0 * np.arange(97), np.append(0, np.cumsum(watts)))  # kWh up to each edge
    np.testing.assert_allclose(found * tick_s / 3600, np.diff(whole), rtol=1e-9, atol=1e-9)
