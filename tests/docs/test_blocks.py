"""What README and documentation show works: scenarios are valid, the strategy runs, links lead somewhere."""

import importlib
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import evgrid
from evgrid.readers.yaml_files import parse_yaml
from evgrid.runs.batch import Batch
from evgrid.scenario import scenario_from
from evgrid.scenario.fields import checked
from evgrid.scenario.tariffs import TARIFF_FORMS, form_of
from evgrid.studies.frequency_regulation import FrequencyRegulation
from evgrid.studies.reinforcement import Reinforcement

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    if not {"generated", "build"} & set(page.parts)
]
BASE = {
    "name": "base",
    "time": {"start": "2026-01-15T12:00", "duration": "1h"},
    "feeder": {"network": "european_lv"},
    "fleet": {"count": 5},
}
ALL_YEAR = [{"name": "all", "months": list(range(1, 13)), "periods": [{"name": "all", "price_per_kwh": 0.3}]}]
RATE = "tests/validation/tariff_urdb/rate.json"
FILES = (
    "load.csv",
    "prices.csv",
    "sessions.csv",
    "load_kw.csv",
    "day_ahead.csv",
    "feed_in.csv",
    "meters.csv",
    "customers.csv",
)


def blocks(page, language=""):
    """The fenced blocks of a language on a page."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\S*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


CONTROL = blocks(ROOT / "docs/guide/sites.md", "python")[0]
STRATEGY = blocks(ROOT / "README.md", "python")[1]


def yaml_blocks():
    for page in PAGES:
        for number, block in enumerate(blocks(page, "yaml")):
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("block", yaml_blocks())
def test_yaml_is_valid(block, tmp_path):
    """A scenario or a part of one, a batch, a study, a tariff or a part of one."""
    for name in FILES:
        (tmp_path / name).write_text("time,value\n0,1\n", encoding="utf-8")
    (tmp_path / "events.json").write_text("[]", encoding="utf-8")
    (tmp_path / "my_module.py").write_text(STRATEGY, encoding="utf-8")
    (tmp_path / "my_control.py").write_text(CONTROL, encoding="utf-8")
    content = parse_yaml(block)
    if "base" in content:
        checked(Batch, {**content, "base": str(ROOT / "scenarios" / "european_lv_v2g.yaml")}, "batch")
    elif "scenario" in content:
        kind = Reinforcement if "controls" in content else FrequencyRegulation
        checked(kind, {**content, "scenario": str(tmp_path / FILES[0])}, "study")
    elif "urdb" in content:
        (tmp_path / "rate.json").write_text((ROOT / RATE).read_text(encoding="utf-8"), encoding="utf-8")
        scenario_from(_whole({"tariff": content}), folder=tmp_path)
    elif {"demand", *TARIFF_FORMS.names()} & content.keys():
        missing = {} if set(TARIFF_FORMS.names()) & content.keys() else {"seasons": ALL_YEAR}
        tariff = {"name": "part", **missing, **content}
        checked(form_of(tariff), tariff, "tariff", tmp_path)
    else:
        scenario_from(_whole(content), folder=tmp_path)


def _whole(content):
    """A scenario of its parts: what is missing is that of another; networks are shipped ones."""
    whole = {"tariff": "pge_ev2a", **BASE, **content}
    if not str(whole["feeder"].get("network")).endswith(".dss"):
        whole["feeder"] = {**whole["feeder"], "network": "european_lv"}
    fleet = whole["fleet"]
    if not {"count", "penetration"} & fleet.keys() and "file" not in str(fleet.get("sessions")):
        whole["fleet"] = {**BASE["fleet"], **fleet}
    strategies = str(whole.get("aggregators"))
    needed = {"regulation": {"source": "synthetic"}, "emissions": {"file": FILES[0]}}
    system = {key: value for key, value in needed.items() if key in strategies} or None
    return {"system": system, **whole}


def test_the_strategy_of_the_readme_asks_its_share_of_every_limit(tmp_path):
    (tmp_path / "my_module.py").write_text(STRATEGY, encoding="utf-8")
    given = {"aggregators": {"main": {"strategy": "my_module:MyStrategy", "share": 0.25}}}
    main = scenario_from(_whole(given), folder=tmp_path).aggregators["main"]
    view = SimpleNamespace(p_max=np.array([4.0, 0.0, 8.0]))
    assert main.strategy_class(main, None).setpoints(view).tolist() == [1.0, 0.0, 2.0]


def test_the_page_on_strategies_shows_that_of_the_readme():
    assert blocks(ROOT / "docs" / "how_to" / "own_strategy.md", "python")[0] == STRATEGY


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_files_that_a_page_names_are_there(page):
    """Such as ``evgrid.core.ports``, ``scenario/aggregators.py``, ``aggregator/strategies/``."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`(evgrid(?:\.\w+)+)`", text):
        assert _found(name), f"{page.name} names {name}"
    for name in re.findall(r"`((?:\w+/)+|(?:\w+/)*\w+\.py)`", text):
        places = (ROOT / name, ROOT / "federates" / "evgrid" / name)
        assert any(place.exists() for place in places) or list(ROOT.glob(f"tests/*/{name}")), name


def _found(name):
    """Whether a dotted name is of a module, or of something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part, None)
            return found is not None
    return False


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    assert not [name for name in evgrid.__all__ if not re.search(rf":: evgrid\.{name}\b", page)]


@pytest.mark.slow
def test_the_readme_shows_what_the_run_prints(tmp_path):
    """Every line of the block but for the prompt and the ellipsis, in words."""
    (tmp_path / "my_street.yaml").write_text(blocks(ROOT / "README.md", "yaml")[0], encoding="utf-8")
    shown = next(block for block in blocks(ROOT / "README.md") if "evgrid run" in block)
    command = [sys.executable, "-m", "evgrid.cli", "run", "my_street.yaml", "--members", "1", "--no-plot"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    printed = " ".join(done.stdout.split())
    lines = [" ".join(line.split()) for line in shown.splitlines()[1:]]
    assert not [line for line in lines if line != "…" and line not in printed]
