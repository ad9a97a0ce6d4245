"""Writes the European LV feeder as an OpenDSS circuit, with the load of a run of evgrid as load shapes.

    evgrid run SCENARIO --set record.connections=true -o own.nc
    python european_lv_circuit.py own.nc FOLDER         # FOLDER/circuit.dss and the load by step

The loads are named like evgrid's connection points, which is how opendss_feeder.py finds them.
"""

import sys
from pathlib import Path

import numpy as np
import pandapower.networks as networks

import evgrid

folder = Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
net = networks.ieee_european_lv_asymmetric()
trafo, source = net.trafo.iloc[0], net.ext_grid.iloc[0]
reactance = np.sqrt(trafo.vk_percent**2 - trafo.vkr_percent**2)
lines = [
    "clear",
    f"new circuit.european_lv bus1=b{trafo.hv_bus} basekv={trafo.vn_hv_kv} pu={source.vm_pu} phases=3 "
    "z1=[1e-9 1e-9] z0=[1e-9 1e-9] z2=[1e-9 1e-9]",
    f"new transformer.trafo phases=3 windings=2 xhl={reactance} %loadloss={trafo.vkr_percent} "
    "ppm_antifloat=0 "
    f"wdg=1 bus=b{trafo.hv_bus} conn=delta kv={trafo.vn_hv_kv} kva={1e3 * trafo.sn_mva} "
    f"wdg=2 bus=b{trafo.lv_bus} conn=wye kv={trafo.vn_lv_kv} kva={1e3 * trafo.sn_mva}",
]
for line in net.line.itertuples():
    lines.append(
        f"new line.l{line.Index} bus1=b{line.from_bus} bus2=b{line.to_bus} phases=3 units=km "
        f"length={line.length_km} r1={line.r_ohm_per_km} x1={line.x_ohm_per_km} c1=0 "
        f"r0={line.r0_ohm_per_km} x0={line.x0_ohm_per_km} c0=0"
    )
bus_of = {str(name): bus for bus, name in net.bus["name"].items()}
with evgrid.open_results(sys.argv[1]) as result:
    step_s = (result["time"].values[1] - result["time"].values[0]) / np.timedelta64(1, "s")
    power = [result[name][0].sum("phase") for name in ("connection_power_kw", "connection_reactive_kvar")]
    for place, name in enumerate(result["connection"].values):
        table = np.column_stack([values.transpose("time", "connection")[:, place] for values in power])
        np.savetxt(folder / f"{name}.csv", table, "%.9g", delimiter=",")
        lines.append(
            f"new loadshape.{name} npts={len(table)} sinterval={step_s} useactual=yes "
            f"pmult=[file={name}.csv, col=1] qmult=[file={name}.csv, col=2]"
        )
        node = "abc".index(str(result["connection_phase"].values[place])) + 1
        bus = bus_of[str(result["connection_bus"].values[place])]
        lines.append(
            f"new load.{name} bus1=b{bus}.{node} phases=1 kv={trafo.vn_lv_kv / np.sqrt(3)} kw=1 kvar=1 "
            f"duty={name} model=1 vminpu=0 vmaxpu=2"
        )
lines += [f"set voltagebases=[{trafo.vn_hv_kv} {trafo.vn_lv_kv}]", "calcvoltagebases"]
lines += [f"set mode=duty stepsize={step_s}s number=1 tolerance=1e-9 maxiterations=100 controlmode=off"]
(folder / "circuit.dss").write_text("\n".join(lines) + "\n")
