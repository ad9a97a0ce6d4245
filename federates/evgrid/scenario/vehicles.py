"""Vehicle types of a mix of EVs, and their charging limits by connection.

A mix is a small YAML or CSV file with types and their shares; ``data/vehicles/default.yaml`` is shipped,
with the sources of its numbers. Power is positive and at the grid, in kW; capacity is usable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from evgrid.errors import ScenarioError
from evgrid.readers import Faults, read_table, shown
from evgrid.readers.yaml_files import read_yaml
from evgrid.scenario.fields import Settings, fault, faults_of

YAML = (".yaml", ".yml")
SHIPPED = "default"
"""Name of the mix that is shipped."""


class ChargeCurve(Settings):
    """Most power that a vehicle draws from a DC charger against its state of charge.

    Linear between the points, constant before the first and after the last.
    """

    soc: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=32)]
    """States of charge of the points, 0 to 1, ascending."""
    kw: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=32)]
    """Power at the points, kW at the grid."""

    @model_validator(mode="after")
    def _points_are_a_curve(self) -> ChargeCurve:
        if len(self.soc) != len(self.kw):
            raise fault(f"soc has {len(self.soc)} points, kw has {len(self.kw)}: must be as many")
        if any(after <= before for before, after in pairwise(self.soc)):
            raise fault(f"soc = {self.soc}: must be ascending")
        return self


class VehicleType(Settings):
    """A type of vehicle."""

    capacity_kwh: Annotated[float, Field(gt=0)]
    """Usable battery capacity, kWh."""
    ac_1p_kw: Annotated[float, Field(gt=0)]
    """Most that it draws on one phase, kW."""
    ac_3p_kw: Annotated[float, Field(ge=0)]
    """Most that it draws on three phases together, kW; 0: its on-board charger has one phase."""
    dc_kw: Annotated[float, Field(ge=0)] = 0.0
    """Most that it draws from a DC charger, kW; 0: it has no DC inlet."""
    charge_curve: ChargeCurve | None = None
    """Most power from a DC charger against state of charge, within dc_kw, in place of fleet.vehicle's taper;
    left out: that of fleet.vehicle, if it has one."""
    discharge_kw: Annotated[float, Field(gt=0)] | None = None
    """Most that it gives back, kW; left out: as much as it draws."""
    bidirectional: bool = False
    """Whether it can discharge."""
    chemistry: Literal["nmc", "lfp"] | None = None
    """Chemistry of its battery, by which it ages; left out: that of fleet.vehicle."""
    consumption_kwh_per_mile: Annotated[float, Field(gt=0)]
    """Energy out of the battery per mile driven, kWh."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the EVs that are of this type."""
    source: str = ""
    """Source of its numbers."""


_NUMBERS = (
    "share",
    *(name for name in VehicleType.model_fields if name.endswith(("_kwh", "_kw", "_per_mile"))),
)
"""Columns of a table of types that hold numbers."""


class Mix(Settings):
    """Vehicle types and their shares."""

    name: str = "mix"
    """Name of the mix."""
    source: str = ""
    """Source of its numbers."""
    types: Annotated[dict[str, VehicleType], Field(min_length=1)]
    """Types by name."""

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Mix:
        total = sum(kind.share for kind in self.types.values())
        if abs(total - 1.0) > 1e-6:
            raise fault(f"the shares of the types add up to {total:g}: must be 1")
        return self


def charge_limit_kw(vehicle: VehicleType, power_kw: float, phases: int, direct: bool) -> float:
    """The most that a vehicle draws from an EVSE: the lesser of its limit there and the EVSE's, kW.

    ``direct``: the EVSE is a DC charger. A vehicle whose on-board charger has one phase takes at most a
    third of a three-phase EVSE: 3.67 kW of 11 kW.
    """
    if direct:
        return min(power_kw, vehicle.dc_kw)
    if phases == 1:
        return min(power_kw, vehicle.ac_1p_kw)
    if vehicle.ac_3p_kw == 0:
        return min(power_kw / 3.0, vehicle.ac_1p_kw)
    return min(power_kw, vehicle.ac_3p_kw)


