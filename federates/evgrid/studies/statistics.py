"""Confidence intervals of shares."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wilson(count: ArrayLike, trials: int, confidence: float = 0.95) -> tuple[NDArray[Any], NDArray[Any]]:
    """Wilson interval of a binomial share (10.1080/01621459.1927.10502953).

    count : any shape, successes among ``trials`` (at least 1); result: low and high, same shape, 0 to 1

    >>> low, high = wilson(0, 100)
    >>> round(float(high), 4)
    0.037
    """
    counts = np.asarray(count)
    ends = np.array([_interval(int(k), trials, confidence) for k in counts.ravel()]).reshape(-1, 2)
    return ends[:, 0].reshape(counts.shape), ends[:, 1].reshape(counts.shape)


@lru_cache(maxsize=100_000)
def _interval(count: int, trials: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(count, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
