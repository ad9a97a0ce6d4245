"""What README and documentation show works: scenarios are valid, the strategy runs, links lead somewhere."""

import re
import shutil
from pathlib import Path

import pytest

import evgrid
from evgrid.readers.yaml_files import parse_yaml
from evgrid.runs.batch import load_batch
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import checked
from evgrid.scenario.tariffs import Tariff

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*/*.md")), *(ROOT / "docs").glob("*.md")]
PAGES = [page for page in PAGES if "generated" not in page.parts]
BASE = {
    "name": "base",
    "time": {"start": "2026-01-15T12:00", "duration": "1h"},
    "feeder": {"network": "european_lv"},
    "fleet": {"count": 5},
}
FILES = ("load.csv", "prices.csv", "sessions.csv", "load_kw.csv", "day_ahead.csv", "feed_in.csv")


def blocks(page, language):
    """The fenced blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def yaml_blocks():
    for page in PAGES:
        for number, block in enumerate(blocks(page, "yaml")):
            yield pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize(("page", "block"), yaml_blocks())
def test_yaml_is_valid(page, block, tmp_path):
    """A scenario, a part of one, a batch, a study or a tariff."""
    for name in FILES:
        (tmp_path / name).write_text("time,value\n0,1\n", encoding="utf-8")
    (tmp_path / "my_module.py").write_text(blocks(ROOT / "README.md", "python")[1], encoding="utf-8")
    content = parse_yaml(block)
    if "base" in content:
        path = tmp_path / "batches" / "batch.yaml"
        path.parent.mkdir()
        shutil.copy(ROOT / "scenarios" / "european_lv_v2g.yaml", tmp_path)
        path.write_text(block, encoding="utf-8")
        assert load_batch(path).cases()
    elif "seasons" in content or "prices" in content:
        assert checked(Tariff, content, "tariff", tmp_path)
    elif "demand" in content:
        season = {"name": "all", "months": list(range(1, 13)), "periods": [{"name": "all", "price_per_kwh": 1}]}
        assert checked(Tariff, {"name": "t", **content, "seasons": [season]}, "tariff", tmp_path).demand
    elif "scenario" in content:
        from evgrid.studies.reading import settings_of

        known = settings_of("frequency-regulation").model_fields
        assert not content.keys() - known.keys()
    else:
        whole = {**BASE, **content}
        for section in ("feeder", "fleet"):
            whole[section] = {**BASE[section], **content.get(section, {})}
        if "network" in whole["feeder"]:
            whole["feeder"]["network"] = "european_lv"
        if "file" in str(whole["fleet"].get("sessions")) or "penetration" in whole["fleet"]:
            del whole["fleet"]["count"]
        if "regulation" in str(content.get("aggregators")):
            whole |= {"tariff": "pge_ev2a", "system": {"regulation": {"source": "synthetic"}, "emissions": {"file": "prices.csv"}}}
        assert scenario_from(whole, folder=tmp_path)


def test_the_strategy_of_the_readme_asks_what_it_says(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(blocks(ROOT / "README.md", "python")[1], encoding="utf-8")
    content = {
        **BASE,
        "time": {"start": "2026-01-15T18:00", "duration": "30min", "step": "5min"},
        "communication": {"telemetry": "5min"},
        "feeder": {"network": "case33bw"},
        "fleet": {"count": 5, "vehicle": {"soc_target": 1.0}},
        "aggregators": {"main": {"strategy": "my_module:MyStrategy", "share": 0.25}},
    }
    asked = evgrid.run(scenario_from(content, folder=tmp_path))["setpoint_kw"]
    full = dict(content, aggregators={"main": {"strategy": "my_module:MyStrategy", "share": 1.0}})
    most = evgrid.run(scenario_from(full, folder=tmp_path))["setpoint_kw"]
    first = most.values > 0
    assert first.any()
    tick = int(first[0].argmax())  # until the EVs have charged differently, they can draw alike
    assert asked.values[0, tick] == pytest.approx(0.25 * most.values[0, tick])


def test_own_strategy_page_shows_that_of_the_readme():
    page = ROOT / "docs" / "how_to" / "own_strategy.md"
    assert blocks(page, "python")[0] == blocks(ROOT / "README.md", "python")[1]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_the_readme_shows_what_the_run_prints(tmp_path):
    import subprocess
    import sys

    yaml = blocks(ROOT / "README.md", "yaml")[0]
    (tmp_path / "my_street.yaml").write_text(yaml, encoding="utf-8")
    shown = next(b for b in re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE) if "evgrid run" in b)
    command = [sys.executable, "-m", "evgrid.cli", "run", "my_street.yaml", "--members", "1", "--no-plot"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    printed = {" ".join(line.split()) for line in done.stdout.splitlines()}
    for line in shown.splitlines()[1:]:
        if line != "…":
            assert " ".join(line.split()) in printed, line
