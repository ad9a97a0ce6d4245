"""The setups of runs that are compared: period, step, members, limits of the grid, and network.

In: results. Out: :func:`setup_of`, texts by subject, and :func:`difference`, a sentence of where they differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evgrid.report.assumptions import count, network_name
from evgrid.report.page import cell, joined
from evgrid.results.limits import LimitSet, interval_s
from evgrid.results.metrics import external_federates

if TYPE_CHECKING:
    import xarray as xr


def setup_of(result: xr.Dataset, limits: LimitSet, members: int) -> dict[str, str]:
    """Period, step, members, limits of the grid (not those of aggregators) and network, as texts."""
    scenario: dict[str, Any] = json.loads(result.attrs["scenario"])
    every_s = interval_s(result)
    hours = result.sizes["time"] * every_s / 3600
    step_s = float(scenario.get("time", {}).get("step") or every_s)
    setup = {
        "period": f"{hours:g} h from {cell(result['time'].values[0])}",
        "step": f"{step_s:g} s" + (f", recorded every {every_s:g} s" if step_s != every_s else ""),
        "members": count(members, "member"),
    }
    if "feeder" not in external_federates(result):
        setup["limits"] = joined([n for n in limits.names if not n.startswith("limit_of_")], 20) or "none"
        setup["network"] = network_name((scenario.get("feeder") or {}).get("network"))
    return setup


def difference(setups: Sequence[Mapping[str, str]]) -> list[str]:
    """One sentence that names each subject in which setups differ, with their texts; none if they agree.

    >>> difference([{"period": "6 h", "step": "60 s"}, {"period": "12 h", "step": "60 s"}])
    ['These runs differ in period: 6 h and 12 h; their figures do not compare.']
    """
    parts = []
    for subject in dict.fromkeys(subject for setup in setups for subject in setup):
        texts = dict.fromkeys(setup.get(subject, "that of another program") for setup in setups)
        if len(texts) > 1:
            parts.append(f"in {subject}: {joined(texts)}")
    return [f"These runs differ {'; '.join(parts)}; their figures do not compare."] if parts else []
