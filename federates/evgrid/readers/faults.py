"""Faults of a file as sentences: all kinds, at most twenty rows of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import ScenarioError

if TYPE_CHECKING:
    from evgrid.readers.tables import Table

MOST_ROWS = 20
"""Most rows of one fault that are listed; the others are counted."""

_MOST_SHOWN = 60


def shown(value: Any) -> str:
    """A cell for a message: on one line, cut after 60 characters; "nothing" if it is empty."""
    text = value if isinstance(value, str) else str(value)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: _MOST_SHOWN + 1])
    return (text[:_MOST_SHOWN] + "…" if len(text) > _MOST_SHOWN else text) or "nothing"


def capped(sentences: Sequence[str]) -> list[str]:
    """Sentences of one kind of fault, of which the first twenty are kept and the others counted."""
    rest = len(sentences) - MOST_ROWS
    return [*sentences[:MOST_ROWS], *([f"and {rest} more"] if rest > 0 else [])]


class Faults:
    """Collector of the faults of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._whole: list[str] = []
        self._rows: list[tuple[int, int, str]] = []  # row, order of finding, sentence
        self._of_rule: dict[str, int] = {}

    @property
    def place(self) -> str:
        """Name of a row: line, row or point."""
        return self._table.place

    def __bool__(self) -> bool:
        return bool(self._whole or self._rows)

    def file(self, *sentences: str) -> None:
        """Add a fault of the file as a whole, or several of one kind."""
        self._whole += capped(sentences)

    def rows(self, rows: NDArray[Any] | Sequence[int], rule: str | Callable[[int], str]) -> None:
        """Add a fault of rows, given by number (from 0) or as a mask.

        ``rule``: the fault of a row, or a function that returns it.
        """
        describe = (lambda row: rule) if isinstance(rule, str) else rule
        self._add(rows, describe, rule if isinstance(rule, str) else f"rule {len(self._of_rule)}")

    def cells(
        self, rows: NDArray[Any] | Sequence[int], column: str, rule: str, cells: Sequence[str] | None = None
    ) -> None:
        """Add that cells of a column break a rule; ``cells``: as they are to be shown."""

        def describe(row: int) -> str:
            given = self._table.text(column) if cells is None else cells
            return f"{column} = {shown(given[row])}: {rule}"

        self._add(rows, describe, rule)

    def rows_unlike_header(self, header: int | None = None) -> None:
        """Add the rows that have another number of cells than the header.

        ``header``: line that names the columns, where there is a setting for it. If that is line 1, and most
        rows are unlike it, raise ScenarioError with that alone.
        """
        odd, expected = self._table.ragged, len(self._table.names)
        if header == 1 and len(odd) > len(self._table):
            line, number = odd[0]
            self.file(
                f"the first line has {expected} values, line {line} and {len(odd) - 1} others have another "
                f"number, such as {number}: state header, the line that names the columns"
            )
            self.check()
        self.file(*(f"line {line}: has {n} values: must have {expected} as the header" for line, n in odd))

    def _add(self, rows: NDArray[Any] | Sequence[int], describe: Callable[[int], str], kind: str) -> None:
        masked = isinstance(rows, np.ndarray) and rows.dtype == np.bool_
        found = np.flatnonzero(rows) if masked else np.asarray(rows, np.int64)
        room = max(MOST_ROWS - self._of_rule.get(kind, 0), 0)
        listed = found[:room].tolist()
        for row, where in zip(listed, self._table.where(listed), strict=True):
            self._rows.append((row, len(self._rows), f"{where}: {describe(row)}"))
        if len(found):
            self._of_rule[kind] = self._of_rule.get(kind, 0) + len(found)

    def sentences(self) -> list[str]:
        """All faults: of the file, then of the rows in order, then the numbers of those not listed."""
        rest = sum(max(count - MOST_ROWS, 0) for count in self._of_rule.values())
        more = [f"and {rest} more such {self.place}s"] if rest else []
        return [*self._whole, *(sentence for _, _, sentence in sorted(self._rows)), *more]

    def check(self) -> None:
        """Raise ScenarioError if there are any."""
        if self:
            raise ScenarioError(self.sentences(), str(self._table.source))
