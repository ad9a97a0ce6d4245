"""Charging strategies: what an aggregator asks of each EV.

A strategy is a class with a ``setpoints`` method, registered under the name that the YAML uses. A
user's own is one class in the user's own file, named ``my_module:MyStrategy``; the file stands
beside the scenario or anywhere Python finds it. Keys of the aggregator other than ``strategy`` are
the strategy's settings, checked against its ``Settings``.

Every tick a strategy sees a :class:`View` of the fleet, as old as the telemetry, and returns one
set-point an EV. Each EVSE guards its driver: whatever the set-point, it charges as fast as it can
from the moment at which the energy wanted by departure would otherwise be out of reach.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, ValidationError

from evgrid.aggregator.kernels import fill_least, order_by_group, share_by_laxity
from evgrid.errors import ScenarioError
from evgrid.model import Array, Clock, EVs, Sensitivity, Stays, Variable
from evgrid.portfolios import OwnCommunication, Selection
from evgrid.readers.user_code import user_class
from evgrid.settings import Duration, Settings, faults_of
from evgrid.system.settings import System
from evgrid.tariff import Prices, Tariff, prices_of


class StrategySettings(Settings):
    """Settings of an aggregator; a strategy with settings of its own extends it."""

    strategy: str
    """Name of a built-in strategy, or my_module:MyStrategy."""
    group: Literal["transformer", "feeder"] = "transformer"
    """What the EVs are grouped by: the transformer next upstream, or the whole feeder."""
    evs: Selection | None = None
    """Which EVs it has, such as {share: 0.4}; left out: those that no other aggregator has."""
    communication: OwnCommunication | None = None
    """Its own link to the chargers; left out: the scenario's."""
    _class: type[Strategy] | None = PrivateAttr(None)

    @property
    def strategy_class(self) -> type[Strategy]:
        """The class of the strategy: the one that these settings were checked for."""
        return self._class or find_strategy(self.strategy)

    @property
    def user_classes(self) -> tuple[type, ...]:
        """The classes of the user's own that these settings name."""
        return (self.strategy_class,) if ":" in self.strategy else ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a strategy knows from the start.

    evs : those of the aggregator, in the order of all arrays (ev,)
    groups : number of groups in each member; EVs upstream of the feeder are in one of their own, the last
    ev_group : (ev,) int64, row of the EV's group in arrays of shape (member · groups,)
    system : the scenario's bulk system, if it has one
    numbers : the members' numbers
    seed : the scenario's
    sensitivity : of the voltages at the connection points; None for a strategy that does not set
        ``uses_voltage``
    stays : the EVs' sessions, past and to come: what the vehicles are, and what a perfect forecast knows
    base_load : power of everything in each group that is no EV, without losses, (member · groups, n) kW: what
        a perfect forecast knows. Of (n,) times, s, the means over one feeder step from each; with (n,) ends
        besides, the means from each time to its end
    upstream : whether there are EVs upstream of the feeder
    answering : number of the run's aggregators whose strategies set ``uses_voltage``
    """

    clock: Clock
    tariff: Tariff | None
    evs: EVs
    groups: int
    ev_group: NDArray[np.int64]
    system: System | None = None
    numbers: range = range(1)
    seed: int = 0
    sensitivity: Sensitivity | None = None
    stays: Stays | None = None
    base_load: Callable[..., Array] | None = None
    upstream: bool = False
    answering: int = 1

    @property
    def members(self) -> int:
        """Number of members."""
        return len(self.numbers)

    @property
    def prices(self) -> Prices | None:
        """What energy costs, by the tariff or else by ``system.energy_price``; None where neither is."""
        return prices_of(self.tariff, self.system, self.clock)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What each EV may do over a horizon, (ev, slot) but for ``round_trip``; 0 for EVs that are away.

    begin_s, slot_s : begin of the first slot, and length of each
    p_min, p_max : least and most mean power in the slot, kW at the grid
    e_min, e_max : least and most energy at the slot's end, kWh at the meter from ``begin_s`` on: a slot at
        full power changes it by the power drawn, and a kWh given back by 1 / ``round_trip``
    round_trip : (ev,) 0 to 1
    """

    begin_s: float
    slot_s: float
    p_min: Array
    p_max: Array
    e_min: Array
    e_max: Array
    round_trip: Array


