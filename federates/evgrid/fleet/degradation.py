"""How the EVs' batteries lose capacity: calendar and cycle ageing, counted as it happens.

In go state of charge, time and cell temperature; out comes the loss of capacity as a share of the
nominal capacity, calendar and cycle ageing apart, for an EV to date and for each of its sessions.

**Laws.** Both chemistries lose ``q = k(stress) * x**p`` under a constant stress, x being time or
throughput:

====  =================================================================================
NMC   J. Schmalstieg et al., J. Power Sources 257 (2014) 325, 10.1016/j.jpowsour.2014.02.012,
      of the 2.15 Ah cell Sanyo UR18650E:

      (1) calendar: ``(7.543 V - 23.75) * 1e6 * exp(-6976 / T) * t**0.75``

      (2) cycle: ``(7.348e-3 (Vrms - 3.667)**2 + 7.6e-4 + 4.081e-3 D) * Q**0.5``

LFP   a prismatic cell of 250 Ah; data of 10.1016/j.est.2023.109042, laws of NREL's BLAST-Lite
      (Lfp_Gr_250AhPrismatic):

      (3) calendar: ``8.37e4 * exp(-5210 / T) * exp(-3560 Ua / T) * t**0.526``

      (4) cycle: ``(4.38e-8 + 1.55e-8 D + 1.68e-7 C) * (exp(2190 / T) + exp(-1.55e5 / T))
      * N**0.828``
====  =================================================================================

t : days; T : K; V : V, open-circuit; Vrms : V, its root mean square over a cycle; Ua : V, of the
graphite against lithium, (5) in :func:`anode_potential_v`; D : depth of the cycle, 0 to 1; Q : Ah of the
2.15 Ah cell, in and out, so 4.3 Ah a full cycle; C : 1/h, mean over the charge moved; N : equivalent
full cycles. A pack is a cell scaled up: only its state of charge counts.

**Streaming.** Where the stress changes, the loss goes on from where it stands, ``dq/dx`` being a
function of q and of the present stress. Then ``d(q**(1/p)) = k**(1/p) dx``: (6). So an EV carries
``q**(1/p)`` of either kind, to which every hour and every cycle adds its share, whatever came
before. The result doesn't depend on how an even movement or a rest is cut into steps, and a parked EV
needs one addition when it comes back.

**Cycles** are counted by rainflow (ASTM E1049-85, 5.4.4, the three-point count) while they happen: a
stack holds the turning points that are still open, and the loss to date counts them as half cycles, as
the standard does at the end of a history. The fleet's step reports every turning point at its moment
(:mod:`evgrid.fleet.kernels.one_ev`), so no cycle is too short to be counted, whatever the tick. Each
cycle and half cycle enters its law by its own: D is its range; Vrms, the root mean square of the voltage
over that range; Q or N, the charge moved in it, both ways; C, the integral of its C-rate over that
charge, per charge: pauses don't lower it, and power that varies counts by its square, ``int C dq = int
C**2 dt``; the temperature factor of (4), likewise weighted by charge. Calendar ageing takes SOC to move
evenly between two updates, which are turning points, arrival, departure and every 15 min.

The stack holds ``POINTS`` - 1 turning points and the present state of charge. Where a history nests
deeper, its innermost open range is closed early, as if the movement that begins went past it: the
smallest ranges are the ones that may be counted wrong, and throughput is kept. The loss to date may then fall
by a little, until the movement has gone past. After a day of RegD at 4 s, or a random walk of any length, the
loss is within 0.2 % of the whole history's. States of charge are counted as 4-byte numbers (6e-8).

**Left out**: resistance growth; knees; effects of C-rate on NMC, of temperature on its cycle ageing
(fitted at 35 °C and 1C), and of charging in the cold. State of charge, throughput and C-rate are of
the nominal capacity, which is not reduced by the loss.

A law is used outside what it was fitted to, too: ``TESTS`` says what that is, and
:func:`evgrid.fleet.extras.ageing_notes` where a run goes beyond.

Kernels (``_ev``) take rows of ``STATE`` and the table ``LAWS``; the functions without that ending
take arrays of EVs and check what they are given.
"""

from __future__ import annotations

from math import exp, expm1, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evgrid.core.jit import njit
from evgrid.core.units import DAY_S

CHEMISTRIES = ("nmc", "lfp")
"""Names of the chemistries, in the order of LAWS."""


