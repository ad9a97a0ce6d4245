"""Base of all kinds of study: settings, runs, and answers that the command line prints and saves.

A kind is a class that extends :class:`Study` in a file of its own, and one line in :data:`STUDIES`: then
``evgrid study KIND`` and ``evgrid validate`` know it. Kinds that compare variants of a scenario
extend :class:`evgrid.studies.comparison.Comparison` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict

from evgrid.core.registry import Registry
from evgrid.scenario.fields import ExistingFile, Name, Settings

if TYPE_CHECKING:
    import pandas as pd

    from evgrid.runs.batch import Run

STUDIES = Registry(
    {
        "hosting-capacity": "evgrid.studies.hosting_capacity:HostingCapacity",
        "voltage-support": "evgrid.studies.voltage_support:VoltageSupport",
        "managed-charging": "evgrid.studies.managed_charging:ManagedCharging",
        "frequency-regulation": "evgrid.studies.frequency_regulation:FrequencyRegulation",
        "resilience": "evgrid.studies.resilience:Resilience",
        "growth": "evgrid.studies.growth:Growth",
        "reinforcement": "evgrid.studies.reinforcement:Reinforcement",
    }
)
"""The kinds of study by the name of their command."""


class Option(NamedTuple):
    """A setting that the command line may give in place of the study file.

    flag : such as ``--precision``
    setting : name of the field
    text : help
    type : of the value
    multiple : whether it may be repeated, for a setting that is a tuple
    """

    flag: str
    setting: str
    text: str
    type: type = float
    multiple: bool = False


class BatchOptions(TypedDict, total=False):
    """Options of :func:`evgrid.run_batch`."""

    resume: bool
    workers: int | None
    scheduler: str | None


Progress = Callable[[str], AbstractContextManager[Callable[[int, int, int], None]]]
"""Shows the progress of the runs of a name: called with runs done, failed and in all."""


@dataclass(frozen=True)
class Answer:
    """A study's answer.

    title : of the table
    table : a table of texts, or key figures with their texts
    save : writes the answer's files and returns them
    failures : failed variants, with the reason
    """

    title: str
    table: pd.DataFrame | Sequence[tuple[str, str]]
    save: Callable[[], list[Path]]
    failures: Mapping[str, str] = field(default_factory=dict)


class Study(Settings):
    """A study of a scenario."""

    kind: ClassVar[str]
    """The study's name on the command line."""
    question: ClassVar[str]
    """The question that it answers, a sentence or two: help of its command."""
    options: ClassVar[tuple[Option, ...]] = ()
    """Settings that the command line may give."""

    name: Name
    """Name of the study; its folder is results/NAME unless another is given."""
    scenario: ExistingFile
    """The scenario with the feeder, the EVs and the period; the study's variants start from it."""
    overrides: dict[str, Any] = {}
    """Overrides of the scenario that all runs share, such as {time.step: 5min}."""

    def plans(self) -> list[Run]:
        """All runs that are known beforehand, resolved. Raises ScenarioError with every fault of each."""
        raise NotImplementedError

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """Carry the study out in a folder; an answer for each of its parts.

        Raises
        ------
        EvgridError
            If a scenario is at fault, or there is no answer.
        KeyboardInterrupt
            On Ctrl-C; finished runs are kept.

        """
        raise NotImplementedError
