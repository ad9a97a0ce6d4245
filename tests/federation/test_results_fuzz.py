"""A short round of the fuzzer of results: whatever is damaged ends in one sentence."""

import importlib.util
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz" / "results.py"


@pytest.mark.timeout(240)
def test_damaged_results_and_batches_end_in_a_sentence(tmp_path):
    spec = importlib.util.spec_from_file_location("fuzz_results", FUZZ)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    result, batch = fuzz.seeds(tmp_path)
    seen = {fuzz.outcome(path) for path in fuzz.mutations(result, batch, tmp_path / "mutated", 7, 25)}
    assert seen <= {"read", "refused"}, seen
    assert "refused" in seen
