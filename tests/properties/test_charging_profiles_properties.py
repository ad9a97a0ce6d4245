"""Charging profiles: order, bounds, expiry and the composite schedule, of any profiles and both signs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("ocpp")

from tests.support.charging_profiles import START, profile_of

from evgrid.ocpp.charging_profiles import Allowed, ChargingProfiles, Evse, Situation
from evgrid.ocpp.messages import Times

TIMES = Times(START)
EVSE = Evse(phases=3, charge_kw=22.0, discharge_kw=11.0)
WATTS = st.integers(0, 20000)
SECONDS = st.integers(-3600, 600) | st.floats(-200, 600).map(lambda s: round(s, 3))
BOUNDS = st.sampled_from(["ChargingStationMaxProfile", "ChargingStationExternalConstraints"])
TX = st.sampled_from(["TxProfile", "TxDefaultProfile", "PriorityCharging"])


@st.composite
def periods(draw: st.DrawFn, purpose: str) -> list[dict[str, Any]]:
    modes = ["ChargingOnly"]
    if purpose in ("TxProfile", "TxDefaultProfile"):
        modes += ["CentralSetpoint", "Idle"]
    elif purpose == "ChargingStationExternalConstraints":
        modes += ["ExternalLimits"]
    made = []
    for begin in [0, *sorted(draw(st.sets(st.integers(1, 300), max_size=3)))]:
        mode = draw(st.sampled_from(modes))
        period: dict[str, Any] = {"startPeriod": begin, "operationMode": mode}
        if mode == "ChargingOnly" or (mode != "Idle" and draw(st.booleans())):
            period["limit"] = draw(WATTS)
        if mode in ("CentralSetpoint", "ExternalLimits") and draw(st.booleans()):
            period["dischargeLimit"] = -draw(WATTS)
        if mode == "CentralSetpoint":
            period["setpoint"] = draw(st.integers(-20000, 20000))
        made.append(period)
    return made


@st.composite
def profiles(draw: st.DrawFn, purposes: st.SearchStrategy[str]) -> dict[str, Any]:
    purpose = draw(purposes)
    kinds = ["Absolute", "Recurring", "Dynamic"]
    if purpose != "ChargingStationMaxProfile":
        kinds.append("Relative")
    kind = draw(st.sampled_from(kinds))
    short: dict[str, Any] = {"purpose": purpose, "kind": kind, "unit": draw(st.sampled_from("WA"))}
    short["periods"] = draw(periods(purpose))
    if kind == "Dynamic":
        short["periods"] = short["periods"][:1]
    if kind != "Relative":
        short["start"] = draw(SECONDS)
    if kind == "Recurring":
        short["recurrency"] = draw(st.sampled_from(["Daily", "Weekly"]))
        short["start"] -= 86400 * draw(st.integers(0, 8))
    if purpose != "PriorityCharging" and draw(st.booleans()):
        short["duration"] = draw(st.integers(1, 500))
    if draw(st.booleans()):
        short["from"] = draw(SECONDS)
    if draw(st.booleans()):
        short["to"] = max(short.get("from", -1e9), draw(SECONDS)) + 1
    if purpose == "ChargingStationExternalConstraints":
        short["source"] = draw(st.sampled_from(["SO", "EMS"]))
    return short


ANY = st.lists(profiles(BOUNDS | TX | st.just("LocalGeneration")), max_size=6)
OF_BOUNDS = st.lists(profiles(BOUNDS), min_size=1, max_size=3)
NOW = st.builds(
    Situation, st.just("tx"), st.floats(-300, 300).map(lambda s: round(s, 3)), st.booleans(),
    offline_s=st.none() | st.just(0.0),
)  # fmt: skip


def installed(
    shorts: list[dict[str, Any]], now: Situation, order: list[int] | None = None
) -> ChargingProfiles:
    """The profiles, each of a stack level of its own, installed in an order."""
    made = ChargingProfiles(EVSE, TIMES)
    for index in order or range(len(shorts)):
        short = {"level": index, **shorts[index]}
        profile = profile_of(short, index + 1, TIMES, "tx")
        evse_id = 0 if short["purpose"].startswith("ChargingStation") else 1
        assert made.set(profile, evse_id, 0.0, now, short.get("source", "CSO")) is None
    return made


@settings(max_examples=40)
@given(ANY, NOW, st.floats(-100, 600), st.data())
def test_the_order_of_installing_does_not_matter(
    shorts: list[dict[str, Any]], now: Situation, time_s: float, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(shorts))))
    assert installed(shorts, now, order).at(time_s, now) == installed(shorts, now).at(time_s, now)


@settings(max_examples=40)
@given(ANY, OF_BOUNDS, NOW, st.floats(-100, 600))
def test_limits_of_another_purpose_never_widen(
    shorts: list[dict[str, Any]], more: list[dict[str, Any]], now: Situation, time_s: float
) -> None:
    tx = [short for short in shorts if not short["purpose"].startswith("ChargingStation")]
    before = installed(tx, now).at(time_s, now)
    after = installed([*tx, *more], now).at(time_s, now)
    assert after.limit_kw <= before.limit_kw
    assert after.discharge_limit_kw >= before.discharge_limit_kw
    if before.setpoint_kw is not None:
        assert after.setpoint_kw is not None
        assert abs(after.setpoint_kw) <= abs(before.setpoint_kw)
        assert after.setpoint_kw * before.setpoint_kw >= 0.0


@settings(max_examples=40)
@given(ANY, NOW, st.floats(-100, 600))
def test_a_set_point_is_within_both_limits(
    shorts: list[dict[str, Any]], now: Situation, time_s: float
) -> None:
    allowed = installed(shorts, now).at(time_s, now)
    assert allowed.discharge_limit_kw <= 0.0 <= allowed.limit_kw
    if allowed.setpoint_kw is not None:
        assert allowed.discharge_limit_kw <= allowed.setpoint_kw <= allowed.limit_kw


@settings(max_examples=40)
@given(ANY, NOW, st.floats(-100, 300) | st.integers(-100, 300), st.integers(1, 300))
def test_the_composite_schedule_is_what_holds_at_each_second(
    shorts: list[dict[str, Any]], now: Situation, begin_s: float, duration_s: int
) -> None:
    profiles = installed(shorts, now)
    steps = dict(profiles.composite(begin_s, duration_s, now))
    assert 0 in steps
    holds = Allowed()
    for second in range(duration_s):
        holds = steps.get(second, holds)
        assert profiles.at(begin_s + second, now) == holds, second


@settings(max_examples=40)
@given(ANY, NOW, st.integers(0, 600))
def test_what_has_expired_is_as_if_it_were_not_there(
    shorts: list[dict[str, Any]], now: Situation, time_s: int
) -> None:
    expired = [{**short, "to": short.get("from", -4000) + 4000} for short in shorts]
    assume(all(short["to"] <= time_s + 4000 for short in expired))
    profiles = installed(expired, now)
    late_s = time_s + 4000.0
    assert profiles.at(late_s, now) == Allowed()
    profiles.forget_expired(late_s, now)
    assert len(profiles) == 0


@settings(max_examples=40)
@given(ANY, NOW, st.floats(0, 300))
def test_clearing_one_by_one_leaves_what_was_never_installed(
    shorts: list[dict[str, Any]], now: Situation, time_s: float
) -> None:
    profiles = installed(shorts, now)
    kept = [short for short in shorts if short.get("source", "CSO") != "CSO"]
    for number, short in enumerate(shorts, 1):
        assert profiles.clear(number, {}) == (short.get("source", "CSO") == "CSO")
        assert not profiles.clear(number, {})
    assert profiles.at(time_s, now) == installed(kept, now).at(time_s, now)


NUMBERS = WATTS | st.integers(-(10**400), 10**400) | st.floats(allow_nan=False, allow_infinity=False)
LIMITS = NUMBERS.map(abs)
STAMPS = SECONDS.map(TIMES.stamp) | st.datetimes().map(lambda at: at.isoformat() + "Z") | st.text(max_size=30)
POINTS = st.lists(
    st.fixed_dictionaries({"frequency": NUMBERS, "power": NUMBERS}), min_size=2, max_size=4
)  # fmt: skip
OF_MODE: dict[str, dict[str, Any]] = {
    "Idle": {},
    "ChargingOnly": {"limit": LIMITS},
    "CentralSetpoint": {"setpoint": NUMBERS, "dischargeLimit": LIMITS.map(lambda limit: -limit)},
    "LocalFrequency": {"v2xBaseline": NUMBERS, "v2xFreqWattCurve": POINTS},
}
PERIODS = st.sampled_from(sorted(OF_MODE)).flatmap(
    lambda mode: st.fixed_dictionaries({"operationMode": st.just(mode), **OF_MODE[mode]})
)


@st.composite
def wild(draw: st.DrawFn) -> dict[str, Any]:
    """A profile that the schema allows, with any numbers and dates."""
    kind = draw(st.sampled_from(["Absolute", "Recurring", "Relative", "Dynamic"]))
    number = 1 if kind == "Dynamic" else draw(st.integers(1, 3))
    periods = [draw(PERIODS) | {"startPeriod": 0 if not at else draw(st.integers())} for at in range(number)]
    schedule = {"id": 1, "chargingRateUnit": draw(st.sampled_from("WWA")), "chargingSchedulePeriod": periods}
    profile = {
        "id": draw(st.integers()), "stackLevel": draw(st.integers(0)), "chargingProfileKind": kind,
        "chargingProfilePurpose": draw(TX), "chargingSchedule": [schedule],
    }  # fmt: skip
    if kind != "Relative":
        schedule["startSchedule"] = draw(STAMPS)
    if kind == "Recurring":
        profile["recurrencyKind"] = draw(st.sampled_from(["Daily", "Weekly"]))
    if kind == "Dynamic":
        profile |= draw(st.fixed_dictionaries({}, optional={"dynUpdateInterval": st.integers()}))
    for key, values in (("validFrom", STAMPS), ("maxOfflineDuration", st.integers())):
        if draw(st.booleans()):
            profile[key] = draw(values)
    if draw(st.booleans()):
        schedule["duration"] = draw(st.integers())
    if draw(st.booleans()):
        schedule["limitAtSoC"] = {"soc": draw(st.integers(0, 100)), "limit": draw(NUMBERS)}
    return profile


@settings(max_examples=100)
@given(wild(), NOW, st.floats(-100, 600))
def test_what_a_schema_allows_is_installed_or_refused(
    profile: dict[str, Any], now: Situation, time_s: float
) -> None:
    if profile["chargingProfilePurpose"] == "TxProfile":
        profile["transactionId"] = "tx"
    evse = Evse(3, 22.0, 11.0, frequency=True)
    profiles = ChargingProfiles(evse, TIMES)
    refusal = profiles.set(profile, 1, time_s, now)
    assert refusal is None or (refusal.code and refusal.text)
    assert len(profiles) == (refusal is None)
    profiles.pulls(time_s)
    profiles.forget_expired(time_s, now)
    for _, allowed in profiles.composite(time_s, 86_400, now):
        assert allowed.discharge_limit_kw <= 0.0 <= allowed.limit_kw
        assert allowed.power_kw == allowed.power_kw
        assert allowed.power_kw > -float("inf")
