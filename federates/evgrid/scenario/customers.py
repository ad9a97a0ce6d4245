"""Settings of the customers behind the loads of a network: classes by name or size, or a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from evgrid.scenario.fields import ExistingFile, NamePatterns, NotNegative, Positive, Settings, fault

CLASSES = {"household": "h0", "shop": "g4", "office": "g1", "farm": "l0", "business": "g0"}
"""BDEW's standard profile of a class by name: h0 households, g4 shops, g1 offices and others open on weekdays
from 8 to 18, l0 farms, g0 businesses in general."""

ClassName = Literal[
    "household", "shop", "office", "farm", "business",
    "h0", "g0", "g1", "g2", "g3", "g4", "g5", "g6", "l0", "l1", "l2",
]  # fmt: skip


class CustomerClass(Settings):
    """A class of customers: the loads that it is of, and what they stand for."""

    at: NamePatterns = None
    """Names of loads, or patterns such as 'Shop*'; with above_kw or below_kw both must hold."""
    above_kw: NotNegative | None = None
    """Loads of more power in the network, kW."""
    below_kw: Positive | None = None
    """Loads of at most this power in the network, kW."""
    profile: ClassName
    """Standard profile of BDEW, from demandlib: household (h0), shop (g4), office (g1), farm (l0), business
    (g0), or one of its codes, h0, g0 to g6, l0 to l2. It is that of base_load.source: standard."""
    annual_kwh: Positive | None = None
    """Energy of a year of each, kWh; left out: the load's own power in the network is that of the year's
    highest quarter-hour. For households see base_load.annual_kwh."""
    households: Annotated[int, Field(ge=0)] | None = None
    """Households behind each, which may have EVs at home; left out: for households feeder.households, else
    0."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.at is None and self.above_kw is None and self.below_kw is None:
            raise fault("give at, above_kw or below_kw: which loads are of the class")
        if self.profile in ("household", "h0") and self.annual_kwh is not None:
            raise fault("annual_kwh: is base_load.annual_kwh for households")
        return self


class CustomerTable(Settings):
    """Customers from a table."""

    file: ExistingFile
    """CSV, Excel or Parquet with a row a load: load, class (household, shop, office, farm, business, or a
    code), and if it has them, annual_kwh and households; empty cells are as for a class. Loads that it lacks
    are households."""


def _kind(value: Any) -> str:
    table = isinstance(value, CustomerTable) or (
        isinstance(value, Mapping) and isinstance(value.get("file"), str | bytes) and len(value) == 1
    )
    return "<table>" if table else "<classes>"


Customers = Annotated[
    Annotated[dict[str, CustomerClass], Tag("<classes>")] | Annotated[CustomerTable, Tag("<table>")],
    Discriminator(_kind),
]
"""Classes by a name of your own, or {file: customers.csv}."""
