"""The fleet as charging stations and an aggregator as CSMS, in lockstep: the numbers of a run in one process.

What may differ, and by how much, follows from the messages. Set-points have 1e-6 W at most, so that an EV
that follows one is off by 0.5e-9 kW; and timestamps have milliseconds, so that the time that an EV has left
is off by 0.5 ms, and the power by which a strategy has it meet its departure by that share of a tick. An EV's
energy over its session is then within 1 ms of its greatest power, and 1e-9 kW over the time plugged in
(:func:`energy_tolerance`). Energies of registers, prices and the time of day come over in full.
"""

import asyncio
import json
import queue
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tests.support.street import street

import evgrid
from evgrid.ocpp.connection import Access
from evgrid.ocpp.csms import Csms, run_csms
from evgrid.ocpp.server import StationServer
from evgrid.ocpp.stations import Settings, run_stations
from evgrid.scenario import scenario_from

PRICE = 0.6
"""Greatest price of the tariff, per kWh."""
STREET = {
    "ensemble.members": 1, "fleet.count": 12, "time.start": "2026-07-01T17:00", "time.duration": "1h",
    "time.step": "1min", "communication.telemetry": "1min", "feeder.base_load.source": "none",
}  # fmt: skip
CASES = {
    "limit, with delay and loss": (
        {"communication.delay": "2min", "communication.loss": 0.2},
        {"strategy": "peak_limit", "limit_kw": 12.0, "group": "feeder"},
    ),
    "V2G, with a link of each EVSE": (
        {"communication.latency": "3min", "communication.outages_per_day": 30.0, "communication.loss": 0.1,
         "communication.timeout": "8min", "communication.fallback": "stop", "feeder.base_load.source": "net"},
        {"strategy": "v2g_peak_shaving", "limit_kw": 708.0, "group": "feeder"},
    ),
}  # fmt: skip


def loop(scenario, version="2.1", speed=None):
    """Results of the CSMS and of the stations, in two threads."""
    address, found = queue.Queue(), []

    def serve():
        try:
            settings = Csms(("127.0.0.1", 0), speed, announce=address.put, patience_s=60.0)
            found.append(run_csms(scenario, settings)[0])
        except Exception as error:
            found.append(error)
            address.put("")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = address.get(timeout=60.0)
    stations = run_stations(scenario, Settings(Access(url, version), speed))[0] if url else None
    thread.join(60.0)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0], stations


def energy_tolerance(result):
    """Of each session, kWh: see the module."""
    hours = (result["session_departure"] - result["session_arrival"]) / np.timedelta64(1, "h")
    return 8.0 / 3600.0 * 1e-3 + 1e-9 * hours.values


def assert_same(found, expected):
    """Energies, costs and states of charge of sessions, and powers over time."""
    allowed = energy_tolerance(expected)
    for name in ("delivered", "discharged", "requested", "unserved"):
        name = f"session_energy_{name}_kwh"
        off = np.abs(found[name].values - expected[name].values)
        known = ~np.isnan(expected[name].values)
        assert np.all(off[known] <= allowed[known]), name
    off = np.abs(found["session_cost"].values - expected["session_cost"].values)
    assert np.all(off <= PRICE * 2.0 * allowed)
    ended = expected["session_complete"].values
    off = np.abs(found["session_soc_departure"].values - expected["session_soc_departure"].values)
    assert np.all(off[ended] <= 1e-6)
    step_s = float((expected["time"][1] - expected["time"][0]) / np.timedelta64(1, "s"))
    power_kw = 8.0 * found.sizes["ev"] * 1e-3 / step_s
    for name in ("fleet_power_kw", "head_power_kw"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2.0 * power_kw, err_msg=name)
    np.testing.assert_allclose(found["plugged"], expected["plugged"], atol=found.sizes["ev"] * 1e-3 / step_s)


