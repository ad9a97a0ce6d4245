"""The strategy that follows a plan of least cost, in a coupled run."""

import numpy as np
import pytest

import evgrid
from evgrid.scenario import scenario_from

TIME = {"start": "2026-07-01T16:00", "duration": "20h", "step": "5min"}
LIMIT_KW = 850.0


def run(strategy, bidirectional=0.0, members=1, first=0, overrides=None, **sections):
    content = {
        "name": "street",
        "time": TIME,
        "ensemble": {"members": members, "first": first, "seed": 3},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}, "on_divergence": "stop"},
        "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": bidirectional}},
        "tariff": "pge_ev2a",
        "aggregators": {"main": {"group": "feeder", **strategy}},
        "communication": {"telemetry": "5min"},
        **sections,
    }
    return evgrid.run(scenario_from(content, overrides))


def served(result):
    avoidable = result["session_energy_unserved_avoidable_kwh"].values
    return np.nanmax(avoidable) < 1e-6


def cost(result, wear=0.05):
    done = result["session_complete"].values
    given = result["session_energy_discharged_kwh"].values[done]
    return float(result["session_cost"].values[done].sum() + wear * given.sum())


@pytest.fixture(scope="module")
def free():
    """Without anything that couples the EVs: V1G and V2G."""
    return {share: run({"strategy": "scheduled"}, share) for share in (0.0, 1.0)}


def test_who_only_charges_pays_what_the_cheapest_hours_cost(free):
    tou = run({"strategy": "tou"})
    assert cost(free[0.0]) == pytest.approx(cost(tou), rel=1e-3)
    assert served(free[0.0])


def test_giving_back_pays_for_its_wear(free):
    shallow = run({"strategy": "arbitrage"}, 1.0)
    tou = run({"strategy": "tou"}, 1.0)
    assert cost(free[1.0]) < cost(shallow) < cost(tou)
    assert served(free[1.0])
    assert served(shallow)
    dear = run({"strategy": "scheduled", "wear_per_kwh": 1.0}, 1.0)
    assert float(dear["session_energy_discharged_kwh"].sum()) == 0.0


@pytest.mark.parametrize("bidirectional", [0.0, 1.0])
def test_a_limit_is_kept_at_little_cost(free, bidirectional):
    result = run({"strategy": "scheduled", "limit_kw": LIMIT_KW}, bidirectional)
    power = result["head_power_kw"].sum("phase")
    assert float(free[bidirectional]["head_power_kw"].sum("phase").max()) > LIMIT_KW + 50
    # the dispatcher knows the losses of the last tick: above the limit is how they change in one
    assert float(power.max()) < LIMIT_KW + 5
    assert served(result)
    shaved = run({"strategy": "peak_shaving", "limit_kw": LIMIT_KW}, bidirectional)
    assert cost(free[bidirectional]) <= cost(result) + 1e-6
    assert cost(result) < 0.75 * cost(shaved)


def test_a_demand_charge_flattens_what_the_evs_draw(free):
    charge = 5.0
    result = run({"strategy": "scheduled", "demand_charge": charge, "arrivals_known": True})
    before, after = (float(r["fleet_power_kw"].max()) for r in (free[0.0], result))
    assert after < 0.3 * before
    assert cost(result) + charge * after < cost(free[0.0]) + charge * before
    assert served(result)


def test_a_price_of_carbon_moves_charging_to_clean_hours(free, tmp_path):
    path = tmp_path / "moer.csv"
    rows = [f"{900 * k},{100 if 48 <= k < 56 else 500}" for k in range(80)]  # clean from 4 to 6 h
    path.write_text("\n".join(["time,kg_per_mwh", *rows]))
    system = {"emissions": {"file": str(path)}}
    result = run({"strategy": "scheduled", "emissions_price": 100}, system=system)
    cheap = run({"strategy": "scheduled"}, system=system)
    kg = [float(np.nansum(r["session_emissions_kg"])) for r in (result, cheap)]
    assert kg[0] < 0.8 * kg[1]
    assert cost(result) == pytest.approx(cost(cheap), rel=1e-3)  # both charge off-peak


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_a_member_alone_equals_itself_in_an_ensemble(error):
    strategy = {"strategy": "scheduled", "price_error": error}
    pair = run(strategy, 1.0, members=2)
    alone = run(strategy, 1.0, first=1)
    for name in ("fleet_power_kw", "planned_power_kw"):
        np.testing.assert_array_equal(alone[name].values[0], pair[name].values[1])


def test_forecast_errors_cost_something(free):
    noisy = run({"strategy": "scheduled", "price_error": 0.5}, 1.0)
    assert cost(noisy) > cost(free[1.0]) + 0.5
    assert served(noisy)


def test_what_it_needs_is_told():
    with pytest.raises(evgrid.ScenarioError, match="main.strategy = scheduled: needs system.emissions"):
        run({"strategy": "scheduled", "emissions_price": 50})
    with pytest.raises(evgrid.EvgridError, match="period = 420s: must divide an hour and be a multiple of"):
        run({"strategy": "scheduled", "period": "7min"})
    with pytest.raises(evgrid.ScenarioError, match="charge_efficiency: unknown key"):
        run({"strategy": "arbitrage", "charge_efficiency": 0.9})
