"""Coupling of each deployment: microseconds of a tick outside the models, in one process and in several.

The demo under a limit, three federates; starting is not counted. ``python -m benchmarks deployments``.
"""

from __future__ import annotations

from typing import Any

SMOKE: dict[str, Any] = {"hours": 0.5}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def rows(hours: float = 12) -> list[dict[str, Any]]:
    """Each deployment, against one process."""
    from evgrid.runs.simulation import run_with_report
    from evgrid.scenario import scenario_from

    scenario = scenario_from(
        {
            "name": "deployments",
            "time": {"start": "2026-01-15T12:00", "duration": f"{hours * 60:g}min", "step": "60s"},
            "feeder": {"network": "european_lv"},
            "fleet": {"penetration": 0.5},
            "aggregators": {"main": {"strategy": "peak_limit", "limit_kw": 45}},
        }
    )
    alone_us, found = 0.0, list[dict[str, Any]]()
    for what, processes in (("one process", False), ("a process for each federate", True)):
        _, report = run_with_report(scenario, processes=processes)
        tick_us = report.federation.coupling_us_per_tick
        alone_us = alone_us or tick_us
        found.append(
            {
                "what": f"coupling of 3 federates, {what}",
                "figure": f"{tick_us:.0f} µs a tick",
                "against": "one process",
                "reference": f"{alone_us:.0f} µs a tick",
                "ratio": tick_us / alone_us,
            }
        )
    return found