@dataclass(frozen=True, slots=True)
class View:
    """What a strategy sees at a tick; arrays are (ev,) unless said otherwise.

    Power is in kW at the grid, positive when drawn. The state of the EVs is the last that they
    reported; times and energies are carried forward from then to now.
    """

    time_s: float
    step_s: float
    plugged: NDArray[np.bool_]
    soc: Array
    p_max: Array
    p_min: Array
    energy_needed: Array
    time_left: Array
    time_needed: Array
    base_load: Array
    """(member · groups,) last known power of everything in the group but the aggregator's EVs, with
    losses; zeros for a strategy that does not set ``uses_feeder``. With a limit also what EVs that come in
    this tick can't put off until the next."""
    regulation: Array = field(default_factory=lambda: np.zeros(1))
    """(member,) regulation signal of this tick, -1 to 1; positive asks for less drawn. Zeros for a
    strategy that does not set ``uses_system``, as the two below."""
    frequency: Array = field(default_factory=lambda: np.zeros(1))
    """(member,) Hz."""
    fleet_power: Array = field(default_factory=lambda: np.zeros(1))
    """(member,) kW that the aggregator's EVs drew in the last tick."""
    envelope: Envelope | None = None
    """The last one that the fleet sent (``fleet.envelope.every``); None before the first, and for a
    strategy that does not set ``uses_envelope``."""
    voltage: Array = field(default_factory=lambda: np.zeros((1, 1, 1)))
    """(member, connection, phase) pu, when the feeder last solved; 0 where there is none, and before it first
    did. Zeros for a strategy that does not set ``uses_voltage``, as the one below."""
    power_then: Array = field(default_factory=lambda: np.zeros((1, 1, 1)))
    """(member, connection, phase) kW that the aggregator's EVs drew at that voltage."""
    owed: Array = field(default_factory=lambda: np.zeros(1))
    """(member · groups,) kW by which each group is to draw less than a limit allows, for what it drew beyond
    in the interval of ``limit_over``; negative: by which it is to feed back less. 0 without an interval."""
    rows: NDArray[np.uint32] | None = None
    """(n,) the EVs that were plugged in when they last reported, ascending; the same array until they report
    again. None: not told."""

    @property
    def laxity(self) -> Array:
        """Time that the EV can still wait, s; negative where departure comes too early."""
        return self.time_left - self.time_needed

    def of_member(self, position: int, evs: slice, groups: slice) -> View:
        """What there is of one member: its place, its EVs and its groups along the arrays."""
        one = slice(position, position + 1)
        ahead = self.envelope
        if ahead is not None:
            limits = (ahead.p_min, ahead.p_max, ahead.e_min, ahead.e_max, ahead.round_trip)
            ahead = Envelope(ahead.begin_s, ahead.slot_s, *(limit[evs] for limit in limits))
        return View(
            self.time_s, self.step_s, self.plugged[evs], self.soc[evs], self.p_max[evs], self.p_min[evs],
            self.energy_needed[evs], self.time_left[evs], self.time_needed[evs], self.base_load[groups],
            self.regulation[one], self.frequency[one], self.fleet_power[one],
            ahead, self.voltage[one], self.power_then[one], self.owed[groups],
        )  # fmt: skip


