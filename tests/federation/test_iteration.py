"""Models that solve for each other's outputs inside a tick."""

import numpy as np
import pytest

from evgrid.errors import RunError
from evgrid.federation import Limits, run_federation, step_in_line
from evgrid.federation.wiring import WiringError

pytestmark = [pytest.mark.usefixtures("thread_mode"), pytest.mark.timeout(60)]


def pair(toy, again_fleet, again_feeder=None, log=None, **kwargs):
    """fleet --p--> feeder --voltage--> fleet, inside a tick"""
    fleet = toy("fleet", ["feeder/voltage"], ["fleet/p"], log=log, **kwargs)
    feeder = toy("feeder", ["fleet/p"], ["feeder/voltage"], log=log, **kwargs)

    def make(model, act, port, source):
        def again(time_s, inputs):
            if log is not None:
                log.append(f"{model.name}@{time_s:g} again")
            value = act(time_s, float(inputs[source].flat[0]))
            return {} if value is None else {port: model.full(port, value)}

        model.again, model.iterates = again, True

    make(fleet, again_fleet, "fleet/p", "feeder/voltage")
    make(feeder, again_feeder or (lambda _, p: p + 0.5), "feeder/voltage", "fleet/p")
    feeder.act = lambda _, inputs: {
        "feeder/voltage": feeder.full("feeder/voltage", float(inputs["fleet/p"].flat[0]) + 0.5)
    }
    return fleet, feeder


@pytest.mark.parametrize("run", [run_federation, step_in_line])
def test_order_in_a_tick(toy, sizes, clock, run):
    """
    aggregator --setpoint--> fleet <--p, voltage--> feeder --voltage--> aggregator
    """
    log, seen = [], []

    def again(time_s, voltage):
        seen.append(voltage)
        return voltage + 1 if voltage < time_s + 4 else None

    fleet, feeder = pair(toy, again, log=log)
    fleet.inputs += ("aggregator/setpoint",)
    fleet.seen["aggregator/setpoint"] = []
    aggregator = toy("aggregator", ["feeder/voltage", "fleet/p"], ["aggregator/setpoint"], log=log)
    run([aggregator, feeder, fleet], sizes, clock(3))
    assert log == [
        entry
        for time in (0, 4, 8)
        for entry in (
            f"aggregator@{time}", f"fleet@{time}", f"feeder@{time}",
            *(f"{name}@{time} again" for name in ("fleet", "feeder", "fleet", "feeder", "fleet")),
        )
    ]  # fmt: skip
    assert seen == [time + x for time in (0, 4, 8) for x in (1.5, 3.0, 4.5)]
    assert fleet.seen["aggregator/setpoint"] == [1, 5, 9]  # this tick's
    assert aggregator.seen["feeder/voltage"] == [1.0, 4.5, 8.5]  # the initial value, then each tick's last
    assert aggregator.seen["fleet/p"] == [0.0, 4.0, 8.0]
    assert fleet.finished == feeder.finished == aggregator.finished == 1


def test_nothing_new_ends_it(toy, sizes, clock):
    """the fleet stands at once: the feeder is asked once a tick"""
    log = []
    fleet, feeder = pair(toy, lambda *_: None, log=log)
    run_federation([fleet, feeder], sizes, clock(2))
    assert log == [x for t in (0, 4) for x in (f"fleet@{t}", f"feeder@{t}", f"fleet@{t} again")]


def test_a_slow_feeder(toy, sizes, clock):
    """
    fleet (4 s) <--p, voltage--> feeder (12 s): between its steps the fleet goes on with what it said
    """
    log = []
    fleet, feeder = pair(toy, lambda time_s, v: v + 1 if v < time_s + 3 else None, log=log)
    feeder.period_s = 12.0
    run_federation([fleet, feeder, toy("system", log=log)], sizes, clock(6))
    both = ["fleet@{0} again", "feeder@{0} again", "fleet@{0} again"]
    assert log == [
        *("system@0", "fleet@0", "feeder@0", *(x.format(0) for x in both)),
        *("system@4", "fleet@4", "system@8", "fleet@8"),
        *("system@12", "fleet@12", "feeder@12", *(x.format(12) for x in both)),
        *("system@16", "fleet@16", "system@20", "fleet@20"),
    ]
    assert fleet.seen["feeder/voltage"] == [1.0, 3.0, 3.0, 3.0, 15.0, 15.0]


