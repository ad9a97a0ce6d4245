"""The fleet's physics again, in plain Python: the oracle of the kernels.

One session, one event at a time: whatever comes first (the tick's end, departure, a state of charge at
which the power law changes, laxity reaching zero, found by bisection) ends a piece in which battery
power is constant or falls exponentially. Slow, and written without a look at the kernels' algebra.
Signs, units and rules are those of :mod:`evgrid.fleet.kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

CUT_OFF = 0.05
Loss = tuple[float, float, float]


@dataclass(frozen=True)
class Session:
    """A charging session; the fields as in :class:`evgrid.fleet.sessions.Sessions`."""

    arrival_s: float
    departure_s: float
    soc_arrival: float
    soc_target: float
    capacity_kwh: float
    charge_kw: float
    discharge_kw: float = 0.0
    soc_floor: float = 0.0
    taper_soc: float = 0.8
    charge_loss: Loss = (0.0, 0.0, 0.0)
    discharge_loss: Loss = (0.0, 0.0, 0.0)
    drive_kwh: float = math.nan


@dataclass
class Account:
    """Where a session stands: state of charge, guard, and energies in kWh since its arrival."""

    soc: float
    guarded: bool = False
    drawn_kwh: float = 0.0
    given_kwh: float = 0.0
    loss_kwh: float = 0.0
    cost: float = 0.0
    trail: list[tuple[float, float, float]] = field(default_factory=list)
    """Each piece of the way: its length, s, SOC at its end, integral of the squared battery power, kW²s."""


@dataclass(frozen=True)
class Piece:
    """Battery power that is constant, or falls exponentially; positive charges. Lasts ``span_s`` at most."""

    power_kw: float
    decay_per_s: float
    span_s: float
    soc_at_end: float | None

    def soc(self, soc: float, session: Session, t: float) -> float:
        """State of charge after ``t`` seconds."""
        return soc + self.energy_kws(t) / (3600 * session.capacity_kwh)

    def energy_kws(self, t: float) -> float:
        """Integral of the power over ``t`` seconds."""
        k = self.decay_per_s
        return self.power_kw * t if k == 0 else self.power_kw * (1 - math.exp(-k * t)) / k

    def square_kw2s(self, t: float) -> float:
        """Integral of the squared power over ``t`` seconds."""
        k = self.decay_per_s
        square = self.power_kw**2
        return square * t if k == 0 else square * (1 - math.exp(-2 * k * t)) / (2 * k)


NO_POWER_KW = 1e-9
"""Power at the grid, kW, up to which none flows."""


def battery_power_drawn(grid_kw: float, loss: Loss) -> float:
    """Battery power while ``grid_kw`` is drawn: Pb + loss(Pb) = grid_kw, by bisection."""
    if grid_kw <= NO_POWER_KW:
        return 0.0
    a, b, c = loss
    return _root(lambda power: power + a + b * power + c * power**2 - grid_kw, 0.0, grid_kw)


def battery_power_given(grid_kw: float, loss: Loss) -> float:
    """Battery power while ``grid_kw`` is given: Pb - loss(Pb) = grid_kw, by bisection up to the maximum."""
    a, b, c = loss
    most = 2 * (grid_kw + a) / (1 - b)
    if c > 0:
        most = min(most, (1 - b) / (2 * c))
    return (
        _root(lambda power: power - (a + b * power + c * power**2) - grid_kw, 0.0, most)
        if grid_kw > NO_POWER_KW
        else 0.0
    )


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is zero; the nearer bound if it isn't."""
    if rising(low) >= 0:
        return low
    if rising(high) <= 0:
        return high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high


def charging_piece(session: Session, soc: float, cap_kw: float) -> Piece | None:
    """The next piece of charging at up to ``cap_kw`` at the battery; None at the target."""
    if soc >= session.soc_target or cap_kw <= 0:
        return None
    full_kw = battery_power_drawn(session.charge_kw, session.charge_loss)
    cap_kw = min(cap_kw, full_kw)
    per_kw = 3600 * session.capacity_kwh
    width = 1 - session.taper_soc
    taper_starts = session.taper_soc if cap_kw == full_kw else 1 - width * cap_kw / full_kw
    taper_ends = 1 - width * CUT_OFF
    if soc < taper_starts and taper_starts < taper_ends:
        end = min(taper_starts, session.soc_target)
        return Piece(cap_kw, 0.0, (end - soc) * per_kw / cap_kw, end)
    if soc < taper_ends and taper_starts < taper_ends:
        end = min(taper_ends, session.soc_target)
        k = full_kw / width / per_kw
        return Piece(full_kw * (1 - soc) / width, k, math.log((1 - soc) / (1 - end)) / k, end)
    low_kw = min(cap_kw, CUT_OFF * full_kw)
    return Piece(low_kw, 0.0, (session.soc_target - soc) * per_kw / low_kw, session.soc_target)


