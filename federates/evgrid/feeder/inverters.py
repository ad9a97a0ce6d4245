"""PV inverters: the feeder's generation with the local functions of :mod:`evgrid.inverter_functions`.

In: the available power (the base load's generation) and the voltage at each generator. Out: the power of
the inverters. As chargers do, they respond to a voltage with the exact first-order response over the step.
They see that of the step before (at the start: 1 pu), or, with ``coupling: iterated``, that of the step
itself (:mod:`evgrid.core.fixed_point`). Reactive power also flows without sun. The phases of a generator
carry shares as in the network; the curves see the mean voltage of its phases, trips and entering service the
lowest and highest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.element_names import ElementNames
from evgrid.core.fixed_point import FixedPoint, coupling_variables
from evgrid.core.model import Array, Recorder, Variable
from evgrid.errors import ScenarioError
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import Flow, Power
from evgrid.inverter_functions.kernels import STATE, respond_all
from evgrid.scenario.devices import PvInverters
from evgrid.scenario.inverter_functions import Rating, parameters

if TYPE_CHECKING:
    from evgrid.scenario.schema import Coupling

PREFIX = "pv_"
"""Prefix of the variables of the iteration."""


class Inverters:
    """All inverters of all members."""

    def __init__(
        self, settings: PvInverters, network: Network, numbers: range, coupling: Coupling | None = None
    ) -> None:
        """Find the generators; ``numbers`` of the members. With ``coupling`` each step is iterated.

        Raises
        ------
        ScenarioError
            Naming each generator that does not exist, or that has no rated power.

        """
        fixed = network.grid.fixed
        total = fixed.gen_p_kw.sum(axis=1)
        s_kva = np.where(fixed.gen_sn_kva > 0, fixed.gen_sn_kva, settings.oversize * total)
        self._at = np.flatnonzero((fixed.gen_kind == "sgen") & (s_kva > 0) & (total >= 0))
        if settings.at is not None:
            names = ElementNames(fixed.gen_name)
            places = names.places(settings.at)
            faults = [
                f"feeder.pv.at = {name}: the network has no such sgen; {names.hint(name)}" if at < 0
                else f"feeder.pv.at = {name}: is no generator with a rated power"
                for name, at in zip(settings.at, places.tolist(), strict=True)
                if at not in self._at
            ]  # fmt: skip
            if faults:
                raise ScenarioError(faults)
            self._at = places
        elif not len(self._at):
            raise ScenarioError(["feeder.pv: the network has no sgen with a rated power"])
        s_kva, p_kw = s_kva[self._at], total[self._at]
        rated = np.where((p_kw > 0) & (p_kw <= s_kva), p_kw, s_kva)
        self._parameters = np.concatenate(
            [parameters(settings.functions, Rating(s, 0.0, p)) for s, p in zip(s_kva, rated, strict=True)]
        )
        members = len(numbers)
        own = fixed.gen_p_kw[self._at]
        phases = own.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            self._share = np.where(p_kw[:, np.newaxis] > 0, own / p_kw[:, np.newaxis], 1 / phases)
        if network.opendss is not None:
            self._share = network.opendss.circuit.generators.share[self._at]
        self._bus = fixed.gen_bus[self._at]
        shape = (members, len(self._at))
        self._kind = np.tile(np.arange(len(self._at), dtype=np.int32), members)
        self._state = np.zeros(members * len(self._at), STATE)
        self._volts = np.ones((3, *shape))  # mean, lowest, highest
        self._hz = np.full(members * len(self._at), float(settings.functions.nominal_hz))
        self.power_kw, self.available_kw, self.reactive_kvar = (np.zeros(members) for _ in range(3))
        """(member,), over the last step: power fed in, power available; reactive power drawn."""

        self._alive: Array | None = None
        self._fixed: FixedPoint | None = None
        if coupling is not None:
            self._fixed = FixedPoint(
                np.tile(s_kva, (members, 1)), numbers, coupling.tolerance, coupling.most_iterations,
                "PV inverters",
            )  # fmt: skip

    @property
    def generators(self) -> frozenset[int]:
        """Positions of the inverters among the fixed generators."""
        return frozenset(self._at.tolist())

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Recorded variables of the iteration."""
        return coupling_variables(PREFIX, "PV inverters") if self._fixed is not None else ()

    @property
    def unconverged(self) -> dict[int, str]:
        """Members whose iteration did not converge, by number."""
        return self._fixed.unconverged if self._fixed is not None else {}

    def solve(
        self,
        generation: Power,
        step_s: float,
        solve: Callable[[Power], Flow],
        given_up: NDArray[np.bool_],
        alive: Array | None = None,
    ) -> Flow:
        """Advance the inverters by a step, and solve the power flow with their power.

        Parameters
        ----------
        generation
            Available power of all generators, (member, gen, phase).
        step_s
            Length of the step.
        solve
            Solves the power flow with the generators' power.
        given_up
            (member,) bool, members without a solution, whose inverters see no voltage.
        alive
            (member, gen), share of the step in which the grid at each generator has supply, as ``generation``
            has it already; left out: all of it.

        """
        self._alive = None if alive is None else alive[:, self._at]
        available = np.maximum(generation[0][:, self._at].sum(axis=2), 0.0)
        fixed = self._fixed
        if fixed is None:
            flow = solve(self._given(generation, *self._respond(available, step_s)))
            self._observe(flow, given_up)
            return flow
        before = self.snapshot()
        power = self._respond(available, step_s)
        fixed.begin(np.moveaxis(self._volts, 0, 1), *power)
        while True:
            flow = solve(self._given(generation, *power))
            self._observe(flow, given_up)
            found = np.moveaxis(self._volts, 0, 1)
            if fixed.found(found):
                return flow
            self.restore((before[0], np.moveaxis(fixed.seen, 1, 0)))
            power = fixed.damped(*self._respond(available, step_s))
            self._volts = np.moveaxis(found, 1, 0)
            if not fixed.moving.any():
                return flow

    def snapshot(self) -> tuple[Any, Array]:
        """The state that a step changes, for :meth:`restore`."""
        return self._state.copy(), self._volts

    def restore(self, state: tuple[Any, Array]) -> None:
        """Return to a state of :meth:`snapshot`."""
        self._state[:], self._volts = state

    def recorded(self, stamp: str) -> dict[str, Array]:
        """Results of the last step, (1, member); ends it. ``stamp`` names the step in messages."""
        values = {
            "pv_power_kw": self.power_kw, "pv_available_kw": self.available_kw,
            "pv_reactive_kvar": self.reactive_kvar,
        }  # fmt: skip
        if self._fixed is not None:
            self._fixed.close(stamp)
            values |= {
                f"{PREFIX}coupling_iterations": self._fixed.iterations.copy(),
                f"{PREFIX}coupling_residual": self._fixed.residual.copy(),
            }
        return {name: array[np.newaxis] for name, array in values.items()}

    def finish(self, recorder: Recorder) -> None:
        """Record the results of the whole run."""
        if self._fixed is not None:
            self._fixed.finish(recorder, PREFIX)

    def _respond(self, available: Array, step_s: float) -> Power:
        """Power drawn by the inverters at the voltages they see, (member, inverter), kW and kvar;
        advances.
        """
        mean, lowest, highest = (np.ascontiguousarray(volts).reshape(-1) for volts in self._volts)
        p_kw, q_kvar = np.zeros(available.size), np.zeros(available.size)
        limit = -available.reshape(-1)
        respond_all(
            self._parameters, self._kind, self._state, mean, lowest, highest, self._hz,
            (mean > 0).astype(np.float64), limit, limit, np.zeros_like(limit), step_s, p_kw, q_kvar,
        )  # fmt: skip
        drawn_p, drawn_q = p_kw.reshape(available.shape), q_kvar.reshape(available.shape)
        if self._alive is not None:
            drawn_p, drawn_q = drawn_p * (self._alive > 0), drawn_q * self._alive
        self.power_kw, self.available_kw = -drawn_p.sum(axis=1), available.sum(axis=1)
        self.reactive_kvar = drawn_q.sum(axis=1)
        return drawn_p, drawn_q

    def _given(self, generation: Power, drawn_kw: Array, drawn_kvar: Array) -> Power:
        """Power of all generators, (member, gen, phase)."""
        gen_p, gen_q = (part.copy() for part in generation)
        gen_p[:, self._at] = -drawn_kw[..., np.newaxis] * self._share
        gen_q[:, self._at] = -drawn_kvar[..., np.newaxis] * self._share
        return gen_p, gen_q

    def _observe(self, flow: Flow, given_up: NDArray[np.bool_]) -> None:
        """Set the voltages that the inverters see from now on."""
        at_gens = (
            flow.voltage_pu[:, self._bus] if flow.generator_pu is None else flow.generator_pu[:, self._at]
        )
        volts = np.where(self._share > 0, at_gens, np.nan)
        volts = np.where(np.isfinite(volts).any(axis=2, keepdims=True), volts, 0.0)
        volts[given_up] = 0.0
        self._volts = np.stack(
            [np.nanmean(volts, axis=2), np.nanmin(volts, axis=2), np.nanmax(volts, axis=2)]
        )
