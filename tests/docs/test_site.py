"""The documentation builds without a warning; its notebooks are executed by test_notebooks.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

from evgrid.core.ports import PORTS

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_warning(tmp_path):
    options = ("-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees")
    command = [sys.executable, "-m", "sphinx", *options, ROOT / "docs", tmp_path / "html"]
    env = {**os.environ, "EVGRID_DOCS_NOTEBOOKS": "off"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scenario = (tmp_path / "html" / "reference" / "scenario.html").read_text(encoding="utf-8")
    for key in ("feeder.network", "aggregators.NAME(scheduled).horizon", "fleet.sessions(home).return_h"):
        assert key in scenario
    built = (tmp_path / "html" / "development" / "how_it_is_built.html").read_text(encoding="utf-8")
    assert all(port in built for port in PORTS)
    for page in tmp_path.glob("html/**/*.html"):  # none needs the network
        assert not re.search(r"https?://[^\s\"'>]+\.(?:mjs|js|css)\b", page.read_text(encoding="utf-8")), page
