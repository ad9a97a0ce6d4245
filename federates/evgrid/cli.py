"""The command line: ``evgrid run``, ``batch``, ``study``, ``validate``, ``sessions``, and others.

Exit codes: 0 done, 1 a run or a file failed, 2 the scenario or the command is wrong, 130 Ctrl-C, 143 SIGTERM,
129 SIGHUP.
Heavy imports happen inside the commands, so that ``evgrid --help`` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evgrid.core.interrupts import signals_as_interrupts
from evgrid.errors import EvgridError, ResultError, ScenarioError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from evgrid.federation.port_sheet import FederateSheet, PortSheet, SheetPort
    from evgrid.runs.batch import BatchReport
    from evgrid.runs.deployments import Deployment
    from evgrid.runs.simulation import RunReport
    from evgrid.scenario import Scenario


SHOWN = 5
"""Most undeliverable sessions that a run prints."""


class _Group(click.Group):
    """Prints user errors as a sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        with signals_as_interrupts() as received:
            try:
                return super().invoke(ctx)
            except EvgridError as error:
                text, code = str(error), error.exit_code
            except KeyboardInterrupt as stop:
                text, code = str(stop), 128 + signal.SIGINT
            if received or code == 128 + signal.SIGINT:
                number = received[0] if received else signal.SIGINT
                name = "Ctrl-C" if number == signal.SIGINT else number.name
                text, code = f"stopped by {name}{f'; {text}' if text else ''}", 128 + number
            click.echo(f"evgrid: {text}", err=True)
            ctx.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="evgrid")
def main() -> None:
    """Grid co-simulation for EV aggregation: a feeder, thousands of EVs and a V1G/V2G aggregator."""


def _refuse_code(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    from os import environ

    if given:
        environ["EVGRID_NO_CODE"] = "1"  # for the processes of a batch, too


_no_code_option = click.option(
    "--no-code", is_flag=True, expose_value=False, callback=_refuse_code,
    help="Refuse scenarios that name strategies or scorers in files of their own: they run code.",
)  # fmt: skip
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
@click.option("--processes", is_flag=True, help="Run each federate in a process of its own.")
@click.option("--profile", is_flag=True, help="Print where the time of each federate goes.")
@click.option(
    "--speed",
    metavar="FACTOR",
    help="Override time.speed: 'real time', or simulated seconds in a second of wall time.",
)
@_set_option
@_members_option
@_no_code_option
def run(
    scenario: Path, output: Path | None, plot: bool, processes: bool, profile: bool, speed: str | None,
    settings: tuple[str, ...], members: int | None,
) -> None:  # fmt: skip
    """Run SCENARIO and write its result."""
    from evgrid.runs.deployments import Deployment

    settings += () if speed is None else (f"time.speed={speed}",)
    checked = _load(scenario, settings, members)
    folder = str(scenario.parent.resolve())
    how = Deployment(processes=processes, folder=folder, announce=_announce(checked))
    _run(checked, output, plot, profile, how)


def _announce(scenario: Scenario) -> Callable[[str], None]:
    """Prints where the programs of others join."""

    def announce(address: str) -> None:
        from evgrid.scenario.federation import CORE_TYPE

        who = ", ".join(scenario.federation.external) or "its federates"
        click.echo(f"broker   {address} (core type {CORE_TYPE}): waiting for {who}", err=True)

    return announce


def _run(scenario: Scenario, output: Path | None, plot: bool, profile: bool, how: Deployment) -> None:
    """Run a scenario in a deployment; print its summary."""
    from functools import partial

    from evgrid.runs.deployments import couple
    from evgrid.runs.simulation import run_deployed

    output = output or Path("results") / f"{scenario.name}.nc"
    _check_output(output)
    with _message_on_interrupt("no result was written"), _progress(scenario) as advance:
        result, report = run_deployed(scenario, output, advance, partial(couple, how=how))
    _show(result, report, output, plot and "feeder" not in scenario.federation.external, profile)
    if plot and "feeder" in scenario.federation.external:
        click.echo("picture  not drawn: it shows the feeder, which is another program")


def _show(result: xr.Dataset, report: RunReport, output: Path, plot: bool, profile: bool = False) -> None:
    """Print the summary of a result, and draw its overview."""
    with result, _message_on_interrupt(f"the result is {output}"):
        _print_notes(report.notes, report.unreachable[:SHOWN], len(report.unreachable))
        _print_summary(result, report)
        click.echo(f"result   {output}")
        if plot:
            from evgrid.results.plots import save_overview

            click.echo(f"picture  {save_overview(result, output.with_suffix('.png'))}")
        if profile:
            _print_table("time of each federate", report.profile())


_folder_option = click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a strategy of your own; default: that of SCENARIO.",
)  # fmt: skip


@main.command()
@click.argument("name")
@_scenario_argument
@click.option("--broker", required=True, metavar="tcp://HOST:PORT", help="Address of the run's broker.")
@_folder_option
@_set_option
@_members_option
@_no_code_option
def federate(
    name: str,
    scenario: Path,
    broker: str,
    folder: Path | None,
    settings: tuple[str, ...],
    members: int | None,
) -> None:
    """Run the federate NAME of SCENARIO as a part of a run whose broker another process hosts.

    Its part of the result goes to the broker (evgrid broker), which joins all of them.
    """
    checked = _load(scenario, settings, members, folder=folder)
    _check_address(broker)
    from evgrid.runs.member import run_member

    run_member(name, checked, broker, str((folder or scenario.parent).resolve()))


