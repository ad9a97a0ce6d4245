"""Building blocks of the scenario's schema.

A setting is a field of a frozen pydantic model that forbids unknown keys; the docstring under it
is its description with the unit, also in ``evgrid scenario --schema``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from evgrid.errors import ScenarioError
from evgrid.readers.faults import capped, shown
from evgrid.readers.times import check_time_format, moment_of
from evgrid.readers.yaml_files import read_yaml

AnySettings = TypeVar("AnySettings", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys are errors, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def fault(text: str) -> PydanticCustomError:
    """A fault found by a validator: one sentence with the allowed values."""
    return PydanticCustomError("fault", "{text}", {"text": text})


def faults(sentences: Sequence[str]) -> PydanticCustomError:
    """Several faults found by a validator, each a whole sentence that begins with its path."""
    return PydanticCustomError("faults", "{text}", {"text": "\n".join(sentences)})


_UNITS = {"H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns"}
"""Units that pandas knows by another name, too."""


def seconds_of(text: str) -> float:
    """A duration such as '60s', '15min' or 'P1DT6H', in seconds.

    Raises ValueError for text that is none.
    """
    if "P" not in text:  # of ISO 8601
        text = re.sub(r"(?<![A-Za-z])[HTSLUN](?![A-Za-z])", lambda unit: _UNITS[unit.group()], text)
    return float(pd.Timedelta(text).total_seconds())


def seconds_from(value: Any) -> float:
    """A duration of a scenario, text or a number, in seconds. Raises the fault of what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise fault("must be a duration such as '60s', '15min' or '24h'")
    if isinstance(value, str):
        try:
            value = seconds_of(value)
        except ValueError:
            raise fault("must be a duration such as '60s', '15min' or '24h'") from None
    return float(value)


def _local_time(value: Any) -> Any:
    moment = moment_of(value.isoformat() if isinstance(value, datetime) else value)
    if moment is None:
        raise fault("must be a date and time such as 2026-01-15T12:00, from 1700 to 2199")
    if moment.tzinfo is not None:
        raise fault("must be local time without a zone, such as 2026-01-15T12:00")
    return moment


def _hour_of_day(value: Any) -> float:
    wrong = fault("must be a time of day such as 22:30, from 00:00 to 24:00")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?", value.strip())
        if found is None:
            raise wrong
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        value = hours + minutes / 60.0 + seconds / 3600.0
    if not 0.0 <= value <= 24.0:
        raise wrong
    return float(value)


def _span(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] % 24.0 == value[1] % 24.0 and value != (0.0, 24.0):
        raise fault("must be two different times of day [from, until]; the whole day is [0, 24]")
    return value


def _beside_scenario(value: Any, info: ValidationInfo) -> Any:
    folder = (info.context or {}).get("folder")
    if not isinstance(value, str | Path) or not str(value):
        raise fault("must be the path of a file")
    path = Path(value).expanduser()
    if folder is not None and not path.is_absolute():
        path = Path(folder) / path
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 (no error for odd names)
        raise fault(f"{path} is a folder, pipe or device: must be a file")
    if not os.path.isfile(path):  # noqa: PTH113
        raise fault(
            f"there is no file {shown(path)}" if len(str(path)) > 1000 else f"there is no file {path}"
        )
    return path.resolve()


def _output_file(value: Any, info: ValidationInfo) -> Any:
    folder = (info.context or {}).get("folder")
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise fault("must be the path of a file")
    path = Path(folder or ".", Path(value).expanduser())
    if path.is_dir() or not path.parent.is_dir():
        raise fault(f"there is no folder {path.parent}" if not path.is_dir() else f"{path} is a folder")
    return str(path.resolve())


OutputFile = Annotated[str, BeforeValidator(_output_file, json_schema_input_type=str)]
"""Path of a file that is written, relative to the folder of the scenario."""

Duration = Annotated[
    float, BeforeValidator(seconds_from, json_schema_input_type=float | str), Field(examples=["15min"])
]
"""Seconds; written as a number of seconds or as text with a unit ('60s', '15min', '24h')."""


