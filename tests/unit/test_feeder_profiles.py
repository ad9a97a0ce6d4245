# ruff: noqa: E501
"""Profiles of loads, generators and storages: PV, files, simbench, heat pumps, batteries that follow a rule."""

import numpy as np
import pandapower as pp
import pandas as pd
import pytest

from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import base_load
from evgrid.feeder.networks import load_network
from evgrid.runs.simulation import build_world, run
from evgrid.scenario import scenario_from
from evgrid.scenario.sites import SitePv
from evgrid.solar.pv import PvPower

MUNICH = {"latitude": 48.1, "longitude": 11.6, "timezone": "Europe/Berlin"}
REST = {"source": "none", "generation": "none"}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """House (3 kW) with PV 1 (5 kW) and a battery of 4 kWh at one bus; a heat pump and PV 2 (10 kW) at another."""
    net = pp.create_empty_network(f_hz=50)
    mv, one, two = (pp.create_bus(net, kv) for kv in (10.0, 0.4, 0.4))
    pp.create_ext_grid(net, mv)
    pp.create_transformer_from_parameters(net, mv, one, 0.1, 10.0, 0.4, 1.0, 4.0, 0.0, 0.0)
    pp.create_line_from_parameters(net, one, two, 0.1, 0.2, 0.08, 200, 0.2)
    pp.create_load(net, one, 0.003, name="House")
    pp.create_load(net, two, 0.004, name="HP north")
    pp.create_sgen(net, one, 0.005, q_mvar=-0.001, name="PV 1")
    pp.create_sgen(net, two, 0.01, name="PV 2")
    pp.create_storage(net, one, 0.0, max_e_mwh=0.004, sn_mva=0.002, name="Battery")
    path = tmp_path_factory.mktemp("net") / "net.json"
    pp.to_json(net, str(path))
    return path


def scenario(net, profiles, start="2026-06-21", hours=24, base=REST, **over):
    return scenario_from(
        {
            "name": "street",
            "time": {"start": start, "duration": f"{hours}h", "step": "15min"},
            "feeder": {"network": str(net), "base_load": base, "profiles": profiles},
            **over,
        }
    )


def powers(settings, step_s=900.0):
    """kW of loads and of generators at each step, (n, element)."""
    load = base_load(settings, load_network(settings.feeder))
    begins = np.arange(0.0, settings.clock.duration_s, step_s)
    generation = load.generation(begins, begins + step_s)
    return load.at(begins, begins + step_s)[0][:, 0, :, 0], generation[0][:, 0, :, 0]


# ---- PV -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["PV*", ["PV 1", "pv 2"], None])
def test_pv_is_that_of_a_site_of_its_power(net, at):
    _, found = powers(scenario(net, {"roofs": {"pv": MUNICH | {"dc_per_ac": 1.2}, "at": at}}))
    site = SitePv(kwp=6.0, ac_kw=5.0, **MUNICH)
    clock = Clock(np.datetime64("2026-06-21"), 900.0, 96)
    alone = PvPower(site, clock).slots(0.0, 86400.0).kw[0]
    np.testing.assert_allclose(found[:, 0], alone, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[:, 1], 2 * alone, rtol=1e-9, atol=1e-12)
    assert (found[:12] == 0).all()  # until 3:00
    assert found[48:52, 0].min() > 3.0  # at noon in June


def test_reactive_power_is_in_proportion_as_in_the_network(net):
    settings = scenario(net, {"roofs": {"pv": MUNICH}})
    p, q = base_load(settings, load_network(settings.feeder)).generation(np.array([43200.0]))
    np.testing.assert_allclose(q[0, 0, :2, 0], p[0, 0, :2, 0] * [-0.2, 0.0])


def test_pv_by_the_weather_of_a_file(net, tmp_path):
    rows = [f"{900 * k},{0 if k < 48 else 500}" for k in range(96)]
    (tmp_path / "sun.csv").write_text("\n".join(["time,ghi", *rows]))
    pv = MUNICH | {"weather": str(tmp_path / "sun.csv")}
    _, found = powers(scenario(net, {"roofs": {"pv": pv}}))
    assert (found[:48] == 0).all()
    assert found[50, 0] > 1.0
    (tmp_path / "sun.csv").write_text("time,ghi\n0,-5\n3600,1\n")
    with pytest.raises(
        ScenarioError, match=r"feeder.profiles.roofs.pv: .*sun.csv: line 2: ghi = -5: must be a"
    ):
        powers(scenario(net, {"roofs": {"pv": pv}}))


