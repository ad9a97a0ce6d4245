"""How long 1,000 Monte Carlo members of a street take: European LV, 288 steps, uncontrolled.

Every house has an EV at a single-phase charger of 3.7 or 7.4 kW, half of each. Members run in two processes,
a hundred at a time, and are judged by all limits, as a hosting capacity study does.
``python -m benchmarks.hosting_capacity [members]``.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUN, WORKERS = 100, 2
SCENARIO = Path(__file__).parents[1] / "scenarios" / "european_lv_uncontrolled.yaml"

SMOKE: dict[str, Any] = {"members": 2, "hours": 1, "workers": 1}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def rows(members: int = 1000, hours: int = 24, workers: int = WORKERS) -> list[dict[str, Any]]:
    """What was measured: wall time, share of the feeder's power flow, peak memory."""
    from evgrid.runs.batch import read_index
    from evgrid.studies.hosting_capacity import load_study, run_study

    study = load_study(
        SCENARIO,
        levels=[1.0],
        members=members,
        members_per_run=RUN,
        overrides={
            "time.duration": f"{hours}h", "time.step": "5min", "communication.telemetry": "5min",
            "fleet.charger.ratings": {3.7: 0.5, 7.4: 0.5},
        },
    )  # fmt: skip
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = run_study(study, folder, workers=workers)
        wall_s = time.perf_counter() - begin
        of_a_run = read_index(folder)["peak_memory_mib"].max() / 2**10
    runs_s, feeder_s = float(result.attrs["runs_s"]), float(result.attrs["feeder_s"])
    peak_gb = workers * of_a_run + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        {
            "what": f"European LV, {members} members x {12 * hours} steps, judged",
            "figure": f"{wall_s:.1f} s",
        },
        {
            "what": "  in the power flow",
            "figure": f"{feeder_s:.1f} s",
            "against": "all of the runs, side by side",
            "reference": f"{runs_s:.1f} s",
            "ratio": feeder_s / runs_s,
        },
        {"what": f"  peak memory, {workers} runs and the study", "figure": f"{peak_gb:.2f} GB"},
    ]


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(row)
