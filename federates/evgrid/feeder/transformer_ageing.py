"""Hot spot and loss of life of the feeder's transformers, computed during the run; the equations are in
:mod:`evgrid.feeder.transformer_thermal`.
"""

from __future__ import annotations

import numpy as np

from evgrid.core.model import Array, Clock
from evgrid.errors import ScenarioError
from evgrid.feeder.networks import Network
from evgrid.feeder.transformer_thermal import ThermalState, outcome
from evgrid.scenario.ambient import AmbientTemperature
from evgrid.scenario.devices import TransformerAgeing


class Ageing:
    """The transformers of all members. One that no source feeds cools to ambient."""

    def __init__(
        self, settings: TransformerAgeing, network: Network, clock: Clock, members: int, step_s: float
    ) -> None:
        """Raise ScenarioError where a transformer has no constants, or an ambient file has faults."""
        trafos, fed = network.grid.trafos, network.topology.energised
        found = [settings.constants(str(name)) for name in trafos.name]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            missing = [str(n) for n, one in zip(trafos.name, found, strict=True) if one is None]
            raise ScenarioError(
                [f"feeder.transformer_ageing.transformer: has no constants for {', '.join(missing)}"]
            )
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
