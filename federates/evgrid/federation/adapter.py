"""One generic federate: makes a HELICS federate of any model.

In: a model with its place in the federation. The adapter registers its ports with their
units, moves the vectors, keeps the clock and checks the model's outputs. It is independent of
threads, brokers and the other models: it gets the name of a core, and ``advance`` processes one
grant of HELICS after the other.

Time: at tick k a federate is granted k ticks plus its offset; the model gets k ticks. A time
request asks for half an offset less and HELICS rounds it up to the federate's grid: a double
holds whole nanoseconds only up to 104 days, and a request that rounding has put just above the
grid is granted a whole period late.

Iteration: two federates whose models iterate with each other have one offset, and take turns inside the
tick: the leader at the offset, the other one a moment (``Place.turn_s``) later, the leader after another,
and so on. At its first turn a model steps; at each later one it repeats the step if the other one has sent
something since, and else is done with the tick. So HELICS only orders times, as between all federates, and
the turns depend on what the models give only. (HELICS' own iteration of a time may have it once more, and
delivers values in one iteration or the next, as threads and processes happen to run.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from time import monotonic, perf_counter
from types import MappingProxyType
from typing import Any, Literal

import helics as h
import numpy as np

from evgrid.core.model import Array, Clock, Values
from evgrid.core.ports import Port, port
from evgrid.errors import EvgridError
from evgrid.federation.helics_io import (
    NEVER,
    Receive,
    Send,
    add_dependency,
    message_receiver,
    message_sender,
    on_grant,
    value_receiver,
    value_sender,
)
from evgrid.federation.wiring import MOST_AGAIN, Place, delay_of

_TICKS_IN_A_GRANT = 16
"""Most ticks between two grants of a federate.

While a federate waits, HELICS processes all messages that have arrived for it at each new one: with one
grant a step, its time grew with the square of the period of a slow federate.
"""

_SILENT = int(h.HELICS_LOG_LEVEL_NO_PRINT)
_SHORT = 4096
_FLOAT64 = np.dtype(np.float64)


class Stopped(Exception):
    """The run is being ended by another federate or the caller."""


class ExternalFault(EvgridError):
    """A fault of a federate that is another program's; ``federate`` is its name."""

    def __init__(self, federate: str, text: str) -> None:
        self.federate = federate
        super().__init__(text)


@dataclass(slots=True)
class Progress:
    """Progress of a federate, for observers in other threads.

    phase : ``starting`` until HELICS starts the run, then ``stepping`` or ``waiting``,
        ``finishing`` in the model's ``finish``, at last ``ended``: the end marker
    step : number of the step under way, or of the next one while waiting
    since : ``time.monotonic`` at the last change of phase
    """

    phase: Literal["starting", "waiting", "stepping", "finishing", "ended"] = "starting"
    step: int = 0
    since: float = field(default_factory=monotonic)
    stepping_s: float = 0.0
    finishing_s: float = 0.0


@dataclass(slots=True)
class _Output:
    port: Port
    shape: tuple[int, ...]
    send: Send | None


