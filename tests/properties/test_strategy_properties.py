"""Any built-in strategy, any set of sessions: limits are kept, no reachable departure is lost, and groups
stay within their limit where it can be kept; a member computed by itself equals the same among others.

The aggregator and the fleet are stepped by hand in causal order, with a feeder without losses between them:
what a transformer carries is the base load, which changes every few ticks, and its EVs.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from evgrid.aggregator.dispatch import LimitSettings, WithinSettings
from evgrid.aggregator.excess import REASONS
from evgrid.aggregator.model import AggregatorModel
from evgrid.aggregator.strategy import Strategy, register
from evgrid.core.model import ALL_PHASES, Connections, EVs, MemoryRecorder, Portfolio, Sensitivity
from evgrid.fleet.model import FleetModel
from evgrid.fleet.planned_sessions import planned_sessions_of
from evgrid.fleet.sessions import Sessions
from evgrid.scenario import scenario_from
from evgrid.scenario.aggregators import STRATEGIES

LIMIT_KW = 20.0
SAMPLES = {"limit_kw": LIMIT_KW, "product": "fcr"}
"""A value for each setting that a strategy requires; one of a new name belongs here."""
CONNECTIONS = Connections(
    np.array([f"L{i}" for i in range(4)]), np.arange(4), np.full(4, ALL_PHASES, np.int8),
    np.array([0, 0, 1, 1]), np.ones(4, np.int64), tuple("abc"),
)  # fmt: skip
_SAME = np.eye(3)[None, :, None, :] * np.ones((4, 1, 4, 1))
SENSITIVITY = Sensitivity(np.arange(4), np.full((4, 3), 0.97), -0.002 * _SAME, -0.001 * _SAME)


@pytest.fixture(scope="module")
def emissions(tmp_path_factory):
    path: Path = tmp_path_factory.mktemp("emissions") / "moer.csv"
    rows = [f"{1800 * k},{100 + 300 * (k * 7 % 5)}" for k in range(48)]
    path.write_text("\n".join(["time,kg_per_mwh", *rows]))
    return str(path)


def variants():
    """Each built-in strategy with what it requires, and where it takes more samples with those, too."""
    for name in STRATEGIES.names():
        fields = STRATEGIES.find(name).Settings.model_fields
        required = {key for key, field in fields.items() if field.is_required()} - {"strategy"}
        assert required <= set(SAMPLES), f"give {name} a sample of {required - set(SAMPLES)} in SAMPLES"
        for keys in sorted({tuple(sorted(required)), tuple(sorted(required | (fields.keys() & SAMPLES)))}):
            yield pytest.param(name, {key: SAMPLES[key] for key in keys}, id="-".join([name, *keys]))


def scenario_of(name, own, step, ticks, emissions):
    return scenario_from(
        {
            "name": "any",
            "time": {"start": "2026-07-01T15:00", "duration": step * ticks, "step": step},
            "ensemble": {"seed": 3},
            "feeder": {"network": "x"},
            "fleet": {"count": 1},
            "aggregators": {"main": {"strategy": name, "group": "transformer", **own}},
            "communication": {"telemetry": step},
            "tariff": "pge_ev2a",
            "system": {
                "nominal_hz": 50,
                "frequency": {"source": "constant"},
                "regulation": {"source": "synthetic", "step": 2},
                "emissions": {"file": emissions},
                "events": [{"name": "heat", "start": "2026-07-01T17:00", "duration": "1h"}],
            },
            "record": {"ev": True},
        }
    )


share = st.floats(0, 1)


@st.composite
def stays(draw):
    """One EV: its place, its battery, and up to two stays as shares of the run, which may go on after it."""
    marks = sorted(draw(st.lists(st.floats(0, 1.5), min_size=2, max_size=4, unique=True)))
    battery = {
        "capacity_kwh": draw(st.floats(5, 80)),
        "charge_kw": draw(st.floats(1, 11)),
        "discharge_kw": draw(st.one_of(st.just(0.0), st.floats(1, 11))),
        "taper_soc": draw(st.floats(0.3, 0.95)),
        "soc_floor": draw(st.floats(0, 0.5)),
        "charge_loss": draw(st.sampled_from([(0.0, 0.1, 0.0), (0.066, 0.036, 2e-3)])),
        "discharge_loss": draw(st.sampled_from([(0.0, 0.1, 0.0), (0.066, 0.036, 2e-3)])),
    }
    pairs = zip(marks[::2], marks[1::2], strict=False)
    found = [
        battery | {"from": a, "to": b, "soc_arrival": draw(share), "soc_target": draw(share)}
        for a, b in pairs
        if a < 1 and b - a > 1e-3
    ]
    return draw(st.integers(0, 3)), found


worlds = st.tuples(
    st.lists(stays().filter(lambda ev: ev[1]), min_size=1, max_size=5),
    st.lists(st.tuples(st.floats(-10, 40), st.floats(-10, 40)), min_size=4, max_size=8),
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
)


def stay(begin, end, target, charge_kw, discharge_kw=0.0):
    """A stay of an empty battery of 5 kWh."""
    constant = (0.0, 0.1, 0.0)
    return {
        "from": begin, "to": end, "soc_arrival": 0.0, "soc_target": target, "capacity_kwh": 5.0,
        "charge_kw": charge_kw, "discharge_kw": discharge_kw, "taper_soc": 0.5, "soc_floor": 0.0,
        "charge_loss": constant, "discharge_loss": constant,
    }  # fmt: skip


def tables(evs, duration_s):
    flat = [(i, stay) for i, (_, own) in enumerate(evs) for stay in own]
    names = ("soc_arrival", "soc_target", "soc_floor", "capacity_kwh", "charge_kw", "discharge_kw",
             "charge_loss", "discharge_loss", "taper_soc")  # fmt: skip
    columns = {name: np.array([stay[name] for _, stay in flat], float) for name in names}
    sessions = Sessions(
        ev=np.array([i for i, _ in flat], np.int32),
        arrival_s=np.array([stay["from"] for _, stay in flat]) * duration_s,
        departure_s=np.array([stay["to"] for _, stay in flat]) * duration_s,
        **columns,
    )
    at = np.array([place for place, _ in evs])
    name = np.array([f"ev{i}" for i in range(len(evs))])
    return EVs(np.zeros(len(evs), np.int64), at, np.full(len(evs), ALL_PHASES, np.int8), name), sessions


class Run:
    """Steps a strategy's aggregator and the fleet; inputs, set-points and power of each tick."""

    def __init__(self, name, own, world, emissions, step_s=300.0):
        fast = STRATEGIES.find(name).uses_system
        self.step_s, self.ticks = (10.0, 180) if fast else (step_s, 72)
        evs, levels, signal = world
        self.scenario = scenario_of(name, own, self.step_s, self.ticks, emissions)
        self.evs, self.sessions = tables(evs, self.step_s * self.ticks)
        rows = np.linspace(0, len(levels), self.ticks, endpoint=False).astype(int)
        self.base = np.array(levels)[rows]  # (tick, group) kW
        signal = np.array(signal)[np.arange(self.ticks) * 4 // self.ticks]
        recorder = MemoryRecorder()
        n = len(self.evs)
        self.group = CONNECTIONS.trafo[self.evs.connection]
        self.constant_loss_kw = np.zeros(n)
        np.maximum.at(self.constant_loss_kw, self.sessions.ev, self.sessions.charge_loss[:, 0])
        models = [
            FleetModel(
                self.scenario, CONNECTIONS, self.evs, self.sessions, recorder, name != "uncontrolled", 2
            )
        ]
        if name != "uncontrolled":
            known = planned_sessions_of(self.scenario, CONNECTIONS, self.evs, self.sessions)
            portfolio = Portfolio("main", 0, np.arange(n), whole=True)
            models.insert(
                0,
                AggregatorModel(
                    self.scenario, portfolio, CONNECTIONS, self.evs, np.arange(2), recorder,
                    lambda out: SENSITIVITY, known, self.forecast,
                ),
            )  # fmt: skip
        said = {f"fleet/{field}": np.zeros(n) for field in ("plugged", "soc", "p_max", "p_min",
                "energy_needed", "time_left", "time_needed")}  # fmt: skip
        said |= {"fleet/p": np.zeros((1, 4, 3)), "feeder/trafo_p": np.zeros((1, 2))}
        said["feeder/voltage"] = np.ones((1, 4, 3))
        self.told = []
        for tick in range(self.ticks):
            said["system/regulation"] = signal[tick : tick + 1]
            said["system/frequency"] = 50.0 + 0.2 * signal[tick : tick + 1]
            self.told.append({key: np.array(value) for key, value in said.items()})
            for model in models:
                said |= model.step(tick * self.step_s, {key: said[key] for key in model.inputs})
            power = said["fleet/p"].sum(axis=2)[0]
            said["feeder/trafo_p"] = self.base[tick : tick + 1] + np.bincount(CONNECTIONS.trafo, power)
            phase = said["fleet/p"].reshape(12)
            said["feeder/voltage"] = 0.97 + (SENSITIVITY.dv_dp.reshape(12, 12) @ phase).reshape(1, 4, 3)
        self.told.append({key: np.array(value) for key, value in said.items()})
        for model in models:
            model.finish()
        self.power = recorder.series("ev_power_kw")
        self.soc = recorder.series("ev_soc")
        self.static = recorder.static

    def forecast(self, times_s, until_s=None):
        """Mean base load by transformer, (member, trafo + 1, n): the levels of the run, then the last."""
        until_s = times_s + self.step_s if until_s is None else until_s
        edges = self.step_s * np.arange(self.ticks + 1)
        ahead = np.zeros((1, self.base.shape[1]))
        energy = np.concatenate([ahead, np.cumsum(self.step_s * self.base, axis=0)])

        def used(time_s):
            beyond = np.maximum(time_s - edges[-1], 0.0)
            return [np.interp(time_s, edges, column) for column in energy.T] + np.outer(self.base[-1], beyond)

        mean = (used(until_s) - used(times_s)) / (until_s - times_s)
        return np.concatenate([mean, np.zeros((1, len(times_s)))])[None]


def check(name, own, world, emissions):
    run = Run(name, own, world, emissions)
    sessions = run.sessions
    # power and state of charge stay within each EV's limits
    for ev in range(len(run.evs)):
        own = sessions.ev == ev
        assert np.all(run.power[:, ev] <= sessions.charge_kw[own].max() + 1e-9)
        assert np.all(run.power[:, ev] >= -sessions.discharge_kw[own].max() - 1e-9)
        lowest = np.minimum(sessions.soc_floor, sessions.soc_arrival)[own].min()
        highest = np.maximum(sessions.soc_target, sessions.soc_arrival)[own].max()
        soc = run.soc[:, ev][~np.isnan(run.soc[:, ev])]
        assert np.all(soc >= lowest - 1e-9)
        assert np.all(soc <= highest + 1e-9)
    # no departure is lost that charging as fast as possible would have met
    avoidable = run.static["session_energy_unserved_avoidable_kwh"]
    assert np.all(np.nan_to_num(avoidable) <= 1e-6)
    if getattr(run.scenario.aggregators["main"], "limit_kw", None) is None:
        return
    for tick in range(1, run.ticks):
        before, after = run.told[tick], run.told[tick + 1]
        laxity = before["fleet/time_left"] - before["fleet/time_needed"]
        plugged = before["fleet/plugged"] > 0.5
        must = plugged & (laxity < run.step_s)
        # whom the guard has charged: who had to, who came in this tick, whose laxity ended in it
        left = after["fleet/time_left"] - after["fleet/time_needed"]
        guarded = must | ~plugged | ((after["fleet/plugged"] > 0.5) & (left <= 1e-6))
        for group in range(2):
            here = run.group == group
            base_told = before["feeder/trafo_p"][0, group] - run.power[tick - 1, here].sum()
            share = np.minimum(before["fleet/time_left"] / run.step_s, 1.0)  # those that leave draw for less
            room = LIMIT_KW - base_told - (before["fleet/p_max"] * share)[here & must].sum()
            drawn = run.power[tick, here & ~guarded].sum()
            assert drawn <= max(room, 0.0) + 1e-6
            if room >= 0 and not guarded[here].any():  # so the base load's ramp is all that exceeds it
                total = run.base[tick, group] + run.power[tick, here].sum()
                ramp = run.base[tick, group] - base_told
                assert total <= LIMIT_KW + max(ramp, 0.0) + 1e-6


@pytest.mark.parametrize(("name", "own"), variants())
def test_limits_and_departures_are_kept(name, own, emissions):
    @settings(max_examples=8, deadline=None)
    @given(worlds)
    def holds(world):
        check(name, own, world, emissions)

    holds()


def test_an_ev_that_leaves_within_the_tick_counts_with_its_mean_power_once(emissions):
    """One late EV draws 1 kW for the 24 s until it leaves: 0.08 kW of the tick's room are not the others'."""
    late = stay(0.0, 0.015, 0.78, 1.0)
    first = stay(0.0, 0.1381, 0.226, 10.0) | {"capacity_kwh": 18.34, "taper_soc": 0.433}
    second = stay(0.0, 0.851, 0.798, 11.0)
    world = ([(0, [one]) for one in (first, second, late)], [(0.0, 0.0)] * 4, [0.0] * 4)
    check("scheduled", {"limit_kw": LIMIT_KW}, world, emissions)


def test_an_ev_that_arrives_in_its_taper_is_not_taken_for_late(emissions):
    """It could wait, and does: nobody gives power for it in the tick in which it comes."""
    loss = (0.0, 0.1, 0.0)
    comes = stay(0.5472, 1.1333, 0.7831, 9.89) | {
        "soc_arrival": 0.7539,
        "capacity_kwh": 66.5,
        "taper_soc": 0.4186,
    }
    gives = stay(0.1547, 1.2213, 0.33, 7.05, 2.4) | {
        "soc_arrival": 0.585,
        "capacity_kwh": 50.6,
        "charge_loss": loss,
    }
    run = Run("scheduled", {"limit_kw": 1.77, "export_limit_kw": 0.0},
              ([(0, [comes]), (0, [gives])], [(-3.342, 0.0)] * 4, [0.0] * 4), emissions, 60.0)  # fmt: skip
    assert run.power[:40].min() >= -1e-9


def limited_strategies():
    return [name for name in STRATEGIES.names() if issubclass(STRATEGIES.find(name).Settings, WithinSettings)]


@pytest.mark.parametrize("name", limited_strategies())
def test_a_limit_holds_both_ways_or_what_passes_it_has_its_reason(name, emissions):
    """Any limit both ways, base load of both signs, tick; the last tick is told to nobody."""

    @settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
    @given(
        worlds,
        st.sampled_from([60.0, 300.0, 900.0]),
        st.floats(1, 40),
        st.one_of(st.none(), st.floats(0, 40)),
    )
    def holds(world, step_s, most, export):
        own = {"limit_kw": most, **({} if export is None else {"export_limit_kw": export})}
        least = -(most if export is None else export)
        required = STRATEGIES.find(name).Settings.model_fields["limit_kw"].is_required()
        if name == "reserve":
            own["product"] = SAMPLES["product"]
        assert required or name not in ("peak_limit", "v2g_peak_shaving", "peak_shaving")
        run = Run(name, own, world, emissions, step_s)
        assert np.all(np.nan_to_num(run.static["session_energy_unserved_avoidable_kwh"]) <= 1e-6)
        told_kwh = run.static["limit_excess_kwh"][0]
        excess_kwh = np.zeros(2)
        for tick in range(run.ticks):
            before, after = run.told[tick], run.told[tick + 1]
            here_before = before["fleet/plugged"] > 0.5
            laxity = after["fleet/time_left"] - after["fleet/time_needed"]
            late = (after["fleet/plugged"] > 0.5) & (laxity <= run.step_s) & (after["fleet/p_max"] > 0)
            needs = before["fleet/p_max"] > 0
            must = (
                here_before & needs & (before["fleet/time_left"] - before["fleet/time_needed"] < run.step_s)
            )
            forced = late | must | (~here_before & (np.abs(run.power[tick]) > 0))
            for group in range(2):
                here = run.group == group
                evs = run.power[tick, here].sum()
                total = run.base[tick, group] + evs
                beyond = total - np.clip(total, least, most)
                if tick + 1 < run.ticks:
                    excess_kwh[group] += abs(beyond) * run.step_s / 3600
                base_told = (
                    before["feeder/trafo_p"][0, group]
                    - before["fleet/p"].sum(axis=2)[0][CONNECTIONS.trafo == group].sum()
                )
                rise = run.base[tick, group] - base_told
                if evs < -1e-6:  # no discharge beyond the limit, but for what others draw less than asked
                    charging = here & (run.power[tick] > 0)
                    taper = np.maximum(before["fleet/p_max"] - after["fleet/p_max"], 0.0)[charging].sum()
                    asked = after["aggregator/setpoint"][here]
                    # who is asked for less than the constant loss draws nothing
                    lost = asked[(asked > 0) & (asked <= run.constant_loss_kw[here])].sum()
                    # where the base load is beyond the limit by itself, the EVs may not add to it
                    floor = min(least, run.base[tick, group])
                    assert total >= floor - max(-rise, 0.0) - taper - lost - 1e-5
                if evs > 1e-6 and not forced[here].any():  # nor charging, but for what it rose by
                    assert total <= most + max(rise, 0.0) + 1e-5
        np.testing.assert_allclose(told_kwh.sum(axis=1), excess_kwh, rtol=1e-3, atol=2e-5 * run.ticks)
        assert np.all(told_kwh >= 0)
        assert np.all(told_kwh[:, REASONS.index("others")] == 0)

    holds()


def test_the_check_sees_an_overrun(emissions):
    @register("reckless")
    class Reckless(Strategy):
        """Charges all at once, whatever the limit that it is given."""

        Settings = LimitSettings

        def setpoints(self, view):
            return np.full(len(view.soc), np.inf)

    try:
        world = [(0, [stay(0, 1.2, 0.5, 11.0)]), (1, [stay(0, 1.2, 0.5, 11.0)])], [(0.0, 0.0)] * 4, [0.0] * 4
        with pytest.raises(AssertionError):
            check("reckless", {"limit_kw": LIMIT_KW}, world, emissions)
        check("peak_limit", {"limit_kw": LIMIT_KW}, world, emissions)
    finally:
        del STRATEGIES._found["reckless"]


OPTIONS_BY_STRATEGY = {"demand_response": {"opt_out": 0.5}, "scheduled": {"price_error": 0.3}}
"""Settings by which a strategy draws random numbers."""


def setpoints_by_member(name, own, numbers, emissions):
    """Set-points of each tick, (EV of the member,) kW, by the members' numbers, which run together.

    Member 0 has four EVs, each other three; all have base loads and signals of their own.
    """
    step_s, ticks, longer = (10.0, 450, 4.0) if STRATEGIES.find(name).uses_system else (900.0, 28, 1.0)
    duration_s = step_s * ticks
    scenario = scenario_of(name, own, step_s, ticks, emissions)
    ensemble = scenario.ensemble.model_copy(update={"first": numbers[0], "members": len(numbers)})
    scenario = scenario.model_copy(update={"ensemble": ensemble})
    fleets = []
    for member in numbers:
        rng = np.random.default_rng(member)
        fleet = []
        for _ in range(4 if member == 0 else 3):
            begin, end = 0.3 * rng.random(), longer * (0.7 + rng.random())
            half_full = stay(begin, end, 1.0, *rng.uniform(1, 6, 2)) | {"soc_arrival": 0.4}
            fleet.append((int(rng.integers(4)), [half_full]))
        fleets.append(fleet)
    counts = [len(fleet) for fleet in fleets]
    evs, sessions = tables([ev for fleet in fleets for ev in fleet], duration_s)
    evs = replace(evs, member=np.repeat(np.arange(len(numbers)), counts))

    def base_load(times_s, until_s=None):
        middle_s = times_s + 0.5 * step_s if until_s is None else 0.5 * (times_s + until_s)
        turns = np.add.outer(np.add.outer(np.array(numbers), [0.0, 0.4]), middle_s / duration_s)
        known = 12.0 + 8.0 * np.sin(2.0 * np.pi * turns * np.array([1.0, 1.3])[:, None])
        return np.concatenate([known, np.zeros((len(numbers), 1, len(times_s)))], axis=1)

    recorder = MemoryRecorder()
    known = planned_sessions_of(scenario, CONNECTIONS, evs, sessions)
    portfolio = Portfolio("main", 0, np.arange(len(evs)), whole=True)
    models = (
        AggregatorModel(
            scenario, portfolio, CONNECTIONS, evs, np.arange(2), recorder, lambda out: SENSITIVITY, known,
            base_load,
        ),
        FleetModel(scenario, CONNECTIONS, evs, sessions, recorder, True, 2),
    )  # fmt: skip
    fields = ("plugged", "soc", "p_max", "p_min", "energy_needed", "time_left", "time_needed")
    said = {f"fleet/{field}": np.zeros(len(evs)) for field in fields}
    said |= {"fleet/p": np.zeros((len(numbers), 4, 3)), "feeder/trafo_p": np.zeros((len(numbers), 2))}
    asked = []
    for tick in range(ticks):
        signal = np.sin(tick + 2.0 * np.array(numbers))
        said |= {"system/regulation": signal, "system/frequency": 50.0 + 0.2 * signal}
        said["feeder/voltage"] = 0.97 - 0.02 * said["fleet/p"]
        for model in models:
            said |= model.step(tick * step_s, {key: said[key] for key in model.inputs})
        asked.append(np.split(np.array(said["aggregator/setpoint"]), np.cumsum(counts)[:-1]))
        by_trafo = said["fleet/p"].sum(axis=2) @ np.eye(2)[CONNECTIONS.trafo]
        said["feeder/trafo_p"] = base_load(np.array([tick * step_s]))[:, :2, 0] + by_trafo
    return {member: np.array([each[at] for each in asked]) for at, member in enumerate(numbers)}


def check_members(name, own, emissions):
    together = setpoints_by_member(name, own, (0, 1), emissions)
    by_itself = setpoints_by_member(name, own, (1,), emissions)
    np.testing.assert_allclose(together[1], by_itself[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "own"), variants())
def test_a_member_by_itself_equals_the_same_among_others(name, own, emissions):
    check_members(name, own | OPTIONS_BY_STRATEGY.get(name, {}), emissions)


def test_the_check_sees_a_strategy_that_counts_over_all_members(emissions):
    @register("median")
    class Median(Strategy):
        """Charges the half of all EVs that has less time."""

        def setpoints(self, view):
            return np.where(view.laxity <= np.median(view.laxity), np.inf, 0.0)

    try:
        with pytest.raises(AssertionError):
            check_members("median", {}, emissions)
    finally:
        del STRATEGIES._found["median"]
