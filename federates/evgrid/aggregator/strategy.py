"""Charging strategies: the set-points of an aggregator for its EVs.

A strategy is a class with a ``setpoints`` method, registered under the name that the YAML uses. A
user's own is one class in the user's own file, named ``my_module:MyStrategy``; the file is
beside the scenario or anywhere on Python's path. Keys of the aggregator other than ``strategy`` are
the strategy's settings, checked against its ``Settings``.

Every tick a strategy sees a :class:`View` of the fleet, as old as the telemetry, and returns one
set-point an EV. Each EVSE guards its driver: whatever the set-point, it charges as fast as it can
from the moment at which the energy wanted by departure would otherwise be out of reach.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evgrid.aggregator import memory
from evgrid.aggregator.memory import Owner
from evgrid.core.model import Array, Clock, EVs, PlannedSessions, Sensitivity, Variable
from evgrid.readers.series import Series
from evgrid.readers.signals import Known
from evgrid.scenario.aggregators import STRATEGIES, StrategySettings
from evgrid.scenario.system import Event, System, emissions_of, events_of
from evgrid.scenario.tariffs import Prices, Tariff, prices_of

if TYPE_CHECKING:
    from evgrid.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Context:
    """The scenario's data for a strategy, constant over the run but for ``known``.

    clock : ticks, and local time: ``clock.timestamps(np.array([view.time_s]))``
    tariff : of the drivers, if the scenario has one
    evs : the aggregator's EVs, in the order of all arrays (ev,)
    groups : number of groups in each member; EVs upstream of the feeder are in one of their own, the last
    ev_group : (ev,) int64, row of the EV's group in arrays of shape (member · groups,)
    system : the scenario's bulk system, if it has one
    numbers : numbers of the members
    seed : seed of the scenario
    sensitivity : of the voltages at the connection points, with all elements in service; None for a strategy
        that does not set ``uses_voltage``
    planned_sessions : the EVs' sessions, past and future, as a perfect forecast
    base_load : power of each group without EVs and losses, (member · groups, n) kW, as a perfect forecast:
        of (n,) times, s, the means over one feeder step from each; with (n,) ends besides, the means from
        each time to its end
    upstream : whether there are EVs upstream of the feeder
    voltage_controllers : number of the run's aggregators whose strategies set ``uses_voltage``
    known : what is known of signals from outside; where that changes, the strategy gets another context
    names : targets of signals that are for the aggregator as a whole
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
    planned_sessions: PlannedSessions | None = None
    base_load: Callable[..., Array] | None = None
    upstream: bool = False
    voltage_controllers: int = 1
    known: Known | None = None
    names: frozenset[str] = frozenset()

    @property
    def members(self) -> int:
        """Number of members."""
        return len(self.numbers)

    @property
    def prices(self) -> Prices | None:
        """Price of energy, by the tariff, else by signals and ``system.energy_price``; None without any."""
        return prices_of(self.tariff, self.system, self.clock, self.known)

    @property
    def emissions(self) -> Series | None:
        """Emission rates of the bulk system, kg CO2 per MWh; None without any."""
        return emissions_of(self.system, self.clock, self.known)

    @property
    def events(self) -> list[Event]:
        """Demand-response events: those of the scenario, then those of signals, as they are known."""
        return events_of(self.system, self.clock, self.known, self.names)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Flexibility of each EV over a horizon, (ev, slot) except ``round_trip``; 0 for EVs that are away.

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
    """Input of a strategy at a tick; arrays are (ev,) unless noted otherwise.

    Power is in kW at the grid, positive when drawn. The state of the EVs is the last that they
    reported; times and energies are extrapolated from then to now.
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
    """(member · groups,) kW, last known power of the group without the aggregator's EVs, with losses; zeros
    for a strategy that does not set ``uses_feeder``. With a limit it includes the power that EVs arriving in
    this tick can't defer to the next."""
    regulation: Array = field(default_factory=lambda: np.zeros(1))
    """(member,) regulation signal of this tick, -1 to 1; positive: less is to be drawn. Zeros for a
    strategy that does not set ``uses_system``, as the two below, and without a bulk system, as frequency."""
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
    sensitivities: tuple[Sensitivity, ...] = ()
    """Those of the networks in which that voltage was solved: of the whole one, or of what outages had left
    of it; the same tuple until it changes. Empty for a strategy that does not set ``uses_voltage``."""
    network: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    """(member,) which of them is each member's."""
    carry_over: Array = field(default_factory=lambda: np.zeros(1))
    """(member · groups,) kW by which each group is to draw less than a limit allows, to compensate for an
    excess in the interval of ``limit_over``; negative: by which it is to feed back less. 0 without an
    interval.
    """
    rows: NDArray[np.uint32] | None = None
    """(n,) the EVs that were plugged in when they last reported, ascending; the same array until they report
    again. None: not reported."""

    @property
    def laxity(self) -> Array:
        """Time that the EV can still wait, s; negative where departure comes too early."""
        return self.time_left - self.time_needed

    @property
    def out_of_service(self) -> NDArray[np.bool_]:
        """EVs that need energy and whose chargers have reported that they can draw none, (ev,): without
        supply, in an island, or before their return to service after an outage.
        """
        return self.plugged & (self.p_max <= 0.0) & (self.energy_needed > 0.0)

    def of_member(self, position: int, evs: slice, groups: slice) -> View:
        """The view of one member: its position, its EVs and its groups along the arrays."""
        one = slice(position, position + 1)
        ahead = self.envelope
        if ahead is not None:
            limits = (ahead.p_min, ahead.p_max, ahead.e_min, ahead.e_max, ahead.round_trip)
            ahead = Envelope(ahead.begin_s, ahead.slot_s, *(limit[evs] for limit in limits))
        return View(
            self.time_s, self.step_s, self.plugged[evs], self.soc[evs], self.p_max[evs], self.p_min[evs],
            self.energy_needed[evs], self.time_left[evs], self.time_needed[evs], self.base_load[groups],
            self.regulation[one], self.frequency[one], self.fleet_power[one],
            ahead, self.voltage[one], self.power_then[one], self.sensitivities, self.network[one],
            self.carry_over[groups],
        )  # fmt: skip


