"""Speed of the fleet kernel: ns per plugged-in EV and tick, beside the time to copy what it touches.

Both are measured in one run, in turns, on the clock of the wall and with the same threads: a
machine that does something else meanwhile shows in both, and the best of all ticks is printed, too.
Touched, per plugged-in EV: its share of a block of STATE (68 B, read and written), its set-point (8 B) where
managed, and its slot of power (8 B); with a kind an EV, its constants too.

The last cases have all physics on (the detailed step), and 40 % of the EVs plugged in: quadratic
losses, volt-var at a voltage that asks for some, volt-watt, trips, permission, temperature with heating,
ramp limit, pilots, emissions, and ageing. What a tick touches of a plugged-in EV: its share of the blocks
of STATE and PHYSICS (68 and 72 B), its set-point, voltage, active and reactive power (8 B each). Ageing is
brought up to date every 15 min, and where an EV's power changes its sign, which touches 128 B more: a
twentieth of the EVs do so in a tick, more often than under RegD at 4 s; in the last case, all of them do.

Memory is what a FleetModel holds per EV with all of that on, an aggregator and telemetry: all of its arrays
that have an entry an EV, and the blocks of its state. An EV's sessions come on top.

    python benchmarks/fleet_kernel.py
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from evgrid.battery.charging import derive_kinds, tapers
from evgrid.battery.laws import REASONS
from evgrid.battery.records import KIND, Kinds
from evgrid.core.jit import THREADS, in_threads
from evgrid.core.model import Array, Connections, MemoryRecorder
from evgrid.fleet import degradation
from evgrid.fleet.battery import BIDIRECTIONAL
from evgrid.fleet.commands import Commands
from evgrid.fleet.extras import Extras
from evgrid.fleet.kernels.lanes import LANES, STATE, blocked, blocks_of, columns_of, lay_out
from evgrid.fleet.kernels.one_ev import age
from evgrid.fleet.kernels.records import FUNCTIONS, OPTIONS, PHYSICS, Details, Results, SessionTable, Tick
from evgrid.fleet.kernels.records import Fleet as FleetState
from evgrid.fleet.kernels.step import step
from evgrid.fleet.model import FleetModel
from evgrid.fleet.recording import FleetRecording, SessionResults
from evgrid.fleet.sessions import COLUMNS, fleet_tables
from evgrid.fleet.telemetry import Telemetry
from evgrid.inverter_functions.kernels import prepare
from evgrid.scenario import scenario_from
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, parameters

EVS, MEMBERS, STEP_S = 100_000, 1000, 4.0

STATE_BYTES = blocked(STATE).itemsize // LANES
PHYSICS_BYTES = blocked(PHYSICS).itemsize // LANES
"""An EV's share of a block."""

TURN = 25
"""Ticks, and copies, that follow each other before it's the other's turn."""

SMOKE: dict[str, Any] = {"evs": 2000, "seconds": 0.01}
"""Arguments of :func:`rows` for a run of seconds, whose figures say nothing."""


