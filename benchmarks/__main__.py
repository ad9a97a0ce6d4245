"""Run every benchmark and print one table: what, figure, against what, ratio."""

from __future__ import annotations

import importlib
import sys

from rich.console import Console
from rich.table import Table

MODULES = (
    "fleet_kernel",
    "dispatch",
    "scheduling",
    "helics_tick",
    "power_flow",
    "coupling",
    "hosting_capacity",
    "batch",
    "regulation_day",
    "demo",
)


def main(names: list[str]) -> None:
    """Print the rows of the named benchmarks, or of all of them."""
    table = Table(title="evgrid benchmarks (compare within one run only)", title_justify="left")
    for column in ("what", "figure", "against", "figure", "ratio"):
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    for name in names or MODULES:
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            table.add_row(
                row["what"], row["figure"], row.get("against", ""), row.get("reference", ""),
                f"{row['ratio']:.3g}" if "ratio" in row else "",
            )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
