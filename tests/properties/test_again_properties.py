"""A tick that is taken again leaves nothing behind of the times before, whatever the fleet is asked to do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.core.model import MemoryRecorder
from evgrid.fleet.model import FleetModel
from evgrid.fleet.sessions import fleet_tables
from evgrid.scenario import scenario_from

COUNT, MEMBERS, TICKS, STEP_S = 12, 2, 40, 900.0
FLEET = {
    "count": COUNT,
    "sessions": "home",
    "charger": {
        "power_kw": 7.4, "bidirectional": 0.7, "minimum_current_a": 6, "ramp_kw_per_s": 0.01,
        "functions": {
            "volt_var": "ieee_1547_b", "volt_watt": "ieee_1547_b", "trips": "II", "nominal_hz": 50,
            "charging_limit": {"points": [[0.85, 0], [0.95, 100]], "response_s": 60}, "capable": 0.8,
        },
    },
    "vehicle": {
        "losses": "by_power", "standby_kw": 0.05, "temperature": {"ambient": 3},
        "degradation": {"battery_price": 139},
    },
    "permission": {"warranty": {"throughput_kwh": 20, "hours": 3}, "driver": {"window": [8, 22]}},
    "reserve_horizon": "30min",
}  # fmt: skip
LINK = {"latency": "20min", "loss": 0.2, "outages_per_day": 4, "timeout": "1h", "telemetry": "15min"}


@pytest.fixture(scope="module")
def world(feeder_of_module):
    """Scenario of a coupling, static facts."""
    connections = feeder_of_module.connections

    def make(mode):
        scenario = scenario_from(
            {
                "name": "again",
                "time": {"start": "2026-01-15T14:00", "duration": TICKS * STEP_S, "step": STEP_S},
                "ensemble": {"members": MEMBERS, "seed": 5},
                "feeder": {"network": "cigre_lv"},
                "fleet": FLEET,
                "aggregators": {"main": {"strategy": "tou"}},
                "tariff": "pge_ev2a",
                "communication": LINK,
                "record": {"ev": True},
                "coupling": mode,
            }
        )
        return scenario, connections, *fleet_tables(scenario, connections)

    return make


@pytest.fixture(scope="module")
def feeder_of_module():
    from evgrid.feeder.networks import load_network
    from evgrid.scenario.feeder import Feeder

    return load_network(Feeder(network="cigre_lv"))


def voltages(rng, shape):
    """Some healthy, some not, some dead."""
    volts = rng.uniform(0.82, 1.12, shape)
    volts[rng.random(shape) < 0.05] = 0.0
    return {"feeder/voltage": volts}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), times=st.integers(1, 3))
def test_again_is_the_tick_from_its_beginning(world, seed, times):
    rng = np.random.default_rng(seed)
    once, often = MemoryRecorder(), MemoryRecorder()
    straight = FleetModel(*world("lagged"), once, managed=True)
    repeated = FleetModel(*world("iterated"), often, managed=True)
    shape = straight._p.shape
    for tick in range(TICKS):
        setpoint = rng.uniform(-9, 9, COUNT * MEMBERS)
        grid = voltages(rng, shape)
        given = straight.step(tick * STEP_S, {"aggregator/setpoint": setpoint, **grid})
        inputs = {"aggregator/setpoint": setpoint}
        repeated.step(tick * STEP_S, inputs | voltages(rng, shape))
        for _ in range(times):
            repeated.again(tick * STEP_S, inputs | voltages(rng, shape))
        repeated._iteration.fixed_point._last[:] = False  # whatever stood goes on: the last call counts
        repeated._iteration.fixed_point.moving[:] = True
        got = repeated.again(tick * STEP_S, inputs | grid)
        assert got.keys() <= given.keys()
        for name in set(got) - {"fleet/p", "fleet/q"}:  # those are damped
            np.testing.assert_array_equal(got[name], given[name], err_msg=name)
        np.testing.assert_array_equal(repeated._p, straight._p)
        np.testing.assert_array_equal(repeated._q, straight._q)
    straight.finish()
    repeated.finish()
    for name, values in once.static.items():
        np.testing.assert_array_equal(often.static[name], values, err_msg=name)
    for name in once.timed:
        np.testing.assert_array_equal(often.series(name), once.series(name), err_msg=name)
    for name, values in straight.audit().items():
        np.testing.assert_array_equal(repeated.audit()[name], values, err_msg=name)
    assert np.nansum(once.static["session_energy_delivered_kwh"]) > 10
