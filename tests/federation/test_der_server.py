# ruff: noqa: E501
"""Runs with a server of IEEE 2030.5 on loopback: controls as they come, the record, and a server that fails."""

import logging
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest
from tests.support.ieee2030_5 import control, controls, default, programs, watts

import evgrid
from evgrid.errors import RunError, ScenarioError
from evgrid.scenario import scenario_from


@contextmanager
def serving():
    """A server of documents by path; ``script``: what happens at the n-th question for the programs."""

    class State:
        documents: dict[str, str] = {}
        script: dict[int, object] = {}
        asked = 0
        status = 200

    state = State()
    state.documents, state.script = {}, {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536

        def do_GET(self):
            path = urlsplit(self.path).path
            if path == "/derp":
                state.script.get(state.asked, lambda s: None)(state)
                state.asked += 1
            found = state.documents.get(path)
            status = state.status if found is not None else 404
            body = (found or "").encode() if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/sep+xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server():
    with serving() as state:
        yield state


@pytest.fixture
def content(tmp_path):
    """Two EVs of 11 kW from 17:50 on, in UTC, which charge at once but for signals."""
    (tmp_path / "s.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh,capacity_kwh,charge_kw\n"
        "a,Load R11,2026-01-15T17:50,2026-01-16T06:00,33,60,11\n"
        "b,Load R15,2026-01-15T17:50,2026-01-16T06:00,33,60,11\n"
    )
    return {
        "name": "live",
        "time": {"start": "2026-01-15T17:30", "duration": "3h", "step": "5min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "fleet": {"sessions": {"file": "s.csv"}, "charger": {"phases": 3, "power_kw": 11}},
        "aggregators": {"main": {"strategy": "demand_response"}},
        "communication": {"telemetry": "5min"},
    }


NO_EVENT = [{"name": "none", "start": "2027-01-01T00:00", "duration": "1h"}]


def live(content, server, tmp_path, **more):
    given = {
        "url": server.url,
        "programs": "/derp",
        "every": "5min",
        "record": str(tmp_path / "came.jsonl"),
        **more,
    }
    system = {"events": NO_EVENT, "ieee2030_5": {"server": given, "timezone": "UTC"}}
    return scenario_from(content | {"system": system}, folder=tmp_path)


def at(result, time):
    return float(result["fleet_power_kw"].isel(member=0).sel(time=f"2026-01-15T{time}", method="ffill"))


def limits(*kw, program=0):
    """Controls from 18:00 for 2 h each, one a limit."""
    return controls(
        *(control(f"0{n}", "2026-01-15T18:00", 7200, watts("opModImpLimW", value), created=f"2026-01-15T0{n}:00", program=program) for n, value in enumerate(kw)),
        program=program,
    )  # fmt: skip


def test_controls_come_and_go_and_the_record_repeats_the_run(content, server, tmp_path):
    """From 17:30 every 5 min: a default of 20 kW; a limit of 6 kW comes at 18:15, one of 4 kW of the better program
    at 18:30, which goes at 19:00.
    """
    server.documents = {
        "/derp": programs(5, 2),
        "/derp/0/dderc": default(watts("opModImpLimW", 20)),
        "/derp/1/dderc": default("", 1),
    }
    server.script = {
        9: lambda s: s.documents.update({"/derp/0/derc": limits(6)}),
        12: lambda s: s.documents.update({"/derp/1/derc": limits(4, program=1).replace("<mRID>00", "<mRID>AA")}),
        18: lambda s: s.documents.pop("/derp/1/derc"),
    }  # fmt: skip
    result = evgrid.run(live(content, server, tmp_path))
    found = [at(result, t) for t in ("18:00", "18:15", "18:25", "18:30", "18:55", "19:00", "19:55", "20:00")]
    assert found == pytest.approx([20, 6, 6, 4, 4, 6, 6, 20])
    system = {"events": NO_EVENT, "ieee2030_5": {"files": [str(tmp_path / "came.jsonl")], "timezone": "UTC"}}
    repeated = evgrid.run(scenario_from(content | {"system": system}, folder=tmp_path))
    np.testing.assert_array_equal(result["fleet_power_kw"], repeated["fleet_power_kw"])


def test_a_server_that_fails_leaves_the_last_controls_and_is_said_once(content, server, tmp_path, caplog):
    server.documents = {"/derp": programs(1), "/derp/0/derc": limits(6), "/derp/0/dderc": default("")}
    server.script = {
        9: lambda s: setattr(s, "status", 500),
        15: lambda s: (setattr(s, "status", 200), s.documents.pop("/derp/0/derc")),
    }
    with caplog.at_level(logging.WARNING, "evgrid"):
        result = evgrid.run(live(content, server, tmp_path))
    assert [at(result, t) for t in ("18:05", "18:40", "18:45")] == pytest.approx([6, 6, 22])
    said = [r.getMessage() for r in caplog.records if r.name == "evgrid"]
    assert len(said) == 2
    assert "gives no answer at 2026-01-15T18:15:00: Sep2" in said[0]
    assert said[1].endswith("answers again at 2026-01-15T18:45:00")


def test_a_server_that_does_not_answer_at_the_begin_ends_the_run(content, server, tmp_path):
    server.status = 500
    server.documents = {"/derp": programs(1)}
    with pytest.raises(
        RunError, match="system.ieee2030_5: the server .* gives no answer at the begin of the run"
    ):
        evgrid.run(live(content, server, tmp_path))


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ({"url": "http://example.org"}, {}, "must begin with https://, or http:// on this machine"),
        (
            {"url": "https://example.org"},
            {},
            "certificate, key and authority: are required together, and with https",
        ),
        (
            {"url": "http://127.0.0.1", "certificate": "s.csv", "key": "s.csv"},
            {},
            "certificate, key and authority: are required together",
        ),
        (
            {"url": "https://x", "certificate": "s.csv", "key": "s.csv", "authority": "s.csv"},
            {"files": ["s.csv"]},
            "give either files or server",
        ),
    ],
)
def test_settings_at_fault(content, tmp_path, given, more, message):
    system = {"ieee2030_5": {"server": given, "timezone": "UTC", **more}}
    with pytest.raises(ScenarioError, match=message):
        scenario_from(content | {"system": system}, folder=tmp_path)
