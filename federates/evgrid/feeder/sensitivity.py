"""Sensitivities of voltages to the power drawn at the connection points: dV/dP and dV/dQ.

In: a feeder and an operating point. Out: :class:`~evgrid.core.model.Sensitivity`, by central differences of
the full power flow, all in batches: unbalance, coupling of the phases by neutral and earth, and the
transformer are included. They depend on the scenario only: the same in every process and for every member.

A difference is of 0.1 kW or kvar either way at 400 V, and in proportion to the square of the nominal voltage
elsewhere: a change of about 1e-4 pu for each tenth of an ohm, small enough for the voltage to be linear and a
million times the solver's tolerance. Tap changers, capacitors and inverters stay at the network's values.

With elements out of service (:class:`Sensitivities`) they are those of the network that is left, about the
operating point of what is left. What no source feeds has no effect and no voltage.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import ALL_PHASES, Array, Sensitivity
from evgrid.feeder.base_load import base_load
from evgrid.feeder.grid import Ints
from evgrid.feeder.networks import Network
from evgrid.feeder.outages import Supply, without
from evgrid.feeder.solvers import Power, SolverName, make_solver

if TYPE_CHECKING:
    from evgrid.scenario import Scenario

STEP_KW = 0.1
"""Difference either way at 400 V, kW and kvar."""

SAMPLES = 96
"""Times, spread evenly over the run, over which the operating point is the mean."""

BATCH_CASES = 500
"""Power flows that are solved at once."""

KEPT = 16
"""Networks with elements out of service whose sensitivities are kept."""


class Sensitivities:
    """Sensitivities of a scenario's network about its mean base load, without EVs, and of what is left of it
    with elements out of service. Each is computed when it is asked for, and the last :data:`KEPT` are kept.

    The mean is over the run, of member 0, whichever members run: so that a member run on its own
    has the sensitivities that it has in an ensemble.
    """

    def __init__(self, scenario: Scenario, network: Network) -> None:
        self._scenario, self._network, self._supply = scenario, network, Supply(network)
        self._of = lru_cache(KEPT)(self._without)

    def without(self, out: frozenset[int] = frozenset()) -> Sensitivity:
        """Sensitivities with elements out of service (numbers of ``evgrid.feeder.outages.Elements``), at all
        connection points of the network: 0 at and of those that no source feeds, whose voltage is NaN.
        Connection points that are cut off at the meter leave them as they are.

        Raises
        ------
        PowerFlowError
            If the operating point, or a change from it, has no solution.

        """
        return self._of(self._supply.branches(out))

    @cached_property
    def _operating_point(self) -> tuple[Power, Power | None]:
        """Mean base load, (connection, phase), and fixed generation, (gen, phase); None: the network's."""
        scenario = self._scenario
        first = scenario.ensemble.model_copy(update={"first": 0, "members": 1})
        load = base_load(scenario.model_copy(update={"ensemble": first}), self._network)
        times_s = np.linspace(0.0, scenario.clock.duration_s - scenario.feeder_step_s, SAMPLES)
        p_kw, q_kvar = (power.mean(axis=(0, 1)) for power in load.at(times_s))
        profiles = load.generation(times_s)
        if profiles is None:
            return (p_kw, q_kvar), None
        return (p_kw, q_kvar), (profiles[0].mean(axis=(0, 1)), profiles[1].mean(axis=(0, 1)))

    def _without(self, out: frozenset[int]) -> Sensitivity:
        network, feeder = self._network, self._scenario.feeder
        (p_kw, q_kvar), generation = self._operating_point
        if not out:
            return sensitivity(network, p_kw, q_kvar, generation, feeder.solver, feeder.reduce)
        points, phases = p_kw.shape
        buses = network.connections.bus
        slopes = np.zeros((2, points, phases, points, phases))
        part, loads, gens, _ = without(network, self._supply.buses(out), out)
        if part is None or not loads.any():
            return Sensitivity(buses, np.full((points, phases), np.nan), slopes[0], slopes[1])
        if generation is not None:
            generation = generation[0][gens], generation[1][gens]
        found = sensitivity(
            part, p_kw[loads], q_kvar[loads], generation, feeder.solver, feeder.reduce, buses, loads
        )
        for whole, left in zip(slopes, (found.dv_dp, found.dv_dq), strict=True):
            whole[:, :, loads] = np.nan_to_num(left)
        return Sensitivity(buses, found.voltage_pu, slopes[0], slopes[1])


