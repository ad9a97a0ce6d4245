"""Growth: the first year in which each element of a feeder is over its limit, with its interval.

In: a scenario, years, and how EVs, heat pumps, PV and load grow, by a table or an S-curve, everywhere or in
areas. Out: for each member and each element (a criterion at a bus and phase, line or transformer) the first
year in which it is over its limit, and over the ensemble the year by which more than a share ``risk`` of the
members has been, with the years at which the Wilson bounds of that share cross it.

**Members are nested in time**: a household that has an EV, a heat pump or PV in a year has it in every later
one, as EVs and additions of a lower penetration are among those of a higher one; drivers and weather of the
day that is run are the same in all years (common random numbers), so that what changes from year to year is
growth.

**Curves.** A table {2026: 0.05, 2035: 0.6} is linear between its years and constant beyond. An S-curve is
logistic, ``f(t) = saturation / (1 + exp(-rate (t - midpoint)))``: half of the saturation at the midpoint,
with the slope ``rate saturation / 4`` there.

Violations are not monotone in growth, so an element may be within its limits in a later year; the first year
counts. Years are those given, not those between.

Left out: EVs and chargers that change with the years, reinforcement on the way
(:mod:`evgrid.studies.reinforcement` says what restores the limits of a year).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from evgrid.errors import ResultError, ScenarioError
from evgrid.results.limits import LimitSet, coverage, limit_set
from evgrid.runs.batch import Batch, Run, plan
from evgrid.runs.worker_process import Reduction
from evgrid.scenario import load_scenario
from evgrid.scenario.fields import NamePatterns, NotNegative, Positive, Settings, fault
from evgrid.scenario.profiles import HeatPump
from evgrid.scenario.solar import NetworkPv
from evgrid.studies.figures import violation_hours
from evgrid.studies.growth_output import save_study, summary
from evgrid.studies.hosting_capacity_tables import NO_SOLUTION, chosen_limits
from evgrid.studies.limit_check import Limits, check_limits
from evgrid.studies.reduced_runs import reduced_runs
from evgrid.studies.statistics import wilson
from evgrid.studies.study import Answer, BatchOptions, Option, Progress, Study

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.runs.simulation import RunReport

FORMAT = "evgrid-growth-1"
"""Written into each study's Dataset."""


class SCurve(Settings):
    """Logistic growth: saturation / (1 + exp(-rate (year - midpoint)))."""

    saturation: NotNegative
    """Value that it goes to."""
    midpoint: Annotated[float, Field(ge=1900, le=2200)]
    """Year of half of it."""
    rate: Positive
    """Rate, 1/a: from 12 to 88 % of the saturation it takes 4 / rate years."""

    def at(self, year: float) -> float:
        """The value in a year."""
        return self.saturation / (1 + math.exp(-self.rate * (year - self.midpoint)))


Table = Annotated[dict[Annotated[int, Field(ge=1900, le=2200)], NotNegative], Field(min_length=1)]
Curve = SCurve | Table


def value_of(curve: SCurve | Mapping[int, float], year: float) -> float:
    """The value of a curve in a year.

    >>> value_of({2026: 0.0, 2030: 0.4}, 2027)
    0.1
    """
    if isinstance(curve, SCurve):
        return curve.at(year)
    years = sorted(curve)
    return float(np.interp(year, years, [curve[y] for y in years]))


class Area(Settings):
    """Growth in a part of the feeder, or everywhere."""

    at: NamePatterns = None
    """Names of its connection points, or patterns such as 'North*'; left out: all."""
    evs: Curve | None = None
    """EVs per household."""
    heat_pumps: Curve | None = None
    """Heat pumps per household."""
    pv: Curve | None = None
    """PV systems per household."""
    load: Curve | None = None
    """Factor of the base load."""


