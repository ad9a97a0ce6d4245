"""Runs of a few sites and their EVs, with load, PV, sessions and outages that a test writes down, without
feeder.
"""

from dataclasses import replace

import numpy as np
from tests.support.fleet import HOUR, feeder, table

from evgrid.core.model import EVs, MemoryRecorder
from evgrid.core.slots import Slots
from evgrid.federation.inline import step_in_line
from evgrid.fleet.commands import Commands
from evgrid.fleet.extras import in_force, may_discharge
from evgrid.fleet.model import FleetModel
from evgrid.scenario import scenario_from
from evgrid.sites.model import SitesModel, segment_rows
from evgrid.sites.tables import site_table

ALWAYS_ALLOWED = {"approval": "export"}
INSTANT = {"detection": 0, "black_start": 0, "return_wait": 0, "ramp": 0}


def home(evs=(), load=1.0, pv=0.0, outages=(), connected=True, **settings):
    """A site: sessions of its EVs, load and PV in kW (constants, or (edges in h, values)), outages in h."""
    if connected:
        settings.setdefault("interconnection", ALWAYS_ALLOWED)
    return {"evs": evs, "load": load, "pv": pv, "outages": outages, "connected": connected, **settings}


class NoLoad:
    """A base load of 0."""

    def changes(self, begin_s, end_s):
        return np.array([begin_s, end_s])

    def at(self, times_s, until_s=None):
        zero = np.zeros((len(times_s), 1, 40, 3))
        return zero, zero


class Given:
    """Profiles that a test gives: of each row edges in h and kW; a row of the table's own times a factor."""

    def __init__(self, own, factors, more):
        self._own, self._factors, self._more = own, factors, more
        self.rows = own.rows + len(more)

    @staticmethod
    def _shape(given):
        if np.isscalar(given):
            return np.array([0.0, np.inf]), np.array([float(given)])
        edges, values = given
        return np.array([*edges, np.inf]) * HOUR, np.array(values, float)

    def slots(self, begin_s, end_s):
        own = self._own.slots(begin_s, end_s)
        shapes = [self._shape(given) for given in (*self._factors, *self._more)]
        edges = np.unique(np.concatenate([own.edges_s, *(edges for edges, _ in shapes)]))
        edges = edges[(edges >= begin_s) & (edges <= end_s)]
        values = [kw[edges_s.searchsorted(edges[:-1], "right") - 1] for edges_s, kw in shapes]
        at = own.edges_s.searchsorted(edges[:-1], "right") - 1
        rows = own.kw[:, at] * np.array(values[: self._own.rows]).reshape(-1, len(at))
        return Slots(edges, np.concatenate([rows, np.array(values[self._own.rows :]).reshape(-1, len(at))]))


class Outages:
    def __init__(self, spans_h):
        self.first = np.concatenate([[0], np.cumsum([len(own) for own in spans_h])])
        flat = [(b * HOUR, e * HOUR) for own in spans_h for b, e in own]
        self.begin_s = np.array([b for b, _ in flat])
        self.end_s = np.array([e for _, e in flat])


class Sender:
    """An aggregator that asks the same of each EV in every tick, and notes what was reported until then."""

    name, period_s, outputs, variables = "aggregator", 0.0, ("aggregator/setpoint",), ()
    inputs = ("fleet/p_max", "fleet/p_min", "fleet/p")
    checked, iterates = frozenset(), False

    def __init__(self, step, asked):
        self.period_s, self._asked = step, asked
        self.heard = {name: [] for name in self.inputs}

    def step(self, time_s, inputs):
        for name in self.inputs:
            self.heard[name].append(float(np.sum(inputs[name])))
        asked = self._asked(time_s) if callable(self._asked) else self._asked
        return {"aggregator/setpoint": np.array(asked, float)}

    def finish(self):
        pass


