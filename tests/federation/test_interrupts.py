"""A signal ends a run also where a library has swallowed the KeyboardInterrupt that it raised."""

import os
import signal
import sys

import pytest
from click.testing import CliRunner

from evgrid.cli import main
from evgrid.core.interrupts import raise_swallowed, signals_as_interrupts
from evgrid.federation import run_federation
from evgrid.runs.batch.cluster import run_tasks

SCENARIO = """
name: base
time: {start: 2026-07-01T16:00, duration: 10min, step: 5min}
feeder: {network: cigre_lv, base_load: {source: standard}}
fleet: {count: 2, charger: {phases: 3}}
communication: {telemetry: 5min}
"""
NAMES = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def handlers():
    """Python's own handlers, whatever started the tests: ``nohup`` ignores SIGHUP."""
    before = {}
    for name in NAMES:
        number = getattr(signal, name)
        default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        before[number] = signal.signal(number, default)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def swallowed(name="SIGTERM"):
    """Send a signal to this process, in code that swallows what it raises."""
    try:
        os.kill(os.getpid(), getattr(signal, name))
        for _ in range(10**6):  # until Python's handler has run
            pass
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_before_a_run(toy, sizes, clock, name):
    model = toy("fleet")
    with signals_as_interrupts() as received:
        assert swallowed(name)
        with pytest.raises(KeyboardInterrupt):
            run_federation([model], sizes, clock(10))
        assert received == [getattr(signal, name)]
    assert not model.times
    assert run_federation([model], sizes, clock(10)).ticks == 10  # the next run is not ended by it


def test_during_a_run(toy, sizes, clock):
    calls = []
    with signals_as_interrupts(), pytest.raises(KeyboardInterrupt):
        run_federation([toy("fleet")], sizes, clock(10**7), progress=lambda _: calls.append(swallowed()))
    assert calls == [True]


def test_during_a_batch():
    class Client:
        cancelled = None

        def submit(self, *_, **__):
            assert swallowed()
            return self

        def add_done_callback(self, _):
            pass

        def cancel(self, futures, force):
            self.cancelled = futures

    class Task:
        id = "one"

    client = Client()
    with signals_as_interrupts(), pytest.raises(KeyboardInterrupt):
        run_tasks(client, [Task()], lambda _: None)
    assert client.cancelled == [client]


@pytest.mark.parametrize("name", NAMES)
def test_on_the_command_line(tmp_path, monkeypatch, name):
    from evgrid.results.stores import FileStore

    create, sent = FileStore.create, []

    def interrupted(store, *variable):
        create(store, *variable)
        if not sent:
            sent.append(swallowed(name))
            assert list(tmp_path.glob("out/.r.nc.*.part"))

    monkeypatch.setattr(FileStore, "create", interrupted)
    (tmp_path / "base.yaml").write_text(SCENARIO)
    done = CliRunner().invoke(
        main, ["run", str(tmp_path / "base.yaml"), "-o", str(tmp_path / "out" / "r.nc")]
    )
    assert sent == [True]
    assert done.exit_code == 128 + getattr(signal, name)
    shown = "Ctrl-C" if name == "SIGINT" else name
    assert f"evgrid: stopped by {shown}; no result was written" in done.output
    assert not (tmp_path / "out").exists()


def test_an_error_that_a_signal_brings_about_is_no_failure(monkeypatch, tmp_path):
    from evgrid import cli
    from evgrid.errors import ResultError

    def interrupted(*_):
        assert swallowed()
        raise ResultError("the file has no end")

    monkeypatch.setattr(cli, "_load", interrupted)
    done = CliRunner().invoke(main, ["run", "base.yaml"])
    assert (done.exit_code, done.output) == (143, "evgrid: stopped by SIGTERM; the file has no end\n")


def test_errors_in_finalizers_are_not_printed_after_a_signal(capsys):
    class Half:
        def __del__(self):
            raise AttributeError("it was not whole")

    hook = sys.unraisablehook
    with signals_as_interrupts():
        assert swallowed()
        Half()
        with pytest.raises(KeyboardInterrupt):
            raise_swallowed()
    assert sys.unraisablehook is hook
    assert capsys.readouterr() == ("", "")
    raise_swallowed()  # nothing is left of it