@dataclass(slots=True)
class _FromOutside:
    """A port whose giver is another program: it is due once in each of the giver's periods.

    delay_ns : from the giver's step to its arrival here, besides offsets, ns
    arrived : whether values have arrived since the last check
    """

    port: Port
    giver: Place
    delay_ns: int
    values: Array
    arrived: bool = False

    def given_by(self, time_ns: int) -> int:
        """Number of times that it is due to have arrived by a time."""
        since = time_ns - round(self.giver.offset_s * 1e9) - self.delay_ns
        return max(since // self.period_ns + 1, 0)

    @property
    def period_ns(self) -> int:
        return round(self.giver.model.period_s * 1e9)

    def check(self, before_ns: int, now_ns: int) -> None:
        """Raise ExternalFault unless it has come as due between two steps, without NaN."""
        arrived, self.arrived = self.arrived, False
        giver = self.giver.model.name
        due = self.given_by(now_ns) > self.given_by(before_ns)
        if arrived and _has_nan(self.values):
            raise ExternalFault(giver, _first_nan(self.port, self.values))
        first = arrived and before_ns < 0  # given before the run starts
        if arrived == due or first:
            return
        what = "was not given, where it is due" if due else "was given, where it is not due"
        period_s, offset_s = self.giver.model.period_s, self.giver.offset_s
        raise ExternalFault(
            giver, f"{self.port.name} {what}: it is due every {period_s:g} s from {offset_s:g} s on"
        )


class Adapter:
    """A HELICS federate around one model.

    Creating it registers its ports; when all federates of a run have been created, call
    ``wait_for_others`` and then ``start`` of each. From then on only ``advance`` touches HELICS.
    ``outside`` are the places of federates that are other programs, by name.
    """

    def __init__(
        self,
        place: Place,
        sizes: Mapping[str, int],
        clock: Clock,
        core_name: str,
        message_delay_s: Mapping[str, float] | float = 0.0,
        core_type: int = int(h.HELICS_CORE_TYPE_INPROC),
        outside: Mapping[str, Place] = MappingProxyType({}),
    ) -> None:
        self.model = place.model
        self.name = place.model.name
        self.steps = place.steps
        self.progress = Progress()
        self._stride = place.stride
        self._grants = grants_in(place.stride)
        """Grants in a period of the model; it steps at the first."""
        self._grant = 0
        """Number of the next grant, of all."""
        self._waits_for = place.waits_for
        self._tick_s = clock.step_s
        self._tick_ns = round(clock.step_s * 1e9)
        self._offset_s = place.offset_s
        self._again_on, self._leads = place.again_on, place.leads
        self._meets, self._turn_s = place.meets, place.turn_s
        self._again = 0
        """Number of the next repetition of the step under way; 0 before its first call."""
        self.hold: Callable[[float], bool] | None = None
        """Called before each step with its simulated time: waits until it is due, and returns whether it is
        to be made; see :class:`.pace.Pace`."""
        self._kept: Any = None
        self.federate = self._create(core_name, core_type)
        self._outputs = {
            name: self._register_output(port(name), dict(sizes), name in place.taken)
            for name in self.model.outputs
        }
        self._receivers: list[tuple[str, Receive]] = []
        self._outside = outside
        self._from_outside: dict[str, _FromOutside] = {}
        self._checked_ns = -1
        """Time of the last step before which ports from outside were checked."""
        self._inputs: Values = MappingProxyType(
            {
                name: self._register_input(port(name), dict(sizes), delay_of(name, message_delay_s))
                for name in self.model.inputs
            }
        )

    # -- registration ------------------------------------------------------------------------

    def _create(self, core_name: str, core_type: int) -> Any:
        info = h.helicsCreateFederateInfo()
        h.helicsFederateInfoSetCoreName(info, core_name)
        h.helicsFederateInfoSetCoreType(info, core_type)
        period_s = self._turn_s or self._stride // self._grants * self._tick_ns / 1e9
        h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, period_s)
        h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_OFFSET, self._offset_s)
        h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
        h.helicsFederateInfoSetIntegerProperty(info, h.HELICS_PROPERTY_INT_LOG_LEVEL, _SILENT)
        return h.helicsCreateCallbackFederate(self.name, info)

    def _register_output(self, port: Port, sizes: dict[str, int], taken: bool) -> _Output:
        send: Send
        if port.transport == "value":
            send = value_sender(
                h.helicsFederateRegisterGlobalPublication(
                    self.federate, port.name, h.HELICS_DATA_TYPE_VECTOR, port.unit
                )
            )
        else:
            endpoint = h.helicsFederateRegisterGlobalTargetedEndpoint(self.federate, port.name, port.unit)
            send = message_sender(endpoint)
        sent = taken and port.length(sizes) > 0
        return _Output(port, port.array_shape(sizes), send if sent else None)

    def _register_input(self, port: Port, sizes: dict[str, int], delay_s: float) -> Array:
        length = port.length(sizes)
        if port.transport == "value":
            taken = h.helicsFederateRegisterInput(
                self.federate, f"{self.name}<-{port.name}", h.HELICS_DATA_TYPE_VECTOR, port.unit
            )
            h.helicsInputAddTarget(taken, port.name)
            values, receive = value_receiver(taken, length)
        else:
            name = f"{self.name}<-{port.name}"
            endpoint = h.helicsFederateRegisterGlobalTargetedEndpoint(self.federate, name, port.unit)
            h.helicsEndpointAddSourceTarget(endpoint, port.name)
            if delay_s > 0:
                # at the destination: a filter at the source loses callback federates' messages
                delay = h.helicsFederateRegisterFilter(
                    self.federate, h.HELICS_FILTER_TYPE_DELAY, f"{name}/delay"
                )
                h.helicsFilterSet(delay, "delay", delay_s)
                h.helicsFilterAddDestinationTarget(delay, name)
            values, receive = message_receiver(endpoint, length)
        values[:] = port.initial
        if length:
            self._receivers.append((port.name, receive))
        view = values.reshape(port.array_shape(sizes))
        view.flags.writeable = False
        giver = self._outside.get(port.publisher)
        if giver is not None and length:
            self._from_outside[port.name] = _FromOutside(port, giver, round(delay_s * 1e9), view)
        return view

    # -- the run -------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Simulated time of the step under way, or of the next one."""
        return self.progress.step * self._stride * self._tick_s

    @property
    def done_s(self) -> float:
        """Simulated time that the model has completed."""
        whole = self.progress.phase in ("finishing", "ended")
        return (self.steps if whole else self.progress.step) * self._stride * self._tick_s

    def advance(self, granted_s: float, stopping: Callable[[], bool]) -> float:
        """Advance the model by the step of a HELICS grant.

        Returns the next time to request of HELICS. The first grant, as the run starts, has no step, nor have
        those between the steps of a slow model; the last grant is followed by the model's ``finish``.
        After it a time past the end is requested: HELICS 3.6.1 can forget to wake a callback federate
        when another one leaves, so that none must leave before all have ended. ``stopping`` is called
        when the model returns; if it is true, Stopped is raised and HELICS is not called. Other
        exceptions are not caught.
        """
        progress = self.progress
        if progress.phase == "starting":
            progress.since, progress.phase = monotonic(), "waiting"
            return self._request()
        self._check_grant(granted_s)
        if self._grant % self._grants == 0:
            if self._step(stopping):
                self._again += 1
                return self._request()
            progress.step, self._again = min(progress.step + 1, self.steps - 1), 0
        self._grant += 1
        return self._request() if self._grant < self.steps * self._grants else self._finish()

    def _step(self, stopping: Callable[[], bool]) -> bool:
        """Step the model, or repeat its step where it iterates; whether it may have to do so again."""
        if not self._again:
            if self.hold is not None and not self.hold(self.time_s):
                raise Stopped
            self._take(self._receivers)
            self._call(self.model.step, stopping)
            return bool(self._again_on) and self.progress.step % self._meets == 0
        if not self._take([each for each in self._receivers if each[0] in self._again_on]):
            return False
        if self._again >= MOST_AGAIN:
            raise EvgridError(f"was asked {MOST_AGAIN} times to repeat a step, without converging")
        self._call(self.model.again, stopping)
        return True

    def _call(self, step: Callable[[float, Values], Values], stopping: Callable[[], bool]) -> None:
        """Call the model's step, and send its outputs."""
        progress = self.progress
        if self._from_outside and step == self.model.step:
            now_ns = round(self._due_s(self._grant) * 1e9)
            for source in self._from_outside.values():
                source.check(self._checked_ns, now_ns)
            self._checked_ns = now_ns
        progress.since, progress.phase = monotonic(), "stepping"
        start = perf_counter()
        outputs = step(self.time_s, self._inputs)
        progress.stepping_s += perf_counter() - start
        if stopping():
            raise Stopped
        self._give(outputs)
        progress.since, progress.phase = monotonic(), "waiting"

    def _finish(self) -> float:
        progress = self.progress
        progress.since, progress.phase = monotonic(), "finishing"
        start = perf_counter()
        self.model.finish()
        progress.finishing_s = perf_counter() - start
        progress.since, progress.phase = monotonic(), "ended"
        return self._due_s(2 * self.steps * self._grants)

    def _request(self) -> float:
        return self._due_s(self._grant) - (self._turn_s or self._offset_s) / 2

    def _due_s(self, grant: int) -> float:
        turns = 2 * self._again + (0 if self._leads else 1)
        return (
            grant * (self._stride // self._grants) * self._tick_ns / 1e9
            + self._offset_s
            + turns * self._turn_s
        )

    def _check_grant(self, granted_s: float) -> None:
        due = self._due_s(self._grant)
        if abs(granted_s - due) > (self._turn_s or self._offset_s / 4):
            if granted_s >= NEVER - 1:
                raise EvgridError("HELICS ended the run before its time")
            raise EvgridError(f"HELICS granted {granted_s:.9g} s where {due:.9g} s was due")

    def _take(self, receivers: Sequence[tuple[str, Receive]]) -> bool:
        """Receive the values that have arrived; whether there are any."""
        fresh = False
        try:
            for name, receive in receivers:
                if receive():
                    fresh = True
                    if name in self._from_outside:
                        self._from_outside[name].arrived = True
        except ValueError as error:
            if name in self._from_outside:
                raise ExternalFault(port(name).publisher, f"{name}: {error}") from None
            raise EvgridError(f"{name}: {error}") from None
        return fresh

    def _give(self, outputs: Values) -> None:
        if not isinstance(outputs, Mapping):
            raise EvgridError(
                f"step returned {_kind(outputs)}; a mapping of port names to arrays is expected"
            )
        for name, values in outputs.items():
            output = self._outputs.get(name)
            if output is None:
                declared = ", ".join(self._outputs) or "nothing"
                raise EvgridError(f"step returned {name!r}; {self.name} declares {declared}")
            if not (
                isinstance(values, np.ndarray) and values.dtype == _FLOAT64 and values.shape == output.shape
            ):
                raise EvgridError(_misfit(output, values))
            if not values.flags.c_contiguous:
                values = np.ascontiguousarray(values)
            if name not in self.model.checked and _has_nan(values):
                raise EvgridError(_first_nan(output.port, values))
            if output.send is not None:
                output.send(values)

    # -- the start -------------------------------------------------------------------------------

    def wait_for_others(self) -> None:
        """Register the federates that this one waits for; once all federates have been created."""
        for other in self._waits_for:
            add_dependency(self.federate, other)

    def start(self, granted: Callable[[float], float]) -> None:
        """Join the federation, and have ``granted`` called with every time that HELICS grants.

        See ``wire.on_grant``; does not wait.
        """
        self._kept = on_grant(self.federate, granted)
        h.helicsFederateEnterInitializingMode(self.federate)


def grants_in(stride: int) -> int:
    """Number of grants in each period of a federate that steps every ``stride`` ticks."""
    ticks = next(ticks for ticks in range(min(_TICKS_IN_A_GRANT, stride), 0, -1) if stride % ticks == 0)
    return stride // ticks


def _has_nan(values: Array) -> bool:
    """Whether a C-contiguous array holds a NaN; infinities are none.

    A sum of squares is NaN only if one of them is; over short vectors that is the fastest way to
    see it, over long ones, which BLAS would share among threads, the minimum is.
    """
    if values.size <= _SHORT:
        return isnan(np.vdot(values, values))
    return isnan(np.minimum.reduce(values.ravel()))


def _kind(value: object) -> str:
    return type(value).__name__


def _misfit(output: _Output, values: object) -> str:
    """Fault of an output that is not the declared array."""
    dims = ", ".join(f"{dim} {size}" for dim, size in zip(output.port.shape, output.shape, strict=True))
    if not isinstance(values, np.ndarray):
        found = _kind(values)
    elif values.dtype != _FLOAT64:
        found = f"an array of {values.dtype}"
    else:
        found = f"an array of shape {values.shape}"
    return f"{output.port.name} is {found}; a float64 array of shape ({dims}) is expected"


def _first_nan(port: Port, values: Array) -> str:
    """Position of the first NaN of an output, and the number of NaN."""
    missing = np.isnan(values)
    first = np.unravel_index(int(np.argmax(missing)), values.shape)
    where = ", ".join(f"{dim} {index}" for dim, index in zip(port.shape, first, strict=True))
    count = int(np.count_nonzero(missing))
    return f"{port.name} is NaN at {where}" + (f" and {count - 1} more places" if count > 1 else "")