class Tests(NamedTuple):
    """What a law was fitted to: cell temperatures, °C, and the highest C-rates, 1/h, both ways."""

    least_c: float
    most_c: float
    charge_rate: float
    discharge_rate: float


TESTS = {"nmc": Tests(20.0, 40.0, 1.0, 1.0), "lfp": Tests(10.0, 45.0, 0.65, 1.0)}
"""By chemistry, from BLAST-Lite 1.1.1 (``experimental_range``); all SOC, depths of 0 to 1 (LFP: 0.8 to 1)."""

POINTS = 13
"""Open turning points of an EV's state of charge that are kept, the present one among them."""

NODES = 101
"""States of charge, 0 to 1, at which LAWS holds its tables."""

LINE = 64
"""Bytes of a cache line."""

OPEN_CIRCUIT_V = np.array(
    [
        3.3310, 3.4197, 3.4910, 3.5436, 3.5812, 3.6079, 3.6267, 3.6411, 3.6552, 3.6726, 3.6974,
        3.7322, 3.7747, 3.8209, 3.8688, 3.9154, 3.9649, 4.0194, 4.0730, 4.1183, 4.1620,
    ]
)  # fmt: skip
"""Open-circuit voltage of the cell of (1) and (2) at SOC 0, 0.05 … 1, V; linear between.

Schmalstieg 2014, figure 1, and below SOC 0.1 Ecker 2014 (10.1016/j.jpowsour.2013.09.143), as
digitised by BLAST-Lite, from which it is at most 2.3 mV away. (1) was fitted with this cell's
voltage and takes no other's: 10 mV are 2 % of its loss at SOC 0.5.
"""

STATE = np.dtype(
    [
        ("calendar", "f8"),  # calendar loss ** (1 / p)
        ("cycle", "f8"),  # cycle loss ** (1 / p) of what the rainflow count has closed
        ("since_s", "f8"),  # time up to which bring_to_ev has come
        ("c_rate", "f8"),  # C-rate of the newest open segment, integral over SOC
        ("weight", "f8"),  # its temperature factor ** (1 / p), integral over SOC
        ("point", "f4", (POINTS,)),  # open turning points, the last is the present SOC
        ("older_c_rate", "f4", (POINTS - 2,)),  # c_rate of the segments before the newest
        ("older_weight", "f4", (POINTS - 2,)),  # weight of them
        ("points", "i1"),  # how many points are open, 0 before the first SOC is known
        ("law", "i1"),  # row of LAWS
        ("spare", "u1", (10,)),
    ],
    align=True,
)
"""What ageing remembers of an EV: three cache lines, 192 bytes, untouched between its updates."""

LAW = np.dtype(
    [
        ("calendar_power", "f8"),
        ("cycle_power", "f8"),
        ("per_soc", "f8"),  # throughput, in the unit of the law, of SOC 0 to 1
        ("cycle_base", "f8"),
        ("cycle_voltage", "f8"),  # of (Vrms - cycle_reference_v) ** 2
        ("cycle_reference_v", "f8"),
        ("cycle_depth", "f8"),
        ("cycle_c_rate", "f8"),
        ("thermal", "i8"),  # 1: cycle ageing depends on temperature
        ("thermal_k", "f8"),  # exp(thermal_k / T) + exp(-thermal_hot_k / T)
        ("thermal_hot_k", "f8"),
        ("log_rate", "f8", (NODES,)),  # calendar rate ** (1 / p) = exp(log_rate - activation_k / T), 1/day
        ("activation_k", "f8", (NODES,)),
        ("voltage", "f8", (NODES,)),  # open-circuit, V
        ("square", "f8", (NODES,)),  # integral of its square over SOC, from 0, V²
    ],
    align=True,
)
"""Constants of a chemistry."""

Row = Any
"""A row of STATE or LAW."""


def anode_potential_v(soc: ArrayLike) -> NDArray[np.float64]:
    """Potential of the graphite against lithium at a state of charge, V; any shape: (5).

    M. Safari and C. Delacourt, J. Electrochem. Soc. 158 (2011) A562, 10.1149/1.3567007, at a
    lithiation of 0.0085 (empty) to 0.78 (full), M. Schimpe et al., 10.1149/2.1181714jes. At SOC 0.5
    it is 0.12330 V.
    """
    x = 0.0085 + np.asarray(soc, np.float64) * (0.78 - 0.0085)
    potential: NDArray[np.float64] = (
        0.6379
        + 0.5416 * np.exp(-305.5309 * x)
        + 0.044 * np.tanh(-(x - 0.1958) / 0.1088)
        - 0.1978 * np.tanh((x - 1.0571) / 0.0854)
        - 0.6875 * np.tanh((x + 0.0117) / 0.0529)
        - 0.0175 * np.tanh((x - 0.5692) / 0.0875)
    )
    return potential