@pytest.mark.parametrize("stride", [16, 17, 45, 100])
def test_a_period_of_any_number_of_ticks(toy, sizes, clock, stride):
    """
    fleet <--p, voltage--> feeder (slow), and an aggregator: what they agree on does not depend on the period
    """
    fleet, feeder = pair(toy, lambda time_s, v: v + 1 if v < time_s + 3 else None)
    feeder.period_s = 4.0 * stride
    aggregator = toy("aggregator", ["feeder/voltage"], ["aggregator/setpoint"])
    run_federation([fleet, feeder, aggregator], sizes, clock(2 * stride))
    assert feeder.times == [0.0, 4.0 * stride]
    assert fleet.times == aggregator.times == [4.0 * tick for tick in range(2 * stride)]
    assert aggregator.seen["feeder/voltage"] == [1.0, *[3.0] * stride, *[4.0 * stride + 3.0] * (stride - 1)]
    assert feeder.finished == fleet.finished == 1


def test_set_points_that_come_late_do_not_come_inside_a_tick(toy, sizes, clock):
    """aggregator --setpoint, delayed by one tick--> fleet <--> feeder"""
    fleet, feeder = pair(toy, lambda time_s, v: v + 1 if v < time_s + 40 else None)
    fleet.inputs += ("aggregator/setpoint",)
    fleet.seen["aggregator/setpoint"] = []
    aggregator = toy("aggregator", outputs=["aggregator/setpoint"])
    run_federation([aggregator, fleet, feeder], sizes, clock(4), message_delay_s=4.0)
    assert fleet.seen["aggregator/setpoint"] == [0, 1, 5, 9]


def test_many_ticks_and_many_iterations(toy, sizes, clock):
    """more than the 50 iterations at which HELICS stops by default; a fixed point each tick"""

    def again(time_s, voltage):  # p = time + v / 2, v = p + 0.5
        wanted = time_s + voltage / 2
        return None if abs(wanted - fleet.given) < 1e-15 * (1 + time_s) else keep(wanted)

    def keep(value):
        fleet.given = value
        return value

    fleet, feeder = pair(toy, again)
    fleet.act = lambda time_s, _: {"fleet/p": fleet.full("fleet/p", keep(time_s - 1e6))}
    aggregator = toy("aggregator", ["feeder/voltage"])
    run_federation([aggregator, fleet, feeder], sizes, clock(200))
    expected = [4.0 * k * 2 + 1.0 for k in range(199)]
    np.testing.assert_allclose(aggregator.seen["feeder/voltage"][1:], expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["fleet", "feeder"])
def test_a_model_raises_while_it_iterates(toy, sizes, clock, name, capfd):
    calls = {"fleet": 0, "feeder": 0}

    def failing(who):
        def act(time_s, value):
            calls[who] += 1
            if who == name and time_s == 200 and value > 205:
                raise ZeroDivisionError("no such car")
            return value + 1 if who == "feeder" or value < time_s + 10 else None

        return act

    fleet, feeder = pair(toy, failing("fleet"), failing("feeder"))
    message = rf"^{name} failed at 2026-01-15T12:03:20 \(200 s\): ZeroDivisionError: no such car \(.*act\)$"
    with pytest.raises(RunError, match=message):
        run_federation([fleet, feeder, toy("aggregator", ["feeder/voltage"])], sizes, clock(100_000))
    assert len(fleet.times) == len(feeder.times) == 51
    assert fleet.finished == feeder.finished == 0
    assert capfd.readouterr() == ("", "")


def test_a_model_that_stalls_while_it_iterates(toy, sizes, clock):
    import time

    def again(time_s, voltage):
        if time_s == 8:
            time.sleep(1.2)
        return None

    limits = Limits(startup_s=20, step_s=0.4)
    fleet, feeder = pair(toy, again)
    with pytest.raises(RunError, match=r"fleet stalled at 2026-01-15T12:00:08 \(8 s\): its step has not"):
        run_federation([fleet, feeder], sizes, clock(50), limits=limits)


def test_a_model_that_never_stands(toy, sizes, clock, monkeypatch):
    monkeypatch.setattr("evgrid.federation.adapter.MOST_AGAIN", 500)
    fleet, feeder = pair(toy, lambda _, v: v + 1)
    message = r"fleet failed at .*\(0 s\): was asked 500 times to repeat a step, without converging"
    with pytest.raises(RunError, match=message):
        run_federation([fleet, feeder], sizes, clock(50))


