"""Several aggregators side by side: who has which EVs, each with its strategy and its own link.

::

    aggregator.north -+
    aggregator.south -+- fleet - feeder
    (nobody)         -+
"""

import numpy as np
import pytest
import xarray as xr

import evgrid
from evgrid.results import audit_of
from evgrid.results.settlement import settle
from evgrid.runs.simulation import build_world, run_with_report
from evgrid.scenario import scenario_from

PAIR = {
    "north": {"strategy": "tou", "evs": {"share": 0.4}},
    "south": {"strategy": "v2g_peak_shaving", "limit_kw": 60, "evs": {"share": 0.4}},
}


def street(aggregators, overrides=None, folder=".", **sections):
    content = {
        "name": "street",
        "time": {"start": "2026-07-01T16:00", "duration": "6h", "step": "5min"},
        "ensemble": {"members": 2, "seed": 3},
        "feeder": {"network": "cigre_lv", "phases": 1, "base_load": {"source": "net"}},
        "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 0.5}},
        "tariff": "pge_ev2a",
        "communication": {"telemetry": "5min"},
        "aggregators": aggregators,
        **sections,
    }
    return scenario_from(content, overrides, folder=folder)


def owners(aggregators, **sections):
    world = build_world(street(aggregators, **sections))
    return {p.name: p.rows for p in world.portfolios}, world


@pytest.fixture(scope="module")
def pair():
    return evgrid.run(street(PAIR, {"record.ev": True}))


def test_shares_are_drawn_once_and_those_left_are_nobodys():
    rows, world = owners(PAIR, fleet={"count": 3000, "charger": {"phases": 3}})
    assert not set(rows["north"]) & set(rows["south"])
    for own in rows.values():
        counts = np.bincount(world.evs.member[own])
        assert counts == pytest.approx([1200, 1200], abs=4 * np.sqrt(3000 * 0.4 * 0.6))
    fewer = owners(PAIR, fleet={"count": 1000, "charger": {"phases": 3}})[0]["north"]
    assert np.array_equal(fewer[fewer < 1000], rows["north"][rows["north"] < 1000])  # nested


def test_the_rest_and_the_other_ways_to_choose():
    fleet = {"count": 40, "upstream": 20, "mix": {"bev250": 0.5, "phev50": 0.5},
             "charger": {"phases": 3, "power_kw": 7.4}}  # fmt: skip
    rows, world = owners(
        {
            "up": {"strategy": "tou", "evs": {"upstream": True, "share": 0.5}},
            "lv": {"strategy": "tou", "evs": {"transformers": [TRAFO], "vehicles": ["bev250"]}},
            "at": {"strategy": "tou", "evs": {"connections": ["Load R1"], "vehicles": ["phev50"]}},
            "rest": {"strategy": "tou"},
        },
        fleet=fleet,
    )
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(world.evs)))
    where = world.connections.name[world.evs.connection]
    trafo = world.network.grid.trafos.name[world.connections.trafo[world.evs.connection]]
    vehicle = dict(zip(world.sessions.ev.tolist(), world.sessions.vehicle.tolist(), strict=True))
    assert set(where[rows["up"]]) == {"upstream"}
    assert 0 < len(rows["up"]) < 40
    assert set(trafo[rows["lv"]]) == {TRAFO}
    assert set(where[rows["at"]]) == {"Load R1"}
    assert {vehicle[ev] for ev in rows["lv"]} == {"bev250"}
    assert {vehicle[ev] for ev in rows["at"]} == {"phev50"}


TRAFO = "Trafo R0-R1"


def test_each_has_its_own_set_points_and_power(pair):
    audit = audit_of(pair)
    assert audit["hand_over_kw"] == 0.0
    assert audit["conversion_relative"] <= 1e-9
    of = pair["ev_aggregator"].values
    assert set(of) == {"", "north", "south"}
    for name in ("north", "south"):
        power = pair["ev_power_kw"].isel(ev=of == name).groupby("ev_member").sum().transpose("ev_member", ...)
        np.testing.assert_allclose(pair[f"fleet_power_kw_{name}"], power, atol=1e-9)
    assert {"setpoint_kw_north", "setpoint_kw_south"} <= set(pair.data_vars)
    assert pair["setpoint_kw_north"].attrs["long_name"].startswith("north: ")


