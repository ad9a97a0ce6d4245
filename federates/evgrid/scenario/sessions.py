"""The settings of ``fleet.sessions``: sources of sessions.

A source is a name (``home``), a name with other parameters (``{source: home, return_h: [18, 3]}``),
or a file (``{file: ...}``, ``{acn: ...}``, ``{elaad: ...}``, ``{nhts: ...}``). Each is a class of its own in
:mod:`evgrid.fleet.sessions`, listed in the two tables below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ValidationError

from evgrid.core.registry import Registry
from evgrid.scenario.fields import OneOfSeveral, faults, faults_of

_SAMPLED, _IMPORTERS = "evgrid.fleet.sessions.sources", "evgrid.fleet.sessions.importers"
SOURCES = Registry(
    {
        "home": f"{_SAMPLED}.home:HomeSessions",
        "workplace": f"{_SAMPLED}.workplace:WorkplaceSessions",
        "public": f"{_SAMPLED}.public:PublicSessions",
        "dc_fast": f"{_SAMPLED}.dc_fast:DcFastSessions",
        "school_bus": f"{_SAMPLED}.school_bus:SchoolBusSessions",
        "rental": f"{_SAMPLED}.rental:RentalSessions",
        "delivery_van": f"{_SAMPLED}.delivery_van:DeliveryVanSessions",
        "full_power": f"{_SAMPLED}.full_power:FullPowerSessions",
    }
)
"""Sampled sources by name, which is their field ``source``."""
SESSION_FILES = Registry(
    {
        "file": "evgrid.fleet.sessions.table:SessionFile",
        "acn": f"{_IMPORTERS}.acn:AcnFile",
        "elaad": f"{_IMPORTERS}.elaad:ElaadFile",
        "nhts": f"{_IMPORTERS}.nhts:NhtsFile",
    }
)
"""Sources that read a file, by the key that names it."""


class SessionSource(OneOfSeveral):
    """The facts that a scenario needs of any source of sessions; the rest is in its own class."""

    sampled: ClassVar[bool] = False
    """Whether the number of EVs, their types and their places are the scenario's, not a file's."""
    at_households: ClassVar[bool] = False
    """Whether its EVs belong to households, and may be counted by them."""
    needs_dc: ClassVar[bool] = False
    """Whether its chargers must be DC."""
    limited_by_vehicle: ClassVar[bool] = True
    """Whether an EV draws no more than its vehicle takes."""
    vehicle_type: ClassVar[str | None] = None
    """Shipped vehicle type of its EVs where the scenario gives no mix; None: ``fleet.vehicle``."""

    @classmethod
    def alternatives(cls) -> tuple[type[SessionSource], ...]:
        """All sources."""
        if cls is not SessionSource:
            return (cls,)
        return tuple(kinds.find(name) for kinds in (SOURCES, SESSION_FILES) for name in kinds.names())


def session_source(value: Any, context: Any) -> SessionSource:
    """The settings of a source as a scenario gives it.

    Raises PydanticCustomError with every fault, each with its path; TypeError for a class in SESSION_FILES
    without a field named like its key.
    """
    files = ": ...}, {".join(SESSION_FILES.names())
    allowed = f"must be one of {', '.join(SOURCES.names())}, or {{{files}: ...}}"
    if isinstance(value, SessionSource):
        return value
    if isinstance(value, str):
        value = {"source": value}
    if not isinstance(value, Mapping):
        raise faults([f"fleet.sessions: {allowed}"])
    kinds = [key for key in SESSION_FILES.names() if key in value]
    name = str(value.get("source"))
    if "source" in value and not kinds and name in SOURCES:
        found: type[SessionSource] = SOURCES.find(name)
    elif len(kinds) == 1:
        found = SESSION_FILES.find(kinds[0])
        if kinds[0] not in found.model_fields:
            raise TypeError(f"{found.__name__} needs a field '{kinds[0]}', as its key in SESSION_FILES")
    else:
        given = f" = {name}" if "source" in value and not kinds else ""
        raise faults([f"fleet.sessions{given}: {allowed}"])
    try:
        return found.model_validate(value, context=context)
    except ValidationError as error:
        raise faults(faults_of(error, found, "fleet.sessions")) from None
