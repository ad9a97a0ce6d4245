# ruff: noqa: E501
"""Events of OpenADR 3 as signals: times, units, what is known when, and faults."""

import json
from pathlib import Path

import numpy as np
import pytest
from openadr3.entities.models import Event as ItsEvent
from openadr3.entities.raw import RawEvent
from tests.support.openadr import event, moment, notified, rules, signals, spans
from tests.support.street import street

import evgrid
from evgrid.errors import ScenarioError
from evgrid.readers.openadr import objects_in, read_openadr
from evgrid.readers.signals import ALWAYS_S, steps_of
from evgrid.runs.simulation import build_world, run_with_report
from evgrid.scenario.system import events_of

VALIDATION = Path(__file__).parents[1] / "validation"
HOURLY = {"start": moment(6), "duration": "PT1H"}


def prices(*values, **more):
    """An event with a price in each interval."""
    given = [{"id": k, "payloads": [{"type": "PRICE", "values": [v]}]} for k, v in enumerate(values)]
    return {"id": "e", "programID": "p", "intervalPeriod": HOURLY, "intervals": given, **more}


# ---- intervals --------------------------------------------------------------------------------------


def test_intervals_follow_each_other_with_the_events_period():
    content = prices(0.17, 0.22, 0.3)
    content["intervals"][1]["intervalPeriod"] = {"duration": "PT2H"}
    content["intervals"][2]["intervalPeriod"] = {"start": moment(12)}
    assert spans(signals([content]).known(0.0).winners("price")) == [
        (6, 7, 0.17),
        (7, 9, 0.22),
        (12, 13, 0.3),
    ]


def test_times_are_those_of_another_library():
    content = prices(1, 2, 3, 4)
    content["intervals"][1]["intervalPeriod"] = {"duration": "PT30M"}
    content["intervals"][3]["intervalPeriod"] = {"start": "2026-01-15T20:00:00+02:00", "duration": "P1DT2H"}
    theirs = [
        tuple(
            (edge - ItsEvent.from_raw(prices(1)).interval_period.start).total_seconds() / 3600 + 6
            for edge in i.interval_period.period
        )
        for i in ItsEvent.from_raw(content).resolved_intervals()
    ]
    ours = spans(signals([content]).known(0.0).winners("price"))
    assert [span[:2] for span in ours] == theirs


def test_several_values_share_the_interval():
    found = signals([event("e", 0, 3, 0) | {"intervals": [
        {"id": 0, "intervalPeriod": {"start": moment(0), "duration": "PT3H"}, "payloads": [{"type": "PRICE", "values": [0.17, 0.03, 0.11]}]}
    ]}])  # fmt: skip
    assert spans(found.known(0.0).winners("price")) == [(0, 1, 0.17), (1, 2, 0.03), (2, 3, 0.11)]


def test_a_longer_event_repeats_its_intervals_and_a_shorter_one_cuts_them():
    found = signals([prices(1, 2, duration="PT5H")])
    assert spans(found.known(0.0).winners("price")) == [
        (6, 7, 1),
        (7, 8, 2),
        (8, 9, 1),
        (9, 10, 2),
        (10, 11, 1),
    ]
    found = signals([prices(1, 2, duration="PT90M")])
    assert spans(found.known(0.0).winners("price")) == [(6, 7, 1), (7, 7.5, 2)]
    forever = signals([prices(1, 2, duration="P9999Y")]).known(0.0).winners("price")
    assert forever[-1][1] >= 24 * 3600 + 13 * 24 * 3600


def test_an_event_that_begins_now_begins_when_it_is_known():
    content = event("e", 0, 1, 2, "SIMPLE", createdDateTime=moment(5))
    content["intervals"][0]["intervalPeriod"] = {"start": "0001-01-01T00:00:00Z", "duration": "P9999Y"}
    begin, end, block = signals([content]).known(6 * 3600.0).winners("level")[0]
    assert (begin, end, block.value) == (5 * 3600.0, ALWAYS_S, 2)
    del content["createdDateTime"]
    assert signals([content]).known(0.0).winners("level")[0][0] == 0.0


# ---- clocks -----------------------------------------------------------------------------------------


