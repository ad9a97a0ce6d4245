"""Selection of the buses, lines, transformers and shunts of a feeder, and of the sites, in a result.

With "none" no variable over time is recorded of a kind; with a list of names its dimension has only these.
Variables of the whole feeder, such as the lowest voltage, are recorded either way. ``attrs["recorded"]`` of
a result has the numbers recorded and existing, :func:`unrecorded` as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.element_names import ElementNames
from evgrid.errors import ScenarioError

if TYPE_CHECKING:
    import xarray as xr

KINDS = {"bus": "buses", "line": "lines", "trafo": "trafos", "shunt": "shunts"}
"""Dimensions of the feeder that can be selected from, and the setting of each."""
SITE = "site"
"""Dimension of the sites; its names may repeat from member to member."""

POSITIONS = dict.fromkeys(("line_from_bus", "line_to_bus", "trafo_hv_bus", "trafo_lv_bus"), "bus")
"""Variables that hold positions along a dimension."""


@dataclass(frozen=True)
class Selection:
    """The recorded elements of each dimension.

    dropped : dimensions without variables over time
    rows : positions of the recorded elements, for dimensions recorded in part
    sizes : number of elements of the dimensions that have been selected from
    """

    dropped: frozenset[str] = frozenset()
    rows: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def recorded(self) -> str:
        """``attrs["recorded"]``: numbers recorded and existing, of each selected dimension, as JSON."""
        return json.dumps(
            {dim: [0 if dim in self.dropped else len(self.rows[dim]), n] for dim, n in self.sizes.items()}
        )

    def static(self, name: str, dims: tuple[str, ...], values: NDArray[Any]) -> NDArray[Any]:
        """The recorded values of a variable without time; positions are those in the result, -1 for none."""
        if name in POSITIONS and (rows := self.rows.get(POSITIONS[name])) is not None:
            place = np.full(self.sizes[POSITIONS[name]] + 1, -1)
            place[rows] = np.arange(len(rows))
            values = place[values]
        for axis, dim in enumerate(dims):
            if dim in self.rows:
                values = values.take(self.rows[dim], axis)
        return values


def selection(
    record: Any, labels: Mapping[str, NDArray[np.str_]], sometimes: NDArray[np.str_] | None = None
) -> Selection:
    """The selection by a scenario's ``record`` settings; ``labels`` are the names along each dimension.

    sometimes : names of sites that other members have; None: none

    Raises ScenarioError with every unknown name.
    """
    dropped, rows, sizes, faults = set[str](), {}, {}, []
    for dim, setting in {**KINDS, SITE: "sites"}.items():
        chosen, known = getattr(record, setting), labels[dim]
        if chosen == "all":
            continue
        sizes[dim] = len(known)
        if chosen == "none":
            dropped.add(dim)
            continue
        allowed = known if dim != SITE or sometimes is None else np.append(known, sometimes)
        names = ElementNames(allowed)
        whose = "scenario" if dim == SITE else "network"
        found = names.places(chosen)
        faults += [
            f"record.{setting} = {name}: the {whose} has no such {dim}; {names.hint(name)}"
            for name in [name for name, place in zip(chosen, found, strict=True) if place < 0][:20]
        ]
        rows[dim] = np.flatnonzero(np.isin(known, allowed[found[found >= 0]]))
    if faults:
        raise ScenarioError(faults)
    return Selection(frozenset(dropped), rows, sizes)


def unrecorded(result: xr.Dataset, dim: str) -> str:
    """Recorded part of a dimension as text: "" (all), "not recorded", or "3 of 55 recorded"."""
    some, all_of = json.loads(result.attrs.get("recorded", "{}")).get(dim, (1, 1))
    if some == all_of and not (some == 0 and all_of > 0):
        return ""
    return f"{some} of {all_of} recorded" if some else "not recorded"
