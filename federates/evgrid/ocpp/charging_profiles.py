"""Charging profiles that are stacked, and what they ask of an EVSE at a time.

In: charging profiles of OCPP 2.1 as they are received (:func:`~evgrid.ocpp.messages.profile_from` translates
those of older versions), and the situation of the EVSE. Out: the most that it may draw and give back, the
set-point that it follows, and the composite schedule. Powers in kW, positive when charging; times in s from
the run's start. Nothing is sent or received here.

The rules are those of OCPP 2.1 part 2, use cases K01, K08, K10, K28, Q06 to Q08:

1. Of each purpose, the profile of the highest stack level leads that is valid and has a period at the time
   (section 3.5). One whose schedule has nothing to say at a time doesn't hide those below it.
2. PriorityCharging, while it is activated, is in place of TxProfile, and that of TxDefaultProfile.
3. The limits of the purposes bound each other: the least limit holds, and the dischargeLimit nearest to zero
   (section 3.6). A set-point is clipped to them.
4. LocalGeneration adds its limit to the least of the others; those of several sources add up.
5. Without any profile an EVSE charges as fast as it can, and doesn't discharge.

Where the standard leaves a choice: an EV of three phases draws the same on each, so that the least of
``limit``, ``limit_L2`` and ``limit_L3`` counts thrice; a car takes the first of several schedules; a
recurring schedule begins with its ``startSchedule``, not before; a dynamic one counts its duration from its
last update.
ChargingOnly of a ChargingStationMaxProfile limits charging, and leaves discharging to the other purposes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from evgrid.core.units import DAY_S
from evgrid.ocpp.messages import NOMINAL_VOLTAGE, Times
from evgrid.ocpp.schemas import Payload

_TX = ("PriorityCharging", "TxProfile", "TxDefaultProfile")
_BOUNDS = ("ChargingStationMaxProfile", "ChargingStationExternalConstraints")
_MODES = {
    "ChargingStationMaxProfile": ("ChargingOnly",),
    "ChargingStationExternalConstraints": ("ChargingOnly", "ExternalLimits"),
    "LocalGeneration": ("ChargingOnly", "ExternalLimits"),
    "PriorityCharging": ("ChargingOnly",),
}
_TX_MODES = ("Idle", "ChargingOnly", "CentralSetpoint", "CentralFrequency", "LocalFrequency")
_RECURRENCE_S = {"Daily": DAY_S, "Weekly": 7.0 * DAY_S}
_GIVEN = {  # the values that a period may have beside its limits, by mode
    "Idle": (),
    "ChargingOnly": (),
    "ExternalLimits": (),
    "CentralSetpoint": ("setpoint", "setpointReactive"),
    "CentralFrequency": ("setpoint", "v2xBaseline", "v2xSignalWattCurve"),
    "LocalFrequency": ("v2xBaseline", "v2xFreqWattCurve"),
}
_VALUES = ("setpoint", "setpointReactive", "v2xBaseline", "v2xSignalWattCurve", "v2xFreqWattCurve")
MOST_PROFILES = 20
"""Most profiles that a charging station keeps."""


class Refusal(NamedTuple):
    """Why a profile is refused: the reason code and the additional information of the response."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Evse:
    """What an EVSE is and can do.

    phases : 1 or 3
    charge_kw, discharge_kw : rated power; discharge 0: it can't give back
    voltage : V, phase to neutral, nominal, by which A are W
    reactive : whether it can be given a set-point of reactive power
    apparent_kva : rated apparent power, of which reactive power is a share
    frequency : whether it measures the grid's frequency
    dc : whether it gives direct current
    """

    phases: int = 1
    charge_kw: float = math.inf
    discharge_kw: float = 0.0
    voltage: float = NOMINAL_VOLTAGE
    reactive: bool = False
    apparent_kva: float = math.inf
    frequency: bool = False
    dc: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """What a charging profile may depend on besides the time.

    transaction_id, start_s : of the transaction that is going on, None: there is none
    priority : whether priority charging is activated
    soc : state of charge, 0 to 1
    frequency_hz : of the grid
    signal : the last aFRR signal
    offline_s : when the connection was lost, None: online
    """

    transaction_id: str | None = None
    start_s: float | None = None
    priority: bool = False
    soc: float | None = None
    frequency_hz: float | None = None
    signal: float = 0.0
    offline_s: float | None = None


