"""Which buses, lines, transformers and shunts of a feeder a result holds.

With "none" nothing over time is recorded of a kind; with a list of names its dimension has these only. What
is of the whole feeder, such as the lowest voltage, is recorded either way. ``attrs["recorded"]`` of a result
says how many of how many there are, :func:`unrecorded` in a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import ScenarioError

if TYPE_CHECKING:
    import xarray as xr

KINDS = {"bus": "buses", "line": "lines", "trafo": "trafos", "shunt": "shunts"}
"""Dimensions of which one can choose, and the setting of each."""

POSITIONS = {"line_from_bus": "bus", "line_to_bus": "bus"}
"""Variables that hold positions along a dimension."""


@dataclass(frozen=True)
class Selection:
    """What is recorded of each dimension.

    dropped : dimensions of which nothing over time is recorded
    rows : positions of what is recorded, for those of which not all is
    sizes : how many there are of those that have been chosen from
    """

    dropped: frozenset[str] = frozenset()
    rows: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def recorded(self) -> str:
        """``attrs["recorded"]``: how many of how many, of each dimension chosen from, as JSON."""
        return json.dumps(
            {dim: [0 if dim in self.dropped else len(self.rows[dim]), n] for dim, n in self.sizes.items()}
        )

    def static(self, name: str, dims: tuple[str, ...], values: NDArray[Any]) -> NDArray[Any]:
        """What is recorded of a variable without time; positions are those in the result, -1 for none."""
        if name in POSITIONS and (rows := self.rows.get(POSITIONS[name])) is not None:
            place = np.full(self.sizes[POSITIONS[name]] + 1, -1)
            place[rows] = np.arange(len(rows))
            values = place[values]
        for axis, dim in enumerate(dims):
            if dim in self.rows:
                values = values.take(self.rows[dim], axis)
        return values


def selection(record: Any, labels: Mapping[str, NDArray[np.str_]]) -> Selection:
    """What the settings ``record`` of a scenario choose; ``labels`` are the names along each dimension.

    Raises ScenarioError with every name that there is not.
    """
    dropped, rows, sizes, faults = set[str](), {}, {}, []
    for dim, setting in KINDS.items():
        chosen, known = getattr(record, setting), labels[dim]
        if chosen == "all":
            continue
        sizes[dim] = len(known)
        if chosen == "none":
            dropped.add(dim)
            continue
        strange = [name for name in chosen if name not in known]
        faults += [
            f"record.{setting} = {name}: the network has no such {dim}; it has {', '.join(known[:5])}"
            f"{', …' if len(known) > 5 else ''}"
            for name in strange[:20]
        ]
        rows[dim] = np.flatnonzero(np.isin(known, chosen))
    if faults:
        raise ScenarioError(faults)
    return Selection(frozenset(dropped), rows, sizes)


def unrecorded(result: xr.Dataset, dim: str) -> str:
    """What a result lacks of a dimension: "", "not recorded", or "3 of 55 recorded"."""
    some, all_of = json.loads(result.attrs.get("recorded", "{}")).get(dim, (1, 1))
    if some == all_of and not (some == 0 and all_of > 0):
        return ""
    return f"{some} of {all_of} recorded" if some else "not recorded"
