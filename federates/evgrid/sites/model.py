"""The sites: what is behind each meter, as one model behind a federate.

In: what aggregators ask of the EVs, and the EVs' state of charge at the end of the last tick. Out: the power
of each connection point without its EVs, and the set-points that the EVs at sites follow within the tick
(:class:`evgrid.fleet.kernels.records.Segments`). Sites know the EVs' sessions and the laws of their
batteries, so that what they expect of an EV is what the fleet does.

What happens within a tick is in :mod:`.kernels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import derive_kinds
from evgrid.battery.laws import STAIRS, share_on_stair
from evgrid.battery.records import CURVE, KIND, Kinds
from evgrid.core.jit import in_threads
from evgrid.core.model import ALL_PHASES, Array, Connections, Model, Recorder, Values, Variable
from evgrid.core.model import EVs as EVTable
from evgrid.errors import ScenarioError
from evgrid.scenario import Scenario
from evgrid.scenario.tariffs import MonthlyPeaks, months_of
from evgrid.sites.controls import Planned
from evgrid.sites.horizon import Course, Planner
from evgrid.sites.kernels import advance
from evgrid.sites.records import (
    CIRCUIT,
    CONTROLS,
    EV,
    FLOW,
    LOST,
    ON_GRID,
    RAMPING,
    SITE,
    STATE,
    Answer,
    EVs,
    Inputs,
    Memory,
    Sites,
)
from evgrid.sites.tables import CONTROL_NAMES, SiteTable

PORT = "sites/setpoint"
"""Port of the EVs' set-points within the tick."""

AVAILABLE = "sites/available"
"""Port of the share of its power that each EV may use."""

_ROUNDING_S = 1e-6

AHEAD_S = 86400.0
"""Length of the stretch of load and PV that is held in memory."""

_TIMED = tuple(
    Variable(f"site_{name}", ("site",), unit, text)
    for name, unit, text in (
        ("power_kw", "kW", "power drawn from the grid at the meter; negative: given"),
        ("load_kw", "kW", "load that is served"),
        ("unserved_kw", "kW", "load that is not served"),
        ("pv_kw", "kW", "power of the PV that is used"),
        ("pv_curtailed_kw", "kW", "power of the PV that nobody takes"),
        ("battery_power_kw", "kW", "power of the stationary battery: positive charges"),
        ("generator_kw", "kW", "power of the generator"),
        ("ev_power_kw", "kW", "power of the EVs: positive charges"),
        ("island", "1", "share of the time in which the site is an island"),
    )
)
_SOC = Variable("site_battery_soc", ("site",), "1", "state of charge of the battery, mean of the ticks' ends")
_STATIC = tuple(
    Variable(f"site_{name}", ("site",), unit, text, timed=False)
    for name, unit, text in (
        ("imported_kwh", "kWh", "energy drawn from the grid"),
        ("exported_kwh", "kWh", "energy given to the grid"),
        ("served_kwh", "kWh", "load served"),
        ("unserved_kwh", "kWh", "load not served"),
        ("critical_unserved_kwh", "kWh", "critical load not served"),
        ("pv_kwh", "kWh", "energy of the PV that was used"),
        ("pv_curtailed_kwh", "kWh", "energy of the PV that nobody took"),
        ("battery_in_kwh", "kWh", "energy drawn by the stationary battery"),
        ("battery_out_kwh", "kWh", "energy given by the stationary battery"),
        ("battery_loss_kwh", "kWh", "loss of the stationary battery"),
        ("generated_kwh", "kWh", "energy of the generator that was used"),
        ("ev_in_kwh", "kWh", "energy drawn by the EVs"),
        ("ev_out_kwh", "kWh", "energy given by the EVs"),
        ("dead_kwh", "kWh", "energy over the meter while the grid was dead"),
        ("cut_by_import_kwh", "kWh",
         "energy by which EVs drew less, or gave more, than asked, for breaker or import limit"),
        ("cut_by_export_kwh", "kWh", "energy by which EVs gave less than asked, for the export limit"),
        ("cut_by_reserve_kwh", "kWh", "energy that EVs were asked for and the reserve forbade"),
        ("cut_by_outage_kwh", "kWh", "energy that EVs were asked for and the outage or the return forbade"),
        ("unmet_h", "h", "time in which critical load was not met"),
        ("interruptions", "1", "times at which critical load was not met for more than 5 min (IEEE 1366)"),
    )
)  # fmt: skip

