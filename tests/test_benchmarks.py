"""Every benchmark runs on a small case; no figure is judged."""

import importlib

import pytest
from benchmarks.__main__ import MODULES

LONGER = {"batch", "deployments", "hosting_capacity"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONGER)) for name in MODULES]
)
def test_benchmark_on_a_small_case(name):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    rows = benchmark.rows(**benchmark.SMOKE)
    assert rows
    assert all(row["what"] and row["figure"] for row in rows)
