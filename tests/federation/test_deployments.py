"""Runs in several processes: the numbers of one process, and every fault named by whoever had it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.support.programs import start_program
from tests.support.street import street

from evgrid.core.model import Clock
from evgrid.core.temporary import temporary_folder
from evgrid.errors import EvgridError, RunError, ScenarioError
from evgrid.federation import run_federation
from evgrid.federation.control import PORTS, Link, free_ports
from evgrid.federation.host import Host
from evgrid.federation.wiring import wire
from evgrid.results import open_results
from evgrid.runs.deployments import export_runner
from evgrid.runs.member import run_member
from evgrid.runs.port_sheet import port_sheet
from evgrid.runs.simulation import run_with_report
from evgrid.scenario import load_scenario

HELICS = Path(sys.executable).with_name("helics")


CLOCK = Clock(np.datetime64("2026-01-15T12:00"), 4.0, 20)


@pytest.fixture
def beside(toy, sizes):
    """Runs toy models beside a program in the system's place, which has a fault; ends the program."""
    programs = []

    def run(fault, wait_s=60.0, count=1, start=True, late=False):
        seen = []

        def act(time_s, inputs):
            if late and time_s == 8.0:
                programs.append(start_program("foreign_system.py", *arguments))
            if late:
                time.sleep(0.5)
            seen.append(inputs["system/frequency"].copy())
            time.sleep(0.01)
            return {"fleet/p": np.zeros((2, 3, 3))}

        models = [
            toy("system", outputs=["system/frequency"]),
            toy("fleet", ["system/frequency"], ["fleet/p"], act=act),
            toy("feeder", ["fleet/p"]),
        ]
        place = wire(models, sizes, CLOCK)[0]
        address = ("127.0.0.1", free_ports())
        arguments = [*map(str, (*address, 4.0, place.offset_s, place.steps)), fault]
        own = ("fleet", "feeder")
        with Host(
            wire(models, sizes, CLOCK), sizes, CLOCK, address, external=["system"], wait_s=wait_s
        ) as host:
            for _ in range(count if start else 0):
                programs.append(start_program("foreign_system.py", *arguments))
            run_federation(models, sizes, CLOCK, own=own, external=["system"], elsewhere=host)
        return np.array(seen), programs

    yield run
    for program in programs:
        program.kill()
        program.join()


def test_a_program_in_the_place_of_the_system_gives_its_values_in_the_same_tick(beside):
    seen, programs = beside("none")
    np.testing.assert_array_equal(seen, 60.0 + np.arange(20.0)[:, None] * np.ones(2))
    programs[0].join(10)
    assert programs[0].exitcode == 0


def test_of_values_that_are_given_twice_in_a_step_the_last_ones_count(beside):
    seen, _ = beside("twice")
    np.testing.assert_array_equal(seen, 60.0 + np.arange(20.0)[:, None] * np.ones(2))