def test_a_run_tells_how_its_time_splits(tmp_path):
    _, report = run_with_report(street(PAIR), tmp_path / "r.nc")
    split = report.split_s
    federates = ["aggregator.north", "aggregator.south", "fleet", "feeder"]
    assert list(split) == ["preparing", *federates, "HELICS", "recording"]
    assert min(split.values()) > 0
    assert sum(split.values()) == pytest.approx(report.wall_s, rel=1e-9)


def test_evs_of_nobody_charge_as_if_alone(pair):
    free = evgrid.run(street({}, {"record.ev": True}))
    nobody = pair["ev_aggregator"].values == ""
    np.testing.assert_array_equal(pair["ev_power_kw"][:, nobody], free["ev_power_kw"][:, nobody])


def test_an_uncontrolled_aggregator_is_like_none(pair):
    named = {**PAIR, "idle": {"strategy": "uncontrolled"}}
    result = evgrid.run(street(named, {"record.ev": True}))
    np.testing.assert_array_equal(result["ev_power_kw"], pair["ev_power_kw"])
    rest = pair["fleet_power_kw"] - pair["fleet_power_kw_north"] - pair["fleet_power_kw_south"]
    np.testing.assert_allclose(result["fleet_power_kw_idle"], rest, atol=1e-9)


def test_strategies_that_need_no_other_do_as_if_alone(pair):
    alone = evgrid.run(street({"main": {"strategy": "tou"}}, {"record.ev": True}))
    north = pair["ev_aggregator"].values == "north"
    np.testing.assert_array_equal(pair["ev_power_kw"][:, north], alone["ev_power_kw"][:, north])


def test_two_halves_under_one_limit_each_see_the_other_as_load():
    half = {"strategy": "peak_limit", "limit_kw": 120, "group": "feeder", "evs": {"share": 0.5}}
    both = evgrid.run(street({"a": half, "b": half}))
    free = evgrid.run(street({}))
    # each leaves to the other what that draws
    assert float(both["head_power_kw"].max()) < float(free["head_power_kw"].max())
    assert audit_of(both)["feeder_relative"] <= 1e-6


def test_a_member_alone_equals_itself_in_an_ensemble():
    changes = {"communication.loss": 0.2}
    together = evgrid.run(street(PAIR, changes))
    alone = evgrid.run(street(PAIR, {**changes, "ensemble.members": 1, "ensemble.first": 1}))
    for name in alone.data_vars:
        if "member" in alone[name].dims:
            np.testing.assert_array_equal(alone[name].values[0], together[name].values[1], err_msg=name)


def late(north=None, south=None, **communication):
    pair = {
        "north": {**PAIR["north"], "communication": north},
        "south": {"strategy": "tou", "evs": PAIR["south"]["evs"], "communication": south},
    }
    changes = {f"communication.{key}": value for key, value in communication.items()}
    return evgrid.run(street(pair, {"record.ev": True, **changes}))


@pytest.mark.parametrize("own", [{"delay": "11min"}, {"loss": 0.5}, {"telemetry": "30min"}])
@pytest.mark.parametrize("per_evse", [{}, {"timeout": "3h"}])
def test_each_has_its_own_link(own, per_evse):
    """What one aggregator's link does touches its own EVs alone; they do as if it were the scenario's."""
    plain, one, both = late(**per_evse), late(own, **per_evse), late(**own, **per_evse)
    of = plain["ev_aggregator"].values
    north, others = of == "north", of != "north"
    power = [result["ev_power_kw"].values for result in (plain, one, both)]
    np.testing.assert_array_equal(power[1][:, others], power[0][:, others])
    assert not np.array_equal(power[1][:, north], power[0][:, north])
    if "loss" not in own or not per_evse:
        np.testing.assert_array_equal(power[1][:, north], power[2][:, north])


