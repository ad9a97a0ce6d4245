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
    "Flow", "Label", "Positions", "Power", "Solver", "balance", "blank", "case_name", "check_balance",
    "make_solver", "not_converged", "worst_phase",
]  # fmt: skip


def make_solver(
    network: Network,
    solver: Literal["power-grid-model", "pandapower"],
    reduce: bool = True,
    unbalance: bool = True,
) -> Solver:
    """The solver that a scenario names.

    ``reduce`` merges nodes without load (power-grid-model; the reference solves the net as it is).
    Without ``unbalance`` voltage unbalance and neutral currents are left out.

    Raises
    ------
    NetworkError
        Naming the elements that the solver can't represent.

    """
    if solver == "pandapower":
        from evgrid.feeder.solvers.pandapower import PandapowerSolver

        return PandapowerSolver(network, unbalance)
    from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver

    return PowerGridModelSolver(network, reduce, unbalance=unbalance)
