"""Runs step by step: the caller's own loop is the strategy of an aggregator.

In: a scenario, and each tick the set-points of the aggregator's EVs. Out: each tick the view that a
strategy would have, and the result at the end. It is the run of :func:`evgrid.run`: the federation runs over
HELICS in a thread of its own, and the aggregator's step waits there for the set-points. So a loop that does
what a strategy does gives the result of that strategy, bit for bit.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.aggregator.strategies.stepped import Loop, stepped
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Array, Model, Portfolio
from evgrid.errors import ScenarioError, StrategyError
from evgrid.runs.simulation import RunReport, World, run_with_report, scenario_of
from evgrid.scenario import Scenario
from evgrid.scenario.aggregators import StrategySettings

if TYPE_CHECKING:
    from types import TracebackType

    import xarray as xr

_STATUS = ("soc", "p_max", "p_min", "energy_needed", "time_left", "time_needed", "regulation", "frequency")
_ENVELOPE = ("p_min", "p_max", "e_min", "e_max", "round_trip")


@dataclass(frozen=True)
class _Outcome:
    """How a run ended: with a result and its report, or with an error."""

    result: xr.Dataset | None = None
    report: RunReport | None = None
    error: BaseException | None = None


def stepwise(
    scenario: Scenario | Mapping[str, Any] | str | Path,
    aggregator: str | None = None,
    output: str | Path | None = None,
) -> Stepwise:
    """Start a run in which the caller gives the set-points of one aggregator.

    >>> with evgrid.stepwise("scenarios/european_lv_v1g.yaml") as run:  # doctest: +SKIP
    ...     while not run.done:
    ...         run.step(0.5 * run.view.p_max)
    >>> run.result  # doctest: +SKIP

    Parameters
    ----------
    scenario, output
        See :func:`evgrid.run`.
    aggregator
        Name of the aggregator; needed where the scenario has several. The loop takes the place of its
        strategy, whose settings (group, limit, EVs, link) hold. A scenario without aggregators gets one,
        ``main``, with all EVs.

    Raises
    ------
    EvgridError
        If the scenario, its network or its files are at fault.

    """
    return Stepwise(scenario_of(scenario), aggregator, output)


class Stepwise:
    """A run in which the caller gives the set-points of one aggregator; see :func:`evgrid.stepwise`.

    Leaving its ``with`` block before the end, or :meth:`close`, ends the run: nothing is written.

    scenario : as it was given
    aggregator : name of the aggregator
    portfolio : the aggregator's EVs among all
    values : the ports' last values by name (``evgrid ports``), such as ``feeder/voltage`` (member,
        connection, phase) and ``fleet/p``: those of the federates that step after the aggregator are of the
        last tick. They are not to be changed, and valid until the next step
    models : the run's models by their federates' names
    """

    def __init__(self, scenario: Scenario, aggregator: str | None, output: str | Path | None) -> None:
        self.scenario = scenario
        self.aggregator, given = _chosen(scenario, aggregator)
        loop = self._loop = Loop()
        aggregators = {**scenario.aggregators, self.aggregator: stepped(given, loop)}
        self.values: dict[str, Array] = {}
        self.models: dict[str, Model] = {}
        prepared = _Prepared(self.aggregator, loop, self.values, self.models)
        self._raw: View | None = None
        self._copied: View | None = None
        self._outcome: _Outcome | None = None
        self._thread = threading.Thread(
            target=_drive,
            args=(scenario.model_copy(update={"aggregators": aggregators}), output, prepared, loop),
            name=f"evgrid-{scenario.name}",
            daemon=True,
        )
        self._thread.start()
        self.close = weakref.finalize(self, _leave, loop, self._thread)
        """Ends the run, if it has not ended."""
        self.close.atexit = False  # see _close_all
        _open.append(self.close)
        try:
            self._await()
            if self._outcome is not None:
                raise ScenarioError([f"aggregators.{self.aggregator}: has no EVs to give set-points to"])
        except BaseException:
            self.close()
            raise
        _close_at_exit()
        self.portfolio: Portfolio = prepared.portfolio

    def __enter__(self) -> Stepwise:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def context(self) -> Context:
        """What a strategy knows: from the start, and of signals from outside as of the last view."""
        return self._loop.strategy.context

    @property
    def done(self) -> bool:
        """Whether the last step has been taken."""
        return self._raw is None

    @property
    def view(self) -> View:
        """What the aggregator sees now; it keeps its values after the step."""
        view = self.live_view
        if self._copied is None:
            copies: dict[str, Any] = {name: getattr(view, name).copy() for name in _STATUS}
            if (ahead := view.envelope) is not None:
                limits = {name: getattr(ahead, name).copy() for name in _ENVELOPE}
                copies["envelope"] = replace(ahead, **limits)
            self._copied = replace(view, **copies)
        return self._copied

    @property
    def live_view(self) -> View:
        """:attr:`view` without copies: its values change with the next step, and must not be changed."""
        if self._raw is None:
            raise StrategyError(f"aggregators.{self.aggregator}: the run has ended, and there is no view")
        if not self.close.alive:
            raise StrategyError(
                f"aggregators.{self.aggregator}: the run was closed at "
                f"{self.context.clock.stamp(self._raw.time_s)}, before its end; begin another with "
                "evgrid.stepwise"
            )
        return self._raw

    @property
    def result(self) -> xr.Dataset:
        """The result, with its audit, after the last step."""
        found: xr.Dataset = self._ended("result")
        return found

    @property
    def report(self) -> RunReport:
        """Report of the run, after the last step."""
        found: RunReport = self._ended("report")
        return found

    def step(self, setpoints: Any) -> None:
        """Give the set-points of this tick, and advance to the next.

        setpoints : (ev,) kW: positive charges, negative discharges, +inf charges as fast as the EV can;
            values for EVs that are away are ignored

        Raises
        ------
        StrategyError
            If they are no such array; the run is then still at this tick.
        RunError
            If a federate fails, from the first cause; another EvgridError if the energy does not balance or
            the result can't be written.

        """
        view = self.live_view
        given = self._checked(setpoints, view)
        self._raw = self._copied = None
        self._loop.give(given)
        self._await()

    def dispatch(self, power_kw: Any, discharge: Any = True) -> Array:
        """Set-points that split a power over the EVs by laxity, as ``peak_limit`` does; (ev,) kW.

        power_kw : (member · groups,) kW for the EVs of each group, or (member,) kW for all of a member. EVs
            that must charge to meet their departure do so, whatever the power
        discharge : whether EVs may discharge to meet a power, of all or of each

        Raises StrategyError if ``power_kw`` is no such array.
        """
        view, context = self.live_view, self.context
        power = self._array(power_kw, "power_kw")
        if power.shape not in {(context.members * context.groups,), (context.members,)}:
            raise StrategyError(
                f"{self._who}: power_kw has the shape {power.shape}: must be "
                f"({context.members * context.groups},), one a group, or ({context.members},), one a member"
            )
        if np.isnan(power).any():
            raise StrategyError(
                f"{self._who}: power_kw has {np.isnan(power).sum()} NaN: must be powers in kW"
            )
        may = np.broadcast_to(np.asarray(discharge, np.bool_), power.shape)
        return self._loop.strategy.share(view, power, may)

    @property
    def _who(self) -> str:
        return f"aggregators.{self.aggregator} at {self.context.clock.stamp(self.live_view.time_s)}"

    def _array(self, values: Any, what: str) -> Array:
        try:
            if np.iscomplexobj(values):
                raise TypeError
            return np.asarray(values, np.float64)
        except (TypeError, ValueError):
            raise StrategyError(
                f"{self._who}: {what} is {type(values).__name__}: must be an array of powers in kW"
            ) from None

    def _checked(self, setpoints: Any, view: View) -> Array:
        evs, array = self.context.evs, self._array(setpoints, "setpoints")
        if array.shape != (len(evs),):
            raise StrategyError(
                f"{self._who}: setpoints has the shape {array.shape}: must be ({len(evs)},), one an EV"
            )
        bad = np.flatnonzero((np.isnan(array) | np.isneginf(array)) & view.plugged)
        if len(bad):
            member = self.context.numbers[evs.member[bad[0]]]
            what = "NaN" if np.isnan(array[bad[0]]) else "-inf"
            raise StrategyError(
                f"{self._who}: setpoints has {what} for {len(bad)} of {len(evs)} EVs, first for "
                f"{evs.name[bad[0]]} of member {member}: must be a power in kW, or +inf"
            )
        return array

    def _await(self) -> None:
        """Wait for the next view, or the end of the run."""
        got = self._loop.views.get()
        if isinstance(got, View):
            self._raw = got
            return
        self._outcome = got
        self._thread.join()
        if got.error is not None:
            raise got.error

    def _ended(self, what: str) -> Any:
        found = getattr(self._outcome, what, None)
        if found is None:
            raise StrategyError(
                f"aggregators.{self.aggregator}: there is no {what}: the run has not been stepped to its end"
            )
        return found


def _chosen(scenario: Scenario, name: str | None) -> tuple[str, StrategySettings]:
    """Name and settings of the aggregator to be stepped."""
    given = dict(scenario.aggregators)
    if not given and name in (None, "main"):
        return "main", StrategySettings(strategy="uncontrolled")
    if name is None and len(given) == 1:
        name = next(iter(given))
    if name is None or name not in given:
        listed = ", ".join(given) or "main, as the scenario has none"
        asked = "is not given" if name is None else f"= {name}"
        raise ScenarioError([f"aggregator {asked}: must be one of {listed}"])
    return name, given[name]


class _Prepared:
    """Connects a loop to the models of its run, and keeps their outputs."""

    portfolio: Portfolio

    def __init__(self, name: str, loop: Loop, values: dict[str, Array], models: dict[str, Model]) -> None:
        self._name, self._loop, self._values, self._models = name, loop, values, models

    def __call__(self, world: World, models: Sequence[Model]) -> None:
        self.portfolio = next(p for p in world.portfolios if p.name == self._name)
        self._models.update({model.name: model for model in models})
        for model in models:
            if model.name == self.portfolio.federate:
                self._loop.model = model
            for name in ("step", "again"):
                setattr(model, name, self._kept(getattr(model, name)))

    def _kept(self, call: Any) -> Any:
        def kept(time_s: float, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            outputs: Mapping[str, Array] = call(time_s, inputs)
            self._values.update(outputs)
            return outputs

        return kept


def _drive(scenario: Scenario, output: str | Path | None, prepared: _Prepared, loop: Loop) -> None:
    """Run a scenario to its end, in a thread of its own."""
    try:
        outcome = _Outcome(*run_with_report(scenario, output, prepared=prepared, cancel=loop.left))
    except BaseException as error:
        outcome = _Outcome(error=error)
    loop.views.put(outcome)


_open: list[weakref.finalize[Any, Any]] = []
"""What ends the runs that may not have ended."""


def _close_at_exit() -> None:
    """Have runs ended first of all when Python exits: before HELICS' library, which would wait for them."""
    _open[:] = [close for close in _open if close.alive]
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    for close in _open:
        close()


def _leave(loop: Loop, thread: threading.Thread) -> None:
    """End the run of a loop and wait for its thread."""
    if thread.is_alive():
        loop.leave()
        if thread is not threading.current_thread():
            thread.join()
