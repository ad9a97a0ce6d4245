"""However a run ends early: the first cause is reported, and nothing hangs (pytest's timeout)."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import wait_until

from evgrid.core.model import Model
from evgrid.errors import EvgridError, PowerFlowError, RunError, StrategyError
from evgrid.federation import Limits, run_federation
from evgrid.federation.runtime import describe

pytestmark = [pytest.mark.usefixtures("thread_mode"), pytest.mark.timeout(60)]

FAILS_AT = 50


def trio(toy, **acts):
    """
    aggregator --setpoint--> fleet --p--> feeder --head_p--> aggregator
    """
    return [
        toy("aggregator", ["feeder/head_p"], ["aggregator/setpoint"], act=acts.get("aggregator")),
        toy("fleet", ["aggregator/setpoint"], ["fleet/p"], act=acts.get("fleet")),
        toy("feeder", ["fleet/p"], ["feeder/head_p"], act=acts.get("feeder")),
    ]


def failing_at(tick, error):
    def act(time_s, _):
        if time_s == 4 * tick:
            raise error
        return {}

    return act


@pytest.mark.parametrize("name", ["aggregator", "fleet", "feeder"])
def test_a_model_raises(toy, sizes, clock, name, capfd):
    cause = ZeroDivisionError("no such car")
    models = trio(toy, **{name: failing_at(FAILS_AT, cause)})
    message = (
        rf"^{name} failed at 2026-01-15T12:03:20 \(200 s\): ZeroDivisionError: no such car "
        r"\(.*test_failure\.py, line \d+, in act\)$"
    )
    with pytest.raises(RunError, match=message) as caught:
        run_federation(models, sizes, clock(100_000))
    assert caught.value.__cause__ is cause
    steps = [len(model.times) for model in models]
    at = ["aggregator", "fleet", "feeder"].index(name)
    assert steps == [FAILS_AT + 1 if place <= at else FAILS_AT for place in range(3)]
    assert all(model.finished == 0 for model in models)
    assert capfd.readouterr() == ("", "")  # neither HELICS nor cffi says anything


def test_evgrid_errors_keep_their_words(toy, sizes, clock):
    models = trio(toy, feeder=failing_at(3, PowerFlowError("member 1 did not converge")))
    with pytest.raises(RunError, match=r"^feeder failed at .*12:00:12 \(12 s\): member 1 did not converge$"):
        run_federation(models, sizes, clock(10))
    text = "feeder: no convergence at 2026-01-15T12:00:12"
    with pytest.raises(RunError, match=f"^{text}$"):  # nothing to add
        run_federation(trio(toy, feeder=failing_at(3, PowerFlowError(text))), sizes, clock(10))


def test_strategy_error_names_the_users_file():
    try:
        try:
            exec(compile("def plan():\n    return {}['car']\nplan()", "/home/me/mine.py", "exec"))
        except KeyError as error:
            raise StrategyError("strategy 'mine' raised KeyError: 'car'") from error
    except StrategyError as error:
        text = describe(error)
    assert text == "strategy 'mine' raised KeyError: 'car' (/home/me/mine.py, line 2, in plan)"


def test_fractions_of_a_second_in_the_message(toy, sizes, clock):
    model = toy("fleet", period_s=0.25, act=lambda time_s, _: 1 / (time_s - 0.5) and {})
    with pytest.raises(RunError, match=r"fleet failed at 2026-01-15T12:00:00\.500 \(0\.5 s\): ZeroDivision"):
        run_federation([model], sizes, clock(10, 0.25))


def bad(array):
    return lambda *_: {"fleet/p": array}


def nan_at(*places):
    array = np.zeros((2, 3, 3))
    for place in places:
        array[place] = np.nan
    return array


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (bad(nan_at((1, 2, 0))), r"fleet/p is NaN at member 1, connection 2, phase 0$"),
        (bad(nan_at((0, 1, 2), (1, 0, 0))), r"fleet/p is NaN at member 0, connection 1, phase 2 and 1 more"),
        (bad(np.zeros((2, 3))), r"fleet/p is an array of shape \(2, 3\); a float64 array of shape \(member"),
        (bad(np.zeros((2, 3, 3), dtype="f4")), r"fleet/p is an array of float32; a float64 array"),
        (bad([1.0]), r"fleet/p is list; a float64 array"),
        (lambda *_: None, r"step returned NoneType; a mapping of port names to arrays is expected"),
        (lambda *_: {"fleet/q": np.zeros((2, 3, 3))}, r"step returned 'fleet/q'; fleet declares fleet/p"),
    ],
)  # fmt: skip
def test_bad_outputs(toy, sizes, clock, act, message):
    models = trio(toy, fleet=lambda time_s, inputs: act(time_s, inputs) if time_s == 8 else {})
    with pytest.raises(RunError, match=r"fleet failed at 2026-01-15T12:00:08 \(8 s\): " + message):
        run_federation(models, sizes, clock(10))


def test_nan_in_a_long_vector(toy, sizes, clock):
    """BLAS sees short vectors, numpy the long ones"""
    sizes["connection"] = 5000
    array = np.full((2, 5000, 3), np.inf)
    array[1, 4999, 2] = np.nan
    with pytest.raises(RunError, match=r"fleet/p is NaN at member 1, connection 4999, phase 2$"):
        run_federation([toy("fleet", outputs=["fleet/p"], act=bad(array))], sizes, clock(1))


def test_not_contiguous_is_copied(toy, sizes, clock):
    array = np.arange(18.0).reshape(3, 3, 2).T
    seen = []
    feeder = toy("feeder", ["fleet/p"], act=lambda _, inputs: seen.append(inputs["fleet/p"].copy()) or {})
    run_federation([toy("fleet", outputs=["fleet/p"], act=bad(array)), feeder], sizes, clock(1))
    assert np.array_equal(seen[0], array)


def test_finish_raises(toy, sizes, clock, monkeypatch):
    models = trio(toy)

    def finish():
        raise OSError("disk full")

    models[1].finish = finish
    with pytest.raises(RunError, match=r"fleet failed at .* \(36 s\): OSError: disk full \("):
        run_federation(models, sizes, clock(10))


def test_a_model_exits(toy, sizes, clock):
    with pytest.raises(RunError, match=r"fleet failed at .* SystemExit: 3 \("):
        run_federation(trio(toy, fleet=failing_at(2, SystemExit(3))), sizes, clock(10))


def test_run_after_failure(toy, sizes, clock):
    for _ in range(3):
        with pytest.raises(RunError, match="no such car"):
            run_federation(trio(toy, fleet=failing_at(2, ValueError("no such car"))), sizes, clock(10))
        assert run_federation(trio(toy), sizes, clock(10)).ticks == 10


# -- stalls ------------------------------------------------------------------------------------------


class Stuck:
    """A model's step that returns, in the third tick, when it is released."""

    def __init__(self):
        self.release, self.returned = threading.Event(), threading.Event()

    def act(self, time_s, _):
        if time_s == 8:
            try:
                self.release.wait()
            finally:  # broken off by then
                self.returned.set()
        return {}


