"""The websocket of a charging station to the CSMS.

In: requests, which are sent one at a time and in order, and the answers to those of the CSMS. Out: the
responses. What a request says is :mod:`.station`'s.

A connection that is lost, or over which a request isn't answered in time, is closed and opened again with a
growing delay. Meanwhile the station is offline: requests that belong to transactions are kept and sent in
their order afterwards, others are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, NegotiationError
from websockets.typing import Subprotocol

from evgrid.ocpp.schemas import (
    CALL,
    CALL_ERROR,
    CALL_RESULT,
    MAX_MESSAGE_BYTES,
    MessageError,
    Payload,
    Version,
    fault,
    known,
    message_of,
    subprotocol,
    text_of,
)

LOGGER = logging.getLogger("evgrid.ocpp.stations")
_QUIET = logging.getLogger("evgrid.ocpp.stations.websockets")
_QUIET.setLevel(logging.CRITICAL)
LEAST_DELAY_S, MOST_DELAY_S = 0.25, 60.0
"""Shortest and longest delay before a connection is tried again, s of wall time."""
MOST_QUEUED = 10_000
"""Most requests that a station keeps; beyond, the oldest reports in the midst of transactions are dropped."""


class NoAnswer(Exception):
    """A request that was not answered: the connection was lost, or the answer is late."""


class CallRefused(Exception):
    """A request that was answered by an error, or by something that is no response to it."""


@dataclass(frozen=True)
class Access:
    """How charging stations connect.

    url : of the CSMS, ws:// or wss://; a station's identity is added
    version : of OCPP
    tls : the TLS context of an identity, None: ws://
    user : user name of basic authentication; None: the identity
    passwords : by identity, "" for all others; none: no basic authentication
    answer_s : longest time in which a request is answered, s of wall time
    """

    url: str
    version: Version = "2.1"
    tls: Callable[[str], ssl.SSLContext] | None = None
    user: str | None = None
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    answer_s: float = 30.0

    def address(self, identity: str) -> str:
        """Address of a station."""
        return f"{self.url.rstrip('/')}/{quote(identity, safe='')}"

    def headers(self, identity: str) -> dict[str, str]:
        """Headers of a station's handshake."""
        password = self.passwords.get(identity, self.passwords.get(""))
        if password is None:
            return {}
        from websockets.headers import build_authorization_basic

        return {"Authorization": build_authorization_basic(self.user or identity, password)}


@dataclass
class Counts:
    """What came of the messages of all stations.

    sent, received : messages
    unanswered, refused, malformed : requests that were not answered in time, or were answered by an error,
        and messages of the CSMS that break the protocol
    lost : connections
    dropped : reports that were dropped as too many were queued
    events : the first of each kind of fault, a sentence each
    """

    sent: int = 0
    received: int = 0
    unanswered: int = 0
    refused: int = 0
    malformed: int = 0
    lost: int = 0
    dropped: int = 0
    events: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, text: str) -> None:
        """Count a fault, and keep the sentence of the first of its kind."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.events.setdefault(kind, text)
        LOGGER.info("%s", text)


class Pending:
    """How much of all stations has yet to be answered."""

    def __init__(self) -> None:
        self._count = 0
        self.since_s = self.until_s = monotonic()
        """When there last was something that had to be answered, first and last."""
        self._none = asyncio.Event()
        self._none.set()

    def add(self, change: int) -> None:
        """Change the number."""
        before, self._count = self._count, self._count + change
        if self._count:
            if not before:
                self.since_s = monotonic()
            self._none.clear()
        else:
            self.until_s = monotonic()
            self._none.set()

    @property
    def lasted_s(self) -> float:
        """How long it last took until all was answered, s; up to now if it isn't."""
        return (monotonic() if self._count else self.until_s) - self.since_s

    async def none(self) -> None:
        """Wait until nothing is."""
        await self._none.wait()


@dataclass(slots=True, eq=False)
class Request:
    """A request to the CSMS.

    make : its payload, when it is sent; None: it has become needless
    kept : whether it is kept while offline
    taken : called with the response
    droppable : whether it is dropped where too many are queued
    """

    action: str
    make: Callable[[], Payload | None]
    kept: bool = False
    taken: Callable[[Payload], None] | None = None
    droppable: bool = False


class Owner(Protocol):
    """Whose connection it is."""

    async def opened(self, link: Connection) -> None:
        """The connection is open, and nothing else is sent yet: boot, or say what has changed."""

    def went_offline(self) -> None:
        """The connection was lost."""

    def answer(self, action: str, payload: Payload) -> tuple[Payload, Callable[[], None] | None]:
        """The response to a request of the CSMS, and what is to be done once it is sent."""


