"""Assumptions of a fleet's tables that no setting states, a sentence each.

Chargers of fewer phases than the scenario gives, and vehicles that draw or give less than their charger.
"""

from __future__ import annotations

import numpy as np

from evgrid.core.model import ALL_PHASES, Connections, EVs
from evgrid.fleet.sessions.charge_points import point_table
from evgrid.scenario import Scenario
from evgrid.scenario.fleet import Fleet
from evgrid.scenario.vehicles import charge_limit_kw


def fleet_notes(scenario: Scenario, connections: Connections, evs: EVs) -> tuple[str, ...]:
    """The sentences of a scenario's fleet."""
    fleet = scenario.fleet
    if fleet is None:
        return ()
    table = point_table(scenario, connections)
    most = np.nanmax([*fleet.charger.shares, *(table.power_kw if table is not None else ())])
    caps = _caps(fleet, float(most)) if fleet.sessions.sampled and fleet.sessions.limited_by_vehicle else ()
    return (*_phases(fleet, connections, evs), *caps)


def _phases(fleet: Fleet, connections: Connections, evs: EVs) -> tuple[str, ...]:
    if fleet.charger.phases == 1 or len(connections.phases) == 1:
        return ()
    single = int((connections.phase[evs.connection] != ALL_PHASES).sum())
    if not single:
        return ()
    three = [kind.power_kw for kind in fleet.charger.drawn if kind.phases == 3]
    rated = ", ".join(f"{kw / 3:.3g} kW of {kw:g} kW" for kw in dict.fromkeys(three))
    what = "have" if len(three) == len(fleet.charger.drawn) else "have, instead of a three-phase one,"
    return (
        f"fleet.charger.phases = 3: {single} of {len(evs)} EVs are at connection points of one phase and "
        f"{what} a single-phase EVSE of the same current there ({rated}).",
    )


def _caps(fleet: Fleet, most: float) -> tuple[str, ...]:
    """Vehicles that can't use what their charger offers."""
    charger, vehicle, mix = fleet.charger, fleet.vehicle, fleet.vehicle_mix
    direct = charger.current == "dc"
    found = list[str]()
    if mix is None:
        limits = [("charge", "dc_kw" if direct else "charge_kw")]
        limits += [("discharge", "discharge_kw")] if charger.bidirectional else []
        found = [
            f"fleet.vehicle.{key} = {kw:g}: EVs {verb} at most {kw:g} kW of the charger's {most:g} kW."
            for verb, key in limits
            if (kw := getattr(vehicle, key)) < most
        ]
        return tuple(found)
    for name, kind in mix.types.items():
        limit = charge_limit_kw(kind, most, charger.phases, direct)
        if kind.share and 0 < limit < most:
            one = not direct and charger.phases == 3 and not kind.ac_3p_kw
            found.append(f"{name} {limit:.3g} kW" + (" on one phase" if one else ""))
    return (f"fleet.mix: of the charger's {most:g} kW draw at most {', '.join(found)}.",) if found else ()
