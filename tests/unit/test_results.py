"""Results: averaging, streaming, atomic files, checksums, and what open_results refuses."""

import os
import pickle
import subprocess
import sys
import warnings

import netCDF4
import numpy as np
import pytest
import xarray as xr

from evgrid.core.model import Clock, Model, Variable
from evgrid.core.netcdf import NETCDF_LOCK, new_part, sealed
from evgrid.errors import ResultError
from evgrid.results import (
    FORMAT,
    FileStore,
    MemoryStore,
    ResultRecorder,
    open_netcdf,
    open_results,
    open_run,
    save_dataset,
)
from evgrid.results.recorder import blocks

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
    (tmp_path / "study" / "runs").mkdir(parents=True)
    (tmp_path / "study" / "batch.json").write_text("{}")
    xr.Dataset({"hours": 1}).to_netcdf(tmp_path / "study" / "runs" / "1f.nc")
    with pytest.raises(ResultError, match="1f.nc belongs to the study .*: give the folder"):
        open_results(tmp_path / "study" / "runs" / "1f.nc")


ATTRS = {"format": FORMAT, "name": "toy", "scenario": "{}", "audit": "{}"}


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.nc"
    made, store = recorder(10.0, 10.0, V, E, S, N, path=path)
    for tick in range(12):
        made.put("v", tick, np.random.default_rng(tick).random((1, 2, 3)))
        made.put("e", tick, np.ones((1, 4)))
    made.put_static("s", np.arange(4.0))
    made.put_static("n", np.arange(3))
    made.close()
    store.finish(ATTRS).close()
    return path


def test_every_flipped_byte_is_noticed(toy_file, tmp_path):
    whole = toy_file.read_bytes()
    path = tmp_path / "r.nc"
    random = np.random.default_rng(1)
    for place in [*random.integers(0, len(whole), 60).tolist(), *range(len(whole) - 40, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        with pytest.raises(ResultError, match="r.nc is (damaged|no NetCDF file)") as said:
            open_results(path)
        assert "\n" not in str(said.value)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 3000, -1000, -41, -40, -1])
def test_a_truncated_file_is_noticed(toy_file, tmp_path, kept):
    path = tmp_path / "r.nc"
    path.write_bytes(toy_file.read_bytes()[:kept])
    if kept == -40:  # as another program could have written it
        assert not sealed(path)
        open_results(path).close()
        return
    with pytest.raises(ResultError, match="r.nc is (empty|damaged|no NetCDF file)"):
        open_results(path)


def test_a_file_of_another_program_is_read_and_one_on_which_hdf5_fails_is_a_sentence(toy_file, tmp_path):
    path = tmp_path / "r.nc"
    with open_results(toy_file) as result:
        result.to_netcdf(path)
    assert not sealed(path)
    with open_run(path) as again:
        assert again.attrs["name"] == "toy"
    whole = bytearray(path.read_bytes())
    whole[2000:6000] = b"\xff" * 4000
    path.write_bytes(whole)
    with pytest.raises(ResultError, match="r.nc (is damaged|can't be read)"):
        open_results(path)


def test_other_programs_see_a_checksum_of_each_chunk_and_no_seal(toy_file):
    with netCDF4.Dataset(toy_file) as file:
        filters = file["v"].filters()
        assert filters["fletcher32"]
        assert filters["zlib"]
        assert "seal" not in file.ncattrs()


@pytest.mark.parametrize("members", [1, 3, 1000])
@pytest.mark.parametrize("row_bytes", [8, 11_000, 2**21])
@pytest.mark.parametrize("intervals", [1, 96, 10**6])
def test_what_is_written_at_once_is_whole_chunks(members, row_bytes, intervals):
    rows, together, times = blocks(members, intervals, row_bytes)
    assert rows % times == 0
    assert 1 <= rows <= intervals
    assert 1 <= together <= members
    assert rows == 1 or rows * members * row_bytes <= 16 * 2**20
    assert times * together == 1 or times * together * row_bytes <= 2**20


