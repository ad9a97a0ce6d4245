"""Power flow solvers behind one interface.

In: the load at each connection point, (case, connection, phase). A case is one member at one
time; cases are independent. Out: a :class:`Flow`. All solvers model a feeder alike:
constant-power loads, ideal voltage sources (also in the negative and zero sequence), lines as pi
circuits. Elements that a solver can't represent raise a NetworkError that names them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evgrid.core.model import Array
from evgrid.errors import PowerFlowError
from evgrid.feeder.grid import Bools, Grid, Ints

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

Power = tuple[Array, Array]
"""Active power in kW and reactive power in kvar."""

Label = Callable[[int], str]
"""Maps the number of a case in its batch to its name in messages: "member 17 at 2026-01-15 18:00:00"."""


@dataclass(frozen=True)
class Flow:
    """Solved power flows. A balanced feeder has one phase: positive sequence, total power.

    voltage_pu : (case, bus, phase) magnitude; NaN where no source feeds the bus
    line_loading : (case, line, phase) of the worse end, 1 is the rated current; NaN without a rating
    trafo_loading : (case, trafo, phase) of the worse side, 1 is the rated current of the nameplate; NaN
        without a rating
    trafo_p_kw : (case, trafo) active power into the high-voltage side
    trafo_lv_p_kw, trafo_lv_q_kvar : (case, trafo, phase) power out of the low-voltage side
    head_p_kw, head_q_kvar : (case, phase) power of the sources
    losses_kw : (case,) losses of all branches
    fixed_kw : (case,) power of shunts, less fixed generation, plus the power of voltage-dependent
        loads beyond their nominal power
    voltage_unbalance : (case, bus) negative per positive sequence, |V2|/|V1|; no buses if balanced
    neutral_a : (case, line) current in the neutral, A; no lines if balanced
    trafo_neutral_a : (case, trafo) the same at the low-voltage side; no trafos if balanced
    connection_pu : (case, connection, phase) voltage at the EVs of each connection point, where they are not
        connected from the phases of its bus to the neutral; None: that of its bus
    generator_pu : (case, gen, phase) the same at the fixed generators; NaN where they are not connected
    held_kvar : (case, gen) reactive power by which generators hold a voltage, 0 of others; None: none does
    """

    voltage_pu: Array
    line_loading: Array
    trafo_loading: Array
    trafo_p_kw: Array
    trafo_lv_p_kw: Array
    trafo_lv_q_kvar: Array
    head_p_kw: Array
    head_q_kvar: Array
    losses_kw: Array
    fixed_kw: Array
    voltage_unbalance: Array
    neutral_a: Array
    trafo_neutral_a: Array
    connection_pu: Array | None = None
    generator_pu: Array | None = None
    held_kvar: Array | None = None

    def __len__(self) -> int:
        return len(self.losses_kw)

    def tables(self) -> dict[str, Array]:
        """All that is there, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: values for name, values in found.items() if values is not None}


@dataclass(frozen=True)
class Positions:
    """Positions of regulating devices.

    tap : (case, trafo) position of tap changers, or (case, trafo, phase) where phases have their own, which
        z-bus takes; of transformers without one (``tap_side`` -1) anything
    shunt : (case, shunt) steps of shunts that are closed
    """

    tap: Ints
    shunt: Ints


class Solver(Protocol):
    """Solves power flows of one feeder."""

    name: str
    """Name in scenarios and messages."""
    balance_tolerance: float
    """Largest residual of the power balance, relative to the head power (at least 1 kW)."""
    in_time: bool
    """Whether the solver has a state, so that the cases of a member must come in the order of time."""
    newton_cases: int
    """Cases so far that another solver solved, as this one did not converge or is not accurate enough."""
    note: str
    """Why another solver is used in place of z-bus for all cases; empty: it is not."""

    def solve(
        self,
        p_kw: Array,
        q_kvar: Array,
        label: Label = ...,
        *,
        nominal: Power | None = None,
        generation: Power | None = None,
        positions: Positions | None = None,
        failed: dict[int, str] | None = None,
    ) -> Flow:
        """Solve for the load at each connection point, (case, connection, phase).

        Parameters
        ----------
        p_kw, q_kvar
            All power drawn there; of voltage-dependent loads that at nominal voltage.
        label
            Names of cases in messages.
        nominal
            Active and reactive power of the loads themselves, a part of ``p_kw`` and ``q_kvar``, of
            which shares may depend on the voltage; left out: all of it.
        generation
            Active and reactive power of the fixed generation, (case, gen, phase), in place of the
            grid's own.
        positions
            Of tap changers and shunts, in place of the grid's own; if given once, they must be given in every
            call.
        failed
            Filled with the reasons why cases did not converge, by case; all their numbers are NaN.

        Raises
        ------
        PowerFlowError
            Naming the cases that do not converge, unless ``failed`` is given.

        """


