"""One law of prices: strategies, costs, the bound, the study and the books go by the same series."""

import numpy as np
import pytest

import evgrid
from evgrid.errors import ScenarioError
from evgrid.results.settlement import settle
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.studies.comparison import run_here
from evgrid.studies.managed_charging import ManagedCharging
from evgrid.studies.oracle import least_cost

ARRIVAL_H, DEPARTURE_H, ENERGY_KWH, POWER_KW = 6.0, 23.75, 20.0, 11.0
"""The car's stay in hours from noon: 18:00 to 11:45."""


def hour_prices():
    """Price of each quarter hour from noon on, per MWh: hourly until midnight; some are negative."""
    quarters = np.arange(96)
    price = np.where(quarters < 48, 90.0 + 3.0 * (quarters // 4), 40.0 + 7.0 * np.cos(2.1 * quarters))
    return np.where(quarters >= 92, -5.0 - quarters, price).round(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prices")
    price = hour_prices()
    rows = [(h * 3600, price[4 * h]) for h in range(12)] + [(q * 900, price[q]) for q in range(48, 96)]
    (folder / "da.csv").write_text("time,eur\n" + "\n".join(f"{at},{value}" for at, value in rows))
    row = f"car,Load R1,2025-09-30T18:00,2025-10-01T11:45,{ENERGY_KWH:g},11"
    (folder / "s.csv").write_text(f"ev,connection,arrival,departure,energy_kwh,charge_kw\n{row}\n")
    return folder


BASE = {
    "name": "da",
    "time": {"start": "2025-09-30T12:00", "duration": "24h", "step": "15min"},
    "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
    "fleet": {"sessions": {"file": "s.csv"}, "charger": {"power_kw": 11, "phases": 3}},
    "communication": {"telemetry": "15min"},
}
SERIES = {
    "system": {"system": {"energy_price": {"file": "da.csv", "currency": "EUR"}}},
    "tariff": {"tariff": {"name": "da", "currency": "EUR", "prices": {"file": "da.csv", "per": "MWh"}}},
}
EVENT = {"name": "e", "start": "2025-09-30T18:00", "duration": "1h"}


def least():
    """The cheapest quarter hours of the stay, by sorting."""
    inside = np.sort(hour_prices()[round(4 * ARRIVAL_H) : round(4 * DEPARTURE_H)]) / 1000.0
    full = int(ENERGY_KWH / (POWER_KW / 4))
    return POWER_KW / 4 * inside[:full].sum() + (ENERGY_KWH - POWER_KW / 4 * full) * inside[full]


def priced(folder, source, strategy=None, **more):
    aggregators = {} if strategy is None else {"main": {"strategy": strategy}}
    return scenario_from({**BASE, **SERIES[source], "aggregators": aggregators, **more}, folder=folder)


@pytest.mark.parametrize("source", SERIES)
@pytest.mark.parametrize("strategy", ["tou", "scheduled", "arbitrage", "demand_response"])
def test_every_strategy_that_goes_by_prices_finds_the_cheapest_quarter_hours(folder, source, strategy):
    more = dict(SERIES[source])
    if strategy == "demand_response":
        more["system"] = {**more.get("system", {}), "events": [EVENT]}
    result = evgrid.run(priced(folder, source, strategy, **more))
    assert float(result["session_energy_delivered_kwh"][0]) == pytest.approx(ENERGY_KWH)
    assert float(result["session_cost"][0]) == pytest.approx(least(), rel=1e-9)
    assert settle(result).fleet["energy_cost"].tolist() == pytest.approx([least()])
    assert result.attrs["currency"] == "EUR"


def test_the_bound_goes_by_the_same_prices(folder):
    for source in SERIES:
        assert least_cost(build_world(priced(folder, source))).cost == pytest.approx([least()])


def test_the_bound_resolves_windows_that_part_its_slots(folder):
    """20 kWh at 11 kW: 35 min at 0.10 from 21:05 on, and the rest, 20 - 6.4167, at 0.50."""
    windows = [{"name": "w", "hours": [["21:05", "21:40"]], "price_per_kwh": 0.1}]
    windows.append({"name": "rest", "price_per_kwh": 0.5})
    tariff = {"name": "t", "seasons": [{"name": "a", "months": list(range(1, 13)), "periods": windows}]}
    for step in ("5min", "15min"):
        overrides = {"time.step": step, "aggregators": {"main": {"strategy": "tou"}}}
        scenario = scenario_from({**BASE, "tariff": tariff}, overrides, folder=folder)
        cheap = 11 * 35 / 60
        least = 0.1 * cheap + 0.5 * (ENERGY_KWH - cheap)
        if step == "15min":  # the quarter hours of 21:00 and 21:30 are parted: their means are 0.2333
            least = 0.1 * 2.75 + 2 * 2.75 * (0.1 * 2 + 0.5) / 3 + 0.5 * (ENERGY_KWH - 3 * 2.75)
        assert least_cost(build_world(scenario)).cost == pytest.approx([least])
        assert float(evgrid.run(scenario)["session_cost"][0]) == pytest.approx(least)


def test_without_any_price_a_plan_is_refused(folder):
    for strategy in ("scheduled", "arbitrage", "tou"):
        with pytest.raises(
            ScenarioError, match=rf"main.strategy = {strategy}: needs a tariff or system.energy_price"
        ):
            scenario_from({**BASE, "aggregators": {"main": {"strategy": strategy}}}, folder=folder)
    for other in ({"demand_charge": 5}, {"limit_kw": 20}):
        scenario_from({**BASE, "aggregators": {"main": {"strategy": "scheduled", **other}}}, folder=folder)


def test_the_study_goes_by_a_wholesale_price(folder):
    import json

    (folder / "base.yaml").write_text(json.dumps({**BASE, **SERIES["system"]}))
    study = ManagedCharging(name="mc", scenario=folder / "base.yaml")
    result = run_here(study)
    cost = result["cost"].isel(member=0).to_series()
    assert cost["tou"] == pytest.approx(least())
    assert cost["scheduled"] == pytest.approx(least())
    assert cost["oracle"] == pytest.approx(least())
    assert cost["uncontrolled"] > least()
    assert study.draw(result).axes