def seconds_to_target(session: Session, soc: float) -> float:
    """Time to charge to the target as fast as possible."""
    seconds = 0.0
    while (piece := charging_piece(session, soc, math.inf)) is not None:
        seconds += piece.span_s
        assert piece.soc_at_end is not None
        soc = piece.soc_at_end
    return seconds


def next_piece(session: Session, soc: float, guarded: bool, setpoint_kw: float) -> Piece:
    """What the EV does from here, until its power law changes."""
    idle = Piece(0.0, 0.0, math.inf, None)
    if guarded or setpoint_kw >= session.charge_kw:
        return charging_piece(session, soc, math.inf) or idle
    if setpoint_kw > 0:
        cap_kw = battery_power_drawn(setpoint_kw, session.charge_loss)
        return charging_piece(session, soc, cap_kw) or idle
    power = battery_power_given(min(-setpoint_kw, session.discharge_kw), session.discharge_loss)
    if power == 0 or soc <= session.soc_floor:
        return idle
    end = session.soc_floor
    if session.soc_floor < session.soc_target < soc:
        end = session.soc_target
    return Piece(-power, 0.0, (soc - end) * 3600 * session.capacity_kwh / power, end)


def follow(
    session: Session, account: Account, setpoint_kw: float, start_s: float, seconds: float,
    import_price: float = 0.0, export_price: float = 0.0,
) -> float:  # fmt: skip
    """Advance a session that is plugged in over all of [start_s, start_s + seconds).

    Updates the account and returns the net energy drawn, kWh.
    """
    net = 0.0
    left = session.departure_s - start_s
    while seconds > 0:
        if account.soc < session.soc_target and left <= seconds_to_target(session, account.soc):
            account.guarded = True
        piece = next_piece(session, account.soc, account.guarded, setpoint_kw)
        span, at_end = seconds, None
        if piece.span_s <= seconds:
            span, at_end = piece.span_s, piece.soc_at_end
        if not account.guarded:
            zero = _zero_of_laxity(session, account.soc, piece, span, left)
            if zero is not None:
                span, at_end = zero, None
                account.guarded = True
        energy, square = piece.energy_kws(span) / 3600, piece.square_kw2s(span) / 3600
        if piece.power_kw != 0:
            a, b, c = session.charge_loss if piece.power_kw > 0 else session.discharge_loss
            loss = a * span / 3600 + b * abs(energy) + c * square
            account.loss_kwh += loss
            if piece.power_kw > 0:
                account.drawn_kwh += energy + loss
                account.cost += (energy + loss) * import_price
            else:
                account.given_kwh += -energy - loss
                account.cost += (energy + loss) * export_price
            net += energy + loss
        account.soc = piece.soc(account.soc, session, span) if at_end is None else at_end
        if account.guarded and 0 < session.soc_target - account.soc < 1e-11 and piece.power_kw > 0:
            account.soc = session.soc_target
        account.trail.append((span, account.soc, piece.square_kw2s(span)))
        seconds -= span
        left -= span
    return net


def _zero_of_laxity(session: Session, soc: float, piece: Piece, span: float, left: float) -> float | None:
    """When laxity reaches zero within a piece, by bisection; None if it doesn't."""

    def laxity(t: float) -> float:
        then = piece.soc(soc, session, t)
        if piece.soc_at_end is not None and t == piece.span_s:
            then = piece.soc_at_end
        return left - t - seconds_to_target(session, then)

    reached = piece.soc_at_end if span == piece.span_s else piece.soc(soc, session, span)
    if (reached is not None and reached >= session.soc_target) or laxity(span) >= 0:
        return None
    return _root(lambda t: -laxity(t), 0.0, span)


