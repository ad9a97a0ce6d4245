"""Power flows against published or independently computed numbers.

A case is a folder with ``case.yaml``: what is solved, what is expected, the tolerance, the source.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandapower.networks as pn
import pandas as pd
import pytest
from ruamel.yaml import YAML
from tests.support.opendss import build_circuit, solve

from evgrid.core.model import MemoryRecorder
from evgrid.feeder.model import FeederModel
from evgrid.feeder.solvers import check_balance, make_solver
from evgrid.scenario import scenario_from

MINUTES = pd.RangeIndex(1, 1441, name="minute")
SOLVERS = ("z-bus", "power-grid-model", "pandapower")


def case(name):
    return YAML(typ="safe").load((Path(__file__).parent / name / "case.yaml").read_text())


def day_scenario(file, content, start, duration, solver="power-grid-model", reduce=True):
    return scenario_from(
        {
            "name": "validation",
            "time": {"start": start, "duration": duration, "step": "60s"},
            "feeder": {
                "network": content["network"],
                "solver": solver,
                "reduce": reduce,
                "base_load": {"file": str(file), "power_factor": content["power_factor"]},
            },
        }
    )


@pytest.fixture(scope="module")
def tables():
    """pandapower's tables of the European LV feeder; its loads are those of minute 566."""
    return pn.ieee_european_lv_asymmetric("on_peak_566")


def load_of(tables):
    """Name, bus, phase and active power in kW of each load of the tables."""
    loads = tables.asymmetric_load
    power = 1e3 * loads[["p_a_mw", "p_b_mw", "p_c_mw"]].to_numpy()
    return loads["name"], loads["bus"].to_numpy(), power.argmax(axis=1), power.sum(axis=1)


@pytest.fixture(scope="module")
def minute_566(tables, tmp_path_factory):
    """A load file with the loads of the tables in minute 566, and none in the others."""
    name, *_, power = load_of(tables)
    path = tmp_path_factory.mktemp("load") / "load_kw.csv"
    load = pd.DataFrame(0.0, index=MINUTES, columns=name)
    load.loc[566] = power
    load.to_csv(path)
    return path


@pytest.fixture(scope="module")
def by_opendss(tables):
    """OpenDSS on the circuit of the tables: voltages of the low-voltage buses, (bus, phase) pu."""
    dss = pytest.importorskip("opendssdirect")
    build_circuit(dss, tables)
    kv, factor = tables.trafo.vn_lv_kv[0] / np.sqrt(3), case("european_lv_minute_566")["power_factor"]
    for place, (_, bus, phase, kw) in enumerate(zip(*load_of(tables), strict=True)):
        dss.Text.Command(
            f"new load.h{place} phases=1 bus1=b{bus}.{phase + 1} kv={kv} kw={kw} pf={factor} "
            "model=1 vminpu=0.5 vmaxpu=1.5"
        )
    dss.Text.Command("set tolerance=1e-9 maxiterations=1000")
    return solve(dss, tables)


def run(scenario, network):
    recorder = MemoryRecorder()
    model = FeederModel(scenario, network, recorder, fleet=False, feedback=False)
    for step in range(scenario.clock.ticks):
        model.step(step * 60.0, {})
    model.finish()
    return recorder, model


@pytest.mark.parametrize(
    ("solver", "reduce"),
    [
        (solver, reduce)
        for solver in SOLVERS
        for reduce in (True, False)
        if not (solver == "pandapower" and reduce)
    ],
)
def test_european_lv_minute_566(solver, reduce, feeder, tables, minute_566, by_opendss):
    content = case("european_lv_minute_566")
    scenario = day_scenario(minute_566, content, "2026-01-15T09:25", "60s", solver, reduce)  # minute 566
    network = feeder(content["network"])
    recorder, _ = run(scenario, network)
    assert network.grid.buses.name.tolist() == tables.bus["name"].astype(str).tolist()
    voltage = recorder.series("voltage_pu")[0, 0]
    assert voltage.shape == (907, 3)
    assert np.abs(voltage[1:] - by_opendss).max() <= content["tolerance_pu"][solver]
    assert voltage[0] == pytest.approx(1.05)  # the source


def test_opendss_on_the_tables_is_opendss_on_the_published_files(tables, minute_566, by_opendss, shared_data):
    content = case("european_lv_minute_566")
    with (shared_data / content["expected_voltages"]).open() as file:
        expected = {row["bus"]: [float(row[phase]) for phase in "abc"] for row in csv.DictReader(file)}
    published = np.array([expected[str(bus)] for bus in tables.bus["name"]])
    assert np.abs(by_opendss - published[1:]).max() <= 1e-6
    loads = pd.read_csv(shared_data / content["load_kw"]).set_index("minute").loc[566]
    own = pd.read_csv(minute_566).set_index("minute").loc[566]
    np.testing.assert_allclose(own, loads[own.index], atol=1e-6)


def test_european_lv_whole_day(feeder, tables, tmp_path):
    name, *_ = load_of(tables)
    load = pd.DataFrame(np.random.default_rng(0).gamma(0.5, 1.0, (1440, len(name))), MINUTES, name)
    load.to_csv(tmp_path / "load_kw.csv")
    content = case("european_lv_minute_566")
    scenario = day_scenario(tmp_path / "load_kw.csv", content, "2026-01-15T00:00", "24h")
    recorder, model = run(scenario, feeder("european_lv"))
    assert recorder.series("voltage_pu").shape == (1440, 1, 907, 3)
    assert model.audit()["base_energy_kwh"] == pytest.approx(load.to_numpy().sum() / 60)


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
