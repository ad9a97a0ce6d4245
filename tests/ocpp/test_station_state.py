"""A charging station as the CSMS knows it: transactions, what is derived, and what is taken for a lie."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.street import street

from evgrid.fleet.rates import Rates
from evgrid.ocpp.books import Books, Untrue
from evgrid.ocpp.messages import Needs, Reading, charging_needs, sampled_values, times_of
from evgrid.ocpp.schemas import MessageError, fault
from evgrid.ocpp.station_state import Planned, StationState

SCENARIO = street()
TIMES = times_of(SCENARIO)
PLANNED = Planned(departure_s=7200.0, energy_kwh=8.0, soc=0.5, capacity_kwh=40.0, efficiency=0.8)


class Station:
    """A state with its books, and messages to it at the time of their timestamps."""

    def __init__(self, version="2.1", planned=PLANNED, **options):
        self.books = Books(SCENARIO.clock, Rates(SCENARIO, None), np.array([10.0]), np.array([6.0]))
        self.now_s, self.seq_no, self.id = 0.0, 0, "t1"
        self.state = StationState(
            "CP_1", 0, "ev0001", self.books, TIMES, lambda: self.now_s, lambda ev, time_s: planned,
            version=version, **options,
        )  # fmt: skip

    def say(self, action, payload, now_s=None):
        self.now_s = self.now_s if now_s is None else now_s
        assert fault(2, action, payload, self.state.version) is None
        response = self.state.answer(action, payload)
        assert fault(3, action, response, self.state.version) is None
        return response

    def event(self, kind, time_s, drawn_kwh=0.0, own_id=None, seq_no=None, sampled=None, **more):
        values = sampled_values(Reading(drawn_kwh, 0.0), "2.1") if sampled is None else sampled
        payload = {
            "eventType": kind, "timestamp": TIMES.stamp(time_s), "triggerReason": "MeterValuePeriodic",
            "seqNo": self.seq_no if seq_no is None else seq_no,
            "transactionInfo": {"transactionId": own_id or self.id},
            "meterValue": [{"timestamp": TIMES.stamp(time_s), "sampledValue": values}], **more,
        }  # fmt: skip
        self.seq_no += 1
        return self.say("TransactionEvent", payload, max(time_s, self.now_s)), payload


def test_transaction_from_begin_to_end():
    station = Station()
    station.event("Started", 100.0, 7.0)
    station.event("Updated", 400.0, 7.5)
    station.event("Ended", 700.0, 8.0)
    (one,) = station.books.transactions
    assert (one.begin_s, one.end_s, one.drawn_kwh) == (100.0, 700.0, 1.0)
    assert station.state.transaction is None
    assert station.state.report(800.0) is None


def test_request_sent_again_counts_once():
    station = Station()
    station.event("Started", 0.0)
    _, payload = station.event("Updated", 300.0, 0.5)
    station.say("TransactionEvent", payload)
    assert station.books.drawn_kwh[0] == 0.5


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([("Started", 1.0, 0.0, "t1", 5), ("Updated", 9.0, 0.0, "t1", 6), ("Updated", 10.0, 0.01, "t1", 6)],
         "replays seqNo 6 after 6"),
        ([("Started", 1.0), ("Started", 9.0)], "t1 is started twice"),
        ([("Started", 1.0), ("Ended", 9.0), ("Started", 10.0)], "t1 has ended, and is started again"),
        ([("Started", 1.0, 5.0), ("Updated", 9.0, 4.0)], "import register fell"),
        ([("Started", 1.0, 5.0), ("Updated", 301.0, 7.0)], "rose by 2000 Wh in 300 s"),
    ],
)  # fmt: skip
def test_transaction_that_cannot_be(messages, says):
    station = Station()
    for message in messages[:-1]:
        station.event(*message)
    with pytest.raises(Untrue, match=says):
        station.event(*messages[-1])


@pytest.mark.parametrize(
    ("off_s", "offline", "good"),
    [(-299, False, True), (-301, False, False), (301, False, False), (-4000, True, True),
     (-700_000, True, False), (301, True, False)],
)  # fmt: skip
def test_timestamps_keep_to_the_clock(off_s, offline, good):
    station = Station()
    station.now_s = 5000.0
    payload = {"eventType": "Started", "timestamp": TIMES.stamp(5000.0 + off_s), "seqNo": 0,
               "triggerReason": "CablePluggedIn", "transactionInfo": {"transactionId": "t"},
               "offline": offline}  # fmt: skip
    if good:
        station.say("TransactionEvent", payload)
    else:
        with pytest.raises(Untrue, match=f"is {abs(off_s):g} s off the CSMS's clock"):
            station.say("TransactionEvent", payload)


def test_phases_of_an_evse_of_one():
    one_phase = Station(one_phase=True)
    on = {name: [{"value": 100.0, "measurand": "Energy.Active.Import.Register", "phase": name,
                  "unitOfMeasure": {"unit": "Wh"}}] for name in ("L1", "L2")}  # fmt: skip
    one_phase.event("Started", 0.0, sampled=on["L2"])
    one_phase.event("Updated", 10.0, sampled=on["L2"])
    with pytest.raises(Untrue, match=r"on one phase, and says Energy.Active.Import.Register on L1 after L2"):
        one_phase.event("Updated", 20.0, sampled=on["L1"])


def test_power_beyond_the_rating():
    station = Station()
    sampled = sampled_values(Reading(0.0, 0.0, power_kw=11.0), "2.1")
    with pytest.raises(Untrue, match="it says that it draws 11 kW: its rating is 10 kW"):
        station.event("Started", 0.0, sampled=sampled)


def test_transaction_that_is_not_known_is_taken_up():
    station = Station()
    station.event("Updated", 50.0, 3.0)
    station.event("Updated", 350.0, 3.5)
    assert station.books.transactions[0].drawn_kwh == 0.5
    assert "taken up" in station.state.events[0]


def test_transaction_left_open_ends_where_another_begins():
    station = Station()
    station.event("Started", 0.0, 1.0)
    station.event("Updated", 300.0, 1.5)
    station.event("Started", 600.0, 2.0, "t2")
    first, second = station.books.transactions
    assert (first.end_s, first.closed, first.drawn_kwh) == (300.0, "another began", 0.5)
    assert second.drawn_kwh + station.books.outside_drawn_kwh[0] == 0.5


def test_boot_in_a_transaction_keeps_it():
    station = Station()
    station.say(
        "BootNotification", {"reason": "PowerUp", "chargingStation": {"vendorName": "v", "model": "m"}}
    )
    station.event("Started", 0.0, 1.0)
    station.state.sent_kw = 3.0
    station.say(
        "BootNotification", {"reason": "PowerUp", "chargingStation": {"vendorName": "v", "model": "m"}}
    )
    assert station.state.sent_kw is None
    station.event("Updated", 600.0, 1.5)
    station.event("Ended", 700.0, 1.5)
    assert [one.drawn_kwh for one in station.books.transactions] == [0.5]
    assert "booted again in transaction t1" in station.state.events[0]


def test_report_says_what_the_station_says():
    station = Station()
    reading = Reading(1.0, 0.5, None, 0.7, 6.5, -5.0, 2.5, 1500.0)
    station.event("Started", 60.0, sampled=sampled_values(reading, "2.1"))
    needs = charging_needs(Needs(3600.0, 2.5, 10.0, 6.0, 1), "2.1", TIMES)
    station.say("NotifyEVChargingNeeds", {"evseId": 1, "chargingNeeds": needs})
    report = station.state.report(600.0)
    assert (report.soc, report.p_max, report.p_min) == pytest.approx((0.7, 6.5, -5.0))
    assert (report.energy_needed, report.time_left, report.time_needed) == pytest.approx(
        (2.5, 3000.0, 1500.0)
    )


def test_report_derives_from_charging_needs():
    """9 kWh wanted by 16:00 + 1 h, at up to 8 of the EVSE's 10 kW; 0.6 kWh drawn since."""
    station = Station("2.0.1")
    station.event("Started", 0.0, 1.0)
    needs = {
        "requestedEnergyTransfer": "DC", "departureTime": TIMES.stamp(3600.0),
        "dcChargingParameters": {"evMaxCurrent": 20, "evMaxVoltage": 400, "evMaxPower": 8000,
                                 "energyAmount": 9000},
    }  # fmt: skip
    station.say("NotifyEVChargingNeeds", {"evseId": 1, "chargingNeeds": needs})
    station.event("Updated", 600.0, 1.6)
    report = station.state.report(600.0)
    assert report.energy_needed == pytest.approx(8.4)
    assert (report.p_max, report.p_min, report.time_left) == (8.0, 0.0, 3000.0)
    assert report.time_needed == pytest.approx(8.4 / 8.0 * 3600.0)
    assert report.soc == pytest.approx(0.5 + 0.8 * 0.6 / 40.0)


