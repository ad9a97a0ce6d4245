"""Outages: what is dead, when, what is left in the power flow, and how interruptions are counted.

The network: a source, transformer T1 with line L1 to the loads A (3 kW) and B (1 kW), beside it T2 with L2 to
C (2 kW) and a generator of 1 kW.
"""

from __future__ import annotations

import json

import numpy as np
import pandapower as pp
import pytest

import evgrid
from evgrid.core.energy_audit import audit
from evgrid.core.model import MemoryRecorder
from evgrid.errors import AuditError, ResultError, ScenarioError
from evgrid.feeder.model import FeederModel
from evgrid.results.limits import limit_set, violations
from evgrid.results.metrics import reliability, summary
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outages")
    for name in ("radial", "ring", "fed_twice"):
        net = pp.create_empty_network()
        grid = pp.create_bus(net, 20.0, name="grid")
        pp.create_ext_grid(net, grid)
        ends = []
        for k in (1, 2):
            head, end = (pp.create_bus(net, 0.4, name=f"{place}{k}") for place in ("head", "end"))
            pp.create_transformer(net, grid, head, "0.25 MVA 20/0.4 kV", name=f"T{k}")
            pp.create_line(net, head, end, 0.1, "NAYY 4x50 SE", name=f"L{k}")
            ends.append(end)
        for load, end, kw in (("A", 0, 3), ("B", 0, 1), ("C", 1, 2)):
            pp.create_load(net, ends[end], kw / 1e3, name=load)
        pp.create_sgen(net, ends[1], 0.001, name="PV", sn_mva=0.001)
        if name == "ring":
            pp.create_line(net, *ends, 0.1, "NAYY 4x50 SE", name="tie")
        if name == "fed_twice":
            pp.create_ext_grid(net, ends[0])
        pp.to_json(net, str(folder / f"{name}.json"))
    return folder


@pytest.fixture(scope="module")
def scenario(folder):
    def scenario(*schedule, network="radial", step="15min", members=1, first=0, **over):
        content = {
            "name": "outages",
            "time": {"start": "2026-01-15T12:00", "duration": "3h", "step": step},
            "ensemble": {"members": members, "first": first, "seed": 5},
            "feeder": {"network": f"{network}.json", "base_load": {"source": "net"}},
            "outages": list(schedule) if schedule else None,
        }
        return scenario_from(
            content, {name.replace("__", "."): value for name, value in over.items()}, folder
        )

    return scenario


def line(start, duration, out="line L1"):
    return {"start": start, "duration": duration, "out": out}


def voltages(result, bus, step=slice(None)):
    return result["voltage_pu"].sel(bus=bus).values[0, step, 0]


@pytest.mark.parametrize("step", ["1min", "15min", "1h"])
def test_energies_are_exact_wherever_an_outage_begins_and_ends(scenario, step):
    """L1 is out for 65 min 12 s, from 12:21:30 to 13:26:42: A and B draw 4 kW less for that time."""
    result = evgrid.run(scenario(line("21min 30s", "65min 12s"), step=step))
    hours = {"1min": 1 / 60, "15min": 0.25, "1h": 1.0}[step]
    lost = 4.0 * 65.2 / 60
    assert result["base_load_kw"].sum().item() * hours == pytest.approx(5.0 * 3 - lost, rel=1e-12)
    served = result["not_served_kwh"].values[0]
    assert served == pytest.approx([lost * 3 / 4, lost / 4, 0.0], rel=1e-12)
    assert result["interrupted_min"].values[0] == pytest.approx([65.2, 65.2, 0.0])
    assert result["interruptions"].values[0].tolist() == [1, 1, 0]


def test_in_a_step_that_is_dead_throughout_nothing_flows_there(scenario):
    schedule = line("20min", "1h")
    result, whole = evgrid.run(scenario(schedule)), evgrid.run(scenario())
    dead = slice(2, 5)  # 12:30 to 13:15; in the steps before and after L1 is in service
    assert (voltages(result, "end1", dead) == 0).all()
    assert (voltages(result, "end1", [0, 1, 5, 6]) > 0.9).all()
    loading = result["line_loading"].sel(line="L1").values[0]
    assert (loading[dead] == 0).all()
    assert (loading[[0, 1, 5]] > 0).all()
    assert result["trafo_loading"].sel(trafo="T1").values[0, dead].max() < 0.01  # magnetising current alone
    for bus in ("head2", "end2"):
        assert np.array_equal(voltages(result, bus), voltages(whole, bus))
    assert result["voltage_min_pu"].min() > 0.9
    head = result["head_power_kw"].sum("phase").values[0, dead]
    assert head == pytest.approx(1.0 + result["losses_kw"].values[0, dead], abs=1e-9)


