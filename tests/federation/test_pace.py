"""Runs that keep to wall time: when a tick is due, how late it is, who waits, and that a wait can be ended.

The clock is a toy's, which the models' steps and the waits move on: no test depends on this machine's.
"""

import functools
import os
import signal
import threading

import numpy as np
import pytest
from tests.support.programs import start_program
from tests.support.street import street

import evgrid
from evgrid.core.model import Clock
from evgrid.errors import RunError
from evgrid.federation import Limits, run_federation
from evgrid.federation.control import Member, free_ports
from evgrid.federation.host import Host
from evgrid.federation.pace import Pace, behind_text, leader
from evgrid.federation.wiring import wire
from evgrid.runs.simulation import run_with_report

pytestmark = pytest.mark.timeout(60)


class Wall:
    """A clock that waits, too: each wait takes ``over_s`` longer than it was asked for."""

    def __init__(self, over_s=0.0):
        self.time_s, self.over_s = 1000.0, over_s
        self.waits = []

    def now(self):
        return self.time_s

    def wait(self, seconds):
        self.waits.append(seconds)
        self.time_s += seconds + self.over_s
        return False

    def pace(self, speed, period_s, behind=lambda *_: None):
        return Pace(speed, period_s, behind, now=self.now, wait=self.wait)


def hold_all(pace, wall, period_s, taken_s):
    """Hold steps that take some wall time each; returns when each began, s from the first."""
    began = []
    for step, seconds in enumerate(taken_s):
        assert pace.hold(step * period_s)
        began.append(wall.time_s - 1000.0)
        wall.time_s += seconds
    return began


def test_what_a_step_takes_or_a_wait_oversleeps_does_not_add_up():
    wall = Wall(over_s=0.125)
    pace = wall.pace(speed=60.0, period_s=60.0)  # a tick each second
    began = hold_all(pace, wall, 60.0, [0.5, 0.25, 0.75, 0.0])
    assert began == [0.0, 1.125, 2.125, 3.125]
    found = pace.lateness
    assert (found.speed, found.steps, found.late_steps) == (60.0, 4, 0)
    assert found.mean_s == pytest.approx(3 * 0.125 / 4)
    assert (found.worst_s, found.worst_at_s) == (0.125, 60.0)
    assert found.waited_s == pytest.approx(began[3] - 0.5 - 0.25 - 0.75)


def test_a_slow_step_makes_the_next_ones_late_until_the_run_has_caught_up():
    wall = Wall()
    pace = wall.pace(speed=2.0, period_s=2.0)
    assert hold_all(pace, wall, 2.0, [0.0, 2.5, 0.25, 0.0, 0.0]) == [0.0, 1.0, 3.5, 3.75, 4.0]
    found = pace.lateness
    assert (found.late_steps, found.worst_s, found.worst_at_s) == (2, 1.5, 4.0)
    assert found.mean_s == pytest.approx((1.5 + 0.75) / 5)


@pytest.mark.parametrize(("speed", "due_s"), [(1.0, 900.0), (0.5, 1800.0), (3600.0, 0.25)])
def test_a_tick_of_any_length_at_any_speed(speed, due_s):
    wall = Wall()
    assert hold_all(wall.pace(speed, 900.0), wall, 900.0, [0.0, 0.0]) == [0.0, pytest.approx(due_s)]
    assert max(wall.waits) <= 60.0


def test_a_run_that_does_not_keep_its_pace_says_so_and_again_where_it_is_ten_times_later():
    said = []
    wall = Wall()
    pace = wall.pace(1.0, 4.0, lambda *found: said.append(found))
    hold_all(pace, wall, 4.0, [8.0, 9.0, 30.0, 30.0, 0.0])
    assert said == [(8.0, 9.0)]  # 4 s late is not later than a period; 9, 35 and 61 s are
    hold_all(pace, wall, 4.0, [40.0, 0.0])
    assert [time_s for time_s, _ in said] == [8.0, 4.0]


