"""Plots of a result. Each takes a Dataset and an Axes, draws, and returns the Axes.

Ensembles are drawn as the median over the members with a band from the 5th to the 95th
percentile; a single member as a line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evgrid.core.model import UPSTREAM
from evgrid.errors import ResultError
from evgrid.results.limits import no_rating, unrated_elements
from evgrid.results.phase_names import LEGS, on_split_phase
from evgrid.results.recording import unrecorded

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_PHASE_COLOURS = {
    "a": "#c1272d", "b": "#e69f00", "c": "#0072b2", "abc": "#0072b2", "s1": "#009e73", "s2": "#cc79a7",
}  # fmt: skip
_EV, _BASE, _BAND = "#1b7837", "#555555", "#0072b2"
_SITE_POWERS = {
    "site_power_kw": ("grid", "#7f7f7f", 1.0),
    "site_pv_kw": ("PV", "#e6ab02", 1.0),
    "site_battery_power_kw": ("batteries", "#377eb8", -1.0),
    "site_generator_kw": ("generators", "#a6611a", 1.0),
    "site_ev_power_kw": ("EVs", _EV, -1.0),
}
"""What supplies a site: label, colour, and sign of a power that is given."""
_LOADED = {"trafo": ("transformer", "#0072b2"), "line": ("line", "#e69f00")}
"""Kinds of elements with a loading: word and colour."""
_LONG_DAYS = 10
"""Days beyond which a run is drawn day by day: of more, its hours are a solid block."""
_NONE_KW = 1e-9
"""Power that counts as none."""
EN_50160_BAND = (0.90, 1.10)
"""Voltage band of EN 50160 for low voltage, pu: 10-minute means, 95 % of a week."""


def plot_head_power(result: xr.Dataset, ax: Axes) -> Axes:
    """Power at the feeder head, and the base load under it: everything but EVs and losses."""
    _need(result, "head_power_kw", "base_load_kw")
    _band(ax, result["base_load_kw"], _BASE, "base load (no EVs, no losses)")
    _band(ax, result["head_power_kw"].sum("phase"), _EV, "feeder head")
    ax.set(ylabel="power at the feeder head (kW)", title="Feeder head")
    ax.legend(frameon=False)
    return time_axis(ax, result["time"])


def plot_fleet(result: xr.Dataset, ax: Axes) -> Axes:
    """Power of the fleet, and the number of EVs plugged in (right axis)."""
    from matplotlib.ticker import MaxNLocator

    _need(result, "fleet_power_kw", "plugged")
    _band(ax, result["fleet_power_kw"], _EV, "fleet power")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(ylabel="fleet power (kW, negative: to the grid)", title="Fleet")
    right = ax.twinx()
    plugged = result["plugged"].median("member")
    if _is_long(result["time"].values):
        plugged = plugged.resample(time="D").mean()
    right.step(plugged["time"], plugged, where="post", color=_BASE, linewidth=1, linestyle=":")
    right.set_ylim(0, max(1.0, float(plugged.max())) * 1.1)
    right.set_ylabel("EVs plugged in (dotted)")
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    return time_axis(ax, result["time"])


def plot_voltage_profile(
    result: xr.Dataset, ax: Axes, time: object = None, member: int | None = None
) -> Axes:
    """Voltage of each phase, or leg of a split-phase service, against distance from the feeder head, line by
    line.

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
    split = on_split_phase(result, "line")
    for names, some in ((snapshot["phase"].values, closed & ~split), (LEGS, closed & split)):
        for place, name in enumerate(names[: snapshot.sizes["phase"]] if some.any() else ()):
            voltage = snapshot.isel(phase=place).values
            shown = ends[some & np.all(voltage[ends] > 0, axis=1)]
            if len(shown):
                segments = np.stack([distance[shown], voltage[shown]], axis=2)
                colour, what = _PHASE_COLOURS.get(str(name), _BAND), "leg" if name in LEGS else "phase"
                shown_as = LineCollection(list(segments), colors=colour, label=f"{what} {name}")
                if name == LEGS[1]:  # the legs often coincide
                    shown_as.set_linestyle((0, (1.5, 1.5)))
                ax.add_collection(shown_as)
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
    ax.legend(edgecolor="none", framealpha=0.9, ncols=2)
    return time_axis(ax, result["time"])