def test_nothing_runs_through_the_night_unasked_where_some_have_a_profile(net):
    with pytest.raises(
        ScenarioError, match="has 1 generator of 10 kW without a profile, which would run day and"
    ):
        build_world(scenario(net, {"roof": {"pv": MUNICH, "at": "PV 1"}}, base={}))
    world = build_world(scenario(net, {"roofs": {"pv": MUNICH}}, base={}))
    assert "feeder.profiles.roofs: 2 generators of 15 kW as PV by pvlib, clear sky." in world.notes
    assert "feeder.base_load.generation" not in " ".join(world.notes)


# ---- files and simbench ---------------------------------------------------------------------------


def test_a_file_of_loads_and_one_of_a_share_of_generators(net, tmp_path):
    (tmp_path / "hp.csv").write_text("time,HP north (kWh)\n0,0.25\n900,0.5\n1800,0\n2700,1\n")
    (tmp_path / "wind.csv").write_text("time,share\n0,0.5\n1800,1\n")
    profiles = {
        "pump": {"of": "load", "at": "HP*", "file": str(tmp_path / "hp.csv")},
        "wind": {"of": "generator", "at": "PV 2", "file": str(tmp_path / "wind.csv")},
    }
    loads, generation = powers(
        scenario(net, profiles, hours=1, base={"source": "net", "generation": "nameplate"})
    )
    assert loads.tolist() == [[3, 1], [3, 2], [3, 0], [3, 4]]  # kWh of a quarter-hour, times 4
    assert generation[:, :2].tolist() == [[5, 5], [5, 5], [5, 10], [5, 10]]
    result = run(scenario(net, profiles, hours=1, base={"source": "net", "generation": "nameplate"}))
    assert result["base_load_kw"].values[0] == pytest.approx([-6, -5, -12, -8])
    assert "feeder.profiles.pump: 1 load by" in result.attrs["notes"]


def test_a_profile_replaces_its_load_in_a_file_of_all(net, tmp_path):
    (tmp_path / "all.csv").write_text("time,House\n0,2\n1800,3\n")
    (tmp_path / "hp.csv").write_text("time,HP north\n0,1\n1800,0\n")
    profiles = {"pump": {"of": "load", "at": "HP north", "file": str(tmp_path / "hp.csv")}}
    base = {"file": str(tmp_path / "all.csv"), "generation": "none"}
    loads, _ = powers(scenario(net, profiles, hours=1, base=base), 1800.0)
    assert loads.tolist() == [[2, 1], [3, 0]]


def test_the_others_draw_the_same_households_beside_a_profile(net, tmp_path):
    (tmp_path / "hp.csv").write_text("time,HP north\n0,1\n1800,0\n")
    profiles = {"pump": {"of": "load", "at": "HP north", "file": str(tmp_path / "hp.csv")}}
    base = {"generation": "none"}
    with_pump = powers(scenario(net, profiles, hours=1, base=base))[0]
    alone = powers(scenario(net, {}, hours=1, base=base))[0]
    assert with_pump[:, 0].tolist() == alone[:, 0].tolist()
    notes = build_world(scenario(net, profiles, hours=1, base=base)).notes
    assert any(note.startswith("feeder.base_load: standard profiles of 1 households") for note in notes)


def test_simbench_by_its_name_at_the_same_date(net):
    """WP4 of simbench 1.6 at 0:00 on 1 January: 0.980905615 of the power."""
    pytest.importorskip("simbench")
    profiles = {"wind": {"of": "generator", "at": "PV 2", "simbench": "WP4"}}
    _, found = powers(scenario(net, profiles, "2026-01-01", hours=1))
    assert found[0, :2].tolist() == pytest.approx([0, 9.80905615])
    profiles = {"shop": {"of": "load", "at": "House", "simbench": "G0-M"}}
    loads, _ = powers(scenario(net, profiles, "2026-01-01", hours=1))
    assert loads[0].tolist() == pytest.approx([3 * 0.275641, 0])
    profiles["shop"]["simbench"] = "G0-X"
    with pytest.raises(
        ScenarioError, match=r"simbench = G0-X: simbench has no such profile of a load; did you mean G0-"
    ):
        powers(scenario(net, profiles))


