"""One EV carries a household up to three days: see one_ev_carries_a_household/case.yaml."""

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.support.survival import sites_of

from evgrid.scenario.fields import read_yaml
from evgrid.sites.survival import survival_hours

HERE = Path(__file__).parent / "one_ev_carries_a_household"
CASE = read_yaml(HERE / "case.yaml")


def table(name):
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", table("expected.csv"), ids=lambda row: " ".join(row.values()))
def test_one_ev_carries_a_household(row):
    load_kw = [float(hour[row["profile"]]) for hour in table("input.csv")]
    assert sum(load_kw) == pytest.approx(29.4)
    capacity = float(row["capacity_kwh"])
    store = {"capacity_kwh": capacity, "floor_kwh": float(row["floor"]) * capacity, "discharge_kw": 9.6,
             "discharge_b": 0.1}  # fmt: skip
    hours = survival_hours(sites_of(load_kw, stores=[[[store]]]), np.array([[capacity]]))
    start = int(row["start_hour"])
    assert hours[start, 0] == pytest.approx(float(row["hours"]), abs=CASE["tolerance_h"])
