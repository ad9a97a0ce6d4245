"""How long the score of a day of regulation takes, against drawing its signal."""

from __future__ import annotations

import time
from typing import Any

from evgrid.scenario.system import REGD
from evgrid.system.scores import PJMScore
from evgrid.system.signals import draw_day

SMOKE: dict[str, Any] = {"repeats": 1}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def rows(repeats: int = 5) -> list[dict[str, Any]]:
    """The best of some repeats."""
    scoring, drawing = [], []
    for day in range(repeats):
        begin = time.perf_counter()
        signal = draw_day(REGD, 1, 0, day)
        drawing.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        PJMScore().score(signal, 0.9 * signal, 2.0)
        scoring.append(time.perf_counter() - begin)
    return [
        {
            "what": f"PJM's score of a day, {len(signal):,} values",
            "figure": f"{min(scoring) * 1e3:.1f} ms",
            "against": "drawing the signal",
            "reference": f"{min(drawing) * 1e3:.1f} ms",
            "ratio": min(scoring) / min(drawing),
        }
    ]


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["scores"])
