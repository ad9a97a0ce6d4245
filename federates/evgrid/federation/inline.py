"""Steps models in the calling thread, in the federation's order and without HELICS.

For tests and for making a process ready to run. Wiring, order, periods, initial values and the iteration
inside a step are those of a federation; messages travel without delay, and the models' outputs are not
checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evgrid.core.model import Array, Clock, Model, Values
from evgrid.core.ports import port
from evgrid.federation.wiring import Place, wire


def step_in_line(models: Sequence[Model], sizes: Mapping[str, int], clock: Clock) -> dict[str, Array]:
    """Step models through all ticks of a run and call their ``finish``.

    sizes : the size of every dimension of the ports in use

    Returns the last values of all ports in use. Raises WiringError if the models don't fit together;
    exceptions of models are not caught.
    """
    places = wire(models, sizes, clock)
    names = {name for model in models for name in (*model.inputs, *model.outputs)}
    values = {name: np.full(port(name).array_shape(dict(sizes)), port(name).initial) for name in names}
    unseen = {place.model.name: set[str]() for place in places}
    """Names of the values on which a model iterates that came since its last call."""

    def call(place: Place, step: Callable[[float, Values], Values]) -> None:
        unseen[place.model.name].clear()
        outputs = step(tick * clock.step_s, {name: values[name] for name in place.model.inputs})
        for name, found in outputs.items():
            values[name] = np.array(found)
            for other in places:
                if name in other.again_on:
                    unseen[other.model.name].add(name)

    for tick in range(clock.ticks):
        stepping = [place for place in places if tick % place.stride == 0]
        loop = [place for place in stepping if place.again_on]
        for place in stepping:
            call(place, place.model.step)
            while loop and place is loop[-1] and any(unseen[each.model.name] for each in loop):
                for each in loop:
                    if unseen[each.model.name]:
                        call(each, each.model.again)
    for place in places:
        place.model.finish()
    return values
