"""Events of OpenADR 3 as signals.

In: JSON objects as a VTN returns them from ``/events``, or as it sends them to subscribers (``{"objectType":
"EVENT", "operation": "CREATE" | "UPDATE" | "DELETE", "object": {...}}``), in a list, or one a line. Out:
:class:`evgrid.readers.signals.Signals`.

**What is known when.** An event is known from its ``modificationDateTime`` on, else its ``createdDateTime``,
else from the start. A later object of the same ``id`` replaces it from then on, a DELETE removes it. Where an
object was recorded as it came, ``receivedDateTime`` beside ``operation`` says when; a DELETE needs it.

**Intervals** (User Guide 3.1, 7.3): ``intervalPeriod`` of the event is the default of its intervals, which
follow each other unless they have a start. ``0001-01-01`` is the time at which the event became known,
``P9999Y`` without end. ``duration`` of the event cuts its intervals, or repeats them. Several values of a
price share the interval. ``randomizeStart`` shifts the first interval, and those after it, by a draw between
plus and minus its value, from the scenario's seed and the event's id: an update does not draw again.

==================================  =================================================================
payload                             kind of signal
==================================  =================================================================
PRICE, EXPORT_PRICE                 price, export_price; units KWH (assumed where not given) or MWH
GHG                                 emissions; units GHG or G/KWH (assumed), KG/MWH, LB/MWH
SIMPLE                              level
ALERT_GRID_EMERGENCY, _BLACK_START  level 3
ALERT_FLEX_ALERT                    level 2
DISPATCH_SETPOINT                   power; units KW (assumed), W, MW
DISPATCH_SETPOINT_RELATIVE          power_change, likewise; in PERCENT: regulation, with the other sign
CHARGE_STATE_SETPOINT               charge; units PERCENT (0 to 1, assumed)
IMPORT_CAPACITY_LIMIT, EXPORT_…     import_limit, export_limit; units KW (assumed), W, MW
==================================  =================================================================

All other payloads, and what is of no duration or without intervals, are named in a note.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from evgrid.core.model import Clock
from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S, HOUR_S
from evgrid.errors import ScenarioError
from evgrid.readers.faults import capped, shown
from evgrid.readers.files import read_json, read_text
from evgrid.readers.series import KG_PER_LB
from evgrid.readers.signals import ALWAYS_S, Block, Signals, local_seconds, utc_at
from evgrid.readers.times import moment_of, utc_of

AHEAD_S = 14 * DAY_S
"""Time beyond the end of a run up to which events are repeated, for plans, s."""
_MOST = 1e9
"""Greatest size of a value, in the unit of its kind."""
_MOST_INTERVALS = 1_000_000
_LONGEST_RANDOM_S = 366 * DAY_S
_MOST_BYTES = 512 * 2**20
_DURATION = re.compile(
    r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$"
)
NOW = "0001-01-01"
Number = float | int

_POWER = {"KW": 1.0, "W": 1e-3, "MW": 1e3}
_UNITS: dict[str, dict[str, float]] = {
    "PRICE": {"KWH": 1.0, "MWH": 1e-3},
    "EXPORT_PRICE": {"KWH": 1.0, "MWH": 1e-3},
    "GHG": {"G/KWH": 1.0, "GHG": 1.0, "KG/MWH": 1.0, "LB/MWH": KG_PER_LB},
    "DISPATCH_SETPOINT": _POWER,
    "DISPATCH_SETPOINT_RELATIVE": {**_POWER, "PERCENT": -1.0},
    "CHARGE_STATE_SETPOINT": {"PERCENT": 1.0},
    "IMPORT_CAPACITY_LIMIT": _POWER,
    "EXPORT_CAPACITY_LIMIT": _POWER,
}
"""Factors to the unit of the kind, by payload and unit; the first unit is assumed where none is given."""
KINDS = {
    "PRICE": "price",
    "EXPORT_PRICE": "export_price",
    "GHG": "emissions",
    "SIMPLE": "level",
    "ALERT_GRID_EMERGENCY": "level",
    "ALERT_BLACK_START": "level",
    "ALERT_FLEX_ALERT": "level",
    "DISPATCH_SETPOINT": "power",
    "DISPATCH_SETPOINT_RELATIVE": "power_change",
    "CHARGE_STATE_SETPOINT": "charge",
    "IMPORT_CAPACITY_LIMIT": "import_limit",
    "EXPORT_CAPACITY_LIMIT": "export_limit",
}
"""Kinds of signals by type of payload."""
_ALERTS = {"ALERT_GRID_EMERGENCY": 3.0, "ALERT_BLACK_START": 3.0, "ALERT_FLEX_ALERT": 2.0}
_FOR_ALL = ("price", "export_price", "emissions", "regulation")
"""Kinds of which there is one value for all: targets are those of the run, or others'."""
_SEVERAL = ("PRICE", "EXPORT_PRICE", "GHG")
_RANGES = {
    "level": (0.0, 3.0), "regulation": (-1.0, 1.0), "charge": (0.0, 1.0), "emissions": (0.0, np.inf),
    "import_limit": (0.0, np.inf), "export_limit": (0.0, np.inf),
}  # fmt: skip


