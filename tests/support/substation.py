"""A substation with several feeders of any size: medium voltage, transformers, and streets with houses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandapower as pp
import pandas as pd


def substation(feeders: int = 6, transformers: int = 20, houses: int = 42, three_phase: bool = True) -> Any:
    """A net of ``feeders`` of ``transformers`` each, each of which has two streets with ``houses`` in all.

    ::

        grid ==HV/MV== head - MV - MV - ...          each MV: ==MV/LV== LV - house - house - ...
                            \\ - MV - ...                                  \\ - house - ...

    A house is a bus of its own with a load on one phase (or, balanced, on all): 5,040 of 5,282 buses with the
    numbers given here. All of it has zero-sequence data.
    """
    rng = np.random.default_rng(1)
    net = pp.create_empty_network(f_hz=50)
    grid, head = pp.create_bus(net, 110.0, "grid"), pp.create_bus(net, 20.0, "head")
    pp.create_ext_grid(net, grid, vm_pu=1.02)

    def transformer(hv: Any, lv: Any, mva: float, hv_kv: float, lv_kv: float, name: str) -> None:
        pp.create_transformer_from_parameters(
            net, hv, lv, mva, hv_kv, lv_kv, 0.5, 6.0, 0.0, 0.0, shift_degree=150.0, vector_group="Dyn",
            vk0_percent=6.0, vkr0_percent=0.5, mag0_percent=100.0, mag0_rx=0.0, si0_hv_partial=0.9, name=name,
        )  # fmt: skip

    transformer(grid, head, 40.0, 110.0, 20.0, "substation")
    stations = feeders * transformers
    mv = pp.create_buses(net, stations, 20.0, name=[f"mv {k}" for k in range(stations)])
    lv = pp.create_buses(net, stations, 0.4, name=[f"lv {k}" for k in range(stations)])
    for k in range(stations):
        transformer(mv[k], lv[k], 0.4, 20.0, 0.4, f"station {k}")
    at = np.arange(stations)
    before = np.where(at % transformers == 0, head, mv[at - 1])
    line = {"c_nf_per_km": 0.0, "c0_nf_per_km": 0.0}
    pp.create_lines_from_parameters(
        net, before, mv, 0.4, r_ohm_per_km=0.16, x_ohm_per_km=0.12, max_i_ka=0.4, r0_ohm_per_km=0.6,
        x0_ohm_per_km=0.5, name=[f"mv {k}" for k in at], **line,
    )  # fmt: skip
    count = stations * houses
    home = pp.create_buses(net, count, 0.4, name=[f"home {k}" for k in range(count)])
    at = np.arange(count)
    before = np.where(at % (houses // 2) == 0, lv[at // houses], home[at - 1])
    pp.create_lines_from_parameters(
        net, before, home, 0.012, r_ohm_per_km=0.21, x_ohm_per_km=0.08, max_i_ka=0.27, r0_ohm_per_km=0.8,
        x0_ohm_per_km=0.3, name=[f"service {k}" for k in at], **line,
    )  # fmt: skip
    kw = rng.uniform(0.5, 1.5, count) / 1e3
    names = [f"house {k}" for k in at]
    if not three_phase:
        pp.create_loads(net, home, kw, 0.2 * kw, name=names)
        return net
    on_phase = np.eye(3)[rng.integers(0, 3, count)] * kw[:, np.newaxis]
    table = {"name": names, "bus": home, "sn_mva": np.nan, "scaling": 1.0, "in_service": True, "type": "wye"}
    for k, phase in enumerate("abc"):
        table |= {f"p_{phase}_mw": on_phase[:, k], f"q_{phase}_mvar": 0.2 * on_phase[:, k]}
    empty = net.asymmetric_load
    net.asymmetric_load = pd.DataFrame(table).reindex(columns=empty.columns).astype(empty.dtypes.to_dict())
    return net
