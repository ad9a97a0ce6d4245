"""Exchange of values over HELICS in every tick, through its C interface and without copies in Python.

Vectors are sent directly from a model's array and received in a buffer that is reused each tick;
messages carry the same doubles as raw bytes. On the wire a vector keeps HELICS' standard double
vector type, so that any other federate can read it. This is the only module that touches
``helics.capi``: pyhelics' own functions build Python lists (405 microseconds for 10,000 doubles).

Registering ports, starting and ending belong to ``adapter`` and ``runtime``. Arrays handed in
must be C-contiguous float64; the adapter checks that.
"""

from __future__ import annotations

import atexit
import ctypes
import json
from collections.abc import Callable, Sequence
from time import sleep
from typing import Any

import helics as h
import numpy as np
from helics.capi import ffi, loadSym

from evgrid.core.model import Array

ERROR_CODE = -1
"""Code of every global error that evgrid raises; the reason is in its text."""

_PATIENCE_MS = 5000
_CONNECT_TRIES, _CONNECT_PAUSE_S = 200, 5e-4

NEVER = float(h.HELICS_TIME_MAXTIME)
"""The end of HELICS' time."""

_on_next_time = loadSym("helicsCallbackFederateNextTimeCallback")
_publish_vector = loadSym("helicsPublicationPublishVector")
_input_is_updated = loadSym("helicsInputIsUpdated")
_input_get_vector = loadSym("helicsInputGetVector")
_send_bytes = loadSym("helicsEndpointSendBytes")
_has_message = loadSym("helicsEndpointHasMessage")
_get_message = loadSym("helicsEndpointGetMessage")
_message_byte_count = loadSym("helicsMessageGetByteCount")
_message_bytes = loadSym("helicsMessageGetBytesPointer")
_message_free = loadSym("helicsMessageFree")
_core_global_error = loadSym("helicsCoreGlobalError")
_broker_global_error = loadSym("helicsBrokerGlobalError")
_query_broker = loadSym("helicsQueryBrokerExecute")
_query_core = loadSym("helicsQueryCoreExecute")
_federate_add_dependency = loadSym("helicsFederateAddDependency")
_federate_disconnect = loadSym("helicsFederateDisconnect")
_federate_free = loadSym("helicsFederateFree")
_core_disconnect = loadSym("helicsCoreDisconnect")
_core_wait = loadSym("helicsCoreWaitForDisconnect")
_core_free = loadSym("helicsCoreFree")
_broker_disconnect = loadSym("helicsBrokerDisconnect")
_broker_wait = loadSym("helicsBrokerWaitForDisconnect")
_broker_free = loadSym("helicsBrokerFree")
_left_behind: list[Any] = []
"""What HELICS' threads may still use; see :func:`leave_behind`."""

_from_buffer = ffi.from_buffer
_DOUBLES = ffi.typeof("double[]")

Send = Callable[[Array], None]
Receive = Callable[[], bool]


def _new_error() -> Any:
    return ffi.new("HelicsError *")


def _raise(error: Any) -> None:
    """Raise an error reported by HELICS, and reset ``error``."""
    code, text = error.error_code, ffi.string(error.message).decode(errors="replace")
    error.error_code = 0
    raise h.HelicsException(f"[{code}] {text}")


def on_grant(federate: Any, granted: Callable[[float], float]) -> Any:
    """Have ``granted`` called with each time that HELICS grants to a callback federate.

    Its result is the next time to request, ``NEVER`` to leave the federation. It is called in
    the core's own thread and must not raise. Returns an object to be kept alive as long as the federate.
    """

    @ffi.callback("HelicsTime(HelicsTime, void *)", error=NEVER)  # type: ignore[untyped-decorator]
    def call(time_s: float, _: Any) -> float:
        return granted(time_s)

    error = _new_error()
    _on_next_time(federate.handle, call, ffi.NULL, error)
    if error.error_code:
        _raise(error)
    return call


def value_sender(publication: Any) -> Send:
    """Publishes a vector, whatever the array's shape, in C order."""
    handle, error = publication.handle, _new_error()

    def send(values: Array) -> None:
        _publish_vector(handle, _from_buffer(_DOUBLES, values), values.size, error)
        if error.error_code:
            _raise(error)

    return send


def value_receiver(source: Any, length: int) -> tuple[Array, Receive]:
    """Copies values of an input into a buffer, (length,), which is returned with it.

    The receiver returns False if there is nothing new. It raises ValueError if the vector's length
    is not that of the buffer.
    """
    handle, error = source.handle, _new_error()
    room = np.empty(length + 1)  # one more than is expected, so that too long a vector shows
    pointer, capacity = _from_buffer(_DOUBLES, room, True), length + 1
    size = ffi.new("int *")

    def receive() -> bool:
        if not _input_is_updated(handle):
            return False
        _input_get_vector(handle, pointer, capacity, size, error)
        if error.error_code:
            _raise(error)
        if size[0] != length:
            found = str(size[0]) if size[0] < length else f"more than {length}"
            raise ValueError(f"{found} values arrived where {length} belong")
        return True

    return room[:length], receive