def test_outputs_left_out_hold(toy, sizes, clock):
    """the fleet gives p in every second step only: the feeder steps on the last one"""
    fleet, feeder = pair(toy, lambda *_: None)
    fleet.act = lambda time_s, _: {"fleet/p": fleet.full("fleet/p", time_s)} if time_s % 8 == 0 else {}
    run_federation([fleet, feeder], sizes, clock(4))
    assert feeder.seen["fleet/p"] == [0, 0, 8, 8]
    assert fleet.seen["feeder/voltage"] == [1.0, 0.5, 0.5, 8.5]


def test_bad_outputs_while_iterating(toy, sizes, clock):
    fleet, feeder = pair(toy, lambda *_: np.nan)
    with pytest.raises(RunError, match=r"fleet failed at .*fleet/p is NaN at member 0, connection 0"):
        run_federation([fleet, feeder], sizes, clock(5))


def test_a_model_that_cannot(toy, sizes, clock):
    fleet, feeder = pair(toy, lambda *_: None)
    del fleet.again
    with pytest.raises(RunError, match="fleet can't take a step again"):
        run_federation([fleet, feeder], sizes, clock(5))


def test_one_alone_does_not_iterate(toy, sizes, clock):
    """fleet --p--> feeder, and only the feeder says that it iterates"""
    fleet, feeder = pair(toy, lambda *_: None)
    fleet.iterates = False
    run_federation([fleet, feeder], sizes, clock(3))
    assert fleet.seen["feeder/voltage"] == [1.0, 1.5, 5.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fleet, feeder: setattr(fleet, "inputs", ()), "fleet iterates, but takes nothing from feeder"),
        (
            lambda fleet, feeder: setattr(feeder, "inputs", ()),
            "feeder iterates, but takes nothing from fleet",
        ),
        (
            lambda fleet, feeder: setattr(fleet, "period_s", 8.0),
            "feeder.period_s = 4: must be a multiple of that of fleet, 8, with which it iterates",
        ),
    ],
)
def test_faults(toy, sizes, clock, change, message):
    fleet, feeder = pair(toy, lambda *_: None)
    change(fleet, feeder)
    with pytest.raises(WiringError, match=message):
        run_federation([fleet, feeder], sizes, clock(4))


def test_two_iterate(toy, sizes, clock):
    fleet, feeder = pair(toy, lambda *_: None)
    aggregator = toy("aggregator", ["feeder/voltage"])
    aggregator.iterates = True
    with pytest.raises(WiringError, match="aggregator, fleet, feeder iterate: two models can iterate with"):
        run_federation([aggregator, fleet, feeder], sizes, clock(4))


def test_set_points_that_arrive_while_two_iterate_count_in_the_next_tick(toy, sizes, clock):
    """aggregator --set-point, delayed into the fleet's turns--> fleet <--> feeder"""
    seen = []
    fleet, feeder = pair(toy, lambda time_s, v: v + 1 if v < time_s + 40 else None)
    fleet.inputs += ("aggregator/setpoint",)
    fleet.seen["aggregator/setpoint"] = []
    again = fleet.again

    def watched(time_s, inputs):
        seen.append((time_s, inputs["aggregator/setpoint"].flat[0]))
        return again(time_s, inputs)

    fleet.again = watched
    aggregator = toy("aggregator", outputs=["aggregator/setpoint"])
    run_federation([aggregator, fleet, feeder], sizes, clock(3), message_delay_s=1e-3 + 10e-6)
    assert set(seen) == {(0.0, 0.0), (4.0, 1.0), (8.0, 5.0)}
    assert fleet.seen["aggregator/setpoint"] == [0, 1, 5]


def test_nobody_steps_between(toy, sizes, clock):
    sites = toy("sites")
    fleet, feeder = pair(toy, lambda *_: None)
    first = toy("aggregator", ["feeder/voltage"], ["aggregator/setpoint"])
    first.iterates, fleet.iterates = True, False
    feeder.inputs, fleet.inputs = (), ()
    with pytest.raises(WiringError, match="fleet: steps between aggregator and feeder, which iterate"):
        run_federation([first, sites, fleet, feeder], sizes, clock(4))
