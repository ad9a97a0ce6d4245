"""Results: averaging, streaming, atomic files, and what open_results refuses."""

import numpy as np
import pytest
import xarray as xr

from evgrid.errors import ResultError
from evgrid.model import Clock, Model, Variable
from evgrid.results import FORMAT, FileStore, MemoryStore, ResultRecorder, open_results

CLOCK = Clock(np.datetime64("2026-01-15T00:00"), 10.0, 12)
SIZES = {"member": 2, "bus": 3, "ev": 4}


class Toy(Model):
    name = "fleet"

    def __init__(self, period_s, *variables):
        self.period_s, self.variables = period_s, variables

    def step(self, time_s, inputs):
        return {}


def coordinates(record_step_s):
    count = round(CLOCK.duration_s / record_step_s)
    return xr.Dataset(
        coords={
            "member": [0, 1],
            "time": CLOCK.timestamps(np.arange(count) * record_step_s),
            "bus": ["x", "y", "z"],
            "ev": np.arange(4),
            "ev_name": ("ev", ["a", "b", "c", "d"]),
            "ev_here": ("ev", [True, False, True, True]),
        }
    )


def recorder(record_step_s, period_s, *variables, path=None):
    store = (
        MemoryStore(coordinates(record_step_s))
        if path is None
        else FileStore(path, coordinates(record_step_s))
    )
    made = ResultRecorder(CLOCK, record_step_s, SIZES, store)
    made.register([Toy(period_s, *variables)])
    return made, store


V = Variable("v", ("member", "bus"), "pu", "a voltage")
E = Variable("e", ("ev",), "kW", "a power")
S = Variable("s", ("ev",), "kWh", "an energy", timed=False)
N = Variable("n", ("bus",), "1", "a number", timed=False, dtype="int64")


def test_values_land_at_their_time_member_first():
    made, store = recorder(10.0, 10.0, V, E, S)
    values = np.arange(12 * 6.0).reshape(12, 2, 3)
    made.put("v", 0, values[:5])
    made.put("v", 5, values[5:])
    for tick in range(12):
        made.put("e", tick, np.full((1, 4), tick))
    made.put_static("s", np.arange(4.0))
    made.close()
    result = store.finish({})
    assert result["v"].dims == ("member", "time", "bus")
    np.testing.assert_array_equal(result["v"].transpose("time", "member", "bus"), values)
    np.testing.assert_array_equal(result["e"].isel(ev=0), np.arange(12))
    assert result["v"].attrs == {"long_name": "a voltage", "units": "pu"}


def test_a_longer_recording_interval_holds_means():
    made, store = recorder(30.0, 10.0, E)
    for tick in range(12):
        made.put("e", tick, np.full((1, 4), tick, float))
    made.close()
    np.testing.assert_array_equal(store.finish({})["e"].isel(ev=2), [1, 4, 7, 10])


def test_a_slower_model_records_at_its_own_period():
    made, store = recorder(20.0, 20.0, E)
    made.put("e", 0, np.zeros((1, 4)))
    with pytest.raises(ValueError, match="e at tick 3 .* expected step 1"):
        made.put("e", 3, np.zeros((1, 4)))
    made.put("e", 2, np.ones((5, 4)))
    made.close()
    np.testing.assert_array_equal(store.finish({})["e"].isel(ev=0), [0, 1, 1, 1, 1, 1])


def test_wrong_shapes_are_our_own_mistake():
    made, _ = recorder(10.0, 10.0, V, S)
    with pytest.raises(ValueError, match="v at tick 0"):
        made.put("v", 0, np.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match=r"s has shape \(3,\), must be \(4,\)"):
        made.put_static("s", np.zeros(3))


def test_a_file_equals_memory_and_appears_only_when_whole(tmp_path):
    path = tmp_path / "deep" / "r.nc"
    results = []
    for target in (None, path):
        made, store = recorder(10.0, 10.0, V, E, S, N, path=target)
        for tick in range(12):
            made.put("v", tick, np.full((1, 2, 3), tick / 7))
            made.put("e", tick, np.full((1, 4), np.nan if tick < 2 else tick))
        made.put_static("s", np.arange(4.0))
        made.put_static("n", np.array([0, 1, -1]))
        made.close()
        assert not path.exists()
        results.append(store.finish({"format": FORMAT, "name": "toy"}))
    memory, file = results
    xr.testing.assert_identical(memory, file.load())
    file.close()
    assert [p.name for p in path.parent.iterdir()] == ["r.nc"]
    again = open_results(path)
    assert again["n"].dtype == np.int64
    assert "ev_name" in again.coords
    assert again["ev_here"].dtype == bool
    assert again["time"].values[1] - again["time"].values[0] == np.timedelta64(10, "s")


def test_an_abandoned_file_leaves_nothing(tmp_path):
    made, store = recorder(10.0, 10.0, V, path=tmp_path / "r.nc")
    made.put("v", 0, np.zeros((12, 2, 3)))
    store.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match="can't be written to .*file/r.nc"):
        FileStore(tmp_path / "file" / "r.nc", coordinates(10.0))
    with pytest.raises(ResultError, match="can't be written to .*: it is a folder"):
        FileStore(tmp_path, coordinates(10.0))


def test_open_results_refuses_what_is_no_result(tmp_path):
    with pytest.raises(ResultError, match="there is no result .*none.nc"):
        open_results(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(ResultError, match="text.nc is no NetCDF file"):
        open_results(tmp_path / "text.nc")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ResultError, match="other.nc is no result of evgrid"):
        open_results(tmp_path / "other.nc")
