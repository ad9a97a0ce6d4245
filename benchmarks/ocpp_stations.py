"""Charging stations of one process: messages a second, memory a station, and lateness in real time.

Each station sends a meter value a minute, and gets a new charging profile for it from a CSMS in a process of
its own, on the same machine. ``python -m benchmarks ocpp_stations``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SMOKE: dict[str, Any] = {"stations": 20, "minutes": 2, "real_minutes": 1, "speed": 600.0}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def rows(
    stations: int = 5000, minutes: int = 5, real_minutes: int = 3, speed: float = 1.0
) -> list[dict[str, Any]]:
    """Messages a second as fast as the CSMS answers; then lateness in real time."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ocpp_csms"], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[1],
    ) as csms:  # fmt: skip
        assert csms.stdout is not None
        try:
            url = f"ws://127.0.0.1:{int(csms.stdout.readline())}"
            return [*_fast(url, stations, minutes), *_real(url, stations, real_minutes, speed)]
        finally:
            csms.terminate()


def _fast(url: str, stations: int, minutes: int) -> list[dict[str, Any]]:
    import psutil

    process = psutil.Process()
    _run(url, 10, minutes, None)  # compiles, and loads what it takes whatever the number
    before = process.memory_info().rss
    report = _run(url, stations, minutes, None)
    held = process.memory_info().rss - before
    messages = report.counts.sent + report.counts.received
    what = f"{stations:,} OCPP 2.1 stations"
    return [
        {"what": f"{what}, as fast as the CSMS answers",
         "figure": f"{messages / report.wall_s:,.0f} messages/s",
         "against": "needed: a meter value and a profile a minute each, answered",
         "reference": f"{stations * 4 / 60:,.0f} messages/s",
         "ratio": messages / report.wall_s / (stations * 4 / 60)},
        {"what": f"{what}: memory", "figure": f"{held / stations / 1024:,.0f} KiB a station",
         "against": "in all", "reference": f"{process.memory_info().rss / 2**20:,.0f} MiB"},
    ]  # fmt: skip


def _real(url: str, stations: int, minutes: int, speed: float) -> list[dict[str, Any]]:
    report = _run(url, stations, minutes, speed)
    return [
        {"what": f"{stations:,} OCPP 2.1 stations in real time x {speed:g}: all of a tick answered after",
         "figure": f"{report.worst_answer_s:.2f} s", "against": "a tick", "reference": f"{60 / speed:g} s",
         "ratio": report.worst_answer_s / (60.0 / speed)},
        {"what": f"latest begin of {minutes + 1} ticks", "figure": f"{report.worst_late_s:.3f} s"},
    ]  # fmt: skip


def _run(url: str, stations: int, minutes: int, speed: float | None) -> Any:
    from evgrid.ocpp.connection import Access
    from evgrid.ocpp.stations import Settings, run_stations
    from evgrid.scenario import scenario_from

    with tempfile.TemporaryDirectory() as folder:
        lines = ["ev,connection,arrival,departure,soc_arrival,capacity_kwh,charge_kw"]
        lines += [f"ev{n},load {n % 32},0,{10**6},0.1,60,11" for n in range(stations)]
        (Path(folder) / "sessions.csv").write_text("\n".join(lines))
        content = {
            "name": "stations",
            "time": {"start": "2026-01-15T00:00", "duration": f"{minutes}min", "step": "1min"},
            "feeder": {"network": "case33bw", "base_load": {"source": "none"}, "step": f"{minutes}min"},
            "fleet": {"sessions": {"file": "sessions.csv"}, "charger": {"phases": 3, "power_kw": 11}},
            "aggregators": {"main": {"strategy": "uncontrolled"}},
            "communication": {"telemetry": "1min"},
            "record": {"buses": "none", "lines": "none", "step": f"{minutes}min"},
        }
        settings = Settings(Access(url), speed, connect_s=300.0)
        return run_stations(scenario_from(content, folder=folder), settings)[2]
