"""Activation, ramps and energy that reserve and regulation products require."""

from __future__ import annotations

import numpy as np

from evgrid.core.model import Array
from evgrid.scenario.products import Product
from evgrid.system.kernels import limit_ramp


def activation(product: Product, frequency_hz: Array | float) -> Array:
    """Share of the capacity that a droop product activates, -1 to 1, of the shape of ``frequency_hz``.

    0 inside the deadband (its edge included), the curve outside. NaN frequency gives NaN. FCR at
    49.9 Hz: 0.5. Raises ValueError for a product driven by a signal.
    """
    if product.driver != "frequency":
        raise ValueError(f"product {product.name} follows a signal: it has no activation by frequency")
    deviation = np.asarray(frequency_hz, dtype=np.float64) - product.nominal_hz
    at, share = np.array(product.curve).T
    size = np.interp(np.abs(deviation), at, share)
    inside = np.abs(deviation) <= product.deadband_hz * (1 + 1e-9)
    if at[0] > 0:
        inside |= np.abs(deviation) < at[0] * (1 - 1e-9)
    wanted = np.where(inside, 0.0, np.where(deviation < 0, size, -size))
    return one_way(product, wanted)


def one_way(product: Product, wanted: Array) -> Array:
    """Cut an activation or a signal to the product's direction and to -1 to 1."""
    low = 0.0 if product.direction == "up" else -1.0
    high = 0.0 if product.direction == "down" else 1.0
    return np.clip(wanted, low, high)


def slowest_delivery(product: Product, wanted: Array, step_s: float, start: Array | float = 0.0) -> Array:
    """The slowest delivery that still meets the response time, ramping towards the activation.

    wanted : (..., time), share of capacity, every ``step_s``; start : (...), delivered before.
    Returns (..., time). With no response time it is ``wanted``.
    """
    wanted = np.asarray(wanted, dtype=np.float64)
    if not product.response_s:
        return wanted.copy()
    flat = wanted.reshape(-1, wanted.shape[-1])
    begin = np.broadcast_to(np.asarray(start, dtype=np.float64), wanted.shape[:-1]).reshape(-1)
    return limit_ramp(flat, np.ascontiguousarray(begin), product.rate_per_s * step_s).reshape(wanted.shape)


def held_energy_kwh(product: Product, capacity_kw: Array | float) -> Array:
    """Energy to hold ready in each of the product's directions, kWh: capacity times endurance."""
    return np.asarray(capacity_kw, dtype=np.float64) * product.endurance_s / 3600.0
