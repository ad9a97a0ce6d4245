"""The strategy that follows a plan of least cost, in a coupled run."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import block_array, eye_array

import evgrid
from evgrid.feeder.networks import load_network
from evgrid.fleet.planned_sessions import planned_sessions_of
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.studies.oracle import least_cost

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
        "aggregators": {
            "main": {**({} if strategy["strategy"] == "tou" else {"group": "feeder"}), **strategy}
        },
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
    rise = np.maximum(np.diff(result["losses_kw"].values[0], prepend=np.inf), 0.0)
    over = power.values[0, 1:] - LIMIT_KW - rise[1:]
    guard_kwh = float(result["limit_excess_kwh"].sel(reason="guard").sum())
    assert guard_kwh < 0.1  # one EV in its taper for a tick
    assert np.maximum(over, 0.0).sum() / 12 <= guard_kwh + 0.02
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


def test_what_it_needs_is_reported():
    with pytest.raises(evgrid.ScenarioError, match="main.strategy = scheduled: needs system.emissions"):
        run({"strategy": "scheduled", "emissions_price": 50})
    with pytest.raises(
        evgrid.ScenarioError, match="main.period = 420s: must divide an hour and be a multiple of"
    ):
        run({"strategy": "scheduled", "period": "7min"})
    with pytest.raises(evgrid.ScenarioError, match="charge_efficiency: unknown key"):
        run({"strategy": "arbitrage", "charge_efficiency": 0.9})


# ---- EVs that come between two plans, and how near a plan is to the least cost -------------------

COLUMNS = (
    "ev,connection,arrival,departure,soc_arrival,soc_target,capacity_kwh,charge_kw,discharge_kw,soc_floor"
)


def run_file(
    folder, rows, strategy, tariff, step="1min", start="2026-01-15T12:00", taper_soc=0.99, **sections
):
    """A run of the sessions in ``rows``, lines of COLUMNS, with constant efficiencies of 0.9."""
    (folder / "s.csv").write_text("\n".join([COLUMNS, *rows]))
    content = {
        "name": "stays",
        "time": {"start": start, "duration": "24h", "step": step},
        "feeder": {"network": "cigre_lv", "step": "1h", "base_load": {"source": "none"}},
        "fleet": {
            "sessions": {"file": "s.csv"}, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": True},
            "vehicle": {"charge_efficiency": 0.9, "discharge_efficiency": 0.9, "taper_soc": taper_soc},
        },
        "tariff": tariff, "communication": {"telemetry": step}, "aggregators": {"main": strategy}, **sections,
    }  # fmt: skip
    scenario = scenario_from(content, folder=folder)
    return scenario, evgrid.run(scenario)


def prices_of(hourly):
    """A tariff with a price for each hour of the day."""
    periods = [
        {"name": f"h{k}", "hours": [[k, k + 1]], "price_per_kwh": round(float(price), 3)}
        for k, price in enumerate(hourly)
    ]
    rest = {"name": "rest", "price_per_kwh": 0.0}
    seasons = [{"name": "all", "months": list(range(1, 13)), "periods": [*periods, rest]}]
    return {"name": "hourly", "seasons": seasons}


@pytest.mark.parametrize(
    "settings", [{"strategy": "scheduled"}, {"strategy": "arbitrage", "limit_kw": 100.0}]
)
def test_who_comes_between_two_plans_does_not_wait_for_the_next(tmp_path, settings):
    """Prices rise at 15:00 and at 16:00, and 30 kWh of battery take 4.5 h from 14:01 on: at once."""
    rows = [
        "before,Load R1,2026-01-15T13:00,2026-01-16T08:00,0.5,0.9,60,7.4,0,0.2",  # so that there is a plan
        "early,Load R1,2026-01-15T14:01,2026-01-15T20:00,0.1,0.6,60,7.4,0,0.2",
    ]
    tariff = prices_of([0.2] * 15 + [0.4] + [0.5] * 8)
    before, after = (
        float(run_file(tmp_path, rows, by, tariff)[1]["session_cost"][1])
        for by in ({"strategy": "uncontrolled"}, {**settings, "group": "feeder"})
    )
    assert before == pytest.approx(7.4 * 0.2 * 59 / 60 + 7.4 * 0.4 + 0.5 * (30 / 0.9 - 7.4 * 119 / 60))
    # a tick passes before it is seen, whose energy is drawn at the dearest price in place of the cheapest
    assert before <= after <= before + 7.4 / 60 * (0.5 - 0.2) + 1e-9


def stays(rng, count, back):
    """Lines of COLUMNS: stays of 1 to 10 h, of which a share ``back`` may give back."""
    rows = []
    for ev in range(count):
        begin = np.datetime64("2026-01-15T12:00") + np.timedelta64(int(rng.integers(0, 600)), "m")
        end = begin + np.timedelta64(int(rng.integers(60, 600)), "m")
        given = 7.4 if rng.random() < back else 0
        rows.append(f"e{ev},Load R1,{begin},{end},{rng.uniform(0.1, 0.9):.3f},0.9,60,7.4,{given},0.2")
    return rows


@pytest.mark.parametrize("back", [0.0, 1.0])
def test_with_perfect_forecasts_a_plan_comes_within_a_percent_of_the_program(tmp_path, back):
    rng = np.random.default_rng(3)
    rows, tariff = stays(rng, 30, back), prices_of(rng.uniform(0.05, 0.5, 24))
    scenario, result = run_file(tmp_path, rows, {"strategy": "scheduled"}, tariff)
    bound = float(least_cost(build_world(scenario)).cost[0])
    assert bound <= cost(result) <= 1.01 * bound
    assert served(result)


def tapered_bound(row, hourly, taper_soc, wear=0.05, eta=0.9):
    """Least cost of one line of COLUMNS whose charging power tapers, by a program of minutes.

    A minute charges at no more than the power at its begin, which is more than it can: a bound.
    """
    _, _, begin, end, soc, target, capacity, power, given, floor = row.split(",")
    begin, end = (
        int((np.datetime64(at) - np.datetime64("2026-01-15T00:00")).astype(int)) for at in (begin, end)
    )
    soc, target, capacity, power, given, floor = map(float, (soc, target, capacity, power, given, floor))
    n, rate = end - begin, eta * power / capacity / 60
    full_power = min(max(taper_soc - soc, 0.0) / rate, n)  # minutes, as fast as can be
    reach = 1 - (1 - soc - rate * full_power) * np.exp(-rate / (1 - taper_soc) * (n - full_power))
    reach = min(target, reach)
    price = np.array([hourly[minute // 60 % 24] for minute in range(begin, end)])
    eye, before = eye_array(n), eye_array(n, k=-1)  # variables: drawn, given, SOC at the end of each minute
    start = np.zeros(n)
    start[0] = soc
    steep = power / (1 - taper_soc)
    inside = (min(floor, soc), max(target, soc))
    both = [eye / power, eye / max(given, 1e-6), None]  # one direction at a time
    found = linprog(
        np.concatenate([price, wear - price, np.zeros(n)]) / 60,
        A_eq=block_array([[-eta / 60 / capacity * eye, eye / 60 / eta / capacity, eye - before]]), b_eq=start,
        A_ub=block_array([both, [eye, None, steep * before]]),
        b_ub=np.concatenate([np.ones(n), steep - steep * start]),
        bounds=[*[(0, power)] * n, *[(0, given)] * n, *[inside] * (n - 1), (reach - 1e-9, 1)],
        method="highs",
    )  # fmt: skip
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("back", [0.0, 1.0])
def test_a_plan_knows_the_taper(tmp_path, back):
    """Above 80 % an EV takes ever less: plans come within half a percent of programs that know it."""
    rng = np.random.default_rng(1)
    rows = stays(rng, 30, back)
    hourly = rng.uniform(0.05, 0.5, 24).round(3)
    _, result = run_file(tmp_path, rows, {"strategy": "scheduled"}, prices_of(hourly), taper_soc=0.8)
    done = result["session_complete"].values.ravel()
    bound = sum(tapered_bound(row, hourly, 0.8) for row, ended in zip(rows, done, strict=True) if ended)
    assert bound <= cost(result) <= 1.005 * bound
    assert served(result)


def test_a_taper_to_a_full_battery_takes_as_long_as_with_its_cut_off(tmp_path):
    """Charging falls along a line to 5 % of full power, and stays there: plans take one as long."""
    rows = [
        f"e{ev},Load R1,2026-01-15T13:00,2026-01-16T08:00,0.2,{target},60,7.4,0,0.2"
        for ev, target in enumerate((0.7, 0.9, 0.99, 0.995, 1.0))
    ]
    scenario, _ = run_file(tmp_path, rows, {"strategy": "uncontrolled"}, prices_of([0.2] * 24), taper_soc=0.8)
    world = build_world(scenario)
    stays = planned_sessions_of(scenario, world.connections, world.evs, world.sessions)
    np.testing.assert_allclose(stays.full_soc[:3], 1.0)
    for full, slow in zip(stays.full_soc[3:], (0.005, 0.01), strict=True):  # above the cut-off at 0.99
        takes = 0.2 * np.log(20) + slow / 0.05
        width = full - 0.8
        assert width * np.log(width / (width - 0.19 - slow)) == pytest.approx(takes)


@pytest.mark.parametrize(("step", "seed"), [("1min", 0), ("5min", 1), ("15min", 2), ("15min", 3)])
def test_a_plan_costs_no_more_than_charging_at_once(tmp_path, step, seed):
    """Prices of both signs, EVs that may give back and others, any tick: but for what it lags behind."""
    rng = np.random.default_rng(seed)
    rows, tariff = stays(rng, 12, 0.5), prices_of(rng.uniform(-0.3, 0.3, 24))
    strategies = [{"strategy": "scheduled"}, {"strategy": "arbitrage", "group": "feeder", "limit_kw": 500.0}]
    at_once = cost(run_file(tmp_path, rows, {"strategy": "uncontrolled"}, tariff, step)[1])
    lag_h = 2 * int(step.removesuffix("min")) / 60
    for strategy in strategies:
        result = run_file(tmp_path, rows, strategy, tariff, step)[1]
        assert cost(result) <= at_once + 12 * 7.4 * lag_h * 0.6
        assert cost(result) < at_once - 5.0  # and indeed much less
        assert served(result)


# ---- what is known ends --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["base_load", "prices", "emissions"])
def test_a_horizon_goes_beyond_what_a_file_knows(tmp_path, what):
    """Files that just cover a run of 24 h, and EVs that stay longer: it runs, and says what is taken."""
    series = ["time,value", *(f"{3600 * k},{100 + 10 * (k % 7)}" for k in range(24))]
    (tmp_path / "series.csv").write_text("\n".join(series))
    strategy, sections, tariff = {"strategy": "scheduled", "group": "feeder"}, {}, "pge_ev2a"
    if what == "base_load":
        network = {"network": "cigre_lv"}
        columns = load_network(scenario_from({"name": "net", "time": TIME, "feeder": network}).feeder)
        columns = columns.connections.name.tolist()
        stamps = np.datetime64("2026-01-15T12:00") + np.arange(96) * np.timedelta64(15, "m")
        table = [",".join(["time", *columns]), *(f"{at}" + ",0.1" * len(columns) for at in stamps)]
        (tmp_path / "base.csv").write_text("\n".join(table))
        strategy["limit_kw"] = 100.0
        sections["feeder"] = {"network": "cigre_lv", "step": "1h", "base_load": {"file": "base.csv"}}
    elif what == "prices":
        tariff = {"name": "day ahead", "prices": {"file": "series.csv", "per": "MWh"}}
    else:
        strategy["emissions_price"] = 50.0
        sections["system"] = {"emissions": {"file": "series.csv"}}
    rows = ["a,Load R1,2026-01-15T13:00,2026-01-17T13:00,0.5,0.9,60,7.4,7.4,0.2"]
    scenario, result = run_file(tmp_path, rows, strategy, tariff, "15min", **sections)
    name = {
        "base_load": "feeder.base_load",
        "prices": "series of prices",
        "emissions": "system.emissions",
    }
    notes = [note for note in build_world(scenario).notes if f"{name[what]} ends" in note]
    assert len(notes) == 1
    assert "look ahead to 2026-01-18T00:00:00" in notes[0]
    assert "ends at 2026-01-16T12:00:00" in notes[0]
    assert result.attrs["notes"].count(f"{name[what]} ends") == 1


# ---- demand charges ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["5min", "15min"])
def test_a_demand_charge_on_means_of_the_meter_costs_what_the_program_does(tmp_path, step):
    """20 EVs over night, 5 per kW of the highest 15-min mean: the same at any tick, and near the least."""
    rng = np.random.default_rng(5)
    rows = []
    for ev in range(20):
        begin = np.datetime64("2026-01-15T16:00") + np.timedelta64(int(rng.integers(0, 300)), "m")
        end = np.datetime64("2026-01-16T06:00") + np.timedelta64(int(rng.integers(0, 180)), "m")
        rows.append(f"e{ev},Load R1,{begin},{end},{rng.uniform(0.2, 0.6):.3f},0.8,60,7.4,0,0.2")
    strategy = {"strategy": "scheduled", "demand_charge": 5.0, "arrivals_known": True}
    scenario, result = run_file(tmp_path, rows, strategy, "pge_ev2a", step)
    peak = float(result["fleet_power_kw"].resample(time="15min").mean().max())
    bound = float(least_cost(build_world(scenario), demand_charge=5.0).cost[0])
    assert bound <= cost(result) + 5.0 * peak <= 1.01 * bound
    assert served(result)


@pytest.mark.parametrize("told", ["settings", "tariff"])
def test_valley_filling(tmp_path, told):
    """Gan, Topcu and Low: EVs that stay from 18:00 to 6:00 fill the valley of the base load up to a level.

    The base load falls from 100 kW to 40 and rises again, so that the level is where what is below it is
    their energy: 30 x 18 kWh of battery at 0.9.
    """
    columns = load_network(
        scenario_from({"name": "net", "time": TIME, "feeder": {"network": "cigre_lv"}}).feeder
    ).connections.name.tolist()
    stamps = np.datetime64("2026-01-15T12:00") + np.arange(96) * np.timedelta64(15, "m")
    load = 70.0 + 30.0 * np.cos(2 * np.pi * np.arange(96) / 96)  # lowest at 0:00
    table = [",".join(["time", *columns])]
    for at, kw in zip(stamps, load, strict=True):
        table.append(f"{at},{kw:.6f}" + ",0" * (len(columns) - 1))
    (tmp_path / "base.csv").write_text("\n".join(table))
    rows = [f"e{ev},{columns[0]},2026-01-15T18:00,2026-01-16T06:00,0.2,0.5,60,11,0,0.2" for ev in range(30)]
    here = load[24:72]
    levels = np.linspace(here.min(), 300.0, 100_001)
    filled = np.array([np.maximum(level - here, 0.0).sum() / 4 for level in levels[::100]])
    level = float(np.interp(30 * 18 / 0.9, filled, levels[::100]))
    assert 70.0 < level < 130.0
    best = max(level, load.max())
    strategy = {"strategy": "scheduled", "group": "feeder", "arrivals_known": True}
    tariff = prices_of([0.2] * 24)
    if told == "settings":
        strategy |= {"demand_charge": 10.0, "demand_of": "group"}
    else:
        tariff["demand"] = {"prices": [{"price_per_kw": 10.0}], "of": "feeder"}
    feeder = {"network": "cigre_lv", "base_load": {"file": "base.csv"}}
    _, result = run_file(tmp_path, rows, strategy, tariff, "5min", feeder=feeder)
    power = (result["fleet_power_kw"] + result["base_load_kw"]).isel(member=0)
    peak = float(power.resample(time="15min").mean().max())
    assert best <= peak + 1e-6
    assert peak <= 1.01 * best
    assert served(result)
