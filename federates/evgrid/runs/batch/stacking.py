"""Stacking of results that may differ in variables, sizes, coordinates, types and attributes.

In: Datasets, one a case, or one a chunk of a case's members. Out: one Dataset in which each keeps its own
values. Missing values are filled: NaN for numbers (whole numbers and bool become
floats), NaT for times, "" for text. A variable that lacks a dimension which the same variable of another has
does not vary along it. Numbers in one and text or times in another become text. Variables that are equal in
all, and vary neither with members nor with time, are stored once.

Entries along a dimension are the same where their labels are; of several with one label the first is the same
as the first, and so on; without labels position counts. Arrays of Dask stay such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    Places = Mapping[str, NDArray[np.int64] | None]
    """By dimension, positions in a part of the entries of the whole, -1 for none; None: in place."""

_VARYING = frozenset({"member", "time"})


def stack(parts: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    """Datasets as one along ``dim``, which they all have, or none of them has.

    Attributes that differ become coordinates along a new ``dim``: ``VARIABLE_ATTRIBUTE``, and
    ``DIM_ATTRIBUTE`` for those of the Dataset. Along a ``dim`` that the parts have, the first part's are
    kept.
    """
    import xarray as xr

    new = dim not in parts[0].dims
    if not new and len(parts) == 1:
        return parts[0]
    labels, places = _aligned(parts, dim)
    names = list(
        dict.fromkeys(str(n) for part in parts for n in part.variables if n not in labels and n != dim)
    )
    variables = {}
    for name in names:
        of_parts = [part.variables.get(name) for part in parts]
        variables[name] = _stacked(of_parts, parts, dim, labels, places)
        if new:
            for key, values in _differing([None if v is None else v.attrs for v in of_parts]).items():
                own = f"{name}_{key}"
                while own in names or own in labels or own == dim:
                    own += "_"
                variables[own] = xr.Variable(dim, values, {"long_name": f"{key} of {name}"})
    coords = {n for part in parts for n in part.coords} | {n for n in variables if n not in names}
    indexes = {name: found for name, found in labels.items() if found is not None}
    if not new:
        indexes[dim] = xr.Variable(dim, np.concatenate([p[dim].values for p in parts]), parts[0][dim].attrs)
    whole = xr.Dataset({**variables, **indexes}).set_coords([n for n in variables if n in coords])
    if not new:
        return whole.assign_attrs(parts[0].attrs)
    of_datasets = {
        f"{dim}_{key}": (dim, values, {"long_name": f"{key} of the {dim}"})
        for key, values in _differing([part.attrs for part in parts]).items()
    }
    return whole.assign_coords(of_datasets).assign_attrs(_common([part.attrs for part in parts]))


def _aligned(
    parts: Sequence[xr.Dataset], dim: str
) -> tuple[dict[str, xr.Variable | None], list[dict[str, NDArray[np.int64] | None]]]:
    """The coordinate of each dimension but ``dim`` (None: it has none), and its positions in each part."""
    import pandas as pd
    import xarray as xr

    labels: dict[str, xr.Variable | None] = {}
    places: list[dict[str, NDArray[np.int64] | None]] = [{} for _ in parts]
    for name in dict.fromkeys(str(d) for part in parts for d in part.dims if d != dim):
        have = [part for part in parts if name in part.dims]
        named = all(name in part.coords for part in have)
        own = [part[name].values if named else np.arange(part.sizes[name]) for part in have]
        if all(
            values.dtype.kind == own[0].dtype.kind and np.array_equal(values, own[0]) for values in own[1:]
        ):
            found: list[NDArray[np.int64] | None] = [None] * len(own)
            union: NDArray[Any] = own[0]
        else:
            keys = [_keys(values) for values in own]
            merged = keys[0]
            for other in keys[1:]:
                merged = merged.append(other[~other.isin(merged)])
            if all(
                values.dtype.kind in "iufMm" and pd.Index(values).is_monotonic_increasing for values in own
            ):
                merged = merged.sort_values()
            union = np.asarray(merged.get_level_values(0))
            if all(values.dtype.kind == "U" for values in own):
                union = union.astype(str)
            found = [key.get_indexer(merged) for key in keys]
        attrs = have[0][name].attrs if named else {}
        labels[name] = xr.Variable(name, union, attrs) if named else None
        places_of = iter(found)
        for place, part in zip(places, parts, strict=True):
            if name in part.dims:
                place[name] = next(places_of)
    return labels, places


def _keys(values: NDArray[Any]) -> pd.MultiIndex:
    """Each label with the number of its earlier occurrences."""
    import pandas as pd

    series = pd.Series(values)
    return pd.MultiIndex.from_arrays([series, series.groupby(series, dropna=False).cumcount()])


def _stacked(
    of_parts: Sequence[xr.Variable | None],
    parts: Sequence[xr.Dataset],
    dim: str,
    labels: Mapping[str, xr.Variable | None],
    places: Sequence[Places],
) -> xr.Variable:
    """One variable of all parts as one."""
    import xarray as xr

    present = [v for v in of_parts if v is not None]
    dims = list(dict.fromkeys(str(d) for v in present for d in v.dims if d != dim))
    dims.sort(key=lambda d: d not in _VARYING)  # the order of evgrid's results: member, time, others
    has_dim = any(dim in v.dims for v in present)
    parted = dim in parts[0].dims  # chunks of one case, of which some may lack the variable
    if not has_dim and (parted or (len(present) == len(parts) and not _VARYING & set(dims))):
        loaded = [v.compute() for v in present]
        unmoved = all(place.get(d) is None for place in places for d in dims)
        if unmoved and all(_alike(loaded[0], v) for v in loaded[1:]):
            return loaded[0]
    sizes = {d: _size(d, parts, labels) for d in dims}
    gaps = len(present) < len(parts) or any(
        (where := place.get(str(d))) is not None and bool((where < 0).any())
        for v, place in zip(of_parts, places, strict=True)
        if v is not None
        for d in v.dims
        if d != dim
    )
    dtype, fill = _type(present, gaps)
    blocks = []
    for variable, part, place in zip(of_parts, parts, places, strict=True):
        shape = {**({dim: part.sizes[dim]} if parted else {}), **sizes}
        if variable is None:
            blocks.append(xr.Variable(list(shape), _full(tuple(shape.values()), fill, dtype)))
            continue
        block = _as(variable, dtype)
        for d in block.dims:
            where = place.get(str(d))
            if where is None:
                continue
            if not block.sizes[d]:
                held = {**dict(block.sizes), d: len(where)}
                block = xr.Variable(list(held), _full(tuple(held.values()), fill, dtype))
            else:
                block = block.isel({d: np.maximum(where, 0)})
                if (where < 0).any():
                    block = block.where(xr.Variable(d, where >= 0), fill)  # type: ignore[no-untyped-call]
        blocks.append(block.set_dims(shape).transpose(*shape))  # type: ignore[no-untyped-call]
    whole: xr.Variable = xr.Variable.concat(blocks, dim)  # type: ignore[no-untyped-call]
    if isinstance(fill, str) and whole.chunks is None:
        whole = whole.astype(str)
    whole.attrs = _common([v.attrs for v in present])
    return whole


def _size(dim: str, parts: Sequence[xr.Dataset], labels: Mapping[str, xr.Variable | None]) -> int:
    found = labels.get(dim)
    return found.size if found is not None else max(part.sizes.get(dim, 0) for part in parts)


def _alike(one: xr.Variable, other: xr.Variable) -> bool:
    return one.dtype == other.dtype and bool(one.identical(other))  # type: ignore[no-untyped-call]


def _type(present: Sequence[xr.Variable], gaps: bool) -> tuple[np.dtype[Any], Any]:
    """The type that holds the values of all, and the value for missing ones."""
    kinds = {v.dtype.kind for v in present}
    if kinds <= set("biufc"):
        common = np.result_type(*(v.dtype for v in present))
        if gaps and common.kind in "biu":
            common = np.dtype(np.float64)
        return common, np.nan
    if kinds == {"M"}:
        return np.result_type(*(v.dtype for v in present)), np.datetime64("NaT", "ns")
    if kinds == {"m"}:
        return np.result_type(*(v.dtype for v in present)), np.timedelta64("NaT", "ns")
    return np.dtype(object), ""


def _full(shape: tuple[int, ...], fill: Any, dtype: np.dtype[Any]) -> Any:
    import dask.array

    if dtype.kind == "O":
        return np.full(shape, fill, dtype)
    return dask.array.full(shape, fill, dtype=dtype, chunks=-1)


def _as(variable: xr.Variable, dtype: np.dtype[Any]) -> xr.Variable:
    """A variable as another type; text in memory."""
    import xarray as xr

    if dtype.kind != "O":
        return variable.astype(dtype)
    return xr.Variable(variable.dims, variable.values.astype(str).astype(object), variable.attrs)


def _common(attrs: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """The attributes that are equal in all."""
    first = attrs[0]
    return {
        key: value
        for key, value in first.items()
        if all(key in a and _same(a[key], value) for a in attrs[1:])
    }


def _differing(attrs: Sequence[Mapping[Any, Any] | None]) -> dict[str, list[Any]]:
    """The attributes that differ, with the value of each; "" for none. Entries of None are ignored."""
    given = [a for a in attrs if a is not None]
    keys = dict.fromkeys(key for a in given for key in a)
    common = _common(given)
    found = {}
    for key in keys:
        if key in common:
            continue
        values = [a[key] if a is not None and key in a else None for a in attrs]
        numbers = all(v is None or (np.isscalar(v) and not isinstance(v, str)) for v in values)
        found[str(key)] = [
            (np.nan if numbers else "") if v is None else v if numbers else str(v) for v in values
        ]
    return found


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, type(other)) and isinstance(other, type(one)) and bool(np.array_equal(one, other))