@pytest.mark.parametrize("case", CASES)
def test_both_sides_have_the_numbers_of_one_process(case):
    overrides, aggregator = CASES[case]
    scenario = street(STREET | overrides, aggregators={"main": aggregator})
    expected = evgrid.run(scenario)
    csms, stations = loop(scenario)
    way = -1.0 if aggregator["strategy"].startswith("v2g") else 1.0
    assert float((way * expected["fleet_power_kw"]).max()) > 5.0
    assert_same(csms, expected)
    assert_same(stations, expected)
    of_stations = json.loads(csms.attrs["stations"]).values()
    assert not any(each["offence"] or each["malformed"] or each["refused_profiles"] for each in of_stations)
    assert float(np.abs(csms["late_energy_kwh"]).max()) < 1e-9


@pytest.mark.parametrize(
    ("version", "meter_kwh"), [pytest.param("2.0.1", 1e-9, marks=pytest.mark.slow), ("1.6", 1e-3)]
)
def test_older_versions_keep_the_limit_and_the_books(version, meter_kwh):
    """What they don't report is derived; 1.6 begins and ends transactions with whole Wh."""
    overrides, aggregator = STREET, {"strategy": "peak_limit", "limit_kw": 12.0, "group": "feeder"}
    csms, stations = loop(street(overrides, aggregators={"main": aggregator}), version)
    drawn = stations["session_energy_delivered_kwh"]
    assert float(drawn.sum()) > 5.0
    np.testing.assert_allclose(csms["session_energy_delivered_kwh"], drawn, rtol=0, atol=meter_kwh)
    assert float(csms["session_energy_discharged_kwh"].sum()) == 0.0
    assert float(stations["fleet_power_kw"].max()) <= 12.0 + 12 * 1e-4  # 1.6 rounds each power to 0.1 W
    of_stations = json.loads(csms.attrs["stations"]).values()
    assert not any(each["offence"] or each["malformed"] or each["refused_profiles"] for each in of_stations)


@pytest.mark.slow
def test_csms_that_is_gone_for_ten_minutes_has_all_energy_afterwards(monkeypatch, tmp_path):
    """By wall time, a minute in 0.2 s: the server closes in the tenth minute, and opens in the twentieth."""
    servers = []
    made = StationServer.start

    def start(server):
        servers.append(server)
        return made(server)

    async def reopen(server, port):
        await server._close()
        await asyncio.sleep(10 * 0.2)
        server._address = "127.0.0.1", port
        await server._open()

    def interrupt():
        while not servers or servers[0].time_s < 600.0:
            time.sleep(0.01)
        port = next(iter(servers[0]._server.sockets)).getsockname()[1]
        servers[0].run(reopen(servers[0], port))

    monkeypatch.setattr(StationServer, "start", start)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    (tmp_path / "sessions.csv").write_text(
        "ev,connection,arrival,departure,soc_arrival,capacity_kwh,charge_kw,discharge_kw,phase,soc_target\n"
        "a,Load R1,120,3900,0.2,50,7.4,0,abc,0.9\n"
        "b,Load R11,300,4020,0.2,50,7.4,0,abc,0.9\n"
        "c,Load R11,100,900,0.2,50,7.4,0,abc,0.9\n"  # leaves while the CSMS is gone
    )
    fleet = {"sessions": {"file": str(tmp_path / "sessions.csv")}, "charger": {"phases": 3}}
    overrides = {name: value for name, value in STREET.items() if not name.startswith("fleet")}
    overrides["time.duration"] = "90min"
    main = {"strategy": "peak_limit", "limit_kw": 12.0, "group": "feeder"}
    csms, stations = loop(street(overrides, fleet=fleet, aggregators={"main": main}), speed=300.0)
    thread.join(10.0)
    of_stations = json.loads(csms.attrs["stations"]).values()
    assert all(each["connections"] == 2 and not each["offence"] for each in of_stations)
    assert 0.0 in csms["stations_connected"].values[0, 10:20]
    for name in ("session_energy_delivered_kwh", "session_soc_departure"):
        np.testing.assert_allclose(csms[name], stations[name], rtol=0, atol=1e-9)
    assert float(csms["session_energy_delivered_kwh"].min()) > 1.0
    assert float(np.abs(csms["late_energy_kwh"]).max()) > 0.01


