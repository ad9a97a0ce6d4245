"""Charts of the report: series over time, duration curves, days, and the spread over members.

Long series are shown by at most :data:`POINTS` intervals, each with its lowest and highest value, so that no
peak is lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bokeh.plotting import figure

Floats = NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Colours of cases (Okabe and Ito), told apart also with impaired colour vision."""
WIDTH = 1040
"""Width of the page's charts, pixels."""
POINTS = 700
"""Intervals of a series in a chart, at most."""
CURVE_POINTS = 400
_LETTER, _GLYPH, _LEGEND_ROW = 6.5, 48, 26
"""Width of a letter and of the sign before an entry, and height of a row of a legend, pixels."""


def chart(title: str, y: str, x: str = "", **options: Any) -> figure:
    """An empty chart of half the page's width."""
    from bokeh.models import BasicTickFormatter
    from bokeh.plotting import figure

    given = {"width": WIDTH // 2, "height": 290, "tools": "pan,wheel_zoom,box_zoom,reset,save"} | options
    fig = figure(title=title, x_axis_label=x, y_axis_label=y, **given)
    fig.toolbar.logo = None
    fig.toolbar.autohide = True
    fig.title.text_font_size = "13px"
    if options.get("y_axis_type") != "log":
        fig.yaxis.formatter = BasicTickFormatter(use_scientific=False)
    fig.yaxis.axis_label_text_font_style = fig.xaxis.axis_label_text_font_style = "normal"
    return fig


def rows_of(plots: Sequence[figure]) -> Any:
    """Charts in rows of two of one height, as Bokeh gives those of a row the same room for legends."""
    from bokeh.layouts import gridplot

    if len(plots) == 1:
        plots[0].width = WIDTH
    rows = [list(plots[i : i + 2]) for i in range(0, len(plots), 2)]
    for row in rows:
        highest = max(plot.height for plot in row)
        for plot in row:
            plot.height = highest
    return gridplot(rows, toolbar_location=None)


def legend(fig: figure, place: str = "above") -> figure:
    """Move the legend, if there is one, out of the drawing, in as many columns as the width has room for; the
    chart is as much higher as further rows need. A click on an entry hides it.
    """
    if fig.legend:
        fig.add_layout(fig.legend[0], place)
        fig.legend[0].orientation = "horizontal"
        fig.legend[0].click_policy = "hide"
        fig.legend[0].label_text_font_size = "11px"
        fig.legend[0].padding = fig.legend[0].spacing = 2
        fig.legend[0].border_line_color = None
        items = fig.legend[0].items
        longest = max(len(str(getattr(item.label, "value", item.label))) for item in items)
        fits = int((fig.width - 60) // (_LETTER * longest + _GLYPH))
        columns = max(min(fits, len(items)), 1)
        fig.legend[0].ncols = columns
        fig.height += _LEGEND_ROW * (-(-len(items) // columns) - 1)
    return fig


def over_time(
    title: str, y: str, time: NDArray[Any], series: Mapping[str, Floats], limits: Sequence[float] = (),
    points: int = POINTS, **options: Any,
) -> figure:  # fmt: skip
    """Series (member, time) by label: the median over the members with a band from the 5th to the 95th
    percentile; of one member its mean in each shown interval, with its lowest and highest.
    """
    from bokeh.models import HoverTool

    fig = chart(title, y, x_axis_type="datetime", **options)
    for number, (label, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        at, low, mid, high = _band(time, values, points)
        if not np.isfinite(mid).any():
            continue
        if len(values) > 1 or len(at) < len(time):
            fig.varea(x=at, y1=low, y2=high, color=colour, alpha=0.22)
        fig.line(at, mid, color=colour, line_width=1.4, legend_label=label, name=label)
    _limit_lines(fig, limits, time[[0, -1]])
    fig.add_tools(
        HoverTool(tooltips=[("", "$name"), ("", "@x{%F %H:%M}"), ("", "@y{0.0000}")],
                  formatters={"@x": "datetime"}, mode="mouse")
    )  # fmt: skip
    return legend(fig)


def duration_curves(
    title: str, y: str, hours: float, series: Mapping[str, Floats], limits: Sequence[float] = ()
) -> figure:
    """Load duration curves of series (member, time): values of all members from the highest to the lowest,
    against the hours of the run for which they are reached or exceeded. ``hours``: length of the run.
    """
    fig = chart(title, y, "hours for which it is reached or exceeded")
    for number, (label, values) in enumerate(series.items()):
        known = np.sort(values[np.isfinite(values)])[::-1]
        if not len(known):
            continue
        share = np.linspace(0, 1, min(CURVE_POINTS, len(known)))
        place = np.unique(np.round(share**2 * (len(known) - 1)).astype(int))  # dense near the peak
        fig.line(
            hours * (place + 0.5) / len(known), known[place], color=COLOURS[number % len(COLOURS)],
            line_width=1.6, legend_label=label,
        )  # fmt: skip
    _limit_lines(fig, limits, [0.0, hours])
    return legend(fig)


def over_the_day(
    title: str, y: str, time: NDArray[Any], series: Mapping[str, Floats], limits: Sequence[float] = ()
) -> figure:
    """Series (member, time) by the time of day: the median over days and members, and the band from the 5th
    to the 95th percentile.
    """
    minute = (time - time.astype("datetime64[D]")) / np.timedelta64(1, "m")
    step = max(np.diff(time[:2]).astype("timedelta64[s]").astype(float)[0] / 60 if len(time) > 1 else 60, 15)
    slot = (minute // step).astype(int)
    fig = chart(title, y, "hour of the day")
    for number, (label, values) in enumerate(series.items()):
        colour, rows = COLOURS[number % len(COLOURS)], []
        for one in np.unique(slot):
            found = values[:, slot == one]
            found = found[np.isfinite(found)]
            if len(found):
                rows.append([(one + 0.5) * step / 60, *np.quantile(found, [0.05, 0.5, 0.95])])
        if rows:
            hour, low, mid, high = np.array(rows).T
            fig.varea(x=hour, y1=low, y2=high, color=colour, alpha=0.22)
            fig.line(hour, mid, color=colour, line_width=1.6, legend_label=label)
    _limit_lines(fig, limits, [0.0, 24.0])
    return legend(fig)


def spread(title: str, x: str, series: Mapping[str, Floats]) -> figure:
    """Values of the members, (member,) by label, as the share of members with at most a value."""
    fig = chart(title, "share of the members (%)", x, y_range=(-3, 103))
    for number, (label, values) in enumerate(series.items()):
        known = np.sort(values[np.isfinite(values)])
        if len(known):
            share = 100 * np.arange(1, len(known) + 1) / len(known)
            fig.step(
                np.concatenate([known[:1], known]), np.concatenate([[0.0], share]), mode="after",
                color=COLOURS[number % len(COLOURS)], line_width=1.6, legend_label=label,
            )  # fmt: skip
    return legend(fig)


def lines_with_band(
    title: str, y: str, x: str, at: Floats, series: Mapping[str, Sequence[Floats]],
    limits: Sequence[float] = (), markers: bool = True, **options: Any,
) -> figure:  # fmt: skip
    """Lines by label, each (low, value, high) with bounds that do not hide each other."""
    fig = chart(title, y, x, **options)
    for number, (label, (low, mid, high)) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        if not np.array_equal(low, high, equal_nan=True):
            fig.varea(x=at, y1=low, y2=high, color=colour, alpha=0.12)
            for bound in (low, high):
                fig.line(at, bound, color=colour, line_width=0.8, line_dash=(4, 2 + 2 * number))
        fig.line(at, mid, color=colour, line_width=1.8, legend_label=label)
        if markers:
            shape = ("circle", "square", "triangle", "diamond")[number % 4]
            fig.scatter(at, mid, color=colour, size=5, marker=shape, legend_label=label)
    _limit_lines(fig, limits, at[[0, -1]])
    return legend(fig)


def bars(
    title: str, y: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], **options: Any
) -> figure:
    """Bars by label, of several series beside each other; none where a value is NaN."""
    from bokeh.models import FactorRange

    several = len(series) > 1
    factors: list[Any] = [(label, name) if several else label for label in labels for name in series]
    heights = [float(series[name][i]) for i in range(len(labels)) for name in series]
    fig = chart(title, y, x_range=FactorRange(*factors), **{"height": 330, **options})
    colours = [COLOURS[k % len(COLOURS)] for _ in labels for k in range(len(series))]
    fig.vbar(x=factors, top=heights, width=0.8, fill_color=colours, line_color=None)
    fig.xaxis.major_label_orientation = 0.7
    return fig


def _limit_lines(fig: figure, limits: Sequence[float], ends: Any) -> None:
    """Dashed lines at limits, which are always in view."""
    for limit in limits:
        fig.line(ends, [limit, limit], color="#b00020", line_dash="dashed", line_width=1)


def band_of(values: Floats) -> Floats:
    """5th percentile, median and 95th percentile over the members, (3, ...), of (member, ...); NaN counts as
    missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN where no member has a value
        return np.asarray(np.nanquantile(values, [0.05, 0.5, 0.95], axis=0))


def _band(time: NDArray[Any], values: Floats, points: int) -> tuple[NDArray[Any], Floats, Floats, Floats]:
    """Times and, at them, lower end, middle and upper end of a series (member, time)."""
    values = np.asarray(values, np.float64)
    if len(values) > 1:
        low, mid, high = band_of(values)
    else:
        low = mid = high = values[0]
    if len(time) <= points:
        return time, low, mid, high
    starts = np.arange(0, len(time), -(-len(time) // points))
    count = np.diff(np.append(starts, len(time)))
    return (
        time[starts], np.fmin.reduceat(low, starts), np.add.reduceat(mid, starts) / count,
        np.fmax.reduceat(high, starts),
    )  # fmt: skip