@pytest.mark.parametrize(
    ("out", "dead"),
    [
        ("feeder", "ABC"), ("trafo T1", "AB"), ("trafo T2", "C"), ("line L2", "C"),
        ({"connections": ["B"]}, "B"), ({"connections": ["A", "C"]}, "AC"),
    ],
)  # fmt: skip
def test_what_is_downstream_is_dead(scenario, out, dead):
    result = evgrid.run(scenario(line("1h", "1h", out)))
    connections = result["connection"].values
    assert "".join(connections[result["interruptions"].values[0] == 1]) == dead
    alive_kw = {"A": 3.0, "B": 1.0, "C": 2.0}
    generated = 0.0 if "C" in dead else 1.0
    load = sum(kw for name, kw in alive_kw.items() if name not in dead)
    assert result["base_load_kw"].values[0, 4:8] == pytest.approx(load - generated, abs=1e-9)
    everything = out == "feeder"
    assert np.isnan(result["voltage_max_pu"].values[0, 4:8]).all() == everything
    if not isinstance(out, str):
        assert (result["voltage_pu"].values > 0).all()  # a meter is cut off, its bus is not


def test_what_another_path_feeds_stays_alive(scenario):
    for network in ("ring", "fed_twice"):
        result = evgrid.run(scenario(line("1h", "1h"), network=network))
        assert result["interruptions"].values.sum() == 0
        assert (result["voltage_pu"].values[0, :, 1:] > 0).all()
    both = [line("1h", "1h"), line("1h", "1h", "line L2")]
    assert evgrid.run(scenario(*both, network="ring"))["interruptions"].values.tolist() == [[1, 1, 1]]
    result = evgrid.run(scenario(line("1h", "1h", "trafo T1"), network="ring"))
    assert (voltages(result, "head1", slice(4, 8)) > 0).all()  # fed from behind


def test_both_solvers_agree(scenario):
    for out in ("line L1", "trafo T2", "feeder"):
        one, other = (
            evgrid.run(scenario(line("30min", "1h", out), feeder__solver=solver))
            for solver in ("power-grid-model", "pandapower")
        )
        for name in ("voltage_pu", "line_loading", "trafo_loading", "losses_kw", "head_power_kw"):
            assert one[name].values == pytest.approx(other[name].values, abs=2e-6, nan_ok=True), name


def test_outages_of_one_element_that_overlap_are_one_and_it_is_said(scenario):
    made = scenario(line("30min", "1h"), line("1h", "1h"), line("2h30min", "10min"))
    notes = build_world(made).notes
    assert (
        "outages.schedule: outages of line L1 overlap and are one, from 2026-01-15T12:30:00 to "
        "2026-01-15T14:00:00." in notes
    )
    result = evgrid.run(made)
    assert result["interruptions"].values.tolist() == [[2, 2, 0]]
    assert result["interrupted_min"].values[0] == pytest.approx([100, 100, 0])


def test_outages_that_follow_on_each_other_interrupt_once(scenario):
    chain = [line("30min", "30min"), line("50min", "30min", "trafo T1"), line("80min", "10min", "feeder")]
    result = evgrid.run(scenario(*chain))
    assert result["interruptions"].values.tolist() == [[1, 1, 1]]
    assert result["interrupted_min"].values[0] == pytest.approx([60, 60, 10])
    assert not any("overlap" in note for note in build_world(scenario(*chain)).notes)


def test_start_as_local_time(scenario):
    one, other = (build_world(scenario(line(start, "1h"))).outages for start in ("2026-01-15T13:10", "70min"))
    assert one.begin_s.tolist() == other.begin_s.tolist() == [4200.0, 4200.0]
    assert one.first.tolist() == [0, 1, 2, 2]
    assert one.end_s.tolist() == [7800.0, 7800.0]