def simulate(
    sessions: Sequence[Session],
    setpoint: Callable[[int], float],
    step_s: float,
    ticks: int,
    import_price: Sequence[float] | None = None,
    export_price: Sequence[float] | None = None,
) -> tuple[list[float], list[Account]]:
    """Follow one EV's sessions over a run. Twin of :func:`evgrid.fleet.kernels.step.step`.

    ``setpoint``: tick to kW. Returns the mean power of each tick, kW, and the account of each session.
    """
    accounts = [Account(session.soc_arrival) for session in sessions]
    powers = []
    for tick in range(ticks):
        start, end = tick * step_s, (tick + 1) * step_s
        net = 0.0
        for number, (session, account) in enumerate(zip(sessions, accounts, strict=True)):
            if start <= session.arrival_s < end and number and not math.isnan(session.drive_kwh):
                left_with = accounts[number - 1].soc
                account.soc = max(0.05, left_with - session.drive_kwh / session.capacity_kwh)
            first, last = max(start, session.arrival_s), min(end, session.departure_s)
            if last > first:
                net += follow(
                    session, account, setpoint(tick), first, last - first,
                    import_price[tick] if import_price else 0.0,
                    export_price[tick] if export_price else 0.0,
                )  # fmt: skip
        powers.append(net * 3600 / step_s)
    return powers, accounts


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What :data:`evgrid.fleet.kernels.records.OPTIONS` hold of what the twin covers; off by default."""

    throughput_kwh: float = math.inf
    hours: float = math.inf
    least_a: float = 0.0
    pilot_a: float = 0.0
    volt: float = 230.0
    ramp_kw_per_s: float = math.inf
    standby_kw: float = 0.0
    """Drawn, and lost, while no power flows."""
    into_limit: Callable[[Session], float] = lambda session: math.inf
    """Most that the battery takes at the temperature of the run, kW."""


@dataclass
class Past:
    """What an EV has done in the run, and what it was refused, kWh by reason."""

    out_kwh: float = 0.0
    discharging_s: float = 0.0
    ramped_kw: float = 0.0
    refused_kwh: dict[str, float] = field(default_factory=dict)


Answer = Callable[[float, float, float, float], float]
"""What an EVSE makes of a wish: (wished, least, greatest power in kW, seconds) to kW."""


def follow_rules(
    session: Session, account: Account, past: Past, rules: Rules, setpoint_kw: float, start_s: float,
    seconds: float, never: str = "", willing: bool = True, answer: Answer | None = None,
) -> float:  # fmt: skip
    """Advance over a window in full detail. Twin of :func:`evgrid.fleet.kernels.one_ev.window`.

    ``never``: reason for which the EV may never discharge. Returns the net energy drawn, kWh.
    """
    rated_kw = session.discharge_kw or session.charge_kw
    asked_kw = max(0.0, min(-setpoint_kw, rated_kw))
    reason = ""
    target_kw = setpoint_kw
    if setpoint_kw < 0:
        reasons = (
            ("vehicle", never == "vehicle"),
            ("evse", session.discharge_kw == 0),
            (never, never in ("interconnection", "warranty")),
            ("warranty", past.out_kwh >= rules.throughput_kwh * (1 - 1e-12)),
            ("warranty", past.discharging_s >= rules.hours * 3600),
            ("driver", never == "driver" or not willing),
        )
        reason = next((name for name, holds in reasons if holds), "")
        if reason:
            target_kw = 0.0
        elif rules.throughput_kwh < math.inf:
            a, b, c = session.discharge_loss
            out_kw = (rules.throughput_kwh - past.out_kwh) * 3600 / seconds
            most_kw = max(out_kw - (a + b * out_kw + c * out_kw**2), 0.0)
            if most_kw < asked_kw and out_kw < 2 * rated_kw:
                target_kw, reason = -most_kw, "warranty"
    elif 0 < setpoint_kw < math.inf:
        amperes = setpoint_kw * 1000 / rules.volt * (1 + 1e-12)
        if amperes < rules.least_a:
            target_kw = 0.0
        elif rules.pilot_a:
            target_kw = amperes // rules.pilot_a * rules.pilot_a * rules.volt / 1000
    if rules.ramp_kw_per_s < math.inf:
        target_kw = max(-session.discharge_kw, min(target_kw, session.charge_kw))
        way = target_kw - past.ramped_kw
        reached_s = min(abs(way) / rules.ramp_kw_per_s, seconds)
        end_kw = past.ramped_kw + math.copysign(rules.ramp_kw_per_s * reached_s, way)
        if reached_s < seconds:
            end_kw = target_kw
        mean_kw = ((past.ramped_kw + end_kw) / 2 * reached_s + end_kw * (seconds - reached_s)) / seconds
        past.ramped_kw, target_kw = end_kw, mean_kw
        if not reason:
            asked_kw = min(asked_kw, max(-mean_kw, 0.0))

    wish = replace(account, trail=[])
    wished_kw = follow(session, wish, target_kw, start_s, seconds) * 3600 / seconds
    into_kw = min(rules.into_limit(session), battery_power_drawn(session.charge_kw, session.charge_loss))
    done, power_kw = wish, wished_kw
    if answer is not None or rules.into_limit(session) < math.inf:
        high = Account(account.soc)
        cap_kw = 0.0
        if into_kw > 0:
            a, b, c = session.charge_loss
            cap_kw = into_kw + a + b * into_kw + c * into_kw**2
        forever = replace(session, departure_s=math.inf)
        follow(forever, high, cap_kw, start_s, seconds)
        high_kw = high.drawn_kwh * 3600 / seconds
        low = Account(account.soc)
        follow(replace(forever, soc_target=0.0), low, -session.discharge_kw, start_s, seconds)
        low_kw = -low.given_kwh * 3600 / seconds
        if reason or session.discharge_kw == 0 or never:
            low_kw = min(wished_kw, 0.0)
        if rules.into_limit(session) == math.inf:  # who charges slowly loses longer: a wish is no excess
            high_kw, low_kw = max(high_kw, wished_kw), min(low_kw, wished_kw)
        if answer is not None:
            power_kw = answer(wished_kw, low_kw, high_kw, seconds)
        else:
            power_kw = max(low_kw, min(wished_kw, high_kw))
        if abs(power_kw - wished_kw) > 1e-12 * session.charge_kw:
            done = replace(account, guarded=False, trail=[])
            follow(replace(session, departure_s=math.inf), done, power_kw, start_s, seconds)
            done.guarded = wish.guarded
    idle_s = seconds - sum(span for span, _, square_kw2s in done.trail if square_kw2s > 0)
    done.drawn_kwh += rules.standby_kw * idle_s / 3600
    done.loss_kwh += rules.standby_kw * idle_s / 3600
    drawn = done.drawn_kwh - account.drawn_kwh
    given = done.given_kwh - account.given_kwh
    if given > 0:
        past.discharging_s += seconds
        past.out_kwh += max(account.soc - done.soc, 0.0) * session.capacity_kwh
    refused = asked_kw * seconds / 3600 - given
    if asked_kw > 0 and refused > 1e-9 * asked_kw * seconds / 3600:
        if not reason:
            reason = "departure" if wish.guarded else "floor" if done is wish else "grid"
        past.refused_kwh[reason] = past.refused_kwh.get(reason, 0.0) + refused
    account.soc, account.guarded, account.trail = done.soc, done.guarded, account.trail + done.trail
    account.drawn_kwh, account.given_kwh, account.loss_kwh = done.drawn_kwh, done.given_kwh, done.loss_kwh
    return drawn - given


def state_that_reaches(session: Session, left_s: float) -> float:
    """Least state of charge from which the target is in reach within ``left_s``, by bisection."""
    if left_s <= 0:
        return session.soc_target
    return _root(lambda soc: left_s - seconds_to_target(session, soc), 0.0, session.soc_target)


def meter_energy(session: Session, soc: float) -> float:
    """Energy at the meter from ``soc`` to the target at full power, kWh; above the target negative."""
    full_kw = battery_power_drawn(session.charge_kw, session.charge_loss)
    if soc > session.soc_target:
        return (session.soc_target - soc) * session.capacity_kwh * session.charge_kw / full_kw
    energy, (a, b, c) = 0.0, session.charge_loss
    while (piece := charging_piece(session, soc, math.inf)) is not None:
        kws = piece.energy_kws(piece.span_s)
        energy += (1 + b) * kws + a * piece.span_s + c * piece.square_kw2s(piece.span_s)
        assert piece.soc_at_end is not None
        soc = piece.soc_at_end
    return energy / 3600


def envelope(
    session: Session, soc: float, guarded: bool, now_s: float, slot_s: float, willing: Sequence[float],
    never: bool = False, spare_kwh: float = math.inf, spare_s: float = math.inf,
) -> dict[str, list[float]]:  # fmt: skip
    """Limits of one EV in each slot. Twin of :func:`evgrid.fleet.kernels.envelope.limits_ahead`.

    ``never``: it may not discharge; ``spare_kwh``, ``spare_s``: what its warranty leaves.
    """
    to_departure = replace(session, departure_s=math.inf)
    out_kw = 0.0
    if session.discharge_kw and not never and not guarded:
        out_kw = battery_power_given(session.discharge_kw, session.discharge_loss)
    spare_kwh = min(spare_kwh, spare_s * out_kw / 3600)
    floor = max(session.soc_floor, soc - spare_kwh / session.capacity_kwh)

    def charged(start: float, seconds: float) -> float:
        account = Account(start)
        follow(to_departure, account, math.inf, 0.0, seconds)
        return account.soc

    def draws(start: float, end: float) -> float:
        return meter_energy(session, start) - meter_energy(session, end)

    low = high = fallen = soc
    limits: dict[str, list[float]] = {"p_min": [], "p_max": [], "e_min": [], "e_max": []}
    for slot, share in enumerate(willing):
        begin_s = now_s + slot * slot_s
        here_s = min(max(session.departure_s - begin_s, 0.0), slot_s)
        p_min = p_max = 0.0
        if here_s > 0:
            p_max = draws(low, charged(low, here_s)) * 3600 / slot_s
            fastest = charged(high, here_s)
            if fallen > floor:
                fallen = max(floor, fallen - out_kw * here_s * share / 3600 / session.capacity_kwh)
            low = max(fallen, state_that_reaches(session, session.departure_s - begin_s - here_s))
            low = fastest if guarded else min(low, fastest)
            if low > high:
                p_min = draws(high, low) * 3600 / slot_s
            elif out_kw:
                room_kwh = max(high - max(low, session.soc_floor), 0.0) * session.capacity_kwh
                out_s = min(room_kwh, spare_kwh) * 3600 / out_kw
                p_min = -session.discharge_kw * min(here_s * share, out_s) / slot_s
            high = fastest
        for name, value in zip(limits, (p_min, p_max, draws(soc, low), draws(soc, high)), strict=True):
            limits[name].append(value)
    return limits


def limit_kw(session: Session, soc: float) -> tuple[float, float]:
    """Most power into the battery at a state of charge, and what that draws, kW; 0 at the target."""
    piece = charging_piece(session, soc, math.inf)
    if piece is None:
        return 0.0, 0.0
    a, b, c = session.charge_loss
    return piece.power_kw, min(piece.power_kw * (1 + b) + a + c * piece.power_kw**2, session.charge_kw)


def status(session: Session, soc: float, guarded: bool, now_s: float) -> dict[str, float]:
    """What a charger reports of a session. Twin of :func:`evgrid.fleet.kernels.reports.status`."""
    return {
        "plugged": 1.0,
        "soc": soc,
        "p_max": limit_kw(session, soc)[1],
        "p_min": 0.0 if guarded or soc <= session.soc_floor else -session.discharge_kw,
        "energy_needed": meter_energy(session, min(soc, session.soc_target)),
        "time_left": session.departure_s - now_s,
        "time_needed": seconds_to_target(session, soc),
    }


def flexibility(
    session: Session, soc: float, guarded: bool, now_s: float, horizon_s: float, power_kw: float,
    never: bool = False,
) -> dict[str, float]:  # fmt: skip
    """What one EV can offer for a horizon. Twin of :func:`evgrid.fleet.kernels.reports.flexibility`."""
    capacity, hours = session.capacity_kwh, horizon_s / 3600
    may = not never and session.discharge_kw > 0 and soc > session.soc_floor
    into_kw, p_max = limit_kw(session, soc)
    left_s = session.departure_s - now_s - horizon_s
    least = max(session.soc_floor if may else soc, state_that_reaches(session, left_s))
    most = max(session.soc_target, soc)
    up = down = 0.0
    p_min = -session.discharge_kw if may else 0.0
    if guarded:
        p_min = p_max
    elif left_s >= 0:
        spare_kw = (soc - least) * capacity / hours
        if spare_kw < 0:
            spare_kw *= p_max / into_kw
        elif may:
            out_kw = battery_power_given(session.discharge_kw, session.discharge_loss)
            spare_kw *= session.discharge_kw / out_kw
        up = max(0.0, min(power_kw - p_min, power_kw + spare_kw))
        if p_max > 0:
            down = max(0.0, min(p_max, (most - soc) * capacity / hours * p_max / into_kw) - power_kw)
    return {"p_min": p_min, "p_max": p_max, "e_min": least * capacity, "e_max": most * capacity,
            "up": up, "down": down}  # fmt: skip


def command(
    heard: Sequence[tuple[float, float]], outages: Sequence[tuple[float, float]], time_s: float,
    timeout_s: float, fallback_kw: float,
) -> float:  # fmt: skip
    """What an EVSE goes by at a time. Twin of :func:`evgrid.fleet.link.receive`.

    ``heard``: (s, kW) of all set-points that came in up to then; ``outages``: (begin, end), s. NaN as
    ``fallback_kw`` keeps the last.
    """
    got = [(0.0, 0.0)]
    got += [(at, kw) for at, kw in heard if at <= time_s and not any(b <= at < e for b, e in outages)]
    at, kw = got[-1]
    stale = time_s - at >= timeout_s and not math.isnan(fallback_kw)
    return fallback_kw if stale else kw
