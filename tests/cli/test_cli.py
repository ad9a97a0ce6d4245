"""The command line, as its users meet it."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import chdir
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from tests.support.waiting import wait_until

import evgrid
from evgrid.cli import main
from evgrid.scenario import fields

SCENARIO = """
name: cli-case
time: {start: 2026-07-01T16:00, duration: 2h, step: 5min}
feeder: {network: cigre_lv, base_load: {source: net}}
fleet: {count: 6, charger: {phases: 3}}
communication: {telemetry: 5min}
"""


def call(*arguments, cwd):
    """Exit code and output of a command, run in this process."""
    with chdir(cwd):
        done = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="evgrid")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text(SCENARIO)
    return path


def test_run_plot_and_open(scenario, tmp_path):
    ageing = ("--set", "feeder.transformer_ageing={ambient: 25, transformer: {top_oil_rise_k: 90}}")
    done = call("run", scenario, "--members", 2, *ageing, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "cli-case.nc").is_file()
    assert (tmp_path / "results" / "cli-case.png").stat().st_size > 10_000
    assert "energy audit" in done.stdout
    assert "hot spot, highest" in done.stdout
    assert "loss of life of Trafo" in done.stdout
    with evgrid.open_results(tmp_path / "results" / "cli-case.nc") as result:
        assert result.sizes["member"] == 2
        assert (result["trafo_hot_spot_highest_c"] >= result["trafo_hot_spot_c"].max("time") - 1e-6).all()
        hottest = float(result["trafo_hot_spot_c"].max())
    hot = call("violations", "results/cli-case.nc", "--limits", "hot_spot", cwd=tmp_path)
    assert hot.returncode == 0, hot.stderr
    assert ("0 violations" in hot.stdout) == (hottest <= 120)
    listed = call(
        "violations", "results/cli-case.nc", "--limits", "ansi_c84_1_a", "-o", "v.csv", cwd=tmp_path
    )
    assert listed.returncode == 0, listed.stderr
    assert "violations of ansi_c84_1_a" in listed.stdout
    assert (tmp_path / "v.csv").read_text().startswith("member,criterion,element,name,phase,first_time")
    both = call("violations", "results/cli-case.nc", "--limits", "en_50160,ratings", cwd=tmp_path)
    assert both.returncode == 2
    assert "for several repeat --limits" in " ".join(both.stderr.split())
    default = call("violations", "results/cli-case.nc", cwd=tmp_path)
    assert "limits en_50160, ratings, aggregators, as the network has 50 Hz; others by" in default.stdout
    assert "limit en_50160: voltage_pu 0.9 to 1.1, 95% of the means over 600 s" in default.stdout
    unknown = call("violations", "results/cli-case.nc", "--limits", "ansi", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "must be one of en_50160" in unknown.stderr
    again = call("run", scenario, "-o", "results/cli-case.nc", "--no-plot", cwd=tmp_path)
    assert again.returncode == 0, again.stderr  # a second run replaces the first
    assert "× real time" not in again.stdout
    paced = call("run", scenario, "-o", "paced.nc", "--no-plot", "--speed", "1e9", cwd=tmp_path)
    assert paced.returncode == 0, paced.stderr
    assert re.search(r"pace +1e\+09 × real time: \d+ of \d+ steps were late; lateness", paced.stdout)
    assert re.search(r"took\s+longest", paced.stdout)
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


def test_a_study_and_a_batch_are_no_scenarios(tmp_path):
    for key, command in (("scenario", "study KIND"), ("base", "batch")):
        (tmp_path / "many.yaml").write_text(f"name: many\n{key}: case.yaml\n")
        done = call("run", "many.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert f"as it has the key {key}: use evgrid {command} many.yaml" in done.stderr


def test_a_diverging_flow_names_member_and_time(scenario, tmp_path):
    import evgrid.feeder.networks as networks
    from evgrid.scenario import scenario_from

    loads = networks.load_network(scenario_from({
        "name": "x", "time": {"start": "2026-07-01T16:00"}, "feeder": {"network": "cigre_lv"},
    }).feeder).connections.name  # fmt: skip
    rows = ["minute," + ",".join(loads)]
    rows += [
        f"{minute}," + ",".join("90000" if minute > 1000 else "1" for _ in loads) for minute in range(1, 1441)
    ]
    (tmp_path / "load.csv").write_text("\n".join(rows))
    done = call("run", scenario, "--set", "feeder.base_load={file: load.csv}", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    # minute 1001 of the day begins at 16:40
    assert "feeder failed at 2026-07-01T16:40:00 (2400 s)" in done.stderr
    assert "member 0 at 2026-07-01 16:40" in done.stderr
    assert "did not converge" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_bad_rows_of_a_session_file_are_all_reported_with_their_line(scenario, tmp_path):
    (tmp_path / "sessions.csv").write_text(
        "ev,connection,arrival,departure,soc_arrival,capacity_kwh\n"
        "a,Load R1,0,3600,0.5,60\n"
        "b,Load R99,0,3600,0.5,60\n"
        "c,Load R1,3600,0,0.5,60\n"
        "d,Load R1,0,3600,1.5,60\n"
    )
    done = call(
        "run",
        scenario,
        "--set",
        "fleet.count=null",
        "--set",
        "fleet.sessions={file: sessions.csv}",
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert "3 faults" in done.stderr
    for line in (3, 4, 5):
        assert f"line {line}" in done.stderr
    assert not (tmp_path / "results").exists()


def test_an_element_that_the_solver_cannot_represent_is_named(scenario, tmp_path):
    import pandapower as pp
    import pandapower.networks

    net = pandapower.networks.create_cigre_network_lv()
    pp.create_ward(net, 3, 0.01, 0.0, 0.01, 0.0, name="odd one")
    net.ward["in_service"] = True
    pp.create_dcline(net, 3, 4, 0.01, 1.0, 0.001, 1.0, 1.0, name="link")
    pp.to_json(net, str(tmp_path / "net.json"))
    done = call("run", scenario, "--set", "feeder.network=net.json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "dcline" in done.stderr
    assert "link" in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_and_schema(scenario, tmp_path):
    done = call("validate", scenario, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "valid" in done.stdout
    schema = call("scenario", "--schema", cwd=tmp_path)
    assert json.loads(schema.stdout)["properties"]["fleet"]
    listed = call("scenario", cwd=tmp_path)
    assert "fleet.penetration" in listed.stdout
    assert "aggregators.NAME(scheduled).horizon = 129600.0  (duration > 0)" in listed.stdout


def test_validate_reads_a_scenario_once(scenario, tmp_path, monkeypatch):
    read, files = fields.read_yaml, []
    monkeypatch.setattr(fields, "read_yaml", lambda path: (files.append(path), read(path))[1])
    assert call("validate", scenario, cwd=tmp_path).returncode == 0
    assert len(files) == 1


def test_the_keys_of_other_files_and_of_a_part(tmp_path):
    listed = call("scenario", "--of", "batch", "sample", cwd=tmp_path)
    assert [line for line in listed.stdout.splitlines() if line[0] != " "] == [
        "sample  (mapping)",
        "sample.size  (whole number ≥ 1, required)",
        "sample.seed = 0  (whole number ≥ 0)",
        "sample.ranges  (mapping of names to mapping, required)",
        "sample.ranges.NAME.low = null  (number)",
        "sample.ranges.NAME.high = null  (number)",
        "sample.ranges.NAME.integer = false  (true or false)",
        "sample.ranges.NAME.choices = null  (list of any value)",
    ]
    unknown = call("scenario", "--of", "results", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "results: must be one of batch, " in unknown.stderr
    nothing = call("scenario", "fleet.speed", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "there is no key fleet.speed in a file of the kind scenario" in nothing.stderr


def test_a_snapshot_replays_to_the_same_result(scenario, tmp_path):
    options = ("--set", "fleet.mix=default", "--set", "fleet.charger.bidirectional=0.5", "--members", 2,
               "--set", "feeder.phases=1")  # fmt: skip
    snapshot = call("sessions", scenario, "-o", "table.parquet", *options, cwd=tmp_path)
    assert snapshot.returncode == 0, snapshot.stderr
    assert "sessions of 12 EVs in 2 members" in snapshot.stdout
    (tmp_path / "replay.yaml").write_text(
        SCENARIO.replace("{count: 6, ", "{sessions: {file: table.parquet}, ")
    )
    ran = call("run", scenario, "-o", "one.nc", "--no-plot", *options, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    replayed = call("run", "replay.yaml", "-o", "two.nc", "--no-plot", *options[4:], cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    assert "snapshot of the sessions of cli-case, seed 0" in replayed.stdout
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
    wait_until(lambda: list(tmp_path.glob("results/.*.part")), process)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
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


def test_feeder_tells_what_a_network_holds_lacks_and_refuses(tmp_path):
    done = call("feeder", "cigre_mv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "15: 1 at 110 kV, 14 at 20 kV" in done.stdout
    assert "zero-sequence data of line and trafo" in done.stdout
    filled = call("feeder", "cigre_mv", "--zero-sequence", cwd=tmp_path)
    assert "vector group of 2 trafos by the recipe four_wire" in filled.stdout
    refused = call("feeder", "pandapower:create_cigre_network_hv", cwd=tmp_path)
    assert "would refuse it" in refused.stdout
    assert "gen 'Generator 10' can't be represented with the solver power-grid-model" in refused.stdout
    unknown = call("feeder", "cigre", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "unknown network" in unknown.stderr
