"""The records of battery and charger that kernels take.

``KIND`` holds the constants of a kind of battery behind a charger, ``CURVE`` those of a charging curve.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = np.void
"""One row of a table."""
Floats = NDArray[np.float64]
Integers = NDArray[np.int32]
Table = NDArray[np.void]
"""Rows of one of the dtypes below."""

KNOTS = 32
"""Most knots of a charging curve."""

KIND = np.dtype(
    [
        ("capacity_kwh", "f8"),
        ("soc_target", "f8"),
        ("soc_floor", "f8"),
        ("charge_kw", "f8"),  # AC limit
        ("charge_a", "f8"),
        ("charge_b", "f8"),
        ("charge_c", "f8"),
        ("discharge_kw", "f8"),  # AC limit, 0: may not
        ("discharge_a", "f8"),
        ("discharge_b", "f8"),
        ("discharge_c", "f8"),
        # derived by derive_kinds
        ("battery_kw", "f8"),  # battery power at charge_kw
        ("most_out_kw", "f8"),  # battery power at discharge_kw
        ("soc_per_kws", "f8"),  # 1 / (3600 capacity)
        ("s_per_soc", "f8"),  # at battery_kw
        ("knee_soc", "f8"),  # SOC at which its charging curve is at its most for the last time
        ("knee_s", "f8"),  # from there to soc_target, as fast as possible
        ("full_power_soc", "f8"),  # SOC up to which battery_kw can be drawn from 0 on
        ("full_charge_s", "f8"),  # from 0 to soc_target, as fast as possible
        ("held_kw", "f8"),  # see laws.held_up_to_soc
        ("soc_per_kw", "f8"),
        ("curve_kw", "f8"),  # power of 1 on its charging curve
        ("curve", "i8"),  # row of CURVE
    ],
    align=True,
)
"""Constants of a kind of session: those of the same limits, losses and target share a row."""

CURVE = np.dtype(
    [
        ("soc", "f8", (KNOTS,)),  # ascending
        ("kw", "f8", (KNOTS,)),  # at the battery, > 0; shares of battery_kw where it is relative
        ("knots", "i8"),
        ("relative", "i8"),
    ],
    align=True,
)
"""A charging curve: most battery power against state of charge, linear between knots, constant beyond."""


DEAD, ISLANDED, BEHIND_SITE, SUPPLIED = 0, 1, 2, 3
"""Supply of an EV: no power flows; in an island behind the meter, where the departure guard and the functions
by voltage don't act and no interconnection has to be approved; on the grid behind a controller (a site's, or
that of the return from an outage), where the departure guard doesn't act; or on the grid."""


class Kinds(NamedTuple):
    """What sessions share.

    rows : (kind,) KIND
    curves : (curve,) CURVE
    """

    rows: Table
    curves: Table
