"""Runs with sites like all others: chosen records, chunks, ensembles, batches, overrides, iteration."""

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import evgrid
from evgrid.cli import main
from evgrid.results import recorder
from evgrid.results.metrics import summary
from evgrid.results.plots import plot_result, plot_site_storage, plot_sites
from evgrid.results.recording import unrecorded
from evgrid.runs.batch.reading import _case, _sites_by_name
from evgrid.scenario import load_scenario, scenario_from

HOMES = {
    "connections": {"share": 0.3}, "critical": {"share": 0.4}, "backup": "critical",
    "battery": {"capacity_kwh": 5, "charge_kw": 2}, "control": "self_consumption",
}  # fmt: skip
BASE = {
    "name": "homes",
    "time": {"start": "2026-01-15T17:00", "duration": "2h", "step": "5min"},
    "ensemble": {"members": 3, "seed": 3},
    "feeder": {"network": "cigre_lv", "base_load": {"source": "standard"}, "households": {"kw_each": 5}},
    "sites": {"homes": HOMES},
    "outages": [{"start": "1h", "duration": "30min", "out": "feeder"}],
}


def run(output=None, **changes):
    return evgrid.run(scenario_from(BASE | changes), output)


def member(number, members=1):
    return run(ensemble={"first": number, "members": members, "seed": 3})


def of_member(result, number):
    """The sites of a member and their own variables."""
    names = [name for name in result.data_vars if "site" in result[name].dims]
    return result[names].isel(site=np.flatnonzero(result["site_member"].values == number))


@pytest.fixture(scope="module")
def everything():
    return run()


def test_a_member_has_the_same_sites_alone(everything):
    drawn = [of_member(everything, number)["site_name"].values.tolist() for number in range(3)]
    assert len({tuple(names) for names in drawn}) > 1
    alone, among = of_member(member(1), 1), of_member(everything, 1)
    xr.testing.assert_equal(alone.drop_vars("site"), among.drop_vars("site"))


def test_sites_are_recorded_in_chunks(everything, monkeypatch, tmp_path):
    monkeypatch.setattr(recorder, "_BUFFER_BYTES", 2000)
    with run(tmp_path / "r.nc") as chunked:
        for name in ("site_power_kw", "site_battery_soc", "site_island", "site_served_kwh"):
            np.testing.assert_array_equal(chunked[name], everything[name])


def test_iterated_and_lagged_coupling_have_the_same_sites():
    """A village whose PV inverters respond to the voltage around noon; its sites do not."""
    overrides = {
        "fleet": None, "aggregators.main": None, "time": {"start": "2026-05-17T12:00", "duration": "1h"},
        "sites": {"homes": HOMES}, "record.buses": "none", "record.lines": "none",
    }  # fmt: skip
    village = "scenarios/renewable_surplus_uncontrolled.yaml"
    lagged, iterated = (
        evgrid.run(load_scenario(village, {**overrides, "coupling": coupling}))
        for coupling in ("lagged", "iterated")
    )
    assert float(iterated["pv_coupling_iterations"].max()) > 2
    assert iterated.attrs["unconverged_members"] == "{}"
    np.testing.assert_array_equal(iterated["site_power_kw"], lagged["site_power_kw"])
    assert float(iterated["pv_power_kw"].sum()) != float(lagged["pv_power_kw"].sum())


def test_a_site_without_sources_picks_up_cold_as_a_connection_does():
    cold = {"schedule": BASE["outages"], "cold_load": {"factor": 2.5, "duration": "20min"}}
    bare, sites = (run(outages=cold, sites=given) for given in ({}, {"homes": {"connections": "all"}}))
    for name in ("head_power_kw", "head_reactive_kvar"):
        np.testing.assert_allclose(sites[name], bare[name], rtol=1e-9, atol=1e-9)
    head = bare["head_power_kw"].sum("phase").isel(member=0).values
    assert head[18] > 1.8 * head[23]


