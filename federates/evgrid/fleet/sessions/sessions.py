"""The table of charging sessions: when EVs are plugged in, and what their drivers want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evgrid.battery.charging import charge_as_fast_as_possible, derive_kinds, tapers
from evgrid.battery.laws import battery_kw_drawn
from evgrid.battery.records import CURVE, KIND, Kinds
from evgrid.core.model import Array, EVs
from evgrid.scenario import Scenario
from evgrid.scenario.vehicles import ChargeCurve

if TYPE_CHECKING:
    from evgrid.fleet.sessions.charge_points import Queue

ONE_TYPE = "vehicle"
"""Name of the type of EVs that are all ``fleet.vehicle``."""
BIDIRECTIONAL = (0.0664, 0.0356, 2.24e-3)
"""Loss of a bidirectional vehicle, either way: a measured BMW i3, 66.4 W + 0.0356 P + 2.24e-6 P²/W.
At 3 x 16 A and 230 V: 93.9 % in, 93.2 % out, 87.5 % round trip (87.0 % measured, Schram 2020)."""

LOSSES = ("charge_a", "charge_b", "charge_c")
"""Fields of KIND with the losses of charging."""
LEAST_KW = 1e-3
"""Least power at the battery on a charging curve, where the constant loss takes all that is drawn."""


MOST = 1e6
"""Largest number of any column of a session file: kWh, kW, members."""


@dataclass(frozen=True)
class Sessions:
    """Charging sessions of all EVs of all members, sorted by EV, then arrival; (session,) each.

    Power and energy limits are at the grid. A session is plugged in over [arrival, departure).

    ev : int32, row of the EV table
    arrival_s, departure_s : s from the start of the run, any fraction; 0 <= arrival < departure. The
        arrival of a car that stood plugged in before the start is 0; departure may lie beyond the end.
    soc_arrival, soc_target, soc_floor : 0 to 1, in the battery at arrival, wanted at departure,
        lowest to which it may discharge
    capacity_kwh : usable, kWh
    charge_kw : the most that it draws: the lesser of EVSE and vehicle
    discharge_kw : the most that it gives, 0 if it may not
    charge_loss, discharge_loss : (session, 3), coefficients a (kW), b, c (1/kW) of the conversion
        loss a + b Pb + c Pb**2 at battery power Pb
    taper_soc : state of charge above which charging tapers
    drive_kwh : energy out of the battery since the EV's last session, kWh. An EV that had a session
        earlier in the run arrives with what that left it with less this, but with LEAST_SOC at least,
        in place of ``soc_arrival``. NaN where ``soc_arrival`` is to be taken as it is; left out: all NaN
    vehicle : str, name of the vehicle type; left out: ONE_TYPE
    chemistry : str, nmc or lfp, by which the battery ages; left out: empty, that of ``fleet.vehicle``
    charge_curves : charging curves by vehicle type, "" for types without one of their own; none: the taper
    left_out : sessions of a file that lie outside the run
    notes : sentences about where the sessions come from: rows read and dropped, and why
    unreachable : sessions whose energy doesn't fit into their stay, a sentence each
    queue : what came of them at shared charge points (:mod:`evgrid.fleet.sessions.charge_points`)
    """

    ev: NDArray[np.int32]
    arrival_s: Array
    departure_s: Array
    soc_arrival: Array
    soc_target: Array
    soc_floor: Array
    capacity_kwh: Array
    charge_kw: Array
    discharge_kw: Array
    charge_loss: Array
    discharge_loss: Array
    taper_soc: Array
    drive_kwh: Array = field(default_factory=lambda: np.zeros(0))
    vehicle: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, "U1"))
    chemistry: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, "U3"))
    charge_curves: Mapping[str, ChargeCurve] = field(default_factory=dict)
    left_out: int = 0
    notes: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    queue: Queue | None = None

    def __post_init__(self) -> None:
        if not len(self.drive_kwh):
            object.__setattr__(self, "drive_kwh", np.full(len(self.ev), np.nan))
        if not len(self.vehicle):
            object.__setattr__(self, "vehicle", np.full(len(self.ev), ONE_TYPE))
        if not len(self.chemistry):
            object.__setattr__(self, "chemistry", np.full(len(self.ev), "", "U3"))

    def __len__(self) -> int:
        return len(self.ev)

    def take(self, rows: NDArray[Any]) -> Sessions:
        """The sessions of some rows, in that order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def kinds(self) -> tuple[Kinds, NDArray[np.int32]]:
        """The constants that sessions share, and the kind of each session, (session,).

        Kinds are numbered in order of appearance.
        """
        columns = {
            "curve": self._curve_of(),
            "capacity_kwh": self.capacity_kwh,
            "soc_target": self.soc_target,
            "soc_floor": self.soc_floor,
            "taper_soc": self.taper_soc,
            "charge_kw": self.charge_kw,
            "discharge_kw": self.discharge_kw,
            **{f"charge_{name}": self.charge_loss[:, i] for i, name in enumerate("abc")},
            **{f"discharge_{name}": self.discharge_loss[:, i] for i, name in enumerate("abc")},
        }
        varying = [name for name, column in columns.items() if len(self) and np.ptp(column) > 0]
        kind_of = np.zeros(len(self), np.int64)
        if varying:
            frame = pd.DataFrame({name: columns[name] for name in varying})
            kind_of = np.asarray(frame.groupby(varying, sort=False).ngroup(), np.int64)
        _, first = np.unique(kind_of, return_index=True)
        rows = np.zeros(len(first), KIND)
        del columns["taper_soc"]
        for name, column in columns.items():
            rows[name] = column[first]
        kinds = Kinds(rows, self._set_curves(rows, self.taper_soc[first]))
        derive_kinds(kinds)
        return kinds, kind_of.astype(np.int32)

    def _curve_of(self) -> NDArray[np.int64]:
        """Number of each session's curve in ``charge_curves``, -1: the taper; (session,)."""
        names = list(self.charge_curves)
        number = np.full(len(self), names.index("") if "" in names else -1)
        for i, name in enumerate(names):
            number[self.vehicle == name] = i
        return number

    def _set_curves(self, rows: NDArray[np.void], taper_soc: Array) -> NDArray[np.void]:
        """CURVE of the kinds, (kind,) KIND, whose numbers of curves become rows of it."""
        curves, taper_row = tapers(taper_soc)
        with_curve = np.flatnonzero(rows["curve"] >= 0)
        keys = np.column_stack([rows[name][with_curve] for name in ("curve", *LOSSES)])
        distinct, row_of = np.unique(keys, axis=0, return_inverse=True)
        own = np.zeros(len(distinct), CURVE)
        given = list(self.charge_curves.values())
        for row, (number, *loss) in zip(own, distinct.tolist(), strict=True):
            curve = given[int(number)]
            row["knots"] = len(curve.soc)
            row["soc"][: len(curve.soc)] = curve.soc
            inner_kw = [max(battery_kw_drawn(kw, *loss), LEAST_KW) for kw in curve.kw]
            row["kw"][: len(curve.kw)] = inner_kw
        rows["curve"] = taper_row
        rows["curve"][with_curve] = len(curves) + row_of.reshape(-1)
        return np.concatenate([curves, own])


