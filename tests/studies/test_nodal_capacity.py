"""Nodal capacity against power flows of pandapower, load by load."""

import json

import numpy as np
import pandapower as pp
import pandapower.networks as pn
import pandas as pd
import pytest

from evgrid.errors import ScenarioError
from evgrid.feeder.networks import load_network
from evgrid.results.limits import limit_set
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder
from evgrid.studies.hosting_capacity import load_study, run_study
from evgrid.studies.hosting_capacity_output import save_study
from evgrid.studies.nodal_capacity import added_load, nodal_capacity

ADDED_KW = (0.0, 100.0, 200.0, 300.0, 400.0, 800.0)
EVERY = 4
"""Of the loads, those that are compared."""
BASE = """
name: base
time: {start: 2026-07-01T16:00, duration: 30min, step: 10min}
feeder: {network: case33bw, phases: 1, base_load: {source: net}}  # medium voltage: EVs spread below it
fleet: {count: 1}
communication: {telemetry: 10min}
"""


def scenario(**changes):
    content = {
        "name": "test",
        "time": {"start": "2026-07-01T16:00", "duration": "30min", "step": "10min"},
        "feeder": {"network": "case33bw", "base_load": {"source": "net"}},
    }
    return scenario_from({**content, **changes})


def test_equals_one_power_flow_after_the_other():
    net = pn.case33bw()
    expected = []
    for load in net.load.index[::EVERY]:
        before, highest = net.load.p_mw[load], np.nan
        for kw in ADDED_KW:
            net.load.loc[load, "p_mw"] = before + kw / 1000
            pp.runpp(net, tolerance_mva=1e-10)
            if net.res_bus.vm_pu.min() < 0.9:
                break
            highest = kw
        net.load.loc[load, "p_mw"] = before
        expected.append(highest)
    found = nodal_capacity(scenario(), ADDED_KW, limit_set("en_50160"))
    np.testing.assert_array_equal(found.values[::EVERY], expected)
    assert len(set(expected)) > 3
    assert found.attrs["units"] == "kW"


def test_a_load_goes_to_its_own_phase_or_to_all():
    connections = load_network(Feeder(network="european_lv")).connections
    power = added_load(connections, np.array([0, 1]), np.array([3.0, 6.0]))
    np.testing.assert_array_equal(power.sum(axis=(1, 2)), [3.0, 6.0])
    assert power[0, 0, connections.phase[0]] == 3.0


def test_a_case_without_a_solution_counts_as_a_violation():
    found = nodal_capacity(scenario(), (0.0, 1e7), limit_set("en_50160"))
    np.testing.assert_array_equal(found.values, 0.0)


def test_an_ensemble_is_refused():
    with pytest.raises(ScenarioError, match=r"ensemble.members = 2: nodal capacity is of one member"):
        nodal_capacity(scenario(ensemble={"members": 2}), ADDED_KW, limit_set("en_50160"))


def test_study_with_a_map(tmp_path, scheduler):
    (tmp_path / "base.yaml").write_text(BASE)
    study = load_study(
        tmp_path / "base.yaml", levels=[0.0], members=1, limits=["en_50160"], nodal_kw=ADDED_KW
    )
    result = run_study(study, scheduler=scheduler)
    files = save_study(result, tmp_path / "out")
    assert {file.name for file in files} >= {"nodal.csv", "nodal.png"}
    features = json.loads((tmp_path / "out" / "buses.geojson").read_text())["features"]
    at = {f["properties"]["bus"]: f["properties"]["nodal_capacity_kw"] for f in features}
    nodal = result["nodal_capacity_kw"]
    for bus, kw in zip(nodal["connection_bus"].values, nodal.values, strict=True):
        assert at[str(bus)] == kw
    assert None in at.values()  # the bus without a load
    table = pd.read_csv(tmp_path / "out" / "nodal.csv")
    least = nodal["connection_at_least"].values
    assert table["connection_at_least"].tolist() == least.tolist() == (nodal == ADDED_KW[-1]).values.tolist()
    assert 0 < least.sum() < len(least)
    of_bus = {f["properties"]["bus"]: f["properties"]["nodal_capacity_at_least"] for f in features}
    for bus, unbounded in zip(nodal["connection_bus"].values, least, strict=True):
        assert of_bus[str(bus)] == unbounded