class SiteRun:
    """A run of sites, each at a connection of its own or off grid; ``asked``: set-points of all EVs."""

    def __init__(
        self,
        *homes,
        step,
        hours,
        asked=None,
        vehicle=None,
        permission=None,
        tariff=None,
        cold_load=None,
        start="2026-01-15T00:00",
    ):
        count = len(homes)
        evs = [sessions for one in homes for sessions in one["evs"]]
        at = [i for i, one in enumerate(homes) for _ in one["evs"]]
        settings = [
            {k: v for k, v in one.items() if k not in ("evs", "load", "pv", "outages", "connected")}
            for one in homes
        ]
        sites = {
            f"h{i}": {
                "connections": [f"L{i}"] if one["connected"] else "none",
                "load": {"kw": 1.0}, **own,
                **({} if one["connected"] else {"evs_each": len(one["evs"])}),
            }
            for i, (one, own) in enumerate(zip(homes, settings, strict=True))
        }  # fmt: skip
        content = {
            "name": "sites", "time": {"start": start, "duration": hours * HOUR, "step": step},
            "feeder": {"network": "x"}, "sites": sites,
            "fleet": {"count": 1, "charger": {"bidirectional": 1.0}, "vehicle": vehicle or {},
                      **({"permission": permission} if permission else {})},
        }  # fmt: skip
        if tariff is not None:
            content["tariff"] = tariff
        if cold_load is not None:
            content["outages"] = {"saifi": 1, "caidi": 3600, "cold_load": cold_load}
        self.scenario = scenario_from(content)
        connections = feeder(of=(0,) * count)
        if not all(one["connected"] for one in homes):
            connections = connections.with_upstream()
        place = [i if homes[i]["connected"] else count for i in at]
        self.evs = EVs(
            np.zeros(len(evs), np.int64), np.array(place, np.int64), np.zeros(len(evs), np.int8),
            np.array([f"ev{i}" for i in range(len(evs))], np.str_),
        )  # fmt: skip
        made = site_table(self.scenario, connections, self.evs, NoLoad())
        made = self._with_profiles(made, homes)
        spans = [one["outages"] if one["connected"] else [] for one in homes]
        self.recorder, given = MemoryRecorder(), table(*evs)
        sessions = in_force(self.scenario, connections, self.evs, given)
        managed = asked is not None
        requests = Commands(self.scenario, self.evs, sessions, True, []) if managed else None
        self.sites = SitesModel(
            self.scenario, made, connections, self.evs, sessions,
            may_discharge(self.scenario, connections, self.evs), requests, self.recorder,
            Outages([*spans, *[[]] * (len(connections) - count)]),
        )  # fmt: skip
        self.fleet = FleetModel(
            self.scenario, connections, self.evs, given, self.recorder, managed, at_sites=made.ev
        )
        sizes = {
            "member": 1, "connection": len(connections), "phase": 3, "ev": len(evs), "site_ev": len(made.ev),
            "segment": segment_rows(len(made.ev), step), "segment_field": 6,
        }  # fmt: skip
        self.sender = Sender(step, asked)
        models = [*([self.sender] if managed else []), self.sites, self.fleet]
        step_in_line(models, sizes, self.scenario.clock)

    @staticmethod
    def _with_profiles(made, homes):
        factors = [1.0] * made.profiles.rows
        for site in range(len(made)):
            for circuit in range(made.circuit_first[site], made.circuit_first[site + 1]):
                factors[made.circuit_row[circuit]] = homes[made.group[site]]["load"]
        rows = made.profiles.rows
        pv = [homes[group]["pv"] for group in made.group]
        return replace(made, profiles=Given(made.profiles, factors, pv), pv_row=rows + np.arange(len(made)))

    def total(self, name, site=0):
        """A static variable of a site."""
        return float(self.recorder.static[f"site_{name}"][site])

    def series(self, name, site=0):
        """A timed variable of a site."""
        return self.recorder.series(f"site_{name}")[:, site]

    def session(self, name):
        """A variable of all sessions."""
        return self.recorder.static[f"session_{name}"]
