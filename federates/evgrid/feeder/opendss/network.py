"""Feeders from OpenDSS files, as :class:`~evgrid.feeder.networks.Network` has them.

In: the path of a .dss file and the nominal voltage of chargers. Out: what a run needs of it, and a fresh copy
of the compiled circuit for each solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evgrid.errors import NetworkError
from evgrid.feeder.opendss.engine import Engine
from evgrid.feeder.opendss.tables import Circuit, circuit_of


@dataclass(frozen=True)
class OpenDSS:
    """An OpenDSS network: its tables, and its file.

    inverters : generators of ``circuit.grid.fixed`` with functions of their own, which draw or give constant
        power at any voltage
    out : elements out of service (``evgrid.feeder.outages.Elements``)
    """

    path: Path
    circuit: Circuit
    inverters: frozenset[int] = frozenset()
    out: frozenset[int] = frozenset()

    def compiled(self) -> Engine:
        """A new copy of the circuit in the engine."""
        return Engine(self.path, str(self.path))


def read_opendss(name: str, charger_v: float | None) -> OpenDSS:
    """Read a .dss file.

    Raises
    ------
    NetworkError
        If there is no such file, it can't be compiled, or it holds elements without a model here.

    """
    path = Path(name).expanduser()
    try:
        if not path.is_file():
            why = "is no regular file" if path.exists() else "is not there"
            raise NetworkError(f"feeder.network = {name}: {path} {why}")
    except (OSError, ValueError) as error:
        raise NetworkError(f"feeder.network = {name}: can't be read: {error}") from None
    return OpenDSS(path, circuit_of(Engine(path, str(path)), charger_v))
