"""Hosting capacity: the number of EVs that a feeder can host, with its confidence interval.

In: a scenario, levels of penetration, ways of charging (variants) and limits. Out: a Dataset with
the violations of each member at each level, and the statistics of them (:func:`assess`).

A member of the ensemble is a *deployment*: an order in which households get EVs, with their
phases, trips and household loads. Deployments are nested: each level adds EVs to those of the
level before, and all levels and variants see the same members (common random numbers).

**Violations are not monotone in the number of EVs.** Single-phase EVs unbalance the phases most
when there are some, and less when every household has one. So bisection, and 'the highest level
that passes', are invalid. Two things are reported instead:

- P(violation) at each level, which may rise and fall: the share of deployments that violate a
  limit *at* that level;
- the *first violation* of each deployment: the lowest level at which it violates a limit. The share
  of deployments with their first violation at or below a level is a distribution function, so it
  never falls.

The **hosting capacity at a risk** is the highest level up to which at most that share of the
deployments has violated a limit at that level *or any level below it*: EVs come one by one, and
a street has to pass every level on its way. Its interval are the levels at which the Wilson bounds
of the distribution function cross the risk. A capacity lies on the grid of levels; NaN is below the
lowest level. At the highest level it is 'at least'.

Members are added in rounds until the interval of the share at the capacity is as narrow as required,
or the budget ends. Stopping by the data makes the interval slightly too narrow.

Left out: levels that differ between parts of the feeder, correlation between neighbours who buy EVs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from evgrid.core.jit import njit
from evgrid.errors import ResultError, ScenarioError
from evgrid.results import open_netcdf
from evgrid.results.limits import Criterion, LimitSet, coverage, limit_set, violations
from evgrid.runs.batch import KEPT, Batch, Run, dask_client, plan, read_index, run_batch
from evgrid.runs.worker_process import Reduction
from evgrid.scenario import Scenario, load_scenario
from evgrid.scenario.fields import Share, fault
from evgrid.studies import reading
from evgrid.studies.hosting_capacity_output import save_study
from evgrid.studies.hosting_capacity_tables import (
    COUNTED,
    NO_SOLUTION,
    TOGETHER,
    WORST,
    binding_table,
    first_violations_table,
    half_width,
)
from evgrid.studies.hosting_capacity_tables import capacity_table as capacity_table
from evgrid.studies.limit_check import Limits, check_limits
from evgrid.studies.statistics import wilson
from evgrid.studies.study import Answer, BatchOptions, Option, Progress, Study

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.runs.simulation import RunReport

FORMAT = "evgrid-hosting-capacity-2"
"""Written into each study's Dataset."""


NONE = "none"
"""Hosting capacity in the summary where the risk is passed without any EVs."""
COLLAPSE = {"feeder.on_divergence": "keep"}
"""A deployment whose power flow has no solution violates the limits; the study goes on."""


