"""The user's folder of what evgrid keeps between runs: compiled kernels, arrays of networks, profiles."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``EVGRID_CACHE``, else ``evgrid`` in the user's cache folder. It may not exist, nor be writable."""
    given = os.environ.get("EVGRID_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache"  # noqa: PTH111
    return Path(base) / "evgrid"
