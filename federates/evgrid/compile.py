"""How kernels are compiled: numba's options, once.

- ``cache``: the second start of evgrid doesn't compile.
- ``nogil``: other federates of the process run meanwhile.
- ``fastmath`` is off: results don't depend on the CPU, and NaN and infinity mean what they mean.
- ``error_model="numpy"``: a division by zero gives infinity, as in numpy, and costs no test.
- ``parallel`` is off: sums have one order, and federates may call kernels from several threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def njit(function: _Function) -> _Function:
    """Compile a function of arrays and numbers to machine code at its first call."""
    compiled = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return cast(_Function, compiled)
