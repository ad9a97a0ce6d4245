"""The interface of a model, and the static data shared by all models of a run.

A model is plain Python: it names the ports it takes and gives, its period, the result variables
it records, and steps. It never sees HELICS, a broker or a thread, so it can be tested on its own and
run in any deployment. Static data (:class:`Connections`, :class:`Clock`) never cross HELICS:
every process derives them from the same resolved scenario and seed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Values = Mapping[str, Array]
"""Port name to array of the port's shape."""

SAME_S = 1e-6
"""Moments that are nearer than this are the same."""

ALL_PHASES = -1
"""Phase index of elements on all three phases."""
NO_PHASE = -2
"""Phase index of what is on none, or on one that is not known yet."""
UPSTREAM = "upstream"
"""Name of the connection point of EVs that are connected upstream of the modelled feeder."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One result variable: its name, dimensions (besides ``time``), unit and long name.

    With ``timed`` it has a leading ``time`` dimension in the model's hands and is recorded as the
    mean over each recording interval; without, it is given once, at the end or the start.
    In the Dataset the dimensions stand in the order (member, time, the others).
    """

    name: str
    dims: tuple[str, ...]
    unit: str
    long_name: str
    timed: bool = True
    dtype: str = "float64"
    without_supply: float | None = None
    """With a number, 0 is no value but says that there was no supply: means over an interval leave it out,
    and an interval without any other value has this number. None: 0 is a value."""


class Recorder(Protocol):
    """Receives the values of a model's result variables."""

    def put(self, name: str, tick: int, values: NDArray[Any]) -> None:
        """Record a timed variable. ``values``: (n, *dims), for n of the model's own steps, the
        first of which begins at base tick ``tick``. Blocks come in order of time.
        """

    def put_static(self, name: str, values: NDArray[Any]) -> None:
        """Record a variable without time. ``values``: (*dims)."""


class Model(ABC):
    """A model behind a federate.

    ``step`` is called once a period with the simulated time and the latest inputs (views that are
    valid only inside the call), and returns arrays of the outputs' shapes. An exception raised
    in it ends the run with its message; a message about one member or element names it.

    Models with ``iterates`` solve for each other's outputs inside a step: after ``step``, ``again``
    is called as often as one of them gives new values, until none does.
    """

    name: str
    period_s: float
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()
    checked: frozenset[str] = frozenset()
    """Outputs that the model itself checks for NaN, which ends the run."""
    iterates: bool = False
    held_until: float = -math.inf
    """``time.monotonic`` up to which the step under way waited for somebody outside the run, infinity while
    it does: the watchdog leaves that time out."""

    @abstractmethod
    def step(self, time_s: float, inputs: Values) -> Values:
        """Advance over [time_s, time_s + period_s)."""

    def again(self, time_s: float, inputs: Values) -> Values:
        """Repeat the step at ``time_s`` from its beginning, with newer inputs.

        Returns the outputs, or nothing if those of the last call hold. The last call counts:
        the state and the results of the step are those of it.
        """
        raise NotImplementedError(f"{self.name} can't take a step again")

    def finish(self) -> None:
        """Called once after the last step: write remaining values to the recorder."""

    def audit(self) -> Mapping[str, Array]:
        """Independent accumulators, (member,) each, that the energy audit compares after the run."""
        return {}

    def attributes(self) -> Mapping[str, str]:
        """Attributes of the result; complete after ``finish``."""
        return {}


@dataclass(frozen=True, slots=True)
class Clock:
    """Simulated time: ``ticks`` periods of ``step_s`` seconds from ``start``."""

    start: np.datetime64
    step_s: float
    ticks: int

    @property
    def duration_s(self) -> float:
        """Length of the run in seconds."""
        return self.step_s * self.ticks

    def timestamps(self, time_s: NDArray[np.floating[Any]]) -> NDArray[np.datetime64]:
        """Real (local, naive) timestamps of simulated times; (n,) datetime64[ns]."""
        since: NDArray[np.timedelta64] = np.round(time_s * 1e9).astype("timedelta64[ns]")
        return np.asarray(self.start.astype("datetime64[ns]") + since)

    def stamp(self, time_s: float) -> str:
        """A simulated time as text for messages: 2026-01-15T18:00:00."""
        return str(self.timestamps(np.array([time_s]))[0].astype("datetime64[s]"))


