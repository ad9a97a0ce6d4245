"""How long a power flow takes, against the bare power-grid-model call and pandapower.

European LV feeder (907 buses, three-phase, 55 loads); milliseconds a case, and ratios to the bare
call on the whole feeder, all measured in one run. ``python benchmarks/power_flow.py [cases]``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

SMOKE: dict[str, Any] = {"cases": 2, "repeats": 1, "feeder": "cigre_lv"}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def rows(cases: int = 1000, repeats: int = 3, feeder: str = "european_lv") -> list[dict[str, Any]]:
    """For the table of all benchmarks: milliseconds a case against the bare call on the whole feeder."""
    from power_grid_model import CalculationMethod

    from evgrid.feeder.networks import load_network
    from evgrid.feeder.solvers.pandapower import PandapowerSolver
    from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver
    from evgrid.scenario.feeder import Feeder

    network = load_network(Feeder(network=feeder))
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.0, 1.5, (cases, len(network.connections), 1))
    p, q = network.grid.loads.p_kw * scale, network.grid.loads.q_kvar * scale
    reduced, whole = (PowerGridModelSolver(network, reduce) for reduce in (True, False))
    reference = PandapowerSolver(network)

    def bare(solver: PowerGridModelSolver, count: int) -> Callable[[], Any]:
        update = {solver._load: solver._watts((p[:count], q[:count]))}
        return lambda: solver._calculate(update, CalculationMethod.iterative_current)

    few = min(cases, 5)
    measured = [
        ("bare power-grid-model call, whole feeder", cases, bare(whole, cases)),
        ("evgrid, whole feeder", cases, lambda: whole.solve(p, q)),
        ("bare power-grid-model call, reduced", cases, bare(reduced, cases)),
        ("evgrid, reduced (all buses recovered)", cases, lambda: reduced.solve(p, q)),
        ("bare power-grid-model call, whole feeder, one by one", 1, bare(whole, 1)),
        ("bare power-grid-model call, reduced, one by one", 1, bare(reduced, 1)),
        ("evgrid, reduced, one by one", 1, lambda: reduced.solve(p[:1], q[:1])),
        ("a tick of the feeder with feedback, all recorded", 1, tick(network, feeder)),
        ("pandapower runpp_3ph", few, lambda: reference.solve(p[:few], q[:few])),
    ]
    result = []
    for name, count, call in measured:
        call()
        best = min(_seconds(call) for _ in range(repeats)) / count
        result.append((f"{name} ({count} cases)", 1e3 * best))
    base = result[0][1]
    return [
        {
            "what": name,
            "figure": f"{ms:.3f} ms a case",
            "against": "bare power-grid-model call, whole feeder",
            "reference": f"{base:.3f} ms",
            "ratio": ms / base,
        }
        for name, ms in result
    ]


def tick(network: Any, feeder: str) -> Callable[[], Any]:
    """One step of the feeder model with EVs and feedback, recording everything."""
    from evgrid.core.model import MemoryRecorder
    from evgrid.feeder.model import FeederModel
    from evgrid.scenario import scenario_from

    scenario = scenario_from(
        {
            "name": "benchmark",
            "time": {"start": "2026-01-15T12:00", "duration": "24h", "step": "60s"},
            "feeder": {"network": feeder},
        }
    )
    model = FeederModel(scenario, network, MemoryRecorder(), fleet=True, feedback=True)
    power = np.ones((1, len(network.connections), len(network.connections.phases)))
    steps = iter(range(scenario.clock.ticks))
    return lambda: model.step(60.0 * next(steps), {"fleet/p": power, "fleet/q": 0.1 * power})


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["power_flow"])
