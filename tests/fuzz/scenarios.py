"""Mutated scenarios, studies and batches: seeded, of the shipped ones and of one with a bit of everything.

:func:`mutants` yields them, :func:`outcome` reads one, builds its world, and says how that ended. A mutation
changes values, keys and structure of the YAML, or its text.
"""

from __future__ import annotations

import copy
import io
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
READ, REFUSED = "read", "refused"
"""How a mutant may end: with a world to run, or a sentence for each fault."""
MOST_LINES = 300
"""Lines of a message at most."""

EVERYTHING = """
name: everything
time: {start: 2026-01-15T12:00, duration: 2h, step: 15min}
ensemble: {members: 2, seed: 7}
feeder:
  network: european_lv
  base_load: {source: standard, annual_kwh: 3000, power_factor: 0.9}
  transformer_ageing: {ambient: {mean_c: 5, amplitude_c: 4, warmest_h: 15}}
fleet:
  count: 12
  sessions: {source: home, return_h: [18, 3], plug_in: always}
  mix: {bev250: 0.6, phev50: 0.4}
  charger:
    {power_kw: 7.4, phases: 1, bidirectional: 0.5, apparent_kva: 8, minimum_current_a: 6, pilot_step_a: 1,
     functions: {volt_var: ieee_1547_b, trips: II}}
  permission: {vehicle: 0.9, warranty: {throughput_kwh: 100}, driver: {window: [16, 21]}}
  vehicle: {temperature: {ambient: 5}, degradation: {battery_price: 120}, standby_kw: 0.05}
  envelope: {horizon: 4h, slot: 15min}
  reserve_horizon: 30min
aggregators:
  north: {strategy: v2g_peak_shaving, limit_kw: 45, evs: {share: 0.5}, communication: {delay: 15min}}
  south: {strategy: scheduled, limit_kw: 60, horizon: 6h}
communication: {latency: 10s, outages_per_day: 2, timeout: 5min, fallback: stop}
tariff: pge_ev2a
system:
  energy_price: {file: data/emissions_sunny.csv}
  events: [{name: e, start: 2026-01-15T17:00, duration: 1h}]
coupling: {mode: iterated, tolerance: 1.0e-6}
record: {step: 30min, ev: true}
"""

SITES = """
name: sites
time: {start: 2026-01-15T12:00, duration: 2h, step: 15min}
ensemble: {members: 2, seed: 7}
feeder: {network: european_lv, base_load: {source: standard}}
fleet:
  count: 12
  sessions: home
  charger: {power_kw: 7.4, phases: 1, bidirectional: 0.5}
  permission: {vehicle: 0.9, warranty: {throughput_kwh: 100}, driver: {window: [16, 21]}}
aggregators: {main: {strategy: v2g_peak_shaving, limit_kw: 45}}
tariff: pge_ev2a
outages:
  schedule:
  - {start: 30min, duration: 20min, out: feeder}
  - {start: 10min, duration: 1h, out: {connections: [LOAD12]}}
  restoration: {delay: 1min, random: 5min, ramp: 5min}
sites:
  homes:
    connections: {share: 0.3, with_ev: false}
    critical: {share: 0.4}
    pv: {kwp: 5, ac_kw: 4, tilt: 35, azimuth: 170, latitude: 52.5, longitude: 13.4, timezone: Europe/Berlin}
    battery: {capacity_kwh: 10, charge_kw: 5, soc_min: 0.1}
    backup: critical
    island: {kva: 6, black_start: 5s}
    control: {strategy: cost, horizon: 6h, reserve_soc: 0.2}
  station:
    connections: [LOAD12]
    load: {kw: 12}
    circuits: {radio: {kw: 2, critical: true}, kitchen: {share: 0.3, order: 2}}
    generator: {power_kw: 15, fuel_hours: 24}
    breaker_a: 63
    interconnection: {approval: non_export, import_kw: 20}
    backup: whole
  fridge:
    {connections: none, count: 2, evs_each: 0, circuits: {fridge: {kw: 0.1}},
     battery: {capacity_kwh: 2, charge_kw: 1}}
"""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e-9, 1e-300, 1e9, 1e308, 10**30, math.nan, math.inf,
    -math.inf,
    "", " ", "text", "nan", "1", "-3", "60s", "1 year", "1e99 h", "0s", "-5min", "1ns", "2 weeks",
    "2026-01-15",
    "12:00", "0001-01-01T00:00", "9999-12-31T23:59", "2026-02-30T12:00", "2026-01-15T12:00Z", "now",
    "2026-01-15T12:00:00.000000001", [], {}, [1], [[]], [None], {"a": 1}, {"<<": 1}, "x" * 20000, "\u0000",
    "a\u0000b", "é" * 10, "~nobody/x", "/dev/zero", "/dev/null", "/", "..", "no_such_file.csv",
    "file.json", "a:b",
    "os:system", "my_module:Mine", "pandapower:", "pandapower:no", "simbench:no",
    "!!python/object/apply:os.system [true]", {"file": "/dev/zero"}, {"file": ""}, {"file": 1},
    {"source": "no"},
    {"source": "home"}, {"strategy": "tou"}, list(range(2000)),
)  # fmt: skip
"""What values are replaced with."""

