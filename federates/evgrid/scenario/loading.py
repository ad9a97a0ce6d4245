"""Scenarios from YAML files: bases, overrides, checks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from evgrid.errors import ScenarioError
from evgrid.readers.faults import shown
from evgrid.readers.yaml_files import parse_yaml
from evgrid.scenario.fields import checked, read_settings
from evgrid.scenario.schema import Scenario
from evgrid.scenario.sessions import SESSION_FILES


def load_scenario(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Scenario:
    """Read a scenario file, apply overrides (``{"fleet.penetration": 0.8}``), and check it.

    content : of the file, where it has been read already
    folder : at which relative paths in it start; None: its own

    Raises
    ------
    ScenarioError
        With every fault found, each with its path.

    """
    if not isinstance(path, str | os.PathLike):
        raise ScenarioError([f"{shown(path)}: must be the path of a file, a mapping, or a Scenario"])
    path = Path(path)
    return scenario_from(_read(path, content), overrides, folder=folder or path.parent, source=str(path))


def scenario_from(
    content: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    folder: str | Path = ".",
    source: str = "scenario",
) -> Scenario:
    """Check a scenario given as a mapping; relative paths in it start at ``folder``."""
    changes: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        for part in reversed(key.split(".")):
            value = {part: value}
        changes = _merged(changes, value)
    merged = _merged(content, changes)
    return checked(Scenario, merged, source, Path(folder))


def parse_override(text: str) -> tuple[str, Any]:
    """``fleet.penetration=0.8`` as a key and a value; the value is read as YAML.

    Raises ValueError with one sentence.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ValueError(f"'{text}': must be KEY=VALUE, such as fleet.penetration=0.8")
    try:
        return key.strip(), parse_yaml(value)
    except ValueError as error:
        raise ValueError(
            f"{key.strip()} = {shown(value)}: {error}; text with % : # or the like needs quotes"
        ) from None


def _read(path: Path, given: Mapping[str, Any] | None = None, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file as a mapping, merged over its base."""
    with suppress(
        OSError, ValueError
    ):  # a NUL in the name, or one that is too long: reported when it is read
        path = path.resolve()
    if path in seen:
        raise ScenarioError([f"extends: {path} extends itself"], str(seen[0]))
    content = read_settings(path) if given is None else dict(given)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not (isinstance(base, str) and base.strip()):
        raise ScenarioError([f"extends = {shown(base)}: must be the path of a scenario"], str(path))
    return _merged(_read(path.parent / base, None, (*seen, path)), content)


_WHOLE = {"mix"}
"""Keys whose value is replaced as a whole: merged shares would not add up."""


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    kinds = {"strategy", "source", *SESSION_FILES.names()}  # a mapping with one of them selects its kind
    for key, value in over.items():
        below = result.get(key)
        whole = key in _WHOLE or (isinstance(value, Mapping) and kinds & value.keys())
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not whole:
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result
