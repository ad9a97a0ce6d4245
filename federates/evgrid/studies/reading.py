"""Study files: YAML that names a scenario and the settings of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evgrid.core.registry import Registry
from evgrid.errors import ScenarioError
from evgrid.scenario import load_scenario
from evgrid.scenario.fields import AnySettings, Settings, checked, read_settings
from evgrid.studies.study import STUDIES, Study

if TYPE_CHECKING:
    from evgrid.runs.batch import Run

FILES = Registry(
    {
        "scenario": "evgrid.scenario:Scenario",
        "batch": "evgrid.runs.batch:Batch",
        "tariff": "evgrid.scenario.tariffs:Tariff",
        "rates": "evgrid.results.settlement:Rates",
        "vehicle-types": "evgrid.scenario.vehicles:Mix",
        "reinforcement-prices": "evgrid.studies.measures:PriceTable",
    }
)
"""The settings of each kind of settings file but studies."""


def settings_of(kind: str) -> type[Settings]:
    """The settings of a kind of file, such as a kind of study.

    Raises ValueError with one sentence if there is none of that name.
    """
    if kind not in (*FILES.names(), *STUDIES.names()):
        raise ValueError(f"must be one of {', '.join((*FILES.names(), *STUDIES.names()))}")
    found: type[Settings] = (STUDIES if kind in STUDIES else FILES).find(kind)
    return found


def check_study(path: str | Path) -> tuple[str, list[Run]]:
    """The kinds of study that accept a file, "managed-charging or …", and the runs of the first.

    If none does, the faults are those of the kind with the fewest.

    Raises
    ------
    ScenarioError
        With every fault found, of the file and of its runs.

    """
    taken, refused = dict[str, "list[Run]"](), list[ScenarioError]()
    for kind in STUDIES.names():
        try:
            schema: type[Study] = STUDIES.find(kind)
            taken[kind] = load_study(path, schema, kind).plans()
        except ScenarioError as error:
            refused.append(error)
    if not taken:
        raise min(refused, key=lambda error: len(error.faults))
    return " or ".join(taken), next(iter(taken.values()))


def load_study(path: str | Path, schema: type[AnySettings], kind: str, **changes: Any) -> AnySettings:
    """Read a study file, or make a study of a scenario file with the defaults; ``changes`` on top.

    A study file has the key ``scenario``; ``kind``, such as ``voltage-support``, ends the name of a
    study that has no file of its own. Changes that are None are ignored.

    Raises
    ------
    ScenarioError
        With every fault found, each with its path.

    """
    path = Path(path)
    content = read_settings(path)
    if "scenario" not in content:
        content = {"name": f"{load_scenario(path).name}-{kind}", "scenario": path.name}
    given = {key: value for key, value in changes.items() if value is not None}
    return checked(schema, {**content, **given}, str(path), path.parent)