class Strategy(ABC):
    """Base of all strategies."""

    Settings: ClassVar[type[StrategySettings]] = StrategySettings
    ignores: ClassVar[tuple[str, ...]] = ()
    """Settings of every aggregator that have no effect in the strategy, such as ``group``: a scenario that
    gives them is refused."""
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
    """True if the strategy reads ``View.voltage``, ``View.sensitivities`` or ``Context.sensitivity``."""
    controls: ClassVar[bool] = True
    """False if the EVs get no set-points at all and charge as fast as they can."""
    replaced: ClassVar[type[Strategy] | None] = None
    """The strategy in whose place a caller's own loop gives the set-points; see :func:`evgrid.stepwise`."""
    takes_upstream: ClassVar[bool] = False
    """True if the strategy can handle EVs upstream of the feeder though it depends on the feeder."""
    may_raise_peak: ClassVar[bool] = False
    """True if the strategy may synchronise charging: the result of an aggregator that has all EVs then
    contains the peak of uncontrolled charging. It is of each member as a whole: ``group`` does not change it,
    though it is accepted unless ``ignores`` names it."""
    needs_of_system: ClassVar[tuple[str, ...]] = ()
    """Keys of the scenario's section ``system`` without which the strategy can't work."""
    variables: ClassVar[tuple[Variable, ...]] = ()
    """Variables of the strategy: the values of timed ones are put into ``recorded`` at each tick, the
    others are returned from :meth:`results`. The dimension ``hour`` counts the run's whole hours."""

    keeps: ClassVar[Mapping[str, Owner]] = {}
    """Arrays that can outlive a run, attributes of the strategy, and what each belongs to: ``run`` (such as
    the weights of a policy), or along its first axis ``ev`` or ``member``. See :class:`StateSettings`."""

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings = settings
        self.context = context
        self.recorded: dict[str, Array] = {}
        self.at_member: int | None = None
        """Number of the member being processed, for error messages; None: all."""

    @classmethod
    def needs(cls, settings: Any) -> tuple[str, ...]:
        """Keys of the section ``system`` that the strategy needs with its settings."""
        return cls.needs_of_system

    @classmethod
    def goes_by_prices(cls, settings: Any) -> bool:
        """Whether the strategy can't work without prices with its settings; see ``needs_prices``."""
        return cls.needs_prices

    @classmethod
    def faults(cls, settings: Any, scenario: Scenario) -> Sequence[str]:
        """What of the scenario does not go with the strategy's settings, a sentence each; none by default."""
        return ()

    @classmethod
    def goes_by_feeder(cls, settings: Any) -> bool:
        """Whether the strategy reads ``View.base_load`` with its settings; see ``uses_feeder``."""
        return cls.uses_feeder

    @classmethod
    def goes_by_envelope(cls, settings: Any) -> bool:
        """Whether the strategy reads ``View.envelope`` with its settings; see ``uses_envelope``."""
        return cls.uses_envelope

    @classmethod
    def goes_by_sensitivities(cls) -> bool:
        """Whether the strategy reads the feeder's sensitivities: ``View.sensitivities``,
        ``Context.sensitivity``; see ``uses_voltage``.
        """
        return cls.uses_voltage

    @abstractmethod
    def setpoints(self, view: View) -> Array:
        """Set-point of each EV, (ev,) kW: positive charges, negative discharges, +inf charges as
        fast as the EV can. Values for EVs that are away are ignored; NaN for another is an error.
        """

    def signals_changed(self) -> None:
        """Compute anew what has been derived from ``context.prices``, ``emissions`` or ``events``: called
        before the set-points of a tick by which signals from outside have come, changed or been cancelled,
        with ``self.context`` replaced. By default nothing.
        """

    def save(self, path: str | Path) -> None:
        """Write the arrays that ``keeps`` names into a file (.npz), atomically; a run does at its end where
        the settings say ``save_state``. Raises StrategyError with one sentence.
        """
        memory.save(self, Path(path))

    def load(self, path: str | Path) -> None:
        """Set the arrays that ``keeps`` names to those of a file; a run does at its begin where the settings
        say ``state``. Raises StrategyError if the file lacks an array, an EV or a member, or has another
        shape.
        """
        memory.load(self, Path(path))

    def results(self) -> dict[str, Array]:
        """Values of the variables without time; called once after the last tick."""
        return {}


class MemberStrategy(Strategy):
    """Base of strategies that process one member at a time; an error then names the member.

    Slower than arrays over all members, and easier to write.
    """

    @abstractmethod
    def member_setpoints(self, view: View, member: int) -> Array:
        """Set-point of each EV of a member, as :meth:`Strategy.setpoints`; ``member`` is its number."""

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


def register(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Class decorator: register a user's own strategy under ``name``."""
    return STRATEGIES.register(name)
