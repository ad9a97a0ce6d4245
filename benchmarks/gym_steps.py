"""Environment steps a second of ``evgrid.gym.make_vec``, its members with a feeder, and of EV2Gym with its
own grid.

EV2Gym (``pip install ev2gym==2.0.0 pandapower numba psutil multicopula``) has dependencies of its own:
``EVGRID_EV2GYM_PYTHON`` names the interpreter of an environment that has it; without one its rows are left
out. Both take steps of 15 min through days with as many chargers, each with its own power flow of a balanced
feeder of 33 or 34 buses. ``python -m benchmarks gym_steps``.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SMOKE: dict[str, Any] = {"members": 2, "evs": 5, "hours": 1, "other": ""}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""

EPISODES = 3


def rows(
    members: int = 64, evs: int = 500, hours: int = 24, other: str | None = None
) -> list[dict[str, Any]]:
    """Steps a second, without and with the resets of the episodes, and where the time of a step goes."""
    import evgrid.gym

    scenario = {
        "name": "gym",
        "time": {"start": "2026-01-15T05:00", "duration": f"{hours}h", "step": "15min"},
        "ensemble": {"members": members, "seed": 1},
        "feeder": {"network": "case33bw", "base_load": {"source": "standard"}},
        "fleet": {"count": evs, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 1.0}},
        "aggregators": {"main": {"strategy": "tou"}},
        "communication": {"telemetry": "15min"},
        "tariff": "pge_ev2a",
        "record": {"buses": "none", "lines": "none"},
    }
    other = os.environ.get("EVGRID_EV2GYM_PYTHON", "") if other is None else other
    env = evgrid.gym.make_vec(scenario, reward={"cost": 1.0, "voltage_violations": 1.0})
    action = np.full(env.action_space.shape, 0.5, np.float32)
    days, steps = [], 4 * hours
    theirs: list[tuple[float, float]] = []
    for episode in range(EPISODES + 1):  # in turns, as others may use the machine; the first one compiles
        begin = time.perf_counter()
        env.reset(seed=episode)
        ready = time.perf_counter()
        for _ in range(steps):
            env.step(action)
        days.append((time.perf_counter() - ready, ready - begin))
        if other:
            theirs.append(_of_ev2gym(other, evs, steps))
    assert env.run is not None
    split = env.run.report.split_s
    env.close()
    own = np.median(days[1:], axis=0)
    what, count = f"evgrid.gym, {members} members x {evs} EVs, feeder of 33 buses", members * steps
    found = []
    if not other:
        reference, against = "", "EV2Gym: not installed (EVGRID_EV2GYM_PYTHON)"
    for name, seconds, of_other in (
        ("steps", own[0], 0),
        ("steps and resets", own.sum(), 1),
    ):
        row = {"what": f"{what}: {name}", "figure": f"{count / seconds:,.0f}/s"}
        if theirs:
            each = np.median([one[of_other] for one in theirs[1:]])
            reference, against = f"{steps / each:,.0f}/s", f"EV2Gym, {evs} chargers, its grid of 34 nodes"
            row["ratio"] = count / seconds / (steps / each)
        found.append(row | {"against": against, "reference": reference})
    parts = ", ".join(f"{name} {1e3 * s / steps:.1f}" for name, s in split.items() if name != "preparing")
    found.append(
        {"what": "a step of all members, ms (the agent's part counts as the aggregator's)", "figure": parts}
    )
    return found


def _of_ev2gym(python: str, evs: int, steps: int) -> tuple[float, float]:
    """Seconds of an episode of EV2Gym without and with its reset."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, Path(__file__).with_name("ev2gym_episode.py"), str(evs), str(steps)],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"EV2Gym failed: {done.stderr.strip()[-500:]}")
    stepping, reset = (float(value) for value in done.stdout.split()[-2:])
    return stepping, stepping + reset
