"""Study: the earnings of a fleet with regulation, the costs for drivers, batteries and feeder, and the effect
on the frequency after a loss of generation.

In: a scenario with a fleet and a regulation signal (``system.regulation``). It has two comparisons:

**The market day** (:class:`FrequencyRegulation`): the scenario without EVs, uncontrolled, and regulating,
by charging only (V1G) and with discharging (V2G), at ideal communication and over a link that loses
5 % of the set-points and delays them by 4 s; and, with ``limit_kw``, V2G within a limit of the
transformers. Energy, cost, degradation and unserved energy count sessions that end within the run,
which are the same in all variants. A violation is *new* if the same element, phase and criterion is
not violated in the same member without EVs, or uncontrolled.

**The loss** (:class:`GenerationLoss`): the same EVs around the moment at which a control area loses
generation, at a tick of 0.1 s: at their operating point without response, each charger by itself on
the frequency that it sees (droop, at the response time of IEEE 1547 and at the fastest it allows), and
dispatched by the aggregator (strategy ``reserve``) on the same droop of its offered capacity. The fleet
is scaled to a stated share of the area.

Left out: the bulk system's own reserves beside the governor, other signals, and payments other than
capability and performance.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from evgrid.aggregator.strategies.regulation import OfferSettings
from evgrid.errors import ScenarioError
from evgrid.results.limits import limit_set
from evgrid.results.plots import time_axis
from evgrid.scenario import Scenario, load_scenario
from evgrid.scenario.fields import Duration, LocalTime, Positive, Settings, fault
from evgrid.scenario.system import NoRegulation
from evgrid.studies.comparison import Comparison
from evgrid.studies.figures import (
    currency_of,
    figure,
    new_hours,
    over_sessions,
    violation_hours,
    worst_of_feeder,
)
from evgrid.studies.limit_check import Limits

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_EVS, UNCONTROLLED, NO_RESPONSE = "no_evs", "uncontrolled", "no_response"
"""Reference variants for the others, where they exist."""
WEAK_LINK = {"communication.loss": 0.05, "communication.delay": "4s"}
SERVED = 0.99
"""Share of the wanted energy above which a driver counts as served."""
RESPONSES_S = {"local_5s": 5.0, "local_200ms": 0.2}
"""Open-loop response times of the chargers' droop: the default of IEEE 1547-2018 and its least."""

_ORDER = (
    "offered_kw", "offered_least_kw", "held_percent", "held_least_percent", "score", "score_least",
    "moved_kwh", "drawn_kwh", "returned_kwh", "loss_kwh", "missed_sessions", "missed_kwh", "credit",
    "energy_cost", "degradation_cost", "gain", "violations", f"new_violations_{NO_EVS}",
    f"new_violations_{NO_EVS}_h", f"new_violations_{UNCONTROLLED}", f"new_violations_{UNCONTROLLED}_h",
)  # fmt: skip
"""Order of the figures, from the service to its cost; the others follow."""
_HOURLY = ("regulation_capacity_kw", "regulation_held_kw", "regulation_score", "regulation_credit")