def plot_sites(result: xr.Dataset, ax: Axes) -> Axes:
    """What supplies the load of the sites, stacked: the sum over the sites, mean over the members.

    Below 0: what is given to the grid, and what charges. The height of the shading is the share of the sites
    on the grid that are without supply from it.
    """
    _need(result, *_SITE_POWERS, "site_load_kw", "site_unserved_kw", "site_island")
    edges = _edges(result["time"].values)
    members = result.sizes["member"]

    def total(series: xr.DataArray) -> NDArray[np.float64]:
        values = series.transpose("site", "time").values.sum(axis=0) / members
        return np.append(values, values[-1])

    above, below = np.zeros(len(edges)), np.zeros(len(edges))
    for name, (label, colour, sign) in _SITE_POWERS.items():
        series = sign * result[name]
        gives, takes = total(series.clip(min=0)), total(series.clip(max=0))
        if max(gives.max(), -takes.min()) <= 0:
            continue
        for values, base in ((gives, above), (takes, below)):
            ax.fill_between(
                edges, base, base + values, step="post", color=colour, alpha=0.75, linewidth=0,
                label=label if values is gives else None,
            )  # fmt: skip
            base += values
    served, lacking = total(result["site_load_kw"]), total(result["site_unserved_kw"])
    if lacking.max() > 0:
        ax.fill_between(
            edges, served, served + lacking, step="post", facecolor="none", edgecolor=_PHASE_COLOURS["a"],
            hatch="////", linewidth=0, label="load not served",
        )  # fmt: skip
    ax.plot(edges, served, drawstyle="steps-post", color="black", linewidth=1.1, label="load served")
    if members > 1:
        own = [result["site_member"].values == member for member in result["member"].values]
        load = result["site_load_kw"].transpose("site", "time").values
        low, high = np.quantile([load[mask].sum(axis=0) for mask in own], [0.05, 0.95], axis=0)
        for values, label in ((low, "its 5–95 %"), (high, "_upper")):  # _: not in the legend
            ax.plot(
                edges, np.append(values, values[-1]), drawstyle="steps-post", color="black", linewidth=0.8,
                linestyle=":", label=label,
            )  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.6)
    _shade_outages(result, ax)
    count = result.sizes["site"] / members
    what = str(result["site_name"].values[0]) if result.sizes["site"] == 1 else f"{count:g} sites"
    note = ", mean of the members" if members > 1 else ""
    ax.set(ylabel="power (kW, below 0: given or charging)", title=f"Supply of {what}{note}")
    low_kw, high_kw = ax.get_ylim()
    ax.set_ylim(low_kw, high_kw + 0.3 * (high_kw - low_kw))  # room for the legend
    ax.legend(frameon=False, fontsize="small", ncols=3, loc="upper left")
    return time_axis(ax, result["time"])


def plot_site_storage(result: xr.Dataset, ax: Axes) -> Axes:
    """State of charge of the sites' batteries, and of their EVs where it is recorded: the median over all of
    them, with the band from the 5th to the 95th percentile.
    """
    _need(result, "site_island")
    for label, colour, soc in _site_storage(result):
        shown = soc[:, ~np.isnan(soc).all(axis=0)]
        low, mid, high = np.full((3, len(soc)), np.nan)
        known = ~np.isnan(shown).all(axis=1)
        low[known], mid[known], high[known] = np.nanquantile(shown[known], [0.05, 0.5, 0.95], axis=1)
        count = shown.shape[1]
        many = "" if count == 1 else f"median of {count} and 5–95 % band: "
        ax.plot(result["time"].values, 100 * mid, color=colour, linewidth=1.2, label=f"{many}{label}")
        if count > 1:
            ax.fill_between(
                result["time"].values, 100 * low, 100 * high, color=colour, alpha=0.2, linewidth=0
            )
    _shade_outages(result, ax)
    ax.set(
        ylabel="state of charge (%)", ylim=(0, 130), yticks=range(0, 101, 20), title="Stores of the sites"
    )  # the upper part is the legend's
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return time_axis(ax, result["time"])