@pytest.mark.parametrize(
    ("outages", "sentence"),
    [
        ([line("1h", "1h", "line L7")],
         r"outages.schedule\[0\].out = line L7: the network has no line L7; did you mean L2\?"),
        ([line("1h", "1h", "trafo Main")],
         r"out = trafo Main: the network has no trafo Main; it has T1, T2"),
        ([line("1h", "1h", {"connections": ["A", "House"]})],
         r"out = connections \[A, House\]: the network has no connection point House; it has A, B, C"),
        ([line("1h", "1h", "bus end1")],
         "outages.schedule.0.out = bus end1: must be feeder, line NAME, trafo NAME or"),
        ([line("3h", "1h")],
         r"outages.schedule\[0\].start = 10800s: must be within the run, from 2026-01-15T12:00:00 to"),
        ([line("2026-01-15T11:59", "1h")], r"start = 2026-01-15T11:59:00: must be within the run, from"),
        ([line(1e300, "1h")], r"start = 1e\+300s: must be within the run, from"),
        ([line("1h", 1e300)], "outages.schedule.0.duration = 1e\\+300: must be at most 316224000"),
        ({"saifi": 1e30, "caidi": "1h"}, "outages.saifi = 1e\\+30: must be at most 1000000"),
        ([line("noon", "1h")], "start = noon: must be a local time such as 2026-01-15T18:00, or the time"),
        ([line("1h", "0s")], r"outages.schedule.0.duration = 0s: must be greater than 0"),
        ({"saifi": 1.0}, "outages: give both saifi and caidi, or neither"),
        ({"caidi": "2h"}, "outages: give both saifi and caidi, or neither"),
        ({"schedule": [line("1h", "1h")], "extent": "connections"},
         "extent = connections: is for outages drawn"),
        ({"schedule": [line("1h", "1h")], "repair": {"line": "1h"}}, "repair: is for outages drawn by rates"),
        ({"rates": {}}, "outages: rates: line or trafo must be above 0"),
        ({}, "outages: give a schedule, saifi and caidi, or rates"),
    ],
)  # fmt: skip
def test_faults_are_one_sentence(scenario, outages, sentence):
    with pytest.raises(ScenarioError, match=sentence) as caught:
        build_world(scenario(outages=outages))
    assert len(caught.value.faults) == 1


DRAWN = {
    "saifi": {"saifi": 2000.0, "caidi": "20min"},
    "connections": {"saifi": 2000.0, "caidi": "20min", "extent": "connections"},
    "rates": {"rates": {"line": 20000, "trafo": 1000}, "repair": {"line": "10min", "trafo": "30min"}},
}


@pytest.mark.parametrize("kind", DRAWN)
def test_drawn_outages_of_a_member_are_its_own(scenario, kind):
    """The same in an ensemble and by itself, at any tick, and in a run that starts later."""
    outages = {"outages": DRAWN[kind], "time.duration": "12h"}
    together = build_world(scenario(members=4, **outages)).outages
    alone = build_world(scenario(first=2, step="1min", **outages)).outages
    assert together.first[-1] > together.first[9]
    for row in range(3):
        for one, other in zip(together.of(6 + row), alone.of(row), strict=True):
            assert np.array_equal(one, other)
    later = build_world(scenario(first=2, **outages, **{"time.start": "2026-01-15T15:00"})).outages
    for row in range(3):
        begin, end = alone.of(row)
        ends = end[(end > 10800) & (begin < 43200)] - 10800
        assert later.of(row)[1][: len(ends)] == pytest.approx(ends)


def test_drawn_outages_are_as_many_and_as_long_as_asked(scenario):
    """In 50 members and 100 days: 2 a week of 2 h each; of n, the standard error of the mean is 1/sqrt(n)."""
    world = build_world(
        scenario(
            outages={"saifi": 104.0, "caidi": "2h"}, members=50,
            **{"time.duration": "100d", "time.step": "1h"},
        )
    )  # fmt: skip
    outages = world.outages
    number = len(outages.element)
    expected = 104.0 * 50 * 100 / 365
    assert abs(number - expected) < 4 * np.sqrt(expected)
    mean_h = (outages.elements.end_s - outages.elements.begin_s).mean() / 3600
    assert mean_h == pytest.approx(2.0, abs=4 * 2.0 / np.sqrt(number) + 0.1)
    assert any("drawn outages of elements that were out already are merged" in note for note in world.notes)


