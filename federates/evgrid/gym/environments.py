"""Environments of Gymnasium: members as environments of one vector, or a single one.

An episode is a run from begin to end, and ends with it: ``terminated`` in all members at once; there is no
observation after it, so the last one is given again. An episode that is not taken to its end is left without
a trace. ``reset(seed=s)`` makes the episode that ``ensemble.seed = s`` is; without a seed, the first episode
is that of the scenario's seed, and the following are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.errors import ScenarioError, StrategyError
from evgrid.fleet.model import FleetModel
from evgrid.gym.actions import action_of
from evgrid.gym.members import counts
from evgrid.gym.observations import observations_of, observed
from evgrid.gym.rewards import Outcome, rewards_of
from evgrid.runs.simulation import scenario_of
from evgrid.runs.stepwise import Stepwise, stepwise
from evgrid.scenario import Scenario
from evgrid.scenario.fields import seconds_of

if TYPE_CHECKING:
    import xarray as xr

OBSERVE = ("time", "groups")
_SEEDS = 2**31


def make_vec(
    scenario: Scenario | Mapping[str, Any] | str | Path,
    *,
    aggregator: str | None = None,
    reward: Any = "cost",
    observe: Any = OBSERVE,
    act: Any = "group",
    every: float | str | None = None,
) -> VectorEnvironment:
    """A vector of environments, which are the members of a scenario.

    Parameters
    ----------
    scenario, aggregator
        See :func:`evgrid.stepwise`: the agent takes the place of the aggregator's strategy.
    reward
        ``cost``, ``unserved``, ``voltage_violations``, ``limit_excess``, a part of :mod:`evgrid.gym.rewards`
        or a function of an :class:`~evgrid.gym.Outcome` that returns (member,); or weights of several,
        ``{"cost": 1.0, "unserved": 10.0}``.
    observe
        ``time``, ``prices``, ``groups``, ``evs``, ``grid``, ``signal``, a part of
        :mod:`evgrid.gym.observations` or a function of a run that returns (member, n); or several.
    act
        ``ev``, ``group`` or ``portfolio``, or a part of :mod:`evgrid.gym.actions`, such as
        ``ByGroup(kw=True)``.
    every
        Time between two actions, such as ``15min``, a multiple of the tick; left out: a tick. In the ticks
        between the action holds: a share is one of what the EVs can draw then.

    Raises
    ------
    EvgridError
        Like :func:`evgrid.stepwise`, and for parts that can't be had in the scenario.

    """
    return VectorEnvironment(_Episodes(scenario_of(scenario), aggregator, reward, observe, act, every))


def make(
    scenario: Scenario | Mapping[str, Any] | str | Path,
    *,
    aggregator: str | None = None,
    reward: Any = "cost",
    observe: Any = OBSERVE,
    act: Any = "group",
    every: float | str | None = None,
) -> Environment:
    """An environment: the first member of a scenario. Parameters and errors as of :func:`make_vec`."""
    given = scenario_of(scenario)
    one = given.model_copy(update={"ensemble": given.ensemble.model_copy(update={"members": 1})})
    return Environment(_Episodes(one, aggregator, reward, observe, act, every))


class _Episodes:
    """The runs behind an environment, one after the other."""

    def __init__(
        self, scenario: Scenario, aggregator: str | None, reward: Any, observe: Any, act: Any,
        every: float | str | None,
    ) -> None:  # fmt: skip
        self.scenario, self._aggregator = scenario, aggregator
        self._rewards, self._observe, self._act = rewards_of(reward), observations_of(observe), action_of(act)
        self._ticks = _ticks(scenario, every)
        self.result: xr.Dataset | None = None
        self._run: Stepwise | None = None
        self._fresh = False
        """Whether the run waits at its begin, as the scenario's seed makes it."""
        run = self._begin(scenario.ensemble.seed)
        try:
            for _, part in self._rewards.values():
                check = getattr(part, "check", None)
                if check is not None:
                    check(run)
            self.action = self._act.space(run)
            low = np.full(self._last.shape[1], -np.inf, np.float32)
            self.observation = gymnasium.spaces.Box(low, -low, dtype=np.float32)
        except BaseException:
            self.close()
            raise
        self._fresh = True

    @property
    def members(self) -> int:
        return len(self.scenario.members)

    def close(self) -> None:
        if self._run is not None:
            self._run.close()
        self._run, self._fresh = None, False

    def reset(self, seed: int | None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; without a seed, the scenario's, which must be the first."""
        if not (self._fresh and seed in (None, self.scenario.ensemble.seed)):
            self._begin(self.scenario.ensemble.seed if seed is None else seed)
        self._fresh = False
        return self._last, self._info()

    def step(self, actions: Any) -> tuple[NDArray[np.float32], Array, bool, dict[str, Any]]:
        """Take an action; observation, reward of each member, whether the run has ended, and info."""
        run = self._run
        if run is None or self._over(run):
            raise StrategyError("the episode has ended, or the environment is closed: call reset")
        self._fresh = False
        given = self._checked(actions)
        parts = {name: np.zeros(self.members) for name in self._rewards}
        for _ in range(self._ticks):
            time_s, regulation = run.live_view.time_s, np.array(run.live_view.regulation)
            run.step(self._act(run, given))
            outcome = self._outcome(run, time_s, regulation)
            for name, (_, part) in self._rewards.items():
                parts[name] += self._worth(name, part(outcome))
            if self._over(run):
                break
        total = np.zeros(self.members)
        for name, (weight, _) in self._rewards.items():
            total += weight * parts[name]
        ended = self._over(run)
        if ended:
            self.result = run.result
        else:
            self._last = self._seen(run)
        return self._last, total, ended, self._info() | parts

    @staticmethod
    def _over(run: Stepwise) -> bool:
        return run.done

    def _begin(self, seed: int) -> Stepwise:
        self.close()
        ensemble = self.scenario.ensemble.model_copy(update={"seed": seed})
        run = stepwise(self.scenario.model_copy(update={"ensemble": ensemble}), self._aggregator)
        self._run = run
        try:
            clock, prices = run.context.clock, run.scenario.prices
            edges_s = clock.step_s * np.arange(clock.ticks + 1.0)
            none = np.full((clock.ticks, 2), np.nan)
            self._prices = none if prices is None else np.stack(prices.means(edges_s), axis=1)
            self._fleet = run.models["fleet"]
            assert isinstance(self._fleet, FleetModel)
            own = np.flatnonzero(np.isin(self._fleet.sessions.ev, run.portfolio.rows))
            self._by_departure = own[np.argsort(self._fleet.sessions.departure_s[own])]
            self._departures_s = self._fleet.sessions.departure_s[self._by_departure]
            self._departed, self._pending = 0, np.zeros(0, np.int64)
            self._counts = counts(run.context)
            self._last = self._seen(run)
        except BaseException:
            self.close()
            raise
        return run

    def _seen(self, run: Stepwise) -> NDArray[np.float32]:
        found = observed(self._observe, run)
        space = getattr(self, "observation", None)
        if space is not None and found.shape[1:] != space.shape:
            raise ScenarioError(
                [f"observe: {found.shape[1]} numbers, {space.shape[0]} in the first episode; give EVs a most"]
            )
        return found

    def _info(self) -> dict[str, Any]:
        """Time, and EVs of each member: what pads actions and observations comes after so many."""
        run = self._run
        assert run is not None
        clock = run.context.clock
        time_s = clock.duration_s if run.done else run.live_view.time_s
        return {
            "time": np.full(self.members, clock.timestamps(np.array([time_s]))[0]),
            "evs": self._counts,
        }

    def _checked(self, actions: Any) -> Array:
        """Actions, (member, n), within their space."""
        space = self.action
        try:
            given = np.asarray(actions, np.float64)
        except (TypeError, ValueError):
            raise StrategyError(
                f"an action is {type(actions).__name__}: must be an array of numbers"
            ) from None
        if given.shape != (self.members, *space.shape):
            raise StrategyError(
                f"actions have the shape {given.shape}: must be {(self.members, *space.shape)}, one a member"
            )
        if np.isnan(given).any():
            member = self.scenario.members[int(np.isnan(given).any(axis=1).argmax())]
            raise StrategyError(f"actions have NaN, first of member {member}")
        return np.clip(given, space.low, space.high)

    def _worth(self, name: str, values: Any) -> Array:
        found = np.asarray(values, np.float64)
        if found.shape != (self.members,):
            raise ScenarioError(
                [f"reward: {name} returned the shape {found.shape}: must be ({self.members},), one a member"]
            )
        return found

    def _outcome(self, run: Stepwise, time_s: float, regulation: Array) -> Outcome:
        values, portfolio, step_s = run.values, run.portfolio, run.context.clock.step_s
        tick = round(time_s / step_s)
        return Outcome(
            run, time_s, step_s, self._prices[tick],
            values["fleet/p" if portfolio.whole else portfolio.port("fleet/own_p")],
            values["feeder/voltage"], values["feeder/head_p"], values["feeder/trafo_p"],
            self._unserved(time_s + step_s), regulation,
        )  # fmt: skip

    def _unserved(self, now_s: float) -> Array:
        """Energy missing to the target of the sessions that have ended since the last call, (member,) kWh."""
        fleet = self._fleet
        assert isinstance(fleet, FleetModel)
        due = int(np.searchsorted(self._departures_s, now_s, "right"))
        rows = np.concatenate([self._pending, self._by_departure[self._departed : due]])
        missing = fleet.missing_kwh(rows)
        ended = ~np.isnan(missing)
        self._departed, self._pending = due, rows[~ended]
        member = fleet.evs.member[fleet.sessions.ev[rows[ended]]]
        return np.asarray(np.bincount(member, missing[ended], self.members), np.float64)


class _OfEpisodes:
    """What both kinds of environment have: the run of this episode, the last result, and the next seed."""

    _episodes: _Episodes
    _begun = False

    @property
    def result(self) -> xr.Dataset | None:
        """The result of the last episode that was taken to its end."""
        return self._episodes.result

    @property
    def run(self) -> Stepwise | None:
        """The run of this episode; None where the environment is closed."""
        return self._episodes._run

    def _begin(
        self, seed: int | None, random: np.random.Generator
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode with a seed: the scenario's own, then drawn ones, where none is given."""
        if seed is None and self._begun:
            seed = int(random.integers(_SEEDS))
        self._begun = True
        return self._episodes.reset(seed)


class VectorEnvironment(_OfEpisodes, VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """The members of a scenario as environments, advanced together; see :func:`make_vec`.

    All end at once, and the step after that begins the next episode, whatever its action (``NEXT_STEP``).
    ``info`` has the time, the number of EVs (``evs``) and each part of the reward, (member,) each.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}

    def __init__(self, episodes: _Episodes) -> None:
        self._episodes = episodes
        self.num_envs = episodes.members
        self.single_action_space, self.single_observation_space = episodes.action, episodes.observation
        self.action_space = batch_space(episodes.action, self.num_envs)
        self.observation_space = batch_space(episodes.observation, self.num_envs)
        self._np_random, self._np_random_seed = seeding.np_random(episodes.scenario.ensemble.seed)
        self._ended = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; ``seed`` is its ``ensemble.seed``."""
        super().reset(seed=seed)
        self._ended = False
        return self._begin(seed, self.np_random)

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Take an action in each member; observations, rewards, terminated, truncated, info."""
        never = np.zeros(self.num_envs, np.bool_)
        if self._ended:
            seen, info = self.reset()
            return seen, np.zeros(self.num_envs), never, never.copy(), info
        seen, reward, self._ended, info = self._episodes.step(actions)
        return seen, reward, np.full(self.num_envs, self._ended), never, info

    def close_extras(self, **kwargs: Any) -> None:
        """End the run."""
        self._episodes.close()


class Environment(_OfEpisodes, gymnasium.Env[NDArray[np.float32], NDArray[Any]]):
    """One member of a scenario as an environment; see :func:`make`.

    ``info`` has the time, the number of EVs (``evs``) and each part of the reward.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, episodes: _Episodes) -> None:
        self._episodes = episodes
        self.action_space, self.observation_space = episodes.action, episodes.observation
        self._np_random, self._np_random_seed = seeding.np_random(episodes.scenario.ensemble.seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; ``seed`` is its ``ensemble.seed``."""
        super().reset(seed=seed)
        seen, info = self._begin(seed, self.np_random)
        return seen[0], {name: values[0] for name, values in info.items()}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take an action; observation, reward, terminated, truncated, info."""
        seen, reward, ended, info = self._episodes.step(np.asarray(action)[np.newaxis])
        return seen[0], float(reward[0]), ended, False, {name: values[0] for name, values in info.items()}

    def close(self) -> None:
        """End the run."""
        self._episodes.close()


def _ticks(scenario: Scenario, every: float | str | None) -> int:
    """Ticks between two actions."""
    step_s = scenario.time.step
    try:
        period_s = step_s if every is None else seconds_of(every) if isinstance(every, str) else float(every)
    except (TypeError, ValueError):
        period_s = 0.0
    ticks = round(period_s / step_s)
    if ticks < 1 or abs(period_s / step_s - ticks) > 1e-9:
        raise ScenarioError([f"every = {every}: must be a multiple of time.step = {step_s:g}s"])
    return ticks
