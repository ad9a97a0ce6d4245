"""A page as PDF, printed by a Chromium where one is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from evgrid.errors import ResultError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PATIENCE_S = 120


def browser() -> str | None:
    """Path of a Chromium: that of the environment's EVGRID_CHROMIUM, else the first found."""
    given = os.environ.get("EVGRID_CHROMIUM")
    return given or next(filter(None, map(shutil.which, PROGRAMS)), None)


def print_pdf(page: Path, path: Path) -> Path:
    """Print a page as PDF; returns its path. Raises ResultError without a Chromium, or if it fails."""
    program = browser()
    if program is None:
        raise ResultError(
            "no PDF was made: it needs Chromium or Chrome (EVGRID_CHROMIUM names one elsewhere); the page "
            "itself can be printed from any browser"
        )
    # as root Chromium has no sandbox; the page is local, and its policy forbids it all requests
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [
            program, "--headless", *root, "--disable-gpu", "--no-first-run", "--no-pdf-header-footer",
            "--virtual-time-budget=20000", f"--user-data-dir={folder}", f"--print-to-pdf={path.resolve()}",
            page.resolve().as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ResultError(f"no PDF was made by {program}: {error}") from error
    if done.returncode or not path.exists():
        raise ResultError(f"no PDF was made by {program}: {done.stderr.strip()[-300:]}")
    return path