def test_times_pass_the_autumn_change_once():
    # 22:00 UTC is local midnight; hours of the local clock: 0, 1, 2 (twice), 3
    content = prices(*range(6), intervalPeriod={"start": "2026-10-24T22:00:00Z", "duration": "PT1H"})
    found = signals([content], rules("Europe/Berlin", "2026-10-25T00:00"))
    assert spans(found.known(0.0).winners("price")) == [(0, 1, 0), (1, 2, 1), (2, 3, 2), (3, 4, 4), (4, 5, 5)]


def test_the_hour_that_is_skipped_in_spring_has_the_value_before():
    content = prices(*range(4), intervalPeriod={"start": "2026-03-28T23:00:00Z", "duration": "PT1H"})
    found = signals([content], rules("Europe/Berlin", "2026-03-29T00:00"))
    assert spans(found.known(0.0).winners("price")) == [(0, 1, 0), (1, 3, 1), (3, 4, 2), (4, 5, 3)]


# ---- units ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "units", "value", "kind", "found"),
    [
        ("PRICE", "KWH", 0.3, "price", 0.3),
        ("PRICE", "MWH", 300, "price", 0.3),
        ("PRICE", "KWH", -0.05, "price", -0.05),
        ("EXPORT_PRICE", "MWH", 80, "export_price", 0.08),
        ("GHG", "GHG", 400, "emissions", 400.0),
        ("GHG", "LB/MWH", 1000, "emissions", 453.59237),
        ("DISPATCH_SETPOINT", "KW", -7, "power", -7.0),
        ("DISPATCH_SETPOINT", "MW", 1.5, "power", 1500.0),
        ("DISPATCH_SETPOINT_RELATIVE", "W", -500, "power_change", -0.5),
        ("DISPATCH_SETPOINT_RELATIVE", "PERCENT", -0.5, "regulation", 0.5),
        ("IMPORT_CAPACITY_LIMIT", "KW", 0, "import_limit", 0.0),
        ("EXPORT_CAPACITY_LIMIT", "W", 4000, "export_limit", 4.0),
        ("CHARGE_STATE_SETPOINT", "PERCENT", 0.8, "charge", 0.8),
        ("SIMPLE", None, 3, "level", 3.0),
        ("ALERT_GRID_EMERGENCY", None, "act", "level", 3.0),
        ("ALERT_BLACK_START", None, "wait", "level", 3.0),
        ("ALERT_FLEX_ALERT", None, "shift", "level", 2.0),
    ],
)
def test_units(payload, units, value, kind, found):
    descriptors = [{"payloadType": payload, "units": units}] if units else []
    made = signals([event("e", 0, 1, value, payload, payloadDescriptors=descriptors)])
    assert [(b.kind, pytest.approx(b.value)) for b in made.blocks] == [(kind, found)]
    assert made.notes == ()


def test_what_is_not_followed_or_assumed_is_said():
    found = signals([
        event("a", 0, 1, "fire", "ALERT_FIRE"), event("b", 0, 1, 5, "CONTROL_SETPOINT"), event("c", 0, 1, 0.3),
        event("d", 2, 1, 0.3, "ALERT_FIRE"), {"id": "r", "programID": "p"},
    ])  # fmt: skip
    assert found.notes == (
        "events of OpenADR: not used are ALERT_FIRE (2), CONTROL_SETPOINT (1), events without intervals (1)",
        "events of OpenADR without units are taken to be in KWH (PRICE)",
    )
    assert signals([event("a", 0, 1, 0.3, programID="other")], rules(programs=("p",))).blocks == ()
    none = signals([event("a", 0, 0, 0.3), event("b", 0, 1, 0.3, duration="PT0S")])
    assert (none.blocks, none.notes) == ((), ("events of OpenADR: not used are events of no duration (2)",))


# ---- what is known when -----------------------------------------------------------------------------


def test_prices_for_others_are_said_and_those_for_the_run_count():
    objects = [event("a", 0, 1, 1, targets=["x", "y"]), event("b", 1, 1, 2, targets=["y", "z"])]
    found = signals(objects, rules(targets=("z",)))
    assert spans(found.actual("price")) == [(1, 2, 2)]
    assert found.notes[0] == "events of OpenADR: not used are PRICE for x or y (1)"


