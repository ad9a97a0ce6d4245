"""The reference solver: pandapower's own power flow, one case after the other.

``runpp`` for balanced feeders, ``runpp_3ph`` for three-phase ones. The net is solved as it is, but
for two things, so that both solvers answer the same question: the loads are the connection points
(as asymmetric star loads in three phases, because ``runpp_3ph`` drops loads of any other type), and
sources are stiff in the negative and zero sequence, as they are in the positive one.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np

from evgrid.errors import NetworkError
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import Flow, Label, case_name, not_converged
from evgrid.model import Array

STIFF_MVA = 1e9
"""Short-circuit power of the sources in the negative and zero sequence, MVA."""

MISMATCH_MVA = 1e-9
"""Largest power mismatch at a bus, MVA."""


class PandapowerSolver:
    """Solves case by case with pandapower."""

    balance_tolerance = 1e-4
    """``runpp_3ph`` stops at a mismatch of 0.03 W a bus, which can't be set."""

    def __init__(self, network: Network) -> None:
        """Prepare a copy of the net.

        Raises
        ------
        NetworkError
            Naming what pandapower can't represent in three phases.

        """
        import pandapower

        self.network = network
        self.three_phase = network.three_phase
        if self.three_phase:
            self._refuse()
        else:
            self.balance_tolerance = 1e-6
        self._net = net = copy.deepcopy(network.net)
        loads = network.grid.loads
        index = net.bus.index.to_numpy()[loads.bus]
        net.load = net.load.iloc[:0].copy()
        net.asymmetric_load = net.asymmetric_load.iloc[:0].copy()
        if self.three_phase:
            for bus in index:
                pandapower.create_asymmetric_load(net, bus, type="wye")
            net.ext_grid["s_sc_max_mva"] = STIFF_MVA
            net.ext_grid["rx_max"] = 0.1
            net.ext_grid["x0x_max"], net.ext_grid["r0x0_max"] = 1.0, 0.1
            for table in ("sgen", "asymmetric_sgen"):
                net[table]["type"] = "wye"
        else:
            for bus in index:
                pandapower.create_load(net, bus, 0.0, type="wye")
        lines, trafos = network.grid.lines, network.grid.trafos
        self._line_rating = np.where(lines.rating_ka > 0, lines.rating_ka, np.inf)
        self._trafo_rating = tuple(
            trafos.rating_kva / (np.sqrt(3) * volts) / 1e3
            for volts in (trafos.rated_hv_kv, trafos.rated_lv_kv)
        )

    def _refuse(self) -> None:
        trafos = self.network.grid.trafos
        faults = [
            f"trafo '{trafos.name[k]}' can't be represented with the solver pandapower: "
            f"vector_group = '{trafos.vector_group[k]}', in three phases Dyn, YNyn and Yzn are"
            for k in np.flatnonzero(trafos.hv_closed | trafos.lv_closed)
            if trafos.vector_group[k].lower() not in ("dyn", "ynyn", "yzn")
        ]
        if faults:
            raise NetworkError(
                "\n".join(
                    [f"network {self.network.source}: {len(faults)} fault(s)", *(f"  {f}" for f in faults)]
                )
            )

    def solve(self, p_kw: Array, q_kvar: Array, label: Label = case_name) -> Flow:
        """See :class:`evgrid.feeder.solvers.Solver`."""
        rows = [self._solve_one(p_kw[case], q_kvar[case], case, label) for case in range(len(p_kw))]
        return Flow(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})

    def _solve_one(self, p_kw: Array, q_kvar: Array, case: int, label: Label) -> dict[str, Any]:
        import pandapower
        from pandapower.powerflow import LoadflowNotConverged

        net = self._net
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if self.three_phase:
                    for phase, name in enumerate("abc"):
                        net.asymmetric_load[f"p_{name}_mw"] = p_kw[:, phase] / 1e3
                        net.asymmetric_load[f"q_{name}_mvar"] = q_kvar[:, phase] / 1e3
                    pandapower.runpp_3ph(net, tolerance_mva=MISMATCH_MVA, max_iteration=100)
                else:
                    net.load["p_mw"], net.load["q_mvar"] = p_kw[:, 0] / 1e3, q_kvar[:, 0] / 1e3
                    self._run_balanced()
            except (LoadflowNotConverged, np.linalg.LinAlgError) as error:
                raise not_converged("pandapower", {case: str(error)}, label) from error
        results = self._results()
        if np.isnan(results["voltage_pu"][self.network.topology.energised]).any():
            raise not_converged("pandapower", {case: "a voltage is no number"}, label)
        return results

    def _run_balanced(self) -> None:
        import pandapower

        try:
            pandapower.runpp(self._net, calculate_voltage_angles=True, tolerance_mva=MISMATCH_MVA)
        except FloatingPointError:  # its first guess divides by the reactance of each line
            pandapower.runpp(
                self._net, calculate_voltage_angles=True, tolerance_mva=MISMATCH_MVA, init="flat"
            )

    def _results(self) -> dict[str, Any]:
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
                np.nan_to_num(per_phase(table, f"i_*{end}_ka")).max(axis=1) / rating
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
        return {
            "voltage_pu": np.where(voltage > 0, voltage, np.nan),
            "line_loading": loading("line", ("from", "to"), (self._line_rating, self._line_rating)),
            "trafo_loading": loading("trafo", ("hv", "lv"), self._trafo_rating),
            "trafo_p_kw": trafo_p.sum(axis=1),
            "head_p_kw": np.nansum(per_phase("ext_grid", "p_*mw"), axis=0) * 1e3,
            "head_q_kvar": np.nansum(per_phase("ext_grid", "q_*mvar"), axis=0) * 1e3,
            "losses_kw": np.float64(losses * 1e3),
            "fixed_kw": np.float64(
                (shunt.mean(axis=1) * grid.fixed.shunt_g_s).sum() * 1e3 - grid.fixed.gen_p_kw.sum()
            ),
        }
