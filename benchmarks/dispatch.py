"""Splitting a target over a fleet, against the same by sorting the EVs by laxity.

One group of all EVs, half of its power asked: the worst case, as most thresholds lie in the middle.
Both are measured alternately in one run; CPU time of all threads.
"""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np

from evgrid.aggregator.kernels import order_by_group, share_by_laxity

SMOKE: dict[str, Any] = {"fleets": (100,), "repeats": 2}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def by_sorting(group, headroom, p_max, laxity):
    """Least laxity first, by a sort and a running sum."""
    order = np.lexsort((laxity, group))
    power = p_max[order]
    setpoint = np.empty_like(p_max)
    setpoint[order] = np.clip(headroom[0] - (np.cumsum(power) - power), 0.0, power)
    return setpoint


def measure(evs: int, repeats: int) -> tuple[float, float, float]:
    """Median time of a tick by charging, by discharging, and with the sort, s."""
    rng = np.random.default_rng(0)
    group, power, needed = np.zeros(evs, np.int64), np.zeros(evs), np.full(evs, 3600.0)
    order = order_by_group(np.arange(evs, dtype=np.uint32), group, 1)
    p_max, p_min = rng.uniform(3, 11, evs), -rng.uniform(0, 11, evs)
    times: list[list[float]] = [[], [], []]
    for _ in range(repeats):
        laxity = rng.uniform(-600, 12 * 3600, evs)
        for at, share in enumerate((0.5, -0.5)):
            headroom = np.array([share * (p_max if share > 0 else -p_min).sum()])
            begin = process_time()
            share_by_laxity(order, headroom, p_max, p_min, laxity + needed, needed, 4.0, 60.0, power)
            times[at].append(process_time() - begin)
        begin = process_time()
        by_sorting(group, np.array([0.5 * p_max.sum()]), p_max, laxity)
        times[2].append(process_time() - begin)
    charging, discharging, sorting = (float(np.median(row[1:])) for row in times)
    return charging, discharging, sorting


def rows(fleets: tuple[int, ...] = (10_000, 100_000), repeats: int = 40) -> list[dict[str, Any]]:
    """One row a fleet and direction."""
    found = []
    for evs in fleets:
        charging, discharging, sorting = measure(evs, repeats)
        for what, took in (("charge", charging), ("discharge", discharging)):
            found.append(
                {
                    "what": f"dispatch: {what}, {evs:,} EVs",
                    "figure": f"{took * 1e3:.2f} ms",
                    "against": "sort by laxity",
                    "reference": f"{sorting * 1e3:.2f} ms",
                    "ratio": took / sorting,
                }
            )
    return found


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["dispatch"])
