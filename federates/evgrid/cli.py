"""The command line: ``evgrid run``, ``validate``, ``scenario``, ``plot``.

Exit codes: 0 done, 1 the run or a file failed, 2 the scenario or the command is wrong, 130 Ctrl-C.
Heavy imports happen inside the commands, so that ``evgrid --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evgrid.errors import EvgridError, ScenarioError

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.scenario import Scenario
    from evgrid.simulation import RunReport


class _Group(click.Group):
    """Prints an error that is the user's to mend as its sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EvgridError as error:
            click.echo(f"evgrid: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("evgrid: stopped by Ctrl-C; no result was written", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="evgrid")
def main() -> None:
    """Grid co-simulation for EV aggregation: a feeder, thousands of EVs and a V1G/V2G aggregator."""


_scenario_argument = click.argument("scenario", type=click.Path(path_type=Path))
_set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Override one setting, such as fleet.penetration=0.8; may be repeated.",
)  # fmt: skip
_members_option = click.option("--members", type=int, help="Override ensemble.members.")


@main.command()
@_scenario_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="NetCDF file; default results/NAME.nc.")
@click.option("--plot/--no-plot", default=True, help="Draw the overview beside the result.")
@_set_option
@_members_option
def run(
    scenario: Path, output: Path | None, plot: bool, settings: tuple[str, ...], members: int | None
) -> None:
    """Run SCENARIO and write its result."""
    checked = _load(scenario, settings, members)
    from evgrid.simulation import run_with_report

    output = output or Path("results") / f"{checked.name}.nc"
    with _progress(checked) as advance:
        result, report = run_with_report(checked, output, advance)
    _print_summary(result, report)
    click.echo(f"result   {output}")
    if plot:
        from evgrid.plots import save_overview

        click.echo(f"picture  {save_overview(result, output.with_suffix('.png'))}")
    result.close()


@main.command()
@_scenario_argument
@_set_option
@_members_option
def validate(scenario: Path, settings: tuple[str, ...], members: int | None) -> None:
    """Check SCENARIO, its files and its network without running it."""
    checked = _load(scenario, settings, members)
    from evgrid.simulation import build_world

    sizes = build_world(checked).sizes
    click.echo(
        f"{scenario}: valid; {sizes['member']} members, {checked.clock.ticks} ticks "
        f"of {checked.time.step:g} s, {sizes['bus']} buses, {sizes['connection']} connections, "
        f"{sizes['ev']} EVs, {sizes['session']} sessions"
    )


@main.command()
@click.option("--schema", is_flag=True, help="Print the JSON schema of a scenario, with units and defaults.")
def scenario(schema: bool) -> None:
    """Tell what a scenario holds: a line a setting, or the whole JSON schema."""
    import json

    from evgrid.scenario import Scenario, describe

    if schema:
        click.echo(json.dumps(Scenario.model_json_schema(), indent=2))
        return
    for path, default, text in describe():
        click.echo(f"{path}{f' = {default}' if default else ''}\n    {text}")


@main.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Picture; default beside the result.")
def plot(result: Path, output: Path | None) -> None:
    """Draw the overview of RESULT."""
    from evgrid.plots import save_overview
    from evgrid.results import open_results

    with open_results(result) as dataset:
        click.echo(f"picture  {save_overview(dataset, output or result.with_suffix('.png'))}")


@main.command()
@click.argument("network")
@click.option("--phases", type=click.Choice(["1", "3", "auto"]), default="auto", help="As feeder.phases.")
@click.option(
    "--zero-sequence", is_flag=True, help="In three phases, with the recipe four_wire for missing data."
)
def feeder(network: str, phases: str, zero_sequence: bool) -> None:
    """Tell what NETWORK (a name or a pandapower file) holds, lacks, and what would be refused."""
    from rich.console import Console
    from rich.table import Table

    from evgrid.feeder.describe import describe_network
    from evgrid.scenario import Feeder

    settings: dict[str, Any] = {"network": network, "phases": int(phases) if phases != "auto" else phases}
    if zero_sequence:
        settings |= {"phases": 3, "zero_sequence": {"recipe": "four_wire"}}
    account = describe_network(Feeder.model_validate(settings))
    table = Table(title=account.source, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for row in account.facts:
        table.add_row(*row)
    for title, entries in (("assumed", account.notes), ("missing", account.missing)):
        table.add_row(title, "\n".join(entries) or "nothing")
    for solver, entries in account.refused.items():
        table.add_row(solver, "\n".join(["would refuse it:", *entries]) if entries else "solves it")
    Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False).print(table)


def _load(path: Path, settings: tuple[str, ...], members: int | None) -> Scenario:
    """Load a scenario with the overrides of the command line."""
    from evgrid.scenario import load_scenario, parse_override

    overrides, faults = {}, []
    for setting in settings:
        try:
            key, value = parse_override(setting)
        except ValueError as error:
            faults.append(str(error))
        else:
            overrides[key] = value
    if faults:
        raise ScenarioError(faults, "--set")
    if members is not None:
        overrides["ensemble.members"] = members
    return load_scenario(path, overrides)


@contextmanager
def _progress(scenario: Scenario) -> Iterator[Callable[[float], None]]:
    """A progress bar on a terminal: simulated time, and speed as simulated over real time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} × real time" if task.speed else "starting")

    class Simulated(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(scenario.clock.stamp(task.completed).replace("T", " "))

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), Simulated(), Speed(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(scenario.name, total=scenario.clock.duration_s)
        yield lambda done_s: bar.update(task, completed=done_s)


def _print_summary(result: xr.Dataset, report: RunReport) -> None:
    """Print the key figures of a run, how its time split, and the audit."""
    import json

    from rich.console import Console
    from rich.table import Table

    from evgrid.metrics import summary

    console = Console(width=None if sys.stdout.isatty() else 100)
    table = Table(
        title=result.attrs["name"], title_justify="left", show_header=False, box=None, pad_edge=False
    )
    table.add_column(style="bold")
    table.add_column()
    for row in summary(result):
        table.add_row(*row)
    given_up = json.loads(result.attrs.get("failed_members", "{}"))
    if given_up:
        table.add_row(
            f"given up: {len(given_up)} of {result.sizes['member']} members", "\n".join(given_up.values()),
            style="red",
        )  # fmt: skip
    time = report.federation
    split = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in time.stepping_s.items())
    coupling = f"HELICS {time.coupling_s:.2f} s ({time.coupling_us_per_tick:.0f} µs a tick)"
    table.add_row("wall time", f"{time.wall_s:.2f} s: {split}, {coupling}")
    table.add_row("energy audit", ", ".join(f"{key} {value:.1e}" for key, value in report.audit.items()))
    console.print(table)


if __name__ == "__main__":
    main()
