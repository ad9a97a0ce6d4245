"""The scenario of a run in words: what was asked and assumed, by subject.

In: the settings of a resolved scenario and the sizes and notes of its result, as far as they are kept. Out:
:func:`assumptions`, rows of subject and text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Given = Mapping[str, Any]

_FILES = ("file", "acn", "elaad", "nhts")
"""Keys of a source of sessions that name a file."""
SIZES = {
    "bus": ("bus", "buses"),
    "line": ("line", "lines"),
    "trafo": ("transformer", "transformers"),
    "connection": ("connection point", "connection points"),
}
"""Dimensions that are the feeder's size, in words."""


def count(number: float, one: str, many: str = "") -> str:
    """A number with its noun: "1 violation", "2 violations"."""
    return f"{number:,g} {one if number == 1 else many or f'{one}s'}"


def assumptions(
    scenario: Given, sizes: Mapping[Any, int], notes: Sequence[str] = (), phases: str = ""
) -> list[tuple[str, str]]:
    """Rows of feeder, loads, EVs, sessions, vehicles, chargers, control and tariff.

    ``sizes`` are those of the result's dimensions, which may be those of a few only; ``notes`` what the run
    printed, from which the number of series of a file is taken.
    """
    rows = []
    feeder, fleet = scenario.get("feeder") or {}, scenario.get("fleet")
    if feeder:
        of = ", ".join(count(sizes[kind], *text) for kind, text in SIZES.items() if sizes.get(kind))
        text = f"{_file(feeder.get('network'))}{f': {of}' if of else ''}"
        rows.append(("feeder", f"{text}; phases: {phases}" if phases else text))
        rows.append(("other load", base_load(feeder.get("base_load") or {}, notes)))
        for name, profile in (feeder.get("profiles") or {}).items():
            rows.append((f"profile {name}", _profile(profile, _note(notes, f"feeder.profiles.{name}"))))
    if not fleet:
        return [*rows, ("EVs", "none")]
    members = sizes.get("member", 1)
    rows.append(("EVs", _number(fleet, sizes, members)))
    rows.append(("sessions", _sessions(fleet, sizes, members)))
    rows.append(("vehicles", _vehicles(fleet)))
    rows.append(("chargers", chargers(fleet)))
    if points := fleet.get("charge_points"):
        rows.append(("charge points", _points(points)))
    rows.append(("control", _control(scenario.get("aggregators") or {})))
    tariff = scenario.get("tariff") or {}
    rows.append(("tariff", f"{tariff.get('name', '–')} ({tariff.get('currency', '')})" if tariff else "none"))
    return rows


def network_name(network: object) -> str:
    """Name of a network: that of its file without the folder, or its own."""
    return _file(network) if network else "none"


def _file(path: object) -> str:
    """Name of a file without its folder; other names of networks stay."""
    text = str(path)
    return Path(text).name if Path(text).suffix and "?" not in text and ":" not in text else text


def _note(notes: Iterable[str], key: str) -> str:
    """The notes on a setting, joined."""
    return " ".join(note for note in notes if note.startswith((f"{key}:", f"{key}.")))


def _series(note: str) -> str:
    """Number of series that a note says, with a comma before; "" where it says none."""
    found = re.search(r"\b(\d+) series\b", note)
    return f", {found[1]} series" if found else ""


def base_load(load: Given, notes: Sequence[str] = ()) -> str:
    """The load besides EVs and profiles in words."""
    if load.get("file"):
        return f"file {_file(load['file'])}{_series(_note(notes, 'feeder.base_load'))}"
    source = load.get("source")
    if source in (None, "none"):
        return "none"
    if source == "standard":
        return f"standard profiles, {load.get('annual_kwh', 0):,g} kWh a year and household"
    return f"source {source}"


def _profile(profile: Given, note: str = "") -> str:
    """A profile of ``feeder.profiles`` in words."""
    at = profile.get("at")
    of = profile.get("of") or ("generator" if "pv" in profile else "")
    where = f" of {', '.join(map(str, at if isinstance(at, list | tuple) else [at]))}" if at else ""
    if profile.get("file"):
        return f"file {_file(profile['file'])}{_series(note)}{f', kind {of}' if of else ''}{where}"
    kind = next((k for k in ("pv", "heat_pump", "battery", "simbench") if profile.get(k) is not None), "")
    text = {"pv": "PV by pvlib", "heat_pump": "heat pumps by the standard heat profile"}.get(kind, kind)
    return f"{text or 'as given'}{where}"


