"""Hot spot and loss of life of transformers from the loading in a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from evgrid.errors import ResultError
from evgrid.feeder.transformer_thermal import VARIABLES, Floats, ThermalState, outcome
from evgrid.scenario.devices import TransformerThermal


def transformer_ageing(
    result: xr.Dataset,
    thermal: TransformerThermal | Mapping[str, TransformerThermal] | None = None,
    ambient_c: float | pd.Series[float] = 20.0,
    start_load: float | None = None,
) -> xr.Dataset:
    """Hot spot and loss of life of the transformers of a result.

    Parameters
    ----------
    result
        With ``trafo_loading`` (member, time, trafo).
    thermal
        Constants of all transformers, or of each by its name; left out: ``onan_distribution``.
    ambient_c
        Ambient temperature, °C: a number, or a series over local time that covers the run, read
        linearly between its values at the middle of each recording interval.
    start_load
        Load factor at which the transformers have settled before the run; left out: the load of
        the first interval, as IEC 60076-7:2018, Annex I does.

    Returns
    -------
    xarray.Dataset
        ``trafo_hot_spot_c``, ``trafo_top_oil_c`` (member, time, trafo): means over the intervals;
        ``trafo_hot_spot_highest_c``, ``trafo_life_h`` (hours of normal ageing),
        ``trafo_ageing_factor`` (mean relative ageing rate; with upgraded paper FEQA of IEEE C57.91) and
        ``trafo_loss_of_life_percent`` (of 180,000 h), each (member, trafo), the last three NaN where
        the hot spot passed LAW_UP_TO_C.

    Raises
    ------
    ResultError
        If the result holds no transformer loading, a transformer has no constants, or the ambient
        temperature does not cover the run.

    """
    import xarray as xr

    from evgrid.results.limits import interval_s

    if "trafo_loading" not in result:
        raise ResultError("the result has no trafo_loading, from which transformers' hot spots follow")
    loading = result["trafo_loading"].transpose("time", "member", "trafo")
    names = [str(name) for name in result["trafo"].values] if "trafo" in result.coords else []
    names = names or [str(i) for i in range(loading.sizes["trafo"])]
    step_s = interval_s(result)
    ambient = _ambient_series(ambient_c, result["time"].values, step_s)
    state = ThermalState(_constants(thermal, names), loading.sizes["member"], step_s)
    load = loading.values.astype(np.float64)
    first = load[0] if start_load is None else np.full(load.shape[1:], float(start_load))
    state.settle(first, float(ambient[0]))
    hot, top = state.run(load, ambient[:, None])
    values = {"trafo_hot_spot_c": np.moveaxis(hot, 0, 1), "trafo_top_oil_c": np.moveaxis(top, 0, 1)}
    values |= outcome(state, step_s * len(ambient) / 3600)
    data = {
        v.name: (("member", "time", "trafo") if v.timed else v.dims, values[v.name],
                 {"long_name": v.long_name, "units": v.unit})
        for v in VARIABLES
    }  # fmt: skip
    kept = {name: result[name] for name in ("member", "time", "trafo") if name in result.coords}
    return xr.Dataset(data, coords=kept)


def _constants(
    thermal: TransformerThermal | Mapping[str, TransformerThermal] | None, names: Sequence[str]
) -> list[TransformerThermal]:
    if thermal is None or isinstance(thermal, TransformerThermal):
        return [thermal or TransformerThermal()] * len(names)
    missing = [name for name in names if name not in thermal]
    if missing:
        raise ResultError(f"transformers without thermal constants: {', '.join(missing)}")
    return [thermal[name] for name in names]


def _ambient_series(ambient_c: float | pd.Series[float], time: NDArray[Any], step_s: float) -> Floats:
    """Ambient temperature of each interval, (time,), °C."""
    if isinstance(ambient_c, int | float):
        return np.full(len(time), float(ambient_c))
    middle = time.astype("datetime64[ns]") + np.timedelta64(round(step_s * 5e8), "ns")
    given = ambient_c.index.to_numpy().astype("datetime64[ns]")
    if len(given) == 0 or (np.diff(given) <= np.timedelta64(0)).any() or ambient_c.isna().any():
        raise ResultError("the ambient temperature must be a series over rising times, without gaps")
    if given[0] > middle[0] or given[-1] < middle[-1]:
        raise ResultError(
            f"the ambient temperature covers {given[0].astype('datetime64[s]')} to "
            f"{given[-1].astype('datetime64[s]')}, must cover {middle[0].astype('datetime64[s]')} to "
            f"{middle[-1].astype('datetime64[s]')}"
        )
    origin = given[0]
    values = ambient_c.to_numpy(dtype=np.float64)
    return np.asarray(
        np.interp((middle - origin).astype(np.float64), (given - origin).astype(np.float64), values)
    )