def _time_format(value: str) -> str:
    try:
        return check_time_format(value)
    except ValueError as error:
        raise fault(str(error)) from None


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise fault("must be the name of a time zone, such as America/Los_Angeles") from None
    return value


TimeZone = Annotated[str, AfterValidator(_zone)]
"""Name of a time zone, such as America/Los_Angeles."""

TimeFormat = Annotated[str, AfterValidator(_time_format)]
"""Form of the times in a file: as for strptime ('%d.%m.%Y %H:%M'), excel, or seconds."""

LocalTime = Annotated[datetime, BeforeValidator(_local_time, json_schema_input_type=str)]
"""Local wall-clock time without a zone, in the years 1700 to 2199."""

HourOfDay = Annotated[
    float, BeforeValidator(_hour_of_day, json_schema_input_type=float | str), Field(examples=["22:30"])
]
"""Local time of day, h; written as text ('22:30') or as a number of hours from 0 to 24."""

HourSpan = Annotated[tuple[HourOfDay, HourOfDay], AfterValidator(_span)]
"""Local hours [from, until), h: ['22:30', 6] goes over midnight, [0, 24] is the whole day."""


def one_or_several(value: Any) -> Any:
    """A text as a tuple of one, for settings that take one or a list."""
    return (value,) if isinstance(value, str) else value


NamePatterns = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(one_or_several, json_schema_input_type=str | tuple[str, ...] | None),
]
"""Names of elements, or patterns such as 'North*': one, or a list."""

WeekDay = Literal[
    "all", "weekday", "weekend", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
]

WeekDays = Annotated[
    tuple[WeekDay, ...],
    BeforeValidator(one_or_several, json_schema_input_type=WeekDay | tuple[WeekDay, ...]),
    Field(min_length=1),
]
"""Days of the week: one name, or a list of names (all, weekday, weekend, monday, ...)."""

_NUMBERS = {"all": range(7), "weekday": range(5), "weekend": range(5, 7)}
_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def day_numbers(days: Iterable[str]) -> frozenset[int]:
    """Days of the week as numbers, Monday 0 to Sunday 6."""
    return frozenset(n for day in days for n in _NUMBERS.get(day) or [_NAMES.index(day)])


class OneOfSeveral(Settings):
    """Settings that have several kinds, each with a class of its own that extends the kinds' base."""

    @classmethod
    def alternatives(cls) -> tuple[type[OneOfSeveral], ...]:
        """The classes that a field of this class may hold: all kinds of a base, itself of a kind."""
        return (cls,)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema of the class; of a base, those of all kinds."""
        kinds = cls.alternatives()
        if kinds == (cls,):
            return handler(schema)
        return {"anyOf": [handler(kind.__pydantic_core_schema__) for kind in kinds]}


ExistingFile = Annotated[Path, BeforeValidator(_beside_scenario, json_schema_input_type=Path)]
"""Path of a file that exists; relative paths start at the scenario's folder."""


ElementName = Annotated[str, StringConstraints(strip_whitespace=True)]
"""Name of an element of the network, an EVSE or a vehicle type; spaces at its ends don't count."""


_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))]
)


def _name(value: str) -> str:
    """A name that is also a file's: without a path to elsewhere; a slash makes a subfolder of the results."""
    if re.search(r"[\\\x00-\x1f\x7f]|^[A-Za-z]:", value):
        raise fault("must be a name, without \\ and control characters: results are called by it")
    for part in value.split("/"):
        if part in ("", ".", ".."):
            raise fault("must be a name that leads nowhere else: results are called by it")
        if part != part.strip() or part.split(".")[0].lower() in _RESERVED:
            raise fault("must be a name that a file can have: results are called by it")
    if len(value.encode("utf-8", "surrogatepass")) > 200:
        raise fault("must have at most 200 bytes: results are called by it")
    return value


Name = Annotated[str, Field(min_length=1), AfterValidator(_name)]
"""A name, also of files."""


def read_settings(path: Path) -> dict[str, Any]:
    """Content of a user's YAML file, a mapping.

    Raises ScenarioError with one sentence that names the file.
    """
    try:
        return read_yaml(path)
    except ValueError as error:
        raise ScenarioError([str(error)], str(path)) from None