def _make_laws() -> NDArray[Any]:
    laws = np.zeros(len(CHEMISTRIES), LAW)
    soc = np.linspace(0.0, 1.0, NODES)
    voltage = np.interp(soc, np.linspace(0.0, 1.0, len(OPEN_CIRCUIT_V)), OPEN_CIRCUIT_V)
    cells = (voltage[:-1] ** 2 + voltage[:-1] * voltage[1:] + voltage[1:] ** 2) / 3.0 / (NODES - 1)
    for law in laws:
        law["voltage"] = voltage
        law["square"] = np.concatenate([[0.0], np.cumsum(cells)])

    nmc = laws[0]
    nmc["calendar_power"] = 0.75
    nmc["log_rate"] = np.log((7.543 * voltage - 23.75) * 1e6) / 0.75  # (1)
    nmc["activation_k"] = 6976.0 / 0.75
    nmc["cycle_power"] = 0.5  # (2)
    nmc["per_soc"] = 2.15
    nmc["cycle_base"] = 7.6e-4
    nmc["cycle_voltage"] = 7.348e-3
    nmc["cycle_reference_v"] = 3.667
    nmc["cycle_depth"] = 4.081e-3

    lfp = laws[1]
    lfp["calendar_power"] = 0.526
    lfp["log_rate"] = np.log(8.37e4) / 0.526  # (3)
    lfp["activation_k"] = (5210.0 + 3560.0 * anode_potential_v(soc)) / 0.526
    lfp["cycle_power"] = 0.828  # (4)
    lfp["per_soc"] = 0.5
    lfp["cycle_base"] = 4.38e-8
    lfp["cycle_depth"] = 1.55e-8
    lfp["cycle_c_rate"] = 1.68e-7
    lfp["thermal"] = 1
    lfp["thermal_k"] = 2190.0
    lfp["thermal_hot_k"] = 1.55e5
    laws.flags.writeable = False
    return laws


LAWS = _make_laws()
"""(chemistry,) LAW, in the order of CHEMISTRIES; not to be written."""


# -- laws ------------------------------------------------------------------------------------


@njit
def log_calendar_rate_ev(law: Row, soc: float, temperature_k: float) -> float:
    """Logarithm of the calendar rate ** (1 / p), 1/day: exact at the tables' nodes, linear between."""
    at = min(max(soc, 0.0), 1.0) * (NODES - 1)
    cell = max(min(int(at), NODES - 2), 0)
    share = at - cell
    low = law["log_rate"][cell] - law["activation_k"][cell] / temperature_k
    if share == 0.0:
        return float(low)
    high = law["log_rate"][cell + 1] - law["activation_k"][cell + 1] / temperature_k
    return float(low + share * (high - low))


@njit
def _mean_exp(first: float, last: float) -> float:
    """Mean of exp(x) while x goes evenly from ``first`` to ``last``."""
    rise = last - first
    if abs(rise) < 0.03:  # sinh(h) / h = 1 + h²/6 + h⁴/120 about the middle, to 1e-15
        square = rise * rise / 4.0
        return exp((first + last) / 2.0) * (1.0 + square / 6.0 * (1.0 + square / 20.0))
    return exp(first) * expm1(rise) / rise


@njit
def mean_calendar_rate_ev(law: Row, soc_from: float, soc_to: float, temperature_k: float) -> float:
    """Mean calendar rate ** (1 / p), 1/day, while SOC goes evenly from one value to another.

    The integral over the tables is exact, so a path in two parts ages like the path in one.
    """
    low = min(max(min(soc_from, soc_to), 0.0), 1.0)
    high = min(max(max(soc_from, soc_to), 0.0), 1.0)
    if high - low < 1e-9:
        return exp(log_calendar_rate_ev(law, low, temperature_k))
    last = log_calendar_rate_ev(law, low, temperature_k)
    here = low
    total = 0.0
    cell = max(min(int(low * (NODES - 1)), NODES - 2), 0)
    while here < high:
        cell += 1
        following = high if cell >= NODES - 1 else min(cell / (NODES - 1), high)
        if following > here:
            following_log = log_calendar_rate_ev(law, following, temperature_k)
            total += _mean_exp(last, following_log) * (following - here)
            last = following_log
            here = following
    return total / (high - low)


