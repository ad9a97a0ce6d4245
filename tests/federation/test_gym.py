"""Environments of Gymnasium: its checks, the spaces, episodes and seeds; rewards are those of the result."""

import subprocess
import sys
import threading

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import evgrid
import evgrid.gym
from evgrid.errors import ScenarioError, StrategyError
from evgrid.scenario import scenario_from

BASE = {
    "name": "lane",
    "time": {"start": "2026-01-15T22:30", "duration": "2h", "step": "5min"},
    "ensemble": {"members": 3, "seed": 3},
    "feeder": {"network": "cigre_lv", "base_load": {"source": "standard"}, "households": {"kw_each": 5}},
    "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3}},
    "tariff": "pge_ev2a",
    "aggregators": {"main": {"strategy": "peak_limit", "limit_kw": 100, "group": "feeder"}},
    "communication": {"telemetry": "5min"},
}
V2G = {"fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 0.5}}}
ALL = ["time", "prices", "groups", "evs", "grid", "signal"]
SHORT = {"time": {"start": "2026-01-15T23:00", "duration": "20min", "step": "5min"}}


def scenario(**changes):
    return scenario_from(BASE | changes)


@pytest.fixture
def vector():
    made = []

    def make(given=None, **arguments):
        made.append(evgrid.gym.make_vec(given if given is not None else scenario(), **arguments))
        return made[-1]

    yield make
    for env in made:
        env.close()
    assert "evgrid-lane" not in [thread.name for thread in threading.enumerate()]


def to_the_end(env, policy, seed=None):
    """Rewards and infos of an episode."""
    seen, _ = env.reset(seed=seed)
    rewards, infos, ended = [], [], False
    while not ended:
        seen, reward, over, _, info = env.step(policy(env, seen))
        rewards.append(reward)
        infos.append(info)
        ended = np.all(over)
    return np.array(rewards), infos


def half(env, seen):
    return np.full(env.action_space.shape, 0.5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("act", ["ev", "group", "portfolio"])
def test_gymnasiums_own_check(act):
    reward = {"cost": 1.0, "unserved": 2.0, "limit_excess": 1.0, "voltage_violations": 5.0}
    env = evgrid.gym.make(scenario(**SHORT, **V2G), act=act, reward=reward, observe=ALL)
    check_env(env)
    env.close()
    assert "evgrid-lane" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("act", ["ev", "group", "portfolio"])
@pytest.mark.parametrize("fleet", [{}, V2G], ids=["V1G", "V2G"])
def test_spaces_contain_what_is_given(vector, act, fleet):
    env = vector(scenario(**SHORT, **fleet), act=act, observe=ALL)
    assert env.num_envs == 3
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.single_action_space.low.min() == (-1.0 if fleet else 0.0)
    assert env.single_action_space.shape == ({"ev": 30}.get(act, 1),)
    assert env.single_observation_space.shape == (3 + 12 + 6 + 30 * 7 + 2 + 3,)
    env.action_space.seed(1)
    seen, info = env.reset(seed=5)
    assert env.observation_space.contains(seen)
    assert info["evs"].tolist() == [30, 30, 30]
    for _ in range(4):
        seen, reward, over, cut, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(seen)
        assert reward.shape == over.shape == cut.shape == (3,)
        assert not cut.any()
    assert over.all()


def test_the_step_after_the_end_begins_the_next_episode(vector):
    env = vector(scenario(**SHORT))
    first, _ = env.reset()
    for _ in range(4):
        _, _, over, _, info = env.step(half(env, None))
    assert over.all()
    assert info["time"][0] == np.datetime64("2026-01-15T23:20")
    before = env.result
    seen, reward, over, _, info = env.step(half(env, None))
    assert not over.any()
    assert not reward.any()
    assert info["time"][0] == np.datetime64("2026-01-15T23:00")
    np.testing.assert_array_equal(seen, first)  # nothing has been reported yet
    for _ in range(4):
        env.step(half(env, None))
    assert not np.array_equal(env.result["session_arrival"], before["session_arrival"])  # other drivers
    counted = RecordEpisodeStatistics(env)
    counted.reset()
    for _ in range(4):
        _, _, _, _, info = counted.step(half(env, None))
    assert info["episode"]["l"].tolist() == [4, 4, 4]


def test_seeds_repeat_episodes(vector):
    env = vector(scenario(**SHORT, ensemble={"members": 2, "seed": 8}), observe=ALL)
    again = vector(scenario(**SHORT, ensemble={"members": 2, "seed": 8}), observe=ALL)
    scenarios_own = env.reset()[0]
    np.testing.assert_array_equal(scenarios_own, again.reset(seed=8)[0])
    drawn = [to_the_end(env, half)[0] for _ in range(2)]
    for rewards in drawn:
        np.testing.assert_array_equal(to_the_end(again, half)[0], rewards)
    assert not np.array_equal(*drawn)
    to_the_end(env, half, seed=5)
    to_the_end(again, half, seed=5)
    np.testing.assert_array_equal(env.result["fleet_power_kw"], again.result["fleet_power_kw"])
    to_the_end(again, half, seed=6)
    assert not np.array_equal(env.result["fleet_power_kw"], again.result["fleet_power_kw"])


@pytest.mark.parametrize("fleet", [{}, V2G], ids=["V1G", "V2G"])
def test_an_agent_that_does_what_tou_does_is_its_run(vector, fleet):
    tou = {"main": {"strategy": "tou"}}
    env = vector(
        scenario(aggregators=tou, **fleet),
        act=evgrid.gym.ByEV(kw=True),
        reward={"cost": 1.0, "unserved": 3.0},
    )
    settings = scenario(aggregators=tou).aggregators["main"]

    def policy(env, seen):
        run = env.run
        if run.view.time_s == 0:
            policy.tou = settings.strategy_class(settings, run.context)
        return policy.tou.setpoints(run.view).reshape(3, 30)

    rewards, infos = to_the_end(env, policy, seed=11)
    result = evgrid.run(scenario(aggregators=tou, ensemble={"members": 3, "seed": 11}, **fleet))
    for name in result:
        np.testing.assert_array_equal(env.result[name], result[name], name)
    cost = result["session_cost"].groupby("session_member").sum().values
    assert cost.min() > 0
    total = {name: sum(info[name] for info in infos) for name in ("cost", "unserved")}
    np.testing.assert_allclose(total["cost"], -cost, rtol=1e-9)
    missing = result["session_energy_unserved_kwh"].fillna(0).groupby("session_member").sum().values
    np.testing.assert_allclose(total["unserved"], -missing, atol=1e-9)
    np.testing.assert_allclose(rewards.sum(axis=0), total["cost"] + 3 * total["unserved"], rtol=1e-12)


def test_what_is_unserved_counts_when_a_session_ends(vector, tmp_path):
    """Two cars at 7.4 kW: one leaves after 30 min with most of its energy missing, one on time at a tick's
    end.
    """
    header = "ev,connection,arrival,departure,soc_arrival,capacity_kwh,member"
    rows = [
        "a,R11,2026-01-15T22:30,2026-01-15T23:00,0.1,60,0",
        "b,R15,2026-01-15T22:32,2026-01-15T23:13,0.1,60,0",
        "c,R15,2026-01-15T22:30,2026-01-16T08:00,0.1,60,1",
    ]
    (tmp_path / "sessions.csv").write_text("\n".join([header, *rows]) + "\n")
    net = evgrid.run(scenario(ensemble={"members": 1}))["connection"].values
    text = (tmp_path / "sessions.csv").read_text().replace("R11", net[0]).replace("R15", net[1])
    (tmp_path / "sessions.csv").write_text(text)
    sessions = {"sessions": {"file": str(tmp_path / "sessions.csv")}, "charger": BASE["fleet"]["charger"]}
    env = vector(
        scenario(fleet=sessions, ensemble={"members": 2, "seed": 1}), act="ev", reward="unserved",
        observe=["evs", "groups"],
    )  # fmt: skip
    assert env.single_action_space.shape == (2,)
    seen, info = env.reset()
    assert info["evs"].tolist() == [2, 1]
    assert seen.shape == (2, 2 * 7 + 6)
    assert not seen[1, 7:14].any()  # an EV that the member does not have
    rewards, _ = to_the_end(env, lambda env, seen: np.ones((2, 2)), seed=1)
    result = env.result
    np.testing.assert_allclose(
        np.sort(-rewards[:, 0][rewards[:, 0] < 0]),
        np.sort(result["session_energy_unserved_kwh"].dropna("session").values),
    )
    assert np.flatnonzero(rewards[:, 0]).tolist() in ([5, 8], [6, 8])
    assert not rewards[:, 1].any()


def test_excess_and_voltages_are_those_of_the_result(vector):
    limit = {"main": {"strategy": "peak_limit", "limit_kw": 30, "group": "feeder"}}
    violations = evgrid.gym.VoltageViolations(low=0.99, high=1.01)
    env = vector(scenario(aggregators=limit), act="ev", reward={"limit_excess": 1.0, violations: 1.0})
    _, infos = to_the_end(env, lambda env, seen: np.ones(env.action_space.shape))
    result = env.result
    excess = np.maximum(result["head_power_kw"].sum("phase") - 30, 0).sum("time") / 12
    assert float(excess.min()) > 0
    np.testing.assert_allclose(-sum(info["limit_excess"] for info in infos), excess, rtol=1e-9)
    voltage = result["voltage_pu"].sel(bus=result["connection_bus"]).astype(float)
    depth = np.maximum(0.99 - voltage, 0) + np.maximum(voltage - 1.01, 0)
    expected = depth.sum(("time", "phase", "connection")) / 12
    assert float(expected.min()) > 0
    np.testing.assert_allclose(
        -sum(info["VoltageViolations"] for info in infos), expected, rtol=1e-4
    )  # the recorded voltages are float32


def test_regulation_is_rewarded_by_its_precision(vector):
    """An agent that draws 30 kW less 10 kW times the signal; what the EVs can't do costs it precision."""
    given = scenario(
        system={"regulation": {"source": "synthetic", "step": 4}},
        time={"start": "2026-01-15T19:30", "duration": "4min", "step": "4s"},
        feeder={**BASE["feeder"], "step": "60s"}, communication={"telemetry": "60s"}, record={"step": "60s"},
    )  # fmt: skip
    env = vector(
        given, act=evgrid.gym.ByPortfolio(kw=True), reward=evgrid.gym.Regulation(10.0, baseline_kw=30.0),
        observe=["signal"],
    )  # fmt: skip
    powers, signals = [], []

    def policy(env, seen):
        signals.append(seen[:, 0])
        powers.append(seen[:, 2])
        return 30.0 - 10.0 * seen[:, :1].astype(float)

    rewards, _ = to_the_end(env, policy)
    power, signal = np.array(powers)[1:], np.array(signals)[:-1]
    np.testing.assert_allclose(rewards[:-1], 4 / 3600 * (1 - abs((30 - power) / 10 - signal)), atol=1e-7)
    follows = np.isclose(rewards[15:], 4 / 3600, rtol=0.001)  # from the first report on
    assert follows.all(axis=0).tolist() == [False, True, True]  # the first member has too few EVs at home


def test_the_reward_is_of_the_aggregators_own_evs(vector):
    both = {"main": {"strategy": "tou", "evs": {"share": 0.4}}, "other": {"strategy": "tou"}}
    env = vector(scenario(aggregators=both), aggregator="main", act="portfolio", reward="cost")
    rewards, _ = to_the_end(env, half)
    result = env.result
    own = (result["session_aggregator"] == "main").values
    cost = result["session_cost"][own].groupby("session_member").sum()
    np.testing.assert_allclose(rewards.sum(axis=0), -cost.values, rtol=1e-9)
    assert 0 < float(cost.sum()) < float(result["session_cost"].sum())


def test_sites_and_an_outage_are_in_the_loop(vector):
    homes = {
        "connections": {"share": 0.5}, "critical": {"share": 0.4}, "backup": "critical",
        "battery": {"capacity_kwh": 5, "charge_kw": 2}, "control": "self_consumption",
    }  # fmt: skip
    given = scenario(
        sites={"homes": homes}, outages=[{"start": "1h", "duration": "30min", "out": "feeder"}],
        aggregators={"main": {"strategy": "peak_limit", "limit_kw": 100}},
    )  # fmt: skip
    env = vector(given, observe=ALL, reward={"limit_excess": 1.0, "voltage_violations": 1.0, "cost": 1.0})
    rewards, infos = to_the_end(env, half)
    assert np.isfinite(rewards).all()
    assert env.result["site_power_kw"].sizes["site"] > 0
    dead = [not info["cost"].any() for info in infos]
    assert dead[13:17] == [True] * 4  # without supply nothing is drawn from the grid


def test_an_action_holds_until_the_next(vector):
    slow, fast = (vector(every=every) for every in ("15min", None))
    rewards, _ = to_the_end(slow, half, seed=2)
    each, _ = to_the_end(fast, half, seed=2)
    assert len(rewards) == 8
    np.testing.assert_allclose(rewards, each.reshape(8, 3, 3).sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(slow.result["fleet_power_kw"], fast.result["fleet_power_kw"])


@pytest.mark.parametrize("act", ["ev", "group", "portfolio"])
def test_a_member_by_itself_is_the_same_among_others(vector, act):
    among = vector(scenario(**V2G), act=act, observe=ALL)
    alone = evgrid.gym.make(
        scenario(**V2G, ensemble={"members": 3, "first": 1, "seed": 3}), act=act, observe=ALL
    )
    actions = np.random.default_rng(0).uniform(-1, 1, (24, *among.action_space.shape))
    all_seen, _ = among.reset()
    seen, _ = alone.reset()
    for action in actions:
        np.testing.assert_array_equal(all_seen[1], seen)
        all_seen, rewards, _, _, _ = among.step(action)
        seen, reward, over, _, _ = alone.step(action[1])
        assert rewards[1] == pytest.approx(reward, rel=1e-12)
    assert over
    alone.close()


def test_shares_stand_for_what_the_evs_can_do(vector):
    """All of them at 1 charge as uncontrolled ones; at -1 each gives what it can and still meets its
    departure.
    """
    env = vector(scenario(**V2G))
    env.reset()
    env.step(np.zeros((3, 1)))
    view = env.run.view
    env.step(np.ones((3, 1)))
    member = env.run.context.evs.member
    most = np.where(view.plugged, view.p_max * np.clip(view.time_needed / 300, 0, 1), 0)
    power = env.run.values["fleet/p"].sum(axis=(1, 2))
    np.testing.assert_allclose(power, np.bincount(member, most), rtol=0.05)
    env.step(-np.ones((3, 1)))
    assert np.all(env.run.values["fleet/p"].sum(axis=(1, 2)) < -10)


def test_parts_of_ones_own(vector):
    def needed(run):
        return np.bincount(run.context.evs.member, run.view.energy_needed)[:, np.newaxis]

    def even(outcome):
        return -(outcome.fleet_kw**2)

    env = vector(scenario(**SHORT), reward=even, observe=[needed, "time"])
    seen, _ = env.reset()
    assert seen.shape == (3, 4)
    _, reward, _, _, info = env.step(half(env, seen))
    np.testing.assert_array_equal(info["even"], reward)
    np.testing.assert_allclose(reward, -(env.run.values["fleet/p"].sum(axis=(1, 2)) ** 2))


def wrong_shape(_):
    return np.zeros(5)


def no_number(run):
    return np.full((3, 1), np.nan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"reward": "profit"},
            "reward = profit: must be one of cost, unserved, voltage_violations, limit_excess",
        ),
        ({"reward": {}}, "reward: give one part at least"),
        (
            {"observe": "soc"},
            "observe = soc: must be one of time, prices, groups, evs, grid, signal, a function",
        ),
        ({"observe": []}, "observe: give one part at least"),
        (
            {"observe": wrong_shape},
            r"observe: wrong_shape returned the shape \(5,\): must be \(3, n\), a row",
        ),
        ({"observe": no_number}, "observe: no_number returned 3 NaN"),
        ({"act": "car"}, "act = car: must be one of ev, group, portfolio, or one of evgrid.gym's classes"),
        ({"act": evgrid.gym.ByEV(most=29)}, "most = 29: must be at least 30, the EVs of a member"),
        ({"every": "7min"}, "every = 7min: must be a multiple of time.step = 300s"),
        ({"every": "soon"}, "every = soon: must be a multiple"),
        ({"every": 0}, "every = 0: must be a multiple"),
        ({"aggregator": "side"}, "aggregator = side: must be one of main"),
    ],
)
def test_parts_that_there_are_not(arguments, message):
    with pytest.raises(ScenarioError, match=message):
        evgrid.gym.make_vec(scenario(), **arguments)
    assert "evgrid-lane" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "reward = cost: needs a tariff or system.energy_price"),
        ({"reward": "limit_excess"}, "reward = limit_excess: needs a limit_kw, of the aggregator or its own"),
        (
            {"reward": "unserved", "observe": "prices"},
            "observe = prices: needs a tariff or system.energy_price",
        ),
    ],
)
def test_parts_that_the_scenario_does_not_have(arguments, message):
    with pytest.raises(ScenarioError, match=message):
        evgrid.gym.make_vec(scenario(tariff=None, aggregators={}), **arguments)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.ones((2, 1)), r"actions have the shape \(2, 1\): must be \(3, 1\), one a member"),
        ([[0.1], [np.nan], [0.2]], "actions have NaN, first of member 1"),
        ("full", "an action is str: must be an array of numbers"),
    ],
)
def test_wrong_actions(vector, action, message):
    env = vector(scenario(**SHORT))
    env.reset()
    with pytest.raises(StrategyError, match=message):
        env.step(action)
    env.step(np.full((3, 1), 7.0))  # beyond the space: clipped, as by most policies


