"""Rates of OpenEI's database: what is read, hour by hour, and what is refused by name."""

import json

import numpy as np
import pytest

from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.scenario import scenario_from
from evgrid.scenario.tariff_forms.seasons import SeasonTariff
from evgrid.scenario.tariffs import prices_of

MINIMAL = {"name": "t", "time": {"start": "2026-01-15T00:00"}, "feeder": {"network": "european_lv"}}
PEAK = [0] * 16 + [1] * 5 + [0] * 3
SUMMER = [2] * 24
RATE = {
    "label": "a",
    "utility": "Example",
    "name": "TOU",
    "energyratestructure": [[{"rate": 0.1, "adj": 0.01}], [{"rate": 0.3, "sell": 0.05}], [{"rate": 0.2}]],
    "energyweekdayschedule": [PEAK] * 5 + [SUMMER] * 3 + [PEAK] * 4,
    "energyweekendschedule": [[0] * 24] * 5 + [SUMMER] * 3 + [[0] * 24] * 4,
}
TIERS = [[{"max": 300, "rate": 0.1}, {"max": 800, "rate": 0.2, "adj": 0.01}, {"rate": 0.4}]]
FLAT = {"energyweekdayschedule": [[0] * 24] * 12, "energyweekendschedule": [[0] * 24] * 12}


def tariff_of(folder, rate=None, several=None, settings=None, **more):
    content = several if several is not None else {**RATE, **(rate or {})}
    (folder / "rate.json").write_text(json.dumps(content))
    given = {"urdb": {"file": "rate.json", **(settings or {})}, **more}
    return scenario_from({**MINIMAL, "tariff": given}, folder=folder).tariff


def on(tariff, day):
    """Price and credit of each hour of a day."""
    clock = Clock(np.datetime64(day), 3600.0, 24)
    return prices_of(tariff, None, clock).means(np.arange(25) * 3600.0)


def test_prices_and_credits_hour_by_hour(tmp_path):
    tariff = tariff_of(tmp_path)
    assert isinstance(tariff, SeasonTariff)
    assert (tariff.name, tariff.currency) == ("Example, TOU", "USD")
    drawn, given = on(tariff, "2026-01-15")  # a Thursday
    np.testing.assert_allclose(drawn, [0.11] * 16 + [0.3] * 5 + [0.11] * 3)
    np.testing.assert_allclose(given, [0.0] * 16 + [0.05] * 5 + [0.0] * 3)
    assert [period.export_per_kwh for period in tariff.seasons[0].periods] == [0.05, 0.0]
    np.testing.assert_allclose(on(tariff, "2026-01-17")[0], 0.11)
    np.testing.assert_allclose(on(tariff, "2026-07-15")[0], 0.2)


def test_net_metering_credits_what_is_drawn(tmp_path):
    drawn, given = on(tariff_of(tmp_path, {"dgrules": "Net Metering"}), "2026-01-15")
    np.testing.assert_allclose(given, drawn)


def test_monthly_adjustments_and_holidays(tmp_path):
    fuel = {"fueladjustmentsmonthly": [0.02] + [0] * 11}
    tariff = tariff_of(tmp_path, fuel, holidays=["2026-01-15"])
    np.testing.assert_allclose(on(tariff, "2026-01-15")[0], 0.13)  # a holiday: no peak
    np.testing.assert_allclose(on(tariff, "2026-01-16")[0], [0.13] * 16 + [0.32] * 5 + [0.13] * 3)
    np.testing.assert_allclose(on(tariff, "2026-02-03")[0], [0.11] * 16 + [0.3] * 5 + [0.11] * 3)


def test_public_holidays_of_a_country(tmp_path):
    pytest.importorskip("holidays")
    tariff = tariff_of(tmp_path, holidays={"country": "US", "subdivision": "CA"})
    np.testing.assert_allclose(on(tariff, "2026-11-26")[0], 0.11)  # Thanksgiving
    np.testing.assert_allclose(on(tariff, "2027-01-01")[0], 0.11)  # of another year
    assert on(tariff, "2026-11-25")[0].max() == pytest.approx(0.3)
    with pytest.raises(ScenarioError, match=r"holidays: .*(XX|not available)"):
        tariff_of(tmp_path, holidays={"country": "XX"})
    with pytest.raises(ScenarioError, match=r"holidays\.0 = x: "):
        tariff_of(tmp_path, holidays=["x"])


