"""The full pass over a tick: all that :mod:`evgrid.fleet.physics` adds, for all EVs that are plugged in.

As the plain pass, :func:`evgrid.fleet.kernels.step`: those that arrive join; then, in as many threads as
there are cores, EVs are advanced in blocks by :mod:`evgrid.fleet.calm`, and by
:func:`evgrid.fleet.physics.window` where their tick isn't calm; then, in one thread, the few that arrive
or leave within the tick. An EV that is away costs nothing.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import in_threads, next_part, njit, prefetch, take_turns
from evgrid.fleet import calm
from evgrid.fleet.calm import COLUMN
from evgrid.fleet.degradation import STATE as BATTERY
from evgrid.fleet.degradation import bring_to_ev
from evgrid.fleet.kernels import (
    add_up,
    arrive,
    clear_after,
    clear_part,
    hold_block,
    plug_in,
    put,
    put_block,
    see_off,
    tell,
)
from evgrid.fleet.lanes import (
    LANES,
    LINE,
    MANY_MEMBERS,
    STATE,
    WIDE,
    Blocks,
    Columns,
    Places,
    blocked,
    in_use,
    lift,
    lower,
)
from evgrid.fleet.physics import PHYSICS, c_rate_over_soc, leave, lift_own, lower_own, welcome, window
from evgrid.inverter_functions.kernels import STATE as MEMORY

STATE_BYTES, OWN_BYTES, BATTERY_BYTES = blocked(STATE).itemsize, blocked(PHYSICS).itemsize, BATTERY.itemsize
"""Of a block of STATE, of one of PHYSICS, and of a row of ageing."""

AHEAD = 3
"""Blocks by which memory is asked for ahead of its use."""

WAITING = 32
"""EVs whose SOC has turned that wait until what ageing remembers of them is at hand."""

TURNED = np.dtype([("ev", "i8"), ("soc", "f8"), ("cell_k", "f8"), ("c_rate", "f8")])
"""What an EV's ageing is to be brought up by."""

Row = Any
"""A row of one of the tables."""


def step(  # noqa: D417
    time_s: float,
    step_s: float,
    rates: NDArray[np.float64],
    managed: bool,
    setpoint_kw: NDArray[np.float64],
    kinds: Row,
    session_ev: NDArray[np.int32],
    arrival_s: NDArray[np.float64],
    departure_s: NDArray[np.float64],
    soc_arrival: NDArray[np.float64],
    drive_kwh: NDArray[np.float64],
    kind_of: NDArray[np.int32],
    by_arrival: NDArray[np.int32],
    cursor: int,
    places: Places,
    state: Blocks,
    columns: Columns,
    power_kw: NDArray[np.float64],
    plugged: NDArray[np.float64],
    outcome: NDArray[np.float64],
    ev_power_kw: NDArray[np.float64],
    ev_soc: NDArray[np.float64],
    mean_kw: NDArray[np.float64],
    options: Row,
    physics: Blocks,
    parameters: Row,
    parameters_of: NDArray[np.int32],
    functions: Row,
    voltage_pu: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    reactive_kvar: NDArray[np.float64],
    mean_kvar: NDArray[np.float64],
    willing: bool,
    idle_c: float,
    ageing: Row,
    laws: Row,
    more: NDArray[np.float64],
    gone: NDArray[np.int64],
) -> tuple[int, NDArray[np.int64]]:
    """Advance all EVs over the tick [time_s, time_s + step_s), with all that :mod:`.physics` adds.

    Parameters up to ``mean_kw`` are those of :func:`evgrid.fleet.kernels.step`; ``columns`` are those of
    ``physics``, too. The slots of ``power_kw`` and ``reactive_kvar`` must be left as they are from tick to
    tick.

    Parameters
    ----------
    options, physics
        () OPTIONS and blocks of PHYSICS, the latter updated.
    parameters, parameters_of, functions
        PARAMETERS of the local functions, the row of each kind, (kind,), the last row being that of an
        EVSE without functions; and (ev,) their state, updated (one row where there are no functions).
    voltage_pu
        (slot,), of the last tick, 0 where there is none; read where there are functions.
    frequency_hz
        (member,), of this tick.
    reactive_kvar
        (slot,) takes the mean reactive power over the tick.
    mean_kvar
        (ev,) room to work in, as ``mean_kw``.
    willing, idle_c
        See :func:`.physics.window`.
    ageing, laws
        (ev,) STATE of the ageing, updated, or (0,), and its LAWS.
    more
        (session, n), see :func:`.physics.leave`.
    gone
        Slots of those that left in the last tick, see :func:`evgrid.fleet.kernels.see_off`.

    Returns the new ``cursor`` and ``gone``.

    """
    end_s = time_s + step_s
    sessions: tuple[Any, ...] = (
        session_ev, arrival_s, departure_s, soc_arrival, drive_kwh, kind_of, outcome,
    )  # fmt: skip
    if len(gone):
        clear_after(gone, power_kw)
        clear_after(gone, reactive_kvar)
    if cursor < len(by_arrival) and arrival_s[by_arrival[cursor]] < end_s:
        coming: tuple[Any, ...] = (end_s, kinds, *sessions, by_arrival, cursor, places, state, columns)
        cursor = arrive(*coming)
    plugged[:] = places.plugged
    at_once = len(plugged) >= MANY_MEMBERS and not len(ev_power_kw)
    changing = np.zeros(len(places.filled) + 1, np.int64)
    rules: tuple[Any, ...] = (
        places, state, physics, functions, options, kinds, parameters, willing, idle_c,
        voltage_pu, frequency_hz, managed, setpoint_kw,
    )  # fmt: skip
    results: tuple[Any, ...] = (power_kw, reactive_kvar, mean_kw, mean_kvar)
    moving: tuple[Any, ...] = (*rules, step_s, end_s, *results, ageing, laws, more, changing, at_once)
    take_turns(lambda counters, thread: _advance(counters, thread, *moving), len(places.parts) - 1)
    if not at_once:
        for power, mean in ((power_kw, mean_kw), (reactive_kvar, mean_kvar)):
            adding: tuple[Any, ...] = (places, state, power, mean)
            in_threads(lambda low, high: add_up(low, high, *adding), len(plugged), 1)  # noqa: B023
    if changing[-1]:
        others: tuple[Any, ...] = (
            changing, *rules, rates, time_s, end_s, *sessions, parameters_of, ageing, laws, *results, plugged,
            more,
        )  # fmt: skip
        _change(*others)
    if len(ev_power_kw):
        tell(in_use(places), state, mean_kw, ev_power_kw, ev_soc)
    gone = see_off(changing, places, state, columns) if changing[-1] else gone[:0]
    return cursor, gone


