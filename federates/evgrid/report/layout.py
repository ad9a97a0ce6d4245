"""Position of buses in a drawing of the feeder: its coordinates, or a one-line diagram.

Without coordinates the feeder is drawn as a tree: from left to right by the distance from the head in
branches, the ends of all branches one below the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import networkx as nx
    import xarray as xr

Floats = NDArray[np.float64]

_ENDS = {"line": ("line_from_bus", "line_to_bus"), "trafo": ("trafo_hv_bus", "trafo_lv_bus")}


@dataclass(frozen=True)
class Layout:
    """Positions of the buses, and the branches between them.

    x, y : (bus,), of equal scale where they are coordinates
    drawn : whether it is a one-line diagram
    note : how the positions were found
    """

    x: Floats
    y: Floats
    drawn: bool
    note: str


def ends_of(result: xr.Dataset, kind: str) -> NDArray[np.int64]:
    """Positions along bus of both ends of the lines or transformers, (element, 2); -1 where they are not
    known, as in results of earlier versions.
    """
    if _ENDS[kind][0] not in result:
        return np.full((result.sizes.get(kind, 0), 2), -1)
    return np.stack([result[name].values for name in _ENDS[kind]], axis=1).astype(np.int64)


def closed(result: xr.Dataset, kind: str) -> NDArray[np.bool_]:
    """Whether each line or transformer is closed at both ends, (element,), as far as it is known."""
    name = f"{kind}_closed"
    return result[name].values > 0 if name in result else np.ones(result.sizes.get(kind, 0), np.bool_)


def graph(result: xr.Dataset) -> nx.Graph:
    """The closed branches between buses: edges with ``kind`` and ``place``; buses joined by closed switches
    have an edge without them.
    """
    import networkx as nx

    found: nx.Graph = nx.Graph()
    found.add_nodes_from(range(result.sizes["bus"]))
    if "bus_node" in result:
        node = result["bus_node"].values
        first: dict[int, int] = {}
        for bus, number in enumerate(node.tolist()):
            if first.setdefault(number, bus) != bus:
                found.add_edge(first[number], bus)
    for kind in _ENDS:
        for place, ((a, b), on) in enumerate(
            zip(ends_of(result, kind).tolist(), closed(result, kind).tolist(), strict=True)
        ):
            if on and a >= 0 and b >= 0 and a != b and not found.has_edge(a, b):
                found.add_edge(a, b, kind=kind, place=place)
    return found


def roots(result: xr.Dataset, net: nx.Graph) -> list[int]:
    """A bus of each connected part of the feeder from which it is drawn: the source's, where it has one."""
    import networkx as nx

    source = result["bus_at_source"].values > 0 if "bus_at_source" in result else np.zeros(len(net), np.bool_)
    parts = sorted(nx.connected_components(net), key=len, reverse=True)
    return [next((bus for bus in sorted(part) if source[bus]), min(part)) for part in parts]


def layout(result: xr.Dataset) -> Layout:
    """Positions of all buses."""
    x, y = (result[name].values.astype(np.float64) for name in ("bus_x", "bus_y"))
    known = np.isfinite(x) & np.isfinite(y)
    spread = len(np.unique(np.stack([x[known], y[known]]), axis=1).T) if known.any() else 0
    if known.mean() < 0.5 or spread < min(3, len(x)):
        return _one_line(result)
    if np.ptp(x[known]) < 20 and (abs(y[known]) <= 90).all() and (abs(x[known]) <= 180).all():
        x = x * np.cos(np.radians(y[known].mean()))  # degrees of longitude are shorter
    note = "The network's own coordinates."
    if not known.all():
        x, y = _beside_neighbours(result, x, y, known)
        note += f" {int((~known).sum())} of {len(x)} buses have none and are drawn at their neighbours."
    return Layout(x, y, False, note)


def _beside_neighbours(
    result: xr.Dataset, x: Floats, y: Floats, known: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Coordinates in which a bus without any has those of the nearest bus along the feeder."""
    import networkx as nx

    x, y = x.copy(), y.copy()
    net = graph(result)
    if known.any():
        cells = nx.voronoi_cells(net, set(np.flatnonzero(known).tolist()))
        for bus, others in cells.items():
            if bus != "unreachable":
                x[list(others)], y[list(others)] = x[bus], y[bus]
    return x, y


def _one_line(result: xr.Dataset) -> Layout:
    import networkx as nx

    net = graph(result)
    x, y = np.zeros(len(net)), np.zeros(len(net))
    below = 0.0
    for root in roots(result, net):
        depth = nx.single_source_shortest_path_length(net, root)
        tree = nx.bfs_tree(net, root)
        for bus in nx.dfs_postorder_nodes(tree, root):
            children = list(tree.successors(bus))
            x[bus] = depth[bus]
            if children:
                y[bus] = (y[children[0]] + y[children[-1]]) / 2
            else:
                y[bus], below = below, below - 1.0
    return Layout(
        x, y, True, "The network has no coordinates: a one-line diagram, by branches from the head."
    )