@njit
def _mean_square(law: Row, cell: int, low: float, high: float) -> float:
    """Mean of the squared voltage, V², over SOC from low to high, both in a cell of the table."""
    first = law["voltage"][cell]
    slope = (law["voltage"][cell + 1] - first) * (NODES - 1)
    begin = first + slope * (low - cell / (NODES - 1))
    end = first + slope * (high - cell / (NODES - 1))
    return float((begin * begin + begin * end + end * end) / 3.0)


@njit
def rms_voltage_ev(law: Row, low: float, high: float) -> float:
    """Root mean square of the open-circuit voltage while SOC goes evenly from low to high, V.

    Exact for any range, down to a single SOC: what lies in whole cells is summed apart from both ends.
    """
    low, high = min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)
    first = max(min(int(low * (NODES - 1)), NODES - 2), 0)
    last = max(min(int(high * (NODES - 1)), NODES - 2), 0)
    if first == last:
        return sqrt(_mean_square(law, first, low, high))
    begin, end = (first + 1) / (NODES - 1), last / (NODES - 1)
    total = law["square"][last] - law["square"][first + 1]
    total += (begin - low) * _mean_square(law, first, low, begin)
    total += (high - end) * _mean_square(law, last, end, high)
    return sqrt(total / (high - low))


@njit
def temperature_factor_ev(law: Row, temperature_k: float) -> float:
    """Temperature factor of (4) ** (1 / p); 1 for a law without one."""
    if law["thermal"] == 0:
        return 1.0
    factor = exp(law["thermal_k"] / temperature_k) + exp(-law["thermal_hot_k"] / temperature_k)
    return float(factor ** (1.0 / law["cycle_power"]))


@njit
def cycle_share_ev(law: Row, low: float, high: float, halves: float, c_rate: float, weight: float) -> float:
    """What ``halves`` half cycles between two SOC add to the cycle loss ** (1 / p): (2), (4), (6).

    ``c_rate`` (1/h) and ``weight`` (temperature factor ** (1 / p)) are integrals over the SOC that
    they travelled.
    """
    depth = high - low
    if depth <= 0.0:
        return 0.0
    stress = law["cycle_base"] + law["cycle_depth"] * depth
    if law["cycle_voltage"] != 0.0:
        away = rms_voltage_ev(law, low, high) - law["cycle_reference_v"]
        stress += law["cycle_voltage"] * away * away
    stress += law["cycle_c_rate"] * (c_rate / (halves * depth))
    power = 1.0 / law["cycle_power"]
    rate = stress * stress if power == 2.0 else stress**power  # the former is much faster
    return float(rate * law["per_soc"] * weight)


# -- counting --------------------------------------------------------------------------------


@njit
def _share_of_segment(row: Row, law: Row, at: int) -> float:
    """What the open segment from point ``at`` to the next adds, as a half cycle."""
    first = np.float64(row["point"][at])
    last = np.float64(row["point"][at + 1])
    if at == row["points"] - 2:
        return cycle_share_ev(
            law, min(first, last), max(first, last), 1.0, row["c_rate"], row["weight"]
        )  # fmt: skip
    return cycle_share_ev(
        law, min(first, last), max(first, last), 1.0, row["older_c_rate"][at], row["older_weight"][at]
    )  # fmt: skip


@njit
def _drop_oldest(row: Row, law: Row) -> None:
    """Book the oldest open segment as a half cycle and forget the point at which it began."""
    row["cycle"] += _share_of_segment(row, law, 0)
    for i in range(row["points"] - 1):
        row["point"][i] = row["point"][i + 1]
    for i in range(row["points"] - 3):
        row["older_c_rate"][i] = row["older_c_rate"][i + 1]
        row["older_weight"][i] = row["older_weight"][i + 1]
    row["points"] -= 1


