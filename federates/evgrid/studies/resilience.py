"""Resilience: how long sites serve their critical load in an outage that may start at any time.

In: a scenario with ``sites``; its period is what outages start in, such as a year. Out: a Dataset of hours
survived and of the probability of survival against duration, by month and hour of the start, by site, group
and for the street, with and without each of the sources; indices of reliability at the meter and at the
socket; what a reserve costs in normal times against what it buys.

Nothing is simulated over HELICS: loads, PV and sessions are those that a run of the scenario would have, and
:mod:`evgrid.sites.survival` follows an outage from every slot on. States of charge in normal times are by the
rule of :mod:`evgrid.sites.normal_times`: EVs charge as fast as they can on arrival, or with a control of the
site serve its load down to the reserve. Indices of reliability: :mod:`.resilience_indices`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.results import open_results
from evgrid.results.recording import unrecorded
from evgrid.runs.batch import Batch, Run, dask_client, plan
from evgrid.scenario import Scenario, load_scenario
from evgrid.scenario.fields import Duration, ExistingFile, NotNegative, Positive, Share, fault
from evgrid.sites.normal_times import SUMS, energy_in_normal_times
from evgrid.sites.survival import survival_hours, with_round_trip_on_charging
from evgrid.studies.resilience_indices import (
    AtMeter,
    AtSocket,
    Expected,
    Interruptions,
    Survival,
    replayed,
)
from evgrid.studies.resilience_sites import (
    EV_STAYS,
    ONE_EV,
    PARTS,
    SitesByPart,
    recorded_kwh,
    sites_by_part,
)
from evgrid.studies.study import Answer, BatchOptions, Option, Progress, Study

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.runs.simulation import World

FORMAT = "evgrid-resilience-1"
"""Written into each study's Dataset."""
EVERYTHING = "everything"
"""Variant with all sources that the sites have."""
ALL_SITES = "all"
"""Group of all sites."""

_YEAR_H = 8760.0

Part = Literal["ev", "one_ev", "ev_stays", "pv", "battery", "generator"]


