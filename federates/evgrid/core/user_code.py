"""Classes in a user's own file that a scenario names, ``my_module:MyClass``.

The file is looked for beside the scenario, then as a module on Python's path. A file beside the scenario is
identified by its path and content, together with those that it imports from the same folder: scenarios of two
folders with modules of one name each get their own, and an edited one is read again. ``sys.path`` is not
changed, and nothing beside a scenario can replace an installed package.

A scenario that names a class runs its code. Where :data:`NO_CODE` is set in the environment, none is run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

NO_CODE = "EVGRID_NO_CODE"
"""Environment variable that refuses users' own code (``--no-code``)."""

_PREFIX = "_evgrid_user_"
_loading = threading.RLock()


@dataclass(frozen=True)
class _Loaded:
    """A module from a file; ``sources``: digests of it and of what it imports from its folder."""

    module: ModuleType
    sources: dict[Path, str]

    @property
    def current(self) -> bool:
        """Whether no file has changed since."""
        return all(_digest(path) == digest for path, digest in self.sources.items())


_loaded: dict[tuple[Path, str], _Loaded] = {}


def user_class(name: str, folder: str | Path | None) -> Any:
    """The class that ``my_module:MyClass`` names; ``folder`` is that of the scenario, None for none.

    Raises ValueError with one sentence if it isn't there, can't be imported, or code is refused.
    """
    module_name, _, class_name = name.partition(":")
    if os.environ.get(NO_CODE):
        raise ValueError(f"is code of your own, which --no-code ({NO_CODE}) refuses")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ValueError("must be my_module:MyClass, the name of a module and of a class in it")
    try:
        return getattr(_module(module_name, folder), class_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"no module named {error.name} beside the scenario or on Python's path") from error
    except AttributeError as error:
        if hasattr(error, "obj") and isinstance(error.obj, ModuleType) and error.name == class_name:
            raise ValueError(f"module {module_name} has no {class_name}") from None
        raise ValueError(f"module {module_name} can't be imported: AttributeError: {error}") from error
    except Exception as error:
        raise ValueError(
            f"module {module_name} can't be imported: {type(error).__name__}: {error}"
        ) from error


def sources_of(found: type) -> tuple[Path, ...]:
    """Source files of a user's class: its own, and those that it imports from the same folder."""
    module = sys.modules.get(found.__module__)
    for loaded in _loaded.values():
        if loaded.module is module:
            return tuple(sorted(loaded.sources))
    file = getattr(module, "__file__", None)
    return (Path(file),) if file else ()


def _module(name: str, folder: str | Path | None) -> ModuleType:
    if folder is None:
        return importlib.import_module(name)
    root = Path(folder).resolve()
    place = root.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return _from_file(path, name, root)
    return importlib.import_module(name)


def _from_file(path: Path, name: str, root: Path) -> ModuleType:
    """The module of a file; the loaded one if nothing has changed."""
    with _loading:
        kept = _loaded.get((path, name))
        if kept is not None and kept.current:
            return kept.module
        # under a name of its own: classes, pickles and dataclasses look their module up by name
        digest = hashlib.sha256(f"{path}\0{_digest(path)}\0{len(_loaded)}".encode()).hexdigest()[:12]
        own = f"{_PREFIX}{digest}.{name}"
        inside = [str(path.parent)] if path.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(own, path, submodule_search_locations=inside)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[own] = module
        try:
            with _beside(root) as siblings:
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[own]
            raise
        _loaded[(path, name)] = _Loaded(module, {file: _digest(file) for file in (path, *siblings)})
        return module


@contextmanager
def _beside(root: Path) -> Iterator[list[Path]]:
    """While a module is run, modules of its folder can be imported, after all others; not for other folders.

    Yields the list of their files, complete at the end.
    """
    before, files = set(sys.modules), list[Path]()
    sys.path.append(str(root))
    try:
        yield files
    finally:
        sys.path.remove(str(root))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and not name.startswith(_PREFIX) and Path(file).resolve().is_relative_to(root):
                files.append(Path(file).resolve())
                del sys.modules[name]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
