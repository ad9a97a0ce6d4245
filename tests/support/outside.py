"""Runs in which another program takes a federate's place, over sockets on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import helics as h
import xarray as xr

from evgrid.federation.control import free_ports
from evgrid.runs.port_sheet import port_sheet
from evgrid.runs.simulation import run_with_report
from evgrid.scenario import Scenario
from evgrid.scenario.federation import FederationSettings

EXAMPLES = Path(__file__).parents[2] / "federates" / "examples"
HELICS = Path(h.__file__).parent / "install"


def example(name: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """The command of an example in Python."""
    return [python, str(EXAMPLES / name), *arguments]


def free_address() -> str:
    """An address on this machine at which a broker can listen."""
    return f"tcp://127.0.0.1:{free_ports()}"


def write_sheet(scenario: Scenario, folder: Path, broker: str) -> None:
    """Write what ``evgrid ports --json`` and ``--helics`` give."""
    sheet = replace(port_sheet(scenario), broker=broker)
    (folder / "sheet.json").write_text(json.dumps(sheet.as_json(sheet.federates)))
    for federate in sheet.federates:
        config = federate.helics_config(sheet.core_type, sheet.broker)
        (folder / f"{federate.name}.json").write_text(json.dumps(config))


def run_beside(scenario: Scenario, outside: str, command: Sequence[str], folder: Path) -> xr.Dataset:
    """Run a scenario whose federate ``outside`` is a process, started with the sheet in its folder.

    The result has what the other federates record.
    """
    broker = free_address()
    write_sheet(scenario, folder, broker)
    settings = FederationSettings(external=(outside,), broker=broker, wait=30.0)
    processes = list[subprocess.Popen[bytes]]()

    def start(_: str) -> None:
        processes.append(subprocess.Popen(command, cwd=folder))

    try:
        changed = scenario.model_copy(update={"federation": settings})
        result, _ = run_with_report(changed, announce=start)
        assert processes[0].wait(30) == 0
        return result
    finally:
        for process in processes:
            process.kill()
            process.wait()
