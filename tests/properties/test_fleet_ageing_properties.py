"""The fleet's cycle ageing is rainflow of the whole trajectory of SOC, at any tick.

The trajectory is that of the fleet's plain-Python twin; the count is the standard's, over all of it at once.
"""

import importlib.util
from itertools import pairwise
from math import exp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.fleet import degradation, reference
from evgrid.fleet.model import FleetModel
from evgrid.model import MemoryRecorder

_spec = importlib.util.spec_from_file_location("plain", Path(__file__).with_name("test_fleet_properties.py"))
plain = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)

AWAY_C_RATE = 0.3
POWER = {"nmc": 0.5, "lfp": 0.828}
QUARTER_S, QUARTERS = 900.0, 16
OPEN_CIRCUIT_V = degradation.OPEN_CIRCUIT_V


def rms_v(low, high):
    """By Simpson's rule on the straight pieces of the curve, on which it is exact."""
    edges = np.unique(np.clip(np.concatenate([[low, high], np.linspace(0, 1, 21)]), low, high))
    a, b = (np.interp(edges[part], np.linspace(0, 1, 21), OPEN_CIRCUIT_V) for part in (np.s_[:-1], np.s_[1:]))
    return np.sqrt(np.sum((a * a + 4 * ((a + b) / 2) ** 2 + b * b) / 6 * np.diff(edges)) / (high - low))


def share(chemistry, low, high, travelled, c_rate, kelvin):
    """What a range adds to the loss ** (1 / p), as published; ``travelled``: charge moved, per capacity."""
    if chemistry == "nmc":
        k = 7.348e-3 * (rms_v(low, high) - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * (high - low)
        return k**2 * 2.15 * travelled
    k = (4.38e-8 + 1.55e-8 * (high - low) + 1.68e-7 * c_rate) * (exp(2190 / kelvin) + exp(-1.55e5 / kelvin))
    return k ** (1 / 0.828) * travelled / 2


def loss_by_rainflow(chemistry, trail, kelvin=298.15):
    """Cycle loss of a whole trail of (SOC, integral of the C-rate over the SOC moved to it)."""
    turns = [[trail[0][0], 0.0]]
    for soc, c_soc in trail[1:]:
        if soc == turns[-1][0]:
            continue
        if len(turns) > 1 and (soc > turns[-1][0]) == (turns[-1][0] > turns[-2][0]):
            turns[-1] = [soc, turns[-1][1] + c_soc]
        else:
            turns.append([soc, c_soc])
    total, open_ = 0.0, []
    for turn in turns:
        open_.append(list(turn))
        while len(open_) > 2:
            (a, to_a), (b, to_b), (c, to_c) = open_[-3:]
            if abs(c - b) < abs(b - a):
                break
            depth = abs(b - a)
            if len(open_) == 3:
                total += share(chemistry, min(a, b), max(a, b), depth, to_b / depth, kelvin)
                del open_[0]
                continue
            part = to_c * depth / abs(c - b)
            total += share(chemistry, min(a, b), max(a, b), 2 * depth, (to_b + part) / (2 * depth), kelvin)
            open_[-3:] = [[c, to_a + to_c - part]]
    for (a, _), (b, to_b) in pairwise(open_):
        total += share(chemistry, min(a, b), max(a, b), abs(b - a), to_b / abs(b - a), kelvin)
    return total ** POWER[chemistry]


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
    scenario = plain.scenario_of(step, ticks, fleet={"count": 1, "vehicle": vehicle})
    world = plain.connections_of(len(sessions)), plain.single(sessions), plain.table(sessions)
    model = FleetModel(scenario, *world, MemoryRecorder(), True)
    for tick in range(ticks):
        model.step(tick * step, {"aggregator/setpoint": asked[int(tick * step // QUARTER_S)]})
    model.finish()
    return model._extras.ageing


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
