"""Hot spot and ageing of transformers against IEC 60076-7: see transformer_hot_spot/case.yaml."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from evgrid.feeder.transformer_thermal import ThermalState
from evgrid.scenario.devices import TransformerThermal
from evgrid.scenario.fields import read_yaml

FOLDER = Path(__file__).parent / "transformer_hot_spot"
CASE = read_yaml(FOLDER / "case.yaml")


def rows(name):
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("step_min", [1, CASE["annex_h"]["step_min"]])
def test_annex_h_load_steps(step_min):
    case = CASE["annex_h"]
    state = ThermalState([TransformerThermal(**case["constants"])], 1, 60.0 * step_min)
    state.start(**case["start"])
    given, expected = rows("annex_h_input"), rows("annex_h_expected")
    for step, wanted in zip(given, expected, strict=True):
        start, end = int(step["from_min"]), int(step["to_min"])
        for _ in range(start, end, step_min):
            state.step(np.array([[float(step["load"])]]), case["ambient_c"])
        assert end == int(wanted["at_min"])
        for name, got in (("top_oil", state.end_top_oil_c), ("hot_spot", state.end_hot_spot_c)):
            assert got.item() == pytest.approx(
                float(wanted[f"{name}_c"]), abs=float(wanted[f"{name}_tolerance_k"])
            )


def test_constant_load_of_normal_ageing():
    case = CASE["constant_load"]
    got = {}
    for purpose in ("temperature", "ageing"):
        state = ThermalState([TransformerThermal(**case["constants"])], 1, 900.0)
        load, ambient = np.full((96, 1, 1), case["load"]), case[f"{purpose}_ambient_c"]
        state.settle(load[0], ambient)
        state.run(load, ambient)
        if purpose == "temperature":
            got = {"top_oil_c": state.end_top_oil_c, "hot_spot_c": state.end_hot_spot_c}
        else:
            got["life_h_a_day"] = state.life_h
    for name, expected in case["expected"].items():
        assert got[name].item() == pytest.approx(expected, abs=case["tolerance"][name])


@pytest.mark.parametrize("name", ["distribution", "overshoot"])
def test_loss_of_life_over_a_day_that_varies(name):
    case, given = CASE["day"], rows("day")
    state = ThermalState([TransformerThermal(**case[name]["constants"])], 1, 60.0 * case["step_min"])
    state.settle(np.array([[float(given[0]["load"])]]), float(given[0]["ambient_c"]))
    for row in given:
        state.step(np.array([[float(row["load"])]]), float(row["ambient_c"]))
        for what, got in (("top_oil", state.end_top_oil_c), ("hot_spot", state.end_hot_spot_c)):
            wanted = float(row[f"{name}_{what}_c"])
            assert got.item() == pytest.approx(wanted, abs=case["tolerance_k"], rel=0)
    assert state.life_h.item() / 24 == pytest.approx(case[name]["days_aged"], rel=case["tolerance_aged"])


def difference_equations(p, load, ambient, minutes, parts):
    """Plain first-order differences of IEC 60076-7:2018, each step cut into parts; θh at the ends of
    the steps, and loss of life in minutes."""
    top = ((1 + load[0] ** 2 * p.loss_ratio) / (1 + p.loss_ratio)) ** p.oil_exponent * p.top_oil_rise_k
    top += ambient[0]
    h1 = p.k21 * load[0] ** p.winding_exponent * p.gradient_k
    h2 = (p.k21 - 1) * load[0] ** p.winding_exponent * p.gradient_k
    hot, life, dt = [], 0.0, minutes / parts
    for k, a in zip(load[1:], ambient[1:], strict=True):
        rise = ((1 + k**2 * p.loss_ratio) / (1 + p.loss_ratio)) ** p.oil_exponent * p.top_oil_rise_k
        for _ in range(parts):
            gradient = k**p.winding_exponent * p.gradient_k
            top += dt / (p.k11 * p.oil_time_constant_min) * (rise - (top - a))
            h1 += dt / (p.k22 * p.winding_time_constant_min) * (p.k21 * gradient - h1)
            h2 += dt / (p.oil_time_constant_min / p.k22) * ((p.k21 - 1) * gradient - h2)
            life += math.exp(15000 / 383 - 15000 / (top + h1 - h2 + 273)) * dt
        hot.append(top + h1 - h2)
    return hot, life


def annex_i():
    case, given = CASE["annex_i"], rows("annex_i_input")
    load, ambient = ([float(row[key]) for row in given] for key in ("load", "ambient_c"))
    return case, TransformerThermal(**case["constants"]), load, ambient


def test_annex_i_settled_start():
    case, p, load, ambient = annex_i()
    state = ThermalState([p], 1, 60.0)
    state.settle(np.array([[load[0]]]), ambient[0])
    wanted = case["settled"]
    assert state.end_top_oil_c.item() == pytest.approx(wanted["top_oil_c"], abs=case["settled_tolerance"])
    gradient = wanted["winding_k"] - wanted["oil_part_k"]
    got = (state.end_hot_spot_c - state.end_top_oil_c).item()
    assert got == pytest.approx(gradient, abs=case["settled_tolerance"])


@pytest.mark.parametrize(("parts", "suffix"), [(1, ""), (180, "_in_steps_of_1_s")])
def test_annex_i_series(parts, suffix):
    case, p, load, ambient = annex_i()
    tolerances = case["difference_equations"]
    state = ThermalState([p], 1, 60.0 * case["step_min"])
    state.settle(np.array([[load[0]]]), ambient[0])
    hot = []
    for k, a in zip(load[1:], ambient[1:], strict=True):
        state.step(np.array([[k]]), a)
        hot.append(state.end_hot_spot_c.item())
    wanted, life_min = difference_equations(p, load, ambient, case["step_min"], parts)
    assert hot == pytest.approx(wanted, abs=tolerances[f"tolerance_k{suffix}"])
    assert state.life_h.item() * 60 == pytest.approx(life_min, rel=tolerances[f"life_tolerance{suffix}"])


@pytest.mark.parametrize(
    "row", rows("ageing_expected"), ids=lambda row: f"{row['paper']} {row['hot_spot_c']}"
)
def test_days_aged_in_a_day(row):
    hot = float(row["hot_spot_c"])  # settled without load at this ambient: no-load losses are 1e-9 of all
    p = TransformerThermal(loss_ratio=1e9, paper=row["paper"])
    state = ThermalState([p], 1, 900.0)
    state.settle(np.zeros((1, 1)), hot)
    state.run(np.zeros((96, 1, 1)), hot)
    assert state.life_h.item() / 24 == pytest.approx(float(row["days_a_day"]), abs=float(row["tolerance"]))
