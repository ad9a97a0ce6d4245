"""The solver power-grid-model: all cases in one batch.

The iterative-current method solves every case; those that it does not converge for are solved
again with Newton-Raphson. The circuit is prepared once; a solve updates loads and fetches only the
needed columns.

The conversion from pandapower's tables is our own, because power-grid-model-io ignores zero-
sequence short-circuit impedances, leaves the loss tangent of a line without capacitance
uninitialised and fails on a missing vector group. How it is done:

- Sources are ideal: a short-circuit power of 1e20 VA, so that the source's own power is not known
  to about 0.1 W. The head's power is therefore the sum of the power from its node into
  branches, loads and shunts.
- A Dyn transformer's zero-sequence impedance as seen from the low-voltage side, z2 + z1 || zm
  (leakage parts z1, z2 and magnetising impedance zm, as in pandapower), is reached with an earthing
  impedance of (z0 - z)/3 at its neutral. A Yzn transformer is modelled as a Dyn one with the zero-sequence
  impedance that pandapower gives it. A YNyn transformer is represented if its zero-sequence
  magnetising impedance can be neglected. Other vector groups are refused in three-phase nets.
- Magnetising currents (pfe, i0) are half on each side of a pi circuit, whose values follow exactly
  from the T circuit that pandapower has by default.
- A balanced feeder needs no vector group: star-star or delta-star, as the phase shift asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

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
from power_grid_model.errors import PowerGridError  # type: ignore[attr-defined]

from evgrid.core.model import Array
from evgrid.errors import NetworkError
from evgrid.feeder import kernels
from evgrid.feeder.grid import Ints
from evgrid.feeder.reduction import Circuit, circuit
from evgrid.feeder.solvers.interface import (
    Flow,
    Label,
    Positions,
    Power,
    blank,
    case_name,
    holding_voltage,
    in_delta,
    lines_without_impedance,
    not_converged,
)
from evgrid.feeder.solvers.sequence_network import (
    NEGLIGIBLE_MAGNETISING_PERCENT,
    short_circuit,
    yzn_admittance,
)

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

SOURCE_VA = 1e20
"""Short-circuit power of the sources, VA: ideal to 1e-13 of 10 MW."""

ERROR_TOLERANCE_PU = 1e-10
"""Largest change of a voltage in the last iteration, pu."""

MAX_ITERATIONS = 20

THREADS_FROM = 16
"""Batches of at least so many cases are solved with two threads."""


Update = dict[ComponentType, dict[str, NDArray[Any]]]
"""Updated attributes of each component type, in SI units: (case, component[, phase])."""


class PowerGridModelSolver:
    """Solves batches with power-grid-model.

    Not safe for calls from several threads at once.
    """

    name = "power-grid-model"
    balance_tolerance = 1e-6
    in_time = False
    newton_cases = 0
    note = ""

    def __init__(
        self, network: Network, reduce: bool = True, threads: int = 2, unbalance: bool = True
    ) -> None:
        """Prepare the circuit.

        Raises
        ------
        NetworkError
            Naming the elements that power-grid-model can't represent.

        """
        faults = faults_of(network)
        if faults:
            raise NetworkError.of(network.source, faults)
        self.network = network
        self.threads = threads
        self.three_phase = network.three_phase
        self.unbalance = unbalance and self.three_phase
        self.circuit = circuit(network.grid, network.topology, reduce)
        loads = network.grid.loads
        self._with_z, self._with_i = (np.flatnonzero(s.any(axis=1)) for s in (loads.z_share, loads.i_share))
        self._of_extra = np.concatenate([self._with_z, self._with_i])
        inputs = _inputs(network, self.circuit, self._with_z, self._with_i)
        self._model = PowerGridModel(inputs, network.grid.frequency_hz)
        self._load = ComponentType.asym_load if self.three_phase else ComponentType.sym_load
        self._gen = ComponentType.asym_gen if self.three_phase else ComponentType.sym_gen
        self._single = PowerGridModel(inputs, network.grid.frequency_hz)
        self._tables = dict[ComponentType, NDArray[Any]]()
        changing = (self._load, self._gen, ComponentType.transformer, ComponentType.shunt)
        self._ids = {kind: inputs[kind]["id"] for kind in changing}
        node_kv = self.circuit.nominal_kv * 1e3 / np.sqrt(3)
        self._line_volts = node_kv[self.circuit.line_from]
        self._trafo_volts = node_kv[self.circuit.trafo_lv]
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
        if len(self._of_extra):
            self._wanted[self._load] = ["p", "q"]
        grid, node = network.grid, self.circuit.of_bus
        head = node[grid.sources.bus]
        self._head_ends = {
            kind: (np.flatnonzero(np.isin(start, head)), np.flatnonzero(np.isin(stop, head)))
            for kind, start, stop in (
                (ComponentType.line, self.circuit.line_from, self.circuit.line_to),
                (ComponentType.transformer, self.circuit.trafo_hv, self.circuit.trafo_lv),
            )
        }
        self._head_extra = np.flatnonzero(np.isin(node[grid.loads.bus[self._of_extra]], head))
        self._head_loads = np.flatnonzero(np.isin(node[grid.loads.bus], head))
        self._head_gens = np.flatnonzero(np.isin(node[grid.fixed.gen_bus], head))
        self._head_shunts = np.flatnonzero(np.isin(node[grid.fixed.shunt_bus], head))
        self._line_rating = 1e3 * grid.lines.rating_ka
        trafos = grid.trafos
        self._trafo_rating = (
            trafos.rating_kva / (np.sqrt(3) * trafos.rated_hv_kv),
            trafos.rating_kva / (np.sqrt(3) * trafos.rated_lv_kv),
        )
        self._of_trafo = np.full(len(trafos.name), -1, np.int64)
        self._of_trafo[self.circuit.trafo] = np.arange(len(self.circuit.trafo))

    def solve(
        self,
        p_kw: Array,
        q_kvar: Array,
        label: Label = case_name,
        *,
        nominal: Power | None = None,
        generation: Power | None = None,
        positions: Positions | None = None,
        failed: dict[int, str] | None = None,
    ) -> Flow:
        """See :class:`evgrid.feeder.solvers.Solver`."""
        cases = len(p_kw)
        load_p, load_q, extra_p, extra_q = p_kw, q_kvar, p_kw[:, :0], q_kvar[:, :0]
        if len(self._of_extra):
            own_p, own_q = (p_kw, q_kvar) if nominal is None else nominal
            load_p, extra_p = self._parts(p_kw, own_p, 0)
            load_q, extra_q = self._parts(q_kvar, own_q, 1)
        update = {self._load: self._watts((load_p, load_q))}
        if generation is not None and generation[0].shape[1]:
            update[self._gen] = self._watts(generation)
        if positions is not None:
            update |= self._positions(positions)
        reasons: dict[int, str] = {}
        result = self._solve(update, reasons)
        if reasons and failed is None:
            raise not_converged("power-grid-model", reasons, label)

        def column(kind: ComponentType, name: str) -> NDArray[np.float64]:
            values: NDArray[np.float64] = result[kind][name]
            return values if self.three_phase else values[:, :, np.newaxis]

        grid, c = self.network.grid, self.circuit
        phases = len(grid.phases)
        voltage = np.empty((cases, len(grid.buses.name), phases))
        unbalance = np.empty((cases, len(grid.buses.name) if self.unbalance else 0))
        neutral = np.zeros((cases, len(grid.lines.name) if self.unbalance else 0))
        trafo_neutral = np.zeros((cases, len(grid.trafos.name) if self.unbalance else 0))
        at_nodes = column(ComponentType.node, "u_pu"), column(ComponentType.node, "u_angle")
        kernels.bus_voltages(*at_nodes, c.end_a, c.end_b, c.f1, c.f0, voltage, unbalance)
        lines, trafos = len(grid.lines.name), len(grid.trafos.name)
        line_loading = np.zeros((cases, lines, phases))
        line_loading[:, np.isnan(self._line_rating)] = np.nan
        trafo_loading = np.zeros((cases, trafos, phases))
        trafo_loading[:, np.isnan(grid.trafos.rating_kva)] = np.nan
        trafo_p = np.zeros((cases, len(grid.trafos.name)))
        trafo_lv_p, trafo_lv_q = (np.zeros((cases, len(grid.trafos.name), phases)) for _ in "pq")
        losses = np.zeros(cases)
        head_p, head_q = np.zeros((cases, phases)), np.zeros((cases, phases))
        for kind in self._branches:
            into = {side: column(kind, f"p_{side}") for side in ("from", "to")}
            kernels.sum_of_ends(into["from"], into["to"], losses)
            currents = column(kind, "i_from"), column(kind, "i_to")
            if kind is ComponentType.line:
                kernels.loading(*currents, self._line_rating, self._line_rating, c.of_line, line_loading)
                if self.unbalance:
                    kernels.neutral_currents(
                        into["from"], column(kind, "q_from"), *at_nodes, c.line_from, self._line_volts,
                        c.of_line, neutral,
                    )  # fmt: skip
            else:
                hv, lv = self._trafo_rating
                kernels.loading(*currents, hv, lv, self._of_trafo, trafo_loading)
                trafo_p[:, c.trafo] = into["from"].sum(axis=2) / 1e3
                trafo_lv_p[:, c.trafo] = into["to"] / -1e3
                trafo_lv_q[:, c.trafo] = column(kind, "q_to") / -1e3
                if self.unbalance:
                    kernels.neutral_currents(
                        into["to"], column(kind, "q_to"), *at_nodes, c.trafo_lv, self._trafo_volts,
                        self._of_trafo, trafo_neutral,
                    )  # fmt: skip
            for side, at_head in zip(("from", "to"), self._head_ends[kind], strict=True):
                for branch in at_head:
                    head_p += into[side][:, branch] / 1e3
                    head_q += column(kind, f"q_{side}")[:, branch] / 1e3
        for place in self._head_loads.tolist():
            head_p += p_kw[:, place]
            head_q += q_kvar[:, place]
        gen_p, gen_q = (
            (grid.fixed.gen_p_kw[np.newaxis], grid.fixed.gen_q_kvar[np.newaxis])
            if generation is None
            else generation
        )
        for place in self._head_gens.tolist():
            head_p -= gen_p[:, place]
            head_q -= gen_q[:, place]
        fixed = np.zeros(cases) - gen_p.sum(axis=(1, 2))
        if len(self._of_extra):
            first = len(grid.loads.bus)
            more_p = column(self._load, "p")[:, first:] / 1e3 - extra_p
            more_q = column(self._load, "q")[:, first:] / 1e3 - extra_q
            fixed += more_p.sum(axis=(1, 2))
            for place in self._head_extra.tolist():
                head_p += more_p[:, place]
                head_q += more_q[:, place]
        if len(grid.fixed.shunt_bus):
            shunt_p, shunt_q = column(ComponentType.shunt, "p"), column(ComponentType.shunt, "q")
            for place in range(len(grid.fixed.shunt_bus)):
                fixed += shunt_p[:, place].sum(axis=1) / 1e3
            for place in self._head_shunts.tolist():
                head_p += shunt_p[:, place] / 1e3
                head_q += shunt_q[:, place] / 1e3
        flow = Flow(
            voltage_pu=voltage,
            line_loading=line_loading,
            trafo_loading=trafo_loading,
            trafo_p_kw=trafo_p,
            trafo_lv_p_kw=trafo_lv_p,
            trafo_lv_q_kvar=trafo_lv_q,
            head_p_kw=head_p,
            head_q_kvar=head_q,
            losses_kw=losses / 1e3,
            fixed_kw=fixed,
            voltage_unbalance=unbalance,
            neutral_a=neutral,
            trafo_neutral_a=trafo_neutral,
        )
        if reasons and failed is not None:
            failed.update(reasons)
            blank(flow, reasons)
        return flow

    def _parts(self, power: Array, own: Array, column: int) -> tuple[Array, Array]:
        """Power of the constant-power loads, and of the constant-impedance and -current ones that follow
        them, from all power and the loads' own.
        """
        loads = self.network.grid.loads
        z, i = loads.z_share[:, column, np.newaxis], loads.i_share[:, column, np.newaxis]
        extra = np.concatenate([(own * z)[:, self._with_z], (own * i)[:, self._with_i]], axis=1)
        return np.concatenate([power - own * (z + i), extra], axis=1), extra

    def _watts(self, power: Power) -> dict[str, NDArray[Any]]:
        """Specified powers in W and var, in the shape that power-grid-model takes."""
        phases = slice(None) if self.three_phase else 0
        names = ("p_specified", "q_specified")
        return {n: np.ascontiguousarray(x[:, :, phases] * 1e3) for n, x in zip(names, power, strict=True)}

    def _positions(self, positions: Positions) -> Update:
        """Tap positions and admittances of shunts."""
        fixed, taps = self.network.grid.fixed, positions.tap[:, self.circuit.trafo]
        unknown = np.iinfo(np.int8).min  # leaves it unchanged
        taps = np.where(self.network.grid.trafos.tap_side[self.circuit.trafo] >= 0, taps, unknown)
        update: Update = {ComponentType.transformer: {"tap_pos": np.ascontiguousarray(taps, np.int8)}}
        if len(fixed.shunt_bus):
            g, b = positions.shunt * fixed.shunt_g_s, positions.shunt * fixed.shunt_b_s
            update[ComponentType.shunt] = {"g1": g, "b1": b, "g0": g, "b0": b}
        return {kind: columns for kind, columns in update.items() if len(self._ids[kind])}

    def _solve(self, update: Update, reasons: dict[int, str]) -> dict[Any, Any]:
        """Solve a batch with iterative current, and the cases that do not converge with Newton-Raphson;
        ``reasons`` is filled with the reasons of cases that fail with both.
        """
        cases = len(update[self._load]["p_specified"])
        if cases == 1:
            one = self._calculate_one(update)
            if one is not None:
                return one
        result, failed = self._calculate(update, CalculationMethod.iterative_current)
        if failed:
            again = np.array(sorted(failed))
            some = {
                kind: {name: values[again] for name, values in columns.items()}
                for kind, columns in update.items()
            }
            repeated, why = self._calculate(some, CalculationMethod.newton_raphson)
            reasons.update({int(again[case]): reason for case, reason in sorted(why.items())})
            for kind, names in self._wanted.items():
                for name in names:
                    result[kind][name][again] = repeated[kind][name]
        return result

    def _calculate_one(self, update: Update) -> dict[Any, Any] | None:
        """A single case, which costs half of a batch of one; None if it does not converge.

        The numbers are those of a batch. power-grid-model keeps updated values, so everything that
        may change is updated here, and a batch updates all of it, too.
        """
        if not update[self._load]["p_specified"].shape[1]:
            return None
        for kind, columns in update.items():
            if kind not in self._tables:
                self._tables[kind] = cast(Any, initialize_array("update", kind, len(self._ids[kind])))
                self._tables[kind]["id"] = self._ids[kind]
            for name, values in columns.items():
                self._tables[kind][name] = values[0]
        try:
            self._single.update(update_data={kind: self._tables[kind] for kind in update})
            result = self._single.calculate_power_flow(
                symmetric=not self.three_phase,
                error_tolerance=ERROR_TOLERANCE_PU,
                max_iterations=MAX_ITERATIONS,
                calculation_method=CalculationMethod.iterative_current,
                output_component_types=list(self._wanted),
            )
        except PowerGridError:
            return None
        return {
            kind: {name: np.ascontiguousarray(result[kind][name])[np.newaxis] for name in names}
            for kind, names in self._wanted.items()
        }

    def _calculate(self, update: Update, method: CalculationMethod) -> tuple[dict[Any, Any], dict[int, str]]:
        """One batch with one method, and the reasons of the cases that failed."""
        cases, loads = update[self._load]["p_specified"].shape[:2]
        given = {kind: columns for kind, columns in update.items() if kind is not self._load or loads}
        if not given:
            return self._without_loads(cases, method), {}
        result = self._model.calculate_power_flow(
            symmetric=not self.three_phase,
            error_tolerance=ERROR_TOLERANCE_PU,
            max_iterations=MAX_ITERATIONS,
            calculation_method=method,
            update_data=cast(Any, given),
            threading=self.threads if cases >= THREADS_FROM else -1,
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


def faults_of(network: Network) -> list[str]:
    """Elements that power-grid-model can't represent, a sentence each."""
    grid = network.grid
    lines, trafos = grid.lines, grid.trafos
    faults = lines_without_impedance(network, "power-grid-model") + in_delta(grid, "power-grid-model")
    faults += holding_voltage(grid, "power-grid-model")
    ends = "can't be represented with the solver power-grid-model"
    for k in np.flatnonzero(lines.from_closed | lines.to_closed):
        if lines.g1_s[k] and not lines.c1_f[k]:
            faults.append(f"line '{lines.name[k]}' {ends}: it has a conductance without capacitance")
    for k in np.flatnonzero(trafos.hv_closed | trafos.lv_closed):
        name, shift, group = trafos.name[k], trafos.shift_degree[k], str(trafos.vector_group[k])
        if shift % 30:
            faults.append(f"trafo '{name}' {ends}: shift_degree = {shift:g}, must be a multiple of 30")
        if not grid.three_phase:
            continue
        clock = round(shift / 30)
        odd = group.lower() in ("dyn", "yzn")
        if not odd and group.lower() != "ynyn":
            faults.append(
                f"trafo '{name}' {ends}: vector_group = '{group}', in three phases Dyn, YNyn and Yzn are"
            )
        elif clock % 2 != odd:
            kind = "odd" if odd else "even"
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


