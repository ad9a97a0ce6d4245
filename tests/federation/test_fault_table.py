"""Every fault in every deployment where it applies: who names it, how soon, and what is left of the run.

Each case prints a row: fault, deployment, seconds from the fault until all has ended, exit codes, sentence.
``docs/how_to/processes.md`` has the table.
"""

import json
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.support.waiting import wait_until

from evgrid.federation.control import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

EVGRID = [sys.executable, "-m", "evgrid.cli"]
FEDERATES = ("aggregator", "fleet", "feeder")
STRATEGY = """
import time
from pathlib import Path

import numpy as np

import evgrid

HERE = Path(__file__).parent


class Faulty(evgrid.Strategy):
    steps = 0

    def setpoints(self, view):
        self.steps += 1
        time.sleep(0.05)
        power = np.zeros(len(view.p_max))
        if self.steps == 3:
            (HERE / "at").write_text(str(time.time()))
            if FAULT == "raise":
                raise ValueError("the forecast is missing")
            if FAULT == "length":
                return power[1:]
            if FAULT == "nan":
                power[1] = np.nan
        return power


FAULT = (HERE / "fault").read_text()
"""


def now():
    """Time of day, s; it is printed, and not judged."""
    return time.time()  # noqa: TID251


class Run:
    """A run in a deployment: its processes, their logs, and what became of them."""

    def __init__(self, folder, deployment, fault="none", days=100, broker=None):
        self.folder, self.deployment = folder, deployment
        self.address = broker or f"tcp://127.0.0.1:{free_ports()}"
        (folder / "fault").write_text(fault)
        (folder / "faulty.py").write_text(STRATEGY)
        content = {
            "name": "faults",
            "time": {"start": "2026-07-01T16:00", "duration": f"{days}d", "step": "5min"},
            "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}},
            "fleet": {"count": 4, "charger": {"power_kw": 7.4, "phases": 3}},
            "aggregators": {"main": {"strategy": "faulty:Faulty"}},
            "federation": {"broker": self.address, "wait": "60s"},
        }
        (folder / "s.yaml").write_text(json.dumps(content))
        self.processes = {}

    def start(self, *only):
        commands = {
            "in process": {"run": ["run", "s.yaml", "--no-plot", "-o", "out/r.nc"]},
            "processes": {"run": ["run", "s.yaml", "--processes", "--no-plot", "-o", "out/r.nc"]},
            "by hand": {
                "broker": [
                    *("broker", "s.yaml", "--listen", self.address),
                    *("--no-plot", "-o", "out/r.nc"),
                ],
                **{name: ["federate", name, "s.yaml", "--broker", self.address] for name in FEDERATES},
            },
            "helics run": {},
        }[self.deployment]
        (self.folder / "out").mkdir(exist_ok=True)
        for name, command in commands.items():
            if not only or name in only:
                self.spawn(name, [*EVGRID, *command])
        if self.deployment == "helics run":
            export = [*EVGRID, "export-helics", "s.yaml", "-o", "out"]
            subprocess.run(export, cwd=self.folder, check=True, capture_output=True)
            helics = [sys.executable, "-m", "helics.cli", "run", f"--path={self.folder / 'out/runner.json'}"]
            self.spawn("helics", helics)
        return self

    def spawn(self, name, command):
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def family(self, *words):
        """The living processes of the run that have some words in their command line."""
        found = []
        for process in self.processes.values():
            try:
                found += [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return [p for p in found if p.status() != psutil.STATUS_ZOMBIE and set(words) <= set(p.cmdline())]

    def wait_for_a_step(self):
        wait_until(lambda: (self.folder / "at").is_file() or not self.family())
        return float((self.folder / "at").read_text())

    def ended(self, since, family=()):
        """Wait until all has ended: seconds, exit codes, and what was said, by process."""
        wait_until(
            lambda: (
                all(p.poll() is not None for p in self.processes.values())
                and not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)
            )
        )
        seconds = now() - since
        codes = {name: process.returncode for name, process in self.processes.items()}
        logs = [*self.folder.glob("*.log"), *self.folder.glob("out/*.log")]
        said = {log.stem: log.read_text(errors="replace") for log in logs}
        return seconds, codes, said

    def kill(self):
        for process in self.family():
            process.kill()
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def deploy(tmp_path):
    runs = []

    def make(*arguments, **named):
        runs.append(Run(tmp_path, *arguments, **named))
        return runs[-1]

    yield make
    for run in runs:
        run.kill()


def show(fault, run, seconds, codes, sentence):
    print(f"\n| {fault} | {run.deployment} | {seconds:.1f} s | {codes} | {sentence} |")


def sentence_in(text, pattern):
    found = [line for line in text.splitlines() if re.search(pattern, line)]
    assert found, text
    return found[-1].removeprefix("evgrid: ")


def check_ended(run, fault, since, family, pattern, dead=()):
    """All has ended in time, each process with the sentence and exit code 1, and nothing is left."""
    seconds, codes, said = run.ended(since, family)
    speaking = {name: text for name, text in said.items() if name not in ("helics", *dead)}
    sentences = {name: sentence_in(text, pattern) for name, text in speaking.items()}
    show(fault, run, seconds, codes, next(iter(sentences.values())))
    if run.deployment != "helics run":  # which does not look at all of its children's exit codes
        assert {codes[name] for name in codes.keys() - {*dead}} <= {1}
    assert not list(run.folder.glob("out/*.nc"))
    assert not list(run.folder.glob("out/*part*"))


