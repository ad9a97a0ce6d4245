"""Small networks that several tests build on."""

from __future__ import annotations

import pandapower as pp


def two_houses(house_kw):
    """Houses A and B, each at the end of a line of its own, LA and LB, behind the transformer T1."""
    net = pp.create_empty_network()
    grid = pp.create_bus(net, 20.0, name="grid")
    pp.create_ext_grid(net, grid)
    head = pp.create_bus(net, 0.4, name="head")
    pp.create_transformer(net, grid, head, "0.25 MVA 20/0.4 kV", name="T1")
    for name in ("A", "B"):
        end = pp.create_bus(net, 0.4, name=f"end {name}")
        pp.create_line(net, head, end, 0.05, "NAYY 4x50 SE", name=f"L{name}")
        pp.create_load(net, end, house_kw / 1e3, name=name)
    return net
