"""Run every benchmark and print one table: what, figure, against what, ratio.

``python -m benchmarks [--smoke] [NAME ...]``; ``--smoke`` runs each on a small case, to see that it works.
A benchmark is a module with ``rows(...)``, and ``SMOKE``, the arguments of that small case.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from rich.console import Console
from rich.table import Table

MODULES = (
    "fleet_kernel",
    "dispatch",
    "scheduling",
    "scores",
    "survival",
    "sites",
    "helics_tick",
    "deployments",
    "power_flow",
    "opendss_day",
    "coupling",
    "hosting_capacity",
    "batch",
    "gym_steps",
    "ocpp_stations",
    "regulation_day",
    "demo",
)


def main(names: list[str], smoke: bool = False) -> None:
    """Print the rows of the named benchmarks, or of all of them."""
    table = Table(title="evgrid benchmarks (compare within one run only)", title_justify="left")
    for column in ("what", "figure", "against", "figure", "ratio"):
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    for name in names or MODULES:
        benchmark = importlib.import_module(f"benchmarks.{name}")
        for row in benchmark.rows(**(benchmark.SMOKE if smoke else {})):
            table.add_row(
                row["what"], row["figure"], row.get("against", ""), row.get("reference", ""),
                f"{row['ratio']:.3g}" if "ratio" in row else "",
            )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; left out: all")
    parser.add_argument("--smoke", action="store_true", help="a small case of each, in seconds")
    given = parser.parse_args()
    main(given.names, given.smoke)
