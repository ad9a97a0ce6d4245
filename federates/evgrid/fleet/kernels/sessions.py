"""How sessions begin and end: who is plugged in, and what a session came to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.laws import soc_after_drive
from evgrid.battery.records import Floats, Kinds, Row
from evgrid.core.jit import njit
from evgrid.fleet.kernels.lanes import (
    ARRIVES,
    LANES,
    STATE,
    Blocks,
    Columns,
    Places,
    enter,
    in_use,
    lift,
    lower,
    quit_lane,
)
from evgrid.fleet.kernels.records import Fleet, SessionTable


@njit
def start_session(row: Row, kinds: Kinds, sessions: SessionTable, session: int) -> None:
    """Begin a session; its ``soc_arrival`` takes what it begins with where that follows from a drive.

    An EV that was plugged in before in the run, and whose session tells the energy driven since,
    arrives with what it left with, less that energy, but with ``LEAST_SOC`` at least.
    """
    before = session - 1
    drive_kwh = sessions.drive_kwh[session]
    if before >= 0 and sessions.ev[before] == sessions.ev[session] and drive_kwh == drive_kwh:
        capacity_kwh = kinds.rows[sessions.kind[session]]["capacity_kwh"]
        sessions.soc_arrival[session] = soc_after_drive(sessions.outcome[before, 0], drive_kwh, capacity_kwh)
    row["soc"] = sessions.soc_arrival[session]
    row["departure_s"] = sessions.departure_s[session]
    row["drawn_kws"] = 0.0
    row["given_kws"] = 0.0
    row["loss_kws"] = 0.0
    row["past_cost"] = 0.0
    row["kind"] = sessions.kind[session]
    row["session"] = session
    row["guarded"] = 0
    row["fresh"] = ARRIVES


@njit
def next_session(row: Row, kinds: Kinds, sessions: SessionTable, end_s: float) -> bool:
    """Begin the EV's next session if it arrives before ``end_s``; else it is away, with session -1."""
    session = row["session"] + 1
    if (
        session == len(sessions.ev)
        or sessions.ev[session] != row["ev"]
        or sessions.arrival_s[session] >= end_s
    ):
        row["session"] = -1
        return False
    start_session(row, kinds, sessions, session)
    return True


@njit
def close_session(row: Row, rates: Floats, outcome: Floats) -> None:
    """Write what a session came to: ``outcome`` (session, 5) is SOC, drawn, given, loss (kWh), cost."""
    session = row["session"]
    outcome[session, 0] = row["soc"]
    outcome[session, 1] = row["drawn_kws"] / 3600.0
    outcome[session, 2] = row["given_kws"] / 3600.0
    outcome[session, 3] = row["loss_kws"] / 3600.0
    outcome[session, 4] = row["past_cost"] + rates[0] * row["drawn_kws"] - rates[1] * row["given_kws"]


@njit
def close_sessions(fleet: Fleet, sessions: SessionTable, rates: Floats) -> None:
    """:func:`close_session` of all EVs plugged in, at the end of a run."""
    scratch = np.zeros(1, STATE)
    for lane in in_use(fleet.places):
        lift(fleet.state[lane // LANES], lane % LANES, scratch[0])
        close_session(scratch[0], rates, sessions.outcome)


@njit
def reprice(places: Places, state: Blocks, rates: Floats, to: Floats) -> None:
    """Change the rates at which the energy of those plugged in counts from now on; ``rates`` take ``to``.

    ``rates``, (2 or more,): price of energy drawn and of energy given, per kWs. An EV's cost is ``past_cost +
    rates[0] drawn_kws - rates[1] given_kws``, so that nothing is to be added while they stay the same.
    """
    for lane in in_use(places):
        block, i = state[lane // LANES], lane % LANES
        block["past_cost"][i] += (rates[0] - to[0]) * block["drawn_kws"][i]
        block["past_cost"][i] -= (rates[1] - to[1]) * block["given_kws"][i]
    rates[:2] = to[:2]


@njit
def arrive(end_s: float, sessions: SessionTable, fleet: Fleet, cursor: int) -> int:
    """Plug in those that arrive before ``end_s``; takes and returns how many sessions have arrived."""
    scratch = np.zeros(1, STATE)
    while cursor < len(sessions.by_arrival) and sessions.arrival_s[sessions.by_arrival[cursor]] < end_s:
        session = sessions.by_arrival[cursor]
        lane = enter(fleet.places, fleet.state, fleet.columns, sessions.ev[session])
        if lane >= 0:  # else it leaves in this tick, and comes again
            block, i = fleet.state[lane // LANES], lane % LANES
            row = scratch[0]
            lift(block, i, row)
            start_session(row, fleet.kinds, sessions, session)
            lower(row, block, i)
        cursor += 1
    return cursor


@njit
def compact_departed(
    changing: NDArray[np.int64], places: Places, state: Blocks, columns: Columns
) -> NDArray[np.int64]:
    """Move those that left in this tick behind those that stay; where their power went, (left, 2).

    ``changing``, (stretch,): how many arrived or left there at most. Returns the slot, and EXCLUSIVE, SHARED
    or WIDE, of each.
    """
    gone = np.empty((changing.sum(), 2), np.int64)
    left = 0
    for stretch in range(len(places.filled)):
        if changing[stretch]:
            begin = places.first_lane[stretch]
            for lane in range(begin + places.filled[stretch] - 1, begin - 1, -1):
                block, i = state[lane // LANES], lane % LANES
                if block["session"][i] < 0:
                    gone[left, 0], gone[left, 1] = block["slot"][i], block["spread"][i]
                    left += 1
                    quit_lane(places, state, columns, stretch, lane)
    return gone[:left]
