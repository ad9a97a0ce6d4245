"""Ways of charging side by side, the bound that none beats, and school buses that give back at the peak."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import evgrid
from evgrid.errors import ScenarioError
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.studies.comparison import run_here, save_comparison, side_by_side
from evgrid.studies.managed_charging import ManagedCharging
from evgrid.studies.oracle import least_cost
from evgrid.studies.reading import load_study

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def home(overrides=None, **sections):
    content = {
        "name": "home",
        "time": {"start": "2026-07-01T16:00", "duration": "22h", "step": "15min"},
        "ensemble": {"members": 2, "seed": 5},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}},
        "fleet": {"count": 15, "charger": {"phases": 3, "bidirectional": 0.5}},
        "communication": {"telemetry": "15min"},
        "tariff": "pge_ev2a",
        **sections,
    }
    return scenario_from(content, overrides)


def one(tmp_path, **columns):
    """One session as in the validation case tou_pge_ev2a: 30 kWh at 7.2 kW from 18:00 to 8:00."""
    row = {
        "ev": "commuter", "connection": "Load R1", "arrival": "2026-07-01T18:00",
        "departure": "2026-07-02T08:00", "energy_kwh": 30, "capacity_kwh": 60, "charge_kw": 7.2, **columns,
    }  # fmt: skip
    path = tmp_path / "sessions.csv"
    path.write_text("\n".join(",".join(map(str, line)) for line in (row.keys(), row.values())))
    return build_world(
        home({"ensemble.members": 1}, fleet={"sessions": {"file": str(path)}, "charger": {"phases": 3}})
    )


def test_the_bound_by_hand(tmp_path):
    assert least_cost(one(tmp_path)).cost == pytest.approx([30 * 0.23])
    # 20 kWh at the meter from 20:00 on with 2 h 10 min to go: 7.2 kWh at .54, then 8.4 at .43
    late = one(tmp_path, arrival="2026-07-01T20:00", departure="2026-07-01T22:10", energy_kwh=15.6)
    assert least_cost(late).cost == pytest.approx([7.2 * 0.54 + 8.4 * 0.43])
    # may give back: 3 h of the peak at 7.2 kW for 0.54 - 0.05, bought again at .23 with 0.81 round trip
    both = one(tmp_path, discharge_kw=7.2, soc_floor=0.0, capacity_kwh=100, energy_kwh=30)
    given = 3 * 7.2
    bound = least_cost(both)
    assert bound.given_kwh > given - 1e-9  # and part-peak hours, as .43 - .05 is more than .23 / .81, too
    assert bound.cost <= 6.9 - given * (0.54 - 0.05 - 0.23 / 0.81)


def test_under_a_limit_the_bound_rises(tmp_path):
    world = build_world(home())
    free = least_cost(world)
    charged = least_cost(world, demand_charge=5.0)
    assert np.all(charged.cost > free.cost + 10)
    base = 686.6
    limited = least_cost(world, limit_kw=base + 25.0)
    assert np.all(limited.cost >= free.cost - 1e-9)
    assert np.any(limited.cost > free.cost + 0.1)


@pytest.mark.parametrize("losses", ["constant", "by_power"])
def test_no_strategy_beats_the_bound(losses):
    vehicle = {"losses": losses}
    bound = least_cost(build_world(home({"fleet.vehicle": vehicle})))
    costs = {}
    for strategy in ("uncontrolled", "tou", "arbitrage", "scheduled"):
        result = evgrid.run(home({"fleet.vehicle": vehicle, "aggregators.main": {"strategy": strategy}}))
        done = result["session_complete"].values
        member = result["session_member"].values[done]
        wear = 0.05 * result["session_energy_discharged_kwh"].values[done]
        costs[strategy] = np.bincount(member, result["session_cost"].values[done] + wear, 2)
        assert np.all(costs[strategy] >= bound.cost - 1e-6)
    left = (costs["scheduled"] - bound.cost) / (costs["uncontrolled"] - bound.cost)
    assert np.all(left < 0.05)  # of what can be saved


@pytest.fixture
def study(tmp_path):
    rows = [f"{3600 * k},{100 if 5 <= k < 8 else 400}" for k in range(23)]
    (tmp_path / "moer.csv").write_text("\n".join(["time,kg_per_mwh", *rows]))
    (tmp_path / "base.yaml").write_text(
        """