@pytest.fixture
def stuck():
    stuck = Stuck()
    yield stuck
    stuck.release.set()


def sleeping_at(tick, seconds, naps=1):
    def act(time_s, _):
        if time_s == 4 * tick:
            for _ in range(naps):
                time.sleep(seconds)
        return {}

    return act


def test_stall_in_a_step(toy, sizes, clock, stuck):
    message = (
        r"^fleet stalled at 2026-01-15T12:00:08 \(8 s\): its step has not returned for \d+\.?\d* s; "
        r"the limit is 0\.3 s \(EVGRID_STEP_LIMIT_S\)$"
    )
    with pytest.raises(RunError, match=message):
        run_federation(trio(toy, fleet=stuck.act), sizes, clock(10), limits=Limits(step_s=0.3))
    assert run_federation(trio(toy), sizes, clock(10)).ticks == 10  # beside what was left behind
    assert not stuck.returned.is_set()
    stuck.release.set()
    assert stuck.returned.wait(30)
    assert run_federation(trio(toy), sizes, clock(10)).ticks == 10  # what was left behind touches nothing


def test_stall_in_python_is_broken_off(toy, sizes, clock):
    before = threading.active_count()
    with pytest.raises(RunError, match="fleet stalled at"):
        run_federation(
            trio(toy, fleet=sleeping_at(5, 0.01, naps=10_000)), sizes, clock(10), limits=Limits(step_s=0.3)
        )
    wait_until(lambda: threading.active_count() <= before + 1)  # a worker at most, on its way out