def empty_flow(grid: Grid, cases: int, unbalance: bool) -> Flow:
    """A flow of some cases to be filled: what is added up is 0, transformers' loadings NaN without a rating.

    Voltages, lines' loadings and voltage unbalance have no values yet.
    """
    buses, lines, trafos = len(grid.buses.name), len(grid.lines.name), len(grid.trafos.name)
    phases, with_unbalance = len(grid.phases), int(unbalance)
    trafo_loading = np.zeros((cases, trafos, phases))
    trafo_loading[:, np.isnan(grid.trafos.rating_kva)] = np.nan
    return Flow(
        voltage_pu=np.empty((cases, buses, phases)),
        line_loading=np.empty((cases, lines, phases)),
        trafo_loading=trafo_loading,
        trafo_p_kw=np.zeros((cases, trafos)),
        trafo_lv_p_kw=np.zeros((cases, trafos, phases)),
        trafo_lv_q_kvar=np.zeros((cases, trafos, phases)),
        head_p_kw=np.zeros((cases, phases)),
        head_q_kvar=np.zeros((cases, phases)),
        losses_kw=np.zeros(cases),
        fixed_kw=np.zeros(cases),
        voltage_unbalance=np.empty((cases, buses * with_unbalance)),
        neutral_a=np.zeros((cases, lines * with_unbalance)),
        trafo_neutral_a=np.zeros((cases, trafos * with_unbalance)),
        connection_pu=_between_phases(cases, grid.loads.delta, phases),
        generator_pu=_between_phases(cases, grid.fixed.gen_delta, phases),
        held_kvar=np.zeros((cases, len(grid.fixed.gen_bus))) if grid.fixed.holds.any() else None,
    )


def _between_phases(cases: int, delta: Bools, phases: int) -> Array | None:
    return np.empty((cases, len(delta), phases)) if delta.any() else None


def in_delta(grid: Grid, solver: str) -> list[str]:
    """A sentence for each load and generator in delta, for a solver that can't represent them."""
    found = (
        ("load", grid.loads.name[grid.loads.delta]), ("sgen", grid.fixed.gen_name[grid.fixed.gen_delta])
    )  # fmt: skip
    return [
        f"{kind} '{name}' can't be represented with the solver {solver}: it is in delta, only wye is"
        for kind, names in found
        for name in names
    ]


def holding_voltage(grid: Grid, solver: str, where: str = "") -> list[str]:
    """A sentence for each generator that holds a voltage, for a solver that can't represent them."""
    fixed = grid.fixed
    return [
        f"gen '{name}' can't be represented with the solver {solver}: it holds a voltage{where}, only fixed "
        "power is"
        for name in fixed.gen_name[fixed.holds]
    ]


def at_odds(network: Network, solver: str) -> list[str]:
    """A sentence for each generator whose voltage is not that of a source or generator at its node."""
    grid, node = network.grid, network.topology.node
    fixed, held = grid.fixed, dict[int, float]()
    for bus, volts in zip(grid.sources.bus, grid.sources.voltage_pu, strict=True):
        held.setdefault(int(node[bus]), float(volts))
    return [
        f"gen '{fixed.gen_name[k]}' can't be represented with the solver {solver}: it holds "
        f"{fixed.gen_held_pu[k]:g} pu where {first:g} pu is held already"
        for k in np.flatnonzero(fixed.holds)
        if (first := held.setdefault(int(node[fixed.gen_bus[k]]), float(fixed.gen_held_pu[k])))
        != fixed.gen_held_pu[k]
    ]


def lines_without_impedance(network: Network, solver: str) -> list[str]:
    """A sentence for each line without impedance, which no solver can represent."""
    lines = network.grid.lines
    closed = lines.from_closed | lines.to_closed
    return [
        f"line '{lines.name[k]}' can't be represented with the solver {solver}: it has no impedance; "
        "use a bus-bus switch"
        for k in np.flatnonzero(closed & (lines.r1_ohm == 0) & (lines.x1_ohm == 0))
    ]


