"""Speed of the fleet kernel: ns per plugged-in EV and tick, beside the time to copy what it touches.

Both are measured in one run, alternately, in CPU time, so that the ratio holds on a busy
machine. Touched, per
plugged-in EV: its state (64 B, read and written), its set-point (8 B) where managed, its entry in
the list of active EVs (4 B), and its connection's three power slots (24 B); with a kind an EV, its
constants too.

    python benchmarks/fleet_kernel.py
"""

from __future__ import annotations

from time import thread_time

import numpy as np

from evgrid.fleet.kernels import KIND, STATE, derive_kinds, step

EVS, MEMBERS, STEP_S = 100_000, 1000, 4.0


class Fleet:
    """EVs that stay plugged in below their taper, over ``MEMBERS`` members with a connection an EV."""

    def __init__(self, evs: int, managed: bool, kinds: int) -> None:
        rng = np.random.default_rng(0)
        members = min(MEMBERS, evs)
        self.evs, self.managed, self.time_s = evs, managed, 0.0
        self.kinds = np.zeros(kinds, KIND)
        for name, value in {
            "capacity_kwh": 60, "soc_target": 0.9, "soc_floor": 0.2, "taper_soc": 0.8, "charge_kw": 7.4,
            "charge_b": 1 / 0.9 - 1, "discharge_kw": 7.4, "discharge_b": 0.1,
        }.items():  # fmt: skip
            self.kinds[name] = value
        self.kinds["capacity_kwh"] += np.arange(kinds) / max(kinds, 1)
        derive_kinds(self.kinds)
        kind_of = (np.arange(evs) % kinds).astype(np.int32)
        state = np.zeros(evs, STATE)
        state["session"] = -1
        member = np.arange(evs) * members // evs
        self.member_start = np.searchsorted(member, np.arange(members + 1))
        shuffled = np.lexsort((rng.random(evs), member))
        state["slot"], state["slots"] = 3 * shuffled, 1
        self.state, self.active, self.count, self.cursor = state, np.zeros(evs, np.uint32), 0, 0
        self.sessions = (
            np.arange(evs, dtype=np.int32), np.zeros(evs), np.full(evs, 1e6), rng.uniform(0.45, 0.7, evs),
            np.full(evs, np.nan), kind_of, np.arange(evs, dtype=np.int32),
        )  # fmt: skip
        self.setpoint = rng.uniform(-7.4, 7.4, evs)
        self.power, self.plugged = np.zeros(3 * evs), np.zeros(members)
        self.outcome, self.nothing = np.zeros((evs, 5)), np.zeros(0)
        self.tick()

    def tick(self) -> float:
        """One tick; returns how long it took, s."""
        self.setpoint *= -1.0  # keeps the state of charge where it is
        begin = thread_time()
        self.count, self.cursor = step(
            self.time_s, STEP_S, 0.3, 0.1, self.managed, self.setpoint, self.kinds, *self.sessions,
            self.cursor, self.state, self.member_start, self.active, self.count, self.power, self.plugged,
            self.outcome, self.nothing, self.nothing,
        )  # fmt: skip
        took = thread_time() - begin
        self.time_s += STEP_S
        return took

    @property
    def bytes_touched(self) -> int:
        """Per EV and tick."""
        return STATE.itemsize + 8 * self.managed + 4 + 24 + KIND.itemsize * (len(self.kinds) > 1)


def benchmark(evs: int = EVS, ticks: int = 300) -> list[dict[str, float | str]]:
    """Rows of figures, one a case."""
    rows: list[dict[str, float | str]] = []
    for case, managed, kinds in (
        ("uncontrolled", False, 1),
        ("set-points of both signs", True, 1),
        ("set-points, a kind an EV", True, evs),
    ):
        fleet = Fleet(evs, managed, kinds)
        source = np.ones(fleet.bytes_touched * evs // 8)
        target = np.ones_like(source)
        kernel, copy = [], []
        for _ in range(ticks):
            kernel.append(fleet.tick())
            begin = thread_time()
            np.copyto(target, source)
            copy.append(thread_time() - begin)
        assert fleet.count == evs
        rows.append(
            {
                "case": case,
                "evs": evs,
                "kernel_ns_per_ev": float(np.median(kernel)) / evs * 1e9,
                "best_ns_per_ev": min(kernel) / evs * 1e9,
                "bytes_per_ev": fleet.bytes_touched,
                "copy_ns_per_ev": float(np.median(copy)) / evs * 1e9,
                "ratio": float(np.median(kernel) / np.median(copy)),
            }
        )
    return rows


if __name__ == "__main__":
    for row in benchmark():
        print("  ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in row.items()))  # fmt: skip
