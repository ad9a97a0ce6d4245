"""Least-cost schedule of charging and discharging over a rolling horizon, recomputed every quarter hour.

**Plan**, every ``period`` of the clock: the EVs that are plugged in (with ``arrivals_known`` also those to
come) as batteries over the slots of the horizon, up to their departures; prices are those of the tariff or
of ``system.energy_price``, means over a slot, the emissions' and the demand charge's, discharge costs wear.
:func:`evgrid.aggregator.planning.scheduler.plan` solves it: exactly for each EV where nothing couples them,
by a program of about a hundred virtual batteries where a group's limit or a demand charge does. A plan knows
efficiencies at rated power. Where nothing couples the EVs it knows the taper; else an EV that can only charge
is planned with its mean power to the target, and one that can discharge with its rated power, and ready
before its departure by the time that the taper takes. With ``envelope`` the EVs that are plugged in are
planned with the fleet's own envelope (``fleet.envelope``), which includes taper, losses by power, permission
and warranty. What a plan neglects, the next corrects.

**Forecast**: tariffs and, without errors, base load and emissions are known exactly; to the base
load is added the deviation measured so far, mostly losses, with a time constant of an hour. With
``price_error`` and ``base_load_error`` every plan sees them multiplied by 1 + e, where e is a random walk
in the lead: 0 now, of that standard deviation a day ahead, drawn from the scenario's seed.

**Dispatch**, every tick: each EV follows the plan of the slot. Where a group would draw more than its limit
or than the peak that is paid for, the group's EVs draw less, the one with the most laxity first,
and discharge where that does not suffice. Where it would feed back more than its limit, they give less,
in equal shares, and charge where that does not suffice, the one with the least laxity first.

**Demand charge**: plans, and the dispatch between them, keep the mean of the meter's interval at the peak
that is paid for, of only the EVs or of the group with its base load; an excess in one tick is compensated
in the rest of the interval.

**Outages**: an EV that is out of service, as its charger reports, has no power in plans until it is back;
then it gets one of its own like one that arrives. No plan foresees an outage, or its end.

**Arrivals**: an EV that arrives between two plans gets one of its own as soon as it is seen, at the least
cost in the room left by the plan of the others. Left out: trips after a departure that isn't known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evgrid.aggregator.dispatch import Dispatching, WithinSettings, least_powers, room
from evgrid.aggregator.planning.scheduler import (
    Batteries,
    Schedule,
    batteries_ahead,
    batteries_of,
    highest_mean,
    interval_means,
    plan,
    schedule_each,
    with_reported,
)
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Array, Clock, PlannedSessions, Variable
from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S, HOUR_S
from evgrid.scenario.fields import Duration
from evgrid.scenario.tariffs import Tariff

if TYPE_CHECKING:
    from evgrid.scenario import Scenario

_AT_FLOOR = 1e-9
"""Distance from its floor at which a battery is at it."""
_MEMORY_S = 3600.0
"""Time constant of the correction of the forecast base load by the measured one, s."""


class ScheduledSettings(WithinSettings):
    """Settings of the strategy ``scheduled``."""

    period: Annotated[Duration, Field(gt=0)] = 900.0
    """Period of the plans, and length of their slots: a multiple of the tick that divides an hour."""
    horizon: Annotated[Duration, Field(gt=0)] = 129600.0
    """Horizon of a plan."""
    limit_kw: Annotated[float, Field(gt=0)] | None = None
    """Most that each group may draw, kW, EVs and everything else together, and most that it may feed back
    unless export_limit_kw says otherwise; left out: no limit. It yields to departures. Where it is tight,
    set arrivals_known or a larger margin: otherwise room that later arrivals will need is used up by those
    that discharge now."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the room within the limits that plans use for departures only, not to save cost: a reserve for
    losses, arrivals and other effects that they neglect."""
    demand_charge: Annotated[float, Field(ge=0)] | None = None
    """Currency per kW of the highest power of a calendar month; left out: that of tariff.demand, if there is
    one."""
    demand_of: Literal["evs", "group"] | None = None
    """Power that is charged: only the EVs' (together; of each group where there is a limit), or that of each
    group, EVs and base load. Left out: by tariff.demand.of, else evs."""
    demand_interval: Annotated[Duration, Field(gt=0)] | None = None
    """Interval of the meter, from midnight on, of which that power is the mean; left out: that of
    tariff.demand, else 15 min."""
    emissions_price: Annotated[float, Field(ge=0)] = 0.0
    """Price of CO2, currency per t, on system.emissions; energy given back is credited alike."""
    wear_per_kwh: Annotated[float, Field(ge=0)] = 0.05
    """Cost of degradation, currency per kWh given back."""
    discharge: bool = True
    """Whether EVs may be discharged."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.0
    """State of charge below which an EV is not discharged."""
    depth_kwh: Annotated[float, Field(ge=0)] | None = None
    """Energy below its target down to which a battery may be discharged, kWh; left out: to its floor."""
    arrivals_known: bool = False
    """Whether future sessions are planned with, as where there is a timetable or a reservation; it matters
    where a limit or a demand charge couples the EVs."""
    envelope: bool = False
    """Whether plans use fleet.envelope, whose slot and every must be the period, instead of rated values."""
    price_error: Annotated[float, Field(ge=0)] = 0.0
    """Relative standard deviation of forecast prices a day ahead."""
    base_load_error: Annotated[float, Field(ge=0)] = 0.0
    """Relative standard deviation of the forecast base load a day ahead."""
    exact: bool = False
    """Whether each EV has variables of its own where they are coupled (up to about 1,000 EVs)."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A demand charge in plans.

    price : currency per kW of the highest power of each month, for its number
    interval_s : interval of the meter, from midnight on
    of_group : whether it is for each group, EVs and base load; else for the EVs only
    """

    price: Callable[[int], float]
    interval_s: float
    of_group: bool


