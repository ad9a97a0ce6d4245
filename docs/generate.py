"""Writes the generated parts of the reference: keys of settings files, result variables, ports.

Each is a piece of Markdown that a page includes. Files that have not changed are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from result_variables import result_variables

from evgrid.core.ports import CAUSAL_ORDER, PORTS
from evgrid.results.limits import PRESETS
from evgrid.scenario.reference import REQUIRED, Key, keys_of, schema_of
from evgrid.studies.reading import FILES, settings_of
from evgrid.studies.study import STUDIES


def write(folder: Path) -> None:
    """Write every generated piece into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = {kind: "".join(keys(kind)) for kind in FILES.names() if kind != "scenario"}
    pieces["scenario"] = "".join(scenario_keys())
    pieces["studies"] = "".join(f"## {kind}\n\n{''.join(keys(kind))}" for kind in STUDIES.names())
    pieces["variables"] = "".join(variables())
    pieces["federation"] = "".join(federation())
    pieces["ports"] = "".join(ports())
    pieces["limits"] = "".join(limits())
    for name, text in pieces.items():
        file = folder / f"{name}.md"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def keys(kind: str) -> Iterator[str]:
    """The keys of a kind of file."""
    for key in keys_of(schema_of(settings_of(kind))):
        yield _key(key, index=False)


def scenario_keys() -> Iterator[str]:
    """The keys of a scenario, by section and, in it, by what has keys of its own."""
    found = list(keys_of(schema_of(settings_of("scenario"))))
    inside = {key.path.rpartition(".")[0] for key in found}
    for section, members in groupby(found, lambda key: key.path.partition(".")[0]):
        yield f"## {section}\n\n"
        title = section
        for key in members:
            part = ".".join(key.path.split(".")[:2])
            if section == "aggregators":
                part = re.sub(r"^aggregators\.NAME(\((\w+)\))?.*", r"\2", key.path)
            elif part not in inside:
                part = part if part == title else ""
            if part and part != title:
                yield f"### {part}\n\n"
                title = part
            yield _key(key, index=True)


def _key(key: Key, index: bool) -> str:
    facts = f"{key.values}; " if key.values != "mapping" or not key.default else ""
    default = {REQUIRED: "required", "": "has keys of its own", "null": "may be left out"}
    facts += default.get(key.default, f"default `{key.default}`")
    hidden = "" if index else ":no-index:\n"
    return f":::{{confval}} {key.path}\n{hidden}\n{_plain(key.text)}\n*{_plain(facts)}*\n:::\n\n"


def _plain(text: str) -> str:
    """Text of a docstring as Markdown: what it marks as code stays code, all else is literal."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"``\1``", text)
    parts = re.split(r"(``.*?``|`.*?`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<>\[\]$\\])", r"\\\1", p) for p in parts)


def variables() -> Iterator[str]:
    """The result variables, by model, as tables."""
    for model, found in result_variables().items():
        yield f"## {model}\n\n| variable | dimensions | unit | meaning |\n|---|---|---|---|\n"
        for variable in found:
            dims = ", ".join(variable.dims) or "none"
            unit, text = _plain(variable.unit) or "1", _plain(variable.long_name)
            yield f"| `{variable.name}` | {dims} | {unit} | {text} |\n"
        yield "\n"


def federation() -> Iterator[str]:
    """The ports between any two federates, as a table with the federates on its diagonal."""
    used = {name for port in PORTS.values() for name in (port.publisher, *port.subscribers)}
    names = [name for name in CAUSAL_ORDER if name in used]
    yield f"| from | {' | '.join(f'to {name}' for name in names)} |\n|{'---|' * (len(names) + 1)}\n"
    for publisher in names:
        cells = [
            ", ".join(
                f"`{port.name.partition('/')[2]}`"
                for port in PORTS.values()
                if port.publisher == publisher and subscriber in port.subscribers
            )
            for subscriber in names
        ]
        cells[names.index(publisher)] = f"**{publisher}**"
        yield f"| {publisher} | {' | '.join(cells)} |\n"


def ports() -> Iterator[str]:
    """The ports, as a table."""
    yield "| port | unit | shape | from | to | meaning |\n|---|---|---|---|---|---|\n"
    for port in PORTS.values():
        shape, subscribers = ", ".join(port.shape), ", ".join(port.subscribers)
        unit, text = port.unit or "1", _plain(port.text)
        yield f"| `{port.name}` | {unit} | {shape} | {port.publisher} | {subscribers} | {text} |\n"


def limits() -> Iterator[str]:
    """The presets of limits with their numbers, as a table."""
    yield "| preset | criterion | limit | source |\n|---|---|---|---|\n"
    for name, preset in PRESETS.items():
        source = (preset.__doc__ or "").strip().partition("\n")[0]
        for criterion in preset().criteria:
            yield f"| `{name}` | `{criterion.name}` | {_plain(criterion.text)} | {_plain(source)} |\n"
