"""The command line, as its users meet it: in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import evgrid

SCENARIO = """
name: cli-case
time: {start: 2026-07-01T16:00, duration: 2h, step: 5min}
feeder: {network: cigre_lv, base_load: {source: net}}
fleet: {count: 6, charger: {phases: 3}}
communication: {telemetry: 5min}
"""


def call(*arguments, cwd, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "evgrid.cli", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text(SCENARIO)
    return path


def test_run_plot_and_open(scenario, tmp_path):
    done = call("run", scenario, "--members", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "cli-case.nc").is_file()
    assert (tmp_path / "results" / "cli-case.png").stat().st_size > 10_000
    assert "energy audit" in done.stdout
    with evgrid.open_results(tmp_path / "results" / "cli-case.nc") as result:
        assert result.sizes["member"] == 2
    again = call("run", scenario, "-o", "results/cli-case.nc", "--no-plot", cwd=tmp_path)
    assert again.returncode == 0, again.stderr  # a second run replaces the first
    plotted = call("plot", "results/cli-case.nc", "-o", "other.png", cwd=tmp_path)
    assert plotted.returncode == 0, plotted.stderr
    assert (tmp_path / "other.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "none.yaml"), 2, "there is no file"),
        (("run", "case.yaml", "--set", "fleet.penetraton=0.5"), 2, "did you mean 'penetration'?"),
        (("run", "case.yaml", "--set", "fleet.count"), 2, "must be KEY=VALUE"),
        (("validate", "case.yaml", "--members", "0"), 2, "ensemble.members = 0: must be at least 1"),
        (("run", "case.yaml", "--set", "feeder.network=cigre_lw"), 1, "cigre_lv"),
        (("run", "case.yaml", "-o", "case.yaml/r.nc"), 1, "the result can't be written"),
        (("run", "case.yaml", "--set", "feeder.base_load={file: case.yaml}"), 2, "case.yaml"),
        (("plot", "none.nc"), 1, "there is no result none.nc"),
        (("plot", "case.yaml"), 1, "is no NetCDF file"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence(scenario, tmp_path, arguments, code, message):
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case.yaml"]


def test_validate_and_schema(scenario, tmp_path):
    done = call("validate", scenario, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "valid" in done.stdout
    schema = call("scenario", "--schema", cwd=tmp_path)
    assert json.loads(schema.stdout)["properties"]["fleet"]
    listed = call("scenario", cwd=tmp_path)
    assert "fleet.penetration" in listed.stdout


def test_frozen_sessions_replay_to_the_same_result(scenario, tmp_path):
    options = ("--set", "fleet.mix=default", "--set", "fleet.charger.bidirectional=0.5", "--members", 2)
    frozen = call("sessions", scenario, "-o", "table.parquet", *options, cwd=tmp_path)
    assert frozen.returncode == 0, frozen.stderr
    assert "sessions of 12 EVs in 2 members" in frozen.stdout
    (tmp_path / "replay.yaml").write_text(
        SCENARIO.replace("{count: 6, ", "{sessions: {file: table.parquet}, ")
    )
    ran = call("run", scenario, "-o", "one.nc", "--no-plot", *options, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    replayed = call("run", "replay.yaml", "-o", "two.nc", "--no-plot", "--members", 2, cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    assert "frozen sessions of cli-case, seed 0" in replayed.stdout
    with evgrid.open_results(tmp_path / "one.nc") as one, evgrid.open_results(tmp_path / "two.nc") as two:
        assert one.drop_attrs().identical(two.drop_attrs())
        assert float(one["session_energy_delivered_kwh"].sum()) > 0
    refused = call("sessions", scenario, "-o", "table.csv", cwd=tmp_path)
    assert refused.returncode == 2
    assert "must end in .parquet" in refused.stderr


def test_ctrl_c_stops_at_once_and_leaves_nothing(scenario, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "evgrid.cli", "run", str(scenario), "--set", "time.duration=30000h"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("results/.*.part")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "stopped by Ctrl-C" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "results").exists()


def test_help_does_not_import_the_heavy_packages():
    code = (
        "import sys, evgrid, evgrid.cli\n"
        "heavy = {'numpy', 'pandas', 'pandapower', 'numba', 'helics', 'xarray', "
        "'matplotlib', 'pydantic', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
