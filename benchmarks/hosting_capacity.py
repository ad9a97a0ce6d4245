"""How long 1,000 Monte Carlo members of a street take: European LV, 288 steps, uncontrolled.

Half of the members charge at 3.7 kW, half at 7.4 kW, single-phase, every house has an EV. Members
run in rounds of 100 that are judged by EN 50160 and the thermal limits, as a hosting capacity study does.
``python -m benchmarks.hosting_capacity [members]``.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

ROUND = 100
SCENARIO = Path(__file__).parents[1] / "scenarios" / "european_lv_uncontrolled.yaml"


def rows(members: int = 1000) -> list[dict[str, Any]]:
    """What was measured: wall time, share of the feeder's power flow, peak memory."""
    from evgrid.studies.hosting_capacity import load_study, run_study

    wall_s = feeder_s = 0.0
    for power_kw in (3.7, 7.4):
        half = members // 2
        study = load_study(
            SCENARIO,
            levels=[1.0],
            limits=["en_50160", "thermal_instantaneous", "thermal_moving_average", "hot_spot"],
            members=min(ROUND, half),
            budget=half,
            precision=1e-9,  # all of the budget
            overrides={
                "time.step": "5min", "communication.telemetry": "5min", "fleet.charger.power_kw": power_kw,
            },
        )  # fmt: skip
        begin = time.perf_counter()
        result = run_study(study)
        wall_s += time.perf_counter() - begin
        feeder_s += float(result.attrs["feeder_s"])
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        {
            "what": f"European LV, {members} members x 288 steps, judged",
            "figure": f"{wall_s:.1f} s",
            "against": "in the power flow",
            "reference": f"{feeder_s:.1f} s",
            "ratio": feeder_s / wall_s,
        },
        {"what": "  peak memory", "figure": f"{peak_gb:.2f} GB"},
    ]


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(row)