def test_the_part_of_one_aggregator_reads_like_a_run_of_its_own(pair):
    north = evgrid.of_aggregator(pair, "north")
    assert set(north["session_aggregator"].values) == {"north"}
    assert not [name for name in north.data_vars if name.endswith(("_north", "_south"))]
    xr.testing.assert_equal(north["setpoint_kw"], pair["setpoint_kw_north"].rename("setpoint_kw"))
    net = north["session_energy_delivered_kwh"] - north["session_energy_discharged_kwh"]
    assert float(north["fleet_power_kw"].sum()) / 12 == pytest.approx(float(net.sum()), rel=1e-9)
    parts = [settle(evgrid.of_aggregator(pair, n)).fleet["energy_cost"] for n in ("north", "south")]
    nobody = pair["session_aggregator"].values == ""
    rest = pair["session_cost"].values[nobody].sum()
    assert sum(p.sum() for p in parts) + rest == pytest.approx(settle(pair).fleet["energy_cost"].sum())
    with pytest.raises(evgrid.EvgridError, match="the result has no aggregator west; it has north, south"):
        evgrid.of_aggregator(pair, "west")
    whole = evgrid.run(street({"main": {"strategy": "tou"}}))
    assert evgrid.of_aggregator(whole, "main") is whole


def test_regulation_of_a_part_is_scored_by_its_own_power():
    fast = {"time": {"start": "2026-01-15T20:00", "duration": "2h", "step": "4s"},
            "system": {"regulation": {"source": "synthetic", "step": 4}}}  # fmt: skip
    sells = {"strategy": "regulation", "smoothing": "15min", "evs": {"share": 0.5}}
    result = evgrid.run(
        street(
            {"sells": sells, "rest": {"strategy": "tou"}},
            {"feeder.step": "60s", "communication.telemetry": "60s", "fleet.charger.bidirectional": 1.0},
            **fast,
        )
    )
    assert np.all(evgrid.of_aggregator(result, "sells")["regulation_score"].values[:, 1] > 0.85)


def test_regulation_within_a_limit_may_have_evs_upstream():
    sells = {"strategy": "regulation", "limit_kw": 100, "smoothing": "15min"}
    result = evgrid.run(
        street(
            {"main": sells},
            {"feeder.step": "60s", "communication.telemetry": "60s", "fleet.upstream": 20},
            time={"start": "2026-01-15T20:00", "duration": "10min", "step": "4s"},
            system={"regulation": {"source": "synthetic", "step": 4}},
        )
    )
    assert audit_of(result)["hand_over_kw"] == 0.0


@pytest.mark.parametrize(
    ("aggregators", "message"),
    [
        ({"a": {"strategy": "tou"}, "b": {"strategy": "tou"}},
         "a, b do not say which evs they have: one may, which takes the rest"),
        ({"a": {"strategy": "tou", "evs": {"share": 0.7}}, "b": {"strategy": "tou", "evs": {"share": 0.4}}},
         r"the evs.share of a, b add up to 1.1: must be at most 1"),
        ({"a": {"strategy": "tou", "evs": {}}}, "aggregators.a.evs: give one of share, connections"),
        ({"a": {"strategy": "tou", "evs": {"connections": []}}}, "aggregators.a.evs: .*and no empty list"),
        ({"a": {"strategy": "tou", "evs": {"share": 0}}}, "a.evs.share = 0: must be greater than 0"),
        ({"a-b": {"strategy": "tou"}}, "a-b can't be a name: must be a word of letters, digits and _"),
        ({"a": {"strategy": "tou", "communication": {"telemetry": "7min"}}},
         "a.communication.telemetry = 420s: must be a multiple of time.step = 300s"),
        ({"a": {"strategy": "tou", "evs": {"connections": ["Load R111"]}}},
         "a.evs.connections: the feeder has no connection point Load R111; did you mean Load R1"),
        ({"a": {"strategy": "tou", "evs": {"transformers": ["T9"]}}},
         "a.evs.transformers: the feeder has no transformer T9; it has Trafo R0-R1"),
        ({"a": {"strategy": "tou", "evs": {"vehicles": ["tank"]}}},
         "a.evs.vehicles: the fleet has no vehicle type tank; it has vehicle"),
        ({"a": {"strategy": "tou", "evs": {"share": 0.9}},
          "b": {"strategy": "tou", "evs": {"upstream": False}}},
         r"a and b both have EV ev\d+ of member 0 and \d+ more: an EV has one aggregator"),
        ({"a": {"strategy": "peak_limit", "limit_kw": 9, "evs": {"upstream": True}}},
         "a.strategy = peak_limit: depends on the feeder, and 10 of its EVs are upstream of it; give"),
    ],
)  # fmt: skip
def test_what_is_refused(aggregators, message):
    with pytest.raises(evgrid.ScenarioError, match=message):
        build_world(street(aggregators, {"fleet.upstream": 5}))


