"""The feeder as a model: takes the EVs' power, gives voltages, records flows.

In: ``fleet/p`` and ``fleet/q`` (where there is a fleet). Out: voltages at the connection points,
head power and transformer power, where somebody takes them. One step is one power flow of every
member, with the base load's mean over the step.

Where nobody takes the feeder's outputs, nothing has to be known at once: the steps are gathered
and solved in large batches, which is much faster. The numbers are the same bit for bit, because a
power flow does not depend on the others in its batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evgrid.feeder.base_load import base_load
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import check_balance, make_solver
from evgrid.model import Array, Model, Recorder, Values, Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evgrid.scenario import Scenario

BATCH_CASES = 1000
"""Power flows (members times steps) that are gathered before they are solved."""

VARIABLES = (
    Variable("voltage_pu", ("member", "bus", "phase"), "1",
             "voltage magnitude per unit of nominal voltage (balanced: positive sequence), "
             "NaN where no source feeds the bus", dtype="float32"),
    Variable("voltage_min_pu", ("member",), "1", "lowest voltage of all buses and phases, per unit of nominal"),
    Variable("voltage_max_pu", ("member",), "1", "highest voltage of all buses and phases, per unit of nominal"),
    Variable("line_loading", ("member", "line"), "1",
             "line current of the worst phase and end, per rated current", dtype="float32"),
    Variable("trafo_loading", ("member", "trafo"), "1",
             "transformer current of the worst phase and side, per rated current"),
    Variable("losses_kw", ("member",), "kW", "losses of lines and transformers"),
    Variable("head_power_kw", ("member", "phase"), "kW", "active power drawn from the grid above the feeder"),
    Variable("head_reactive_kvar", ("member", "phase"), "kvar",
             "reactive power drawn from the grid above the feeder"),
    Variable("base_load_kw", ("member",), "kW",
             "active power of everything but EVs and losses, less fixed generation"),
    Variable("bus_distance_km", ("bus",), "km", "distance from the feeder head along lines", timed=False),
    Variable("bus_nominal_kv", ("bus",), "kV", "nominal voltage, phase to phase", timed=False),
    Variable("bus_x", ("bus",), "1", "horizontal coordinate of the bus as the net gives it", timed=False),
    Variable("bus_y", ("bus",), "1", "vertical coordinate of the bus as the net gives it", timed=False),
    Variable("line_from_bus", ("line",), "1", "position of the line's first bus along bus", timed=False,
             dtype="int64"),
    Variable("line_to_bus", ("line",), "1", "position of the line's second bus along bus", timed=False,
             dtype="int64"),
    Variable("line_rated_ka", ("line",), "kA", "rated current of the line", timed=False),
    Variable("trafo_rated_kva", ("trafo",), "kVA", "rated power of the transformer", timed=False),
)  # fmt: skip
"""What the feeder records."""


class FeederModel(Model):
    """Power flows of all members."""

    name = "feeder"
    variables = VARIABLES

    def __init__(
        self, scenario: Scenario, network: Network, recorder: Recorder, fleet: bool, feedback: bool
    ) -> None:
        """Prepare solver and base load.

        Parameters
        ----------
        scenario, network
            What is run, on which feeder.
        recorder
            Takes what is recorded.
        fleet
            Whether there are EVs.
        feedback
            Whether somebody takes the feeder's outputs.

        Raises
        ------
        NetworkError
            Naming what the solver can't represent.
        ScenarioError
            With every fault of a base load file.

        """
        self.period_s = scenario.feeder_step_s
        self.inputs = ("fleet/p", "fleet/q") if fleet else ()
        self.outputs = (
            ("feeder/voltage", "feeder/energised", "feeder/head_p", "feeder/head_q", "feeder/trafo_p")
            if feedback
            else ()
        )
        self._network, self._recorder, self._clock = network, recorder, scenario.clock
        self._numbers = scenario.members
        self._ticks_per_step = round(self.period_s / scenario.time.step)
        self._solver = make_solver(network, scenario.feeder.solver, scenario.feeder.reduce)
        self._base = base_load(scenario, network)
        members = len(self._numbers)
        self._gather = 1 if feedback else max(1, BATCH_CASES // members)
        self._steps = list[int]()
        shape = (self._gather, members, len(network.connections), len(network.connections.phases))
        self._ev_p: Array | None = np.zeros(shape) if fleet else None
        self._ev_q: Array | None = np.zeros(shape) if fleet else None
        self._audit = {
            name: np.zeros(members)
            for name in (
                "power_received_kw_sum", "head_energy_kwh", "base_energy_kwh", "losses_energy_kwh",
                "ev_energy_kwh", "balance_worst",
            )
        }  # fmt: skip

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.model.Model`. Raises PowerFlowError naming members and time."""
        place = len(self._steps)
        self._steps.append(round(time_s / self.period_s))
        if self._ev_p is not None and self._ev_q is not None:
            self._ev_p[place], self._ev_q[place] = inputs["fleet/p"], inputs["fleet/q"]
            received = self._ev_p[place].reshape(len(self._numbers), -1).sum(axis=1)
            self._audit["power_received_kw_sum"] += received
        if len(self._steps) < self._gather:
            return {}
        return self._solve()

    def finish(self) -> None:
        """Solve what is gathered and record what does not change."""
        if self._steps:
            self._solve()
        grid = self._network.grid
        for name, values in {
            "bus_distance_km": self._network.topology.distance_km,
            "bus_nominal_kv": grid.buses.nominal_kv,
            "bus_x": grid.buses.x,
            "bus_y": grid.buses.y,
            "line_from_bus": grid.lines.from_bus,
            "line_to_bus": grid.lines.to_bus,
            "line_rated_ka": grid.lines.rating_ka,
            "trafo_rated_kva": grid.trafos.rating_kva,
        }.items():
            self._recorder.put_static(name, values)

    def audit(self) -> Mapping[str, Array]:
        """Sums over the run, (member,): power received (kW, one term a step), energies (kWh) at the
        head, of the base load, of losses and of EVs, the worst residual of a power balance, and
        how far the solver itself can go.
        """
        return {**self._audit, "balance_tolerance": np.full(len(self._numbers), self._solver.balance_tolerance)}

    def _solve(self) -> Values:
        """Solve the gathered steps, record them, and give the outputs of the last one."""
        steps, members = len(self._steps), len(self._numbers)
        first, times_s = self._steps[0], np.array(self._steps) * self.period_s
        self._steps = []
        p, q = self._base.at(times_s)
        base_kw = p.reshape(steps, p.shape[1], -1).sum(axis=2)
        ev_kw = np.zeros((steps, members))
        if self._ev_p is not None and self._ev_q is not None:
            p, q = p + self._ev_p[:steps], q + self._ev_q[:steps]
            ev_kw = self._ev_p[:steps].reshape(steps, members, -1).sum(axis=2)
        solved = p.shape[1]  # 1 where all members are alike
        p, q = (np.ascontiguousarray(x).reshape(steps * solved, *x.shape[2:]) for x in (p, q))

        def label(case: int) -> str:
            step, member = divmod(case, solved)
            stamp = str(self._clock.timestamps(times_s[step : step + 1])[0].astype("datetime64[s]"))
            who = f"member {self._numbers[member]}"
            if solved < members:
                who = f"members {self._numbers[0]} to {self._numbers[-1]}"
            return f"{who} at {stamp.replace('T', ' ')}"

        flow = self._solver.solve(p, q, label)
        residual = check_balance(flow, p, self._solver.balance_tolerance, label)

        def by_member(values: Array) -> Array:
            parted = values.reshape(steps, solved, *values.shape[1:])
            return np.broadcast_to(parted, (steps, members, *values.shape[1:]))

        head, losses = by_member(flow.head_p_kw), by_member(flow.losses_kw)
        other = np.broadcast_to(base_kw + flow.fixed_kw.reshape(steps, solved), (steps, members))
        tick = first * self._ticks_per_step
        for name, values in {
            "voltage_pu": by_member(flow.voltage_pu.astype(np.float32)),
            "voltage_min_pu": by_member(np.fmin.reduce(flow.voltage_pu, axis=(1, 2))),
            "voltage_max_pu": by_member(np.fmax.reduce(flow.voltage_pu, axis=(1, 2))),
            "line_loading": by_member(flow.line_loading.astype(np.float32)),
            "trafo_loading": by_member(flow.trafo_loading),
            "losses_kw": losses,
            "head_power_kw": head,
            "head_reactive_kvar": by_member(flow.head_q_kvar),
            "base_load_kw": other,
        }.items():
            self._recorder.put(name, tick, values)
        hours = self.period_s / 3600
        residuals, head_kw = by_member(residual), head.sum(axis=2)
        for step in range(steps):
            self._audit["head_energy_kwh"] += head_kw[step] * hours
            self._audit["base_energy_kwh"] += other[step] * hours
            self._audit["losses_energy_kwh"] += losses[step] * hours
            self._audit["ev_energy_kwh"] += ev_kw[step] * hours
            np.maximum(self._audit["balance_worst"], residuals[step], out=self._audit["balance_worst"])
        if not self.outputs:
            return {}
        voltage = np.nan_to_num(by_member(flow.voltage_pu)[-1][:, self._network.connections.bus])
        return {
            "feeder/voltage": voltage,
            "feeder/energised": (voltage > 0).astype(np.float64),
            "feeder/head_p": head[-1],
            "feeder/head_q": by_member(flow.head_q_kvar)[-1],
            "feeder/trafo_p": by_member(flow.trafo_p_kw)[-1],
        }
