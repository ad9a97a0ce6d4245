"""The records of the sites that kernels take.

``SITE`` holds the constants of a site, ``STATE`` what it remembers from tick to tick, ``EV`` and ``CIRCUIT``
the same of an EV at a site and of a circuit, ``FLOW`` what flowed. The groups are what a tick is given:
:class:`Sites`, :class:`EVs`, :class:`Inputs`, :class:`Memory`, :class:`Answer`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.records import Floats, Kinds, Table

Ints = NDArray[np.int64]

ON_GRID, LOST, STARTING, ISLAND, WAITING, RAMPING = range(6)
"""State of a site: on the grid; without supply; black start under way; island; on the grid again, its sources
wait to enter service; they ramp up."""

BACKUP_NONE, BACKUP_CRITICAL, BACKUP_WHOLE = range(3)
"""Positions in :data:`evgrid.sites.tables.BACKUP`."""

AUTO, BY_BATTERY, BY_EV, BY_GENERATOR = range(4)
"""Positions in :data:`evgrid.sites.tables.FORMER`."""

BY_DEPARTURE, BY_RESERVE = 1, 2
"""Why an EV charges as fast as it can on the grid: for its departure, until then; or up to the reserve."""

CONTROLS = ("requests", "self_consumption", "cost", "peak", "reserve")
"""Controls by their number in kernels."""
REQUESTS, SELF_CONSUMPTION, COST, PEAK, RESERVE = range(5)

SITE = np.dtype(
    [
        ("import_kw", "f8"),  # most drawn from the grid: breaker and interconnection; inf: no limit
        ("export_kw", "f8"),  # most given to the grid
        ("former_kw", "f8"),  # most power of what forms an island
        ("load_step_kw", "f8"),  # largest circuit that it picks up
        ("generator_kw", "f8"),
        ("generator_least_kw", "f8"),
        ("generator_start_s", "f8"),
        ("detect_s", "f8"),
        ("black_start_s", "f8"),
        ("return_wait_s", "f8"),
        ("ramp_s", "f8"),
        ("control", "i8"),
        ("backup", "i8"),
        ("former", "i8"),
        ("ev_first", "i8"),  # 1: EVs discharge before the battery
        ("parallel", "i8"),  # 1: its sources may run in parallel with the grid
        ("soc_min", "f8"),  # of the battery
        ("standby_kw", "f8"),  # that it draws besides
        ("battery", "i8"),  # row of the batteries' KIND; -1: none
        ("circuit", "i8", (2,)),  # its circuits, from and to, those served first come first
        ("ev", "i8", (2,)),  # its EVs
        ("outage", "i8", (2,)),  # its outages
    ],
    align=True,
)
"""Constants of a site."""

STATE = np.dtype(
    [
        ("mode", "i8"),  # ON_GRID, LOST, …
        ("since_s", "f8"),  # begin of the outage, or of the ramp
        ("until_s", "f8"),  # when what it waits for is over; inf: it waits for nothing
        ("stair", "i8"),  # of the ramp
        ("outage", "i8"),  # the outage under way or the next
        ("soc", "f8"),  # of the battery
        ("rests", "i8"),  # 1: it was empty in an island, and charges before it gives again
        ("fuel_kws", "f8"),
        ("unmet_from_s", "f8"),  # since when the critical load has not been met; NaN: it is
    ],
    align=True,
)
"""What a site remembers."""

EV = np.dtype(
    [
        ("session", "i8"),  # the session plugged in, or the next
        ("plugged", "i8"),
        ("must", "i8"),  # 0, BY_DEPARTURE or BY_RESERVE
        ("rests", "i8"),  # 1: it was empty in an island, and charges before it gives again
        ("out_kws", "f8"),  # energy out of its battery by discharging, over the run
        ("discharging_s", "f8"),  # time of it
        ("soc", "f8"),  # now, or with which it left
    ],
    align=True,
)
"""What a site knows of one of its EVs."""

CIRCUIT = np.dtype(
    [
        ("dark", "i8"),  # 1: without supply now
        ("dark_s", "f8"),  # time for which it has been without supply, until now
        ("cold_until_s", "f8"),  # end of its cold-load pick-up on the grid
    ],
    align=True,
)
"""What a site remembers of one of its circuits, where there is cold-load pick-up."""

FLOW = np.dtype(
    [
        (name, "f8")
        for name in (
            "imported", "exported", "served", "unserved", "critical_unserved", "pv", "pv_curtailed",
            "battery_in", "battery_out", "battery_loss", "generated", "ev_in", "ev_out", "dead",
            "cut_by_import", "cut_by_export", "cut_by_reserve", "cut_by_outage", "unmet_s", "interruptions",
        )
    ]
)  # fmt: skip
"""Energies of a site, kWs at its AC busbar, and seconds:

