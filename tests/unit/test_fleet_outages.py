"""EVs in an outage: they stand still for exactly its time, and return as their EVSEs allow.

One EV of 7 kW at each of two loads of 1 kW, behind lines of their own. It plugs in at 12:00 with an almost
empty battery of 100 kWh, too large to fill.
"""

from __future__ import annotations

import numpy as np
import pandapower as pp
import pytest
from tests.support.nets import two_houses

import evgrid
from evgrid.core.energy_audit import audit
from evgrid.core.model import EVs, Outages, Spans
from evgrid.errors import AuditError
from evgrid.fleet.outages import DeadGridEnergy
from evgrid.runs.simulation import run_with_report
from evgrid.scenario import scenario_from

KW = 7.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet_outages")
    net = two_houses(1.0)
    pp.to_json(net, str(folder / "net.json"))
    head = "ev,connection,arrival,departure,soc_arrival,soc_target,capacity_kwh\n"
    row = "{0},{0},2026-01-15T12:00,2026-01-15T18:00,{1},{2},100\n"
    (folder / "empty.csv").write_text(head + row.format("A", 0.1, 1) + row.format("B", 0.1, 1))
    (folder / "half.csv").write_text(head + row.format("A", 0.5, 0.6) + row.format("B", 0.5, 0.6))
    two_way = head.replace("capacity", "discharge_kw,soc_floor,capacity")
    rows = "".join(row.format(name, 0.5, "0.6,4,0.2") for name in ("A", "B"))
    (folder / "two_way.csv").write_text(two_way + rows)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    def run(outages, step="15min", sessions="empty.csv", **over):
        content = {
            "name": "ev outages",
            "time": {"start": "2026-01-15T12:00", "duration": "3h", "step": step},
            "feeder": {"network": "net.json", "phases": 1, "base_load": {"source": "net"}},
            "fleet": {"sessions": {"file": sessions}, "charger": {"power_kw": KW, "phases": 3}},
            "record": {"ev": True},
            "outages": outages,
        }
        overrides = {name.replace("__", "."): value for name, value in over.items()}
        return run_with_report(scenario_from(content, overrides, folder))

    return run


def a_line(start="21min 30s", duration="65min 12s", out="line LA"):
    return {"start": start, "duration": duration, "out": out}


def energy_kwh(result, ev=0):
    hours = float(np.diff(result["time"].values[:2])[0] / np.timedelta64(1, "h"))
    return result["ev_power_kw"].isel(ev=ev).sum().item() * hours


@pytest.mark.parametrize("step", ["1s", "1min", "15min"])
def test_an_ev_stands_still_for_exactly_the_outage(run, step):
    result, report = run([a_line()], step, feeder__step="15min", time__duration="90min")
    assert energy_kwh(result, 0) == pytest.approx(KW * (1.5 - 65.2 / 60), rel=1e-12)
    assert energy_kwh(result, 1) == pytest.approx(KW * 1.5, rel=1e-12)
    assert result["session_energy_delivered_kwh"].values == pytest.approx(
        [KW * (1.5 - 65.2 / 60), KW * 1.5], rel=1e-12
    )
    assert report.audit["dead_grid_kwh"] == 0.0


@pytest.mark.parametrize("step", ["1min", "15min", "1h"])
def test_delay_and_ramp_are_the_same_at_any_tick(run, step):
    """The EVSE is back 5 min after the return, and on a ramp of 20 min at 5 %, 15 %, ... every 2 min."""
    outages = {"schedule": [a_line()], "restoration": {"delay": "5min", "ramp": "20min"}}
    result, _ = run(outages, step)
    lost_h = (65.2 + 5 + 20 / 2) / 60  # as with a linear ramp
    assert energy_kwh(result) == pytest.approx(KW * (3 - lost_h), rel=1e-12)


