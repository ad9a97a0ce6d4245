"""Damaged results and folders of batches, and what becomes of those who read them.

:func:`mutants` yields seeded mutations of a result and of a batch's folder; :func:`outcome` runs the readers
on one. All runs in this process: a file that evgrid has written is compared with its checksum first, and one
without is read by evgrid itself in a process of its own, within a bound of time.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evgrid
from evgrid.errors import EvgridError
from evgrid.results import open_run, save_dataset
from evgrid.results.limits import limit_set, violations
from evgrid.results.metrics import summary
from evgrid.scenario import scenario_from

READ, REFUSED = "read", "refused"

SCENARIO = {
    "name": "fuzz",
    "time": {"start": "2026-01-15T18:00", "duration": "1h", "step": "15min"},
    "communication": {"telemetry": "15min"},
    "feeder": {"network": "case33bw", "base_load": {"source": "net"}},
    "fleet": {"count": 3, "charger": {"phases": 3}},
}


def seeds(folder: Path) -> tuple[Path, Path]:
    """A result and a batch's folder to mutate, made in ``folder``."""
    result = folder / "seed.nc"
    evgrid.run(scenario_from(SCENARIO), result).close()
    batch = folder / "batch"
    (batch / "runs").mkdir(parents=True)
    runs = []
    for case in range(2):
        run = {
            "id": f"{case:016x}",
            "case": case,
            "overrides": {"fleet.count": case},
            "first": 0,
            "members": 1,
        }
        shutil.copy(result, batch / "runs" / f"{run['id']}.nc")
        runs.append(run)
    record = {"format": "evgrid-batch-1", "name": "fuzz", "version": "0", "runs": runs}
    (batch / "batch.json").write_text(json.dumps(record))
    return result, batch


@dataclass(frozen=True)
class Mutant:
    """A mutated result (a file) or batch (a folder), which is there until the next one is asked for."""

    name: str
    path: Path


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """The first ``count`` mutants of a seed, each in the place of the last."""
    with tempfile.TemporaryDirectory() as folder:
        result, batch = seeds(Path(folder))
        draw = random.Random(seed)
        for number in range(count):
            path = _mutated(draw, result, batch, Path(folder) / "mutant")
            yield Mutant(f"{path.name} {seed}/{number}", path)


def _mutated(draw: random.Random, result: Path, batch: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if draw.random() < 0.7:
        path = folder / "r.nc"
        path.write_bytes(_bytes(draw, result.read_bytes()))
        if draw.random() < 0.05:
            _edited(draw, result, path)
        return path
    copy = folder / "batch"
    shutil.copytree(batch, copy)
    victims = [copy / "batch.json", *sorted((copy / "runs").iterdir())]
    victim = draw.choice(victims)
    if victim.suffix == ".json" and draw.random() < 0.7:
        victim.write_text(json.dumps(_json(draw, json.loads(victim.read_text()))))
    else:
        victim.write_bytes(_bytes(draw, victim.read_bytes()))
    return copy


def outcome(mutant: Mutant, folder: Path) -> str:
    """What becomes of the readers of a mutant: :data:`READ`, or :data:`REFUSED` in a sentence.

    Whatever else is raised is a finding.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of results that are left out
            _read(mutant.path)
    except EvgridError as error:
        text = str(error)
    else:
        return READ
    assert text.strip()
    assert "\n" not in text, f"several lines: {text}"
    return REFUSED


def _read(path: Path) -> None:
    if path.is_dir():
        evgrid.open_batch(path).load().close()
        evgrid.batch_sessions(path)
    else:
        with open_run(path) as dataset:
            summary(dataset)
            violations(dataset, limit_set("en_50160", "ratings"))


def _bytes(draw: random.Random, content: bytes) -> bytes:
    kind = draw.choice(["flip", "flips", "cut", "empty", "zero", "append", "insert", "unsealed", "shuffle"])
    data = bytearray(content)
    place = draw.randrange(max(len(data), 1))
    if kind == "flip":
        data[place] ^= 1 << draw.randrange(8)
    elif kind == "flips":
        for _ in range(draw.randrange(2, 200)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    elif kind == "cut":
        del data[place:]
    elif kind == "empty":
        data.clear()
    elif kind == "zero":
        data[place : place + 4096] = bytes(len(data[place : place + 4096]))
    elif kind == "append":
        data += draw.randbytes(draw.randrange(1, 100))
    elif kind == "insert":
        data[place:place] = draw.randbytes(draw.randrange(1, 100))
    elif kind == "unsealed":  # as a file of another program, with a flipped byte in its first part
        del data[-40:]
        data[draw.randrange(min(len(data), 20_000))] ^= 1 << draw.randrange(8)
    else:
        half = len(data) // 2
        data = data[half:] + data[:half]
    return bytes(data)


def _edited(draw: random.Random, result: Path, path: Path) -> None:
    """A result of which another program has taken something away, whole as a file."""
    with evgrid.open_results(result) as dataset:
        lost = draw.choice([str(name) for name in dataset.data_vars])
        save_dataset(dataset.load().drop_vars(lost), path)


def _json(draw: random.Random, content: Any) -> Any:
    """Something else in one place."""
    odd = [None, -1, 1e308, "", "../../x", [], {}, True, "x" * 1000]
    if isinstance(content, dict) and content and draw.random() < 0.9:
        key = draw.choice(sorted(content))
        if draw.random() < 0.2:
            return {k: v for k, v in content.items() if k != key}
        return {**content, key: _json(draw, content[key])}
    if isinstance(content, list) and content and draw.random() < 0.9:
        place = draw.randrange(len(content))
        return [*content[:place], _json(draw, content[place]), *content[place + 1 :]]
    return draw.choice(odd)
