"""The scenario in words, and what a cost contains."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from evgrid.report.assumptions import assumptions, chargers, count
from evgrid.report.judged import worst_sentence
from evgrid.report.key_figures import charges_of
from evgrid.results.metrics import _charges_left_out

FILES = {
    "feeder": {
        "network": "data/net.json",
        "base_load": {"file": "/data/meters.csv", "source": None},
        "profiles": {
            "school": {"file": "/data/school.csv", "of": "load"},
            "roofs": {"pv": {}, "at": ["PV*"]},
        },
    },
    "fleet": {
        "sessions": {"file": "/data/sess.csv"},
        "charger": {"power_kw": 7.4, "phases": 1},
        "charge_points": {"file": "/data/points.csv", "waiting": "leave"},
        "vehicle": {"capacity_kwh": 60.0, "charge_kw": 11.0, "charge_efficiency": 0.9},
    },
}
NOTES = [
    "feeder.base_load.file: 40 rows of 17 series read.",
    "feeder.profiles.school: 8 rows of 2 series read.",
]


def test_files_are_named_with_their_series():
    rows = dict(assumptions(FILES, {"bus": 1, "line": 2, "ev": 6, "session": 8, "member": 2}, NOTES))
    assert rows["feeder"] == "net.json: 1 bus, 2 lines"
    assert rows["other load"] == "file meters.csv, 17 series"
    assert rows["profile school"] == "file school.csv, 2 series, kind load"
    assert rows["profile roofs"] == "PV by pvlib of PV*"
    assert rows["EVs"] == "3 EVs a member"
    assert rows["sessions"] == "file sess.csv; 4 sessions a member"
    assert rows["charge points"] == "file points.csv; EVs leave if none is free"
    assert rows["chargers"].startswith("by the sessions' file where it states power (charge_kw)")


def test_kinds_of_chargers_have_their_shares_and_not_the_default():
    kinds = [{"power_kw": 3.7, "phases": 1, "share": 1}, {"power_kw": 11, "phases": 3, "share": 3}]
    said = chargers(
        {"sessions": {"source": "home"}, "charger": {"power_kw": 11, "phases": 3, "kinds": kinds}}
    )
    assert said == "25 % 3.7 kW on 1 phase, 75 % 11 kW on 3 phases; none bidirectional"
    said = chargers({"charger": {"ratings": {"3.7": 1, "7.4": 1}, "phases": 1, "bidirectional": 0.5}})
    assert said == "50 % 3.7 kW, 50 % 7.4 kW, on 1 phase; 50 % bidirectional"


def test_no_load_no_evs_and_one_of_a_kind():
    rows = dict(assumptions({"feeder": {"network": "cigre_lv", "base_load": {"source": "none"}}}, {}))
    assert rows == {"feeder": "cigre_lv", "other load": "none", "EVs": "none"}
    assert [count(n, "bus", "buses") for n in (0, 1, 1200)] == ["0 buses", "1 bus", "1,200 buses"]


@pytest.mark.parametrize(
    ("tariff", "charges", "left"),
    [
        ({}, [], ""),
        ({"fixed_per_day": 0.3}, ["fixed_charge"], "without fixed charges"),
        ({"demand": {"prices": [{"price_per_kw": 0}]}}, [], ""),
        ({"demand": {"prices": [{"price_per_kw": 9}], "of": "feeder"}}, ["demand_charge"], "without demand"),
    ],
)
def test_charges_besides_energy_are_those_of_the_tariff(tariff, charges, left):
    result = xr.Dataset(attrs={"scenario": json.dumps({"tariff": tariff})})
    assert list(charges_of(result)) == charges
    assert left in _charges_left_out(result)
    assert bool(_charges_left_out(result)) == bool(left)
    if "demand_charge" in charges:
        assert (
            charges_of(result)["demand_charge"] == "each month billed whole, base load of the feeder included"
        )


def test_a_limit_of_the_feeder_is_violated_at_the_feeder():
    row = {
        "criterion": "limit_of_main", "element": "", "name": "", "phase": "", "unit": "kW", "worst": 61.71,
        "limit": 60.0, "first_time": pd.Timestamp("2026-10-25T17:40"), "duration_h": np.float64(1.0),
    }  # fmt: skip
    assert "limit of aggregator main at the feeder: 61.71 kW" in worst_sentence(pd.DataFrame([row]))
