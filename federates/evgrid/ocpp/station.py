"""One charging station of one EVSE: what it says to the CSMS, and what it does for it.

In: when an EV comes and leaves, what its meter reads, and the requests of the CSMS. Out: the messages of OCPP
2.1, 2.0.1 or 1.6, and what the charging profiles ask of the EVSE. Times are s from the run's start, powers
kW, positive when charging. The EV itself is the simulation's (:mod:`.stations`).

A transaction lasts from an EV's arrival to its departure, unless the CSMS ends it before. Events that happen
offline are kept, in their order, with ``offline``; the registers go on over transactions, reboots and the
time offline, so that no energy is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from evgrid.ocpp.charging_profiles import MOST_PROFILES, Allowed, ChargingProfiles, Evse, Refusal, Situation
from evgrid.ocpp.connection import Access, CallRefused, Connection, Counts, Pending, Request
from evgrid.ocpp.der_controls import DerControls, fixed_var
from evgrid.ocpp.messages import (
    TYPE_LENGTH,
    VENDOR,
    Needs,
    Reading,
    Times,
    charging_needs,
    profile_from,
    sampled_values,
)
from evgrid.ocpp.schemas import MessageError, Payload
from evgrid.scenario.inverter_functions import LocalFunctions

MODEL = "evgrid EVSE"
PLACE = {"id": 1, "connectorId": 1}
MOST_COMPOSITE_S = 86_400
"""Longest composite schedule that it computes, s."""
Then = Callable[[], None] | None


class Grid(Protocol):
    """What a station asks of the simulation.

    times : timestamps, by the CSMS's clock
    telemetry_s : period of meter values
    """

    times: Times
    telemetry_s: float

    def now_s(self) -> float:
        """The time now."""

    def frequency_hz(self) -> float | None:
        """The grid's frequency; None: nothing measures it."""

    def set_clock(self, text: str) -> None:
        """Keep to the CSMS's clock."""


@dataclass
class Session:
    """An EV that is plugged in.

    ev_name : who charges
    arrival_s : when it came
    needs : what it wants
    """

    ev_name: str
    arrival_s: float
    needs: Needs


@dataclass
class Transaction:
    """A transaction; ``id`` of OCPP 1.6 is given by the CSMS, and "" before."""

    id: str
    start_s: float
    seq_no: int = 0
    remote_start_id: int | None = None
    priority: bool = False