def _wrong(text: str) -> PydanticCustomError:
    return PydanticCustomError("fault", "{text}", {"text": text})


def _moment(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(NOW):
        return NOW
    found = moment_of(value)
    found = None if found is None else utc_of(found)
    if found is None:
        raise _wrong("must be a time with its zone, such as 2026-01-15T18:30:00Z")
    return found


def _seconds(value: Any) -> Any:
    parts = _DURATION.match(value) if isinstance(value, str) else None
    if parts is None or not any(parts.groups()):
        raise _wrong("must be a duration of ISO 8601, such as PT1H")
    years, months, *rest = (float(part or 0.0) for part in parts.groups())
    if years >= 9999.0:
        return np.inf
    if years or months:
        raise _wrong("must be in weeks, days, hours, minutes and seconds, or P9999Y for no end")
    weeks, days, hours, minutes, seconds = rest
    return (7.0 * weeks + days) * DAY_S + hours * HOUR_S + 60.0 * minutes + seconds


def _names(value: Any) -> Any:
    """Targets of 3.1, names; or of 3.0, lists of names by type."""
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        return [name for item in value for name in item.get("values", ())]
    return value


Moment = Annotated[datetime | Literal["0001-01-01"], BeforeValidator(_moment)]
Seconds = Annotated[float, BeforeValidator(_seconds)]


class _Object(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=True)


class IntervalPeriod(_Object):
    """Time of an interval."""

    start: Moment | None = None
    duration: Seconds | None = None
    randomizeStart: Seconds | None = None


class Payload(_Object):
    """Values of an interval, of one type."""

    type: str
    values: Annotated[tuple[Any, ...], Field(min_length=1)]


class Interval(_Object):
    """An interval of an event."""

    id: int = 0
    intervalPeriod: IntervalPeriod | None = None
    payloads: tuple[Payload, ...] = ()


class Descriptor(_Object):
    """What the payloads of a type are in."""

    payloadType: str
    units: str | None = None
    currency: str | None = None


class ReportDescriptor(_Object):
    """A report that an event asks for."""

    payloadType: str
    readingType: str | None = None
    units: str | None = None


class Event(_Object):
    """An event of OpenADR 3."""

    programID: str
    id: str | None = None
    eventName: str | None = None
    createdDateTime: Moment | None = None
    modificationDateTime: Moment | None = None
    priority: Annotated[int, Field(ge=0, le=2**31)] | None = None
    duration: Seconds | None = None
    targets: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = None
    payloadDescriptors: tuple[Descriptor, ...] | None = None
    reportDescriptors: tuple[ReportDescriptor, ...] | None = None
    intervalPeriod: IntervalPeriod | None = None
    intervals: tuple[Interval, ...] | None = None

    @property
    def known(self) -> datetime | None:
        """When it was modified last, as far as it says."""
        found = self.modificationDateTime or self.createdDateTime
        return found if isinstance(found, datetime) else None


_EVENT = TypeAdapter(Event)
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Annotated[datetime, BeforeValidator(_moment)])


@dataclass(frozen=True, slots=True)
class Version:
    """A version of an event, or its end.

    key : id of the event
    known : when it became known; None: before the start
    event : its content; None: it is cancelled
    """

    key: str
    known: datetime | None
    event: Event | None


