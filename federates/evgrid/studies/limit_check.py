"""Check of a result against limits, with hot spots computed where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from evgrid.results.limits import PRESETS, Criterion, LimitSet, violated
from evgrid.scenario.fields import fault

if TYPE_CHECKING:
    import xarray as xr


def _known(limits: tuple[str | Criterion, ...]) -> tuple[str | Criterion, ...]:
    unknown = [part for part in limits if isinstance(part, str) and part not in PRESETS]
    if unknown:
        raise fault(f"{unknown[0]} is no preset; must be one of {', '.join(PRESETS)}")
    return limits


Limits = Annotated[tuple[str | Criterion, ...], Field(min_length=1), AfterValidator(_known)]
"""Limits of a study: names of presets, or own criteria."""


def check_limits(result: xr.Dataset, limits: LimitSet) -> tuple[xr.Dataset, xr.Dataset]:
    """The result, with hot spots of transformers where a criterion needs them, and its violations.

    See :func:`evgrid.results.limits.violated`.
    """
    wanted = any(c.variable == "trafo_hot_spot_c" for c in limits.criteria) and result.sizes["trafo"]
    if wanted and "trafo_hot_spot_c" not in result:
        from evgrid.results.transformer_ageing import transformer_ageing

        result = result.merge(transformer_ageing(result)[["trafo_hot_spot_c"]])
    return result, violated(result, limits)