class Allowed(NamedTuple):
    """What profiles ask of an EVSE.

    limit_kw : most that it may draw, +inf: no limit
    discharge_limit_kw : most that it may give back, at most 0; -inf: no limit
    setpoint_kw : power that it follows as closely as possible, within both; None: it draws what it can
    reactive_kvar : set-point of reactive power, positive inductive; None: none
    mode : operation mode
    """

    limit_kw: float = math.inf
    discharge_limit_kw: float = 0.0
    setpoint_kw: float | None = None
    reactive_kvar: float | None = None
    mode: str = "ChargingOnly"

    @property
    def power_kw(self) -> float:
        """The set-point of an EV: +inf charges as fast as it can."""
        return self.limit_kw if self.setpoint_kw is None else self.setpoint_kw


class _Period(NamedTuple):
    """A period of a schedule: begin in s from the schedule's start, and powers in kW."""

    begin_s: float
    limit_kw: float
    discharge_limit_kw: float
    setpoint_kw: float | None
    reactive_kvar: float | None
    mode: str
    baseline_kw: float
    frequency_curve: tuple[tuple[float, float], ...]
    signal_curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class _Profile:
    """A profile that is installed; ``given``: as it was received."""

    given: Payload
    evse_id: int
    source: str
    purpose: str
    level: int
    kind: str
    from_s: float
    to_s: float
    start_s: float
    duration_s: float
    recurrence_s: float
    periods: tuple[_Period, ...]
    soc: float
    soc_limit_kw: float
    offline_s: float
    updated_s: float

    def valid(self, time_s: float, now: Situation) -> bool:
        """Whether it is valid at a time."""
        if not self.from_s <= time_s < self.to_s:
            return False
        if self.purpose == "TxProfile" and (
            now.transaction_id is None or self.given.get("transactionId") != now.transaction_id
        ):
            return False
        return now.offline_s is None or time_s - now.offline_s < self.offline_s

    def begin_s(self, time_s: float, now: Situation) -> float | None:
        """When the schedule that counts at a time began; None: it has not."""
        start_s = self.start_s
        if self.kind == "Relative":
            if now.start_s is None:
                return None
            start_s = now.start_s
        elif self.kind == "Dynamic":
            start_s = self.updated_s
        if time_s < start_s:
            return None
        if self.kind == "Recurring":
            start_s += math.floor((time_s - start_s) / self.recurrence_s) * self.recurrence_s
        return start_s

    def period(self, time_s: float, now: Situation) -> _Period | None:
        """The period at a time; None: it has none."""
        if not self.valid(time_s, now):
            return None
        begin_s = self.begin_s(time_s, now)
        if begin_s is None or time_s - begin_s >= self.duration_s:
            return None
        return self.periods[bisect_right(self.periods, time_s - begin_s, key=_begin_of) - 1]

    def changes(self, time_s: float, until_s: float, now: Situation) -> Iterator[float]:
        """Times within (time_s, until_s) at which it may say something else."""
        yield self.from_s
        yield self.to_s
        if now.offline_s is not None:
            yield now.offline_s + self.offline_s
        start_s = now.start_s if self.kind == "Relative" else self.start_s
        if self.kind == "Dynamic":
            start_s = self.updated_s
        if start_s is None:
            return
        cycle_s = self.recurrence_s
        first = max(math.floor((time_s - start_s) / cycle_s), 0) if math.isfinite(cycle_s) else 0
        while True:
            begin_s = start_s + first * cycle_s if first else start_s
            if begin_s >= until_s:
                return
            yield begin_s
            yield begin_s + self.duration_s
            for period in self.periods:
                yield begin_s + period.begin_s
            if not math.isfinite(cycle_s):
                return
            first += 1


