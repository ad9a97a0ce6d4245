"""Seconds of an episode of EV2Gym 2.0 and of its reset; run by an interpreter that has it, in an empty
folder.

``python ev2gym_episode.py CHARGERS STEPS``. The release on PyPI comes without its networks and its generator
of loads: a radial network of 34 nodes in its format, and uniformly distributed loads, take their place; the
power flow is its own. As many EVs come in a day as there are chargers, about. The first episode compiles,
the second counts.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

NODES = 34


class Loads:
    """In the place of EV2Gym's generator of loads."""

    def load(self) -> Loads:
        """The generator."""
        return self

    def sample_data(self, n_buses: int, n_steps: int, start_day: int, start_step: int) -> Any:
        """Loads, (step, bus) per unit of each bus's own."""
        return np.random.default_rng(start_step).random((n_steps, n_buses))


def main(chargers: int, steps: int) -> tuple[float, float]:
    """Seconds of the steps and of the reset of an episode."""
    package = Path(str(importlib.resources.files("ev2gym")))
    with contextlib.redirect_stdout(io.StringIO()):
        from ev2gym.models import grid  # type: ignore[import-not-found]
        from ev2gym.models.ev2gym_env import EV2Gym  # type: ignore[import-not-found]
        from ev2gym.rl_agent.reward import V2G_grid_full_reward  # type: ignore[import-not-found]
        from ev2gym.rl_agent.state import V2G_grid_state  # type: ignore[import-not-found]

    found = grid.pkg_resources.resource_filename
    grid.pkg_resources.resource_filename = lambda of, name: (
        __file__ if name.endswith(".pkl") else found(of, name)
    )
    grid.CustomUnpickler = lambda _: Loads()
    nodes = [f"{k},{int(k == 1)},{100 * (k > 1)},{50 * (k > 1)},1,0,0" for k in range(1, NODES + 1)]
    lines = [f"{k - 1 if k % 8 else k // 2},{k},0.15,0.04,0,1,1" for k in range(2, NODES + 1)]
    Path("nodes.csv").write_text("\n".join(["NODES,Tb,PD,QD,Pct,Ict,Zct", *nodes]))
    Path("lines.csv").write_text("\n".join(["FROM,TO,R,X,B,STATUS,TAP", *lines]))
    settings = yaml.safe_load((package / "example_config_files" / "V2Ggrid.yaml").read_text())
    settings |= {
        "number_of_charging_stations": chargers, "simulation_length": steps, "spawn_multiplier": 10,
        "ev_specs_file": str(package / "data" / "ev_specs_v2g_enabled2024.json"),
    }  # fmt: skip
    settings["network_info"] |= {"bus_info_file": "nodes.csv", "branch_info_file": "lines.csv"}
    Path("settings.yaml").write_text(yaml.safe_dump(settings))
    with contextlib.redirect_stdout(io.StringIO()):
        env = EV2Gym(
            "settings.yaml", seed=1, state_function=V2G_grid_state, reward_function=V2G_grid_full_reward
        )
        for episode in range(2):
            begin = time.perf_counter()
            env.reset(seed=episode)
            ready = time.perf_counter()
            action, env.done = np.full(env.number_of_ports, 0.5), False
            while not env.done:
                env.step(action)
    return time.perf_counter() - ready, ready - begin


if __name__ == "__main__":
    print(*main(int(sys.argv[1]), int(sys.argv[2])))