def test_parts_of_killed_runs_go_and_no_others(tmp_path):
    path = tmp_path / "r.nc"
    script = (
        "import os, sys; from pathlib import Path; from evgrid.core.netcdf import new_part\n"
        "new_part(Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    mine = new_part(tmp_path / "other.nc")  # another file's: the part of r.nc stays
    others = [
        tmp_path / name for name in (".r.nc.notes.part", ".r.nc.elsewhere-1-00000000.part", "r.nc.part")
    ]
    for other in others:
        other.touch()
    assert left.exists()
    part = new_part(path)
    assert not left.exists()
    assert part.exists()
    assert new_part(path) != part  # that of a living process stays
    assert part.exists()
    assert mine.exists()
    assert all(other.exists() for other in others)


def test_files_have_the_modes_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_dataset(xr.Dataset({"a": 1}), tmp_path / "a.nc")
    finally:
        os.umask(before)
    assert (tmp_path / "a.nc").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["r.png", "r.PDF", "r.yaml", "r.csv", "r.json", "r.py"])
def test_a_result_has_no_suffix_of_another_kind(tmp_path, name):
    with pytest.raises(
        ResultError, match=f"can't be written to .*{name}: .* no suffix of a NetCDF file; use .nc"
    ):
        FileStore(tmp_path / name, coordinates(10.0))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_result_is_not_overwritten(tmp_path):
    (tmp_path / "thesis").write_text("three years")
    with pytest.raises(ResultError, match="a file that is no result is there"):
        FileStore(tmp_path / "thesis", coordinates(10.0))
    assert (tmp_path / "thesis").read_text() == "three years"
    (tmp_path / "r.nc").touch()  # such as mktemp makes
    FileStore(tmp_path / "r.nc", coordinates(10.0)).abandon()


def test_open_run_refuses_a_study_and_what_lacks_the_rest(tmp_path):
    save_dataset(xr.Dataset({"a": 1}, attrs={"format": "evgrid-comparison-1"}), tmp_path / "study.nc")
    open_results(tmp_path / "study.nc").close()
    with pytest.raises(
        ResultError, match="study.nc is no result of a run: its format is evgrid-comparison-1"
    ):
        open_run(tmp_path / "study.nc")
    save_dataset(xr.Dataset({"a": 1}, attrs={"format": FORMAT}), tmp_path / "part.nc")
    with pytest.raises(
        ResultError, match="part.nc is no whole result: it has no scenario, name, audit, member, time"
    ):
        open_run(tmp_path / "part.nc")


def test_times_of_any_resolution_are_kept_without_a_warning(tmp_path):
    """A table of whole hours read from a file, and joined with times in between, has finer units."""
    hours = xr.Dataset(coords={"time": np.array(["2026-01-15T00", "2026-01-15T01"], "datetime64[ns]")})
    save_dataset(hours, tmp_path / "hours.nc")
    odd = np.array(["2026-01-15T00:00:00.000000001", "2026-01-15T00:07:30"], "datetime64[ns]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_netcdf(tmp_path / "hours.nc") as read:
            joined = xr.merge([read, xr.Dataset(coords={"time": odd})], join="outer")
            save_dataset(joined, tmp_path / "joined.nc")
            joined.to_netcdf(tmp_path / "by_hand.nc")
        for name in ("joined.nc", "by_hand.nc"):
            with open_netcdf(tmp_path / name) as again:
                assert set(odd) < set(again["time"].values)


def test_the_lock_is_one_reentrant_and_unpickled_as_itself():
    assert pickle.loads(pickle.dumps(NETCDF_LOCK)) is NETCDF_LOCK
    with NETCDF_LOCK, NETCDF_LOCK:
        assert NETCDF_LOCK.locked()
    assert not NETCDF_LOCK.locked()


THREADS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import xarray as xr
import evgrid
from evgrid.scenario import scenario_from

folder = Path(sys.argv[1])
scenario = scenario_from({
    "name": "tiny", "time": {"start": "2026-01-15T12:00", "duration": "30min", "step": "60s"},
    "feeder": {"network": "case33bw", "base_load": {"source": "net"}},
    "fleet": {"count": 5, "charger": {"phases": 3}},
})
evgrid.run(scenario, folder / "first.nc").close()
done = threading.Event()

def write(number):
    evgrid.run(scenario, folder / f"{number}.nc").close()

def read():
    kept = None
    while not done.is_set():
        with evgrid.open_results(folder / "first.nc") as result:
            assert float(result["voltage_pu"].max()) > 0.9
        kept = evgrid.open_results(folder / "first.nc")  # never closed: the garbage collector's

readers = [threading.Thread(target=read) for _ in range(2)]
for reader in readers:
    reader.start()
with ThreadPoolExecutor(2) as pool:
    list(pool.map(write, range(4)))
done.set()
for reader in readers:
    reader.join()
print("whole", len(list(folder.glob("?.nc"))))
"""


def test_threads_write_and_read_results_side_by_side(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", THREADS, str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["whole", "4"]
