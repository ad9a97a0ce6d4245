"""The port sheet's values as fields of OCPP messages, and back: units, timestamps, versions.

Of both sides, the charging stations and the CSMS. A message is a dictionary as on the wire. Profiles are
written and read as those of OCPP 2.1; :func:`profile_to` and :func:`profile_from` translate older versions.

=================  ======================================================================================
power              W on the wire, kW here; positive is drawn from the grid on both
energy             Wh on the wire, kWh here
time               date-time with milliseconds and an offset on the wire, s from the run's start here
state of charge    percent on the wire, 0 to 1 here
=================  ======================================================================================

OCPP 2.0.1 has no discharge and reports neither the least power nor the energy wanted; OCPP 1.6 has no
charging needs, either. What a version can't say is None where it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from evgrid.ocpp.schemas import MessageError, Payload, Version
from evgrid.scenario import Scenario

VENDOR = "org.evgrid"
"""``vendorId`` of our own DataTransfer, and vendor of the charging stations."""
CLOCK_IDENTITY = "evgrid-clock"
"""Identity of the connection over which a run's clock is in lockstep."""
TICK = "tick"
"""``messageId`` of the DataTransfer that ends a tick."""
NOMINAL_VOLTAGE = 230.0
"""Voltage, V, of a phase, by which currents are powers: assumption, as a charging station's nominal one."""
DC_VOLTAGE = 400.0
"""Voltage, V, of a battery that charges by direct current: assumption."""
TYPE_LENGTH = {"2.1": 255, "2.0.1": 36, "1.6": 20}
"""Greatest length of an idToken by version."""