@njit
def _close_innermost(
    row: Row, law: Row, travelled: float, c_rate: float, weight: float
) -> tuple[float, float]:
    """Close the newest open range as a cycle, to make room, as if the movement that turns went past it.

    ``travelled``: what has been seen of that movement, which is the first to make up the cycle's second
    half; the segment before the newest gives what is missing. Returns what is left of ``c_rate`` and
    ``weight``, integrals over SOC, for the segment that goes on from where that one began.
    """
    n = int(row["points"])
    oldest = np.float64(row["point"][n - 3])
    turn = np.float64(row["point"][n - 2])
    present = np.float64(row["point"][n - 1])
    depth = abs(present - turn)
    of_new = min(depth / travelled, 1.0)
    of_older = max(depth - travelled, 0.0) / abs(turn - oldest)
    older_c_rate, older_weight = row["older_c_rate"][n - 3], row["older_weight"][n - 3]
    row["cycle"] += cycle_share_ev(
        law,
        min(turn, present),
        max(turn, present),
        2.0,
        row["c_rate"] + of_new * c_rate + of_older * older_c_rate,
        row["weight"] + of_new * weight + of_older * older_weight,
    )
    row["points"] = n - 2
    return (
        (1.0 - of_older) * older_c_rate + (1.0 - of_new) * c_rate,
        (1.0 - of_older) * older_weight + (1.0 - of_new) * weight,
    )


@njit
def count_ev(row: Row, law: Row, soc: float, c_rate: float, temperature_k: float) -> None:
    """Count the movement from the present state of charge to ``soc``, on the way to which nothing turns.

    ``c_rate``: integral of the C-rate (1/h) over the SOC moved. The first call says where the state of
    charge stands. No movement counts nothing.
    """
    n = int(row["points"])
    new = np.float32(soc)
    if n == 0:
        row["point"][0] = new
        row["points"] = 1
        return
    present = row["point"][n - 1]
    if new == present:
        return
    travelled = abs(np.float64(new) - np.float64(present))
    weight = float(travelled * temperature_factor_ev(law, temperature_k))
    if n > 1 and (new > present) == (present > row["point"][n - 2]):
        row["point"][n - 1] = new
        row["c_rate"] += c_rate
        row["weight"] += weight
    else:
        if n == POINTS:
            c_rate, weight = _close_innermost(row, law, travelled, c_rate, weight)
            n -= 2
        elif n > 1:
            row["older_c_rate"][n - 2] = row["c_rate"]
            row["older_weight"][n - 2] = row["weight"]
        row["point"][n] = new
        row["points"] = n + 1
        row["c_rate"] = c_rate
        row["weight"] = weight
    while row["points"] >= 3:
        n = int(row["points"])
        turn = np.float64(row["point"][n - 2])
        newest = abs(np.float64(row["point"][n - 1]) - turn)
        before = abs(turn - np.float64(row["point"][n - 3]))
        if newest < before:
            break
        if n == 3:  # it holds the first point of the history
            _drop_oldest(row, law)
            continue
        share = before / newest
        other = np.float64(row["point"][n - 3])
        row["cycle"] += cycle_share_ev(
            law,
            min(turn, other),
            max(turn, other),
            2.0,
            row["older_c_rate"][n - 3] + share * row["c_rate"],
            row["older_weight"][n - 3] + share * row["weight"],
        )
        row["c_rate"] = row["older_c_rate"][n - 4] + (1.0 - share) * row["c_rate"]
        row["weight"] = row["older_weight"][n - 4] + (1.0 - share) * row["weight"]
        row["point"][n - 3] = row["point"][n - 1]
        row["points"] = n - 2


# -- one EV ----------------------------------------------------------------------------------


@njit
def rest_ev(row: Row, laws: Row, soc: float, seconds: float, temperature_k: float) -> None:
    """Age an EV that stands at ``soc`` for ``seconds``; 0 s change nothing."""
    if seconds > 0.0:
        rate = exp(log_calendar_rate_ev(laws[row["law"]], soc, temperature_k))
        row["calendar"] += rate * (seconds / DAY_S)


@njit
def advance_ev(
    row: Row, laws: Row, soc_from: float, soc_to: float, seconds: float, temperature_k: float
) -> None:
    """Age an EV whose SOC goes evenly from one value to another within ``seconds``.

    A gap between ``soc_from`` and where the count stands is counted as part of the movement. A movement in
    no time (a millisecond) has no C-rate.
    """
    law = laws[row["law"]]
    if seconds > 0.0:
        rate = mean_calendar_rate_ev(law, soc_from, soc_to, temperature_k)
        row["calendar"] += rate * (seconds / DAY_S)
    if row["points"] == 0:
        count_ev(row, law, soc_from, 0.0, temperature_k)
    travelled = np.float64(np.float32(soc_to)) - np.float64(row["point"][row["points"] - 1])
    c_rate = 3600.0 * travelled * travelled / seconds if seconds > 1e-3 else 0.0
    count_ev(row, law, soc_to, c_rate, temperature_k)


