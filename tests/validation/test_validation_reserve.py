"""A fleet in reserve lifts the nadir as the equations say: see reserve_nadir/case.yaml."""

import csv
from pathlib import Path

import pytest

import evgrid
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import read_yaml

HERE = Path(__file__).parent / "reserve_nadir"
CASE, INPUT = read_yaml(HERE / "case.yaml"), read_yaml(HERE / "input.yaml")
with (HERE / "expected.csv").open(newline="") as file:
    EXPECTED = list(csv.DictReader(file))


@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: row["case"])
def test_nadir(row, tmp_path):
    kw = INPUT["power_kw"]
    rows = [
        f"ev{k},Load R1{1 + k % 2 * 4},0,72000,0.5,{INPUT['energy_kwh']},{kw},{kw}"
        for k in range(INPUT["evs"])
    ]
    header = "ev,connection,arrival,departure,soc_arrival,energy_kwh,charge_kw,discharge_kw"
    (tmp_path / "sessions.csv").write_text("\n".join([header, *rows]))
    content = {
        "name": "nadir",
        "time": {"start": "2026-01-15T22:00", "duration": INPUT["loss_s"] + 20, "step": INPUT["step_s"]},
        "feeder": {"network": "cigre_lv", "step": 20, "base_load": {"source": "net"}},
        "fleet": {"sessions": {"file": "sessions.csv"}, "charger": {"phases": 3}},
        "aggregators": {"main": {"strategy": "reserve", "group": "feeder", "product": "fcr"}},
        "communication": {"telemetry": "10s"},
        "system": {
            "nominal_hz": 50,
            "frequency": {
                "source": "lfc", "agc_gain": 7, "fleet": {"stands_for": float(row["stands_for"])},
                "disturbances": [{"time": INPUT["loss_s"], "pu": INPUT["loss_pu"]}],
            },
        },
    }  # fmt: skip
    result = evgrid.run(scenario_from(content, folder=tmp_path))
    offered = float(result["capacity_offered_kw"][0, -1])
    assert offered == pytest.approx(INPUT["capacity_kw"], abs=CASE["capacity_tolerance_kw"])
    drop_hz = 50 - float(result["frequency_nadir_hz"][0])
    assert drop_hz == pytest.approx(float(row["drop_hz"]), abs=CASE["frequency_tolerance_hz"])
    drop_s = float(result["frequency_nadir_s"][0]) - INPUT["loss_s"]
    assert drop_s == pytest.approx(float(row["drop_s"]), abs=0.01)
