"""Faults between charging stations and the CSMS: each ends as docs/how_to/ocpp.md says; no energy is lost."""

import asyncio
import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
from tests.support.charging_stations import CallError, run_beside
from tests.support.street import street
from websockets.exceptions import ConnectionClosedError, InvalidStatus

import evgrid
from evgrid.errors import AuditError, RunError
from evgrid.ocpp.books import Books
from evgrid.ocpp.server import Refused, _Link
from evgrid.results import settlement
from evgrid.results.metrics import summary
from evgrid.results.plots import save_overview

TICK_S, TICKS = 60.0, 16
SCENARIO = street(
    {"ensemble.members": 1, "fleet.count": 13, "fleet.charger.bidirectional": 0, "fleet.charger.phases": 1,
     "time.duration": f"{TICKS}min", "time.step": "1min", "communication.telemetry": "1min",
     "feeder.phases": 1},
    aggregators={"main": {"strategy": "peak_limit", "limit_kw": 1000.0}},
)  # fmt: skip
"""Its limit binds nowhere, so that EVs are asked to charge as fast as they can."""
KWH = 0.1
"""Energy that each station counts in each tick, kWh: 6 kW of 7.4."""
_VARIABLE = {"component": {"name": "a"}, "variable": {"name": "b"}, "attributeValue": "c"}
LIARS = ("negative", "falling", "nan", "too_fast", "phase", "replay", "clock", "again")


async def _lie(name, station, tick):
    """What each liar says at the end of the tick before ``tick``, besides its meter value."""
    time_s = tick * TICK_S
    if name == "negative":
        station.drawn_kwh = -1.0
        await station.report(time_s)
    elif name == "falling":
        await station.report(time_s, -0.2)
    elif name == "nan":
        event = station.event("Updated", time_s)
        event["meterValue"][0]["sampledValue"][0]["value"] = float("nan")
        await station.call("TransactionEvent", event)
    elif name == "too_fast":
        await station.report(time_s, 10.0)
    elif name == "phase":
        for phase in ("L1", "L2"):
            event = station.event("Updated", time_s)
            event["meterValue"][0]["sampledValue"][0]["phase"] = phase
            await station.call("TransactionEvent", event)
    elif name == "replay":
        station.seq_no -= 2
        await station.report(time_s, KWH)
    elif name == "clock":
        await station.report(time_s + 3600.0, KWH)
    elif name == "again":
        await station.start(time_s, station.id)


async def _malformed(beside, station):
    """Messages that are none; the connection stays."""
    found = []
    for text in ("{", "[]", '[2,"a"]', '[9,"b","Heartbeat",{}]', '[2,"c","Heartbeat",[]]'):
        await station.socket.send(text)
        while not station.errors:
            await asyncio.sleep(0.001)
        found.append(station.errors.pop()[1:3])
    for action, payload in (
        ("Heartbeat", {"more": 1}), ("NoAction", {}), ("ReportChargingProfiles", _profiles("NewPurpose")),
    ):  # fmt: skip
        try:
            await station.call(action, payload)
        except CallError as error:
            found.append(error.args[0])
    await station.call("Heartbeat", {})
    return found