def test_an_update_holds_from_its_modification_and_not_before():
    old = event("e", 6, 2, 0.1, modificationDateTime=moment(1))
    new = event("e", 7, 2, 0.5, modificationDateTime=moment(7.5))
    found = signals([new, old])
    assert found.known(0.0).winners("price") == []
    assert spans(found.known(3600.0).winners("price")) == [(6, 8, 0.1)]
    assert spans(found.known(7.5 * 3600.0).winners("price")) == [(7, 9, 0.5)]
    assert spans(found.actual("price")) == [(6, 7.5, 0.1), (7.5, 9, 0.5)]


def test_a_cancelled_event_is_as_though_never_sent_from_then_on():
    sent, other = event("e", 2, 6, 0.1, priority=0), event("o", 0, 10, 0.3, priority=4)
    found = signals([other, sent, notified("DELETE", 5, sent)])
    assert spans(found.actual("price")) == [(0, 2, 0.3), (2, 5, 0.1), (5, 10, 0.3)]
    assert spans(found.known(5 * 3600.0).winners("price")) == spans(
        signals([other]).known(0.0).winners("price")
    )


def test_the_last_price_holds_on_when_its_event_is_gone_and_is_0_before_any_is_known():
    price = event("e", 2, 8, 0.3, createdDateTime=moment(1))
    found = signals([price, notified("DELETE", 5, price)])
    hours_s = 3600.0 * np.array([0.5, 1.5, 3.5, 7.5, 20.5])
    held = [0.0, 0.3, 0.3, 0.3, 0.3]
    assert [float(found.held("price").at(t)) for t in hours_s] == held
    assert [float(found.known(t).held("price").at(t)) for t in hours_s] == held


def test_the_lowest_priority_number_wins_and_one_without_loses():
    found = signals([event("a", 0, 4, 1), event("b", 1, 2, 2, priority=7), event("c", 2, 1, 3, priority=0)])
    assert spans(found.known(0.0).winners("price")) == [(0, 1, 1), (1, 2, 2), (2, 3, 3), (3, 4, 1)]


def test_steps_hold_on_or_are_as_stated_between():
    found = signals([event("a", 1, 1, 5), event("b", 3, 1, 7)]).known(0.0).winners("price")
    hold, zero = steps_of(found), steps_of(found, 0.0)
    times = 3600 * np.array([0.5, 1.5, 2.5, 3.5, 9.0])
    assert [float(hold.at(t)) for t in times] == [5, 5, 5, 7, 7]
    assert [float(zero.at(t)) for t in times] == [0, 5, 0, 7, 0]


