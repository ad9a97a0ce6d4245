"""Study files: YAML that names a scenario and says what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evgrid.errors import ScenarioError
from evgrid.scenario import load_scenario
from evgrid.settings import Settings, faults_of, read_yaml

AnyStudy = TypeVar("AnyStudy", bound=Settings)


def load_study(path: str | Path, schema: type[AnyStudy], kind: str, **changes: Any) -> AnyStudy:
    """Read a study file, or make a study of a scenario file with the defaults; ``changes`` on top.

    A study file has the key ``scenario``; ``kind``, such as ``voltage-support``, ends the name of a
    study that has no file of its own. Changes that are None are none.

    Raises
    ------
    ScenarioError
        With every fault found, each with its path.

    """
    path = Path(path)
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ScenarioError([str(error)], str(path)) from None
    if "scenario" not in content:
        content = {"name": f"{load_scenario(path).name}-{kind}", "scenario": path.name}
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return schema.model_validate({**content, **given}, context={"folder": str(path.parent.resolve())})
    except ValidationError as error:
        raise ScenarioError(faults_of(error, schema), str(path)) from None
