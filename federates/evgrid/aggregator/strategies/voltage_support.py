"""Coordinated voltage support: the aggregator knows the voltages and the effect of each EV on them.

In: the voltages at all connection points when the feeder last solved, the EVs' power then, and the
sensitivities (:mod:`evgrid.feeder.sensitivity`) of the network in which it solved. Out: set-points that keep
the voltages within limits (:mod:`evgrid.aggregator.strategies.voltage_kernels`): the worst place first, by
the EVs with the largest effect on it per kW, drivers with little time last.

A set-point is absolute, computed from the last voltages and the power at the time: errors of the
sensitivities are corrected in the next tick, and a set-point that is late is not counted twice.

Outages: the aggregator knows which elements were out of service throughout the feeder's last step, as it has
that step's voltages, and which EVs' chargers have reported that they can do nothing. It knows neither an
outage that began since nor when one will end. A place without voltage is not held, and EVs there have no
effect.

Left out: reactive power, for which there are no set-points. Chargers with ``volt_var`` add theirs on their
own; the aggregator sees its effect in the voltages of the next tick.

Of several aggregators with this strategy each corrects its share of the deviation of the last voltage from a
limit: otherwise all would correct the whole of it, and might oscillate.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from evgrid.aggregator.strategies.voltage_kernels import hold_voltages
from evgrid.aggregator.strategy import Context, Strategy, View
from evgrid.core.model import ALL_PHASES, Array, Sensitivity, Variable
from evgrid.scenario.aggregators import StrategySettings
from evgrid.scenario.fields import Duration, fault

Voltage = Annotated[float, Field(gt=0, lt=2)]


class VoltageSupportSettings(StrategySettings):
    """Settings of the strategy ``voltage_support``."""

    v_min_pu: Voltage = 0.92
    """Voltage below which no connection point and phase shall fall, pu of nominal."""
    v_max_pu: Voltage = 1.08
    """Voltage above which none shall rise, pu of nominal."""
    hysteresis_pu: Annotated[float, Field(ge=0)] = 0.002
    """Margin above v_min_pu at which a place is held once it had to be relieved, pu."""
    hysteresis: Annotated[Duration, Field(ge=0)] = 600.0
    """Time added to the laxity of an EV that is held back, so that EVs don't take turns."""
    discharge: bool = True
    """Whether EVs may be discharged where charging less does not suffice."""
    soc_reserve: Annotated[float, Field(ge=0, le=1)] = 0.0
    """State of charge below which an EV is not discharged."""
    pace: Literal["fast", "even"] = "fast"
    """Charging while the voltages allow: as fast as possible, or evenly until departure. The reserve of even
    serves to lower high voltages."""

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.v_min_pu + self.hysteresis_pu >= self.v_max_pu:
            raise fault(
                f"v_min_pu = {self.v_min_pu:g} with hysteresis_pu = {self.hysteresis_pu:g}: "
                f"must be below v_max_pu = {self.v_max_pu:g}"
            )
        return self


class VoltageSupport(Strategy):
    """Keep all voltages within limits: EVs charge less, or discharge, where it helps the worst place most."""

    Settings = VoltageSupportSettings
    uses_voltage = True
    variables = (
        Variable("voltage_support_reduced_kw", ("member",), "kW",
                 "power that EVs draw less, or give, to raise low voltages, as requested"),
        Variable("voltage_support_raised_kw", ("member",), "kW",
                 "power that EVs draw more to lower high voltages, as requested"),
    )  # fmt: skip

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        assert context.sensitivity is not None
        connections, phases = context.sensitivity.dv_dp.shape[:2]
        self._networks: tuple[Sensitivity, ...] = ()
        self._dv_dp = np.zeros((0, connections * phases, connections * phases))
        evs = context.evs
        three = (evs.phase == ALL_PHASES) & (phases > 1)
        self._place = evs.connection * phases + np.where(three | (phases == 1), 0, evs.phase)
        self._width = np.where(evs.connection < connections, np.where(three, phases, 1), 0)
        self._first = np.searchsorted(evs.member, np.arange(context.members + 1))
        self._held = np.zeros((context.members, connections * phases), np.bool_)
        self._reduced = np.zeros(len(evs), np.bool_)

    def setpoints(self, view: View) -> Array:
        """See :meth:`Strategy.setpoints`."""
        settings = self.settings
        must = view.laxity < view.step_s
        want = p_max = np.where(view.plugged, view.p_max, 0.0)
        if settings.pace == "even":
            even = 3600.0 * view.energy_needed / np.maximum(view.time_left, view.step_s)
            want = np.where(must, p_max, np.minimum(even, p_max))
        may = view.plugged & ~must & settings.discharge & (view.soc > settings.soc_reserve)
        shape = self._held.shape
        if view.sensitivities is not self._networks:
            self._networks = view.sensitivities
            self._dv_dp = np.stack([one.dv_dp.reshape(shape[1], shape[1]) for one in self._networks])
        voltage, part = view.voltage.reshape(shape), 1.0 / self.context.voltage_controllers
        width, power_then = self._width, view.power_then.reshape(shape)
        if not (voltage > 0.0).all():
            there = self._width > 0
            width = np.zeros_like(width)
            width[there] = np.where(
                voltage[self.context.evs.member[there], self._place[there]] > 0.0, self._width[there], 0
            )
            power_then = np.where(voltage > 0.0, power_then, 0.0)
        low = settings.v_min_pu + settings.hysteresis_pu * self._held
        low, high = (voltage + part * (limit - voltage) for limit in (low, settings.v_max_pu))
        setpoint, self._held = hold_voltages(
            self._first, voltage, power_then, self._dv_dp, view.network,
            low, high, self._place, width,
            want, np.where(must, want, 0.0), np.where(may, view.p_min, np.where(must, want, 0.0)), p_max,
            view.laxity + settings.hysteresis * self._reduced, view.step_s,
        )  # fmt: skip
        self._reduced = setpoint < want - 1e-9
        members, member = self.context.members, self.context.evs.member
        for name, change in (("reduced", want - setpoint), ("raised", setpoint - want)):
            total = np.bincount(member, np.maximum(change, 0.0), members)
            self.recorded[f"voltage_support_{name}_kw"] = total.astype(np.float64)
        return np.where((setpoint >= p_max) & (p_max > 0.0), np.inf, setpoint)
