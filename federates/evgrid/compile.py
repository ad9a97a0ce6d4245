"""How kernels are compiled and spread over cores: numba's options, once.

- ``cache``: the second start of evgrid doesn't compile.
- ``nogil``: other federates of the process run meanwhile.
- ``fastmath`` is off: results don't depend on the CPU, and NaN and infinity mean what they mean.
- ``error_model="numpy"``: a division by zero gives infinity, as in numpy, and costs no test.
- ``parallel`` is off: sums have one order, and federates may call kernels from several threads.
  Where items know nothing of each other, :func:`in_threads` shares them among cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Result = TypeVar("_Result")

THREADS = numba.config.NUMBA_NUM_THREADS
"""Cores that kernels may use: ``NUMBA_NUM_THREADS`` of the environment, else those of this process."""

_LEAST = 8192
"""Items in a part at least: fewer take less time than it takes to wake a thread."""

_APART = 16
"""Places between two threads' counters, so that they aren't in one cache line, or in a pair of them."""


def njit(function: _Function) -> _Function:
    """Compile a function of arrays and numbers to machine code at its first call."""
    compiled = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return cast(_Function, compiled)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, index: Any, offset: Any) -> Any:
    """Ask for the cache line ``offset`` bytes behind the begin of ``array[index]``; changes nothing else.

    ``index`` and ``offset`` are of unsigned types. For what is visited in an order which the processor can't
    guess, or soon.
    """
    unsigned = all(isinstance(number, types.Integer) and not number.signed for number in (index, offset))
    if not isinstance(array, types.Array) or not unsigned:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type, offset_type = signature.args
        values = context.make_array(array_type)(context, builder, arguments[0])
        at = context.cast(builder, arguments[1], index_type, types.uintp)
        behind = context.cast(builder, arguments[2], offset_type, types.uintp)
        place = cgutils.get_item_pointer(context, builder, array_type, values, [at], wraparound=False)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # for writing, keep in all caches, data
        line = builder.gep(builder.bitcast(place, byte), [behind])
        builder.call(function, [line, word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index, offset), generate


@intrinsic  # type: ignore[untyped-decorator]
def _claim(typing_context: Any, taken: Any, at: Any) -> Any:
    """Add 1 to ``taken[at]``, and return what it was: of any threads, each gets another number."""
    if not isinstance(taken, types.Array) or taken.dtype != types.int64:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = cgutils.get_item_pointer(
            context, builder, signature.args[0], values, [arguments[1]], wraparound=False
        )
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(taken, types.intp), generate


@njit
def next_part(taken: NDArray[np.int64], own: int, parts: int) -> int:
    """The next of a number of parts for thread ``own``, or -1; see :func:`take_turns`.

    Each thread has a share, which it takes first, and so from call to call: that finds its data in its cache.
    Then it takes of the others' shares.
    """
    threads = len(taken) // _APART
    for ahead in range(threads):
        share = (own + ahead) % threads
        part = parts * share // threads + _claim(taken, share * _APART)
        if part < parts * (share + 1) // threads:
            return int(part)
    return -1


def take_turns(kernel: Callable[[NDArray[np.int64], int], object], count: int, least: int = _LEAST) -> None:
    """Call ``kernel(taken, own)`` in ``THREADS`` threads, which share out its parts by :func:`next_part`.

    A thread that is late, or slower, takes fewer of them. For ``count`` items, of which a thread is worth
    starting for ``least`` and more. What the kernel does to a part must not depend on who takes it.
    """
    threads = max(min(THREADS, count // least), 1)
    taken = np.zeros(threads * _APART, np.int64)
    waiting = [_threads().submit(kernel, taken, own) for own in range(1, threads)]
    kernel(taken, 0)
    for future in waiting:
        future.result()


def in_threads(
    kernel: Callable[[int, int], _Result], count: int, least: int = _LEAST
) -> list[tuple[int, _Result]]:
    """Call ``kernel(low, high)`` for parts of range(count), each in a thread; ``low`` and result of each.

    As many parts as ``THREADS``, fewer where they'd be of less than ``least`` items. What the kernel does to
    an item must not depend on how they are parted.
    """
    parts = max(min(THREADS, count // least), 1)
    if parts == 1:
        return [(0, kernel(0, count))]
    edges = [count * part // parts for part in range(parts + 1)]
    waiting = [_threads().submit(kernel, low, high) for low, high in pairwise(edges[1:])]
    results = [kernel(0, edges[1]), *(future.result() for future in waiting)]
    return list(zip(edges[:-1], results, strict=True))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "evgrid-kernel")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads don't cross a fork
