"""YAML 1.2 as Python values: data only, of bounded size, depth and expansion.

Duplicate keys are errors. Aliases count with their expansion, so that a few lines can't expand to
millions of values.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    ScalarEvent,
)

from evgrid.errors import ScenarioError
from evgrid.readers.files import read_text

MOST_BYTES = 16 * 2**20
"""Largest YAML file, bytes."""
MOST_DEPTH = 40
"""Deepest nesting of mappings and lists."""
MOST_VALUES = 1_000_000
"""Most values, with aliases expanded."""


def parse_yaml(text: str) -> Any:
    """YAML text as Python values. Raises ValueError with one sentence."""
    try:
        _check_size(text)
        reader = YAML(typ="safe", pure=True)
        reader.composer.warn_double_anchors = False  # the last one holds, as YAML says
        return reader.load(text)
    except YAMLError as error:
        raise ValueError(f"is no YAML: {_line(error)}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (ValueError, TypeError, AttributeError, OverflowError, LookupError, AssertionError) as error:
        raise ValueError(f"can't be read as YAML: {_line(error)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises ValueError with one sentence that names the file."""
    if not os.path.exists(path):  # noqa: PTH110 (False for a name that can't be one, too)
        raise ValueError(f"there is no file {path}")
    try:
        content = parse_yaml(read_text(path, MOST_BYTES))
    except ScenarioError as error:
        raise ValueError(f"{path} {error.faults[0]}") from None
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping of keys to values")
    return content


def _check_size(text: str) -> None:
    """Raise ValueError where nesting or expansion is beyond the bounds, before anything is built."""
    open_ones: list[tuple[str | None, int]] = []  # anchor, and the number of values before
    stands_for: dict[str, int] = {}
    values = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            open_ones.append((event.anchor, values))
            values += 1
        elif isinstance(event, ScalarEvent):
            values += 1
            if event.anchor:
                stands_for[event.anchor] = 1
        elif isinstance(event, AliasEvent):
            values += stands_for.get(event.anchor, 1)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_ones.pop()
            if anchor:
                stands_for[anchor] = values - before
        if len(open_ones) > MOST_DEPTH:
            raise ValueError(f"is nested more than {MOST_DEPTH} deep")
        if values > MOST_VALUES:
            raise ValueError(f"stands for more than {MOST_VALUES} values")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