def test_first_step_and_finish_have_the_limit_of_the_start(toy, sizes, clock):
    limits = Limits(startup_s=30, step_s=0.2)
    models = trio(toy, fleet=sleeping_at(0, 0.6))
    models[2].finish = lambda: time.sleep(0.6)
    run_federation(models, sizes, clock(3), limits=limits)
    with pytest.raises(
        RunError, match=r"stalled at .* \(0 s\): .* the limit is 0\.2 s \(EVGRID_STARTUP_LIMIT_S"
    ):
        run_federation(trio(toy, fleet=sleeping_at(0, 1)), sizes, clock(3), limits=Limits(startup_s=0.2))


def test_limits_from_environment():
    assert Limits.from_environment({}) == Limits(600, 600)
    given = Limits.from_environment({"EVGRID_STEP_LIMIT_S": "5", "EVGRID_STARTUP_LIMIT_S": "7.5"})
    assert given == Limits(startup_s=7.5, step_s=5)
    for text in ("soon", "0", "-1", "nan"):
        with pytest.raises(EvgridError, match=rf"EVGRID_STEP_LIMIT_S = {text}: must be a number of seconds"):
            Limits.from_environment({"EVGRID_STEP_LIMIT_S": text})


def test_helics_that_grants_nothing(toy, sizes, clock, monkeypatch):
    monkeypatch.setattr("evgrid.federation.adapter.Adapter.start", lambda *_: None)
    message = r"^HELICS stalled at .* \(0 s\): it has granted no time for .* s \(EVGRID_STARTUP_LIMIT_S\)$"
    with pytest.raises(RunError, match=message):
        run_federation(trio(toy), sizes, clock(10), limits=Limits(startup_s=0.3))


@pytest.mark.parametrize(
    ("due_s", "message"),
    [
        (9.0, r"HELICS granted 0\.001 s where 9 s was due"),
        (-9e18, r"HELICS granted"),
    ],
)
def test_a_grant_that_was_not_due(toy, sizes, clock, monkeypatch, due_s, message):
    from evgrid.federation.adapter import Adapter

    check = Adapter._check_grant

    def wrong(self, granted_s):
        monkeypatch.setattr(Adapter, "_due_s", lambda *_: due_s)
        check(self, granted_s)

    monkeypatch.setattr(Adapter, "_check_grant", wrong)
    with pytest.raises(RunError, match=rf"^aggregator failed at .* \(0 s\): {message}"):
        run_federation(trio(toy), sizes, clock(10))


def test_a_grant_of_the_end_of_time(toy, sizes, clock, monkeypatch):
    from evgrid.federation.adapter import NEVER, Adapter

    check = Adapter._check_grant
    monkeypatch.setattr(Adapter, "_check_grant", lambda self, _: check(self, NEVER))
    with pytest.raises(RunError, match=r"^aggregator failed at .*: HELICS ended the run before its time$"):
        run_federation(trio(toy), sizes, clock(10))


def test_helics_does_not_start(toy, sizes, clock, monkeypatch):
    import helics as h

    def create(*_):
        raise h.HelicsException("[-1] no core")

    monkeypatch.setattr(h, "helicsCreateCore", create)
    with pytest.raises(RunError, match=r"^HELICS could not set up the federation: \[-1\] no core$"):
        run_federation(trio(toy), sizes, clock(10))


# -- from outside -------------------------------------------------------------------------------------


def test_cancel(toy, sizes, clock):
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    with pytest.raises(RunError, match=r"^the run was cancelled at 2026-.* \(\d+ s\)$"):
        run_federation(trio(toy), sizes, clock(10_000_000), cancel=cancel)


def test_progress_that_raises_ends_the_run(toy, sizes, clock):
    def progress(_):
        raise RuntimeError("terminal gone")

    with pytest.raises(RuntimeError, match="terminal gone"):
        run_federation(trio(toy), sizes, clock(10_000_000), progress=progress)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("model", ["quick", "naps", "stuck"])
def test_ctrl_c(toy, sizes, clock, model, stuck):
    """with models that are quick, that wait in Python, and that are stuck in one call"""
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    act = {"quick": None, "naps": sleeping_at(2, 0.01, naps=30_000), "stuck": stuck.act}[model]
    with pytest.raises(KeyboardInterrupt):
        run_federation(trio(toy, fleet=act), sizes, clock(10_000_000))
    assert not stuck.returned.is_set()
    assert run_federation(trio(toy), sizes, clock(10)).ticks == 10


