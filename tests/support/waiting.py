"""Waiting for something that another process or thread does; pytest's timeout bounds it."""

import subprocess
import time
from collections.abc import Callable


def wait_until(happened: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Return when ``happened()`` is true, or when the process that should make it so has ended."""
    while not happened() and (process is None or process.poll() is None):
        time.sleep(0.05)
