"""Performance scores of a response to a regulation signal.

A scorer takes a signal and a response, both per unit of the capacity sold and positive upward,
with time as the last axis, and returns a :class:`Score` for each whole period (an hour, a quarter
of an hour). Samples after the last whole period are not scored themselves, but are used
as the late response to the last one.

``pjm`` is PJM's three-part score, in force to 30 September 2025, ``caiso`` CAISO's accuracy. A
user's own is a class with a ``score`` method, registered or named ``my_module:MyScorer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from evgrid.core.model import Array
from evgrid.core.registry import Registry
from evgrid.core.units import HOUR_S
from evgrid.core.user_code import user_class
from evgrid.system.kernels import correlation_and_delay

FLAT_RESPONSE = 1e-6
"""Standard deviation, per unit of capacity, up to which a response counts as constant."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of each period and its parts, (..., period) each."""

    total: Array
    parts: Mapping[str, Array]


@runtime_checkable
class Scorer(Protocol):
    """Rates a response to a signal."""

    period_s: float

    def score(self, signal: Array, response: Array, step_s: float) -> Score:
        """Score of each whole period.

        signal, response : (..., time), per unit of capacity, every ``step_s``
        """


SCORERS = Registry({"caiso": "evgrid.system.scores:CAISOAccuracy", "pjm": "evgrid.system.scores:PJMScore"})
"""Scorers with their defaults."""


def find_scorer(name: str, folder: str | None = None) -> Scorer:
    """A scorer by its registered name, or ``my_module:MyScorer`` (in the scenario's ``folder``), with its
    defaults.

    Raises ValueError with one sentence if there is none.
    """
    if ":" not in name:
        if name not in SCORERS:
            known = ", ".join(SCORERS.names())
            raise ValueError(f"scorer = {name}: must be one of {known}, or your own as my_module:MyScorer")
        scorer: Scorer = SCORERS.find(name)()
        return scorer
    try:
        scorer = user_class(name, folder)()
    except Exception as error:  # also errors of its constructor
        raise ValueError(f"scorer = {name}: {error}") from error
    if not isinstance(scorer, Scorer):
        raise ValueError(f"scorer = {name}: must have period_s and score(signal, response, step_s)")
    return scorer


@dataclass(frozen=True, slots=True)
class PJMScore:
    """PJM's score: a third each of correlation, delay and precision, on samples of 10 s, hourly.

    For a window of 5 min of the signal, the delay d of 0 to 5 min (in steps of 10 s) is found that
    maximises correlation C(d) + delay score D(d) = |(d - 300 s) / 300 s|, where C is Pearson's r
    between the window and the response d later. C and D are clipped to 0 to 1 and averaged over
    the hour's windows. Precision is 1 - mean |response - signal| / mean |signal| over the hour,
    clipped to 0 to 1.

    At the edges: windows lie within their hour; the late response may lie in the next, and where
    the data end only the delays that they hold are tried. A constant response to a signal that
    varies scores C = D = 0. A window of constant signal has no correlation, so C is 1 less the
    difference of the slopes (of the change over the window; the manual gives no unit), D is 1. In an hour
    with the signal at 0 throughout, precision is 1 for no response and else 0.

    Source: PJM Manual 12, section 4.5 (score) with the rules named above. Its test: a sine of 600 s
    period scores 1, 1, 1 for a perfect response; 1, 1, 0.8 and 0.9333 in total at a gain of 0.8.
    """

    windows: Literal["rolling", "blocks"] = "rolling"
    """rolling: a window begins every 10 s; blocks: 12 windows that do not overlap."""
    latency_s: float = 10.0
    """Allowed delay of signal propagation: a delay up to this scores D = 1, and precision is the better of
    those with the response as it is and with it shifted by this delay."""
    flat_signal: float = 0.01
    """Standard deviation of a window up to which the signal counts as constant (the manual names a
    threshold without a value)."""
    period_s: float = HOUR_S
    """Length of the period that is scored, s."""

    def score(self, signal: Array, response: Array, step_s: float) -> Score:
        """See :class:`Scorer`; the parts are correlation, delay and precision.

        Raises ValueError for arrays of unlike shape, NaN, a step above 10 s, or less than an hour.
        """
        signal, response = _checked(signal, response, step_s, self.period_s, longest_step_s=10.0)
        shape = signal.shape[:-1]
        index = np.floor(np.arange(0.0, signal.shape[-1] * step_s - 1e-6, 10.0) / step_s + 1e-9).astype(
            np.int64
        )
        flat_signal = np.ascontiguousarray(signal[..., index]).reshape(-1, len(index))
        flat_response = np.ascontiguousarray(response[..., index]).reshape(-1, len(index))
        per_hour = round(self.period_s / 10.0)
        hours = int(signal.shape[-1] * step_s / self.period_s + 1e-9)
        window = 30
        starts = np.arange(0, per_hour - window + 1, 1 if self.windows == "rolling" else window)
        first = (np.arange(hours)[:, np.newaxis] * per_hour + starts).reshape(-1)
        free = round(self.latency_s / 10.0)
        parts = np.empty((3, len(flat_signal), hours))
        for n, (own, other) in enumerate(zip(flat_signal, flat_response, strict=True)):
            pairs = correlation_and_delay(
                own, other, first, window, window, free, self.flat_signal, FLAT_RESPONSE
            ).reshape(hours, len(starts), 2)
            parts[:2, n] = pairs.mean(axis=1).T
            parts[2, n] = _precision(own, other, per_hour, hours, free)
        correlation, delay, precision = parts.reshape(3, *shape, hours)
        total = (correlation + delay + precision) / 3.0
        return Score(total, {"correlation": correlation, "delay": delay, "precision": precision})


