"""What is mutated: by kind, what yields the mutants and what tries one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz import data_files, networks, results, scenarios


@dataclass(frozen=True)
class _Place:
    """A mutated result or batch, which is there until the next one is asked for."""

    name: str
    path: Path


def _results(seed: int, count: int) -> Iterator[_Place]:
    with tempfile.TemporaryDirectory() as folder:
        seeds = results.seeds(Path(folder))
        places = results.mutations(*seeds, Path(folder) / "mutant", seed, count)
        for number, path in enumerate(places):
            yield _Place(f"{path.name} {seed}/{number}", path)


def _read(place: _Place, folder: Path) -> str:
    found = results.outcome(place.path)
    if found.startswith("traceback"):
        raise AssertionError(found)
    return found


KINDS: dict[str, tuple[Callable[..., Any], Callable[..., str]]] = {
    "scenarios": (scenarios.mutants, scenarios.outcome),
    "data files": (data_files.mutants, data_files.outcome),
    "networks": (networks.mutants, lambda mutant, folder: networks.outcome(mutant)),
    "results": (_results, _read),
}
