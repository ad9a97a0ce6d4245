"""Hosting capacity: the EVs, chargers or kW that a feeder can host, with their confidence interval.

In: a scenario, levels (EVs per household, EVs, chargers or kW), ways of charging (variants), nodes and
limits. Out: a Dataset with the violations of each member at each level, and the statistics of them
(:func:`assess`). The EVs are spread over the feeder, as ``fleet.at`` of the scenario says, or all at one
node, for each of ``nodes``, which gives a capacity for each. What charges is what ``fleet.sessions`` says:
homes, workplaces, depots, DC hubs, or chargers at full power all the time (``full_power``).

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

**What sets the capacity** is judged at the first level past it: the criterion that most deployments
violate there, with the element, phase and time of their worst violations. P(violation) there is stated
with it, and the share of deployments that violate another criterion only, so that one sees how much of
P(violation) the criterion explains.

Members are added in rounds until the interval of the share at the capacity is as narrow as required,
or the budget ends. Stopping by the data makes the interval slightly too narrow.

Left out: levels that differ between parts of the feeder, correlation between neighbours who buy EVs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from evgrid.core.jit import njit
from evgrid.errors import ResultError, ScenarioError
from evgrid.results import open_netcdf
from evgrid.results.limits import LimitSet, coverage, limit_set, violations
from evgrid.runs.batch import KEPT, Batch, Run, dask_client, plan, read_index, run_batch
from evgrid.runs.worker_process import Reduction
from evgrid.scenario import Scenario, load_scenario
from evgrid.scenario.fields import ElementName, Positive, fault
from evgrid.studies import reading
from evgrid.studies.hosting_capacity_output import save_study
from evgrid.studies.hosting_capacity_summary import summary
from evgrid.studies.hosting_capacity_tables import (
    NO_SOLUTION,
    TOGETHER,
    UNITS,
    WORST,
    Unit,
    chosen_limits,
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


COLLAPSE = {"feeder.on_divergence": "keep"}
"""A deployment whose power flow has no solution violates the limits; the study goes on."""


class Case(NamedTuple):
    """A variant, at a node where the study has nodes.

    label : of the Dataset's coordinate ``variant``
    variant, node : their names; node "" where there are none
    overrides : of the scenario
    """

    label: str
    variant: str
    node: str
    overrides: dict[str, Any]


class HostingCapacity(Study):
    """A hosting capacity study."""

    kind: ClassVar[str] = "hosting-capacity"
    question: ClassVar[str] = (
        "The EVs, chargers or kW that the feeder of SCENARIO, or each of its nodes, can host, with their "
        "confidence interval."
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option("--precision", "precision", "Add members until the interval is ± this narrow, such as 0.02."),
        Option("--budget", "budget", "Most members in all.", int),
        Option("--members", "members", "Members in a round.", int),
        Option("--risk", "risk", "Share of deployments that may violate a limit."),
        Option("--limit", "limits", "Presets of limits to check; may be repeated.", str, multiple=True),
    )

    levels: Annotated[tuple[Annotated[float, Field(ge=0, le=5)], ...], Field(min_length=1)] = tuple(
        round(0.1 * i, 12) for i in range(11)
    )
    """Penetrations, EVs per household, ascending; above 1 some households have several."""
    evs: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Numbers of EVs, ascending, in place of levels: for car parks, depots and other EVs without
    households."""
    chargers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Numbers of chargers, ascending, in place of levels: each has an EV of its own, as fleet.sessions says,
    or with sessions full_power draws its rated power all the time."""
    kw: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Rated power of all chargers, kW, ascending, in place of levels; the number of chargers is the nearest
    whole one, by the mean rating of the variant's chargers."""
    evs_per_charger: Positive | None = None
    """EVs that share each charger, first come, first served (chargers and kw, at nodes or one fleet.at), with
    the rest of fleet.charge_points; left out: each charger has an EV of its own."""
    nodes: Annotated[tuple[ElementName, ...], Field(min_length=1)] | Literal["all"] | None = None
    """Connection points at which all EVs are, one at a time: a capacity for each; all: every connection
    point. Left out: spread as fleet.at says."""
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

    @field_validator("levels", "evs", "chargers", "kw", "nodal_kw")
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

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        given = [name for name in ("evs", "chargers", "kw") if getattr(self, name) is not None]
        if len(given) > 1:
            raise fault(f"{given[1]}: give either {given[0]} or {given[1]}")
        if self.nodes is not None and not given:
            raise fault("nodes: give evs, chargers or kw with them, numbers at each node, in place of levels")
        if self.evs_per_charger is not None and self.unit.setting not in ("chargers", "kw"):
            raise fault("evs_per_charger: is for levels in chargers or kw")
        return self

    @property
    def unit(self) -> Unit:
        """Unit of the levels."""
        given = [name for name in ("evs", "chargers", "kw") if getattr(self, name) is not None]
        return UNITS[given[0] if given else "levels"]

    @property
    def steps(self) -> tuple[float, ...]:
        """The levels, in their unit."""
        found: tuple[float, ...] = getattr(self, self.unit.setting)
        return found

    @property
    def _no_evs(self) -> dict[str, None]:
        return {"fleet.penetration" if self.unit.counted else "fleet.count": None, "fleet.areas": None}

    @cached_property
    def _places(self) -> tuple[str, ...]:
        """The nodes, by name."""
        if self.nodes != "all":
            return self.nodes or ()
        from evgrid.studies.nodal_capacity import without_fleet

        connections = without_fleet(load_scenario(self.scenario, self.overrides)).connections
        return tuple(str(name) for name in connections.name[: connections.on_feeder])

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """Variants, and of each the nodes. Raises EvgridError if the feeder can't be read for all nodes."""
        if self.nodes is None:
            return tuple(Case(name, name, "", given) for name, given in self.variants.items())
        return tuple(
            Case(node if len(self.variants) == 1 else f"{name}, {node}", name, node,
                 {**given, "fleet.at": [node]})
            for name, given in self.variants.items()
            for node in self._places
        )  # fmt: skip

    @cached_property
    def _mean_kw(self) -> dict[str, float]:
        """Mean rated power of the chargers of each variant, kW."""
        found = {}
        for name, given in self.variants.items():
            fleet = load_scenario(self.scenario, {**self.overrides, **given, **self._no_evs}).fleet
            found[name] = sum(kw * share for kw, share in fleet.charger.shares.items()) if fleet else 0.0
        return found

    def evs_at(self, case: Case, level: float) -> dict[str, Any]:
        """The settings of the fleet that a level of a case stands for, the number of EVs first."""
        if not self.unit.counted:
            return {"fleet.penetration": level}
        chargers = self.chargers_at(case, level)
        if self.evs_per_charger is None:
            return {"fleet.count": chargers}
        shared = {"fleet.charge_points.each": chargers} if chargers else {"fleet.charge_points": None}
        return {"fleet.count": round(chargers * self.evs_per_charger), **shared}

    def chargers_at(self, case: Case, level: float) -> int:
        """Number of chargers, or EVs with one of their own, of a level of a case."""
        return round(level / self._mean_kw[case.variant] if self.unit.setting == "kw" else level)

    def batch(self, members: int) -> Batch:
        """The runs with ``members`` members: a case for each variant, node and, fastest, each level."""
        shared = {**COLLAPSE, **self.overrides, **self._no_evs, "ensemble.members": members}
        cases = [
            {**case.overrides, **self.evs_at(case, level)} for case in self.cases for level in self.steps
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
        at = base.fleet.at if base.fleet is not None else None
        if (
            self.evs_per_charger is not None
            and self.nodes is None
            and not (isinstance(at, str) or (at and len(at) == 1))
        ):
            text = "evs_per_charger: the chargers must be at one connection point: give nodes, or fleet.at"
            raise ScenarioError([text], self.name)
        if not self.unit.counted and sessions is not None and not sessions.at_households:
            text = f"fleet.sessions = {getattr(sessions, 'source', '')}: these EVs are of no household"
            raise ScenarioError(
                [f"{text}; give numbers in place of levels, such as evs: [0, 10, 20, 40], chargers or kw"],
                self.name,
            )
        return plan(self.batch(self.members))

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """See :meth:`evgrid.studies.study.Study.answers`."""
        with progress(self.name) as advance:
            result = run_study(self, folder, progress=advance, **options)
        yield Answer(self.name, summary(result), partial(save_study, result, folder))

    def case(self, number: int) -> str:
        """Label of a case of the batch, for messages."""
        case, level = divmod(number, len(self.steps))
        return f"variant {self.cases[case].label}, {self.unit.noun} {self.steps[level]:g}"

    def scenario_at(self, variant: str, level: float, members: range) -> Scenario:
        """The scenario of a variant (of its first node) at a level, with some of the members.

        Raises ScenarioError with every fault.
        """
        case = next(case for case in self.cases if case.variant == variant)
        return load_scenario(
            self.scenario,
            {
                **COLLAPSE,
                **self.overrides,
                **case.overrides,
                **self._no_evs,
                **self.evs_at(case, level),
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
        ``binding_level`` (variant), the first level past the capacity, ``binding_share`` and
        ``binding_other_share`` (variant, criterion), the shares of deployments that violate the criterion,
        and another one, there, and ``binding_kind``, ``_element``, ``_phase`` and ``_time``
        (variant, member, criterion) of each deployment's violation there;
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
    result = result.assign_coords(
        level_evs=("level", _evs(study, checked_runs), {"long_name": "EVs in each deployment"}),
        node=("variant", [case.node for case in study.cases], {"long_name": "connection point of all EVs"}),
    )
    if study.unit.counted:
        chargers = np.array([study.chargers_at(study.cases[0], level) for level in study.steps])
        about = {"long_name": "rated power of all chargers", "units": "kW"}
        result = result.assign_coords(
            level_chargers=("level", chargers, {"long_name": "chargers"}),
            level_kw=("level", study._mean_kw[study.cases[0].variant] * chargers, about),
        )
    result["level"].attrs = {"long_name": study.unit.text, "units": study.unit.units}
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


def _evs(study: HostingCapacity, checked_runs: xr.Dataset) -> list[int]:
    """EVs of each level, of the first variant."""
    first, households = study.cases[0], checked_runs.attrs["households"]
    given = [next(iter(study.evs_at(first, level).values())) for level in study.steps]
    return [round(count if study.unit.counted else count * households) for count in given]


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
    chosen = chosen_limits(limits)
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
    for case in range(len(study.cases) * len(study.steps)):
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
    levels, variants = (
        pd.Index(study.steps, name="level"),
        pd.Index([case.label for case in study.cases], name="variant"),
    )
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
    single = [name for name in checked_runs["criterion"].values if name != TOGETHER]
    broken = checked_runs["violated"].isel(level=at).drop_vars("level") & reached
    every = broken.sel(criterion=single)
    others = (every.sum("criterion") - every) > 0
    about = "share of deployments that violate {} at the first level past the capacity"
    data["binding_share"] = broken.mean("member").assign_attrs(
        long_name=about.format("the criterion"), units="1"
    )
    data["binding_other_share"] = (
        others.mean("member")
        .reindex(criterion=broken["criterion"].values)
        .assign_attrs(long_name=about.format("another criterion"), units="1")
    )
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
