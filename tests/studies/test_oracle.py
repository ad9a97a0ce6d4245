"""The least cost at negative prices, where losses earn: by hand, and with limits."""

import numpy as np
import pytest

import evgrid
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.studies.oracle import least_cost

BURN = """
import numpy as np
import evgrid


class Burn(evgrid.Strategy):
    def setpoints(self, view):
        since_h = view.time_s / 3600 - 1  # plugged in at 11:00
        gives = 1.55 <= since_h < 2.6
        return np.full(len(view.soc), -7.4 if gives else np.inf)
"""


def midday(folder, losses, strategy="burn:Burn", base=None):
    """A battery of 20 kWh, half full and to be filled, plugged in from 11 to 15 h at -0.10 a kWh."""
    (folder / "burn.py").write_text(BURN)
    columns = (
        "ev,connection,arrival,departure,soc_arrival,soc_target,capacity_kwh,charge_kw,discharge_kw,soc_floor"
    )
    stay = "A,Load R1,2026-06-15T11:00,2026-06-15T15:00,0.5,1.0,20,7.4,7.4,0.2"
    (folder / "s.csv").write_text(f"{columns}\n{stay}\n")
    periods = [
        {"name": "sun", "hours": [[11, 15]], "price_per_kwh": -0.1}, {"name": "rest", "price_per_kwh": 0.2},
    ]  # fmt: skip
    seasons = [{"name": "all", "months": list(range(1, 13)), "periods": periods}]
    content = {
        "name": "negative midday",
        "time": {"start": "2026-06-15T10:00", "duration": "6h", "step": "1min"},
        "feeder": {"network": "cigre_lv", "step": "15min", "base_load": base or {"source": "none"}},
        "fleet": {
            "sessions": {"file": "s.csv"}, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": True},
            "vehicle": losses,
        },
        "communication": {"telemetry": "1min"},
        "aggregators": {"main": {"strategy": strategy}},
        "tariff": {"name": "sun", "seasons": seasons},
    }  # fmt: skip
    return scenario_from(content, folder=folder)


CONSTANT = {"losses": "constant", "charge_efficiency": 0.9, "discharge_efficiency": 0.9, "taper_soc": 0.99}


def test_the_bound_at_negative_prices_by_hand(tmp_path):
    """Drawing all along but while giving: c + d = 4 h x 7.4 kW and 0.9 c - d / 0.9 = 10 kWh."""
    drawn, given = np.linalg.solve([[1.0, 1.0], [0.9, -1 / 0.9]], [4 * 7.4, 10.0])
    scenario = midday(tmp_path, CONSTANT)
    world = build_world(scenario)
    free = least_cost(world, 0.0)
    assert free.cost == pytest.approx([-0.1 * (drawn - given)])
    assert free.cost == pytest.approx(free.energy_cost)
    assert free.given_kwh == pytest.approx([given])
    # one direction a quarter hour reaches -1.2867 by an independent mixed-integer program
    assert -1.31 < free.cost[0] < -1.2867
    result = evgrid.run(scenario)
    assert float(result["session_soc_departure"][0]) == pytest.approx(1.0)
    assert free.cost[0] <= float(result["session_cost"].sum())
    assert float(result["session_cost"].sum()) < -1.29  # it does burn
    # limits that don't bind change nothing, those that do and demand charges only add
    assert least_cost(world, 0.0, limit_kw=50.0).cost == pytest.approx(free.cost)
    assert least_cost(world, 0.0, limit_kw=3.0).cost[0] > free.cost[0] + 0.01
    assert least_cost(world, 0.0, demand_charge=1e-4).cost[0] >= free.cost[0]
    # where giving wears the battery more than losses earn, filling it is all there is
    assert least_cost(world, 0.05).cost == pytest.approx([-0.1 * 10 / 0.9])


def test_losses_by_power_earn_at_negative_prices(tmp_path):
    """Charging at rated power is not the dearest way then: drawing little loses more, and is paid for."""
    (tmp_path / "trickle.py").write_text(
        BURN.replace("Burn", "Trickle").replace(
            "-7.4 if gives else np.inf", "0.3 if since_h < 2.4 else np.inf"
        )
    )
    losses = {"losses": "by_power"}
    bound = least_cost(build_world(midday(tmp_path, losses)), 0.05).cost[0]
    cost = {
        name: float(evgrid.run(midday(tmp_path, losses, name))["session_cost"].sum())
        for name in ("uncontrolled", "trickle:Trickle")
    }
    assert cost["trickle:Trickle"] < cost["uncontrolled"] - 0.004
    assert bound <= cost["trickle:Trickle"] + 1e-9
    assert bound > 1.1 * cost["trickle:Trickle"]  # and not much below


def test_a_limit_binds_by_the_mean_of_the_base_load(tmp_path):
    """A base load that is high at the begin of each slot, and lower after: its mean is what counts."""
    names = build_world(midday(tmp_path, CONSTANT)).network.connections.name.tolist()
    table = [",".join(["minute", *names])]
    table += [
        ",".join([str(k), *("30" if k % 15 == 1 and name == "Load R1" else "0" for name in names)])
        for k in range(1, 1441)
    ]
    (tmp_path / "base.csv").write_text("\n".join(table))
    world = build_world(midday(tmp_path, CONSTANT, base={"file": "base.csv"}))
    free = least_cost(world, 0.0).cost[0]
    assert least_cost(world, 0.0, limit_kw=2.0 + 3.3).cost[0] == pytest.approx(free)
    assert least_cost(world, 0.0, limit_kw=2.0 + 3.1).cost[0] > free + 0.01
