"""Temporary folders that do not pile up: those of processes that were killed are removed by the next ones."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from evgrid.core.netcdf import machine_name

_PREFIX = "evgrid-run-"


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process, for a ``with`` statement; removes what killed ones of this machine left."""
    import psutil

    owner = rf"{_PREFIX}{re.escape(machine_name())}-(\d+)-\w+"
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        found = re.fullmatch(owner, folder.name)
        if found and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{machine_name()}-{os.getpid()}-")