@main.command()
@_scenario_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="NetCDF file; default results/NAME.nc.")
@click.option("--plot/--no-plot", default=True, help="Draw the overview beside the result.")
@click.option(
    "--listen",
    metavar="tcp://HOST:PORT",
    help="Address to listen at; default federation.broker, or a free port.",
)
@click.option("--profile", is_flag=True, help="Print where the time of each federate goes.")
@_folder_option
@_set_option
@_members_option
@_no_code_option
def broker(
    scenario: Path, output: Path | None, plot: bool, listen: str | None, profile: bool, folder: Path | None,
    settings: tuple[str, ...], members: int | None,
) -> None:  # fmt: skip
    """Host the broker of a run of SCENARIO, and write its result.

    Its federates are started with evgrid federate, on this machine or others.
    """
    checked = _load(scenario, settings, members, folder=folder)
    if listen is not None:
        _check_address(listen)
    from evgrid.runs.deployments import Deployment

    own = str((folder or scenario.parent).resolve())
    how = Deployment(awaited=True, broker=listen, folder=own, announce=_announce(checked))
    _run(checked, output, plot, profile, how)


@main.command("export-helics")
@_scenario_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
    help="Folder for runner.json, the scenario, and later the result.",
)  # fmt: skip
@_set_option
@_members_option
@_no_code_option
def export_helics(scenario: Path, output: Path, settings: tuple[str, ...], members: int | None) -> None:
    """Write what HELICS' own launcher starts: helics run --path=DIR/runner.json."""
    checked = _load(scenario, settings, members)
    from evgrid.runs.deployments import export_runner
    from evgrid.runs.port_sheet import port_sheet

    names = [federate.name for federate in port_sheet(checked).federates]
    path = export_runner(checked, names, output, str(scenario.parent.resolve()))
    click.echo(f"runner   {path}")


def _check_address(text: str) -> None:
    from evgrid.scenario.federation import address_of

    try:
        address_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _check_output(output: Path) -> None:
    """Refuse an output path of another kind of file, before anything is computed."""
    from evgrid.core.netcdf import check_output

    try:
        check_output(output)
    except ResultError as error:
        raise click.BadParameter(str(error), param_hint="-o") from None


@contextmanager
def _message_on_interrupt(what: str) -> Iterator[None]:
    """Add a message on the state of the output when a command is interrupted."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(str(stop) or what) from None


@contextmanager
def _read(path: Path) -> Iterator[xr.Dataset]:
    """A run's result; faults of one changed by other programs are reported as a sentence."""
    from evgrid.results import open_run

    with open_run(path) as dataset, _foreign([path]):
        yield dataset


@contextmanager
def _foreign(paths: Sequence[Path]) -> Iterator[None]:
    """Report faults of results that other programs have changed as a sentence."""
    from evgrid.core.netcdf import sealed

    try:
        yield
    except EvgridError:
        raise
    except Exception as error:
        others = [str(path) for path in paths if path.is_file() and not sealed(path)]
        if not others:  # a bug of evgrid
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ResultError(
            f"{', '.join(others)} was not written by evgrid, and lacks what this needs: {text}"
        ) from error


@main.command()
@_scenario_argument
@_set_option
@_members_option
@_no_code_option
def validate(scenario: Path, settings: tuple[str, ...], members: int | None) -> None:
    """Check SCENARIO, or a study or batch with all its runs, its files and network, without running it."""
    from evgrid.scenario.fields import read_settings

    content = read_settings(scenario)
    if "scenario" in content or "base" in content:
        _validate_many(scenario, "base" in content, settings, members)
        return
    checked = _load(scenario, settings, members, content)
    from evgrid.runs.simulation import build_world, check_files

    world = build_world(checked)
    check_files(checked)
    sizes = world.sizes
    _print_notes(world.notes, world.sessions.unreachable[:SHOWN], len(world.sessions.unreachable))
    click.echo(
        f"{scenario}: valid; {sizes['member']} members, {checked.clock.ticks} ticks "
        f"of {checked.time.step:g} s, {sizes['bus']} buses, {sizes['connection']} connections, "
        f"{sizes['ev']} EVs, {sizes['session']} sessions"
    )


def _validate_many(path: Path, is_batch: bool, settings: tuple[str, ...], members: int | None) -> None:
    """Check a study or a batch, and build the world of its first run."""
    if settings or members is not None:
        raise click.UsageError(
            "--set and --members go with a scenario; a study or batch has its own overrides"
        )
    from evgrid.runs.simulation import build_world

    if is_batch:
        from evgrid.runs.batch import load_batch, plan

        kind, runs = "batch", plan(load_batch(path))
    else:
        from evgrid.studies.reading import check_study

        kind, runs = check_study(path)
    for note in build_world(runs[0].scenario).notes:
        click.echo(note)
    members_in_all = sum(len(run.scenario.members) for run in runs)
    click.echo(f"{path}: valid; a {kind} of {len(runs)} runs, {members_in_all} members in all")


