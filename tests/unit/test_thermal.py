"""Hot spot and ageing: settled values, exact steps, quadrature, and what a result's transformers get."""

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from evgrid.errors import ResultError
from evgrid.feeder.transformer_thermal import (
    ThermalState,
    ageing_acceleration_factor,
    ageing_rate,
    equivalent_ageing_factor,
    loss_of_life_percent,
)
from evgrid.results.metrics import _life_rows
from evgrid.results.transformer_ageing import transformer_ageing
from evgrid.scenario.devices import TRANSFORMER_PRESETS, TransformerThermal

ONAN = TRANSFORMER_PRESETS["onan_distribution"]


def one(value):
    return np.array([[float(value)]])


def settled(load=1.0, ambient=20.0, step_s=60.0, thermal=ONAN):
    state = ThermalState([thermal], 1, step_s)
    state.settle(one(load), ambient)
    return state


# -------------------------------------------------------------------------------- worked by hand


@pytest.mark.parametrize("name", TRANSFORMER_PRESETS)
def test_rated_load_at_20_degrees_is_98_degrees_and_ages_normally(name):
    state = settled(thermal=TRANSFORMER_PRESETS[name])  # 20 + 55 + 23, 20 + 52 + 26
    state.run(np.ones((1440, 1, 1)), 20.0)
    assert state.end_hot_spot_c.item() == pytest.approx(98.0, abs=1e-9)
    assert state.highest_c.item() == pytest.approx(98.0, abs=1e-9)
    assert state.life_h.item() == pytest.approx(24.0, rel=1e-9)


def test_without_load_only_iron_heats():
    # (1 / 6)^0.8 * 55 = 13.117 K
    assert settled(load=0.0, ambient=10.0).end_hot_spot_c.item() == pytest.approx(23.117, abs=1e-3)


def test_overload_settles():
    # K = 1.5: (1 + 2.25 * 5) / 6 = 2.04167, ^0.8 = 1.77000, * 55 = 97.350; 1.5^1.6 = 1.91318, * 23 = 44.003
    state = settled(load=1.5, ambient=0.0)
    assert state.end_top_oil_c.item() == pytest.approx(55 * 2.0416667**0.8)
    assert state.end_top_oil_c.item() == pytest.approx(97.35, abs=0.01)
    assert state.end_hot_spot_c.item() == pytest.approx(97.35 + 44.00, abs=0.02)