# ---- heat pumps -----------------------------------------------------------------------------------


def pump(net, start, hours=24, **given):
    return powers(scenario(net, {"pump": {"at": "HP*", "heat_pump": given}}, start, hours))[0][:, 1]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"building": "MFH", "source": "ground", "sink": "radiator", "building_class": 8, "hot_water": False},
    ],
)
def test_a_heat_pump_draws_its_yearly_energy_most_of_it_in_winter(net, given):
    year = pump(net, "2026-01-01", 8760, annual_kwh=5000, **given)
    assert year.sum() / 4 == pytest.approx(5000)
    by_month = (
        pd.Series(year, pd.date_range("2026-01-01", periods=len(year), freq="15min")).resample("MS").sum()
    )
    assert by_month.idxmax().month in (1, 2)
    assert by_month.idxmin().month in (7, 8)


def test_a_heat_pump_of_the_network_reaches_its_power_in_the_coldest_hour(net):
    assert pump(net, "2026-01-01", 8760).max() == pytest.approx(4.0)


def test_a_heat_pump_is_the_heat_of_the_library_by_the_performance(net):
    """At a constant temperature of 5 °C: 27.5 °C of the floor, 22.5 K above the air."""
    from demandlib.bdew import HeatBuilding

    hours = pd.date_range("2026-01-01", "2027-01-01", freq="h", inclusive="left")
    heat = HeatBuilding(
        hours, temperature=pd.Series(5.0, hours), shlp_type="EFH", building_class=5, wind_class=0,
        annual_heat_demand=1.0, ww_incl=True,
    ).get_bdew_profile()  # fmt: skip
    steady = {"mean_c": 5, "year_amplitude_c": 0, "day_amplitude_c": 0}
    found = pump(net, "2026-03-02", annual_kwh=5000, **steady)
    np.testing.assert_allclose(found[::4], 5000 * heat["2026-03-02"] / heat.sum())
    settings = scenario(net, {"pump": {"at": "HP*", "heat_pump": {"annual_kwh": 5000, **steady}}})
    (note,) = [n for n in build_world(settings).notes if "heat pump" in n]
    cop = 0.85 * (6.08 - 0.09 * 22.5 + 0.0005 * 22.5**2)
    assert note == (
        "feeder.profiles.pump: 1 heat pump of 5000 kWh a year, BDEW's EFH by 5 °C in the mean of a year, "
        f"seasonal performance {cop:.3g}."
    )


# ---- batteries ------------------------------------------------------------------------------------


def battery(net, tmp_path, pv_kw, **given):
    """Power into the grid of a battery beside a house of 1 kW, by the power of PV in hours; (hour,)."""
    rows = "\n".join(f"{3600 * k},{kw}" for k, kw in enumerate(pv_kw))
    (tmp_path / "pv.csv").write_text(f"time,PV 1\n{rows}\n")
    (tmp_path / "house.csv").write_text("time,House,HP north\n0,1,0\n36000,1,0\n")
    profiles = {
        "roof": {"of": "generator", "at": "PV 1", "file": str(tmp_path / "pv.csv")},
        "store": {"battery": {"soc_start": 0, "efficiency": 0.81} | given},
    }
    base = {"file": str(tmp_path / "house.csv"), "generation": "none"}
    settings = scenario(net, profiles, hours=len(pv_kw), base=base)
    return powers(settings, 3600.0)[1][:, 2]


def test_self_consumption_by_hand(net, tmp_path):
    """4 kWh, 2 kW, 90 % either way: 1 kW of surplus stores 0.9 kWh in an hour; 5 kW are cut at 2 kW and 1.8 kWh;
    1.3 kWh of room are met by 1.3 / 0.9 kW. It gives 1 kW from 1 / 0.9 kWh until 4 kWh are gone.
    """
    found = battery(net, tmp_path, [2, 6, 6, 1, 0, 0, 0, 0, 0])
    into_grid = [-1, -2, -1.3 / 0.9, 0, 1, 1, 1, 4 * 0.9 - 3, 0]
    np.testing.assert_allclose(found, into_grid, atol=1e-12)


def test_a_battery_stops_at_its_least_charge(net, tmp_path):
    found = battery(net, tmp_path, [0, 0, 0], soc_start=0.5, soc_min=0.25)
    np.testing.assert_allclose(found, [0.9, 0, 0], atol=1e-12)  # 1 kWh above the least