@njit
def away_ev(
    row: Row,
    laws: Row,
    soc_from: float,
    soc_to: float,
    seconds: float,
    temperature_k: float,
    c_rate: float,
) -> None:
    """Age an EV that was away: half of the change of SOC first, a rest, and the other half last.

    What happened meanwhile isn't known: SOC moves at ``c_rate`` (1/h, > 0), or evenly all the time
    where that is too short.
    """
    moving_s = min(abs(soc_to - soc_from) * 3600.0 / c_rate, seconds)
    middle = (soc_from + soc_to) / 2.0
    advance_ev(row, laws, soc_from, middle, moving_s / 2.0, temperature_k)
    rest_ev(row, laws, middle, seconds - moving_s, temperature_k)
    advance_ev(row, laws, middle, soc_to, moving_s / 2.0, temperature_k)


@njit
def bring_to_ev(row: Row, laws: Row, time_s: float, soc: float, temperature_k: float, c_rate: float) -> None:
    """Age an EV up to ``time_s``, when its state of charge is ``soc``, since it was last brought to.

    Meanwhile SOC has not turned; ``c_rate``: the integral of the C-rate (1/h) over the SOC moved. For
    calendar ageing it is taken to have moved evenly. A time that isn't later ages nothing but takes the SOC
    as it is.
    """
    law = laws[row["law"]]
    seconds = time_s - row["since_s"]
    if seconds > 0.0:
        before = soc
        if row["points"] > 0:
            before = np.float64(row["point"][row["points"] - 1])
        row["calendar"] += mean_calendar_rate_ev(law, before, soc, temperature_k) * (seconds / DAY_S)
        row["since_s"] = time_s
    count_ev(row, law, soc, c_rate, temperature_k)


@njit
def calendar_loss_ev(row: Row, laws: Row) -> float:
    """Capacity lost to calendar ageing to date, as a share of the nominal capacity."""
    return float(row["calendar"] ** laws[row["law"]]["calendar_power"])


@njit
def cycle_loss_ev(row: Row, laws: Row) -> float:
    """Capacity lost to cycle ageing to date, open ranges counted as half cycles.

    It never falls, but for an open range of (4) that goes on much more slowly: its mean C-rate falls.
    """
    law = laws[row["law"]]
    total = row["cycle"]
    for at in range(row["points"] - 1):
        total += _share_of_segment(row, law, at)
    return float(total ** law["cycle_power"])


# -- arrays of EVs ---------------------------------------------------------------------------


def new_state(chemistry: ArrayLike) -> NDArray[Any]:
    """New batteries, one for each name of ``chemistry``, (ev,) str; (ev,) STATE.

    A new battery loses fastest: the first cycles of (2) cost many times what later ones do. Give
    a fleet its past by :func:`add_past` before its cost is looked at.

    Raises
    ------
    ValueError
        For a chemistry that isn't one of CHEMISTRIES.

    """
    names = np.atleast_1d(np.asarray(chemistry, np.str_))
    memory = np.zeros(len(names) * STATE.itemsize + LINE, np.uint8)  # each row on two cache lines
    begin = -memory.ctypes.data % LINE
    state = memory[begin : begin + len(names) * STATE.itemsize].view(STATE)
    known = np.zeros(len(names), np.bool_)
    for i, name in enumerate(CHEMISTRIES):
        state["law"][names == name] = i
        known |= names == name
    if not known.all():
        at = int(np.argmin(known))
        raise ValueError(f"chemistry[{at}] = {str(names[at])!r}: must be one of {', '.join(CHEMISTRIES)}")
    return state


def rest(state: NDArray[Any], soc: ArrayLike, seconds: ArrayLike, temperature_k: ArrayLike) -> None:
    """Age EVs that stand: ``state``, (ev,) STATE, is updated; the others broadcast to (ev,).

    soc : 0 to 1; seconds : s, at least 0; temperature_k : of the cells, K.

    Raises
    ------
    ValueError
        For a value out of range or not finite.

    """
    soc, seconds, temperature_k = (_each(state, a) for a in (soc, seconds, temperature_k))
    _check_soc("soc", soc)
    _check("seconds", seconds, 0.0, np.inf, "at least 0 s")
    _check_temperature(temperature_k)
    _rest(state, LAWS, soc, seconds, temperature_k)


