"""Charge points that EVs share, by hand: who plugs in when, who waits, who leaves without charging."""

import numpy as np
import pytest

import evgrid
from evgrid.core.model import ALL_PHASES
from evgrid.errors import ScenarioError
from evgrid.fleet.sessions import COLUMNS
from evgrid.results.metrics import summary
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from

BASE = {
    "name": "car park",
    "time": {"start": "2026-01-15T06:00", "duration": "6h", "step": "15min"},
    "feeder": {"network": "cigre_lv", "step": "6h", "base_load": {"source": "none"}},
    "fleet": {"sessions": {"file": "s.csv"}, "charger": {"phases": 3, "power_kw": 11}},
    "communication": {"telemetry": "15min"},
}
STAYS = {"a": (7, 9), "b": (7.5, 8), "c": (7.75, 10), "d": (8.5, 9.25), "e": (9, 9.5), "far": (7, 11)}
"""Hours of the day, at one connection but for the last."""


@pytest.fixture
def folder(tmp_path):
    rows = [
        f"{ev},{'Load R11' if ev == 'far' else 'Load R1'},{(at - 6) * 3600:g},{(to - 6) * 3600:g},5,40,11"
        for ev, (at, to) in STAYS.items()
    ]
    head = "ev,connection,arrival,departure,energy_kwh,capacity_kwh,charge_kw"
    (tmp_path / "s.csv").write_text("\n".join([head, *rows]) + "\n")
    return tmp_path


def world_of(folder, **points):
    content = {**BASE, "fleet": {**BASE["fleet"], **({"charge_points": points} if points else {})}}
    return build_world(scenario_from(content, folder=folder))


def stays(world):
    """Hours of the day at which each EV is plugged in."""
    sessions = world.sessions
    hours = np.column_stack([sessions.arrival_s, sessions.departure_s]) / 3600 + 6
    return dict(zip(world.evs.name[sessions.ev].tolist(), map(tuple, hours.tolist()), strict=True))


def test_one_point_and_a_queue(folder):
    """a to 9; b would have left by then; c waits 1.25 h; d and e would have left before c does."""
    world = world_of(folder, each=1)
    assert stays(world) == {"a": (7, 9), "c": (9, 10), "far": (7, 11)}
    queue = world.sessions.queue
    np.testing.assert_allclose(queue.waited_s, [0, 1.25 * 3600, 0])
    assert world.evs.name[queue.left_ev].tolist() == ["b", "d", "e"]
    np.testing.assert_allclose(queue.left_kwh, 5.0)
    assert world.sessions.notes[-1].startswith(
        "fleet.charge_points: 3 sessions at shared charge points; 1 of them waited, 1.25 h on average; "
        "3 EVs left without charging, which wanted 15.0 kWh"
    )


def test_two_points(folder):
    """c waits for b's, d for a's, e for d's; who would not wait leaves."""
    queue = world_of(folder, each=2)
    assert stays(queue) == {
        "a": (7, 9), "b": (7.5, 8), "c": (8, 10), "d": (9, 9.25), "e": (9.25, 9.5), "far": (7, 11),
    }  # fmt: skip
    # c leaves at once; b's is free from 8 on, so that d and e find one
    world = world_of(folder, each=2, waiting="leave")
    assert stays(world) == {"a": (7, 9), "b": (7.5, 8), "d": (8.5, 9.25), "e": (9, 9.5), "far": (7, 11)}
    assert world.evs.name[world.sessions.queue.left_ev].tolist() == ["c"]


def test_patience_and_stays_as_long(folder):
    # b gives up at 8, c at 8:15; d is served after half an hour exactly, and e waits for it
    patient = stays(world_of(folder, each=1, patience="30min"))
    assert patient == {"a": (7, 9), "d": (9, 9.25), "e": (9.25, 9.5), "far": (7, 11)}
    longer = stays(world_of(folder, each=1, stay="as_long"))
    # b 9 to 9:30, c to 11:45, d to 12:30, after the run, at whose end e still waits
    assert longer == {"a": (7, 9), "b": (9, 9.5), "c": (9.5, 11.75), "d": (11.75, 12.5), "far": (7, 11)}


