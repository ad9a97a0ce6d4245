"""Curves and trips of IEEE 1547-2018 and VDE-AR-N 4105, point by point: see ieee_1547_curves/case.yaml."""

import csv
from pathlib import Path

import numpy as np
import pytest

from evgrid.inverter_functions import kernels
from evgrid.scenario.fields import read_yaml
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, parameters

FOLDER = Path(__file__).parent / "ieee_1547_curves"
CASE = read_yaml(FOLDER / "case.yaml")


def rows(prefix=""):
    def read(name):
        with (FOLDER / f"{prefix}{name}.csv").open(newline="") as file:
            return {row.pop("case"): row for row in csv.DictReader(file)}

    expected = read("expected")
    given = read("input")
    assert given.keys() == expected.keys()
    return [row | expected[case] for case, row in given.items()]


def curve_name(row):
    return "{functions} {s_kva} kVA, {wanted_kw} kW, {voltage_pu} pu, {frequency_hz} Hz".format(**row)


def trip_name(row):
    return "{category} {element}".format(**row)


@pytest.mark.parametrize("row", rows(), ids=curve_name)
def test_curve(row):
    settings = dict(pair.split("=") for pair in row["functions"].split(";"))
    if "nominal_hz" in settings:
        settings["nominal_hz"] = int(settings["nominal_hz"])
    elif row["frequency_hz"] == "50":
        settings["nominal_hz"] = 50
    number = {key: float(value) for key, value in row.items() if key != "functions"}
    rating = Rating(number["s_kva"], number["charge_kw"], number["discharge_kw"])
    table = parameters(LocalFunctions(**settings), rating)
    state = np.zeros(1, kernels.STATE)
    voltage = number["voltage_pu"]
    kernels.respond(
        table[0], state[0], voltage, voltage, voltage, number["frequency_hz"], 1.0, number["wanted_kw"],
        -rating.discharge_kw, rating.charge_kw, 3600.0,
    )  # fmt: skip
    assert state["p_kw"][0] == pytest.approx(number["p_kw"], abs=CASE["curve_tolerance_kw"])
    assert state["q_kvar"][0] == pytest.approx(number["q_kvar"], abs=CASE["curve_tolerance_kw"])


@pytest.mark.parametrize("tick_s", [1.0, 4.0, 60.0])
@pytest.mark.parametrize("row", rows("trips_"), ids=trip_name)
def test_trip(row, tick_s):
    table = parameters(LocalFunctions(trips=row["category"]), Rating(10.0, 10.0, 10.0))
    state = np.zeros(1, kernels.STATE)
    voltage, frequency = float(row["voltage_pu"]), float(row["frequency_hz"])
    on_s = 0.0
    for _ in range(int(600 / tick_s)):
        p, _ = kernels.respond(
            table[0], state[0], voltage, voltage, voltage, frequency, 1.0, -5.0, -10.0, 10.0, tick_s
        )
        on_s += p / -5.0 * tick_s
    if row["trips_after_s"]:
        assert state["mode"][0] == kernels.OFF
        assert on_s == pytest.approx(float(row["trips_after_s"]), abs=CASE["trip_tolerance_s"])
    else:
        assert state["mode"][0] == kernels.IN_SERVICE
        assert on_s == 600.0
