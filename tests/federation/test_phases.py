"""On which phases EVs charge, and in how many a feeder is solved: single-phase power is never spread unasked.

::

    grid - MV ==T1== LV0 - LV1 - LV2 - LV3 - LV4 - LV5    a load of 1.2 kW on three phases at each
"""

import json

import numpy as np
import pandapower as pp
import pytest

import evgrid
from evgrid.core.model import ALL_PHASES
from evgrid.errors import ScenarioError
from evgrid.feeder.networks import load_network
from evgrid.results.metrics import summary
from evgrid.runs.simulation import build_world, run
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder

START = "2026-01-12T12:00"
HOUSES = 5


def street(zero_sequence=True, one_phase=()):
    """The street; houses in ``one_phase`` have a load on phase b alone."""
    net = pp.create_empty_network(f_hz=50)
    zero_line = {"r0_ohm_per_km": 1.3, "x0_ohm_per_km": 0.32, "c0_nf_per_km": 0.0} if zero_sequence else {}
    zero_trafo = {
        "vk0_percent": 4.0, "vkr0_percent": 1.3, "mag0_percent": 100.0, "mag0_rx": 0.0, "si0_hv_partial": 0.9,
        "vector_group": "Dyn",
    } if zero_sequence else {}  # fmt: skip
    buses = [pp.create_bus(net, 10.0, name="MV")]
    buses += [pp.create_bus(net, 0.4, name=f"LV{i}") for i in range(HOUSES + 1)]
    pp.create_ext_grid(net, buses[0], vm_pu=1.0)
    pp.create_transformer_from_parameters(
        net, buses[0], buses[1], 0.16, 10.0, 0.4, 1.3, 4.0, 0.0, 0.0, shift_degree=150.0, name="T1",
        **zero_trafo,
    )  # fmt: skip
    for k in range(HOUSES):
        pp.create_line_from_parameters(
            net, buses[k + 1], buses[k + 2], 0.06, 0.32, 0.08, 0.0, 0.2, name=f"line {k}", **zero_line
        )
        if k in one_phase:
            pp.create_asymmetric_load(net, buses[k + 2], p_b_mw=0.0012, name=f"house {k}", type="wye")
        else:
            pp.create_load(net, buses[k + 2], 0.0012, 0.0004, name=f"house {k}", type="wye")
    return net


def three_cars(tmp_path, phase="a"):
    """Three cars at the far end from 18:00 on, all on one phase."""
    path = tmp_path / "cars.csv"
    rows = [f"car{k},house {HOUSES - 1 - k},{START[:11]}18:00,2026-01-13T06:00,30,{phase}" for k in range(3)]
    path.write_text("\n".join(["ev,connection,arrival,departure,energy_kwh,phase", *rows]) + "\n")
    return {"sessions": {"file": str(path)}, "charger": {"power_kw": 7.4, "phases": 1}}


def scenario(tmp_path, fleet, net=None, **feeder):
    path = tmp_path / "net.json"
    pp.to_json(net if net is not None else street(), str(path))
    return scenario_from(
        {
            "name": "street",
            "time": {"start": START, "duration": "8h", "step": "1h"},
            "feeder": {"network": str(path), "base_load": {"source": "net"}, **feeder},
            "fleet": fleet,
            "communication": {"telemetry": "1h"},
        }
    )


def independent_3ph(net, on_phase):
    """Lowest voltage, pu, and transformer loading by pandapower's own three-phase power flow."""
    net.ext_grid["s_sc_max_mva"], net.ext_grid["rx_max"] = 1e9, 0.1
    net.ext_grid["x0x_max"], net.ext_grid["r0x0_max"] = 1.0, 0.1
    for k in range(3):
        bus = net.bus.index[net.bus.name == f"LV{HOUSES - k}"][0]
        pp.create_asymmetric_load(net, bus, **{f"p_{on_phase}_mw": 0.0074}, type="wye")
    pp.runpp_3ph(net)
    voltages = net.res_bus_3ph[["vm_a_pu", "vm_b_pu", "vm_c_pu"]].to_numpy()
    return voltages.min(), net.res_trafo_3ph.loading_percent.iloc[0] / 100


def test_single_phase_evs_at_symmetric_loads_are_solved_in_three_phases(tmp_path):
    result = run(scenario(tmp_path, three_cars(tmp_path)))
    voltage, loading = independent_3ph(street(), "a")
    assert float(result["voltage_min_pu"].min()) == pytest.approx(voltage, abs=1e-5)
    assert float(result["trafo_loading"].max()) == pytest.approx(loading, rel=1e-4)
    assert voltage < 0.93  # else the street would tell nothing
    assert result["phase"].values.tolist() == ["a", "b", "c"]
    assert result.attrs["phases"] == "three, solved separately because EVs charge on one phase"
    assert any("feeder.phases = auto: solved in three phases" in n for n in json.loads(result.attrs["notes"]))


