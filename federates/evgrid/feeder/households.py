"""Customers behind the loads of a network: their class, and the number of households.

In: the feeder's ``households``, ``customers`` and ``profiles``, and the loads. Out: for each load the number
of households, its standard profile and yearly energy. A household may have an EV with sessions at home, and
has a standard profile. No network gives their number, so a stated rule does: one a load by default; a
customer of another class, and a load with the profile of a heat pump, is none unless it is said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evgrid.core.element_names import ElementNames
from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.readers import Faults, read_table, shown
from evgrid.scenario.customers import CLASSES, CustomerClass, CustomerTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evgrid.feeder.grid import Ints, Loads
    from evgrid.scenario.feeder import Feeder, Households

_CODES = {"h0", *(f"g{k}" for k in range(7)), *(f"l{k}" for k in range(3))}


@dataclass(frozen=True)
class Customers:
    """Customers behind the loads of a network.

    households : (load,) number
    name : (load,) str, class in words
    code : (load,) str, its standard profile of BDEW, "" for heat pumps with a profile of their own
    annual_kwh : (load,) energy of a year, NaN where the load's own power says it
    """

    households: Ints
    name: NDArray[np.str_]
    code: NDArray[np.str_]
    annual_kwh: Array

    @property
    def others(self) -> Ints:
        """Positions of the loads of another class than households."""
        return np.flatnonzero(self.code != "h0")


def customers_of(settings: Feeder, loads: Loads) -> Customers:
    """The customers behind each load.

    Raises
    ------
    ScenarioError
        Naming the loads of a rule, class or table that the network does not have, and those of two classes.

    """
    size = len(loads.name)
    households = _by_rule(settings.households, loads)
    name, code = np.full(size, "household", "<U40"), np.full(size, "h0", "<U4")
    annual_kwh, stated = np.full(size, np.nan), np.full(size, -1, np.int64)
    if isinstance(settings.customers, CustomerTable):
        _from_table(settings.customers, loads, name, code, annual_kwh, stated)
    else:
        _from_classes(settings.customers, loads, name, code, annual_kwh, stated)
    households[code != "h0"] = 0
    for profile in settings.profiles.values():
        if profile.heat_pump is not None and profile.named is not None:
            pumps = ElementNames(loads.name).matching(profile.named)[0]
            households[pumps], name[pumps], code[pumps] = 0, "heat pump", ""
    households = np.where(stated >= 0, stated, households)
    by_load = {} if isinstance(settings.households, int) else settings.households.by_load
    households[ElementNames(loads.name).places(by_load)] = [*by_load.values()]
    return Customers(households, name, code, annual_kwh)


def _by_rule(rule: int | Households, loads: Loads) -> Ints:
    """Households behind each load by ``feeder.households``, (load,)."""
    if isinstance(rule, int):
        return np.full(len(loads.name), rule, np.int64)
    if rule.kw_each is not None:
        power_kw = np.maximum(loads.p_kw.sum(axis=1), 0.0)
        return np.asarray(np.maximum(np.round(power_kw / rule.kw_each), 1), np.int64)
    names = ElementNames(loads.name)
    place = names.places(rule.by_load)
    if (place < 0).any():
        raise ScenarioError(
            [
                f"feeder.households.by_load.{name}: the network has no such load; {names.hint(name)}"
                for name in np.array([*rule.by_load])[place < 0].tolist()
            ]
        )
    return np.full(len(loads.name), rule.others, np.int64)


def _from_classes(
    classes: dict[str, CustomerClass], loads: Loads, name: NDArray[np.str_], code: NDArray[np.str_],
    annual_kwh: Array, stated: Ints,
) -> None:  # fmt: skip
    """Fill in the loads of each class."""
    names, power_kw, faults = ElementNames(loads.name), loads.p_kw.sum(axis=1), list[str]()
    taken: dict[int, str] = {}
    for own, given in classes.items():
        fits = np.ones(len(loads.name), np.bool_)
        if given.at is not None:
            rows, missing = names.chosen(
                given.at, f"feeder.customers.{own}.at", "the network has no such load"
            )
            faults += missing
            fits = np.isin(np.arange(len(fits)), rows)
        if given.above_kw is not None:
            fits &= power_kw > given.above_kw
        if given.below_kw is not None:
            fits &= power_kw <= given.below_kw
        rows = np.flatnonzero(fits)
        for row in rows.tolist():
            other = taken.setdefault(row, own)
            if other != own:
                faults.append(f"feeder.customers.{own}: {loads.name[row]} is of the class {other} already")
        name[rows], code[rows] = own, CLASSES.get(given.profile, given.profile)
        annual_kwh[rows] = np.nan if given.annual_kwh is None else given.annual_kwh
        if given.households is not None:
            stated[rows] = given.households
    if faults:
        raise ScenarioError(faults)


def _from_table(
    given: CustomerTable, loads: Loads, name: NDArray[np.str_], code: NDArray[np.str_], annual_kwh: Array,
    stated: Ints,
) -> None:  # fmt: skip
    """Fill in the loads of a table."""
    table = read_table(given.file)
    faults, names = Faults(table), ElementNames(loads.name)
    faults.rows_unlike_header()
    known = ("load", "class", "annual_kwh", "households")
    faults.file(*(f"column {one} is missing" for one in known[:2] if one not in table))
    faults.file(
        *(f"column {shown(n)}: must be one of {', '.join(known)}" for n in table.names if n not in known)
    )
    faults.check()
    cells, kinds = table.text("load"), [kind.strip().casefold() for kind in table.text("class")]
    place = names.places(cells)
    faults.rows(
        place < 0,
        lambda row: f"load = {shown(cells[row])}: the network has no such load; {names.hint(cells[row])}",
    )
    again = [row for row, at in enumerate(place.tolist()) if at >= 0 and at in place[:row].tolist()]
    faults.rows(again, lambda row: f"load {shown(cells[row])} is there twice")
    odd = [row for row, kind in enumerate(kinds) if kind not in CLASSES and kind not in _CODES]
    faults.cells(odd, "class", f"must be one of {', '.join(CLASSES)}, g0 to g6, l0 to l2")
    numbers = [one for one in known[2:] if one in table]
    values = dict(zip(numbers, table.numbers(numbers, faults), strict=True))
    for one, column in values.items():
        whole = np.isnan(column) | (np.round(column) == column)
        bad = (column < 0) | ~whole if one == "households" else column <= 0
        faults.cells(bad, one, "must be a whole number" if one == "households" else "must be above 0")
    faults.check()
    name[place], code[place] = kinds, [CLASSES.get(kind, kind) for kind in kinds]
    if "annual_kwh" in values:
        annual_kwh[place] = values["annual_kwh"]
    if "households" in values:
        count = values["households"]
        stated[place] = np.where(np.isnan(count), -1, np.nan_to_num(count)).astype(np.int64)


def customers_notes(settings: Feeder, customers: Customers, loads: Loads) -> tuple[str, ...]:
    """The rules and what follows from them, a sentence each."""
    rule, households = settings.households, customers.households
    if isinstance(rule, int):
        text = "one a load" if rule == 1 else f"{rule} a load"
    elif rule.kw_each is not None:
        text = f"one per {rule.kw_each:g} kW of each load, at least one"
    else:
        text = f"of {len(rule.by_load)} loads as given, {rule.others} at each other"
    text = f"feeder.households: {text}; {int(households.sum())} at {len(households)} loads"
    if not isinstance(rule, int) and rule.kw_each is not None and len(households):
        most = int(households.argmax())
        kw = float(loads.p_kw[most].sum())
        text += f", most at {loads.name[most]} of {kw:.4g} kW, {households[most]}"
    notes = [text + "."]
    others = customers.others
    if settings.customers:
        rows = Counter(zip(customers.name.tolist(), customers.code.tolist(), strict=True))
        of = ", ".join(
            f"{count} {name}" + (f" ({code.upper()})" if code else "") for (name, code), count in rows.items()
        )
        kw = float(loads.p_kw[others].sum())
        without = int((households[others] == 0).sum())
        notes.append(
            f"feeder.customers: {of}; {len(others)} of {kw:.4g} kW are no households, {without} of them have "
            "no EV at home."
        )
    return tuple(notes)