@main.command()
@_scenario_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Parquet file for a snapshot of them.")
@_set_option
@_members_option
@_no_code_option
def sessions(scenario: Path, output: Path | None, settings: tuple[str, ...], members: int | None) -> None:
    """Draw or import the sessions of SCENARIO, print a report of them, and write a snapshot."""
    checked = _load(scenario, settings, members)
    from evgrid.fleet.sessions.snapshot import write_snapshot
    from evgrid.runs.simulation import build_world

    world = build_world(checked)
    drawn = world.sessions
    _print_notes(drawn.notes, drawn.unreachable, len(drawn.unreachable))
    click.echo(f"{scenario}: {len(drawn)} sessions of {len(world.evs)} EVs in {len(checked.members)} members")
    if output is not None:
        click.echo(f"sessions {write_snapshot(output, checked, world.connections, world.evs, drawn)}")


@main.command()
@click.argument("key", default="")
@click.option(
    "--of", "kind", default="scenario", show_default=True, metavar="FILE",
    help="Kind of file: batch, tariff, rates, vehicle-types, or a study such as hosting-capacity.",
)  # fmt: skip
@click.option("--schema", is_flag=True, help="Print the JSON schema of the whole file.")
def scenario(key: str, kind: str, schema: bool) -> None:
    """List the keys of a scenario: allowed values, default and meaning.

    KEY, such as fleet.charger or aggregators.NAME, lists those below it only.
    """
    import json

    from evgrid.scenario.reference import REQUIRED, keys_of, schema_of
    from evgrid.studies.reading import settings_of

    try:
        allowed = schema_of(settings_of(kind))
    except ValueError as error:
        raise click.BadParameter(f"{kind}: {error}", param_hint="--of") from None
    if schema:
        click.echo(json.dumps(allowed, indent=2))
        return
    listed = [row for row in keys_of(allowed) if not key or row.path == key or _below(row.path, key)]
    if not listed:
        raise click.BadParameter(f"there is no key {key} in a file of the kind {kind}", param_hint="KEY")
    for row in listed:
        default = f" = {row.default}" if row.default not in ("", REQUIRED) else ""
        required = ", required" if row.default == REQUIRED else ""
        click.echo(f"{row.path}{default}  ({row.values}{required})\n    {row.text}")


def _below(path: str, key: str) -> bool:
    """Whether a path of the reference is of a key inside another."""
    return path.startswith(key) and path[len(key)] in ".[("


@main.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Picture; default beside the result.")
def plot(result: Path, output: Path | None) -> None:
    """Draw the overview of RESULT."""
    from evgrid.results.plots import save_overview

    with _read(result) as dataset:
        click.echo(f"picture  {save_overview(dataset, output or result.with_suffix('.png'))}")


_limits_option = click.option(
    "--limits", "names", multiple=True,
    help="Set of limits to check, such as en_50160; repeated for several. Default: those that fit.",
)  # fmt: skip


@main.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Page (.html); default beside the result."
)
@click.option("--pdf", is_flag=True, help="Print the page as PDF, too; needs Chromium or Chrome.")
@_limits_option
def report(results: tuple[Path, ...], output: Path | None, pdf: bool, names: tuple[str, ...]) -> None:
    """Write a report of RESULTS: one page that needs no network.

    RESULTS are a result, several to be shown side by side, or the folder of a study.
    """
    from evgrid.report import write_report

    known = _known_limits(names)
    with _foreign(results), _spinner("reading results"):
        page = write_report(results, output, known)
    click.echo(f"report   {page}")
    if pdf:
        from evgrid.report.pdf import print_pdf

        click.echo(f"pdf      {print_pdf(page, page.with_suffix('.pdf'))}")


@main.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), multiple=True,
    help="Write the table: .csv (numbers), .xlsx (both) or .tex (LaTeX); repeated for several.",
)  # fmt: skip
@_limits_option
def compare(results: tuple[Path, ...], output: tuple[Path, ...], names: tuple[str, ...]) -> None:
    """Compare key figures of RESULTS: a column a case, the median of the members and 5 to 95 %.

    RESULTS are results, or folders of batches, of which each case is compared.
    """
    from evgrid.report.cases import difference_of, figures_of
    from evgrid.report.key_figures import check_suffix, readable, write_tables

    for path in output:
        check_suffix(path)
    known = _known_limits(names)
    with _foreign(results), _batch_progress("compare", "cases") as advance:
        cases = figures_of(results, known, lambda done, total: advance(done, 0, total))
    _print_table("", readable(cases))
    for sentence in difference_of(results, cases, known):
        click.echo(sentence)
    for path in output:
        click.echo(f"table    {write_tables(cases, path)}")


@main.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; default a free one.")
@_limits_option
def browse(results: tuple[Path, ...], port: int, names: tuple[str, ...]) -> None:
    """Serve the report of RESULTS on this machine, with every recording interval, until Ctrl-C."""
    from evgrid.report.browse import serve

    def ready(address: str) -> None:
        click.echo(f"page     {address} (Ctrl-C ends it)")

    with _foreign(results), _message_on_interrupt("the page is no longer served"):
        serve(results, _known_limits(names), port, ready)