class Loss(Settings):
    """A loss of generation in a control area, and the response of the fleets."""

    at: LocalTime | None = None
    """Local time at which it happens; left out: 6 h after the scenario's start, or halfway if that is
    sooner."""
    pu: Positive = 0.1
    """Generation lost, per unit of the area's base power."""
    chargers_pu: Positive = 0.1
    """Rated power of the chargers of all fleets that respond, per unit of the area's base power."""
    area: dict[str, Any] = {"agc_gain": 7}
    """Settings of the area (those of system.frequency with source lfc)."""
    deadband_hz: Annotated[float, Field(ge=0)] = 0.036
    """Deviation up to which there is no response."""
    full_hz: Positive = 0.5
    """Deviation at which the response is full: of the offered capacity, or of the charger's rating."""
    lead: Annotated[Duration, Field(gt=0)] = 120.0
    """Simulated time before the loss, in which the fleet reports and settles."""
    watch: Annotated[Duration, Field(gt=0)] = 20.0
    """Simulated time after it."""
    step: Annotated[Duration, Field(gt=0)] = 0.1
    """Tick."""
    variants: dict[str, dict[str, Any]] | None = None
    """Variants by name, each overrides; left out: no response, local, dispatched and more."""

    @model_validator(mode="after")
    def _rises(self) -> Loss:
        if self.full_hz <= self.deadband_hz:
            raise fault(f"full_hz = {self.full_hz:g}: must be above deadband_hz = {self.deadband_hz:g}")
        return self

    def moment(self, scenario: Scenario) -> np.datetime64:
        """Time of the loss."""
        if self.at is not None:
            return np.datetime64(self.at)
        return scenario.start + np.timedelta64(round(min(6 * 3600.0, scenario.time.duration / 2)), "s")

    def overrides(self, scenario: Scenario, fleet_kw: float) -> dict[str, Any]:
        """Overrides of the scenario around the loss; ``fleet_kw``: rated power of one fleet's chargers."""
        lead = timedelta(seconds=self.lead)
        lost = {"time": self.lead, "pu": self.pu}
        base_mw = float(self.area.get("base_mw", 1000.0))
        return {
            "time.start": (self.moment(scenario).astype("datetime64[us]").item() - lead).isoformat(),
            "time.duration": self.lead + self.watch,
            "time.step": self.step,
            "feeder.step": None,
            "record.step": None,
            "communication.telemetry": "10s",
            "tariff": None,
            "fleet.vehicle.degradation": None,
            "system.regulation": {"source": "none"},
            "system.frequency": {
                "fleet": {"stands_for": self.chargers_pu * base_mw * 1000.0 / fleet_kw},
                **self.area, "source": "lfc", "disturbances": [lost],
            },
        }  # fmt: skip


class FrequencyRegulation(Comparison):
    """A day of regulation, and a loss of generation."""

    kind: ClassVar[str] = "frequency-regulation"
    question: ClassVar[str] = (
        "The earnings of the fleet of SCENARIO with regulation, the costs for drivers, batteries and feeder, "
        "and the effect on the frequency after a loss of generation."
    )

    limits: Limits = ("en_50160", "ratings")
    """Limits of the feeder by the names of their presets, or own criteria."""
    limit_kw: Positive | None = None
    """Most that each transformer draws or feeds back in a further variant, v2g_limited, kW; left out: no
    such variant."""
    loss: Loss | None = Loss()
    """The loss of generation; null: none is run."""

    def usual_variants(self, scenario: Scenario) -> dict[str, dict[str, Any]]:
        """See :meth:`Comparison.usual_variants`."""
        _needs(scenario, self.name)
        name, regulating = _regulating(scenario)
        ageing: dict[str, Any] = {
            "fleet.vehicle.degradation": {}
        }  # included, with the scenario's settings if it has some
        v1g, v2g = ({**ageing, f"aggregators.{name}": {**regulating, "discharge": d}} for d in (False, True))
        limited = {}
        if self.limit_kw is not None:
            within = {**regulating, "group": "transformer", "limit_kw": self.limit_kw}
            limited = {"v2g_limited": {**ageing, f"aggregators.{name}": within}}
        return {
            NO_EVS: {"fleet": None, f"aggregators.{name}": None},
            UNCONTROLLED: {**ageing, f"aggregators.{name}": {"strategy": "uncontrolled"}},
            "v1g": v1g,
            "v2g": v2g,
            **limited,
            "v1g_weak_link": {**v1g, **WEAK_LINK},
            "v2g_weak_link": {**v2g, **WEAK_LINK},
        }

    def parts(self) -> dict[str, Comparison]:
        """See :meth:`Comparison.parts`: the day, and the loss."""
        parts: dict[str, Comparison] = {"": self}
        if self.loss is not None:
            scenario = load_scenario(self.scenario, self.overrides)
            _needs(scenario, self.name)
            parts["loss"] = GenerationLoss(
                name=f"{self.name}-loss", scenario=self.scenario, members=self.members, loss=self.loss,
                variants=self.loss.variants,
                overrides={**self.overrides, **self.loss.overrides(scenario, rated_kw(scenario))},
            )  # fmt: skip
        return parts

    def figures(self, result: xr.Dataset) -> xr.Dataset:
        """See :meth:`Comparison.figures`."""
        import xarray as xr

        found: dict[str, xr.DataArray] = {}
        if "regulation_score" in result:
            found |= _regulation_figures(result) | {name: result[name] for name in _HOURLY}
        if "fleet_power_kw" in result:
            found |= _session_figures(result)
        hours = violation_hours(result, limit_set(*self.limits))
        places = (hours > 0).sum("place").astype(float)
        found["violations"] = figure(places, "elements and phases that violate a limit", "1")
        found["violation_h"] = hours
        return xr.Dataset(found | worst_of_feeder(result))

    def between(self, study: xr.Dataset) -> xr.Dataset:
        """See :meth:`Comparison.between`."""
        new = {}
        for reference, text in ((NO_EVS, "without EVs"), (UNCONTROLLED, "uncontrolled")):
            if reference in study["variant"]:
                hours = new_hours(study["violation_h"], reference)
                count, longest = (hours > 0).sum("place").astype(float), _longest(hours)
                new[f"new_violations_{reference}"] = figure(count, f"of them not {text}", "1")
                new[f"new_violations_{reference}_h"] = figure(longest, f"longest time of one not {text}", "h")
        if UNCONTROLLED in study["variant"] and "degradation_cost" in study:
            cost = study["energy_cost"] + study["degradation_cost"] - study["credit"].fillna(0.0)
            saved = cost.sel(variant=UNCONTROLLED, drop=True) - cost
            text = "gain on uncontrolled: credit less extra energy and degradation"
            new["gain"] = figure(saved, text, study["energy_cost"].attrs.get("units", "currency"))
        study = study.assign(new)
        first = [name for name in (*_ORDER, *study.data_vars) if name in study]
        return study[list(dict.fromkeys(first))]

    def draw(self, study: xr.Dataset) -> Figure:
        """Capacity and score by hour; money, energy, drivers and feeder by variant."""
        from matplotlib.figure import Figure

        picture = Figure(figsize=(14, 7.6), layout="constrained")
        axes = picture.subplots(2, 3)
        plot_capacity(study, axes[0, 0])
        plot_score(study, axes[0, 1])
        plot_money(study, axes[0, 2])
        plot_energy(study, axes[1, 0])
        plot_unserved(study, axes[1, 1])
        plot_feeder(study, axes[1, 2])
        return picture


