"""Check of what other programs have registered with HELICS' broker against their places in the federation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evgrid.core.ports import Port, port
from evgrid.federation.helics_io import ask_broker
from evgrid.federation.wiring import Place


def registration_faults(
    broker: Any, name: str, places: Mapping[str, Place], sizes: Mapping[str, int]
) -> list[str]:
    """Faults of what an external federate has registered otherwise than its place says, a sentence each.

    broker : HELICS' broker, when all federates have entered its initialisation
    places : of all federates by name
    sizes : the size of every dimension of the ports in use
    """
    return [f"{name}, a program of its own: {fault}" for fault in _faults(broker, name, places, sizes)]


def _faults(broker: Any, name: str, places: Mapping[str, Place], sizes: Mapping[str, int]) -> Iterator[str]:
    place = places[name]
    interfaces, times = ask_broker(broker, name, "interfaces"), ask_broker(broker, name, "timeconfig")
    answered = isinstance(interfaces, dict) and isinstance(times, dict)
    if not answered or "error" in {**interfaces, **times}:
        yield "it has left before the first step"
        return
    found = {
        entry.get("name", entry.get("key")): entry
        for kind in ("publications", "endpoints")
        for entry in interfaces.get(kind, [])
    }
    for output in sorted(place.taken):
        if fault := _output_fault(port(output), found, sizes):
            yield fault
    sources = _sources(broker, name)
    given = {output for each in places.values() for output in each.model.outputs}
    for entry in interfaces.get("inputs", []):
        for key in sources.get(entry["name"], ()):
            if entry.get("units") and key in given and entry["units"] != port(key).unit:
                yield (
                    f"its input {entry['name']} of {key} is in {entry['units']}; "
                    f"{port(key).unit or 'no unit'} is expected, as HELICS does not convert vectors"
                )
    period_s, offset_s = float(times.get("period", 0.0)), float(times.get("offset", 0.0))
    whole = round(place.model.period_s / period_s) if period_s > 0 else 1
    if period_s > 0 and (whole < 1 or abs(whole * period_s - place.model.period_s) > 1e-9):
        yield (
            f"its HELICS period is {period_s:g} s; {place.model.period_s:g} s is expected, or a whole part "
            "of it"
        )
    if period_s > 0 and abs(offset_s - place.offset_s) > 1e-9:
        yield f"its HELICS offset is {offset_s:g} s; {place.offset_s:g} s is expected"


def _sources(broker: Any, name: str) -> dict[str, list[str]]:
    """Keys of the publications that each input of a federate takes."""
    graph = ask_broker(broker, "root", "data_flow_graph") or {}
    federates = [each for core in graph.get("cores", []) for each in core.get("federates", [])]
    keys = {
        (given["federate"], given["handle"]): given["key"]
        for federate in federates
        for given in federate.get("publications", [])
    }
    return {  # an input without a name of its own, as of a subscription, has its handle in it
        taken.get("key", f"_input_{taken['handle']}"): [
            keys.get((source["federate"], source["handle"]), "") for source in taken["sources"]
        ]
        for federate in federates
        if federate["attributes"]["name"] == name
        for taken in federate.get("inputs", [])
        if taken.get("sources")
    }


def _output_fault(expected: Port, found: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int]) -> str:
    """Fault of one registered output; empty for none."""
    entry = found.get(expected.name)
    if entry is None:
        kind = "publication" if expected.transport == "value" else "endpoint"
        return f"it has no {kind} {expected.name}; it has {', '.join(sorted(map(str, found))) or 'none'}"
    if expected.transport == "message":
        return ""
    unit, kind = str(entry.get("units", "")), str(entry.get("type", ""))
    allowed = {"double_vector"} | ({"double"} if expected.length(dict(sizes)) == 1 else set())
    if kind not in allowed:
        return f"{expected.name} is of type {kind or 'none'}; double_vector is expected"
    if unit != expected.unit:
        return f"{expected.name} is in {unit or 'no unit'}; {expected.unit or 'no unit'} is expected"
    return ""
