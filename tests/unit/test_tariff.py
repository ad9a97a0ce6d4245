"""Tariffs: the shipped prices hour by hour, and what a tariff file may not say."""

import numpy as np
import pytest

from evgrid.errors import ScenarioError
from evgrid.scenario import scenario_from
from evgrid.tariff import Tariff, prices, read_tariff, shipped_tariffs

MINIMAL = {"name": "t", "time": {"start": "2026-01-15T00:00"}, "feeder": {"network": "european_lv"}}


def hours_of(day: str) -> np.ndarray:
    return np.datetime64(day, "h") + np.arange(24).astype("timedelta64[h]")


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
    tariff = Tariff.model_validate(read_tariff(name))
    drawn, given = prices(tariff, hours_of(day))
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(given, expected)  # no export price: as drawn


def test_every_shipped_tariff_is_valid_and_names_its_source():
    for name in shipped_tariffs():
        tariff = Tariff.model_validate(read_tariff(name))
        assert tariff.source
        assert tariff.valid_from


def test_an_export_price_holds_at_every_hour():
    tariff = Tariff.model_validate({**read_tariff("pge_ev2a"), "export_per_kwh": 0.08})
    np.testing.assert_array_equal(prices(tariff, hours_of("2026-07-01"))[1], 0.08)


def season(**changes):
    return {
        "name": "all",
        "months": list(range(1, 13)),
        "periods": [{"name": "p", "price_per_kwh": 1}],
        **changes,
    }


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
                            {"name": "night", "hours": [[22, 6]], "price_per_kwh": 1},
                            {"name": "rest", "price_per_kwh": 2},
                        ]
                    )
                ],
            },
            r"tariff\.seasons\.0\.periods\.0\.hours\.0: must be \[from, to\) with from < to, not \[22, 6\]",
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
    np.testing.assert_array_equal(prices(scenario.tariff, hours_of("2026-05-05"))[0], 0.3)
