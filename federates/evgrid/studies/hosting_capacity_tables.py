"""Tables of a hosting capacity study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evgrid.results.limits import Criterion, LimitSet, limit_set, limits_frame

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Unit(NamedTuple):
    """Unit of a study's levels.

    setting : key of the study
    text : long name of the levels
    units : their unit
    noun : for messages
    counted : whether a level is a number of EVs or chargers of the deployment, not one per household
    """

    setting: str
    text: str
    units: str
    noun: str
    counted: bool


UNITS = {
    unit.setting: unit
    for unit in (
        Unit("levels", "penetration, EVs per household", "1", "penetration", False),
        Unit("evs", "EVs in all", "1", "EVs", True),
        Unit("chargers", "chargers in all", "1", "chargers", True),
        Unit("kw", "rated power of all chargers", "kW", "kW", True),
    )
}
"""The units by the key of the study."""


def unit_of(result: xr.Dataset) -> Unit:
    """Unit of the levels of a study's Dataset."""
    return next(unit for unit in UNITS.values() if unit.text == result["level"].attrs["long_name"])


TOGETHER = "any"
"""The criterion of a violation of any."""

NO_SOLUTION = "power_flow"
"""The criterion of a deployment whose power flow has no solution."""


WORST = {
    "kind": ("element", "kind of element"),
    "element": ("name", "element"),
    "phase": ("phase", "phase"),
    "time": ("first_time", "time"),
}
"""Attributes of a violation: name, column of :func:`evgrid.results.limits.violations`, description."""


def chosen_limits(limits: Sequence[Any]) -> LimitSet:
    """The criteria of a study's setting ``limits`` as in JSON."""
    return limit_set(
        *(given if isinstance(given, str) else Criterion.model_validate(given) for given in limits)
    )


def limits_table(result: xr.Dataset) -> pd.DataFrame:
    """The limits of a study with their numbers (``limits_frame``), whether each was
    ``checked``, and a ``remark`` how, or why not.
    """
    table = limits_frame(chosen_limits(json.loads(result.attrs["study"])["limits"]))
    left_out, remarks = (json.loads(result.attrs[name]) for name in ("not_checked", "remarks"))
    names = table["criterion"]
    table["checked"] = [name not in left_out for name in names]
    table["remark"] = [left_out.get(name) or remarks.get(name, "") for name in names]
    return table


def limit_rows(result: xr.Dataset) -> list[tuple[str, str]]:
    """The limits of a study, and what was not checked, as (name, text) rows of its summary."""
    rows, remarks = list[tuple[str, str]](), json.loads(result.attrs["remarks"])
    for criterion in chosen_limits(json.loads(result.attrs["study"])["limits"]).criteria:
        remark = remarks.get(criterion.name)
        rows.append((f"limit {criterion.name}", f"{criterion.text}; {remark}" if remark else criterion.text))
    if "criterion" in result.coords and NO_SOLUTION in result["criterion"].values:
        rows.append((f"limit {NO_SOLUTION}", "the power flow has a solution"))
    for name, reason in json.loads(result.attrs["not_checked"]).items():
        rows.append(("not checked", f"{name}: {reason.removeprefix(f'{name}: ')}"))
    return rows


def half_width(result: xr.Dataset, criterion: str = TOGETHER) -> xr.DataArray:
    """Half the interval of the share of deployments with a violation at or below the capacity,
    (variant,); at the lowest level where the capacity is below it.
    """
    width = (result["first_share_high"] - result["first_share_low"]).sel(criterion=criterion) / 2
    capacity = result["capacity"].sel(criterion=criterion).fillna(result["level"].values[0])
    return width.sel(level=capacity)


def capacity_table(result: xr.Dataset) -> pd.DataFrame:
    """Hosting capacity of every variant and criterion: a row each, with its interval."""
    table = result[["capacity", "capacity_low", "capacity_high"]].to_dataframe().reset_index()
    return table[["variant", "criterion", "capacity", "capacity_low", "capacity_high"]]


def binding_table(result: xr.Dataset) -> pd.DataFrame:
    """Violations at the first level past the capacity, which determine it.

    A row for each variant, criterion, element and phase, by the share of deployments that violate the
    criterion there (``criterion_share``; the first row of a variant determines its capacity), then by the
    number of deployments whose worst violation of the criterion is at the element; with the median hour of
    the day. ``any_share``: share of deployments that violate any criterion there; ``other_share``: any but
    this. A deployment may be in rows of several criteria.
    """
    table = result[[f"binding_{name}" for name in WORST]].to_dataframe().reset_index()
    table = table[(table["binding_kind"] != "") & (table["criterion"] != TOGETHER)]
    table = table.rename(columns={"criterion": "binding_criterion"})
    counted = _counted(table, "binding", result.sizes["member"])
    shares = result[["binding_share", "binding_other_share"]].to_dataframe()
    at = list(zip(counted["variant"], counted["binding_criterion"], strict=True))
    together = [(variant, TOGETHER) for variant, _ in at]
    for place, (name, column, rows) in enumerate(
        (
            ("criterion_share", "binding_share", at),
            ("any_share", "binding_share", together),
            ("other_share", "binding_other_share", at),
        )
    ):
        counted.insert(2 + place, name, [float(shares.loc[row, column]) for row in rows])
    order = list(result["variant"].values)
    counted["variant_place"] = [order.index(variant) for variant in counted["variant"]]
    counted = counted.sort_values(
        ["variant_place", "criterion_share", "binding_criterion", "deployments"],
        ascending=[True, False, True, False], kind="stable",
    )  # fmt: skip
    return counted.drop(columns="variant_place").reset_index(drop=True)


def first_violations_table(result: xr.Dataset) -> pd.DataFrame:
    """Criterion, element and phase of each deployment's first violation as EVs are added.

    Most frequent first, with the number of deployments, their share, and the median hour of the day.

    It need not determine the capacity (:func:`binding_table`).
    """
    names = [f"first_{name}" for name in ("criterion", *WORST)]
    table = result[names].to_dataframe().reset_index()
    counted = _counted(table[table["first_criterion"] != ""], "first", result.sizes["member"])
    return counted.sort_values("deployments", ascending=False, kind="stable").reset_index(drop=True)


def _counted(table: pd.DataFrame, prefix: str, members: int) -> pd.DataFrame:
    """Deployments by variant, criterion, element and phase, with their share and median hour."""
    keys = ["variant", *(f"{prefix}_{name}" for name in ("criterion", "kind", "element", "phase"))]
    when = table[f"{prefix}_time"].dt
    hours = table.assign(hour=when.hour + when.minute / 60)
    counted = (
        hours.groupby(keys, sort=False)["hour"].agg(deployments="size", median_hour="median").reset_index()
    )
    counted["share"] = counted["deployments"] / members
    return counted[[*keys, "deployments", "share", "median_hour"]]