class GenerationLoss(Comparison):
    """The frequency after a loss of generation, by the response of the fleet."""

    kind = "generation-loss"

    loss: Loss
    """The loss."""

    def usual_variants(self, scenario: Scenario) -> dict[str, dict[str, Any]]:
        """See :meth:`Comparison.usual_variants`."""
        loss = self.loss
        name, settings = _regulating(scenario)
        assert scenario.system is not None
        hertz = scenario.system.nominal_hz
        product = {
            "name": "droop", "title": "Droop of the study", "driver": "frequency", "nominal_hz": hertz,
            "curve": [[loss.deadband_hz, 0.0], [loss.full_hz, 1.0]], "deadband_hz": loss.deadband_hz,
        }  # fmt: skip
        kept = {key: value for key, value in settings.items() if key in OfferSettings.model_fields}
        reserve = {**kept, "strategy": "reserve", "product": product}
        # the same operating point, and no signal to follow
        still = {f"aggregators.{name}": settings}
        droop = (loss.full_hz - loss.deadband_hz) / hertz
        local = {
            variant: {
                **still,
                "fleet.charger.functions": {
                    "nominal_hz": round(hertz),
                    "frequency_watt": {
                        "deadband_hz": loss.deadband_hz, "droop_under": droop, "droop_over": droop,
                        "response_s": response_s,
                    },
                },
            }
            for variant, response_s in RESPONSES_S.items()
        }  # fmt: skip
        v1g, v2g = ({f"aggregators.{name}": {**reserve, "discharge": d}} for d in (False, True))
        return {
            NO_RESPONSE: still, **local, "dispatched_v1g": v1g, "dispatched": v2g,
            "dispatched_weak_link": {**v2g, **WEAK_LINK},
        }  # fmt: skip

    def figures(self, result: xr.Dataset) -> xr.Dataset:
        """See :meth:`Comparison.figures`; traces are over ``after_s``, s from the loss."""
        import xarray as xr

        system = json.loads(result.attrs["scenario"])["system"]
        seconds = (result["time"].values - result["time"].values[0]) / np.timedelta64(1, "ns") / 1e9
        after_s = np.round(seconds - self.loss.lead, 6)
        frequency = result["frequency_hz"].rename(time="after_s").assign_coords(after_s=after_s)
        hit = frequency.where(frequency["after_s"] >= 0, drop=True)
        below = 1000 * (system["nominal_hz"] - hit)
        found = {
            "drop_mhz": figure(below.max("after_s"), "deepest drop of the frequency", "mHz"),
            "drop_s": figure(hit.idxmin("after_s"), "time from the loss to it", "s"),
            "end_mhz": figure(below.isel(after_s=-1), "frequency below nominal at the end", "mHz"),
        }
        if "area_fleet_mw" in result:
            drawn = result["area_fleet_mw"].rename(time="after_s").assign_coords(after_s=after_s)
            before = drawn.where(drawn["after_s"] < 0, drop=True).isel(after_s=-1, drop=True)
            given = (before - drawn).assign_attrs(long_name="power given by the fleets", units="MW")
            at_nadir = given.sel(after_s=hit.idxmin("after_s"))
            since = given.where(given["after_s"] >= 0, drop=True)
            found["given_at_nadir_mw"] = figure(at_nadir, "power given by the fleets at the nadir", "MW")
            found["given_mw"] = figure(since.max("after_s"), "most power given by the fleets", "MW")
            found["given"] = given
        # without a signal capacity is offered, too, but there is no response
        if "reserve_capacity_kw" in result:
            before_s = int(np.searchsorted(after_s, 0.0)) - 1
            one = result["capacity_offered_kw"].isel(time=before_s)
            offered = one * system["frequency"]["fleet"]["stands_for"] / 1000
            found["offered_mw"] = figure(offered, "capacity offered by the fleets", "MW")
        return xr.Dataset(found | {"frequency_hz": frequency})

    def between(self, study: xr.Dataset) -> xr.Dataset:
        """See :meth:`Comparison.between`."""
        if NO_RESPONSE not in study["variant"]:
            return study
        lifted = study["drop_mhz"].sel(variant=NO_RESPONSE, drop=True) - study["drop_mhz"]
        return study.assign(lifted_mhz=figure(lifted, "nadir raised by the response", "mHz"))

    def draw(self, study: xr.Dataset) -> Figure:
        """Frequency and power of the fleets, around the loss."""
        from matplotlib.figure import Figure

        picture = Figure(figsize=(12, 4.8), layout="constrained")
        left, right = picture.subplots(1, 2)
        plot_trace(study, "frequency_hz", left).set(ylabel="frequency (Hz)", title="Frequency")
        if "given" in study:
            title = "Power that the fleets draw less, or give"
            plot_trace(study, "given", right).set(ylabel="power given by the fleets (MW)", title=title)
        return picture


