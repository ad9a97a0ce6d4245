"""DER controls of a charging station: which is in force, by which curve, and what the EVSE does then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ocpp")

from tests.ocpp.test_stations import minutes, profile, run
from tests.support.csms import SmallCsms

from evgrid.ocpp.der_controls import DerControls
from evgrid.ocpp.messages import Times
from evgrid.ocpp.schemas import CALL, fault
from evgrid.scenario.inverter_functions import VOLT_VAR, WATT_VAR, LocalFunctions

TIMES = Times(np.datetime64("2026-01-15T00:00:00"))
OWN = LocalFunctions(volt_var="ieee_1547_a", nominal_hz=50)


def control(kind: str, name: str = "a", default: bool = True, **content: Any) -> dict[str, Any]:
    place = {"FixedVar": "fixedVar", "FreqDroop": "freqDroop", "LimitMaxDischarge": "limitMaxDischarge"}
    content = {"priority": 5, **content}
    payload = {
        "isDefault": default,
        "controlId": name,
        "controlType": kind,
        place.get(kind, "curve"): content,
    }
    assert fault(CALL, "SetDERControl", payload, "2.1") is None
    return payload


def curve(unit: str, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"yUnit": unit, "curveData": [{"x": x, "y": y} for x, y in points], **more}


def test_curves_are_those_of_the_scenario() -> None:
    der = DerControls(OWN, TIMES, frequency=True)
    assert der.functions(0.0) is OWN
    volt_var = curve("PctMaxVar", (92, 44), (98, 0), (102, 0), (108, -44), responseTime=5)
    assert der.set(control("VoltVar", **volt_var), 0.0) == ("Accepted", None, [])
    found = der.functions(0.0)
    assert found is not None
    assert found.volt_var == VOLT_VAR["ieee_1547_b"]
    watt_var = curve("PctMaxVar", (-100, 44), (-50, 0), (50, 0), (100, -44), responseTime=10)
    assert der.set(control("WattVar", "w", priority=4, **watt_var), 0.0)[0] == "Accepted"
    found = der.functions(0.0)
    assert found is not None
    assert (found.volt_var, found.watt_var) == (None, WATT_VAR["ieee_1547_b"])
    limit = curve("PctMaxW", (106, 100), (110, 0), reactivePowerParams={"vRef": 98})
    assert der.set(control("VoltWatt", "v", **limit), 0.0)[0] == "Accepted"
    droop = {"overFreq": 50.2, "underFreq": 49.8, "overDroop": 0.05, "underDroop": 0.04, "responseTime": 2}
    assert der.set(control("FreqDroop", "f", **droop), 0.0)[0] == "Accepted"
    found = der.functions(0.0)
    assert found is not None
    assert found.volt_watt.points == ((1.0388, 100), (1.078, 0))
    watt = found.frequency_watt
    assert (watt.droop_over, watt.droop_under, watt.deadband_hz, watt.response_s) == (0.05, 0.04, 0.2, 2)
    assert der.clear({"isDefault": True, "controlId": "w"}) == "Accepted"
    assert der.clear({"isDefault": True, "controlId": "w"}) == "NotFound"
    found = der.functions(0.0)
    assert found is not None
    assert found.volt_var == VOLT_VAR["ieee_1547_b"]


def test_a_scheduled_control_holds_in_its_time_and_by_its_priority() -> None:
    der = DerControls(None, TIMES)

    def limit(name: str, percent: float, **content: Any) -> tuple[str, list[str]]:
        payload = control("LimitMaxDischarge", name, pctMaxDischargePower=percent, **content)
        payload["isDefault"] = name == "default"
        status, _, below = der.set(payload, 0.0)
        return status, below

    assert limit("default", 80.0) == ("Accepted", [])
    assert limit("low", 50.0, startTime=TIMES.stamp(60.0), duration=120) == ("Accepted", [])
    assert limit("high", 20.0, priority=1, startTime=TIMES.stamp(120.0), duration=30) == ("Accepted", ["low"])
    shares = [der.discharge_share(time_s) for time_s in (0, 59, 60, 119, 120, 149, 150, 179, 180)]
    assert shares == [0.8, 0.8, 0.5, 0.5, 0.2, 0.2, 0.5, 0.5, 0.8]
    assert [der.starts_and_stops(time_s) for time_s in (0, 60, 120, 130, 150, 180)] == [
        [], [("low", True)], [("low", False), ("high", True)], [], [("high", False), ("low", True)],
        [("low", False)],
    ]  # fmt: skip
    report = der.report({"requestId": 1, "isDefault": False})
    assert report is not None
    assert [(one["id"], one["isSuperseded"]) for one in report["limitMaxDischarge"]] == [
        ("low", True), ("high", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "status", "text"),
    [
        (control("HVMustTrip", **curve("Not_Applicable", (110, 2))), "NotSupported", ""),
        (control("VoltVar", **curve("PctVarAvail", (92, 44), (108, -44))), "Rejected", "must be PctMaxVar"),
        (control("VoltVar", **curve("PctMaxVar", (92, -44), (108, 44))), "Rejected", "must not rise"),
        (control("VoltVar", **curve("PctMaxVar", (92, 44))), "Rejected", "1 points: must be from 2 to 8"),
        (control("VoltVar", **curve("PctMaxVar", (9, 4), (10, 0), hysteresis={})), "Rejected", "hysteresis"),
        (control("FixedVar", setpoint=10, unit="PctMaxW"), "Rejected", "must be PctMaxVar"),
        (control("FixedVar", setpoint=10, unit="PctMaxVar", duration=5), "Rejected", "neither startTime"),
        (control("LimitMaxDischarge", pctMaxDischargePower=101), "Rejected", "must be from 0 to 100"),
        (control("FreqDroop", overFreq=50.2, underFreq=49.9, overDroop=0.05, underDroop=0.05, responseTime=1),
         "Rejected", "must be as far from 50 Hz"),
        ({"isDefault": True, "controlId": "a", "controlType": "VoltVar"}, "Rejected", "needs curve"),
    ],
)  # fmt: skip
def test_what_is_no_control_is_refused(payload: dict[str, Any], status: str, text: str) -> None:
    der = DerControls(OWN, TIMES, frequency=True)
    got, refusal, _ = der.set(payload, 0.0)
    assert got == status
    assert text in (refusal.text if refusal is not None else "")
    assert (refusal is None) == (status == "NotSupported")
    assert len(der) == 0


def test_without_functions_or_frequency() -> None:
    fixed, droop = control("FixedVar", setpoint=10, unit="PctMaxVar"), control(
        "FreqDroop", overFreq=50.2, underFreq=49.8, overDroop=0.05, underDroop=0.05, responseTime=1
    )  # fmt: skip
    assert DerControls(None, TIMES).set(fixed, 0.0)[0] == "NotSupported"
    assert DerControls(OWN, TIMES).set(droop, 0.0)[0] == "NotSupported"


def test_an_evse_follows_controls_and_reactive_set_points(small: Callable[..., Any]) -> None:
    """EV two has 7.4 kVA: 44 % injected are -3.256 kvar; then 1 kvar is drawn; then nothing."""
    answers = []

    async def script(csms: SmallCsms, step: int) -> None:
        two = csms.peers["two"]
        if step == 1:
            limit = profile(csms, "two", {"limit": 3000.0})
            fixed = control("FixedVar", setpoint=44.0, unit="PctMaxVar")
            answers.append((await two.request("SetChargingProfile", limit))["status"])
            answers.append((await two.request("SetDERControl", fixed))["status"])
            answers.append((await two.request("GetDERControl", {"requestId": 3}))["status"])
        elif step == 5:
            period = {"operationMode": "CentralSetpoint", "setpoint": -3000.0, "setpointReactive": 1000.0}
            answers.append((await two.request("SetChargingProfile", profile(csms, "two", period)))["status"])
            limit = control("LimitMaxDischarge", "l", pctMaxDischargePower=25.0)
            answers.append((await two.request("SetDERControl", limit))["status"])
        elif step == 10:
            for name in ("a", "l"):
                cleared = await two.request("ClearDERControl", {"isDefault": True, "controlId": name})
                answers.append(cleared["status"])
            answers.append((await two.request("ClearChargingProfile", {"chargingProfileId": 1}))["status"])

    fleet = {
        "sessions": {"file": "sessions.csv"},
        "charger": {"phases": 3, "power_kw": 11, "functions": {"nominal_hz": 50}},
    }
    with SmallCsms(script) as csms:
        result, *_ = run(small(time=minutes(15), fleet=fleet), csms)
    assert csms.wrong == []
    assert answers == ["Accepted"] * 8
    (report,) = csms.of("two", "ReportDERControl")
    assert report["fixedVar"][0]["fixedVar"]["setpoint"] == 44.0
    reactive = result["fleet_reactive_kvar"].values.reshape(3, -1)[:, 0]
    assert reactive == pytest.approx([-3.256 * 4 / 5, 1.0, 0.0], abs=1e-6)
    power = result["ev_power_kw"].values[:, list(result["ev_name"].values).index("two")]
    assert power[1] == pytest.approx(-0.25 * 7.4, abs=1e-3)