def _profiles(purpose):
    profile = {
        "id": 1, "stackLevel": 0, "chargingProfilePurpose": purpose, "chargingProfileKind": "Relative",
        "chargingSchedule": [{"id": 1, "chargingRateUnit": "W",
                              "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 0.0}]}],
    }  # fmt: skip
    return {"requestId": 1, "chargingLimitSource": "CSO", "evseId": 1, "chargingProfile": [profile]}


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """One run with a station for each fault; each charges 0.1 kWh a tick, and is at fault in the fifth."""
    names = dict(zip(LIARS, (f"ev{n:04d}" for n in range(1, 9)), strict=True))
    gone, reboots, two, refuses, malformed = (f"ev{n:04d}" for n in range(9, 14))
    seen = SimpleNamespace(names=names, gone=gone, reboots=reboots, two=two, refuses=refuses, bad=malformed)

    async def alone(beside, name, identity, barrier):
        """A liar: honest for four ticks, then cut off; afterwards it is refused."""
        async with beside.station(identity) as station:
            await station.boot()
            await barrier(0)
            await station.start(0.0)
            for tick in range(1, TICKS + 1):
                if tick < 5:
                    await station.report(tick * TICK_S, KWH)
                elif tick == 5:
                    with pytest.raises(ConnectionError) as closed:
                        await _lie(name, station, tick)
                    seen.closed[name] = closed.value.args
                    with pytest.raises(Exception, match="403"):
                        async with beside.station(identity):
                            pass
                await barrier(tick)

    async def disconnected(beside, barrier):
        """Away for ten ticks; what it kept comes as offline messages."""
        kept, drawn = [], 0.0
        for tick in range(TICKS + 1):
            if tick == 0:
                async with beside.station(gone) as station:
                    await station.boot()
                    await barrier(0)
                    await station.start(0.0)
                    await station.report(TICK_S, KWH)
                    await barrier(1)
            elif 2 <= tick < 12:
                station.drawn_kwh += KWH
                kept.append(station.event("Updated", tick * TICK_S, offline=True))
                await barrier(tick)
            elif tick == 12:
                drawn, seq_no = station.drawn_kwh, station.seq_no
                async with beside.station(gone) as station:
                    station.drawn_kwh, station.seq_no, station.id = drawn, seq_no, "t1"
                    for event in kept:
                        await station.call("TransactionEvent", event)
                    for late in range(12, TICKS + 1):
                        await station.report(late * TICK_S, KWH)
                        await barrier(late)

    async def steady(beside, identity, barrier, at_fault):
        async with beside.station(identity) as station:
            if identity == refuses:
                station.refuses = {"TxDefaultProfile"}
            await station.boot()
            await barrier(0)
            await station.start(0.0)
            for tick in range(1, TICKS + 1):
                station.drawn_kwh += KWH
                if tick == 5:
                    await at_fault(station, tick)
                await station.report(tick * TICK_S)
                await barrier(tick)
            seen.profiles[identity] = station.profiles
            seen.booted[identity] = [name for name, _ in station.requests].count("SetChargingProfile")

    async def reboot(station, tick):
        station.profiles.clear()
        await station.boot()

    async def another(station, tick):
        await station.start(tick * TICK_S, "t2")

    async def nothing(station, tick):
        pass

    async def play(beside):
        waiting = asyncio.Barrier(len(names) + 5 + 1)

        async def barrier(tick):
            await waiting.wait()  # all have said what they say of the tick
            await waiting.wait()  # the clock was answered

        async def clock():
            for tick in range(TICKS + 1):
                await waiting.wait()
                await beside.tick(tick)
                await waiting.wait()

        async def speak_badly(station, tick):
            seen.codes = await _malformed(beside, station)

        async with asyncio.TaskGroup() as group:
            group.create_task(clock())
            for name, identity in names.items():
                group.create_task(alone(beside, name, identity, barrier))
            group.create_task(disconnected(beside, barrier))
            for identity, fault in (
                (reboots, reboot), (two, another), (refuses, nothing), (malformed, speak_badly)
            ):  # fmt: skip
                group.create_task(steady(beside, identity, barrier, fault))

    seen.closed, seen.profiles, seen.booted = {}, {}, {}
    seen.path = tmp_path_factory.mktemp("faults") / "result.nc"
    seen.result, _ = run_beside(SCENARIO, play, output=seen.path)
    seen.stations = json.loads(seen.result.attrs["stations"])
    seen.transactions = json.loads(seen.result.attrs["transactions"])
    return seen


def of(seen, identity):
    return [one for one in seen.transactions if one["station"] == identity]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("negative", "import register reads -1000 Wh"),
        ("falling", "import register fell from 400 to 200 Wh"),
        ("nan", "NaN or Infinity"),
        ("too_fast", "rose by 10000 Wh in 60 s"),
        ("phase", "on one phase, and says Energy.Active.Import.Register on L2 after L1"),
        ("replay", "replays seqNo"),
        ("clock", "off the CSMS's clock"),
        ("again", "t1 is started twice"),
    ],
)
def test_station_that_lies_is_cut_off_and_named_and_its_books_closed(faults, name, says):
    identity = faults.names[name]
    assert says in faults.stations[identity]["offence"]
    assert faults.closed[name][0] == 1008
    assert "cut off" in faults.closed[name][1]
    (one,) = of(faults, identity)
    assert one["closed"] == "cut off"
    assert one["drawn_kwh"] == pytest.approx(4 * KWH)  # that of the last credible value
    assert faults.stations[identity]["drawn_kwh"] == pytest.approx(4 * KWH)


def test_csms_that_was_gone_for_ten_minutes_has_all_energy_afterwards(faults):
    (one,) = of(faults, faults.gone)
    assert one["drawn_kwh"] == pytest.approx(TICKS * KWH)
    assert faults.stations[faults.gone]["connections"] == 2
    late = faults.result["late_energy_kwh"].values[0]
    assert late[:11] == pytest.approx(0.0)  # held at the last power, which was right
    assert late == pytest.approx(0.0)


