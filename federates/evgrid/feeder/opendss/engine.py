"""A circuit in OpenDSS' own engine (dss-python), read from a .dss file.

In: a path. Out: an :class:`Engine` with the circuit compiled, or one sentence on what stands in the way, with
file and line. Each has a context of its own, so that several circuits, or several copies with states of
their own, live side by side. The engine opens no window, changes no folder and writes no file.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import tempfile
import warnings
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import NetworkError
from evgrid.feeder.opendss.script import Script

TOLERANCE = 1e-10
"""Largest relative change of a node's voltage in the last iteration."""

SNAPSHOT, TIME = 0, 16
"""Solution modes."""

OFF, STATIC, IN_TIME = -1, 0, 2
"""Control modes."""

WHOLE_MATRIX = 2
"""Option to build the admittance matrix of series and shunt elements."""

MOST_ITERATIONS = 100
"""Iterations of a power flow, and of the controls within a step, where the file allows fewer."""


class Engine:
    """A compiled circuit.

    circuit : ``dss.ICircuit``; it is cleared with the engine
    path : the file
    left_out : commands of the file that the engine did not get, by verb
    """

    def __init__(self, path: Path, source: str) -> None:
        """Compile a file.

        Raises
        ------
        NetworkError
            With file and line: a missing file, a syntax error, a command that is refused; or without the
            package dss-python.

        """
        self.path, self.source = path, source
        self.dss = _context(source)
        weakref.finalize(self, self.dss.ClearAll).atexit = False  # the package keeps every context
        script = Script()
        try:
            self._compile(script, path)
        except NetworkError as error:
            raise NetworkError(f"network {source}: {error}") from None
        self.left_out: Counter[str] = script.left_out
        self.circuit: Any = self.dss.ActiveCircuit
        solution = self.circuit.Solution
        solution.Tolerance = min(solution.Tolerance, TOLERANCE)
        solution.MaxIterations = max(solution.MaxIterations, MOST_ITERATIONS)
        solution.MaxControlIterations = max(solution.MaxControlIterations, MOST_ITERATIONS)

    def _compile(self, script: Script, path: Path) -> None:
        from dss import DSSException

        folder: Path | None = None
        command = None
        try:
            for command in script.commands(path):
                if command.file.parent != folder:
                    folder = command.file.parent
                    self.dss.DataPath = str(folder)
                self.dss.Text.Command = command.text
            if not self.dss.NumCircuits:
                raise NetworkError(f"{path} describes no circuit (there is no command New Circuit.NAME)")
        except DSSException as error:
            place = command.place if command is not None else str(path)
            raise NetworkError(f"{place}: {reason_of(error)}") from None

    def in_service(self, kinds: Collection[str]) -> Iterator[str]:
        """Full names of the elements of some classes (lower case) in service; each is the active one of the
        circuit while it is given.
        """
        for full in self.circuit.AllElementNames:
            if full.partition(".")[0].lower() in kinds:
                self.circuit.SetActiveElement(full)
                if self.circuit.ActiveCktElement.Enabled:
                    yield full

    def build(self) -> None:
        """Build the admittance matrix, and number the nodes, as solving would."""
        try:
            self.circuit.Solution.BuildYMatrix(WHOLE_MATRIX, True)
        except Exception as error:  # any of the engine
            raise NetworkError(f"network {self.source}: {reason_of(error)}") from None

    def settle(self) -> None:
        """Solve the file's own snapshot, in which its controls settle; from then on they stay."""
        solution = self.circuit.Solution
        solution.Mode, solution.ControlMode = SNAPSHOT, STATIC
        try:
            solution.Solve()
        except Exception as error:  # any of the engine
            raise NetworkError(f"network {self.source}: {reason_of(error)}") from None
        if not solution.Converged:
            raise NetworkError(f"network {self.source}: its own snapshot has no solution")
        solution.ControlMode = OFF

    def run(self, command: str) -> str:
        """Result of a command of evgrid's own."""
        self.dss.Text.Command = command
        return str(self.dss.Text.Result)


def enabled(circuit: Any, elements: Iterable[Any]) -> Iterator[Any]:
    """The elements of a class in service; each is the active one of the circuit while it is given."""
    for element in elements:
        if circuit.ActiveCktElement.Enabled:
            yield element


def as_complex(flat: Any) -> NDArray[np.complex128]:
    """Numbers that the engine gives as real and imaginary parts in turn."""
    return np.array(flat, np.float64).view(np.complex128)


def bus_name(bus: str) -> str:
    """Name of a bus without its nodes."""
    return bus.split(".", 1)[0].lower()


def reason_of(error: Exception) -> str:
    """An error of the engine in one line: OpenDSS error 485: ..."""
    number, text = (*error.args, "")[:2] if len(error.args) > 1 else ("", str(error))
    return f"OpenDSS error {number}: {' '.join(str(text).split())}" if number else " ".join(str(text).split())


@cache
def _load_library() -> Any:
    """Load the engine's library with a table of the environment that stays; returns the table.

    The library keeps the address of the process's table, and reads it in each new thread that calls it.
    Setting a variable may move the table, which would leave the library with one that is free: a crash.
    """
    table: Any = None
    try:
        place = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")
    except (OSError, TypeError, ValueError):  # no such table in this system
        place = None
    if place is not None and place.value and "dss_python_backend" not in sys.modules:
        strings = ctypes.cast(place, ctypes.POINTER(ctypes.c_void_p))
        table = (ctypes.c_void_p * (next(k for k in count() if not strings[k]) + 1))()
        ctypes.memmove(table, place.value, ctypes.sizeof(table))
        place.value = ctypes.addressof(table)
    importlib.import_module("dss_python_backend")
    return table


def _context(source: str) -> Any:
    """A new context of the engine that opens no window, changes no folder and runs no program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _load_library()
            from dss import DSS
    except ImportError as error:
        raise NetworkError(
            f"network {source}: needs the package dss-python; pip install 'evgrid[opendss]'"
        ) from error
    DSS.AllowChangeDir = False
    context = DSS.NewContext()
    context.AllowForms = False
    context.AllowEditor = False
    context.AllowDOScmd = False
    context.AdvancedTypes = False
    context.DataPath = tempfile.gettempdir()
    context.ClearAll()
    return context
