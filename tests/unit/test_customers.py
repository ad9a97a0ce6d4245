"""Customers behind the loads of a network: households, classes by name and size, and tables of them."""
# ruff: noqa: E501

import numpy as np
import pandapower as pp
import pytest
from click.testing import CliRunner

from evgrid.cli import main
from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import base_load
from evgrid.feeder.networks import load_network
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from

KW = {"House 1": 3, "House 2": 8, "Supermarket": 100, "Shop 1": 20, "Farm": 25}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    net = pp.create_empty_network(f_hz=50)
    mv, lv = pp.create_bus(net, 10.0), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, mv)
    pp.create_transformer_from_parameters(net, mv, lv, 0.4, 10.0, 0.4, 1.0, 4.0, 0.0, 0.0)
    for name, kw in KW.items():
        pp.create_load(net, lv, kw / 1e3, name=name)
    path = tmp_path_factory.mktemp("net") / "net.json"
    pp.to_json(net, str(path))
    return path


def scenario(net, start="2026-01-12", hours=24, base=None, fleet=None, **feeder):
    return scenario_from(
        {
            "name": "street",
            "time": {"start": start, "duration": f"{hours}h", "step": "15min"},
            "feeder": {"network": str(net), "base_load": base or {}, **feeder},
            "fleet": fleet,
        }
    )


CLASSES = {
    "shops": {"at": ["Shop*", "supermarket"], "profile": "shop"},
    "farms": {"at": "Farm", "profile": "farm"},
}


def test_the_default_is_one_a_load_and_said(net):
    network = load_network(scenario(net).feeder)
    assert network.households.tolist() == [1, 1, 1, 1, 1]
    assert network.notes[-1] == "feeder.households: one a load; 5 at 5 loads."


def test_no_supermarket_has_fifty_evs_by_a_guess(net):
    """Its 100 kW are 50 households by kw_each, which is said; of a class it is none, and has no EV at home."""
    found = load_network(scenario(net, households={"kw_each": 2}).feeder)
    assert found.households.tolist() == [2, 4, 50, 10, 12]
    assert found.notes[-1] == (
        "feeder.households: one per 2 kW of each load, at least one; 78 at 5 loads, most at Supermarket of 100 kW, 50."
    )
    classes = {"big": {"above_kw": 10, "profile": "business"}}
    settings = scenario(
        net, households={"kw_each": 2}, customers=classes, fleet={"penetration": 1.0}, phases=1
    )
    world = build_world(settings)
    assert world.network.households.tolist() == [2, 4, 0, 0, 0]
    homes = np.asarray(world.connections.name)[world.evs.connection]
    assert len(homes) == 6
    assert set(homes.tolist()) == {"House 1", "House 2"}
    assert (
        "feeder.customers: 2 household (H0), 3 big (G0); 3 of 145 kW are no households, 3 of them have no EV at home."
        in world.notes
    )


def test_classes_by_name_and_size(net):
    network = load_network(scenario(net, customers=CLASSES).feeder)
    assert network.customers.code.tolist() == ["h0", "h0", "g4", "g4", "l0"]
    assert network.customers.name.tolist() == ["household", "household", "shops", "shops", "farms"]
    both = {"small shops": {"at": "S*", "below_kw": 50, "profile": "g1", "households": 1}}
    network = load_network(scenario(net, customers=both).feeder)
    assert network.customers.code.tolist() == ["h0", "h0", "h0", "g1", "h0"]
    assert network.households.tolist() == [1, 1, 1, 1, 1]


def test_a_name_in_by_load_wins_over_a_class(net):
    found = load_network(
        scenario(net, customers=CLASSES, households={"by_load": {"Farm": 3}, "others": 2}).feeder
    )
    assert found.households.tolist() == [2, 2, 0, 0, 3]


def test_a_table_of_customers(net, tmp_path):
    path = tmp_path / "customers.csv"
    path.write_text(
        "load;class;annual_kwh;households\nSupermarket;shop;250000;\nFARM;Farm;;2\nHouse 2;household;;5\n"
    )
    network = load_network(scenario(net, customers={"file": str(path)}).feeder)
    assert network.households.tolist() == [1, 5, 0, 1, 2]
    assert network.customers.code.tolist() == ["h0", "h0", "g4", "h0", "l0"]
    assert network.customers.annual_kwh[2] == 250000


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            "load,class\nHouse 3,shop\n",
            "line 2: load = House 3: the network has no such load; did you mean House",
        ),
        (
            "load,class\nFarm,shops\n",
            "line 2: class = shops: must be one of household, shop, office, farm, business, g0",
        ),
        ("load,class\nFarm,farm\nfarm,shop\n", "line 3: load farm is there twice"),
        ("load,class,households\nFarm,farm,1.5\n", "line 2: households = 1.5: must be a whole number"),
        ("load,class,annual_kwh\nFarm,farm,0\n", "line 2: annual_kwh = 0: must be above 0"),
        ("load,kind\nFarm,farm\n", "column class is missing"),
    ],
)
def test_tables_at_fault(net, tmp_path, table, sentence):
    (tmp_path / "c.csv").write_text(table)
    with pytest.raises(ScenarioError) as caught:
        load_network(scenario(net, customers={"file": str(tmp_path / "c.csv")}).feeder)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ({"a": {"at": "Shop 2", "profile": "shop"}}, "feeder.customers.a.at = Shop 2: the network has no such load; did"),
        ({"a": {"above_kw": 50, "profile": "g0"}, "b": {"at": "Super*", "profile": "g4"}}, "feeder.customers.b: Supermarket is of the class a already"),
        ({"a": {"profile": "shop"}}, "give at, above_kw or below_kw"),
        ({"a": {"at": "Farm", "profile": "factory"}}, "feeder.customers.a.profile = factory: must be 'household', 'shop'"),
        ({"a": {"at": "House*", "profile": "h0", "annual_kwh": 4000}}, "annual_kwh: is base_load.annual_kwh for households"),
        ({"a": {"at": "Farm", "profiles": "shop"}}, "profiles: unknown key; did you mean 'profile'"),
    ],
)  # fmt: skip
def test_classes_at_fault(net, classes, sentence):
    with pytest.raises(ScenarioError) as caught:
        load_network(scenario(net, customers=classes).feeder)
    assert sentence in str(caught.value)


