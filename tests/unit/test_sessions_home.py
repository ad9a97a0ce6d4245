"""Sampled home sessions: nested, reproducible, and with the times that were asked for."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.core.model import ALL_PHASES, Connections
from evgrid.core.random_streams import Purpose, stream
from evgrid.errors import ScenarioError
from evgrid.fleet.sessions import fleet_tables
from evgrid.fleet.sessions.sampling import sample_sessions
from evgrid.scenario import scenario_from


def scenario(start="2026-01-15T12:00", duration="48h", step="60s", members=1, first=0, seed=7, **fleet):
    return scenario_from(
        {
            "name": "test",
            "time": {"start": start, "duration": duration, "step": step},
            "ensemble": {"members": members, "first": first, "seed": seed},
            "feeder": {"network": "x"},
            "fleet": fleet or {"count": 40},
        }
    )


def feeder(phases=("a", "b", "c"), of=(0, 1, 2, ALL_PHASES, 0), households=(1, 2, 3, 40, 4)):
    n = len(of)
    index = np.arange(n)
    return Connections(
        np.array([f"L{i}" for i in range(n)]), index, np.array(of, np.int8), index * 0,
        np.array(households), phases,
    )  # fmt: skip


def tables(connections=None, **settings):
    return sample_sessions(scenario(**settings), connections or feeder())


def assert_same(first, second):
    for name in ("arrival_s", "departure_s", "soc_arrival", "discharge_kw"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_deployments_are_nested():
    charger = {"bidirectional": 0.5}
    few, few_sessions = tables(count=10, charger=charger)
    many, many_sessions = tables(count=45, charger=charger)
    for name in ("connection", "phase", "name"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:10])
    assert_same(few_sessions, many_sessions.take(many_sessions.ev < 10))


def by_name(evs, sessions):
    """Connection and phase of each EV by member and name, and its sessions."""
    found = {}
    for row, key in enumerate(zip(evs.member.tolist(), evs.name.tolist(), strict=True)):
        mine = np.flatnonzero(sessions.ev == row)
        times = np.stack([sessions.arrival_s, sessions.departure_s, sessions.soc_arrival])[:, mine]
        found[key] = (int(evs.connection[row]), int(evs.phase[row]), times.tolist())
    return found


@given(st.floats(0, 3), st.floats(0, 3), st.floats(0, 1), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_evs_of_areas_are_those_of_the_whole_feeder_there(north, south, more, upstream):
    """Each area has its own share, in the order of the whole, and its EVs stay as any area grows."""
    connections = feeder(of=(0, 1, 2, ALL_PHASES, 0, ALL_PHASES), households=(1, 2, 3, 40, 4, 0))
    connections = replace(connections, upstream=True)

    def of(north, south):
        areas = {"north": {"at": ["L0", "L1"], "penetration": north},
                 "south": {"at": ["l[34]"], "penetration": south}}  # fmt: skip
        return sample_sessions(scenario(members=2, areas=areas, upstream=upstream), connections)

    few = of(north, south)
    for member in (0, 1):
        at = few[0].connection[few[0].member == member]
        assert [np.isin(at, [0, 1]).sum(), np.isin(at, [3, 4]).sum(), (at == 2).sum()] == [
            round(3 * north), round(44 * south), 0,
        ]  # fmt: skip
        assert (at == connections.on_feeder).sum() == upstream
    own = {key: value for key, value in by_name(*few).items() if value[0] != connections.on_feeder}
    for others in (of(north + more, south), of(north, south + more)):
        assert own.items() <= by_name(*others).items()
    whole = sample_sessions(scenario(members=2, penetration=3 + more), connections)
    assert own.items() <= by_name(*whole).items()


@pytest.mark.parametrize(
    ("areas", "message"),
    [
        ({"a": {"at": ["L9"], "penetration": 1}}, r"fleet.areas.a.at = L9: the feeder has no such conn"),
        ({"a": {"at": ["L*"], "penetration": 1}, "b": {"at": ["L1", "L2"], "penetration": 0}},
         r"fleet.areas.b: connection L1 \(and 1 more\) is in a too; must be in one area"),
    ],
)  # fmt: skip
def test_faults_of_areas(areas, message):
    with pytest.raises(ScenarioError, match=message):
        tables(areas=areas)


def test_an_area_without_households():
    with pytest.raises(ScenarioError, match=r"fleet.areas.a.at: has no households that could have an EV"):
        tables(feeder(households=(0, 2, 3, 4, 1)), areas={"a": {"at": ["L0"], "penetration": 1}})


def test_bidirectional_shares_are_nested():
    some = tables(count=40, charger={"bidirectional": 0.3})[1].discharge_kw > 0
    more = tables(count=40, charger={"bidirectional": 0.6})[1].discharge_kw > 0
    assert np.all(more[some])
    assert 0 < some.sum() < more.sum() < len(more)


def test_penetration_counts_households_and_each_gets_one_ev_first():
    evs, _ = tables(penetration=1.0)
    assert list(np.bincount(evs.connection)) == [1, 2, 3, 40, 4]
    assert len(tables(penetration=0.5)[0]) == 25
    assert len(tables(penetration=0.0)[0]) == 0


def test_more_evs_than_households_start_over():
    evs, _ = tables(count=120)
    assert np.array_equal(evs.connection[:50], evs.connection[50:100])
    assert list(np.bincount(evs.connection[:50])) == [1, 2, 3, 40, 4]
    assert evs.name[0] == "ev0001"
    assert evs.name[119] == "ev0120"


def test_members_differ_and_each_is_the_same_alone():
    evs, sessions = tables(count=20, members=3, first=15)
    alone, alone_sessions = tables(count=20, first=17)
    assert np.array_equal(evs.connection[evs.member == 2], alone.connection)
    assert not np.array_equal(evs.connection[evs.member == 1], alone.connection)
    assert_same(sessions.take(evs.member[sessions.ev] == 2), alone_sessions)


def test_sessions_do_not_depend_on_the_step():
    assert_same(tables(step="1s")[1], tables(step="15min")[1])


def test_trips_are_tied_to_the_date():
    noon, midnight = tables(start="2026-01-15T12:00")[1], tables(start="2026-01-15T00:00", duration="60h")[1]
    late = midnight.arrival_s > 12 * 3600
    fresh = noon.arrival_s > 0
    assert midnight.arrival_s[late] - 12 * 3600 == pytest.approx(noon.arrival_s[fresh], abs=1e-6)


def test_sessions_of_an_ev_follow_one_another_and_touch_the_run():
    _, sessions = tables(count=50, duration="120h")
    same = sessions.ev[1:] == sessions.ev[:-1]
    assert np.all(np.diff(sessions.ev) >= 0)
    assert np.all(sessions.arrival_s[1:][same] >= sessions.departure_s[:-1][same] + 3600)
    assert np.all((sessions.arrival_s >= 0) & (sessions.arrival_s < 120 * 3600) & (sessions.departure_s > 0))
    assert np.all(sessions.departure_s > sessions.arrival_s)
    assert np.any(sessions.departure_s > 120 * 3600)


def test_times_and_miles_have_the_given_distributions():
    start = scenario(start="2026-01-15T00:00", duration="96h", count=4000)
    _, sessions = sample_sessions(start, feeder())
    hour = sessions.arrival_s[sessions.arrival_s > 0] / 3600 % 24
    leave = sessions.departure_s / 3600 % 24
    # Rejection takes 8 %: it moves the means little. 5 standard errors of 16,000 draws: 0.13 h.
    assert hour.mean() == pytest.approx(17.6, abs=0.5)
    assert hour.std() == pytest.approx(3.4, abs=0.5)
    assert leave.mean() == pytest.approx(8.92, abs=0.5)
    assert leave.std() == pytest.approx(3.24, abs=0.5)
    fresh = sessions.arrival_s > 0
    miles = (0.9 - sessions.soc_arrival[fresh]) * 60 / 0.325
    assert np.median(miles) == pytest.approx(np.exp(3.2), rel=0.03)
    assert sessions.soc_arrival.min() == 0.05


def test_a_car_plugged_in_at_the_start_has_charged_since_it_returned():
    whole = tables(start="2026-01-15T00:00", duration="24h", count=200)[1]
    later = tables(start="2026-01-15T19:00", duration="24h", count=200)[1]
    shift = 19 * 3600
    checked = 0
    for ev in range(200):
        mine = (
            (whole.ev == ev) & (whole.arrival_s > 0) & (whole.arrival_s < shift) & (whole.departure_s > shift)
        )
        if not mine.any():
            continue
        now = np.flatnonzero(later.ev == ev)[0]
        hours = (shift - whole.arrival_s[mine][0]) / 3600
        start = whole.soc_arrival[mine][0]
        rate = 7.4 * 0.9 / 60  # SOC an hour below 0.8, above it (1 - soc) falls with rate / 0.2
        linear = max(min(0.8 - start, rate * hours), 0)
        rest = hours - linear / rate
        soc = start + linear
        if rest > 0:
            soc = min(1 - (1 - soc) * np.exp(-rate / 0.2 * rest), 0.9)
        assert later.soc_arrival[now] == pytest.approx(soc, abs=1e-12)
        assert later.arrival_s[now] == 0.0
        checked += 1
    assert checked > 50


def test_single_phase_chargers_take_the_phase_of_their_connection_or_a_random_one():
    evs, _ = tables(count=50)
    own = feeder().phase[evs.connection]
    assert np.array_equal(evs.phase[own != ALL_PHASES], own[own != ALL_PHASES])
    counts = np.bincount(evs.phase[own == ALL_PHASES], minlength=3)
    assert counts.sum() == 40
    assert counts.min() > 4


def test_three_phase_chargers_and_balanced_feeders():
    three = feeder(of=(ALL_PHASES,) * 5)
    assert set(tables(three, count=9, charger={"phases": 3, "power_kw": 11})[0].phase) == {ALL_PHASES}
    balanced = feeder(("abc",), (ALL_PHASES,) * 5)
    assert set(tables(balanced, count=9)[0].phase) == {ALL_PHASES}


def test_limits_are_the_lesser_of_charger_and_vehicle():
    sessions = tables(count=3, charger={"power_kw": 11, "bidirectional": 1},
                      vehicle={"charge_kw": 7, "discharge_kw": 5})[1]  # fmt: skip
    assert set(sessions.charge_kw) == {7.0}
    assert set(sessions.discharge_kw) == {5.0}
    assert set(tables(count=3, charger={"power_kw": 3.6})[1].charge_kw) == {3.6}


def test_three_phase_chargers_where_no_connection_has_three_phases_are_refused():
    with pytest.raises(
        ScenarioError, match=r"phases = 3: connection L0 \(and 4 more\) has phase a only; must be 1 there"
    ):
        tables(feeder(of=(0, 1, 2, 0, 0)), penetration=1.0, charger={"phases": 3})
    with pytest.raises(ScenarioError, match=r"current = dc: connection L0 \(and 3 more\) has phase a only"):
        tables(penetration=1.0, charger={"phases": 3, "current": "dc"})


def test_three_phase_chargers_have_the_phases_of_their_connection():
    evs, sessions = tables(penetration=1.0, charger={"phases": 3, "power_kw": 22})
    at_three = feeder().phase[evs.connection] == ALL_PHASES
    assert 0 < at_three.sum() < len(evs)
    assert np.array_equal(evs.phase, feeder().phase[evs.connection])
    # a third of the EVSE's power on one phase, the same current; the vehicle draws 11 kW at most
    assert sessions.charge_kw == pytest.approx(np.where(at_three[sessions.ev], 11.0, 22 / 3))


def test_types_of_a_mix_keep_their_limits_on_one_phase_of_a_three_phase_charger():
    common = {"capacity_kwh": 60, "consumption_kwh_per_mile": 0.3, "share": 0.5}
    types = {
        "wide": {**common, "ac_1p_kw": 3.0, "ac_3p_kw": 11},
        "narrow": {**common, "ac_1p_kw": 7.4, "ac_3p_kw": 0},
    }
    evs, sessions = tables(penetration=1.0, charger={"phases": 3, "power_kw": 11}, mix={"types": types})
    at_three = (feeder().phase[evs.connection] == ALL_PHASES)[sessions.ev]
    wide = sessions.vehicle == "wide"
    for wanted, kw in (
        (wide & at_three, 11), (wide & ~at_three, 3), (~wide & at_three, 11 / 3), (~wide & ~at_three, 11 / 3)
    ):  # fmt: skip
        assert sessions.charge_kw[wanted] == pytest.approx(kw)
        assert wanted.any()


def test_no_households_is_refused():
    with pytest.raises(
        ScenarioError, match=r"fleet.count = 3: the feeder has no households that could have an EV"
    ):
        tables(feeder(households=(0,) * 5), count=3)


def test_no_fleet_gives_empty_tables():
    without = scenario_from({"name": "x", "time": {"start": "2026-01-15T12:00"}, "feeder": {"network": "x"}})
    evs, sessions = fleet_tables(without, feeder())
    assert len(evs) == len(sessions) == 0


def test_streams_are_independent_of_one_another():
    draws = {
        stream(seed, member, purpose, day, attempt).random()
        for seed in (0, 1) for member in (0, 1) for purpose in Purpose for day in (0, 1) for attempt in (0, 1)
    }  # fmt: skip
    assert len(draws) == 16 * len(Purpose)
    assert stream(7, 17, Purpose.EV).random() == stream(7, 17, Purpose.EV).random()


@pytest.mark.parametrize(
    ("fleet", "note"),
    [
        (
            {"sessions": "dc_fast", "charger": {"current": "dc", "phases": 3, "power_kw": 150}},
            "fleet.vehicle.dc_kw = 100: EVs charge at most 100 kW of the charger's 150 kW.",
        ),
        (
            {"charger": {"phases": 3, "power_kw": 22}},
            "fleet.vehicle.charge_kw = 11: EVs charge at most 11 kW of the charger's 22 kW.",
        ),
        (
            {"charger": {"phases": 3, "power_kw": 11, "bidirectional": 1.0}, "vehicle": {"discharge_kw": 5}},
            "fleet.vehicle.discharge_kw = 5: EVs discharge at most 5 kW of the charger's 11 kW.",
        ),
        (
            {"charger": {"phases": 3, "power_kw": 11}, "mix": {"phev50": 1.0}},
            "fleet.mix: of the charger's 11 kW draw at most phev50 3.6 kW on one phase.",
        ),
        ({"charger": {"power_kw": 7.4}}, None),
    ],
)
def test_vehicles_that_keep_a_charger_below_its_rating_are_noted(fleet, note):
    _, sessions = fleet_tables(scenario(count=3, **fleet), feeder(of=(ALL_PHASES,) * 5))
    caps = [told for told in sessions.notes if "of the charger's" in told]
    assert caps == ([note] if note else [])
