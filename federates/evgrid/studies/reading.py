"""Study files: YAML that names a scenario and says what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evgrid.scenario import load_scenario
from evgrid.settings import AnySettings, checked, read_settings


def load_study(path: str | Path, schema: type[AnySettings], kind: str, **changes: Any) -> AnySettings:
    """Read a study file, or make a study of a scenario file with the defaults; ``changes`` on top.

    A study file has the key ``scenario``; ``kind``, such as ``voltage-support``, ends the name of a
    study that has no file of its own. Changes that are None are none.

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
