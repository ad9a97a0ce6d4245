"""The records that kernels take: tables of what EVs share and remember, and groups of arrays.

``OPTIONS`` holds constants, as ``KIND`` and ``CURVE`` do (:mod:`evgrid.battery.records`); ``STATE``
(:mod:`.lanes`), ``PHYSICS`` and ``FUNCTIONS`` what a tick reads and writes of an EV. The groups are what a
step is given: :class:`Tick`, :class:`SessionTable`, :class:`Fleet`, :class:`Details`, :class:`Results`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import literal_unroll
from numpy.typing import NDArray

from evgrid.battery.records import Floats, Integers, Kinds, Row, Table
from evgrid.core.jit import njit
from evgrid.fleet.kernels.lanes import Block, Blocks, Columns, Places
from evgrid.inverter_functions.kernels import TRIPS

PHYSICS = np.dtype(
    [
        ("ramped_kw", "f8"),  # set-point that the ramp limit has reached
        ("above_k", "f8"),  # cell temperature above that of a car that stands idle
        ("out_kws", "f8"),  # energy out of the battery by discharging, over the run
        ("discharging_s", "f8"),  # time of it
        ("past_kg", "f8"),  # emitted in the session, less that of its energy at the rate of now
        ("reactive_kvar", "f8"),  # response of the EVSE's reactive power: inverter_functions.kernels.STATE
        ("droop_kw", "f8"),  # response of its frequency-watt
        ("parameters", "i4"),  # row of the PARAMETERS of its EVSE's local functions
        ("square_kw2s", "f4"),  # integral of the squared battery power since its ageing was brought up
        ("refusal", "i1"),  # reason for which it never may discharge, 0 if it may
        ("island_refusal", "i1"),  # the same in an island, where no interconnection has to be approved
        ("capable", "i1"),  # 1: its EVSE has the local functions
        ("disturbed", "i1"),  # 1: its EVSE is off, ramping, timing a trip, or limits active power
        ("phases", "i1"),  # 1 or 3
        ("heading", "i1"),  # which way SOC went last in this session: 1 up, -1 down, 0 not yet
    ],
    align=True,
)
"""What the detailed step remembers of an EV besides STATE: 70 bytes."""

FUNCTIONS = np.dtype(
    [
        ("export_cut", "f8"),
        ("charging_cut", "f8"),
        ("clock_s", "f8"),
        ("beyond_s", "f8", (TRIPS,)),
        ("mode", "i1"),
        ("timing", "i1"),
    ]
)
"""What an EVSE's functions remember besides PHYSICS, read and written while disturbed only: 90 bytes.

