"""The host of a federation of several programs: HELICS' broker, and the watch over who lives and who failed.

In: the places of all federates, which of them are evgrid's in other processes (``members``) and which are
other programs (``external``). The host listens at two ports for HELICS and at the next one for evgrid's own
processes (:mod:`.control`); the broker gives the following ports to those that join. Before the first step
the host compares what each external federate has registered with what :mod:`.wiring` says of its place. A
HELICS federate of its own, ``evgrid.host``, without ports, holds the others in HELICS' initialisation until
that is done.

What is noticed, and when: a failure that a process reports, and its end, at once; a process that is stopped,
within SILENT_S; an external federate that left, within a second; one that was killed or stopped, when it
has not answered a question for SILENT_S.
"""

from __future__ import annotations

import contextlib
import logging
import re
import selectors
import socket
import threading
import uuid
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

import helics as h
import numpy as np
import psutil
from helics.capi import ffi

from evgrid.core.model import Clock
from evgrid.core.temporary import temporary_folder
from evgrid.errors import RunError
from evgrid.federation.adapter import Adapter
from evgrid.federation.control import PORTS, Link, check_free
from evgrid.federation.helics_io import ask_broker, broker_global_error, end, leave_behind
from evgrid.federation.pace import behind_text
from evgrid.federation.registration import registration_faults
from evgrid.federation.runtime import JOINING, Limits
from evgrid.federation.wiring import Place
from evgrid.scenario.federation import CORE_TYPE

SILENT_S = 4.0
"""Longest time without a sign of life of a process that does not run, or runs on another machine, s."""

NOTICE_S = 4.0
"""Time without progress after which the federate that all wait for is named, s."""

NAME = "evgrid.host"
"""Name of the host's own HELICS federate."""

_logger = logging.getLogger("evgrid")
_HEARTBEAT = "1s"
_LOOK_S = 0.4
_LEAVE_S = 5.0
_PATIENCE_S = 3.0
_FAILED_S = 1.0
_ERRORS = int(h.HELICS_LOG_LEVEL_ERROR)


@dataclass(slots=True)
class Member:
    """A process of evgrid that runs one federate.

    file : receives its part of the result, complete with ``report``
    """

    name: str
    link: Link
    pid: int
    machine: str
    file: IO[bytes]
    heard: float = field(default_factory=monotonic)
    phase: str = "preparing"
    time_s: float = 0.0
    done_s: float = 0.0
    stepping_s: float = 0.0
    report: dict[str, Any] | None = None

    @property
    def part(self) -> Path:
        """File of its part of the result."""
        return Path(self.file.name)


