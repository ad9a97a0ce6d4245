"""Output of a study of resilience: tables and plots.

Each plot takes the study's Dataset and an Axes, draws, and returns the Axes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.errors import ResultError
from evgrid.results import save_dataset

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALL_SITES = "all"
"""Group of all sites."""


def save_study(result: xr.Dataset, folder: str | Path) -> list[Path]:
    """Write all output into a folder; returns the files.

    ``study.nc`` (the Dataset), ``survival.csv`` (probability against duration), ``figures.csv`` (by variant
    and group), ``sites.csv`` (by site), ``reserve.csv`` (where there are stores), ``study.png``.

    Raises
    ------
    ResultError
        If they can't be written.

    """
    folder = Path(folder)
    files = [folder / name for name in ("study.nc", "survival.csv", "figures.csv", "sites.csv", "study.png")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_dataset(result, files[0])
        result["probability"].to_dataframe().reset_index().to_csv(files[1], index=False)
        figures_table(result).to_csv(files[2], index=False)
        sites_table(result).to_csv(files[3], index=False)
        draw(result).savefig(files[4], dpi=130)
        if "reserve_hours_mean" in result:
            files.append(folder / "reserve.csv")
            reserve_table(result).to_csv(files[5], index=False)
    except OSError as error:
        raise ResultError(f"the study can't be written to {folder}: {error}") from error
    return files


# ---- tables ---------------------------------------------------------------------------------------


def variants_table(result: xr.Dataset) -> pd.DataFrame:
    """Key figures of all sites for reading: a row a figure, a column a variant, as text."""
    import pandas as pd

    whole = result.sel(group=ALL_SITES)
    rows: dict[str, dict[str, str]] = {}

    def add(label: str, values: xr.DataArray, form: str) -> None:
        rows[label] = {
            str(v): _text(float(values.sel(variant=v)) if "variant" in values.dims else float(values), form)
            for v in result["variant"].values
        }

    for kind, word in (("mean", "mean"), ("min", "least"), ("max", "most")):
        add(f"hours survived, {word}", whole[f"hours_{kind}"], ".1f")
    for duration_h in result["lasting"].values:
        at = whole["probability"].sel(duration=duration_h, method="bfill")
        add(f"P(survives {duration_h:g} h)", at, ".1%")
    if result.sizes["site"] > result.attrs["members"]:
        first = float(result["lasting"][0])
        together = result["probability_together"].sel(duration=first, method="bfill")
        add(f"P(all sites survive {first:g} h)", together, ".1%")
    per = _per(result)
    for name, label, form in (
        ("saifi_meter", "SAIFI at the meter", ".3g"),
        ("saifi_socket", "SAIFI of the critical load", ".3g"),
        ("saidi_meter_h", "SAIDI at the meter (h)", ".3g"),
        ("saidi_socket_h", "SAIDI of the critical load (h)", ".3g"),
        ("caidi_meter_h", "CAIDI at the meter (h)", ".3g"),
        ("caidi_socket_h", "CAIDI of the critical load (h)", ".3g"),
        ("unserved_meter_kwh", f"load in interruptions (kWh {per})", ".3g"),
        ("unserved_critical_kwh", f"critical load in interruptions (kWh {per})", ".3g"),
        ("unserved_socket_kwh", f"critical load not served (kWh {per})", ".3g"),
    ):
        if name in whole:
            add(label, whole[name], form)
    return pd.DataFrame.from_dict(rows, orient="index")


def figures_table(result: xr.Dataset) -> pd.DataFrame:
    """Key figures as a long table: variant, group, figure, its description and unit, value.

    Figures at the meter do not depend on the variant, which is empty.
    """
    import pandas as pd

    frames = []
    for name, values in result.data_vars.items():
        if set(values.dims) in ({"variant", "group"}, {"group"}):
            frame = values.to_dataframe(name="value").reset_index()
            frame["figure"], frame["text"] = str(name), values.attrs["long_name"]
            frames.append(frame.assign(unit=values.attrs["units"]))
    table = pd.concat(frames, ignore_index=True).fillna({"variant": ""})
    return table[["variant", "group", "figure", "text", "unit", "value"]]


def sites_table(result: xr.Dataset) -> pd.DataFrame:
    """Hours survived by each site, with member, group and name, a row a site and variant."""
    names = [f"site_hours_{kind}" for kind in ("mean", "min", "max")]
    return result[names].to_dataframe().reset_index().drop(columns="site")


def reserve_table(result: xr.Dataset) -> pd.DataFrame:
    """What each reserve costs in normal times and what it buys, a row a reserve."""
    names = [n for n in result.data_vars if result[n].dims == ("reserve",)]
    table = result[names].to_dataframe().reset_index()
    for number, duration_h in enumerate(result["lasting"].values):
        table[f"probability_{duration_h:g}h"] = result["reserve_probability"].values[:, number]
    return table


def _per(result: xr.Dataset) -> str:
    """What indices are of, as text."""
    return f"a site and {result.attrs['indices_per']}"


def _text(value: float, form: str) -> str:
    return "–" if np.isnan(value) else format(value, form)


# ---- plots ----------------------------------------------------------------------------------------


def draw(result: xr.Dataset) -> Figure:
    """Survival curves; by month, or group where the period has one month, and hour; sites; indices; the curve
    of the reserve.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.6), layout="constrained")
    axes = figure.subplots(2, 3)
    members = f", {result.attrs['members']} members" * int(result.attrs["members"] > 1)
    figure.suptitle(f"{result.attrs['name']}: {result.sizes['site']} sites{members}")
    plot_survival(result, axes[0, 0])
    months = int(result["hours_mean_by_month"].notnull().any(["variant", "group"]).sum())
    if months > 1:
        plot_by(result, "month", axes[0, 1])
    else:
        plot_groups(result, axes[0, 1])
    plot_by(result, "hour", axes[0, 2])
    plot_sites(result, axes[1, 0])
    if "saidi_meter_h" in result:
        plot_indices(result, axes[1, 1])
    elif months > 1:
        plot_groups(result, axes[1, 1])
    else:
        axes[1, 1].set_axis_off()
    if "reserve_hours_mean" in result:
        plot_reserve(result, axes[1, 2])
    else:
        axes[1, 2].set_axis_off()
    return figure