def rated_kw(scenario: Scenario) -> float:
    """Rated power of the chargers of a member's EVs, mean over the members, kW.

    Raises NetworkError or ScenarioError.
    """
    from evgrid.runs.simulation import build_world

    world = build_world(scenario)
    most = np.zeros(len(world.evs))
    np.maximum.at(most, world.sessions.ev, world.sessions.charge_kw)
    if not most.sum() > 0:
        raise ScenarioError(["fleet: has no sessions, so that nothing can respond"], scenario.name)
    return float(most.sum() / len(scenario.members))


def _needs(scenario: Scenario, name: str) -> None:
    """Refuse a scenario that has no fleet or no regulation signal."""
    found = []
    if scenario.fleet is None:
        found.append("fleet: is required: a study of frequency regulation is one of EVs")
    if scenario.system is None or isinstance(scenario.system.regulation, NoRegulation):
        found.append(
            "system.regulation: is required: say where the signal comes from, such as "
            "system: {regulation: {source: synthetic, kind: regd}}"
        )
    if found:
        raise ScenarioError(found, f"study {name}, scenario {scenario.name}")


def _regulating(scenario: Scenario) -> tuple[str, dict[str, Any]]:
    """Name and settings of the aggregator that regulates: the scenario's, or a default one."""
    for name, settings in scenario.aggregators.items():
        if settings.strategy == "regulation":
            return name, settings.model_dump(exclude_unset=True)
    name = next(iter(scenario.aggregators), "main")
    return name, {"strategy": "regulation", "group": "feeder", "smoothing": "15min"}