@njit
def _seen(slot: int, spread: int, voltage_pu: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Mean, lowest and highest voltage of an EV's phases, pu, and whether they are energised."""
    if not len(voltage_pu):
        return 1.0, 1.0, 1.0, 1.0
    first = np.uint32(slot)
    voltage = voltage_pu[first]
    lowest, highest = voltage, voltage
    if spread == WIDE:
        second, third = voltage_pu[first + np.uint32(1)], voltage_pu[first + np.uint32(2)]
        lowest, highest = min(voltage, second, third), max(voltage, second, third)
        voltage = (voltage + second + third) / 3.0
    return voltage, lowest, highest, 1.0 if lowest > 0.0 else 0.0


@njit
def _same(at: NDArray[np.int32], now: NDArray[np.int32]) -> bool:
    """Whether a block's column of numbers is the same as before."""
    differs = np.int32(0)
    for i in range(LANES):
        differs |= at[i] ^ now[i]
    return bool(differs == 0)


@njit
def _listen(
    w: NDArray[np.float64], block: Blocks, n: int, managed: bool, setpoint_kw: NDArray[np.float64],
    voltage_pu: NDArray[np.float64], alone: bool, member_start: NDArray[np.int64],
    frequency_hz: NDArray[np.float64], one_hertz: bool,
) -> None:  # fmt: skip
    """Bring what is asked of the EVs of a block, and the voltage and frequency that their EVSEs see.

    ``alone``: all are ALONE; ``one_hertz``: the frequency is the same for all members.
    """
    if managed:
        for i in range(n):
            w[calm.ASKED_KW + i] = setpoint_kw[np.uint32(block["ev"][i])]
    if len(voltage_pu):
        for i in range(n):
            w[calm.VOLT + i] = voltage_pu[np.uint32(block["slot"][i])]
        if not alone:
            for i in range(n):
                voltage, lowest, highest, _ = _seen(block["slot"][i], block["spread"][i], voltage_pu)
                w[calm.VOLT + i] = voltage
                w[calm.LOWEST + i] = lowest
                w[calm.HIGHEST + i] = highest
        if not one_hertz and n:
            member = np.searchsorted(member_start, block["ev"][0], "right") - 1
            for i in range(n):
                while block["ev"][i] >= member_start[member + 1]:
                    member += 1
                w[calm.HERTZ + i] = frequency_hz[member]


@njit
def _look_ahead(block: Blocks, n: int, values: NDArray[np.float64]) -> None:
    """Ask for what an array that will be read holds at the slots of a block."""
    for i in range(n):
        prefetch(values, np.uint32(block["slot"][i]), np.uint32(0), 0)


@njit
def _make_way(block: Blocks, n: int, values: NDArray[np.float64]) -> None:
    """Ask for the slots of a block in an array that will be written to."""
    for i in range(n):
        prefetch(values, np.uint32(block["slot"][i]), np.uint32(0), 1)


@njit
def _bring(blocks: Blocks, block: int, size: int) -> None:
    """Ask for a whole block, or row, of ``size`` bytes."""
    for line in range(size // LINE):
        prefetch(blocks, np.uint32(block), np.uint32(line * LINE), 1)


@njit
def _bring_up(turned: Row, ageing: Row, laws: Row, time_s: float) -> None:
    """Bring the ageing of EVs, (n,) TURNED, up to a time."""
    for row in turned:
        bring_to_ev(ageing[row["ev"]], laws, time_s, row["soc"], row["cell_k"], row["c_rate"])


@njit
def _advance(
    counters: NDArray[np.int64], thread: int, places: Places, state: Blocks, physics: Blocks, functions: Row,
    options: Row, kinds: Row, parameters: Row, willing: bool, idle_c: float,
    voltage_pu: NDArray[np.float64], frequency_hz: NDArray[np.float64], managed: bool,
    setpoint_kw: NDArray[np.float64], step_s: float, end_s: float, power_kw: NDArray[np.float64],
    reactive_kvar: NDArray[np.float64], mean_kw: NDArray[np.float64], mean_kvar: NDArray[np.float64],
    ageing: Row, laws: Row, more: NDArray[np.float64], changing: NDArray[np.int64], at_once: bool,
) -> None:  # fmt: skip
    """Advance those of the parts that this thread takes that neither arrive nor leave.

    ``changing``, (stretch + 1,), takes the number of those that are left to :func:`_change`, and is not 0 at
    its end if there are any. ``at_once``: parts hold whole members, and power is added up; else it is written
    to ``mean_kw`` and ``mean_kvar``, (ev,).

    Memory is asked for ahead of its use, a little at a time, and a block is listened to while the one before
    is finished.
    """
    w = np.zeros(calm.COLUMNS * COLUMN)
    kind_at = np.full(LANES, -1, np.int32)
    parameters_at = np.full(LANES, -1, np.int32)
    memory = np.zeros(1, MEMORY)
    rows, owns, no_battery = np.zeros(1, STATE), np.zeros(1, PHYSICS), np.zeros(1, BATTERY)
    with_functions, with_ageing = options["functions"] == 1, options["ageing"] == 1
    turned, waiting = np.zeros(WAITING + LANES, TURNED), 0
    member_start = places.member_start
    many_kinds = len(kinds) != 1
    rules = calm.rules_of(options, step_s, end_s, idle_c, willing)
    aims_again, may_droop = calm.aims_again(parameters), False
    for i in range(len(parameters)):
        may_droop |= parameters[i]["over_kw_per_hz"] != 0.0 or parameters[i]["under_kw_per_hz"] != 0.0
    if not many_kinds:
        for i in range(LANES):
            kind_at[i] = 0
            calm.fill_kind(w, i, kinds[0], rules)
    if not with_functions:
        calm.fill_without_functions(w)
    w[calm.ASKED_KW : calm.ASKED_KW + LANES] = inf
    w[calm.HERTZ : calm.HERTZ + LANES] = frequency_hz[0]
    one_hertz = bool(np.all(frequency_hz == frequency_hz[0]))
    chilled = options["thermal"] == 1 and idle_c < options["mild_c"]
    drooped = False
    blocks = np.zeros(AHEAD, np.int64)
    numbers = np.zeros(AHEAD, np.int64)
    while True:
        part = next_part(counters, thread, len(places.parts) - 1)
        if part < 0:
            break
        todo = 0
        first, last = places.parts[part], places.parts[part + 1]
        most = (places.first_lane[last] - places.first_lane[first]) // LANES + AHEAD
        if most > len(blocks):
            blocks, numbers = np.zeros(most, np.int64), np.zeros(most, np.int64)
        alone = places.alone[part]
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
        if at_once and not alone:  # before anything is added to a slot
            clear_part(first, last, places, state, power_kw)
            clear_part(first, last, places, state, reactive_kvar)
        _listen(
            w, state[blocks[0]], numbers[0], managed, setpoint_kw, voltage_pu, alone, member_start,
            frequency_hz, one_hertz,
        )  # fmt: skip
        for k in range(todo):
            at, n = blocks[k], numbers[k]
            block, own = state[at], physics[at]
            following, n_following = state[blocks[k + 1]], numbers[k + 1]
            if many_kinds and not _same(kind_at, block["kind"]):
                for i in range(LANES):
                    kind_at[i] = block["kind"][i]
                    calm.fill_kind(w, i, kinds[kind_at[i]], rules)
            if with_functions and not _same(parameters_at, own["parameters"]):
                for i in range(LANES):
                    parameters_at[i] = own["parameters"][i]
                    calm.fill_functions(w, i, parameters[parameters_at[i]])
            _make_way(following, n_following, power_kw)
            short = calm.plan(w, rules, block, own, n)
            if not alone:
                calm.watch(w, n)
            if chilled:
                calm.chill(w, own, n, options, idle_c)
            if may_droop:
                drooped = calm.droops(w, own, n)
            if drooped or aims_again or short:
                calm.spread(w, own, n)
                if drooped:
                    calm.droop(w, block, own, n)
                if drooped or aims_again:
                    calm.aim(w, parameters, parameters_at, n)
                    short = calm.react(w, own, n)
                if short:
                    calm.make_room(w, n)
            _make_way(following, n_following, reactive_kvar)
            _bring(state, blocks[k + 3], STATE_BYTES)
            _listen(
                w, following, n_following, managed, setpoint_kw, voltage_pu, alone, member_start,
                frequency_hz, one_hertz,
            )  # fmt: skip
            others, refusing = calm.settle(w, rules, block, own, n)
            if len(voltage_pu):
                _look_ahead(state[blocks[k + 2]], numbers[k + 2], voltage_pu)
            _bring(physics, blocks[k + 2], OWN_BYTES)
            if with_ageing and calm.head(w, rules, own, n):
                for i in range(n):
                    if w[calm.TURNS + i] != 0.0:
                        _bring(ageing, block["ev"][i], BATTERY_BYTES)
                        turned[waiting]["ev"] = block["ev"][i]
                        turned[waiting]["soc"] = w[calm.SOC_BEFORE + i]
                        turned[waiting]["cell_k"] = idle_c + w[calm.ABOVE_K_BEFORE + i] + 273.15
                        turned[waiting]["c_rate"] = c_rate_over_soc(
                            w[calm.SQUARE_KW2S + i], w[calm.CAPACITY + i]
                        )
                        waiting += 1
                if waiting >= WAITING:
                    _bring_up(turned[:waiting], ageing, laws, end_s - step_s)
                    waiting = 0
            if drooped:
                calm.note_droop(w, own, n)
            if refusing:
                for i in range(n):
                    refused_kw = calm.refused_kw(w, i)
                    if refused_kw > 0.0:
                        kind = kinds[kind_at[i]]
                        reason = calm.why(w, i, options, kind, block["guarded"][i], drooped)
                        more[block["session"][i], reason - 1] += refused_kw * step_s / 3600.0
            if others:
                for i in range(n):
                    if w[calm.CALM + i] != 0.0:
                        continue
                    w[calm.NET_KW + i] = 0.0
                    w[calm.Q_KVAR + i] = 0.0
                    if block["fresh"][i] or block["departure_s"][i] <= end_s:
                        while at * LANES >= places.first_lane[stretch + 1]:
                            stretch += 1
                        changing[stretch] += 1
                        changing[-1] = 1
                        continue
                    row, own_row = rows[0], owns[0]
                    lift(block, i, row)
                    lift_own(own, i, own_row)
                    voltage, lowest, highest, alive = _seen(row["slot"], row["spread"], voltage_pu)
                    drawn, given, q = window(
                        options, kinds[row["kind"]], row, own_row, parameters[own_row["parameters"]],
                        functions[row["ev"] if with_functions else 0], memory[0], more[row["session"]],
                        setpoint_kw[row["ev"]] if managed else inf, step_s,
                        row["departure_s"] - (end_s - step_s), willing, voltage, lowest, highest, alive,
                        frequency_hz[np.searchsorted(places.member_start, row["ev"], "right") - 1], idle_c,
                        ageing[row["ev"]] if with_ageing else no_battery[0], laws, end_s - step_s,
                    )  # fmt: skip
                    lower(row, block, i)
                    lower_own(own_row, own, i)
                    w[calm.NET_KW + i] = (drawn - given) / step_s
                    w[calm.Q_KVAR + i] = q / step_s
            if at_once:
                put_block(block, n, alone, w, calm.NET_KW, power_kw)
                put_block(block, n, alone, w, calm.Q_KVAR, reactive_kvar)
            else:
                hold_block(block, n, w, calm.NET_KW, mean_kw, power_kw)
                hold_block(block, n, w, calm.Q_KVAR, mean_kvar, reactive_kvar)
        _bring_up(turned[:waiting], ageing, laws, end_s - step_s)
        waiting = 0


@njit
def _change(
    changing: NDArray[np.int64], places: Places, state: Blocks, physics: Blocks, functions: Row,
    options: Row, kinds: Row, parameters: Row, willing: bool, idle_c: float,
    voltage_pu: NDArray[np.float64], frequency_hz: NDArray[np.float64], managed: bool,
    setpoint_kw: NDArray[np.float64], rates: NDArray[np.float64], time_s: float, end_s: float,
    session_ev: NDArray[np.int32], arrival_s: NDArray[np.float64], departure_s: NDArray[np.float64],
    soc_arrival: NDArray[np.float64], drive_kwh: NDArray[np.float64], kind_of: NDArray[np.int32],
    outcome: NDArray[np.float64], parameters_of: NDArray[np.int32], ageing: Row, laws: Row,
    power_kw: NDArray[np.float64], reactive_kvar: NDArray[np.float64], mean_kw: NDArray[np.float64],
    mean_kvar: NDArray[np.float64], plugged: NDArray[np.float64], more: NDArray[np.float64],
) -> None:  # fmt: skip
    """Advance those that arrive or leave within the tick, even repeatedly.

    ``changing``, (stretch,): how many they are. ``plugged`` takes, by member, what they are short of a whole
    tick. Those that left keep their lane, with session -1.
    """
    step_s = end_s - time_s
    with_functions = options["functions"] == 1
    memory = np.zeros(1, MEMORY)
    rows, owns, no_battery = np.zeros(1, STATE), np.zeros(1, PHYSICS), np.zeros(1, BATTERY)
    for stretch in range(len(places.filled)):
        if not changing[stretch]:
            continue
        begin = places.first_lane[stretch]
        for lane in range(begin, begin + places.filled[stretch]):
            block, i = lane // LANES, lane % LANES
            if state[block]["departure_s"][i] > end_s and not state[block]["fresh"][i]:
                continue
            row, own = rows[0], owns[0]
            lift(state[block], i, row)
            lift_own(physics[block], i, own)
            ev = row["ev"]
            member = np.searchsorted(places.member_start, ev, "right") - 1
            voltage, lowest, highest, alive = _seen(row["slot"], row["spread"], voltage_pu)
            session = row["session"]
            net_kws = 0.0
            q_kvars = 0.0
            plugged_s = 0.0
            while True:
                if row["fresh"]:
                    welcome(
                        row, options, own, parameters_of, len(parameters) - 1, ageing, laws, ev,
                        arrival_s[session], idle_c, more,
                    )  # fmt: skip
                    row["fresh"] = 0
                from_s = max(arrival_s[session], time_s)
                until_s = min(row["departure_s"], end_s)
                drawn, given, q = window(
                    options, kinds[row["kind"]], row, own, parameters[own["parameters"]],
                    functions[ev if with_functions else 0], memory[0], more[session],
                    setpoint_kw[ev] if managed else inf, until_s - from_s, row["departure_s"] - from_s,
                    willing, voltage, lowest, highest, alive, frequency_hz[member], idle_c,
                    ageing[ev] if options["ageing"] == 1 else no_battery[0], laws, from_s,
                )  # fmt: skip
                net_kws += drawn - given
                q_kvars += q
                plugged_s += until_s - from_s
                if row["departure_s"] > end_s:
                    break
                leave(
                    row, options, kinds[row["kind"]], own, functions, ageing, laws, ev, until_s, idle_c,
                    rates, outcome, more,
                )  # fmt: skip
                session += 1
                if session == len(session_ev) or session_ev[session] != ev or arrival_s[session] >= end_s:
                    row["session"] = -1
                    break
                plug_in(
                    row, kinds, session, session_ev, departure_s, soc_arrival, drive_kwh, kind_of, outcome
                )
            lower(row, state[block], i)
            lower_own(own, physics[block], i)
            plugged[member] += plugged_s / step_s - 1.0
            mean_kw[ev] = net_kws / step_s
            put(row["slot"], row["spread"], mean_kw[ev], power_kw)
            put(row["slot"], row["spread"], q_kvars / step_s, reactive_kvar)
