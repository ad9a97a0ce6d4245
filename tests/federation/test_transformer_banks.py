"""Banks of single-phase transformers between the same two buses: one group of an aggregator's limit."""

from __future__ import annotations

import numpy as np
import pytest

import evgrid
from evgrid.feeder.networks import load_network
from evgrid.results.limits import limit_set, violations
from evgrid.results.metrics import summary
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder

REGULATORS = """Clear
New Circuit.c basekv=4.16 bus1=src pu=1.0 r1=0 x1=1e-6 r0=0 x0=1e-6
New Transformer.reg1 phases=1 xhl=1 buses=[src.1 mv.1] kvs=[2.4 2.4] kvas=[500 500] %loadloss=0.01
New Transformer.reg2 phases=1 xhl=1 buses=[src.2 mv.2] kvs=[2.4 2.4] kvas=[500 500] %loadloss=0.01
New Transformer.reg3 phases=1 xhl=1 buses=[src.3 mv.3] kvs=[2.4 2.4] kvas=[500 500] %loadloss=0.01
New RegControl.r1 transformer=reg1 winding=2 vreg=120 band=4 ptratio=20
New RegControl.r2 transformer=reg2 winding=2 vreg=120 band=4 ptratio=20
New RegControl.r3 transformer=reg3 winding=2 vreg=120 band=4 ptratio=20
New Line.main bus1=mv bus2=end r1=0.1 x1=0.2 r0=0.3 x0=0.6 c1=0 c0=0 length=1 units=km
New Load.depot phases=3 bus1=end kv=4.16 kw=90 kvar=9
New Load.home phases=1 bus1=end.2 kv=2.4 kw=20 kvar=2
Set voltagebases=[4.16]
CalcVoltageBases
"""

DISTRIBUTION = """Clear
New Circuit.c basekv=12.47 bus1=src pu=1.0 r1=0 x1=1e-6 r0=0 x0=1e-6
New Line.main bus1=src bus2=mv r1=0.1 x1=0.2 r0=0.3 x0=0.6 c1=0 c0=0 length=1 units=km
New Transformer.pole_a phases=1 xhl=2 buses=[mv.1 lv.1] kvs=[7.2 0.12] kvas=[50 50] %loadloss=1
New Transformer.pole_b phases=1 xhl=2 buses=[mv.2 lv.2] kvs=[7.2 0.12] kvas=[25 25] %loadloss=1
New Transformer.pole_c phases=1 xhl=2 buses=[mv.3 lv.3] kvs=[7.2 0.12] kvas=[50 50] %loadloss=1
New Transformer.other phases=1 xhl=2 buses=[mv.1 home.1] kvs=[7.2 0.12] kvas=[25 25] %loadloss=1
New Load.shop phases=3 bus1=lv kv=0.208 kw=90 kvar=0
New Load.home phases=1 bus1=home.1 kv=0.12 kw=5 kvar=0
Set voltagebases=[12.47 0.208]
CalcVoltageBases
"""