def loads(settings):
    load = base_load(settings, load_network(settings.feeder))
    return load.at(np.arange(0.0, settings.clock.duration_s, 900.0))[0][:, 0, :, 0]


def test_a_class_has_the_standard_profile_of_the_library(net):
    """A shop of a yearly energy, and a farm that reaches its own power in the year's highest quarter-hour."""
    from demandlib.bdew import ElecSlp

    classes = {"shop": {"at": "S*", "profile": "shop", "annual_kwh": 30000}, "farm": CLASSES["farms"]}
    found = loads(scenario(net, customers=classes))
    year = ElecSlp(2026).slp_frame
    day = slice(11 * 96, 12 * 96)  # 12 January, a Monday
    shop = 30000 * (year["g4"] / (year["g4"].sum() / 4)).to_numpy()[day]
    farm = 25 * (year["l0"] / year["l0"].max()).to_numpy()[day]
    np.testing.assert_allclose(found[:, 2], shop, rtol=1e-9)
    np.testing.assert_allclose(found[:, 3], shop, rtol=1e-9)
    np.testing.assert_allclose(found[:, 4], farm, rtol=1e-9)
    farm_kwh = 25 * year["l0"].sum() / 4 / year["l0"].max()
    assert f"feeder.base_load: customers by standard profiles, kWh a year: G4 6e+04, L0 {farm_kwh:.4g}." in (
        build_world(scenario(net, customers=classes)).notes
    )
    assert shop[40] > 3 * shop[12]  # open at 10:00, not at 3:00


def test_the_households_beside_other_classes_are_the_same(net):
    """As where the others have none."""
    none = {"households": {"by_load": {"Supermarket": 0, "Shop 1": 0, "Farm": 0}}}
    with_classes, alone = (loads(scenario(net, hours=2, **given)) for given in ({"customers": CLASSES}, none))
    assert with_classes[:, :2].tolist() == alone[:, :2].tolist()
    notes = build_world(scenario(net, hours=2, customers=CLASSES)).notes
    (note,) = [
        note for note in notes if note.startswith("feeder.base_load: standard profiles of 2 households")
    ]
    assert note.endswith("in place of the network's own load of 11 kW.")


def test_over_new_year_a_class_has_the_profile_of_each_year(net):
    from demandlib.bdew import ElecSlp

    classes = {"shop": {"at": "Shop 1", "profile": "shop", "annual_kwh": 10000}}
    found = loads(scenario(net, "2026-12-31T12:00", customers=classes))[:, 3]
    last, first = (ElecSlp(year).slp_frame["g4"] for year in (2026, 2027))
    expected = [*(last / (last.sum() / 4)).to_numpy()[-48:], *(first / (first.sum() / 4)).to_numpy()[:48]]
    np.testing.assert_allclose(found, 10000 * np.array(expected), rtol=1e-9)


def test_a_profile_wins_over_the_class_of_its_load(net, tmp_path):
    (tmp_path / "shop.csv").write_text("time,Shop 1\n0,7\n3600,7\n")
    profiles = {"shop": {"of": "load", "at": "Shop 1", "file": str(tmp_path / "shop.csv")}}
    assert loads(scenario(net, hours=1, customers=CLASSES, profiles=profiles))[:, 3].tolist() == [7] * 4


def test_a_heat_pump_is_no_household_unless_it_is_said(net):
    profiles = {"pump": {"at": "Farm", "heat_pump": {"annual_kwh": 5000}}}
    assert load_network(scenario(net, profiles=profiles).feeder).households.tolist() == [1, 1, 1, 1, 0]
    said = {"by_load": {"Farm": 1}}
    assert load_network(scenario(net, profiles=profiles, households=said).feeder).households[4] == 1


def test_evgrid_feeder_shows_customers_and_households(net, tmp_path):
    shown = CliRunner().invoke(main, ["feeder", str(net)])
    assert "feeder.households: one a load; 5 at 5 loads." in shown.output
    path = tmp_path / "s.yaml"
    path.write_text(
        f"name: s\ntime: {{start: 2026-01-12T00:00}}\nfeeder:\n  network: {net}\n  households: {{kw_each: 2}}\n"
        "  customers: {shops: {at: S*, profile: shop}}\n"
    )
    shown = CliRunner().invoke(main, ["feeder", str(path)])
    assert shown.exit_code == 0
    text = " ".join(shown.output.split())
    assert "18 at 5 loads, most at Farm of 25 kW, 12." in text
    assert "feeder.customers: 3 household (H0), 2 shops (G4); 2 of 120 kW are no households" in text
