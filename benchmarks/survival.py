"""Survival of an outage from 8,760 starts on, at homes with an EV each: in all and per hour survived."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from evgrid.core.jit import THREADS
from evgrid.sites.survival import GENERATOR, STAY, Sites, survival_hours

SMOKE: dict[str, Any] = {"homes": 4, "days": 5}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


def street(homes: int, days: int, drives: bool = True, pv_kwp: float = 0.0) -> tuple[Sites, np.ndarray]:
    """Homes of 29.4 kWh a day with an EV each that leaves every morning, or never; and its energy."""
    rng = np.random.default_rng(0)
    hour = np.arange(24 * days) % 24
    shape = 1.0 + 0.5 * np.cos(2 * np.pi * (hour - 19) / 24)
    load_kw = 29.4 / 24 * shape * rng.gamma(1.5, 1 / 1.5, (homes, 24 * days))
    pv_kw = (
        pv_kwp * np.maximum(np.sin(np.pi * (hour - 6) / 12), 0.0) * rng.uniform(0.2, 0.8, (homes, 24 * days))
    )
    stays = np.zeros((homes, days + 1), STAY)
    leave_h = 24 * np.arange(days) + rng.normal(8, 1, (homes, days))
    come_h = 24 * np.arange(days) + rng.normal(17.6, 1.5, (homes, days))
    stays["arrival_h"] = np.column_stack([np.zeros(homes), come_h])
    stays["departure_h"] = np.column_stack([leave_h, np.full(homes, 24.0 * days)])
    for name, value in {
        "capacity_kwh": 60, "floor_kwh": 12, "charge_kw": 7.4, "discharge_kw": 7.4, "charge_b": 1 / 0.9 - 1,
        "discharge_b": 0.1, "standby_kw": 0.066, "drive_kwh": 10, "arrival_kwh": 44,
    }.items():  # fmt: skip
        stays[name] = value
    if not drives:
        stays = stays[:, :1]
        stays["arrival_h"], stays["departure_h"] = 0.0, np.inf
    first = np.arange(homes + 1)
    each = stays.shape[1]
    sites = Sites(1.0, load_kw, pv_kw, np.zeros(homes, GENERATOR), first, first * each, stays.ravel())
    return sites, np.full((homes, 1), 54.0)


def rows(homes: int = 200, days: int = 365) -> list[dict[str, Any]]:
    """Both rules; with an EV that drives or stays, without and with PV."""
    survival_hours(*street(2, 2)), survival_hours(*street(2, 2), rule="reopt")  # compile
    found = []
    for drives, pv_kwp in ((True, 0.0), (False, 0.0), (False, 10.0)):
        sites, start_kwh = street(homes, days, drives, pv_kwp)
        for rule in ("exact", "reopt"):
            begin = time.perf_counter()
            hours = survival_hours(sites, start_kwh, rule=rule)
            took = time.perf_counter() - begin
            slots = float(hours.sum(dtype=np.float64))
            with_pv = f"{'' if drives else ' that stays'}{f', {pv_kwp:g} kWp PV' if pv_kwp else ''}"
            found.append(
                {
                    "what": f"survival, {rule}, {len(hours):,} starts x {homes} homes with an EV{with_pv}, "
                    f"mean {hours.mean():.1f} h, {THREADS} threads",
                    "figure": f"{took:.2f} s",
                    "against": "hour survived",
                    "reference": f"{took / max(slots, 1.0) * 1e9:.0f} ns",
                }
            )
    return found


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["survival"])
