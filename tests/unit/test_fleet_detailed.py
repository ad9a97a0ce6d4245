"""The detailed step: its blocks against the exact way, EV by EV, and its threads."""

from math import inf

import numpy as np
import pytest

from evgrid.battery.charging import derive_kinds, tapers
from evgrid.battery.records import DEAD, ISLANDED, KIND, SUPPLIED, Kinds
from evgrid.core import jit as compiling
from evgrid.fleet import degradation
from evgrid.fleet.battery import BIDIRECTIONAL, ONE_PHASE
from evgrid.fleet.kernels import lanes, one_ev
from evgrid.fleet.kernels.lanes import MANY_MEMBERS, STATE, blocks_of, columns_of, lay_out
from evgrid.fleet.kernels.records import FUNCTIONS as EVSE_STATE
from evgrid.fleet.kernels.records import (
    NO_SEGMENTS,
    OPTIONS,
    PHYSICS,
    Details,
    Fleet,
    Results,
    Segments,
    SessionTable,
    Tick,
)
from evgrid.fleet.kernels.sessions import reprice
from evgrid.fleet.kernels.step import step
from evgrid.inverter_functions import kernels as curves
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, parameters

STEP_S = 60.0
FUNCTIONS = {
    "none": None,
    "volt_var": LocalFunctions(volt_var="ieee_1547_b", volt_watt="ieee_1547_b", trips="II"),
    "var_first": LocalFunctions(volt_var="ieee_1547_b", priority="var"),
    "droop": LocalFunctions(volt_var="ieee_1547_a", frequency_watt="ieee_1547"),
    "limit": LocalFunctions(charging_limit={"points": [[0.90, 50], [0.98, 100]], "response_s": 5}),
    "at_once": LocalFunctions(
        volt_var={"points": [[0.95, 30], [1.05, -30]], "response_s": 0},
        frequency_watt={"response_s": 0},
    ),
    "watt_var": LocalFunctions(watt_var="ieee_1547_b"),
    "power_factor": LocalFunctions(power_factor={"value": 0.95, "excitation": "injects"}),
}