def test_balanced_only_when_asked_for_and_then_said(tmp_path):
    result = run(scenario(tmp_path, three_cars(tmp_path), phases=1))
    spread = independent_3ph(street(), "a")[0] + 0.03
    assert float(result["voltage_min_pu"].min()) > spread
    assert result["phase"].values.tolist() == ["abc"]
    told = "balanced (feeder.phases = 1), although there are EVs that charge on one phase"
    assert ("phases", told) in summary(result)
    notes = json.loads(result.attrs["notes"])
    assert any("the power of EVs that charge on one phase is spread evenly over three" in n for n in notes)


def test_a_net_without_zero_sequence_data_is_refused_or_has_a_recipe(tmp_path):
    fleet, net = three_cars(tmp_path), street(zero_sequence=False)
    with pytest.raises(
        ScenarioError,
        match=r"feeder.phases = auto: EVs charge on one phase, so .*net.json is to be solved in three, but "
        r"it can't be: line 0 'line 0' has no r0_ohm_per_km.*four_wire.*mix "
        r"whose types have ac_3p_kw.*feeder.phases: 1",
    ):
        build_world(scenario(tmp_path, fleet, net))
    told = build_world(scenario(tmp_path, fleet, net, zero_sequence={"recipe": "four_wire"}))
    assert told.network.three_phase
    assert not build_world(scenario(tmp_path, fleet, net, phases=1)).network.three_phase


@pytest.mark.parametrize("solver", ["power-grid-model", "pandapower"])
def test_a_net_that_the_solver_refuses_in_three_phases_is_refused_in_the_same_words(tmp_path, solver):
    net = street()
    net.trafo["vector_group"] = "Yyn"
    with pytest.raises(ScenarioError, match=r"in three, but it can't be: trafo 'T1' .*vector_group = 'Yyn'"):
        build_world(scenario(tmp_path, three_cars(tmp_path), net, solver=solver))


@pytest.mark.parametrize(
    ("fleet", "three"),
    [
        ({"penetration": 0.5}, True),
        ({"penetration": 0.0}, True),  # as at any other penetration
        ({"count": 0}, False),
        ({"penetration": 0.5, "charger": {"phases": 3}}, False),
        ({"penetration": 0.5, "charger": {"phases": 3}, "mix": {"bev250": 1.0}}, False),
        ({"penetration": 0.5, "charger": {"phases": 3}, "mix": {"bev250": 0.9, "phev50": 0.1}}, True),
        (None, False),
    ],
)
def test_settings_decide_whether_there_is_single_phase_power(tmp_path, fleet, three):
    assert build_world(scenario(tmp_path, fleet)).network.three_phase == three


@pytest.mark.parametrize(("phase", "three"), [("a", True), ("abc", False), ("", True)])
def test_the_phases_of_a_session_file_decide(tmp_path, phase, three):
    world = build_world(scenario(tmp_path, three_cars(tmp_path, phase)))
    assert world.network.three_phase == three
    assert (world.evs.phase == ALL_PHASES).all() == (not three)


def test_the_phase_of_an_ev_at_three_phases_is_drawn_from_the_seed(tmp_path):
    first, again = (build_world(scenario(tmp_path, {"count": 30})).evs.phase for _ in range(2))
    assert np.array_equal(first, again)
    assert set(first.tolist()) == {0, 1, 2}


def test_a_snapshot_of_single_phase_evs_are_not_spread_unasked(tmp_path):
    from evgrid.fleet.sessions.snapshot import write_snapshot

    asked = scenario(tmp_path, {"penetration": 1.0}, phases=1)
    world = build_world(asked)
    path = write_snapshot(tmp_path / "snapshot.parquet", asked, world.connections, world.evs, world.sessions)
    with pytest.raises(
        ScenarioError, match=r"has no phases for one of three; must be replayed with feeder.ph"
    ):
        build_world(scenario(tmp_path, {"sessions": {"file": str(path)}}))
    assert not build_world(
        scenario(tmp_path, {"sessions": {"file": str(path)}}, phases=1)
    ).network.three_phase


def test_generators_with_phases_of_their_own_are_distinguished(tmp_path):
    net = street()
    pp.create_asymmetric_sgen(net, net.bus.index[-1], p_a_mw=0.003, type="wye")
    path = tmp_path / "net.json"
    pp.to_json(net, str(path))
    assert load_network(Feeder(network=str(path))).three_phase
    asked = load_network(Feeder(network=str(path), phases=1))
    assert asked.phases_summary == (
        "balanced (feeder.phases = 1), although there are loads and generators with phases of their own (1)"
    )


def test_three_phase_chargers_on_a_street_with_both_kinds_of_connection(tmp_path):
    net = street(one_phase=(1, 3))
    fleet = {"penetration": 1.0, "charger": {"power_kw": 11, "phases": 3}}
    result = evgrid.run(scenario(tmp_path, fleet, net))
    world = build_world(scenario(tmp_path, fleet, net))
    houses = world.connections.name[world.evs.connection]
    single = np.isin(houses, ["house 1", "house 3"])
    assert np.array_equal(world.evs.phase, np.where(single, 1, ALL_PHASES))
    assert world.sessions.charge_kw == pytest.approx(np.where(single[world.sessions.ev], 11 / 3, 11))
    assert "2 of 5 EVs are at connection points of one phase" in result.attrs["notes"]