def test_report_derives_from_the_scenario_without_needs():
    station = Station()
    station.event("Started", 0.0, 1.0)
    station.event("Updated", 3600.0, 9.0)
    report = station.state.report(3600.0)
    assert (report.energy_needed, report.p_max, report.time_needed) == (0.0, 0.0, 0.0)
    assert report.time_left == 3600.0
    late = station.state.report(7300.0)  # beyond the departure: it may stay to the run's end
    assert late.time_left == SCENARIO.clock.duration_s - 7300.0


def test_report_without_any_session_wants_all_it_can_draw():
    station = Station(planned=None)
    station.event("Started", 0.0, 1.0)
    report = station.state.report(0.0)
    assert report.p_max == 10.0
    assert math.isfinite(report.energy_needed)
    assert report.energy_needed == pytest.approx(10.0 * report.time_left / 3600.0)


def test_transactions_of_ocpp_16():
    """Whole Wh in StartTransaction and StopTransaction, tenths between: 1000 -> 1500.7 -> 1500 Wh."""
    station = Station("1.6")
    start = {"connectorId": 1, "idTag": "ev0001", "meterStart": 1000, "timestamp": TIMES.stamp(0.0)}
    number = station.say("StartTransaction", start)["transactionId"]
    assert station.say("StartTransaction", start)["transactionId"] == number
    sampled = [{"value": "1500.7", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}]
    value = {"timestamp": TIMES.stamp(300.0), "sampledValue": sampled}
    station.say("MeterValues", {"connectorId": 1, "transactionId": number, "meterValue": [value]}, 300.0)
    stop = {"meterStop": 1500, "timestamp": TIMES.stamp(360.0), "transactionId": number}
    station.say("StopTransaction", stop, 360.0)
    station.say("StopTransaction", stop, 360.0)
    (one,) = station.books.transactions
    assert one.drawn_kwh == pytest.approx(0.5007)
    assert one.end_s == 360.0