def _number(fleet: Given, sizes: Mapping[Any, int], members: int) -> str:
    known = f"{count(sizes['ev'] / members, 'EV')} a member" if "ev" in sizes else ""
    given = [f"{v:g} per household" for v in [fleet.get("penetration")] if v is not None]
    given += [
        f"{area['penetration']:g} per household in {name}"
        for name, area in (fleet.get("areas") or {}).items()
    ]
    if not known and fleet.get("count") is not None:
        known = count(fleet["count"], "EV")
    if fleet.get("upstream"):
        given.append(f"{fleet['upstream']:,} upstream of the feeder")
    return "; ".join([known, *given] if known else given) or "those of the sessions' file"


def _sessions(fleet: Given, sizes: Mapping[Any, int], members: int) -> str:
    given = fleet.get("sessions", "")
    number = f"; {count(sizes['session'] / members, 'session')} a member" if "session" in sizes else ""
    if not isinstance(given, Mapping):
        return f"{given}{number}"
    for key in _FILES:
        if given.get(key):
            return f"file {_file(given[key])}{'' if key == 'file' else f' ({key})'}{number}"
    return f"sampled, {given.get('source', '–')}{number}"


def _vehicles(fleet: Given) -> str:
    mix = fleet.get("mix")
    if isinstance(mix, str):
        return f"mix {mix}"
    if isinstance(mix, Mapping):
        kinds = mix.get("vehicles", mix)
        return f"mix of {', '.join(map(str, kinds))}"
    if mix:
        return f"mix of {count(len(mix), 'type')}"
    vehicle = fleet.get("vehicle") or {}
    text = (
        f"battery {vehicle.get('capacity_kwh', 0):g} kWh, on board {vehicle.get('charge_kw', 0):g} kW, "
        f"{100 * vehicle.get('charge_efficiency', 1):g} % efficiency"
    )
    return f"{text}; those of the sessions' file where it has them" if _from_file(fleet) else text


def _from_file(fleet: Given) -> bool:
    """Whether the sessions are read from a file."""
    sessions = fleet.get("sessions")
    return isinstance(sessions, Mapping) and any(map(sessions.get, _FILES))


def chargers(fleet: Given) -> str:
    """Chargers by kind with their shares, and which of them are a file's own."""
    charger = fleet.get("charger") or {}
    if kinds := charger.get("kinds"):
        whole = sum(kind.get("share", 1.0) for kind in kinds)
        text = ", ".join(
            f"{100 * kind.get('share', 1.0) / whole:.3g} % {kind['power_kw']:g} kW on "
            f"{count(kind.get('phases', 1), 'phase')}"
            for kind in kinds
        )
    elif ratings := charger.get("ratings"):
        whole = sum(ratings.values())
        shares = ", ".join(f"{100 * s / whole:.3g} % {float(kw):g} kW" for kw, s in ratings.items())
        text = f"{shares}, on {count(charger.get('phases', 1), 'phase')}"
    else:
        text = f"{charger.get('power_kw', 0):g} kW on {count(charger.get('phases', 1), 'phase')}"
    if charger.get("current") == "dc":
        text += ", DC"
    share = float(charger.get("bidirectional", 0))
    text += f"; {100 * share:g} % bidirectional" if share else "; none bidirectional"
    if _from_file(fleet):
        text = f"by the sessions' file where it states power (charge_kw) and phase; else {text}"
    return text


def _points(points: Given) -> str:
    text = f"file {_file(points['file'])}" if points.get("file") else f"{points.get('each', '–')} each"
    wait = {"queue": "EVs queue for a free one", "leave": "EVs leave if none is free"}
    return f"{text}; {wait.get(str(points.get('waiting')), '')}".rstrip("; ")


def _control(aggregators: Given) -> str:
    texts = [
        f"{name}: {a.get('strategy')}"
        + (f", limit {a['limit_kw']:g} kW" if isinstance(a.get("limit_kw"), int | float) else "")
        for name, a in aggregators.items()
    ]
    return "; ".join(texts) or "none: every EV charges as fast as it can"
