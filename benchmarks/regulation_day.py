"""A day of 100,000 EVs that sell regulation, through HELICS: how its wall time splits, and its memory.

``scenarios/frequency_regulation_100k.yaml``: 21,600 ticks of 4 s, 5,000 EVs on a medium-voltage network
of 179 buses that is solved every minute, the others upstream of it, V2G. To reach on two cores: 90 s and
2 GB, HELICS below 15 %.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import evgrid
from evgrid.runs.simulation import RunReport, run_with_report

SCENARIO = Path(__file__).parents[1] / "scenarios" / "frequency_regulation_100k.yaml"
LIMIT_S, LIMIT_GB = 90.0, 2.0
NAMES = {"aggregator": "dispatch", "feeder": "power flow", "system": "bulk system"}

SMOKE: dict[str, Any] = {"hours": 0.05, "evs": 1000}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def measure(hours: float, evs: int) -> tuple[RunReport, float, float]:
    """Report, CPU seconds of all threads, and peak memory of this process in GB, of a run."""
    fleet = {"fleet.count": evs // 20, "fleet.upstream": evs - evs // 20}
    scenario = evgrid.load_scenario(SCENARIO, {"time.duration": f"{hours:g}h"} | fleet)
    with TemporaryDirectory() as folder:
        evgrid.run(  # compile and import
            evgrid.load_scenario(SCENARIO, fleet | {"time.duration": "3min", "fleet.upstream": 1000})
        )
        start = time.process_time()
        result, report = run_with_report(scenario, Path(folder) / "r.nc")
        result.close()
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return report, time.process_time() - start, kib / 1e6


def rows(hours: float = 24.0, evs: int = 100_000) -> list[dict[str, Any]]:
    """The whole day, and a row for each part of its wall time."""
    report, cpu_s, peak_gb = measure(hours, evs)
    wall, ticks = report.wall_s, report.federation.ticks
    found: list[dict[str, Any]] = [
        {
            "what": f"regulation, {evs:,} EVs, {ticks:,} ticks (CPU time {cpu_s:.0f} s)",
            "figure": f"{wall:.1f} s",
            "against": "to reach",
            "reference": f"{LIMIT_S * hours / 24:.0f} s",
            "ratio": wall / (LIMIT_S * hours / 24),
        },
        {
            "what": "  peak memory",
            "figure": f"{peak_gb:.2f} GB",
            "against": "to reach",
            "reference": f"{LIMIT_GB:g} GB",
            "ratio": peak_gb / LIMIT_GB,
        },
    ]
    for part, seconds in report.split_s.items():
        found.append(
            {
                "what": f"  {NAMES.get(part, part)}: {seconds:.2f} s",
                "figure": f"{seconds / ticks * 1e3:.3f} ms a tick",
                "against": "the whole run",
                "reference": f"{wall:.1f} s",
                "ratio": seconds / wall,
            }
        )
    return found


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["regulation_day"])
