"""The folder of a batch is one batch's at a time, is checked, and its batch works unseen from outside."""

import json
import signal
import subprocess
import sys

import psutil
import pytest
import xarray as xr
from click.testing import CliRunner
from tests.support.waiting import wait_until

import evgrid
from evgrid.cli import main
from evgrid.results import FORMAT, save_dataset
from evgrid.runs.batch import Batch, load_batch, plan, read_index, run_batch
from evgrid.runs.batch.cluster import check_scheduler, dask_client
from evgrid.runs.batch.folder import locked, read_record, shown

BASE = """
name: base
time: {start: 2026-07-01T16:00, duration: 30min, step: 5min}
feeder: {network: cigre_lv, base_load: {source: standard}}
fleet: {count: 2, charger: {phases: 3}}
communication: {telemetry: 5min}
"""


@pytest.fixture
def batch(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "batch.yaml").write_text("name: mine\nbase: base.yaml\ngrid: {fleet.count: [1, 2, 3]}\n")
    return load_batch(tmp_path / "batch.yaml")


def finished(folder, runs):
    """The folder of the batch as if its runs were done."""
    (folder / "runs").mkdir(parents=True)
    for run in runs:
        attrs = {"format": FORMAT, "name": "x", "scenario": "{}", "audit": "{}"}
        part = xr.Dataset({"p": (("member", "time"), [[1.0]])}, {"member": [0], "time": [0]}, attrs)
        save_dataset(part, folder / "runs" / f"{run.id}.nc")
    record = {"format": "evgrid-batch-1", "name": "mine", "version": "0"}
    record["runs"] = [run.record.model_dump() for run in runs]
    (folder / "batch.json").write_text(json.dumps(record))


@pytest.mark.parametrize("damage", ["truncated", "empty", "zeroed", "flipped"])
def test_resume_trusts_only_what_is_whole(batch, tmp_path, damage):
    runs, folder = plan(batch), tmp_path / "out"
    finished(folder, runs)
    bad = folder / "runs" / f"{runs[1].id}.nc"
    content = bytearray(bad.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    bad.write_bytes(
        {"truncated": content[:-100], "empty": b"", "zeroed": bytes(len(content))}.get(damage, content)
    )
    assert read_index(folder)["state"].tolist() == ["finished", "damaged", "finished"]
    if damage == "flipped":  # once whole: the others differ in the file only
        report = run_batch(batch, folder, resume=True, workers=1)
        assert report.finished == 3
        assert report.damaged == {runs[1].id}
        assert set(report.outcomes) == {runs[1].id}
        assert not list((folder / "runs").glob(".*"))


def test_a_second_batch_in_the_folder_is_refused_while_one_is_at_work(batch, tmp_path):
    folder = tmp_path / "out"
    with locked(folder):
        part = folder / "runs" / ".x.nc.part"
        part.parent.mkdir()
        part.touch()
        with pytest.raises(evgrid.EvgridError, match="another batch is running in .*out: process .* on "):
            run_batch(batch, folder)
        assert part.exists()
    with locked(folder):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"jobs": 3}', "no batch of evgrid: its batch.json has no format"),
        ("{", "batch.json is no JSON"),
        ("", "batch.json is no JSON"),
        ("[" * 100_000, "batch.json is no JSON"),
        ('{"format": "evgrid-batch-1"}', "batch.json is damaged: name"),
        (
            '{"format": "evgrid-batch-1", "name": "other", "version": "0", "runs": []}',
            "holds another batch, other",
        ),
        (
            '{"format": "evgrid-batch-1", "name": "mine", "version": "0", "runs": [{"id": "../../x", '
            '"case": 0, "overrides": {}, "first": 0, "members": 1}]}',
            "batch.json is damaged: runs.0.id",
        ),
    ],
)
def test_what_another_has_written_is_a_sentence_and_stays(batch, tmp_path, text, said):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "batch.json").write_text(text)
    for resume in (False, True):
        with pytest.raises(evgrid.EvgridError, match=said) as raised:
            run_batch(batch, folder, resume=resume)
        assert "\n" not in str(raised.value)
    assert (folder / "batch.json").read_text() == text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tpc://127.0.0.1:8786", "tpc is unknown; known are "),
        ("127.0.0.1", "must be an address such as tcp://host:8786"),
        ("tcp://127.0.0.1", "must be an address such as tcp://host:8786"),
        ("tcp://127.0.0.1:port", "must be an address such as"),
        ("tcp://no-such-host.invalid:8786", "there is no Dask scheduler"),
        ("tcp://127.0.0.1:1", "there is no Dask scheduler"),
    ],
)
@pytest.mark.timeout(60)
def test_a_misspelt_scheduler_is_refused(address, said):
    with pytest.raises(evgrid.EvgridError, match=said):
        check_scheduler(address)