def read_mix(value: Any, folder: str | Path | None = None) -> Mix:
    """A mix as a scenario gives it.

    The name of the shipped mix; ``{file: my_mix.yaml}`` or a table ``my_mix.csv`` (a row a type: type, share,
    capacity_kwh, …; an empty cell is left out), where relative paths start at ``folder``; a mix in full
    (``{types: {...}}``); or shares of shipped types (``{bev250: 0.7, phev50: 0.3}``).

    Raises
    ------
    ScenarioError
        With every fault, each with its path.

    """
    if isinstance(value, str):
        if value != SHIPPED:
            raise ScenarioError(
                [f"fleet.mix = {value}: must be {SHIPPED}, {{file: ...}} or types and shares"]
            )
        return _shipped()
    if not isinstance(value, Mapping):
        raise ScenarioError([f"fleet.mix = {value}: must be {SHIPPED}, {{file: ...}} or types and shares"])
    if set(value) == {"file"}:
        path = Path(folder or ".") / Path(str(value["file"])).expanduser()
        try:
            content = read_yaml(path) if path.suffix in YAML else _of_table(path)
        except ValueError as error:
            raise ScenarioError([f"fleet.mix.file: {error}"]) from None
        except ScenarioError as error:
            raise ScenarioError([f"fleet.mix.file: {path} {fault}" for fault in error.faults]) from None
        return _checked(content, "fleet.mix")
    if "types" in value:
        return _checked(value, "fleet.mix")
    known = _shipped().types
    found = [
        f"fleet.mix.{name}: no such type; shipped are {', '.join(known)}"
        for name in value
        if name not in known
    ]
    if found:
        raise ScenarioError(found)
    types = {name: known[name].model_dump() | {"share": share} for name, share in value.items()}
    return _checked({"name": "shares", "source": _shipped().source, "types": types}, "fleet.mix")


def _of_table(path: Path) -> dict[str, Any]:
    """A table of vehicle types as the content of a mix. Raises ScenarioError with every fault."""
    table = read_table(path)
    faults = Faults(table)
    if "type" not in table:
        raise ScenarioError(["column type is missing, the name of the vehicle type"], str(path))
    faults.rows_unlike_header()
    names = table.names_of("type", faults)
    faults.rows(table.empty("type"), "type is missing, the name of the vehicle type")
    given, again = set[str](), []
    for row, name in enumerate(names):
        again += [row] if name and name in given else []
        given.add(name)
    faults.rows(again, lambda row: f"type {shown(names[row])} is there twice")
    numbers = [name for name in table.names if name in _NUMBERS]
    columns: dict[str, Sequence[Any]] = {name: table.text(name) for name in table.names if name != "type"}
    columns |= {n: v.tolist() for n, v in zip(numbers, table.numbers(numbers, faults), strict=True)}
    faults.check()
    empty = {name: table.empty(name) for name in columns}
    types = {
        kind: {name: cells[row] for name, cells in columns.items() if not empty[name][row]}
        for row, kind in enumerate(names)
    }
    return {"name": path.stem, "types": types}


def single_type(name: str) -> Mix:
    """A mix of only one shipped type, such as school_bus."""
    return read_mix({name: 1.0})


def chemistries(types: NDArray[np.str_], otherwise: str) -> NDArray[np.str_]:
    """Chemistry of each vehicle, (n,), by the name of its type: a shipped type's, or ``otherwise``."""
    names, of = np.unique(types, return_inverse=True)
    shipped = _shipped().types
    found = [(shipped[name].chemistry if name in shipped else None) or otherwise for name in names.tolist()]
    return np.array(found, np.str_)[of.reshape(-1)]


@cache
def _shipped() -> Mix:
    file = resources.files("evgrid") / "data" / "vehicles" / f"{SHIPPED}.yaml"
    with resources.as_file(file) as path:
        return Mix.model_validate(read_yaml(path))


def _checked(content: Mapping[str, Any], prefix: str) -> Mix:
    try:
        return Mix.model_validate(content)
    except ValidationError as error:
        raise ScenarioError(faults_of(error, Mix, prefix)) from None