class ChargingProfiles:
    """The charging profiles that are installed at a charging station of one EVSE.

    evse : what it can do
    times : the run's timestamps
    old : by the rules of OCPP 1.6: a profile takes the place of one of the same purpose and stack level, and
        an EVSE of one phase takes numberPhases 3, which 1.6 assumes; else both are refused (K01.FR.06,
        K01.FR.39, K01.FR.45, K01.FR.53)
    """

    def __init__(self, evse: Evse, times: Times, old: bool = False) -> None:
        self.evse, self._times, self._old = evse, times, old
        self._installed: dict[int, _Profile] = {}
        self._asked_s: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._installed)

    def set(
        self, profile: Payload, evse_id: int, time_s: float, now: Situation, source: str = "CSO",
        starting: bool = False,
    ) -> Refusal | None:  # fmt: skip
        """Install a profile, in place of one of the same id; why it is refused, None: it is installed.

        source : ``chargingLimitSource``: CSO: the CSMS; EMS, SO, Other: an external system, which alone may
            set external constraints
        starting : it comes with RequestStartTransaction: a TxProfile, of the transaction that is to start
        """
        try:
            made = self._made(profile, evse_id, time_s, now, source, starting)
        except _RefusedError as refused:
            return refused.refusal
        for other in tuple(self._installed.values()):
            if not _conflict(made, other):
                continue
            if self._old:
                del self._installed[other.given["id"]]
                continue
            code = "InvalidStackLevel" if made.purpose == "TxProfile" else "DuplicateProfile"
            who = f"{made.purpose} {other.given['id']} has stackLevel {made.level}, too, in a time of both"
            return Refusal(code, f"{who} (K01.FR.06, K01.FR.39, K01.FR.53)")
        if len(self._installed) >= MOST_PROFILES and profile["id"] not in self._installed:
            return Refusal(
                "TooManyElements", f"there are {MOST_PROFILES} charging profiles, the most it keeps"
            )
        self._installed[profile["id"]] = made
        return None

    def start(self, transaction_id: str) -> None:
        """Give the profile that came with RequestStartTransaction its transaction."""
        for key, profile in self._installed.items():
            if profile.purpose == "TxProfile" and "transactionId" not in profile.given:
                given = {**profile.given, "transactionId": transaction_id}
                self._installed[key] = replace(profile, given=given)

    def end(self) -> None:
        """Forget the TxProfiles: they cease to be valid when their transaction ends."""
        self._forget(p for p in self._installed.values() if p.purpose == "TxProfile")

    def clear(self, profile_id: int | None, criteria: Payload) -> bool:
        """Clear the profile of an id, or all that meet criteria; whether there were any.

        Those that an external system has set stay (K10.FR.06).
        """
        if profile_id is not None:
            found = [p for p in self._installed.values() if p.given["id"] == profile_id]
        else:
            found = self._matching(criteria)
        found = [p for p in found if p.source == "CSO"]
        self._forget(found)
        return bool(found)

    def forget_expired(self, time_s: float, now: Situation) -> None:
        """Forget what can never be valid again: past its validTo, or too long offline."""
        self._forget(
            profile
            for profile in self._installed.values()
            if profile.to_s <= time_s
            or (
                profile.given.get("invalidAfterOfflineDuration", False)
                and now.offline_s is not None
                and time_s - now.offline_s >= profile.offline_s
            )
        )

    def report(self, criteria: Payload) -> dict[tuple[str, int], list[Payload]]:
        """The profiles that meet criteria (GetChargingProfiles), by source and EVSE."""
        found: dict[tuple[str, int], list[Payload]] = {}
        for profile in self._matching(criteria):
            found.setdefault((profile.source, profile.evse_id), []).append(profile.given)
        return found

    def has(self, purpose: str) -> bool:
        """Whether there is a profile of a purpose."""
        return any(profile.purpose == purpose for profile in self._installed.values())

    def update(self, profile_id: int, update: Payload, time_s: float) -> Refusal | None:
        """Change the period of a dynamic profile (UpdateDynamicSchedule); why it is refused."""
        profile = self._installed.get(profile_id)
        if profile is None or profile.kind != "Dynamic":
            what = "there is no such charging profile" if profile is None else f"it is {profile.kind}"
            return Refusal(
                "InvalidProfileId", f"chargingProfileId {profile_id}: {what}: must be a dynamic one"
            )
        (schedule,) = profile.given["chargingSchedule"]
        (period,) = schedule["chargingSchedulePeriod"]
        changed = {**schedule, "chargingSchedulePeriod": [{**period, **update}]}
        given = {
            **profile.given, "chargingSchedule": [changed], "dynUpdateTime": self._times.stamp(time_s)
        }  # fmt: skip
        try:
            periods = self._periods(given, changed)
        except _RefusedError as refused:
            return refused.refusal
        self._installed[profile_id] = replace(profile, given=given, periods=periods, updated_s=time_s)
        return None

    def pulls(self, time_s: float) -> list[int]:
        """Ids of the dynamic profiles of which an update is to be asked for now (K28).

        That is when their dynUpdateInterval is over since the last update, and since it was asked for.
        """
        due = []
        for key, profile in self._installed.items():
            every_s = profile.given.get("dynUpdateInterval", 0)
            since_s = time_s - max(profile.updated_s, self._asked_s.get(key, -math.inf))
            if 0 < every_s <= since_s and time_s < profile.to_s:
                self._asked_s[key] = time_s
                due.append(key)
        return due

    def at(self, time_s: float, now: Situation) -> Allowed:
        """What the profiles ask of the EVSE at a time."""
        if not self._installed:
            return Allowed()
        leading = self._leading(time_s, now)
        tx = next((leading[purpose, "CSO"] for purpose in _TX if (purpose, "CSO") in leading), None)
        found = self._of_transaction(tx, now) if tx is not None else Allowed()
        limit, discharge, added = found.limit_kw, found.discharge_limit_kw, 0.0
        for (purpose, _), (profile, period) in leading.items():
            if purpose in _BOUNDS:
                limit = min(limit, _limit_kw(profile, period, now))
                discharge = max(discharge, period.discharge_limit_kw)
            elif purpose == "LocalGeneration":
                added += _limit_kw(profile, period, now)
        limit += added
        setpoint = found.setpoint_kw
        if setpoint is not None:
            setpoint = min(max(setpoint, discharge), limit)
        return found._replace(limit_kw=limit, discharge_limit_kw=discharge, setpoint_kw=setpoint)

    def composite(self, time_s: float, duration_s: int, now: Situation) -> list[tuple[int, Allowed]]:
        """What the profiles ask of the EVSE from a time on: (whole seconds from it, what holds from then).

        It is :meth:`at` of each whole second; state of charge, frequency and signal stay as they are.
        """
        until_s = time_s + duration_s
        begins = {0}
        for profile in self._installed.values():
            for change_s in profile.changes(time_s, until_s, now):
                if time_s < change_s < until_s:
                    after_s = change_s - time_s
                    begins |= {math.floor(after_s), math.ceil(after_s)}
        found: list[tuple[int, Allowed]] = []
        for begin in sorted(begin for begin in begins if begin < max(duration_s, 1)):
            allowed = self.at(time_s + begin, now)
            if not found or allowed != found[-1][1]:
                found.append((begin, allowed))
        return found

    def schedule_periods(self, found: list[tuple[int, Allowed]], unit: str, version: str) -> list[Payload]:
        """``chargingSchedulePeriod`` of a composite schedule in W or A."""
        phases = self.evse.phases
        factor = 1e3 if unit == "W" else 1e3 / (self.evse.voltage * phases)
        digits = 1 if version == "1.6" else 6

        def amount(power_kw: float) -> float:
            return (
                round(min(max(power_kw, -self.evse.discharge_kw), self.evse.charge_kw) * factor, digits) + 0.0
            )

        periods: list[Payload] = []
        for begin, allowed in found:
            period: Payload = {"startPeriod": begin, "limit": amount(allowed.limit_kw)}
            if unit == "A":
                period["numberPhases"] = phases
            if version == "2.1":
                period["operationMode"] = allowed.mode
                if allowed.setpoint_kw is not None:
                    period["setpoint"] = amount(allowed.setpoint_kw)
                    period["dischargeLimit"] = min(amount(allowed.discharge_limit_kw), 0.0)
                if allowed.reactive_kvar is not None:
                    period["setpointReactive"] = round(allowed.reactive_kvar * factor, digits)
            elif allowed.setpoint_kw is not None:
                period["limit"] = amount(max(allowed.setpoint_kw, 0.0))
            periods.append(period)
        return periods

    def _leading(self, time_s: float, now: Situation) -> dict[tuple[str, str], tuple[_Profile, _Period]]:
        """The leading profile of each purpose and source, with its period at the time."""
        leading: dict[tuple[str, str], tuple[_Profile, _Period]] = {}
        for profile in self._installed.values():
            if profile.purpose == "PriorityCharging" and not now.priority:
                continue
            key = profile.purpose, profile.source
            other = leading.get(key)
            if other is not None and other[0].level >= profile.level:
                continue
            if (period := profile.period(time_s, now)) is not None:
                leading[key] = profile, period
        return leading

    def _of_transaction(self, leading: tuple[_Profile, _Period], now: Situation) -> Allowed:
        """What the profile of the transaction asks, whatever other purposes do."""
        profile, period = leading
        limit, mode = _limit_kw(profile, period, now), period.mode
        if mode == "Idle":
            return Allowed(0.0, 0.0, 0.0, None, mode)
        if mode == "ChargingOnly":
            return Allowed(limit, 0.0, None, None, mode)
        setpoint = period.setpoint_kw
        if period.frequency_curve and now.frequency_hz is not None:
            setpoint = period.baseline_kw + _along(period.frequency_curve, now.frequency_hz)
        elif period.signal_curve:
            setpoint = period.baseline_kw + _along(period.signal_curve, now.signal)
        elif mode == "LocalFrequency":
            setpoint = period.baseline_kw
        return Allowed(limit, period.discharge_limit_kw, setpoint, period.reactive_kvar, mode)

    def _matching(self, criteria: Payload) -> list[_Profile]:
        ids, sources = criteria.get("chargingProfileId"), criteria.get("chargingLimitSource")
        return [
            profile
            for profile in self._installed.values()
            if criteria.get("chargingProfilePurpose", profile.purpose) == profile.purpose
            and criteria.get("stackLevel", profile.level) == profile.level
            and criteria.get("evseId", profile.evse_id) == profile.evse_id
            and (ids is None or profile.given["id"] in ids)
            and (sources is None or profile.source in sources)
        ]

    def _forget(self, profiles: Iterable[_Profile]) -> None:
        for profile in list(profiles):
            del self._installed[profile.given["id"]]

    def _made(
        self, given: Payload, evse_id: int, time_s: float, now: Situation, source: str, starting: bool
    ) -> _Profile:
        """The profile, checked."""
        purpose, kind = given["chargingProfilePurpose"], given["chargingProfileKind"]
        schedules = given["chargingSchedule"]
        _check_purpose(given, evse_id, now, source, starting)
        external = self._installed.get(given["id"])
        if external is not None and external.source != source:
            raise _refused(
                "InvalidProfileId", f"id {given['id']}: an external system has set that profile (K01.FR.81)"
            )
        if len(schedules) > 1 and purpose != "TxProfile":
            raise _refused(
                "InvalidSchedule", f"{len(schedules)} schedules: only a TxProfile may have several"
            )
        dynamic = ("dynUpdateInterval", "dynUpdateTime")
        if kind != "Dynamic" and any(key in given for key in dynamic):
            raise _refused(
                "InvalidProfile", f"{dynamic[0]} and {dynamic[1]} are of Dynamic profiles (K01.FR.122)"
            )
        made = [(self._periods(given, schedule), schedule) for schedule in schedules]
        periods, schedule = made[0]
        if kind == "Dynamic" and (len(schedules) > 1 or len(periods) > 1):
            raise _refused("InvalidSchedule", "a Dynamic profile has one schedule of one period")
        start_s = time_s
        if (start := schedule.get("startSchedule")) is not None:
            read = self._times.local_seconds if schedule.get("useLocalTime") else self._times.seconds
            start_s = _read(read, "startSchedule", start)
        elif kind in ("Absolute", "Recurring"):
            raise _refused("InvalidSchedule", f"a schedule that is {kind} needs startSchedule (K01.FR.40)")
        if kind == "Relative" and start is not None:
            raise _refused("InvalidSchedule", "a schedule that is Relative has no startSchedule (K01.FR.41)")
        recurrence_s = math.inf
        if kind == "Recurring":
            if "recurrencyKind" not in given:
                raise _refused("MissingParam", "a profile that is Recurring needs recurrencyKind")
            recurrence_s = _RECURRENCE_S[given["recurrencyKind"]]
        from_s = (
            _read(self._times.seconds, "validFrom", given["validFrom"]) if "validFrom" in given else -math.inf
        )
        to_s = _read(self._times.seconds, "validTo", given["validTo"]) if "validTo" in given else math.inf
        if to_s <= from_s:
            raise _refused("InvalidProfile", f"validTo {given['validTo']} is not after validFrom")
        for key in ("maxOfflineDuration", "dynUpdateInterval"):
            if given.get(key, 0) < 0:
                raise _refused("InvalidValue", f"{key} {given[key]}: must be at least 0")
        at_soc = schedule.get("limitAtSoC")
        phases = self.evse.phases
        updated_s = start_s
        if "dynUpdateTime" in given:
            updated_s = _read(self._times.seconds, "dynUpdateTime", given["dynUpdateTime"])
        return _Profile(
            given, evse_id, source, purpose, given["stackLevel"], kind, from_s, to_s, start_s,
            float(min(schedule.get("duration", math.inf), _MOST)), recurrence_s, periods,
            at_soc["soc"] / 100.0 if at_soc else math.inf,
            self._kw(schedule["chargingRateUnit"], at_soc["limit"], phases) if at_soc else math.inf,
            float(min(given.get("maxOfflineDuration", math.inf), _MOST)), updated_s,
        )  # fmt: skip

    def _kw(self, unit: str, amount: float, phases: int) -> float:
        return amount * 1e-3 if unit == "W" else amount * self.evse.voltage * phases * 1e-3

    def _periods(self, given: Payload, schedule: Payload) -> tuple[_Period, ...]:
        """The periods of a schedule, checked."""
        for key, what in _UNSUPPORTED.items():
            if schedule.get(key):
                raise _refused("InvalidSchedule", f"{key}: {what}")
        if schedule.get("duration", 1) <= 0:
            raise _refused("InvalidSchedule", f"duration {schedule['duration']}: must be more than 0")
        at_soc = schedule.get("limitAtSoC")
        if at_soc is not None:
            _check_numbers(at_soc)
            if at_soc["limit"] < 0:
                raise _refused("InvalidSchedule", f"limitAtSoC.limit {at_soc['limit']}: must be at least 0")
        made: list[_Period] = []
        for period in schedule["chargingSchedulePeriod"]:
            begin = period["startPeriod"]
            if not made and begin != 0:
                raise _refused("InvalidSchedule", f"the first startPeriod is {begin}: must be 0 (K01.FR.31)")
            if made and begin <= made[-1].begin_s:
                text = f"startPeriod {begin} follows {made[-1].begin_s:g}: must increase (K01.FR.35)"
                raise _refused("InvalidSchedule", text)
            made.append(self._period(given, schedule["chargingRateUnit"], period))
        return tuple(made)

    def _period(self, given: Payload, unit: str, period: Payload) -> _Period:
        """A period, checked."""
        _check_numbers(period)
        purpose, evse = given["chargingProfilePurpose"], self.evse
        mode = period.get("operationMode", "ChargingOnly")
        self._check_mode(purpose, mode, unit, period)
        if evse.dc and ("numberPhases" in period or "phaseToUse" in period):
            raise _refused("NoPhaseForDC", "numberPhases and phaseToUse: the EVSE gives DC (K01.FR.44)")
        if evse.dc and unit == "A":
            raise _refused("UnsupportedRateUnit", "chargingRateUnit A: must be W, as the EVSE gives DC")
        number = period.get("numberPhases", evse.phases)
        if self._old and 1 <= number <= 3:
            number = min(number, evse.phases)
        if not 1 <= number <= max(evse.phases, 1) and "numberPhases" in period:
            text = f"numberPhases {number}: must be from 1 to {evse.phases}, the EVSE's phases (K01.FR.45)"
            raise _refused("InvalidSchedule", text)
        if "phaseToUse" in period:
            text = "phaseToUse: the EVSE doesn't switch phases (K01.FR.20)"
            raise _refused("InvalidSchedule", text)
        limit = self._amount(period, "limit", unit, number, min)
        if limit is None and mode == "ChargingOnly":
            raise _refused("InvalidSchedule", "a period that is ChargingOnly needs limit")
        if limit is not None and limit < 0.0:
            raise _refused(
                "InvalidSchedule",
                f"limit {period['limit']}: must be at least 0; dischargeLimit is of discharging",
            )
        discharge = self._amount(period, "dischargeLimit", unit, number, max)
        if mode == "ChargingOnly":
            least = 0.0 if purpose in _TX else -math.inf
        else:
            least = -math.inf if discharge is None else discharge
        if number < evse.phases and math.isfinite(evse.charge_kw):
            most = evse.charge_kw * number / evse.phases
            limit = most if limit is None else min(limit, most)
        setpoint = self._amount(period, "setpoint", unit, number, None)
        reactive = self._amount(period, "setpointReactive", unit, number, None)
        baseline: float = period.get("v2xBaseline") or 0.0
        if "v2xBaseline" not in period and mode == "CentralFrequency":
            baseline = period.get("setpoint") or 0.0
        return _Period(
            float(period["startPeriod"]), math.inf if limit is None else limit, least, setpoint, reactive,
            mode, baseline * 1e-3,
            _curve(period.get("v2xFreqWattCurve", ()), "frequency"),
            _curve(period.get("v2xSignalWattCurve", ()), "signal"),
        )  # fmt: skip

    def _check_mode(self, purpose: str, mode: str, unit: str, period: Payload) -> None:
        """Refuse an operation mode that the purpose, the EVSE or the period's values don't go with."""
        allowed = _MODES.get(purpose, _TX_MODES)
        if mode not in allowed:
            text = f"operationMode {mode} of a {purpose}: must be one of {', '.join(allowed)}"
            raise _refused("InvalidSchedule", text)
        for key in ("preconditioningRequest", "evseSleep"):
            if period.get(key):
                raise _refused("InvalidSchedule", f"{key}: not supported")
        for key in _VALUES:
            if key in period and key not in _GIVEN[mode]:
                raise _refused("InvalidSchedule", f"{key} in a period that is {mode}: must not be given")
        if "dischargeLimit" in period and mode in ("Idle", "ChargingOnly"):
            raise _refused("InvalidSchedule", f"dischargeLimit in a period that is {mode}: must not be given")
        if mode in ("CentralSetpoint", "CentralFrequency") and not any(
            key in period for key in ("setpoint", "v2xSignalWattCurve")
        ):
            raise _refused("InvalidSchedule", f"a period that is {mode} needs setpoint")
        if mode == "CentralSetpoint" and "setpoint" not in period:
            raise _refused("InvalidSchedule", "a period that is CentralSetpoint needs setpoint")
        if "setpointReactive" in period and not self.evse.reactive:
            text = "setpointReactive: the EVSE's local functions don't follow a reactive power"
            raise _refused("InvalidSchedule", text)
        curves = "v2xFreqWattCurve" in period or "v2xSignalWattCurve" in period
        if unit == "A" and (curves or mode == "LocalFrequency"):
            raise _refused("UnsupportedRateUnit", f"a period that is {mode} is in W, not in A (Q08.FR.05)")
        if mode != "LocalFrequency":
            return
        if len(period.get("v2xFreqWattCurve", ())) < 2 or "v2xBaseline" not in period:
            text = "LocalFrequency needs v2xBaseline and a v2xFreqWattCurve of two points (Q08.FR.02)"
            raise _refused("NoFreqWattCurve", text)
        if not self.evse.frequency:
            raise _refused("InvalidSchedule", "LocalFrequency: the EVSE doesn't measure a frequency")

    def _amount(self, period: Payload, key: str, unit: str, number: int, pick: Any) -> float | None:
        """A value of a period, kW or kvar, of all phases; ``pick``: min or max of those of the phases."""
        others = [period[name] for name in (f"{key}_L2", f"{key}_L3") if name in period]
        if not others:
            return None if key not in period else self._kw(unit, period[key], number)
        if number != 3 or key not in period or len(others) != 2:
            text = f"{key}_L2 and {key}_L3 go with {key}, of an EVSE of three phases: it uses {number}"
            raise _refused("InvalidSchedule", text)
        each = [period[key], *others]
        if pick is None and len(set(each)) > 1:
            text = f"{key} {each[0]}, {each[1]}, {each[2]}: an EV of three phases draws the same on each"
            raise _refused("InvalidSchedule", text)
        one = float(each[0] if pick is None else pick(each))
        return 3.0 * self._kw(unit, one, 1)


