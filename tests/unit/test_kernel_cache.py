"""Compiled kernels between processes: never stale, and never in the way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import evgrid
from evgrid.core.kernel_cache import sources_of

PACKAGE = Path(evgrid.__file__).parent

CALLED = "from evgrid.core.jit import njit\n\n\n@njit\ndef law(x: float) -> float:\n    return {factor} * x\n"
CALLER = (
    "from evgrid.core.jit import njit\nfrom evgrid.fleet.law import law\n\n\n"
    "@njit\ndef advance(x: float) -> float:\n    return law(x) + 1.0\n"
)
ASK = "from evgrid.fleet.advance import advance; print(advance(3.0), len(advance.stats.cache_hits))"


@pytest.fixture
def installed(tmp_path):
    """A copy of what kernels are compiled with, and of two modules of which one calls the other."""
    package = tmp_path / "installed" / "evgrid"
    for folder in (package, package / "core", package / "fleet"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    for name in ("jit.py", "kernel_cache.py", "cache_folder.py"):
        shutil.copy(PACKAGE / "core" / name, package / "core" / name)
    (package / "fleet" / "law.py").write_text(CALLED.format(factor=2.0))
    (package / "fleet" / "advance.py").write_text(CALLER)
    return package


def ask(package, **environment):
    """What a new process computes, and how often it took a kernel from the cache."""
    known = {
        key: value for key, value in os.environ.items() if key not in ("EVGRID_CACHE", "NUMBA_CACHE_DIR")
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=known | {"PYTHONPATH": str(package.parent)} | environment,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return float(value), int(hits)


def test_a_kernel_that_a_changed_one_is_called_by_is_compiled_again(installed, tmp_path):
    cache = str(tmp_path / "cache")
    assert ask(installed, EVGRID_CACHE=cache) == (7.0, 0)
    assert ask(installed, EVGRID_CACHE=cache) == (7.0, 1)
    (installed / "fleet" / "law.py").write_text(CALLED.format(factor=5.0))
    assert ask(installed, EVGRID_CACHE=cache) == (16.0, 0)


def test_a_damaged_cache_is_as_good_as_none(installed, tmp_path):
    cache = tmp_path / "cache"
    ask(installed, EVGRID_CACHE=str(cache))
    kept = [path for path in cache.rglob("*.nb?") if "advance" in path.name]
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    for damage in (lambda whole: b"", lambda whole: whole[:99]):
        for path in kept:
            path.write_bytes(damage(path.read_bytes()))
        assert ask(installed, EVGRID_CACHE=str(cache))[0] == 7.0


def test_a_folder_that_cannot_be_written_is_done_without(installed, tmp_path):
    (tmp_path / "file").touch()
    blocked = str(tmp_path / "file" / "inside")
    assert ask(installed, EVGRID_CACHE=blocked) == (7.0, 0)
    assert ask(installed, HOME=blocked, XDG_CACHE_HOME=blocked) == (7.0, 0)


def test_what_a_kernel_is_made_of_is_found_whatever_the_import():
    found = {path.name for path in sources_of(PACKAGE / "fleet" / "kernels" / "step.py")}
    assert {"step.py", "detailed_step.py", "steady.py", "laws.py", "charging.py", "jit.py"} <= found
