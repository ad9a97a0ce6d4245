"""Summary of a hosting capacity study: key figures as (name, text) rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.studies.hosting_capacity_tables import (
    TOGETHER,
    binding_table,
    first_violations_table,
    limit_rows,
    unit_of,
)

if TYPE_CHECKING:
    import xarray as xr

NONE = "none"
"""Hosting capacity in the summary where the risk is passed without any EVs."""


def summary(result: xr.Dataset) -> Sequence[tuple[str, str]]:
    """Key figures of a study's Dataset: of each variant, in one row where it has nodes, then the limits."""
    level = result["level"].values
    levels = f"{len(level)} levels from {amount(level[0], result)} to {amount(level[-1], result)}"
    rows = [("deployments", f"{result.sizes['member']}, {levels}")]
    binding, first = binding_table(result), first_violations_table(result)
    nodes = "node" in result.coords and bool((result["node"] != "").all())
    for variant in result["variant"].values:
        set_by = binding[binding["variant"] == variant]
        text = f"{_capacity(result, variant)}"
        if nodes:
            binds = _binding(set_by.iloc[0], result) if len(set_by) else "no limit is passed"
            rows.append((str(variant), f"{text}; {binds}"))
            continue
        rows.append((f"hosting capacity, {variant}", text))
        if text.startswith(f"{NONE} "):
            rows.append(("  none", "the risk is passed without any EVs"))
        probability = result["probability"].sel(variant=variant, criterion=TOGETHER).values
        worst = int(np.argmax(probability))
        rows.append(
            ("  P(violation), highest", f"{probability[worst]:.1%} at {amount(level[worst], result)}")
        )
        if len(set_by):
            rows.append(("  set by", _binding(set_by.iloc[0], result)))
        came = first[first["variant"] == variant]
        if len(came):
            row = came.iloc[0]
            rows.append(
                (
                    "  first violation, most often",
                    f"{row['first_criterion']}: {row['first_kind']} {row['first_element']} "
                    f"({row['deployments']} deployments, at any level)",
                )
            )
    rows += limit_rows(result)
    wall, feeder = float(result.attrs["wall_s"]), float(result.attrs["feeder_s"])
    share = feeder / float(result.attrs["runs_s"])
    rows.append(("wall time", f"{wall:.1f} s; {share:.0%} of the runs' time in the feeder's power flow"))
    return rows


def _capacity(result: xr.Dataset, variant: str) -> str:
    """Capacity of a variant at the risk, with its interval."""
    risk = json.loads(result.attrs["study"])["risk"]
    at = result.sel(variant=variant, criterion=TOGETHER)
    capacity, low, high = (
        level_text(float(at[name]), result) for name in ("capacity", "capacity_low", "capacity_high")
    )
    between = low if low == high else f"{low} to {high}"
    return f"{capacity} at a risk of {risk:.0%} ({between})"


def _binding(row: Any, result: xr.Dataset) -> str:
    """What sets the capacity, from the first row of a variant in the binding table."""
    phase = f" {row['binding_phase']}" if row["binding_phase"] else ""
    level = amount(float(result["binding_level"].sel(variant=row["variant"])), result)
    return (
        f"{row['binding_criterion']}, which {row['criterion_share']:.0%} of the deployments violate at "
        f"{level} ({row['any_share']:.0%} any limit, {row['other_share']:.0%} another): most often "
        f"{row['binding_kind']} {row['binding_element']}{phase}, at about {_time_of_day(row['median_hour'])} "
        f"({row['deployments']} of them)"
    )


def _time_of_day(hour: float) -> str:
    minutes = round(60 * hour)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def level_text(value: float, result: xr.Dataset) -> str:
    """A capacity, or an end of its interval: "none" or "below" the lowest level, "at least" the highest."""
    levels = result["level"].values
    if np.isnan(value):
        return f"below {amount(levels[0], result)}" if levels[0] else NONE
    return f"at least {amount(value, result)}" if value == levels[-1] else amount(value, result)


def amount(level: float, result: xr.Dataset) -> str:
    """A level as a share of the households, or as a number of EVs, chargers or kW."""
    unit = unit_of(result)
    if not unit.counted:
        return f"{level:.0%}"
    text = f"{level:,.0f} {unit.noun}" if unit.setting == "kw" else f"{level:g} {unit.noun}"
    if unit.setting == "evs" or "level_kw" not in result.coords:
        return text
    at = result.sel(level=level)
    other = (
        f"{float(at['level_kw']):,.0f} kW"
        if unit.setting == "chargers"
        else f"{int(at['level_chargers'])} chargers"
    )
    return f"{text} ({other})"