_COST = Variable(
    "site_energy_cost", ("site",), "currency",
    "cost of energy at the meter: drawn at the price, less given at the credit", timed=False,
)  # fmt: skip
_DEMAND = (
    Variable("site_peak_kw", ("site", "month"), "kW",
             "highest power at the meter in the month, mean of the meter's interval", timed=False),
    Variable("site_demand_cost", ("site",), "currency",
             "charge for the highest power of each month at the meter, where the site pays it", timed=False),
)  # fmt: skip


class Outages(Protocol):
    """When connection points are without supply: see :class:`evgrid.core.model.Outages`."""

    @property
    def first(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def begin_s(self) -> Array: ...  # noqa: D102
    @property
    def end_s(self) -> Array: ...  # noqa: D102


class MayDischarge(Protocol):
    """What permits EVs to discharge: see :class:`evgrid.fleet.extras.MayDischarge`."""

    @property
    def refusal(self) -> NDArray[np.int8]: ...  # noqa: D102
    @property
    def island_refusal(self) -> NDArray[np.int8]: ...  # noqa: D102
    @property
    def throughput_kws(self) -> float: ...  # noqa: D102
    @property
    def discharging_s(self) -> float: ...  # noqa: D102
    @property
    def window_h(self) -> tuple[float, float] | None: ...  # noqa: D102


class Requests(Protocol):
    """What aggregators ask of the EVs, after the links to the EVSEs."""

    inputs: tuple[str, ...]

    def at(self, tick: int, time_s: float, inputs: Values) -> Array:
        """Set-points, (ev,) kW; +inf: as fast as it can."""


class SessionTable(Protocol):
    """The sessions of all EVs: see :class:`evgrid.fleet.sessions.Sessions`."""

    @property
    def ev(self) -> NDArray[np.int32]: ...  # noqa: D102
    @property
    def arrival_s(self) -> Array: ...  # noqa: D102
    @property
    def departure_s(self) -> Array: ...  # noqa: D102
    @property
    def soc_arrival(self) -> Array: ...  # noqa: D102
    @property
    def drive_kwh(self) -> Array: ...  # noqa: D102

    def kinds(self) -> tuple[Kinds, NDArray[np.int32]]:
        """The constants that sessions share, and the kind of each session."""


def segment_rows(evs: int, step_s: float) -> int:
    """Most segments of all EVs at sites in a tick, for which the port has room."""
    return evs * (3 + int(np.ceil(step_s / 60.0))) + 64


class SitesModel(Model):
    """All sites of all members.

    Parameters
    ----------
    scenario, table, connections, evs
        Static facts; ``table`` from :func:`evgrid.sites.tables.site_table`.
    sessions
        The sessions as the fleet knows them: with losses by power and the floors of warranty and driver.
    may_discharge
        What permits the EVs to discharge.
    requests
        What aggregators ask of EVs; None: none does, and EVs charge as fast as they can.
    recorder
        Takes the result variables.
    outages
        When connection points are without supply; None: never.

    """

    name = "sites"

    def __init__(
        self,
        scenario: Scenario,
        table: SiteTable,
        connections: Connections,
        evs: EVTable,
        sessions: SessionTable,
        may_discharge: MayDischarge,
        requests: Requests | None,
        recorder: Recorder,
        outages: Outages | None = None,
    ) -> None:
        self.period_s = scenario.time.step
        self._table, self._recorder, self._requests = table, recorder, requests
        self._clock, self._evs = scenario.clock, evs
        self._sites = _sites_of(scenario, table, connections, outages)
        self._ev_facts = _evs_of(scenario, table, sessions, may_discharge)
        self._memory = _memory_of(self._sites, self._ev_facts, table)
        self._reserve_edges_s, self._reserve_soc = table.reserve(scenario.clock)
        count, evs_here = len(table), len(table.ev)
        room = 8 + int(np.ceil(self.period_s / 30.0))
        self._answer = Answer(
            np.zeros(count, FLOW), np.zeros(evs_here, np.int64), np.zeros((evs_here, room)),
            np.zeros((evs_here, room)), np.zeros((evs_here, room), np.int8), np.zeros((evs_here, room)),
            np.zeros((evs_here, room)), np.zeros(count), np.zeros(count),
        )  # fmt: skip
        self._rows = np.full((segment_rows(evs_here, self.period_s), 6), -1.0)
        self._exports = np.repeat(table.rating.export_kw > 0.0, np.diff(table.ev_first))
        """Whether the site of each EV may give to the grid, (ev,)."""
        self._inputs = _no_inputs(self._sites, evs_here)
        self._ends_s = -np.inf
        self._of_stair = np.array([share_on_stair(stair) for stair in range(STAIRS)])
        tariff, prices = scenario.tariff, scenario.prices
        self._demand = tariff.demand if tariff is not None else None
        self._planners = [
            Planner(
                site.control, group, table, self._sites, self._ev_facts, scenario.clock, prices, self._demand
            )
            for group, site in enumerate(table.groups.values())
            if isinstance(site.control, Planned) and site.control.plans
        ]
        self._courses: list[Course | None] = [None] * len(self._planners)
        ticks_s: Array = self.period_s * np.arange(scenario.clock.ticks + 1.0)
        self._prices = prices.means(ticks_s) if prices is not None else None
        self._cost = np.zeros(count)
        self._peaks = MonthlyPeaks.of(tariff, scenario.clock, (count,))
        self._total = np.zeros((len(FLOW.names or ()), count))
        self._stored_kws = self._energy_kws()
        shape = (len(scenario.members), len(connections), len(connections.phases))
        self._p, self._q = np.zeros(shape), np.zeros(shape)
        self._place = _places(table, connections)
        self._kvar_per_kw = np.tan(np.arccos(table.rating.power_factor))
        self.inputs = requests.inputs if requests is not None else ()
        if scenario.fleet is not None:
            self.inputs += ("fleet/site_soc",)
        self.outputs = ("sites/p", "sites/q", *((PORT, AVAILABLE) if scenario.fleet is not None else ()))
        static = [v for v in _STATIC if requests is not None or v.name != "site_cut_by_outage_kwh"]
        self.variables = (
            *_TIMED, *((_SOC,) if np.any(table.rating.battery_kwh > 0) else ()), *static,
            *((_COST,) if prices is not None else ()), *(_DEMAND if self._demand is not None else ()),
        )  # fmt: skip

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`.

        Raises
        ------
        ScenarioError
            If more happens at the sites within a tick than there is room for.

        """
        tick, end_s = round(time_s / self.period_s), time_s + self.period_s
        answer = self._answer
        answer.flows[:], answer.segments[:] = 0.0, 0
        for added in (answer.drawn, answer.own, answer.island, answer.ev_on_grid):
            added[:] = 0.0
        request = self._inputs.request_kw
        if self._requests is not None:
            request[:] = self._requests.at(tick, time_s, inputs)[self._table.ev]
        if "fleet/site_soc" in inputs:
            self._take_soc(inputs["fleet/site_soc"])
        for begin_s, until_s in pairwise(self._moments(time_s, end_s)):
            self._read_ahead(begin_s, until_s)
            self._advance(begin_s, until_s)
        self._send_segments(time_s)
        flows = self._answer.flows
        for total, name in zip(self._total, FLOW.names or (), strict=True):
            total += flows[name]
        self._count_cost(tick)
        net_kw = (flows["imported"] - flows["exported"] - answer.ev_on_grid) / self.period_s
        served_kw = flows["served"] / self.period_s
        on_grid_kw = np.where(flows["imported"] + flows["exported"] > 0, served_kw, 0.0)
        self._spread(net_kw, self._p)
        self._spread(on_grid_kw * self._kvar_per_kw, self._q)
        self._record(tick)
        outputs = {
            "sites/p": self._p, "sites/q": self._q, PORT: self._rows, AVAILABLE: self._available(end_s),
        }  # fmt: skip
        return {name: outputs[name] for name in self.outputs}

    def _available(self, time_s: float) -> Array:
        """Share of its power that each EV may use on the grid at the end of a tick, (ev,): 0 without supply,
        in an island, and until the sources enter service, then that of the ramp.
        """
        sites, state = self._sites, self._memory.sites
        mode, at = state["mode"], state["outage"]
        of_stair = self._of_stair[np.minimum(state["stair"], STAIRS - 1)]
        share = np.where(mode == RAMPING, of_stair, np.where(mode == ON_GRID, 1.0, 0.0))
        begins_s = np.append(sites.outage_begin_s, np.inf)[at]
        dead = (at < sites.rows["outage"][:, 1]) & (begins_s <= time_s)
        share[dead & (np.append(sites.outage_end_s, np.inf)[at] > time_s)] = 0.0
        return np.repeat(share, np.diff(self._table.ev_first))

    def _count_cost(self, tick: int) -> None:
        """Add a tick to the cost of energy and to the peaks of the months."""
        drawn, given = self._answer.flows["imported"], self._answer.flows["exported"]
        if self._prices is not None:
            price, credit = self._prices
            self._cost += (price[tick] * drawn - credit[tick] * given) / 3600.0
        if self._demand is not None:
            self._peaks.add(self.period_s, ((drawn - given) / self.period_s)[np.newaxis])

    def _moments(self, begin_s: float, end_s: float) -> list[float]:
        """Begin and end of a tick, and the moments between at which a plan is made."""
        between = [
            float(moment)
            for planner in self._planners
            for moment in planner.every_s
            * np.arange(np.ceil(begin_s / planner.every_s), np.ceil(end_s / planner.every_s))
        ]
        inside = [moment for moment in between if begin_s + _ROUNDING_S < moment < end_s - _ROUNDING_S]
        return [begin_s, *np.unique(inside).tolist(), end_s]

    def _advance(self, begin_s: float, end_s: float) -> None:
        """Advance all sites over a tick, or a part of it."""
        given = (begin_s, end_s, self._sites, self._ev_facts, self._inputs, self._memory, self._answer)
        in_threads(lambda low, high: advance(low, high, *given), len(self._table), 64)

    def _read_ahead(self, begin_s: float, end_s: float) -> None:
        """Hold load, PV and reserve of the day ahead, and make the plans that are due."""
        if end_s > self._ends_s:
            self._read(begin_s, begin_s + max(AHEAD_S, end_s - begin_s))
        for place, planner in enumerate(self._planners):
            if planner.is_due(begin_s):
                course = planner.plan(begin_s, self._memory, self._peaks.peak, months_of(self._clock))
                self._courses[place] = course
                self._follow(planner, course)

    def _follow(self, planner: Planner, course: Course) -> None:
        """Enter a course into the inputs, as far as these reach."""
        inputs, begins_s = self._inputs, self._inputs.edges_s[:-1]
        low, high = begins_s.searchsorted(course.edges_s[[0, -1]] - _ROUNDING_S)
        slot = course.edges_s.searchsorted(begins_s[low:high] + _ROUNDING_S, "right") - 1
        for into, of, rows in (
            (inputs.plan_battery_kw, course.battery_kw, planner.sites),
            (inputs.plan_pv_kw, course.pv_kw, planner.sites),
            (inputs.peak_kw, course.peak_kw, planner.sites),
            (inputs.plan_ev_kw, course.ev_kw, planner.evs),
        ):
            into[rows, low:high] = of[:, slot]

    def _read(self, begin_s: float, until_s: float) -> None:
        """Read load, PV and reserve of a span of time."""
        slots = self._table.profiles.slots(begin_s, until_s)
        own = self._reserve_edges_s
        inside = own[(own > begin_s) & (own < until_s)]
        planned = [
            planner.slot_s * np.arange(np.ceil(begin_s / planner.slot_s), until_s / planner.slot_s)
            for planner in self._planners
        ]
        edges_s = np.sort(np.concatenate([slots.edges_s, inside, *planned]))
        edges_s = edges_s[np.append(True, np.diff(edges_s) > _ROUNDING_S)]
        slot = slots.edges_s.searchsorted(edges_s[:-1], "right") - 1
        row, share = self._table.circuit_row, self._table.circuit_share
        circuit_kw = slots.kw[row][:, slot] * share[:, np.newaxis]
        pv_kw = np.zeros((len(self._table), len(slot)))
        with_pv = np.flatnonzero(self._table.pv_row >= 0)
        pv_kw[with_pv] = slots.kw[self._table.pv_row[with_pv]][:, slot]
        reserve = self._reserve_soc[own.searchsorted(edges_s[:-1], "right") - 1].T
        shape = pv_kw.shape
        self._inputs = self._inputs._replace(
            edges_s=edges_s, circuit_kw=circuit_kw, pv_kw=pv_kw, reserve_soc=np.ascontiguousarray(reserve),
            plan_battery_kw=np.zeros(shape), plan_ev_kw=np.zeros((len(self._table.ev), shape[1])),
            plan_pv_kw=np.full(shape, np.inf),
            peak_kw=np.repeat(self._table.rating.peak_kw[:, np.newaxis], shape[1], axis=1),
        )  # fmt: skip
        self._ends_s = until_s
        for planner, course in zip(self._planners, self._courses, strict=True):
            if course is not None and course.edges_s[-1] > begin_s + _ROUNDING_S:
                self._follow(planner, course)

    def _take_soc(self, reported: Array) -> None:
        """Take over the state of charge that the EVs plugged in have: that of the fleet counts."""
        known = self._memory.evs
        here = (reported >= 0.0) & (known["plugged"] == 1)
        known["soc"][here] = reported[here]

    def _send_segments(self, time_s: float) -> None:
        """Fill the rows of the port: EV, end, set-point, supply, shares of own energy free and forgone."""
        answer, rows = self._answer, self._rows
        count = answer.segments
        if count.max(initial=0) > answer.until_s.shape[1] or count.sum() > len(rows):
            raise ScenarioError(
                f"time.step = {self.period_s:g}s: more happens at the sites in the tick at "
                f"{self._clock.stamp(time_s)} than a tick may hold: must be shorter"
            )
        rows[:, 0] = -1.0
        used = np.arange(answer.until_s.shape[1]) < count[:, np.newaxis]
        end = int(count.sum())
        rows[:end, 0] = np.repeat(self._table.ev, count)
        rows[:end, 1], rows[:end, 2] = answer.until_s[used], answer.setpoint_kw[used]
        rows[:end, 3] = answer.supply[used]
        drawn, exports = answer.drawn[used], np.repeat(self._exports, count)
        own = np.divide(answer.own[used], drawn, out=np.zeros_like(drawn), where=drawn > 0.0)
        rows[:end, 4], rows[:end, 5] = np.where(exports, 0.0, own), np.where(exports, own, 0.0)

    def _spread(self, of_site: Array, power: Array) -> None:
        """Power by member, connection and phase."""
        site, at, share = self._place
        power[:] = 0.0
        power.reshape(-1)[at] = of_site[site] * share

    def _record(self, tick: int) -> None:
        flows, period_s = self._answer.flows, self.period_s
        for name, value in (
            ("power_kw", flows["imported"] - flows["exported"]),
            ("load_kw", flows["served"]),
            ("unserved_kw", flows["unserved"]),
            ("pv_kw", flows["pv"]),
            ("pv_curtailed_kw", flows["pv_curtailed"]),
            ("battery_power_kw", flows["battery_in"] - flows["battery_out"]),
            ("generator_kw", flows["generated"]),
            ("ev_power_kw", flows["ev_in"] - flows["ev_out"]),
            ("island", self._answer.island),
        ):
            self._recorder.put(f"site_{name}", tick, (value / period_s)[np.newaxis])
        if _SOC in self.variables:
            self._recorder.put(_SOC.name, tick, self._memory.sites["soc"][np.newaxis].copy())

    def finish(self) -> None:
        """Record the energies of the run."""
        totals = dict(zip(FLOW.names or (), self._total, strict=True))
        for name, value in totals.items():
            if name == "interruptions":
                self._recorder.put_static("site_interruptions", value)
            elif name == "unmet_s":
                self._recorder.put_static("site_unmet_h", value / 3600.0)
            elif self._requests is not None or name != "cut_by_outage":  # without any, there is none to cut
                self._recorder.put_static(f"site_{name}_kwh", value / 3600.0)
        if self._prices is not None:
            self._recorder.put_static("site_energy_cost", self._cost)
        if self._demand is not None:
            peak_kw = self._peaks.finish()
            self._recorder.put_static("site_peak_kw", peak_kw)
            charge = self._demand.charge(peak_kw, self._peaks.in_windows, months_of(self._clock))
            self._recorder.put_static("site_demand_cost", charge)

    def _energy_kws(self) -> Array:
        """Energy in each site's battery, kWs, (site,)."""
        return np.asarray(3600.0 * self._table.rating.battery_kwh * self._memory.sites["soc"])

    def audit(self) -> Mapping[str, Array]:
        """See :class:`evgrid.core.model.Model`; (member,) kWh each.

        site_busbar_kwh : the worst residual of a site's balance: grid, PV, battery, generator and EVs against
            load served and energy charged
        site_battery_kwh : the worst residual of a battery: drawn less given, less loss, less what it gained
        site_ev_drawn_kwh, site_ev_given_kwh : energy that the sites expect of their EVs
        site_dead_kwh : energy over meters while the grid was dead
        site_moved_kwh : energy moved, the scale of the residuals
        """
        total = dict(zip(FLOW.names or (), self._total, strict=True))
        busbar = (
            total["imported"] + total["pv"] + total["battery_out"] + total["generated"] + total["ev_out"]
            - total["exported"] - total["served"] - total["battery_in"] - total["ev_in"]
        )  # fmt: skip
        battery = (
            total["battery_in"] - total["battery_out"] - total["battery_loss"]
            - (self._energy_kws() - self._stored_kws)
        )  # fmt: skip
        moved = total["served"] + total["imported"] + total["exported"] + total["ev_in"] + total["ev_out"]
        return {
            "site_busbar_kwh": self._by_member(np.maximum, np.abs(busbar)),
            "site_battery_kwh": self._by_member(np.maximum, np.abs(battery)),
            "site_ev_drawn_kwh": self._by_member(np.add, total["ev_in"]),
            "site_ev_given_kwh": self._by_member(np.add, total["ev_out"]),
            "site_dead_kwh": self._by_member(np.add, total["dead"]),
            "site_moved_kwh": self._by_member(np.add, moved),
        }

    def _by_member(self, combine: Any, of_site_kws: Array) -> Array:
        result = np.zeros(self._table.members)
        combine.at(result, self._table.member, of_site_kws / 3600.0)
        return result


def _sites_of(
    scenario: Scenario, table: SiteTable, connections: Connections, outages: Outages | None
) -> Sites:
    """The sites' constants as the kernels take them."""
    rating = table.rating
    rows = np.zeros(len(table), SITE)
    for name in (
        "import_kw", "export_kw", "load_step_kw", "generator_kw", "detect_s", "black_start_s",
        "return_wait_s", "ramp_s", "backup", "former", "ev_first", "parallel", "soc_min", "standby_kw",
    ):  # fmt: skip
        rows[name] = getattr(rating, name)
    numbers = np.array([CONTROLS.index(name) for name in CONTROL_NAMES])
    rows["control"] = numbers[rating.control]
    rows["former_kw"] = rating.form_kva * rating.power_factor
    rows["generator_least_kw"], rows["generator_start_s"] = rating.minimum_kw, rating.start_s
    with_battery = rating.battery_kwh > 0.0
    rows["battery"] = np.where(with_battery, np.cumsum(with_battery) - 1, -1)
    rows["circuit"] = np.stack([table.circuit_first[:-1], table.circuit_first[1:]], axis=1)
    rows["ev"] = np.stack([table.ev_first[:-1], table.ev_first[1:]], axis=1)
    off_grid = table.connection < 0
    first, begin_s, end_s = np.zeros(1, np.int64), np.zeros(0), np.zeros(0)
    if outages is not None:
        first, begin_s, end_s = outages.first, outages.begin_s, outages.end_s
        at = table.member * len(connections) + table.connection
        rows["outage"][~off_grid] = np.stack([first[at], first[at + 1]], axis=1)[~off_grid]
    rows["outage"][off_grid] = len(begin_s), len(begin_s) + 1  # one, that never ends
    begin_s, end_s = np.append(begin_s, 0.0), np.append(end_s, np.inf)
    for name in ("detect_s", "return_wait_s"):
        rows[name][off_grid] = 0.0
    rows["backup"][off_grid] = 2
    cold = scenario.outages.cold_load if scenario.outages is not None else None
    factor, cold_s = (1.0, 0.0) if cold is None else (cold.factor, cold.duration)
    critical = table.critical.astype(np.int64)
    return Sites(rows, critical, begin_s, end_s, _batteries(table), factor, cold_s)


def _batteries(table: SiteTable) -> Kinds:
    """Kinds of the stationary batteries, one a site that has one: full power up to a full battery."""
    rating = table.rating
    own = np.flatnonzero(rating.battery_kwh > 0.0)
    curves = np.zeros(1, CURVE)
    curves["knots"], curves["relative"], curves["kw"][0, 0] = 1, 1, 1.0
    kinds = np.zeros(max(len(own), 1), KIND)
    kinds["capacity_kwh"] = kinds["charge_kw"] = 1.0
    if len(own):
        kinds["capacity_kwh"], kinds["soc_floor"] = rating.battery_kwh[own], rating.soc_min[own]
        kinds["charge_kw"], kinds["discharge_kw"] = (
            rating.battery_charge_kw[own], rating.battery_discharge_kw[own],
        )  # fmt: skip
        kinds["charge_b"] = 1.0 / rating.charge_efficiency[own] - 1.0
        kinds["discharge_b"] = 1.0 - rating.discharge_efficiency[own]
    kinds["soc_target"] = 1.0
    made = Kinds(kinds, curves)
    derive_kinds(made)
    return made


def _evs_of(scenario: Scenario, table: SiteTable, sessions: SessionTable, may_discharge: MayDischarge) -> EVs:
    """The EVs at sites and the sessions as the kernels take them."""
    kinds, kind_of = sessions.kinds()
    first = np.searchsorted(sessions.ev, table.ev, "left").astype(np.int64)
    last = np.searchsorted(sessions.ev, table.ev, "right").astype(np.int64)
    fleet = scenario.fleet
    return EVs(
        first, last, sessions.arrival_s, sessions.departure_s, sessions.soc_arrival.astype(np.float64),
        sessions.drive_kwh, kind_of, kinds, fleet.vehicle.standby_kw if fleet is not None else 0.0,
        (may_discharge.refusal[table.ev] > 0).astype(np.int64),
        (may_discharge.island_refusal[table.ev] > 0).astype(np.int64),
        may_discharge.throughput_kws, may_discharge.discharging_s, *(may_discharge.window_h or (0.0, 24.0)),
        float((scenario.start - scenario.start.astype("datetime64[D]")) / np.timedelta64(1, "h")),
    )  # fmt: skip


def _memory_of(sites: Sites, evs: EVs, table: SiteTable) -> Memory:
    """What sites and EVs remember at the start of the run."""
    state, known = np.zeros(len(table), STATE), np.zeros(len(evs.first), EV)
    state["mode"] = np.where(table.connection < 0, LOST, ON_GRID)
    state["until_s"] = np.where(table.connection < 0, 0.0, np.inf)
    state["outage"], state["unmet_from_s"] = sites.rows["outage"][:, 0], np.nan
    state["soc"], state["fuel_kws"] = table.rating.soc_start, 3600.0 * table.rating.fuel_kwh
    known["session"] = evs.first
    circuits = np.zeros(len(table.critical), CIRCUIT)
    site = np.repeat(np.arange(len(table)), np.diff(table.circuit_first))
    began_s = np.append(sites.outage_begin_s, 0.0)[sites.rows["outage"][:, 0]]
    under_way = (sites.rows["outage"][:, 0] < sites.rows["outage"][:, 1]) & (table.connection >= 0)
    circuits["dark_s"] = np.where(under_way, np.maximum(-began_s, 0.0), 0.0)[site]  # an outage before the run
    return Memory(state, known, circuits)


def _no_inputs(sites: Sites, evs: int) -> Inputs:
    """Inputs before the first tick: EVs charge as fast as they can."""
    count = len(sites.rows)
    none = np.zeros((count, 0))
    return Inputs(
        np.zeros(1), np.zeros((len(sites.critical), 0)), none, none, none, np.zeros((evs, 0)), none, none,
        np.full(evs, np.inf),
    )  # fmt: skip


def _places(table: SiteTable, connections: Connections) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Where the power of each site goes: its number, a flat place by member, connection and phase, and the
    share of it.
    """
    phases = len(connections.phases)
    on_grid = np.flatnonzero(table.connection >= 0)
    phase = connections.phase[table.connection[on_grid]]
    first = (table.member[on_grid] * len(connections) + table.connection[on_grid]) * phases
    if phases == 1:
        return on_grid, first, np.ones(len(on_grid))
    wide = phase == ALL_PHASES
    site = np.concatenate([on_grid[~wide], np.repeat(on_grid[wide], 3)])
    at = np.concatenate(
        [first[~wide] + phase[~wide], (first[wide][:, np.newaxis] + np.arange(3)).reshape(-1)]
    )
    share = np.concatenate([np.ones(int((~wide).sum())), np.full(3 * int(wide.sum()), 1.0 / 3.0)])
    return site, at, share