def _known_limits(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of sets of limits, all of them known."""
    from evgrid.results.limits import AGGREGATORS, limit_set

    try:
        if given := [name for name in names if name != AGGREGATORS]:
            limit_set(*given)
    except ValueError as error:
        several = "; for several repeat --limits" if any("," in name for name in names) else ""
        raise click.BadParameter(f"{error}{several}", param_hint="--limits") from None
    return names


@main.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--limits",
    "names",
    multiple=True,
    help="Set of limits to check, such as en_50160, ansi_c84_1_a, thermal_moving_average; aggregators: those "
    "of the run's aggregators; for several repeat --limits. Default: ansi_c84_1_a (networks of 60 Hz) or "
    "en_50160; ratings; aggregators.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the whole table as CSV.")
@click.option("--rows", default=20, show_default=True, help="Rows to print, the most severe first.")
def violations(result: Path, names: tuple[str, ...], output: Path | None, rows: int) -> None:
    """List the violations of grid limits in RESULT: place, time and severity."""
    from rich.console import Console
    from rich.table import Table

    from evgrid.results.limits import (
        AGGREGATORS,
        aggregator_limits,
        coverage,
        default_limits,
        limit_set,
        violations,
    )

    _known_limits(names)
    with _read(result) as dataset:
        if not names:
            names, why = default_limits(dataset)
            click.echo(f"limits {', '.join(names)}, {why}; others by --limits NAME, repeated for several")
        presets = [name for name in names if name != AGGREGATORS]
        own = aggregator_limits(dataset) if AGGREGATORS in names else ()
        if AGGREGATORS in names and not own:
            click.echo(f"not available: {AGGREGATORS}: no aggregator of the run had a limit")
            if not presets:
                return
        limits = limit_set(*presets, *own)
        found, checks = violations(dataset, limits), coverage(dataset, limits)
    for criterion in limits.criteria:
        click.echo(f"limit {criterion.name}: {criterion.text}")
    for kind in ("not_available", "notes"):
        for note in found.attrs[kind]:
            click.echo(f"{kind.replace('_', ' ')}: {note}")
    if output is not None:
        _write_csv(found, output)
    checked = checks["criterion"][checks["checked"]].tolist()
    left_out = [name for name in limits.names if name not in checked]
    not_checked = f"; not checked: {', '.join(left_out)}" if left_out else ""
    click.echo(f"{len(found)} violations of {', '.join(checked) or 'no limit'}{not_checked}")
    if found.empty:
        return
    table = Table(box=None, pad_edge=False)
    shown = found.drop(columns="severity").head(rows)
    for column in shown.columns:
        table.add_column(column)
    for row in shown.itertuples(index=False):
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


@main.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), help="Result of the same scenario, uncontrolled.")
@click.option("--rates", type=click.Path(path_type=Path), help="YAML file of charges and payments.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set one rate, such as demand_charge=15; may be repeated.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the table of the EVs as CSV.")
@click.option("--fleet", type=click.Path(path_type=Path), help="Write the table of the members as CSV.")
def settle(
    result: Path,
    against: Path | None,
    rates: Path | None,
    settings: tuple[str, ...],
    output: Path | None,
    fleet: Path | None,
) -> None:
    """Settle RESULT: costs of energy, demand charge, degradation and drivers, and revenue of regulation.

    RATES may hold demand_charge, fixed_per_day, wear_per_kwh, driver_per_kwh, driver_share, capability_price,
    performance_price and mileage_ratio.
    """
    from contextlib import ExitStack

    from evgrid.results.settlement import read_rates, settle, summary

    checked = read_rates(rates, _overrides(settings))
    with ExitStack() as stack:
        dataset = stack.enter_context(_read(result))
        other = stack.enter_context(_read(against)) if against is not None else None
        books = settle(dataset, checked, other)
        _print_rows(str(dataset.attrs["name"]), summary(books, str(dataset.attrs.get("currency", ""))))
        open_ones = int((~dataset["session_complete"].values.astype(bool)).sum())
    if open_ones:
        click.echo(f"{open_ones} sessions are under way at the end: they count with the energy drawn so far")
    for path, table, index in ((output, books.evs, False), (fleet, books.fleet, True)):
        if path is not None:
            _write_csv(table, path, index)


def _write_csv(table: pd.DataFrame, path: Path, index: bool = False) -> None:
    from evgrid.core.netcdf import OTHER_SUFFIXES, replacing

    if path.suffix.lower() in {".nc", ".nc4", ".h5", *OTHER_SUFFIXES} - {".csv", ".tsv", ".txt"}:
        raise ResultError(f"the table can't be written to {path}: it is CSV, use {path.with_suffix('.csv')}")
    try:
        with replacing(path) as part:
            table.to_csv(part, index=index, compression="gzip" if path.suffix == ".gz" else None)
    except OSError as error:
        raise ResultError(f"the table can't be written to {path}: {error.strerror}") from error
    click.echo(f"table    {path}")


def _print_notes(notes: tuple[str, ...], unreachable: tuple[str, ...], count: int) -> None:
    """Print the notes, and the sessions whose energy can't be delivered."""
    for note in notes:
        click.echo(note)
    if count:
        click.echo(f"{count} sessions need more energy than their duration allows:")
        for sentence in unreachable:
            click.echo(f"  {sentence}")
        if count > len(unreachable):
            click.echo(f"  … and {count - len(unreachable)} more (evgrid sessions lists them all)")


_batch_options = (
    click.option("--resume", is_flag=True, help="Continue in the folder: run only missing runs."),
    click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default one a core."),
    _no_code_option,
    click.option("--scheduler", metavar="ADDRESS", help="Use this Dask scheduler, such as tcp://host:8786."),
)


def _with(options: Iterable[Callable[..., Any]]) -> Callable[..., Any]:
    """A decorator that adds options to a command."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(tuple(options)):
            command = option(command)
        return command

    return decorate


@main.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default results/NAME.")
@_with(_batch_options)
def batch(study: Path, output: Path | None, resume: bool, workers: int | None, scheduler: str | None) -> None:
    """Run the batch of scenarios that STUDY describes, each in a process of its own."""
    from evgrid.runs.batch import KEPT, load_batch, run_batch

    checked = load_batch(study)
    output = output or Path("results") / checked.name
    with _batch_progress(checked.name) as advance:
        report = run_batch(
            checked, output, resume=resume, workers=workers, scheduler=scheduler, progress=advance
        )
    _print_batch(checked.name, report, output)
    if report.stopped:
        raise KeyboardInterrupt(KEPT if report.finished else "no run has finished")
    if report.failed:
        click.get_current_context().exit(1)


class _Studies(click.Group):
    """The kinds of study as commands, each made when requested."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all kinds."""
        from evgrid.studies.study import STUDIES

        return list(STUDIES.names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a kind, None if there is none."""
        from evgrid.studies.study import STUDIES

        return _study_command(cmd_name) if cmd_name in STUDIES else None


@main.group(cls=_Studies)
def study() -> None:
    """Run a study of many runs."""


def _study_command(kind: str) -> click.Command:
    """The command of a kind of study: its own options, and those of every batch."""
    from evgrid.studies.reading import load_study
    from evgrid.studies.study import STUDIES, BatchOptions, Study

    schema: type[Study] = STUDIES.find(kind)

    def command(
        scenario: Path, output: Path | None, resume: bool, workers: int | None, scheduler: str | None,
        **settings: Any,
    ) -> None:  # fmt: skip
        given = {
            name: value or None if isinstance(value, tuple) else value for name, value in settings.items()
        }
        checked = load_study(scenario, schema, kind, **given)
        options = BatchOptions(resume=resume, workers=workers, scheduler=scheduler)
        failed = False
        for answer in checked.answers(output or Path("results") / checked.name, _batch_progress, options):
            if isinstance(answer.table, Sequence):
                _print_rows(answer.title, answer.table)
            else:
                _print_table(answer.title, answer.table)
            for file in answer.save():
                click.echo(f"result   {file}")
            for what, reason in answer.failures.items():
                click.echo(f"evgrid: {what} has failed: {reason}", err=True)
                failed = True
        if failed:
            click.get_current_context().exit(1)

    options = (
        click.argument("scenario", type=click.Path(path_type=Path)),
        click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default results/NAME."),
        *(
            click.option(own.flag, own.setting, type=own.type, multiple=own.multiple, help=own.text)
            for own in schema.options
        ),
        *_batch_options,
    )
    text = f"{schema.question}\n\nSCENARIO is a scenario, or a study file that names one."
    return click.command(kind, help=text)(_with(options)(command))


def _print_table(title: str, table: pd.DataFrame, width: int = 160) -> None:
    """Print a table of texts, its index first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table("", *(str(column) for column in table.columns), title=title, title_justify="left")
    for label, cells in zip(table.index, table.to_numpy().tolist(), strict=True):
        shown.add_row(Text(str(label)), *(Text(str(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else width).print(shown)


def _print_rows(title: str, rows: Iterable[tuple[str, str]], width: int = 120) -> None:
    """Print key figures as a table of two columns; ``width`` is that of a file or pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    Console(width=None if sys.stdout.isatty() else width).print(table)


@main.group()
def ocpp() -> None:
    """Speak OCPP: the fleet as charging stations, or an aggregator as their management system (CSMS)."""


@ocpp.command("stations")
@_scenario_argument
@click.option("--csms", "url", required=True, metavar="URL", help="Address of the CSMS, ws:// or wss://.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="NetCDF file; default results/NAME.nc.")
@click.option(
    "--speed", metavar="FACTOR",
    help="Simulated seconds in a second of wall time; max: as fast as the CSMS answers. "
    "Default: time.speed, else 1.",
)  # fmt: skip
@click.option(
    "--version",
    "version",
    type=click.Choice(["2.1", "2.0.1", "1.6"]),
    default="2.1",
    show_default=True,
    help="Version of OCPP.",
)
@click.option("--aggregator", metavar="NAME", help="Whose EVs have stations, where there are several.")
@click.option(
    "--settle",
    default=0.0,
    type=click.FloatRange(min=0.0),
    show_default=True,
    metavar="SECONDS",
    help="Wait for profiles after all requests of a tick are answered, wall time.",
)
@click.option(
    "--answer",
    "answer_s",
    default=30.0,
    type=click.FloatRange(min=0.1),
    show_default=True,
    metavar="SECONDS",
    help="Longest time in which the CSMS answers, wall time.",
)
@click.option("--user", help="User name of basic authentication; default the station's identity.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="One password, or lines of IDENTITY:PASSWORD.",
)
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates by which the CSMS's is checked.")
@click.option(
    "--cert",
    type=click.Path(path_type=Path),
    help="Certificate of the stations (PEM), or a folder of IDENTITY.pem.",
)
@click.option("--key", type=click.Path(path_type=Path), help="Its key (PEM), or a folder of IDENTITY.key.")
@_set_option
@_no_code_option
def ocpp_stations(
    scenario: Path, url: str, output: Path | None, speed: str | None, version: Any, aggregator: str | None,
    settle: float, answer_s: float, user: str | None, password_file: Path | None, ca: Path | None,
    cert: Path | None, key: Path | None, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Run SCENARIO with its EVSEs as charging stations that a CSMS controls."""
    _need_ocpp()
    from evgrid.ocpp import stations
    from evgrid.ocpp.connection import Access

    checked, factor, output = _of_ocpp(scenario, settings, speed, output)
    tls = stations.tls_of(url, ca, cert, key)
    passwords = {} if password_file is None else stations.read_station_passwords(password_file)
    access = Access(url, version, tls, user, passwords, answer_s)
    chosen = stations.Settings(access, factor, settle, aggregator)
    with _message_on_interrupt("no result was written"), _progress(checked) as advance:
        result, report, of_stations = stations.run_stations(checked, chosen, output, advance)
    with result, _message_on_interrupt(f"the result is {output}"):
        _print_notes(report.notes, report.unreachable[:SHOWN], len(report.unreachable))
        _print_summary(result, report)
        _print_rows("charging stations", of_stations.rows())
        click.echo(f"result   {output}")


def _of_ocpp(
    scenario: Path, settings: tuple[str, ...], speed: str | None, output: Path | None
) -> tuple[Scenario, float | None, Path]:
    """Scenario, simulated seconds in one of wall time (None: lockstep) and result of a command of OCPP."""
    lockstep = speed == "max"
    settings += () if speed is None or lockstep else (f"time.speed={speed}",)
    checked = _load(scenario, settings, None)
    output = output or Path("results") / f"{checked.name}.nc"
    _check_output(output)
    return checked, None if lockstep else checked.time.speed or 1.0, output


def _need_ocpp() -> None:
    """Refuse a command whose packages are missing."""
    try:
        import evgrid.ocpp  # noqa: F401
    except ImportError as error:
        raise click.UsageError(str(error)) from None


@ocpp.command()
@_scenario_argument
@click.option(
    "--listen",
    default="127.0.0.1:9000",
    show_default=True,
    metavar="HOST:PORT",
    help="Where stations connect; port 0: a free one.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="NetCDF file; default results/NAME.nc.")
@click.option(
    "--speed", metavar="FACTOR",
    help="Simulated seconds in a second of wall time, or 'max': in lockstep with simulated stations. "
    "Default: time.speed, else 1.",
)  # fmt: skip
@click.option("--aggregator", metavar="NAME", help="Aggregator that is the CSMS.")
@click.option(
    "--stations",
    "identities",
    type=click.Path(path_type=Path),
    metavar="MAP.yaml",
    help="Identities of real stations and the EVs in whose place they are, lines of IDENTITY: EV.",
)
@click.option(
    "--passwords",
    type=click.Path(path_type=Path),
    help="File of the stations' passwords, of 'evgrid ocpp password'.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate of the CSMS (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key (PEM).")
@click.option(
    "--client-ca", type=click.Path(path_type=Path), help="Who signs the stations' certificates (PEM)."
)
@click.option("--plot/--no-plot", default=True, help="Draw the overview beside the result.")
@_set_option
@_no_code_option
def csms(
    scenario: Path, listen: str, output: Path | None, speed: str | None, aggregator: str | None,
    identities: Path | None, passwords: Path | None, tls_cert: Path | None, tls_key: Path | None,
    client_ca: Path | None, plot: bool, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Run SCENARIO with charging stations in the fleet's place, of which its aggregator is the CSMS."""
    _need_ocpp()
    from evgrid.ocpp.csms import Csms, read_identities, run_csms
    from evgrid.ocpp.security import Security, read_passwords

    checked, factor, output = _of_ocpp(scenario, settings, speed, output)
    waits = "the first tick begins when the first has booted"
    if factor is None or checked.time.starts_now:
        waits = (
            "ticks follow the stations' clock" if factor is None else "the clock runs, as time.start is now"
        )
    how = Csms(
        _host_and_port(listen),
        factor,
        Security(read_passwords(passwords) if passwords else None, tls_cert, tls_key, client_ca),
        read_identities(identities) if identities else {},
        aggregator,
        announce=lambda url: click.echo(
            f"csms     {url}/IDENTITY: waiting for charging stations; {waits}", err=True
        ),
    )
    with _message_on_interrupt("no result was written"), _progress(checked) as advance:
        result, report = run_csms(checked, how, output, advance)
    _show(result, report, output, plot)


@ocpp.command()
@click.argument("identities", metavar="IDENTITY...", nargs=-1, required=True)
@click.password_option(help="Asked for where it is not given.")
def password(identities: tuple[str, ...], password: str) -> None:
    """Print the lines of a --passwords file for stations that have the same password."""
    _need_ocpp()
    from evgrid.ocpp.security import hashed

    for identity in identities:
        click.echo(f"{identity}:{hashed(password)}")


def _host_and_port(text: str) -> tuple[str, int]:
    """Host and port of an address. Raises click.UsageError if it is none."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(f"--listen {text}: must be HOST:PORT, such as 127.0.0.1:9000")
    return host.strip("[]"), int(port)


@main.command()
@click.argument("network")
@click.option("--phases", type=click.Choice(["1", "3", "auto"]), default="auto", help="As feeder.phases.")
@click.option(
    "--zero-sequence", is_flag=True, help="In three phases, with the recipe four_wire for missing data."
)
def feeder(network: str, phases: str, zero_sequence: bool) -> None:
    """Summarise NETWORK: elements, missing data, refused elements, households and customers.

    NETWORK is a name, a pandapower or OpenDSS file, or a scenario (.yaml), whose feeder it is.
    """
    from evgrid.feeder.describe import describe_network
    from evgrid.scenario.feeder import Feeder

    settings: dict[str, Any] = {"network": network, "phases": int(phases) if phases != "auto" else phases}
    if zero_sequence:
        settings |= {"phases": 3, "zero_sequence": {"recipe": "four_wire"}}
    if Path(network).suffix.lower() in (".yaml", ".yml"):
        given = _load(Path(network), (), None).feeder.model_dump(exclude_unset=True)
        settings = given | {
            key: value for key, value in settings.items() if key != "network" and value != "auto"
        }
    summary = describe_network(Feeder.model_validate(settings))
    rows = list(summary.facts)
    for title, entries in (("assumed", summary.notes), ("missing", summary.missing)):
        rows.append((title, "\n".join(entries) or "nothing"))
    for solver, entries in summary.refused.items():
        rows.append((solver, "\n".join(["would refuse it:", *entries]) if entries else "solves it"))
    _print_rows(summary.source, rows, width=160)


@main.command()
@_scenario_argument
@click.option("--federate", "name", metavar="NAME", help="Only this federate's.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the names of all elements.")
@click.option(
    "--helics", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Write NAME.json for each federate: the file with which HELICS registers all of its ports.",
)  # fmt: skip
@_set_option
@_members_option
@_no_code_option
def ports(
    scenario: Path, name: str | None, as_json: bool, folder: Path | None, settings: tuple[str, ...],
    members: int | None,
) -> None:  # fmt: skip
    """Print what a program must do to take a federate's place in SCENARIO.

    For each federate: when it steps, and its ports with their keys, units, shapes, first values and signs.
    """
    import json

    checked = _load(scenario, settings, members)
    from evgrid.runs.port_sheet import port_sheet

    sheet = port_sheet(checked)
    try:
        federates = sheet.federates if name is None else (sheet.find(name),)
    except KeyError:
        listed = ", ".join(federate.name for federate in sheet.federates)
        raise click.BadParameter(f"{name}: the run has {listed}", param_hint="--federate") from None
    if folder is not None and sheet.broker is None:
        raise click.BadParameter(
            "the run takes a free port: name one, here and in the run, such as "
            "--set federation.broker=tcp://127.0.0.1:23500",
            param_hint="--helics",
        )
    if as_json:
        click.echo(json.dumps(sheet.as_json(federates), indent=1, allow_nan=False))
    elif folder is None:
        _print_sheet(sheet, federates)
    if folder is not None and sheet.broker is not None:
        for federate in federates:
            text = json.dumps(federate.helics_config(sheet.core_type, sheet.broker), indent=1)
            click.echo(f"config   {_write_text(folder / f'{federate.name}.json', text)}", err=as_json)


def _write_text(path: Path, text: str) -> Path:
    """Write a text file, in a folder that is made where it is missing."""
    from evgrid.core.netcdf import write_text

    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise ResultError(f"{path} can't be written: {error.strerror}") from error
    return path


def _print_sheet(sheet: PortSheet, federates: Sequence[FederateSheet]) -> None:
    """Print the port sheet of some federates, and the first elements of each dimension."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    clock = sheet.clock
    console.print(
        f"{sheet.scenario}: {clock.ticks:,} ticks of {clock.step_s:g} s from {clock.stamp(0.0)}\n"
        f"broker {sheet.broker or 'at a free port, which the run prints'}, core type {sheet.core_type}\n"
        f"other programs: {', '.join(sheet.external) or 'none'} (federation.external); can be: "
        f"{', '.join(sheet.replaceable)}\n"
    )
    for federate in federates:
        first, second, last = (f"{at_s:.10g}" for at_s in federate.times)
        title = (
            f"[bold]{federate.name}[/] steps {federate.steps:,} times, every {federate.period_s:g} s, at "
            f"{first}, {second}, … {last} s; waits for {', '.join(federate.waits_for) or 'nobody'}"
        )
        if federate.iterates_on:
            title += f"; repeats its step on new values of {', '.join(federate.iterates_on)}"
        table = Table("", "key", "unit", "shape", "first", "from or to", "meaning", title=title,
                      title_justify="left", title_style="", box=None, pad_edge=False)  # fmt: skip
        for what, entries in (("gives", federate.outputs), ("takes", federate.inputs)):
            for entry in entries:
                shape = " × ".join(
                    f"{dim} {size}" for dim, size in zip(entry.port.shape, entry.sizes, strict=True)
                )
                others = ", ".join(entry.subscribers) or "nobody" if what == "gives" else entry.port.publisher
                table.add_row(
                    what, entry.port.name, entry.port.unit or "1", shape, f"{entry.port.initial:g}", others,
                    Text(_meaning(entry, federate.name)),
                )  # fmt: skip
        console.print(table, "")
    table = Table("dimension", "", "elements", "in their order", box=None, pad_edge=False)
    for dim, columns in sheet.elements_of(federates).items():
        rows = [", ".join(_cell(cell) for cell in row) for row in zip(*columns.values(), strict=True)]
        more = ["…"] if len(rows) > SHOWN else []
        table.add_row(dim, str(len(rows)), Text(", ".join(columns)), Text("; ".join([*rows[:SHOWN], *more])))
    console.print(table)
    console.print(
        "\nArrays are sent in C order: the last dimension varies fastest. Values are global publications of "
        "vectors, messages the bytes of\nlittle-endian float64 between global targeted endpoints. Elements: "
        "--json. A file with which HELICS registers this: --helics DIR."
    )


def _cell(value: Any) -> str:
    """A static fact of an element."""
    return "-" if value in ("", None) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _meaning(entry: SheetPort, federate: str) -> str:
    """Meaning of a port, and how it is sent if as messages."""
    if entry.port.transport == "value":
        return entry.port.text
    delay = f", {entry.delay_s:g} s under way" if entry.delay_s else ""
    return f"{entry.port.text}; messages, endpoint {entry.endpoint(federate)}{delay}"


def _load(
    path: Path, settings: tuple[str, ...], members: int | None, content: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Scenario:  # fmt: skip
    """Load a scenario, whose file's content may have been read, with the overrides of the command line."""
    from evgrid.scenario import load_scenario
    from evgrid.scenario.fields import read_settings

    content = read_settings(path) if content is None else content
    for key, kind, command in (("scenario", "study", "study KIND"), ("base", "batch", "batch")):
        if key in content:
            hint = " (evgrid validate says its kind)" if kind == "study" else ""
            raise ScenarioError(
                [f"is a {kind}, as it has the key {key}: use evgrid {command} {path}{hint}"], str(path)
            )
    overrides = _overrides(settings)
    if members is not None:
        overrides["ensemble.members"] = members
    return load_scenario(path, overrides, content, folder)


def _overrides(settings: tuple[str, ...]) -> dict[str, Any]:
    """Overrides of ``--set``, by key."""
    from evgrid.scenario import parse_override

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
    return overrides


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

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), Simulated(), Speed(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(scenario.name, total=scenario.clock.duration_s)
        yield lambda done_s: bar.update(task, completed=done_s)


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    """A sign on a terminal that work of unknown length goes on."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(text) if console.is_terminal else nullcontext():
        yield


@contextmanager
def _batch_progress(name: str, noun: str = "runs") -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar on a terminal: runs done and failed, their rate, and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed, {task.fields[rate]}"), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(name, total=None, failed=0, rate="starting")

        def advance(done: int, failed: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{60 * speed:.3g} {noun} a minute" if speed else "starting"
            bar.update(task, completed=done, total=total, failed=failed, rate=rate)

        yield advance


def _print_batch(name: str, report: BatchReport, folder: Path) -> None:
    """Print the report of a batch, and each failed run with its reason."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140)
    tried = len(report.outcomes)
    if report.damaged:
        console.print(f"{len(report.damaged)} results in {folder} were damaged, and are run again")
    rate = f", {60 * tried / report.wall_s:.3g} a minute" if tried else ""
    before = f" ({len(report.finished_before)} before)" if report.finished_before else ""
    console.print(
        f"{name}: {report.finished} of {len(report.runs)} runs finished{before}, "
        f"{len(report.failed)} failed, {report.wall_s:.1f} s{rate}"
    )
    if report.failed:
        table = Table("run", "case", "overrides", "why it failed", title="failed", title_justify="left")
        for run, outcome in report.failed:
            chosen = ", ".join(f"{key} = {value}" for key, value in run.overrides.items())
            table.add_row(run.id, str(run.case), Text(chosen), Text(outcome.reason))
        console.print(table)
        console.print(f"logs     {folder}/runs/ID.json", highlight=False)
    console.print(f"results  {folder}", highlight=False)


def _print_summary(result: xr.Dataset, report: RunReport) -> None:
    """Print the key figures of a run, its wall times, and the audit."""
    import json

    from rich.console import Console
    from rich.table import Table

    from evgrid.results.metrics import summary

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
    unconverged = json.loads(result.attrs.get("unconverged_members", "{}"))
    if unconverged:
        table.add_row(
            f"not converged: {len(unconverged)} of {result.sizes['member']} members",
            "\n".join(unconverged.values()), style="red",
        )  # fmt: skip
    newton = int(result.attrs.get("newton_solutions", 0))
    other = "OpenDSS" if "bus_nodes" in result.coords else "Newton-Raphson (power-grid-model)"
    by_newton = f", {newton} by {other}" if newton else ""
    if "solver" in result.attrs:  # not where the feeder is another program
        note = result.attrs.get("solver_note", "")
        table.add_row("power flows", f"{result.attrs['solver']}{by_newton}" + f": {note}" * bool(note))
    split = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in report.split_s.items())
    coupling = f"{report.federation.coupling_us_per_tick:.0f} µs a tick"
    table.add_row("wall time", f"{report.wall_s:.2f} s: {split}; HELICS {coupling}")
    if "pace" in result.attrs:
        table.add_row("pace", _pace(json.loads(result.attrs["pace"]), report))
    table.add_row("energy audit", ", ".join(f"{key} {value:.1e}" for key, value in report.audit.items()))
    console.print(table)


def _pace(kept: Mapping[str, Any], report: RunReport) -> str:
    """How a run kept to wall time, from its attribute ``pace``."""
    text = (
        f"{kept['speed']:g} × real time: {kept['late_steps']} of {kept['steps']} steps were late; lateness "
        f"{kept['mean_lateness_s']:.2g} s on average, {kept['worst_lateness_s']:.2g} s at most"
    )
    if not kept["late_steps"]:
        return text
    stepping_s = report.federation.stepping_s
    slowest = max(stepping_s, key=lambda name: stepping_s[name])
    return f"{text} (at {kept['worst_at']}); {slowest} took longest, {stepping_s[slowest]:.2g} s in all"


if __name__ == "__main__":
    main()
