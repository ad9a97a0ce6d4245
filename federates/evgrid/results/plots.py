"""Plots of a result. Each takes a Dataset and an Axes, draws, and returns the Axes.

Ensembles are drawn as the median over the members with a band from the 5th to the 95th
percentile; a single member as a line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evgrid.errors import ResultError
from evgrid.results.recording import unrecorded

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PHASE_COLOURS = {"a": "#c1272d", "b": "#e69f00", "c": "#0072b2", "abc": "#0072b2"}
_EV, _BASE, _BAND = "#1b7837", "#555555", "#0072b2"
EN_50160_BAND = (0.90, 1.10)
"""Voltage band of EN 50160 for low voltage, pu: 10-minute means, 95 % of a week."""


def plot_head_power(result: xr.Dataset, ax: Axes) -> Axes:
    """Power at the feeder head, and the base load under it: everything but EVs and losses."""
    _need(result, "head_power_kw", "base_load_kw")
    _band(ax, result["head_power_kw"].sum("phase"), _EV, "feeder head")
    _band(ax, result["base_load_kw"], _BASE, "base load (no EVs, no losses)")
    ax.set(ylabel="power at the feeder head (kW)", title="Feeder head")
    ax.legend(frameon=False)
    return time_axis(ax, result["time"])


def plot_fleet(result: xr.Dataset, ax: Axes) -> Axes:
    """Power of the fleet, and the number of EVs plugged in (right axis)."""
    _need(result, "fleet_power_kw", "plugged")
    _band(ax, result["fleet_power_kw"], _EV, "fleet power")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(ylabel="fleet power (kW, negative: to the grid)", title="Fleet")
    right = ax.twinx()
    plugged = result["plugged"].median("member")
    right.step(plugged["time"], plugged, where="post", color=_BASE, linewidth=1, linestyle=":")
    right.set_ylim(0, max(1.0, float(plugged.max())) * 1.1)
    right.set_ylabel("EVs plugged in (dotted)")
    return time_axis(ax, result["time"])


def plot_voltage_profile(
    result: xr.Dataset, ax: Axes, time: object = None, member: int | None = None
) -> Axes:
    """Voltage of each phase against distance from the feeder head, line by line.

    ``time`` and ``member`` choose the snapshot; left out: the one with the lowest voltage.
    """
    from matplotlib.collections import LineCollection

    _need(result, "voltage_pu", "voltage_min_pu", "bus_distance_km", "line_from_bus", "line_closed")
    chosen = result["voltage_min_pu"]
    chosen = chosen if member is None else chosen.sel(member=[member])
    chosen = chosen if time is None else chosen.sel(time=[np.datetime64(str(time))], method="nearest")
    at = chosen.argmin(("member", "time"))
    where = {dim: chosen[dim].values[int(index)] for dim, index in at.items()}
    snapshot = result["voltage_pu"].sel(where)
    distance = result["bus_distance_km"].values
    ends = np.stack([result["line_from_bus"].values, result["line_to_bus"].values], axis=1)
    closed = result["line_closed"].values > 0
    for phase in snapshot["phase"].values:
        voltage = snapshot.sel(phase=phase).values
        shown = ends[closed & np.all(voltage[ends] > 0, axis=1)]
        segments = np.stack([distance[shown], voltage[shown]], axis=2)
        ax.add_collection(
            LineCollection(
                list(segments), colors=_PHASE_COLOURS.get(str(phase), _BAND), label=f"phase {phase}"
            )
        )
    ax.autoscale()
    stamp = np.datetime_as_string(where["time"], unit="m").replace("T", " ")
    note = f", member {where['member']}" if result.sizes["member"] > 1 else ""
    ax.set(
        xlabel="distance from the feeder head (km)",
        ylabel="voltage (pu)",
        title=f"Voltage along the feeder, {stamp}{note}",
    )
    ax.legend(frameon=False, loc="lower left")
    return ax


def plot_envelope(
    result: xr.Dataset, ax: Axes, time: object = None, member: int | None = None, power: bool = False
) -> Axes:
    """The least and the most energy of the EVs, or their power, from a time on (``fleet.envelope``).

    ``time`` and ``member`` choose the envelope; left out: the one with the most flexible energy. All
    groups are taken together. EVs that arrive later are not included.
    """
    import xarray as xr

    energies, powers = (
        ("envelope_e_min_kwh", "envelope_e_max_kwh"),
        ("envelope_p_min_kw", "envelope_p_max_kw"),
    )
    _need(result, *energies, *powers)
    groups = [dim for dim in result[energies[0]].dims if dim not in ("member", "envelope_time", "lead")]
    limits = result[[*energies, *powers]].sum(groups)
    limits = limits if member is None else limits.sel(member=[member])
    if time is not None:
        limits = limits.sel(envelope_time=[np.datetime64(str(time))], method="nearest")
    limits = limits.isel((limits[energies[1]] - limits[energies[0]]).sum("lead").argmax(...))
    least, most = (limits[name].values for name in (powers if power else energies))
    lead_h = result["lead"].values
    slot_h = lead_h[1] if len(lead_h) > 1 else 1.0
    edges_s = np.round(3600 * np.append(lead_h, lead_h[-1] + slot_h)).astype("timedelta64[s]")
    edges = limits["envelope_time"].values + edges_s
    least, most = (np.append(v, v[-1]) if power else np.append(0.0, v) for v in (least, most))
    ax.fill_between(edges, least, most, step="post" if power else None, color=_BAND, alpha=0.2, linewidth=0)
    for values, label, colour in ((most, "most", _EV), (least, "least", _BASE)):
        ax.plot(edges, values, drawstyle="steps-post" if power else None, color=colour, label=label)
    ax.axhline(0, color="black", linewidth=0.6)
    stamp = str(edges[0].astype("datetime64[m]")).replace("T", " ")
    whose = f", member {limits['member'].values}" if result.sizes["member"] > 1 else ""
    quantity = "power (kW, negative: to the grid)" if power else "energy at the meter from then on (kWh)"
    ax.set(ylabel=quantity, title=f"EVs plugged in at {stamp}{whose}")
    ax.legend(frameon=False)
    return time_axis(ax, xr.DataArray(edges))


def plot_voltage_band(result: xr.Dataset, ax: Axes) -> Axes:
    """Lowest and highest voltage of all buses and phases over time."""
    _need(result, "voltage_min_pu", "voltage_max_pu")
    _band(ax, result["voltage_max_pu"], _PHASE_COLOURS["b"], "highest")
    _band(ax, result["voltage_min_pu"], _BAND, "lowest")
    for limit in EN_50160_BAND:
        ax.axhline(limit, color="black", linewidth=0.8, linestyle="--")
    ax.set(ylabel="voltage (pu)", title="Voltage over all buses and phases (dashed: EN 50160)")
    ax.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 0.06))
    return time_axis(ax, result["time"])


def plot_result(result: xr.Dataset) -> Figure:
    """The overview of a run: feeder head, fleet, voltage along the feeder and over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    members = result.sizes["member"]
    note = f", {members} members: median and 5–95 % band" if members > 1 else ""
    figure.suptitle(f"{result.attrs.get('name', 'evgrid')}{note}")
    plot_head_power(result, axes[0, 0])
    if _has_evs(result):
        plot_fleet(result, axes[0, 1])
    else:
        axes[0, 1].axis("off")
        axes[0, 1].text(0.5, 0.5, "no EVs in this run", ha="center")
    if unrecorded(result, "bus"):
        axes[1, 0].axis("off")
        axes[1, 0].text(0.5, 0.5, f"voltages of buses: {unrecorded(result, 'bus')}", ha="center")
    else:
        plot_voltage_profile(result, axes[1, 0])
    plot_voltage_band(result, axes[1, 1])
    return figure