COLUMNS = tuple(
    f.name
    for f in fields(Sessions)
    if f.name not in ("charge_curves", "left_out", "notes", "unreachable", "queue")
)
"""Names of the columns of :class:`Sessions`."""
TEXTS = ("vehicle", "chemistry")
"""Those of them that hold text."""


def no_fleet() -> tuple[EVs, Sessions]:
    """Empty tables."""
    integer, number, losses = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3))
    evs = EVs(integer, integer, np.zeros(0, np.int8), np.zeros(0, np.str_))
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, number)
    columns |= {"ev": np.zeros(0, np.int32), "charge_loss": losses, "discharge_loss": losses}
    columns |= {name: np.zeros(0, np.str_) for name in TEXTS}
    return evs, Sessions(**columns)


def constant_efficiency(charge: Any, discharge: Any, length: int) -> tuple[Array, Array]:
    """Loss coefficients, (length, 3) each, of constant efficiencies (scalars or (length,), 0 to 1)."""
    charge_loss, discharge_loss = np.zeros((length, 3)), np.zeros((length, 3))
    charge_loss[:, 1] = 1.0 / np.asarray(charge) - 1.0
    discharge_loss[:, 1] = 1.0 - np.asarray(discharge)
    return charge_loss, discharge_loss


def outside_run(number: int) -> tuple[str, ...]:
    """A sentence on sessions of a file that are none of the run's, if there are any."""
    return (f"{number} sessions of the file lie outside the run and are left out.",) if number else ()


def within_run(sessions: Sessions, scenario: Scenario) -> Sessions:
    """Sessions in order of EV and arrival, cut to the run.

    What lies outside it altogether is left out. A car that stands plugged in at the start has
    charged as fast as it can since its arrival; its session begins at 0 with what it has then, and a note
    says how many those are.
    """
    if scenario.fleet is not None:
        sessions = replace(sessions, charge_curves=scenario.fleet.charge_curves)
    outside = (sessions.departure_s <= 0) | (sessions.arrival_s >= scenario.clock.duration_s)
    inside = sessions.take(np.flatnonzero(~outside))
    kinds, kind_of = inside.kinds()
    before = np.maximum(-inside.arrival_s, 0.0)
    soc = charge_as_fast_as_possible(kinds, kind_of, inside.soc_arrival, before)
    soc = np.where(before > 0, soc, inside.soc_arrival)
    under_way = int((before > 0).sum())
    notes = sessions.notes
    if under_way:
        kwh = float(((soc - inside.soc_arrival) * inside.capacity_kwh).sum())
        notes += (
            f"{under_way} of {len(inside)} sessions began before the start of the run: they are taken "
            f"to have charged as fast as they could until then ({kwh:.1f} kWh into the batteries, which the "
            "result does not count), and count from the start on.",
        )
    cut = replace(inside, soc_arrival=soc, arrival_s=np.maximum(inside.arrival_s, 0.0), notes=notes)
    return cut.take(np.lexsort((cut.arrival_s, cut.ev)))