def test_station_that_boots_in_a_transaction_gets_its_profiles_again(faults):
    (one,) = of(faults, faults.reboots)
    assert one["drawn_kwh"] == pytest.approx(TICKS * KWH)
    assert sorted(faults.profiles[faults.reboots]) == [1, 2, 3]
    assert faults.stations[faults.reboots]["boots"] == 2


def test_second_transaction_closes_the_first_at_its_last_value(faults):
    first, second = of(faults, faults.two)
    assert first["closed"] == "another began"
    assert first["drawn_kwh"] == pytest.approx(4 * KWH)
    both = first["drawn_kwh"] + second["drawn_kwh"]
    assert both == pytest.approx(TICKS * KWH)


def test_station_that_refuses_a_purpose_is_named_and_led_by_transaction_profiles(faults):
    assert sorted(faults.profiles[faults.refuses]) == [3]
    assert any("refused a TxDefaultProfile" in event for event in faults.stations[faults.refuses]["events"])
    assert of(faults, faults.refuses)[0]["drawn_kwh"] == pytest.approx(TICKS * KWH)


def test_malformed_messages_are_answered_and_the_station_stays(faults):
    assert faults.codes == [
        ["-1", "RpcFrameworkError"], ["-1", "RpcFrameworkError"], ["a", "RpcFrameworkError"],
        ["b", "MessageTypeNotSupported"], ["c", "RpcFrameworkError"],
        "FormatViolation", "NotImplemented", "PropertyConstraintViolation",
    ]  # fmt: skip
    assert of(faults, faults.bad)[0]["drawn_kwh"] == pytest.approx(TICKS * KWH)


def test_no_energy_is_lost_from_the_books(faults):
    """The registers' energy is that of the ticks, of the transactions, and of the scenario's sessions."""
    result = faults.result
    audit = json.loads(result.attrs["audit"])
    assert audit["metering_ticks_relative"] < 1e-9
    assert audit["metering_transactions_relative"] < 1e-9
    total = 8 * 4 * KWH + 5 * TICKS * KWH
    assert result["ev_energy_drawn_kwh"].sum() == pytest.approx(total)
    outside = float(result["ev_energy_outside_kwh"].sum())
    assert sum(one["drawn_kwh"] for one in faults.transactions) + outside == pytest.approx(total)
    with_session = set(result["session_ev"].values.tolist())
    of_sessions = [one["drawn_kwh"] for one in faults.transactions if one["ev"] in with_session]
    assert result["session_energy_delivered_kwh"].sum() == pytest.approx(sum(of_sessions))
    ticks = float(result["fleet_power_kw"].sum()) / 60.0 + float(result["late_energy_kwh"].sum())
    assert ticks == pytest.approx(total)


def test_result_is_one_of_evgrid(faults):
    """It is opened, summarised and drawn; what meters do not say is said."""
    with evgrid.open_results(faults.path) as result:
        rows = dict(summary(result))
        assert "13 of 13 connected" in rows["charging stations"]
        assert "losses" in rows["  not metered"]
        assert "cut off: ev0003" in "".join(rows)
        assert rows["EVs, sessions"].endswith("9 transactions ended in the run")  # cut off, and another began
        assert save_overview(result, faults.path.with_suffix(".png")).exists()


def test_energy_that_stations_do_not_say_is_not_said_to_be_none(faults):
    """None of these stations has said what its EV wants."""
    ended = np.ones(faults.result.sizes["session"], dtype=bool)
    rows = dict(summary(faults.result.assign_coords(session_complete=("session", ended))))
    drawn = float(faults.result["session_energy_delivered_kwh"].sum())
    assert rows["sessions that ended"] == (
        f"asked not reported, {drawn:.1f} kWh drawn, 0.0 given back, unserved not reported"
    )
    settled = settlement.settle(faults.result)
    assert dict(settlement.summary(settled, "USD"))["energy unserved"] == "not reported"
    assert settled.fleet["drawn_kwh"].to_numpy() == pytest.approx([drawn])
    some = faults.result["session_energy_requested_kwh"].copy()
    some[0] = 4.0
    part = faults.result.assign(session_energy_requested_kwh=some)
    rows = dict(summary(part.assign_coords(session_complete=("session", ended))))
    assert rows["sessions that ended"].startswith(f"4.0 kWh asked (of 1 of {len(some)} sessions), ")


