"""ENTSO-E's exports: units in local time with both clock changes, areas, sequences; files at fault."""

import numpy as np
import pytest

from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.readers.entsoe import read_entsoe
from evgrid.scenario import scenario_from

MINIMAL = {"name": "t", "time": {"start": "2025-10-26T00:00"}, "feeder": {"network": "european_lv"}}
HEAD = '"MTU (CET/CEST)","Area","Sequence","Day-ahead Price (EUR/MWh)"'


def unit(begin, end, price, area="BZN|BE", sequence="Without Sequence"):
    return f'"{begin} - {end}","{area}","{sequence}","{price}"'


AUTUMN = [
    unit("26/10/2025 00:00:00", "26/10/2025 01:00:00", 50),
    unit("26/10/2025 01:00:00", "26/10/2025 02:00:00 (CEST)", 40),
    unit("26/10/2025 02:00:00 (CEST)", "26/10/2025 02:00:00 (CET)", 30),
    unit("26/10/2025 02:00:00 (CET)", "26/10/2025 03:00:00", -20),
    unit("26/10/2025 03:00:00", "26/10/2025 03:15:00", 10),
    unit("26/10/2025 03:15:00", "27/10/2025 00:00:00", 60),
]


def written(folder, rows, head=HEAD):
    path = folder / "prices.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def hours(read):
    """Begin of each unit, h of UTC after the first."""
    return ((read.begin - read.begin[0]) / np.timedelta64(1, "h")).tolist()


def test_the_hour_that_comes_twice_by_its_marks(tmp_path):
    read = read_entsoe(written(tmp_path, AUTUMN))
    assert read.begin[0] == np.datetime64("2025-10-25T22:00")
    assert hours(read) == [0, 1, 2, 3, 4, 4.25]
    assert read.end[-1] == np.datetime64("2025-10-26T23:00")
    assert read.price.tolist() == [50, 40, 30, -20, 10, 60]
    assert (read.currency, read.zone.key) == ("EUR", "Europe/Brussels")


@pytest.mark.parametrize("minutes", [15, 60])
def test_the_hour_that_comes_twice_by_its_order(tmp_path, minutes):
    """An older form, without marks: the local times of a day of 25 h, as a clock on the wall shows them."""
    utc = np.arange(np.datetime64("2025-10-25T22:00"), np.datetime64("2025-10-26T23:00"), minutes)
    change = np.datetime64("2025-10-26T01:00")
    local = [(t + np.timedelta64(2 if t < change else 1, "h")).item() for t in utc]
    form = "%d.%m.%Y %H:%M"
    ends = [*local[1:], local[-1].replace(hour=23, minute=59)]
    rows = [f'"{a:{form}} - {b:{form}}",{k},EUR' for k, (a, b) in enumerate(zip(local, ends, strict=True))]
    head = '"MTU (CET/CEST)","Day-ahead Price [EUR/MWh]",Currency,"BZN|DE-LU"'
    read = read_entsoe(written(tmp_path, [f"{row}," for row in rows], head))
    assert (read.begin == utc).all()
    assert read.price.tolist() == list(range(25 * 60 // minutes))


@pytest.mark.parametrize("row", [[], [unit("30/03/2025 02:00:00", "30/03/2025 03:00:00", "n/e")]])
def test_the_hour_that_is_skipped_may_be_absent_or_without_a_price(tmp_path, row):
    rows = [
        unit("30/03/2025 00:00:00", "30/03/2025 01:00:00", 1),
        unit("30/03/2025 01:00:00", "30/03/2025 02:00:00", 2),
        *row,
        unit("30/03/2025 03:00:00", "30/03/2025 04:00:00", 3),
    ]
    read = read_entsoe(written(tmp_path, rows))
    assert hours(read) == [0, 1, 2]
    assert read.price.tolist() == [1, 2, 3]


def test_rows_of_one_area_and_one_sequence(tmp_path):
    rows = [
        unit("01/01/2025 00:00:00", "01/01/2025 01:00:00", 7, "BZN|BE", "Sequence 1"),
        unit("01/01/2025 00:00:00", "01/01/2025 01:00:00", 8, "BZN|BE", "Sequence 2"),
        unit("01/01/2025 00:00:00", "01/01/2025 01:00:00", 9, "BZN|FR", "Sequence 1"),
    ]
    path = written(tmp_path, rows)
    assert read_entsoe(path, "BZN|BE", "Sequence 2").price.tolist() == [8]
    with pytest.raises(ScenarioError, match=r"area: must be one of those of the file, BZN\|BE, BZN\|FR"):
        read_entsoe(path)
    with pytest.raises(
        ScenarioError, match="sequence = Sequence 2: must be one of those of the file, Sequen"
    ):
        read_entsoe(path, "BZN|FR", "Sequence 2")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [unit("30/03/2025 02:00:00", "30/03/2025 03:00:00", 5)],
            "no such time in Europe/Brussels, but a price",
        ),
        ([AUTUMN[0], AUTUMN[2]], r"line 3: gap of 3600 s from the line before"),
        ([AUTUMN[1], AUTUMN[0]], r"line 3: must be after the line before"),
        ([AUTUMN[0].replace("50", "n/e")], r"line 2: .* = n/e: must be a price"),
        ([AUTUMN[0].replace("50", "much")], r"line 2: .* = much: must be a price"),
        (["26.10.2025,x,y,3"], r"must be a range such as 26/10/2025 02:00:00 \(CEST\) - "),
        ([AUTUMN[0].replace("26/10", "31/02", 1)], "must be a range such as"),
        ([], "has no prices"),
    ],
)
def test_files_at_fault_are_refused(tmp_path, rows, message):
    with pytest.raises(ScenarioError, match=message):
        read_entsoe(written(tmp_path, rows))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD.replace("CET/CEST", "local"), r"must be one of 'MTU \(UTC\)', 'MTU \(CET/CEST\)'"),
        (HEAD.replace("EUR/MWh", "EUR/GJ"), "has 0 columns of prices: must have one such as"),
    ],
)
def test_other_headers_are_refused(tmp_path, head, message):
    with pytest.raises(ScenarioError, match=message):
        read_entsoe(written(tmp_path, AUTUMN, head))


