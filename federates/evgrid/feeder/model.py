"""The feeder as a model: takes the EVs' power, gives voltages, records flows.

In: ``fleet/p`` and ``fleet/q`` (where there is a fleet). Out: voltages at the connection points,
head power and transformer power, where another model takes them. One step is one power flow of every
member, with the base load's mean over the step.

Where no model takes the feeder's outputs, the steps are gathered and solved in large batches, which is
much faster. The numbers are the same bit for bit, because a power flow does not depend on the others in
its batch.

Devices that respond to the voltage (tap changers, capacitors, PV inverters) need each step before the
next, so then nothing is gathered; the numbers are the same whether or not a model takes the outputs.

With ``coupling: iterated`` PV inverters see the voltage of their own step: each power flow is solved
together with them (:meth:`.Inverters.solve`), as often as the fleet asks for one within a step.

A power flow without solution ends the run, or (``feeder.on_divergence: keep``, the default of an
ensemble) its member is given up: its numbers are NaN from then on, the others of the run see it
without voltage, and the run goes on with the other members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array, Model, Outages, Recorder, Values, Variable
from evgrid.feeder import kernels
from evgrid.feeder.base_load import BaseLoad, base_load
from evgrid.feeder.grid import Ints
from evgrid.feeder.inverters import Inverters
from evgrid.feeder.networks import Network
from evgrid.feeder.outages import FeederOutages, PartSolver, interruptions
from evgrid.feeder.solvers import (
    Flow,
    Label,
    Positions,
    Power,
    Solver,
    blank,
    check_balance,
    make_solver,
    not_converged,
)
from evgrid.feeder.solvers.opendss import LiveControls, OpenDSSSolver
from evgrid.feeder.transformer_ageing import Ageing
from evgrid.feeder.transformer_thermal import VARIABLES as THERMAL_VARIABLES
from evgrid.feeder.voltage_regulators import VoltageRegulators, devices, sets_of_positions
from evgrid.scenario.tariffs import MonthlyPeaks, in_windows

if TYPE_CHECKING:
    from evgrid.scenario import Scenario

BATCH_CASES = 1000
"""Power flows (members times steps) that are gathered before they are solved, at most."""

BATCH_BYTES = 256 * 2**20
"""Memory of their results, as far as it takes no more than one step."""

VARIABLES = (
    Variable("voltage_pu", ("member", "bus", "phase"), "1",
             "voltage magnitude per unit of nominal voltage (balanced: positive sequence), "
             "NaN where no source feeds the bus", dtype="float32"),
    Variable("voltage_min_pu", ("member",), "1",
             "lowest voltage of all buses but the source's, and phases, pu of nominal"),
    Variable("voltage_max_pu", ("member",), "1",
             "highest voltage of all buses but the source's, and phases, pu of nominal"),
    Variable("line_loading", ("member", "line"), "1",
             "line current of the worst phase and end, per rated current; NaN without a rating",
             dtype="float32"),
    Variable("trafo_loading", ("member", "trafo"), "1",
             "transformer current of the worst phase and side, per rated current; NaN without a rating"),
    Variable("losses_kw", ("member",), "kW", "losses of lines and transformers"),
    Variable("head_power_kw", ("member", "phase"), "kW", "active power drawn from the grid above the feeder"),
    Variable("head_reactive_kvar", ("member", "phase"), "kvar",
             "reactive power drawn from the grid above the feeder"),
    Variable("base_load_kw", ("member",), "kW",
             "active power of everything but EVs and losses, less fixed generation"),
    Variable("bus_distance_km", ("bus",), "km", "distance from the feeder head along lines", timed=False),
    Variable("bus_nominal_kv", ("bus",), "kV", "nominal voltage, phase to phase", timed=False),
    Variable("bus_x", ("bus",), "1", "horizontal coordinate of the bus as the net gives it", timed=False),
    Variable("bus_y", ("bus",), "1", "vertical coordinate of the bus as the net gives it", timed=False),
    Variable("bus_at_source", ("bus",), "1", "1 where the bus is a source's, also by closed switches; else 0",
             timed=False, dtype="int64"),
    Variable("bus_node", ("bus",), "1", "number of the node; buses that closed switches join have the same",
             timed=False, dtype="int64"),
    Variable("line_from_bus", ("line",), "1", "position of the line's first bus along bus", timed=False,
             dtype="int64"),
    Variable("line_to_bus", ("line",), "1", "position of the line's second bus along bus", timed=False,
             dtype="int64"),
    Variable("line_closed", ("line",), "1", "1 where the line is closed at both ends, else 0", timed=False,
             dtype="int64"),
    Variable("line_rated_ka", ("line",), "kA", "rated current of the line, NaN without one", timed=False),
    Variable("trafo_hv_bus", ("trafo",), "1", "position of the transformer's high-voltage bus along bus",
             timed=False, dtype="int64"),
    Variable("trafo_lv_bus", ("trafo",), "1", "position of the transformer's low-voltage bus along bus",
             timed=False, dtype="int64"),
    Variable("trafo_rated_kva", ("trafo",), "kVA", "rated power of the transformer, NaN without one",
             timed=False),
    Variable("member_failed_s", ("member",), "s",
             "simulated time at which the member's power flow had no solution and it was given up; "
             "NaN if it never was", timed=False),
)  # fmt: skip
"""Variables of every feeder."""

PHASE_VARIABLES = (
    Variable("line_worst_phase", ("member", "line"), "1",
             "position along phase of the line's highest loading in the run; -1 without a loading",
             timed=False, dtype="int64"),
    Variable("trafo_worst_phase", ("member", "trafo"), "1",
             "position along phase of the transformer's highest loading in the run; -1 without a loading",
             timed=False, dtype="int64"),
)  # fmt: skip
"""Additional variables of a three-phase feeder."""

UNBALANCE_VARIABLES = (
    Variable("voltage_unbalance", ("member", "bus"), "1",
             "negative per positive sequence of the voltage, |V2|/|V1|", dtype="float32"),
    Variable("neutral_current_a", ("member", "line"), "A",
             "current in the neutral, the sum of the phase currents at the line's first bus",
             dtype="float32"),
    Variable("trafo_neutral_current_a", ("member", "trafo"), "A",
             "current in the neutral of the transformer's low-voltage side"),
)  # fmt: skip
"""Variables of a three-phase feeder with ``feeder.unbalance``."""

REGULATION_VARIABLES = (
    Variable("trafo_tap", ("member", "trafo"), "1",
             "position of the tap changer, mean of the interval and of its phases; NaN where there is none"),
    Variable("shunt_step", ("member", "shunt"), "1",
             "steps of the shunt that are closed, mean of the interval"),
    Variable("trafo_operations", ("member", "trafo"), "1", "operations of the tap changer in the run",
             timed=False, dtype="int64"),
    Variable("shunt_operations", ("member", "shunt"), "1", "operations of the shunt in the run", timed=False,
             dtype="int64"),
)  # fmt: skip
"""Variables with ``feeder.tap_changers`` or ``feeder.capacitors``."""

PHASE_TAP_VARIABLES = (
    Variable("trafo_phase_tap", ("member", "trafo", "phase"), "1",
             "position of the tap of each phase, mean of the interval; NaN where there is none"),
)  # fmt: skip
"""Variables where a tap changer has ``phases: each``."""

INVERTER_VARIABLES = (
    Variable("pv_power_kw", ("member",), "kW", "active power that the PV inverters feed in"),
    Variable("pv_available_kw", ("member",), "kW", "active power available to the PV inverters"),
    Variable("pv_reactive_kvar", ("member",), "kvar", "reactive power that the PV inverters draw"),
)
"""Variables with ``feeder.pv``."""

OUTAGE_VARIABLES = (
    Variable("interruptions", ("member", "connection"), "1",
             "interruptions of the connection point in the run that last longer than 5 min", timed=False,
             dtype="int64"),
    Variable("momentary_interruptions", ("member", "connection"), "1",
             "interruptions of the connection point in the run of at most 5 min", timed=False, dtype="int64"),
    Variable("interrupted_min", ("member", "connection"), "min",
             "time in the run for which the connection point is without supply, in interruptions of more "
             "than 5 min", timed=False),
    Variable("not_served_kwh", ("member", "connection"), "kWh",
             "base load that the connection point would have drawn while it was without supply", timed=False),
)  # fmt: skip
"""Variables with ``outages``."""

CONNECTION_VARIABLES = (
    Variable("connection_power_kw", ("member", "connection", "phase"), "kW",
             "active power drawn at the connection point without EVs; of a load that depends on the voltage "
             "that at nominal voltage", dtype="float32"),
    Variable("connection_reactive_kvar", ("member", "connection", "phase"), "kvar",
             "reactive power drawn at the connection point without EVs; of a load that depends on the "
             "voltage that at nominal voltage", dtype="float32"),
)  # fmt: skip
"""Variables with ``record.connections``."""

CONNECTION_EV_VARIABLES = (
    Variable("connection_ev_power_kw", ("member", "connection", "phase"), "kW",
             "active power drawn by the EVs at the connection point", dtype="float32"),
    Variable("connection_ev_reactive_kvar", ("member", "connection", "phase"), "kvar",
             "reactive power drawn by the EVs at the connection point", dtype="float32"),
)  # fmt: skip
"""Variables with ``record.connections`` where there are EVs."""

GENERATOR_VARIABLES = (
    Variable("generator_power_kw", ("member", "generator", "phase"), "kW",
             "active power that the generator feeds in", dtype="float32"),
    Variable("generator_reactive_kvar", ("member", "generator", "phase"), "kvar",
             "reactive power that the generator feeds in", dtype="float32"),
)  # fmt: skip
"""Variables with ``record.connections`` where the network has generation."""

PEAK_VARIABLES = {
    "feeder": Variable("head_peak_kw", ("member", "month"), "kW",
                       "highest power at the head in the month, mean of the meter's interval", timed=False),
    "transformer": Variable("trafo_peak_kw", ("member", "trafo", "month"), "kW",
                            "highest power into the transformer or, at its first unit, its bank in the "
                            "month, mean of the meter's interval; NaN where it is next upstream of no "
                            "connection point",
                            timed=False),
}  # fmt: skip
"""Variables where the tariff has a demand charge of the feeder or of transformers."""


_WITHOUT_SUPPLY = {"voltage_pu": 0.0, "voltage_min_pu": np.nan, "voltage_max_pu": np.nan}
"""Values of the voltages over an interval without supply."""


def _worst_phases(loading: Array, dtype: type[np.floating[Any]]) -> Any:
    """The highest loading of the phases, (case, element), of (case, element, phase)."""
    worst = np.empty(loading.shape[:2], dtype)
    kernels.worst_phases(loading, worst)
    return worst


class _Highest:
    """The phase of each element's highest loading so far, by member."""

    def __init__(self, members: int, elements: int) -> None:
        self._loading = np.zeros((members, elements))
        self.phase = np.full((members, elements), -1, np.int64)

    def update(self, loading: Array, solved: int) -> None:
        """Update with the loading of some steps, (case, element, phase), ``solved`` cases each: one a member,
        or one for all. NaN is ignored.
        """
        kernels.update_highest(loading, solved, self._loading, self.phase)


