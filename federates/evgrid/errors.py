"""Errors that a user of evgrid can meet.

Each message is one sentence: what is wrong, where, the value given, what is allowed.
The command line prints the message and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

MOST_OF_ONE_FAULT = 20
"""Rows of one fault that are listed; the rest are counted."""


def shortened(sentences: Iterable[str]) -> list[str]:
    """Sentences of one fault: the first :data:`MOST_OF_ONE_FAULT`, then the number of the rest."""
    rest = iter(sentences)
    listed = list(islice(rest, MOST_OF_ONE_FAULT))
    more = sum(1 for _ in rest)
    return [*listed, f"and {more} more of this fault"] if more else listed


def _listed(source: str, faults: Sequence[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return "\n".join([f"{source}: {count}", *(f"  {fault}" for fault in faults)])


class EvgridError(Exception):
    """Base of all errors that evgrid raises on purpose."""

    exit_code = 1


class ScenarioError(EvgridError):
    """Every fault found in a scenario, or in a file that it names, at once.

    ``faults`` holds one sentence a fault, each beginning with its path in the scenario
    (``fleet.penetration = 1.4: must be between 0 and 1``) or its file and line.
    """

    exit_code = 2

    def __init__(self, faults: Sequence[str], source: str = "scenario") -> None:
        self.faults = list(faults)
        self.source = source
        super().__init__(_listed(source, self.faults))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by faults and source, from process to process."""
        return type(self), (self.faults, self.source)


class NetworkError(EvgridError):
    """A network can't be read, or holds an element that the solver can't represent."""

    @classmethod
    def of(cls, source: str, faults: Sequence[str]) -> NetworkError:
        """Every fault found in a network, a sentence each."""
        return cls(_listed(f"network {source}", faults))


class PowerFlowError(EvgridError):
    """A power flow did not converge or does not balance; names the members and the time.

    time_s : simulated time of the power flow, where it is not that at which the error is raised; else None
    """

    time_s: float | None = None


class StrategyError(EvgridError):
    """A charging strategy raised or returned something that is no set-point."""


class RunError(EvgridError):
    """A run ended early; the message names the federate, the simulated time and the first cause."""


class AuditError(EvgridError):
    """Energy or power that should balance does not."""


class ResultError(EvgridError):
    """A result can't be written, read or plotted."""
