"""The port sheet's values as fields of messages, by hand and there and back; every version."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ocpp")

from evgrid.ocpp.messages import (
    Needs,
    Reading,
    Times,
    charging_needs,
    needs_of,
    profile_from,
    profile_to,
    reading_of,
    sampled_values,
    setpoint_profile,
)
from evgrid.ocpp.schemas import CALL, VERSIONS, MessageError, Version, fault, known, message_of, text_of

START = np.datetime64("2026-07-15T12:00:00")
POWERS = st.floats(-1e4, 1e4)
VERSION = st.sampled_from(VERSIONS)


@pytest.mark.parametrize(
    ("zone", "stamp"),
    [
        (None, "2026-07-15T12:01:30.250Z"),
        ("Europe/Berlin", "2026-07-15T12:01:30.250+02:00"),
        ("America/St_Johns", "2026-07-15T12:01:30.250-02:30"),
    ],
)
def test_a_time_is_stamped_in_the_local_time_of_the_run(zone: str | None, stamp: str) -> None:
    times = Times(START, zone)
    assert times.stamp(90.25) == stamp
    assert times.seconds(stamp) == 90.25


def test_a_stamp_of_another_zone_is_the_same_instant() -> None:
    times = Times(START, "Europe/Berlin")
    assert times.seconds("2026-07-15T10:00:05Z") == times.seconds("2026-07-15T06:00:05-04:00") == 5.0
    assert times.local_seconds("2026-07-15T12:00:05Z") == 5.0


@given(st.floats(-1e8, 1e8))
def test_stamps_are_to_the_millisecond(time_s: float) -> None:
    times = Times(START, "Asia/Kolkata")
    assert times.seconds(times.stamp(time_s)) == pytest.approx(time_s, abs=0.0005001)


def _meter_values(values: list[dict[str, object]], version: Version) -> tuple[str, dict[str, object]]:
    value = {"timestamp": Times(START).stamp(0.0), "sampledValue": values}
    if version == "1.6":
        return "MeterValues", {"connectorId": 1, "meterValue": [value]}
    return "MeterValues", {"evseId": 1, "meterValue": [value]}


@given(
    VERSION, st.floats(0, 1e6), st.floats(0, 1e6), POWERS, st.floats(0, 1), POWERS.map(abs), POWERS.map(abs),
    st.floats(0, 1e4), st.floats(0, 1e7), st.sampled_from([1, 3]),
)  # fmt: skip
def test_a_reading_comes_back(
    version: Version, drawn: float, given_kwh: float, power: float, soc: float, most: float, least: float,
    needed: float, time: float, phases: int,
) -> None:  # fmt: skip
    reading = Reading(drawn, given_kwh, power, soc, most, -least, needed, time, phases)
    values = sampled_values(reading, version)
    assert fault(CALL, *_meter_values(values, version), version) is None
    got = reading_of(values, version)
    for name in ("import_kwh", "export_kwh", "power_kw", "soc", "p_max_kw"):
        assert getattr(got, name) == pytest.approx(getattr(reading, name), rel=1e-15, abs=1e-300)
    if version == "2.1":
        for name in ("p_min_kw", "energy_needed_kwh", "time_needed_s"):
            assert getattr(got, name) == pytest.approx(getattr(reading, name), rel=1e-15, abs=1e-300)
    else:
        assert got.p_min_kw is got.energy_needed_kwh is got.time_needed_s is None
    assert got.phases == phases


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([{"value": 1.0, "measurand": "SoC"}], "Energy.Active.Import.Register is missing"),
        ([{"value": math.inf}], "must be a finite number"),
        ([{"value": 5.0, "unitOfMeasure": {"unit": "J"}}], "is in J: must be in Wh, kWh, W or kW"),
        ([{"value": 5.0}, {"value": 1.0, "phase": "L1"}], "is 5, but its phases sum to 1"),
    ],
)
def test_a_wrong_reading_is_refused(values: list[dict[str, object]], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        reading_of(values, "2.1")


def test_multipliers_and_phases_are_read() -> None:
    values = [
        {"value": 1.5, "phase": phase, "unitOfMeasure": {"unit": "Wh", "multiplier": 3}}
        for phase in ("L1", "L2", "L3")
    ] + [{"value": 2.0, "measurand": "Power.Active.Export", "unitOfMeasure": {"unit": "kW"}}]
    reading = reading_of(values, "2.1")
    assert (reading.import_kwh, reading.export_kwh, reading.power_kw, reading.phases) == (4.5, 0.0, -2.0, 3)


@pytest.mark.parametrize("phases", [1, 3])
@pytest.mark.parametrize("discharge_kw", [0.0, 7.4])
@pytest.mark.parametrize("dc", [False, True])
def test_needs_come_back(phases: int, discharge_kw: float, dc: bool) -> None:
    times = Times(START)
    needs = Needs(3600.25, 31.25, 11.5, discharge_kw, 3 if dc else phases, dc)
    payload = charging_needs(needs, "2.1", times)
    request = {"evseId": 1, "chargingNeeds": payload}
    assert fault(CALL, "NotifyEVChargingNeeds", request, "2.1") is None
    assert needs_of(payload, times) == needs


def test_needs_of_2_0_1_are_whole_and_without_discharge() -> None:
    times = Times(START)
    payload = charging_needs(Needs(60.0, 10.0004, 11.04, 7.4, 3), "2.0.1", times)
    assert fault(CALL, "NotifyEVChargingNeeds", {"evseId": 1, "chargingNeeds": payload}, "2.0.1") is None
    assert needs_of(payload, times) == Needs(60.0, 10.0, 11.04, 0.0, 3)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("power_kw", [0.0, 0.3, 3.7123456789, 22.0])
def test_a_set_point_is_a_profile_of_each_version(version: Version, power_kw: float) -> None:
    profile = setpoint_profile(power_kw, 7, "12", version, valid_to="2026-07-15T12:05:00.000Z")
    sent = profile_to(profile, version)
    place, name = ("connectorId", "csChargingProfiles") if version == "1.6" else ("evseId", "chargingProfile")
    assert fault(CALL, "SetChargingProfile", {place: 1, name: sent}, version) is None
    got = profile_from(sent, version)
    (period,) = got["chargingSchedule"][0]["chargingSchedulePeriod"]
    assert period["limit"] == pytest.approx(power_kw * 1e3, abs=0.05 if version == "1.6" else 5e-7)
    assert {**got, "chargingSchedule": []} == {**profile, "chargingSchedule": []}


def test_a_set_point_of_an_ev_that_may_discharge() -> None:
    profile = setpoint_profile(-3.5, 7, "t", "2.1", discharge=True)
    (period,) = profile["chargingSchedule"][0]["chargingSchedulePeriod"]
    assert period == {"startPeriod": 0, "setpoint": -3500.0, "operationMode": "CentralSetpoint"}
    with pytest.raises(ValueError, match=r"OCPP 2.0.1 has no operationMode, setpoint"):
        profile_to(profile, "2.0.1")
    with pytest.raises(ValueError, match="is no charging profile"):
        setpoint_profile(math.inf, 7, "t", "2.1")


@pytest.mark.parametrize(
    ("text", "code", "unique_id"),
    [
        ("{", "RpcFrameworkError", "-1"),
        ("{}", "RpcFrameworkError", "-1"),
        ("[2]", "RpcFrameworkError", "-1"),
        ('[2,"a","Heartbeat",NaN]', "RpcFrameworkError", "-1"),
        ('[2,"a","Heartbeat"]', "RpcFrameworkError", "a"),
        ('[2,"a",3,{}]', "RpcFrameworkError", "a"),
        ('[7,"a",{}]', "MessageTypeNotSupported", "a"),
        ('[[],"a",{}]', "MessageTypeNotSupported", "a"),
        ('[3,"a",{"x":1e999}]', "RpcFrameworkError", "-1"),
        ("[" * 100_000, "RpcFrameworkError", "-1"),
    ],
)
def test_what_is_no_message_is_refused(text: str, code: str, unique_id: str) -> None:
    with pytest.raises(MessageError) as caught:
        message_of(text)
    assert (caught.value.code, caught.value.unique_id) == (code, unique_id)


def test_payloads_are_checked_by_the_schemas() -> None:
    message = [2, "a", "Heartbeat", {}]
    assert message_of(text_of(message)) == message
    assert fault(CALL, "Heartbeat", {}, "2.1") is None
    for payload, code in (
        ({}, "OccurrenceConstraintViolation"),
        ({"evseId": "1"}, "OccurrenceConstraintViolation"),
        ({"x": 1, "requestId": 1}, "FormatViolation"),
        ({"requestId": "1"}, "TypeConstraintViolation"),
        ({"requestId": 1, "controlType": "None"}, "PropertyConstraintViolation"),
    ):
        found = fault(CALL, "GetDERControl", payload, "2.1")
        assert found is not None
        assert found.code == code, found
    assert [known("SetDERControl", version) for version in VERSIONS] == [True, False, False]
    assert not known("../schemas/Heartbeat", "2.1")
    with pytest.raises(ValueError, match="Out of range"):
        text_of([3, "a", {"value": math.nan}])


@pytest.mark.parametrize(
    ("kind", "start", "found"),
    [
        ("Absolute", None, "Relative"),
        ("Absolute", "2026-07-15T12:00:00Z", "Absolute"),
        ("Recurring", None, "Recurring"),
    ],
)
def test_a_schedule_of_1_6_without_a_start_begins_with_the_transaction(
    kind: str, start: str | None, found: str
) -> None:
    schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6.0}]}
    if start is not None:
        schedule["startSchedule"] = start
    profile = {
        "chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "TxProfile",
        "chargingProfileKind": kind, "chargingSchedule": schedule,
    }  # fmt: skip
    assert profile_from(profile, "1.6")["chargingProfileKind"] == found


@pytest.mark.parametrize("text", ["noon", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_another_clock_that_cannot_be_kept_to_is_refused(text: str) -> None:
    times = Times(START)
    with pytest.raises(ValueError, match="must be a date and time of the years 1970 to 2190"):
        times.align(text, 0.0)
    assert times.stamp(0.0) == "2026-07-15T12:00:00.000Z"


def test_another_clock_counts_by_its_offset() -> None:
    times = Times(START)
    times.align("2027-03-01T12:00:00.1234567+05:30", 60.0)
    assert times.stamp(60.0) == "2027-03-01T06:30:00.123Z"
    assert times.seconds("2027-03-01T01:31:00.123456-05:00") == pytest.approx(120.0)


def test_limits_of_1_6_are_multiples_of_a_tenth() -> None:
    def request(limit: float) -> dict[str, object]:
        periods = [{"startPeriod": 0, "limit": limit}]
        profile = {
            "chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile",
            "chargingProfileKind": "Relative",
            "chargingSchedule": {"chargingRateUnit": "A", "chargingSchedulePeriod": periods},
        }  # fmt: skip
        return {"connectorId": 1, "csChargingProfiles": profile}

    assert all(fault(CALL, "SetChargingProfile", request(n / 10), "1.6") is None for n in range(700))
    assert fault(CALL, "SetChargingProfile", request(0.25), "1.6") is not None
