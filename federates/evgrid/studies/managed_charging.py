"""Managed charging: comparison of costs, emissions and peaks of ways of charging.

In: a scenario with a tariff or ``system.energy_price``. Out: for each way of charging and each member, the
cost and CO2 of the sessions that end within the run, the fleet's and the feeder's highest
power, and the unserved energy; a table, and a picture. The usual variants, where the scenario has
the data they need:

===================  =========================================================================
uncontrolled         every EV charges as fast as it can
tou                  at the cheapest times
emissions            in the hours of the lowest ``system.emissions``
demand response      keeps out of ``system.events``, otherwise by the prices
arbitrage (V2G)      gives back in expensive hours down to 15 kWh below the target, at the cost of wear
scheduled (V2G)      at the least cost, as deep as the battery allows; V1G where no EV can discharge
scheduled in limit   the same with each group under ``limit_kw``
oracle               the least cost with every session known ahead, a lower bound
===================  =========================================================================

The oracle is no run: it is a bound of the cost only (:mod:`evgrid.studies.oracle`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from evgrid.errors import ScenarioError
from evgrid.results.limits import interval_s
from evgrid.results.settlement import settle
from evgrid.scenario import Scenario, load_scenario
from evgrid.studies.comparison import Comparison
from evgrid.studies.figures import currency_of, figure, over_sessions

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNCONTROLLED = "uncontrolled"
"""Reference variant of savings."""
ORACLE = "oracle"
"""The bound's name among the variants."""


