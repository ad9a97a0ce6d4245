"""The bulk system as a model behind a federate: frequency and regulation signal of every tick.

In (only with feedback of the fleet): the fleet's power, which acts as its mean over the
last tick. Out: ``system/frequency``, the frequency at the end of the tick, to which the fleet responds in
the same tick, with an effect in the next; ``system/regulation``, the signal of the tick.

So the loop from frequency over the fleet and back has a delay of one tick. A fleet
that is to act within a second needs a tick well below a second; the area itself is exact at any tick.

Recorded: both as means over the tick; price, emission rate and level of events, where given; and of
a load-frequency model the nadir, the peak and the steepest rate of change, which are those of the
inner steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from evgrid.core.model import Array, Clock, Model, Recorder, Values, Variable
from evgrid.errors import RunError
from evgrid.readers.series import REGULATION, frequency_rules, read_series
from evgrid.readers.signals import Known, Signals, steps_of
from evgrid.scenario.system import (
    AGCRegulation,
    LoadFrequency,
    OpenADRRegulation,
    ProductRegulation,
    ReplayedFrequency,
    ReplayedRegulation,
    SyntheticRegulation,
    System,
    emissions_of,
    events_of,
    level_at,
    wholesale_of,
    winners_of,
)
from evgrid.system.area import Area, Schedule
from evgrid.system.der_client import DerClient
from evgrid.system.live import LiveSignals, LiveSource
from evgrid.system.products import activation
from evgrid.system.signals import SyntheticSignal
from evgrid.system.ven import VirtualEndNode

_BLOCK = 256
"""Ticks in a block of recorded values."""

_TIMED = (
    Variable("frequency_hz", ("member",), "Hz", "frequency of the bulk system"),
    Variable("regulation_signal", ("member",), "1", "regulation signal; positive: less is drawn"),
)
_MARKET = (
    Variable("energy_price_per_mwh", (), "currency MWh-1", "wholesale price of energy"),
    Variable("emission_rate_kg_per_mwh", (), "kg MWh-1", "CO2 emitted per energy drawn from the bulk system"),
    Variable("event_level", (), "1", "level of the demand-response event, 0 for none"),
)
_FLEET = Variable("area_fleet_mw", ("member",), "MW", "power that the fleets draw beyond their schedule")
_EXTREMES = tuple(
    Variable(name, ("member",), unit, text, timed=False)
    for name, unit, text in (
        ("frequency_nadir_hz", "Hz", "lowest frequency"),
        ("frequency_nadir_s", "s", "time of the lowest frequency from the start"),
        ("frequency_peak_hz", "Hz", "highest frequency"),
        ("rocof_hz_per_s", "Hz s-1", "steepest rate of change of frequency, at an instant"),
    )
)


class SystemModel(Model):
    """The bulk system of all members.

    The arrays that ``step`` returns are its own and valid until the next step.

    Parameters
    ----------
    settings
        The scenario's section ``system``.
    clock, members, seed
        The run's clock, the members' numbers and the scenario's seed.
    recorder
        Receives the results.
    fleet
        Whether there is a fleet whose power can act on the area.
    signals
        Signals from outside; live ones are kept up to date by the model.
    paced
        Whether the run keeps to wall time, so that no step may wait for a server.

    Raises
    ------
    ScenarioError
        For a file that is at fault, with every fault and its line.

    """

    name = "system"

    def __init__(
        self,
        settings: System,
        clock: Clock,
        members: Sequence[int],
        seed: int,
        recorder: Recorder,
        fleet: bool = False,
        signals: Signals | None = None,
        paced: bool = False,
    ) -> None:
        self.period_s = clock.step_s
        self.outputs = ("system/frequency", "system/regulation")
        self.variables = _TIMED
        self._clock, self._recorder, self._members = clock, recorder, len(members)
        self._member_numbers = members
        self._nominal_hz = settings.nominal_hz
        self._area: Area | None = None
        self._schedule: Schedule | None = None
        self._base_mw = 0.0
        self._frequency_of: Callable[[float, float], tuple[Array, Array]] = self._constant_frequency
        frequency = settings.frequency
        if isinstance(frequency, LoadFrequency):
            self._area = Area(frequency, settings.nominal_hz, clock, self._members)
            self._base_mw = frequency.base_mw
            self.variables += _EXTREMES
            if fleet and frequency.fleet.stands_for > 0:
                self._schedule = Schedule(frequency.fleet, frequency.base_mw)
                self.inputs = ("fleet/p",)
                self.variables += (_FLEET,)
        elif isinstance(frequency, ReplayedFrequency):
            rules = frequency_rules(settings.nominal_hz)
            replayed = read_series(frequency.file, clock, rules, frequency.column, frequency.reading)
            self._frequency_of = lambda begin, end: (replayed.at(end), replayed.mean(begin, end))
        self._regulation_of = self._regulation_source(settings, clock, members, seed, signals)
        self._market = market(settings, clock, signals)
        self._source: LiveSource | None = None
        if isinstance(signals, LiveSignals):
            self._source = _source_of(settings, clock, seed, signals, waits=not paced)
            if fleet:
                self.inputs = ("fleet/p",)
        self.variables += tuple(v for v in _MARKET if v.name in self._market)
        self._frequency = np.full(self._members, settings.nominal_hz)
        self._regulation = np.zeros(self._members)
        self._recorded = np.zeros((3, _BLOCK, self._members))
        self._first_recorded = self._n_recorded = 0

    def _regulation_source(
        self, settings: System, clock: Clock, members: Sequence[int], seed: int, signals: Signals | None
    ) -> Callable[[float, float], Array]:
        """A function that returns the regulation signal of a tick, (member,) or ()."""
        regulation, area = settings.regulation, self._area
        if isinstance(regulation, SyntheticRegulation):
            return SyntheticSignal(regulation.shape, clock, members, seed).mean
        if isinstance(regulation, ReplayedRegulation):
            file = regulation
            return read_series(file.file, clock, REGULATION, file.column, file.reading).mean
        if isinstance(regulation, AGCRegulation) and area is not None:
            return lambda begin, end: area.agc_signal
        if isinstance(regulation, ProductRegulation):
            product = regulation.product
            return lambda begin, end: activation(product, self._frequency)
        if isinstance(regulation, OpenADRRegulation) and isinstance(signals, LiveSignals):
            of = _by_version(signals, lambda known: steps_of(winners_of(known, "regulation"), 0.0))
            return lambda begin, end: np.zeros(()) if (now := of(begin)) is None else now.mean(begin, end)
        if isinstance(regulation, OpenADRRegulation):
            steps = steps_of(winners_of(signals, "regulation"), 0.0)
            if steps is not None:
                return steps.mean
        return lambda begin, end: np.zeros(())

    def step(self, time_s: float, inputs: Values) -> Values:
        """See :class:`evgrid.core.model.Model`.

        Raises
        ------
        RunError
            If the fleet's power or the frequency is no number, or the frequency leaves nominal ± 50 %.

        """
        end_s = time_s + self.period_s
        if self._source is not None:
            self._source.tick(time_s, self._clock)
            self.held_until = self._source.held_until
            if time_s > 0 and "fleet/p" in self.inputs:
                self._source.count(time_s, float(inputs["fleet/p"].sum()), self.period_s)
        fleet_pu = np.zeros(self._members)
        if self._schedule is not None and time_s > 0:
            power = np.asarray(inputs["fleet/p"], dtype=np.float64).reshape(self._members, -1).sum(axis=1)
            fleet_pu = self._schedule.deviation(power, self.period_s)
        if self._area is not None:
            mean = self._area.advance(time_s, end_s, fleet_pu)
            now: Array = self._area.frequency_hz
            self._refuse_nonsense(now, end_s)
        else:
            now, mean = self._frequency_of(time_s, end_s)
        self._frequency[:] = now
        self._regulation[:] = self._regulation_of(time_s, end_s)
        self._record(round(time_s / self.period_s), mean, fleet_pu * self._base_mw)
        return {"system/frequency": self._frequency, "system/regulation": self._regulation}

    def finish(self) -> None:
        """Write the remaining values, and the extremes."""
        self._flush()
        if self._source is not None:
            self._source.close()
        area = self._area
        if area is None:
            return
        values = (area.nadir_hz, area.nadir_s, area.peak_hz, area.rocof_hz_per_s)
        for variable, value in zip(_EXTREMES, values, strict=True):
            self._recorder.put_static(variable.name, value)

    def _constant_frequency(self, begin_s: float, end_s: float) -> tuple[Array, Array]:
        nominal = np.full(self._members, self._nominal_hz)
        return nominal, nominal

    def _refuse_nonsense(self, frequency_hz: Array, end_s: float) -> None:
        off = ~(np.abs(frequency_hz - self._nominal_hz) <= 0.5 * self._nominal_hz)
        if off.any():
            place = int(np.flatnonzero(off)[0])
            raise RunError(
                f"system: the frequency of member {self._member_numbers[place]} reached "
                f"{frequency_hz[place]:g} Hz at {self._clock.stamp(end_s)}: the area is unstable with "
                "these settings, or the fleet's response is too large or too late for the tick"
            )

    def _record(self, tick: int, mean_hz: Array, fleet_mw: Array) -> None:
        if self._n_recorded == 0:
            self._first_recorded = tick
        row = self._recorded[:, self._n_recorded]
        row[0], row[1], row[2] = mean_hz, self._regulation, fleet_mw
        self._n_recorded += 1
        if self._n_recorded == _BLOCK:
            self._flush()

    def _flush(self) -> None:
        count, self._n_recorded = self._n_recorded, 0
        if not count:
            return
        block = self._recorded[:, :count]
        self._recorder.put("frequency_hz", self._first_recorded, block[0].copy())
        self._recorder.put("regulation_signal", self._first_recorded, block[1].copy())
        if self._schedule is not None:
            self._recorder.put("area_fleet_mw", self._first_recorded, block[2].copy())
        begins_s = (self._first_recorded + np.arange(count)) * self.period_s
        for name, mean in self._market.items():
            values = np.array([mean(begin_s, begin_s + self.period_s) for begin_s in begins_s])
            self._recorder.put(name, self._first_recorded, values)


def _source_of(settings: System, clock: Clock, seed: int, signals: LiveSignals, waits: bool) -> LiveSource:
    """The server that the signals come from."""
    openadr, controls = settings.openadr, settings.ieee2030_5
    if openadr is not None and openadr.vtn is not None:
        rules = openadr.rules(clock, seed, settings.currency)
        return VirtualEndNode(openadr.vtn, rules, signals, waits)
    assert controls is not None
    assert controls.server is not None
    return DerClient(controls.server, controls.rules(clock, seed), signals, waits)


def market(
    settings: System, clock: Clock, signals: Signals | None = None
) -> dict[str, Callable[[float, float], Array]]:
    """Price, emission rate and level of events, where given: a function each of a span's begin and end.

    The mean over the span, (), for price and emissions; for events the level at its begin. With signals, each
    time by what was known then.

    Raises ScenarioError for a file that is at fault.
    """
    found: dict[str, Callable[[float, float], Array]] = {}
    names = settings.targets
    if isinstance(signals, LiveSignals):
        return _live_market(settings, clock, signals, names)
    prices = wholesale_of(settings, clock, signals)
    if prices is not None:
        price = prices[0]
        found["energy_price_per_mwh"] = lambda begin, end: 1000.0 * price.mean(begin, end)
    emissions = emissions_of(settings, clock, signals)
    if emissions is not None:
        found["emission_rate_kg_per_mwh"] = emissions.mean
    events = events_of(settings, clock, signals, names)
    if events:
        found["event_level"] = lambda begin, end: np.array(float(level_at(events, clock, begin)))
    return found


def _live_market(
    settings: System, clock: Clock, signals: LiveSignals, names: tuple[str, ...]
) -> dict[str, Callable[[float, float], Array]]:
    """As :func:`market`, of each span by what is known at its begin."""
    found: dict[str, Callable[[float, float], Array]] = {}
    if settings.gives_prices:
        price_of = _by_version(signals, lambda known: wholesale_of(settings, clock, known))
        found["energy_price_per_mwh"] = lambda begin, end: (
            np.array(np.nan) if (now := price_of(begin)) is None else 1000.0 * now[0].mean(begin, end)
        )
    if settings.emissions is not None or "emissions" in signals.kinds:
        rate_of = _by_version(signals, lambda known: emissions_of(settings, clock, known))
        found["emission_rate_kg_per_mwh"] = lambda begin, end: (
            np.array(np.nan) if (now := rate_of(begin)) is None else now.mean(begin, end)
        )
    if settings.events or "level" in signals.kinds:
        level_of = _by_version(signals, lambda known: events_of(settings, clock, known, names))
        found["event_level"] = lambda begin, end: np.array(float(level_at(level_of(begin), clock, begin)))
    return found


_Found = TypeVar("_Found")


def _by_version(signals: Signals, make: Callable[[Known], _Found]) -> Callable[[float], _Found]:
    """A function of time that makes something of what is known then, again only where that has changed."""
    kept: list[tuple[Known, _Found]] = []

    def of(time_s: float) -> _Found:
        known = signals.known(time_s)
        if not kept or kept[0][0] is not known:
            kept[:] = [(known, make(known))]
        return kept[0][1]

    return of
