"""The folder of a batch: its files, lock and checks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evgrid.core.netcdf import sealed, write_text
from evgrid.errors import ResultError
from evgrid.runs.worker_process import Outcome

FORMAT = "evgrid-batch-1"
"""Written into each batch; :func:`evgrid.open_batch` refuses other folders."""


class RunRecord(BaseModel):
    """A run's entry in ``batch.json``."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """Name of the run's files."""
    case: int
    """Number of the case."""
    overrides: dict[str, Any]
    """Overrides of the case."""
    first: int
    """Its first member."""
    members: int
    """Its number of members."""
    name: str = ""
    """Name of the case, if it has one."""
    labels: dict[str, str] = {}
    """Names of its values, if they have some."""

    @property
    def shown(self) -> dict[str, Any]:
        """The overrides as labels, for reading and for tables."""
        return {key: self.labels.get(key, shown(value)) for key, value in self.overrides.items()}

    @property
    def title(self) -> str:
        """The name of the case, else its overrides."""
        return self.name or ", ".join(f"{key} = {value}" for key, value in self.shown.items())


class Record(BaseModel):
    """``batch.json``."""

    format: str
    """FORMAT."""
    name: str
    """Name of the batch."""
    version: str
    """Version of evgrid."""
    runs: list[RunRecord]
    """All runs."""


def shown(value: Any) -> Any:
    """An override as a label: numbers and text as they are, ``{strategy: tou, a: 1}`` as ``tou (a: 1)``."""
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("strategy"), str):
        rest = _pairs({key: inner for key, inner in value.items() if key != "strategy"})
        return value["strategy"] + (f" ({rest})" if rest else "")
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{_pairs(value)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {_text(inner)}" for key, inner in values.items())


def result_of(folder: Path, run_id: str) -> Path:
    """The file of a run's result."""
    return folder / "runs" / f"{run_id}.nc"


def whole(path: Path) -> bool:
    """Whether a run's result exists and is intact: not truncated, empty or changed."""
    with suppress(OSError):
        return path.is_file() and sealed(path)
    return False


def outcome_of(folder: Path, run_id: str) -> Outcome | None:
    """Last outcome of a run, if it is on disk."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        found = Outcome(**json.loads((folder / "runs" / f"{run_id}.json").read_text(encoding="utf-8")))
        if isinstance(found.reason, str) and all(
            isinstance(number, int | float) for number in (found.wall_s, found.peak_memory_mib)
        ):
            return found
    return None


def read_record(folder: Path) -> Record:
    """The batch in a folder.

    Raises ResultError, with one sentence, if there is none.
    """
    path = folder / "batch.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ResultError(f"{folder} is no batch of evgrid: it has no batch.json") from None
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} can't be read: {error}") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultError(f"{folder} is no batch of evgrid: its batch.json has no format = {FORMAT}")
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultError(
            f"{path} is damaged: {where}: {first['msg']}" + f" ({error.error_count()} faults)"
        ) from error


def open_folder(folder: Path, name: str, resume: bool) -> None:
    """Make the folder of a batch, or check that an existing one is this batch's.

    Raises ResultError if it is another batch's, or holds the batch and ``resume`` is not given.
    """
    if (folder / "batch.json").exists():
        there = read_record(folder)
        if there.name != name:
            raise ResultError(
                f"{folder} holds another batch, {there.name}; choose another folder for {name} with -o"
            )
        if not resume:
            raise ResultError(
                f"{folder} holds a batch already; go on with it with --resume, or choose another folder "
                "with -o"
            )
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(f"the batch can't be written to {folder}: {error.strerror}") from error


def write_record(folder: Path, record: Record) -> None:
    """Write ``batch.json``. Raises ResultError if it can't be written."""
    try:
        write_text(folder / "batch.json", record.model_dump_json(indent=1))
    except OSError as error:
        raise ResultError(f"the batch can't be written to {folder}: {error.strerror}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder for one batch at a time; the system releases the lock when the process ends.

    Raises ResultError, which names the process, if another holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ResultError(f"the batch can't be written to {folder}: {error.strerror}") from error
    try:
        if not _lock(handle):
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() if hasattr(os, "pread") else ""
            raise ResultError(
                f"another batch is running in {folder}{f': {holder}' if holder else ''}; "
                "wait for its end, or choose another folder with -o"
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {_machine()}\n".encode())
        yield
        with suppress(OSError):
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _machine() -> str:
    import socket

    return socket.gethostname()


def _lock(handle: int) -> bool:
    """Take the lock of an open file; False if another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ResultError(f"the folder of a batch can't be locked: {error.strerror}") from error
    return True


def _lock_on_windows(handle: int) -> bool:
    import msvcrt

    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    return True
