"""OpenDSS on the tables of a pandapower net: a source, a Dyn transformer, and lines in three phases."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def build_circuit(dss: Any, net: Any) -> None:
    """Build the circuit of a net without its loads; bus ``b0`` is that of the stiff source."""
    trafo = net.trafo.iloc[0]
    run = dss.Text.Command
    run("clear")
    run(
        f"new circuit.case basekv={trafo.vn_hv_kv} pu={net.ext_grid.vm_pu[0]} bus1=b0 phases=3 "
        "z1=[1e-9 1e-9] z0=[1e-9 1e-9] z2=[1e-9 1e-9]"
    )
    x = np.sqrt(trafo.vk_percent**2 - trafo.vkr_percent**2)
    kva = 1e3 * trafo.sn_mva
    run(
        f"new transformer.t phases=3 windings=2 xhl={x} %loadloss={trafo.vkr_percent} ppm_antifloat=0 "
        f"wdg=1 bus=b0 conn=delta kv={trafo.vn_hv_kv} kva={kva} "
        f"wdg=2 bus=b{trafo.lv_bus} conn=wye kv={trafo.vn_lv_kv} kva={kva}"
    )
    for line in net.line.itertuples():
        run(
            f"new line.l{line.Index} bus1=b{line.from_bus} bus2=b{line.to_bus} phases=3 units=km "
            f"length={line.length_km} r1={line.r_ohm_per_km} x1={line.x_ohm_per_km} c1=0 "
            f"r0={line.r0_ohm_per_km} x0={line.x0_ohm_per_km} c0=0"
        )


def solve(dss: Any, net: Any) -> NDArray[np.float64]:
    """Solve the circuit; magnitudes of the low-voltage buses' voltages, (bus, phase), pu of nominal."""
    trafo = net.trafo.iloc[0]
    run = dss.Text.Command
    run(f"set voltagebases=[{trafo.vn_hv_kv} {trafo.vn_lv_kv}]")
    run("calcvoltagebases")
    run("solve")
    assert dss.Solution.Converged()
    volts = np.empty((len(net.bus) - 1, 3))
    for bus in range(1, len(net.bus)):
        dss.Circuit.SetActiveBus(f"b{bus}")
        volts[bus - 1] = np.abs(np.array(dss.Bus.Voltages()).view(complex))
    return volts / (1e3 * trafo.vn_lv_kv / np.sqrt(3))
