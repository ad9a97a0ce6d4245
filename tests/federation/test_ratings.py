"""Loadings of elements without a rating, the phase of a thermal violation, and whose voltage is the lowest.

::

    grid - MV = switch = MV2 ==T1== LV0 -line 0- LV1 -line 1- LV2 -line 2- LV3    a house at LV1, LV2, LV3
"""

import json
from types import SimpleNamespace

import numpy as np
import pandapower as pp
import pandas as pd
import pytest
import xarray as xr

from evgrid.report.key_figures import key_figures
from evgrid.results.limits import coverage, limit_set, violated, violations
from evgrid.results.metrics import summary
from evgrid.runs.simulation import run
from evgrid.scenario import scenario_from
from evgrid.studies.comparison import side_by_side
from evgrid.studies.figures import worst_of_feeder
from evgrid.studies.hosting_capacity import check_run
from evgrid.studies.voltage_support import VoltageSupport

START = "2026-01-12T18:00"


def street(rated_ka=(0.2, 0.2, 0.2), source_pu=1.0, house_kw=1.2):
    net = pp.create_empty_network(f_hz=50)
    mv, mv2 = (pp.create_bus(net, 10.0, name=name) for name in ("MV", "MV2"))
    low = [pp.create_bus(net, 0.4, name=f"LV{i}") for i in range(4)]
    pp.create_ext_grid(net, mv, vm_pu=source_pu)
    pp.create_switch(net, mv, mv2, "b")
    pp.create_transformer_from_parameters(
        net, mv2, low[0], 0.16, 10.0, 0.4, 1.3, 4.0, 0.0, 0.0, shift_degree=150.0, name="T1",
        vector_group="Dyn", vk0_percent=4.0, vkr0_percent=1.3, mag0_percent=100.0, mag0_rx=0.0,
        si0_hv_partial=0.9,
    )  # fmt: skip
    for k, rating in enumerate(rated_ka):
        pp.create_line_from_parameters(
            net, low[k], low[k + 1], 0.06, 0.32, 0.08, 0.0, rating, name=f"line {k}", r0_ohm_per_km=1.3,
            x0_ohm_per_km=0.32, c0_nf_per_km=0.0,
        )  # fmt: skip
        pp.create_load(net, low[k + 1], house_kw / 1e3, name=f"house {k}", type="wye")
    return net


@pytest.fixture
def result(tmp_path):
    def of(net, phase="b", **feeder):
        """Two hours with a car of 7.4 kW at the last house on one phase."""
        pp.to_json(net, str(tmp_path / "net.json"))
        (tmp_path / "cars.csv").write_text(
            "ev,connection,arrival,departure,soc_arrival,phase\n"
            f"car,house 2,{START[:11]}18:00,2026-01-13T06:00,0.2,{phase}\n"
        )
        return run(
            scenario_from(
                {
                    "name": "street",
                    "time": {"start": START, "duration": "2h", "step": "30min"},
                    "feeder": {
                        "network": str(tmp_path / "net.json"), "base_load": {"source": "net"}, **feeder,
                    },
                    "fleet": {"sessions": {"file": str(tmp_path / "cars.csv")}},
                    "communication": {"telemetry": "30min"},
                }
            )
        )  # fmt: skip

    return of


RATINGS = limit_set("ratings")


@pytest.mark.parametrize("solver", ["power-grid-model", "pandapower"])
@pytest.mark.parametrize("rating", [np.nan, 0.0, 99999.0, np.inf])
def test_a_line_without_a_rating_has_no_loading(result, rating, solver):
    found = result(street(rated_ka=(rating, 0.02, rating)), solver=solver)
    loading = found["line_loading"].values
    assert np.isnan(loading[..., [0, 2]]).all()
    assert np.isnan(found["line_rated_ka"].values).tolist() == [True, False, True]
    # house and car on phase b: at least 7.4 kW + 0.8 kW at 230 V, 20 A rated
    assert loading[..., 1].max() == pytest.approx(8.2 / 0.23 / 20, rel=0.1)
    said = "not checked: no rating of 2 of 3 lines"
    assert dict(summary(found))["line loading, highest"].endswith(f"; {said}")
    table = violations(found, RATINGS)
    assert table.attrs["notes"] == [f"line_rating: {said}"]
    assert table["name"].tolist() == ["line 1"]


def test_lines_all_without_a_rating_are_not_checked(result):
    found = result(street(rated_ka=(np.nan,) * 3))
    said = "not checked: no rating of 3 of 3 lines"
    assert dict(summary(found))["line loading, highest"] == said
    table = violations(found, limit_set("ratings", "neutral_current"))
    assert table.attrs["not_available"] == [f"line_rating: {said}", f"neutral_current: {said}"]
    assert violated(found, RATINGS)["criterion"].values.tolist() == ["trafo_rating"]
    rows = coverage(found, RATINGS).set_index("criterion")
    assert rows["checked"].tolist() == [False, True]
    assert rows.loc["line_rating", "remark"] == said