class World:
    """EVs in all sorts of states, of 12 kinds, in ``members`` members of one connection an EV."""

    def __init__(self, evs, members, functions="volt_var", seed=0, stay_s=1e5, shared=0, **options):
        """``shared``: EVs at each connection, all on one phase; 0: one, on one phase or on three."""
        rng = np.random.default_rng(seed)
        self.rng, self.time_s, self.cursor = rng, 0.0, 0
        n = 12
        rows = np.zeros(n, KIND)
        for name, values in {
            "capacity_kwh": [20.0, 40.0, 80.0], "soc_target": [0.6, 0.9, 1.0], "soc_floor": [0.0, 0.2, 0.5],
            "charge_kw": [3.6, 7.2, 11.0], "discharge_kw": [0.0, 5.0, 11.0],
        }.items():  # fmt: skip
            rows[name] = rng.choice(values, n)
        for way in ("charge", "discharge"):
            for i, name in enumerate("abc"):
                rows[f"{way}_{name}"] = rng.choice([BIDIRECTIONAL[i], ONE_PHASE[i], 0.0], n)
        curves_of_kinds, rows["curve"] = tapers(rng.choice([0.5, 0.8], n))
        self.kinds = Kinds(rows, curves_of_kinds)
        derive_kinds(self.kinds)
        self.options = np.zeros(1, OPTIONS)[0]
        every = {
            "throughput_kws": 3600.0 * 20, "discharging_s": 3600.0, "warranty_floor": 0.2, "volt": 230.0,
            "least_a": 6.0, "pilot_a": 0.5, "ramp_kw_per_s": 0.05, "standby_kw": 0.066,
            "heating_k_per_kw": 5.0, "cooling_per_s": 1e-4, "thermal": 1, "freezing_c": 0.0, "mild_c": 10.0,
            "cold_c_rate": 0.2, "mild_c_rate": 0.5, "warm_c": 45.0, "hot_c": 55.0, "emissions": 1,
            "away_c_rate": 0.3, "ageing": 1, "functions": functions != "none", **options,
        }  # fmt: skip
        for name, value in every.items():
            self.options[name] = value
        limits = np.column_stack([rows["charge_kw"], rows["discharge_kw"]])
        chosen = FUNCTIONS[functions]
        self.parameters = np.concatenate(
            [parameters(chosen, Rating(1.05 * max(row), *row)) for row in limits.tolist()]
            + [parameters(None, Rating(12.0, 12.0, 12.0))]
        )
        self.parameters_of = np.arange(n, dtype=np.int32)
        curves.prepare(self.parameters, STEP_S)
        own = np.zeros(evs, PHYSICS)
        own["phases"] = rng.choice([1, 3], evs)
        own["capable"] = rng.random(evs) < 0.8
        own["refusal"] = rng.choice([0, 0, 0, 1, 3, 4, 5], evs)
        self.functions = np.zeros(evs if functions != "none" else 1, EVSE_STATE)
        sessions = 3 * evs
        begin = np.sort(rng.uniform(-0.3, 1.0, (evs, 3)) * stay_s, axis=1)
        length = rng.uniform(0.1, 1.0, (evs, 3)) * np.diff(
            np.column_stack([begin, np.full(evs, 1.3 * stay_s)]), axis=1
        )
        end = np.maximum(begin + length, 1.0)
        begin = np.maximum(begin, 0.0)
        self.sessions = [
            np.repeat(np.arange(evs, dtype=np.int32), 3), begin.reshape(-1),
            np.maximum(end, begin + 1.0).reshape(-1), rng.random(sessions), np.full(sessions, np.nan),
            rng.integers(0, n, sessions).astype(np.int32),
        ]  # fmt: skip
        starts = np.maximum(self.sessions[1].reshape(evs, 3), 0.0)
        stops = self.sessions[2].reshape(evs, 3)
        starts[:, 1:] = np.maximum(starts[:, 1:], stops[:, :-1])  # one after the other
        stops[:] = np.maximum(stops, starts + 1.0)
        starts[:, 1:] = np.maximum(starts[:, 1:], stops[:, :-1])
        self.sessions[1][:] = starts.reshape(-1)
        self.by_arrival = np.argsort(self.sessions[1], kind="stable").astype(np.int32)
        self.member_start = np.arange(members + 1) * evs // members
        self.slot = 3 * rng.permutation(evs).astype(np.int32)
        self.wide = rng.random(evs) < 0.3
        if shared:
            self.slot, self.wide = (3 * (np.arange(evs) // shared)).astype(np.int32), np.zeros(evs, bool)
        self.places, self.blocks = lay_out(self.member_start, self.slot, self.wide, 3 * evs)
        self.own_blocks = blocks_of(PHYSICS, own, self.blocks)
        self.columns = columns_of(STATE, self.blocks) + columns_of(PHYSICS, self.own_blocks)
        self.gone, self.rates = np.zeros((0, 2), np.int64), np.array([0.3, 0.1, 0.4]) / 3600.0
        self.power, self.reactive = np.zeros(3 * evs), np.zeros(3 * evs)
        self.mean_kw, self.mean_kvar = np.zeros(evs), np.zeros(evs)
        self.plugged = np.zeros(members)
        self.outcome, self.more = np.full((sessions, 5), np.nan), np.full((sessions, 11), np.nan)
        self.ageing = degradation.new_state(np.full(evs, "nmc"))
        self.ev_power = self.ev_soc = np.zeros(0)
        self.asked = np.zeros(evs)
        self.volt, self.hertz = np.ones(3 * evs), np.full(members, 60.0)

    @property
    def state(self):
        return self.places.by_ev(STATE, self.blocks, self.blocks)

    @property
    def physics(self):
        return self.places.by_ev(PHYSICS, self.own_blocks, self.blocks)

    def draw(self):
        """Set-points, voltages and frequencies of the next tick."""
        rng, evs = self.rng, len(self.slot)
        self.asked = rng.uniform(-12, 12, evs)
        self.asked[rng.random(evs) < 0.1] = inf
        self.asked[rng.random(evs) < 0.1] = 0.0
        self.volt = rng.uniform(0.93, 1.07, 3 * evs)
        self.volt[rng.random(3 * evs) < 0.001] = 0.4
        self.volt[rng.random(3 * evs) < 0.001] = 0.0
        self.hertz = 60.0 + rng.uniform(-0.1, 0.1, len(self.plugged)) * (rng.random(len(self.plugged)) < 0.5)

    @property
    def fleet(self):
        return Fleet(self.places, self.blocks, self.columns, self.kinds)

    @property
    def details(self):
        return Details(
            self.options, self.own_blocks, self.parameters, self.parameters_of, self.functions, self.ageing,
            degradation.LAWS,
        )  # fmt: skip

    @property
    def table(self):
        return SessionTable(*self.sessions, self.by_arrival, self.outcome, self.more)

    def tick_of(self, idle_c, willing, step_s=STEP_S, segments=NO_SEGMENTS):
        return Tick(
            self.time_s,
            step_s,
            True,
            self.asked,
            self.rates,
            self.volt,
            self.hertz,
            willing,
            idle_c,
            segments,
        )

    def tick(self, idle_c=15.0, willing=True, step_s=STEP_S, segments=NO_SEGMENTS):
        results = Results(
            self.power, self.reactive, self.plugged, self.ev_power, self.ev_soc, self.mean_kw, self.mean_kvar
        )
        self.cursor, self.gone = step(
            self.tick_of(idle_c, willing, step_s, segments), self.table, self.fleet, self.details, results,
            self.cursor, self.gone,
        )  # fmt: skip
        self.time_s += step_s


def by_the_exact_way(world, idle_c, willing):
    """What ``window`` makes of the tick that a world is about to take, of EVs that stay plugged in."""
    state, own, more = world.state, world.physics, world.more.copy()
    details = world.details._replace(functions=world.functions.copy(), ageing=world.ageing.copy())
    tick, room = world.tick_of(idle_c, willing), one_ev.make_room_for_one()
    p, q = np.zeros(len(state)), np.zeros(len(state))
    staying = (state["session"] >= 0) & (state["departure_s"] > world.time_s + STEP_S)
    member = np.searchsorted(world.member_start, np.arange(len(state)), "right") - 1
    for ev in np.flatnonzero(staying):
        first = world.slot[ev]
        volt = world.volt[first : first + (3 if world.wide[ev] else 1)]
        seen = one_ev.Seen(
            volt.mean(), volt.min(), volt.max(), float(volt.min() > 0.0), world.hertz[member[ev]]
        )
        room.row[0], room.own[0] = state[ev], own[ev]
        net_kws, q_kvars, _ = one_ev.follow(
            tick, seen, world.fleet, details, room, more[state[ev]["session"]], world.time_s,
            world.time_s + STEP_S,
        )  # fmt: skip
        state[ev], own[ev] = room.row[0], room.own[0]
        p[ev], q[ev] = net_kws / STEP_S, q_kvars / STEP_S
    return staying, state, own, more, details.functions, details.ageing, p, q


SCALE = {"drawn_kws": 1e3, "given_kws": 1e3, "loss_kws": 1e3, "out_kws": 1e3, "discharging_s": 60.0,
         "above_k": 10.0, "ramped_kw": 10.0, "reactive_kvar": 10.0, "droop_kw": 10.0,
         "square_kw2s": 1e5}  # fmt: skip


@pytest.mark.parametrize("functions", list(FUNCTIONS))
@pytest.mark.parametrize("idle_c", [15.0, 4.0, 48.0])
def test_blocks_give_what_the_exact_way_gives(functions, idle_c):
    world = World(1500, 5, functions)
    compared = 0
    for tick in range(12):
        world.draw()
        willing = tick % 4 != 3
        staying, state, own, more, cold, ageing, p, q = by_the_exact_way(world, idle_c, willing)
        world.tick(idle_c, willing)
        compared += staying.sum()
        for expected, got in (
            (state, world.state), (own, world.physics), (cold, world.functions), (ageing, world.ageing)
        ):  # fmt: skip
            if len(expected) == 1:
                continue
            for name in expected.dtype.names:
                if name == "fresh":
                    continue
                np.testing.assert_allclose(
                    got[name][staying], expected[name][staying], rtol=1e-12,
                    atol=1e-12 * SCALE.get(name, 1.0), err_msg=name,
                )  # fmt: skip
        sessions = state["session"][staying]
        np.testing.assert_allclose(world.more[sessions], more[sessions], rtol=1e-12, atol=1e-12)
        for expected, slots in ((p, world.power), (q, world.reactive)):
            got = slots.reshape(-1, 3).sum(axis=1)[world.slot // 3]
            np.testing.assert_allclose(got[staying], expected[staying], rtol=1e-12, atol=1e-11)
    assert compared > 5000


def test_segments_are_ticks_of_their_own():
    options = {"ramp_kw_per_s": inf, "thermal": 0, "heating_k_per_kw": 0.0, "throughput_kws": inf}
    whole, pieces = (World(600, 3, "none", stay_s=3000.0, **options) for _ in range(2))
    lengths = np.array([600.0, 7.0, 293.0])
    for _ in range(4):
        asked = whole.rng.uniform(-12, 12, (600, 3))
        asked[whole.rng.random((600, 3)) < 0.2] = inf
        begin_s = whole.time_s
        counts = np.where(np.arange(600) % 3 == 0, 0, 3)  # every third has none
        whole.asked, asked[counts == 0] = asked[:, 0], asked[counts == 0, :1]
        here = counts > 0
        whole.tick(
            step_s=900.0,
            segments=Segments(
                np.concatenate([[0], np.cumsum(counts)]), np.tile(begin_s + np.cumsum(lengths), here.sum()),
                asked[here].reshape(-1), np.full(3 * here.sum(), SUPPLIED, np.int8),
            ),
        )  # fmt: skip
        energy_kws = np.zeros(3 * 600)
        for i, seconds in enumerate(lengths):
            pieces.asked = asked[:, i]
            pieces.tick(step_s=seconds)
            energy_kws += pieces.power * seconds
        np.testing.assert_allclose(whole.power, energy_kws / 900.0, rtol=1e-9, atol=1e-9)
        plugged = whole.state["session"] >= 0
        assert np.array_equal(plugged, pieces.state["session"] >= 0)
        for name in ("soc", "drawn_kws", "given_kws", "loss_kws", "guarded"):
            np.testing.assert_allclose(
                whole.state[name][plugged], pieces.state[name][plugged], rtol=1e-9, atol=1e-9, err_msg=name
            )
    np.testing.assert_allclose(whole.outcome, pieces.outcome, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("supply", [DEAD, ISLANDED])
def test_the_departure_guard_does_not_act_without_the_grid(supply):
    world = World(600, 3, "volt_var", stay_s=3000.0)
    for _ in range(3):
        world.draw()
        world.volt[:] = 0.0
        before = world.state
        world.tick(
            step_s=900.0,
            segments=Segments(
                np.arange(601), np.full(600, world.time_s + 900.0), np.zeros(600),
                np.full(600, supply, np.int8),
            ),
        )  # fmt: skip
        stays = (before["session"] >= 0) & (before["session"] == world.state["session"])
        assert stays.sum() > 50 or world.time_s == 900.0
        assert np.array_equal(world.state["soc"][stays], before["soc"][stays])
        assert not world.power.any(), "nothing flows on the grid"
        drawn_kw = (world.state["drawn_kws"] - before["drawn_kws"])[stays] / 900.0
        most_kw = 0.0 if supply == DEAD else 0.066  # standby only
        assert drawn_kw == pytest.approx(np.full(len(drawn_kw), most_kw), abs=1e-12)


def trace(monkeypatch, threads, members, per_ev=False, ticks=25):
    monkeypatch.setattr(compiling, "THREADS", threads)
    monkeypatch.setattr(compiling, "_LEAST_PARTS", 1)
    monkeypatch.setattr(lanes, "PART", 200)
    world = World(3000, members, "droop", stay_s=1500.0)
    if per_ev:
        world.ev_power, world.ev_soc = np.zeros(3000), np.zeros(3000)
    powers = []
    for _ in range(ticks):
        world.draw()
        world.tick()
        powers += [world.power.copy(), world.reactive.copy(), world.plugged.copy()]
    return (np.concatenate(powers), world.state, world.physics, world.functions, world.outcome, world.more,
            world.ageing)  # fmt: skip


@pytest.mark.parametrize("members", [1, 100])
def test_results_are_the_same_bit_for_bit_with_any_number_of_threads(monkeypatch, members):
    alone = trace(monkeypatch, 1, members)
    assert np.isfinite(alone[4]).any()  # some have left
    for threads, per_ev in ((2, False), (3, False), (2, True)):
        for one, other in zip(alone, trace(monkeypatch, threads, members, per_ev), strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("members", [1, MANY_MEMBERS])
def test_the_power_of_all_evs_at_a_connection_is_added_up(members):
    apart = World(100 * members, members, stay_s=2000.0)
    shared = World(100 * members, members, stay_s=2000.0, shared=50)
    connection = shared.slot // 3
    apart_of_one = ~apart.wide
    for _ in range(20):
        apart.draw()
        apart.volt[:] = 1.04
        shared.asked, shared.volt, shared.hertz = apart.asked, apart.volt, apart.hertz
        apart.tick()
        shared.tick()
        for alone, together in ((apart.power, shared.power), (apart.reactive, shared.reactive)):
            of_ev = alone.reshape(-1, 3).sum(axis=1)[apart.slot // 3]
            summed = np.bincount(connection, of_ev, 2 * members)
            assert np.count_nonzero(of_ev[apart_of_one]) > 10 * members
            np.testing.assert_allclose(together[::3][: 2 * members], summed, rtol=1e-12, atol=1e-10)


def test_only_those_plugged_in_age_when_asked():
    world = World(1200, 3, stay_s=3000.0)
    for _ in range(10):
        world.draw()
        world.tick()
    before = world.ageing.copy()
    stretches = len(world.places.filled)
    one_ev.age(0, stretches, world.fleet, world.details, world.time_s, 20.0)
    here = world.state["session"] >= 0
    assert 100 < here.sum() < 1100
    assert np.all(world.ageing["since_s"][here] == world.time_s)
    assert np.all(world.ageing["calendar"][here] > before["calendar"][here])
    for name in ("since_s", "calendar", "points"):
        assert np.all(world.ageing[name][~here] == before[name][~here])


def test_a_session_costs_what_each_tick_s_energy_costs_at_the_rates_of_the_tick():
    world = World(300, 3, stay_s=3000.0)
    expected = np.zeros((len(world.sessions[0]), 2))  # cost, kg
    energy_kws = np.zeros((len(expected), 2))  # drawn, given
    for tick in range(50):
        world.draw()
        if tick % 3 == 0:
            rates = world.rng.uniform(-0.1, 0.5, 3) / 3600.0
            one_ev.rate_emissions(world.places, world.blocks, world.own_blocks, world.rates, rates)
            reprice(world.places, world.blocks, world.rates, rates)
            assert np.all(world.rates == rates)
        world.tick()
        before, now = energy_kws.copy(), world.state
        here = now[now["session"] >= 0]
        energy_kws[here["session"]] = np.column_stack([here["drawn_kws"], here["given_kws"]])
        ended = ~np.isnan(world.outcome[:, 0])
        energy_kws[ended] = 3600.0 * world.outcome[ended, 1:3]
        drawn, given = (energy_kws - before).T
        expected[:, 0] += drawn * world.rates[0] - given * world.rates[1]
        expected[:, 1] += (drawn - given) * world.rates[2]
    assert ended.sum() > 100
    assert np.ptp(expected[ended, 0]) > 1.0
    np.testing.assert_allclose(world.outcome[ended, 4], expected[ended, 0], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(world.more[ended, 10], expected[ended, 1], rtol=1e-11, atol=1e-11)


def test_power_of_those_that_left_is_cleared_and_the_number_plugged_in_is_the_mean_over_the_tick():
    world = World(40, 2, "volt_var", stay_s=600.0)
    sessions = world.sessions
    for _ in range(20):
        world.draw()
        start = world.time_s
        world.tick()
        overlap = np.minimum(sessions[2], start + STEP_S) - np.maximum(sessions[1], start)
        present = np.maximum(overlap, 0.0) / STEP_S
        of_member = np.bincount(sessions[0] >= 20, present, 2)
        assert world.plugged == pytest.approx(of_member)
        here = np.zeros(120, bool)
        for ev in np.unique(sessions[0][overlap > 0]):
            here[world.slot[ev] : world.slot[ev] + 3] = True
        assert np.all(world.power[~here] == 0.0)
        assert np.all(world.reactive[~here] == 0.0)


def test_a_session_is_charged_with_the_ageing_that_it_added():
    world = World(1, 1)
    room = one_ev.make_room_for_one()
    row = room.row[0]
    room.row[0], room.own[0] = world.state[0], world.physics[0]
    row["session"], row["soc"] = 2, 0.3
    degradation.rest(world.ageing, 0.5, 365 * 86400.0, 300.0)
    one_ev.start_details(room, world.details, world.table, 3600.0, 20.0)
    calendar, cycle = degradation.calendar_loss(world.ageing)[0], degradation.cycle_loss(world.ageing)[0]
    row["soc"] = 0.8
    one_ev.end_session(room, world.fleet, world.details, world.table, world.rates, 6 * 3600.0, 20.0)
    assert world.ageing[0]["since_s"] == 6 * 3600.0
    assert world.more[2, 8] == degradation.calendar_loss(world.ageing)[0] - calendar > 0.0
    assert world.more[2, 9] == degradation.cycle_loss(world.ageing)[0] - cycle > 0.0
