"""DERControls and DERCurves of IEEE 2030.5 as signals and as functions of chargers.

In: resources as a server gives them, a file each: DERProgramList, DERControlList, DefaultDERControl,
DERCurveList, or single ones; XML, or JSON as xsdata writes it, ``{"DERControlList": {...}}``. They are read
by the models of py20305 (the extra ``evgrid[ieee2030_5]``), which check them by the standard's schema.
Resources belong to the program whose list link their ``href`` begins with. Out:
:class:`evgrid.readers.signals.Signals`, and settings of local functions.

**Rules.** The program of the lowest ``primacy`` wins; of one primacy the control that was created last,
control mode by control mode; a DefaultDERControl where no other holds. A control is known from its
``creationTime``; one whose status is cancelled (2, 3) or superseded (4) ends at the status' ``dateTime``,
with randomisation (3) up to the larger of its two ranges later. ``randomizeStart`` and ``randomizeDuration``
are ranges from 0, of either sign, drawn from the scenario's seed and the control's mRID.

**Signs.** A DER's power is positive when it is given; here it is positive when drawn.

==================================================  =============================
control mode                                        kind of signal
==================================================  =============================
opModTargetW                                        power
opModFixedW, % of setMaxW or setMaxChargeRateW      power
opModExpLimW, opModGenLimW, opModMaxLimWInject      export_limit
opModMaxLimW, % of setMaxW                          export_limit
opModImpLimW, opModLoadLimW, opModMaxLimWAbsorb     import_limit
opModMaxLimPctWAbsorb, % of setMaxChargeRateW       import_limit
opModConnect, opModEnergize: false                  both limits at 0
==================================================  =============================

All other modes are named in a note; curves and droop are settings of the chargers (:func:`functions_of`).
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from evgrid.core.model import Clock
from evgrid.core.random_streams import Purpose, stream
from evgrid.errors import ScenarioError
from evgrid.readers.faults import capped, shown
from evgrid.readers.files import read_json, read_text
from evgrid.readers.signals import ALWAYS_S, Block, Signals, local_seconds
from evgrid.readers.times import moment_of, utc_of

DER_KINDS = frozenset({"power", "import_limit", "export_limit"})
"""Kinds of signals that controls become."""
_MOST_BYTES = 64 * 2**20
_DEFAULT = 1000.0
"""Added to the primacy of a program's DefaultDERControl, which yields to every control."""
_CANCELLED, _RANDOMISED, _SUPERSEDED = 2, 3, 4
_NAMESPACE = "urn:ieee:std:2030.5:ns"
_MOST_KW = 1e9
_MOST_RANDOM_S = 3600
"""Bound of OneHourRangeType, s."""
_LAST_S = 7e9
"""Latest time that is read, s from 1970: in the year 2191."""
_RESOURCES = {
    "DERProgramList": "DerprogramList", "DERProgram": "Derprogram", "DERControlList": "DercontrolList",
    "DERControl": "Dercontrol", "DefaultDERControl": "DefaultDercontrol", "DERCurveList": "DercurveList",
    "DERCurve": "Dercurve",
}  # fmt: skip
"""Classes of py20305's models by element."""
_LIMITS = {
    "opModExpLimW": "export_limit", "opModGenLimW": "export_limit", "opModMaxLimWInject": "export_limit",
    "opModImpLimW": "import_limit", "opModLoadLimW": "import_limit", "opModMaxLimWAbsorb": "import_limit",
}  # fmt: skip
_CURVES = {11: "volt_var", 12: "volt_watt", 14: "watt_var"}
"""Functions of chargers by curveType."""
_OF_VAR = (1, 2, 8)
"""Reference types of reactive power that are taken as shares of a rating: %setMaxW, %setMaxVar, %setMaxVA."""


