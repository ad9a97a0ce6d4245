"""Charging stations whose every message a test writes, and a CSMS beside them in a thread."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from uuid import uuid4

from websockets.asyncio.client import connect

from evgrid.errors import EvgridError
from evgrid.ocpp.csms import Csms, run_csms
from evgrid.ocpp.messages import Reading, sampled_values, times_of
from evgrid.ocpp.schemas import fault


class CallError(Exception):
    """The CSMS answered with a CALLERROR, whose code is the first argument."""


class Client:
    """One connection; requests of the CSMS are accepted and kept in ``requests``, ``profiles``."""

    def __init__(self, socket, version="2.1"):
        self.socket, self.version = socket, version
        self.requests, self.profiles, self.waiting = [], {}, {}
        self.answers = True
        self.refuses = set()
        self.errors = []
        self.reading = asyncio.create_task(self._read())
        self.reading.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def call(self, action, payload):
        return await self.raw([2, str(uuid4()), action, payload])

    async def raw(self, message):
        answer = self.waiting[message[1]] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps(message))
        done, _ = await asyncio.wait({answer, self.reading}, return_when=asyncio.FIRST_COMPLETED)
        if answer not in done:
            raise ConnectionError(self.socket.close_code, self.socket.close_reason)
        return answer.result()

    async def _read(self):
        async for text in self.socket:
            message = json.loads(text)
            if message[0] == 2:
                _, unique_id, action, payload = message
                assert fault(2, action, payload, self.version) is None
                self.requests.append((action, payload))
                if not self.answers:
                    continue
                accepted = "Accepted"
                if action == "SetChargingProfile":
                    profile = payload.get("chargingProfile", payload.get("csChargingProfiles"))
                    if profile["chargingProfilePurpose"] in self.refuses:
                        accepted = "Rejected"
                    else:
                        self.profiles[profile.get("id", profile.get("chargingProfileId"))] = profile
                response = {"status": accepted}
                if action == "SetVariables":
                    own = payload["setVariableData"][0]
                    found = {key: own[key] for key in ("component", "variable")}
                    response = {"setVariableResult": [{"attributeStatus": "Accepted", **found}]}
                await self.socket.send(json.dumps([3, unique_id, response]))
            elif message[1] in self.waiting:
                answer = self.waiting.pop(message[1])
                if message[0] == 3:
                    answer.set_result(message[2])
                else:
                    answer.set_exception(CallError(message[2], message[3]))
            else:
                self.errors.append(message)


class Station(Client):
    """A station of OCPP 2.1 with one EVSE, whose register counts on; times are s from the run's start."""

    def __init__(self, socket, times):
        super().__init__(socket)
        self.times, self.drawn_kwh, self.given_kwh, self.seq_no, self.id = times, 0.0, 0.0, 0, ""

    async def boot(self):
        station = {"vendorName": "a vendor", "model": "a model"}
        return await self.call("BootNotification", {"reason": "PowerUp", "chargingStation": station})

    def event(self, kind, time_s, trigger="MeterValuePeriodic", **more):
        reading = Reading(self.drawn_kwh, self.given_kwh, **more.pop("reading", {}))
        payload = {
            "eventType": kind, "timestamp": self.times.stamp(time_s), "triggerReason": trigger,
            "seqNo": self.seq_no, "transactionInfo": {"transactionId": self.id},
            "meterValue": [
                {"timestamp": self.times.stamp(time_s), "sampledValue": sampled_values(reading, "2.1")}
            ],
            **more,
        }  # fmt: skip
        self.seq_no += 1
        return payload

    async def transaction(self, kind, time_s, trigger="MeterValuePeriodic", **more):
        return await self.call("TransactionEvent", self.event(kind, time_s, trigger, **more))

    async def start(self, time_s, own_id="t1", **more):
        self.id, self.seq_no = own_id, 0
        return await self.transaction("Started", time_s, "CablePluggedIn", **more)

    async def report(self, time_s, drawn_kwh=0.0, **more):
        self.drawn_kwh += drawn_kwh
        return await self.transaction("Updated", time_s, **more)

    async def stop(self, time_s, drawn_kwh=0.0, **more):
        self.drawn_kwh += drawn_kwh
        return await self.transaction("Ended", time_s, "EVDeparted", **more)


class Beside:
    """What a test's coroutine has of the CSMS that runs beside it."""

    def __init__(self, url, scenario):
        self.url, self.times, self.scenario = url, times_of(scenario), scenario
        self.clock = None

    @asynccontextmanager
    async def client(self, identity, version="2.1", make=Client, **options):
        url = f"{self.url}/ocpp/{identity}"
        async with connect(url, subprotocols=[f"ocpp{version}"], **options) as socket:
            client = make(socket)
            client.version = version
            yield client
            client.reading.cancel()

    def station(self, identity="ev0001", **options):
        return self.client(identity, make=lambda socket: Station(socket, self.times), **options)

    async def tick(self, step):
        """All of the ticks before ``step`` has been said: returns when its set-points have come."""
        data = {"time": self.times.stamp(step * self.scenario.time.step), "step": step}
        message = {"vendorId": "org.evgrid", "messageId": "tick", "data": data}
        assert (await self.clock.call("DataTransfer", message))["status"] == "Accepted"


def run_beside(scenario, play, lockstep=True, output=None, clock=(), **settings):
    """Run a CSMS in lockstep while ``play(beside)``, a coroutine, plays its stations; the result, and what it
    returns. ``clock``: options of the clock's connection; ``settings``: of the CSMS.
    """
    bound, result = threading.Event(), []

    def announce(url):
        address.append(url)
        bound.set()

    def run():
        try:
            options = Csms(("127.0.0.1", 0), None if lockstep else 1.0, announce=announce, patience_s=20.0)
            for name, value in settings.items():
                setattr(options, name, value)
            result.append(run_csms(scenario, options, output)[0])
        except EvgridError as error:
            result.append(error)
        finally:
            bound.set()

    address = []
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert bound.wait(60.0)
    if not address:
        thread.join(10.0)
        raise result[0]

    async def played():
        beside = Beside(address[0], scenario)
        if not lockstep:
            return await play(beside)
        async with beside.client("evgrid-clock", **dict(clock)) as beside.clock:
            return await play(beside)

    returned = asyncio.run(asyncio.wait_for(played(), 60.0))
    thread.join(60.0)
    assert not thread.is_alive()
    if isinstance(result[0], EvgridError):
        raise result[0]
    return result[0], returned