DEPLOYMENTS = ("in process", "processes", "by hand", "helics run")
AT = r"2026-07-01T16:10:00"
OWN = {
    "raise": rf"aggregators\.main: the strategy raised ValueError: the forecast is missing .* at {AT}",
    "length": rf"aggregators\.main: .*\(3,\).*{AT}",
    "nan": rf"aggregators\.main: .*NaN.*{AT}",
}


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
@pytest.mark.parametrize("fault", OWN)
def test_a_model_of_the_users_fails(deploy, fault, deployment):
    run = deploy(deployment, fault).start()
    at = run.wait_for_a_step()
    check_ended(run, fault, at, run.family(), OWN[fault])


@pytest.mark.parametrize("deployment", DEPLOYMENTS[1:])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["kill -9", "SIGSTOP"])
def test_a_federates_process_is_lost(deploy, number, deployment):
    run = deploy(deployment).start()
    run.wait_for_a_step()
    victim = run.family("federate", "fleet")[0]
    family = [p for p in run.family() if p != victim]
    victim.send_signal(number)
    at = now()
    what = "its process .* ended" if number == signal.SIGKILL else "no sign of life"
    if deployment == "by hand" and number == signal.SIGSTOP:  # nobody else may end it
        wait_until(lambda: run.processes["broker"].poll() is not None)
        victim.kill()
    check_ended(
        run, signal.Signals(number).name, at, family, f"fleet (failed|stalled) at .*{what}",
        dead=("fleet",),
    )  # fmt: skip


@pytest.mark.parametrize("deployment", DEPLOYMENTS[1:])
def test_the_brokers_process_is_killed(deploy, deployment):
    run = deploy(deployment).start()
    run.wait_for_a_step()
    word = "run" if deployment == "processes" else "broker"
    broker = next(p for p in run.family(word, "evgrid.cli"))
    family = [p for p in run.family() if p != broker]
    broker.kill()
    at = now()
    seconds, codes, said = run.ended(at, family)
    sentence = "the broker's process is gone"
    if deployment == "by hand":
        assert all(sentence in said[name] for name in FEDERATES)
        assert [codes[name] for name in FEDERATES] == [1, 1, 1]
    found = any(sentence in text for text in said.values())
    show("broker killed", run, seconds, codes, sentence if found else "its federates end, unheard")


@pytest.mark.parametrize("deployment", DEPLOYMENTS[1:])
def test_the_brokers_port_is_taken(deploy, deployment):
    import socket

    port = free_ports()
    with socket.create_server(("127.0.0.1", port)):
        run = deploy(deployment, broker=f"tcp://127.0.0.1:{port}")
        at = now()
        run.start(*(("broker",) if deployment == "by hand" else ()))
        if deployment == "helics run":  # the federates wait for a broker, as long as they are asked to
            said = run.folder / "out" / "broker.log"
            wait_until(lambda: said.is_file() and "can't be used" in said.read_text())
            show("port taken", run, now() - at, {}, sentence_in(said.read_text(), "can't be used"))
            return
        seconds, codes, said = run.ended(at)
    sentence = sentence_in(next(iter(said.values())), f"port {port} of 127.0.0.1 can't be used")
    show("port taken", run, seconds, codes, sentence)
    assert set(codes.values()) == {1}


def test_a_second_claimant_of_a_name_is_refused_and_the_run_goes_on(deploy):
    run = deploy("by hand", days=1).start()
    run.wait_for_a_step()
    at = now()
    run.spawn("second", [*EVGRID, "federate", "fleet", "s.yaml", "--broker", run.address])
    wait_until(lambda: run.processes["second"].poll() is not None)
    said = (run.folder / "second.log").read_text()
    sentence = sentence_in(said, r"fleet: another process has this name already \(\d+ on ")
    show("second claimant", run, now() - at, run.processes["second"].returncode, sentence)
    assert run.processes["second"].returncode == 1
    _, codes, _ = run.ended(at)
    assert {codes[name] for name in ("broker", *FEDERATES)} == {0}


def test_a_federate_that_comes_late_is_waited_for(deploy):
    run = deploy("by hand", days=1).start("broker", "aggregator", "feeder")
    time.sleep(10.0)
    at = now()
    run.spawn("fleet", [*EVGRID, "federate", "fleet", "s.yaml", "--broker", run.address])
    seconds, codes, _ = run.ended(at)
    show("late joiner", run, seconds, codes, "is waited for")
    assert set(codes.values()) == {0}


STRANGER = """
import sys
import helics as h

host, port = sys.argv[1:]
info = h.helicsCreateFederateInfo()
info.core_type = "zmq"
info.core_init = f"--federates=1 --broker={host} --brokerport={port} --networktimeout=5s"
federate = h.helicsCreateValueFederate("stranger", info)
h.helicsFederateEnterExecutingMode(federate)
"""


def test_a_program_that_joins_after_the_start_ends_the_run(deploy):
    run = deploy("by hand").start()
    run.wait_for_a_step()
    at = now()
    host, port = run.address.removeprefix("tcp://").split(":")
    (run.folder / "stranger.py").write_text(STRANGER)
    run.spawn("stranger", [sys.executable, "stranger.py", host, port])
    seconds, codes, said = run.ended(at)
    pattern = "the run failed at .*: a program has tried to join after the start"
    sentences = [sentence_in(said[name], pattern) for name in ("broker", *FEDERATES)]
    show("joins after the start", run, seconds, codes, sentences[0])
    assert set(codes.values()) == {1}
