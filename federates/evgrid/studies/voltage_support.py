"""Voltage support: comparison of charge control and reactive power of the chargers.

In: a scenario with bidirectional chargers. Out: for each way of charging and each member of the
ensemble, the voltages and their violations, voltage unbalance, losses, the energy held back
and unserved, the chargers' reactive energy, and the ageing of the transformers; a table, and a
picture. The usual variants:

======================  =====================================================================
no EVs    the feeder only
uncontrolled          every EV charges as fast as it can
V1G, peak limit       charging is postponed to keep each transformer under ``limit_kw``; without a
                      limit "V1G, tou": it follows the prices
volt-watt             each charger draws less at low voltage (``charging_limit``), and gives
                      less at high voltage (IEEE 1547); it needs no aggregator
volt-var              each charger draws or gives reactive power by its voltage (``volt_var``)
V2G, peak shaving +   as V1G, and EVs discharge where postponing does not suffice; without a limit
volt-var              "V2G, arbitrage + volt-var"
coordinated           the aggregator holds all voltages above ``v_min_pu``: strategy
                      ``voltage_support``, active power only
coordinated + volt-var  the same beside the chargers' own volt-var
======================  =====================================================================

**Tick and response.** With a ``lagged`` coupling a charger responds to the voltage of the previous
tick. Many chargers whose response is faster than a tick respond together to an outdated voltage,
and may oscillate: a charging limit with a response of 10 s at ticks of 60 s takes the European LV
feeder lower than no control does. So the responses here are slower than the tick of 60 s that the
study is made for: 90 s for volt-var (the most that IEEE 1547-2018 allows for category B) and
300 s for volt-watt, which has a larger effect on the voltage per pu. For faster curves take a tick below
their response, or ``coupling: iterated``.

Violations are checked on the recorded intervals; ``overrides: {record.step: 10min}`` records the means
that EN 50160 asks for, and keeps the runs small.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from evgrid.errors import ResultError, ScenarioError
from evgrid.results.limits import LimitSet, interval_s, limit_set, violations
from evgrid.results.plots import EN_50160_BAND
from evgrid.results.transformer_ageing import transformer_ageing
from evgrid.scenario import Scenario
from evgrid.scenario.fields import fault
from evgrid.scenario.inverter_functions import VOLT_VAR, ChargingLimit, VoltVar
from evgrid.studies.comparison import Comparison
from evgrid.studies.limit_check import check_limits

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNCONTROLLED = "uncontrolled"
"""Reference variant of energy held back."""

_FLEET_FIGURES = {
    "drawn_kwh": ("energy drawn by EVs", "kWh"),
    "given_kwh": ("energy given back by EVs", "kWh"),
    "unserved_kwh": ("energy unserved at departure", "kWh"),
    "reactive_kvarh": ("reactive energy of the chargers, drawn or given", "kvarh"),
}


_NAMES = {
    "peak_limit": "peak limit",
    "tou": "tou",
    "v2g_peak_shaving": "peak shaving",
    "arbitrage": "arbitrage",
}
"""Names of the variants of V1G and V2G by their strategy."""


class VoltageSupport(Comparison):
    """Comparison of the effect of ways of charging on the voltages."""

    kind: ClassVar[str] = "voltage-support"
    question: ClassVar[str] = (
        "The effect of charge control and reactive power of the chargers on the voltages, and its costs."
    )

    limits: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "en_50160",
        "vuf",
        "ansi_c84_1_a",
        "ansi_c84_1_b",
    )
    """Limits to check, by the names of :data:`evgrid.results.limits.PRESETS`."""
    limit_kw: Annotated[float, Field(gt=0)] | None = None
    """Limit of each transformer for V1G and V2G, kW. Left out: the limit_kw of the scenario's
    aggregator; where it has none, they follow the prices (tou, arbitrage)."""
    v_min_pu: Annotated[float, Field(gt=0)] = 0.92
    """Least voltage of all connection points with coordinated charging, pu of nominal."""
    volt_var: str | VoltVar = VoltVar(points=VOLT_VAR["ieee_1547_b"].points, response_s=90)
    """Curve of the variants with volt-var, as in charger.functions."""
    charging_limit: ChargingLimit = ChargingLimit(points=((0.88, 0), (0.94, 100)), response_s=300)
    """Curve of the variant volt-watt, as in charger.functions."""

    @field_validator("limits")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            limit_set(*names)
        except ValueError as error:
            raise fault(str(error).removeprefix("limits = ")) from None
        return names

    @property
    def limit_set(self) -> LimitSet:
        """The limits to check."""
        return limit_set(*self.limits)

    def usual_variants(self, scenario: Scenario) -> dict[str, dict[str, Any]]:
        """See :meth:`Comparison.usual_variants`."""
        fleet = scenario.fleet
        if fleet is None:
            raise ScenarioError([f"{self.kind} needs EVs: the scenario has no fleet"], self.name)
        if not fleet.charger.bidirectional:
            raise ScenarioError(
                ["fleet.charger.bidirectional = 0: must be above 0 for the variants that discharge"],
                self.name,
            )
        main = next(iter(scenario.aggregators), "main")
        no_aggregators: dict[str, Any] = {f"aggregators.{name}": None for name in scenario.aggregators}
        v1g, v2g = self._by_peak(scenario)
        support = {"strategy": "voltage_support", "v_min_pu": self.v_min_pu}
        volt_var = self.volt_var if isinstance(self.volt_var, str) else self.volt_var.model_dump(mode="json")
        reactive = {"volt_var": volt_var}
        active = {
            "volt_watt": "ieee_1547_b",
            "charging_limit": self.charging_limit.model_dump(mode="json"),
        }

        def variant(
            strategy: dict[str, Any] | None, functions: dict[str, Any] | None = None
        ) -> dict[str, Any]:
            changes = dict(no_aggregators)
            if strategy is not None:
                changes[f"aggregators.{main}"] = strategy
            if functions or fleet.charger.functions is not None:
                changes["fleet.charger.functions"] = dict.fromkeys(_BY_VOLTAGE) | (functions or {})
            return changes

        return {
            "no EVs": {**no_aggregators, "fleet": None},
            UNCONTROLLED: variant(None),
            f"V1G, {_NAMES[v1g['strategy']]}": variant(v1g),
            "volt-watt": variant(None, active),
            "volt-var": variant(None, reactive),
            f"V2G, {_NAMES[v2g['strategy']]} + volt-var": variant(v2g, reactive),
            "coordinated": variant(support),
            "coordinated + volt-var": variant(support, reactive),
        }

    def _by_peak(self, scenario: Scenario) -> tuple[dict[str, Any], dict[str, Any]]:
        """The strategies of V1G and V2G."""
        limits = (getattr(settings, "limit_kw", None) for settings in scenario.aggregators.values())
        limit_kw = self.limit_kw or next((limit for limit in limits if limit is not None), None)
        if limit_kw is not None:
            kept = {"group": "transformer", "limit_kw": limit_kw}
            return {"strategy": "peak_limit", **kept}, {"strategy": "v2g_peak_shaving", **kept}
        if not scenario.has_prices:
            why = "neither an aggregator with a limit_kw nor prices (a tariff or system.energy_price)"
            raise ScenarioError([f"limit_kw: is required where the scenario has {why}"], self.name)
        return {"strategy": "tou"}, {"strategy": "arbitrage"}

    def figures(self, result: xr.Dataset) -> xr.Dataset:
        """See :meth:`Comparison.figures`; NaN for members that were given up, except for violations."""
        import xarray as xr

        hours = interval_s(result) / 3600
        voltage = result["voltage_pu"].where(result["voltage_pu"] > 0)
        if not result["bus_at_source"].all():
            voltage = voltage.where(result["bus_at_source"] == 0)
        places = [dim for dim in voltage.dims if dim not in ("member", "time")]
        lowest = voltage.min(places)
        found = xr.Dataset()
        kept = result["member_failed_s"].isnull()

        def add(name: str, values: xr.DataArray, text: str, unit: str) -> None:
            values = values.where(kept)
            found[name] = values.drop_vars([c for c in values.coords if c not in ("member", "time")])
            found[name].attrs = {"long_name": text, "units": unit}

        add("lowest_voltage_pu", lowest, "lowest voltage of all buses but the source's, and phases", "1")
        add("voltage_min_pu", lowest.min("time"), "lowest voltage", "pu")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")  # a source's bus, phases that a bus lacks
            kept_low = voltage.quantile(0.05, "time").min(places)
            if "voltage_unbalance" in result:
                unbalance = 100 * result["voltage_unbalance"].quantile(0.95, "time").max("bus")
        add("voltage_low_pu", kept_low, "voltage kept 95 % of the time everywhere", "pu")
        add("voltage_max_pu", voltage.max(["time", *places]), "highest voltage", "pu")
        if "voltage_unbalance" in result:
            add(
                "unbalance_percent",
                unbalance,
                "voltage unbalance V2/V1 kept 95 % of the time everywhere",
                "%",
            )
        found = found.merge(self._violations(result))
        add("losses_kwh", result["losses_kw"].sum("time") * hours, "losses of the feeder", "kWh")
        add("head_kw", result["head_power_kw"].sum("phase").max("time"), "highest power at the head", "kW")
        for name, values in _fleet(result, hours).items():
            add(name, values, *_FLEET_FIGURES[name])
        power = result.get("fleet_power_kw")
        add("fleet_power_kw", xr.full_like(lowest, np.nan) if power is None else power,
            "active power of all EVs", "kW")  # fmt: skip
        if result.sizes["trafo"]:
            aged = result if "trafo_life_h" in result else transformer_ageing(result)
            add("trafo_loading_percent", 100 * result["trafo_loading"].max(["time", "trafo"]),
                "highest transformer loading", "%")  # fmt: skip
            add("hot_spot_c", aged["trafo_hot_spot_highest_c"].max("trafo"), "highest hot spot", "°C")
            add("life_h", aged["trafo_life_h"].max("trafo", skipna=False),
                "loss of life of the worst transformer; NaN: above 160 °C", "h")  # fmt: skip
        return found

    def _violations(self, result: xr.Dataset) -> xr.Dataset:
        """Violations by criterion: whether a member has any, the number of elements and phases, the time."""
        import xarray as xr

        result, checked = check_limits(result, self.limit_set)
        if not checked.sizes["criterion"]:
            raise ResultError(f"study {self.name}: none of the limits can be checked on this feeder")
        table = violations(result, self.limit_set)
        found = xr.Dataset(coords={"member": result["member"]})
        for name in checked["criterion"].values.tolist():
            mine = table[table["criterion"] == name].groupby("member")["duration_h"]
            found[f"violates_{name}"] = checked["violated"].sel(criterion=name, drop=True)
            found[f"violates_{name}"].attrs = {"long_name": f"{name}: members that violate it", "units": "1"}
            for kind, values, text, unit in (
                ("places", mine.size(), "elements and phases that violate it", "1"),
                ("hours", mine.sum(), "time, summed over them", "h"),
            ):
                of_member = values.reindex(result["member"].values, fill_value=0).to_numpy(float)
                about = {"long_name": f"{name}: {text}", "units": unit}
                found[f"{kind}_{name}"] = ("member", of_member, about)
        return found

    def between(self, study: xr.Dataset) -> xr.Dataset:
        """Energy held back against the variant uncontrolled: drawn later, or not at all."""
        if UNCONTROLLED not in study["variant"].values:
            return study
        power = study["fleet_power_kw"]
        less = (power.sel(variant=UNCONTROLLED, drop=True) - power).clip(min=0)
        held = less.sum("time", skipna=False) * interval_s(study) / 3600
        held.attrs = {
            "long_name": "energy held back against uncontrolled, drawn later or never",
            "units": "kWh",
        }
        return study.assign(held_back_kwh=held)

    def draw(self, study: xr.Dataset) -> Figure:
        """Voltages as a distribution and over time, violations, and losses."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 9), layout="constrained")
        axes = figure.subplots(2, 2)
        figure.suptitle(f"{study.attrs['name']}, {study.sizes['member']} members")
        plot_lowest_voltage(study, axes[0, 0])
        plot_violating_members(study, axes[0, 1])
        plot_voltage_over_time(study, axes[1, 0])
        plot_losses(study, axes[1, 1])
        return figure


