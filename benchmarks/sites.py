"""A coupled week of homes that feed themselves from their EVs, on a medium-voltage network."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandapower
from pandapower.networks import create_cigre_network_mv

import evgrid

SMOKE: dict[str, Any] = {"homes": 20, "hours": 2}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def network(homes: int, folder: Path) -> str:
    """The CIGRE medium-voltage network with as many homes, of 2 kW each, in place of its loads."""
    net = create_cigre_network_mv(with_der=False)
    buses = sorted(set(net.load.bus))
    net.load.drop(net.load.index, inplace=True)
    for home in range(homes):
        bus = buses[home % len(buses)]
        pandapower.create_load(net, bus, p_mw=0.002, q_mvar=0.0005, name=f"home {home}")
    path = folder / "homes.json"
    pandapower.to_json(net, path)
    return str(path)


def scenario(homes: int, hours: int, sites: bool, folder: Path) -> dict[str, Any]:
    """Homes with an EV each on a medium-voltage network, with or without a site each."""
    content: dict[str, Any] = {
        "name": "homes",
        "time": {"start": "2026-06-01T00:00", "duration": f"{hours}h", "step": "1min"},
        "feeder": {"network": network(homes, folder), "base_load": {"source": "standard"}},
        "fleet": {"count": homes, "sessions": "home", "charger": {"phases": 3, "bidirectional": 1.0}},
        "record": {"step": "1h", "buses": "none", "lines": "none"},
    }
    if sites:
        content["sites"] = {"homes": {"connections": "all", "control": "self_consumption"}}
    return content


def timed(homes: int, hours: int, sites: bool) -> float:
    """Wall time of a run, s."""
    with TemporaryDirectory() as folder:
        content = scenario(homes, hours, sites, Path(folder))
        start = time.perf_counter()
        evgrid.run(content).close()
        return time.perf_counter() - start


def rows(homes: int = 1000, hours: int = 168) -> list[dict[str, Any]]:
    """The week with a site a home, against the same EVs without control."""
    timed(min(homes, 20), 1, True)  # compile and import
    with_sites, without = timed(homes, hours, True), timed(homes, hours, False)
    return [
        {
            "what": f"sites: {homes:,} homes with V2H, {hours} h at 1 min",
            "figure": f"{with_sites:.1f} s",
            "against": "the same EVs uncontrolled",
            "reference": f"{without:.1f} s",
            "ratio": with_sites / without,
        }
    ]


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["sites"])
