"""PV inverters: the feeder's generation with the local functions of :mod:`evgrid.curves`.

In: what the sun allows (the base load's generation) and, from the step before, the voltage at each
generator. Out: what the inverters give. As chargers do, they answer a voltage with the exact first-order
response over the step, and see it one step late (at the start: 1 pu). Reactive power also flows without
sun. The phases of a generator carry shares as in the network; the curves see the mean voltage of its
phases, trips and entering service the lowest and highest.
"""

from __future__ import annotations

import numpy as np

from evgrid.curves.kernels import STATE, respond_all
from evgrid.curves.settings import Rating, parameters
from evgrid.device_settings import PvInverters
from evgrid.errors import ScenarioError
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import Flow, Power


class Inverters:
    """All inverters of all members."""

    def __init__(self, settings: PvInverters, network: Network, members: int) -> None:
        """Find the generators.

        Raises
        ------
        ScenarioError
            Naming each that there is not, or that has no rated power.

        """
        fixed = network.grid.fixed
        total = fixed.gen_p_kw.sum(axis=1)
        s_kva = np.where(fixed.gen_sn_kva > 0, fixed.gen_sn_kva, settings.oversize * total)
        self._at = np.flatnonzero(~fixed.gen_stands_in & (s_kva > 0) & (total >= 0))
        if settings.at is not None:
            names = fixed.gen_name.tolist()
            faults = [
                f"feeder.pv.at = {name}: the network has no such sgen" if name not in names
                else f"feeder.pv.at = {name}: is no generator with a rated power"
                for name in settings.at
                if name not in names or names.index(name) not in self._at
            ]  # fmt: skip
            if faults:
                raise ScenarioError(faults)
            self._at = np.array([names.index(name) for name in settings.at], np.int64)
        elif not len(self._at):
            raise ScenarioError(["feeder.pv: the network has no sgen with a rated power"])
        s_kva, p_kw = s_kva[self._at], total[self._at]
        rated = np.where((p_kw > 0) & (p_kw <= s_kva), p_kw, s_kva)
        self._parameters = np.concatenate(
            [parameters(settings.functions, Rating(s, 0.0, p)) for s, p in zip(s_kva, rated, strict=True)]
        )
        own = fixed.gen_p_kw[self._at]
        phases = own.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            self._share = np.where(p_kw[:, np.newaxis] > 0, own / p_kw[:, np.newaxis], 1 / phases)
        self._bus = fixed.gen_bus[self._at]
        shape = (members, len(self._at))
        self._kind = np.tile(np.arange(len(self._at), dtype=np.int32), members)
        self._state = np.zeros(members * len(self._at), STATE)
        self._volts = np.ones((3, *shape))  # mean, lowest, highest
        self._hz = np.full(members * len(self._at), float(settings.functions.nominal_hz))
        self.power_kw, self.available_kw, self.reactive_kvar = (np.zeros(members) for _ in range(3))
        """(member,), over the last step: given, what the sun allowed; reactive power drawn."""

    def step(self, generation: Power, step_s: float) -> Power:
        """What all generators give in a step, (member, gen, phase), from what they could give; advances."""
        gen_p, gen_q = (part.copy() for part in generation)
        available = np.maximum(gen_p[:, self._at].sum(axis=2), 0.0)
        mean, lowest, highest = (volts.reshape(-1) for volts in self._volts)
        p_kw, q_kvar = np.zeros(available.size), np.zeros(available.size)
        limit = -available.reshape(-1)
        respond_all(
            self._parameters, self._kind, self._state, mean, lowest, highest, self._hz,
            (mean > 0).astype(np.float64), limit, limit, np.zeros_like(limit), step_s, p_kw, q_kvar,
        )  # fmt: skip
        drawn_p, drawn_q = p_kw.reshape(available.shape), q_kvar.reshape(available.shape)
        gen_p[:, self._at] = -drawn_p[..., np.newaxis] * self._share
        gen_q[:, self._at] = -drawn_q[..., np.newaxis] * self._share
        self.power_kw, self.available_kw = -drawn_p.sum(axis=1), available.sum(axis=1)
        self.reactive_kvar = drawn_q.sum(axis=1)
        return gen_p, gen_q

    def see(self, flow: Flow) -> None:
        """Take the voltages that the inverters see in the next step."""
        volts = np.where(self._share > 0, flow.voltage_pu[:, self._bus], np.nan)
        volts = np.where(np.isfinite(volts).any(axis=2, keepdims=True), volts, 0.0)
        self._volts = np.stack(
            [np.nanmean(volts, axis=2), np.nanmin(volts, axis=2), np.nanmax(volts, axis=2)]
        )
