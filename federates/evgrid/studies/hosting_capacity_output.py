"""Output of a hosting capacity study: Dataset, tables, map and plots.

Each plot takes the study's Dataset and an Axes, draws, and returns the Axes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.errors import ResultError
from evgrid.results import save_dataset
from evgrid.studies.hosting_capacity_tables import (
    TOGETHER,
    binding_table,
    capacity_table,
    first_violations_table,
    limits_table,
    unit_of,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARES = ("probability", "first_share")


def save_study(result: xr.Dataset, folder: str | Path) -> list[Path]:
    """Write all output into a folder; returns the files.

    ``study.nc`` (the Dataset), ``capacity.csv``, ``shares.csv`` (P(violation) and first violations
    by level with their intervals), ``binding.csv`` (violations that determine the capacity),
    ``first_violations.csv``, ``limits.csv`` (the limits with their numbers), ``buses.geojson``,
    ``study.png``; with nodal capacities ``nodal.csv`` and ``nodal.png``.

    Raises
    ------
    ResultError
        If they can't be written.

    """
    folder = Path(folder)
    names = (
        "study.nc", "capacity.csv", "shares.csv", "binding.csv", "buses.geojson", "study.png",
        "first_violations.csv", "limits.csv",
    )  # fmt: skip
    files = [folder / name for name in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_dataset(result, files[0])
        capacity_table(result).to_csv(files[1], index=False)
        columns = [f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")]
        result[columns].to_dataframe().reset_index().to_csv(files[2], index=False)
        binding_table(result).to_csv(files[3], index=False)
        first_violations_table(result).to_csv(files[6], index=False)
        limits_table(result).to_csv(files[7], index=False)
        files[4].write_text(json.dumps(bus_map(result)), encoding="utf-8")
        picture(result).savefig(files[5], dpi=130)
        if "nodal_capacity_kw" in result:
            files += [folder / "nodal.csv", folder / "nodal.png"]
            result["nodal_capacity_kw"].to_dataframe().reset_index().to_csv(files[8], index=False)
            from matplotlib.figure import Figure

            figure = Figure(figsize=(7, 5.6), layout="constrained")
            plot_nodal_capacity(result, figure.subplots())
            figure.savefig(files[9], dpi=130)
    except OSError as error:
        raise ResultError(f"the study can't be written to {folder}: {error}") from error
    return files


def picture(result: xr.Dataset) -> Figure:
    """The study's picture: P(violation) and first violations by level, or the capacity of each node."""
    from matplotlib.figure import Figure

    title = f"{result.attrs['name']}, {result.sizes['member']} deployments"
    if (result["node"] != "").all():
        figure = Figure(figsize=(9, 1.8 + 0.24 * result.sizes["variant"]), layout="constrained")
        plot_capacity_by_node(result, figure.subplots())
        figure.suptitle(title)
        return figure
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    plot_violation_probability(result, left)
    plot_first_violation(result, right)
    return figure


def bus_map(result: xr.Dataset) -> dict[str, Any]:
    """A GeoJSON feature collection with a point for each bus, in the network's own coordinates.

    Properties: ``bus``; by variant ``first_violations`` (deployments whose first violation is
    worst at this bus), ``voltage_min_pu`` and ``voltage_max_pu`` (at the highest level); with nodal
    capacities ``nodal_capacity_kw``, the least of the bus's connections, null where there is none, and
    ``nodal_capacity_at_least``, true where all loads tried pass at each of them.
    """
    nodal, limited = _by_bus(result), _limited_buses(result)
    first = first_violations_table(result)
    first = first[first["first_kind"] == "bus"]
    counts = first.groupby(["variant", "first_element"])["deployments"].sum().to_dict()
    last = result.isel(level=-1)
    variants = [str(variant) for variant in result["variant"].values]
    extremes = {
        end: last[f"bus_voltage_{end}_pu"].transpose("variant", "bus").values for end in ("min", "max")
    }
    features = []
    for i, bus in enumerate(result["bus"].values):
        place = [float(result[name].values[i]) for name in ("bus_x", "bus_y")]
        properties: dict[str, Any] = {"bus": str(bus)}
        if nodal is not None:
            properties["nodal_capacity_kw"] = nodal.get(str(bus))
            properties["nodal_capacity_at_least"] = str(bus) in nodal and str(bus) not in limited
        for v, variant in enumerate(variants):
            properties[variant] = {
                "first_violations": int(counts.get((variant, str(bus)), 0)),
                **{f"voltage_{end}_pu": _number(values[v, i]) for end, values in extremes.items()},
            }
        known = np.isfinite(place).all()
        geometry = {"type": "Point", "coordinates": place} if known else None
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def plot_violation_probability(result: xr.Dataset, ax: Axes, criterion: str = TOGETHER) -> Axes:
    """P(violation) against penetration with its interval, a line a variant. It may fall again."""
    _draw(result, ax, "probability", criterion)
    ax.set(ylabel="deployments that violate a limit (%)", title="P(violation) at each penetration")
    return ax


