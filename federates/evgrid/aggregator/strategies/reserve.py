"""Reserve: a fleet that offers a product's capacity and delivers it as frequency or set-points require.

The product (:mod:`evgrid.scenario.products`) defines the activation per unit of capacity: by its curve of
the system's frequency (FCR, FCR-N, FCR-D, Dynamic Containment, or one of the user's own), or by the
set-points of the operator (aFRR), which are ``system.regulation`` held for the product's ``signal_step_s``.
Operating point and capacity are those of :mod:`evgrid.aggregator.strategies.regulation`, with two
differences: a product of one direction is offered from that side of the envelopes only, and full activation
must hold for the product's endurance, unless ``hold`` is given. The offer is renewed every hour and, for
short runs, made as soon as the fleet has reported.

**Rating.** Required in each tick is the slowest delivery that still meets the product's response time;
delivered is the fleet's deviation from its operating point in the direction required, up to what is
required. Their energies over an hour give the share delivered. The capacity is paid by that share, in
full without activation; the products' own rules for that are left out, as is the
price of the energy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from evgrid.aggregator.strategies.regulation import Offering, OfferSettings, begins, ratio
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Array, Variable
from evgrid.scenario.products import Product, find_product
from evgrid.scenario.system import NoRegulation
from evgrid.system.products import activation, one_way, slowest_delivery

if TYPE_CHECKING:
    from evgrid.scenario import Scenario


class ReserveSettings(OfferSettings):
    """Settings of the strategy ``reserve``; ``hold`` left out: the product's endurance."""

    product: Annotated[Product, BeforeValidator(find_product, json_schema_input_type=str | Product)]
    """Name of the product, a name with changes ({name: fcr, endurance_s: 1800}), or one of your own."""
    capacity_price: Annotated[float, Field(ge=0)] = 10.0
    """Price of capacity, currency per MW and hour."""


_HOURLY = tuple(
    Variable(name, ("member", "hour"), unit, text, timed=False)
    for name, unit, text in (
        ("reserve_capacity_kw", "kW", "reserve capacity offered, mean over the hour"),
        ("reserve_required_kwh", "kWh", "energy that activations required within the response time"),
        ("reserve_delivered_kwh", "kWh", "energy delivered of that which was required"),
        ("reserve_delivery", "1", "energy delivered per energy required; NaN where none was"),
        ("reserve_credit", "currency", "capacity times price and share delivered"),
    )
)


class Reserve(Offering):
    """Sell a reserve product and deliver it as the frequency or the operator's set-points require."""

    Settings = ReserveSettings
    needs_of_system = ("frequency",)
    variables = (*Offering.variables, *_HOURLY)

    @classmethod
    def faults(cls, settings: Any, scenario: Scenario) -> list[str]:
        """See :meth:`Strategy.faults`."""
        product, system, found = settings.product, scenario.system, super().faults(settings, scenario)
        if system is None:
            return found
        if product.driver == "frequency" and product.nominal_hz != system.nominal_hz:
            found.append(
                f"product = {product.name}: is for {product.nominal_hz:g} Hz, "
                f"system.nominal_hz is {system.nominal_hz:g}"
            )
        if product.driver == "signal" and isinstance(system.regulation, NoRegulation):
            found.append(f"product = {product.name}: follows set-points, needs system.regulation")
        return found

    def __init__(self, settings: Any, context: Context) -> None:
        product: Product = settings.product
        if "hold" not in settings.model_fields_set:
            settings = settings.model_copy(update={"hold": product.endurance_s})
        super().__init__(settings, context)
        self.sides = (product.direction != "down", product.direction != "up")
        self._setpoint = np.zeros(self._members)
        self._known = False

    def offers(self, view: View) -> bool:
        """See :meth:`Offering.offers`: also as soon as the fleet has reported."""
        first = not self._known and bool(view.plugged.any())
        self._known |= first
        return first or super().offers(view)

    def activation(self, view: View) -> Array:
        """See :meth:`Offering.activation`."""
        product: Product = self.settings.product
        if product.driver == "frequency":
            return activation(product, view.frequency)
        if product.signal_step_s is None or begins(view.time_s, product.signal_step_s):
            self._setpoint = one_way(product, view.regulation)
        return self._setpoint

    def results(self) -> dict[str, Array]:
        """Energy required and delivered in each whole hour, (member, hour)."""
        product: Product = self.settings.product
        slowest = slowest_delivery(product, self._signal, self.context.clock.step_s)
        # a smaller activation may be followed at once
        least = np.where(slowest * self._signal > 0, np.minimum(np.abs(slowest), np.abs(self._signal)), 0.0)
        required = self._offered * np.sign(self._signal) * least
        given = np.clip(self.response() * np.sign(required), 0.0, np.abs(required))
        asked_kwh, given_kwh = self.energy(np.abs(required)), self.energy(given)
        capacity, share = self.energy(self._offered), ratio(given_kwh, asked_kwh)
        paid = np.where(np.isnan(share), 1.0, share)
        values = (
            capacity, asked_kwh, given_kwh, share, capacity / 1000.0 * self.settings.capacity_price * paid,
        )  # fmt: skip
        return {variable.name: value for variable, value in zip(_HOURLY, values, strict=True)}