def tariff(tmp_path, rows=AUTUMN, **more):
    written(tmp_path, rows)
    file = {"file": "prices.csv"} | more.pop("entsoe", {})
    content = {"name": "da", "currency": "EUR", "entsoe": file, **more}
    return scenario_from({**MINIMAL, "tariff": content, **more.pop("scenario", {})}, folder=tmp_path)


def test_a_runs_local_clock_takes_the_first_of_the_hour_that_comes_twice_and_says_so(tmp_path):
    scenario = tariff(tmp_path)
    drawn, given = scenario.prices.means(np.array([0, 1, 2, 3, 3.25, 24.0]) * 3600)
    np.testing.assert_allclose(drawn, [0.05, 0.04, 0.03, 0.01, 0.06])
    np.testing.assert_array_equal(drawn, given)
    (note,) = scenario.tariff.notes(scenario.clock)
    assert note.startswith("clocks change in the run (Europe/Brussels, 2025-10-26T")
    quiet = Clock(np.datetime64("2025-10-27T00:00"), 60.0, 60)
    assert scenario.tariff.notes(quiet) == []


def test_a_run_in_utc_takes_all_prices(tmp_path):
    rows = [unit("25/10/2025 00:00:00", "26/10/2025 00:00:00", 90), *AUTUMN]
    content = {"name": "da", "currency": "EUR", "entsoe": {"file": "prices.csv", "timezone": "UTC"}}
    time = {"start": "2025-10-25T22:00", "duration": "24h"}
    written(tmp_path, rows)
    scenario = scenario_from({**MINIMAL, "time": time, "tariff": content}, folder=tmp_path)
    drawn, _ = scenario.prices.means(np.array([0, 1, 2, 3, 4, 4.25, 25.0]) * 3600)
    np.testing.assert_allclose(drawn, [0.05, 0.04, 0.03, -0.02, 0.01, 0.06])
    assert scenario.tariff.notes(scenario.clock) == []


def test_surcharge_and_tax_are_of_energy_drawn(tmp_path):
    scenario = tariff(tmp_path, surcharge_per_kwh=0.1, vat_percent=20, export_per_kwh=0.05)
    drawn, given = scenario.prices.means(np.array([0, 1, 2.0]) * 3600)
    np.testing.assert_allclose(drawn, [0.18, 0.168])
    np.testing.assert_allclose(given, 0.05)


def test_currency_and_cover_must_fit(tmp_path):
    written(tmp_path, AUTUMN)
    content = {"name": "da", "entsoe": {"file": "prices.csv"}}
    with pytest.raises(ScenarioError, match="currency = USD: the prices of the file are in EUR"):
        _ = scenario_from({**MINIMAL, "tariff": content}, folder=tmp_path).prices
    late = {**MINIMAL, "time": {"start": "2025-10-26T12:00"}, "tariff": {**content, "currency": "EUR"}}
    with pytest.raises(ScenarioError, match="covers 2025-10-26T00:00.* to 2025-10-27T00:00"):
        _ = scenario_from(late, folder=tmp_path).prices