def test_a_transformer_without_a_rating_has_neither_loading_nor_hot_spot(result):
    net = street()  # the same transformer on a base of 10 GVA, which stands for none
    net.trafo["sn_mva"] = 1e4
    for column in ("vk_percent", "vkr_percent", "vk0_percent", "vkr0_percent"):
        net.trafo[column] *= 1e4 / 0.16
    found = result(net, transformer_ageing={})
    assert np.isnan(found["trafo_loading"]).all()
    said = "not checked: no rating of 1 of 1 trafos"
    assert dict(summary(found))["transformer loading, highest"] == said
    table = violations(found, limit_set("ratings", "hot_spot"))
    assert table.attrs["not_available"] == [f"trafo_rating: {said}", f"hot_spot: {said}"]
    assert dict(summary(found))["hot spot, highest"] == said
    figures = worst_of_feeder(found)
    study = xr.concat([xr.Dataset(figures)] * 2, pd.Index(["before", "after"], name="variant"))
    assert side_by_side(study).loc["highest loading of a transformer (%)"].tolist() == [said, said]
    counted = next(f for f in key_figures(found) if f.name == "violations")
    assert counted.remark == "not checked: trafo_rating"


@pytest.mark.parametrize("solver", ["power-grid-model", "pandapower"])
@pytest.mark.parametrize("phase", ["a", "b", "c"])
def test_a_thermal_violation_names_its_phase(result, phase, solver):
    found = result(street(rated_ka=(0.02, 0.02, 0.02)), phase=phase, solver=solver)
    table = violations(found, RATINGS)
    assert set(table["name"]) == {"line 0", "line 1", "line 2"}
    assert set(table["phase"]) == {phase}
    assert found["line_worst_phase"].values.tolist() == [["abc".index(phase)] * 3]
    assert found["trafo_worst_phase"].values.tolist() == [["abc".index(phase)]]  # of its low-voltage side
    worst = table.iloc[0]
    assert dict(summary(found))["line loading, highest"].endswith(f" of {worst['name']}, phase {phase}")


@pytest.mark.parametrize("phase", ["a", "c"])
def test_a_transformer_names_the_phase_of_its_worst_loading(result, phase):
    """A 5 kVA transformer of a 7.4 kW car: 1.67 kVA a phase."""
    net = street()
    net.trafo["sn_mva"] = 0.005
    for column in ("vk_percent", "vkr_percent", "vk0_percent", "vkr0_percent"):
        net.trafo[column] *= 0.005 / 0.16
    found = result(net, phase=phase)
    assert violations(found, RATINGS)[["element", "phase"]].to_numpy().tolist() == [["trafo", phase]]
    assert dict(summary(found))["transformer loading, highest"].endswith(f", phase {phase}")
    spent = SimpleNamespace(stepping_s={"feeder": 0.0}, finishing_s={"feeder": 0.0}, wall_s=0.0)
    judged = check_run(found, SimpleNamespace(federation=spent), ["ratings"])  # of hosting capacity
    at = judged.sel(criterion="trafo_rating")
    assert (at["worst_kind"].item(), at["worst_phase"].item()) == ("trafo", phase)


def test_a_balanced_feeder_has_no_phase_to_name(result):
    found = result(street(rated_ka=(0.005, 0.02, 0.02)), phases=1)
    assert "line_worst_phase" not in found
    assert "phase" not in dict(summary(found))["line loading, highest"]
    assert violations(found, RATINGS)["phase"].tolist() == [""]


def test_the_lowest_and_highest_voltage_are_not_the_source(result):
    # a source of 0.95 pu, and a house that gives 6 kW: all others are above
    net = street(source_pu=0.95, house_kw=-6.0)
    found = result(net, phase="abc", phases=1, base_load={"source": "net"})
    voltage = found["voltage_pu"].isel(member=0, phase=0)
    others = voltage.where(found["bus_at_source"] == 0)
    assert found["bus_at_source"].values.tolist() == [1, 1, 0, 0, 0, 0]  # MV2 by a closed switch
    assert float(voltage.min()) == pytest.approx(0.95, abs=1e-6)
    assert found["voltage_min_pu"].values[0] == pytest.approx(others.min("bus").values, abs=1e-6)
    assert float(found["voltage_min_pu"].min()) > 0.9505
    study = VoltageSupport.model_construct(limits=("en_50160",), limit_kw=None)
    assert float(study.figures(found)["voltage_min_pu"].min()) > 0.9505
    sinking = result(street(source_pu=1.05), phase="abc", phases=1)
    assert float(sinking["voltage_max_pu"].max()) < 1.0499
    assert json.loads(sinking.attrs["scenario"])["feeder"]["phases"] == 1