def _regulation_figures(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Capacity offered and held, score and credit, over the hours with an offer."""
    capacity = result["regulation_capacity_kw"]
    offered = capacity.where(capacity > 0)
    held, score = result["regulation_held_kw"], result["regulation_score"]
    known = offered.where(held.notnull())
    moved = result["regulation_up_kwh"] + result["regulation_down_kwh"]
    return {
        "offered_kw": figure(offered.mean("hour"), "capacity offered, mean of the hours", "kW"),
        "offered_least_kw": figure(offered.min("hour"), "capacity offered, least hour", "kW"),
        "held_percent": figure(100 * held.sum("hour") / known.sum("hour"), "of it held", "%"),
        "held_least_percent": figure(100 * (held / known).min("hour"), "of it held, least hour", "%"),
        "score": figure(score.mean("hour"), "performance score, mean", "1"),
        "score_least": figure(score.min("hour"), "performance score, least hour", "1"),
        "moved_kwh": figure(moved.sum("hour"), "energy moved up and down about the operating point", "kWh"),
        "credit": figure(result["regulation_credit"].sum("hour"), "regulation credit", currency_of(result)),
    }


def _session_figures(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Energy, cost, degradation and unserved energy, of the sessions that end within the run."""
    asked = result["session_energy_requested_kwh"].values
    avoidable = np.round(result["session_energy_unserved_avoidable_kwh"].values, 6)
    missed = (np.nan_to_num(avoidable) > (1 - SERVED) * asked + 1e-9).astype(float)
    wear = np.full(len(asked), np.nan)
    if "session_degradation_cost" in result:
        wear = result["session_degradation_cost"].values
    return {
        name: over_sessions(result, values, text, unit)
        for name, values, text, unit in (
            ("drawn_kwh", result["session_energy_delivered_kwh"].values, "energy drawn", "kWh"),
            ("returned_kwh", result["session_energy_discharged_kwh"].values, "energy given back", "kWh"),
            ("loss_kwh", result["session_loss_kwh"].values, "conversion loss", "kWh"),
            ("missed_sessions", missed, "sessions under 99 % that could have been served", "1"),
            ("missed_kwh", avoidable, "energy missed that could have been served", "kWh"),
            ("energy_cost", result["session_cost"].values, "cost of energy", currency_of(result)),
            ("degradation_cost", wear, "degradation while plugged in", currency_of(result)),
        )
    }


def plot_capacity(study: xr.Dataset, ax: Axes) -> Axes:
    """Capacity offered (line) and held (dots) by hour, median of the members, a colour a variant."""
    for at, style in _regulating_variants(study):
        edges = np.append(at["hour"].values, at["hour"].values[-1:] + np.timedelta64(1, "h"))
        ax.stairs(at["regulation_capacity_kw"].values / 1000, edges, baseline=None, label=_name(at), **style)
        middle = at["hour"] + np.timedelta64(30, "m")
        ax.plot(middle, at["regulation_held_kw"] / 1000, ".", color=style["color"])
    ax.set(ylabel="capacity offered (line) and held (dots) (MW)", title="Capacity by hour")
    return _by_hour(study, ax)


def plot_score(study: xr.Dataset, ax: Axes) -> Axes:
    """Performance score by hour, median of the members, a line a variant."""
    for at, style in _regulating_variants(study):
        middle = at["hour"] + np.timedelta64(30, "m")
        ax.plot(middle, at["regulation_score"], marker=".", label=_name(at), **style)
    ax.set(ylabel="performance score", title="Score by hour")
    return _by_hour(study, ax)


def plot_money(study: xr.Dataset, ax: Axes) -> Axes:
    """Credit, extra cost of energy and of degradation against uncontrolled, and the sum."""
    parts = {"regulation credit": study["credit"]} if "credit" in study else {}
    if UNCONTROLLED in study["variant"]:
        for name, text in (("energy_cost", "energy"), ("degradation_cost", "degradation")):
            if name in study:
                parts[f"{text} saved"] = study[name].sel(variant=UNCONTROLLED, drop=True) - study[name]
        if "gain" in study:
            parts["gain"] = study["gain"]
    _bars(study, parts, ax).set(
        ylabel=study["energy_cost"].attrs.get("units", "currency"), title="Money against uncontrolled"
    )
    return ax


def plot_energy(study: xr.Dataset, ax: Axes) -> Axes:
    """Energy drawn, given back and lost in conversion, of complete sessions."""
    names = {"drawn_kwh": "drawn", "returned_kwh": "given back", "loss_kwh": "lost"}
    parts = {text: study[name] / 1000 for name, text in names.items() if name in study}
    _bars(study, parts, ax).set(ylabel="energy (MWh)", title="Energy of the EVs")
    return ax


def plot_unserved(study: xr.Dataset, ax: Axes) -> Axes:
    """Sessions left under 99 % of the wanted energy that could have been served."""
    parts = {"sessions": study["missed_sessions"]} if "missed_sessions" in study else {}
    _bars(study, parts, ax, numbers=True).set(
        ylabel="sessions under 99 % of the wanted energy", title="Drivers unserved who could have been"
    )
    return ax


def plot_feeder(study: xr.Dataset, ax: Axes) -> Axes:
    """Elements and phases that violate a limit, and those that do not without EVs or uncontrolled."""
    names = {"violations": "all", f"new_violations_{NO_EVS}": "not without EVs",
             f"new_violations_{UNCONTROLLED}": "not uncontrolled"}  # fmt: skip
    parts = {text: study[name] for name, text in names.items() if name in study}
    _bars(study, parts, ax, numbers=True).set(ylabel="elements and phases", title="Violations of the feeder")
    return ax


def plot_trace(study: xr.Dataset, name: str, ax: Axes) -> Axes:
    """A quantity around the loss, median of the members, a line a variant."""
    watched = study.sel(after_s=slice(-2.0, None))
    for number, variant in enumerate(watched["variant"].values):
        style: dict[str, Any] = {"color": f"C{number - 1}"}
        if variant == NO_RESPONSE:
            style = {"color": "black", "linestyle": ":", "zorder": 3}
        values = watched[name].sel(variant=variant).median("member")
        ax.plot(watched["after_s"], values, label=str(variant).replace("_", " "), **style)
    ax.axvline(0.0, color="black", linewidth=0.6)
    ax.set_xlabel("time from the loss (s)")
    ax.legend(frameon=False, fontsize="small")
    return ax


_DASHES = ("-", "--", "-.", ":")


def _regulating_variants(study: xr.Dataset) -> list[tuple[xr.Dataset, dict[str, Any]]]:
    """Medians over the members of the variants with an offer, each with its style."""
    found = list[tuple["xr.Dataset", dict[str, Any]]]()
    if "regulation_capacity_kw" not in study:
        return found
    for number, variant in enumerate(study["variant"].values):
        at = study[list(_HOURLY)].sel(variant=variant)
        if bool((at["regulation_capacity_kw"] > 0).any()):
            style = {"color": f"C{number}", "linestyle": _DASHES[(len(found) // 2) % 4]}
            found.append((at.median("member"), style))
    return found


def _longest(hours: xr.DataArray) -> xr.DataArray:
    return hours.reduce(np.max, "place", initial=0.0)


def _name(at: xr.Dataset) -> str:
    return str(at["variant"].values).replace("_", " ")


def _bars(study: xr.Dataset, parts: dict[str, xr.DataArray], ax: Axes, numbers: bool = False) -> Axes:
    """Groups of bars by variant, medians of the members; variants without values are left out."""
    medians = {text: values.median("member").values for text, values in parts.items()}
    known = np.array(
        [bool(np.isfinite([m[k] for m in medians.values()]).any()) for k in range(study.sizes["variant"])]
    )
    at = np.arange(known.sum())
    width = 0.8 / max(len(medians), 1)
    for k, (text, values) in enumerate(medians.items()):
        bars = ax.bar(at + width * (k - (len(medians) - 1) / 2), values[known], width, label=text)
        if numbers:
            ax.bar_label(bars, fmt="%g", fontsize="small")
    labels = [str(name).replace("_", "\n") for name in study["variant"].values[known]]
    ax.set_xticks(at, labels, fontsize="small")
    ax.axhline(0.0, color="black", linewidth=0.6)
    values = np.nan_to_num(np.array(list(medians.values())))
    low, high = min(1.1 * values.min(initial=0.0), 0.0), values.max(initial=0.0) or 1.0
    ax.set_ylim(low, high + 0.25 * (high - low))
    if len(medians) > 1:
        ax.legend(frameon=False, fontsize="small", ncols=2 if len(medians) > 3 else 3, loc="upper left")
    return ax


def _by_hour(study: xr.Dataset, ax: Axes) -> Axes:
    if "hour" in study.dims:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.2 * (high - low))
        ax.legend(frameon=False, fontsize="small", ncols=2, loc="upper left")
        time_axis(ax, study["hour"] + np.array([0] * (study.sizes["hour"] - 1) + [1], "timedelta64[h]"))
    return ax
