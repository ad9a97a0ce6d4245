"""Names of the phases of a result's buses and lines: ``a``, ``b``, ``c``, or ``s1``, ``s2`` for the legs of a
split-phase service, which stand in the first two places along ``phase``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

LEGS = ("s1", "s2", "s3")
"""Names of the legs, in the order of ``phase``."""


def phase_names(result: xr.Dataset, dim: str) -> NDArray[Any]:
    """Name of each phase of the elements along ``dim``, (element, phase), of objects."""
    of_all = result["phase"].values if "phase" in result.coords else np.arange(result.sizes["phase"])
    names = np.tile(of_all.astype(str).astype(object), (result.sizes[dim], 1))
    names[on_split_phase(result, dim)] = LEGS[: names.shape[1]]
    return names


def on_split_phase(result: xr.Dataset, dim: str) -> NDArray[np.bool_]:
    """Whether each bus or line belongs to a split-phase service, (element,)."""
    if f"{dim}_nodes" not in result.coords:
        return np.zeros(result.sizes[dim], np.bool_)
    return np.char.startswith(result[f"{dim}_nodes"].values.astype(str), LEGS[0][0])