def test_request_that_cannot_be_sent_as_the_connection_ends_leaves_nothing_behind():
    """The answer fails while the request still waits to be sent."""
    left = []

    async def play():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context["message"]))
        closed = asyncio.Event()

        async def send(text):
            await closed.wait()
            raise ConnectionClosedError(None, None)

        state = SimpleNamespace(counts=SimpleNamespace(sent=0))
        link = _Link(SimpleNamespace(send=send), state, "2.1", 5.0)
        calling = asyncio.create_task(link.call("SetVariables", {"setVariableData": [_VARIABLE]}))
        while not link.waiting:
            await asyncio.sleep(0)
        for _, answer in link.waiting.values():
            answer.set_exception(Refused("the connection ended"))
        del answer
        closed.set()
        with pytest.raises(ConnectionClosedError):
            await calling
        del calling
        gc.collect()

    asyncio.run(play())
    assert left == []


def test_station_that_does_not_answer_is_disconnected_and_nothing_waits_for_it():
    async def play(beside):
        async with beside.station("ev0001") as station:
            station.answers = False
            await station.boot()
            for tick in range(3):
                await beside.tick(tick)
            await station.socket.wait_closed()
            return station.socket.close_code

    scenario = street({"ensemble.members": 1, "fleet.count": 1, "time.duration": "10min"},
                      aggregators={"main": {"strategy": "peak_limit", "limit_kw": 10.0}})  # fmt: skip
    result, code = run_beside(scenario, play, answer_s=0.2)
    assert code == 1008
    events = json.loads(result.attrs["stations"])["ev0001"]["events"]
    assert any("didn't answer in 0.2 s" in event for event in events)


def test_station_that_never_answers_holds_up_lockstep_three_times():
    """It comes back each tick; another, which does not boot, and an honest one hold up nothing."""

    async def play(beside):
        found = []
        async with beside.station("ev0002"), beside.station("ev0003") as honest:
            await honest.boot()
            for tick in range(3):
                async with beside.station("ev0001") as station:
                    station.answers = False
                    await station.boot()
                    await beside.tick(tick)
                    await station.socket.wait_closed()
                    found.append(station.socket.close_reason)
            with pytest.raises(InvalidStatus, match="403"):
                async with beside.station("ev0001"):
                    pass
            for tick in (3, 4):
                await beside.tick(tick)
        return found

    scenario = street({"ensemble.members": 1, "fleet.count": 3, "time.duration": "20min"},
                      aggregators={"main": {"strategy": "peak_limit", "limit_kw": 10.0}})  # fmt: skip
    result, found = run_beside(scenario, play, answer_s=0.1)
    assert found[:2] == ["no answer in time"] * 2
    assert found[2] == "cut off: it didn't answer in 0.1 s, 3 times"
    of = json.loads(result.attrs["stations"])
    assert of["ev0001"]["offence"] == "it didn't answer in 0.1 s, 3 times"
    assert not of["ev0003"]["events"]


def test_stations_clock_that_stands_still_ends_the_run():
    async def play(beside):
        await beside.tick(0)

    with pytest.raises(RunError, match=r"stations' clock .* has not gone on within 0.2 s"):
        run_beside(SCENARIO, play, patience_s=0.2)


def test_by_wall_time_the_same_books():
    """A tick of a minute takes 0.1 s."""

    async def at(beside, station, time_s):
        while (now_s := beside.times.seconds((await station.call("Heartbeat", {}))["currentTime"])) < time_s:
            await asyncio.sleep(0.01)
        return now_s

    async def play(beside):
        async with beside.station("ev0001") as station:
            await station.boot()
            now_s = await at(beside, station, 1.0)
            await station.start(now_s)
            for _ in range(6):
                now_s = await at(beside, station, now_s + 40.0)
                await station.report(now_s, 0.05)
            await station.stop(now_s + 1.0)

    of_one = {"ensemble.members": 1, "fleet.count": 1, "time.duration": "10min", "time.step": "1min"}
    scenario = street(of_one, aggregators={"main": {"strategy": "peak_limit", "limit_kw": 10.0}})
    result, _ = run_beside(scenario, play, lockstep=False, speed=600.0)
    assert result["ev_energy_drawn_kwh"].values == pytest.approx([0.3])
    assert result["session_energy_delivered_kwh"].values == pytest.approx([0.3])
    ticks = float(result["fleet_power_kw"].sum()) / 60.0 + float(result["late_energy_kwh"].sum())
    assert ticks == pytest.approx(0.3)


def _one_station(**changes):
    of_one = {"ensemble.members": 1, "fleet.count": 1, "time.duration": "10min", "time.step": "1min"}
    return street(of_one | changes, aggregators={"main": {"strategy": "peak_limit", "limit_kw": 100.0}})