def test_tiers_become_blocks(tmp_path):
    tariff = tariff_of(tmp_path, {**FLAT, "energyratestructure": TIERS}, settings={"other_kwh": 200})
    (period,) = tariff.seasons[0].periods
    assert period.price_per_kwh == 0.1
    assert [(b.above_kwh, b.price_per_kwh) for b in period.blocks] == [
        (300, pytest.approx(0.21)),
        (800, 0.4),
    ]
    # 700 kWh on top of 200: 100 in the first tier, 500 in the second (0.11 more), 100 in the third (0.3 more)
    assert tariff.block_charge(np.array([[700.0]])) == pytest.approx(500 * 0.11 + 100 * 0.3)


def test_demand_charges_with_tiers_windows_and_ratchets(tmp_path):
    rate = {
        "flatdemandstructure": [[{"rate": 4.0}], [{"max": 50, "rate": 6.0, "adj": 1}, {"rate": 5.0}]],
        "flatdemandmonths": [0] * 5 + [1] * 3 + [0] * 4,
        "demandratestructure": [[{"rate": 0}], [{"rate": 9}]],
        "demandweekdayschedule": [PEAK] * 12,
        "demandweekendschedule": [[0] * 24] * 12,
        "demandratchetpercentage": [0] * 8 + [0.8] * 4,
        "demandwindow": 30,
        "demandrateunit": "kW",
    }
    demand = tariff_of(tmp_path, rate, settings={"demand_of": "feeder"}).demand
    assert (demand.interval, demand.of, len(demand.windows)) == (1800.0, "feeder", 1)
    months = np.arange("2026-06", "2026-10", dtype="datetime64[M]")
    # June 60 kW: 50 x 7 + 10 x 5; July 40 x 7; August 0; September at least 0.8 x 60 = 48 kW, x 4
    peaks, peak = np.array([[60.0, 40.0, np.nan, 10.0]]), np.array([[[20.0, np.nan, np.nan, 10.0]]])
    assert demand.charge(peaks, peak, months) == pytest.approx(400 + 280 + 192 + 9 * 30)
    assert demand.price(9) == 0.0  # of what plans can go by


def test_a_ratchet_by_the_lookback_fields(tmp_path):
    """Half of the highest of the three months before, of which only June to August count."""
    rate = {
        "flatdemandstructure": [[{"rate": 1.0}]],
        "lookbackPercent": 0.5,
        "lookbackRange": 3,
        "lookbackMonths": [0] * 5 + [1] * 3 + [0] * 4,
    }
    demand = tariff_of(tmp_path, rate).demand
    assert demand.prices[0].ratchet.of_months == (6, 7, 8)
    months = np.arange("2026-05", "2026-12", dtype="datetime64[M]")
    peaks = np.array([[90.0, 20.0, 0.0, 8.0, 0.0, 0.0, 0.0]])
    # May to November: 90, 20, 10 (half of June), 10, 10 (of June to August), 4 (of July to September), 4
    assert demand.charge(peaks, np.zeros((1, 0, 7)), months)[0] == 90 + 20 + 10 + 10 + 10 + 4 + 4


def test_one_of_several_rates(tmp_path):
    several = {"items": [RATE, {**RATE, "label": "b", "name": "Other"}]}
    assert tariff_of(tmp_path, several=several, settings={"label": "b"}).name == "Example, Other"
    with pytest.raises(ScenarioError, match="rate.json: label: must be one of a, b"):
        tariff_of(tmp_path, several=several)


def test_a_rate_is_named_alone_and_kept_in_the_scenario(tmp_path):
    tariff_of(tmp_path)
    scenario = scenario_from({**MINIMAL, "tariff": "rate.json"}, folder=tmp_path)
    (tmp_path / "rate.json").unlink()
    again = scenario_from(scenario.model_dump(mode="json", exclude_none=True))
    assert again.tariff == scenario.tariff


def test_what_a_rate_leaves_out_is_said_in_a_note(tmp_path):
    rate = {"mincharge": 5, "minchargeunits": "$/month", "enddate": 1767312000}  # 2 January 2026
    tariff = tariff_of(tmp_path, rate, settings={"leave_out": ["mincharge"]})
    assert (tariff.left_out, str(tariff.valid_until)) == (("mincharge",), "2026-01-02")
    notes = tariff.notes(Clock(np.datetime64("2026-01-15"), 60.0, 60))
    assert notes == [
        "tariff Example, TOU: left out is mincharge",
        "tariff Example, TOU: its prices hold until 2026-01-02; the run ends on 2026-01-15",
    ]


