"""What a run came to in money: energy, demand charge, regulation, degradation, drivers.

In: a result, the rates, and, to compare, the result of the same scenario uncontrolled. Out: a table
of one row an EV and one of one row a member. Costs are positive, credits negative; currency is the
scenario's. Sessions under way at the end count with what they had drawn by then.

Left out: taxes, fixed charges, the retail bill of the household behind the same meter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True, slots=True)
class Rates:
    """What besides the tariff's energy is charged and paid.

    demand_charge : currency per kW of a member's highest fleet power in the run
    wear_per_kwh : currency per kWh that a battery gives back, for degradation
    driver_per_kwh : currency that a driver is paid per kWh given back
    driver_share : share of the regulation credit that goes to the drivers, by energy throughput
    """

    demand_charge: float = 0.0
    wear_per_kwh: float = 0.0
    driver_per_kwh: float = 0.0
    driver_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """Per EV (member, ev; energy in kWh, ``energy_cost``, ``degradation``, ``driver_payment``) and per
    member (the sums, ``demand_charge``, ``regulation_credit``, ``net_cost``).
    """

    evs: pd.DataFrame
    fleet: pd.DataFrame


def settle(result: xr.Dataset, rates: Rates | None = None, against: xr.Dataset | None = None) -> Settlement:
    """Settle a run; with ``against``, the fleet's table has ``uncontrolled`` and ``saved`` besides.

    The net cost is the aggregator's: energy + demand charge + degradation + drivers - regulation.
    What drivers are paid from their own batteries' wear is not netted. Without a tariff, energy costs 0.
    """
    import pandas as pd

    rates = rates or Rates()
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
    evs = sessions.groupby(["member", "ev"], as_index=False).sum()
    evs["degradation"] = rates.wear_per_kwh * evs["given_kwh"]
    members = pd.Index(result["member"].values, name="member")
    credit = pd.Series(0.0, members)
    if "regulation_credit" in result:
        credit = pd.Series(np.nansum(result["regulation_credit"].values, axis=1), members)
    through = evs["drawn_kwh"] + evs["given_kwh"]
    whole = through.groupby(evs["member"]).transform("sum")
    share = np.divide(through, whole, out=np.zeros(len(evs)), where=(whole > 0).to_numpy())
    evs["driver_payment"] = rates.driver_per_kwh * evs["given_kwh"] + rates.driver_share * share * evs[
        "member"
    ].map(credit).astype(float)
    fleet = evs.drop(columns="ev").groupby("member").sum().reindex(members, fill_value=0.0)
    peak = result["fleet_power_kw"].max("time").to_series().reindex(members)
    fleet["demand_charge"] = rates.demand_charge * peak.clip(lower=0.0)
    fleet["regulation_credit"] = credit
    fleet["net_cost"] = (
        fleet["energy_cost"] + fleet["demand_charge"] + fleet["degradation"] + fleet["driver_payment"]
        - fleet["regulation_credit"]
    )  # fmt: skip
    if against is not None:
        fleet["uncontrolled"] = settle(against, rates).fleet["net_cost"]
        fleet["saved"] = fleet["uncontrolled"] - fleet["net_cost"]
    return Settlement(evs, fleet)
