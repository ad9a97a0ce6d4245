"""Hosting capacity: how many EVs a feeder takes, and how sure that is.

In: a scenario, levels of penetration, ways of charging (variants) and limits. Out: a Dataset with
what each member violates at each level, and what follows from it (:func:`assess`).

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

Members are added in rounds until the interval of the share at the capacity is as narrow as asked,
or the budget ends. That the data decide when to stop makes the interval slightly too narrow.

Left out: levels that differ between parts of the feeder, correlation between neighbours who buy EVs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from evgrid.errors import ResultError
from evgrid.limits import PRESETS, Criterion, LimitSet, coverage, limit_set, violations
from evgrid.scenario import Scenario, Share, load_scenario
from evgrid.settings import ExistingFile, Settings, fault
from evgrid.studies import reading
from evgrid.studies.judging import judged
from evgrid.studies.statistics import wilson

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FORMAT = "evgrid-hosting-capacity-1"
"""Written into each study's Dataset."""

TOGETHER = "any"
"""The criterion that stands for all of them together."""


class HostingCapacity(Settings):
    """A hosting capacity study."""

    name: Annotated[str, Field(min_length=1)]
    """What the study is called; its folder is results/NAME unless another is given."""
    scenario: ExistingFile
    """The scenario: feeder, base load, charger, vehicle, period."""
    overrides: dict[str, Any] = {}
    """Overrides of the scenario, such as {time.step: 5min}."""
    levels: Annotated[tuple[Share, ...], Field(min_length=1)] = tuple(round(0.1 * i, 12) for i in range(11))
    """Penetrations, EVs per household, ascending."""
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] = {
        "uncontrolled": {"aggregators": {"main": {"strategy": "uncontrolled"}}}
    }
    """Ways of charging by name; each is overrides of the scenario, such as
    {aggregators.main: {strategy: tou}} or {fleet.charger.functions: {volt_var: ieee_1547_b}}."""
    limits: Annotated[tuple[str | Criterion, ...], Field(min_length=1)] = (
        "en_50160", "vuf", "thermal_instantaneous", "thermal_moving_average", "hot_spot",
    )  # fmt: skip
    """Limits by the names of their presets, or criteria of one's own."""
    risk: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of deployments that may violate a limit on the way to the capacity."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the intervals."""
    precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Half-width of the interval of the share at the capacity at which no more members are added;
    left out: one round."""
    members: Annotated[int, Field(ge=1)] = 100
    """Members in a round; a round is in memory at once."""
    budget: Annotated[int, Field(ge=1)] = 1000
    """Most members in all."""
    nodal_kw: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Loads to add at each connection on its own, kW, ascending, for the map of what it can draw besides
    the base load of the first member, without EVs; left out: no map."""

    @field_validator("levels", "nodal_kw")
    @classmethod
    def _ascending(cls, levels: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if levels is None:
            return None
        if any(np.diff(levels) <= 0):
            raise fault("must be ascending")
        return levels

    @field_validator("limits")
    @classmethod
    def _known(cls, limits: tuple[str | Criterion, ...]) -> tuple[str | Criterion, ...]:
        unknown = [part for part in limits if isinstance(part, str) and part not in PRESETS]
        if unknown:
            raise fault(f"{unknown[0]} is no preset; must be one of {', '.join(PRESETS)}")
        return limits

    @property
    def limit_set(self) -> LimitSet:
        """The criteria."""
        return limit_set(*self.limits)

    def scenario_at(self, variant: str, level: float, members: range) -> Scenario:
        """The scenario of a variant at a level, with some of the members.

        Raises ScenarioError with every fault.
        """
        return load_scenario(
            self.scenario,
            {
                **self.overrides,
                **self.variants[variant],
                "fleet.count": None,
                "fleet.penetration": level,
                "ensemble.first": members.start,
                "ensemble.members": len(members),
            },
        )


def load_study(path: str | Path, **changes: Any) -> HostingCapacity:
    """Read a study file, or make a study of a scenario file: :func:`evgrid.studies.reading.load_study`."""
    return reading.load_study(path, HostingCapacity, "hosting-capacity", **changes)


# ---- what follows from the violations -----------------------------------------------------------


def assess(violated: xr.DataArray, risk: float = 0.05, confidence: float = 0.95) -> xr.Dataset:
    """What follows from which deployment violates what at which level.

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
    study: HostingCapacity | str | Path, progress: Callable[[float, str], None] | None = None
) -> xr.Dataset:
    """Run a hosting capacity study.

    Parameters
    ----------
    study
        A :class:`HostingCapacity`, or the path of a study or scenario file.
    progress
        Called after every run with the share of its round that is done and what was run.

    Returns
    -------
    xarray.Dataset
        ``violated`` (variant, level, member, criterion), all of :func:`assess`,
        ``binding_criterion``, ``binding_element``, ``binding_phase`` and ``binding_time``
        (variant, member) of each deployment's first violation (the worst one at that level), and
        the extremes of voltage at each bus, over members and time, by variant and level. The
        attributes hold the study, the criteria that could not be checked, and where time went.

    Raises
    ------
    EvgridError
        If a scenario is at fault or a run fails.

    """
    import xarray as xr

    if not isinstance(study, HostingCapacity):
        study = load_study(study)
    for variant in study.variants:
        study.scenario_at(variant, study.levels[0], range(1))  # faults before anything runs
    begin, rounds = time.perf_counter(), list[_Round]()
    done, first = 0, study.scenario_at(next(iter(study.variants)), 0.0, range(1)).ensemble.first
    feeder_s = 0.0
    while True:
        members = range(first + done, first + min(done + study.members, study.budget))
        part = _round(study, members, progress)
        rounds.append(part)
        feeder_s += part.feeder_s
        done += len(members)
        found = xr.concat([r.violated for r in rounds], "member")
        result = assess(found, study.risk, study.confidence)
        if study.precision is None or done >= study.budget or half_width(result).max() <= study.precision:
            break
    binding = xr.concat([r.binding for r in rounds], "member")
    voltage = xr.concat([r.voltage for r in rounds], "round")
    result["violated"] = found.assign_attrs(
        long_name="whether the deployment violates the criterion", units="1"
    )
    result = result.merge(binding)
    result["bus_voltage_min_pu"] = (
        voltage["low"]
        .min("round")
        .assign_attrs(long_name="lowest voltage of the bus over phases, time and deployments", units="1")
    )
    result["bus_voltage_max_pu"] = (
        voltage["high"]
        .max("round")
        .assign_attrs(long_name="highest voltage of the bus over phases, time and deployments", units="1")
    )
    evs = [round(level * rounds[0].households) for level in study.levels]
    result = result.assign_coords(level_evs=("level", evs, {"long_name": "EVs in each deployment"}))
    result["level"].attrs = {"long_name": "penetration, EVs per household", "units": "1"}
    if study.nodal_kw is not None:
        from evgrid.studies.nodal_capacity import nodal_capacity

        base = study.scenario_at(next(iter(study.variants)), 0.0, range(first, first + 1))
        result["nodal_capacity_kw"] = nodal_capacity(
            base, study.nodal_kw, study.limit_set, study.members,
            lambda done: progress(done, "nodal capacity") if progress is not None else None,
        )  # fmt: skip
    return result.assign_attrs(
        format=FORMAT,
        name=study.name,
        study=study.model_dump_json(),
        not_checked=json.dumps(rounds[0].not_checked),
        wall_s=time.perf_counter() - begin,
        feeder_s=feeder_s,
    )


def half_width(result: xr.Dataset, criterion: str = TOGETHER) -> xr.DataArray:
    """Half the interval of the share of deployments with a violation at or below the capacity,
    (variant,); at the lowest level where the capacity is below it.
    """
    width = (result["first_share_high"] - result["first_share_low"]).sel(criterion=criterion) / 2
    capacity = result["capacity"].sel(criterion=criterion).fillna(result["level"].values[0])
    return width.sel(level=capacity)


class _Round:
    """What a round of members violates, and where first."""

    def __init__(self, study: HostingCapacity, members: range) -> None:
        self.study, self.members = study, members
        self.found: dict[tuple[str, float], xr.DataArray] = {}
        self.extremes: dict[tuple[str, float], xr.Dataset] = {}
        self.first: dict[str, dict[int, pd.Series[Any]]] = {variant: {} for variant in study.variants}
        self.not_checked: dict[str, str] = {}
        self.households = 0
        self.feeder_s = 0.0

    def add(self, variant: str, level: float, result: xr.Dataset) -> None:
        """Judge a run."""
        import xarray as xr

        limits = self.study.limit_set
        result, checked = judged(result, limits)
        if not checked.sizes["criterion"]:
            raise ResultError(f"study {self.study.name}: none of the limits can be checked on this feeder")
        together = checked["violated_any"].expand_dims(criterion=[TOGETHER])
        self.found[variant, level] = xr.concat(
            [checked["violated"].astype(bool), together.astype(bool)], "criterion"
        ).transpose("member", "criterion")
        if not self.not_checked:
            table = coverage(result, limits)
            rows = table[~table["checked"]]
            self.not_checked = dict(zip(rows["criterion"], rows["remark"], strict=True))
            self.households = int(result["connection_households"].sum())
        news = [
            int(m) for m in checked["member"].values[checked["violated_any"].values]
            if int(m) not in self.first[variant]
        ]  # fmt: skip
        if news:
            table = violations(result.sel(member=news), limits)
            for member, rows in table.groupby("member", sort=False):
                self.first[variant][int(str(member))] = rows.iloc[0]
        voltage = result["voltage_pu"]
        others = ("member", "time", "phase")
        self.extremes[variant, level] = xr.Dataset(
            {"low": voltage.min(others), "high": voltage.max(others)},
            coords={name: result[name] for name in ("bus_x", "bus_y")},
        )

    @property
    def violated(self) -> xr.DataArray:
        """(variant, level, member, criterion)."""
        found: xr.DataArray = self._stack(self.found)
        return found

    @property
    def voltage(self) -> xr.Dataset:
        """Extremes over the round, (variant, level, bus)."""
        extremes: xr.Dataset = self._stack(self.extremes)
        return extremes

    def _stack(self, parts: Any) -> Any:
        import pandas as pd
        import xarray as xr

        levels = pd.Index(self.study.levels, name="level")
        return xr.concat(
            [xr.concat([parts[v, p] for p in self.study.levels], levels, coords="minimal", compat="override")
             for v in self.study.variants],
            pd.Index(list(self.study.variants), name="variant"), coords="minimal", compat="override",
        )  # fmt: skip

    @property
    def binding(self) -> xr.Dataset:
        """The first violation of each deployment, (variant, member)."""
        import xarray as xr

        data = {}
        for column, name, text in (
            ("criterion", "criterion", "criterion"),
            ("element", "kind", "kind of element"),
            ("name", "element", "element"),
            ("phase", "phase", "phase"),
            ("first_time", "time", "time"),
        ):
            none, kind = (np.datetime64("NaT"), "datetime64[ns]") if name == "time" else ("", object)
            rows = [
                [first[m][column] if m in first else none for m in self.members]
                for first in self.first.values()
            ]
            about = {"long_name": f"{text} of the worst violation at the first violating level"}
            data[f"binding_{name}"] = (("variant", "member"), np.array(rows, kind), about)
        return xr.Dataset(data, coords={"variant": list(self.study.variants), "member": list(self.members)})


def _round(study: HostingCapacity, members: range, progress: Callable[[float, str], None] | None) -> _Round:
    from evgrid.simulation import run_with_report

    part = _Round(study, members)
    total, done = len(study.variants) * len(study.levels), 0
    for variant in study.variants:
        for level in study.levels:
            result, report = run_with_report(study.scenario_at(variant, level, members))
            part.add(variant, level, result)
            time_of = report.federation
            part.feeder_s += time_of.stepping_s["feeder"] + time_of.finishing_s["feeder"]
            result.close()
            done += 1
            if progress is not None:
                progress(done / total, f"members to {members.stop - 1}: {variant}, {level:.0%}")
    return part


def capacity_table(result: xr.Dataset) -> pd.DataFrame:
    """Hosting capacity of every variant and criterion: a row each, with its interval."""
    table = result[["capacity", "capacity_low", "capacity_high"]].to_dataframe().reset_index()
    return table[["variant", "criterion", "capacity", "capacity_low", "capacity_high"]]


def binding_table(result: xr.Dataset) -> pd.DataFrame:
    """What binds: criterion, element and phase of first violations, most frequent first, with the
    number of deployments, their share, and the median hour of the day.
    """
    import pandas as pd

    names = ["binding_criterion", "binding_kind", "binding_element", "binding_phase", "binding_time"]
    table = result[names].to_dataframe().reset_index()
    table = table[table["binding_criterion"] != ""]
    table["hour"] = table["binding_time"].dt.hour + table["binding_time"].dt.minute / 60
    keys = ["variant", *names[:4]]
    if table.empty:
        return pd.DataFrame(columns=[*keys, "deployments", "share", "median_hour"])
    grouped = (
        table.groupby(keys, sort=False)["hour"].agg(deployments="size", median_hour="median").reset_index()
    )
    grouped["share"] = grouped["deployments"] / result.sizes["member"]
    grouped = grouped.sort_values("deployments", ascending=False, kind="stable").reset_index(drop=True)
    return grouped[[*keys, "deployments", "share", "median_hour"]]


def summary(result: xr.Dataset) -> Sequence[tuple[str, str]]:
    """Key figures as (name, text) rows."""
    risk = json.loads(result.attrs["study"])["risk"]
    level = result["level"].values
    rows = [
        (
            "deployments",
            f"{result.sizes['member']}, {len(level)} levels from {level[0]:.0%} to {level[-1]:.0%}",
        )
    ]
    binding = binding_table(result)
    for variant in result["variant"].values:
        at = result.sel(variant=variant, criterion=TOGETHER)
        ends = [_level(float(at[name]), level) for name in ("capacity", "capacity_low", "capacity_high")]
        rows.append(
            (f"hosting capacity, {variant}", f"{ends[0]} at a risk of {risk:.0%} ({ends[1]} to {ends[2]})")
        )
        worst = int(np.argmax(at["probability"].values))
        rows.append(
            ("  P(violation), highest", f"{float(at['probability'][worst]):.1%} at {level[worst]:.0%}")
        )
        mine = binding[binding["variant"] == variant]
        if len(mine):
            row = mine.iloc[0]
            phase = f", phase {row['binding_phase']}" if row["binding_phase"] else ""
            rows.append(
                (
                    "  binding first",
                    f"{row['binding_criterion']}: {row['binding_kind']} {row['binding_element']}{phase}, "
                    f"about {row['median_hour']:.1f} h ({row['deployments']} deployments)",
                )
            )
    for criterion, reason in json.loads(result.attrs["not_checked"]).items():
        rows.append(("not checked", f"{criterion}: {reason.removeprefix(f'{criterion}: ')}"))
    wall, feeder = float(result.attrs["wall_s"]), float(result.attrs["feeder_s"])
    rows.append(("wall time", f"{wall:.1f} s, of which {feeder / wall:.0%} in the feeder's power flow"))
    return rows


def _level(value: float, levels: Any) -> str:
    if np.isnan(value):
        return f"below {levels[0]:.0%}"
    return f"at least {value:.0%}" if value == levels[-1] else f"{value:.0%}"
