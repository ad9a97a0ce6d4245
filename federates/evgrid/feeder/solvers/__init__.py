"""Power flow solvers behind one interface (:mod:`evgrid.feeder.solvers.interface`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evgrid.errors import NetworkError
from evgrid.feeder.solvers.interface import (
    Flow,
    Label,
    Positions,
    Power,
    Solver,
    balance,
    blank,
    case_name,
    check_balance,
    not_converged,
)
from evgrid.scenario.feeder import SolverName

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

__all__ = [
    "Flow", "Label", "Positions", "Power", "Solver", "SolverName", "balance", "blank", "case_name",
    "check_balance", "chosen_solver", "faults_of", "make_solver", "not_converged",
]  # fmt: skip


MOST_STATES = 100
"""Sets of positions of tap changers and capacitors up to which z-bus is chosen: each is factorised."""


def chosen_solver(network: Network, states: int = 1, live_controls: bool = False) -> tuple[SolverName, str]:
    """The solver that ``auto`` stands for, and the reason.

    Of a network from OpenDSS opendss where its controls act in time, or where z-bus is not accurate enough
    (the network is factorised to find out), else z-bus. Of others z-bus where it can
    represent the network, unless tap changers and capacitors have more than :data:`MOST_STATES` sets of
    positions (``states``) and power-grid-model can, too; else power-grid-model.
    """
    if network.opendss is not None:
        if live_controls:
            return "opendss", "the network's controls act in time"
        from evgrid.feeder.solvers.opendss_z_bus import OpenDSSZBusSolver

        note = OpenDSSZBusSolver(network, unbalance=False).note
        if note:
            return "opendss", note
        return "z-bus", "the controls of the network from OpenDSS stay as they are"
    faults = faults_of(network, "z-bus")
    if faults:
        return "power-grid-model", faults[0]
    if states > MOST_STATES and not faults_of(network, "power-grid-model"):
        return "power-grid-model", (
            f"tap changers and capacitors have {states} sets of positions, more than the {MOST_STATES} for "
            "which z-bus is chosen"
        )
    return "z-bus", "the fastest that can represent the network"


def make_solver(
    network: Network,
    solver: SolverName = "auto",
    reduce: bool = True,
    unbalance: bool = True,
    states: int = 1,
    members: int = 1,
    controls_step_s: float | None = None,
) -> Solver:
    """The solver that a scenario names.

    ``reduce`` merges nodes without load (the reference, pandapower, solves the net as it is).
    Without ``unbalance`` voltage unbalance and neutral currents are left out. ``states``: see
    :func:`chosen_solver`. ``members`` and ``controls_step_s`` are for the live controls of a network from
    OpenDSS, see :class:`~evgrid.feeder.solvers.opendss.OpenDSSSolver`.

    Raises
    ------
    NetworkError
        Naming the elements that the solver can't represent.

    """
    if network.opendss is not None and solver == "auto" and controls_step_s is None:
        from evgrid.feeder.solvers.opendss import OpenDSSSolver
        from evgrid.feeder.solvers.opendss_z_bus import OpenDSSZBusSolver

        by_z_bus = OpenDSSZBusSolver(network, unbalance)
        if not by_z_bus.note:
            return by_z_bus
        by_engine = OpenDSSSolver(network, members, None, unbalance)
        by_engine.note = by_z_bus.note
        return by_engine
    if solver == "auto":
        solver, _ = chosen_solver(network, states, controls_step_s is not None)
    if solver == "opendss":
        from evgrid.feeder.solvers.opendss import OpenDSSSolver

        return OpenDSSSolver(network, members, controls_step_s, unbalance)
    if solver == "pandapower":
        from evgrid.feeder.solvers.pandapower import PandapowerSolver

        return PandapowerSolver(network, unbalance)
    if solver == "z-bus" and network.opendss is not None:
        if controls_step_s is not None:
            raise NetworkError(
                f"feeder.solver = z-bus: the controls of {network.source} act in time; must be opendss, or "
                "feeder.controls: false"
            )
        from evgrid.feeder.solvers.opendss_z_bus import OpenDSSZBusSolver

        return OpenDSSZBusSolver(network, unbalance)
    if solver == "z-bus":
        from evgrid.feeder.solvers.z_bus_solver import ZBusSolver

        return ZBusSolver(network, reduce, unbalance)
    from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver

    return PowerGridModelSolver(network, reduce, unbalance=unbalance)


def faults_of(network: Network, solver: SolverName) -> list[str]:
    """Elements that a solver can't represent, a sentence each."""
    if network.opendss is not None and solver in ("auto", "z-bus"):
        return []
    if solver == "auto":
        solver, _ = chosen_solver(network)
    if solver == "opendss":
        return [] if network.opendss is not None else [f"{network.source} is not from OpenDSS"]
    if solver == "pandapower":
        from evgrid.feeder.solvers import pandapower

        return pandapower.faults_of(network)
    if solver == "z-bus":
        from evgrid.feeder.solvers import z_bus_solver

        return z_bus_solver.faults_of(network)
    from evgrid.feeder.solvers import power_grid_model

    return power_grid_model.faults_of(network)
