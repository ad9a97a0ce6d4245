"""One control area: its frequency under steps of load and generation, and the fleet's power.

In: the deviation of net load (disturbances and files, known from the start) and the fleet's
deviation from its schedule, held over a tick. Out: the frequency of each member at the tick's
end and its mean over the tick. The equations are in :mod:`evgrid.system.kernels`.

The inner step is at most 20 ms, whatever the tick. Where the known load changes inside a tick,
the tick is cut there, so that under the same load every tick gives the same trajectory.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.linalg import expm

from evgrid.core.model import Array, Clock
from evgrid.readers.series import LOAD, Series, read_series
from evgrid.scenario.system import FleetFeedback, LoadFrequency
from evgrid.system.kernels import HIGHEST, LOWEST, LOWEST_AT, STEEPEST, advance_limited, advance_linear

INNER_STEP_S = 0.02
"""Longest inner step, s."""


def known_load(settings: LoadFrequency, clock: Clock) -> Series:
    """Net load less schedule that is known from the start, per unit: disturbances and the load file.

    Raises ScenarioError for a load file that is at fault.
    """
    changes: list[tuple[float, float]] = []
    for step in settings.disturbances:
        size = step.pu if step.pu is not None else (step.mw or 0.0) / settings.base_mw
        changes.append((step.time, size))
        if step.duration is not None:
            changes.append((step.time + step.duration, -size))
    edges = np.unique([0.0, *(time for time, _ in changes)])
    values = np.array([sum(size for time, size in changes if time <= edge) for edge in edges])
    end_s = max(clock.duration_s, edges[-1]) + 1.0
    if settings.load is None:
        return Series(np.append(edges, end_s), values)
    load = read_series(settings.load.file, clock, LOAD, settings.load.column, settings.load.reading)
    both = np.unique(np.append(edges, np.clip(load.edges_s[:-1], 0.0, None)))
    base = values[np.searchsorted(edges, both, "right") - 1]
    from_file = load.values[np.searchsorted(load.edges_s[:-1], both, "right") - 1]
    return Series(np.append(both, max(end_s, both[-1] + 1.0)), base + from_file / settings.base_mw)


class Area:
    """A control area of each member, from rest at nominal frequency."""

    def __init__(self, settings: LoadFrequency, nominal_hz: float, clock: Clock, members: int) -> None:
        """Prepare; ``members`` is their number.

        Raises ScenarioError for a load file that is at fault.
        """
        self._settings, self._nominal_hz = settings, nominal_hz
        self._load = known_load(settings, clock)
        self._state = np.zeros((members, 4))
        self._extremes = np.zeros((members, 4))
        self._limited = (
            settings.governor_deadband_hz > 0
            or settings.reserve_up_pu is not None
            or settings.reserve_down_pu is not None
        )
        fastest = min(settings.governor_s, settings.turbine_s)
        self._longest_s = min(INNER_STEP_S, fastest / 4) if self._limited else INNER_STEP_S

    def advance(self, begin_s: float, end_s: float, fleet_pu: Array) -> Array:
        """Advance over [begin_s, end_s) and return the mean frequency, (member,) Hz.

        fleet_pu : (member,), power drawn beyond schedule, per unit of base power
        """
        before = self._state[:, 3].copy()
        edges = self._load.edges_s
        first = int(np.searchsorted(edges, begin_s + 1e-9, "right"))
        last = int(np.searchsorted(edges, end_s - 1e-9, "left"))
        cuts = [begin_s, *(float(edge) for edge in edges[first:last]), end_s]
        for cut, nxt in pairwise(cuts):
            load = fleet_pu + self._load.mean(cut, nxt)
            self._hold(cut, nxt - cut, load)
        mean = (self._state[:, 3] - before) / (end_s - begin_s)
        return np.asarray(self._nominal_hz * (1.0 + mean))

    def _hold(self, begin_s: float, length_s: float, load: Array) -> None:
        """Advance under a constant load."""
        s = self._settings
        steps = max(math.ceil(length_s / self._longest_s - 1e-9), 1)
        step_s = round(length_s / steps, 12)
        agc = s.agc_gain * s.agc_to_governor
        if not self._limited:
            transition, gain = discretise(
                s.inertia_s, s.damping, s.droop, s.governor_s, s.turbine_s, agc, step_s
            )
            advance_linear(
                self._state, load, self._extremes, transition, gain, s.inertia_s, s.damping,
                begin_s, step_s, steps,
            )  # fmt: skip
            return
        up = math.inf if s.reserve_up_pu is None else s.reserve_up_pu
        down = math.inf if s.reserve_down_pu is None else s.reserve_down_pu
        advance_limited(
            self._state, load, self._extremes, s.inertia_s, s.damping, s.droop, s.governor_s,
            s.turbine_s, agc, s.governor_deadband_hz / self._nominal_hz, -down, up,
            begin_s, step_s, steps,
        )  # fmt: skip

    @property
    def frequency_hz(self) -> Array:
        """Frequency now, (member,) Hz."""
        return np.asarray(self._nominal_hz * (1.0 + self._state[:, 0]))

    @property
    def agc_signal(self) -> Array:
        """The AGC's command as a regulation signal, -1 to 1, (member,); positive: upward."""
        command = -self._settings.agc_gain * self._state[:, 3] / self._settings.agc_full_pu
        return np.clip(command, -1.0, 1.0)

    @property
    def nadir_hz(self) -> Array:
        """Lowest frequency so far, (member,) Hz."""
        return np.asarray(self._nominal_hz * (1.0 + self._extremes[:, LOWEST]))

    @property
    def nadir_s(self) -> Array:
        """Time of the lowest frequency, (member,) s from the run's start."""
        return self._extremes[:, LOWEST_AT].copy()

    @property
    def peak_hz(self) -> Array:
        """Highest frequency so far, (member,) Hz."""
        return np.asarray(self._nominal_hz * (1.0 + self._extremes[:, HIGHEST]))

    @property
    def rocof_hz_per_s(self) -> Array:
        """Steepest rate of change of frequency so far, at an instant, with its sign, (member,) Hz/s."""
        return np.asarray(self._nominal_hz * self._extremes[:, STEEPEST])