def plot_survival(result: xr.Dataset, ax: Axes, group: str = ALL_SITES) -> Axes:
    """Probability of survival against duration, on a logarithmic axis, a line a variant."""
    duration_h = result["duration"].values
    for style, variant in _styles(result):
        share = result["probability"].sel(variant=variant, group=group).values
        ax.plot(duration_h, 100 * share, label=variant, **style)
    ax.set(
        xlabel="duration of the outage (h)", ylabel="survival probability (%)", ylim=(-2, 102),
        title="Probability that the critical load is served", xlim=(duration_h[0], duration_h[-1]),
    )  # fmt: skip
    if len(duration_h) > 1:
        ax.set_xscale("log")
        ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8, 24, 72, 168, 336, 1000, 2000, 4000, 8760)
                 if duration_h[0] <= t <= duration_h[-1]]  # fmt: skip
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_by(result: xr.Dataset, key: str, ax: Axes, group: str = ALL_SITES) -> Axes:
    """Mean hours survived by ``month`` or ``hour`` of the start, a line a variant."""
    for style, variant in _styles(result):
        values = result[f"hours_mean_by_{key}"].sel(variant=variant, group=group)
        known = values.notnull().values
        ax.plot(values[key].values[known], values.values[known], label=variant, marker=".", **style)
    ticks = np.arange(1, 13) if key == "month" else np.arange(0, 24, 3)
    ax.set(
        xlabel=f"{key} of the start", ylabel="mean hours survived (h)", xticks=ticks,
        title=f"By {key} of the start",
    )  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    return ax


