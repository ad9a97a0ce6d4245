"""Tariffs: the shipped prices hour by hour, and what a tariff file may not say."""

import numpy as np
import pytest

from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.scenario import scenario_from
from evgrid.scenario.tariffs import Tariff, prices_of, read_tariff, shipped_tariffs, tariff_from

MINIMAL = {"name": "t", "time": {"start": "2026-01-15T00:00"}, "feeder": {"network": "european_lv"}}


def prices_on(day: str, tariff: Tariff, step_s: float = 3600.0) -> tuple[np.ndarray, np.ndarray]:
    """Price and credit of each step of a day."""
    clock = Clock(np.datetime64(day), step_s, round(86400 / step_s))
    prices = prices_of(tariff, None, clock)
    assert prices is not None
    return prices.means(np.arange(clock.ticks + 1) * step_s)


@pytest.mark.parametrize(
    ("name", "day", "expected"),
    [
        # PG&E EV2-A: off-peak to 15 h, part-peak 15-16, peak 16-21, part-peak to midnight
        ("pge_ev2a", "2026-07-01", [0.23] * 15 + [0.43] + [0.54] * 5 + [0.43] * 3),
        ("pge_ev2a", "2026-01-15", [0.23] * 15 + [0.39] + [0.41] * 5 + [0.39] * 3),
        # SCE TOU-D-PRIME: a summer Wednesday, a summer Sunday, a winter Sunday
        ("sce_tou_d_prime", "2026-07-01", [0.26] * 16 + [0.59] * 5 + [0.26] * 3),
        ("sce_tou_d_prime", "2026-07-05", [0.26] * 16 + [0.40] * 5 + [0.26] * 3),
        ("sce_tou_d_prime", "2026-01-18", [0.24] * 16 + [0.56] * 5 + [0.24] * 3),
    ],
)
def test_shipped_prices_hour_by_hour(name, day, expected):
    tariff = tariff_from(read_tariff(name))
    drawn, given = prices_on(day, tariff)
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(given, expected)  # no export price: as drawn


def test_every_shipped_tariff_is_valid_and_names_its_source():
    for name in shipped_tariffs():
        tariff = tariff_from(read_tariff(name))
        assert tariff.source
        assert tariff.valid_from


def test_an_export_price_holds_at_every_hour():
    tariff = tariff_from({**read_tariff("pge_ev2a"), "export_per_kwh": 0.08})
    np.testing.assert_array_equal(prices_on("2026-07-01", tariff)[1], 0.08)


def season(**changes):
    return {
        "name": "all",
        "months": list(range(1, 13)),
        "periods": [{"name": "p", "price_per_kwh": 1}],
        **changes,
    }


def windows(first, price=1.0, rest=2.0, **more):
    """A tariff of one window, and the rest."""
    periods = [{"name": "first", "price_per_kwh": price, **first}, {"name": "rest", "price_per_kwh": rest}]
    return {"name": "x", "seasons": [season(periods=periods)], **more}


def minutes(tariff, day):
    """The times of a day at which the first window holds, as (begin, end) in minutes from midnight."""
    cheap = prices_on(day, tariff_from(tariff), 60.0)[0] == 1.0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], cheap, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("first", "day", "expected"),
    [
        ({"hours": [[0.5, 5.5]]}, "2026-01-15", [(30, 330)]),
        ({"hours": [["00:30", "05:30"], ["13:15", 16]]}, "2026-01-15", [(30, 330), (795, 960)]),
        ({"hours": [["23:30", "6:30"]]}, "2026-01-15", [(0, 390), (1410, 1440)]),
        ({"hours": [[22, 0]]}, "2026-01-15", [(1320, 1440)]),
        ({"hours": [[22, 24]]}, "2026-01-15", [(1320, 1440)]),
        ({"hours": [[0, 24]], "days": "saturday"}, "2026-01-17", [(0, 1440)]),
        ({"days": "saturday"}, "2026-01-17", [(0, 1440)]),
        ({"days": "saturday"}, "2026-01-18", []),
        # a window over midnight belongs to the day on which it begins: Friday's ends on Saturday morning
        ({"hours": [[22, 6]], "days": "friday"}, "2026-01-16", [(1320, 1440)]),
        ({"hours": [[22, 6]], "days": "friday"}, "2026-01-17", [(0, 360)]),
        ({"hours": [[22, 6]], "days": ["weekend", "friday"]}, "2026-01-17", [(0, 360), (1320, 1440)]),
        ({"hours": [[22, 6]], "days": ["weekend", "friday"]}, "2026-01-19", [(0, 360)]),
        ({"hours": [[16, 21]], "days": "weekday"}, "2026-12-25", []),  # a Friday, and a holiday
        ({"hours": [[16, 21]], "days": "sunday"}, "2026-12-25", [(960, 1260)]),
        ({"hours": [[22, 6]], "days": "sunday"}, "2026-12-26", [(0, 360)]),
    ],
)
def test_windows_to_the_minute_on_days_of_the_week(first, day, expected):
    assert minutes(windows(first, holidays=["2026-12-25"]), day) == expected


