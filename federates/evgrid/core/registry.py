"""Registries: the implementations of one kind by the name that a scenario uses.

Every kind that evgrid can be extended by has one: to add an implementation takes its own file and one line
in the table of the kind. An implementation is imported when it is first asked for. A user's own is named
``my_module:MyClass`` where the kind allows it, or registered under a name by a decorator.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from evgrid.core.user_code import user_class

_Class = TypeVar("_Class", bound=type)


class Registry:
    """Implementations of one kind by name.

    entries : location of each, by name: ``package.module:Name``
    base : location of the base class of users' own; None: users can't add their own
    """

    def __init__(self, entries: Mapping[str, str], base: str | None = None) -> None:
        self._places = dict(entries)
        self._base = base
        self._found: dict[str, Any] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._places or name in self._found

    def names(self) -> tuple[str, ...]:
        """Names of all, sorted."""
        return tuple(sorted({*self._places, *self._found}))

    def register(self, name: str) -> Callable[[_Class], _Class]:
        """Class decorator: register a class under ``name``."""

        def add(cls: _Class) -> _Class:
            self._found[name] = cls
            return cls

        return add

    def find(self, name: str, folder: str | Path | None = None) -> Any:
        """The implementation of a name; ``folder``: the scenario's, for a user's own.

        Raises ValueError with one sentence if there is none.
        """
        if self._base is not None and ":" in name:
            return self._users_own(name, folder)
        if name not in self:
            own = ", or your own as my_module:MyClass" if self._base is not None else ""
            raise ValueError(f"must be one of {', '.join(self.names())}{own}")
        if name not in self._found:
            self._found[name] = imported(self._places[name])
        return self._found[name]

    def _users_own(self, name: str, folder: str | Path | None) -> Any:
        assert self._base is not None
        found, base = user_class(name, folder), imported(self._base)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ValueError(f"{name} is no subclass of evgrid.{base.__name__}")
        return found


def imported(place: str) -> Any:
    """The object that ``package.module:Name`` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
