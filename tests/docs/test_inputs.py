"""The examples of the pages on inputs run as they stand, and print what the pages show."""

import re

import numpy as np
import pandapower as pp
import pytest
from tests.docs.test_blocks import ROOT, blocks

from evgrid.readers.yaml_files import parse_yaml
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from

HOW_TO = ROOT / "docs" / "how_to"


def words(text):
    return re.sub(r"\s+", " ", text).strip()


@pytest.fixture
def street(tmp_path):
    """The network of the pages."""
    net = pp.create_empty_network(f_hz=50)
    mv, lv = pp.create_bus(net, 10.0), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, mv)
    pp.create_transformer_from_parameters(net, mv, lv, 0.1, 10.0, 0.4, 1.0, 4.0, 0.0, 0.0)
    for k in (1, 2):
        pp.create_load(net, lv, 0.003, name=f"House {k}")
    pp.to_json(net, str(tmp_path / "street.json"))
    return tmp_path


def test_the_page_on_meter_files(street):
    page = HOW_TO / "meter_files.md"
    table, note = blocks(page, "text")
    (street / "meters.csv").write_text(table)
    scenario = scenario_from(parse_yaml(blocks(page, "yaml")[0]), folder=street)
    world = build_world(scenario)
    assert words(note) in world.notes
    p, _ = world.base.at(np.array([0.0, 1800.0, 3600.0, 5400.0]), np.array([1800.0, 3600.0, 5400.0, 7200.0]))
    assert p[:, 0, :, 0].tolist() == [[0.5, 2], [1, 2], [1.5, 3], [2, 3]]  # as the page says


def test_the_page_on_generation_and_load(tmp_path):
    net = pp.create_empty_network(f_hz=50)
    mv, lv = pp.create_bus(net, 10.0), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, mv)
    pp.create_transformer_from_parameters(net, mv, lv, 0.1, 10.0, 0.4, 1.0, 4.0, 0.0, 0.0)
    pp.create_load(net, lv, 0.003, name="House 1")
    pp.create_load(net, lv, 0.002, name="HP 2")
    pp.create_sgen(net, lv, 0.005, name="PV 1")
    pp.create_sgen(net, lv, 0.01, name="PV 2")
    pp.create_storage(net, lv, 0.0, max_e_mwh=0.008, sn_mva=0.005, name="Battery")
    pp.to_json(net, str(tmp_path / "street.json"))
    page = HOW_TO / "profiles.md"
    (notes,) = blocks(page, "text")
    scenario = scenario_from(parse_yaml(blocks(page, "yaml")[0]), folder=tmp_path)
    world = build_world(scenario)
    for note in re.split(r"\n(?=feeder)", notes):
        assert words(note) in world.notes
    noon, night = np.array([12 * 3600.0]), np.array([0.0])
    assert world.base.generation(night, night + 900)[0][0, 0, :2, 0].tolist() == [0, 0]
    assert world.base.generation(noon, noon + 900)[0][0, 0, 1, 0] > 7


def test_the_page_on_customers(tmp_path):
    net = pp.create_empty_network(f_hz=50)
    mv, lv = pp.create_bus(net, 10.0), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, mv)
    pp.create_transformer_from_parameters(net, mv, lv, 0.4, 10.0, 0.4, 1.0, 4.0, 0.0, 0.0)
    loads = {"House 1": 3, "House 2": 8, "Shop 1": 20, "Supermarket": 100, "Farm 1": 25, "Hall": 30}
    for name, kw in loads.items():
        pp.create_load(net, lv, kw / 1e3, name=name)
    pp.to_json(net, str(tmp_path / "village.json"))
    page = HOW_TO / "customers.md"
    notes, table = blocks(page, "text")
    example, by_table = (parse_yaml(block) for block in blocks(page, "yaml"))
    world = build_world(scenario_from(example, folder=tmp_path))
    for note in re.split(r"\n(?=feeder)", notes):
        assert words(note) in world.notes
    (tmp_path / "customers.csv").write_text(table)
    feeder = example["feeder"] | by_table["feeder"]
    customers = build_world(scenario_from(example | {"feeder": feeder}, folder=tmp_path)).network.customers
    assert customers.households.tolist() == [2, 4, 10, 0, 1, 15]
    assert customers.name.tolist() == ["household", "household", "household", "shop", "farm", "household"]