def test_members_with_different_outages_are_the_same_by_themselves(scenario):
    over = {"outages": DRAWN["rates"], "feeder.base_load": {"source": "standard", "generation": "nameplate"}}
    together = evgrid.run(scenario(members=3, **over))
    assert together["interruptions"].values.any(axis=1).all()
    for member in range(3):
        alone = evgrid.run(scenario(first=member, **over))
        for name in ("voltage_pu", "base_load_kw", "head_power_kw", "losses_kw", "not_served_kwh"):
            own = together[name].values[member : member + 1]
            assert own == pytest.approx(alone[name].values, rel=1e-12, abs=1e-12, nan_ok=True), name


def test_cold_load_pick_up(scenario):
    """Twice the load for as long as the outage was, at most 20 min: A and B draw 4 kW more, at any tick."""
    for duration, extra_h in (("50min", 20 / 60), ("7min", 7 / 60)):
        outages = {"schedule": [line("31min", duration)], "cold_load": {"factor": 2.0, "duration": "20min"}}
        lost_h = float(duration[:-3]) / 60
        for step, hours in (("1min", 1 / 60), ("1h", 1.0)):
            result = evgrid.run(scenario(outages=outages, step=step))
            energy = result["base_load_kw"].sum().item() * hours
            assert energy == pytest.approx(5.0 * 3 + 4 * (extra_h - lost_h), rel=1e-12)
            assert result["not_served_kwh"].sum().item() == pytest.approx(4 * lost_h, rel=1e-12)


def test_tap_changers_hold_and_inverters_stand_still_without_supply(scenario):
    over = {
        "feeder.tap_changers": [
            {"trafo": "T2", "deadband_pu": 0.03, "target_pu": 1.0, "delay": "0s", "side": "lv"}
        ],
        "feeder.pv": {"functions": {"volt_var": "ieee_1547_b"}},
    }
    result = evgrid.run(scenario(line("1h", "1h", "feeder"), **over))
    tap = result["trafo_tap"].sel(trafo="T2").values[0]
    assert (tap[4:8] == tap[3]).all()
    assert (result["pv_power_kw"].values[0, 4:8] == 0).all()
    assert (result["pv_reactive_kvar"].values[0, 4:8] == 0).all()
    assert result["pv_power_kw"].values[0, 3] > 0


def test_power_that_enters_a_dead_grid_is_found(scenario):
    """1 kW given back at A for one dead step of 15 min."""
    made = scenario(line("15min", "15min"))
    world = build_world(made)
    model = FeederModel(
        made, world.network, MemoryRecorder(), fleet=True, feedback=True, outages=world.outages
    )
    power = np.zeros((1, 3, 1))
    power[0, 0, 0] = -1.0
    zero = np.zeros((1, 3, 1))
    alive = model.step(0.0, {"fleet/p": power, "fleet/q": zero})["feeder/voltage"]
    assert (alive > 0.9).all()
    assert audit(None, model.audit(), made.members)["dead_grid_kwh"] == 0.0
    dead = model.step(900.0, {"fleet/p": power, "fleet/q": zero})["feeder/voltage"]
    assert dead[0, :, 0].tolist() == pytest.approx([0.0, 0.0, alive[0, 2, 0]], abs=1e-9)
    with pytest.raises(AuditError, match="without supply"):
        audit(None, {**model.audit(), "ev_energy_kwh": model.audit()["ev_energy_kwh"] + 0.25}, made.members)
    assert model.audit()["dead_grid_kwh"].tolist() == [0.25]


def test_voltage_of_a_connection_point_that_is_cut_off_is_0(scenario):
    made = scenario(line("0s", "15min", {"connections": ["B"]}))
    world = build_world(made)
    model = FeederModel(
        made, world.network, MemoryRecorder(), fleet=False, feedback=True, outages=world.outages
    )
    assert (model.step(0.0, {})["feeder/voltage"][0, :, 0] > 0).tolist() == [True, False, True]
    assert (model.step(900.0, {})["feeder/voltage"][0, :, 0] > 0).all()