def test_some_sites_are_recorded(everything):
    names = everything["site_name"].values
    chosen = [str(names[0]), str(names[-1])]
    some = run(record={"sites": chosen})
    rows = np.flatnonzero(np.isin(names, chosen))
    assert some["site_name"].values.tolist() == names[rows].tolist()
    for name in ("site_power_kw", "site_served_kwh", "site_battery_soc"):
        np.testing.assert_array_equal(some[name], everything[name].isel(site=rows))
    np.testing.assert_array_equal(some["head_power_kw"], everything["head_power_kw"])
    part = f"{len(rows)} of {len(names)} recorded"
    assert unrecorded(some, "site") == part
    assert part in dict(summary(some))["sites homes"]


def test_no_site_is_recorded_over_time(everything):
    none = run(record={"sites": "none"})
    assert not [name for name in none.data_vars if {"site", "time"} <= set(none[name].dims)]
    np.testing.assert_array_equal(none["site_served_kwh"], everything["site_served_kwh"])
    assert dict(summary(none))["sites homes"] == dict(summary(everything))["sites homes"]
    assert not [ax for ax in plot_result(none).axes if "Supply" in ax.get_title()]


def test_a_site_that_only_other_members_have(everything):
    theirs = {str(name) for name in everything["site_name"].values}
    mine = of_member(everything, 0)["site_name"].values
    absent = sorted(theirs - set(mine.tolist()))
    none = run(record={"sites": absent[:1]}, ensemble={"members": 1, "seed": 3})
    assert none.sizes["site"] == 0
    with pytest.raises(evgrid.ScenarioError, match="record.sites = nowhere: the scenario has no such site"):
        run(record={"sites": ["nowhere"]})


def test_a_batch_has_sites_by_member_and_name(everything):
    chunks = [_sites_by_name(part) for part in (member(0, 2), member(2))]
    case = _case(chunks)
    assert case["site_power_kw"].dims == ("member", "time", "site")
    for number in range(3):
        own = of_member(everything, number)
        there = case.sel(member=number, site=own["site_name"].values)
        np.testing.assert_array_equal(there["site_power_kw"], own["site_power_kw"])
        np.testing.assert_array_equal(there["site_served_kwh"], own["site_served_kwh"])
        assert (there["site_group"] == "homes").all()
        others = case.sel(member=number).drop_sel(site=own["site_name"].values)
        assert others["site_served_kwh"].isnull().all()
        assert (others["site_group"] == "").all()


def test_settings_of_sites_are_overridden(tmp_path):
    (tmp_path / "base.yaml").write_text(json.dumps(BASE | {"ensemble": {"members": 1}}))
    shop = {"connections": ["Load C1"], "load": {"kw": 2}}
    over = {"extends": "base.yaml", "sites": {"homes": {"battery": {"charge_kw": 1}}, "shop": shop}}
    (tmp_path / "over.yaml").write_text(json.dumps(over))
    done = CliRunner().invoke(
        main, ["run", str(tmp_path / "over.yaml"), "-o", str(tmp_path / "r.nc"), "--no-plot",
               "--set", "sites.homes.battery.capacity_kwh=9", "--set", "sites.homes.control=requests"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    with evgrid.open_results(tmp_path / "r.nc") as result:
        homes = json.loads(result.attrs["scenario"])["sites"]["homes"]
        assert homes["battery"]["capacity_kwh"], homes["battery"]["charge_kw"] == (9, 1)
        assert homes["control"]["strategy"] == "requests"
        assert set(result["site_group"].values) == {"homes", "shop"}


def test_the_picture_has_the_sites(everything):
    figure = plot_result(everything)
    titles = [ax.get_title() for ax in figure.axes]
    assert "Supply of 4 sites, mean of the members" in titles
    assert "Stores of the sites" in titles
    ax = plot_sites(everything, figure.add_subplot())
    labels = ax.get_legend_handles_labels()[1]
    assert set(labels) == {
        "grid", "batteries", "load not served", "load served", "its 5–95 %", "sites without grid (share)"
    }  # fmt: skip
    (served,) = ax.lines[:1]
    np.testing.assert_allclose(served.get_ydata()[:-1], everything["site_load_kw"].sum("site").values / 3)
    areas = [area for area in ax.collections if area.get_label() == "grid"]
    drawn = everything["site_power_kw"].clip(min=0).sum("site").values / 3
    assert areas[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(drawn.max())
    plot_site_storage(everything, ax)
    with pytest.raises(evgrid.EvgridError, match="the result has no site_power_kw"):
        plot_sites(everything.drop_vars("site_power_kw"), ax)
