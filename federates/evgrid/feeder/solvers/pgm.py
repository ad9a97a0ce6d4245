"""The default solver: power-grid-model, all cases in one batch.

The iterative-current method solves every case; those that it does not converge for are solved
again with Newton-Raphson. The circuit is prepared once; a solve sends loads and fetches only what
is needed, in columns.

The conversion from pandapower's tables is our own, because power-grid-model-io ignores zero-
sequence short-circuit impedances, leaves the loss tangent of a line without capacitance
uninitialised and fails on a missing vector group. How it is done:

- Sources are ideal: a short-circuit power of 1e15 VA, so that the source's own power is known only
  to about 0.1 W. What the head gives is therefore the sum of what flows from its node into
  branches, loads and shunts.
- A Dyn transformer's zero-sequence impedance as seen from the low-voltage side, z2 + z1 || zm
  (leakage parts z1, z2 and magnetising impedance zm, as in pandapower), is reached with an earthing
  impedance of (z0 - z)/3 at its neutral. A YNyn transformer is represented if its zero-sequence
  magnetising impedance can be neglected. Other vector groups are refused in three-phase nets.
- Magnetising currents (pfe, i0) are half on each side; pandapower has a T circuit by default, a
  difference below 1e-6 pu for usual transformers.
- A balanced feeder needs no vector group: star-star or delta-star, as the phase shift asks.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from power_grid_model import (
    CalculationMethod,
    ComponentType,
    LoadGenType,
    PowerGridModel,
    WindingType,
    initialize_array,
)

from evgrid.errors import NetworkError
from evgrid.feeder import kernels
from evgrid.feeder.networks import Network
from evgrid.feeder.reduction import Circuit, circuit
from evgrid.feeder.solvers import Flow, Label, case_name, not_converged
from evgrid.model import Array

SOURCE_VA = 1e15
"""Short-circuit power of the sources, VA: ideal to 1e-9 of the feeder's power."""

ERROR_TOLERANCE_PU = 1e-10
"""Largest change of a voltage in the last iteration, pu."""

MAX_ITERATIONS = 20

NEGLIGIBLE_MAGNETISING_PERCENT = 1e6
"""Zero-sequence magnetising impedance, percent of the short-circuit impedance, that draws nothing."""

THREADS_FROM = 16
"""Batches of at least so many cases are solved with two threads."""


