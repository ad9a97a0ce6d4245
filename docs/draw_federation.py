"""Draws docs/images/federation.svg: the federates, what they exchange, and who may step in whose place.

    python docs/draw_federation.py

The ports are those of ``evgrid.core.ports``.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from evgrid.core.ports import CAUSAL_ORDER, ports_published

OWN = {
    "system": "bulk grid: frequency,\nregulation signal",
    "aggregator": "strategies: set-points\nof thousands of EVs",
    "sites": "homes, buildings,\nislands",
    "fleet": "EVs and chargers,\nvectorised",
    "feeder": "three-phase\npower flow",
}
OTHERS = {
    "system": ["a recording, by\nHELICS' player*", "a model of\nthe bulk grid"],
    "aggregator": ["your controller in\nPython*, C*, ...", "an agent that learns"],
    "sites": ["your energy\nmanagement"],
    "fleet": ["your EV simulator"],
    "feeder": ["OpenDSS*", "GridLAB-D*", "your power flow"],
}
BLUE, GREY, GREEN = "#1f5f8b", "#5b6470", "#2f7d4f"
WIDTH, GAP = 2.1, 0.3
MOST = 7


def box(axes: plt.Axes, x: float, y: float, height: float, color: str, fill_color: str, dashed: bool) -> None:
    """A box with round corners, from its lower left corner."""
    style = "round,pad=0,rounding_size=0.08"
    line = "--" if dashed else "-"
    axes.add_patch(FancyBboxPatch((x, y), WIDTH, height, style, ec=color, fc=fill_color, lw=1.4, ls=line))


def arrow(axes: plt.Axes, begin: tuple[float, float], end: tuple[float, float], color: str) -> None:
    """A double arrow: what a federate gives and takes."""
    axes.add_patch(FancyArrowPatch(begin, end, arrowstyle="<|-|>", mutation_scale=10, color=color, lw=1.2))


def draw() -> plt.Figure:
    """The picture."""
    total = len(CAUSAL_ORDER) * (WIDTH + GAP) - GAP
    figure, axes = plt.subplots(figsize=(10.6, 5.5))
    axes.set(xlim=(-0.1, total + 0.1), ylim=(-0.35, 5.85), aspect="equal")
    axes.axis("off")
    axes.text(0.02, 5.62, "one tick, in this order", color=GREY, fontsize=9.5, va="center")
    axes.add_patch(
        FancyArrowPatch((1.95, 5.62), (total, 5.62), arrowstyle="-|>", mutation_scale=12, color=GREY)
    )
    axes.add_patch(FancyBboxPatch((0, 2.42), total, 0.5, "round,pad=0,rounding_size=0.08", ec=BLUE, fc=BLUE))
    axes.text(
        total / 2, 2.67, "HELICS: vectors and messages with units, by the port sheet (evgrid ports)",
        color="white", fontsize=10, ha="center", va="center",
    )  # fmt: skip
    for place, federate in enumerate(CAUSAL_ORDER):
        x = place * (WIDTH + GAP)
        middle = x + WIDTH / 2
        box(axes, x, 3.4, 1.95, BLUE, "#e8f0f6", dashed=False)
        axes.text(middle, 5.1, federate, fontsize=11.5, weight="bold", color=BLUE, ha="center", va="center")
        axes.text(middle, 4.68, OWN[federate], fontsize=8.2, ha="center", va="center")
        quantities = [port.name.partition("/")[2] for port in ports_published(federate)]
        quantities = [name for name in quantities if not name.startswith(("own_", "site_"))]
        shown = ", ".join([*quantities[:MOST], *(["…"] if len(quantities) > MOST else [])])
        axes.text(
            middle, 3.92, fill(f"gives {shown}", 25), fontsize=7.8, color=GREY, ha="center", va="center",
            linespacing=1.3,
        )  # fmt: skip
        arrow(axes, (middle, 2.94), (middle, 3.38), BLUE)
        arrow(axes, (middle, 1.96), (middle, 2.4), GREEN)
        box(axes, x, 0.25, 1.7, GREEN, "#eef6f0", dashed=True)
        axes.text(middle, 1.75, "or in its place", fontsize=8.2, color=GREEN, ha="center", va="center")
        others = OTHERS[federate]
        for row, other in enumerate(others):
            y = 0.95 + 0.56 * ((len(others) - 1) / 2 - row) * (1.0 if any("\n" in o for o in others) else 0.7)
            axes.text(middle, y, other, fontsize=8.6, ha="center", va="center", linespacing=1.15)
    axes.text(
        0, -0.1, "* shipped in federates/examples and tested. Each may be a process of its own, on this "
        "machine or another; several may be replaced at once.", fontsize=8.2, color=GREY, va="center",
    )  # fmt: skip
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    return figure


if __name__ == "__main__":
    mpl.rcParams |= {"svg.hashsalt": "evgrid", "font.family": "DejaVu Sans"}
    picture = draw()
    target = Path(__file__).parent / "images" / "federation.svg"
    picture.savefig(target, facecolor="white", metadata={"Date": None})
