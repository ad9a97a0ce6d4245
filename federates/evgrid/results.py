"""Results: one xarray Dataset a run, streamed while it runs, written atomically, opened lazily.

Every variable has the dimensions (member, time, others) as far as it has them, a unit and a long
name. Times are real local timestamps; a value at time t is the mean over the recording interval
that starts at t. The attributes hold the resolved scenario, the seed, the package versions and
the energy audit.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import ResultError
from evgrid.model import Clock, Model, Variable

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "evgrid-result-1"
"""Written into each result; :func:`open_results` refuses other files."""

_CHUNK_BYTES = 16 * 2**20
_PACKAGES = ("evgrid", "helics", "pandapower", "power-grid-model", "numpy", "numba", "xarray")


class Store(Protocol):
    """Where a result's arrays go: memory or a file."""

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        """Make room for a variable with the Dataset's dimensions, filled with NaN."""

    def write(self, name: str, key: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Write a block."""


@dataclass
class ResultRecorder:
    """Takes what the models record, averages it over the recording intervals, and stores it.

    Thread-safe: every federate writes from its own thread. ``sizes`` gives the length of every
    dimension but time. ``spent_s`` is the wall time that it took, by model.
    """

    clock: Clock
    record_step_s: float
    sizes: Mapping[str, int]
    store: Store
    spent_s: dict[str, float] = field(default_factory=dict)
    _model_of: dict[str, str] = field(default_factory=dict)
    _variables: dict[str, _Buffer] = field(default_factory=dict)
    _static: dict[str, Variable] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def intervals(self) -> int:
        """Number of recording intervals."""
        return round(self.clock.duration_s / self.record_step_s)

    def register(self, models: Sequence[Model], currency: str = "") -> None:
        """Make room for the result variables of the models; ``currency``: of amounts, where it is known."""
        for model in models:
            for variable in model.variables:
                if currency and variable.unit:
                    variable = replace(variable, unit=variable.unit.replace("currency", currency))
                if variable.name in self._variables or variable.name in self._static:
                    raise ValueError(f"two models record {variable.name}")
                self._model_of[variable.name] = model.name
                if variable.timed:
                    self.store.create(variable, _dataset_dims(variable))
                    self._variables[variable.name] = _Buffer(self, variable, model.period_s)
                else:
                    self._static[variable.name] = variable
                    self.store.create(variable, variable.dims)

    def put(self, name: str, tick: int, values: NDArray[Any]) -> None:
        """See :class:`evgrid.model.Recorder`."""
        with self._lock, self._timed(name):
            self._variables[name].put(tick, values)

    def put_static(self, name: str, values: NDArray[Any]) -> None:
        """See :class:`evgrid.model.Recorder`."""
        with self._lock, self._timed(name):
            dims = self._static[name].dims
            expected = tuple(self.sizes[dim] for dim in dims)
            if values.shape != expected:
                raise ValueError(f"{name} has shape {values.shape}, must be {expected}")
            self.store.write(name, (slice(None),) * len(dims), values)

    def close(self) -> None:
        """Write what is still buffered."""
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
    """A timed variable on its way to the store: a chunk of recording intervals."""

    def __init__(self, recorder: ResultRecorder, variable: Variable, period_s: float) -> None:
        self.name = variable.name
        self.dims = variable.dims
        self.shape = tuple(recorder.sizes[dim] for dim in variable.dims)
        self.per_step = round(period_s / recorder.clock.step_s)  # base ticks a step of the model
        self.per_interval = round(recorder.record_step_s / period_s)  # steps an interval
        self.store = recorder.store
        row_bytes = max(int(np.prod(self.shape, dtype=np.int64)) * np.dtype(variable.dtype).itemsize, 1)
        self.rows = int(min(max(_CHUNK_BYTES // row_bytes, 1), recorder.intervals))
        self.chunk = np.empty((self.rows, *self.shape), variable.dtype)
        self.first = 0  # interval of the chunk's first row
        self.filled = 0  # whole intervals in the chunk
        self.sum: NDArray[np.float64] | None = None
        self.summed = 0

    def put(self, tick: int, values: NDArray[Any]) -> None:
        step, rest = divmod(tick, self.per_step)
        expected = (self.first + self.filled) * self.per_interval + self.summed
        if values.shape[1:] != self.shape or rest or step != expected:
            raise ValueError(
                f"{self.name} at tick {tick} with shape {values.shape}: expected step {expected} "
                f"and shape (n, {', '.join(map(str, self.shape))})"
            )
        if self.per_interval > 1:
            self._put_mean(values)
            return
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
            if self.summed == self.per_interval:
                self.chunk[self.filled] = self.sum / self.per_interval
                self.sum, self.summed = None, 0
                self._advance(1)

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


def _dataset_dims(variable: Variable) -> tuple[str, ...]:
    if variable.dims[:1] == ("member",):
        return ("member", "time", *variable.dims[1:])
    return ("time", *variable.dims)


class MemoryStore:
    """Keeps a result in memory. ``coordinates`` is a Dataset of coordinates only."""

    def __init__(self, coordinates: xr.Dataset) -> None:
        self._dataset = coordinates.copy()

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        """See :class:`Store`."""
        shape = [self._dataset.sizes[dim] for dim in dims]
        array = np.full(shape, np.nan if np.dtype(variable.dtype).kind == "f" else 0, variable.dtype)
        self._dataset[variable.name] = (dims, array, _attributes(variable))

    def write(self, name: str, key: tuple[slice, ...], values: NDArray[Any]) -> None:
        """See :class:`Store`."""
        self._dataset[name].data[key] = values

    def finish(self, attrs: Mapping[str, str]) -> xr.Dataset:
        """The finished result."""
        return self._dataset.assign_attrs(attrs)

    def abandon(self) -> None:
        """Nothing is left to drop."""


class FileStore:
    """Streams a result into a NetCDF file beside its final place; nothing half-written is left."""

    def __init__(self, path: Path, coordinates: xr.Dataset) -> None:
        import netCDF4

        self.path = path.absolute()
        self._made_folder = not self.path.parent.exists()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=self.path.parent)
            os.close(handle)
        except OSError as error:
            raise ResultError(f"the result can't be written to {path}: {error.strerror}") from error
        self._part = Path(part)
        with self._explained():
            coordinates.to_netcdf(self._part, engine="netcdf4", format="NETCDF4")
            self._file = netCDF4.Dataset(part, "a")
            self._file.set_fill_off()  # every value is written once; filling first would write twice

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        """See :class:`Store`."""
        with self._explained():
            # integers have no fill value: a reader would take values equal to it for missing
            fill = np.nan if np.dtype(variable.dtype).kind == "f" else None
            made = self._file.createVariable(variable.name, variable.dtype, dims, fill_value=fill)
            made.setncatts(_attributes(variable))

    def write(self, name: str, key: tuple[slice, ...], values: NDArray[Any]) -> None:
        """See :class:`Store`."""
        with self._explained():
            self._file[name][key] = values

    def finish(self, attrs: Mapping[str, str]) -> xr.Dataset:
        """Write the attributes, move the file to its final place, and open it."""
        with self._explained():
            self._file.setncatts(dict(attrs))
            self._file.close()
            self._part.chmod(0o666 & ~_umask())
            self._part.replace(self.path)
        return open_results(self.path)

    def abandon(self) -> None:
        """Drop what was written."""
        with contextlib.suppress(Exception):
            self._file.close()
        self._part.unlink(missing_ok=True)
        if self._made_folder:
            with contextlib.suppress(OSError):  # not empty: somebody else's
                self.path.parent.rmdir()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            free_mib = shutil.disk_usage(self.path.parent).free / 2**20
            self.abandon()
            raise ResultError(
                f"the result can't be written to {self.path}: {error} ({free_mib:.0f} MiB free there)"
            ) from error


def save_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a Dataset of a study into a NetCDF file, whole or not at all; texts are stored as such.

    Raises OSError if that can't be done.
    """
    stored = dataset.copy()
    for name, variable in stored.variables.items():
        if variable.dtype == object:
            stored[name] = stored[name].astype(str)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        stored.to_netcdf(part, engine="netcdf4")
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _attributes(variable: Variable) -> dict[str, str]:
    return {"long_name": variable.long_name, "units": variable.unit or "1"}


def versions() -> dict[str, str]:
    """Versions of the packages that shape the numbers."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def open_results(path: str | Path) -> xr.Dataset:
    """Open a result that ``evgrid run`` wrote; arrays are read when they are used.

    Raises
    ------
    ResultError
        If there is no such file, or it is no result of evgrid.

    """
    import xarray as xr

    path = Path(path)
    if not path.is_file():
        raise ResultError(f"there is no result {path}")
    try:
        dataset = xr.open_dataset(path, engine="netcdf4", decode_timedelta=False)
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is no NetCDF file: {error}") from error
    if dataset.attrs.get("format") != FORMAT:
        dataset.close()
        raise ResultError(f"{path} is no result of evgrid: it has no attribute format = {FORMAT}")
    return dataset


def of_aggregator(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """The part of a result that is one aggregator's, as if it had been the only one.

    Its own variables under their plain names (``regulation_score`` for ``regulation_score_NAME``;
    ``fleet_power_kw`` is that of its EVs), its EVs and sessions, and all that is nobody's own. So whatever
    works on the result of one aggregator works on it.

    Raises
    ------
    ResultError
        If the run had no such aggregator.

    """
    names = list(json.loads(dataset.attrs["scenario"]).get("aggregators", {}))
    if name not in names:
        raise ResultError(f"the result has no aggregator {name}; it has {', '.join(names) or 'none'}")
    if "ev_aggregator" not in dataset.coords:
        return dataset
    plain: dict[str, str] = {}
    others = set()
    for variable in map(str, dataset.data_vars):
        owner = max((n for n in names if variable.endswith(f"_{n}")), key=len, default=None)
        if owner == name:
            plain[variable] = variable.removesuffix(f"_{name}")
        elif owner is not None:
            others.add(variable)
    kept = dataset.drop_vars([*others, *(set(plain.values()) & set(dataset.data_vars))]).rename(plain)
    return kept.isel(
        ev=np.flatnonzero(kept["ev_aggregator"].values == name),
        session=np.flatnonzero(kept["session_aggregator"].values == name),
    )


def audit_of(dataset: xr.Dataset) -> dict[str, float]:
    """The energy audit that a result holds: worst residual of each balance."""
    audit: dict[str, float] = json.loads(dataset.attrs["audit"])
    return audit
