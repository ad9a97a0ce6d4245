"""The load-frequency table and PJM's score: see load_frequency/case.yaml and pjm_score/case.yaml."""

import csv
from pathlib import Path

import numpy as np
import pytest

import evgrid
from evgrid.core.model import Clock, MemoryRecorder
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import read_yaml
from evgrid.scenario.system import System
from evgrid.system.model import SystemModel
from evgrid.system.scores import PJMScore

HERE = Path(__file__).parent


def table(path):
    with path.open(newline="") as file:
        return {row.pop("case"): row for row in csv.DictReader(file)}


LFC = HERE / "load_frequency"
LFC_CASE, LFC_INPUT, LFC_EXPECTED = (
    read_yaml(LFC / "case.yaml"),
    read_yaml(LFC / "input.yaml"),
    table(LFC / "expected.csv"),
)


@pytest.mark.parametrize("case", LFC_EXPECTED)
@pytest.mark.parametrize("tick_s", LFC_INPUT["tick_s"])
def test_load_frequency(case, tick_s):
    frequency = {**LFC_INPUT["frequency"], "agc_gain": LFC_INPUT["cases"][case]}
    settings = System.model_validate({"nominal_hz": LFC_INPUT["nominal_hz"], "frequency": frequency})
    clock = Clock(np.datetime64("2026-01-15"), tick_s, round(LFC_INPUT["duration_s"] / tick_s))
    recorder = MemoryRecorder()
    model = SystemModel(settings, clock, range(2), 0, recorder)
    for tick in range(clock.ticks):
        rest = model.step(tick * tick_s, {})["system/frequency"] - LFC_INPUT["nominal_hz"]
    model.finish()
    expected = {name: float(value) for name, value in LFC_EXPECTED[case].items()}
    tolerance = LFC_CASE["frequency_tolerance_hz"]
    found = recorder.static
    np.testing.assert_allclose(found["rocof_hz_per_s"], expected["rocof_hz_per_s"], atol=tolerance)
    np.testing.assert_allclose(found["frequency_nadir_hz"] - 60, expected["nadir_hz"], atol=tolerance)
    np.testing.assert_allclose(
        found["frequency_nadir_s"], expected["nadir_s"], atol=LFC_CASE["time_tolerance_s"]
    )
    np.testing.assert_allclose(rest, expected["rest_hz"], atol=tolerance)


@pytest.mark.parametrize("case", LFC_EXPECTED)
def test_load_frequency_through_the_federation(case):
    """Behind HELICS, beside a feeder: the same at any tick of the federation."""
    extremes = {}
    for tick_s in (0.5, 4.0, 20.0):
        frequency = {**LFC_INPUT["frequency"], "agc_gain": LFC_INPUT["cases"][case]}
        content = {
            "name": "loss",
            "time": {"start": "2026-01-15", "duration": LFC_INPUT["duration_s"], "step": tick_s},
            "feeder": {"network": "case33bw", "step": 20, "base_load": {"source": "net"}},
            "system": {"nominal_hz": LFC_INPUT["nominal_hz"], "frequency": frequency},
        }
        result = evgrid.run(scenario_from(content))
        extremes[tick_s] = [
            float(result[name][0]) for name in ("rocof_hz_per_s", "frequency_nadir_hz", "frequency_nadir_s")
        ]
    expected = [float(LFC_EXPECTED[case][name]) for name in ("rocof_hz_per_s", "nadir_hz")]
    expected[1] += LFC_INPUT["nominal_hz"]
    for found in extremes.values():
        np.testing.assert_allclose(found[:2], expected, atol=LFC_CASE["frequency_tolerance_hz"])
        np.testing.assert_allclose(found, extremes[0.5], atol=1e-6)


PJM = HERE / "pjm_score"
PJM_CASE, PJM_INPUT, PJM_EXPECTED = (
    read_yaml(PJM / "case.yaml"),
    table(PJM / "input.csv"),
    table(PJM / "expected.csv"),
)


@pytest.mark.parametrize("windows", ["rolling", "blocks"])
@pytest.mark.parametrize("case", PJM_EXPECTED)
def test_pjm_score(case, windows):
    given, expected = PJM_INPUT[case], PJM_EXPECTED[case]
    seconds = np.arange(0, 3600 + 600, 2.0)
    turn = 2 * np.pi / float(given["period_s"])
    signal = np.sin(turn * seconds)
    response = float(given["gain"]) * np.sin(turn * (seconds - float(given["late_s"])))
    score = PJMScore(windows=windows).score(signal, response, 2.0)
    assert score.total.shape == (1,)
    for part in ("correlation", "delay", "precision"):
        assert score.parts[part] == pytest.approx(float(expected[part]), abs=PJM_CASE["tolerance"]), part
    assert score.total == pytest.approx(float(expected["score"]), abs=PJM_CASE["tolerance"])
