"""A controller in the aggregator's place, in plain HELICS: what evgrid's strategy `tou` does on PG&E's EV2-A.

    evgrid ports SCENARIO --federate aggregator --helics .
    python tou_controller.py aggregator.json

The file has all names, units and times. An EV charges if the cheaper hours before it departs do not suffice.
Full hours lie on steps, and the chargers report at each (communication.telemetry).
"""

import json
import sys
from pathlib import Path

import helics as h
import numpy as np

PRICE = np.array([0] * 15 + [1] + [2] * 5 + [1] * 3)  # off-peak, part-peak, peak, by hour of the day

config = json.loads(Path(sys.argv[1]).read_text())
start, steps, period_s = (
    np.datetime64(config["tags"]["start"]),
    int(config["tags"]["steps"]),
    config["period"],
)
hour = start.astype("datetime64[h]")  # slots of one price from this full hour until a week after the run
price = PRICE[(hour.astype(int) + np.arange(np.ceil(steps * period_s / 3600) + 169).astype(int)) % 24]
first = np.flatnonzero(np.diff(price, prepend=-1))
edges_s = 3600.0 * np.append(first, len(price)) - (start - hour) / np.timedelta64(1, "s")

federate = h.helicsCreateCombinationFederateFromConfig(sys.argv[1])
fleet = {name: h.helicsFederateGetInputByTarget(federate, f"fleet/{name}")
         for name in ("plugged", "p_max", "time_left", "time_needed")}  # fmt: skip
setpoint = h.helicsFederateGetEndpoint(federate, "aggregator/setpoint")
h.helicsFederateEnterExecutingMode(federate)
try:
    for step in range(steps):
        h.helicsFederateRequestNextStep(federate)
        now_s = step * period_s
        plugged, p_max_kw, left_s, needed_s = (
            np.array(h.helicsInputGetVector(taken)) for taken in fleet.values()
        )
        slot = np.searchsorted(edges_s, now_s, "right") - 1
        cheaper_s = np.append(0.0, np.cumsum((price[first] < price[first[slot]]) * np.diff(edges_s)))
        later_s = np.interp(now_s + left_s, edges_s, cheaper_s) - np.interp(now_s, edges_s, cheaper_s)
        share = np.clip((needed_s - later_s) / period_s, 0.0, 1.0)
        power_kw = np.where(share >= 1.0, np.inf, share * p_max_kw)  # +inf: as fast as the EV can
        h.helicsEndpointSendBytes(setpoint, np.where(plugged > 0.5, power_kw, 0.0).tobytes())
    h.helicsFederateRequestTime(federate, 2 * steps * period_s)  # it stays until all have ended
except Exception as error:
    h.helicsFederateGlobalError(federate, 1, f"tou_controller: {error}")
    raise
h.helicsFederateDestroy(federate)