_BY_VOLTAGE = ("volt_var", "watt_var", "power_factor", "volt_watt", "charging_limit")
"""Functions that differ between variants; others, such as trips, are in all or none."""


def _fleet(result: xr.Dataset, hours: float) -> dict[str, xr.DataArray]:
    """Energies of the fleet, (member,) each; NaN where there are no EVs."""
    import xarray as xr

    if "fleet_power_kw" not in result:
        nothing = xr.full_like(result["losses_kw"].isel(time=0, drop=True), np.nan)
        return dict.fromkeys(_FLEET_FIGURES, nothing)
    power = result["fleet_power_kw"]
    unserved = result["session_energy_unserved_kwh"].where(result["session_complete"])
    given = result["session_energy_discharged_kwh"]
    of_member = {
        name: values.groupby(result["session_member"]).sum().rename(session_member="member")
        for name, values in (("unserved_kwh", unserved), ("given_kwh", given))
    }
    members = result["member"]
    of_member = {name: values.reindex(member=members, fill_value=0.0) for name, values in of_member.items()}
    return {
        "drawn_kwh": power.sum("time") * hours + of_member["given_kwh"],
        "given_kwh": of_member["given_kwh"],
        "unserved_kwh": of_member["unserved_kwh"],
        "reactive_kvarh": abs(result["fleet_reactive_kvar"]).sum("time") * hours,
    }