@dataclass(frozen=True, slots=True)
class Rules:
    """How events become signals.

    zone, clock, seed : time zone of the run's local clock, the clock, and the scenario's seed
    programs : programs that count; none: all
    kinds : kinds of signals that count; none: all
    targets : targets that are for the whole run
    currency : of prices; "": not known
    """

    zone: ZoneInfo
    clock: Clock
    seed: int = 0
    programs: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    currency: str = ""
    targets: tuple[str, ...] = ()


def read_openadr(path: Path, rules: Rules) -> Signals:
    """The signals of a file of events.

    Raises ScenarioError with every fault, each with the place of its object.
    """
    versions, faults = versions_of(objects_in(path))
    signals, more = signals_of(versions, rules)
    if faults or more:
        raise ScenarioError(capped([*faults, *more]), str(path))
    return signals


def objects_in(path: Path) -> list[Any]:
    """The objects of a file: a list, or one a line. Raises ScenarioError."""
    if path.suffix.lower() != ".jsonl":
        content = read_json(path)
        return content if isinstance(content, list) else [content]
    found = []
    for number, line in enumerate(read_text(path, _MOST_BYTES).splitlines(), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise ScenarioError([f"line {number}: is no JSON: {error}"], str(path)) from None
    return found


def payload_types(path: Path) -> frozenset[str]:
    """Types of the payloads in a file; none where it can't be read."""
    try:
        versions, _ = versions_of(objects_in(path))
    except ScenarioError:
        return frozenset()
    return frozenset(
        payload.type
        for version in versions
        if version.event is not None
        for interval in version.event.intervals or ()
        for payload in interval.payloads
    )


def versions_of(objects: Sequence[Any]) -> tuple[list[Version], list[str]]:
    """The versions of events in objects, in any order; and faults, a sentence each."""
    found, faults = list[Version](), list[str]()
    for number, given in enumerate(objects, 1):
        where = f"object {number}"
        if not isinstance(given, Mapping):
            faults.append(f"{where} = {shown(given)}: must be an event, or a notification of one")
            continue
        operation, content = given.get("operation"), dict(given)
        if operation is not None:
            content = given.get("object")  # type: ignore[assignment]
            if operation not in ("CREATE", "UPDATE", "DELETE"):
                faults.append(f"{where}: operation = {shown(operation)}: must be CREATE, UPDATE or DELETE")
                continue
        kind = (content if isinstance(content, Mapping) else {}).get("objectType", "EVENT")
        if kind != "EVENT":
            continue
        try:
            event = _EVENT.validate_python(content)
            received = given.get("receivedDateTime") if operation is not None else None
            known = event.known if received is None else _MOMENT.validate_python(received)
        except ValidationError as error:
            faults += [f"{where}: {sentence}" for sentence in _sentences(error)]
            continue
        if operation == "DELETE" and received is None:
            faults.append(f"{where}: receivedDateTime: is required with DELETE, the time of the cancellation")
            continue
        key = event.id or f"{event.programID}/{event.eventName}/{crc32(repr(event).encode()):08x}"
        found.append(Version(key, known, None if operation == "DELETE" else event))
    return found, faults


def signals_of(versions: Sequence[Version], rules: Rules) -> tuple[Signals, list[str]]:
    """The signals of versions of events, and faults, a sentence each."""
    by_event: dict[str, list[Version]] = {}
    for version in versions:
        by_event.setdefault(version.key, []).append(version)
    blocks, faults = list[Block](), list[str]()
    unused, assumed = Counter[str](), Counter[str]()
    for key, several in sorted(by_event.items()):
        known_s = {id(v): _known_s(v, rules) for v in several}
        # of the same time the cancellation is last; else any order, but always the same
        several = sorted(several, key=lambda v: (known_s[id(v)], v.event is None, repr(v.event)))
        ends_s = [*(known_s[id(v)] for v in several[1:]), ALWAYS_S]
        for version, until_s in zip(several, ends_s, strict=True):
            event = version.event
            if event is None or (rules.programs and event.programID not in rules.programs):
                continue
            name = f"event {shown(event.eventName or key)}"
            try:
                made = _blocks(key, event, known_s[id(version)], rules, unused, assumed)
                blocks += [replace(block, until_s=until_s) for block in made if until_s > block.known_s]
            except ValueError as error:
                faults.append(f"{name}: {error}")
    notes = []
    if unused:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(unused.items()))
        notes.append(f"events of OpenADR: not used are {listed}")
    if assumed:
        notes.append(f"events of OpenADR without units are taken to be in {', '.join(sorted(assumed))}")
    return Signals(blocks, notes), faults


