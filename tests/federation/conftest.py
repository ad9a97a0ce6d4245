"""Toy models: a name from CAUSAL_ORDER, ports from PORTS, and a function for a step."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from evgrid.core.model import Array, Clock, Model, Values
from evgrid.core.ports import PORTS

SIZES = {"member": 2, "connection": 3, "phase": 3, "ev": 4, "trafo": 1}
START = np.datetime64("2026-01-15T12:00")


class Toy(Model):
    """Calls ``act(time_s, inputs)``; by default gives ``time_s + 1`` on every output."""

    def __init__(
        self,
        name: str,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        period_s: float = 4.0,
        act: Callable[[float, Values], Values] | None = None,
        sizes: Mapping[str, int] = SIZES,
        log: list[str] | None = None,
    ) -> None:
        self.name, self.inputs, self.outputs, self.period_s = name, tuple(inputs), tuple(outputs), period_s
        self.act, self.sizes, self.log = act, dict(sizes), log
        self.times: list[float] = []
        self.seen: dict[str, list[float]] = {port: [] for port in inputs}
        self.finished = 0

    def full(self, port: str, value: float) -> Array:
        return np.full(PORTS[port].array_shape(self.sizes), value)

    def step(self, time_s: float, inputs: Values) -> Values:
        self.times.append(time_s)
        for port, values in inputs.items():
            self.seen[port].append(float(values.flat[0]) if values.size else np.nan)
        if self.log is not None:
            self.log.append(f"{self.name}@{time_s:g}")
        if self.act is not None:
            return self.act(time_s, inputs)
        return {port: self.full(port, time_s + 1) for port in self.outputs}

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def toy() -> type[Toy]:
    return Toy


@pytest.fixture
def sizes() -> dict[str, int]:
    return dict(SIZES)


@pytest.fixture
def clock() -> Callable[..., Clock]:
    def make(ticks: int = 10, step_s: float = 4.0) -> Clock:
        return Clock(START, step_s, ticks)

    return make


@pytest.fixture(params=[False, True], ids=["core's thread", "own thread"])
def thread_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways of stepping the models, whatever the platform's default."""
    monkeypatch.setattr("evgrid.federation.runtime.HAND_OVER", request.param)
    return bool(request.param)