@dataclass(frozen=True, slots=True)
class DerRules:
    """How resources become signals.

    zone, clock, seed : time zone of the run's local clock, the clock, and the scenario's seed
    discharge_kw, charge_kw : setMaxW and setMaxChargeRateW of the EVs together; 0: not known
    targets : names of aggregators, EVs, connection points or transformers that the controls are for; none:
        all
    """

    zone: ZoneInfo
    clock: Clock
    seed: int = 0
    discharge_kw: float = 0.0
    charge_kw: float = 0.0
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Resource:
    """An element of a file: its name, its object, and the list that it stood in."""

    kind: str
    given: Any
    listed: str


def resources_in(path: Path) -> list[_Resource]:
    """The resources of a file of one document. Raises ScenarioError with one sentence."""
    text = read_text(path, _MOST_BYTES)
    return _resources(path if path.suffix.lower() == ".json" else text, str(path))


def _resources(given: str | Path, source: str) -> list[_Resource]:
    """The resources of a document of XML, or of a file of JSON."""
    try:
        from lxml import etree
        from py20305.models.sep import sep
        from py20305.xml.serialization import XmlParseError, from_xml
        from xsdata.exceptions import ConverterWarning, ParserError
        from xsdata_pydantic.bindings import JsonParser
    except ImportError:
        raise ScenarioError(["needs the package py20305: pip install 'evgrid[ieee2030_5]'"], source) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConverterWarning)  # the value is refused
            if isinstance(given, Path):
                content = read_json(given)
                name = next(iter(content)) if isinstance(content, Mapping) and len(content) == 1 else ""
                model = getattr(sep, _RESOURCES.get(name, ""), None)
                if model is not None and not isinstance(content[name], Mapping):
                    raise ValueError(f"{name} is no object")
                found = None if model is None else JsonParser().decode(content[name], model)
            else:
                document = given.encode()
                root = etree.fromstring(document, etree.XMLParser(resolve_entities=False, no_network=True))
                name, space = etree.QName(root).localname, etree.QName(root).namespace
                model = getattr(sep, _RESOURCES.get(name, ""), None)
                if model is not None and space != _NAMESPACE:
                    raise ValueError(f"namespace of {name} = {shown(space or '')}: must be {_NAMESPACE}")
                found = None if model is None else from_xml(document, model)
    except (XmlParseError, ParserError, etree.XMLSyntaxError, ValueError, TypeError, AttributeError) as error:
        what = f"is no valid resource of IEEE 2030.5: {_cause_of(error)}"
        raise ScenarioError([what], source) from None
    if found is None:
        known = ", ".join(_RESOURCES)
        raise ScenarioError([f"holds {shown(name)}: must hold one of {known}"], source)
    if not name.endswith("List"):
        return [_Resource(name, found, "")]
    single = name.removesuffix("List")
    parts = getattr(found, _RESOURCES[single].lower())
    return [_Resource(single, part, found.href or "") for part in parts]


def _cause_of(error: BaseException) -> str:
    """What is wrong in a document, in a line."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__
    if cause is None:
        return shown(error.__cause__ or error)
    first = cause.errors(include_url=False)[0]
    place = ".".join([cause.title, *(str(part) for part in first["loc"])])
    if first["type"] == "missing":
        return f"{place}: is required"
    return f"{place} = {shown(first['input'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources as they were at a time.

    received : when they came; None: they are of files, and known as they say themselves
    resources : all of them
    """

    received: datetime | None
    resources: tuple[_Resource, ...]


def snapshots_in(paths: Sequence[Path]) -> list[Snapshot]:
    """The snapshots of files: of each record (.jsonl) those that it has, of all others together one.

    Raises ScenarioError.
    """
    found = list[Snapshot]()
    others = [path for path in paths if path.suffix.lower() != ".jsonl"]
    if others:
        found.append(Snapshot(None, tuple(r for path in others for r in resources_in(path))))
    for path in (path for path in paths if path.suffix.lower() == ".jsonl"):
        for number, line in enumerate(read_text(path, _MOST_BYTES).splitlines(), 1):
            try:
                given = json.loads(line)
                received = utc_of(moment_of(given["receivedDateTime"]) or datetime.min)
                documents = [str(document) for document in given["resources"]]
            except (ValueError, KeyError, TypeError):
                received, documents = None, []
            if received is None:
                what = f"line {number}: must be an object with receivedDateTime and resources"
                raise ScenarioError([what], str(path))
            found.append(snapshot_of(documents, received, f"{path}, line {number}"))
    return found