@dataclass(frozen=True, slots=True)
class Connections:
    """The feeder's connection points, one a load of the net, of households and EVs.

    name : (connection,) str, the load's name
    bus : (connection,) int, position of its bus along the result's ``bus`` dimension
    phase : (connection,) int8, 0/1/2 for a single-phase connection, ALL_PHASES for three phases
    trafo : (connection,) int, position of the transformer next upstream along ``trafo``, of a bank that of
        its first unit; -1 if none
    households : (connection,) int, households behind it
    phases : labels of the phase dimension, ("a", "b", "c"), or ("abc",) for a balanced feeder,
        whose only slot carries the sum over the phases
    upstream : whether the last one is no load of the net but represents EVs upstream of the
        feeder: of three phases, without bus (-1) and transformer; its power never enters the power flow
    nodes : (connection, 3) str, nodes between which an EV in each place along ``phase`` is, such as ``b``,
        ``a-b`` or ``s1-s2``; "" where it can't be; None: the phases themselves
    """

    name: NDArray[np.str_]
    bus: NDArray[np.int64]
    phase: NDArray[np.int8]
    trafo: NDArray[np.int64]
    households: NDArray[np.int64]
    phases: tuple[str, ...]
    upstream: bool = False
    nodes: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.name)

    def slot_of(self, label: str) -> NDArray[np.int8]:
        """Phase index of an EV on nodes ``label`` at each connection of a three-phase feeder, (connection,);
        NO_PHASE where it can't be. Between two phases ``a``, ``b`` or ``c`` is the first of them.
        """
        found = np.full(len(self), NO_PHASE, np.int8)
        for slot, phase in enumerate("abc"):
            here = np.isin(self.phase, (slot, ALL_PHASES))
            if self.nodes is None:
                own = label == phase
            else:
                legs = np.char.startswith(self.nodes[:, slot], "s")
                own = (self.nodes[:, slot] == label) | ((label == phase) & ~legs)
            found[here & own] = slot
        return found

    def only(self, at: int) -> str:
        """The nodes of a connection of one phase in messages: "phase b", "phases a-b", "legs s1-s2"."""
        slot = int(self.phase[at])
        label = self.phases[slot] if self.nodes is None else str(self.nodes[at, slot])
        kind = "leg" if label.startswith("s") else "phase"
        return f"{kind}{'s' if '-' in label else ''} {label}"

    @property
    def on_feeder(self) -> int:
        """Number of connection points of the feeder itself; they are the first."""
        return len(self) - self.upstream

    def with_upstream(self) -> Connections:
        """The same and a last one, named UPSTREAM, for EVs upstream of the feeder."""
        return Connections(
            np.append(self.name, UPSTREAM), np.append(self.bus, -1),
            np.append(self.phase, np.int8(ALL_PHASES)), np.append(self.trafo, -1),
            np.append(self.households, 0), self.phases, upstream=True,
            nodes=None if self.nodes is None else np.concatenate([self.nodes, [self.phases]]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EVs:
    """All EVs of all members in one flat table, sorted by member.

    member : (ev,) int64, position along the run's ``member`` dimension
    connection : (ev,) int64, position along ``connection``
    phase : (ev,) int8, 0/1/2 for a single-phase charger, ALL_PHASES for a three-phase one
    name : (ev,) str, unique within a member
    """

    member: NDArray[np.int64]
    connection: NDArray[np.int64]
    phase: NDArray[np.int8]
    name: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.member)

    def take(self, rows: NDArray[np.int64]) -> EVs:
        """The EVs of some rows, in that order."""
        return EVs(self.member[rows], self.connection[rows], self.phase[rows], self.name[rows])


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of time of several rows, as compressed rows.

    first : (row + 1,) int64, position of the first span of each row, and their number at the end
    begin_s, end_s : (n,) s from the run's start, sorted and apart from each other within a row
    """

    first: NDArray[np.int64]
    begin_s: Array
    end_s: Array

    def row(self) -> NDArray[np.int64]:
        """The row of each span, (n,)."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def of(self, row: int) -> tuple[Array, Array]:
        """Begins and ends of a row's spans."""
        own = slice(int(self.first[row]), int(self.first[row + 1]))
        return self.begin_s[own], self.end_s[own]


@dataclass(frozen=True, slots=True)
class Outages(Spans):
    """Outages of a run: when each connection point is without supply, and why.

    The spans are those of the connection points, row ``member * connections + connection``, as the topology
    of the network gives them with the elements out of service. They may begin before the run or end after it.

    generators : when each fixed generator stands still, row ``member * generators + generator``
    element : (span of elements,) int64, which element is out, see :attr:`elements`
    elements : when elements are out of service, row ``member``; spans of a member are sorted by begin, and
        those of one element are apart from each other
    notes : assumptions, a sentence each
    """

    generators: Spans
    element: NDArray[np.int64]
    elements: Spans
    notes: tuple[str, ...] = ()

    def throughout(self, times_s: Array, step_s: float) -> dict[tuple[int, int], frozenset[int]]:
        """Elements out of service throughout the steps of ``step_s`` that begin at ``times_s``, (n,) s
        ascending, by (step, member); only where there are any.
        """
        spans, found = self.elements, dict[tuple[int, int], set[int]]()
        member = spans.row()
        for row in np.flatnonzero((spans.begin_s < times_s[-1] + step_s) & (spans.end_s > times_s[0])):
            whole = (spans.begin_s[row] <= times_s + SAME_S) & (spans.end_s[row] >= times_s + step_s - SAME_S)
            for step in np.flatnonzero(whole).tolist():
                found.setdefault((step, int(member[row])), set()).add(int(self.element[row]))
        return {at: frozenset(out) for at, out in found.items()}


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Sensitivities of voltages to the power drawn at the connection points, about an operating point.

    bus : (place,) int, position of the bus of each place; by default the connection points' own
    voltage_pu : (place, phase) voltage at the operating point; NaN where no source feeds the bus
    dv_dp : (place, phase, connection, phase) change of the voltage, pu, per kW drawn at a connection and
        phase: negative where the phase is the same, as a rule; 0 on phases that the connection does not have
    dv_dq : the same per kvar drawn
    """

    bus: NDArray[np.int64]
    voltage_pu: Array
    dv_dp: Array
    dv_dq: Array


class HeldLoad(Protocol):
    """The load of the connection points without EVs, piecewise constant, as another model knows it."""

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """Mean active power in kW and reactive power in kvar from each time to ``until_s``, both (n,) s from
        the run's start; (n, member or 1, connection, phase).
        """

    def changes(self, begin_s: float, end_s: float) -> Array:
        """Times at which it may change, from ``begin_s`` to ``end_s`` and with both, s; (n + 1,)."""


AGGREGATOR = "aggregator"
"""Name of the federate of an aggregator that has all EVs."""


@dataclass(frozen=True, slots=True)
class Portfolio:
    """An aggregator's EVs.

    name, number : its name in the scenario and its place there
    rows : (n,) int64, rows of its EVs in the table of all, ascending
    whole : whether these are all EVs
    """

    name: str
    number: int
    rows: NDArray[np.int64]
    whole: bool

    @property
    def federate(self) -> str:
        """Name of its federate."""
        return AGGREGATOR if self.whole else f"{AGGREGATOR}.{self.name}"

    def port(self, name: str) -> str:
        """Its own port for ``aggregator/...`` or ``fleet/...``; the same port if it has all EVs."""
        giver, _, quantity = name.partition("/")
        if self.whole:
            return name
        return f"{self.federate}/{quantity}" if giver == AGGREGATOR else f"{name}.{self.name}"

    def variable(self, name: str) -> str:
        """Its own result variable."""
        return name if self.whole else f"{name}_{self.name}"

    def take(self, values: NDArray[Any]) -> NDArray[Any]:
        """Its part of an array over all EVs."""
        return values if self.whole else values[self.rows]


@dataclass(frozen=True, slots=True)
class PlannedSessions:
    """The sessions as a planner knows them, sorted by EV, then arrival; (session,) each.

    ev : int64, row of the EV
    arrival_s, departure_s : s from the start of the run
    soc_arrival, soc_target, soc_floor : 0 to 1
    soc_reach : the lesser of the target and what charging as fast as possible reaches by departure
    capacity_kwh : usable, kWh
    charge_kw, discharge_kw : most that the EV draws and gives, kW at the grid; 0: it may not
    charge_efficiency, discharge_efficiency : at those powers, 0 to 1
    taper_s : time that charging to the target, from below ``taper_soc``, takes beyond that at full power, s
    taper_soc, full_soc : states of charge above which the power of charging falls, and at which a straight
        line that takes as long to the target falls to 0
    """

    ev: NDArray[np.int64]
    arrival_s: Array
    departure_s: Array
    soc_arrival: Array
    soc_target: Array
    soc_floor: Array
    soc_reach: Array
    capacity_kwh: Array
    charge_kw: Array
    discharge_kw: Array
    charge_efficiency: Array
    discharge_efficiency: Array
    taper_s: Array
    taper_soc: Array
    full_soc: Array

    def __len__(self) -> int:
        return len(self.ev)

    def of(self, evs: NDArray[np.int64]) -> PlannedSessions:
        """The sessions of some EVs, ascending, which are renumbered."""
        row = np.full(int(max(self.ev.max(initial=-1), evs.max(initial=-1))) + 1, -1)
        row[evs] = np.arange(len(evs))
        own = np.flatnonzero(row[self.ev] >= 0)
        columns = {name: getattr(self, name)[own] for name in self.__slots__}
        return PlannedSessions(**{**columns, "ev": row[columns["ev"]]})

    def seconds_to_target(self, rows: NDArray[np.int64]) -> Array:
        """Time that charging as fast as possible takes from arrival to target, s, (n,) of some sessions.

        0 where nothing is needed or they may not charge.
        """
        soc, target, knee = self.soc_arrival[rows], self.soc_target[rows], self.taper_soc[rows]
        needs = (target > soc) & (self.charge_kw[rows] > 0)
        s_per_soc = 3600.0 * self.capacity_kwh[rows]
        s_per_soc /= np.maximum(self.charge_efficiency[rows] * self.charge_kw[rows], 1e-9)
        beyond, full = self.taper_s[rows], self.full_soc[rows]
        inside = needs & (soc > knee)  # it arrives where the power falls already
        left = np.log((full - soc)[inside] / np.maximum((full - target)[inside], 1e-12))
        beyond[inside] = s_per_soc[inside] * ((full - knee)[inside] * left - (target - soc)[inside])
        return np.where(needs, s_per_soc * (target - soc) + beyond, 0.0)

    def current(self, time_s: float, count: int) -> NDArray[np.int64]:
        """Last session that each of ``count`` EVs has begun by a time, else its first, (ev,); -1: none."""
        begun = self.arrival_s <= time_s + 1e-6
        first = np.searchsorted(self.ev, np.arange(count))
        of_ev = np.bincount(self.ev, minlength=count)
        number = np.bincount(self.ev, begun, count).astype(np.int64)
        return np.where(of_ev > 0, first + np.maximum(number - 1, 0), -1)


@dataclass
class MemoryRecorder:
    """Stores all values in memory: for tests and for single models."""

    timed: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    static: dict[str, NDArray[Any]] = field(default_factory=dict)

    def put(self, name: str, tick: int, values: NDArray[Any]) -> None:
        """See :class:`Recorder`."""
        self.timed.setdefault(name, []).append(np.array(values))

    def put_static(self, name: str, values: NDArray[Any]) -> None:
        """See :class:`Recorder`."""
        self.static[name] = np.array(values)

    def series(self, name: str) -> NDArray[Any]:
        """A timed variable as one array, (time, *dims)."""
        return np.concatenate(self.timed[name])