@pytest.mark.parametrize("number", [-1.0, float("inf")])
def test_needs_that_cannot_be(number):
    """JSON has no infinity, but 1e999."""
    station = Station()
    needs = charging_needs(Needs(3600.0, number, 10.0), "2.1", TIMES)
    with pytest.raises(Untrue, match="charging needs are negative, or no numbers"):
        station.say("NotifyEVChargingNeeds", {"evseId": 1, "chargingNeeds": needs})


_LEAVES = st.sampled_from(
    [0, -1, 1e308, -1e308, 5e-324, 10**400, float("inf"), True, "", "L2", "kWh", "Percent", "SoC",
     "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-07-01T16:00:30", "Started", "Ended",
     "Energy.Active.Export.Register"]
)  # fmt: skip


def _changed(value, data):
    """A payload in which one leaf has another value, or is left out."""
    if isinstance(value, dict) and value:
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 9)) == 0:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _changed(value[key], data)}
    if isinstance(value, list) and value:
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], _changed(value[at], data), *value[at + 1 :]]
    return data.draw(_LEAVES)


@given(st.data())
def test_whatever_a_station_says_is_answered_refused_or_a_lie(data):
    """Requests with leaves changed that the schemas let pass; the books balance after each."""
    station, old = Station(one_phase=True), Station("1.6")
    reading = sampled_values(Reading(1.0, 0.5, 3.0, 0.7, 6.5, -5.0, 2.5, 1500.0), "2.1")
    event = {"eventType": "Updated", "timestamp": TIMES.stamp(0.0), "seqNo": 1, "offline": True,
             "triggerReason": "MeterValuePeriodic", "transactionInfo": {"transactionId": "t"},
             "meterValue": [{"timestamp": TIMES.stamp(0.0), "sampledValue": reading}]}  # fmt: skip
    needs = {"evseId": 1, "chargingNeeds": charging_needs(Needs(3600.0, 2.5, 10.0, 6.0), "2.1", TIMES)}
    start = {"connectorId": 1, "idTag": "a", "meterStart": 1000, "timestamp": TIMES.stamp(0.0)}
    stop = {"transactionId": 1, "meterStop": 1000, "timestamp": TIMES.stamp(0.0)}
    choices = [(station, "TransactionEvent", event), (station, "NotifyEVChargingNeeds", needs),
               (old, "StartTransaction", start), (old, "StopTransaction", stop)]  # fmt: skip
    for _ in range(4):
        who, action, payload = data.draw(st.sampled_from(choices))
        payload = _changed(payload, data)
        if fault(2, action, payload, who.state.version) is not None:
            continue
        with contextlib.suppress(MessageError, Untrue):
            who.say(action, payload)
        books = who.books
        drawn = sum(one.drawn_kwh - one.given_kwh for one in books.transactions)
        drawn += float((books.outside_drawn_kwh - books.outside_given_kwh).sum())
        assert drawn == pytest.approx(float(books.net_kwh.sum()), abs=1e-9)
        report = who.state.report(60.0)
        assert report is None or not any(map(math.isnan, vars(report).values()))