def snapshot_of(documents: Sequence[str], received: datetime, source: str) -> Snapshot:
    """A snapshot of documents of XML. Raises ScenarioError."""
    return Snapshot(received, tuple(r for text in documents for r in _resources(text, source)))


def read_controls(paths: Sequence[Path], rules: DerRules) -> Signals:
    """The signals of the DERControls in files. Raises ScenarioError with every fault."""
    signals, faults = signals_of(snapshots_in(paths), rules)
    if faults:
        raise ScenarioError(capped(faults), ", ".join(path.name for path in paths))
    return signals


def signals_of(snapshots: Sequence[Snapshot], rules: DerRules) -> tuple[Signals, list[str]]:
    """The signals of snapshots in the order of their times, and faults, a sentence each.

    What a later snapshot lists otherwise, or no more, ends when that came.
    """
    blocks, unused = list[Block](), Counter[str]()
    faults, times_s = dict[str, None](), [_received_s(snapshot, rules) for snapshot in snapshots]
    open_: dict[tuple[str, str], tuple[float, _Resource, float]] = {}

    def close(key: tuple[str, str], until_s: float) -> None:
        since_s, resource, primacy = open_.pop(key)
        try:
            blocks.extend(_blocks(key[1], resource, primacy, rules, unused, since_s, until_s))
        except ValueError as error:
            faults[f"{key[0]} {key[1]}: {error}"] = None

    for snapshot, time_s in zip(snapshots, times_s, strict=True):
        programs = [r.given for r in snapshot.resources if r.kind == "DERProgram"]
        listed = _controls(snapshot)
        for key in [key for key in open_ if key not in listed]:
            close(key, time_s)
        for key, resource in sorted(listed.items(), key=lambda item: item[0]):
            try:
                primacy = _primacy(resource, programs)
            except ValueError as error:
                faults[f"{key[0]} {key[1]}: {error}"] = None
                continue
            if key in open_ and (open_[key][1].given, open_[key][2]) == (resource.given, primacy):
                continue
            if key in open_:
                close(key, time_s)
            open_[key] = time_s, resource, primacy
    for key in list(open_):
        close(key, ALWAYS_S)
    notes = []
    if unused:
        named = ", ".join(f"{mode} ({count})" for mode, count in sorted(unused.items()))
        notes.append(f"controls of IEEE 2030.5: not used are {named}")
    return Signals(blocks, notes), list(faults)


def _received_s(snapshot: Snapshot, rules: DerRules) -> float:
    if snapshot.received is None:
        return -ALWAYS_S
    return local_seconds(snapshot.received, rules.zone, rules.clock.start)


def _controls(snapshot: Snapshot) -> dict[tuple[str, str], _Resource]:
    """The controls of a snapshot by kind and mRID; of several copies of one that whose status is the latest,
    whatever their order.
    """
    found: dict[tuple[str, str], tuple[tuple[int, str], _Resource]] = {}
    for resource in snapshot.resources:
        if resource.kind in ("DERControl", "DefaultDERControl"):
            status = getattr(resource.given, "event_status", None)
            key = resource.kind, resource.given.m_rid.value.hex()
            rank = 0 if status is None else status.date_time.value, repr(resource.given)
            if key not in found or rank > found[key][0]:
                found[key] = rank, resource
    return {key: resource for key, (_, resource) in found.items()}


def _primacy(resource: _Resource, programs: Sequence[Any]) -> float:
    """Primacy of the program that a control belongs to."""
    if not programs:
        return 0.0
    places = (resource.given.href or "", resource.listed)
    for program in programs:
        links = (program.dercontrol_list_link, program.default_dercontrol_link)
        for link in links:
            if link is not None and any(p == link.href or p.startswith(f"{link.href}/") for p in places):
                return float(program.primacy.value)
    raise ValueError(f"href = {shown(places[0] or places[1])}: is of none of the programs")