def _site_storage(result: xr.Dataset) -> list[tuple[str, str, NDArray[np.float64]]]:
    """Label, colour and states of charge, (time, n), of the sites' batteries and EVs."""
    found = []
    if "site_battery_soc" in result:
        has = (result["site_battery_in_kwh"] + result["site_battery_out_kwh"]).values > 0
        soc = result["site_battery_soc"].transpose("time", "site").values
        found.append(("batteries", _SITE_POWERS["site_battery_power_kw"][1], soc[:, has]))
    if "ev_soc" in result:
        places = set(zip(result["site_member"].values, result["site_connection"].values, strict=True))
        at = zip(result["ev_member"].values, result["ev_connection"].values, strict=True)
        here = np.array([(m, "" if c == UPSTREAM else c) in places for m, c in at], np.bool_)
        found.append(("EVs plugged in", _EV, result["ev_soc"].transpose("time", "ev").values[:, here]))
    return [(label, colour, soc) for label, colour, soc in found if soc.size and not np.isnan(soc).all()]


def _shade_outages(result: xr.Dataset, ax: Axes) -> None:
    """Shade the outages: as high as the share of the sites on the grid that are without supply from it."""
    on_grid = np.flatnonzero(result["site_connection"].values != "")
    if not len(on_grid):
        return
    own = result.isel(site=on_grid)
    lost = (own["site_island"] > 0) | (own["site_unserved_kw"] > _NONE_KW)
    share = lost.transpose("time", "site").values.mean(axis=1)
    if share.any():
        ax.fill_between(
            _edges(result["time"].values), 0, np.append(share, share[-1]), step="post", color="0.5",
            alpha=0.2, linewidth=0, transform=ax.get_xaxis_transform(),
            label="outage" if len(on_grid) == 1 else "sites without grid (share)",
        )  # fmt: skip


