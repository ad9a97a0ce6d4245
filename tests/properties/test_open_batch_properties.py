"""A batch whose cases differ in anything: each keeps its own values; what a case has not is none."""

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evgrid
from evgrid.results import FORMAT, save_dataset

START = np.datetime64("2026-01-15T00:00", "ns")
BUSES = ["b1", "b2", "b3", "b4"]
DTYPES = ["float64", "float32", "int64", "int8", "bool", "str", "datetime64[ns]"]
NAMES = ["power", "loading", "count", "state", "label"]
DIMS = [("member", "time"), ("time",), ("member", "time", "bus"), ("bus",), ("member",), ("bus", "slot"), ()]


def none(value):
    return value == "" if isinstance(value, str) else bool(pd.isna(value))


def same(kept, own):
    """Whether a value is a case's own; as text where another case has another kind of value."""
    if isinstance(kept, str):
        own = str(np.asarray(own).astype(str))
    return kept == own or (none(kept) and none(own))


def numbers(seed, shape, dtype):
    random = np.random.default_rng(seed)
    if dtype == "str":
        return random.choice(["red", "a longer text", "x"], shape).astype(str) if shape else np.array("red")
    if dtype == "bool":
        return random.random(shape) < 0.5
    if dtype.startswith("datetime"):
        return START + random.integers(0, 10**6, shape).astype("timedelta64[s]")
    return random.integers(-100, 100, shape).astype(dtype)


@st.composite
def cases(draw):
    """One case as a Dataset that a run could have left."""
    buses = draw(st.lists(st.sampled_from(BUSES), max_size=4))  # in any order, also twice, also none
    hours = sorted(draw(st.sets(st.integers(0, 5), min_size=1, max_size=3)))
    members = draw(st.integers(1, 2))
    sizes = {"member": members, "time": len(hours), "bus": len(buses), "slot": draw(st.integers(1, 3))}
    data = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        dims = draw(st.sampled_from(DIMS))
        dtype = draw(st.sampled_from(DTYPES))
        values = numbers(draw(st.integers(0, 3)), tuple(sizes[d] for d in dims), dtype)
        data[name] = (dims, values, {"note": draw(st.sampled_from(["kW", "1"]))})
    coords = {
        "member": np.arange(members),
        "time": START + np.array(hours) * np.timedelta64(1, "h"),
        "bus": np.array(buses, "U2"),
    }
    if draw(st.booleans()):
        coords["bus_zone"] = ("bus", numbers(draw(st.integers(0, 2)), (len(buses),), "int64"))
    attrs = {
        "format": FORMAT,
        "name": "x",
        "scenario": "{}",
        "audit": "{}",
        "currency": draw(st.sampled_from("ab")),
    }
    return xr.Dataset(data, coords, attrs)


def folder_of(folder, parts):
    """A batch's folder with results as if they had been run: ``parts`` is (case, Dataset)."""
    (folder / "runs").mkdir()
    runs = []
    for number, (case, part) in enumerate(parts):
        run = {"id": f"{number:016x}", "case": case, "overrides": {"a.b": case}, "first": 0, "members": 1}
        runs.append(run)
        save_dataset(part, folder / "runs" / f"{run['id']}.nc")
    record = {"format": "evgrid-batch-1", "name": "mixed", "version": "0", "runs": runs}
    (folder / "batch.json").write_text(json.dumps(record))
    return folder


def places(labels):
    """Each label with how often it has been there before."""
    seen = {}
    for label in labels:
        seen[label] = seen.get(label, -1) + 1
        yield label, seen[label]