def plot_lowest_voltage(study: xr.Dataset, ax: Axes) -> Axes:
    """Distribution of the lowest voltage over all members and times, a line a variant."""
    for variant, colour in _colours(study):
        values = np.sort(study["lowest_voltage_pu"].sel(variant=variant).values.ravel())
        values = values[np.isfinite(values)]
        ax.plot(values, 100 * np.arange(1, len(values) + 1) / len(values), color=colour, label=variant)
    ax.axvline(EN_50160_BAND[0], color="black", linewidth=0.8, linestyle="--")
    ax.set(
        xlabel="lowest voltage of all buses and phases (pu; dashed: EN 50160)",
        ylabel="share of members and times at or below (%)",
        title="Distribution of the lowest voltage",
    )
    ax.set_ylim(0, 100)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_violating_members(study: xr.Dataset, ax: Axes) -> Axes:
    """Share of the members that violate each criterion, a bar a variant."""
    names = [str(name) for name in study.data_vars if str(name).startswith("violates_")]
    variants = _colours(study)
    height = 0.8 / len(variants)
    for place, (variant, colour) in enumerate(variants):
        shares = [100 * float(study[name].sel(variant=variant).mean()) for name in names]
        ax.barh(np.arange(len(names)) + height * place, shares, 0.9 * height, color=colour, label=variant)
    ax.set_yticks(
        np.arange(len(names)) + 0.4 - height / 2, [name.removeprefix("violates_") for name in names]
    )
    ax.invert_yaxis()
    ax.set(xlabel="members that violate it (%)", title="Violations")
    ax.set_xlim(-1, 101)
    ax.grid(axis="x", alpha=0.3)
    return ax


