"""Reserve and regulation products as parameter sets.

A product says what it asks of a provider: an activation from -1 to 1 as a function of frequency
(droop products), or a signal that the operator sends. +1 is all of the capacity upward (more
generation, or less drawn), at low frequency. Values that are not in the named rule stand
beside it as defaults that a scenario can change.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from evgrid.model import Array
from evgrid.settings import Settings, fault
from evgrid.system.kernels import limit_ramp

Point = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0, le=1)]]


class Product(Settings):
    """A reserve or regulation product."""

    name: str
    """Name in scenarios."""
    title: str
    """Name in full, and where it is traded."""
    driver: Literal["frequency", "signal"]
    """What activates it: local frequency, or the operator's signal."""
    nominal_hz: Annotated[float, Field(gt=0)] = 50.0
    """Nominal frequency of the system, Hz."""
    curve: tuple[Point, ...] = ()
    """Activation by frequency: pairs of deviation (Hz, ascending, at least 0) and share of the
    capacity (0 to 1, not falling), linear between, constant beyond the last; both ways alike."""
    deadband_hz: Annotated[float, Field(ge=0)] = 0.0
    """Deviation up to which nothing is activated, Hz. The curve is not shifted by it: where it has
    a value at the deadband's edge, activation begins with that."""
    direction: Literal["both", "up", "down"] = "both"
    """up: only at low frequency or positive signals; down: only at high ones."""
    response_s: Annotated[float, Field(ge=0)] = 0.0
    """Time within which response_share of a full activation must be delivered, s; 0: at once."""
    response_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share that must be delivered within response_s, 0 to 1."""
    endurance_s: Annotated[float, Field(gt=0)] = 900.0
    """Time for which full activation must be sustained by a unit of limited energy, s."""
    signal_step_s: Annotated[float, Field(gt=0)] | None = None
    """Period of the operator's signal, s; none for droop products."""
    scorer: str | None = None
    """Scorer that rates a response (evgrid.system.scores), if the product has one."""
    source: str = ""
    """Where the rule stands."""

    @model_validator(mode="after")
    def _consistent(self) -> Product:
        if (self.driver == "frequency") != bool(self.curve):
            raise fault("curve: a product driven by frequency must have one, one driven by a signal must not")
        for (left, below), (right, above) in pairwise(self.curve):
            if right <= left or above < below:
                raise fault("curve: deviations must rise and shares must not fall")
        return self

    @property
    def rate_per_s(self) -> float:
        """Slowest ramp that meets the response time, share of capacity per second."""
        return self.response_share / self.response_s if self.response_s else np.inf


def activation(product: Product, frequency_hz: Array | float) -> Array:
    """Share of the capacity that a droop product asks for, -1 to 1, of the shape of ``frequency_hz``.

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
    """The slowest delivery that still meets the response time, ramping towards what is wanted.

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


_PRODUCTS = (
    Product(
        name="fcr", title="Frequency containment reserve, continental Europe", driver="frequency",
        curve=((0.0, 0.0), (0.2, 1.0)), deadband_hz=0.01, response_s=30.0, endurance_s=900.0,
        source="Regulation (EU) 2017/1485, art. 154 and annex V: full at 200 mHz within 30 s, combined "
        "insensitivity and dead band up to 10 mHz; endurance of limited units 15 to 30 min",
    ),
    Product(
        name="fcr_n", title="Frequency containment reserve for normal operation, Nordic", driver="frequency",
        curve=((0.0, 0.0), (0.1, 1.0)), response_s=180.0, endurance_s=3600.0,
        source="Nordic technical requirements for FCR: linear to 100 mHz; the response time of 3 min and "
        "the endurance of 1 h are defaults to check against the edition in force",
    ),
    Product(
        name="fcr_d_up", title="Frequency containment reserve for disturbances, up, Nordic",
        driver="frequency", curve=((0.1, 0.0), (0.5, 1.0)), deadband_hz=0.1, direction="up",
        response_s=7.5, response_share=0.86, endurance_s=1200.0,
        source="Nordic technical requirements for FCR: 49.9 to 49.5 Hz, 86 % within 7.5 s; the endurance "
        "of 20 min is a default to check against the edition in force",
    ),
    Product(
        name="fcr_d_down", title="Frequency containment reserve for disturbances, down, Nordic",
        driver="frequency", curve=((0.1, 0.0), (0.5, 1.0)), deadband_hz=0.1, direction="down",
        response_s=7.5, response_share=0.86, endurance_s=1200.0,
        source="Nordic technical requirements for FCR: 50.1 to 50.5 Hz, 86 % within 7.5 s; the endurance "
        "of 20 min is a default to check against the edition in force",
    ),
    Product(
        name="dynamic_containment", title="Dynamic Containment, Great Britain", driver="frequency",
        curve=((0.015, 0.0), (0.2, 0.05), (0.5, 1.0)), deadband_hz=0.015, response_s=1.0,
        endurance_s=900.0,
        source="NESO, Dynamic Containment service terms: deadband 15 mHz, knee 5 % at 0.2 Hz, full at "
        "0.5 Hz within 1 s, 15 min",
    ),
    Product(
        name="afrr", title="Automatic frequency restoration reserve, continental Europe", driver="signal",
        response_s=300.0, endurance_s=900.0, signal_step_s=4.0,
        source="aFRR implementation framework: set-points of 4 s, full activation time 5 min; the "
        "endurance of 15 min (a market time unit) is a default",
    ),
    Product(
        name="pjm_rega", title="Regulation A, PJM (to 30 September 2025)", driver="signal", nominal_hz=60.0,
        response_s=300.0, endurance_s=900.0, signal_step_s=2.0, scorer="pjm",
        source="PJM Manual 12, section 4.5: slow signal, not energy-neutral, full capacity within 5 min",
    ),
    Product(
        name="pjm_regd", title="Regulation D, PJM (to 30 September 2025)", driver="signal", nominal_hz=60.0,
        response_s=0.0, endurance_s=900.0, signal_step_s=2.0, scorer="pjm",
        source="PJM Manual 12, section 4.5: fast signal, energy-neutral over about 15 min",
    ),
    Product(
        name="caiso_regulation", title="Regulation, CAISO", driver="signal", nominal_hz=60.0,
        response_s=600.0, endurance_s=900.0, signal_step_s=4.0, scorer="caiso",
        source="CAISO tariff 8.2.3: AGC set-points of 4 s, rated in 15 min; capacity is what ramps in "
        "10 min",
    ),
)  # fmt: skip

PRODUCTS: dict[str, Product] = {product.name: product for product in _PRODUCTS}
"""The products that evgrid knows, by name."""


def find_product(value: Any) -> Any:
    """A product by name, or by name with changes: ``{name: fcr, endurance_s: 1800}``; for pydantic.

    A mapping whose name is not known is a product of the user's own, whole.
    """
    if isinstance(value, str):
        if value not in PRODUCTS:
            raise fault(f"must be one of {', '.join(sorted(PRODUCTS))}")
        return PRODUCTS[value]
    if isinstance(value, Mapping) and value.get("name") in PRODUCTS:
        return {**PRODUCTS[value["name"]].model_dump(), **value}
    return value
