"""Runs in which another program takes a federate's place, over sockets on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import helics as h
import xarray as xr

from evgrid.runs.port_sheet import port_sheet
from evgrid.runs.simulation import run_with_report
from evgrid.scenario import Scenario
from evgrid.scenario.federation import FederationSettings

EXAMPLES = Path(__file__).parents[2] / "federates" / "examples"
HELICS = Path(h.__file__).parent / "install"


def example(name: str, *arguments: str) -> list[str]:
    """The command of an example in Python."""
    return [sys.executable, str(EXAMPLES / name), *arguments]


def write_sheet(scenario: Scenario, folder: Path, broker: str) -> None:
    """Write what ``evgrid ports --json`` and ``--helics`` give."""
    sheet = replace(port_sheet(scenario), broker=broker)
    (folder / "sheet.json").write_text(json.dumps(sheet.as_json(sheet.federates)))
    for federate in sheet.federates:
        config = federate.helics_config(sheet.core_type, broker)
        (folder / f"{federate.name}.json").write_text(json.dumps(config))


def run_beside(scenario: Scenario, programs: Mapping[str, Sequence[str]], folder: Path) -> xr.Dataset:
    """Run a scenario, some of whose federates are processes: their commands, started beside the sheet."""
    scenario = scenario.model_copy(update={"federation": FederationSettings(external=tuple(programs))})
    processes = list[subprocess.Popen[bytes]]()

    def start(broker: str) -> None:
        write_sheet(scenario, folder, broker)
        processes.extend(subprocess.Popen(command, cwd=folder) for command in programs.values())

    try:
        result, _ = run_with_report(scenario, announce=start)
        assert [process.wait(30) for process in processes] == [0] * len(programs)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return result
