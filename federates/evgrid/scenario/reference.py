"""The keys of settings files: path, allowed values, default and meaning, from the models that check them.

In: a pydantic model. Out: its JSON schema, :func:`schema_of`, and from that a row a key, :func:`keys_of`.
``evgrid scenario`` prints both, and the reference of the documentation is made of the rows.

A path has ``[]`` for each entry of a list (``feeder.tap_changers[].trafo``), ``NAME`` for user-defined names
(``aggregators.NAME.group``), and in brackets the choice that a key depends on
(``fleet.sessions(home).return_h``, ``aggregators.NAME(scheduled).horizon``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from evgrid.scenario.aggregators import STRATEGIES
from evgrid.scenario.schema import Scenario

Node = Mapping[str, Any]
"""Part of a JSON schema."""

REQUIRED = "required"
"""Default of a required key."""

_EXTENDS = {"type": "string", "format": "path", "description": "The scenario that this one starts from."}
_CHOICES = ("strategy", "source")
"""Keys whose constant value distinguishes alternatives."""
_RANGE = {
    "minimum": "≥", "ge": "≥", "exclusiveMinimum": ">", "gt": ">",
    "maximum": "≤", "le": "≤", "exclusiveMaximum": "<", "lt": "<",
}  # fmt: skip
_EXAMPLES = {"15min": "duration", "22:30": "time of day"}
_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a settings file.

    path : see the module
    values : allowed values, such as "number > 0"
    default : as JSON; REQUIRED if there is none; "" for a section
    text : meaning and unit
    """

    path: str
    values: str
    default: str
    text: str


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a settings file; that of a scenario includes the settings of each strategy."""
    if model is not Scenario:
        return model.model_json_schema()
    strategies = {name: STRATEGIES.find(name) for name in STRATEGIES.names()}
    models = dict.fromkeys([Scenario, *(cls.Settings for cls in strategies.values())])
    places, schema = models_json_schema([(m, "validation") for m in models])
    named = schema["$defs"]
    branches = []
    for name, cls in strategies.items():
        settings = _named(places[cls.Settings, "validation"], named)
        text = (cls.__doc__ or "").partition("\n\n")[0]
        if cls.ignores:
            text += f" Without meaning: {', '.join(cls.ignores)}."
        choice = {"const": name, "description": text}
        place = f"strategy_{name}"
        named[place] = {**settings, "properties": {**settings["properties"], "strategy": choice}}
        branches.append({"$ref": f"#/$defs/{place}"})
    own = {"type": "object", "properties": {"strategy": {"pattern": ":"}}, "required": ["strategy"]}
    top = _named(places[Scenario, "validation"], named)
    fields = {"extends": _EXTENDS, **top["properties"]}
    fields["aggregators"] = {
        **fields["aggregators"], "additionalProperties": {"anyOf": [*branches, own, {"type": "null"}]}
    }  # fmt: skip
    return {**top, "properties": fields, "$defs": {k: v for k, v in named.items() if k != "Scenario"}}


def keys_of(schema: Node) -> Iterator[Key]:
    """Every key that a JSON schema allows, each before those inside it."""
    named = schema.get("$defs", {})
    yield from _keys_at("", [kind for _, kind in _mappings_in(schema, named, "")], named)


def _keys(node: Node, named: Node, prefix: str, listed: Node | None = None) -> Iterator[Key]:
    """The keys of a mapping, without those ``listed`` before."""
    for name, field in node.get("properties", {}).items():
        if listed and listed.get(name) == field:
            continue
        path = f"{prefix}{name}"
        inner = list(_mappings_in(field, named, path))
        default = "" if inner else json.dumps(field.get("default"))
        if name in node.get("required", ()):
            default = REQUIRED
        text = field.get("description") or (inner[0][1] if inner else {}).get("description", "")
        yield Key(path, values_of(field, named), default, " ".join(text.partition("\n\n")[0].split()))
        for place in dict.fromkeys(place for place, _ in inner):
            yield from _keys_at(place, [branch for at, branch in inner if at == place], named)


def _keys_at(path: str, branches: Sequence[Node], named: Node) -> Iterator[Key]:
    """The keys of the alternatives at one path; those common to all branches come once, first."""
    prefix = f"{path}." if path else ""
    if len(branches) == 1:
        yield from _keys(branches[0], named, prefix)
        return
    first, *others = (branch.get("properties", {}) for branch in branches)
    shared = {key: field for key, field in first.items() if all(o.get(key) == field for o in others)}
    yield from _keys({**branches[0], "properties": shared}, named, prefix)
    for branch in branches:
        yield from _keys(branch, named, f"{path}({_choice(branch, shared)}).", shared)


def _choice(branch: Node, shared: Node) -> str:
    """Label that distinguishes a branch: a constant, or its first required key."""
    fields = branch.get("properties", {})
    constants = [fields[key]["const"] for key in _CHOICES if "const" in fields.get(key, {})]
    required = [key for key in branch.get("required", ()) if key not in shared]
    return str([*constants, *required, *fields][0])


def _mappings_in(field: Node, named: Node, path: str) -> Iterator[tuple[str, Node]]:
    """The mappings with keys of their own in a field, each with its path."""
    there = _named(field, named) if "$ref" in field else field
    if parts := (*there.get("anyOf", ()), *there.get("oneOf", ())):
        for part in parts:
            yield from _mappings_in(part, named, path)
    elif "pattern" not in there.get("properties", {}).get(
        "strategy", {}
    ):  # a user-defined name has keys of its own
        yield from [(path, there)] if "properties" in there else []
    if isinstance(items := field.get("items"), Mapping):
        yield from _mappings_in(items, named, f"{path}[]")
    if isinstance(values := field.get("additionalProperties"), Mapping):
        yield from _mappings_in(values, named, f"{path}.NAME")


def _named(reference: Node, named: Node) -> Any:
    return named[reference["$ref"].rpartition("/")[2]]


def values_of(field: Node, named: Node) -> str:
    """Allowed values of a field, as text, such as "number > 0" or "ac or dc"."""
    if "$ref" in field or "properties" in field:
        return "mapping"
    if "const" in field:
        return str(field["const"])
    if "enum" in field:
        return " or ".join("none" if value is None else str(value) for value in field["enum"])
    limits = [f"{sign} {field[k]:g}" for k, sign in _RANGE.items() if isinstance(field.get(k), int | float)]
    ending = f" {', '.join(limits)}" if limits else ""
    if parts := [*field.get("anyOf", ()), *field.get("oneOf", ())]:
        if "examples" in field:
            return f"{_EXAMPLES[field['examples'][0]]}{ending}"
        texts = (values_of(part, named) for part in parts if part.get("type") != "null")
        return " or ".join(dict.fromkeys(texts)) + ending
    kind = field.get("type")
    if "prefixItems" in field:
        return f"[{', '.join(values_of(part, named) for part in field['prefixItems'])}]"
    if kind == "array":
        return f"list of {values_of(field.get('items', {}), named)}"
    if isinstance(values := field.get("additionalProperties"), Mapping):
        return f"mapping of names to {values_of(values, named)}"
    if kind == "object":
        return "mapping"
    if kind == "string" and "format" in field:
        return "path of a file" if field["format"] == "path" else str(field["format"])
    return f"{_WORDS.get(str(kind), str(kind) if kind else 'any value')}{ending}"
