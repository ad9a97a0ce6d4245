"""Strategies that go by prices cost what an independent linear program (HiGHS) does, on every form of tariff.

The program knows each EV's stay, energy, power and efficiencies, and the prices of quarter hours; it shares
no code with the planner. Neither knows what a strategy is not meant to see: demand charges in windows,
ratchets, blocks. An EV is seen a tick after it comes and is never charged above its driver's target.
"""

import json

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, linprog, milp

import evgrid
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.studies.oracle import least_cost

QUARTERS = 96
ETA = 0.9
PEAK = [0] * 16 + [1] * 5 + [0] * 3
CARS = {
    "a": {"arrival": 24, "departure": 76, "energy": 20.0, "power": 11.0},
    "b": {"arrival": 41, "departure": 60, "energy": 9.5, "power": 3.7},
    "c": {"arrival": 3, "departure": 93, "energy": 31.0, "power": 7.4},
    "d": {"arrival": 60, "departure": 64, "energy": 11.0, "power": 11.0},
    "at its floor": {"arrival": 10, "departure": 90, "energy": 0.5 * 80 / ETA, "power": 11.0},
}
"""Quarter hours from the start at noon on, kWh at the meter, and kW."""


def day_ahead():
    """EUR/MWh of each quarter hour from noon on: hourly until midnight, negative from 2:00 to 3:30."""
    quarters = np.arange(QUARTERS)
    price = np.where(quarters < 48, 80.0 + 11.0 * (quarters // 4 % 7), 55 + 25 * np.cos(2.3 * quarters))
    return np.where((quarters >= 56) & (quarters < 62), -10.0 - quarters % 5, price).round(2)


def clock_text(quarter):
    at = np.datetime64("2025-09-30T12:00") + quarter * np.timedelta64(15, "m")
    return f"{at.astype('datetime64[s]').item():%d/%m/%Y %H:%M:%S}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimal")
    price = day_ahead()
    rows = [(q, q + 4) for q in range(0, 48, 4)] + [(q, q + 1) for q in range(48, QUARTERS)]
    lines = ["MTU (CET/CEST),Day-ahead Price (EUR/MWh)"]
    lines += [f"{clock_text(a)} - {clock_text(b)},{price[a]}" for a, b in rows]
    (folder / "prices.csv").write_text("\n".join(lines) + "\n")
    rate = {
        "name": "rate",
        "energyratestructure": [
            [{"rate": 0.1, "sell": 0.08}],
            [{"rate": 0.3, "sell": 0.35}],
            [{"rate": -0.02}],
        ],
        "energyweekdayschedule": [[0, 0, 2, 2, *PEAK[4:]]] * 12,
        "energyweekendschedule": [[0] * 24] * 12,
    }
    (folder / "rate.json").write_text(json.dumps(rate))
    table = [
        "ev,connection,arrival,departure,soc_arrival,soc_target,capacity_kwh,charge_kw,discharge_kw,soc_floor"
    ]
    for file, gives in (("v1g.csv", 0), ("v2g.csv", 1)):
        rows = []
        for name, car in CARS.items():
            at = [f"{900 * car[key]}" for key in ("arrival", "departure")]
            start, kw = 0.7 - car["energy"] * ETA / 80.0, car["power"]
            rows.append(f"{name},Load R1,{','.join(at)},{start!r},0.7,80,{kw},{gives * kw},0.2")
        (folder / file).write_text("\n".join([*table, *rows]) + "\n")
    return folder


TARIFFS = {
    "half hours": {
        "name": "t",
        "seasons": [
            {
                "name": "all",
                "months": list(range(1, 13)),
                "periods": [
                    {"name": "night", "hours": [["0:30", "5:30"]], "price_per_kwh": 0.085},
                    {"name": "sun", "hours": [["11:30", "14:30"]], "price_per_kwh": -0.04},
                    {"name": "evening", "hours": [["16:30", "19:30"]], "price_per_kwh": 0.4},
                    {"name": "rest", "price_per_kwh": 0.25},
                ],
            }
        ],
    },
    "entsoe": {"name": "t", "currency": "EUR", "entsoe": {"file": "prices.csv"}},
    "entsoe, taxed, with a credit of its own": {
        "name": "t", "currency": "EUR", "entsoe": {"file": "prices.csv"},
        "surcharge_per_kwh": 0.02, "vat_percent": 19, "export_per_kwh": 0.12,
    },
    "urdb": {"urdb": {"file": "rate.json"}},
}  # fmt: skip


def scenario_of(folder, tariff, strategy, v2g, **settings):
    system = {"events": [{"name": "e", "start": "2025-09-30T17:00", "duration": "1h"}]}
    return scenario_from(
        {
            "name": "optimal",
            "time": {"start": "2025-09-30T12:00", "duration": "24h", "step": "15min"},
            "feeder": {"network": "cigre_lv", "step": "6h", "base_load": {"source": "none"}},
            "fleet": {
                "sessions": {"file": "v2g.csv" if v2g else "v1g.csv"},
                "charger": {"power_kw": 11, "phases": 3},
                "vehicle": {"charge_efficiency": ETA, "discharge_efficiency": ETA, "taper_soc": 0.99},
            },
            "communication": {"telemetry": "15min"},
            "aggregators": {"main": {"strategy": strategy, **settings}},
            "tariff": TARIFFS[tariff],
            **({"system": system} if strategy == "demand_response" else {}),
        },
        folder=folder,
    )


def least(price, credit, car, wear=None):
    """Least cost of a car; with ``wear`` per kWh given, it may give."""
    stay = slice(car["arrival"], car["departure"])
    price, credit = price[stay], credit[stay]
    slots, most = len(price), car["power"] / 4
    limits = np.full(slots, most)
    limits[0] = max(car["energy"] - most * (slots - 1), 0.0)  # before it is seen, only what can't wait
    if wear is None:
        limits = np.column_stack([np.zeros(slots), limits])
        return linprog(price, A_eq=np.ones((1, slots)), b_eq=[car["energy"]], bounds=limits).fun
    below = np.tril(np.ones((slots, slots)))
    gained = np.hstack([ETA * below, -below / ETA, np.zeros((slots, slots))])
    start = 0.7 * 80 - car["energy"] * ETA
    low, high = (
        np.full(slots, 0.2 * 80 - start),
        np.full(slots, car["energy"] * ETA),
    )  # never above the target
    low[-1] = car["energy"] * ETA
    one = np.eye(slots)
    either = np.vstack(
        [np.hstack([one, 0 * one, -most * one]), np.hstack([0 * one, one, most * one])]
    )  # a quarter hour draws or gives
    found = milp(
        np.concatenate([price, wear - credit, np.zeros(slots)]),
        constraints=[
            LinearConstraint(gained, low, high),
            LinearConstraint(either, -np.inf, np.repeat([0.0, most], slots)),
        ],
        integrality=np.repeat([0, 0, 1], slots),
        bounds=(0, np.concatenate([limits, np.where(limits < most, 0.0, most), np.ones(slots)])),
    )
    return found.fun


def costs(result):
    return dict(zip(result["session_ev"].values.tolist(), result["session_cost"].values, strict=True))


def quarter_prices(scenario):
    return scenario.prices.means(np.arange(QUARTERS + 1) * 900.0)


@pytest.mark.parametrize(
    ("tariff", "strategy"),
    [
        *((tariff, strategy) for tariff in TARIFFS for strategy in ("tou", "scheduled")),
        ("entsoe", "arbitrage"),
        ("half hours", "demand_response"),
    ],
)
def test_charging_costs_the_least_of_a_linear_program(folder, tariff, strategy):
    scenario = scenario_of(folder, tariff, strategy, v2g=False)
    price, credit = quarter_prices(scenario)
    if tariff.startswith("entsoe"):
        np.testing.assert_allclose(
            price, (day_ahead() / 1000 + (0.02 if "tax" in tariff else 0)) * (1.19 if "tax" in tariff else 1)
        )
    found = costs(evgrid.run(scenario))
    expected = {name: least(price, credit, car) for name, car in CARS.items()}
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("tariff", "strategy"), [*((tariff, "scheduled") for tariff in TARIFFS), ("entsoe", "arbitrage")]
)
def test_giving_back_too(folder, tariff, strategy):
    wear = 0.01
    scenario = scenario_of(folder, tariff, strategy, v2g=True, wear_per_kwh=wear, depth_kwh=80)
    result = evgrid.run(scenario)
    found = result["session_cost"].values + wear * result["session_energy_discharged_kwh"].values
    found = dict(zip(result["session_ev"].values.tolist(), found, strict=True))
    expected = {name: least(*quarter_prices(scenario), car, wear) for name, car in CARS.items()}
    assert found == pytest.approx(expected, rel=1e-6)
    assert least_cost(build_world(scenario), wear).cost[0] <= sum(expected.values()) + 1e-9