def test_evs_return_at_once_or_one_after_the_other(run):
    at_once, _ = run([a_line(out="feeder")], "1min")
    staggered, _ = run({"schedule": [a_line(out="feeder")], "restoration": {"random": "1h"}}, "1min")
    assert (at_once["ev_power_kw"].values[88] == KW).all()
    begins = [
        int(np.flatnonzero(p[22:] > 0)[0]) for p in staggered["ev_power_kw"].transpose("ev", "time").values
    ]
    assert begins[0] != begins[1]
    assert all(86 - 22 <= begin <= 86 + 60 - 22 for begin in begins)
    again, _ = run({"schedule": [a_line(out="feeder")], "restoration": {"random": "1h"}}, "15min")
    for ev in range(2):
        assert energy_kwh(again, ev) == pytest.approx(energy_kwh(staggered, ev), rel=1e-12)


def test_a_new_outage_ends_the_return_from_the_last(run):
    schedule = [a_line("30min", "30min"), a_line("70min", "20min")]
    result, _ = run({"schedule": schedule, "restoration": {"delay": "15min"}})
    assert energy_kwh(result) == pytest.approx(KW * (30 + (180 - 105)) / 60, rel=1e-12)


def test_the_departure_guard_does_not_act_without_supply(run):
    """The set-point 0 of a limit below the base load: only the guard charges, from the last moment on."""
    over = {"aggregators": {"main": {"strategy": "peak_limit", "limit_kw": 0.1}}, "time__duration": "6h"}
    plain, _ = run(None, "1min", "half.csv", **over)
    begins = np.flatnonzero(plain["ev_power_kw"].isel(ev=0).values > 0)[0]
    start = f"{begins - 10}min"
    result, _ = run([a_line(start, "30min")], "1min", "half.csv", **over)
    power = result["ev_power_kw"].transpose("ev", "time").values
    assert (power[0, : begins + 20] == 0).all()
    assert power[0, begins + 20] == pytest.approx(KW)
    assert power[1, begins + 1] == pytest.approx(KW)
    unserved = result["session_energy_unserved_kwh"].values
    assert unserved[0] == pytest.approx(KW * 20 / 60, rel=0.2)
    assert unserved[1] == pytest.approx(0.0, abs=1e-6)


def test_discharging_stops_with_the_supply(run):
    over = {
        "fleet.charger.bidirectional": 1.0,
        "aggregators": {"main": {"strategy": "v2g_peak_shaving", "limit_kw": 0.1}},
        "communication": {"telemetry": "5min"},
    }
    plain, _ = run(None, "5min", "two_way.csv", **over)
    assert (plain["ev_power_kw"].values[6:18] < -0.5).all()
    result, report = run([a_line("30min", "1h")], "5min", "two_way.csv", **over)
    power = result["ev_power_kw"].transpose("ev", "time").values
    assert (power[0, 6:18] == 0).all()
    assert report.audit["dead_grid_kwh"] == 0.0


def test_local_functions_bring_an_evse_back_by_themselves(run):
    """IEEE 1547: 300 s after the return, then a ramp of 300 s; restoration has no effect on it."""
    functions = {"enter_service": {"delay_s": 300, "ramp_s": 300}}
    outages = {"schedule": [a_line("30min", "1h")], "restoration": {"delay": "40min"}}
    for step in ("1min", "5min"):
        result, _ = run(outages, step, fleet__charger__functions=functions)
        expected = KW * (30 + 180 - 90 - 5 - 5 / 2) / 60
        assert energy_kwh(result) == pytest.approx(expected, rel=2e-3), step
    power = (
        run(outages, "1min", fleet__charger__functions=functions)[0]["ev_power_kw"].isel(ev=0).values.ravel()
    )
    assert (power[30:95] == 0).all()
    assert power[96] > 0
    incapable, _ = run(outages, "1min", fleet__charger__functions={**functions, "capable": 0.0})
    assert energy_kwh(incapable) == pytest.approx(KW * (180 - 60 - 40) / 60, rel=1e-9)