def save_overview(result: xr.Dataset, path: str | Path) -> Path:
    """Draw :func:`plot_result` into a picture file; returns its path.

    Raises
    ------
    ResultError
        If the file can't be written.

    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_result(result).savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise ResultError(f"the picture can't be written to {path}: {error}") from error
    return path


def _has_evs(result: xr.Dataset) -> bool:
    return "fleet_power_kw" in result


def _need(result: xr.Dataset, *names: str) -> None:
    missing = [name for name in names if name not in result]
    if not missing and "line_from_bus" in names and unrecorded(result, "bus"):
        raise ResultError(f"this plot needs all buses: {unrecorded(result, 'bus')}")
    if missing:
        raise ResultError(f"the result has no {', '.join(missing)}, which this plot needs")


def _band(ax: Axes, series: xr.DataArray, colour: str, label: str) -> None:
    time = series["time"].values
    if series.sizes["member"] == 1:
        ax.plot(time, series.isel(member=0), color=colour, linewidth=1.2, label=label)
        return
    low, mid, high = np.quantile(series.transpose("member", "time"), [0.05, 0.5, 0.95], axis=0)
    ax.fill_between(time, low, high, color=colour, alpha=0.25, linewidth=0)
    ax.plot(time, mid, color=colour, linewidth=1.2, label=label)


def time_axis(ax: Axes, time: xr.DataArray) -> Axes:
    """Local times along the x axis."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.set_xlim(time.values[0], time.values[-1])
    ax.set_xlabel("local time")
    return ax
