"""Power flow solvers behind one interface (:mod:`evgrid.feeder.solvers.interface`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
    worst_phase,
)

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

__all__ = [
    "Flow", "Label", "Positions", "Power", "Solver", "SolverName", "balance", "blank", "case_name",
    "check_balance", "faults_of", "make_solver", "not_converged", "worst_phase",
]  # fmt: skip


SolverName = Literal["z-bus", "power-grid-model", "pandapower"]
"""Name of a solver in scenarios."""


def make_solver(
    network: Network,
    solver: SolverName,
    reduce: bool = True,
    unbalance: bool = True,
) -> Solver:
    """The solver that a scenario names.

    ``reduce`` merges nodes without load (the reference, pandapower, solves the net as it is).
    Without ``unbalance`` voltage unbalance and neutral currents are left out.

    Raises
    ------
    NetworkError
        Naming the elements that the solver can't represent.

    """
    if solver == "pandapower":
        from evgrid.feeder.solvers.pandapower import PandapowerSolver

        return PandapowerSolver(network, unbalance)
    if solver == "z-bus":
        from evgrid.feeder.solvers.z_bus_solver import ZBusSolver

        return ZBusSolver(network, reduce, unbalance)
    from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver

    return PowerGridModelSolver(network, reduce, unbalance=unbalance)


def faults_of(network: Network, solver: SolverName) -> list[str]:
    """Elements that a solver can't represent, a sentence each."""
    if solver == "pandapower":
        from evgrid.feeder.solvers import pandapower

        return pandapower.faults_of(network)
    if solver == "z-bus":
        from evgrid.feeder.solvers import z_bus_solver

        return z_bus_solver.faults_of(network)
    from evgrid.feeder.solvers import power_grid_model

    return power_grid_model.faults_of(network)
