"""What is mutated: by kind, what yields the mutants and what tries one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fuzz import data_files, networks, results, scenarios

KINDS: dict[str, tuple[Callable[..., Any], Callable[..., str]]] = {
    "scenarios": (scenarios.mutants, scenarios.outcome),
    "data files": (data_files.mutants, data_files.outcome),
    "networks": (networks.mutants, networks.outcome),
    "results": (results.mutants, results.outcome),
}
