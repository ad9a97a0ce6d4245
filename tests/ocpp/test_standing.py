"""The standing charging profiles: a station without its CSMS does what the scenario's communication says."""

import math

import numpy as np
import pytest
from tests.support.street import street

from evgrid.fleet.link import scheduled
from evgrid.ocpp.charging_profiles import ChargingProfiles, Evse, Situation
from evgrid.ocpp.messages import times_of
from evgrid.ocpp.schemas import fault
from evgrid.ocpp.standing import StandingProfiles

SCHEDULE = [
    {"from": "22:00", "until": "06:00", "share": 0.5},
    {"from": "12:00", "until": "13:30", "power_kw": 3.0, "days": "weekend"},
    {"from": "09:00", "until": "10:00", "power_kw": 2.0, "days": ["monday", "wednesday"]},
]
RATED_KW = 8.0


def installed(until_s=600.0, **communication):
    """The profiles in a station of 8 kW, and its situation in a transaction since 0 s."""
    scenario = street(communication={"telemetry": "5min", **communication})
    times = times_of(scenario)
    station = ChargingProfiles(Evse(1, RATED_KW, 0.0, 230.0), times)
    standing = StandingProfiles(scenario, scenario.communication, np.array([RATED_KW]), times)
    now = Situation("t", 0.0, False, None, None, 0.0, None)
    station.start("t")
    for profile in standing.of(0, "2.1", until_s, first=True):
        assert fault(2, "SetChargingProfile", {"evseId": 1, "chargingProfile": profile}, "2.1") is None
        assert station.set(profile, 1, 0.0, now) is None
    return scenario, lambda time_s: station.at(time_s, now).power_kw


@pytest.mark.parametrize(("fallback", "then_kw"), [("uncontrolled", RATED_KW), ("stop", 0.0)])
def test_waits_until_the_timeout_then_falls_back(fallback, then_kw):
    _, power_kw = installed(timeout="10min", fallback=fallback)
    assert power_kw(599.0) == 0.0
    assert power_kw(601.0) == then_kw


def test_without_timeout_it_waits():
    _, power_kw = installed(until_s=math.inf)
    assert power_kw(86_400.0) == 0.0


def test_last_keeps_what_it_was_told():
    _, power_kw = installed(timeout="10min", fallback="last")
    assert power_kw(86_400.0) == 0.0  # no set-point has come: it waits


def test_schedule_of_a_week_is_that_of_a_simulated_evse():
    scenario, power_kw = installed(timeout="10min", fallback="schedule", schedule=SCHEDULE)
    windows = scenario.communication.schedule
    for time_s in np.arange(900.0, 15 * 86_400.0, 900.0).tolist():
        window = scheduled(windows, scenario.start, time_s)
        expected = 0.0
        if window is not None:
            expected = window.power_kw if window.share is None else window.share * RATED_KW
        assert power_kw(time_s) == pytest.approx(expected), time_s