def _inputs(network: Network, c: Circuit, with_z: Ints, with_i: Ints) -> dict[ComponentType, NDArray[Any]]:
    """The circuit as power-grid-model's input, in SI units. Loads: constant power at every connection
    point, then the constant-impedance and the constant-current parts of those that have them.
    """
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
    loads = table(kind, len(grid.loads.bus) + len(with_z) + len(with_i))
    buses = np.concatenate([grid.loads.bus, grid.loads.bus[with_z], grid.loads.bus[with_i]])
    loads["node"], loads["status"] = node[buses], 1
    loads["type"] = np.repeat(
        [LoadGenType.const_power, LoadGenType.const_impedance, LoadGenType.const_current],
        [len(grid.loads.bus), len(with_z), len(with_i)],
    )
    loads["p_specified"], loads["q_specified"] = 0.0, 0.0

    gen_kind = ComponentType.asym_gen if grid.three_phase else ComponentType.sym_gen
    gens = table(gen_kind, len(grid.fixed.gen_bus))
    gens["node"], gens["status"], gens["type"] = node[grid.fixed.gen_bus], 1, LoadGenType.const_power
    power = slice(None) if grid.three_phase else 0
    gens["p_specified"] = grid.fixed.gen_p_kw[:, power] * 1e3
    gens["q_specified"] = grid.fixed.gen_q_kvar[:, power] * 1e3

    shunts = table(ComponentType.shunt, len(grid.fixed.shunt_bus))
    shunts["node"], shunts["status"] = node[grid.fixed.shunt_bus], 1
    shunts["g1"] = shunts["g0"] = grid.fixed.shunt_g_s * grid.fixed.shunt_step
    shunts["b1"] = shunts["b0"] = grid.fixed.shunt_b_s * grid.fixed.shunt_step

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
    side, step = t.tap_side[k], t.tap_step_percent[k] / 100
    array["u1"] = np.where(side == 0, t.rated_hv_kv[k], t.ratio_hv_kv[k]) * 1e3
    array["u2"] = np.where(side == 1, t.rated_lv_kv[k], t.ratio_lv_kv[k]) * 1e3
    array["sn"] = sn
    series = short_circuit(t.vk_percent[k], t.vkr_percent[k])
    iron = t.pfe_kw[k] * 1e3 / sn
    shunt = iron - 1j * np.sqrt(np.maximum((t.i0_percent[k] / 100) ** 2 - iron**2, 0))
    bend = 1 + series * shunt / 4  # from pandapower's T circuit to the pi circuit of the same behaviour
    series, shunt = series * bend, shunt / bend
    array["uk"], array["pk"] = np.sign(t.vk_percent[k]) * np.abs(series), series.real * sn
    array["i0"], array["p0"] = np.abs(shunt), shunt.real * sn
    array["i0_zero_sequence"], array["p0_zero_sequence"] = 0.0, 0.0  # the earthing has it, see below
    array["clock"] = clock
    odd = clock % 2 == 1
    array["winding_from"] = np.where(odd, WindingType.delta, WindingType.wye_n)
    array["winding_to"] = WindingType.wye_n
    array["tap_side"], array["tap_pos"], array["tap_nom"] = (
        np.maximum(side, 0),
        t.tap_pos[k],
        t.tap_neutral[k],
    )
    ends = t.tap_min[k], t.tap_max[k]  # the other way round they count down
    array["tap_min"], array["tap_max"] = np.where(step < 0, ends[::-1], ends)
    array["tap_size"] = np.abs(step) * np.where(side == 0, t.rated_hv_kv[k], t.rated_lv_kv[k]) * 1e3
    z0 = short_circuit(t.vk0_percent[k], t.vkr0_percent[k])
    if network.three_phase:
        rx = t.mag0_rx[k]
        magnetising = t.mag0_percent[k] / 100 * t.vk0_percent[k] / 100 * (rx + 1j) / np.sqrt(rx**2 + 1)
        hv_part = t.si0_hv_partial[k] * z0
        seen = (1 - t.si0_hv_partial[k]) * z0 + hv_part * magnetising / (hv_part + magnetising)
        admittance = yzn_admittance(z0, t.si0_hv_partial[k], np.asarray(magnetising, complex))
        zigzag = np.char.lower(t.vector_group[k].astype(np.str_)) == "yzn"
        with np.errstate(divide="ignore"):
            seen = np.where(zigzag, 1 / np.where(zigzag, admittance, 1), seen)
        earthing = (np.where(odd, seen, z0) - series) / 3 * ((t.ratio_lv_kv[k] * 1e3) ** 2 / sn)
        array["r_grounding_to"], array["x_grounding_to"] = earthing.real, earthing.imag
    return array
