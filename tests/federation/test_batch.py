"""Batches: every run in a process of its own; what happens to one happens to no other."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
from tests.support.waiting import wait_until

import evgrid
from evgrid.runs.batch import load_batch, members_that_fit, plan, read_index, run_batch

BASE = """
name: base
time: {start: 2026-07-01T16:00, duration: 2h, step: 5min}
ensemble: {members: 4, seed: 3}
feeder: {network: cigre_lv, households: {kw_each: 2}, base_load: {source: standard}}
fleet: {count: 6, charger: {phases: 3}}
communication: {telemetry: 5min}
"""

MISBEHAVING = """
import os, signal, time
from pathlib import Path
import numpy as np
import evgrid

class Settings(evgrid.StrategySettings):
    act: str = "behave"
    \"\"\"What it does in its first step.\"\"\"

class Odd(evgrid.Strategy):
    Settings = Settings
    def setpoints(self, view):
        act = self.settings.act
        if act == "raise":
            raise ValueError("this is on purpose")
        if act == "hang":
            time.sleep(3600)
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if act.startswith("wait"):
            Path(act.split("=", 1)[1]).touch()
            time.sleep(2)
        return np.full(len(view.p_max), np.inf)
"""


@pytest.fixture
def batch_file(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "odd.py").write_text(MISBEHAVING)

    def write(text):
        path = tmp_path / "batch.yaml"
        path.write_text(f"name: mine\nbase: base.yaml\n{text}")
        return path

    return write


def odd(act):
    return f"{{aggregators.main: {{strategy: 'odd:Odd', act: '{act}'}}}}"


def call(*arguments, cwd, timeout=240):
    return subprocess.run(
        [sys.executable, "-m", "evgrid.cli", "batch", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_programs_of_the_users_own_do_not_join_batches(batch_file):
    batch = load_batch(batch_file("grid: {fleet.count: [1, 2]}\noverrides: {federation.external: [feeder]}"))
    with pytest.raises(evgrid.ScenarioError, match=r"case 0 \(.*external = feeder: programs of your own"):
        plan(batch)


def test_runs_that_keep_to_wall_time_are_single(batch_file):
    batch = load_batch(batch_file("grid: {fleet.count: [1]}\noverrides: {time.speed: real time}"))
    with pytest.raises(evgrid.ScenarioError, match=r"time\.speed = 1: single runs keep to wall time"):
        plan(batch)


def test_grid_list_and_sample(batch_file):
    grid = load_batch(batch_file("grid: {fleet.count: [1, 2], time.step: [60s, 5min]}"))
    assert grid.cases()[1].overrides == {"fleet.count": 1, "time.step": "5min"}
    assert len(plan(grid)) == 4
    listed = load_batch(batch_file("list: [{fleet.count: 1}, {name: other}]"))
    assert [run.scenario.name for run in plan(listed)] == ["base", "other"]
    text = """
sample:
  size: 10
  seed: 5
  ranges:
    fleet.charger.power_kw: {low: 3, high: 13}
    fleet.count: {low: 1, high: 10, integer: true}
    feeder.base_load.source: {choices: [net, none]}
