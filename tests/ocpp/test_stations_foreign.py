"""The charging stations against a CSMS that is not evgrid's: by ocpp-rpc of npm, with its own schemas."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ocpp")

from tests.ocpp.test_stations import minutes

from evgrid.ocpp.connection import Access
from evgrid.ocpp.stations import Settings, run_stations


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.1", "2.0.1", "1.6"])
def test_csms_of_another_implementation(npm: Path, small: Callable[..., Any], version: Any) -> None:
    """All messages of both pass its schemas, and its limits and set-points are followed."""
    with subprocess.Popen(
        ["node", "csms.js", version], cwd=npm, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as csms:
        assert csms.stdout is not None
        url = f"ws://127.0.0.1:{int(csms.stdout.readline())}"
        settings = Settings(Access(url, version), None, settle_s=0.2)
        result, _, report = run_stations(small(time=minutes(20)), settings)
        told = json.loads(csms.communicate()[0])
    assert told["bad"] == []
    assert told["answers"] == ["Accepted"] * 4  # of four transactions
    assert report.connected == 3
    assert report.counts.events == {}
    assert "0.2 s" in report.clock
    of_two = next(period for who, period in told["schedules"] if who == "two")
    drawn, given = (
        float(result[f"session_energy_{way}_kwh"].values[1]) for way in ("delivered", "discharged")
    )
    # the first minute isn't reported yet; the second begins after the first meter value, with the profile
    if version == "2.1":
        assert of_two["setpoint"] == -2000.0
        assert (drawn, given) == pytest.approx((0.0, 19 * 2.0 / 60.0))
    else:
        assert of_two["limit"] == 3000.0
        assert (drawn, given) == pytest.approx((19 * 3.0 / 60.0, 0.0))
    assert told["actions"]["BootNotification"] == 3
    ended = [event for event in told["events"]["three"] if event.get("eventType", "Ended") == "Ended"]
    assert [event["timestamp"] for event in ended] == ["2026-01-15T00:15:50.000Z"]
