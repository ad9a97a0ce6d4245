# ruff: noqa: E501
"""Runs with a VTN on loopback: events as they come, the record, reports, and a VTN that fails."""

import json
import logging
import sys
import threading

import numpy as np
import pytest
from openadr3.entities.models import Report
from tests.support.openadr import event, moment
from tests.support.vtn import vtn

import evgrid
from evgrid.errors import RunError, ScenarioError
from evgrid.runs.simulation import prepare
from evgrid.scenario import scenario_from

FOLLOW = ["PRICE", "SIMPLE", "ALERT_GRID_EMERGENCY", "DISPATCH_SETPOINT", "IMPORT_CAPACITY_LIMIT", "GHG"]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("EVGRID_VTN_SECRET", "hush")
    with vtn() as running:
        yield running


@pytest.fixture
def content(tmp_path):
    """Two EVs from 18:00 on, in UTC, by quarter hours until 22:00."""
    (tmp_path / "s.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh,capacity_kwh,charge_kw\n"
        "a,Load R11,2026-01-15T17:50,2026-01-16T06:00,11,60,11\n"
        "b,Load R15,2026-01-15T17:50,2026-01-16T06:00,22,60,11\n"
    )
    return {
        "name": "live",
        "time": {"start": "2026-01-15T17:30", "duration": "4h", "step": "5min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "fleet": {"sessions": {"file": "s.csv"}, "charger": {"phases": 3, "power_kw": 11}},
        "aggregators": {"main": {"strategy": "demand_response"}},
        "communication": {"telemetry": "5min"},
        "record": {"step": "5min"},
    }


def live(content, server, tmp_path, **more):
    vtn = {
        "url": server.url,
        "client_id": "me",
        "secret": "EVGRID_VTN_SECRET",
        "every": "5min",
        "record": str(tmp_path / "came.jsonl"),
        **more,
    }
    system = {"openadr": {"vtn": vtn, "timezone": "UTC", "follow": FOLLOW}}
    return scenario_from(content | {"system": system}, folder=tmp_path)


def again(content, tmp_path):
    system = {"openadr": {"file": str(tmp_path / "came.jsonl"), "timezone": "UTC", "follow": FOLLOW}}
    return scenario_from(content | {"system": system}, folder=tmp_path)


LIMIT = event("limit", 18.25, 2, 6, "IMPORT_CAPACITY_LIMIT")
PRICE = event("price", 17, 6, 0.3)
SET_POINT = event("power", 19, 0.5, 9, "DISPATCH_SETPOINT")
NOW = event("alert", 0, 1, "shed", "ALERT_GRID_EMERGENCY", targets=["main"])
NOW["intervals"][0]["intervalPeriod"] = {"start": "0001-01-01T00:00:00Z", "duration": "PT30M"}
NOW["reportDescriptors"] = [
    {"payloadType": name}
    for name in ("USAGE", "DEMAND", "BASELINE", "USAGE_FORECAST", "SIMPLE_LEVEL", "OPT_OUT")
]


def at(result, name, time):
    return float(result[name].isel(member=0).sel(time=f"2026-01-15T{time}", method="ffill"))


def test_events_come_change_and_go_and_the_record_repeats_the_run(content, server, tmp_path):
    """Polled every 5 min from 17:30: the limit comes at 18:00, changes at 18:30, goes at 19:30."""
    server.list(PRICE)
    server.script = {
        6: lambda vtn: vtn.list(PRICE, LIMIT, SET_POINT),
        12: lambda vtn: vtn.list(
            PRICE | {"priority": 1}, event("limit", 18.25, 2, 4, "IMPORT_CAPACITY_LIMIT"), SET_POINT
        ),
        24: lambda vtn: vtn.list(PRICE),
    }
    result = evgrid.run(live(content, server, tmp_path))
    assert [
        at(result, "fleet_power_kw", t) for t in ("18:05", "18:15", "18:25", "18:30", "19:05", "19:25")
    ] == (pytest.approx([22, 6, 6, 4, 4, 4]))
    assert at(result, "fleet_power_kw", "19:35") > 10
    assert float(result["energy_price_per_mwh"].min()) == pytest.approx(300)
    record = [json.loads(line) for line in (tmp_path / "came.jsonl").read_text().splitlines()]
    assert [(given["operation"], given["object"]["id"]) for given in record] == [
        ("CREATE", "price"), ("CREATE", "limit"), ("CREATE", "power"), ("UPDATE", "price"), ("UPDATE", "limit"),
        ("UPDATE", "price"), ("DELETE", "limit"), ("DELETE", "power"),
    ]  # fmt: skip
    assert record[1]["receivedDateTime"] == moment(18)
    repeated = evgrid.run(again(content, tmp_path))
    for name in ("fleet_power_kw", "session_cost", "setpoint_kw", "energy_price_per_mwh"):
        np.testing.assert_array_equal(result[name], repeated[name], err_msg=name)


def test_reports_say_usage_forecast_level_and_who_opted_out(content, server, tmp_path):
    server.list(NOW)
    content["aggregators"]["main"]["opt_out"] = 0.5
    content["time"]["duration"] = "1h"
    more = {"report": "15min", "ven": "street", "token_url": f"{server.url}/auth/token"}
    result = evgrid.run(live(content, server, tmp_path, **more))
    assert {given["clientName"] for given in server.reports} == {"street"}
    reports = [Report.from_raw(given) for given in server.reports]
    assert [report.event_id for report in reports] == ["alert"] * 3
    values = [
        {p["type"]: p["values"][0] for p in given["resources"][0]["intervals"][0]["payloads"]}
        for given in server.reports
    ]
    power = result["fleet_power_kw"].isel(member=0).values
    assert [v["USAGE"] for v in values] == pytest.approx(power.reshape(-1, 3).sum(axis=1)[:3] / 12)
    # at once: from 17:50, 11 kW each
    assert [v["BASELINE"] for v in values] == pytest.approx([0, 22 * 10 / 60, 22 * 15 / 60])
    assert [v["USAGE_FORECAST"] for v in values][:2] == pytest.approx([v["BASELINE"] for v in values][1:])
    assert [v["SIMPLE_LEVEL"] for v in values] == [3, 3, 0]
    assert values[0]["OPT_OUT"] in (0.0, 0.5, 1.0)


def test_a_vtn_that_fails_leaves_the_last_values_and_is_said_once(content, server, tmp_path, caplog):
    server.list(PRICE, LIMIT)
    server.script = {
        8: lambda vtn: setattr(vtn, "status", 500),
        20: lambda vtn: (setattr(vtn, "status", 200), vtn.list(PRICE)),
    }
    with caplog.at_level(logging.WARNING, "evgrid"):
        result = evgrid.run(live(content, server, tmp_path))
    assert at(result, "fleet_power_kw", "18:45") == pytest.approx(6)
    assert at(result, "fleet_power_kw", "19:15") == pytest.approx(22)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "gives no answer at 2026-01-15T18:10:00: HTTPStatusError" in said[0]
    assert said[0].endswith("; the last known values hold")
    assert said[1].endswith("answers again at 2026-01-15T19:10:00")


def test_a_run_that_keeps_to_wall_time_does_not_wait(content, server, tmp_path):
    """The VTN hangs at its third question, and is let go when the run is over."""
    hangs = threading.Event()
    server.list(PRICE, LIMIT)
    server.script = {2: lambda vtn: hangs.wait()}
    content["time"]["speed"] = 20_000
    result = evgrid.run(live(content, server, tmp_path))
    assert not hangs.is_set()
    hangs.set()
    assert at(result, "fleet_power_kw", "18:45") == pytest.approx(6)


def test_a_vtn_that_answers_too_slowly_gives_no_answer(content, server, tmp_path, monkeypatch, caplog):
    """It hangs at its third question for as long as the run lasts, which waits for answers, but not for ever."""
    hangs = threading.Event()
    server.list(PRICE, LIMIT)
    server.script = {
        1: lambda vtn: monkeypatch.setattr("evgrid.system.live.LONGEST_S", 0.1),
        2: lambda vtn: hangs.wait(),
    }
    content["time"]["duration"] = "1h"
    content["time"]["step"] = content["record"]["step"] = content["communication"]["telemetry"] = "15min"
    with caplog.at_level(logging.WARNING, "evgrid"):
        result = evgrid.run(live(content, server, tmp_path, every="15min"))
    hangs.set()
    assert "gives no answer at 2026-01-15T18:00:00: TimeoutError; the last known values hold" in caplog.text
    assert at(result, "fleet_power_kw", "18:15") == pytest.approx(6)


def test_a_record_is_kept_until_the_next_run_begins(content, server, tmp_path):
    (tmp_path / "came.jsonl").write_text("of a run before")
    scenario = live(content, server, tmp_path)
    with prepare(scenario, None):
        assert (tmp_path / "came.jsonl").read_text() == "of a run before"


def test_tokens_are_renewed_and_pages_are_read(content, server, tmp_path):
    many = [event(f"e{k}", 1, 1, 1, "SIMPLE") for k in range(120)]
    server.list(PRICE, *many, LIMIT)
    server.script = {3: lambda vtn: setattr(vtn, "tokens", vtn.tokens + 1)}
    content["time"]["duration"] = "1h"
    result = evgrid.run(live(content, server, tmp_path))
    assert server.tokens == 3
    assert at(result, "fleet_power_kw", "18:25") == pytest.approx(6)


def test_an_event_at_fault_is_said_and_the_others_hold(content, server, tmp_path, caplog):
    server.list(LIMIT, event("odd", 18, 1, 7, "SIMPLE"))
    content["time"]["duration"] = "1h"
    with caplog.at_level(logging.WARNING, "evgrid"):
        result = evgrid.run(live(content, server, tmp_path))
    assert "not followed: event odd: SIMPLE = 7: must be a whole number from 0 to 3" in caplog.text
    assert at(result, "fleet_power_kw", "18:25") == pytest.approx(6)


def test_a_vtn_that_does_not_answer_at_the_begin_ends_the_run(content, server, tmp_path, monkeypatch):
    monkeypatch.setenv("EVGRID_VTN_SECRET", "wrong")
    with pytest.raises(RunError, match=r"at the begin of the run: HTTPStatusError") as caught:
        evgrid.run(live(content, server, tmp_path))
    assert ", line " not in str(caught.value)
    monkeypatch.delenv("EVGRID_VTN_SECRET")
    with pytest.raises(ScenarioError, match="EVGRID_VTN_SECRET: there is no such environment variable"):
        evgrid.run(live(content, server, tmp_path))


@pytest.mark.parametrize(
    ("vtn", "more", "message"),
    [
        ({"url": "http://example.org"}, {}, "must begin with https://, or http:// on this machine"),
        ({"url": "ftp://127.0.0.1"}, {}, "must begin with https://, or http:// on this machine"),
        ({"url": "https://x"}, {"follow": None}, "follow: is required with vtn"),
        ({"url": "https://x"}, {"file": "s.csv"}, "give either file or vtn"),
    ],
)
def test_settings_at_fault(content, tmp_path, vtn, more, message):
    system = {"openadr": {"vtn": vtn, "timezone": "UTC", "follow": FOLLOW, **more}}
    with pytest.raises(ScenarioError, match=message):
        scenario_from(content | {"system": system}, folder=tmp_path)


def test_answers_that_are_none(content, server, tmp_path, monkeypatch):
    server.events = [{"eventName": "without id"}]
    with pytest.raises(RunError, match="begin of the run: ValueError: /events is no list of events"):
        evgrid.run(live(content, server, tmp_path))
    monkeypatch.setattr("evgrid.system.ven._MOST_EVENTS", 50)
    server.list(*(event(f"e{k}", 1, 1, 1, "SIMPLE") for k in range(60)))
    with pytest.raises(RunError, match="/events lists more than 50 events"):
        evgrid.run(live(content, server, tmp_path))


def test_a_report_that_is_not_taken_is_said_once(content, server, tmp_path, caplog):
    server.list(NOW)
    server.takes_reports = False
    content["time"]["duration"] = "1h"
    with caplog.at_level(logging.WARNING, "evgrid"):
        evgrid.run(live(content, server, tmp_path, report="15min", every="2h"))
    said = [r.getMessage() for r in caplog.records if "did not take a report" in r.getMessage()]
    assert len(said) == 1
    assert "HTTPStatusError" in said[0]


def test_without_the_extra_its_name_is_said(content, server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openadr3.api", None)
    with pytest.raises(ScenarioError, match=r"needs the package openadr3: pip install 'evgrid\[openadr\]'"):
        evgrid.run(live(content, server, tmp_path))


def test_one_member_in_one_process(content, server, tmp_path):
    with pytest.raises(ScenarioError, match="a server needs ensemble.members = 1, not 2"):
        live(content | {"ensemble": {"members": 2}}, server, tmp_path)
    from evgrid.runs.simulation import run_with_report

    with pytest.raises(ScenarioError, match="is for runs in one process, without other programs"):
        run_with_report(live(content, server, tmp_path), processes=True)