# ---- faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "object 1 = 7: must be an event, or a notification of one"),
        ({"id": "e"}, "object 1: programID: is required"),
        (event("e", 0, 1, 1, "SIMPLE", priority=-1), "object 1: priority = -1: input should be greater than or equal to 0"),
        (event("e", 0, 1, 4, "SIMPLE"), "event e: SIMPLE = 4: must be a whole number from 0 to 3"),
        (event("e", 0, 1, 1.5, "SIMPLE"), "event e: SIMPLE = 1.5: must be a whole number from 0 to 3"),
        (event("e", 0, 1, "x"), "event e: PRICE = x: must be a number"),
        (event("e", 0, 1, True), "event e: PRICE = True: must be a number"),
        (event("e", 0, 1, 1e300), "event e: PRICE = 1e+300: must be a number from -1e+09 to 1e+09"),
        (event("e", 0, 1, -10**400, "DISPATCH_SETPOINT", payloadDescriptors=[{"payloadType": "DISPATCH_SETPOINT", "units": "W"}]),
         f"event e: DISPATCH_SETPOINT = -1{'0' * 58}…: must be a number from -1e+12 to 1e+12"),
        (event("e", 0, 1, -1, "IMPORT_CAPACITY_LIMIT"), "event e: IMPORT_CAPACITY_LIMIT = -1: must be at least 0"),
        (event("e", 0, 1, -1, "GHG"), "event e: GHG = -1: must be at least 0"),
        (
            event("e", 0, 1, 1, payloadDescriptors=[{"payloadType": "PRICE", "units": "THERMS"}]),
            "event e: units of PRICE = THERMS: must be one of KWH, MWH",
        ),
        (
            event("e", 0, 1, 1, payloadDescriptors=[{"payloadType": "PRICE", "units": "KWH", "currency": "USD"}]),
            "event e: currency of PRICE = USD: must be that of the scenario, EUR",
        ),
        (prices(1, intervalPeriod={"start": "2026-01-15T06:00", "duration": "PT1H"}),
         "object 1: intervalPeriod.start = 2026-01-15T06:00: must be a time with its zone, such as 2026-01-15T18:30:00Z"),
        (prices(1, intervalPeriod={"start": moment(0), "duration": "1 h"}),
         "object 1: intervalPeriod.duration = 1 h: must be a duration of ISO 8601, such as PT1H"),
        (prices(1, intervalPeriod={"start": moment(0), "duration": "P1M"}),
         "object 1: intervalPeriod.duration = P1M: must be in weeks, days, hours, minutes and seconds, or P9999Y for no end"),
        (prices(1, intervalPeriod={"start": moment(0)}),
         "event e: intervals[0].intervalPeriod.duration: is required, there or of the event"),
        (prices(1, intervalPeriod={"duration": "PT1H"}),
         "event e: intervalPeriod.start: is required, of the event or of its first interval"),
        (prices(1, duration="P9999Y", intervalPeriod={"start": moment(0), "duration": "PT1S"}),
         "event e: has more than 1000000 intervals in the run, as it repeats them"),
        (prices(1, intervalPeriod={"start": moment(0), "duration": "PT1H", "randomizeStart": "P9999Y"}),
         "event e: randomizeStart of intervals[0]: must be at most a year"),
        ({"operation": "DELETE", "objectType": "EVENT", "object": prices(1)},
         "object 1: receivedDateTime: is required with DELETE, the time of the cancellation"),
        ({"operation": "READ", "object": prices(1)}, "object 1: operation = READ: must be CREATE, UPDATE or DELETE"),
    ],
)  # fmt: skip
def test_faults_are_one_sentence_each(tmp_path, given, message):
    file = tmp_path / "events.json"
    file.write_text(json.dumps([given]))
    with pytest.raises(ScenarioError) as caught:
        read_openadr(file, rules(currency="EUR"))
    assert caught.value.faults == [message]


def test_a_line_that_is_no_json_is_named(tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(prices(1)) + "\n\n{")
    with pytest.raises(ScenarioError, match="line 3: is no JSON"):
        read_openadr(file, rules())


# ---- in a scenario ----------------------------------------------------------------------------------


def given(tmp_path, *objects, **more):
    """The section system with a file of events."""
    file = tmp_path / "events.json"
    file.write_text(json.dumps(objects))
    return {"openadr": {"file": str(file), "timezone": "UTC", **more}}