def plot_first_violation(result: xr.Dataset, ax: Axes, criterion: str = TOGETHER) -> Axes:
    """Distribution of the first violation over penetration (an ECDF) with its interval, and the
    risk that the hosting capacity is read at.
    """
    _draw(result, ax, "first_share", criterion)
    ax.axhline(100 * json.loads(result.attrs["study"])["risk"], color="black", linewidth=0.8, linestyle="--")
    ax.set(
        ylabel="deployments with a violation so far (%)",
        title="First violation (dashed: the risk accepted)",
    )
    return ax


def plot_capacity_by_node(result: xr.Dataset, ax: Axes) -> Axes:
    """Hosting capacity at each node with its interval, coloured by the criterion that sets it."""
    unit, levels = unit_of(result), result["level"].values
    set_by = binding_table(result).groupby("variant", sort=False)["binding_criterion"].first()
    labels = [str(variant) for variant in result["variant"].values]
    names = [str(set_by.get(label, "no limit passed")) for label in labels]
    at = result.sel(criterion=TOGETHER)
    capacity, low, high = (
        at[name].fillna(0.0).values for name in ("capacity", "capacity_low", "capacity_high")
    )
    y = np.arange(len(labels))
    for name in dict.fromkeys(names):
        own = np.array([other == name for other in names])
        color = "0.75" if name == "no limit passed" else None
        ax.barh(y[own], capacity[own], height=0.7, label=name, color=color)
    ax.errorbar(
        capacity, y, xerr=[capacity - low, high - capacity], fmt="none", ecolor="black", elinewidth=0.9,
        capsize=2,
    )  # fmt: skip
    ax.axvline(levels[-1], color="0.5", linewidth=0.8, linestyle=":", label="highest level")
    ax.set_yticks(y, labels, fontsize="small")
    ax.invert_yaxis()
    units = "kW" if unit.setting == "kw" else unit.noun
    ax.set(xlabel=f"hosting capacity, one node at a time ({units})", xlim=(0, 1.04 * max(levels[-1], 1)))
    ax.legend(frameon=False, title="set by", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_nodal_capacity(result: xr.Dataset, ax: Axes) -> Axes:
    """Map of the power that the connections at each bus can draw besides, one at a time, kW."""
    nodal = _by_bus(result) or {}
    x, y = result["bus_x"].values, result["bus_y"].values
    kw = np.array([nodal.get(str(bus), np.nan) for bus in result["bus"].values])
    there = np.array([str(bus) in nodal for bus in result["bus"].values])
    below = there & np.isnan(kw)
    ax.scatter(x[~there], y[~there], s=3, color="0.8", label="no connection")
    points = ax.scatter(x[there & ~below], y[there & ~below], c=kw[there & ~below], s=45, cmap="viridis")
    if below.any():
        ax.scatter(x[below], y[below], s=45, marker="x", color="red", label="none")
    ax.figure.colorbar(points, ax=ax, label="power that can be added at this bus only (kW)")
    ax.set(xlabel="x (as in the network)", ylabel="y (as in the network)", title="Nodal capacity")
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(frameon=False)
    return ax


def _by_bus(result: xr.Dataset) -> dict[str, float | None] | None:
    """Least nodal capacity of each bus's connections, kW, None where it is below the least tried."""
    if "nodal_capacity_kw" not in result:
        return None
    capacity = result["nodal_capacity_kw"]
    least: dict[str, float | None] = {}
    for bus, kw in zip(capacity["connection_bus"].values, capacity.fillna(-1.0).values, strict=True):
        known = least.get(str(bus), np.inf)
        least[str(bus)] = None if kw < 0 or known is None else min(float(kw), known)
    return least


def _limited_buses(result: xr.Dataset) -> set[str]:
    """Buses with a connection at which one of the loads tried violates a limit."""
    if "nodal_capacity_kw" not in result:
        return set()
    capacity = result["nodal_capacity_kw"]
    return {str(bus) for bus in capacity["connection_bus"].values[~capacity["connection_at_least"].values]}


def _draw(result: xr.Dataset, ax: Axes, name: str, criterion: str) -> None:
    unit = unit_of(result)
    level = result["level"].values * (1 if unit.counted else 100)
    for place, variant in enumerate(result["variant"].values):
        at = result.sel(variant=variant, criterion=criterion)
        # lines and bounds of variants that coincide are seen through each other
        dashes, marker = (0, (5, place)) if place else "-", "os^Dvx+*"[place % 8]
        (line,) = ax.plot(
            level, 100 * at[name], linestyle=dashes, marker=marker, markersize=4, label=str(variant)
        )
        for end in ("low", "high"):
            ax.plot(
                level, 100 * at[f"{name}_{end}"], color=line.get_color(), linewidth=0.8, label="_bound",
                linestyle=(2 * place, (1, 2 + place)),
            )  # fmt: skip
        ax.fill_between(
            level, 100 * at[f"{name}_low"], 100 * at[f"{name}_high"],
            color=line.get_color(), alpha=0.4 / (3 + result.sizes["variant"]), linewidth=0,
        )  # fmt: skip
    units = f" ({unit.units})" if unit.units != "1" else ""
    ax.set_xlabel(f"{unit.text}{units}" if unit.counted else "penetration (EVs per 100 households)")
    ax.set_ylim(-2, 102)
    ax.legend(frameon=False)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
