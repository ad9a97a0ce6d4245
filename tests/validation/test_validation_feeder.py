"""Power flows against published or independently computed numbers.

A case is a folder with ``case.yaml``: what is solved, what is expected, the tolerance, the source.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from evgrid.core.model import MemoryRecorder
from evgrid.feeder.model import FeederModel
from evgrid.feeder.solvers import check_balance, make_solver
from evgrid.scenario import scenario_from

SOLVERS = ("power-grid-model", "pandapower")


def case(name):
    return YAML(typ="safe").load((Path(__file__).parent / name / "case.yaml").read_text())


def minute_scenario(content, data, start, duration, solver="power-grid-model", reduce=True):
    return scenario_from(
        {
            "name": "validation",
            "time": {"start": start, "duration": duration, "step": "60s"},
            "feeder": {
                "network": content["network"],
                "solver": solver,
                "reduce": reduce,
                "base_load": {
                    "file": str(data / content["load_kw"]),
                    "power_factor": content["power_factor"],
                },
            },
        }
    )


def run(scenario, network):
    recorder = MemoryRecorder()
    model = FeederModel(scenario, network, recorder, fleet=False, feedback=False)
    for step in range(scenario.clock.ticks):
        model.step(step * 60.0, {})
    model.finish()
    return recorder, model


@pytest.mark.parametrize(("solver", "reduce"), [(SOLVERS[0], True), (SOLVERS[0], False), (SOLVERS[1], False)])
def test_european_lv_minute_566(solver, reduce, feeder, shared_data):
    content = case("european_lv_minute_566")
    with (shared_data / content["expected_voltages"]).open() as file:
        expected = {row["bus"]: [float(row[phase]) for phase in "abc"] for row in csv.DictReader(file)}
    network = feeder(content["network"])
    scenario = minute_scenario(content, shared_data, "2026-01-15T09:25", "60s", solver, reduce)  # minute 566
    recorder, _ = run(scenario, network)
    voltage = recorder.series("voltage_pu")[0, 0]
    assert voltage.shape == (907, 3)
    reference = np.array([expected[str(bus)] for bus in network.grid.buses.name])
    assert np.abs(voltage - reference).max() <= content["tolerance_pu"][solver]


def test_european_lv_whole_day(feeder, shared_data):
    network = feeder("european_lv")
    scenario = minute_scenario(case("european_lv_minute_566"), shared_data, "2026-01-15T00:00", "24h")
    recorder, model = run(scenario, network)
    assert recorder.series("voltage_pu").shape == (1440, 1, 907, 3)
    assert model.audit()["base_energy_kwh"] == pytest.approx(recorder.series("base_load_kw").sum() / 60)


@pytest.mark.parametrize("solver", SOLVERS)
def test_case33bw(solver, feeder):
    content = case("case33bw")
    network = feeder(content["network"])
    loads = network.grid.loads
    for flow_case in content["flows"]:
        p = loads.p_kw[np.newaxis].copy()
        for bus, extra in flow_case["extra_kw"].items():
            p[0, loads.bus == bus, 0] += extra
        flow = make_solver(network, solver).solve(p, loads.q_kvar[np.newaxis])
        check_balance(flow, p, 1e-6)
        assert flow.losses_kw[0] == pytest.approx(flow_case["losses_kw"], abs=content["tolerance_kw"][solver])
        assert flow.voltage_pu.min() == pytest.approx(
            flow_case["lowest_pu"], abs=content["tolerance_pu"][solver]
        )
        assert flow.voltage_pu.argmin() == flow_case["lowest_bus"]
