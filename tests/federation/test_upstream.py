"""EVs upstream of the modelled feeder: counted everywhere but in its power flow.

::

    bulk system -+- feeder (15 loads) - EVs
                 |
                 +- upstream ---------- EVs
"""

import numpy as np
import pandapower as pp
import pytest

import evgrid
from evgrid.fleet.sessions.snapshot import write_snapshot
from evgrid.results import audit_of
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from


def street(overrides=None, network="cigre_lv", **sections):
    content = {
        "name": "street",
        "time": {"start": "2026-07-01T16:00", "duration": "6h", "step": "5min"},
        "ensemble": {"members": 2, "seed": 3},
        "feeder": {"network": network, "base_load": {"source": "net"}},
        "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 0.5}},
        "tariff": "pge_ev2a",
        "communication": {"telemetry": "5min"},
        "aggregators": {"main": {"strategy": "tou"}},
        **sections,
    }
    return scenario_from(content, {"fleet.upstream": 100, **(overrides or {})})


@pytest.fixture(scope="module")
def both():
    return evgrid.run(street())


def test_the_feeder_is_the_same_with_and_without_them(both):
    alone = evgrid.run(street({"fleet.upstream": 0}))
    assert "upstream_power_kw" not in alone
    for name in ("voltage_pu", "line_loading", "trafo_loading", "head_power_kw", "losses_kw"):
        np.testing.assert_array_equal(both[name], alone[name], err_msg=name)
    below = both["fleet_power_kw"] - both["upstream_power_kw"]
    np.testing.assert_allclose(below, alone["fleet_power_kw"], atol=1e-9)
    own = both.sel(session=both["session_connection"] != "upstream")
    for name in ("session_energy_delivered_kwh", "session_cost", "session_soc_departure"):
        np.testing.assert_array_equal(own[name], alone[name], err_msg=name)


def test_their_energy_is_audited_and_counted(both):
    audit = audit_of(both)
    assert audit["hand_over_kw"] == 0.0
    assert audit["conversion_relative"] <= 1e-9
    up = both["session_connection"].values == "upstream"
    assert 0 < up.sum() < len(up)
    assert set(both["ev_connection"].values[30:130]) == {"upstream"}
    net = both["session_energy_delivered_kwh"] - both["session_energy_discharged_kwh"]
    hours = 5 / 60
    assert float(both["upstream_power_kw"].sum()) * hours == pytest.approx(net.values[up].sum(), rel=1e-9)
    assert float(both["fleet_power_kw"].sum()) * hours == pytest.approx(net.values.sum(), rel=1e-9)


def test_a_member_alone_equals_itself_in_an_ensemble(both):
    alone = evgrid.run(street({"ensemble.members": 1, "ensemble.first": 1}))
    for name in ("upstream_power_kw", "fleet_power_kw", "setpoint_kw", "head_power_kw"):
        np.testing.assert_array_equal(alone[name].values[0], both[name].values[1], err_msg=name)


def test_the_bulk_system_feels_them():
    fast = {"time": {"start": "2026-07-01T18:00", "duration": "10min", "step": "1s"},
            "communication": {"telemetry": "60s"}, "aggregators": {},
            "system": {"frequency": {"source": "lfc", "base_mw": 10}}}  # fmt: skip
    runs = [evgrid.run(street({"fleet.upstream": n, "feeder.step": "60s"}, **fast)) for n in (0, 100)]
    felt = [float(np.abs(run["area_fleet_mw"]).max()) for run in runs]
    assert felt[1] > felt[0]


def test_their_evses_see_nominal_voltage():
    functions = {"volt_var": {"points": [[0.9, 44], [0.98, 44], [0.999, 0], [1.001, 0]], "response_s": "1s"}}
    settings = {"fleet.charger.functions": functions, "fleet.charger.apparent_kva": 10}
    with_both = evgrid.run(street(settings))
    alone = evgrid.run(street({**settings, "fleet.upstream": 0}))
    assert float(np.abs(alone["fleet_reactive_kvar"]).max()) > 1
    np.testing.assert_allclose(with_both["fleet_reactive_kvar"], alone["fleet_reactive_kvar"], atol=1e-9)


def test_sessions_of_a_file_may_be_upstream(tmp_path):
    world = build_world(street())
    path = write_snapshot(
        tmp_path / "t.parquet", world.scenario, world.connections, world.evs, world.sessions
    )
    replayed = {"fleet": {"sessions": {"file": str(path)}, "charger": {"power_kw": 7.4, "phases": 3}}}
    np.testing.assert_array_equal(
        evgrid.run(street({"fleet.upstream": 0}, **replayed))["upstream_power_kw"],
        evgrid.run(street())["upstream_power_kw"],
    )
    with pytest.raises(evgrid.ScenarioError, match="upstream has no meaning with a session file"):
        street(**replayed)


def test_a_load_of_that_name_stands_in_the_way(tmp_path, small_net):
    net = small_net(False)
    net.load.loc[0, "name"] = "upstream"
    pp.to_json(net, str(tmp_path / "net.json"))
    network = str(tmp_path / "net.json")
    with pytest.raises(evgrid.ScenarioError, match=r"fleet.upstream = 100: a load .* is named upstream"):
        build_world(street(network=network))
    assert not build_world(street({"fleet.upstream": 0}, network=network)).connections.upstream
    with pytest.raises(evgrid.ScenarioError, match="fleet.at: the feeder has no connection point upstream"):
        build_world(street({"fleet.at": "upstream"}))