def _since_hour_s(clock: Clock) -> float:
    """Time from the last whole hour to the start of a run, s."""
    return float((clock.start - clock.start.astype("datetime64[h]")) / np.timedelta64(1, "s"))


def demand_of(settings: ScheduledSettings, tariff: Tariff | None) -> Demand | None:
    """The demand charge of plans: that of the settings, else the tariff's; None where there is none,
    or where the tariff's is for other groups than the aggregator's, or has only parts that plans leave out
    (windows, prices above a power, ratchets).
    """
    reported = tariff.demand if tariff is not None else None
    interval_s = settings.demand_interval or (reported.interval if reported is not None else 900.0)
    of_group = settings.demand_of == "group"
    if settings.demand_of is None and reported is not None and reported.of != "evs":
        if reported.of != settings.group and settings.demand_charge is None:
            return None
        of_group = reported.of == settings.group
    if settings.demand_charge is not None:
        price = settings.demand_charge
        return Demand(lambda month: price, interval_s, of_group) if price > 0 else None
    if reported is None or not any(price.plain for price in reported.prices):
        return None
    return Demand(reported.price, interval_s, of_group)


class Meter:
    """The meter of a demand charge: means of intervals, and the highest of the calendar month.

    peak_kw : (member · groups,) highest mean of the month so far
    cap_kw : (member · groups,) highest mean that the last plan pays for
    price : currency per kW of this month
    """

    def __init__(self, context: Context, demand: Demand) -> None:
        groups, clock = context.members * context.groups, context.clock
        self.demand = demand
        self.peak_kw, self.cap_kw = np.zeros(groups), np.full(groups, np.inf)
        self.price = 0.0
        self._interval_s = max(demand.interval_s, clock.step_s)
        self._clock = clock
        self._since_midnight_s = float(
            (clock.start - clock.start.astype("datetime64[D]")) / np.timedelta64(1, "s")
        )
        self._used_kwh = np.zeros(groups)
        self._interval, self._month = -1, -1

    def begin(self, time_s: float) -> None:
        """Begin a tick: close the interval or the month that is over."""
        interval = int((time_s + self._since_midnight_s) / self._interval_s + 1e-9)
        if interval != self._interval:
            self.peak_kw = np.maximum(self.peak_kw, self._used_kwh * 3600.0 / self._interval_s)
            self._used_kwh = np.zeros_like(self._used_kwh)
            self._interval = interval
        month = int(self._clock.timestamps(np.array([time_s]))[0].astype("datetime64[M]").astype(int))
        if month != self._month:
            self.peak_kw = np.zeros_like(self.peak_kw)
            self.price = self.demand.price(month % 12 + 1)
            self._month = month

    def left_s(self, time_s: float) -> float:
        """Rest of the interval, s."""
        return (self._interval + 1) * self._interval_s - time_s - self._since_midnight_s

    def room(self, left_s: float) -> Array:
        """Power for the rest of the interval at which its mean is the cap, (member · groups,) kW."""
        return (self.cap_kw * self._interval_s - 3600.0 * self._used_kwh) / left_s

    def count(self, power_kw: Array, seconds: float) -> None:
        """Count the power of a tick, (member · groups,) kW."""
        self._used_kwh += power_kw * seconds / 3600.0

    def means(self, begins_s: Array, slot_s: float) -> tuple[Array, Array]:
        """Weights of slots in the means of intervals (:func:`interval_means`), and the part of the first
        one's mean that has been drawn, (member · groups,) kW.
        """
        passed = self._used_kwh * 3600.0 / self._interval_s
        if self._interval_s < slot_s:
            passed = np.zeros_like(passed)
        return interval_means(begins_s + self._since_midnight_s, slot_s, self._interval_s), passed


