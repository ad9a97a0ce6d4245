"""What a session costs on a time-of-use tariff, through the coupled run."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import evgrid
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import read_yaml

FOLDER = Path(__file__).parent / "tou_pge_ev2a"
CASE = read_yaml(FOLDER / "case.yaml")


def sessions_on(day, folder):
    """The case's session table with its clock times put on a day, departure on the next."""
    table = pd.read_csv(FOLDER / "sessions.csv")
    table["arrival"] = f"{day}T" + table["arrival"]
    table["departure"] = f"{day + timedelta(days=1)}T" + table["departure"]
    table.to_csv(folder / "sessions.csv", index=False)
    return folder / "sessions.csv"


@pytest.mark.parametrize("season", CASE["days"])
@pytest.mark.parametrize("strategy", ["uncontrolled", "tou"])
@pytest.mark.parametrize("step", CASE["steps"])
def test_cost(season, strategy, step, tmp_path):
    day = CASE["days"][season]
    scenario = scenario_from(
        {
            "name": "tou",
            "time": {"start": f"{day}T12:00", "duration": "24h", "step": step},
            "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}},
            "fleet": {"sessions": {"file": str(sessions_on(day, tmp_path))}, "charger": {"phases": 3}},
            "aggregators": {"main": {"strategy": strategy}},
            "communication": {"telemetry": step},
            "tariff": "pge_ev2a",
        }
    )
    result = evgrid.run(scenario)
    np.testing.assert_allclose(result["session_energy_delivered_kwh"], [30.0], rtol=1e-9)
    expected = CASE["expected_cost_usd"][season][strategy]
    np.testing.assert_allclose(result["session_cost"], [expected], rtol=CASE["tolerance"])


def test_shifting_saves_what_the_fact_sheet_claims():
    case = read_yaml(FOLDER.parent / "shifting_saves" / "case.yaml")
    paid = {}
    for strategy in ("uncontrolled", "tou"):
        for season, day in case["days"].items():
            time = {"start": f"{day}T12:00", "duration": "5d", "step": "15min"}
            aggregators = {"main": {"strategy": strategy}}
            result = evgrid.run(scenario_from({**case["scenario"], "time": time, "aggregators": aggregators}))
            done = result["session_complete"].values
            paid[strategy, season] = float(result["session_cost"].values[done].sum())
    for season, most in case["most_percent"].items():
        assert 100 * (1 - paid["tou", season] / paid["uncontrolled", season]) < most
    year = {
        strategy: sum(months * paid[strategy, season] for season, months in case["months"].items())
        for strategy in ("uncontrolled", "tou")
    }
    saved = 100 * (1 - year["tou"] / year["uncontrolled"])
    assert saved == pytest.approx(case["claimed_percent"], abs=case["tolerance_percent"])
