"""Cache of compiled kernels on disk, and its dependencies.

numba's own cache depends only on the kernel's file: where a kernel that it calls in another module has
changed, the old code is used. Here the path of a module's kernels depends on the content of its file
and of all modules of the package that it imports. A cache that can't be read or written is ignored:
kernels are then compiled in each process.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

from evgrid.core.cache_folder import cache_folder

PACKAGE = Path(__file__).parents[1]
_IMPORT = re.compile(
    r"^\s*from\s+(evgrid[\w.]*)\s+import\s+(\([^)]*\)|[^\n#]+)|^\s*import\s+(evgrid[\w.]*)", re.MULTILINE
)


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Location of a module's cached kernels, for numba."""

    def __init__(self, function: Callable[..., Any], source: Path, folder: Path) -> None:
        self._line = function.__code__.co_firstlineno
        self._stamp = digest_of(source)
        module = ".".join(source.relative_to(PACKAGE).with_suffix("").parts)
        self._folder = folder / f"{module}-{self._stamp}"

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Locator | None:
        folder = kernel_folder()
        return cls(function, Path(source), folder) if folder is not None else None


class _Content(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """numba's cache of a function, at a path that depends on its sources; a damaged one is ignored."""

    _impl_class = _Content

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel of a signature, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # cut off, of another version, or unreadable: whatever unpickling meets
            self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache a compiled kernel, if it can be written."""
        try:
            super().save_overload(sig, data)
        except Exception:  # full, read-only, or with a damaged index: this process has the kernel
            self.flush()

    def flush(self) -> None:
        """Clear the index, where it can be written."""
        try:
            super().flush()
        except OSError:
            self.disable()


def enable_cache(compiled: Any) -> None:
    """Cache the machine code of a numba dispatcher on disk, where the cache folder can be written."""
    source = Path(compiled.py_func.__code__.co_filename)
    if kernel_folder() is not None and source.is_relative_to(PACKAGE):
        compiled._cache = KernelCache(compiled.py_func)


@cache
def kernel_folder() -> Path | None:
    """``NUMBA_CACHE_DIR``, else a folder in the cache folder; None where it can't be written."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given) if given else cache_folder() / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


@cache
def digest_of(source: Path) -> str:
    """Digest of a module, of all modules of the package that it imports, and of numba's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(sources_of(source)):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def sources_of(source: Path) -> set[Path]:
    """A module's file, and those of the package's modules that it imports, itself or by another."""
    found, ahead = set[Path](), [source]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found.add(path)
            ahead += _imports(path)
    return found


@cache
def _imports(source: Path) -> tuple[Path, ...]:
    """Files of the package's modules that a file imports itself."""
    found: list[Path] = []
    for module, names, whole in _IMPORT.findall(source.read_text(encoding="utf-8")):
        at = PACKAGE.joinpath(*(module or whole).split(".")[1:])
        words = [name.split(" as ")[0].strip() for name in names.strip("()").split(",")]
        for place in (at, *(at / word for word in words if word.isidentifier())):
            found += [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return tuple(found)
