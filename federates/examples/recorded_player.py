"""Writes the file with which HELICS' own player takes the system's place: recorded frequency and regulation.

    evgrid ports SCENARIO --federate system --helics .
    python recorded_player.py system.json recorded.csv player.json
    helics_player --config-file=player.json

The columns of the CSV file are time (s from the run's start), frequency (Hz) and regulation (-1 to 1); each
value holds until the next row, and that at its end counts in a step. All members have the same.
"""

import json
import sys
from pathlib import Path

import numpy as np

config = json.loads(Path(sys.argv[1]).read_text())
recorded = np.genfromtxt(sys.argv[2], delimiter=",", names=True)
steps, period_s, offset_s = int(config["tags"]["steps"]), config["period"], config["offset"]

points = []
for step in range(steps):
    row = max(np.searchsorted(recorded["time"], (step + 1) * period_s) - 1, 0)  # that holds at the step's end
    for entry in config["publications"]:
        value = float(recorded[entry["key"].split("/")[1]][row])
        points.append(
            {
                "key": entry["key"],
                "type": entry["type"],
                "time": step * period_s + offset_s,
                "value": str([value] * int(entry["tags"]["length"])),
            }
        )
Path(sys.argv[3]).write_text(json.dumps(config | {"points": points, "stop": f"{2 * steps * period_s}s"}))
