"""What a batch costs over its bare runs: one-day European LV scenarios with V1G feedback, on two cores.

The same runs are made twice: as a batch with two workers, each run in a process of its own (the start of
the cluster counts), and bare, one after the other in two processes that are warm.
``python -m benchmarks.batch [runs]``.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCENARIO = Path(__file__).parents[1] / "scenarios" / "european_lv_v1g.yaml"

SMOKE: dict[str, Any] = {"runs": 1, "hours": 1, "workers": 1}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def _bare(folder: str, seeds: list[int], hours: int, begin: Any, spans: Any) -> None:
    """Runs in one process, after one that makes it warm."""
    from evgrid.runs.simulation import run
    from evgrid.scenario import load_scenario

    duration = {"time.duration": f"{hours}h"}
    run(load_scenario(SCENARIO, duration), Path(folder) / "warm.nc").close()
    begin.wait()
    start = time.perf_counter()
    for seed in seeds:
        run(load_scenario(SCENARIO, {"ensemble.seed": seed} | duration), Path(folder) / f"{seed}.nc").close()
    spans.put(time.perf_counter() - start)


def rows(runs: int = 60, hours: int = 24, workers: int = 2) -> list[dict[str, Any]]:
    """What was measured: wall time of the batch, and of its runs alone."""
    from evgrid.runs.batch import Batch, run_batch

    seeds = list(range(runs))
    with tempfile.TemporaryDirectory() as folder:
        batch = Batch.model_validate(
            {
                "name": "overhead",
                "base": SCENARIO,
                "members_per_run": 1,
                "grid": {"ensemble.seed": seeds, "time.duration": [f"{hours}h"]},
            }
        )
        begin = time.perf_counter()
        report = run_batch(batch, Path(folder) / "batch", workers=workers)
        batch_s = time.perf_counter() - begin
        assert report.finished == runs
        context = multiprocessing.get_context("spawn")
        barrier, spans = context.Barrier(workers), context.Queue()
        processes = []
        for part in range(workers):
            own = Path(folder) / str(part)
            own.mkdir()
            processes.append(
                context.Process(target=_bare, args=(str(own), seeds[part::workers], hours, barrier, spans))
            )
        for process in processes:
            process.start()
        bare_s = max(spans.get() for _ in processes)
        for process in processes:
            process.join()
    return [
        {
            "what": f"batch of {runs} V1G runs of {hours} h, {60 * runs / batch_s:.1f} a minute",
            "figure": f"{batch_s:.1f} s",
            "against": f"the bare runs in {workers} warm processes",
            "reference": f"{bare_s:.1f} s",
            "ratio": batch_s / bare_s,
        }
    ]


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 60):
        print(row)
