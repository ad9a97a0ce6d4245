"""Flexibility of the EVs: their reserve for a horizon, and the envelope of their power and energy ahead.

In: what the kernels compute for each EV, or for groups of EVs. Out: sums over groups, which are recorded, and
what goes to aggregators. Kernels: :func:`evgrid.fleet.kernels.reports.flexibility` for the reserve,
:mod:`evgrid.fleet.kernels.envelope` for the envelope, with its equations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array, Connections, EVs, Recorder, Variable
from evgrid.fleet.grouping import GROUP_DIMS, groups_of, is_multiple
from evgrid.fleet.kernels.envelope import Limits
from evgrid.fleet.kernels.reports import Flexibility
from evgrid.scenario import Scenario
from evgrid.scenario.fleet import FlexibilityEnvelope

_RESERVES = {
    "fleet_reserve_up_kw": "power that the EVs can draw less or give, for the reserve horizon",
    "fleet_reserve_down_kw": "power that the EVs can draw more, for the reserve horizon",
}
_ENVELOPE = {
    "p_min": ("kW", "least mean power in the slot from which every departure is met"),
    "p_max": ("kW", "most mean power in the slot"),
    "e_min": ("kWh", "least energy at the meter, from the envelope's begin to the end of the slot"),
    "e_max": ("kWh", "most energy at the meter, from the envelope's begin to the end of the slot"),
}


class Reserve:
    """Reserve of each EV for the reserve horizon, and its sums over groups, every telemetry period."""

    of_ev: Flexibility
    """As of the last telemetry."""
    variables: tuple[Variable, ...]

    def __init__(
        self, scenario: Scenario, horizon_s: float, connections: Connections, evs: EVs, trafos: int
    ) -> None:
        """Prepare.

        Raises ScenarioError if an EV is in no group.
        """
        assert scenario.fleet is not None
        group = scenario.fleet.reserve_group
        self.horizon_s, self._period_s = horizon_s, scenario.telemetry_s
        self.of_ev = Flexibility(*(np.zeros(len(evs)) for _ in Flexibility._fields))
        groups, self._row = groups_of("reserve_group", group, connections, evs, trafos)
        self._sums = np.zeros((2, len(scenario.members), groups))
        self._whole = group == "feeder"
        dims = ("member", *GROUP_DIMS[group])
        self.variables = tuple(Variable(name, dims, "kW", text) for name, text in _RESERVES.items())

    def due(self, end_s: float) -> bool:
        """Whether it is to be computed at a time."""
        return is_multiple(end_s, self._period_s)

    def sum_up(self) -> None:
        """Sum what each EV offers over the groups."""
        for total, of_ev in zip(self._sums, (self.of_ev.up, self.of_ev.down), strict=True):
            total[:] = np.bincount(self._row, of_ev, total.size).reshape(total.shape)

    def offer(self) -> dict[str, Array]:
        """The offer of each EV by name, (ev,) each: a copy."""
        return {name: values.copy() for name, values in self.of_ev._asdict().items()}

    def record(self, recorder: Recorder, tick: int) -> None:
        """Record the sums of the last telemetry for a tick."""
        for name, by_group in zip(_RESERVES, self._sums, strict=True):
            recorder.put(name, tick, (by_group[:, 0] if self._whole else by_group)[np.newaxis])


class EnvelopeAhead:
    """The limits of power and energy that the EVs have ahead, summed over groups, at the times asked for."""

    row_of: NDArray[np.int64]
    """(ev,) row of each EV's group in (member · group,)."""
    variables: tuple[Variable, ...]
    outputs: tuple[str, ...]

    def __init__(
        self, scenario: Scenario, settings: FlexibilityEnvelope, connections: Connections, evs: EVs,
        trafos: int, reported: bool,
    ) -> None:  # fmt: skip
        """Prepare; ``reported``: whether an aggregator takes it.

        Raises ScenarioError if an EV is in no group.
        """
        self.settings, self.reported = settings, reported
        groups, self.row_of = groups_of("envelope.group", settings.group, connections, evs, trafos)
        times = int(scenario.clock.duration_s / settings.every_s + 1e-9)
        self._limits = np.zeros((4, times, len(scenario.members), groups, settings.slots), np.float32)
        dims = ("member", *GROUP_DIMS[settings.group], "envelope_time", "lead")
        self.variables = tuple(
            Variable(f"envelope_{name}_{unit.lower()}", dims, unit, text, timed=False, dtype="float32")
            for name, (unit, text) in _ENVELOPE.items()
        )
        self.outputs = tuple(f"fleet/envelope_{name}" for name in Limits._fields) if reported else ()

    @property
    def rows(self) -> int:
        """Number of groups of all members."""
        return self._limits.shape[2] * self._limits.shape[3]

    def due(self, end_s: float) -> bool:
        """Whether it is to be computed at a time."""
        return is_multiple(end_s, self.settings.every_s)

    def begins_h(self, hour: float) -> Array:
        """Local hours at which the slots begin, (slot,), from that of now, ``hour``."""
        return hour + np.arange(self.settings.slots, dtype=np.float64) * self.settings.slot / 3600.0

    def room(self, rows: int, count: int) -> Limits:
        """Arrays for the kernel to fill."""
        shape = (rows, self.settings.slots)
        return Limits(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape), np.ones(count))

    def keep(self, end_s: float, limits: Limits) -> None:
        """Keep the limits of all groups, (row, slot) each, for the time at which they were found."""
        now = self._limits[:, round(end_s / self.settings.every_s) - 1]
        for kept, values in zip(now, limits[:-1], strict=True):
            kept[:] = values.reshape(kept.shape)

    def record(self, recorder: Recorder) -> None:
        """Record all envelopes of the run."""
        by_member = np.moveaxis(self._limits, 1, 3)
        if self.settings.group == "feeder":
            by_member = by_member[:, :, 0]
        for variable, values in zip(self.variables, by_member, strict=True):
            recorder.put_static(variable.name, np.ascontiguousarray(values))