class _Cases:
    """Power flows of all cases of a step.

    failed : filled with the reasons why cases have no solution, by case
    out : elements out of service by case, where there are outages; else None
    flow, lost : flow of all cases, and bool where a case has no solution; after :meth:`solve`
    """

    def __init__(
        self,
        solver: Solver | PartSolver,
        power: Power,
        nominal: Power | None,
        generation: Power | None,
        label: Label,
        failed: dict[int, str],
        out: Mapping[int, frozenset[int]] | None = None,
    ) -> None:
        self._solver, self._label, self._failed, self._out = solver, label, failed, out
        self._power, self._nominal, self._generation = power, nominal, generation
        self.flow: Flow
        self.lost = list[int]()

    def solve(self, before: _Cases | None, again: NDArray[np.bool_]) -> None:
        """Solve all; those equal to ``before`` are taken from there, except those marked ``again``."""
        if before is None:
            self.flow = self._solve(
                *self._power, self._label, nominal=self._nominal, generation=self._generation,
                failed=self._failed,
            )  # fmt: skip
            self.lost = list(self._failed)
            return
        pairs = zip(self._given(), before._given(), strict=True)
        changed = again.copy()
        for now, then in pairs:
            changed |= (now != then).reshape(len(now), -1).any(axis=1)
        changed[before.lost] = True
        some = np.flatnonzero(changed)
        self.flow = before.flow
        if len(some):
            part = self.some(some, again=True)
            for name, values in part.tables().items():
                getattr(self.flow, name)[some] = values
        self.lost = list(self._failed)

    def some(self, some: Ints, positions: Positions | None = None, again: bool = False) -> Flow:
        """Solve some cases, with their devices' positions; ``again``: within the step in which all were."""

        def of(pair: Power | None) -> Power | None:
            return None if pair is None else (pair[0][some], pair[1][some])

        reasons: dict[int, str] = {}
        flow = self._solve(
            self._power[0][some], self._power[1][some], lambda case: self._label(int(some[case])),
            nominal=of(self._nominal), generation=of(self._generation), positions=positions, failed=reasons,
            some=some, **({"again": some} if again and self._solver.in_time else {}),
        )  # fmt: skip
        self._failed.update({int(some[case]): reason for case, reason in reasons.items()})
        return flow

    def _solve(
        self, p_kw: Array, q_kvar: Array, label: Label, some: Ints | None = None, **given: Any
    ) -> Flow:
        """Solve cases, all or ``some``, with the elements that are out of service."""
        if not isinstance(self._solver, PartSolver):
            return self._solver.solve(p_kw, q_kvar, label, **given)
        cases = range(len(p_kw)) if some is None else some.tolist()
        out = (
            {place: self._out[case] for place, case in enumerate(cases) if case in self._out}
            if self._out
            else {}
        )
        return self._solver.solve(p_kw, q_kvar, label, out=out, **given)

    def _given(self) -> tuple[Array, ...]:
        return (*self._power, *(self._nominal or ()), *(self._generation or ()))


