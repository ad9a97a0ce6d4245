"""A small CSMS, made with the routing of the package ``ocpp``: it records what stations say, and does what a
script says.

Every request of a station is validated against the standard's JSON schemas by the package, once, and so are
the answers to the CSMS's own; what is not valid is in ``wrong``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import uuid4

from ocpp.charge_point import ChargePoint
from ocpp.exceptions import OCPPError
from ocpp.messages import Call, CallError, validate_payload
from ocpp.routing import create_route_map, on
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Payload = dict[str, Any]
Script = Callable[["SmallCsms", int], Awaitable[None]]
CLOCK = "evgrid-clock"


class Peer(ChargePoint):
    """A connected station; ``heard`` is called with every request, and may give the answer in place."""

    def __init__(self, identity: str, socket: ServerConnection, csms: SmallCsms) -> None:
        self._ocpp_version = csms.version
        self._call = importlib.import_module(f"ocpp.v{csms.version.replace('.', '')}.call")
        self._call_result = importlib.import_module(f"ocpp.v{csms.version.replace('.', '')}.call_result")
        self.csms, self.socket = csms, socket
        super().__init__(identity, socket, response_timeout=10)
        self.route_map = create_route_map(self)

    async def request(self, action: str, payload: Payload) -> Payload:
        """Send a request as it is, and return its response; ``{"error": code}`` for an error."""
        message = Call(str(uuid4()), action, payload)
        await validate_payload(message, self._ocpp_version)
        async with self._call_lock:
            await self._send(message.to_json())
            answer = await self._get_specific_response(message.unique_id, 10)
        if isinstance(answer, CallError):
            return {"error": answer.error_code, "text": answer.error_description}
        answer.action = action
        await validate_payload(answer, self._ocpp_version)
        return answer.payload

    @on("BootNotification", skip_schema_validation=True)
    def boot(self, **_: Any) -> Any:
        return self._call_result.BootNotification(
            current_time=self.csms.current_time, interval=self.csms.interval_s, status="Accepted"
        )

    @on("Heartbeat", skip_schema_validation=True)
    def heartbeat(self, **_: Any) -> Any:
        return self._call_result.Heartbeat(current_time=self.csms.current_time)

    @on("StatusNotification", skip_schema_validation=True)
    def status(self, **_: Any) -> Any:
        return self._call_result.StatusNotification()

    @on("TransactionEvent", skip_schema_validation=True)
    def transaction(self, **_: Any) -> Any:
        return self._call_result.TransactionEvent()

    @on("NotifyEVChargingNeeds", skip_schema_validation=True)
    def needs(self, **_: Any) -> Any:
        return self._call_result.NotifyEVChargingNeeds(status="Processing")

    @on("ReportChargingProfiles", skip_schema_validation=True)
    def profiles(self, **_: Any) -> Any:
        return self._call_result.ReportChargingProfiles()

    @on("ReportDERControl", skip_schema_validation=True)
    def der(self, **_: Any) -> Any:
        return self._call_result.ReportDERControl()

    @on("NotifyDERStartStop", skip_schema_validation=True)
    def der_starts(self, **_: Any) -> Any:
        return self._call_result.NotifyDERStartStop()

    @on("NotifyReport", skip_schema_validation=True)
    def report(self, **_: Any) -> Any:
        return self._call_result.NotifyReport()

    @on("MeterValues", skip_schema_validation=True)
    def meter(self, **_: Any) -> Any:
        return self._call_result.MeterValues()

    @on("PullDynamicScheduleUpdate", skip_schema_validation=True)
    def pull(self, **_: Any) -> Any:
        return self._call_result.PullDynamicScheduleUpdate(
            status="Accepted", schedule_update=self.csms.schedule_update
        )

    @on("StartTransaction", skip_schema_validation=True)
    def start_transaction(self, **_: Any) -> Any:
        self.csms.transactions += 1
        return self._call_result.StartTransaction(
            transaction_id=self.csms.transactions, id_tag_info={"status": "Accepted"}
        )

    @on("StopTransaction", skip_schema_validation=True)
    def stop_transaction(self, **_: Any) -> Any:
        return self._call_result.StopTransaction()

    @on("DataTransfer", skip_schema_validation=True)
    async def data(self, data: Any, **_: Any) -> Any:
        step = (json.loads(data) if isinstance(data, str) else data)["step"]
        await self.csms.tick(step)
        return self._call_result.DataTransfer(status="Accepted")


class SmallCsms:
    """A CSMS in a thread of its own; ``with`` starts and ends it.

    script : called at each tick's begin, while the stations wait; None: there is no clock, and its identity
        is refused
    """

    def __init__(self, script: Script | None = None, version: str = "2.1", ssl: Any = None) -> None:
        self.script, self.version, self.ssl = script, version, ssl
        self.current_time, self.interval_s, self.transactions = "2026-01-15T00:00:00Z", 86400, 0
        self.schedule_update: Payload = {}
        self.heard: list[tuple[int, str, str, Payload]] = []
        """(tick, identity, action, payload) of every request, in the order of arrival."""
        self.wrong: list[str] = []
        self.peers: dict[str, Peer] = {}
        self.step = 0
        self.answers = True
        """Whether it answers anything at all."""
        self.silent: set[str] = set()
        """Identities that it answers no more."""
        self.refuses: set[str] = set()
        """Identities that may not connect."""
        self.headers: dict[str, str] = {}
        self.certificates: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> SmallCsms:
        self._thread.start()
        self.port = self._run(self.open())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{'ws' if self.ssl is None else 'wss'}://127.0.0.1:{self.port}"

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def open(self, port: int = 0) -> int:
        """Listen."""
        self._server = await serve(
            self._handle, "127.0.0.1", port, subprotocols=[f"ocpp{self.version}"], ssl=self.ssl,  # type: ignore[list-item]
            process_request=self._admit, ping_interval=None,
        )  # fmt: skip
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def shut(self) -> None:
        """Close all connections, and listen no more."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def tick(self, step: int) -> None:
        self.step = step
        try:
            if self.script is not None:
                await self.script(self, step)
        except Exception as error:
            self.wrong.append(f"tick {step}: {error!r}")
            raise

    def _admit(self, socket: ServerConnection, request: Any) -> Any:
        identity = request.path.rpartition("/")[2]
        tls = socket.transport.get_extra_info("ssl_object")
        if tls is not None:
            self.certificates[identity] = tls.getpeercert()["subject"][0][0][1]
        self.headers[identity] = request.headers.get("Authorization", "")
        if identity in self.refuses or (identity == CLOCK and self.script is None):
            return socket.respond(404, "unknown\n")
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        identity = socket.request.path.rpartition("/")[2]  # type: ignore[union-attr]
        peer = self.peers[identity] = Peer(identity, socket, self)
        try:
            async for text in socket:
                message = json.loads(text)
                if message[0] == 2:
                    if identity != CLOCK:
                        self.heard.append((self.step, identity, message[2], message[3]))
                    try:
                        await validate_payload(Call(*message[1:]), self.version)
                    except OCPPError as error:
                        self.wrong.append(f"{message}: {error}")
                if message[0] == 4:
                    self.wrong.append(str(message))
                if self.answers and identity not in self.silent:
                    await peer.route_message(text)
        except ConnectionClosed:
            pass

    def online(self, identities: set[str]) -> bool:
        """Whether all of some stations are connected."""
        return all(self.peers[who].socket.state.name == "OPEN" for who in identities)

    def of(self, identity: str, action: str) -> list[Payload]:
        """The payloads of a station's requests of a kind."""
        return [payload for _, who, what, payload in self.heard if (who, what) == (identity, action)]

    def events(self, identity: str, kind: str | None = None) -> list[Payload]:
        """The transaction events of a station."""
        found = self.of(identity, "TransactionEvent")
        return [event for event in found if kind in (None, event["eventType"])]

    def transaction_id(self, identity: str) -> str:
        """Of the last transaction that a station has started."""
        return str(self.events(identity, "Started")[-1]["transactionInfo"]["transactionId"])


def register_kwh(event: Payload) -> tuple[float, float]:
    """The registers, import and export, of a transaction event or a meter value, kWh."""
    (value,) = event.get("meterValue", [event])
    found = {
        sampled["measurand"]: float(sampled["value"]) / 1e3
        for sampled in value["sampledValue"]
        if "phase" not in sampled
    }
    return found["Energy.Active.Import.Register"], found["Energy.Active.Export.Register"]
