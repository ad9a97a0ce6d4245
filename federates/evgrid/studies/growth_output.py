"""Output of a growth study: summary, tables and picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evgrid.errors import ResultError
from evgrid.results import save_dataset
from evgrid.studies.hosting_capacity_tables import limit_rows, limits_table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

SHOWN = 4
"""Elements of each criterion in the summary and the picture, the earliest."""


def years_table(result: xr.Dataset) -> pd.DataFrame:
    """A row for each element that is over its limit in some year and member, the earliest first.

    ``first_year`` (NaN: the risk is passed in none of the years) with ``first_year_low`` and
    ``first_year_high``; ``share_in_last_year`` of the deployments that have been over by then; and over those
    the median and the 5th and 95th percentile of the first year.
    """
    names = ["first_year", "first_year_low", "first_year_high"]
    table = result[names].to_dataframe().reset_index()
    table["share_by_last_year"] = result["share"].isel(year=-1).values
    years = result["member_year"].transpose("place", "member").values
    for name, share in (("member_low", 0.05), ("member_median", 0.5), ("member_high", 0.95)):
        table[name] = [
            np.quantile(row[np.isfinite(row)], share, method="nearest") if np.isfinite(row).any() else np.nan
            for row in years
        ]
    order = ["first_year", "first_year_low", "share_by_last_year"]
    return table.sort_values(order, ascending=[True, True, False], kind="stable").reset_index(drop=True)


def earliest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`years_table` that are shown: the earliest of each criterion."""
    criterion = table["place"].str.split(": ").str[0]
    return table[table.groupby(criterion).cumcount() < SHOWN]


def summary(result: xr.Dataset) -> Sequence[tuple[str, str]]:
    """Key figures of a study's Dataset as (name, text) rows."""
    study, years = json.loads(result.attrs["study"]), result["year"].values
    rows = [
        ("deployments", f"{result.sizes['member']}, years {', '.join(str(year) for year in years)}"),
    ]
    rows += [
        (str(name), ", ".join(f"{value:.3g}" for value in result["grown"].sel(quantity=name).values))
        for name in result["quantity"].values
    ]
    any_first, any_low, any_high = (float(result[f"any_first_year{end}"]) for end in ("", "_low", "_high"))
    first = _between(any_first, any_low, any_high, years[-1])
    rows.append(("feeder over a limit from", f"{first} at a risk of {study['risk']:.0%}"))
    table = years_table(result)
    shown = earliest(table)
    for row in shown.to_dict("records"):
        first = _between(row["first_year"], row["first_year_low"], row["first_year_high"], years[-1])
        rows.append((f"  {row['place']}", f"{first}; {row['share_by_last_year']:.0%} by {years[-1]}"))
    if len(table) > len(shown):
        rows.append(("  and", f"{len(table) - len(shown)} more elements (years.csv)"))
    return [*rows, *limit_rows(result)]


def _between(first: float, low: float, high: float, last: int) -> str:
    """A first year with its interval."""

    def text(year: float) -> str:
        return f"{year:.0f}" if np.isfinite(year) else f"after {last}"

    return text(first) if text(low) == text(high) else f"{text(first)} ({text(low)} to {text(high)})"


def save_study(result: xr.Dataset, folder: str | Path) -> list[Path]:
    """Write ``study.nc``, ``years.csv`` (first years by element), ``shares.csv`` (by year and element, with
    intervals), ``growth.csv`` (the curves), ``limits.csv`` and ``study.png`` into a folder; returns the
    files.

    Raises
    ------
    ResultError
        If they can't be written.

    """
    from matplotlib.figure import Figure

    folder = Path(folder)
    files = [
        folder / name
        for name in ("study.nc", "years.csv", "shares.csv", "growth.csv", "limits.csv", "study.png")
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_dataset(result, files[0])
        years_table(result).to_csv(files[1], index=False)
        shares = result[["share", "share_low", "share_high"]].to_dataframe().reset_index()
        shares.to_csv(files[2], index=False)
        result["grown"].to_pandas().to_csv(files[3])
        limits_table(result).to_csv(files[4], index=False)
        rows = len(earliest(years_table(result))) + 1
        figure = Figure(figsize=(12, 2.6 + 0.3 * rows), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
        figure.suptitle(f"{result.attrs['name']}, {result.sizes['member']} deployments")
        plot_growth(result, left)
        plot_first_years(result, right)
        figure.savefig(files[5], dpi=130)
    except OSError as error:
        raise ResultError(f"the study can't be written to {folder}: {error}") from error
    return files


def plot_growth(result: xr.Dataset, ax: Axes) -> Axes:
    """What grows, by year."""
    from matplotlib.ticker import MaxNLocator

    for name in result["quantity"].values:
        ax.plot(result["year"], result["grown"].sel(quantity=name), marker=".", label=str(name))
    ax.set(xlabel="year", ylabel="per household, or factor", title="Growth")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    return ax


def plot_first_years(result: xr.Dataset, ax: Axes) -> Axes:
    """First year over the limit, of the feeder and its earliest elements, with its interval; an arrow: after
    the last year.
    """
    from matplotlib.ticker import MaxNLocator

    study, years = json.loads(result.attrs["study"]), result["year"].values
    beyond = float(years[-1]) + (float(np.diff(years).min()) if len(years) > 1 else 1.0)
    table = earliest(years_table(result))
    names = ["feeder", *table["place"]]
    values = np.array(
        [
            [float(result["any_first_year"]), *table["first_year"]],
            [float(result["any_first_year_low"]), *table["first_year_low"]],
            [float(result["any_first_year_high"]), *table["first_year_high"]],
        ]
    )
    known = np.isfinite(values)
    first, low, high = np.where(known, values, beyond)
    y = np.arange(len(names))
    ax.hlines(y, low, high, color="tab:blue", linewidth=2)
    ax.plot(first[known[0]], y[known[0]], "o", color="tab:blue")
    ax.plot(
        high[~known[2]], y[~known[2]], ">", color="tab:blue", fillstyle="none", label=f"after {years[-1]}"
    )
    ax.axvline(float(years[-1]), color="0.6", linewidth=0.8, linestyle=":")
    ax.set_yticks(y, names, fontsize="small")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(float(years[0]) - 0.5, beyond + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="year", title=f"First year over the limit, risk {study['risk']:.0%}")
    if (~known[2]).any():
        ax.legend(frameon=False, loc="lower left")
    return ax