class Fleet:
    """EVs that stay plugged in below their taper, over ``MEMBERS`` members with a connection an EV."""

    def __init__(self, evs: int, managed: bool, kinds: int, plugged: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        members = min(MEMBERS, evs)
        self.evs, self.managed, self.time_s = evs, managed, 0.0
        rows = np.zeros(kinds, KIND)
        for name, value in {
            "capacity_kwh": 60, "soc_target": 0.9, "soc_floor": 0.2, "charge_kw": 7.4,
            "charge_b": 1 / 0.9 - 1, "discharge_kw": 7.4, "discharge_b": 0.1,
        }.items():  # fmt: skip
            rows[name] = value
        rows["capacity_kwh"] += np.arange(kinds) / max(kinds, 1)
        curves, rows["curve"] = tapers(np.full(kinds, 0.8))
        self.kinds = Kinds(rows, curves)
        derive_kinds(self.kinds)
        kind_of = (np.arange(evs) % kinds).astype(np.int32)
        member = np.arange(evs) * members // evs
        shuffled = np.lexsort((rng.random(evs), member))
        places, state = lay_out(
            np.searchsorted(member, np.arange(members + 1)), (3 * shuffled).astype(np.int32),
            np.zeros(evs, bool), 3 * evs,
        )  # fmt: skip
        self.cursor = 0
        self.fleet = FleetState(places, state, columns_of(STATE, state), self.kinds)
        arrival_s = np.where(rng.random(evs) < plugged, 0.0, 9e5)
        self.sessions = SessionTable(
            np.arange(evs, dtype=np.int32), arrival_s, np.full(evs, 1e6), rng.uniform(0.45, 0.7, evs),
            np.full(evs, np.nan), kind_of, np.argsort(arrival_s, kind="stable").astype(np.int32),
            np.zeros((evs, 5)), np.zeros((evs, len(REASONS) + 3)),
        )  # fmt: skip
        self.setpoint = rng.uniform(-7.4, 7.4, evs)
        nothing = np.zeros(0)
        self.results = Results(
            np.zeros(3 * evs), np.zeros(3 * evs), np.zeros(members), nothing, nothing, np.zeros(evs),
            np.zeros(evs),
        )  # fmt: skip
        self.rates = np.array([0.3, 0.1, 0.4]) / 3600.0
        self.gone = np.zeros((0, 2), np.int64)
        self.tick()

    def tick(self) -> float:
        """One tick; returns how long it took, s."""
        self.setpoint *= -1.0  # keeps the state of charge where it is
        begin = perf_counter()
        tick = Tick(self.time_s, STEP_S, self.managed, self.setpoint, self.rates)
        self.cursor, self.gone = step(
            tick, self.sessions, self.fleet, None, self.results, self.cursor, self.gone
        )
        took = perf_counter() - begin
        self.time_s += STEP_S
        return took

    @property
    def bytes_touched(self) -> int:
        """Per EV and tick."""
        return STATE_BYTES + 8 * self.managed + 8 + KIND.itemsize * (len(self.kinds.rows) > 1)


class AllPhysics(Fleet):
    """The same EVs with everything on; the power of one in ``turns_every`` changes its sign in a tick."""

    def __init__(self, evs: int, turns_every: int = 20) -> None:
        self.turns_every = turns_every
        rating = Rating(8.2, 7.4, 7.4)
        functions = LocalFunctions(volt_var="ieee_1547_b", trips="II", volt_watt="ieee_1547_b")
        self.parameters = np.concatenate([parameters(functions, rating), parameters(None, rating)])
        prepare(self.parameters, STEP_S)
        self.options = np.zeros(1, OPTIONS)[0]
        for name, value in {
            "throughput_kws": 1e12, "discharging_s": 1e12, "ramp_kw_per_s": 10.0, "least_a": 6.0,
            "pilot_a": 0.1, "volt": 230.0, "standby_kw": 0.066, "heating_k_per_kw": 5.0,
            "cooling_per_s": 1e-4,
            "thermal": 1, "freezing_c": 0.0, "mild_c": 10.0, "cold_c_rate": 0.2, "mild_c_rate": 0.5,
            "warm_c": 45.0, "hot_c": 55.0, "functions": 1, "emissions": 1, "ageing": 1, "away_c_rate": 0.3,
        }.items():  # fmt: skip
            self.options[name] = value
        rows = np.zeros(evs, PHYSICS)
        rows["capable"] = rows["phases"] = 1
        self.functions, self.ageing = (
            np.zeros(evs, FUNCTIONS),
            degradation.new_state(np.full(evs, "nmc")),
        )
        self.voltage = np.random.default_rng(1).uniform(0.95, 1.05, 3 * evs)
        self.hertz = np.full(min(MEMBERS, evs), 60.0)
        self.rows = rows
        super().__init__(evs, True, 1, 0.4)

    def tick(self) -> float:
        if self.time_s == 0.0:
            for way in ("charge", "discharge"):
                for name, value in zip("abc", BIDIRECTIONAL, strict=True):
                    self.kinds.rows[f"{way}_{name}"] = value
            derive_kinds(self.kinds)
            blocks = blocks_of(PHYSICS, self.rows, self.fleet.state)
            self.fleet = self.fleet._replace(columns=self.fleet.columns + columns_of(PHYSICS, blocks))
            self.details = Details(
                self.options, blocks, self.parameters, np.zeros(1, np.int32), self.functions, self.ageing,
                degradation.LAWS,
            )  # fmt: skip
        self.setpoint[round(self.time_s / STEP_S) % self.turns_every :: self.turns_every] *= -1.0
        begin = perf_counter()
        tick = Tick(
            self.time_s, STEP_S, True, self.setpoint, self.rates, self.voltage, self.hertz, True, 15.0
        )
        self.cursor, self.gone = step(
            tick, self.sessions, self.fleet, self.details, self.results, self.cursor, self.gone
        )
        end_s = self.time_s + STEP_S
        if self.time_s % 900.0 + STEP_S >= 900.0:
            in_threads(
                lambda low, high: age(low, high, self.fleet, self.details, end_s, 15.0),
                len(self.fleet.places.filled), 16,
            )  # fmt: skip
        took = perf_counter() - begin
        self.time_s += STEP_S
        return took

    @property
    def bytes_touched(self) -> int:
        return STATE_BYTES + PHYSICS_BYTES + 4 * 8


def _copy(source: Array, target: Array) -> float:
    """Copy in threads; returns how long it took, s."""
    begin = perf_counter()
    in_threads(lambda low, high: np.copyto(target[low:high], source[low:high]), len(source))
    return perf_counter() - begin


def benchmark(evs: int, seconds: float) -> list[dict[str, float | str]]:
    """Rows of figures, one a case."""
    rows: list[dict[str, float | str]] = []
    for case, fleet in (
        ("uncontrolled", lambda: Fleet(evs, False, 1)),
        ("set-points of both signs", lambda: Fleet(evs, True, 1)),
        ("set-points, a kind an EV", lambda: Fleet(evs, True, evs)),
        ("all physics on", lambda: AllPhysics(evs)),
        ("all physics on", lambda: AllPhysics(10 * evs)),
        ("all physics on, all turn in every tick", lambda: AllPhysics(evs, 1)),
    ):
        rows.append({"case": case, **measure(fleet(), seconds)})
    return rows


def measure(fleet: Fleet, seconds: float) -> dict[str, float]:
    """Time the ticks of a fleet, and copies of the bytes that they touch, in turns, for about ``seconds``."""
    evs = int(fleet.fleet.places.filled.sum())
    source = np.ones(fleet.bytes_touched * evs // 8)
    target = np.ones_like(source)
    kernel, copy = [], []
    end = perf_counter() + seconds
    start = fleet.fleet.state.copy()
    while perf_counter() < end or len(kernel) < 2 * TURN:
        if not fleet.managed:  # else the EVs would be full after a while
            fleet.fleet.state[:] = start
        kernel += [fleet.tick() for _ in range(TURN)]
        copy += [_copy(source, target) for _ in range(TURN)]
    assert fleet.fleet.places.filled.sum() == evs
    return {
        "evs": fleet.evs,
        "plugged": evs,
        "kernel_ns_per_ev": float(np.median(kernel)) / evs * 1e9,
        "best_ns_per_ev": min(kernel) / evs * 1e9,
        "bytes_per_ev": fleet.bytes_touched,
        "copy_ns_per_ev": float(np.median(copy)) / evs * 1e9,
        "best_copy_ns_per_ev": min(copy) / evs * 1e9,
        "ratio": float(np.median(kernel) / np.median(copy)),
        "best_ratio": min(kernel) / min(copy),
    }


def memory_per_ev(evs: int) -> dict[str, float]:
    """Bytes that a FleetModel with all physics on holds per EV, and per session."""
    scenario = scenario_from(
        {
            "name": "memory", "time": {"start": "2026-01-15T12:00", "duration": "1h", "step": 4.0},
            "feeder": {"network": "x"},
            "fleet": {
                "count": evs,
                "charger": {
                    "bidirectional": 0.5, "ramp_kw_per_s": 10, "minimum_current_a": 6, "pilot_step_a": 0.1,
                    "apparent_kva": 8.2,
                    "functions": {"volt_var": "ieee_1547_b", "trips": "II", "volt_watt": "ieee_1547_b"},
                },
                "permission": {},
                "vehicle": {"temperature": {"ambient": 15}, "degradation": {}, "standby_kw": 0.066},
            },
        }
    )  # fmt: skip
    of = np.arange(evs)
    connections = Connections(
        of.astype(np.str_), of, (of % 3).astype(np.int8), 0 * of, 0 * of + 1, tuple("abc")
    )
    table, sessions = fleet_tables(scenario, connections)
    model = FleetModel(scenario, connections, table, sessions, MemoryRecorder(), True)
    assert model._extras is not None
    held = {id(array): array for array in _arrays(model)}.values()
    own = sum(array.nbytes for array in held if len(array) in (evs, evs + 1))
    blocks = model._fleet.state, model._extras.details.physics, *model._fleet.places
    own += sum(array.nbytes for array in blocks)
    of_sessions = [*held, *(getattr(sessions, name) for name in COLUMNS)]
    per_session = sum(array.nbytes for array in of_sessions if len(array) == len(sessions))
    return {"bytes_per_ev": own / evs, "bytes_per_session": per_session / len(sessions)}


_PARTS = Commands, Extras, FleetRecording, SessionResults, Telemetry


def _arrays(holder: Any) -> Iterator[Array]:
    """The arrays that a model, and its parts, hold."""
    for value in vars(holder).values():
        if isinstance(value, np.ndarray) and value.ndim:
            yield value
        elif isinstance(value, dict):
            yield from (each for each in value.values() if isinstance(each, np.ndarray))
        elif isinstance(value, Details | Results | SessionTable):
            yield from (each for each in value if isinstance(each, np.ndarray) and each.ndim)
        elif isinstance(value, _PARTS):
            yield from _arrays(value)


def rows(evs: int = EVS, seconds: float = 6.0) -> list[dict[str, Any]]:
    """For the table of all benchmarks: the kernel against copying the bytes that it touches."""
    memory = memory_per_ev(min(evs, 20_000))
    return [
        {
            "what": f"fleet kernel, {row['evs']:,} EVs, {row['plugged']:,} plugged in, {row['case']}, "
            f"{THREADS} threads",
            "figure": f"{row['kernel_ns_per_ev']:.1f} (best {row['best_ns_per_ev']:.1f}) ns per EV and tick",
            "against": f"copying the {row['bytes_per_ev']} bytes it touches",
            "reference": f"{row['copy_ns_per_ev']:.1f} (best {row['best_copy_ns_per_ev']:.1f}) ns",
            "ratio": row["ratio"],
        }
        for row in benchmark(evs, seconds)
    ] + [
        {
            "what": "fleet model, all physics on: memory",
            "figure": f"{memory['bytes_per_ev']:.0f} B per EV",
            "against": "a session",
            "reference": f"{memory['bytes_per_session']:.0f} B",
        }
    ]


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(["fleet_kernel"])