def advance(
    state: NDArray[Any],
    soc_from: ArrayLike,
    soc_to: ArrayLike,
    seconds: ArrayLike,
    temperature_k: ArrayLike,
) -> None:
    """Age EVs whose SOC goes evenly from ``soc_from`` to ``soc_to`` within ``seconds``.

    As :func:`rest`; a gap between where the last call ended and ``soc_from`` is counted as part of
    the movement.
    """
    soc_from, soc_to, seconds, temperature_k = (
        _each(state, a) for a in (soc_from, soc_to, seconds, temperature_k)
    )
    _check_soc("soc_from", soc_from)
    _check_soc("soc_to", soc_to)
    _check("seconds", seconds, 0.0, np.inf, "at least 0 s")
    _check_temperature(temperature_k)
    _advance(state, LAWS, soc_from, soc_to, seconds, temperature_k)


def add_past(
    state: NDArray[Any],
    years: ArrayLike,
    soc: ArrayLike,
    temperature_k: ArrayLike,
    full_cycles_per_year: ArrayLike = 0.0,
    depth: ArrayLike = 0.5,
    c_rate: ArrayLike = 0.25,
) -> None:
    """Give EVs a past: years (of 365 days) at a mean SOC and temperature, and cycles about that SOC.

    Updates ``state``, (ev,); the others broadcast to it. ``full_cycles_per_year`` equivalent full
    cycles of ``depth`` (0 to 1) at ``c_rate`` (1/h) are added; where a cycle would pass empty or
    full, it is shifted.

    Raises
    ------
    ValueError
        For a value out of range or not finite.

    """
    years, soc, temperature_k, cycles, depth, c_rate = (
        _each(state, a) for a in (years, soc, temperature_k, full_cycles_per_year, depth, c_rate)
    )
    _check("years", years, 0.0, np.inf, "at least 0")
    _check_soc("soc", soc)
    _check_temperature(temperature_k)
    _check("full_cycles_per_year", cycles, 0.0, np.inf, "at least 0")
    _check_depth(depth)
    _check("c_rate", c_rate, 0.0, np.inf, "at least 0")
    _rest(state, LAWS, soc, years * 365.0 * DAY_S, temperature_k)
    low = np.clip(soc - depth / 2.0, 0.0, 1.0 - depth)
    state["cycle"] += cycles * years / depth * _cycle_shares(state, LAWS, low, depth, c_rate, temperature_k)


def calendar_loss(state: NDArray[Any]) -> NDArray[np.float64]:
    """Capacity lost to calendar ageing to date, as a share of the nominal capacity; (ev,)."""
    return _losses(state, LAWS)[0]


def cycle_loss(state: NDArray[Any]) -> NDArray[np.float64]:
    """Capacity lost to cycle ageing to date, as a share of the nominal capacity; (ev,)."""
    return _losses(state, LAWS)[1]


def relative_capacity(state: NDArray[Any]) -> NDArray[np.float64]:
    """Capacity that is left, as a share of the nominal one; (ev,).

    Ten years at SOC 0.5 and 25 °C leave 0.866 of an NMC battery, 0.963 of an LFP one.
    """
    calendar, cycle = _losses(state, LAWS)
    return 1.0 - calendar - cycle


def loss_percent(state: NDArray[Any]) -> NDArray[np.float64]:
    """Capacity lost to date, % of the nominal capacity; (ev,)."""
    calendar, cycle = _losses(state, LAWS)
    return 100.0 * (calendar + cycle)


def cost(
    loss: ArrayLike, capacity_kwh: ArrayLike, price_per_kwh: ArrayLike, worthless_at: float = 0.0
) -> NDArray[np.float64]:
    """What a loss of capacity costs, in the currency of the battery price; broadcasts.

    loss : share of the nominal capacity; price_per_kwh : of a new battery, a kWh of capacity;
    worthless_at : relative capacity at which the battery has lost all its worth. At 0 a lost kWh
    costs its price: 0.01 of 60 kWh at $139 is $83.40. At 0.8 it costs five times that.

    Raises
    ------
    ValueError
        For a negative capacity or price, or ``worthless_at`` out of 0 to 1.

    """
    if not 0.0 <= worthless_at < 1.0:
        raise ValueError(f"worthless_at = {worthless_at!r}: must be at least 0 and less than 1")
    capacity = np.asarray(capacity_kwh, np.float64)
    price = np.asarray(price_per_kwh, np.float64)
    _check("capacity_kwh", capacity, 0.0, np.inf, "at least 0 kWh")
    _check("price_per_kwh", price, 0.0, np.inf, "at least 0")
    worth: NDArray[np.float64] = np.asarray(loss, np.float64) * capacity * price / (1.0 - worthless_at)
    return worth


