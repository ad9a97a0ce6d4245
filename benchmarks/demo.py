"""The whole demo: one member, and a hundred members in one federation against a hundred runs."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import evgrid

SCENARIO = Path(__file__).parents[1] / "scenarios" / "european_lv_v2g.yaml"

SMOKE: dict[str, Any] = {"members": 10, "hours": 1}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def timed(members: int, hours: int, first: int = 0) -> float:
    """Wall time of the demo with its result written to a file, s."""
    changes = {"ensemble.members": members, "ensemble.first": first, "time.duration": f"{hours}h"}
    scenario = evgrid.load_scenario(SCENARIO, changes)
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        evgrid.run(scenario, Path(folder) / "r.nc").close()
        return time.perf_counter() - start


def rows(members: int = 100, hours: int = 24) -> list[dict[str, Any]]:
    """One run, and members together against as many runs (a tenth of them timed, times ten)."""
    timed(1, hours)  # compile and import
    alone = sum(timed(1, hours, first) for first in range(members // 10)) * 10
    together = timed(members, hours)
    return [
        {"what": f"demo: {hours} h, {60 * hours:,} ticks, one member", "figure": f"{alone / members:.2f} s"},
        {
            "what": f"demo: {members} members in one federation",
            "figure": f"{together:.1f} s",
            "against": f"{members} runs in one process",
            "reference": f"{alone:.1f} s",
            "ratio": together / alone,
        },
    ]


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["demo"])
