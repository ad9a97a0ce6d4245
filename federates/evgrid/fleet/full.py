"""The full pass over a tick: all that :mod:`evgrid.fleet.physics` adds, for all EVs that are plugged in.

As the plain pass, :func:`evgrid.fleet.kernels.step`: those that arrive join the list; then, in as many
threads as there are cores, EVs are advanced in blocks by :mod:`evgrid.fleet.calm`, and by
:func:`evgrid.fleet.physics.window` where their tick isn't calm; then, in one thread, the few that arrive
or leave within the tick. An EV that is away costs nothing.

Power is added up in one order, whatever the threads: by rows, and last of all those that arrive or leave.
Where there are many members, threads share out members, and a block is added up at once; else, or where
the power of each EV is asked for, when all have been advanced.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.compile import in_threads, njit, prefetch
from evgrid.curves.kernels import POINTS
from evgrid.curves.kernels import STATE as MEMORY
from evgrid.fleet import calm
from evgrid.fleet.calm import BLOCK, COLUMN
from evgrid.fleet.kernels import arrive, plug_in, tell, without
from evgrid.fleet.physics import leave, welcome, window

MANY_MEMBERS = 64
"""Members from which on threads share out members."""

Row = Any
"""A row of one of the tables."""


def step(  # noqa: D417
    time_s: float,
    step_s: float,
    import_price: float,
    export_price: float,
    emissions_kg_per_kwh: float,
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
    state: Row,
    slot: NDArray[np.int32],
    wide: NDArray[np.bool_],
    member_start: NDArray[np.int64],
    active: NDArray[np.uint32],
    active_count: int,
    power_kw: NDArray[np.float64],
    plugged: NDArray[np.float64],
    outcome: NDArray[np.float64],
    ev_power_kw: NDArray[np.float64],
    ev_soc: NDArray[np.float64],
    mean_kw: NDArray[np.float64],
    exact: NDArray[np.uint32],
    options: Row,
    physics: Row,
    parameters: Row,
    parameters_of: NDArray[np.int32],
    functions: Row,
    voltage_pu: NDArray[np.float64],
    energised: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    reactive_kvar: NDArray[np.float64],
    mean_kvar: NDArray[np.float64],
    willing: bool,
    idle_c: float,
    ageing: Row,
    laws: Row,
    more: NDArray[np.float64],
) -> tuple[int, int]:
    """Advance all EVs over the tick [time_s, time_s + step_s), with all that :mod:`.physics` adds.

    Parameters up to ``mean_kw``, and what is returned, are those of :func:`evgrid.fleet.kernels.step`;
    the slots of ``power_kw`` and ``reactive_kvar`` must be left as they are from tick to tick.

    Parameters
    ----------
    emissions_kg_per_kwh
        Of energy drawn, and saved by energy given, in this tick.
    exact
        (ev + 1,) zeros at first; remembers who left in the last tick.
    options, physics
        () OPTIONS and (ev,) PHYSICS, the latter updated.
    parameters, parameters_of, functions
        PARAMETERS of the local functions, the row of each kind, (kind,), the last row being that of an
        EVSE without functions; and (ev,) their state, updated (one row where there are no functions).
    voltage_pu, energised
        (slot,), of the last tick; read where there are functions.
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

    """
    end_s = time_s + step_s
    sessions: tuple[Any, ...] = (
        session_ev, arrival_s, departure_s, soc_arrival, drive_kwh, kind_of, outcome,
    )  # fmt: skip
    first = cursor
    coming: tuple[Any, ...] = (
        end_s, kinds, *sessions, by_arrival, cursor, state, active, active_count,
    )  # fmt: skip
    active_count, cursor = arrive(*coming)
    _begin(
        by_arrival[first:cursor], session_ev, arrival_s, state, options, physics, parameters_of,
        len(parameters) - 1, ageing, laws, idle_c, more, exact, slot, wide, power_kw, reactive_kvar, plugged,
    )  # fmt: skip
    at_once = len(plugged) >= MANY_MEMBERS and not len(ev_power_kw)
    rules: tuple[Any, ...] = (
        state, physics, functions, options, kinds, parameters, willing, idle_c,
        slot, wide, member_start, voltage_pu, energised, frequency_hz,
        import_price / 3600.0, export_price / 3600.0, emissions_kg_per_kwh / 3600.0, managed, setpoint_kw,
    )  # fmt: skip
    results: tuple[Any, ...] = (power_kw, reactive_kvar, plugged, mean_kw, mean_kvar)
    moving: tuple[Any, ...] = (
        active, active_count, at_once, *rules, step_s, end_s, *results, more, exact
    )  # fmt: skip
    changing = in_threads(lambda low, high: _advance(low, high, *moving), active_count)
    if not at_once:
        adding: tuple[Any, ...] = (active, active_count, slot, wide, member_start, *results)
        in_threads(lambda low, high: _add_up(low, high, *adding), active_count)
    left = 0
    if any(count for _, (_, count) in changing):
        parts = np.array([part for _, part in changing])
        others: tuple[Any, ...] = (
            parts, active, *rules, time_s, end_s, *sessions, parameters_of, ageing, laws, *results, more,
            exact,
        )  # fmt: skip
        left = _change(*others)
    if len(ev_power_kw):
        tell(active[:active_count], state, mean_kw, ev_power_kw, ev_soc)
    return without(active, active_count, exact, left), cursor


@njit
def _begin(
    arriving: NDArray[np.int32], session_ev: NDArray[np.int32], arrival_s: NDArray[np.float64], state: Row,
    options: Row, physics: Row, parameters_of: NDArray[np.int32], no_functions: int, ageing: Row, laws: Row,
    idle_c: float, more: NDArray[np.float64], exact: NDArray[np.uint32], slot: NDArray[np.int32],
    wide: NDArray[np.bool_], power_kw: NDArray[np.float64], reactive_kvar: NDArray[np.float64],
    plugged: NDArray[np.float64],
) -> None:  # fmt: skip
    """Begin the sessions that have been plugged in, and clear the slots of those that left before."""
    plugged[:] = 0.0
    for session in arriving:
        ev = session_ev[session]
        if state[ev]["session"] == session:
            welcome(
                state[ev], options, physics[ev], parameters_of, no_functions, ageing, laws, ev,
                arrival_s[session], idle_c, more,
            )  # fmt: skip
    for i in range(exact[-1]):
        _clear(exact[i], slot, wide, power_kw, reactive_kvar)
    exact[-1] = 0


@njit
def _clear(
    ev: int, slot: NDArray[np.int32], wide: NDArray[np.bool_], power_kw: NDArray[np.float64],
    reactive_kvar: NDArray[np.float64],
) -> None:  # fmt: skip
    """Set the power in an EV's slots to 0."""
    first = np.uint32(slot[ev])
    power_kw[first] = 0.0
    reactive_kvar[first] = 0.0
    if wide[ev]:
        for i in range(1, 3):  # a loop, lest the compiler scatter under a mask, which is much slower
            power_kw[first + np.uint32(i)] = 0.0
            reactive_kvar[first + np.uint32(i)] = 0.0