def _edges(begins: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """Begins of the recording intervals, and the end of the last one."""
    step = begins[1] - begins[0] if len(begins) > 1 else np.timedelta64(1, "m")
    return np.append(begins, begins[-1] + step)


def plot_loading(result: xr.Dataset, ax: Axes) -> Axes:
    """Highest loading of all transformers and of all lines over time, with the rating; each names the element
    of the highest one. What has no rating, or is not recorded, is said to be not checked.
    """
    known = [kind for kind in _LOADED if f"{kind}_loading" in result and result.sizes[kind]]
    missing = [kind for kind in _LOADED if kind not in known and result.sizes.get(kind)]
    remarks = [f"{_LOADED[kind][0]}s: {unrecorded(result, kind)}" for kind in missing]
    for kind in known:
        text, colour = _LOADED[kind]
        unrated, of = unrated_elements(result, f"{kind}_loading")
        if unrated:
            remarks.append(no_rating(unrated, of, kind))
        loading = result[f"{kind}_loading"].max(kind)
        if bool(loading.notnull().any()):
            highest = result[f"{kind}_loading"].max(["member", "time"]).fillna(-1.0).values
            name = str(result[kind].values[int(highest.argmax())])
            _band(ax, 100 * loading, colour, f"{text}s (highest: {name})")
    if known:
        ax.axhline(100, color="black", linewidth=0.8, linestyle="--")
    if remarks:
        ax.text(0.02, 0.02, "\n".join(remarks), transform=ax.transAxes, fontsize="small", va="bottom")
    ax.set(ylabel="loading (%)", title="Most loaded transformer and line (dashed: rating)")
    ax.set_ylim(bottom=0)
    if ax.lines:
        ax.legend(frameon=False, fontsize="small")
    return time_axis(ax, result["time"])


def plot_hot_spot(result: xr.Dataset, ax: Axes, limit_c: float = 120.0) -> Axes:
    """Hot spot of the hottest transformer over time, and a limit: of normal cyclic loading, IEC 60076-7."""
    _need(result, "trafo_hot_spot_c")
    highest = result["trafo_hot_spot_c"].max(["member", "time"]).fillna(-273.0).values
    name = str(result["trafo"].values[int(highest.argmax())])
    _band(ax, result["trafo_hot_spot_c"].max("trafo"), _PHASE_COLOURS["a"], f"highest: {name}")
    ax.axhline(limit_c, color="black", linewidth=0.8, linestyle="--")
    ax.set(ylabel="hot spot (°C)", title=f"Hottest transformer (dashed: {limit_c:g} °C, IEC 60076-7)")
    ax.legend(frameon=False, fontsize="small")
    return time_axis(ax, result["time"])


def plot_duration(result: xr.Dataset, ax: Axes) -> Axes:
    """Load duration curves of the feeder head, of its base load and of the EVs: of all members together, the
    power that is reached or exceeded for so many hours of the run.
    """
    _need(result, "head_power_kw", "base_load_kw")
    series = [
        ("feeder head", _EV, result["head_power_kw"].sum("phase")),
        ("base load", _BASE, result["base_load_kw"]),
    ]
    if _has_evs(result):
        series.append(("EVs", _BAND, result["fleet_power_kw"]))
    time = result["time"].values
    hours = float((_edges(time)[-1] - time[0]) / np.timedelta64(1, "h"))
    for label, colour, values in series:
        known = np.sort(values.values.ravel())
        known = known[np.isfinite(known)][::-1]
        ax.plot(hours * (np.arange(len(known)) + 0.5) / max(len(known), 1), known, color=colour, label=label)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(
        xlabel="hours for which it is reached or exceeded", ylabel="power (kW)", title="Load duration curves"
    )
    ax.set_xlim(0, hours)
    ax.legend(frameon=False)
    return ax


def plot_result(result: xr.Dataset) -> Figure:
    """The overview of a run: feeder head, fleet, voltages, loading, and what else the run has: hot spot, load
    duration curves of long runs, sites.
    """
    from matplotlib.figure import Figure

    panels = [plot_head_power]
    panels += [plot_fleet] * _has_evs(result)
    panels += [plot_voltage_profile] * (not unrecorded(result, "bus"))
    panels += [plot_voltage_band]
    panels += [plot_loading] * any(result.sizes.get(kind) for kind in _LOADED)
    panels += [plot_hot_spot] * ("trafo_hot_spot_c" in result and result.sizes["trafo"] > 0)
    panels += [plot_duration] * _is_long(result["time"].values)
    if result.sizes.get("site", 0) > 0 and "site_load_kw" in result and "site_name" in result.coords:
        panels += [plot_sites] + [plot_site_storage] * bool(_site_storage(result))
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(13, 4 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    for place, draw in enumerate(panels):
        alone = place == len(panels) - 1 and place % 2 == 0
        draw(result, figure.add_subplot(grid[place // 2, slice(0, 2) if alone else place % 2]))
    members = result.sizes["member"]
    note = f", {members} members: median and 5–95 % band" if members > 1 else ""
    if _is_long(result["time"].values):
        note = f", {members} member(s): mean and range of each day"
    figure.suptitle(f"{result.attrs.get('name', 'evgrid')}{note}")
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


def _is_long(time: NDArray[np.datetime64]) -> bool:
    """Whether a run is drawn day by day."""
    return bool(len(time) > 1 and time[-1] - time[0] > np.timedelta64(_LONG_DAYS, "D"))


def _band(ax: Axes, series: xr.DataArray, colour: str, label: str) -> None:
    """A series (member, time): median of the members and band; of a long run mean and range of each day."""
    if _is_long(series["time"].values):
        days = series.resample(time="D")
        low, high = days.min().min("member"), days.max().max("member")
        mean = days.mean().median("member")
        ax.fill_between(mean["time"], low, high, color=colour, alpha=0.3, linewidth=0, step="post")
        ax.plot(
            mean["time"],
            mean,
            color=colour,
            linewidth=1.2,
            drawstyle="steps-post",
            label=f"{label}: daily mean, range",
        )
        return
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