def test_a_battery_by_a_time_table(net, tmp_path):
    """Charges at 1.5 kW until 1:00 and gives 1 kW from 1:30."""
    table = [{"hours": [23, 1], "kw": 1.5}, {"hours": ["1:30", 12], "kw": -1}]
    found = battery(net, tmp_path, [0, 0, 0, 0], timetable=table)
    stored = 1.5 * 0.9
    np.testing.assert_allclose(found, [-1.5, 0.5, stored * 0.9 - 0.5, 0], atol=1e-12)


def test_a_battery_is_the_same_at_any_tick_and_in_any_order_of_questions(net, tmp_path):
    battery(net, tmp_path, [2, 6, 6, 1, 0, 0, 0, 0, 0])  # writes the files
    profiles = {
        "roof": {"of": "generator", "at": "PV 1", "file": str(tmp_path / "pv.csv")},
        "store": {"battery": {}},
    }
    base = {"file": str(tmp_path / "house.csv"), "generation": "none"}
    settings = scenario(net, profiles, hours=9, base=base)
    load = base_load(settings, load_network(settings.feeder))
    late = load.generation(np.array([28800.0]), np.array([32400.0]))[0][0, 0, 2, 0]
    fine = powers(settings, 60.0)[1][:, 2]
    coarse = powers(settings, 3600.0)[1][:, 2]
    np.testing.assert_allclose(fine.reshape(9, 60).mean(axis=1), coarse, atol=1e-12)
    assert coarse[8] == pytest.approx(late)


def test_a_battery_lowers_what_flows_in_a_run(net, tmp_path):
    battery(net, tmp_path, [2, 6, 6, 1, 0, 0, 0, 0, 0])
    base = {"file": str(tmp_path / "house.csv"), "generation": "none"}
    roof = {"of": "generator", "at": "PV 1", "file": str(tmp_path / "pv.csv")}
    store = {"battery": {"soc_start": 0, "efficiency": 0.81}}
    result = run(scenario(net, {"roof": roof, "store": store}, hours=9, base=base, record={"step": "1h"}))
    house_less_pv = np.array([-1, -5, -5, 0, 1, 1, 1, 1, 1])
    into_grid = [-1, -2, -1.3 / 0.9, 0, 1, 1, 1, 4 * 0.9 - 3, 0]
    np.testing.assert_allclose(result["base_load_kw"].values[0], house_less_pv - into_grid, atol=1e-9)
    assert "storage of 4 kWh and 2 kW by self-consumption" in result.attrs["notes"]


def test_members_have_batteries_of_their_own(net):
    """Households differ by member, and a member by itself is that of the ensemble."""
    profiles = {"store": {"battery": {"soc_start": 1}}}
    base = {"generation": "none"}
    both = scenario(net, profiles, hours=6, base=base, ensemble={"members": 2})
    begins = np.arange(0.0, 6 * 3600, 900)
    found = base_load(both, load_network(both.feeder)).generation(begins, begins + 900)[0][:, :, 2, 0]
    second = scenario(net, profiles, hours=6, base=base, ensemble={"first": 1})
    alone = base_load(second, load_network(second.feeder)).generation(begins, begins + 900)[0][:, :, 2, 0]
    assert found.shape == (24, 2)
    assert (found[:, 0] != found[:, 1]).any()
    assert found[:, 1].tolist() == alone[:, 0].tolist()


# ---- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ({"pv": MUNICH, "at": "PV 3"}, "feeder.profiles.a.at = PV 3: the network has no such generator; did you mean PV"),
        ({"pv": MUNICH, "at": "House"}, "feeder.profiles.a.at = House: the network has no such generator"),
        ({"pv": MUNICH, "of": "load"}, "of = load: pv is of a generator"),
        ({"pv": MUNICH, "battery": {}}, "give one of pv, file, simbench, heat_pump, battery, not pv and battery"),
        ({}, "give one of pv, file, simbench, heat_pump, battery, not none"),
        ({"simbench": "PV1"}, "of: is required, load, generator or storage"),
        ({"heat_pump": {}}, "at: is required for loads; a profile of all of them is feeder.base_load"),
        ({"pv": MUNICH, "unit": "kWh"}, "unit: is of a file: give a file, or leave it out"),
        ({"heat_pump": {"weather": __file__}, "at": "HP*"}, "give both weather and timezone, or neither"),
        ({"battery": {"soc_start": 0.1, "soc_min": 0.2}}, "soc_start = 0.1: must be at least soc_min = 0.2"),
        ({"pv": MUNICH | {"tilts": 3}}, "tilts: unknown key; did you mean 'tilt'"),
    ],
)  # fmt: skip
def test_profiles_at_fault(net, profile, sentence):
    with pytest.raises(ScenarioError) as caught:
        build_world(scenario(net, {"a": profile}))
    assert sentence in str(caught.value)