def _blocks(
    name: str, resource: _Resource, primacy: float, rules: DerRules, unused: Counter[str],
    received_s: float, replaced_s: float,
) -> Iterator[Block]:  # fmt: skip
    """The blocks of a control that came at ``received_s`` and was replaced at ``replaced_s``."""
    control = resource.given
    begin_s, end_s, known_s, until_s, priority = -ALWAYS_S, ALWAYS_S, -ALWAYS_S, ALWAYS_S, primacy
    if resource.kind == "DefaultDERControl":
        priority += _DEFAULT
    else:
        draws = stream(rules.seed, 0, Purpose.SIGNAL, crc32(name.encode()), 1).random(3)
        given = control.randomize_start, control.randomize_duration
        ranges = [0.0 if part is None else float(part.value) for part in given]
        for mode, part in zip(("randomizeStart", "randomizeDuration"), ranges, strict=True):
            if abs(part) > _MOST_RANDOM_S:
                raise ValueError(f"{mode} = {part:g} s: must be from -{_MOST_RANDOM_S} to {_MOST_RANDOM_S}")
        start = control.interval.start.value + draws[0] * ranges[0]
        lasts = max(control.interval.duration + draws[1] * ranges[1], 0.0)
        begin_s = _local("interval.start", start, rules)
        end_s = _local("end of the interval", start + lasts, rules)
        known_s = _local("creationTime", control.creation_time.value, rules)
        status = control.event_status
        if status.current_status in (_CANCELLED, _RANDOMISED, _SUPERSEDED):
            late_s = max(abs(part) for part in ranges) if status.current_status == _RANDOMISED else 0.0
            ended = status.date_time.value + draws[2] * late_s
            until_s = _local("dateTime of EventStatus", ended, rules)
    known_s, until_s = max(known_s, received_s), min(until_s, replaced_s)
    if begin_s >= end_s or known_s >= until_s:
        return
    targets = frozenset(rules.targets)
    for kind, value in _values(control.dercontrol_base, rules, unused):
        yield Block(kind, begin_s, end_s, value, name, priority, 0, targets, known_s, until_s)


def _values(base: Any, rules: DerRules, unused: Counter[str]) -> Iterator[tuple[str, float]]:
    """Kind and value of each control mode."""
    from py20305.models.csipaus.elements import doe_limits

    modes = {name: value * 10.0**power / 1000.0 for name, (value, power) in doe_limits(base).items()}
    for attribute, field in type(base).model_fields.items():
        given = getattr(base, attribute)
        mode = (field.xsdata_metadata or {}).get("name", attribute)
        if not mode.startswith("opMod") or given is None or getattr(given, "disabled", False):
            continue
        if mode in ("opModConnect", "opModEnergize"):
            if not given:
                yield from (("import_limit", 0.0), ("export_limit", 0.0))
        elif mode in _LIMITS or mode == "opModTargetW":
            modes[mode] = given.value * 10.0**given.multiplier.value / 1000.0
        elif mode in ("opModMaxLimW", "opModMaxLimPctWAbsorb", "opModFixedW"):
            yield _percent(mode, given.value / 10_000.0, rules)
        else:
            unused[mode] += 1
    for mode, value in modes.items():
        if not abs(value) <= _MOST_KW:
            raise ValueError(f"{mode} = {value:g} kW: must be at most {_MOST_KW:g}, of either sign")
        if mode == "opModTargetW":
            yield "power", -value
        elif value < 0:
            raise ValueError(f"{mode} = {value:g} kW: must be at least 0")
        else:
            yield _LIMITS[mode], value