name: home
time: {start: 2026-07-01T16:00, duration: 22h, step: 15min}
ensemble: {members: 1, seed: 5}
feeder: {network: cigre_lv, base_load: {source: net}}
fleet: {count: 10, charger: {phases: 3, bidirectional: 0.5}}
communication: {telemetry: 15min}
tariff: pge_ev2a
system:
  emissions: {file: moer.csv}
  events: [{name: heat, start: 2026-07-01T18:00, duration: 2h}]
"""
    )
    (tmp_path / "study.yaml").write_text("name: mc\nscenario: base.yaml\nlimit_kw: 760\nevent_kw: -10\n")
    return load_study(tmp_path / "study.yaml", ManagedCharging, "managed-charging")


def test_ways_of_charging_side_by_side(study, tmp_path):
    result = run_here(study)
    names = result["variant"].values.tolist()
    assert names == [
        "uncontrolled", "tou", "emissions", "demand response", "arbitrage (V2G)", "scheduled (V2G)",
        "scheduled in limit", "oracle",
    ]  # fmt: skip
    cost = result["cost"].mean("member").to_series()
    assert cost["oracle"] <= cost["scheduled (V2G)"] < cost["arbitrage (V2G)"] < cost["tou"]
    assert cost["tou"] < cost["uncontrolled"]
    emitted = result["emissions_kg"].mean("member").to_series()
    assert emitted["emissions"] == emitted.drop("oracle").min()
    assert float(result["unserved_kwh"].max()) < 1e-6
    np.testing.assert_allclose(result["cost"], result["energy_cost"] + result["wear_cost"])
    saved = result["saved_percent"].sel(variant="tou")
    expected = 100 * (1 - result["cost"].sel(variant="tou") / result["cost"].sel(variant="uncontrolled"))
    np.testing.assert_allclose(saved, expected)
    assert "cost saved against uncontrolled (%)" in side_by_side(result).index
    assert all(file.stat().st_size > 0 for file in save_comparison(study, result, tmp_path / "out"))


def test_what_the_study_needs_is_reported(study):
    for change, sentence in (
        (
            {"tariff": None, "system": None},
            "managed-charging needs a tariff or system.energy_price: the scenario has neither",
        ),
        ({"fleet": None}, "managed-charging needs EVs: the scenario has no fleet"),
    ):
        with pytest.raises(ScenarioError, match=sentence):
            study.model_copy(update={"overrides": change}).cases()


def test_without_v2g_there_are_no_such_variants(study):
    plain = study.model_copy(update={"overrides": {"fleet.charger.bidirectional": 0}, "limit_kw": None})
    assert list(plain.cases()) == ["uncontrolled", "tou", "emissions", "demand response", "scheduled"]


def sunny(tmp_path, deep, discharge_kw=0.0, **overrides):
    """7 kWh at 7 kW, 10:00 to 15:00: -0.02 in the first hour, ``deep`` in the others."""
    periods = [
        {"name": "dip", "hours": [[10, 11]], "price_per_kwh": -0.02},
        {"name": "deep", "hours": [[11, 15]], "price_per_kwh": deep},
        {"name": "rest", "price_per_kwh": 0.2},
    ]
    seasons = [{"name": "all", "months": list(range(1, 13)), "periods": periods}]
    (tmp_path / "s.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh,charge_kw,discharge_kw\n"
        f"car,Load R1,2026-05-10T10:00,2026-05-10T15:00,7,7,{discharge_kw:g}\n"
    )
    content = {
        "name": "sunday",
        "time": {"start": "2026-05-10T06:00", "duration": "12h", "step": "15min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "fleet": {"sessions": {"file": "s.csv"}, "charger": {"power_kw": 7, "phases": 3}},
        "communication": {"telemetry": "15min"},
        "tariff": {"name": "sunny", "currency": "EUR", "seasons": seasons},
        **overrides,
    }
    (tmp_path / "base.yaml").write_text(json.dumps(content))
    return ManagedCharging(name="mc", scenario=tmp_path / "base.yaml")


def test_what_is_saved_of_a_base_that_is_a_credit_has_no_percentage(tmp_path):
    """Charging at once earns 0.14; later it earns 0.70: 0.56 saved, and no share of less than nothing."""
    result = run_here(sunny(tmp_path, -0.1))
    assert result["variant"].values.tolist() == ["uncontrolled", "tou", "scheduled", "oracle"]  # no V2G
    np.testing.assert_allclose(result["cost"].isel(member=0), [-0.14, -0.7, -0.7, -0.7], atol=1e-9)
    np.testing.assert_allclose(result["saved"].isel(member=0), [0, 0.56, 0.56, 0.56], atol=1e-9)
    assert np.isnan(result["saved_percent"]).all()
    table = side_by_side(result)
    assert table.loc["cost saved against uncontrolled (EUR)"].tolist() == ["0.00", "0.56", "0.56", "0.56"]
    assert set(table.loc["cost saved against uncontrolled (%)"]) == {"–"}
    money = table[[label.endswith("(EUR)") for label in table.index]]
    assert all(re.fullmatch(r"-?\d+\.\d\d|–", text) for text in money.to_numpy().ravel())


def test_cars_that_can_discharge_are_reported_as_such(tmp_path):
    names = list(
        sunny(
            tmp_path, 0.1, 7.0, **{"fleet": {"sessions": {"file": "s.csv"}, "charger": {"phases": 3}}}
        ).cases()
    )
    assert "arbitrage (V2G)" in names
    nobody = {
        "sessions": {"file": "s.csv"},
        "charger": {"phases": 3},
        "permission": {"driver": {"willing": 0}},
    }
    assert "scheduled" in sunny(tmp_path, 0.1, 7.0, fleet=nobody).cases()


def test_school_buses_give_back_at_the_peak_and_are_ready_in_the_morning():
    result = evgrid.run(SCENARIOS / "school_bus_v2g.yaml")
    power = result["fleet_power_kw"].isel(member=0)
    hour, step_h = power["time"].dt.hour, 5 / 60
    weekdays = [f"2026-06-0{day}" for day in (1, 2, 3, 4)]
    rated = 8 * 19.2
    for day in weekdays:
        peak = power.sel(time=day)[((hour >= 16) & (hour < 21)).sel(time=day)]
        assert float(peak.max()) < 19.2  # one that comes late may top up nothing but what it must
        given = -step_h * float(peak.clip(max=0).sum())
        assert given > 0.6 * rated * 4.25  # from the return at about 16:45 on
        night = power.sel(time=day)[(hour >= 21).sel(time=day)]
        assert float(night.min()) > 0.9 * rated
    departure = result["session_departure"].dt.hour
    morning = (departure >= 4) & (departure < 9) & result["session_complete"]
    assert int(morning.sum()) == 8 * 4
    np.testing.assert_allclose(result["session_soc_departure"].values[morning.values], 0.9, atol=1e-9)
    assert float(np.nanmax(result["session_energy_unserved_kwh"])) < 1e-6


def test_the_shipped_study_has_all_its_variants():
    shipped = load_study(SCENARIOS / "studies" / "managed_charging.yaml", ManagedCharging, "managed-charging")
    assert list(shipped.cases()) == [
        "uncontrolled", "tou", "emissions", "demand response", "arbitrage (V2G)", "scheduled (V2G)",
        "scheduled in limit",
    ]  # fmt: skip
    assert shipped.batch()  # each is a scenario without fault