def _precision(signal: Array, response: Array, per_hour: int, hours: int, latest: int) -> Array:
    """Precision score of each hour at the best delay up to ``latest`` samples, (hour,)."""
    samples = np.arange(hours * per_hour)
    asked = signal[samples].reshape(hours, per_hour)
    size = np.abs(asked).mean(axis=1)
    best = np.zeros(hours)
    for late in range(latest + 1):
        at = np.minimum(samples + late, len(response) - 1)
        error = np.abs(response[at].reshape(hours, per_hour) - asked).mean(axis=1)
        best = np.maximum(best, _accuracy(error, size))
    return best


def _accuracy(error: Array, size: Array) -> Array:
    """1 - error / size, 0 to 1; of a size of 0: 1 for no error, else 0."""
    with np.errstate(over="ignore"):  # a size of 1e-310
        share = np.divide(error, size, out=np.where(error > 0, np.inf, 0.0), where=size > 0)
    return np.asarray(np.clip(1.0 - share, 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class CAISOAccuracy:
    """CAISO's accuracy: 1 - sum |response - signal| / sum |signal| over each 15 min, 0 to 1.

    ``parts`` holds the mileage (per unit of capacity), and the adjusted mileage that is
    paid: mileage times accuracy. With the signal at 0 throughout, accuracy is 1 for no response,
    else 0.

    Source: CAISO tariff, section 8.2.3.1 and appendix K, on a 4-s signal.
    """

    period_s: float = 900.0
    """Length of the period that is scored, s."""

    def score(self, signal: Array, response: Array, step_s: float) -> Score:
        """See :class:`Scorer`.

        Raises ValueError for arrays of unlike shape, NaN, a step above 60 s or that does not divide the
        period, or less than a period.
        """
        signal, response = _checked(signal, response, step_s, self.period_s, longest_step_s=60.0)
        asked, given = (_by_period(x, step_s, self.period_s) for x in (signal, response))
        accuracy = _accuracy(np.abs(given - asked).sum(axis=-1), np.abs(asked).sum(axis=-1))
        moved = mileage(signal, step_s, self.period_s)
        return Score(accuracy, {"accuracy": accuracy, "mileage": moved, "adjusted_mileage": moved * accuracy})


def mileage(signal: Array, step_s: float, period_s: float = HOUR_S) -> Array:
    """Distance that a signal travels in each whole period: the sum of its changes' sizes, (..., period).

    signal : (..., time) every ``step_s``, which must divide ``period_s``. A change belongs to the
    period in which it arrives; the first sample has none. A triangle between -1 and 1 of 600 s period
    travels 24 in an hour.
    """
    signal = np.asarray(signal, dtype=np.float64)
    moved = np.abs(np.diff(signal, axis=-1, prepend=signal[..., :1]))
    return np.asarray(_by_period(moved, step_s, period_s).sum(axis=-1))


def mileage_ratio(signal: Array, reference: Array, step_s: float, period_s: float = HOUR_S) -> Array:
    """Mileage of a signal over that of a reference (RegA) in each period; NaN where that is constant."""
    own, other = mileage(signal, step_s, period_s), mileage(reference, step_s, period_s)
    own, other = np.broadcast_arrays(own, other)
    return np.asarray(np.divide(own, other, out=np.full(own.shape, np.nan), where=other > 0))


def response_of(power_kw: Array, baseline_kw: Array | float, capacity_kw: Array | float) -> Array:
    """A fleet's power as a response: (baseline - power) / capacity, as less drawn is upward."""
    return np.asarray((np.asarray(baseline_kw) - np.asarray(power_kw)) / np.asarray(capacity_kw))


def _by_period(values: Array, step_s: float, period_s: float) -> Array:
    per_period = round(period_s / step_s)
    if abs(per_period * step_s - period_s) > 1e-6:
        raise ValueError(f"step_s = {step_s:g}: must divide the period of {period_s:g} s")
    periods = values.shape[-1] // per_period
    whole = values[..., : periods * per_period]
    return np.asarray(whole.reshape(*values.shape[:-1], periods, per_period))


def _checked(
    signal: Array, response: Array, step_s: float, period_s: float, longest_step_s: float
) -> tuple[Array, Array]:
    signal, response = np.asarray(signal, dtype=np.float64), np.asarray(response, dtype=np.float64)
    if signal.shape != response.shape:
        raise ValueError(f"signal has shape {signal.shape}, response {response.shape}: must be the same")
    if not 0 < step_s <= longest_step_s:
        raise ValueError(f"step_s = {step_s:g}: must be above 0, up to {longest_step_s:g}")
    for name, values in (("signal", signal), ("response", response)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds {int((~np.isfinite(values)).sum())} values that are no numbers")
    if signal.ndim == 0 or signal.shape[-1] * step_s < period_s - 1e-6:
        raise ValueError(f"must hold at least one period of {period_s:g} s")
    return signal, response