def plot_voltage_over_time(study: xr.Dataset, ax: Axes) -> Axes:
    """Lowest voltage over time, median over the members, a line a variant."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    time = study["time"].values
    for variant, colour in _colours(study):
        ax.plot(
            time,
            study["lowest_voltage_pu"].sel(variant=variant).median("member"),
            color=colour,
            label=variant,
        )
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.set_xlim(time[0], time[-1])
    ax.set(xlabel="local time", ylabel="lowest voltage (pu)", title="Lowest voltage, median of the members")
    ax.grid(alpha=0.3)
    return ax


def plot_losses(study: xr.Dataset, ax: Axes) -> Axes:
    """Lowest voltage against losses, a point a variant: median, with bars from 5 to 95 % of the members."""
    for variant, colour in _colours(study):
        at = study.sel(variant=variant)
        x, y = (np.nanquantile(at[name], [0.05, 0.5, 0.95]) for name in ("losses_kwh", "voltage_min_pu"))
        ax.errorbar(
            x[1], y[1], xerr=[[x[1] - x[0]], [x[2] - x[1]]], yerr=[[y[1] - y[0]], [y[2] - y[1]]],
            fmt="o", color=colour, label=variant, capsize=2,
        )  # fmt: skip
    ax.set(
        xlabel="losses of the feeder (kWh)",
        ylabel="lowest voltage (pu)",
        title="Lowest voltage and losses: median, 5 to 95 % of the members",
    )
    ax.grid(alpha=0.3)
    return ax


def _colours(study: xr.Dataset) -> list[tuple[str, Any]]:
    from matplotlib import colormaps

    return [(str(variant), colormaps["tab10"](i % 10)) for i, variant in enumerate(study["variant"].values)]