@njit
def _put(
    ev: int, kw: float, kvar: float, slot: NDArray[np.int32], wide: NDArray[np.bool_],
    power_kw: NDArray[np.float64], reactive_kvar: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add an EV's power to its slots."""
    first = np.uint32(slot[ev])
    if wide[ev]:
        third = kw / 3.0
        power_kw[first] += third
        power_kw[first + np.uint32(1)] += third
        power_kw[first + np.uint32(2)] += third
        third = kvar / 3.0
        reactive_kvar[first] += third
        reactive_kvar[first + np.uint32(1)] += third
        reactive_kvar[first + np.uint32(2)] += third
    else:
        power_kw[first] += kw
        reactive_kvar[first] += kvar


@njit
def _first_of_member(at: int, active: NDArray[np.uint32], count: int, member_start: NDArray[np.int64]) -> int:
    """The first position in ``active``, not before ``at``, at which a member's EVs begin."""
    if at == 0 or at == count:
        return at
    member = np.searchsorted(member_start, active[at - 1], "right")
    return int(np.searchsorted(active[:count], member_start[member]))


@njit
def _count(
    part: NDArray[np.uint32], member: int, member_start: NDArray[np.int64], plugged: NDArray[np.float64]
) -> int:
    """Count EVs by member; the first of them belongs to ``member`` or a later one. Returns the last's."""
    begin = 0
    for i in range(len(part)):
        if part[i] >= member_start[member + 1]:
            plugged[member] += i - begin
            begin = i
            while part[i] >= member_start[member + 1]:
                member += 1
    plugged[member] += len(part) - begin
    return member


@njit
def _seen(
    ev: int, slot: NDArray[np.int32], wide: NDArray[np.bool_], voltage_pu: NDArray[np.float64],
    energised: NDArray[np.float64],
) -> tuple[float, float, float, float]:  # fmt: skip
    """Mean, lowest and highest voltage of an EV's phases, pu, and whether they are energised."""
    if not len(voltage_pu):
        return 1.0, 1.0, 1.0, 1.0
    first = np.uint32(slot[ev])
    voltage = voltage_pu[first]
    alive = energised[first]
    if not wide[ev]:
        return voltage, voltage, voltage, alive
    second, third = voltage_pu[first + np.uint32(1)], voltage_pu[first + np.uint32(2)]
    alive = min(alive, energised[first + np.uint32(1)], energised[first + np.uint32(2)])
    return (voltage + second + third) / 3.0, min(voltage, second, third), max(voltage, second, third), alive


@njit
def _gather(
    w: NDArray[np.float64], part: NDArray[np.uint32], following: NDArray[np.uint32], state: Row,
    physics: Row, end_s: float,
) -> None:  # fmt: skip
    """Bring the EVs of a block, and ask for the rows of those of the block that follows."""
    last = len(following) - 1
    for i in range(len(part)):
        if last >= 0:
            prefetch(state, following[np.uint64(min(i, last))])
            prefetch(physics, following[np.uint64(min(i, last))])
        row = state[part[i]]
        own = physics[part[i]]
        left_s = row["departure_s"] - end_s
        opened = (left_s > 0.0) & (row["fresh"] == 0) & (own["disturbed"] == 0)
        w[calm.OPEN + i] = 1.0 if opened else 0.0
        w[calm.SOC + i] = row["soc"]
        w[calm.LEFT_S + i] = left_s
        w[calm.GUARDED + i] = row["guarded"]
        w[calm.PHASES + i] = own["phases"]
        w[calm.NEVER + i] = own["refusal"]
        w[calm.RAMPED_KW + i] = own["ramped_kw"]
        w[calm.ABOVE_K + i] = own["above_k"]
        w[calm.OUT_KWS + i] = own["out_kws"]
        w[calm.HOURS_S + i] = own["discharging_s"]
        w[calm.REACTIVE_KVAR + i] = own["reactive_kvar"]
        w[calm.DROOP_KW + i] = own["droop_kw"]


@njit
def _look_up(
    w: NDArray[np.float64], kind_at: NDArray[np.int32], part: NDArray[np.uint32], state: Row, kinds: Row,
    setpoint_kw: NDArray[np.float64], managed: bool,
) -> None:  # fmt: skip
    """Bring what is asked of the EVs of a block, and the constants of their kinds."""
    for i in range(len(part)):
        ev = part[i]
        kind = state[ev]["kind"]
        if kind_at[i] != kind:
            kind_at[i] = kind
            calm.fill_kind(w, i, kinds[kind])
        w[calm.ASKED_KW + i] = setpoint_kw[ev] if managed else inf


@njit
def _see(
    w: NDArray[np.float64], part: NDArray[np.uint32], following: NDArray[np.uint32], member: int,
    slot: NDArray[np.int32], wide: NDArray[np.bool_], member_start: NDArray[np.int64],
    voltage_pu: NDArray[np.float64], energised: NDArray[np.float64], frequency_hz: NDArray[np.float64],
    power_kw: NDArray[np.float64], reactive_kvar: NDArray[np.float64],
) -> tuple[int, bool]:  # fmt: skip
    """Bring what the EVSEs of a block see; the last member, and whether a frequency-watt is at work."""
    for i in range(len(following)):
        first = np.uint32(slot[following[i]])
        prefetch(voltage_pu, first)
        prefetch(energised, first)
        prefetch(power_kw, first)
        prefetch(reactive_kvar, first)
    droops = False
    for i in range(len(part)):
        ev = part[i]
        while ev >= member_start[member + 1]:
            member += 1
        voltage, lowest, highest, alive = _seen(ev, slot, wide, voltage_pu, energised)
        hertz = frequency_hz[member]
        w[calm.VOLT + i] = voltage
        w[calm.LOWEST + i] = lowest
        w[calm.HIGHEST + i] = highest
        w[calm.HERTZ + i] = hertz
        opened = w[calm.OPEN + i]
        w[calm.OPEN + i] = opened if alive > 0.5 else 0.0
        droops |= (w[calm.DROOP_KW + i] != 0.0) | (hertz > w[calm.DROOP_HIGH + i])
        droops |= hertz < w[calm.DROOP_LOW + i]
    return member, droops


@njit
def _advance(
    low: int, high: int, active: NDArray[np.uint32], count: int, at_once: bool,
    state: Row, physics: Row, functions: Row,
    options: Row, kinds: Row, parameters: Row, willing: bool, idle_c: float,
    slot: NDArray[np.int32], wide: NDArray[np.bool_], member_start: NDArray[np.int64],
    voltage_pu: NDArray[np.float64], energised: NDArray[np.float64], frequency_hz: NDArray[np.float64],
    import_per_kws: float, export_per_kws: float, kg_per_kws: float, managed: bool,
    setpoint_kw: NDArray[np.float64], step_s: float, end_s: float,
    power_kw: NDArray[np.float64], reactive_kvar: NDArray[np.float64], plugged: NDArray[np.float64],
    mean_kw: NDArray[np.float64], mean_kvar: NDArray[np.float64], more: NDArray[np.float64],
    exact: NDArray[np.uint32],
) -> tuple[int, int]:  # fmt: skip
    """Advance those of ``active[low:high]`` that neither arrive nor leave, and clear the slots of all.

    ``at_once``: advance the members that begin in ``active[low:high]``, and add up; else fill ``mean_kw``
    and ``mean_kvar``. ``exact`` takes the positions in ``active`` of those that are left to :func:`_change`;
    returns where in ``exact`` they begin, and their number.
    """
    if at_once:
        low = _first_of_member(low, active, count, member_start)
        high = _first_of_member(high, active, count, member_start)
    w = np.zeros(calm.COLUMNS * COLUMN)
    curve = np.zeros(3 * POINTS * COLUMN)
    kind_at = np.full(BLOCK, -1, np.int32)
    parameters_at = np.full(BLOCK, -1, np.int32)
    others_at = np.empty(BLOCK, np.int32)
    refused = np.empty(BLOCK, np.int32)
    memory = np.zeros(1, MEMORY)
    with_functions = options["functions"] == 1
    points = 0
    if with_functions:
        points = calm.points_of(parameters)
    else:
        calm.fill_without_functions(w)
    todo = 0
    member = 0
    if high > low:
        member = np.searchsorted(member_start, active[low], "right") - 1
    counted = member
    if at_once:  # all of a member's slots, before anything is added to one of them
        for at in range(low, high):
            _clear(active[at], slot, wide, power_kw, reactive_kvar)
    for begin in range(low, high, BLOCK):
        part = active[begin : min(begin + BLOCK, high)]
        n = len(part)
        following = active[begin + n : min(begin + n + BLOCK, high)]
        _gather(w, part, following, state, physics, end_s)
        _look_up(w, kind_at, part, state, kinds, setpoint_kw, managed)
        droops = False
        if with_functions:
            for i in range(n):
                own = physics[part[i]]["parameters"]
                if parameters_at[i] != own:
                    parameters_at[i] = own
                    calm.fill_functions(w, curve, i, parameters[own], points)
            member, droops = _see(
                w,
                part,
                following,
                member,
                slot,
                wide,
                member_start,
                voltage_pu,
                energised,
                frequency_hz,
                power_kw,
                reactive_kvar,
            )
        if not at_once:
            for i in range(n):
                _clear(part[i], slot, wide, power_kw, reactive_kvar)
        calm.wish(w, n, options, step_s, idle_c, willing)
        if droops:
            calm.droop(w, n, step_s)
        if with_functions:
            calm.aim(w, curve, n, points)
            if calm.react(w, n):
                calm.make_room(w, n)
        calm.settle(w, n, options, step_s)
        others = 0
        refusing = 0
        for i in range(n):
            if w[calm.CALM + i] != 0.0:
                row = state[part[i]]
                own = physics[part[i]]
                drawn = w[calm.DRAWN_KWS + i]
                given = w[calm.GIVEN_KWS + i]
                row["soc"] = w[calm.SOC + i]
                row["drawn_kws"] += drawn
                row["given_kws"] += given
                row["loss_kws"] += w[calm.LOSS_KWS + i]
                row["cost"] += drawn * import_per_kws - given * export_per_kws
                own["ramped_kw"] = w[calm.RAMPED_KW + i]
                own["above_k"] = w[calm.ABOVE_K + i]
                own["out_kws"] += w[calm.TAKEN_KWS + i]
                own["discharging_s"] += w[calm.GIVING_S + i]
                own["emitted_kg"] += (drawn - given) * kg_per_kws
                own["reactive_kvar"] = w[calm.REACTIVE_KVAR + i]
                own["droop_kw"] = w[calm.DROOP_KW + i]
                refused[refusing] = i
                refusing += w[calm.REFUSED_KWH + i] > 0.0
            else:
                others_at[others] = i
                others += 1
        for k in range(refusing):
            i = refused[k]
            reason = int(w[calm.REASON + i])
            more[state[part[i]]["session"], reason - 1] += w[calm.REFUSED_KWH + i]
        for k in range(others):
            i = others_at[k]
            ev = part[i]
            row = state[ev]
            own = physics[ev]
            w[calm.NET_KW + i] = 0.0
            w[calm.Q_KVAR + i] = 0.0
            left_s = row["departure_s"] - (end_s - step_s)
            if row["fresh"] or left_s <= step_s:
                exact[low + todo] = begin + i
                todo += 1
                continue
            voltage, lowest, highest, alive = _seen(ev, slot, wide, voltage_pu, energised)
            drawn, given, q = window(
                options, kinds[row["kind"]], row, own, parameters[own["parameters"]],
                functions[ev if with_functions else 0], memory[0], more[row["session"]],
                setpoint_kw[ev] if managed else inf, step_s, left_s, willing,
                voltage, lowest, highest, alive, w[calm.HERTZ + i], idle_c,
            )  # fmt: skip
            row["cost"] += drawn * import_per_kws - given * export_per_kws
            own["emitted_kg"] += (drawn - given) * kg_per_kws
            w[calm.NET_KW + i] = (drawn - given) / step_s
            w[calm.Q_KVAR + i] = q / step_s
        if at_once:
            counted = _count(part, counted, member_start, plugged)
            for i in range(n):
                _put(part[i], w[calm.NET_KW + i], w[calm.Q_KVAR + i], slot, wide, power_kw, reactive_kvar)
        else:
            mean_kw[begin : begin + n] = w[calm.NET_KW : calm.NET_KW + n]
            mean_kvar[begin : begin + n] = w[calm.Q_KVAR : calm.Q_KVAR + n]
    return low, todo


@njit
def _change(
    changing: NDArray[np.int64], active: NDArray[np.uint32], state: Row, physics: Row, functions: Row,
    options: Row, kinds: Row, parameters: Row, willing: bool, idle_c: float,
    slot: NDArray[np.int32], wide: NDArray[np.bool_], member_start: NDArray[np.int64],
    voltage_pu: NDArray[np.float64], energised: NDArray[np.float64], frequency_hz: NDArray[np.float64],
    import_per_kws: float, export_per_kws: float, kg_per_kws: float, managed: bool,
    setpoint_kw: NDArray[np.float64], time_s: float, end_s: float,
    session_ev: NDArray[np.int32], arrival_s: NDArray[np.float64], departure_s: NDArray[np.float64],
    soc_arrival: NDArray[np.float64], drive_kwh: NDArray[np.float64], kind_of: NDArray[np.int32],
    outcome: NDArray[np.float64], parameters_of: NDArray[np.int32], ageing: Row, laws: Row,
    power_kw: NDArray[np.float64], reactive_kvar: NDArray[np.float64], plugged: NDArray[np.float64],
    mean_kw: NDArray[np.float64], mean_kvar: NDArray[np.float64], more: NDArray[np.float64],
    exact: NDArray[np.uint32],
) -> int:  # fmt: skip
    """Advance those that arrive or leave within the tick, even repeatedly.

    ``changing``: (part, 2) where in ``exact`` the positions of each part begin, and how many they are.
    ``plugged`` takes, by member, what they are short of a whole tick. Returns how many left, whose positions
    are the first of ``exact``.
    """
    step_s = end_s - time_s
    with_functions = options["functions"] == 1
    memory = np.zeros(1, MEMORY)
    left = 0
    for part in range(len(changing)):
        for i in range(changing[part, 0], changing[part, 0] + changing[part, 1]):
            at = exact[i]
            ev = active[at]
            row = state[ev]
            own = physics[ev]
            member = np.searchsorted(member_start, ev, "right") - 1
            voltage, lowest, highest, alive = _seen(ev, slot, wide, voltage_pu, energised)
            session = row["session"]
            net_kws = 0.0
            q_kvars = 0.0
            plugged_s = 0.0
            while True:
                from_s = max(arrival_s[session], time_s)
                until_s = min(row["departure_s"], end_s)
                row["fresh"] = 0
                drawn, given, q = window(
                    options, kinds[row["kind"]], row, own, parameters[own["parameters"]],
                    functions[ev if with_functions else 0], memory[0], more[session],
                    setpoint_kw[ev] if managed else inf, until_s - from_s, row["departure_s"] - from_s,
                    willing, voltage, lowest, highest, alive, frequency_hz[member], idle_c,
                )  # fmt: skip
                row["cost"] += drawn * import_per_kws - given * export_per_kws
                own["emitted_kg"] += (drawn - given) * kg_per_kws
                net_kws += drawn - given
                q_kvars += q
                plugged_s += until_s - from_s
                if row["departure_s"] > end_s:
                    break
                leave(row, options, own, functions, ageing, laws, ev, until_s, idle_c, outcome, more)
                session += 1
                if session == len(session_ev) or session_ev[session] != ev or arrival_s[session] >= end_s:
                    row["session"] = -1
                    break
                plug_in(
                    row, kinds, session, session_ev, departure_s, soc_arrival, drive_kwh, kind_of, outcome
                )
                welcome(
                    row, options, own, parameters_of, len(parameters) - 1, ageing, laws, ev,
                    arrival_s[session], idle_c, more,
                )  # fmt: skip
            plugged[member] += plugged_s / step_s - 1.0
            mean_kw[at] = net_kws / step_s
            _put(ev, mean_kw[at], q_kvars / step_s, slot, wide, power_kw, reactive_kvar)
            if row["session"] < 0:
                exact[left] = at
                left += 1
    return left


@njit
def _add_up(
    low: int, high: int, active: NDArray[np.uint32], count: int, slot: NDArray[np.int32],
    wide: NDArray[np.bool_], member_start: NDArray[np.int64], power_kw: NDArray[np.float64],
    reactive_kvar: NDArray[np.float64], plugged: NDArray[np.float64], mean_kw: NDArray[np.float64],
    mean_kvar: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add up the power, in the order of rows, and the number of EVs of each member.

    Of the members that begin in ``active[low:high]``; those that arrive or leave come later.
    """
    low = _first_of_member(low, active, count, member_start)
    high = _first_of_member(high, active, count, member_start)
    if high > low:
        _count(active[low:high], 0, member_start, plugged)
    for at in range(low, high):
        _put(active[at], mean_kw[at], mean_kvar[at], slot, wide, power_kw, reactive_kvar)