class Host:
    """Host of a federation; see the module. Use as a context: leaving it ends everything that it began.

    digest : of the scenario; a process with another one is refused
    wait_s : time within which all must have joined
    preparing_s : time within which the members must have joined, before wait_s begins; 0: no other than it
    step_limit_s : longest time of an external federate's step; from the environment where not given

    Raises EvgridError if the ports can't be used.
    """

    def __init__(
        self,
        places: Sequence[Place],
        sizes: Mapping[str, int],
        clock: Clock,
        address: tuple[str, int],
        *,
        members: Collection[str] = (),
        external: Collection[str] = (),
        digest: str = "",
        wait_s: float = 60.0,
        preparing_s: float = 0.0,
        step_limit_s: float | None = None,
    ) -> None:
        self.host, self.port = address
        self.members: dict[str, Member] = {}
        self._places = {place.model.name: place for place in places}
        self._sizes, self._clock = dict(sizes), clock
        self._expected, self._external = frozenset(members), frozenset(external)
        self._digest, self._wait_s, self._preparing_s = digest, wait_s, preparing_s
        self._step_limit_s = step_limit_s or Limits.from_environment().step_s
        self._began = self._stood_since = self._waits_since = monotonic()
        self._noticed = False
        self._looked = 0.0
        self._joined = self._started = self._left = False
        self._done_s = 0.0
        self._states: dict[str, str] = {}
        self._cores: dict[str, list[str]] = {}
        self._log: deque[str] = deque(maxlen=100)
        self._answered: dict[str, float] = {}
        self._granted_s: dict[str, float] = {}
        self._requested_s: dict[str, float] = {}
        self._closing = threading.Event()
        self._asking = threading.Thread(target=self._ask, name="evgrid-ask", daemon=True)
        self._folder = temporary_folder()
        self._selector = selectors.DefaultSelector()
        self._broker = self._core = self._federate = self._logged = None
        for number in range(self.port, self.port + PORTS + 1 + len(places)):
            check_free(self.host, number)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port + PORTS - 1), family=family)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        key = uuid.uuid4().hex
        # one clock at the broker: each federate's own agreement with all others takes many more messages
        count = f"--federates={len(self._places) + 1} --port={self.port} --localinterface={self.host}"
        count += f" --portstart={self.port + PORTS}"
        try:
            self._broker = h.helicsCreateBroker(
                CORE_TYPE,
                f"evgrid-broker-{key}",
                f"{count} --tick={_HEARTBEAT} --loglevel=error --globaltime",
            )
            self._logged = _log_callback(self._log)
            h.helicsBrokerSetLoggingCallback(self._broker, self._logged, ffi.NULL)
            core = f"evgrid-host-{key}"
            joined = f"--broker={self.host} --brokerport={self.port}"
            joined += f" --loglevel=no_print --slowresponding --networktimeout={JOINING}"
            self._core = h.helicsCreateCore(CORE_TYPE, core, f"--federates=1 {joined}")
            info = h.helicsCreateFederateInfo()
            h.helicsFederateInfoSetCoreName(info, core)
            h.helicsFederateInfoSetCoreType(info, h.HELICS_CORE_TYPE_ZMQ)
            h.helicsFederateInfoSetIntegerProperty(
                info, h.HELICS_PROPERTY_INT_LOG_LEVEL, h.HELICS_LOG_LEVEL_NO_PRINT
            )
            self._federate = h.helicsCreateValueFederate(NAME, info)
            h.helicsFederateEnterInitializingModeAsync(self._federate)
        except h.HelicsException as error:
            raise RunError(
                f"HELICS' broker could not start at tcp://{self.host}:{self.port}: {error}"
            ) from error

    # -- the watch ------------------------------------------------------------------------------

    def watch(self, adapters: Sequence[Adapter] = ()) -> None:
        """Look at everything once. Raises RunError with the first cause when something has failed.

        ``adapters`` are the federates of the host's own process; see :class:`.runtime.Elsewhere`.
        """
        own_s = min((adapter.time_s for adapter in adapters), default=None)
        theirs_s = [member.time_s for member in self.members.values()]
        done_s = min([*theirs_s, *([] if own_s is None else [own_s])], default=0.0)
        if done_s != self._done_s or not self._joined:
            self._done_s, self._stood_since, self._noticed = done_s, monotonic(), False
        self._read()
        now = monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        for member in self.members.values():
            self._check_alive(member)
        self._check_log()
        self._look_at_helics()
        if not self._joined:
            self._check_joined()
        else:
            if self._states.get(NAME) in _GONE and not self._left:
                self._check_log()  # which knows of other reasons
                raise self._disturbed()
            if not self._started and h.helicsFederateIsAsyncOperationCompleted(self._federate):
                self._start()
            self._check_stalled()
            self._check_external(all(a.progress.phase == "ended" for a in adapters) if adapters else None)

    def ended(self) -> bool:
        """Whether all of evgrid's federates have made their last step; they then may leave."""
        if not self._left and self._joined and all(self._has_ended(name) for name in self._expected):
            self._left = True
            for member in self.members.values():
                with contextlib.suppress(OSError):
                    member.link.send(leave=True)
        return self._left

    def failed(self, reason: str) -> None:
        """End the federation: every process and program is told the reason."""
        for member in self.members.values():
            with contextlib.suppress(OSError):
                member.link.send(stop=reason)
        broker_global_error(self._broker, reason)

    def behind(self, speed: float, time_s: float, late_s: float, stepping_s: Mapping[str, float]) -> None:
        """See :class:`.runtime.Elsewhere`."""
        known = {member.name: member.stepping_s for member in self.members.values()} | dict(stepping_s)
        _logger.warning(behind_text(self._clock, speed, time_s, late_s, known))

    @property
    def delivered(self) -> bool:
        """Whether the parts of all processes have arrived."""
        return all(name in self.members and self.members[name].report is not None for name in self._expected)

    @property
    def done_s(self) -> float:
        """Simulated time that all processes have done."""
        if self.members.keys() < self._expected:
            return 0.0
        return min((member.done_s for member in self.members.values()), default=0.0)

    def close(self) -> None:
        """End what was opened; waits a moment for external federates to leave by themselves."""
        for member in self.members.values():
            member.link.close()
            member.file.close()
        self._selector.close()
        self._listener.close()
        self._folder.cleanup()
        # HELICS waits for a federate that is still joining without limit; so it waits in another thread
        ending = threading.Thread(target=self._end, name="evgrid-host-end", daemon=True)
        ending.start()
        ending.join(_LEAVE_S + _PATIENCE_S if self._left else _FAILED_S)
        # to free a federate that waits for a time would end the process, where that has failed
        leave_behind([self._federate], self._core, self._broker, self._logged)

    def _end(self) -> None:
        if self._left:
            until = monotonic() + _LEAVE_S
            while monotonic() < until and not all(map(self._has_finished, self._external)):
                sleep(_LOOK_S / 8)
                self._look_at_helics()
        self._closing.set()
        if self._asking.is_alive():  # what it asks through must not be freed
            self._asking.join()
        end([], self._core, self._broker)

    def _has_finished(self, name: str) -> bool:
        """Whether an external federate has made its last step: it has left, or asks for a later time."""
        last_s = self._clock.duration_s - self._places[name].model.period_s + self._places[name].offset_s
        return self._states.get(name) in _GONE or self._requested_s.get(name, 0.0) > last_s + 1e-9

    # -- evgrid's processes ---------------------------------------------------------------------

    def _read(self) -> None:
        """Take what has arrived, and wait for it a little."""
        for key, _ in self._selector.select(0.02):
            if key.fileobj is self._listener:
                with contextlib.suppress(OSError):
                    connection, _address = self._listener.accept()
                    connection.settimeout(10.0)
                    link = Link(connection)
                    self._selector.register(link, selectors.EVENT_READ, None)
                continue
            link = key.fileobj  # type: ignore[assignment]
            try:
                for message in link.receive():
                    self._take(link, message)
            except (EOFError, ValueError, TypeError, KeyError):
                self._lose(link)

    def _take(self, link: Link, message: dict[str, Any] | bytes) -> None:
        member = next((member for member in self.members.values() if member.link is link), None)
        if member is None:
            if isinstance(message, bytes):
                raise ValueError("no message of evgrid")
            self._greet(link, message)
            return
        member.heard = monotonic()
        if isinstance(message, bytes):
            member.file.write(message)
            return
        if "failed" in message:
            raise RunError(str(message["failed"]))
        if "part" in message:
            member.file.flush()
            if member.file.tell() != int(message["part"]):
                raise RunError(f"{member.name}: its part of the result arrived incomplete")
            member.report, member.phase = dict(message["report"]), "ended"
        elif "phase" in message:
            member.phase = str(message["phase"])
            member.time_s = float(message.get("time_s", 0.0))
            member.done_s = float(message.get("done_s", 0.0))
            member.stepping_s = float(message.get("stepping_s", 0.0))
        elif "behind" in message:
            speed, time_s, late_s = map(float, message["behind"])
            self.behind(speed, time_s, late_s, {str(k): float(v) for k, v in message["stepping_s"].items()})

    def _greet(self, link: Link, message: dict[str, Any]) -> None:
        name = message["hello"]
        if not isinstance(name, str):
            raise ValueError("no message of evgrid")
        refused = ""
        if name not in self._expected:
            refused = f"{name}: this run awaits {_listed(self._expected)}"
            if name in self._external:
                refused = f"{name}: is external in this run (federation.external)"
        elif name in self.members:
            there = self.members[name]
            refused = f"{name}: another process has this name already ({there.pid} on {there.machine})"
        elif message["digest"] != self._digest:
            refused = f"{name}: its scenario, or version of evgrid, is not that of the broker"
        if refused:
            with contextlib.suppress(OSError):
                link.send(refused=refused)
            self._lose(link)
            return
        file = (Path(self._folder.name) / f"{name}.nc").open("wb")  # closed with the host
        self.members[name] = Member(name, link, int(message["pid"]), str(message["machine"]), file)
        link.send(welcome=True)

    def _lose(self, link: Link) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link)
        link.close()
        member = next((member for member in self.members.values() if member.link is link), None)
        if member is not None and member.report is None:
            raise RunError(
                f"{member.name} failed at {self._about(member.time_s)}: its process ({member.pid}) ended"
            )

    def _has_ended(self, name: str) -> bool:
        return name in self.members and self.members[name].phase == "ended"

    def _check_alive(self, member: Member) -> None:
        silent = monotonic() - member.heard
        if silent < SILENT_S or member.report is not None or self._is_busy(member):
            return
        raise RunError(
            f"{member.name} stalled at {self._when(member.time_s)}: its process ({member.pid} on "
            f"{member.machine}) has given no sign of life for {silent:.1f} s"
        )

    def _is_busy(self, member: Member) -> bool:
        """Whether a silent process of this machine computes, which may keep it from giving signs of life."""
        if member.machine != socket.gethostname():
            return False
        try:
            return psutil.Process(member.pid).status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
        except psutil.Error:
            return False

    # -- HELICS ---------------------------------------------------------------------------------

    def _look_at_helics(self) -> None:
        """Update the state of each federate as the broker knows it."""
        state = ask_broker(self._broker, "root", "current_state")
        if not isinstance(state, dict) or "cores" not in state:
            return
        cores = {str(core["attributes"]["id"]): core for core in state["cores"]}
        self._cores = {core_id: [] for core_id in cores}
        for federate in state.get("federates", []):
            name, parent = federate["attributes"]["name"], str(federate["attributes"]["parent"])
            self._states[name] = federate["state"]
            self._cores.setdefault(parent, []).append(name)
            if cores.get(parent, {}).get("state") in _GONE:
                self._states[name] = "disconnected"

    def _check_log(self) -> None:
        """Raise RunError for an error that the broker has logged."""
        while self._log:
            text = self._log.popleft()
            lost = re.search(r"lost comms with (\d+)", text)
            if lost:
                names = [name for name in self._cores.get(lost[1], []) if name != NAME]
                who = _listed(names) if names else "a program that has joined"
                raise RunError(
                    f"{who} failed at {self._about(self._done_s)}: HELICS has lost contact with it; it was "
                    "killed, is stopped, or its machine is out of reach"
                )
            if "duplicate federate name" in text:
                raise RunError(
                    "two programs have joined with the name of one federate; each may be joined once"
                )
            if text.strip():
                who = f"{_listed(self._external)}, a program of its own," if self._external else "a federate"
                at_s = max(map(self._at, self._external), default=self._done_s)
                raise RunError(f"{who} failed at {self._about(at_s)}: {text.strip()}")

    def _check_joined(self) -> None:
        if h.helicsFederateIsAsyncOperationCompleted(self._federate):
            h.helicsFederateEnterInitializingModeComplete(self._federate)
            self._look_at_helics()
            missing = sorted(self._places.keys() - self._states.keys())
            if missing:
                strangers = self._states.keys() - self._places.keys() - {NAME}
                others = _listed(name for name in strangers if not name.endswith("_filters"))  # HELICS' own
                raise RunError(f"{_listed(missing)} has not joined; {others} has, which is none of this run")
            faults = [
                fault
                for name in sorted(self._external)
                for fault in registration_faults(self._broker, name, self._places, self._sizes)
            ]
            if faults:
                raise RunError("\n".join(faults))
            self._joined = True
            self._answered = dict.fromkeys(sorted(self._external), monotonic())
            if self._external:
                self._asking.start()
            h.helicsFederateEnterExecutingModeAsync(self._federate)
            return
        preparing = self._preparing_s > 0 and not self._expected <= self._states.keys()
        limit_s, since = self._wait_s, self._waits_since
        if preparing:
            self._waits_since = monotonic()
            limit_s, since = self._preparing_s, self._began
        if monotonic() - since > limit_s:
            missing = sorted(name for name in self._places if name not in self._states)
            late = sorted(
                name for name in self._places if self._states.get(name, "init_requested") != "init_requested"
            )
            who = _listed(missing or late) or "a program"
            what = "joined" if missing or not late else "entered HELICS' initialisation"
            limit = f"{limit_s:g} s" if preparing else f"{limit_s:g} s (federation.wait)"
            raise RunError(
                f"{who} has not {what} within {limit}: expected at tcp://{self.host}:{self.port}, core type "
                f"{CORE_TYPE}, under this name"
            )

    def _start(self) -> None:
        self._started = True
        try:
            h.helicsFederateEnterExecutingModeComplete(self._federate)
            h.helicsFederateRequestTimeAsync(self._federate, h.HELICS_TIME_MAXTIME)
        except h.HelicsException as error:
            self._check_log()
            raise self._disturbed() from error

    def _disturbed(self) -> RunError:
        """HELICS 3.6.1 disconnects the first federate, which is the host's, where it refuses a late core."""
        return RunError(
            f"the run failed at {self._when(self._done_s)}: a program has tried to join after the start; "
            "each must be started once, before it"
        )

    def _check_stalled(self) -> None:
        """Say who keeps the others waiting, and raise RunError when an external one does for too long."""
        stood_s = monotonic() - self._stood_since
        if stood_s < NOTICE_S:
            return
        busy = [
            name
            for name in sorted(self._external)
            if self._requested_s.get(name, np.inf) <= self._granted_s.get(name, 0.0) and not self._left
        ]
        if busy and stood_s > self._step_limit_s:
            limit = f"the limit is {self._step_limit_s:g} s (EVGRID_STEP_LIMIT_S)"
            raise RunError(
                f"{_listed(busy)}, a program of its own, stalled at {self._when(self._done_s)}: its step has "
                f"not returned for {stood_s:.3g} s; {limit}"
            )
        busy += [name for name, member in sorted(self.members.items()) if member.phase == "stepping"]
        if not busy:  # as in a run that keeps to wall time, between two ticks
            self._stood_since = monotonic()
        elif not self._noticed:
            self._noticed = True
            _logger.warning(
                "all wait for %s at %s since %.0f s", _listed(busy), self._when(self._done_s), stood_s
            )

    def _check_external(self, own_ended: bool | None) -> None:
        ended = all(map(self._has_ended, self._expected)) if own_ended is None else own_ended
        if ended or self._left:
            return
        for name in sorted(self._external):
            silent = monotonic() - self._answered[name]
            if silent > SILENT_S:
                raise RunError(
                    f"{name}, a program of its own, failed at {self._about(self._at(name))}: it has not "
                    f"answered for {silent:.1f} s; it was killed, is stopped, or its machine is out of reach"
                )
            if self._states.get(name) in _GONE:
                raise RunError(
                    f"{name}, a program of its own, failed at {self._about(self._at(name))}: it has left the "
                    "federation before its last step"
                )

    def _at(self, name: str) -> float:
        """Simulated time that an external federate has reached, as far as is known, s."""
        granted_s = self._granted_s.get(name, 0.0) - self._places[name].offset_s
        return max(granted_s, self._done_s, 0.0)

    def _ask(self) -> None:
        """Ask each external federate for its time, again and again; in a thread, as one may never answer."""
        while not self._closing.wait(_LOOK_S / 4):
            for name in sorted(self._external):
                found = ask_broker(self._broker, name, "current_time")
                self._answered[name] = monotonic()
                if isinstance(found, dict) and "granted_time" in found:
                    self._granted_s[name] = float(found["granted_time"])
                    self._requested_s[name] = float(found["requested_time"])

    def _when(self, time_s: float) -> str:
        return f"{self._clock.stamp(time_s)} ({time_s:.9g} s)"

    def _about(self, time_s: float) -> str:
        """A simulated time of which processes of their own have last told."""
        return f"{self._when(time_s)}{' or soon after' if self.members else ''}"


_GONE = ("disconnected", "error", "terminated")


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))


def _log_callback(lines: deque[str]) -> Any:
    """A callback for HELICS that keeps the text of errors; to be kept alive as long as the broker."""

    @ffi.callback("void(int, const char *, const char *, void *)")  # type: ignore[untyped-decorator]
    def log(level: int, _: Any, message: Any, __: Any) -> None:
        text = ffi.string(message).decode(errors="replace")
        if level <= _ERRORS and text != "logging callback activated":
            lines.append(text)

    return log