imported, exported : from and to the grid
served, unserved, critical_unserved : load; unserved is critical and other
pv, pv_curtailed : used, and available but not used
battery_in, battery_out, battery_loss : drawn and given by the stationary battery, and its loss
generated : by the generator
ev_in, ev_out : drawn and given by the EVs, standby included
dead : amount of energy over the meter while the grid was dead, of either sign
cut_by_import, cut_by_export, cut_by_reserve, cut_by_outage : of what was asked of EVs, by what cut it
unmet_s, interruptions : time in which critical load was not met, and how often that lasted over 5 min
"""


class Sites(NamedTuple):
    """The sites of a run.

    rows : (site,) SITE
    critical : (circuit,) 1 where the circuit is critical
    outage_begin_s, outage_end_s : (outage,), those of a site in order and disjoint
    batteries : kinds of the stationary batteries
    cold_factor, cold_s : load of a circuit that is back on the grid, as a multiple of what it would be, and
        the longest time for which that holds; 1: no cold-load pick-up
    """

    rows: Table
    critical: Ints
    outage_begin_s: Floats
    outage_end_s: Floats
    batteries: Kinds
    cold_factor: float
    cold_s: float


class EVs(NamedTuple):
    """The EVs of the sites, (ev,) those of a site side by side, and the sessions of a run.

    first, last : (ev,) range of its sessions, in order of arrival
    arrival_s, departure_s, soc_arrival, drive_kwh, kind : (session,), see
        :class:`evgrid.fleet.sessions.Sessions`
    kinds : what sessions share
    standby_kw : power that an EV plugged in draws while it idles on the grid
    refused, refused_in_island : (ev,) 1 where an EV never may discharge
    throughput_kws, discharging_s : the warranty's caps over the run
    willing_from_h, willing_until_h : local hours between which drivers let it; 0 and 24: all day
    start_h : local hour of the run's start
    """

    first: Ints
    last: Ints
    arrival_s: Floats
    departure_s: Floats
    soc_arrival: Floats
    drive_kwh: Floats
    kind: NDArray[np.int32]
    kinds: Kinds
    standby_kw: float
    refused: Ints
    refused_in_island: Ints
    throughput_kws: float
    discharging_s: float
    willing_from_h: float
    willing_until_h: float
    start_h: float


class Inputs(NamedTuple):
    """Powers over a span of time that holds the tick.

    edges_s : (slot + 1,) moments of change
    circuit_kw : (circuit, slot)
    pv_kw : (site, slot) available
    reserve_soc : (site, slot) state of charge held while the grid is there
    plan_battery_kw, plan_ev_kw : (site, slot), (ev, slot) of the control cost, positive charges
    plan_pv_kw : (site, slot) most PV used by the control cost; inf: no limit
    peak_kw : (site, slot) most power drawn by the control peak; inf: no limit
    request_kw : (ev,) what aggregators ask of EVs; inf: as fast as it can
    """

    edges_s: Floats
    circuit_kw: Floats
    pv_kw: Floats
    reserve_soc: Floats
    plan_battery_kw: Floats
    plan_ev_kw: Floats
    plan_pv_kw: Floats
    peak_kw: Floats
    request_kw: Floats


class Memory(NamedTuple):
    """What is remembered: (site,) STATE, (ev,) EV and (circuit,) CIRCUIT, updated."""

    sites: Table
    evs: Table
    circuits: Table


class Answer(NamedTuple):
    """What a tick fills; all but the segments' ends, set-points and supply are added to, and are 0 at its
    begin.

    flows : (site,) FLOW of the tick
    segments : (ev,) number of segments of an EV in the tick; more than there is room for: it is too long
    until_s, setpoint_kw, supply : (ev, room) see :class:`evgrid.fleet.kernels.records.Segments`
    drawn, own : (ev, room) energy that an EV draws in a segment, and that of it which the site does not draw
        from the grid, kWs
    island : (site,) s of the tick in which the site was an island
    ev_on_grid : (site,) energy that its EVs drew, less given, while it was on the grid, kWs
    """

    flows: Table
    segments: Ints
    until_s: Floats
    setpoint_kw: Floats
    supply: NDArray[np.int8]
    drawn: Floats
    own: Floats
    island: Floats
    ev_on_grid: Floats