def test_a_dead_evse_reports_that_it_can_do_nothing(run):
    """A limit for the whole feeder: while A is dead, B gets all of it."""
    over = {"aggregators": {"main": {"strategy": "peak_limit", "limit_kw": 9.0, "group": "feeder"}},
            "communication": {"telemetry": "1min"}}  # fmt: skip
    result, _ = run([a_line("30min", "60min")], "1min", "half.csv", **over)
    power = result["ev_power_kw"].transpose("ev", "time").values
    assert power[1, 35:85] == pytest.approx(KW, rel=1e-6)
    assert power[:, 20].sum() < 8.0


def test_a_dead_ev_offers_no_reserve(run):
    """Both charge at 7 kW, which they could stop: 14 kW up, and 7 kW while A is dead."""
    over = {"fleet.reserve_horizon": "15min", "communication.telemetry": "5min"}
    result, _ = run([a_line("30min", "40min")], "5min", "half.csv", **over)
    up = result["fleet_reserve_up_kw"].values[0]
    assert up[[2, 4, 15]] == pytest.approx(2 * KW)
    assert up[6:13] == pytest.approx(KW)


def test_coupling_iterated(run):
    over = {"coupling": "iterated", "fleet.charger.functions": {"volt_var": "ieee_1547_b"}}
    result, report = run([a_line("30min", "1h")], "5min", **over)
    power = result["ev_power_kw"].transpose("ev", "time").values
    assert (power[0, 6:18] == 0).all()
    assert power[0, -1] == pytest.approx(KW)
    assert report.audit["dead_grid_kwh"] == 0.0


def test_energy_beyond_what_the_time_with_supply_allows_is_found():
    """An outage of 45 s in a tick of 60 s: 7 kW move 7 * 15 kWs and no more; 0.6 kW more are too many."""
    spans = Spans(np.array([0, 1]), np.array([10.0]), np.array([55.0]))
    none = Spans(np.zeros(1, np.int64), np.zeros(0), np.zeros(0))
    outages = Outages(spans.first, spans.begin_s, spans.end_s, none, np.zeros(0, np.int64), none)
    evs = EVs(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int8), np.array(["a"]))
    found = DeadGridEnergy(outages, evs, 1, np.array([KW]))
    found.add(0.0, 60.0, np.array([[[KW * 15 / 60]]]))
    assert found.kwh.tolist() == [0.0]
    found.add(0.0, 60.0, np.array([[[-KW * 15 / 60 - 0.6]]]))
    assert found.kwh[0] == pytest.approx(0.01, rel=1e-6)
    fleet = {
        name: np.zeros(1)
        for name in ("grid_energy_kwh", "battery_energy_kwh", "loss_kwh", "power_given_kw_sum")
    }
    feeder = {
        name: np.zeros(1)
        for name in ("head_energy_kwh", "base_energy_kwh", "losses_energy_kwh", "ev_energy_kwh",
                     "power_received_kw_sum", "balance_tolerance", "balance_worst", "dead_grid_kwh")
    }  # fmt: skip
    with pytest.raises(AuditError, match="there is power at connection points without supply"):
        audit({**fleet, "dead_grid_kwh": found.kwh}, feeder, [0])


def test_members_with_different_outages_are_the_same_by_themselves(folder):
    content = {
        "name": "members", "ensemble": {"seed": 2, "members": 3},
        "time": {"start": "2026-01-15T12:00", "duration": "4h", "step": "5min"},
        "feeder": {"network": "net.json", "phases": 1},
        "fleet": {"count": 2, "sessions": "workplace", "charger": {"phases": 3}},
        "outages": {"saifi": 3000, "caidi": "15min", "extent": "connections",
                    "restoration": {"random": "5min"}},
    }  # fmt: skip
    together = evgrid.run(scenario_from(content, {}, folder))
    assert together["interruptions"].sum() > 3
    for member in range(3):
        alone = evgrid.run(scenario_from(content, {"ensemble.first": member, "ensemble.members": 1}, folder))
        for name in ("fleet_power_kw", "voltage_pu", "not_served_kwh"):
            assert np.array_equal(together[name].values[member], alone[name].values[0], equal_nan=True), name
