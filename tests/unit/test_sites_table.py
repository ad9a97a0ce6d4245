"""The table of sites: places, EVs, circuits, constants."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.core.model import ALL_PHASES, Connections, EVs
from evgrid.errors import ScenarioError
from evgrid.readers.series import Series
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.sites.profiles import Constant, Divided, OfSeries, Profiles
from evgrid.sites.tables import BACKUP, CONTROL_NAMES, FORMER, site_table

BATTERY = {"capacity_kwh": 10, "charge_kw": 5}
ALL = {"connections": "all"}


def scenario(sites, members=1, first=0, folder=".", duration="2h", **more):
    content = {
        "name": "sites",
        "time": {"start": "2026-06-01T00:00", "duration": duration},
        "ensemble": {"members": members, "first": first, "seed": 3},
        "feeder": {"network": "x"},
        "sites": sites,
    }
    return scenario_from(content | more, folder=folder)


def points(count=10, phase=0, upstream=False):
    zero = np.zeros(count, np.int64)
    found = Connections(
        np.array([f"H{i}" for i in range(count)]), zero, np.full(count, phase, np.int8), zero, zero + 1,
        ("a", "b", "c"),
    )  # fmt: skip
    return found.with_upstream() if upstream else found


def cars(*places):
    """EVs of each member at connections."""
    member = np.repeat(np.arange(len(places)), [len(at) for at in places])
    at = np.array([c for own in places for c in own], np.int64)
    return EVs(member, at, np.zeros(len(at), np.int8), np.array([f"ev{i}" for i in range(len(at))]))


class Steady:
    """A base load of (connection + 1) kW in the first hour and the double of it in the second, with members
    that have 100 kW more each; tan phi is 0.75.
    """

    def __init__(self, count=10, members=1):
        self.kw = np.arange(1.0, count + 1) + 100.0 * np.arange(members)[:, None]

    def changes(self, begin_s, end_s):
        return np.array([t for t in (begin_s, 3600.0, end_s) if begin_s <= t <= end_s])

    def at(self, times_s, until_s=None):
        factor = np.where(times_s < 3600.0, 1.0, 2.0)
        p = factor[:, None, None, None] * self.kw[None, :, :, None] * np.array([0.5, 0.25, 0.25])
        return p, 0.75 * p


def table(sites, evs=None, members=1, connections=None, discharging=None, base=None, **more):
    given = scenario(sites, members, **more)
    evs = cars(*[[]] * members) if evs is None else evs
    return site_table(given, connections or points(), evs, base or Steady(members=members), discharging)


def loads_of(found, at_s=0.0, row=0):
    """Circuits of a site by name, kW."""
    kw = found.profiles.slots(0.0, 7200.0).at(at_s)
    own = slice(found.circuit_first[row], found.circuit_first[row + 1])
    return dict(
        zip(
            found.circuit_name[own].tolist(),
            (kw[found.circuit_row[own]] * found.circuit_share[own]).tolist(),
            strict=True,
        )
    )


# ---- places


def test_without_sites_there_is_no_table():
    assert site_table(scenario({}), points(), cars([]), Steady()) is None


def test_sites_stand_by_member_then_group_then_connection():
    found = table(
        {"b": {"connections": ["H7", "H2"]}, "a": {"connections": ["H4"]}}, members=2, evs=cars([], [])
    )
    assert found.name.tolist() == ["H2", "H7", "H4"] * 2
    assert found.member.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.group.tolist() == [0, 0, 1] * 2
    assert list(found.groups) == ["b", "a"]


def test_all_takes_what_no_other_names_and_has_a_household():
    connections = points()
    connections.households[3] = 0
    found = table({"station": {"connections": ["H0"]}, "homes": ALL}, connections=connections)
    assert found.connection[found.group == 1].tolist() == [1, 2, 4, 5, 6, 7, 8, 9]


@settings(max_examples=30)
@given(
    share=st.floats(0.01, 1), first=st.integers(0, 20), members=st.integers(1, 5), count=st.integers(1, 40),
    named=st.integers(0, 3),
)  # fmt: skip
def test_a_member_has_the_same_sites_alone_and_among_others(share, first, members, count, named):
    groups = {"homes": {"connections": {"share": share}}}
    if named:
        groups["own"] = {"connections": [f"H{k}" for k in range(min(named, count))]}
    connections = points(count)

    def of(first, members):
        given = scenario(groups, members, first)
        return site_table(given, connections, cars(*[[]] * members), Steady(count, members))

    together = of(first, members)
    open_to_draw = count - min(named, count) if named else count
    for k in range(members):
        alone = of(first + k, 1)
        own = together.member == k
        assert alone.connection.tolist() == together.connection[own].tolist()
        assert (together.group[own] == 0).sum() == round(share * open_to_draw)
        assert len(set(together.connection[own].tolist())) == own.sum()


def test_a_greater_share_has_all_that_a_smaller_one_has():
    few, many = (
        set(table({"homes": {"connections": {"share": share}}}, connections=points(40), base=Steady(40)).name)
        for share in (0.2, 0.7)
    )
    assert len(few) == 8
    assert len(many) == 28
    assert few < many


def test_shares_of_two_groups_never_meet_and_fill_the_street():
    found = table({"a": {"connections": {"share": 0.25}}, "b": {"connections": {"share": 0.75}}})
    assert sorted(found.connection.tolist()) == list(range(10))
    assert np.bincount(found.group).tolist() in ([2, 8], [3, 7])


def test_the_tick_has_no_part_in_what_is_drawn():
    found = [
        table(
            {"homes": {"connections": {"share": 0.4}}},
            time={"start": "2026-06-01", "duration": "2h", "step": step},
        )
        for step in ("1s", "15min")
    ]
    assert found[0].name.tolist() == found[1].name.tolist()


def test_sites_with_an_ev_are_drawn_from_those():
    found = table(
        {"homes": {"connections": {"share": 0.3, "with_ev": True}}}, members=2, evs=cars([8, 1, 3, 5], [2]),
        fleet={"count": 4},
    )  # fmt: skip
    assert set(found.name[found.member == 0]) < {"H8", "H1", "H3", "H5"}
    assert (found.member == 0).sum() == 3
    assert found.name[found.member == 1].tolist() == ["H2"]


def test_an_unknown_connection_is_named_with_one_like_it():
    with pytest.raises(
        ScenarioError, match=r"sites\.a\.connections: .* no connection point H11; did you mean H1\?"
    ):
        table({"a": {"connections": ["H11", "H2"]}})
    with pytest.raises(ScenarioError, match=r"no connection point upstream; it has H0, H1, H2, H3, H4, …"):
        table({"a": {"connections": ["upstream"]}}, connections=points(upstream=True))


# ---- EVs


def test_evs_of_a_site_are_those_of_its_member_at_its_connection():
    evs = cars([3, 1, 3, 9], [1, 3, 1])
    found = table({"a": {"connections": ["H1", "H3"]}, "b": {"connections": ["H5"]}}, evs=evs, members=2)
    own = [found.ev[a:b].tolist() for a, b in pairwise(found.ev_first)]
    assert own == [[1], [0, 2], [], [4, 6], [5], []]


@settings(max_examples=50)
@given(data=st.data())
def test_each_ev_at_a_site_is_there_once(data):
    members, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    places = [data.draw(st.lists(st.integers(0, count), max_size=8)) for _ in range(members)]
    evs = cars(*places)
    named = data.draw(st.lists(st.integers(0, count - 1), unique=True, min_size=1))
    found = table(
        {"a": {"connections": [f"H{k}" for k in named]}}, evs, members, points(count, upstream=True),
        base=Steady(count, members),
    )  # fmt: skip
    assert len(found.ev_first) == len(found) + 1
    site = np.repeat(np.arange(len(found)), np.diff(found.ev_first))
    assert (evs.connection[found.ev] == found.connection[site]).all()
    assert (evs.member[found.ev] == found.member[site]).all()
    assert sorted(found.ev.tolist()) == np.flatnonzero(np.isin(evs.connection, named)).tolist()


def test_sites_off_grid_have_evs_from_upstream_in_order():
    found = table(
        {"v2l": {"connections": "none", "count": 2, "evs_each": 2, "circuits": {"fridge": {"kw": 0.1}}}},
        evs=cars([10, 0, 10, 10, 10, 10]), connections=points(upstream=True),
        fleet={"count": 1, "upstream": 5, "charger": {"bidirectional": 1}},
    )  # fmt: skip
    assert found.name.tolist() == ["v2l.1", "v2l.2"]
    assert found.connection.tolist() == [-1, -1]
    assert found.ev_first.tolist() == [0, 2, 4]
    assert found.ev.tolist() == [0, 2, 3, 4]
    assert found.rating.import_kw.tolist() == found.rating.export_kw.tolist() == [0, 0]
    assert not found.rating.parallel.any()


def test_sites_off_grid_need_as_many_evs_upstream():
    with pytest.raises(
        ScenarioError, match=r"those off grid need 2 EVs in a member, and 1 are upstream of the feeder"
    ):
        table(
            {"v2l": {"connections": "none", "count": 2, "circuits": {"fridge": {"kw": 0.1}}}},
            evs=cars([10, 0]), connections=points(upstream=True),
            fleet={"count": 1, "upstream": 1, "charger": {"bidirectional": 1}},
        )  # fmt: skip


# ---- loads


def test_a_critical_share_divides_the_base_load():
    found = table({"homes": {"connections": ["H3"], "critical": {"share": 0.4}}})
    assert loads_of(found) == pytest.approx({"critical": 1.6, "rest": 2.4})
    assert loads_of(found, 3600.0) == pytest.approx({"critical": 3.2, "rest": 4.8})
    assert found.critical.tolist() == [True, False]
    assert found.profiles.slots(0.0, 7200.0).edges_s.tolist() == [0.0, 3600.0, 7200.0]


def test_without_anything_the_load_is_one_circuit():
    assert loads_of(table({"homes": {"connections": ["H3"]}})) == {"rest": 4.0}


def test_shares_of_one_profile_are_not_copied():
    found = table({"homes": ALL | {"circuits": {f"c{k}": {"share": 0.1} for k in range(10)}}})
    assert found.profiles.rows == 10
    assert len(found.circuit_row) == 100


def test_every_member_and_site_has_its_own_base_load():
    found = table(
        {"homes": {"connections": ["H0", "H5"], "critical": {"kw": 2.5}}}, members=2, evs=cars([], [])
    )
    assert [loads_of(found, 0.0, row) for row in range(4)] == [
        {"critical": 1.0, "rest": 0.0},
        {"critical": 2.5, "rest": 3.5},
        {"critical": 2.5, "rest": 98.5},
        {"critical": 2.5, "rest": 103.5},
    ]


def test_an_own_load_is_the_same_for_all_sites_and_held_once():
    found = table({"homes": ALL | {"load": {"kw": 3, "power_factor": 1}, "critical": {"share": 0.5}}})
    assert found.profiles.rows == 1
    assert loads_of(found, 0.0, 7) == {"critical": 1.5, "rest": 1.5}
    assert (found.rating.power_factor == 1).all()


def test_the_power_factor_of_a_base_load_is_its_own():
    assert table({"homes": ALL}).rating.power_factor == pytest.approx(np.full(10, 0.8))


def test_circuits_are_the_load_where_it_says_so():
    found = table(
        {
            "v2l": {
                "connections": "none", "battery": BATTERY,
                "circuits": {
                    "drill": {"kw": 2, "order": 1}, "light": {"kw": 0.2},
                    "fridge": {"kw": 0.1, "critical": True},
                },
            },
        }
    )  # fmt: skip
    assert list(loads_of(found).items()) == [("fridge", 0.1), ("light", 0.2), ("drill", 2.0)]


def _csv(path, **columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return path.name


def test_a_file_holds_each_value_until_the_next(tmp_path):
    file = _csv(
        tmp_path / "load.csv", time=["2026-06-01T00:00", "2026-06-01T00:20", "2026-06-01T01:10"], kw=[2, 6, 1]
    )
    found = table(
        {"s": {"connections": ["H1"], "load": {"file": file}, "critical": {"kw": 1.5}}}, folder=tmp_path
    )
    slots = found.profiles.slots(600.0, 6000.0)
    assert slots.edges_s.tolist() == [600.0, 1200.0, 4200.0, 6000.0]
    assert slots.kw[found.circuit_row].tolist() == [[1.5, 1.5, 1.0], [0.5, 4.5, 0.0]]


def test_a_file_has_columns_and_times_as_stated(tmp_path):
    file = _csv(tmp_path / "load.csv", time=["01.06.2026 00:00", "01.06.2026 01:00"], a=[2, 6], b=[1, 1])
    of = {"file": file, "time_format": "%d.%m.%Y %H:%M"}
    found = table(
        {"s": {"connections": ["H1"], "load": of | {"column": "a"}, "critical": of | {"column": "b"}}},
        folder=tmp_path,
    )
    assert loads_of(found, 3600.0) == {"critical": 1.0, "rest": 5.0}


def test_a_file_with_two_uses_is_read_once(tmp_path):
    file = _csv(tmp_path / "load.csv", time=["2026-06-01T00:00", "2026-06-01T01:00"], kw=[2, 6])
    found = table(
        {name: {"connections": [name], "load": {"file": file}} for name in ("H1", "H2")}, folder=tmp_path
    )
    assert found.profiles.rows == 1


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ({"kw": [2, -6]}, r"sites\.s\.load\.file: .*load\.csv: line 3: kw = -6: must be a load in kW"),
        ({"a": [1, 2], "b": [1, 2]}, r"must have one column besides 'time', not 2"),
        ({"kw": [2, None]}, r"line 3: kw = nothing: must be a load in kW"),
    ],
)
def test_a_file_at_fault_is_named_with_its_line(tmp_path, column, sentence):
    file = _csv(tmp_path / "load.csv", time=["2026-06-01T00:00", "2026-06-01T01:00"], **column)
    with pytest.raises(ScenarioError, match=sentence):
        table({"s": {"connections": ["H1"], "load": {"file": file}}}, folder=tmp_path)


@settings(max_examples=60)
@given(
    load=st.lists(st.floats(0, 20), min_size=3, max_size=3),
    parts=st.lists(
        st.one_of(st.floats(0, 0.3), st.lists(st.floats(0, 10), min_size=2, max_size=2)), max_size=3
    ),
    begin=st.floats(0, 3000), length=st.floats(1, 9000),
)  # fmt: skip
def test_circuits_add_up_to_the_load_and_take_no_more_than_is_asked(load, parts, begin, length):
    of_load = OfSeries(Series(np.array([0.0, 700.0, 5000.0, 12000.0]), np.array(load)))
    of_parts = [
        part
        if isinstance(part, float)
        else OfSeries(Series(np.array([0.0, 2500.0, 12000.0]), np.array(part)))
        for part in parts
    ]
    slots = Divided(of_load, of_parts).slots(begin, begin + length)
    for time_s in np.linspace(begin, begin + length, 7)[:-1]:
        total = load[0] if time_s < 700 else load[1] if time_s < 5000 else load[2]
        at = slots.at(time_s)
        assert at.sum() == pytest.approx(total, abs=1e-9)
        assert (at >= -1e-9).all()
        for part, power in zip(parts, at, strict=False):
            wanted = part * total if isinstance(part, float) else part[0] if time_s < 2500 else part[1]
            assert power <= wanted + 1e-9


@settings(max_examples=40)
@given(cuts=st.lists(st.floats(1, 7199), min_size=1, max_size=4, unique=True))
def test_spans_of_a_profile_have_the_energy_of_the_whole(cuts):
    profiles = Profiles(
        [Constant(2.0), OfSeries(Series(np.array([0.0, 1000.0, 3000.5, 9000.0]), np.array([1.0, 5.0, 2.0])))]
    )
    edges = [0.0, *sorted(cuts), 7200.0]
    parts = [profiles.slots(a, b) for a, b in pairwise(edges)]
    energy = sum(part.kw @ np.diff(part.edges_s) for part in parts)
    assert energy == pytest.approx([14400.0, 1000.0 + 5 * 2000.5 + 2 * 4199.5])


# ---- constants


def test_limits_of_breaker_and_interconnection():
    single = table(
        {"s": {"connections": ["H1"], "breaker_a": 20, "interconnection": {"import_kw": 3, "export_kw": 9}}}
    ).rating
    assert (single.breaker_kw, single.import_kw, single.export_kw) == (4.6, 3.0, 4.6)
    wide = table({"s": {"connections": ["H1"], "breaker_a": 20}}, connections=points(phase=ALL_PHASES)).rating
    assert wide.breaker_kw == wide.import_kw == wide.export_kw == pytest.approx(13.8)
    for approval, parallel in (("none", False), ("non_export", True)):
        found = table({"s": {"connections": ["H1"], "interconnection": {"approval": approval}}}).rating
        assert found.export_kw == 0.0
        assert found.parallel == parallel
        assert found.import_kw == np.inf


def test_constants_of_sources_and_island():
    found = table(
        {
            "plain": {"connections": ["H0"]},
            "full": {
                "connections": ["H1"],
                "battery": BATTERY | {
                    "charge_efficiency": 0.9, "discharge_efficiency": 0.8, "discharge_kw": 4,
                    "standby_kw": 0.02, "soc_start": 0.7, "soc_min": 0.2,
                },
                "generator": {"power_kw": 8, "fuel_hours": 5, "minimum_load": 0.25, "start": "20s"},
                "critical": {"share": 1}, "backup": "critical", "discharge_order": "ev_first",
                "island": {
                    "former": "generator", "kva": 7, "load_step_kw": 2, "ramp": "1min", "detection": "1s",
                    "return_wait": "2min", "black_start": "30s",
                },
                "control": {"strategy": "peak", "limit_kw": 4, "reserve_soc": 0.3},
            },
        }
    ).rating  # fmt: skip
    expected = {
        "battery_kwh": [0, 10], "battery_charge_kw": [0, 5], "battery_discharge_kw": [0, 4],
        "charge_efficiency": [1, 0.9], "discharge_efficiency": [1, 0.8], "soc_start": [0, 0.7],
        "soc_min": [0, 0.2], "standby_kw": [0, 0.02], "generator_kw": [0, 8], "fuel_kwh": [0, 40],
        "minimum_kw": [0, 2], "start_s": [0, 20], "form_kva": [np.inf, 7], "load_step_kw": [np.inf, 2],
        "detect_s": [2, 1], "black_start_s": [10, 30], "return_wait_s": [300, 120], "ramp_s": [300, 60],
        "peak_kw": [np.inf, 4], "reserve_soc": [0, 0.3], "ev_first": [False, True], "pv_kw": [0, 0],
    }  # fmt: skip
    assert {name: getattr(found, name).tolist() for name in expected} == expected
    assert [FORMER[k] for k in found.former] == ["auto", "generator"]
    assert [BACKUP[k] for k in found.backup] == ["none", "critical"]
    assert [CONTROL_NAMES[k] for k in found.control] == ["requests", "peak"]


def test_fuel_is_given_in_kwh_or_hours():
    found = table(
        {
            "a": {"connections": ["H0"], "generator": {"power_kw": 8, "fuel_kwh": 3}},
            "b": {"connections": ["H1"], "generator": {"power_kw": 8, "fuel_hours": 3}},
        }
    )
    assert found.rating.fuel_kwh.tolist() == [3, 24]


def test_a_storm_raises_the_reserve_from_its_warning_to_its_end():
    def storm(warning, begin, end, soc):
        return {
            name: f"2026-06-01T{t}" for name, t in (("warning", warning), ("begin", begin), ("end", end))
        } | {"soc": soc}

    control = {
        "strategy": "requests",
        "reserve_soc": 0.3,
        "storms": [storm("01:00", "02:00", "05:00", 0.9), storm("04:00", "06:00", "07:00", 0.5)],
    }
    found = table({"a": {"connections": ["H0"]}, "b": {"connections": ["H1"], "control": control}})
    edges, soc = found.reserve(scenario({}).clock)
    assert edges.tolist() == [0, 3600, 14400, 18000, 25200, np.inf]
    assert soc.tolist() == [[0, 0.3], [0, 0.9], [0, 0.9], [0, 0.5], [0, 0.3]]


# ---- what can't be


def test_a_breaker_carries_the_critical_load(tmp_path):
    sentence = r"sites\.s\.breaker_a = 10: carries 2\.3 kW at H1: must carry its critical load, 3 kW"
    with pytest.raises(ScenarioError, match=sentence):
        table({"s": {"connections": ["H1"], "load": {"kw": 4}, "critical": {"kw": 3}, "breaker_a": 10}})
    circuits = {"a": {"file": "c.csv", "critical": True}, "b": {"kw": 9}}
    _csv(tmp_path / "c.csv", time=["2026-06-01T00:00", "2026-06-01T01:00"], kw=[2, 3])
    with pytest.raises(ScenarioError, match=sentence):
        table(
            {"s": {"connections": ["H1"], "load": "circuits", "circuits": circuits, "breaker_a": 10}},
            folder=tmp_path,
        )  # fmt: skip
    assert table({"s": {"connections": ["H1"], "load": {"kw": 4}, "critical": {"kw": 2.3}, "breaker_a": 10}})


def test_a_breaker_of_no_site_carries_anything():
    feeder = {"network": "x", "base_load": {"source": "net"}}
    group = {"connections": {"share": 0.01}, "critical": {"share": 1}, "breaker_a": 10}
    assert len(table({"s": group}, feeder=feeder)) == 0
    assert len(table({"s": group | {"load": {"kw": 2}}}, feeder=feeder)) == 0


def test_a_breaker_carries_the_critical_part_of_the_networks_own_load():
    feeder = {"network": "x", "base_load": {"source": "net"}}
    with pytest.raises(ScenarioError, match=r"carries 2\.3 kW at H1: must carry its critical load, 4 kW"):
        table({"s": ALL | {"critical": {"share": 1}, "breaker_a": 10}}, feeder=feeder)


def test_backup_by_evs_needs_one_that_can_discharge_at_the_site(tmp_path):
    file = tmp_path / "sessions.csv"
    file.write_text("")
    fleet = {"sessions": {"file": "sessions.csv"}}
    given = {"s": {"connections": ["H1"], "backup": "whole"}}
    for evs, able in ((cars([2]), [True]), (cars([1]), [False]), (cars([]), [])):
        with pytest.raises(
            ScenarioError, match=r"sites\.s\.backup = whole: no EV that can discharge charges at"
        ):
            table(given, evs, fleet=fleet, folder=tmp_path, discharging=np.array(able, np.bool_))
    assert table(given, cars([1]), fleet=fleet, folder=tmp_path, discharging=np.array([True]))


def test_a_site_off_grid_needs_an_ev_that_can_discharge(tmp_path):
    (tmp_path / "sessions.csv").write_text("")
    with pytest.raises(ScenarioError, match=r"sites\.v2l: none of its EVs can discharge: a site off"):
        table(
            {"v2l": {"connections": "none", "circuits": {"fridge": {"kw": 0.1}}}},
            evs=cars([10]), connections=points(upstream=True), folder=tmp_path, discharging=np.array([False]),
            fleet={"sessions": {"file": "sessions.csv"}, "charger": {"bidirectional": 1}},
        )  # fmt: skip


# ---- in a run


def world(**over):
    content = {
        "name": "sites",
        "time": {"start": "2026-06-01T10:00", "duration": "2h", "step": "60s"},
        "ensemble": {"members": 2, "seed": 5},
        "feeder": {"network": "european_lv"},
        "fleet": {"penetration": 0.3, "upstream": 3, "charger": {"bidirectional": 0.5}},
        "sites": {
            "homes": {
                "connections": {"share": 0.4}, "critical": {"share": 0.25}, "backup": "critical",
                "pv": {"kwp": 3, "latitude": 51.5, "longitude": -0.1, "timezone": "Europe/London"},
            },
            "station": {"connections": ["LOAD12"], "load": {"kw": 2}},
            "v2l": {"connections": "none", "circuits": {"fridge": {"kw": 0.1}}},
        },
    }  # fmt: skip
    return build_world(scenario_from(content, over))


def test_sites_of_a_run_have_the_load_that_the_feeder_has():
    made = world()
    found = made.sites
    homes = np.flatnonzero(found.group == 0)
    assert len(homes) == 2 * round(0.4 * 54)
    assert "LOAD12" not in found.name[homes]
    times_s = np.arange(0.0, 7200.0, 60.0)
    of_feeder = made.base.at(times_s)[0].sum(axis=3)  # (time, member, connection)
    slots = found.profiles.slots(0.0, 7200.0)
    assert np.isin(np.arange(0.0, 7201.0, 900.0), slots.edges_s).all()
    for row in homes.tolist():
        own = slice(found.circuit_first[row], found.circuit_first[row + 1])
        kw = found.circuit_share[own] @ slots.kw[found.circuit_row[own]]
        at = slots.edges_s.searchsorted(times_s, "right") - 1
        np.testing.assert_allclose(kw[at], of_feeder[:, found.member[row], found.connection[row]], rtol=1e-12)
    assert slots.kw[found.pv_row[homes[0]]].min() > 0.5  # a clear morning in June
    assert found.pv_row[found.group > 0].tolist() == [-1] * 4
    off_grid = np.flatnonzero(found.connection < 0)
    taken = found.ev[found.ev_first[off_grid]]
    assert (made.evs.connection[taken] == made.connections.on_feeder).all()
    assert made.evs.member[taken].tolist() == [0, 1]


def test_a_member_of_a_run_has_the_same_sites_and_evs_alone():
    together, alone = world().sites, world(**{"ensemble.first": 1, "ensemble.members": 1})
    own = np.flatnonzero(together.member == 1)
    assert alone.sites.name.tolist() == together.name[own].tolist()
    evs = world().evs
    first = int(np.searchsorted(evs.member, 1))
    begin = together.ev_first[own[0]]
    assert (alone.sites.ev + first).tolist() == together.ev[begin:].tolist()
    one, all_of = (table.profiles.slots(0.0, 7200.0) for table in (alone.sites, together))
    circuits = slice(together.circuit_first[own[0]], None)
    np.testing.assert_array_equal(one.kw[alone.sites.circuit_row], all_of.kw[together.circuit_row[circuits]])


def test_a_run_says_how_many_sites_there_are_and_under_which_sky():
    notes = world().notes
    assert "sites: homes 22, station 1, v2l 1 in each member." in notes
    assert "sites.homes.pv: clear sky throughout, so an upper bound." in notes
    found = table(
        {"a": {"connections": {"share": 1.0, "with_ev": True}}}, members=2, evs=cars([1, 2], [3]),
        fleet={"count": 2},
    )  # fmt: skip
    assert list(found.notes) == ["sites: a 1 to 2 in each member."]


def test_sites_without_evs_need_none():
    made = world(**{"fleet": None, "sites.homes.backup": "none", "sites.v2l": None})
    assert len(made.sites.ev) == 0
    assert not made.sites.ev_first.any()
