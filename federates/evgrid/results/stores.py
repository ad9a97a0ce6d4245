"""Storage of a result's arrays during a run: memory, or a NetCDF file."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Variable
from evgrid.core.netcdf import (
    COMPRESSION,
    NETCDF_LOCK,
    check_output,
    dump,
    finish_part,
    new_part,
    open_netcdf,
    storage,
)
from evgrid.errors import ResultError
from evgrid.results.recorder import blocks

if TYPE_CHECKING:
    import xarray as xr


_PATIENCE_S = 2.0  # for a thread that is stuck in a file; then the abandoned file stays open


class MemoryStore:
    """Stores a result in memory. ``coordinates`` is a Dataset of coordinates only."""

    def __init__(self, coordinates: xr.Dataset) -> None:
        self._dataset = coordinates.copy()
        self._created: dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, str]]] = {}

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        """See :class:`Store`."""
        shape = [self._dataset.sizes[dim] for dim in dims]
        array = np.full(shape, np.nan if np.dtype(variable.dtype).kind == "f" else 0, variable.dtype)
        self._created[variable.name] = (dims, array, _attributes(variable))

    def write(self, name: str, key: tuple[slice, ...], values: NDArray[Any]) -> None:
        """See :class:`Store`."""
        self._created[name][1][key] = values

    def finish(self, attrs: Mapping[str, str]) -> xr.Dataset:
        """The finished result."""
        return self._dataset.assign(self._created).assign_attrs(attrs)

    def abandon(self) -> None:
        """Nothing to discard."""


class FileStore:
    """Streams a result into a temporary NetCDF file beside its final path; no partial file is left.

    ``compression`` is the level of zlib, 0 for none. Blocks of several stores may be written at once, from
    any thread.

    Raises
    ------
    ResultError
        If the file can't be written, or its name is that of another kind of file.

    """

    def __init__(self, path: Path, coordinates: xr.Dataset, compression: int = COMPRESSION) -> None:
        import netCDF4

        check_output(path)
        self._compression = compression
        self.path = path.absolute()
        self._made_folder = not self.path.parent.exists()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            self._part = new_part(self.path)
        except OSError as error:
            raise ResultError(f"the result can't be written to {path}: {error.strerror}") from error
        try:
            with self._explained():
                dump(coordinates, self._part, compression)
                self._file = netCDF4.Dataset(self._part, "a")
                self._file.set_fill_off()  # every value is written once; filling first would write twice
        except BaseException:  # Ctrl-C, too
            self.abandon()
            raise

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        """See :class:`Store`."""
        with self._explained():
            # integers have no fill value: a reader would take values equal to it for missing
            fill = np.nan if np.dtype(variable.dtype).kind == "f" else None
            shape = tuple(len(self._file.dimensions[dim]) for dim in dims)
            stored = storage(shape, variable.dtype, self._compression)
            if stored and variable.timed:
                stored["chunksizes"] = chunk_of(shape, dims, variable.dtype)
            made = self._file.createVariable(variable.name, variable.dtype, dims, fill_value=fill, **stored)
            made.setncatts(_attributes(variable))

    def write(self, name: str, key: tuple[slice, ...], values: NDArray[Any]) -> None:
        """See :class:`Store`."""
        with self._explained():
            self._file[name][key] = values

    def finish(self, attrs: Mapping[str, str]) -> xr.Dataset:
        """Write the attributes, move the file to its final path, and open it."""
        with self._explained():
            self._file.setncatts(dict(attrs))
            self._file.close()
            finish_part(self._part, self.path)
        return open_netcdf(self.path)

    def abandon(self) -> None:
        """Discard the file."""
        if NETCDF_LOCK.acquire(timeout=_PATIENCE_S):
            try:
                with contextlib.suppress(Exception):
                    self._file.close()
            finally:
                NETCDF_LOCK.release()
        self._part.unlink(missing_ok=True)
        if self._made_folder:
            with contextlib.suppress(OSError):  # not empty: used by another process
                self.path.parent.rmdir()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with NETCDF_LOCK:
                yield
        except (OSError, RuntimeError) as error:
            free_mib = shutil.disk_usage(self.path.parent).free / 2**20
            self.abandon()
            raise ResultError(
                f"the result can't be written to {self.path}: {error} ({free_mib:.0f} MiB free there)"
            ) from error


def chunk_of(shape: tuple[int, ...], dims: tuple[str, ...], dtype: str) -> tuple[int, ...]:
    """Chunk of a timed variable: some members and times, all of the other dimensions."""
    sizes = dict(zip(dims, shape, strict=True))
    members, intervals = sizes.get("member", 1), sizes["time"]
    row_bytes = int(np.prod(shape)) // (members * intervals) * np.dtype(dtype).itemsize
    _, together, times = blocks(members, intervals, row_bytes)
    return tuple({"member": together, "time": times}.get(dim, n) for dim, n in sizes.items())


def _attributes(variable: Variable) -> dict[str, str]:
    return {"long_name": variable.long_name, "units": variable.unit or "1"}
