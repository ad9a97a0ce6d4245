"""The CSMS against a station that is not evgrid's: by ocpp-rpc of npm, with its own schemas."""

import asyncio
import json
import os

import pytest
from tests.support.charging_stations import run_beside
from tests.support.street import street


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.1", "2.0.1", "1.6"])
def test_station_of_another_implementation(npm, tmp_path, version):
    """All its messages and ours pass its schemas; it follows the limit, and its energy is in the books."""

    async def play(beside):
        begin = beside.times.stamp(0.0)
        process = await asyncio.create_subprocess_exec(
            "node", "station.js", f"{beside.url}/ocpp", "ev0001", version, cwd=npm,
            env={**os.environ, "BEGIN": begin},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    (tmp_path / "sessions.csv").write_text(
        "ev,connection,arrival,departure,soc_arrival,capacity_kwh,charge_kw,discharge_kw,phase,soc_target\n"
        "ev0001,Load R1,0,72000,0.2,50,7.4,0,abc,0.9\n"
    )
    overrides = {
        "ensemble.members": 1, "time.duration": "15min", "time.step": "10s", "communication.telemetry": "10s",
        "feeder.base_load.source": "none",
    }  # fmt: skip
    fleet = {"sessions": {"file": str(tmp_path / "sessions.csv")}, "charger": {"phases": 3}}
    main = {"strategy": "peak_limit", "limit_kw": 2.5, "group": "feeder"}
    scenario = street(overrides, fleet=fleet, aggregators={"main": main})
    result, told = run_beside(scenario, play, lockstep=False, speed=120.0)
    assert told["bad"] == []
    assert told["asked"] == []
    assert max(told["limits"]) == 2500.0
    drawn_kwh = told["countedWh"] / 1e3
    assert drawn_kwh > 0.0
    station = json.loads(result.attrs["stations"])["ev0001"]
    assert (station["offence"], station["malformed"], station["refused_profiles"]) == ("", 0, 0)
    (one,) = json.loads(result.attrs["transactions"])
    assert one["drawn_kwh"] == pytest.approx(drawn_kwh, abs=1e-3)  # it rounds its register at the end
    assert result["session_energy_delivered_kwh"].values[0] == pytest.approx(one["drawn_kwh"])