def phase_powers(p: Array, q: Array, delta: bool) -> Power:
    """Power taken from each phase of a balanced voltage by what lies between the phases, or (not ``delta``)
    from the phases to earth, (case, phase).
    """
    if not delta:
        return p, q
    turned = np.exp(-2j * np.pi / 3)
    power = (p + 1j * q) / (1 - turned)  # S_ab Va / (Va - Vb) from phase a, the rest from b
    taken = power - turned * np.roll(power, 1, axis=1)
    return np.asarray(taken.real), np.asarray(taken.imag)


def case_name(case: int) -> str:
    """Default name of a case."""
    return f"case {case}"


def balance(flow: Flow, p_kw: Array) -> Array:
    """Residual of each power balance, (case,): head less losses, loads and fixed power, relative to
    the head power, which counts as at least 1 kW.
    """
    head = flow.head_p_kw.sum(axis=1)
    load = p_kw.reshape(len(p_kw), -1).sum(axis=1)
    gap: Array = np.abs(head - flow.losses_kw - flow.fixed_kw - load) / np.maximum(np.abs(head), 1.0)
    return gap


def check_balance(
    flow: Flow, p_kw: Array, tolerance: float, label: Label = case_name, failed: Collection[int] = ()
) -> Array:
    """The residual of each power balance; 0 of those that failed to converge.

    Raises
    ------
    PowerFlowError
        Naming the case with the worst one if it exceeds ``tolerance`` or is no number.

    """
    residual = balance(flow, p_kw)
    residual[list(failed)] = 0.0
    if not np.all(residual <= tolerance):
        worst = int(np.argmax(np.where(np.isnan(residual), np.inf, residual)))
        head, load = float(flow.head_p_kw[worst].sum()), float(p_kw[worst].sum())
        raise PowerFlowError(
            f"power flow of {label(worst)} does not balance: head {head:.6g} kW, loads {load:.6g} kW, "
            f"losses {flow.losses_kw[worst]:.6g} kW, fixed {flow.fixed_kw[worst]:.6g} kW "
            f"(residual {residual[worst]:.3g}, allowed {tolerance:g})"
        )
    return residual


def blank(flow: Flow, cases: Collection[int]) -> None:
    """Make all numbers of some cases NaN."""
    for values in flow.tables().values():
        values[list(cases)] = np.nan


def solve_again(
    flow: Flow,
    again: Ints,
    solver: Solver,
    power: Power,
    nominal: Power | None,
    generation: Power | None,
    positions: Positions | None = None,
) -> dict[int, str]:
    """Solve the cases ``again`` with another solver and write them into ``flow``.

    Returns the reasons of those without solution, by case. ``power``, ``nominal``, ``generation`` and
    ``positions`` are of all cases, as :meth:`Solver.solve` has them.
    """

    def of(pair: Power | None) -> Power | None:
        return None if pair is None else (pair[0][again], pair[1][again])

    at = None if positions is None else Positions(positions.tap[again], positions.shunt[again])
    found: dict[int, str] = {}
    part = solver.solve(
        power[0][again], power[1][again], nominal=of(nominal), generation=of(generation), positions=at,
        failed=found,
    )  # fmt: skip
    for name, values in part.tables().items():
        getattr(flow, name)[again] = values
    return {int(again[case]): reason for case, reason in found.items()}


def report_failed(
    solver: str, flow: Flow, reasons: dict[int, str], label: Label, failed: dict[int, str] | None
) -> None:
    """Blank the cases without solution and add them to ``failed``; PowerFlowError if that is None."""
    if not reasons:
        return
    if failed is None:
        raise not_converged(solver, reasons, label)
    failed.update(reasons)
    blank(flow, reasons)


def not_converged(solver: str, reasons: dict[int, str], label: Label) -> PowerFlowError:
    """The error for cases that did not converge; ``reasons`` by case, the first few are shown."""
    shown = "; ".join(
        f"{label(case)}: {' '.join(reason.split())}" for case, reason in list(reasons.items())[:5]
    )
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return PowerFlowError(f"power flow with {solver} did not converge: {shown}{more}")
