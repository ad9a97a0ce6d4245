"""Current that a load of OpenDSS draws at a voltage, for each of its load models.

Arrays only. Power is in VA, voltage in V, current in A. A model holds from ``v_min`` to ``v_max`` times the
nominal voltage. Above, the load is the constant impedance that is continuous there; below, an impedance
between that and the nominal one, which it has at ``v_low`` and less (OpenDSS manual, Load object: vminpu,
vmaxpu, vlowpu, model).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evgrid.core.jit import inlined, njit

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONSTANT_POWER, CONSTANT_IMPEDANCE, CVR, CONSTANT_CURRENT, ZIP = 1, 2, 4, 5, 8


class LoadModels(NamedTuple):
    """The model of each port, (port,) each.

    model : number of OpenDSS' load model
    volts : nominal voltage, V
    v_low, v_min, v_max : pu of it, see the module
    cvr : (port, 2) exponents of active and reactive power (CVR)
    zip_share : (port, 7) shares of impedance, current and power of the active, then of the reactive power,
        and the voltage at which the load drops out, pu (ZIP)
    """

    model: Ints
    volts: Floats
    v_low: Floats
    v_min: Floats
    v_max: Floats
    cvr: Floats
    zip_share: Floats


def together(*parts: LoadModels) -> LoadModels:
    """The models of several groups of ports, one after the other."""
    return LoadModels(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def constant_power(volts: Floats) -> LoadModels:
    """Models of ports that draw constant power at any voltage."""
    count = len(volts)
    return LoadModels(
        np.full(count, CONSTANT_POWER), volts, np.zeros(count), np.zeros(count), np.full(count, np.inf),
        np.zeros((count, 2)), np.zeros((count, 7)),
    )  # fmt: skip


@njit
def currents(voltage: Complex, cases: Ints, power: Complex, models: LoadModels, out: Complex) -> None:
    """Current drawn at each port, A, into ``out`` (port, column).

    voltage : (port, column) across the port, V; a column is one of the cases
    cases : (column,) its place among the columns of ``power``
    power : (port, case) at nominal voltage, VA
    """
    for port in range(len(voltage)):
        for column in range(len(cases)):
            out[port, column] = _current(voltage[port, column], power[port, cases[column]], models, port)


@inlined
def _current(u: complex, power: complex, models: LoadModels, port: int) -> complex:
    """Current of one port."""
    size, volts, model = np.sqrt(u.real * u.real + u.imag * u.imag), models.volts[port], models.model[port]
    if power == 0j or size == 0.0:
        return 0j
    nominal: complex = power.conjugate() / (volts * volts)
    pu = size / volts
    if model == CONSTANT_IMPEDANCE or pu <= models.v_low[port]:
        return nominal * u
    as_power, as_current = _admittances(
        nominal, pu, models.v_low[port], models.v_min[port], models.v_max[port]
    )
    if model == CONSTANT_POWER:
        return as_power * u
    if model == CONSTANT_CURRENT:
        return as_current * u
    if model == CVR:
        if pu <= models.v_min[port] or pu > models.v_max[port]:
            return as_power * u
        real = nominal.real * pu ** (models.cvr[port, 0] - 2.0)
        return complex(real, nominal.imag * pu ** (models.cvr[port, 1] - 2.0)) * u
    share = models.zip_share[port]
    real = share[0] * nominal.real + share[1] * as_current.real + share[2] * as_power.real
    imaginary = share[3] * nominal.imag + share[4] * as_current.imag + share[5] * as_power.imag
    drawn = complex(real, imaginary) * u
    if share[6] > 0.0:
        drawn *= 0.5 * (1.0 + np.tanh(500.0 * (pu - share[6])))
    return drawn


@inlined
def _admittances(
    nominal: complex, pu: float, v_low: float, v_min: float, v_max: float
) -> tuple[complex, complex]:
    """Admittance at a voltage of a load of constant power, and of one of constant current."""
    if pu > v_max:
        return nominal / (v_max * v_max), nominal / v_max
    if pu > v_min:
        return nominal / (pu * pu), nominal / pu
    share = (pu - v_low) / (v_min - v_low)  # of the currents, between those at v_low and v_min
    return (
        nominal * (v_low + share * (1.0 / v_min - v_low)) / pu,
        nominal * (v_low + share * (1.0 - v_low)) / pu,
    )