_MOST = 1e12
"""Largest number of a period, W, A or s, and longest duration."""
_UNSUPPORTED = {
    "randomizedDelay": "not supported (K01.FR.124)",
    "salesTariff": "tariffs of a schedule are not supported",
    "absolutePriceSchedule": "tariffs of a schedule are not supported",
    "priceLevelSchedule": "tariffs of a schedule are not supported",
}


def _begin_of(period: _Period) -> float:
    return period.begin_s


def _check_numbers(values: Payload) -> None:
    """Refuse numbers beyond what can be computed with."""
    for key, value in values.items():
        if isinstance(value, list):
            for point in value:
                _check_numbers(point)
        elif isinstance(value, int | float) and abs(value) > _MOST:
            raise _refused("ValueOutOfRange", f"{key}: must be at most {_MOST:.0e}")


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


def _refused(code: str, text: str) -> _RefusedError:
    return _RefusedError(Refusal(code, text))


def _read(read: Any, key: str, text: str) -> float:
    try:
        return float(read(text))
    except (ValueError, OverflowError):
        raise _refused(
            "InvalidValue", f"{key} {text}: must be a date and time such as 2026-01-15T12:00:00Z"
        ) from None


def _check_purpose(given: Payload, evse_id: int, now: Situation, source: str, starting: bool) -> None:
    """Refuse a profile whose purpose doesn't go with its EVSE, its kind or the transaction."""
    purpose, kind = given["chargingProfilePurpose"], given["chargingProfileKind"]
    if source != "CSO" and purpose in _TX:
        raise _refused("InvalidValue", f"{purpose} of the source {source}: only the CSMS sets it")
    if evse_id not in (0, 1):
        raise _refused("UnknownEvse", f"evseId {evse_id}: must be 0, the charging station, or 1 (K01.FR.28)")
    if purpose == "ChargingStationExternalConstraints" and source == "CSO":
        raise _refused("InvalidValue", f"{purpose}: only an external system sets it (K01.FR.22)")
    if purpose == "ChargingStationMaxProfile":
        if evse_id != 0:
            raise _refused("InvalidValue", f"{purpose} of evseId {evse_id}: must be 0")
        if kind == "Relative":
            raise _refused(
                "InvalidValue", f"{purpose} is Relative: must be Absolute, Recurring or Dynamic (K01.FR.38)"
            )
    if purpose == "PriorityCharging" and any(
        "duration" in schedule for schedule in given["chargingSchedule"]
    ):
        raise _refused("InvalidSchedule", "the schedule of PriorityCharging has no duration (K01.FR.70)")
    if purpose != "TxProfile":
        if starting:
            raise _refused("InvalidValue", f"{purpose} with RequestStartTransaction: must be a TxProfile")
        if "transactionId" in given:
            raise _refused("InvalidValue", f"transactionId with a {purpose}: is of a TxProfile only")
        return
    if evse_id == 0:
        raise _refused("InvalidValue", "TxProfile of evseId 0: must be of an EVSE (K01.FR.16)")
    if starting:
        return
    transaction_id = given.get("transactionId")
    if transaction_id is None:
        raise _refused("MissingParam", "a TxProfile needs transactionId (K01.FR.03)")
    if transaction_id != now.transaction_id:
        text = "there is none" if now.transaction_id is None else f"there is {now.transaction_id}"
        raise _refused("TxNotFound", f"transactionId {transaction_id}: {text} (K01.FR.09, K01.FR.33)")


def _conflict(one: _Profile, other: _Profile) -> bool:
    """Whether two profiles have the same purpose and stack level in some time of both."""
    return (
        one.given["id"] != other.given["id"]
        and one.purpose == other.purpose
        and one.level == other.level
        and one.source == other.source
        and one.given.get("transactionId") == other.given.get("transactionId")
        and one.from_s < other.to_s
        and other.from_s < one.to_s
    )


def _limit_kw(profile: _Profile, period: _Period, now: Situation) -> float:
    """The limit of a period, at the state of charge."""
    if now.soc is not None and now.soc >= profile.soc:
        return min(period.limit_kw, profile.soc_limit_kw)
    return period.limit_kw


def _curve(points: Iterable[Payload], of: str) -> tuple[tuple[float, float], ...]:
    """A curve's points, sorted, in kW."""
    made = tuple(sorted((float(point[of]), point["power"] * 1e-3) for point in points))
    if len({x for x, _ in made}) < len(made):
        raise _refused("InvalidSchedule", f"a curve has two powers at a {of}")
    return made


def _along(points: tuple[tuple[float, float], ...], x: float) -> float:
    """A value between the points of a curve, that of the nearest end beyond them."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
