"""Key figures of several studies: DataArrays over ``member`` with a text and a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evgrid.results.limits import LimitSet, no_rating, unrated_elements, violations

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.core.model import Array


def currency_of(result: xr.Dataset) -> str:
    """The currency of a result's amounts; the word where it isn't known."""
    return str(result.attrs.get("currency") or "currency")


def figure(values: xr.DataArray, text: str, unit: str) -> xr.DataArray:
    """A key figure: values with a description and a unit."""
    return values.drop_vars([c for c in values.coords if c not in values.dims]).assign_attrs(
        long_name=text, units=unit
    )


def over_sessions(result: xr.Dataset, values: Array, text: str, unit: str) -> xr.DataArray:
    """The sum of ``values`` (session,) over each member's sessions that end within the run; NaN counts
    as 0, but the sum is NaN where all are NaN or no session ends.
    """
    import xarray as xr

    values = np.asarray(values, dtype=np.float64)
    member = np.searchsorted(result["member"].values, result["session_member"].values)
    done = result["session_complete"].values & ~np.isnan(values)
    sums = np.bincount(member[done], values[done], result.sizes["member"]).astype(np.float64)
    if len(values) and not done.any():
        sums[:] = np.nan
    return figure(xr.DataArray(sums, {"member": result["member"].values}, "member"), text, unit)


def violation_hours(result: xr.Dataset, limits: LimitSet) -> xr.DataArray:
    """Hours for which each member violates a limit at each place, (member, place); 0 where it doesn't.

    A place is a criterion with an element and, of a bus, a phase: that of a line or transformer is only the
    one that is loaded most. Only places with a violation in some member are included.
    """
    import xarray as xr

    found = violations(result, limits)
    texts = [
        " ".join(p for p in (f"{criterion}:", element, str(name), str(phase) * (element == "bus")) if p)
        for criterion, element, name, phase in zip(
            found["criterion"], found["element"], found["name"], found["phase"], strict=True
        )
    ]
    places, at = np.unique(np.array(texts, dtype=str), return_inverse=True)
    hours = np.zeros((result.sizes["member"], len(places)))
    member = np.searchsorted(result["member"].values, found["member"].to_numpy(dtype=np.int64))
    hours[member, at] = found["duration_h"].to_numpy(dtype=np.float64)
    return xr.DataArray(
        hours, {"member": result["member"].values, "place": places.astype(object)}, ("member", "place"),
        attrs={"long_name": "time for which a limit is violated", "units": "h"},
    )  # fmt: skip


def new_hours(hours: xr.DataArray, reference: str) -> xr.DataArray:
    """The hours of :func:`violation_hours` at the places that the variant ``reference`` does not violate in
    the same member, else 0; ``hours`` has the dimension ``variant``.
    """
    known = hours.fillna(0.0)
    return known.where(~(known > 0).sel(variant=reference, drop=True), 0.0)


def worst_of_feeder(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Highest loading of lines and transformers and the range of voltages in the run."""
    found = {}
    for element, text in (("trafo", "transformer"), ("line", "line")):
        name = f"{element}_loading"
        if name in result and result.sizes[element]:
            worst = 100 * result[name].max([dim for dim in result[name].dims if dim != "member"])
            unrated, of = unrated_elements(result, name)
            remark = no_rating(unrated, of, element) if unrated else ""
            about = f"highest loading of a {text}" + (f" ({remark})" if 0 < unrated < of else "")
            found[f"{name}_percent"] = figure(worst, about, "%").assign_attrs(remark=remark)
    low, high = result["voltage_min_pu"].min("time"), result["voltage_max_pu"].max("time")
    found["voltage_lowest_pu"] = figure(low, "lowest voltage", "pu")
    found["voltage_highest_pu"] = figure(high, "highest voltage", "pu")
    return found
