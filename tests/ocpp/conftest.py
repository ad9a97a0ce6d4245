"""A small run of three EVs on a feeder without other load, an hour in ticks of a minute; ocpp-rpc of npm."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evgrid.scenario import Scenario, scenario_from

SESSIONS = """ev,connection,arrival,departure,soc_arrival,capacity_kwh,charge_kw,discharge_kw,phase,soc_target
one,Load R1,330,1830,0.2,50,11,0,abc,0.25
two,Load R1,0,7200,0.6,40,7.4,7.4,abc,0.8
three,Load R11,650,950,0.5,30,3.7,0,a,0.8
three,Load R11,970,3000,0.5,30,3.7,0,a,0.8
"""


SMALL: dict[str, Any] = {
    "name": "small",
    "time": {"start": "2026-01-15T00:00", "duration": "1h", "step": "1min"},
    "feeder": {
        "network": "cigre_lv", "base_load": {"source": "none"}, "step": "5min",
        "zero_sequence": {"recipe": "four_wire"},
    },
    "fleet": {"sessions": {"file": "sessions.csv"}, "charger": {"phases": 3, "power_kw": 11}},
    "aggregators": {"main": {"strategy": "v2g_peak_shaving", "limit_kw": 100}},
    "communication": {"telemetry": "1min"},
    "record": {"ev": True, "step": "5min"},
}  # fmt: skip


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scenario]:
    """Makes the small scenario, with changes."""
    folder: Path = tmp_path_factory.mktemp("ocpp")
    (folder / "sessions.csv").write_text(SESSIONS)
    return lambda **changes: scenario_from(SMALL | changes, folder=folder)


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ocpp-rpc and the programs of ``foreign``; skipped where that can't be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "ocpp-rpc@2.2.1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"ocpp-rpc can't be installed: {done.stderr.strip().splitlines()[-1:]}")
    for program in (Path(__file__).parent / "foreign").glob("*.js"):
        shutil.copy(program, folder)
    return folder
