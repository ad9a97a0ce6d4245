"""Settings of what is added at households: heat pumps, PV, and growth of the load."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from evgrid.scenario.fields import NamePatterns, Settings, fault
from evgrid.scenario.profiles import HeatPump
from evgrid.scenario.solar import NetworkPv

_KINDS = ("heat_pump", "pv", "load")


class Addition(Settings):
    """Heat pumps or PV at a share of the households, or a factor of the load."""

    at: NamePatterns = None
    """Names of the connection points of the area, or patterns such as 'North*'; left out: all."""
    penetration: Annotated[float, Field(ge=0, le=5)] | None = None
    """Heat pumps or PV systems per household of the area, drawn from the seed: those of a lower penetration
    are among those of a higher one."""
    heat_pump: HeatPump | None = None
    """Heat pumps, each of annual_kwh."""
    pv: NetworkPv | None = None
    """PV systems of kw each."""
    kw: Annotated[float, Field(gt=0)] = 8.0
    """Rated AC power of each PV system, kW (pv only)."""
    power_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Power factor of heat pumps, inductive; PV has 1."""
    load: Annotated[float, Field(ge=0)] | None = None
    """Factor of the base load of the area's connection points."""

    @property
    def kind(self) -> str:
        """heat_pump, pv or load."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise fault(f"give one of {', '.join(_KINDS)}, not {' and '.join(given) or 'none'}")
        if (self.penetration is None) != (given[0] == "load"):
            raise fault("penetration: is required for heat_pump and pv, and has no meaning for load")
        if self.heat_pump is not None and self.heat_pump.annual_kwh is None:
            raise fault("heat_pump.annual_kwh: is required, the network says nothing of added ones")
        for name, kind in (("kw", "pv"), ("power_factor", "heat_pump")):
            if getattr(self, name) != type(self).model_fields[name].default and given[0] != kind:
                raise fault(f"{name} = {getattr(self, name):g}: is for {kind}")
        return self