def test_a_reward_of_a_wrong_shape(vector):
    env = vector(scenario(**SHORT), reward=wrong_shape)
    env.reset()
    with pytest.raises(ScenarioError, match=r"reward: wrong_shape returned the shape \(5,\): must be \(3,\)"):
        env.step(half(env, None))


def test_an_environment_that_has_ended_or_is_closed():
    env = evgrid.gym.make(scenario(**SHORT))
    assert isinstance(env, gymnasium.Env)
    env.reset()
    for _ in range(4):
        _, _, over, _, _ = env.step(np.zeros(1))
    assert over
    with pytest.raises(
        StrategyError, match="the episode has ended, or the environment is closed: call reset"
    ):
        env.step(np.zeros(1))
    env.close()
    with pytest.raises(
        StrategyError, match="the episode has ended, or the environment is closed: call reset"
    ):
        env.step(np.zeros(1))
    env.reset()
    env.step(np.zeros(1))
    env.close()
    other = evgrid.gym.make(scenario(**SHORT), act="portfolio")
    other.close()  # before its first reset
    other.reset()
    other.step(np.zeros(1))
    other.close()


def test_gymnasium_is_imported_only_where_it_is_used():
    code = "import evgrid, sys; evgrid.run; assert 'gymnasium' not in sys.modules; evgrid.gym.make_vec"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; sys.modules['gymnasium'] = None; import evgrid.gym"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert failed.stderr.strip().endswith(
        "ImportError: evgrid.gym needs Gymnasium, which is missing: pip install 'evgrid[gym]'"
    )
