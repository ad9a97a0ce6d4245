"""Planning a fleet over 36 h in quarter hours, every second EV bidirectional: exactly for each EV without a
program against HiGHS, and in clusters under a limit against the program of each EV. CPU time.
"""

from __future__ import annotations

from functools import partial
from time import process_time
from typing import Any

import numpy as np

from evgrid.aggregator.planning.scheduler import (
    Batteries,
    Schedule,
    batteries_of,
    plan,
    schedule,
    schedule_each,
)

SLOT_H, SLOTS = 0.25, 144
HOUR = (np.arange(SLOTS) * SLOT_H + 17.0) % 24.0
PRICE = np.where(
    (HOUR >= 16) & (HOUR < 21), 0.54, np.where((HOUR >= 21) | (HOUR >= 15) & (HOUR < 16), 0.43, 0.23)
)
WEAR = 0.05

SMOKE: dict[str, Any] = {"few": 5, "many": 20}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def fleet(evs: int) -> Batteries:
    """EVs that are plugged in now and leave about 14 h later."""
    rng = np.random.default_rng(0)
    departure = np.clip(rng.normal(14.0 / SLOT_H, 2.0 / SLOT_H, evs), 8, SLOTS)
    power = rng.choice([3.7, 7.4, 11.0], evs)
    energy = np.minimum(rng.lognormal(2.3, 0.6, evs), 0.8 * power * SLOT_H * departure)
    depth = np.where(rng.random(evs) < 0.5, 20.0, 0.0)
    return batteries_of(np.zeros(evs), departure, energy, power, SLOTS, SLOT_H, depth)


def timed(solve: partial[Schedule], repeats: int = 3) -> tuple[float, Schedule]:
    """Least CPU time of some repeats, s, and the schedule."""
    took = []
    for _ in range(repeats):
        begin = process_time()
        best = solve()
        took.append(process_time() - begin)
    return min(took), best


def rows(few: int = 300, many: int = 5000) -> list[dict[str, Any]]:
    """One row a way to plan."""
    small, large = fleet(few), fleet(many)
    schedule_each(small, PRICE, SLOT_H)  # compiled
    each_s, each = timed(partial(schedule_each, small, PRICE, SLOT_H, None, WEAR))
    program_s, program = timed(partial(schedule, small, PRICE, SLOT_H, wear_per_kwh=WEAR), 1)
    limit = np.full((1, SLOTS), 0.7 * each.power.sum(axis=0).max())
    limited = partial(plan, small, PRICE, SLOT_H, limit_kw=limit, wear_per_kwh=WEAR)
    clusters_s, clusters = timed(limited)
    exact_s, exact = timed(partial(limited, exact=True), 1)
    large_s, _ = timed(partial(schedule_each, large, PRICE, SLOT_H, None, WEAR))
    limit = np.full((1, SLOTS), 0.6 * 7.4 * len(large))
    coupled_s, _ = timed(partial(plan, large, PRICE, SLOT_H, limit_kw=limit, wear_per_kwh=WEAR))
    found = []
    for what, took, against, reference in (
        (f"plan: each of {few:,} EVs alone (cost {each.cost:.2f})", each_s,
         f"HiGHS (cost {program.cost:.2f})", program_s),
        (f"plan: {few:,} EVs under a limit, clusters (cost {clusters.cost:.2f})", clusters_s,
         f"HiGHS, each EV (cost {exact.cost:.2f})", exact_s),
        (f"plan: {many:,} EVs under a limit, clusters", coupled_s, f"{many:,} EVs, each alone", large_s),
    ):  # fmt: skip
        found.append(
            {
                "what": what, "figure": f"{took * 1e3:.0f} ms", "against": against,
                "reference": f"{reference * 1e3:.0f} ms", "ratio": took / reference,
            }
        )  # fmt: skip
    return found


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["scheduling"])