class Connection:
    """The connection of one charging station; see the module."""

    def __init__(
        self, identity: str, access: Access, owner: Owner, counts: Counts, pending: Pending,
        gate: asyncio.Semaphore,
    ) -> None:  # fmt: skip
        self.identity, self.access, self.counts = identity, access, counts
        self.online = False
        self.fault = ""
        """Why it is not connected."""
        self.refused = False
        """Whether the CSMS has refused the handshake."""
        self._owner, self._pending, self._gate = owner, pending, gate
        self._queue: deque[Request] = deque()
        self._socket: ClientConnection | None = None
        self._waiting: dict[str, tuple[str, asyncio.Future[Payload]]] = {}
        self._more = asyncio.Event()
        self._counted = self._held = 0
        self._again = self._ended = self._was_answered = False

    @property
    def queued(self) -> int:
        """Requests that have yet to be answered."""
        return len(self._queue)

    def put(self, request: Request) -> None:
        """Queue a request."""
        if not self.online and not request.kept:
            return
        if len(self._queue) >= MOST_QUEUED:
            oldest = next((one for one in self._queue if one.droppable), None)
            if oldest is not None:
                self._queue.remove(oldest)
                text = f"{self.identity} has queued {MOST_QUEUED} messages, and drops the oldest meter values"
                self.counts.note("dropped", text)
        self._queue.append(request)
        self._more.set()
        self._recount()

    def hold(self, held: bool) -> None:
        """Whether it is busy with something besides its requests, such as a reboot."""
        self._held = int(held)
        self._recount()

    async def run(self) -> None:
        """Connect, and serve the connection; again after it is lost, until cancelled."""
        delay_s = LEAST_DELAY_S
        while True:
            try:
                async with self._gate:
                    socket = await self._connect()
                self._was_answered = False
                try:
                    await self._serve(socket)
                finally:
                    if self._was_answered:
                        delay_s = LEAST_DELAY_S
                    await socket.close()
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError, EOFError) as error:
                if not (self.fault and isinstance(error, ConnectionClosed)):
                    self.fault = _text_of(error)
                self.refused = isinstance(error, InvalidStatus | NegotiationError)
                self.hold(False)
            if self._again:
                self._again = False
                continue
            await asyncio.sleep(delay_s * (1.0 + random.random()))
            delay_s = min(2.0 * delay_s, MOST_DELAY_S)

    async def _connect(self) -> ClientConnection:
        """Open the websocket."""
        access = self.access
        socket = await connect(
            access.address(self.identity), subprotocols=[Subprotocol(subprotocol(access.version))],
            additional_headers=access.headers(self.identity), compression=None,
            ssl=None if access.tls is None else access.tls(self.identity),
            max_size=MAX_MESSAGE_BYTES, max_queue=16, ping_interval=None, open_timeout=access.answer_s,
            close_timeout=1.0, user_agent_header=None, proxy=None, logger=_QUIET,
        )  # fmt: skip
        if socket.subprotocol is None:
            await socket.close()
            raise NegotiationError("no subprotocol")
        return socket

    def end(self) -> None:
        """The run has ended: the connection that is closed then isn't lost."""
        self._ended = True

    async def close(self, again: bool = False) -> None:
        """Close the connection; ``again``: it is opened again at once."""
        self._again = again
        if self._socket is not None:
            await self._socket.close()

    async def call(self, action: str, payload: Payload) -> Payload:
        """Send a request and wait for its response.

        Raises NoAnswer or CallRefused.
        """
        wrong = fault(CALL, action, payload, self.access.version)
        assert wrong is None, wrong
        socket = self._socket
        if socket is None:
            raise NoAnswer
        unique_id = str(uuid4())
        answer: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        self._waiting[unique_id] = action, answer
        try:
            async with asyncio.timeout(self.access.answer_s):
                await self._send(socket, [CALL, unique_id, action, payload])
                return await answer
        except TimeoutError:
            who, within_s = self.access.url, self.access.answer_s
            text = f"{who} has not answered {action} of {self.identity} in {within_s:g} s"
            self.fault = text
            self.counts.note("unanswered", text)
            await socket.close(1002, "no answer in time")
            raise NoAnswer from None
        except ConnectionClosed:
            raise NoAnswer from None
        finally:
            self._waiting.pop(unique_id, None)

    async def _serve(self, socket: ClientConnection) -> None:
        """Serve an open connection until it is closed."""
        self._socket = socket
        sending = asyncio.create_task(self._open_and_send())
        try:
            async for text in socket:
                self.counts.received += 1
                await self._take(socket, text)
        finally:
            self._socket = None
            sending.cancel()
            for _, answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(NoAnswer())
            with contextlib.suppress(asyncio.CancelledError, NoAnswer):
                await sending
            if self.online:
                self._set_online(False)
                if not (self._again or self._ended):
                    self.counts.note("lost", f"the connection of {self.identity} was lost")
            self._owner.went_offline()

    async def _open_and_send(self) -> None:
        """Boot, then send what is queued."""
        try:
            await self._owner.opened(self)
        except NoAnswer:
            return
        self.fault = ""
        self._set_online(True)
        while True:
            while self._queue:
                request = self._queue[0]
                payload = request.make()
                try:
                    if payload is not None:
                        response = await self.call(request.action, payload)
                        if request.taken is not None:
                            request.taken(response)
                except CallRefused as refused:
                    self.counts.note("refused", f"{request.action} of {self.identity} was refused: {refused}")
                except NoAnswer:
                    return
                if self._queue and self._queue[0] is request:
                    self._queue.popleft()
                self._recount()
            self._more.clear()
            await self._more.wait()

    def _set_online(self, online: bool) -> None:
        self.online = online
        if not online:
            self._queue = deque(request for request in self._queue if request.kept)
        self._recount()

    def _recount(self) -> None:
        """Tell how much has yet to be answered: nothing while offline, but for a reboot."""
        count = (len(self._queue) if self.online else 0) + self._held
        self._pending.add(count - self._counted)
        self._counted = count

    async def _send(self, socket: ClientConnection, message: list[Any]) -> None:
        await socket.send(text_of(message))
        self.counts.sent += 1

    async def _take(self, socket: ClientConnection, text: str | bytes) -> None:
        """Take in a message of the CSMS."""
        then: Callable[[], None] | None = None
        try:
            message = message_of(text)
            kind, unique_id = message[0], message[1]
            if kind == CALL:
                response, then = self._response(message)
                reply = [CALL_RESULT, unique_id, response]
            else:
                self._answered(message)
                return
        except MessageError as error:
            if error.code not in ("NotImplemented", "NotSupported"):
                self.counts.note("malformed", f"a message of the CSMS to {self.identity}: {error}")
            reply = [CALL_ERROR, error.unique_id, error.code, str(error)[:255], {}]
        async with asyncio.timeout(self.access.answer_s):  # the CSMS doesn't read: the connection ends
            await self._send(socket, reply)
        if then is not None:
            then()

    def _response(self, message: list[Any]) -> tuple[Payload, Callable[[], None] | None]:
        _, unique_id, action, payload = message
        version = self.access.version
        if not known(action, version):
            raise MessageError("NotImplemented", f"OCPP {version} has no {action[:50]}", unique_id)
        wrong = fault(CALL, action, payload, version)
        if wrong is not None:
            raise MessageError(wrong.code, str(wrong), unique_id)
        try:
            response, then = self._owner.answer(action, payload)
        except MessageError as error:
            raise MessageError(error.code, str(error), unique_id) from None
        except (ArithmeticError, ValueError) as error:  # numbers beyond what can be computed with
            text = f"{action} can't be answered: {error}"
            raise MessageError("PropertyConstraintViolation", text[:255], unique_id) from None
        wrong = fault(CALL_RESULT, action, response, version)
        assert wrong is None, wrong
        return response, then

    def _answered(self, message: list[Any]) -> None:
        action, answer = self._waiting.get(message[1], ("", None))
        if answer is None or answer.done():
            return  # of a request for which nobody waits any more
        if message[0] == CALL_ERROR:
            answer.set_exception(CallRefused(f"{message[2]} {message[3]}".strip()))
            return
        wrong = fault(CALL_RESULT, action, message[2], self.access.version)
        if wrong is None:
            self._was_answered = True
            answer.set_result(message[2])
            return
        self.counts.note("malformed", f"the answer of the CSMS to {self.identity}: {wrong}")
        answer.set_exception(CallRefused(str(wrong)))


def _text_of(error: Exception) -> str:
    """Why a connection failed, in words."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        why = {
            400: "such as no version of OCPP in common",
            401: "user name or password is wrong",
            403: "forbidden",
            404: "unknown identity or path",
        }
        return f"HTTP {status}{f': {why[status]}' if status in why else ''}"
    if isinstance(error, NegotiationError):
        return "no version of OCPP in common"
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return f"the CSMS closed it: {error.rcvd.reason or error.rcvd.code}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__


async def send_tick(link: Connection, payload: Payload) -> bool:
    """Tell the CSMS that a tick has ended; whether it keeps to this clock."""
    try:
        response = await link.call("DataTransfer", payload)
    except (NoAnswer, CallRefused):
        return False
    return bool(response["status"] == "Accepted")