def test_short_ticks_are_not_worth_a_word():
    wall = Wall()
    hold_all(wall.pace(1e6, 4.0, pytest.fail), wall, 4.0, [0.5, 0.25, 0.0])


def test_the_warning_names_who_took_longest():
    clock = Clock(np.datetime64("2026-01-15T12:00"), 1.0, 10)
    said = "the run does not keep its pace (time.speed = 2): at 2026-01-15T12:00:08 (8 s) it is 1.5 s late"
    assert behind_text(clock, 2.0, 8.0, 1.5, {}) == said
    assert behind_text(clock, 2.0, 8.0, 1.5, {"fleet": 0.25, "feeder": 2.125}) == (
        f"{said}; of evgrid's federates feeder has taken longest, 2.12 s so far"
    )


def test_the_end_of_a_run_ends_its_waits():
    pace = Pace(1e-9, 4.0, pytest.fail)
    assert pace.hold(0.0)
    threading.Timer(0.05, pace.end).start()
    assert not pace.hold(4.0)
    assert not pace.hold(8.0)


def pair(toy, log, fleet=None):
    """fleet --p--> feeder, which steps in every other tick"""
    return [
        toy("fleet", outputs=["fleet/p"], log=log, act=fleet),
        toy("feeder", ["fleet/p"], log=log, period_s=8.0),
    ]


@pytest.fixture
def wall(monkeypatch):
    """The clock of the runs."""
    found = Wall()
    paces = functools.partial(Pace, now=found.now, wait=found.wait)
    monkeypatch.setattr("evgrid.federation.runtime.Pace", paces)
    return found


@pytest.mark.usefixtures("thread_mode")
def test_the_first_federate_of_a_tick_waits_for_all(toy, sizes, clock, wall, caplog):
    log = []

    def fleet(time_s, inputs):
        log.append(wall.time_s - 1000.0)
        wall.time_s += 6.0 if time_s == 8.0 else 0.25
        return {}

    report = run_federation(pair(toy, log, fleet), sizes, clock(6), speed=4.0)
    began = [0.0, 1.0, 2.0, 8.0, 8.25, 8.5]
    assert [entry for entry in log if isinstance(entry, float)] == began
    assert [entry for entry in log if not isinstance(entry, float)] == [
        "fleet@0", "feeder@0", "fleet@4", "fleet@8", "feeder@8", "fleet@12", "fleet@16", "feeder@16",
        "fleet@20",
    ]  # fmt: skip
    found = report.lateness
    assert (found.steps, found.late_steps, found.worst_s, found.worst_at_s) == (6, 3, 5.0, 12.0)
    assert found.mean_s == pytest.approx((5.0 + 4.25 + 3.5) / 6)
    assert report.waited_s == pytest.approx(1.5)
    assert caplog.text.count("the run does not keep its pace") == 1
    assert "at 2026-01-15T12:00:12 (12 s) it is 5 s late; of evgrid's federates" in caplog.text


def test_a_run_without_speed_has_no_lateness(toy, sizes, clock):
    assert run_federation(pair(toy, []), sizes, clock(4)).lateness is None


def test_who_leads_the_ticks(toy, sizes, clock):
    slow = toy("system", outputs=["system/frequency"], period_s=8.0)
    places = wire([slow, *pair(toy, [])], sizes, clock(4))
    assert leader(places, ()).model.name == "fleet"
    assert leader(places, ["fleet"]).model.name == "system"
    assert leader(places, ["system", "fleet"]).model.name == "feeder"


@pytest.mark.usefixtures("thread_mode")
@pytest.mark.parametrize("how", ["cancelled", "Ctrl-C"])
def test_a_run_ends_while_it_waits(toy, sizes, clock, how):
    """Its tick would last a century."""
    cancel, waiting = threading.Event(), threading.Event()

    def end():
        waiting.wait(30)
        cancel.set() if how == "cancelled" else os.kill(os.getpid(), signal.SIGINT)

    def feeder(time_s, inputs):
        waiting.set()
        return {}

    models = [toy("fleet", outputs=["fleet/p"]), toy("feeder", ["fleet/p"], act=feeder)]
    threading.Thread(target=end).start()
    with pytest.raises(RunError if how == "cancelled" else KeyboardInterrupt):
        run_federation(models, sizes, clock(4), speed=1e-9, cancel=cancel)