def test_reports_every_five_minutes():
    """Between two reports the feeder has the last power; energies and costs are those of the registers."""
    aggregator = {"strategy": "peak_limit", "limit_kw": 12.0, "group": "feeder"}
    scenario = street(STREET | {"communication.telemetry": "5min"}, aggregators={"main": aggregator})
    csms, stations = loop(scenario)
    for name, factor in (("energy_delivered_kwh", 1.0), ("cost", PRICE)):
        found, expected = (result[f"session_{name}"].values for result in (csms, stations))
        assert np.all(np.abs(found - expected) <= factor * 2.0 * energy_tolerance(stations)), name
    assert float(np.abs(csms["late_energy_kwh"]).max()) > 0.01
    ticks = float(csms["fleet_power_kw"].sum()) / 60.0 + float(csms["late_energy_kwh"].sum())
    assert ticks == pytest.approx(float(csms["ev_energy_drawn_kwh"].sum()), abs=1e-9)


BIG = {
    "name": "big", "time": {"start": "2026-01-15T16:00", "duration": "6h", "step": "1min"},
    "ensemble": {"seed": 7},
    "feeder": {"network": "european_lv", "base_load": {"source": "standard"}},
    "fleet": {"count": 200, "charger": {"power_kw": 7.4, "phases": 1, "bidirectional": 0.5}},
    "tariff": "pge_ev2a",
}  # fmt: skip
LIMIT = {"main": {"strategy": "peak_limit", "group": "transformer", "limit_kw": 120}}
V2G = {"main": {"strategy": "v2g_peak_shaving", "group": "transformer", "limit_kw": 5}}
BIG_CASES = {
    "limit, with delay and loss": (LIMIT, {"delay": "1min", "loss": 0.05}),
    "V2G": (V2G, {}),
    "V2G, with a link of each EVSE": (
        V2G, {"loss": 0.05, "outages_per_day": 4, "timeout": "10min", "fallback": "stop"},
    ),
}  # fmt: skip
"""Without latency, by which a strategy that shares by laxity amplifies differences, as it corrects late."""


@pytest.mark.slow
@pytest.mark.parametrize("case", BIG_CASES)
def test_200_evses_in_two_processes_have_the_numbers_of_one(case, tmp_path):
    """By the command line; the CSMS's result can be reported like any other."""
    aggregators, communication = BIG_CASES[case]
    content = BIG | {"aggregators": aggregators, "communication": {"telemetry": "1min", **communication}}
    (tmp_path / "big.yaml").write_text(json.dumps(content))  # JSON is YAML
    expected = evgrid.run(scenario_from(content))
    evgrid_ = [sys.executable, "-m", "evgrid.cli"]
    serve = [
        *evgrid_,
        "ocpp",
        "csms",
        "big.yaml",
        "--listen",
        "127.0.0.1:0",
        "--speed",
        "max",
        "-o",
        "csms.nc",
    ]
    csms = subprocess.Popen(serve, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = csms.stderr.readline()
        address = line.split()[1].removesuffix("/IDENTITY:")
        stations = [
            *evgrid_,
            "ocpp",
            "stations",
            "big.yaml",
            "--csms",
            address,
            "--speed",
            "max",
            "-o",
            "st.nc",
        ]
        done = subprocess.run(
            stations, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        out, err = csms.communicate(timeout=60)
        assert csms.returncode == 0, err
    finally:
        csms.kill()
        csms.wait()
    assert "200 of 200 connected" in out
    way = -1.0 if case.startswith("V2G") else 1.0
    assert float((way * expected["fleet_power_kw"]).max()) > 10.0
    with (
        evgrid.open_results(tmp_path / "csms.nc") as of_csms,
        evgrid.open_results(tmp_path / "st.nc") as of_st,
    ):
        assert_same(of_csms, expected)
        assert_same(of_st, expected)
    page = subprocess.run(
        [*evgrid_, "report", "csms.nc"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert page.returncode == 0, page.stderr