def test_the_morning_after_a_window_is_of_the_season_of_its_date():
    night = [{"name": "night", "hours": [[22, 6]], "price_per_kwh": 1}, {"name": "rest", "price_per_kwh": 2}]
    tariff = {
        "name": "x",
        "seasons": [
            season(months=[6], periods=night),
            season(name="other", months=[1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]),
        ],
    }
    tariff["seasons"][1]["periods"][0]["price_per_kwh"] = 3
    assert minutes(tariff, "2026-06-30") == [(0, 360), (1320, 1440)]
    assert minutes(tariff, "2026-07-01") == []


def test_thirty_kwh_in_the_night_hours():
    """00:30 to 05:30 at 0.085, else 0.30: 30 kWh at 6 kW over the night cost 2.55, at any tick."""
    tariff = tariff_from(windows({"hours": [["00:30", "05:30"]]}, 0.085, 0.30))
    for step_s in (60.0, 900.0, 3600.0):
        drawn = prices_on("2026-01-16", tariff, step_s)[0]
        begins_h = np.arange(len(drawn)) * step_s / 3600
        share = np.clip(np.minimum(begins_h + step_s / 3600, 5.5) - np.maximum(begins_h, 0.5), 0, None)
        if step_s < 3600:
            assert 6.0 * (share @ drawn) == pytest.approx(2.55)
        else:  # half of the first and of the last hour is dear
            np.testing.assert_allclose(drawn[[0, 1, 4, 5, 6]], [0.1925, 0.085, 0.085, 0.1925, 0.3])


def test_prices_from_a_file_stand_beside_the_tariff(tmp_path):
    folder = tmp_path / "tariffs"
    folder.mkdir()
    rows = {"00:00": 80, "12:00": -40, "12:15": 120, "23:00": 120}
    lines = ["time,eur", *(f"2026-05-05T{at},{price}" for at, price in rows.items())]
    (folder / "da.csv").write_text("\n".join(lines))
    (folder / "back.csv").write_text("time,eur\n0,0.02\n43200,0.03\n")
    (folder / "da.yaml").write_text(
        "name: da\ncurrency: EUR\n"
        "prices: {file: da.csv, per: MWh}\nexport_prices: {file: back.csv, per: kWh}\n"
    )
    scenario = scenario_from(
        {**MINIMAL, "time": {"start": "2026-05-05T00:00"}, "tariff": "tariffs/da.yaml"}, folder=tmp_path
    )
    drawn, given = scenario.prices.means(np.array([0, 11.75, 12, 12.25, 12.5, 13, 24.0]) * 3600)
    np.testing.assert_allclose(drawn, [0.08, 0.08, -0.04, 0.12, 0.12, 0.12])
    np.testing.assert_allclose(given, [0.02, 0.02, 0.03, 0.03, 0.03, 0.03])
    assert scenario.currency == "EUR"
    np.testing.assert_allclose(scenario.prices.edges(0.0, 50000.0), [43200.0, 44100.0])


