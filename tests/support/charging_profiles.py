"""Charging profiles from a short notation: the fields of OCPP, less those that are mostly the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from evgrid.ocpp.messages import Times

START = np.datetime64("2026-01-15T00:00:00")
OF_SCHEDULE = (
    "duration",
    "limitAtSoC",
    "useLocalTime",
    "randomizedDelay",
    "startSchedule",
    "minChargingRate",
)


def profile_of(short: dict[str, Any], number: int, times: Times, transaction: str | None) -> dict[str, Any]:
    """A charging profile; ``number``: its id, where it has none."""
    given = dict(short)
    schedule: dict[str, Any] = {"id": number, "chargingRateUnit": given.pop("unit", "W")}
    schedule |= {key: given.pop(key) for key in OF_SCHEDULE if key in given}
    if "start" in given:
        schedule["startSchedule"] = times.stamp(given.pop("start"))

    def schedule_of(periods: list[dict[str, Any]]) -> dict[str, Any]:
        return {**schedule, "chargingSchedulePeriod": [{"startPeriod": 0, **period} for period in periods]}

    schedules = [schedule_of(periods) for periods in (given.pop("periods"), *given.pop("more", ()))]
    profile = {
        "id": given.pop("id", number),
        "stackLevel": given.pop("level", 0),
        "chargingProfilePurpose": given.pop("purpose"),
        "chargingProfileKind": given.pop("kind", "Relative"),
        "chargingSchedule": schedules,
    }
    if profile["chargingProfilePurpose"] == "TxProfile":
        profile["transactionId"] = given.pop("transactionId", transaction)
        if profile["transactionId"] is None:
            del profile["transactionId"]
    for key, name in (("from", "validFrom"), ("to", "validTo"), ("updated", "dynUpdateTime")):
        if key in given:
            profile[name] = times.stamp(given.pop(key))
    if "recurrency" in given:
        profile["recurrencyKind"] = given.pop("recurrency")
    given.pop("evse_id", None)
    given.pop("source", None)
    return profile | given
