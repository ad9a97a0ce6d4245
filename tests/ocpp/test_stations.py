"""The fleet as charging stations, against a small CSMS made with the routing of the package ``ocpp``."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ocpp")

from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from tests.ocpp.conftest import SMALL
from tests.ocpp.test_csms_security import certificate
from tests.support.csms import Payload, SmallCsms, register_kwh

import evgrid
from evgrid.cli import main
from evgrid.errors import RunError, ScenarioError
from evgrid.ocpp import stations
from evgrid.ocpp.connection import Access
from evgrid.ocpp.stations import Settings, run_stations
from evgrid.scenario import Scenario

Make = Callable[..., Scenario]
TWO = {"a": {"strategy": "uncontrolled", "evs": {"share": 0.5}}, "b": {"strategy": "uncontrolled"}}
MINUTE_H = 1.0 / 60.0


def profile(
    csms: SmallCsms, who: str, period: Payload, purpose: str = "TxProfile", number: int = 1, **more: Any
) -> Payload:
    """A request SetChargingProfile for a station."""
    schedule = {"id": 1, "chargingRateUnit": "W", "chargingSchedulePeriod": [{"startPeriod": 0, **period}]}
    made = {
        "id": number, "stackLevel": 0, "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Relative", "chargingSchedule": [schedule],
    }  # fmt: skip
    if purpose == "TxProfile":
        made["transactionId"] = csms.transaction_id(who)
    return {"evseId": 1, "chargingProfile": made | more}


def powers_kw(csms: SmallCsms, who: str) -> dict[str, float]:
    """Mean power of each minute of a station by the time of day at its end, from its registers."""
    found, last = {}, None
    for event in csms.events(who):
        net = np.subtract(*register_kwh(event))
        if event["eventType"] == "Updated":
            found[event["timestamp"][11:16]] = float(net - last) / MINUTE_H
        last = net
    return found


def minutes(number: int) -> dict[str, str]:
    """The time of a run of a number of minutes."""
    return {"start": "2026-01-15T00:00", "duration": f"{number}min", "step": "1min"}


def run(scenario: Scenario, csms: SmallCsms, **settings: Any) -> Any:
    access = Access(csms.url, settings.pop("version", "2.1"), answer_s=settings.pop("answer_s", 10.0))
    return run_stations(scenario, Settings(access, settings.pop("speed", None), **settings))


@pytest.fixture(scope="module")
def talk(small: Make) -> tuple[SmallCsms, dict[str, Any], Any, Any]:
    """A run in which the CSMS tries what it can, minute by minute; what was answered, and the result."""
    answers: dict[str, Any] = {}

    async def script(csms: SmallCsms, step: int) -> None:
        two, one = csms.peers["two"], csms.peers["one"]

        async def ask(name: str, action: str, payload: Payload) -> None:
            answers[name] = await two.request(action, payload)

        if step == 2:
            setpoint = {"operationMode": "CentralSetpoint", "setpoint": -3000.0}
            await ask("set-point", "SetChargingProfile", profile(csms, "two", setpoint))
        elif step == 4:
            limit = {"limit": 2500.0}
            absolute = {"chargingProfileKind": "Absolute"}
            request = profile(csms, "two", limit, "ChargingStationMaxProfile", 2, **absolute)
            request["chargingProfile"]["chargingSchedule"][0]["startSchedule"] = "2026-01-15T00:00:00Z"
            await ask("maximum", "SetChargingProfile", request | {"evseId": 0})
            external = profile(csms, "two", limit, "ChargingStationExternalConstraints", 3)
            await ask("external", "SetChargingProfile", external)
            await ask("composite", "GetCompositeSchedule", {"evseId": 1, "duration": 600})
            await ask("too long", "GetCompositeSchedule", {"evseId": 1, "duration": 10**9})
            await ask(
                "profiles", "GetChargingProfiles", {"requestId": 5, "chargingProfile": {"stackLevel": 0}}
            )
        elif step == 6:
            await ask("clear", "ClearChargingProfile", {"chargingProfileId": 1})
            await ask("clear again", "ClearChargingProfile", {"chargingProfileId": 1})
        elif step == 8:
            await ask("reset", "Reset", {"type": "Immediate"})
        elif step == 12:
            await ask("resume", "Reset", {"type": "ImmediateAndResume"})
        elif step == 14:
            await ask("unknown", "ClearCache", {})
            read = [
                {"component": {"name": "SmartChargingCtrlr"}, "variable": {"name": name}}
                for name in ("RateUnit", "Nothing")
            ]
            await ask("variables", "GetVariables", {"getVariableData": read})
            beat = {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "HeartbeatInterval"}}
            await ask("set", "SetVariables", {"setVariableData": [{**beat, "attributeValue": "300"}]})
            await ask("report", "GetBaseReport", {"requestId": 7, "reportBase": "FullInventory"})
            await ask("trigger", "TriggerMessage", {"requestedMessage": "MeterValues"})
            der = {"isDefault": True, "controlId": "c", "controlType": "VoltVar"}
            await ask("der", "SetDERControl", der)
            await two.socket.send("{no json")
            await two.socket.send('[2,"wrong","Reset",{"type":"Sideways"}]')
        elif step == 16:
            wanted = {"chargingProfileKind": "Dynamic", "dynUpdateInterval": 120}
            setpoint = {"operationMode": "CentralSetpoint", "setpoint": 1000.0}
            await ask("dynamic", "SetChargingProfile", profile(csms, "two", setpoint, number=9, **wanted))
            csms.schedule_update = {"setpoint": 1500.0}
        elif step == 20:
            update = {"chargingProfileId": 9, "scheduleUpdate": {"setpoint": -2000.0}}
            await ask("update", "UpdateDynamicSchedule", update)
        elif step == 9:
            stop = {"transactionId": csms.transaction_id("one")}
            answers["stop"] = await one.request("RequestStopTransaction", stop)
        elif step == 11:
            token = {"idToken": "driver", "type": "Central"}
            answers["start"] = await one.request(
                "RequestStartTransaction", {"evseId": 1, "idToken": token, "remoteStartId": 77}
            )

    with SmallCsms(script) as csms:
        result, _, report = run(small(), csms)
    return csms, answers, result, report


def test_every_message_is_valid_by_the_schemas(talk: Any) -> None:
    csms, _, _, report = talk
    assert {text.split("'")[3] for text in csms.wrong if text.startswith("[4,")} == {
        "NotSupported", "RpcFrameworkError", "PropertyConstraintViolation",
    }  # fmt: skip
    assert [text for text in csms.wrong if not text.startswith("[4,")] == []
    assert (report.stations, report.connected, report.counts.malformed) == (3, 3, 2)
    assert report.clock == "the CSMS (evgrid-clock)"


def test_boot_status_transaction_and_needs_come_in_their_order(talk: Any) -> None:
    csms, *_ = talk
    actions = [action for _, who, action, _ in csms.heard if who == "three"]
    assert actions[:7] == [
        "BootNotification", "StatusNotification", "StatusNotification", "TransactionEvent",
        "NotifyEVChargingNeeds", "TransactionEvent", "TransactionEvent",
    ]  # fmt: skip
    begin, end, again, last = (
        event for event in csms.events("three") if event["eventType"] in ("Started", "Ended")
    )
    assert [begin["timestamp"], end["timestamp"]] == ["2026-01-15T00:10:50.000Z", "2026-01-15T00:15:50.000Z"]
    assert [again["timestamp"], last["timestamp"]] == ["2026-01-15T00:16:10.000Z", "2026-01-15T00:50:00.000Z"]
    assert end["transactionInfo"]["stoppedReason"] == "EVDisconnected"
    assert register_kwh(again) == register_kwh(end)
    (needs, _) = csms.of("three", "NotifyEVChargingNeeds")
    assert needs["chargingNeeds"]["departureTime"] == end["timestamp"]
    assert needs["chargingNeeds"]["requestedEnergyTransfer"] == "AC_single_phase"
    ids: dict[str, list[int]] = {}
    for event in csms.events("three"):
        ids.setdefault(event["transactionInfo"]["transactionId"], []).append(event["seqNo"])
    assert [numbers == list(range(len(numbers))) for numbers in ids.values()] == [True, True]


def test_profiles_are_followed_in_both_directions(talk: Any) -> None:
    csms, answers, *_ = talk
    assert answers["set-point"] == answers["maximum"] == {"status": "Accepted"}
    assert answers["external"]["statusInfo"]["reasonCode"] == "InvalidValue"
    power = powers_kw(csms, "two")
    assert power["00:02"] == pytest.approx(7.4)  # no profile: as fast as it can, once it has been reported
    assert (power["00:03"], power["00:06"]) == pytest.approx((-3.0, -3.0))
    assert answers["clear"] == {"status": "Accepted"}
    assert answers["clear again"] == {"status": "Unknown"}
    assert power["00:07"] == pytest.approx(2.5)  # the station's greatest power is left


def test_composite_schedule_and_reported_profiles(talk: Any) -> None:
    csms, answers, *_ = talk
    schedule = answers["composite"]["schedule"]
    assert schedule["scheduleStart"] == "2026-01-15T00:04:00.000Z"
    assert schedule["chargingSchedulePeriod"] == [
        {"startPeriod": 0, "limit": 2500.0, "operationMode": "CentralSetpoint", "setpoint": -3000.0,
         "dischargeLimit": -7400.0}
    ]  # fmt: skip
    assert answers["too long"]["statusInfo"]["reasonCode"] == "ValueOutOfRange"
    reports = csms.of("two", "ReportChargingProfiles")
    assert {one["id"] for report in reports for one in report["chargingProfile"]} == {1, 2}
    assert [report["tbc"] for report in reports] == [True, False]


def test_a_reset_in_a_transaction_ends_it_and_the_register_goes_on(talk: Any) -> None:
    csms, answers, *_ = talk
    assert answers["reset"] == answers["resume"] == {"status": "Accepted"}
    boots = csms.of("two", "BootNotification")
    assert [boot["reason"] for boot in boots] == ["PowerUp", "RemoteReset", "RemoteReset"]
    ended, started = csms.events("two", "Ended")[0], csms.events("two", "Started")[1]
    assert ended["transactionInfo"]["stoppedReason"] == "ImmediateReset"
    assert started["transactionInfo"]["transactionId"] != ended["transactionInfo"]["transactionId"]
    assert register_kwh(started) == register_kwh(ended)
    resumed = [event for event in csms.events("two") if event["triggerReason"] == "TxResumed"]
    assert [e["transactionInfo"]["transactionId"] for e in resumed] == [csms.transaction_id("two")]
    assert len(csms.events("two", "Started")) == 2


def test_what_is_not_supported_is_said(talk: Any) -> None:
    csms, answers, *_ = talk
    assert answers["unknown"]["error"] == "NotSupported"
    found = answers["variables"]["getVariableResult"]
    assert [one["attributeStatus"] for one in found] == ["Accepted", "UnknownVariable"]
    assert found[0]["attributeValue"] == "A,W"
    assert answers["set"]["setVariableResult"][0]["attributeStatus"] == "Accepted"
    assert answers["der"] == {"status": "NotSupported"}
    assert len(csms.of("two", "NotifyReport")) == len(csms.of("two", "MeterValues")) == 1
    beats = [step for step, who, action, _ in csms.heard if (who, action) == ("two", "Heartbeat")]
    assert len(beats) >= 8  # every five minutes from minute 15 on


def test_dynamic_profiles_are_updated_and_pulled(talk: Any) -> None:
    csms, answers, *_ = talk
    assert answers["dynamic"] == {"status": "Accepted"}
    power = powers_kw(csms, "two")
    assert power["00:17"] == pytest.approx(1.0)
    assert power["00:20"] == pytest.approx(1.5)  # pulled two minutes after it was set
    assert answers["update"] == {"status": "Accepted"}
    assert power["00:21"] == pytest.approx(-2.0)


def test_a_transaction_is_stopped_and_started_remotely(talk: Any) -> None:
    csms, answers, *_ = talk
    assert answers["stop"] == answers["start"] == {"status": "Accepted"}
    first, second = csms.events("one", "Ended")
    assert first["transactionInfo"]["stoppedReason"] == "Remote"
    started = csms.events("one", "Started")[1]
    assert started["transactionInfo"]["remoteStartId"] == 77
    assert started["idToken"]["idToken"] == "driver"
    assert register_kwh(started) == register_kwh(first)
    assert second["timestamp"] == "2026-01-15T00:30:30.000Z"


def test_the_registers_are_the_energy_of_the_result(talk: Any) -> None:
    csms, _, result, _ = talk
    drawn, given = (
        result["session_energy_delivered_kwh"].values,
        result["session_energy_discharged_kwh"].values,
    )
    last = {who: register_kwh(csms.events(who)[-1]) for who in ("one", "two", "three")}
    assert last["one"] == pytest.approx((drawn[0], given[0]), abs=1e-9)
    assert last["two"] == pytest.approx((drawn[1], given[1]), abs=1e-9)
    assert last["three"] == pytest.approx((drawn[2:].sum(), 0.0), abs=1e-9)
    assert given[1] > 0.1


@pytest.mark.parametrize("version", ["2.0.1", "1.6"])
def test_older_versions(small: Make, version: str) -> None:
    answers = []

    async def script(csms: SmallCsms, step: int) -> None:
        if step != 3:
            return
        two = csms.peers["two"]
        if version == "1.6":
            schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6.1}]}
            tx = {
                "chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "TxProfile",
                "chargingProfileKind": "Relative", "chargingSchedule": schedule,
            }  # fmt: skip
            answers.append(
                await two.request("SetChargingProfile", {"connectorId": 1, "csChargingProfiles": tx})
            )
            asked = {"connectorId": 1, "duration": 60, "chargingRateUnit": "A"}
        else:
            answers.append(await two.request("SetChargingProfile", profile(csms, "two", {"limit": 4209.0})))
            asked = {"evseId": 1, "duration": 60, "chargingRateUnit": "A"}
        answers.append(await two.request("GetCompositeSchedule", asked))

    with SmallCsms(script, version) as csms:
        result, *_ = run(
            small(time=minutes(20)),
            csms,
            version=version,
        )
    assert csms.wrong == []
    assert answers[0] == {"status": "Accepted"}
    schedule = answers[1]["chargingSchedule"] if version == "1.6" else answers[1]["schedule"]
    (period,) = schedule["chargingSchedulePeriod"]
    assert float(period.pop("limit")) == pytest.approx(6.1)
    assert period == {"startPeriod": 0, "numberPhases": 3}
    drawn = float(result["session_energy_delivered_kwh"].values[1])
    assert drawn == pytest.approx((2 * 7.4 + 17 * 4.209) / 60.0)  # 6.1 A · 3 · 230 V are 4,209 W
    if version == "1.6":
        stop = csms.of("three", "StopTransaction")[0]
        started = csms.of("three", "StartTransaction")
        assert [one["meterStart"] for one in started] == [0, stop["meterStop"]]
        assert stop["reason"] == "EVDisconnected"


def test_set_points_over_messages_are_those_of_a_loop(small: Make) -> None:
    rng = np.random.default_rng(3)
    wanted = np.round(rng.uniform(-7.0, 11.0, (25, 3)), 3)

    async def script(csms: SmallCsms, step: int) -> None:
        for at, who in enumerate(("one", "two", "three")):
            going_on = len(csms.events(who, "Started")) - len(csms.events(who, "Ended"))
            if step >= 25 or not going_on:
                continue
            kw = float(wanted[step, at])
            period = {"operationMode": "CentralSetpoint", "setpoint": round(kw * 1e3, 6)}
            answer = await csms.peers[who].request("SetChargingProfile", profile(csms, who, period))
            assert answer == {"status": "Accepted"}

    with SmallCsms(script) as csms:
        result, *_ = run(small(time=minutes(25)), csms)
    assert csms.wrong == []
    with evgrid.stepwise(small(time=minutes(25))) as loop:
        for row in wanted:
            loop.step(row)
    for name in ("session_energy_delivered_kwh", "session_energy_discharged_kwh", "session_soc_departure"):
        np.testing.assert_allclose(result[name], loop.result[name], rtol=1e-12, err_msg=name)
    assert float(result["session_energy_discharged_kwh"].sum()) > 0.1


def test_offline_it_goes_on_by_its_profiles_and_sends_the_events_afterwards(small: Make) -> None:
    gone = asyncio.Event()

    async def script(csms: SmallCsms, step: int) -> None:
        if step == 3:
            lasting = {"maxOfflineDuration": 240}
            request = profile(csms, "two", {"limit": 2000.0}, **lasting)
            assert (await csms.peers["two"].request("SetChargingProfile", request))["status"] == "Accepted"
            request = profile(csms, "two", {"limit": 1000.0}, "TxDefaultProfile", 2)
            assert (await csms.peers["two"].request("SetChargingProfile", request))["status"] == "Accepted"
        elif step == 5:  # the stations' connections are lost, and refused; the clock goes on
            csms.refuses = {"one", "two", "three"}
            for who in csms.refuses:
                await csms.peers[who].socket.close()
            gone.set()
        elif step == 20:
            csms.refuses = set()
            while len(csms.of("two", "StatusNotification")) < 1 or not csms.online({"one", "two", "three"}):
                await asyncio.sleep(0.01)

    with SmallCsms(script) as csms:
        result, _, report = run(small(time=minutes(30)), csms)
    assert csms.wrong == []
    assert gone.is_set()
    assert report.counts.lost == 3
    events = csms.events("two")
    assert [event["seqNo"] for event in events] == list(range(len(events)))
    assert len(csms.of("two", "BootNotification")) == 1
    offline = [event["timestamp"][14:16] for event in events if event.get("offline")]
    assert offline[0] == "06"
    assert offline == [f"{minute:02d}" for minute in range(6, 6 + len(offline))]
    assert len(offline) >= 14
    power = powers_kw(csms, "two")
    assert power["00:09"] == pytest.approx(2.0)
    assert (power["00:11"], power["00:20"]) == pytest.approx((1.0, 1.0))  # four minutes offline
    begin = csms.events("one", "Started")[0]
    assert (begin["timestamp"], begin["offline"]) == ("2026-01-15T00:05:30.000Z", True)
    drawn = result["session_energy_delivered_kwh"].values
    assert register_kwh(events[-1])[0] == pytest.approx(float(drawn[1]), abs=1e-9)


def test_a_transaction_of_1_6_that_begins_and_ends_offline_has_its_number(small: Make) -> None:
    async def script(csms: SmallCsms, step: int) -> None:
        if step == 5:
            csms.refuses = {"three"}
            await csms.peers["three"].socket.close()
        elif step == 18:
            csms.refuses = set()
            while len(csms.of("three", "StartTransaction")) < 2:
                await asyncio.sleep(0.01)

    with SmallCsms(script, "1.6") as csms:
        result, *_ = run(small(time=minutes(20)), csms, version="1.6")
    assert csms.wrong == []
    first, second = csms.of("three", "StartTransaction")
    (stop,) = csms.of("three", "StopTransaction")
    numbers = [value.get("transactionId") for value in csms.of("three", "MeterValues")]
    assert stop["transactionId"] == numbers[0] != numbers[-1]
    assert sorted(set(numbers)) == [stop["transactionId"], numbers[-1]]
    drawn = float(result["session_energy_delivered_kwh"].values[2])
    assert (first["meterStart"], second["meterStart"]) == (0, stop["meterStop"])
    assert stop["meterStop"] == pytest.approx(1e3 * drawn, abs=0.5)
    assert stop["timestamp"] == "2026-01-15T00:15:50.000Z"


def test_a_csms_that_never_answers_is_named(small: Make) -> None:
    with SmallCsms() as csms:
        csms.answers = False
        text = rf"could connect to {csms.url} in 0.3 s: .* has not answered BootNotification of \w+ in 0.1 s"
        with pytest.raises(RunError, match=text):
            run(small(), csms, answer_s=0.1, connect_s=0.3)


def test_a_csms_that_answers_no_more_does_not_hold_the_run(small: Make) -> None:
    async def script(csms: SmallCsms, step: int) -> None:
        csms.silent = {"two"} if step >= 3 else set()

    with SmallCsms(script) as csms:
        _, _, report = run(small(time=minutes(10)), csms, answer_s=0.2)
        csms.script, csms.silent = None, set()
        _, _, other = run(small(time=minutes(5)), csms, settle_s=0.0)
    refused = "evgrid-clock is not connected: HTTP 404: unknown identity or path"
    assert other.clock == f"the answers of the CSMS, and 0 s ({refused})"
    assert report.counts.unanswered >= 1
    assert "has not answered TransactionEvent of two in 0.2 s" in report.counts.events["unanswered"]


def test_no_csms_at_all(small: Make) -> None:
    with SmallCsms() as csms:
        url = csms.url
    with pytest.raises(RunError, match=rf"no charging station could connect to {url} in 0.1 s: .*refused"):
        run_stations(small(), Settings(Access(url), None, connect_s=0.1))


def test_a_csms_of_another_version(small: Make) -> None:
    with SmallCsms(version="1.6") as csms, pytest.raises(RunError, match="HTTP 400: .*version of OCPP"):
        run(small(), csms, connect_s=0.3)


def test_in_real_time_it_keeps_to_the_clock_of_the_csms(small: Make) -> None:
    with SmallCsms() as csms:
        csms.current_time = "2027-03-01T17:30:00+05:30"
        _, _, report = run(small(time=minutes(5)), csms, speed=600.0)
    assert csms.wrong == []
    stamps = [event["timestamp"] for event in csms.events("two")]
    assert all(stamp.startswith("2027-03-01T1") for stamp in stamps)
    assert report.clock == "the wall clock"


def test_basic_authentication(small: Make, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("secret\n")
    (tmp_path / "many").write_text("one:secret\ntwo:other\n")
    assert stations.read_station_passwords(tmp_path / "one") == {"": "secret"}
    passwords = stations.read_station_passwords(tmp_path / "many")
    access = Access("ws://localhost", passwords=passwords)
    assert access.headers("two") == {"Authorization": "Basic dHdvOm90aGVy"}
    assert access.headers("three") == {}
    assert "secret" not in repr(access)
    (tmp_path / "bad").write_text("one:secret\nalone\n")
    with pytest.raises(ScenarioError, match="must be one password, or lines of IDENTITY:PASSWORD") as caught:
        stations.read_station_passwords(tmp_path / "bad")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fleet": None, "aggregators": {}}, "has no EVs, so there are no charging stations"),
        ({"ensemble": {"members": 2}}, r"ensemble.members = 2: charging stations are of one member"),
        ({"aggregators": TWO}, "aggregator is not given: must be one of a, b"),
    ],
)  # fmt: skip
def test_what_has_no_charging_stations(small: Make, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ScenarioError, match=text):
        run_stations(small(**changes), Settings(Access("ws://localhost:1"), None))


@pytest.mark.parametrize(
    ("url", "files", "text"),
    [
        ("http://x", {}, "must begin with ws:// or wss://"),
        ("ws://x", {"ca": "a.pem"}, "certificates need wss://"),
        ("wss://x", {"certificate": "a.pem"}, "--cert and --key are given together"),
        ("wss://x", {"ca": "missing.pem"}, "the TLS files of the stations can't be used"),
    ],
)
def test_addresses_and_certificates(url: str, files: dict[str, str], text: str) -> None:
    given = {name: Path(files[name]) if name in files else None for name in ("ca", "certificate", "key")}
    with pytest.raises(ScenarioError, match=text):
        stations.tls_of(url, **given)


def test_certificates(small: Make, tmp_path: Path) -> None:
    """The CSMS's is checked by who signed it, and each station shows its own."""
    own, other = certificate("own"), certificate("other")
    signed = {"csms": certificate("csms", ("own", own[0]), ["127.0.0.1"]), "own": own, "other": other}
    signed |= {name: certificate(name, ("own", own[0])) for name in ("one", "two", "three")}
    for name, (key, made) in signed.items():
        (tmp_path / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        kept = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (tmp_path / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *kept))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "csms.pem", tmp_path / "csms.key")
    context.load_verify_locations(tmp_path / "own.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with SmallCsms(ssl=context) as csms:
        wrong = stations.tls_of(csms.url, tmp_path / "other.pem", None, None)
        with pytest.raises(RunError, match="could connect .* TLS: CERTIFICATE_VERIFY_FAILED"):
            run_stations(small(), Settings(Access(csms.url, tls=wrong), None, connect_s=0.3))
        none = stations.tls_of(csms.url, tmp_path / "own.pem", None, None)
        with pytest.raises(RunError, match="no charging station could connect"):
            run_stations(small(), Settings(Access(csms.url, tls=none), None, connect_s=0.3))
        right = stations.tls_of(csms.url, tmp_path / "own.pem", tmp_path, tmp_path)
        settings = Settings(Access(csms.url, tls=right), None)
        _, _, report = run_stations(small(time=minutes(5)), settings)
        shown = {who: csms.certificates[who] for who in ("one", "two", "three")}
    assert report.connected == 3
    assert shown == {"one": "one", "two": "two", "three": "three"}


@pytest.mark.slow
def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    content = SMALL | {"fleet": {"count": 5}, "aggregators": {"main": {"strategy": "uncontrolled"}}}
    (tmp_path / "small.yaml").write_text(json.dumps(content))
    with SmallCsms() as csms:
        command = ["ocpp", "stations", str(tmp_path / "small.yaml"), "--csms", csms.url, "--speed", "30"]
        with subprocess.Popen(
            [sys.executable, "-m", "evgrid.cli", *command, "-o", str(tmp_path / "result.nc")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            while len(csms.heard) < 15 and process.poll() is None:
                threading.Event().wait(0.05)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "stopped by Ctrl-C; no result was written" in error
    assert not (tmp_path / "result.nc").exists()


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("evgrid.ocpp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ocpp", None)
    done = CliRunner().invoke(main, ["ocpp", "stations", "s.yaml", "--csms", "ws://localhost"])
    assert done.exit_code == 2
    text = "evgrid.ocpp needs the packages ocpp, websockets and fastjsonschema: pip install 'evgrid[ocpp]'"
    assert text in " ".join(done.output.split())
    helped = CliRunner().invoke(main, ["ocpp", "stations", "--help"])
    assert helped.exit_code == 0
