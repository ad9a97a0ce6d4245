"""Events of OpenADR worked out by hand, through the coupled run."""

from pathlib import Path

import numpy as np
import pytest

import evgrid
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import read_yaml

HERE = Path(__file__).parent / "openadr"
CASES = {folder.name: read_yaml(folder / "case.yaml") for folder in HERE.iterdir() if folder.is_dir()}


def run(name, strategy):
    case = CASES[name]
    events = next((HERE / name).glob("events.json*"))
    content = {
        "name": name,
        "time": {"start": "2026-01-15T16:00", "duration": "15h", "step": "5min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}, "step": "15min"},
        "fleet": {
            "sessions": {"file": f"../{case['sessions']}"},
            "charger": {"phases": 3, "power_kw": 11, **case.get("charger", {})},
        },
        "aggregators": {"main": {"strategy": strategy}},
        "communication": {"telemetry": "5min"},
        "system": {"openadr": {"file": str(events), "timezone": "Europe/Berlin", "currency": "EUR"}},
        "record": {"step": "15min"},
    }
    return evgrid.run(scenario_from(content, folder=HERE / name))


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        (name, strategy)
        for name, case in sorted(CASES.items())
        for strategy in dict.fromkeys([*case.get("expected_cost", {}), *case.get("expected_power", {})])
    ],
)
def test_by_hand(name, strategy):
    case, result = CASES[name], run(name, strategy)
    if strategy in case.get("expected_cost", {}):
        cost = case["expected_cost"][strategy]
        np.testing.assert_allclose(result["session_cost"].sum(), cost, rtol=1e-9)
    for begin, end, power in case.get("expected_power", {}).get(strategy, []):
        inside = (result.time >= np.datetime64(begin)) & (result.time < np.datetime64(end))
        found = result["fleet_power_kw"].values[:, inside]
        np.testing.assert_allclose(found, power, rtol=1e-9, atol=1e-9, err_msg=f"from {begin}")