def test_energy_held_for_a_station_that_stays_silent_is_taken_back_at_the_end(tmp_path):
    """Two ticks at 6 kW, then silence in the transaction: 8 minutes at 6 kW are held, 0.8 kWh."""

    async def play(beside):
        async with beside.station("ev0001") as station:
            await station.boot()
            await beside.tick(0)
            await station.start(0.0)
            for tick in (1, 2):
                await station.report(tick * TICK_S, KWH)
                await beside.tick(tick)
        for tick in range(3, 11):
            await beside.tick(tick)

    scenario = _one_station(
        **{"feeder.step": "5min", "record.step": "5min", "communication.telemetry": "1min"}
    )
    path = tmp_path / "result.nc"
    run_beside(scenario, play, output=path)
    with evgrid.open_results(path) as result:
        drawn = float(result["ev_energy_drawn_kwh"].sum())
        ticks = float(result["fleet_power_kw"].sum()) / 12.0
        assert drawn == pytest.approx(2 * KWH)
        assert ticks == pytest.approx(10 * KWH)
        assert result["late_energy_kwh"].values.ravel() == pytest.approx([0.0, -8 * KWH])
        rows = dict(summary(result))
    assert rows["  held for silent stations"].startswith("0.8 kWh in ticks that no register shows")


def test_audit_notices_energy_that_is_missing_in_the_ticks(monkeypatch):
    """Of the energy of each tick a tenth is lost on its way to the recorded power."""
    made = Books.settle

    def settle(books, ev):
        now_kwh, past_kwh = made(books, ev)
        return 0.9 * now_kwh, past_kwh

    async def play(beside):
        async with beside.station("ev0001") as station:
            await station.boot()
            await beside.tick(0)
            await station.start(0.0)
            for tick in range(1, 11):
                await station.report(tick * TICK_S, KWH)
                await beside.tick(tick)

    monkeypatch.setattr(Books, "settle", settle)
    with pytest.raises(AuditError, match="registers is not that of the ticks and late energy"):
        run_beside(_one_station(**{"communication.telemetry": "1min"}), play)


def test_first_tick_begins_when_the_first_station_has_booted():
    """A fifth of a second without a station is four ticks at 1200 times: none of them has passed."""

    async def play(beside):
        await asyncio.sleep(0.2)
        async with beside.station("ev0001") as station:
            booted = await station.boot()
            return beside.times.seconds(booted["currentTime"])

    result, time_s = run_beside(_one_station(), play, lockstep=False, speed=1200.0)
    assert time_s == 0.0
    assert result["station_messages"].values.ravel()[0] > 0.0


def test_clock_of_a_station_may_be_off_by_seconds_of_wall_time():
    """At 6000 times 20 minutes are 0.2 s of wall time, which is no offence."""

    async def play(beside):
        async with beside.station("ev0001") as station:
            await station.boot()
            await station.start(-1200.0)

    result, _ = run_beside(_one_station(), play, lockstep=False, speed=6000.0)
    assert json.loads(result.attrs["stations"])["ev0001"]["offence"] == ""


def test_run_that_starts_now_does_not_wait_for_stations():
    """Its clock is that of the wall, not of simulated stations."""

    async def play(beside):
        with pytest.raises(InvalidStatus, match="404"):
            async with beside.client("evgrid-clock"):
                pass

    now = {"start": "now", "speed": 1200.0, "duration": "10min", "step": "1min"}
    scenario = street({"ensemble.members": 1, "fleet.count": 1}, time=now,
                      aggregators={"main": {"strategy": "peak_limit", "limit_kw": 100.0}})  # fmt: skip
    result, _ = run_beside(scenario, play, lockstep=False, speed=1200.0)
    assert float(result["stations_connected"].sum()) == 0.0


def test_station_that_has_not_booted_is_refused_and_asked_to_boot():
    """Its events are no offence: a station that was up before the CSMS does not know that it must boot."""

    async def play(beside):
        async with beside.station("ev0001") as station:
            for _ in range(12):
                with pytest.raises(CallError, match="SecurityError"):
                    await station.start(0.0)
            await station.boot()
            await beside.tick(0)
            await station.start(0.0)
            await station.report(TICK_S, KWH)
            for tick in range(1, 11):
                await beside.tick(tick)
            return [action for action, _ in station.requests]

    result, asked = run_beside(_one_station(), play)
    assert asked.count("TriggerMessage") == 1
    assert result["ev_energy_drawn_kwh"].values == pytest.approx([KWH])
    station = json.loads(result.attrs["stations"])["ev0001"]
    assert (station["offence"], station["malformed"]) == ("", 0)
    assert "sent TransactionEvent before a BootNotification" in station["events"][0]