@lru_cache(maxsize=256)
def discretise(
    inertia_s: float,
    damping: float,
    droop: float,
    governor_s: float,
    turbine_s: float,
    agc: float,
    step_s: float,
) -> tuple[Array, Array]:
    """The exact solution of the linear area over a step with constant load, (4, 4) and (4,).

    From the exponential of the equations with the load as a constant fifth state.
    """
    a = np.zeros((5, 5))
    a[0, 0], a[0, 1], a[0, 4] = -damping / (2 * inertia_s), 1 / (2 * inertia_s), -1 / (2 * inertia_s)
    a[1, 1], a[1, 2] = -1 / turbine_s, 1 / turbine_s
    a[2, 0], a[2, 2], a[2, 3] = -1 / (droop * governor_s), -1 / governor_s, -agc / governor_s
    a[3, 0] = 1.0
    whole: Array = expm(a * step_s)
    return np.ascontiguousarray(whole[:4, :4]), np.ascontiguousarray(whole[:4, 4])


class Schedule:
    """The fleet's deviation from its schedule, per unit of the area's base power."""

    def __init__(self, settings: FleetFeedback, base_mw: float) -> None:
        """Prepare."""
        self._settings, self._base_kw = settings, base_mw * 1e3
        self._scheduled_kw: Array | None = None

    def deviation(self, power_kw: Array, step_s: float) -> Array:
        """Power that the fleets draw beyond schedule, (member,); ``power_kw`` is the mean of one over a tick.

        Without a schedule in the settings, the moving average starts at the first power.
        """
        if self._settings.schedule_kw is not None:
            scheduled: Array | float = self._settings.schedule_kw
        else:
            if self._scheduled_kw is None:
                self._scheduled_kw = power_kw.copy()
            scheduled = self._scheduled_kw
            gained = -math.expm1(-step_s / self._settings.schedule)
            self._scheduled_kw = self._scheduled_kw + gained * (power_kw - self._scheduled_kw)
        return np.asarray(self._settings.stands_for * (power_kw - scheduled) / self._base_kw)