class Growth(Study):
    """Growth of EVs, heat pumps, PV and load over years."""

    kind: ClassVar[str] = "growth"
    question: ClassVar[str] = (
        "The first year in which each element of SCENARIO's feeder is over its limit, as EVs, heat pumps, PV "
        "and load grow."
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option("--members", "members", "Members of the ensemble.", int),
        Option("--risk", "risk", "Share of deployments that may be over a limit."),
        Option("--limit", "limits", "Presets of limits to check; may be repeated.", str, multiple=True),
    )

    years: Annotated[tuple[Annotated[int, Field(ge=1900, le=2200)], ...], Field(min_length=1)] = tuple(
        range(2026, 2046, 2)
    )
    """Years, ascending, each a run."""
    evs: Curve | None = None
    """EVs per household, of the whole feeder; left out: those of the scenario in every year."""
    areas: Annotated[dict[str, Area], Field(min_length=1)] = {"feeder": Area()}
    """Growth of EVs, heat pumps, PV and load by area."""
    heat_pump: HeatPump = HeatPump(annual_kwh=4500)
    """Each heat pump."""
    pv: NetworkPv | None = None
    """Each PV system; required where PV grows."""
    pv_kw: Positive = 8.0
    """Rated AC power of each PV system, kW."""
    limits: Limits = ("en_50160", "vuf", "ratings")
    """Limits by the names of their presets, or own criteria."""
    risk: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the deployments that may have been over a limit by a year."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the intervals."""
    members: Annotated[int, Field(ge=1)] = 20
    """Members of the ensemble."""

    @field_validator("years")
    @classmethod
    def _ascending(cls, years: tuple[int, ...]) -> tuple[int, ...]:
        if any(np.diff(years) <= 0):
            raise fault("must be ascending")
        return years

    @model_validator(mode="after")
    def _something_grows(self) -> Growth:
        grows = [
            self.evs,
            *(c for area in self.areas.values() for c in (area.evs, area.heat_pumps, area.pv, area.load)),
        ]
        if all(curve is None for curve in grows):
            raise fault("evs, areas: nothing grows; give a table or an S-curve of one of them at least")
        if self.evs is not None and self._by_area:
            raise fault("evs: give those of the whole feeder, or of areas")
        if self.pv is None and any(area.pv is not None for area in self.areas.values()):
            raise fault("pv: is required where PV grows, {latitude, longitude, timezone} at least")
        if self.heat_pump.annual_kwh is None:
            raise fault("heat_pump.annual_kwh: is required")
        return self

    @property
    def _by_area(self) -> dict[str, tuple[Area, Curve]]:
        """The areas in which EVs grow, and how."""
        return {name: (area, area.evs) for name, area in self.areas.items() if area.evs is not None}

    @property
    def limit_set(self) -> LimitSet:
        """The criteria."""
        return limit_set(*self.limits)

    def overrides_of(self, year: int) -> dict[str, Any]:
        """Overrides of the scenario in a year."""
        found: dict[str, Any] = {}
        if self.evs is not None:
            found |= {"fleet.penetration": value_of(self.evs, year), "fleet.count": None, "fleet.areas": None}
        by_area = {
            name: {"at": list(area.at or ("*",)), "penetration": value_of(evs, year)}
            for name, (area, evs) in self._by_area.items()
        }
        if by_area:
            found |= {"fleet.penetration": None, "fleet.count": None, "fleet.areas": by_area}
        pump = self.heat_pump.model_dump(mode="json", exclude_none=True)
        system = None if self.pv is None else self.pv.model_dump(mode="json", exclude_none=True)
        additions: dict[str, Any] = {}
        for name, area in self.areas.items():
            at = {} if area.at is None else {"at": list(area.at)}
            if area.heat_pumps is not None:
                share = value_of(area.heat_pumps, year)
                additions[f"{name} heat pumps"] = {**at, "penetration": share, "heat_pump": pump}
            if area.pv is not None:
                share = value_of(area.pv, year)
                additions[f"{name} pv"] = {**at, "penetration": share, "pv": system, "kw": self.pv_kw}
            if area.load is not None:
                additions[f"{name} load"] = {**at, "load": value_of(area.load, year)}
        if additions:
            found["feeder.additions"] = {**self._own_additions, **additions}
        return found

    @cached_property
    def _own_additions(self) -> dict[str, Any]:
        """Additions of the scenario itself, which stay."""
        own = load_scenario(self.scenario, self.overrides).feeder.additions
        return {name: addition.model_dump(mode="json", exclude_none=True) for name, addition in own.items()}

    def batch(self) -> Batch:
        """The runs: a case for each year."""
        shared = {**self.overrides, "feeder.on_divergence": "keep", "ensemble.members": self.members}
        return Batch.model_validate(
            {"name": self.name, "base": self.scenario, "overrides": shared,
             "list": [self.overrides_of(year) for year in self.years], "members_per_run": self.members}
        )  # fmt: skip

    def plans(self) -> list[Run]:
        """The runs. Raises ScenarioError with every fault of every one."""
        if self.evs is not None or self._by_area:
            fleet = load_scenario(self.scenario, self.overrides).fleet
            if fleet is None or not fleet.sessions.at_households:
                raise ScenarioError(
                    ["evs: are per household; the scenario's fleet.sessions must be sampled at homes"],
                    self.name,
                )
        return plan(self.batch())

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """See :meth:`evgrid.studies.study.Study.answers`."""
        with progress(self.name) as advance:
            result = run_study(self, folder, progress=advance, **options)
        yield Answer(self.name, summary(result), partial(save_study, result, folder))


