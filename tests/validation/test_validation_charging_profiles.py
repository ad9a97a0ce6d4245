"""Charging profiles by the rules of OCPP, case by case: see charging_profiles/case.yaml."""

from pathlib import Path

import pytest

pytest.importorskip("ocpp")

from tests.support.charging_profiles import START, profile_of

from evgrid.ocpp.charging_profiles import ChargingProfiles, Evse, Situation
from evgrid.ocpp.messages import Times
from evgrid.ocpp.schemas import CALL, fault
from evgrid.scenario.fields import read_yaml

FOLDER = Path(__file__).parent / "charging_profiles"
CASE = read_yaml(FOLDER / "case.yaml")
CASES = read_yaml(FOLDER / "cases.yaml")["cases"]
EVSE = {"phases": 3, "charge_kw": 22.0, "discharge_kw": 10.0, "frequency": True}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_charging_profiles(case):
    times = Times(START, case.get("zone"))
    evse = Evse(**(EVSE | case.get("evse", {})))
    profiles = ChargingProfiles(evse, times, old=case.get("version") == "1.6")
    start_s = case.get("transaction", 0)
    now = Situation(
        transaction_id=None if start_s is None else "tx",
        start_s=start_s,
        priority=case.get("priority", False),
        soc=case.get("soc"),
        frequency_hz=case.get("frequency_hz"),
        signal=case.get("signal", 0.0),
        offline_s=case.get("offline"),
    )
    refusals = []
    for number, short in enumerate(case["profiles"], 1):
        profile = profile_of(short, number, times, now.transaction_id)
        evse_id = short.get("evse_id", 0 if short["purpose"].startswith("ChargingStation") else 1)
        request = {"evseId": evse_id, "chargingProfile": profile}
        assert fault(CALL, "SetChargingProfile", request, "2.1") is None
        refusals.append(profiles.set(profile, evse_id, 0.0, now, short.get("source", "CSO")))
    if "refused" in case:
        assert [refusal is None for refusal in refusals[:-1]] == [True] * (len(refusals) - 1)
        assert refusals[-1].code == case["refused"], refusals[-1]
        return
    assert refusals == [None] * len(refusals)
    for time_s, limit, discharge, setpoint in case["at"]:
        allowed = profiles.at(time_s, now)
        got = allowed.limit_kw, allowed.discharge_limit_kw, allowed.setpoint_kw
        for value, expected in zip(got, (limit, discharge, setpoint), strict=True):
            close = None if expected is None else pytest.approx(expected, abs=CASE["tolerance_kw"], rel=0.0)
            assert value == close, (time_s, got)
