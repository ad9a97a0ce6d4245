"""What a tick of three federates costs over HELICS, beside the same models in a plain loop.

The models return arrays made beforehand, so that what is measured is the coupling: HELICS, the
threads' hand-over, moving and checking the vectors. Sizes are those of the demo feeder (55
connections, 3 phases, 100 EVs) and of a fleet of 100,000 EVs that reports its status every 15th
tick. The last rows have a feeder that steps once in 15 ticks and once in 3,600 (4 h at ticks of 4 s): a
tick must not cost more for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from evgrid.core.model import Clock, Model, Values
from evgrid.core.ports import CAUSAL_ORDER, PORTS, ports_published, ports_subscribed
from evgrid.federation import run_federation, step_in_line

FEDERATES = ("aggregator", "fleet", "feeder")
SIZES = {
    "demo": {"member": 1, "connection": 55, "phase": 3, "ev": 100, "trafo": 1},
    "100,000 EVs": {"member": 1, "connection": 5000, "phase": 3, "ev": 100_000, "trafo": 20},
}
STATUS_EVERY = 15
SMOKE: dict[str, Any] = {"ticks": 30, "repeats": 1, "slow_feeders": (15,)}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""
SLOW_FEEDERS = (15, 3600)
"""Ticks in a step of the feeder."""
OPTIONAL = ("fleet/envelope_", "fleet/reserve_", "fleet/e_m", "fleet/own_p", "fleet/site_soc")
"""Ports that only some scenarios have."""


class Still(Model):
    """A model that does nothing: gives the same arrays in every step."""

    def __init__(self, name: str, sizes: dict[str, int], step_s: float) -> None:
        self.name, self.period_s = name, step_s
        taken = (port.name for port in ports_subscribed(name) if port.publisher in FEDERATES)
        self.inputs = tuple(port for port in taken if not port.startswith(OPTIONAL))
        self.outputs = tuple(p.name for p in ports_published(name) if not p.name.startswith(OPTIONAL))
        arrays = {port: np.ones(PORTS[port].array_shape(sizes)) for port in self.outputs}
        slow = {port for port in self.outputs if name == "fleet" and PORTS[port].shape == ("ev",)}
        self._all: Values = arrays
        self._fast: Values = {port: array for port, array in arrays.items() if port not in slow}
        self._tick = -1

    def step(self, time_s: float, inputs: Values) -> Values:
        self._tick += 1
        return self._fast if self._tick % STATUS_EVERY else self._all


@dataclass(frozen=True)
class Row:
    """One measurement; times in microseconds a tick."""

    case: str
    ticks: int
    helics_us: float
    plain_us: float
    start_and_stop_ms: float

    @property
    def ratio(self) -> float:
        return self.helics_us / self.plain_us


def _models(sizes: dict[str, int], step_s: float, feeder_ticks: int = 1) -> list[Model]:
    return [
        Still(name, sizes, step_s * feeder_ticks if name == "feeder" else step_s)
        for name in CAUSAL_ORDER
        if name in FEDERATES
    ]


def slow_feeder(feeder_ticks: int, ticks: int) -> float:
    """HELICS' time with a feeder of a longer period, µs a tick."""
    sizes, clock = SIZES["demo"], Clock(np.datetime64("2026-01-15T00:00"), 4.0, ticks)
    return run_federation(_models(sizes, 4.0, feeder_ticks), sizes, clock).coupling_us_per_tick


def plain_loop(sizes: dict[str, int], clock: Clock) -> float:
    """Wall time of the same models, coupled by copying arrays in a plain Python loop."""
    models = _models(sizes, clock.step_s)
    start = perf_counter()
    step_in_line(models, sizes, clock)
    return perf_counter() - start


def measure(case: str, ticks: int, step_s: float = 4.0) -> Row:
    """Run one case both ways."""
    sizes = SIZES[case]
    clock = Clock(np.datetime64("2026-01-15T00:00"), step_s, ticks)
    report = run_federation(_models(sizes, step_s), sizes, clock)
    return Row(
        case=case,
        ticks=ticks,
        helics_us=report.coupling_us_per_tick,
        plain_us=plain_loop(sizes, clock) / ticks * 1e6,
        start_and_stop_ms=(report.setup_s + report.close_s) * 1e3,
    )


def rows(
    ticks: int = 7200, repeats: int = 3, slow_feeders: tuple[int, ...] = SLOW_FEEDERS
) -> list[dict[str, Any]]:
    """For the table of all benchmarks: the best of some repeats of each case."""
    best = [min((measure(case, ticks) for _ in range(repeats)), key=lambda r: r.helics_us) for case in SIZES]
    every_tick, *slow = (
        min(slow_feeder(feeder_ticks, ticks) for _ in range(repeats)) for feeder_ticks in (1, *slow_feeders)
    )
    return [
        {
            "what": f"HELICS, {row.case} (start and stop {row.start_and_stop_ms:.0f} ms)",
            "figure": f"{row.helics_us:.0f} µs a tick",
            "against": "copying in a plain Python loop",
            "reference": f"{row.plain_us:.1f} µs",
            "ratio": row.ratio,
        }
        for row in best
    ] + [
        {
            "what": f"HELICS, a feeder that steps once in {feeder_ticks} ticks",
            "figure": f"{us:.0f} µs a tick",
            "against": "a feeder that steps in each",
            "reference": f"{every_tick:.0f} µs",
            "ratio": us / every_tick,
        }
        for feeder_ticks, us in zip(slow_feeders, slow, strict=True)
    ]


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["helics_tick"])
