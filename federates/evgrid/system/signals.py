"""Synthetic regulation signals: bounded, of a stated spectrum, energy-neutral or not.

No operator's signal can be shipped, so one is drawn. On a grid of 2 or 4 s from local midnight:

1. White Gaussian noise passes two equal low-pass poles of time constant ``fast_s`` and, where
   ``slow_s`` is given, one high-pass pole of that time constant: the spectrum is
   ``S(f) ~ (1 + (2 pi f fast)^2)^-2 · (2 pi f slow)^2 / (1 + (2 pi f slow)^2)``.
   The result is scaled to the standard deviation ``spread``.
2. It is cut to -1 to 1. Where ``neutral_s`` is given, first a bump ``c (1 - cos(2 pi t / neutral_s))``
   is taken off each interval of that length from midnight, with c such that after the cut the
   interval's energy is zero. The bump vanishes at the interval's ends, so the signal stays smooth.

=========  ========  ========  ========  ===========  ==================  ==========  =========
kind       fast_s    slow_s    spread    neutral_s    standard deviation  mean size   mileage/h
=========  ========  ========  ========  ===========  ==================  ==========  =========
``regd``   120       600       0.6       900          0.50                0.41        16
``rega``   240       none      0.45      none         0.44                0.36        5.2
=========  ========  ========  ========  ===========  ==================  ==========  =========

The columns on the right are what comes out over twenty days. These are stand-ins of like
character, a fast neutral signal and a slow one that is not; they are not fitted to any operator's.
:func:`statistics` gives the figures of what was drawn.

The noise is drawn by member and local day, and the poles start in the day before, early enough
for their initial state to have decayed. So a value depends only on seed, member and calendar time:
neither on the tick, nor on the start of the run, nor on the other members. The signal of a
tick is the mean over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from evgrid.core.model import Array, Clock
from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S
from evgrid.readers.series import Series
from evgrid.scenario.system import Shape

_WARM_UP = 20.0
_EPOCH = date(1970, 1, 1).toordinal()


class SyntheticSignal:
    """A synthetic regulation signal of each member, drawn day by day during the run."""

    def __init__(self, shape: Shape, clock: Clock, members: Sequence[int], seed: int) -> None:
        """Prepare; ``members`` are the members' numbers, ``seed`` is the scenario's."""
        self._shape, self._members, self._seed = shape, members, seed
        self._start_s = float(clock.start.astype("datetime64[us]").astype(np.int64)) / 1e6
        self._days: dict[int, Series] = {}

    def mean(self, begin_s: float, end_s: float) -> Array:
        """Mean over [begin_s, end_s) from the run's start, (member,)."""
        day = int((self._start_s + begin_s + 1e-6) // DAY_S)
        midnight_s = (day + 1) * DAY_S - self._start_s
        if end_s <= midnight_s + 1e-6:
            return self._day(day).mean(begin_s, end_s)
        before = self._day(day).mean(begin_s, midnight_s) * (midnight_s - begin_s)
        after = self.mean(midnight_s, end_s) * (end_s - midnight_s)
        return np.asarray((before + after) / (end_s - begin_s))

    def _day(self, day: int) -> Series:
        if day not in self._days:
            while len(self._days) >= 2:
                del self._days[next(iter(self._days))]
            values = np.stack(
                [draw_day(self._shape, self._seed, member, day) for member in self._members], axis=-1
            )
            grid_s = self._shape.step_s * np.arange(len(values) + 1, dtype=np.float64)
            edges = np.asarray(day * DAY_S - self._start_s + grid_s, dtype=np.float64)
            self._days[day] = Series(edges, values)
        return self._days[day]


def draw_day(shape: Shape, seed: int, member: int, day: int) -> Array:
    """The signal of a member on a local day (days since 1970), (time,) every ``shape.step_s``."""
    from scipy.signal import lfilter  # takes a second to import

    cells = round(DAY_S / shape.step_s)
    numerator, denominator, gain = _poles(shape)
    noise = [
        stream(seed, member, Purpose.REGULATION, _EPOCH + day + k).standard_normal(cells) for k in (-1, 0)
    ]
    lead = round(_WARM_UP * max(shape.fast_s, shape.slow_s or 0.0) / shape.step_s)
    driven = np.concatenate([noise[0][cells - lead :], noise[1]])
    wanted: Array = shape.spread * gain * lfilter(numerator, denominator, driven)[lead:]
    if shape.neutral_s is None:
        return np.clip(wanted, -1.0, 1.0)
    blocks = wanted.reshape(-1, round(shape.neutral_s / shape.step_s))
    return _neutral(blocks).reshape(-1)


def _poles(shape: Shape) -> tuple[Array, Array, float]:
    """Numerator and denominator of the filter, and the gain that makes its output's variance 1."""
    from scipy.signal import lfilter

    low = np.exp(-shape.step_s / shape.fast_s)
    numerator, denominator = np.ones(1), np.convolve([1.0, -low], [1.0, -low])
    if shape.slow_s is not None:
        numerator = np.array([1.0, -1.0])
        denominator = np.convolve(denominator, [1.0, -np.exp(-shape.step_s / shape.slow_s)])
    impulse = np.zeros(round(_WARM_UP * max(shape.fast_s, shape.slow_s or 0.0) / shape.step_s) + 1)
    impulse[0] = 1.0
    response: Array = lfilter(numerator, denominator, impulse)
    return numerator, denominator, float(1.0 / np.sqrt((response**2).sum()))


def _neutral(blocks: Array) -> Array:
    """Rows cut to -1 to 1 with a sum of zero, each less a bump that vanishes at its ends.

    The sum falls with the size of the bump, which is found by bisection: at twice the largest value
    plus one, two thirds of the row lie at a limit.
    """
    length = blocks.shape[1]
    bump = 1.0 - np.cos(2.0 * np.pi * (np.arange(length) + 0.5) / length)
    high = 2.0 * (np.abs(blocks).max(axis=1, keepdims=True) + 1.0)
    low = -high
    for _ in range(64):
        middle = (low + high) / 2.0
        above = np.clip(blocks - middle * bump, -1.0, 1.0).sum(axis=1, keepdims=True) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.clip(blocks - (low + high) / 2.0 * bump, -1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of a signal.

    mean, spread, mean_size : mean, standard deviation, mean magnitude
    at_limit : share of time at -1 or 1
    mileage_per_h : sum of magnitudes of changes, per hour
    worst_energy_h : largest magnitude of the energy of an interval of the horizon, hours at full
        capacity
    swing_h : range of the cumulated energy, hours at full capacity
    """

    mean: float
    spread: float
    mean_size: float
    at_limit: float
    mileage_per_h: float
    worst_energy_h: float
    swing_h: float


def statistics(values: Array, step_s: float, horizon_s: float = 900.0) -> Statistics:
    """Figures of a signal, (time,) every ``step_s``, whose first sample begins an interval."""
    values = np.asarray(values, dtype=np.float64)
    per_block = round(horizon_s / step_s)
    whole = len(values) // per_block * per_block
    hours = step_s / 3600.0
    energy = values[:whole].reshape(-1, per_block).sum(axis=1) * hours
    level = np.concatenate([[0.0], np.cumsum(values) * hours])
    return Statistics(
        mean=float(values.mean()),
        spread=float(values.std()),
        mean_size=float(np.abs(values).mean()),
        at_limit=float((np.abs(values) >= 1.0).mean()),
        mileage_per_h=float(np.abs(np.diff(values)).sum() / max((len(values) - 1) * hours, 1e-12)),
        worst_energy_h=float(np.abs(energy).max()) if len(energy) else float("nan"),
        swing_h=float(level.max() - level.min()),
    )
