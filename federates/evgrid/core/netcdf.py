"""NetCDF files: one lock around all use of the libraries, atomic writing, and a checksum.

Neither netCDF-C nor HDF5 is thread-safe, and a damaged file can make HDF5 loop without end. So

- all accesses to a NetCDF file in this process hold :data:`NETCDF_LOCK`: writing, opening, closing, and the
  reads of arrays that xarray makes later, when they are used;
- a file is written under another name beside its place and moved there when it is whole;
- a *seal* follows the end of the file as HDF5 sees it: a CRC-32 of all bytes before it. It is checked
  before HDF5 opens the file, so that no flipped byte is read. Other programs ignore it;
- a file without one, which another program has written, is first read in a process of its own, within a
  bound on time and memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evgrid.errors import ResultError

if TYPE_CHECKING:
    import xarray as xr

COMPRESSION = 1
"""Level of zlib that files are written with."""

OTHER_SUFFIXES = frozenset(
    (".png", ".svg", ".svgz", ".pdf", ".ps", ".eps", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif",
     ".bmp", ".yaml", ".yml", ".json", ".toml", ".csv", ".tsv", ".txt", ".md", ".xlsx", ".xls", ".parquet",
     ".feather", ".zip", ".gz", ".html", ".py", ".ipynb", ".dss", ".log")
)  # fmt: skip
"""Suffixes that a result can't have."""

_SEAL = re.compile(rb"\nevgrid-crc32 ([0-9a-f]{8}) ([0-9a-f]{16})\n")
_SEAL_LENGTH = 40
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BLOCK = 2**22
_PROBE_S, _PROBE_BYTES_PER_S, _PROBE_MEMORY = 20.0, 20e6, 4 * 2**30
_PROBE = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
except ImportError:
    pass