def _percent(mode: str, share: float, rules: DerRules) -> tuple[str, float]:
    """Kind and value of a mode whose value is a share of a rating."""
    least = -1.0 if mode == "opModFixedW" else 0.0
    if not least <= share <= 1.0:
        raise ValueError(f"{mode} = {100 * share:g} %: must be from {100 * least:g} to 100")
    draws = mode == "opModMaxLimPctWAbsorb" or share < 0
    rated = rules.charge_kw if draws else rules.discharge_kw
    if share and not rated:
        raise ValueError(f"{mode} is in percent: needs {'charge_kw' if draws else 'discharge_kw'}")
    if mode == "opModFixedW":
        return "power", -share * rated
    return ("import_limit" if draws else "export_limit"), share * rated


def _local(name: str, moment: float, rules: DerRules) -> float:
    if not 0 <= moment <= _LAST_S:
        raise ValueError(f"{name} = {moment:g} s from 1970: must be from 0 to {_LAST_S:g}")
    return local_seconds(datetime.fromtimestamp(moment, UTC), rules.zone, rules.clock.start)


# ---- curves -----------------------------------------------------------------------------------------


def functions_of(paths: Sequence[Path], most_var: float) -> dict[str, Any]:
    """Settings of local functions (``volt_var``, ``volt_watt``, ``watt_var``, ``frequency_watt``) by the
    DERCurves, and the droop of the DefaultDERControls, in files.

    most_var : setMaxVar, % of the rated apparent power

    Raises ScenarioError with every fault.
    """
    found, faults = dict[str, Any](), list[str]()
    for path in paths:
        for resource in resources_in(path):
            try:
                for name, settings in _functions(resource, most_var):
                    if name in found and found[name] != settings:
                        raise ValueError(f"is a second {name}: give one")
                    found[name] = settings
            except ValueError as error:
                mrid = resource.given.m_rid.value.hex()
                faults.append(f"{path.name}: {resource.kind} {mrid}: {error}")
    if faults:
        raise ScenarioError(capped(faults), ", ".join(path.name for path in paths))
    return found


def _functions(resource: _Resource, most_var: float) -> Iterator[tuple[str, dict[str, Any]]]:
    given = resource.given
    if resource.kind == "DefaultDERControl":
        droop = given.dercontrol_base.op_mod_freq_droop
        if droop is None:
            return
        if droop.d_bof != droop.d_buf:
            raise ValueError(f"dBOF = {droop.d_bof} and dBUF = {droop.d_buf}: must be the same")
        yield (
            "frequency_watt",
            {
                "droop_over": droop.k_of / 1000.0,
                "droop_under": droop.k_uf / 1000.0,
                "deadband_hz": droop.d_bof / 1000.0,
                "response_s": droop.open_loop_tms / 100.0,
            },
        )
    if resource.kind != "DERCurve":
        return
    kind = given.curve_type.value
    if kind not in _CURVES:
        raise ValueError(f"curveType = {kind}: must be 11 (volt-var), 12 (volt-watt) or 14 (watt-var)")
    name, reference = _CURVES[kind], given.y_ref_type.value
    x_factor, y_factor = (10.0**power.value for power in (given.x_multiplier, given.y_multiplier))
    if name == "volt_watt":
        if reference != 1:
            raise ValueError(f"yRefType = {reference}: must be 1 (%setMaxW)")
    elif reference not in _OF_VAR:
        raise ValueError(f"yRefType = {reference}: must be 1 (%setMaxW), 2 (%setMaxVar) or 8 (%setMaxVA)")
    elif reference == 2:
        y_factor *= most_var / 100.0
    if name != "watt_var":  # per unit of nominal voltage
        x_factor *= (1.0 if given.v_ref is None else given.v_ref.value / 10_000.0) / 100.0
    points = [(x_factor * point.xvalue, y_factor * point.yvalue) for point in given.curve_data]
    settings: dict[str, Any] = {"points": [(round(x, 9), round(y, 9)) for x, y in points]}
    if given.open_loop_tms is not None:
        settings["response_s"] = given.open_loop_tms / 100.0
    yield name, settings