Fields as in :data:`evgrid.inverter_functions.kernels.STATE`."""

OPTIONS = np.dtype(
    [
        ("throughput_kws", "f8"),  # cap on energy out of the battery; inf: none
        ("discharging_s", "f8"),  # cap on the time of it
        ("warranty_floor", "f8"),
        ("driver_floor", "f8"),
        ("least_a", "f8"),  # least charging current, 0: any
        ("pilot_a", "f8"),  # step of the pilots, 0: any
        ("volt", "f8"),  # phase to neutral, nominal
        ("ramp_kw_per_s", "f8"),  # inf: none
        ("standby_kw", "f8"),
        ("heating_k_per_kw", "f8"),  # steady rise of the cell per kW of loss
        ("cooling_per_s", "f8"),  # 1 / time constant of the cell
        ("thermal", "i8"),  # 1: temperature limits power
        ("freezing_c", "f8"),  # no charging below
        ("mild_c", "f8"),  # full power from here
        ("cold_c_rate", "f8"),  # limit at freezing, 1/h
        ("mild_c_rate", "f8"),  # limit just below mild
        ("warm_c", "f8"),  # derating from here
        ("hot_c", "f8"),  # stop
        ("functions", "i8"),  # 1: EVSEs have local functions
        ("emissions", "i8"),  # 1: emissions are counted
        ("ageing", "i8"),  # 1: batteries age
        ("away_c_rate", "f8"),  # of driving, 1/h, for ageing
    ],
    align=True,
)
"""Settings of the detailed step, the same for all EVs."""


class SessionTable(NamedTuple):
    """The sessions of a run, (session,), sorted by EV, then arrival; those of an EV don't overlap.

    ev : row of the EV
    arrival_s, departure_s : times
    soc_arrival : updated where it follows from the session before, see :func:`.sessions.start_session`
    drive_kwh : energy driven since the EV's session before, NaN: ``soc_arrival`` is taken as it is
    kind : row of KIND
    by_arrival : the sessions in order of arrival
    outcome : (session, 5), filled by :func:`.sessions.close_session`
    details : (session, len(REASONS) + 3), filled by :func:`.one_ev.end_session`; (0, 0) in the basic step
    """

    ev: Integers
    arrival_s: Floats
    departure_s: Floats
    soc_arrival: Floats
    drive_kwh: Floats
    kind: Integers
    by_arrival: Integers
    outcome: Floats
    details: Floats


class Segments(NamedTuple):
    """Set-points that change within a tick, of the EVs that have any.

    first : (ev + 1,), the segments of EV i are first[i] up to first[i + 1], none: ``setpoint_kw`` holds for
        the whole tick; (0,) where no EV has segments
    until_s : (segment,) end of each; it begins where the one before ends, the first with the tick, and the
        last ends with the tick
    setpoint_kw : (segment,)
    supply : (segment,) DEAD, ISLANDED, BEHIND_SITE or SUPPLIED of :mod:`evgrid.battery.records`
    free, forgone : (segment,) shares of the energy drawn that are the site's own: that cost nothing, and that
        cost what is paid for energy given to the grid; (0,): none
    """

    first: NDArray[np.int64]
    until_s: Floats
    setpoint_kw: Floats
    supply: NDArray[np.int8]
    free: Floats = np.zeros(0)
    forgone: Floats = np.zeros(0)


NO_SEGMENTS = Segments(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.int8))
"""No EV has segments."""


class Span(NamedTuple):
    """A time over which one EV is advanced: begin and length (> 0) in s, set-point in kW, supply, and the
    shares of the energy drawn that are free, and that cost what is forgone (:class:`Segments`).
    """

    begin_s: float
    seconds: float
    setpoint_kw: float
    supply: int
    free: float
    forgone: float


class Tick(NamedTuple):
    """A tick, and what is seen and asked of the EVs in it.

    begin_s, step_s : its begin and length
    managed, setpoint_kw : set-points, (ev,) kW, if managed; else every EV charges as fast as it can
    rates : (3,) price of energy drawn and given, and emissions, per kWs: see :func:`.sessions.reprice`
    voltage_pu : (slot,), of the last tick, 0 where there is none; (0,) where there are no local functions
    frequency_hz : (member,), of this tick
    willing : whether drivers let discharge at this time of day
    idle_c : temperature of the cell of a car that stands idle
    segments : set-points that change within the tick
    """

    begin_s: float
    step_s: float
    managed: bool
    setpoint_kw: Floats
    rates: Floats
    voltage_pu: Floats = np.zeros(0)
    frequency_hz: Floats = np.full(1, 50.0)
    willing: bool = True
    idle_c: float = 25.0
    segments: Segments = NO_SEGMENTS


class Fleet(NamedTuple):
    """The EVs: where each stands, their blocks of STATE, what moves with an EV, and what sessions share."""

    places: Places
    state: Blocks
    columns: Columns
    kinds: Kinds


class Details(NamedTuple):
    """What the detailed step takes besides.

    options, physics : () OPTIONS and blocks of PHYSICS, the latter updated
    parameters, parameters_of : PARAMETERS of the local functions, and the row of each kind, (kind,), the last
        row being that of an EVSE without functions
    functions : (ev,) FUNCTIONS, updated; one row where there are no functions
    ageing, laws : (ev,) STATE of the ageing, updated, or (0,), and its LAWS
    """

    options: Row
    physics: Blocks
    parameters: Table
    parameters_of: Integers
    functions: Table
    ageing: Table
    laws: Table


class Results(NamedTuple):
    """Arrays that a step fills; those of slots are to be left as they are from tick to tick.

    power_kw, reactive_kvar : (slot,) mean over the tick, on the grid; a slot is a member's connection and
        phase; reactive power (0,) in the basic step
    plugged : (member,) number of EVs plugged in, mean over the tick
    ev_power_kw, ev_soc : (ev,) mean power, and SOC at the end (NaN while away), or (0,)
    mean_kw, mean_kvar : (ev,) room to work in; the latter (0,) in the basic step
    islanded_kw : (ev,) mean power in islands and off grid, which is no part of ``power_kw``; (0,) where there
        are no sites; filled where it is not 0
    """

    power_kw: Floats
    reactive_kvar: Floats
    plugged: Floats
    ev_power_kw: Floats
    ev_soc: Floats
    mean_kw: Floats
    mean_kvar: Floats
    islanded_kw: Floats = np.zeros(0)


_OWN = PHYSICS.names


@njit
def lift_own(block: Block, i: int, physics: Row) -> None:
    """Copy what a block of PHYSICS holds of lane ``i`` to a row."""
    for name in literal_unroll(_OWN):
        physics[name] = block[name][i]


@njit
def lower_own(physics: Row, block: Block, i: int) -> None:
    """Copy a row of PHYSICS to lane ``i`` of a block."""
    for name in literal_unroll(_OWN):
        block[name][i] = physics[name]