def test_an_element_has_one_profile(net):
    profiles = {"a": {"pv": MUNICH, "at": "PV*"}, "b": {"pv": MUNICH, "at": "PV 2"}}
    with pytest.raises(ScenarioError, match=r"feeder.profiles.b: PV 2 has the profile a already"):
        build_world(scenario(net, profiles))
    profiles = {"a": {"pv": MUNICH}, "b": {"pv": MUNICH, "at": "PV 2"}}  # a is of the rest
    assert "feeder.profiles.a: 1 generator of 5 kW as PV by pvlib, clear sky." in (
        build_world(scenario(net, profiles)).notes
    )


def test_a_battery_without_capacity_is_named(tmp_path):
    net = pp.create_empty_network(f_hz=50)
    bus = pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, bus)
    pp.create_load(net, bus, 0.001, name="House")
    pp.create_storage(net, bus, 0.001, max_e_mwh=np.nan, name="Box")
    pp.to_json(net, str(tmp_path / "net.json"))
    with pytest.raises(
        ScenarioError, match=r"battery.capacity_kwh is not given: Box has none in the network"
    ):
        build_world(scenario(tmp_path / "net.json", {"a": {"battery": {}}}))
    notes = build_world(
        scenario(tmp_path / "net.json", {"a": {"battery": {"capacity_kwh": 5, "power_kw": 2}}})
    ).notes
    assert (
        "feeder.profiles.a: 1 storage of 5 kWh and 2 kW by self-consumption at their bus, without EVs."
        in notes
    )


def test_a_heat_pump_by_a_typical_year(net, tmp_path):
    """At 0 °C the floor has 30 °C, at 10 °C 25 °C; a table is no typical year."""
    from tests.support.weather import write_epw

    found = {}
    for celsius in (0.0, 10.0):
        path = write_epw(tmp_path / f"{celsius:g}.epw", change=lambda frame, c=celsius: frame.assign(t=c))
        given = {"annual_kwh": 5000, "weather": str(path), "timezone": "Europe/Berlin"}
        settings = scenario(net, {"pump": {"at": "HP*", "heat_pump": given | {"hot_water": False}}})
        (note,) = [n for n in build_world(settings).notes if "heat pump" in n]
        found[celsius] = float(note.rpartition(" ")[2].rstrip("."))
    by_hand = [0.85 * (6.08 - 0.09 * d + 0.0005 * d**2) for d in (30.0, 15.0)]
    assert [*found.values()] == pytest.approx(by_hand, rel=5e-3)  # said in three digits
    (tmp_path / "t.csv").write_text("time,ghi,temperature\n0,1,2\n3600,1,2\n")
    given["weather"] = str(tmp_path / "t.csv")
    with pytest.raises(
        ScenarioError, match=r"pump.heat_pump.weather: .*t.csv: is a table: must be TMY3, EPW or PVGIS"
    ):
        build_world(scenario(net, {"pump": {"at": "HP*", "heat_pump": given}}))


def test_meters_of_some_loads_beside_standard_profiles(net, tmp_path):
    """Those of names are the profile's; the others are households."""
    (tmp_path / "meters.csv").write_text("t,id,kWh\n0,17,0.5\n0,18,9\n900,17,1\n900,18,9\n")
    meters = {
        "of": "load", "file": str(tmp_path / "meters.csv"), "names": {"HP north": 17},
        "columns": {"time": "t", "name": "id", "value": "kWh"},
    }  # fmt: skip
    loads, _ = powers(scenario(net, {"meters": meters}, hours=0.5, base={"generation": "none"}))
    assert loads[:, 1].tolist() == [2, 4]
    assert (loads[:, 0] > 0).all()
    meters["names"] = {"HP south": 17}
    with pytest.raises(
        ScenarioError, match=r"meters.at = HP south: the network has no such load; did you mean HP north"
    ):
        powers(scenario(net, {"meters": meters}, hours=0.5))
