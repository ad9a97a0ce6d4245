"""Compilation of kernels and their distribution over cores, with numba's options in one place.

- cached on disk (:mod:`~evgrid.core.kernel_cache`): the second start of evgrid doesn't compile.
- ``nogil``: other federates of the process run meanwhile.
- ``fastmath`` is off: results don't depend on the CPU, and NaN and infinity are respected.
- ``error_model="numpy"``: a division by zero gives infinity, as in numpy, and costs no test.
- ``parallel`` is off: sums have one order, and federates may call kernels from several threads.
  Where items know nothing of each other, :func:`in_threads` and :func:`take_turns` share them among cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from evgrid.core.kernel_cache import enable_cache

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Result = TypeVar("_Result")

THREADS = numba.config.NUMBA_NUM_THREADS
"""Cores that kernels may use: ``NUMBA_NUM_THREADS`` of the environment, else those of this process."""

_LEAST = 8192
"""Items in a part at least: fewer take less time than it takes to wake a thread."""

_LEAST_PARTS = 8
"""Parts for a thread at least."""

_PATIENCE = 100_000
"""Spins of an idle thread between checks whether the others are done: about a millisecond."""

_COURTESY = 1500
"""The same for the other threads: some 10 µs, so that thread 0, which goes on, has the interpreter first."""

_APART = 16
"""Places between two threads' counters, so that they aren't in one cache line, or in a pair of them."""


def njit(function: _Function) -> _Function:
    """Compile a function of arrays and numbers to machine code at its first call."""
    compiled = numba.njit(nogil=True, fastmath=False, error_model="numpy")(function)
    enable_cache(compiled)
    return cast(_Function, compiled)


def inlined(function: _Function) -> _Function:
    """Compile a small function of scalars into the kernels that call it: so a loop over it is vectorised."""
    compiled = numba.njit(nogil=True, fastmath=False, error_model="numpy", forceinline=True)(function)
    enable_cache(compiled)
    return cast(_Function, compiled)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, index: Any, offset: Any, write: Any) -> Any:
    """Ask for the cache line ``offset`` bytes behind the begin of ``array[index]``; changes nothing else.

    ``index`` and ``offset`` are of unsigned types; ``write``, a literal: 1 for what will be written to, too.
    For what is visited in an order which the processor can't guess, or soon.
    """
    unsigned = all(isinstance(number, types.Integer) and not number.signed for number in (index, offset))
    if not isinstance(write, types.IntegerLiteral):
        raise numba.errors.RequireLiteralValue("write must be 0 or 1")
    purpose = write.literal_value
    if not isinstance(array, types.Array) or not unsigned:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type, offset_type, _ = signature.args
        values = context.make_array(array_type)(context, builder, arguments[0])
        at = context.cast(builder, arguments[1], index_type, types.uintp)
        behind = context.cast(builder, arguments[2], offset_type, types.uintp)
        place = cgutils.get_item_pointer(context, builder, array_type, values, [at], wraparound=False)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        line = builder.gep(builder.bitcast(place, byte), [behind])
        builder.call(function, [line, word(purpose), word(3), word(1)])  # keep in all caches; data
        return context.get_dummy_value()

    return types.void(array, index, offset, write), generate


@intrinsic  # type: ignore[untyped-decorator]
def _add(typing_context: Any, counters: Any, at: Any, number: Any) -> Any:
    """Add to ``counters[at]``, whatever other threads do to it meanwhile, and return what it was."""
    if not isinstance(counters, types.Array) or counters.dtype != types.int64:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = cgutils.get_item_pointer(
            context, builder, signature.args[0], values, [arguments[1]], wraparound=False
        )
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(counters, types.intp, types.int64), generate


@njit
def next_part(counters: NDArray[np.int64], thread: int, parts: int) -> int:
    """The next of a number of parts for a thread to do, or -1; see :func:`take_turns`.

    Each thread has a share, which it takes first, and so from call to call: that finds its data in its
    cache. Then it takes of the others' shares. Asking marks the part before as done. Thread 0 gets -1
    when all parts are done, or, if that takes long, so that it may look what has become of the others.
    """
    threads = len(counters) // _APART - 1
    done = threads * _APART
    before = thread * _APART + 1
    _add(counters, done, counters[before])
    counters[before] = 0
    for ahead in range(threads):
        share = (thread + ahead) % threads
        part = parts * share // threads + _add(counters, share * _APART, 1)
        if part < parts * (share + 1) // threads:
            counters[before] = 1
            return int(part)
    if thread == 0:
        for _ in range(_PATIENCE):
            if _add(counters, done, 0) >= parts:
                break
    else:
        for _ in range(_COURTESY):
            _add(counters, before, 0)
    return -1


def take_turns(kernel: Callable[[NDArray[np.int64], int], object], parts: int) -> None:
    """Call ``kernel(counters, thread)`` in ``THREADS`` threads, which share parts out by :func:`next_part`.

    A thread that is late, or slower, takes fewer of them; so none is waited for when all parts are done.
    Where there are few parts, fewer threads. What the kernel does to a part must not depend on who takes it.
    """
    threads = max(min(THREADS, parts // _LEAST_PARTS), 1)
    counters = np.zeros((threads + 1) * _APART, np.int64)
    replies: _Replies = SimpleQueue()
    for thread in range(1, threads):
        _inbox(thread).put((kernel, (counters, thread), replies))
    kernel(counters, 0)
    if counters[threads * _APART] < parts:
        for _ in range(1, threads):
            _result(replies)


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
    waiting: list[_Replies] = []
    for thread, part in enumerate(pairwise(edges[1:])):
        waiting.append(SimpleQueue())
        _inbox(thread + 1).put((kernel, part, waiting[-1]))
    results = [kernel(0, edges[1]), *(_result(replies) for replies in waiting)]
    return list(zip(edges[:-1], results, strict=True))


_Replies = SimpleQueue[tuple[Any, BaseException | None]]
_Tasks = SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], _Replies]]


@cache
def _inbox(thread: int) -> _Tasks:
    """Task queue of a thread, which is started at the first call.

    A ThreadPoolExecutor takes some 25 µs longer to start a task, which shows in the ticks of large fleets.
    """
    inbox: _Tasks = SimpleQueue()
    Thread(target=_work, args=(inbox,), name=f"evgrid-kernel-{thread}", daemon=True).start()
    return inbox


def _work(inbox: _Tasks) -> None:
    while True:
        function, arguments, replies = inbox.get()
        try:
            replies.put((function(*arguments), None))
        except BaseException as error:  # whatever it is, whoever asked is to have it
            replies.put((None, error))
        del function, arguments, replies  # and what they hold


def _result(replies: _Replies) -> Any:
    result, error = replies.get()
    if error is not None:
        raise error
    return result


os.register_at_fork(after_in_child=_inbox.cache_clear)  # threads don't cross a fork
