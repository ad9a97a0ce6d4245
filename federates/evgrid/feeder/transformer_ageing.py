"""Hot spot and loss of life of the feeder's transformers, computed during the run; the equations are in
:mod:`evgrid.feeder.transformer_thermal`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.element_names import ElementNames
from evgrid.core.model import Array, Clock
from evgrid.errors import ScenarioError
from evgrid.feeder.networks import Network
from evgrid.feeder.transformer_thermal import ThermalState, outcome
from evgrid.scenario.ambient import AmbientTemperature
from evgrid.scenario.devices import TRANSFORMER_PRESETS, TransformerAgeing, TransformerThermal


def _constants(settings: TransformerAgeing, names: NDArray[np.str_]) -> list[TransformerThermal]:
    """Thermal constants of each transformer. Raises ScenarioError naming those that have none."""
    given, path = settings.transformer, "feeder.transformer_ageing.transformer"
    if isinstance(given, str):
        return [TRANSFORMER_PRESETS[given]] * len(names)
    if isinstance(given, TransformerThermal):
        return [given] * len(names)
    known = ElementNames(names)
    places = known.places(given)
    faults = [
        f"{path}.{name}: the network has no such transformer; {known.hint(name)}"
        for name, place in zip(given, places, strict=True)
        if place < 0
    ]
    of = dict(zip(places.tolist(), given.values(), strict=True))
    missing = [str(name) for place, name in enumerate(names) if place not in of]
    if missing:
        faults.append(f"{path}: has no constants for {', '.join(missing)}")
    if faults:
        raise ScenarioError(faults)
    return [of[place] for place in range(len(names))]


class Ageing:
    """The transformers of all members. One that no source feeds cools to ambient."""

    def __init__(
        self, settings: TransformerAgeing, network: Network, clock: Clock, members: int, step_s: float
    ) -> None:
        """Raise ScenarioError where a transformer has no constants, or an ambient file has faults."""
        trafos, fed = network.grid.trafos, network.topology.energised
        known = _constants(settings, trafos.name)
        self._dead = ~((trafos.hv_closed & fed[trafos.hv_bus]) | (trafos.lv_closed & fed[trafos.lv_bus]))
        self._ambient = AmbientTemperature(settings.ambient, clock)
        self._state = ThermalState(known, members, step_s)
        self._start_load, self._step_s, self._steps = settings.start_load, step_s, 0

    def run(self, loading: Array, times_s: Array) -> dict[str, Array]:
        """Advance over steps that begin at ``times_s``; loading : (time, member, trafo) per rated current."""
        load = np.where(self._dead, np.nan, loading)
        ambient_c = np.array([self._ambient.mean(t, t + self._step_s) for t in times_s.tolist()])
        if not self._steps:
            first = load[0]
            if self._start_load is not None:
                first = np.where(self._dead, np.nan, np.full(first.shape, self._start_load))
            self._state.settle(first, float(ambient_c[0]))
        self._steps += len(times_s)
        hot, top = self._state.run(load, ambient_c[:, np.newaxis])
        return {"trafo_hot_spot_c": hot, "trafo_top_oil_c": top}

    def outcome(self) -> dict[str, Array]:
        """Results after the last step, (member, trafo)."""
        return outcome(self._state, self._steps * self._step_s / 3600)