def cycling_cost_per_kwh(
    state: NDArray[Any],
    soc: ArrayLike,
    depth: ArrayLike,
    c_rate: ArrayLike,
    temperature_k: ArrayLike,
    price_per_kwh: ArrayLike,
    worthless_at: float = 0.0,
) -> NDArray[np.float64]:
    """Cost of the next cycle, per kWh that it takes out of the battery; (ev,), all broadcast.

    The cycle has ``depth`` (more than 0, at most 1) about ``soc`` (shifted where it would pass empty
    or full) at ``c_rate``. For a scheduler: what a V2G kWh must earn beside its losses. Calendar
    ageing goes on either way and isn't in it. ``state`` isn't changed.

    Raises
    ------
    ValueError
        For a value out of range or not finite.

    """
    soc, depth, c_rate, temperature_k = (_each(state, a) for a in (soc, depth, c_rate, temperature_k))
    _check_soc("soc", soc)
    _check_depth(depth)
    _check("c_rate", c_rate, 0.0, np.inf, "at least 0")
    _check_temperature(temperature_k)
    low = np.clip(soc - depth / 2.0, 0.0, 1.0 - depth)
    share = _cycle_shares(state, LAWS, low, depth, c_rate, temperature_k)
    power = LAWS["cycle_power"][state["law"]]
    before = cycle_loss(state)
    after = (before ** (1.0 / power) + share) ** power
    return cost((after - before) / depth, 1.0, price_per_kwh, worthless_at)


@njit
def _rest(
    state: Row, laws: Row, soc: NDArray[np.float64], seconds: NDArray[np.float64],
    temperature_k: NDArray[np.float64],
) -> None:  # fmt: skip
    for i in range(len(state)):
        rest_ev(state[i], laws, soc[i], seconds[i], temperature_k[i])


@njit
def _advance(
    state: Row, laws: Row, soc_from: NDArray[np.float64], soc_to: NDArray[np.float64],
    seconds: NDArray[np.float64], temperature_k: NDArray[np.float64],
) -> None:  # fmt: skip
    for i in range(len(state)):
        advance_ev(state[i], laws, soc_from[i], soc_to[i], seconds[i], temperature_k[i])


@njit
def _losses(state: Row, laws: Row) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    calendar = np.empty(len(state))
    cycle = np.empty(len(state))
    for i in range(len(state)):
        calendar[i] = calendar_loss_ev(state[i], laws)
        cycle[i] = cycle_loss_ev(state[i], laws)
    return calendar, cycle


@njit
def _cycle_shares(
    state: Row, laws: Row, low: NDArray[np.float64], depth: NDArray[np.float64],
    c_rate: NDArray[np.float64], temperature_k: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """What one full cycle from ``low`` to ``low + depth`` adds to the cycle loss ** (1 / p); (ev,)."""
    shares = np.empty(len(state))
    for i in range(len(state)):
        law = laws[state[i]["law"]]
        travelled = 2.0 * depth[i]
        weight = travelled * temperature_factor_ev(law, temperature_k[i])
        shares[i] = cycle_share_ev(law, low[i], low[i] + depth[i], 2.0, c_rate[i] * travelled, weight)
    return shares


def _each(state: NDArray[Any], values: ArrayLike) -> NDArray[np.float64]:
    return np.array(np.broadcast_to(np.asarray(values, np.float64), state.shape))


def _check(name: str, values: NDArray[np.float64], least: float, most: float, allowed: str) -> None:
    good = np.isfinite(values) & (values >= least) & (values <= most)
    if not good.all():
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        where = f"{name}[{', '.join(map(str, at))}]" if at else name
        raise ValueError(f"{where} = {float(values[at])!r}: must be {allowed}")


def _check_soc(name: str, soc: NDArray[np.float64]) -> None:
    _check(name, soc, 0.0, 1.0, "between 0 and 1")


def _check_depth(depth: NDArray[np.float64]) -> None:
    _check("depth", depth, np.nextafter(0.0, 1.0), 1.0, "more than 0 and at most 1")


def _check_temperature(temperature_k: NDArray[np.float64]) -> None:
    _check("temperature_k", temperature_k, 200.0, 400.0, "between 200 and 400 K; 25 °C is 298.15 K")