def test_from_another_thread(toy, sizes, clock):
    reports = []
    thread = threading.Thread(target=lambda: reports.append(run_federation(trio(toy), sizes, clock(100))))
    thread.start()
    thread.join(20)
    assert [report.ticks for report in reports] == [100]


def test_side_by_side(toy, sizes, clock):
    """four runs at a time from four threads, each with its own names; one of them fails"""
    outcome = {}

    def go(number):
        try:
            act = failing_at(20, ValueError("third")) if number == 3 else None
            models = trio(toy, fleet=act)
            run_federation(models, sizes, clock(200))
            outcome[number] = models[0].seen["feeder/head_p"]
        except RunError as error:
            outcome[number] = str(error)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert "third" in outcome.pop(3)
    expected = [0.0, *(4.0 * tick + 1 for tick in range(199))]
    assert outcome == dict.fromkeys(range(3), expected)


def run_script(body, timeout=30):
    script = textwrap.dedent(
        """
        import os, sys, time
        import numpy as np
        from evgrid.federation import Limits, run_federation
        from evgrid.federation import runtime
        from evgrid.core.model import Clock, Model
        runtime.HAND_OVER = sys.argv[1] == "True"

        class Fleet(Model):
            name, period_s, outputs = "fleet", 4.0, ("fleet/p",)
            def step(self, time_s, inputs):
                return act(time_s)

        class Feeder(Model):
            name, period_s, inputs = "feeder", 4.0, ("fleet/p",)
            def step(self, time_s, inputs):
                return {}

        def run(ticks=20, **more):
            sizes = {"member": 1, "connection": 5, "phase": 3}
            clock = Clock(np.datetime64("2026-01-15"), 4.0, ticks)
            return run_federation([Fleet(), Feeder()], sizes, clock, **more)
        """
    ) + textwrap.dedent(body)

    def start(hand_over):
        return subprocess.run(
            [sys.executable, "-c", script, str(hand_over)],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return start


@pytest.mark.parametrize("stuck_in", ["time.sleep(600)", "while True: pass"])
def test_a_process_with_a_stuck_model_ends(thread_mode, stuck_in):
    start = run_script(
        f"""
        def act(time_s):
            if time_s == 20:
                {stuck_in}
            return {{}}
        run(limits=Limits(step_s=0.3))
        """
    )
    done = start(thread_mode)
    assert done.returncode == 1, done.stderr
    assert "RunError: fleet stalled at 2026-01-15T00:00:20 (20 s)" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_fork_is_refused(thread_mode):
    start = run_script(
        """
        def act(time_s):
            return {}
        run()
        child = os.fork()
        if not child:
            try:
                run()
            except Exception as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        run()
        print("parent goes on")
        """
    )
    done = start(thread_mode)
    assert "start workers with multiprocessing's 'spawn' method\nparent goes on" in done.stdout, done.stderr


# -- starts and stops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_starts_and_stops_in_fresh_processes(thread_mode, count):
    start = run_script(
        """
        def act(time_s):
            return {"fleet/p": np.full((1, 5, 3), time_s)}
        print(run().ticks)
        """
    )
    for _ in range(count):
        done = start(thread_mode)
        assert (done.returncode, done.stdout, done.stderr) == (0, "20\n", "")


def test_30_starts_and_stops_in_one_process(toy, sizes, clock):
    def os_threads():
        tasks = Path("/proc/self/task")
        return len(list(tasks.iterdir())) if tasks.is_dir() else 0

    run_federation(trio(toy), sizes, clock(10))
    before, named = os_threads(), set(threading.enumerate())
    for _ in range(30):
        models = trio(toy)
        run_federation(models, sizes, clock(10))
        assert models[2].seen["fleet/p"] == [4 * tick + 1 for tick in range(10)]
    wait_until(lambda: os_threads() <= before + 1 and set(threading.enumerate()) <= named)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_step_longer_than_helics_heartbeat_is_no_failure(thread_mode, clock):
    """A minute inside a model's step (a kernel that is compiled, a large batch) must not end the run."""

    class Patient(Model):
        name, period_s = "fleet", 4.0

        def step(self, time_s, inputs):
            time.sleep(60.0 if time_s == 8.0 else 0.0)
            return {}

    report = run_federation([Patient()], {}, clock(ticks=5))
    assert report.steps == {"fleet": 5}
