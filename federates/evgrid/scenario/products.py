"""Reserve and regulation products as parameter sets.

A product defines the activation of a provider, from -1 to 1: a function of frequency
(droop products), or a signal of the operator. +1 is all of the capacity upward (more
generation, or less drawn), at low frequency. Values that are not in the cited rule are
defaults that a scenario can change.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from evgrid.scenario.fields import Settings, fault

Point = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0, le=1)]]


class Product(Settings):
    """A reserve or regulation product."""

    name: str
    """Name in scenarios."""
    title: str
    """Full name and market."""
    driver: Literal["frequency", "signal"]
    """Source of the activation: local frequency, or the operator's signal."""
    nominal_hz: Annotated[float, Field(gt=0)] = 50.0
    """Nominal frequency of the system, Hz."""
    curve: tuple[Point, ...] = ()
    """Activation by frequency: pairs of deviation (Hz, ascending, at least 0) and share of the
    capacity (0 to 1, not falling), linear between, constant beyond the last; symmetric."""
    deadband_hz: Annotated[float, Field(ge=0)] = 0.0
    """Deviation up to which nothing is activated, Hz. The curve is not shifted by it: activation begins
    with the curve's value at the deadband's edge."""
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
    """Source of the rule."""

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
"""The built-in products by name."""


def find_product(value: Any) -> Any:
    """A product by name, or by name with changes: ``{name: fcr, endurance_s: 1800}``; for pydantic.

    A mapping whose name is not known is a user's own product, in full.
    """
    if isinstance(value, str):
        if value not in PRODUCTS:
            raise fault(f"must be one of {', '.join(sorted(PRODUCTS))}")
        return PRODUCTS[value]
    if isinstance(value, Mapping) and value.get("name") in PRODUCTS:
        return {**PRODUCTS[value["name"]].model_dump(), **value}
    return value