def checked(
    schema: type[AnySettings], content: Mapping[str, Any], source: str, folder: Path | None = None
) -> AnySettings:
    """Content as settings; relative paths in it start at ``folder``.

    Raises ScenarioError, which names ``source``, with every fault found, each with its path.
    """
    context = {} if folder is None else {"folder": str(folder.resolve())}
    try:
        return schema.model_validate(content, context=context)
    except ValidationError as error:
        raise ScenarioError(faults_of(error, schema), source) from None


def faults_of(error: ValidationError, schema: type[BaseModel], prefix: str = "") -> list[str]:
    """One sentence for each fault of a validation error, with path and value; the first ones of each kind."""
    by_kind: dict[tuple[Any, ...], list[str]] = {}
    for details in error.errors(include_url=False):
        whole = details["type"] == "faults"
        sentences = details["msg"].split("\n") if whole else [_sentence(details, schema, prefix)]
        kind = (details["type"], *(part for part in details["loc"] if isinstance(part, str)))
        by_kind.setdefault(kind, []).extend(sentences)
    return [sentence for found in by_kind.values() for sentence in capped(list(dict.fromkeys(found)))]


def _sentence(details: ErrorDetails, schema: type[BaseModel], prefix: str) -> str:
    location = [str(part) for part in details["loc"] if not _BRANCH.match(str(part))]
    path = ".".join([*([prefix] if prefix else []), *location])
    kind, value, text = details["type"], details["input"], details["msg"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _keys_at(schema, location[:-1]), n=1)
        hint = f"did you mean '{near[0]}'?" if near else _allowed(_keys_at(schema, location[:-1]))
        return f"{path}: unknown key; {hint}"
    if kind == "missing":
        return f"{path}: is required"
    text = text.replace("Input should be", "must be").replace("Value error, ", "")
    for ours, theirs in _WORDS.items():
        text = theirs.sub(ours, text)
    text = text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    if not path:
        return text
    if isinstance(value, str | int | float | bool | None):
        return f"{path} = {shown(value)}: {text}"
    return f"{path}: {text}"


_BRANCH = re.compile(r"^(<\w+>$|(function-\w+|literal|list|tuple|dict|constrained-\w+|nullable)\[)")
"""Part of a location that names a branch of a union, not a key of the user's."""
_WORDS = {
    "a mapping": re.compile(r"an? (valid )?(dictionary|mapping)( or (an )?instance of \w+)?"),
    "a list": re.compile(r"a valid (list|tuple)"),
    "a number": re.compile(r"a valid number(, unable to parse string as a number)?"),
    "a whole number": re.compile(
        r"a valid integer(, unable to parse string as an integer|, got a number with a fractional part)?"
    ),
    "true or false": re.compile(r"a valid boolean(, unable to interpret input)?"),
    "text": re.compile(r"a valid string"),
}
"""pydantic's terms, replaced by those of YAML."""


def _allowed(keys: list[str]) -> str:
    return f"allowed are {', '.join(keys)}" if keys else "nothing is allowed here"


def _keys_at(schema: type[BaseModel], location: list[str]) -> list[str]:
    """The keys allowed at a path of the schema; empty where the path leaves the schema."""
    parts = iter(location)
    for part in parts:
        field = schema.model_fields.get(part)
        inner = next((t for t in settings_in(field.annotation) if part), None) if field else None
        if field is None or inner is None:
            return []
        schema = inner
        if _holds_several(field.annotation):
            next(parts, None)  # a user-defined key, or an index of a list
    return [field.alias or name for name, field in schema.model_fields.items()]


def _holds_several(annotation: Any) -> bool:
    """Whether an annotation is, or may be, a mapping or a list."""
    if get_origin(annotation) in (dict, list, tuple):
        return True
    return any(_holds_several(arg) for arg in getattr(annotation, "__args__", ()))


def settings_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models inside a field's annotation; of one with alternatives, these."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        alternatives = getattr(annotation, "alternatives", None)
        return [annotation] if alternatives is None else list(alternatives())
    return [found for arg in getattr(annotation, "__args__", ()) for found in settings_in(arg)]
