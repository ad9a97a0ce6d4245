"""Resilience: how long sites serve their critical load in an outage that may start at any time.

In: a scenario with ``sites``; its period is what outages start in, such as a year. Out: a Dataset of hours
survived and of the probability of survival against duration, by month and hour of the start, by site, group
and for the street, with and without each of the sources; indices of reliability at the meter and at the
socket; what a reserve costs in normal times against what it buys.

Nothing is simulated over HELICS: loads, PV and sessions are those that a run of the scenario would have, and
:mod:`evgrid.sites.survival` follows an outage from every slot on. States of charge in normal times are by the
rule of :mod:`evgrid.sites.normal_times`: EVs charge as fast as they can on arrival, or with a control of the
site serve its load down to the reserve.

Durations of outages are exponential with the mean CAIDI, and outages start at any time with the same
probability: then an outage that outlives the r hours of a site cuts its critical load for CAIDI exp(-r/CAIDI)
hours in the mean. Once the critical load is not met it counts as unserved until supply returns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.results import open_results
from evgrid.runs.batch import Batch, Run, plan
from evgrid.scenario import Scenario, load_scenario
from evgrid.scenario.fields import Duration, ExistingFile, Share, fault
from evgrid.sites.normal_times import SUMS, energy_in_normal_times
from evgrid.sites.survival import survival_hours, with_round_trip_on_charging
from evgrid.studies.resilience_sites import EV_STAYS, ONE_EV, SitesByPart, recorded_kwh, sites_by_part
from evgrid.studies.study import Answer, BatchOptions, Option, Progress, Study

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "evgrid-resilience-1"
"""Written into each study's Dataset."""
EVERYTHING = "everything"
"""Variant with all sources that the sites have."""
ALL_SITES = "all"
"""Group of all sites."""

_YEAR_H = 8760.0

Part = Literal["ev", "one_ev", "ev_stays", "pv", "battery", "generator"]
Positive = Annotated[float, Field(gt=0)]


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
    wear_per_kwh: Annotated[float, Field(ge=0)] = 0.05
    """Cost of degradation in normal times, currency per kWh that stores give to the load."""
    saifi: Positive | None = None
    """Interruptions of a customer a year; left out: those of the scenario's outages, else no indices."""
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
            if "ev_soc" not in result and scenario.fleet is not None:
                found.append(f"result = {path}: has no states of charge: run with record.ev = true")
            if scenario.record_step_s != scenario.time.step or self.slot % scenario.time.step > 1e-6:
                text = f"its recording interval must be a tick, and divide slot = {self.slot:g}s"
                found.append(f"result = {path}: {text}")
            return found

    def interruptions(self, scenario: Scenario) -> tuple[float, float] | None:
        """Interruptions a year and their mean duration in h; None where neither study nor scenario says."""
        outages = getattr(scenario, "outages", None)
        for given in (self, outages):
            if given is not None and given.saifi is not None and given.caidi is not None:
                return float(given.saifi), float(given.caidi) / 3600
        return None

    def cases(self, there: tuple[str, ...], several_evs: bool = True) -> dict[str, tuple[str, ...]]:
        """What serves in each variant.

        there : the sources that sites have; several_evs : whether a site has more than one EV
        """
        if self.variants is not None:
            return {name: tuple(parts) for name, parts in self.variants.items()}
        names = {"ev": "EVs", "pv": "PV", "battery": "battery", "generator": "generator"}
        found: dict[str, tuple[str, ...]] = {EVERYTHING: there}
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

        with progress(self.name) as advance:
            result = run_study(self, advance)
        yield Answer(self.name, variants_table(result), partial(save_study, result, folder))