def over_limits(result: xr.Dataset, report: RunReport, limits: Sequence[Any]) -> xr.Dataset:
    """What each member of a run is over, ``hours`` (member, place); see
    :func:`evgrid.studies.figures.violation_hours`. A member without a solution of its power flow is over the
    place ``power_flow``.
    """
    import xarray as xr

    del report
    chosen = chosen_limits(limits)
    result, checked = check_limits(result, chosen)
    if not checked.sizes["criterion"]:
        raise ResultError("none of the limits can be checked on this feeder")
    hours = violation_hours(result, chosen)
    unsolved = result["member_failed_s"].notnull().values
    if unsolved.any():
        whole = xr.DataArray(
            unsolved[:, np.newaxis].astype(float), {"member": hours["member"], "place": [NO_SOLUTION]},
            ("member", "place"),
        )  # fmt: skip
        hours = xr.concat([hours, whole], "place")
    table = coverage(result, chosen)
    rows = table[~table["checked"]]
    return xr.Dataset(
        {"hours": hours.assign_attrs(long_name="time for which the element is over its limit", units="h")},
        attrs={
            "not_checked": json.dumps(dict(zip(rows["criterion"], rows["remark"], strict=True))),
            "remarks": json.dumps({r.criterion: r.remark for r in table[table["checked"]].itertuples()}),
            "households": int(result["connection_households"].sum()),
        },
    )


def run_study(
    study: Growth,
    folder: str | Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> xr.Dataset:
    """Run a growth study in a folder: a run for each year.

    Returns
    -------
    xarray.Dataset
        ``over`` (year, member, place), whether a member is over the limit of a place (criterion and element)
        in a year, and the first years of :func:`first_years`; ``grown`` (year, quantity), the curves.

    Raises
    ------
    EvgridError
        If a scenario is at fault or a run fails.
    KeyboardInterrupt
        On Ctrl-C; finished runs are kept.

    """
    import xarray as xr

    folder = Path(folder)
    study.plans()
    limits = json.dumps({"limits": study.model_dump(mode="json")["limits"]})
    kept = reduced_runs(
        study.name, study.batch(), [f"year {year}" for year in study.years],
        Reduction("evgrid.studies.growth:over_limits", limits), folder, progress,
        {"resume": resume, "workers": workers, "scheduler": scheduler},
    )  # fmt: skip
    years = xr.DataArray(list(study.years), dims="year", name="year", attrs={"long_name": "year"})
    hours = xr.concat([one["hours"] for one in kept], years, join="outer", fill_value=0.0)
    over = (hours > 0).transpose("year", "member", "place")
    result = first_years(over, study.risk, study.confidence)
    result["over"] = over.assign_attrs(long_name="whether the element is over its limit", units="1")
    quantities, values = _grown(study)
    result["grown"] = (
        ("year", "quantity"), values,
        {"long_name": "EVs, heat pumps and PV systems per household, or factor of the load", "units": "1"},
    )  # fmt: skip
    return result.assign_coords(quantity=quantities).assign_attrs(
        format=FORMAT, name=study.name, study=study.model_dump_json(), **kept[-1].attrs
    )


def _grown(study: Growth) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    """Names and values of the curves, (year, quantity)."""
    curves: dict[str, Any] = {} if study.evs is None else {"EVs per household": study.evs}
    for name, area in study.areas.items():
        of = "" if len(study.areas) == 1 else f", {name}"
        for curve, text in (
            (area.evs, "EVs per household"), (area.heat_pumps, "heat pumps per household"),
            (area.pv, "PV systems per household"), (area.load, "factor of the load"),
        ):  # fmt: skip
            if curve is not None:
                curves[f"{text}{of}"] = curve
    return list(curves), np.array([[value_of(c, year) for c in curves.values()] for year in study.years])


def first_years(over: xr.DataArray, risk: float, confidence: float = 0.95) -> xr.Dataset:
    """The first years in which elements are over their limits.

    Parameters
    ----------
    over
        (year, member, place) bool, years ascending.
    risk, confidence
        See :class:`Growth`.

    Returns
    -------
    xarray.Dataset
        ``member_year`` (member, place), NaN where a member is never over; ``share`` (year, place) of members
        that have been over the limit by a year, with ``share_low`` and ``share_high``; ``first_year``
        (place), the first one in which that share is above the risk, with ``first_year_low`` and
        ``first_year_high``, where its upper and its lower bound are; NaN: in none of the years. ``any_`` of
        each is for the feeder as a whole.

    """
    import xarray as xr

    found: dict[str, xr.DataArray] = {}
    passing = f"first year by which more than {risk:.0%} of the deployments have been over the limit"
    for prefix, one in (("", over), ("any_", over.any("place"))):
        year = one["year"]
        first = year.where(one).min("year")
        by_then = one.copy(data=np.logical_or.accumulate(one.values, axis=0))
        count = by_then.sum("member")
        low, high = wilson(count.values, one.sizes["member"], confidence)
        text = "share of deployments that have been over the limit by the year"
        found[f"{prefix}member_year"] = first.assign_attrs(long_name="first year over the limit", units="1")
        shares = {"share": count / one.sizes["member"], "share_low": count.copy(data=low),
                  "share_high": count.copy(data=high)}  # fmt: skip
        for name, share in shares.items():
            found[prefix + name] = share.assign_attrs(long_name=text, units="1")
        for end, of in (("", "share"), ("_low", "share_high"), ("_high", "share_low")):
            passed = year.where(shares[of] > risk + 1e-12).min("year")
            found[f"{prefix}first_year{end}"] = passed.assign_attrs(
                long_name=passing,
                units="1",
            )
    return xr.Dataset(found)
