"""Costs and revenue of a run: energy, fixed and demand charges, regulation, degradation, drivers.

In: a result, the rates, and, to compare, the result of the same scenario uncontrolled. Out: a table
of one row an EV and one of one row a member. Costs are positive, credits negative; currency is the
scenario's. Sessions under way at the end count with the energy drawn by then.

Left out: taxes, the retail bill of the household behind the same meter but for the tariff's fixed charge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from evgrid.core.model import Array, Variable
from evgrid.core.units import DAY_S
from evgrid.errors import ResultError
from evgrid.scenario.fields import Settings, checked, read_settings
from evgrid.scenario.tariff_forms.seasons import SeasonTariff
from evgrid.scenario.tariffs import DemandCharge, PowerPrice, in_windows
from evgrid.system.revenue import pjm_credit

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Price = Annotated[float, Field(ge=0)]


class Rates(Settings):
    """Charges and payments besides the tariff's energy, in the scenario's currency."""

    demand_charge: Price | None = None
    """Currency per kW of the highest power of each calendar month, as the scenario's tariff meters it
    (``tariff.demand``: its power and interval; else that of the EVs, over 15 min); left out: the
    prices of the tariff."""
    fixed_per_day: Price | None = None
    """Base charge per customer and day; left out: the tariff's, by day and month."""
    wear_per_kwh: Price = 0.0
    """Currency per kWh that a battery gives back, for degradation; where the result has the ageing
    of the batteries (fleet.vehicle.degradation), its cost takes precedence."""
    driver_per_kwh: Price = 0.0
    """Currency that a driver is paid per kWh given back."""
    driver_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the credit for regulation that goes to the drivers, by energy throughput."""
    capability_price: Price | None = None
    """Price of regulation capability, currency per MW and hour; left out: the credit that was recorded."""
    performance_price: Price = 0.0
    """Price of regulation performance, currency per MW and hour; with capability_price."""
    mileage_ratio: Price = 1.0
    """Mileage of the signal over that of the reference signal; with capability_price."""


def read_rates(path: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> Rates:
    """Rates from a YAML file, with changes on top.

    Raises
    ------
    ScenarioError
        With every fault, each with its key.

    """
    content = read_settings(Path(path)) if path is not None else {}
    return checked(Rates, content | dict(changes or {}), str(path or "rates"))


@dataclass(frozen=True, slots=True)
class Settlement:
    """Per EV (member, ev; energy in kWh, ``energy_cost``, ``degradation``, ``driver_payment``) and per
    member (the sums, ``block_charge``, ``fixed_charge``, ``demand_charge``, ``regulation_credit``,
    ``net_cost``).
    """

    evs: pd.DataFrame
    fleet: pd.DataFrame


def settle(result: xr.Dataset, rates: Rates | None = None, against: xr.Dataset | None = None) -> Settlement:
    """Settle a run; with ``against``, the fleet's table has ``uncontrolled`` and ``saved`` besides.

    The net cost is the aggregator's: energy (with what blocks of the tariff add) + fixed charges + demand
    charge + degradation + drivers - regulation (and reserve). Payments to drivers are not netted with the
    wear of their batteries. Without prices energy costs 0.

    Raises
    ------
    ResultError
        If the result has no EVs, or ``against`` has other sessions.

    """
    import pandas as pd

    rates = rates or Rates()
    if "session_cost" not in result:
        raise ResultError(f"{result.attrs.get('name', 'the result')} has no EVs: there is nothing to settle")
    if against is not None:
        _refuse_others(result, against)
    sessions = pd.DataFrame(
        {
            "member": result["session_member"].values,
            "ev": result["session_ev"].values,
            "drawn_kwh": result["session_energy_delivered_kwh"].values,
            "given_kwh": result["session_energy_discharged_kwh"].values,
            "unserved_kwh": np.nan_to_num(result["session_energy_unserved_kwh"].values),
            "energy_cost": np.nan_to_num(result["session_cost"].values),
        }
    )
    sessions["degradation"] = rates.wear_per_kwh * sessions["given_kwh"]
    if "session_degradation_cost" in result:
        sessions["degradation"] = np.nan_to_num(result["session_degradation_cost"].values)
    evs = sessions.groupby(["member", "ev"], as_index=False).sum()
    members = pd.Index(result["member"].values, name="member")
    credit = pd.Series(_credits(result, rates), members)
    through = evs["drawn_kwh"] + evs["given_kwh"]
    whole = through.groupby(evs["member"]).transform("sum")
    share = np.divide(through, whole, out=np.zeros(len(evs)), where=(whole > 0).to_numpy())
    evs["driver_payment"] = rates.driver_per_kwh * evs["given_kwh"] + rates.driver_share * share * evs[
        "member"
    ].map(credit).astype(float)
    fleet = evs.drop(columns="ev").groupby("member").sum().reindex(members, fill_value=0.0)
    unserved = result["session_energy_unserved_kwh"]
    if "stations" in result.attrs and unserved.isnull().all():  # charging stations may not say it
        fleet["unserved_kwh"] = np.nan
    scenario = json.loads(result.attrs.get("scenario", "{}"))
    fleet["block_charge"] = _blocks(result, scenario)
    fleet["fixed_charge"] = _fixed(result, rates, scenario)
    fleet["demand_charge"] = _demand(result, rates, scenario)
    fleet["regulation_credit"] = credit
    fleet["net_cost"] = (
        fleet["energy_cost"] + fleet["block_charge"] + fleet["fixed_charge"] + fleet["demand_charge"]
        + fleet["degradation"] + fleet["driver_payment"] - fleet["regulation_credit"]
    )  # fmt: skip
    if against is not None:
        fleet["uncontrolled"] = settle(against, rates).fleet["net_cost"]
        fleet["saved"] = fleet["uncontrolled"] - fleet["net_cost"]
    return Settlement(evs, fleet)


_LINES = (
    ("drawn_kwh", "energy drawn", "kWh"),
    ("given_kwh", "energy given back", "kWh"),
    ("unserved_kwh", "energy unserved", "kWh"),
    ("energy_cost", "energy", ""),
    ("block_charge", "energy above the first block", ""),
    ("fixed_charge", "fixed charges", ""),
    ("demand_charge", "demand charge", ""),
    ("degradation", "degradation", ""),
    ("driver_payment", "payments to drivers", ""),
    ("regulation_credit", "credit for regulation", ""),
    ("net_cost", "net cost", ""),
    ("uncontrolled", "the same uncontrolled", ""),
    ("saved", "saved", ""),
)


def summary(books: Settlement, currency: str) -> list[tuple[str, str]]:
    """A settlement as (name, text) rows: of one member, or the mean and 5 to 95 % of the members."""
    members = len(books.fleet)
    rows = [("settled", f"{members} member(s), {len(books.evs) / max(members, 1):g} EVs each with a session")]
    for name, text, unit in _LINES:
        if name in books.fleet and (name != "block_charge" or books.fleet[name].any()):
            values = books.fleet[name].to_numpy()
            shown = f"{amount(values.mean())} {unit or currency}".rstrip()
            if np.isnan(values).all():
                shown = "not reported"
            if members > 1:
                low, high = (amount(value) for value in np.quantile(values, [0.05, 0.95]))
                shown += f" (mean; {low} to {high} for 90 % of the members)"
            rows.append((text, shown))
    if "saved" in books.fleet and (before := books.fleet["uncontrolled"].mean()) > 0:
        rows.append(
            ("saved, of the uncontrolled cost", f"{100 * books.fleet['saved'].mean() / before:.1f} %")
        )
    return rows


_PEAKS = {"evs": "fleet_peak_kw", "transformer": "trafo_peak_kw", "feeder": "head_peak_kw"}


def _demand(result: xr.Dataset, rates: Rates, scenario: Mapping[str, Any]) -> Array:
    """Demand charge of each member, (member,): price times highest power of each month, where it is drawn."""
    given = (scenario.get("tariff") or {}).get("demand")
    demand = DemandCharge.model_validate(given) if given is not None else None
    if rates.demand_charge is not None:
        own = (PowerPrice(price_per_kw=rates.demand_charge),)
        demand = demand.model_copy(update={"prices": own}) if demand is not None else DemandCharge(prices=own)
    if demand is None or not any(price.price_per_kw for price in demand.prices):
        return np.zeros(result.sizes["member"])
    names = [_PEAKS[demand.of]]
    if demand.windows:
        names.append(in_windows(Variable(names[0], ("month",), "kW", "")).name)
    for name in names:
        if name not in result:
            what = result.attrs.get("name", "the result")
            raise ResultError(f"{what} has no {name}, which a demand charge is for: run it again")
    peak, *windows = (result[name].transpose("member", ..., "month").values for name in names)
    months = result["month"].values.astype("datetime64[M]")
    each = demand.charge(peak, windows[0] if windows else np.zeros((*peak.shape[:-1], 0, 0)), months)
    return np.asarray(each.reshape(len(each), -1).sum(axis=1))


def _blocks(result: xr.Dataset, scenario: Mapping[str, Any]) -> Array:
    """What the blocks of the tariff add to the cost of energy, of each member, (member,)."""
    tariff = scenario.get("tariff") or {}
    if not tariff.get("blocks"):
        return np.zeros(result.sizes["member"])
    own = SeasonTariff.model_validate({k: v for k, v in tariff.items() if k != "export_prices"})
    energy = result["customer_energy_kwh"].transpose("member", "connection", "month", "period").values
    return np.asarray(own.block_charge(energy).sum(axis=1))


def _fixed(result: xr.Dataset, rates: Rates, scenario: Mapping[str, Any]) -> Array:
    """Fixed charges of each member, (member,): base charges times days and months times customers."""
    tariff = scenario.get("tariff") or {}
    per_day, per_month = (tariff.get(key, 0.0) for key in ("fixed_per_day", "fixed_per_month"))
    if rates.fixed_per_day is not None:
        per_day, per_month = rates.fixed_per_day, 0.0
    if not (per_day or per_month):
        return np.zeros(result.sizes["member"])
    of = (tariff.get("demand") or {}).get("of", "evs")
    if of == "evs":
        places = result["ev_connection"].values
        members = result["ev_member"].values
        customers = np.array([len(np.unique(places[members == m])) for m in result["member"].values])
    else:
        metered = result[_PEAKS[of]].notnull().any("month")
        customers = metered.values.reshape(len(metered), -1).sum(axis=1)
    time = scenario["time"]
    each = per_day * time["duration"] / DAY_S
    if per_month:
        each += per_month * months_within(np.datetime64(time["start"]), time["duration"])
    return np.asarray(each * customers, np.float64)


def charges_beside_energy(result: xr.Dataset) -> dict[str, str]:
    """What the scenario's tariff charges besides energy, ``demand`` and ``fixed``, and for whom
    (``tariff.demand.of``: evs, transformer or feeder).
    """
    tariff = json.loads(result.attrs.get("scenario", "{}")).get("tariff") or {}
    demand = tariff.get("demand") or {}
    has = {
        "demand": any(price.get("price_per_kw") for price in demand.get("prices", ())),
        "fixed": tariff.get("fixed_per_day") or tariff.get("fixed_per_month"),
    }
    return {name: demand.get("of", "evs") for name, given in has.items() if given}


def months_within(start: np.datetime64, duration_s: float) -> float:
    """Length of a run in calendar months, each by the part of it that the run has."""
    begin, end = (
        start.astype("datetime64[s]"),
        start.astype("datetime64[s]") + np.timedelta64(round(duration_s), "s"),
    )
    months = np.arange(begin.astype("datetime64[M]"), end.astype("datetime64[M]") + 2)
    edges = months.astype("datetime64[s]")
    inside = np.clip(edges[1:], begin, end) - np.clip(edges[:-1], begin, end)
    return float((inside / np.diff(edges)).sum())


def amount(value: float) -> str:
    """A sum of money as text; 0.00 has no sign."""
    return f"{round(value, 2) + 0.0:,.2f}"


def is_currency(unit: str) -> bool:
    """Whether a unit is a currency: its code, such as EUR, or the word where it isn't known."""
    return unit == "currency" or re.fullmatch("[A-Z]{3}", unit) is not None