def plot_sites(result: xr.Dataset, ax: Axes) -> Axes:
    """Mean hours survived by each site, sorted, with the range from least to most, in the first variant."""
    from matplotlib.ticker import MaxNLocator

    first = result.isel(variant=0)
    order = np.argsort(first["site_hours_mean"].values)
    place = np.arange(1, len(order) + 1)
    mean, low, high = (first[f"site_hours_{kind}"].values[order] for kind in ("mean", "min", "max"))
    width = min(0.8, 20 / max(len(order), 1))
    ax.vlines(place, low, high, color="C0", alpha=0.35, linewidth=max(3 * width, 0.5), label="least to most")
    ax.plot(place, mean, "o", color="C0", markersize=3 if len(order) > 30 else 5, label="mean")
    ax.set(
        xlabel="sites, sorted", ylabel="hours survived (h)", title=f"By site: {first['variant'].item()}",
        xlim=(0, len(order) + 1),
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def plot_groups(result: xr.Dataset, ax: Axes) -> Axes:
    """Mean hours survived by group of sites, bars by variant."""
    groups = [str(group) for group in result["group"].values]
    if len(groups) == 2:  # one group is all sites
        groups = groups[1:]
    variants = _styles(result)
    height = 0.8 / len(variants)
    for place, (style, variant) in enumerate(variants):
        values = result["hours_mean"].sel(variant=variant, group=groups).values
        at = np.arange(len(groups)) + height * (place - (len(variants) - 1) / 2)
        ax.barh(at, values, 0.9 * height, label=variant, color=style["color"])
    ax.set_yticks(np.arange(len(groups)), groups)
    ax.invert_yaxis()
    ax.set(xlabel="mean hours survived (h)", title="By group of sites")
    ax.grid(axis="x", alpha=0.3)
    return ax


def plot_indices(result: xr.Dataset, ax: Axes, group: str = ALL_SITES) -> Axes:
    """SAIDI at the meter and of the critical load, a bar a variant."""
    names = ["at the meter", *(str(variant) for variant in result["variant"].values)]
    values = np.append(
        float(result["saidi_meter_h"].sel(group=group)), result["saidi_socket_h"].sel(group=group).values
    )
    colours = ["0.5", *(style["color"] for style, _ in _styles(result))]
    bars = ax.barh(np.arange(len(names)), values, 0.7, color=colours)
    ax.bar_label(bars, fmt="%.3g", padding=3, fontsize="small")
    ax.set_yticks(np.arange(len(names)), names)
    ax.invert_yaxis()
    ax.set(
        xlabel=f"SAIDI (h {_per(result)})", title="Interruptions at the meter and of the critical load",
        xlim=(0, 1.15 * max(values.max(), 1e-9)),
    )  # fmt: skip
    ax.grid(axis="x", alpha=0.3)
    return ax


def plot_reserve(result: xr.Dataset, ax: Axes) -> Axes:
    """Survival of the durations against the cost of normal times, or the energy drawn, by reserve."""
    if "reserve_cost" in result:
        cost, unit = result["reserve_cost"].values, result["reserve_cost"].attrs["units"]
        label = f"cost of normal times ({unit} a site and year)"
    else:
        cost, label = result["reserve_drawn_kwh"].values, "energy drawn (kWh a site and year)"
    for number, duration_h in enumerate(result["lasting"].values):
        share = 100 * result["reserve_probability"].values[:, number]
        ax.plot(cost, share, marker="o", label=f"{duration_h:g} h")
    highest = 100 * result["reserve_probability"].values.max(axis=1)
    last, apart = -np.inf, 0.06 * float(np.ptp(cost))
    for x, y, reserve in zip(cost, highest, result["reserve"].values, strict=True):
        if abs(x - last) >= apart:
            ax.annotate(f"{reserve:.0%}", (x, y), (0, -15), textcoords="offset points", ha="center")
            last = x
    ax.set(xlabel=label, ylabel="survival probability (%)", title="What a reserve (marked) costs and buys")
    ax.set_ylim(-2, 110)
    ax.margins(x=0.1)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small", title="duration")
    return ax


def _styles(result: xr.Dataset) -> list[tuple[dict[str, Any], str]]:
    dashes = ("-", "--", "-.", ":")
    return [
        ({"color": f"C{i % 10}", "linestyle": dashes[i % 4]}, str(variant))
        for i, variant in enumerate(result["variant"].values)
    ]
