"""A short round of each kind: no mutant ends in a traceback, a hang, or too much memory."""

import pytest
from tests.fuzz.kinds import KINDS
from tests.fuzz.rounds import play


# results have a test of their own: they are made by a run, which a fork of the tests' process can't have
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "results"])
def test_short_round(kind):
    report = play(kind, *KINDS[kind], seed=0, count=15, seconds=60)
    assert report.outcomes.total() >= 5
    assert not report.findings, "\n\n".join(f"{name}\n{text}" for name, text in report.findings)
    assert len(report.outcomes) > 1  # some are read, some refused