def test_means_over_an_interval_are_of_the_time_with_supply(scenario):
    """At 5 min within intervals of 15 min: where L1 fails after 10 min, they are of these."""
    result = evgrid.run(scenario(line("25min", "50min"), step="5min", record__step="15min"))
    plain = evgrid.run(scenario(step="5min", record__step="15min"))
    volts, before = voltages(result, "end1"), voltages(plain, "end1")
    assert volts[[0, 1, 5]] == pytest.approx(before[[0, 1, 5]], rel=1e-6)
    assert (volts[2:5] == 0).all()
    everything = evgrid.run(scenario(line("25min", "50min", "feeder"), step="5min", record__step="15min"))
    lowest = everything["voltage_min_pu"].values[0]
    assert lowest[1] == pytest.approx(plain["voltage_min_pu"].values[0, 1], rel=1e-6)
    assert np.isnan(lowest[2:5]).all()


def test_dead_buses_violate_no_limit_and_are_reported_as_interrupted(scenario):
    result = evgrid.run(scenario(line("1h", "1h")))
    found = violations(result, limit_set("en_50160"))
    assert found.empty
    assert "2 of 3 connection points were interrupted" in found.attrs["notes"][-1]
    rows = dict(summary(result))
    assert rows["interruptions"] == "SAIFI 0.667, SAIDI 40.0 min, CAIDI 60.0 min in the run"
    assert rows["  base load not served"] == "4.00 kWh"
    assert float(rows["voltage, lowest"].split()[0]) > 0.9


def test_indices_by_hand(scenario):
    """Customers: A has 3 households, B 1, C none and so counts as one. L1 is out for 1 h, T2 for 3 min."""
    outages = [line("30min", "1h"), line("2h", "3min", "trafo T2")]
    made = scenario(*outages, feeder__households={"by_load": {"A": 3, "C": 0}})
    found = reliability(evgrid.run(made))
    assert found["saifi"].item() == pytest.approx(4 / 5)
    assert found["saidi_min"].item() == pytest.approx(60 * 4 / 5)
    assert found["caidi_min"].item() == pytest.approx(60)
    assert found["maifi"].item() == pytest.approx(1 / 5)
    assert found["not_served_kwh"].item() == pytest.approx(4.0 + 2.0 * 0.05)
    with pytest.raises(ResultError, match="no interruptions: its scenario has no section outages"):
        reliability(evgrid.run(scenario()))


def test_the_scenario_in_a_result_can_be_run_again(scenario):
    schedule = [line("21min 30s", "1h"), line("2026-01-15T14:00", "5min", {"connections": ["B"]})]
    made = scenario(outages={"schedule": schedule, "cold_load": {"factor": 2}})
    result = evgrid.run(made)
    again = scenario_from(json.loads(result.attrs["scenario"]))
    assert again.outages == made.outages
    assert np.array_equal(evgrid.run(again)["base_load_kw"], result["base_load_kw"])


def test_a_transformer_of_three_windings_is_out_as_a_whole(scenario, folder):
    net = pp.create_empty_network()
    buses = [pp.create_bus(net, kv, name=name) for kv, name in ((110.0, "hv"), (20.0, "mv"), (10.0, "lv"))]
    pp.create_ext_grid(net, buses[0])
    pp.create_transformer3w(net, *buses, "63/25/38 MVA 110/20/10 kV", name="T")
    for bus, name in zip(buses, "ABC", strict=True):
        pp.create_load(net, bus, 1.0, name=name)
    pp.to_json(net, str(folder / "three.json"))
    result = evgrid.run(scenario(line("1h", "1h", "trafo T"), network="three"))
    assert result["interruptions"].values.tolist() == [[0, 1, 1]]
    assert result["base_load_kw"].values[0, [0, 5, 11]] == pytest.approx([3000, 1000, 3000])
    one = evgrid.run(scenario(line("1h", "1h", "trafo T mv"), network="three"))
    assert one["interruptions"].values.tolist() == [[0, 1, 0]]
