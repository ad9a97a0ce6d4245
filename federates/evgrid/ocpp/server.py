"""The CSMS's connections: a websocket server in a thread of its own.

In: messages of stations; set-points of a tick, kW. Out: responses, charging profiles, and when a tick has
ended. What messages say is :mod:`.station_state`'s; who may connect, :mod:`.security`'s. Every message that
is sent or read is checked against the JSON schemas of the standard (:mod:`.schemas`).

In lockstep the stations' clock (identity ``evgrid-clock``) ends the ticks: it says that all messages of a
tick are answered, and is answered once all profiles of the next one are. Else the wall clock does.

What happens to connections:

- An unknown identity is refused (404), one that has not shown it (401), one that was cut off (403).
- A second connection of an identity replaces the first, which is closed: it is of a station that lost it.
- A station that doesn't answer a request, or doesn't read, within the time-out is disconnected; it may come
  back, but in lockstep is cut off the third time, as each holds up the run.
- Messages larger than the bound close the connection (1009). A station that sends too fast is read more
  slowly.
- A malformed message is answered by a CALLERROR; after several in a row, or for one that can't be true, the
  station is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from evgrid.errors import RunError
from evgrid.ocpp.books import Untrue
from evgrid.ocpp.messages import CLOCK_IDENTITY, TICK, VENDOR, Times, profile_to, setpoint_profile, watts
from evgrid.ocpp.schemas import (
    CALL,
    CALL_ERROR,
    CALL_RESULT,
    VERSIONS,
    MessageError,
    Payload,
    Version,
    fault,
    known,
    message_of,
    subprotocol,
    text_of,
)
from evgrid.ocpp.security import BURST, MALFORMED, MAX_MESSAGE_BYTES, MESSAGES_PER_S, SILENT, Security
from evgrid.ocpp.standing import TX_PROFILE_ID, StandingProfiles
from evgrid.ocpp.station_state import StationState

LOGGER = logging.getLogger("evgrid.ocpp")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Policy:
    """How the CSMS behaves.

    lockstep : whether the stations' clock ends the ticks
    answer_s : longest time in which a station answers or reads, s of wall time
    telemetry_s : how often stations shall report, s
    timeout_s : how long a set-point holds without renewal, s; None: for ever
    """

    lockstep: bool
    answer_s: float = 30.0
    telemetry_s: float = 60.0
    timeout_s: float | None = None


class Refused(Exception):
    """A station answered a request with a CALLERROR, whose code and text this has."""


@dataclass
class _Link:
    """One connection of a station."""

    socket: ServerConnection
    state: StationState
    version: Version
    answer_s: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: dict[str, tuple[str, asyncio.Future[Payload]]] = field(default_factory=dict)
    following: asyncio.Task[None] | None = None
    setup: asyncio.Task[None] | None = None
    malformed: int = 0
    """Malformed messages in a row."""
    replaces: asyncio.Task[None] | None = None
    """Closes the connection that this one replaces."""

    async def send(self, message: list[Any]) -> None:
        """Send a message. Raises TimeoutError if the station doesn't read."""
        async with asyncio.timeout(self.answer_s):
            await self.socket.send(text_of(message))
        self.state.counts.sent += 1

    async def call(self, action: str, payload: Payload) -> Payload:
        """Send a request and return its response; one at a time, as OCPP-J says.

        Raises Refused for a CALLERROR, TimeoutError or ConnectionClosed without answer.
        """
        wrong = fault(CALL, action, payload, self.version)
        assert wrong is None, wrong
        async with self.lock:
            unique_id = str(uuid4())
            answer: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_retrieved)
            self.waiting[unique_id] = action, answer
            try:
                await self.send([CALL, unique_id, action, payload])
                async with asyncio.timeout(self.answer_s):
                    return await answer
            finally:
                self.waiting.pop(unique_id, None)


def _retrieved(answer: asyncio.Future[Payload]) -> None:
    """Nobody awaits an answer any more where the request could not be sent."""
    if not answer.cancelled():
        answer.exception()