def test_step_response_at_the_time_constants():
    # From cold and dead at 20 °C to rated load: 1 - 1/e = 0.632121 of 55 K after 180 min;
    # of the 23 K after k22 τw = 8 min.
    state = ThermalState([ONAN], 1, 480.0)
    state.settle(one(np.nan), 20.0)
    state.step(one(1.0), 20.0)
    gradient = (state.end_hot_spot_c - state.end_top_oil_c).item()
    assert gradient == pytest.approx(0.6321206 * 23, abs=1e-5)
    for _ in range(180 * 60 // 480 - 1):
        state.step(one(1.0), 20.0)
    rest = 180 - 480 / 60 * (180 * 60 // 480)
    assert state.end_top_oil_c.item() == pytest.approx(20 + 55 * (1 - math.exp(-1 + rest / 180)), abs=1e-9)


def test_a_transformer_without_source_cools_to_ambient():
    state = settled()
    state.run(np.full((600, 1, 1), np.nan), 15.0)
    # 83 K over 600 min with τ = 180 min: the oil keeps exp(-3.3333) = 0.035674 of 75 - 15 = 60 K
    assert state.end_hot_spot_c.item() == pytest.approx(15 + 60 * 0.035674, abs=1e-4)


def test_ageing_rates():
    assert ageing_rate([92.0, 98.0, 104.0, 122.0]).tolist() == [0.5, 1.0, 2.0, 16.0]
    # 15000/383 - 15000/393 = 0.996552: e to it is 2.70892
    assert ageing_acceleration_factor([110.0, 120.0]) == pytest.approx([1.0, 2.70892], abs=1e-4)
    assert ageing_rate(98.0, "upgraded") == pytest.approx(math.exp(15000 / 383 - 15000 / 371))
    with pytest.raises(ValueError, match=r"paper = nomex: must be non_upgraded or upgraded"):
        ageing_rate(98.0, "nomex")


def test_equivalent_ageing_and_loss_of_life():
    # 6 h at 4 and 18 h at 0.5: (24 + 9) / 24 = 1.375; of 180,000 h in a day: 33 / 1800 %
    factor = equivalent_ageing_factor([4.0, 0.5], [6.0, 18.0])
    assert factor == pytest.approx(1.375)
    assert loss_of_life_percent(factor, 24.0) == pytest.approx(33 / 1800)


# ------------------------------------------------------------------------------------- properties

LOADS = st.lists(st.floats(0.0, 2.0), min_size=1, max_size=6)


@given(LOADS, st.sampled_from(sorted(TRANSFORMER_PRESETS)), st.sampled_from([2, 5, 30]))
def test_temperatures_and_life_do_not_depend_on_the_step(loads, name, parts):
    long, short = (settled(0.3, 10.0, 3600.0 / n, TRANSFORMER_PRESETS[name]) for n in (1, parts))
    for load in loads:
        long.step(one(load), 10.0)
        means = [short.step(one(load), 10.0).item() for _ in range(parts)]
        assert long.hot_spot_c.item() == pytest.approx(np.mean(means), rel=1e-5)
    assert long.end_hot_spot_c == pytest.approx(short.end_hot_spot_c, rel=1e-12)
    assert long.end_top_oil_c == pytest.approx(short.end_top_oil_c, rel=1e-12)
    assert long.life_h == pytest.approx(short.life_h, rel=1e-5)


def test_a_member_alone_equals_the_same_member_among_others():
    rng = np.random.default_rng(3)
    load, ambient = rng.random((50, 4, 2)) * 1.5, rng.normal(10, 5, (50, 4))
    thermal = [ONAN, TRANSFORMER_PRESETS["onaf_power"]]
    together, alone = ThermalState(thermal, 4, 60.0), ThermalState(thermal, 1, 60.0)
    together.settle(load[0], ambient[0])
    alone.settle(load[0, 2:3], ambient[0, 2:3])
    hot, top = together.run(load, ambient)
    for step in range(50):
        assert (alone.step(load[step, 2:3], ambient[step, 2:3]) == hot[step, 2:3]).all()
        assert (alone.top_oil_c == top[step, 2:3]).all()
    assert (alone.life_h == together.life_h[2:3]).all()
    assert (alone.highest_c == together.highest_c[2:3]).all()


def test_the_hot_spot_overshoots_where_k21_is_above_one():
    state = settled(0.3, 20.0, 60.0, TRANSFORMER_PRESETS["onaf_power"])
    state.run(np.full((2000, 1, 1), 1.0), 20.0)
    assert state.end_hot_spot_c.item() == pytest.approx(98.0, abs=1e-2)
    onan = settled(0.3)
    onan.run(np.full((2000, 1, 1), 1.0), 20.0)
    assert onan.highest_c.item() <= 98.0 + 1e-9
    gradient = settled(0.3, 20.0, 60.0, TRANSFORMER_PRESETS["onaf_power"])
    highest = 0.0
    for _ in range(60):
        gradient.step(one(1.0), 20.0)
        highest = max(highest, (gradient.end_hot_spot_c - gradient.end_top_oil_c).item())
    assert highest > 26.0 * 1.2


# ------------------------------------------------------------------------------------ of a result


def result(load, step="1h", names=("T1",)):
    load = np.asarray(load, dtype=float)
    time = pd.date_range("2026-01-15T12:00", periods=load.shape[1], freq=step)
    return xr.Dataset(
        {"trafo_loading": (("member", "time", "trafo"), load)},
        coords={"member": [3, 4], "time": time.values, "trafo": list(names)},
    )


def test_ageing_of_a_result():
    load = np.ones((2, 24, 1))
    load[1] = np.nan  # not energised: 20 °C, 2^(-13) of normal ageing
    aged = transformer_ageing(result(load))
    assert aged["trafo_hot_spot_c"].dims == ("member", "time", "trafo")
    assert aged["trafo_hot_spot_c"].sel(member=3).values == pytest.approx(98.0)
    assert aged["trafo_top_oil_c"].sel(member=3).values == pytest.approx(75.0)
    assert aged["trafo_life_h"].values[:, 0] == pytest.approx([24.0, 24 * 2**-13.0])
    assert aged["trafo_ageing_factor"].values[0, 0] == pytest.approx(1.0)
    assert aged["trafo_loss_of_life_percent"].values[0, 0] == pytest.approx(24 / 1800)
    assert aged["trafo_hot_spot_c"].attrs["units"] == "degC"


def test_a_loss_of_life_is_reported_up_to_the_hottest_spot_that_iec_allows():
    """At 20 °C, settled: 134 °C at 1.3, 161 °C at 1.5, just over the limit, 257 °C at 2.1."""
    load = np.ones((2, 24, 3))
    load[0, :, 1], load[1, :, 1], load[:, :, 2] = 1.3, 1.5, 2.1
    aged = transformer_ageing(result(load, names=("cool", "warm", "hot")))
    hot_spot = aged["trafo_hot_spot_highest_c"]
    for factor, name, member in ((1.3, "warm", 3), (1.5, "warm", 4), (2.1, "hot", 3)):
        rise = 55.0 * ((1 + 5 * factor**2) / 6) ** 0.8 + 23.0 * factor**1.6
        assert hot_spot.sel(member=member, trafo=name).item() == pytest.approx(20.0 + rise)
    assert aged["trafo_life_h"].sel(trafo="cool").values == pytest.approx([24.0, 24.0])
    for name in ("trafo_life_h", "trafo_ageing_factor", "trafo_loss_of_life_percent"):
        values = aged[name]
        assert np.isnan(values).values.tolist() == (hot_spot > 160.0).values.tolist()
        assert np.isnan(values).values.tolist() == [[False, False, True], [False, True, True]]
        assert "NaN where the hot spot passed 160 °C" in values.attrs["long_name"]
    life = aged["trafo_life_h"].sel(member=3, trafo="warm").item()
    assert life == pytest.approx(24 * 2 ** ((hot_spot.sel(member=3, trafo="warm").item() - 98) / 6))
    rows = dict(_life_rows(aged["trafo_life_h"], hot_spot))
    assert rows["loss of life of cool"].startswith("24.000 h")
    assert rows["loss of life not reported"] == (
        "warm, hot: hot spot above 160 °C, outside the range of the ageing equations (IEC 60076-7)"
    )
    assert list(dict(_life_rows(aged["trafo_life_h"][:, 2:], hot_spot[:, 2:]))) == [
        "loss of life not reported"
    ]


def test_ambient_series_is_read_at_the_middle_of_the_intervals():
    ambient = pd.Series([0.0, 24.0], index=pd.to_datetime(["2026-01-15T12:00", "2026-01-16T12:00"]))
    huge = TransformerThermal(oil_time_constant_min=1e-3, winding_time_constant_min=1e-3)
    aged = transformer_ageing(result(np.ones((2, 24, 1))), huge, ambient)
    assert aged["trafo_hot_spot_c"].values[0, :, 0] == pytest.approx(78.0 + np.arange(0.5, 24), abs=1e-2)


def test_start_load_and_constants_by_name():
    constants = {"T1": ONAN, "T2": TransformerThermal(top_oil_rise_k=45.0)}
    two = result(np.ones((2, 3, 2)), names=("T1", "T2"))
    aged = transformer_ageing(two, constants)
    assert aged["trafo_hot_spot_c"].values[0, 0] == pytest.approx([98.0, 88.0])
    cold = transformer_ageing(two, constants, start_load=0.0)
    assert (cold["trafo_hot_spot_c"].values[:, 0] < aged["trafo_hot_spot_c"].values[:, 0]).all()


def test_what_is_refused():
    with pytest.raises(ResultError, match="no trafo_loading"):
        transformer_ageing(xr.Dataset())
    with pytest.raises(ResultError, match="transformers without thermal constants: T1"):
        transformer_ageing(result(np.ones((2, 3, 1))), {"T2": ONAN})
    late = pd.Series([0.0, 1.0], index=pd.to_datetime(["2026-01-15T13:00", "2026-01-16T12:00"]))
    with pytest.raises(ResultError, match=r"covers 2026-01-15T13:00:00 .* must cover 2026-01-15T12:30:00"):
        transformer_ageing(result(np.ones((2, 3, 1))), ONAN, late)
    gap = pd.Series([0.0, np.nan], index=pd.to_datetime(["2026-01-15T12:00", "2026-01-16T12:00"]))
    with pytest.raises(ResultError, match="without gaps"):
        transformer_ageing(result(np.ones((2, 3, 1))), ONAN, gap)


def test_no_transformers():
    aged = transformer_ageing(result(np.ones((2, 3, 0)), names=()))
    assert aged["trafo_life_h"].shape == (2, 0)