def hours(day_hour):
    """Hours from START to an hour of 1 July."""
    return (np.datetime64("2026-07-01T00:00") - np.datetime64("2026-01-15T00:00")) / np.timedelta64(
        1, "h"
    ) + day_hour


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ({"regulation": {"source": "openadr"}}, "system.regulation.source = openadr: needs system.openadr"),
        ({"openadr": {"timezone": "UTC"}}, "give either file or vtn"),
        ({"openadr": {"vtn": {"url": "https://x"}, "timezone": "UTC", "follow": ["CHARGE_STATE_SETPOINT"]}},
         "follow = CHARGE_STATE_SETPOINT: is for files, not for vtn"),
        ({"openadr": {"file": "events.json", "timezone": "UTC", "currency": "EUR"}, "energy_price": {"file": "events.json", "currency": "USD"}},
         "system.openadr.currency = EUR: must be that of system.energy_price"),
        ({"openadr": {"file": "events.json", "timezone": "UTC"}, "ieee2030_5": {"files": ["events.json"], "timezone": "UTC", "limits_of": "group"}},
         "system.ieee2030_5.limits_of = group: must be that of system.openadr"),
        ({"openadr": {"vtn": {"url": "https://x"}, "timezone": "UTC", "follow": ["PRICE"]}, "ieee2030_5": {"files": ["events.json"], "timezone": "UTC"}},
         "system.openadr and system.ieee2030_5: can be given together only from files"),
        ({"openadr": {"file": "events.json", "timezone": "Mars"}}, "system.openadr.timezone = Mars"),
    ],
)  # fmt: skip
def test_settings_at_fault(tmp_path, monkeypatch, system, message):
    (tmp_path / "events.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScenarioError) as caught:
        street(system=system)
    assert any(message in fault for fault in caught.value.faults), caught.value.faults


def test_sites_need_prices_that_are_known(tmp_path):
    vtn = {"vtn": {"url": "https://x"}, "timezone": "UTC", "follow": ["PRICE"]}
    sites = {"home": {"connections": ["Load R11"], "load": {"kw": 1}}}
    with pytest.raises(ScenarioError) as caught:
        street(system={"openadr": vtn}, tariff=None, sites=sites, overrides={"ensemble.members": 1})
    assert "system.openadr.vtn: sites need prices that are known when the run begins" in caught.value.faults


def test_events_and_prices_of_a_scenario(tmp_path):
    system = given(
        tmp_path, event("e", hours(18), 1, 2, "SIMPLE", targets=["main"]), event("p", hours(0), 24, 0.3)
    )
    scenario = street(system=system, tariff=None)
    assert scenario.has_prices
    found = scenario.signals
    [one] = events_of(scenario.system, scenario.clock, found, {"main"})
    assert (str(one.start), one.duration, one.level) == ("2026-07-01 18:00:00", 3600.0, 2)
    assert events_of(scenario.system, scenario.clock, found, {"other"}) == []
    assert scenario.prices.means(np.array([0.0, 3600.0]))[0] == pytest.approx(0.3)


def test_what_follow_leaves_out_is_not_followed(tmp_path):
    system = given(
        tmp_path, event("p", hours(0), 24, 0.3), event("l", hours(0), 24, 5, "IMPORT_CAPACITY_LIMIT")
    )
    scenario = street(
        system=system, tariff=None, overrides={"system.openadr.follow": ["IMPORT_CAPACITY_LIMIT"]}
    )
    assert not scenario.has_prices
    assert scenario.signals.kinds == {"import_limit"}
    assert any("not used are PRICE (1)" in note for note in scenario.signals.notes)


def test_what_has_no_effect_is_said(tmp_path):
    percent = [{"payloadType": "DISPATCH_SETPOINT_RELATIVE", "units": "PERCENT"}]
    system = given(
        tmp_path,
        event("p", hours(17), 1, 0.3),
        event("l", hours(17), 1, 5, "IMPORT_CAPACITY_LIMIT", targets=["nobody"]),
        event("r", hours(17), 1, 0.5, "DISPATCH_SETPOINT_RELATIVE", payloadDescriptors=percent),
    )
    notes = build_world(street(system=system)).notes
    for said in (
        "signals of 3 events: import limit (1), price (1), regulation (1)",
        "prices of OpenADR are recorded only: energy costs what the tariff says",
        "regulation by OpenADR is not used: it needs system.regulation.source = openadr",
        "set-points and limits of signals are not followed: no aggregator controls EVs",
        "signals are for nobody in this run: those for nobody",
    ):
        assert said in notes


def test_prices_for_a_target_of_the_run_count(tmp_path):
    events = [event("p", hours(17), 1, 0.3, targets=["group-1"]), event("q", hours(18), 1, 9, targets=["x"])]
    scenario = street(tariff=None, system=given(tmp_path, *events, targets=["group-1"]))
    price = scenario.prices.drawn(3600.0, 6 * 3600.0)
    assert [float(price.at(3600.0 * hour)) for hour in (1.5, 2.5)] == [0.3, 0.3]
    assert "events of OpenADR: not used are PRICE for x (1)" in build_world(scenario).notes


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([], "costs are not known: there is neither a tariff nor a price of OpenADR"),
        ([event("p", 0, 0, 0.3)], "no price of OpenADR is for this run: energy costs 0"),
    ],
)
def test_a_list_without_events_is_said(tmp_path, objects, said):
    notes = build_world(street(tariff=None, system=given(tmp_path, *objects))).notes
    assert "signals from outside: no events for this run" in notes
    assert [note for note in notes if "cost" in note] == [said]


