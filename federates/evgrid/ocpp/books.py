"""The books of a CSMS: energy by station, transaction and tick, from the registers of the stations' meters.

In: readings of each EVSE's import and export registers, kWh, with the time at which they were read, s. Out:
the energy that each EV drew and gave, of all transactions and outside of them, its cost, and what of it
belongs to the tick under way. The energy between two readings is taken to flow evenly between their times;
its price is that of each tick (:class:`evgrid.fleet.rates.Rates`), as in a simulated fleet.

A reading that can't be is refused (:class:`Untrue`) and leaves the books as they were: so what is in them is
of credible readings only. Energy is never dropped: what a late reading says of past ticks is booked as late
energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from evgrid.core.model import Array, Clock
from evgrid.fleet.rates import Rates

MOST_OF_RATING = 1.05
"""Power above which a station's meter isn't credible, of its rating: class-B meters are within 2.5 %."""
METER_KWH = 2e-3
"""Resolution of registers and of their timestamps, as energy: all readings over any span together may show
this much beyond :data:`MOST_OF_RATING`."""
_BACK_S = 1.0
"""Most by which a reading may be older than the one before it, s; it then counts as of that one's time."""


class Untrue(ValueError):
    """A station says what can't be: it is to be cut off. The message says what, without its name."""


@dataclass
class Transaction:
    """A charging session as the station reports it.

    ev : row of the EV
    begin_s, end_s : s from the run's start; the end is None while it is open
    drawn_kwh, given_kwh, cost : between its first and last reading
    wanted_kwh : energy from the grid wanted at its begin; NaN: not said
    missing_kwh : energy still wanted at its end; NaN likewise
    soc_begin, soc_end : 0 to 1; NaN likewise
    closed : why it ended, "" while it is open
    """

    ev: int
    station: str
    id: str
    begin_s: float
    end_s: float | None = None
    drawn_kwh: float = 0.0
    given_kwh: float = 0.0
    cost: float = 0.0
    wanted_kwh: float = math.nan
    missing_kwh: float = math.nan
    soc_begin: float = math.nan
    soc_end: float = math.nan
    closed: str = ""


@dataclass
class _Meter:
    """The last credible reading of an EVSE.

    power_kw : mean between the last two
    excess_kwh : of import and export, energy beyond what :data:`MOST_OF_RATING` allows. It falls in the time
        in which less is drawn or given, not below 0 (a leaky bucket)
    """

    time_s: float = -math.inf
    import_kwh: float = math.nan
    export_kwh: float = math.nan
    power_kw: float = 0.0
    excess_kwh: tuple[float, float] = (0.0, 0.0)


