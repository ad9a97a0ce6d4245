"""What iterating costs: the volt-var street in steps of a minute, iterated against lagged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import evgrid

SCENARIO = Path(__file__).parents[1] / "scenarios" / "european_lv_volt_var.yaml"


def timed(coupling: str, members: int) -> tuple[float, float]:
    """Wall time of six hours of the scenario, s, and power flows a step."""
    scenario = evgrid.load_scenario(
        SCENARIO, {"ensemble.members": members, "time.duration": "6h", "coupling": coupling}
    )
    start = time.perf_counter()
    result = evgrid.run(scenario)
    flows = float(result["coupling_iterations"].mean()) if coupling == "iterated" else 1.0
    return time.perf_counter() - start, flows


def rows() -> list[dict[str, Any]]:
    """One member and ten."""
    timed("iterated", 1)  # compile and import
    table = []
    for members in (1, 10):
        iterated, flows = timed("iterated", members)
        lagged, _ = timed("lagged", members)
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
