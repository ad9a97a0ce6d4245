"""Cost of stated sessions on tariffs of each form, worked out by hand, through the coupled run."""

from pathlib import Path

import numpy as np
import pytest

import evgrid
from evgrid.results.settlement import settle
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import read_yaml

CASES = {folder.name: read_yaml(folder / "case.yaml") for folder in Path(__file__).parent.glob("tariff_*")}


@pytest.mark.parametrize(
    ("case", "strategy", "step"),
    [
        (name, strategy, step)
        for name, case in sorted(CASES.items())
        for strategy in case["expected_cost"]
        for step in case["steps"]
    ],
)
def test_cost_by_hand(case, strategy, step):
    name, case = case, CASES[case]
    content = {
        "name": name,
        "time": {**case["time"], "step": step},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}, "step": "15min"},
        "fleet": {
            "sessions": {"file": "sessions.csv"},
            "charger": {"phases": 3, "power_kw": 11, **case.get("charger", {})},
            "vehicle": case.get("vehicle", {}),
        },
        "aggregators": {"main": {"strategy": strategy, **case.get("settings", {}).get(strategy, {})}},
        "communication": {"telemetry": step},
        "tariff": case["tariff"],
    }
    result = evgrid.run(scenario_from(content, folder=Path(__file__).parent / name))
    np.testing.assert_allclose(
        result["session_cost"], case["expected_cost"][strategy], rtol=case["tolerance"]
    )
    books = settle(result).fleet.iloc[0]
    for charge in ("fixed_charge", "demand_charge", "block_charge"):
        expected = case.get(f"expected_{charge}", 0.0)
        if isinstance(expected, dict):
            expected = expected[strategy]
        assert books.get(charge, 0.0) == pytest.approx(expected, rel=case["tolerance"], abs=1e-9)