TEXTS = (
    "\t", "\x00", "\ufeff", "&a [*a]", "*no", "{", "}", "]", ": :", "- -", "|", ">", "%YAML 9.9\n---\n",
    "---\n",
    "...\n", "!!binary x", "!evil x", "? ", "<<: *a", "\r", "\x85", "🚗", "'", '"', "#", "@", "`", "{" * 18,
    "[" * 3000, "a: " * 300, "&x {" * 500,
)  # fmt: skip
"""What is put into the text."""

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)


@dataclass(frozen=True)
class Mutant:
    """A mutated file. ``name``: base, seed and what was done; ``place``: where it stands, from the root."""

    name: str
    place: str
    content: bytes


@lru_cache(maxsize=1)
def bases() -> dict[str, str]:
    """The files that are mutated, by their place below the checkout."""
    found = {"scenarios/everything.yaml": EVERYTHING, "scenarios/sites.yaml": SITES}
    for path in sorted((ROOT / "scenarios").rglob("*.yaml")):
        found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
    return found


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """The first ``count`` mutants of a seed; the same ones whenever it is asked."""
    names = list(bases())
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        base = rng.choice(names[:2]) if rng.random() < 0.6 else rng.choice(names)
        text = bases()[base]
        if rng.random() < 0.25:
            done, content = _in_text(rng, text)
        else:
            done, content = _in_tree(rng, text)
        yield Mutant(f"{base} {seed}/{number}: {done}", base, content)


def _in_text(rng: random.Random, text: str) -> tuple[str, bytes]:
    kind = rng.choice(("insert", "cut", "delete", "byte", "line", "bomb", "nested", "whole"))
    at = rng.randrange(len(text))
    if kind == "insert":
        return kind, (text[:at] + rng.choice(TEXTS) + text[at:]).encode("utf-8", "surrogatepass")
    if kind == "cut":
        return kind, text[:at].encode()
    if kind == "delete":
        return kind, (text[:at] + text[at + rng.randrange(1, 40) :]).encode()
    if kind == "byte":
        content = bytearray(text.encode())
        content[at % len(content)] = rng.randrange(256)
        return kind, bytes(content)
    if kind == "line":
        lines = text.splitlines()
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        return kind, "\n".join(lines).encode()
    if kind == "bomb":
        return kind, (rng.choice((BOMB, MERGE_BOMB)) + text).encode()
    if kind == "nested":
        depth = rng.choice((50, 500, 5000, 50_000))
        return f"{kind} {depth}", (text + "\ndeep: " + rng.choice(("[", "{a: ")) * depth).encode()
    return kind, rng.choice((b"", b"\n", b"null", b"[]", b"1", b"text", b"\xff\xfe\x00", b"\x00" * 100))