class PowerGridModelSolver:
    """Solves batches with power-grid-model.

    Not safe for calls from several threads at once.
    """

    balance_tolerance = 1e-6

    def __init__(self, network: Network, reduce: bool = True, threads: int = 2) -> None:
        """Prepare the circuit.

        Raises
        ------
        NetworkError
            Naming what power-grid-model can't represent.

        """
        faults = _faults(network)
        if faults:
            raise NetworkError(
                "\n".join([f"network {network.source}: {len(faults)} fault(s)", *(f"  {f}" for f in faults)])
            )
        self.network = network
        self.threads = threads
        self.three_phase = network.three_phase
        self.circuit = circuit(network.grid, network.topology, reduce)
        self._model = PowerGridModel(_inputs(network, self.circuit), network.grid.frequency_hz)
        self._load = ComponentType.asym_load if self.three_phase else ComponentType.sym_load
        self._branches = tuple(
            kind
            for kind, count in (
                (ComponentType.line, len(self.circuit.line_from)),
                (ComponentType.transformer, len(self.circuit.trafo)),
            )
            if count
        )
        self._wanted: dict[ComponentType, list[str]] = {ComponentType.node: ["u_pu", "u_angle"]}
        for kind in self._branches:
            self._wanted[kind] = ["i_from", "i_to", "p_from", "p_to", "q_from", "q_to"]
        if len(network.grid.fixed.shunt_bus):
            self._wanted[ComponentType.shunt] = ["p", "q"]
        grid, node = network.grid, self.circuit.of_bus
        head = node[grid.sources.bus]
        self._head_ends = {
            kind: (np.flatnonzero(np.isin(start, head)), np.flatnonzero(np.isin(stop, head)))
            for kind, start, stop in (
                (ComponentType.line, self.circuit.line_from, self.circuit.line_to),
                (ComponentType.transformer, self.circuit.trafo_hv, self.circuit.trafo_lv),
            )
        }
        self._head_loads = np.flatnonzero(np.isin(node[grid.loads.bus], head))
        self._head_gens = np.flatnonzero(np.isin(node[grid.fixed.gen_bus], head))
        self._head_shunts = np.flatnonzero(np.isin(node[grid.fixed.shunt_bus], head))
        amperes = 1e3 * grid.lines.rating_ka
        self._line_rating = np.where(amperes > 0, amperes, np.inf)
        trafos = grid.trafos
        self._trafo_rating = (
            trafos.rating_kva / (np.sqrt(3) * trafos.rated_hv_kv),
            trafos.rating_kva / (np.sqrt(3) * trafos.rated_lv_kv),
        )
        self._of_trafo = np.full(len(trafos.name), -1, np.int64)
        self._of_trafo[self.circuit.trafo] = np.arange(len(self.circuit.trafo))

    def solve(self, p_kw: Array, q_kvar: Array, label: Label = case_name) -> Flow:
        """See :class:`evgrid.feeder.solvers.Solver`."""
        cases = len(p_kw)
        update_p, update_q = (np.ascontiguousarray(x * 1e3) for x in (p_kw, q_kvar))
        if not self.three_phase:
            update_p, update_q = update_p[:, :, 0], update_q[:, :, 0]
        result = self._solve(update_p, update_q, label)

        def column(kind: ComponentType, name: str) -> NDArray[np.float64]:
            values: NDArray[np.float64] = result[kind][name]
            return values if self.three_phase else values[:, :, np.newaxis]

        grid, c = self.network.grid, self.circuit
        phases = len(grid.phases)
        voltage = np.empty((cases, len(grid.buses.name), phases))
        kernels.bus_voltages(
            column(ComponentType.node, "u_pu"), column(ComponentType.node, "u_angle"),
            c.end_a, c.end_b, c.f1, c.f0, voltage,
        )  # fmt: skip
        line_loading = np.zeros((cases, len(grid.lines.name)))
        trafo_loading = np.zeros((cases, len(grid.trafos.name)))
        trafo_p = np.zeros((cases, len(grid.trafos.name)))
        losses = np.zeros(cases)
        head_p, head_q = np.zeros((cases, phases)), np.zeros((cases, phases))
        for kind in self._branches:
            into = {side: column(kind, f"p_{side}") for side in ("from", "to")}
            kernels.sum_of_ends(into["from"], into["to"], losses)
            currents = column(kind, "i_from"), column(kind, "i_to")
            if kind is ComponentType.line:
                kernels.worst_loading(
                    *currents, self._line_rating, self._line_rating, c.of_line, line_loading
                )
            else:
                hv, lv = self._trafo_rating
                kernels.worst_loading(*currents, hv, lv, self._of_trafo, trafo_loading)
                trafo_p[:, c.trafo] = into["from"].sum(axis=2) / 1e3
            for side, at_head in zip(("from", "to"), self._head_ends[kind], strict=True):
                for branch in at_head:
                    head_p += into[side][:, branch] / 1e3
                    head_q += column(kind, f"q_{side}")[:, branch] / 1e3
        for place in self._head_loads.tolist():
            head_p += p_kw[:, place]
            head_q += q_kvar[:, place]
        for place in self._head_gens.tolist():
            head_p -= grid.fixed.gen_p_kw[place]
            head_q -= grid.fixed.gen_q_kvar[place]
        fixed = np.full(cases, -grid.fixed.gen_p_kw.sum())
        if len(grid.fixed.shunt_bus):
            shunt_p, shunt_q = column(ComponentType.shunt, "p"), column(ComponentType.shunt, "q")
            for place in range(len(grid.fixed.shunt_bus)):
                fixed += shunt_p[:, place].sum(axis=1) / 1e3
            for place in self._head_shunts.tolist():
                head_p += shunt_p[:, place] / 1e3
                head_q += shunt_q[:, place] / 1e3
        return Flow(
            voltage_pu=voltage,
            line_loading=line_loading,
            trafo_loading=trafo_loading,
            trafo_p_kw=trafo_p,
            head_p_kw=head_p,
            head_q_kvar=head_q,
            losses_kw=losses / 1e3,
            fixed_kw=fixed,
        )

    def _solve(self, p_w: Array, q_var: Array, label: Label) -> dict[Any, Any]:
        """Solve a batch with iterative current, and what does not converge with Newton-Raphson."""
        result, failed = self._calculate(p_w, q_var, CalculationMethod.iterative_current)
        if failed:
            again = np.array(sorted(failed))
            repeated, reasons = self._calculate(p_w[again], q_var[again], CalculationMethod.newton_raphson)
            if reasons:
                by_case = {int(again[case]): reason for case, reason in sorted(reasons.items())}
                raise not_converged("power-grid-model", by_case, label)
            for kind, names in self._wanted.items():
                for name in names:
                    result[kind][name][again] = repeated[kind][name]
        return result

    def _calculate(
        self, p_w: Array, q_var: Array, method: CalculationMethod
    ) -> tuple[dict[Any, Any], dict[int, str]]:
        """One batch with one method, and why which of its cases failed."""
        if not p_w.shape[1]:
            return self._without_loads(len(p_w), method), {}
        result = self._model.calculate_power_flow(
            symmetric=not self.three_phase,
            error_tolerance=ERROR_TOLERANCE_PU,
            max_iterations=MAX_ITERATIONS,
            calculation_method=method,
            update_data=cast(Any, {self._load: {"p_specified": p_w, "q_specified": q_var}}),
            threading=self.threads if len(p_w) >= THREADS_FROM else -1,
            output_component_types=cast(Any, self._wanted),
            continue_on_batch_error=True,
        )
        errors = self._model.batch_error
        if errors is None:
            return result, {}
        return result, {
            int(case): text for case, text in zip(errors.failed_scenarios, errors.error_messages, strict=True)
        }

    def _without_loads(self, cases: int, method: CalculationMethod) -> dict[Any, Any]:
        """A feeder without connection points: the same flow in every case."""
        one = self._model.calculate_power_flow(
            symmetric=not self.three_phase,
            error_tolerance=ERROR_TOLERANCE_PU,
            calculation_method=method,
            output_component_types=cast(Any, self._wanted),
        )
        return {
            kind: {name: np.repeat(one[kind][name][np.newaxis], cases, axis=0) for name in names}
            for kind, names in self._wanted.items()
        }