def test_outcomes_are_recorded_and_summarised(folder):
    points = {"charge_points": {"each": 1, "stay": "as_long"}}
    result = evgrid.run(scenario_from({**BASE, "fleet": {**BASE["fleet"], **points}}, folder=folder))
    wait = dict(zip(result["session_ev"].values.tolist(), result["session_wait_h"].values, strict=True))
    assert wait == {"a": 0, "b": 1.5, "c": 1.75, "d": 3.25, "far": 0}
    # mean of 6 h: a, b, c and d occupy Load R1 from 7 to 12, far its own from 7 to 11
    assert float(result["points_occupied"].mean()) == pytest.approx((5 + 4) / 6)
    # b, c and d wait 1.5 + 1.75 + 3.25 h, e from 9 to the end
    assert float(result["points_waiting"].mean()) == pytest.approx((6.5 + 3) / 6)
    assert float(result["left_without_charging"].sum()) == 0
    rows = dict(summary(result))
    assert rows["  waited"] == "3 sessions, 2.17 h on average, 3.25 h at most"
    left = evgrid.run(
        scenario_from(
            {**BASE, "fleet": {**BASE["fleet"], "charge_points": {"each": 1, "waiting": "leave"}}},
            folder=folder,
        )
    )
    by_place = left["left_without_charging"].isel(member=0).to_series()
    assert by_place[by_place > 0].to_dict() == {"Load R1": 3.0}  # b, c, d; e comes as a leaves
    assert dict(summary(left))["  left without charging"] == "3 EVs, which wanted 15.0 kWh"


def test_points_by_connection(folder):
    (folder / "p.csv").write_text("connection,points\nLoad R1,1\n")
    assert "b" not in stays(world_of(folder, file="p.csv"))
    (folder / "p.csv").write_text("connection,points\nLoad R1,6\nLoad R11,\n")
    assert len(stays(world_of(folder, file="p.csv", each=1))) == 6


SAMPLED = {
    "name": "kinds",
    "time": {"start": "2026-01-15T06:00", "duration": "12h", "step": "1h"},
    "feeder": {"network": "european_lv", "base_load": {"source": "none"}},
    "communication": {"telemetry": "1h"},
}


def sampled(folder=".", **fleet):
    content = {"count": 60, "sessions": "workplace", "vehicle": {"charge_kw": 22}, **fleet}
    return build_world(scenario_from({**SAMPLED, "fleet": content}, folder=folder))


def test_kinds_of_chargers_by_their_shares():
    """A third of 7.4 kW on one phase, two thirds of 11 kW on three: a third of that at connections of one."""
    kinds = [{"power_kw": 7.4, "share": 0.4}, {"power_kw": 11, "phases": 3, "share": 0.8}]
    world = sampled(charger={"kinds": kinds}, sessions="home", count=600)
    power = np.round(world.sessions.charge_kw, 3)
    assert set(power) == {7.4, 3.667}  # every connection of this feeder has one phase
    evs, first = np.unique(world.sessions.ev, return_index=True)
    share = (power[first] == 7.4).mean()
    assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / len(evs))
    assert any("instead of a three-phase one" in note for note in world.sessions.notes)
    # one kind is what power_kw and phases say, bit for bit
    one, plain = (
        sampled(charger=charger, count=40, sessions="home")
        for charger in ({"kinds": [{"power_kw": 7.4}]}, {"power_kw": 7.4})
    )
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one.sessions, name), getattr(plain.sessions, name))


def test_three_and_one_phase_at_connections_of_three():
    kinds = [{"power_kw": 7.4, "share": 0.5}, {"power_kw": 22, "phases": 3, "share": 0.5}]
    content = {**SAMPLED, "feeder": {"network": "cigre_lv", "zero_sequence": {"recipe": "four_wire"}}}
    fleet = {"count": 40, "sessions": "workplace", "charger": {"kinds": kinds}, "vehicle": {"charge_kw": 22}}
    world = build_world(scenario_from({**content, "fleet": fleet}))
    of_session = world.evs.phase[world.sessions.ev]
    np.testing.assert_array_equal(of_session == ALL_PHASES, world.sessions.charge_kw == 22)
    assert 0 < (of_session == ALL_PHASES).mean() < 1


