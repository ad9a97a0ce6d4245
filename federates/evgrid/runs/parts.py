"""Parts of a run: what the models of one process leave beside their recorded variables, and its file.

Each process records its own models' variables in a file with the whole run's coordinates; :func:`add_part`
copies them into the one result, block by block, as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evgrid.core.model import Array, Model
from evgrid.results.recorder import Store

_BLOCK_BYTES = 16 * 2**20


@dataclass
class Part:
    """What models leave at the end of a run, besides what they recorded.

    audits : accumulators for the energy audit, by model
    failures, unconverged : reasons by number of a member: power flows without solution, iterations that did
        not converge
    solver : name of the power flow's solver, and the number of power flows that Newton-Raphson solved for it
    attributes : of the result, by the models
    """

    audits: dict[str, dict[str, Array]] = field(default_factory=dict)
    failures: dict[int, list[str]] = field(default_factory=dict)
    unconverged: dict[int, list[str]] = field(default_factory=dict)
    solver: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Sequence[Model]) -> Part:
        """The part of some models, after their last step."""
        part = cls({model.name: dict(model.audit()) for model in models})
        for model in models:
            part.attributes |= model.attributes()
            for reasons, of_model in (
                (part.failures, getattr(model, "failures", {})),
                (part.unconverged, getattr(model, "unconverged", {})),
            ):
                for member, reason in of_model.items():
                    reasons.setdefault(int(member), []).append(reason)
            if model.name == "feeder":
                feeder: Any = model
                part.solver = {"solver": feeder.solver, "newton_solutions": str(feeder.newton_solutions)}
                if feeder.solver_note:
                    part.solver["solver_note"] = feeder.solver_note
        return part

    @classmethod
    def joined(cls, parts: Iterable[Part]) -> Part:
        """Several parts as one."""
        whole = cls()
        for part in parts:
            whole.audits |= part.audits
            whole.solver |= part.solver
            whole.attributes |= part.attributes
            for reasons, more in ((whole.failures, part.failures), (whole.unconverged, part.unconverged)):
                for member, texts in more.items():
                    reasons.setdefault(member, []).extend(texts)
        return whole

    def attrs(self) -> dict[str, str]:
        """The part as attributes of a result."""
        return {
            "failed_members": json.dumps(_texts(self.failures)),
            "unconverged_members": json.dumps(_texts(self.unconverged)),
            **self.solver,
            **self.attributes,
        }

    def to_json(self) -> str:
        """As text; numbers exactly."""
        audits = {
            name: {key: np.asarray(values).tolist() for key, values in given.items()}
            for name, given in self.audits.items()
        }
        return json.dumps([audits, self.failures, self.unconverged, self.solver, self.attributes])

    @classmethod
    def from_json(cls, text: str) -> Part:
        """The part of :meth:`to_json`."""
        audits, failures, unconverged, solver, attributes = json.loads(text)
        return cls(
            {
                name: {key: np.array(values) for key, values in given.items()}
                for name, given in audits.items()
            },
            {int(member): reasons for member, reasons in failures.items()},
            {int(member): reasons for member, reasons in unconverged.items()},
            solver,
            attributes,
        )


def _texts(reasons: Mapping[int, list[str]]) -> dict[int, str]:
    return {member: "; ".join(reasons[member]) for member in sorted(reasons)}


def add_part(path: Path, store: Store, variables: Iterable[str]) -> Part:
    """Copy the variables of a part's file into the result's store, and return the rest of the part."""
    import netCDF4

    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        for name in variables:
            if name not in file.variables:
                continue
            found = file.variables[name]
            rows = found.shape[0] if found.ndim else 0
            row_bytes = max(found.dtype.itemsize * int(np.prod(found.shape[1:])), 1)
            block = max(_BLOCK_BYTES // row_bytes, 1)
            for begin in range(0, rows, block):
                key = (slice(begin, min(begin + block, rows)), *(slice(None) for _ in found.shape[1:]))
                store.write(name, key, found[key])
            if not found.ndim:
                store.write(name, (), found[...])
        return Part.from_json(file.getncattr("part"))
