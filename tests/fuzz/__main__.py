"""``python -m tests.fuzz [--seed S] [--count N] [--seconds S] [KIND ...]``: what becomes of mutated inputs.

Prints a table of kinds and outcomes, then each finding; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter

from rich.console import Console
from rich.table import Table
from tests.fuzz.kinds import KINDS
from tests.fuzz.rounds import Report, play


def main() -> int:
    """Play a round of each kind that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; left out: all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--count", type=int, default=1000, help="mutants of each kind")
    parser.add_argument("--seconds", type=float, default=300.0, help="bound on the time of each kind")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("EVGRID_CACHE", cache)
        reports = [
            play(kind, *KINDS[kind], given.seed, given.count, given.seconds) for kind in given.kinds or KINDS
        ]
    show(reports, given.seed)
    return int(any(report.findings for report in reports))


def show(reports: list[Report], seed: int) -> None:
    """Print the table, and every finding once a kind of last line."""
    outcomes = sorted({name for report in reports for name in report.outcomes})
    table = Table("kind", "mutants", *outcomes, "slowest, s", title=f"seed {seed}", title_justify="left")
    for report in reports:
        counts = (str(report.outcomes[name]) for name in outcomes)
        table.add_row(report.kind, str(report.outcomes.total()), *counts, f"{report.slowest_s:.1f}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for report in reports:
        ends = Counter(text.strip().splitlines()[-1][:200] for _, text in report.findings)
        for last, times in ends.most_common():
            name, text = next(f for f in report.findings if f[1].strip().splitlines()[-1][:200] == last)
            console.print(f"\n{report.kind}, {times} times; first {name}\n{text}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