class Scheduled(Dispatching):
    """Follow a plan of least cost: energy, CO2, wear and demand charge, under the groups' limits (V2G)."""

    Settings = ScheduledSettings
    may_raise_peak = True
    variables = (Variable("planned_power_kw", ("member",), "kW", "planned power of the EVs in the slot"),)

    @classmethod
    def needs(cls, settings: Any) -> tuple[str, ...]:
        """See :meth:`Strategy.needs`."""
        return ("emissions",) if settings.emissions_price > 0 else ()

    @classmethod
    def goes_by_prices(cls, settings: Any) -> bool:
        """See :meth:`Strategy.goes_by_prices`; a plan may use emissions, a peak or a limit only."""
        other = settings.emissions_price > 0 or settings.demand_charge or settings.limited
        return cls.needs_prices or not other

    @classmethod
    def goes_by_feeder(cls, settings: Any) -> bool:
        """See :meth:`Strategy.goes_by_feeder`."""
        return bool(settings.limited or (settings.demand_charge and settings.demand_of == "group"))

    @classmethod
    def goes_by_envelope(cls, settings: Any) -> bool:
        """See :meth:`Strategy.goes_by_envelope`."""
        return bool(settings.envelope)

    @classmethod
    def faults(cls, settings: Any, scenario: Scenario) -> list[str]:
        """See :meth:`Strategy.faults`."""
        period, step_s, found = settings.period, scenario.time.step, list[str]()
        if HOUR_S % period or period % step_s:
            found.append(
                f"period = {period:g}s: must divide an hour and be a multiple of time.step = {step_s:g}s"
            )
        if settings.envelope:
            if _since_hour_s(scenario.clock) % period:
                found.append(
                    f"envelope: the run must begin at a multiple of period = {period:g}s of the hour"
                )
            ahead = scenario.fleet.envelope if scenario.fleet is not None else None
            if ahead is not None and ahead.slot != period:
                found.append(
                    f"envelope: fleet.envelope.slot = {ahead.slot:g}s must be the period of the plans, "
                    f"{period:g}s"
                )
        return found

    def __init__(self, settings: Any, context: Context) -> None:
        demand = self._demand = demand_of(settings, context.tariff)
        if demand is not None and not demand.of_group and not settings.limited:
            context = replace(context, groups=1, ev_group=context.evs.member)
        super().__init__(settings, context)
        clock, period = context.clock, settings.period
        if context.planned_sessions is None:
            raise ValueError("the strategy needs the vehicles' sessions: Context.planned_sessions is None")
        self._sessions: PlannedSessions = context.planned_sessions
        self._offset_s = _since_hour_s(clock) % period
        """Start of the run within its slot, s."""
        self._ahead = round(settings.horizon / period)
        slots = int((self._offset_s + clock.duration_s) / period) + self._ahead + 1
        self._begins_s = period * np.arange(slots) - self._offset_s
        self._price, self._export = self._prices()
        self._most_kw, self._least_kw = self._limits()
        billed = demand is not None and demand.of_group
        self._base = self._base_load() if settings.limited or billed else np.zeros((0, slots))
        groups = context.members * context.groups
        self._coupled = settings.limited or demand is not None
        self._planned = np.zeros(len(context.evs))
        self._meter = Meter(context, demand) if demand is not None else None
        self._beyond = np.full(groups, np.nan)
        """Measured less forecast base load, (member · groups,) kW; NaN before the first."""
        self._slot = -1
        self._until_s = np.full(len(context.evs), -np.inf)
        """Departure of each EV in its last plan, s."""
        self._was_out = np.zeros(len(context.evs), np.bool_)
        """Whether each EV was out of service in the last tick."""
        self._ahead_of: dict[int, tuple[NDArray[np.int64], NDArray[np.int64], Array]] = {}
        """Of each member whose EVs are coupled, the last plan: sessions, their groups, their power."""

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        slot = self._slot_at(view.time_s)
        if len(self._base) and view.time_s > 0 and self.goes_by_feeder(self.settings):
            self._measure(view)
        if self._meter is not None:
            self._meter.begin(view.time_s)
        if slot != self._slot:
            self._slot = slot
            self._planned = np.zeros(len(self.context.evs))
            self._ahead_of = {}
            self._plan(view, slot, np.flatnonzero(view.plugged))
        else:
            self._plan(view, slot, self._unplanned(view))
        self._was_out = view.out_of_service
        wanted = np.where(view.plugged, self._planned, 0.0)
        asked = np.clip(wanted, view.p_min, view.p_max)
        members = self.context.evs.member
        total = np.bincount(members, asked, self.context.members)
        self.recorded = {"planned_power_kw": np.asarray(total, np.float64)}
        groups = self.context.members * self.context.groups
        low, high, billed = np.full(groups, -np.inf), np.full(groups, np.inf), np.zeros(0)
        if self.settings.limited:
            low, high = room(self.settings, view)
        if self._meter is not None:
            billed = self._billed(view)
            left_s = max(self._meter.left_s(view.time_s), view.step_s)
            ahead = self._means(view, asked, left_s)
            paid = self._meter.room(left_s) - billed
            over = np.bincount(self.context.ev_group, ahead, groups) > paid + 1e-9
            high = np.where(over, np.minimum(high, paid), high)
        if np.isfinite(low).any() or np.isfinite(high).any():
            wanted = self.keep_within(view, wanted, asked, low, high, self._may_discharge(view))
        if self._meter is not None:
            drawn = self._means(view, np.clip(wanted, view.p_min, view.p_max), view.step_s)
            self._meter.count(billed + np.bincount(self.context.ev_group, drawn, groups), view.step_s)
        return wanted

    def _billed(self, view: View) -> Array:
        """Forecast of the power besides the EVs in the demand charge now, (member · groups,) kW."""
        assert self._demand is not None
        if not self._demand.of_group:
            return np.zeros(self.context.members * self.context.groups)
        return np.asarray(self._base[:, self._slot_at(view.time_s)] + np.nan_to_num(self._beyond))

    def _slot_at(self, time_s: float) -> int:
        return int((time_s + self._offset_s + 1e-6) // self.settings.period)

    def _measure(self, view: View) -> None:
        """Update the correction of the base load forecast; the measured one is of the last tick."""
        beyond = view.base_load - self._base[:, self._slot_at(view.time_s - view.step_s)]
        weight = np.where(np.isnan(self._beyond), 1.0, -np.expm1(-view.step_s / _MEMORY_S))
        self._beyond = np.where(np.isnan(self._beyond), 0.0, self._beyond) * (1.0 - weight) + weight * beyond

    def _means(self, view: View, asked: Array, span_s: float) -> Array:
        """Mean power of each EV over a time from now on with the set-points ``asked``, (ev,) kW: EVs that
        leave or are full meanwhile draw less, and those that can't wait charge whatever the set-point.
        """
        present = np.clip(view.time_left / span_s, 0.0, 1.0)
        most = view.p_max * np.clip(view.time_needed / span_s, 0.0, 1.0)
        return np.maximum(np.minimum(asked * present, most), least_powers(replace(view, step_s=span_s)))

    def _may_discharge(self, view: View) -> NDArray[np.bool_]:
        """Whether the strategy may discharge an EV, (ev,)."""
        return np.asarray(self.settings.discharge & (view.soc > self.settings.soc_reserve))

    # ---- plan ---------------------------------------------------------------------------------

    def _unplanned(self, view: View) -> NDArray[np.int64]:
        """The EVs that have arrived since the last plan, have another departure, or are back in service."""
        moved = np.abs(view.time_s + view.time_left - self._until_s) > 0.5 * view.step_s
        back = self._was_out & ~view.out_of_service
        if back.any():
            self._forget(self._sessions.current(view.time_s, len(back))[back])
        return np.flatnonzero(view.plugged & (moved | back))

    def _forget(self, lost: NDArray[np.int64]) -> None:
        """Take sessions out of the last plan: it does not hold for them any more."""
        for member, planned in self._ahead_of.items():
            kept = ~np.isin(planned[0], lost)
            self._ahead_of[member] = planned[0][kept], planned[1][kept], planned[2][kept]

    def _plan(self, view: View, slot: int, rows: NDArray[np.int64]) -> None:
        """Plan the EVs in ``rows`` from now on; the powers of this slot are kept. Members are planned
        together where nothing couples their EVs and all see the same prices. A member that has a plan of
        this slot follows it, and plans those in ``rows`` in the room that it leaves. Those that are out of
        service get no power.
        """
        context, settings = self.context, self.settings
        slot_h = settings.period / 3600.0
        if not len(rows):
            return
        current = self._sessions.current(view.time_s, len(context.evs))
        self._until_s[rows] = view.time_s + view.time_left[rows]
        here = rows[(current[rows] >= 0) & ~view.out_of_service[rows]]
        of_members = [here]
        if self._coupled or settings.price_error:
            edges = np.searchsorted(context.evs.member[here], np.arange(1, context.members))
            of_members = np.split(here, edges)
        for member, rows in enumerate(of_members):
            if not len(rows):
                continue
            session = current[rows]
            to_come = member not in self._ahead_of
            batteries, late, of = self._batteries(view, rows, session, slot, member, to_come)
            slots = batteries.p_max.shape[1]
            price, export, base = self._forecast(slot, slots, member)
            of_member = slice(member * context.groups, (member + 1) * context.groups)
            limit = least = None
            if settings.limited:
                window = slice(slot, slot + slots)
                limit, least = self._most_kw[window] - base, self._least_kw[window] - base
            if not to_come:
                best = self._between_plans(batteries, of, price, export, limit, least, member)
            else:
                meter, charge, peak = self._meter, 0.0, np.zeros(context.groups)
                billed, means, passed = np.zeros((context.groups, slots)), None, np.zeros(context.groups)
                if meter is not None:
                    charge, peak = meter.price, meter.peak_kw[of_member]
                    means, passed = meter.means(self._begins_s[slot : slot + slots], settings.period)
                    passed = passed[of_member]
                    billed = base if meter.demand.of_group else billed
                best = plan(
                    batteries, price, slot_h, export, limit, charge, settings.wear_per_kwh,
                    peak, settings.margin, settings.exact, least, billed, means, passed,
                )  # fmt: skip
                if self._coupled:
                    self._ahead_of[member] = of, batteries.group, best.power
                if meter is not None:
                    drawn = best.drawn(batteries.group, context.groups) + billed
                    meter.cap_kw[of_member] = np.maximum(peak, highest_mean(drawn, means, passed))
            now, most = best.power[: len(rows), 0], batteries.p_max[: len(rows), 0]
            share = np.clip(view.time_left[rows] / settings.period, 1e-9, 1.0)
            if not self._has_envelope(view):
                rated = self._rated_kw(view, rows, session)
                share = np.maximum(most / np.maximum(rated, 1e-9), 1e-9)
            stored = batteries.efficiencies[0][: len(rows)] * now * slot_h
            # along the taper: at the most that the battery takes at the slot's end, no limit is set
            taper, full = (of_each[: len(rows)] for of_each in batteries.taper)
            falls, known = np.ones(len(rows)), np.isfinite(full)
            falls[known] = (full[known] - stored[known]) / (full[known] - taper[known])
            at_most = late | ((now > 0) & (now >= most * np.minimum(falls, 1.0) - 1e-6))
            self._planned[rows] = np.where(at_most, np.inf, now / share)

    def _between_plans(
        self,
        batteries: Batteries,
        of: NDArray[np.int64],
        price: Array,
        export: Array,
        limit_kw: Array | None,
        least_kw: Array | None,
        member: int,
    ) -> Schedule:
        """The schedule of the sessions ``of``, (battery,): that of the last plan for those that it included,
        and for the others the least cost in the room that it leaves.
        """
        settings, groups = self.settings, self.context.groups
        sessions, group, power = self._ahead_of[member]
        if np.isin(of, sessions).all():
            row = power[np.argsort(sessions)[np.searchsorted(np.sort(sessions), of)]]
            row = np.pad(row, [(0, 0), (0, max(len(price) - row.shape[1], 0))])[:, : len(price)]
            row = np.clip(row, batteries.p_min, batteries.p_max)
            return Schedule(np.maximum(row, 0.0), np.maximum(-row, 0.0), np.nan)
        others = ~np.isin(sessions, of)
        sessions, group, power = sessions[others], group[others], power[others]
        slots = max(len(price), power.shape[1])
        drawn = np.zeros((groups, slots))
        np.add.at(drawn[:, : power.shape[1]], group, power)
        left = np.full((groups, len(price)), np.inf)
        gives = np.full((groups, len(price)), np.inf)
        if self._meter is not None:
            window = slice(self._slot, self._slot + len(price))
            of_member = slice(member * groups, (member + 1) * groups)
            billed = self._base[of_member, window] if self._meter.demand.of_group else 0.0
            left = np.minimum(left, self._meter.cap_kw[of_member, None] - billed)
        if limit_kw is not None:
            left = np.minimum(left, np.where(limit_kw > 0, 1.0 - settings.margin, 1.0) * limit_kw)
        if least_kw is not None:
            gives = np.where(least_kw < 0, 1.0 - settings.margin, 1.0) * -least_kw
        left, gives = left - drawn[:, : len(price)], gives + drawn[:, : len(price)]
        charge, discharge = np.zeros((2, *batteries.p_max.shape))
        for at in np.unique(batteries.group):
            rows = np.flatnonzero(batteries.group == at)
            best = schedule_each(
                batteries.take(rows), price, settings.period / 3600.0, export, settings.wear_per_kwh,
                left[at], gives[at],
            )  # fmt: skip
            charge[rows], discharge[rows] = best.charge, best.discharge
        planned = charge - discharge
        self._ahead_of[member] = (
            np.concatenate([sessions, of]),
            np.concatenate([group, batteries.group]),
            np.concatenate([np.pad(part, [(0, 0), (0, slots - part.shape[1])]) for part in (power, planned)]),
        )
        return Schedule(charge, discharge, np.nan)

    def _rated_kw(self, view: View, rows: NDArray[np.int64], session: NDArray[np.int64]) -> Array:
        """Power that EVs are planned to charge with, kW: below the taper, where plans know it; else for those
        that can't discharge their mean.
        """
        rated = self._sessions.charge_kw[session]
        needed, needed_h = view.energy_needed[rows], view.time_needed[rows] / 3600.0
        if not self._coupled:
            # less where the fleet needs longer than at rated power, such as in the cold
            taper, full = self._taper(view, rows, session)
            missing = self._sessions.charge_efficiency[session] * needed
            begin = np.clip(taper, 0.0, missing)
            falls = np.log(np.maximum(full - begin, 1e-9) / np.maximum(full - missing, 1e-9))
            at_rated = (begin + (full - taper) * falls) / self._sessions.charge_efficiency[session]
            mean = np.divide(at_rated, needed_h, out=rated.copy(), where=needed_h > 0)
            return np.minimum(mean, rated)
        mean = np.divide(needed, needed_h, out=rated.copy(), where=needed_h > 0)
        return np.where(self._sessions.discharge_kw[session] > 0, rated, np.minimum(mean, rated))

    def _taper(self, view: View, rows: NDArray[np.int64], session: NDArray[np.int64]) -> tuple[Array, Array]:
        """Energy above the present one at which the taper begins, and would end, (row,) kWh each."""
        sessions = self._sessions
        capacity, target = sessions.capacity_kwh[session], sessions.soc_target[session]
        missing = sessions.charge_efficiency[session] * view.energy_needed[rows]
        short = np.where(missing > 0, missing, (target - view.soc[rows]) * capacity)
        taper, full = (
            short + (at[session] - target) * capacity for at in (sessions.taper_soc, sessions.full_soc)
        )
        return taper, full

    def _batteries(
        self,
        view: View,
        rows: NDArray[np.int64],
        session: NDArray[np.int64],
        slot: int,
        member: int,
        to_come: bool,
    ) -> tuple[Batteries, NDArray[np.bool_], NDArray[np.int64]]:
        """The EVs that are plugged in, then, with ``to_come``, the future sessions; whether each of the
        former is late, (row,) bool; and the session of each battery.
        """
        settings, sessions, context = self.settings, self._sessions, self.context
        slot_h, since = settings.period / 3600.0, view.time_s - self._begins_s[slot]
        begin = np.full(len(rows), since / settings.period)
        left = view.time_left[rows] / settings.period
        power = self._rated_kw(view, rows, session)
        capacity = sessions.capacity_kwh[session]
        missing = sessions.charge_efficiency[session] * view.energy_needed[rows]
        reach = sessions.charge_efficiency[session] * power * slot_h * left
        late = missing >= reach
        least = np.maximum(sessions.soc_floor[session], settings.soc_reserve)
        # at its floor an EV reports that it can't give, but it can what it has charged by then
        at_floor = (np.abs(view.soc[rows] - least) <= _AT_FLOOR) & (sessions.discharge_kw[session] > 0)
        may = settings.discharge & (at_floor | (view.p_min[rows] < 0) & self._may_discharge(view)[rows])
        given_kw = np.where(view.p_min[rows] < 0, -view.p_min[rows], sessions.discharge_kw[session]) * may
        spare = np.where(may, np.maximum(view.soc[rows] - sessions.soc_target[session], 0.0) * capacity, 0.0)
        need = np.where(missing > 0, np.minimum(missing, reach), -spare)
        depth = np.where(may, np.maximum(view.soc[rows] - least, 0.0) * capacity, 0.0)
        if settings.depth_kwh is not None:
            depth = np.minimum(depth, np.maximum(settings.depth_kwh - missing, 0.0) + spare)
        early = np.where(
            self._coupled & (sessions.discharge_kw[session] > 0),
            sessions.taper_s[session] / settings.period,
            0.0,
        )
        columns = [begin, begin + left, need, power, depth, given_kw, early]
        group, of = context.ev_group[rows], session
        if settings.arrivals_known and self._coupled and to_come:
            # seen at the tick after that in which they arrive
            seen_s = (np.floor(sessions.arrival_s / view.step_s + 1e-9) + 1.0) * view.step_s
            due = (np.minimum(seen_s, sessions.departure_s) - self._begins_s[slot]) / settings.period
            s = np.flatnonzero(
                (context.evs.member[sessions.ev] == member)
                & (sessions.arrival_s > view.time_s + 1e-6)
                & (due < self._ahead)
                & (sessions.charge_kw > 0)
            )
            floor = np.maximum(sessions.soc_floor[s], settings.soc_reserve)
            more = [
                due[s], (sessions.departure_s[s] - self._begins_s[slot]) / settings.period,
                (sessions.soc_reach[s] - sessions.soc_arrival[s]) * sessions.capacity_kwh[s],
                sessions.charge_kw[s], np.where(
                    settings.discharge & (sessions.discharge_kw[s] > 0),
                    np.maximum(sessions.soc_arrival[s] - floor, 0.0) * sessions.capacity_kwh[s], 0.0,
                ),
                sessions.discharge_kw[s] * (settings.discharge & (sessions.soc_arrival[s] >= floor)),
                sessions.taper_s[s] / settings.period,
            ]  # fmt: skip
            within = sessions.charge_efficiency[s] * more[3] * slot_h * (more[1] - more[0])
            more[2] = np.minimum(more[2], within)
            columns = [np.concatenate(pair) for pair in zip(columns, more, strict=True)]
            group, of = np.concatenate([group, context.ev_group[sessions.ev[s]]]), np.concatenate([of, s])
        begin, end, need, power, depth, given, early = columns
        slots = int(np.clip(np.ceil(end.max(initial=1.0)), 1, self._ahead))
        batteries = batteries_of(
            begin, end, need, power, slots, slot_h, depth, group - member * context.groups,
            sessions.charge_efficiency[of], sessions.discharge_efficiency[of], given, early,
        )  # fmt: skip
        if self._has_envelope(view):
            assert view.envelope is not None
            reported = batteries_ahead(view.envelope, rows)
            batteries = with_reported(
                batteries, reported, depth[: len(rows)] / sessions.charge_efficiency[session]
            )
        elif not self._coupled:
            taper, full = self._taper(view, rows, session)
            batteries = replace(batteries, taper_kwh=taper, full_kwh=full)
        return batteries, late, of

    def _has_envelope(self, view: View) -> bool:
        """Whether the fleet has sent the envelope that begins now."""
        if not self.settings.envelope or view.envelope is None:
            return False
        return abs(view.envelope.begin_s - view.time_s) < 1e-6

    def signals_changed(self) -> None:
        """See :meth:`Strategy.signals_changed`: by what is known now a plan is made at once."""
        self._price, self._export = self._prices()
        self._most_kw, self._least_kw = self._limits()
        self._slot = -1

    # ---- forecasts ----------------------------------------------------------------------------

    def _prices(self) -> tuple[Array, Array]:
        """Price of energy drawn and credit for energy given in each slot, emissions included, (slot,)."""
        context, settings, begins_s = self.context, self.settings, self._begins_s
        drawn, given = np.zeros((2, len(begins_s)))
        if (prices := context.prices) is not None:
            drawn, given = prices.means(np.append(begins_s, begins_s[-1] + settings.period))
        if settings.emissions_price > 0:
            rates = context.emissions
            if rates is not None:
                rates = rates.until(float(begins_s[-1]) + settings.period)
                of_slots = [
                    float(rates.mean(max(at, 0.0), max(at, 0.0) + settings.period)) for at in begins_s
                ]
                extra = settings.emissions_price / 1e6 * np.array(of_slots)  # per t and kg/MWh: per kWh
                drawn, given = drawn + extra, given + extra
        return drawn, given

    def _limits(self) -> tuple[Array, Array]:
        """Most and least power of each group in each slot, by the settings and by signals that are of groups,
        (slot,) kW.
        """
        context, settings, begins_s = self.context, self.settings, self._begins_s
        most, least = (np.full(len(begins_s), kw) for kw in (settings.most_kw, settings.least_kw))
        system, known = context.system, context.known
        if not settings.limited or known is None or system is None or system.limits_of != "group":
            return most, least
        for kind in ("import_limit", "export_limit"):
            for begin_s, end_s, block in known.winners(kind, context.names):
                first = max(int(begins_s.searchsorted(begin_s, "right")) - 1, 0)
                within = slice(first, int(begins_s.searchsorted(end_s, "left")))
                if kind == "import_limit":
                    most[within] = np.minimum(most[within], block.value)
                else:
                    least[within] = np.maximum(least[within], -block.value)
        return most, least

    def _base_load(self) -> Array:
        """Mean base load of each group in each slot, (member · groups, slot) kW."""
        if self.context.base_load is None:
            raise ValueError("a limit needs a forecast: Context.base_load is None")
        begins_s = np.maximum(self._begins_s, 0.0)
        return self.context.base_load(begins_s, self._begins_s + self.settings.period)

    def _forecast(self, slot: int, slots: int, member: int) -> tuple[Array, Array, Array]:
        """Forecast prices drawn and given, (slot,), and base load, (group, slot)."""
        context, settings = self.context, self.settings
        window = slice(slot, slot + slots)
        price, export = self._price[window], self._export[window]
        of_member = slice(member * context.groups, (member + 1) * context.groups)
        base = self._base[of_member, window]
        if settings.price_error or settings.base_load_error:
            rng = stream(context.seed, context.numbers[member], Purpose.FORECAST, slot)
            walk = rng.standard_normal((1 + context.groups, self._ahead))[:, :slots].cumsum(axis=1)
            walk = (walk - walk[:, :1]) * np.sqrt(settings.period / DAY_S)
            error = 1.0 + settings.price_error * walk[0]
            price, export = price * error, export * error
            base = base * (1.0 + settings.base_load_error * walk[1:][: len(base)])
        if len(base):
            base = base + np.nan_to_num(self._beyond[of_member])[:, None]
        return price, export, base


class ArbitrageSettings(ScheduledSettings):
    """Settings of the strategy ``arbitrage``: those of ``scheduled``, with another depth."""

    depth_kwh: Annotated[float, Field(ge=0)] | None = 15.0
    """Energy below its target down to which a battery may be discharged, kWh; null: to its floor."""


class Arbitrage(Scheduled):
    """Charge in cheap hours and discharge in expensive ones, at the least cost for each EV (V2G):
    ``scheduled`` by the tariff, and not deeper than 15 kWh below the target.
    """

    Settings = ArbitrageSettings
    needs_prices = True