class ManagedCharging(Comparison):
    """Comparison of costs, emissions and peaks of ways of charging."""

    kind: ClassVar[str] = "managed-charging"
    question: ClassVar[str] = "Costs, emissions and peaks of ways of charging, compared with the least cost."

    wear_per_kwh: Annotated[float, Field(ge=0)] = 0.05
    """Cost of degradation, currency per kWh given back, in V2G's plans and in the key figures."""
    limit_kw: Annotated[float, Field(gt=0)] | None = None
    """Limit of each group in the variant scheduled in limit, kW, EVs and everything else together.
    Left out: the limit_kw of the scenario's aggregator; where it has none, there is no such variant."""
    event_kw: float = 0.0
    """Power that each group's EVs may draw together in an event, kW; negative: they are to discharge."""
    oracle: bool = True
    """Whether the bound is computed."""

    def usual_variants(self, scenario: Scenario) -> dict[str, dict[str, Any]]:
        """See :meth:`Comparison.usual_variants`."""
        fleet, system = scenario.fleet, scenario.system
        if fleet is None:
            raise ScenarioError([f"{self.kind} needs EVs: the scenario has no fleet"], self.name)
        if not scenario.has_prices:
            why = "needs a tariff or system.energy_price: the scenario has neither"
            raise ScenarioError([f"{self.kind} {why}"], self.name)
        main = next(iter(scenario.aggregators), "main")
        no_aggregators: dict[str, Any] = {f"aggregators.{name}": None for name in scenario.aggregators}

        own = next(iter(scenario.aggregators.values()), None)
        group = own.group if own is not None else "transformer"

        def by(strategy: str, **settings: Any) -> dict[str, Any]:
            return no_aggregators | {f"aggregators.{main}": {"strategy": strategy, **settings}}

        found = {UNCONTROLLED: no_aggregators, "tou": by("tou")}
        signals = frozenset[str]() if scenario.signals is None else scenario.signals.kinds
        if "emissions" in signals or (system is not None and system.emissions is not None):
            found["emissions"] = by("emissions")
        if "level" in signals or (system is not None and system.events):
            found["demand response"] = by("demand_response", target_kw=self.event_kw, group=group)
        both_ways = " (V2G)" if _may_discharge(scenario) else ""
        wear = {"wear_per_kwh": self.wear_per_kwh}
        if both_ways:
            found["arbitrage (V2G)"] = by("arbitrage", **wear)
        found[f"scheduled{both_ways}"] = by("scheduled", **wear)
        limit_kw = self.limit_kw if self.limit_kw is not None else getattr(own, "limit_kw", None)
        if limit_kw is not None:
            found["scheduled in limit"] = by("scheduled", limit_kw=limit_kw, group=group, **wear)
        return found

    def figures(self, result: xr.Dataset) -> xr.Dataset:
        """See :meth:`Comparison.figures`."""
        import xarray as xr

        hours, currency = interval_s(result) / 3600.0, currency_of(result)
        head, fleet = result["head_power_kw"].sum("phase"), result["fleet_power_kw"]
        given = result["session_energy_discharged_kwh"].values
        wear = self.wear_per_kwh * given
        found = {
            "cost": over_sessions(
                result, result["session_cost"].values + wear, "cost, wear included", currency
            ),
            "energy_cost": over_sessions(result, result["session_cost"].values, "  energy", currency),
            "wear_cost": over_sessions(result, wear, "  wear of the batteries", currency),
            "drawn_kwh": over_sessions(
                result, result["session_energy_delivered_kwh"].values, "energy drawn", "kWh"
            ),
            "given_kwh": over_sessions(result, given, "energy given back", "kWh"),
            "unserved_kwh": over_sessions(
                result, result["session_energy_unserved_avoidable_kwh"].values,
                "unserved though in reach", "kWh",
            ),
            "fleet_peak_kw": figure(fleet.max("time"), "highest power of the EVs", "kW"),
            "head_peak_kw": figure(head.max("time"), "highest power at the head", "kW"),
            "losses_kwh": figure(result["losses_kw"].sum("time") * hours, "losses of the feeder", "kWh"),
            "fleet_power_kw": figure(fleet, "power of the EVs", "kW"),
        }  # fmt: skip
        demand = settle(result).fleet["demand_charge"].to_numpy()
        if demand.any():
            charge = xr.DataArray(demand, {"member": result["member"].values}, "member")
            found["demand_charge"] = figure(charge, "demand charge", currency)
            found["total_cost"] = figure(found["cost"] + charge, "cost with demand charge", currency)
        if "session_emissions_kg" in result:
            found["emissions_kg"] = over_sessions(
                result, result["session_emissions_kg"].values, "CO2 of charging", "kg"
            )
        return xr.Dataset(found)

    def between(self, study: xr.Dataset) -> xr.Dataset:
        """The bound, and the savings of each variant against uncontrolled: in total, and in percent of a
        positive base; NaN where the base is 0 or a credit.
        """
        study = self._with_oracle(study) if self.oracle else study
        if UNCONTROLLED not in study["variant"].values:
            return study
        found = {}
        for name, key, text in (
            ("saved", "cost", "cost saved against uncontrolled"),
            ("emissions_saved", "emissions_kg", "CO2 saved against uncontrolled"),
        ):
            if key in study:
                before = study[key].sel(variant=UNCONTROLLED, drop=True)
                saved = before - study[key]
                found[name] = figure(saved, text, study[key].attrs["units"])
                of_base = 100.0 * saved / before.where(before > 0)
                found[f"{name}_percent"] = figure(of_base, text, "%")
        return study.assign(found)

    def _with_oracle(self, study: xr.Dataset) -> xr.Dataset:
        import xarray as xr

        from evgrid.runs.simulation import build_world
        from evgrid.studies.oracle import least_cost

        members = {} if self.members is None else {"ensemble.members": self.members}
        world = build_world(load_scenario(self.scenario, {**self.overrides, **members}))
        bound = least_cost(world, self.wear_per_kwh)
        row = xr.Dataset(
            {
                "cost": ("member", bound.cost),
                "energy_cost": ("member", bound.energy_cost),
                "wear_cost": ("member", bound.cost - bound.energy_cost),
                "given_kwh": ("member", bound.given_kwh),
            },
            {"member": list(world.scenario.members), "variant": ORACLE},
        ).sel(member=study["member"])
        return xr.concat(
            [study, row.expand_dims("variant")], "variant", data_vars="all", coords="minimal",
            compat="override", join="outer", combine_attrs="override",
        )  # fmt: skip

    def draw(self, study: xr.Dataset) -> Figure:
        """Power over time, cost with its bound, CO2, and the highest powers."""
        from matplotlib.figure import Figure

        drawn = Figure(figsize=(13, 9), layout="constrained")
        axes = drawn.subplot_mosaic([["power"] * 3, ["cost", "co2", "peak"]])
        drawn.suptitle(f"{study.attrs['name']}, members: {study.sizes['member']}")
        scenario = load_scenario(self.scenario, self.overrides)
        plot_power(study, scenario, axes["power"])
        plot_cost(study, axes["cost"])
        plot_emissions(study, axes["co2"])
        plot_peaks(study, axes["peak"])
        return drawn


def _may_discharge(scenario: Scenario) -> bool:
    """Whether any EV may discharge; with a session file, by its rows.

    Raises ScenarioError for a file of sessions that is at fault.
    """
    fleet = scenario.fleet
    assert fleet is not None
    may = fleet.permission
    if may is not None and not (
        may.vehicle and may.interconnection and may.warranty.approved and may.driver.willing
    ):
        return False
    if not fleet.sessions.sampled:
        from evgrid.runs.simulation import build_world

        return bool((build_world(scenario).sessions.discharge_kw > 0).any())
    mix = fleet.vehicle_mix
    can = mix is None or any(kind.bidirectional and kind.share for kind in mix.types.values())
    return fleet.charger.bidirectional > 0 and can


