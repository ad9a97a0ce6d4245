"""What a result violates, with what has to be worked out for it first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evgrid.limits import LimitSet, violated

if TYPE_CHECKING:
    import xarray as xr


def judged(result: xr.Dataset, limits: LimitSet) -> tuple[xr.Dataset, xr.Dataset]:
    """The result, with hot spots of transformers where they're asked for, and what each member violates.

    See :func:`evgrid.limits.violated`.
    """
    wanted = any(c.variable == "trafo_hot_spot_c" for c in limits.criteria) and result.sizes["trafo"]
    if wanted and "trafo_hot_spot_c" not in result:
        from evgrid.thermal import transformer_ageing

        result = result.merge(transformer_ageing(result)[["trafo_hot_spot_c"]])
    return result, violated(result, limits)