def test_needs_without_parameters_are_refused():
    station = Station()
    payload = {"evseId": 1, "chargingNeeds": {"requestedEnergyTransfer": "DC"}}
    assert station.say("NotifyEVChargingNeeds", payload) == {"status": "Rejected"}
    assert "charging needs that can't be used" in station.state.events[0]


def test_request_that_is_not_for_a_csms():
    station = Station()
    with pytest.raises(MessageError, match="is not implemented by this CSMS"):
        station.say("SignCertificate", {"csr": "a"})
    response = station.say("DataTransfer", {"vendorId": "somebody"})
    assert response["status"] == "UnknownVendorId"


def test_nothing_is_booked_after_the_run():
    station = Station()
    station.event("Started", 0.0, 1.0)
    station.books.closed = True
    with pytest.raises(MessageError, match="the run has ended"):
        station.event("Updated", 300.0, 1.5)
    assert station.books.drawn_kwh[0] == 0.0
    assert "currentTime" in station.say("Heartbeat", {})


def test_security_event_is_in_the_result():
    station = Station()
    event = {"type": "SettingSystemTime", "timestamp": TIMES.stamp(0.0)}
    assert station.say("SecurityEventNotification", event) == {}
    assert "security event 'SettingSystemTime'" in station.state.events[0]


REGISTER = "Energy.Active.Import.Register"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": "1,5"}, r"Energy.Active.Import.Register is '1,5': must be a number such as 1.5"),
        ({"unit": "kvarh"}, r"Energy.Active.Import.Register is in kvarh: must be in Wh, kWh, W or kW"),
    ],
)
def test_meter_value_that_is_no_number_is_malformed_and_books_nothing(change, says):
    """Nor is anything of its message booked, such as the good value beside it."""
    station = Station("1.6")
    start = {"connectorId": 1, "idTag": "a", "meterStart": 1000, "timestamp": TIMES.stamp(0.0)}
    station.say("StartTransaction", start)
    values = [
        {"timestamp": TIMES.stamp(60.0), "sampledValue": [{"value": "1100", "measurand": REGISTER} | each]}
        for each in ({}, change)
    ]
    with pytest.raises(MessageError, match=says) as found:
        station.say("MeterValues", {"connectorId": 1, "meterValue": values}, 60.0)
    assert found.value.code == "PropertyConstraintViolation"
    assert station.books.drawn_kwh[0] == 0.0