class Strategy(ABC):
    """Base of all strategies."""

    Settings: ClassVar[type[StrategySettings]] = StrategySettings
    ignores: ClassVar[tuple[str, ...]] = ()
    """Settings of every aggregator that mean nothing to the strategy: they are refused."""
    needs_prices: ClassVar[bool] = False
    """True if the strategy can't work without ``Context.prices``: a tariff or ``system.energy_price``."""
    uses_feeder: ClassVar[bool] = False
    """True if the strategy reads ``View.base_load``: the aggregator then listens to the feeder."""
    uses_system: ClassVar[bool] = False
    """True if the strategy reads ``View.regulation``, ``frequency`` or ``fleet_power``: the aggregator
    then listens to the fleet's power and to the bulk system, if the scenario has one."""
    uses_envelope: ClassVar[bool] = False
    """True if the strategy reads ``View.envelope``: the scenario must then have a ``fleet.envelope``."""
    uses_voltage: ClassVar[bool] = False
    """True if the strategy reads ``View.voltage`` or ``Context.sensitivity``."""
    takes_upstream: ClassVar[bool] = False
    """True if the strategy knows what to do with EVs upstream of the feeder though it goes by the feeder."""
    may_raise_peak: ClassVar[bool] = False
    """True if the strategy moves charging together for reasons of its own: the result then tells what peak
    charging at once would have come to."""
    needs_of_system: ClassVar[tuple[str, ...]] = ()
    """Keys of the scenario's section ``system`` without which the strategy can't work."""
    variables: ClassVar[tuple[Variable, ...]] = ()
    """What the strategy records: of the timed ones it puts the values of a tick into ``recorded``, the
    others it returns from :meth:`results`. The dimension ``hour`` counts the run's whole hours."""

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings = settings
        self.context = context
        self.recorded: dict[str, Array] = {}
        self.at_member: int | None = None
        """Number of the member that is being looked at, for the messages of errors; None: all."""

    @classmethod
    def needs(cls, settings: Any) -> tuple[str, ...]:
        """Keys of the section ``system`` that the strategy needs with its settings."""
        return cls.needs_of_system

    @classmethod
    def goes_by_prices(cls, settings: Any) -> bool:
        """Whether the strategy can't work without prices with its settings; as ``needs_prices`` says."""
        return cls.needs_prices

    @classmethod
    def goes_by_feeder(cls, settings: Any) -> bool:
        """Whether the strategy reads ``View.base_load`` with its settings; as ``uses_feeder`` says."""
        return cls.uses_feeder

    @classmethod
    def goes_by_envelope(cls, settings: Any) -> bool:
        """Whether the strategy reads ``View.envelope`` with its settings; as ``uses_envelope`` says."""
        return cls.uses_envelope

    @abstractmethod
    def setpoints(self, view: View) -> Array:
        """Power asked of each EV, (ev,) kW: positive charges, negative discharges, +inf charges as
        fast as the EV can. Values for EVs that are away are ignored; NaN for another is an error.
        """

    def results(self) -> dict[str, Array]:
        """Values of the variables without time, asked for once after the last tick."""
        return {}


class MemberStrategy(Strategy):
    """Base of strategies that look at one member at a time; an error then names the member.

    Slower than arrays over all members, and easier to write.
    """

    @abstractmethod
    def member_setpoints(self, view: View, member: int) -> Array:
        """Power asked of each EV of a member, as :meth:`Strategy.setpoints`; ``member`` is its number."""

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        context = self.context
        edges = np.searchsorted(context.evs.member, np.arange(context.members + 1)).tolist()
        found = [np.zeros(0)]
        for position, self.at_member in enumerate(context.numbers):
            own = slice(edges[position], edges[position + 1])
            groups = slice(position * context.groups, (position + 1) * context.groups)
            part = np.asarray(self.member_setpoints(view.of_member(position, own, groups), self.at_member))
            if part.shape != (own.stop - own.start,):
                raise ValueError(
                    f"member_setpoints returned an array of shape {part.shape}: must be "
                    f"({own.stop - own.start},), one set-point an EV of the member"
                )
            found.append(part)
        self.at_member = None
        return np.concatenate(found)


_REGISTRY: dict[str, type[Strategy]] = {}
_BUILT_IN = (
    "evgrid.aggregator.markets",
    "evgrid.aggregator.regulation",
    "evgrid.aggregator.reserve",
    "evgrid.aggregator.scheduled",
    "evgrid.aggregator.voltage_support",
)
"""Modules, besides this one, that register strategies."""


