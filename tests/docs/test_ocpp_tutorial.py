"""The commands of the tutorial of OCPP do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evgrid.federation.control import free_ports

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how_to" / "ocpp_tutorial.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tutorial")
    (made / "scenarios").symlink_to(ROOT / "scenarios")
    return made


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the blocks are of a shell")
def test_blocks_run_in_their_order(folder):
    """Each block of the shell and of Python, with a free port, and without a screen for what is printed."""
    port = str(free_ports())
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    printed = []
    for kind, block in re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        command = ["bash", "-e", "-c"] if kind == "sh" else [sys.executable, "-c"]
        text = block.replace("9000", port).replace("timeout 20", "timeout 12")
        done = subprocess.run(
            [*command, text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout + done.stderr)
    lockstep, transactions, passwords, charger = printed
    assert lockstep.count("28 of 28 connected") == 2
    assert transactions.count(" kWh") == 3
    assert passwords.count("connected") == 2
    assert "refused" not in passwords
    assert f"ws://127.0.0.1:{port}/IDENTITY" in charger
