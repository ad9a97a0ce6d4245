"""An OpenDSS circuit in the feeder's place: takes the EVs' power, gives voltages and powers.

    pip install dss-python helics
    evgrid ports SCENARIO --json > sheet.json
    evgrid ports SCENARIO --federate feeder --helics .
    python opendss_feeder.py feeder.json sheet.json circuit.dss

The circuit has a load for each connection point of evgrid's, of the same name; EVs are added beside them.
Its own load follows its own load shapes: the file ends with the mode of solution, such as
`set mode=duty stepsize=60s number=1`, and each step of the federate is one solution. One member.
"""

import json
import sys
from pathlib import Path

import helics as h
import numpy as np
from dss import DSS

config, sheet = (json.loads(Path(name).read_text()) for name in sys.argv[1:3])
steps, period_s = int(config["tags"]["steps"]), config["period"]
connections, phases = sheet["elements"]["connection"], sheet["elements"]["phase"]["name"]
if len(sheet["elements"]["member"]["name"]) != 1:
    sys.exit("opendss_feeder: a circuit is one member, the scenario has more")

DSS.Text.Command = f"redirect {Path(sys.argv[3]).resolve()}"
circuit = DSS.ActiveCircuit
nodes = {name: place for place, name in enumerate(circuit.AllNodeNames)}
at_node = []  # of each connection point and phase: position among the nodes, -1: the bus has not this phase
ev_load = []  # and name of the load of EVs, "" where the connection point has not this phase
for number, (name, own) in enumerate(zip(connections["name"], connections["phase"], strict=True)):
    circuit.SetActiveElement(f"load.{name}")
    bus = circuit.ActiveCktElement.BusNames[0].split(".")[0]
    for phase, label in enumerate(phases, 1):
        at_node.append(nodes.get(f"{bus}.{phase}", -1))
        ev_load.append(f"ev_{number}_{phase}" if label in own and at_node[-1] >= 0 else "")
        if ev_load[-1]:
            kv = connections["nominal_kv"][number] / np.sqrt(3)
            DSS.Text.Command = (
                f"new load.{ev_load[-1]} bus1={bus}.{phase} phases=1 kv={kv} kw=0 kvar=0 "
                "model=1 vminpu=0 vmaxpu=2"
            )
at_node = np.array(at_node)


def set_loads(p_kw: np.ndarray, q_kvar: np.ndarray) -> None:
    """Set the power of the EVs, (connection · phase,) each."""
    for name, p, q in zip(ev_load, p_kw, q_kvar, strict=True):
        if name:
            circuit.Loads.Name = name
            circuit.Loads.kW, circuit.Loads.kvar = p, q


def power_into(element: str) -> np.ndarray:
    """Active power into an element at its first terminal by phase, kW."""
    circuit.SetActiveElement(element)
    return np.array(circuit.ActiveCktElement.Powers)[: 2 * len(phases) : 2]


def solve() -> dict[str, np.ndarray]:
    """Solve the next step; the values of the feeder's ports."""
    circuit.Solution.Solve()
    if not circuit.Solution.Converged:
        raise RuntimeError("the power flow has not converged")
    voltage = np.array(circuit.AllBusVmagPu)
    trafos = sheet["elements"].get("trafo", {"name": []})["name"]
    return {
        "feeder/voltage": np.where(at_node >= 0, voltage[at_node], 0.0),
        "feeder/head_p": -power_into(f"vsource.{circuit.Vsources.AllNames[0]}"),
        "feeder/trafo_p": np.array([power_into(f"transformer.{name}").sum() for name in trafos]),
    }


federate = h.helicsCreateCombinationFederateFromConfig(sys.argv[1])
ev_p, ev_q = (h.helicsFederateGetInputByTarget(federate, key) for key in ("fleet/p", "fleet/q"))
outputs = {
    entry["key"]: h.helicsFederateGetPublication(federate, entry["key"]) for entry in config["publications"]
}
h.helicsFederateEnterExecutingMode(federate)
try:
    for _ in range(steps):
        h.helicsFederateRequestNextStep(federate)
        set_loads(h.helicsInputGetVector(ev_p), h.helicsInputGetVector(ev_q))
        values = solve()
        for key, publication in outputs.items():
            h.helicsPublicationPublishVector(publication, values[key].tolist())
    h.helicsFederateRequestTime(federate, 2 * steps * period_s)  # it stays until all have ended
except Exception as error:
    h.helicsFederateGlobalError(federate, 1, f"opendss_feeder: {error}")
    raise
h.helicsFederateDestroy(federate)
