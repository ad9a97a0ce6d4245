"""Runs in which another program takes a federate's place, over sockets on this machine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import helics as h
import xarray as xr

from evgrid.federation import runtime
from evgrid.federation.adapter import Adapter
from evgrid.results import MemoryStore, ResultRecorder
from evgrid.runs.port_sheet import port_sheet
from evgrid.runs.simulation import build_models, build_world, coordinates
from evgrid.scenario import Scenario

EXAMPLES = Path(__file__).parents[2] / "federates" / "examples"
HELICS = Path(h.__file__).parent / "install"


def example(name: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """The command of an example in Python."""
    return [python, str(EXAMPLES / name), *arguments]


def free_address() -> str:
    """An address on this machine at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{found.getsockname()[1]}"


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
    processes = list[subprocess.Popen[bytes]]()

    class Federation(runtime._Federation):
        def open(self, sizes: Any, message_delay_s: Any) -> None:
            key, count = uuid.uuid4().hex, len(self._places)
            self._broker = h.helicsCreateBroker(
                "zmqss", f"broker-{key}", f"--federates={count} --local_interface={broker} --loglevel=error"
            )
            own = f"--federates={count - 1} --broker_address={broker} --loglevel=error"
            self._core = h.helicsCreateCore("zmqss", f"core-{key}", own)
            for place in self._places:
                if place.model.name != outside:
                    self.adapters.append(Adapter(place, sizes, self._clock, f"core-{key}", message_delay_s))
            for adapter in self.adapters:
                adapter.wait_for_others()
            self._running = len(self.adapters)
            processes.append(subprocess.Popen(command, cwd=folder))

        def run(self, progress: Callable[[float], None] | None) -> None:
            super().run(progress)
            assert processes[0].wait(30) == 0

    world = build_world(scenario)
    store = MemoryStore(coordinates(world))
    recorder = ResultRecorder(world.clock, scenario.record_step_s, world.sizes, store, world.selection)
    models = build_models(world, recorder)
    usual, runtime._Federation = runtime._Federation, Federation
    try:
        runtime.run_federation(models, world.sizes, world.clock)
    finally:
        runtime._Federation = usual
        for process in processes:
            process.kill()
            process.wait()
    recorder.close()
    return store.finish({})