def _known_s(version: Version, rules: Rules) -> float:
    if version.known is None:
        return -ALWAYS_S
    return local_seconds(version.known, rules.zone, rules.clock.start)


def _blocks(
    key: str, event: Event, known_s: float, rules: Rules, unused: Counter[str], assumed: Counter[str]
) -> Iterator[Block]:
    """The blocks of one version of an event; ValueError with one sentence for what is wrong in it."""
    descriptors = {d.payloadType: d for d in event.payloadDescriptors or ()}
    placed = list(_placed(key, event, known_s, rules))
    if not event.intervals:
        unused["events without intervals"] += 1
    elif not placed:
        unused["events of no duration"] += 1
    for number, begin_s, end_s, interval in placed:
        for payload in interval.payloads:
            if payload.type not in KINDS:
                unused[payload.type] += 1
                continue
            kind, values = _values(payload, descriptors.get(payload.type), rules, assumed)
            if rules.kinds and kind not in rules.kinds:
                unused[payload.type] += 1
                continue
            targets = frozenset(event.targets or ())
            if targets and kind in _FOR_ALL:
                if not targets & set(rules.targets):
                    unused[f"{payload.type} for {' or '.join(sorted(targets))}"] += 1
                    continue
                targets = frozenset()
            share_s = (end_s - begin_s) / len(values)
            for place, value in enumerate(values):
                last = place + 1 == len(values)
                until_s = end_s if last else begin_s + (place + 1) * share_s
                yield Block(
                    kind, begin_s + place * share_s, until_s, value, key,
                    np.inf if event.priority is None else float(event.priority), number,
                    targets, known_s,
                )  # fmt: skip


def _values(
    payload: Payload, descriptor: Descriptor | None, rules: Rules, assumed: Counter[str]
) -> tuple[str, list[float]]:
    """Kind of a payload, and its values in the kind's unit."""
    kind, name = KINDS[payload.type], payload.type
    if name in _ALERTS:
        return kind, [_ALERTS[name]]
    bad = [v for v in payload.values if isinstance(v, bool) or not isinstance(v, int | float)]
    if bad:
        raise ValueError(f"{name} = {shown(bad[0])}: must be a number")
    if len(payload.values) > 1 and name not in _SEVERAL:
        raise ValueError(f"{name} has {len(payload.values)} values: must have one")
    factor = 1.0
    if name in _UNITS:
        units = _UNITS[name]
        unit = (descriptor.units if descriptor is not None else None) or ""
        if not unit:
            unit = next(iter(units))
            assumed[f"{unit} ({name})"] += 1
        if unit.upper() not in units:
            raise ValueError(f"units of {name} = {shown(unit)}: must be one of {', '.join(units)}")
        factor = units[unit.upper()]
        if unit.upper() == "PERCENT" and name == "DISPATCH_SETPOINT_RELATIVE":
            kind = "regulation"
        money = descriptor.currency if descriptor is not None and kind.endswith("price") else None
        if money and rules.currency and money != rules.currency:
            raise ValueError(
                f"currency of {name} = {shown(money)}: must be that of the scenario, {rules.currency}"
            )
    for value in payload.values:
        if not abs(value) <= _MOST / abs(factor):
            size = f"{_MOST / abs(factor):g}"
            raise ValueError(f"{name} = {shown(value)}: must be a number from -{size} to {size}")
    values = [factor * float(v) for v in payload.values]
    low, high = _RANGES.get(kind, (-np.inf, np.inf))
    if (kind == "level" and any(v != round(v) for v in values)) or not all(low <= v <= high for v in values):
        whole = "a whole number " if kind == "level" else ""
        upper = f"from {low:g} to {high:g}" if np.isfinite(high) else f"at least {low:g}"
        raise ValueError(f"{name} = {payload.values[0]:g}: must be {whole}{upper}")
    return kind, values


