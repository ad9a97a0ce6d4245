"""The standing charging profiles that the CSMS gives every station after its boot.

They say what a station does without a set-point, by the scenario's ``communication``. Level 1 is to wait, 0
W; where ``communication.timeout`` is given it expires unless it is renewed, as TxProfiles do. Then level 0
holds, the ``fallback``: ``uncontrolled`` is the EVSE's rating, ``stop`` 0 W, ``schedule`` the scenario's own
schedule in a week that recurs; ``last`` has none, and nothing expires.
"""

from __future__ import annotations

import math

import numpy as np

from evgrid.core.model import Array
from evgrid.fleet.link import scheduled
from evgrid.ocpp.messages import Times, limit_profile, watts
from evgrid.ocpp.schemas import Payload, Version
from evgrid.scenario import Scenario
from evgrid.scenario.communication import Communication

FALLBACK_ID, WAIT_ID, TX_PROFILE_ID = 1, 2, 3
"""Identifiers of the profiles that the CSMS installs in a station."""
_WEEK_H = 168.0


class StandingProfiles:
    """The standing profiles of all stations; ``rated_kw``: (ev,) rating of each EVSE."""

    def __init__(self, scenario: Scenario, link: Communication, rated_kw: Array, times: Times) -> None:
        self._link, self._rated_kw, self._times = link, rated_kw, times
        self._start = scenario.start

    def of(self, ev: int, version: Version, until_s: float, first: bool) -> list[Payload]:
        """The profiles of an EV's station, as of OCPP 2.1; ``first``: also that which doesn't expire.

        ``until_s``: when the others expire, s; infinite: never.
        """
        keeps = self._link.fallback == "last" or not math.isfinite(until_s)
        valid_to = None if keeps else self._times.stamp(until_s)
        wait = limit_profile("TxDefaultProfile", WAIT_ID, 1, [{"startPeriod": 0, "limit": 0.0}], valid_to)
        fallback = self._fallback(ev) if first else None
        return [wait] if fallback is None else [fallback, wait]

    def _fallback(self, ev: int) -> Payload | None:
        kind, rated_w = self._link.fallback, watts(float(self._rated_kw[ev]))
        if kind == "last":
            return None
        if kind == "schedule":
            return self._of_week(float(self._rated_kw[ev]))
        limit = rated_w if kind == "uncontrolled" else 0.0
        return limit_profile("TxDefaultProfile", FALLBACK_ID, 0, [{"startPeriod": 0, "limit": limit}])

    def _of_week(self, rated_kw: float) -> Payload:
        """The scenario's own schedule as limits over a week from Monday; negative powers are 0."""
        windows = self._link.schedule or []
        midnight = self._start.astype("datetime64[D]")
        monday = midnight - (midnight.astype(np.int64) + 3) % 7
        hours = {0.0}
        for window in windows:
            for day in range(8):
                hours |= {(24.0 * day + hour) % _WEEK_H for hour in (window.begin, window.until)}
        periods, last = list[Payload](), math.nan
        for hour in sorted(hours):
            window_then = scheduled(windows, monday.astype("datetime64[s]"), 3600.0 * hour)
            power_kw = 0.0
            if window_then is not None:
                of_rating = window_then.share
                power_kw = window_then.power_kw or 0.0 if of_rating is None else of_rating * rated_kw
            limit = watts(max(power_kw, 0.0))
            if limit != last:
                periods.append({"startPeriod": round(3600.0 * hour), "limit": limit})
            last = limit
        profile = limit_profile("TxDefaultProfile", FALLBACK_ID, 0, periods)
        profile["chargingProfileKind"], profile["recurrencyKind"] = "Recurring", "Weekly"
        since_s = float((monday - self._start) / np.timedelta64(1, "s"))
        profile["chargingSchedule"][0]["startSchedule"] = self._times.stamp(since_s)
        return profile