def run_study(study: Resilience, progress: Callable[[int, int, int], None] | None = None) -> xr.Dataset:
    """Follow an outage from every slot on, at every site, member and variant.

    Returns
    -------
    xarray.Dataset
        ``probability`` (variant, group, duration): share of starts, sites and members that serve their
        critical load for a duration; ``probability_together``: all sites of a member at once; ``hours_mean``,
        ``_min`` and ``_max``, also by month and hour of the start and by site; with saifi and caidi the
        indices; over ``reserve`` the curve.

    Raises
    ------
    ScenarioError
        If the scenario is at fault or has no sites on the grid.

    """
    from evgrid.runs.simulation import build_world

    base, sums = study.base(), None
    members = base.members
    for done, member in enumerate(members):
        one = {"ensemble.first": member, "ensemble.members": 1}
        scenario = load_scenario(study.scenario, {**study.overrides, **one})
        parts = sites_by_part(build_world(scenario), study.slot)
        if study.result is not None:
            with open_results(study.result) as recorded:
                parts = replace(parts, recorded_kwh=recorded_kwh(recorded, member, parts))
        if sums is None:
            groups = [name for name, site in base.sites.items() if not site.off_grid]
            numbers = [at for at, site in enumerate(base.sites.values()) if not site.off_grid]
            sums = Sums(
                study, base, tuple(groups), tuple(numbers), study.cases(parts.there, parts.several_evs)
            )
        sums.add(member, parts)
        if progress is not None:
            progress(done + 1, 0, len(members))
    assert sums is not None
    return sums.dataset()


def interruption_of(
    hours: NDArray[np.floating[Any]], caidi_h: float, slot_h: float, critical_kw: Array
) -> tuple[Array, Array]:
    """Probability that an interruption cuts the critical load, and its critical energy not served.

    hours : (start, site) hours survived from each slot on
    critical_kw : (site, slot)
    returns : (site,) means over the starts: probability, and kWh an interruption
    """
    slots = len(hours)
    cut = np.exp(-hours.astype(np.float64) / caidi_h)
    after = expected_kwh(critical_kw, slot_h, caidi_h)
    end = np.arange(slots)[:, np.newaxis] + hours.astype(np.float64) / slot_h
    slot = np.floor(end + 1e-6)
    left_h = (slot + 1 - end) * slot_h
    at, site = slot.astype(np.int64) % slots, np.arange(hours.shape[1])
    keep = np.exp(-left_h / caidi_h)
    until = critical_kw[site, at] * caidi_h * (1 - keep) + keep * after[site, (at + 1) % slots]
    return cut.mean(axis=0), (cut * until).mean(axis=0)


def expected_kwh(load_kw: Array, slot_h: float, caidi_h: float) -> Array:
    """Mean energy of a load from the begin of each slot until an outage ends, (site, slot) kWh.

    The duration is exponential with the mean ``caidi_h``; the period repeats.
    """
    keep = np.exp(-slot_h / caidi_h)
    slots = load_kw.shape[1]
    own, found = load_kw * caidi_h * (1 - keep), np.zeros_like(load_kw)
    rest = np.zeros(len(load_kw))
    for slot in range(slots - 1, -1, -1):
        rest = own[:, slot] + keep * rest
        found[:, slot] = rest
    first = found[:, 0] / (1 - keep**slots)
    return np.asarray(found + keep ** (slots - np.arange(slots)) * first[:, np.newaxis])


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

    def figures(self) -> Array:
        """Mean, least and greatest, (3, key); NaN for keys without a start."""
        with np.errstate(invalid="ignore"):
            mean = self.total / self.count
        none = self.count == 0
        return np.stack([mean, np.where(none, np.nan, self.low), np.where(none, np.nan, self.high)])


