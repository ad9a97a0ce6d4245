"""Sites in outages of the feeder, by the coupled run: see truck_carries_a_load/case.yaml, and a street whose
energies add up.
"""

from pathlib import Path

import numpy as np
import pytest

import evgrid
from evgrid.scenario.fields import read_yaml

HERE = Path(__file__).parent / "truck_carries_a_load"
CASE = read_yaml(HERE / "case.yaml")
STREET = Path(__file__).parents[2] / "scenarios" / "street_outage_6h.yaml"


def near(value):
    return pytest.approx(value, rel=CASE["tolerance"], abs=CASE["tolerance"])


def test_a_truck_carries_a_load_for_75_hours():
    found = evgrid.run(HERE / "scenario.yaml").isel(site=0)
    assert float(found["site_ev_out_kwh"]) == near(131 * 0.8 * 0.9)
    assert float(found["site_unmet_h"]) == near(90 - 75.456)
    assert float(found["site_critical_unserved_kwh"]) == near(1.25 * (90 - 75.456))
    assert float(found["site_interruptions"]) == 1
    assert float(found["site_dead_kwh"]) == 0
    ends_h = 1 + 12 / 3600 + 75.456
    last = int(ends_h / 0.25)
    load_kw = found["site_load_kw"].values
    assert load_kw[last] == near(1.25 * (ends_h / 0.25 - last))
    assert load_kw[last + 1 : 91 * 4] == pytest.approx(0)
    assert load_kw[5:last] == near(np.full(last - 5, 1.25))


def test_energies_of_a_street_in_an_outage_add_up():
    found = evgrid.run(evgrid.load_scenario(STREET, {"time.step": "15min"}))
    without = evgrid.run(evgrid.load_scenario(STREET, {"time.step": "15min", "outages": None}))
    total = {name: float(found[f"site_{name}_kwh"].sum()) for name in (
        "imported", "exported", "served", "unserved", "critical_unserved", "ev_in", "ev_out")}  # fmt: skip
    assert found.sizes["site"] == 20
    assert total["served"] + total["unserved"] == near(float(without["site_served_kwh"].sum()))
    assert total["imported"] - total["exported"] == near(total["served"] + total["ev_in"] - total["ev_out"])
    assert total["ev_out"] == near(float(found["session_energy_discharged_kwh"].sum()))
    out = slice(5 * 4, 11 * 4)  # 17:00 to 23:00
    assert float(abs(found["head_power_kw"].isel(time=out)).max()) == 0
    served = found["site_load_kw"].isel(time=out)
    asked = without["site_load_kw"].isel(time=out)
    assert float(served.sum()) == near(-float(found["site_ev_power_kw"].isel(time=out).sum()))
    assert bool((served <= 0.4 * asked + 1e-9).all())
    at_meters = 0.25 * float(without["base_load_kw"].isel(time=out).sum())
    assert float(found["not_served_kwh"].sum()) == near(at_meters)