@dataclass
class Books:
    """The books of all EVs.

    clock : of the run
    rates : prices of each tick
    charge_kw, discharge_kw : (ev,) rating of each EVSE, both positive
    drawn_kwh, given_kwh : (ev,) of the registers since their first reading
    outside_drawn_kwh, outside_given_kwh : (ev,) the part of it outside of any transaction
    tick_kwh : (ev,) net energy since the begin of the tick under way, not settled
    past_kwh : (ev,) net energy of ticks before that, not settled
    net_kwh : (ev,) drawn less given
    """

    clock: Clock
    rates: Rates
    charge_kw: Array
    discharge_kw: Array
    transactions: list[Transaction] = field(default_factory=list)
    closed: bool = False
    """Whether the run has ended: nothing more is booked."""

    def __post_init__(self) -> None:
        count = len(self.charge_kw)
        self._meters = [_Meter() for _ in range(count)]
        self._first = list(self._meters)
        self.drawn_kwh, self.given_kwh = np.zeros(count), np.zeros(count)
        self.outside_drawn_kwh, self.outside_given_kwh = np.zeros(count), np.zeros(count)
        self.tick_kwh, self.past_kwh = np.zeros(count), np.zeros(count)
        self.begin_s = 0.0
        self.outside_cost = np.zeros(count)

    @property
    def net_kwh(self) -> Array:
        """Energy drawn less that given of each EV, (ev,)."""
        return self.drawn_kwh - self.given_kwh

    def begin_tick(self, time_s: float) -> None:
        """A tick begins."""
        self.begin_s = time_s
        self.past_kwh += self.tick_kwh
        self.tick_kwh[:] = 0.0

    def settle(self, ev: int) -> tuple[float, float]:
        """Energy of an EV in the tick under way and of ticks before, kWh, that was not settled yet."""
        found = float(self.tick_kwh[ev]), float(self.past_kwh[ev])
        self.tick_kwh[ev] = self.past_kwh[ev] = 0.0
        return found

    def register_kwh(self) -> Array:
        """Import less export of each EV by the last credible reading, less that of the first, (ev,) kWh."""
        return np.array([
            0.0 if math.isnan(last.import_kwh)
            else (last.import_kwh - first.import_kwh) - (last.export_kwh - first.export_kwh)
            for first, last in zip(self._first, self._meters, strict=True)
        ])  # fmt: skip

    def read_at(self, ev: int) -> float:
        """Time of an EV's last reading, s; -inf without one."""
        return self._meters[ev].time_s

    def export_kwh(self, ev: int) -> float:
        """An EV's last export register; 0 without one."""
        return 0.0 if math.isnan(self._meters[ev].export_kwh) else self._meters[ev].export_kwh

    def power_kw(self, ev: int) -> float:
        """Mean power of an EV between its last two readings."""
        return self._meters[ev].power_kw

    def read(
        self, ev: int, time_s: float, import_kwh: float, export_kwh: float, of: Transaction | None
    ) -> None:
        """Book a reading of an EV's registers; ``of``: the transaction that is open.

        Raises
        ------
        Untrue
            If it can't be: a register that is negative, no number or less than it was, more energy than the
            EVSE's rating allows in the time since the last reading, or a time before that one.

        """
        meter = self._meters[ev]
        for name, value in (("import", import_kwh), ("export", export_kwh)):
            if not math.isfinite(value) or value < 0.0:
                raise Untrue(f"its {name} register reads {value * 1e3:g} Wh: must be a number, 0 or more")
        if time_s < meter.time_s - _BACK_S:
            raise Untrue(
                f"a meter value of {self.clock.stamp(time_s)} came after that of "
                f"{self.clock.stamp(meter.time_s)}"
            )
        if math.isnan(meter.import_kwh) or max(time_s, meter.time_s) < 0.0:  # of before the run
            self._first[ev] = self._meters[ev] = _Meter(time_s, import_kwh, export_kwh)
            return
        time_s = max(time_s, meter.time_s)
        span_s = time_s - meter.time_s
        drawn, given = import_kwh - meter.import_kwh, export_kwh - meter.export_kwh
        excess_kwh = []
        for name, change, rating_kw, was, before in (
            ("import", drawn, self.charge_kw[ev], meter.import_kwh, meter.excess_kwh[0]),
            ("export", given, self.discharge_kw[ev], meter.export_kwh, meter.excess_kwh[1]),
        ):
            if change < -METER_KWH:
                raise Untrue(f"its {name} register fell from {was * 1e3:g} to {(was + change) * 1e3:g} Wh")
            allowed = MOST_OF_RATING * rating_kw * span_s / 3600.0
            excess_kwh.append(max(before + max(change, 0.0) - allowed, 0.0))
            if excess_kwh[-1] > METER_KWH:
                most = allowed + METER_KWH - before
                raise Untrue(
                    f"its {name} register rose by {change * 1e3:g} Wh in {span_s:g} s: its rating of "
                    f"{rating_kw:g} kW allows {most * 1e3:.6g} Wh"
                )
        drawn, given = max(drawn, 0.0), max(given, 0.0)
        self._book(ev, meter.time_s, time_s, drawn, given, of)
        power = (drawn - given) * 3600.0 / span_s if span_s > 0.0 else meter.power_kw
        highest = max(import_kwh, meter.import_kwh), max(export_kwh, meter.export_kwh)
        self._meters[ev] = _Meter(time_s, *highest, power, (excess_kwh[0], excess_kwh[1]))

    def _book(
        self, ev: int, begin_s: float, end_s: float, drawn: float, given: float, of: Transaction | None
    ) -> None:
        self.drawn_kwh[ev] += drawn
        self.given_kwh[ev] += given
        span_s = end_s - begin_s
        now = 1.0 if span_s <= 0.0 else min(max((end_s - self.begin_s) / span_s, 0.0), 1.0)
        self.tick_kwh[ev] += now * (drawn - given)
        self.past_kwh[ev] += (1.0 - now) * (drawn - given)
        cost = self._cost(begin_s, end_s, drawn, given)
        if of is None:
            self.outside_drawn_kwh[ev] += drawn
            self.outside_given_kwh[ev] += given
            self.outside_cost[ev] += cost
        else:
            of.drawn_kwh += drawn
            of.given_kwh += given
            of.cost += cost

    def _cost(self, begin_s: float, end_s: float, drawn: float, given: float) -> float:
        """Cost of energy drawn less credit for energy given, evenly from ``begin_s`` to ``end_s``."""
        if not self.rates.priced or not (drawn or given):
            return 0.0
        step_s, ticks = self.clock.step_s, self.clock.ticks
        first = min(max(int((begin_s + 1e-6) // step_s), 0), ticks - 1)
        last = min(max(math.ceil((end_s - 1e-6) / step_s) - 1, first), ticks - 1)
        cost = 0.0
        for tick in range(first, last + 1):
            share = 1.0
            if last > first:
                from_s = tick * step_s if tick > first else begin_s
                to_s = (tick + 1) * step_s if tick < last else end_s
                share = (to_s - from_s) / (end_s - begin_s)
            of_drawn, of_given, _ = self.rates.at(tick, tick * step_s)
            cost += 3600.0 * share * (drawn * float(of_drawn) - given * float(of_given))
        return cost

    def check_power(self, ev: int, power_kw: float) -> None:
        """Raise Untrue for a power beyond an EVSE's rating, kW, positive when charging."""
        rating_kw = self.charge_kw[ev] if power_kw > 0 else self.discharge_kw[ev]
        if not abs(power_kw) <= MOST_OF_RATING * rating_kw + 0.05:
            way = "draws" if power_kw > 0 else "gives"
            raise Untrue(f"it says that it {way} {abs(power_kw):g} kW: its rating is {rating_kw:g} kW")
