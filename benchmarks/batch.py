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


def _bare(folder: str, seeds: list[int], begin: Any, spans: Any) -> None:
    """Runs in one process, after one that makes it warm."""
    from evgrid.runs.simulation import run
    from evgrid.scenario import load_scenario

    run(load_scenario(SCENARIO), Path(folder) / "warm.nc").close()
    begin.wait()
    start = time.perf_counter()
    for seed in seeds:
        run(load_scenario(SCENARIO, {"ensemble.seed": seed}), Path(folder) / f"{seed}.nc").close()
    spans.put(time.perf_counter() - start)


def rows(runs: int = 60) -> list[dict[str, Any]]:
    """What was measured: wall time of the batch, and of its runs alone."""
    from evgrid.runs.batch import Batch, run_batch

    seeds = list(range(runs))
    with tempfile.TemporaryDirectory() as folder:
        batch = Batch.model_validate(
            {"name": "overhead", "base": SCENARIO, "grid": {"ensemble.seed": seeds}, "members_per_run": 1}
        )
        begin = time.perf_counter()
        report = run_batch(batch, Path(folder) / "batch", workers=2)
        batch_s = time.perf_counter() - begin
        assert report.finished == runs
        context = multiprocessing.get_context("spawn")
        barrier, spans = context.Barrier(2), context.Queue()
        processes = []
        for part in range(2):
            own = Path(folder) / str(part)
            own.mkdir()
            processes.append(context.Process(target=_bare, args=(str(own), seeds[part::2], barrier, spans)))
        for process in processes:
            process.start()
        bare_s = max(spans.get() for _ in processes)
        for process in processes:
            process.join()
    return [
        {
            "what": f"batch of {runs} one-day V1G runs, {60 * runs / batch_s:.1f} a minute",
            "figure": f"{batch_s:.1f} s",
            "against": "the bare runs in two warm processes",
            "reference": f"{bare_s:.1f} s",
            "ratio": batch_s / bare_s,
        }
    ]


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 60):
        print(row)