def test_the_watchdog_leaves_out_the_wait_for_a_tick(toy, sizes, clock):
    limits = Limits(startup_s=0.2, step_s=0.2)
    assert run_federation(pair(toy, []), sizes, clock(2), speed=8.0, limits=limits).lateness.steps == 2


def test_a_loop_of_the_callers_is_held_and_can_be_left_while_it_waits(monkeypatch, tmp_path):
    waiting = threading.Event()

    class Noting(Pace):
        def hold(self, time_s):
            if time_s:
                waiting.set()
            return super().hold(time_s)

    monkeypatch.setattr("evgrid.federation.runtime.Pace", Noting)

    def interrupt():
        waiting.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    scenario = street({"time.speed": 1e-9}, aggregators={"main": {"strategy": "tou"}})
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), evgrid.stepwise(scenario, output=tmp_path / "r.nc") as run:  # noqa: PT012
        run.step(run.view.p_max)
        pytest.fail("the second tick begins in a century")
    assert not list(tmp_path.iterdir())


def test_the_result_says_how_late_it_was_and_its_numbers_are_those_of_any_run(wall):
    alone, _ = run_with_report(street({"time.duration": "1h"}))
    result, report = run_with_report(street({"time.duration": "1h", "time.speed": 60}))
    assert "pace" not in alone.attrs
    assert result.attrs["pace"] == (
        '{"speed": 60.0, "steps": 12, "late_steps": 0, "mean_lateness_s": 0.0, "worst_lateness_s": 0.0, '
        '"worst_at": "2026-07-01T16:00:00"}'
    )
    assert report.split_s["waiting"] == pytest.approx(11 * 5.0)
    assert alone.drop_attrs().identical(result.drop_attrs())


def test_a_process_that_falls_behind_tells_the_host(toy, sizes, clock, caplog):
    models = [toy("fleet", [], ["fleet/p"]), toy("feeder", ["fleet/p"])]
    address = ("127.0.0.1", free_ports())
    with Host(wire(models, sizes, clock()), sizes, clock(), address, members=["fleet"], digest="a") as host:
        joined = []
        joining = threading.Thread(target=lambda: joined.append(Member("fleet", *address, "a", 20.0)))
        joining.start()
        while joining.is_alive():
            host.watch()
        joined[0].behind(2.0, 8.0, 1.5, {"fleet": 0.25})
        while not caplog.text:
            host.watch()
        joined[0].close()
    assert (
        "at 2026-01-15T12:00:08 (8 s) it is 1.5 s late; of evgrid's federates fleet has taken" in caplog.text
    )


def test_a_run_beside_another_program_waits_too(toy, sizes, wall):
    """In the place of the system, which would lead the ticks."""
    clock = Clock(np.datetime64("2026-01-15T12:00"), 4.0, 20)
    models = [
        toy("system", outputs=["system/frequency"]),
        toy("fleet", ["system/frequency"], ["fleet/p"]),
        toy("feeder", ["fleet/p"]),
    ]
    place = wire(models, sizes, clock)[0]
    address = ("127.0.0.1", free_ports())
    program = start_program(
        "foreign_system.py", *map(str, (*address, 4.0, place.offset_s, place.steps)), "none"
    )
    try:
        with Host(wire(models, sizes, clock), sizes, clock, address, external=["system"]) as host:
            report = run_federation(
                models, sizes, clock, speed=4.0, own=("fleet", "feeder"), external=["system"], elsewhere=host
            )
    finally:
        program.join(10)
        program.kill()
    assert (report.lateness.steps, report.lateness.late_steps) == (20, 0)
    assert report.waited_s == pytest.approx(19.0)
    np.testing.assert_array_equal(models[1].seen["system/frequency"], 60.0 + np.arange(20.0))