def test_a_local_batch_listens_on_the_loopback_interface_only():
    with dask_client(None, 1):
        own = psutil.Process()
        ours = {own.pid, *(child.pid for child in own.children(recursive=True))}
        heard = [
            c for c in psutil.net_connections("inet") if c.pid in ours and c.status == psutil.CONN_LISTEN
        ]
    assert heard
    assert {c.laddr.ip for c in heard} <= {"127.0.0.1", "::1"}


def test_a_batch_without_a_worker_ends(batch, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        short = batch.model_copy(update={"workers_within": 2.0})
        with pytest.raises(evgrid.EvgridError, match="there has been no worker for 2 s"):
            run_batch(short, tmp_path / "out", scheduler=cluster.scheduler_address)


def test_cases_and_values_may_have_names(batch, tmp_path):
    by_name = {"none": {"strategy": "uncontrolled"}, "by price": {"strategy": "tou"}}
    text = {
        "name": "mine",
        "base": batch.base,
        "grid": {"aggregators.main": by_name},
        "overrides": {"tariff": "pge_ev2a"},
    }
    runs = plan(Batch.model_validate(text))
    finished(tmp_path / "grid", runs)
    with evgrid.open_batch(tmp_path / "grid") as opened:
        assert opened["aggregators.main"].values.tolist() == ["none", "by price"]
    assert read_record(tmp_path / "grid").runs[1].title == "aggregators.main = by price"
    listed = Batch.model_validate(
        {"name": "mine", "base": batch.base, "list": {"few": {"fleet.count": 1}, "many": {}}}
    )
    finished(tmp_path / "list", plan(listed))
    with evgrid.open_batch(tmp_path / "list") as opened:
        assert opened["case_name"].values.tolist() == ["few", "many"]
    assert shown({"strategy": "peak_limit", "limit_kw": 45}) == "peak_limit (limit_kw: 45)"


@pytest.mark.parametrize(
    "name",
    [
        "../out", "a/../../b", "a//b", "a/", "..", "/tmp/x", "a\\b", "nul", "a/nul", "a\0b", " a", "a / b",
        "C:x", "x" * 300,
    ],
)  # fmt: skip
def test_a_name_leads_nowhere_else(tmp_path, name):
    (tmp_path / "base.yaml").write_text(BASE)
    with pytest.raises(evgrid.ScenarioError, match="name = .*results are called by it"):
        evgrid.load_scenario(tmp_path / "base.yaml", {"name": name})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cleans_up_as_ctrl_c_does(tmp_path, number):
    (tmp_path / "base.yaml").write_text(BASE.replace("30min", "3000d"))
    process = subprocess.Popen(
        [sys.executable, "-m", "evgrid.cli", "run", "base.yaml", "-o", "out/r.nc"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: list(tmp_path.glob("out/.r.nc.*.part")), process)
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert f"stopped by {number.name}; no result was written" in errors
    assert "Traceback" not in out + errors
    assert not (tmp_path / "out").exists()


def test_a_name_may_have_folders(tmp_path, monkeypatch):
    (tmp_path / "base.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    name = "München/Süd: case 1"
    done = CliRunner().invoke(main, ["run", "base.yaml", "--no-plot", "--set", f"name={json.dumps(name)}"])
    assert done.exit_code == 0, done.output
    with evgrid.open_results(tmp_path / "results" / "München" / "Süd: case 1.nc") as result:
        assert result.attrs["name"] == name
