"""A CSMS that answers everything, and gives each station a new set-point for each meter value: of
:mod:`benchmarks.ocpp_stations`. ``python -m benchmarks.ocpp_csms``: prints its port.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from websockets.asyncio.server import ServerConnection, serve


async def handle(socket: ServerConnection) -> None:
    """Answer a station."""
    number, transaction = 0, ""
    async for text in socket:
        message = json.loads(text)
        if message[0] != 2:
            continue
        _, unique_id, action, payload = message
        answer: dict[str, Any] = {}
        if action == "BootNotification":
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            answer = {"currentTime": stamp, "interval": 86400, "status": "Accepted"}
        elif action == "NotifyEVChargingNeeds":
            answer = {"status": "Processing"}
        elif action == "DataTransfer":
            answer = {"status": "UnknownVendorId"}
        await socket.send(json.dumps([3, unique_id, answer]))
        if action != "TransactionEvent":
            continue
        transaction = payload["transactionInfo"]["transactionId"]
        if payload["eventType"] == "Updated":
            number += 1
            period = {"startPeriod": 0, "limit": 1000.0 + number}
            schedule = [{"id": 1, "chargingRateUnit": "W", "chargingSchedulePeriod": [period]}]
            profile = {
                "id": 1, "stackLevel": 0, "chargingProfilePurpose": "TxProfile",
                "chargingProfileKind": "Relative", "transactionId": transaction,
                "chargingSchedule": schedule,
            }  # fmt: skip
            request = {"evseId": 1, "chargingProfile": profile}
            await socket.send(json.dumps([2, str(number), "SetChargingProfile", request]))


async def main() -> None:
    """Serve until the process is ended."""
    async with serve(
        handle, "127.0.0.1", 0, subprotocols=["ocpp2.1"], compression=None, ping_interval=None, backlog=1000
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
