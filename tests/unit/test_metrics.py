"""Key figures of a result, worked by hand."""

import numpy as np
import pytest
import xarray as xr

import evgrid
from evgrid.results.metrics import _product_rows, _session_rows, session_quantiles, summary


def sessions(**extra):
    """Five sessions of two types, the last not complete."""
    values = {
        "session_energy_unserved_kwh": [0.0, 1.0, 2.0, 0.0, np.nan],
        "session_soc_departure": [0.9, 0.8, 0.7, 0.6, 0.1],
        **extra,
    }
    data = {name: ("session", np.array(numbers), {"units": "kWh"}) for name, numbers in values.items()}
    coords = {
        "session_vehicle": ("session", np.array(["van", "van", "van", "bus", "bus"])),
        "session_complete": ("session", np.array([True] * 4 + [False])),
    }
    return xr.Dataset({**data, "fleet_power_kw": ("time", np.zeros(3))}, coords)


def test_quantiles_by_type_of_vehicle_are_those_of_complete_sessions():
    table = session_quantiles(sessions(), (0.0, 0.5, 0.75)).set_index(["vehicle", "outcome"])
    assert list(table.index) == [
        ("bus", "energy_unserved_kwh"), ("bus", "soc_departure"),
        ("van", "energy_unserved_kwh"), ("van", "soc_departure"),
    ]  # fmt: skip
    assert table.loc[("van", "energy_unserved_kwh"), [0.0, 0.5, 0.75]].tolist() == [0.0, 1.0, 1.5]
    assert table.loc[("van", "soc_departure"), 0.5] == pytest.approx(0.8)
    assert table.loc[("bus", "soc_departure"), [0.0, 0.5]].tolist() == [0.6, 0.6]
    assert table["sessions"].tolist() == [1, 1, 3, 3]
    assert set(table["unit"]) == {"kWh"}


def test_quantiles_of_what_no_session_has_are_nan():
    table = session_quantiles(sessions(session_cost=[np.nan] * 5)).set_index(["vehicle", "outcome"])
    assert table.loc[("van", "cost"), "sessions"] == 0
    assert np.isnan(table.loc[("van", "cost"), 0.5])


def test_the_summary_tells_each_type_and_what_was_refused():
    refused = {"session_discharge_refused_driver_kwh": [1.0, 0.5, 0, 0, 0],
               "session_discharge_refused_floor_kwh": [0.0] * 5}  # fmt: skip
    rows = dict(_session_rows(sessions(**refused), np.array([True] * 4 + [False])))
    assert rows["sessions of van"] == (
        "SOC at departure 0.71 (5 %), 0.80 (median); unserved 1.00 kWh (median), 1.90 (95 %), "
        "66.7 % of 3 with energy unserved"
    )
    assert rows["discharge refused"] == "driver 1.5 kWh"


def test_a_result_that_lost_a_variable_is_reported():
    result = evgrid.run(
        {
            "name": "small", "time": {"start": "2026-01-15T18:00", "duration": "30min", "step": "15min"},
            "feeder": {"network": "european_lv"}, "fleet": {"count": 2},
        }
    )  # fmt: skip
    with pytest.raises(
        evgrid.EvgridError, match="the result is incomplete: no variable named 'session_cost'"
    ):
        summary(result.drop_vars("session_cost"))


def test_what_aggregators_sell_is_told():
    hourly = {
        "regulation_capacity_kw_north": [[100.0, 0.0], [300.0, 200.0]],
        "regulation_score_north": [[0.9, np.nan], [0.7, 0.8]],
        "regulation_credit_north": [[4.0, 0.0], [6.0, 2.5]],
        "reserve_capacity_kw": [[50.0, 50.0], [50.0, 50.0]],
        "reserve_required_kwh": [[2.0, 0.0], [2.0, 4.0]],
        "reserve_delivered_kwh": [[2.0, 0.0], [1.0, 3.0]],
        "reserve_credit": [[1.0, 1.0], [1.0, 1.0]],
        "regulation_capacity_kw_south": [[0.0, 0.0], [0.0, 0.0]],
    }
    result = xr.Dataset({name: (("member", "hour"), values) for name, values in hourly.items()})
    rows = dict(_product_rows(result.assign_attrs(currency="USD"), " a member"))
    assert rows == {
        "regulation of north": "200.0 kW in 75 % of the hours; score 0.800, lowest 0.700; "
        "credit 6.25 USD a member",
        "reserve": "50.0 kW in 100 % of the hours; 75.0 % of the energy asked for delivered; "
        "credit 2.00 USD a member",
        "regulation of south": "no capacity was offered in a whole hour",
    }
