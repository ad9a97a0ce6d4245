"""The fleet's cycle ageing is rainflow of the whole trajectory of SOC, at any tick.

The trajectory is that of the fleet's plain-Python twin; the count is the standard's, over all of it at once.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import fleet as reference
from tests.oracles.rainflow import loss_by_rainflow
from tests.support.drawn_fleets import connections_of, scenario_of, single, table

from evgrid.core.model import MemoryRecorder
from evgrid.fleet import degradation
from evgrid.fleet.model import FleetModel

AWAY_C_RATE = 0.3
QUARTER_S, QUARTERS = 900.0, 16


def trail_of(sessions, accounts):
    """All sessions of an EV one after the other, with the drives between."""
    trail = [(sessions[0].soc_arrival, 0.0)]
    for number, (session, account) in enumerate(zip(sessions, accounts, strict=True)):
        if number:
            gone = sessions[number - 1]
            way = abs(session.soc_arrival - trail[-1][0])
            rate = AWAY_C_RATE
            if session.arrival_s > gone.departure_s:
                rate = max(rate, way * 3600 / (session.arrival_s - gone.departure_s))
            trail.append((session.soc_arrival, rate * way))
        trail += [(soc, square / 3600 / session.capacity_kwh**2) for _, soc, square in account.trail]
    return trail


def aged(sessions, chemistry, asked, step):
    """Batteries, new at the start, after the run, and its results; ``asked``: (quarter hour, ev) kW."""
    ticks = round(QUARTERS * QUARTER_S / step)
    vehicle = {
        "chemistry": chemistry, "degradation": {"age_years": 0.0, "full_cycles_per_year": 0.0},
    }  # fmt: skip
    scenario = scenario_of(step, ticks, fleet={"count": 1, "vehicle": vehicle})
    world = connections_of(len(sessions)), single(sessions), table(sessions)
    model = FleetModel(scenario, *world, MemoryRecorder(), True)
    for tick in range(ticks):
        model.step(tick * step, {"aggregator/setpoint": asked[int(tick * step // QUARTER_S)]})
    model.finish()
    return model._extras.details.ageing


def share_of(low, high):
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def visits(draw):
    """One or two sessions of an EV of any size that any limit may end."""
    marks = sorted(draw(st.lists(st.integers(0, 5 * 60), min_size=2, max_size=4, unique=True)))
    capacity = draw(share_of(15, 80))
    return [
        reference.Session(
            arrival_s=60.0 * a, departure_s=60.0 * b, soc_arrival=draw(share_of(0.05, 0.95)),
            soc_target=draw(share_of(0.3, 1.0)), capacity_kwh=capacity, charge_kw=draw(share_of(3, 22)),
            discharge_kw=draw(share_of(3, 22)), soc_floor=draw(share_of(0.0, 0.3)),
            taper_soc=draw(share_of(0.5, 0.9)), charge_loss=(0.05, 0.05, 1e-3),
            discharge_loss=(0.05, 0.05, 1e-3),
        )
        for a, b in zip(marks[::2], marks[1::2], strict=False)
    ]  # fmt: skip


asked = st.one_of(share_of(1.0, 22.0), share_of(-22.0, -1.0), st.sampled_from([0.0, np.inf]))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["nmc", "lfp"]), visits(),
    st.lists(asked, min_size=QUARTERS, max_size=QUARTERS),
)  # fmt: skip
def test_cycle_ageing_is_rainflow_of_the_trajectory_at_any_tick(chemistry, sessions, quarters):
    _, accounts = reference.simulate(sessions, lambda tick: quarters[tick], QUARTER_S, QUARTERS)
    begun = [s for s in sessions if s.arrival_s < QUARTERS * QUARTER_S]
    expected = 0.0
    if begun:
        expected = loss_by_rainflow(chemistry, trail_of(begun, accounts[: len(begun)]))
    of_tick = [aged([sessions], chemistry, np.array(quarters)[:, None], step) for step in (900.0, 60.0, 4.0)]
    for battery in of_tick:
        # 4-byte states of charge: 6e-8 of ranges of at least 1e-5 or so
        assert degradation.cycle_loss(battery)[0] == pytest.approx(expected, rel=0.01, abs=1e-8)
    for battery in of_tick[1:]:
        for loss in (degradation.cycle_loss, degradation.calendar_loss):
            assert loss(battery)[0] == pytest.approx(loss(of_tick[0])[0], rel=1e-4, abs=1e-9)
