"""Runs of a few EVs whose sessions a test writes down, each EV at a connection of its own."""

import numpy as np
from tests.oracles.fleet import Session

from evgrid.core.model import ALL_PHASES, Connections, EVs, MemoryRecorder
from evgrid.fleet.model import FleetModel
from evgrid.fleet.sessions import Sessions
from evgrid.scenario import scenario_from

HOUR = 3600.0
INF = float("inf")


def car(arrival=0.0, departure=24 * HOUR, soc=0.5, target=1.0, charge=7.2, **rest):
    return Session(arrival, departure, soc, target, rest.pop("capacity", 60.0), charge, **rest)


def feeder(phases=("a", "b", "c"), of=(0, 1, ALL_PHASES)):
    n = len(of)
    zero = np.zeros(n, np.int64)
    return Connections(
        np.array([f"L{i}" for i in range(n)]), zero, np.array(of, np.int8), zero, zero + 1, phases
    )


def table(*evs):
    """The session table of EVs, each a list of sessions."""
    flat = [(i, s) for i, own in enumerate(evs) for s in own]
    column = {
        name: np.array([getattr(s, name) for _, s in flat], float) for name in Session.__dataclass_fields__
    }
    column["charge_loss"] = column["charge_loss"].reshape(-1, 3)
    column["discharge_loss"] = column["discharge_loss"].reshape(-1, 3)
    return Sessions(ev=np.array([i for i, _ in flat], np.int32), **column)


class Run:
    """A run of EVs (one list of sessions each), each at a connection of its own."""

    def __init__(
        self, *evs, step, hours, setpoint=None, connections=None, phase=None, extra=None, members=None
    ):
        self.scenario = scenario_from(
            {
                "name": "test",
                "time": {"start": "2026-01-15T12:00", "duration": hours * HOUR, "step": step},
                "ensemble": {"members": max(members) + 1 if members else 1},
                "feeder": {"network": "x"},
                "fleet": {"count": 1},
                **(extra or {}),
            }
        )
        self.connections = connections or feeder(of=(0,) * len(evs))
        n = len(evs)
        self.evs = EVs(
            np.array(members or [0] * n), np.arange(n) % len(self.connections),
            np.array(phase if phase is not None else [0] * n, np.int8),
            np.array([f"ev{i}" for i in range(n)]),
        )  # fmt: skip
        self.recorder = MemoryRecorder()
        managed = setpoint is not None
        self.model = FleetModel(
            self.scenario, self.connections, self.evs, table(*evs), self.recorder, managed
        )
        self.p, self.reports = [], []
        for tick in range(self.scenario.clock.ticks):
            inputs = {}
            if managed:
                asked = setpoint(tick * step) if callable(setpoint) else setpoint
                inputs["aggregator/setpoint"] = np.broadcast_to(np.array(asked, float), (n,))
            out = self.model.step(tick * step, inputs)
            self.p.append(out["fleet/p"].copy())
            if "fleet/soc" in out:
                self.reports.append({name: values.copy() for name, values in out.items()})
        self.model.finish()
        self.p = np.array(self.p)

    def __getitem__(self, name):
        return self.recorder.static[name]

    @property
    def power(self):
        """Power of all EVs in each tick."""
        return self.p.sum(axis=(1, 2, 3))