def test_folders_of_killed_processes_are_removed(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with temporary_folder() as own:
        (Path(own) / "part.nc").touch()
        left = tmp_path / Path(own).name.replace(f"-{os.getpid()}-", f"-{child.pid}-")
        other = tmp_path / f"evgrid-run-elsewhere-{child.pid}-abc"
        left.mkdir()
        other.mkdir()
        with temporary_folder():
            assert not left.exists()
            assert other.exists()
            assert (Path(own) / "part.nc").exists()
    assert list(tmp_path.iterdir()) == [other]


AT = "2026-01-15T12:00:08 (8 s)"
FAULTS = {
    "unit": "system, a program of its own: system/frequency is in kHz; Hz is expected",
    "type": "system, a program of its own: system/frequency is of type string; double_vector is expected",
    "input": "system, a program of its own: its input system/load of fleet/p is in W; kW is expected",
    "subscription": "system, a program of its own: its input _input_1 of fleet/p is in W; kW is expected",
    "key": "system, a program of its own: it has no publication system/frequency; it has system/frequenzy",
    "name": "system has not joined; sistem has, which is none of this run",
    "period": "system, a program of its own: its HELICS period is 2.8 s; 4 s is expected, or a whole part",
    "offset": "system, a program of its own: its HELICS offset is 0.501 s; 0.001 s is expected",
    "length": f"system, a program of its own, failed at {AT}: system/frequency: more than 2 values arrived",
    "nan": f"system, a program of its own, failed at {AT}: system/frequency is NaN at member 1",
    "silent": f"system, a program of its own, failed at {AT}: system/frequency was not given",
    "raise": f"system, a program of its own, failed at {AT}: my system: the turbine is missing",
    "leave": f"system, a program of its own, failed at {AT}",
    "exit": f"system, a program of its own, failed at {AT}",
    "kill": f"system, a program of its own, failed at {AT}: it has not answered for",
    "stop": f"system, a program of its own, failed at {AT}: it has not answered for",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_another_program_ends_the_run_with_its_name(beside, fault):
    with pytest.raises(RunError) as failed:
        beside(fault)
    assert FAULTS[fault] in str(failed.value)


@pytest.mark.timeout(120)
def test_a_program_that_stalls_is_named_and_then_ended(beside, caplog, monkeypatch):
    monkeypatch.setenv("EVGRID_STEP_LIMIT_S", "6")
    with pytest.raises(RunError, match="system, a program of its own, stalled at .* limit is 6 s"):
        beside("stall")
    assert f"all wait for system at {AT} since" in caplog.text


def test_a_program_that_never_comes_is_named(beside):
    with pytest.raises(RunError, match=r"system has not joined within 1 s \(federation\.wait\)"):
        beside("none", wait_s=1.0, start=False)


def test_two_programs_of_one_name(beside):
    with pytest.raises(
        RunError, match="two programs have joined with the name of one|a program has tried to join after"
    ):
        beside("none", count=2)


@pytest.mark.timeout(120)
def test_a_program_that_joins_after_the_start_ends_the_run(beside):
    with pytest.raises(RunError, match="a program has tried to join after the start; each must be started"):
        beside("none", late=True)


def test_a_port_that_is_taken(toy, sizes):
    port = free_ports()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(EvgridError, match=f"port {port} of 127"):
        Host(wire([toy("feeder")], sizes, CLOCK), sizes, CLOCK, ("127.0.0.1", port))


def test_what_is_no_federate_of_the_run_can_not_be_external():
    for external, sentence in (
        (["feedr"], "feedr is no federate of this run; its federates are aggregator, fleet, feeder"),
        (["aggregator", "fleet", "feeder"], "at least one federate must be evgrid's own"),
    ):
        scenario = street(aggregators={"main": {"strategy": "tou"}}, federation={"external": external})
        with pytest.raises(ScenarioError, match=sentence):
            run_with_report(scenario)
    with pytest.raises(ScenarioError, match="must be tcp://HOST:PORT"):
        street(federation={"broker": "127.0.0.1:23500"})


def test_a_name_that_no_federate_has_is_refused_at_once():
    with pytest.raises(ScenarioError, match="flete: is no federate; there are system, aggregator"):
        run_member("flete", street(), "tcp://127.0.0.1:23500")


def _descendants():
    return psutil.Process().children(recursive=True)


@pytest.fixture
def in_process():
    return run_with_report(managed())[0]


def managed(overrides=None, **sections):
    return street(overrides, aggregators={"main": {"strategy": "peak_limit", "limit_kw": 150}}, **sections)


def test_processes_give_the_numbers_of_one_process_bit_for_bit(in_process, tmp_path):
    result, report = run_with_report(managed({"time.speed": 1e6}), tmp_path / "r.nc", processes=True)
    with result:
        pace = json.loads(result.attrs.pop("pace"))
        result.attrs["scenario"] = in_process.attrs["scenario"]  # but for its speed
        assert in_process.identical(result.load())
    assert (pace["speed"], pace["steps"]) == (1e6, 72)
    assert report.federation.lateness.steps == 72
    assert json.loads(result.attrs["audit"])["hand_over_kw"] == 0.0
    table = report.profile().set_index("federate")
    assert table.loc["feeder", "steps"] == 72
    assert (table["model (s)"] > 0).all()
    assert not [child for child in _descendants() if "federate" in child.cmdline()]


SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.fixture
def beside_processes(tmp_path):
    """Runs a street, each federate in a process of its own, beside a program in the system's place."""
    programs = []

    def run(fault, count=1, wait="60s"):
        time = {"start": "2026-01-15T12:00", "duration": "80s", "step": "4s"}
        functions = {"frequency_watt": {}, "nominal_hz": 60}
        scenario = street(
            {"feeder.step": "20s", "communication.telemetry": "4s", "fleet.charger.functions": functions},
            time=time, system={"frequency": {"source": "constant"}},
            federation={"external": ["system"], "wait": wait},
        )  # fmt: skip
        sheet = next(each for each in port_sheet(scenario).federates if each.name == "system")

        def start(address):
            where = address.removeprefix("tcp://").split(":")
            arguments = [*where, *map(str, (sheet.period_s, sheet.offset_s, sheet.steps)), fault]
            programs.extend(start_program("foreign_system.py", *arguments) for _ in range(count))

        return run_with_report(scenario, tmp_path / "r.nc", processes=True, announce=start)[0]

    yield run
    for program in programs:
        program.kill()
        program.join()
    assert not [child for child in _descendants() if "federate" in child.cmdline()]


def _refused(beside_processes, tmp_path, *arguments, **named):
    """The sentence with which a run fails that leaves nothing."""
    with pytest.raises(RunError) as failed:
        beside_processes(*arguments, **named)
    assert not list(tmp_path.iterdir())
    return str(failed.value)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_program_beside_processes(beside_processes):
    with beside_processes("none") as result:
        assert result.sizes["time"] == 4


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_another_program_beside_processes(beside_processes, tmp_path, fault):
    said = _refused(beside_processes, tmp_path, fault)
    if fault in ("raise", "leave", "exit", "kill", "stop"):  # the host knows the processes' times of late
        who, _, what = FAULTS[fault].partition(AT)
        assert re.match(re.escape(who) + r"2026-01-15T12:00:0\d \(\d s\)( or soon after)?: ", said), said
        assert what in said
    else:
        assert FAULTS[fault] in said


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_program_that_stalls_beside_processes(beside_processes, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("EVGRID_STEP_LIMIT_S", "6")
    said = _refused(beside_processes, tmp_path, "stall")
    assert f"system, a program of its own, stalled at {AT}" in said
    assert f"all wait for system at {AT} since" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (0, "system has not joined within 2 s (federation.wait): expected at tcp://"),
        (2, "two programs have joined with the name of one"),
    ],
)
def test_no_program_or_two_beside_processes(beside_processes, tmp_path, count, sentence):
    assert sentence in _refused(beside_processes, tmp_path, "none", count=count, wait="2s")


KINDS = {
    "demo": ("european_lv_tou", {"time.duration": "6h"}),
    "limits": ("european_lv_v1g", {"time.duration": "3h"}),
    "delay": (
        "european_lv_v2g",
        {"time.duration": "3h", "communication.delay": "90s", "ensemble.members": 3},
    ),
    "sites": ("home_v2h_winter", {"time.duration": "6h"}),
    "regulation": ("frequency_regulation", {"time.duration": "10min"}),
    "iterated": ("european_lv_volt_var", {"coupling": "iterated", "time.duration": "3h"}),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_each_deployment_gives_the_numbers_of_one_process(kind, tmp_path):
    name, settings = KINDS[kind]
    scenario = load_scenario(SCENARIOS / f"{name}.yaml", settings)
    alone, _ = run_with_report(scenario)
    for how in ("processes", "launcher"):
        path = tmp_path / how / "result.nc"
        if how == "processes":
            run_with_report(scenario, path, processes=True)[0].close()
        else:
            names = [sheet.name for sheet in port_sheet(scenario).federates]
            runner = export_runner(scenario, names, path.parent, str(SCENARIOS))
            subprocess.run([HELICS, "run", f"--path={runner}"], check=True, capture_output=True)
        with open_results(path) as result:
            assert alone.identical(result.load())


@pytest.fixture
def two_machines():
    """Two network namespaces with a cable between them: command prefixes, and addresses."""
    names = [f"evgrid{os.getpid()}{end}" for end in "ab"]
    addresses = ["10.77.0.1", "10.77.0.2"]
    cables = [f"ev{os.getpid()}{end}" for end in "ab"]
    steps = [
        *(f"ip netns add {name}" for name in names),
        f"ip link add {cables[0]} type veth peer name {cables[1]}",
        *(f"ip link set {cable} netns {name}" for cable, name in zip(cables, names, strict=True)),
    ]
    for name, cable, address in zip(names, cables, addresses, strict=True):
        steps += [f"ip -n {name} addr add {address}/24 dev {cable}"]
        steps += [f"ip -n {name} link set {link} up" for link in (cable, "lo")]
    try:
        for step in steps:
            if shutil.which("ip") is None or subprocess.run(step.split(), capture_output=True).returncode:
                pytest.skip(f"no network namespaces here: {step}")
        yield [["ip", "netns", "exec", name] for name in names], addresses
    finally:
        for name in names if shutil.which("ip") else ():  # with its end of the cable
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_two_machines_give_the_numbers_of_one_process(kind, two_machines, tmp_path):
    """The broker and the first federate on one, the others on the other."""
    name, settings = KINDS[kind]
    scenario = load_scenario(SCENARIOS / f"{name}.yaml", settings)
    alone, _ = run_with_report(scenario)
    (first, second), (here, _) = two_machines
    names = [sheet.name for sheet in port_sheet(scenario).federates]
    address = f"tcp://{here}:{free_ports()}"
    given = [str(SCENARIOS / f"{name}.yaml"), *(f"--set={key}={value}" for key, value in settings.items())]
    evgrid = [sys.executable, "-m", "evgrid.cli"]
    path = tmp_path / "r.nc"
    commands = [[*first, *evgrid, "broker", *given, "--listen", address, "--no-plot", "-o", path]]
    for federate in names:
        machine = first if federate == names[0] else second
        commands.append([*machine, *evgrid, "federate", federate, *given, "--broker", address])
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        assert [process.wait(500) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    with open_results(path) as result:
        assert alone.identical(result.load())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_lost_process_is_named_and_nothing_is_left(tmp_path, number):
    lost = []

    def lose(done_s):
        if done_s > 0 and not lost:
            lost.extend(child for child in _descendants() if "fleet" in child.cmdline())
            lost[0].send_signal(number)

    endless = managed(time={"start": "2026-07-01T16:00", "duration": "60d", "step": "5min"})
    what = "its process .* ended" if number == signal.SIGKILL else "no sign of life"
    with pytest.raises(RunError, match=f"fleet (failed|stalled) at .*{what}"):
        run_with_report(endless, tmp_path / "r.nc", lose, processes=True)
    assert lost
    assert not [child for child in _descendants() if "federate" in child.cmdline()]
    assert not list(tmp_path.iterdir())


def _three_processes(toy, sizes, folder, kill_after_s=None, victim=0):
    """One run of the host's feeder, a process of evgrid with the fleet, and another program as the system.

    kill_after_s : time from the start to the end of the ``victim``, the system (0) or the fleet (1)
    """
    folder.mkdir(exist_ok=True)
    clock = Clock(CLOCK.start, 4.0, 20 if kill_after_s is None else 100_000)
    models = [
        toy("system", outputs=["system/frequency"]),
        toy("fleet", ["system/frequency"], ["fleet/p"]),
        toy("feeder", ["fleet/p"]),
    ]
    places = wire(models, sizes, clock)
    address = ("127.0.0.1", free_ports())
    system = [*map(str, (*address, 4.0, places[0].offset_s, places[0].steps)), "none"]
    fleet = [*map(str, (*address, clock.ticks)), str(folder / "part")]
    programs = []
    try:
        with Host(
            places, sizes, clock, address, members=["fleet"], external=["system"], digest="toys", wait_s=30.0
        ) as host:
            programs.append(start_program("foreign_system.py", *system))
            programs.append(start_program("toy_member.py", *fleet))
            if kill_after_s is not None:
                threading.Timer(kill_after_s, programs[victim].kill).start()
            try:
                run_federation(models, sizes, clock, own=["feeder"], external=["system"], elsewhere=host)
                while not host.delivered:
                    host.watch()
            except RunError as error:
                host.failed(str(error))
                raise
        for program in programs:
            program.join(20)
        assert [program.exitcode for program in programs] == [0, 0]
        assert models[2].seen["fleet/p"] == [60.0 + step for step in range(20)]
    finally:
        for program in programs:
            program.kill()
            program.join()


def test_three_processes_start_and_stop(toy, sizes, tmp_path):
    _three_processes(toy, sizes, tmp_path)


def _at_once(count, run):
    """Call ``run(number)`` for each number below a count, four at a time."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(count)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_starts_and_stops_of_three_processes(toy, sizes, tmp_path):
    _at_once(200, lambda number: _three_processes(toy, sizes, tmp_path / str(number)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_random_kills(toy, sizes, tmp_path):
    random = np.random.default_rng(7)
    kills = list(zip(random.uniform(0.05, 3.0, 50), random.integers(2, size=50), strict=True))

    def run(number):
        with pytest.raises(RunError, match="system|fleet"):
            _three_processes(toy, sizes, tmp_path / str(number), *kills[number])

    _at_once(len(kills), run)


def test_strangers_at_the_line_are_refused(toy, sizes):
    models = [toy("fleet", [], ["fleet/p"]), toy("feeder", ["fleet/p"])]
    address = ("127.0.0.1", free_ports())
    with Host(wire(models, sizes, CLOCK), sizes, CLOCK, address, members=["fleet"], digest="a") as host:

        def answer(*content, **hello):
            with socket.create_connection((address[0], address[1] + PORTS - 1)) as connection:
                connection.settimeout(5.0)
                for part in content:
                    connection.sendall(part)
                link = Link(connection)
                if hello:
                    link.send(**hello)
                for _ in range(20):
                    host.watch()
                try:
                    return next(link.receive(), None)
                except EOFError:
                    return None

        who = {"pid": os.getpid(), "machine": "here"}
        assert "its scenario" in answer(hello="fleet", digest="b", **who)["refused"]
        assert "this run awaits fleet" in answer(hello="feeder", digest="a", **who)["refused"]
        assert answer(b"GET / HTTP/1.1\r\n\r\n") is None
        assert answer(b"m\xff\xff\xff\xff") is None
        assert answer(hello={}) is None
        assert not host.members


LEFT_BEHIND = """
import sys
import helics as h
from evgrid.federation.helics_io import leave_behind

broker = h.helicsCreateBroker("inproc", "left", "--federates=3 --loglevel=no_print")
core = h.helicsCreateCore("inproc", "left-core", "--federates=1 --broker=left --loglevel=no_print")
info = h.helicsCreateFederateInfo()
h.helicsFederateInfoSetCoreName(info, "left-core")
h.helicsFederateInfoSetCoreType(info, h.HELICS_CORE_TYPE_INPROC)
federate = h.helicsCreateValueFederate("feeder", info)
h.helicsFederateEnterInitializingModeAsync(federate)  # for ever: two others never come
leave_behind([federate], core, broker)
print("the last words")
sys.exit(3)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library has no on_exit")
def test_what_is_left_behind_does_not_keep_the_process_from_ending_with_its_exit_code():
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout) == (3, "the last words\n"), ended.stderr
