"""The fixed point of a tick: the devices' power at a voltage, and the voltage at that power.

Devices respond to a voltage V with power S = f(V); a power flow gives voltages V = g(S).
``coupling: iterated`` looks for S = f(g(S)), member by member, with damping d:

    S[k+1] = S[k] + d F[k],    F[k] = f(g(S[k])) - S[k]

Where the derivative of f(g) has an eigenvalue -m, that converges for d < 2 / (1 + m): the steeper the curve
and the weaker the feeder, the smaller d. d = 1 makes volt-var oscillate. It begins at 0.5 and is halved
when the residual has stopped falling. From the second power flow on, Anderson acceleration takes
the last few S and F into account (Walker and Ni 2011, 10.1137/10078356X; in its form with
differences and with damping): category B of IEEE 1547 converges after about ten power flows, a curve twelve
times as steep after fifteen to thirty-five (docs/guide/coupling.md).

The residual is the greatest |F|, active or reactive, per rated power of its place. Once it is within the
tolerance, the devices hand over f itself, undamped, so that the recorded state is one of the devices; its
power flow must reproduce the voltages that they saw within the tolerance (pu), or the iteration continues. A
member that has converged is not changed, so its numbers don't depend on those of the others.

Devices that have a response time are those of :mod:`evgrid.inverter_functions`: f is then the mean over the
tick of the exact first-order response towards the curve at the tick's own voltage, from its value at
the end of the previous tick. That is the response solved implicitly; with ticks much longer than the response
time, the equilibrium.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array, Recorder, Variable

START = 0.5
"""Damping at the beginning of a tick."""
PATIENCE = 4
"""Power flows without a smaller residual, after which damping is halved and the history cleared."""
DEPTH = 5
"""Differences to earlier power flows that the acceleration uses."""


def coupling_variables(prefix: str = "", what: str = "chargers") -> tuple[Variable, ...]:
    """Recorded variables of an iteration."""
    return (
        Variable(f"{prefix}coupling_iterations", ("member",), "1",
                 f"power flows until {what} and feeder converged, mean over the interval"),
        Variable(f"{prefix}coupling_residual", ("member",), "1",
                 f"voltage (pu) or power (per rated power) by which {what} and feeder differ at the end of "
                 "the iteration, mean over the interval"),
        Variable(f"{prefix}coupling_residual_worst", ("member",), "1", "greatest residual of the run",
                 timed=False),
        Variable(f"{prefix}coupling_unconverged", ("member",), "1",
                 "steps in which the residual was above the tolerance at the bound on iterations",
                 timed=False, dtype="int64"),
    )  # fmt: skip


class FixedPoint:
    """The iteration of all members of a run through its ticks.

    In each: ``begin`` with the devices' power at the voltages of the previous tick; then ``found`` with
    the voltages of each power flow, and unless all have converged, ``damped`` with the devices' power at
    ``seen``, which returns the power for the next power flow; at last ``close``.

    seen : (member, …) voltages that the devices see, pu
    moving : (member,) whether a member iterates; the devices of the others must not change
    iterations, residual : (member,) of the tick; power flows, and the greater of both residuals
    unconverged : reasons by number of the member
    """

    def __init__(
        self,
        rating_kva: Array,
        members: range,
        tolerance: float,
        most_iterations: int,
        what: str = "chargers",
    ) -> None:
        """Prepare for powers like ``rating_kva``, (member, …): rated power of each place, or 0."""
        self._rating = np.where(rating_kva > 0, rating_kva, 1.0)
        self._numbers, self._tolerance, self._most, self._what = members, tolerance, most_iterations, what
        count = len(members)
        self.seen: Array = np.zeros(0)
        self.moving: NDArray[np.bool_] = np.zeros(count, bool)
        self.iterations, self.residual = np.zeros(count), np.zeros(count)
        self.worst, self.steps_unconverged = np.zeros(count), np.zeros(count, np.int64)
        self.unconverged: dict[int, str] = {}
        self._first: dict[int, str] = {}
        self._last: NDArray[np.bool_] = np.zeros(count, bool)
        """Whether a member's devices have returned f itself."""
        self._gap = np.zeros(count)
        self._searches = [_Search() for _ in range(count)]
        self._given = np.zeros((2, *rating_kva.shape))

    def begin(self, seen: Array, p_kw: Array, q_kvar: Array) -> None:
        """Start a tick from the devices' power at ``seen``."""
        self.seen = seen.copy()
        self._given[0], self._given[1] = p_kw, q_kvar
        self.moving[:], self._last[:] = True, False
        self._searches = [_Search() for _ in self._searches]
        self.iterations[:], self.residual[:] = 0.0, 0.0

    def found(self, voltage_pu: Array) -> bool:
        """Update with the voltages of a power flow; whether all members have converged.

        Those that don't are to be evaluated at :attr:`seen` again.
        """
        self.iterations[self.moving] += 1.0
        gap = _greatest(np.abs(voltage_pu - self.seen))
        checked = self.moving & self._last
        self.residual[checked] = np.maximum(gap, self._gap)[checked]
        stands = checked & ((self.residual <= self._tolerance) | (self.iterations >= self._most))
        self.moving &= ~stands
        self._last &= ~self.moving
        self.seen[self.moving] = voltage_pu[self.moving]
        return not self.moving.any()

    def damped(self, p_kw: Array, q_kvar: Array) -> tuple[Array, Array]:
        """Power for the next power flow, from the devices' power at :attr:`seen`.

        Members whose devices' power is exactly unchanged have converged.
        """
        wanted = np.stack([p_kw, q_kvar])
        given = np.moveaxis(self._given / self._rating, 0, 1)
        off = np.moveaxis((wanted - self._given) / self._rating, 0, 1)
        gap = _greatest(np.abs(off))
        self._gap[self.moving] = gap[self.moving]
        self.moving &= gap > 0.0
        self._last |= self.moving & ((gap <= self._tolerance) | (self.iterations >= self._most - 1))
        self._given = wanted
        for place in np.flatnonzero(self.moving & ~self._last):
            better = self._searches[place].next(given[place].ravel(), off[place].ravel(), float(gap[place]))
            self._given[:, place] = better.reshape(given[place].shape) * self._rating[place]
        return self._given[0], self._given[1]

    def close(self, stamp: str) -> None:
        """End a tick: note the members that did not converge. ``stamp``: its time, for messages."""
        np.maximum(self.worst, self.residual, out=self.worst)
        above = self.residual > self._tolerance
        if not above.any():
            return
        self.steps_unconverged += above
        for place in np.flatnonzero(above):
            number = self._numbers[int(place)]
            first = self._first.setdefault(
                number, f"at {stamp} with a residual of {self.residual[place]:.2g}"
            )
            count = self.steps_unconverged[place]
            self.unconverged[number] = (
                f"member {number}: {self._what} and feeder did not converge in {self._most} iterations in "
                f"{count} step{'s' if count > 1 else ''}, first {first} (tolerance {self._tolerance:g}), "
                f"worst residual {self.worst[place]:.2g}"
            )

    def record(self, recorder: Recorder, tick: int, prefix: str = "") -> None:
        """Record the tick."""
        recorder.put(f"{prefix}coupling_iterations", tick, self.iterations[np.newaxis])
        recorder.put(f"{prefix}coupling_residual", tick, self.residual[np.newaxis])

    def finish(self, recorder: Recorder, prefix: str = "") -> None:
        """Record the results of the whole run."""
        recorder.put_static(f"{prefix}coupling_residual_worst", self.worst)
        recorder.put_static(f"{prefix}coupling_unconverged", self.steps_unconverged)


class _Search:
    """Search for the power of one member, per rated power, with its history."""

    def __init__(self) -> None:
        self._damping, self._best, self._since = START, np.inf, 0
        self._past = list[tuple[Array, Array]]()

    def next(self, given: Array, off: Array, residual: float) -> Array:
        """The power to try after ``given``, at which the devices were ``off``, F; (n,) each."""
        self._since = 0 if residual < self._best else self._since + 1
        if self._since >= PATIENCE:
            self._damping, self._best, self._since = self._damping / 2.0, residual, 0
            self._past.clear()
        self._best = min(self._best, residual)
        self._past = [*self._past[-DEPTH:], (given, off)]
        better = given + self._damping * off
        if len(self._past) > 1:
            before = np.diff([power for power, _ in self._past], axis=0).T
            change = np.diff([wrong for _, wrong in self._past], axis=0).T
            weights = np.linalg.lstsq(change, off, rcond=1e-8)[0]
            better -= (before + self._damping * change) @ weights
        return np.clip(better, -1.0, 1.0)


def _greatest(values: Array) -> Array:
    """The greatest of each member, (member, …) to (member,)."""
    return np.asarray(values.reshape(len(values), -1).max(axis=1, initial=0.0))