class StationServer:
    """The CSMS's server.

    states : the stations by identity
    standing : the profiles that every station gets after its boot
    """

    def __init__(
        self,
        states: Mapping[str, StationState],
        times: Times,
        address: tuple[str, int],
        security: Security,
        policy: Policy,
        standing: StandingProfiles,
    ) -> None:
        security.check_address(address[0])
        self.states, self.policy = states, policy
        self._times, self._address, self._security, self._standing = times, address, security, standing
        self._context = security.context()
        self.time_s = 0.0
        self.turned_away: dict[str, int] = {}
        """Connections refused, by reason."""
        self._links: dict[str, _Link] = {}
        self._clock: ServerConnection | None = None
        self._clock_step = -1
        self._released = -1
        self._loop = asyncio.new_event_loop()
        self._changed: asyncio.Condition | None = None
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="evgrid-csms", daemon=True)
        self._closed = False

    # Called by the run's thread

    def start(self) -> tuple[str, int]:
        """Listen; the address that was bound. Raises RunError if it can't be."""
        self._thread.start()
        try:
            self.run(self._open())
        except OSError as error:
            self.stop()
            host, port = self._address
            raise RunError(f"the CSMS can't listen at {host}:{port}: {error.strerror or error}") from None
        assert self._server is not None
        bound = next(iter(self._server.sockets)).getsockname()
        return str(bound[0]), int(bound[1])

    def stop(self) -> None:
        """Close all connections and the thread."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):
            self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the server's thread and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, work: Callable[[], _T]) -> _T:
        """Call something in the server's thread, where the states change."""

        async def called() -> _T:
            return work()

        return self.run(called())

    def send_setpoints(self, time_s: float, step: int, setpoint_kw: Mapping[str, float]) -> None:
        """Send the set-points, kW by identity, of the tick that begins at a time, where they changed.

        In lockstep returns when all are answered, and lets the stations' clock go on to the tick's end; else
        at once: a station that is slow gets the newest set-point when it has answered the last.
        """
        self.run(self._send_setpoints(time_s, step, setpoint_kw))

    def await_clock(self, step: int, patience_s: float, last: bool) -> None:
        """Wait until the stations' clock is at the begin of a step.

        ``last``: the run's end, where the clock may have left. Raises RunError if it doesn't come in time.
        """
        self.run(self._await_clock(step, patience_s, last))

    # In the server's thread

    async def _open(self) -> None:
        self._changed = asyncio.Condition()
        host, port = self._address
        self._server = await serve(
            self._handle, host, port, ssl=self._context, process_request=self._admit,
            subprotocols=None, select_subprotocol=_select, max_size=MAX_MESSAGE_BYTES, max_queue=16,
            compression=None, open_timeout=10.0, close_timeout=min(self.policy.answer_s, 2.0),
            ping_interval=None if self.policy.lockstep else 20.0, logger=_QUIET, server_header=None,
        )  # fmt: skip

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            async with asyncio.timeout(5.0):
                await self._server.wait_closed()

    async def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse who may not connect."""
        identity = unquote(urlsplit(request.path).path.rstrip("/").rpartition("/")[2])
        state = self.states.get(identity)
        ssl_object = socket.transport.get_extra_info("ssl_object")
        certificate = ssl_object.getpeercert() if ssl_object is not None else None
        authorization = request.headers.get("Authorization")
        admitted = await asyncio.get_running_loop().run_in_executor(
            None, self._security.admits, identity, authorization, certificate
        )
        if state is None and not (identity == CLOCK_IDENTITY and self.policy.lockstep):
            return self._turn_away(socket, http.HTTPStatus.NOT_FOUND, "unknown identity", identity)
        if not admitted:
            return self._turn_away(socket, http.HTTPStatus.UNAUTHORIZED, "not authenticated", identity)
        if state is not None and state.offence:
            return self._turn_away(socket, http.HTTPStatus.FORBIDDEN, "cut off", identity)
        socket.evgrid_identity = identity  # type: ignore[attr-defined]
        return None

    def _turn_away(
        self, socket: ServerConnection, status: http.HTTPStatus, reason: str, identity: str
    ) -> Response:
        self.turned_away[reason] = self.turned_away.get(reason, 0) + 1
        LOGGER.warning("refused %r: %s", identity[:48], reason)
        response = socket.respond(status, f"{reason}\n")
        if status == http.HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = 'Basic realm="OCPP"'
        return response

    async def _handle(self, socket: ServerConnection) -> None:
        """Serve a connection until it ends."""
        identity: str = socket.evgrid_identity  # type: ignore[attr-defined]
        version = next((v for v in VERSIONS if subprotocol(v) == socket.subprotocol), None)
        if version is None:  # as OCPP-J says: the handshake is completed, then the connection closed
            await socket.close(1002, "no common version of OCPP")
            return
        if identity == CLOCK_IDENTITY:
            await self._serve_clock(socket, version)
            return
        state, before = self.states[identity], self._links.get(identity)
        link = self._links[identity] = _Link(socket, state, version, self.policy.answer_s)
        state.version, state.connected = version, True
        state.counts.connections += 1
        if before is not None:
            state.note("connected again, which replaces its connection")
            link.replaces = asyncio.create_task(before.socket.close(1008, "replaced by a new connection"))
        try:
            await self._read(link)
        except ConnectionClosed:
            pass
        except TimeoutError:
            state.note("didn't read in time, and was disconnected")
        finally:
            for action, answer in link.waiting.values():
                if not answer.done():
                    answer.set_exception(Refused(f"{action}: the connection ended"))
            if self._links.get(identity) is link:
                del self._links[identity]
                state.connected = False
            with contextlib.suppress(Exception):
                await socket.close()

    async def _read(self, link: _Link) -> None:
        allowance, last_s = BURST, monotonic()
        async for text in link.socket:
            now_s = monotonic()
            allowance = min(allowance + (now_s - last_s) * MESSAGES_PER_S, BURST) - 1.0
            last_s = now_s
            if allowance < 0.0 and not self.policy.lockstep:
                await asyncio.sleep(-allowance / MESSAGES_PER_S)
            link.state.counts.received += 1
            try:
                await self._take(link, text)
                link.malformed = 0
            except MessageError as error:
                link.malformed += 1
                link.state.counts.malformed += 1
                await link.send([CALL_ERROR, error.unique_id, error.code, str(error)[:255], {}])
                if link.malformed >= MALFORMED:
                    offence = f"it sent {MALFORMED} malformed messages in a row, the last: {error}"
                    await self._cut_off(link, offence)
                    return
            except Untrue as lie:
                await self._cut_off(link, str(lie))
                return

    async def _take(self, link: _Link, text: str | bytes) -> None:
        """Take in a message, and answer a request."""
        try:
            message = message_of(text)
        except MessageError:
            if _has_no_number(text):
                raise Untrue("a message has NaN or Infinity, which are no JSON") from None
            raise
        kind, unique_id = message[0], message[1]
        if kind == CALL:
            await self._answer(link, unique_id, message[2], message[3])
            return
        action, answer = link.waiting.get(unique_id, ("", None))
        if answer is None or answer.done():
            return  # of a request that nobody waits for any more
        if kind == CALL_ERROR:
            answer.set_exception(Refused(f"{action}: {message[2]} {message[3]}".strip()[:255]))
            return
        wrong = fault(CALL_RESULT, action, message[2], link.version)
        if wrong is not None:
            link.state.counts.malformed += 1
            answer.set_exception(Refused(str(wrong)[:255]))
        else:
            answer.set_result(message[2])

    async def _answer(self, link: _Link, unique_id: str, action: str, payload: Payload) -> None:
        if not known(action, link.version):
            code = "NotSupported" if link.version == "1.6" else "NotImplemented"
            text = f"OCPP {link.version} has no {action[:50]}"
            await link.send([CALL_ERROR, unique_id, code, text, {}])
            return
        wrong = fault(CALL, action, payload, link.version)
        if wrong is not None:
            raise MessageError(wrong.code, str(wrong), unique_id)
        if action != "BootNotification" and not link.state.booted:
            text = f"{action} before a BootNotification was accepted"
            await link.send([CALL_ERROR, unique_id, "SecurityError", text, {}])
            if link.setup is None:
                link.state.note(f"sent {action} before a BootNotification, and was asked for one")
                request = link.call("TriggerMessage", {"requestedMessage": "BootNotification"})
                link.setup = asyncio.create_task(self._guarded(link, request))
            return
        try:
            response = link.state.answer(action, payload)
        except MessageError as error:
            if error.code in ("NotImplemented", "NotSupported", "InternalError"):  # no fault of the station
                await link.send([CALL_ERROR, unique_id, error.code, str(error)[:255], {}])
                return
            raise MessageError(error.code, str(error), unique_id) from None
        wrong = fault(CALL_RESULT, action, response, link.version)
        assert wrong is None, wrong
        await link.send([CALL_RESULT, unique_id, response])
        if action == "BootNotification":
            link.setup = asyncio.create_task(self._guarded(link, self._set_up(link)))

    async def _cut_off(self, link: _Link, offence: str) -> None:
        LOGGER.warning("%s is cut off: %s", link.state.identity, offence)
        link.state.cut_off(offence)
        await link.socket.close(1008, "cut off: " + offence.encode()[:100].decode(errors="ignore"))

    async def _guarded(self, link: _Link, work: Coroutine[Any, Any, object]) -> None:
        """Do something with a station; it is disconnected if it doesn't answer."""
        try:
            await work
        except TimeoutError:
            state = link.state
            state.unanswered += 1
            if self.policy.lockstep and state.unanswered >= SILENT and not state.offence:
                await self._cut_off(link, f"it didn't answer in {link.answer_s:g} s, {SILENT} times")
                return
            state.note(f"didn't answer in {link.answer_s:g} s, and was disconnected")
            await link.socket.close(1008, "no answer in time")
        except (ConnectionClosed, Refused):
            pass

    async def _set_up(self, link: _Link) -> None:
        """After a boot: standing profiles, and how often to report."""
        if link.version == "1.6":
            sampling: Payload = {"key": "MeterValueSampleInterval", "value": f"{self.policy.telemetry_s:.0f}"}
            action = "ChangeConfiguration"
        else:
            action = "SetVariables"
            sampling = {
                "setVariableData": [
                    {
                        "component": {"name": "SampledDataCtrlr"},
                        "variable": {"name": "TxUpdatedInterval"},
                        "attributeValue": f"{self.policy.telemetry_s:.0f}",
                    }
                ]
            }
        with contextlib.suppress(Refused):
            await link.call(action, sampling)
        await self._renew_standing(link)

    async def _renew_standing(self, link: _Link) -> None:
        """Send the standing profiles whose time is up within half their validity, or that it doesn't have."""
        state, timeout_s = link.state, self.policy.timeout_s
        lasts_s = state.standing_until_s - self.time_s
        if state.standing and (timeout_s is None or lasts_s > timeout_s / 2.0):
            return
        until_s = math.inf if timeout_s is None else self.time_s + timeout_s
        good = True
        for profile in self._standing.of(state.ev, link.version, until_s, first=not state.standing):
            good &= await self._set_profile(link, profile)
        state.standing, state.standing_until_s = True, until_s
        if not good:
            state.note("refused a TxDefaultProfile")

    async def _set_profile(self, link: _Link, profile: Payload) -> bool:
        """Send a charging profile; whether it was accepted."""
        own = profile_to(profile, link.version)
        if link.version == "1.6":
            payload: Payload = {"connectorId": 1, "csChargingProfiles": own}
        else:
            payload = {"evseId": 1, "chargingProfile": own}
        try:
            response = await link.call("SetChargingProfile", payload)
        except Refused as refusal:
            link.state.counts.refused_profiles += 1
            LOGGER.warning("%s refused a profile: %s", link.state.identity, refusal)
            return False
        if response.get("status") != "Accepted":
            link.state.counts.refused_profiles += 1
            LOGGER.warning("%s refused a profile: %s", link.state.identity, response)
            return False
        return True

    async def _send_setpoints(self, time_s: float, step: int, setpoint_kw: Mapping[str, float]) -> None:
        self.time_s = time_s
        for identity, link in list(self._links.items()):
            state = link.state
            if not state.booted or state.offence or (link.following and not link.following.done()):
                state.counts.late_profiles += state.booted
                continue
            link.following = asyncio.create_task(
                self._guarded(link, self._follow(link, setpoint_kw[identity]))
            )
        if not self.policy.lockstep:
            return
        followers = [link.following for link in self._links.values() if link.following is not None]
        if followers:
            await asyncio.wait(followers)
        assert self._changed is not None
        async with self._changed:
            self._released = step
            self._changed.notify_all()

    async def _follow(self, link: _Link, setpoint_kw: float) -> None:
        """Have a station follow a set-point, kW, if that changed or would expire."""
        if link.setup is not None:
            await link.setup
            link.setup = None
        await self._renew_standing(link)
        state, timeout_s = link.state, self.policy.timeout_s
        one = state.transaction
        if one is None:
            return
        bidirectional = link.version == "2.1" and state.books.discharge_kw[state.ev] > 0.0
        power_kw = min(setpoint_kw, float(state.books.charge_kw[state.ev]))
        power_kw = watts(power_kw if bidirectional else max(power_kw, 0.0)) / 1e3
        expires = timeout_s is not None and state.sent_until_s - self.time_s <= timeout_s / 2.0
        if state.sent_kw == power_kw and not expires:
            return
        valid_to = None
        if timeout_s is not None:
            state.sent_until_s = self.time_s + timeout_s
            valid_to = self._times.stamp(state.sent_until_s)
        profile = setpoint_profile(power_kw, TX_PROFILE_ID, one.id, link.version, bidirectional, valid_to)
        if await self._set_profile(link, profile):
            state.sent_kw = power_kw if state.transaction is one else None
            return
        if state.transaction is one:  # not again before it changes
            if state.sent_kw is None:
                state.note("refused a TxProfile")
            state.sent_kw = power_kw

    async def _serve_clock(self, socket: ServerConnection, version: Version) -> None:
        """Serve the stations' clock."""
        if self._clock is not None:
            await self._clock.close(1008, "replaced by a new connection")
        self._clock = socket
        try:
            async for text in socket:
                await self._tick(socket, version, text)
        except (ConnectionClosed, MessageError):
            pass
        finally:
            if self._clock is socket:
                self._clock = None
            assert self._changed is not None
            async with self._changed:
                self._changed.notify_all()

    async def _tick(self, socket: ServerConnection, version: Version, text: str | bytes) -> None:
        message = message_of(text)
        if message[0] != CALL:
            return
        unique_id, action, payload = message[1:]
        status = "UnknownVendorId"
        if action == "DataTransfer" and payload.get("vendorId") == VENDOR:
            status = "UnknownMessageId"
            if payload.get("messageId") == TICK:
                data = payload["data"]
                step = int((json.loads(data) if isinstance(data, str) else data)["step"])
                await self._at_step(step)
                status = "Accepted"
        response: Payload = {"status": status}
        if action == "BootNotification":
            stamp = self._times.stamp(self.time_s)
            response = {"currentTime": stamp, "interval": 300, "status": "Accepted"}
        await socket.send(text_of([CALL_RESULT, unique_id, response]))

    async def _at_step(self, step: int) -> None:
        """The stations are at the begin of a step: wait until they have its set-points."""
        changed = self._changed
        assert changed is not None
        async with changed:
            self._clock_step = max(self._clock_step, step)
            changed.notify_all()
            await changed.wait_for(lambda: self._released >= step or self._closed)

    async def _await_clock(self, step: int, patience_s: float, last: bool) -> None:
        changed = self._changed
        assert changed is not None

        def there() -> bool:
            return self._clock_step >= step or (last and self._clock is None)

        try:
            async with asyncio.timeout(patience_s), changed:
                await changed.wait_for(there)
        except TimeoutError:
            what = "connected" if self._clock_step < 0 else "gone on"
            raise RunError(
                f"the stations' clock ({CLOCK_IDENTITY}) has not {what} within {patience_s:g} s: start "
                "evgrid ocpp stations with --speed max, or the CSMS with a --speed that is a number"
            ) from None

    def release_all(self) -> None:
        """Let the stations' clock go on after the run's end."""

        async def released() -> None:
            assert self._changed is not None
            async with self._changed:
                self._released = 1 << 60
                self._changed.notify_all()

        self.run(released())


def _select(socket: ServerConnection, offered: Any) -> Any:
    """The newest version of OCPP that a station offers; None: none."""
    return next((name for name in map(subprotocol, VERSIONS) if name in offered), None)


def _has_no_number(text: str | bytes) -> bool:
    """Whether a text would be JSON but for NaN or infinities."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    try:
        message_of(text)
    except MessageError as error:
        return "no JSON" in str(error) and "array" not in str(error)
    return False


_QUIET = logging.getLogger("evgrid.ocpp.websockets")
_QUIET.setLevel(logging.CRITICAL)