def test_more_federates_than_fit_in_a_tick():
    crowd = {f"a{n}": {"strategy": "tou", "evs": {"share": 0.05}} for n in range(14)}
    with pytest.raises(evgrid.EvgridError, match="there are 16 federates: at most 15 fit in a tick"):
        evgrid.run(street(crowd))


MINE = """\
import evgrid


class Mine(evgrid.MemberStrategy):
    def member_setpoints(self, view, member):
        if member == 1 and view.time_s >= 3600:
            return view.p_max[[999]]
        return 0.5 * view.p_max
"""


def test_a_users_strategy_by_member_names_it_where_it_fails(tmp_path):
    (tmp_path / "by_member.py").write_text(MINE)
    message = (
        r"aggregators.main: the strategy raised IndexError: .*\(by_member.py, line 7\) "
        "at 2026-07-01T17:00:00, member 1$"
    )
    own = {"main": {"strategy": "by_member:Mine"}}
    with pytest.raises(evgrid.EvgridError, match=message):
        evgrid.run(street(own, folder=tmp_path))
    one = evgrid.run(street(own, {"ensemble.members": 1}, folder=tmp_path))
    assert float(one["setpoint_kw"].max()) > 0


@pytest.mark.parametrize(
    ("answer", "members", "message"),
    [
        ("1 / 0 if view.time_s >= 3600 else view.p_max", 1,
         r"ZeroDivisionError: .*\(at_once_1.py, line 6\) at 2026-07-01T17:00:00, member 0$"),
        ("1 / 0", 2, r"\(at_once_2.py, line 6\) .*, members 0 to 1 at once \(an evgrid.MemberStrategy"),
        # what a library raises is told with the line of the user's own file
        ("np.zeros(2).reshape(3)", 3, r"ValueError: .*\(at_once_3.py, line 6\) .*members 0 to 2"),
    ],
)  # fmt: skip
def test_a_users_strategy_over_all_members_names_them(tmp_path, answer, members, message):
    (tmp_path / f"at_once_{members}.py").write_text(
        "import evgrid\nimport numpy as np\n\nclass Mine(evgrid.Strategy):\n    def setpoints(self, view):\n"
        f"        return {answer}\n"
    )
    own = {"main": {"strategy": f"at_once_{members}:Mine"}}
    with pytest.raises(evgrid.EvgridError, match=message):
        evgrid.run(street(own, {"ensemble.members": members}, folder=tmp_path))


def test_a_member_strategy_of_the_wrong_length(tmp_path):
    (tmp_path / "by_member_few.py").write_text(MINE.replace("0.5 * view.p_max", "view.p_max[:3]"))
    own = {"main": {"strategy": "by_member_few:Mine"}}
    with pytest.raises(evgrid.EvgridError, match=r"shape \(3,\): must be \(30,\), one set-point .*member 0"):
        evgrid.run(street(own, folder=tmp_path))