def _in_tree(rng: random.Random, text: str) -> tuple[str, bytes]:
    tree = YAML(typ="safe", pure=True).load(text)
    done = [_change(rng, tree) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(tree, stream)
    return "; ".join(done), stream.getvalue().encode("utf-8", "surrogatepass")


def _change(rng: random.Random, tree: dict[str, Any]) -> str:
    holders = _holders(tree)
    path, holder = rng.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    kind = rng.choice(
        ("value", "value", "value", "value", "delete", "rename", "add", "swap", "number", "extends")
    )
    if kind == "extends":
        value = rng.choice(
            ("/dev/zero", "/", "no.yaml", "a\x00b", "~nobody/x.yaml", ["a"], 7, "", "everything.yaml")
        )
        tree["extends"] = value
        return f"extends {value!r}"
    if not keys or kind == "add":
        value = copy.deepcopy(rng.choice(VALUES))
        if isinstance(holder, dict):
            key = rng.choice((*_all_keys(), "<<", "", " ", "x", 1, None, True, 1.5, "a\x00b", "é"))
            holder[key] = value
            return f"{path}.{key!r} added {str(value)[:40]}"
        holder.append(value)
        return f"{path} appended {str(value)[:40]}"
    key = rng.choice(keys)
    if kind == "delete":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        new = str(key)[:-1] + rng.choice(("", "x", "é"))
        holder[new] = holder.pop(key)
    elif kind == "swap":
        _, other = rng.choice(holders)
        holder[key] = copy.deepcopy(other)
    elif kind == "number" and isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice((-1, 0, 1e-6, 1e3, 1e6, 1e12, 0.1, 1.5))
        return f"{path}.{key} = {holder[key]!r}"
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
        return f"{path}.{key} = {str(holder[key])[:40]!r}"
    return f"{path}.{key} {kind}"


def _holders(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """All mappings and lists of a tree, with their paths."""
    if not isinstance(tree, dict | list):
        return []
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [(path, tree), *(found for key, value in inner for found in _holders(value, f"{path}.{key}"))]


@lru_cache(maxsize=1)
def _all_keys() -> tuple[str, ...]:
    """The keys of a scenario, wherever they belong."""
    from evgrid.scenario import Scenario
    from evgrid.scenario.reference import keys_of, schema_of

    return tuple(sorted({key.path.rpartition(".")[2] for key in keys_of(schema_of(Scenario))}))


def outcome(mutant: Mutant, folder: Path) -> str:
    """Read a mutant and build what it asks for: :data:`READ` or :data:`REFUSED`.

    folder : holds a copy of the project's scenarios
    Whatever else is raised is a finding.
    """
    from evgrid.errors import EvgridError
    from evgrid.runs.batch import load_batch
    from evgrid.runs.batch import plan as plan_batch
    from evgrid.runs.simulation import build_world
    from evgrid.scenario import load_scenario
    from evgrid.studies.reading import load_study

    path = folder / mutant.place
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.read_bytes() if path.exists() else None
    path.write_bytes(mutant.content)
    try:
        if "/batches/" in mutant.place:
            plan_batch(load_batch(path))
        elif "/studies/" in mutant.place:
            load_study(path, *_study(mutant.place))
        else:
            world = build_world(load_scenario(path))
            if world.sites is not None:  # as the run does first
                world.sites.profiles.slots(0.0, min(world.clock.duration_s, 86400.0))
    except EvgridError as error:
        text = str(error)
        if not text.strip() or "Traceback" in text or len(text.splitlines()) > MOST_LINES:
            raise AssertionError(f"no clear sentence: {text[:500]}") from error
        return REFUSED
    finally:
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(kept)
    return READ


def _study(place: str) -> tuple[type, str]:
    from evgrid.studies.frequency_regulation import FrequencyRegulation
    from evgrid.studies.growth import Growth
    from evgrid.studies.hosting_capacity import HostingCapacity
    from evgrid.studies.managed_charging import ManagedCharging
    from evgrid.studies.reinforcement import Reinforcement
    from evgrid.studies.resilience import Resilience
    from evgrid.studies.voltage_support import VoltageSupport

    kinds = {
        "hosting": (HostingCapacity, "hosting-capacity"),
        "frequency": (FrequencyRegulation, "frequency-regulation"),
        "growth": (Growth, "growth"),
        "managed": (ManagedCharging, "managed-charging"),
        "reinforcement": (Reinforcement, "reinforcement"),
        "resilience": (Resilience, "resilience"),
        "voltage": (VoltageSupport, "voltage-support"),
    }
    return next(found for word, found in kinds.items() if word in place)
