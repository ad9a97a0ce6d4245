"""What iterating costs: the volt-var street in steps of a minute, iterated against lagged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import evgrid

SCENARIO = Path(__file__).parents[1] / "scenarios" / "european_lv_volt_var.yaml"

SMOKE: dict[str, Any] = {"sizes": (1,), "hours": 0.1}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def timed(coupling: str, members: int, hours: float) -> tuple[float, float]:
    """Wall time of the first hours of the scenario, s, and power flows a step."""
    scenario = evgrid.load_scenario(
        SCENARIO, {"ensemble.members": members, "time.duration": f"{hours:g}h", "coupling": coupling}
    )
    start = time.perf_counter()
    result = evgrid.run(scenario)
    flows = float(result["coupling_iterations"].mean()) if coupling == "iterated" else 1.0
    return time.perf_counter() - start, flows


def rows(sizes: tuple[int, ...] = (1, 10), hours: float = 6.0) -> list[dict[str, Any]]:
    """One member and ten."""
    timed("iterated", 1, hours)  # compile and import
    table = []
    for members in sizes:
        iterated, flows = timed("iterated", members, hours)
        lagged, _ = timed("lagged", members, hours)
        table.append(
            {
                "what": f"coupling iterated, {members} member(s), {flows:.1f} power flows a step",
                "figure": f"{iterated:.2f} s",
                "against": "lagged, 1 power flow a step",
                "reference": f"{lagged:.2f} s",
                "ratio": iterated / lagged,
            }
        )
    return table


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["coupling"])