class Station:
    """A charging station of OCPP 2.1 or 2.0.1; :class:`OldStation` is one of 1.6."""

    def __init__(
        self, identity: str, evse: Evse, grid: Grid, access: Access, counts: Counts, pending: Pending,
        gate: asyncio.Semaphore, functions: LocalFunctions | None = None,
    ) -> None:  # fmt: skip
        self.identity, self.evse, self.version, self._grid = identity, evse, access.version, grid
        self.profiles = ChargingProfiles(evse, grid.times, old=self.version == "1.6")
        self.link = Connection(identity, access, self, counts, pending, gate)
        self.der = DerControls(functions, grid.times, evse.frequency)
        self.session: Session | None = None
        self.transaction: Transaction | None = None
        self.reading = Reading(0.0, 0.0, phases=evse.phases)
        self.booted = False
        self.signal = 0.0
        self.interval_s = math.inf
        self._status = "Available"
        self._boot_reason = "PowerUp"
        self._offline_s: float | None = None
        self._remote_start: tuple[int, str] | None = None
        self._reset_when_idle = False
        self._beat_s = -math.inf
        self.variables = _variables(evse, grid.telemetry_s)

    # What the simulation says

    def arrive(self, session: Session, reading: Reading) -> None:
        """An EV is plugged in."""
        self.session, self.reading = session, reading
        self._set_status("Occupied", session.arrival_s)
        token = None
        if self._remote_start is not None:
            remote, token = self._remote_start
            self._begin(session.arrival_s, "RemoteStart", token, remote)
            self._remote_start = None
        else:
            self._begin(session.arrival_s, "CablePluggedIn")
        self._send_needs()

    def leave(self, time_s: float, reading: Reading) -> None:
        """The EV leaves, with the reading at that time."""
        self.reading = reading
        if self.transaction is not None:
            self._end(time_s, "EVDeparted", "EVDisconnected")
        self.session = None
        self._set_status("Available", time_s)
        if self._reset_when_idle:
            self._reset_when_idle = False
            self._reboot()

    def report(self, time_s: float, reading: Reading) -> None:
        """The meter's reading at a time, of the EV that is plugged in."""
        self.reading = reading
        if self.transaction is not None:
            self._update(time_s, "MeterValuePeriodic")

    def tend(self, time_s: float) -> None:
        """What is due at a time by itself: heartbeats, and updates of dynamic profiles."""
        self.profiles.forget_expired(time_s, self._situation)
        if not self.link.online:
            return
        if time_s - self._beat_s >= self.interval_s:
            self._beat_s = time_s
            self.link.put(Request("Heartbeat", dict))
        for profile_id in self.profiles.pulls(time_s):
            self._pull(profile_id)
        for control_id, started in self.der.starts_and_stops(time_s):
            stamp = self._grid.times.stamp(time_s)
            message = {"controlId": control_id, "started": started, "timestamp": stamp}
            self.link.put(Request("NotifyDERStartStop", lambda message=message: message))  # type: ignore[misc]

    def allowed(self, time_s: float) -> Allowed:
        """What the charging profiles ask of the EVSE at a time; nothing is drawn without a transaction."""
        if self.session is not None and self.transaction is None:
            return Allowed(0.0, 0.0, 0.0, None, "Idle")
        allowed = self.profiles.at(time_s, self._situation)
        share = self.der.discharge_share(time_s)
        if share < 1.0 and allowed.setpoint_kw is not None:
            least = max(allowed.discharge_limit_kw, -share * self.evse.discharge_kw)
            setpoint = max(allowed.setpoint_kw, least)
            return allowed._replace(discharge_limit_kw=least, setpoint_kw=setpoint)
        return allowed

    def functions(self, time_s: float) -> LocalFunctions | None:
        """The local functions of the EVSE at a time: by DER controls, and the set-point of reactive power."""
        found = self.der.functions(time_s)
        kvar = self.allowed(time_s).reactive_kvar if self.evse.reactive else None
        if found is None or kvar is None:
            return found
        percent = min(max(-100.0 * kvar / self.evse.apparent_kva, -100.0), 100.0)
        fixed = {"volt_var": fixed_var(percent), "watt_var": None, "power_factor": None}
        return found.model_copy(update=fixed)

    @property
    def _situation(self) -> Situation:
        transaction, grid = self.transaction, self._grid
        return Situation(
            transaction.id if transaction is not None else None,
            transaction.start_s if transaction is not None else None,
            transaction is not None and transaction.priority,
            self.reading.soc,
            grid.frequency_hz() if self.evse.frequency else None,
            self.signal,
            self._offline_s,
        )

    # What the connection says

    async def opened(self, link: Connection) -> None:
        """Boot, unless it only was offline."""
        if not self.booted:
            while not await self._boot(link):
                pass
            self.booted = True
            self.link.put(Request("StatusNotification", self._status_payload, kept=True))
            self.link.hold(False)
        self._offline_s = None
        self._beat_s = self._grid.now_s()

    def went_offline(self) -> None:
        """The connection was lost."""
        if self._offline_s is None and self.booted:
            self._offline_s = self._grid.now_s()

    async def _boot(self, link: Connection) -> bool:
        """Say that it has started; whether the CSMS accepts it."""
        try:
            response = await link.call("BootNotification", self._boot_payload())
        except CallRefused as refused:
            self.link.fault = f"BootNotification of {self.identity} was refused: {refused}"
            await asyncio.sleep(1.0)
            return False
        if response["status"] != "Accepted":
            self.link.fault = (
                f"the CSMS answers BootNotification of {self.identity} with {response['status']}"
            )
            await asyncio.sleep(min(max(float(response["interval"]), 1.0), 60.0))
            return False
        if response["interval"] > 0:
            self.interval_s = float(response["interval"])
        self._grid.set_clock(response["currentTime"])
        return True

    # Messages

    def _boot_payload(self) -> Payload:
        station = {"model": MODEL, "vendorName": VENDOR, "serialNumber": self.identity[:25]}
        return {"chargingStation": station, "reason": self._boot_reason}

    def _status_payload(self) -> Payload:
        stamp = self._grid.times.stamp(self._grid.now_s())
        return {"timestamp": stamp, "connectorStatus": self._status, "evseId": 1, "connectorId": 1}

    def _set_status(self, status: str, time_s: float) -> None:
        self._status = status
        payload = self._status_payload() | {"timestamp": self._grid.times.stamp(time_s)}
        self.link.put(Request("StatusNotification", lambda: payload, kept=True))

    def _begin(
        self, time_s: float, trigger: str, token: str | None = None, remote: int | None = None
    ) -> None:
        session = self.session
        assert session is not None
        self.transaction = Transaction(str(uuid4()), time_s, remote_start_id=remote)
        self.profiles.start(self.transaction.id)
        name = (token or session.ev_name)[: TYPE_LENGTH[self.version]]
        self._event(
            "Started", time_s, trigger, "EVConnected", "Transaction.Begin",
            idToken={"idToken": name, "type": "Central"},
        )  # fmt: skip

    def _update(self, time_s: float, trigger: str, context: str = "Sample.Periodic") -> None:
        self._event("Updated", time_s, trigger, self._charging_state(), context)

    def _end(self, time_s: float, trigger: str, reason: str) -> None:
        self._event("Ended", time_s, trigger, None, "Transaction.End", reason=reason)
        self.transaction = None
        self.profiles.end()

    def _charging_state(self) -> str:
        if self.reading.power_kw:
            return "Charging"
        return "SuspendedEVSE" if self.allowed(self._grid.now_s()).power_kw <= 0.0 else "SuspendedEV"

    def _event(
        self, kind: str, time_s: float, trigger: str, state: str | None, context: str,
        reason: str | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """Queue a TransactionEvent."""
        transaction = self.transaction
        assert transaction is not None
        info: Payload = {"transactionId": transaction.id}
        if state is not None:
            info["chargingState"] = state
        if reason is not None:
            info["stoppedReason"] = reason
        if transaction.remote_start_id is not None and kind == "Started":
            info["remoteStartId"] = transaction.remote_start_id
        if self.version == "2.1" and kind == "Updated":
            info["operationMode"] = self.allowed(self._grid.now_s()).mode
        stamp = self._grid.times.stamp(time_s)
        value = {"timestamp": stamp, "sampledValue": sampled_values(self.reading, self.version, context)}
        payload: Payload = {
            "eventType": kind, "timestamp": stamp, "triggerReason": trigger, "seqNo": transaction.seq_no,
            "transactionInfo": info, "evse": PLACE, "meterValue": [value],
        }  # fmt: skip
        if not self.link.online:
            payload["offline"] = True
        transaction.seq_no += 1
        self.link.put(
            Request("TransactionEvent", lambda: payload | more, kept=True, droppable=kind == "Updated")
        )

    def _send_needs(self) -> None:
        session, transaction = self.session, self.transaction
        assert session is not None
        needs: Payload = {
            "evseId": 1,
            "chargingNeeds": charging_needs(session.needs, self.version, self._grid.times),
        }
        if self.version == "2.1":
            needs["timestamp"] = self._grid.times.stamp(session.arrival_s)
        self.link.put(
            Request("NotifyEVChargingNeeds", lambda: needs if self.transaction is transaction else None, True)
        )

    def _pull(self, profile_id: int) -> None:
        def taken(response: Payload) -> None:
            if response["status"] == "Accepted" and "scheduleUpdate" in response:
                self.profiles.update(profile_id, response["scheduleUpdate"], self._grid.now_s())

        self.link.put(
            Request("PullDynamicScheduleUpdate", lambda: {"chargingProfileId": profile_id}, taken=taken)
        )

    def _reboot(self, resume: bool = False, reason: str = "ImmediateReset") -> None:
        """Boot again; a transaction is ended, and another begun as the EV is still there, or resumed."""
        now_s = self._grid.now_s()
        session = self.session
        if self.transaction is not None and not resume:
            self._end(now_s, "ResetCommand", reason)
        self.link.hold(True)

        async def reboot() -> None:
            while self.link.online and self.link.queued:
                await asyncio.sleep(0.001)
            self.booted, self._boot_reason = False, "RemoteReset"
            await self.link.close(again=True)
            self._resume(session, resume)

        self._task = asyncio.get_running_loop().create_task(reboot())

    def _resume(self, session: Session | None, resume: bool) -> None:
        """Go on with the EV that was there before a reboot."""
        if session is None or self.session is not session:
            return
        now_s = self._grid.now_s()
        if self.transaction is not None and resume:
            self._update(now_s, "TxResumed", "Other")
        elif self.transaction is None:
            self._begin(now_s, "CablePluggedIn")
            self._send_needs()

    # Requests of the CSMS

    def answer(self, action: str, payload: Payload) -> tuple[Payload, Then]:
        """The response to a request, checked against its schema already, and what is to be done afterwards.

        Raises MessageError if the station doesn't support it.
        """
        handler = getattr(self, f"_on_{_HANDLED.get(action, '')}", None)
        if handler is None:
            raise MessageError("NotSupported", f"{action} is not supported by this charging station")
        found = handler(payload)
        return found if isinstance(found, tuple) else (found, None)

    def _on_set_profile(self, payload: Payload) -> Payload:
        now = self._situation
        refusal = self.profiles.set(payload["chargingProfile"], payload["evseId"], self._grid.now_s(), now)
        return _status(refusal)

    def _on_clear_profile(self, payload: Payload) -> Payload:
        profile_id = payload.get("chargingProfileId")
        criteria = payload.get("chargingProfileCriteria", {})
        return {"status": "Accepted" if self.profiles.clear(profile_id, criteria) else "Unknown"}

    def _on_get_profiles(self, payload: Payload) -> tuple[Payload, Then]:
        criteria = dict(payload["chargingProfile"])
        if "evseId" in payload:
            criteria["evseId"] = payload["evseId"]
        found = self.profiles.report(criteria)
        if not found:
            return {"status": "NoProfiles"}, None

        def report() -> None:
            left = len(found)
            for (source, evse_id), profiles in found.items():
                left -= 1
                message = {
                    "requestId": payload["requestId"], "chargingLimitSource": source, "evseId": evse_id,
                    "chargingProfile": profiles, "tbc": left > 0,
                }  # fmt: skip
                self.link.put(Request("ReportChargingProfiles", lambda message=message: message))  # type: ignore[misc]

        return {"status": "Accepted"}, report

    def _composite(self, evse_id: int, duration: int, unit: str) -> tuple[str, list[Payload]] | Refusal:
        if evse_id not in (0, 1):
            return Refusal("UnknownEvse", f"evseId {evse_id}: must be 0 or 1")
        if unit == "A" and self.evse.dc:
            return Refusal("UnsupportedRateUnit", "chargingRateUnit A: must be W (K08.FR.07)")
        if not 0 < duration <= MOST_COMPOSITE_S:
            return Refusal("ValueOutOfRange", f"duration {duration}: must be from 1 to {MOST_COMPOSITE_S} s")
        now_s = self._grid.now_s()
        found = self.profiles.composite(now_s, duration, self._situation)
        periods = self.profiles.schedule_periods(found, unit, self.version)
        return self._grid.times.stamp(now_s), periods

    def _on_composite(self, payload: Payload) -> Payload:
        unit, evse_id, duration = payload.get("chargingRateUnit", "W"), payload["evseId"], payload["duration"]
        found = self._composite(evse_id, duration, unit)
        if isinstance(found, Refusal):
            return _status(found)
        start, periods = found
        schedule = {
            "evseId": evse_id, "duration": duration, "scheduleStart": start, "chargingRateUnit": unit,
            "chargingSchedulePeriod": periods,
        }  # fmt: skip
        return {"status": "Accepted", "schedule": schedule}

    def _on_update_schedule(self, payload: Payload) -> Payload:
        update = payload["scheduleUpdate"]
        return _status(self.profiles.update(payload["chargingProfileId"], update, self._grid.now_s()))

    def _on_priority(self, payload: Payload) -> Payload:
        transaction = self.transaction
        if transaction is None or transaction.id != payload["transactionId"]:
            return _status(Refusal("TxNotFound", f"there is no transaction {payload['transactionId']}"))
        if not self.profiles.has("PriorityCharging"):
            return {"status": "NoProfile"}
        transaction.priority = payload["activate"]
        return {"status": "Accepted"}

    def _on_signal(self, payload: Payload) -> Payload:
        if self.allowed(self._grid.now_s()).mode != "CentralFrequency":
            return _status(Refusal("InvalidState", "no profile in force is CentralFrequency"))
        self.signal = float(payload["signal"])
        return {"status": "Accepted"}

    def _on_reset(self, payload: Payload) -> tuple[Payload, Then]:
        kind = payload["type"]
        if payload.get("evseId"):
            return _status(Refusal("UnsupportedParam", "evseId: it resets as a whole")), None
        if kind == "OnIdle" and self.transaction is not None:
            self._reset_when_idle = True
            return {"status": "Scheduled"}, None
        return {"status": "Accepted"}, lambda: self._reboot(resume=kind == "ImmediateAndResume")

    def _on_trigger(self, payload: Payload) -> tuple[Payload, Then]:
        wanted = payload["requestedMessage"]
        if payload.get("evse", PLACE)["id"] not in (0, 1):
            return {"status": "Rejected"}, None
        now_s = self._grid.now_s()
        put = self.link.put
        simple: dict[str, Callable[[], None]] = {
            "BootNotification": lambda: put(
                Request("BootNotification", lambda: self._boot_payload() | self._triggered())
            ),
            "Heartbeat": lambda: put(Request("Heartbeat", dict)),
            "StatusNotification": lambda: put(Request("StatusNotification", self._status_payload)),
            "MeterValues": lambda: self._meter_values(now_s),
        }
        if wanted in simple:
            return {"status": "Accepted"}, simple[wanted]
        if wanted == "TransactionEvent":
            if self.transaction is None:
                return {"status": "Rejected"}, None
            return {"status": "Accepted"}, lambda: self._update(now_s, "Trigger", "Trigger")
        return {"status": "NotImplemented"}, None

    def _triggered(self) -> Payload:
        return {"reason": "Triggered"}

    def _meter_values(self, time_s: float) -> None:
        values = sampled_values(self.reading, self.version, "Trigger")
        payload = {
            "evseId": 1,
            "meterValue": [{"timestamp": self._grid.times.stamp(time_s), "sampledValue": values}],
        }
        self.link.put(Request("MeterValues", lambda: payload))

    def _on_start(self, payload: Payload) -> tuple[Payload, Then]:
        token, remote = payload["idToken"]["idToken"], payload["remoteStartId"]
        if payload.get("evseId", 1) != 1:
            return _status(Refusal("UnknownEvse", f"evseId {payload['evseId']}: must be 1")), None
        if self.transaction is not None:
            return _status(Refusal("TxInProgress", f"transaction {self.transaction.id} is going on")), None
        refusal = self._install_starting(payload.get("chargingProfile"))
        if refusal is not None:
            return _status(refusal), None
        if self.session is None:
            self._remote_start = remote, token
            return {"status": "Accepted"}, None
        return {"status": "Accepted"}, lambda: self._begin(self._grid.now_s(), "RemoteStart", token, remote)

    def _install_starting(self, profile: Payload | None) -> Refusal | None:
        if profile is None:
            return None
        return self.profiles.set(profile, 1, self._grid.now_s(), self._situation, starting=True)

    def _on_stop(self, payload: Payload) -> tuple[Payload, Then]:
        transaction = self.transaction
        if transaction is None or transaction.id != payload["transactionId"]:
            text = f"there is no transaction {payload['transactionId']}"
            return _status(Refusal("TxNotFound", text)), None
        return {"status": "Accepted"}, lambda: self._end(self._grid.now_s(), "RemoteStop", "Remote")

    def _on_transaction_status(self, payload: Payload) -> Payload:
        queued = self.link.queued > 0
        if "transactionId" not in payload:
            return {"messagesInQueue": queued}
        going_on = self.transaction is not None and self.transaction.id == payload["transactionId"]
        return {"ongoingIndicator": going_on, "messagesInQueue": queued}

    def _on_data(self, payload: Payload) -> Payload:
        return {"status": "UnknownVendorId"}

    def _on_get_variables(self, payload: Payload) -> Payload:
        results = []
        for asked in payload["getVariableData"]:
            result = _echo(asked)
            found = self._variable(asked)
            if isinstance(found, str):
                result["attributeStatus"] = found
            else:
                result |= {"attributeStatus": "Accepted", "attributeValue": found.value}
            results.append(result)
        return {"getVariableResult": results}

    def _variable(self, asked: Payload) -> Variable | str:
        component, variable = asked["component"], asked["variable"]
        of_component = [v for v in self.variables if v.component.lower() == component["name"].lower()]
        if not of_component:
            return "UnknownComponent"
        found = next((v for v in of_component if v.name.lower() == variable["name"].lower()), None)
        if found is None:
            return "UnknownVariable"
        return found if asked.get("attributeType", "Actual") == "Actual" else "NotSupportedAttributeType"

    def _on_set_variables(self, payload: Payload) -> Payload:
        results = []
        for asked in payload["setVariableData"]:
            result = _echo(asked)
            found = self._variable(asked)
            result["attributeStatus"] = (
                found if isinstance(found, str) else self._set(found, asked["attributeValue"])
            )
            results.append(result)
        return {"setVariableResult": results}

    def _set(self, variable: Variable, value: str) -> str:
        """Set a variable; the status."""
        if variable.name == "HeartbeatInterval":
            with contextlib.suppress(ValueError):
                self.interval_s = float(int(value)) if int(value) > 0 else math.inf
                variable.value = value
                return "Accepted"
        return "Accepted" if value == variable.value else "Rejected"

    def _on_base_report(self, payload: Payload) -> tuple[Payload, Then]:
        data = [
            {
                "component": {"name": v.component, **({"evse": {"id": 1}} if v.component == "EVSE" else {})},
                "variable": {"name": v.name},
                "variableAttribute": [{"type": "Actual", "value": v.value, "mutability": v.mutability}],
            }
            for v in self.variables
        ]
        message = {
            "requestId": payload["requestId"], "seqNo": 0, "tbc": False, "reportData": data,
            "generatedAt": self._grid.times.stamp(self._grid.now_s()),
        }  # fmt: skip
        return {"status": "Accepted"}, lambda: self.link.put(Request("NotifyReport", lambda: message))

    def _on_set_der(self, payload: Payload) -> Payload:
        status, refusal, below = self.der.set(payload, self._grid.now_s())
        response = _status(refusal) | {"status": status}
        return response | ({"supersededIds": below} if below else {})

    def _on_get_der(self, payload: Payload) -> tuple[Payload, Then]:
        content = self.der.report(payload)
        if content is None:
            return {"status": "NotFound"}, None
        message = content | {"requestId": payload["requestId"], "tbc": False}
        return {"status": "Accepted"}, lambda: self.link.put(Request("ReportDERControl", lambda: message))

    def _on_clear_der(self, payload: Payload) -> Payload:
        return {"status": self.der.clear(payload)}


class OldStation(Station):
    """A charging station of OCPP 1.6, whose transactions the CSMS numbers."""

    def _boot_payload(self) -> Payload:
        return {
            "chargePointVendor": VENDOR, "chargePointModel": MODEL,
            "chargePointSerialNumber": self.identity[:25],
        }  # fmt: skip

    def _triggered(self) -> Payload:
        return {}

    def _status_payload(self) -> Payload:
        stamp = self._grid.times.stamp(self._grid.now_s())
        status = "Charging" if self._status == "Occupied" else self._status
        return {"connectorId": 1, "errorCode": "NoError", "status": status, "timestamp": stamp}

    def _begin(
        self, time_s: float, trigger: str, token: str | None = None, remote: int | None = None
    ) -> None:
        session = self.session
        assert session is not None
        transaction = self.transaction = Transaction("", time_s, remote_start_id=remote)
        payload = {
            "connectorId": 1, "idTag": (token or session.ev_name)[:20],
            "meterStart": round(self.reading.import_kwh * 1e3),
            "timestamp": self._grid.times.stamp(time_s),
        }  # fmt: skip

        def taken(response: Payload) -> None:
            transaction.id = str(response["transactionId"])
            if self.transaction is transaction:
                self.profiles.start(transaction.id)

        self.link.put(Request("StartTransaction", lambda: payload, kept=True, taken=taken))

    def _update(self, time_s: float, trigger: str, context: str = "Sample.Periodic") -> None:
        transaction = self.transaction
        stamp = self._grid.times.stamp(time_s)
        value = {"timestamp": stamp, "sampledValue": sampled_values(self.reading, self.version, context)}

        def make() -> Payload:
            payload: Payload = {"connectorId": 1, "meterValue": [value]}
            if transaction is not None and transaction.id:
                payload["transactionId"] = int(transaction.id)
            return payload

        self.link.put(Request("MeterValues", make, kept=True, droppable=True))

    def _end(self, time_s: float, trigger: str, reason: str) -> None:
        transaction = self.transaction
        assert transaction is not None
        stamp = self._grid.times.stamp(time_s)
        values = sampled_values(self.reading, self.version, "Transaction.End")
        old = {"ImmediateReset": "HardReset"}
        payload = {
            "meterStop": round(self.reading.import_kwh * 1e3), "timestamp": stamp,
            "reason": old.get(reason, reason),
            "transactionData": [{"timestamp": stamp, "sampledValue": values}],
        }  # fmt: skip
        self.link.put(
            Request(
                "StopTransaction",
                lambda: {**payload, "transactionId": int(transaction.id)} if transaction.id else None,
                kept=True,
            )
        )
        self.transaction = None
        self.profiles.end()

    def _send_needs(self) -> None:
        """OCPP 1.6 has no message for them."""

    def _meter_values(self, time_s: float) -> None:
        self._update(time_s, "Trigger", "Trigger")

    def _on_set_profile(self, payload: Payload) -> Payload:
        profile = profile_from(payload["csChargingProfiles"], "1.6")
        now = self._situation
        if profile["chargingProfilePurpose"] == "TxProfile" and now.transaction_id is not None:
            profile.setdefault("transactionId", now.transaction_id)
        refusal = self.profiles.set(profile, payload["connectorId"], self._grid.now_s(), now)
        return {"status": "Accepted" if refusal is None else "Rejected"}

    def _on_clear_profile(self, payload: Payload) -> Payload:
        criteria: Payload = {
            key: payload[key] for key in ("chargingProfilePurpose", "stackLevel") if key in payload
        }
        if criteria.get("chargingProfilePurpose") == "ChargePointMaxProfile":
            criteria["chargingProfilePurpose"] = "ChargingStationMaxProfile"
        if "connectorId" in payload:
            criteria["evseId"] = payload["connectorId"]
        return {"status": "Accepted" if self.profiles.clear(payload.get("id"), criteria) else "Unknown"}

    def _on_composite(self, payload: Payload) -> Payload:
        unit, connector, duration = (
            payload.get("chargingRateUnit", "W"),
            payload["connectorId"],
            payload["duration"],
        )
        found = self._composite(connector, duration, unit)
        if isinstance(found, Refusal):
            return {"status": "Rejected"}
        start, periods = found
        schedule = {"duration": duration, "chargingRateUnit": unit, "chargingSchedulePeriod": periods}
        return {
            "status": "Accepted", "connectorId": connector, "scheduleStart": start,
            "chargingSchedule": {**schedule, "startSchedule": start},
        }  # fmt: skip

    def _on_reset(self, payload: Payload) -> tuple[Payload, Then]:
        reason = "ImmediateReset" if payload["type"] == "Hard" else "SoftReset"
        return {"status": "Accepted"}, lambda: self._reboot(reason=reason)

    def _on_trigger(self, payload: Payload) -> tuple[Payload, Then]:
        return super()._on_trigger({"requestedMessage": payload["requestedMessage"]})

    def _on_start(self, payload: Payload) -> tuple[Payload, Then]:
        if payload.get("connectorId", 1) != 1 or self.transaction is not None:
            return {"status": "Rejected"}, None
        profile = payload.get("chargingProfile")
        if profile is not None:
            profile = {key: value for key, value in profile.items() if key != "transactionId"}
            if self._install_starting(profile_from(profile, "1.6")) is not None:
                return {"status": "Rejected"}, None
        if self.session is None:
            self._remote_start = 0, payload["idTag"]
            return {"status": "Accepted"}, None
        return {"status": "Accepted"}, lambda: self._begin(
            self._grid.now_s(), "RemoteStart", payload["idTag"]
        )

    def _on_stop(self, payload: Payload) -> tuple[Payload, Then]:
        transaction = self.transaction
        if transaction is None or transaction.id != str(payload["transactionId"]):
            return {"status": "Rejected"}, None
        return {"status": "Accepted"}, lambda: self._end(self._grid.now_s(), "RemoteStop", "Remote")

    def _on_get_configuration(self, payload: Payload) -> Payload:
        asked = payload.get("key") or list(_KEYS)
        known = [key for key in asked if key in _KEYS]
        values = []
        for key in known:
            value = self._configured(key)
            values.append({"key": key, "readonly": key != "HeartbeatInterval", "value": value})
        return {"configurationKey": values, "unknownKey": [key for key in asked if key not in _KEYS]}

    def _configured(self, key: str) -> str:
        name = _KEYS[key]
        return next((v.value for v in self.variables if v.name == name), name)

    def _on_change_configuration(self, payload: Payload) -> Payload:
        key, value = payload["key"], payload["value"]
        if key not in _KEYS:
            return {"status": "NotSupported"}
        found = next((v for v in self.variables if v.name == _KEYS[key]), None)
        if found is None:
            return {"status": "Accepted" if value == _KEYS[key] else "Rejected"}
        return {"status": self._set(found, value)}


def station_of(
    identity: str, evse: Evse, grid: Grid, access: Access, counts: Counts, pending: Pending,
    gate: asyncio.Semaphore, functions: LocalFunctions | None = None,
) -> Station:  # fmt: skip
    """A charging station of the version with which it connects."""
    kind = OldStation if access.version == "1.6" else Station
    return kind(identity, evse, grid, access, counts, pending, gate, functions)


@dataclass
class Variable:
    """A variable of the device model."""

    component: str
    name: str
    value: str
    mutability: str = "ReadOnly"


def _variables(evse: Evse, telemetry_s: float) -> list[Variable]:
    """The device model of a station."""
    modes = ["ChargingOnly", "Idle", "CentralSetpoint", "CentralFrequency"]
    modes += ["LocalFrequency"] if evse.frequency else []
    smart = {
        "Enabled": "true", "Available": "true", "ProfileStackLevel": "1000000",
        "RateUnit": "W" if evse.dc else "A,W",
        "PeriodsPerSchedule": "1024", "Entries": str(MOST_PROFILES), "Phases3to1": "false",
        "ACPhaseSwitchingSupported": "false", "SupportsDynamicProfiles": "true",
        "SupportedAdditionalPurposes": "PriorityCharging,LocalGeneration",
        "SupportsUseLocalTime": "true", "SupportsLimitAtSoC": "true",
        "SupportsRandomizedDelay": "false", "SupportsEvseSleep": "false",
    }  # fmt: skip
    found = [Variable("SmartChargingCtrlr", name, value) for name, value in smart.items()]
    found += [
        Variable("OCPPCommCtrlr", "HeartbeatInterval", "300", "ReadWrite"),
        Variable("SampledDataCtrlr", "TxUpdatedInterval", f"{telemetry_s:.0f}", "ReadWrite"),
        Variable("EVSE", "Power", f"{evse.charge_kw * 1e3:.0f}"),
        Variable("EVSE", "SupplyPhases", str(evse.phases)),
        Variable("V2XChargingCtrlr", "Enabled", str(evse.discharge_kw > 0.0).lower()),
        Variable("V2XChargingCtrlr", "SupportedOperationModes", ",".join(modes)),
        Variable("ChargingStation", "Model", MODEL),
        Variable("ChargingStation", "VendorName", VENDOR),
    ]
    return found


_KEYS = {  # of OCPP 1.6, by variable of the device model or as a constant
    "HeartbeatInterval": "HeartbeatInterval",
    "MeterValueSampleInterval": "TxUpdatedInterval",
    "ChargeProfileMaxStackLevel": "ProfileStackLevel",
    "ChargingScheduleMaxPeriods": "PeriodsPerSchedule",
    "MaxChargingProfilesInstalled": "Entries",
    "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
    "NumberOfConnectors": "1",
    "SupportedFeatureProfiles": "Core,SmartCharging,RemoteTrigger",
}
_HANDLED = {
    "SetChargingProfile": "set_profile",
    "ClearChargingProfile": "clear_profile",
    "GetChargingProfiles": "get_profiles",
    "GetCompositeSchedule": "composite",
    "UpdateDynamicSchedule": "update_schedule",
    "UsePriorityCharging": "priority",
    "AFRRSignal": "signal",
    "Reset": "reset",
    "TriggerMessage": "trigger",
    "RequestStartTransaction": "start",
    "RequestStopTransaction": "stop",
    "RemoteStartTransaction": "start",
    "RemoteStopTransaction": "stop",
    "GetTransactionStatus": "transaction_status",
    "DataTransfer": "data",
    "GetVariables": "get_variables",
    "SetVariables": "set_variables",
    "GetBaseReport": "base_report",
    "SetDERControl": "set_der",
    "GetDERControl": "get_der",
    "ClearDERControl": "clear_der",
    "GetConfiguration": "get_configuration",
    "ChangeConfiguration": "change_configuration",
}


def _echo(asked: Payload) -> Payload:
    """The part of a result that says of which variable it is."""
    return {key: asked[key] for key in ("component", "variable", "attributeType") if key in asked}


def _status(refusal: Refusal | None) -> Payload:
    """A response that accepts, or refuses with its reason."""
    if refusal is None:
        return {"status": "Accepted"}
    info = {"reasonCode": refusal.code[:20], "additionalInfo": refusal.text[:512]}
    return {"status": "Rejected", "statusInfo": info}
