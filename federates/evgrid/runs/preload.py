"""Preloading of a process by importing this module: libraries and kernels are loaded, no thread is started.

For the process from which a batch's runs are forked (:mod:`evgrid.runs.worker_process`), so that they need
not load them. Two ticks of a small case are stepped; the result is discarded.
"""

from __future__ import annotations

import gc
import tempfile
from importlib import import_module
from pathlib import Path

from evgrid.core.energy_audit import audit
from evgrid.federation import step_in_line
from evgrid.results import FORMAT, FileStore, ResultRecorder
from evgrid.runs.simulation import build_models, build_world, coordinates
from evgrid.scenario import scenario_from

CASE = {
    "name": "warm",
    "time": {"start": "2026-01-15T18:00", "duration": "2min", "step": "60s"},
    "feeder": {"network": "european_lv"},
    "fleet": {"penetration": 1.0, "charger": {"bidirectional": 0.5}},
    "aggregators": {"main": {"strategy": "v2g_peak_shaving", "group": "transformer", "limit_kw": 45}},
    "tariff": "pge_ev2a",
}
"""Three phases, with feedback."""


LIBRARIES = ("netCDF4", "distributed")
"""Further imports of a run; xarray imports the last when it writes a file."""


def warm() -> None:
    """Import, and step the models of ``CASE``."""
    for name in LIBRARIES:
        import_module(name)
    scenario = scenario_from(CASE)
    world = build_world(scenario)
    with tempfile.TemporaryDirectory() as folder:
        store = FileStore(Path(folder) / "result.nc", coordinates(world))
        recorder = ResultRecorder(world.clock, scenario.record_step_s, world.sizes, store)
        models = build_models(world, recorder)
        recorder.register(models, scenario.currency)
        step_in_line(models, world.sizes, world.clock)
        recorder.close()
        audits = {model.name: model.audit() for model in models}
        audit(audits["fleet"], audits["feeder"], scenario.members)
        store.finish({"format": FORMAT}).close()


warm()
gc.collect()
gc.freeze()  # existing objects stay shared with the processes forked from this one