def plot_power(study: xr.Dataset, scenario: Scenario, ax: Axes) -> Axes:
    """Power of the EVs over time, median of the members, a line a variant; expensive hours are shaded."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    time = study["time"].values
    if (prices := scenario.prices) is not None:
        begins_s = (time - scenario.start.astype("datetime64[ns]")) / np.timedelta64(1, "s")
        price = prices.means(np.append(begins_s, 2 * begins_s[-1] - begins_s[-2]))[0]
        shade = (price - price.min()) / max(float(np.ptp(price)), 1e-9)
        ends = np.append(time[1:], time[-1] + (time[1] - time[0]))
        for begin, end, share in zip(time, ends, shade, strict=True):
            if share > 0:
                ax.axvspan(begin, end, color="0.5", alpha=0.3 * share, linewidth=0)
    for variant, colour in _runs(study):
        power = study["fleet_power_kw"].sel(variant=variant).median("member")
        ax.plot(time, power, color=colour, label=variant, linewidth=1.4)
    ax.axhline(0, color="black", linewidth=0.6)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.set_xlim(time[0], time[-1])
    ax.set(
        xlabel="local time (shaded: the darker, the more expensive)", ylabel="power of the EVs (kW)",
        title=f"Power of the EVs{_over(study, 'median')}",
    )  # fmt: skip
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_cost(study: xr.Dataset, ax: Axes) -> Axes:
    """Cost of each variant, energy and wear stacked, mean of the members; dashed: the bound."""
    names = [name for name, _ in _runs(study)]
    energy, wear = (  # NaN where no session ends within the run
        study[key].sel(variant=names).mean("member").fillna(0.0).values
        for key in ("energy_cost", "wear_cost")
    )
    at = np.arange(len(names))
    ax.bar(at, energy, color=[colour for _, colour in _runs(study)])
    ax.bar(at, wear, bottom=np.maximum(energy, 0.0), color="0.7", label="wear of the batteries")
    if ORACLE in study["variant"].values:
        bound = float(study["cost"].sel(variant=ORACLE).mean())
        ax.axhline(bound, color="black", linestyle="--", linewidth=1, label="oracle, wear included")
    total = study["cost"].sel(variant=names).mean("member")
    ax.plot(at, total, "D", color="white", markeredgecolor="black", markersize=6, label="together")
    ax.axhline(0, color="black", linewidth=0.6)
    lowest, highest = min(0.0, float(energy.min())), float((np.maximum(energy, 0.0) + wear).max())
    ax.set_ylim(1.15 * lowest, 1.15 * highest)
    ax.legend(frameon=False, fontsize="small")
    currency = study["cost"].attrs.get("units", "")
    ax.set(ylabel=f"cost of the sessions ({currency})", title=f"Cost{_over(study, 'mean')}")
    _name_bars(ax, names)
    return ax


def plot_emissions(study: xr.Dataset, ax: Axes) -> Axes:
    """CO2 of each variant, mean of the members; where emissions aren't known, energy given back."""
    key = "emissions_kg" if "emissions_kg" in study else "given_kwh"
    text = study[key].attrs["long_name"]
    names = [name for name, _ in _runs(study)]
    ax.bar(
        np.arange(len(names)),
        study[key].sel(variant=names).mean("member"),
        color=[c for _, c in _runs(study)],
    )
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(ylabel=f"{text} ({study[key].attrs['units']})", title=f"{text}{_over(study, 'mean')}")
    _name_bars(ax, names)
    return ax


def plot_peaks(study: xr.Dataset, ax: Axes) -> Axes:
    """Highest power of the EVs (full bars) and of the feeder (outlines) of each variant, median."""
    names = [name for name, _ in _runs(study)]
    at = np.arange(len(names))
    fleet, head = (
        study[key].sel(variant=names).median("member").values for key in ("fleet_peak_kw", "head_peak_kw")
    )
    ax.bar(at, head, fill=False, edgecolor="black", linewidth=1, label="feeder")
    ax.bar(at, fleet, width=0.6, color=[colour for _, colour in _runs(study)], label="EVs only")
    ax.set(ylabel="highest power (kW)", title=f"Highest power{_over(study, 'median')}")
    ax.set_ylim(top=1.25 * float(np.nanmax(head)))
    ax.legend(frameon=False, fontsize="small", ncols=2, loc="upper left")
    _name_bars(ax, names)
    return ax


def _over(study: xr.Dataset, how: str) -> str:
    """Statistic over the members, for a title."""
    return f", {how} of the members" if study.sizes["member"] > 1 else ""


def _name_bars(ax: Axes, names: list[str]) -> None:
    ax.set_xticks(np.arange(len(names)), names, rotation=35, ha="right", fontsize="small")
    ax.grid(axis="y", alpha=0.3)


def _runs(study: xr.Dataset) -> list[tuple[str, Any]]:
    """The variants that were run, each with its colour."""
    from matplotlib import colormaps

    names = [str(name) for name in study["variant"].values if str(name) != ORACLE]
    return [(name, colormaps["tab10"](i % 10)) for i, name in enumerate(names)]