class Resilience(Study):
    """A study of resilience."""

    kind: ClassVar[str] = "resilience"
    question: ClassVar[str] = (
        "How long the sites of SCENARIO serve their critical load in an outage, whenever it starts."
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option("--horizon", "horizon", "Longest outage, such as 14d.", str),
        Option("--slot", "slot", "Time between two starts, such as 1h.", str),
        Option("--rule", "rule", "exact, or reopt for REopt's rule in whole slots.", str),
        Option("--saifi", "saifi", "Interruptions of a customer a year."),
        Option("--caidi", "caidi", "Mean duration of an interruption, such as 2h.", str),
    )

    slot: Annotated[Duration, Field(gt=0, le=86400)] = 3600.0
    """Time between two starts of an outage, and length of the slots over which load and PV are means; divides
    the scenario's period."""
    horizon: Annotated[Duration, Field(gt=0)] = 14 * 86400.0
    """Longest outage: what survives it counts as this long. REopt's is a year."""
    rule: Literal["exact", "reopt"] = "exact"
    """exact: with the moment at which the critical load is first not met; reopt: in whole slots, as REopt
    counts."""
    variants: Annotated[dict[str, tuple[Part, ...]], Field(min_length=1)] | None = None
    """What serves, by name of a variant, such as {EVs and PV: [ev, pv], nothing: []}; in place of ev,
    one_ev: only the first EV of each site, ev_stays: EVs that are plugged in during an outage stay until it
    ends. Left out: everything, EVs that stay, without each of the sources, one EV where sites have more, and
    EVs only."""
    durations: Annotated[tuple[Annotated[Duration, Field(gt=0)], ...], Field(min_length=1)] = (
        6 * 3600.0, 86400.0, 3 * 86400.0,
    )  # fmt: skip
    """Durations of outages for tables, by month and by hour, ascending, at most the horizon."""
    reserves: tuple[Share, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """States of charge that all stores hold in normal times, for the curve of their cost, ascending."""
    result: ExistingFile | None = None
    """Result of a run of the scenario with record.ev, and a recording interval of a tick that divides the
    slot: outages start from its states of charge. Left out: from those of a rule."""
    wear_per_kwh: NotNegative = 0.05
    """Cost of degradation in normal times, currency per kWh that stores give to the load."""
    saifi: Positive | None = None
    """Interruptions of a customer a year, with caidi in place of the scenario's outages. Left out: those of
    the scenario, in the mean where they are drawn by saifi and caidi only, else as they are, over the period;
    without any no indices."""
    caidi: Annotated[Duration, Field(gt=0)] | None = None
    """Mean duration of an interruption, exponentially distributed; left out: as for saifi."""

    @field_validator("durations", "reserves")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(np.diff(values) <= 0):
            raise fault("must be ascending")
        return values

    def plans(self) -> list[Run]:
        """The scenario, resolved. Raises ScenarioError with every fault."""
        self.base()
        content = {"name": self.name, "base": self.scenario, "overrides": self.overrides, "list": [{}]}
        return plan(Batch.model_validate(content))[:1]

    def base(self) -> Scenario:
        """The scenario. Raises ScenarioError with every fault of it and of what is asked."""
        scenario, found = load_scenario(self.scenario, self.overrides), list[str]()
        if not any(not site.off_grid for site in scenario.sites.values()):
            found.append("sites: is required: a study of resilience is one of sites on the grid")
        slots = scenario.time.duration / self.slot
        if abs(slots - round(slots)) > 1e-9 or round(slots) < 1:
            length = scenario.time.duration
            found.append(f"slot = {self.slot:g}s: must divide the scenario's time.duration = {length:g}s")
        if self.durations[-1] > self.horizon:
            found.append(
                f"durations: must be at most horizon = {self.horizon:g}s, not {self.durations[-1]:g}s"
            )
        if (self.saifi is None) != (self.caidi is None):
            found.append("give both saifi and caidi, or neither")
        if self.result is not None:
            found += self._faults_of_result(self.result, scenario)
        if found:
            raise ScenarioError(found, f"study {self.name}")
        return scenario

    def _faults_of_result(self, path: Path, scenario: Scenario) -> list[str]:
        """What keeps a result from telling the states of charge at the begin of slots."""
        with open_results(path) as result:
            run = json.loads(result.attrs.get("scenario", "{}"))
            if not run:
                return [f"result = {path}: must be the result of a run"]
            content = json.loads(scenario.model_dump_json(exclude_none=True))
            found = [
                f"result = {path}: its {key} is not that of the scenario"
                for key in ("time", "ensemble", "feeder", "fleet", "sites")
                if run.get(key) != content.get(key)
            ]
            if unrecorded(result, "site"):
                found.append(f"result = {path}: sites: {unrecorded(result, 'site')}: must be all")
            if "ev_soc" not in result and scenario.fleet is not None:
                found.append(f"result = {path}: has no states of charge: run with record.ev = true")
            if scenario.record_step_s != scenario.time.step or self.slot % scenario.time.step > 1e-6:
                text = f"its recording interval must be a tick, and divide slot = {self.slot:g}s"
                found.append(f"result = {path}: {text}")
            return found

    def interruptions(self, scenario: Scenario) -> Callable[[World, SitesByPart], Interruptions] | None:
        """The interruptions of a member's sites; None where neither study nor scenario says any."""
        outages = scenario.outages
        if self.saifi is not None and self.caidi is not None:
            rates = self.saifi, self.caidi
        elif outages is None:
            return None
        elif outages.schedule or outages.rates is not None:
            return replayed
        else:
            assert outages.saifi is not None
            assert outages.caidi is not None
            rates = outages.saifi, outages.caidi
        return lambda world, sites: Expected(sites, rates[0], rates[1] / 3600)

    def cases(self, there: tuple[str, ...], several_evs: bool = True) -> dict[str, tuple[str, ...]]:
        """What serves in each variant.

        there : the sources that sites have; several_evs : whether a site has more than one EV
        """
        if self.variants is not None:
            return {name: tuple(parts) for name, parts in self.variants.items()}
        names = {"ev": "EVs", "pv": "PV", "battery": "battery", "generator": "generator"}
        found: dict[str, tuple[str, ...]] = {EVERYTHING: PARTS}  # other members may have more
        if "ev" in there:
            found["EVs stay"] = tuple(EV_STAYS if part == "ev" else part for part in there)
        if len(there) > 1:
            for part in there:
                found[f"without {names[part]}"] = tuple(other for other in there if other != part)
        if "ev" in there and several_evs:
            found["one EV a site"] = tuple(ONE_EV if part == "ev" else part for part in there)
        if "ev" in there and len(there) > 1:
            found["EVs only"] = ("ev",)
        return found

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """See :meth:`evgrid.studies.study.Study.answers`."""
        from evgrid.studies.resilience_output import save_study, variants_table

        if options.get("resume"):
            text = "--resume: a study of resilience keeps no runs with which it could go on; leave it out"
            raise ScenarioError([text], f"study {self.name}")
        with progress(self.name) as advance:
            result = run_study(self, advance, options.get("workers"), options.get("scheduler"))
        yield Answer(self.name, variants_table(result), partial(save_study, result, folder))


def run_study(
    study: Resilience,
    progress: Callable[[int, int, int], None] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> xr.Dataset:
    """Follow an outage from every slot on, at every site, member and variant.

    Parameters
    ----------
    study
        The study.
    progress
        Called after every member with the number of members done, failed (none) and in all.
    workers, scheduler
        See :func:`evgrid.run_batch`: members are shared among the processes, the numbers are the
        same. Left out: one member after the other in this process, with its sites on all cores.

    Returns
    -------
    xarray.Dataset
        ``probability`` (variant, group, duration): share of starts, sites and members that serve their
        critical load for a duration; ``probability_together``: all sites of a member at once; ``hours_mean``,
        ``_min`` and ``_max``, also by month and hour of the start and by site; with interruptions the
        indices; over ``reserve`` the curve.

    Raises
    ------
    EvgridError
        If the scenario is at fault or has no sites on the grid, or there is no scheduler.

    """
    members = study.base().members
    sums = sums_of_member(study, members[0])
    if progress is not None:
        progress(1, 0, len(members))
    for done, others in enumerate(_sums_of(study, members[1:], sums.variants, workers, scheduler), 2):
        sums.merge(others)
        if progress is not None:
            progress(done, 0, len(members))
    return sums.dataset()


def _sums_of(
    study: Resilience, members: Sequence[int], variants: dict[str, tuple[str, ...]], workers: int | None,
    scheduler: str | None,
) -> Iterator[Sums]:  # fmt: skip
    """The sums of some members, in their order."""
    if not members or (scheduler is None and (workers or 1) == 1):
        yield from (sums_of_member(study, member, variants) for member in members)
        return
    with dask_client(scheduler, min(workers or len(members), len(members))) as client:
        futures = client.map(partial(sums_of_member, study, variants=variants), list(members), pure=False)
        try:
            for future in futures:
                yield future.result()
                future.release()
        finally:
            client.cancel(futures, force=True)


def sums_of_member(
    study: Resilience, member: int, variants: dict[str, tuple[str, ...]] | None = None
) -> Sums:
    """The sums of a member; ``variants``: what serves in each, None: by the sources that its sites have."""
    from evgrid.runs.simulation import build_world

    one = {"ensemble.first": member, "ensemble.members": 1}
    scenario = load_scenario(study.scenario, {**study.overrides, **one})
    world = build_world(scenario)
    parts = sites_by_part(world, study.slot)
    if study.result is not None:
        with open_results(study.result) as recorded:
            parts = replace(parts, recorded_kwh=recorded_kwh(recorded, member, parts))
    sums = Sums(study, study.base(), variants or study.cases(parts.there, parts.several_evs))
    sums.add(member, world, parts)
    return sums


@dataclass
class _Spread:
    """Mean, least and greatest hours of several keys, as they come in."""

    size: int
    total: Array = field(init=False)
    count: Array = field(init=False)
    low: Array = field(init=False)
    high: Array = field(init=False)

    def __post_init__(self) -> None:
        self.total, self.count = np.zeros(self.size), np.zeros(self.size)
        self.low, self.high = np.full(self.size, np.inf), np.full(self.size, -np.inf)

    def add(self, key: NDArray[np.int64], hours: NDArray[np.float32]) -> None:
        """Add hours (start, site) with a key for each start."""
        sites = hours.shape[1]
        self.total += np.bincount(key, hours.sum(axis=1, dtype=np.float64), self.size)
        self.count += sites * np.bincount(key, minlength=self.size)
        np.minimum.at(self.low, key, hours.min(axis=1))
        np.maximum.at(self.high, key, hours.max(axis=1))

    def merge(self, others: _Spread) -> None:
        """Add the hours of others."""
        self.total += others.total
        self.count += others.count
        np.minimum(self.low, others.low, out=self.low)
        np.maximum(self.high, others.high, out=self.high)

    def figures(self) -> Array:
        """Mean, least and greatest, (3, key); NaN for keys without a start."""
        with np.errstate(invalid="ignore"):
            mean = self.total / self.count
        none = self.count == 0
        return np.stack([mean, np.where(none, np.nan, self.low), np.where(none, np.nan, self.high)])


class Sums:
    """What is summed up over members, by variant and group of sites."""

    def __init__(self, study: Resilience, scenario: Scenario, variants: dict[str, tuple[str, ...]]) -> None:
        self.study, self.scenario, self.variants = study, scenario, variants
        on_grid = {at: name for at, (name, site) in enumerate(scenario.sites.items()) if not site.off_grid}
        self.groups, self.numbers = (ALL_SITES, *on_grid.values()), tuple(on_grid)
        slots = round(scenario.time.duration / study.slot)
        self.slot_h, self.horizon_h = study.slot / 3600, study.horizon / 3600
        self.steps = round(np.ceil(self.horizon_h / self.slot_h - 1e-9))
        times = scenario.clock.timestamps(study.slot * np.arange(slots, dtype=np.float64))
        months = times.astype("datetime64[M]").astype(np.int64) % 12
        hours = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
        self.keys = {"month": months, "hour": np.floor(hours).astype(np.int64)}
        self.sizes = {"month": 12, "hour": 24}
        self.durations_h = np.array(study.durations) / 3600
        shape = (len(variants), len(self.groups))
        self.survived = np.zeros((*shape, self.steps + 1))
        self.together = np.zeros((len(variants), self.steps + 1))
        self.starts = np.zeros(shape)
        self.spread = {
            (v, g, key): _Spread(size)
            for v in range(shape[0]) for g in range(shape[1])
            for key, size in (*self.sizes.items(), ("", 1))
        }  # fmt: skip
        self.lasting = {
            key: np.zeros((*shape, size, len(self.durations_h))) for key, size in self.sizes.items()
        }
        self.by_site: list[dict[str, Any]] = []
        self.at_socket = np.zeros((len(AtSocket._fields), *shape))
        self.at_meter = np.zeros((len(AtMeter._fields), len(self.groups)))
        self.customers = np.zeros(len(self.groups))
        self.curve = np.zeros((len(study.reserves), len(SUMS)))
        self.curve_hours = np.zeros((len(study.reserves), 2))
        self.curve_lasting = np.zeros((len(study.reserves), len(self.durations_h)))
        self.has_stores = self.has_prices = False

    @property
    def interruptions(self) -> Callable[[World, SitesByPart], Interruptions] | None:
        """See :meth:`Resilience.interruptions`."""
        return self.study.interruptions(self.scenario)

    def merge(self, others: Sums) -> None:
        """Add the sums of other members, which come after these."""
        for name in ("survived", "together", "starts", "at_socket", "at_meter", "customers", "curve",
                     "curve_hours", "curve_lasting"):  # fmt: skip
            mine: Array = getattr(self, name)
            mine += getattr(others, name)
        for key, lasting in others.lasting.items():
            self.lasting[key] += lasting
        for place, spread in others.spread.items():
            self.spread[place].merge(spread)
        self.by_site += others.by_site
        self.has_stores |= others.has_stores
        self.has_prices = others.has_prices

    def add(self, member: int, world: World, parts: SitesByPart) -> None:
        """Add the sites of a member."""
        masks = [np.ones(len(parts.name), np.bool_), *(parts.group == number for number in self.numbers)]
        self.customers += [mask.sum() for mask in masks]
        self.has_prices = bool(np.isfinite(parts.price).all())
        own = self.interruptions(world, parts) if self.interruptions is not None else None
        by_variant = []
        for variant, sources in enumerate(self.variants.values()):
            survival, _ = self._survival(parts, sources)
            hours = survival(None, None)
            by_variant.append(hours)
            self._count(variant, hours, masks)
            if own is not None:
                for sums, of_site in zip(self.at_socket, own.at_socket(survival), strict=True):
                    sums[variant] += [of_site[mask].sum() for mask in masks]
        if own is not None:
            for sums, of_site in zip(self.at_meter, own.at_meter(), strict=True):
                sums += [of_site[mask].sum() for mask in masks]
        stack = np.stack(by_variant)
        self.by_site += [
            {
                "member": member, "name": name, "group": parts.group[site],
                "mean": stack[:, :, site].mean(axis=1, dtype=np.float64),
                "low": stack[:, :, site].min(axis=1), "high": stack[:, :, site].max(axis=1),
            }
            for site, name in enumerate(parts.name)
        ]  # fmt: skip
        if len(parts.store_site):
            self.has_stores = True
            self._add_curve(parts, own)

    def _survival(
        self, parts: SitesByPart, sources: tuple[str, ...], reserve: float | None = None
    ) -> tuple[Survival, Array]:
        """Hours survived with some of the sources, and the sums of normal times (site, SUMS)."""
        sites, grid = parts.having(sources, reserve)
        start_kwh, sums = energy_in_normal_times(sites, grid)
        if reserve is None:
            start_kwh = parts.start_kwh(sources, start_kwh)
        if self.study.rule == "reopt":
            sites = sites._replace(stays=with_round_trip_on_charging(sites.stays))

        @cache
        def from_all_slots() -> NDArray[np.float32]:
            return hours_of(None, self.horizon_h)

        def hours_of(starts: Array | None, horizon_h: float) -> NDArray[np.float32]:
            hours = survival_hours(
                sites, start_kwh, starts, horizon_h, self.study.rule, evs_stay=EV_STAYS in sources,
                generator_last=True,
            )  # fmt: skip
            return np.where(parts.backup, hours, np.float32(0.0))

        def survival(starts: Array | None, horizon_h: float | None) -> NDArray[np.float32]:
            if starts is None and horizon_h is None:
                return from_all_slots()
            return hours_of(starts, self.horizon_h if horizon_h is None else horizon_h)

        return survival, sums

    def _steps_of(self, hours: NDArray[np.float32]) -> NDArray[np.int64]:
        """Whole slots survived; the last of the horizon may be shorter."""
        whole = np.floor(hours / self.slot_h + 1e-5).astype(np.int64)
        steps: NDArray[np.int64] = np.where(
            hours >= self.horizon_h - 1e-5, self.steps, np.minimum(whole, self.steps)
        )
        return steps

    def _count(self, variant: int, hours: NDArray[np.float32], masks: list[NDArray[np.bool_]]) -> None:
        survived = self._steps_of(hours)
        self.together[variant] += _at_least(survived.min(axis=1), self.steps)
        for group, mask in enumerate(masks):
            if not mask.any():
                continue
            own = hours[:, mask]
            self.survived[variant, group] += _at_least(survived[:, mask].ravel(), self.steps)
            self.starts[variant, group] += own.size
            self.spread[variant, group, ""].add(np.zeros(len(own), np.int64), own)
            for key, of_start in self.keys.items():
                self.spread[variant, group, key].add(of_start, own)
                for number, duration_h in enumerate(self.durations_h):
                    lasting = (own >= duration_h - 1e-5).sum(axis=1)
                    self.lasting[key][variant, group, :, number] += np.bincount(
                        of_start, lasting, self.sizes[key]
                    )

    def _add_curve(self, parts: SitesByPart, own: Interruptions | None) -> None:
        """Normal times and outages at each reserve."""
        for row, reserve in enumerate(self.study.reserves):
            survival, sums = self._survival(parts, parts.there, reserve)
            hours = survival(None, None)
            self.curve[row] += sums.sum(axis=0)
            self.curve_hours[row, 0] += hours.mean(axis=0, dtype=np.float64).sum()
            self.curve_lasting[row] += [
                (hours >= duration_h - 1e-5).mean(axis=0).sum() for duration_h in self.durations_h
            ]
            if own is not None:
                self.curve_hours[row, 1] += own.at_socket(survival).critical_kwh.sum()

    def dataset(self) -> xr.Dataset:
        """The study's Dataset."""
        import xarray as xr

        steps_h = np.minimum(self.slot_h * np.arange(1, self.steps + 1), self.horizon_h)
        found: dict[str, tuple[tuple[str, ...], Any, str, str]] = {}
        both = ("variant", "group")

        def add(name: str, dims: tuple[str, ...], values: Any, text: str, unit: str) -> None:
            found[name] = (dims, values, text, unit)

        with np.errstate(invalid="ignore"):
            share = self.survived[..., 1:] / self.starts[..., np.newaxis]
        add("probability", (*both, "duration"), share,
            "share of starts, sites and members that serve the critical load so long", "1")  # fmt: skip
        together = self.together[:, 1:] / (len(self.keys["month"]) * len(self.scenario.members))
        add("probability_together", ("variant", "duration"), together,
            "share of starts and members for which all sites serve it for the duration", "1")  # fmt: skip
        for key, text in (("", ""), ("month", " by month of the start"), ("hour", " by hour of the start")):
            dims, end = (both, "") if not key else ((*both, key), f"_by_{key}")
            values = np.array(
                [
                    [self.spread[v, g, key].figures() for g in range(len(self.groups))]
                    for v in range(len(self.variants))
                ]
            )
            for number, (kind, word) in enumerate((("mean", "mean"), ("min", "least"), ("max", "most"))):
                of_key = values[:, :, number] if key else values[:, :, number, 0]
                add(f"hours_{kind}{end}", dims, of_key, f"{word} hours survived{text}", "h")
            if key:
                count = np.array(
                    [
                        [self.spread[v, g, key].count for g in range(len(self.groups))]
                        for v in range(len(self.variants))
                    ]
                )
                with np.errstate(invalid="ignore"):
                    lasting = self.lasting[key] / count[..., np.newaxis]
                add(f"probability_by_{key}", (*both, key, "lasting"), lasting,
                    f"share that serves the critical load for the duration{text}", "1")  # fmt: skip
        for kind, word in (("mean", "mean"), ("low", "least"), ("high", "most")):
            values = np.array([row[kind] for row in self.by_site]).reshape(-1, len(self.variants)).T
            name = {"low": "min", "high": "max"}.get(kind, kind)
            add(f"site_hours_{name}", ("variant", "site"), values, f"{word} hours survived by a site", "h")
        self._add_indices(add)
        if self.has_stores and self.study.reserves:
            self._add_reserves(add)
        names = list(self.scenario.sites)
        result = xr.Dataset(
            {name: (dims, values, {"long_name": text, "units": unit})
             for name, (dims, values, text, unit) in found.items()},
            {
                "variant": ("variant", list(self.variants), {"long_name": "what serves"}),
                "group": ("group", list(self.groups), {"long_name": "group of sites"}),
                "duration": ("duration", steps_h, {"long_name": "duration of the outage", "units": "h"}),
                "lasting": ("lasting", self.durations_h, {"long_name": "duration", "units": "h"}),
                "month": ("month", np.arange(1, 13), {"long_name": "month of the start", "units": "1"}),
                "hour": ("hour", np.arange(24), {"long_name": "hour of the start", "units": "h"}),
                "reserve": ("reserve", np.array(self.study.reserves),
                            {"long_name": "state of charge held in normal times", "units": "1"}),
                "site_name": ("site", [str(row["name"]) for row in self.by_site]),
                "site_member": ("site", [row["member"] for row in self.by_site]),
                "site_group": ("site", [names[row["group"]] for row in self.by_site]),
            },
        )  # fmt: skip
        return result.assign_attrs(
            format=FORMAT, kind=self.study.kind, name=self.study.name, study=self.study.model_dump_json(),
            sources=json.dumps(self.variants), horizon_h=self.horizon_h, rule=self.study.rule,
            currency=self.scenario.currency, start=str(self.scenario.start),
            period_h=self.scenario.time.duration / 3600, members=len(self.scenario.members),
            indices_per=self.per,
        )  # fmt: skip

    @property
    def per(self) -> str:
        """What the indices are of: a year, or the period."""
        return "period" if self.interruptions is replayed else "year"

    def _add_indices(self, add: Callable[..., None]) -> None:
        """Indices of reliability at the meter and at the socket, a customer and year or period."""
        if self.interruptions is None:
            return
        with np.errstate(invalid="ignore"):
            meter, socket = (
                AtMeter(*self.at_meter / self.customers),
                AtSocket(*self.at_socket / self.customers),
            )
        for where, dims, found, words in (
            ("meter", ("group",), meter, "at the meter"),
            ("socket", ("variant", "group"), socket, "of the critical load"),
        ):
            with np.errstate(invalid="ignore"):
                mean = np.where(found.number > 0, found.hours / found.number, np.nan)
            add(f"saifi_{where}", dims, found.number, f"SAIFI {words}", "1")
            add(f"saidi_{where}_h", dims, found.hours, f"SAIDI {words}", "h")
            add(f"caidi_{where}_h", dims, mean, f"CAIDI {words}", "h")
        per = f"a site and {self.per}"
        add("unserved_meter_kwh", ("group",), meter.load_kwh, f"load in interruptions, {per}", "kWh")
        add("unserved_critical_kwh", ("group",), meter.critical_kwh,
            f"critical load in interruptions, {per}", "kWh")  # fmt: skip
        text = f"critical load not served, {per}"
        add("unserved_socket_kwh", ("variant", "group"), socket.critical_kwh, text, "kWh")

    def _add_reserves(self, add: Callable[..., None]) -> None:
        """Costs of normal times and what they buy, at each reserve, a site and year."""
        sites = self.customers[0]
        per_year = _YEAR_H / (self.scenario.time.duration / 3600) / sites
        currency = self.scenario.currency or "currency"
        texts = ("energy drawn from the grid", "energy given to the grid", "energy from stores to the load")
        for number, (name, text) in enumerate(zip(SUMS, texts, strict=False)):
            add(f"reserve_{name}", ("reserve",), self.curve[:, number] * per_year,
                f"{text}, a site and year", "kWh")  # fmt: skip
        if self.has_prices:
            wear = self.study.wear_per_kwh * self.curve[:, SUMS.index("from_stores_kwh")]
            cost = (self.curve[:, SUMS.index("cost")] + wear) * per_year
            add("reserve_cost", ("reserve",), cost, "cost of normal times, a site and year", currency)
        add("reserve_hours_mean", ("reserve",), self.curve_hours[:, 0] / sites, "mean hours survived", "h")
        add("reserve_probability", ("reserve", "lasting"), self.curve_lasting / sites,
            "share that serves the critical load for the duration", "1")  # fmt: skip
        if self.interruptions is not None:
            kwh, text = self.curve_hours[:, 1] / sites, f"critical load not served, a site and {self.per}"
            add("reserve_unserved_kwh", ("reserve",), kwh, text, "kWh")


def _at_least(steps: NDArray[np.int64], most: int) -> Array:
    """Number of values that are at least 0, 1, … ``most``."""
    counts = np.bincount(steps, minlength=most + 1)
    return np.cumsum(counts[::-1])[::-1].astype(np.float64)
