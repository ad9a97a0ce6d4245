"""The user's cache folder: compiled kernels, arrays of networks, profiles."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cache_folder() -> Path:
    """``EVGRID_CACHE``, else ``evgrid`` in the user's cache folder. It may not exist, nor be writable."""
    given = os.environ.get("EVGRID_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache"  # noqa: PTH111
    return Path(base) / "evgrid"


def arrays_file(kind: str, key: object) -> Path:
    """Cache file of arrays that depend only on ``key`` (its ``repr``)."""
    return cache_folder() / f"{kind}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npz"


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of a file, by name; None if it is missing, damaged or can't be read."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception:  # NumPy and zipfile raise various errors for a damaged file
        return None


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to a file atomically; without effect where it can't be written."""
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        Path(part).replace(path)
    except (OSError, ValueError):  # a full or read-only disk, a path with a NUL in it
        if part is not None:
            with suppress(OSError):
                Path(part).unlink(missing_ok=True)