def _placed(
    key: str, event: Event, known_s: float, rules: Rules
) -> Iterator[tuple[int, float, float, Interval]]:
    """Number, begin, end (s from the run's start, local clock) and content of each interval, repeated where
    the event is longer than its intervals.
    """
    whole = event.intervalPeriod or IntervalPeriod()
    # as moments: seconds of UTC from 1970, so that durations pass the changes of the clock
    placed: list[tuple[float, float, float, Interval]] = []  # begin, end, shift, interval
    cursor, shift = np.nan, 0.0
    for number, interval in enumerate(event.intervals or ()):
        own = interval.intervalPeriod or IntervalPeriod()
        duration = own.duration if own.duration is not None else whole.duration
        start = own.start
        if not number and (start is None or start == NOW) and whole.start is not None:
            start = whole.start
        if start is None or start == NOW:
            if not number and start is None:
                raise ValueError("intervalPeriod.start: is required, of the event or of its first interval")
            begin = _now(known_s, rules) if not number else cursor
        else:
            begin = start.timestamp()  # type: ignore[union-attr]
        if duration is None:
            raise ValueError(
                f"intervals[{number}].intervalPeriod.duration: is required, there or of the event"
            )
        random = own.randomizeStart if own.randomizeStart is not None or number else whole.randomizeStart
        if random is not None:
            if random > _LONGEST_RANDOM_S:
                raise ValueError(f"randomizeStart of intervals[{number}]: must be at most a year")
            shift = random * float(
                stream(rules.seed, 0, Purpose.SIGNAL, crc32(key.encode()), number).uniform(-1.0, 1.0)
            )
        placed.append((begin, begin + duration, shift, interval))
        cursor = begin + duration
    if not placed:
        return
    first, span = placed[0][0], max(end for _, end, _, _ in placed) - placed[0][0]
    lasts = span if event.duration is None else event.duration
    horizon = utc_at(rules.clock.duration_s + AHEAD_S, rules.zone, rules.clock).timestamp()
    repeats = 0
    if 0 < span < np.inf:  # from the last one that begins before the run
        begin = utc_at(0.0, rules.zone, rules.clock).timestamp()
        repeats = int(min(max((begin - first) // span - 1.0, 0.0), max(lasts // span - 1.0, 0.0)))
        ahead = min(lasts, horizon - first) / span - repeats
        if ahead * len(placed) > _MOST_INTERVALS:
            raise ValueError(f"has more than {_MOST_INTERVALS} intervals in the run, as it repeats them")
    number, begun = repeats * len(placed), repeats
    while repeats == begun or (
        0 < span < np.inf and repeats * span < lasts and first + repeats * span < horizon
    ):
        for begin, end, shift, interval in placed:
            begin, end = (
                begin + repeats * span if repeats else begin,
                end + repeats * span if repeats else end,
            )
            end = min(end, first + lasts)
            if begin < end:
                yield number, _run_s(begin + shift, rules), _run_s(end + shift, rules), interval
            number += 1
        repeats += 1


def _run_s(moment: float, rules: Rules) -> float:
    """Seconds of UTC from 1970 as seconds of the run's local clock."""
    if not moment < _FAR:
        return ALWAYS_S
    return local_seconds(datetime.fromtimestamp(moment, ZoneInfo("UTC")), rules.zone, rules.clock.start)


def _now(known_s: float, rules: Rules) -> float:
    """When an event that begins at once became known, seconds of UTC from 1970."""
    now_s = max(known_s, 0.0) if known_s <= -ALWAYS_S else known_s
    return utc_at(now_s, rules.zone, rules.clock).timestamp()


_FAR = datetime(2190, 1, 1, tzinfo=ZoneInfo("UTC")).timestamp()


def _sentences(error: ValidationError) -> Iterable[str]:
    for details in error.errors(include_url=False):
        place = ""
        for part in details["loc"]:
            if isinstance(part, int):
                place += f"[{part}]"
            elif not part.startswith(("function", "literal", "datetime", "nullable")):
                place += f".{part}" if place else part
        if details["type"] == "missing":
            yield f"{place}: is required"
        else:
            given = details["input"]
            yield (
                f"{place} = {shown(given if isinstance(given, str) else json.dumps(given, default=str))}: "
                + (details["msg"][:1].lower() + details["msg"][1:])
            )