class Times:
    """Simulated times as timestamps of OCPP, and back.

    A run's clock doesn't change: its offset to UTC is that of its start, 0 without a time zone.

    start : the run's start, local
    zone : name of its time zone
    """

    def __init__(self, start: np.datetime64, zone: str | None = None) -> None:
        local: datetime = start.astype("datetime64[us]").item()
        offset = local.replace(tzinfo=ZoneInfo(zone)).utcoffset() if zone is not None else None
        self.offset_s = offset.total_seconds() if offset is not None else 0.0
        self._start = local.replace(tzinfo=UTC) - timedelta(seconds=self.offset_s)
        sign, minutes = "-" if self.offset_s < 0 else "+", round(abs(self.offset_s) / 60.0)
        self._suffix = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}" if zone is not None else "Z"
        self._shift = timedelta(seconds=self.offset_s)

    def align(self, text: str, time_s: float) -> None:
        """Keep to another's clock, which shows a timestamp at a simulated time, s.

        Raises
        ------
        ValueError
            If it is none, or of a year in which no run can be.

        """
        try:
            good = 1970 <= datetime.fromisoformat(text).year <= 2190
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"{text}: must be a date and time of the years 1970 to 2190")
        self._start += timedelta(seconds=self.seconds(text) - time_s)

    def stamp(self, time_s: float) -> str:
        """A simulated time, s, to the millisecond, such as ``2026-01-15T12:00:00.000Z``."""
        at = self._start + timedelta(milliseconds=round(time_s * 1e3)) + self._shift
        return at.replace(tzinfo=None).isoformat(timespec="milliseconds") + self._suffix

    def seconds(self, text: str) -> float:
        """Simulated time, s, of a timestamp; one without an offset is UTC.

        Raises
        ------
        ValueError
            If it is none.

        """
        at = datetime.fromisoformat(text)
        return ((at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - self._start).total_seconds()

    def local_seconds(self, text: str) -> float:
        """Simulated time, s, of a timestamp's wall-clock reading in local time, whatever its offset."""
        at = datetime.fromisoformat(text).replace(tzinfo=UTC) - self._shift
        return (at - self._start).total_seconds()


def times_of(scenario: Scenario) -> Times:
    """The times of a scenario, by its time zone where it has one (of weather, solar power or emissions)."""
    return Times(scenario.start, zone_of(scenario))


def zone_of(scenario: Scenario) -> str | None:
    """Name of the time zone of a scenario's local time; None: it has none."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "timezone" and isinstance(item, str):
                    found.add(item)
                else:
                    look(item)
        elif isinstance(value, list | tuple):
            for item in value:
                look(item)

    look(scenario.model_dump())
    return min(found) if found else None


def watts(power_kw: float) -> float:
    """A power of a charging profile, W: at most six decimals, as OCPP 2.x says."""
    return round(power_kw * 1e3, 6)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a charging station measures and reports of its EVSE.

    import_kwh, export_kwh : registers, kWh, of all transactions
    power_kw : mean over the interval that ends at the reading's timestamp
    soc : 0 to 1
    p_max_kw, p_min_kw : most that the EV can draw and, as a negative number, give back now
    energy_needed_kwh : energy from the grid still wanted by departure
    time_needed_s : time that charging as fast as possible takes to it
    phases : 1 or 3

    None: the version, or the station, doesn't report it.
    """

    import_kwh: float
    export_kwh: float
    power_kw: float | None = None
    soc: float | None = None
    p_max_kw: float | None = None
    p_min_kw: float | None = None
    energy_needed_kwh: float | None = None
    time_needed_s: float | None = None
    phases: int = 1


_IMPORT, _EXPORT = "Energy.Active.Import.Register", "Energy.Active.Export.Register"
_PHASES = ("L1", "L2", "L3")


def sampled_values(reading: Reading, version: Version, context: str = "Sample.Periodic") -> list[Payload]:
    """The sampled values of a meter value; where there are three phases, also the registers of each.

    Numbers are sent in full, as the standard asks for. What a version has no measurand for is left out.
    """
    values: list[tuple[str, float, str, str | None]] = []
    for measurand, energy_kwh in ((_IMPORT, reading.import_kwh), (_EXPORT, reading.export_kwh)):
        values.append((measurand, energy_kwh * 1e3, "Wh", None))
        if reading.phases == 3:
            values += [(measurand, energy_kwh * 1e3 / 3.0, "Wh", phase) for phase in _PHASES]
    if reading.power_kw is not None:
        power_w = reading.power_kw * 1e3
        values.append(("Power.Active.Import", max(power_w, 0.0), "W", None))
        values.append(("Power.Active.Export", max(-power_w, 0.0), "W", None))
    if reading.soc is not None:
        values.append(("SoC", reading.soc * 100.0, "Percent", None))
    offered = (reading.p_max_kw, reading.p_min_kw)
    if version != "2.1":
        if offered[0] is not None:
            values.append(("Power.Offered", offered[0] * 1e3, "W", None))
    else:
        if offered[0] is not None:
            values.append(("Power.Import.Offered", offered[0] * 1e3, "W", None))
        if offered[1] is not None:
            values.append(("Power.Export.Offered", -offered[1] * 1e3, "W", None))
        if reading.energy_needed_kwh is not None:
            values.append(("EnergyRequest.Target", reading.energy_needed_kwh * 1e3, "Wh", None))
        if reading.time_needed_s is not None and math.isfinite(reading.time_needed_s):
            values.append(("Display.RemainingTimeToTargetSOC", reading.time_needed_s, "s", None))
    return [_sampled(*value, version, context) for value in values]


def _sampled(
    measurand: str, value: float, unit: str, phase: str | None, version: Version, context: str
) -> Payload:
    sampled: Payload = {"value": value + 0.0, "context": context, "measurand": measurand}
    if phase is not None:
        sampled["phase"] = phase
    if version == "1.6":
        return sampled | {"value": repr(value + 0.0), "unit": unit}
    return sampled | {"unitOfMeasure": {"unit": unit}}


def reading_of(sampled: list[Payload], version: Version) -> Reading:
    """The reading of a meter value's sampled values.

    Raises
    ------
    MessageError
        If a value is no number, or its unit is unknown.
    ValueError
        If a value is not finite, or a register is missing; the registers of the phases must sum to that of
        all within 1e-6 of it, where there are both.

    """
    found: dict[str, dict[str | None, float]] = {}
    for value in sampled:
        measurand = value.get("measurand", _IMPORT)
        of_phase = found.setdefault(measurand, {})
        of_phase[value.get("phase")] = _number(value, measurand, version)
    energy = {}
    for register in (_IMPORT, _EXPORT):
        of_phase = found.get(register, {None: 0.0} if register == _EXPORT else {})
        parts = [part for phase, part in of_phase.items() if phase is not None]
        total = of_phase.get(None, math.fsum(parts) if parts else math.nan)
        if math.isnan(total):
            raise ValueError(f"{register} is missing")
        if parts and abs(math.fsum(parts) - total) > 1e-6 * max(abs(total), 1.0):
            raise ValueError(f"{register} is {total:g}, but its phases sum to {math.fsum(parts):g}")
        energy[register] = total / 1e3

    def of(measurand: str, factor: float) -> float | None:
        value = found.get(measurand, {}).get(None)
        return None if value is None else value * factor

    drawn, given = of("Power.Active.Import", 1e-3), of("Power.Active.Export", 1e-3)
    power = None if drawn is None and given is None else (drawn or 0.0) - (given or 0.0)
    most = of("Power.Import.Offered", 1e-3)
    offered = of("Power.Export.Offered", -1e-3)
    return Reading(
        energy[_IMPORT], energy[_EXPORT], power, of("SoC", 1e-2),
        of("Power.Offered", 1e-3) if most is None else most, None if offered is None else offered + 0.0,
        of("EnergyRequest.Target", 1e-3), of("Display.RemainingTimeToTargetSOC", 1.0),
        3 if any(phase in found.get(_IMPORT, {}) for phase in _PHASES[1:]) else 1,
    )  # fmt: skip


_MULTIPLES = {"kWh": 1e3, "kW": 1e3}
_UNITS = {"Wh", "W", "Percent", "s", *_MULTIPLES}


def _number(value: Payload, measurand: str, version: Version) -> float:
    """The value of a sampled value in Wh, W, percent, s, or its own unit of another measurand."""
    unit_of = {"unit": value.get("unit", "Wh")} if version == "1.6" else value.get("unitOfMeasure", {})
    unit, given = unit_of.get("unit", "Wh"), value["value"]
    try:
        plain = float(given)
    except ValueError:
        text = f"{measurand} is {given[:40]!r}: must be a number such as 1.5"
        raise MessageError("PropertyConstraintViolation", text) from None
    number: float = plain * 10.0 ** unit_of.get("multiplier", 0) * _MULTIPLES.get(unit, 1.0)
    if not math.isfinite(number):
        raise ValueError(f"{measurand} is {given}: must be a finite number")
    if unit not in _UNITS and measurand.startswith(("Energy.Active", "Power.", "EnergyRequest")):
        text = f"{measurand} is in {unit[:40]}: must be in Wh, kWh, W or kW"
        raise MessageError("PropertyConstraintViolation", text)
    return number


@dataclass(frozen=True, slots=True)
class Needs:
    """What an EV wants when it is plugged in.

    departure_s : s from the run's start; None: it doesn't say
    energy_kwh : energy from the grid that it wants by then
    charge_kw, discharge_kw : most that it can draw and give back; 0: it can't give back
    phases : 1 or 3
    dc : whether it charges by direct current
    """

    departure_s: float | None
    energy_kwh: float
    charge_kw: float
    discharge_kw: float = 0.0
    phases: int = 1
    dc: bool = False


def charging_needs(needs: Needs, version: Version, times: Times) -> Payload:
    """``chargingNeeds`` of NotifyEVChargingNeeds of OCPP 2.1 or 2.0.1; numbers of 2.0.1 are whole."""
    whole = version != "2.1"
    energy, power = needs.energy_kwh * 1e3, needs.charge_kw * 1e3
    if needs.dc:
        place, transfer = "dcChargingParameters", "DC"
        amounts = {
            "energyAmount": energy, "evMaxCurrent": power / DC_VOLTAGE, "evMaxVoltage": DC_VOLTAGE,
            "evMaxPower": power,
        }  # fmt: skip
    else:
        place = "acChargingParameters"
        transfer = "AC_three_phase" if needs.phases == 3 else "AC_single_phase"
        amounts = {
            "energyAmount": energy, "evMinCurrent": 0.0,
            "evMaxCurrent": power / (needs.phases * NOMINAL_VOLTAGE), "evMaxVoltage": NOMINAL_VOLTAGE,
        }  # fmt: skip
    if whole:
        amounts = {key: round(amount) for key, amount in amounts.items()}
    found: Payload = {"requestedEnergyTransfer": transfer, place: amounts}
    if not whole:
        found["v2xChargingParameters"] = {
            "maxChargePower": needs.charge_kw * 1e3, "evTargetEnergyRequest": needs.energy_kwh * 1e3
        }  # fmt: skip
        if needs.discharge_kw > 0.0:
            found["requestedEnergyTransfer"] = "DC_BPT" if needs.dc else "AC_BPT"
            found["v2xChargingParameters"]["maxDischargePower"] = needs.discharge_kw * 1e3
    if needs.departure_s is not None:
        found["departureTime"] = times.stamp(needs.departure_s)
    return found


def needs_of(payload: Payload, times: Times) -> Needs:
    """The needs of ``chargingNeeds``.

    Raises
    ------
    ValueError
        If they have neither AC, DC nor V2X parameters, or its departure is no timestamp.

    """
    v2x: Payload = payload.get("v2xChargingParameters", {})
    ac: Payload = payload.get("acChargingParameters", {})
    dc: Payload = payload.get("dcChargingParameters", {})
    transfer = payload["requestedEnergyTransfer"]
    if not (v2x or ac or dc):
        raise ValueError("chargingNeeds has neither acChargingParameters nor dcChargingParameters nor v2x…")
    phases = 1 if transfer == "AC_single_phase" else 3
    if transfer.startswith("AC_BPT") and ac:  # which says no phases: those of the greatest power
        amps = float(ac["evMaxCurrent"]) * float(ac["evMaxVoltage"])
        phases = 3 if amps and float(v2x.get("maxChargePower", amps)) > 1.5 * amps else 1
    of_current = float(ac["evMaxCurrent"]) * float(ac["evMaxVoltage"]) * phases if ac else 0.0
    of_dc = float(dc.get("evMaxPower") or dc["evMaxCurrent"] * dc["evMaxVoltage"]) if dc else 0.0
    energy = float(
        v2x.get("evTargetEnergyRequest") or ac.get("energyAmount") or dc.get("energyAmount") or 0.0
    )
    departure = payload.get("departureTime")
    return Needs(
        None if departure is None else times.seconds(departure), energy / 1e3,
        float(v2x.get("maxChargePower", of_current or of_dc)) / 1e3,
        float(v2x.get("maxDischargePower", 0.0)) / 1e3 if "BPT" in transfer else 0.0, phases,
        transfer.startswith("DC"),
    )  # fmt: skip


def setpoint_profile(
    setpoint_kw: float,
    profile_id: int,
    transaction_id: str,
    version: Version,
    discharge: bool = False,
    valid_to: str | None = None,
) -> Payload:
    """The TxProfile, as of OCPP 2.1, that is a set-point, kW, of the EV of a transaction.

    ``discharge``: whether the EV may give back: then it is a set-point (CentralSetpoint), which older
    versions don't have, else a limit. ``valid_to``: when it ends; None: it holds.

    Raises
    ------
    ValueError
        If it is no finite number: +inf is no profile.

    """
    if not math.isfinite(setpoint_kw):
        raise ValueError(f"set-point {setpoint_kw} kW: must be a finite number; +inf is no charging profile")
    period: Payload = {"startPeriod": 0}
    if discharge and version == "2.1":
        period |= {"setpoint": watts(setpoint_kw), "operationMode": "CentralSetpoint"}
    else:
        period |= {"limit": watts(max(setpoint_kw, 0.0))}
        if version == "2.1":
            period["operationMode"] = "ChargingOnly"
    profile = limit_profile("TxProfile", profile_id, 0, [period], valid_to)
    profile["transactionId"] = transaction_id
    return profile


def limit_profile(
    purpose: str, profile_id: int, stack_level: int, periods: list[Payload], valid_to: str | None = None
) -> Payload:
    """A charging profile in W that counts from a transaction's start (Relative), as of OCPP 2.1."""
    profile: Payload = {
        "id": profile_id,
        "stackLevel": stack_level,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Relative",
        "chargingSchedule": [{"id": profile_id, "chargingRateUnit": "W", "chargingSchedulePeriod": periods}],
    }
    if valid_to is not None:
        profile["validTo"] = valid_to
    return profile


_OLD_PURPOSES = {"ChargingStationMaxProfile": "ChargePointMaxProfile"}


def profile_to(profile: Payload, version: Version) -> Payload:
    """A charging profile of OCPP 2.1 as one of an older version; 1.6 rounds its powers to 0.1.

    Raises
    ------
    ValueError
        If the version can't say it.

    """
    if version == "2.1":
        return profile
    allowed = {"startPeriod", "limit", "numberPhases"} | ({"phaseToUse"} if version == "2.0.1" else set())
    schedules = []
    for schedule in profile["chargingSchedule"]:
        periods = []
        for period in schedule["chargingSchedulePeriod"]:
            extra = set(period) - allowed
            if period.get("operationMode", "ChargingOnly") != "ChargingOnly" or extra - {"operationMode"}:
                raise ValueError(f"OCPP {version} has no {', '.join(sorted(extra))} in a charging profile")
            kept = {key: value for key, value in period.items() if key in allowed}
            periods.append(kept | ({"limit": round(kept["limit"], 1)} if version == "1.6" else {}))
        schedules.append({**schedule, "chargingSchedulePeriod": periods})
    if version == "2.0.1":
        return {**profile, "chargingSchedule": schedules}
    if len(schedules) > 1:
        raise ValueError("OCPP 1.6 has one schedule in a charging profile")
    old = {key: value for key, value in profile.items() if key != "id"}
    old["chargingProfileId"] = profile["id"]
    old["chargingProfilePurpose"] = _OLD_PURPOSES.get(
        profile["chargingProfilePurpose"], profile["chargingProfilePurpose"]
    )
    old["chargingSchedule"] = {key: value for key, value in schedules[0].items() if key != "id"}
    if "transactionId" in old:
        old["transactionId"] = int(old["transactionId"])
    return old


def profile_from(profile: Payload, version: Version) -> Payload:
    """A charging profile of a version as one of OCPP 2.1."""
    if version != "1.6":
        return profile
    new = {key: value for key, value in profile.items() if key != "chargingProfileId"}
    new["id"] = profile["chargingProfileId"]
    purposes = {old: purpose for purpose, old in _OLD_PURPOSES.items()}
    purpose = profile["chargingProfilePurpose"]
    new["chargingProfilePurpose"] = purposes.get(purpose, purpose)
    new["chargingSchedule"] = [{"id": new["id"], **profile["chargingSchedule"]}]
    if profile["chargingProfileKind"] == "Absolute" and "startSchedule" not in profile["chargingSchedule"]:
        new["chargingProfileKind"] = "Relative"  # as 1.6 says of a schedule without one
    if "transactionId" in new:
        new["transactionId"] = str(new["transactionId"])
    return new
