"""Settlement by hand: two members, three EVs, an hour of regulation each."""

import json

import numpy as np
import pytest
import xarray as xr

from evgrid.errors import ResultError, ScenarioError
from evgrid.results.settlement import Rates, amount, read_rates, settle, summary


def result(**more):
    """Member 4: a (two sessions) and b; member 5: a. Power in two intervals."""
    stamps = np.array(
        ["2026-07-01T16:00", "2026-07-01T20:00", "2026-07-01T17:00", "2026-07-01T18:00"], "M8[ns]"
    )
    data = {
        "session_energy_delivered_kwh": ("session", [10.0, 5.0, 20.0, 8.0]),
        "session_energy_discharged_kwh": ("session", [2.0, 0.0, 3.0, 0.0]),
        "session_energy_unserved_kwh": ("session", [0.0, np.nan, 1.0, 0.0]),
        "session_cost": ("session", [3.0, 1.0, 4.0, 2.0]),
        "fleet_power_kw": (("member", "time"), [[7.0, 12.0], [-3.0, -1.0]]),
        "fleet_peak_kw": (("member", "month"), [[12.0, np.nan], [-1.0, np.nan]]),
        **more,
    }
    coords = {
        "member": [4, 5],
        "month": np.array(["2026-07-01", "2026-08-01"], "M8[ns]"),
        "session_member": ("session", [4, 4, 4, 5]),
        "session_ev": ("session", ["a", "a", "b", "a"]),
        "session_arrival": ("session", stamps),
        "session_departure": ("session", stamps + np.timedelta64(3, "h")),
    }
    return xr.Dataset(data, coords, {"name": "hand"})


REGULATION = {
    "regulation_capacity_kw": (("member", "hour"), [[100.0, 200.0], [50.0, 0.0]]),
    "regulation_score": (("member", "hour"), [[0.9, 0.2], [0.8, np.nan]]),
    "regulation_credit": (("member", "hour"), [[5.0, 0.0], [2.0, np.nan]]),
}


def test_each_part_by_hand():
    rates = Rates(demand_charge=2.0, wear_per_kwh=0.1, driver_per_kwh=0.05, driver_share=0.5)
    books = settle(result(**REGULATION), rates)
    assert books.evs[["member", "ev"]].values.tolist() == [[4, "a"], [4, "b"], [5, "a"]]
    np.testing.assert_allclose(books.evs["drawn_kwh"], [15, 20, 8])
    np.testing.assert_allclose(books.evs["degradation"], [0.2, 0.3, 0.0])
    # half of 5.0 by throughput, 17 and 23 of 40 kWh; half of 2.0 to the only one
    np.testing.assert_allclose(books.evs["driver_payment"], [0.1 + 2.5 * 17 / 40, 0.15 + 2.5 * 23 / 40, 1.0])
    fleet = books.fleet
    np.testing.assert_allclose(fleet["demand_charge"], [24.0, 0.0])  # member 5 never draws
    np.testing.assert_allclose(fleet["regulation_credit"], [5.0, 2.0])
    np.testing.assert_allclose(fleet["net_cost"], [8 + 24 + 0.5 + 2.75 - 5, 2 + 0 + 0 + 1 - 2])


def test_a_regulation_credit_at_prices_of_ones_own():
    # 0.1 MW at 0.9 and 20 + 3 x 4 = 32; a score of 0.2 earns nothing; 0.05 MW at 0.8
    rates = Rates(capability_price=20.0, performance_price=4.0, mileage_ratio=3.0)
    fleet = settle(result(**REGULATION), rates).fleet
    np.testing.assert_allclose(fleet["regulation_credit"], [0.1 * 0.9 * 32, 0.05 * 0.8 * 32])


def test_credits_of_several_aggregators_and_of_reserve_are_added():
    both = {
        "regulation_credit_one": (("member", "hour"), [[1.0, 2.0], [0.0, 0.0]]),
        "reserve_credit_two": (("member", "hour"), [[4.0, 0.0], [0.5, np.nan]]),
    }
    np.testing.assert_allclose(settle(result(**both)).fleet["regulation_credit"], [7.0, 0.5])


def test_ageing_that_was_counted_takes_the_place_of_a_price_of_wear():
    counted = {"session_degradation_cost": ("session", [0.4, np.nan, 0.6, 0.1])}
    books = settle(result(**counted), Rates(wear_per_kwh=99.0))
    np.testing.assert_allclose(books.evs["degradation"], [0.4, 0.6, 0.1])


def test_against_the_same_uncontrolled():
    before = result()
    before["session_cost"] = before["session_cost"] + 1.0
    books = settle(result(), against=before)
    np.testing.assert_allclose(books.fleet["saved"], [3.0, 1.0])
    rows = dict(summary(books, "USD"))
    assert rows["saved"].startswith("2.00 USD (mean; ")
    assert rows["saved, of the uncontrolled cost"] == "28.6 %"  # 2 of 7