import netCDF4
try:
    with netCDF4.Dataset(sys.argv[1]) as file:
        file.set_auto_maskandscale(False)
        {name: file.getncattr(name) for name in file.ncattrs()}
        for variable in file.variables.values():
            {name: variable.getncattr(name) for name in variable.ncattrs()}
            rows = variable.shape[0] if variable.shape else 0
            row = variable.size // max(rows, 1) or 1
            step = max(1, 2**21 // row)
            for first in range(0, rows, step):
                variable[first : first + step]
            if not variable.shape:
                variable[...]
except Exception as error:
    sys.exit(" ".join(f"{error}".split()) or type(error).__name__)
"""
"""Reads all of a file; exits with the fault."""


# ---- the lock ------------------------------------------------------------------------------------


class _NetCDFLock:
    """A re-entrant lock that holds xarray's own locks too; unpickled it is that of the process."""

    def __init__(self) -> None:
        self._own = threading.RLock()
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as :meth:`threading.Lock.acquire`; returns whether it was acquired."""
        if not self._own.acquire(blocking, timeout):
            return False
        if self._depth == 0:
            held: list[Any] = []
            for lock in _locks_of_xarray():
                if not lock.acquire(blocking, timeout):
                    for other in held:
                        other.release()
                    self._own.release()
                    return False
                held.append(lock)
        self._depth += 1
        return True

    def release(self) -> None:
        """Release the lock."""
        self._depth -= 1
        if self._depth == 0:
            for lock in _locks_of_xarray():
                lock.release()
        self._own.release()

    def locked(self) -> bool:
        """Whether a thread holds it."""
        return self._depth > 0

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __reduce__(self) -> str:
        return "NETCDF_LOCK"


def _locks_of_xarray() -> Iterator[Any]:
    """In the order that xarray itself takes them in."""
    from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

    return iter(NETCDF4_PYTHON_LOCK.locks)  # type: ignore[attr-defined]


NETCDF_LOCK = _NetCDFLock()
"""Held by whatever uses netCDF or HDF5 in this process."""


# ---- atomic writing ------------------------------------------------------------------------------


def new_part(path: Path) -> Path:
    """An empty file beside ``path`` to write it into; :func:`finish_part` moves it there.

    Parts of ``path`` left by killed processes of this machine are removed.

    Raises OSError if there can't be one.
    """
    for part in path.parent.glob(f".{_escaped(path.name)}.*.part"):
        if _left_behind(part, path.name):
            part.unlink(missing_ok=True)
    while True:
        part = path.parent / f".{path.name}.{machine_name()}-{os.getpid()}-{secrets.token_hex(4)}.part"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))  # less the umask
            return part


def parts_of(path: Path) -> list[Path]:
    """Parts of a file that are being written, or were left."""
    return list(path.parent.glob(f".{_escaped(path.name)}.*.part"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of ``path`` in the end, or is removed after an error; the folder
    is made where it is missing. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = new_part(path)
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises OSError."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def machine_name() -> str:
    """Name of this machine, for names of files."""
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:32]


def _left_behind(part: Path, name: str) -> bool:
    """Whether a part belongs to an ended process of this machine, and is not open for writing."""
    import psutil

    found = re.fullmatch(rf"\.{re.escape(name)}\.{machine_name()}-(\d+)-[0-9a-f]{{8}}\.part", part.name)
    if found is None or psutil.pid_exists(int(found[1])):
        return False
    try:
        import fcntl
    except ImportError:  # Windows, which removes no file that is open
        return True
    with contextlib.suppress(OSError), part.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # HDF5 holds one while it writes
        return True
    return False


def check_output(path: Path) -> None:
    """Refuse a path for a result with another suffix, or with an existing file of another kind.

    Raises ResultError.
    """
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ResultError(
            f"the result can't be written to {path}: {path.suffix} is no suffix of a NetCDF file; "
            f"use .nc, such as {path.with_suffix('.nc')}"
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ResultError(f"the result can't be written to {path}: it is a pipe or device")
    if not path.is_file():
        return
    with contextlib.suppress(OSError), path.open("rb") as file:
        begin = file.read(len(_HDF5))
        if begin and not begin.startswith((_HDF5, b"CDF")):
            raise ResultError(f"the result can't be written to {path}: a file that is no result is there")


# ---- the seal ------------------------------------------------------------------------------------


def finish_part(part: Path, path: Path) -> None:
    """Append the seal to a NetCDF file that is complete and closed, and move it to its final path."""
    crc, length = _crc(part, part.stat().st_size)
    with part.open("ab") as file:
        file.write(b"\nevgrid-crc32 %08x %016x\n" % (crc, length))
    part.replace(path)
    _checked[str(path)] = _state(path)


def sealed(path: Path) -> bool:
    """Whether a file was written by evgrid and is unchanged.

    Files that have not changed since this process has checked them last are not read again. Raises OSError.
    """
    state = _state(path)
    if _checked.get(str(path)) == state:
        return True
    length = state[0] - _SEAL_LENGTH
    if length < 0:
        return False
    with path.open("rb") as file:
        file.seek(length)
        seal = _SEAL.fullmatch(file.read())
    if seal is None or int(seal[2], 16) != length or int(seal[1], 16) != _crc(path, length)[0]:
        return False
    _checked[str(path)] = state
    return True


_checked: dict[str, tuple[int, int, int]] = {}
"""Size, time and inode of the files that were found intact."""


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _crc(path: Path, length: int) -> tuple[int, int]:
    """CRC-32 of the first ``length`` bytes of a file, and how many there are."""
    crc = done = 0
    with path.open("rb") as file:
        while done < length and (block := file.read(min(_BLOCK, length - done))):
            crc, done = zlib.crc32(block, crc), done + len(block)
    return crc, done


def _fault(path: Path) -> str:
    """Fault of a file, "" without one. Raises OSError."""
    if sealed(path):
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(64)
        file.seek(max(0, size - _SEAL_LENGTH))
        seal = _SEAL.fullmatch(file.read())
    if not size:
        return "is empty"
    if seal is not None:
        return "is damaged: its bytes are not those that were written (checksum)"
    if not begin.startswith((_HDF5, b"CDF")):
        return "is no NetCDF file"
    end = size
    if begin.startswith(_HDF5) and begin[8:9] in (
        b"\2",
        b"\3",
    ):  # versions of the superblock that netCDF-C writes
        end = int.from_bytes(begin[28:36], "little")
    if end > size:
        return f"is damaged: it ends at byte {size} of {end}"
    if end < size:
        return "is damaged: its checksum is none"
    return _probe(path, size)


def _probe(path: Path, size: int) -> str:
    """Read all of a file that evgrid has not written, in a process of its own; its fault."""
    limit_s = _PROBE_S + size / _PROBE_BYTES_PER_S
    command = [sys.executable, "-c", _PROBE, str(path), str(_PROBE_MEMORY)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"can't be read: HDF5 comes to no end within {limit_s:.0f} s"
    if done.returncode == 1:
        return f"is damaged: {(done.stderr.strip().splitlines() or ['it has no end'])[-1]}"
    if done.returncode:
        return f"is damaged: HDF5 fails on it ({done.returncode})"
    return ""


# ---- reading and writing -------------------------------------------------------------------------


def open_netcdf(path: str | Path, check: bool = True, chunks: Literal[-1] | None = None) -> xr.Dataset:
    """Open a NetCDF file, of evgrid or not, for any thread; arrays are read when they are used.

    Parameters
    ----------
    path
        The file.
    check
        Whether its checksum is compared first, which reads it through once (3 GB/s from memory); a file
        without one is read whole in another process. A damaged file that is not checked can crash the
        process.
    chunks
        -1: arrays of Dask, one chunk each.

    Raises
    ------
    ResultError
        With one sentence, if there is no such file, or it is damaged, or no NetCDF file.

    """
    import xarray as xr

    path = Path(path)
    if not path.is_file():
        raise ResultError(f"there is no result {path}" + (": it is no file" if path.exists() else ""))
    try:
        fault = _fault(path) if check else ""
    except OSError as error:
        raise ResultError(f"{path} can't be read: {error.strerror}") from error
    if fault:
        raise ResultError(f"{path} {fault}")
    with NETCDF_LOCK:
        try:
            opened = xr.open_dataset(_shared(path), decode_timedelta=False)
            dataset = opened.assign(
                {
                    name: (v.dims, v.values.astype(str), v.attrs)
                    for name, v in opened.variables.items()
                    if v.dtype.kind == "O" and "char_dim_name" in v.encoding
                }
            )
        except Exception as error:  # xarray raises various errors for files of other programs
            raise ResultError(f"{path} is no NetCDF file: {' '.join(str(error).split())}") from error
    if chunks is not None:
        dataset = dataset.chunk(chunks)
    close = opened._close

    def close_locked() -> None:
        with NETCDF_LOCK:
            if close is not None:
                close()

    dataset.set_close(close_locked)
    for variable in dataset.variables.values():
        if variable.dtype.kind == "M":  # a dataset that includes it may need finer units
            for key in ("units", "calendar", "dtype"):
                variable.encoding.pop(key, None)
    return dataset


def _shared(path: Path) -> Any:
    """A file to read: all that read it in this process share one handle.

    HDF5 crashes, even in one thread, where a file with text of variable length is opened twice and the
    handles are closed in the order in which they were opened.
    """
    import netCDF4
    from xarray.backends import CachingFileManager, NetCDF4DataStore

    path = path.absolute()
    known_as = f"evgrid {_state(path)}"  # a file that was replaced is another
    opener: Any = netCDF4.Dataset
    manager: Any = CachingFileManager(opener, str(path), mode="r", lock=NETCDF_LOCK, manager_id=known_as)
    return NetCDF4DataStore(manager, mode="r", lock=NETCDF_LOCK)  # type: ignore[no-untyped-call]


def dump(dataset: xr.Dataset, path: Path, compression: int = COMPRESSION) -> None:
    """Write a Dataset that is in memory into a file, which it replaces. Raises OSError, RuntimeError."""
    from xarray.backends import NetCDF4DataStore

    encoding: dict[Any, dict[str, Any]] = {
        name: storage(variable.shape, variable.dtype, compression)
        for name, variable in dataset.data_vars.items()
    }
    # text as characters, not of variable length: see _shared; also smaller, and under the chunks' checksums
    encoding |= {name: {"dtype": "S1"} for name, v in dataset.variables.items() if v.dtype.kind in "UO"}
    with NETCDF_LOCK:
        store = NetCDF4DataStore.open(str(path), mode="w", lock=NETCDF_LOCK)  # type: ignore[no-untyped-call]
        try:
            dataset.dump_to_store(store, encoding=encoding)
        finally:
            store.close()


def storage(shape: tuple[int, ...], dtype: Any, compression: int) -> dict[str, Any]:
    """Storage options of a variable: checksum and compression of each chunk, where it has chunks."""
    import numpy as np

    if not shape or 0 in shape or np.dtype(dtype).kind not in "fiub":
        return {}
    return {"fletcher32": True, "zlib": compression > 0, "complevel": compression, "shuffle": compression > 0}


def save_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a Dataset of a study into a NetCDF file atomically; texts are stored as such.

    Raises OSError if it can't be written.
    """
    stored = dataset.compute().drop_encoding()
    for name, variable in stored.variables.items():
        if variable.dtype == object:
            stored[name] = stored[name].astype(str)
    part = new_part(path)
    try:
        dump(stored, part)
        finish_part(part, path)
    except RuntimeError as error:  # netCDF-C's
        part.unlink(missing_ok=True)
        raise OSError(0, str(error)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