def test_wholesale_prices_are_what_energy_costs_where_there_is_no_tariff(tmp_path):
    (tmp_path / "lmp.csv").write_text("time,lmp\n0,50\n3600,-10\n7200,30\n90000,0\n")
    system = {"energy_price": {"file": "lmp.csv", "currency": "EUR"}}
    scenario = scenario_from({**MINIMAL, "system": system}, folder=tmp_path)
    drawn, given = scenario.prices.means(np.array([0.0, 1800, 5400, 7200]))
    np.testing.assert_allclose(drawn, [0.05, 0.02, -0.01])
    np.testing.assert_array_equal(drawn, given)
    assert scenario.currency == "EUR"
    with pytest.raises(ScenarioError, match="energy_price.currency = EUR: must be that of the tariff, USD"):
        scenario_from({**MINIMAL, "system": system, "tariff": "pge_ev2a"}, folder=tmp_path)
    assert scenario_from(MINIMAL).prices is None


@pytest.mark.parametrize(
    ("tariff", "message"),
    [
        ({"name": "x", "seasons": [season(months=[1, 2])]}, "cover each month of the year once"),
        (
            {
                "name": "x",
                "seasons": [season(periods=[{"name": "p", "hours": [[1, 2]], "price_per_kwh": 1}])],
            },
            "last period of season all must hold all days and have no hours",
        ),
        (
            {
                "name": "x",
                "seasons": [
                    season(
                        periods=[
                            {"name": "night", "hours": [[22, 22]], "price_per_kwh": 1},
                            {"name": "rest", "price_per_kwh": 2},
                        ]
                    )
                ],
            },
            r"tariff\.seasons\.0\.periods\.0\.hours\.0: must be two different times of day",
        ),
        (
            windows({"hours": [["22:30:20", 6]]}),
            r"periods\.0\.hours\.0: must be whole minutes, such as \['22:30', 6\]",
        ),
        (windows({"hours": [["25:30", 6]]}), r"hours\.0\.0 = 25:30: must be a time of day such as 22:30"),
        (
            windows({"days": "mondays"}),
            r"periods\.0\.days\.0 = mondays: must be 'all', 'weekday', 'weekend', ",
        ),
        (windows({"days": []}), r"periods\.0\.days: "),
        ({"name": "x"}, "tariff: give either entsoe or prices or seasons or urdb"),
        (
            {"name": "x", "seasons": [season()], "prices": 3},
            "tariff: give either entsoe or prices or seasons or urdb",
        ),
        (
            {"name": "x", "prices": {"file": "none.csv", "per": "MWh"}},
            r"tariff\.prices\.file = none.csv: there is no",
        ),
        ({"seasons": [season()]}, r"tariff\.name: is required"),
        ({"name": "x", "prices": {"file": __file__}}, r"tariff\.prices\.per: is required"),
        (
            {"name": "x", "prices": {"file": __file__, "per": "MWh"}, "holidays": ["2026-12-25"]},
            "holidays are for windows of energy or of demand: the tariff has none",
        ),
        (
            {**windows({}), "export_per_kwh": 0.1, "export_prices": {"file": __file__, "per": "kWh"}},
            "give either export_per_kwh or export_prices",
        ),
        ("nowhere", "tariff = nowhere: must be one of pge_ev2a, sce_tou_d_prime, or the path"),
        ("nowhere.yaml", "there is no file .*nowhere.yaml"),
    ],
)
def test_bad_tariffs_are_refused(tariff, message):
    with pytest.raises(ScenarioError, match=message):
        scenario_from({**MINIMAL, "tariff": tariff})


def test_a_tariff_file_stands_beside_the_scenario(tmp_path):
    (tmp_path / "flat.yaml").write_text(
        "name: flat\nseasons:\n  - name: all\n    months: [1,2,3,4,5,6,7,8,9,10,11,12]\n"
        "    periods: [{name: all, price_per_kwh: 0.3}]\n"
    )
    scenario = scenario_from({**MINIMAL, "tariff": "flat.yaml"}, folder=tmp_path)
    assert scenario.tariff is not None
    np.testing.assert_array_equal(prices_on("2026-05-05", scenario.tariff)[0], 0.3)


def test_a_run_before_the_prices_held_says_so():
    tariff = tariff_from(read_tariff("pge_ev2a"))
    assert tariff.notes(Clock(np.datetime64("2026-03-01T00:00"), 60.0, 1440)) == []
    says = "tariff PG&E EV2-A: its prices hold from 2026-03-01 on; the run begins on 2026-01-15"
    assert tariff.notes(Clock(np.datetime64("2026-01-15T12:00"), 60.0, 1440)) == [says]
