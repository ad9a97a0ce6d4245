"""A GridLAB-D model in the feeder's place: takes the EVs' power, gives voltages and powers.

    pip install gridlabd helics                # GridLAB-D's own Python package; it needs no HELICS inside
    evgrid ports SCENARIO --json > sheet.json
    evgrid ports SCENARIO --federate feeder --helics .
    python gridlabd_feeder.py feeder.json sheet.json feeder.glm

The model has a load for each connection point of evgrid's, of the same name, to whose constant power that of
the EVs is added, and a meter `head` at its swing bus. Its clock begins with the run and ends after it. One
member.
"""

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

import gridlabd
import helics as h

config, sheet = (json.loads(Path(name).read_text()) for name in sys.argv[1:3])
steps, period_s = int(config["tags"]["steps"]), config["period"]
connections, slots = sheet["elements"]["connection"], sheet["elements"]["phase"]["name"]
if len(sheet["elements"]["member"]["name"]) != 1:
    sys.exit("gridlabd_feeder: a model is one member, the scenario has more")
PHASES_OF = {slot: slot.upper() for slot in slots}  # "a": A; of a balanced feeder "abc": A, B and C alike

model = gridlabd.GridLabD()
model.setup_before_load()
if model.load(sys.argv[3]) != 0:
    sys.exit(f"gridlabd_feeder: GridLAB-D can't load {sys.argv[3]}")
model.global_setvar("complex_output_format", "RECT")  # the package misreads polar numbers
model.global_setvar("complex_format", "%+.12lg%+.12lg%c")
model.setup_after_load()


def get(name, quantity):
    """A property of an object."""
    code, value = model.get_property(name, quantity)
    if code != 0:
        raise RuntimeError(f"the model has no {name}.{quantity}")
    return value


ports = [  # of each connection point and slot of phases: load, its nominal voltage and its phases
    (name, 1e3 * kv / 3**0.5, [phase for phase in PHASES_OF[slot] if phase.lower() in own])
    for name, own, kv in zip(
        connections["name"], connections["phase"], connections["nominal_kv"], strict=True
    )
    for slot in slots
]
base = {(name, phase): get(name, f"constant_power_{phase}") for name, _, phases in ports for phase in phases}


def solve(until, p_kw, q_kvar):
    """Advance the model with the power of the EVs; the values of the feeder's ports."""
    for (name, _, phases), p, q in zip(ports, p_kw, q_kvar, strict=True):
        for phase in phases:
            power = base[name, phase] + 1e3 * complex(p, q) / len(phases)
            model.set_property(name, f"constant_power_{phase}", f"{power.real:.9f}{power.imag:+.9f}j")
    code, _ = model.step_to(until.isoformat(" "))
    if code != 0:
        raise RuntimeError(f"GridLAB-D stopped before {until}: {model.get_messages()[-1:]}")
    voltage = [sum(abs(get(name, f"voltage_{phase}")) for phase in phases) / len(phases) / nominal_v
               if phases else 0.0 for name, nominal_v, phases in ports]  # fmt: skip
    return {
        "feeder/voltage": voltage,
        "feeder/head_p": [sum(get("head", f"measured_power_{phase}").real for phase in PHASES_OF[slot]) / 1e3
                          for slot in slots],
        "feeder/trafo_p": [sum(get(name, f"power_in_{phase}").real for phase in "ABC") / 1e3
                           for name in sheet["elements"].get("trafo", {"name": []})["name"]],
    }  # fmt: skip


federate = h.helicsCreateCombinationFederateFromConfig(sys.argv[1])
ev_p, ev_q = (h.helicsFederateGetInputByTarget(federate, key) for key in ("fleet/p", "fleet/q"))
keys = [entry["key"] for entry in config["publications"]]
outputs = {key: h.helicsFederateGetPublication(federate, key) for key in keys}
h.helicsFederateEnterExecutingMode(federate)
try:
    now = datetime.fromisoformat(config["tags"]["start"])
    for _ in range(steps):
        h.helicsFederateRequestNextStep(federate)
        now += timedelta(seconds=period_s)
        values = solve(now, h.helicsInputGetVector(ev_p), h.helicsInputGetVector(ev_q))
        for key, publication in outputs.items():
            h.helicsPublicationPublishVector(publication, values[key])
    h.helicsFederateRequestTime(federate, 2 * steps * period_s)  # it stays until all have ended
except Exception as error:
    h.helicsFederateGlobalError(federate, 1, f"gridlabd_feeder: {error}")
    raise
h.helicsFederateDestroy(federate)
