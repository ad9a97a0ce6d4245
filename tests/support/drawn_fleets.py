"""Fleets with any sessions and set-points, as hypothesis draws them, and how they are run."""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from tests.oracles import fleet as reference

from evgrid.core.model import ALL_PHASES, Connections, EVs, MemoryRecorder
from evgrid.fleet.model import FleetModel
from evgrid.fleet.sessions import Sessions
from evgrid.scenario import scenario_from

INF = float("inf")
COLUMNS = tuple(reference.Session.__dataclass_fields__)


def scenario_of(step, ticks, members=1, first=0, **extra):
    return scenario_from(
        {
            "name": "test",
            "time": {"start": "2026-01-15T12:00", "duration": step * ticks, "step": step},
            "ensemble": {"members": members, "first": first, "seed": 3},
            "feeder": {"network": "x"},
            "fleet": {"count": 1},
            **extra,
        }
    )


def connections_of(n):
    index = np.arange(n)
    phase = np.where(index % 4 == 3, ALL_PHASES, index % 4).astype(np.int8)
    return Connections(
        np.array([f"L{i}" for i in range(n)]), index, phase, index * 0, index * 0 + 1, tuple("abc")
    )


def table(evs):
    flat = [(i, s) for i, own in enumerate(evs) for s in own]
    column = {name: np.array([getattr(s, name) for _, s in flat], float) for name in COLUMNS}
    column["charge_loss"] = column["charge_loss"].reshape(-1, 3)
    column["discharge_loss"] = column["discharge_loss"].reshape(-1, 3)
    return Sessions(ev=np.array([i for i, _ in flat], np.int32), **column)


def run(scenario, connections, evs, sessions, setpoint=None):
    """``setpoint``: (tick, ev), or None for an unmanaged fleet. Returns p per tick, the model, results."""
    recorder = MemoryRecorder()
    model = FleetModel(scenario, connections, evs, sessions, recorder, setpoint is not None)
    step = scenario.time.step
    powers = []
    for tick in range(scenario.clock.ticks):
        inputs = {} if setpoint is None else {"aggregator/setpoint": setpoint[tick]}
        powers.append(model.step(tick * step, inputs)["fleet/p"].copy())
    model.finish()
    return np.array(powers), model, recorder


def single(evs):
    n = len(evs)
    return EVs(
        np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int8), np.array([f"e{i}" for i in range(n)])
    )


share = st.floats(0, 1)
losses = st.one_of(
    st.tuples(st.just(0.0), st.floats(0, 0.3), st.just(0.0)),
    st.tuples(st.floats(0, 0.1), st.floats(0, 0.2), st.floats(0, 5e-3)),
)


@st.composite
def ev_sessions(draw, end=4 * 3600.0):
    """One EV's sessions: up to three, one after the other, sometimes in touch."""
    marks = sorted(draw(st.lists(st.floats(0, 1.3), min_size=2, max_size=6, unique=True)))
    pairs = list(zip(marks[::2], marks[1::2], strict=False))
    if draw(st.booleans()):
        pairs = list(pairwise(marks))
    return [
        reference.Session(
            arrival_s=a * end,
            departure_s=b * end,
            soc_arrival=draw(share),
            soc_target=draw(st.one_of(share, st.just(1.0))),
            capacity_kwh=draw(st.floats(5, 100)),
            charge_kw=draw(st.floats(1, 22)),
            discharge_kw=draw(st.one_of(st.just(0.0), st.floats(0.5, 22))),
            soc_floor=draw(share),
            taper_soc=draw(st.floats(0.1, 0.95)),
            charge_loss=draw(losses),
            discharge_loss=draw(losses),
        )
        for a, b in pairs
        if b * end - a * end > 1.0 and a < 1
    ]


setpoints = st.one_of(st.floats(-25, 25), st.sampled_from([0.0, INF, -INF, 1e-9, -1e-9]))


@st.composite
def runs(draw):
    evs = [own for own in draw(st.lists(ev_sessions(), min_size=1, max_size=4)) if own]
    step = draw(st.sampled_from([240.0, 900.0, 3600.0]))
    ticks = round(4 * 3600 / step)
    held = draw(st.lists(st.tuples(*[setpoints] * len(evs)), min_size=4, max_size=4))
    return evs, step, np.array([held[t * 4 // ticks] for t in range(ticks)]).reshape(ticks, len(evs))
