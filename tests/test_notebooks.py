"""The notebooks run from top to bottom, and are kept without outputs.

In the short run what follows replaces the values of the cell that is tagged ``parameters``.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = {path.stem: path for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
SMALL = {
    "frequency_regulation": 'evs, start, duration = 20, "2026-01-15T21:30", "1h"',
    "hosting_capacity": 'deployments, duration, levels, nodal_kw = 3, "1h", [0.0, 1.0], [0, 50]',
    "managed_charging": 'duration, variants = "6h", ["uncontrolled", "tou", "scheduled (V2G)"]',
    "managed_charging_on_a_street": 'duration = "3h"',
    "reinforcement_learning": 'members, generations, duration, judged = 4, 2, "2h", 2',
    "resilience": 'duration = "7d"',
    "v2h": 'duration = "6h"',
    "voltage_support": 'members, duration = 1, "1h"',
}

LONGER = {"frequency_regulation", "hosting_capacity", "managed_charging", "v2h", "voltage_support"}
"""Notebooks whose small case takes longer than the others'."""


def execute(path, parameters=None):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs for cell in code)
    if parameters:
        (cell,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", ())]
        assert names(parameters) <= names(cell.source)
        cell.source += f"\n{parameters}"
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}}).execute()


def names(source):
    """What a cell assigns."""
    return set(compile(source, "cell", "exec").co_names)


@pytest.mark.parametrize(
    "stem", [pytest.param(stem, marks=[pytest.mark.slow] * (stem in LONGER)) for stem in sorted(NOTEBOOKS)]
)
def test_notebook_on_a_small_case(stem):
    execute(NOTEBOOKS[stem], SMALL[stem])


@pytest.mark.slow
@pytest.mark.parametrize("stem", sorted(NOTEBOOKS))
def test_notebook(stem):
    execute(NOTEBOOKS[stem])
