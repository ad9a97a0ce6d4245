"""Grid co-simulation for EV aggregation.

>>> import evgrid
>>> scenario = evgrid.load_scenario("scenarios/european_lv_v2g.yaml")  # doctest: +SKIP
>>> result = evgrid.run(scenario)  # doctest: +SKIP
>>> result = evgrid.open_results("results/european-lv-v2g.nc")  # doctest: +SKIP

Names are loaded when they are first used, so that ``import evgrid`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evgrid.aggregator.strategy import MemberStrategy, Strategy, View, register
    from evgrid.errors import EvgridError, ScenarioError
    from evgrid.results import of_aggregator, open_results
    from evgrid.runs.batch import batch_sessions, open_batch, run_batch
    from evgrid.runs.simulation import run
    from evgrid.runs.stepwise import stepwise
    from evgrid.scenario import Scenario, load_scenario
    from evgrid.scenario.aggregators import StateSettings, StrategySettings
    from evgrid.sites.controls import PlanningControl

_HOME = {
    "EvgridError": "evgrid.errors",
    "Scenario": "evgrid.scenario",
    "ScenarioError": "evgrid.errors",
    "MemberStrategy": "evgrid.aggregator.strategy",
    "PlanningControl": "evgrid.sites.controls",
    "Strategy": "evgrid.aggregator.strategy",
    "StateSettings": "evgrid.scenario.aggregators",
    "StrategySettings": "evgrid.scenario.aggregators",
    "View": "evgrid.aggregator.strategy",
    "batch_sessions": "evgrid.runs.batch",
    "load_scenario": "evgrid.scenario",
    "open_batch": "evgrid.runs.batch",
    "of_aggregator": "evgrid.results",
    "open_results": "evgrid.results",
    "register": "evgrid.aggregator.strategy",
    "run": "evgrid.runs.simulation",
    "run_batch": "evgrid.runs.batch",
    "stepwise": "evgrid.runs.stepwise",
}

__all__ = [
    "EvgridError",
    "MemberStrategy",
    "PlanningControl",
    "Scenario",
    "ScenarioError",
    "StateSettings",
    "Strategy",
    "StrategySettings",
    "View",
    "batch_sessions",
    "load_scenario",
    "of_aggregator",
    "open_batch",
    "open_results",
    "register",
    "run",
    "run_batch",
    "stepwise",
]


def __getattr__(name: str) -> object:
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("evgrid")
    if name == "gym":  # imported when it is first used, as it needs an extra
        return import_module("evgrid.gym")
    if name not in _HOME:
        raise AttributeError(f"module 'evgrid' has no attribute '{name}'")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