def sensitivity(
    network: Network,
    p_kw: Array,
    q_kvar: Array,
    generation: Power | None = None,
    solver: SolverName = "auto",
    reduce: bool = True,
    buses: Ints | None = None,
    of_connections: NDArray[np.bool_] | None = None,
) -> Sensitivity:
    """Sensitivities about an operating point.

    Parameters
    ----------
    network
        The feeder.
    p_kw, q_kvar
        Power drawn at each connection point, (connection, phase).
    generation
        Active and reactive power of the fixed generation, (gen, phase); left out: the network's own.
    solver, reduce
        See ``evgrid.feeder.solvers.make_solver``.
    buses
        Positions of the buses whose voltages are returned; left out: those of the connection points.
    of_connections
        Which of ``buses`` are those of the connection points, in their order: there the voltage is the one at
        the EVs, which may be connected between phases; left out: none.

    Raises
    ------
    PowerFlowError
        Naming the connection point and phase at which a change has no solution.

    """
    connections = network.connections
    if buses is None:
        buses, of_connections = connections.bus, np.ones(len(connections), np.bool_)
    solve = make_solver(network, solver, reduce, unbalance=False).solve
    count, phases = p_kw.shape
    slots = np.argwhere(_carries(connections.phase, phases))
    step = STEP_KW * (network.grid.buses.nominal_kv[connections.bus[slots[:, 0]]] / 0.4) ** 2
    # cases: the operating point, then for each slot P up, P down, Q up, Q down
    cases = 1 + 4 * len(slots)
    voltage = np.empty((cases, len(buses), phases))
    for begin in range(0, cases, BATCH_CASES):
        batch = np.arange(begin, min(begin + BATCH_CASES, cases))
        power = np.tile(np.stack([p_kw, q_kvar]), (len(batch), 1, 1, 1))
        for row in np.flatnonzero(batch > 0).tolist():
            slot, change = divmod(int(batch[row]) - 1, 4)
            power[row, change // 2, slots[slot, 0], slots[slot, 1]] += step[slot] * (1 - 2 * (change % 2))

        def label(case: int, batch: Ints = batch) -> str:
            if batch[case] == 0:
                return "the operating point of the sensitivities"
            at, phase = slots[(batch[case] - 1) // 4]
            return f"the sensitivity to {connections.name[at]}, phase {connections.phases[phase]}"

        shape = (len(batch), count, phases)
        flow = solve(
            power[:, 0], power[:, 1], label,
            nominal=(np.broadcast_to(p_kw, shape), np.broadcast_to(q_kvar, shape)),
            generation=None if generation is None else _repeated(generation, len(batch)),
        )  # fmt: skip
        voltage[batch] = flow.voltage_pu[:, buses]
        if flow.connection_pu is not None and of_connections is not None:
            voltage[np.ix_(batch, of_connections)] = flow.connection_pu
    changed = voltage[1:].reshape(len(slots), 4, len(buses), phases)
    slopes = np.zeros((2, len(buses), phases, count, phases))
    for quantity in range(2):
        slope = (changed[:, 2 * quantity] - changed[:, 2 * quantity + 1]) / (2 * step[:, None, None])
        slopes[quantity][:, :, slots[:, 0], slots[:, 1]] = np.moveaxis(slope, 0, -1)
    return Sensitivity(bus=buses, voltage_pu=voltage[0], dv_dp=slopes[0], dv_dq=slopes[1])


def _carries(phase: NDArray[np.int8], phases: int) -> NDArray[np.bool_]:
    """Whether a connection point has a phase, (connection, phase) bool."""
    if phases == 1:
        return np.ones((len(phase), 1), np.bool_)
    has: NDArray[np.bool_] = (phase[:, None] == ALL_PHASES) | (phase[:, None] == np.arange(phases))
    return has


def _repeated(power: Power, cases: int) -> Power:
    p, q = (np.ascontiguousarray(np.broadcast_to(x, (cases, *x.shape))) for x in power)
    return p, q
