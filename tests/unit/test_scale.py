"""Memory grows with the size of a network, not with its square, and not with the length of a run."""

import gc
import tracemalloc

import numpy as np
import pandapower as pp
import pytest
from tests.support.substation import substation

from evgrid.errors import ScenarioError
from evgrid.feeder import model as feeder_model
from evgrid.feeder.model import FeederModel
from evgrid.feeder.networks import load_network
from evgrid.feeder.solvers import make_solver, opendss_z_bus
from evgrid.runs.memory import check_memory, memory_of
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder


class Nowhere:
    """A recorder that keeps nothing."""

    def put(self, name, tick, values):
        pass

    def put_static(self, name, values):
        pass


@pytest.fixture
def built(tmp_path):
    def built(**size):
        path = tmp_path / f"{'_'.join(map(str, size.values()))}.json"
        pp.to_json(substation(**size), str(path))
        return load_network(Feeder(network=str(path)))

    return built


def peak_of(work):
    """Largest memory that a call has taken at once, bytes."""
    gc.collect()
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def solve(network, cases=4):
    loads = network.grid.loads
    scale = np.linspace(0.5, 1.0, cases)[:, np.newaxis, np.newaxis]
    return make_solver(network, "z-bus").solve(scale * loads.p_kw, scale * loads.q_kvar)


@pytest.mark.parametrize("three_phase", [True, False])
def test_a_network_twice_as_large_takes_twice_the_memory(three_phase, built):
    """A dense matrix of ports by ports, or of nodes by ports, would take four times as much."""
    small, large = (built(feeders=n, transformers=8, houses=40, three_phase=three_phase) for n in (1, 2))
    assert large.sizes["connection"] == 640
    solve(small)  # compiles
    assert peak_of(lambda: solve(large)) < 2.5 * peak_of(lambda: solve(small))


def test_a_run_four_times_as_long_takes_the_same_memory(built, monkeypatch):
    network = built(feeders=1, transformers=8, houses=40, three_phase=True)  # much beside Python itself
    monkeypatch.setattr(feeder_model, "BATCH_BYTES", 4 * feeder_model._case_bytes(network))

    def run(hours):
        scenario = scenario_from(
            {
                "name": "long", "time": {"start": "2026-01-15T00:00", "duration": hours * 3600, "step": 900},
                "feeder": {"network": "european_lv", "base_load": {"source": "net"}},
            }
        )  # fmt: skip
        model = FeederModel(scenario, network, Nowhere(), fleet=False, feedback=False)
        for step in range(scenario.clock.ticks):
            model.step(900.0 * step, {})
        model.finish()

    run(1)  # compiles
    assert peak_of(lambda: run(16)) < 1.5 * peak_of(lambda: run(4))


@pytest.mark.parametrize(("room", "gathered"), [(10**12, 1000), (7.5, 7), (0.5, 1)])
def test_power_flows_are_gathered_as_far_as_there_is_room(room, gathered, monkeypatch):
    """A thousand for a street by default, fewer for a substation, and one at least."""
    content = {"name": "n", "time": {"start": "2026-01-15T00:00", "duration": "1h", "step": 900}}
    scenario = scenario_from(content | {"feeder": {"network": "european_lv"}})
    network = load_network(scenario.feeder)
    assert 1000 * feeder_model._case_bytes(network) <= feeder_model.BATCH_BYTES
    monkeypatch.setattr(feeder_model, "BATCH_BYTES", int(room * feeder_model._case_bytes(network)))
    model = FeederModel(scenario, network, Nowhere(), fleet=False, feedback=False)
    assert model._gather == gathered


def test_blocks_of_an_opendss_batch_leave_its_numbers_as_they_are(tmp_path, monkeypatch):
    pytest.importorskip("dss")
    path = tmp_path / "net.dss"
    path.write_text(
        "New Circuit.c basekv=12.47 bus1=src\nNew Line.l bus1=src bus2=b r1=1 x1=1\n"
        "New Load.x bus1=b kv=12.47 kw=500 kvar=100\nSet voltagebases=[12.47]\nCalcVoltageBases\n"
    )
    network = load_network(Feeder(network=str(path)))
    whole = solve(network, 7)
    monkeypatch.setattr(opendss_z_bus, "BLOCK_BYTES", 1)
    solver = make_solver(network, "z-bus")
    assert solver._block == 1
    for name, values in solve(network, 7).tables().items():
        assert np.array_equal(values, whole.tables()[name], equal_nan=True), name


def test_sensitivities_of_a_large_network_are_refused_before_they_are_taken(built, monkeypatch):
    """Strategies that go by voltages need the voltage at each connection point by the power at each."""
    network = built(feeders=1, transformers=8, houses=40, three_phase=False)
    scenario = scenario_from(
        {
            "name": "large", "time": {"start": "2026-01-15T00:00", "duration": "1h", "step": 900},
            "feeder": {"network": "case33bw"}, "fleet": {"count": 1},
            "aggregators": {"main": {"strategy": "voltage_support"}},
        }
    )  # fmt: skip
    assert memory_of(scenario, network)["aggregators.main.strategy (by voltages)"] == 4 * 8 * 320**2
    monkeypatch.setattr("evgrid.runs.memory.memory_of", lambda *_: {"aggregators.main.strategy": 2e9})
    monkeypatch.setattr("evgrid.runs.memory.memory_of_machine", lambda: 1e9)
    with pytest.raises(ScenarioError, match=r"aggregators.main.strategy: the run would take about 2 GB"):
        check_memory(scenario, network)
