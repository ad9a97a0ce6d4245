"""The set-points of a caller's own loop in the place of a strategy; see :mod:`evgrid.runs.stepwise`."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from time import monotonic
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evgrid.aggregator.dispatch import Dispatching, DispatchSettings
from evgrid.aggregator.strategies.uncontrolled import Uncontrolled
from evgrid.aggregator.strategy import Context, Strategy, View
from evgrid.core.model import Array, Model
from evgrid.errors import EvgridError
from evgrid.scenario.aggregators import StrategySettings


class Left(EvgridError):
    """The caller has left the run before its end."""


class Loop:
    """Hands the views of a run's thread to the caller's, and set-points back.

    views : what the caller takes: each view, and at last the outcome of the run
    strategy : the one in whose :meth:`Stepped.setpoints` the run waits; there from the first view on
    model : the aggregator's, whose waiting the watchdog is to leave out
    left : set when the caller has left the run
    """

    strategy: Stepped
    model: Model

    def __init__(self) -> None:
        self.views = SimpleQueue[Any]()
        self.left = threading.Event()
        self._setpoints = SimpleQueue[Array | None]()

    def give(self, setpoints: Array) -> None:
        """Give the set-points of the last view."""
        self._setpoints.put(setpoints)

    def leave(self) -> None:
        """Leave the run."""
        self.left.set()
        self._setpoints.put(None)

    def wait(self, view: View) -> Array:
        """Hand a view out and wait for its set-points; in the run's thread."""
        self.model.held_until = np.inf
        self.views.put(view)
        setpoints = self._setpoints.get()
        self.model.held_until = monotonic()
        if setpoints is None:
            raise Left("the run was left before its end")
        return setpoints


class Stepped(Dispatching):
    """Takes its set-points from a :class:`Loop`; its settings are those of the strategy that it replaces."""

    replaced: ClassVar[type[Strategy]] = Uncontrolled
    loop: ClassVar[Loop]
    uses_feeder = True
    uses_system = True
    uses_voltage = True
    takes_upstream = True

    def __init__(self, settings: Any, context: Context) -> None:
        dispatching = isinstance(settings, DispatchSettings)
        super().__init__(settings if dispatching else DispatchSettings(strategy=settings.strategy), context)
        self.loop.strategy = self

    @classmethod
    def goes_by_envelope(cls, settings: Any) -> bool:
        """See :meth:`Strategy.goes_by_envelope`: as the strategy in whose place it is."""
        return cls.replaced.goes_by_envelope(settings)

    @classmethod
    def goes_by_sensitivities(cls) -> bool:
        """See :meth:`Strategy.goes_by_sensitivities`: as the strategy in whose place it is."""
        return cls.replaced.goes_by_sensitivities()

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        return self.loop.wait(view)

    def share(self, view: View, power_kw: Array, discharge: NDArray[np.bool_]) -> Array:
        """Split a power by laxity over the EVs of each group, (member · groups,) kW, or of each member,
        (member,) kW; (ev,) kW. ``discharge``: whether they may discharge, of the same shape.
        """
        context = self.context
        by_group = len(power_kw) == context.members * context.groups
        group: NDArray[np.int64] = context.ev_group if by_group else context.evs.member
        if group is not self._group:
            self._group, self._rows = group, None
        least = None if discharge.all() else np.where(discharge[group], view.p_min, 0.0)
        return self.dispatch(view, power_kw, least).copy()


def stepped(settings: StrategySettings, loop: Loop) -> StrategySettings:
    """Settings of an aggregator of which a loop gives the set-points."""
    replaced = settings.strategy_class
    own = {
        "replaced": replaced, "loop": loop, "controls": True, "ignores": replaced.ignores,
        "Settings": replaced.Settings, "may_raise_peak": replaced.may_raise_peak,
    }  # fmt: skip
    changed = settings.model_copy()
    changed._class = type("Stepped", (Stepped,), own)
    return changed
