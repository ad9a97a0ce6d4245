"""Worst values of each element of a feeder: of the whole run, and of intervals of it for a map over time.

In: a result with (member, time, element). Out: :class:`Extremes`, by element the lowest or highest value of
the run with its member, time and phase, and by interval over all members. Results are read block after
block, so that they may be larger than memory. NaN, and a voltage of 0, is not energised and left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.results.limits import interval_s
from evgrid.results.phase_names import phase_names

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float64]

_BLOCK_BYTES = 64 * 2**20
_NICE_S = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600, 604800)
"""Lengths of the intervals of a map, s, of which the shortest that suffices is used."""


@dataclass(frozen=True)
class Extremes:
    """Worst values of the elements of one kind.

    worst : (element,), over members, times and phases; NaN where an element has no value
    member, time, phase : (element,), where it occurs; "" for no phase, NaT and -1 without a value
    frames : (interval, element), over members and phases
    series : (member, time), over elements and phases
    """

    worst: Floats
    member: NDArray[np.int64]
    time: NDArray[np.datetime64]
    phase: NDArray[Any]
    frames: Floats
    series: Floats


def frame_starts(result: xr.Dataset, most: int) -> NDArray[np.int64]:
    """Positions along time at which the intervals of a map start, (interval,): at most ``most`` of them, of a
    round length.
    """
    step_s, count = interval_s(result), result.sizes["time"]
    least = -(-count // max(most, 1))
    lengths = [round(s / step_s) for s in _NICE_S if s % step_s == 0 and s / step_s >= least]
    return np.arange(0, count, lengths[0] if lengths else least)


def extremes(result: xr.Dataset, variable: str, highest: bool, starts: NDArray[np.int64]) -> Extremes:
    """The worst values of a variable; ``starts`` are those of the intervals along time."""
    values = result[variable]
    kind = next(str(dim) for dim in values.dims if dim not in ("member", "time", "phase"))
    phased = "phase" in values.dims
    order = ("time", "member", kind, *(("phase",) if phased else ()))
    count, elements = values.sizes["time"], values.sizes[kind]
    sign = 1.0 if highest else -1.0
    best = np.full(elements, -np.inf)
    at = np.full((3, elements), -1)  # time, member, phase
    frames = np.full((len(starts), elements), -np.inf)
    series = np.full((count, result.sizes["member"]), -np.inf)
    most = max(_BLOCK_BYTES // max(values.nbytes // count, 1), 1)
    for first in range(0, count, most):
        times = np.arange(first, min(first + most, count))
        block = values.isel(time=slice(first, first + most)).transpose(*order).values
        block = block.reshape(*block.shape[:3], -1)
        unknown = np.isnan(block) if highest else ~(block > 0)
        block = np.where(unknown, -np.inf, sign * block)
        worst = block.max(axis=(1, 3))
        series[times] = block.max(axis=(2, 3))
        of = np.searchsorted(starts, times, "right") - 1
        begins = np.flatnonzero(np.diff(of, prepend=-1))
        frames[of[begins]] = np.maximum(frames[of[begins]], np.maximum.reduceat(worst, begins))
        place = worst.argmax(axis=0)
        found = worst[place, np.arange(elements)]
        new = np.flatnonzero(found > best)
        where = block[place[new], :, new].reshape(len(new), block.shape[1] * block.shape[3]).argmax(axis=1)
        at[:, new] = place[new] + first, *np.divmod(where, block.shape[3])
        best[new] = found[new]
    known = at[0] >= 0
    time = np.full(elements, np.datetime64("NaT"), "datetime64[ns]")
    time[known] = result["time"].values[at[0, known]]
    member = np.where(known, result["member"].values[at[1]], -1)
    return Extremes(
        np.where(known, sign * best, np.nan), member, time,
        _phases(result, variable, kind, phased, at, known),
        np.where(np.isfinite(frames), sign * frames, np.nan),
        np.where(np.isfinite(series), sign * series, np.nan).T,
    )  # fmt: skip


def _phases(
    result: xr.Dataset, variable: str, kind: str, phased: bool, at: NDArray[Any], known: NDArray[np.bool_]
) -> NDArray[Any]:
    """Name of the phase of each element's worst value, of the highest loading where it is recorded."""
    names = np.full(len(known), "", object)
    recorded = f"{kind}_worst_phase"
    if phased and result.sizes["phase"] > 1:
        names[known] = phase_names(result, kind)[known, at[2, known]]
    elif variable.endswith("_loading") and recorded in result:
        place = (
            result[recorded].transpose("member", kind).values.astype(np.int64)[at[1], np.arange(len(at[1]))]
        )
        shown = known & (place >= 0)
        names[shown] = phase_names(result, kind)[shown, place[shown]]
    return names