def _credits(result: xr.Dataset, rates: Rates) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Credit for regulation and reserve of each member, over all aggregators, (member,)."""
    total = np.zeros(result.sizes["member"])
    for variable in result.data_vars:
        name = str(variable)
        if name.startswith("regulation_credit") and rates.capability_price is not None:
            capacity, score = (
                result[name.replace("credit", part, 1)].values for part in ("capacity_kw", "score")
            )
            earned = pjm_credit(
                capacity / 1000.0, np.nan_to_num(score), rates.capability_price, rates.performance_price,
                rates.mileage_ratio,
            )  # fmt: skip
            total += np.nansum(earned, axis=1)
        elif name.startswith(("regulation_credit", "reserve_credit")):
            total += np.nansum(result[name].values, axis=1)
    return total


def _refuse_others(result: xr.Dataset, against: xr.Dataset) -> None:
    """Raise ResultError unless both results have the same sessions: those of one scenario and seed."""
    names = [str(data.attrs.get("name", "a result")) for data in (against, result)]
    what = f"{names[0]} can't be compared with {names[1]}"
    if "session_cost" not in against:
        raise ResultError(f"{what}: it has no EVs")
    for key in ("member", "session_ev", "session_arrival", "session_departure"):
        if not np.array_equal(result[key].values, against[key].values):
            raise ResultError(
                f"{what}: it has other {'members' if key == 'member' else 'sessions'}; "
                "both must be of the same scenario, members and seed"
            )