def message_sender(endpoint: Any) -> Send:
    """Sends a vector as raw bytes from a targeted endpoint, in C order and the machine's byte order."""
    handle, error = endpoint.handle, _new_error()

    def send(values: Array) -> None:
        _send_bytes(handle, _from_buffer(values), values.nbytes, error)
        if error.error_code:
            _raise(error)

    return send


def message_receiver(endpoint: Any, length: int) -> tuple[Array, Receive]:
    """Copies the newest message that has arrived into a buffer, (length,), returned with it.

    Older messages are dropped; HELICS hands them over in the order of their time. The receiver
    returns False if none has arrived. It raises ValueError if the newest one's length is not that
    of the buffer.
    """
    handle, buffer = endpoint.handle, np.empty(length)
    pointer = _from_buffer(buffer, require_writable=True)

    def receive() -> bool:
        if not _has_message(handle):
            return False
        message = _get_message(handle)
        while _has_message(handle):
            _message_free(message)
            message = _get_message(handle)
        try:
            size = _message_byte_count(message)
            if size != buffer.nbytes:
                raise ValueError(f"a message of {size} bytes arrived where {buffer.nbytes} belong")
            ffi.memmove(pointer, _message_bytes(message), size)
        finally:
            _message_free(message)
        return True

    return buffer, receive


def connect(core: Any) -> None:
    """Connect a core to its broker, and wait until the broker knows it, a moment at most.

    Otherwise HELICS 3.6.1 connects when the first federate is created, and sleeps 100 ms meanwhile. Raises
    HelicsException if it can't connect.
    """
    h.helicsCoreConnect(core)
    for _ in range(_CONNECT_TRIES):
        state = _answer(_query_core, core, "core", "global_state") or {}
        if state.get("attributes", {}).get("id") != 0:  # which the broker gives
            return
        sleep(_CONNECT_PAUSE_S)


def core_global_error(core: Any, text: str) -> None:
    """End everything that runs on a core, from any thread; never raises.

    (pyhelics' function of this purpose passes a str where C wants bytes.)
    """
    _core_global_error(core.handle, ERROR_CODE, text.encode(), _new_error())


def broker_global_error(broker: Any, text: str) -> None:
    """End everything that runs under a broker; never raises."""
    _broker_global_error(broker.handle, ERROR_CODE, text.encode(), _new_error())


def ask_broker(broker: Any, target: str, about: str) -> Any:
    """The answer to a query as JSON; None where there is none. Waits for it, if need be HELICS' 15 s."""
    return _answer(_query_broker, broker, target, about)


def _answer(ask: Any, asked: Any, target: str, about: str) -> Any:
    query, error = h.helicsCreateQuery(target, about), _new_error()
    try:
        answer = ask(query.handle, asked.handle, error)
        return None if error.error_code else json.loads(ffi.string(answer).decode())
    except ValueError:  # pyhelics' function of this purpose prints a warning
        return None
    finally:
        h.helicsQueryFree(query)


def add_dependency(federate: Any, other: str) -> None:
    """Let no time be granted to ``federate`` that federate ``other`` has yet to pass."""
    error = _new_error()
    _federate_add_dependency(federate.handle, other.encode(), error)
    if error.error_code:
        _raise(error)


def end(federates: Sequence[Any], core: Any, broker: Any) -> None:
    """Disconnect federates, core and broker, then free them; None for those never created.

    Nothing is freed before the core's thread has ended, for it may still be in a federate.
    """
    error = _new_error()  # that something has ended already is no error here
    for federate in federates:
        _federate_disconnect(federate.handle, error)
        error.error_code = 0
    if core is not None:
        _core_disconnect(core.handle, error)
        error.error_code = 0
        _core_wait(core.handle, _PATIENCE_MS, error)
        error.error_code = 0
    if broker is not None:
        _broker_disconnect(broker.handle, error)
        error.error_code = 0
        _broker_wait(broker.handle, _PATIENCE_MS, error)
    _forget(federates, core, broker)
    for federate in federates:
        _federate_free(federate.handle)
    if core is not None:
        _core_free(core.handle)
    if broker is not None:
        _broker_free(broker.handle)


def leave_behind(federates: Sequence[Any], core: Any, broker: Any, *callbacks: Any) -> None:
    """Leave federates, core and broker open until the process ends, with the callbacks that they may call.

    At exit both pyhelics and the destructors of HELICS' library would wait for them, possibly without end.
    The first is disabled. The second are passed over: once Python is finalized, the process ends at once,
    with its exit code. This takes ``on_exit`` of the C library, which Linux has and macOS has not.
    """
    _left_behind.append((federates, core, broker, callbacks))
    _forget(federates, core, broker)
    atexit.unregister(h.helicsCloseLibrary)
    c_library = ctypes.CDLL(None)
    if hasattr(c_library, "on_exit"):
        c_library.on_exit(ctypes.cast(c_library._exit, ctypes.c_void_p), None)


def _forget(*owners: Any) -> None:
    """Take HELICS' objects from pyhelics' own clean-up, which would free them a second time."""
    for owner in owners:
        if isinstance(owner, Sequence):
            _forget(*owner)
        elif owner is not None:
            owner._finalizer.detach()


def break_off(thread: int, reason: type[BaseException]) -> None:
    """Have a thread of this interpreter raise ``reason`` at its next line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(reason))
