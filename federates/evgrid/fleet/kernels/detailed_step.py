"""The detailed step: all that :mod:`.one_ev` adds, for all EVs that are plugged in.

EVs are advanced in blocks by :mod:`.steady`, and by :func:`.one_ev.window` where their tick isn't steady.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.records import Floats, Row, Table
from evgrid.core.jit import next_part, njit, prefetch
from evgrid.fleet.degradation import STATE as BATTERY
from evgrid.fleet.degradation import bring_to_ev
from evgrid.fleet.kernels import steady
from evgrid.fleet.kernels.lanes import (
    ARRIVES,
    LANES,
    LINE,
    SEGMENTED,
    STATE,
    WIDE,
    Block,
    Blocks,
    Places,
    blocked,
    in_use,
    lift,
    lower,
)
from evgrid.fleet.kernels.one_ev import (
    Seen,
    c_rate_over_soc,
    end_session,
    follow,
    make_room_for_one,
    start_details,
)
from evgrid.fleet.kernels.records import (
    PHYSICS,
    Details,
    Fleet,
    Results,
    Segments,
    SessionTable,
    Tick,
    lift_own,
    lower_own,
)
from evgrid.fleet.kernels.sessions import next_session
from evgrid.fleet.kernels.slots import adds_at_once, clear_part, hold_block, put, put_block

STATE_BYTES, OWN_BYTES, BATTERY_BYTES = blocked(STATE).itemsize, blocked(PHYSICS).itemsize, BATTERY.itemsize
"""Of a block of STATE, of one of PHYSICS, and of a row of ageing."""

AHEAD = 3
"""Blocks by which memory is asked for ahead of its use."""

WAITING = 32
"""EVs whose SOC has turned that wait until what ageing remembers of them is at hand."""

TURNED = np.dtype([("ev", "i8"), ("soc", "f8"), ("cell_k", "f8"), ("c_rate", "f8")])
"""What an EV's ageing is to be brought up by."""


@njit
def _phases_seen(slot: int, spread: int, voltage_pu: Floats) -> tuple[float, float, float]:
    """Mean, lowest and highest voltage of an EV's phases, pu."""
    if not len(voltage_pu):
        return 1.0, 1.0, 1.0
    first = np.uint32(slot)
    voltage = voltage_pu[first]
    if spread != WIDE:
        return voltage, voltage, voltage
    second, third = voltage_pu[first + np.uint32(1)], voltage_pu[first + np.uint32(2)]
    return (voltage + second + third) / 3.0, min(voltage, second, third), max(voltage, second, third)


@njit
def _seen(row: Row, tick: Tick, member_start: NDArray[np.int64]) -> Seen:
    """What an EV's EVSE sees of the grid."""
    voltage, lowest, highest = _phases_seen(row["slot"], row["spread"], tick.voltage_pu)
    member = np.searchsorted(member_start, row["ev"], "right") - 1
    energised = 1.0 if lowest > 0.0 else 0.0
    return Seen(voltage, lowest, highest, energised, tick.frequency_hz[member])


@njit
def _bring_inputs(
    w: Row, block: Block, n: int, setpoint_kw: Floats, voltage_pu: Floats, exclusive: bool,
    frequency_hz: Floats, member_start: NDArray[np.int64],
) -> None:  # fmt: skip
    """Bring what is asked of the EVs of a block, and the voltage and frequency that their EVSEs see.

    Arrays of length 0 leave what ``w`` holds; ``exclusive``: all EVs are EXCLUSIVE.
    """
    if len(setpoint_kw):
        for i in range(n):
            w["asked_kw"][i] = setpoint_kw[np.uint32(block["ev"][i])]
    if len(voltage_pu):
        for i in range(n):
            w["volt"][i] = voltage_pu[np.uint32(block["slot"][i])]
        if not exclusive:
            for i in range(n):
                w["volt"][i], w["lowest"][i], w["highest"][i] = _phases_seen(
                    block["slot"][i], block["spread"][i], voltage_pu
                )
    if len(frequency_hz) and n:
        member = np.searchsorted(member_start, block["ev"][0], "right") - 1
        for i in range(n):
            while block["ev"][i] >= member_start[member + 1]:
                member += 1
            w["hertz"][i] = frequency_hz[member]


