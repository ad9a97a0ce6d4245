"""A charging station as the CSMS knows it: what its messages say, and whether they can be true.

In: requests of OCPP 2.1, 2.0.1 or 1.6 as dictionaries, checked against their schemas already. Out: the
responses, the state of the station (boot, status, transaction, charging needs, meter) and its books
(:mod:`.books`). No input or output here: that is :mod:`.server`'s. A station has one EVSE.

What a station doesn't say is derived (:meth:`StationState.report`) from its charging needs, else from the
scenario's session of its EV, and from its registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from evgrid.ocpp.books import Books, Transaction, Untrue
from evgrid.ocpp.messages import Needs, Reading, Times, needs_of, reading_of
from evgrid.ocpp.schemas import MessageError, Payload, Version

CLOCK_S = 300.0
"""Most by which a timestamp of a station may differ from the CSMS's clock, s; those of messages kept while it
was offline may be older."""
KEPT_S = 7 * 86_400.0
"""Most by which a message that was kept while a station was offline may be older than the run, s."""
_IMPORT = "Energy.Active.Import.Register"
_ONE_PHASE = ("Energy.Active", "Power.Active", "Current.Import", "Current.Export")


@dataclass(frozen=True)
class Planned:
    """What the scenario knows of a session of an EV, where the station doesn't say it.

    departure_s : s from the run's start
    energy_kwh : wanted at the grid
    soc, capacity_kwh, efficiency : at arrival, usable, of charging
    """

    departure_s: float
    energy_kwh: float
    soc: float
    capacity_kwh: float
    efficiency: float


@dataclass(frozen=True)
class Report:
    """What an aggregator sees of an EV: see :class:`evgrid.fleet.kernels.reports.Status`."""

    soc: float
    p_max: float
    p_min: float
    energy_needed: float
    time_left: float
    time_needed: float


@dataclass
class Counts:
    """Messages and events of a station."""

    received: int = 0
    sent: int = 0
    malformed: int = 0
    refused_profiles: int = 0
    late_profiles: int = 0
    connections: int = 0
    boots: int = 0


@dataclass
class StationState:
    """One charging station.

    identity, ev, ev_name : its identity, and the row and name of its EV
    planned : the scenario's session of the EV at a time, s
    now : the CSMS's clock, s from the run's start
    offence : why it was cut off, "" if it wasn't
    sent_kw : set-point of the TxProfile that it has, None: none
    sent_until_s : when that expires
    clock_s : most by which its timestamps may differ from the clock
    one_phase : whether the EVSE has one phase
    """

    identity: str
    ev: int
    ev_name: str
    books: Books
    times: Times
    now: Callable[[], float]
    planned: Callable[[int, float], Planned | None]
    clock_s: float = CLOCK_S
    one_phase: bool = False
    version: Version | None = None
    connected: bool = False
    booted: bool = False
    status: str = ""
    offence: str = ""
    transaction: Transaction | None = None
    needs: Needs | None = None
    reading: Reading | None = None
    sent_kw: float | None = None
    sent_until_s: float = math.inf
    standing_until_s: float = -math.inf
    standing: bool = False
    unanswered: int = 0
    """Requests that it has not answered in time."""
    counts: Counts = field(default_factory=Counts)
    events: list[str] = field(default_factory=list)
    """What happened that a reader of the result should know, a sentence each."""
    _ended: set[str] = field(default_factory=set)
    _seq_no: int = -1
    _last_event: Payload | None = None
    _phase: str = ""
    _begin: Reading | None = None

    def answer(self, action: str, payload: Payload) -> Payload:
        """The response to a request.

        Raises
        ------
        MessageError
            If the CSMS doesn't support it, or its content breaks the protocol.
        Untrue
            If what it says can't be: the station is to be cut off.

        """
        handler = getattr(self, f"_on_{_HANDLED.get(action, '')}", None)
        if handler is None:
            raise MessageError("NotImplemented", f"{action} is not implemented by this CSMS")
        if self.books.closed and action in _BOOKED:
            raise MessageError("InternalError", "the run has ended: nothing more is booked")
        self._check_place(action, payload)
        try:
            response: Payload = handler(payload)
        except (MessageError, Untrue):
            raise
        except (ArithmeticError, ValueError):  # numbers beyond what can be computed with
            text = f"{action} has a number that can't be computed with"
            raise MessageError("PropertyConstraintViolation", text) from None
        return response

    def _on_boot(self, payload: Payload) -> Payload:
        self.booted = True
        self.counts.boots += 1
        self.sent_kw, self.standing, self.standing_until_s = None, False, -math.inf
        if self.counts.boots > 1:
            during = f" in transaction {self.transaction.id}" if self.transaction else ""
            self.note(f"booted again{during}")
        return {"currentTime": self.times.stamp(self.now()), "interval": 300, "status": "Accepted"}

    def _on_heartbeat(self, payload: Payload) -> Payload:
        return {"currentTime": self.times.stamp(self.now())}

    def _on_status(self, payload: Payload) -> Payload:
        self.status = str(payload.get("connectorStatus", payload.get("status", "")))
        return {}

    def _on_authorize(self, payload: Payload) -> Payload:
        return {"idTagInfo" if self.version == "1.6" else "idTokenInfo": {"status": "Accepted"}}

    def _on_security(self, payload: Payload) -> Payload:
        kind = str(payload.get("type", ""))
        self.note(f"security event {kind[:50]!r}")
        return {}

    def _on_nothing(self, payload: Payload) -> Payload:
        return {}

    def _on_data(self, payload: Payload) -> Payload:
        return {"status": "UnknownVendorId"}

    def _on_needs(self, payload: Payload) -> Payload:
        try:
            needs = needs_of(payload["chargingNeeds"], self.times)
        except ValueError as error:
            self.note(f"has charging needs that can't be used: {error}")
            return {"status": "Rejected"}
        numbers = needs.energy_kwh, needs.charge_kw, needs.discharge_kw
        if not all(0.0 <= number < math.inf for number in numbers):
            raise Untrue("its charging needs are negative, or no numbers")
        self.needs = needs
        if self.transaction is not None and math.isnan(self.transaction.wanted_kwh):
            self.transaction.wanted_kwh = needs.energy_kwh
        return {"status": "Accepted"}

    def _on_transaction(self, payload: Payload) -> Payload:
        response: Payload = {"idTokenInfo": {"status": "Accepted"}} if "idToken" in payload else {}
        if payload == self._last_event:
            return response  # sent again, as its answer got lost
        kind, own_id = payload["eventType"], payload["transactionInfo"]["transactionId"]
        offline, seq_no = bool(payload.get("offline")), int(payload["seqNo"])
        time_s = self._time(payload["timestamp"], offline)
        self._check_seq_no(own_id, kind, seq_no)
        readings = self._readings(payload.get("meterValue", []), offline)
        if kind == "Started":
            self._open(own_id, time_s)
        elif self.transaction is None or self.transaction.id != own_id:
            self._open(own_id, time_s)
            stamp = self.books.clock.stamp(time_s)
            self.note(f"transaction {own_id} was taken up at {stamp}, after its begin")
        for at_s, reading in readings:
            self._read(at_s, reading)
        if kind == "Ended":
            self._close(time_s, payload["transactionInfo"].get("stoppedReason", "Local"))
        self._seq_no, self._last_event = seq_no, payload
        return response

    def _check_seq_no(self, own_id: str, kind: str, seq_no: int) -> None:
        if own_id in self._ended:
            raise Untrue(f"transaction {own_id} has ended, and is {kind.lower()} again")
        if self.transaction is None or self.transaction.id != own_id:
            return
        if kind == "Started":
            raise Untrue(f"transaction {own_id} is started twice")
        if seq_no <= self._seq_no:
            raise Untrue(f"transaction {own_id} replays seqNo {seq_no} after {self._seq_no}")

    def _on_start(self, payload: Payload) -> Payload:
        """StartTransaction of OCPP 1.6."""
        time_s = self._time(payload["timestamp"], offline=True)
        if self._last_event == payload and self.transaction is not None:
            return {"transactionId": int(self.transaction.id), "idTagInfo": {"status": "Accepted"}}
        number = str(1 + len(self.books.transactions))
        self._open(number, time_s)
        self._read(time_s, Reading(payload["meterStart"] / 1e3, self._export_kwh()))
        self._last_event = payload
        return {"transactionId": int(number), "idTagInfo": {"status": "Accepted"}}

    def _on_stop(self, payload: Payload) -> Payload:
        """StopTransaction of OCPP 1.6."""
        number = str(payload["transactionId"])
        if payload == self._last_event:
            return {}
        if self.transaction is None or self.transaction.id != number:
            if number in self._ended:
                raise Untrue(f"transaction {number} is ended twice")
            self.note(f"ended transaction {number}, which it had not begun")
            return {}
        time_s = self._time(payload["timestamp"], offline=True)
        for at_s, reading in self._readings(payload.get("transactionData", []), offline=True):
            self._read(at_s, reading)
        self._read(time_s, Reading(payload["meterStop"] / 1e3, self._export_kwh()))
        self._close(time_s, payload.get("reason", "Local"))
        self._last_event = payload
        return {}

    def _on_meter(self, payload: Payload) -> Payload:
        if payload.get("evseId", payload.get("connectorId")) == 0:
            return {}  # of the main meter
        for time_s, reading in self._readings(payload["meterValue"], offline=self.version == "1.6"):
            self._read(time_s, reading)
        return {}

    def _time(self, text: str, offline: bool) -> float:
        """Simulated time of a timestamp. Raises Untrue for one far from the CSMS's clock."""
        try:
            time_s = self.times.seconds(text)
            zoned = datetime.fromisoformat(text).tzinfo is not None
        except ValueError:
            raise MessageError("FormatViolation", f"{text[:40]!r} is no timestamp") from None
        if not zoned:
            text = f"timestamp {text[:40]!r} has no time zone: must end with Z or an offset"
            raise MessageError("FormatViolation", text)
        now_s = self.now()
        oldest_s = -KEPT_S if offline else now_s - self.clock_s
        if not oldest_s <= time_s <= now_s + self.clock_s:
            raise Untrue(f"its timestamp {text[:40]} is {abs(time_s - now_s):.6g} s off the CSMS's clock")
        return time_s

    def _open(self, own_id: str, time_s: float) -> None:
        if self.transaction is not None:
            self.note(f"transaction {self.transaction.id} was closed, as {own_id} began")
            self.close_books("another began")
        self.transaction = Transaction(self.ev, self.identity, own_id, time_s)
        self.books.transactions.append(self.transaction)
        self.needs, self.reading, self._seq_no, self._begin = None, None, -1, None
        self.sent_kw, self.sent_until_s = None, math.inf

    def _close(self, time_s: float, reason: str) -> None:
        open_one = self.transaction
        assert open_one is not None
        last = self.reading
        open_one.end_s, open_one.closed = max(time_s, open_one.begin_s), reason
        if last is not None:
            open_one.soc_end = math.nan if last.soc is None else last.soc
        wanted = open_one.wanted_kwh - open_one.drawn_kwh + open_one.given_kwh
        needed = None if last is None else last.energy_needed_kwh
        open_one.missing_kwh = max(wanted, 0.0) if needed is None else needed
        self._ended.add(open_one.id)
        self.transaction = self.needs = self.reading = self.sent_kw = None

    def close_books(self, reason: str) -> None:
        """Close the open transaction, if any, at its last credible reading."""
        if self.transaction is not None:
            read_s = self.books.read_at(self.ev)
            self._close(read_s if math.isfinite(read_s) else self.transaction.begin_s, reason)

    def cut_off(self, offence: str) -> None:
        """Note that the station can't be trusted, and close its books."""
        self.offence = offence
        self.note(f"was cut off: {offence}")
        self.close_books("cut off")
        self.connected = False

    def note(self, event: str) -> None:
        """Keep a sentence about the station."""
        if len(self.events) < 100:
            self.events.append(f"{self.books.clock.stamp(max(self.now(), 0.0))}: {self.identity} {event}")

    def _readings(self, meter_values: list[Payload], offline: bool) -> list[tuple[float, Reading]]:
        """Times and readings of a message's meter values in the order of time, nothing of which is booked.

        Raises MessageError for a malformed one, Untrue for one that can't be.
        """
        found = []
        for value in meter_values:
            time_s = self._time(value["timestamp"], offline)
            sampled = value["sampledValue"]
            if any(one.get("measurand", _IMPORT) == _IMPORT for one in sampled):
                try:
                    found.append((time_s, reading_of(sampled, self.version or "2.1")))
                except MessageError:
                    raise
                except ValueError as error:
                    raise Untrue(f"its meter value of {self.books.clock.stamp(time_s)}: {error}") from None
            self._check_phases(sampled)
        return sorted(found, key=itemgetter(0))

    def _check_place(self, action: str, payload: Payload) -> None:
        """The one EVSE has number 1, in OCPP 1.6 as connector; 0 is the station as a whole."""
        least = _LEAST_PLACE.get(action)
        if least is None:
            return
        name = "connectorId" if self.version == "1.6" else "evse.id" if "evse" in payload else "evseId"
        place = payload["evse"]["id"] if name == "evse.id" else payload.get(name, 1)
        if not least <= place <= 1:
            allowed = "1" if least else "0 or 1"
            text = f"{name} of {action} is {place}: the station has one EVSE; must be {allowed}"
            raise MessageError("PropertyConstraintViolation", text)

    def _read(self, time_s: float, reading: Reading) -> None:
        if reading.power_kw is not None:
            self.books.check_power(self.ev, reading.power_kw)
        if reading.soc is not None and not -0.001 <= reading.soc <= 1.001:
            raise Untrue(f"its state of charge is {100 * reading.soc:g} %")
        self.books.read(self.ev, time_s, reading.import_kwh, reading.export_kwh, self.transaction)
        self.reading = reading
        one = self.transaction
        if one is not None and self._begin is None:
            self._begin = reading
            one.soc_begin = math.nan if reading.soc is None else reading.soc
            if math.isnan(one.wanted_kwh) and reading.energy_needed_kwh is not None:
                one.wanted_kwh = reading.energy_needed_kwh

    def _check_phases(self, sampled: list[Payload]) -> None:
        """An EVSE of one phase has energy and power on one, always the same."""
        if not self.one_phase:
            return
        for one in sampled:
            phase = str(one.get("phase", ""))[:2]
            name = one.get("measurand", _IMPORT)
            if phase not in ("L1", "L2", "L3") or not name.startswith(_ONE_PHASE):
                continue
            try:
                nothing = float(one["value"]) == 0.0
            except ValueError:
                nothing = False
            if nothing:
                continue
            if self._phase and phase != self._phase:
                raise Untrue(f"it is on one phase, and says {name} on {phase} after {self._phase}")
            self._phase = phase

    def _export_kwh(self) -> float:
        """The export register where a message can't say it: as it was."""
        return self.books.export_kwh(self.ev)

    def report(self, time_s: float) -> Report | None:
        """What the aggregator sees of the EV at a time; None: it isn't plugged in.

        What the last meter value doesn't say is taken, in this order, from the charging needs, from the
        scenario's session of the EV that is nearest in time, and from the registers:

        ==============  ================================================================================
        energy_needed   energy wanted at the begin less energy drawn since, not below 0
        p_max           the lesser of the EVSE's rating and the needs' greatest power; 0 if nothing is needed
        p_min           0, unless the needs or the meter value say that the EV gives back (OCPP 2.1)
        time_needed     energy_needed / p_max
        time_left       to the departure of the needs, else of the scenario's session, else to the run's end
        soc             of the scenario's session at arrival and the energy since
        ==============  ================================================================================
        """
        one = self.transaction
        if one is None:
            return None
        reading, needs, rating = self.reading, self.needs, float(self.books.charge_kw[self.ev])
        planned = self.planned(self.ev, one.begin_s)
        net = one.drawn_kwh - one.given_kwh
        wanted = one.wanted_kwh
        if math.isnan(wanted):
            wanted = planned.energy_kwh if planned is not None else math.inf
        needed = reading.energy_needed_kwh if reading is not None else None
        if needed is None:
            needed = max(wanted - net, 0.0)
        most = reading.p_max_kw if reading is not None else None
        if most is None:
            most = min(rating, needs.charge_kw) if needs is not None and needs.charge_kw > 0 else rating
            most = most if needed > 0.0 else 0.0
        least = reading.p_min_kw if reading is not None else None
        if least is None:
            most_given = min(needs.discharge_kw, float(self.books.discharge_kw[self.ev])) if needs else 0.0
            least = -most_given + 0.0
        departure = needs.departure_s if needs is not None else None
        if departure is None:
            departure = planned.departure_s if planned is not None else math.inf
            if departure <= time_s:
                departure = max(self.books.clock.duration_s, time_s)
        departure = min(departure, time_s + 30 * 86400.0)
        if not math.isfinite(needed):  # nobody says: as much as it can draw until it leaves
            needed = most * (departure - time_s) / 3600.0
        needed_s = reading.time_needed_s if reading is not None else None
        if needed_s is None:
            needed_s = 3600.0 * needed / most if most > 0.0 else 0.0
        soc = reading.soc if reading is not None else None
        if soc is None:
            soc = 0.0
            if planned is not None:
                soc = min(max(planned.soc + planned.efficiency * net / planned.capacity_kwh, 0.0), 1.0)
        return Report(soc, most, least, needed, departure - time_s, needed_s)


_LEAST_PLACE = {
    "TransactionEvent": 1, "StartTransaction": 1, "NotifyEVChargingNeeds": 1, "MeterValues": 0,
    "StatusNotification": 0,
}  # fmt: skip
_BOOKED = ("TransactionEvent", "StartTransaction", "StopTransaction", "MeterValues")
_HANDLED: dict[str, Any] = {
    "BootNotification": "boot",
    "Heartbeat": "heartbeat",
    "StatusNotification": "status",
    "Authorize": "authorize",
    "SecurityEventNotification": "security",
    "NotifyEVChargingNeeds": "needs",
    "TransactionEvent": "transaction",
    "StartTransaction": "start",
    "StopTransaction": "stop",
    "MeterValues": "meter",
    "DataTransfer": "data",
    "ReportChargingProfiles": "nothing",
    "NotifyEvent": "nothing",
    "NotifyReport": "nothing",
    "ClearedChargingLimit": "nothing",
    "FirmwareStatusNotification": "nothing",
    "LogStatusNotification": "nothing",
}
