"""The basic step: EVs that follow their set-points within the limits of battery and EVSE, and nothing else.

Ramp limits, standby consumption, temperature, permission to discharge and the EVSE's local functions are in
:mod:`.detailed_step`, which runs where a scenario asks for any of them.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.charging import advance
from evgrid.battery.records import Kinds, Row
from evgrid.core.jit import next_part, njit
from evgrid.fleet.kernels.lanes import LANES, STATE, lift, lower
from evgrid.fleet.kernels.records import Fleet, Results, SessionTable, Tick
from evgrid.fleet.kernels.sessions import close_session, next_session
from evgrid.fleet.kernels.slots import adds_at_once, clear_part, hold_block, put, put_block
from evgrid.fleet.kernels.steady import WORK, follow, refill_kinds, settle


@njit
def advance_staying(
    counters: NDArray[np.int64], thread: int, tick: Tick, fleet: Fleet, results: Results,
    changing: NDArray[np.int64],
) -> None:  # fmt: skip
    """Advance those of the parts that this thread takes that neither arrive nor leave.

    One path without branches on data serves those whose power is constant over the tick, whatever a
    set-point can ask: nearly all. ``changing``, (stretch + 1,), takes the number of those left to
    :func:`advance_changing`, and is not 0 at its end if there are any. Where parts hold whole members, power
    is added up; else it is written to ``mean_kw``.
    """
    places, state = fleet.places, fleet.state
    step_s, end_s = tick.step_s, tick.begin_s + tick.step_s
    managed, setpoint_kw, kinds = tick.managed, tick.setpoint_kw, fleet.kinds.rows
    power_kw, mean_kw = results.power_kw, results.mean_kw
    at_once = adds_at_once(results)
    rows = np.zeros(1, STATE)
    work, kind_at = np.zeros(1, WORK), np.full(LANES, -1, np.int32)
    work[0]["asked_kw"][:] = inf
    while True:
        w = work[0]
        part = next_part(counters, thread, len(places.parts) - 1)
        if part < 0:
            break
        exclusive = places.exclusive[part]
        if at_once and not exclusive:  # before anything is added to a slot
            clear_part(places.parts[part], places.parts[part + 1], places, state, power_kw)
        for stretch in range(places.parts[part], places.parts[part + 1]):
            count = places.filled[stretch]
            for begin in range(0, count, LANES):
                block = state[(places.first_lane[stretch] + begin) // LANES]
                n = min(LANES, count - begin)
                refill_kinds(w, kind_at, block, kinds)
                if managed:
                    for i in range(n):
                        w["asked_kw"][i] = setpoint_kw[np.uint32(block["ev"][i])]
                follow(w, step_s, end_s, block, n)
                if settle(w, step_s, 0.0, block, n):
                    for i in range(n):
                        if w["steady"][i] != 0.0:
                            continue
                        w["net_kw"][i] = 0.0
                        if block["departure_s"][i] <= end_s or block["fresh"][i]:
                            changing[stretch] += 1
                            changing[-1] = 1
                            continue
                        row = rows[0]
                        lift(block, i, row)
                        asked_kw = setpoint_kw[row["ev"]] if managed else inf
                        left_s = row["departure_s"] - tick.begin_s
                        w["net_kw"][i] = _follow(row, fleet.kinds, asked_kw, step_s, left_s) / step_s
                        lower(row, block, i)
                if at_once:
                    put_block(block, n, exclusive, w["net_kw"], power_kw)
                else:
                    hold_block(block, n, w["net_kw"], mean_kw, power_kw)


@njit
def advance_changing(
    changing: NDArray[np.int64], tick: Tick, sessions: SessionTable, fleet: Fleet, results: Results
) -> None:
    """Advance those that arrive or leave within the tick, even repeatedly.

    ``changing``, (stretch,): how many they are. ``results.plugged`` takes, by member, what they are short of
    a whole tick. Those that left keep their lane, with session -1.
    """
    places, end_s = fleet.places, tick.begin_s + tick.step_s
    scratch = np.zeros(1, STATE)
    for stretch in range(len(places.filled)):
        if not changing[stretch]:
            continue
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block, i = fleet.state[lane // LANES], lane % LANES
            if block["departure_s"][i] > end_s and not block["fresh"][i]:
                continue
            row = scratch[0]
            lift(block, i, row)
            ev = row["ev"]
            asked_kw = tick.setpoint_kw[ev] if tick.managed else inf
            net_kws, plugged_s = 0.0, 0.0
            while True:
                from_s = max(sessions.arrival_s[row["session"]], tick.begin_s)
                until_s = min(row["departure_s"], end_s)
                plugged_s += until_s - from_s
                left_s = row["departure_s"] - from_s
                net_kws += _follow(row, fleet.kinds, asked_kw, until_s - from_s, left_s)
                row["fresh"] = 0
                if row["departure_s"] > end_s:
                    break
                close_session(row, tick.rates, sessions.outcome)
                if not next_session(row, fleet.kinds, sessions, end_s):
                    break
            lower(row, block, i)
            member = np.searchsorted(places.member_start, ev, "right") - 1
            results.plugged[member] += plugged_s / tick.step_s - 1.0
            results.mean_kw[ev] = net_kws / tick.step_s
            put(row["slot"], row["spread"], results.mean_kw[ev], results.power_kw)


@njit
def _follow(row: Row, kinds: Kinds, setpoint_kw: float, seconds: float, left_s: float) -> float:
    """Advance one EV by the exact way, book what it drew and gave, and return the net of it, kWs."""
    kind = kinds.rows[row["kind"]]
    curve = kinds.curves[kind["curve"]]
    move = advance(kind, curve, row["soc"], setpoint_kw, seconds, left_s, row["guarded"])
    row["soc"] = move.soc
    row["guarded"] = move.guarded
    row["drawn_kws"] += move.drawn_kws
    row["given_kws"] += move.given_kws
    row["loss_kws"] += move.loss_kws
    return move.drawn_kws - move.given_kws