def cells(dataset, name):
    """Every value of a variable under its labels; without ``time`` or a label, under its position."""
    variable = dataset[name]
    keys = [
        list(places(dataset[d].values.tolist())) if d in dataset.coords else [(i, 0) for i in range(n)]
        for d, n in variable.sizes.items()
    ]
    for index in np.ndindex(variable.shape):
        yield (
            {d: keys[i][at] for i, (d, at) in enumerate(zip(variable.dims, index, strict=True))},
            variable.values[index],
        )


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(cases(), min_size=1, max_size=3))
def test_each_case_keeps_its_own_values_and_nothing_else(parts):
    with tempfile.TemporaryDirectory() as made, warnings.catch_warnings():
        warnings.simplefilter("error")
        with evgrid.open_batch(folder_of(Path(made), list(enumerate(parts)))) as whole:
            whole.load()
        assert whole["a.b"].values.tolist() == list(range(len(parts)))
        for name in {n for part in parts for n in part.variables} - {"member", "time", "bus"}:
            of_case = [
                whole[name].isel(case=i) if "case" in whole[name].dims else whole[name]
                for i in range(len(parts))
            ]
            for number, (part, found) in enumerate(zip(parts, of_case, strict=True)):
                together = whole.drop_vars(name).assign({"it": found.variable})
                got = [(key, value) for key, value in cells(together, "it")]
                own = list(cells(part, name)) if name in part else []
                for key, value in got:
                    mine = [v for k, v in own if all(key[d] == place for d, place in k.items())]
                    if not mine:
                        assert none(value), (name, number, key)
                    else:
                        assert same(value, mine[0]), (name, number, key)
                for key, _ in (
                    own if whole[name].size else []
                ):  # nothing is lost, but along what has no entries
                    assert any(all(k[d] == place for d, place in key.items()) for k, _ in got), (name, key)
        for number, part in enumerate(parts):
            kept = (
                whole["case_currency"].values[number] if "case_currency" in whole else whole.attrs["currency"]
            )
            assert kept == part.attrs["currency"]
            for name in part.data_vars:
                units = (
                    whole[f"{name}_note"].values[number]
                    if f"{name}_note" in whole
                    else whole[name].attrs["note"]
                )
                assert units == part[name].attrs["note"]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(), st.data())
def test_a_case_in_chunks_of_its_members_is_the_case(part, data):
    """Also where a variable is missing from a chunk, as that of an aggregator which has no EV in it."""
    chunks = [part.isel(member=[i]) for i in range(part.sizes["member"])]
    lost = data.draw(st.sampled_from([*(n for n in part.data_vars if "member" in part[n].dims), None]))
    if lost is not None and len(chunks) > 1:
        chunks[0] = chunks[0].drop_vars(lost)
    with (
        tempfile.TemporaryDirectory() as made,
        evgrid.open_batch(folder_of(Path(made), [(0, chunk) for chunk in chunks])) as whole,
    ):
        whole.load()
    assert whole["member"].values.tolist() == part["member"].values.tolist()
    for name in part.data_vars:
        if name not in whole:
            assert name == lost
            continue
        found = whole[name].isel(case=0) if "case" in whole[name].dims else whole[name]
        for key, value in cells(part, name):
            at = {
                d: label[0] if d == "slot" else list(places(part[d].values.tolist())).index(label)
                for d, label in key.items()
            }
            kept = found.isel(at).values[()]
            if name == lost and len(chunks) > 1 and at["member"] == 0:
                assert none(kept)
            else:
                assert kept == value


def test_a_variable_that_the_first_case_lacks_is_not_given_to_all(tmp_path):
    """An uncontrolled case has no set-points: the second's are 5 and 6 kW, the third's 7 and 8."""
    time = {"member": [0], "time": START + np.array([0, 1]) * np.timedelta64(1, "h")}
    attrs = {"format": FORMAT, "name": "x", "scenario": "{}", "audit": "{}"}
    parts = [xr.Dataset({"fleet_power_kw": (("member", "time"), [[1.0, 2.0]])}, time, attrs)]
    for kw in ([5.0, 6.0], [7.0, 8.0]):
        parts.append(xr.Dataset({"setpoint_kw": (("member", "time"), [kw])}, time, attrs))
    with evgrid.open_batch(folder_of(tmp_path, list(enumerate(parts)))) as whole:
        np.testing.assert_array_equal(
            whole["setpoint_kw"].isel(member=0), [[np.nan, np.nan], [5.0, 6.0], [7.0, 8.0]]
        )
        np.testing.assert_array_equal(whole["fleet_power_kw"].sel(case=1), [[np.nan, np.nan]])


def test_a_damaged_result_is_named_and_the_others_are_given(tmp_path):
    time = {"member": [0], "time": START + np.array([0, 1]) * np.timedelta64(1, "h")}
    attrs = {"format": FORMAT, "name": "x", "scenario": "{}", "audit": "{}"}
    parts = [xr.Dataset({"p": (("member", "time"), [[n, n]])}, time, attrs) for n in (1.0, 2.0, 3.0)]
    folder_of(tmp_path, list(enumerate(parts)))
    bad = tmp_path / "runs" / f"{1:016x}.nc"
    bad.write_bytes(bad.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match=f"1 of 3 results are left out: .*{bad.name} is damaged"):
        whole = evgrid.open_batch(tmp_path)
    assert whole["case"].values.tolist() == [0, 2]
    assert whole["p"].values[:, 0, 0].tolist() == [1.0, 3.0]
    assert bad.name in whole.attrs["damaged"][0]
    whole.close()
