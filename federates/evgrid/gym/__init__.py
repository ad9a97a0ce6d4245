"""Reinforcement learning: runs as environments of Gymnasium, whose agent plays an aggregator.

:func:`make_vec` makes a ``gymnasium.vector.VectorEnv`` whose environments are the members of the scenario,
advanced together; :func:`make` a plain ``gymnasium.Env`` of its first member. Feeder, fleet, sites, system
and the other aggregators are in the loop, over HELICS. Needs the extra: ``pip install 'evgrid[gym]'``.
"""

try:
    import gymnasium  # noqa: F401
except ImportError:
    raise ImportError("evgrid.gym needs Gymnasium, which is missing: pip install 'evgrid[gym]'") from None

from evgrid.gym.actions import ByEV, ByGroup, ByPortfolio
from evgrid.gym.environments import Environment, VectorEnvironment, make, make_vec
from evgrid.gym.observations import EVs, Grid, Groups, Prices, Signal, Time
from evgrid.gym.rewards import Cost, LimitExcess, Outcome, Regulation, Unserved, VoltageViolations

__all__ = [
    "ByEV",
    "ByGroup",
    "ByPortfolio",
    "Cost",
    "EVs",
    "Environment",
    "Grid",
    "Groups",
    "LimitExcess",
    "Outcome",
    "Prices",
    "Regulation",
    "Signal",
    "Time",
    "Unserved",
    "VectorEnvironment",
    "VoltageViolations",
    "make",
    "make_vec",
]