BY_HOUR = {
    "demandratestructure": [[{"rate": 3}]],
    "demandweekdayschedule": [[0] * 24] * 12,
    "demandweekendschedule": [[0] * 24] * 12,
}


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ({"demandreactivepowercharge": 2.7}, "demandreactivepowercharge: is a charge for reactive power"),
        (
            {"coincidentratestructure": [[{"rate": 3}]], "coincidentrateunit": "kW"},
            "coincidentratestructure: is a charge for power that coincides",
        ),
        ({"mincharge": 10, "minchargeunits": "$/month"}, "mincharge: is a least bill"),
        ({"energyattrs": [{"Fuel": "see sheet"}]}, "energyattrs: is further attributes"),
        ({"rider": 0.01}, "rider: is no field that evgrid knows; name it in leave_out"),
        ({**BY_HOUR, "demandrateunit": "kVA"}, "demandrateunit = kVA: must be kW"),
        ({**BY_HOUR, "demandrateunit": "kW daily"}, "demandrateunit = kW daily: must be kW"),
        (
            {"flatdemandstructure": [[{"rate": 3}]], "flatdemandunit": "hp"},
            "flatdemandunit = hp: must be kW; or name flatdemandstructure in leave_out",
        ),
        ({**BY_HOUR, "demandratchetpercentage": [0.5] * 12}, "ratchets of flatdemandstructure"),
        ({**BY_HOUR, "demandwindow": 7}, "demandwindow = 7: must be minutes that divide a day"),
        (
            {"flatdemandstructure": [[{"rate": 3}]], "demandratchetpercentage": [50] * 12},
            "demandratchetpercentage = 50: must be shares from 0 to 1",
        ),
        ({"flatdemandstructure": [[{"rate": 3}]], "flatdemandmonths": [1] * 12}, "flatdemandmonths: must be"),
        (
            {**FLAT, "energyratestructure": [[{"rate": 0.1, "unit": "kWh/kW"}]]},
            r"energyratestructure.0.0.unit = kWh/kW: must be kWh",
        ),
        ({**FLAT, "energyratestructure": [[{"rate": "x"}]]}, r"0.0.rate = x: must be a number"),
        ({**FLAT, "energyratestructure": [[{"rate": 1, "kva": 2}]]}, r"structure.0.0.kva: is no field"),
        ({**FLAT, "energyratestructure": [[{"rate": 1}, {"rate": 2}]]}, r"0.0.max = None: must be a number"),
        ({**FLAT, "energyratestructure": TIERS[0]}, "energyratestructure: must be a list of periods"),
        (
            {"energyratestructure": [TIERS[0], TIERS[0], TIERS[0]]},
            "blocks_by: state month or period, as the rate has tiers of energy and several periods",
        ),
        ({"energyweekdayschedule": [[0] * 24] * 11}, "energyweekdayschedule: must be 12 months of 24 hours"),
        ({"energyweekendschedule": [[9] * 24] * 12}, "weekendschedule: .* of a period from 0 to 2"),
        ({"fixedchargefirstmeter": 3, "fixedchargeunits": "$/fortnight"}, "units = .*: must be one of"),
        ({"startdate": 1e18}, "startdate = 1e.18: must be seconds since 1970"),
    ],
)  # fmt: skip
def test_what_evgrid_can_t_hold_is_refused_by_name(tmp_path, rate, message):
    with pytest.raises(ScenarioError, match=message):
        tariff_of(tmp_path, rate)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leave_out": ["mincharge"]}, "leave_out = mincharge: the rate has no such field"),
        ({"blocks_by": "month"}, "blocks_by and other_kwh are for tiers of energy: the rate has none"),
        ({"label": "z"}, "label = z: must be one of a"),
    ],
)
def test_settings_that_do_not_fit_the_rate(tmp_path, settings, message):
    with pytest.raises(ScenarioError, match=message):
        tariff_of(tmp_path, settings=settings)


def test_a_file_without_a_rate(tmp_path):
    with pytest.raises(ScenarioError, match="holds no rate: must have energyratestructure"):
        tariff_of(tmp_path, several={"errors": ["no key"]})


@pytest.mark.parametrize(("units", "days"), [("$/day", 1.0), ("$/year", 365.0)])
def test_fixed_charges_by_their_unit(tmp_path, units, days):
    tariff = tariff_of(tmp_path, {"fixedchargefirstmeter": 73.0, "fixedchargeunits": units})
    assert tariff.fixed_per_day == pytest.approx(73.0 / days)
    old = tariff_of(tmp_path, {"fixedmonthlycharge": 275})
    assert old.fixed_per_month == 275.0
