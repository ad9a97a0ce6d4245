"""The energy audit: balances of every run, from independent accumulators.

- conversion: energy from the grid into the EVs = energy gained by the batteries + losses
- metering, where charging stations take the fleet's place: energy of their registers = that of the ticks and
  late energy = that of transactions and outside of them
- hand-over: power sent by the fleet = power received by the feeder, exactly
- feeder: head power = base load + losses + EVs
- sites, each: grid + PV + battery + generator + EVs = load served + charged; battery: drawn = given + loss +
  gained; the EVs did what their sites expect; nothing over the meter of a dead grid
- dead grid: no power, drawn or given, at a connection point without supply (in a run with outages)

A breach is an error; the residuals are in the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evgrid.core.model import Array
from evgrid.errors import AuditError

SITE_TOLERANCE = 1e-9
"""Worst residual of a site's balances, relative to the energy moved at the member's sites."""
CONVERSION_TOLERANCE = 1e-9
"""Worst residual of the conversion balance, relative to the energy moved."""
FEEDER_TOLERANCE = 1e-6
"""Worst residual of the feeder balance, relative to the energy at the head. Where the solver itself
stops earlier (pandapower's ``runpp_3ph``, whose outer tolerance is fixed), its own tolerance."""

DEAD_GRID_KWH = 1e-9
"""Most energy at connection points without supply, drawn or given."""


def audit(
    fleet: Mapping[str, Array] | None,
    feeder: Mapping[str, Array] | None,
    members: Sequence[int],
    sites: Mapping[str, Array] | None = None,
) -> dict[str, float]:
    """Check the balances of a run and return the worst residual of each over the members.

    ``fleet``, ``feeder`` and ``sites`` are the results of the models' ``audit``, (member,) arrays; ``fleet``
    is None in a run without EVs, ``sites`` without sites, and each where another program is in its place: its
    balances are then not checked.

    Raises
    ------
    AuditError
        Naming the balance, the member and the figures.

    """
    residuals: dict[str, float] = {}
    if fleet is not None and "register_energy_kwh" in fleet:
        residuals |= _audit_metering(fleet, members)
    elif fleet is not None:
        moved = np.maximum(np.abs(fleet["grid_energy_kwh"]) + fleet["loss_kwh"], 1e-3)
        gap = fleet["grid_energy_kwh"] - fleet["battery_energy_kwh"] - fleet["loss_kwh"]
        residuals["conversion_relative"] = _worst(
            np.abs(gap) / moved, CONVERSION_TOLERANCE, members,
            "energy from the grid into the EVs is not battery energy plus losses", gap,
        )  # fmt: skip
    if fleet is not None and feeder is not None:
        difference = fleet["power_given_kw_sum"] - feeder["power_received_kw_sum"]
        residuals["hand_over_kw"] = _worst(
            np.abs(difference), 0.0, members,
            "the power received by the feeder is not that sent by the fleet", difference,
        )  # fmt: skip
    if feeder is not None:
        residuals |= _audit_feeder(feeder, members)
    into_dead = [given["dead_grid_kwh"] for given in (feeder or {}, fleet or {}) if "dead_grid_kwh" in given]
    if into_dead:
        energy = np.max(into_dead, axis=0)
        residuals["dead_grid_kwh"] = _worst(
            energy, DEAD_GRID_KWH, members,
            "there is power at connection points without supply, in kWh", energy,
        )  # fmt: skip
    if feeder is not None:
        residuals["flow_balance_worst"] = float(np.max(feeder["balance_worst"]))
    if sites is not None:
        residuals |= _audit_sites(sites, fleet, members)
    return residuals


def _audit_metering(fleet: Mapping[str, Array], members: Sequence[int]) -> dict[str, float]:
    """The balances of charging stations' meters."""
    register = fleet["register_energy_kwh"]
    moved = np.maximum(fleet["register_throughput_kwh"], 1e-3)
    gaps = {
        "ticks": ("that of the ticks and late energy", fleet["grid_energy_kwh"] + fleet["late_energy_kwh"]),
        "transactions": ("that of the transactions and outside of them", fleet["transaction_energy_kwh"]),
    }
    return {
        f"metering_{name}_relative": _worst(
            np.abs(register - energy) / moved, CONVERSION_TOLERANCE, members,
            f"energy of the charging stations' registers is not {text}", register - energy,
        )
        for name, (text, energy) in gaps.items()
    }  # fmt: skip


def _audit_feeder(feeder: Mapping[str, Array], members: Sequence[int]) -> dict[str, float]:
    gap = (
        feeder["head_energy_kwh"]
        - feeder["base_energy_kwh"]
        - feeder["losses_energy_kwh"]
        - feeder["ev_energy_kwh"]
    )
    scale = np.maximum(np.abs(feeder["head_energy_kwh"]), 1e-3)
    tolerance = max(FEEDER_TOLERANCE, float(np.max(feeder["balance_tolerance"])))
    worst = _worst(
        np.abs(gap) / scale, tolerance, members, "head power is not base load plus losses plus EVs", gap
    )
    return {"feeder_relative": worst}


def _audit_sites(
    sites: Mapping[str, Array], fleet: Mapping[str, Array] | None, members: Sequence[int]
) -> dict[str, float]:
    """The balances of the sites."""
    gaps = {
        "site_busbar": ("what a site takes is not what it gives", sites["site_busbar_kwh"]),
        "site_battery": ("a site's battery does not hold what it was given", sites["site_battery_kwh"]),
        "site_dead": ("energy went over the meter of a dead grid", sites["site_dead_kwh"]),
    }
    for way in ("drawn", "given") if fleet is not None else ():
        name = f"site_ev_{way}"
        gap = sites[f"{name}_kwh"] - fleet[f"{name}_kwh"]  # type: ignore[index]
        gaps[name] = (f"the energy {way} by EVs at sites is not what the sites expect", gap)
    moved = np.maximum(sites["site_moved_kwh"], 1e-3)
    return {
        f"{name}_relative": _worst(np.abs(gap) / moved, SITE_TOLERANCE, members, text, gap)
        for name, (text, gap) in gaps.items()
    }


def _worst(residual: Array, tolerance: float, members: Sequence[int], text: str, gap: Array) -> float:
    worst = int(np.argmax(residual))
    if not residual[worst] <= tolerance:
        raise AuditError(
            f"energy audit of member {members[worst]}: {text}, off by {gap[worst]:.6g} "
            f"({residual[worst]:.3g}, allowed {tolerance:g})"
        )
    return float(residual[worst])