@dataclass(frozen=True, slots=True)
class GroupMeter:
    """Records the power of the groups that a limit is for, and its excess over the limit.

    power, excess : names of its variables
    least_kw, most_kw : the limit
    banks : (trafo,) int, position of the first unit of each transformer's bank, which the limit is for; -1:
        no limit. None: the limit is for the whole feeder
    """

    power: str
    excess: str
    least_kw: float
    most_kw: float
    banks: Ints | None

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Its variables."""
        dims: tuple[str, ...] = ("member",)
        what = "through the head"
        if self.banks is not None:
            dims, what = (*dims, "trafo"), "into the transformer or, at its first unit, its bank; else NaN"
        return (
            Variable(self.power, dims, "kW", f"active power that the aggregator's limit is for: {what}"),
            Variable(
                self.excess,
                dims,
                "kW",
                "its excess above the limit, or (negative) below the limit of feeding back",
            ),
        )

    def read(self, trafo_kw: Array, head_kw: Array) -> dict[str, Array]:
        """Values of its variables, for (step, member, trafo) and (step, member) kW."""
        power = head_kw if self.banks is None else bank_power(trafo_kw, self.banks)
        return {self.power: power, self.excess: power - np.clip(power, self.least_kw, self.most_kw)}


def bank_power(trafo_kw: Array, banks: Ints) -> Array:
    """Power of each bank at its first unit, of the power of transformers, (..., trafo) kW; else NaN.

    banks : (trafo,) position of the first unit of each transformer's bank; -1: left out
    """
    units = np.flatnonzero(banks >= 0)
    total = np.full(trafo_kw.shape, np.nan)
    total[..., banks[units]] = 0.0
    np.add.at(total.T, banks[units], trafo_kw[..., units].T)
    return total


def below_source(network: Network) -> Ints:
    """Positions of the buses that are not the sources' own, also by way of closed switches; all if there
    are no others.
    """
    node = network.topology.node
    below = np.flatnonzero(~np.isin(node, node[network.grid.sources.bus]))
    return below if len(below) else np.arange(len(node))


def _case_bytes(network: Network) -> int:
    """Memory of the power and the results of one power flow, about, in double precision."""
    sizes = network.sizes
    elements = 2 * sizes["bus"] + 2 * sizes["line"] + 4 * sizes["trafo"] + 4 * sizes["connection"]
    return 8 * sizes["phase"] * elements


class FeederModel(Model):
    """Power flows of all members."""

    name = "feeder"
    variables: tuple[Variable, ...] = VARIABLES

    def __init__(
        self,
        scenario: Scenario,
        network: Network,
        recorder: Recorder,
        fleet: bool,
        feedback: bool,
        base: BaseLoad | None = None,
        upstream: bool = False,
        iterates: bool = False,
        meters: Sequence[GroupMeter] = (),
        outages: Outages | None = None,
        at_sites: tuple[Ints, Ints] | None = None,
    ) -> None:
        """Prepare solver and base load.

        Parameters
        ----------
        scenario, network
            Scenario and feeder.
        recorder
            Receives the results.
        fleet
            Whether there are EVs.
        feedback
            Whether another model takes the feeder's outputs.
        base
            The base load; left out: the scenario's.
        upstream
            Whether the last connection of the ports is that of EVs upstream of the feeder: their power is
            ignored, and they see nominal voltage.
        iterates
            Whether the fleet solves for the feeder's voltages inside a step.
        meters
            Groups of which power and excess over a limit are recorded.
        outages
            Outages of the feeder, see :func:`evgrid.feeder.outages.outages_of`.
        at_sites
            Member and connection of the sites, which give the power there in place of the base load; None:
            there are no sites.

        Raises
        ------
        NetworkError
            Naming the elements that the solver can't represent.
        ScenarioError
            With every fault of a base load file.

        """
        self.period_s = scenario.feeder_step_s
        self.inputs = ("fleet/p", "fleet/q") if fleet else ()
        self.inputs += ("sites/p", "sites/q") if at_sites is not None else ()
        self._at_sites = at_sites
        self.outputs = ("feeder/voltage", "feeder/head_p", "feeder/trafo_p") if feedback else ()
        self._network, self._recorder, self._clock = network, recorder, scenario.clock
        self._numbers = scenario.members
        self._ticks_per_step = round(self.period_s / scenario.time.step)
        unbalance = scenario.feeder.unbalance and network.three_phase
        if unbalance:
            self.variables = VARIABLES + UNBALANCE_VARIABLES
        self.variables += PHASE_VARIABLES if network.three_phase else ()
        self._unbalance = unbalance
        self._below_source = below_source(network)
        self._has_voltage = network.topology.energised[:, np.newaxis]
        """Whether a bus has voltage without outages, (bus, phase or 1)."""
        if network.opendss is not None:
            self._has_voltage = self._has_voltage & (network.opendss.circuit.bus_node >= 0)
        pv, coupling = scenario.feeder.pv, scenario.coupling if scenario.coupling.mode == "iterated" else None
        self._inverters = Inverters(pv, network, self._numbers, coupling) if pv is not None else None
        if self._inverters is not None:
            network = network.with_inverters(self._inverters.generators)
        found = devices(scenario.feeder, network)
        controls = (
            network.opendss is not None and network.opendss.circuit.controls and scenario.feeder.controls
        )
        make = partial(
            make_solver, solver=scenario.feeder.solver, reduce=scenario.feeder.reduce, unbalance=unbalance,
            states=sets_of_positions(found, network), members=len(scenario.members),
            controls_step_s=self.period_s if controls else None,
        )  # fmt: skip
        self._solver: Solver | PartSolver = make(network) if outages is None else PartSolver(network, make)
        self._base = base or base_load(scenario, network)
        members = len(self._numbers)
        self._outages: FeederOutages | None = None
        self._of_outages = outages
        if outages is not None and scenario.outages is not None:
            self._outages = FeederOutages(
                outages, scenario.outages, network, self._base, members, self.period_s
            )
            self.variables = tuple(
                replace(v, without_supply=_WITHOUT_SUPPLY[v.name]) if v.name in _WITHOUT_SUPPLY else v
                for v in self.variables
            )
            self.variables += OUTAGE_VARIABLES
        on_divergence = scenario.feeder.on_divergence
        self._keep = on_divergence == "keep" or (on_divergence is None and members > 1)
        self._keep_none = on_divergence == "keep"
        kinds = ("line", "trafo") if network.three_phase else ()
        self._highest = {kind: _Highest(members, network.sizes[kind]) for kind in kinds}
        self.failures: dict[int, str] = {}
        """Reason and time of each member that was given up, by its number."""
        self._failed_s = np.full(members, np.nan)
        self._regulators = VoltageRegulators(found, network, members) if found else None
        ageing = scenario.feeder.transformer_ageing
        self.iterates = iterates
        self._ageing = Ageing(ageing, network, self._clock, members, self.period_s) if ageing else None
        regulated = self._regulators is not None or self._solver.in_time
        self.variables += REGULATION_VARIABLES if regulated else ()
        apart = any(changer.phases == "each" for changer in scenario.feeder.tap_changers)
        self.variables += PHASE_TAP_VARIABLES if apart else ()
        self.variables += INVERTER_VARIABLES if self._inverters is not None else ()
        self.variables += self._inverters.variables if self._inverters is not None else ()
        self.variables += THERMAL_VARIABLES if self._ageing is not None else ()
        self._meters = tuple(meters)
        self.variables += tuple(variable for meter in self._meters for variable in meter.variables)
        self._records_connections = scenario.record.connections
        if self._records_connections:
            self.variables += CONNECTION_VARIABLES + (CONNECTION_EV_VARIABLES if fleet else ())
            self.variables += GENERATOR_VARIABLES if network.sizes["generator"] else ()
        self._peaks: MonthlyPeaks | None = None
        demand = scenario.tariff.demand if scenario.tariff is not None else None
        if demand is not None and demand.of != "evs":
            self._metered = PEAK_VARIABLES[demand.of]
            self.variables += (self._metered,)
            bank = network.topology.bank
            self._billed = np.where(np.isin(bank, network.connections.trafo), bank, -1)
            """The bank of each transformer where it is next upstream of a connection point, else -1."""
            metered = (members,) if demand.of == "feeder" else (members, len(bank))
            self._peaks = MonthlyPeaks.of(scenario.tariff, self._clock, metered)
            if demand.windows:
                self.variables += (in_windows(self._metered),)
        self._in_turn = regulated or self._inverters is not None
        """Whether a step needs the voltages of the one before."""
        self._live = LiveControls(network, members) if self._solver.in_time else None
        cases = min(BATCH_CASES, BATCH_BYTES // _case_bytes(network))
        self._gather = 1 if feedback or self._in_turn else max(1, cases // members)
        self._steps = list[int]()
        count = len(network.connections)
        self._own, self._upstream = slice(count), upstream
        shape = (self._gather, members, count + upstream, len(network.connections.phases))
        self._record_last: Callable[[], None] | None = None
        """Records the last step, if it was deferred because the step may be repeated."""
        self._before: tuple[Any, ...] = ()
        self._keeps_cases = iterates or (self._inverters is not None and coupling is not None)
        self._solved: _Cases | None = None
        """Cases solved in this step, where it is solved several times."""
        self._site_p: Array | None = np.zeros(shape) if at_sites is not None else None
        self._site_q: Array | None = np.zeros(shape) if at_sites is not None else None
        self._ev_p: Array | None = np.zeros(shape) if fleet else None
        self._ev_q: Array | None = np.zeros(shape) if fleet else None
        self._audit = {
            name: np.zeros(members)
            for name in (
                "power_received_kw_sum", "head_energy_kwh", "base_energy_kwh", "losses_energy_kwh",
                "ev_energy_kwh", "balance_worst", *(("dead_grid_kwh",) if outages is not None else ()),
            )
        }  # fmt: skip
        self._not_served_kwh = np.zeros((members, count + upstream))

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`. Raises PowerFlowError naming members and time."""
        self._solved = None
        if self.iterates:
            self._close()
            self._before = self._changing()
        return self._take(time_s, inputs)

    def again(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`: the step with other power of the EVs."""
        failed_s, self.failures, regulation, inverters = self._before
        self.failures, self._failed_s = dict(self.failures), failed_s.copy()
        if self._regulators is not None:
            self._regulators.state = regulation
        if self._inverters is not None:
            self._inverters.restore(inverters)
        return self._take(time_s, inputs)

    def _changing(self) -> tuple[Any, ...]:
        """State that a step changes, besides the results; see :meth:`again`."""
        regulation = self._regulators.state if self._regulators is not None else None
        inverters = self._inverters.snapshot() if self._inverters is not None else None
        return self._failed_s.copy(), dict(self.failures), regulation, inverters

    def _close(self) -> None:
        """Record the last step."""
        if self._record_last is not None:
            self._record_last()
        self._record_last = None

    def _take(self, time_s: float, inputs: Values) -> Values:
        place = len(self._steps)
        self._steps.append(round(time_s / self.period_s))
        if self._ev_p is not None and self._ev_q is not None:
            self._ev_p[place], self._ev_q[place] = inputs["fleet/p"], inputs["fleet/q"]
        if self._site_p is not None and self._site_q is not None:
            self._site_p[place], self._site_q[place] = inputs["sites/p"], inputs["sites/q"]
        if len(self._steps) < self._gather:
            return {}
        return self._solve()

    def finish(self) -> None:
        """Solve the gathered steps and record the variables without time."""
        if self._steps:
            self._solve()
        self._close()
        grid = self._network.grid
        for name, values in {
            "bus_distance_km": self._network.topology.distance_km,
            "bus_nominal_kv": grid.buses.nominal_kv,
            "bus_x": grid.buses.x,
            "bus_y": grid.buses.y,
            "bus_at_source": np.isin(
                self._network.topology.node, self._network.topology.node[grid.sources.bus]
            ).astype(np.int64),
            "bus_node": self._network.topology.node,
            "line_from_bus": grid.lines.from_bus,
            "line_to_bus": grid.lines.to_bus,
            "line_closed": (grid.lines.from_closed & grid.lines.to_closed).astype(np.int64),
            "line_rated_ka": grid.lines.rating_ka,
            "trafo_hv_bus": grid.trafos.hv_bus,
            "trafo_lv_bus": grid.trafos.lv_bus,
            "trafo_rated_kva": grid.trafos.rating_kva,
            "member_failed_s": self._failed_s,
        }.items():
            self._recorder.put_static(name, values)
        for kind, highest in self._highest.items():
            self._recorder.put_static(f"{kind}_worst_phase", highest.phase)
        if self._of_outages is not None:
            found = interruptions(self._of_outages, len(self._numbers), self._clock.duration_s)
            for name, values in (found | {"not_served_kwh": self._not_served_kwh}).items():
                self._recorder.put_static(name, values)
        if self._peaks is not None:
            self._recorder.put_static(self._metered.name, self._peaks.finish())
            if self._peaks.in_windows.size:
                self._recorder.put_static(in_windows(self._metered).name, self._peaks.in_windows)
        if self._regulators is not None:
            state = self._regulators.state
            self._recorder.put_static("trafo_operations", state.tap_operations)
            self._recorder.put_static("shunt_operations", state.shunt_operations)
        if self._live is not None:
            self._recorder.put_static("trafo_operations", self._live.tap_operations)
            self._recorder.put_static("shunt_operations", self._live.shunt_operations)
        if self._inverters is not None:
            self._inverters.finish(self._recorder)
        if self._ageing is not None:
            for name, values in self._ageing.outcome().items():
                given_up = np.isfinite(self._failed_s)[:, np.newaxis]
                self._recorder.put_static(name, np.where(given_up, np.nan, values))

    @property
    def unconverged(self) -> dict[int, str]:
        """Members whose PV inverters did not converge with the power flow, by number."""
        return self._inverters.unconverged if self._inverters is not None else {}

    @property
    def solver(self) -> str:
        """Name of the solver."""
        return self._solver.name

    @property
    def newton_solutions(self) -> int:
        """Power flows so far that another solver solved, as z-bus did not converge or is too inaccurate."""
        return self._solver.newton_cases

    @property
    def solver_note(self) -> str:
        """Why another solver is used in place of z-bus for all power flows; empty: it is not."""
        return self._solver.note

    def audit(self) -> Mapping[str, Array]:
        """Sums over the run, (member,): power received (kW, one term a step), energies (kWh) at the
        head, of the base load, of losses and of EVs, the worst residual of a power balance, and
        the solver's tolerance. Of a member that was given up, all but the power received
        end there.
        """
        return {
            **self._audit,
            "balance_tolerance": np.full(len(self._numbers), self._solver.balance_tolerance),
        }

    def _with_sites(self, base: Power) -> Power:
        """Power of the connection points without EVs: the base load, and that of sites in its place."""
        p, q = base
        if self._at_sites is None or self._site_p is None or self._site_q is None:
            return p, q
        steps, (member, connection) = len(p), self._at_sites
        shape = (steps, len(self._numbers), *p.shape[2:])
        p, q = (np.broadcast_to(values, shape).copy() for values in (p, q))
        for power, of_sites in ((p, self._site_p), (q, self._site_q)):
            power[:, member, connection] = of_sites[:steps, member, connection]
        return p, q

    def _solve(self) -> Values:
        """Solve the gathered steps, record them, and give the outputs of the last one."""
        steps, members = len(self._steps), len(self._numbers)
        first, times_s = self._steps[0], np.array(self._steps) * self.period_s
        self._steps = []
        left = self._outages.within(times_s) if self._outages is not None else None
        p, q = own_p, own_q = self._with_sites(self._base.at(times_s) if left is None else left.load)
        base_kw = p.reshape(steps, p.shape[1], -1).sum(axis=2)
        ev_kw = np.zeros((steps, members))
        if self._ev_p is not None and self._ev_q is not None:
            ev_p, ev_q = (power[:steps, :, self._own] for power in (self._ev_p, self._ev_q))
            p, q = p + ev_p, q + ev_q
            ev_kw = ev_p.reshape(steps, members, -1).sum(axis=2)
        dead_kw = np.zeros((steps, members))
        if left is not None:  # power that a model draws there or gives is a fault, which the audit finds
            dead_kw = np.abs(np.where(left.dead[..., np.newaxis], p, 0.0)).sum(axis=(2, 3))
            p, q = (np.where(left.dead[..., np.newaxis], 0.0, x) for x in (p, q))
        solved = members if self._in_turn else p.shape[1]  # 1 where all members are alike
        given_up = np.isfinite(self._failed_s)
        if given_up.any():  # their power is irrelevant now: no load, which converges at once
            p, q = (np.where(given_up[:solved, np.newaxis, np.newaxis], 0.0, x) for x in (p, q))

        def by_case(values: Array) -> Array:
            whole = np.broadcast_to(values, (steps, solved, *values.shape[2:]))
            return np.ascontiguousarray(whole).reshape(steps * solved, *values.shape[2:])

        p, q = by_case(p), by_case(q)
        nominal = generation = None
        if self._network.grid.loads.voltage_dependent or self._network.opendss is not None:
            there = ~given_up[:solved, np.newaxis, np.newaxis]
            nominal = by_case(there * own_p), by_case(there * own_q)
        profiles = self._base.generation(times_s) if left is None else left.generation
        if profiles is not None:
            generation = by_case(profiles[0]), by_case(profiles[1])
        if self._inverters is not None and generation is None:
            fixed = self._network.grid.fixed
            generation = by_case(fixed.gen_p_kw[None, None]), by_case(fixed.gen_q_kvar[None, None])

        def stamp(step: int) -> str:
            return self._clock.stamp(times_s[step]).replace("T", " ")

        def label(case: int) -> str:
            step, member = divmod(case, solved)
            who = f"member {self._numbers[member]}"
            if solved < members:
                who = f"members {self._numbers[0]} to {self._numbers[-1]}"
            return f"{who} at {stamp(step)}"

        out = None
        if left is not None:
            out = {step * members + member: elements for (step, member), elements in left.out.items()}
        failed: dict[int, str] = {}
        recorded: dict[str, Array] = {}
        regulation = self._regulators.state if self._regulators is not None else None

        made = generation

        def solve(generation: Power | None) -> Flow:
            nonlocal made
            made = generation
            failed.clear()
            cases = _Cases(self._solver, (p, q), nominal, generation, label, failed, out)
            if self._regulators is None or regulation is None:
                cases.solve(self._solved, again=given_up[:solved])
                self._solved = cases if self._keeps_cases else None
                return cases.flow
            self._regulators.state = regulation
            return self._solve_with_regulators(cases, recorded)

        if self._inverters is not None and generation is not None:
            alive = None if left is None else left.gen_share[0]
            flow = self._inverters.solve(generation, self.period_s, solve, given_up, alive)
        else:
            flow = solve(generation)
        residual = check_balance(flow, p, self._solver.balance_tolerance, label, failed)
        if failed:
            self._give_up(failed, label, solved, times_s)
        if np.isfinite(self._failed_s).any():
            given_up_by_case = (times_s[:, np.newaxis] >= self._failed_s[:solved]).reshape(-1)
            blank(flow, np.flatnonzero(given_up_by_case))
            residual[given_up_by_case] = 0.0

        def by_member(values: Array) -> Array:
            parted = values.reshape(steps, solved, *values.shape[1:])
            if solved == members:
                return parted
            return np.broadcast_to(parted, (steps, members, *values.shape[1:]))

        head = by_member(flow.head_p_kw)

        def record() -> None:
            trafo_loading = by_member(_worst_phases(flow.trafo_loading, np.float64))
            voltage, (lowest, most) = flow.voltage_pu, np.empty((2, len(flow)))
            kernels.extremes(voltage, self._below_source, lowest, most)
            lowest, most = by_member(lowest), by_member(most)
            if left is not None:
                kept = ~(times_s[:, np.newaxis] >= self._failed_s)
                lowest, most = (np.where(np.isnan(x) & kept, 0.0, x) for x in (lowest, most))
                fed = kept.reshape(-1, 1, 1) & self._has_voltage
                voltage = np.where(np.isnan(voltage) & fed, 0.0, voltage)
            for kind, highest in self._highest.items():
                highest.update(getattr(flow, f"{kind}_loading"), solved)
            engine = self._solver.whole if isinstance(self._solver, PartSolver) else self._solver
            if self._live is not None and isinstance(engine, OpenDSSSolver):
                recorded.update(self._live.recorded(engine.positions))
            if self._inverters is not None:
                recorded.update(self._inverters.recorded(stamp(0)))
            if self._ageing is not None:
                recorded.update(self._ageing.run(trafo_loading, times_s))
            if self._records_connections:
                fixed = self._network.grid.fixed
                given = fixed.gen_p_kw[np.newaxis, np.newaxis], fixed.gen_q_kvar[np.newaxis, np.newaxis]
                if made is not None:
                    given = by_member(made[0]), by_member(made[1])
                if flow.held_kvar is not None:
                    held = by_member(flow.held_kvar)[..., np.newaxis] / len(self._network.grid.phases)
                    given = given[0], given[1] + held
                dead = None if left is None else left.dead
                recorded.update(self._powers((own_p, own_q), steps, dead, given))
            if np.isfinite(self._failed_s).any():
                for values in recorded.values():
                    values[times_s[:, np.newaxis] >= self._failed_s] = np.nan
            losses = by_member(flow.losses_kw)
            other = np.broadcast_to(base_kw + flow.fixed_kw.reshape(steps, solved), (steps, members))
            tick = first * self._ticks_per_step
            recorded.update(
                {
                    "voltage_pu": by_member(voltage.astype(np.float32)),
                    "voltage_min_pu": lowest,
                    "voltage_max_pu": most,
                    "line_loading": by_member(_worst_phases(flow.line_loading, np.float32)),
                    "trafo_loading": trafo_loading,
                    "losses_kw": losses,
                    "head_power_kw": head,
                    "head_reactive_kvar": by_member(flow.head_q_kvar),
                    "base_load_kw": other,
                }
            )
            if self._unbalance:
                recorded.update(
                    {
                        "voltage_unbalance": by_member(flow.voltage_unbalance.astype(np.float32)),
                        "neutral_current_a": by_member(flow.neutral_a.astype(np.float32)),
                        "trafo_neutral_current_a": by_member(flow.trafo_neutral_a),
                    }
                )
            for meter in self._meters:
                recorded.update(meter.read(by_member(flow.trafo_p_kw), head.sum(axis=2)))
            for name, values in recorded.items():
                self._recorder.put(name, tick, values)
            if self._peaks is not None:
                by_trafo = self._metered.name == "trafo_peak_kw"
                power = bank_power(by_member(flow.trafo_p_kw), self._billed) if by_trafo else head.sum(axis=2)
                self._peaks.add(self.period_s, power)
            hours = self.period_s / 3600
            if left is not None:
                self._audit["dead_grid_kwh"] += dead_kw.sum(axis=0) * hours
                own = self._not_served_kwh[:, : left.not_served_kw.shape[2]]
                own += left.not_served_kw.sum(axis=0) * hours
            residuals, head_kw = by_member(residual), head.sum(axis=2)
            for step in range(steps):
                self._audit["power_received_kw_sum"] += ev_kw[step]
                there = slice(None) if not self.failures else ~(times_s[step] >= self._failed_s)
                for name, power_kw in (
                    ("head_energy_kwh", head_kw), ("base_energy_kwh", other),
                    ("losses_energy_kwh", losses), ("ev_energy_kwh", ev_kw),
                ):  # fmt: skip
                    self._audit[name][there] += power_kw[step][there] * hours
                np.maximum(self._audit["balance_worst"], residuals[step], out=self._audit["balance_worst"])

        if self.iterates:
            self._record_last = record
        else:
            record()
        if not self.outputs:
            return {}
        at_evs = flow.voltage_pu[:, self._network.connections.bus]
        voltage = by_member(at_evs if flow.connection_pu is None else flow.connection_pu)[-1]
        if left is not None:
            voltage = np.where(left.dead[-1][..., np.newaxis], 0.0, voltage)
        if self._upstream:
            voltage = np.concatenate([voltage, np.ones_like(voltage[:, :1])], axis=1)
        outputs = {
            "feeder/voltage": voltage,
            "feeder/head_p": head[-1],
            "feeder/trafo_p": by_member(flow.trafo_p_kw)[-1],
        }
        if self.failures:
            return {name: np.nan_to_num(values) for name, values in outputs.items()}
        return outputs

    def _powers(
        self, own: Power, steps: int, dead: NDArray[np.bool_] | None, generation: Power
    ) -> dict[str, Array]:
        """Values of the variables of connection points and generators: the power that the power flow has.

        own : of the connection points without EVs, (step, member or 1, connection, phase)
        dead : (step, member, connection) where there is no supply; None: nowhere
        generation : (step or 1, member or 1, gen, phase)
        """
        if self._network.opendss is not None:
            loads = self._network.opendss.circuit.loads
            own = loads.spread(own[0]), loads.spread(own[1])
        given = [(CONNECTION_VARIABLES, own)]
        if self._ev_p is not None and self._ev_q is not None:
            given.append((CONNECTION_EV_VARIABLES, (self._ev_p[:steps], self._ev_q[:steps])))
        count, phases = own[0].shape[2:]
        found: dict[str, Array] = {}
        for variables, pair in given:
            for variable, power in zip(variables, pair, strict=True):
                values = np.zeros((steps, len(self._numbers), count + self._upstream, phases), np.float32)
                values[:, :, : power.shape[2]] = power
                if dead is not None:
                    values[:, :, :count][dead] = 0.0
                found[variable.name] = values
        if self._network.sizes["generator"]:
            for variable, power in zip(GENERATOR_VARIABLES, generation, strict=True):
                shape = (steps, len(self._numbers), *power.shape[2:])
                found[variable.name] = np.broadcast_to(power, shape).astype(np.float32)
        return found

    def _solve_with_regulators(self, cases: _Cases, recorded: dict[str, Array]) -> Flow:
        """Flow of a step with the tap changers and capacitors of all members, which advance."""
        assert self._regulators is not None
        flow, mean, self._regulators.state = self._regulators.step(cases.some, self.period_s)
        there = self._network.grid.trafos.tap_side >= 0
        tap = mean["tap"]
        if tap.ndim == 3:
            recorded["trafo_phase_tap"] = np.where(there[:, np.newaxis], tap, np.nan)[np.newaxis]
            tap = tap.mean(axis=2)
        recorded["trafo_tap"] = np.where(there, tap, np.nan)[np.newaxis]
        recorded["shunt_step"] = mean["shunt"][np.newaxis]
        return flow

    def _give_up(self, failed: dict[int, str], label: Label, solved: int, times_s: Array) -> None:
        """Note the members whose cases failed; an error where none is to be given up, or none is left, unless
        asked to go on.
        """
        members, error = len(self._numbers), not_converged(self._solver.name, failed, label)
        error.time_s = float(times_s[min(failed) // solved])
        if not self._keep:
            raise error
        for case, reason in sorted(failed.items()):
            step, member = divmod(case, solved)
            for place in range(members) if solved < members else (member,):
                if np.isnan(self._failed_s[place]):
                    self._failed_s[place] = times_s[step]
                    self.failures[self._numbers[place]] = f"{label(case)}: {' '.join(reason.split())}"
        if np.isfinite(self._failed_s).all() and not self._keep_none:
            raise error