def test_transaction_whose_begin_is_malformed_has_not_begun():
    station = Station("2.1")
    sampled = [{"value": 1.0, "measurand": REGISTER, "unitOfMeasure": {"unit": "kvarh"}}]
    with pytest.raises(MessageError, match="is in kvarh"):
        station.event("Started", 0.0, sampled=sampled)
    assert station.state.transaction is None
    station.event("Started", 0.0)
    assert station.state.transaction is not None


@given(st.permutations(range(6)))
def test_meter_values_of_a_message_are_taken_in_the_order_of_time(order):
    station = Station()
    station.event("Started", 0.0)
    values = [
        {"timestamp": TIMES.stamp(60.0 * (1 + at)),
         "sampledValue": sampled_values(Reading(0.1 * (1 + at), 0.0), "2.1")}
        for at in order
    ]  # fmt: skip
    station.now_s = 360.0
    station.event("Updated", 360.0, meterValue=values)
    assert station.books.drawn_kwh[0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("version", "action", "payload"),
    [
        ("2.1", "TransactionEvent", {"evse": {"id": 2}}),
        ("2.0.1", "TransactionEvent", {"evse": {"id": 0}}),
        ("2.1", "StatusNotification", {"evseId": 2, "connectorId": 1, "connectorStatus": "Available"}),
        ("2.1", "MeterValues", {"evseId": 7}),
        ("2.1", "NotifyEVChargingNeeds", {"evseId": 3}),
        ("1.6", "StartTransaction", {"connectorId": 0, "idTag": "a", "meterStart": 1}),
        ("1.6", "MeterValues", {"connectorId": 2}),
        ("1.6", "StatusNotification", {"connectorId": 2, "errorCode": "NoError", "status": "Available"}),
    ],
)
def test_another_evse_than_the_stations_one_is_refused(version, action, payload):
    reading = sampled_values(Reading(1.0, 0.0), version)
    stamp, value = TIMES.stamp(0.0), {"timestamp": TIMES.stamp(0.0), "sampledValue": reading}
    payload = dict(payload)
    if action == "TransactionEvent":
        payload |= {"eventType": "Started", "seqNo": 0, "triggerReason": "CablePluggedIn",
                    "transactionInfo": {"transactionId": "t"}}  # fmt: skip
    if action in ("TransactionEvent", "StartTransaction") or (action, version) == (
        "StatusNotification",
        "2.1",
    ):
        payload["timestamp"] = stamp
    if action == "MeterValues":
        payload["meterValue"] = [value]
    if action == "NotifyEVChargingNeeds":
        payload["chargingNeeds"] = charging_needs(Needs(3600.0, 2.5, 10.0), "2.1", TIMES)
    station = Station(version)
    with pytest.raises(MessageError, match=rf"of {action} is \d: the station has one EVSE; must be") as found:
        station.say(action, payload)
    assert found.value.code == "PropertyConstraintViolation"
    assert not station.books.transactions


def test_status_of_a_whole_charge_point_of_ocpp_16():
    status = {"connectorId": 0, "errorCode": "NoError", "status": "Available"}
    assert Station("1.6").say("StatusNotification", status) == {}


def test_timestamp_without_a_zone_is_malformed():
    station = Station()
    payload = {"eventType": "Started", "timestamp": "2026-07-01T16:00:30", "seqNo": 0,
               "triggerReason": "CablePluggedIn", "transactionInfo": {"transactionId": "t"}}  # fmt: skip
    with pytest.raises(MessageError, match=r"has no time zone: must end with Z or an offset") as found:
        station.say("TransactionEvent", payload)
    assert found.value.code == "FormatViolation"