def billed(demand=None, days=2.0, **tariff):
    """July and August of a tariff; the site's peaks are 10 above those of the EVs."""
    nothing = [np.nan, np.nan]
    trafos = [[[20.0, 1.0], [2.0, 15.0], nothing], [[9.0, 10.0], [0.0, 0.0], nothing]]
    given = result(
        fleet_peak_kw=(("member", "month"), [[12.0, 5.0], [-1.0, np.nan]]),
        head_peak_kw=(("member", "month"), [[22.0, 15.0], [9.0, 10.0]]),
        trafo_peak_kw=(("member", "trafo", "month"), trafos),
    ).assign_coords(ev_member=("ev_row", [4, 4, 5]), ev_connection=("ev_row", ["Load 1", "Load 1", "Load 2"]))
    scenario = {"time": {"duration": days * 86400}, "tariff": tariff | ({"demand": demand} if demand else {})}
    return given.assign_attrs(scenario=json.dumps(scenario))


SUMMER = [{"months": [7], "price_per_kw": 3.0}, {"price_per_kw": 1.0}]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ("evs", [12 * 4 + 5, 0.0]),
        ("feeder", [22 * 4 + 15, 9 * 4 + 10]),
        ("transformer", [20 * 4 + 1 + 2 * 4 + 15, 9 * 4 + 10]),
    ],
)
def test_demand_charges_by_month_and_of_whom_the_tariff_bills(of, expected):
    books = settle(billed({"prices": SUMMER, "of": of}))
    assert books.fleet["demand_charge"].tolist() == expected
    assert books.fleet["net_cost"].tolist() == (np.array([8.0, 2.0]) + expected).tolist()
    own = settle(billed({"prices": SUMMER, "of": of}), Rates(demand_charge=0.0)).fleet
    assert own["demand_charge"].tolist() == [0.0, 0.0]


def test_fixed_charges_are_of_each_customer_and_day():
    """0.5 a day for two days: of one connection point a member, of two transformers, of the feeder."""
    assert settle(billed(fixed_per_day=0.5)).fleet["fixed_charge"].tolist() == [1.0, 1.0]
    for of, expected in (("transformer", [2.0, 2.0]), ("feeder", [1.0, 1.0])):
        books = settle(billed({"prices": [{"price_per_kw": 0}], "of": of}, fixed_per_day=0.5))
        assert books.fleet["fixed_charge"].tolist() == expected
    own = settle(billed(fixed_per_day=0.5), Rates(fixed_per_day=2.0))
    assert own.fleet["fixed_charge"].tolist() == [4.0, 4.0]
    assert dict(summary(own, "USD"))["fixed charges"].startswith("4.00 USD")


def test_a_result_without_what_a_demand_charge_is_for():
    with pytest.raises(
        ResultError, match="hand has no fleet_peak_kw, which a demand charge is for: run it again"
    ):
        settle(result().drop_vars("fleet_peak_kw"), Rates(demand_charge=1.0))


def test_a_share_is_of_a_positive_base_only():
    before = result()
    before["session_cost"] = -before["session_cost"]
    rows = dict(summary(settle(result(), against=before), "EUR"))
    assert rows["saved"].startswith("-10.00 EUR")
    assert "saved, of the uncontrolled cost" not in rows


@pytest.mark.parametrize(("value", "text"), [(2.84e-14, "0.00"), (-1e-3, "0.00"), (-1234.567, "-1,234.57")])
def test_amounts_as_text(value, text):
    assert amount(value) == text


def test_what_can_t_be_settled_is_reported():
    with pytest.raises(ResultError, match="hand has no EVs: there is nothing to settle"):
        settle(result().drop_vars("session_cost"))
    other = result().assign_coords(session_arrival=result()["session_arrival"] + np.timedelta64(1, "m"))
    with pytest.raises(ResultError, match="hand can't be compared with hand: it has other sessions; both"):
        settle(result(), against=other)
    with pytest.raises(ResultError, match="it has other members"):
        settle(result(), against=result().assign_coords(member=[0, 1]))


def test_rates_from_a_file(tmp_path):
    path = tmp_path / "rates.yaml"
    path.write_text("demand_charge: 12\nwear_per_kwh: 0.04\n")
    assert read_rates(path, {"wear_per_kwh": 0.1}) == Rates(demand_charge=12.0, wear_per_kwh=0.1)
    path.write_text("demand_charges: 12\ndriver_share: 1.5\n")
    with pytest.raises(ScenarioError, match="demand_charges: unknown key; did you mean 'demand_charge'"):
        read_rates(path)
    with pytest.raises(ScenarioError, match="driver_share = 1.5: must be at most 1"):
        read_rates(path)
    with pytest.raises(ScenarioError, match="there is no file .*none.yaml"):
        read_rates(tmp_path / "none.yaml")
