"""A short round of each kind: no mutant ends in a traceback, a hang, or too much memory."""

import pytest
from tests.fuzz.kinds import KINDS
from tests.fuzz.rounds import play


@pytest.mark.parametrize("kind", KINDS)
def test_short_round(kind):
    report = play(kind, *KINDS[kind], seed=0, count=10, seconds=240)
    assert report.outcomes.total() == 10
    assert not report.findings, "\n\n".join(f"{name}\n{text}" for name, text in report.findings)
    assert len(report.outcomes) > 1  # some are read, some refused
