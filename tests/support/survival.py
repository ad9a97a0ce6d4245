"""Sites of the survival kernel from lists."""

import numpy as np

from evgrid.sites.survival import GENERATOR, STAY, Sites


def stays_of(rows):
    """STAY rows from dictionaries; what is left out is 0, a departure infinite, a drive NaN."""
    table = np.zeros(len(rows), STAY)
    table["departure_h"], table["drive_kwh"] = np.inf, np.nan
    for row, values in zip(table, rows, strict=True):
        for name, value in values.items():
            row[name] = value
    return table


def sites_of(load_kw, pv_kw=None, stores=(), generators=(), slot_h=1.0):
    """Sites; ``load_kw``: (site, slot); ``stores``: of each site a list of stores, each a list of stays."""
    load_kw = np.atleast_2d(np.asarray(load_kw, float))
    pv_kw = np.zeros_like(load_kw) if pv_kw is None else np.atleast_2d(np.asarray(pv_kw, float))
    stores = list(stores) or [[] for _ in load_kw]
    flat = [store for site in stores for store in site]
    machines = np.zeros(len(load_kw), GENERATOR)
    for row, values in zip(machines, generators, strict=False):
        for name, value in values.items():
            row[name] = value
    ends = [np.cumsum([0, *map(len, part)]).astype(np.int64) for part in (stores, flat)]
    return Sites(
        slot_h, load_kw, pv_kw, machines, *ends, stays_of([stay for store in flat for stay in store])
    )