def register(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Class decorator: make a strategy known under ``name``."""

    def add(cls: type[Strategy]) -> type[Strategy]:
        _REGISTRY[name] = cls
        return cls

    return add


def built_in() -> tuple[str, ...]:
    """Names of the built-in strategies."""
    for module in _BUILT_IN:
        importlib.import_module(module)
    return tuple(sorted(_REGISTRY))


def find_strategy(name: str, folder: str | None = None) -> type[Strategy]:
    """The class behind a strategy's name; ``folder``: the scenario's, for a user's own.

    Raises ValueError with one sentence if there is none.
    """
    if ":" not in name:
        if name not in built_in():
            known = ", ".join(built_in())
            raise ValueError(f"must be one of {known}, or your own as my_module:MyStrategy")
        return _REGISTRY[name]
    found = user_class(name, folder)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ValueError(f"{name} is no subclass of evgrid.Strategy")
    return found


def strategy_settings(given: Any, context: Mapping[str, Any], path: str) -> StrategySettings:
    """Check an aggregator's settings against those of the strategy that it names.

    Raises ScenarioError with every fault, each beginning with ``path``.
    """
    if isinstance(given, StrategySettings):
        return given
    if not isinstance(given, Mapping):
        raise ScenarioError([f"{path}: must be a mapping such as {{strategy: tou}}"])
    if not isinstance(given.get("strategy"), str):
        raise ScenarioError([f"{path}.strategy: is required"])
    try:
        cls = find_strategy(given["strategy"], context.get("folder"))
    except ValueError as error:
        raise ScenarioError([f"{path}.strategy = {given['strategy']}: {error}"]) from error
    try:
        settings = cls.Settings.model_validate(given, context=dict(context))
    except ValidationError as error:
        raise ScenarioError(faults_of(error, cls.Settings, path)) from None
    fields = cls.Settings.model_fields
    if found := [
        f"{path}.{name}: has no meaning with the strategy {given['strategy']}"
        for name in cls.ignores
        if getattr(settings, name) != fields[name].default
    ]:
        raise ScenarioError(found)
    settings._class = cls
    return settings


@register("uncontrolled")
class Uncontrolled(Strategy):
    """Every EV charges as fast as it can from the moment it is plugged in."""

    ignores = ("group", "communication")

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        return np.full(len(view.soc), np.inf)


class CheapestFirst(Strategy):
    """Base of strategies that charge in the cheapest slots that still meet the departure.

    Exact without a schedule: an EV charges now if and only if the cheaper slots left before its
    departure do not suffice, and only for as much of the tick as they fall short. That is the
    greedy fill of the cheapest slots, of equal ones the earliest, which is optimal since nothing couples
    the EVs; an EV in its taper, whose power falls with its state of charge, is served as if all slots
    were alike.
    """

    may_raise_peak = True
    slot_s: ClassVar[float] = 3600.0
    """Length of a slot, s; divides an hour, and the tick divides it. Slots begin on the full hour, unless
    :meth:`slots` says otherwise."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        clock = context.clock
        origin = clock.start.astype("datetime64[h]")
        # slots to look ahead: a departure further off is planned when it comes nearer
        hours = int(np.ceil(clock.duration_s / 3600)) + 1 + _LOOK_AHEAD_H
        begin_s = -float((clock.start - origin) / np.timedelta64(1, "s"))
        self.edges_s = self.slots(begin_s, begin_s + 3600.0 * hours)
        self.cost = self.costs(self.edges_s)
        self._slot = -1
        self._cheaper_s = np.zeros(0)

    def slots(self, begin_s: float, end_s: float) -> Array:
        """The slots' edges from a full hour to another, (slot + 1,) s from the run's start."""
        return begin_s + self.slot_s * np.arange(round((end_s - begin_s) / self.slot_s) + 1, dtype=np.float64)

    @abstractmethod
    def costs(self, edges_s: Array) -> Array:
        """Cost of each of the slots between ``edges_s``, (slot + 1,) s from the run's start; (slot,)."""

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        return self.cheapest(view, self.cost)

    def cheapest(self, view: View, cost: Array) -> Array:
        """Set-points for the cost of each slot, (slot,); (ev,) kW."""
        slot = int(np.searchsorted(self.edges_s, view.time_s + 1e-6, "right")) - 1
        if cost is not self.cost:
            cheaper_s = self._cheaper_than(slot, cost)
        else:
            if slot != self._slot:
                self._slot, self._cheaper_s = slot, self._cheaper_than(slot, cost)
            cheaper_s = self._cheaper_s
        until_s = np.interp(view.time_s + view.time_left, self.edges_s, cheaper_s)
        missing_s = view.time_needed - (until_s - np.interp(view.time_s, self.edges_s, cheaper_s))
        share = np.clip(missing_s / view.step_s, 0.0, 1.0)
        charge: Array = np.where(share >= 1.0, np.inf, share * view.p_max)
        return charge

    def _cheaper_than(self, slot: int, cost: Array) -> Array:
        """Time before each edge in slots that cost less than one does, (slot + 1,) s."""
        return np.concatenate([[0.0], np.cumsum((cost < cost[slot]) * np.diff(self.edges_s))])

    def price_edges(self, begin_s: float, end_s: float) -> Array:
        """Ticks between two times, and these, at which prices may change, s; around a change within a tick
        both ends of the tick. Without prices only the two times.
        """
        step_s, prices = self.context.clock.step_s, self.context.prices
        inner = prices.edges(begin_s, end_s) / step_s if prices is not None else np.zeros(0)
        at = np.concatenate([np.floor(inner + 1e-9), np.ceil(inner - 1e-9)]) * step_s
        return np.unique([begin_s, *at[(at > begin_s) & (at < end_s)], end_s])


@register("tou")
class TimeOfUse(CheapestFirst):
    """Charge at the cheapest times that still meet the departure; of equal ones, the earliest.

    Slots are what lies between two changes of the price.
    """

    needs_prices = True

    def slots(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`CheapestFirst.slots`."""
        return self.price_edges(begin_s, end_s)

    def costs(self, edges_s: Array) -> Array:
        """See :meth:`CheapestFirst.costs`: currency per kWh."""
        prices = self.context.prices
        assert prices is not None
        return prices.means(edges_s)[0]


_LOOK_AHEAD_H = 7 * 24
_COUNTED_ON = 0.9
"""Share of the room within a limit that is counted on for later: the rest is for what can't be foreseen, such
as arrivals, and for what sharing by laxity falls short of."""
_AHEAD_S = 900.0
"""Spacing of the moments at which a forecast of the base load is looked up, s."""


class DispatchSettings(StrategySettings):
    """Settings of the strategies that split a group's power over its EVs by laxity."""

    smoothing: Annotated[Duration, Field(gt=0)] | None = None
    """Range of laxity over which the share of an EV's limit falls from 1 to 0; left out: a tick.
    Wide: EVs of like laxity charge alike at part of their power; narrow: one after the other."""
    hysteresis: Annotated[Duration, Field(ge=0)] = 0.0
    """Laxity by which an EV that already charges (or discharges) goes before one that doesn't, against
    chatter."""


class Dispatching(Strategy):
    """Base of strategies that give each group a power and split it by laxity."""

    Settings: ClassVar[type[StrategySettings]] = DispatchSettings

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._last = np.zeros(len(context.evs))
        self._rows: NDArray[np.uint32] | None = None
        self._order = order_by_group(np.zeros(0, np.uint32), context.ev_group, 0)

    def dispatch(self, view: View, headroom: Array, p_min: Array | None = None) -> Array:
        """Split ``headroom``, (member · groups,) kW, over the EVs; (ev,) kW, valid until the next call.

        ``p_min``: what each EV may be asked to give, if not all that it can. Who must charge to make
        the departure does, whatever the headroom.
        """
        settings = self.settings
        width_s = view.step_s if settings.smoothing is None else settings.smoothing
        if view.rows is None or view.rows is not self._rows:
            self._reorder(view, len(headroom))
        share_by_laxity(
            self._order, headroom, view.p_max, view.p_min if p_min is None else p_min,
            view.time_left, view.time_needed, view.step_s, width_s, self._last, settings.hysteresis,
        )  # fmt: skip
        return self._last

    def _reorder(self, view: View, groups: int) -> None:
        """Look at those that are plugged in now; who is away has no power."""
        self._rows = view.rows
        rows = np.flatnonzero(view.plugged).astype(np.uint32) if view.rows is None else view.rows
        self._order = order_by_group(rows, self.context.ev_group, groups)
        power = np.zeros_like(self._last)
        power[rows] = self._last[rows]
        self._last = power


class WithinSettings(DispatchSettings):
    """Settings of the strategies that may have a limit of each group's power, drawn and fed back."""

    limit_kw: Annotated[float, Field(gt=0)] | None = None
    """Most that each group may draw, kW over all phases, EVs and everything else together, and most that it
    may feed back unless export_limit_kw says otherwise; left out: no limit. It yields to departures."""
    export_limit_kw: Annotated[float, Field(ge=0)] | None = None
    """Most that each group may feed back, kW; left out: limit_kw."""
    limit_over: Annotated[Duration, Field(gt=0)] | None = None
    """Interval over whose mean the limit holds, such as 15min, counted from the run's start: what a tick
    draws beyond the limit is made up for in the rest of it. Left out: each tick."""

    @property
    def most_kw(self) -> float:
        """Most that a group may draw, kW; infinite without a limit."""
        return np.inf if self.limit_kw is None else self.limit_kw

    @property
    def least_kw(self) -> float:
        """Least that a group may draw, kW: minus what it may feed back; minus infinity without a limit."""
        return -(self.most_kw if self.export_limit_kw is None else self.export_limit_kw)

    @property
    def limited(self) -> bool:
        """Whether there is a limit either way."""
        return self.limit_kw is not None or self.export_limit_kw is not None


class LimitSettings(WithinSettings):
    """Settings of the strategies that keep a group within a limit."""

    limit_kw: Annotated[float, Field(gt=0)]
    """Most that each group may draw, kW over all phases, EVs and everything else together, and most that it
    may feed back unless export_limit_kw says otherwise. It yields to departures."""


def room(settings: WithinSettings, view: View) -> tuple[Array, Array]:
    """Least and most that a limit lets the EVs of each group draw together, (member · groups,) kW each.

    Both may be of either sign: a least above 0 asks them to take up what the group would else feed back.
    """
    low = settings.least_kw - view.base_load - np.minimum(view.owed, 0.0)
    return low, settings.most_kw - view.base_load - np.maximum(view.owed, 0.0)


def least_powers(view: View) -> Array:
    """Least mean power of each EV over the tick from which it makes its departure, (ev,) kW; 0 for those
    away.

    See :func:`evgrid.aggregator.kernels.bounds`.
    """
    least = np.zeros(len(view.soc))
    rows = np.flatnonzero(view.plugged).astype(np.uint32) if view.rows is None else view.rows
    fill_least(rows, view.p_max, view.p_min, view.time_left, view.time_needed, view.step_s, least)
    return least


@register("peak_limit")
class PeakLimit(Dispatching):
    """Keep each group within a limit by postponing charging, least laxity first (V1G).

    What the limit leaves beside the group's other load is given to its EVs by laxity, so that they take up
    what the group would else feed back as long as they can charge. The limit yields where it would cost a
    driver a departure that was in reach.
    """

    Settings = LimitSettings
    uses_feeder = True
    discharge = False

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        _, headroom = room(self.settings, view)
        return self.dispatch(view, headroom, None if self.discharge else np.zeros(len(view.p_min)))


@register("v2g_peak_shaving")
class V2GPeakShaving(PeakLimit):
    """Keep each group within a limit by postponing charging and, where that does not suffice, by
    discharging the EVs that have the most time to recharge (V2G).
    """

    discharge = True


class PeakShavingSettings(LimitSettings):
    """Settings of the strategy ``peak_shaving``."""

    discharge: bool = True
    """Whether EVs may be asked to give back where postponing does not suffice."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.0
    """State of charge below which an EV is not asked to."""


@register("peak_shaving")
class PeakShaving(Dispatching):
    """Keep each group within a limit by postponing charging and, where allowed, by discharging."""

    Settings = PeakShavingSettings
    uses_feeder = True

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        settings = self.settings
        may = settings.discharge & (view.soc > settings.soc_reserve)
        _, headroom = room(settings, view)
        return self.dispatch(view, headroom, np.where(may, view.p_min, 0.0))


class SelfConsumptionSettings(WithinSettings):
    """Settings of the strategy ``pv_self_consumption``."""

    discharge: bool = False
    """Whether EVs give back what the group draws when there is no surplus."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.5
    """State of charge below which an EV is not asked to."""


@register("pv_self_consumption")
class SelfConsumption(Dispatching):
    """Charge from what each group would export, least laxity first, and from the grid only what the
    departures need; give it back to the group's load, where allowed.

    Without a limit EVs wait for a surplus as long as their departures allow, so that many of them may charge
    together at last, and the peak may be higher than without control. With one they charge from the grid as
    early as the limit demands: what they need until their departures, less what the limit leaves for that
    after this tick beside the highest base load that is forecast until then.
    """

    Settings = SelfConsumptionSettings
    uses_feeder = True
    may_raise_peak = True

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._ahead: Array | None = None
        if settings.limited and context.base_load is not None:
            slots = int(np.ceil(context.clock.duration_s / _AHEAD_S - 1e-9))
            edges_s = _AHEAD_S * np.arange(slots + 1.0)
            self._ahead = context.base_load(edges_s[:-1], edges_s[1:])

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        settings = self.settings
        may = settings.discharge & (view.soc > settings.soc_reserve)
        target = -view.base_load
        if settings.limited:
            low, high = room(settings, view)
            target = np.clip(np.maximum(target, self._due(view)), np.minimum(low, high), high)
        return self.dispatch(view, target, np.where(may, view.p_min, 0.0))

    def _due(self, view: View) -> Array:
        """Least power of each group from which the limit can still be kept later, (member · groups,) kW."""
        due = np.zeros(len(view.base_load))
        if not np.isfinite(self.settings.most_kw):
            return due
        waiting = np.flatnonzero(view.plugged & (view.p_max > 0.0))
        group = self.context.ev_group[waiting]
        for at in np.unique(group):
            rows = waiting[group == at]
            left_s, base = view.time_left[rows], view.base_load[at]
            if self._ahead is not None:
                slots = slice(int(view.time_s / _AHEAD_S), int((view.time_s + left_s.max()) / _AHEAD_S) + 1)
                base = self._ahead[at, slots].max(initial=base)
            room_kw = _COUNTED_ON * max(self.settings.most_kw - base, 0.0)
            due[at] = least_now(view.p_max[rows], left_s, view.time_needed[rows], room_kw, view.step_s)
        return due


def least_now(p_max: Array, time_left: Array, time_needed: Array, room_kw: float, step_s: float) -> float:
    """Least power that EVs draw together in a tick so that afterwards ``room_kw`` suffices for all, kW.

    By a time ``s`` an EV must have drawn what full power from then to its departure leaves. The sum over the
    EVs may exceed what the room gives from the tick's end to ``s`` by no more than the tick's energy, for all
    ``s``; that is all there is to it, as full power is each EV's only limit and all are there.

    p_max : (ev,) kW; time_left, time_needed : (ev,) s
    """
    begin_s = np.maximum(time_left - time_needed, 0.0)
    times_s = np.concatenate([[0.0], begin_s, time_left])
    order = np.argsort(times_s, kind="stable")
    times_s = times_s[order]
    slope_kw = np.cumsum(np.concatenate([[0.0], p_max, -p_max])[order])
    drawn_kws = np.concatenate([[0.0], np.cumsum(slope_kw[:-1] * np.diff(times_s))])
    at_s = np.maximum(times_s, step_s)
    beyond = np.interp(at_s, times_s, drawn_kws) - room_kw * (at_s - step_s)
    return max(float(beyond.max()), 0.0) / step_s
