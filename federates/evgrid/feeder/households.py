"""Number of households behind each load of a network.

In: the scenario's ``feeder.households`` and the loads. Out: (load,) whole numbers. A household may have an EV
with sessions at home, and has a standard profile. No network gives their number, so a stated rule does: one a
load by default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evgrid.core.element_names import ElementNames
from evgrid.errors import ScenarioError

if TYPE_CHECKING:
    from evgrid.feeder.grid import Ints, Loads
    from evgrid.scenario.feeder import Households


def households_of(rule: int | Households, loads: Loads) -> Ints:
    """Households behind each load, (load,).

    Raises
    ------
    ScenarioError
        Naming the loads of the rule that the network does not have.

    """
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
    found = np.full(len(loads.name), rule.others, np.int64)
    found[place] = [*rule.by_load.values()]
    return found


def households_note(rule: int | Households, households: Ints) -> str:
    """The rule and the resulting number of households, as a sentence."""
    if isinstance(rule, int):
        text = "one a load" if rule == 1 else f"{rule} a load"
    elif rule.kw_each is not None:
        text = f"one per {rule.kw_each:g} kW of each load, at least one"
    else:
        text = f"of {len(rule.by_load)} loads as given, {rule.others} at each other"
    return f"feeder.households: {text}; {int(households.sum())} at {len(households)} loads."