OPEN_DELTA = """Clear
New Circuit.c basekv=4.8 bus1=src pu=1.0 r1=0 x1=1e-6 r0=0 x0=1e-6
New Transformer.sub phases=3 xhl=2 buses=[src head] kvs=[4.8 4.8] conns=[delta delta] kvas=[900 900]
New Line.jumper phases=1 bus1=head.2 bus2=mv.2 r0=1e-3 r1=1e-3 x0=0 x1=0 c0=0 c1=0
New Transformer.reg_a phases=1 xhl=1 buses=[head.1.2 mv.1.2] conns=[delta delta] kvs=[4.8 4.8] kvas=[500 500]
New Transformer.reg_c phases=1 xhl=1 buses=[head.3.2 mv.3.2] conns=[delta delta] kvs=[4.8 4.8] kvas=[500 500]
New Load.park phases=3 bus1=mv conn=delta kv=4.8 kw=300 kvar=30
Set voltagebases=[4.8]
CalcVoltageBases
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "net.dss"
        path.write_text(text)
        return str(path)

    return write


def scenario(path, aggregator, count=40, **sections):
    own = {"controls": False} if path.endswith(".dss") else {"phases": 1}
    content = {
        "name": "bank",
        "time": {"start": "2026-07-01T16:00", "duration": "12h", "step": "15min"},
        "ensemble": {"seed": 5},
        "feeder": {"network": path, "base_load": {"source": "net"}, **own},
        "fleet": {"count": count, "sessions": "home", "charger": {"power_kw": 7.2, "phases": 1}},
        "aggregators": {"main": {"strategy": "peak_limit", "group": "transformer", **aggregator}},
        **sections,
    }
    return scenario_from(content)


def rows_of(result):
    return {name.strip(): text for name, text in summary(result)}


def test_three_regulators_are_one_group_whose_power_is_that_of_all(write):
    """The bank is at the source: its power is that of the head."""
    result = evgrid.run(scenario(write(REGULATORS), {"limit_kw": 125}))
    assert result["trafo_bank"].values.tolist() == ["reg1 + reg2 + reg3"] * 3
    assert result["connection_trafo"].values.tolist() == ["reg1 + reg2 + reg3"] * 2
    power = result["limited_power_kw"].isel(member=0)
    head = result["head_power_kw"].sum("phase").isel(member=0)
    np.testing.assert_allclose(power.sel(trafo="reg1"), head, rtol=1e-9)
    assert power.sel(trafo=["reg2", "reg3"]).isnull().all()
    assert rows_of(result)["limit of main"] == "125 kW drawn, 125 kW fed back: kept at reg1 + reg2 + reg3"
    assert head.max() > 124.5


def test_without_the_limit_the_same_evs_draw_more(write):
    result = evgrid.run(scenario(write(REGULATORS), {"strategy": "uncontrolled"}))
    assert result["head_power_kw"].sum("phase").max() > 135


def test_a_limit_below_the_load_is_broken_by_the_bank_by_name(write):
    result = evgrid.run(scenario(write(REGULATORS), {"limit_kw": 100}))
    found = violations(result, limit_set(*evgrid.results.limits.aggregator_limits(result)))
    assert found[["element", "name"]].values.tolist() == [["trafo", "reg1 + reg2 + reg3"]]
    assert " at reg1 + reg2 + reg3" in rows_of(result)["limit of main"]


def test_each_unit_of_a_bank_is_judged_by_its_own_phase(write):
    """90 kW over three units: 30 kW a phase, above the 25 kVA of the one at phase b."""
    result = evgrid.run(scenario(write(DISTRIBUTION), {"limit_kw": 300}, count=1))
    found = violations(result, limit_set("ratings"))
    assert found[["name", "phase"]].values.tolist() == [["pole_b", "b"]]
    assert result["trafo_bank"].values.tolist() == ["pole_a + pole_b + pole_c"] * 3 + ["other"]
    assert result["connection_trafo"].values.tolist() == ["pole_a + pole_b + pole_c", "other"]


def test_a_demand_charge_meters_the_bank(write):
    """90 kW at the shop and 5 kW at home, but for the losses of some transformers."""
    season = {"name": "s", "months": [*range(1, 13)], "periods": [{"name": "p", "price_per_kwh": 0.2}]}
    demand = {"prices": [{"price_per_kw": 10}], "of": "transformer"}
    tariff = {"name": "t", "seasons": [season], "demand": demand}
    run = scenario(write(DISTRIBUTION), {"strategy": "uncontrolled"}, tariff=tariff, count=1)
    peak = evgrid.run(run)["trafo_peak_kw"].isel(member=0, month=0)
    assert peak.sel(trafo="pole_a") == pytest.approx(90.0, rel=0.1)
    assert peak.sel(trafo=["pole_b", "pole_c"]).isnull().all()


@pytest.mark.parametrize("unit", ["reg1", "reg3"])
def test_a_unit_selects_the_evs_of_its_bank(unit, write):
    aggregator = {"limit_kw": 300, "evs": {"transformers": [unit]}}
    result = evgrid.run(scenario(write(REGULATORS), aggregator, count=6))
    assert result.sizes["ev"] == 6
    assert result["setpoint_kw"].max() > 7.0


def test_the_jumper_of_an_open_delta_bank_is_no_path_around_it(write):
    found = load_network(Feeder(network=write(OPEN_DELTA)), True, 240.0)
    assert found.grid.trafos.name.tolist() == ["sub", "reg_a", "reg_c"]
    assert found.topology.bank.tolist() == [0, 1, 1]
    assert found.connections.trafo.tolist() == [1]
    assert found.bank_names.tolist() == ["sub", "reg_a + reg_c", "reg_a + reg_c"]


def test_both_of_two_parallel_transformers_carry_a_limit(tmp_path):
    """Balanced, from pandapower, of unequal size; a third is open, and no part of the bank."""
    import pandapower as pp

    net = pp.create_empty_network()
    mv, lv = pp.create_bus(net, 20.0, name="MV"), pp.create_bus(net, 0.4, name="LV")
    pp.create_ext_grid(net, mv)
    for size, kind in (("T1", "0.4"), ("T2", "0.25"), ("spare", "0.4")):
        pp.create_transformer(net, mv, lv, f"{kind} MVA 20/0.4 kV", name=size)
    pp.create_switch(net, mv, 2, et="t", closed=False)
    pp.create_load(net, lv, 0.05, name="Park")
    pp.to_json(net, str(tmp_path / "net.json"))
    result = evgrid.run(scenario(str(tmp_path / "net.json"), {"limit_kw": 60}))
    head = result["head_power_kw"].isel(member=0, phase=0)
    np.testing.assert_allclose(result["limited_power_kw"].sel(member=0, trafo="T1"), head, rtol=1e-6)
    assert result["trafo_bank"].values.tolist() == ["T1 + T2", "T1 + T2", "spare"]
    assert head.max() < 60.5
    assert rows_of(result)["limit of main"].endswith("kept at T1 + T2")


def test_a_bank_that_is_not_recorded_is_not_said_to_keep_its_limit(write):
    run = scenario(write(REGULATORS), {"limit_kw": 125}, record={"trafos": ["reg2"]})
    assert rows_of(evgrid.run(run))["limit of main"].endswith(": not recorded")


def test_with_a_unit_out_of_service_the_bank_is_the_others(write):
    """The loads are on its phase, so that for an hour nothing is drawn."""
    outage = {"start": "2026-07-01T18:00", "duration": "1h", "out": "trafo reg2"}
    result = evgrid.run(scenario(write(REGULATORS), {"limit_kw": 125}, outages=[outage]))
    head = result["head_power_kw"].sum("phase")
    np.testing.assert_allclose(result["limited_power_kw"].sel(trafo="reg1"), head, rtol=1e-9, atol=1e-6)
    assert (head.sel(time=slice("2026-07-01T18:00", "2026-07-01T18:59")) < 1.0).all()
    assert (head.sel(time=slice("2026-07-01T19:00", None)) > 100.0).all()