def test_ratings_by_connection(tmp_path):
    """A table says what stands at a connection: 10 chargers of 3.7 kW, elsewhere those that are drawn."""
    plain = sampled(charger={"power_kw": 11}, at=["LOAD1", "LOAD2"])
    here = plain.connections.name[plain.evs.connection] == "LOAD1"
    (tmp_path / "p.csv").write_text("connection,points,power_kw,phases\nLOAD1,30,3.7,1\n")
    world = sampled(
        tmp_path, charger={"power_kw": 11}, at=["LOAD1", "LOAD2"], charge_points={"file": "p.csv"}
    )
    of_session = here[world.sessions.ev]
    assert set(world.sessions.charge_kw[of_session]) == {3.7}
    assert set(world.sessions.charge_kw[~of_session]) == {11.0}


def test_as_many_points_as_evs_give_the_same_run_bit_for_bit():
    alike = []
    for points in ({}, {"charge_points": {"each": 60}}):
        fleet = {"count": 60, "at": "LOAD1", "sessions": "workplace", **points}
        content = {**SAMPLED, "fleet": fleet, "aggregators": {"main": {"strategy": "tou"}}}
        alike.append(evgrid.run(scenario_from({**content, "tariff": "pge_ev2a"})))
    plain, shared = alike
    assert not float(shared["session_wait_h"].sum() + shared["left_without_charging"].sum())
    for name in plain.data_vars:
        np.testing.assert_array_equal(plain[name].values, shared[name].values, err_msg=str(name))
    # every car at work has a point of its own: what occupies them is what is plugged in
    np.testing.assert_allclose(shared["points_occupied"].mean(), plain["plugged"].mean(), rtol=0.2)


@pytest.mark.parametrize(
    ("charger", "message"),
    [
        ({"kinds": []}, "charger.kinds: .*at least 1"),
        ({"kinds": [{"power_kw": 7.4, "share": 0}]}, "kinds: one of the shares must be greater than 0"),
        ({"kinds": [{"power_kw": 7.4}], "power_kw": 11}, "power_kw = 11: is said by kinds; leave it out"),
        ({"kinds": [{"power_kw": 7.4}], "ratings": {3.7: 1}}, "give either ratings or kinds"),
        ({"kinds": [{"power_kw": 7.4}], "current": "dc"}, "phases must be 3 with charger.current = dc"),
        ({"kinds": [{"power": 7.4}]}, "charger.kinds.0.power: unknown key; did you mean .power_kw"),
    ],
)
def test_bad_kinds_are_refused(charger, message):
    with pytest.raises(ScenarioError, match=message):
        sampled(charger=charger)


@pytest.mark.parametrize(
    ("points", "table", "message"),
    [
        ({}, "connection,points\nLoad X,1\n", "connection = Load X: the feeder has none of that name"),
        ({}, "connection,points\nLoad R1,0\n", "points = 0: must be a whole number of at least 1"),
        ({}, "connection,points\nLoad R1,1.5\n", "points = 1.5: must be a whole number"),
        ({}, "connection,points\nLoad R1,1\nLoad R1,2\n", "connection = Load R1: stands in the table before"),
        ({}, "connection,sockets\nLoad R1,1\n", "unknown column sockets: allowed are connection, points"),
        ({}, "points\n1\n", "there is no column 'connection'"),
        ({}, "connection,points,phases\nLoad R1,1,2\n", "phases = 2: must be 1 or 3"),
        ({}, "connection,points,power_kw\nLoad R1,1,-2\n", "power_kw = -2: must be a power above 0"),
        ({}, "connection,phases\nLoad R1,1\n", "line 2: phases needs power_kw of the same row"),
        ({}, "connection,power_kw\nLoad R1,7\n", "power_kw and phases are for sampled sessions"),
        ({"waiting": "leave", "patience": "1h"}, None, "patience is for waiting = queue"),
        (None, None, "give each .charge points at every connection point., file, or both"),
    ],
)
def test_bad_charge_points_are_refused(folder, points, table, message):
    if table is not None:
        (folder / "p.csv").write_text(table)
        points = {**points, "file": "p.csv"}
    elif points is not None:
        points = {**points, "each": 1}
    content = {**BASE, "fleet": {**BASE["fleet"], "charge_points": points or {}}}
    with pytest.raises(ScenarioError, match=message):
        build_world(scenario_from(content, folder=folder))
