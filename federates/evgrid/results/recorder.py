"""Averages the models' values over the recording intervals and writes them to a store in blocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Clock, Model, Variable
from evgrid.results.recording import Selection

_BUFFER_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20


class Store(Protocol):
    """Storage of a result's arrays: memory or a file."""

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        """Create a variable with the Dataset's dimensions, filled with NaN."""

    def write(self, name: str, key: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Write a block."""


@dataclass
class ResultRecorder:
    """Averages the models' values over the recording intervals, and stores them.

    Thread-safe: every federate writes from its own thread. ``sizes`` gives the length of every
    dimension but time. ``spent_s`` is the wall time that it took, by model.
    """

    clock: Clock
    record_step_s: float
    sizes: Mapping[str, int]
    store: Store
    selection: Selection = field(default_factory=Selection)
    spent_s: dict[str, float] = field(default_factory=dict)
    _model_of: dict[str, str] = field(default_factory=dict)
    _variables: dict[str, _Buffer] = field(default_factory=dict)
    _static: dict[str, Variable] = field(default_factory=dict)
    _dropped: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def intervals(self) -> int:
        """Number of recording intervals."""
        return round(self.clock.duration_s / self.record_step_s)

    def register(self, models: Sequence[Model], currency: str = "") -> None:
        """Create the result variables of the models; ``currency``: of amounts, where it is known."""
        for model in models:
            for variable in model.variables:
                if currency and variable.unit:
                    variable = replace(variable, unit=variable.unit.replace("currency", currency))
                if variable.name in self._variables or variable.name in self._static:
                    raise ValueError(f"two models record {variable.name}")
                self._model_of[variable.name] = model.name
                if variable.timed and self.selection.dropped & set(variable.dims):
                    self._dropped.add(variable.name)
                    continue
                if variable.timed:
                    self.store.create(variable, _dataset_dims(variable))
                    self._variables[variable.name] = _Buffer(self, variable, model.period_s)
                else:
                    self._static[variable.name] = variable
                    self.store.create(variable, variable.dims)

    def put(self, name: str, tick: int, values: NDArray[Any]) -> None:
        """See :class:`evgrid.core.model.Recorder`."""
        if name in self._dropped:
            return
        with self._lock, self._timed(name):
            self._variables[name].put(tick, values)

    def put_static(self, name: str, values: NDArray[Any]) -> None:
        """See :class:`evgrid.core.model.Recorder`."""
        with self._lock, self._timed(name):
            dims = self._static[name].dims
            expected = tuple(self.sizes[dim] for dim in dims)
            if values.shape != expected:
                raise ValueError(f"{name} has shape {values.shape}, must be {expected}")
            self.store.write(name, (slice(None),) * len(dims), self.selection.static(name, dims, values))

    def close(self) -> None:
        """Write the remaining buffered values."""
        with self._lock:
            for buffer in self._variables.values():
                buffer.flush()

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        model = self._model_of[name]
        self.spent_s[model] = self.spent_s.get(model, 0.0) + perf_counter() - start


class _Buffer:
    """Buffer of a timed variable: a chunk of recording intervals."""

    def __init__(self, recorder: ResultRecorder, variable: Variable, period_s: float) -> None:
        self.name = variable.name
        self.dims = variable.dims
        self.given = tuple(recorder.sizes[dim] for dim in variable.dims)
        rows = recorder.selection.rows
        self.chosen = [(axis, rows[dim]) for axis, dim in enumerate(variable.dims, 1) if dim in rows]
        self.shape = tuple(len(rows[dim]) if dim in rows else recorder.sizes[dim] for dim in variable.dims)
        self.per_step = round(period_s / recorder.clock.step_s)  # base ticks a step of the model
        self.per_interval = round(recorder.record_step_s / period_s)  # steps an interval
        self.store = recorder.store
        row_bytes = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(variable.dtype).itemsize
        members = self.shape[0] if self.dims[:1] == ("member",) else 1
        self.rows, _, _ = blocks(members, recorder.intervals, row_bytes // max(members, 1))
        self.chunk = np.empty((self.rows, *self.shape), variable.dtype)
        self.first = 0  # interval of the chunk's first row
        self.filled = 0  # whole intervals in the chunk
        self.sum: NDArray[np.float64] | None = None
        self.without_supply = variable.without_supply
        self.supplied = np.zeros(self.shape if variable.without_supply is not None else 0)
        self.summed = 0

    def put(self, tick: int, values: NDArray[Any]) -> None:
        step, rest = divmod(tick, self.per_step)
        expected = (self.first + self.filled) * self.per_interval + self.summed
        if values.shape[1:] != self.given or rest or step != expected:
            raise ValueError(
                f"{self.name} at tick {tick} with shape {values.shape}: expected step {expected} "
                f"and shape (n, {', '.join(map(str, self.given))})"
            )
        for axis, rows in self.chosen:
            values = values.take(rows, axis)
        if self.per_interval > 1:
            self._put_mean(values)
            return
        if self.without_supply is not None and self.without_supply != 0.0:
            values = np.where(values == 0.0, self.without_supply, values)
        done = 0
        while done < len(values):
            take = min(len(values) - done, self.rows - self.filled)
            self.chunk[self.filled : self.filled + take] = values[done : done + take]
            self._advance(take)
            done += take

    def _put_mean(self, values: NDArray[Any]) -> None:
        for row in values:
            if self.sum is None:
                self.sum = np.zeros(self.shape)
            self.sum += row
            self.summed += 1
            if self.without_supply is not None:
                self.supplied += row != 0.0
            if self.summed == self.per_interval:
                self.chunk[self.filled] = self._mean(self.sum)
                self.sum, self.summed = None, 0
                self._advance(1)

    def _mean(self, total: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over an interval, of the steps with supply where that counts."""
        if self.without_supply is None:
            return total / self.per_interval
        mean = np.full(self.shape, self.without_supply)
        np.divide(total, self.supplied, out=mean, where=self.supplied > 0)
        self.supplied[:] = 0.0
        return mean

    def _advance(self, rows: int) -> None:
        self.filled += rows
        if self.filled == self.rows:
            self.flush()

    def flush(self) -> None:
        if not self.filled:
            return
        time = slice(self.first, self.first + self.filled)
        block = self.chunk[: self.filled]
        if self.dims[:1] == ("member",):
            self.store.write(self.name, (slice(None), time), np.moveaxis(block, 0, 1))
        else:
            self.store.write(self.name, (time,), block)
        self.first += self.filled
        self.filled = 0


def blocks(members: int, intervals: int, row_bytes: int) -> tuple[int, int, int]:
    """Intervals that are written at once, and members and intervals of a file's chunk.

    ``row_bytes``: of one member and interval. Each write consists of whole chunks.
    """
    row = max(row_bytes, 1)
    buffered = min(max(_BUFFER_BYTES // (row * max(members, 1)), 1), intervals)
    times = min(max(_CHUNK_BYTES // row, 1), buffered)
    together = min(max(_CHUNK_BYTES // (row * times), 1), max(members, 1))
    return buffered // times * times, together, times


def _dataset_dims(variable: Variable) -> tuple[str, ...]:
    if variable.dims[:1] == ("member",):
        return ("member", "time", *variable.dims[1:])
    return ("time", *variable.dims)
