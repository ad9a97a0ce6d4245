"""The whole demo: one member, and a hundred members in one federation against a hundred runs."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import evgrid

SCENARIO = Path(__file__).parents[1] / "scenarios" / "european_lv_v2g.yaml"


def timed(members: int, first: int = 0) -> float:
    """Wall time of the demo with its result written to a file, s."""
    scenario = evgrid.load_scenario(SCENARIO, {"ensemble.members": members, "ensemble.first": first})
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        evgrid.run(scenario, Path(folder) / "r.nc").close()
        return time.perf_counter() - start


def rows() -> list[dict[str, Any]]:
    """One run, and 100 members together against 100 runs (ten of them timed, times ten)."""
    timed(1)  # compile and import
    alone = sum(timed(1, first) for first in range(10)) * 10
    together = timed(100)
    return [
        {"what": "demo: one day, 1,440 ticks, one member", "figure": f"{alone / 100:.2f} s"},
        {
            "what": "demo: 100 members in one federation",
            "figure": f"{together:.1f} s",
            "against": "100 runs in one process",
            "reference": f"{alone:.1f} s",
            "ratio": together / alone,
        },
    ]


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["demo"])
