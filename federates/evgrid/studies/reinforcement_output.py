"""Output of a reinforcement study: summary, tables and picture."""

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


def summary(result: xr.Dataset) -> Sequence[tuple[str, str]]:
    """Key figures of a study's Dataset as (name, text) rows."""
    study, currency = json.loads(result.attrs["study"]), result.attrs["currency"]
    prices, members = study["prices"], result.sizes["member"]
    allowed = int(study["risk"] * members + 1e-9)
    rows = [
        ("deployments", f"{members}, of which {allowed} may violate a limit (risk {study['risk']:.0%})"),
        (
            "present values",
            f"{currency}, over {study['horizon_years']:g} years at {study['discount_rate']:.1%} a year",
        ),
        ("prices", f"{prices['name']}: {prices['source']}"),
        (
            "candidates",
            f"{len(json.loads(result.attrs['candidates']))} replacements"
            + (f"; {left} sections of cable left out" if (left := result.attrs["sections_left_out"]) else ""),
        ),
    ]
    for control in result["control"].values:
        at = result.sel(control=control)
        before, after = (float(at[name].mean()) for name in ("violated_before", "violated_after"))
        found = bool(np.isfinite(at["total_cost"]))
        if found:
            text = f"{float(at['total_cost']):,.0f} {currency}"
            low, high = np.quantile(at["member_cost"].values, [0.05, 0.95], method="nearest")
            text += f"; deployments on their own {_more(low)} to {_more(high)} (5 to 95 %)"
        else:
            bound = float(at["control_cost"] + at["least_bound"])
            text = (
                f"more than {bound:,.0f} {currency}" if np.isfinite(bound) else "no set restores the limits"
            )
            if np.isfinite(at["upper_cost"]):
                text += f", at most {float(at['control_cost'] + at['upper_cost']):,.0f}"
        rows.append((str(control), text))
        if float(at["control_cost"]):
            evs = float(at["evs"].mean())
            rows.append(("  control", f"{float(at['control_cost']):,.0f} {currency} for {evs:g} EVs"))
        measures = str(at["measures"].item() if found else at["upper_measures"].item())
        if found and not measures:
            rows.append(("  replacements", "none needed"))
        elif measures:
            cost = float(at["set_cost"] if found else at["upper_cost"])
            rows.append(("  replacements", f"{cost:,.0f} {currency}: {measures}"))
        rows.append(
            (
                "  violations",
                f"{before:.0%} of the deployments violate a limit without replacements"
                + (f", {after:.0%} with them" if found and measures else ""),
            )
        )
        unserved = float(at["unserved_kwh"].median())
        rows.append(
            (
                "  search",
                f"{int(at['sets_examined'])} sets examined, "
                + ("each in a run of its own" if at["by_voltage"] else "powers solved again")
                + f"; energy unserved {unserved:.3g} kWh in the median",
            )
        )
    total = result["total_cost"]
    if np.isfinite(total).any():
        best = int(np.nanargmin(total.values))
        rows.append(("least cost", f"{result['control'].values[best]}, {float(total[best]):,.0f} {currency}"))
    return [*rows, *limit_rows(result)]


def _more(cost: float) -> str:
    return f"{cost:,.0f}" if np.isfinite(cost) else "more than examined"


def costs_table(result: xr.Dataset) -> pd.DataFrame:
    """A row for each way of control: present values, measures, shares of deployments that violate a limit."""
    names = [
        "control_cost",
        "set_cost",
        "total_cost",
        "least_bound",
        "upper_cost",
        "measures",
        "sets_examined",
    ]
    table = result[names].to_dataframe().reset_index()
    for name in ("violated_before", "violated_after", "unserved_kwh", "evs"):
        table[f"{name}_mean"] = result[name].mean("member").values
    for end, share in (("low", 0.05), ("median", 0.5), ("high", 0.95)):
        table[f"member_cost_{end}"] = np.quantile(
            result["member_cost"].values, share, axis=1, method="nearest"
        )
    table["currency"] = result.attrs["currency"]
    return table


def save_study(result: xr.Dataset, folder: str | Path) -> list[Path]:
    """Write ``study.nc``, ``costs.csv``, ``candidates.csv``, ``sets.csv`` (all that were examined),
    ``limits.csv`` and ``study.png`` into a folder; returns the files.

    Raises
    ------
    ResultError
        If they can't be written.

    """
    import pandas as pd
    from matplotlib.figure import Figure

    folder = Path(folder)
    names = ("study.nc", "costs.csv", "candidates.csv", "sets.csv", "limits.csv", "study.png")
    files = [folder / name for name in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_dataset(result, files[0])
        costs_table(result).to_csv(files[1], index=False)
        for file, name in zip(files[2:4], ("candidates", "sets"), strict=True):
            pd.DataFrame(json.loads(result.attrs[name])).to_csv(file, index=False)
        limits_table(result).to_csv(files[4], index=False)
        figure = Figure(figsize=(9, 1.8 + 0.6 * result.sizes["control"]), layout="constrained")
        plot_costs(result, figure.subplots())
        figure.savefig(files[5], dpi=130)
    except OSError as error:
        raise ResultError(f"the study can't be written to {folder}: {error}") from error
    return files


def plot_costs(result: xr.Dataset, ax: Axes) -> Axes:
    """Present values of control and replacements side by side, with the range of single deployments."""
    study, currency = json.loads(result.attrs["study"]), result.attrs["currency"]
    y = np.arange(result.sizes["control"])
    control = result["control_cost"].values / 1e3
    spent = result["set_cost"].values / 1e3
    known = np.isfinite(spent)
    ax.barh(y, control, height=0.55, color="tab:green", label="control")
    ax.barh(y, np.where(known, spent, 0.0), left=control, height=0.55, color="tab:blue", label="replacements")
    cost = result["member_cost"].values / 1e3
    ends = np.quantile(cost, [0.05, 0.95], axis=1, method="nearest")
    total = control + np.where(known, spent, 0.0)
    shown = known & np.isfinite(ends).all(axis=0)
    if shown.any():
        ax.hlines(
            y[shown] + 0.36, ends[0][shown], ends[1][shown], color="black", linewidth=1.2,
            label="deployments on their own, 5 to 95 %",
        )  # fmt: skip
        ax.plot(ends[:, shown].T.ravel(), np.repeat(y[shown], 2) + 0.36, "|", color="black", markersize=6)
    for place in y.tolist():
        if known[place]:
            text = f" {total[place]:,.1f}"
        else:
            bound = control[place] + float(result["least_bound"][place]) / 1e3
            text = f" more than {bound:,.1f}" if np.isfinite(bound) else " no set restores the limits"
        ax.text(total[place], place, text, va="center")
    ax.set_yticks(y, [str(name) for name in result["control"].values])
    ax.set_ylim(len(y) - 0.4, -0.6)
    ax.set_xlim(0, 1.25 * max(float(np.nanmax(total)), 1e-3))
    years = f"{study['horizon_years']:g} years at {study['discount_rate']:.1%}"
    ax.set_xlabel(f"present value over {years} (thousand {currency})")
    ax.set_title(f"{result.attrs['name']}: limits restored, {result.sizes['member']} deployments")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