class HostingCapacity(Study):
    """A hosting capacity study."""

    kind: ClassVar[str] = "hosting-capacity"
    question: ClassVar[str] = (
        "The number of EVs that the feeder of SCENARIO can host, with its confidence interval."
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option("--precision", "precision", "Add members until the interval is ± this narrow, such as 0.02."),
        Option("--budget", "budget", "Most members in all.", int),
        Option("--members", "members", "Members in a round.", int),
        Option("--risk", "risk", "Share of deployments that may violate a limit."),
        Option("--limit", "limits", "Presets of limits to check; may be repeated.", str, multiple=True),
    )

    levels: Annotated[tuple[Share, ...], Field(min_length=1)] = tuple(round(0.1 * i, 12) for i in range(11))
    """Penetrations, EVs per household, ascending."""
    evs: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Numbers of EVs, ascending, in place of levels: for car parks, depots and other EVs without
    households."""
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] = {
        "uncontrolled": {"aggregators": {"main": {"strategy": "uncontrolled"}}}
    }
    """Ways of charging by name; each is overrides of the scenario, such as
    {aggregators.main: {strategy: tou}} or {fleet.charger.functions: {volt_var: ieee_1547_b}}."""
    limits: Limits = (
        "en_50160", "vuf", "thermal_instantaneous", "thermal_moving_average", "hot_spot",
    )  # fmt: skip
    """Limits by the names of their presets, or own criteria."""
    risk: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of deployments that may violate a limit on the way to the capacity."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the intervals."""
    precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Half-width of the interval of the share at the capacity at which no more members are added;
    left out: one round."""
    members: Annotated[int, Field(ge=1)] = 100
    """Members in a round."""
    members_per_run: Annotated[int, Field(ge=1)] = 100
    """Most members of a run: they are in memory at once, and runs go side by side."""
    budget: Annotated[int, Field(ge=1)] = 1000
    """Most members in all."""
    nodal_kw: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Loads to add at each connection on its own, kW, ascending, for the map of the power that it can draw
    besides the base load of the first member, without EVs; left out: no map."""

    @field_validator("levels", "evs", "nodal_kw")
    @classmethod
    def _ascending(cls, levels: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if levels is None:
            return None
        if any(np.diff(levels) <= 0):
            raise fault("must be ascending")
        return levels

    @property
    def limit_set(self) -> LimitSet:
        """The criteria."""
        return limit_set(*self.limits)

    @property
    def steps(self) -> tuple[float, ...]:
        """The levels: numbers of EVs, or EVs per household."""
        return self.levels if self.evs is None else self.evs

    @property
    def _key(self) -> str:
        return "fleet.penetration" if self.evs is None else "fleet.count"

    @property
    def _no_evs(self) -> dict[str, None]:
        return {"fleet.count" if self.evs is None else "fleet.penetration": None}

    def batch(self, members: int) -> Batch:
        """The runs with ``members`` members: a case for each variant and, fastest, each level."""
        shared = {**COLLAPSE, **self.overrides, **self._no_evs, "ensemble.members": members}
        cases = [
            {**overrides, self._key: level} for overrides in self.variants.values() for level in self.steps
        ]
        return Batch.model_validate(
            {
                "name": self.name, "base": self.scenario, "overrides": shared, "list": cases,
                "members_per_run": self.members_per_run,
            }
        )  # fmt: skip

    def plans(self) -> list[Run]:
        """The runs of the first round, resolved. Raises ScenarioError with every fault of every one."""
        base = load_scenario(self.scenario, self.overrides)
        sessions = base.fleet.sessions if base.fleet is not None else None
        if sessions is not None and not sessions.sampled:
            text = "fleet.sessions is a file, which says which EVs there are: must be sampled, such as home"
            raise ScenarioError([text], self.name)
        if self.evs is None and sessions is not None and not sessions.at_households:
            text = f"fleet.sessions = {getattr(sessions, 'source', '')}: these EVs are of no household"
            raise ScenarioError(
                [f"{text}; give their numbers in place of levels, such as evs: [0, 10, 20, 40]"], self.name
            )
        return plan(self.batch(self.members))

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """See :meth:`evgrid.studies.study.Study.answers`."""
        with progress(self.name) as advance:
            result = run_study(self, folder, progress=advance, **options)
        yield Answer(self.name, summary(result), partial(save_study, result, folder))

    def case(self, number: int) -> str:
        """Label of a case of the batch, for messages."""
        variant, level = divmod(number, len(self.steps))
        what = "penetration" if self.evs is None else "EVs"
        return f"variant {list(self.variants)[variant]}, {what} {self.steps[level]:g}"

    def scenario_at(self, variant: str, level: float, members: range) -> Scenario:
        """The scenario of a variant at a level, with some of the members.

        Raises ScenarioError with every fault.
        """
        return load_scenario(
            self.scenario,
            {
                **COLLAPSE,
                **self.overrides,
                **self.variants[variant],
                **self._no_evs,
                self._key: level,
                "ensemble.first": members.start,
                "ensemble.members": len(members),
            },
        )


def load_study(path: str | Path, **changes: Any) -> HostingCapacity:
    """Read a study file, or make a study of a scenario file: :func:`evgrid.studies.reading.load_study`."""
    return reading.load_study(path, HostingCapacity, "hosting-capacity", **changes)


# ---- statistics of the violations ---------------------------------------------------------------


def assess(violated: xr.DataArray, risk: float = 0.05, confidence: float = 0.95) -> xr.Dataset:
    """Statistics of the deployments' violations by level.

    Parameters
    ----------
    violated
        (level, member, ...) bool, with the coordinate ``level`` ascending; the other dimensions
        (variant, criterion) are kept.
    risk, confidence
        See the module.

    Returns
    -------
    xarray.Dataset
        ``probability`` (level, ...) of a violation at a level; ``first_level`` (member, ...), NaN
        where there is none; ``first_share`` (level, ...), the share of deployments with their first
        violation at or below a level; both shares with ``_low`` and ``_high``; ``capacity``,
        ``capacity_low`` and ``capacity_high`` (...).

    """
    import xarray as xr

    members = violated.sizes["member"]
    on_the_way = _running_any(violated)
    level = violated["level"]
    data: dict[str, xr.DataArray] = {}
    for name, found, text in (
        ("probability", violated, "share of deployments that violate a limit at the level"),
        ("first_share", on_the_way, "share of deployments that violate a limit at the level or below"),
    ):
        count = found.sum("member")
        low, high = wilson(count.values, members, confidence)
        about = {"long_name": text, "units": "1"}
        data[name] = (count / members).assign_attrs(about)
        for end, values in (("low", low), ("high", high)):
            wording = {
                "long_name": f"{text}, {end} end of the {confidence:.0%} Wilson interval",
                "units": "1",
            }
            data[f"{name}_{end}"] = count.copy(data=values).assign_attrs(wording)
    first = level.where(violated).min("level")
    data["first_level"] = first.assign_attrs(
        long_name="level of the deployment's first violation, NaN without", units="1"
    )
    for name, share, text in (
        ("capacity", "first_share", "hosting capacity"),
        ("capacity_low", "first_share_high", "hosting capacity, low end of its interval"),
        ("capacity_high", "first_share_low", "hosting capacity, high end of its interval"),
    ):
        passing = level.where(data[share] <= risk + 1e-12).max("level")
        data[name] = passing.assign_attrs(long_name=f"{text} at a risk of {risk:g}", units="1")
    return xr.Dataset(data)


def _running_any(violated: xr.DataArray) -> xr.DataArray:
    """Whether a deployment violates a limit at a level or any below it."""
    axis = violated.get_axis_num("level")
    assert isinstance(axis, int)
    return violated.copy(data=np.logical_or.accumulate(violated.values, axis=axis))


# ---- the runs -------------------------------------------------------------------------------------


def run_study(
    study: HostingCapacity | str | Path,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> xr.Dataset:
    """Run a hosting capacity study: a batch of one run for each variant, level and round of members.

    Parameters
    ----------
    study
        A :class:`HostingCapacity`, or the path of a study or scenario file.
    folder
        Folder of the runs' violations, so that a study that was stopped can continue; left out:
        none.
    resume, workers, scheduler, progress
        See :func:`evgrid.run_batch`.

    Returns
    -------
    xarray.Dataset
        ``violated`` (variant, level, member, criterion), all of :func:`assess`,
        ``binding_level`` (variant), the first level past the capacity, and ``binding_kind``, ``_element``,
        ``_phase`` and ``_time`` (variant, member, criterion) of each deployment's violation there;
        ``first_criterion``, ``first_kind``, … (variant, member) of each deployment's first violation (the
        worst one at its level); and the extremes of voltage at each bus, over members and time, by variant
        and level. The attributes hold the study, the criteria that could not be checked, and where time
        went.

    Raises
    ------
    EvgridError
        If a scenario is at fault or a run fails; finished runs are kept in the folder.
    KeyboardInterrupt
        On Ctrl-C, likewise.

    """
    if not isinstance(study, HostingCapacity):
        study = load_study(study)
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            return run_study(study, own, workers=workers, scheduler=scheduler, progress=progress)
    begin = time.perf_counter()
    runs, checked_runs, result = _rounds(study, Path(folder), resume, workers, scheduler, progress)
    result = result.merge(_at_capacity(checked_runs, result)).merge(_first(checked_runs))
    for name in ("violated", "bus_voltage_min_pu", "bus_voltage_max_pu"):
        result[name] = checked_runs[name]
    evs = study.evs or [round(level * checked_runs.attrs["households"]) for level in study.levels]
    result = result.assign_coords(level_evs=("level", list(evs), {"long_name": "EVs in each deployment"}))
    what = "penetration, EVs per household" if study.evs is None else COUNTED
    result["level"].attrs = {"long_name": what, "units": "1"}
    if study.nodal_kw is not None:
        from evgrid.studies.nodal_capacity import nodal_capacity

        first = runs[0].scenario.ensemble.first
        base = study.scenario_at(next(iter(study.variants)), 0.0, range(first, first + 1))
        result["nodal_capacity_kw"] = nodal_capacity(base, study.nodal_kw, study.limit_set, study.members)
    return result.assign_attrs(
        format=FORMAT,
        name=study.name,
        study=study.model_dump_json(),
        not_checked=checked_runs.attrs["not_checked"],
        remarks=checked_runs.attrs["remarks"],
        wall_s=time.perf_counter() - begin,
        runs_s=checked_runs.attrs["runs_s"],
        feeder_s=checked_runs.attrs["feeder_s"],
    )


def _rounds(
    study: HostingCapacity,
    folder: Path,
    resume: bool,
    workers: int | None,
    scheduler: str | None,
    progress: Callable[[int, int, int], None] | None,
) -> tuple[Sequence[Run], xr.Dataset, xr.Dataset]:
    """The runs, their violations and the statistics, after as many rounds as needed."""
    limits = json.dumps({"limits": study.model_dump(mode="json")["limits"]})
    reduction = Reduction("evgrid.studies.hosting_capacity:check_run", limits)
    study.plans()  # report faults before the first run
    members = 0
    with dask_client(scheduler, workers) as client:
        while True:
            members = min(members + study.members, study.budget)
            report = run_batch(
                study.batch(members), folder, resume=resume, scheduler=client.scheduler.address,
                reduction=reduction, progress=progress,
            )  # fmt: skip
            if report.stopped:
                raise KeyboardInterrupt(KEPT)
            if report.failed:
                run, outcome = report.failed[0]
                raise ResultError(
                    f"study {study.name}: {len(report.failed)} of {len(report.runs)} runs failed, the first "
                    f"at {study.case(run.case)}: {outcome.reason}; {KEPT}"
                )
            checked_runs = _gathered(study, folder)
            result = assess(checked_runs["violated"], study.risk, study.confidence)
            precise = study.precision is None or half_width(result).max() <= study.precision
            if precise or members >= study.budget:
                return report.runs, checked_runs, result
            resume = True


def _limit_set(limits: Sequence[Any]) -> LimitSet:
    """The criteria of a study's setting ``limits`` as in JSON."""
    return limit_set(
        *(given if isinstance(given, str) else Criterion.model_validate(given) for given in limits)
    )


def check_run(result: xr.Dataset, report: RunReport, limits: Sequence[Any]) -> xr.Dataset:
    """Violations of a run.

    ``violated`` (member, criterion), with the criteria ``power_flow`` of members whose power flow has no
    solution, which is worse than any other violation, and ``any``; of the worst violation of each member and
    criterion ``worst_kind``, ``worst_element``, ``worst_phase`` ("" without one) and ``worst_time``;
    ``worst_criterion`` (member), that of ``any``; the extremes of each bus's voltage over members, time and
    phases.
    """
    import xarray as xr

    begin = time.perf_counter()
    chosen = _limit_set(limits)
    result, checked = check_limits(result, chosen)
    if not checked.sizes["criterion"]:
        raise ResultError("none of the limits can be checked on this feeder")
    gave_up = result["member_failed_s"].notnull()
    together = (checked["violated_any"].astype(bool) | gave_up).expand_dims(criterion=[TOGETHER])
    unsolved = gave_up.expand_dims(criterion=[NO_SOLUTION])
    violated = xr.concat([checked["violated"].astype(bool), unsolved, together], "criterion")
    worst = _worst(result, violated, chosen)
    lowest, highest = bus_extremes(result["voltage_pu"].transpose("time", "member", "bus", "phase").values)
    kept = worst.assign(
        violated=violated.transpose("member", "criterion").assign_attrs(
            long_name="whether the deployment violates the criterion", units="1"
        ),
        bus_voltage_min_pu=(
            "bus",
            lowest,
            {"long_name": "lowest voltage of the bus over phases, time and deployments", "units": "1"},
        ),
        bus_voltage_max_pu=(
            "bus",
            highest,
            {"long_name": "highest voltage of the bus over phases, time and deployments", "units": "1"},
        ),
    ).assign_coords({name: result[name] for name in ("bus_x", "bus_y")})
    table = coverage(result, chosen)
    rows = table[~table["checked"]]
    spent = report.federation
    return kept.assign_attrs(
        not_checked=json.dumps(dict(zip(rows["criterion"], rows["remark"], strict=True))),
        remarks=json.dumps({row.criterion: row.remark for row in table[table["checked"]].itertuples()}),
        households=int(result["connection_households"].sum()),
        feeder_s=spent.stepping_s["feeder"] + spent.finishing_s["feeder"],
        run_s=spent.wall_s + time.perf_counter() - begin,
    )


@njit
def bus_extremes(voltage: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest voltage above 0 of each bus, of (time, member, bus, phase); NaN without one."""
    times, members, buses, phases = voltage.shape
    lowest = np.full(buses, np.inf, voltage.dtype)
    highest = np.full(buses, -np.inf, voltage.dtype)
    for step in range(times):
        for member in range(members):
            for bus in range(buses):
                for phase in range(phases):
                    value = voltage[step, member, bus, phase]
                    if value > 0.0:
                        lowest[bus] = min(lowest[bus], value)
                        highest[bus] = max(highest[bus], value)
    for bus in range(buses):
        if lowest[bus] > highest[bus]:
            lowest[bus] = highest[bus] = np.nan
    return lowest, highest


def _worst(result: xr.Dataset, violated: xr.DataArray, limits: LimitSet) -> xr.Dataset:
    """The worst violation of each member and criterion, (member, criterion), "" and NaT without one."""
    import xarray as xr

    coords = {"member": result["member"], "criterion": violated["criterion"]}
    members = [int(member) for member in coords["member"].values]
    criteria = [str(criterion) for criterion in coords["criterion"].values]
    shape = (len(members), len(criteria))
    found = {name: np.full(shape, "", object) for name in WORST if name != "time"}
    found["time"] = np.full(shape, np.datetime64("NaT"), "datetime64[ns]")
    of_any = np.full(len(members), "", object)
    broken = result["member"].values[violated.sel(criterion=TOGETHER).values]
    if len(broken):
        table = violations(result.sel(member=broken), limits)  # the most severe first
        rows = table[list({column for column, _ in WORST.values()} | {"member", "criterion"})]
        for row in rows.drop_duplicates(["member", "criterion"]).to_dict("records"):
            at = members.index(int(str(row["member"])))
            places = [criteria.index(row["criterion"])]
            if not of_any[at]:
                of_any[at] = row["criterion"]
                places.append(criteria.index(TOGETHER))
            for name, (column, _) in WORST.items():
                found[name][at, places] = row[column]
    places = [criteria.index(NO_SOLUTION), criteria.index(TOGETHER)]
    for at in np.flatnonzero(violated.sel(criterion=NO_SOLUTION).values).tolist():
        after = np.timedelta64(round(float(result["member_failed_s"][at]) * 1e3), "ms")
        whole = {
            "kind": "feeder",
            "element": "as a whole",
            "phase": "",
            "time": result["time"].values[0] + after,
        }
        for name, value in whole.items():
            found[name][at, places] = value
        of_any[at] = NO_SOLUTION
    data: dict[str, Any] = {
        f"worst_{name}": (("member", "criterion"), values) for name, values in found.items()
    }
    return xr.Dataset({**data, "worst_criterion": ("member", of_any)}, coords=coords)


def _gathered(study: HostingCapacity, folder: Path) -> xr.Dataset:
    """The results of :func:`check_run` of all runs, with (variant, level) in front."""
    import pandas as pd
    import xarray as xr

    index = read_index(folder)
    cells, spent = [], {"feeder_s": 0.0, "run_s": 0.0}
    for case in range(len(study.variants) * len(study.steps)):
        chunks = []
        for run in index.loc[index["case"] == case, "id"]:
            with open_netcdf(folder / "runs" / f"{run}.nc") as kept:
                chunks.append(kept.load())
            spent = {name: spent[name] + float(kept.attrs[name]) for name in spent}
        whole = xr.concat(chunks, "member", data_vars="minimal", coords="minimal", compat="override")
        for name, least in (("bus_voltage_min_pu", True), ("bus_voltage_max_pu", False)):
            over = xr.concat([chunk[name] for chunk in chunks], "chunk", coords="minimal", compat="override")
            whole[name] = over.min("chunk", keep_attrs=True) if least else over.max("chunk", keep_attrs=True)
        cells.append(whole)
    levels, variants = pd.Index(study.steps, name="level"), pd.Index(list(study.variants), name="variant")
    by_level = [
        xr.concat(cells[at : at + len(levels)], levels, coords="minimal", compat="override")
        for at in range(0, len(cells), len(levels))
    ]
    gathered = xr.concat(by_level, variants, coords="minimal", compat="override")
    if not gathered["violated"].sel(criterion=NO_SOLUTION).any():
        gathered = gathered.drop_sel(criterion=NO_SOLUTION)
    gathered.attrs = {
        "not_checked": cells[0].attrs["not_checked"],
        "remarks": cells[0].attrs["remarks"],
        "households": int(cells[0].attrs["households"]),
        "feeder_s": spent["feeder_s"],
        "runs_s": spent["run_s"],
    }
    return gathered


def _at_capacity(checked_runs: xr.Dataset, result: xr.Dataset) -> xr.Dataset:
    """Violations of each deployment at the first level past the capacity, which determine it."""
    import xarray as xr

    levels = result["level"].values
    capacity = result["capacity"].sel(criterion=TOGETHER, drop=True)
    past = np.searchsorted(levels, capacity.fillna(-np.inf).values, "right")
    there = past < len(levels)
    at = xr.DataArray(np.minimum(past, len(levels) - 1), dims="variant")
    reached = xr.DataArray(there, dims="variant")
    data = {
        "binding_level": capacity.copy(data=np.where(there, levels[at.values], np.nan)).assign_attrs(
            long_name="first level past the hosting capacity, NaN where all levels pass", units="1"
        )
    }
    for name, (_, text) in WORST.items():
        worst = checked_runs[f"worst_{name}"].isel(level=at).drop_vars("level")
        none = np.datetime64("NaT") if name == "time" else ""
        data[f"binding_{name}"] = worst.where(reached, none).assign_attrs(
            long_name=f"{text} of the deployment's worst violation at the first level past the capacity"
        )
    return xr.Dataset(data)


def _first(checked_runs: xr.Dataset) -> xr.Dataset:
    """The worst violation of each deployment at its first violating level, (variant, member)."""
    import xarray as xr

    broken = checked_runs["violated"].sel(criterion=TOGETHER, drop=True)
    first = broken.argmax("level")  # level 0 for those without violation, where there is no worst either
    worst = checked_runs.sel(criterion=TOGETHER, drop=True)
    texts = {"criterion": "criterion", **{name: text for name, (_, text) in WORST.items()}}
    return xr.Dataset(
        {
            f"first_{name}": worst[f"worst_{name}"]
            .isel(level=first)
            .drop_vars("level")
            .assign_attrs(long_name=f"{text} of the deployment's first violation, the worst at its level")
            for name, text in texts.items()
        }
    )


def summary(result: xr.Dataset) -> Sequence[tuple[str, str]]:
    """Key figures as (name, text) rows."""
    risk = json.loads(result.attrs["study"])["risk"]
    level = result["level"].values
    rows = [
        (
            "deployments",
            f"{result.sizes['member']}, {len(level)} levels from {_amount(level[0], result)} to "
            f"{_amount(level[-1], result)}",
        )
    ]
    binding, first = binding_table(result), first_violations_table(result)
    for variant in result["variant"].values:
        at = result.sel(variant=variant, criterion=TOGETHER)
        capacity, low, high = (
            _level(float(at[name]), result) for name in ("capacity", "capacity_low", "capacity_high")
        )
        between = low if low == high else f"{low} to {high}"
        rows.append((f"hosting capacity, {variant}", f"{capacity} at a risk of {risk:.0%} ({between})"))
        if capacity == NONE:
            rows.append(("  none", "the risk is passed without any EVs"))
        worst = int(np.argmax(at["probability"].values))
        rows.append(
            (
                "  P(violation), highest",
                f"{float(at['probability'][worst]):.1%} at {_amount(level[worst], result)}",
            )
        )
        mine = binding[binding["variant"] == variant]
        if len(mine):
            row = mine.iloc[0]
            phase = f", phase {row['binding_phase']}" if row["binding_phase"] else ""
            at_level = _amount(float(result["binding_level"].sel(variant=variant)), result)
            rows.append(
                (
                    "  set by",
                    f"{row['binding_criterion']}, which {row['criterion_share']:.0%} of the deployments "
                    f"violate at {at_level}: most often {row['binding_kind']} "
                    f"{row['binding_element']}{phase}, "
                    f"at about {_time_of_day(row['median_hour'])} ({row['deployments']} of them)",
                )
            )
        came = first[first["variant"] == variant]
        if len(came):
            row = came.iloc[0]
            rows.append(
                (
                    "  first violation, most often",
                    f"{row['first_criterion']}: {row['first_kind']} {row['first_element']} "
                    f"({row['deployments']} deployments, at any level)",
                )
            )
    for criterion in _limit_set(json.loads(result.attrs["study"])["limits"]).criteria:
        remark = json.loads(result.attrs["remarks"]).get(criterion.name)
        rows.append((f"limit {criterion.name}", f"{criterion.text}; {remark}" if remark else criterion.text))
    if NO_SOLUTION in result["criterion"].values:
        rows.append((f"limit {NO_SOLUTION}", "the power flow has a solution"))
    for criterion, reason in json.loads(result.attrs["not_checked"]).items():
        rows.append(("not checked", f"{criterion}: {reason.removeprefix(f'{criterion}: ')}"))
    wall, feeder = float(result.attrs["wall_s"]), float(result.attrs["feeder_s"])
    share = feeder / float(result.attrs["runs_s"])
    rows.append(("wall time", f"{wall:.1f} s; {share:.0%} of the runs' time in the feeder's power flow"))
    return rows


def _time_of_day(hour: float) -> str:
    minutes = round(60 * hour)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _level(value: float, result: xr.Dataset) -> str:
    levels = result["level"].values
    if np.isnan(value):
        return f"below {_amount(levels[0], result)}" if levels[0] else NONE
    return f"at least {_amount(value, result)}" if value == levels[-1] else _amount(value, result)


def _amount(level: float, result: xr.Dataset) -> str:
    """A level as a share of the households, or as a number of EVs."""
    return f"{level:g} EVs" if result["level"].attrs["long_name"] == COUNTED else f"{level:.0%}"