def _faults(network: Network) -> list[str]:
    """What power-grid-model can't represent."""
    grid = network.grid
    lines, trafos = grid.lines, grid.trafos
    faults = []
    ends = "can't be represented with the solver power-grid-model"
    for k in np.flatnonzero(lines.from_closed | lines.to_closed):
        if lines.r1_ohm[k] == 0 and lines.x1_ohm[k] == 0:
            faults.append(f"line '{lines.name[k]}' {ends}: it has no impedance; use a bus-bus switch")
        elif lines.g1_s[k] and not lines.c1_f[k]:
            faults.append(f"line '{lines.name[k]}' {ends}: it has a conductance without capacitance")
    for k in np.flatnonzero(trafos.hv_closed | trafos.lv_closed):
        name, shift, group = trafos.name[k], trafos.shift_degree[k], str(trafos.vector_group[k])
        if shift % 30:
            faults.append(f"trafo '{name}' {ends}: shift_degree = {shift:g}, must be a multiple of 30")
        if not grid.three_phase:
            continue
        clock = round(shift / 30)
        if group.lower() not in ("dyn", "ynyn"):
            faults.append(
                f"trafo '{name}' {ends}: vector_group = '{group}', in three phases Dyn and YNyn are"
            )
        elif clock % 2 != (group.lower() == "dyn"):
            kind = "odd" if group.lower() == "dyn" else "even"
            faults.append(
                f"trafo '{name}' {ends}: shift_degree = {shift:g} with vector_group '{group}', "
                f"must be an {kind} multiple of 30"
            )
        elif group.lower() == "ynyn" and trafos.mag0_percent[k] < NEGLIGIBLE_MAGNETISING_PERCENT:
            faults.append(
                f"trafo '{name}' {ends}: a YNyn transformer with mag0_percent = {trafos.mag0_percent[k]:g}, "
                f"must be at least {NEGLIGIBLE_MAGNETISING_PERCENT:g} (no magnetising current)"
            )
    return faults


