"""The study of resilience: figures worked by hand, and what it refuses."""

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import evgrid
from evgrid.cli import main
from evgrid.errors import ScenarioError
from evgrid.results.metrics import reliability
from evgrid.runs.simulation import build_world
from evgrid.sites.normal_times import energy_in_normal_times
from evgrid.sites.survival import survival_hours
from evgrid.studies.reading import load_study
from evgrid.studies.resilience import Resilience, run_study
from evgrid.studies.resilience_indices import expected_kwh, interruption_of
from evgrid.studies.resilience_output import draw, figures_table, sites_table, variants_table
from evgrid.studies.resilience_sites import sites_by_part

HEADER = (
    "ev,connection,arrival,departure,soc_arrival,soc_target,capacity_kwh,charge_kw,discharge_kw,soc_floor,"
    "discharge_efficiency\n"
)
TRUCK = "truck{},{},0,864000,1,1,131,9.6,9.6,0.2,0.9\n"
HOUSE = {"load": {"kw": 2.5}, "critical": {"kw": 1.25}, "backup": "critical"}
CABIN = {"connections": "none", "load": {"kw": 1}, "battery": {"capacity_kwh": 1, "charge_kw": 1}}


def study_of(folder, sites, sessions=None, scenario=None, **settings):
    """A study of a scenario on CIGRE's LV network over 6 days."""
    content = {
        "name": "case", "time": {"start": "2026-03-30T00:00", "duration": "144h", "step": "1h"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "sites": sites, **(scenario or {}),
    }  # fmt: skip
    if sessions is not None:
        (folder / "sessions.csv").write_text(HEADER + sessions)
        content["fleet"] = {"sessions": {"file": "sessions.csv"}, "charger": {"phases": 3}}
    (folder / "case.yaml").write_text(json.dumps(content))
    return load_study(folder / "case.yaml", Resilience, "resilience", **settings)


def truck(connection="Load R15", number=1):
    """A row of the session file: a truck of 131 kWh that is always plugged in."""
    return TRUCK.format(number, connection)


def test_a_truck_carries_a_house(tmp_path):
    house = {"connections": ["Load R15"], **HOUSE}
    durations = (3600, 75 * 3600, 76 * 3600)
    settings = {"horizon": 100 * 3600, "durations": durations, "saifi": 2.0, "caidi": 20 * 3600}
    study = study_of(tmp_path, {"homes": house}, truck(), **settings)
    result = run_study(study)
    assert result["variant"].values.tolist() == ["everything", "EVs stay"]  # it does so anyway
    for kind in ("mean", "min", "max"):
        np.testing.assert_allclose(result[f"hours_{kind}"], 75.456, rtol=1e-6)
    share = result["probability"].sel(variant="everything", group="homes")
    assert (share.sel(duration=slice(None, 75)) == 1).all()
    assert (share.sel(duration=slice(76, None)) == 0).all()
    left = np.exp(-75.456 / 20)
    for name, expected in {
        "saifi_meter": 2.0, "saidi_meter_h": 40.0, "caidi_meter_h": 20.0, "saifi_socket": 2 * left,
        "saidi_socket_h": 40 * left, "caidi_socket_h": 20.0, "unserved_meter_kwh": 2.5 * 40,
        "unserved_critical_kwh": 1.25 * 40, "unserved_socket_kwh": 1.25 * 40 * left,
    }.items():  # fmt: skip
        np.testing.assert_allclose(result[name], expected, rtol=1e-5, err_msg=name)
    months = result["hours_mean_by_month"].sel(variant="everything", group="all")
    assert months["month"].values[months.notnull().values].tolist() == [3, 4]
    by_hour = result["probability_by_hour"].sel(variant="everything", group="all")
    assert by_hour.values.tolist() == [[1, 1, 0]] * 24


def test_reopts_rule_counts_whole_slots(tmp_path):
    study = study_of(tmp_path, {"homes": {"connections": ["Load R15"], **HOUSE}}, truck(), rule="reopt")
    # no loss on the way out by REopt's rule: 104.8 kWh of 1.25 kW
    np.testing.assert_allclose(run_study(study)["hours_mean"], 83.0)


def test_slots_of_a_quarter_of_an_hour(tmp_path):
    study = study_of(
        tmp_path, {"homes": {"connections": ["Load R15"], **HOUSE}}, truck(), slot=900, rule="reopt"
    )
    np.testing.assert_allclose(run_study(study)["hours_mean"], 83.75)


def test_with_and_without_each_source(tmp_path):
    sites = {
        "homes": {"connections": ["Load R15", "Load R16"], **HOUSE, "battery": {
            "capacity_kwh": 12.5, "charge_kw": 5, "discharge_efficiency": 1, "soc_start": 1, "soc_min": 0}},
        "shop": {"connections": ["Load C12"], **HOUSE, "backup": "whole",
                 "generator": {"power_kw": 2.5, "fuel_hours": 8}},
        "none": {"connections": ["Load C13"], "load": {"kw": 1}, "critical": {"share": 1}},
        "cabin": CABIN,
    }  # fmt: skip
    trucks = truck("Load R16", 1) + truck("Load R16", 2)
    result = run_study(study_of(tmp_path, sites, trucks))
    assert result["group"].values.tolist() == [
        "all",
        "homes",
        "shop",
        "none",
    ]  # none off grid: it has no outages
    hours = result["site_hours_mean"].assign_coords(site=result["site_name"].values)
    expected = {
        "everything": (10, 10 + 2 * 75.456, 16, 0), "EVs stay": (10, 10 + 2 * 75.456, 16, 0),
        "without EVs": (10, 10, 16, 0),
        "without battery": (0, 2 * 75.456, 16, 0), "without generator": (10, 10 + 2 * 75.456, 0, 0),
        "one EV a site": (10, 10 + 75.456, 16, 0), "EVs only": (0, 2 * 75.456, 0, 0),
    }  # fmt: skip
    assert set(result["variant"].values) == set(expected)
    for variant, by_site in expected.items():
        mine = hours.sel(variant=variant, site=["Load R15", "Load R16", "Load C12", "Load C13"])
        np.testing.assert_allclose(mine, by_site, rtol=1e-6, err_msg=variant)
    mean = result["hours_mean"].sel(variant="everything")
    np.testing.assert_allclose(mean.sel(group="homes"), (20 + 2 * 75.456) / 2, rtol=1e-6)
    np.testing.assert_allclose(mean.sel(group="all"), (36 + 2 * 75.456) / 4, rtol=1e-6)
    assert (result["probability_together"] == 0).all()


def test_own_variants(tmp_path):
    house = {"connections": ["Load R15"], **HOUSE}
    study = study_of(tmp_path, {"homes": house}, truck(), variants={"nothing": (), "EVs": ("ev",)})
    assert run_study(study)["hours_mean"].sel(group="all").values == pytest.approx([0, 75.456])


def test_an_ev_that_is_away_by_day(tmp_path):
    times = ((86400 * day + 18 * 3600, 86400 * day + 32 * 3600) for day in range(5))
    days = "".join(f"car,Load R15,{come},{leave},0.5,0.5,40,7.2,5,0,1\n" for come, leave in times)
    house = {"connections": ["Load R15"], "load": {"kw": 1}, "critical": {"share": 1}, "backup": "critical"}
    result = run_study(study_of(tmp_path, {"homes": house}, days))
    by_hour = result["hours_mean_by_hour"].sel(variant="everything", group="all").values
    assert (by_hour[8:18] == 0).all()
    # from 18:00 on until 8:00, in five of six days
    np.testing.assert_allclose(by_hour[18:], 5 / 6 * (32 - np.arange(18, 24)), rtol=1e-6)
    stay = result["hours_mean_by_hour"].sel(variant="EVs stay", group="all").values
    np.testing.assert_allclose(stay[18:], 5 / 6 * 20, rtol=1e-6)  # 20 kWh of 1 kW


def test_members_are_the_same_by_themselves(tmp_path):
    sites = {"homes": {"connections": {"share": 0.5}, **HOUSE, "control": "self_consumption"}}
    fleet = {
        "feeder": {"network": "cigre_lv", "base_load": {"source": "standard"}, "households": {"kw_each": 5}},
        "fleet": {"penetration": 1.0, "sessions": "home", "charger": {"phases": 3, "bidirectional": 1}},
        "ensemble": {"members": 2, "seed": 3},
    }
    both = run_study(study_of(tmp_path, sites, scenario=fleet))
    fleet["ensemble"] = {"members": 1, "first": 1, "seed": 3}
    second = run_study(study_of(tmp_path, sites, scenario=fleet))
    mine = both.isel(site=both["site_member"].values == 1)
    np.testing.assert_array_equal(mine["site_hours_mean"], second["site_hours_mean"])
    assert 0 < float(both["hours_mean"].max()) < 336


def test_what_a_reserve_costs_and_buys(tmp_path):
    """1 kW from a battery that cheap hours fill and dear ones empty: the more it holds, the less it saves."""
    (tmp_path / "prices.csv").write_text(
        "time,price\n" + "".join(f"{43200 * k},{[100, 400][k % 2]}\n" for k in range(12))
    )
    house = {
        "connections": ["Load R15"], "load": {"kw": 1}, "critical": {"share": 1}, "backup": "critical",
        "control": "self_consumption",
        "battery": {"capacity_kwh": 10, "charge_kw": 10, "charge_efficiency": 1, "discharge_efficiency": 1,
                    "soc_min": 0, "soc_start": 0.5},
    }  # fmt: skip
    system = {"energy_price": {"file": "prices.csv", "currency": "EUR"}}
    study = study_of(tmp_path, {"homes": house}, scenario={"system": system}, reserves=(0.0, 0.4, 1.0),
                     wear_per_kwh=0.05, durations=(3600 * 4,))  # fmt: skip
    result = run_study(study)
    per_year = 8760 / 144
    given = 6 * np.array([10, 6, 0])  # in six times 12 h
    charged = 5 + 5 / 6 * given
    cost = 0.1 * (72 + charged) + 0.4 * (72 - given) + 0.05 * given
    np.testing.assert_allclose(result["reserve_from_stores_kwh"], per_year * given)
    np.testing.assert_allclose(result["reserve_drawn_kwh"], per_year * (144 + charged - given))
    np.testing.assert_allclose(result["reserve_cost"], per_year * cost)
    assert (np.diff(result["reserve_hours_mean"]) > 0).all()
    assert result["reserve_probability"].values[-1] == 1


def test_energy_of_interruptions_against_drawn_durations():
    """The closed form against the integral over durations, of a load that changes by the slot."""
    rng = np.random.default_rng(2)
    slots, caidi_h, slot_h = 48, 3.0, 0.5
    critical, hours = rng.uniform(0, 2, (1, slots)), rng.uniform(0, 6, (slots, 1)).astype(np.float32)
    step = 1e-3
    until = np.arange(0, 60, step) + step / 2
    power = critical[
        0, ((until[np.newaxis] + slot_h * np.arange(slots)[:, np.newaxis]) // slot_h).astype(int) % slots
    ]
    alive = np.exp(-until / caidi_h) * step  # probability that the outage lasts so long
    cut, kwh = interruption_of(hours, caidi_h, slot_h, critical)
    assert kwh[0] == pytest.approx(
        np.mean([(p * alive)[until > h].sum() for p, h in zip(power, hours[:, 0], strict=True)]), rel=1e-3
    )
    assert cut[0] == pytest.approx(np.exp(-hours / caidi_h).mean())
    np.testing.assert_allclose(
        expected_kwh(critical, slot_h, caidi_h)[0], (power * alive).sum(axis=1), rtol=1e-3
    )


def test_a_schedule_is_replayed(tmp_path):
    """75.456 h of each outage are served at the socket, whenever it starts; short ones don't count."""
    house = {"connections": ["Load R15", "Load R16"], **HOUSE}
    outages = [
        {"start": "10h30min", "duration": "100h", "out": {"connections": ["Load R15"]}},
        {"start": "1h15min", "duration": "4min", "out": "feeder"},
        {"start": "113h", "duration": "90h", "out": "feeder"},  # 31 h of it within the run
    ]
    given = {"scenario": {"outages": outages}, "reserves": ()}
    result = run_study(study_of(tmp_path, {"homes": house}, truck() + truck("Load R16", 2), **given))
    assert result.attrs["indices_per"] == "period"
    unmet = 100 - 75.456
    of_all = result.sel(group="all", variant="everything")
    for name, expected in {
        "saifi_meter": 1.5, "saidi_meter_h": (100 + 2 * 31) / 2, "caidi_meter_h": 162 / 3,
        "saifi_socket": 0.5, "saidi_socket_h": unmet / 2, "caidi_socket_h": unmet,
        "unserved_meter_kwh": 2.5 * (81 + 4 / 60), "unserved_critical_kwh": 1.25 * (81 + 4 / 60),
        "unserved_socket_kwh": 1.25 * unmet / 2,
    }.items():  # fmt: skip
        np.testing.assert_allclose(of_all[name], expected, rtol=1e-6, err_msg=name)
    table = variants_table(result)
    row = "critical load not served (kWh a site and period)"
    assert table.loc[row, "everything"] == f"{0.625 * unmet:.3g}"


def test_rates_of_elements_are_drawn_by_member(tmp_path):
    """At the meter the same as in runs of the scenario, by their own indices; at the socket no more."""
    battery = {"capacity_kwh": 1.5, "charge_kw": 5, "soc_start": 1}
    homes = {"connections": "all", "critical": {"share": 0.4}, "backup": "critical", "battery": battery}
    scenario = {
        "feeder": {"network": "cigre_lv", "base_load": {"source": "standard"}},
        "outages": {"rates": {"line": 200, "trafo": 20}, "repair": {"line": "9h", "trafo": "15h"}},
        "ensemble": {"members": 2, "seed": 4},
    }  # fmt: skip
    study = study_of(tmp_path, {"homes": homes}, scenario=scenario, slot=900, reserves=())
    found = run_study(study).sel(group="all")
    run = evgrid.run(study.base())
    indices = reliability(run)
    assert float(found["saifi_meter"]) > 0.5
    assert float(found["saifi_meter"]) == pytest.approx(float(indices["saifi"].mean()))
    assert float(found["saidi_meter_h"]) == pytest.approx(float(indices["saidi_min"].mean()) / 60)
    not_served_kwh = float(indices["not_served_kwh"].mean()) / run.sizes["connection"]
    assert float(found["unserved_meter_kwh"]) == pytest.approx(not_served_kwh)
    socket = found.sel(variant="everything")
    assert 0 < socket["saidi_socket_h"] < found["saidi_meter_h"]
    assert 0 < socket["unserved_socket_kwh"] < 0.4 * found["unserved_meter_kwh"]


def test_the_studys_indices_win_over_the_scenarios(tmp_path):
    outages = {"outages": [{"start": 0, "duration": "9h", "out": "feeder"}]}
    house = {"homes": {"connections": ["Load R15"], **HOUSE}}
    result = run_study(study_of(tmp_path, house, truck(), outages, saifi=1.0, caidi=3600))
    assert result.attrs["indices_per"] == "year"
    assert float(result["saidi_meter_h"].sel(group="all")) == 1


@pytest.mark.parametrize(
    ("sites", "settings", "message"),
    [
        ({}, {}, "sites: is required: a study of resilience is one of sites on the grid"),
        ({"cabin": CABIN}, {}, "sites: is required"),
        ({"homes": {"connections": "all"}}, {"slot": 3500}, "slot = 3500s: must divide the scenario's"),
        ({"homes": {"connections": "all"}}, {"horizon": 3600}, "at most horizon = 3600s, not 259200s"),
        ({"homes": {"connections": "all"}}, {"saifi": 1.0}, "give both saifi and caidi, or neither"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, sites, settings, message):
    with pytest.raises(ScenarioError, match=message):
        study_of(tmp_path, sites, **settings).plans()


def test_order_is_asked_for(tmp_path):
    with pytest.raises(ScenarioError, match="durations: must be ascending"):
        study_of(tmp_path, {"homes": {"connections": "all"}}, durations=(7200, 3600))


def test_command_writes_tables_and_a_picture(tmp_path):
    study_of(tmp_path, {"homes": {"connections": ["Load R15"], **HOUSE}}, truck())
    done = CliRunner().invoke(
        main, ["study", "resilience", str(tmp_path / "case.yaml"), "-o", str(tmp_path / "out"), "--saifi",
               "1", "--caidi", "2h", "--horizon", "4d", "--slot", "2h", "--rule", "exact"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"study.nc", "survival.csv", "figures.csv", "sites.csv", "reserve.csv", "study.png"}
    with xr.open_dataset(tmp_path / "out" / "study.nc") as saved:
        assert saved.sizes["duration"] == 48
        table = variants_table(saved)
        assert table.loc["hours survived, mean", "everything"] == "75.5"
        assert table.loc["SAIFI at the meter", "everything"] == "1"
        assert len(figures_table(saved)) == 2 * 2 * 7 + 2 * 5  # variants and groups; and at the meters
        assert sites_table(saved)["site_hours_mean"].tolist() == pytest.approx(2 * [75.456])
        titles = [ax.get_title() for ax in draw(saved).axes]
    assert "What a reserve (marked) costs and buys" in titles


@pytest.mark.slow
def test_members_are_shared_among_processes(tmp_path):
    homes = {
        "homes": {"connections": {"share": 0.5}, **HOUSE, "battery": {"capacity_kwh": 3, "charge_kw": 2}}
    }
    outages = {"outages": {"rates": {"line": 200}, "repair": {"line": "9h"}}, "ensemble": {"members": 3}}
    study = study_of(tmp_path, homes, scenario=outages)
    xr.testing.assert_equal(run_study(study, workers=2), run_study(study))


def test_there_is_nothing_to_resume(tmp_path):
    study_of(tmp_path, {"homes": {"connections": ["Load R15"], **HOUSE}}, truck())
    done = CliRunner().invoke(main, ["study", "resilience", str(tmp_path / "case.yaml"), "--resume"])
    assert done.exit_code == 2
    assert "--resume: a study of resilience keeps no runs with which it could go on" in done.output


def test_states_of_charge_of_a_run(tmp_path):
    """A strategy that waits for cheap hours: outages start from what the truck has in the run."""
    (tmp_path / "prices.csv").write_text("time,price\n0,100\n43200,50\n86400,100\n")
    row = "truck,Load R15,0,864000,0.5,1,131,9.6,9.6,0.2,0.9\n"
    scenario = {
        "time": {"start": "2026-03-30T00:00", "duration": "24h", "step": "30min"}, "record": {"ev": True},
        "system": {"energy_price": {"file": "prices.csv"}}, "aggregators": {"main": {"strategy": "tou"}},
    }  # fmt: skip
    house = {"homes": {"connections": ["Load R15"], **HOUSE}}
    study = study_of(tmp_path, house, row, scenario)
    run = evgrid.run(study.base(), tmp_path / "run.nc")
    soc = run["ev_soc"].values.ravel()
    assert soc[22] == pytest.approx(0.5)  # still waits at 11:30
    by_run = run_study(study.model_copy(update={"result": tmp_path / "run.nc"}))
    hours = by_run["hours_mean_by_hour"].sel(variant="everything", group="all").values
    expected = np.append(0.5, soc[1::2][:-1]) - 0.2
    np.testing.assert_allclose(hours, expected * 131 * 0.9 / 1.25, rtol=1e-5)
    other = study_of(
        tmp_path, house, row, {**scenario, "ensemble": {"members": 2}}, result=tmp_path / "run.nc"
    )
    with pytest.raises(ScenarioError, match="its ensemble is not that of the scenario"):
        other.base()


PV = {"latitude": 50, "longitude": 8, "timezone": "Europe/Berlin"}
STORE = {"capacity_kwh": 12, "charge_kw": 6, "soc_start": 0.8}
AT_ONCE = {"detection": 0, "black_start": 0}


@pytest.mark.parametrize("start_h", [5, 30.55])
def test_hours_are_those_of_a_run(tmp_path, start_h):
    """An outage of two days in the coupled run: the first tick in which critical load is not served, at each
    site, with all that sites may have: EVs, PV, batteries and generators. EVs charge below their taper.

    The run's moment is known to its tick of 5 min. Later in the study than in the run is only what the study
    leaves out: a battery that was empty rests until it has 5 % again.
    """
    step_h, days = 1 / 12, 4
    common = {"critical": {"share": 0.6}, "backup": "critical", "island": AT_ONCE}
    sites = {
        "sunny": {"connections": {"share": 0.4}, "pv": {"kwp": 6, **PV}, "battery": STORE, **common},
        "parked": {"connections": {"share": 0.3}, "battery": STORE, **common},
        "ready": {
            "connections": {"share": 0.3}, "pv": {"kwp": 4, **PV}, **common,
            "generator": {"power_kw": 6, "fuel_kwh": 2, "start": 0},
        },
    }  # fmt: skip
    scenario = {
        "time": {"start": "2026-04-01T00:00", "duration": f"{24 * days}h", "step": "5min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "standard"}, "households": {"kw_each": 8}},
        "fleet": {"penetration": 0.5, "sessions": "home", "charger": {"phases": 3, "bidirectional": 1},
                  "vehicle": {"soc_target": 0.8}},
        "ensemble": {"seed": 5},
    }  # fmt: skip
    study = study_of(tmp_path, sites, scenario=scenario, slot=900)
    parts = sites_by_part(build_world(study.base()), study.slot)
    table, grid = parts.having(parts.there)
    assert parts.there == ("ev", "pv", "battery", "generator")
    start_kwh, _ = energy_in_normal_times(table, grid)
    hours = survival_hours(table, start_kwh, [start_h * 4], horizon_h=48, generator_last=True)[0]
    outage = {"outages": [{"start": start_h * 3600, "duration": "48h", "out": "feeder"}]}
    result = evgrid.run(study_of(tmp_path, sites, scenario={**scenario, **outage}).base())
    found = {
        name: result[f"site_{name}_kw"].transpose("site", "time").values for name in ("load", "unserved")
    }
    first = int(start_h / step_h + 1e-9)
    load, unserved = (values[:, first : first + round(48 / step_h)] for values in found.values())
    failed = load < 0.6 * (load + unserved) - 1e-9
    at = first + failed.argmax(axis=1)
    lasted = np.where(failed.any(axis=1), step_h * at - start_h, 48)
    soc = result["site_battery_soc"].transpose("site", "time").values[np.arange(len(at)), at]
    later = hours > lasted + step_h + 1e-3
    assert (hours >= lasted - 1e-3).all()
    assert ((soc[later] > 0.1) & (soc[later] < 0.15)).all()
    for group in range(3):
        assert (failed.any(axis=1) & ~later)[parts.group == group].any(), group