def test_prices_of_a_file_hold_where_no_event_does(tmp_path):
    (tmp_path / "price.csv").write_text("time,a\n0,100\n90000,100\n")
    system = given(tmp_path, event("p", hours(17), 1, 0.3)) | {
        "energy_price": {"file": str(tmp_path / "price.csv")}
    }
    edges = 3600.0 * np.arange(4)
    assert street(system=system, tariff=None).prices.means(edges)[0].tolist() == pytest.approx(
        [0.1, 0.3, 0.1]
    )


def test_a_limit_of_a_group_counts_its_other_load_as_peak_limit_does(tmp_path):
    limit = event("l", hours(16), 6, 800, "IMPORT_CAPACITY_LIMIT", targets=["substation"])
    system = given(tmp_path, limit, limits_of="group", targets=["substation"])
    fleet = {"count": 60, "charger": {"power_kw": 11, "phases": 3}}
    by_signal, by_setting = (
        evgrid.run(
            street(
                fleet=fleet, tariff=None, aggregators={"main": {"group": "feeder", **strategy}}, **more,
                overrides={"ensemble.members": 1},
            )
        )
        for strategy, more in (
            ({"strategy": "demand_response"}, {"system": system}),
            ({"strategy": "peak_limit", "limit_kw": 800}, {}),
        )
    )  # fmt: skip
    np.testing.assert_allclose(by_signal["fleet_power_kw"], by_setting["fleet_power_kw"], rtol=1e-9)


def test_a_loop_of_ones_own_sees_events_as_they_become_known(tmp_path):
    late = event("e", hours(18), 1, 2, "SIMPLE", createdDateTime=moment(hours(17)))
    with evgrid.stepwise(street(system=given(tmp_path, late), overrides={"time.duration": "90min"})) as run:
        seen = {}
        while not run.done:
            seen[run.view.time_s] = len(run.context.events)
            run.step(run.view.p_max)
    assert [count for time, count in seen.items() if time < 3600] == [0] * 12
    assert [count for time, count in seen.items() if time >= 3600] == [1] * 6


@pytest.mark.slow
def test_the_processes_of_a_run_see_the_same_signals(tmp_path):
    objects = [
        event("p", hours(0), 24, 0.3), event("p", hours(0), 24, 0.4, modificationDateTime=moment(hours(17))),
        event("c", hours(19), 2, 0.1, priority=0), event("l", hours(17), 3, 40, "IMPORT_CAPACITY_LIMIT"),
    ]  # fmt: skip
    scenario = street(
        system=given(tmp_path, *objects), tariff=None, aggregators={"main": {"strategy": "tou"}},
        overrides={"time.duration": "4h"},
    )  # fmt: skip
    one, several = (run_with_report(scenario, processes=processes)[0] for processes in (False, True))
    for name in ("fleet_power_kw", "session_cost", "setpoint_kw"):
        np.testing.assert_array_equal(one[name], several[name], err_msg=name)


@pytest.mark.parametrize(
    "file", sorted((VALIDATION / "openadr").glob("*/events.json*")), ids=lambda f: f.parent.name
)
def test_events_of_the_validation_are_valid_for_another_library(file):
    for content in objects_in(file):
        RawEvent.model_validate(content.get("object", content))