@njit
def _look_ahead(block: Block, n: int, values: Floats) -> None:
    """Ask for what an array that will be read holds at the slots of a block."""
    for i in range(n):
        prefetch(values, np.uint32(block["slot"][i]), np.uint32(0), 0)


@njit
def _make_way(block: Block, n: int, values: Floats) -> None:
    """Ask for the slots of a block in an array that will be written to."""
    for i in range(n):
        prefetch(values, np.uint32(block["slot"][i]), np.uint32(0), 1)


@njit
def _bring(blocks: Blocks, block: int, size: int) -> None:
    """Ask for a whole block, or row, of ``size`` bytes."""
    for line in range(size // LINE):
        prefetch(blocks, np.uint32(block), np.uint32(line * LINE), 1)


@njit
def _bring_up(turned: Table, ageing: Table, laws: Table, time_s: float) -> None:
    """Bring the ageing of EVs, (n,) TURNED, up to a time."""
    for row in turned:
        bring_to_ev(ageing[row["ev"]], laws, time_s, row["soc"], row["cell_k"], row["c_rate"])


@njit
def _note_turn(turned: Row, w: Row, i: int, ev: int, idle_c: float) -> None:
    """Write what the ageing of EV ``i``, whose SOC turns at the tick's begin, is to be brought up by."""
    turned["ev"] = ev
    turned["soc"] = w["soc_before"][i]
    turned["cell_k"] = idle_c + w["above_k_before"][i] + 273.15
    turned["c_rate"] = c_rate_over_soc(w["square_kw2s"][i], w["capacity_kwh"][i])


@njit
def advance_staying(
    counters: NDArray[np.int64], thread: int, tick: Tick, sessions: SessionTable, fleet: Fleet, details:
    Details, results: Results, changing: NDArray[np.int64],
) -> None:  # fmt: skip
    """Advance those of the parts that this thread takes that neither arrive nor leave.

    ``changing``, (stretch + 1,), takes the number of those that are left to :func:`advance_changing`, and is
    not 0 at its end if there are any. Where parts hold whole members, power is added up; else it is written
    to ``mean_kw`` and ``mean_kvar``.

    Memory is asked for ahead of its use, a little at a time, and a block's inputs are brought while the one
    before is finished.
    """
    places, state, physics, options = fleet.places, fleet.state, details.physics, details.options
    parameters, ageing, laws = details.parameters, details.ageing, details.laws
    power_kw, reactive_kvar, voltage_pu = results.power_kw, results.reactive_kvar, tick.voltage_pu
    kinds, refused_kwh, member_start = fleet.kinds.rows, sessions.details, places.member_start
    begin_s, idle_c = tick.begin_s, tick.idle_c
    step_s, end_s = tick.step_s, tick.begin_s + tick.step_s
    at_once = adds_at_once(results)
    work, room = np.zeros(1, steady.WORK), make_room_for_one()
    kind_at = np.full(LANES, -1, np.int32)
    parameters_at = np.full(LANES, -1, np.int32)
    turned, waiting = np.zeros(WAITING + LANES, TURNED), 0
    with_functions, with_ageing = options["functions"] == 1, options["ageing"] == 1
    rules = steady.rules_of(options, step_s, end_s, tick.idle_c, tick.willing)
    aims_again, may_shift = steady.aims_again(parameters), False
    for i in range(len(parameters)):
        may_shift |= parameters[i]["over_kw_per_hz"] != 0.0 or parameters[i]["under_kw_per_hz"] != 0.0
    if not with_functions:
        steady.fill_without_functions(work[0])
    work[0]["asked_kw"][:] = inf
    work[0]["hertz"][:] = tick.frequency_hz[0]
    one_hertz = bool(np.all(tick.frequency_hz == tick.frequency_hz[0]))
    setpoint_kw = tick.setpoint_kw if tick.managed else tick.setpoint_kw[:0]
    frequency_hz = tick.frequency_hz[:0] if one_hertz else tick.frequency_hz
    cold = options["thermal"] == 1 and tick.idle_c < options["mild_c"]
    shifted = False
    blocks = np.zeros(AHEAD, np.int64)
    numbers = np.zeros(AHEAD, np.int64)
    while True:
        w = work[0]
        part = next_part(counters, thread, len(places.parts) - 1)
        if part < 0:
            break
        todo = 0
        first, last = places.parts[part], places.parts[part + 1]
        most = (places.first_lane[last] - places.first_lane[first]) // LANES + AHEAD
        if most > len(blocks):
            blocks, numbers = np.zeros(most, np.int64), np.zeros(most, np.int64)
        exclusive = places.exclusive[part]
        for stretch in range(first, last):
            count = places.filled[stretch]
            for begin in range(0, count, LANES):
                blocks[todo] = (places.first_lane[stretch] + begin) // LANES
                numbers[todo] = min(count - begin, LANES)
                todo += 1
        if not todo:
            continue
        for k in range(AHEAD):  # most likely, this thread goes on there
            more_blocks = last < len(places.filled) and places.filled[last] >= (k + 1) * LANES
            blocks[todo + k] = places.first_lane[last] // LANES + k if more_blocks else blocks[todo - 1]
            numbers[todo + k] = LANES if more_blocks else 0
        stretch = first
        if at_once and not exclusive:  # before anything is added to a slot
            clear_part(first, last, places, state, power_kw)
            clear_part(first, last, places, state, reactive_kvar)
        _bring_inputs(
            w, state[blocks[0]], numbers[0], setpoint_kw, voltage_pu, exclusive, frequency_hz, member_start
        )
        for k in range(todo):
            at, n = blocks[k], numbers[k]
            block, own = state[at], physics[at]
            following, n_following = state[blocks[k + 1]], numbers[k + 1]
            steady.refill_kinds(w, kind_at, block, kinds)
            if with_functions:
                steady.refill_functions(w, parameters_at, own, parameters)
            _make_way(following, n_following, power_kw)
            short = steady.plan(w, rules, block, own, n)
            if not exclusive:
                steady.check_phases(w, n)
            if cold:
                steady.check_cold(w, own, n, options, idle_c)
            if may_shift:
                shifted = steady.frequency_watt_acts(w, own, n)
            if shifted or aims_again or short:
                steady.begin_ways(w, own, n)
                if shifted:
                    steady.shift_by_frequency(w, step_s, block, own, n)
                if shifted or aims_again:
                    steady.aim(w, parameters, parameters_at, n)
                    short = steady.react(w, own, n)
                if short:
                    steady.make_room(w, n)
            _make_way(following, n_following, reactive_kvar)
            _bring(state, blocks[k + 3], STATE_BYTES)
            _bring_inputs(
                w, following, n_following, setpoint_kw, voltage_pu, exclusive, frequency_hz, member_start
            )
            others = steady.settle(w, step_s, rules.standby_kw, block, n)
            refusing = steady.settle_details(w, rules, own, n)
            if len(voltage_pu):
                _look_ahead(state[blocks[k + 2]], numbers[k + 2], voltage_pu)
            _bring(physics, blocks[k + 2], OWN_BYTES)
            if with_ageing and steady.note_directions(w, step_s, own, n):
                for i in range(n):
                    if w["turns"][i] != 0.0:
                        _bring(ageing, block["ev"][i], BATTERY_BYTES)
                        _note_turn(turned[waiting], w, i, block["ev"][i], idle_c)
                        waiting += 1
                if waiting >= WAITING:
                    _bring_up(turned[:waiting], ageing, laws, begin_s)
                    waiting = 0
            if shifted:
                steady.keep_frequency_shift(w, own, n)
            if refusing:
                for i in range(n):
                    missing_kw = steady.missing_kw(w, i)
                    if missing_kw > 0.0:
                        kind = kinds[kind_at[i]]
                        reason = steady.why(w, i, options, kind, block["guarded"][i], shifted)
                        refused_kwh[block["session"][i], reason - 1] += missing_kw * step_s / 3600.0
            if others:
                for i in range(n):
                    if w["steady"][i] != 0.0:
                        continue
                    w["net_kw"][i] = 0.0
                    w["q_kvar"][i] = 0.0
                    if block["fresh"][i] or block["departure_s"][i] <= end_s:
                        while at * LANES >= places.first_lane[stretch + 1]:
                            stretch += 1
                        changing[stretch] += 1
                        changing[-1] = 1
                        continue
                    row, own_row = room.row[0], room.own[0]
                    lift(block, i, row)
                    lift_own(own, i, own_row)
                    seen = _seen(row, tick, member_start)
                    refused = refused_kwh[row["session"]]
                    net, q, _ = follow(tick, seen, fleet, details, room, refused, begin_s, end_s)
                    lower(row, block, i)
                    lower_own(own_row, own, i)
                    w["net_kw"][i] = net / step_s
                    w["q_kvar"][i] = q / step_s
            if at_once:
                put_block(block, n, exclusive, w["net_kw"], power_kw)
                put_block(block, n, exclusive, w["q_kvar"], reactive_kvar)
            else:
                hold_block(block, n, w["net_kw"], results.mean_kw, power_kw)
                hold_block(block, n, w["q_kvar"], results.mean_kvar, reactive_kvar)
        _bring_up(turned[:waiting], ageing, laws, begin_s)
        waiting = 0


@njit
def mark_segmented(segments: Segments, places: Places, state: Blocks) -> None:
    """Mark the EVs plugged in that have segments: they are advanced one by one, with those that arrive."""
    for lane in in_use(places):
        block, i = state[lane // LANES], lane % LANES
        ev = block["ev"][i]
        if segments.first[ev] < segments.first[ev + 1] and block["fresh"][i] == 0:
            block["fresh"][i] = SEGMENTED


@njit
def advance_changing(
    changing: NDArray[np.int64], tick: Tick, sessions: SessionTable, fleet: Fleet, details: Details,
    results: Results,
) -> None:  # fmt: skip
    """Advance those that arrive or leave within the tick, even repeatedly, and those with segments.

    ``changing``, (stretch,): how many they are. ``results.plugged`` takes, by member, what they are short of
    a whole tick, ``results.islanded_kw`` the power in islands. Those that left keep their lane, with session
    -1.
    """
    places, end_s = fleet.places, tick.begin_s + tick.step_s
    room = make_room_for_one()
    for stretch in range(len(places.filled)):
        if not changing[stretch]:
            continue
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block, i = fleet.state[lane // LANES], lane % LANES
            if block["departure_s"][i] > end_s and not block["fresh"][i]:
                continue
            row, own = room.row[0], room.own[0]
            lift(block, i, row)
            lift_own(details.physics[lane // LANES], i, own)
            ev = row["ev"]
            seen = _seen(row, tick, places.member_start)
            net_kws, q_kvars, islanded_kws, plugged_s = 0.0, 0.0, 0.0, 0.0
            while True:
                session = row["session"]
                if row["fresh"] == ARRIVES:
                    start_details(room, details, sessions, sessions.arrival_s[session], tick.idle_c)
                row["fresh"] = 0
                from_s = max(sessions.arrival_s[session], tick.begin_s)
                until_s = min(row["departure_s"], end_s)
                refused_kwh = sessions.details[session]
                net, q, islanded = follow(tick, seen, fleet, details, room, refused_kwh, from_s, until_s)
                net_kws += net
                q_kvars += q
                islanded_kws += islanded
                plugged_s += until_s - from_s
                if row["departure_s"] > end_s:
                    break
                end_session(room, fleet, details, sessions, tick.rates, until_s, tick.idle_c)
                if not next_session(row, fleet.kinds, sessions, end_s):
                    break
            lower(row, block, i)
            lower_own(own, details.physics[lane // LANES], i)
            member = np.searchsorted(places.member_start, ev, "right") - 1
            results.plugged[member] += plugged_s / tick.step_s - 1.0
            results.mean_kw[ev] = net_kws / tick.step_s
            put(row["slot"], row["spread"], (net_kws - islanded_kws) / tick.step_s, results.power_kw)
            if islanded_kws != 0.0 and len(results.islanded_kw):
                results.islanded_kw[ev] = islanded_kws / tick.step_s
            put(row["slot"], row["spread"], q_kvars / tick.step_s, results.reactive_kvar)