def _inputs(network: Network, c: Circuit) -> dict[ComponentType, NDArray[Any]]:
    """The circuit as power-grid-model's input, in SI units."""
    grid, node = network.grid, c.of_bus
    ids = iter(range(10**9))

    def table(kind: ComponentType, size: int) -> NDArray[Any]:
        array = cast(Any, initialize_array("input", kind, size))
        array["id"] = [next(ids) for _ in range(size)]
        return cast("NDArray[Any]", array)

    nodes = table(ComponentType.node, len(c.nominal_kv))
    nodes["u_rated"] = c.nominal_kv * 1e3

    lines = table(ComponentType.line, len(c.line_from))
    omega = 2 * np.pi * grid.frequency_hz
    lines["from_node"], lines["to_node"] = c.line_from, c.line_to
    lines["from_status"], lines["to_status"] = c.line_from_closed, c.line_to_closed
    lines["r1"], lines["x1"], lines["c1"] = c.line_z1.real, c.line_z1.imag, c.line_c1
    lines["r0"], lines["x0"], lines["c0"] = c.line_z0.real, c.line_z0.imag, c.line_c0
    lines["tan1"] = np.divide(c.line_g1, omega * c.line_c1, out=np.zeros_like(c.line_c1), where=c.line_c1 > 0)
    lines["tan0"] = 0.0

    sources = table(ComponentType.source, len(grid.sources.bus))
    sources["node"], sources["status"] = node[grid.sources.bus], 1
    sources["u_ref"], sources["u_ref_angle"] = grid.sources.voltage_pu, np.deg2rad(grid.sources.angle_degree)
    sources["sk"] = SOURCE_VA

    kind = ComponentType.asym_load if grid.three_phase else ComponentType.sym_load
    loads = table(kind, len(grid.loads.bus))
    loads["node"], loads["status"], loads["type"] = node[grid.loads.bus], 1, LoadGenType.const_power
    loads["p_specified"], loads["q_specified"] = 0.0, 0.0

    gen_kind = ComponentType.asym_gen if grid.three_phase else ComponentType.sym_gen
    gens = table(gen_kind, len(grid.fixed.gen_bus))
    gens["node"], gens["status"], gens["type"] = node[grid.fixed.gen_bus], 1, LoadGenType.const_power
    power = slice(None) if grid.three_phase else 0
    gens["p_specified"] = grid.fixed.gen_p_kw[:, power] * 1e3
    gens["q_specified"] = grid.fixed.gen_q_kvar[:, power] * 1e3

    shunts = table(ComponentType.shunt, len(grid.fixed.shunt_bus))
    shunts["node"], shunts["status"] = node[grid.fixed.shunt_bus], 1
    shunts["g1"], shunts["b1"] = grid.fixed.shunt_g_s, grid.fixed.shunt_b_s
    shunts["g0"], shunts["b0"] = grid.fixed.shunt_g_s, grid.fixed.shunt_b_s

    return {
        ComponentType.node: nodes,
        ComponentType.line: lines,
        ComponentType.transformer: _transformers(network, c, table(ComponentType.transformer, len(c.trafo))),
        ComponentType.source: sources,
        kind: loads,
        gen_kind: gens,
        ComponentType.shunt: shunts,
    }


def _transformers(network: Network, c: Circuit, array: NDArray[Any]) -> NDArray[Any]:
    t, k = network.grid.trafos, c.trafo
    sn, clock = t.sn_kva[k] * 1e3, np.round(t.shift_degree[k] / 30).astype(np.int64) % 12
    array["from_node"], array["to_node"] = c.trafo_hv, c.trafo_lv
    array["from_status"], array["to_status"] = t.hv_closed[k], t.lv_closed[k]
    array["u1"], array["u2"], array["sn"] = t.ratio_hv_kv[k] * 1e3, t.ratio_lv_kv[k] * 1e3, sn
    array["uk"], array["pk"] = t.vk_percent[k] / 100, t.vkr_percent[k] / 100 * sn
    array["p0"] = t.pfe_kw[k] * 1e3
    array["i0"] = np.maximum(t.i0_percent[k] / 100, array["p0"] / sn)
    array["clock"] = clock
    odd = clock % 2 == 1
    array["winding_from"] = np.where(odd, WindingType.delta, WindingType.wye_n)
    array["winding_to"] = WindingType.wye_n
    array["tap_side"], array["tap_pos"], array["tap_nom"] = 0, 0, 0
    array["tap_min"], array["tap_max"], array["tap_size"] = 0, 0, 0.0
    z1 = _impedance(t.vk_percent[k], t.vkr_percent[k])
    z0 = _impedance(t.vk0_percent[k], t.vkr0_percent[k])
    if network.three_phase:
        rx = t.mag0_rx[k]
        magnetising = t.mag0_percent[k] / 100 * t.vk0_percent[k] / 100 * (rx + 1j) / np.sqrt(rx**2 + 1)
        hv_part = t.si0_hv_partial[k] * z0
        seen = (1 - t.si0_hv_partial[k]) * z0 + hv_part * magnetising / (hv_part + magnetising)
        earthing = (np.where(odd, seen, z0) - z1) / 3 * (array["u2"] ** 2 / sn)
        array["r_grounding_to"], array["x_grounding_to"] = earthing.real, earthing.imag
    return array


def _impedance(vk_percent: Array, vkr_percent: Array) -> NDArray[np.complex128]:
    """Short-circuit impedance per unit of the transformer's own rating."""
    real = vkr_percent / 100
    return real + 1j * np.sqrt(np.maximum((vk_percent / 100) ** 2 - real**2, 0))
