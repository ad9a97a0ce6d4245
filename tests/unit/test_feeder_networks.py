"""Networks: what is read from a net, and what is refused by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandapower as pp
import pytest
from pydantic import ValidationError

from evgrid.core.model import ALL_PHASES
from evgrid.errors import NetworkError, ScenarioError
from evgrid.feeder.networks import BUILT_IN, load_network
from evgrid.scenario.feeder import Feeder


def test_european_lv_has_55_single_phase_households(feeder):
    network = feeder("european_lv")
    connections = network.connections
    assert network.sizes == {
        "bus": 907,
        "line": 905,
        "trafo": 1,
        "shunt": 0,
        "connection": 55,
        "generator": 0,
        "phase": 3,
    }
    assert connections.phases == ("a", "b", "c")
    assert connections.households.tolist() == [1] * 55
    assert set(connections.trafo.tolist()) == {0}
    # LOAD1 hangs on bus 34, phase a; LOAD2 on bus 47, phase b (IEEE European LV test feeder, Loads.csv)
    assert [str(network.grid.buses.name[connections.bus[k]]) for k in (0, 1)] == ["34", "47"]
    assert connections.phase[:2].tolist() == [0, 1]
    assert np.isnan(network.topology.distance_km).sum() == 0


def test_european_lv_reactive_power_of_all_phases_is_put_right(feeder):
    loads = feeder("european_lv").grid.loads
    factor = loads.p_kw / np.hypot(loads.p_kw, loads.q_kvar).clip(1e-12)
    assert factor[loads.p_kw > 0] == pytest.approx(0.95, abs=2e-3)


def test_a_load_is_one_household_unless_a_rule_says_otherwise():
    # case33bw: 32 loads, the first of 100 and 90 kW
    def households(**rule):
        network = load_network(Feeder.model_validate({"network": "case33bw", **rule}))
        return network.connections.households.tolist(), network.notes[-1]

    assert households() == ([1] * 32, "feeder.households: one a load; 32 at 32 loads.")
    assert households(households=3)[0] == [3] * 32
    by_power, note = households(households={"kw_each": 2.0})
    assert by_power[:2] == [50, 45]
    assert note == (
        "feeder.households: one per 2 kW of each load, at least one; 1857 at 32 loads, "
        "most at load 22 of 420 kW, 210."
    )
    named = households(households={"by_load": {"load 0": 0, "load 1": 7}})[0]
    assert named == [0, 7, *[1] * 30]
    with pytest.raises(ScenarioError, match=r"feeder.households.by_load.shop: the network has no such load"):
        households(households={"by_load": {"shop": 0}})
    with pytest.raises(ValidationError, match="give either kw_each or by_load"):
        households(households={})


def test_phase_is_all_phases_where_several_carry_load(feeder, small_net):
    connections = feeder(small_net(True)).connections
    assert connections.name.tolist() == ["sym", "asym"]
    assert connections.phase.tolist() == [ALL_PHASES, ALL_PHASES]
    assert connections.phases == ("a", "b", "c")
    assert feeder(small_net(False)).connections.phases == ("abc",)


def test_distance_and_transformer_upstream(feeder, small_net):
    topology = feeder(small_net(False)).topology
    assert topology.distance_km == pytest.approx([0, 3, 3, 3.05, 3.09, 3.15, 3.2, 3.2, 3.2])
    assert topology.trafo.tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 0]
    assert topology.node[7] == topology.node[8]


def test_same_names_are_distinguished(feeder, small_net):
    net = small_net(False)
    net.bus["name"] = "same"
    net.load["name"] = None
    network = feeder(net)
    assert network.grid.buses.name[:2].tolist() == ["same (0)", "same (1)"]
    assert network.connections.name.tolist() == ["load 0", "load 1"]


def test_coordinates_fit_the_sizes(feeder):
    network = feeder("european_lv")
    for dim, values, _ in network.coordinates().values():
        assert len(values) == network.sizes[dim]
    assert network.coordinates()["connection_phase"][1][:2].tolist() == ["a", "b"]


@pytest.mark.parametrize("suffix", ["json", "xlsx"])
def test_coordinates_of_a_file_are_kept(feeder, small_net, tmp_path, suffix):
    net, path = small_net(False), tmp_path / f"net.{suffix}"
    net.bus["geo"] = [
        f'{{"coordinates": [{8.5 + i / 10}, {47.0 - i / 10}], "type": "Point"}}' for i in range(9)
    ]
    net.bus.loc[3, "geo"] = None
    (pp.to_json if suffix == "json" else pp.to_excel)(net, str(path))
    buses = feeder(str(path)).grid.buses
    assert buses.x[[0, 1, 8]] == pytest.approx([8.5, 8.6, 9.3])
    assert buses.y[[0, 1, 8]] == pytest.approx([47.0, 46.9, 46.2])
    assert np.flatnonzero(np.isnan(buses.x)).tolist() == [3]


def test_cached_arrays_are_the_same(feeder):
    first, second = feeder("cigre_mv").grid, feeder("cigre_mv").grid
    assert first.three_phase is False
    assert second.three_phase is False
    assert np.array_equal(first.lines.r1_ohm, second.lines.r1_ohm)
    assert first.buses.name.tolist() == second.buses.name.tolist()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(flipped(path.read_bytes(), 300)),
        lambda path: np.savez(path, three_phase=False),
        lambda path: np.savez(path, three_phase=np.array([1, 2, 3])),
    ],
    ids=["empty", "zeroed", "truncated", "a bit flipped", "tables missing", "other content"],
)
def test_a_damaged_cache_is_as_good_as_none(feeder, monkeypatch, tmp_path, spoil):
    monkeypatch.setenv("EVGRID_CACHE", str(tmp_path / "cache"))
    first = feeder("case33bw").grid
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    spoil(kept)
    again = feeder("case33bw").grid
    assert again.lines.r1_ohm.tolist() == first.lines.r1_ohm.tolist()
    assert again.buses.name.tolist() == first.buses.name.tolist()
    assert kept.read_bytes() == whole  # put right


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("folder", ["file/below", "nul\0here"])
def test_a_cache_that_cannot_be_written_is_as_good_as_none(feeder, monkeypatch, tmp_path, folder):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("evgrid.core.cache_folder.cache_folder", lambda: tmp_path / folder)
    assert len(feeder("case33bw").grid.lines.name) == 37
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_nothing_in_the_cache(feeder, monkeypatch, tmp_path):
    monkeypatch.setenv("EVGRID_CACHE", str(tmp_path / "cache"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(feeder("case33bw").grid.lines.name) == 37
    assert not list((tmp_path / "cache").iterdir())


def test_a_cached_network_is_solved_without_importing_pandapower(feeder):
    feeder("case33bw")
    code = (
        "import sys, numpy as np\n"
        "from evgrid.feeder.networks import load_network\n"
        "from evgrid.feeder.solvers import make_solver\n"
        "from evgrid.scenario.feeder import Feeder\n"
        "network = load_network(Feeder(network='case33bw'))\n"
        "make_solver(network, 'power-grid-model').solve(np.ones((1, 32, 1)), np.zeros((1, 32, 1)))\n"
        "assert 'pandapower' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- refusals


def test_unknown_network_suggests_the_nearest(feeder):
    with pytest.raises(
        NetworkError, match=r"unknown network; did you mean 'european_lv'. built-in are"
    ) as caught:
        feeder("europian_lv")
    assert all(name in str(caught.value) for name in BUILT_IN)


def test_missing_and_broken_files(feeder, tmp_path):
    with pytest.raises(NetworkError, match=r"there is no file .*absent\.json"):
        feeder(str(tmp_path / "absent.json"))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(NetworkError, match="the file is no JSON"):
        feeder(str(broken))
    broken.write_text('{"a": 1}')
    with pytest.raises(NetworkError, match=r"holds no pandapower net|can't be read"):
        feeder(str(broken))


def add_trafo3w(net):
    mv = pp.create_bus(net, 10.0)
    pp.create_transformer3w_from_parameters(
        net, 1, mv, 8, 20.0, 10.0, 0.4, 1, 1, 1, 5, 5, 5, 1, 1, 1, 0, 0, name="X"
    )


REFUSED = {
    "xward": (lambda net: pp.create_xward(net, 3, 1, 1, 1, 1, 0.1, 0.1, 1.0, name="X"), "xward 0 'X' can't"),
    "dcline": (lambda net: pp.create_dcline(net, 2, 5, 0.01, 0, 0, 1, 1, name="X"), "dcline 0 'X' can't"),
    "unequal impedance": (lambda net: pp.create_impedance(net, 2, 5, 0.1, 0.1, 1, 0.2, 0.1, name="X"),
                          "impedance 0 'X' can't .*it is not the same from both ends"),
    "impedance across": (lambda net: pp.create_impedance(net, 1, 5, 0.1, 0.1, 1, name="X"),
                         "impedance 0 'X' can't .*it joins two voltage levels"),
    "svc": (lambda net: pp.create_svc(net, 3, 1, -1, 1, 90, name="X"), "svc 0 'X' can't"),
    "trafo3w with a tap at the star point": (
        lambda net: (add_trafo3w(net), net.trafo3w.__setitem__("tap_at_star_point", True),
                     net.trafo3w.__setitem__("tap_pos", 1.0), net.trafo3w.__setitem__("tap_neutral", 0.0)),
        "trafo3w 0 'X' can't .*its tap changer is at the star point"),
    "shares": (lambda net: pp.create_load(net, 3, 0.01, const_z_p_percent=50, const_i_p_percent=60, name="X"),
               r"load 2 'X' can't .*const_z_p_percent \+ const_i_p_percent = 110, must be at most 100"),
    "tap table": (lambda net: net.trafo.__setitem__("tap_dependency_table", True),
                  "trafo 0 'T1' can't .*characteristic table"),
    "tap type": (lambda net: net.trafo.__setitem__("tap_changer_type", "Ideal"),
                 "trafo 0 'T1' can't .*tap_changer_type = Ideal"),
    "empty cell": (lambda net: net.line.loc.__setitem__((slice(None), "r_ohm_per_km"), np.nan),
                   r"line 0 has no r_ohm_per_km \(nor have 6 more\)"),
    "load without power": (lambda net: net.load.__setitem__("p_mw", np.nan),
                           r"load 0 'sym' has no p_mw \(nor have 1 more\)"),
    "ideal trafo": (lambda net: net.trafo.__setitem__("vk_percent", 0.0),
                    "trafo 0 'T1' can't .*vk_percent = 0 with vkr_percent = 1.2, must be above 0"),
    "shunt table": (lambda net: net.shunt.__setitem__("step_dependency_table", True),
                    "shunt 0 can't .*its steps follow a characteristic table"),
    "shunt without source": (
        lambda net: pp.create_shunt(net, pp.create_bus(net, 0.4, name="far"), 1, name="X"),
        "shunt 'X' is at bus 'far', which no source feeds"),
    "coordinates": (lambda net: net.bus.__setitem__("geo", '{"type": "Point", "coordinates": [1]}'),
                    "bus 0 'B0' has geo = .*: must be a GeoJSON point, or empty"),
    "no source": (lambda net: net.ext_grid.__setitem__("in_service", False), "has no ext_grid in service"),
    "no bus": (lambda net: net.bus.__setitem__("in_service", False),
               "has no ext_grid in service, at a bus in service"),
    "load without source": (lambda net: pp.create_load(net, pp.create_bus(net, 0.4, name="far"), 1, name="X"),
                            "load 'X' is at bus 'far', which no source feeds"),
    "joined voltages": (lambda net: pp.create_switch(net, 1, 3, "b"),
                        r"buses 'B1' and 'B3' are joined by a closed switch but have 20 and 0\.4 kV"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_represented_is_named(case, feeder, small_net):
    change, message = REFUSED[case]
    net = small_net(False)
    change(net)
    with pytest.raises(NetworkError, match=message):
        feeder(net)


def test_the_message_names_the_solver_and_all_faults(feeder, small_net):
    net = small_net(False)
    pp.create_svc(net, 3, 1, -1, 1, 90, name="G")
    pp.create_xward(net, 3, 1, 1, 1, 1, 0.1, 0.1, 1.0, name="S")
    with pytest.raises(NetworkError, match="2 faults") as caught:
        feeder(net, solver="pandapower")
    assert "svc 0 'G' can't be represented with the solver pandapower" in str(caught.value)
    assert "xward 0 'S'" in str(caught.value)


def test_out_of_service_elements_are_left_out(feeder, small_net):
    net = small_net(False)
    pp.create_gen(net, 3, 0.01, in_service=False)
    pp.create_load(net, 3, 1.0, in_service=False)
    pp.create_bus(net, 0.4, in_service=False)
    assert feeder(net).sizes["connection"] == 2


def test_asymmetric_loads_need_zero_sequence_data(feeder, small_net):
    net = small_net(True)
    net.line.loc[2, "r0_ohm_per_km"] = np.nan
    del net.trafo["vk0_percent"]
    with pytest.raises(NetworkError, match="line 2 has no r0_ohm_per_km, needed in three phases") as caught:
        feeder(net)
    assert "trafo 0 'T1' has no vk0_percent" in str(caught.value)


def test_unbalanced_loads_of_unknown_type_are_refused(feeder, small_net):
    net = small_net(True)
    net.asymmetric_load["type"] = "PV"
    with pytest.raises(
        NetworkError, match=r"asymmetric_load 0 'asym' can't .*its type is 'PV', must be 'wye'"
    ):
        feeder(net)


def test_a_transformer_without_vector_group_is_named(feeder, small_net):
    net = small_net(True)
    net.trafo["vector_group"] = None
    message = r"trafo 0 'T1' has no vector_group, .* choose feeder.zero_sequence: \{recipe: four_wire\}"
    with pytest.raises(NetworkError, match=message):
        feeder(net)


def test_pandapower_functions_by_name(feeder):
    assert feeder("pandapower:create_kerber_landnetz_freileitung_1").sizes["connection"] == 13
    assert feeder("pandapower:create_cigre_network_mv?with_der=all").sizes["bus"] == 15
    with pytest.raises(NetworkError, match=r"has no network create_kerber; did you mean create_kerber_"):
        feeder("pandapower:create_kerber")
    with pytest.raises(NetworkError, match=r"pandapower:create_bus"):
        feeder("pandapower:create_bus")


def test_simbench_without_the_package(feeder, monkeypatch):
    monkeypatch.setitem(sys.modules, "simbench", None)
    with pytest.raises(NetworkError, match=r"needs the package simbench; pip install 'evgrid\[simbench\]'"):
        feeder("simbench:1-LV-rural1--0-no_sw")
