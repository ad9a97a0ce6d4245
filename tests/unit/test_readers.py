"""The readers of users' files: forms of times, separators, decimal signs, encodings; and their sentences."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from evgrid.errors import ScenarioError
from evgrid.readers import Faults, read_json, read_table, read_text, read_times, utc_times
from evgrid.readers.times import check_time_format

START = np.datetime64("2026-01-15T00:00")
DAY_S = 86400.0


@pytest.fixture
def table(tmp_path):
    def read(text, name="t.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, **options)

    return read


@pytest.fixture
def times(table):
    """Seconds and sentences of a column of times."""

    def read(*cells, form=None):
        found = table("\n".join(["time\tx", *(f"{cell}\t1" for cell in cells)]))
        faults = Faults(found)
        return read_times(found, ["time"], START, form, faults)[0].tolist(), faults.sentences()

    return read


# ---- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "hours"),
    [
        ("2026-01-15", 0.0), ("2026-01-15T18", 18.0), ("2026-01-15 18:30", 18.5),
        ("2026-01-15T18:30:36", 18.51),
        ("2026-01-15t18:30", 18.5), ("20260115T1830", 18.5), ("20260115T183036", 18.51),
        ("2026-01-15T18:30:36.000000", 18.51), ("2026-01-15T18:30:36,0", 18.51), ("2026-01-15T24:00", 24.0),
        ("2026-01-15 24:00:00", 24.0), ("2026-01-14T23:00", -1.0), ("64800", 18.0), ("64800,0", 18.0),
    ],
)  # fmt: skip
def test_times_that_are_read(times, cell, hours):
    # beside others, so that each way through the reader is taken
    for others in ((), ("2026-01-15T00:00",), ("2026-01-15T00:00:00.123456789",)):
        found, sentences = times(cell, *others)
        assert not sentences
        assert found[0] == hours * 3600.0


def test_fractions_to_the_millionth(times):
    assert times("2026-01-15T00:00:00.123456789")[0] == [0.123456]


@pytest.mark.parametrize(
    "zone",
    ["+01", "+01:00", "+0100", "-08", "Z", "z", " +01", "[Europe/Berlin]", "+01:00[Europe/Berlin]", " UTC",
     " CET", " Europe/Berlin"],
)  # fmt: skip
def test_zones_are_refused_line_by_line_in_any_mix(times, zone):
    good = "2026-01-15T01:00"
    found, sentences = times(good, f"2026-01-15T00:00:00{zone}", "2026-01-15T00:00:00+02:00", good)
    assert [s.partition(" =")[0] for s in sentences] == ["line 3: time", "line 4: time"]
    assert all(s.endswith(": must be local time without a zone") for s in sentences)
    assert found[0] == found[3] == 3600.0


@pytest.mark.parametrize(
    ("cell", "asked"),
    [
        ("05.01.2026 06:00", "time_format: '%d.%m.%Y %H:%M'"),
        ("13.01.2026", "time_format: '%d.%m.%Y'"),
        ("1/5/2026 6:00", "time_format: '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'"),
        ("1/13/26 6:00:15 PM", "time_format: '%d/%m/%y %I:%M:%S %p' or '%m/%d/%y %I:%M:%S %p'"),
        ("2026/01/05 06:00", "time_format: '%Y/%m/%d %H:%M'"),
        ("5-Jan-2026", "time_format: "),
        ("20260105", "time_format: '%Y%m%d'"),
        ("202601050600", "time_format: '%Y%m%d%H%M'"),
        ("46037.25", "time_format: excel"),
    ],
)
def test_any_other_form_asks_in_one_sentence(times, cell, asked):
    found, sentences = times(*[cell] * 30)
    assert len(sentences) == 1
    assert "line 2: time = " in sentences[0]
    assert asked in sentences[0]
    assert np.isnan(found).all()


def test_seconds_stay_seconds(times):
    assert times("0", "20260115")[0] == [0.0, 20260115.0]  # the first says what they are
    assert times("46037", "46040")[0] == [46037.0, 46040.0]
    assert times("20260115", form="seconds")[0] == [20260115.0]
    assert "is this a date?" in times("2026-01-15", "20260115")[1][0]


@pytest.mark.parametrize(
    ("form", "cell", "hours"),
    [
        ("%d.%m.%Y %H:%M", "15.01.2026 06:00", 6.0), ("%d.%m.%Y %H:%M", "15.01.2026 24:00", 24.0),
        ("%d.%m.%Y %H:%M", "05.02.2026 00:00", 21 * 24.0), ("%m/%d/%Y", "02/05/2026", 21 * 24.0),
        ("%d/%m/%y %H:%M:%S", "15/01/26 06:30:36", 6.51), ("%m/%d/%Y %I:%M %p", "1/15/2026 6:00 PM", 18.0),
        ("%Y%m%d", "20260115", 0.0), ("excel", "46037.25", 6.0), ("excel", "46037,25", 6.0),
        ("seconds", "46037,25", 46037.25 / 3600),
    ],
)  # fmt: skip
def test_stated_forms(times, form, cell, hours):
    found, sentences = times(cell, form=form)
    assert not sentences
    assert found == pytest.approx([hours * 3600.0], abs=1e-3)


def test_what_is_not_of_the_stated_form(times):
    for cell in ("2026-01-15T06:00", "01/15/2026 06:00", "31.02.2026 00:00", "now", "today", "46037", "NaT"):
        found, sentences = times(cell, form="%d.%m.%Y %H:%M")
        assert sentences == [f"line 2: time = {cell}: must be a time of the form %d.%m.%Y %H:%M"]
        assert np.isnan(found).all()
    assert "without a zone" in times("15.01.2026 06:00+01:00", form="%d.%m.%Y %H:%M")[1][0]


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("2026-02-30", "there is no such day or time"), ("2026-01-15T25:00", "there is no such day or time"),
        ("2026-01-15T24:01", "there is no such day or time"), ("0001-01-01", "must be from 1700 to 2199"),
        ("9999-12-31T24:00", "must be from 1700 to 2199"), ("noon", "must be a time such as"),
        ("nan", "must be a time such as"), ("1e999", "must be a time such as"), ("９", "must be a time"),
    ],
)  # fmt: skip
def test_times_at_fault(times, cell, sentence):
    found, sentences = times("2026-01-15", cell)
    assert len(sentences) == 1
    assert sentences[0].startswith(f"line 3: time = {cell}: {sentence}")
    assert found[0] == 0.0
    assert np.isnan(found[1])


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ("%H:%M", "with year, month and day"), ("%d.%m", "with year, month and day"),
        ("%Y-%m-%d %z", "without %z"),
        ("%x", "without %x"), ("day first", "with year, month and day"), ("%", "must be a form such as"),
    ],
)  # fmt: skip
def test_forms_at_fault(form, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_time_format(form)


def of_parquet(tmp_path, values):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"time": values, "x": 1.0}).to_parquet(path)
    found = read_table(path)
    faults = Faults(found)
    return read_times(found, ["time"], START, None, faults)[0].tolist(), faults.sentences()


def test_times_that_a_file_holds_as_such(tmp_path):
    stamps = pd.Series(pd.to_datetime(["2026-01-15T06:00", "2026-01-16T00:00"]))
    for unit in ("ns", "us", "ms", "s"):
        assert of_parquet(tmp_path, stamps.astype(f"datetime64[{unit}]")) == ([21600.0, DAY_S], [])
    assert of_parquet(tmp_path, stamps.dt.date) == ([0.0, DAY_S], [])
    assert of_parquet(tmp_path, stamps.dt.strftime("%Y-%m-%d %H:%M")) == ([21600.0, DAY_S], [])
    assert of_parquet(tmp_path, pd.Series([21600, 86400])) == ([21600.0, DAY_S], [])
    zoned = of_parquet(tmp_path, stamps.dt.tz_localize("Europe/Berlin"))[1]
    assert len(zoned) == 2
    assert zoned[0].startswith("row 1: time = 2026-01-15T05:00")
    assert zoned[0].endswith("(Europe/Berlin): must be local time without a zone")
    old = pd.Series(np.array(["0001-01-01", "9999-12-31"], "datetime64[s]"))
    assert ["must be from 1700 to 2199" in s for s in of_parquet(tmp_path, old)[1]] == [True, True]
    assert "must hold dates with times" in of_parquet(tmp_path, stamps.dt.time)[1][0]
    assert "must hold times" in of_parquet(tmp_path, pd.Series([b"a", b"b"]))[1][0]


def test_utc_over_the_changes_of_the_clocks():
    from datetime import UTC, datetime, timedelta
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("America/Los_Angeles")
    # 02:00 PDT on 2 November 2025, 09:00Z, becomes 01:00 PST
    points = [datetime(2025, 11, 2, 6, tzinfo=UTC) + k * timedelta(minutes=30) for k in range(12)]
    seconds, used = utc_times(points, zone, np.datetime64("2025-11-02T00:00"))
    assert (seconds[used] / 3600).tolist() == [-1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert np.flatnonzero(~used).tolist() == [6, 7]  # 09:00Z and 09:30Z are 01:00 and 01:30 again
    # 02:00 PST on 8 March 2026, 10:00Z, becomes 03:00 PDT
    points = [datetime(2026, 3, 8, 9, tzinfo=UTC) + k * timedelta(minutes=30) for k in range(4)]
    seconds, used = utc_times(points, zone, np.datetime64("2026-03-08T00:00"))
    assert used.all()
    assert (seconds / 3600).tolist() == [1, 1.5, 3, 3.5]


# ---- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_line_ends_and_encodings(table, separator, end, encoding):
    rows = ["näme,a,b", "x, 1.5 ,2", "", ",,", "y,,3"]
    text = end.join(row.replace(",", separator) for row in rows) + end
    found = table(text.encode(encoding))
    assert found.names == ["näme", "a", "b"]
    assert found.text("näme") == ["x", "y"]
    faults = Faults(found)
    values = found.numbers(["a", "b"], faults)
    assert not faults
    np.testing.assert_array_equal(values, [[1.5, np.nan], [2.0, 3.0]])
    assert found.empty("a").tolist() == [False, True]
    assert found.lines([0, 1]) == [2, 5]


def test_columns_without_a_name(table):
    assert table("a,,b,\n1,2,3,\n").names == ["a", "(column 2)", "b"]  # the last is empty, too


def numbers(table, *cells):
    found = table("a;b\n" + "".join(f"{cell};1\n" for cell in cells))
    faults = Faults(found)
    return found.numbers(["a"], faults)[0].tolist(), faults.sentences()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["19,85"], [19.85]),
        (["-0,5", "1,234"], [-0.5, 1.234]),
        (["1.234,5", "2,5e3"], [1234.5, 2500.0]),
        (["1,234.5", "1,234"], [1234.5, 1234.0]),
        (["+1.5", ".5", "5.", "1e3", "1.234"], [1.5, 0.5, 5.0, 1000.0, 1.234]),
        (["0,5", "0.5"], [0.5, 0.5]),
    ],
)
def test_decimal_signs(table, cells, expected):
    assert numbers(table, *cells) == (expected, [])


@pytest.mark.parametrize(
    ("cells", "line"),
    [(["1,234"], 2), (["0,5", "1.234"], 3), (["1.234,5", "1,234.5", "1,234"], 4)],
)
def test_numbers_that_can_be_read_in_two_ways(table, cells, line):
    found, sentences = numbers(table, *cells)
    assert any(
        s.startswith(f"line {line}: a = {cells[-1]}: must be a number with one sign") for s in sentences
    )
    assert np.isnan(found[-1])


@pytest.mark.parametrize(
    "cell", ["1_000", "0x10", "nan", "inf", "1e999", "٣", "1 000", "1,2,3", "--1", "1e", "True"]
)
def test_cells_that_are_no_numbers(table, cell):
    found, sentences = numbers(table, cell)
    assert sentences == [f"line 2: a = {cell}: must be a number"]
    assert np.isnan(found[0])


def test_separator_where_the_header_holds_several(table):
    found = table("time;Haus 1,1;Haus 2\n2026-01-15;0,5;1,5\n")
    assert found.names == ["time", "Haus 1,1", "Haus 2"]
    found = table('time,"a;b"\n2026-01-15,1\n')
    assert found.names == ["time", "a;b"]
    with pytest.raises(ScenarioError, match="may be separated by comma or semicolon; put names"):
        table("time;a,b\n1;2,3\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: the first line must name the columns"),
        (b"\n \n,,\n", "is empty"),
        (b"a,b\n1,\xe4\n", "is no text in UTF-8 (byte 0xe4 on line 2): save it as UTF-8"),
        (b"a,b\n1,\0\n", "line 2: holds a NUL character"),
        (b"a,a\n1,2\n", "column a is there twice"),
        (b'a,b\n1,"2\n', 'a quote (") is opened and never closed'),
        (b"a," + b"b" * 300 + b"\n1,2\n", "the name of column 2 has 300 characters: must have at most 200"),
    ],
)
def test_tables_at_fault(table, content, sentence):
    with pytest.raises(ScenarioError, match=re.escape(sentence)):
        table(content)


def test_rows_unlike_the_header_and_long_cells(table):
    found = table("a,b\n1\n" + "2" * 140_000 + ",2\n3,4,5\n6,7\n")
    faults = Faults(found)
    faults.rows_unlike_header()
    found.names_of("a", faults)
    assert faults.sentences() == [
        "line 2: has 1 values: must have 2 as the header",
        "line 4: has 3 values: must have 2 as the header",
        "line 3: a has 140000 characters: must have at most 200",
    ]
    assert found.lines([0, 1]) == [3, 5]


def test_a_million_faults_are_twenty_lines(table):
    found = table("a,b\n" + "x,y\n" * 100_000)
    faults = Faults(found)
    found.numbers(["a", "b"], faults)
    assert len(faults.sentences()) == 21
    assert faults.sentences()[-1] == "and 199980 more such lines"


def test_parquet_of_other_kinds(tmp_path):
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame(
        {
            "whole": [1, 2], "big": np.array([2**63, 2**64 - 1], np.uint64), "text": ["1,5", " "],
            "kind": pd.Categorical(["a", "b"]), "flag": [True, False], "bytes": [b"1", b"2"],
            "list": [[1], [2]], "nan": [1.0, np.nan],
        },
        index=[5, 6],
    )  # fmt: skip
    frame.to_parquet(path)
    found = read_table(path)
    assert found.names == list(frame)
    faults = Faults(found)
    values = found.numbers(["whole", "big", "text", "nan"], faults)
    assert not faults
    assert values[0].tolist() == [1.0, 2.0]
    assert values[1].tolist() == [2.0**63, 2.0**64]
    assert values[2][0] == 1.5
    assert found.empty("text").tolist() == found.empty("nan").tolist() == [False, True]
    assert found.text("kind") == ["a", "b"]
    assert found.text("nan") == ["1", ""]
    for name in ("flag", "bytes", "list"):
        faults = Faults(found)
        assert np.isnan(found.numbers([name], faults)[0]).all()
        assert len(faults.sentences()) == 2


# ---- files ---------------------------------------------------------------------------------------


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path, sentence in (
        (tmp_path, "is a folder: must be a file"), (tmp_path / "pipe.csv", "is a pipe or device"),
        ("/dev/zero", "is a pipe or device"), (tmp_path / "none.csv", "there is no such file"),
        ("a\0b", "can't be read"), (tmp_path / ("x" * 300), "can't be read: File name too long"),
    ):  # fmt: skip
        with pytest.raises(ScenarioError, match=sentence):
            read_table(path)


def test_size_is_bounded(tmp_path):
    path = tmp_path / "large.csv"
    with path.open("wb") as stream:
        stream.truncate(600 * 2**20)
    with pytest.raises(ScenarioError, match="has 600 MiB: must have at most 512 MiB"):
        read_text(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "line 1: is no JSON"), ("[" * 100_000, "is nested too deeply"), ('{"a": NaN}', "holds NaN"),
        ('{"a": 1, "b": 2, "a": 3}', "the key a is there twice"), ("1" * 5000, "can't be read as JSON"),
        ("", "line 1: is no JSON"),
    ],
)  # fmt: skip
def test_json_at_fault(tmp_path, text, sentence):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=sentence):
        read_json(path)
    path.write_text(json.dumps({"ü": 1}), encoding="utf-8-sig")
    assert read_json(path) == {"ü": 1}


def test_csv_where_helics_was_loaded_first(tmp_path):
    """HELICS brings a C++ library of its own, after which Arrow printed its column names as "f", "f" """
    (tmp_path / "a.csv").write_text("time,kw\n0,1.5\n60,2.5\n")
    script = (
        "import helics; from pathlib import Path; from evgrid.readers.tables import read_table;"
        "print(read_table(Path('a.csv')).text('kw'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "['1.5', '2.5']", done.stderr
