"""Readers: the same values whatever the form of times, the separator, the decimal sign and the kind of file;
what can be read in two ways is refused; no zone passes.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evgrid.errors import ScenarioError
from evgrid.readers import Faults, read_table, read_times
from evgrid.readers.times import moment_of

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ISO = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y%m%dT%H%M%S"]
OTHERS = [
    "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%y %H:%M:%S",
    "%m-%d-%Y %I:%M:%S %p",
    "%b %d %Y %H:%M:%S",
]
moments = st.lists(
    st.datetimes(datetime(1970, 1, 1), datetime(2067, 12, 31)).map(lambda t: t.replace(microsecond=0)),
    min_size=1, max_size=8,
)  # fmt: skip
decimals = st.integers(-10_000_000, 10_000_000).map(lambda n: n / 1000.0)


def read(path: Path, form: str | None, start: datetime) -> tuple[np.ndarray, np.ndarray, list[str]]:
    table = read_table(path)
    faults = Faults(table)
    times_s = read_times(table, ["time"], np.datetime64(start), form, faults)[0]
    values = table.numbers(["value"], faults)[0]
    return times_s, values, faults.sentences()


def written(path: Path, times: list[str], values: list[str], separator: str, end: str, encoding: str) -> Path:
    lines = [f"time{separator}value", *(f"{t}{separator}{v}" for t, v in zip(times, values, strict=True))]
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    return path


@MANY
@given(
    moments, st.data(), st.sampled_from([*ISO, *OTHERS]), st.sampled_from([",", ";", "\t"]), st.booleans(),
    st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)  # fmt: skip
def test_the_same_values_in_any_dress_or_a_sentence(
    tmp_path, times, data, form, separator, comma, end, encoding
):
    values = data.draw(st.lists(decimals, min_size=len(times), max_size=len(times)))
    cells = [f"{value:.3f}" for value in values]
    if comma:
        cells = [f'"{cell.replace(".", ",")}"' for cell in cells]
    texts = [time.strftime(form) for time in times]
    path = written(tmp_path / "t.csv", texts, cells, separator, end, encoding)
    found_s, found, sentences = read(path, None if form in ISO else form, times[0])
    expected_s = [(time - times[0]).total_seconds() for time in times]
    assert found_s.tolist() == expected_s
    if sentences:  # each number might be thousands
        assert comma
        assert all("can be read in two ways" in s for s in sentences)
    given_cells = np.isfinite(found)
    assert found[given_cells].tolist() == [v for v, there in zip(values, given_cells, strict=True) if there]
    assert given_cells.all() or sentences


@MANY
@given(moments, st.sampled_from(OTHERS))
def test_no_other_form_is_read_unless_it_is_stated(tmp_path, times, form):
    texts = [time.strftime(form) for time in times]
    found_s, _, sentences = read(
        written(tmp_path / "t.csv", texts, ["1"] * len(times), ";", "\n", "utf-8"), None, times[0]
    )
    assert np.isnan(found_s).all()
    assert len(sentences) == 1
    assert "state the form of the times" in sentences[0]


@MANY
@given(
    moments, st.sampled_from(ISO), st.data(),
    st.sampled_from(["Z", "+01", "+01:00", "+0100", "-07:30", " +02", " UTC", "[Europe/Berlin]"]),
)  # fmt: skip
def test_a_zone_is_refused_wherever_it_stands(tmp_path, times, form, data, zone):
    zoned = data.draw(st.lists(st.booleans(), min_size=len(times), max_size=len(times)))
    texts = [t.strftime(form) + (zone if z else "") for t, z in zip(times, zoned, strict=True)]
    found_s, _, sentences = read(
        written(tmp_path / "t.csv", texts, ["1"] * len(times), ";", "\n", "utf-8"), None, times[0]
    )
    lines = [int(s.split(":")[0].removeprefix("line ")) for s in sentences]
    assert lines == [k + 2 for k, z in enumerate(zoned) if z]
    assert all("must be local time without a zone" in s for s in sentences)
    assert np.isnan(found_s).tolist() == zoned


@MANY
@given(moments, st.sampled_from(["s", "ms", "us", "ns"]))
def test_times_as_such_are_those_of_the_text(tmp_path, times, unit):
    frame = pd.DataFrame({"time": np.array(times, f"datetime64[{unit}]"), "value": 1.5})
    frame.to_parquet(tmp_path / "t.parquet")
    found_s, values, sentences = read(tmp_path / "t.parquet", None, times[0])
    assert not sentences
    assert found_s.tolist() == [(t - times[0]).total_seconds() for t in times]
    assert (values == 1.5).all()


def test_times_of_a_netcdf_file(tmp_path):
    times = pd.date_range("2026-03-28T22:00", periods=9, freq="37min")
    pd.DataFrame({"time": times, "value": 1.5}).set_index("time").to_xarray().to_netcdf(tmp_path / "t.nc")
    found_s, values, sentences = read(tmp_path / "t.nc", None, times[0].to_pydatetime())
    assert not sentences
    assert found_s.tolist() == [k * 37 * 60.0 for k in range(9)]
    assert (values == 1.5).all()


@MANY
@given(st.lists(st.from_regex(r"\A[-+]?[0-9]{0,4}([.,][0-9]{0,4}){0,3}(e[0-9])?\Z"), min_size=1, max_size=5))
def test_a_number_is_what_python_reads_or_what_its_signs_say(tmp_path, cells):
    path = tmp_path / "t.csv"
    path.write_text("value;x\n" + "".join(f"{cell};1\n" for cell in cells))
    table = read_table(path)
    faults = Faults(table)
    for cell, found in zip(table.text("value"), table.numbers(["value"], faults)[0], strict=True):
        if np.isnan(found):
            continue
        # of one reading: without the signs that group thousands, and with a point for the decimal sign
        readings = {cell, cell.replace(",", ""), cell.replace(".", "").replace(",", ".")}
        assert any(_is(reading, found) for reading in readings)
        if "," not in cell:
            assert _is(cell, found)


def _is(text: str, value: float) -> bool:
    try:
        return float(text) == value
    except ValueError:
        return False


@MANY
@given(st.text(max_size=60))
def test_any_text_is_a_table_or_a_sentence(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        table = read_table(path, comments=True)
    except ScenarioError:
        return
    for name in table.names:
        assert len(table.text(name)) == len(table)
    table.lines(range(len(table)))


@pytest.mark.parametrize("form", ISO)
@given(st.datetimes(datetime(1700, 1, 1), datetime(2199, 12, 31)), st.integers(-14 * 60, 14 * 60))
@settings(max_examples=60, deadline=None)
def test_a_moment_with_a_zone_is_that_moment(form, time, offset):
    time = time.replace(microsecond=0)
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    found = moment_of(f"{time.strftime(form)}{sign}{minutes // 60:02d}:{minutes % 60:02d}")
    assert found is not None
    assert found.replace(tzinfo=None) == time
    assert found.utcoffset() == timedelta(minutes=offset)
