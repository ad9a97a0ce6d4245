"""Map of a feeder: buses and branches coloured by a chosen quantity, over the run or an interval of it.

In: a result, and its extremes by interval. The page holds them as 16-bit numbers, from which JavaScript
colours the map without a server; in ``evgrid browse`` the values are read from the result instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.report.charts import chart
from evgrid.report.extremes import Extremes, extremes, frame_starts
from evgrid.report.layout import Layout, ends_of, graph, layout, roots
from evgrid.results.limits import interval_s
from evgrid.results.recording import unrecorded

if TYPE_CHECKING:
    import xarray as xr
    from bokeh.models import ColumnDataSource, UIElement
    from bokeh.plotting import figure

Floats = NDArray[np.float64]

FRAMES = 96
"""Intervals of a map over time, at most."""
BUDGET_BYTES = 1_600_000
"""Size of the values of all maps of a page."""
_WEBGL_BUSES = 3000
_PALETTE_ENDS = ("#3b5fa8", "#7fb0d6", "#f2cf7a", "#ec8240", "#b3122b")
_UNKNOWN = "#b9c0c6"
_NONE = np.iinfo(np.uint16).max
"""Stored where a value is not known."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that the map can show.

    values : of each kind of element, frames first: the whole run, then its intervals, (1 + interval, element)
    low, high : ends of the colours; bad_low : whether low values are the critical ones
    """

    title: str
    unit: str
    values: dict[str, Floats]
    low: float
    high: float
    bad_low: bool = False
    digits: int = 1


@dataclass(frozen=True)
class MapData:
    """All that a map shows of a result.

    extremes : of each variable, over the run and by interval
    missing : quantities that are not shown, with the reason
    """

    place: Layout
    names: dict[str, NDArray[Any]]
    ends: dict[str, NDArray[np.int64]]
    quantities: list[Quantity]
    labels: list[str]
    extremes: dict[str, Extremes]
    missing: list[str] = field(default_factory=list)


EXTREMES = {
    "voltage_lowest": ("voltage_pu", "bus", False),
    "voltage_highest": ("voltage_pu", "bus", True),
    "voltage_unbalance": ("voltage_unbalance", "bus", True),
    "line_loading": ("line_loading", "line", True),
    "trafo_loading": ("trafo_loading", "trafo", True),
}
"""Extremes that are found: variable, kind of element, and whether they are the highest values."""


def frames_that_fit(results: Sequence[xr.Dataset], budget: int = BUDGET_BYTES) -> int:
    """Most intervals with which the maps of some results fit into a page."""
    weights = {"bus": 4, "line": 1, "trafo": 1}  # quantities of each kind
    each = sum(2 * weight * r.sizes.get(kind, 0) for r in results for kind, weight in weights.items())
    return int(np.clip(budget // max(each * 4 / 3, 1), 1, FRAMES))


def map_data(result: xr.Dataset, most_frames: int, band_pu: tuple[float, float] = (0.9, 1.1)) -> MapData:
    """The values of a map; the colours of voltages reach to the limits ``band_pu``."""
    starts = frame_starts(result, most_frames)
    found = {
        name: extremes(result, variable, highest, starts)
        for name, (variable, kind, highest) in EXTREMES.items()
        if variable in result and result.sizes.get(kind, 0)
    }
    stacked = {name: np.vstack([e.worst, e.frames]) for name, e in found.items()}
    quantities, missing = [], []
    if result.sizes.get("trafo", 0) and "trafo_hv_bus" not in result:
        missing.append("transformers: an earlier version did not record which buses they join")
    lacks = {kind: unrecorded(result, kind) for kind in ("bus", "line", "trafo")}
    missing += [f"{kind}: {text}" for kind, text in lacks.items() if text]
    if "voltage_lowest" in found:
        low = min(band_pu[0], _least(stacked["voltage_lowest"]))
        quantities.append(
            Quantity(
                "lowest voltage", "pu", {"bus": stacked["voltage_lowest"]}, low, max(1.0, low + 0.01), True, 4
            )
        )
    loads = {
        kind: 100 * stacked[f"{kind}_loading"] for kind in ("line", "trafo") if f"{kind}_loading" in found
    }
    if any(np.isfinite(values).any() for values in loads.values()):
        most = max(_most(values) for values in loads.values())
        quantities.append(Quantity("loading", "%", loads, 0.0, max(100.0, most)))
    elif loads:
        missing.append("loading: not checked, as no line or transformer has a rating")
    if "voltage_highest" in found:
        high = max(band_pu[1], _most(stacked["voltage_highest"]))
        quantities.append(
            Quantity(
                "highest voltage",
                "pu",
                {"bus": stacked["voltage_highest"]},
                min(1.0, high - 0.01),
                high,
                False,
                4,
            )
        )
    if "voltage_unbalance" in found:
        values = 100 * stacked["voltage_unbalance"]
        quantities.append(
            Quantity("voltage unbalance", "%", {"bus": values}, 0.0, max(2.0, _most(values)), False, 2)
        )
    elif "voltage_lowest" in found:
        missing.append("voltage unbalance: not recorded (balanced, or feeder.unbalance is off)")
    spare, why = spare_kw(result, loads)
    if spare is not None:
        quantities.append(
            Quantity(
                "spare power", "kW", {"bus": spare}, min(0.0, _least(spare)), max(_most(spare), 1.0), True, 0
            )
        )
    else:
        missing.append(f"spare power: not calculated, {why}")
    names = {
        kind: result[kind].values.astype(str) for kind in ("bus", "line", "trafo") if kind in result.coords
    }
    ends = {kind: ends_of(result, kind) for kind in ("line", "trafo")}
    return MapData(layout(result), names, ends, quantities, _labels(result, starts), found, missing)


def spare_kw(result: xr.Dataset, loading: dict[str, Floats]) -> tuple[Floats | None, str]:
    """Power that could be drawn at each bus besides, three-phase, until the first rating on its way to the
    head is reached, (frame, bus), kW; with the reason where it isn't known.

    The loading is that of the worst phase. Voltage limits are not considered. NaN where an element on the way
    has no rating, and at buses without supply.
    """
    import networkx as nx

    if any(unrecorded(result, kind) for kind in ("bus", "line", "trafo")):
        return None, "as not all elements are recorded"
    if "bus_nodes" in result.coords:
        return None, "as the feeder has branches of one and two phases"
    if not loading:
        return None, "as no loading is recorded"
    if result.sizes.get("trafo", 0) and "trafo_hv_bus" not in result:
        return None, "as the result does not say which buses transformers join (earlier version)"
    nominal = result["bus_nominal_kv"].values
    rated = {}
    if result.sizes.get("line", 0):
        first = result["line_from_bus"].values
        rated["line"] = np.sqrt(3) * nominal[first] * result["line_rated_ka"].values * 1000
    if result.sizes.get("trafo", 0):
        rated["trafo"] = result["trafo_rated_kva"].values
    head = {kind: rated[kind] * (1 - values / 100) for kind, values in loading.items() if kind in rated}
    frames = next(iter(loading.values())).shape[0]
    spare = np.full((frames, result.sizes["bus"]), np.nan)
    net = graph(result)
    sources = result["bus_at_source"].values > 0
    for root in roots(result, net):
        if not sources[root]:
            continue
        spare[:, root] = np.inf
        for above, bus in nx.bfs_edges(net, root):
            branch = net.edges[above, bus]
            own = head[branch["kind"]][:, branch["place"]] if branch and branch["kind"] in head else np.inf
            spare[:, bus] = np.minimum(spare[:, above], own)
    spare[np.isinf(spare)] = np.nan
    return (spare, "") if np.isfinite(spare).any() else (None, "as no branch has a rating")


def feeder_map(data: MapData, title: str, width: int, height: int = 520) -> tuple[figure, dict[str, Any]]:
    """The map without controls, and its sources and colours for :func:`controls`."""
    from bokeh.models import ColorBar, ColumnDataSource, HoverTool, LinearColorMapper, Range1d
    from bokeh.palettes import interp_palette

    place = data.place
    x_range, y_range = _equal_scale(place, width - 130, height - 70)
    fig = chart(
        title, "", width=width, height=height, x_range=Range1d(*x_range), y_range=Range1d(*y_range),
        active_scroll="wheel_zoom", output_backend="webgl" if len(place.x) > _WEBGL_BUSES else "canvas",
    )  # fmt: skip
    fig.toolbar.autohide = False
    fig.axis.visible = False
    fig.grid.visible = False
    palette = interp_palette(_PALETTE_ENDS, 64)
    colours = LinearColorMapper(palette=palette, low=0.0, high=1.0, nan_color=_UNKNOWN)
    sources: dict[str, ColumnDataSource] = {}
    for kind in ("line", "trafo"):
        ends = data.ends[kind]
        there = np.flatnonzero((ends >= 0).all(axis=1))
        from_to = ends[there]
        sources[kind] = ColumnDataSource(
            {
                "x0": place.x[from_to[:, 0]], "y0": place.y[from_to[:, 0]],
                "x1": place.x[from_to[:, 1]], "y1": place.y[from_to[:, 1]],
                "x": place.x[from_to].mean(axis=1), "y": place.y[from_to].mean(axis=1),
                "name": data.names.get(kind, np.array([], str))[there].tolist(),
                "value": np.full(len(there), np.nan), "text": [""] * len(there),
                "place": there.astype(np.int32),
            },
            name=f"{kind}s",
        )  # fmt: skip
    buses = len(place.x)
    sources["bus"] = ColumnDataSource(
        {
            "x": place.x, "y": place.y, "name": data.names["bus"].tolist(), "value": np.full(buses, np.nan),
            "text": [""] * buses, "place": np.arange(buses, dtype=np.int32),
        },
        name="buses",
    )  # fmt: skip
    by_value = {"field": "value", "transform": colours}
    lines = fig.segment(
        "x0", "y0", "x1", "y1", source=sources["line"], line_width=2.2, line_color=by_value, line_cap="round"
    )
    fig.segment("x0", "y0", "x1", "y1", source=sources["trafo"], line_width=2.2, line_color=by_value)
    size = 7 if buses <= 300 else 5 if buses <= 2000 else 3
    points = fig.scatter("x", "y", source=sources["bus"], size=size, fill_color=by_value, line_color=None)
    trafos = fig.scatter(
        "x", "y", source=sources["trafo"], marker="square", size=11, fill_color=by_value, line_color="#333333"
    )
    for kind, glyph in (("bus", points), ("line", lines), ("trafo", trafos)):
        words = {"bus": "bus", "line": "line", "trafo": "transformer"}[kind]
        fig.add_tools(HoverTool(renderers=[glyph], tooltips=[(words, "@name"), ("", "@text")]))
    bar = ColorBar(
        color_mapper=colours, width=12, title=" ", title_standoff=8, title_text_font_style="normal"
    )
    fig.add_layout(bar, "right")
    return fig, {"colours": colours, "sources": sources, "bar": bar}


def controls(
    maps: Sequence[tuple[MapData, dict[str, Any]]], along: str = "interval (0: the whole run)",
    results: Sequence[xr.Dataset] = (),
) -> UIElement | None:  # fmt: skip
    """A chooser of the quantity, a slider over the run's intervals and playback, for maps side by side that
    have the same quantities; colours have the same ends in all of them.

    ``results``: of each map the one to read from a Bokeh server, with every recording interval; left out: the
    values are in the page.
    """
    from bokeh.layouts import row
    from bokeh.models import CustomJS, Div, Select, Slider, Toggle

    shared = [q for q in maps[0][0].quantities if all(_has(data, q.title) for data, _ in maps)]
    if not shared:
        return None
    titles = [q.title for q in shared]
    chooser = Select(title="coloured by", value=titles[0], options=titles, width=170, name="quantity")
    named = [_labels(r, np.arange(r.sizes["time"])) for r in results] or [data.labels for data, _ in maps]
    labels = named[0] if all(other == named[0] for other in named) else named[0][:1]
    slider = Slider(
        title=along, start=0, end=max(len(labels) - 1, 1), step=1, value=0, width=420,
        show_value=False, disabled=len(labels) < 2, name="interval",
    )  # fmt: skip
    shown = Div(text=f"<b>{labels[0]}</b>", width=260, styles={"padding-top": "22px"}, name="shown")
    play = Toggle(
        label="play", width=70, styles={"padding-top": "18px"}, disabled=len(labels) < 2, name="play"
    )
    about = {
        q.title: {
            "unit": q.unit, "bad_low": q.bad_low, "digits": q.digits,
            "low": min(_find(data, q.title).low for data, _ in maps),
            "high": max(_find(data, q.title).high for data, _ in maps),
        }
        for q in shared
    }  # fmt: skip
    palette = list(maps[0][1]["colours"].palette)
    first = titles[0]
    for data, drawn in maps:
        whole = {kind: values[0] for kind, values in _find(data, first).values.items()}
        _show(drawn, _find(data, first), whole, about[first], palette)
    panel = row(chooser, slider, play, shown)
    if results:
        _serve(maps, results, about, palette, labels, (chooser, slider, play, shown))
        return panel
    given = {
        "maps": [
            {
                **drawn,
                "values": {
                    q.title: {kind: _packed(v) for kind, v in q.values.items()}
                    for q in data.quantities
                    if q.title in titles
                },
            }
            for data, drawn in maps
        ],
        "about": about, "palette": palette, "labels": labels, "chooser": chooser, "slider": slider,
        "shown": shown,
    }  # fmt: skip
    update = CustomJS(args=given, code=_UPDATE_JS)
    chooser.js_on_change("value", update)
    slider.js_on_change("value", update)
    play.js_on_change("active", CustomJS(args={"slider": slider, "play": play}, code=_PLAY_JS))
    return panel


def _serve(
    maps: Sequence[tuple[MapData, dict[str, Any]]], results: Sequence[xr.Dataset], about: Mapping[str, Any],
    palette: Sequence[str], labels: Sequence[str], widgets: tuple[Any, Any, Any, Any],
) -> None:  # fmt: skip
    """Let the controls read what they show from the results, in a Bokeh server."""
    chooser, slider, play, shown = widgets
    running: list[Any] = []

    def update(attr: str, old: Any, new: Any) -> None:
        shown.text = f"<b>{labels[slider.value]}</b>"
        title = chooser.value
        for (data, drawn), result in zip(maps, results, strict=True):
            quantity = _find(data, title)
            whole = {kind: values[0] for kind, values in quantity.values.items()}
            values = values_at(result, title, slider.value - 1) if slider.value else whole
            _show(drawn, quantity, values, about[title], palette)

    def step() -> None:
        slider.value = slider.value % slider.end + 1

    def toggle(attr: str, old: bool, new: bool) -> None:
        play.label = "stop" if new else "play"
        if new:
            running.append(play.document.add_periodic_callback(step, 500))
        elif running:
            play.document.remove_periodic_callback(running.pop())

    chooser.on_change("value", update)
    slider.on_change("value", update)
    play.on_change("active", toggle)


def _show(
    drawn: dict[str, Any],
    quantity: Quantity,
    values: Mapping[str, Floats],
    about: Mapping[str, Any],
    palette: Sequence[str],
) -> None:
    """Colour a map by a quantity: ``values`` of each kind of element, (element,)."""
    colours = drawn["colours"]
    colours.low, colours.high = about["low"], about["high"]
    colours.palette = list(palette[::-1] if about["bad_low"] else palette)
    drawn["bar"].title = f"{quantity.title} ({quantity.unit})"
    for kind, source in drawn["sources"].items():
        at = source.data["place"]
        known = values[kind][at] if kind in values else np.full(len(at), np.nan)
        texts = [f"{v:.{quantity.digits}f} {quantity.unit}" if np.isfinite(v) else "not known" for v in known]
        texts = texts if kind in values else [""] * len(at)
        source.data = {**source.data, "value": known.astype(np.float32), "text": texts}


def values_at(result: xr.Dataset, title: str, place: int) -> dict[str, Floats]:
    """Values of a quantity of the map in one recording interval, over all members, by kind of element."""
    one, start = result.isel(time=slice(place, place + 1)), np.zeros(1, np.int64)

    def of(name: str) -> Floats:
        variable, kind, highest = EXTREMES[name]
        missing = np.full(result.sizes.get(kind, 0), np.nan)
        return (
            extremes(one, variable, highest, start).worst if variable in result and len(missing) else missing
        )

    if title in ("lowest voltage", "highest voltage"):
        return {"bus": of(f"voltage_{title.split()[0]}")}
    if title == "voltage unbalance":
        return {"bus": 100 * of("voltage_unbalance")}
    loads = {kind: 100 * of(f"{kind}_loading") for kind in ("line", "trafo")}
    if title == "loading":
        return loads
    spare, _ = spare_kw(result, {kind: values[np.newaxis] for kind, values in loads.items() if len(values)})
    return {"bus": spare[0] if spare is not None else np.full(result.sizes["bus"], np.nan)}


def _packed(values: Floats) -> dict[str, Any]:
    """Values as 16-bit numbers between their lowest and highest, one more for none."""
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 1.0)
    step = (high - low) / (_NONE - 1) or 1.0
    packed = np.full(values.shape, _NONE, np.uint16)
    packed[known] = np.round((values[known] - low) / step)
    return {"low": low, "step": step, "count": values.shape[1], "packed": packed.reshape(-1)}


_UPDATE_JS = """
const get = (from, key) => from instanceof Map ? from.get(key) : from[key];
const what = get(about, chooser.value), digits = get(what, "digits"), unit = get(what, "unit");
shown.text = "<b>" + labels[slider.value] + "</b>";
for (const map of maps) {
  const values = get(get(map, "values"), chooser.value), sources = get(map, "sources");
  const colours = get(map, "colours");
  colours.palette = get(what, "bad_low") ? palette.toReversed() : palette;
  get(map, "bar").title = chooser.value + " (" + unit + ")";
  colours.low = get(what, "low");
  colours.high = get(what, "high");
  for (const kind of ["bus", "line", "trafo"]) {
    const source = get(sources, kind), packed = get(values, kind), place = source.data.place;
    const value = new Float32Array(place.length).fill(NaN), text = new Array(place.length).fill("");
    if (packed !== undefined) {
      const low = get(packed, "low"), step = get(packed, "step"), count = get(packed, "count");
      const stored = get(packed, "packed");
      for (let i = 0; i < place.length; i++) {
        const one = stored[slider.value * count + place[i]];
        if (one != 65535) value[i] = low + step * one;
        text[i] = one != 65535 ? value[i].toFixed(digits) + " " + unit : "not known";
      }
    }
    source.data = {...source.data, value, text};
  }
}
"""

_PLAY_JS = """
clearInterval(window.evgrid_playing);
play.label = play.active ? "stop" : "play";
if (play.active) {
  window.evgrid_playing = setInterval(() => {
    slider.value = slider.value >= slider.end ? 1 : slider.value + 1;
  }, 250);
}
"""


def _labels(result: xr.Dataset, starts: NDArray[np.int64]) -> list[str]:
    time, step = result["time"].values, np.timedelta64(round(interval_s(result) * 1e9), "ns")
    last = np.append(time[starts[1:]], time[-1] + step)
    return [
        "whole run",
        *(
            f"{str(a)[:16]} to {str(b)[11:16]}".replace("T", " ")
            for a, b in zip(time[starts], last, strict=True)
        ),
    ]


def _equal_scale(place: Layout, width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
    x, y = place.x[np.isfinite(place.x)], place.y[np.isfinite(place.y)]
    middle = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    half = max(np.ptp(x), 1e-9) * 0.54, max(np.ptp(y), 1e-9) * 0.54
    if not place.drawn:
        unit = max(half[0] / width, half[1] / height)
        half = unit * width, unit * height
    return (middle[0] - half[0], middle[0] + half[0]), (middle[1] - half[1], middle[1] + half[1])


def _has(data: MapData, title: str) -> bool:
    return any(q.title == title for q in data.quantities)


def _find(data: MapData, title: str) -> Quantity:
    return next(q for q in data.quantities if q.title == title)


def _least(values: Floats) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else np.inf


def _most(values: Floats) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else -np.inf