class Sums:
    """What is summed up over members, by variant and group of sites."""

    def __init__(
        self, study: Resilience, scenario: Scenario, groups: tuple[str, ...], numbers: tuple[int, ...],
        variants: dict[str, tuple[str, ...]],
    ) -> None:  # fmt: skip
        self.study, self.scenario, self.variants = study, scenario, variants
        self.groups, self.numbers = (ALL_SITES, *groups), numbers
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
        self.indices = np.zeros((*shape, 2))
        self.at_meter = np.zeros((len(self.groups), 2))
        self.customers = np.zeros(len(self.groups))
        self.interruptions = study.interruptions(scenario)
        self.curve = np.zeros((len(study.reserves), len(SUMS)))
        self.curve_hours = np.zeros((len(study.reserves), 2))
        self.curve_lasting = np.zeros((len(study.reserves), len(self.durations_h)))
        self.has_stores = self.has_prices = False

    def add(self, member: int, parts: SitesByPart) -> None:
        """Add the sites of a member."""
        masks = [np.ones(len(parts.name), np.bool_), *(parts.group == number for number in self.numbers)]
        self.customers += [mask.sum() for mask in masks]
        self.has_prices = bool(np.isfinite(parts.price).all())
        by_variant = []
        for variant, sources in enumerate(self.variants.values()):
            hours, _ = self._hours(parts, sources)
            by_variant.append(hours)
            self._count(variant, hours, masks)
            if self.interruptions is not None:
                caidi_h = self.interruptions[1]
                cut, kwh = interruption_of(hours, caidi_h, self.slot_h, parts.critical_kw)
                for group, mask in enumerate(masks):
                    self.indices[variant, group] += cut[mask].sum(), kwh[mask].sum()
        if self.interruptions is not None:
            load, critical = (
                expected_kwh(power, self.slot_h, self.interruptions[1]).mean(axis=1)
                for power in (parts.load_kw, parts.critical_kw)
            )
            for group, mask in enumerate(masks):
                self.at_meter[group] += load[mask].sum(), critical[mask].sum()
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
            self._add_curve(parts)

    def _hours(
        self, parts: SitesByPart, sources: tuple[str, ...], reserve: float | None = None
    ) -> tuple[NDArray[np.float32], Array]:
        """Hours survived (start, site), and the sums of normal times (site, SUMS)."""
        sites, grid = parts.having(sources, reserve)
        start_kwh, sums = energy_in_normal_times(sites, grid)
        if reserve is None:
            start_kwh = parts.start_kwh(sources, start_kwh)
        if self.study.rule == "reopt":
            sites = sites._replace(stays=with_round_trip_on_charging(sites.stays))
        hours = survival_hours(
            sites,
            start_kwh,
            None,
            self.horizon_h,
            self.study.rule,
            evs_stay=EV_STAYS in sources,
            generator_last=True,
        )
        return np.where(parts.backup, hours, np.float32(0.0)), sums

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

    def _add_curve(self, parts: SitesByPart) -> None:
        """Normal times and outages at each reserve."""
        for row, reserve in enumerate(self.study.reserves):
            hours, sums = self._hours(parts, parts.there, reserve)
            self.curve[row] += sums.sum(axis=0)
            self.curve_hours[row, 0] += hours.mean(axis=0, dtype=np.float64).sum()
            self.curve_lasting[row] += [
                (hours >= duration_h - 1e-5).mean(axis=0).sum() for duration_h in self.durations_h
            ]
            if self.interruptions is not None:
                kwh = interruption_of(hours, self.interruptions[1], self.slot_h, parts.critical_kw)[1]
                self.curve_hours[row, 1] += kwh.sum()

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
        )  # fmt: skip

    def _add_indices(self, add: Callable[..., None]) -> None:
        """Indices of reliability at the meter and at the socket, a customer and year."""
        if self.interruptions is None:
            return
        saifi, caidi_h = self.interruptions
        with np.errstate(invalid="ignore"):
            cut, kwh = np.moveaxis(self.indices / self.customers[:, np.newaxis], -1, 0)
            load, critical = (self.at_meter / self.customers[:, np.newaxis]).T
        whole = np.ones(len(self.groups))
        for where, dims, times, words in (
            ("meter", ("group",), saifi * whole, "at the meter"),
            ("socket", ("variant", "group"), saifi * cut, "of the critical load"),
        ):
            add(f"saifi_{where}", dims, times, f"SAIFI {words}", "1")
            add(f"saidi_{where}_h", dims, times * caidi_h, f"SAIDI {words}", "h")
            mean = np.where(times > 0, caidi_h, np.nan)
            add(f"caidi_{where}_h", dims, mean, f"CAIDI {words}", "h")
        per = "a site and year"
        add("unserved_meter_kwh", ("group",), saifi * load, f"load in interruptions, {per}", "kWh")
        add("unserved_critical_kwh", ("group",), saifi * critical,
            f"critical load in interruptions, {per}", "kWh")  # fmt: skip
        text = f"critical load not served, {per}"
        add("unserved_socket_kwh", ("variant", "group"), saifi * kwh, text, "kWh")

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
            kwh = self.interruptions[0] * self.curve_hours[:, 1] / sites
            add("reserve_unserved_kwh", ("reserve",), kwh, "critical load not served, a site and year", "kWh")


def _at_least(steps: NDArray[np.int64], most: int) -> Array:
    """Number of values that are at least 0, 1, … ``most``."""
    counts = np.bincount(steps, minlength=most + 1)
    return np.cumsum(counts[::-1])[::-1].astype(np.float64)
