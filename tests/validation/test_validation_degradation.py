"""Battery ageing against BLAST-Lite: see source.md in the cases' folders."""

import json
from pathlib import Path

import pytest

from evgrid.fleet import degradation as ageing


def cases(folder, key):
    path = Path(__file__).parent / folder
    given = json.loads((path / "input.json").read_text())
    expected = json.loads((path / "expected.json").read_text())
    assert len(given["cases"]) == len(expected[key])
    return [(given, case, expected, want) for case, want in zip(given["cases"], expected[key], strict=True)]


def case_id(value):
    if isinstance(value, dict) and "chemistry" in value:
        return "-".join(str(v) for v in value.values())
    return ""


@pytest.mark.parametrize(
    ("given", "case", "expected", "want"),
    cases("battery_storage_ten_years", "relative_capacity"),
    ids=case_id,
)
def test_storage(given, case, expected, want):
    state = ageing.new_state(case["chemistry"])
    ageing.rest(state, case["soc"], given["days"] * 86400.0, case["temperature_c"] + 273.15)
    assert ageing.relative_capacity(state)[0] == pytest.approx(want, abs=expected["tolerance"])


@pytest.mark.parametrize(
    ("given", "case", "expected", "want"), cases("battery_cycling_one_year", "results"), ids=case_id
)
def test_cycling(given, case, expected, want):
    state = ageing.new_state(case["chemistry"])
    temperature_k = case["temperature_c"] + 273.15
    half_s = case["half_cycle_h"] * 3600.0
    cycles = int(given["days"] * 86400.0 / (2 * half_s))
    for _ in range(cycles):
        ageing.advance(state, case["high"], case["low"], half_s, temperature_k)
        ageing.advance(state, case["low"], case["high"], half_s, temperature_k)
    calendar = ageing.calendar_loss(state)[0]
    tolerance = expected["tolerance_calendar_relative"][case["chemistry"]]
    assert calendar == pytest.approx(want["calendar_loss"], rel=tolerance)
    if "calendar_loss_half_hourly" in want:
        tolerance = expected["tolerance_calendar_half_hourly_relative"]
        assert calendar == pytest.approx(want["calendar_loss_half_hourly"], rel=tolerance)
    power = {"nmc": 0.5, "lfp": 0.828}[case["chemistry"]]
    full_cycles = cycles * (case["high"] - case["low"])
    corrected = ageing.cycle_loss(state)[0] * (want["full_cycles"] / full_cycles) ** power
    tolerance = expected["tolerance_cycle_relative"][case["chemistry"]]
    assert corrected == pytest.approx(want["cycle_loss"], rel=tolerance)
