"""How kernels are spread over cores."""

import threading

import numpy as np
import pytest

from evgrid.core import jit as compiling
from evgrid.core.jit import in_threads, next_part, njit, take_turns


@njit
def _count(counters, thread, done, parts):
    while True:
        part = next_part(counters, thread, parts)
        if part < 0:
            break
        done[part] += thread + 1


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("parts", [1, 2, 7, 1000])
def test_each_part_is_done_once_and_all_are_done_at_return(monkeypatch, threads, parts):
    monkeypatch.setattr(compiling, "THREADS", threads)
    monkeypatch.setattr(compiling, "_LEAST_PARTS", 1)
    for _ in range(50):
        done = np.zeros(parts, np.int64)
        take_turns(lambda counters, thread, done=done: _count(counters, thread, done, parts), parts)
        assert np.all(done >= 1)
        assert np.all(done <= min(threads, parts))


def test_what_goes_wrong_in_another_thread_is_raised(monkeypatch):
    monkeypatch.setattr(compiling, "THREADS", 2)
    monkeypatch.setattr(compiling, "_LEAST_PARTS", 1)
    claimed = threading.Event()

    def kernel(counters, thread):
        if thread == 1:
            next_part(counters, thread, 4)
            claimed.set()
            raise ValueError("in a part")
        claimed.wait()
        while next_part(counters, thread, 4) >= 0:
            pass

    with pytest.raises(ValueError, match="in a part"):
        take_turns(kernel, 4)

    def part(low, high):
        if low:
            raise ValueError(f"from {low}")
        return high

    with pytest.raises(ValueError, match="from 5"):
        in_threads(part, 10, 1)
    assert in_threads(lambda low, high: high - low, 10, 1) == [(0, 5), (5, 5)]  # and the threads go on
