"""Nodes of chargers in a session file: phases, legs of a split-phase service, between two phases."""

import re

import numpy as np
import pandapower as pp
import pytest
from tests.unit.test_opendss_network import SPLIT

from evgrid.core.model import ALL_PHASES, Connections
from evgrid.errors import ScenarioError
from evgrid.feeder.networks import load_network
from evgrid.fleet.sessions.table import read_sessions
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder


@pytest.fixture
def read(tmp_path):
    """Phases of the EVs of a session file, (ev,), at the connection points of a split-phase network."""
    (tmp_path / "net.dss").write_text(SPLIT)

    def read(*rows, volts=240.0, connections=None):
        lines = [f"ev{k},{at},600,3600,1,{phase}" for k, (at, phase) in enumerate(rows)]
        path = tmp_path / "sessions.csv"
        path.write_text("\n".join(["ev,connection,arrival,departure,energy_kwh,phase", *lines]) + "\n")
        if connections is None:
            connections = load_network(Feeder(network=str(tmp_path / "net.dss")), True, volts).connections
        scenario = scenario_from(
            {
                "name": "nodes",
                "time": {"start": "2026-07-01T00:00", "duration": "2h"},
                "feeder": {"network": "net.dss"},
                "fleet": {"sessions": {"file": str(path)}, "charger": {"nominal_v": volts}},
            }
        )
        return read_sessions(path, scenario, connections)[0].phase.tolist()

    return read


def test_both_legs_at_240_v(read):
    assert read(("oven", "s1-s2"), ("Leg", "S1-S2"), ("oven", "")) == [2, 2, 2]


def test_a_leg_at_120_v(read):
    assert read(("leg", "s1"), ("oven", "s1"), volts=120.0) == [0, 0]


def test_between_two_phases(read):
    """Also by the first of the two."""
    pairs = ("a-b", "b-c", "c-a", "a", "b", "c", "abc")
    assert read(*(("shop", pair) for pair in pairs)) == [0, 1, 2, 0, 1, 2, ALL_PHASES]


@pytest.mark.parametrize(
    ("at", "phase", "volts", "sentence"),
    [
        ("oven", "c", 240.0, "phase = c: connection oven has legs s1-s2 only"),
        ("oven", "s1", 240.0, "phase = s1: connection oven has legs s1-s2 only"),
        ("leg", "s2", 120.0, "phase = s2: connection leg has leg s1 only"),
        ("leg", "abc", 120.0, "phase = abc: connection leg has leg s1 only"),
        ("single", "s1", 240.0, "phase = s1: connection single has phase c only"),
        ("single", "a", 240.0, "phase = a: connection single has phase c only"),
        ("shop", "s1", 240.0, "phase = s1: connection shop has a-b, b-c, c-a and abc"),
        ("shop", "s4", 240.0, "phase = s4: must be a, b, c or abc, or nodes such as a-b, s1 or s1-s2"),
    ],
)
def test_nodes_that_a_connection_does_not_have(at, phase, volts, sentence, read):
    with pytest.raises(ScenarioError, match=re.escape(sentence)):
        read((at, phase), volts=volts)


def test_delta_loads_of_a_pandapower_network(tmp_path, read):
    net = pp.create_empty_network()
    bus = pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, bus, s_sc_max_mva=1e3, rx_max=0.1, x0x_max=1.0, r0x0_max=0.1)
    pp.create_asymmetric_load(net, bus, 0.01, 0.02, 0.03, name="delta", type="delta")
    pp.create_asymmetric_load(net, bus, 0.0, 0.02, 0.0, name="home")
    pp.to_json(net, str(tmp_path / "net.json"))
    connections = load_network(Feeder(network=str(tmp_path / "net.json"))).connections
    assert read(("delta", "b-c"), ("delta", "b"), ("home", "b"), connections=connections) == [1, 1, 1]
    with pytest.raises(ScenarioError, match="phase = b-c: connection home has phase b only"):
        read(("home", "b-c"), connections=connections)


def test_a_connection_upstream_has_the_phases():
    index = np.arange(1)
    own = Connections(
        np.array(["a"]), index, np.array([2], np.int8), index, index, ("a", "b", "c"),
        nodes=np.array([["", "", "s1-s2"]]),
    )  # fmt: skip
    both = own.with_upstream()
    assert both.slot_of("s1-s2").tolist() == [2, -2]
    assert both.slot_of("b").tolist() == [-2, 1]