"""
    sample = load_batch(batch_file(text)).cases()
    assert sample == load_batch(batch_file(text)).cases()
    powers = sorted(case.overrides["fleet.charger.power_kw"] for case in sample)
    assert [int(power) for power in powers] == list(range(3, 13))  # one in each tenth: a Latin hypercube
    assert sorted(case.overrides["fleet.count"] for case in sample) == list(range(1, 11))
    assert [case.overrides["feeder.base_load.source"] for case in sample].count("net") == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {fleet.count: [1]}\nlist: [{}]", "give one of grid, list and sample"),
        ("", "give one of grid, list and sample"),
        ("gird: {}", "gird: unknown key"),
        ("grid: {fleet.count: []}", "grid.fleet.count"),
        (
            "grid: {fleet.count: [1, -1]}",
            "case 1 \\(fleet.count = -1\\): fleet.count = -1: must be at least 0",
        ),
        ("list: [{fleet.count: 2}, {fleet.count: 2}]", "case 1 .* is the same scenario as case 0"),
        ("sample: {size: 1, ranges: {a: {low: 2, high: 1}}}", "low = 2: must be less than high = 1"),
        ("sample: {size: 1, ranges: {a: {low: 2}}}", "give either low and high, or choices"),
    ],
)
def test_what_is_wrong_with_a_batch_is_said_at_once(batch_file, text, message):
    with pytest.raises(evgrid.ScenarioError, match=message):
        plan(load_batch(batch_file(text)))


def test_identity_follows_content_not_place(batch_file, tmp_path):
    batch = load_batch(batch_file(f"list: [{{}}, {odd('behave')}]"))
    before = [run.id for run in plan(batch)]
    (tmp_path / "odd.py").write_text(MISBEHAVING + "\n# changed\n")
    after = [run.id for run in plan(batch)]
    assert after[0] == before[0]
    assert after[1] != before[1]
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("base.yaml", "batch.yaml", "odd.py"):
        (moved / name).write_text((tmp_path / name).read_text())
    assert plan(load_batch(moved / "batch.yaml"))[0].id == before[0]


def test_members_are_parted_by_memory(batch_file):
    batch = load_batch(batch_file("list: [{ensemble.members: 1000, feeder.network: european_lv, "
                                  "fleet.charger.phases: 1}]\nmemory_gb: 1.5"))  # fmt: skip
    runs = plan(batch)
    fit = members_that_fit(runs[0].scenario, 1.5)
    assert 10 < fit < 1000
    assert sum(len(run.scenario.members) for run in runs) == 1000
    assert max(len(run.scenario.members) for run in runs) == fit


def assert_same(one, other):
    """Whatever the chunks: but for what the runs say of themselves, in which members are counted."""
    said = ["case_scenario", "case_notes"]
    one, other = (batch.drop_vars(said, errors="ignore").drop_attrs() for batch in (one, other))
    xr.testing.assert_identical(one, other)


@pytest.mark.slow
def test_same_numbers_in_any_chunks_and_after_a_resume(batch_file, tmp_path):
    cases = "list: [{fleet.count: 3}, {fleet.count: 6}]\n"
    whole = run_batch(load_batch(batch_file(cases)), tmp_path / "1x4", workers=1)
    assert whole.finished == 2
    assert not whole.failed
    single = load_batch(batch_file(cases + "members_per_run: 1"))
    some = single.model_copy(update={"listed": single.listed[:1]})
    run_batch(some, tmp_path / "4x1", workers=2)
    rest = run_batch(single, tmp_path / "4x1", workers=2, resume=True)
    assert len(rest.finished_before) == 4
    assert len(rest.outcomes) == 4
    with evgrid.open_batch(tmp_path / "1x4") as one, evgrid.open_batch(tmp_path / "4x1") as other:
        assert one.sizes["case"] == 2
        assert one["fleet.count"].values.tolist() == [3, 6]
        assert one.sizes["member"] == 4
        assert one["voltage_pu"].chunks is not None  # read when it is used
        assert one["bus_distance_km"].dims == ("bus",)
        assert_same(one, other)
        direct = evgrid.run(single.base)
        np.testing.assert_array_equal(one["voltage_pu"][1], direct["voltage_pu"])
    sessions = [evgrid.batch_sessions(tmp_path / folder) for folder in ("1x4", "4x1")]
    assert sessions[0].equals(sessions[1])
    with pytest.raises(evgrid.EvgridError, match="holds a batch already; go on with it with --resume"):
        run_batch(single, tmp_path / "4x1")
    nothing = run_batch(single, tmp_path / "4x1", resume=True)
    assert not nothing.outcomes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_members_at_once_in_tens_and_one_by_one_after_a_kill(batch_file, tmp_path):
    case = "list: [{ensemble.members: 1000, time.duration: 30min}]\n"
    whole = run_batch(load_batch(batch_file(case + "members_per_run: 1000")), tmp_path / "1x1000", workers=1)
    assert whole.finished == 1
    tens = run_batch(load_batch(batch_file(case + "members_per_run: 100")), tmp_path / "10x100", workers=2)
    assert tens.finished == 10
    path, runs = batch_file(case + "members_per_run: 1"), tmp_path / "1000x1" / "runs"
    process = subprocess.Popen(
        [sys.executable, "-m", "evgrid.cli", "batch", str(path), "-o", "1000x1", "--workers", "2"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: len(list(runs.glob("*.nc"))) >= 50, process)
    os.killpg(process.pid, signal.SIGKILL)  # without a chance to tidy up
    process.wait()
    rest = run_batch(load_batch(path), tmp_path / "1000x1", workers=2, resume=True)
    assert rest.finished == 1000
    assert 50 <= len(rest.finished_before) < 1000
    with evgrid.open_batch(tmp_path / "1x1000") as one:
        for folder in ("10x100", "1000x1"):
            with evgrid.open_batch(tmp_path / folder) as other:
                assert other.sizes["member"] == 1000
                assert_same(one.load(), other.load())
    sessions = [evgrid.batch_sessions(tmp_path / folder) for folder in ("1x1000", "10x100", "1000x1")]
    assert sessions[0].equals(sessions[1])
    assert sessions[0].equals(sessions[2])


def test_one_raises_one_dies_one_never_ends_one_diverges_and_the_rest_goes_on(batch_file, tmp_path):
    acts = [odd(act) for act in ("raise", "die", "hang", "behave")]
    vehicle = "fleet.vehicle: {capacity_kwh: 1e+6, consumption_kwh_per_mile: 1e+4, charge_kw: 5e+4}"
    diverging = f"{{fleet.charger.power_kw: 50000, {vehicle}, feeder.on_divergence: stop}}"
    path = batch_file(f"list: [{', '.join(acts)}, {{fleet.count: 2}}, {diverging}]\ntime_limit: 15s")
    done = call(path, "-o", "out", "--workers", 2, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "2 of 6 runs finished, 4 failed" in done.stdout
    index = read_index(tmp_path / "out")
    said = " ".join(index["reason"])
    for part in ("this is on purpose", "SIGKILL", "ended at the time limit of 15 s", "failed to converge"):
        assert part in said
    assert index["state"].tolist() == ["failed"] * 3 + ["finished"] * 2 + ["failed"]
    assert (tmp_path / "out" / "index.csv").is_file()
    log = json.loads((tmp_path / "out" / "runs" / f"{index['id'][0]}.json").read_text())["log"]
    assert "odd.py" in log
    assert not list((tmp_path / "out" / "runs").glob(".*"))
    with evgrid.open_batch(tmp_path / "out") as result:
        assert result["case"].values.tolist() == [3, 4]
        assert result.attrs["missing"] == 4


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(batch_file, tmp_path):
    flag = tmp_path / "flag"
    path = batch_file(
        f"list: [{{fleet.count: 1}}, {{fleet.count: 2}}, {odd(f'wait={flag}')}, {{fleet.count: 4}}]"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "evgrid.cli", "batch", str(path), "-o", "out", "--workers", "1"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_until(flag.exists, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "finished runs are kept" in errors
    assert "Traceback" not in errors + out
    runs = tmp_path / "out" / "runs"
    finished = sorted(runs.glob("*.nc"))
    assert 1 <= len(finished) < 4
    times = [p.stat().st_mtime_ns for p in finished]
    done = call(path, "-o", "out", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(runs.glob("*.nc"))) == 4
    assert [p.stat().st_mtime_ns for p in finished] == times  # not run again
    assert not list(runs.glob(".*"))


@pytest.mark.slow
def test_a_dask_worker_killed_in_the_middle_costs_nothing(batch_file, tmp_path):
    flag = tmp_path / "flag"
    path = batch_file(f"list: [{odd(f'wait={flag}')}, {{fleet.count: 2}}, {{fleet.count: 3}}]")
    killed = []

    def kill():
        wait_until(flag.exists)
        worker = next(p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline()))
        worker.kill()
        killed.append(worker.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    report = run_batch(load_batch(path), tmp_path / "out", workers=1)
    killer.join()
    assert killed
    assert report.finished == 3, report.failed
    assert not list((tmp_path / "out" / "runs").glob(".*"))


def test_a_full_disk_fails_one_run_and_keeps_the_others(batch_file, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can't be mounted here")
    try:
        path = batch_file(
            "list: [{fleet.count: 1}, {ensemble.members: 300, record.compression: 0}, {fleet.count: 2}]"
        )
        report = run_batch(load_batch(path), small / "out", workers=1)
        assert report.finished == 2
        (run, outcome), = report.failed  # fmt: skip
        assert run.case == 1
        assert "the result can't be written" in outcome.reason
        with evgrid.open_batch(small / "out") as result:
            assert result["case"].values.tolist() == [0, 2]
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=False)


@pytest.mark.slow
def test_a_scheduler_and_a_worker_started_by_hand(batch_file, tmp_path):
    address = "tcp://127.0.0.1:18786"
    with pytest.raises(evgrid.EvgridError, match="there is no Dask scheduler"):
        run_batch(load_batch(batch_file("list: [{}]")), tmp_path / "none", scheduler="tcp://127.0.0.1:1")
    started = [
        subprocess.Popen([sys.executable, "-m", "dask", *arguments], cwd=tmp_path,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for arguments in (
            ["scheduler", "--host", "127.0.0.1", "--port", "18786", "--no-dashboard"],
            ["worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"],
        )
    ]  # fmt: skip
    try:
        report = None
        while report is None:  # until the scheduler has started
            with suppress(evgrid.EvgridError):
                report = run_batch(load_batch(batch_file("grid: {fleet.count: [1, 2]}")), tmp_path / "out",
                                   scheduler=address, resume=True)  # fmt: skip
        assert report.finished == 2
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "scenarios" / "batches").glob("*.yaml")))
def test_every_shipped_batch_is_valid(path):
    assert plan(load_batch(path))