def test_states_of_charge_by_departure(tmp_path):
    """a leaves at 20:00, b at 21:00, c at 22:00, d at 23:00, all from 17:00; what is known at 18:00 comes too late."""
    rows = [
        f"{name},Load R{11 + k % 2 * 4},2026-07-01T17:00,2026-07-01T{20 + k}:00,5,0.9,60"
        for k, name in enumerate("abcd")
    ]
    header = "ev,connection,arrival,departure,energy_kwh,soc_target,capacity_kwh"
    (tmp_path / "s.csv").write_text("\n".join([header, *rows]))
    system = given(
        tmp_path,
        event("all", hours(20.5), 2, 0.7, "CHARGE_STATE_SETPOINT", priority=2),
        event("c", hours(21.5), 1, 1.0, "CHARGE_STATE_SETPOINT", priority=1, targets=["c", "nobody"]),
        event(
            "late", hours(19), 4, 0.1, "CHARGE_STATE_SETPOINT", priority=0, createdDateTime=moment(hours(18))
        ),
        event("other", hours(19), 4, 0.2, "CHARGE_STATE_SETPOINT", priority=0, targets=["aggregator"]),
    )
    fleet = {"sessions": {"file": str(tmp_path / "s.csv")}, "charger": {"phases": 3, "power_kw": 7.4}}
    world = build_world(street(system=system, fleet=fleet, overrides={"ensemble.members": 1}))
    assert world.sessions.soc_target.tolist() == [0.9, 0.7, 1.0, 0.9]


@pytest.mark.parametrize("strategy", ["tou", "scheduled", "arbitrage", "demand_response", "emissions"])
def test_strategies_run_before_anything_is_known(tmp_path, strategy):
    late = moment(hours(17))
    system = given(
        tmp_path,
        event("p", hours(17.5), 2, 0.3, createdDateTime=late),
        event("g", hours(17.5), 2, 400, "GHG", createdDateTime=late),
        event("s", hours(17.5), 2, 1, "SIMPLE", createdDateTime=late),
    )
    scenario = street(system=system, tariff=None, aggregators={"main": {"strategy": strategy}},
                      overrides={"ensemble.members": 1, "time.duration": "3h"})  # fmt: skip
    result = evgrid.run(scenario)
    assert float(result["energy_price_per_mwh"].sel(time="2026-07-01T16:30")) == 0
    assert float(result["energy_price_per_mwh"].sel(time="2026-07-01T17:05")) == pytest.approx(300)


@pytest.mark.parametrize("of", ["group", "evs"])
def test_plans_foresee_limits_of_groups(tmp_path, of):
    """10 kWh from 16:00 to 20:00 at 5 kW, cheapest from 18:00 on, when 2 kW are allowed: a plan that knows of it
    charges 6 kWh before; one that does not waits, and its EV must then charge beyond the limit.
    """
    (tmp_path / "s.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh,capacity_kwh,charge_kw\n"
        "a,Load R11,2026-07-01T15:55,2026-07-01T20:00,10,60,5\n"
    )
    cheap = event("p", hours(16), 2, 0.3), event("q", hours(18), 2, 0.1)
    limit = event("l", hours(18), 2, 2, "IMPORT_CAPACITY_LIMIT")
    system = given(tmp_path, *cheap, limit, limits_of=of)
    plan = {"strategy": "scheduled", "group": "feeder", "limit_kw": 50, "margin": 0}
    scenario = street(
        system=system, tariff=None, aggregators={"main": plan},
        feeder={"network": "cigre_lv", "base_load": {"source": "none"}},
        fleet={"sessions": {"file": str(tmp_path / "s.csv")}, "charger": {"phases": 3, "power_kw": 5}},
        overrides={"ensemble.members": 1},
    )  # fmt: skip
    power = evgrid.run(scenario)["fleet_power_kw"].isel(member=0)
    within = float(power.sel(time=slice("2026-07-01T18:00", "2026-07-01T19:59")).max())
    assert (within < 2.1) == (of == "group")


def test_regulation_by_relative_set_points(tmp_path):
    percent = [{"payloadType": "DISPATCH_SETPOINT_RELATIVE", "units": "PERCENT"}]
    content = event("r", hours(17), 1, -0.5, "DISPATCH_SETPOINT_RELATIVE", payloadDescriptors=percent)
    system = given(tmp_path, content) | {"regulation": {"source": "openadr"}}
    result = evgrid.run(street(system=system, overrides={"ensemble.members": 1}))
    signal = result["regulation_signal"].isel(member=0)
    assert float(signal.sel(time="2026-07-01T17:30")) == 0.5
    assert float(signal.sel(time="2026-07-01T16:30")) == 0.0
