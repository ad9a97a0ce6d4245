"""A process of evgrid with the fleet of three toy federates: toy_member.py HOST PORT TICKS."""

import sys
import time
from pathlib import Path

import numpy as np

from evgrid.core.model import Clock
from evgrid.federation import run_federation
from evgrid.federation.control import Member

sys.path.insert(0, str(Path(__file__).parents[1] / "federation"))
from conftest import SIZES, Toy

host, port, ticks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def toys(slow_s=0.0):
    """System, fleet and feeder; the fleet takes a while."""

    def act(time_s, inputs):
        time.sleep(slow_s)
        return {"fleet/p": np.full((2, 3, 3), inputs["system/frequency"][0])}

    return [
        Toy("system", outputs=["system/frequency"]),
        Toy("fleet", ["system/frequency"], ["fleet/p"], act=act),
        Toy("feeder", ["fleet/p"]),
    ]


clock = Clock(np.datetime64("2026-01-15T12:00"), 4.0, ticks)
member = Member("fleet", host, port, "toys", 20.0)
run_federation(toys(0.005), SIZES, clock, own=["fleet"], external=["system"], elsewhere=member)
part = Path(sys.argv[4])
part.write_bytes(b"part")
member.deliver(part, {})
member.close()
