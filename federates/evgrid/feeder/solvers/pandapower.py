"""The reference solver: pandapower's own power flow, one case after the other.

``runpp`` for balanced feeders, ``runpp_3ph`` for three-phase ones. The net is solved as
:mod:`~evgrid.feeder.equivalents` leaves it, but for two things, so that both solvers solve the same
problem: loads and fixed generation are one element each (asymmetric star elements in three phases,
because ``runpp_3ph`` drops those of any other type), and sources are stiff in the negative and zero
sequence, as they are in the positive one.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.errors import NetworkError, PowerFlowError
from evgrid.feeder.grid import serving
from evgrid.feeder.solvers.interface import (
    Flow,
    Label,
    Positions,
    Power,
    at_odds,
    blank,
    case_name,
    holding_voltage,
    lines_without_impedance,
    not_converged,
    phase_powers,
)

if TYPE_CHECKING:
    from evgrid.feeder.networks import Network

STIFF_MVA = 1e9
"""Short-circuit power of the sources in the negative and zero sequence, MVA."""

MISMATCH_MVA = 1e-9
"""Largest power mismatch at a bus, MVA."""


class PandapowerSolver:
    """Solves case by case with pandapower."""

    name = "pandapower"
    balance_tolerance = 1e-4
    in_time = False
    newton_cases = 0
    note = ""
    """``runpp_3ph`` stops at a mismatch of 0.03 W a bus, which can't be set."""

    def __init__(self, network: Network, unbalance: bool = True) -> None:
        """Prepare a copy of the net.

        Raises
        ------
        NetworkError
            Naming the elements that pandapower can't represent in three phases.

        """
        import pandapower

        self.network = network
        self.three_phase = network.three_phase
        self.unbalance = unbalance and self.three_phase
        faults = faults_of(network)
        if faults:
            raise NetworkError.of(network.source, faults)
        if not self.three_phase:
            self.balance_tolerance = 1e-6
        self._net = net = copy.deepcopy(network.net)
        loads = network.grid.loads
        index = net.bus.index.to_numpy()[loads.bus]
        gens = net.bus.index.to_numpy()[network.grid.fixed.gen_bus]
        for table in ("load", "asymmetric_load", "sgen", "asymmetric_sgen", "gen"):
            net[table] = net[table].iloc[:0].copy()
        if self.three_phase:
            for bus, delta in zip(index, loads.delta, strict=True):
                pandapower.create_asymmetric_load(net, bus, type="delta" if delta else "wye")
            for bus, delta in zip(gens, network.grid.fixed.gen_delta, strict=True):
                pandapower.create_asymmetric_sgen(net, bus, type="delta" if delta else "wye")
            net.ext_grid["s_sc_max_mva"] = STIFF_MVA
            net.ext_grid["rx_max"] = 0.1
            net.ext_grid["x0x_max"], net.ext_grid["r0x0_max"] = 1.0, 0.1
        else:
            for bus in index:
                pandapower.create_load(net, bus, 0.0, type="wye")
            node = network.topology.node
            at_head = np.isin(node[network.grid.fixed.gen_bus], node[network.grid.sources.bus])
            volts = network.grid.fixed.gen_held_pu
            self._held = network.grid.fixed.holds & ~at_head
            for bus in gens[~self._held]:
                pandapower.create_sgen(net, bus, 0.0)
            for bus, held_pu in zip(gens[self._held], volts[self._held], strict=True):
                # the limits, which are not enforced, only keep their reactive powers from being rounded
                pandapower.create_gen(net, bus, 0.0, vm_pu=held_pu, min_q_mvar=-1.0, max_q_mvar=1.0)
        position = {bus: place for place, bus in enumerate(net.bus.index)}
        self._shunts = serving(net, "shunt", position, network.grid.buses.in_service).index
        self._taps = np.flatnonzero(network.grid.trafos.tap_side >= 0)
        self._with_z = np.flatnonzero(network.grid.loads.z_share.any(axis=1))
        self._z_shunts = [
            pandapower.create_shunt(net, bus, 0.0, vn_kv=net.bus.at[bus, "vn_kv"])
            for bus in index[self._with_z]
        ]
        lines, trafos = network.grid.lines, network.grid.trafos
        self._line_rating = lines.rating_ka
        self._trafo_rating = tuple(
            trafos.rating_kva / (np.sqrt(3) * volts) / 1e3
            for volts in (trafos.rated_hv_kv, trafos.rated_lv_kv)
        )

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
        own = (p_kw, q_kvar) if nominal is None else nominal
        fixed = self.network.grid.fixed
        reasons: dict[int, str] = {}
        rows = list[dict[str, Any]]()
        for case in range(len(p_kw)):
            gen = (
                (fixed.gen_p_kw, fixed.gen_q_kvar)
                if generation is None
                else (generation[0][case], generation[1][case])
            )
            if positions is not None:
                self._net.shunt.loc[self._shunts, "step"] = positions.shunt[case]
                at = self._net.trafo.index[self._taps]
                self._net.trafo.loc[at, "tap_pos"] = positions.tap[case, self._taps]
            try:
                rows.append(self._solve_one((p_kw[case], q_kvar[case]), (own[0][case], own[1][case]), gen))
            except PowerFlowError as error:
                if failed is None:
                    raise not_converged("pandapower", {case: str(error)}, label) from error
                reasons[case] = str(error)
                rows.append({name: np.zeros(shape) for name, shape in self._shapes().items()})
        flow = Flow(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
        if failed is not None:
            failed.update(reasons)
            blank(flow, reasons)
        return flow

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        grid = self.network.grid
        buses, lines, trafos = len(grid.buses.name), len(grid.lines.name), len(grid.trafos.name)
        phases, unbalance = len(grid.phases), int(self.unbalance)
        return {
            "voltage_pu": (buses, phases),
            "line_loading": (lines, phases),
            "trafo_loading": (trafos, phases),
            "trafo_p_kw": (trafos,),
            "trafo_lv_p_kw": (trafos, phases),
            "trafo_lv_q_kvar": (trafos, phases),
            "head_p_kw": (phases,),
            "head_q_kvar": (phases,),
            "losses_kw": (),
            "fixed_kw": (),
            "voltage_unbalance": (buses * unbalance,),
            "neutral_a": (lines * unbalance,),
            "trafo_neutral_a": (trafos * unbalance,),
            **({"connection_pu": (len(grid.loads.bus), phases)} if grid.loads.delta.any() else {}),
            **({"generator_pu": (len(grid.fixed.gen_bus), phases)} if grid.fixed.gen_delta.any() else {}),
            **({"held_kvar": (len(grid.fixed.gen_bus),)} if grid.fixed.holds.any() else {}),
        }

    def _solve_one(self, load: Power, own: Power, generation: Power) -> dict[str, Any]:
        """One case. Raises PowerFlowError with only the reason as its text."""
        import pandapower
        from pandapower.powerflow import LoadflowNotConverged

        net, (p_kw, q_kvar) = self._net, load
        loads = self.network.grid.loads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if self.three_phase:
                    for phase, name in enumerate("abc"):
                        net.asymmetric_load[f"p_{name}_mw"] = p_kw[:, phase] / 1e3
                        net.asymmetric_load[f"q_{name}_mvar"] = q_kvar[:, phase] / 1e3
                        net.asymmetric_sgen[f"p_{name}_mw"] = generation[0][:, phase] / 1e3
                        net.asymmetric_sgen[f"q_{name}_mvar"] = generation[1][:, phase] / 1e3
                    pandapower.runpp_3ph(net, tolerance_mva=MISMATCH_MVA, max_iteration=100)
                else:
                    net.load["p_mw"], net.load["q_mvar"] = p_kw[:, 0] / 1e3, q_kvar[:, 0] / 1e3
                    made = (part[~self._held, 0] / 1e3 for part in generation)
                    net.sgen["p_mw"], net.sgen["q_mvar"] = made
                    net.gen["p_mw"] = generation[0][self._held, 0] / 1e3
                    if loads.voltage_dependent:
                        self._set_shares(load, own, generation)
                    self._run_balanced()
            except (LoadflowNotConverged, np.linalg.LinAlgError, FloatingPointError) as error:
                raise PowerFlowError(str(error)) from error
        results = self._results(generation)
        if self.three_phase:
            self._add_at_head(results, load, generation)
        voltage = results["voltage_pu"]
        if np.isnan(voltage[self.network.topology.energised]).any():
            raise PowerFlowError("a voltage is no number")
        if loads.voltage_dependent:
            volts = voltage[loads.bus].mean(axis=1)
            more = loads.z_share[:, 0] * (volts**2 - 1) + loads.i_share[:, 0] * (volts - 1)
            results["fixed_kw"] += (own[0].sum(axis=1) * more).sum()
        return results

    def _add_at_head(self, results: dict[str, Any], load: Power, generation: Power) -> None:
        """Add the power at the nodes of sources, which ``res_ext_grid_3ph`` leaves out."""
        grid, node = self.network.grid, self.network.topology.node
        for sign, (p, q), bus, delta in (
            (1, load, grid.loads.bus, grid.loads.delta),
            (-1, generation, grid.fixed.gen_bus, grid.fixed.gen_delta),
        ):
            for k in np.flatnonzero(np.isin(node[bus], node[grid.sources.bus])):
                head_p, head_q = phase_powers(p[[k]], q[[k]], bool(delta[k]))
                results["head_p_kw"] += sign * head_p[0]
                results["head_q_kvar"] += sign * head_q[0]

    def _set_shares(self, load: Power, own: Power, generation: Power) -> None:
        """Constant impedance as shunts, constant current as the share of it at each node.

        pandapower takes the plain mean of the loads' shares at a node, of all power there; so every
        load of a node is given the node's true share.
        """
        net, grid, node = self._net, self.network.grid, self.network.topology.node
        at_load, at_gen = node[grid.loads.bus], node[grid.fixed.gen_bus]
        nodes = self.network.topology.nodes
        for column, (letter, unit) in enumerate((("p", "mw"), ("q", "mvar"))):
            mine = own[column].sum(axis=1)
            z, i = mine * grid.loads.z_share[:, column], mine * grid.loads.i_share[:, column]
            net.shunt.loc[self._z_shunts, f"{letter}_{unit}"] = z[self._with_z] / 1e3
            rest = load[column].sum(axis=1) - z
            net.load[f"{letter}_{unit}"] = rest / 1e3
            total = np.bincount(at_load, rest, nodes)
            total -= np.bincount(at_gen, generation[column].sum(axis=1), nodes)
            current = np.bincount(at_load, i, nodes)
            share = np.divide(current, total, out=np.zeros(nodes), where=current != 0)
            net.load[f"const_i_{letter}_percent"] = 100 * share[at_load]

    def _run_balanced(self) -> None:
        import pandapower

        try:
            pandapower.runpp(self._net, calculate_voltage_angles=True, tolerance_mva=MISMATCH_MVA)
        except FloatingPointError:  # its first guess divides by the reactance of each line
            pandapower.runpp(
                self._net, calculate_voltage_angles=True, tolerance_mva=MISMATCH_MVA, init="flat"
            )

    def _results(self, generation: Power) -> dict[str, Any]:
        net, grid = self._net, self.network.grid
        suffix = "_3ph" if self.three_phase else ""
        letters = [f"{letter}_" for letter in "abc"] if self.three_phase else [""]

        def per_phase(table: str, pattern: str) -> Array:
            """Columns of a result table, (element, phase); elements without current give 0."""
            if not len(net[table]):
                return np.zeros((0, len(letters)))
            content = net[f"res_{table}{suffix}"]
            columns = [content[pattern.replace("*", letter)].to_numpy(dtype=np.float64) for letter in letters]
            return np.stack(columns, axis=1)

        def loading(table: str, ends: tuple[str, str], ratings: tuple[Array, ...]) -> Array:
            parts = [
                np.nan_to_num(per_phase(table, f"i_*{end}_ka")) / rating[:, np.newaxis]
                for end, rating in zip(ends, ratings, strict=True)
            ]
            return np.asarray(np.maximum(*parts))

        voltage = per_phase("bus", "vm_*pu")
        trafo_p = np.nan_to_num(per_phase("trafo", "p_*hv_mw")) * 1e3
        losses = sum(
            float(np.nansum(per_phase(table, f"p_*{end}_mw")))
            for table, ends in (("line", ("from", "to")), ("trafo", ("hv", "lv")))
            for end in ends
        )
        shunt = (voltage[grid.fixed.shunt_bus] * grid.buses.nominal_kv[grid.fixed.shunt_bus, np.newaxis]) ** 2
        shunt_s = grid.fixed.shunt_g_s * net.shunt.loc[self._shunts, "step"].to_numpy()
        return {
            "voltage_pu": np.where(voltage > 0, voltage, np.nan),
            "line_loading": loading("line", ("from", "to"), (self._line_rating, self._line_rating)),
            "trafo_loading": loading("trafo", ("hv", "lv"), self._trafo_rating),
            "trafo_p_kw": trafo_p.sum(axis=1),
            "trafo_lv_p_kw": np.nan_to_num(per_phase("trafo", "p_*lv_mw")) * -1e3,
            "trafo_lv_q_kvar": np.nan_to_num(per_phase("trafo", "q_*lv_mvar")) * -1e3,
            "head_p_kw": np.nansum(per_phase("ext_grid", "p_*mw"), axis=0) * 1e3,
            "head_q_kvar": np.nansum(per_phase("ext_grid", "q_*mvar"), axis=0) * 1e3,
            "losses_kw": np.float64(losses * 1e3),
            "fixed_kw": np.float64((shunt.mean(axis=1) * shunt_s).sum() * 1e3 - generation[0].sum()),
            **self._unbalance(),
            **self._between_phases(voltage),
            **self._held_kvar(),
        }

    def _phasors(self) -> NDArray[np.complex128]:
        """Voltages of all buses and phases, pu, (phase, bus)."""
        bus = self._net.res_bus_3ph
        return np.stack([
            bus[f"vm_{x}_pu"].to_numpy() * np.exp(1j * np.deg2rad(bus[f"va_{x}_degree"].to_numpy()))
            for x in "abc"
        ])  # fmt: skip

    def _held_kvar(self) -> dict[str, Any]:
        """Reactive powers by which generators hold their voltages."""
        if not self.network.grid.fixed.holds.any():
            return {}
        found = np.zeros(len(self._held))
        found[self._held] = self._net.res_gen.q_mvar.to_numpy() * 1e3
        return {"held_kvar": found}

    def _between_phases(self, voltage: Array) -> dict[str, Any]:
        """Voltages at the connection points and generators, where some are between the phases."""
        grid, found = self.network.grid, dict[str, Any]()
        for name, buses, delta in (
            ("connection_pu", grid.loads.bus, grid.loads.delta),
            ("generator_pu", grid.fixed.gen_bus, grid.fixed.gen_delta),
        ):
            if delta.any():
                volts, found[name] = self._phasors()[:, buses[delta]], voltage[buses]
                found[name][delta] = np.abs(volts - np.roll(volts, -1, axis=0)).T / np.sqrt(3)
        return found

    def _unbalance(self) -> dict[str, Any]:
        """Voltage unbalance and neutral currents, from the tables' phasors."""
        if not self.unbalance:
            return {name: np.zeros(0) for name in ("voltage_unbalance", "neutral_a", "trafo_neutral_a")}
        net = self._net
        a, b, c = self._phasors()
        turn = np.exp(2j * np.pi / 3)
        with np.errstate(invalid="ignore", divide="ignore"):
            unbalance = np.abs(a + turn**2 * b + turn * c) / np.abs(a + turn * b + turn**2 * c)

        line = net.res_line_3ph["i_n_from_ka"].to_numpy(dtype=np.float64) if len(net.line) else np.zeros(0)
        trafo, lv = net.res_trafo_3ph, self.network.grid.trafos.lv_bus
        current = np.zeros(len(lv), complex)
        phase_kv = self.network.grid.buses.nominal_kv[lv] / np.sqrt(3)
        for x, volts in zip("abc", (a, b, c), strict=True):
            power = (trafo[f"p_{x}_lv_mw"] + 1j * trafo[f"q_{x}_lv_mvar"]).to_numpy() if len(lv) else 0.0
            with np.errstate(invalid="ignore", divide="ignore"):
                current += np.nan_to_num(np.conj(power / (volts[lv] * phase_kv)))
        return {
            "voltage_unbalance": unbalance,
            "neutral_a": np.nan_to_num(line) * 1e3,
            "trafo_neutral_a": np.abs(current) * 1e3,
        }


def faults_of(network: Network) -> list[str]:
    """Elements that pandapower can't represent, a sentence each."""
    faults = lines_without_impedance(network, "pandapower") + at_odds(network, "pandapower")
    if not network.three_phase:
        return faults
    faults += holding_voltage(network.grid, "pandapower", " in three phases")
    trafos, loads = network.grid.trafos, network.grid.loads
    faults += [
        f"trafo '{trafos.name[k]}' can't be represented with the solver pandapower: "
        f"vector_group = '{trafos.vector_group[k]}', in three phases Dyn, YNyn and Yzn are"
        for k in np.flatnonzero(trafos.hv_closed | trafos.lv_closed)
        if trafos.vector_group[k].lower() not in ("dyn", "ynyn", "yzn")
    ]
    return faults + [
        f"load '{loads.name[k]}' can't be represented with the solver pandapower: it depends on the "
        "voltage, in three phases only constant power is"
        for k in np.flatnonzero((loads.z_share + loads.i_share).any(axis=1))
    ]
